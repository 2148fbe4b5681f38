"""What a snapshot keeps of a state: believed where it comes back as it was, else rebuilt, lifted or left as it is."""

import dataclasses
import datetime as dt
import enum
from decimal import Decimal
from typing import NamedTuple

import pytest
from conftest import interleavings
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Struct, UnsetType
from steady import steady

from interpreters import open_store
from interpreters.explore import explore, explore_effects
from persist_effects import (
    Draft,
    InvalidRequest,
    SnapshotMismatch,
    State,
    Truncated,
    compaction,
    kv,
    log,
    run,
    snapshot,
)
from persist_effects.errors import error_from_record, error_to_record
from persist_effects.requests import ExpectRevision, Transact, TruncateThrough


def total(value, event):
    return value + event.data


def cents(value, event):
    """The fold of version 2: the same events in cents."""
    return value + 100 * event.data


def fill(store, stream, numbers):
    store.run(log.append_many(stream, [Draft("counted", number) for number in numbers]))


class Count(Struct, frozen=True):
    count: int = 0


class Renamed(Struct, frozen=True):
    number: int = 0


class Grown(Struct, frozen=True):
    count: int = 0
    total: int = 0


class Lean(Struct, frozen=True, omit_defaults=True):
    count: int = 0


class LeanGrown(Struct, frozen=True, omit_defaults=True):
    count: int = 0
    total: int = 0


class LeanOther(Struct, frozen=True, omit_defaults=True):
    count: int = 100


class Row(Struct, frozen=True, array_like=True):
    count: int = 0
    total: int = 0


class RowTurned(Struct, frozen=True, array_like=True):
    total: int = 0
    count: int = 0


class RowGrown(Struct, frozen=True, array_like=True):
    count: int = 0
    total: int = 0
    more: int = 0


class Named(NamedTuple):
    number: int
    total: int


class NamedTurned(NamedTuple):
    total: int
    number: int


class Unset(Struct, frozen=True):
    count: int | UnsetType = UNSET


class UnsetGrown(Struct, frozen=True):
    count: int | UnsetType = UNSET
    total: int | UnsetType = UNSET


@dataclasses.dataclass(frozen=True)
class Data:
    count: int = 0


@dataclasses.dataclass(frozen=True)
class DataGrown:
    count: int = 0
    total: int = 0


class Cat(Struct, frozen=True, tag="cat"):
    lives: int = 9


class Kitten(Struct, frozen=True, tag="cat"):
    lives: int = 9
    weeks: int = 0


class Dog(Struct, frozen=True, tag="dog"):
    name: str = ""


class Camel(Struct, frozen=True, rename="camel"):
    the_count: int = 0


class NotCamel(Struct, frozen=True):
    the_count: int = 0


class Sized(enum.Enum):
    LARGE = "l"
    EXTRA = "xl"


class SizedAnew(enum.Enum):
    LARGE = "l"

    @classmethod
    def _missing_(cls, value: object) -> "SizedAnew":
        return cls.LARGE


CHANGES = {
    "a field renamed": (Count(5), Renamed),
    "a field added": (Count(5), Grown),
    "a field removed": (Grown(5, 7), Count),
    "in a list": ([Count(5)], list[Grown]),
    "in a dict": ({"a": Count(5)}, dict[str, Renamed]),
    "in a dict by numbers": ({1: Count(5)}, dict[int, Renamed]),
    "in a tuple": ((1, Count(5)), tuple[int, Grown]),
    "in a set": (frozenset({Count(5)}), frozenset[Grown]),
    "in a union": (Cat(3), Kitten | Dog),
    "without its tag": (Cat(3), Count),
    "with a tag": (Count(3), Cat),
    "defaults left out, a field added": (Lean(5), LeanGrown),
    "defaults left out, all of them": (Lean(), LeanGrown),
    "defaults left out within": ({"a": [Lean(5)]}, dict[str, list[LeanGrown]]),
    "an array, turned around": (Row(1, 2), RowTurned),
    "an array, one more": (Row(1, 2), RowGrown),
    "an array, one less": (RowGrown(1, 2, 3), Row),
    "a named tuple, turned around": (Named(1, 2), NamedTurned),
    "an unset field added": (Unset(), UnsetGrown),
    "a dataclass": (Data(5), DataGrown),
    "names as they are written": (Camel(5), NotCamel),
    "a value that is no more": (Sized.EXTRA, SizedAnew),
    "another type altogether": (5, str),
    "str keys that become one number": ({"1": 5, "01": 7}, dict[int, int]),
    "more digits than a float has": ([2**53 + 1], list[float]),
}


