"""Snapshots and compaction: a state kept, read back as it was, never gone back, and the log shortened by it."""

import datetime as dt
import enum
import itertools
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from conftest import answer, interleavings, stop_after
from steady import steady

from persist_effects import (
    Draft,
    InvalidRequest,
    SnapshotMismatch,
    State,
    StoreUnavailable,
    Suspended,
    Truncated,
    UncertainOutcome,
    compaction,
    kv,
    log,
    perform,
    projection,
    run,
    snapshot,
    start,
)
from persist_effects.requests import PAGE_SIZE, KvPut, Read


def total(value, event):
    return value + event.data


def fill(store, stream, numbers):
    store.run(log.append_many(stream, [Draft("counted", number) for number in numbers]))


class Line(msgspec.Struct, frozen=True):
    sku: str
    price: Decimal


class Basket(msgspec.Struct, frozen=True):
    lines: dict[int, Line] = {}
    codes: frozenset[str] = frozenset()
    opened: dt.datetime | None = None


class Nothing(msgspec.Struct, frozen=True):
    pass


class Counted(msgspec.Struct, frozen=True):
    last: int


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


# Kept and read back


def test_a_name_without_a_snapshot_reads_as_none_and_covers_nothing(store):
    assert store.run(snapshot.read("balance")) is None
    assert store.run(snapshot.covered_seq("balance")) == 0


@pytest.mark.parametrize("value", [None, False, 0, -(2**63), 1.5, "é", b"\x00\xff", [1, [2]], {"a": {"b": None}}])
def test_a_plain_state_is_read_back_as_it_was(store, value):
    store.run(snapshot.write("kept", State(value, 3)))
    assert store.run(snapshot.read("kept")) == State(value, 3)
    assert store.run(snapshot.covered_seq("kept")) == 3


@pytest.mark.parametrize(
    ("state_type", "value"),
    [
        (set[str], {"b", "a"}),
        (frozenset[int], frozenset({3, 1})),
        (dict[int, str], {1: "one", -2: "two"}),
        (dict[int, dict[int, bytes]], {1: {2: b"\x00\xff"}}),
        (dict[uuid.UUID, int], {uuid.UUID(int=7): 1}),
        (bytes, b"\x00\xff"),
        (dt.datetime, dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=dt.UTC)),
        (dt.date, dt.date(2024, 2, 29)),
        (dt.timedelta, dt.timedelta(days=-1, microseconds=1)),
        (Decimal, Decimal("0.10")),
        (Size, Size.LARGE),
        (list[Decimal], [Decimal("1.0"), Decimal("1E+2")]),
        (int | None, None),
        (tuple[int, str], (1, "a")),
        (dict[str, tuple[tuple[int, ...], ...]], {"a": ((1, 2), ()), "b": ()}),
        (list[set[str]], [{"b", "a"}, set()]),
        (
            Basket,
            Basket({1: Line("tea", Decimal("2.50"))}, frozenset({"x"}), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        ),
        (dict[str, Basket], {"a": Basket(), "b": Basket({7: Line("x", Decimal(0))})}),
    ],
    ids=steady,
)
def test_a_state_of_a_type_is_read_back_as_that_type(store, state_type, value):
    store.run(snapshot.write("kept", State(value, 3), state_type=state_type))
    assert store.run(snapshot.read("kept", state_type=state_type)) == State(value, 3)


def test_a_state_of_a_type_is_the_same_from_its_snapshot_as_from_the_log(store):
    def gather(value, event):
        return {**value, event.data: value.get(event.data, frozenset()) | {str(event.seq)}}

    fill(store, "a", [3, 1, 3])
    state_type = dict[int, frozenset[str]]
    whole = store.run(projection.project("a", gather, {}))
    assert whole.value == {3: {"1", "3"}, 1: {"2"}}
    assert store.run(snapshot.checkpoint("kept", "a", gather, {}, state_type=state_type)) == whole
    assert store.run(snapshot.replay("kept", "a", gather, {}, state_type=state_type)) == whole
    fill(store, "a", [1])
    later = store.run(snapshot.replay("kept", "a", gather, {}, state_type=state_type))
    assert later == store.run(projection.project("a", gather, {}))


