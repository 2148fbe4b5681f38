"""Plain code that writes files: what a crash breaks is found and told, and what is right passes."""

import json
import os
import shutil
import tempfile
import threading

import pytest

from interpreters.disk.survivors import PROFILES
from interpreters.explore.files import explore_files
from persist_effects import InvalidRequest

OLD, NEW = '{"color": "red"}', '{"color": "green"}'


def old_settings(directory):
    (directory / "settings.json").write_text(OLD)


def is_old_or_new(directory):
    found = (directory / "settings.json").read_text()
    assert found in (OLD, NEW), f"settings.json holds {found!r}"


def is_as_told(directory, told):
    is_old_or_new(directory)
    if told:
        assert (directory / "settings.json").read_text() == told[-1], "what was acknowledged is gone"


def sync_directory(directory):
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(file):
    file.flush()
    os.fsync(file.fileno())


def writes_in_place(directory):
    with open(directory / "settings.json", "w") as file:
        file.write(NEW)
        sync(file)


def renames_unsynced(directory):
    (directory / "settings.new").write_text(NEW)
    os.replace(directory / "settings.new", directory / "settings.json")


def renames_synced(directory, told):
    with open(directory / "settings.new", "w") as file:
        file.write(NEW)
        sync(file)
    os.replace(directory / "settings.new", directory / "settings.json")
    told(NEW)


def renames_and_syncs_both(directory, told):
    with open(directory / "settings.new", "w") as file:
        file.write(NEW)
        sync(file)
    os.replace(directory / "settings.new", directory / "settings.json")
    sync_directory(directory)
    told(NEW)


def explored(function, check, **options):
    return explore_files(function, check, setup=old_settings, **options)


def test_a_rename_without_a_sync_before_it_is_found_and_the_sync_is_named():
    report = explored(renames_unsynced, is_old_or_new)
    (failure,) = report.failures
    assert report.verdict == "failed"
    assert failure.found.startswith("AssertionError: settings.json holds ''")
    assert failure.remedy.startswith("passes if 'settings.new' is synced after call #2 at files/test_explore_files.py:")
    assert '(directory / "settings.new").write_text(NEW)' in failure.remedy


def test_a_file_that_is_written_in_place_is_found():
    report = explored(writes_in_place, is_old_or_new)
    assert report.verdict == "failed"
    assert "holds ''" in report.failures[0].found
    assert report.failures[0].remedy is None


def test_a_directory_that_is_not_synced_before_it_is_acknowledged_is_found():
    report = explored(renames_synced, is_as_told)
    (failure,) = report.failures
    assert failure.found.startswith("AssertionError: what was acknowledged is gone")
    assert failure.survivors[0] == "the directory lost call #4: no settings.new, settings.json"
    assert failure.remedy.startswith("passes if the directory '.' is synced after call #4")


def test_the_same_passes_where_nothing_is_acknowledged():
    assert explored(renames_synced, is_old_or_new).verdict == "passed"


def test_a_rename_between_two_syncs_passes_in_every_profile():
    report = explored(renames_and_syncs_both, is_as_told)
    assert report.verdict == "passed"
    assert report.is_exhaustive
    assert {cell.request for cell in report.cells} <= set(PROFILES)


def synced(directory, name, text):
    with open(directory / name, "w") as file:
        file.write(text)
        sync(file)


def writes_a_pair(directory):
    for name in ("data", "index"):
        synced(directory, f"{name}.new", "2")
        os.replace(directory / f"{name}.new", directory / name)
    sync_directory(directory)


def writes_a_pair_as_a_directory(directory):
    (directory / "2.new").mkdir()
    for name in ("data", "index"):
        synced(directory / "2.new", name, "2")
    sync_directory(directory / "2.new")
    os.rename(directory / "2.new", directory / "2")
    sync_directory(directory)


def test_a_pair_of_files_that_is_half_written_is_found():
    def pair(directory):
        for name in ("data", "index"):
            synced(directory, name, "1")

    def is_a_pair(directory):
        data, index = ((directory / name).read_text() for name in ("data", "index"))
        assert data == index, f"data is of {data}, index of {index}"

    report = explore_files(writes_a_pair, is_a_pair, setup=pair)
    assert report.failures[0].found.startswith("AssertionError: data is of 2, index of 1")


def test_a_pair_of_files_in_a_directory_that_is_renamed_is_whole_or_absent():
    def is_whole(directory):
        assert not (directory / "2").exists() or [(directory / "2" / name).read_text() for name in ("data", "index")]

    assert explore_files(writes_a_pair_as_a_directory, is_whole).verdict == "passed"


def test_a_directory_that_is_renamed_before_its_names_are_synced_is_found():
    def careless(directory):
        (directory / "new").mkdir()
        synced(directory / "new", "data", "2")
        os.rename(directory / "new", directory / "done")

    def is_whole(directory):
        assert not (directory / "done").exists() or (directory / "done" / "data").exists(), "data is gone"

    report = explore_files(careless, is_whole)
    assert report.failures[0].remedy.startswith("passes if the directory 'new' is synced after call #2")


def test_the_code_of_a_tutorial_with_a_temporary_file_is_seen_through():
    def save(directory):
        with tempfile.NamedTemporaryFile("w", dir=directory, delete=False) as file:
            json.dump({"color": "green"}, file)
        shutil.move(file.name, directory / "settings.json")

    report = explored(save, is_old_or_new)
    assert report.verdict == "failed"
    assert "'tmp00000001' is synced" in report.failures[0].remedy


