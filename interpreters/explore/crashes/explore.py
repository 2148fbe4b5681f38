"""`explore_crashes`: the front door, its verdicts, and what makes a failure easy to understand."""

import gc
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from interpreters.disk import requests as disk
from interpreters.disk.crashing import DEFAULT_BOUND, FAULTS, PROFILES, Bound
from interpreters.explore.crashes.simulated import difference
from interpreters.explore.crashes.states import FAILURES_MAX, CrashOptions, Exploration, FoundState, StatesProgress
from interpreters.explore.crashes.token import CrashToken, parsed
from interpreters.explore.crashes.workers import explore_in_parts
from interpreters.explore.crashes.workload import Maker, Setting, Workload, WrongAnswer
from interpreters.explore.faults import SHARED
from interpreters.explore.inputs import CheckOfWrites, checked_check
from interpreters.explore.limits import Hangs, as_failure, note, noted
from interpreters.explore.pace import Pace, check_pace, never_over
from interpreters.explore.report import NOT_DETERMINISTIC, Failure, Report, told_end
from interpreters.explore.words import are_alike, told_error
from interpreters.explore.workers import check_workers
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers
from persist_effects.requests import Answered, Failed, Request

_SEARCHING = 0.8
"""By when, as a share of the time, the search ends."""


def explore_crashes(
    workload: Maker | Sequence[Maker],
    check: CheckOfWrites | None = None,
    *,
    profile: str = "posix",
    depth: int = 2,
    faults: Iterable[str] = (),
    seed: int | None = None,
    limit: int | None = None,
    repro: str | None = None,
    bound: Bound = DEFAULT_BOUND,
    segment_bytes: int = 4096,
    requests_limit: int = 10_000,
    effects: Callable[[], Handlers] | None = None,
    seconds: float | None = None,
    progress: StatesProgress | bool | None = None,
    workers: int | None = None,
) -> Report:
    """Let the power fail at every request of a workload that changes the disk, and look at all that it may leave.

    Each image that may survive is opened by the file store, which must show all that was acknowledged, commits whole or
    not at all and in order, nothing that was never written, dropped or overwritten, and must take writes.

    Args:
        workload: A function that makes a program, or several, which then run together and share commits; besides the
            store's requests they may perform `Compact`, `Reopen` and `Mark`.
        check: Given ``(acked, maybe)``, it makes a program that is run on each image and raises where your own
            invariant is broken: ``acked`` are the writes with their answers, in order, ``maybe`` those on their way.
        profile: What a file system may do, of `crash_disk.PROFILES`.
        depth: The number of crashes, the later ones inside recovery.
        faults: Of `crash_disk.FAULTS`; they are put at each request that can meet them, once and for good.
        seed: Draws the states that are checked where there are more than ``limit``.
        limit: How many states are checked at the most; None: all.
        repro: The token of a failure, which alone is looked at again.
        bound: Up to how much that is unsynced all combinations of it are tried: see `Bound`.
        segment_bytes: The size at which the store begins the next file.
        requests_limit: A program that asks more often hangs.
        effects: Makes the rows for your own requests and for blobs; they are outside of the disk, and survive.
        seconds: How long it may take: four fifths are for the search, the rest for making failures easy to understand.
            The report says what was not reached.
        progress: True for a line on standard error that says how far it is; or a function, which is told now and then
            how many states were checked.
        workers: How many processes go through the crashes, forked from the main thread; None: this one alone. The
            report is the same for any number; without it, fewer states are looked at twice. What the check and
            ``effects`` leave behind stays in the processes. Not with ``limit``.

    Returns:
        What was explored, and the failures, each with its trace and token.

    Raises:
        InvalidRequest: If arguments make no sense, before any program runs.

    >>> from persist_effects import log
    >>> def workload():
    ...     yield from log.append("orders/1", "placed", {"total": 12})
    >>> report = explore_crashes(workload, depth=1)
    >>> report.verdict, report.failures
    ('passed', [])
    """
    makers = _checked_makers(workload)
    only = None if repro is None else parsed(repro)
    if only is not None and only.programs is not None:
        makers = _chosen(makers, only.programs, repro)
    _check_arguments(check, profile, depth, limit)
    _check_sizes(seed=seed, segment_bytes=segment_bytes, requests_limit=requests_limit, bound=bound)
    _check_functions(effects, None if progress is True else progress or None)
    check_pace(seconds, progress is True)
    check_workers(workers, limit=limit)
    wanted = _checked_faults(faults)
    setting = Setting(segment_bytes, requests_limit, effects)
    seed = 0 if limit is not None and seed is None else seed
    if only is not None:
        depth = max(depth, len(only.places))
    options = CrashOptions(makers, check, profile, depth, wanted, seed, limit, bound, setting)
    report = Report(
        _names_of(makers),
        profile,
        depth,
        seed=seed,
        bound=bound_in_words(options.bound, options.depth, options.faults, ", in files that are read"),
    )
    report.arguments = _arguments_again(options)
    first, failure = _first_run(makers, setting)
    if failure is not None:
        report.failures.append(failure)
        report.is_exhaustive, report.bound = False, "nothing was explored"
        return report
    if only is not None:
        report.is_exhaustive, report.bound = False, f"the one state {repro}"
    pace = Pace(report.subject, seconds, is_told=progress is True)

    def tell(checked: int) -> None:
        pace.tell(checked, report.equal, len(exploration.found))

    told = progress if callable(progress) else tell
    is_late = partial(pace.is_over, _SEARCHING)
    exploration = Exploration(options, report, progress=told, only=only, is_over=is_late)
    with _seldom_collected(), noted(lambda: told_end(profile, exploration.where, report.arguments)):
        if limit is not None and repro is None:
            exploration.sample(limit)
        if workers is not None and only is None:
            explore_in_parts(options, report, exploration.found, workers, progress=told, is_over=is_late)
        else:
            exploration.explore()
    if repro is not None and not report.checked:
        raise InvalidRequest(f"{repro!r} names no state of this workload: it may have changed since the token was made")
    report.failures = list(_failures(simplest(exploration.found), options, only, pace.is_over))
    # What the runs have left behind anywhere may show by now.
    failure = _failure_of_run_after(first, Workload(makers, setting))
    if failure is not None:
        report.failures.append(failure)
        report.is_exhaustive = False
    pace.end(report.checked, report.equal, report.failure_count)
    return report


