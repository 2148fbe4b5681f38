"""A store as JSON Lines: every value comes back the same, and a bad file is refused by its line."""

import io
import json
from datetime import datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lagging import LaggingMemoryStore
from steady import steady

from interpreters import Store, jsonl, open_store
from interpreters.conformance.strategies import AWKWARD_NAMES, AWKWARD_VALUES, drafts, names, same_value, values
from interpreters.stores.file import FileStore
from interpreters.stores.memory import MemoryStore
from persist_effects import Draft, InvalidRequest, State, Truncated, follow, kv, log, snapshot
from persist_effects.json_values import decode_line, from_json, to_json
from persist_effects.projection import project_all, project_all_resume
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
        page = store.run(log.page_all(after))
        events += [[one.stream, one.seq, one.type, one.at, one.data, one.meta] for one in page.events]
        after, head = page.next, page.head
    last_seqs = [[name, store.run(log.last_seq(name))] for name in store.run(log.streams())]
    entries = [[key, store.run(kv.get(key))] for key in store.run(kv.keys())]
    return [events, last_seqs, entries]


@given(values())
def test_every_value_comes_back_the_same(value):
    line = msgspec.json.encode(to_json(value))
    assert same_value(from_json(msgspec.json.decode(line)), value)


@pytest.mark.parametrize("value", AWKWARD_VALUES, ids=steady)
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


WRONG_FORMS = [
    {"$other": 1},
    {"$int": "1", "a": 1},
    {"$int": str(2**60), "$float": "nan"},
    *({"$bytes": text} for text in ("!", 7, None, "AP8", "AP9=", "AP8=\n", " AP8=", "AP8==", ["AP8="], "é")),
    *({"$int": text} for text in ("x", 3.7, 3, True, None, "", "-", "3", "+9007199254740993", " 9007199254740993")),
    *({"$int": text} for text in ("09007199254740993", "9_007_199_254_740_993", "9007199254740992", "٩" * 17)),
    *({"$int": text} for text in (str(2**64), str(-(2**63) - 1), "1" + "0" * 5000, "-0", 2**60)),
    *({"$float": text} for text in (None, 1.5, "1.5", "NaN", "infinity", "+inf", "3", "1e1", "0x3", "nan:", "1_0.0")),
    *({"$float": text} for text in ("nan:7ff8000000000000", "nan:0000000000000000", "nan:+ff8000000000001", "nan:xyz")),
    *(
        {"$dict": pairs}
        for pairs in (1, None, ["ab"], {"a": 1}, [], [["a"]], [["a", 1, 2]], [["a", 1]], [[1, 2], "cd"])
    ),
    *({"$dict": pairs} for pairs in ([[1, 2], [1, 3]], [[1, 2], [True, 3]], [[{"a": 1}, 2]], [[[1, {"a": 1}], 2]])),
    *({"$datetime": text} for text in (7, "2026", "2026-01-02T03:04:05", "2026-01-02 03:04:05+00:00", "20260102T03Z")),
    3.0,
    -0.0,
    float("nan"),
    float("inf"),
    2**53 + 1,
    "\ud800",
    {"\ud800": 1},
    {1: 2},
    (1, 2),
    {"a": [{"$int": 3.7}]},
]


@pytest.mark.parametrize("plain", WRONG_FORMS, ids=steady)
def test_what_no_export_writes_is_refused(plain):
    with pytest.raises(InvalidRequest):
        from_json(plain)


tags = st.sampled_from(["$bytes", "$int", "$float", "$dict", "$datetime", "$other", "a"])
texts = st.text(max_size=6) | st.sampled_from(["AP8=", "nan", "-0.0", "1e5", str(2**60), "2026-01-02T03:04:05+00:00"])
plains = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tags | st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@given(plains)
def test_any_json_is_the_one_form_of_a_value_or_is_refused(plain):
    try:
        value = from_json(plain)
    except InvalidRequest:
        return
    again = to_json(value)
    assert same_value(again, plain)
    assert msgspec.json.encode(again) == msgspec.json.encode(plain)


@given(st.text(max_size=40) | st.binary(max_size=40) | plains.map(repr))
def test_any_line_is_json_or_is_refused(line):
    try:
        plain = decode_line(line)
    except InvalidRequest:
        return
    assert repr(json.loads(line)) == repr(plain)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a":1,"a":2}', "has the key 'a' twice"),
        ('[{"b":{"a":1,"\\u0061":1}}]', "has the key 'a' twice"),
        ('{"$int":"1", "$int":"9007199254740993"}', r"has the key '\$int' twice"),
        ("[" * 10_000 + "]" * 10_000, "nested too deep"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "nested too deep"),
        ("9" * 5_000, None),
        ('"\\ud800"', None),
        ("NaN", None),
        (b"\xff", None),
    ],
    ids=range(9),
)
def test_a_line_with_a_doubled_key_or_too_deep_is_refused(line, message):
    with pytest.raises(InvalidRequest, match=message):
        from_json(decode_line(line))


