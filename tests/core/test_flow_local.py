"""What a flow reads with `flow.local` comes back from its journal as what it was."""

import pytest

from interpreters.runtime.flows import FlowHost
from persist_effects import Event, flow, log
from persist_effects.errors import FlowFailed


def counted(stream):
    events = yield from flow.local(log.read(stream), returns=list[Event])
    yield from flow.signal("go on", timeout=3600)
    return [event.data for event in events]


def untyped(stream):
    yield from flow.local(log.read(stream))


def timer_is_set(journal):
    """Wait until the flow waits for its signal. What it has read is in the journal from then on."""
    seen = 0
    while not (yield from flow.due_before(10**17 - 1)):
        before, seen = seen, (yield from log.wait(seen, journal, timeout=60))
        assert seen > before, "nothing came for a minute"


def test_events_that_were_read_are_events_again_when_the_flow_is_replayed(store):
    store.run(log.append("orders/1", "placed", 5))
    with FlowHost(store, flows=[counted]) as host:
        host.start(counted, "c-1", "orders/1")
        store.run(timer_is_set("flow/c-1"))
    store.run(log.append("orders/1", "placed", 7))
    with FlowHost(store, flows=[counted]) as host:
        host.signal("c-1", "go on")
        assert host.result("c-1", timeout=60) == [5]


def test_a_value_that_would_come_back_as_another_says_how_its_type_is_given(store):
    store.run(log.append("orders/1", "placed", 5))
    with FlowHost(store, flows=[untyped]) as host:
        host.start(untyped, "u-1", "orders/1")
        with pytest.raises(
            FlowFailed, match=r"(?s)what program 'read' came to .* `flow\.local\(…, returns=list\[Event\]\)"
        ):
            host.result("u-1", timeout=60)
