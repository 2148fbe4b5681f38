"""The file store: the whole conformance suite with reopening between steps, and what is its own."""

import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from fewer import FEWER
from file_disks import EngineStore, MemoryDisk
from typer.testing import CliRunner

from interpreters import Store, open_store
from interpreters.cli import app
from interpreters.conformance import Capabilities, StoreConformance
from interpreters.disk.real import RealDisk
from interpreters.disk.requests import Read as ReadBytes
from interpreters.disk.requests import Sync, Write
from interpreters.stores.file import FileReader, FileStore
from interpreters.stores.file.beside_writer import ReaderEngine
from interpreters.stores.file.manifest import SYNCED
from interpreters.stores.file.upkeep import operations
from persist_effects import (
    CorruptStore,
    Draft,
    InvalidRequest,
    StoreClosed,
    StoreUnavailable,
    Truncated,
    kv,
    log,
    perform,
    run,
    transact,
)
from persist_effects.projection import project_all
from persist_effects.requests import Append, KvPut, LastSeq, Read, TruncateThrough, Wait

SMALLEST_SEGMENT_BYTES = 4096
"""So that every run rolls over again and again."""


class _Temporary(FileStore):
    """A store that takes its directory away when it is closed for good."""

    is_kept = False
    goes_down = False

    def close(self) -> None:
        if self.goes_down:
            # As when the process is killed: the system closes the files, and nothing else is done.
            self._let_go()
        else:
            super().close()
        if not self.is_kept:
            shutil.rmtree(self.path)


class TestFileStore(StoreConformance):
    capabilities = Capabilities(reopen=True)

    def open_store(self) -> Store:
        return self._open(Path(tempfile.mkdtemp(prefix="persist-effects-")))

    def reopen(self, store: Store) -> Store:
        interpreter = store.interpreter
        assert isinstance(interpreter, _Temporary)
        self.before_closing(interpreter)
        interpreter.is_kept = True
        store.close()
        return self._open(interpreter.path)

    def before_closing(self, interpreter: _Temporary) -> None:
        """What a kind of reopening does first."""

    def _open(self, path: Path) -> Store:
        return Store(_Temporary(path, sync="os", segment_bytes=SMALLEST_SEGMENT_BYTES))


@pytest.mark.exploration
class TestCompactedFileStore(TestFileStore):
    """Each reopening comes after a compaction, so that what is read next comes from the copies."""

    machine_settings = FEWER

    def before_closing(self, interpreter: _Temporary) -> None:
        interpreter.compact()


@pytest.mark.exploration
class TestFileStoreThatGoesDown(TestFileStore):
    """Each reopening comes after a process that just ended, so that it is a recovery."""

    machine_settings = FEWER

    def before_closing(self, interpreter: _Temporary) -> None:
        interpreter.goes_down = True


def open_file(path: Path, options: str = "") -> Store:
    return open_store(f"file:{path}{options}")


def test_a_url_opens_a_store_that_keeps_what_was_written(tmp_path):
    with open_file(tmp_path / "orders") as store:
        event = store.run(log.append("orders/1", "placed", {"total": 12}))
    with open_file(tmp_path / "orders", "?sync=os&segment_bytes=8192") as store:
        assert store.run(log.read("orders/1")) == [event]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?mode=x", "mode is 'x': give r to read only, or w"),
        ("?sync=never", "sync is 'never': give one of commit, interval, os"),
        ("?segment_bytes=1", "segment_bytes is 1: give an integer from 4096 to 4294967296"),
        ("?segment_bytes=many", "the options 'segment_bytes=many' of a URL cannot be read"),
        ("?sync=interval&interval_seconds=nan", "interval_seconds is a float, nan: give a number from 0.001 on"),
        ("?sync=interval&interval_seconds=-1", "interval_seconds is a float, -1.0: give a number from 0.001 on"),
        ("?payload_limit_bytes=0", "payload_limit_bytes is 0: give an integer from 1 to"),
        ("?cache_bytes=-1", "cache_bytes is -1: give an integer from 0 to"),
        ("?nonsense", "the options 'nonsense' of a URL cannot be read"),
        ("?color=red", "a file store has no option 'color': it takes mode, sync"),
        ("?mode=r&sync=os", "option 'sync' is for writing, and mode=r was given"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_made(tmp_path, options, message):
    with pytest.raises(InvalidRequest) as caught:
        open_file(tmp_path / "orders", options)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["memory:", "file:"])
