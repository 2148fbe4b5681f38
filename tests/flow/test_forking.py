"""Forks of flows, and flows that are rewound: what is kept, what is done again, and what is refused."""

import re
from threading import Event, Lock

import pytest
from conftest import answer
from flow_watching import conducted, until, until_state

from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import InvalidRequest, flow, kv, log, machine, transact
from persist_effects.errors import FlowExists, FlowFailed, NoSuchFlow
from persist_effects.flow import journal
from persist_effects.flow.requests import Came, identity_of_call
from persist_effects.machine import Suspended
from persist_effects.requests import KvDelete, KvPut, Transact


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    """A new store of each of two kinds."""
    with open_store("memory:" if request.param == "memory" else f"file:{tmp_path / 'store'}") as opened:
        yield opened


class Outside:
    """What activities did, each call with its key."""

    def __init__(self):
        self.done = []
        self._lock = Lock()

        @flow.activity(repeat="keyed")
        def do(what, *, key):
            with self._lock:
                self.done.append((what, key))
                return f"{what} {len(self.done)}"

        self.do = do

    def flows(self):
        def order(order_id: str):
            reserved = yield from flow.call(self.do, f"reserve {order_id}")
            paid = yield from flow.call(self.do, "charge")
            number = yield from kv.update("orders", lambda count: count + 1, 0)
            said = yield from flow.signal("approved")
            return [reserved, number, paid, said, (yield from flow.call(self.do, "ship"))]

        return order


@pytest.fixture
def outside():
    return Outside()


def seq_of(store, flow_id, path, kind="answered"):
    """The number of the entry that has a step."""
    return next(entry.seq for entry in store.run(flow.history(flow_id)) if entry.path == path and entry.kind == kind)


def charged(store, flow_id, order, outside):
    """An order that waits for its signal, by a host that is gone."""
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        host.start(order, flow_id, "7", tags={"customer": "7"})
        until(store, flow_id, lambda history: history[-1].path == (4,))


def stood_still(store, flow_id):
    """Have a flow that no host holds stand still, as a host leaves one whose code it does not understand."""
    key = journal.OPEN + flow_id
    store.run(kv.put(key, {**store.run(kv.get(key)), "state": journal.HALTED, "error": "its code is not here"}))


def resolved_and_rewound(store, paying):
    """Have somebody say what came of the first call of a new flow, which is rewound to before it then."""
    store.run(flow.begin("p-1", paying))
    conducted(store, "p-1", paying)
    store.run(flow.resolve("p-1", (1,), "wired by hand"))
    conducted(store, "p-1", paying)
    stood_still(store, "p-1")
    store.run(flow.rewind("p-1", 1))


def finish(step, store):
    while isinstance(step, Suspended):
        step = answer(step, store)


# Forks


def test_a_fork_goes_on_to_its_end_and_does_nothing_again_of_what_it_kept(store, outside):
    order = outside.flows()
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        host.start(order, "o-1", "7", tags={"customer": "7"})
        until(store, "o-1", lambda history: history[-1].path == (4,))
        host.fork("o-1", "o-2", seq_of(store, "o-1", (4,)))
        host.signal("o-2", "approved", "yes")
        assert host.result("o-2", timeout=60) == ["reserve 7 1", 1, "charge 2", "yes", "ship 3"]
        assert outside.done == [("reserve 7", "o-1/1/1"), ("charge", "o-1/1/2"), ("ship", "o-2/1/6")]
        assert store.run(kv.get("orders")) == 1
        # The other one is as it was.
        host.signal("o-1", "approved", "no")
        assert host.result("o-1", timeout=60) == ["reserve 7 1", 1, "charge 2", "no", "ship 4"]
        assert host.status("o-2").tags == {"customer": "7"}


def test_a_fork_does_again_what_came_after_and_writes_again(store, outside):
    order = outside.flows()
    charged(store, "o-1", order, outside)
    store.run(flow.fork("o-1", "o-2", seq_of(store, "o-1", (1,))))
    store.run(flow.send("o-2", "approved", "yes"))
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        assert host.result("o-2", timeout=60) == ["reserve 7 1", 2, "charge 3", "yes", "ship 4"]
    assert store.run(kv.get("orders")) == 2


def test_a_host_takes_a_fork_up_without_a_word_from_others(store, outside):
    order = outside.flows()
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        host.start(order, "o-1", "7")
        until(store, "o-1", lambda history: history[-1].path == (4,))
        host.fork("o-1", "o-2", 1)
        until(store, "o-2", lambda history: history[-1].path == (4,))
    assert outside.done[2:] == [("reserve 7", "o-2/1/1"), ("charge", "o-2/1/2")]


