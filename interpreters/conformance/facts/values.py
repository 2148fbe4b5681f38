# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of what is stored: values come back the same and fresh; what cannot be stored is refused."""

from collections.abc import Callable
from typing import Any

import msgspec

from interpreters.conformance.facts.base import (
    Facts,
    append,
    ask,
    data_of,
    error_of,
    needs,
    put,
    read_everything,
    read_whole,
)
from interpreters.conformance.strategies import AWKWARD_VALUES, same_value
from interpreters.runtime.store import Store
from persist_effects.codec import DEPTH_LIMIT
from persist_effects.errors import InvalidRequest, TooLarge
from persist_effects.event import INT64_MAX, Draft
from persist_effects.requests import (
    Append,
    Entry,
    ExpectSeq,
    KvDelete,
    KvGet,
    KvKeys,
    KvPut,
    ReadAll,
    Streams,
    Transact,
    Write,
)


class _Line(msgspec.Struct):
    sku: str
    count: int


class ValueFacts(Facts):
    """Values in, the same values out."""

    def test_every_kind_of_value_is_read_back_the_same_from_an_event(self, store: Store) -> None:
        append(store, "a", *AWKWARD_VALUES)
        for found in (read_whole(store, "a"), read_everything(store)):
            for value, event in zip(AWKWARD_VALUES, found, strict=True):
                assert same_value(event.data, value)

    def test_every_kind_of_value_is_read_back_the_same_from_a_key(self, store: Store) -> None:
        for value in AWKWARD_VALUES:
            put(store, "a", value)
            assert same_value(_value(store, "a"), value)

    def test_every_kind_of_value_is_read_back_the_same_from_meta(self, store: Store) -> None:
        for value in AWKWARD_VALUES:
            ask(store, Append("a", (Draft("made", 0, None, {"it": value}),)))
        for value, event in zip(AWKWARD_VALUES, read_whole(store, "a"), strict=True):
            assert same_value(event.meta, {"it": value})

    def test_a_value_as_deep_as_allowed_is_stored(self, store: Store) -> None:
        put(store, "a", _nested(DEPTH_LIMIT))
        append(store, "a", _nested(DEPTH_LIMIT))
        assert _value(store, "a") == read_whole(store, "a")[0].data == _nested(DEPTH_LIMIT)

    def test_a_struct_is_stored_as_the_dict_of_its_fields(self, store: Store) -> None:
        put(store, "a", [_Line("tea", 2)])
        append(store, "a", _Line("tea", 2))
        assert same_value(_value(store, "a"), [{"sku": "tea", "count": 2}])
        assert same_value(read_whole(store, "a")[0].data, {"sku": "tea", "count": 2})

    def test_changing_what_was_given_to_the_store_changes_nothing_stored(self, store: Store) -> None:
        given: dict[str, Any] = {"items": ["tea"]}
        put(store, "a", given)
        ask(store, Append("a", (Draft("made", given, None, given),)))
        given["items"].append("rice")
        given["total"] = 3
        (event,) = read_whole(store, "a")
        assert _value(store, "a") == event.data == event.meta == {"items": ["tea"]}

    @needs("transact")
    def test_changing_what_was_given_to_a_transaction_changes_nothing_stored(self, store: Store) -> None:
        given = ["tea"]
        ask(store, Transact((KvPut("a", given), Append("a", (Draft("made", given),)))))
        given.append("rice")
        assert _value(store, "a") == read_whole(store, "a")[0].data == ["tea"]

    def test_changing_what_was_read_changes_nothing_stored(self, store: Store) -> None:
        put(store, "a", {"items": ["tea"]})
        ask(store, Append("a", (Draft("made", ["tea"], None, {"tags": []}),)))
        _value(store, "a")["items"].append("rice")
        for read in _READERS:
            (event,) = read(store)
            event.data.append("rice")
            assert event.meta is not None
            event.meta["tags"].append("new")
        assert _value(store, "a") == {"items": ["tea"]}
        for read in _READERS:
            (event,) = read(store)
            assert (event.data, event.meta) == (["tea"], {"tags": []})

    def test_a_page_that_was_read_is_the_readers_own(self, store: Store) -> None:
        append(store, "a", 1)
        ask(store, ReadAll()).events.clear()
        ask(store, Streams()).clear()
        put(store, "k", 1)
        ask(store, KvKeys()).clear()
        assert data_of(read_everything(store)) == [1]
        assert (ask(store, Streams()), ask(store, KvKeys())) == (["a"], ["k"])