@pytest.mark.parametrize("now", [1.5, None, 2**70, True])
def test_a_clock_that_gives_no_time_is_refused_before_anything_is_written(tmp_path, url, now):
    url += str(tmp_path) if url == "file:" else ""
    with open_store(url, clock=lambda: now) as store:
        with pytest.raises(InvalidRequest, match=r"the time that the store's clock gives .* is "):
            store.run(log.append("s", "made", 1))
        assert store.run(log.read("s")) == []


def test_a_store_whose_effects_or_blobs_are_refused_is_not_opened(tmp_path):
    for wrong in ({"effects": [1]}, {"blobs": 5}):
        with pytest.raises(InvalidRequest):
            open_store(f"file:{tmp_path}", **wrong)
    open_file(tmp_path).close()


def test_what_others_put_beside_the_segments_stays_there(tmp_path):
    for _ in range(2):
        open_file(tmp_path).close()
        (tmp_path / "log" / "00000001.seg.before").write_text("mine")
    assert (tmp_path / "log" / "00000001.seg.before").read_text() == "mine"


def test_a_reader_of_what_is_no_store_is_refused(tmp_path):
    for path, message in ((tmp_path / "none", "is not a directory"), (tmp_path, "there is no store in this directory")):
        with pytest.raises(InvalidRequest, match=message):
            open_file(path, "?mode=r")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_follows_a_writer_through_commits_and_roll_overs(tmp_path):
    with open_file(tmp_path, "?segment_bytes=4096") as writer, open_file(tmp_path, "?mode=r") as reader:
        for number in range(200):
            event = writer.run(log.append(f"s/{number % 3}", "made", {"n": number}))
            writer.run(kv.put("last", number))
            assert reader.run(log.last_seq(event.stream)) == event.seq
            assert reader.run(log.read_back(event.stream, 1)) == [event]
            assert reader.run(kv.entry("last")) == writer.run(kv.entry("last"))
        assert reader.run(log.page_all(limit=1000)) == writer.run(log.page_all(limit=1000))


def test_a_position_whose_event_was_dropped_is_not_given_again_after_a_compaction(tmp_path):
    with open_store(f"file:{tmp_path}") as store:
        store.run(log.append("orders/1", "placed", 1))
        dropped = store.run(log.append("orders/2", "placed", 2))
        store.run(log.truncate_through("orders/2", 1))
        store.interpreter.compact()
    with open_store(f"file:{tmp_path}") as store:
        assert store.run(log.append("orders/1", "placed", 3)).position == dropped.position + 1


def test_a_reader_follows_a_compaction(tmp_path):
    with open_file(tmp_path, "?segment_bytes=4096") as writer, open_file(tmp_path, "?mode=r") as reader:
        for number in range(200):
            writer.run(log.append("s", "made", number))
            writer.run(kv.put(f"k{number % 5}", number))
        writer.run(log.truncate_through("s", 190))
        before = reader.run(log.read("s")), [reader.run(kv.entry(f"k{n}")) for n in range(5)]
        compacted = writer.interpreter.compact()
        assert compacted.bytes_after < compacted.bytes_before / 4
        assert (reader.run(log.read("s")), [reader.run(kv.entry(f"k{n}")) for n in range(5)]) == before
        assert reader.run(log.last_seq("s")) == 200


def test_a_reader_is_not_shown_what_a_crash_could_take_back(tmp_path):
    with open_file(tmp_path, "?sync=os") as writer, open_file(tmp_path, "?mode=r") as reader:
        writer.run(log.append("s", "made", 1))
        assert reader.run(log.last_seq("s")) == 0
        writer.interpreter.sync()
        assert reader.run(log.last_seq("s")) == 1


def test_a_reader_writes_nothing_and_says_so(tmp_path):
    with open_file(tmp_path) as writer, open_file(tmp_path, "?mode=r") as reader:
        before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
        for program in (log.append("s", "made", 1), kv.put("k", 1), kv.delete("k"), log.truncate_through("s", 1)):
            with pytest.raises(InvalidRequest, match="was opened to read only: open it without mode=r to write"):
                reader.run(program)
        assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
        assert writer.run(log.streams()) == []


