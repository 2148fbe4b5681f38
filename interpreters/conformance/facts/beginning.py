# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of streams that begin after a sequence number, and go on with the numbers that they had somewhere else."""

from interpreters.conformance.facts.base import Facts, append, ask, needs, read_everything
from interpreters.runtime.store import Store
from persist_effects.event import Draft
from persist_effects.requests import (
    Append,
    Begin,
    Conflict,
    Hole,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Streams,
    Transact,
    TruncateThrough,
)

_ONE = (Draft("made", 1),)


class BeginFacts(Facts):
    """Streams that begin after a sequence number."""

    def test_a_stream_begins_after_a_sequence_number(self, store: Store) -> None:
        append(store, "b", 1)
        assert type(ask(store, Begin("a", 41))) is int
        assert ask(store, LastSeq("a")) == 41
        assert ask(store, Streams()) == ["a", "b"]
        assert append(store, "a", 2, 3).first_seq == 42
        assert ask(store, Append("a", _ONE, 42)) == Conflict("stream", "a", expected=42, actual=43)
        assert [(event.seq, event.data) for event in ask(store, Read("a", 41)).events] == [(42, 2), (43, 3)]

    def test_a_stream_that_has_begun_reads_as_one_that_was_truncated(self, store: Store) -> None:
        ask(store, Begin("a", 41))
        for backwards, following in ((False, 41), (True, 0)):
            assert ask(store, Read("a", backwards=backwards)) == Page([], following, 41, Hole("a", first_left=42))
        assert ask(store, Read("a", after=41)) == Page([], 41, 41)
        assert ask(store, TruncateThrough("a", 41)) == 0
        append(store, "a", 1)
        assert ask(store, TruncateThrough("a", 42)) == 1
        assert ask(store, Read("a")).hole == Hole("a", first_left=43)

    def test_a_stream_that_was_used_does_not_begin_again(self, store: Store) -> None:
        append(store, "a", 1, 2)
        append(store, "dropped", 1)
        ask(store, TruncateThrough("dropped", 1))
        ask(store, Begin("begun", 7))
        for stream, last in (("a", 2), ("dropped", 1), ("begun", 7)):
            for seq in (1, last, 9):
                assert ask(store, Begin(stream, seq)) == Conflict("stream", stream, expected=0, actual=last)
            assert ask(store, LastSeq(stream)) == last

    def test_a_reader_of_all_streams_is_told_of_what_is_missing(self, store: Store) -> None:
        before = append(store, "b", 1).position
        position = ask(store, Begin("a", 41))
        assert isinstance(position, int)
        assert position > before
        assert ask(store, ReadAll(before)) == Page([], position, position, Hole("a", first_left=42))
        assert ask(store, ReadAll(prefix="b")).hole is None
        assert append(store, "b", 2).position > position
        assert ask(store, ReadAll(position)).hole is None

    @needs("transact")
    def test_a_stream_begins_and_goes_on_in_one_transaction(self, store: Store) -> None:
        writes = (Append("b", _ONE), Begin("a", 41), Append("a", _ONE, 41), Append("b", _ONE))
        answers = ask(store, Transact(writes))
        assert isinstance(answers, list)
        first, position, second, third = answers
        assert [position, second.position, third.position] == [first.position + number for number in (1, 2, 3)]
        assert (second.first_seq, ask(store, LastSeq("a"))) == (42, 42)
        assert [event.stream for event in read_everything(store)] == ["b", "a", "b"]
        assert append(store, "b", 2).position > third.position

    @needs("transact")
    def test_a_transaction_that_ends_with_a_beginning_has_its_position(self, store: Store) -> None:
        answers = ask(store, Transact((Append("b", _ONE), Begin("a", 41))))
        assert isinstance(answers, list)
        assert ask(store, ReadAll()).head == answers[1]
        assert append(store, "b", 2).position > answers[1]

    @needs("transact")
    def test_a_transaction_that_conflicts_begins_nothing(self, store: Store) -> None:
        assert ask(store, Transact((Begin("a", 41), Append("b", _ONE, 7)))) == Conflict("stream", "b", 7, 0, 1)
        assert ask(store, Transact((Append("a", _ONE), Begin("a", 41)))) == Conflict("stream", "a", 0, 1, 1)
        assert ask(store, Transact((Begin("a", 41), Begin("a", 41)))) == Conflict("stream", "a", 0, 41, 1)
        assert (ask(store, Streams()), ask(store, LastSeq("a")), ask(store, ReadAll()).hole) == ([], 0, None)
