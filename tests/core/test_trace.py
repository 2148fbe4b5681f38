"""Traces: programs are recorded, and are the same programs again without a store."""

import math
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from places import ROOT
from steady import steady

from interpreters import open_store
from interpreters.conformance.strategies import AWKWARD_VALUES, same_value, values
from persist_effects import (
    AlreadyUsed,
    Conflict,
    CorruptStore,
    Diverged,
    Done,
    Draft,
    InvalidRequest,
    NotAProgram,
    NotARequest,
    RecordedError,
    Request,
    TooLarge,
    Truncated,
    UncertainOutcome,
    UnhandledEffect,
    all_of,
    errors,
    kv,
    log,
    machine,
    perform,
    transact,
)
from persist_effects.requests import (
    AllOf,
    Answered,
    Append,
    Entry,
    Failed,
    KvDelete,
    KvGet,
    KvHas,
    KvPut,
    LastSeq,
    Read,
)
from persist_effects.source import source_of
from persist_effects.trace import Continuation, Trace, as_text, compare, diff, record, replay, resume_at
from persist_effects.trace.format import VERSION
from persist_effects.trace.values import UnknownRequest, answer_type
from persist_effects.version import __version__

A = TypeVar("A")


class Price(msgspec.Struct, frozen=True):
    cents: int
    tags: tuple[str, ...] = ()


class Basket(msgspec.Struct):
    items: list[str]


class FetchPrice(Request[Price], frozen=True, tag="shop/fetch-price"):
    sku: str


class FetchBasket(Request[Basket | None], frozen=True, tag="shop/fetch-basket"):
    customer: str


class Now(Request[datetime], frozen=True, tag="shop/now"):
    pass


class Ask(Request[Any], frozen=True, tag="shop/ask"):
    question: Any = None


class SoldOut(Exception):
    pass


def store(**options: Any) -> Any:
    return open_store("memory:", clock=lambda: 1_700_000_000_000_000, **options)


def shop() -> Iterator[Any]:
    yield from kv.put("visits", {"count": [1]})
    seq = yield from log.last_seq("orders")
    placed = yield from log.append_expect("orders", seq, "placed", {"sku": "tea"})
    lost = yield from log.append_expect("orders", seq, "placed", {"sku": "mug"})
    both = yield from all_of(kv.get("visits"), log.read("orders"))
    answers = yield from transact(KvPut("a", 1), KvDelete("b"))
    return [placed, lost, both, answers]


# Recording


def test_a_recorded_program_ends_as_it_does_when_it_is_run():
    expected = store().run(shop())
    outcome, trace = record(shop, store().handlers)
    assert outcome == Answered(expected)
    assert isinstance(expected[1], Conflict)
    assert [type(one.request) for one in trace] == [KvPut, LastSeq, Append, Append, AllOf, type(trace[5].request)]
    assert replay(shop, trace) == expected


def test_what_a_program_raises_is_an_outcome_and_is_raised_by_the_replay():
    def refused() -> Iterator[Any]:
        yield from kv.put("key", "x" * 100)

    outcome, trace = record(refused, store(payload_limit_bytes=10).handlers)
    assert isinstance(outcome, Failed)
    assert type(outcome.error) is TooLarge
    with pytest.raises(TooLarge) as found:
        replay(refused, trace)
    assert str(found.value) == str(outcome.error)


def test_what_happens_to_data_after_it_was_handed_over_changes_no_trace():
    value: dict[str, Any] = {"items": ["tea"]}
    stored = ["old"]

    def put(request: KvPut) -> int:
        request.value["items"].append("by the handler")
        return 1

    def program() -> Iterator[Any]:
        yield from kv.put("basket", value)
        value["items"].append("by the program")
        found = yield from kv.get("stored")
        found.append("by the program")
        return len(found)

    _, trace = record(program, {KvPut: put, KvGet: lambda request: Entry(stored, 1)})
    stored.append("by its owner")
    assert trace[0].request == KvPut("basket", {"items": ["tea"]})
    assert trace[1].outcome == Answered(Entry(["old"], 1))
    value["items"][:] = ["tea"]
    assert replay(program, trace) == 2


def test_a_replay_gives_fresh_answers_where_they_can_be_changed_and_the_same_ones_elsewhere():
    seen: list[Any] = []

    def program() -> Iterator[Any]:
        for request in (KvGet("a"), FetchBasket("Ada"), FetchPrice("tea")):
            answer = yield from perform(request)
            seen.append(answer)
            if isinstance(answer, Entry):
                answer.value.append("changed")
            elif isinstance(answer, Basket):
                answer.items.append("changed")

    rows = {
        KvGet: lambda request: Entry(["kept"], 1),
        FetchBasket: lambda request: Basket(["kept"]),
        FetchPrice: lambda request: Price(4, ("hot",)),
    }
    _, trace = record(program, rows)
    seen.clear()
    replay(program, trace)
    replay(program, trace)
    entry, basket, price, entry_again, basket_again, price_again = seen
    assert entry == entry_again == Entry(["kept", "changed"], 1)
    assert basket == basket_again == Basket(["kept", "changed"])
    assert price is price_again
    assert price == Price(4, ("hot",))


