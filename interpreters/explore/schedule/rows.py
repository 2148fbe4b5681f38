"""The search for an order of a history's operations in which a memory store answers all of them as they were answered.

It goes depth first, and takes operations in the order of their answers as long as that fits, which nearly always it
does. Where one does not fit, the store is taken back, and another goes first that had begun by then. From where no
order goes on is kept, and not tried twice: that is which operations are done, and which of them wrote what stands in
each stream and under each key.

Operations that may never have been done come last. First one of them is tried only where an answer does not fit without
it, right before that; then, if there is no such order, anywhere.
"""

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from interpreters.explore.schedule.footprint import (
    ORDERS,
    Footprint,
    Touched,
    are_dependent,
    footprint_of,
    orders_seen_by,
)
from interpreters.explore.schedule.history import NEVER, Operation
from interpreters.explore.schedule.numbers import SameNumbers
from interpreters.explore.words import told, told_outcome
from interpreters.stores.rewinding import RewindableStore
from persist_effects import machine
from persist_effects.requests import CHANGES, Answered, Appended, Conflict, Failed, KvDelete, KvPut, Outcome, Transact

TRIES = 500_000
"""How many operations are tried at the most, each time: then it is given up, within a minute or so."""

_TOLD = 30
"""How many operations of a long row are told."""

_ANYWHERE: Touched = ("", "")
"""Where a request writes of which nobody knows where."""


class _Place(NamedTuple):
    """Which operations are done: of those that have begun all but ``left``, which stand by their ends."""

    begun: int
    left: tuple[int, ...]
    spare: frozenset[int]


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
    """

    def __init__(self, history: Sequence[Operation], before: Sequence[Any]) -> None:
        self._store = RewindableStore()
        for write in before:
            self._store.handlers[type(write)](write)
        self._same = SameNumbers()
        # Those that must have been done, by their ends; and those that need not.
        certain = [operation for operation in history if operation.ended < NEVER]
        self._certain = sorted(certain, key=lambda operation: (operation.ended, operation.began))
        self._spare = [operation for operation in history if operation.ended == NEVER]
        self._numbers: list[Any] = [_numbers_of(operation) for operation in self._certain]
        by_began = sorted(range(len(self._certain)), key=lambda index: self._certain[index].began)
        self._by_began = by_began
        self._begins = [self._certain[index].began for index in by_began]
        self._orders = frozenset[Touched]().union(*(orders_seen_by(operation.step.request) for operation in history))
        self._row: list[Operation] = []
        # Which operations wrote what stands in a place: a number for each place, and one for all of them.
        self._writers: dict[Touched, int] = {}
        self._undoing: list[tuple[Touched, int]] = []
        self._state = 0
        self._dead: set[tuple[_Place, int]] = set()
        self._left = 0
        self._best: tuple[list[Operation], int, tuple[int, ...], str] = ([], -1, (), "")
        self.is_given_up = False

    def find(self) -> bool:
        """Whether there is an order. Not, where it is given up."""
        if self._search(self._sparing_moves):
            return True
        return bool(self._spare) and not self.is_given_up and self._search(self._all_moves)

    def _search(self, moves: Callable[[_Place], Generator[_Place]]) -> bool:
        self._dead.clear()
        # A long history without a step back is no search.
        self._left = TRIES + len(self._certain)
        place: _Place | None = self._opened(_Place(0, (), frozenset()))
        path: list[Generator[_Place]] = []
        while (place is None or place.left) and self._left > 0:
            if place is not None:
                path.append(moves(place))
            elif len(path) > 1:
                path.pop()
            else:
                return False
            place = next(path[-1], None)
        while path:
            # From the last one on: each takes back what it did.
            path.pop().close()
        self.is_given_up = place is None or bool(place.left)
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
        key = place, self._state
        if key in self._dead:
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
                    self._dead.add(key)
                    return
            finally:
                self._go_back(mark)
        for number, operation in enumerate(self._spare):
            if number in place.spare or operation.began > first_end:
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
        self._dead.add(key)

    def _moves_of(self, indexes: Sequence[int], place: _Place) -> Generator[_Place]:
        for index in indexes:
            mark = self._mark()
            try:
                if self._fits(self._certain[index], index, place):
                    yield self._without(place, index)
            finally:
                self._go_back(mark)

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

    def _mark(self) -> tuple[int, ...]:
        return self._store.mark(), self._same.mark(), len(self._row), len(self._undoing), self._state

    def _touched(self, operation: Operation) -> Footprint | None:
        return footprint_of(operation.step.request, orders=self._orders)

    def _is_as_at(self, mark: tuple[int, ...]) -> bool:
        return self._mark()[:2] == mark[:2]

    def _go_back(self, mark: tuple[int, ...]) -> None:
        at, known, count, noted, self._state = mark
        self._store.rewind(at)
        self._same.forget_since(known)
        del self._row[count:]
        while len(self._undoing) > noted:
            touched, before = self._undoing.pop()
            self._writers[touched] = before

    def _fits(self, operation: Operation, number: int, place: _Place) -> bool:
        """Whether it is answered here as it was."""
        self._left -= 1
        request = operation.step.request
        wanted = machine.outcome_of(self._same.translated(request), self._store.handlers)
        if not self._explains(operation, wanted):
            if len(self._row) > self._best[1]:
                said = f"{told(request)} would be{told_outcome(request, wanted) or ' answered'}"
                self._best = self._row[-_TOLD:], len(self._row), place.left, said
            return False
        self._row.append(operation)
        if type(request) in CHANGES and isinstance(wanted, Answered) and not isinstance(wanted.value, Conflict):
            self._note(operation, number)
        return True

    def _explains(self, operation: Operation, wanted: Outcome) -> bool:
        if operation.outcome is not None:
            return self._same.are_same(operation.step.request, operation.outcome, wanted)
        return operation.ended == NEVER or self._same.are_same_parts(operation.step.request, operation.parts, wanted)

    def _note(self, operation: Operation, number: int) -> None:
        touched, is_of_key = self._touched(operation), isinstance(operation.step.request, KvPut | KvDelete)
        for written in (_ANYWHERE,) if touched is None else touched.writes:
            before = self._writers.get(written, 0)
            # A key holds what was put last; a stream, an order, and what several wrote together, what came before, too.
            number_now = hash((number, 0 if is_of_key and written not in ORDERS else before))
            self._undoing.append((written, before))
            self._writers[written] = number_now
            self._state ^= hash((written, before)) ^ hash((written, number_now))

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