def test_a_fork_from_the_beginning_does_everything_again(store, outside):
    order = outside.flows()
    charged(store, "o-1", order, outside)
    store.run(flow.fork("o-1", "o-2", 1))
    store.run(flow.send("o-2", "approved", "yes"))
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        assert host.result("o-2", timeout=60) == ["reserve 7 3", 2, "charge 4", "yes", "ship 5"]


def test_a_fork_keeps_the_signals_that_were_received_and_gets_none_that_were_not(store):
    def twice():
        return [(yield from flow.signal("said")), (yield from flow.signal("said"))]

    store.run(flow.begin("s-1", twice))
    store.run(flow.send("s-1", "said", "first"))
    conducted(store, "s-1", twice)
    store.run(flow.send("s-1", "said", "second"))
    store.run(flow.fork("s-1", "s-2", seq_of(store, "s-1", (1,))))
    # Its own first message has the number of the one that the other flow took.
    assert [entry.message for entry in store.run(flow.history("s-2"))] == [None, None]
    with FlowHost(store, flows=[twice]) as host:
        assert host.result("s-1", timeout=60) == ["first", "second"]
        host.signal("s-2", "said", "third")
        assert host.result("s-2", timeout=60) == ["first", "third"]


def test_a_timer_that_had_not_fired_begins_anew_in_a_fork_and_can_be_found(store):
    def waiting():
        yield from flow.sleep(86_400)

    store.run(flow.begin("w-1", waiting))
    conducted(store, "w-1", waiting)
    store.run(flow.fork("w-1", "w-2", seq_of(store, "w-1", (1,), "started")))
    conducted(store, "w-2", waiting)
    assert [entry.kind for entry in store.run(flow.history("w-2"))] == ["begun", "started"]
    assert sorted(flow_id for _, flow_id, _ in store.run(flow.due_before(2**60))) == ["w-1", "w-2"]


def test_a_timer_that_had_fired_is_not_waited_for_again_in_a_fork(store):
    def waiting():
        yield from flow.sleep(86_400)
        return (yield from flow.signal("said"))

    store.run(flow.begin("w-1", waiting))
    conducted(store, "w-1", waiting, answers=[[Came((1,))]])
    store.run(flow.fork("w-1", "w-2", seq_of(store, "w-1", (1,))))
    store.run(flow.send("w-2", "said", 7))
    with FlowHost(store, flows=[waiting]) as host:
        assert host.result("w-2", timeout=60) == 7


def test_a_call_that_is_never_repeated_and_has_not_ended_waits_in_a_fork_for_its_resolution(store):
    ran = []

    @flow.activity(repeat="never")
    def wire(cents: int) -> str:
        ran.append(cents)
        return "wired"

    def paying():
        return (yield from flow.call(wire, 500))

    store.run(flow.begin("p-1", paying))
    conducted(store, "p-1", paying)
    store.run(flow.fork("p-1", "p-2", seq_of(store, "p-1", (1,), "started")))
    assert [call.path for call in store.run(flow.unresolved("p-2"))] == [(1,)]
    with FlowHost(store, flows=[paying], activities=[wire]) as host:
        store.run(flow.resolve("p-2", (1,), "wired by hand"))
        assert host.result("p-2", timeout=60) == "wired by hand"
    assert ran == []


def shipping(order_id: str):
    return (yield from flow.signal("shipped"))


def buying(child_id):
    got = yield from flow.child(shipping, "7", flow_id=child_id)
    return [got, (yield from flow.signal("thanks"))]


def test_a_fork_begins_a_child_of_its_own_where_the_other_one_waits_for_its_child(store):
    store.run(flow.begin("b-1", buying, None))
    conducted(store, "b-1", buying, shipping)
    store.run(flow.fork("b-1", "b-2", seq_of(store, "b-1", (1,), "started")))
    store.run(flow.send("b-2", "thanks", "!"))
    with FlowHost(store, flows=[buying, shipping]) as host:
        until(store, "b-2", lambda history: history[-1].path == (1,))
        host.signal("b-2.1", "shipped", "by air")
        assert host.result("b-2", timeout=60) == ["by air", "!"]
        assert host.status("b-1.1").state == "running"