def type_of(value):
    """The type that says how a value of `CHANGES` is read."""
    if isinstance(value, dict):
        return dict[type(next(iter(value))), type_of(next(iter(value.values())))]
    if isinstance(value, list | frozenset):
        part = type_of(next(iter(value)))
        return list[part] if isinstance(value, list) else frozenset[part]
    if type(value) is tuple:
        return tuple[tuple(type_of(part) for part in value)]
    return type(value)


# What is believed


@pytest.mark.parametrize(("value", "after"), CHANGES.values(), ids=CHANGES)
def test_a_state_whose_type_has_changed_is_not_believed(store, value, after):
    store.run(snapshot.write("kept", State(value, 2), stream="a", state_type=type_of(value)))
    assert store.run(snapshot.read("kept", state_type=type_of(value))) == State(value, 2)
    assert store.run(snapshot.read("kept", state_type=after)) is None


@pytest.mark.parametrize(("value", "after"), CHANGES.values(), ids=CHANGES)
def test_a_state_whose_type_has_changed_is_rebuilt_while_its_events_are_there_and_then_left_alone(store, value, after):
    store.run(kv.put("other", 0))
    fill(store, "a", [1, 2])
    seed = object()

    def step(state, event):
        return "folded" if state is seed else f"{state} again"

    store.run(snapshot.write("kept", State(value, 2), stream="a", state_type=type_of(value)))
    assert store.run(snapshot.replay("kept", "a", step, seed, state_type=after)) == State("folded again", 2)
    kept = store.run(kv.entry("snapshot/kept"))
    store.run(log.truncate_through("a", 2))
    fill(store, "a", [3])
    for program in (snapshot.replay, snapshot.checkpoint, compaction.compact):
        with pytest.raises(SnapshotMismatch) as raised:
            store.run(program("kept", "a", step, seed, state_type=after))
        error = raised.value
        assert (error.name, error.stream, error.kept_version, error.version, error.seq) == ("kept", "a", 1, 1, 2)
        assert "it does not fit the type of the state: " in str(error)
        assert str(error).endswith("give `version=2` and `lift={1: f}`, f(value that is kept) -> state")
    assert store.run(kv.entry("snapshot/kept")) == kept
    assert [event.data for event in store.run(log.read("a"))] == [3]


class Turned(Struct, frozen=True):
    total: int = 0
    count: int = 0


class LeanNoMore(Struct, frozen=True):
    count: int = 0


class GrownLean(Struct, frozen=True, omit_defaults=True):
    count: int = 0
    total: int = 0


@pytest.mark.parametrize(
    ("kept_type", "value", "state_type", "come_back"),
    [
        (Grown, Grown(5, 7), Turned, Turned(7, 5)),
        (frozenset[Grown], frozenset({Grown(5, 1), Grown(3, 2)}), frozenset[Turned], {Turned(1, 5), Turned(2, 3)}),
        (list[int], [1, 2], list[float], [1.0, 2.0]),
        (frozenset[int], frozenset({3, 2}), frozenset[float], {3.0, 2.0}),
        (Lean, Lean(0), LeanNoMore, LeanNoMore(0)),
        (Lean, Lean(0), LeanOther, LeanOther(0)),
        (Grown, Grown(5, 0), GrownLean, GrownLean(5, 0)),
        (list[Count], [], list[Renamed], []),
    ],
    ids=[
        "fields in another order",
        "in a set",
        "floats",
        "floats in a set",
        "defaults kept",
        "another default",
        "left out",
        "none there",
    ],
)
def test_what_says_the_same_is_believed(store, kept_type, value, state_type, come_back):
    store.run(snapshot.write("kept", State(value, 2), state_type=kept_type))
    assert store.run(snapshot.read("kept", state_type=state_type)) == State(come_back, 2)


