"""Scenes: two stores are open on one stream, and something befalls the way to JetStream of one of them.

Each asserts what has to be so all the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
from meddling import Meddled
from nats_cluster import new_store_url

from interpreters import open_store
from interpreters.stores.nats.store import NatsStore
from persist_effects import Draft, StoreUnavailable, UncertainOutcome
from persist_effects.requests import (
    Append,
    Conflict,
    ExpectRevision,
    ExpectSeq,
    KvDelete,
    KvGet,
    KvKeys,
    KvPut,
    KvWait,
    Read,
    ReadAll,
    Request,
    Streams,
    Transact,
    TruncateThrough,
)

ORDERS, NOTES = "orders/1", "notes"

IN_VAIN_SECONDS = 1.0
"""How long a store asks a server that does not answer. One that does must have had the time, on a busy machine too."""

SCENES: list[Callable[[], None]] = []


def scene(play: Callable[[], None]) -> Callable[[], None]:
    """Have a function be a scene, which asserts what must be so at its end."""
    SCENES.append(play)
    return play


@contextmanager
def two_stores(**options: object) -> Iterator[tuple[Meddled, NatsStore]]:
    """Two stores on one stream, of which one is meddled with."""
    url = new_store_url(**options)
    one, other = (cast(NatsStore, open_store(url).interpreter) for _ in range(2))
    try:
        yield Meddled(one), other
    finally:
        one.close()
        other.close()


def ask(store: NatsStore, request: Request[Any]) -> Any:
    return store.handlers[type(request)](request)


def append(stream: str, *values: object) -> Append:
    return Append(stream, tuple(Draft("placed", value) for value in values))


def told(store: NatsStore, stream: str) -> list[tuple[int, object]]:
    """The numbers and the values of a stream's events."""
    return [(event.seq, event.data) for event in ask(store, Read(stream)).events]


# What befalls reads


@scene
def a_server_that_has_come_no_further_is_asked_again() -> None:
    with two_stores() as (meddled, other):
        ask(meddled.store, KvPut("color", "red"))
        assert ask(meddled.store, KvGet("color")).value == "red"
        ask(other, KvPut("color", "blue"))
        meddled.lagging = 1
        assert ask(meddled.store, KvGet("color")).value == "blue"


@scene
def keys_are_listed_no_sooner_than_all_that_was_acknowledged_has_come_in() -> None:
    with two_stores() as (meddled, other):
        ask(other, KvPut("color", "red"))
        assert meddled.answer_behind(KvKeys(), meddled.store._reader.keys) == ["color"]


@scene
def streams_are_listed_no_sooner_than_all_that_was_acknowledged_has_come_in() -> None:
    with two_stores() as (meddled, other):
        ask(other, append(ORDERS, 1))
        assert meddled.answer_behind(Streams(), meddled.store._reader.events) == [ORDERS]


@scene
def all_is_read_page_by_page_and_nothing_passed_over() -> None:
    with two_stores() as (meddled, _):
        ask(meddled.store, append(ORDERS, *range(5)))
        page = ask(meddled.store, ReadAll(limit=2))
        rest = ask(meddled.store, ReadAll(page.next))
        assert [event.data for event in page.events + rest.events] == [0, 1, 2, 3, 4]


@scene
def what_was_truncated_is_not_read_though_it_is_not_purged() -> None:
    with two_stores() as (meddled, other):
        ask(meddled.store, append(ORDERS, 1, 2, 3))
        meddled.unanswered.add("STREAM.PURGE")
        assert ask(meddled.store, TruncateThrough(ORDERS, 2)) == 2
        page = ask(other, ReadAll())
        assert ([event.data for event in page.events], page.hole is not None) == ([3], True)
        page = ask(other, Read(ORDERS))
        assert ([event.data for event in page.events], page.hole is not None) == ([3], True)


@scene
def who_waits_for_a_key_is_told_that_it_is_deleted() -> None:
    with two_stores() as (meddled, other):
        revision = ask(meddled.store, KvPut("color", "red"))
        assert ask(meddled.store, KvWait(revision, timeout=0)) == revision
        ask(other, KvDelete("color"))
        assert ask(meddled.store, KvWait(revision, timeout=0)) > revision


