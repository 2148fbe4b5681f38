"""Every interleaving of programs: which bugs are found, what passes, and what no verdict may be given of."""

import itertools
from functools import partial

import pytest
from conftest import printed_under_hash_seeds

from interpreters import Store, open_store
from interpreters.explore import Sleep, explore
from interpreters.stores.memory import MemoryStore
from persist_effects import Conflict, InvalidRequest, Request, all_of, follow, kv, log, perform, transact
from persist_effects.requests import AllOf, Append, Draft, ExpectRevision, Failed, KvPut, ReadAll, Wait


def memory():
    return MemoryStore(clock=lambda: 0)


def ensure(holds, found):
    # No assertion, to which pytest would add words of its own.
    if not holds:
        raise AssertionError(found)


# Programs, and what must hold of them


def count_carelessly():
    number = yield from kv.get_or("counter", 0)
    yield from kv.put("counter", number + 1)


def count_carefully():
    return (yield from kv.update("counter", lambda number: number + 1, 0))


def all_counted(outcomes):
    number = yield from kv.get_or("counter", 0)
    ensure(number == len(outcomes), f"the counter is {number} after {len(outcomes)} programs")


def append_next():
    while True:
        last = yield from log.last_seq("numbers")
        event = yield from log.append_expect("numbers", last, "counted", last + 1)
        if not isinstance(event, Conflict):
            return event.seq


def all_appended(outcomes):
    numbers = [event.data for event in (yield from log.read("numbers"))]
    ensure(numbers == [*range(1, len(outcomes) + 1)], f"the numbers are {numbers}")
    seqs = sorted(outcome.value for outcome in outcomes)
    ensure(seqs == numbers, f"the programs have {seqs}")


def on_call():
    store = memory()
    Store(store).run(transact(KvPut("on call/ada", True), KvPut("on call/bob", True)))
    return store


def leave(name, other, *, is_checked):
    def go():
        there = yield from kv.entry(f"on call/{other}")
        mine = yield from kv.entry(f"on call/{name}")
        if not there.value:
            return "stays"
        checks = [ExpectRevision(f"on call/{other}", there.revision)] if is_checked else []
        answer = yield from transact(KvPut(f"on call/{name}", False, mine.revision), checks=checks)
        return "stays" if isinstance(answer, Conflict) else "leaves"

    return go


def leaving(*, is_checked):
    return {"ada": leave("ada", "bob", is_checked=is_checked), "bob": leave("bob", "ada", is_checked=is_checked)}


def somebody_is_on_call(outcomes):
    ada, bob = yield from all_of(kv.get("on call/ada"), kv.get("on call/bob"))
    ensure(ada or bob, "nobody is on call")


def published():
    store = memory()
    Store(store).run(log.append("numbers", "counted", 1))
    return store


def publish_one():
    # Started anew after a crash, it does nothing twice.
    yield from log.append_expect("numbers", 1, "counted", 2)


def copy(event):
    return [Append("copies", (Draft("copied", event.data),))]


def follow_in_one_step():
    yield from follow("copier", "numbers", copy)


def follow_in_two_steps():
    position = yield from kv.get_or("position", 0)
    page = yield from log.page_all(position, "numbers")
    for event in page.events:
        yield from transact(*copy(event))
        yield from transact(KvPut("position", event.position))


def copied_at_most_once(outcomes):
    copies = [event.data for event in (yield from log.read("copies"))]
    ensure(copies in ([], [1], [1, 2]), f"the copies are {copies}")


# What is found, and what passes


