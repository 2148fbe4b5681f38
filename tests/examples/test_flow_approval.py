"""The example `examples/flow_approval.py`: decisions, reminders and the end of waiting, over restarts and weeks."""

import re
import subprocess
import sys

import pytest
from held_activities import HeldActivity, counted
from places import EXAMPLES

from interpreters import open_store
from persist_effects import flow, kv, log
from persist_effects.errors import FlowFailed, NoSuchFlow

sys.path.insert(0, str(EXAMPLES))

import flow_approval
from flow_approval import DAY, Claim, Decision
from flow_billing import Calendar

URLS = ["memory:", "file:{}/store"]
# A busy machine may be reminded more than once.
TRANSCRIPT = """\
mail to grace: c-1, 40 EUR, yes or no\\?
c-1: approved by grace
mail to grace: c-2, 900 EUR, yes or no\\?
(?:mail to grace: c-2 still waits, reminder \\d+
)+c-2: refused by grace
mail to linus: c-3, 7 EUR, yes or no\\?
c-3: expired
"""
DAY_MICROS = int(DAY * 1_000_000)
REMIND_EVERY_MICROS = 3 * DAY_MICROS
CLAIM = Claim("c-1", "grace", 40, remind_every_seconds=REMIND_EVERY_MICROS / 1_000_000)
YES = Decision("grace", is_approved=True)


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


def types_of(store):
    return [event.type for event in store.run(log.read(CLAIM.stream))]


def begin(store):
    """Begin the claim, and stop the host as soon as the approver was asked."""
    with HeldActivity(flow_approval.ask) as held, flow_approval.host_of(store, [held.activity]) as host:
        host.start(flow_approval.approve, CLAIM.number, CLAIM)
        held.wait()


def test_it_prints_this_and_the_second_time_nobody_is_written_to(tmp_path, capsys):
    url = f"file:{tmp_path}/store"
    flow_approval.main(url)
    assert re.fullmatch(TRANSCRIPT, capsys.readouterr().out)
    flow_approval.main(url)
    assert capsys.readouterr().out == "c-1: approved by grace\nc-2: refused by grace\nc-3: expired\n"


def test_a_user_starts_it_from_the_command_line():
    command = [sys.executable, EXAMPLES / "flow_approval.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(TRANSCRIPT, done.stdout)


def test_a_decision_ends_the_waiting_and_no_reminder_is_left(dated, calendar):
    with flow_approval.host_of(dated) as host:
        host.start(flow_approval.approve, CLAIM.number, CLAIM)
        host.signal(CLAIM.number, "decided", YES)
        assert host.result(CLAIM.number, timeout=60) == "approved by grace"
        with pytest.raises(NoSuchFlow, match="it has ended, completed"):
            host.signal(CLAIM.number, "decided", YES)
    assert dated.run(flow.due_before(calendar() + 10**15)) == []


def test_a_decision_that_came_while_no_host_ran_was_kept(dated):
    begin(dated)
    dated.run(flow.send(CLAIM.number, "decided", YES))
    with flow_approval.host_of(dated) as host:
        assert host.result(CLAIM.number, timeout=60) == "approved by grace"
    assert types_of(dated) == ["claimed", "approved"]


def test_each_host_that_is_started_when_a_reminder_is_due_sends_it(dated, calendar):
    reminded = []
    activities = [flow_approval.ask, counted(flow_approval.remind, reminded)]
    with flow_approval.host_of(dated, activities) as host:
        host.start(flow_approval.approve, CLAIM.number, CLAIM)
        dated.run(both_timers_are_set(calendar))
    for time in (1, 2, 3):
        calendar.move(REMIND_EVERY_MICROS)
        with flow_approval.host_of(dated, activities) as host:
            dated.run(flow_approval.when(CLAIM, "reminded", time))
            # Else the next host would set it, by the calendar as it is then.
            dated.run(both_timers_are_set(calendar))
            assert host.status(CLAIM.number).state == "running"
    assert reminded == [(CLAIM, 1), (CLAIM, 2), (CLAIM, 3)]


def test_two_weeks_later_it_has_expired_and_whoever_says_yes_then_is_told(dated, calendar):
    with flow_approval.host_of(dated) as host:
        host.start(flow_approval.approve, CLAIM.number, CLAIM)
        dated.run(both_timers_are_set(calendar))
    calendar.move(15 * DAY_MICROS)
    with flow_approval.host_of(dated) as host:
        assert host.result(CLAIM.number, timeout=60) == "expired"
        with pytest.raises(NoSuchFlow):
            host.signal(CLAIM.number, "decided", YES)
    assert types_of(dated)[-1] == "expired"


def test_what_is_no_decision_fails_the_flow_with_what_was_sent(dated):
    with flow_approval.host_of(dated) as host:
        host.start(flow_approval.approve, CLAIM.number, CLAIM)
        host.signal(CLAIM.number, "decided", "yes, of course")
        with pytest.raises(FlowFailed, match="signal 'decided' does not fit its type"):
            host.result(CLAIM.number, timeout=60)


def both_timers_are_set(calendar):
    """Wait until the flow waits for its approver: the signal's timer and that of the next reminder are stored."""
    seen, reminds_at = 0, calendar() + REMIND_EVERY_MICROS
    while reminds_at not in (dues := [due for due, _, _ in (yield from flow.due_before(10**17 - 1))]) or len(dues) < 2:
        before, seen = seen, (yield from kv.wait(seen, "flow-due/", timeout=60))
        assert seen > before, f"no timer of {reminds_at} was set for a minute, but {dues}"