def test_an_error_of_a_handler_is_thrown_in_again_at_the_same_place():
    def program() -> Iterator[Any]:
        try:
            yield from kv.get("a")
        except CorruptStore as error:
            return f"caught {error}"

    def broken(request: KvGet) -> None:
        raise CorruptStore("segment 3 at offset 7")

    outcome, trace = record(program, {KvGet: broken})
    assert outcome == Answered("caught segment 3 at offset 7")
    assert replay(program, trace) == "caught segment 3 at offset 7"


OWN_ERRORS = [
    InvalidRequest("x"),
    TooLarge("value", 9, 8),
    UnhandledEffect("shop/ask", "Ask"),
    NotARequest("an int, 7"),
    AlreadyUsed("twice"),
    Truncated("orders", 4),
    errors.BlobNotFound("bafy"),
    errors.SchemaMismatch("s", 1, "placed", "no total"),
    errors.StoreUnavailable("gone"),
    errors.StoreClosed("closed"),
    errors.StoreLocked("process 7"),
    errors.NewerFormat("MANIFEST-00000007", 2, 1),
    errors.SubjectForgotten("customers/1", 7),
    errors.UnknownSubject("customers/1"),
    errors.KeyLost("event 1 of stream 'orders'", "00ff", "the key store has no such key"),
    UncertainOutcome("lost"),
    CorruptStore("at 7"),
    errors.InternalError("a bug"),
    Diverged(1, "a", "b", "c", "d"),
    RecordedError("shop.SoldOut", "no tea"),
    InvalidRequest(object()),
    InvalidRequest("two", ["arguments"]),
    InvalidRequest(),
]


@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_errors_of_this_package_come_back_as_they_were(error):
    def failing(request: Any) -> None:
        raise error

    _, trace = record(perform(Ask()), {Ask: failing})
    for again in (trace, Trace.decode(trace.encode()), Trace.from_json_lines(trace.to_json_lines())):
        with pytest.raises(type(error)) as found:
            replay(perform(Ask()), again)
        assert type(found.value) is type(error)
        assert str(found.value) == str(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SoldOut("no tea"), f"{__name__}.SoldOut: no tea"),
        (SoldOut("lone \ud800"), f"{__name__}.SoldOut: lone \\ud800"),
        (SoldOut(), f"{__name__}.SoldOut"),
    ],
)
def test_errors_of_classes_that_are_not_registered_come_back_by_their_names_and_texts(error, text):
    def failing(request: Any) -> None:
        raise error

    outcome, trace = record(perform(Ask()), {Ask: failing})
    assert outcome == Failed(error)
    for again in traces_through_both(trace):
        with pytest.raises(RecordedError) as found:
            replay(perform(Ask()), again)
        assert str(found.value) == text
        assert not isinstance(found.value, errors.PersistError)
        assert found.value.__notes__ == [
            f"{__name__}.SoldOut is not registered: give its class to what reads the trace, errors=[...]"
        ]


def test_a_request_that_nobody_answers_is_recorded_with_its_error():
    def program() -> Iterator[Any]:
        try:
            yield from perform(Ask(1))
        except UnhandledEffect as error:
            return str(error)

    expected = machine.run(program(), {})
    outcome, trace = record(program, {})
    assert outcome == Answered(expected)
    assert len(trace) == 1
    assert replay(program, trace) == expected


def test_what_is_no_request_is_refused_in_a_replay_too_and_is_in_no_trace():
    def program() -> Iterator[Any]:
        try:
            yield 7
        except NotARequest as error:
            refused = str(error)
        answer = yield from kv.has("a")
        try:
            yield object()
        except NotARequest:
            return refused, answer

    outcome, trace = record(program, {KvHas: lambda request: True})
    assert isinstance(outcome, Answered)
    assert len(trace) == 1
    assert replay(program, trace) == outcome.value


def test_requests_at_once_are_one_request_in_the_trace_with_or_without_a_row_for_them():
    def program() -> Iterator[Any]:
        try:
            return (yield from all_of(FetchPrice("tea"), KvGet("a"), Ask("fails")))
        except RecordedError as error:
            return error.text
        except SoldOut as error:
            return str(error)

    def failing(request: Any) -> None:
        raise SoldOut("no tea")

    effects = {FetchPrice: lambda request: Price(4), Ask: failing}
    for handlers in (store(effects=effects).handlers, {**effects, KvGet: lambda request: None}):
        outcome, trace = record(program, handlers)
        assert outcome == Answered("no tea")
        assert len(trace) == 1
        for again in (trace, Trace.decode(trace.encode()), Trace.from_json_lines(trace.to_json_lines())):
            assert replay(program, again) == "no tea"
        assert '"answer":[{"answer":{"cents":4,"tags":[]}},{"answer":null},{"error":' in trace.to_json_lines()