def test_a_struct_seed_says_the_type_of_the_state(store):
    def add_line(basket, event):
        return msgspec.structs.replace(basket, lines={**basket.lines, event.seq: Line(event.data, Decimal("1.50"))})

    store.run(log.append("basket/1", "added", "tea"))
    state = store.run(snapshot.checkpoint("basket", "basket/1", add_line, Basket()))
    assert state == State(Basket({1: Line("tea", Decimal("1.50"))}), 1)
    assert store.run(snapshot.replay("basket", "basket/1", add_line, Basket())) == state
    store.run(log.append("basket/1", "added", "milk"))
    later = store.run(compaction.compact("basket", "basket/1", add_line, Basket()))
    assert sorted(later.value.lines) == [1, 2]
    assert store.run(snapshot.read("basket", state_type=Basket)) == later


def test_a_snapshot_is_read_as_a_fresh_value_each_time(store):
    store.run(snapshot.write("kept", State({"items": []}, 1)))
    store.run(snapshot.read("kept")).value["items"].append("tea")
    assert store.run(snapshot.read("kept")) == State({"items": []}, 1)


def test_a_state_that_cannot_be_stored_is_refused_and_writes_nothing(store):
    with pytest.raises(InvalidRequest, match="is a set, which cannot be stored"):
        store.run(snapshot.write("kept", State({1}, 1)))
    assert store.run(kv.keys()) == []


@pytest.mark.parametrize(
    ("state_type", "value"),
    [(None, float("nan")), (None, [1, float("nan")]), (float, float("nan")), (Decimal, Decimal("NaN"))],
    ids=steady,
)
def test_a_state_that_is_not_a_number_is_kept(store, state_type, value):
    store.run(snapshot.write("kept", State(value, 1), state_type=state_type))
    assert repr(store.run(snapshot.read("kept", state_type=state_type)).value) == repr(value)


@pytest.mark.parametrize(
    ("seed", "state_type", "step"),
    [
        ({}, dict[int, int], lambda counts, event: {**counts, "k": event.data}),
        (Counted(0), None, lambda counted, event: Counted("seven")),
        (Nothing(), None, lambda nothing, event: Counted(event.data)),
        ({}, None, lambda counts, event: {**counts, "last": Counted(event.data)}),
        ([], None, lambda told, event: (*told, event.data)),
        ({}, dict[str, Any], lambda told, event: {**told, "at": Decimal(event.data)}),
    ],
    ids=["a key", "a field", "another Struct", "a Struct within", "a tuple", "Any"],
)
def test_a_state_that_would_not_come_back_is_refused_before_anything_is_dropped(store, seed, state_type, step):
    fill(store, "a", [1, 2])
    whole = store.run(projection.project("a", step, seed))
    for program in (
        snapshot.write("kept", whole, state_type=snapshot.state_type_of(seed, state_type)),
        snapshot.checkpoint("kept", "a", step, seed, state_type=state_type),
        compaction.compact("kept", "a", step, seed, state_type=state_type),
        compaction.maybe_compact("kept", "a", step, seed, 1, state_type=state_type),
    ):
        with pytest.raises(InvalidRequest, match=r"the state for snapshot 'kept'.* (would come|read|cannot be stored)"):
            store.run(program)
    assert store.run(kv.keys()) == []
    assert [event.data for event in store.run(log.read("a"))] == [1, 2]
    assert store.run(snapshot.replay("kept", "a", step, seed, state_type=state_type)) == whole


@pytest.mark.parametrize("name", ["", "a\x00", "x" * 513, 7])
def test_a_name_that_is_no_name_is_refused(store, name):
    for program in (snapshot.read(name), snapshot.covered_seq(name), snapshot.write(name, State(1, 1))):
        with pytest.raises(InvalidRequest, match="snapshot name"):
            store.run(program)


# Never back


def test_a_snapshot_never_goes_back(store):
    store.run(snapshot.write("kept", State("newer", 5)))
    store.run(snapshot.write("kept", State("older", 4)))
    assert store.run(snapshot.read("kept")) == State("newer", 5)
    store.run(snapshot.write("kept", State("same", 5)))
    assert store.run(snapshot.read("kept")) == State("same", 5)
    store.run(snapshot.write("kept", State("newest", 6)))
    assert store.run(snapshot.read("kept")) == State("newest", 6)


