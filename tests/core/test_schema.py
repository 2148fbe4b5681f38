"""Typed events: in as Structs, out as Structs, and old shapes lifted when they are read."""

import datetime as dt
import enum
import math
import uuid
from decimal import Decimal

import msgspec
import pytest
from steady import steady

from persist_effects import (
    Conflict,
    Draft,
    Event,
    InvalidRequest,
    Schema,
    SchemaMismatch,
    State,
    log,
    projection,
    snapshot,
)
from persist_effects.errors import describe_type


class Placed(msgspec.Struct, frozen=True):
    total_cents: int
    currency: str


class Paid(msgspec.Struct, frozen=True):
    cents: int


def to_cents(old):
    return {"total_cents": old["total"] * 100}


def add_currency(old):
    return {**old, "currency": "EUR"}


schema = Schema({"placed": Placed, "paid": Paid}, upcasters={"placed": [to_cents, add_currency]})


def event(type, data, version=None):
    return Event("orders/1", 3, type, 0, data, 7, None if version is None else {"schema_version": version})


without_version = Event("orders/1", 3, "placed", 0, {}, 7, {"schema_version": None})


# In and out


def test_a_typed_event_goes_in_and_comes_out_typed(store):
    appended = store.run(schema.append("orders/1", Placed(1200, "EUR"), at=5, meta={"by": "test"}))
    assert appended.data == Placed(1200, "EUR")
    assert (appended.seq, appended.type, appended.at) == (1, "placed", 5)
    assert appended.meta == {"by": "test", "schema_version": 3}
    (stored,) = store.run(log.read("orders/1"))
    assert stored.data == {"total_cents": 1200, "currency": "EUR"}
    assert schema.lift(stored) == appended


def test_a_typed_append_expects_as_a_plain_one_does(store):
    conflict = store.run(schema.append_expect("orders/1", 1, Paid(5)))
    assert conflict == Conflict("stream", "orders/1", 1, 0)
    assert store.run(schema.append_expect("orders/1", 0, Paid(5), at=5)).data == Paid(5)
    assert store.run(schema.append_expect("orders/1", 0, Paid(6))) == Conflict("stream", "orders/1", 0, 1)
    assert store.run(schema.append_expect("orders/1", 1, Paid(6), meta={"by": "test"})).meta["by"] == "test"
    assert [stored.data for stored in store.run(log.read("orders/1"))] == [{"cents": 5}, {"cents": 6}]


def test_a_typed_draft_may_be_appended_with_others(store):
    drafts = [schema.draft(Placed(1200, "EUR")), schema.draft(Paid(1200), at=9)]
    store.run(log.append_many("orders/1", drafts, expected=0))
    assert [schema.lift(stored).data for stored in store.run(log.read("orders/1"))] == [Placed(1200, "EUR"), Paid(1200)]


def test_the_callers_meta_is_left_alone():
    meta = {"by": "test"}
    schema.draft(Paid(1), meta=meta)
    assert meta == {"by": "test"}


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(msgspec.Struct, frozen=True, array_like=True):
    x: int
    y: int


class Circle(msgspec.Struct, frozen=True, tag=True):
    radius: float


class Square(msgspec.Struct, frozen=True, tag=True):
    side: float


class Everything(msgspec.Struct, frozen=True, rename="camel"):
    a_tuple: tuple[int, str]
    many: tuple[tuple[int, ...], ...]
    a_set: frozenset[str]
    when: dt.datetime
    day: dt.date
    took: dt.timedelta
    size: Size
    level: Level
    who: uuid.UUID
    price: Decimal
    raw: bytes
    points: list[Point]
    by_number: dict[int, tuple[Point, ...]]
    shape: Circle | Square
    perhaps: Paid | None = None


EVERYTHING = Everything(
    a_tuple=(1, "x"),
    many=((1, 2), (), (3,)),
    a_set=frozenset({"b", "a"}),
    when=dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=dt.UTC),
    day=dt.date(2024, 2, 29),
    took=dt.timedelta(days=-1, microseconds=1),
    size=Size.LARGE,
    level=Level.HIGH,
    who=uuid.UUID(int=7),
    price=Decimal("0.10"),
    raw=b"\x00\xff",
    points=[Point(1, 2)],
    by_number={-1: (Point(3, 4), Point(5, 6)), 7: ()},
    shape=Square(2.5),
)


def test_every_type_that_msgspec_converts_survives_in_a_typed_event(store):
    wide = Schema({"everything": Everything})
    appended = store.run(wide.append("a", EVERYTHING))
    (read,) = (wide.lift(stored) for stored in store.run(log.read("a")))
    assert appended.data == read.data == EVERYTHING
    assert str(read.data.price) == "0.10"
    for field in Everything.__struct_fields__:
        assert type(getattr(read.data, field)) is type(getattr(EVERYTHING, field)), field


def test_types_other_than_structs_may_stand_for_events(store):
    plain = Schema({"counted": int, "named": str, "stamped": dt.datetime})
    now = dt.datetime(2024, 2, 29, tzinfo=dt.UTC)
    for value in (5, "five", now):
        assert store.run(plain.append("a", value)).data == value
    assert [stored.type for stored in store.run(log.read("a"))] == ["counted", "named", "stamped"]


