# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of stores that outlive their process: closed and opened again, nothing has changed and all counters go on."""

from interpreters.conformance.facts.base import Facts, append, ask, needs, put, read_everything, read_whole
from interpreters.conformance.strategies import AWKWARD_NAMES, AWKWARD_VALUES, same_value
from interpreters.runtime.store import Store
from persist_effects.requests import (
    Begin,
    Conflict,
    Entry,
    Hole,
    KvDelete,
    KvGet,
    KvKeys,
    KvWait,
    LastSeq,
    ReadAll,
    Streams,
    TruncateThrough,
)


class ReopenFacts(Facts):
    """What must be as it was."""

    @needs("reopen")
    def test_everything_is_there_after_reopening(self, store: Store) -> None:
        append(store, "a", *AWKWARD_VALUES)
        append(store, "b", 1, 2)
        revision = put(store, "k", {"color": "red"})
        before = read_everything(store)
        with self.reopen(store) as again:
            for old, new in zip(before, read_everything(again), strict=True):
                assert (new.stream, new.seq, new.at, new.position) == (old.stream, old.seq, old.at, old.position)
                assert same_value(new.data, old.data)
            assert ask(again, KvGet("k")) == Entry({"color": "red"}, revision)
            assert ask(again, Streams()) == ["a", "b"]

    @needs("reopen")
    def test_counting_goes_on_after_reopening(self, store: Store) -> None:
        position = append(store, "a", 1, 2).position
        revision = put(store, "k", 1)
        with self.reopen(store) as again:
            appended = append(again, "a", 3, expected=2)
            assert appended.first_seq == 3
            assert appended.position > position
            assert put(again, "k", 2, expected=revision) > revision

    @needs("reopen")
    def test_a_stream_truncated_whole_goes_on_counting_after_reopening(self, store: Store) -> None:
        """With no event left, only the store's own books know where the stream was."""
        position = append(store, "a", 1, 2).position
        ask(store, TruncateThrough("a", 2))
        with self.reopen(store) as again:
            assert ask(again, LastSeq("a")) == 2
            assert ask(again, Streams()) == ["a"]
            page = ask(again, ReadAll())
            assert (page.events, page.head, page.hole) == ([], position, Hole("a", first_left=3))
            appended = append(again, "a", 3)
            assert appended.first_seq == 3
            assert appended.position > position
            assert [event.seq for event in read_whole(again, "a")] == [3]

    @needs("reopen")
    def test_the_revision_of_a_deleted_key_is_never_given_again_after_reopening(self, store: Store) -> None:
        revision = put(store, "k", 1)
        ask(store, KvDelete("k"))
        with self.reopen(store) as again:
            assert ask(again, KvKeys()) == []
            assert put(again, "k", 2) > revision

    @needs("reopen")
    def test_a_stream_that_has_begun_is_so_after_reopening(self, store: Store) -> None:
        position = ask(store, Begin("a", 41))
        assert isinstance(position, int)
        ask(store, Begin("b", 7))
        append(store, "b", 1)
        with self.reopen(store) as again:
            assert (ask(again, LastSeq("a")), ask(again, LastSeq("b"))) == (41, 8)
            assert ask(again, Begin("a", 50)) == Conflict("stream", "a", expected=0, actual=41)
            page = ask(again, ReadAll())
            assert ([event.seq for event in page.events], page.hole is not None) == ([8], True)
            assert ask(again, ReadAll(prefix="a")).hole == Hole("a", first_left=42)
            assert ask(again, ReadAll(position, prefix="a")).hole is None
            assert append(again, "a", 2).first_seq == 42

    @needs("reopen", "wait")
    def test_a_deletion_is_not_missed_by_who_waits_after_reopening(self, store: Store) -> None:
        before = put(store, "a", 1)
        put(store, "b", 1)
        ask(store, KvDelete("a"))
        deletion = ask(store, KvWait(0))
        with self.reopen(store) as again:
            assert ask(again, KvWait(before, "a")) >= deletion
            assert ask(again, KvWait(before)) == deletion
            assert put(again, "a", 2) > deletion

    @needs("reopen")
    def test_awkward_names_are_the_same_after_reopening(self, store: Store) -> None:
        for name in AWKWARD_NAMES:
            append(store, name, name)
            put(store, name, name)
        with self.reopen(store) as again:
            assert ask(again, Streams()) == ask(again, KvKeys()) == sorted(AWKWARD_NAMES)
            for name in AWKWARD_NAMES:
                assert [event.data for event in read_whole(again, name)] == [name]
