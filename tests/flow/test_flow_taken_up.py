"""A flow that is taken up again: what was done before it is not done anew, and what others have meanwhile stands."""

import pytest
from conftest import answer
from flow_scenes import sending_once, serve_until_it_waits, with_flow

from persist_effects import Draft, Suspended, flow, kv, log, machine
from persist_effects.errors import NoSuchFlow, StoreUnavailable, UncertainOutcome
from persist_effects.flow import journal
from persist_effects.requests import KvPut, Transact


def wins_over_a_timer():
    yield from flow.first_of(flow.signal("go"), flow.sleep(3600))
    yield from flow.signal("never")


def wins_over_a_child():
    yield from flow.first_of(flow.signal("go"), flow.child(waits))
    yield from flow.signal("never")


def waits():
    yield from flow.signal("never")


def asks_at_once():
    is_new = yield from flow.patched("change")
    yield from flow.signal("go")
    return is_new


def asks_late():
    yield from flow.signal("go")
    return (yield from flow.patched("change"))


def keeps_what_it_reads():
    price = yield from kv.get("price")
    yield from log.append("prices", "read", price)
    yield from flow.signal("go")
    return price


CODE = flow.Flows([keeps_what_it_reads, wins_over_a_timer, wins_over_a_child, waits, asks_at_once, asks_late])


def serving_f():
    return (yield from serve_until_it_waits("f", CODE))


def test_a_change_is_in_force_for_a_flow_that_asks_before_its_first_step():
    store = with_flow(asks_at_once)()
    store.run(serving_f())
    store.run(flow.send("f", "go"))
    store.run(serving_f())
    assert store.run(flow.result("f")) is True


def test_a_change_is_in_force_for_a_flow_that_asks_where_its_journal_ends():
    store = with_flow(asks_late, before=[sending_once("f", "go", 1)])()
    store.run(serving_f())
    assert store.run(flow.result("f")) is True


def test_a_flow_that_is_taken_up_again_does_not_forget_a_timer_twice():
    store = with_flow(wins_over_a_timer, before=[serving_f, sending_once("f", "go", 1), serving_f])()
    extent = store.run(log.head())
    assert store.run(serving_f()) == "waiting"
    assert store.run(log.head()) == extent, store.run(log.read(journal.journal_of("f")))


def test_a_flow_that_is_taken_up_again_does_not_cancel_a_child_twice():
    store = with_flow(wins_over_a_child, before=[serving_f, sending_once("f", "go", 1), serving_f])()
    child = journal.INBOX + "f.1.2.1"
    assert [each.type for each in store.run(log.read(child))] == ["begun", "cancel"]
    assert store.run(serving_f()) == "waiting"
    assert [each.type for each in store.run(log.read(child))] == ["begun", "cancel"]


def owners(store):
    return {flow_id: found.standing.owner for flow_id, found in store.run(flow.unended()).items()}


def test_a_flow_that_was_tried_again_belongs_to_the_host_that_takes_it_up():
    store = with_flow(wins_over_a_timer, before=[serving_f])()
    entry = store.run(kv.entry(journal.OPEN + "f"))
    store.run(kv.put(journal.OPEN + "f", {**entry.value, "state": journal.HALTED}))
    store.run(flow.retry("f"))
    assert owners(store) == {"f": b""}
    store.run(flow.send("f", "go"))
    assert store.run(serving_f()) == "waiting"
    assert owners(store) == {"f": b"another."}


def test_a_flow_that_ends_while_another_host_sets_it_aside_has_ended():
    store = with_flow(asks_at_once)()
    claimed = [Draft(journal.CLAIMED, {"token": bytes([number]) * 8}) for number in range(10)]
    store.run(log.append_many(journal.journal_of("f"), claimed))
    late = machine.start(flow.conduct("f", CODE, b"the late"))
    while not isinstance(late.request, KvPut):
        late = answer(late, store)
    store.run(flow.send("f", "go"))
    owner = flow.conduct("f", CODE, bytes([9]) * 8, claims_limit=100)
    assert store.run(owner).state == "completed"
    with pytest.raises(NoSuchFlow, match=r"'f'.*it has ended, completed"):
        finish(late, store)
    assert store.run(flow.status("f")).state == "completed"
    assert store.run(kv.keys(journal.OPEN)) == []


def test_an_entry_that_this_host_wrote_before_it_took_the_flow_up_again_is_not_taken_for_the_next_one():
    """It was on its way when the store was lost, and comes to it only once the flow was taken up again."""
    store = with_flow(keeps_what_it_reads, before=[lambda: kv.put("price", 5)])()
    step = machine.start(flow.conduct("f", CODE, b"the host"))
    while not isinstance(step.request, Transact):
        step = answer(step, store)
    late = step.request
    step = step.throw(UncertainOutcome("lost"))
    with pytest.raises(StoreUnavailable):
        step.throw(StoreUnavailable("lost"))
    store.run(kv.put("price", 6))
    step = machine.start(flow.conduct("f", CODE, b"the host"))
    while not isinstance(step.request, Transact):
        step = answer(step, store)
    store.run(machine.perform(late))
    with pytest.raises(UncertainOutcome, match="is to be taken up"):
        finish(step, store)
    store.run(flow.send("f", "go"))
    assert finish(machine.start(flow.conduct("f", CODE, b"the host")), store).value == 5
    assert [event.data for event in store.run(log.read("prices"))] == [5]


def finish(step, store):
    while isinstance(step, Suspended):
        step = answer(step, store)
    return step.value
