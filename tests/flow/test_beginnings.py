"""Flows whose beginning was written, and whose beginner was not told so."""

import pytest

from interpreters import Store
from interpreters.runtime.flows import FlowHost, Queue
from interpreters.runtime.interpreter import pass_on
from interpreters.stores.memory import MemoryStore
from persist_effects.errors import UncertainOutcome
from persist_effects.requests import Transact


class Losing:
    """A store that loses the answer of the next transaction, once it is told to."""

    def __init__(self, inner: MemoryStore) -> None:
        self.loses = False
        self.close = inner.close
        row = inner.handlers[Transact]

        def ask(request: Transact):
            answer = row(request)
            if self.loses:
                self.loses = False
                raise UncertainOutcome("lost")
            return answer

        self.handlers = {**inner.handlers, Transact: ask}
        pass_on(self, inner)


def greet(name: str):
    return f"hello {name}"
    yield


def ready(host: FlowHost) -> None:
    """Wait until the host has looked for flows that were there before."""
    host.start(greet, "g-0", "Ada")
    host.result("g-0", timeout=60)


@pytest.mark.parametrize("queue", ["", "mail"])
def test_a_flow_whose_beginning_is_uncertain_runs_when_it_is_begun_again(queue):
    losing = Losing(MemoryStore())
    with Store(losing) as store, FlowHost(store, flows=[greet], queues=[Queue("mail")]) as host:
        ready(host)
        losing.loses = True
        with pytest.raises(UncertainOutcome):
            host.start(greet, "g-1", "Ada", queue=queue)
        assert not host.start(greet, "g-1", "Ada", queue=queue)
        assert host.result("g-1", timeout=60) == "hello Ada"


def test_flows_that_were_begun_together_and_are_uncertain_run_when_they_are_begun_again():
    losing = Losing(MemoryStore())
    with Store(losing) as store, FlowHost(store, flows=[greet]) as host:
        ready(host)
        losing.loses = True
        with pytest.raises(ExceptionGroup):
            host.start_many(greet, {"g-1": ["Ada"], "g-2": ["Bob"]})
        host.start_many(greet, {"g-1": ["Ada"], "g-2": ["Bob"]})
        assert [host.result(each, timeout=60) for each in ("g-1", "g-2")] == ["hello Ada", "hello Bob"]