def _failures(
    found: Iterable[FoundState], options: CrashOptions, only: CrashToken | None, is_over: Callable[[], bool]
) -> Iterator[Failure]:
    """The failures, each with the fewest programs, unless these were given, and with what would mend it."""
    for one in found:
        with noted(partial(told_end, options.profile, str(one.token), _arguments_again(options))):
            if only is None:
                fewest = with_fewest_programs(one, options, is_over)
                failure = failure_of(fewest, remedy_of(fewest, options, is_over))
            else:
                remedy = remedy_of(one, options, is_over)
                failure = failure_of(one._replace(token=one.token._replace(programs=only.programs)), remedy)
        yield failure


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """An exploration keeps very many objects, and the collector would look at them again and again."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _checked_makers(workload: Any) -> tuple[Maker, ...]:
    makers = tuple(workload) if isinstance(workload, list | tuple) else (workload,)
    for maker in makers:
        if inspect.isgenerator(maker) or not callable(maker):
            advice = "give the function, not the generator that it made" if inspect.isgenerator(maker) else "give one"
            raise InvalidRequest(f"a workload is {describe(maker)}, and no function that makes a program: {advice}")
    if not makers:
        raise InvalidRequest("the workload is an empty list: give at least one function that makes a program")
    return makers


def _chosen(makers: tuple[Maker, ...], programs: Sequence[int], repro: str | None) -> tuple[Maker, ...]:
    if max(programs) >= len(makers):
        raise InvalidRequest(f"{repro!r} names program {max(programs)}, and the workload has {len(makers)}")
    return tuple(makers[index] for index in programs)


def _check_arguments(check: Any, profile: str, depth: int, limit: int | None) -> None:
    if check is not None:
        checked_check(check)
    check_reach(profile, depth)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidRequest(f"limit is {limit!r}: give a number of states, or None")


def check_reach(profile: Any, depth: Any) -> None:
    """Refuse what is not a profile of file systems, or not a number of crashes."""
    if profile not in PROFILES:
        raise InvalidRequest(f"the profile is {profile!r}: give one of {', '.join(PROFILES)}")
    if type(depth) is not int or not 1 <= depth <= 3:
        raise InvalidRequest(f"depth is {depth!r}: give the number of crashes, 1 to 3")


def _check_sizes(*, seed: Any, segment_bytes: Any, requests_limit: Any, bound: Any) -> None:
    if seed is not None and type(seed) is not int:
        raise InvalidRequest(f"seed is {describe(seed)}: give a whole number, or None")
    for name, size in (("segment_bytes", segment_bytes), ("requests_limit", requests_limit)):
        if type(size) is not int or size < 1:
            raise InvalidRequest(f"{name} is {describe(size)}: give a whole number from 1 on")
    if not isinstance(bound, Bound):
        raise InvalidRequest(f"bound is {describe(bound)}: give a Bound")


def _check_functions(effects: Any, progress: Any) -> None:
    if effects is not None and not (callable(effects) and isinstance(effects(), Mapping)):
        raise InvalidRequest(
            f"effects is {describe(effects)}: give a function that makes rows, such as lambda: MemoryBlobs().handlers"
        )
    if progress is not None and not callable(progress):
        raise InvalidRequest(f"progress is {describe(progress)}: give a function of one number, or None")


def _checked_faults(faults: Iterable[str]) -> tuple[str, ...]:
    if faults == "all":
        return tuple(FAULTS)
    if isinstance(faults, str) or not isinstance(faults, Iterable):
        raise InvalidRequest(
            f"faults is {describe(faults)}: give a list of some of {', '.join(map(repr, FAULTS))}, or 'all'"
        )
    wanted = tuple(faults)
    for fault in wanted:
        if not isinstance(fault, str) or fault not in FAULTS:
            raise InvalidRequest(f"there is no fault {fault!r}: give some of {', '.join(map(repr, FAULTS))}, or 'all'")
    return wanted


def _names_of(makers: Sequence[Maker]) -> str:
    return ", ".join(getattr(maker, "__name__", "workload") for maker in makers[:4]) + (
        f" and {len(makers) - 4} more" if len(makers) > 4 else ""
    )


def _arguments_again(options: CrashOptions) -> str:
    setting = options.setting
    given = [
        ("profile", options.profile, "posix"),
        ("bound", options.bound, DEFAULT_BOUND),
        ("segment_bytes", setting.segment_bytes, Setting().segment_bytes),
        ("requests_limit", setting.requests_limit, Setting().requests_limit),
    ]
    told = [f"{name}={value!r}" for name, value, usual in given if value != usual]
    return ", ".join([*told, *(["effects=effects"] if setting.effects is not None else [])])


def bound_in_words(bound: Bound, depth: int, faults: Sequence[str], which: str = "") -> str:
    """How far an exploration of crashes goes. ``which`` says more of the files whose changes are combined."""
    return (
        f"{depth} crash{'es' if depth > 1 else ''}, at most one torn write in each state, at multiples "
        f"of {bound.tear_bytes} bytes, at sectors and next to its ends; all combinations of unsynced changes up to "
        f"{bound.subsets:,} of a file{which}"
        + (f"; one fault of {', '.join(faults)} at a time, and then nothing torn" if faults else "")
    )


# A workload of which nothing can be said


def _first_run(makers: Sequence[Maker], setting: Setting) -> tuple[Workload, Failure | None]:
    """A run of the workload, and what is wrong with it: it raises, never ends, or is not the same twice."""
    first = Workload(makers, setting)
    failure = _failure_of_run(first)
    return first, failure or _failure_of_run_after(first, Workload(makers, setting))


def _failure_of_run_after(first: Workload, second: Workload) -> Failure | None:
    """Run the workload again, and find what is wrong with that, or is not the same as in the first run."""
    failure = _failure_of_run(second)
    if failure is not None:
        return failure
    one, two = ([line for _, line in run.lines] for run in (first, second))
    if one == two:
        return _difference_of_contents(first, second) or _difference_of_ends(first, second)
    at = next((at for at, (here, there) in enumerate(zip(one, two, strict=False)) if here != there), None)
    at = min(len(one), len(two)) if at is None else at
    here, there = ((lines + ["the end"] * (at + 1))[at] for lines in (one, two))
    expected, found = f"in both runs, at line {at}: {here}", f"in the second: {there}"
    return _verdict(NOT_DETERMINISTIC, expected, found, second, SHARED)


def _failure_of_run(workload: Workload) -> Failure | None:
    try:
        outcomes = workload.run()
    except Hangs as error:
        return _verdict("hangs", "a workload that ends", str(error), workload)
    except WrongAnswer as error:
        what, wanted, found = error.args
        return _verdict("a wrong answer", f"{what}: {wanted!r:.300}", f"{found!r:.300}", workload)
    except BaseException as error:
        # Before there was a program: a maker raised, or made none.
        note(error, lambda: "this ended the first run of the workload, in which nothing had failed")
        return _verdict("raises", "functions that make programs", told_error(as_failure(error)), workload)
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            found = told_error(outcome.error)
            return _verdict("raises", "a workload that raises nothing where nothing goes wrong", found, workload)
    return None


def _difference_of_contents(first: Workload, second: Workload) -> Failure | None:
    """The verdict on two runs that made the same requests, if they did not write the same."""
    for commit, (one, two) in enumerate(zip(first.history, second.history, strict=False)):
        if one != two:
            wanted, found = difference(two, one)
            expected = f"in both runs, after commit {commit}: {wanted}"
            return _verdict(NOT_DETERMINISTIC, expected, f"in the second: {found}", second, SHARED)
    counts = [len(run.history) - 1 for run in (first, second)]
    if counts[0] == counts[1]:
        return None
    expected, found = f"in both runs, {counts[0]} commits", f"in the second: {counts[1]}"
    return _verdict(NOT_DETERMINISTIC, expected, found, second, SHARED)


def _difference_of_ends(first: Workload, second: Workload) -> Failure | None:
    """The verdict on two runs that asked and wrote the same, if a program did not return the same."""
    for number, (one, two) in enumerate(zip(first.outcomes, second.outcomes, strict=True), 1):
        if not are_alike(one, two):
            expected, found = (f"program {number} returns {cast(Answered, end).value!r:.200}" for end in (one, two))
            return _verdict(NOT_DETERMINISTIC, f"in both runs, {expected}", f"in the second, {found}", second, SHARED)
    return None


def _verdict(kind: str, expected: str, found: str, workload: Workload, remedy: str | None = None) -> Failure:
    lines = tuple(line for _, line in workload.lines)
    return Failure(kind, expected, found, "without any crash", (), lines[-14:], "0.r", remedy)


# Failures


def failure_of(found: FoundState, remedy: str | None) -> Failure:
    """What was found, as it is told."""
    return Failure(
        found.problem.kind,
        found.problem.expected,
        found.problem.found,
        "; ".join(found.crashes),
        found.losses or ("everything written survived",),
        found.trace,
        str(found.token),
        remedy,
    )


def simplest(found: Sequence[FoundState]) -> list[FoundState]:
    """Of each kind of problem the one that is the easiest to understand."""
    best: dict[str, FoundState] = {}
    for one in found:
        known = best.get(one.problem.kind)
        if known is None or one.rank < known.rank:
            best[one.problem.kind] = one
    return sorted(best.values(), key=lambda one: one.rank)[:FAILURES_MAX]


def with_fewest_programs(
    found: FoundState, options: CrashOptions, is_over: Callable[[], bool] = never_over
) -> FoundState:
    """The same kind of failure, of as few of the workload's programs as show it at one crash."""
    programs = list(range(len(options.makers)))
    for index in range(len(programs) - 1, -1, -1):
        fewer = [one for one in programs if one != index]
        smaller = _found_with(fewer, found.problem.kind, options) if fewer and not is_over() else None
        if smaller is not None:
            programs, found = fewer, smaller
    return found