def test_a_later_snapshot_that_does_not_decode_is_never_replaced_by_an_earlier_state(store):
    kept = {"seq": 9, "value": "made by newer code", "stream": "a"}
    store.run(kv.put("snapshot/kept", kept))
    fill(store, "a", [1, 2])
    assert store.run(snapshot.checkpoint("kept", "a", total, 0, state_type=int)) == State(3, 2)
    store.run(snapshot.write("kept", State(3, 8), stream="a", state_type=int))
    assert store.run(kv.get("snapshot/kept")) == kept
    assert store.run(snapshot.read("kept", state_type=int)) is None
    assert store.run(snapshot.covered_seq("kept", stream="a")) == 9


class Old(msgspec.Struct, frozen=True):
    count: int = 0


class New(msgspec.Struct, frozen=True):
    seen: list[int]
    count: str = ""


def count_old(old, event):
    return Old(old.count + 1)


def gather_new(new, event):
    return New([*new.seen, event.data])


@pytest.mark.parametrize("other", [compaction.compact, snapshot.checkpoint])
def test_older_code_beside_newer_code_loses_no_event_in_any_order(open_new, other):
    def append_and_compact():
        yield from log.append("a", "counted", 2)
        return (yield from compaction.compact("kept", "a", gather_new, New([])))

    def begin(store):
        fill(store, "a", [1])
        return [other("kept", "a", count_old, Old()), append_and_compact()]

    orders = set()
    for order, store, ends in interleavings(open_new, begin):
        kept = store.run(kv.get("snapshot/kept"))
        left = [event.seq for event in store.run(log.read("a"))]
        assert [*range(1, kept["seq"] + 1), *(seq for seq in left if seq > kept["seq"])] == [1, 2], (order, kept, left)
        # Whoever came second may find the events gone, and a snapshot that it cannot read; it says so.
        assert all(isinstance(end, State | SnapshotMismatch) for end in ends), (order, ends)
        if isinstance(ends[0], State) and ends[0].seq == 1 and isinstance(ends[1], State):
            assert kept == {"seq": 2, "value": {"seen": [1, 2], "count": ""}, "stream": "a"}, order
        orders.add(order)
    assert len(orders) >= 20


def test_two_writers_of_one_snapshot_leave_the_later_state_in_every_order(open_new):
    def begin(store):
        return [snapshot.write("kept", State("older", 4)), snapshot.write("kept", State("newer", 5))]

    orders = set()
    for order, store, ends in interleavings(open_new, begin):
        assert ends == [None, None], order
        assert store.run(snapshot.read("kept")) == State("newer", 5), order
        orders.add(order)
    assert len(orders) >= 6


def test_two_checkpoints_and_an_append_leave_a_true_snapshot_in_every_order(open_new):
    def begin(store):
        fill(store, "a", [1, 2])
        return [
            snapshot.checkpoint("kept", "a", total, 0),
            log.append("a", "counted", 4),
            snapshot.checkpoint("kept", "a", total, 0),
        ]

    for order, store, ends in interleavings(open_new, begin):
        states = [ends[0], ends[2]]
        assert all(state in (State(3, 2), State(7, 3)) for state in states), order
        assert store.run(snapshot.read("kept")) == max(states, key=lambda state: state.seq), order


# One name, one stream


def test_a_name_used_for_two_streams_is_refused(store):
    fill(store, "a", [1])
    fill(store, "b", [2])
    store.run(snapshot.checkpoint("kept", "a", total, 0))
    for program in (
        snapshot.replay("kept", "b", total, 0),
        snapshot.checkpoint("kept", "b", total, 0),
        snapshot.write("kept", State(2, 9), stream="b"),
        compaction.compact("kept", "b", total, 0),
    ):
        with pytest.raises(InvalidRequest, match="snapshot 'kept' is of stream 'a', and was asked for with 'b'"):
            store.run(program)
    assert store.run(snapshot.read("kept")) == State(1, 1)
    assert len(store.run(log.read("b"))) == 1