@pytest.mark.parametrize(
    ("record", "state_type", "value"),
    [
        ({"seq": 2, "value": 12, "stream": "a"}, None, 12),
        ({"seq": 2, "value": {"count": 5, "total": 7}, "stream": "a"}, Grown, Grown(5, 7)),
        ({"seq": 2, "value": {"count": 5}, "stream": "a"}, LeanGrown, LeanGrown(5, 0)),
        ({"seq": 2, "value": {}, "stream": None}, LeanGrown, LeanGrown()),
        (
            {"seq": 2, "value": {"a": [{"total": 1}]}, "stream": "a"},
            dict[str, list[LeanGrown]],
            {"a": [LeanGrown(0, 1)]},
        ),
        ({"seq": 2, "value": [5, 7], "stream": "a"}, Row, Row(5, 7)),
        ({"seq": 2, "value": [5, 7], "stream": "a"}, Named, Named(5, 7)),
        ({"seq": 2, "value": {}, "stream": "a"}, UnsetGrown, UnsetGrown()),
        ({"seq": 2, "value": {"type": "cat", "lives": 3}, "stream": "a"}, Cat | Dog, Cat(3)),
        ({"seq": 2, "value": {"1": [3, 2.5]}, "stream": "a"}, dict[int, set[float]], {1: {2.5, 3.0}}),
        ({"seq": 2, "value": ["a", "b"], "stream": "a"}, set[str], {"a", "b"}),
        (
            {"seq": 2, "value": ["2024-02-29T23:59:59.999999Z", "1E+2"], "stream": "a"},
            tuple[dt.datetime, Decimal],
            (dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=dt.UTC), Decimal("1E+2")),
        ),
    ],
    ids=steady,
)
def test_a_snapshot_kept_before_there_were_versions_is_read_as_version_1(store, record, state_type, value):
    fill(store, "a", [1, 1])
    store.run(log.truncate_through("a", 2))
    store.run(kv.put("snapshot/kept", record))
    assert store.run(snapshot.read("kept", state_type=state_type)) == State(value, 2)
    replayed = store.run(snapshot.replay("kept", "a", total, None, state_type=state_type))
    assert replayed == State(value, 2)


@pytest.mark.parametrize(
    ("state_type", "value", "record"),
    [
        (None, {"a": 1}, {"seq": 2, "value": {"a": 1}, "stream": "a"}),
        (Grown, Grown(5), {"seq": 2, "value": {"count": 5, "total": 0}, "stream": "a"}),
        (dict[int, float], {1: 2}, {"seq": 2, "value": {"1": 2}, "stream": "a"}),
        (
            LeanGrown,
            LeanGrown(5),
            {"seq": 2, "value": {"count": 5, "total": 0}, "stream": "a", "fields": [["count", "total"]]},
        ),
        (Row, Row(5), {"seq": 2, "value": [5, 0], "stream": "a", "fields": [["count", "total"]]}),
        (Data, Data(5), {"seq": 2, "value": {"count": 5}, "stream": "a", "fields": [["count"]]}),
        (Unset, Unset(), {"seq": 2, "value": {}, "stream": "a", "fields": [["count"]]}),
    ],
    ids=steady,
)
def test_a_snapshot_of_version_1_is_kept_as_before_where_its_value_shows_its_fields(store, state_type, value, record):
    store.run(snapshot.write("kept", State(value, 2), stream="a", state_type=state_type))
    assert store.run(kv.get("snapshot/kept")) == record


@pytest.mark.parametrize(
    ("state_type", "value", "come_back"),
    [
        (Decimal, 1.5, Decimal("1.5")),
        (dict[float, str], {1: "a", 2.5: "b"}, {1.0: "a", 2.5: "b"}),
        (set[float], {3, 2.5}, {3.0, 2.5}),
        (list[Decimal], [1, 2.5], [Decimal(1), Decimal("2.5")]),
    ],
    ids=steady,
)
def test_an_equal_value_of_another_type_is_kept_so_that_it_is_believed(store, state_type, value, come_back):
    store.run(snapshot.write("kept", State(value, 2), state_type=state_type))
    assert store.run(snapshot.read("kept", state_type=state_type)) == State(come_back, 2)


