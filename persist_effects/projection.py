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
from persist_effects.holes import holes_after, missed_of
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import Hole, Page, Read, ReadAll, Request

S = TypeVar("S")
StepFunction = Callable[[S, Event], S]


class State(msgspec.Struct, Generic[S], frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """What a fold has come to, and up to where: a sequence number, or a position for `project_all`.

    ``missed``: how many events it has passed over because they were truncated; for `project_all` that goes on from a
    position, at the most.
    """

    value: S
    seq: int
    missed: int = 0


@program
def project(stream: str, step: StepFunction[S], seed: S, *, skip_truncated: bool = False) -> Effect[State[S]]:
    """Fold a whole stream. Memory holds a page of it at a time.

    Args:
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.
        skip_truncated: Whether to pass over events that were dropped, and count them as ``missed``.

    Returns:
        The state: the value, and the sequence number up to which it was folded.

    Raises:
        Truncated: If its beginning was dropped, unless it is skipped: use `persist_effects.snapshot.replay`.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> for amount in (5, 7):
    ...     _ = store.run(log.append("account/1", "deposited", amount))
    >>> store.run(project("account/1", lambda balance, event: balance + event.data, 0))
    State(value=12, seq=2)
    """
    return (yield from project_resume(stream, step, State(seed, 0), skip_truncated=skip_truncated))


@program
def project_resume(
    stream: str, step: StepFunction[S], state: State[S], *, skip_truncated: bool = False
) -> Effect[State[S]]:
    """Go on with a fold from a state that it has come to.

    Args:
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        state: Where it is.
        skip_truncated: Whether to pass over events that were dropped, and count them as ``missed``.

    Returns:
        The state at the stream's end.

    Raises:
        Truncated: If events after the state were dropped, unless they are skipped.
        InvalidRequest: If the state is ahead of the stream.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(project_resume("account/1", lambda balance, event: balance, State(0, 0)))
    State(value=0, seq=0)
    """
    missed = _missed_in_stream if skip_truncated else _refuse
    named = f"stream {stream!r}", "sequence"
    return (yield from _fold(lambda seq: Read(stream, after=seq), named, step, state, missed))


@program
def project_all(prefix: str, step: StepFunction[S], seed: S, *, skip_truncated: bool = False) -> Effect[State[S]]:
    """Fold the events of all streams under a prefix, in the order of their positions.

    Args:
        prefix: How the streams' names start.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.
        skip_truncated: Whether to pass over events that were dropped, and count them as ``missed``.

    Returns:
        The state: the value, and as its ``seq`` the position up to which it was folded.

    Raises:
        Truncated: If any of the streams has lost events, unless they are skipped. It names the stream.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> for number in (1, 2, 3):
    ...     _ = store.run(log.append(f"orders/{number}", "placed", number))
    >>> store.run(project_all("orders/", lambda count, event: count + 1, 0)).value
    3
    """
    return (yield from project_all_resume(prefix, step, State(seed, 0), skip_truncated=skip_truncated))


@program
def project_all_resume(
    prefix: str, step: StepFunction[S], state: State[S], *, skip_truncated: bool = False
) -> Effect[State[S]]:
    """Go on with `project_all` from a state that it has come to.

    Args:
        prefix: How the streams' names start.
        step: Gives the next value of a value and an event. It is pure.
        state: Where it is; its ``seq`` is a position.
        skip_truncated: Whether to pass over events that were dropped, and count them as ``missed``.

    Returns:
        The state at the end.

    Raises:
        Truncated: If events after the state were dropped, unless they are skipped.
        InvalidRequest: If the state is ahead of the store.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(project_all_resume("orders/", lambda count, event: count, State(0, 0)))
    State(value=0, seq=0)
    """
    counted: dict[str, int] = {}

    def missed_anywhere(hole: Hole, seq: int) -> Effect[int]:
        """At the most. A page tells of one stream, so all are asked, once for each that is told of."""
        if counted.get(hole.stream) == hole.first_left:
            return 0
        before = missed_of(counted)
        counted.update((yield from holes_after(prefix, seq)))
        counted[hole.stream] = hole.first_left
        return missed_of(counted) - before

    missed = missed_anywhere if skip_truncated else _refuse
    named = "the store", "position"
    return (yield from _fold(lambda seq: ReadAll(after=seq, prefix=prefix), named, step, state, missed))


def _refuse(hole: Hole, _: int) -> Effect[int]:
    yield from ()
    raise Truncated(hole.stream, hole.first_left)


def _missed_in_stream(hole: Hole, seq: int) -> Effect[int]:
    yield from ()
    return hole.first_left - 1 - seq


def _fold(
    page_after: Callable[[int], Request[Page]],
    named: tuple[str, str],
    step: StepFunction[S],
    state: State[S],
    missed: Callable[[Hole, int], Effect[int]],
) -> Effect[State[S]]:
    """Fold page after page; ``named`` is how an error calls what is read, and the place in it."""
    source, place = named
    while True:
        page = yield from perform(page_after(state.seq))
        if page.head < state.seq:
            raise InvalidRequest(
                f"a state at {place} {state.seq} is ahead of {source}, which ends at {page.head}: "
                "it was made from another stream or store"
            )
        if page.hole is not None:
            more = yield from missed(page.hole, state.seq)
            state = State(state.value, state.seq, state.missed + more)
        state, has_more = _fold_page(page, step, state)
        if not has_more:
            return state
        # Let the page go before the next one is asked for.
        del page


def _fold_page(page: Page, step: StepFunction[S], state: State[S]) -> tuple[State[S], bool]:
    """The state after a page, and whether there is another page."""
    return State(reduce(step, page.events, state.value), page.next, state.missed), page.next < page.head
