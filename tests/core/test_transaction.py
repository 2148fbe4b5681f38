"""Several writes as one."""

import pytest
from conftest import interleavings

from interpreters import open_store
from persist_effects import (
    Appended,
    Conflict,
    Draft,
    ExpectRevision,
    ExpectSeq,
    InvalidRequest,
    TooLarge,
    kv,
    log,
    perform,
    transact,
)
from persist_effects.codec import decode_request, encode_request
from persist_effects.requests import Append, KvDelete, KvGet, KvPut, Read, Transact, TruncateThrough


def append(stream, *data, expected=None):
    return Append(stream, tuple(Draft("counted", value) for value in data), expected)


def everything(store):
    """All that a reader can see, but for revisions."""
    keys = store.run(kv.keys())
    streams = store.run(log.streams())
    return (
        {key: store.run(kv.get(key)) for key in keys},
        {stream: [event.data for event in store.run(log.read(stream))] for stream in streams},
        {stream: store.run(log.last_seq(stream)) for stream in streams},
        store.run(log.page_all()).head,
    )


def test_each_write_is_answered_in_order(store):
    store.run(log.append("old", "counted", 0))
    store.run(kv.put("gone", 1))
    answers = store.run(
        transact(
            append("a", 1, 2),
            KvPut("k", "v"),
            TruncateThrough("old", 1),
            KvDelete("gone"),
            KvDelete("never"),
            append("a", 3),
        )
    )
    first, revision, dropped, was_there, was_not, last = answers
    assert isinstance(first, Appended)
    assert (first.first_seq, first.last_seq, first.position) == (1, 2, 3)
    assert (last.first_seq, last.last_seq, last.position) == (3, 3, 4)
    assert (dropped, was_there, was_not) == (1, True, False)
    assert store.run(kv.entry("k")).revision == revision
    assert everything(store) == ({"k": "v"}, {"a": [1, 2, 3], "old": []}, {"a": 3, "old": 1}, 4)


@pytest.mark.parametrize(
    ("writes", "checks", "conflict"),
    [
        ([append("s", 1, expected=3)], [], Conflict("stream", "s", 3, 2, 1)),
        ([append("s", 1, expected=0)], [], Conflict("stream", "s", 0, 2, 1)),
        ([append("new", 1, expected=1)], [], Conflict("stream", "new", 1, 0, 1)),
        ([KvPut("new", 1, 5)], [], Conflict("key", "new", 5, 0, 1)),
        ([KvPut("k", 1, 0)], [], Conflict("key", "k", 0, 1, 1)),
        ([KvDelete("k", 2)], [], Conflict("key", "k", 2, 1, 1)),
        ([KvDelete("new", 2)], [], Conflict("key", "new", 2, 0, 1)),
        ([KvPut("x", 1)], [ExpectSeq("s", 1)], Conflict("stream", "s", 1, 2, None)),
        ([KvPut("x", 1)], [ExpectRevision("k", 0)], Conflict("key", "k", 0, 1, None)),
        ([KvPut("x", 1)], [ExpectRevision("new", 9)], Conflict("key", "new", 9, 0, None)),
        # The first conflict is the one that is told: checks before writes, each in order.
        ([append("s", 1, expected=9)], [ExpectSeq("s", 2), ExpectRevision("k", 7)], Conflict("key", "k", 7, 1, None)),
        ([KvPut("k", 1, 7), append("s", 1, expected=9)], [], Conflict("key", "k", 7, 1, 1)),
        # Checks see what was there before, writes see the writes before them.
        ([append("s", 1), KvPut("x", 1)], [ExpectSeq("s", 3)], Conflict("stream", "s", 3, 2, None)),
        ([append("s", 1), append("s", 2, expected=2)], [], Conflict("stream", "s", 2, 3, 2)),
        ([KvDelete("k"), KvPut("k", 1, 1)], [], Conflict("key", "k", 1, 0, 2)),
    ],
)
def test_a_conflict_undoes_every_write_before_and_after_it(store, writes, checks, conflict):
    store.run(log.append_many("s", [Draft("counted", 1), Draft("counted", 2)]))
    store.run(kv.put("k", "v"))
    before = everything(store)
    around = (append("around", 1), *writes, KvPut("around", 1), TruncateThrough("s", 1), KvDelete("k"))
    assert store.run(transact(*around, checks=tuple(checks))) == conflict
    assert everything(store) == before
    assert store.run(kv.put("next", 1)) == 2, "a conflict takes no revision"


