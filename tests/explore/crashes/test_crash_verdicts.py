"""What is said of workloads with no verdict, of bad arguments, and of failures: how to see them again and mend them."""

import itertools
import re

import pytest

from interpreters.disk import requests as disk
from interpreters.explore import Reopen, explore_crashes
from interpreters.explore.crashes.token import parsed
from interpreters.explore.report import NO_VERDICT
from interpreters.stores.file import manifest
from interpreters.stores.file.format import HEADER_BYTES
from interpreters.stores.file.writer import Writer
from persist_effects import InvalidRequest, PersistError, kv, log
from persist_effects.machine import perform
from persist_effects.requests import Wait


def two_appends():
    yield from log.append("s", "made", 1)
    yield from log.append("s", "made", 2)


# No verdict


def raises():
    yield from log.append("s", "made", 1)
    raise ValueError("no more")


def refused():
    yield from kv.put("\ud800", 1)


def never_ends():
    while True:
        yield from log.append("s", "made", 1)


def only_reads_for_ever():
    while True:
        yield from log.last_seq("s")


def another_name():
    numbers = itertools.count()

    def writes_another_name_each_time():
        yield from log.append(f"s{next(numbers)}", "made", 1)

    return writes_another_name_each_time


def another_value():
    numbers = itertools.count()

    def writes_another_value_each_time():
        yield from kv.put("total", next(numbers))

    return writes_another_value_each_time


def another_end():
    numbers = itertools.count()

    def returns_another_number_each_time():
        yield from kv.put("total", 1)
        return next(numbers)

    return returns_another_number_each_time


def another_count():
    numbers = itertools.count(1)

    def writes_more_each_time():
        for number in range(next(numbers)):
            yield from kv.put("total", number)

    return writes_more_each_time


WITHOUT_VERDICT = {
    "it raises": (raises, "raises", "ValueError: no more"),
    "the store refuses its request": (refused, "raises", "InvalidRequest: key '\\ud800' has a lone surrogate"),
    "it writes for ever": (never_ends, "hangs", "the workload made more than 30 requests"),
    "it reads for ever": (only_reads_for_ever, "hangs", "the workload made more than 30 requests"),
    "one of two never ends": ([two_appends, never_ends], "hangs", "the workload made more than 30 requests"),
    "another name": (another_name(), "not deterministic", "in the second: ── persist/append s1"),
    "another value": (another_value(), "not deterministic", "in the second: key 'total': 1 at revision 1"),
    "another end": (another_end(), "not deterministic", "in the second, program 1 returns 1"),
    "another count": (another_count(), "not deterministic", "in the second: ── persist/kv-put total"),
}


@pytest.mark.parametrize("why", WITHOUT_VERDICT)
def test_of_some_workloads_nothing_is_said_but_why(why):
    workload, kind, found = WITHOUT_VERDICT[why]
    report = explore_crashes(workload, depth=1, requests_limit=30)
    assert report.verdict == kind
    assert kind in NO_VERDICT
    assert report.checked == 0
    [failure] = report.failures
    assert found in failure.found
    assert not report.is_exhaustive
    assert "exhaustive" not in str(report)


def test_what_comes_up_only_after_many_runs_is_told_in_the_end():
    runs = itertools.count()

    def grows_tired():
        yield from kv.put("total", 1)
        if next(runs) == 3:
            yield from kv.put("more", 1)

    report = explore_crashes(grows_tired, depth=1)
    assert (report.verdict, report.is_exhaustive) == ("not deterministic", False)
    assert report.checked > 0
    assert "share state only through the store" in report.failures[0].remedy


def test_a_function_that_makes_no_program_is_named():
    report = explore_crashes(lambda: 5)
    assert report.verdict == "raises"
    assert "an int, 5, is not a program" in report.failures[0].found


def test_a_check_that_never_ends_is_a_failure():
    def check(acked, maybe):
        while True:
            yield from kv.get("total")

    report = explore_crashes(two_appends, check, depth=1, requests_limit=50)
    assert report.verdict == "failed"
    assert "asked more than its limit" in report.failures[0].found


def test_the_smallest_sample_checks_one_state():
    reports = [explore_crashes(two_appends, depth=1, limit=1, seed=seed) for seed in range(20)]
    assert {(report.verdict, report.checked, report.is_exhaustive) for report in reports} == {("passed", 1, False)}