def of_kinds(children):
    """Pairs of a type and values of it, made of pairs of the parts."""

    def within(pair):
        kind, values = pair
        keys = st.text(max_size=3), st.integers(-9, 9), st.dates()
        yield list[kind], st.lists(values, max_size=3)
        yield tuple[kind, int], st.tuples(values, st.integers(0, 3))
        yield from (
            (dict[key, kind], st.dictionaries(of, values, max_size=3))
            for key, of in zip((str, int, dt.date), keys, strict=True)
        )

    return children.flatmap(lambda pair: st.sampled_from(list(within(pair))))


SCALARS = [
    (int, st.integers(-(2**63), 2**64 - 1)),
    (float, st.floats(allow_nan=False) | st.integers(-9, 9)),
    (str, st.text(max_size=3)),
    (bytes, st.binary(max_size=3)),
    (Decimal, st.decimals(allow_nan=False) | st.integers(-9, 9)),
    (dt.datetime, st.datetimes(timezones=st.just(dt.UTC) | st.just(dt.timezone(dt.timedelta(hours=2))))),
    (dt.timedelta, st.timedeltas(dt.timedelta(days=-999), dt.timedelta(days=999))),
    (set[float], st.sets(st.floats(allow_nan=False) | st.integers(-9, 9), max_size=4)),
    (
        frozenset[Grown],
        st.frozensets(
            st.builds(Grown, st.integers(), st.integers()).filter(lambda g: abs(g.count) < 2**63 > abs(g.total)),
            max_size=3,
        ),
    ),
    (Lean, st.builds(Lean, st.integers(0, 2))),
    (Row, st.builds(Row, st.integers(0, 2), st.integers(0, 2))),
    (Named, st.builds(Named, st.integers(0, 2), st.integers(0, 2))),
    (Unset, st.builds(Unset, st.just(UNSET) | st.integers(0, 2))),
    (Data, st.builds(Data, st.integers(0, 2))),
    (Camel, st.builds(Camel, st.integers(0, 2))),
    (Cat | Dog, st.builds(Cat, st.integers(0, 9)) | st.builds(Dog, st.text(max_size=2))),
    (Sized, st.sampled_from(Sized)),
]


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(data=st.data())
def test_what_was_kept_of_an_unchanged_type_is_always_believed(data):
    kind, values = data.draw(st.recursive(st.sampled_from(SCALARS), of_kinds, max_leaves=3))
    value = data.draw(values)
    with open_store("memory:") as store:
        store.run(snapshot.write("kept", State(value, 1), state_type=kind))
        assert store.run(snapshot.read("kept", state_type=kind)) == State(value, 1)


def test_the_error_says_where_a_state_does_not_fit():
    for value, kind, place in (
        (
            {"a": [Count(5)]},
            dict[str, list[Grown]],
            "state[\"a\"][0] has the field 'total', which is not in what is kept",
        ),
        (Grown(1, 2), Count, "what is kept has 'total' in state, and the type has no such field"),
        (Sized.EXTRA, SizedAnew, "state is 'l', and what is kept is 'xl'"),
        (RowGrown(), Row, "state has 2 parts, and what is kept has 3"),
        (Row(), RowTurned, "the fields were [['count', 'total']], and now are [['total', 'count']]"),
    ):
        with open_store("memory:") as store:
            fill(store, "a", [1])
            store.run(snapshot.write("kept", State(value, 1), stream="a", state_type=type_of(value)))
            store.run(log.truncate_through("a", 1))
            with pytest.raises(SnapshotMismatch) as raised:
                store.run(snapshot.replay("kept", "a", total, value, state_type=kind))
            assert raised.value.reason == f"it does not fit the type of the state: {place}"


def test_a_mismatch_is_the_same_after_a_journey_to_another_process():
    error = SnapshotMismatch("kept", "a", 1, 2, 9, "why")
    back = error_from_record(error_to_record(error))
    assert (type(back), str(back), back.args) == (SnapshotMismatch, str(error), error.args)


# Versions


def kept_by_version_1(store):
    """Version 1's snapshot in the place of its events, and one event after it."""
    fill(store, "a", [1, 2])
    store.run(compaction.compact("kept", "a", total, 0))
    fill(store, "a", [4])