def test_writes_see_those_before_them(store):
    answers = store.run(
        transact(
            append("s", 1, expected=0),
            append("s", 2, expected=1),
            TruncateThrough("s", 1),
            KvPut("k", 1, 0),
            KvDelete("k"),
            KvPut("k", 2, 0),
        )
    )
    assert [type(answer) for answer in answers] == [Appended, Appended, int, int, bool, int]
    assert everything(store) == ({"k": 2}, {"s": [2]}, {"s": 2}, 2)


def test_a_value_that_cannot_be_stored_undoes_the_whole_transaction(store):
    before = everything(store)
    for bad in (KvPut("k", {1, 2}), append("s", (1,)), KvPut("k", bytes(8 * 1024 * 1024))):
        with pytest.raises(InvalidRequest):
            store.run(transact(append("a", 1), KvPut("a", 1), bad))
    assert everything(store) == before


def test_an_unstorable_value_is_told_before_a_conflict(store):
    with pytest.raises(InvalidRequest, match="value of key 'k'"):
        store.run(transact(KvPut("k", {1, 2}), checks=(ExpectSeq("a", 7),)))


@pytest.mark.parametrize(
    ("writes", "checks"),
    [((), ()), ((Read("a"),), ()), ((KvGet("a"),), ()), ((KvPut("a", 1),), (KvPut("b", 1),)), (("put",), ())],
)
def test_what_is_no_write_and_no_check_is_refused(writes, checks):
    with pytest.raises(InvalidRequest, match="a transaction"):
        Transact(writes, checks)


def test_a_transaction_in_a_transaction_is_refused():
    with pytest.raises(InvalidRequest, match="got a Transact among its writes"):
        Transact((Transact((KvPut("a", 1),)),))


def test_a_reader_sees_all_of_a_transaction_or_nothing(open_new):
    def begin(store):
        def look():
            a = yield from kv.get("a")
            b = yield from kv.get("b")
            return a, b

        return [transact(KvPut("a", 1), KvPut("b", 1)), look()]

    seen = {ends[1] for _, _, ends in interleavings(open_new, begin)}
    assert seen == {(None, None), (None, 1), (1, 1)}, "b is never seen before a"


def take_a_day_off(name, other):
    """May go only while the other one is on duty: what it read of the other, it does not write."""
    mine = yield from kv.entry(name)
    others = yield from kv.entry(other)
    if others.value == "off":
        return False
    check = ExpectRevision(other, others.revision)
    gone = yield from perform(Transact((KvPut(name, "off", mine.revision),), (check,)))
    return not isinstance(gone, Conflict)


def test_checks_keep_two_transactions_from_passing_by_each_other(open_new):
    def begin(store):
        store.run(transact(KvPut("ann", "on"), KvPut("bob", "on")))
        return [take_a_day_off("ann", "bob"), take_a_day_off("bob", "ann")]

    for order, store, ends in interleavings(open_new, begin):
        assert sorted(ends) == [False, True], order
        assert sorted([store.run(kv.get("ann")), store.run(kv.get("bob"))]) == ["off", "on"], order


def test_the_events_of_a_transaction_have_neighbouring_positions_in_the_order_of_its_writes(store):
    store.run(transact(append("b", 1), KvPut("k", 1), append("a", 2, 3), append("b", 4)))
    events = store.run(log.page_all()).events
    assert [(event.stream, event.seq, event.data, event.position) for event in events] == [
        ("b", 1, 1, 1),
        ("a", 1, 2, 2),
        ("a", 2, 3, 3),
        ("b", 2, 4, 4),
    ]


def test_the_clock_is_read_once_for_a_commit():
    times = iter(range(100, 200))
    store = open_store("memory:", clock=lambda: next(times))
    first, second = store.run(transact(append("a", 1), append("b", 2, 3)))
    assert (first.at, second.at) == (100, 100)
    assert [event.at for event in store.run(log.page_all()).events] == [100, 100, 100]
    assert store.run(log.append("a", "counted", 4)).at == 101