BAD = {
    "a workload is a generator": {"workload": two_appends()},
    "give the function, not the generator that it made": {"workload": [two_appends, two_appends()]},
    "a workload is an int, 5, and no function that makes a program: give one": {"workload": 5},
    "a workload is None, and no function": {"workload": None},
    "the workload is an empty list: give at least one function": {"workload": []},
    "check is a generator": {"check": two_appends()},
    "the profile is 'xfs': give one of posix, ordered, writeback": {"profile": "xfs"},
    "the profile is None: give one of posix": {"profile": None},
    "there is no fault 'EI': give some of 'EIO', 'ENOSPC'": {"faults": ["EI"]},
    "faults is a str, 'EIO': give a list of some of 'EIO'": {"faults": "EIO"},
    "faults is an int, 5: give a list": {"faults": 5},
    "depth is 0: give the number of crashes, 1 to 3": {"depth": 0},
    "depth is 4: give": {"depth": 4},
    "depth is True: give": {"depth": True},
    "depth is '1': give": {"depth": "1"},
    "limit is 0: give a number of states, or None": {"limit": 0},
    "limit is 1.5: give": {"limit": 1.5},
    "seed is a str, 'x': give a whole number": {"seed": "x"},
    "segment_bytes is an int, -5: give a whole number from 1 on": {"segment_bytes": -5},
    "requests_limit is an int, 0: give": {"requests_limit": 0},
    "bound is an int, 5: give a Bound": {"bound": 5},
    "'' is not a token of an exploration": {"repro": ""},
    "'13.4' is not a token of an exploration: give the one that a failure names": {"repro": "13.4"},
    "5 is not a token": {"repro": 5},
    "'EI@3;13.0a1b2c3d' is not a token": {"repro": "EI@3;13.0a1b2c3d"},
    "'13.0a1b2c3d' names no state of this workload: it may have changed since": {"repro": "13.0a1b2c3d"},
    "'9999.0a1b2c3d' names no state": {"repro": "9999.0a1b2c3d"},
    "'EIO@9999;13.r' names no state": {"repro": "EIO@9999;13.r"},
    "names program 3, and the workload has 1": {"repro": "programs 3;13.0a1b2c3d"},
}


@pytest.mark.parametrize(
    "token",
    [
        "{}.0a1b2c3d",
        "13.0a1b2c3d/{}.0a1b2c3d",
        "EIO@{};13.0a1b2c3d",
        "recovery EIO@{};13.r",
        "programs {};13.0a1b2c3d",
        "programs 0,{};13.0a1b2c3d",
    ],
)
@pytest.mark.parametrize("number", ["9" * 5000, "١٢"])
def test_a_token_with_a_number_that_is_none_of_ours_is_refused(token, number):
    with pytest.raises(InvalidRequest, match="is not a token of an exploration"):
        parsed(token.format(number))
    assert parsed(token.format("9999"))


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_refused_by_name(message):
    arguments = {"workload": two_appends, **BAD[message]}
    with pytest.raises(InvalidRequest) as caught:
        explore_crashes(arguments.pop("workload"), **arguments)
    assert message in str(caught.value)


# Failures that were planted


def all_that_was_written_is_there(acked, maybe):
    """Too much is asked: what is on its way may be lost."""
    last_seq = yield from log.last_seq("s")
    if last_seq != len(acked) + len(maybe):
        raise ValueError(f"{last_seq} of {len(acked)} and {len(maybe)}")


def replayed(workload, check, failure, **options):
    report = explore_crashes(workload, check, repro=failure.token, **options)
    assert report.checked == 1, failure.token
    assert report.verdict == "failed"
    assert not report.is_exhaustive
    [again] = report.failures
    return again


@pytest.mark.exploration
@pytest.mark.parametrize("options", [{"depth": 1}, {"depth": 2}, {"depth": 1, "profile": "ordered"}])
def test_the_token_of_a_failure_shows_exactly_that_state_again(options):
    report = explore_crashes(two_appends, all_that_was_written_is_there, **options)
    assert report.verdict == "failed"
    [failure] = report.failures
    assert failure.kind == "invariant"
    assert failure.found == "ValueError: 0 of 0 and 1"
    assert replayed(two_appends, all_that_was_written_is_there, failure, **options) == failure
    profile = ", profile='ordered'" if "profile" in options else ""
    assert f'explore_crashes(workload, check{profile}, repro="{failure.token}")' in str(report)


def no_sync_of_what_recovery_copies(monkeypatch):
    sync = Writer.sync

    def skip_the_first_of_later_segments(self):
        if self.header.number > 1 and self.synced == 0:
            self.synced = self.offset
            return
        yield from sync(self)

    monkeypatch.setattr(Writer, "sync", skip_the_first_of_later_segments)