def test_an_append_that_is_torn_is_found_by_a_reader_who_expects_lines():
    def append(directory):
        with open(directory / "log", "ab") as file:
            file.write(b"one\n")
            sync(file)
            file.write(b"two\n")

    def has_lines(directory):
        for file in directory.glob("log"):
            text = file.read_bytes()
            assert text in (b"", b"one\n", b"one\ntwo\n"), f"a torn line: {text!r}"

    assert explore_files(append, has_lines).failures[0].kind == "after a crash, torn"


def test_a_failure_is_seen_again_by_its_token_alone():
    failure = explored(renames_unsynced, is_old_or_new).failures[0]
    again = explored(renames_unsynced, is_old_or_new, repro=failure.token)
    assert again.checked == 1
    assert again.failures == [failure]


@pytest.mark.exploration
def test_a_report_has_fewer_than_forty_lines_whatever_the_function_does():
    def much(directory):
        for number in range(12):
            (directory / f"file-{number}").write_text("some text " * 20)
        (directory / "new").write_text(NEW)
        os.replace(directory / "new", directory / "settings.json")

    report = explored(much, is_old_or_new, limit=40)
    assert report.verdict == "failed"
    assert "new is lost" in str(report) or "settings.json: lost" in str(report)
    assert not report.is_exhaustive
    assert len(str(report).splitlines()) < 40


def test_the_kindest_file_system_and_the_first_call_at_which_it_fails_are_told():
    report = explored(writes_in_place, is_old_or_new)
    assert report.failures[0].crash == "the power failed before call #2, on a file system of the profile ordered"
    assert report.failures[0].kind == "though nothing was lost"


def test_what_writeback_alone_may_leave_is_found_in_that_profile():
    def grow(directory):
        (directory / "data").write_bytes(b"new")

    def is_empty_or_new(directory):
        for file in directory.glob("data"):
            assert b"new".startswith(file.read_bytes()[:1]) or not any(file.read_bytes()), file.read_bytes()

    assert explore_files(grow, is_empty_or_new, profiles=["ordered", "posix"]).failures[0].kind == "after a crash, torn"
    assert explore_files(grow, lambda _: None, profiles=["writeback"]).verdict == "passed"


def test_equal_images_are_checked_once():
    looked_at = []

    def look(directory):
        looked_at.append(tuple((path.name, path.read_bytes()) for path in sorted(directory.iterdir())))

    report = explored(renames_unsynced, look)
    assert len(looked_at) == len(set(looked_at)) == report.checked
    assert report.enumerated == report.checked + report.equal


def test_each_image_is_put_where_the_function_ran_so_that_paths_in_files_stay_true():
    def point(directory, told):
        synced(directory, "pointer", str(directory / "data"))
        told(str(directory / "data"))

    def is_here(directory, told):
        assert not told or told == [str(directory / "data")]

    assert explore_files(point, is_here).verdict == "passed"


def test_a_function_that_raises_is_told_and_nothing_is_explored():
    def broken(directory):
        (directory / "a").write_text("x")
        raise OSError("no such luck")

    report = explore_files(broken, lambda _: None)
    assert report.verdict == "raises"
    assert report.failures[0].found.startswith("OSError: no such luck at files/test_explore_files.py")


def test_a_value_is_told_as_it_was_when_it_was_told():
    def tell(directory, told):
        state = {"n": 1}
        told(state)
        state["n"] = 2
        (directory / "a").touch()

    seen = []
    assert explore_files(tell, lambda directory, told: seen.append(told)).verdict == "passed"
    assert seen == [[], [{"n": 1}], [{"n": 1}]]


def test_threads_of_the_function_are_recorded_too():
    def save(directory):
        threads = [threading.Thread(target=synced, args=(directory, name, name)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
            thread.join()

    report = explore_files(save, lambda _: None)
    assert (report.verdict, report.depth) == ("passed", 6)


def test_time_that_is_up_is_told_with_what_was_not_reached():
    report = explored(renames_and_syncs_both, is_as_told, seconds=1e-9)
    assert report.checked == 1
    assert not report.is_exhaustive
    assert report.not_reached == "crashes from within call #2 on"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"function": 7}, "function is an int, 7: give a function of a directory"),
        ({"function": lambda: None}, "takes other arguments than a directory"),
        ({"check": None}, "check is None: give a function of a directory"),
        ({"setup": lambda one, two: None}, "setup '<lambda>' takes other arguments than a directory"),
        ({"profiles": "posix"}, "profiles is a str, 'posix': give a list"),
        ({"profiles": []}, "profiles is empty"),
        ({"profiles": ["ext4"]}, "there is no profile 'ext4': give some of posix, ordered, writeback"),
        ({"limit": 0}, "limit"),
        ({"seconds": 0}, "seconds is an int, 0: give a number above 0"),
        ({"progress": 1}, "progress is an int, 1: give a bool"),
        ({"repro": "x"}, "'x' is not a token of an exploration of files"),
        ({"repro": "999.0"}, "'999.0' names no image of this function"),
        ({"check": lambda directory: False}, "returned False: let it raise"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    arguments = {"function": renames_unsynced, "check": is_old_or_new, "setup": old_settings} | options
    with pytest.raises(InvalidRequest, match=words.replace("(", r"\(")):
        explore_files(arguments.pop("function"), arguments.pop("check"), **arguments)


def test_programs_are_refused_for_they_have_an_explorer_of_their_own():
    def program(directory):
        yield

    with pytest.raises(InvalidRequest, match="for programs there is explore_crashes"):
        explore_files(program, is_old_or_new)


def test_a_function_that_changes_nothing_in_its_directory_is_said_to(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    report = explore_files(lambda directory: elsewhere.write_text("new"), lambda directory: None)
    assert report.verdict == "passed"
    assert "the function changed nothing in its directory" in str(report)
