"""Programs that go on asking whatever they are told: counted, and ended.

A driver throws an error in where a program waits, and the program may catch it and ask again. Where the answer can
never be another one, or where an interrupt is caught again and again, that would never end.
"""

from collections.abc import Generator
from typing import Any

from persist_effects.errors import (
    InvalidRequest,
    NotAProgram,
    NotARequest,
    Spinning,
    StoreClosed,
    UnhandledEffect,
    repr_of,
)
from persist_effects.programs import refused
from persist_effects.requests import Request
from persist_effects.source import source_of

REFUSALS_LIMIT = 1_000
"""How often in a row a program may ask for the same and be refused for good: more often than any loop has use for."""

INTERRUPTS_LIMIT = 10
"""How many interrupts a program may catch in one run: more than its cleaning up meets, and few enough to press."""

FOR_GOOD = (UnhandledEffect, NotARequest, NotAProgram, InvalidRequest, StoreClosed)
"""Errors that the same request meets again, however often it is asked."""

_CLOSING_ATTEMPTS = 100


class Trouble:
    """What one program was told and did not heed. Made at the first error, so that a run without one has none.

    ``is_ending``: the program is given up already, so each refusal counts, whatever it asks.
    """

    __slots__ = ("_interrupts", "_is_ending", "_refusals", "_request")

    def __init__(self, *, is_ending: bool = False) -> None:
        self._is_ending = is_ending
        self._interrupts = 0
        self._refusals = 0
        self._request: Any = None

    def answered(self) -> None:
        """A request of it was answered: what was refused before no longer counts."""
        self._refusals = 0

    def refused(self, program: Any, request: Any, error: Exception) -> None:
        """Count a refusal that is for good. Raises `Spinning` where there were too many in a row."""
        if not self._refusals or self._is_ending or _is_same(request, self._request):
            self._refusals += 1
        else:
            self._refusals = 1
        self._request = request
        if self._refusals > REFUSALS_LIMIT:
            told = f"{type(error).__name__}: {error}"
            spinning = Spinning(program.__qualname__, repr_of(request, 120), told, source_of(program), REFUSALS_LIMIT)
            give_up(program)
            raise spinning

    def interrupted(self, program: Any, interrupt: BaseException) -> None:
        """Count an interrupt that is to be raised in the program; where it caught too many, raise it here instead."""
        self._interrupts += 1
        self._is_ending = self._is_ending or not isinstance(interrupt, Exception)
        if self._interrupts > INTERRUPTS_LIMIT:
            give_up(program)
            raise interrupt


def counted(trouble: Trouble | None, program: Any, request: Any, error: BaseException) -> Trouble | None:
    """The trouble that a program has, with the error that is to be thrown in at this request.

    Raises `Spinning`, or the error itself, where the program would go on for ever.

    >>> counted(None, None, None, OSError("the disk is full")) is None
    True
    """
    if isinstance(error, FOR_GOOD):
        trouble = trouble or Trouble()
        trouble.refused(program, request, error)
    elif not isinstance(error, Exception):
        trouble = trouble or Trouble()
        trouble.interrupted(program, error)
    return trouble


def give_up(program: Generator[Any, Any, Any]) -> None:
    """End a program as if its process were gone: what its ``finally`` blocks ask for reaches no store.

    >>> def stubborn():
    ...     while True:
    ...         try:
    ...             yield
    ...         except GeneratorExit:
    ...             return
    >>> program = stubborn()
    >>> next(program), give_up(program), program.gi_frame
    (None, None, None)
    """
    refused(program)
    for _ in range(_CLOSING_ATTEMPTS):
        try:
            program.close()
        except Exception:  # noqa: S112 - there is nobody left whom it would concern
            continue
        return


def _is_same(request: Any, before: Any) -> bool:
    """Whether a program asks for the same again. What is not a request is as good as any other."""
    if not isinstance(request, Request):
        return not isinstance(before, Request)
    fields = request.__struct_fields__
    try:
        return type(request) is type(before) and all(
            _is_same_value(getattr(request, name), getattr(before, name)) for name in fields
        )
    except Exception:
        # Its values cannot be compared: then it looks the same.
        return repr(request) == repr(before)


def _is_same_value(value: Any, before: Any) -> bool:
    # Not a number is not equal to itself.
    return bool(value is before or value == before or (type(value) is float and repr(value) == repr(before)))
