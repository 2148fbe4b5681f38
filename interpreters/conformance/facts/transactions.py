# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of transactions: all or nothing, checks on what was there before, writes in their order."""

from typing import Any

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
from interpreters.runtime.store import Store
from persist_effects.errors import InvalidRequest
from persist_effects.event import Draft
from persist_effects.requests import (
    Append,
    Check,
    Conflict,
    Entry,
    ExpectRevision,
    ExpectSeq,
    KvDelete,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    LastSeq,
    Streams,
    Transact,
    TruncateThrough,
    Write,
)


class TransactFacts(Facts):
    """Several writes as one."""

    @needs("transact")
    def test_a_transaction_makes_all_its_writes_and_answers_each(self, store: Store) -> None:
        append(store, "old", 1, 2, 3)
        put(store, "gone", 0)
        appended, revision, was_there, dropped = _made(
            store, Append("a", _drafts(1, 2)), KvPut("k", "v"), KvDelete("gone"), TruncateThrough("old", 2)
        )
        assert (appended.first_seq, appended.last_seq, was_there, dropped) == (1, 2, True, 2)
        assert ask(store, KvGet("k")) == Entry("v", revision)
        assert ask(store, KvHas("gone")) is False
        assert data_of(read_everything(store)) == [3, 1, 2]

    @needs("transact")
    def test_positions_and_revisions_grow_in_the_order_of_the_writes(self, store: Store) -> None:
        first = append(store, "z", 0).position
        revision = put(store, "z", 0)
        b, k, a, j, again = _made(
            store,
            Append("b", _drafts(1)),
            KvPut("k", 0),
            Append("a", _drafts(2)),
            KvPut("j", 0),
            Append("b", _drafts(3)),
        )
        assert first < b.position < a.position < again.position
        assert revision < k < j
        assert data_of(read_everything(store)) == [0, 1, 2, 3]

    @needs("transact")
    def test_each_write_sees_those_before_it(self, store: Store) -> None:
        first, second, dropped, absent, revision = _made(
            store,
            Append("a", _drafts(1, 2), expected=0),
            Append("a", _drafts(3), expected=2),
            TruncateThrough("a", 2),
            KvDelete("k", expected=0),
            KvPut("k", "v", expected=0),
        )
        assert (first.last_seq, second.first_seq, dropped, absent) == (2, 3, 2, False)
        assert ask(store, KvGet("k")) == Entry("v", revision)
        assert [event.seq for event in read_whole(store, "a")] == [3]

    @needs("transact")
    def test_a_key_may_be_deleted_and_put_again_in_one_transaction(self, store: Store) -> None:
        old = put(store, "k", 1)
        was_there, revision = _made(store, KvDelete("k", old), KvPut("k", 2, 0))
        assert was_there is True
        assert revision > old
        assert ask(store, KvGet("k")) == Entry(2, revision)
        _made(store, KvPut("k", 3), KvDelete("k"))
        assert ask(store, KvGet("k")) is None

    @needs("transact")
    def test_a_write_that_contradicts_one_before_it_is_a_conflict(self, store: Store) -> None:
        assert ask(store, Transact((Append("a", _drafts(1)), Append("a", _drafts(2), 0)))) == Conflict(
            "stream", "a", 0, 1, 1
        )
        old = put(store, "k", 1)
        conflict = ask(store, Transact((KvPut("k", 2), KvPut("k", 3, old))))
        assert isinstance(conflict, Conflict)
        assert (conflict.kind, conflict.name, conflict.expected, conflict.write) == ("key", "k", old, 1)
        assert conflict.actual > old
        assert ask(store, Transact((KvDelete("k"), KvPut("k", 3, old)))) == Conflict("key", "k", old, 0, 1)
        assert ask(store, KvGet("k")) == Entry(1, old)
        assert ask(store, Streams()) == []

    @needs("transact")
    def test_a_conflict_over_a_key_that_the_transaction_has_put_names_a_revision_that_no_key_has(
        self, store: Store
    ) -> None:
        old = put(store, "k", 1)
        newest = [put(store, "other", number) for number in range(5)][-1]
        conflict = ask(store, Transact((KvPut("k", 2), KvPut("k", 3, old))))
        assert isinstance(conflict, Conflict)
        assert conflict.actual > newest

    @needs("transact")
    def test_a_transaction_that_conflicts_writes_nothing(self, store: Store) -> None:
        append(store, "old", 1, 2)
        revision = put(store, "k", 1)
        for guilty in (Append("old", _drafts(9), 1), KvPut("k", 9, revision + 1), KvDelete("absent", 7)):
            writes = (Append("new", _drafts(9)), TruncateThrough("old", 1), KvPut("new", 9), KvDelete("k"))
            assert isinstance(ask(store, Transact((*writes[:3], guilty, writes[3]))), Conflict)
            assert isinstance(ask(store, Transact((guilty, *writes))), Conflict)
        assert data_of(read_everything(store)) == [1, 2]
        assert ask(store, Streams()) == ["old"]
        assert ask(store, KvKeys()) == ["k"]
        assert ask(store, KvGet("k")) == Entry(1, revision)

    @needs("transact")
    def test_sequence_numbers_and_revisions_go_on_after_a_transaction_that_conflicted(self, store: Store) -> None:
        append(store, "a", 1)
        old = put(store, "k", 1)
        ask(store, Transact((Append("a", _drafts(9)), KvPut("k", 9), Append("a", _drafts(9), 0))))
        assert append(store, "a", 2, expected=1).first_seq == 2
        assert put(store, "k", 2, expected=old) > old

    @needs("transact")
    def test_the_first_conflict_is_the_answer(self, store: Store) -> None:
        writes = (Append("a", _drafts(1)), KvPut("k", 1, 5), Append("b", _drafts(1), 6), KvDelete("j", 7))
        assert ask(store, Transact(writes)) == Conflict("key", "k", 5, 0, 1)
        assert ask(store, Transact(writes[2:])) == Conflict("stream", "b", 6, 0, 0)
        assert ask(store, Transact(writes[3:])) == Conflict("key", "j", 7, 0, 0)

    @needs("transact")
    def test_a_check_that_holds_lets_the_writes_pass(self, store: Store) -> None:
        append(store, "a", 1, 2)
        revision = put(store, "k", 1)
        checks = (ExpectSeq("a", 2), ExpectSeq("b", 0), ExpectRevision("k", revision), ExpectRevision("j", 0))
        _made(store, KvPut("new", 1), checks=checks)
        assert ask(store, KvHas("new")) is True

    @needs("transact")
    def test_a_check_that_fails_writes_nothing(self, store: Store) -> None:
        append(store, "a", 1, 2)
        revision = put(store, "k", 1)
        cases: list[tuple[Check, Conflict]] = [
            (ExpectSeq("a", 1), Conflict("stream", "a", 1, 2, None)),
            (ExpectSeq("b", 1), Conflict("stream", "b", 1, 0, None)),
            (ExpectRevision("k", 0), Conflict("key", "k", 0, revision, None)),
            (ExpectRevision("j", revision), Conflict("key", "j", revision, 0, None)),
        ]
        for check, conflict in cases:
            assert ask(store, Transact((KvPut("new", 1), Append("new", _drafts(1))), (check,))) == conflict
        assert ask(store, KvHas("new")) is False
        assert ask(store, LastSeq("new")) == 0

    @needs("transact")
    def test_checks_are_made_before_all_writes_and_on_what_was_there_before(self, store: Store) -> None:
        append(store, "a", 1)
        old = put(store, "k", 1)
        _made(store, Append("a", _drafts(2)), KvDelete("k"), checks=(ExpectSeq("a", 1), ExpectRevision("k", old)))
        writes = (Append("a", _drafts(3), 9), KvPut("k", 1))
        assert ask(store, Transact(writes, (ExpectSeq("a", 3),))) == Conflict("stream", "a", 3, 2, None)
        assert ask(store, Transact(writes, (ExpectSeq("a", 2), ExpectRevision("k", old)))) == Conflict(
            "key", "k", old, 0, None
        )

    @needs("transact")
    def test_checks_see_the_high_water_mark_of_a_truncated_stream(self, store: Store) -> None:
        append(store, "a", 1, 2)
        ask(store, TruncateThrough("a", 2))
        _made(store, KvPut("k", 1), checks=(ExpectSeq("a", 2),))

    @needs("transact")
    def test_a_value_that_cannot_be_stored_refuses_the_whole_transaction(self, store: Store) -> None:
        unstorable: Any = (1, 2)
        for guilty in (KvPut("j", unstorable), Append("b", (Draft("made", {"deep": [unstorable]}),))):
            assert isinstance(
                error_of(store, Transact((KvPut("k", 1), Append("a", _drafts(1)), guilty))), InvalidRequest
            )
        assert ask(store, KvKeys()) == []
        assert ask(store, Streams()) == []

    @needs("transact")
    def test_a_stream_appended_and_truncated_in_one_transaction_goes_on_counting(self, store: Store) -> None:
        _, dropped = _made(store, Append("a", _drafts(1, 2)), TruncateThrough("a", 9))
        assert dropped == 2
        assert ask(store, Streams()) == ["a"]
        assert append(store, "a", 3).first_seq == 3


def _drafts(*data: Any) -> tuple[Draft, ...]:
    return tuple(Draft("made", item) for item in data)


def _made(store: Store, *writes: Write, checks: tuple[Check, ...] = ()) -> list[Any]:
    """The answers to a transaction that must not conflict."""
    answers = ask(store, Transact(writes, checks))
    assert isinstance(answers, list)
    assert len(answers) == len(writes)
    return answers
