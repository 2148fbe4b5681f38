"""`explore_disk`: a user's own file code, as a program over a disk, under every crash.

Each image that a loss of power may leave is given to a new process: its recovery, if there is one, and then the check.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from interpreters.disk.checking import checked_disk_rows
from interpreters.disk.crashing import (
    DEFAULT_BOUND,
    FAULTS,
    INTERRUPTS,
    MUTATING,
    SILENT,
    Bound,
    CrashDisk,
    DiskFault,
    DiskState,
    Image,
    SteadyDisk,
    faults_of,
)
from interpreters.disk.survivors import directory_of
from interpreters.explore.crashes.explore import barriers_after, bound_in_words, check_reach, failure_of, simplest
from interpreters.explore.crashes.restarts import WHOLE
from interpreters.explore.crashes.states import FoundState, Stop
from interpreters.explore.crashes.token import RESTART, CrashPlace, CrashToken, parsed
from interpreters.explore.faults import SHARED
from interpreters.explore.inputs import ProgramMaker, check_program, checked_check
from interpreters.explore.limits import Hangs, as_failure, limited, noted, outcome_of_check
from interpreters.explore.pace import Pace, check_pace
from interpreters.explore.report import NOT_DETERMINISTIC, Failure, FaultCount, Problem, Report, told_end
from interpreters.explore.virtual import VirtualTime
from interpreters.explore.words import are_alike, name_of, named, told_error
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Effect, Handlers, run
from persist_effects.requests import Request

CheckOfDisk = Callable[[list[Any]], Effect[Any]]
"""A program over a disk that raises where its files are wrong. It is given what was promised before the crash."""

DISK_FAULTS = tuple(kind for kind in FAULTS if kind not in SILENT | INTERRUPTS)
"""The faults that the disk tells whoever asks it."""

_TRACE_LINES = 14

_Crashes = tuple[tuple[CrashPlace, DiskState], ...]
"""Each crash so far: where it was, and what it left."""


class Promised(Request[None], frozen=True, tag="simulate/promised"):
    """In a workload of `explore_disk`: from here on somebody counts on it. The check is given ``what``, in order.

    >>> Promised("the note is saved")
    Promised(what='the note is saved')
    """

    what: Any = None


class DiskOptions(NamedTuple):
    """What is explored, and how far."""

    workload: ProgramMaker
    check: CheckOfDisk
    recover: ProgramMaker | None
    image: Image
    profile: str
    depth: int
    faults: tuple[str, ...]
    bound: Bound
    requests_limit: int


def explore_disk(
    workload: ProgramMaker,
    check: CheckOfDisk,
    *,
    recover: ProgramMaker | None = None,
    files: Mapping[str, bytes] | None = None,
    profile: str = "posix",
    depth: int = 1,
    faults: Iterable[str] = (),
    bound: Bound = DEFAULT_BOUND,
    seconds: float | None = None,
    progress: bool = False,
    repro: str | None = None,
    requests_limit: int = 10_000,
) -> Report:
    """Let the power fail at every request of your own file code that changes the disk, and check all it may leave.

    Args:
        workload: A function that makes a program over `interpreters.disk`. What was told to somebody it says by
            `Promised`. It must be the same each time: time is virtual, and there are no other effects.
        check: Given the list of what was promised before the crash, it makes a program over the disk that is left,
            and raises where that is wrong.
        recover: Makes the program that your process runs when it starts, before the check.
        files: What stands on the disk at first, by path. The directories above are there too.
        profile: What a file system may do: ``"posix"``, ``"ordered"`` or ``"writeback"``.
        depth: The number of crashes, the later ones inside the recovery: 1 to 3.
        faults: Of `DISK_FAULTS`, such as ``["EIO", "ENOSPC"]``: each is put at every request that can meet it, once
            and for good. An OSError may then end the workload.
        bound: Up to how much that is unsynced all combinations of it are tried.
        seconds: When to end, if not everything was looked at by then.
        progress: Whether a line on standard error says how far it is.
        repro: The token of a failure, which alone is looked at again.
        requests_limit: A program that asks more often hangs.

    Returns:
        What was explored, and of each kind of failure the one that is the easiest to understand.

    Raises:
        InvalidRequest: If arguments make no sense, before any program runs.

    >>> from interpreters import disk
    >>> from persist_effects import perform
    >>> def overwrite():
    ...     yield from perform(disk.Write("note", 0, b"new"))
    ...     yield from perform(disk.Sync("note"))
    >>> def is_old_or_new(promised):
    ...     note = yield from perform(disk.Read("note", 0, 100))
    ...     assert note in (b"old", b"new"), f"the note is {note}"
    >>> report = explore_disk(overwrite, is_old_or_new, files={"note": b"old"})
    >>> report.verdict, report.failures[0].found
    ('failed', "AssertionError: the note is b'nld'")
    """
    only = None if repro is None else parsed(repro)
    depth = max(depth, len(only.places)) if only is not None and type(depth) is int else depth
    options = DiskOptions(
        workload,
        check,
        recover,
        _checked_files(files),
        profile,
        depth,
        _checked_faults(faults),
        bound,
        requests_limit,
    )
    _check_options(options)
    check_pace(seconds, progress)
    report = Report(
        name_of(workload), f"disk {profile}", depth, bound=bound_in_words(options.bound, options.depth, options.faults)
    )
    report.arguments = _arguments_again(options)
    failure = _failure_without_crash(options)
    if failure is not None:
        report.failures.append(failure)
        report.is_exhaustive, report.bound = False, "nothing was explored"
        return report
    if only is not None:
        report.is_exhaustive, report.bound = False, f"the one state {repro}"
    pace = Pace(report.subject, seconds, is_told=progress)
    search = _DiskSearch(options, report, pace, only)
    with noted(lambda: told_end(report.profile, search.where, report.arguments)):
        search.explore()
        if repro is not None and not report.checked:
            raise InvalidRequest(
                f"{repro!r} names no state of this workload: it may have changed since the token was made"
            )
        report.failures = [failure_of(one, _remedy_of(one, options)) for one in simplest(search.found)]
    return report


# One run, and one state


class _Aside:
    """Calls from inside of a user's program, in which their errors would be raised: the first one is kept for after."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function, unless one before has failed."""
        if self._error is None:
            try:
                function(*arguments)
            except BaseException as error:
                self._error = error

    def end(self) -> None:
        """Raise what was kept."""
        if self._error is not None:
            raise self._error