def test_the_parts_of_what_is_asked_at_once_are_typed_by_their_requests():
    def program() -> Iterator[Any]:
        outcomes = yield from perform(AllOf((FetchPrice("tea"), AllOf((Now(), KvGet("a"))))))
        return outcomes

    when = datetime(2026, 1, 2, tzinfo=UTC)
    rows = {FetchPrice: lambda request: Price(4), Now: lambda request: when, KvGet: lambda request: Entry([1], 2)}
    outcome, trace = record(program, rows)
    assert outcome == Answered([Answered(Price(4)), Answered([Answered(when), Answered(Entry([1], 2))])])
    for again in (trace, Trace.decode(trace.encode()), Trace.from_json_lines(trace.to_json_lines())):
        assert Answered(replay(program, again)) == outcome


# The user's own requests


class Shop(Request[list[A]], Generic[A], frozen=True):
    pass


class Prices(Shop[Price], frozen=True, tag="shop/prices"):
    pass


class MorePrices(Prices, frozen=True, tag="shop/more-prices"):
    pass


class Bare(Request, frozen=True, tag="shop/bare"):  # type: ignore[type-arg]
    pass


class Row(Request[tuple[int, str]], frozen=True, tag="shop/row", array_like=True):
    number: int


@pytest.mark.parametrize(
    ("kind", "answer"),
    [(FetchPrice, Price), (Prices, list[Price]), (MorePrices, list[Price]), (Bare, Any), (Shop, list[Any])],
)
def test_the_type_of_an_answer_is_that_of_the_request(kind, answer):
    assert answer_type(kind) == answer


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (FetchPrice("tea"), Price(4, ("hot", "green"))),
        (FetchBasket("Ada"), Basket(["tea"])),
        (FetchBasket("Ada"), None),
        (Now(), datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
        (Prices(), [Price(1), Price(2)]),
        (MorePrices(), []),
        (Row(7), (7, "seven")),
        (Ask({"b": [1, 2.0, b"x"]}), {"a": [None, True]}),
        (Ask(), {1: "one", None: 2.5}),
        (Ask(), float("nan")),
    ],
    ids=steady,
)
def test_answers_to_own_requests_come_back_typed(request_, answer):
    outcome, trace = record(perform(request_), {type(request_): lambda request: answer})
    assert isinstance(outcome, Answered)
    for again in (trace, Trace.decode(trace.encode()), Trace.from_json_lines(trace.to_json_lines())):
        assert repr(replay(perform(request_), again)) == repr(answer)
    known = Trace.decode(trace.encode(), kinds=[type(request_)])
    assert known[0].request == trace[0].request == request_
    assert isinstance(Trace.decode(trace.encode())[0].request, UnknownRequest)


class Strange(Request[object], frozen=True, tag="shop/strange"):
    pass


class TwoShapes(Request[Price | Basket], frozen=True, tag="shop/two-shapes"):
    pass


@pytest.mark.parametrize(
    ("request_", "answer", "text"),
    [
        (Ask(object()), 1, "the request Ask"),
        (Ask(2**64), 1, "the request Ask"),
        (Ask("\ud800"), 1, "the request Ask"),
        (Ask(), object(), "the answer to Ask"),
        (Ask(), (1, 2), "would come back as"),
        (FetchPrice("tea"), 4, "the answer to FetchPrice"),
        (FetchPrice("tea"), Basket([]), "the answer to FetchPrice"),
        (TwoShapes(), Price(1), "shop/two-shapes"),
        (AllOf((Ask(),)), [Answered(object())], "the answer to Ask"),
        (AllOf((Ask(),)), [], "cannot be recorded"),
        (KvGet("a"), Entry(object(), 1), "the answer to KvGet"),
        (KvPut("a", object()), 1, "the request KvPut"),
    ],
    ids=steady,
)
def test_what_cannot_be_recorded_is_refused_and_the_program_is_given_up(request_, answer, text):
    given_up: list[type[BaseException]] = []

    def program() -> Iterator[Any]:
        try:
            yield from perform(request_)
        except BaseException as error:
            given_up.append(type(error))
            raise

    with pytest.raises(InvalidRequest, match=text):
        record(program, {type(request_): lambda request: answer})
    assert given_up == [errors.Abandoned]


def test_a_program_that_does_not_let_itself_be_given_up_is_refused_all_the_same():
    def stubborn() -> Iterator[Any]:
        try:
            yield from perform(Ask(object()))
        except BaseException:
            return (yield from kv.has("a"))

    with pytest.raises(InvalidRequest, match="the request Ask"):
        record(stubborn, {Ask: lambda request: 1, KvHas: lambda request: True})


def test_a_program_that_gives_itself_up_does_so_here_too():
    def program() -> Iterator[Any]:
        yield from kv.has("a")
        raise errors.Abandoned

    with pytest.raises(errors.Abandoned):
        record(program, {KvHas: lambda request: True})


def test_an_interrupt_is_raised_in_the_program_and_then_here_even_if_it_is_swallowed():
    cleaned: list[str] = []

    def interrupted(request: Any) -> None:
        raise KeyboardInterrupt

    def program() -> Iterator[Any]:
        try:
            yield from perform(Ask())
        except KeyboardInterrupt:
            cleaned.append("up")

    with pytest.raises(KeyboardInterrupt):
        record(program, {Ask: interrupted})
    assert cleaned == ["up"]


