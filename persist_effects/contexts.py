"""Context variables: each of several programs that go on in one thread has a context of its own.

A generator has none: it runs in the context of whoever steps it. So what drives several programs steps each in a copy
of the context in which they were given, the same one from its first step to its last: what it sets, no other program
sees, nor the caller, and what it has set it may reset. One program alone runs in its caller's context, as a function.
"""

from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from types import CodeType, FunctionType, GeneratorType
from typing import Any, TypeVar, cast

from persist_effects.requests import AllOf, Request

F = TypeVar("F", bound=Callable[..., Any])

RunIn = Callable[..., Any]
"""Calls a function with arguments in some context."""


def here(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the context that is there.

    >>> here(len, "abc")
    3
    """
    return function(*args)


_leaving_alone: set[CodeType] = set()


def leaves_contexts_alone(function: F) -> F:
    """Mark a function whose programs call nothing of the user's: to them, a context of their own makes no difference.

    Bulk writes consist of such programs, and a context costs a part of an append.

    >>> from persist_effects import kv
    >>> program = kv.has("color")
    >>> own_contexts([program]) == [here], next(program)
    (True, KvHas(key='color'))
    """
    _leaving_alone.add(cast(FunctionType, function).__code__)
    return function


def own_contexts(programs: Iterable[object]) -> list[RunIn]:
    """A copy of the context that is there for each program, as the function that calls another one in it.

    A request, and a program that `leaves_contexts_alone`, needs none.

    >>> from contextvars import ContextVar
    >>> color = ContextVar("color", default="none")
    >>> def painting(name):
    ...     color.set(name)
    ...     yield
    ...     yield color.get()
    >>> programs = [painting("red"), painting("blue")]
    >>> contexts = own_contexts(programs)
    >>> _ = [run_in(next, program) for run_in, program in zip(contexts, programs)]
    >>> [run_in(next, program) for run_in, program in zip(contexts, programs)], color.get()
    (['red', 'blue'], 'none')
    """
    return [here if _is_left_alone(program) else copy_context().run for program in programs]


def _is_left_alone(program: object) -> bool:
    return program.gi_code in _leaving_alone if type(program) is GeneratorType else isinstance(program, Request)


class Parts(tuple[Request[Any], ...]):
    """The requests of an `AllOf`, and the context of the program that asks each."""

    runs: Sequence[RunIn]


def parts_in(requests: Iterable[Request[Any]], runs: Sequence[RunIn]) -> Parts:
    """Requests that are performed together by programs which have these contexts.

    >>> from persist_effects.requests import KvHas
    >>> parts_in([KvHas("color")], [here])
    (KvHas(key='color'),)
    """
    parts = Parts(requests)
    parts.runs = runs
    return parts


def runs_of(request: AllOf) -> Sequence[RunIn]:
    """The contexts of those that ask the parts of a request.

    >>> runs_of(AllOf(())), runs_of(AllOf(parts_in([], [])))
    ([], [])
    """
    requests = request.requests
    return requests.runs if type(requests) is Parts else [here] * len(requests)
