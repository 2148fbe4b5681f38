"""A store as JSON Lines: every value comes back the same, and a bad file is refused by its line."""

import io
import json
from datetime import datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interpreters import Store, jsonl, open_store
from interpreters.file import FileStore
from interpreters.memory import MemoryStore
from interpreters.strategies import AWKWARD_NAMES, AWKWARD_VALUES, drafts, names, same_value, values
from persist_effects import Draft, InvalidRequest, Truncated, kv, log
from persist_effects.json_values import from_json, to_json
from persist_effects.requests import PAGE_SIZE

BEGINNING = b'{"format":"persist-effects","version":1}'
EVENT = b'{"event":["s",1,"made",0,null,null],"position":1}'
END = b'{"end":{"events":1,"streams":0,"keys":0}}'


def exported(store: Store) -> bytes:
    out = io.BytesIO()
    jsonl.export(store, out)
    return out.getvalue()


def imported(lines) -> Store:
    store = open_store("memory:")
    jsonl.import_(store, lines)
    return store


def shown(store: Store):
    """All that is to come back: everything but positions and revisions, of which events only have their order."""
    events, after, head = [], 0, 1
    while after < head:
        page = store.run(log.read_all(after))
        events += [[one.stream, one.seq, one.type, one.at, one.data, one.meta] for one in page.events]
        after, head = page.next, page.head
    last_seqs = [[name, store.run(log.last_seq(name))] for name in store.run(log.streams())]
    entries = [[key, store.run(kv.get(key))] for key in store.run(kv.keys())]
    return [events, last_seqs, entries]


@given(values())
def test_every_value_comes_back_the_same(value):
    line = msgspec.json.encode(to_json(value))
    assert same_value(from_json(msgspec.json.decode(line)), value)


@pytest.mark.parametrize("value", AWKWARD_VALUES, ids=lambda value: repr(value)[:30])
def test_awkward_values_come_back_the_same_through_another_json(value):
    # Another program's JSON may not tell 3.0 from 3, nor keep integers of more than 53 bits.
    through = json.loads(json.dumps(to_json(value)), parse_int=float)
    assert same_value(from_json(_whole(through)), value)


def _whole(plain):
    """As a program does that has one kind of number and writes whole ones without a point."""
    if isinstance(plain, list):
        return [_whole(part) for part in plain]
    if isinstance(plain, dict):
        return {key: _whole(part) for key, part in plain.items()}
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def test_values_that_look_like_tags_come_back_as_themselves():
    for value in ({"$bytes": "x"}, {"$dict": []}, {"a": {"$int": 1}}, {"$": 1, "b": 2}):
        assert from_json(to_json(value)) == value


@pytest.mark.parametrize(
    "plain", [{"$bytes": "!"}, {"$int": "x"}, {"$other": 1}, {"$int": "1", "a": 1}, {"$dict": 1}, {"$float": None}]
)
def test_what_no_export_writes_is_refused(plain):
    with pytest.raises(InvalidRequest, match=r"\$"):
        from_json(plain)


def test_times_and_dicts_with_other_keys_than_str_come_back_though_no_store_takes_them():
    for value in ({(1, 2): b"x", 3: None}, msgspec.convert("2026-01-02T03:04:05.000006Z", datetime)):
        assert from_json(to_json(value)) == value


def test_what_is_no_value_is_refused():
    with pytest.raises(InvalidRequest, match="a tuple is no value"):
        to_json((1, 2))


writes = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"), st.sampled_from(AWKWARD_NAMES[:4]) | names(), st.lists(drafts(), min_size=1, max_size=3)
        ),
        st.tuples(st.just("put"), st.sampled_from(AWKWARD_NAMES[:4]) | names(), values()),
        st.tuples(st.just("truncate"), st.sampled_from(AWKWARD_NAMES[:4]), st.integers(1, 5)),
    ),
    max_size=15,
)


@given(writes)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_every_store_comes_back_the_same(steps):
    store = Store(MemoryStore(clock=lambda: 7))
    for kind, name, what in steps:
        program = {"append": log.append_many, "put": kv.put, "truncate": log.truncate_through}[kind](name, what)
        store.run(program)
    lines = exported(store)
    again = imported(io.BytesIO(lines))
    assert same_value(shown(again), shown(store))
    assert _without_numbers(exported(again)) == _without_numbers(lines)


def _without_numbers(lines: bytes):
    parsed = [json.loads(line) for line in lines.splitlines() if line]
    return [{key: part for key, part in line.items() if key not in ("position", "revision")} for line in parsed]


def test_many_events_streams_and_keys_are_all_exported_and_the_progress_is_told(tmp_path):
    store = open_store("memory:")
    for number in range(3):
        store.run(log.append_many(f"s{number}", [Draft("made", n) for n in range(PAGE_SIZE)]))
    store.run_many(kv.put(f"k{number}", number) for number in range(PAGE_SIZE + 1))
    store.run_many(log.append(f"one/{number}", "made", number) for number in range(PAGE_SIZE + 1))
    told, out = [], io.BytesIO()
    counts = jsonl.export(store, out, lambda *progress: told.append(progress))
    assert (counts.events, counts.streams, counts.keys) == (4 * PAGE_SIZE + 1, PAGE_SIZE + 4, PAGE_SIZE + 1)
    assert told[-1] == (counts.events, counts.events)
    with Store(FileStore(tmp_path, sync="os")) as again:
        assert jsonl.import_(again, io.BytesIO(out.getvalue()), lambda *progress: told.append(progress)) == counts
        assert shown(again) == shown(store)
    assert told[-1][0] == counts.events