def test_a_fork_is_refused_where_a_child_of_a_given_id_has_not_ended_and_takes_its_result_once_it_has(store):
    store.run(flow.begin("b-1", buying, "parcel"))
    conducted(store, "b-1", buying, shipping)
    begun = seq_of(store, "b-1", (1,), "started")
    message = f"flow 'b-1' has begun flow 'parcel' at step 1, entry {begun}, whose end is not.*before {begun}, or once"
    with pytest.raises(InvalidRequest, match=message):
        store.run(flow.fork("b-1", "b-2", begun))
    assert store.run(flow.listing(prefix="b-2")) == []
    with FlowHost(store, flows=[buying, shipping]) as host:
        host.signal("parcel", "shipped", "by air")
        until(store, "b-1", lambda history: history[-1].kind == "answered")
        for new_id, at in (("b-2", seq_of(store, "b-1", (1,))), ("b-3", begun)):
            host.fork("b-1", new_id, at)
            host.signal(new_id, "thanks", "!")
            assert host.result(new_id, timeout=60) == ["by air", "!"]


def test_a_fork_of_a_child_is_nobodys_child(store):
    store.run(flow.begin("b-1", buying, None))
    conducted(store, "b-1", buying, shipping)
    store.run(flow.fork("b-1.1", "f-1", 1))
    (begun,) = store.run(log.read("flow/f-1"))
    assert "parent" not in begun.data
    with FlowHost(store, flows=[buying, shipping]) as host:
        host.signal("f-1", "shipped", "by sea")
        assert host.result("f-1", timeout=60) == "by sea"
        host.signal("b-1.1", "shipped", "by air")
        host.signal("b-1", "thanks", "!")
        assert host.result("b-1", timeout=60) == ["by air", "!"]


def test_a_fork_of_a_later_run_keeps_what_that_run_did(store, outside):
    def counting(number: int):
        if number < 3:
            yield from flow.continue_as_new(number + 1)
        done = yield from flow.call(outside.do, "count")
        return [number, done, (yield from flow.signal("enough"))]

    store.run(flow.begin("c-1", counting, 1))
    conducted(store, "c-1", counting, answers=[[Came((1,), "counted")]])
    store.run(flow.fork("c-1", "c-2", seq_of(store, "c-1", (1,))))
    store.run(flow.send("c-2", "enough"))
    with FlowHost(store, flows=[counting], activities=[outside.do]) as host:
        assert host.result("c-2", timeout=60) == [3, "counted", None]
    assert outside.done == []


@pytest.mark.parametrize("name", ["o-1", "o-2"])
def test_a_fork_by_an_id_that_is_taken_is_refused(store, outside, name):
    order = outside.flows()
    charged(store, "o-1", order, outside)
    store.run(flow.begin("o-2", order, "8"))
    with pytest.raises(FlowExists, match=f"flow '{name}' is there already, and not a fork of 'o-1'"):
        store.run(flow.fork("o-1", name, 1))


@pytest.mark.parametrize("go_on", [lambda at: flow.fork("c-1", "c-2", at), lambda at: flow.rewind("c-1", at)])
@pytest.mark.parametrize("off", [-1, 1])
def test_an_entry_before_the_current_run_or_past_its_end_is_refused(store, go_on, off):
    def counting(number: int):
        if number < 3:
            yield from flow.continue_as_new(number + 1)
        yield from flow.signal("enough")

    store.run(flow.begin("c-1", counting, 1))
    conducted(store, "c-1", counting)
    entries = [entry.seq for entry in store.run(flow.history("c-1"))]
    first, last = entries[0], store.run(log.last_seq("flow/c-1"))
    stood_still(store, "c-1")
    at = first - 1 if off < 0 else last + 1
    message = f"flow 'c-1' has no entry {at} to go on from: those of its run 3, which goes on, are {first} to {last}"
    with pytest.raises(InvalidRequest, match=message):
        store.run(go_on(at))


@pytest.mark.parametrize("go_on", [lambda: flow.fork("o-1", "o-2", 1), lambda: flow.rewind("o-1", 1)])
def test_a_flow_that_has_ended_is_neither_forked_nor_rewound(store, go_on):
    def nothing():
        return 7
        yield

    store.run(flow.begin("o-1", nothing))
    conducted(store, "o-1", nothing)
    with pytest.raises(NoSuchFlow, match="no flow 'o-1' that goes on: it has ended, completed"):
        store.run(go_on())


# Rewinding