@pytest.mark.exploration
def test_a_failure_after_two_crashes_is_shown_again_by_its_token(monkeypatch):
    no_sync_of_what_recovery_copies(monkeypatch)
    assert explore_crashes(two_appends, depth=1).verdict == "passed"
    report = explore_crashes(two_appends, depth=2)
    assert {failure.kind for failure in report.failures} == {
        "the store does not open", "an acknowledged commit is lost",
    }  # fmt: skip
    for failure in report.failures:
        assert re.fullmatch(r"\d+\.[0-9a-f]{8}/\d+\.[0-9a-f]{8}", failure.token)
        assert failure.crash.startswith("before request recovery #")
        assert replayed(two_appends, None, failure, depth=2) == failure


def mends_itself():
    yield from log.append("s", "made", 1)
    try:
        yield from log.append("s", "made", 2)
    except PersistError:
        yield from perform(Reopen())


def no_sync_of_a_later_append(monkeypatch):
    sync = Writer.sync

    def skip_all_but_the_first(self):
        if HEADER_BYTES < self.synced < self.offset:
            self.synced = self.offset
            return
        yield from sync(self)

    monkeypatch.setattr(Writer, "sync", skip_all_but_the_first)


def test_a_failure_after_a_fault_is_shown_again_by_its_token(monkeypatch):
    no_sync_of_a_later_append(monkeypatch)
    report = explore_crashes(mends_itself, depth=1, faults=["EIO"])
    failures = [failure for failure in report.failures if failure.token.startswith("EIO@")]
    assert failures
    for failure in failures:
        assert replayed(mends_itself, None, failure, depth=1) == failure


# What would mend it


def test_where_directory_syncs_are_left_out_the_remedy_is_one_after_the_rename(monkeypatch):
    def perform_but_sync_no_directory(request):
        return None if isinstance(request, disk.SyncDirectory) else (yield from perform(request))

    monkeypatch.setattr(manifest, "perform", perform_but_sync_no_directory)
    report = explore_crashes(two_appends, depth=1)
    [failure] = report.failures
    assert failure.kind == "the store does not open"
    assert "CURRENT names MANIFEST-00000001, which is not there" in failure.found
    after = int(re.fullmatch(r"passes if the directory is synced after request (\d+)", failure.remedy)[1])
    assert failure.trace[-2:] == (f"#{after} disk/rename CURRENT.tmp to CURRENT", "  ✗ the power fails")


def test_where_a_sync_is_left_out_the_remedy_is_that_sync(monkeypatch):
    no_sync_of_a_later_append(monkeypatch)
    report = explore_crashes(two_appends, depth=1)
    [failure] = report.failures
    assert failure.kind == "an acknowledged commit is lost"
    assert failure.expected == "stream 's': last sequence number 2, 2 events: 1 (made 1), 2 (made 2)"
    assert failure.found == "stream 's': last sequence number 1, 1 events: 1 (made 1)"
    [after] = re.findall(r"passes if log/00000001\.seg is synced after request (\d+)$", failure.remedy)
    assert f"#{after} disk/write log/00000001.seg" in failure.trace
    assert any(f"(request {after})" in line for line in failure.survivors)
    assert replayed(two_appends, None, failure, depth=1) == failure


def test_where_the_fault_is_in_recovery_no_sync_of_the_workload_is_advised(monkeypatch):
    no_sync_of_what_recovery_copies(monkeypatch)
    report = explore_crashes(two_appends, depth=1, faults=["EIO"])
    assert report.verdict == "failed"
    assert all(failure.token.startswith("recovery EIO@") for failure in report.failures)
    assert {failure.remedy for failure in report.failures} == {None}


def test_what_is_no_maker_of_rows_and_what_is_no_check_is_refused():
    def look():
        yield from kv.get("total")

    for bad in (
        {"effects": {}},
        {"effects": lambda: 3},
        {"progress": 3},
        {"check": look},
        {"check": lambda a, m: None},
    ):
        with pytest.raises(InvalidRequest, match=f"^(check|{next(iter(bad))}) "):
            explore_crashes(two_appends, **bad)


def test_a_workload_that_waits_is_answered_at_once():
    def waits():
        yield from kv.put("color", "red")
        return (yield from perform(Wait(0, "", 1e9)))

    assert explore_crashes(waits, depth=1).verdict == "passed"
