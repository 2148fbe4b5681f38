"""Waiting until a flow has come to where a test wants it, and conducting one without a host, up to there."""

from persist_effects import flow, kv, log, machine
from persist_effects.flow import journal
from persist_effects.flow.requests import Await
from persist_effects.machine import Suspended
from persist_effects.requests import Answered

PATIENCE_SECONDS = 60.0


def until(store, flow_id, is_so):
    """The history of a flow, once it is so."""
    seen, stream = 0, journal.journal_of(flow_id)
    while True:
        found = store.run(flow.history(flow_id))
        if is_so(found):
            return found
        before, seen = seen, store.run(log.wait(seen, stream, PATIENCE_SECONDS))
        assert before != seen, f"nothing came to {flow_id}: {found}"


def until_state(store, flow_id, state):
    """How a flow stands, once it is in a state."""
    seen, key = 0, journal.OPEN + flow_id
    while True:
        found = store.run(flow.status(flow_id))
        if found.state == state:
            return found
        before, seen = seen, store.run(kv.wait(seen, key, PATIENCE_SECONDS))
        assert before != seen, f"{flow_id} stays as it is: {found}"


def conducted(store, flow_id, *functions, answers=(), token=b"the host that is gone"):
    """Conduct a flow as a host that answers what it waits for so often, and then is gone."""
    step, left = machine.start(flow.conduct(flow_id, flow.Flows(functions), token)), list(answers)
    while isinstance(step, Suspended):
        if type(step.request) is Await:
            if not left:
                step.close()
                return
            step = step.resume(left.pop(0))
            continue
        outcome = machine.outcome_of(step.request, store.handlers)
        step = step.resume(outcome.value) if isinstance(outcome, Answered) else step.throw(outcome.error)