@pytest.mark.parametrize(
    "run", [lambda program: record(program, {}), lambda program: replay(program, record(shop, store().handlers)[1])]
)
def test_what_is_no_fresh_program_is_refused(run):
    used = shop()
    next(used)
    with pytest.raises(AlreadyUsed):
        run(used)
    with pytest.raises(NotAProgram):
        run(7)
    with pytest.raises(NotAProgram):
        run(lambda: 7)


# Bytes and lines


def traces_through_both(trace: Trace) -> list[Trace]:
    return [Trace.decode(trace.encode()), Trace.from_json_lines(trace.to_json_lines())]


@example(struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0])
@given(values())
def test_every_value_comes_back_the_same_from_bytes_and_from_lines(value):
    def program() -> Iterator[Any]:
        yield from kv.put("key", value)
        return (yield from kv.get("key"))

    _, trace = record(program, store().handlers)
    for again in traces_through_both(trace):
        assert again == trace
        assert same_value(replay(program, again), value)


@pytest.mark.parametrize("value", AWKWARD_VALUES, ids=steady)
def test_awkward_values_come_back_the_same(value):
    _, trace = record(kv.get("key"), {KvGet: lambda request: Entry(value, 1)})
    for again in (trace, *traces_through_both(trace)):
        assert again == trace
        assert same_value(replay(kv.get("key"), again), value)


def test_a_trace_tells_the_versions_of_its_format_and_of_the_package():
    _, trace = record(kv.has("a"), {KvHas: lambda request: True})
    header = msgspec.json.decode(trace.to_json_lines().splitlines()[0])
    assert header == {"format": "persist-effects-trace", "version": VERSION, "package": __version__, "requests": 1}
    older = Trace(trace.requests, trace.outcomes, trace.failed, package_version="0.0.9")
    assert [again.package_version for again in traces_through_both(older)] == ["0.0.9", "0.0.9"]


def test_a_trace_that_was_cut_or_changed_anywhere_is_refused():
    _, trace = record(shop, store().handlers)
    data = trace.encode()
    for end in range(len(data)):
        with pytest.raises(InvalidRequest):
            Trace.decode(data[:end])
    for at in range(0, len(data), 7):
        with pytest.raises(InvalidRequest):
            Trace.decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@given(st.binary(max_size=60))
def test_garbage_is_no_trace(data):
    for found in (data, b"persist-effects trace 1\n" + data, b"persist-effects trace " + b"9" * 5_000 + data):
        with pytest.raises(InvalidRequest):
            Trace.decode(found)
    with pytest.raises(InvalidRequest):
        Trace.from_json_lines(data.decode("latin-1"))


def test_what_has_a_good_digest_and_is_no_trace_all_the_same_is_refused():
    body = msgspec.msgpack.encode(["0.1.0", []])
    with pytest.raises(InvalidRequest, match="does not decode"):
        Trace.decode(b"persist-effects trace 1\n" + blake2b(body, digest_size=8).digest() + body)
    with pytest.raises(InvalidRequest, match="line 1: this is not a trace"):
        Trace.from_json_lines('{"format":"persist-effects","version":1}\n')


def test_a_request_whose_type_has_other_fields_now_is_shown_with_those_it_had():
    _, trace = record(perform(FetchPrice("tea")), {FetchPrice: lambda request: Price(4)})

    class Renamed(Request[Price], frozen=True, tag="shop/fetch-price"):
        name: str

    again = Trace.decode(trace.encode(), kinds=[Renamed])
    assert str(again[0]) == "shop/fetch-price(sku='tea') → {'cents': 4, 'tags': []}"
    with pytest.raises(Diverged, match=r"expected:   shop/fetch-price\(sku='tea'\)"):
        replay(perform(Renamed("tea")), again)
    _, row = record(perform(Row(7)), {Row: lambda request: (7, "seven")})
    assert str(Trace.decode(row.encode())[0]) == "shop/row(0=7) → [7, 'seven']"


def test_a_trace_of_a_newer_version_is_refused_by_its_version():
    _, trace = record(shop, store().handlers)
    with pytest.raises(InvalidRequest, match=r"version 3, and this package reads up to 2"):
        Trace.decode(trace.encode().replace(b"trace 2\n", b"trace 3\n", 1))
    with pytest.raises(InvalidRequest, match=r"version 3, and this package reads up to 2"):
        Trace.from_json_lines(trace.to_json_lines().replace('"version":2', '"version":3', 1))


