"""The memory store is the specification, so it passes first: through the subclass, and through the call."""

import threading
from collections.abc import Iterable
from typing import Any, cast

import pytest
from fewer import FEWER
from lagging import LaggingMemoryStore
from msgspec import structs

from interpreters import Store, open_store
from interpreters.conformance import Capabilities, NotConforming, StoreConformance, check_conformance, facts_of
from interpreters.conformance.facts.base import needed_by
from interpreters.stores.memory import MemoryStore
from persist_effects.errors import InvalidRequest
from persist_effects.requests import (
    WRITES,
    KvGet,
    KvHas,
    KvKeys,
    KvWait,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Request,
    Streams,
    Transact,
    Wait,
)

GAP = 5
"""How many positions, and revisions, the sparse store leaves out before a commit."""


class TestMemoryStore(StoreConformance):
    capabilities = Capabilities(reopen=True)

    def open_store(self) -> Store:
        return open_store("memory:")

    def reopen(self, store: Store) -> Store:
        # A memory store lives until it is closed, so another one is opened beside this one, on the same interpreter.
        return Store(store.interpreter)


class _SparseMemoryStore:
    """Chooses for itself what a store may: between commits its numbers have gaps, and its pages are short."""

    def __init__(self) -> None:
        self._dense = MemoryStore()
        self._lock = threading.Lock()
        self._rows = self._dense.handlers
        self.handlers = {
            **self._rows,
            **dict.fromkeys(WRITES, self._write),
            **dict.fromkeys((Read, ReadAll), self._read),
        }

    def close(self) -> None:
        self._dense.close()

    def _write(self, request: Request[Any]) -> Any:
        dense = self._dense
        with self._lock:
            position, revision = dense._position, dense._revision
            dense._position, dense._revision = position + GAP, revision + GAP
            try:
                return self._rows[type(request)](request)
            finally:
                if dense._position == position + GAP:
                    dense._position = position
                if dense._revision == revision + GAP:
                    dense._revision = revision

    def _read(self, request: Read | ReadAll) -> Page:
        page: Page = self._rows[type(request)](structs.replace(request, limit=min(request.limit, 8)))
        return page


@pytest.mark.exploration
class TestSparseMemoryStore(StoreConformance):
    machine_settings = FEWER

    def open_store(self) -> Store:
        return Store(_SparseMemoryStore())


@pytest.mark.exploration
class TestLaggingMemoryStore(StoreConformance):
    capabilities = Capabilities(order_lags=True)

    def open_store(self) -> Store:
        return Store(LaggingMemoryStore())


@pytest.mark.parametrize(
    ("also", "never", "fact"),
    [
        (None, "whole", "all_streams_are_read_in_the_order_in_which_they_were_written"),
        (None, "stops", "a_reader_that_goes_on_at_once_misses_nothing"),
        (None, "waits", "what_a_wait_answers_can_be_read"),
        (LastSeq, "", "truncation_never_lowers_the_last_sequence_number"),
        (Read, "", "drafts_of_one_append_are_numbered_in_their_order"),
        (Streams, "", "a_truncated_stream_is_still_listed"),
        (KvGet, "", "a_value_put_is_there_with_the_revision_that_was_answered"),
        (KvKeys, "", "keys_are_listed_once_sorted_by_code_point"),
        (KvHas, "", "a_value_put_is_there_with_the_revision_that_was_answered"),
        (None, "shown", "an_append_that_conflicts_writes_nothing"),
        (None, "tells", "an_append_that_conflicts_writes_nothing"),
    ],
)
def test_a_store_whose_order_lags_in_a_wrong_way_is_caught(
    also: type[Request[Any]] | None, never: str, fact: str
) -> None:
    with pytest.raises(NotConforming) as caught:
        check_conformance(lambda: Store(LaggingMemoryStore(also, never=never)), Capabilities(order_lags=True))
    assert caught.value.fact == f"test_{fact}"


