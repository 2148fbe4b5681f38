"""`explore_files`: every crash of plain code that writes files, without a change to it.

The function runs once, in a directory of its own, and its calls on files are recorded. Then the power fails before each
of them, and at the end, in every way; each image that may be left is put in the place of the directory, and checked.
"""

import inspect
import os
import re
import shutil
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from interpreters.disk.survivors import PROFILES, DiskState, Image
from interpreters.explore.files.images import BOUND, FilesMoment, moments, put, states_of
from interpreters.explore.files.patches import patched
from interpreters.explore.files.recording import (
    Recorder,
    files_of,
    is_library,
    shortened,
    told_source,
)
from interpreters.explore.files.tree import LINK_MARK, FileTree, TreeDirectory
from interpreters.explore.files.watching import watched
from interpreters.explore.inputs import trouble_in_a_call
from interpreters.explore.limits import as_failure, noted, thrown
from interpreters.explore.pace import Pace, check_pace
from interpreters.explore.report import Failure, FaultCount, Report, told_end
from interpreters.explore.words import name_of, told_error
from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer

_KINDEST_FIRST = ("ordered", "posix", "writeback")
# So much that a report has fewer than 40 lines.
_FILES_TOLD = 3
_CALLS_TOLD = 5
_LOSSES_TOLD = 2
_ERROR_TOLD = 300
_PAST_TOLD = 3
_LIMIT = 200
_REMEDY_IMAGES = 2000
"""For more images than that, it takes too long to try where a sync is missing."""

# One at a time: what is patched is so for the whole process.
_turn = threading.RLock()


class FoundImage(NamedTuple):
    """An image that the check refuses: when the power failed, what was left, and what the check raised."""

    call: int
    number: int
    profile: str
    state: DiskState
    error: Exception

    @property
    def rank(self) -> tuple[bool, int, int, int]:
        """Where nothing was lost first, then those of kinder file systems, then those of fewer calls and losses."""
        return bool(self.state.losses), _KINDEST_FIRST.index(self.profile), self.call, len(self.state.losses)


def explore_files(
    function: Callable[..., Any],
    check: Callable[..., Any],
    *,
    profiles: Iterable[str] = PROFILES,
    setup: Callable[[Path], Any] | None = None,
    limit: int = _LIMIT,
    seconds: float | None = None,
    progress: bool = False,
    repro: str | None = None,
) -> Report:
    """Let the power fail at every call of a function that changes files, and check all that it may leave.

    The function is plain Python: `open`, `os`, `pathlib`, `shutil` and `tempfile` are recorded as long as it runs.

    Args:
        function: Given a directory, it does what is to survive. Where it takes two arguments, the second is a
            function ``told``: a value that is given to it counts as acknowledged from then on.
        check: Given a directory that a crash has left, it raises where something is wrong. Where it takes two
            arguments, the second is the list of the values told before the crash.
        profiles: What a file system may do, of `survivors.PROFILES`.
        setup: Given the directory, it fills it before the function runs; all of that is on the disk.
        limit: How many images of one moment and one profile are looked at; where there are more, so many are drawn.
        seconds: How long it may take.
        progress: Whether a line on standard error says how far it is.
        repro: The token of a failure, which alone is looked at again.

    Returns:
        What was explored, and the failure that is the easiest to understand.

    Raises:
        InvalidRequest: If arguments make no sense, or if the function changed the directory by what is not recorded:
            sqlite3, a writable mmap, another process, a C extension.

    >>> def save(directory):
    ...     (directory / "new").write_text("{}")
    ...     (directory / "new").replace(directory / "settings.json")
    >>> def check(directory):
    ...     for file in directory.glob("settings.json"):
    ...         assert file.read_text() == "{}", f"settings.json holds {file.read_text()!r}"
    >>> report = explore_files(save, check)
    >>> report.verdict, report.failures[0].found.partition(" at ")[0]
    ('failed', "AssertionError: settings.json holds ''")
    >>> report.failures[0].remedy.partition(" at ")[0]
    "passes if 'new' is synced after call #2"
    """
    wanted = _checked_profiles(profiles)
    _check_function("function", function, "directory")
    _check_function("check", check, "directory")
    if setup is not None:
        _check_function("setup", setup, "directory")
    check_integer("limit", limit, 3)
    check_pace(seconds, progress)
    place = None if repro is None else _parsed(repro)
    with _turn, _root() as root:
        recorder, failure = _recorded(root, function, setup)
        report = Report(name_of(function), "files", len(recorder.calls))
        report.bound = (
            f"{', '.join(wanted)}; one crash, at most one torn write in each image, at up to {BOUND.tears} places"
        )
        if failure is None and not recorder.calls:
            report.bound += "; the function changed nothing in its directory"
        report.arguments = ", ".join(_arguments_again(wanted, limit, setup))
        if failure is not None:
            report.failures.append(failure)
            report.is_exhaustive, report.bound = False, "nothing was explored"
            return report
        pace = Pace(report.subject, seconds, is_told=progress)
        search = _Search(recorder, _Looking(check, wanted, limit), report, pace)
        search.explore(place, repro)
        return report


