"""Durable flows: programs that also do things outside, and survive crashes by a journal.

>>> from persist_effects import flow
"""

from persist_effects.clock import new_id, now, sleep
from persist_effects.errors import NoSuchFlow
from persist_effects.flow.conducting import RESULT_LIMIT_BYTES, Finished, check_history, conduct
from persist_effects.flow.defining import Flows, activity, defined
from persist_effects.flow.forking import fork, rewind
from persist_effects.flow.history import HistoryEntry, UnresolvedCall, history, unresolved
from persist_effects.flow.outside import (
    FlowStatus,
    begin,
    begin_as,
    cancel,
    due_before,
    listing,
    outcome,
    own,
    pause,
    resolve,
    result,
    resume,
    retry,
    send,
    status,
    unended,
    wait_for,
)
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

__all__ = [
    "RESULT_LIMIT_BYTES",
    "Finished",
    "FlowStatus",
    "Flows",
    "HistoryEntry",
    "NoSuchFlow",
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
