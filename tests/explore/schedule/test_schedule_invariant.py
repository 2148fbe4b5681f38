"""An invariant is checked after each request, and in every order that it could tell from another."""

import pytest

from interpreters.explore import explore
from interpreters.stores.memory import MemoryStore
from persist_effects import InvalidRequest, kv, log, transact
from persist_effects.requests import KvPut


def memory():
    return MemoryStore(clock=lambda: 0)


def move_money():
    a = yield from kv.get_or("a", 10)
    yield from kv.put("a", a - 5)
    yield from kv.put("b", 5)


def move_money_at_once():
    a = yield from kv.get_or("a", 10)
    yield from transact(KvPut("a", a - 5), KvPut("b", 5))


def ten_in_all():
    if (yield from kv.get_or("a", 10)) + (yield from kv.get_or("b", 0)) != 10:
        raise ValueError("money is lost")


def test_what_is_wrong_only_in_between_is_found_and_the_step_is_named():
    report = explore({"move": move_money}, memory, invariant=ten_in_all)
    [failure] = report.failures
    assert (failure.kind, failure.found) == ("invariant broken", "ValueError: money is lost")
    assert failure.expected == "invariant() passes after move #2 persist/kv-put a 5"
    assert failure.token == "s1:0,0"
    assert report.verdict == "failed"


def test_without_it_the_same_passes():
    assert explore({"move": move_money}, memory).verdict == "passed"


def test_what_is_written_at_once_passes():
    assert explore({"move": move_money_at_once}, memory, invariant=ten_in_all).verdict == "passed"


def test_its_token_shows_it_again():
    report = explore({"move": move_money}, memory, invariant=ten_in_all)
    assert str(report).endswith('explore(programs, store_factory, check, invariant=invariant, repro="s1:0,0")')
    token = report.failures[0].token
    [failure] = explore({"move": move_money}, memory, invariant=ten_in_all, repro=token).failures
    assert failure.kind == "invariant broken"


def put(key):
    return lambda: kv.put(key, 1)


def no_second_without_first():
    if (yield from kv.has("second")):
        assert (yield from kv.has("first")), "the second is there, and the first is not"


def test_of_two_writes_that_end_the_same_in_both_orders_the_one_that_is_broken_is_gone_through():
    programs = {"first": put("first"), "second": put("second")}
    # To whoever looks at the end alone, the two orders are one.
    assert explore(programs, memory).checked == 1
    report = explore(programs, memory, invariant=no_second_without_first)
    assert (report.checked, report.failure_count) == (2, 1)
    [comes_first, *_] = report.failures[0].passes
    assert comes_first == "first #1 persist/kv-put first 1 comes before second #1 persist/kv-put second 1"


@pytest.mark.parametrize("options", [{"bound": 2}, {"crashes": True}, {"reduce": False}, {"linearizable": True}])
def test_it_is_found_whichever_way_orders_are_gone_through(options):
    programs = {"first": put("first"), "second": put("second"), "third": put("third")}
    report = explore(programs, memory, invariant=no_second_without_first, **options)
    assert report.failures[0].kind == "invariant broken"


def test_it_is_found_in_drawn_orders():
    def write_many():
        for number in range(6):
            yield from kv.put(f"key {number}", 1)

    def five_then_six():
        if (yield from kv.has("z")):
            assert (yield from kv.has("key 5")), "too early"

    report = explore([write_many, write_many, put("z")], memory, invariant=five_then_six, limit=3)
    assert report.failures[0].kind == "invariant broken"


def test_every_order_of_writes_is_gone_through_as_without_reduction():
    def two(name):
        def go():
            yield from log.append(name, "made", 1)
            yield from kv.put(name, 1)

        return go

    def holds():
        yield from kv.get_or("a", 0)

    programs = [two("a"), two("b"), two("c")]
    reduced = explore(programs, memory, invariant=holds)
    assert reduced.verdict == "passed"
    assert reduced.checked == explore(programs, memory, reduce=False).checked == 90


def test_reads_still_cost_nothing():
    def read():
        yield from kv.get_or("a", 0)
        yield from kv.get_or("b", 0)

    def holds():
        yield from kv.get_or("a", 0)

    assert explore([read, read, put("c")], memory, invariant=holds).checked == 1


def test_every_state_in_between_is_seen():
    seen = set()

    def write(stream):
        def go():
            yield from log.append(stream, "made", 1)
            yield from log.append(stream, "made", 2)

        return go

    def look():
        seen.add(((yield from log.last_seq("a")), (yield from log.last_seq("b"))))

    explore([write("a"), write("b")], memory, invariant=look)
    assert seen == {(a, b) for a in range(3) for b in range(3)}


def test_one_that_does_not_hold_before_the_first_request_is_told_alone():
    report = explore([put("first"), put("second")], memory, invariant=ten_in_all_of_nothing)
    assert report.failures[0].expected == "invariant() passes before the first request"
    assert (report.checked, report.is_exhaustive) == (1, False)


def ten_in_all_of_nothing():
    assert (yield from kv.has("first"))


def test_one_that_writes_is_refused():
    def writes():
        yield from kv.put("seen", 1)

    with pytest.raises(InvalidRequest, match=r"invariant asks persist/kv-put seen: let it only read"):
        explore(put("first"), memory, invariant=writes)


@pytest.mark.parametrize("wrong", [7, put, lambda outcomes: kv.get("a"), kv.get])
def test_what_is_no_invariant_is_refused(wrong):
    with pytest.raises(InvalidRequest, match=r"invariant"):
        explore(put("first"), memory, invariant=wrong)


def test_the_report_is_short():
    programs = {"first": move_money, "second": move_money, "third": move_money}
    report = explore(programs, memory, invariant=ten_in_all)
    assert len(report.failures) == 1
    assert len(str(report).splitlines()) < 40
