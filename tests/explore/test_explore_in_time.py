"""Explorations that end in time: what was not reached is said, and a line tells how far they are."""

import itertools

import pytest

from interpreters.explore import explore, explore_crashes, explore_effects
from interpreters.explore.pace import Pace
from interpreters.stores.memory import MemoryStore
from persist_effects import InvalidRequest, kv

NO_TIME = 1e-9
"""So little that it is over after the first state, on any machine."""


def memory():
    return MemoryStore(clock=lambda: 0)


def count():
    yield from kv.put("n", (yield from kv.get_or("n", 0)) + 1)


def all_counted(outcomes):
    number = yield from kv.get_or("n", 0)
    if number < len(outcomes):
        raise ValueError(f"{number} of {len(outcomes)}")


def passes(acked, maybe):
    yield from kv.get("n")


def test_orders_that_there_was_no_time_for_are_told():
    report = explore({"a": count, "b": count, "c": count}, memory, seconds=NO_TIME)
    assert (report.verdict, report.checked, report.is_exhaustive) == ("passed", 1, False)
    assert "1 in order in half of 1e-09 s" in report.bound
    assert report.not_reached.startswith("orders that begin with b, c; ")
    assert "  not reached: orders that begin with b, c; " in str(report)
    assert "not reached: orders that begin with b, c; " in report.to_html()


@pytest.mark.parametrize("options", [{"bound": 2}, {"crashes": True}, {"reduce": False}])
def test_they_are_told_however_they_are_reduced(options):
    report = explore({"a": count, "b": count, "c": count}, memory, seconds=NO_TIME, **options)
    assert (report.checked, report.is_exhaustive) == (1, False)
    assert report.not_reached.startswith("orders that begin with b, c")


def test_with_enough_time_all_is_as_without_an_end_to_it():
    programs = {"a": count, "b": count}
    assert explore(programs, memory, all_counted, seconds=3_600) == explore(programs, memory, all_counted)
    assert explore_effects(count, memory, passes, seconds=3_600) == explore_effects(count, memory, passes)


def test_faults_that_there_was_no_time_for_are_told():
    report = explore_effects(count, memory, passes, depth=2, seconds=NO_TIME)
    assert (report.verdict, report.checked, report.is_exhaustive) == ("passed", 1, False)
    assert report.not_reached.endswith(" on, and those with two")
    assert "states with one fault, from " in report.not_reached


def test_crashes_that_there_was_no_time_for_are_told():
    report = explore_crashes(count, depth=1, seconds=NO_TIME)
    assert (report.verdict, report.checked, report.is_exhaustive) == ("passed", 1, False)
    assert report.not_reached.startswith("crashes from before request #")
    with_faults = explore_crashes(count, depth=1, faults=["EIO"], seconds=NO_TIME)
    assert with_faults.not_reached.endswith(" on, and the faults")


def test_a_failure_for_whose_remedy_there_is_no_time_is_told_without_one():
    def check(acked, maybe):
        raise ValueError("no")
        yield

    [failure] = explore_crashes([count, count], check, depth=1, seconds=NO_TIME).failures
    assert failure.remedy is None


def test_with_enough_time_all_crashes_are_as_without_an_end_to_it():
    assert explore_crashes(count, depth=1, seconds=3_600) == explore_crashes(count, depth=1)


def test_crashes_have_their_line_on_standard_error_or_a_function_that_is_told(capsys):
    told = []
    report = explore_crashes(count, depth=1, progress=told.append)
    assert told[-1] == report.checked
    assert capsys.readouterr().err == ""
    report = explore_crashes(count, depth=1, progress=True)
    assert capsys.readouterr().err.startswith("\rcount: ")


def test_half_of_the_time_is_for_orders_in_turn_and_the_rest_for_others():
    seconds = itertools.count()
    pace = Pace("a", 10, is_told=False, clock=lambda: next(seconds))
    assert [pace.is_over(0.5) for _ in range(6)] == [False] * 4 + [True] * 2
    assert [pace.is_over(0.8) for _ in range(2)] == [False, True]


def test_a_line_on_standard_error_tells_how_far_it_is(capsys):
    explore({"a": count, "b": count}, memory, progress=True)
    lines = capsys.readouterr().err.split("\r")
    assert lines[1].startswith("a, b: 1 checked, 0 equal, 0 failed, ")
    assert lines[-1].startswith("a, b: 4 checked, ")
    assert lines[-1].endswith(" s\n")
    explore_effects(count, memory, passes, progress=True, seconds=3_600)
    assert capsys.readouterr().err.endswith(" of 3600 s\n")
    explore({"a": count, "b": count}, memory)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"seconds": 0}, "seconds is an int, 0: give a number above 0"),
        ({"seconds": float("inf")}, "seconds is a float, inf: give a number above 0"),
        ({"seconds": True}, "seconds is a bool, True: give a number above 0"),
        ({"seconds": "5"}, "seconds is a str, '5': give a number above 0"),
        ({"progress": 1}, "progress is an int, 1: give a bool"),
    ],
)
def test_what_is_not_a_time_is_refused_before_anything_runs(options, why):
    def never_made():
        raise AssertionError("a store was made")

    for call in (
        lambda: explore([count], never_made, **options),
        lambda: explore_effects(count, never_made, passes, **options),
    ):
        with pytest.raises(InvalidRequest, match=why):
            call()