def test_a_state_written_without_its_stream_keeps_the_stream_that_is_kept(store):
    fill(store, "b", [2, 2, 2])
    store.run(snapshot.write("kept", State(1, 1), stream="a"))
    store.run(snapshot.write("kept", State(3, 2)))
    assert store.run(kv.get("snapshot/kept")) == {"seq": 2, "value": 3, "stream": "a"}
    with pytest.raises(InvalidRequest, match="snapshot 'kept' is of stream 'a', and was asked for with 'b'"):
        store.run(snapshot.replay("kept", "b", total, 0))


def test_whether_to_compact_is_not_answered_by_another_streams_snapshot(store):
    fill(store, "a", [1, 2])
    fill(store, "b", [2] * 5)
    store.run(snapshot.checkpoint("kept", "a", total, 0))
    for program in (
        snapshot.covered_seq("kept", stream="b"),
        compaction.should_compact("kept", "b", 3),
        compaction.maybe_compact("kept", "b", total, 0, 3),
    ):
        with pytest.raises(InvalidRequest, match="snapshot 'kept' is of stream 'a', and was asked for with 'b'"):
            store.run(program)
    assert len(store.run(log.read("b"))) == 5


# What does not decode

junk = pytest.mark.parametrize(
    "value",
    [
        None,
        "junk",
        7,
        b"\xff",
        [],
        [1, 2, "a"],
        {},
        {"seq": "1", "value": 0, "stream": "a"},
        {"seq": None, "value": 0, "stream": "a"},
        {"value": 0, "stream": "a"},
        {"seq": 1, "stream": "a"},
        {"seq": 1, "value": 0, "stream": 5},
        {"seq": -1, "value": 0, "stream": "a"},
        {"seq": 1, "value": "no integer", "stream": "a"},
        {"seq": 1, "value": {"sum": 1}, "stream": "a"},
        {"seq": 1, "value": 1.5, "stream": "a"},
    ],
    ids=steady,
)


@junk
def test_a_snapshot_that_does_not_decode_is_rebuilt(store, value):
    store.run(kv.put("snapshot/kept", value))
    fill(store, "a", [3, 4])
    assert store.run(snapshot.read("kept", state_type=int)) is None
    assert store.run(snapshot.replay("kept", "a", total, 0, state_type=int)) == State(7, 2)
    assert store.run(kv.get("snapshot/kept")) == value
    assert store.run(snapshot.checkpoint("kept", "a", total, 0, state_type=int)) == State(7, 2)
    assert store.run(snapshot.read("kept", state_type=int)) == State(7, 2)


@junk
def test_a_snapshot_that_does_not_decode_cannot_be_rebuilt_from_a_truncated_stream(store, value):
    fill(store, "a", [3, 4])
    store.run(compaction.compact("kept", "a", total, 0, state_type=int))
    fill(store, "a", [5])
    store.run(kv.put("snapshot/kept", value))
    for program in (snapshot.replay, snapshot.checkpoint, compaction.compact):
        with pytest.raises(Truncated) as raised:
            store.run(program("kept", "a", total, 0, state_type=int))
        assert (raised.value.stream, raised.value.first_left) == ("a", 3)
    assert store.run(kv.get("snapshot/kept")) == value
    assert [event.data for event in store.run(log.read("a"))] == [5]


def test_a_struct_that_has_grown_a_field_rebuilds_its_snapshot(store):
    class Old(msgspec.Struct, frozen=True):
        count: int = 0

    class New(msgspec.Struct, frozen=True):
        seen: list[int]
        count: int = 0

    fill(store, "a", [3, 4])
    store.run(snapshot.checkpoint("kept", "a", lambda old, event: Old(old.count + 1), Old()))

    def step(new, event):
        return New([*new.seen, event.data], new.count + 1)

    assert store.run(snapshot.checkpoint("kept", "a", step, New([]))) == State(New([3, 4], 2), 2)
    assert store.run(snapshot.read("kept", state_type=New)) == State(New([3, 4], 2), 2)