programs = pytest.mark.parametrize("program", [snapshot.replay, snapshot.checkpoint, compaction.compact])


@programs
def test_a_lower_version_is_rebuilt_while_its_events_are_there(store, program):
    fill(store, "a", [1, 2])
    store.run(snapshot.checkpoint("kept", "a", total, 0))
    wrong = {1: lambda old: -1}
    assert store.run(program("kept", "a", cents, 0, version=2, lift=wrong)) == State(300, 2), "events are the truth"
    if program is not snapshot.replay:
        assert store.run(kv.get("snapshot/kept")) == {"seq": 2, "value": 300, "stream": "a", "version": 2}
        assert store.run(snapshot.read("kept", version=2)) == State(300, 2)
        assert store.run(snapshot.read("kept")) is None
    assert len(store.run(log.read("a"))) == (0 if program is compaction.compact else 2)


@programs
def test_a_lower_version_is_the_only_copy_where_its_events_were_dropped(store, program):
    kept_by_version_1(store)
    before = store.run(kv.entry("snapshot/kept"))
    with pytest.raises(SnapshotMismatch) as raised:
        store.run(program("kept", "a", cents, 0, version=3, lift={2: lambda old: old}))
    assert str(raised.value) == (
        "snapshot 'kept' of stream 'a' has version 1, through event 2, and cannot be used by version 3: it is of an "
        "earlier version of the fold. Its events were dropped, so it is the only copy, and was left as it is: give "
        "`lift={1: f}`, f(value that is kept) -> the next version's state"
    )
    assert isinstance(raised.value.__cause__, Truncated)
    assert store.run(kv.entry("snapshot/kept")) == before
    assert [event.data for event in store.run(log.read("a"))] == [4]


@programs
def test_a_lower_version_is_lifted_where_its_events_were_dropped(store, program):
    kept_by_version_1(store)
    lift = {1: lambda old: old * 100}
    assert store.run(snapshot.read("kept", version=2, lift=lift)) == State(300, 2)
    assert store.run(program("kept", "a", cents, 0, version=2, lift=lift)) == State(700, 3)
    if program is not snapshot.replay:
        assert store.run(snapshot.read("kept", version=2)) == State(700, 3)
        assert store.run(program("kept", "a", cents, 0, version=2)) == State(700, 3), "once is enough"


class Cents(Struct, frozen=True):
    cents: int


class Money(Struct, frozen=True):
    cents: int
    currency: str = "EUR"


def test_a_snapshot_is_lifted_version_by_version_through_plain_values(store):
    seen = []

    def to_money(plain):
        seen.append(plain)
        return {**plain, "currency": "CHF"}

    kept_by_version_1(store)
    lift = {1: lambda old: Cents(old * 100), 2: to_money}
    state = store.run(snapshot.read("kept", state_type=Money, version=3, lift=lift))
    assert state == State(Money(300, "CHF"), 2)
    assert seen == [{"cents": 300}]

    def add(money, event):
        return Money(money.cents + event.data * 100, money.currency)

    assert store.run(compaction.compact("kept", "a", add, Money(0), version=3, lift=lift)) == State(
        Money(700, "CHF"), 3
    )
    kept = {"seq": 3, "value": {"cents": 700, "currency": "CHF"}, "stream": "a", "version": 3}
    assert store.run(kv.get("snapshot/kept")) == kept


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda old: old["x"], "lift[1] raised TypeError: 'int' object is not subscriptable"),
        (lambda old: {"cents": old}, "what lift[1] made does not fit: state has the field 'currency'"),
        (lambda old: Cents(old), "what lift[1] made does not fit: state has the field 'currency'"),
        (lambda old: "much", "what lift[1] made does not fit: Expected `object`, got `str`"),
    ],
    ids=["raises", "a field left out", "another class", "another type"],
)
def test_a_lift_that_makes_no_such_state_is_told_and_changes_nothing(store, function, reason):
    kept_by_version_1(store)
    before = store.run(kv.entry("snapshot/kept"))
    for program in (
        snapshot.read("kept", state_type=Money, version=2, lift={1: function}),
        compaction.compact("kept", "a", total, Money(0), version=2, lift={1: function}),
    ):
        with pytest.raises(SnapshotMismatch) as raised:
            store.run(program)
        assert reason in raised.value.reason
    assert store.run(kv.entry("snapshot/kept")) == before