class RefusalFacts(Facts):
    """What cannot be stored is refused before anything is written."""

    def test_what_cannot_be_stored_is_refused_and_nothing_is_written(self, store: Store) -> None:
        for value in _unstorable():
            for request in (
                KvPut("a", value),
                Append("a", (Draft("made", 1), Draft("made", value))),
                Append("a", (Draft("made", 1, None, {"it": value}),)),
            ):
                assert isinstance(error_of(store, request), InvalidRequest)
        assert ask(store, KvKeys()) == []
        assert ask(store, Streams()) == []
        assert append(store, "a", 1).first_seq == 1

    def test_what_cannot_be_stored_is_refused_also_where_it_would_conflict(self, store: Store) -> None:
        """Else a mistake of the caller's shows only where nobody else was faster."""
        append(store, "a", 1)
        put(store, "a", 1)
        too_large = bytes(self.capabilities.payload_limit_bytes)
        for value, refusal in (({1, 2}, InvalidRequest), ([too_large], TooLarge)):
            for wrong in (0, INT64_MAX):
                for request in (
                    KvPut("a", value, wrong),
                    Append("a", (Draft("made", value),), wrong),
                    Append("a", (Draft("made", 1, None, {"it": value}),), wrong),
                ):
                    assert isinstance(error_of(store, request), refusal)

    @needs("transact")
    def test_a_value_that_cannot_be_stored_is_refused_also_after_a_conflict(self, store: Store) -> None:
        append(store, "a", 1)
        guilty: tuple[Write, ...] = (KvPut("k", {1, 2}), Append("b", (Draft("made", {1, 2}),)))
        conflicting: tuple[Write, ...] = (
            Append("a", (Draft("made", 2),), 0),
            KvPut("j", 1, INT64_MAX),
            KvDelete("j", INT64_MAX),
        )
        for last in guilty:
            for first in conflicting:
                assert isinstance(error_of(store, Transact((first, last))), InvalidRequest)
            assert isinstance(error_of(store, Transact((last,), (ExpectSeq("a", 0),))), InvalidRequest)

    def test_what_cannot_be_stored_leaves_the_old_value(self, store: Store) -> None:
        revision = put(store, "a", 1)
        assert isinstance(error_of(store, KvPut("a", {1, 2})), InvalidRequest)
        assert ask(store, KvGet("a")) == Entry(1, revision)

    def test_a_payload_at_the_limit_is_stored(self, store: Store) -> None:
        value = bytes(self.capabilities.payload_limit_bytes - _BYTES_HEADER)
        put(store, "a", value)
        append(store, "a", value)
        assert _value(store, "a") == value
        assert data_of(read_whole(store, "a")) == [value]

    def test_a_payload_over_the_limit_is_refused_and_nothing_is_written(self, store: Store) -> None:
        limit = self.capabilities.payload_limit_bytes
        value = bytes(limit - _BYTES_HEADER + 1)
        for request in (
            KvPut("a", value),
            Append("a", (Draft("made", 1), Draft("made", value))),
            Append("a", (Draft("made", 1, None, {"it": value}),)),
        ):
            refused = error_of(store, request)
            assert isinstance(refused, TooLarge)
            assert refused.size_bytes > refused.limit_bytes == limit
        assert ask(store, KvKeys()) == []
        assert ask(store, Streams()) == []

    @needs("transact")
    def test_a_payload_over_the_limit_refuses_the_whole_transaction(self, store: Store) -> None:
        value = bytes(self.capabilities.payload_limit_bytes)
        assert isinstance(
            error_of(store, Transact((KvPut("a", 1), Append("a", (Draft("made", 1),)), KvPut("b", value)))), TooLarge
        )
        assert ask(store, KvKeys()) == []
        assert ask(store, Streams()) == []


# What msgpack puts before bytes of 64 KiB and more: one byte for the kind, four for the length.
_BYTES_HEADER = 5

_READERS: tuple[Callable[[Store], Any], ...] = (lambda store: read_whole(store, "a"), read_everything)


def _value(store: Store, key: str) -> Any:
    entry = ask(store, KvGet(key))
    assert entry is not None
    return entry.value


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _unstorable() -> list[Any]:
    itself: list[Any] = []
    itself.append(itself)
    return [
        (1, 2),
        {1, 2},
        bytearray(b"x"),
        object(),
        1j,
        2**64,
        -(2**63) - 1,
        {1: "a"},
        {"a": {None: 1}},
        "\ud800",
        {"\udfff": 1},
        [[{"deep": (1,)}]],
        _nested(DEPTH_LIMIT + 1),
        itself,
    ]
