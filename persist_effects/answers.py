"""Whether a row answers with what its request promises: the ``A`` of its ``Request[A]``.

Checked in explorations and tests, where a wrong answer is to be found; elsewhere it costs too much.
"""

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from persist_effects.codec import STORE_REQUESTS
from persist_effects.errors import InvalidAnswer, describe, name_of_type
from persist_effects.machine import Handler, Handlers
from persist_effects.requests import AllOf, Request
from persist_effects.rows import UNSETTLED, is_async_row, is_program_row
from persist_effects.trace.values import answer_type

_NOT_THE_USERS = frozenset({*STORE_REQUESTS, AllOf})

_is_asked = False


def check_answers(is_asked: bool) -> bool:
    """Have the rows of every store that is opened from now on checked, or not. Returns whether they were before.

    >>> check_answers(check_answers(True))
    True
    """
    global _is_asked
    before, _is_asked = _is_asked, is_asked
    return before


def rows_of_a_store(rows: Handlers) -> Handlers:
    """The user's rows as a store takes them: checked, if somebody asked for that.

    >>> rows_of_a_store({})
    {}
    """
    return checked_rows(rows) if _is_asked else rows


def checked_rows(rows: Handlers) -> Handlers:
    """The same table, in which the rows of the user's own requests raise `InvalidAnswer` for a wrong answer.

    >>> from persist_effects import perform, run
    >>> class FetchPrice(Request[int], frozen=True, tag="shop/fetch-price"):
    ...     sku: str
    >>> run(perform(FetchPrice("tea")), checked_rows({FetchPrice: lambda request: "4.50"}))
    Traceback (most recent call last):
    persist_effects.errors.InvalidAnswer: the row for FetchPrice, ... answered FetchPrice(sku='tea') with a str, ...
    """
    own = {
        kind: _checked(kind, row)
        for kind, row in rows.items()
        if kind not in _NOT_THE_USERS and not hasattr(row, "checks_answers_of") and _wanted(kind) is not Any
    }
    return {**rows, **own} if own else rows


@lru_cache(maxsize=512)
def _wanted(kind: type[Request[Any]]) -> Any:
    try:
        return answer_type(kind)
    except (TypeError, NameError):
        # Its annotation cannot be read here.
        return Any


def _checked(kind: type[Request[Any]], row: Handler) -> Handler:
    def check(request: Any, found: Any) -> Any:
        if not fits(found, _wanted(kind)):
            name = getattr(row, "__qualname__", repr(row))
            raise InvalidAnswer(f"{request!r:.120}", kind.__name__, name, describe(found), name_of_type(_wanted(kind)))
        return found

    async def awaited(request: Any) -> Any:
        return check(request, await row(request))

    def run(request: Any) -> Any:
        return check(request, (yield from row(request)))

    def answered(request: Any) -> Any:
        found = row(request)
        # Whoever awaits it, or refuses it, does that now.
        return found if isinstance(found, UNSETTLED) or hasattr(found, "__await__") else check(request, found)

    made: Any = awaited if is_async_row(row) else run if is_program_row(row) else answered
    made.checks_answers_of = kind
    return made  # type: ignore[no-any-return]


# Types


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of a type, as far as that can be seen of it. What is not known fits.

    >>> fits([1, 2], list[int]), fits([1, "2"], list[int]), fits(None, int | None), fits(1, float)
    (True, False, True, True)
    """
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if wanted is None or wanted is NoneType:
        return value is None
    if isinstance(wanted, TypeVar) or wanted is Any:
        return True
    if origin is not None:
        return _is_instance(value, origin) and _parts_fit(value, origin, arguments)
    if wanted in (float, complex):
        return isinstance(value, int | float | wanted)
    return _is_instance(value, wanted)


def _parts_fit(value: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if isinstance(value, msgspec.Struct | str | bytes):
        return True
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is ...):
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if isinstance(value, Mapping) and len(arguments) == 2:
        return all(fits(key, arguments[0]) and fits(part, arguments[1]) for key, part in value.items())
    if isinstance(value, Sequence | Set) and arguments:
        return all(fits(part, arguments[0]) for part in value)
    return True


def _is_instance(value: Any, wanted: Any) -> bool:
    # The base of a `NewType`, and the class of a `TypedDict`, which no value is an instance of.
    base = getattr(wanted, "__supertype__", None)
    if base is not None:
        return fits(value, base)
    if isinstance(wanted, type) and issubclass(wanted, dict) and hasattr(wanted, "__total__"):
        return isinstance(value, dict)
    try:
        return isinstance(value, wanted)
    except TypeError:
        return True