@contextmanager
def _root() -> Iterator[str]:
    # Each image is put where the function ran, so that paths in files stay true.
    above = os.path.realpath(tempfile.mkdtemp(prefix="explore-files-"))
    try:
        yield os.path.join(above, "directory")
    finally:
        shutil.rmtree(above)


def _recorded(
    root: str, function: Callable[..., Any], setup: Callable[[Path], Any] | None
) -> tuple[Recorder, Failure | None]:
    """Run the function, and say if it raises. Raises `InvalidRequest` for what cannot be recorded."""
    os.mkdir(root)
    if setup is not None:
        setup(Path(root))
    try:
        recorder = Recorder(root)
    except ValueError as error:
        raise InvalidRequest(f"setup makes {error.args[0]!r}, which is no file, directory or symbolic link") from None
    failure = None
    with watched(recorder), patched(recorder):
        try:
            _called(function, Path(root), recorder.tell)
        except BaseException as error:
            found = _told_raised(as_failure(error))
            failure = Failure("raises", "a function that raises nothing", found, "without any crash", (), (), "1.0")
    if failure is None or recorder.past:
        _refuse_unrecorded(recorder)
    return recorder, failure


def _called(function: Callable[..., Any], directory: Path, second: Any) -> Any:
    return function(directory) if not trouble_in_a_call(function, directory) else function(directory, second)


def _refuse_unrecorded(recorder: Recorder) -> None:
    try:
        there = files_of(recorder.root)
        changed = sorted(
            path
            for path in there.keys() | recorder.tree.image().keys()
            if there.get(path) != recorder.tree.image().get(path)
        )
    except ValueError as error:
        changed = [str(error.args[0])]
    reasons = [*recorder.past[:_PAST_TOLD]]
    if changed:
        named = ", ".join(repr(path.rstrip(LINK_MARK)) for path in changed[:_PAST_TOLD])
        reasons.append(f"{named} {'is' if len(changed) == 1 else 'are'} not as the recorded calls leave it")
    if reasons:
        raise InvalidRequest(
            f"the function changes its directory by what is not recorded: {'; '.join(reasons)}. Recorded are open, os, "
            "io, pathlib, shutil and tempfile; not sqlite3, writable mmaps, other processes, C extensions, or calls "
            "kept elsewhere than as a global name of a module"
        )


class _Looking(NamedTuple):
    check: Callable[..., Any]
    profiles: tuple[str, ...]
    limit: int