def test_a_deep_value_is_refused_in_both_directions():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    for convert in (to_json, from_json):
        with pytest.raises(InvalidRequest, match="nested too deep"):
            convert(deep)


def test_times_and_dicts_with_other_keys_than_str_come_back_though_no_store_takes_them():
    for value in ({(1, 2): b"x", 3: None}, {(1, (2, 3)): 4}, msgspec.convert("2026-01-02T03:04:05.000006Z", datetime)):
        assert from_json(to_json(value)) == value


def test_what_is_no_value_is_refused():
    with pytest.raises(InvalidRequest, match="a tuple is not a value"):
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
    return [{key: part for key, part in line.items() if key not in ("position", "revision", "head")} for line in parsed]


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
        ([b'{"format":"persist-effects","version":1,"head":-1}'], 1, "head is -1"),
        ([b'{"format":"persist-effects","version":' + b"[" * 100_000 + b"]" * 100_000 + b"}"], 1, "nested too deep"),
        ([BEGINNING, b'{"event":["s",1,"made",0,null,null],"position":0}'], 2, "position is 0"),
        ([BEGINNING, b'{"event":["s",1,"made",0,null,null],"position":"1"}'], 2, "position is a str"),
        ([BEGINNING, EVENT, b'{"event":["s",2,"made",0,null,null],"position":1}'], 3, "position is 1"),
        ([BEGINNING, b'{"event":["s",1,"made",0,null,null],"more":1}'], 2, "the line has 'more'"),
        ([BEGINNING, b'{"event":["s",1,"made",0,{"a":1,"a":2},null]}'], 2, "'a' twice"),
        ([BEGINNING, b'{"event":["s",1,"made",0,3.0,null]}'], 2, "the number 3.0"),
        (
            [
                BEGINNING,
                b'{"key":"k","value":1}',
                b'{"key":"k","value":2}',
                b'{"end":{"events":0,"streams":0,"keys":2}}',
            ],
            4,
            "'k' is at 1, expected 0: it has two lines",
        ),
        ([BEGINNING, EVENT, *[b'{"stream":"s","dropped":0,"last_seq":1}'] * 2], 4, "has two lines"),
        (
            [BEGINNING, b'{"event":["s",1,"made",0,null,null]}', b'{"key":"follow/f","value":{"position":1}}'],
            3,
            "do not say theirs",
        ),
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


# What holds positions


def followed(store: Store, name: str, *, skip_truncated: bool):
    """The events that a follower is given from its checkpoint on, and whether it was stopped by what was dropped."""
    seen = []

    def handler(event):
        seen.append((event.stream, event.seq))
        return []

    try:
        store.run(follow(name, "", handler, skip_truncated=skip_truncated))
    except Truncated:
        return seen, True
    return seen, False


streams_and_seqs = st.tuples(st.sampled_from("abc"), st.integers(0, 3))


@given(st.lists(streams_and_seqs, min_size=1, max_size=12), st.lists(streams_and_seqs, max_size=4), st.booleans())
@settings(deadline=None)
def test_every_follower_goes_on_where_it_stood(appends, truncations, is_head_told):
    store = open_store("memory:")
    for stream, count in appends:
        store.run(log.append_many(stream, [Draft("made", None)] * (count + 1)))
    for stream, seq in truncations:
        store.run(log.truncate_through(stream, seq))
    head = store.run(log.page_all(limit=1)).head
    for position in range(head + 1):
        store.run(kv.put(f"follow/{position}", {"position": position}))
    lines = exported(store)
    if not is_head_told:
        lines = lines.replace(f',"head":{head}'.encode(), b"", 1)
        assert b'"head"' not in lines
    first, second = (imported(io.BytesIO(lines)) for _ in range(2))
    for position in range(head + 1):
        name = str(position)
        was_stopped = followed(store, f"{name}", skip_truncated=False)[1]
        store.run(kv.put(f"follow/{position}", {"position": position}))
        unseen, _ = followed(store, name, skip_truncated=True)
        assert followed(first, name, skip_truncated=True)[0] == unseen
        seen, is_stopped = followed(second, name, skip_truncated=False)
        assert is_stopped or seen == unseen
        assert is_stopped or not was_stopped
        # Who had seen all is stopped by nothing.
        assert not (is_head_told and position == head and is_stopped)


