"""Every rule for names, numbers and values: the error, its message, and that nothing was written."""

import enum
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest

from persist_effects import Draft, ExpectRevision, ExpectSeq, InvalidRequest, TooLarge, blob, codec, kv, log, transact
from persist_effects.requests import (
    Append,
    BlobPut,
    KvDelete,
    KvKeys,
    KvPut,
    Read,
    ReadAll,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)

BAD_NAMES = [
    ("", "is empty: a name has 1 to 512 bytes of UTF-8"),
    ("x" * 513, "takes 513 bytes: a name has 1 to 512"),
    ("é" * 257, "takes 514 bytes: a name has 1 to 512"),
    ("a\x00b", "has the control character '\\x00' at index 1: take it out"),
    ("a\nb", "has the control character '\\n' at index 1: take it out"),
    ("\x7f", "has the control character '\\x7f' at index 0: take it out"),
    ("\x85", "has the control character '\\x85' at index 0: take it out"),
    ("a\ud800", "has a lone surrogate at index 1: it is not UTF-8"),
    (b"bytes", "is a bytes, b'bytes': give a str"),
    (None, "is None: give a str"),
    (7, "is an int, 7: give a str"),
]

GOOD_NAMES = [
    "x" * 512,
    "é" * 256,
    "a b",
    " ",
    "*",
    ">",
    "a.b",
    "a/b",
    "%",
    "\u2028",
    "\u00a0",
    "\U0001f600" * 128,
    "'\"",
]


class Color(enum.IntEnum):
    RED = 1


class Text(str):
    """A subclass of a storable type is not that type."""

    __slots__ = ()


class Line(msgspec.Struct):
    sku: str
    when: object = None


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def holding_itself():
    value = []
    value.append(value)
    return value


BAD_VALUES = [
    ((1, 2), "is a tuple, which cannot be stored: give a list"),
    ({1, 2}, "is a set, which cannot be stored: give a list"),
    (frozenset(), "is a frozenset, which cannot be stored: give a list"),
    (bytearray(b"x"), "is a bytearray, which cannot be stored: give bytes"),
    (datetime(2020, 1, 1, tzinfo=UTC), "is a datetime, which cannot be stored"),
    (Decimal("1.5"), "is a Decimal, which cannot be stored"),
    (UUID(int=1), "is a UUID, which cannot be stored"),
    (Color.RED, "is a Color, which cannot be stored"),
    (Text("x"), "is a Text, which cannot be stored"),
    (object(), "is an object, which cannot be stored"),
    (1j, "is a complex, which cannot be stored"),
    (2**64, "is the integer 18446744073709551616, which takes more than 64 bits: give a str"),
    (-(2**63) - 1, "is the integer -9223372036854775809, which takes more than 64 bits: give a str"),
    ("\ud800", "has a lone surrogate at index 0: it is not UTF-8"),
    ({"\ud800": 1}, "the dict key '\\ud800' in"),
    ({1: 2}, "has a dict key that is an int, 1: a dict's keys must be str"),
    ({None: 2}, "has a dict key that is None: a dict's keys must be str"),
    ({"a": [0, {"b": (1,)}]}, '["a"][1]["b"] is a tuple, which cannot be stored: give a list'),
    (Line("tea", when=(1,)), ".when is a tuple, which cannot be stored: give a list"),
    (nested(102), "is nested deeper than 100, or holds itself: flatten it"),
    (holding_itself(), "is nested deeper than 100, or holds itself: flatten it"),
]

GOOD_VALUES = [None, True, -(2**63), 2**64 - 1, 1.5, "", b"", [], {}, {"": []}, nested(100), Line("tea", when=[1])]


def everything_in(store):
    """All that the store holds, as plain values, to see that a refused request changed nothing."""
    names = store.run(log.streams())
    keys = store.run(kv.keys())
    return (
        [(name, store.run(log.last_seq(name)), store.run(log.read(name))) for name in names],
        [(key, store.run(kv.entry(key))) for key in keys],
    )


@pytest.fixture
def filled(store):
    store.run(log.append("orders/1", "placed", {"total": 12}))
    store.run(kv.put("color", "red"))
    before = everything_in(store)
    yield store
    assert everything_in(store) == before, "a refused request changed the store"


NAMED_PROGRAMS = {
    "stream name of append": lambda name: log.append(name, "placed", None),
    "event type": lambda name: log.append("orders/1", name, None),
    "stream name of read": lambda name: log.read(name),
    "stream name of last_seq": lambda name: log.last_seq(name),
    "stream name of truncate": lambda name: log.truncate_through(name, 1),
    "key of put": lambda name: kv.put(name, 1),
    "key of get": lambda name: kv.get(name),
    "key of has": lambda name: kv.has(name),
    "key of delete": lambda name: kv.delete(name),
    "key of update": lambda name: kv.update(name, lambda n: n),
    "once key": lambda name: log.append_once("orders/1", name, "placed", None),
}