class _Search:
    """All images of a recorded run, looked at in turn."""

    def __init__(self, recorder: Recorder, looking: _Looking, report: Report, pace: Pace) -> None:
        self._root = recorder.root
        self._before: Image = recorder.before
        self._calls = recorder.calls
        self._check, self._profiles, self._limit = looking
        self._report = report
        self._pace = pace
        self._seen: set[tuple[int, frozenset[tuple[str, bytes]]]] = set()
        self._cells: dict[tuple[str, str], list[int]] = {}
        self._best: FoundImage | None = None
        self._failed = 0

    def explore(self, only: tuple[int, int] | None, repro: str | None) -> None:
        """Look at all images, or at that one alone, and take down in the report what was found."""
        report = self._report
        for moment in moments(self._before, self._calls):
            if only is not None and moment.call != only[0]:
                continue
            self._look(moment, None if only is None else only[1])
            if report.not_reached:
                break
        self._pace.end(report.checked, report.equal, self._failed)
        if only is not None:
            report.is_exhaustive, report.bound = False, f"the one image {repro}"
            if not report.checked:
                raise InvalidRequest(
                    f"{repro!r} names no image of this function: it, or what it is given, has changed since"
                )
        report.cells = [FaultCount(*place, *counts) for place, counts in self._cells.items()]
        report.failed = self._failed
        if self._best is not None:
            report.failures = [self._told(self._best)]

    def _look(self, moment: FilesMoment, only: int | None) -> None:
        number = -1
        for profile in self._profiles:
            states, is_whole = states_of(moment.tree, profile, self._limit)
            if not is_whole:
                self._report.is_exhaustive = False
            for state in states:
                number += 1
                if only in (None, number) and not self._look_at(moment, number, profile, state):
                    self._report.is_exhaustive = False
                    self._report.not_reached = f"crashes from within {self._told_call(moment.call)} on"
                    return

    def _look_at(self, moment: FilesMoment, number: int, profile: str, state: DiskState) -> bool:
        """Check an image, unless an equal one was, and say whether there was time for it."""
        report = self._report
        image = (len(moment.told), frozenset(state.image.items()))
        if image in self._seen:
            report.enumerated += 1
            report.equal += 1
            return True
        if report.checked and self._pace.is_over():
            return False
        self._seen.add(image)
        report.enumerated += 1
        report.checked += 1
        with noted(lambda: told_end("files", f"{moment.call}.{number}", report.arguments)):
            error = self._error_of(state.image, moment.told)
        counts = self._cells.setdefault((profile, "images"), [0, 0])
        counts[0] += 1
        if error is not None:
            counts[1] += 1
            self._failed += 1
            one = FoundImage(moment.call, number, profile, state, error)
            if self._best is None or one.rank < self._best.rank:
                self._best = one
        self._pace.tell(report.checked, report.equal, self._failed)
        return True

    def _error_of(self, image: Image, told: tuple[Any, ...]) -> Exception | None:
        put(self._root, image)
        try:
            answer = _called(self._check, Path(self._root), list(told))
        except BaseException as error:
            return as_failure(error)
        if answer is False:
            raise InvalidRequest(
                f"check {name_of(self._check)!r} returned False: let it raise where something is wrong, by assert"
            )
        return None

    # Telling

    def _told(self, one: FoundImage) -> Failure:
        state = one.state
        losses = _first_few([self._in_calls(loss) for loss in state.losses], _LOSSES_TOLD)
        at = f"the power failed before {self._told_call(one.call)}, on a file system of the profile {one.profile}"
        return Failure(
            f"after a crash, {state.kind}" if losses else "though nothing was lost",
            "",
            _told_raised(one.error),
            at,
            (*(losses or ["everything written survived"]), *_told_image(state.image)),
            self._trace(one.call),
            f"{one.call}.{one.number}",
            self._remedy(one),
        )

    def _told_call(self, number: int) -> str:
        return f"call #{number}" if number <= len(self._calls) else "the end"

    def _in_calls(self, loss: str) -> str:
        return re.sub(r"\brequest (\d+)", r"call #\1", loss)

    def _trace(self, crash: int) -> tuple[str, ...]:
        first = max(1, crash - _CALLS_TOLD + 1)
        lines = [f"… {first - 1} calls before"] if first > 1 else []
        for number in range(first, crash):
            call = self._calls[number - 1]
            lines.append(f"#{number} {call.words:.70}  at {call.source}")
        after = [f"(#{crash} {self._calls[crash - 1].words:.70})"] if crash <= len(self._calls) else []
        return (*lines, "  ✗ the power fails", *after)

    def _remedy(self, one: FoundImage) -> str | None:
        """A sync after one of the calls with which no image is refused, where one is enough."""
        if not one.state.losses or self._report.checked > _REMEDY_IMAGES:
            return None
        for number in range(min(one.call - 1, len(self._calls)), 0, -1):
            call = self._calls[number - 1]
            for node in call.touched:
                if self._passes_with(number, node):
                    tree = next(moment.tree for moment in moments(self._before, self._calls) if moment.call > number)
                    kind = "the directory " if isinstance(tree.nodes[node], TreeDirectory) else ""
                    what = tree.path_of(node) or "."
                    return f"passes if {kind}{what!r} is synced after call #{number} at {call.source}"
        return None

    def _passes_with(self, after: int, node: int) -> bool:
        """Whether no image is refused, of any moment, where this is synced after that call."""
        passed: set[tuple[int, frozenset[tuple[str, bytes]]]] = set()
        for moment in moments(self._before, self._calls, (after, partial(FileTree.sync, node=node))):
            for profile in self._profiles:
                for state in states_of(moment.tree, profile, self._limit)[0]:
                    image = (len(moment.told), frozenset(state.image.items()))
                    if image not in passed:
                        passed.add(image)
                        if self._pace.is_over() or self._error_of(state.image, moment.told) is not None:
                            return False
        return True


