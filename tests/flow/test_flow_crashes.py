"""Flows on a disk whose power fails at every request: what they wrote is there once, and they go on."""

import pytest
from flow_scenes import (
    a_trip_is_whole_or_undone,
    an_order_was_paid_once,
    approvals,
    begin_order,
    both_were_heard,
    cancelling,
    counting,
    each_was_counted,
    run_f,
    sending_once,
    trip,
)
from test_flow_faults import journal_after_the_effect

from interpreters.explore import explore_crashes
from persist_effects import flow


def pay_an_order():
    yield from begin_order()
    yield from run_f()


def an_order_is_paid_once(acked, maybe):
    yield from pay_an_order()
    yield from an_order_was_paid_once()


def hear_two():
    yield from flow.begin("f", approvals)
    yield from sending_once("f", "ok", 1, 2)()
    yield from run_f()


def two_are_heard(acked, maybe):
    yield from hear_two()
    yield from both_were_heard()


def count_in_runs():
    yield from flow.begin("f", counting, 2)
    yield from sending_once("f", "last", "end")()
    yield from sending_once("f", "item", 1, 2, 3)()
    yield from run_f()


def runs_have_counted(acked, maybe):
    yield from count_in_runs()
    yield from each_was_counted()


def book_a_trip():
    yield from flow.begin("f", trip, "o-1")
    yield from run_f()


def book_and_cancel_a_trip():
    yield from flow.begin("f", trip, "o-1")
    yield from cancelling("f")()
    yield from run_f()


def a_trip_is_booked_or_undone(acked, maybe):
    yield from book_a_trip()
    yield from a_trip_is_whole_or_undone()


WORKLOADS = {
    pay_an_order: an_order_is_paid_once,
    hear_two: two_are_heard,
    count_in_runs: runs_have_counted,
    book_a_trip: a_trip_is_booked_or_undone,
    book_and_cancel_a_trip: a_trip_is_booked_or_undone,
}


@pytest.mark.exploration
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_whenever_the_power_fails_a_flow_goes_on_and_its_effects_are_there_once(workload):
    report = explore_crashes(workload, WORKLOADS[workload], depth=1)
    assert report.verdict == "passed", report


@pytest.mark.exploration
def test_whenever_the_power_fails_and_again_while_the_store_is_opened_an_order_is_paid_once():
    report = explore_crashes(pay_an_order, an_order_is_paid_once, depth=2, limit=3_000)
    assert report.verdict == "passed", report


def test_a_journal_that_is_written_after_the_effect_is_found_by_a_power_failure(monkeypatch):
    journal_after_the_effect(monkeypatch)
    report = explore_crashes(pay_an_order, an_order_is_paid_once, depth=1)
    assert report.verdict == "failed", report
