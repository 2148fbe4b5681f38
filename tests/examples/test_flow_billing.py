"""The example `examples/flow_billing.py`: a bill each month with a key of its own, a short journal, and an end."""

import subprocess
import sys

import pytest
from held_activities import HeldActivity, counted
from places import EXAMPLES

from interpreters import open_store
from persist_effects import flow, log

sys.path.insert(0, str(EXAMPLES))

import flow_billing
from flow_billing import MONTH_MICROS, Calendar, Plan

URLS = ["memory:", "file:{}/store"]
TRANSCRIPT = """\
bank: 9.90 EUR from ada
month 1 is paid
bank: 9.90 EUR from ada
month 2 is paid
bank: 9.90 EUR from ada
month 3 is paid
paid for 3: no time for tea
"""
PLAN = Plan("ada", 990)


@pytest.fixture(params=URLS)
def url(request, tmp_path):
    return request.param.format(tmp_path)


@pytest.fixture
def calendar():
    return Calendar()


@pytest.fixture
def dated(url, calendar):
    """A store with a calendar."""
    with open_store(url, clock=calendar) as store:
        yield store


def months(store, calendar, *which, activities=flow_billing.ACTIVITIES):
    """Let months pass, each with another host, which is closed as soon as its month is paid."""
    for month in which:
        calendar.move(MONTH_MICROS)
        with flow_billing.host_of(store, activities) as host:
            host.start(flow_billing.subscription, "ada", PLAN)
            store.run(flow_billing.when_paid(PLAN, month))


def test_it_prints_this_and_the_second_time_nobody_is_billed(url, capsys):
    flow_billing.main(url)
    assert capsys.readouterr().out == TRANSCRIPT
    if url != "memory:":
        flow_billing.main(url)
        assert capsys.readouterr().out == TRANSCRIPT.replace("bank: 9.90 EUR from ada\n", "")


def test_a_user_starts_it_from_the_command_line():
    command = [sys.executable, EXAMPLES / "flow_billing.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == TRANSCRIPT


def test_each_month_is_billed_once_with_a_key_of_its_own(dated, calendar):
    billed = []
    months(dated, calendar, 1, 2, 3, 4, activities=[counted(flow_billing.charge, billed)])
    assert billed == [("ada", 990, f"ada/{run}/{2 if run == 1 else 1}") for run in (1, 2, 3, 4)]
    assert [event.data["month"] for event in dated.run(log.read(PLAN.stream))] == [1, 2, 3, 4]


def test_after_a_year_the_journal_has_nothing_but_the_last_month(dated, calendar):
    months(dated, calendar, 1)
    months(dated, calendar, *range(2, 13))
    assert dated.run(flow.status("ada")).run == 12
    entries = dated.run(log.read("flow/ada"))
    assert [each.type for each in entries].count("begun") == 1
    assert len(entries) <= 4


def test_who_unsubscribes_is_billed_no_more(dated, calendar):
    months(dated, calendar, 1, 2)
    dated.run(flow.send("ada", "unsubscribed", "too dear"))
    calendar.move(12 * MONTH_MICROS)
    with flow_billing.host_of(dated) as host:
        assert host.result("ada", timeout=60) == "paid for 2: too dear"
    assert [event.type for event in dated.run(log.read(PLAN.stream))] == ["paid", "paid", "ended"]
    assert dated.run(flow.due_before(10**17 - 1)) == []


def test_who_unsubscribes_while_the_bank_is_asked_is_heard(dated):
    with HeldActivity(flow_billing.charge) as held, flow_billing.host_of(dated, [held.activity]) as host:
        host.start(flow_billing.subscription, "ada", PLAN)
        held.wait()
        host.signal("ada", "unsubscribed", "too dear")
        held.may_end.set()
        assert host.result("ada", timeout=60) == "paid for 1: too dear"


def test_a_host_that_stopped_while_the_bank_was_asked_is_followed_by_one_that_asks_with_the_same_key(dated, calendar):
    billed = []
    months(dated, calendar, 1)
    calendar.move(MONTH_MICROS)
    with HeldActivity(flow_billing.charge) as held:
        with flow_billing.host_of(dated, [held.activity]):
            held.wait()
        with flow_billing.host_of(dated, [counted(flow_billing.charge, billed)]):
            dated.run(flow_billing.when_paid(PLAN, 2))
    assert billed == [("ada", 990, "ada/2/1")]
    assert [event.data["month"] for event in dated.run(log.read(PLAN.stream))] == [1, 2]
