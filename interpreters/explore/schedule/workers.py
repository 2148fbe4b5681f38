"""The same search on several cores: orders by how they begin, each beginning searched by some process.

The beginnings are the same whatever the number of processes, and what is found is taken together in their order. So the
report is the same for two processes as for eight. A program that another beginning has tried first is asleep, as within
one search, so no order is checked twice.

The processes are forked, for programs are closures, which cannot be sent to another process. Each asks for a beginning
when it is done with the one before.
"""

import multiprocessing
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from interpreters.explore.pace import never_over
from interpreters.explore.report import NOT_DETERMINISTIC
from interpreters.explore.schedule.case import Case, FoundOrder
from interpreters.explore.schedule.footprint import Touched
from interpreters.explore.schedule.ordered import OrderBeginning, Ordered, SwitchPlace, Turn
from interpreters.explore.words import told_error
from persist_effects.errors import InvalidRequest
from persist_effects.event import check_integer

_BEGINNINGS_WANTED = 48
"""So that none of a few cores waits long for the others: what begins one way may take far longer than another."""

_LONGEST_BEGINNING = 4


class WorkerDied(RuntimeError):
    """A process that explored has ended before its time, by a signal or by the system."""


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
        with closing(_in_order(self._explored, beginnings, self._workers)) as parts:
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


def check_workers(workers: Any, **others: object) -> None:
    """Refuse what is not a number of processes, what cannot be had here, and what does not go with several.

    >>> check_workers(2, limit=5)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: workers does not go with limit: leave one of them out
    """
    if workers is None:
        return
    check_integer("workers", workers, 1)
    for name, value in others.items():
        if value not in (None, False):
            raise InvalidRequest(f"workers does not go with {name}: leave one of them out")
    if "fork" not in multiprocessing.get_all_start_methods():
        raise InvalidRequest("workers needs processes that are forked, which this system does not have: leave it out")
    if threading.current_thread() is not threading.main_thread():
        raise InvalidRequest("workers are forked from the main thread alone: explore there, or leave it out")


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


# Processes


def _in_order(
    explored: Callable[[OrderBeginning], ExploredPart], given: Sequence[OrderBeginning], workers: int
) -> Generator[ExploredPart, None, None]:
    """What became of each, in this order, by so many processes. Ends them, however it ends itself."""
    crew: list[_Worker] = []
    idle, busy = list[_Worker](), dict[Any, _Worker]()
    done: dict[int, ExploredPart | _Ended] = {}
    handed_out = told = 0
    try:
        for _ in range(min(workers, len(given))):
            crew.append(_Worker(explored, given, [worker.line for worker in crew]))
        idle += crew
        while told < len(given):
            while idle and handed_out < len(given):
                worker = idle.pop()
                worker.begin(handed_out)
                busy[worker.line] = worker
                handed_out += 1
            if told in done:
                part = done.pop(told)
                told += 1
                if isinstance(part, _Ended):
                    raise part.error()
                yield part
                continue
            for line in wait([*busy]):
                worker = busy.pop(line)
                done[worker.number] = worker.answer()
                idle.append(worker)
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A process that explores one beginning after the other."""

    def __init__(
        self,
        explored: Callable[[OrderBeginning], ExploredPart],
        given: Sequence[OrderBeginning],
        others: Sequence[Connection],
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.line, line = context.Pipe()
        self.number = -1
        self._process = context.Process(target=_work, args=(line, explored, given, [*others, self.line]), daemon=True)
        self._process.start()
        line.close()

    def begin(self, number: int) -> None:
        """Have it explore the beginning of this number."""
        self.number = number
        self.line.send(number)

    def answer(self) -> "ExploredPart | _Ended":
        """What became of it. Raises `WorkerDied` where nobody says so any more."""
        try:
            answer: ExploredPart | _Ended = self.line.recv()
        except EOFError:
            self._process.join()
            raise WorkerDied(
                f"a process that explored has ended with {self._process.exitcode}, where a number below 0 is a signal: "
                "explore without workers to see in which order"
            ) from None
        return answer

    def end(self) -> None:
        """End it, whatever it does."""
        self.line.close()
        self._process.kill()
        self._process.join()


def _work(
    line: Connection,
    explored: Callable[[OrderBeginning], ExploredPart],
    given: Sequence[OrderBeginning],
    of_parent: Sequence[Connection],
) -> None:
    # Else this one would not notice that there is no parent any more.
    for other in of_parent:
        other.close()
    # Ctrl-C goes to all processes of a terminal; the one that waits for these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            number = line.recv()
        except EOFError:
            return
        try:
            answer: ExploredPart | _Ended = explored(given[number])
        except BaseException as error:
            answer = _Ended.by(error)
        line.send(answer)


class _Ended(NamedTuple):
    """An error that has ended an exploration, as it can be sent: pickled, or in words where that does not go."""

    pickled: bytes
    outcome: str
    told: str
    notes: tuple[str, ...]

    @classmethod
    def by(cls, error: BaseException) -> "_Ended":
        """What ended it."""
        notes = tuple(getattr(error, "__notes__", ()))
        if _outcome_of_pytest(type(error).__name__) is type(error):
            return cls(b"", type(error).__name__, str(error), notes)
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)  # noqa: S301 - what was made in the line before
        except Exception:
            # Not every error can be made again from its arguments, or has a name that another process finds.
            pickled = b""
        return cls(pickled, "", told_error(error), notes)

    def error(self) -> BaseException:
        """The error again, or one that tells of it."""
        if self.pickled:
            again: BaseException = pickle.loads(self.pickled)  # noqa: S301 - from a process that this one has forked
            return again
        of_pytest = _outcome_of_pytest(self.outcome)
        told = RuntimeError(f"in a process that explored: {self.told}") if of_pytest is None else of_pytest(self.told)
        for note in self.notes:
            told.add_note(note)
        return told


def _outcome_of_pytest(name: str) -> type[BaseException] | None:
    """The class of an outcome of pytest's, which pickle looks for in the wrong place."""
    outcomes = sys.modules.get("_pytest.outcomes")
    return getattr(outcomes, name, None) if name in ("Skipped", "XFailed", "Exit") else None
