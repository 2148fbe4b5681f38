"""What is refused of those who look after flows: what would take a flow from its host, or find nothing for ever."""

import pytest
from flow_watching import conducted

from persist_effects import InvalidRequest, flow


def approval():
    yield from flow.signal("approved")


def test_a_flow_that_runs_or_is_paused_is_not_taken_from_its_host_by_a_retry(store):
    store.run(flow.begin("a-1", approval, token=b"a host"))
    with pytest.raises(InvalidRequest, match="flow 'a-1' is running: only one that is halted or set aside is taken up"):
        store.run(flow.retry("a-1"))
    assert store.run(flow.unended())["a-1"].standing.owner == b"a host"
    store.run(flow.pause("a-1"))
    conducted(store, "a-1", approval)
    with pytest.raises(InvalidRequest, match="flow 'a-1' is paused"):
        store.run(flow.retry("a-1"))


def test_a_list_of_flows_in_a_state_that_there_is_not_is_refused(store):
    with pytest.raises(InvalidRequest, match="state is 'asleep': give one of waiting, running, paused, halted, set a"):
        store.run(flow.listing(state="asleep"))
