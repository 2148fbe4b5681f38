# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of names: every valid name works on every store, as itself and as a prefix, whatever the engine makes of it."""

from interpreters.conformance.facts.base import Facts, append, ask, data_of, put, read_everything, read_whole
from interpreters.conformance.strategies import AWKWARD_NAMES
from interpreters.runtime.store import Store
from persist_effects.event import Draft
from persist_effects.requests import (
    Append,
    Conflict,
    KvDelete,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    LastSeq,
    ReadAll,
    Streams,
    TruncateThrough,
)


class NameFacts(Facts):
    """Streams, keys and types under awkward names."""

    def test_a_stream_may_have_any_valid_name_and_meets_no_other(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            append(store, name, name, expected=0)
        for name in AWKWARD_NAMES:
            (event,) = read_whole(store, name)
            assert (event.stream, event.data) == (name, name)
            assert ask(store, LastSeq(name)) == 1

    def test_truncating_a_stream_of_any_name_touches_no_other(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            append(store, name, name)
        left = list(AWKWARD_NAMES)
        while left:
            assert ask(store, TruncateThrough(left.pop(0), 1)) == 1
            assert data_of(read_everything(store)) == left

    def test_a_key_may_have_any_valid_name_and_meets_no_other(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            put(store, name, name, expected=0)
        for name in AWKWARD_NAMES:
            entry = ask(store, KvGet(name))
            assert entry is not None
            assert entry.value == name
        for name in AWKWARD_NAMES:
            assert ask(store, KvDelete(name)) is True
            assert ask(store, KvHas(name)) is False
        assert ask(store, KvKeys()) == []

    def test_an_event_type_may_have_any_valid_name_and_meets_no_other(self, store: Store) -> None:
        ask(store, Append("a", tuple(Draft(name, name) for name in AWKWARD_NAMES)))
        for name in AWKWARD_NAMES:
            page = ask(store, ReadAll(types=(name,)))
            assert [(event.type, event.data) for event in page.events] == [(name, name)]

    def test_names_are_sorted_by_code_point_whatever_they_are(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            append(store, name, 0)
            put(store, name, 0)
        assert ask(store, Streams()) == sorted(AWKWARD_NAMES)
        assert ask(store, KvKeys()) == sorted(AWKWARD_NAMES)

    def test_every_prefix_finds_what_starts_with_it_and_nothing_else(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            append(store, name, name)
            put(store, name, 0)
        for prefix in (*AWKWARD_NAMES, *(name[:1] for name in AWKWARD_NAMES), "nothing starts so", "a" * 600):
            wanted = [name for name in AWKWARD_NAMES if name.startswith(prefix)]
            assert data_of(read_everything(store, prefix)) == wanted
            assert ask(store, Streams(prefix)) == sorted(wanted)
            assert ask(store, KvKeys(prefix)) == sorted(wanted)

    def test_listings_go_on_past_every_name(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            append(store, name, 0)
            put(store, name, 0)
        for index, name in enumerate(sorted(AWKWARD_NAMES), 1):
            wanted = sorted(AWKWARD_NAMES)[index : index + 3]
            assert ask(store, Streams(after=name, limit=3)) == wanted
            assert ask(store, KvKeys(after=name, limit=3)) == wanted

    def test_a_conflict_gives_the_name_back_as_it_was(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            assert ask(store, Append(name, (Draft("made", 0),), 3)) == Conflict("stream", name, 3, 0)
            assert ask(store, KvPut(name, 0, 3)) == Conflict("key", name, 3, 0)
