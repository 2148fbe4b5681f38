"""`program`: marks a generator function, so that a program that it made and that nobody ran can be noticed.

A forgotten ``yield from`` makes a program and drops it: nothing is asked, nothing written, and Python says nothing.
Whoever watches is told of each program that a marked function makes; while nobody does, a marked function is what it
was. `interpreters.never_run` watches.
"""

from collections.abc import Callable, Generator
from types import CodeType, FunctionType, GeneratorType
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar
from weakref import WeakSet

from persist_effects.errors import InvalidRequest, describe

F = TypeVar("F", bound=Callable[..., Generator[Any, Any, Any]])

if TYPE_CHECKING:
    _Made = GeneratorType[Any, Any, Any]
else:
    _Made = GeneratorType

# The bits of `co_flags` that `inspect` calls CO_COROUTINE and CO_ASYNC_GENERATOR.
_IS_ASYNC = 0x80 | 0x200


class NeverRun(RuntimeWarning):
    """A program was made and dropped, and never run: nothing that it asks for was done."""


class ProgramWatch(Protocol):
    """Whoever wants to know what becomes of programs."""

    def marked(self, function: FunctionType) -> FunctionType:
        """What takes the place of a function that is marked now."""
        ...

    def refused(self, program: Generator[Any, Any, Any]) -> None:
        """A program was given to be run, and was refused with an error: it is not lost in silence."""
        ...


functions: WeakSet[FunctionType] = WeakSet()
"""The functions that are marked."""

_codes: WeakSet[CodeType] = WeakSet()
_watch: ProgramWatch | None = None


def program(function: F) -> F:
    """Mark a generator function of yours, so that a program of it which is made and never run is noticed.

    That is so in Python's development mode, under the plugin for pytest, and where ``PERSIST_EFFECTS_DEBUG=1`` stands
    in the environment; else the function stays as it is, and costs nothing. Raises `InvalidRequest` for what is no
    function, and for an async one.

    >>> from persist_effects import kv
    >>> @program
    ... def paint(color: str):
    ...     yield from kv.put("color", color)
    >>> next(paint("red"))
    KvPut(key='color', value='red', expected=None)
    """
    if not isinstance(function, FunctionType) or function.__code__.co_flags & _IS_ASYNC:
        raise InvalidRequest(
            f"@program stands above {describe(function)}: mark a function that is made with `def` and has `yield from`"
        )
    functions.add(function)
    _codes.add(function.__code__)
    return function if _watch is None else _watch.marked(function)  # type: ignore[return-value]


def watch(watching: ProgramWatch | None) -> ProgramWatch | None:
    """Have somebody told from now on, or nobody any more; returns who was told before.

    >>> before = watch(None)
    >>> watch(before) is None
    True
    """
    global _watch
    before, _watch = _watch, watching
    return before


def is_fresh_program(found: object) -> TypeGuard[_Made]:
    """Whether something is a program, of a marked function, that was not started yet.

    >>> from persist_effects import kv
    >>> program = kv.get("color")
    >>> is_fresh_program(program), is_fresh_program(letter for letter in "ab")
    (True, False)
    >>> _ = next(program)
    >>> is_fresh_program(program)
    False
    """
    return (
        isinstance(found, GeneratorType)
        and not found.gi_suspended
        and not found.gi_running
        and found.gi_frame is not None
        and found.gi_code in _codes
    )


def refused(*programs: object) -> None:
    """Say of programs that they were given to be run and are not, because an error is raised instead.

    >>> from persist_effects import kv
    >>> refused(kv.get("color"))
    """
    if _watch is not None:
        for found in programs:
            if isinstance(found, GeneratorType):
                _watch.refused(found)
