"""Errors in traces and on wires, classes of requests with one tag, and traces whose contents are wrong."""

import contextlib
import importlib
import pickle
import sys
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steady import steady

from interpreters import Store, open_store
from interpreters.stores.served.server import StoreServer
from interpreters.traces import check_golden, load, save
from persist_effects import (
    CallerError,
    CorruptStore,
    Diverged,
    InternalError,
    InvalidRequest,
    PersistError,
    RecordedError,
    Request,
    StoreUnavailable,
    Truncated,
    all_of,
    kv,
    perform,
)
from persist_effects.errors import error_from_record, error_to_record
from persist_effects.requests import AllOf, Answered, KvGet, KvPut
from persist_effects.trace import Continuation, Trace, compare, diff, record, replay


class SoldOut(Exception):
    pass


class Missing(Exception):
    """Its constructor's parameters are not its arguments."""

    def __init__(self, sku: str, left: int) -> None:
        super().__init__(f"{left} left of {sku}")
        self.sku = sku
        self.left = left


class Held(Exception):
    """Its argument cannot be recorded."""


class Full(StoreUnavailable):
    """One of a store that is not ours."""


class Ask(Request[Any], frozen=True, tag="errors/ask"):
    question: Any = None


ERRORS = [
    SoldOut("no tea"),
    SoldOut(),
    SoldOut(""),
    SoldOut(5),
    SoldOut("tea", ["black", None], {"left": 0}),
    Missing("tea", 2),
    Full("the disk"),
]
PYTHONS = [
    KeyError("tea"),
    KeyError(7),
    TimeoutError(),
    ValueError("x"),
    FileNotFoundError(2, "no such file", "tea.txt"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ImportError("no", name="tea", path="/tea"),
    StopAsyncIteration(),
    ZeroDivisionError("division by zero"),
]


def catching(kind: type[Exception]) -> Any:
    """A program that goes on by what it caught."""

    def program() -> Iterator[Any]:
        try:
            yield from perform(Ask())
        except kind as error:
            yield from kv.put("caught", [repr(error), str(error), sorted(vars(error))])
            return error.args

    return program


def raising(error: Exception) -> dict[Any, Any]:
    def row(request: Any) -> None:
        raise error

    return {Ask: row, KvPut: lambda request: 1}


def through_both(trace: Trace, **named: Any) -> list[Trace]:
    return [Trace.decode(trace.encode(), **named), Trace.from_json_lines(trace.to_json_lines(), **named)]


@pytest.mark.parametrize("error", [*ERRORS, *PYTHONS], ids=steady)
def test_a_program_that_catches_its_own_error_does_so_again_where_the_class_is_known(error):
    program = catching(type(error))
    outcome, trace = record(program, raising(error))
    assert outcome == Answered(error.args)
    assert replay(program, trace) == error.args
    errors = [] if error in PYTHONS else [type(error)]
    for again in through_both(trace, errors=errors):
        assert replay(program, again) == error.args
        assert diff(trace, again) == []


def test_an_error_of_what_is_asked_at_once_is_known_too():
    def program() -> Iterator[Any]:
        try:
            yield from all_of(perform(Ask()), kv.put("a", 1))
        except SoldOut as error:
            return str(error)

    _, trace = record(program, raising(SoldOut("no tea")))
    for again in (trace, *through_both(trace, errors=[SoldOut])):
        assert replay(program, again) == "no tea"


@pytest.mark.parametrize("error", ERRORS, ids=steady)
def test_an_error_whose_class_is_not_registered_says_so_and_how_to(error):
    name = f"{__name__}.{type(error).__name__}"
    _, trace = record(catching(type(error)), raising(error))
    for again in through_both(trace):
        with pytest.raises(Diverged) as found:
            replay(catching(type(error)), again)
        assert f"hint:       {name} is not registered: give its class" in str(found.value)
        assert isinstance(found.value.__cause__, RecordedError)
        assert name in found.value.__cause__.__notes__[0]
        assert pickle.loads(pickle.dumps(found.value)).hint == found.value.hint


@pytest.mark.parametrize("held", [object(), 2**70, "\ud800", (1, 2)], ids=steady)
def test_an_error_whose_arguments_cannot_be_recorded_says_so(held):
    _, trace = record(catching(Held), raising(Held(held, "x")))
    for again in (trace, *through_both(trace, errors=[Held])):
        with pytest.raises(Diverged, match="Held is known, but its arguments could not be recorded: give plain ones"):
            replay(catching(Held), again)


def test_a_trace_that_kept_only_names_and_texts_reads_as_before_and_is_no_difference(tmp_path):
    _, trace = record(catching(KeyError), raising(KeyError("tea")))
    older = Trace(
        trace.requests, [msgspec.msgpack.encode(["RecordedError", "KeyError", "'tea'"]), *trace.outcomes[1:]], {0}
    )
    assert str(older[0].outcome.error) == "KeyError: 'tea'"
    assert diff(older, trace) == diff(trace, older) == []
    save(older, tmp_path / "golden.jsonl")
    check_golden(trace, tmp_path / "golden.jsonl")
    _, other = record(catching(KeyError), raising(KeyError("mug")))
    assert len(diff(older, other)) >= 1


def test_registered_errors_reach_every_door(tmp_path):
    program = catching(Missing)
    outcome, trace = record(program, raising(Missing("tea", 2)))
    assert isinstance(outcome, Answered)
    for name in ("t.trace", "t.jsonl"):
        save(trace, tmp_path / name)
        assert replay(program, load(tmp_path / name, errors=[Missing])) == outcome.value
        with pytest.raises(Diverged):
            replay(program, load(tmp_path / name))
    data = Continuation(program, trace, 1).encode()
    assert Continuation.decode(program, data, [Ask], [Missing]).resume(1).value == outcome.value
    again = Trace.decode(trace.encode(), [Ask], [Missing])
    assert compare(again, raising(Missing("tea", 2))) == []
    assert again.first(1).errors == again.errors


@pytest.mark.parametrize("errors", [[7], [KeyboardInterrupt], [int], [SoldOut, type("SoldOut", (SoldOut,), {})]])
def test_what_is_no_table_of_errors_is_refused(errors):
    if len(errors) > 1:
        errors[1].__module__ = __name__
    with pytest.raises(InvalidRequest):
        Trace.decode(record(kv.get("a"), {KvGet: lambda request: None})[1].encode(), errors=errors)


# On the wire


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (InvalidRequest(object), InvalidRequest, "<class 'object'>"),
        (InvalidRequest([(1, 2)]), InvalidRequest, "[(1, 2)]"),
        (InvalidRequest("\ud800"), InvalidRequest, "\\ud800"),
        (Truncated({1: 2}, 3), CallerError, str(Truncated({1: 2}, 3))),
        (Full("the disk"), StoreUnavailable, "Full: the disk"),
        (KeyError("tea"), InternalError, "KeyError: 'tea'"),
        (CorruptStore("at 7"), CorruptStore, "at 7"),
    ],
    ids=steady,
)
def test_an_error_keeps_whose_move_it_is_on_a_wire_whatever_its_arguments_are(error, kind, text):
    record_ = msgspec.msgpack.decode(msgspec.msgpack.encode(error_to_record(error)))
    back = error_from_record(record_)
    assert type(back) is kind
    assert str(back) == text