def test_the_lost_update_is_found_in_at_most_six_runs_and_shown_in_two_lines():
    made = []

    def counted_memory():
        made.append(None)
        return memory()

    report = explore({"first": count_carelessly, "second": count_carelessly}, counted_memory, all_counted)
    assert report.enumerated <= 6, "two programs of two requests each have six orders"
    assert len(made) < 40, "with those in which it is made shorter, shown, and compared with orders near to it"
    assert report.verdict == "failed"
    (failure,) = report.failures
    assert failure.kind == "check failed"
    assert failure.found == "AssertionError: the counter is 1 after 2 programs"
    assert failure.crash.split("\n") == [
        "first is held up before its #2 persist/kv-put counter 1",
        "meanwhile second does persist/kv-get counter, persist/kv-put counter 1",
    ]
    assert failure.trace == (
        "first   #1 persist/kv-get counter → None",
        "second  #1 persist/kv-get counter → None",
        "second  #2 persist/kv-put counter 1 → 1",
        "first   #2 persist/kv-put counter 1 → 2",
    )
    assert failure.token == "s1:0,1,1,0"
    assert failure.remedy is not None
    assert failure.remedy.startswith("let the write expect what was read: kv.update")
    assert 'explore(programs, store_factory, check, repro="s1:0,1,1,0")' in str(report)


def test_the_token_of_a_failure_shows_it_again_and_alone():
    programs = [count_carelessly] * 3
    found = explore(programs, memory, all_counted).failures[0]
    assert found.token == "s1:only 0,1:0,1,1,0"
    again = explore(programs, memory, all_counted, repro=found.token)
    assert again.failures == [found]
    assert (again.checked, again.failure_count) == (1, 1)
    assert explore(programs, memory, all_counted, repro="s1:0,0,1,1,2,2").verdict == "passed"


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize(("program", "check"), [(count_carefully, all_counted), (append_next, all_appended)])
def test_three_writers_that_read_again_after_a_conflict_lose_nothing(program, check, reduce):
    report = explore([program] * 3, memory, check, reduce=reduce)
    assert report.verdict == "passed"
    assert report.is_exhaustive
    assert report.checked == (108 if reduce else 498)


def test_a_conflict_over_a_revision_that_no_key_has_is_the_same_in_every_run():
    def delete_what_is_not_there():
        return (yield from kv.delete_expect("color", 7))

    report = explore([delete_what_is_not_there] * 2, memory, linearizable=True)
    assert report.verdict == "passed", report


def test_a_check_that_fails_in_every_order_is_shown_without_a_switch():
    def refuse(outcomes):
        yield from kv.get("a")
        raise ValueError("never right")

    failure = explore([count_carefully] * 2, memory, refuse).failures[0]
    assert failure.crash == "the programs run one after the other"
    assert failure.token == "s1:0,0,1,1"
    assert failure.remedy is None


def test_the_write_skew_of_two_transactions_is_found_and_checks_forbid_it():
    skewed = explore(leaving(is_checked=False), on_call, somebody_is_on_call)
    assert skewed.verdict == "failed"
    assert {failure.found for failure in skewed.failures} == {"AssertionError: nobody is on call"}
    assert explore(leaving(is_checked=True), on_call, somebody_is_on_call).verdict == "passed"


def test_a_follower_that_saves_its_position_afterwards_copies_twice_after_a_crash():
    programs = {"follower": follow_in_two_steps, "publisher": publish_one}
    assert explore(programs, published, copied_at_most_once).verdict == "passed"
    report = explore(programs, published, copied_at_most_once, crashes=True)
    assert report.verdict == "failed"
    failure = report.failures[0]
    assert failure.found == "AssertionError: the copies are [1, 1]"
    assert failure.crash == (
        "follower is gone before the answer to #3 persist/transact (persist/append copies 'copied' 1), "
        "but was carried out"
    )
    assert explore(programs, published, copied_at_most_once, crashes=True, repro=failure.token).failures == [failure]


def test_a_follower_that_saves_its_position_with_its_writes_survives_every_crash():
    programs = {"follower": follow_in_one_step, "publisher": publish_one}
    report = explore(programs, published, copied_at_most_once, crashes=True)
    assert report.verdict == "passed"
    assert report.is_exhaustive
    assert {cell.fault for cell in report.cells} == {"switch", "crash-before", "crash-during"}


def test_two_followers_of_one_name_copy_each_event_once():
    programs = {"one": follow_in_one_step, "two": follow_in_one_step}
    assert explore(programs, published, copied_at_most_once).verdict == "passed"


