"""Ctrl-C, or another error, where Python would raise it: before a line or a step within one, each in its turn."""

import dis
import linecache
import sys
from collections.abc import Collection
from functools import cache
from itertools import pairwise


class Interrupt:
    """Raises an error before the ``at``-th line that this thread runs of these files. 0: it only counts."""

    def __init__(self, at: int, files: Collection[str], error: type[BaseException] = KeyboardInterrupt) -> None:
        self.at = at
        self.error = error
        self.files = files
        self.count = 0
        self.place = ""
        # How many lines had come when each came for the first time.
        self.firsts: dict[str, int] = {}

    def __enter__(self) -> "Interrupt":
        # Coverage's, if that is measured.
        self._before = sys.gettrace()
        # Python 3.12 tells of steps only where a frame has asked for them by the time that tracing begins.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._calls)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _calls(self, frame, event, argument):
        # In a `__del__` Python tells of an interrupt and then loses it.
        is_sought = frame.f_code.co_filename in self.files and frame.f_code.co_name != "__del__"
        return self._lines if is_sought else None

    def _lines(self, frame, event, argument):
        if event == "line" and not self._is_seamless(frame):
            self.count += 1
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
            self.firsts.setdefault(place, self.count)
            if self.count == self.at:
                self.place = place
                raise self.error
        return self._lines

    def _is_seamless(self, frame) -> bool:
        """Whether Python does not look for signals before the line: it only enters or leaves a block."""
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return line == "try:" or line.startswith("with ")


class InterruptInside(Interrupt):
    """As `Interrupt`, at each step at which Python looks for signals: where a function begins, and after each call."""

    def _calls(self, frame, event, argument):
        lines = super()._calls(frame, event, argument)
        if lines is not None:
            # Python 3.13 tells of a frame's steps only where it has its function by then.
            frame.f_trace = lines
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return lines

    def _lines(self, frame, event, argument):
        if event == "opcode" and frame.f_lasti in _looks_for_signals(frame.f_code):
            self.count += 1
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name}, {frame.f_lasti})"
            self.firsts.setdefault(place, self.count)
            if self.count == self.at:
                self.place = place
                raise KeyboardInterrupt
        return self._lines


@cache
def _looks_for_signals(code) -> frozenset[int]:
    """The steps before which Python may raise what a signal asks for."""
    pairs = pairwise(dis.get_instructions(code))
    return frozenset(after.offset for step, after in pairs if step.opname in _LOOKED_AFTER)


_LOOKED_AFTER = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME"}
