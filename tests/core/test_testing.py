"""What `persist_effects.testing` gives to those who test programs, folds and deciders."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st
from places import EXAMPLES

from interpreters import open_store
from persist_effects import (
    Conflict,
    Draft,
    InvalidRequest,
    NotAProgram,
    StoreClosed,
    UncertainOutcome,
    clock,
    kv,
    log,
    projection,
)
from persist_effects.machine import outcome_of
from persist_effects.requests import Append, Entry, KvGet, KvHas, KvPut, LastSeq, Read
from persist_effects.testing import _Log, given, perform_sequence

sys.path.insert(0, str(EXAMPLES))

import order_ledger


def visit(key: str) -> Iterator[Any]:
    if (yield from kv.has(key)):
        try:
            yield from kv.put(key, [1])
        except UncertainOutcome:
            return "in doubt"
    return "done"


def test_a_sequence_answers_a_program_and_returns_its_value():
    steps = [(KvHas("a"), True), (KvPut("a", [1]), 7)]
    assert perform_sequence(steps, visit("a")) == "done"
    assert perform_sequence(iter(steps), lambda: visit("a")) == "done"
    assert perform_sequence([(KvHas("a"), False)], visit("a")) == "done"


def test_an_answer_that_is_an_exception_is_thrown_in():
    assert perform_sequence([(KvHas("a"), True), (KvPut("a", [1]), UncertainOutcome("lost"))], visit("a")) == "in doubt"
    with pytest.raises(KeyError):
        perform_sequence([(KvHas("a"), KeyError("a"))], visit("a"))


@pytest.mark.parametrize(
    ("steps", "index", "expected", "actual"),
    [
        ([(KvHas("b"), True)], 0, "KvHas(key='b')", "KvHas(key='a')"),
        ([(KvGet("a"), True)], 0, "KvGet(key='a')", "KvHas(key='a')"),
        ([(KvHas("a"), True), (KvPut("a", [2]), 1)], 1, "value=[2]", "value=[1]"),
        ([(KvHas("a"), True)], 1, "no more requests", "KvPut(key='a'"),
        ([], 0, "no more requests", "KvHas(key='a')"),
        ([(KvHas("a"), False), (KvHas("a"), False)], 1, "KvHas(key='a')", "the program returned 'done'"),
    ],
)
def test_a_sequence_that_is_another_is_told_with_its_index_and_line(steps, index, expected, actual):
    with pytest.raises(AssertionError) as found:
        perform_sequence(steps, visit("a"))
    first, told_expected, told_actual, source = str(found.value).splitlines()
    assert first == f"request {index} is another than expected"
    assert expected in told_expected
    assert actual in told_actual
    assert "test_testing.py:" in source or source == "  source:   none"


def test_a_sequence_is_for_a_program():
    with pytest.raises(NotAProgram):
        perform_sequence([], 7)  # type: ignore[arg-type]


# Folds and deciders


def add(balance: int, event: Any) -> int:
    return balance + event.data


def test_events_are_folded_as_a_projection_folds_them():
    past: list[Any] = [("deposited", 5), Draft("deposited", 7, meta={"by": "Ada"})]
    given(past).fold(add, 0).then(12)
    given().fold(add, 3).then(3)
    seen = given([("deposited", 5), ("deposited", 7)], stream="account/1", at=9).fold(
        lambda all_, one: [*all_, one], []
    )
    events = open_store("memory:", clock=lambda: 9)
    events.run(log.append_many("account/1", [Draft("deposited", 5), Draft("deposited", 7)]))
    seen.then(events.run(log.read("account/1")))
    with pytest.raises(AssertionError, match="expected: 13\n  actual:   12"):
        given(past).fold(add, 0).then(13)


def test_the_example_decides_by_its_events():
    placed = order_ledger.Placed("o-1", "mug", 1, 1200)
    ledger = given([order_ledger.SCHEMA.draft(placed)]).fold(
        order_ledger.SCHEMA.typed(order_ledger.step), order_ledger.Ledger()
    )
    ledger.then(order_ledger.Ledger({"o-1": placed}))
    ledger.when(lambda state: state.sold("mug")).then([1, 1200])
    ledger.when(lambda state: state.orders["o-2"]).then_raises(KeyError, "o-2")


def test_the_examples_programs_append_what_they_decide():
    draft = order_ledger.SCHEMA.draft
    first, declined = order_ledger.Placed("o-1", "mug", 1, 1200), order_ledger.Declined("o-2")
    no_snapshot = {KvGet: lambda request: None}
    ledger = given([draft(first)], stream=order_ledger.LEDGER)
    ledger.when(lambda: order_ledger.place("o-2", "mug", 1), no_snapshot).then_appended([draft(declined)])
    ledger.when(lambda: order_ledger.place("o-1", "mug", 1), no_snapshot).then_appended([])
    given(stream=order_ledger.LEDGER).when(order_ledger.place("o-1", "mug", 1), no_snapshot).then_appended(
        [draft(first)]
    )


# Programs


def pay(order: str, amount: int) -> Iterator[Any]:
    state = yield from projection.project(order, add, 0)
    if amount > state.value:
        raise ValueError(f"only {state.value} are left")
    return (yield from log.append_expect(order, state.seq, "paid", -amount))


def test_programs_append_to_the_past_that_was_given_and_each_begins_there():
    account = given([("deposited", 5)], stream="account/1")
    for _ in range(2):
        paid = account.when(lambda: pay("account/1", 3))
        paid.then_appended([("paid", -3)])
        assert [event.seq for event in paid.appended] == [2]
    account.when(pay("account/1", 6)).then_raises(ValueError, "only 5")
    account.when(log.append_expect("account/1", 0, "paid", 1)).then(Conflict("stream", "account/1", 0, 1))
    assert account.when(log.append("account/2", "paid", 1)).appended == []


def test_what_was_appended_to_another_stream_is_something_that_was_appended():
    def fail() -> Iterator[Any]:
        yield from log.append("account/2", "paid", 1)
        raise ValueError("too late")

    account = given([("deposited", 5)], stream="account/1")
    with pytest.raises(AssertionError, match="what was appended to 'account/2' is another"):
        account.when(log.append("account/2", "paid", 1)).then_appended([])
    with pytest.raises(AssertionError, match="what was appended to 'account/2' is another"):
        account.when(fail).then_raises(ValueError)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (KvHas("a"), r"step 1 is KvHas\(key='a'\): give a pair"),
        ((KvHas("a"),), r"step 1 is \(KvHas\(key='a'\),\): give a pair"),
        (("a", True), r"step 1 is \('a', True\): give a pair"),
        ((KvHas("a"), KeyError), r"step 1 is answered by the class KeyError: give an instance, as KeyError\(\.\.\.\)"),
    ],
)
def test_a_step_that_is_no_request_and_answer_is_told_by_its_index_before_the_program_begins(step, told):
    program = visit("a")
    with pytest.raises(InvalidRequest, match=told):
        perform_sequence([(KvHas("a"), True), step], program)
    assert perform_sequence([(KvHas("a"), False)], program) == "done"


def test_drafts_without_a_time_are_equal_to_events_of_any():
    appended = given(at=7).when(log.append_many("given", [Draft("a", 1), Draft("b", 2, at=9)]))
    appended.then_appended([("a", 1), Draft("b", 2)])
    appended.then_appended([Draft("a", 1, at=7), Draft("b", 2, at=9)])
    with pytest.raises(AssertionError, match="at=8"):
        appended.then_appended([Draft("a", 1, at=8), Draft("b", 2)])
    for wrong in ([("a", 1)], [("a", 1), ("b", 2), ("c", 3)], [("a", 1), ("b", 3)]):
        with pytest.raises(AssertionError, match="what was appended to 'given'"):
            appended.then_appended(wrong)


def test_what_was_expected_and_did_not_come_is_told():
    with pytest.raises(AssertionError, match="expected a value, and ValueError"):
        given().when(pay("given", 1)).then(None)
    with pytest.raises(AssertionError, match="expected a value, and ValueError"):
        given().when(pay("given", 1)).then_appended([])
    with pytest.raises(AssertionError, match="expected KeyError with"):
        given().when(pay("given", 1)).then_raises(KeyError)
    with pytest.raises(AssertionError, match="expected KeyError, and none was raised"):
        given().when(log.last_seq("given")).then_raises(KeyError)

    def append_and_fail() -> Iterator[Any]:
        yield from log.append("given", "made", None)
        raise KeyError

    with pytest.raises(AssertionError, match="what was appended"):
        given().when(append_and_fail).then_raises(KeyError)


def test_other_requests_need_rows():
    assert given().when(kv.get("a"), {KvGet: lambda request: Entry(1, 1)}).then(1) is None
    with pytest.raises(AssertionError, match="UnhandledEffect"):
        given().when(kv.get("a")).then(1)


@pytest.mark.parametrize("wrong", [7, ("deposited",), ["deposited", 5]])
def test_what_is_no_event_is_refused(wrong):
    with pytest.raises(InvalidRequest, match="give a Draft"):
        given([wrong])


def test_what_no_store_takes_is_refused_here_too():
    given().when(log.append("given", "made", (1, 2))).then_raises(InvalidRequest, "is a tuple")


numbers = st.integers(0, 6)
requests = st.one_of(
    st.builds(LastSeq, st.sampled_from("ab")),
    st.builds(Read, st.sampled_from("ab"), numbers, st.none() | numbers, st.integers(1, 4), st.booleans()),
    st.builds(
        Append,
        st.sampled_from("ab"),
        st.lists(st.builds(Draft, st.just("made"), st.integers(0, 3)), min_size=1, max_size=3).map(tuple),
        st.none() | numbers,
    ),
)


@given_any(st.lists(requests, max_size=12))
def test_the_streams_in_memory_answer_as_a_store_does(asked):
    here, store = _Log(at=7), open_store("memory:", clock=lambda: 7)
    for request in asked:
        assert outcome_of(request, here.handlers) == outcome_of(request, store.handlers)


def test_a_program_that_is_tested_without_a_store_is_told_a_time_that_it_moves_by_sleeping():
    def late():
        yield from clock.sleep(1.5)
        yield from log.append("a", "late", (yield from clock.now()))

    result = given(stream="a", at=1_000_000).when(late)
    result.then_appended([Draft("late", 2_500_000, 2_500_000)])


def test_identifiers_are_the_same_in_each_test_and_differ_in_one():
    def two():
        return (yield from clock.new_id()), (yield from clock.new_id())

    first, second = given().when(two).outcome.value
    assert first != second
    given().when(two).then((first, second))


def test_a_sleep_without_end_is_over_at_once_where_there_is_no_store():
    given().when(clock.sleep(float("inf"))).then_raises(StoreClosed, "without end")
