# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of closed stores: they say so, also to who waits."""

import threading
from typing import Any

from interpreters.conformance.facts.base import Facts, append, needs, put
from interpreters.conformance.facts.concurrency import PATIENCE_SECONDS
from interpreters.runtime.store import Store
from persist_effects.errors import StoreClosed
from persist_effects.event import Draft
from persist_effects.machine import outcome_of
from persist_effects.requests import (
    Append,
    Failed,
    KvDelete,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    LastSeq,
    Read,
    ReadAll,
    Request,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)

_REQUESTS: tuple[Request[Any], ...] = (
    Append("a", (Draft("made", 1),)),
    TruncateThrough("a", 1),
    Read("a"),
    ReadAll(),
    LastSeq("a"),
    Streams(),
    KvGet("k"),
    KvHas("k"),
    KvPut("k", 1),
    KvDelete("k"),
    KvKeys(),
    Transact((KvPut("k", 1),)),
    Wait(0),
)


class CloseFacts(Facts):
    """Programs that outlive their store must not take silence, or old values, for an answer."""

    def test_a_closed_store_answers_nothing(self, store: Store) -> None:
        append(store, "a", 1)
        put(store, "k", 1)
        rows = store.interpreter.handlers
        store.close()
        for request in _REQUESTS:
            if type(request) in rows:
                outcome = outcome_of(request, rows)
                assert isinstance(outcome, Failed), f"{request} was answered: {outcome}"
                assert isinstance(outcome.error, StoreClosed), f"{request} met {outcome.error!r}"

    @needs("wait")
    def test_a_waiting_thread_is_told_that_the_store_was_closed(self, store: Store) -> None:
        rows, outcomes, is_ready = store.interpreter.handlers, [], threading.Event()

        def wait() -> None:
            is_ready.set()
            outcomes.append(outcome_of(Wait(0, timeout=PATIENCE_SECONDS), rows))

        waiter = threading.Thread(target=wait)
        waiter.start()
        is_ready.wait()
        store.close()
        waiter.join()
        assert isinstance(outcomes[0], Failed), f"it was answered: {outcomes[0]}"
        assert isinstance(outcomes[0].error, StoreClosed)