OLD_LINES = """\
{"format":"persist-effects-trace","version":1,"package":"0.1.0","requests":6}
{"request":{"op":"persist/append","stream":"s","events":[{"type":"made","data":1,"at":null,"meta":null}],"expected":9},"answer":{"type":"Conflict","stream_or_key":"s","expected":9,"actual":2}}
{"request":{"op":"persist/kv-put","key":"k","value":1,"expected":3},"answer":{"type":"Conflict","stream_or_key":"k","expected":3,"actual":0}}
{"request":{"op":"persist/kv-delete","key":"k","expected":3},"answer":{"type":"Conflict","stream_or_key":"k","expected":3,"actual":0}}
{"request":{"op":"persist/transact","writes":[{"op":"persist/append","stream":"s","events":[{"type":"made","data":1,"at":null,"meta":null}],"expected":null},{"op":"persist/kv-put","key":"s","value":1,"expected":4}],"checks":[{"op":"expect-seq","stream":"s","expected":2}]},"answer":{"type":"Conflict","stream_or_key":"s","expected":4,"actual":0}}
{"request":{"op":"persist/transact","writes":[{"op":"persist/kv-put","key":"x","value":1,"expected":null}],"checks":[{"op":"expect-revision","key":"k","expected":7}]},"answer":{"type":"Conflict","stream_or_key":"k","expected":7,"actual":0}}
{"request":{"op":"persist/all-of","requests":[{"op":"persist/append","stream":"s","events":[{"type":"made","data":1,"at":null,"meta":null}],"expected":0},{"op":"persist/kv-get","key":"k"}]},"answer":[{"answer":{"type":"Conflict","stream_or_key":"s","expected":0,"actual":2}},{"answer":null}]}
"""


def test_a_conflict_in_a_trace_of_version_1_says_what_it_is_about():
    trace = Trace.from_json_lines(OLD_LINES)
    outcomes = [recorded.outcome.value for recorded in trace]
    assert outcomes[:5] == [
        Conflict("stream", "s", 9, 2),
        Conflict("key", "k", 3, 0),
        Conflict("key", "k", 3, 0),
        Conflict("key", "s", 4, 0, write=1),
        Conflict("key", "k", 7, 0, write=None),
    ]
    assert outcomes[5] == [Answered(Conflict("stream", "s", 0, 2)), Answered(None)]
    assert Trace.decode(trace.encode().replace(b"trace 2\n", b"trace 1\n", 1)) == trace


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "line 2"),
        ("[]", "line 2: expected a JSON object"),
        ('{"request":{"op":"persist/kv-has","key":"a"}}', "line 2: expected"),
        ('{"request":{"op":"persist/kv-has","key":7},"answer":true}', "line 2"),
        ('{"request":{"key":"a"},"answer":true}', "line 2"),
        ('{"request":7,"answer":true}', "line 2"),
        ('{"request":{"op":"persist/kv-has","key":"a"},"answer":' + "[" * 5_000 + "]" * 5_000 + "}", "line 2"),
        ('{"request":{"op":"persist/kv-has","key":"a"},"answer":{"$bytes":"!"}}', r"line 2: \$bytes"),
        ('{"request":{"op":"persist/kv-has","key":"a"},"error":7}', "line 2"),
        ('{"request":{"op":"persist/kv-has","key":"a"},"error":["TooLarge"]}', "line 2"),
    ],
)
def test_a_line_that_is_wrong_is_refused_by_its_number(line, text):
    header = '{"format":"persist-effects-trace","version":1,"package":"0.1.0","requests":1}'
    with pytest.raises(InvalidRequest, match=text):
        Trace.from_json_lines(f"{header}\n{line}\n")


def test_lines_that_are_missing_are_missed():
    _, trace = record(shop, store().handlers)
    lines = trace.to_json_lines().splitlines(keepends=True)
    for kept in range(len(lines)):
        with pytest.raises(InvalidRequest):
            Trace.from_json_lines("".join(lines[:kept]))


def test_a_trace_whose_answers_are_of_another_type_is_refused_where_it_is_read():
    header = '{"format":"persist-effects-trace","version":1,"package":"0.1.0","requests":1}'
    line = '{"request":{"op":"persist/kv-has","key":"a"},"answer":"yes"}'
    trace = Trace.from_json_lines(f"{header}\n{line}\n")
    program = kv.has("a")
    with pytest.raises(InvalidRequest, match="recorded answer to KvHas"):
        replay(program, trace)
    assert program.gi_frame is None  # type: ignore[attr-defined]


def test_traces_are_equal_by_what_is_in_them_and_pickle():
    traces = [record(shop, store().handlers)[1] for _ in range(2)]
    assert traces[0] == traces[1] != traces[0].first(2)
    assert len({*traces, pickle.loads(pickle.dumps(traces[0]))}) == 1
    assert repr(traces[0].first(2)) == "<Trace of 2 requests>"
    assert traces[0] != "a trace"
    assert traces[0][-1].request == traces[0][5].request


# Diverging


def counting(key: str, times: int = 2) -> Iterator[Any]:
    for _ in range(times):
        yield from kv.put(key, 1)
    return times


def recorded(program: Any) -> Trace:
    return record(program, store().handlers)[1]