@given(st.recursive(st.none() | st.integers() | st.text() | st.just("Truncated"), st.lists, max_leaves=6))
def test_any_record_of_an_error_is_one_or_is_refused(plain):
    try:
        assert isinstance(error_from_record(plain), PersistError)
    except ValueError as error:
        assert "not a record of an error" in str(error)  # noqa: PT017 - either is right


def test_an_error_with_deep_arguments_is_sent_and_recorded_as_text():
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert error_to_record(InvalidRequest(deep))[0] == "InvalidRequest"
    _, trace = record(perform(Ask()), raising(Held(deep)))
    with pytest.raises(RecordedError, match="nested too deep"):
        replay(perform(Ask()), trace)


# Two classes with one tag


class Price(Request[int], frozen=True, tag="errors/price"):
    sku: str


class OtherPrice(Request[str], frozen=True, tag="errors/price"):
    sku: str


class Derived(KvGet, frozen=True):
    pass


class Untagged(Request[int], frozen=True, tag=False):
    pass


DOORS = {
    "Store": lambda table: open_store("memory:", effects=table),
    "an interpreter's own": lambda table: Store(_Interpreter(table)),
    "record": lambda table: record(kv.get("a"), {KvGet: lambda request: None, **table}),
    "compare": lambda table: compare(_trace(), {KvGet: lambda request: None, **table}),
    "decode": lambda table: Trace.decode(_trace().encode(), kinds=[*table]),
    "lines": lambda table: Trace.from_json_lines(_trace().to_json_lines(), kinds=[*table]),
    "serve": lambda table: StoreServer(_Interpreter(table)),
}