@pytest.mark.parametrize("program", NAMED_PROGRAMS.values(), ids=NAMED_PROGRAMS)
@pytest.mark.parametrize(("name", "message"), BAD_NAMES, ids=[ascii(name)[:12] for name, _ in BAD_NAMES])
def test_a_bad_name_is_refused_and_nothing_is_written(filled, program, name, message):
    with pytest.raises(InvalidRequest) as caught:
        filled.run(program(name))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", GOOD_NAMES, ids=[ascii(name)[:12] for name in GOOD_NAMES])
def test_any_other_name_works_as_stream_key_and_type(store, name):
    event = store.run(log.append(name, name, 1))
    store.run(kv.put(name, 2))
    assert (event.stream, event.type) == (name, name)
    assert store.run(log.streams()) == store.run(kv.keys()) == [name]
    assert [found.seq for found in store.run(log.read(name))] == [1]
    assert store.run(kv.get(name)) == 2


@pytest.mark.parametrize(
    ("value", "message"), BAD_VALUES, ids=[type(v).__name__ + str(i) for i, (v, _) in enumerate(BAD_VALUES)]
)
def test_a_value_that_cannot_be_stored_is_refused_and_nothing_is_written(filled, value, message):
    writes = {
        "data of a 'placed' event for stream 'orders/1'": log.append("orders/1", "placed", value),
        "meta of a 'placed' event for stream 'orders/1'": log.append("orders/1", "placed", 1, meta={"m": value}),
        "value of key 'color'": kv.put("color", value),
        "value of key 'size'": transact(KvPut("color", "blue"), KvPut("size", value)),
    }
    for what, program in writes.items():
        with pytest.raises(InvalidRequest) as caught:
            filled.run(program)
        assert message in str(caught.value)
        assert what in str(caught.value)


@pytest.mark.parametrize("value", GOOD_VALUES, ids=[str(i) for i in range(len(GOOD_VALUES))])
def test_values_at_the_edges_of_the_rules_are_stored(store, value):
    store.run(kv.put("key", value))
    expected = {"sku": "tea", "when": [1]} if isinstance(value, Line) else value
    assert store.run(kv.get("key")) == expected
    assert type(store.run(kv.get("key"))) is type(expected)


def test_a_meta_that_is_no_dict_is_refused(filled):
    with pytest.raises(InvalidRequest, match="event meta is a list: give a dict with str keys, or None"):
        filled.run(log.append("orders/1", "placed", 1, meta=["no"]))


def test_a_payload_over_the_limit_is_too_large_and_nothing_is_written(filled):
    big = b"x" * (codec.PAYLOAD_LIMIT_BYTES + 1)
    for program in (
        log.append("orders/1", "placed", big),
        log.append("orders/1", "placed", 1, meta={"m": big}),
        kv.put("color", big),
        transact(KvPut("size", 1), Append("orders/1", (Draft("placed", big),))),
    ):
        with pytest.raises(
            TooLarge, match=r"takes 83886\d\d bytes, the store's limit is 8388608: put the bytes into a blob"
        ):
            filled.run(program)


def test_the_limit_can_be_set_and_is_exact():
    from interpreters import open_store

    with open_store("memory:", payload_limit_bytes=100) as store:
        fits = b"x" * 98  # and two bytes of header
        store.run(kv.put("key", fits))
        with pytest.raises(TooLarge) as caught:
            store.run(kv.put("key", fits + b"x"))
        assert (caught.value.size_bytes, caught.value.limit_bytes) == (101, 100)
        assert store.run(kv.get("key")) == fits