def test_a_reader_waits_for_what_another_process_appends(tmp_path):
    with open_file(tmp_path) as writer, open_file(tmp_path, "?mode=r") as reader:
        answers = []
        waiter = threading.Thread(target=lambda: answers.append(reader.run(perform(Wait(0, "orders/", 60.0)))))
        waiter.start()
        writer.run(log.append("other", "made", 1))
        writer.run(log.append("orders/1", "placed", 1))
        waiter.join()
        assert answers == [2]
        assert reader.run(perform(Wait(2, "", 0.001))) == 2


def test_a_reader_outlives_its_writer(tmp_path):
    with open_file(tmp_path) as writer:
        writer.run(log.append("s", "made", 1))
        reader = open_file(tmp_path, "?mode=r")
    with reader:
        assert reader.run(log.last_seq("s")) == 1
        with open_file(tmp_path) as writer:
            writer.run(log.append("s", "made", 2))
            assert reader.run(log.last_seq("s")) == 2


def test_writers_and_readers_go_on_while_it_compacts(tmp_path):
    with open_file(tmp_path, "?sync=os&segment_bytes=65536") as store:
        for number in range(4_000):
            store.run(log.append(f"s/{number % 50}", "made", number))
            store.run(kv.put(f"k{number % 100}", number))
        for stream in range(50):
            store.run(log.truncate_through(f"s/{stream}", 70))
        done = threading.Event()
        errors = []

        def write(name):
            try:
                number = 0
                while not done.is_set() or number < 50:
                    store.run(log.append(name, "made", number))
                    store.run(kv.put(f"k{number % 100}", [name, number]))
                    assert store.run(log.read_back(name, 1))[0].data == number
                    assert len(store.run(log.read("s/7"))) == 10
                    number += 1
            except BaseException as error:
                errors.append(error)

        writers = [threading.Thread(target=write, args=(f"w/{number}",)) for number in range(3)]
        for writer in writers:
            writer.start()
        results = [store.interpreter.compact() for _ in range(3)]
        done.set()
        for writer in writers:
            writer.join()
        assert errors == []
        assert results[0].bytes_after < results[0].bytes_before / 2
        before = store.run(log.page_all(limit=10_000))
        keys = {key: store.run(kv.entry(key)) for key in store.run(kv.keys())}
    with open_file(tmp_path) as store:
        assert store.run(log.page_all(limit=10_000)) == before
        assert {key: store.run(kv.entry(key)) for key in store.run(kv.keys())} == keys


def test_one_sync_is_shared_by_all_that_wait(tmp_path):
    with open_file(tmp_path) as store:
        syncs = []
        row = store.interpreter._disk_rows[Sync]
        store.interpreter._disk_rows[Sync] = lambda request: (syncs.append(request.path), row(request))[1]
        store.run_many(log.append(f"s/{number}", "made", number) for number in range(1000))
        assert len(syncs) == 1
        store.run(log.append("s", "made", 1))
        assert len(syncs) == 2


def test_a_truncation_in_the_commit_of_its_events_is_whole(tmp_path):
    with open_file(tmp_path) as store:
        programs = [log.append("s", "made", 1), log.append_many("s", [Draft("made", 2), Draft("made", 3)])]
        assert store.run_many([*programs, log.truncate_through("s", 2)])[2] == 2
        writes = [Append("t", (Draft("made", 1), Draft("made", 2))), TruncateThrough("t", 1)]
        assert store.run(transact(*writes))[1] == 1
    with open_file(tmp_path) as store:
        assert [event.data for event in store.run(log.read("s")) + store.run(log.read("t"))] == [3, 2]
        with pytest.raises(Truncated):
            store.run(project_all("t", lambda count, event: count + 1, 0))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_tasks_of_a_loop_share_a_sync(tmp_path, backend):
    async def main(store):
        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(store.arun, log.append(f"s/{number % 10}", "made", number))

    with open_file(tmp_path) as store:
        syncs = []
        row = store.interpreter._disk_rows[Sync]
        store.interpreter._disk_rows[Sync] = lambda request: (syncs.append(request.path), row(request))[1]
        anyio.run(main, store, backend=backend)
        assert len(syncs) <= 2
        assert sum(store.run(log.last_seq(f"s/{number}")) for number in range(10)) == 1000


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_task_leaves_no_half_done_write_and_cleans_up(tmp_path, backend):
    def holding():
        yield from kv.put("lock", "held")
        try:
            yield from perform(Wait(0, "never/", 60.0))
        finally:
            yield from kv.delete("lock")

    async def main(store):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.arun, holding())
            assert await store.arun(perform(Wait(0, "go/", 60.0))) == 1
            tasks.cancel_scope.cancel()

    with open_file(tmp_path) as store:
        appender = threading.Thread(target=lambda: store.run(log.append("go/1", "went", None)))
        appender.start()
        anyio.run(main, store, backend=backend)
        appender.join()
        assert store.run(kv.has("lock")) is False