@scene
def a_revision_never_comes_again_when_a_key_was_deleted() -> None:
    with two_stores() as (meddled, other):
        first = ask(meddled.store, KvPut("color", "red"))
        assert ask(other, KvDelete("color")) is True
        second = ask(other, KvPut("color", "blue"))
        assert second > first
        assert isinstance(ask(meddled.store, KvPut("color", "green", first)), Conflict)
        assert ask(meddled.store, KvGet("color")).revision == second


@scene
def a_key_that_another_store_has_deleted_is_put_again() -> None:
    # Where that fails, it is tried until the timeout.
    with two_stores(timeout=1) as (meddled, other):
        ask(meddled.store, KvPut("color", "red"))
        ask(other, KvDelete("color"))
        assert isinstance(ask(meddled.store, KvPut("color", "blue")), int)
        assert ask(other, KvGet("color")).value == "blue"


# What befalls writes that others come before


@scene
def what_another_store_has_appended_is_counted_in() -> None:
    with two_stores() as (meddled, other):
        ask(meddled.store, append(ORDERS, 1))
        ask(other, append(ORDERS, 2))
        assert ask(meddled.store, append(ORDERS, 3)).first_seq == 3
        assert told(other, ORDERS) == [(1, 1), (2, 2), (3, 3)]


@scene
def a_check_of_what_another_store_has_appended_to_meanwhile_is_a_conflict() -> None:
    with two_stores() as (meddled, other):
        ask(meddled.store, append(ORDERS, 1))
        ask(other, append(ORDERS, 2))
        answer = ask(meddled.store, Transact((append(NOTES, "one"),), (ExpectSeq(ORDERS, 1),)))
        assert isinstance(answer, Conflict)
        assert answer.actual == 2
        assert told(other, NOTES) == []


@scene
def a_check_of_what_another_store_has_put_meanwhile_is_a_conflict() -> None:
    with two_stores() as (meddled, other):
        revision = ask(meddled.store, KvPut("color", "red"))
        ask(other, KvPut("color", "blue"))
        answer = ask(meddled.store, Transact((append(NOTES, "red"),), (ExpectRevision("color", revision),)))
        assert isinstance(answer, Conflict)
        assert told(other, NOTES) == []


@scene
def a_transaction_that_another_store_comes_before_is_there_whole_and_once() -> None:
    with two_stores() as (meddled, other):
        ask(meddled.store, append(ORDERS, 1))
        ask(other, append(ORDERS, 2))
        ask(meddled.store, Transact((append(NOTES, "three"), append(ORDERS, 3))))
        assert (told(other, NOTES), told(other, ORDERS)) == ([(1, "three")], [(1, 1), (2, 2), (3, 3)])


@scene
def answers_have_the_numbers_that_are_read() -> None:
    with two_stores() as (meddled, other):
        ask(other, append(NOTES, "before"))
        ask(other, KvPut("color", "red"))
        first, second, revision = ask(
            meddled.store,
            Transact(
                (append(ORDERS, 1, 2), append(NOTES, "two"), KvPut("color", "blue")),
                (ExpectRevision("shape", 0), ExpectSeq("other", 0)),
            ),
        )
        positions = [event.position for event in ask(other, Read(ORDERS)).events]
        assert positions == [first.position - 1, first.position]
        assert [event.position for event in ask(other, Read(NOTES)).events][1:] == [second.position]
        assert ask(other, KvGet("color")).revision == revision


# What befalls writes and their answers


@scene
def an_append_whose_answer_is_lost_is_there_once() -> None:
    with two_stores() as (meddled, other):
        meddled.lost_answers = 2
        assert ask(meddled.store, append(ORDERS, 1)).first_seq == 1
        assert told(other, ORDERS) == [(1, 1)]


@scene
def a_transaction_whose_answer_is_lost_is_there_once_and_known_by_its_mark() -> None:
    with two_stores() as (meddled, other):
        meddled.lost_answers = 2
        first, revision = ask(meddled.store, Transact((append(ORDERS, 1, 2), KvPut("color", "red"))))
        assert told(other, ORDERS) == [(1, 1), (2, 2)]
        assert first.position == ask(other, Read(ORDERS)).events[-1].position
        assert ask(other, KvGet("color")).revision == revision