def test_a_replay_reads_only_the_tail(store):
    fill(store, "a", range(PAGE_SIZE + 5))
    store.run(snapshot.checkpoint("kept", "a", total, 0))
    fill(store, "a", [1, 2])
    read = []

    def watched(request):
        page = store.handlers[Read](request)
        read.append((request.after, len(page.events)))
        return page

    run(snapshot.replay("kept", "a", total, 0), {**store.handlers, Read: watched})
    assert read == [(PAGE_SIZE + 5, 2)]


def test_a_replay_writes_nothing(store):
    fill(store, "a", [3, 4])
    assert store.run(snapshot.replay("kept", "a", total, 0)) == State(7, 2)
    assert store.run(kv.keys()) == []


# Compaction


def test_compaction_keeps_the_state_and_drops_what_it_covers(store):
    fill(store, "a", [1, 2, 3])
    assert store.run(compaction.compact("kept", "a", total, 0)) == State(6, 3)
    assert store.run(log.read("a")) == []
    assert store.run(log.last_seq("a")) == 3
    assert store.run(snapshot.read("kept")) == State(6, 3)
    assert store.run(snapshot.replay("kept", "a", total, 0)) == State(6, 3)
    with pytest.raises(Truncated):
        store.run(projection.project("a", total, 0))


def test_an_append_after_compaction_continues_the_sequence(store):
    fill(store, "a", [1, 2, 3])
    store.run(compaction.compact("kept", "a", total, 0))
    assert store.run(log.append("a", "counted", 4)).seq == 4
    assert store.run(log.append_expect("a", 4, "counted", 5)).seq == 5
    assert store.run(snapshot.replay("kept", "a", total, 0)) == State(15, 5)


def test_compacting_twice_changes_nothing(store):
    fill(store, "a", [1, 2, 3])
    first = store.run(compaction.compact("kept", "a", total, 0))
    assert store.run(compaction.compact("kept", "a", total, 0)) == first
    fill(store, "a", [4])
    assert store.run(compaction.compact("kept", "a", total, 0)) == State(10, 4)
    assert store.run(log.read("a")) == []


def test_compacting_an_empty_stream_keeps_the_seed(store):
    assert store.run(compaction.compact("kept", "a", total, 0)) == State(0, 0)
    assert store.run(log.append("a", "counted", 1)).seq == 1
    assert store.run(snapshot.replay("kept", "a", total, 0)) == State(1, 1)


def test_compaction_leaves_other_streams_alone(store):
    for stream in ("a", "a/1", "b"):
        fill(store, stream, [1, 2])
    store.run(compaction.compact("kept", "a", total, 0))
    assert len(store.run(log.read("a/1"))) == len(store.run(log.read("b"))) == 2


def test_an_event_appended_during_compaction_is_neither_lost_nor_dropped(open_new):
    def begin(store):
        fill(store, "a", [1, 2])
        return [compaction.compact("kept", "a", total, 0), log.append("a", "counted", 4)]

    for order, store, ends in interleavings(open_new, begin):
        assert ends[0] in (State(3, 2), State(7, 3)), order
        assert store.run(snapshot.replay("kept", "a", total, 0)) == State(7, 3), order


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_stream_should_be_compacted_once_enough_events_are_uncovered(store, every):
    for round_number in range(3):
        for uncovered in range(every):
            assert not store.run(compaction.should_compact("kept", "a", every)), (round_number, uncovered)
            assert store.run(compaction.maybe_compact("kept", "a", total, 0, every)) is None
            fill(store, "a", [1])
        assert store.run(compaction.should_compact("kept", "a", every))
        seq = (round_number + 1) * every
        assert store.run(compaction.maybe_compact("kept", "a", total, 0, every)) == State(seq, seq)
        assert store.run(log.read("a")) == []


@pytest.mark.parametrize("every", [0, -1, 1.0, True, None])
def test_compacting_every_no_events_is_refused(store, every):
    for program in (
        compaction.should_compact("kept", "a", every),
        compaction.maybe_compact("kept", "a", total, 0, every),
    ):
        with pytest.raises(InvalidRequest, match="every is"):
            store.run(program)