class _Claiming:
    """The memory store with other rows, and claims of its own, which may be false."""

    def __init__(self, capabilities: Capabilities | None = None, without: Iterable[type[Request[Any]]] = ()) -> None:
        self._inner = MemoryStore()
        self.handlers = {kind: row for kind, row in self._inner.handlers.items() if kind not in set(without)}
        self.close = self._inner.close
        if capabilities is not None:
            self.capabilities = capabilities

    def wait_for_order(self, timeout: float) -> None:
        """There is nothing to wait for."""


class TestMemoryStoreThatCannotMuch(StoreConformance):
    capabilities = Capabilities(transact=False, wait=False)

    def open_store(self) -> Store:
        return Store(_Claiming(without=(Transact, Wait, KvWait)))


class _MemoryStoreThatCanAgain(TestMemoryStoreThatCannotMuch):
    capabilities = Capabilities(reopen=True)


@pytest.mark.parametrize(
    ("claimed", "held_to", "fact"),
    [
        (Capabilities(payload_limit_bytes=2**17), Capabilities(), "claims_what_it_is_held_to"),
        (Capabilities(payload_limit_bytes=2**17), Capabilities(payload_limit_bytes=2**17), "stored_is_refused"),
        (Capabilities(payload_limit_bytes=2**24), Capabilities(payload_limit_bytes=2**24), "at_the_limit_is_stored"),
        (Capabilities(batch_limit=10), Capabilities(batch_limit=10), "as_many_events_as_the_store_claims"),
        (Capabilities(transact=False), Capabilities(transact=False), "does_not_claim_it_refuses_by_name"),
        (Capabilities(wait=False), Capabilities(wait=False), "does_not_claim_it_refuses_by_name"),
        (Capabilities(order_lags=True), Capabilities(), "claims_what_it_is_held_to"),
        (Capabilities(durability="os"), Capabilities(), "to_outlive_its_process_can_be_reopened"),
    ],
)
def test_a_store_that_claims_what_is_not_so_is_caught(claimed: Capabilities, held_to: Capabilities, fact: str) -> None:
    with pytest.raises(NotConforming) as caught:
        check_conformance(lambda: Store(_Claiming(claimed)), held_to)
    assert fact in caught.value.fact


def test_an_interpreter_that_says_nothing_claims_what_it_has_rows_for() -> None:
    with Store(_Claiming(without=(Wait,))) as store:
        assert store.capabilities == Capabilities(wait=False)


def test_capabilities_that_are_none_are_refused_at_the_door() -> None:
    with pytest.raises(InvalidRequest, match=r"the capabilities of a _Claiming are a dict, .*: give a Capabilities"):
        Store(_Claiming(cast(Any, {"reopen": True})))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"durability": "disk"}, "durability is 'disk': give one of memory, os, interval, commit"),
        ({"processes": 2}, "processes is 2: give one of one, one-writer, many"),
        ({"order_lags": 1}, "order_lags is an int, 1: give True or False"),
        ({"payload_limit_bytes": 0}, "payload_limit_bytes"),
        ({"batch_limit": 0}, "batch_limit"),
    ],
)
def test_capabilities_are_checked_where_they_are_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Capabilities(**fields)


@pytest.mark.exploration
def test_the_memory_store_passes_through_one_call() -> None:
    check_conformance(lambda: open_store("memory:"))


def test_facts_about_what_a_store_cannot_do_are_left_out() -> None:
    everything = set(facts_of(TestMemoryStore()))
    left_out = everything - set(facts_of(TestMemoryStoreThatCannotMuch()))
    assert {
        "test_counting_goes_on_after_reopening",
        "test_a_transaction_that_conflicts_writes_nothing",
        "test_a_waiting_thread_is_woken_by_a_transaction",
        "test_a_waiting_thread_is_woken_by_an_append",
    } < left_out
    assert set(facts_of(_MemoryStoreThatCanAgain())) == everything


def test_no_two_facts_have_one_name() -> None:
    """One would hide the other."""
    names = [name for group in StoreConformance.__mro__ for name in vars(group) if name.startswith("test_")]
    of_sql = {name for name in names if "sql" in needed_by(getattr(StoreConformance, name))}
    assert len(names) == len(set(names)) == len(facts_of(TestMemoryStore())) + len(of_sql)
    assert len(of_sql) > 5