# Bounds and samples


def test_a_bound_on_the_switches_is_kept_and_said():
    reports = [explore([count_carelessly] * 2, memory, all_counted, bound=bound, reduce=False) for bound in (0, 1, 2)]
    assert [report.checked for report in reports] == [2, 4, 6]
    assert [report.failure_count for report in reports] == [0, 2, 4]
    assert [report.depth for report in reports] == [0, 1, 2]
    assert "exhaustive within the bound: at most 1 switch" in str(reports[1])
    assert all(report.is_exhaustive for report in reports)


def test_where_there_are_more_than_the_limit_others_are_drawn_by_the_seed():
    programs = [count_carelessly] * 4
    report = explore(programs, memory, all_counted, limit=20, seed=7)
    assert not report.is_exhaustive
    assert report.seed == 7
    assert report.checked + report.equal == 40
    assert report.bound.endswith("then any number of switches: 10 at random and 10 by priorities")
    assert str(report) == str(explore(programs, memory, all_counted, limit=20, seed=7))
    counts = {explore(programs, memory, all_counted, limit=20, seed=seed).failure_count for seed in range(8)}
    assert len(counts) > 1


def test_a_bug_beyond_the_bound_is_found_by_the_drawn_ones():
    report = explore([count_carelessly] * 2, memory, all_counted, bound=0, limit=20)
    assert report.verdict == "failed"
    assert not report.is_exhaustive
    assert report.failures[0].token == "s1:0,1,1,0"


def test_a_limit_that_is_not_reached_changes_nothing():
    whole = explore([count_carefully] * 2, memory, all_counted)
    assert explore([count_carefully] * 2, memory, all_counted, limit=1_000) == whole


@pytest.mark.parametrize("crashes", [False, True])
def test_drawn_interleavings_have_crashes_where_asked_for(crashes):
    report = explore([count_carefully] * 3, memory, all_counted, limit=30, crashes=crashes, bound=1)
    assert report.verdict == ("failed" if crashes else "passed")


# Verdicts of their own


class Roll(Request[int], frozen=True, tag="game/roll"):
    """Answered by a die that remembers."""


def raise_always():
    yield from kv.get("a")
    raise ValueError("as always")


def raise_if_late():
    if (yield from kv.get("counter")):
        raise ValueError("too late")


def wait_for_ever():
    return (yield from perform(Wait(0, "never", float("inf"))))


def ask_for_ever():
    while True:
        yield from kv.get("a")


def test_a_program_that_raises_in_every_order_is_told_as_such():
    report = explore([raise_always, count_carefully], memory)
    assert report.verdict == "raises"
    assert report.failures[0].found == "raise_always raises ValueError: as always"
    assert report.failures[0].token == "s1:only 0:0"


def test_a_program_that_raises_in_some_orders_is_a_failure():
    report = explore([raise_if_late, count_carefully], memory)
    assert report.verdict == "failed"
    assert [failure.kind for failure in report.failures] == ["raises in some orders"]


def test_with_a_check_errors_are_outcomes():
    seen = set()

    def judge(outcomes):
        seen.add(tuple(isinstance(outcome, Failed) for outcome in outcomes))
        yield from kv.get("counter")

    assert explore([raise_if_late, count_carefully], memory, judge).verdict == "passed"
    assert seen == {(True, False), (False, False)}


def test_programs_that_wait_for_each_other_for_ever_are_a_deadlock():
    def wait_first(mine, other):
        def go():
            yield from perform(Wait(0, other, float("inf")))
            yield from log.append(mine, "made", 1)

        return go

    report = explore([wait_first("a", "b"), wait_first("b", "a")], memory)
    assert report.verdict == "failed"
    assert {failure.kind for failure in report.failures} == {"deadlock"}
    assert report.failures[0].found.startswith("they wait for ever: go for Wait(after=0, prefix='b'")