class _Interpreter:
    def __init__(self, table):
        self.handlers = {KvGet: lambda request: None, **table}

    def close(self):
        """Nothing is held."""


def _trace() -> Trace:
    return record(kv.get("a"), {KvGet: lambda request: None})[1]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([Price, OtherPrice], r"OtherPrice and \S+\.Price both have the tag 'errors/price'"),
        ([Derived], r"Derived and persist_effects\.requests\.KvGet both have the tag 'persist/kv-get'"),
        ([Untagged], r"Untagged has no tag"),
    ],
)
def test_classes_of_requests_with_one_tag_are_refused_where_they_meet(door, kinds, message):
    with pytest.raises(InvalidRequest, match=message):
        DOORS[door](dict.fromkeys(kinds, lambda request: 1))
    DOORS[door]({Price: lambda request: 1})


def test_a_program_that_asks_for_both_is_refused_by_record_and_by_replay():
    def both() -> Iterator[Any]:
        for kind in (Price, OtherPrice):
            with contextlib.suppress(CallerError):
                yield from perform(kind("tea"))

    with pytest.raises(InvalidRequest, match="both have the tag"):
        record(both, {})
    with pytest.raises(InvalidRequest, match="both have the tag"):
        record(all_of(Price("tea"), OtherPrice("tea")), {AllOf: lambda request: [Answered(1), Answered("1")]})


def test_a_request_is_not_replayed_as_another_class_of_its_tag():
    _, trace = record(perform(Price("tea")), {Price: lambda request: 4})
    for again in (trace, Trace.decode(trace.encode(), kinds=[Price])):
        with pytest.raises(InvalidRequest, match=r"OtherPrice .*both have the tag|both have the tag"):
            replay(perform(OtherPrice("tea")), again)
    _, at_once = record(all_of(Price("tea")), {Price: lambda request: 4})
    with pytest.raises(InvalidRequest, match="both have the tag"):
        replay(all_of(OtherPrice("tea")), at_once)


