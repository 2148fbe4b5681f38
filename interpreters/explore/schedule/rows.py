"""The search for an order of a history's operations in which a memory store answers all of them as they were answered.

It goes depth first, and takes operations in the order of their answers as long as that fits, which nearly always it
does. Where one does not fit, the store is taken back, and another goes first that had begun by then. From where no
order goes on is kept, and not tried twice: that is which operations are done, and which of them wrote what stands in
each stream and under each key.

Operations that may never have been done come last. First one of them is tried only where an answer does not fit without
it, right before that; then, if there is no such order, anywhere. Of those that are alike the earliest goes first, one
that changes nothing is not tried, nor one whose change is written over before anything could have seen it. And a row is
left where an answer still to come has become impossible: `interpreters.explore.schedule.needs`.

This is the search of Wing and Gong (1993) with the memory of Lowe (2017).
"""

import sys
from bisect import bisect_right
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

from interpreters.explore.schedule.footprint import (
    REVISIONS,
    Footprint,
    Touched,
    are_dependent,
    footprint_of,
    orders_seen_by,
)
from interpreters.explore.schedule.history import NEVER, Operation, writes_in
from interpreters.explore.schedule.needs import Needs
from interpreters.explore.schedule.numbers import SameNumbers
from interpreters.explore.schedule.parts import likenesses
from interpreters.explore.words import told, told_outcome
from interpreters.stores.rewinding import RewindableStore
from persist_effects import machine
from persist_effects.requests import (
    CHANGES,
    Answered,
    Append,
    Appended,
    Begin,
    Conflict,
    Failed,
    KvDelete,
    KvGet,
    KvHas,
    KvPut,
    LastSeq,
    Outcome,
    Transact,
)

_TOLD = 30
"""How many operations of a long row are told."""

_ANYWHERE: Touched = ("", "")
"""Where a request writes of which nobody knows where."""


class _Place(NamedTuple):
    """Which operations are done: of those that have begun all but ``left``, which stand by their ends."""

    begun: int
    left: tuple[int, ...]
    spare: frozenset[int]


class _Mark(NamedTuple):
    """What was so before a step, to go back to."""

    store: int
    known: int
    done: int
    noted: int
    state: int
    unseen: frozenset[str]


class _Numbers(NamedTuple):
    """What an operation that wrote something was given, as far as it is known."""

    position: int | None
    revision: int | None


def _numbers_of(operation: Operation) -> _Numbers | None:
    """None, if it has written nothing."""
    outcome, request = operation.outcome, operation.step.request
    if type(request) not in CHANGES or isinstance(outcome, Failed):
        return None
    answers = operation.parts if outcome is None else outcome.value
    if isinstance(answers, Conflict):
        return None
    writes = request.writes if isinstance(request, Transact) else (request,)
    numbers = _Numbers(None, None)
    for write, answer in zip(writes, answers if isinstance(answers, list | tuple) else [answers], strict=False):
        if isinstance(answer, Appended):
            numbers = numbers._replace(position=answer.position)
        elif isinstance(write, KvPut):
            numbers = numbers._replace(revision=answer)
    return numbers


