"""A decision over several streams: what they all say is folded, and what was decided is written only if it still holds.

An aggregate is one stream, and most decisions need one. Where a rule spans several, such as a course that has a
capacity and a student who has a limit of courses, each decision names the streams that it looks at. All of them are
checked when it is written, those too that it does not write: so no two decisions pass each other by, each made on what
the other was about to change.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from types import GeneratorType
from typing import Any, Generic, TypeVar

from persist_effects.errors import InvalidRequest, Truncated, describe
from persist_effects.event import INT64_MAX, Event, check_items, check_name
from persist_effects.machine import Effect, all_of, perform
from persist_effects.programs import program
from persist_effects.projection import StepFunction
from persist_effects.requests import Conflict, ExpectSeq, LastSeq, Page, Read, Transact, Write

S = TypeVar("S")
R = TypeVar("R")


@program
def decide(
    streams: Iterable[str],
    step: StepFunction[S],
    seed: S,
    command: Callable[[S], list[Write] | R],
    *,
    skip_truncated: bool = False,
) -> Effect[list[Any] | Conflict | R]:
    """Decide on what several streams say, and write what was decided in one transaction, if they still say so.

    Where another writer was quicker on any of the streams, what is new is read, the fold goes on, and ``command``
    decides again. Memory holds a page of each stream at a time. Where an event comes to light that stands before one
    that was folded already, the fold begins anew, so that it is always in the order of positions.

    Args:
        streams: The names of the streams on which the decision depends, each once. All of them are checked, also those
            that are not written.
        step: Gives the next value of a value and an event, in the order of positions. It is pure.
        seed: The value before the first event.
        command: Decides on the value. A list of writes, as `transact` takes them, is carried out. Anything else is a
            refusal, or an answer, and is returned as it is. It is pure: it may be called several times.
        skip_truncated: Whether to go on with the events that are left where some were truncated.

    Returns:
        The answers of the writes, in order; or what ``command`` returned where that is not a list of writes, which
        holds for a state that was there at one moment; or a `Conflict` of what a write itself expected.

    Raises:
        Truncated: If events of a stream were dropped. It names the stream.
        InvalidRequest: If the streams are not a list of different names; for writes that are not writes.

    >>> from interpreters import open_store
    >>> from persist_effects import Append, Draft
    >>> def open_account(names):
    ...     return [Append("accounts", (Draft("opened", "Ada"),))] if "Ada" not in names else "taken"
    >>> store = open_store("memory:")
    >>> def add(names, event):
    ...     return names | {event.data}
    >>> (appended,) = store.run(decide(["accounts"], add, frozenset(), open_account))
    >>> appended.last_seq, store.run(decide(["accounts"], add, frozenset(), open_account))
    (1, 'taken')
    """
    names = _checked_names(streams)
    fold = _Fold(names, step, seed, skip_truncated=skip_truncated)
    while True:
        yield from fold.go_on()
        decided = command(fold.value)
        _check_decision(decided)
        if type(decided) is not list or not decided:
            if (yield from _is_of_one_moment(fold.seqs)):
                return decided
            continue
        checks = tuple(ExpectSeq(name, seq) for name, seq in fold.seqs.items())
        answers = yield from perform(Transact(tuple(decided), checks))
        # A write that has expected something by itself is the caller's affair.
        if not isinstance(answers, Conflict) or answers.write is not None:
            return answers


def _checked_names(streams: Iterable[str]) -> tuple[str, ...]:
    names = check_items("streams", streams, "a list of the names of streams")
    for name in names:
        check_name("stream name", name)
    if not names:
        raise InvalidRequest("streams is empty: name the streams on which the decision depends")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"streams has {twice!r} twice: name each once")
    return names


def _check_decision(decided: object) -> None:
    """Refuse what looks as if writes were meant, which would be returned and not carried out."""
    is_likely_meant = isinstance(decided, Write | GeneratorType) or (
        isinstance(decided, tuple) and any(isinstance(part, Write) for part in decided)
    )
    if is_likely_meant:
        raise InvalidRequest(
            f"a decision is {describe(decided)}: give a list of writes, [Append(stream, (Draft(type, data),))], or "
            "any other value, to return it"
        )


def _is_of_one_moment(seqs: dict[str, int]) -> Effect[bool]:
    """Whether nothing was appended since: then there was a moment at which all of this was there, and no more."""
    if len(seqs) == 1:
        return True
    found = yield from all_of(*(LastSeq(name) for name in seqs))
    return list(found) == list(seqs.values())


class _Fold(Generic[S]):
    """The value, and up to which sequence number of each stream it was folded."""

    def __init__(self, names: tuple[str, ...], step: StepFunction[S], seed: S, *, skip_truncated: bool) -> None:
        self._step, self._seed, self._skip_truncated = step, seed, skip_truncated
        self.seqs = dict.fromkeys(names, 0)
        self.value = seed
        self._position = 0

    def go_on(self) -> Effect[None]:
        """Fold what is new in all streams."""
        tails = yield from self._tails()
        if any(tail.position <= self._position for tail in tails if tail.events):
            # Of two writers, the one whose position is the lower may be seen later.
            self.seqs, self.value, self._position = dict.fromkeys(self.seqs, 0), self._seed, 0
            tails = yield from self._tails()
        yield from self._fold(tails)

    def _tails(self) -> "Effect[list[_Tail]]":
        pages = yield from all_of(*(Read(name, seq) for name, seq in self.seqs.items()))
        tails = [_Tail(name, self._whole(page)) for name, page in zip(self.seqs, pages, strict=True)]
        for tail in tails:
            yield from self._read_on(tail)
        return tails

    def _fold(self, tails: "list[_Tail]") -> Effect[None]:
        """Fold the events in the order of their positions, up to where the streams ended when they were first read."""
        while left := sorted((tail for tail in tails if tail.events), key=lambda tail: tail.position):
            events = left[0].taken_below(left[1].position if len(left) > 1 else INT64_MAX)
            self.value, self._position = reduce(self._step, events, self.value), events[-1].position
            yield from self._read_on(left[0])
        self.seqs = {tail.name: tail.until for tail in tails}

    def _read_on(self, tail: "_Tail") -> Effect[None]:
        """Read the next page, where nothing is left of the one before."""
        while not tail.events and tail.read < tail.until:
            page = yield from perform(Read(tail.name, tail.read, tail.until))
            tail.take(self._whole(page))

    def _whole(self, page: Page) -> Page:
        if page.hole is not None and not self._skip_truncated:
            raise Truncated(page.hole.stream, page.hole.first_left)
        return page


class _Tail:
    """What of a stream is still to be folded: a page of it at the most."""

    def __init__(self, name: str, page: Page) -> None:
        self.name = name
        self.until = page.head
        self.take(page)

    def take(self, page: Page) -> None:
        """Take in the next page."""
        self.events: list[Event] = page.events
        self.read = page.next

    @property
    def position(self) -> int:
        """That of the next event."""
        return self.events[0].position

    def taken_below(self, position: int) -> list[Event]:
        """Take out the events up to a position, of which there is one."""
        if self.events[-1].position < position:
            taken, self.events = self.events, []
            return taken
        count = next(index for index, event in enumerate(self.events) if event.position > position)
        taken, self.events = self.events[:count], self.events[count:]
        return taken
