"""A user's own file code, as programs over a disk, under every crash."""

import re
import sys

import pytest
from places import EXAMPLES

from interpreters import disk
from interpreters.disk.crashing import SILENT
from interpreters.explore import Promised, explore_disk
from persist_effects import InvalidRequest, kv, now, perform

sys.path.insert(0, str(EXAMPLES))

import atomic_note


def save_once(save, note=b"new"):
    def workload():
        yield from save("note", note)
        yield from perform(Promised(note))

    return workload


def is_old_or_new(promised):
    found = yield from atomic_note.load("note")
    assert found == b"new" or (found == b"old" and not promised), f"the note is {found!r}"


OLD = {"note": b"old"}


def test_an_atomic_replace_that_syncs_everything_passes_exhaustively():
    report = explore_disk(save_once(atomic_note.save), is_old_or_new, files=OLD, depth=1)
    assert report.verdict == "passed", report
    assert report.is_exhaustive
    assert report.checked > 5


@pytest.mark.parametrize("profile", ["posix", "ordered", "writeback"])
def test_a_missing_sync_before_a_rename_is_found_with_what_would_mend_it(profile):
    report = explore_disk(save_once(atomic_note.save_without_sync), is_old_or_new, files=OLD, profile=profile)
    assert report.verdict == "failed"
    [failure] = report.failures
    assert failure.found.startswith("AssertionError: the note is ")
    assert failure.remedy == "passes if note.new is synced after request 2"


def test_a_missing_sync_of_the_directory_is_found_with_what_would_mend_it():
    report = explore_disk(save_once(atomic_note.save_without_directory), is_old_or_new, files=OLD)
    [failure] = report.failures
    assert failure.found.startswith("AssertionError: the note is b'old'")
    assert failure.remedy == "passes if the directory is synced after request 4"
    assert failure.crash == "before request #5 the end"


def test_writing_in_place_is_found():
    def overwrite(path, data):
        yield from perform(disk.Write(path, 0, data))
        yield from perform(disk.Sync(path))

    report = explore_disk(save_once(overwrite), is_old_or_new, files=OLD)
    assert report.verdict == "failed"
    assert any("is torn" in line for line in report.failures[0].survivors)


def test_a_token_shows_one_state_again():
    wrong = save_once(atomic_note.save_without_sync)
    [failure] = explore_disk(wrong, is_old_or_new, files=OLD).failures
    assert f'explore_disk(workload, check, files=files, repro="{failure.token}")' in str(
        explore_disk(wrong, is_old_or_new, files=OLD)
    )
    again = explore_disk(wrong, is_old_or_new, files=OLD, repro=failure.token)
    assert [one.found for one in again.failures] == [failure.found]
    assert again.checked == 1
    with pytest.raises(InvalidRequest, match="names no state of this workload"):
        explore_disk(wrong, is_old_or_new, files=OLD, repro="77.00000000")


# A recovery, and crashes in it


def append_lines(sync):
    def workload():
        yield from perform(disk.Create("log"))
        yield from perform(disk.SyncDirectory("."))
        for number in range(2):
            line = b"line %d\n" % number
            yield from perform(disk.Write("log", number * len(line), line))
            if sync:
                yield from perform(disk.Sync("log"))
            yield from perform(Promised(line))

    return workload


def cut_torn_line():
    content = (yield from atomic_note.load("log")) or b""
    # Also the end of a line may be there, and not its beginning.
    whole = re.match(rb"(line \d\n)*", content)[0]
    if whole != content:
        yield from perform(disk.Truncate("log", len(whole)))
        yield from perform(disk.Sync("log"))


def has_lines(promised):
    content = (yield from atomic_note.load("log")) or b""
    assert content in {b"".join(promised), b"".join([*promised, b"line %d\n" % len(promised)])}, content


def test_a_recovery_runs_before_the_check_and_is_itself_crashed():
    report = explore_disk(append_lines(sync=True), has_lines, recover=cut_torn_line, depth=2)
    assert report.verdict == "passed", report
    assert any(cell.request.startswith("recovery #") for cell in report.cells)
    without = explore_disk(append_lines(sync=True), has_lines)
    assert without.verdict == "failed"
    unsynced = explore_disk(append_lines(sync=False), has_lines, recover=cut_torn_line)
    assert unsynced.verdict == "failed"


def test_a_recovery_that_raises_is_a_failure_of_its_own():
    def stumble():
        if (yield from perform(disk.Size("note.new"))) is not None:
            raise RuntimeError("a leftover")

    report = explore_disk(save_once(atomic_note.save), is_old_or_new, recover=stumble, files=OLD)
    [failure] = report.failures
    assert (failure.kind, failure.found) == ("the recovery raises", "RuntimeError: a leftover")


def test_a_recovery_that_is_not_crash_safe_fails_at_the_second_crash_alone():
    def restore():
        # It takes the backup's place, then writes: between the two there is nothing.
        if (yield from perform(disk.Size("note"))) is not None:
            yield from perform(disk.Remove("note"))
            yield from perform(disk.SyncDirectory(""))
        yield from atomic_note.save("note", b"new")

    def is_new(promised):
        assert (yield from atomic_note.load("note")) == b"new"

    def workload():
        yield from perform(Promised())

    def restore_once():
        if (yield from atomic_note.load("note")) == b"old":
            yield from restore()

    assert explore_disk(workload, is_new, recover=restore_once, files=OLD, depth=1).verdict == "passed"
    report = explore_disk(workload, is_new, recover=restore_once, files=OLD, depth=2)
    assert report.verdict == "failed"
    again = explore_disk(workload, is_new, recover=restore_once, files=OLD, repro=report.failures[0].token)
    assert again.failures[0].found == report.failures[0].found