def test_what_hangs_is_told_and_nothing_else_is_explored():
    report = explore([ask_for_ever, count_carefully], memory, requests_limit=50)
    assert report.verdict == "polls without end"
    assert not report.is_exhaustive
    assert report.failures[0].found == "ask_for_ever asks persist/kv-get a again and again"


def test_programs_that_are_not_deterministic_are_told():
    numbers = itertools.count()

    def put_any():
        yield from kv.put("a", next(numbers))

    report = explore([put_any, count_carefully], memory)
    assert report.verdict == "not deterministic"
    assert report.failures[0].found == (
        "put_any, at its request #1: it asked KvPut(key='a', value=0, expected=None) the first time, "
        "and asked KvPut(key='a', value=2, expected=None) now"
    )
    assert "share state only through the store" in report.failures[0].remedy


def test_a_difference_that_shows_later_is_found_while_exploring():
    numbers = itertools.count()

    def put_any():
        yield from kv.get("a")
        number = next(numbers)
        yield from kv.put("a", number if number > 10 else 0)

    report = explore([put_any, put_any], memory)
    assert report.verdict == "not deterministic"
    assert not report.is_exhaustive
    assert report.failures[0].expected == "a program asks the same where everything before was the same"


def test_a_program_that_asks_more_in_a_second_run_is_told():
    numbers = itertools.count()

    def ask_more_and_more():
        for _ in range(next(numbers)):
            yield from kv.get("a")

    report = explore([ask_more_and_more], memory)
    assert report.failures[0].found == (
        "ask_more_and_more, at its request #1: it asked nothing more the first time, and asked KvGet(key='a') now"
    )


def test_an_object_that_programs_share_is_told_though_each_run_begins_with_a_new_one():
    # The reduction takes both orders for equal, as far as the store goes.
    done = []

    def store():
        done.clear()
        return memory()

    def left():
        yield from kv.get("left")
        done.append("left")
        yield from kv.put("left", 1)

    def right():
        yield from kv.get("right")
        yield from kv.put("right", len(done))

    report = explore([left, right], store)
    assert (report.verdict, report.is_exhaustive) == ("not deterministic", False)
    assert report.failures[0].found == (
        "right, at its request #2: it asked KvPut(key='right', value=1, expected=None) after the same answers in "
        "another order, and asked KvPut(key='right', value=0, expected=None) now"
    )
    assert "share state only through the store" in report.failures[0].remedy


def test_a_mark_that_one_run_leaves_for_the_next_is_told():
    seen = set()

    def leave_a_mark():
        yield from kv.put("a", 1)
        seen.add("a")

    def look_for_it():
        yield from kv.put("b", 1)
        if seen:
            yield from kv.put("c", 1)

    report = explore([leave_a_mark, look_for_it], memory)
    assert report.verdict == "not deterministic"
    assert "look_for_it, at its request #2: it asked nothing more the first time" in report.failures[0].found


def test_what_comes_up_only_after_many_runs_is_told_in_the_end():
    runs = itertools.count()

    def grow_tired():
        value = yield from kv.get("a")
        if next(runs) >= 6 and value == 1:
            yield from kv.put("b", 1)

    def put():
        yield from kv.put("a", 1)

    report = explore([grow_tired, put], memory, reduce=False)
    assert report.verdict == "not deterministic"


def test_programs_that_end_otherwise_after_the_same_answers_are_told():
    runs = itertools.count(1)

    def count_runs():
        yield from kv.get("a")
        return next(runs)

    report = explore([count_runs], memory)
    assert report.failures[0].found == "count_runs returned 1 the first time, and now it returned 2"

    def raise_another():
        yield from kv.get("a")
        raise LookupError(next(runs))

    report = explore([raise_another], memory)
    assert "raise_another raised LookupError: 4 the first time" in report.failures[0].found


def test_what_tells_no_more_than_its_address_is_the_same_in_each_run():
    def make_an_object():
        yield from kv.put("a", 1)
        return object()

    def raise_an_object():
        yield from kv.put("b", 1)
        raise LookupError(object())

    report = explore([make_an_object, raise_an_object], memory, nothing_to_check)
    assert report.verdict == "passed"