def test_a_value_whose_class_stands_for_no_event_is_refused(store):
    class Special(Paid, frozen=True):
        pass

    for value in (Special(1), {"cents": 1}, None, 5):
        with pytest.raises(InvalidRequest, match="no event type of the schema has the class"):
            store.run(schema.append("orders/1", value))
    assert store.run(log.streams()) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Placed("12", "EUR"), "Expected `int`, got `str` - at `$.total_cents`"),
        (Placed(12, None), "Expected `str`, got `null` - at `$.currency`"),
        (Paid({1}), "Expected `int`, got `array` - at `$.cents`"),
        (Paid(2**70), "takes more than 64 bits"),
    ],
    ids=steady,
)
def test_a_value_that_its_own_type_would_not_read_back_is_refused_before_anything_is_written(store, value, reason):
    for program in (
        schema.append("orders/1", value),
        schema.append_expect("orders/1", 0, value),
    ):
        with pytest.raises(InvalidRequest) as raised:
            store.run(program)
        assert reason in str(raised.value)
        assert str(raised.value).startswith(("a 'placed' event", "a 'paid' event"))
    with pytest.raises(InvalidRequest):
        schema.draft(value)
    assert store.run(log.streams()) == []
    assert store.run(log.last_seq("orders/1")) == 0


@pytest.mark.parametrize("meta", [[1], "by", 5, (), {1}])
def test_a_meta_that_is_no_dict_is_refused(store, meta):
    for refused in (
        lambda: schema.draft(Paid(1), meta=meta),
        lambda: store.run(schema.append("orders/1", Paid(1), meta=meta)),
        lambda: store.run(schema.append_expect("orders/1", 0, Paid(1), meta=meta)),
    ):
        with pytest.raises(InvalidRequest, match=f"event meta is {describe_type(meta)}: give a dict"):
            refused()
    assert store.run(log.streams()) == []


def test_a_schema_that_cannot_be_is_refused():
    with pytest.raises(InvalidRequest, match="Paid stands for the event types 'paid' and 'settled'"):
        Schema({"paid": Paid, "settled": Paid})
    with pytest.raises(InvalidRequest, match="there are upcasters for the event type 'sent', but no type"):
        Schema({"paid": Paid}, upcasters={"sent": [to_cents]})
    with pytest.raises(InvalidRequest, match="event type is empty"):
        Schema({"": Paid})


# Old shapes


@pytest.mark.parametrize(
    ("version", "data"),
    [
        (None, {"total": 12}),
        (1, {"total": 12}),
        (2, {"total_cents": 1200}),
        (3, {"total_cents": 1200, "currency": "EUR"}),
    ],
)
def test_an_event_of_each_version_is_lifted_to_the_present_shape(version, data):
    lifted = schema.lift(event("placed", data, version))
    assert lifted.data == Placed(1200, "EUR")
    assert (lifted.stream, lifted.seq, lifted.position) == ("orders/1", 3, 7)


def test_events_stored_by_each_older_schema_are_read_by_the_newest(store):
    class PlacedFirst(msgspec.Struct):
        total: int

    class PlacedSecond(msgspec.Struct):
        total_cents: int

    first = Schema({"placed": PlacedFirst})
    second = Schema({"placed": PlacedSecond}, upcasters={"placed": [to_cents]})
    store.run(log.append("a", "placed", {"total": 1}))
    store.run(first.append("a", PlacedFirst(2)))
    store.run(second.append("a", PlacedSecond(300)))
    store.run(schema.append("a", Placed(400, "EUR")))
    stored = store.run(log.read("a"))
    assert [schema.lift(one).data for one in stored] == [Placed(cents, "EUR") for cents in (100, 200, 300, 400)]
    assert [second.lift(one).data for one in stored[:3]] == [PlacedSecond(cents) for cents in (100, 200, 300)]
    with pytest.raises(SchemaMismatch, match="it has version 3, and this schema knows versions 1 to 2"):
        second.lift(stored[3])


def test_an_upcaster_may_make_defaults_of_what_is_missing():
    grown = Schema({"paid": Paid}, upcasters={"paid": [lambda old: {"cents": (old or {}).get("cents", 0)}]})
    assert grown.lift(event("paid", None)).data == Paid(0)
    assert grown.lift(event("paid", {})).data == Paid(0)


def test_an_event_whose_meta_is_another_writers_is_of_the_first_version():
    lifted = schema.lift(Event("orders/1", 3, "placed", 0, {"total": 12}, 7, {"by": "another"}))
    assert lifted.data == Placed(1200, "EUR")