class _DiskRun:
    """A run of the workload on a disk. ``at(run, number, request)`` is called before each request that changes it."""

    def __init__(
        self,
        options: DiskOptions,
        at: Callable[["_DiskRun", int, Request[Any] | None], None] | None = None,
        faults: Mapping[int, DiskFault] | None = None,
        barriers: Mapping[int, Request[Any]] | None = None,
    ) -> None:
        self.disk = CrashDisk(options.image, faults, barriers)
        self.disk.watch(self._before)
        self.lines: list[tuple[int, str]] = []
        self.promised: list[Any] = []
        self.requests: list[Request[Any]] = []
        self._options = options
        self._at = at
        self._aside = _Aside()

    def run(self) -> Exception | None:
        """Run it to its end, and return what it failed with. Raises what ``at`` has raised."""
        rows: Handlers = {**_rows(self.disk), Promised: self._promise}
        failure = None
        try:
            run(limited(self._options.workload(), self._options.requests_limit), rows)
        except BaseException as error:
            failure = as_failure(error)
        self._aside.end()
        if self._at is not None:
            self._at(self, self.disk.count, None)
        return failure

    def _before(self, number: int, request: Request[Any]) -> None:
        self.lines.append((number, f"#{number} {named(request)}"))
        self.requests.append(request)
        if self._at is not None and type(request) in MUTATING:
            self._aside.call(self._at, self, number, request)

    def _promise(self, request: Promised) -> None:
        self.promised.append(request.what)
        self.lines.append((self.disk.count, f"── promised {request.what!r:.60}"))

    def trace(self, number: int) -> tuple[str, ...]:
        """The lines before a crash, and the crash."""
        before = [line for at, line in self.lines if at < number or (at == number and line.startswith("──"))]
        return (*before[-_TRACE_LINES:], "  ✗ the power fails")