def test_a_flow_that_is_halted_is_rewound_to_where_the_new_code_fits(store, outside):
    order = outside.flows()
    charged(store, "o-1", order, outside)

    @flow.defined(name="order")
    def other(order_id: str):
        reserved = yield from flow.call(outside.do, f"reserve {order_id}")
        return [reserved, (yield from flow.call(outside.do, "invoice"))]

    with FlowHost(store, flows=[other], activities=[outside.do]) as host:
        assert "no longer does what its journal says" in until_state(store, "o-1", "halted").error
        host.rewind("o-1", seq_of(store, "o-1", (1,)))
        assert host.result("o-1", timeout=60) == ["reserve 7 1", "invoice 3"]
        assert host.status("o-1").run == 2
    assert outside.done == [("reserve 7", "o-1/1/1"), ("charge", "o-1/1/2"), ("invoice", "o-1/2/2")]


def test_a_flow_that_was_set_aside_goes_on_from_an_earlier_entry(store, outside):
    order = outside.flows()
    charged(store, "o-1", order, outside)
    for _ in range(10):
        store.run(log.append("flow/o-1", journal.CLAIMED, {"token": b"one that it ended"}))
    conducted(store, "o-1", order)
    assert store.run(flow.status("o-1")).state == "set aside"
    store.run(flow.rewind("o-1", seq_of(store, "o-1", (4,))))
    store.run(flow.send("o-1", "approved", "yes"))
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        assert host.result("o-1", timeout=60) == ["reserve 7 1", 1, "charge 2", "yes", "ship 3"]


def test_a_paused_flow_that_is_rewound_stays_paused_and_the_host_that_holds_it_takes_it_up_anew(store, outside):
    order = outside.flows()
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        host.start(order, "o-1", "7")
        until(store, "o-1", lambda history: history[-1].path == (4,))
        host.pause("o-1")
        until_state(store, "o-1", "paused")
        host.rewind("o-1", seq_of(store, "o-1", (1,)))
        assert host.status("o-1").state == "paused"
        assert len(outside.done) == 2
        host.signal("o-1", "approved", "yes")
        host.resume("o-1")
        assert host.result("o-1", timeout=60) == ["reserve 7 1", 2, "charge 3", "yes", "ship 4"]
        assert outside.done[2] == ("charge", "o-1/2/2")


def test_an_activity_of_a_dropped_step_that_still_runs_holds_nothing_up_and_is_not_taken_for_the_new_one(store):
    started, may_end, numbers = Event(), Event(), []

    def work(said):
        numbers.append(said)
        if len(numbers) > 1:
            return "new"
        started.set()
        assert may_end.wait(60)
        return "old"

    def working():
        said = yield from flow.signal("said")
        return [said, (yield from flow.call(work, said))]

    with FlowHost(store, flows=[working], activities=[work]) as host:
        host.start(working, "w-1")
        host.signal("w-1", "said", 1)
        assert started.wait(60)
        host.pause("w-1")
        until_state(store, "w-1", "paused")
        host.rewind("w-1", 1)
        host.resume("w-1")
        assert host.result("w-1", timeout=60) == [1, "new"]
        may_end.set()


def test_signals_that_dropped_steps_had_received_are_received_again_and_kept_ones_are_not(store):
    def twice():
        return [(yield from flow.signal("said")), (yield from flow.signal("said")), (yield from flow.signal("more"))]

    store.run(flow.begin("s-1", twice))
    for said in ("first", "second"):
        store.run(flow.send("s-1", "said", said))
        conducted(store, "s-1", twice)
    stood_still(store, "s-1")
    store.run(flow.rewind("s-1", seq_of(store, "s-1", (1,))))
    assert [entry.path for entry in store.run(flow.history("s-1"))] == [(), (1,)]
    store.run(flow.send("s-1", "said", "third"))
    store.run(flow.send("s-1", "more", "!"))
    with FlowHost(store, flows=[twice]) as host:
        assert host.result("s-1", timeout=60) == ["first", "second", "!"]


def test_a_cancellation_after_the_entry_is_forgotten_and_one_before_it_is_kept(store):
    def approval():
        try:
            said = yield from flow.signal("approved")
        finally:
            yield from flow.signal("cleaned")
        return said

    store.run(flow.begin("a-1", approval))
    store.run(flow.cancel("a-1"))
    conducted(store, "a-1", approval)
    stood_still(store, "a-1")
    cancelled = store.run(flow.history("a-1"))[-1].seq
    store.run(flow.fork("a-1", "a-2", cancelled))
    store.run(flow.rewind("a-1", 1))
    store.run(flow.send("a-1", "approved", 7))
    for flow_id in ("a-1", "a-2"):
        store.run(flow.send(flow_id, "cleaned"))
    with FlowHost(store, flows=[approval]) as host:
        assert host.result("a-1", timeout=60) == 7
        with pytest.raises(FlowFailed, match="was cancelled"):
            host.result("a-2", timeout=60)