def test_what_a_lift_does_to_the_value_that_it_is_given_changes_nothing(store):
    def spoil(old):
        old["a"].append(2)
        return old

    store.run(snapshot.write("kept", State({"a": [1]}, 2)))
    for _ in range(2):
        assert store.run(snapshot.read("kept", version=2, lift={1: spoil})) == State({"a": [1, 2]}, 2)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "2", None])
def test_a_version_that_is_no_number_is_refused(store, version):
    for program in (
        snapshot.read("kept", version=version),
        snapshot.write("kept", State(1, 1), version=version),
        compaction.compact("kept", "a", total, 0, version=version),
        compaction.should_compact("kept", "a", 1, version=version),
    ):
        with pytest.raises(InvalidRequest, match="version is"):
            store.run(program)
    assert store.run(kv.keys()) == []


@pytest.mark.parametrize(
    "lift",
    [{2: abs}, {3: abs}, {0: abs}, {"1": abs}, {1: 5}, {1: None}],
    ids=steady,
)
def test_a_lift_that_is_none_is_refused(store, lift):
    with pytest.raises(InvalidRequest, match="lift"):
        store.run(snapshot.read("kept", version=2, lift=lift))


# Two releases side by side


def test_an_earlier_release_leaves_a_later_ones_snapshot_alone_and_drops_nothing(store):
    fill(store, "a", [1, 2])
    store.run(snapshot.checkpoint("kept", "a", cents, 0, version=2))
    fill(store, "a", [4, 8])
    before = store.run(kv.entry("snapshot/kept"))
    assert not store.run(compaction.should_compact("kept", "a", 1))
    assert store.run(compaction.should_compact("kept", "a", 2, version=2))
    assert store.run(compaction.maybe_compact("kept", "a", total, 0, 1)) is None
    for program in (snapshot.replay, snapshot.checkpoint, compaction.compact):
        assert store.run(program("kept", "a", total, 0)) == State(15, 4)
    store.run(snapshot.write("kept", State(99, 9), stream="a"))
    assert store.run(kv.entry("snapshot/kept")) == before
    assert len(store.run(log.read("a"))) == 4
    assert store.run(snapshot.read("kept")) is None
    assert store.run(snapshot.replay("kept", "a", cents, 0, version=2)) == State(1500, 4)


@programs
def test_an_earlier_release_says_so_where_a_later_one_has_dropped_the_events(store, program):
    fill(store, "a", [1, 2])
    store.run(compaction.compact("kept", "a", cents, 0, version=2))
    fill(store, "a", [4])
    before = store.run(kv.entry("snapshot/kept"))
    with pytest.raises(SnapshotMismatch, match=r"of a later version .* run the release that has version 2"):
        store.run(program("kept", "a", total, 0))
    assert store.run(kv.entry("snapshot/kept")) == before
    assert [event.data for event in store.run(log.read("a"))] == [4]


def test_a_snapshot_that_does_not_cover_what_was_dropped_is_no_copy_of_it(store):
    fill(store, "a", [1, 2, 4])
    store.run(snapshot.write("kept", State(1, 1), stream="a"))
    store.run(log.truncate_through("a", 2))
    for lift in (None, {1: lambda old: old * 100}):
        with pytest.raises(Truncated) as raised:
            store.run(snapshot.replay("kept", "a", cents, 0, version=2, lift=lift))
        assert (raised.value.stream, raised.value.first_left) == ("a", 3)


def test_beside_a_later_state_of_a_lower_version_nothing_is_dropped(store):
    fill(store, "a", [1, 2, 4])
    state = store.run(snapshot.replay("kept", "a", cents, 0, version=2))
    store.run(snapshot.write("kept", State(70, 9), stream="a"))
    store.run(snapshot.write("kept", state, stream="a", version=2, drop=TruncateThrough("a", 3)))
    assert store.run(kv.get("snapshot/kept")) == {"seq": 9, "value": 70, "stream": "a"}
    assert len(store.run(log.read("a"))) == 3


