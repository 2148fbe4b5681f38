"""A store that is opened knows of streams and keys by the tables of its index files, and takes in what is asked for."""

import itertools
import random
from contextlib import closing
from itertools import pairwise

import pytest
from file_disks import EngineStore, MemoryDisk, contents

from interpreters.stores.file import FileStore
from interpreters.stores.file.places import StreamIndex
from interpreters.stores.file.tables import (
    IndexedStream,
    KeyTable,
    StreamTable,
    Tables,
    key_columns,
    stream_columns,
)
from interpreters.threads.gates import OwnedLock
from persist_effects import CorruptStore, Draft, InvalidRequest
from persist_effects.requests import (
    Append,
    Begin,
    ExpectRevision,
    ExpectSeq,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    Read,
    ReadAll,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)

NAMES = [f"{first}/{number}" for first in ("a", "é", "\U0001f4be", "a/b") for number in range(12)]


def filled(seed, commits=400):
    """A closed store of many segments, in which streams and keys come, are truncated and deleted, and come again."""
    choose = random.Random(seed)
    on = MemoryDisk()
    store = EngineStore(on, seed=seed)
    for number in range(commits):
        (write,) = choose.choices(WRITES, (30, 10, 20, 10, 1, 10, 1))
        answer(store, write(choose, choose.choice(NAMES), number))
    store.close()
    return on


WRITES = (
    lambda choose, name, number: Append(name, (Draft("made", number),)),
    lambda choose, name, number: Append(name, tuple(Draft("made", [number, part]) for part in range(5))),
    lambda choose, name, number: KvPut(name, [number] * choose.randrange(20)),
    lambda choose, name, number: KvDelete(name),
    lambda choose, name, number: TruncateThrough(name, choose.randrange(1, 40)),
    lambda choose, name, number: Transact((Append(name, (Draft("made", "x" * 90),)), KvPut(name + "!", number))),
    lambda choose, name, number: Begin(f"begun/{number}", choose.randrange(1, 9)),
)

OF_ONE_NAME = (
    lambda choose, name, number: Read(name, choose.randrange(9), None, choose.choice([1, 100])),
    lambda choose, name, number: LastSeq(name),
    lambda choose, name, number: KvGet(name),
    lambda choose, name, number: KvHas(name),
    lambda choose, name, number: Append(name, (Draft("made", number),), choose.choice([None, 0, 3])),
    lambda choose, name, number: KvPut(name, number, choose.choice([None, 0, 3])),
    lambda choose, name, number: Transact((KvDelete(name),), (ExpectSeq(name, 0), ExpectRevision(name + "!", 0))),
    *WRITES,
)


def answer(store, request):
    try:
        return store.handlers[type(request)](request)
    except InvalidRequest as error:
        return str(error)


@pytest.mark.parametrize("seed", range(40))
def test_a_store_that_has_taken_in_nothing_yet_answers_as_one_that_has_taken_in_all(seed, monkeypatch):
    on = filled(seed)
    if seed % 3:
        # Else the small segments of a test are one table.
        monkeypatch.setattr("interpreters.stores.file.segments.to_gather", lambda lengths: None)
    lazy, whole = EngineStore(MemoryDisk(on.image()), seed=1), EngineStore(MemoryDisk(on.image()), seed=1)
    assert whole.engine.index.stream_count > 0
    assert whole.engine.index.key_names.page("", "", 1)
    choose = random.Random(seed)

    def ask_both():
        for number in range(choose.choice([0, 3, 30, 300])):
            name = choose.choice([*NAMES, "never/1", "never/2"])
            request = choose.choice(OF_ONE_NAME)(choose, name, number)
            assert answer(lazy, request) == answer(whole, request), request

    ask_both()
    if seed % 2:
        compactions = []
        for store in (lazy, whole):
            store._drive(store.engine.roll_over())
            compactions.append(store.engine.compaction())
            store._drive(compactions[-1].copy())
        ask_both()
        for store, compaction in zip((lazy, whole), compactions, strict=True):
            store._drive(compaction.publish())
            store._drive(compaction.remove_old())
        ask_both()
    elif seed % 4:
        for store in (lazy, whole):
            store.close()
        lazy, whole = EngineStore(lazy.disk, seed=2), EngineStore(whole.disk, seed=2)
    assert contents(lazy.handlers) == contents(whole.handlers)