# What does not fit


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (event("shipped", {}), "the schema has no such event type"),
        (event("placed", {}, 4), "it has version 4, and this schema knows versions 1 to 3"),
        (event("placed", {}, 0), "it has version 0, and this schema knows versions 1 to 3"),
        (event("placed", {}, -1), "it has version -1, and this schema knows versions 1 to 3"),
        (event("paid", {}, 2), "it has version 2, and this schema knows versions 1 to 1"),
        (event("placed", {}, "2"), "it has version '2', and this schema knows versions 1 to 3"),
        (event("placed", {}, 2.0), "it has version 2.0, and this schema knows versions 1 to 3"),
        (event("placed", {}, True), "it has version True, and this schema knows versions 1 to 3"),
        (event("placed", {}, [1]), "it has version [1], and this schema knows versions 1 to 3"),
        (without_version, "it has version None, and this schema knows versions 1 to 3"),
        (event("placed", {"total": "12"}, 3), "ValidationError: Object missing required field `total_cents`"),
        (event("placed", {"total_cents": "x", "currency": "EUR"}, 3), "Expected `int`, got `str` - at `$.total_cents`"),
        (event("placed", None, 3), "ValidationError: Expected `object`, got `null`"),
        (event("placed", {"sum": 12}, 1), "KeyError: 'total'"),
        (event("placed", None, 1), "TypeError: "),
        (event("placed", 7, 2), "TypeError: "),
    ],
)
def test_an_event_that_does_not_fit_is_refused_by_stream_sequence_type_and_reason(bad, reason):
    with pytest.raises(SchemaMismatch) as raised:
        schema.lift(bad)
    error = raised.value
    assert (error.stream, error.seq, error.event_type) == ("orders/1", 3, bad.type)
    assert reason in error.reason
    assert str(error) == (
        f"event 3 of stream 'orders/1', type {bad.type!r}, does not fit the schema: {error.reason}: "
        "give a new field a default, a changed one an upcaster, and a new event type a class"
    )


@pytest.mark.parametrize(
    ("upcaster", "reason"),
    [
        (lambda old: old.total, "AttributeError: 'dict' object has no attribute 'total'"),
        (lambda old: {"cents": 100 // old["none"]}, "ZeroDivisionError: "),
        (lambda old: {"cents": math.exp(old["much"])}, "OverflowError: "),
        (lambda old: {"cents": int(Decimal(old["word"]))}, "InvalidOperation: "),
        (lambda old: {"cents": int(old["word"])}, "ValueError: "),
        (lambda old: {"cents": [][old["none"]]}, "IndexError: "),
        (lambda old: {"cents": "five"}, "ValidationError: Expected `int`, got `str`"),
        (lambda old: None, "ValidationError: Expected `object`, got `null`"),
    ],
)
def test_an_upcaster_that_fails_names_the_event_that_it_failed_at(store, upcaster, reason):
    failing = Schema({"paid": Paid}, upcasters={"paid": [upcaster]})
    store.run(log.append_many("a", [Draft("paid", {"cents": 1}, meta={"schema_version": 2})]))
    store.run(log.append("a", "paid", {"none": 0, "much": 1e9, "word": "x"}))
    with pytest.raises(SchemaMismatch, match=f"event 2 of stream 'a', type 'paid', .*{reason}") as raised:
        store.run(projection.project("a", failing.typed(lambda cents, event: cents + event.data.cents), 0))
    assert (raised.value.stream, raised.value.seq, raised.value.event_type) == ("a", 2, "paid")
    assert type(raised.value.__cause__).__name__ == reason.partition(":")[0]


def test_an_event_that_does_not_fit_is_named_in_a_projection(store):
    store.run(schema.append("orders/1", Paid(5)))
    store.run(log.append("orders/1", "paid", {"cents": "six"}))
    with pytest.raises(SchemaMismatch, match="event 2 of stream 'orders/1', type 'paid'"):
        store.run(projection.project("orders/1", schema.typed(lambda cents, event: cents + event.data.cents), 0))


# Folds


def test_a_typed_step_folds_old_and_new_events_the_same_from_log_and_snapshot(store):
    def tell(told, event):
        return [*told, [event.seq, event.data.total_cents, event.data.currency]]

    step = schema.typed(tell)
    store.run(log.append("a", "placed", {"total": 1}))
    store.run(snapshot.checkpoint("told", "a", step, []))
    store.run(log.append_many("a", [Draft("placed", {"total_cents": 200}, meta={"schema_version": 2})]))
    store.run(schema.append("a", Placed(300, "USD")))
    whole = store.run(projection.project("a", step, []))
    assert whole == State([[1, 100, "EUR"], [2, 200, "EUR"], [3, 300, "USD"]], 3)
    assert store.run(snapshot.replay("told", "a", step, [])) == whole
    assert store.run(projection.project_all("", step, [])) == whole


@pytest.mark.parametrize("kind", [None, "Placed", 5, list[int]], ids=steady)
def test_a_type_that_is_no_class_is_refused(kind):
    with pytest.raises(InvalidRequest, match=r"the event type 'placed' has .* for its type: give a class"):
        Schema({"placed": kind})


def test_a_schema_whose_types_are_said_is_the_same(store):
    said = Schema[Placed | Paid]({"placed": Placed, "paid": Paid})
    assert store.run(said.append("s", Placed(7, "EUR"))).data == Placed(7, "EUR")
