"""Programs that were made and never run, noticed: a forgotten ``yield from`` loses what it should have written.

On in Python's development mode (``python -X dev``), under the plugin for pytest, and where ``PERSIST_EFFECTS_DEBUG=1``
stands in the environment; ``PERSIST_EFFECTS_DEBUG=0`` switches it off everywhere. Else nothing is done.

A marked function's code is replaced, in place, so that names which were imported before make watched programs too.
Only a function with a closure, marked before it was switched on, is not reached by that.
"""

import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Generator
from types import CodeType, FrameType, FunctionType, GeneratorType
from typing import Any, NamedTuple
from weakref import ref

from persist_effects import programs
from persist_effects.programs import NeverRun

VARIABLE = "PERSIST_EFFECTS_DEBUG"

AnyProgram = Generator[Any, Any, Any]


class Lost(NamedTuple):
    """A program that was never run: the function that made it, the line that called that, and what was on then."""

    name: str
    file: str
    line: int
    module: str
    made_in: str

    def __str__(self) -> str:
        return (
            f"the program {self.name}(…), made at {self.file}:{self.line}, was never run, so nothing that it asks for "
            f"was done: write `yield from {self.name}(…)` in a program, `store.run({self.name}(…))` elsewhere"
        )


NeverRunReport = Callable[[Lost], None]


class _Made(NamedTuple):
    """A program on its way. Its frame tells, when it is gone, whether it has ever moved from its first place."""

    program: "ref[AnyProgram]"
    frame: FrameType
    start: int
    lost: Lost


class Watcher:
    """Watches the programs of marked functions for one who wants to know. ``made_in`` says what is on at the moment.

    >>> from persist_effects import kv
    >>> lost = []
    >>> with Watcher(lost.append):
    ...     _ = kv.put("color", "red")
    ...     del _
    >>> lost[0].name
    'kv.put'
    """

    def __init__(self, report: NeverRunReport, made_in: Callable[[], str] = str) -> None:
        self._report = report
        self._made_in = made_in
        self._made: dict[int, _Made] = {}
        self._outer: Watcher | None = None

    def __enter__(self) -> "Watcher":
        global _current
        self._outer, _current = _current, self
        _notice_starts()
        programs.watch(self)
        for function in programs.functions:
            _replace(function)
        _replace_taker()
        return self

    def __exit__(self, *exc_info: object) -> None:
        global _current  # noqa: PLW0603
        _current = self._outer
        programs.watch(_current)
        if _current is None:
            _put_back()
            _notice_no_more()

    def pending(self, made_in: str) -> bool:
        """Whether a program that was made in something is still there and was not started."""
        return any(made.lost.made_in == made_in and _is_at_start(made) for made in [*self._made.values()])

    def marked(self, function: FunctionType) -> FunctionType:
        """A function that is marked while this one watches."""
        if function.__closure__:
            return _watched(function)
        _replace(function)
        return function

    def refused(self, program: AnyProgram) -> None:
        """A program was given to be run, and an error says that it is not."""
        self._made.pop(id(program.gi_frame), None)  # type: ignore[attr-defined]

    def made(self, program: AnyProgram, function: FunctionType, caller: FrameType) -> None:
        """A program was made by a marked function, which this frame called."""
        frame: FrameType | None = program.gi_frame  # type: ignore[attr-defined]
        if frame is None:
            return
        key = id(frame)
        name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__.rpartition('<locals>.')[2]}"
        module = str(caller.f_globals.get("__name__", "<unknown>"))
        lost = Lost(name, caller.f_code.co_filename, caller.f_lineno, module, self._made_in())
        self._made[key] = _Made(ref(program, lambda _: self._gone(key)), frame, frame.f_lasti, lost)
        _look_at(function.__code__)

    def begun(self, frame: FrameType) -> None:
        """A program was begun, so it is not lost."""
        self._made.pop(id(frame), None)
        if self._outer is not None:
            self._outer.begun(frame)

    def _gone(self, key: int) -> None:
        made = self._made.pop(key, None)
        if made is not None and _is_at_start(made) and not sys.is_finalizing():
            self._report(made.lost)


_current: Watcher | None = None


def watch_if_asked() -> None:
    """Warn of programs that are never run, where development mode or the environment asks for that."""
    if not is_switched_off() and (sys.flags.dev_mode or os.environ.get(VARIABLE)):
        Watcher(_warn).__enter__()