# Faults


def test_faults_of_the_disk_may_end_the_workload_and_leave_what_was_promised():
    report = explore_disk(
        save_once(atomic_note.save), is_old_or_new, files=OLD, faults=["EIO", "ENOSPC", "failed sync, xfs"]
    )
    assert report.verdict == "passed", report

    def save_and_pass_over_errors(path, data):
        try:
            yield from atomic_note.save(path, data)
        except OSError:
            yield from perform(disk.Size(path))

    report = explore_disk(save_once(save_and_pass_over_errors), is_old_or_new, files=OLD, faults=["EIO"])
    assert report.verdict == "failed"
    token = report.failures[0].token
    again = explore_disk(save_once(save_and_pass_over_errors), is_old_or_new, files=OLD, repro=token)
    assert again.failures[0].found == report.failures[0].found


def test_other_errors_than_the_disks_after_a_fault_are_told():
    def save(path, data):
        try:
            yield from atomic_note.save(path, data)
        except OSError as error:
            raise KeyError(path) from error

    report = explore_disk(save_once(save), is_old_or_new, files=OLD, faults=["EIO"])
    [failure] = report.failures
    assert (failure.kind, failure.found) == ("raises after a fault", "KeyError: 'note'")
    again = explore_disk(save_once(save), is_old_or_new, files=OLD, repro=failure.token)
    assert [one.found for one in again.failures] == [failure.found]


@pytest.mark.parametrize("fault", [*sorted(SILENT), "interrupt before", "fire", 7])
def test_faults_that_no_file_code_can_notice_are_refused(fault):
    with pytest.raises(InvalidRequest, match="give some of 'EIO'"):
        explore_disk(save_once(atomic_note.save), is_old_or_new, faults=[fault])


# What nothing can be said of


@pytest.mark.parametrize(
    ("kind", "workload"),
    [
        ("raises", lambda: (yield from perform(disk.Sync("missing")))),
        ("raises", lambda: (yield from kv.get("color"))),
        ("hangs", lambda: (yield from endless())),
    ],
)
def test_a_workload_that_raises_or_never_ends_has_no_verdict(kind, workload):
    report = explore_disk(workload, is_old_or_new, requests_limit=50)
    assert report.verdict == kind
    assert not report.is_exhaustive


def endless():
    while True:
        yield from perform(disk.Size("note"))


def test_a_workload_that_is_another_one_each_time_is_not_deterministic():
    names = iter("abcdefgh")

    def workload():
        yield from perform(disk.Create(next(names)))

    report = explore_disk(workload, is_old_or_new)
    assert report.verdict == "not deterministic"


def test_time_is_virtual():
    def workload():
        yield from perform(disk.Create(str((yield from now()))))

    def check(promised):
        assert (yield from perform(disk.List(""))) in ([], ["1700000000000000"])

    assert explore_disk(workload, check).verdict == "passed"


# At the door


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"profile": "fat"}, "the profile is 'fat'"),
        ({"depth": 0}, "depth is 0"),
        ({"depth": 2}, "depth is 2, and there is no recovery: give recover="),
        ({"bound": 7}, "bound is an int, 7"),
        ({"files": ["note"]}, "files is a list"),
        ({"files": {"../note": b""}}, "files has the path '../note'"),
        ({"files": {"note": "text"}}, "files has a str, 'text' at 'note'"),
        ({"files": {"a": b"", "a/b": b""}}, "files has 'a', a file, above 'a/b'"),
        ({"recover": 7}, "recover is an int, 7"),
        ({"repro": "x"}, "is not a token"),
        ({"seconds": 0}, "seconds is an int, 0"),
        ({"requests_limit": 0}, "requests_limit is an int, 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_runs(arguments, told):
    def workload():
        raise AssertionError("it ran")
        yield

    with pytest.raises(InvalidRequest, match=told):
        explore_disk(workload, is_old_or_new, **arguments)


def test_a_check_and_a_workload_are_functions_that_make_programs():
    with pytest.raises(InvalidRequest, match=r"check is an int, 7: give a generator function of \(promised\)"):
        explore_disk(save_once(atomic_note.save), 7)
    with pytest.raises(InvalidRequest, match="takes other arguments than \\(promised\\)"):
        explore_disk(save_once(atomic_note.save), lambda: (yield))
    with pytest.raises(InvalidRequest, match="give the function"):
        explore_disk(atomic_note.load("note"), is_old_or_new)


def test_no_time_is_a_reason_to_end_that_the_report_gives():
    report = explore_disk(save_once(atomic_note.save), is_old_or_new, files=OLD, seconds=1e-9)
    assert not report.is_exhaustive
    assert report.checked >= 1
    assert report.not_reached.startswith("crashes from request #")


def test_what_a_check_is_ended_by_ends_the_exploration_with_its_place_and_not_the_workload():
    def workload():
        try:
            yield from atomic_note.save("note", b"new")
        except BaseException:
            raise AssertionError("the workload was told") from None

    def check(promised):
        yield from perform(disk.Size("note"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as found:
        explore_disk(workload, check, files=OLD)
    assert 'explore_disk(workload, check, files=files, repro="' in found.value.__notes__[0]


def test_directories_of_the_first_files_are_there():
    def workload():
        yield from perform(disk.Rename("a/b/note", "a/moved"))
        yield from perform(disk.SyncDirectory("a"))
        yield from perform(disk.SyncDirectory("a/b"))
        yield from perform(Promised("moved"))

    def check(promised):
        moved, there = (yield from perform(disk.Size("a/moved"))), (yield from perform(disk.Size("a/b/note")))
        assert moved == 3 or (there == 3 and not promised)

    assert explore_disk(workload, check, files={"a/b/note": b"old"}).verdict == "passed"
