"""A process that starts again: while the power stays on, after a fault; and on a disk that fails while it recovers.

What a process finds that starts again may be in the page cache only. So it is asked twice: what the store shows then,
and what is left of that after the power has failed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from interpreters.disk.crashing import FAULTS, Bound, CrashDisk, DiskFault, Image, Interrupted, faults_of
from interpreters.explore.crashes.judge import Judge
from interpreters.explore.crashes.memo import End
from interpreters.explore.crashes.simulated import Contents
from interpreters.explore.crashes.workload import WorkloadMoment
from interpreters.explore.report import Problem
from interpreters.explore.words import named
from persist_effects.errors import CorruptStore, PersistError, StoreUnavailable
from persist_effects.machine import run
from persist_effects.requests import Request

WHOLE = Bound(tear_bytes=0, subsets=32)
"""How states are enumerated after a fault: nothing is torn beside it."""


class Restart(NamedTuple):
    """What came of a start, as far as one look at it: in which row and column it counts, and what was wrong."""

    row: str
    fault: str
    losses: tuple[str, ...]
    problem: Problem | None
    met: tuple[int, DiskFault] | None = None
    """The fault that was put at a request of the recovery."""


class Restarts:
    """Starts of one store. ``history`` and ``moment`` are of the workload that was interrupted."""

    def __init__(self, judge: Judge, moment: WorkloadMoment, history: Sequence[Contents], profile: str) -> None:
        self._judge = judge
        self._moment = moment
        self._history = history
        self._profile = profile

    def with_power_on(self, disk: CrashDisk, row: str, *, is_silent: bool) -> Iterator[Restart]:
        """Start on the disk as it is, then let the power fail."""
        on = disk.copy()
        end = self._start(on, 1)
        problem = self._judge.judge(end, on, self._moment, self._history, is_silent=is_silent)
        yield Restart(row, "restart", ("nothing: the power stayed on",), problem)
        if problem is None:
            yield from self._after_power_loss(on, end, row, "restart, then a crash", is_silent=is_silent)

    def on_failing_disk(
        self, image: Image, kinds: Sequence[str], only: tuple[int, DiskFault] | None = None
    ) -> Iterator[Restart]:
        """Start with each fault at each request of the recovery, once and for good; then without it."""
        for number, request in enumerate(self._requests(image)):
            for kind in kinds:
                for fault in faults_of(kind) if type(request) in FAULTS[kind] else ():
                    if only in {None, (number, fault)}:
                        for restart in self._with_fault(image, number, request, fault):
                            yield restart._replace(met=(number, fault))

    def _with_fault(self, image: Image, number: int, request: Request[object], fault: DiskFault) -> Iterator[Restart]:
        row = f"recovery #{number} {named(request)}"
        column = f"{fault.kind}, {'for good' if fault.is_for_good else 'once'}"
        is_silent = fault.is_silent
        on = CrashDisk(image, faults={number: fault})
        end = self._start(on, 1)
        if not _is_refusal(end.error):
            problem = self._judge.judge(end, on, self._moment, self._history, is_silent=is_silent)
            yield Restart(row, column, (), problem)
            if problem is not None:
                return
        healed = on.copy()
        again = self._start(healed, 2)
        problem = self._judge.judge(again, healed, self._at_least(end), self._history, is_silent=is_silent)
        yield Restart(row, f"{column}, then a restart", (), problem)
        yield from self._after_power_loss(on, end, row, f"{column}, then a crash", is_silent=is_silent)

    def _after_power_loss(
        self, on: CrashDisk, shown: End[Contents], row: str, fault: str, *, is_silent: bool
    ) -> Iterator[Restart]:
        moment = self._at_least(shown)
        for state in on.states(self._profile, WHOLE):
            end, after = self._judge.recover(state.image, 2)
            problem = self._judge.judge(end, after, moment, self._history, is_silent=is_silent)
            yield Restart(row, fault, state.losses, problem)

    def _at_least(self, end: End[Contents]) -> WorkloadMoment:
        """The moment from which on what was shown by this start may not be lost any more."""
        if end.value is None or end.value not in self._history:
            return self._moment
        return self._moment._replace(commits_acked=max(self._moment.commits_acked, self._history.index(end.value)))

    def _start(self, on: CrashDisk, crashes: int) -> End[Contents]:
        try:
            return End(run(self._judge.recovery(crashes), on.handlers), None)
        except Interrupted as interrupt:
            return End(None, StoreUnavailable(f"the opening was interrupted: {interrupt}"))
        except Exception as error:
            return End(None, error)

    def _requests(self, image: Image) -> list[Request[object]]:
        on = CrashDisk(image)
        requests: list[Request[object]] = []
        on.watch(lambda number, request: requests.append(request))
        self._start(on, 1)
        return requests


def _is_refusal(error: Exception | None) -> bool:
    """Whether a store that meets a fault while it opens may say so. That it is damaged, it may not: it is not."""
    return isinstance(error, PersistError | OSError) and not isinstance(error, CorruptStore)