def _rows(on: CrashDisk) -> Handlers:
    return {**VirtualTime().rows, **checked_disk_rows(on.handlers)}


def _problem_of(image: Image, promised: list[Any], options: DiskOptions) -> Problem | None:
    """What is wrong with an image that a crash has left: a process starts on it, and the check looks at its files."""
    rows = _rows(SteadyDisk(image))
    if options.recover is not None:
        try:
            run(limited(options.recover(), options.requests_limit), rows)
        except BaseException as error:
            told = told_error(as_failure(error))
            return Problem("the recovery raises", "a recovery that comes to its end", told)
    failure = run(outcome_of_check(options.check, list(promised), requests_limit=options.requests_limit), rows)
    return None if failure is None else Problem("invariant", "the check to pass", told_error(failure))


# The search


class _DiskSearch:
    """All crashes of a workload, without faults and then with each. What was checked of an equal image is not again."""

    def __init__(self, options: DiskOptions, report: Report, pace: Pace, only: CrashToken | None = None) -> None:
        self._options = options
        self._report = report
        self._pace = pace
        self._only = only
        self._faults: tuple[tuple[int, DiskFault], ...] = ()
        self._places: tuple[CrashPlace, ...] = ()
        self._cells: dict[tuple[str, str], list[int]] = {}
        self._seen: set[Any] = set()
        self.found: list[FoundState] = []

    @property
    def where(self) -> str:
        """The token of the state that is looked at, or was last."""
        return str(CrashToken(self._faults, self._places or (CrashPlace(0, RESTART),)))

    def explore(self) -> None:
        """Look at all crashes of the run without faults, then at those after each fault."""
        try:
            for faults in [self._only.faults] if self._only is not None else [(), *self._placed_faults()]:
                self._explore_run(faults)
        except Stop:
            self._report.is_exhaustive = False
        self._pace.end(self._report.checked, self._report.equal, len(self.found))
        self._report.cells = [FaultCount(row, kind, *counts) for (row, kind), counts in self._cells.items()]

    def _placed_faults(self) -> Iterator[tuple[tuple[int, DiskFault], ...]]:
        base = _DiskRun(self._options)
        base.run()
        for number, request in enumerate(base.requests):
            for kind in self._options.faults:
                if type(request) in FAULTS[kind]:
                    yield from (((number, fault),) for fault in faults_of(kind))

    def _explore_run(self, faults: tuple[tuple[int, DiskFault], ...]) -> None:
        self._faults = faults
        self._seen.clear()
        one = _DiskRun(self._options, self.crash, dict(faults))
        failure = one.run()
        place = CrashPlace(one.disk.count, RESTART)
        if faults and not isinstance(failure, OSError | None) and (self._only is None or self._only.places == (place,)):
            expected = "a program that raises nothing but what the disk told it"
            problem = Problem("raises after a fault", expected, told_error(failure))
            self._report.checked += 1
            self._count(self._row(""), "answers", problem)
            self._note(one, problem, (place,), (), f"#{one.disk.count} the end")

    def crash(self, one: _DiskRun, number: int, request: Request[Any] | None) -> None:
        """Let the power fail before a request, in every way."""
        if not self._faults or number > self._faults[0][0]:
            row = f"#{number} {'the end' if request is None else named(request)}"
            self._crash_disk(one, one.disk, (number, row), ())

    def _crash_disk(self, one: _DiskRun, on: CrashDisk, at: tuple[int, str], before: _Crashes) -> None:
        number, row = at
        bound = WHOLE if self._faults else self._options.bound
        wanted = self._wanted(len(before))
        if wanted is None and on.is_over(bound, _EVERY_FILE):
            self._report.is_exhaustive = False
        for state in on.states(self._options.profile, bound) if wanted is None or wanted.request == number else ():
            if wanted is not None and state.digest != wanted.state:
                continue
            self._report.enumerated += 1
            key = (frozenset(state.image.items()), len(one.promised), len(before))
            if key in self._seen:
                self._report.equal += 1
                continue
            self._seen.add(key)
            self._look_at(one, row, (*before, (CrashPlace(number, state.digest), state)))

    def _wanted(self, level: int) -> CrashPlace | None:
        """The one crash at this depth that is looked for; None: all."""
        if self._only is None:
            return None
        places = self._only.places
        return places[level] if level < len(places) else CrashPlace(-1, "")

    def _look_at(self, one: _DiskRun, row: str, crashes: _Crashes) -> None:
        if self._report.checked and self._pace.is_over():
            self._report.not_reached = f"crashes from request {self._row(row)} on"
            raise Stop
        state = crashes[-1][1]
        self._places = tuple(place for place, _ in crashes)
        problem = _problem_of(state.image, one.promised, self._options)
        if self._only is None or self._places == self._only.places:
            self._report.checked += 1
            self._count(self._row(row), self._kind(state), problem)
            if problem is not None:
                losses = tuple(loss for _, state in crashes for loss in state.losses)
                self._note(one, problem, self._places, losses, row)
        self._pace.tell(self._report.checked, self._report.equal, len(self.found))
        if problem is None and len(crashes) < self._options.depth and self._options.recover is not None:
            self._crash_recovery(one, self._options.recover, crashes)

    def _crash_recovery(self, one: _DiskRun, recover: ProgramMaker, crashes: _Crashes) -> None:
        on, aside = CrashDisk(crashes[-1][1].image), _Aside()

        def at(number: int, request: Request[Any]) -> None:
            if type(request) in MUTATING:
                aside.call(self._crash_disk, one, on, (number, f"recovery #{number} {named(request)}"), crashes)

        on.watch(at)
        run(limited(recover(), self._options.requests_limit), _rows(on))
        aside.end()

    # What was found

    def _row(self, row: str) -> str:
        return f"#{self._faults[0][0]}" if self._faults else row

    def _kind(self, state: DiskState) -> str:
        if not self._faults:
            return state.kind
        fault = self._faults[0][1]
        return f"{fault.kind}{', for good' if fault.is_for_good else ', once'}"

    def _count(self, row: str, kind: str, problem: Problem | None) -> None:
        counts = self._cells.setdefault((row, kind), [0, 0])
        counts[0] += 1
        counts[1] += problem is not None

    def _note(
        self, one: _DiskRun, problem: Problem, places: tuple[CrashPlace, ...], losses: tuple[str, ...], row: str
    ) -> None:
        trace = one.trace(places[0].request)
        token = CrashToken(self._faults, places)
        self.found.append(FoundState(token, problem, (f"before request {row}",), losses, trace))


