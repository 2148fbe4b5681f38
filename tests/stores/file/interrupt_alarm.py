"""Ctrl-C by a timer: an interrupt that comes so many seconds after something began, at whatever step it then is."""

import signal
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any, NamedTuple

OWN = tuple(str(Path(__file__).parents[3] / folder) for folder in ("interpreters", "persist_effects"))

IN_MEMORY = "/dev/shm"
PLACES = [None, IN_MEMORY, IN_MEMORY] if Path(IN_MEMORY).is_dir() else [None]
"""Where stores are made. Most interrupts of a store on a disk come in a sync, and of one in memory between syncs."""

BEYOND = 1.2
"""Moments are drawn from an operation's beginning until so many times what it takes, so that most come inside."""


class Interrupted(NamedTuple):
    """What became of something that was to be interrupted.

    ``error`` is what it raised, if not KeyboardInterrupt; ``places`` says of each interrupt where it came.
    """

    was_raised: bool
    error: BaseException | None
    places: list[str]
    seconds: float


class Alarm:
    """Has the main thread interrupted as Ctrl-C would, by the handler of SIGINT that is installed at the time."""

    def __init__(self) -> None:
        self._is_armed = False
        self._left = 0
        self.places: list[str] = []
        signal.signal(signal.SIGALRM, self._ring)

    def during(self, act: Callable[[], object], at_seconds: tuple[float, ...]) -> Interrupted:
        """Do something, with interrupts at these times after its beginning. None comes after its end."""
        self.places, self._left = [], len(at_seconds)
        was_raised, error = False, None
        start = end = perf_counter()
        try:
            try:
                self._is_armed = True
                if at_seconds:
                    signal.setitimer(signal.ITIMER_REAL, at_seconds[0], max(at_seconds[-1] - at_seconds[0], 1e-5))
                act()
            finally:
                self._is_armed = False
                end = perf_counter()
                signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as raised:
            was_raised = _is_interrupt(raised)
            # Not kept, since it keeps all that was interrupted, as no user's program does.
            error = None if was_raised else raised
        return Interrupted(was_raised, error, self.places, end - start)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if not self._is_armed or not self._left:
            return
        self._left -= 1
        if not self._left:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.places.append(_place(frame))
        handler: Any = signal.getsignal(signal.SIGINT)
        handler(signal.SIGINT, frame)


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_interrupt, error.exceptions))
    return isinstance(error, KeyboardInterrupt)


def _place(frame: FrameType | None) -> str:
    """The innermost frames of this project, as ``file:line (function)``, the innermost last."""
    names: list[str] = []
    while frame is not None and len(names) < 6:
        code = frame.f_code
        if code.co_filename.startswith(OWN):
            names.append(f"{Path(code.co_filename).name}:{frame.f_lineno} ({code.co_name})")
        frame = frame.f_back
    return " > ".join(reversed(names)) or "outside of this project"