class Rows:
    """The search, in one history.

    Args:
        history: The operations.
        before: The writes of which the store was made.
        tries: How many operations are tried at the most, each time; None: any number.
        is_late: Whether the time is over; asked before each step.

    ``numbers``, once there is an order: all positions and revisions that the answers name.
    """

    def __init__(
        self,
        history: Sequence[Operation],
        before: Sequence[Any],
        *,
        tries: int | None,
        is_late: Callable[[], bool],
    ) -> None:
        self._store = RewindableStore()
        self._same = SameNumbers()
        self._limit, self._is_late = tries, is_late
        # Those that must have been done, by their ends; and those that need not.
        certain = [operation for operation in history if operation.ended < NEVER]
        self._certain = sorted(certain, key=lambda operation: (operation.ended, operation.began))
        spare = likenesses(history)
        kinds = {likeness: kind for kind, likeness in enumerate(dict.fromkeys(spare.values()))}
        self._spare = [history[index] for index in spare]
        self._kind = [kinds[likeness] for likeness in spare.values()]
        self._alike: list[list[int]] = [[] for _ in kinds]
        for number in sorted(range(len(self._spare)), key=lambda number: self._spare[number].began):
            self._alike[self._kind[number]].append(number)
        self._numbers: list[Any] = [_numbers_of(operation) for operation in self._certain]
        by_began = sorted(range(len(self._certain)), key=lambda index: self._certain[index].began)
        self._by_began = by_began
        self._begins = [self._certain[index].began for index in by_began]
        self._orders = frozenset[Touched]().union(*(orders_seen_by(operation.step.request) for operation in history))
        self._needs = Needs(self._certain, history)
        self._row: list[tuple[Operation, int]] = []
        # Which operations wrote what stands in a place, and which of the history's numbers it bears; and one number
        # for all of that.
        self._standing: dict[Hashable, Hashable] = {}
        self._undoing: list[tuple[Hashable, Hashable]] = []
        self._state = 0
        self._made: dict[tuple[str, int], Hashable] = {}
        # Keys that one has written which may not have been done, and that nothing has looked at since.
        self._unseen = frozenset[str]()
        self._dead: dict[tuple[Any, ...], list[frozenset[int]]] = {}
        self._left = 0
        self._best: tuple[list[Operation], int, tuple[int, ...], str] = ([], -1, (), "")
        self.tries = 0
        self.is_given_up = False
        self.numbers = frozenset[tuple[str, int]]()
        for index, write in enumerate(before):
            answer = self._store.handlers[type(write)](write)
            self._note(write, ("before", index), answer)

    def find(self) -> bool:
        """Whether there is an order. Not, where it is given up."""
        if self._search(self._sparing_moves):
            return True
        return bool(self._spare) and not self.is_given_up and self._search(self._all_moves)

    @property
    def longest(self) -> int:
        """How many operations the longest row has that was tried and did not go on."""
        return max(0, self._best[1])

    def _search(self, moves: Callable[[_Place], Generator[_Place]]) -> bool:
        self._dead.clear()
        # A long history without a step back is no search.
        self._left = sys.maxsize if self._limit is None else self._limit + len(self._certain)
        place: _Place | None = self._opened(_Place(0, (), frozenset()))
        path: list[Generator[_Place]] = []
        while (place is None or place.left) and self._left > 0 and not self._is_late():
            if place is not None:
                path.append(moves(place))
            elif len(path) > 1:
                path.pop()
            else:
                return False
            place = next(path[-1], None)
        self.is_given_up = place is None or bool(place.left)
        if not self.is_given_up:
            self.numbers = frozenset(theirs for theirs, _ in self._same.known_since(0))
        while path:
            # From the last one on: each takes back what it did.
            path.pop().close()
        return not self.is_given_up

    def _opened(self, place: _Place) -> _Place:
        """The same place, with all among those left that may be the next."""
        begun, left = place.begun, sorted(place.left)
        while begun < len(self._begins):
            if left:
                count = bisect_right(self._begins, self._certain[left[0]].ended)
                if count <= begun:
                    break
            else:
                count = begun + 1
            left = sorted([*left, *self._by_began[begun:count]])
            begun = count
        return place._replace(begun=begun, left=tuple(left))

    # Where to go from a place

    def _sparing_moves(self, place: _Place) -> Generator[_Place]:
        """Those that must be done; and one more before one of these only where it does not fit without."""
        return self._moves(place, is_sparing=True)

    def _all_moves(self, place: _Place) -> Generator[_Place]:
        return self._moves(place, is_sparing=False)

    def _moves(self, place: _Place, *, is_sparing: bool) -> Generator[_Place]:
        dead = self._dead.setdefault((place.begun, place.left, self._state, self._unseen), [])
        # With more of those spent that need not be done, there are only fewer ways on.
        if any(spent <= place.spare for spent in dead):
            return
        first_end = self._certain[place.left[0]].ended
        # One that began after another had ended does not come before it.
        ready = [index for index in place.left if self._certain[index].began <= first_end]
        unfit = []
        for index in self._best_first(ready):
            mark = self._mark()
            try:
                if not self._fits(self._certain[index], index, place):
                    unfit.append(index)
                    continue
                yield self._without(place, index)
                if self._is_as_at(mark):
                    # It has changed nothing and said nothing new: what may come before it may as well come after it.
                    dead.append(place.spare)
                    return
            finally:
                self._go_back(mark)
        for number in self._first_alike(place.spare):
            operation = self._spare[number]
            if operation.began > first_end:
                continue
            before = self._touched(operation)
            left = [index for index in unfit if are_dependent(before, self._touched(self._certain[index]))]
            if left or not is_sparing:
                mark = self._mark()
                try:
                    if self._fits(operation, -1 - number, place):
                        spent = place._replace(spare=place.spare | {number})
                        yield from self._moves_of(left, spent) if is_sparing else (spent,)
                finally:
                    self._go_back(mark)
        dead.append(place.spare)

    def _moves_of(self, indexes: Sequence[int], place: _Place) -> Generator[_Place]:
        for index in indexes:
            mark = self._mark()
            try:
                if self._fits(self._certain[index], index, place):
                    yield self._without(place, index)
            finally:
                self._go_back(mark)

    def _first_alike(self, spent: frozenset[int]) -> Iterator[int]:
        """Of those that need not be done and are alike, the earliest that is not in the row."""
        for alike in self._alike:
            number = next((number for number in alike if number not in spent), None)
            if number is not None:
                yield number

    def _best_first(self, ready: Sequence[int]) -> list[int]:
        """What changes nothing, then writes by their ends, but those whose numbers are known in the order of these.

        It is only where to begin: most stores give higher numbers later.
        """
        writes = [index for index in ready if self._numbers[index] is not None]
        for field in range(len(_Numbers._fields)):
            known = {index: number for index in writes if (number := self._numbers[index][field]) is not None}
            in_order = iter(sorted(known, key=known.__getitem__))
            writes = [next(in_order) if index in known else index for index in writes]
        return [*(index for index in ready if self._numbers[index] is None), *writes]

    def _without(self, place: _Place, index: int) -> _Place:
        return self._opened(place._replace(left=tuple(other for other in place.left if other != index)))

    # One step

    def _mark(self) -> _Mark:
        return _Mark(
            self._store.mark(), self._same.mark(), len(self._row), len(self._undoing), self._state, self._unseen
        )

    def _touched(self, operation: Operation) -> Footprint | None:
        return footprint_of(operation.step.request, orders=self._orders)

    def _is_as_at(self, mark: _Mark) -> bool:
        return self._store.mark() == mark.store and self._same.mark() == mark.known

    def _go_back(self, mark: _Mark) -> None:
        self._state, self._unseen = mark.state, mark.unseen
        self._store.rewind(mark.store)
        self._same.forget_since(mark.known)
        while len(self._row) > mark.done:
            _, number = self._row.pop()
            if number >= 0:
                self._needs.undone(number)
        while len(self._undoing) > mark.noted:
            place, before = self._undoing.pop()
            self._standing[place] = before

    def _fits(self, operation: Operation, number: int, place: _Place) -> bool:
        """Whether it is answered here as it was, and leaves what those still need that are not done."""
        self._left -= 1
        self.tries += 1
        request, mark = operation.step.request, self._mark()
        if not self._is_blind(operation):
            self._unseen = self._unseen_after(operation)
        elif request.key in self._unseen:
            return False
        wanted = machine.outcome_of(self._same.translated(request), self._store.handlers)
        if not self._explains(operation, wanted):
            self._blame(place, f"{told(request)} would be{told_outcome(request, wanted) or ' answered'}")
            return False
        if number < 0 and self._store.mark() == mark.store:
            return False
        self._row.append((operation, number))
        if number >= 0:
            self._needs.done(number)
        if type(request) in CHANGES and isinstance(wanted, Answered) and not isinstance(wanted.value, Conflict):
            late = self._late_after(request, wanted.value)
            if late is not None:
                self._row.pop()
                if number >= 0:
                    self._needs.undone(number)
                self._blame(place, f"{told(request)} would {late}")
                return False
            self._note(request, (number >= 0, number if number >= 0 else self._kind[-1 - number]), wanted.value)
        if number < 0 and self._is_blind(operation):
            self._unseen |= {request.key}
        self._note_numbers(mark.known)
        return True

    def _blame(self, place: _Place, said: str) -> None:
        if len(self._row) > self._best[1]:
            row = [operation for operation, _ in self._row[-_TOLD:]]
            self._best = row, len(self._row), place.left, said

    def _explains(self, operation: Operation, wanted: Outcome) -> bool:
        if operation.outcome is not None:
            return self._same.are_same(operation.step.request, operation.outcome, wanted)
        return operation.ended == NEVER or self._same.are_same_parts(operation.step.request, operation.parts, wanted)

    def _is_blind(self, operation: Operation) -> bool:
        """Whether it writes a key whatever stood there, and nobody is told of that."""
        request = operation.step.request
        if REVISIONS in self._orders or getattr(request, "expected", None) is not None:
            return False
        if isinstance(operation.outcome, Failed):
            return False
        return isinstance(request, KvPut) or (isinstance(request, KvDelete) and operation.ended == NEVER)

    def _unseen_after(self, operation: Operation) -> frozenset[str]:
        if not self._unseen:
            return self._unseen
        touched = self._touched(operation)
        return frozenset(
            key for key in self._unseen if not are_dependent(touched, Footprint(writes=frozenset({("key", key)})))
        )

    def _late_after(self, request: Any, answer: Any) -> str | None:
        """What of the answers still to come a write has made impossible."""
        for write, part in zip(writes_in(request), answer if isinstance(answer, list) else [answer], strict=True):
            late = None
            if isinstance(write, KvPut | KvDelete):
                revision = self._standing.get(("revision", write.key))
                late = self._needs.late_for_key(write.key, revision) if isinstance(revision, int) else None
            elif isinstance(write, Append | Begin):
                last_seq = self._store.handlers[LastSeq](LastSeq(write.stream))
                late = self._needs.late_in_stream(write.stream, last_seq)
                if isinstance(write, Append) and late is None:
                    late = self._needs.wrong_events(write, part.first_seq)
            if late is not None:
                return late
        return None

    # What stands where

    def _note(self, request: Any, number: Hashable, answer: Any) -> None:
        """Note of a write what it has changed, and which numbers are its own."""
        touched = footprint_of(request, orders=self._orders)
        for written in (_ANYWHERE,) if touched is None else touched.writes:
            if written[0] == "key":
                # A key holds what was put last.
                self._set(("revision", written[1]), None)
                is_there = self._store.handlers[KvHas](KvHas(written[1]))
                self._set(written, (number, self._is_noting(request) and self._state) if is_there else None)
            else:
                # A stream, and an order, holds what came before, too.
                self._set(written, hash((number, self._standing.get(written))))
        for write, part in zip(writes_in(request), answer if isinstance(answer, list) else [answer], strict=True):
            if isinstance(write, KvPut):
                self._made["revision", part] = write.key
            elif isinstance(write, Append):
                for seq in range(part.first_seq, part.last_seq + 1):
                    self._made["position", part.position - part.last_seq + seq] = write.stream, seq

    def _is_noting(self, request: Any) -> bool:
        return isinstance(request, Transact) and bool(request.noting)

    def _note_numbers(self, mark: int) -> None:
        """Note which of the history's numbers are now known to be those of what stands somewhere."""
        for (sort, theirs), ours in self._same.known_since(mark):
            made = self._made.get(ours)
            if sort == "position":
                self._set(("position", made), theirs)
            elif isinstance(made, str):
                entry = self._store.handlers[KvGet](KvGet(made))
                if entry is not None and entry.revision == ours[1]:
                    self._set(("revision", made), theirs)
            if self._orders:
                self._set((sort, theirs), ours)

    def _set(self, place: Hashable, now: Hashable) -> None:
        before = self._standing.get(place)
        self._undoing.append((place, before))
        self._standing[place] = now
        self._state ^= hash((place, before)) ^ hash((place, now))

    # What is told

    def told_history(self, names: Sequence[str]) -> Iterator[str]:
        """The operations of a short history; of a long one those near where the longest row ends."""
        row, count, left, _ = self._best
        history = [*self._certain, *self._spare]
        if len(history) > 2 * _TOLD:
            history = [*row, *(self._certain[index] for index in left), *self._spare[:_TOLD]]
            yield f"of {len(self._certain) + len(self._spare)} operations, {count} of them in a row:"
        near = {id(operation.step): operation for operation in history}
        for operation in sorted(near.values(), key=lambda operation: operation.began):
            until = "on" if operation.ended == NEVER else f"to {operation.ended}"
            said = told_outcome(operation.step.request, operation.outcome) or ", whose outcome nobody knows"
            name = names[operation.step.index]
            yield f"steps {operation.began} {until}: {name} {told(operation.step.request)}{said}"

    def told_best(self, names: Sequence[str]) -> Iterator[str]:
        """How far an order went, and what stopped it."""
        row, count, _, stopped = self._best
        went = ", ".join(f"{names[operation.step.index]} #{operation.step.ordinal}" for operation in row) or "none"
        yield f"the longest row: {'… ' if count > len(row) else ''}{went}"
        if stopped:
            yield f"then {stopped}"