def is_switched_off() -> bool:
    """Whether the environment says that nobody shall watch."""
    return os.environ.get(VARIABLE) == "0"


def _warn(lost: Lost) -> None:
    warnings.warn_explicit(str(lost), NeverRun, lost.file, lost.line, lost.module)


def _is_at_start(made: _Made) -> bool:
    return made.frame.f_lasti == made.start


# Programs that begin. From Python 3.12 on the frame of one that is over keeps who ran it, and so the program itself: it
# is let go of as soon as it begins. Debuggers, coverage, profilers and Hypothesis have other numbers.

_NUMBER = 4
_NAME = "persist-effects"

if sys.version_info >= (3, 12):
    _starts = sys.monitoring

    def _notice_starts() -> None:
        if _starts.get_tool(_NUMBER) is None:
            _starts.use_tool_id(_NUMBER, _NAME)
            _starts.register_callback(_NUMBER, _starts.events.PY_START, _started)

    def _look_at(code: CodeType) -> None:
        if _starts.get_tool(_NUMBER) == _NAME:
            _starts.set_local_events(_NUMBER, code, _starts.events.PY_START)

    def _notice_no_more() -> None:
        if _starts.get_tool(_NUMBER) == _NAME:
            _starts.register_callback(_NUMBER, _starts.events.PY_START, None)
            _starts.free_tool_id(_NUMBER)

    def _started(code: CodeType, offset: int) -> None:
        if _current is not None:
            _current.begun(sys._getframe(1))

else:

    def _notice_starts() -> None:
        """There is nothing to notice: a frame of Python 3.11 keeps nothing."""

    def _look_at(code: CodeType) -> None:
        """As above."""

    def _notice_no_more() -> None:
        """As above."""


# Functions that are watched

_originals: dict[FunctionType, FunctionType] = {}
"""The functions whose code was replaced, and copies of them as they were."""


def _stand_in(*args: Any, _make: Callable[..., Any], **kwargs: Any) -> Any:
    return _make(*args, **kwargs)


def _stand_in_code(function: FunctionType) -> CodeType:
    """Code that calls ``_make``, and looks like the function's own: of the same kind, and at the same line."""
    code, own = _stand_in.__code__, function.__code__
    kind = own.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE)
    return code.replace(
        co_flags=code.co_flags | kind,
        co_name=own.co_name,
        co_filename=own.co_filename,
        co_firstlineno=own.co_firstlineno,
    )


def _made_by(function: FunctionType, /, *args: Any, **kwargs: Any) -> Any:
    program = function(*args, **kwargs)
    if _current is not None and type(program) is GeneratorType:
        # The frame above is that of the stand-in.
        _current.made(program, function, sys._getframe(2))
    return program


def _taken_by(function: FunctionType, /, store: Any, program: Any) -> Any:
    # From here on Python tells, where it was never awaited.
    programs.refused(program)
    return function(store, program)


def _copy(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = (
        function.__kwdefaults__,
        function.__qualname__,
        function.__module__,
    )
    return copy


def _replace(function: FunctionType, through: Callable[..., Any] = _made_by) -> None:
    if function in _originals or function.__closure__:
        return
    original = _originals[function] = _copy(function)
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    code = _stand_in_code(function)
    # Before the code, so that a thread which calls it meanwhile finds what the code asks for.
    function.__kwdefaults__ = {**(function.__kwdefaults__ or {}), "_make": functools.partial(through, original)}
    function.__code__ = code


def _replace_taker() -> None:
    from interpreters.runtime.store import Store

    arun: Any = Store.arun
    _replace(arun, _taken_by)


def _put_back() -> None:
    for function, original in _originals.items():
        function.__code__ = original.__code__
        function.__kwdefaults__ = original.__kwdefaults__
        del function.__signature__  # type: ignore[attr-defined]
    _originals.clear()


def _watched(function: FunctionType) -> FunctionType:
    """A function in the place of one whose code cannot be replaced, because it has a closure."""
    watched = FunctionType(_stand_in_code(function), function.__globals__, function.__name__)
    functools.update_wrapper(watched, function)
    watched.__kwdefaults__ = {"_make": functools.partial(_made_by, function)}
    return watched
