"""Whether a store's operations, as they overlapped, could have been done one after the other.

A history is linearizable if each operation can be given one moment between its request and its answer, so that a store
which does them in the order of these moments gives the same answers (Herlihy and Wing, 1990). The memory store is asked
what those answers are. An operation whose outcome is uncertain, or of which nobody heard because its program was gone,
may have taken effect at any time after its request, or not at all.

Positions and revisions are the store's own choice: what counts is that equal ones stay equal.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from interpreters.explore.report import UNDECIDED, Problem
from interpreters.explore.schedule.history import operations_in, settled
from interpreters.explore.schedule.parts import HistoryPart, parts_of
from interpreters.explore.schedule.recorded import RecordedStep
from interpreters.explore.schedule.rows import Rows
from interpreters.explore.schedule.world import World
from persist_effects.event import Draft
from persist_effects.kv import entries
from persist_effects.log import last_seq, read_all, streams
from persist_effects.machine import Effect, Handlers
from persist_effects.requests import Append, Begin, KvPut

TRIES = 500_000
"""How many operations are tried at the most in each search of an exploration: then it is given up, within a minute."""

LINEARIZABLE, NOT_LINEARIZABLE = "linearizable", "not linearizable"


class Linearity(msgspec.Struct, frozen=True):
    """Whether a history can be put in a row.

    ``verdict`` is ``"linearizable"``, ``"not linearizable"`` or ``"undecided"``. ``found`` says in words what no order
    explains, or how far the search has come. ``tries`` counts the operations that were tried, one after another.
    """

    verdict: str
    found: str
    tries: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.found}"


class Filling(NamedTuple):
    """What a store holds: the writes that fill an empty one likewise."""

    writes: tuple[Any, ...]


def contents_of(handlers: Handlers) -> Filling:
    """Read everything that a store holds.

    >>> from interpreters.stores.memory import MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.handlers[KvPut](KvPut("color", "red"))
    >>> contents_of(store.handlers).writes
    (KvPut(key='color', value='red', expected=None),)
    """
    return Filling(tuple(World((), handlers).run_alone(_writes())))


def _writes() -> Effect[list[Any]]:
    left = yield from read_all()
    writes: list[Any] = []
    for stream in (yield from streams()):
        first = next((event.seq for event in left if event.stream == stream), (yield from last_seq(stream)) + 1)
        if first > 1:
            writes.append(Begin(stream, first - 1))
    writes += (Append(event.stream, (Draft(event.type, event.data, event.at, event.meta),)) for event in left)
    found = yield from entries()
    found.sort(key=lambda pair: pair[1].revision)
    return [*writes, *(KvPut(key, entry.value) for key, entry in found)]


class _Search:
    """The parts of one history, searched one after the other."""

    def __init__(self, names: Sequence[str], tries: int | None, is_late: Callable[[], bool]) -> None:
        self._names, self._limit, self._is_late = names, tries, is_late
        self.tries = 0
        self.numbers = frozenset[tuple[str, int]]()

    def problem_of(self, part: HistoryPart) -> Linearity | None:
        """What is wrong with a part; None, if there is an order, of which ``numbers`` are known then."""
        rows = Rows(part.history, part.before, tries=self._limit, is_late=self._is_late)
        is_found = rows.find()
        self.tries += rows.tries
        if is_found:
            self.numbers = rows.numbers
            return None
        told = [*rows.told_history(self._names), *rows.told_best(self._names)]
        if not rows.is_given_up:
            return Linearity(NOT_LINEARIZABLE, "\n".join(["no order does:", *told]), self.tries)
        far = f"the longest row has {rows.longest:,} of {len(part.history):,} operations"
        return Linearity(UNDECIDED, "\n".join([far, *told]), self.tries)


def linearity_of(
    trace: Sequence[RecordedStep],
    before: Sequence[Any],
    names: Sequence[str],
    *,
    tries: int | None = None,
    is_late: Callable[[], bool],
) -> Linearity:
    """Look for an order of a history's operations, of each of its parts by itself.

    Args:
        trace: The steps.
        before: The writes that make what the store held before.
        names: What those are called that took the steps.
        tries: How many operations are tried at the most in each search; None: any number.
        is_late: Whether the time is over.
    """
    search, undecided = _Search(names, tries, is_late), list[Linearity]()
    operations = settled(operations_in(trace), before)
    left, found = parts_of(operations, before), list[tuple[HistoryPart, frozenset[tuple[str, int]]]]()
    count = len(left)
    while left:
        part = left.pop()
        problem = search.problem_of(part)
        if problem is None:
            # A number stands for one write: where two parts name the same one, they are judged as one.
            twin = next((one for one in found if not one[1].isdisjoint(search.numbers)), None)
            if twin is None:
                found.append((part, search.numbers))
            else:
                found.remove(twin)
                left.append(part.joined(twin[0]))
        elif problem.verdict == NOT_LINEARIZABLE:
            return problem
        else:
            undecided.append(problem)
    if undecided:
        head = f"no order was found in {search.tries:,} tries, and more were not tried"
        far = f"{len(found):,} of {len(found) + len(undecided):,} parts have one; of the first other one"
        return Linearity(UNDECIDED, f"{head}: {far}, {undecided[-1].found}", search.tries)
    return Linearity(LINEARIZABLE, f"{len(operations):,} operations in {count:,} parts", search.tries)


def linear_problem(trace: Sequence[RecordedStep], contents: Filling, names: Sequence[str]) -> Problem | None:
    """What is wrong with a history, None if it can be put in a row.

    Args:
        trace: The steps. Some thousands are no trouble where few of them overlap.
        contents: What the store held before.
        names: What those are called that took the steps.

    Returns:
        The problem, also where no order was found in as many tries as are made: "undecided" then.
    """
    found = linearity_of(trace, contents.writes, names, tries=TRIES, is_late=lambda: False)
    if found.verdict == LINEARIZABLE:
        return None
    return Problem(
        found.verdict,
        "some order of the operations, each between its request and its answer, explains all answers",
        found.found,
    )