class _EveryFile:
    """Contains every path: a user's check may read any of the files."""

    def __contains__(self, path: object) -> bool:
        return True


_EVERY_FILE: Any = _EveryFile()


def _remedy_of(found: FoundState, options: DiskOptions) -> str | None:
    """A sync that would mend it, if there is one: it is made after a request, and the crash tried again."""
    if found.token.faults or len(found.token.places) != 1 or not found.losses:
        return None
    number = found.token.places[0].request
    base = _DiskRun(options)
    base.run()
    for after in reversed(range(number)):
        for barrier in barriers_after(base.requests[after]):
            if _passes(options, number, {after: barrier}):
                what = "the directory is" if barrier.op == "disk/sync-directory" else f"{barrier.path} is"
                return f"passes if {what} synced after request {after}"
    return None


def _passes(options: DiskOptions, number: int, barriers: Mapping[int, Any]) -> bool:
    """Whether nothing is wrong in any state at this crash, with some syncs more."""
    quiet = options._replace(depth=1, faults=())
    search = _DiskSearch(quiet, Report("", options.profile, 1), Pace("", None, is_told=False))

    def at(one: _DiskRun, now: int, request: Request[Any] | None) -> None:
        if now == number:
            search.crash(one, now, request)

    try:
        _DiskRun(quiet, at, barriers=barriers).run()
    except OSError:
        # That which is to be synced was not there any more.
        return False
    return not search.found


