"""The same search on several cores: orders by how they begin, each beginning searched by some process.

The beginnings are the same whatever the number of processes, and what is found is taken together in their order. So the
report is the same for two processes as for eight. A program that another beginning has tried first is asleep, as within
one search, so no order is checked twice.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

from interpreters.explore.pace import never_over
from interpreters.explore.report import NOT_DETERMINISTIC
from interpreters.explore.schedule.case import Case, FoundOrder
from interpreters.explore.schedule.footprint import Touched
from interpreters.explore.schedule.ordered import OrderBeginning, Ordered, SwitchPlace, Turn
from interpreters.explore.workers import in_order

_BEGINNINGS_WANTED = 48
"""So that none of a few cores waits long for the others: what begins one way may take far longer than another."""

_LONGEST_BEGINNING = 4


class ExploredPart(NamedTuple):
    """What became of the orders that begin one way."""

    checked: int
    equal: int
    failed: int
    most_switches: int
    is_finished: bool
    orders_seen: frozenset[Touched]
    places: dict[SwitchPlace, list[int]]
    labels: dict[tuple[int, int], str]
    failures: list[FoundOrder]


class Split:
    """All interleavings of a case, searched by several processes: as `Ordered` is by one.

    Args:
        case: The programs.
        workers: How many processes.
        reduce: Whether of equal interleavings one is checked.
        orders: Which orders of streams or keys count.
        is_late: Whether the time is over, which is asked in each process.
    """

    def __init__(
        self,
        case: Case,
        workers: int,
        *,
        reduce: bool,
        orders: frozenset[Touched],
        is_late: Callable[[], bool],
    ) -> None:
        self.checked = self.equal = self.failed = self.most_switches = 0
        self.is_finished = self.is_cut = False
        self.not_reached = ""
        self.orders_seen: frozenset[Touched] = frozenset()
        self.places: dict[SwitchPlace, list[int]] = {}
        self.labels: dict[tuple[int, int], str] = {}
        self._case = case
        self._workers = workers
        self._reduce = reduce
        self._orders = orders
        self._is_late = is_late
        self._first: Ordered = self._search(())

    @property
    def lacks_order(self) -> bool:
        """Whether what is equal was judged as if an order did not count, and it does."""
        return self._reduce and not self.orders_seen <= self._orders

    def failures(self, limit: int | None = None, is_over: Callable[[], bool] = never_over) -> Iterator[FoundOrder]:
        """Check them until the time is over, and give those that fail. ``limit`` is always None here."""
        if self._reduce:
            found = [*self._first.failures_in_other_orders()]
            self.orders_seen |= self._first.orders_seen
            self.failed += len(found)
            yield from found
            if found or self.lacks_order:
                self.is_finished = True
                return
        beginnings = _beginnings(self._case)
        unfinished = len(beginnings)
        with closing(in_order(self._explored, beginnings, self._workers)) as parts:
            for part in parts:
                is_over()
                self._take_in(part)
                unfinished -= part.is_finished
                yield from part.failures
                if self.lacks_order or any(_ends_search(found) for found in part.failures):
                    return
        self.is_finished = not unfinished
        if unfinished:
            self.not_reached = f"all of {unfinished} of the {len(beginnings)} ways to begin"

    def _search(self, beginning: OrderBeginning) -> Ordered:
        return Ordered(
            self._case, bound=None, reduce=self._reduce, crashes=False, orders=self._orders, beginning=beginning
        )

    def _explored(self, beginning: OrderBeginning) -> ExploredPart:
        """What one process does with one beginning."""
        search = self._search(beginning)
        first: dict[tuple[str, str], FoundOrder] = {}
        for found in search.failures(is_over=self._is_late):
            first.setdefault((found.problem.kind, found.problem.found), found)
        return ExploredPart(
            search.checked,
            search.equal,
            search.failed,
            search.most_switches,
            search.is_finished,
            search.orders_seen,
            search.places,
            search.labels,
            [*first.values()],
        )

    def _take_in(self, part: ExploredPart) -> None:
        self.checked += part.checked
        self.equal += part.equal
        self.failed += part.failed
        self.most_switches = max(self.most_switches, part.most_switches)
        self.orders_seen |= part.orders_seen
        self.labels = {**part.labels, **self.labels}
        for place, (runs, failed) in part.places.items():
            counts = self.places.setdefault(place, [0, 0])
            counts[0] += runs
            counts[1] += failed


def _ends_search(found: FoundOrder) -> bool:
    return found.problem.kind in ("hangs", NOT_DETERMINISTIC)


# How orders begin


def _beginnings(case: Case) -> list[OrderBeginning]:
    """The ways to begin: all of some length, in the order in which one search would come to them."""
    found: list[OrderBeginning] = [()]
    for _ in range(_LONGEST_BEGINNING):
        if len(found) >= _BEGINNINGS_WANTED:
            break
        found = [longer for beginning in found for longer in _one_longer(case, beginning)]
    return found


def _one_longer(case: Case, beginning: OrderBeginning) -> list[OrderBeginning]:
    moves = [turn.move for turn in beginning]
    world, store = case.begin()
    try:
        for move in moves:
            world.play(move)
        last = moves[-1] if moves else -1
        order = sorted(world.ready(), key=lambda index: (index != last, index))
    except BaseException as error:
        case.note_end(error, moves)
        raise
    finally:
        world.close()
        store.close()
    return [(*beginning, Turn(move, tuple(order[:place]))) for place, move in enumerate(order)] or [beginning]