def nothing_to_check(outcomes):
    yield from kv.get("a")


def test_times_and_numbers_of_the_stores_own_choice_are_no_difference():
    def append_and_put():
        event = yield from log.append("s", "made", 1)
        revision = yield from kv.put("a", 1)
        return event, revision

    def update():
        return (yield from kv.update("b", lambda n: n + 1, 0))

    report = explore([append_and_put, update], lambda: open_store("memory:"))
    assert (report.verdict, report.is_exhaustive) == ("passed", True)


def test_stores_that_are_not_fresh_are_told_by_their_answers():
    numbers = itertools.count()

    def filled():
        store = memory()
        Store(store).run(kv.put("a", next(numbers)))
        return store

    report = explore([count_carefully, lambda: kv.get("a")], filled)
    assert report.verdict == "not deterministic"
    assert "at its request #1 persist/kv-get a: → 2, revision 1 the first time, and now → " in report.failures[0].found
    assert "store_factory" in report.failures[0].remedy


def test_a_failure_that_is_not_there_when_it_is_run_again_is_told_as_such():
    judged = itertools.count()

    def check_by_chance(outcomes):
        ensure(next(judged) != 5, "by chance")
        yield from kv.get("a")

    report = explore([count_carefully, count_carefully], memory, check_by_chance, reduce=False)
    assert report.verdict == "not deterministic"
    assert report.failures[0].found == (
        "check failed, AssertionError: by chance, the first time; and now: nothing is wrong"
    )


def test_a_token_is_run_twice_and_a_difference_told():
    numbers = itertools.count()

    def put_any():
        yield from kv.put("a", next(numbers))

    report = explore([put_any], memory, repro="s1:0")
    assert report.verdict == "not deterministic"


def test_a_check_that_waits_for_ever_fails():
    def wait(outcomes):
        yield from wait_for_ever()

    report = explore([count_carefully], memory, wait)
    assert report.failures[0].found.startswith("TimeoutError: it waits for ever, for Wait(after=0, prefix='never'")


def test_what_hangs_only_in_drawn_interleavings_is_told():
    def ask_until_counted():
        while not (yield from kv.get("counter")):
            yield from kv.get("a")

    report = explore([count_carefully, ask_until_counted], memory, bound=0, limit=10, requests_limit=60)
    assert report.failures[0].kind == "polls without end in some orders"


def test_the_parts_of_nothing_are_nothing():
    def ask_for_nothing():
        return (yield from perform(AllOf(())))

    def give_back(outcomes):
        ensure(outcomes[0].value == [], f"{outcomes}")
        yield from kv.get("a")

    assert explore([ask_for_nothing], memory, give_back).verdict == "passed"


def test_a_program_that_raises_at_once_or_asks_nothing_has_its_turn_in_no_order():
    def raise_at_once():
        raise ValueError("at once")
        yield

    def ask_nothing():
        return 7
        yield

    assert explore([raise_at_once, count_carefully], memory).failures[0].token == "s1:only 0:"
    assert explore([ask_nothing, count_carefully], memory, all_of_them_ended).checked == 1


def all_of_them_ended(outcomes):
    ensure(not any(isinstance(outcome, Failed) for outcome in outcomes), f"{outcomes}")
    yield from kv.get("a")


# Time and several requests at once


def test_a_wait_ends_with_the_event_or_when_nothing_else_can_happen():
    def wait_a_while():
        return (yield from perform(Wait(0, "numbers", 60.0)))

    def publish_late():
        yield from perform(Sleep(30))
        yield from log.append("numbers", "counted", 1)

    def publish_too_late():
        yield from perform(Sleep(90))
        yield from log.append("numbers", "counted", 1)

    seen = set()

    def collect(outcomes):
        seen.add(outcomes[0].value)
        yield from kv.get("a")

    explore([wait_a_while, publish_late], memory, collect)
    assert seen == {1}
    seen.clear()
    explore([wait_a_while, publish_too_late], memory, collect)
    assert seen == {0}


