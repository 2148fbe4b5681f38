# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""What a store says of itself must be so: what it claims it does, and what it does not claim it refuses by name."""

from typing import Any

from interpreters.conformance.facts.base import Facts, ask, error_of, needs
from interpreters.runtime.store import Store
from persist_effects.errors import InvalidRequest, TooLarge, UnhandledEffect
from persist_effects.event import Draft
from persist_effects.requests import Append, KvKeys, KvPut, KvWait, Request, Streams, Transact, Wait

SEEN = ("order_lags", "payload_limit_bytes", "batch_limit", "transact", "wait", "sql")
"""What both the store and the suite say. Whether it can be reopened the suite alone knows how to try."""

LARGE_BATCH = 2_000
"""How many writes a store takes together that says nothing of a limit."""


class ClaimFacts(Facts):
    """Whoever chooses a store reads `Store.capabilities`, so the facts go by the same ones."""

    def test_the_store_claims_what_it_is_held_to(self, store: Store) -> None:
        claimed = {name: getattr(store.capabilities, name) for name in SEEN}
        held_to = {name: getattr(self.capabilities, name) for name in SEEN}
        assert claimed == held_to, "store.capabilities and the suite's capabilities differ: make one of them the other"

    def test_a_store_that_claims_to_outlive_its_process_can_be_reopened(self, store: Store) -> None:
        assert self.capabilities.reopen or not store.capabilities.is_durable, (
            f"the store claims durability={store.capabilities.durability!r}: give the suite a reopen, and "
            "Capabilities(reopen=True)"
        )

    def test_what_the_store_does_not_claim_it_refuses_by_name(self, store: Store) -> None:
        unclaimed: list[tuple[str, Request[Any]]] = [
            ("transact", Transact((KvPut("a", 1),))),
            ("wait", Wait(0, timeout=0)),
            ("wait", KvWait(0, timeout=0)),
        ]
        for name, request in unclaimed:
            if not getattr(self.capabilities, name):
                assert isinstance(error_of(store, request), UnhandledEffect), name

    def test_an_append_takes_as_many_events_as_the_store_claims(self, store: Store) -> None:
        limit = self.capabilities.batch_limit
        ask(store, Append("a", _drafts(limit or LARGE_BATCH)))
        if limit is not None:
            assert isinstance(error_of(store, Append("b", _drafts(limit + 1))), InvalidRequest | TooLarge)
            assert ask(store, Streams()) == ["a"]

    @needs("transact")
    def test_a_transaction_takes_as_many_writes_as_the_store_claims(self, store: Store) -> None:
        limit = self.capabilities.batch_limit
        ask(store, _puts("a", limit or LARGE_BATCH))
        if limit is not None:
            assert isinstance(error_of(store, _puts("b", limit + 1)), InvalidRequest | TooLarge)
            assert ask(store, KvKeys("b")) == []


def _drafts(count: int) -> tuple[Draft, ...]:
    return tuple(Draft("made", number) for number in range(count))


def _puts(prefix: str, count: int) -> Transact:
    return Transact(tuple(KvPut(f"{prefix}/{number}", number) for number in range(count)))