# A workload of which nothing can be said


def _failure_without_crash(options: DiskOptions) -> Failure | None:
    """What is wrong with the workload where nothing goes wrong: it raises, never ends, or is not the same twice."""
    first, second = _DiskRun(options), _DiskRun(options)
    for one in (first, second):
        failure = one.run()
        if failure is not None:
            kind = "hangs" if isinstance(failure, Hangs) else "raises"
            return _verdict(kind, "a workload that comes to its end", told_error(failure), one)
    same = [are_alike(first.lines, second.lines), are_alike(first.disk.image(), second.disk.image())]
    if all(same) and are_alike(first.promised, second.promised):
        return None
    lines = [[line for _, line in one.lines] for one in (first, second)]
    differ = next(((here, there) for here, there in zip(*lines, strict=False) if here != there), None)
    here, there = differ or (f"{len(lines[0])} steps", f"{len(lines[1])} steps, or other bytes")
    return _verdict(NOT_DETERMINISTIC, f"in both runs: {here}", f"in the second: {there}", second, SHARED)


def _verdict(kind: str, expected: str, found: str, one: _DiskRun, remedy: str | None = None) -> Failure:
    trace = tuple(line for _, line in one.lines[-_TRACE_LINES:])
    return Failure(kind, expected, found, "without any crash", (), trace, "0.r", remedy)


# Arguments


def _check_options(options: DiskOptions) -> None:
    check_reach(options.profile, options.depth)
    if options.depth > 1 and options.recover is None:
        raise InvalidRequest(
            f"depth is {options.depth}, and there is no recovery: give recover=, in which a second crash may come"
        )
    if type(options.requests_limit) is not int or options.requests_limit < 1:
        raise InvalidRequest(f"requests_limit is {describe(options.requests_limit)}: give a whole number from 1 on")
    if not isinstance(options.bound, Bound):
        raise InvalidRequest(f"bound is {describe(options.bound)}: give a Bound")
    checked_check(options.check, "promised")
    check_program(options.workload, "workload")
    if options.recover is not None:
        check_program(options.recover, "recover")


def _checked_files(files: Any) -> Image:
    """The image of a disk on which these files stand, with the directories above them."""
    if files is None:
        return {}
    if not isinstance(files, Mapping):
        raise InvalidRequest(f"files is {describe(files)}: give a dict of paths and their bytes")
    image: Image = {}
    for path, content in files.items():
        if not isinstance(path, str) or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise InvalidRequest(f"files has the path {path!r}: give it relative, as 'notes/1.txt'")
        if not isinstance(content, bytes):
            raise InvalidRequest(f"files has {describe(content)} at {path!r}: give bytes")
        image[path] = content
        above = directory_of(path)
        while above:
            image[above] = b""
            above = directory_of(above)
    for path in image:
        if path.endswith("/") and path[:-1] in image:
            below = next(one for one in image if one.startswith(path) and one != path)
            raise InvalidRequest(f"files has {path[:-1]!r}, a file, above {below!r}: give one of them another name")
    return image


def _checked_faults(faults: Any) -> tuple[str, ...]:
    known = ", ".join(map(repr, DISK_FAULTS))
    if faults == "all":
        return DISK_FAULTS
    if isinstance(faults, str) or not isinstance(faults, Iterable):
        raise InvalidRequest(f"faults is {describe(faults)}: give a list of some of {known}, or 'all'")
    wanted = tuple(faults)
    for fault in wanted:
        if fault not in DISK_FAULTS:
            raise InvalidRequest(f"{fault!r} is not a fault that a disk tells of: give some of {known}, or 'all'")
    return wanted


def _arguments_again(options: DiskOptions) -> str:
    given = [
        ("profile", options.profile, "posix"),
        ("bound", options.bound, DEFAULT_BOUND),
        ("requests_limit", options.requests_limit, 10_000),
    ]
    told = ["recover=recover"] * (options.recover is not None) + ["files=files"] * bool(options.image)
    return ", ".join([*told, *(f"{name}={value!r}" for name, value, usual in given if value != usual)])