def test_timers_of_a_flow_that_is_rewound_are_gone_and_begin_anew(store):
    def waiting():
        yield from flow.signal("said", timeout=86_400)
        yield from flow.sleep(86_400)

    store.run(flow.begin("w-1", waiting))
    conducted(store, "w-1", waiting)
    store.run(flow.send("w-1", "said"))
    conducted(store, "w-1", waiting)
    ((_, _, path),) = store.run(flow.due_before(2**60))
    assert path == (2,)
    stood_still(store, "w-1")
    store.run(flow.rewind("w-1", seq_of(store, "w-1", (1,))))
    assert store.run(flow.due_before(2**60)) == []
    conducted(store, "w-1", waiting)
    assert [path for _, _, path in store.run(flow.due_before(2**60))] == [(2,)]


def test_a_child_that_dropped_steps_have_begun_is_cancelled_and_another_one_is_begun(store):
    store.run(flow.begin("b-1", buying, None))
    conducted(store, "b-1", buying, shipping)
    stood_still(store, "b-1")
    store.run(flow.rewind("b-1", 1))
    store.run(flow.send("b-1", "thanks", "!"))
    with FlowHost(store, flows=[buying, shipping]) as host:
        until(store, "b-1", lambda history: any(each.path == (1,) for each in history))
        host.signal("b-1.r2.1", "shipped", "by air")
        assert host.result("b-1", timeout=60) == ["by air", "!"]
        with pytest.raises(FlowFailed, match="was cancelled"):
            host.result("b-1.1", timeout=60)


def test_a_child_that_kept_steps_have_begun_goes_on_and_its_result_is_taken_again(store):
    store.run(flow.begin("b-1", buying, "parcel"))
    conducted(store, "b-1", buying, shipping)
    begun = seq_of(store, "b-1", (1,), "started")
    store.run(flow.send("parcel", "shipped", "by air"))
    conducted(store, "parcel", shipping)
    conducted(store, "b-1", buying)
    assert seq_of(store, "b-1", (1,)) > begun
    stood_still(store, "b-1")
    store.run(flow.rewind("b-1", begun))
    store.run(flow.send("b-1", "thanks", "!"))
    with FlowHost(store, flows=[buying, shipping]) as host:
        assert host.result("b-1", timeout=60) == ["by air", "!"]


def test_a_flow_is_not_rewound_to_before_a_child_whose_id_was_given(store):
    store.run(flow.begin("b-1", buying, "parcel"))
    conducted(store, "b-1", buying, shipping)
    begun = seq_of(store, "b-1", (1,), "started")
    stood_still(store, "b-1")
    with pytest.raises(InvalidRequest, match=f"begun flow 'parcel' at step 1.*rewind it to {begun} or later"):
        store.run(flow.rewind("b-1", 1))


def test_a_resolution_that_a_dropped_step_took_does_not_stand_for_the_call_that_is_run_anew(store):
    @flow.activity(repeat="never")
    def wire(cents: int) -> str:
        return "wired"

    def paying():
        return [(yield from flow.call(wire, 500)), (yield from flow.signal("seen"))]

    resolved_and_rewound(store, paying)
    store.run(flow.send("p-1", "seen"))
    with FlowHost(store, flows=[paying], activities=[wire]) as host:
        assert host.result("p-1", timeout=60) == ["wired", None]


def test_a_call_that_is_run_anew_is_unresolved_although_the_one_before_was_resolved(store):
    @flow.activity(repeat="never")
    def wire(cents: int) -> str: ...

    def paying():
        yield from flow.call(wire, 500)
        yield from flow.signal("seen")

    resolved_and_rewound(store, paying)
    conducted(store, "p-1", paying)
    assert [call.path for call in store.run(flow.unresolved("p-1"))] == [(1,)]


def test_a_flow_that_is_running_is_not_rewound(store, outside):
    charged(store, "o-1", outside.flows(), outside)
    with pytest.raises(InvalidRequest, match="flow 'o-1' is running: pause it, and rewind it once its"):
        store.run(flow.rewind("o-1", 1))