def test_the_first_request_that_differs_is_told_with_its_place_and_the_last_match():
    def another() -> Iterator[Any]:
        yield from kv.put("a", 1)
        yield from counting("b", 1)

    with pytest.raises(Diverged) as found:
        replay(another, recorded(lambda: counting("a")))
    error = found.value
    assert error.index == 1
    assert error.expected == "KvPut(key='a', value=1, expected=None)"
    assert error.actual == "KvPut(key='b', value=1, expected=None)"
    assert error.last_match == "request 0, KvPut(key='a', value=1, expected=None) → 1"
    line = counting.__code__.co_firstlineno + 2
    assert error.source.startswith(f"test_trace.py:{line} in counting > persist_effects/kv.py:")
    for part in ("request 1", error.expected, error.actual, error.source, error.last_match):
        assert part in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("program", "actual", "index"),
    [
        (lambda: counting("a", 0), "the program ended, and returned 0", 0),
        (lambda: counting("a", 1), "the program ended, and returned 1", 1),
        (lambda: counting("a", 3), "KvPut(key='a', value=1, expected=None)", 2),
        (lambda: raising(1), "the program raised ZeroDivisionError", 1),
        (lambda: raising(0), "the program raised ZeroDivisionError", 0),
        (lambda: yielding_nothing(), "the program ended, and returned None", 0),
        (lambda: perform(Ask(object())), "Ask(question=<object", 0),
    ],
)
def test_a_program_that_ends_too_early_or_asks_for_more_diverges(program, actual, index):
    with pytest.raises(Diverged) as found:
        replay(program, recorded(lambda: counting("a")))
    assert found.value.index == index
    assert found.value.actual.startswith(actual)


def first_a_then_b() -> Iterator[Any]:
    yield from counting("a", 1)
    yield from counting("b", 1)


def raising(after: int) -> Iterator[Any]:
    yield from counting("a", after)
    raise ZeroDivisionError


def yielding_nothing() -> Iterator[Any]:
    try:
        yield None
    except NotARequest:
        return


def test_a_program_that_fails_at_what_is_no_request_diverges():
    def bad() -> Iterator[Any]:
        yield None

    with pytest.raises(Diverged, match="the program raised NotARequest") as found:
        replay(bad, recorded(lambda: counting("a", 1)))
    assert isinstance(found.value.__cause__, NotARequest)


@pytest.mark.parametrize(
    ("value", "other", "is_same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (1, True, False),
        (1, 1.0, False),
        (0.0, -0.0, False),
        (math.nan, math.nan, True),
        ([1], [1, 2], False),
        ("1", b"1", False),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"c": 2, "b": 1}]}, True),
        ({"a": {}}, {"a": []}, False),
    ],
)
def test_requests_are_compared_with_the_types_of_their_values(value, other, is_same):
    trace = recorded(lambda: kv.put("key", value))
    if is_same:
        assert replay(kv.put("key", other), trace) == 1
    else:
        with pytest.raises(Diverged):
            replay(kv.put("key", other), trace)


@pytest.mark.parametrize(("key", "is_same"), [(1, True), (True, False), ("1", False)])
def test_keys_that_are_no_str_are_compared_too(key, is_same):
    _, trace = record(perform(Ask({1: "one", None: 2})), {Ask: lambda request: {2: 3, "b": 4}})
    if is_same:
        assert replay(perform(Ask({None: 2, key: "one"})), trace) == {2: 3, "b": 4}
        assert compare(trace, {Ask: lambda request: {"b": 4, 2: 3}}) == []
    else:
        with pytest.raises(Diverged):
            replay(perform(Ask({None: 2, key: "one"})), trace)


def test_a_program_that_diverged_is_given_up_and_its_cleaning_up_reaches_no_store():
    done: list[str] = []

    def cleaning() -> Iterator[Any]:
        try:
            yield from kv.put("b", 1)
        finally:
            try:
                yield from kv.delete("lock")
            except UnhandledEffect:
                done.append("refused")

    with pytest.raises(Diverged):
        replay(cleaning, recorded(lambda: counting("a")))
    assert done == ["refused"]


def test_the_line_of_a_program_that_was_not_started_or_has_ended_is_none():
    program = counting("a", 0)
    assert list(program) == []
    assert source_of(program) == "none"
    assert source_of(7) == "none"


def test_own_requests_are_shown_in_the_same_words_whether_or_not_their_types_are_known():
    _, trace = record(perform(FetchPrice("tea")), {FetchPrice: lambda request: Price(4)})
    with pytest.raises(Diverged) as found:
        replay(perform(FetchPrice("mug")), Trace.decode(trace.encode()))
    assert (found.value.expected, found.value.actual) == ("FetchPrice(sku='tea')", "FetchPrice(sku='mug')")
    with pytest.raises(Diverged) as found:
        replay(kv.get("a"), Trace.decode(trace.encode()))
    assert found.value.expected == "shop/fetch-price(sku='tea')"


# Time travel


def test_a_program_can_be_resumed_at_each_of_its_requests_and_ends_the_same():
    outcome, trace = record(shop, store().handlers)
    for k in range(len(trace)):
        step: Any = resume_at(shop, trace, k)
        for one in list(trace)[k:]:
            assert step.request == one.request
            assert isinstance(one.outcome, Answered)
            step = step.resume(one.outcome.value)
        assert isinstance(step, Done)
        assert Answered(step.value) == outcome