def _found_with(programs: Sequence[int], kind: str, options: CrashOptions) -> FoundState | None:
    makers = tuple(options.makers[index] for index in programs)
    smaller = options._replace(makers=makers, depth=1, faults=(), limit=None)
    _, failure = _first_run(makers, options.setting)
    if failure is not None:
        return None
    exploration = Exploration(smaller, Report("", options.profile, 1))
    exploration.explore()
    found = [one for one in simplest(exploration.found) if one.problem.kind == kind]
    return found[0]._replace(token=found[0].token._replace(programs=tuple(programs))) if found else None


def remedy_of(found: FoundState, options: CrashOptions, is_over: Callable[[], bool] = never_over) -> str | None:
    """A sync that would mend it, if there is one: it is made after a request, and the crash tried again."""
    if found.token.faults or len(found.token.places) != 1 or not found.losses:
        return None
    if found.token.programs is not None:
        options = options._replace(makers=tuple(options.makers[index] for index in found.token.programs))
    (place,) = found.token.places
    number = place.request
    quiet = options._replace(depth=1, limit=None, faults=())
    if is_over() or _passes(quiet, number, {}):
        # What fails is what comes after: no sync in the workload has to do with it.
        return None
    for after, barrier in _barriers(options, number):
        if is_over():
            return None
        if _passes(quiet, number, {after: barrier}):
            what = "the directory is" if isinstance(barrier, disk.SyncDirectory) else f"{barrier.path} is"
            return f"passes if {what} synced after request {after}"
    return None


