"""The same exploration on several cores: the crashes of a workload by where they are, each part by some process.

The parts are the same whatever the number of processes, and what is found is taken together in their order. So the
report is the same for two processes as for eight. A state that is in two parts is checked in both, which one process
alone would know to be equal.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

from interpreters.explore.crashes.judge import Judge
from interpreters.explore.crashes.states import (
    CrashOptions,
    CrashPart,
    Exploration,
    FoundState,
    StatesProgress,
    runs_with_faults,
)
from interpreters.explore.crashes.workload import Workload
from interpreters.explore.limits import noted
from interpreters.explore.report import FaultCount, Report, told_end
from interpreters.explore.workers import in_order
from persist_effects.requests import Request

_PARTS_WANTED = 8
"""Of the run without faults: so few, because the states that are in two parts are checked in both."""


class ExploredCrashes(NamedTuple):
    """What became of a part."""

    report: Report
    found: list[FoundState]


def explore_in_parts(
    options: CrashOptions,
    report: Report,
    found: list[FoundState],
    workers: int,
    *,
    progress: StatesProgress,
    is_over: Callable[[], bool],
) -> None:
    """Explore by so many processes; fills the report, and ``found`` with the states in which something was wrong."""
    cells: dict[tuple[str, str], FaultCount] = {}
    # Each process that is forked has its own, which know what the parts before have come to.
    judges: dict[int, Judge] = {}
    explored = partial(_explored, options, judges, is_over)
    with closing(in_order(explored, [*_parts(options)], workers)) as parts:
        for part in parts:
            report.enumerated += part.report.enumerated
            report.equal += part.report.equal
            report.checked += part.report.checked
            report.is_exhaustive &= part.report.is_exhaustive
            report.not_reached = report.not_reached or part.report.not_reached
            for cell in part.report.cells:
                place = cell.request, cell.fault
                old = cells.get(place, FaultCount(*place, 0, 0))
                cells[place] = FaultCount(*place, old.states + cell.states, old.failures + cell.failures)
            found += part.found
            progress(report.checked)
    report.cells = [*cells.values()]


def _parts(options: CrashOptions) -> Iterator[CrashPart]:
    """The parts of an exploration, in the order in which one process would come to them."""
    numbers: list[int] = []

    def at(workload: Workload, number: int, request: Request[object] | None) -> None:
        numbers.append(number)

    Workload(options.makers, options.setting, at).run()
    step = -(-len(numbers) // _PARTS_WANTED)
    firsts = numbers[::step]
    for first, after in zip(firsts, [*firsts[1:], numbers[-1] + 1], strict=True):
        yield CrashPart((), range(first, after), is_restarted=False)
    if options.faults:
        yield CrashPart((), range(0), is_restarted=True)
        for faults in runs_with_faults(options):
            yield CrashPart(faults, None, is_restarted=True)


def _explored(
    options: CrashOptions, judges: dict[int, Judge], is_over: Callable[[], bool], part: CrashPart
) -> ExploredCrashes:
    """What one process does with one part."""
    report = Report("", options.profile, options.depth)
    if is_over():
        report.is_exhaustive, report.not_reached = False, f"{part}, and what comes later"
        return ExploredCrashes(report, [])
    exploration = Exploration(options, report, part=part, judges=judges, is_over=is_over)
    with noted(lambda: told_end(options.profile, exploration.where, "")):
        exploration.explore()
    return ExploredCrashes(report, exploration.found)