def test_a_stream_keeps_its_truncation_and_goes_on_counting():
    store = open_store("memory:")
    store.run(log.append_many("part", [Draft("made", n) for n in range(5)]))
    store.run(log.append_many("all", [Draft("made", n) for n in range(3)]))
    store.run(log.truncate_through("part", 3))
    store.run(log.truncate_through("all", 3))
    again = imported(io.BytesIO(exported(store)))
    assert again.run(log.append("all", "made", 0)).seq == 4
    assert [event.seq for event in again.run(log.read("part"))] == [4, 5]


def test_an_export_has_nothing_that_was_appended_after_it_began():
    store = open_store("memory:")
    store.run(log.append_many("s", [Draft("made", n) for n in range(PAGE_SIZE + 5)]))

    def append_more(done, head):
        store.run(log.append("s", "made", "later"))
        store.run(log.append("t", "made", "later"))

    out = io.BytesIO()
    jsonl.export(store, out, append_more)
    assert b"later" not in out.getvalue()
    assert [name for name, _ in shown(imported(io.BytesIO(out.getvalue())))[1]] == ["s"]


def test_an_export_under_which_events_are_dropped_says_so():
    store = open_store("memory:")
    store.run(log.append_many("s", [Draft("made", n) for n in range(3 * PAGE_SIZE)]))
    with pytest.raises(Truncated, match="'s'"):
        jsonl.export(store, io.BytesIO(), lambda done, head: store.run(log.truncate_through("s", 2 * PAGE_SIZE)))


def test_a_stream_that_is_truncated_after_its_events_were_read_comes_back_truncated():
    store = open_store("memory:")
    store.run(log.append_many("s", [Draft("made", n) for n in range(5)]))
    out = io.BytesIO()
    jsonl.export(store, out, lambda done, head: store.run(log.truncate_through("s", 3)))
    assert [event.seq for event in imported(io.BytesIO(out.getvalue())).run(log.read("s"))] == [4, 5]


@pytest.mark.parametrize("program", [log.append("s", "made", 1), kv.put("k", 1)], ids=["a stream", "a key"])
def test_a_store_that_is_not_empty_is_refused(program):
    store = open_store("memory:")
    store.run(program)
    before = exported(store)
    with pytest.raises(InvalidRequest, match="empty store"):
        jsonl.import_(store, [BEGINNING])
    assert exported(store) == before


@pytest.mark.parametrize(
    ("lines", "number", "message"),
    [
        ([], 0, "cut"),
        ([b"{}"], 1, "format"),
        ([b'{"format":"persist-effects","version":2}'], 1, "version 2"),
        ([BEGINNING, b"[]"], 2, "object"),
        ([BEGINNING, b"{"], 2, ""),
        ([BEGINNING, b"\xff"], 2, ""),
        ([BEGINNING, b'{"other":1}'], 2, "begins with"),
        ([BEGINNING, b"{}"], 2, "begins with"),
        ([BEGINNING, EVENT, EVENT], 3, "expected 2, found 1"),
        ([BEGINNING, b'{"event":["s",0,"made",0,null,null]}'], 2, "from 1"),
        ([BEGINNING, b'{"event":["s",true,"made",0,null,null]}'], 2, "from 1"),
        ([BEGINNING, b'{"event":["s",1,"made",0,null]}'], 2, "an event is"),
        ([BEGINNING, b'{"event":["s",1,"made",null,null,null]}'], 2, "no time"),
        ([BEGINNING, b'{"event":["s",1,"",0,null,null]}'], 2, "event type is empty"),
        ([BEGINNING, b'{"event":["",1,"made",0,null,null]}'], 2, "stream name is empty"),
        ([BEGINNING, b'{"event":[["s"],1,"made",0,null,null]}'], 2, "stream name"),
        ([BEGINNING, b'{"event":["s",1,"made",0,{"$int":"1' + b"0" * 30 + b'"},null]}'], 2, "64 bits"),
        ([BEGINNING, b'{"event":["s",1,"made",0,null,3]}'], 2, "meta"),
        ([BEGINNING, b'{"event":["s",1,"made",0,' + b"[" * 101 + b"]" * 101 + b",null]}"], 2, "deeper"),
        ([BEGINNING, EVENT, b'{"stream":"s","dropped":0,"last_seq":2}'], 3, "expected events up to 2, found 1"),
        ([BEGINNING, b'{"stream":"s","dropped":2,"last_seq":1}'], 2, "dropped <= last_seq"),
        ([BEGINNING, b'{"stream":["s"],"dropped":1,"last_seq":1}'], 2, "stream name"),
        ([BEGINNING, b'{"key":"k"}'], 2, "no value"),
        ([BEGINNING, b'{"key":"","value":1}'], 2, "key is empty"),
        ([BEGINNING, EVENT], 2, "cut"),
        ([BEGINNING, END], 2, "missing"),
        ([BEGINNING, EVENT, END, EVENT], 4, "more after"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(lines, number, message):
    with pytest.raises(InvalidRequest, match=rf"^line {number}: .*{message}"):
        imported(lines)


def test_what_is_too_large_for_the_new_store_is_refused():
    with pytest.raises(InvalidRequest, match=r"^line 3: in this line or one of 1 before it: .*limit is 10"):
        jsonl.import_(
            Store(MemoryStore(payload_limit_bytes=10)),
            [BEGINNING, b'{"event":["s",1,"made",0,"a long text it is",null]}', END],
        )
