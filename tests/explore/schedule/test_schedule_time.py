"""Time in explorations and simulations: virtual, the same in each run, and as the user says where the user answers."""

import itertools
import uuid

import pytest
from conftest import printed_under_hash_seeds

from interpreters import Store, open_store
from interpreters.explore import Sleep, explore, explore_crashes, explore_effects, simulate
from persist_effects import Request, all_of, kv, log, new_id, now, perform, requests, sleep
from persist_effects.requests import Answered, NewId, Now

DAY_SECONDS = 86_400
MICROS = 1_000_000


def memory():
    return open_store("memory:")


def stamp():
    """Put when this began and ended, under a fresh name."""
    began = yield from now()
    name = yield from new_id()
    yield from sleep(30 * DAY_SECONDS)
    ended = yield from now()
    yield from kv.put(name, [began, ended])
    return name, ended - began


def every_stamp_is_whole(outcomes):
    names = [outcome.value[0] for outcome in outcomes]
    assert len(set(names)) == len(names), f"two have the same name: {names}"
    assert {outcome.value[1] for outcome in outcomes} == {30 * DAY_SECONDS * MICROS}
    assert (yield from kv.keys()) == sorted(names)


def test_the_sleep_of_explorers_is_that_of_programs():
    assert Sleep is requests.Sleep


def test_a_month_of_sleep_takes_no_time_and_each_has_a_name_of_its_own():
    report = explore({"one": stamp, "two": stamp}, memory, every_stamp_is_whole)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report


def test_an_exploration_is_the_same_whatever_the_clock_of_the_store_says():
    ticks = itertools.count(1)
    seen = set()

    def collect(outcomes):
        seen.add(tuple(outcome.value for outcome in outcomes))
        yield from kv.has("a")

    report = explore([stamp, stamp], lambda: open_store("memory:", clock=lambda: next(ticks)), collect)
    assert report.verdict == "passed"
    assert len(seen) == 1


@pytest.mark.exploration
def test_one_seed_gives_one_trace_with_times_and_names_in_another_process_too():
    script = (
        "from test_schedule_time import *\n"
        "print(simulate([stamp, stamp], open_store('memory:', clock=lambda: 0), seed=5).digest)"
    )
    found = printed_under_hash_seeds(f"import sys; sys.path.insert(0, 'tests/explore/schedule')\n{script}", 0, 1)
    assert len(set(found)) == 1


def test_identifiers_look_as_they_do_elsewhere_and_differ_by_who_asks_and_how_often():
    def three():
        return (yield from all_of(new_id(), new_id(), new_id()))

    done = simulate([three, three], memory(), seed=1)
    found = [name for outcome in done.outcomes for name in outcome.value]
    assert len(set(found)) == 6
    assert {uuid.UUID(name).version for name in found} == {7}


def test_a_program_that_starts_anew_after_a_crash_has_other_names():
    def twice():
        yield from log.append("names", "made", (yield from new_id()))
        yield from kv.put("done", True)

    def all_differ(outcomes):
        names = [event.data for event in (yield from log.read("names"))]
        assert len(set(names)) == len(names), names

    report = explore([twice], memory, all_differ, crashes=True)
    assert report.verdict == "passed", report
    assert report.checked > 1


def test_the_check_has_names_that_no_program_had():
    def one():
        return (yield from new_id())

    def differs(outcomes):
        assert (yield from new_id()) not in [outcome.value for outcome in outcomes]

    assert explore([one], memory, differs).verdict == "passed"


def test_the_check_is_told_the_time_that_it_has_become():
    def napping():
        began = yield from now()
        yield from sleep(10)
        return began

    def ten_seconds_later(outcomes):
        assert (yield from now()) == outcomes[0].value + 10 * MICROS

    assert explore([napping], memory, ten_seconds_later).verdict == "passed"


def test_asking_for_the_time_adds_no_order_to_those_that_are_checked():
    def put(key):
        return lambda: kv.put(key, 1)

    def put_and_ask(key):
        def program():
            yield from now()
            yield from new_id()
            yield from kv.put(key, 1)

        return program

    without, asking = (explore([kind("a"), kind("b")], memory) for kind in (put, put_and_ask))
    assert asking.checked == without.checked == 1


