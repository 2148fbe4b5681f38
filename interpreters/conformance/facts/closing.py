# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of closed stores: they say so, also to who waits."""

import math
import threading
from typing import Any

from interpreters.conformance.facts.base import Facts, append, needs, put
from interpreters.runtime.store import Store
from persist_effects.errors import StoreClosed
from persist_effects.event import Draft
from persist_effects.machine import outcome_of
from persist_effects.requests import (
    Advance,
    Append,
    Begin,
    Failed,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    Outcome,
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
    KvEntries(),
    Begin("b", 1),
    Advance(7, 7),
    Transact((KvPut("k", 1),)),
    Wait(0),
    KvWait(0),
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
        with self.open_store() as another:
            self._check_told(store, Wait)
            self._check_told(another, KvWait)

    def _check_told(self, store: Store, kind: type[Wait | KvWait]) -> None:
        rows, is_ready = store.interpreter.handlers, threading.Event()

        def wait() -> Outcome | None:
            is_ready.set()
            return outcome_of(kind(0, timeout=math.inf), rows)

        def close() -> None:
            is_ready.wait()
            store.close()

        outcome, _ = self.together(wait, close)
        assert isinstance(outcome, Failed), f"it was answered: {outcome}"
        assert isinstance(outcome.error, StoreClosed)