def test_an_interrupted_commit_is_settled_by_opening_anew(tmp_path):
    def interrupted(request):
        rows[Sync] = row
        raise KeyboardInterrupt

    store = open_file(tmp_path)
    store.run(log.append("s", "made", 1))
    rows = store.interpreter._disk_rows
    row, rows[Sync] = rows[Sync], interrupted
    with pytest.raises(KeyboardInterrupt):
        store.run(log.append("s", "made", 2))
    assert store.run(log.last_seq("s")) == 1
    with pytest.raises(StoreUnavailable, match=r"a commit was interrupted by KeyboardInterrupt.*: reading goes on"):
        store.run(log.append("s", "made", 3))
    store.close()
    with open_file(tmp_path) as store:
        assert store.run(log.last_seq("s")) in (1, 2)
        assert store.run(log.append("s", "made", 4)).seq in (2, 3)


def test_threads_that_wait_with_an_interrupted_leader_learn_that_nothing_is_known(tmp_path):
    reached, go_on = threading.Event(), threading.Event()

    def interrupted(request):
        reached.set()
        go_on.wait()
        raise KeyboardInterrupt

    with open_file(tmp_path) as store:
        rows = store.interpreter._disk_rows
        row, rows[Write] = rows[Write], interrupted
        outcomes = []

        def append():
            try:
                store.run(log.append("s", "made", 1))
            except BaseException as error:
                outcomes.append(type(error))

        leader = threading.Thread(target=append)
        leader.start()
        reached.wait()
        followers = [threading.Thread(target=append) for _ in range(3)]
        for follower in followers:
            follower.start()
        go_on.set()
        for thread in (leader, *followers):
            thread.join()
        rows[Write] = row
        assert sorted(kind.__name__ for kind in outcomes) == ["KeyboardInterrupt", *["StoreUnavailable"] * 3]


def test_an_idle_store_proves_its_last_commit_so_that_damage_to_it_is_found(tmp_path):
    def go_down_with_a_damaged_end(name, *, is_idle):
        store = open_file(tmp_path / name)
        event = store.run(log.append("s", "made", "the last commit"))
        if is_idle:
            store.interpreter.mark_when_idle()
            store.interpreter.mark_when_idle()
        store.interpreter._let_go()
        (segment,) = (tmp_path / name / "log").glob("*.seg")
        data = segment.read_bytes()
        segment.write_bytes(data.replace(b"the last commit", b"the lost commit"))
        return event

    go_down_with_a_damaged_end("idle", is_idle=True)
    with pytest.raises(CorruptStore, match=r"log/00000001.seg: offset 80: no valid frame, though"):
        open_file(tmp_path / "idle")
    go_down_with_a_damaged_end("busy", is_idle=False)
    with open_file(tmp_path / "busy") as store:
        # The one case in which damage cannot be told from a torn write that was never acknowledged.
        assert store.run(log.last_seq("s")) == 0


def test_a_store_whose_directory_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(StoreUnavailable, match="cannot be made"):
        open_file(tmp_path / "file" / "store")


def test_a_reader_that_opens_while_segments_come_and_go_finds_what_is_in_force(tmp_path):
    with open_file(tmp_path, "?segment_bytes=4096") as writer:
        for number in range(100):
            writer.run(log.append("s", "made", number))
        done = threading.Event()

        def compact():
            while not done.is_set():
                writer.interpreter.compact()

        compacting = threading.Thread(target=compact)
        compacting.start()
        try:
            for _ in range(30):
                with open_file(tmp_path, "?mode=r") as reader:
                    assert reader.run(log.last_seq("s")) == 100
                    assert len(reader.run(log.read("s"))) == 100
        finally:
            done.set()
            compacting.join()


