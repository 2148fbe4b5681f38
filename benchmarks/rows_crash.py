"""How fast crashes are explored: states that differ and were checked in full, on one core."""

import time

from benchmarks.crash_workloads import FIXED
from benchmarks.table import Bound, Row
from interpreters.explore import explore_crashes

STATES_A_SECOND = 5_000.0

TOO_LONG = frozenset({"roll-over", "compaction", "opened again", "torn tail"})
"""Workloads that would take most of the time: of those, one crash, and no faults."""


def explore_all(count: int) -> float:
    """All states of so many of the fixed workloads together, a second."""
    checked = 0
    start = time.perf_counter()
    for fixed in FIXED[:count]:
        depth = 1 if fixed.name in TOO_LONG else fixed.depth
        checked += explore_crashes(fixed.programs, depth=depth, segment_bytes=fixed.segment_bytes).checked
    return checked / (time.perf_counter() - start)


ROWS = (
    Row(
        name="explore crashes: distinct states checked, of the fixed workloads together",
        unit="states/s",
        bound=Bound.AT_LEAST,
        must=1.0,
        operations=len(FIXED),
        rounds=3,
        ours=explore_all,
        peer=lambda count: STATES_A_SECOND,
    ),
)
