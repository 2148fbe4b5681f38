"""The history of a flow, in words, and the calls of which nobody knows what came."""

import pytest
from flow_watching import conducted, until

from interpreters.runtime.flows import FlowHost
from persist_effects import flow, kv, log
from persist_effects.errors import NoSuchFlow
from persist_effects.flow.requests import Came
from persist_effects.machine import perform
from persist_effects.requests import KvPut, Transact


class SoldOut(Exception):
    pass


def reserve(item):
    if item == "tea":
        raise SoldOut("no tea") from KeyError("tea")
    return {"item": item}


@flow.activity(repeat="never")
def charge(cents: int) -> str:
    return f"paid {cents}"


def order(item):
    try:
        yield from flow.call(reserve, "tea")
    except SoldOut:
        reserved = yield from flow.call(reserve, item)
    yield from flow.patched("with-mail")
    yield from kv.put("color", "red")
    yield from perform(Transact((KvPut("a", 1), KvPut("b", 2))))
    paid = yield from flow.call(charge, 500)
    yield from flow.sleep(0.001)
    said = yield from flow.signal("approved")
    return [reserved, paid, said]


def short(history):
    return [(entry.kind, flow_path(entry), entry.asked, entry.outcome) for entry in history]


def flow_path(entry):
    return ".".join(map(str, entry.path))


def test_a_history_tells_each_step_its_request_and_its_outcome_in_words(store):
    with FlowHost(store, flows=[order], activities=[reserve, charge], errors=[SoldOut]) as host:
        host.start(order, "o-1", "coffee")
        found = until(store, "o-1", lambda history: history[-1].kind == "answered" and history[-1].path == (6,))
    name = f"{SoldOut.__module__}.SoldOut"
    assert short(found) == [
        ("begun", "", "order('coffee')", ""),
        ("raised", "1", "call(reserve, 'tea')", f"{name}: no tea"),
        ("answered", "2", "call(reserve, 'coffee')", "{'item': 'coffee'}"),
        ("patched", "", "patched('with-mail')", ""),
        ("answered", "3", "persist/kv-put(key='color', value='red', expected=None)", "2"),
        ("answered", "4", found[5].asked, "[3, 4]"),
        ("started", "5", "call(charge, 500)", ""),
        ("answered", "5", "call(charge, 500)", "'paid 500'"),
        ("started", "6", "sleep(…)", ""),
        ("answered", "6", "sleep(…)", "None"),
    ]
    assert [entry.seq for entry in found] == sorted(entry.seq for entry in found)
    assert [entry.due for entry in found if entry.due is not None] == [found[8].due]
    assert {entry.run for entry in found} == {1}


def test_a_flow_that_has_ended_has_only_that_in_its_history(store):
    def approval():
        yield from flow.call(reserve, "coffee")
        return (yield from flow.signal("approved"))

    store.run(flow.begin("a-1", approval))
    conducted(store, "a-1", approval)
    store.run(flow.send("a-1", "approved", True))
    with FlowHost(store, flows=[approval], activities=[reserve]) as host:
        until(store, "a-1", lambda history: history[-1].kind == "ended")
    (ended,) = store.run(flow.history("a-1"))
    assert (ended.asked, ended.outcome, ended.run) == ("approval()", "completed: True", 1)
    assert host.history("a-1") == [ended]


def test_a_history_tells_which_host_took_a_flow_over(store):
    def reserving():
        yield from flow.call(reserve, "coffee")

    store.run(flow.begin("r-1", reserving))
    conducted(store, "r-1", reserving, token=b"\x01\x02")
    conducted(store, "r-1", reserving, token=b"\x03\x04")
    assert short(store.run(flow.history("r-1"))) == [
        ("begun", "", "reserving()", ""),
        ("claimed", "", "", "by host 0102"),
        ("claimed", "", "", "by host 0304"),
    ]


def test_a_cancellation_stands_in_the_history_with_its_message(store):
    def approval():
        try:
            yield from flow.signal("approved")
        finally:
            yield from flow.signal("cleaned")

    store.run(flow.begin("a-1", approval))
    message = store.run(flow.cancel("a-1"))
    conducted(store, "a-1", approval)
    _, cancelled = store.run(flow.history("a-1"))
    assert (cancelled.kind, cancelled.path, cancelled.message) == ("cancelled", (), message)


def test_a_flow_that_failed_tells_its_error(store):
    def failing():
        yield from flow.now()
        raise SoldOut("no tea")

    store.run(flow.begin("f-1", failing))
    conducted(store, "f-1", failing)
    (ended,) = store.run(flow.history("f-1"))
    assert (
        ended.outcome == f"failed: {SoldOut.__module__}.{failing.__name__}".replace("failing", "SoldOut") + ": no tea"
    )


def test_a_run_that_was_continued_has_the_history_of_that_run_alone(store):
    def counting(number: int):
        yield from flow.call(reserve, "coffee")
        if number == 1:
            yield from flow.continue_as_new(number + 1)
        yield from flow.signal("never")

    store.run(flow.begin("c-1", counting, 1))
    conducted(store, "c-1", counting, answers=[[Came((1,), {})]])
    (begun,) = store.run(flow.history("c-1"))
    assert (begun.kind, begun.asked, begun.run) == ("begun", "counting(2)", 2)


def test_a_child_that_was_begun_is_told_by_its_id(store):
    def shipping(order_id: str):
        yield from flow.signal("shipped")

    def buying(order_id: str):
        yield from flow.child(shipping, order_id)

    store.run(flow.begin("b-1", buying, "o-7"))
    conducted(store, "b-1", buying, shipping)
    assert short(store.run(flow.history("b-1")))[1] == ("started", "1", "child(shipping, 'o-7')", "flow 'b-1.1'")


@pytest.mark.parametrize("ask", [flow.history, flow.unresolved])
def test_a_flow_that_was_never_begun_has_no_history(store, ask):
    with pytest.raises(NoSuchFlow, match="'o-7' that goes on: it was never begun"):
        store.run(ask("o-7"))


def paying():
    paid = yield from flow.call(charge, 500)
    return [paid, (yield from flow.call(charge, 600))]


def test_a_call_that_is_never_repeated_and_was_lost_is_unresolved_until_someone_says_what_came_of_it(store):
    store.run(flow.begin("p-1", paying))
    assert store.run(flow.unresolved("p-1")) == []
    conducted(store, "p-1", paying)
    (call,) = store.run(flow.unresolved("p-1"))
    assert (call.path, call.asked, call.seq) == ((1,), "call(charge, 500)", 2)
    assert call.at == store.run(log.read("flow/p-1"))[1].at
    store.run(flow.resolve("p-1", call.path, "paid by hand"))
    assert store.run(flow.unresolved("p-1")) == []
    with FlowHost(store, flows=[paying], activities=[charge]) as host:
        assert host.result("p-1", timeout=60) == ["paid by hand", "paid 600"]
    assert store.run(flow.unresolved("p-1")) == []


def test_a_call_whose_outcome_came_is_not_unresolved_and_the_next_one_is(store):
    store.run(flow.begin("p-1", paying))
    conducted(store, "p-1", paying, answers=[[Came((1,), "paid 500")]])
    assert [call.path for call in store.run(flow.unresolved("p-1"))] == [(2,)]


def test_calls_that_may_be_repeated_are_never_unresolved(store):
    def reserving():
        yield from flow.call(reserve, "coffee")

    store.run(flow.begin("r-1", reserving))
    conducted(store, "r-1", reserving)
    assert store.run(flow.unresolved("r-1")) == []
