"""Pure folds of events: the state that a stream, or all streams under a prefix, amounts to.

``step(value, event) -> value`` is pure: it returns the next value and changes neither argument. Then the same log
gives the same state, in one go, resumed from any state between, and from a snapshot. At most one page of events is
held at a time.
"""

from collections.abc import Callable
from functools import reduce
from typing import Generic, TypeVar

import msgspec

from persist_effects.errors import InvalidRequest, Truncated
from persist_effects.event import Event
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import Page, Read, ReadAll, Request

S = TypeVar("S")
StepFunction = Callable[[S, Event], S]


class State(msgspec.Struct, Generic[S], frozen=True):
    """What a fold has come to, and up to where: a sequence number, or a position for `project_all`."""

    value: S
    seq: int


@program
def project(stream: str, step: StepFunction[S], seed: S) -> Effect[State[S]]:
    """Fold a whole stream. Memory holds a page of it at a time.

    Args:
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.

    Returns:
        The state: the value, and the sequence number up to which it was folded.

    Raises:
        Truncated: If its beginning was dropped: use `persist_effects.snapshot.replay`.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> for amount in (5, 7):
    ...     _ = store.run(log.append("account/1", "deposited", amount))
    >>> store.run(project("account/1", lambda balance, event: balance + event.data, 0))
    State(value=12, seq=2)
    """
    return (yield from project_resume(stream, step, State(seed, 0)))


@program
def project_resume(stream: str, step: StepFunction[S], state: State[S]) -> Effect[State[S]]:
    """Go on with a fold from a state that it has come to.

    Args:
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        state: Where it is.

    Returns:
        The state at the stream's end.

    Raises:
        Truncated: If events after the state were dropped.
        InvalidRequest: If the state is ahead of the stream.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(project_resume("account/1", lambda balance, event: balance, State(0, 0)))
    State(value=0, seq=0)
    """
    source = f"stream {stream!r}"
    return (yield from _fold(lambda seq: Read(stream, after=seq), source, "sequence", step, state))


@program
def project_all(prefix: str, step: StepFunction[S], seed: S) -> Effect[State[S]]:
    """Fold the events of all streams under a prefix, in the order of their positions.

    Args:
        prefix: How the streams' names start.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.

    Returns:
        The state: the value, and as its ``seq`` the position up to which it was folded.

    Raises:
        Truncated: If any of the streams has lost events. It names the stream.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> for number in (1, 2, 3):
    ...     _ = store.run(log.append(f"orders/{number}", "placed", number))
    >>> store.run(project_all("orders/", lambda count, event: count + 1, 0)).value
    3
    """
    return (yield from project_all_resume(prefix, step, State(seed, 0)))


@program
def project_all_resume(prefix: str, step: StepFunction[S], state: State[S]) -> Effect[State[S]]:
    """Go on with `project_all` from a state that it has come to.

    Args:
        prefix: How the streams' names start.
        step: Gives the next value of a value and an event. It is pure.
        state: Where it is; its ``seq`` is a position.

    Returns:
        The state at the end.

    Raises:
        Truncated: If events after the state were dropped.
        InvalidRequest: If the state is ahead of the store.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(project_all_resume("orders/", lambda count, event: count, State(0, 0)))
    State(value=0, seq=0)
    """
    return (yield from _fold(lambda seq: ReadAll(after=seq, prefix=prefix), "the store", "position", step, state))


def _fold(
    page_after: Callable[[int], Request[Page]], source: str, place: str, step: StepFunction[S], state: State[S]
) -> Effect[State[S]]:
    """Fold page after page; ``source`` and ``place`` are how an error calls what is read, and where in it."""
    while True:
        page = yield from perform(page_after(state.seq))
        if page.head < state.seq:
            raise InvalidRequest(
                f"a state at {place} {state.seq} is ahead of {source}, which ends at {page.head}: "
                "it was made from another stream or store"
            )
        state, more = _fold_page(page, step, state)
        if not more:
            return state
        # Let the page go before the next one is asked for.
        del page


def _fold_page(page: Page, step: StepFunction[S], state: State[S]) -> tuple[State[S], bool]:
    """The state after a page, and whether there is another page."""
    if page.hole is not None:
        raise Truncated(page.hole.stream, page.hole.first_left)
    return State(reduce(step, page.events, state.value), page.next), page.next < page.head
