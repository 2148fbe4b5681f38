"""Five bugs planted in the memory store, one at a time: who finds them, the examples or the machine?

A suite that no broken store fails proves nothing. Each bug is one that real stores have had.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, Verbosity, settings
from msgspec import structs

from interpreters import Store
from interpreters.conformance.suite import (
    MACHINE_SETTINGS,
    NotConforming,
    StoreConformance,
    check_conformance,
    facts_of,
)
from interpreters.stores.memory import MemoryStore
from persist_effects.errors import PersistError
from persist_effects.machine import Handlers
from persist_effects.requests import (
    Conflict,
    Entry,
    ExpectSeq,
    KvDelete,
    KvGet,
    KvPut,
    LastSeq,
    Page,
    ReadAll,
    Transact,
    TruncateThrough,
)

MACHINE = "test_the_store_agrees_with_the_model_over_any_sequence_of_requests"


class _Planted:
    """A memory store with some rows of its handler table replaced."""

    def __init__(self) -> None:
        self.healthy = MemoryStore()
        self.rows = self.healthy.handlers
        self.handlers = {**self.rows, **self.plant()}

    def plant(self) -> Handlers:
        """The rows that are broken: here, none."""
        return {}

    def close(self) -> None:
        self.healthy.close()


class ReusesSeqAfterTruncation(_Planted):
    """Counts a stream by the events that are left of it, so a stream truncated whole starts again."""

    def plant(self) -> Handlers:
        return {TruncateThrough: self._truncate}

    def _truncate(self, request: TruncateThrough) -> int:
        count: int = self.rows[TruncateThrough](request)
        stream = self.healthy._streams.get(request.stream)
        if stream is not None and not stream.events:
            self.healthy._log = [logged for logged in self.healthy._log if logged.stream is not stream]
            stream.dropped = 0
        return count


class ReusesRevisionAfterDelete(_Planted):
    """Gives the revision after the highest that is stored, so the newest key's revision comes again once it is gone."""

    def plant(self) -> Handlers:
        return {KvDelete: self._delete}

    def _delete(self, request: KvDelete) -> bool | Conflict:
        answer: bool | Conflict = self.rows[KvDelete](request)
        stored = self.healthy._entries.values()
        self.healthy._revision = max((revision for _, revision in stored), default=0)
        return answer


class TransactsInPart(_Planted):
    """Makes the checks and the writes of a transaction one by one, and stops at the first that conflicts."""

    def plant(self) -> Handlers:
        return {Transact: self._transact}

    def _transact(self, request: Transact) -> list[Any] | Conflict:
        answers = []
        for check in request.checks:
            if isinstance(check, ExpectSeq):
                kind, name, actual = "stream", check.stream, self.rows[LastSeq](LastSeq(check.stream))
            else:
                entry = self.rows[KvGet](KvGet(check.key))
                kind, name, actual = "key", check.key, entry.revision if entry else 0
            if check.expected != actual:
                return Conflict(kind, name, check.expected, actual, None)
        for write in request.writes:
            answer = self.rows[type(write)](write)
            if isinstance(answer, Conflict):
                return answer
            answers.append(answer)
        return answers


class LeaksANeighbourOfThePrefix(_Planted):
    """Takes a prefix for a path, so that ``a/`` also finds ``a`` and ``a_b``."""

    def plant(self) -> Handlers:
        return {ReadAll: self._read_all}

    def _read_all(self, request: ReadAll) -> Page:
        page: Page = self.rows[ReadAll](structs.replace(request, prefix=request.prefix.rstrip("/")))
        return page


class SharesItsValues(_Planted):
    """Keeps the caller's own object in a cache, and gives it to every reader."""

    def plant(self) -> Handlers:
        self._cache: dict[int, Any] = {}
        return {KvPut: self._put, Transact: self._transact, KvGet: self._get}

    def _put(self, request: KvPut) -> int | Conflict:
        answer: int | Conflict = self.rows[KvPut](request)
        if isinstance(answer, int):
            self._cache[answer] = request.value
        return answer

    def _transact(self, request: Transact) -> list[Any] | Conflict:
        answers: list[Any] | Conflict = self.rows[Transact](request)
        if isinstance(answers, list):
            for write, answer in zip(request.writes, answers, strict=True):
                if isinstance(write, KvPut):
                    self._cache[answer] = write.value
        return answers

    def _get(self, request: KvGet) -> Entry | None:
        entry: Entry | None = self.rows[KvGet](request)
        return None if entry is None else Entry(self._cache[entry.revision], entry.revision)


# The examples that were written for each bug, and find it. The machine finds all five.
FOUND_BY: dict[type[_Planted], set[str]] = {
    ReusesSeqAfterTruncation: {
        "test_a_truncated_stream_goes_on_counting",
        "test_truncation_never_lowers_the_last_sequence_number",
        "test_an_append_after_a_truncation_expects_the_high_water_mark",
    },
    ReusesRevisionAfterDelete: {"test_a_key_deleted_and_put_again_never_repeats_a_revision"},
    TransactsInPart: {
        "test_a_transaction_that_conflicts_writes_nothing",
        "test_a_value_that_cannot_be_stored_refuses_the_whole_transaction",
    },
    LeaksANeighbourOfThePrefix: {
        "test_a_prefix_keeps_other_streams_out",
        "test_every_prefix_finds_what_starts_with_it_and_nothing_else",
    },
    SharesItsValues: {
        "test_changing_what_was_given_to_the_store_changes_nothing_stored",
        "test_changing_what_was_given_to_a_transaction_changes_nothing_stored",
        "test_changing_what_was_read_changes_nothing_stored",
    },
}


def _suite(kind: type[_Planted]) -> StoreConformance:
    class Suite(StoreConformance):
        # The first sequence that fails is enough here: making it short takes longer than finding it.
        machine_settings = settings(MACHINE_SETTINGS, phases=[Phase.generate], verbosity=Verbosity.quiet)

        def open_store(self) -> Store:
            return Store(kind())

    return Suite()


def _is_broken(fact: Callable[[], None]) -> bool:
    # An AssertionError is a wrong answer; a store whose books are wrong may also stumble over them.
    try:
        fact()
    except (AssertionError, PersistError):
        return True
    return False


@pytest.mark.parametrize("kind", FOUND_BY, ids=lambda kind: kind.__name__)
def test_the_examples_find_the_bug(kind: type[_Planted]) -> None:
    facts = facts_of(_suite(kind))
    assert {name for name in FOUND_BY[kind] if _is_broken(facts[name])} == FOUND_BY[kind]


@pytest.mark.parametrize("kind", FOUND_BY, ids=lambda kind: kind.__name__)
def test_the_machine_finds_the_bug(kind: type[_Planted]) -> None:
    assert _is_broken(facts_of(_suite(kind))[MACHINE])


@pytest.mark.parametrize("kind", FOUND_BY, ids=lambda kind: kind.__name__)
def test_the_call_names_a_fact_that_is_broken(kind: type[_Planted]) -> None:
    with pytest.raises(NotConforming) as broken:
        check_conformance(lambda: Store(kind()))
    assert _is_broken(facts_of(_suite(kind))[broken.value.fact])
    assert broken.value.fact.removeprefix("test_").replace("_", " ") in str(broken.value)


def test_the_healthy_store_passes_both() -> None:
    assert [name for name, fact in facts_of(_suite(_Planted)).items() if _is_broken(fact)] == []
