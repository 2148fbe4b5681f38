"""`budget`: how much a program may ask of its store, as an assertion in a test."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

from interpreters.runtime.interpreter import Interpreter
from interpreters.wrappers.around import Around, Wrapper
from persist_effects.errors import CallerError, InvalidRequest, describe, repr_of
from persist_effects.requests import READS, WAITS, WRITES, Append, KvDelete, KvPut, Request, Transact


class OverBudget(CallerError, AssertionError):
    """A program asked for more than its budget. What it asked for last was not done.

    ``request`` is that request, ``what`` it had too many of, such as commits, ``limit`` how many there were.
    """

    def __init__(self, request: str, what: str, limit: int) -> None:
        super().__init__(request, what, limit)
        self.request = request
        self.what = what
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"over the budget of {self.what}={self.limit}: {self.request} was asked for, and not done: have the "
            f"program do with less, or give it a larger budget({self.what}=…)"
        )


def budget(
    *,
    requests: int | None = None,
    reads: int | None = None,
    commits: int | None = None,
    appends: int | None = None,
    events: int | None = None,
    puts: int | None = None,
    deletes: int | None = None,
) -> Wrapper:
    """A wrapper that refuses what goes over a limit, with an `OverBudget`, which is an AssertionError.

    It counts what is asked for from then on, by whichever programs, also what then meets a conflict or fails. Waits
    count as nothing, because how often a store is asked in one is its own affair; nor do `now`, `new_id` and `sleep`,
    nor what the store does not answer itself.

    Args:
        requests: How many requests. Those of one `transact` are one.
        reads: How many pages of events or names, values and numbers may be asked for.
        commits: How many requests that write. A `transact` is one.
        appends: How many appends, also within `transact`. One of several events is one.
        events: How many events may be appended.
        puts: How many values may be put, also within `transact`.
        deletes: How many keys may be deleted, also within `transact`.

    Returns:
        The wrapper.

    Raises:
        InvalidRequest: There is no limit, or one is not an int from 0 on.

    >>> from interpreters import open_store
    >>> from interpreters.wrappers import wrapped
    >>> from persist_effects import kv
    >>> def count_visit():
    ...     yield from kv.put("visits", (yield from kv.get_or("visits", 0)) + 1)
    ...     yield from kv.put("seen", True)
    >>> wrapped(open_store("memory:"), budget(commits=1)).run(count_visit())
    Traceback (most recent call last):
    interpreters.wrappers.budgets.OverBudget: over the budget of commits=1: KvPut(key='seen', value=True, expected=None)
    was asked for, and not done: have the program do with less, or give it a larger budget(commits=…)
    """
    given = {
        "requests": requests,
        "reads": reads,
        "commits": commits,
        "appends": appends,
        "events": events,
        "puts": puts,
        "deletes": deletes,
    }
    limits = {what: limit for what, limit in given.items() if limit is not None}
    if not limits:
        raise InvalidRequest("a budget without a limit: give one, such as budget(appends=3, commits=1)")
    for what, limit in limits.items():
        if type(limit) is not int or limit < 0:
            raise InvalidRequest(f"a budget's {what} is {describe(limit)}: give an int from 0 on")
    return partial(_Budgeted, limits=limits)


class _Budgeted(Around):
    """An interpreter around another one, which is asked so much and not more."""

    def __init__(self, inner: Interpreter, limits: Mapping[str, int]) -> None:
        self._limits = limits
        # Each number is taken in one step, so that threads share them without a lock.
        self._numbers = {what: count(1) for what in limits}
        super().__init__(inner)

    def change(self, request: Request[Any]) -> Request[Any]:
        """The same request, where it is within the limits."""
        for what in _parts_of(request):
            if what in self._limits and next(self._numbers[what]) > self._limits[what]:
                raise OverBudget(repr_of(request, 200), what, self._limits[what])
        return request


def _parts_of(request: Request[Any]) -> Iterator[str]:
    """What a request takes of a budget, each as often as it takes it."""
    kind = type(request)
    if kind not in WAITS:
        yield "requests"
    if kind in READS:
        yield "reads"
    if kind in WRITES:
        yield "commits"
    for write in request.writes if isinstance(request, Transact) else (request,):
        match write:
            case Append():
                yield "appends"
                yield from ("events" for _ in write.events)
            case KvPut():
                yield "puts"
            case KvDelete():
                yield "deletes"
            case _:
                pass