def test_a_class_of_a_module_that_was_loaded_again_is_the_same_one(tmp_path, monkeypatch):
    (tmp_path / "reloaded_shop.py").write_text(
        "from persist_effects import Request\n\n\n"
        "class Buy(Request[int], frozen=True, tag='reloaded/buy'):\n    sku: str\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shop = importlib.import_module("reloaded_shop")
    first = shop.Buy
    _, trace = record(perform(first("tea")), {first: lambda request: 4})
    importlib.reload(shop)
    assert shop.Buy is not first
    assert replay(perform(shop.Buy("tea")), trace) == 4
    assert open_store("memory:", effects={shop.Buy: lambda request: 4}).run(perform(shop.Buy("tea"))) == 4
    with pytest.raises(InvalidRequest, match="both have the tag"):
        open_store("memory:", effects={first: lambda request: 4, shop.Buy: lambda request: 4})
    del sys.modules["reloaded_shop"]


# Right digest, wrong contents

NONE = msgspec.msgpack.encode(None)
GET = msgspec.msgpack.encode({"op": "persist/kv-get", "key": "a"})
DEEP = b"\x91" * 10_000 + b"\xc0"


def bytes_of(requests: Any, outcomes: Any, failed: Any, version: Any = "0.1.0") -> bytes:
    raw = [[*map(msgspec.Raw, part)] for part in (requests, outcomes)]
    body = msgspec.msgpack.encode([version, *raw, failed])
    return b"persist-effects trace 1\n" + blake2b(body, digest_size=8).digest() + body


def used(trace: Trace) -> None:
    """All that reads a trace."""
    replay(kv.get("a"), trace)


def looked_at(trace: Trace) -> None:
    assert [str(one) for one in trace]
    assert trace.to_json_lines()
    diff(trace, trace.first(0))
    compare(trace, {KvGet: lambda request: None})


@pytest.mark.parametrize("use", [used, looked_at])
@pytest.mark.parametrize(
    ("requests", "outcomes", "failed"),
    [
        ([GET], [], []),
        ([], [NONE], []),
        ([GET], [NONE], [1]),
        ([GET], [NONE], [-1]),
        ([GET], [NONE], [2**63]),
        ([NONE], [NONE], []),
        ([msgspec.msgpack.encode([])], [NONE], []),
        ([msgspec.msgpack.encode({"key": "a"})], [NONE], []),
        ([msgspec.msgpack.encode({"op": ["x"]})], [NONE], []),
        ([msgspec.msgpack.encode({"op": "persist/kv-get"})], [NONE], []),
        ([msgspec.msgpack.encode({"op": "persist/kv-get", "key": ""})], [NONE], []),
        ([msgspec.msgpack.encode({"op": "persist/all-of"})], [NONE], []),
        ([msgspec.msgpack.encode({"op": "persist/all-of", "requests": [7]})], [NONE], []),
        ([GET], [msgspec.msgpack.encode(7)], []),
        ([GET], [b"\xa1\xff"], []),
        ([GET], [NONE], [0]),
        ([GET], [msgspec.msgpack.encode([])], [0]),
        ([GET], [msgspec.msgpack.encode(["Truncated"])], [0]),
        ([GET], [msgspec.msgpack.encode(["RecordedError"])], [0]),
        ([GET], [msgspec.msgpack.encode(["RecordedError", 1, 2])], [0]),
        ([DEEP], [NONE], []),
        ([GET], [DEEP], []),
        ([GET], [DEEP], [0]),
    ],
    ids=range(23),
)
def test_a_trace_with_a_right_digest_and_wrong_contents_is_refused_by_the_file(
    tmp_path, requests, outcomes, failed, use
):
    path = tmp_path / "wrong.trace"
    path.write_bytes(bytes_of(requests, outcomes, failed))
    with pytest.raises((InvalidRequest, Diverged)) as found:
        use(load(path))
    assert str(path) in str(found.value) or isinstance(found.value, Diverged)
    with pytest.raises(AssertionError):
        check_golden(_trace(), path)


@given(st.binary(max_size=40), st.binary(max_size=40), st.frozensets(st.integers(0, 2)))
def test_any_bytes_under_a_right_digest_are_a_trace_or_are_refused(request_bytes, outcome_bytes, failed):
    body = msgspec.msgpack.encode(["0.1.0", 0, 0, sorted(failed)])
    spliced = body.replace(b"\x00\x00", b"\x91" + request_bytes + b"\x91" + outcome_bytes, 1)
    data = b"persist-effects trace 1\n" + blake2b(spliced, digest_size=8).digest() + spliced
    for use in (used, looked_at):
        try:
            use(Trace.decode(data))
        except (PersistError, RecordedError, AssertionError):
            continue
        except Exception as error:
            # What a recorded error of Python's own is raised as.
            assert failed, error  # noqa: PT017 - either is right


def test_a_deep_request_or_answer_is_refused_when_it_is_recorded_and_replayed():
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="cannot be recorded"):
        record(perform(Ask(deep)), {Ask: lambda request: 1})
    with pytest.raises(InvalidRequest, match="cannot be recorded"):
        record(perform(Ask()), {Ask: lambda request: deep})
    _, trace = record(perform(Ask()), {Ask: lambda request: 1})
    with pytest.raises(Diverged, match="nested too deep to show"):
        replay(perform(Ask(deep)), trace)
