"""What a row of a handler table may be: a function of one request, a program of the same table, or an async function.

One that is a generator function is a program: what it returns is the answer. One that is an async function is awaited
where programs run in tasks, and refused elsewhere.
"""

import functools
from types import CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any

from persist_effects.errors import InvalidRequest, describe

# The bits of `co_flags` that `inspect` calls CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

UNSETTLED = (GeneratorType, CoroutineType)
"""What a call of a row gives where its answer is still to come, if it is a program or an async function."""


def is_program_row(row: Any) -> bool:
    """Whether a row is a generator function, also as a method, a partial, or an object that is called.

    >>> def twice(request):
    ...     yield from ()
    >>> is_program_row(twice), is_program_row(functools.partial(twice)), is_program_row(len)
    (True, True, False)
    """
    return bool(_flags(row) & _GENERATOR)


def is_async_row(row: Any) -> bool:
    """Whether a row is an async function, in any of these ways.

    >>> async def fetch(request):
    ...     return 1
    >>> is_async_row(fetch), is_async_row(len)
    (True, False)
    """
    return bool(_flags(row) & _COROUTINE)


def is_async_generator_row(row: Any) -> bool:
    """Whether a row is an async generator function, which is of no use anywhere.

    >>> is_async_generator_row(len)
    False
    """
    return bool(_flags(row) & _ASYNC_GENERATOR)


def check_row(kind: str, row: Any) -> None:
    """Refuse what cannot be a row; ``kind`` is the name of its request's class.

    >>> check_row("FetchPrice", len)
    >>> check_row("FetchPrice", 450)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: the row for FetchPrice is an int, 450: give a function of one request
    """
    if not callable(row):
        raise InvalidRequest(f"the row for {kind} is {describe(row)}: give a function of one request")
    if is_async_generator_row(row):
        raise InvalidRequest(f"the row for {kind} is an async generator function: return the answer, do not yield it")


def refuse_async(op: str, answer: Any = None) -> InvalidRequest:
    """The error for a row that would have to be awaited where nothing does; what it gave is closed.

    >>> print(refuse_async("shop/fetch-price"))
    the handler of 'shop/fetch-price' is an async function: run this program with `await store.arun(program)`
    """
    if isinstance(answer, CoroutineType):
        # Python would warn that it was never awaited.
        answer.close()
    return InvalidRequest(
        f"the handler of {op!r} is an async function: run this program with `await store.arun(program)`"
    )


def _flags(row: Any) -> int:
    if type(row) is MethodType and type(row.__func__) is FunctionType:
        # As most rows of a store are, which is looked at whenever one is opened.
        return row.__func__.__code__.co_flags
    while isinstance(row, functools.partial):
        row = row.func
    if not isinstance(row, FunctionType | MethodType):
        row = getattr(type(row), "__call__", None)  # noqa: B004 - it is looked at, not called
    function = getattr(row, "__func__", row)
    return function.__code__.co_flags if isinstance(function, FunctionType) else 0