def test_deleting_a_key_takes_a_revision_where_it_was_there(tmp_path):
    for url in ("memory:", f"file:{tmp_path}/store"):
        with open_store(url) as store:
            assert store.run(kv.put("a", 1)) == 1
            assert store.run(kv.delete("a")) is True
            assert store.run(kv.delete("a")) is False
            assert store.run(kv.put("b", 1)) == 3
            assert store.run(transact(KvDelete("b"), KvDelete("b"), KvPut("b", 2))) == [True, False, 5]
            store.run(kv.delete("b"))
    with open_store(f"file:{tmp_path}/store") as store:
        assert store.run(kv.put("c", 1)) == 7


def test_a_revision_that_the_commit_itself_gives_is_never_the_one_expected(store):
    assert store.run(transact(KvPut("k", 1), KvPut("k", 2, 1))) == Conflict("key", "k", 1, 1, write=1)
    assert store.run(kv.has("k")) is False


# Noting


APPENDED = {"type": "Appended", "first_seq": 1, "last_seq": 2, "position": 2, "at": 7}


@pytest.fixture(params=["memory:", "file:"])
def any_store(request, tmp_path):
    url = request.param if request.param == "memory:" else f"file:{tmp_path}/store"
    with open_store(url, clock=lambda: 7, payload_limit_bytes=200) as opened:
        yield opened


def noting(*writes):
    return perform(Transact(writes, noting=True))


def test_a_transaction_that_notes_keeps_the_answers_before_in_the_dict_that_it_puts_last(any_store):
    answers = any_store.run(noting(append("a", 1, 2), KvPut("b", 1), KvDelete("c"), KvPut("mark", {"of": "x"}, 0)))
    assert answers == [Appended(1, 2, 2, 7), 1, False, 2]
    assert any_store.run(kv.get("mark")) == {"of": "x", "answers": [APPENDED, 1, False]}


def test_a_transaction_that_notes_keeps_the_answers_before_in_the_meta_of_its_last_draft(any_store):
    for meta in (None, {"by": "ada"}):
        last = Append("journal", (Draft("done", 1, meta=meta),))
        any_store.run(noting(KvPut("k", 1), last))
    first, second = any_store.run(log.read("journal"))
    assert first.meta == {"answers": [1]}
    assert second.meta == {"by": "ada", "answers": [2]}


def test_a_conflict_writes_and_notes_nothing(any_store):
    any_store.run(kv.put("mark", {}))
    conflict = any_store.run(noting(append("a", 1), KvPut("mark", {"of": "x"}, 0)))
    assert conflict == Conflict("key", "mark", 0, 1, write=1)
    assert any_store.run(kv.get("mark")) == {}
    assert any_store.run(log.streams()) == []


def test_answers_count_for_the_limit_at_their_longest_before_anything_is_written(any_store):
    # Twelve puts: a byte for each answer as it is now, and nine at its longest.
    puts = [KvPut(f"k{number}", 1) for number in range(12)]
    any_store.run(noting(*puts[:11], KvPut("mark", {"of": "x" * 70})))
    with pytest.raises(TooLarge, match="value of key 'mark'"):
        any_store.run(noting(*puts, KvPut("mark", {"of": "x" * 80})))
    with pytest.raises(TooLarge, match="meta of a 'done' event"):
        any_store.run(noting(*puts, Append("a", (Draft("done", 1, meta={"of": "x" * 80}),))))
    assert any_store.run(log.streams()) == []
    any_store.run(transact(*puts, KvPut("mark", {"of": "x" * 80, "answers": [1] * 12})))


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (KvPut("k", {"answers": 1}), "'answers' is already"),
        (Append("a", (Draft("done", 1, meta={"answers": 1}),)), "'answers' is already"),
        (KvPut("k", [1]), "give a dict"),
        (append("a", 1, 2), "an Append of one draft"),
        (KvDelete("k"), "a KvPut of a dict"),
    ],
)
def test_a_transaction_that_notes_needs_a_place_for_its_answers(last, told):
    with pytest.raises(InvalidRequest, match=told):
        Transact((KvPut("a", 1), last), noting=True)
    Transact((KvPut("a", 1), last))


def test_noting_is_encoded_only_where_it_is_set():
    writes = (KvPut("k", {}),)
    assert b"noting" not in encode_request(Transact(writes))
    assert Transact(writes, noting=False) == Transact(writes)
    assert decode_request(encode_request(Transact(writes, noting=True))).noting is True