def test_a_follower_of_a_store_that_was_never_truncated_is_stopped_by_nothing():
    store = open_store("memory:")
    store.run(log.append_many("a", [Draft("made", n) for n in range(3 * PAGE_SIZE)]))
    store.run(kv.put("follow/half", {"position": PAGE_SIZE + 7, "more": "kept"}))
    again = imported(io.BytesIO(exported(store)))
    assert again.run(kv.get("follow/half")) == {"position": PAGE_SIZE + 7, "more": "kept"}


def truncated_and_exported(**entries) -> bytes:
    store = open_store("memory:")
    store.run(log.append_many("gone", [Draft("made", n) for n in range(3)]))
    store.run(log.append_many("kept", [Draft("made", n) for n in range(3)]))
    store.run(log.append("gone", "made", 3))
    store.run(log.truncate_through("gone", 3))
    for key, value in entries.items():
        store.run(kv.put(key.replace("_", "/"), value))
    return exported(store)


def test_of_a_store_whose_order_lags_all_that_was_acknowledged_is_exported_and_imported():
    with Store(LaggingMemoryStore()) as store, Store(LaggingMemoryStore()) as other:
        for number in range(5):
            store.run(log.append(f"s/{number % 2}", "made", number))
            store.run(kv.put("color", number))
        store.wait_for_order()
        store.run(follow("reader", "", lambda event: []))
        lines = exported(store)
        assert lines.count(b'{"event":') == 5
        jsonl.import_(other, lines.splitlines(keepends=True))
        other.wait_for_order()
        seen = []
        other.run(follow("reader", "", lambda event: seen.append(event) or []))
        assert (seen, len(other.run(log.read_all()))) == ([], 5)


def test_a_checkpoint_keeps_its_place_where_positions_change():
    again = imported(io.BytesIO(truncated_and_exported(follow_f={"position": 5})))
    position = again.run(kv.get("follow/f"))["position"]
    assert position != 5
    assert [event.data for event in again.run(log.page_all(position)).events] == [2, 3]


@pytest.mark.parametrize("value", [7, None, {"position": "x"}, {"position": -1}, {"position": True}, {"at": 5}])
def test_what_is_no_checkpoint_is_left_as_it_is(value):
    again = imported(io.BytesIO(truncated_and_exported(follow_f=value, other={"position": 5})))
    assert again.run(kv.get("follow/f")) == value
    assert again.run(kv.get("other")) == {"position": 5}


def test_a_snapshot_of_all_streams_is_refused_where_its_position_is_another_one_now():
    lines = truncated_and_exported(snapshot_all={"seq": 5, "value": 2, "stream": None})
    with pytest.raises(InvalidRequest, match=r"snapshot/all.* names no stream.*skip=\['snapshot/all'\]"):
        imported(io.BytesIO(lines))
    store = open_store("memory:")
    counts = jsonl.import_(store, io.BytesIO(lines), skip=["snapshot/all"])
    assert (counts.keys, store.run(kv.has("snapshot/all"))) == (1, False)
    with pytest.raises(InvalidRequest, match="skip is a str"):
        jsonl.import_(open_store("memory:"), io.BytesIO(lines), skip="snapshot/all")


def test_snapshots_of_one_stream_and_of_all_streams_where_positions_stay_are_kept():
    again = imported(io.BytesIO(truncated_and_exported(snapshot_one={"seq": 3, "value": 2, "stream": "kept"})))
    assert again.run(snapshot.read("one")) == State(2, 3)
    store = open_store("memory:")
    store.run(log.append_many("a", [Draft("made", n) for n in range(3)]))
    state = store.run(project_all("", lambda count, event: count + 1, 0))
    store.run(snapshot.write("all", state))
    again = imported(io.BytesIO(exported(store)))
    again.run(log.append("a", "made", 3))
    kept = again.run(snapshot.read("all"))
    assert again.run(project_all_resume("", lambda count, event: count + 1, kept)).value == 4


def test_an_event_that_was_appended_once_is_not_appended_again():
    store = open_store("memory:")
    store.run(log.append_many("a", [Draft("made", n) for n in range(3)]))
    store.run(log.truncate_through("a", 2))
    first = store.run(log.append_once("a", "payment", "paid", 5))
    again = imported(io.BytesIO(exported(store)))
    assert again.run(log.append_once("a", "payment", "paid", 5)).seq == first.seq


def test_a_store_that_another_program_writes_to_meanwhile_is_refused():
    store = open_store("memory:")
    source = open_store("memory:")
    source.run(log.append_many("s", [Draft("made", n) for n in range(600)]))

    def lines():
        for number, line in enumerate(io.BytesIO(exported(source))):
            if number == 400:
                store.run(log.append("s", "made", "by another"))
            yield line

    with pytest.raises(InvalidRequest, match=r"'s' is at \d+, expected \d+: .*another program writes"):
        jsonl.import_(store, lines())