READER_ASKS = {
    "opens": lambda engine: engine.open(),
    "looks what is new": lambda engine: engine.refresh(),
    "reads": lambda engine: engine.answer(Read("s")),
    "asks for a number": lambda engine: engine.answer(LastSeq("s")),
}


def shown_to_a_reader(asks, struck=()):
    """What a reader knows after it has looked, while compactions come before some of its requests, by their numbers.

    Returns:
        How many requests it made of its disk; the newest position that it knows then; and the newest before it looked.
    """
    disk, reader, requests = MemoryDisk(), ReaderEngine(), count()
    writer = EngineStore(disk)

    def compact_and_write():
        run(writer.engine.compact(), disk.handlers)
        writer.commit([Append("s", (Draft("made", "x" * 500),) * 3), KvPut("color", "red")])

    def answer(request):
        if next(requests) in struck:
            compact_and_write()
        return disk.handlers[type(request)](request)

    compact_and_write()
    if asks != "opens":
        run(reader.open(), disk.handlers)
        compact_and_write()
    before = writer.engine.index.newest(Wait(0, ""))
    run(READER_ASKS[asks](reader), dict.fromkeys(disk.handlers, answer))
    made, shown = next(requests), reader.index.newest(Wait(0, ""))
    page = run(reader.answer(Read("s")), disk.handlers)
    assert len(page.events) == page.head == writer.handlers[LastSeq](LastSeq("s"))
    return made, shown, before


@pytest.mark.parametrize("asks", READER_ASKS)
def test_before_whichever_request_of_a_reader_segments_go_it_is_shown_all_that_was_acknowledged_before(asks):
    quiet, *_ = shown_to_a_reader(asks)
    assert quiet > 10
    for first in range(quiet):
        for struck in ((first,), (first, first + 3)):
            _, shown, before = shown_to_a_reader(asks, struck)
            assert shown >= before, struck


WRITER_DOES = {
    "opens after it went down": lambda _, disk: EngineStore(disk, seed=1),
    "closes": lambda engine, disk: run(engine.close(), disk.handlers),
    "compacts": lambda engine, disk: run(engine.compact(), disk.handlers),
    "begins a segment": lambda engine, disk: run(engine.roll_over(), disk.handlers),
    "proves its last commits": lambda engine, disk: run(engine.mark(), disk.handlers),
}


@pytest.mark.parametrize("does", WRITER_DOES)
def test_after_whichever_request_of_a_writer_its_readers_are_shown_all_that_was_acknowledged(does):
    disk, reader, requests = MemoryDisk(), ReaderEngine(), []
    writer = EngineStore(disk)
    for number in (1, 2, 3):
        writer.commit([Append("s", (Draft("made", number),))])
    run(reader.open(), disk.handlers)

    def answer(request):
        answered = disk.handlers[type(request)](request)
        requests.append(request)
        for looking in (reader, ReaderEngine()):
            run(looking.refresh(), disk.handlers)
            assert looking.index.newest(Wait(0, "")) == 3, requests
        return answered

    WRITER_DOES[does](writer.engine, SimpleNamespace(handlers=dict.fromkeys(disk.handlers, answer)))
    assert requests


def test_how_far_a_writer_has_synced_is_read_again_where_it_is_just_being_written():
    disk, torn = MemoryDisk(), [b"\1" * 20]
    EngineStore(disk).commit([Append("s", (Draft("made", 1),))])

    def answer(request):
        is_torn = torn and isinstance(request, ReadBytes) and request.path == SYNCED
        return torn.pop() if is_torn else disk.handlers[type(request)](request)

    reader = ReaderEngine()
    run(reader.open(), dict.fromkeys(disk.handlers, answer))
    assert torn == []
    assert reader.index.newest(Wait(0, "")) == 1


