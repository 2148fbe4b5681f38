# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of stores that are told to go on above numbers that another store has given."""

from interpreters.conformance.facts.base import Facts, append, ask, data_of, needs, put, read_everything
from interpreters.runtime.store import Store
from persist_effects.requests import Advance, Conflict, KvGet, KvPut, LastSeq, ReadAll

_FAR = 1_000_000_007


class AdvanceFacts(Facts):
    """Positions and revisions that go on above others."""

    def test_what_is_written_after_an_advance_has_numbers_above_it(self, store: Store) -> None:
        first = append(store, "a", 1).position
        revision = put(store, "k", 1)
        position, revision = first + _FAR, revision + 2 * _FAR
        assert ask(store, Advance(position, revision)) is None
        assert append(store, "a", 2, 3).first_position > position
        assert put(store, "k", 2) > revision

    def test_an_advance_changes_nothing_that_is_there(self, store: Store) -> None:
        append(store, "a", 1, 2)
        revision = put(store, "k", 1)
        before = read_everything(store)
        ask(store, Advance(_FAR, _FAR))
        assert read_everything(store) == before
        assert ask(store, LastSeq("a")) == 2
        entry = ask(store, KvGet("k"))
        assert entry is not None
        assert (entry.value, entry.revision) == (1, revision)
        assert append(store, "a", 3).first_seq == 3

    def test_an_advance_to_what_was_given_before_takes_nothing_back(self, store: Store) -> None:
        ask(store, Advance(_FAR, _FAR))
        position, revision = append(store, "a", 1).position, put(store, "k", 1)
        assert ask(store, Advance(5, 5)) is None
        assert ask(store, Advance()) is None
        assert append(store, "a", 2).position > position
        assert put(store, "k", 2) > revision

    def test_whoever_read_up_to_the_advance_misses_nothing(self, store: Store) -> None:
        position = append(store, "a", 1).position + _FAR
        ask(store, Advance(position=position))
        append(store, "b", 2)
        assert data_of(ask(store, ReadAll(after=position)).events) == [2]

    def test_whoever_stands_at_an_advance_is_not_past_the_end(self, store: Store) -> None:
        position = append(store, "a", 1).position + _FAR
        ask(store, Advance(position=position))
        page = ask(store, ReadAll(after=position))
        assert (page.events, page.head >= position, page.next >= position) == ([], True, True)

    def test_what_expects_a_revision_of_another_store_conflicts(self, store: Store) -> None:
        there = put(store, "k", 1) + _FAR
        ask(store, Advance(revision=there))
        revision = put(store, "k", 1)
        for expected in (1, there):
            assert ask(store, KvPut("k", 2, expected)) == Conflict("key", "k", expected, revision)

    @needs("reopen")
    def test_an_advance_outlives_the_process(self, store: Store) -> None:
        position, revision = append(store, "a", 1).position + _FAR, put(store, "k", 1) + 2 * _FAR
        ask(store, Advance(position, revision))
        with self.reopen(store) as again:
            assert append(again, "a", 2).position > position
            assert put(again, "k", 2) > revision