BAD_REQUESTS = {
    "no events": (lambda: Append("s", ()), "needs a tuple of at least one Draft"),
    "a list of drafts": (lambda: Append("s", [Draft("a", 1)]), "needs a tuple of at least one Draft"),
    "something else than a draft": (lambda: Append("s", ({"type": "a"},)), "got a dict: give a Draft"),
    "expected below 0": (lambda: Append("s", (Draft("a", 1),), -1), "expected sequence number is -1"),
    "expected a bool": (lambda: Append("s", (Draft("a", 1),), True), "expected sequence number is a bool"),
    "at a float": (lambda: Draft("a", 1, at=1.5), "is a float, 1.5: give an integer"),
    "at over 64 bits": (lambda: Draft("a", 1, at=2**63), "give an integer from"),
    "after below 0": (lambda: Read("s", after=-1), "after is -1"),
    "until a str": (lambda: Read("s", until="9"), "until is a str"),
    "limit 0": (lambda: Read("s", limit=0), "limit is 0: give an integer from 1 to 10000"),
    "limit over 10000": (lambda: Read("s", limit=10_001), "limit is 10001"),
    "backwards an int": (lambda: Read("s", backwards=1), "backwards is an int: give a bool"),
    "read-all after a str": (lambda: ReadAll(after="1"), "after is a str"),
    "a prefix with a control character": (lambda: ReadAll(prefix="a\n"), "has the control character"),
    "types a list": (lambda: ReadAll(types=["a"]), "types is a list: give a tuple"),
    "an empty type": (lambda: ReadAll(types=("",)), "event type is empty"),
    "truncate through -1": (lambda: TruncateThrough("s", -1), "seq is -1"),
    "streams limit": (lambda: Streams(limit=0), "limit is 0"),
    "streams prefix": (lambda: Streams(prefix=None), "stream prefix is None"),
    "keys after": (lambda: KvKeys(after=3), "after is an int"),
    "wait for ever and a day": (lambda: Wait(0, timeout=float("nan")), "timeout is nan: give seconds, 0 or more"),
    "wait a negative time": (lambda: Wait(0, timeout=-1.0), "timeout is -1.0"),
    "wait a str": (lambda: Wait(0, timeout="1"), "timeout is '1'"),
    "put expecting a str": (lambda: KvPut("k", 1, "0"), "expected revision is a str"),
    "delete expecting -1": (lambda: KvDelete("k", -1), "expected revision is -1"),
    "an empty transaction": (lambda: Transact(()), "needs a tuple of at least one write"),
    "a read in a transaction": (lambda: Transact((Read("s"),)), "got a Read among its writes"),
    "a list of checks": (lambda: Transact((KvPut("k", 1),), []), "checks is a list: give a tuple"),
    "a write as a check": (lambda: Transact((KvPut("k", 1),), (KvPut("k", 1),)), "got a KvPut among its checks"),
    "a check of a bad stream": (lambda: ExpectSeq("", 0), "stream name is empty"),
    "a check of a bad revision": (lambda: ExpectRevision("k", -1), "expected revision is -1"),
    "a blob that is a str": (lambda: BlobPut("text"), "a blob's data is a str: give bytes"),
    "a blob without a MIME type": (lambda: BlobPut(b"", ""), "MIME type is empty"),
}


@pytest.mark.parametrize(("make", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_request_that_breaks_a_rule_is_refused_where_it_is_built(make, message):
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: log.read("s", limit=0), "limit is 0"),
        (lambda: log.read_from("s", 0), "seq is 0"),
        (lambda: log.read_range("s", 0, 4), "first is 0"),
        (lambda: log.append_many("s", []), "needs a tuple of at least one Draft"),
        (lambda: blob.get("no cid"), "'no cid' is not a content identifier of a blob"),
    ],
)
def test_a_facets_bad_arguments_are_refused(filled, program, message):
    with pytest.raises(InvalidRequest) as caught:
        filled.run(program())
    assert message in str(caught.value)


def test_a_bad_draft_among_good_ones_writes_none(filled):
    with pytest.raises(InvalidRequest, match="is a tuple"):
        filled.run(log.append_many("orders/1", [Draft("placed", 1), Draft("placed", (1,))]))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: log.page_all(types="placed"), "types is a str, 'placed': give a list of event types"),
        (lambda: log.page_all(types=5), "types is an int, 5: give a list of event types"),
        (lambda: log.append_many("s", Draft("a", 1)), "drafts is a Draft, "),
        (lambda: log.append_many("s", "drafts"), "drafts is a str, 'drafts': give a list of Drafts"),
        (lambda: transact(KvPut("k", 1), checks=ExpectSeq("s", 0)), "checks is an ExpectSeq, "),
        (lambda: blob.get({"size": 5}), "a blob's reference is a dict, {'size': 5}: give a BlobRef, the dict with a"),
        (lambda: blob.has({"cid": 5}), "a blob's reference is a dict, {'cid': 5}: give a BlobRef"),
        (lambda: kv.delete_expect("k", -1), "expected revision is -1"),
    ],
)
def test_what_is_no_list_and_no_reference_is_refused(filled, program, message):
    with pytest.raises(InvalidRequest) as caught:
        filled.run(program())
    assert message in str(caught.value)


def test_checks_and_drafts_may_come_from_any_iterable(store):
    assert store.run(log.append_many("s", (Draft("made", n) for n in range(3)))).last_seq == 3
    assert store.run(transact(KvPut("k", 1), checks=iter([ExpectSeq("s", 3)]))) == [1]


def test_the_place_of_a_dict_key_reads_as_a_sentence(store):
    with pytest.raises(InvalidRequest) as caught:
        store.run(kv.put("color", {"shades": {"\ud800": 1}}))
    place = "the dict key '\\ud800' in value of key 'color'[\"shades\"]"
    assert str(caught.value) == f"{place} has a lone surrogate at index 0: it is not UTF-8"