def test_a_state_type_reaches_through_compaction(store):
    def gather(value, event):
        return value | {event.data}

    state_type: Any = set[int]
    fill(store, "a", [2, 1, 2])
    assert store.run(compaction.maybe_compact("kept", "a", gather, set(), 3, state_type=state_type)).value == {1, 2}
    fill(store, "a", [5])
    assert store.run(compaction.compact("kept", "a", gather, set(), state_type=state_type)) == State({1, 2, 5}, 4)


def test_a_snapshot_put_back_by_another_writer_is_found_by_its_revision(open_new):
    """A writer that puts the record blindly is seen as a conflict, and its state compared again."""

    def begin(store):
        record = {"seq": 7, "value": 70, "stream": "a"}

        def blind():
            yield from perform(KvPut("snapshot/kept", record))

        return [snapshot.write("kept", State(50, 5), stream="a"), blind()]

    for order, store, _ in interleavings(open_new, begin):
        assert store.run(snapshot.read("kept")) == State(70, 7), order


@pytest.mark.exploration
@pytest.mark.parametrize("other", [compaction.compact, snapshot.checkpoint, snapshot.replay])
def test_a_compaction_harms_no_other_fold_of_its_snapshot_in_any_order(open_new, other):
    def begin(store):
        fill(store, "a", [1, 2])
        return [
            compaction.compact("kept", "a", total, 0),
            other("kept", "a", total, 0),
            log.append("a", "counted", 4),
        ]

    for order, store, ends in interleavings(open_new, begin):
        assert all(state in (State(3, 2), State(7, 3)) for state in ends[:2]), (order, ends)
        assert store.run(snapshot.replay("kept", "a", total, 0)) == State(7, 3), order


def test_a_compaction_interrupted_at_any_request_and_performed_again_loses_nothing(open_new):
    for count in range(8):
        with open_new() as store:
            fill(store, "a", [1, 2])
            stop_after(compaction.compact("kept", "a", total, 0), store, count)
            assert store.run(snapshot.replay("kept", "a", total, 0)) == State(3, 2), count
            fill(store, "a", [4])
            assert store.run(compaction.compact("kept", "a", total, 0)) == State(7, 3), count
            assert store.run(log.read("a")) == []


SMALL, LARGE = (State(3, 2), [5, 6]), (State(14, 4), [])
"""The snapshot and the events left, before and after a compaction."""


def kept_and_left(store):
    return store.run(snapshot.read("kept")), [event.data for event in store.run(log.read("a"))]


def begin_second_compaction(store):
    fill(store, "a", [1, 2])
    store.run(compaction.compact("kept", "a", total, 0))
    fill(store, "a", [5, 6])
    assert kept_and_left(store) == SMALL
    return compaction.compact("kept", "a", total, 0)


def test_a_compaction_is_one_transaction_wherever_it_is_interrupted(open_new):
    seen = []
    for count in itertools.count():
        with open_new() as store:
            ended = stop_after(begin_second_compaction(store), store, count)
            seen.append(kept_and_left(store))
        if ended:
            break
    assert len(seen) > 3
    assert seen == [SMALL] * (len(seen) - 1) + [LARGE]


@pytest.mark.parametrize("is_carried_out", [False, True])
@pytest.mark.parametrize("error", [UncertainOutcome("lost"), StoreUnavailable("lost"), KeyboardInterrupt()])
def test_a_compaction_that_meets_an_error_at_any_request_is_done_or_not_done(open_new, is_carried_out, error):
    seen = []
    for count in itertools.count():
        with open_new() as store:
            step = start(begin_second_compaction(store))
            for _ in range(count):
                step = answer(step, store) if isinstance(step, Suspended) else step
            if not isinstance(step, Suspended):
                break
            if is_carried_out:
                store.handlers[type(step.request)](step.request)
            with pytest.raises(type(error)):
                step.throw(error)
            seen.append(kept_and_left(store))
            assert store.run(compaction.compact("kept", "a", total, 0)) == LARGE[0], count
            assert kept_and_left(store) == LARGE, count
    # Only the last request writes.
    assert seen == [SMALL] * (count - 1) + [LARGE if is_carried_out else SMALL]