@pytest.mark.parametrize("k", [-1, 2, True, "0"])
def test_a_request_that_the_trace_has_not_is_refused(k):
    with pytest.raises(InvalidRequest, match="requests 0 to 1"):
        resume_at(lambda: counting("a"), recorded(lambda: counting("a")), k)


@pytest.mark.parametrize(
    "program",
    [lambda: counting("b"), lambda: counting("a", 1), lambda: counting("a", 0), lambda: first_a_then_b()],
)
def test_another_program_cannot_be_resumed(program):
    with pytest.raises(Diverged):
        resume_at(program, recorded(lambda: counting("a")), 1)


def guarded() -> Iterator[Any]:
    try:
        found = yield from kv.get("color")
        return [found, (yield from kv.has("size"))]
    except UncertainOutcome:
        return "in doubt"


def test_a_continuation_goes_on_any_number_of_times():
    _, trace = record(guarded, store().handlers)
    continuation: Continuation[Any] = Continuation(guarded, trace, 0)
    for color in ("red", "blue"):
        step: Any = continuation.resume(Entry(color, 1))
        assert step.request == KvHas("size")
        assert step.resume(True).value == [color, True]
    for _ in range(2):
        thrown = continuation.throw(UncertainOutcome("lost"))
        assert isinstance(thrown, Done)
        assert thrown.value == "in doubt"


def test_a_continuation_needs_a_function():
    _, trace = record(guarded, store().handlers)
    with pytest.raises(InvalidRequest, match="needs a function"):
        Continuation(guarded(), trace, 0)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="not a continuation"):
        Continuation.decode(guarded, b"garbage")