@scene
def a_transaction_whose_answer_is_lost_is_told_from_one_that_came_before_it() -> None:
    with two_stores() as (meddled, other):
        ask(meddled.store, append(ORDERS, 1))
        meddled.lost_writes = 1
        meddled.before_write.append(lambda: ask(other, append(ORDERS, 2)))
        ask(meddled.store, Transact((append(ORDERS, 3), append(NOTES, "three"))))
        assert told(other, ORDERS) == [(1, 1), (2, 2), (3, 3)]
        assert told(other, NOTES) == [(1, "three")]


@scene
def an_append_of_which_no_answer_comes_is_uncertain() -> None:
    with two_stores(timeout=IN_VAIN_SECONDS) as (meddled, other):
        meddled.lost_answers = 1
        meddled.after_write.append(meddled.reach_nobody)
        with pytest.raises(UncertainOutcome):
            ask(meddled.store, append(ORDERS, 1))
        assert told(other, ORDERS) == [(1, 1)]


@scene
def an_append_that_reaches_nobody_is_not_written() -> None:
    with two_stores(timeout=IN_VAIN_SECONDS) as (meddled, other):
        meddled.reach_nobody()
        with pytest.raises(StoreUnavailable):
            ask(meddled.store, append(ORDERS, 1))
        assert told(other, ORDERS) == []


@scene
def a_transaction_of_which_nobody_tells_whether_it_is_there_is_uncertain() -> None:
    with two_stores(timeout=IN_VAIN_SECONDS) as (meddled, other):
        meddled.lost_answers = 1
        meddled.after_write.append(meddled.ask_in_vain)
        with pytest.raises(UncertainOutcome):
            ask(meddled.store, append(ORDERS, 1, 2))
        assert told(other, ORDERS) == [(1, 1), (2, 2)]


@scene
def an_append_that_is_refused_when_it_is_sent_again_is_uncertain() -> None:
    with two_stores(timeout=IN_VAIN_SECONDS) as (meddled, other):
        meddled.lost_answers = 1
        meddled.refusals = [{"code": 503, "err_code": 10008, "description": "temporarily unavailable"}]
        with pytest.raises(UncertainOutcome):
            ask(meddled.store, append(ORDERS, 1))
        assert told(other, ORDERS) == [(1, 1)]


@scene
def an_append_that_is_answered_is_not_called_unwritten_because_of_what_is_asked_after_it() -> None:
    with two_stores(timeout=IN_VAIN_SECONDS) as (meddled, other):
        meddled.after_write.append(meddled.ask_in_vain)
        with suppress(UncertainOutcome):
            ask(meddled.store, append(ORDERS, 1))
        assert told(other, ORDERS) == [(1, 1)]


@scene
def a_put_whose_answer_is_lost_is_not_put_over_what_another_store_has_put_since() -> None:
    with two_stores() as (meddled, other):
        meddled.lost_answers = 1
        meddled.after_write.append(lambda: ask(other, KvPut("color", "blue")))
        with suppress(UncertainOutcome):
            ask(meddled.store, KvPut("color", "red"))
        assert ask(other, KvGet("color")).value == "blue"


@scene
def puts_whose_answer_is_lost_are_not_put_over_what_another_store_has_put_since() -> None:
    with two_stores() as (meddled, other):
        meddled.lost_answers = 1
        meddled.after_write.append(lambda: ask(other, KvPut("color", "blue")))
        with suppress(UncertainOutcome):
            ask(meddled.store, Transact((KvPut("color", "red"), KvPut("shape", "round"))))
        assert ask(other, KvGet("color")).value == "blue"


@scene
def a_put_whose_answer_is_lost_does_not_meet_itself_as_a_conflict() -> None:
    with two_stores() as (meddled, other):
        meddled.lost_answers = 1
        meddled.after_write.append(lambda: ask(other, KvPut("color", "blue")))
        with suppress(UncertainOutcome):
            assert not isinstance(ask(meddled.store, KvPut("color", "red", 0)), Conflict)


@scene
def a_read_ends_though_the_server_that_answers_never_comes_as_far() -> None:
    with two_stores(timeout=IN_VAIN_SECONDS) as (meddled, other):
        ask(other, append(ORDERS, 1, 2))
        meddled.has_no_events = True
        with pytest.raises(StoreUnavailable):
            ask(meddled.store, ReadAll())
