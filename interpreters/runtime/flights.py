"""Requests in flight: submitted to a store together, their outcomes taken in as they come, from any thread."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from interpreters.runtime.interpreter import AnswerAll, Submit
from interpreters.threads.gates import Gate, wait_until_told
from persist_effects.errors import UncertainOutcome
from persist_effects.requests import Failed, Outcome, Request


class Flight:
    """The outcomes of some requests that were submitted together, as they come.

    No lock is taken, so that an interrupt leaves none held: of a dict's single operations each is atomic. Where two
    come last in two threads, both tell.

    Args:
        size: How many requests there are.
        told: Called when the last outcome has come, in the thread that brings it. Perhaps more than once.

    >>> from persist_effects.requests import Answered
    >>> flight = Flight(2, lambda: print("all there"))
    >>> flight.done(1, Answered("b"))
    >>> flight.done(0, Answered("a"))
    all there
    >>> [outcome.value for outcome in flight.outcomes()]
    ['a', 'b']
    """

    __slots__ = ("_come", "_size", "_told")

    def __init__(self, size: int, told: Callable[[], object]) -> None:
        self._size = size
        self._told = told
        self._come: dict[int, Outcome] = {}

    def done(self, index: int, outcome: Outcome) -> None:
        """Take in an outcome. The first that comes for a request is the one that counts."""
        if not 0 <= index < self._size:
            raise out_of_range(index, self._size)
        self._come.setdefault(index, outcome)
        if len(self._come) == self._size:
            self._told()

    def is_complete(self) -> bool:
        """Whether all outcomes have come."""
        return len(self._come) == self._size

    def outcomes(self) -> list[Outcome]:
        """The outcomes in the order of the requests, once all have come."""
        return [self._come[index] for index in range(self._size)]

    def fail_the_rest(self, error: BaseException) -> None:
        """After an error of ``submit`` itself: it is the outcome of each request that has none yet.

        Of an interrupt nobody knows how far the store had come.
        """
        for index in range(self._size):
            self.done(index, Failed(error if isinstance(error, Exception) else _uncertain(error)))


def answering_through(submit: Submit) -> AnswerAll:
    """A store's ``submit`` as an ``answer_all``, which waits in the calling thread until all outcomes are there.

    Args:
        submit: A store's own.

    Returns:
        A function that has all of its requests in flight at once. An interrupt is raised once what is in flight has
        come, so that no clean-up overtakes it; a second one at once.

    >>> from persist_effects.requests import Answered, KvHas
    >>> def submit(requests, done):
    ...     for index in reversed(range(len(requests))):
    ...         done(index, Answered(requests[index].key))
    >>> [outcome.value for outcome in answering_through(submit)([KvHas("a"), KvHas("b")])]
    ['a', 'b']
    """

    def answer_all(requests: Sequence[Request[Any]]) -> list[Outcome]:
        if not requests:
            return []
        all_there = Gate()
        flight = Flight(len(requests), all_there.open)
        try:
            submit(requests, flight.done)
        except Exception as error:
            flight.fail_the_rest(error)
        try:
            wait_until_told(all_there, math.inf, flight.is_complete)
        except BaseException:
            wait_until_told(all_there, math.inf, flight.is_complete)
            raise
        return flight.outcomes()

    return answer_all


def out_of_range(index: int, size: int) -> IndexError:
    """What a store meets that calls ``done`` for a request that was not submitted.

    >>> out_of_range(2, 2)
    IndexError('done was called with index 2, and 2 requests were submitted: give 0 to 1')
    """
    return IndexError(f"done was called with index {index}, and {size} requests were submitted: give 0 to {size - 1}")


def _uncertain(error: BaseException) -> UncertainOutcome:
    return UncertainOutcome(f"requests were being submitted when {error!r} came: whether they were is not known")