def test_what_covers_the_events_is_still_there_when_they_are_dropped(store):
    """A later state is kept already: they are dropped on the strength of it, so it is expected in the transaction."""
    fill(store, "a", [1, 2, 4])
    asked = []

    def watched(request):
        asked.append(request)
        return store.handlers[Transact](request)

    store.run(snapshot.checkpoint("kept", "a", total, 0))
    revision = store.run(kv.entry("snapshot/kept")).revision
    drop = TruncateThrough("a", 2)
    run(snapshot.write("kept", State(3, 2), stream="a", drop=drop), {**store.handlers, Transact: watched})
    assert asked == [Transact((drop,), (ExpectRevision("snapshot/kept", revision),))]


# Races of releases

LIFT = {1: lambda old: old * 100}


def memory():
    return open_store("memory:", clock=lambda: 7)


def filled():
    store = memory()
    fill(store, "a", [1, 2])
    return store


def compact_1():
    yield from compaction.compact("kept", "a", total, 0)


def checkpoint_1():
    yield from snapshot.checkpoint("kept", "a", total, 0)


def compact_2():
    yield from compaction.compact("kept", "a", cents, 0, version=2, lift=LIFT)


def checkpoint_2():
    yield from snapshot.checkpoint("kept", "a", cents, 0, version=2, lift=LIFT)


def compact_3():
    lift = {**LIFT, 2: lambda old: old * 10}
    yield from compaction.compact("kept", "a", lambda mills, event: mills + 1000 * event.data, 0, version=3, lift=lift)


def append_four():
    yield from log.append("a", "counted", 4)


def nothing_lost(*_):
    """Whatever is kept and left, the newest release sees every event that was appended, once."""
    last = yield from log.last_seq("a")
    lift = {**LIFT, 2: lambda old: old * 10}
    state = yield from snapshot.replay(
        "kept", "a", lambda mills, event: mills + 1000 * event.data, 0, version=3, lift=lift
    )
    assert state == State(3000 if last == 2 else 7000, last), state
    kept = yield from snapshot.kept("kept")
    assert (
        kept is None
        or kept.value == {1: {2: 3, 3: 7}, 2: {2: 300, 3: 700}, 3: {2: 3000, 3: 7000}}[kept.version][kept.seq]
    )


def only_overtaken(outcomes):
    """An earlier release that comes second may find the events gone: it says so, and nothing else goes wrong."""
    for outcome in outcomes:
        error = getattr(outcome, "error", None)
        assert error is None or (isinstance(error, SnapshotMismatch) and error.kept_version > error.version), error
    yield from nothing_lost()


@pytest.mark.parametrize(
    "together",
    [
        (compact_1, compact_2),
        (checkpoint_1, compact_2),
        (compact_1, checkpoint_2),
        (compact_1, checkpoint_2, append_four),
        (checkpoint_1, compact_3, append_four),
    ],
    ids=lambda programs: " ".join(program.__name__ for program in programs),
)
def test_releases_side_by_side_lose_nothing_in_any_order(together):
    report = explore(together, filled, only_overtaken)
    assert report.verdict == "passed", report
    assert report.is_exhaustive, report


def test_a_lift_that_meets_any_fault_is_done_or_not_done():
    def compacted():
        store = filled()
        store.run(compact_1())
        store.run(append_four())
        return store

    report = explore_effects(compact_2, compacted, nothing_lost)
    assert report.verdict == "passed", report


def test_three_releases_side_by_side_lose_nothing_in_orders_of_few_switches():
    report = explore([compact_1, compact_2, compact_3], filled, only_overtaken, bound=2)
    assert report.verdict == "passed", report


def test_the_newest_of_several_releases_wins_in_every_order(open_new):
    def begin(store):
        fill(store, "a", [1, 2])
        return [compact_1(), compact_2()]

    ends_seen = set()
    for order, store, ends in interleavings(open_new, begin):
        kept = store.run(snapshot.kept("kept"))
        assert (kept and kept.version) == 2, (order, ends)
        assert store.run(log.read("a")) == [], order
        ends_seen.add(type(ends[0]).__name__)
    assert ends_seen == {"NoneType", "SnapshotMismatch"}