def test_opening_takes_in_no_stream_and_no_key_and_a_question_about_one_takes_in_two_more():
    on = MemoryDisk()
    store = EngineStore(on)
    for number in range(100):
        store.commit([Append(f"s/{number:02}", (Draft("made", number),)), KvPut(f"k/{number:02}", number)])
    store.close()
    store = EngineStore(on)
    index = store.engine.index
    assert (len(index._streams), len(index._spots)) == (0, 0)
    assert store.handlers[LastSeq](LastSeq("s/50")) == 1
    assert store.handlers[KvGet](KvGet("k/50")).value == 50
    assert sorted(index._streams) == ["s/00", "s/01", "s/50"]
    assert sorted(index._spots) == ["k/00", "k/01", "k/50"]
    for _ in range(100):
        store.handlers[LastSeq](LastSeq("never"))
        store.handlers[KvHas](KvHas("never"))
    assert index._stream_tables.are_taken_in
    assert index._key_tables.are_taken_in
    assert (len(index._streams), len(index._spots)) == (100, 100)


def test_a_page_of_all_streams_does_not_take_in_those_that_it_does_not_show():
    on = MemoryDisk()
    store = EngineStore(on)
    for number in range(1000):
        store.commit([Append(f"s/{number:03}", (Draft("made", number),))])
    store.close()
    store = EngineStore(on)
    page = store.handlers[ReadAll](ReadAll(500, limit=10))
    assert [event.data for event in page.events] == list(range(500, 510))
    assert len(store.engine.index._streams) < 50


def test_a_key_that_was_deleted_before_it_was_taken_in_stays_deleted():
    on = MemoryDisk()
    store = EngineStore(on)
    for number in range(20):
        store.commit([KvPut(f"k/{number:02}", number)])
    store.close()
    store = EngineStore(on)
    store.commit([KvDelete("k/15")])
    assert store.handlers[KvGet](KvGet("k/15")) is None
    assert "k/15" not in store.engine.index.key_names.page("", "", 100)
    assert not store.handlers[KvHas](KvHas("k/15"))


QUESTIONS_OF_ALL = (
    Streams("s/"),
    KvKeys("k/"),
    KvEntries("k/"),
    ReadAll(0, "s/"),
    Wait(0, "s/", 0.0),
    KvWait(0, "k/", 0.0),
)


@pytest.mark.parametrize("request_of_all", QUESTIONS_OF_ALL, ids=lambda request: request.op)
@pytest.mark.parametrize("segments", ["one", "several"])
def test_a_question_of_all_names_takes_them_in_a_slice_at_a_time_and_lets_others_in_between(
    request_of_all, segments, tmp_path, monkeypatch
):
    monkeypatch.setattr("interpreters.stores.file.tables.SLICE", 10)
    if segments == "several":
        monkeypatch.setattr("interpreters.stores.file.segments.to_gather", lambda lengths: None)
    with closing(FileStore(tmp_path, sync="os", segment_bytes=4096)) as store:
        for number in range(95):
            write = Transact((Append(f"s/{number:02}", (Draft("made", "x" * 90),)), KvPut(f"k/{number:02}", number)))
            store.handlers[Transact](write)
        expected = store.handlers[type(request_of_all)](request_of_all)
    with closing(FileStore(tmp_path, sync="os")) as store:
        index = store._engine.index
        known: list[int] = []

        class Watched(OwnedLock):
            def __exit__(self, *error):
                known.append(len(index._streams) + len(index._spots))
                return super().__exit__(*error)

        store._lock = Watched()
        assert store.handlers[type(request_of_all)](request_of_all) == expected
        assert 9 <= len(known) < 20
        assert all(after - before <= 10 for before, after in pairwise([0, *known]))
        assert known[-1] == 95


@pytest.mark.parametrize("stopped_at", range(1, 25))
def test_a_listing_that_is_interrupted_anywhere_begins_anew(stopped_at, monkeypatch):
    monkeypatch.setattr("interpreters.stores.file.tables.SLICE", 5)
    first = {f"{number:02}": number + 1 for number in range(20)}
    second = {name: spot + 100 if spot % 3 else 0 for name, spot in first.items()}
    tables, members = tables_of([first, second])
    counted = itertools.count(1)
    added = KeyTable.added

    def stop(*arguments):
        if next(counted) == stopped_at:
            raise KeyboardInterrupt
        return added(*arguments)

    monkeypatch.setattr(KeyTable, "added", stop)
    try:
        tables.take_all()
    except KeyboardInterrupt:
        assert not tables.are_taken_in
    tables.take_all()
    assert members == {name: spot for name, spot in second.items() if spot}


# Tables by themselves