def test_where_a_crash_has_left_no_word_of_how_far_a_writer_has_synced_readers_go_by_what_is_proved():
    disk = MemoryDisk()
    writer = EngineStore(disk)
    writer.commit([Append("s", (Draft("made", 1),))])
    writer.commit([Append("s", (Draft("made", 2),))])
    run(perform(Write(SYNCED, 0, b"\1" * 20)), disk.handlers)
    reader = ReaderEngine()
    run(reader.open(), disk.handlers)
    assert reader.index.newest(Wait(0, "")) == 1


def test_others_write_while_a_compaction_removes_the_old_segments(tmp_path, monkeypatch):
    remove = RealDisk._remove
    removed = []

    def while_somebody_writes(disk, request):
        if request.path.endswith(".seg"):
            thread = threading.Thread(target=store.run, args=(log.append("s", "made", request.path),), daemon=True)
            thread.start()
            thread.join(60)
            assert not thread.is_alive()
            removed.append(request.path)
        remove(disk, request)

    monkeypatch.setattr(RealDisk, "_remove", while_somebody_writes)
    with open_file(tmp_path) as store:
        store.run(log.append("s", "made", "before"))
        store.interpreter.compact()
        assert removed
        assert [event.data for event in store.run(log.read("s"))] == ["before", *removed]


def test_the_threads_of_a_reading_process_see_each_event_once_and_in_order(tmp_path):
    def read_along(reader):
        seen = []
        while len(seen) < 300:
            events = reader.run(log.read("s", after=len(seen)))
            seen += [event.seq for event in events]
            assert seen == list(range(1, len(seen) + 1))

    with open_file(tmp_path) as writer:
        writer.run(log.append("s", "made", 0))
        with open_store(f"file:{tmp_path}?mode=r") as reader, ThreadPoolExecutor(5) as threads:
            readers = [threads.submit(read_along, reader) for _ in range(4)]
            for number in range(299):
                writer.run(log.append("s", "made", number))
            writer.run(kv.put("last", True))
            for one in readers:
                one.result(60.0)


def test_a_reader_that_is_closed_while_others_read_says_so(tmp_path):
    def read(reader):
        while True:
            reader.run(log.read("s"))

    with open_file(tmp_path) as writer:
        writer.run(log.append("s", "made", 1))
        reader = open_store(f"file:{tmp_path}?mode=r")
        with ThreadPoolExecutor(3) as threads:
            reading = [threads.submit(read, reader) for _ in range(3)]
            reader.close()
            for one in reading:
                with pytest.raises(StoreClosed, match="closed: open it again"):
                    one.result(60.0)


def test_a_store_may_be_closed_by_several_threads_at_once(tmp_path):
    store = FileStore(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(store.close) for _ in range(4)]:
            one.result(60.0)
    open_file(tmp_path).close()


def test_a_store_whose_closing_was_interrupted_can_be_closed_again(tmp_path):
    def interrupted():
        file_store.close = close
        raise KeyboardInterrupt

    file_store = FileStore(tmp_path)
    close, file_store.close = file_store.close, interrupted
    store = Store(file_store)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    store.close()
    open_file(tmp_path).close()


# URLs


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def made_in(place):
    return sorted(str(path.parent.relative_to(place)) for path in place.rglob("CURRENT"))


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("file:var/x", "var/x"),
        ("file:var/x/", "var/x"),
        ("file:./~x", "~x"),
        ("file:my orders", "my orders"),
        ("file:x#y", "x#y"),
        ("file:x%20y", "x%20y"),
        ("file:x:y", "x:y"),
        ("file:ö", "ö"),
        ("file:.", "."),
        ("file:x?", "x"),
        ("file:?path=what%3F", "what?"),
        ("file:?path=a%20b+c%2B%23%25&sync=os", "a b c+#%"),
        ("file:?path=a%0A", "a\n"),
    ],
)
def test_a_url_names_the_directory_that_a_user_expects(here, url, made):
    with open_store(url) as store:
        store.run(kv.put("color", "red"))
    assert made_in(here) == [made]
    with open_store(url if "?" in url and not url.endswith("?") else f"{url.rstrip('?')}?mode=r") as store:
        assert store.run(kv.get("color")) == "red"
    done = CliRunner().invoke(app, ["verify", url.partition("&")[0].rstrip("?")])
    assert done.exit_code == 0, done.output