def _barriers(options: CrashOptions, number: int) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []

    def at(workload: Workload, now: int, request: Request[Any] | None) -> None:
        if now < number and request is not None:
            found.extend((now, barrier) for barrier in barriers_after(request))

    Workload(options.makers, options.setting, at).run()
    return found[::-1]


def barriers_after(request: Request[Any]) -> list[Any]:
    """The syncs that bring to the disk what a request has changed."""
    match request:
        case disk.Write(path=path) | disk.Truncate(path=path) | disk.Allocate(path=path):
            return [disk.Sync(path)]
        case disk.Create(path=path) | disk.Remove(path=path) | disk.Rename(target=path) | disk.MakeDirectory(path=path):
            return [disk.SyncDirectory(path.rpartition("/")[0])]
    return []


def _passes(options: CrashOptions, number: int, barriers: Mapping[int, Request[Any]]) -> bool:
    """Whether nothing is wrong in any state at this crash, with some syncs more."""
    exploration = Exploration(options, Report("", options.profile, 1))

    def at(workload: Workload, now: int, request: Request[Any] | None) -> None:
        if now == number:
            exploration.crash(workload, now, request)

    try:
        Workload(options.makers, options.setting, at, barriers=barriers).run()
    except (Hangs, WrongAnswer, OSError):
        return False
    return not exploration.found
