"""What comes back of a value: typed answers of every type that msgspec reads are the same in a replay, or refused."""

import datetime as dt
import enum
import types
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steady import steady

from persist_effects import InvalidRequest, Request, all_of, kv, perform
from persist_effects.codec import from_plain, to_plain
from persist_effects.machine import run
from persist_effects.requests import Answered, KvPut
from persist_effects.sameness import EQUAL, EXACT, OTHER, SAME_CLOCK, sameness
from persist_effects.trace import Trace, record, replay

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = dt.timezone(dt.timedelta(hours=-5))
# The second of the hours that the clocks of Berlin show twice, and one that they pass over.
TWICE = dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)
NEVER = dt.datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN)


class Color(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    TEA = "tea"


class Text(str):
    __slots__ = ()


class Line(msgspec.Struct):
    sku: str
    at: Any = None


class LongLine(Line):
    count: int = 1


class Slot(msgspec.Struct, eq=False, frozen=True):
    at: dt.datetime
    share: float


class Span(NamedTuple):
    first: int
    last: str


@dataclass
class Seen:
    spans: tuple[Span, ...]


def request_for(kind: Any) -> type[Request[Any]]:
    """A class of requests whose answers are of this type."""
    options = {"frozen": True, "tag": "test/typed"}
    return types.new_class("Typed", (Request[kind],), options, lambda body: body.update(__module__=__name__))


def writing(request: Request[Any]):
    """A program whose later requests show all that there is to see of an answer."""
    answer = yield from perform(request)
    yield from kv.put("seen", f"{type(answer).__name__} {answer!r}")
    return answer


def recorded_and_replayed(kind: Any, answer: Any) -> Any:
    typed = request_for(kind)
    outcome, trace = record(writing(typed()), {typed: lambda request: answer, KvPut: lambda request: 1})
    assert isinstance(outcome, Answered)
    for again in (trace, Trace.decode(trace.encode(), [typed]), Trace.from_json_lines(trace.to_json_lines(), [typed])):
        assert sameness(outcome.value, replay(writing(typed()), again)) == EXACT
    return outcome.value


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (dt.datetime, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        (dt.datetime, dt.datetime(2024, 1, 1)),  # noqa: DTZ001 - without a zone it stays without one
        (dt.datetime, dt.datetime(2024, 1, 1, 12, tzinfo=NEW_YORK)),
        (list[dt.datetime], [dt.datetime(2024, 1, 1, tzinfo=NEW_YORK), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]),
        (dict[str, dt.datetime | None], {"a": None, "b": dt.datetime(2024, 1, 1, tzinfo=NEW_YORK)}),
        (Slot, Slot(dt.datetime(2024, 1, 1, tzinfo=NEW_YORK), float("nan"))),
        (dt.time, dt.time(1, 2, 3)),
        (dt.time, dt.time(1, 2, 3, tzinfo=NEW_YORK)),
        (dt.date, dt.date(2024, 2, 29)),
        (dt.timedelta, dt.timedelta(days=-1, microseconds=1)),
        (Decimal, Decimal("0.10")),
        (Decimal, Decimal("NaN")),
        (uuid.UUID, uuid.UUID(int=7)),
        (bytes, b"\xff"),
        (bytearray, bytearray(b"\xff")),
        (memoryview, memoryview(b"\xff")),
        (tuple[int, ...], (1, 2)),
        (set[str], {"a", "b"}),
        (frozenset[int], frozenset({1})),
        (Color, Color.RED),
        (Level, Level.LOW),
        (Word, Word.TEA),
        (dict[Color, int], {Color.RED: 1}),
        (dict[int, str], {1: "a"}),
        (dict[tuple[int, int], str], {(1, 2): "a"}),
        (Line, Line("tea", [1, None])),
        (Span, Span(1, "a")),
        (Seen, Seen((Span(1, "a"),))),
        (list[float], [float("nan"), float("-inf"), -0.0, 1.0]),
        (int | float, 1),
        (msgspec.msgpack.Ext, msgspec.msgpack.Ext(5, b"x")),
        (msgspec.Raw, msgspec.Raw(b"\x01")),
        (Sequence[int], [1]),
        (Mapping[str, int], {"b": 1, "a": 2}),
        (Any, {1: [True, 1, 1.0], (2, 3): None}),
    ],
    ids=steady,
)
def test_a_typed_answer_comes_back_the_same(kind, answer):
    typed = request_for(kind)
    outcome, trace = record(perform(typed()), {typed: lambda request: answer})
    assert isinstance(outcome, Answered)
    assert outcome.value is answer
    assert sameness(answer, replay(perform(typed()), Trace.decode(trace.encode()))) == EXACT


@pytest.mark.parametrize(
    ("kind", "answer", "back"),
    [
        (float, 1, "1.0"),
        (set[float], {1}, "{1.0}"),
        (int, True, "Expected `int`, got `bool`"),
        (int, Level.LOW, "1"),
        (str, Word.TEA, "'tea'"),
        (bytes, bytearray(b"x"), "b'x'"),
        (set[int], frozenset({1}), "{1}"),
        (list[int], (1,), "[1]"),
        (Sequence[int], (1,), "[1]"),
        (dict[str, int], OrderedDict(a=1), "{'a': 1}"),
        (dict[str, int], defaultdict(int, a=1), "{'a': 1}"),
        (Line, LongLine("tea"), "Line(sku='tea', at=None)"),
        (Any, Line("tea"), "{'sku': 'tea', 'at': None}"),
        (Any, dt.datetime(2024, 1, 1, tzinfo=NEW_YORK), "datetime.datetime(2024, 1, 1, 5, 0"),
        (Any, Decimal(1), "'1'"),
        (Line, Line("tea", Color.RED), "Line(sku='tea', at='r')"),
        (dt.time, dt.time(1, 2, tzinfo=BERLIN), "datetime.time(1, 2)"),
        (dt.datetime, dt.datetime(1850, 1, 1, tzinfo=BERLIN), "datetime.datetime(1849, 12, 31, 23, 6, 32"),
    ],
    ids=steady,
)
def test_a_typed_answer_that_would_come_back_changed_is_refused_when_it_is_recorded(kind, answer, back):
    typed = request_for(kind)
    with pytest.raises(InvalidRequest, match="would come back as") as found:
        record(perform(typed()), {typed: lambda request: answer})
    assert back in str(found.value)
    assert "answer with what its type says" in str(found.value)