def _first_few(lines: Sequence[str], count: int) -> list[str]:
    if len(lines) <= count:
        return list(lines)
    return [*lines[: count - 1], f"{lines[count - 1]}; and {len(lines) - count} more"]


def _told_image(image: Image) -> list[str]:
    """The files of an image, and what they hold."""
    told = []
    for path in sorted(image):
        if path.endswith(LINK_MARK):
            told.append(f"left: {path.rstrip(LINK_MARK)} → {os.fsdecode(image[path])}")
        elif path.endswith("/"):
            told.append(f"left: {path}")
        else:
            told.append(f"left: {path}, {len(image[path])} bytes: {shortened(image[path])}")
    return _first_few(told or ["left: an empty directory"], _FILES_TOLD)


def _told_raised(error: Exception) -> str:
    """An error on one line, and the line of the user's code from which it came."""
    told = " ".join(told_error(error).split())
    shown = told if len(told) <= _ERROR_TOLD else f"{told[:_ERROR_TOLD]}…"
    frames = traceback.extract_tb(thrown(error).__traceback__)
    own = [frame for frame in frames if not is_library(frame.filename)]
    frame = (own or frames)[-1]
    return f"{shown} at {told_source(frame.filename, frame.lineno or 0)}"


def _arguments_again(profiles: tuple[str, ...], limit: int, setup: Any) -> Iterator[str]:
    if set(profiles) != set(PROFILES):
        yield f"profiles={list(profiles)!r}"
    if setup is not None:
        yield f"setup={name_of(setup)}"
    if limit != _LIMIT:
        yield f"limit={limit}"


def _checked_profiles(profiles: Any) -> tuple[str, ...]:
    if isinstance(profiles, str) or not isinstance(profiles, Iterable):
        raise InvalidRequest(f"profiles is {describe(profiles)}: give a list of some of {', '.join(PROFILES)}")
    wanted = set(profiles)
    for profile in wanted:
        if profile not in PROFILES:
            raise InvalidRequest(f"there is no profile {profile!r}: give some of {', '.join(PROFILES)}")
    if not wanted:
        raise InvalidRequest(f"profiles is empty: give some of {', '.join(PROFILES)}")
    return tuple(profile for profile in _KINDEST_FIRST if profile in wanted)


def _check_function(what: str, function: Any, argument: str) -> None:
    if not callable(function):
        raise InvalidRequest(f"{what} is {describe(function)}: give a function of a {argument}")
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise InvalidRequest(
            f"{what} {name_of(function)!r} is a generator or async function: give a plain one; for programs there is "
            "explore_crashes"
        )
    trouble = trouble_in_a_call(function, argument)
    if trouble and (what == "setup" or trouble_in_a_call(function, argument, argument)):
        raise InvalidRequest(f"{what} {name_of(function)!r} takes other arguments than a directory: {trouble}")


def _parsed(token: Any) -> tuple[int, int]:
    if not isinstance(token, str) or not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", token):
        raise InvalidRequest(
            f"{token!r:.80} is not a token of an exploration of files: give the one that a failure names, such as '5.2'"
        )
    call, image = token.split(".")
    return int(call), int(image)