def tables_of(rows_by_segment):
    members = {}
    tables = Tables(members)
    for rows in rows_by_segment:
        tables.add(KeyTable(key_columns(sorted(rows.items()))))
    return tables, members


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_asked_put_and_deleted_in_whatever_order_the_newest_of_each_name_is_found(seed, monkeypatch):
    choose = random.Random(seed)
    monkeypatch.setattr("interpreters.stores.file.tables.SLICE", choose.choice([1, 2, 7, 1000]))
    names = [f"{number}" for number in range(choose.choice([1, 5, 60]))]
    segments = [
        {name: choose.choice([0, choose.randrange(1, 1 << 90)]) for name in names if choose.random() < 0.6}
        for _ in range(choose.randrange(5))
    ]
    tables, members = tables_of(segments)
    wanted = {}
    for rows in segments:
        wanted |= rows
    for number in range(choose.randrange(80)):
        name = choose.choice([*names, "never"])
        kind = choose.randrange(10)
        if kind < 6:
            found = members.get(name)
            if found is None and not tables.are_taken_in:
                found = tables.take(name)
            assert found == (wanted.get(name) or None)
        elif kind < 8:
            members[name] = wanted[name] = number + 1
        elif number % 3 == 0:
            assert tables.take_slice() is not tables.are_taken_in
        else:
            tables.note_gone(name)
            members.pop(name, None)
            wanted[name] = 0
    tables.take_all()
    assert tables.are_taken_in
    assert members == {name: spot for name, spot in wanted.items() if spot}


def stream_of(name, count, first_seq=1, **changes):
    refs = b"".join((1 << 32 | number).to_bytes(8, "little") for number in range(count))
    stream = IndexedStream(name, refs, None, first_seq, first_seq + count - 1, 100)
    return stream._replace(**changes)


def test_what_a_segment_says_of_a_stream_that_is_a_member_already_is_added_to_it():
    members = {"b": StreamIndex("b")}
    members["b"].drop(5, 50)
    tables = Tables(members)
    names = ["a", "b", *(f"c{number:02}" for number in range(40))]
    for first_seq in (1, 4):
        tables.add(StreamTable(1, stream_columns(stream_of(name, 3, first_seq) for name in names)))
    assert (members["b"].last_seq, len(members["b"].refs)) == (6, 6)
    assert list(members) == ["b"]
    tables.take_all()
    assert {name: stream.last_seq for name, stream in members.items()} == dict.fromkeys(names, 6)


def test_rows_come_back_as_they_were_written():
    rows = [
        stream_of("a", 1),
        stream_of("b", 0, last_seq=7),
        stream_of("é", 3, firsts=b"".join(seq.to_bytes(8, "little") for seq in (1, 4, 9)), last_seq=11),
        stream_of("\U0001f4be", 2, 4),
    ]
    assert list(StreamTable(1, stream_columns(rows)).rows()) == rows
    spots = [("a", 3 << 64 | 1 << 32 | 10), ("b", 0), ("é", 9 << 64 | 2 << 32 | 20)]
    assert list(KeyTable(key_columns(spots)).rows()) == spots


@pytest.mark.parametrize("column", ["names", "name_ends", "refs", "ref_ends", "first_seqs", "last_seqs"])
def test_columns_that_do_not_fit_each_other_are_no_table(column):
    columns = stream_columns([stream_of("a", 1), stream_of("b", 2)])
    fields = {name: getattr(columns, name) for name in columns.__struct_fields__}
    with pytest.raises(ValueError, match=r"names that do not end|columns of|bytes of"):
        StreamTable(1, type(columns)(**{**fields, column: fields[column][:-1]}))
    with pytest.raises(ValueError, match=r"names that do not end|columns of|bytes of"):
        StreamTable(1, type(columns)(**{**fields, column: fields[column][:-8]}))


def test_a_row_that_cannot_be_names_the_index_file():
    columns = stream_columns([stream_of("a", 2, firsts=bytes(8)), stream_of("b", 2, last_seq=1 << 63)])
    table = StreamTable(7, columns)
    for row, name in enumerate("ab"):
        with pytest.raises(CorruptStore, match=rf"log/00000007\.idx: expected stream '{name}'.*remove"):
            table.added(None, name, row)


def test_names_are_found_by_code_points_whatever_their_characters_take():
    names = sorted(["", "a", "a/", "a0", "é", "ﬀ", "\ud7ff", "\U0001f4be", "\U0010ffff"])
    table = KeyTable(key_columns((name, number + 1) for number, name in enumerate(names)))
    assert [table.find(name) for name in names] == list(range(len(names)))
    assert [table.find(name) for name in ("0", "a/b", "\U0010fffe", "\U0010ffff0")] == [None] * 4