def test_a_continuation_goes_on_in_another_process(tmp_path, monkeypatch):
    (tmp_path / "shop_module.py").write_text(
        "from persist_effects import kv\n"
        "def shop():\n"
        "    count = yield from kv.update('visits', lambda visits: visits + 1, 0)\n"
        "    return [count, (yield from kv.get('color'))]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import shop_module  # type: ignore[import-not-found]

    _, trace = record(shop_module.shop, store().handlers)
    (tmp_path / "continuation").write_bytes(pickle.dumps(Continuation(shop_module.shop, trace, 2)))
    code = (
        "import pickle, sys\n"
        f"sys.path[:0] = {[str(tmp_path), str(ROOT)]!r}\n"
        "from persist_effects.requests import Entry\n"
        "continuation = pickle.load(open('continuation', 'rb'))\n"
        "print(continuation.suspended().request)\n"
        "print(continuation.resume(None), continuation.resume(Entry('red', 9)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "KvGet(key='color')\nDone([1, None]) Done([1, 'red'])\n"


# Differences


def test_equal_traces_have_no_difference():
    assert diff(recorded(shop), recorded(shop)) == []
    assert as_text([]) == "no difference"


def keys(*names: str) -> Iterator[Any]:
    for name in names:
        yield from kv.put(name, 0)


def test_one_request_more_does_not_make_the_rest_differ():
    # Of the same answers, which a store would not give.
    first, second = (
        record(keys(*names), {KvPut: lambda request: 1})[1] for names in ("abcde", ("a", "b", "x", "c", "d", "e"))
    )
    (difference,) = diff(first, second)
    assert (difference.first_index, difference.second_index, difference.index) == (None, 2, 2)
    assert difference.first is None
    assert as_text([difference]) == "request 2:\n  + KvPut(key='x', value=0, expected=None) → 1"
    (back,) = diff(second, first)
    assert (back.first_index, back.second_index, back.second) == (2, None, None)


def test_requests_in_each_others_places_are_shown_together():
    first, second = (record(keys(*names), {KvPut: lambda request: 1})[1] for names in ("abc", "axc"))
    (difference,) = diff(first, second)
    assert str(difference).splitlines() == [
        "request 1:",
        "  - KvPut(key='b', value=0, expected=None) → 1",
        "  + KvPut(key='x', value=0, expected=None) → 1",
    ]


def test_answers_that_differ_are_shown_and_long_texts_end():
    def failing(request: KvPut) -> int:
        raise CorruptStore("at 7")

    first = record(keys("a"), {KvPut: lambda request: 1})[1]
    second = record(keys("a"), {KvPut: failing})[1]
    assert "raises CorruptStore: at 7" in as_text(diff(first, second))
    many = diff(recorded(lambda: keys(*map(str, range(50)))), recorded(lambda: keys()))
    assert as_text(many, limit=3).splitlines()[-1] == "… and 47 more"


def test_traces_too_long_to_be_aligned_pair_in_order(monkeypatch):
    first, second = (record(keys(*names), {KvPut: lambda request: 1})[1] for names in ("abcde", "abxcde"))
    monkeypatch.setattr(sys.modules["persist_effects.trace.diff"], "_SEARCH_LIMIT", 0)
    assert [each.second_index for each in diff(first, second)] == [2]
    longer = record(keys(*"abxcye"), {KvPut: lambda request: 1})[1]
    assert [(each.first_index, each.second_index) for each in diff(first, longer)] == [(2, 2), (3, 3), (None, 4)]


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
@settings(max_examples=60)
def test_differences_lead_from_one_trace_to_the_other(one, other):
    first, second = (record(keys(*names), {KvPut: lambda request: 1})[1] for names in (one, other))
    differences = diff(first, second)
    gone = {each.first_index for each in differences}
    come = {each.second_index for each in differences}
    kept = [first[index].request for index in range(len(first)) if index not in gone]
    assert kept == [second[index].request for index in range(len(second)) if index not in come]


# Comparing with stores


def test_a_store_that_answers_the_same_has_no_difference():
    effects = {FetchPrice: lambda request: Price(4)}

    def program() -> Iterator[Any]:
        yield from perform(FetchPrice("tea"))
        return (yield from shop())

    _, trace = record(program, store(effects=effects).handlers)
    assert compare(trace, store(effects=effects)) == []
    assert compare(Trace.from_json_lines(trace.to_json_lines()), store(effects=effects).handlers) == []


def test_answers_and_errors_of_another_store_are_shown_beside_the_recorded_ones():
    def program() -> Iterator[Any]:
        yield from kv.put("a", "x" * 20)
        yield from kv.get("a")
        yield from kv.has("b")

    _, trace = record(program, store().handlers)
    differences = compare(trace, store(payload_limit_bytes=10))
    assert [each.index for each in differences] == [0, 1]
    assert isinstance(differences[0].second.outcome, Failed)  # type: ignore[union-attr]
    assert differences[1].second.outcome == Answered(None)  # type: ignore[union-attr]


def test_a_store_without_a_row_differs_where_there_was_one():
    _, trace = record(perform(FetchPrice("tea")), {FetchPrice: lambda request: Price(4)})
    again = Trace.decode(trace.encode())
    assert "raises UnhandledEffect" in as_text(compare(again, {}))
    assert "raises UnhandledEffect" in as_text(compare(trace, {}))
    _, unhandled = record(perform(FetchPrice("tea")), {})
    assert compare(Trace.decode(unhandled.encode()), {}) == []


def test_an_error_of_another_package_is_the_same_error_when_it_is_raised_again():
    def failing(request: Any) -> None:
        raise SoldOut("no tea")

    _, trace = record(perform(FetchPrice("tea")), {FetchPrice: failing})
    assert compare(trace, {FetchPrice: failing}) == []


# Whatever programs do


requests = st.one_of(
    st.builds(KvPut, st.sampled_from("ab"), values(), st.none() | st.integers(0, 3)),
    st.builds(KvGet, st.sampled_from("ab")),
    st.builds(KvDelete, st.sampled_from("ab")),
    st.builds(LastSeq, st.sampled_from("ab")),
    st.builds(Read, st.sampled_from("ab"), limit=st.integers(1, 3)),
    st.builds(
        Append,
        st.sampled_from("ab"),
        st.lists(st.builds(Draft, st.just("made"), values()), min_size=1, max_size=2).map(tuple),
    ),
)


@given(
    st.lists(requests | st.lists(requests, min_size=1, max_size=3).map(lambda parts: AllOf(tuple(parts))), max_size=6)
)
@settings(deadline=None, max_examples=60)
def test_a_replay_sees_what_the_recorded_program_saw(asked):
    def program() -> Iterator[Any]:
        answers = []
        for request in asked:
            answer = yield from perform(request)
            answers += [answer]
        return answers

    outcome, trace = record(program, store().handlers)
    assert isinstance(outcome, Answered)
    for again in (trace, trace, *traces_through_both(trace)):
        assert repr(replay(program, again)) == repr(outcome.value)
    assert compare(trace, store()) == []


# What is given in the place of another thing


def test_a_program_is_recorded_on_a_store_as_on_its_handlers():
    with open_store("memory:", clock=lambda: 7) as one, open_store("memory:", clock=lambda: 7) as other:
        assert record(log.append("s", "made", 1), one) == record(log.append("s", "made", 1), other.handlers)


@pytest.mark.parametrize("wrong", [None, 7, [KvGet]])
def test_what_is_no_store_and_no_table_is_refused_before_anything_runs(wrong):
    def make() -> Iterator[Any]:
        raise AssertionError("it was made")

    with pytest.raises(InvalidRequest, match="give a store, or a table of a function by request"):
        record(make, wrong)


def test_what_is_no_trace_is_refused_with_how_to_get_one():
    def program() -> Iterator[Any]:
        return kv.get("a")

    pair: Any = record(program, {KvGet: lambda request: None})
    uses: list[Any] = [
        lambda: replay(program, pair),
        lambda: resume_at(program, pair, 0),
        lambda: Continuation(program, pair, 0),
        lambda: diff(pair, pair[1]),
        lambda: diff(pair[1], pair),
        lambda: compare(pair, {}),
    ]
    for use in uses:
        with pytest.raises(InvalidRequest, match=r"give the trace: `outcome, trace = record\(\.\.\.\)`"):
            use()
