"""Every crash of a workload: at each request that changes the disk, every image that a loss of power may leave."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from interpreters.disk.crashing import FAULTS, MUTATING, Bound, CrashDisk, DiskFault, DiskState, Image, faults_of
from interpreters.disk.requests import Sync
from interpreters.explore.crashes.judge import Judge
from interpreters.explore.crashes.restarts import WHOLE, Restart, Restarts
from interpreters.explore.crashes.token import RESTART, CrashPlace, CrashToken
from interpreters.explore.crashes.workload import Maker, Setting, Workload, WorkloadMoment, WrongAnswer
from interpreters.explore.inputs import CheckOfWrites
from interpreters.explore.limits import Hangs
from interpreters.explore.pace import never_over
from interpreters.explore.report import FaultCount, Problem, Report
from interpreters.explore.words import named, told_error
from persist_effects.errors import PersistError
from persist_effects.machine import run
from persist_effects.requests import Failed, Request

FAILURES_MAX = 10
"""How many failures are told in full; all are counted."""

_SHARE_OF_RECOVERY = 0.5
"""In a sample, which share of the states that a crash of a recovery leaves is looked at."""

StatesProgress = Callable[[int], None]


class CrashOptions(NamedTuple):
    """What is explored, and how far."""

    makers: tuple[Maker, ...]
    check: CheckOfWrites | None
    profile: str
    depth: int
    faults: tuple[str, ...]
    seed: int | None
    limit: int | None
    bound: Bound
    setting: Setting


class CrashPart(NamedTuple):
    """A part of an exploration: one run, and where in it the power fails."""

    faults: tuple[tuple[int, DiskFault], ...]
    numbers: range | None
    """The requests before which it fails; None: all."""
    is_restarted: bool
    """Whether the store is started again where the run has ended."""

    def __str__(self) -> str:
        if self.faults:
            return f"the run with {self.faults[0][1].kind} at #{self.faults[0][0]}"
        return f"crashes from before request #{self.numbers[0]} on" if self.numbers else "starts after the end"


class FoundState(NamedTuple):
    """A state in which something was wrong."""

    token: CrashToken
    problem: Problem
    crashes: tuple[str, ...]
    losses: tuple[str, ...]
    trace: tuple[str, ...]

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """The least is the easiest to understand: the fewest crashes, the shortest workload, the least lost."""
        first = self.token.places[0]
        return len(self.token.faults), len(self.token.places), first.request, len(self.losses)


class Stop(Exception):
    """The exploration has checked as many states as it may, or its time is over."""


class _Seen:
    """The images that were looked at, as far as the store looked at them.

    Two images whose files have the same names and sizes, and of which those that were read are the same, are equal to
    a program that does nothing but ask the disk. So one that differs in what nobody reads is not looked at again.
    """

    def __init__(self) -> None:
        self._by_paths: dict[tuple[str, ...], set[Any]] = {}

    def has_equal(self, image: Image, expected: Any) -> bool:
        """Whether an image that is equal to this one was looked at, with the same to be expected of it."""
        sizes, bytes_of = _sizes_of(image), image.get
        for paths, views in self._by_paths.items():
            if (expected, sizes, tuple(map(bytes_of, paths))) in views:
                return True
        return False

    def add(self, image: Image, expected: Any, paths_read: set[str]) -> None:
        """Note an image, and which of its files were read."""
        paths = tuple(sorted(paths_read & image.keys()))
        self._by_paths.setdefault(paths, set()).add((expected, _sizes_of(image), tuple(map(image.get, paths))))


def _sizes_of(image: Image) -> frozenset[tuple[str, int]]:
    return frozenset([(path, len(content)) for path, content in image.items()])


def runs_with_faults(options: CrashOptions) -> Iterator[tuple[tuple[int, DiskFault], ...]]:
    """The faults of each run that has any: each fault at each request that can meet it."""
    kinds: list[list[str]] = []
    workload = Workload(options.makers, options.setting)

    def note(number: int, request: Request[Any]) -> None:
        kinds.append([kind for kind in options.faults if type(request) in FAULTS[kind]])

    workload.disk.watch(note)
    workload.run()
    for number, kinds_there in enumerate(kinds):
        for kind in kinds_there:
            for fault in faults_of(kind):
                yield ((number, fault),)


class Exploration:
    """One workload, explored. ``report`` is filled while it goes on."""

    def __init__(
        self,
        options: CrashOptions,
        report: Report,
        *,
        progress: StatesProgress | None = None,
        only: CrashToken | None = None,
        part: CrashPart | None = None,
        judges: dict[int, Judge] | None = None,
        is_over: Callable[[], bool] = never_over,
    ) -> None:
        self._options = options
        self._part = part
        self._report = report
        self._progress = progress
        self._only = only
        self._is_over = is_over
        self._row = ""
        self._random = random.Random(options.seed)  # noqa: S311 - no secret
        self._drawn: list[list[int]] = []
        self._quota: int | None = None
        self._cells: dict[tuple[str, str], list[int]] = {}
        self._judges: dict[int, Judge] = {} if judges is None else judges
        self._judge: Judge | None = None
        self._bound = options.bound
        self._latest: tuple[int, Image, WorkloadMoment] | None = None
        self._read: set[str] = set()
        self._seen = _Seen()
        self._deepened: set[Any] = set()
        self._faults: tuple[tuple[int, DiskFault], ...] = ()
        self._places: tuple[CrashPlace, ...] = ()
        self.found: list[FoundState] = []

    @property
    def where(self) -> str:
        """The token of the state that is looked at, or was last."""
        return str(CrashToken(self._faults, self._places or (CrashPlace(0, RESTART),)))

    def explore(self) -> None:
        """Explore without faults, then with each fault at each request that can meet it."""
        try:
            alone = self._part or self._only
            self._explore_run(() if alone is None else alone.faults)
            if alone is None and self._options.faults:
                for faults in runs_with_faults(self._options):
                    self._explore_run(faults)
        except Stop:
            self._report.is_exhaustive = False
        self._report.cells = [FaultCount(row, fault, *counts) for (row, fault), counts in self._cells.items()]

    def sample(self, limit: int) -> None:
        """Check about so many states, drawn from all crashes of the workload alike."""
        counts: list[int] = []

        def at(workload: Workload, number: int, request: Request[Any] | None) -> None:
            counts.append(sum(1 for _ in workload.disk.states(self._options.profile, self._options.bound)))

        Workload(self._options.makers, self._options.setting, at).run()
        # Where there is a second crash, most of them are for what follows on the first.
        first = limit if self._options.depth == 1 else max(1, limit // 10)
        share = min(1.0, first / sum(counts))
        self._drawn = [self._random.sample(range(count), max(1, int(count * share))) for count in counts]

    def _explore_run(self, faults: tuple[tuple[int, DiskFault], ...]) -> None:
        self._faults, self._judge, self._places = faults, None, ()
        for judge in self._judges.values():
            judge.forget_checks()
        self._bound = WHOLE if faults else self._options.bound
        self._seen, self._deepened = _Seen(), set()
        workload = Workload(self._options.makers, self._options.setting, self._at, dict(faults))
        try:
            problem = _problem_of_ends(workload.run(), is_faulty=bool(faults))
        except WrongAnswer as error:
            what, wanted, found = error.args
            problem = Problem("a wrong answer", f"{what}: {wanted!r:.300}", f"{found!r:.300}")
        except Hangs as error:
            problem = Problem("hangs after a fault" if faults else "hangs", "a workload that ends", str(error))
        except PersistError:
            # The fault was met where the store was being opened: there is nothing to go on with.
            if not faults:
                raise
            self.crash(workload, workload.disk.count, None)
            problem = None
        if problem is not None:
            self._note_end(workload, problem)
            return
        is_restarted = self._options.faults or self._only is not None
        if is_restarted and (self._part is None or self._part.is_restarted):
            self._restart(workload)

    def _at(self, workload: Workload, number: int, request: Request[Any] | None) -> None:
        if self._faults and number <= self._faults[0][0]:
            return
        moment = workload.moment()
        if moment.maybe and isinstance(request, Sync):
            self._latest = number, workload.disk.image(), moment
        if self._part is None or self._part.numbers is None or number in self._part.numbers:
            self.crash(workload, number, request)

    # Crashes

    def crash(self, workload: Workload, number: int, request: Request[Any] | None) -> None:
        """Let the power fail before a request of the workload's, in every way."""
        self._judge = self._judge_of(workload)
        self._set_quota()
        moment = workload.moment()
        self._row = row = f"#{number} {named(request)}" if request is not None else f"#{number} the end"
        for state in self._states(workload.disk, 0):
            problem = self._reach(workload, state, moment, (), (number, row))
            if problem is not None:
                self._note(workload, problem, (CrashPlace(number, state.digest),), (state,), row)
        if workload.disk.is_over(self._bound, self._read):
            self._report.is_exhaustive = False
        if self._progress is not None:
            self._progress(self._report.checked)

    def _set_quota(self) -> None:
        """Up to how many states may be checked by the end of this crash, so that those after it have theirs."""
        limit = self._options.limit
        if limit is not None and self._only is None:
            # Half of them are for runs with faults, if there are any.
            limit = limit // 2 if self._options.faults and not self._faults else limit
            self._quota = self._report.checked + max(0, limit - self._report.checked) // max(1, len(self._drawn))

    def _judge_of(self, workload: Workload) -> Judge:
        # Whoever starts after the workload's processes has salts of its own.
        boot = workload.boot + 1
        if boot not in self._judges:
            self._judges[boot] = Judge(self._options.setting, self._options.check, boot=boot)
        return self._judges[boot]

    def _restart(self, workload: Workload) -> None:
        """Start again where the run has ended; without faults in it, on a disk that fails while it recovers, too."""
        if self._faults:
            row = f"#{self._faults[0][0]}"
            found = self._restarts(workload, workload.moment())
            place = CrashPlace(workload.disk.count, RESTART)
            self._take(workload, place, found.with_power_on(workload.disk, row, is_silent=self._is_silent()))
            return
        images = [(workload.disk.count, workload.disk.image(), workload.moment())]
        if self._latest is not None:
            images.append(self._latest)
        kinds, only = self._options.faults, None
        if self._only is not None and self._only.recovery is not None:
            only = self._only.recovery
            kinds = (only[1].kind,)
        for number, image, moment in images:
            found = self._restarts(workload, moment)
            self._take(workload, CrashPlace(number, RESTART), found.on_failing_disk(image, kinds, only))

    def _restarts(self, workload: Workload, moment: WorkloadMoment) -> Restarts:
        self._judge = self._judge_of(workload)
        return Restarts(self._judge, moment, workload.history, self._options.profile)

    def _take(self, workload: Workload, place: CrashPlace, restarts: Iterator[Restart]) -> None:
        if self._only is not None and self._only.places != (place,):
            return
        self._places = (place,)
        for restart in restarts:
            self._check_limit()
            self._report.enumerated += 1
            self._report.checked += 1
            counts = self._cells.setdefault((restart.row, restart.fault), [0, 0])
            counts[0] += 1
            counts[1] += restart.problem is not None
            if restart.problem is not None:
                token = CrashToken(self._faults, (place,), restart.met)
                crash = (f"at {restart.row}: {restart.fault}",)
                self.found.append(
                    FoundState(token, restart.problem, crash, restart.losses, _trace(workload, place.request))
                )

    def _states(self, on: CrashDisk, level: int) -> Iterator[DiskState]:
        """The states to look at; those that differ only in what nobody reads are one, unless one is looked for."""
        if self._only is not None:
            if level < len(self._only.places):
                wanted = self._only.places[level].state
                yield from (s for s in on.states(self._options.profile, self._bound) if s.digest == wanted)
            return
        if level or not self._drawn:
            yield from self._those_that_differ(on, level)
            return
        drawn = set(self._drawn.pop(0))
        for at, state in enumerate(on.states(self._options.profile, self._bound)):
            if self._is_taken(at in drawn):
                yield state

    def _those_that_differ(self, on: CrashDisk, level: int) -> Iterator[DiskState]:
        before = None
        while before != len(self._read):
            # Again if meanwhile somebody has read a file that was not varied.
            before = len(self._read)
            for state in on.states(self._options.profile, self._bound, self._read):
                if self._is_taken(not level or self._quota is None or self._random.random() < _SHARE_OF_RECOVERY):
                    yield state

    def _is_taken(self, is_drawn: bool) -> bool:
        """Whether a state is looked at: if it was drawn for the sample, and that has room by the end of this crash."""
        self._report.enumerated += 1
        is_taken = is_drawn and (self._quota is None or self._report.checked < self._quota)
        if not is_taken:
            self._report.is_exhaustive = False
        return is_taken

    def _reach(
        self,
        workload: Workload,
        state: DiskState,
        moment: WorkloadMoment,
        before: tuple[CrashPlace, ...],
        at: tuple[int, str],
    ) -> Problem | None:
        """Judge a state, unless an equal one was, and go on from it to a crash of its recovery."""
        number, row = at
        crashes = len(before) + 1
        if self._only is not None and self._only.places[crashes - 1].request != number:
            return None
        expected = (moment.commits_acked, moment.commits_issued, len(moment.acked), len(moment.performed), crashes)
        if self._seen.has_equal(state.image, expected):
            self._report.equal += 1
            return None
        self._check_limit()
        self._places = (*before, CrashPlace(number, state.digest))
        judge = self._judge
        assert judge is not None
        end, on = judge.recover(state.image, crashes)
        recovery_read = frozenset(on.paths_read)
        problem = None
        if self._only is None or len(self._only.places) == crashes:
            self._report.checked += 1
            problem = judge.judge(end, on, moment, workload.history, is_silent=self._is_silent())
            self._count(row, state.kind, problem)
        self._read |= on.paths_read
        self._seen.add(state.image, expected, on.paths_read)
        if crashes < self._options.depth and problem is None:
            # Recoveries that were answered the same can differ later in what only a later one reads.
            unread = tuple((path, state.image.get(path)) for path in sorted(self._read - recovery_read))
            class_of = (id(end), expected, unread)
            if class_of not in self._deepened:
                self._deepened.add(class_of)
                self._crash_recovery(workload, state, moment, (*before, CrashPlace(number, state.digest)))
        return problem

    def _crash_recovery(
        self, workload: Workload, state: DiskState, moment: WorkloadMoment, places: tuple[CrashPlace, ...]
    ) -> None:
        judge = self._judge
        assert judge is not None
        on = CrashDisk(state.image)

        def at(number: int, request: Request[Any]) -> None:
            if type(request) not in MUTATING:
                return
            row = f"recovery #{number} {named(request)}"
            for after in self._states(on, len(places)):
                problem = self._reach(workload, after, moment, places, (number, row))
                if problem is not None:
                    where = (*places, CrashPlace(number, after.digest))
                    self._note(workload, problem, where, (state, after), row)

        on.watch(at)
        try:
            run(judge.recovery(len(places)), on.handlers)
        except (PersistError, OSError):
            return

    def _is_silent(self) -> bool:
        return any(fault.is_silent for _, fault in self._faults)

    def _check_limit(self) -> None:
        limit = self._options.limit
        if limit is not None and self._report.checked >= limit:
            raise Stop
        if self._report.checked and self._is_over():
            crashes = f"crashes from before request {self._row} on"
            with_faults = f" in the run with {self._faults[0][1].kind} at #{self._faults[0][0]}" if self._faults else ""
            later = ", and the faults" if self._options.faults and not self._faults else ""
            later = ", and the faults that come later" if self._faults else later
            self._report.not_reached = f"{crashes}{with_faults}{later}"
            raise Stop

    def _count(self, row: str, kind: str, problem: Problem | None) -> None:
        if self._faults:
            number, fault = self._faults[0]
            row, kind = f"#{number}", f"{fault.kind}{', for good' if fault.is_for_good else ', once'}"
        counts = self._cells.setdefault((row, kind), [0, 0])
        counts[0] += 1
        counts[1] += problem is not None

    # Failures

    def _note(
        self,
        workload: Workload,
        problem: Problem,
        places: tuple[CrashPlace, ...],
        states: tuple[DiskState, ...],
        row: str,
    ) -> None:
        losses = tuple(loss for state in states for loss in state.losses)
        crashes = (f"before request {row}",)
        token = CrashToken(self._faults, places)
        self.found.append(FoundState(token, problem, crashes, losses, _trace(workload, places[0].request)))

    def _note_end(self, workload: Workload, problem: Problem) -> None:
        number = workload.disk.count
        self._report.checked += 1
        self._count(f"#{number}", "answers", problem)
        token = CrashToken(self._faults, (CrashPlace(number, RESTART),))
        self.found.append(FoundState(token, problem, (f"at request #{number}",), (), _trace(workload, number)))


def _problem_of_ends(outcomes: Sequence[Any], *, is_faulty: bool) -> Problem | None:
    """What is wrong with how the programs ended. What the store tells them of a fault may end them."""
    for outcome in outcomes:
        if isinstance(outcome, Failed) and not (is_faulty and isinstance(outcome.error, PersistError)):
            expected = "programs that raise nothing" + (" but what the store told them" if is_faulty else "")
            return Problem("raises after a fault" if is_faulty else "raises", expected, told_error(outcome.error))
    return None


def _trace(workload: Workload, number: int) -> tuple[str, ...]:
    before = [line for at, line in workload.lines if at < number]
    return (*before[-14:], "  ✗ the power fails")