def test_others_may_come_between_the_parts_of_all_of():
    def put_both():
        yield from all_of(kv.put("a", 1), kv.put("b", 1))

    def look():
        return (yield from kv.get("a")), (yield from kv.get("b"))

    seen = set()

    def collect(outcomes):
        seen.add(outcomes[1].value)
        yield from kv.get("a")

    explore([put_both, look], memory, collect)
    assert seen == {(None, None), (1, None), (None, 1), (1, 1)}


def test_an_error_of_the_store_reaches_the_program_that_asked():
    def ask_what_nobody_answers():
        try:
            yield from perform(Roll())
        except InvalidRequest:
            raise
        except Exception as error:
            return type(error).__name__

    def give_back(outcomes):
        ensure(outcomes[0].value == "UnhandledEffect", f"{outcomes}")
        yield from kv.get("a")

    assert explore([ask_what_nobody_answers, count_carefully], memory, give_back).verdict == "passed"


def test_a_programs_own_effects_and_blobs_are_answered_by_a_whole_store():
    def roll():
        return (yield from perform(Roll()))

    report = explore([roll, roll], lambda: open_store("memory:", effects={Roll: lambda request: 4}), all_of_them_ended)
    assert (report.verdict, report.checked) == ("passed", 2)


def test_the_report_shows_where_switches_hurt():
    report = explore({"first": count_carelessly, "second": count_carelessly}, memory, all_counted, reduce=False)
    assert [(cell.request, cell.fault, cell.states, cell.failures) for cell in report.cells] == [
        ("first #2 persist/kv-put counter", "switch", 3, 3),
        ("second #2 persist/kv-put counter", "switch", 3, 3),
    ]
    assert report.failure_count == 4
    assert "interleavings checked with a switch, or a crash, at each request" in str(report)
    assert "3 interleavings, 3 failures" in report.to_html()


# The same everywhere

_SCRIPT = """
from test_schedule import *
print(explore([count_carelessly] * 3, memory, all_counted))
print(explore([count_carelessly] * 4, memory, all_counted, limit=50, seed=3))
programs = {"follower": follow_in_two_steps, "publisher": publish_one}
print(explore(programs, published, copied_at_most_once, crashes=True))
"""


@pytest.mark.exploration
def test_the_report_is_the_same_under_another_hash_seed():
    one, other = printed_under_hash_seeds(_SCRIPT, 0, 12345)
    assert one == other
    assert "the copies are" in one


def test_a_file_store_gives_the_same_report_as_the_memory_store(tmp_path):
    numbers = itertools.count()

    def file_store():
        return open_store(f"file:{tmp_path / str(next(numbers))}")

    on_files = explore([count_carelessly] * 2, file_store, all_counted)
    assert str(on_files) == str(explore([count_carelessly] * 2, memory, all_counted))


def test_every_store_is_closed_and_every_program_given_up():
    opened, closed, left = [], [], []

    class Noted(MemoryStore):
        def close(self):
            closed.append(self)
            super().close()

    def noted():
        opened.append(Noted(clock=lambda: 0))
        return opened[-1]

    def wait():
        try:
            yield from wait_for_ever()
        finally:
            left.append(1)

    explore([wait, count_carefully], noted, crashes=True, limit=5)
    assert len(closed) == len(opened)
    assert len(left) >= 5


def test_a_forgotten_from_is_told_as_anywhere_else():
    def forgetful():
        yield kv.put("a", 1)

    report = explore([forgetful], MemoryStore)
    assert report.verdict == "raises"
    assert "NotARequest: a program yielded the program 'put'" in report.failures[0].found