@pytest.mark.parametrize("answer", [Text("tea"), 2**64, "\ud800", object(), {Text("tea"): 1}], ids=steady)
def test_an_answer_that_has_no_bytes_is_refused_when_it_is_recorded(answer):
    typed = request_for(Any)
    with pytest.raises(InvalidRequest, match="the answer to Typed"):
        record(perform(typed()), {typed: lambda request: answer})


@pytest.mark.parametrize(
    "when", [dt.datetime(2024, 7, 1, tzinfo=BERLIN), TWICE, TWICE.replace(fold=0), NEVER], ids=steady
)
def test_a_time_in_a_named_zone_keeps_clock_offset_and_instant_and_the_recorded_program_sees_no_more_of_it(when):
    for kind, answer in ((dt.datetime, when), (list[dt.datetime], [when]), (dict[str, dt.datetime], {"at": when})):
        seen = recorded_and_replayed(kind, answer)
        assert sameness(answer, seen) == SAME_CLOCK
    seen = recorded_and_replayed(dt.datetime, when)
    assert seen.isoformat() == when.isoformat()
    assert seen.astimezone(dt.UTC) == when.astimezone(dt.UTC)
    typed = request_for(dt.datetime)
    rows = {typed: lambda request: when, KvPut: lambda request: 1}
    assert run(writing(typed()), rows) is when


def test_times_in_a_named_zone_are_the_same_among_what_is_asked_at_once():
    typed = request_for(dt.datetime)

    def both():
        seen = yield from all_of(perform(typed()), kv.put("a", 1))
        yield from kv.put("seen", repr(seen))
        return seen

    outcome, trace = record(both, {typed: lambda request: TWICE, KvPut: lambda request: 1})
    assert isinstance(outcome, Answered)
    assert sameness(outcome.value, replay(both, Trace.decode(trace.encode()))) == EXACT


@pytest.mark.parametrize("when", [TWICE, TWICE.replace(fold=0), NEVER], ids=steady)
@pytest.mark.parametrize("share", [1, 1.0])
def test_a_state_with_a_time_in_a_named_zone_is_kept_whatever_the_hour(when, share):
    plain = to_plain([Slot(when, share)], list[Slot], "state")
    (back,) = from_plain(plain, list[Slot])
    assert back.at.astimezone(dt.UTC) == when.astimezone(dt.UTC)
    assert to_plain({when}, set[dt.datetime], "state") == [when.isoformat()]


def test_how_much_is_the_same_is_what_is_the_same_of_the_least_part():
    fixed = dt.datetime.fromisoformat(TWICE.isoformat())
    assert sameness([1, TWICE], [1, fixed]) == SAME_CLOCK
    assert sameness([1, TWICE], [1.0, fixed]) == EQUAL
    assert sameness([1, TWICE], [2, fixed]) == OTHER
    assert sameness({"a": 1, "b": 2}, {"b": 2, "a": 1}) == EQUAL
    assert sameness({1, 2}, {1}) == OTHER
    assert sameness(TWICE, TWICE.replace(fold=0)) == OTHER


scalars: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(),
    str: st.text(max_size=5),
    bytes: st.binary(max_size=5),
    bool: st.booleans(),
    dt.datetime: st.datetimes(
        min_value=dt.datetime(1970, 1, 1),  # noqa: DTZ001 - the zones are drawn beside it
        timezones=st.none() | st.just(dt.UTC) | st.timezones() | st.just(NEW_YORK),
    ),
    dt.time: st.times(timezones=st.none() | st.just(NEW_YORK)),
    dt.date: st.dates(),
    dt.timedelta: st.timedeltas(),
    Decimal: st.decimals(),
    uuid.UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Word: st.sampled_from(Word),
}


def typed_values() -> st.SearchStrategy[tuple[Any, Any]]:
    """A type and a value, now and then one that is of another type than it is said to be."""
    single = st.sampled_from(list(scalars)).flatmap(lambda kind: st.tuples(st.just(kind), scalars[kind]))
    mixed = st.sampled_from(list(scalars)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.one_of(list(scalars.values())))
    )
    of_any = st.one_of(list(scalars.values())).map(lambda value: (Any, value))

    def wrapped(inner: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
        return st.one_of(
            inner.map(lambda pair: (list[pair[0]], [pair[1]])),
            inner.map(lambda pair: (tuple[pair[0], ...], (pair[1], pair[1]))),
            inner.map(lambda pair: (dict[str, pair[0]], {"k": pair[1]})),
            inner.map(lambda pair: (pair[0] | None, pair[1])),
            inner.map(lambda pair: (Line, Line("tea", pair[1]))),
        )

    return st.recursive(single | mixed | of_any, wrapped, max_leaves=4)


@given(typed_values())
def test_any_answer_of_any_type_is_replayed_the_same_or_refused(pair):
    kind, answer = pair
    try:
        recorded_and_replayed(kind, answer)
    except InvalidRequest as error:
        assert "the answer to Typed" in str(error)  # noqa: PT017 - either is right
