"""Durable flows: programs that also do things outside, and survive crashes by a journal.

A flow is a generator function. Its steps are those below, and all that a program may ask of a store. A host runs it,
and keeps in its journal, a stream of the same store, what it was answered; the next host feeds it that, and goes on.

>>> from interpreters import open_store
>>> from interpreters.runtime.flows import FlowHost
>>> from persist_effects import flow, log
>>> def charge(number: str, cents: int) -> str:
...     return f"receipt of {number}"
>>> def order(number: str, cents: int):
...     receipt = yield from flow.call(charge, number, cents)
...     yield from log.append(f"orders/{number}", "paid", receipt)
...     address = yield from flow.signal("address")
...     return f"sent to {address}"
>>> store = open_store("memory:")
>>> with FlowHost(store, flows=[order], activities=[charge]) as host:
...     host.start(order, "o-1", "o-1", 500)
True

The host is gone. Another one goes on where the journal ends.

>>> with FlowHost(store, flows=[order], activities=[charge]) as host:
...     host.signal("o-1", "address", "Main Street 1")
...     host.result("o-1", timeout=60)
'sent to Main Street 1'
>>> [event.data for event in store.run(log.read("orders/o-1"))]
['receipt of o-1']

Steps: `call`, `signal`, `sleep`, `now`, `random`, `new_id`, `child`, `local`, `patched`, `all_of`, `first_of`, `saga`
and `continue_as_new`. From outside: `begin`, `send`, `cancel`, `pause`, `resume`, `resolve`, `retry`, `status`,
`result`, `wait_for` and `listing`. See docs/how-to/flows.md.
"""

from persist_effects.clock import new_id, now, sleep
from persist_effects.errors import Cancelled, FlowExists, FlowFailed, Nondeterministic, NoSuchFlow
from persist_effects.flow.conducting import RESULT_LIMIT_BYTES, Finished, conduct
from persist_effects.flow.defining import Flows, activity, defined
from persist_effects.flow.forking import fork, rewind
from persist_effects.flow.history import HistoryEntry, UnresolvedCall, history, unresolved
from persist_effects.flow.outside import begin, begin_as, cancel, own, pause, resolve, resume, retry, send
from persist_effects.flow.standing import FlowStatus, due_before, listing, outcome, result, status, unended, wait_for
from persist_effects.flow.steps import (
    Saga,
    all_of,
    call,
    child,
    continue_as_new,
    first_of,
    local,
    patched,
    random,
    saga,
    signal,
)
from persist_effects.flow.taking_up import check_history

__all__ = [
    "RESULT_LIMIT_BYTES",
    "Cancelled",
    "Finished",
    "FlowExists",
    "FlowFailed",
    "FlowStatus",
    "Flows",
    "HistoryEntry",
    "NoSuchFlow",
    "Nondeterministic",
    "Saga",
    "UnresolvedCall",
    "activity",
    "all_of",
    "begin",
    "begin_as",
    "call",
    "cancel",
    "check_history",
    "child",
    "conduct",
    "continue_as_new",
    "defined",
    "due_before",
    "first_of",
    "fork",
    "history",
    "listing",
    "local",
    "new_id",
    "now",
    "outcome",
    "own",
    "patched",
    "pause",
    "random",
    "resolve",
    "result",
    "resume",
    "retry",
    "rewind",
    "saga",
    "send",
    "signal",
    "sleep",
    "status",
    "unended",
    "unresolved",
    "wait_for",
]