def test_who_sleeps_wakes_once_no_other_can_go_on():
    order = []

    def late():
        yield from sleep(0.001)
        order.append("late")

    def busy():
        for number in range(5):
            yield from kv.put("a", number)
        order.append("busy")

    simulate([late, busy], memory(), seed=3)
    assert order == ["busy", "late"]


def test_sleeps_that_are_performed_at_once_pass_at_once():
    def together():
        yield from all_of(sleep(5), log.wait(0, timeout=3), sleep(4))

    assert simulate([together], memory(), seed=0).seconds == 5


class Tick(Request[None], frozen=True, tag="time/tick"):
    """Time passes."""


def ticking():
    """A store whose time passes when a program says so, at any moment."""
    moment = [0]

    def tick(request):
        moment[0] += 1

    return open_store("memory:", effects={Now: lambda request: moment[0], Tick: tick})


@pytest.mark.parametrize("reduce", [True, False])
def test_where_the_user_answers_for_time_it_may_pass_at_any_moment(reduce):
    seen = set()

    def look():
        return (yield from now()), (yield from now())

    def tick():
        yield from perform(Tick())

    def collect(outcomes):
        seen.add(outcomes[0].value)
        yield from kv.has("a")

    explore([look, tick], ticking, collect, reduce=reduce)
    assert seen == {(0, 0), (0, 1), (1, 1)}


def test_a_users_own_row_for_sleeping_is_asked():
    slept = []
    rows = {requests.Sleep: lambda request: slept.append(request.seconds), NewId: lambda request: "mine"}

    def nap():
        yield from sleep(7)
        return (yield from new_id())

    done = simulate([nap], open_store("memory:", effects=rows), seed=0)
    assert (done.outcomes, slept, done.seconds) == ((Answered("mine"),), [7], 0)


def test_the_answers_of_a_store_are_judged_without_those_of_time():
    report = explore([stamp, stamp], memory, linearizable=True, limit=50)
    assert report.verdict == "passed", report


def test_an_interpreter_without_a_store_around_it_has_virtual_time_too():
    done = simulate([stamp], Store(memory().interpreter).interpreter, seed=0)
    assert done.outcomes[0].value[1] == 30 * DAY_SECONDS * MICROS


# The other explorers


def stamped_or_not(acked, maybe):
    """Every stamp is whole; and virtual time goes on from where it was."""
    moment = yield from now()
    for name, entry in (yield from kv.entries()):
        began, ended = entry.value
        assert uuid.UUID(name).version == 7
        assert ended - began == 30 * DAY_SECONDS * MICROS
        assert ended <= moment


def stamped():
    yield from stamp()
    yield from stamp()


@pytest.mark.exploration
def test_programs_that_ask_for_time_run_on_a_disk_that_crashes():
    report = explore_crashes(stamped, stamped_or_not)
    assert report.verdict == "passed", report


def test_programs_that_ask_for_time_meet_every_fault_of_an_effect():
    report = explore_effects(stamped, memory, stamped_or_not)
    assert report.verdict == "passed", report


def test_a_sleep_meets_crashes_and_no_outage():
    asked = {}
    report = explore_effects(stamped, memory, stamped_or_not, depth=1)
    for cell in report.cells:
        asked.setdefault(cell.request.split()[1], set()).add(cell.fault)
    assert "unavailable-once" in asked["persist/now"]
    assert not {fault for fault in asked["persist/sleep"] if not fault.startswith("crash")}


def sleep_without_end():
    try:
        yield from sleep(float("inf"))
    finally:
        yield from kv.put("cleaned", True)


def test_a_sleep_without_end_is_a_deadlock_in_an_exploration():
    report = explore([sleep_without_end], memory)
    assert (report.verdict, report.failures[0].kind) == ("failed", "deadlock")


def test_a_sleep_without_end_ends_as_with_its_store_where_faults_are_put():
    report = explore_effects(sleep_without_end, memory, stamped_or_not)
    assert "StoreClosed" in report.failures[0].found