# Bad input


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"programs": [count_carelessly()]}, "is the generator 'count_carelessly': give the function"),
        ({"programs": []}, "there are no programs"),
        ({"programs": {}}, "there are no programs"),
        ({"programs": {7: count_carelessly}}, "a program's name is an int, 7: give a str"),
        ({"programs": 7}, "program is an int, 7: give a function that makes a program"),
        ({"programs": [kv.get]}, "program 'get' takes arguments"),
        ({"programs": [partial(next, itertools.repeat(count_carelessly()))]}, "gives the same generator twice"),
        ({"store_factory": memory()}, "give a function that makes a fresh store"),
        ({"store_factory": open_store("memory:")}, "give a function that makes a fresh store"),
        ({"store_factory": partial(next, itertools.repeat(memory()))}, "gave the same MemoryStore twice"),
        ({"check": 7}, "check is an int, 7: give a generator function of the programs' outcomes"),
        ({"check": count_carelessly}, "takes other arguments than the outcomes"),
        ({"bound": -1}, "bound is -1"),
        ({"limit": 0}, "limit is 0"),
        ({"seed": "x"}, "seed is a str, 'x'"),
        ({"requests_limit": 0}, "requests_limit is 0"),
        ({"reduce": 1}, "reduce is an int, 1: give a bool"),
        ({"crashes": None}, "crashes is None: give a bool"),
        ({"repro": 7}, "the token 7 cannot be run: it is not a token of an interleaving"),
        ({"repro": "s2:0,1"}, "it is not a token"),
        ({"repro": "s1:0,,1"}, "it is not a token"),
        ({"repro": "s1:0x"}, "it is not a token"),
        ({"repro": "s1:" + "9" * 5000}, "it is not a token"),
        ({"repro": f"s1:only {'9' * 5000}:0"}, "it is not a token"),
        ({"repro": "s1:0,2"}, "it is the turn of program 2, and there are programs 0 to 1"),
        ({"repro": "s1:only 0:1"}, "it is the turn of program 1, and there are programs 0 to 0"),
        ({"repro": "s1:only 1,0:0"}, "do not stand in order, each once"),
        ({"repro": "s1:only 0,5:0"}, "it names program 5, and there are programs 0 to 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_bad_input_is_refused_before_anything_runs(arguments, why):
    def must_not_run():
        raise AssertionError("it ran")
        yield

    given = {"programs": [must_not_run, must_not_run], "store_factory": memory, **arguments}
    with pytest.raises(InvalidRequest) as refused:
        explore(given.pop("programs"), given.pop("store_factory"), given.pop("check", None), **given)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("s1:0,0,0", "at turn 3, count_carelessly has ended"),
        ("s1:0,0,1,1,1", "all programs have come to their ends after 4 turns"),
    ],
)
def test_a_token_that_fits_no_interleaving_is_refused(token, why):
    with pytest.raises(InvalidRequest) as refused:
        explore([count_carelessly] * 2, memory, repro=token)
    assert why in str(refused.value)


def test_a_token_of_a_program_that_waits_is_refused():
    with pytest.raises(InvalidRequest, match="at turn 1, wait_for_ever waits for Wait"):
        explore([wait_for_ever, publish_one], memory, repro="s1:0,1")


def test_reading_the_order_of_all_streams_is_noticed_in_the_check_too():
    def append_to(stream):
        return lambda: log.append(stream, "made", 1)

    seen = set()

    def look(outcomes):
        page = yield from perform(ReadAll())
        seen.add(tuple(event.stream for event in page.events))

    assert explore([append_to("a"), append_to("b")], memory, look).checked == 2
    assert seen == {("a", "b"), ("b", "a")}


# Checks that never end, and mistakes that are no outcomes


def test_a_check_that_never_ends_is_a_failure():
    def look_for_ever(outcomes):
        while True:
            yield from kv.get("counter")

    report = explore([count_carefully], memory, look_for_ever, requests_limit=50)
    assert report.verdict == "failed"
    assert "asked more than its limit" in report.failures[0].found


def test_a_mistake_in_a_program_is_a_failure_whatever_the_check_says():
    def mistaken():
        yield from log.apend("numbers", "counted", 1)

    def anything(outcomes):
        yield from kv.get("counter")

    report = explore([mistaken, count_carefully], memory, anything)
    assert report.verdict != "passed"
    assert "AttributeError" in report.failures[0].found
