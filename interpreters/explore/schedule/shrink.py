"""A failure made small: as few programs as have it, then as few switches, then as few steps.

A part of the programs counts only if nothing is wrong where they run one after the other: a check that counts on all
of them would fail of itself, and who waits for one that is left out would wait for ever.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

from interpreters.explore.schedule.case import Case, FoundOrder
from interpreters.explore.schedule.footprint import ORDERS
from interpreters.explore.schedule.ordered import Ordered

_RUNS = 2_000
"""How many interleavings are tried for each set of programs and each number of switches."""


class Shrunk(NamedTuple):
    """A failure of some of the programs; ``only`` says of which, None for all."""

    only: tuple[int, ...] | None
    found: FoundOrder


def shrunk(case: Case, found: FoundOrder, is_over: Callable[[], bool]) -> Shrunk:
    """The smallest failure of the same kind; once the time is over, the one that was found."""
    count = len(case.programs)
    has_crash = any(move >= count for move in found.moves)
    # Who raises whatever the order may be shown alone.
    is_free = found.problem.kind == "raises" and not _passes_in_turn(case)
    for size in range(1, count + 1):
        for only in combinations(range(count), size):
            if is_over():
                return Shrunk(None, found)
            part = case.only(only)
            if size < count and not is_free and not _passes_in_turn(part):
                continue
            smaller = _smallest(part, found, is_over, has_crash=has_crash)
            if smaller is not None:
                return Shrunk(None if size == count else only, smaller)
    return Shrunk(None, found)


def _passes_in_turn(case: Case) -> bool:
    return not any(Ordered(case, bound=0, reduce=False, crashes=False).failures(_RUNS))


def _smallest(case: Case, found: FoundOrder, is_over: Callable[[], bool], *, has_crash: bool) -> FoundOrder | None:
    for crashes in sorted({False, has_crash}):
        for bound in range(found.switches + 1):
            search = Ordered(case, bound=bound, reduce=case.contents is None, crashes=crashes, orders=ORDERS)
            alike = [other for other in search.failures(_RUNS, is_over) if _are_alike(found, other)]
            if alike:
                return min(alike, key=lambda other: (_crashes_in(other, case), len(other.moves), other.moves))
    return None


def _crashes_in(found: FoundOrder, case: Case) -> bool:
    return any(move >= len(case.programs) for move in found.moves)


def _are_alike(one: FoundOrder, other: FoundOrder) -> bool:
    """Whether two failures are of the same kind, and met the same error."""
    return (
        one.problem.kind == other.problem.kind and one.problem.found.split(":")[0] == other.problem.found.split(":")[0]
    )
