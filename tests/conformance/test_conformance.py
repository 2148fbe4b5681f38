"""The memory store is the specification, so it passes first: through the subclass, and through the call."""

from typing import Any

from msgspec import structs

from interpreters import Store, open_store
from interpreters.conformance import Capabilities, StoreConformance, check_conformance, facts_of
from interpreters.stores.memory import MemoryStore
from persist_effects.event import Event
from persist_effects.machine import Handlers
from persist_effects.requests import Append, Appended, Conflict, KvDelete, KvPut, Page, Read, ReadAll, Transact, Wait

GAP = 5
"""Between two positions of the sparse store."""


class TestMemoryStore(StoreConformance):
    capabilities = Capabilities(reopen=True)

    def open_store(self) -> Store:
        return open_store("memory:")

    def reopen(self, store: Store) -> Store:
        # A memory store lives until it is closed, so another one is opened beside this one, on the same interpreter.
        return Store(store.interpreter)


class _SparseMemoryStore:
    """Chooses for itself what a store may: its positions and revisions have gaps, and its pages are short."""

    def __init__(self) -> None:
        self._dense = MemoryStore()
        self._rows = self._dense.handlers
        own: Handlers = {
            Append: lambda request: _spread(self._rows[Append](request)),
            Transact: self._transact,
            Read: self._read,
            ReadAll: self._read_all,
            Wait: lambda request: GAP * self._rows[Wait](structs.replace(request, after=request.after // GAP)),
            KvPut: self._put,
        }
        self.handlers = {**self._rows, **own}

    def close(self) -> None:
        self._dense.close()

    def _transact(self, request: Transact) -> list[Any] | Conflict:
        answers: list[Any] | Conflict = self._rows[Transact](request)
        return answers if isinstance(answers, Conflict) else [_spread(answer) for answer in answers]

    def _read(self, request: Read) -> Page:
        page: Page = self._rows[Read](structs.replace(request, limit=min(request.limit, 8)))
        return structs.replace(page, events=[_spread(event) for event in page.events])

    def _read_all(self, request: ReadAll) -> Page:
        after, limit = request.after // GAP, min(request.limit, 8)
        page: Page = self._rows[ReadAll](structs.replace(request, after=after, limit=limit))
        events = [_spread(event) for event in page.events]
        return structs.replace(page, events=events, next=max(GAP * page.next, request.after), head=GAP * page.head)

    def _put(self, request: KvPut) -> int | Conflict:
        # A transaction that leaves nothing behind takes a revision away.
        self._rows[Transact](Transact((KvPut("passing", None), KvDelete("passing"))))
        answer: int | Conflict = self._rows[KvPut](request)
        return answer


def _spread(answer: Any) -> Any:
    return structs.replace(answer, position=GAP * answer.position) if isinstance(answer, Appended | Event) else answer


class TestSparseMemoryStore(StoreConformance):
    def open_store(self) -> Store:
        return Store(_SparseMemoryStore())


class TestMemoryStoreThatCannotMuch(TestMemoryStore):
    capabilities = Capabilities(transact=False, wait=False)


class _MemoryStoreThatCanAgain(TestMemoryStoreThatCannotMuch):
    capabilities = Capabilities(reopen=True)


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
    assert len(names) == len(set(names)) == len(facts_of(TestMemoryStore()))