def test_a_url_with_three_slashes_names_a_directory_from_the_root(here):
    open_store(f"file://{here}/x").close()
    assert made_in(here) == ["x"]


@pytest.mark.parametrize("path", ["what?", Path("what?"), "a&b=c", " x "])
def test_a_path_given_as_a_keyword_is_taken_as_it_is(here, path):
    open_store("file:", path=path, sync="os").close()
    assert made_in(here) == [str(path)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:~", "'~' begins with '~', which only a shell replaces: write '/home/ada', or './~' for"),
        (
            "file:~/x",
            "'~/x' begins with '~', which only a shell replaces: write '/home/ada/x', or './~/x' for a directory",
        ),
        ("file:~nobody-here/x", "write '/home/NAME/x', or './~nobody-here/x'"),
        ("file:?path=~/x", "write '/home/ada/x'"),
        ("file:~/x?mode=r", "write '/home/ada/x'"),
        ("file:what?.d", "write it as an option, percent-encoded: 'file:?path=…'"),
        ("file:what?/x=1", "a file store has no option '/x'"),
        ("file:what?/x=1", "write it as an option, percent-encoded: 'file:?path=…'"),
        ("file://var/x", "write 'file:var/x' for a path below this directory, or 'file:/var/x'"),
        ("file://localhost/x", "names a host, and there is none"),
        ("file:///a%20b", "write 'file:/a b', or for a name with the % in it 'file:/a%20b'"),
        ("file: x", "white space at an end"),
        ("file:x\n", "white space at an end"),
        ("file:x\ny", "a character that is not printable"),
        ("file:x\0", "it has a zero character"),
        ("file:?path=x%00", "it has a zero character"),
        ("FILE:x", "'FILE:x' names no store: a store's URL starts with one of memory:, file:"),
        ("file:..", "the directory holds 'here' and no store"),
        ("file:x?sync=", "sync is ''"),
        ("file:x?mode=", "mode is ''"),
        ("file:x?segment_bytes=", "the options 'segment_bytes=' of a URL cannot be read"),
        ("file:x?segment_bytes=" + "9" * 5000, "of a URL cannot be read"),
        ("file:x?sync=os&sync=commit", "the option 'sync' is given twice in the URL 'file:x?sync=os&sync=commit'"),
        ("file:x?path=y", "has two paths"),
        ("file:x?sync=os#y", "sync is 'os#y'"),
        ("file:", "'file:' names no directory"),
        ("file:?sync=os", "'file:' names no directory"),
        ("file:?path=", "'file:' names no directory"),
        (
            "var/x",
            "file:, sqlite:, postgresql:, nats:, unix:, tcp:, spawn:, crash:. For a directory, write 'file:var/x'",
        ),
        ("", "names no store"),
        (Path("x"), "such as f'file:{path}', or open_store('file:', path=path)"),
    ],
)
def test_a_url_that_a_user_would_not_mean_is_refused_with_what_to_write(here, monkeypatch, url, message):
    monkeypatch.setenv("HOME", "/home/ada")
    with pytest.raises(InvalidRequest) as caught:
        open_store(url)
    assert message in str(caught.value)
    assert made_in(here.parent) == []


def test_an_option_in_the_url_and_as_a_keyword_is_refused(here):
    for options in ({"sync": "os"}, {"path": "y"}):
        with pytest.raises(InvalidRequest, match="and as a keyword: leave one of them out"):
            open_store("file:x?sync=commit", **options)
    with pytest.raises(InvalidRequest, match="path is an int, 5: give a str or a Path"):
        open_store("file:", path=5)
    assert made_in(here) == []


def test_a_home_is_refused_at_each_door_of_a_store(here, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    open_store("file:x").close()
    doors = [
        lambda: FileStore("~/x"),
        lambda: FileReader(Path("~/x")),
        lambda: operations.verify("~/x"),
        lambda: operations.backup("x", "~/y"),
        lambda: operations.salvage("x", "~/y"),
    ]
    for door in doors:
        with pytest.raises(InvalidRequest, match=r"write '/home/ada/[xy]'"):
            door()
    for command in (["verify", "file:~/x"], ["tail", "file:~/x"], ["backup", "file:x", "~/y"]):
        assert CliRunner().invoke(app, command).exit_code == 2
    assert made_in(here) == ["x"]
