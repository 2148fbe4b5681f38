"""Schedules of flows: what is due, given the time; and hosts that begin it."""

import itertools
import logging
import sys
from datetime import UTC, datetime

import pytest

from interpreters import open_store
from interpreters.runtime.flows import FlowHost, Queue, schedules
from interpreters.runtime.flows.schedules import Schedule, see_to
from persist_effects import flow, kv, perform
from persist_effects.errors import FlowFailed, InvalidRequest
from persist_effects.flow import journal
from persist_effects.requests import KvGet

MINUTE = 60_000_000
DAY = 1_440 * MINUTE


def at(text: str) -> int:
    """Microseconds since 1970 of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def report(region: str):
    return f"all is well in the {region}"
    yield


def scheduled(cron: str, **options) -> Schedule:
    return Schedule("report", cron, report, ("north",), **options)


def told(schedule: Schedule, times: list[int]) -> list[str]:
    return [schedule.flow_id(time).removeprefix("report/") for time in times]


def next_ones(schedule: Schedule, after: str, count: int) -> list[str]:
    found = [at(after)]
    for _ in range(count):
        found.append(schedule.next_after(found[-1]))
    return told(schedule, found[1:])


# When it fires


def test_a_time_is_behind_the_one_that_is_asked_about():
    schedule = scheduled("0 9 * * *")
    assert schedule.next_after(at("2026-11-28T09:00") - 1) == at("2026-11-28T09:00")
    assert schedule.next_after(at("2026-11-28T09:00")) == at("2026-11-29T09:00")
    assert schedule.next_after(at("2026-11-28T09:00") + 1) == at("2026-11-29T09:00")


def test_fields_are_read_by_the_clocks_of_the_time_zone_and_ids_by_those_of_utc():
    assert next_ones(scheduled("0 9 * * *", time_zone="Asia/Kolkata"), "2026-11-28", 1) == ["2026-11-28T03:30Z"]


def test_what_would_be_in_the_hour_that_is_left_out_begins_right_behind_it():
    # On 2026-03-29, 02:00 in Berlin is 03:00.
    schedule = scheduled("30 2 * * *", time_zone="Europe/Berlin")
    assert next_ones(schedule, "2026-03-28T12:00", 2) == ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]


def test_two_times_that_fall_onto_one_begin_one_flow():
    schedule = scheduled("0,30 2 * * *", time_zone="Europe/Berlin")
    assert next_ones(schedule, "2026-03-28T12:00", 2) == ["2026-03-29T01:00Z", "2026-03-30T00:00Z"]


def test_what_is_in_the_hour_that_comes_twice_begins_once():
    # On 2026-10-25, 03:00 in Berlin is 02:00 again.
    schedule = scheduled("30 2 * * *", time_zone="Europe/Berlin")
    assert next_ones(schedule, "2026-10-24T12:00", 2) == ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]
    assert next_ones(schedule, "2026-10-25T01:15", 1) == ["2026-10-26T01:30Z"]


def test_every_half_hour_goes_on_through_the_hour_that_comes_twice():
    schedule = scheduled("*/30 * * * *", time_zone="Europe/Berlin")
    assert next_ones(schedule, "2026-10-25T00:00", 4) == [
        "2026-10-25T00:30Z",
        "2026-10-25T01:00Z",
        "2026-10-25T01:30Z",
        "2026-10-25T02:00Z",
    ]


# What is due


def test_nothing_is_due_before_its_time():
    assert scheduled("0 9 * * *").due(at("2026-11-27T09:00"), at("2026-11-28T09:00") - 1) == ([], False)


def test_what_is_due_now_is_due():
    now = at("2026-11-28T09:00")
    assert scheduled("0 9 * * *").due(now - DAY, now) == ([now], False)


@pytest.mark.parametrize("catch_up", [False, True])
def test_nothing_is_due_again_where_the_clock_was_set_back(catch_up):
    seen = at("2026-11-28T09:00")
    assert scheduled("* * * * *", catch_up=catch_up).due(seen, seen - DAY) == ([], False)


def test_of_those_that_were_missed_the_newest_is_due():
    schedule = scheduled("0 9 * * *")
    times, is_cut = schedule.due(at("2026-11-01T09:00"), at("2026-11-28T12:00"))
    assert (told(schedule, times), is_cut) == (["2026-11-28T09:00Z"], False)


def test_all_that_were_missed_are_due_where_it_catches_up():
    schedule = scheduled("0 9 * * *", catch_up=True)
    times, is_cut = schedule.due(at("2026-11-25T09:00"), at("2026-11-28T12:00"))
    assert told(schedule, times) == ["2026-11-26T09:00Z", "2026-11-27T09:00Z", "2026-11-28T09:00Z"]
    assert not is_cut


@pytest.mark.parametrize("minutes", [1_000, 1_001])
def test_of_more_than_it_catches_up_with_the_newest_are_due_and_it_is_said_so(minutes):
    now = at("2026-11-28T09:00")
    times, is_cut = scheduled("* * * * *", catch_up=True).due(now - minutes * MINUTE, now)
    assert times == [now - back * MINUTE for back in reversed(range(1_000))]
    assert is_cut == (minutes > 1_000)


@pytest.mark.parametrize("limit", [59, 60, 61])
def test_it_is_said_that_times_are_passed_over_wherever_the_look_back_ends(limit, monkeypatch):
    # It looks back by an hour at first, in which there are 60.
    monkeypatch.setattr(schedules, "CATCH_UP_LIMIT", limit)
    now = at("2026-11-28T09:00")
    for missed in range(limit - 2, limit + 3):
        times, is_cut = scheduled("* * * * *", catch_up=True).due(now - missed * MINUTE, now)
        assert (len(times), is_cut) == (min(missed, limit), missed > limit)


@pytest.mark.parametrize("cron", ["* * * * *", "7 */5 * * *", "0 0 1 * *", "0 0 29 2 *"])
def test_the_newest_is_the_last_of_all_however_long_ago_it_was_seen_to(cron):
    schedule, now = scheduled(cron), at("2026-11-28T09:00")
    for days in (1, 30, 400):
        after = now - days * DAY
        times = itertools.takewhile(lambda time: time <= now, schedule._times_after(after))
        assert schedule.due(after, now).times == list(times)[-1:]


# In a store


class Clock:
    """A clock that tests set."""

    def __init__(self, text: str) -> None:
        self.now = at(text)

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock():
    return Clock("2026-11-28T08:30")


@pytest.fixture
def store(clock):
    with open_store("memory:", clock=clock) as store:
        yield store


def ids_in(store) -> list[str]:
    return [each.flow_id for each in store.run(flow.listing())]


def test_what_was_before_a_schedule_was_first_seen_is_not_missed(store):
    seen = store.run(see_to(scheduled("0 * * * *", catch_up=True)))
    assert (seen.flow_ids, seen.next) == ([], at("2026-11-28T09:00"))
    assert ids_in(store) == []


def test_a_flow_is_begun_when_its_time_has_come_with_the_name_of_its_schedule(store, clock):
    schedule = scheduled("0 * * * *", queue="slow")
    store.run(see_to(schedule))
    clock.now = at("2026-11-28T09:00")
    assert store.run(see_to(schedule)) == (["report/2026-11-28T09:00Z"], clock.now, at("2026-11-28T10:00"))
    (found,) = store.run(flow.listing(tags={"schedule": "report"}))
    assert (found.flow_id, found.flow, found.queue) == ("report/2026-11-28T09:00Z", "report", "slow")


@pytest.mark.parametrize("catch_up", [False, True])
def test_two_hosts_that_see_to_it_together_begin_each_once(store, clock, catch_up):
    schedule = scheduled("0 * * * *", catch_up=catch_up)
    store.run(see_to(schedule))
    clock.now = at("2026-11-28T11:30")
    one, other = store.run_many([see_to(schedule, b"one"), see_to(schedule, b"other")])
    assert one.flow_ids == other.flow_ids == ids_in(store)
    assert len(one.flow_ids) == (3 if catch_up else 1)
    assert store.run(see_to(schedule)).flow_ids == []


def test_a_host_that_was_lost_before_it_noted_what_it_began_begins_it_once(store, clock):
    schedule = scheduled("0 * * * *")
    store.run(see_to(schedule))
    before = store.run(kv.get("flow-schedule/report"))
    clock.now = at("2026-11-28T09:00")
    store.run(see_to(schedule))
    store.run(kv.put("flow-schedule/report", before))
    assert store.run(see_to(schedule)).flow_ids == ids_in(store) == ["report/2026-11-28T09:00Z"]


def test_a_host_whose_clock_is_behind_does_not_set_back_what_another_has_seen_to(store, clock):
    schedule = scheduled("0 * * * *")
    store.run(see_to(schedule))
    clock.now = at("2026-11-28T09:00")
    behind = see_to(schedule)
    asked = [next(behind)]
    while sum(request == KvGet("flow-schedule/report") for request in asked) < 2:
        asked.append(behind.send(store.run(perform(asked[-1]))))
    # It has begun what was due, and is about to note that.
    clock.now = at("2026-11-28T10:00")
    store.run(see_to(schedule))
    put = behind.send(store.run(perform(asked[-1])))
    with pytest.raises(StopIteration):
        behind.send(store.run(perform(put)))
    assert store.run(kv.get("flow-schedule/report")) == clock.now
    assert len(ids_in(store)) == 2


def test_a_clock_that_is_set_forth_and_back_begins_each_once(store, clock):
    schedule = scheduled("0 * * * *", catch_up=True)
    store.run(see_to(schedule))
    for text in ("09:00", "11:00", "09:30", "10:00", "11:00", "12:00"):
        clock.now = at(f"2026-11-28T{text}")
        store.run(see_to(schedule))
    assert ids_in(store) == [f"report/2026-11-28T{hour:02}:00Z" for hour in (9, 10, 11, 12)]


def test_a_schedule_whose_key_was_deleted_begins_anew(store, clock):
    schedule = scheduled("0 * * * *", catch_up=True)
    store.run(see_to(schedule))
    clock.now = at("2026-11-28T11:30")
    store.run(kv.delete("flow-schedule/report"))
    assert store.run(see_to(schedule)).flow_ids == []
    clock.now = at("2026-11-28T12:00")
    assert store.run(see_to(schedule)).flow_ids == ["report/2026-11-28T12:00Z"]


def test_arguments_that_have_changed_do_not_begin_a_flow_again(store, clock, caplog):
    store.run(see_to(scheduled("0 * * * *")))
    before = store.run(kv.get("flow-schedule/report"))
    clock.now = at("2026-11-28T09:00")
    store.run(see_to(scheduled("0 * * * *")))
    store.run(kv.put("flow-schedule/report", before))
    store.run(see_to(Schedule("report", "0 * * * *", report, ("south",))))
    assert len(ids_in(store)) == 1
    assert "flow 'report/2026-11-28T09:00Z' is 'report' with other arguments" in caplog.text


def test_what_is_passed_over_is_said_in_the_log(store, clock, caplog, monkeypatch):
    monkeypatch.setattr(schedules, "CATCH_UP_LIMIT", 2)
    schedule = scheduled("0 * * * *", catch_up=True)
    store.run(see_to(schedule))
    clock.now = at("2026-11-28T11:00")
    with caplog.at_level(logging.WARNING, "persist_effects.flows"):
        assert len(store.run(see_to(schedule)).flow_ids) == 2
    assert (
        "schedule 'report': flows are begun from 2026-11-28T10:00Z on, the newest 2; what was missed between "
        "2026-11-28T08:30Z and then is not"
    ) in caplog.text


# What is refused


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("", "give five fields"),
        ("9 * * *", "give five fields"),
        ("0 0 9 * * *", "give five fields"),
        ("@daily", "give five fields"),
        (None, "give five fields"),
        ("60 9 * * *", "Bad minute"),
        ("0 25 * * *", "Bad hour"),
        ("0 9 * * MOO", "Bad day-of-week"),
        ("0 9 31 2 *", "Bad day-of-month"),
        ("0 9 29 2 MON-FRI/9#", "Bad day-of-week"),
    ],
)
def test_a_cron_text_that_is_none_is_refused_with_what_is_wrong(cron, why):
    with pytest.raises(InvalidRequest, match=why) as met:
        scheduled(cron)
    assert f"cron of schedule 'report' is {cron!r}" in str(met.value)


@pytest.mark.parametrize("zone", ["Europe/Bern", "", "/etc/passwd", "../UTC", None, 7, "Europe"])
def test_a_time_zone_that_is_not_known_is_refused(zone):
    with pytest.raises(InvalidRequest, match="time_zone of schedule 'report' is") as met:
        scheduled("0 9 * * *", time_zone=zone)
    assert repr(zone) in str(met.value)


def test_arguments_that_the_flow_does_not_take_are_refused_before_a_host_is_there():
    with pytest.raises(InvalidRequest, match="flow 'report' was begun with"):
        Schedule("report", "0 9 * * *", report)
    with pytest.raises(InvalidRequest, match="args of schedule 'report' is a str, 'north': give a tuple"):
        Schedule("report", "0 9 * * *", report, "north")  # type: ignore[arg-type]


def test_a_schedule_without_the_package_of_cron_texts_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(InvalidRequest, match="schedules need cronsim, of the extra `flows`: pip install cronsim"):
        scheduled("0 9 * * *")


def test_what_is_not_a_flow_is_refused():
    with pytest.raises(InvalidRequest, match="a flow is"):
        Schedule("report", "0 9 * * *", print, ())


@pytest.mark.parametrize("name", ["", "a\nb", None, "r" * 283])
def test_a_name_that_makes_no_id_is_refused(name):
    with pytest.raises(InvalidRequest, match=r"schedule|flow's id"):
        Schedule(name, "0 9 * * *", report, ("north",))


def test_the_longest_name_makes_an_id():
    assert len(Schedule("r" * 282, "0 9 * * *", report, ("north",)).flow_id(0)) == 300


def test_what_is_not_yes_or_no_is_refused():
    with pytest.raises(InvalidRequest, match="catch_up of schedule 'report' is an int, 1"):
        scheduled("0 9 * * *", catch_up=1)


def test_two_schedules_of_one_name_are_refused():
    with pytest.raises(InvalidRequest, match="two schedules are called 'report'"):
        schedules.schedules_by_name([scheduled("0 9 * * *"), scheduled("0 10 * * *")])


def test_what_is_not_a_schedule_is_refused():
    with pytest.raises(InvalidRequest, match="a schedule of the host is a str, '0 9': give a Schedule"):
        schedules.schedules_by_name(["0 9"])  # type: ignore[list-item]


# Hosts


def ended(store, flow_id: str):
    """Wait until a flow has ended that may not have been begun yet, and give its result."""
    seen = 0
    while not store.run(kv.has(journal.DONE + flow_id)):
        seen = store.run(kv.wait(seen, journal.DONE + flow_id, 60))
    return store.run(flow.result(flow_id))


def seen_to(store, schedule: Schedule) -> None:
    """Wait until a host has seen a schedule for the first time."""
    store.run(kv.wait(0, journal.SCHEDULE + schedule.name, 60))


def test_a_host_begins_a_flow_when_its_time_has_come(store, clock):
    clock.now = at("2026-11-28T09:00") - 50_000
    schedule = scheduled("0 * * * *")
    with FlowHost(store, flows=[], schedules=[schedule]):
        seen_to(store, schedule)
        clock.now = at("2026-11-28T09:00")
        assert ended(store, "report/2026-11-28T09:00Z") == "all is well in the north"


def test_a_host_begins_what_was_missed_as_soon_as_it_is_there(store, clock):
    latest = Schedule("latest", "0 * * * *", report, ("north",))
    each = Schedule("each", "0 * * * *", report, ("south",), catch_up=True)
    with FlowHost(store, flows=[report], schedules=[latest, each]):
        seen_to(store, latest)
        seen_to(store, each)
    clock.now = at("2026-11-28T11:59")
    with FlowHost(store, flows=[report], schedules=[latest, each]):
        for flow_id in ("latest/2026-11-28T11:00Z", *(f"each/2026-11-28T{hour:02}:00Z" for hour in (9, 10, 11))):
            assert ended(store, flow_id).startswith("all is well")
    assert len(ids_in(store)) == 4


def test_of_two_hosts_with_one_schedule_each_time_begins_one_flow(store, clock):
    schedule = scheduled("0 * * * *", catch_up=True)
    with FlowHost(store, flows=[], schedules=[schedule]):
        seen_to(store, schedule)
    clock.now = at("2026-11-28T10:30")
    with FlowHost(store, flows=[], schedules=[schedule]), FlowHost(store, flows=[], schedules=[schedule]):
        assert ended(store, "report/2026-11-28T09:00Z") == ended(store, "report/2026-11-28T10:00Z")
    assert len(ids_in(store)) == 2


def test_flows_of_a_schedule_wait_for_their_turn_in_its_queue(store, clock):
    def watch():
        return (yield from flow.signal("go on"))

    schedule = Schedule("watch", "0 * * * *", watch, queue="one at a time", catch_up=True)
    options = {"flows": [watch], "schedules": [schedule], "queues": [Queue("one at a time", concurrency=1)]}
    with FlowHost(store, **options):
        seen_to(store, schedule)
    clock.now = at("2026-11-28T10:30")
    first, second = "watch/2026-11-28T09:00Z", "watch/2026-11-28T10:00Z"
    with FlowHost(store, **options) as host:
        seen = 0
        while [each.flow_id for each in host.list(state="waiting")] != [second]:
            seen = store.run(kv.wait(seen, journal.OPEN, 60))
        host.signal(first, "go on", 1)
        host.signal(second, "go on", 2)
        assert (ended(store, first), ended(store, second)) == (1, 2)


def test_a_schedule_of_a_queue_that_the_host_does_not_have_is_refused(store):
    with pytest.raises(InvalidRequest, match="queue 'slow' is not here"):
        FlowHost(store, flows=[], schedules=[scheduled("0 * * * *", queue="slow")])


def test_a_schedule_of_another_flow_of_that_name_is_refused(store):
    def another():
        yield

    with pytest.raises(InvalidRequest, match="two flows are called 'report', version 1"):
        FlowHost(store, flows=[flow.defined(name="report")(another)], schedules=[scheduled("0 * * * *")])


def test_a_flow_does_not_write_when_a_schedule_was_seen_to(store):
    def meddle():
        yield from kv.put("flow-schedule/report", 0)

    with FlowHost(store, flows=[meddle]) as host:
        host.start(meddle, "m-1")
        with pytest.raises(FlowFailed, match="writes what belongs to flows"):
            host.result("m-1", timeout=60)