def test_a_flow_that_is_retried_while_it_is_being_rewound_is_not_rewound(store, outside):
    charged(store, "o-1", outside.flows(), outside)
    stood_still(store, "o-1")
    before = store.run(flow.history("o-1"))
    step = machine.start(flow.rewind("o-1", 1))
    while type(step.request) is not Transact:
        step = answer(step, store)
    store.run(flow.retry("o-1"))
    with pytest.raises(InvalidRequest, match="flow 'o-1' is running"):
        finish(step, store)
    assert store.run(flow.history("o-1")) == before


def test_what_goes_on_from_an_earlier_entry_is_nobodys_until_a_host_takes_it_over(store, outside):
    charged(store, "o-1", outside.flows(), outside)
    stood_still(store, "o-1")
    at = seq_of(store, "o-1", (4,))
    assert store.run(flow.unended())["o-1"].standing.owner != b""
    store.run(flow.fork("o-1", "o-2", at))
    store.run(flow.rewind("o-1", at))
    for flow_id in ("o-1", "o-2"):
        assert store.run(flow.unended())[flow_id].standing.owner == b""
        assert {event.data.get("token", b"") for event in store.run(log.read(f"flow/{flow_id}"))} == {b""}


def test_a_flow_is_rewound_and_forked_again_and_again(store, outside):
    order = outside.flows()
    charged(store, "o-1", order, outside)
    for number in range(3):
        stood_still(store, "o-1")
        store.run(flow.rewind("o-1", seq_of(store, "o-1", (4,))))
        store.run(flow.fork("o-1", f"f-{number}", seq_of(store, "o-1", (4,))))
    for flow_id in ("o-1", "f-0", "f-1", "f-2"):
        store.run(flow.send(flow_id, "approved", flow_id))
    with FlowHost(store, flows=[order], activities=[outside.do]) as host:
        for flow_id in ("o-1", "f-0", "f-1", "f-2"):
            assert host.result(flow_id, timeout=60)[:4] == ["reserve 7 1", 1, "charge 2", flow_id]
    assert host.status("o-1").run == 4


# Steps that are known by much, and stand in the journal by digests

LONG = "x" * 2_000


def test_a_call_with_a_long_argument_is_asked_again_where_its_begin_was_dropped(store):
    @flow.activity(repeat="never")
    def wire(cents: int, why: str) -> str: ...

    def paying():
        yield from flow.call(wire, 500, LONG)
        yield from flow.signal("seen")

    resolved_and_rewound(store, paying)
    conducted(store, "p-1", paying)
    (call,) = store.run(flow.unresolved("p-1"))
    assert call.path == (1,)
    assert call.asked.startswith("call(wire, 500, 'xxxxx")


def test_a_flow_that_was_begun_by_an_id_of_its_own_with_a_long_argument_is_not_begun_twice(store):
    def packing(what):
        yield from flow.signal("packed")

    def selling():
        yield from flow.child(packing, LONG, flow_id="packing-7")

    store.run(flow.begin("s-1", selling))
    conducted(store, "s-1", selling, packing)
    begun = seq_of(store, "s-1", (1,), "started")
    with pytest.raises(InvalidRequest, match=r"flow 's-1' has begun flow 'packing-7' at step 1"):
        store.run(flow.fork("s-1", "s-2", begun))
    assert store.run(flow.history("s-1"))[-1].asked.startswith("child(packing, 'xxxxx")


def test_a_long_transaction_is_shown_with_what_it_wrote_and_what_each_write_was_answered(store):
    def selling():
        yield from transact(KvPut("goods", LONG), KvPut("price", 5), KvDelete("offer"))
        yield from flow.signal("paid")

    store.run(flow.begin("s-1", selling))
    conducted(store, "s-1", selling)
    entry = store.run(flow.history("s-1"))[-1]
    assert entry.asked.startswith("persist/transact(writes={'op': 'persist/kv-put', 'key': 'goods'")
    assert re.fullmatch(r"\[\d+, \d+, False]", entry.outcome)


def test_what_a_long_argument_is_known_by_does_not_depend_on_the_order_of_its_keys():
    first, last = {"a": LONG, "b": [{"c": 1, "d": 2}]}, {"b": [{"d": 2, "c": 1}], "a": LONG}
    assert identity_of_call("print", (first,)) == identity_of_call("print", (last,))
    assert identity_of_call("print", (first,)) != identity_of_call("print", ({**last, "c": 3},))
