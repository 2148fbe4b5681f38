"""The store on SQLite: the whole conformance suite with reopening between steps, and what is its own."""

import errno
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from alternating import Alternating
from fewer import FEWER

from interpreters import Store, open_store
from interpreters.blobs.cid import cid_of
from interpreters.conformance import Capabilities, StoreConformance
from interpreters.disk.turns import Turns
from interpreters.stores.sqlite import SqliteStore
from interpreters.stores.sqlite.database import queries
from persist_effects import (
    BlobNotFound,
    CorruptStore,
    InvalidRequest,
    NewerFormat,
    StoreUnavailable,
    UncertainOutcome,
    blob,
    kv,
    log,
    transact,
)
from persist_effects.requests import Answered, Failed, KvHas, KvPut, ReadAll, Wait

KILL_ROUNDS = int(os.environ.get("SQLITE_KILL_ROUNDS", "4"))


class _Temporary(SqliteStore):
    """A store that takes its directory away when it is closed for good."""

    is_kept = False

    def close(self) -> None:
        super().close()
        if not self.is_kept:
            shutil.rmtree(self.path.parent, ignore_errors=True)


class TestSqliteStore(StoreConformance):
    capabilities = Capabilities(reopen=True, sql="sqlite")

    def open_store(self) -> Store:
        return self._open(Path(tempfile.mkdtemp(prefix="persist-effects-")) / "app.db")

    def reopen(self, store: Store) -> Store:
        interpreter = store.interpreter
        assert isinstance(interpreter, _Temporary)
        interpreter.is_kept = True
        store.close()
        return self._open(interpreter.path)

    def _open(self, path: Path) -> Store:
        return Store(_Temporary(path, sync="os"))


class _TwoStores(Alternating):
    """Two stores on one file, as two processes have them."""

    def __init__(self, path: Path) -> None:
        super().__init__([SqliteStore(path, sync="os"), SqliteStore(path, sync="os")])
        self.path = path
        self.is_kept = False

    def close(self) -> None:
        super().close()
        if not self.is_kept:
            shutil.rmtree(self.path.parent, ignore_errors=True)


@pytest.mark.exploration
class TestTwoStoresOnOneFile(TestSqliteStore):
    """What one of them has acknowledged, the other shows at once; who waits at one is woken by the other."""

    machine_settings = FEWER

    def reopen(self, store: Store) -> Store:
        interpreter = store.interpreter
        assert isinstance(interpreter, _TwoStores)
        interpreter.is_kept = True
        store.close()
        return self._open(interpreter.path)

    def _open(self, path: Path) -> Store:
        return Store(_TwoStores(path))


CHILD = Path(__file__).with_name("sqlite_child.py")


def child(path, name, count, *, sync="commit"):
    command = [sys.executable, str(CHILD), str(path), name, str(count), sync]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def events_of(store, stream):
    return [event.data for event in store.run(log.read(stream))]


@pytest.mark.parametrize("url", ["sqlite:app.db", "sqlite:var/app.db", "sqlite:var/lib/app.db", "sqlite:./var/app.db"])
def test_a_relative_path_makes_the_directories_that_are_missing(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    for expected in (1, 2):
        with open_store(url) as store:
            assert store.run(kv.put("color", "red")) == expected
    assert (tmp_path / url.removeprefix("sqlite:")).is_file()


def test_a_url_opens_a_store_that_keeps_what_was_written(tmp_path):
    with open_store(f"sqlite:{tmp_path}/new/app.db?sync=interval&interval_seconds=0.01") as store:
        event = store.run(log.append("orders/1", "placed", {"total": 12}))
        store.run(kv.put("color", "red"))
        store.interpreter.sync()
    with open_store("sqlite:", path=tmp_path / "new" / "app.db") as store:
        assert store.run(log.read("orders/1")) == [event]
        assert store.run(kv.get("color")) == "red"
        assert store.capabilities.processes == "many"
    assert oct((tmp_path / "new" / "app.db").stat().st_mode) == "0o100600"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?mode=x", "mode is 'x': give r to read only, or w"),
        ("?sync=never", "sync is 'never': give one of commit, interval, os"),
        ("?busy_seconds=0", "busy_seconds is a float, 0.0: give a number from 0.001 on"),
        ("?interval_seconds=nan", "interval_seconds is a float, nan: give a number from 0.001 on"),
        ("?payload_limit_bytes=0", "payload_limit_bytes is 0: give an integer from 1 to"),
        ("?busy_seconds=long", "the options 'busy_seconds=long' of a URL cannot be read"),
        ("?color=red", "a store on SQLite has no option 'color': it takes sync"),
        ("?mode=r", "is not a file: give the path of a store that is there"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_made(tmp_path, options, message):
    with pytest.raises(InvalidRequest) as caught:
        open_store(f"sqlite:{tmp_path}/app.db{options}")
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store_of_ours_is_refused_in_words_and_left_as_it_is(tmp_path):
    path = tmp_path / "app.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (number)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match=r"app\.db is a database of something else"):
        open_store("sqlite:", path=path)
    assert path.read_bytes() == before
    path.write_bytes(b"no database at all, but long enough to be looked at as one" * 99)
    with pytest.raises(CorruptStore, match=r"app\.db: file is not a database"):
        open_store("sqlite:", path=path)
    with pytest.raises(InvalidRequest, match="is a directory"):
        open_store("sqlite:", path=tmp_path)


def test_a_store_of_a_newer_release_is_refused(tmp_path):
    path = tmp_path / "app.db"
    open_store("sqlite:", path=path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(NewerFormat, match=r"app\.db"):
        open_store("sqlite:", path=path)


def test_who_opens_to_read_sees_what_others_write_and_is_refused_to_write(tmp_path):
    path = tmp_path / "app.db"
    with open_store("sqlite:", path=path) as writer, open_store(f"sqlite:{path}?mode=r") as reader:
        writer.run(log.append("s", "made", 1))
        assert events_of(reader, "s") == [1]
        with pytest.raises(InvalidRequest, match=r"persist/append: .* opened to read only"):
            reader.run(log.append("s", "made", 2))
        assert [type(outcome) for outcome in reader.interpreter.answer_all([KvPut("a", 1), KvHas("a")])] == [
            Failed,
            Answered,
        ]


def test_two_stores_of_one_process_write_in_turns_and_see_each_others_writes_at_once(tmp_path):
    path = tmp_path / "app.db"
    with open_store("sqlite:", path=path) as one, open_store("sqlite:", path=path) as other:
        for number in range(40):
            store = (one, other)[number % 2]
            assert store.run(log.append_expect("s", number, "made", number)).seq == number + 1
            assert store.run(kv.put_expect("k", number, number)) == number + 1
        assert events_of(one, "s") == events_of(other, "s") == list(range(40))


def test_a_wait_ends_by_another_stores_write(tmp_path):
    path = tmp_path / "app.db"
    with open_store("sqlite:", path=path) as one, open_store("sqlite:", path=path) as other:
        other.run(log.append("else", "made", 0))
        with ThreadPoolExecutor() as pool:
            waits = [
                pool.submit(one.run, log.wait(0, "s/", timeout=60)),
                pool.submit(one.run, kv.wait(0, "k/", timeout=60)),
            ]
            other.run(log.append("s/1", "made", 1))
            other.run(kv.put("k/1", 1))
            assert [each.result(timeout=60) for each in waits] == [2, 1]


def test_processes_that_write_at_once_lose_and_double_nothing(tmp_path):
    path, names, count = tmp_path / "app.db", "abcd", 100
    children = [child(path, name, count) for name in names]
    for process in children:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert list(map(int, said.split())) == list(range(count))
    with open_store("sqlite:", path=path) as store:
        everything = events_of(store, "all")
        for name in names:
            assert events_of(store, f"own/{name}") == list(range(count))
            assert [number for of, number in everything if of == name] == list(range(count))
            assert store.run(kv.get(f"last/{name}")) == count - 1
        positions = [event.position for event in store.run(log.read_all())]
        assert positions == list(range(1, 2 * count * len(names) + 1))


@pytest.mark.exploration
@pytest.mark.parametrize("sync", ["commit", "os"])
def test_of_processes_that_are_killed_in_the_middle_nothing_acknowledged_is_lost(tmp_path, sync):
    path, names = tmp_path / "app.db", "abcd"
    random = Random(1)
    acknowledged = dict.fromkeys(names, -1)
    for _ in range(KILL_ROUNDS):
        children = {name: child(path, name, 10_000, sync=sync) for name in names}
        for name, process in children.items():
            for _ in range(random.randrange(1, 12)):
                acknowledged[name] = int(process.stdout.readline())
            process.kill()
        for name, process in children.items():
            rest = process.stdout.read().splitlines(keepends=True)
            # What it had said before it was killed; a line that was cut is no word.
            acknowledged[name] = max([acknowledged[name], *(int(line) for line in rest if line.endswith("\n"))])
            process.wait()
            process.stdout.close()
        with open_store("sqlite:", path=path) as store:
            everything = events_of(store, "all")
            for name in names:
                own = events_of(store, f"own/{name}")
                # At most the one that was under way came beside those that were acknowledged.
                assert own == list(range(len(own)))
                assert acknowledged[name] + 1 <= len(own) <= acknowledged[name] + 2
                assert [number for of, number in everything if of == name] == own
                assert store.run(kv.get(f"last/{name}")) == own[-1]


def test_a_child_of_a_fork_goes_on_with_connections_of_its_own(tmp_path):
    path = tmp_path / "app.db"
    with open_store("sqlite:", path=path) as store:
        store.run(log.append("s", "made", "before"))
        number = os.fork()
        if not number:
            # Whatever goes wrong, the child must not go on as the tests.
            try:
                store.run(log.append("s", "made", "child"))
                store.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
        store.run(log.append("s", "made", "parent"))
        assert os.waitpid(number, 0)[1] == 0
        store.run(log.append("s", "made", "after"))
        assert sorted(events_of(store, "s")) == ["after", "before", "child", "parent"]
    with open_store("sqlite:", path=path) as store:
        assert len(events_of(store, "s")) == 4


def test_a_writer_that_holds_the_file_is_waited_for_and_then_told_of(tmp_path):
    path = tmp_path / "app.db"
    with open_store(f"sqlite:{path}?busy_seconds=0.01") as store:
        store.run(log.append("s", "made", 1))
        shell = sqlite3.connect(path, isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"another program has held it for more than 0\.01 seconds"):
            store.run(log.append("s", "made", 2))
        assert events_of(store, "s") == [1]
        shell.execute("ROLLBACK")
        shell.close()
        assert store.run(log.append("s", "made", 2)).seq == 2


def test_a_process_that_holds_the_turn_is_waited_for_and_then_told_of(tmp_path):
    path = tmp_path / "app.db"
    with open_store(f"sqlite:{path}?busy_seconds=0.01") as store:
        turns = Turns(path)
        with turns.taken(1) as is_taken:
            assert is_taken
            with pytest.raises(StoreUnavailable, match=r"other processes have written for 0\.01 seconds"):
                store.run(log.append("s", "made", 1))
        turns.close()
        assert store.run(log.append("s", "made", 1)).seq == 1


def test_threads_and_programs_share_transactions(tmp_path):
    with open_store("sqlite:", path=tmp_path / "app.db") as store:
        commits = []
        store.interpreter._group._commit = lambda requests: (
            commits.append(len(requests)) or SqliteStore._commit(store.interpreter, requests)
        )
        store.run_many([log.append(f"s/{number}", "made", number) for number in range(200)])
        assert commits == [200]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: store.run(log.append("t", "made", number)), range(200)))
        assert sorted(events_of(store, "t")) == list(range(200))


def test_the_log_of_writes_is_moved_into_the_file_as_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("interpreters.stores.sqlite.store.CHECKPOINT_BYTES", 100_000)
    path = tmp_path / "app.db"
    with open_store(f"sqlite:{path}?sync=os") as store:
        for number in range(300):
            store.run(log.append("s", "made", [number, "x" * 1000]))
        assert path.stat().st_size > 300_000
        assert (tmp_path / "app.db-wal").stat().st_size < 2_000_000
        assert len(events_of(store, "s")) == 300


def test_commits_that_are_synced_overwrite_room_in_the_log_of_writes_and_do_not_make_it_longer(tmp_path):
    log_of_writes = tmp_path / "app.db-wal"
    with open_store(f"sqlite:{tmp_path}/app.db") as store, open_store(f"sqlite:{tmp_path}/app.db?mode=r") as beside:
        lengths = []
        for number in range(200):
            store.run(log.append("s", "made", number))
            lengths.append(log_of_writes.stat().st_size)
        # At first it grows with each; then it is given room, each time twice as much.
        assert len(set(lengths[:16])) == 16
        assert len(set(lengths[16:])) <= 6
        assert [event.data for event in beside.run(log.read("s"))] == list(range(200))
    with open_store(f"sqlite:{tmp_path}/app.db") as store:
        assert [event.data for event in store.run(log.read("s"))] == list(range(200))


def test_without_room_on_the_disk_the_log_of_writes_grows_as_it_must(tmp_path, monkeypatch):
    def refuse(*given):
        asked.append(given)
        raise OSError(errno.ENOSPC, "No space left on device")

    asked = []
    monkeypatch.setattr("interpreters.stores.sqlite.store.lengthen_file", refuse)
    with open_store(f"sqlite:{tmp_path}/app.db") as store:
        for number in range(100):
            store.run(log.append("s", "made", number))
        assert len(asked) >= 2
        assert len(store.run(log.read("s"))) == 100
    asked.clear()
    with open_store(f"sqlite:{tmp_path}/other.db?sync=os") as store:
        for number in range(100):
            store.run(log.append("s", "made", number))
    assert asked == []


@pytest.mark.parametrize("seed", range(6))
def test_pages_by_prefix_agree_whether_streams_are_merged_or_all_is_looked_at(tmp_path, seed, monkeypatch):
    random = Random(seed)
    with open_store(f"sqlite:{tmp_path}/app.db?sync=os") as store:
        names = [f"{random.choice(['a', 'a/', 'b%', 'b_', 'é'])}{number}" for number in range(30)]
        for _ in range(300):
            store.run(log.append(random.choice(names), random.choice(["placed", "paid"]), None))
        for _ in range(4):
            name = random.choice(names)
            store.run(log.truncate_through(name, random.randrange(1, 9)))
        everything = store.run(log.read_all())
        for _ in range(60):
            prefix = random.choice(["", "a", "a/", "b%", "b_", "é", "é1", random.choice(names)])
            types = random.choice([None, ("paid",), ("placed", "paid")])
            after, limit = random.randrange(320), random.choice([1, 7, 1000])
            backwards = random.choice([True, False])
            places = random.choice([1, 5, 999])
            monkeypatch.setattr("interpreters.stores.sqlite.reading.isqrt", lambda _, places=places: places)
            monkeypatch.setattr("interpreters.stores.sqlite.reading.FEW", random.choice([0, 3, 64]))
            page = store.interpreter.handlers[ReadAll](ReadAll(after, prefix, types, limit, backwards=backwards))
            wanted = [
                event
                for event in everything
                if event.position > after and event.stream.startswith(prefix) and (not types or event.type in types)
            ]
            assert page.events == (wanted[::-1] if backwards else wanted)[:limit]


def test_blobs_stand_beside_the_file(tmp_path):
    path = tmp_path / "app.db"
    with open_store("sqlite:", path=path) as store, open_store(f"sqlite:{path}?mode=r") as reader:
        nothing = cid_of(b"nothing")
        for each in (store, reader):
            assert not each.run(blob.has(nothing))
            with pytest.raises(BlobNotFound):
                each.run(blob.get(nothing))
        assert not (tmp_path / "app.db-blobs").exists()
        with ThreadPoolExecutor(8) as pool:
            refs = list(pool.map(lambda number: store.run(blob.put(b"%d" % (number % 3))), range(24)))
        assert [reader.run(blob.get(ref)) for ref in refs[:3]] == [b"0", b"1", b"2"]
        with pytest.raises(InvalidRequest, match="opened to read only"):
            reader.run(blob.put(b"more"))
    with open_store("sqlite:", path=path) as store:
        assert store.run(blob.get(refs[1])) == b"1"


# What goes wrong


class _Failing:
    """A connection of which a statement fails."""

    def __init__(self, connection, statement, code):
        self._connection, self._statement, self._code = connection, statement, code

    def execute(self, statement, *parameters):
        if statement == self._statement:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name):
        return getattr(self._connection, name)


def test_a_commit_that_fails_on_its_way_to_the_disk_is_uncertain_and_ends_all_writing(tmp_path):
    path = tmp_path / "app.db"
    with open_store("sqlite:", path=path) as store:
        store.run(log.append("s", "made", 1))
        healthy = store.interpreter._writer
        store.interpreter._writer = _Failing(healthy, "COMMIT", sqlite3.SQLITE_IOERR_FSYNC)
        with pytest.raises(UncertainOutcome, match=r"a commit failed: disk I/O error: whether it is on the disk"):
            store.run(log.append("s", "made", 2))
        store.interpreter._writer = healthy
        with pytest.raises(StoreUnavailable, match="reading goes on; to write, close the store and open it again"):
            store.run(log.append("s", "made", 2))
        assert events_of(store, "s") == [1]
    with open_store("sqlite:", path=path) as store:
        assert store.run(log.append("s", "made", 2)).seq == 2


def test_what_goes_wrong_after_a_commit_does_not_make_it_one_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("interpreters.stores.sqlite.store.CHECKPOINT_BYTES", 1)
    with open_store("sqlite:", path=tmp_path / "app.db") as store:
        interpreter = store.interpreter
        store.run(log.append("s", "made", 1))
        healthy = interpreter._writer
        interpreter._writer = _Failing(healthy, "PRAGMA wal_checkpoint(PASSIVE)", sqlite3.SQLITE_IOERR)
        assert store.run(log.append("s", "made", 2)).seq == 2
        interpreter._writer = healthy
        told = []
        end_watch = interpreter.watch(Wait(2, "s", 60), lambda: told.append(True))

        def fail():
            raise StoreUnavailable("no more files")

        monkeypatch.setattr(interpreter, "_tell", fail)
        assert store.run(log.append("s", "made", 3)).seq == 3
        end_watch()


def test_a_full_disk_is_told_of_and_nothing_is_written(tmp_path):
    with open_store("sqlite:", path=tmp_path / "app.db") as store:
        store.run(log.append("s", "made", 1))
        connection = store.interpreter._writer
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreUnavailable, match=r"is full: make room on the disk, then try again"):
            store.run(log.append("s", "made", "x" * 100_000))
        assert events_of(store, "s") == [1]
        connection.execute("PRAGMA max_page_count = 1000000")
        assert store.run(log.append("s", "made", "x" * 100_000)).seq == 2


def test_a_failed_sync_is_told_and_ends_all_writing(tmp_path, monkeypatch):
    with open_store(f"sqlite:{tmp_path}/app.db?sync=os") as store:
        store.run(log.append("s", "made", 1))

        def fail(path):
            raise OSError(errno.EIO, "Input/output error", path)

        monkeypatch.setattr("interpreters.stores.sqlite.store.sync_file", fail)
        with pytest.raises(UncertainOutcome, match=r"a sync failed: .*Input/output error"):
            store.interpreter.sync()
        monkeypatch.undo()
        with pytest.raises(StoreUnavailable, match="a sync failed"):
            store.run(log.append("s", "made", 2))
        assert events_of(store, "s") == [1]


def test_an_interrupt_in_the_middle_of_a_transaction_leaves_nothing_of_it_and_nobody_waits_for_it(tmp_path):
    path = tmp_path / "app.db"
    times = iter([1, KeyboardInterrupt, 3])

    def clock():
        now = next(times)
        if now is KeyboardInterrupt:
            raise KeyboardInterrupt
        return now

    with open_store("sqlite:", path=path, clock=clock) as store, open_store("sqlite:", path=path) as other:
        store.run(log.append("s", "made", 1))
        with pytest.raises(KeyboardInterrupt):
            store.run(log.append("s", "made", 2))
        assert other.run(log.append("s", "made", "other")).seq == 2
        assert store.run(log.append("s", "made", 3)).seq == 3
        assert events_of(store, "s") == [1, "other", 3]


def test_names_that_would_be_special_in_sql_are_plain_names(tmp_path):
    names = ["%", "_", "\\", "'; DROP TABLE events; --", '"', "a%b", "a_b", "axb"]
    with open_store("sqlite:", path=tmp_path / "app.db") as store:
        for name in names:
            store.run(log.append(name, name, name))
            store.run(kv.put(name, name))
        assert store.run(log.streams()) == store.run(kv.keys()) == sorted(names)
        assert store.run(kv.keys("a_")) == ["a_b"]
        assert [event.data for event in store.run(log.read_all(0, "a%"))] == ["a%b"]
        assert [event.data for event in store.run(log.read_all(0, "", ["%"]))] == ["%"]


QUERIES_BY_AN_INDEX = {
    name: text for name, text in queries().texts.items() if not name.startswith(("add_", "append_", "put_"))
}


@pytest.mark.parametrize("name", sorted(QUERIES_BY_AN_INDEX))
def test_no_statement_walks_over_a_whole_table_by_itself(tmp_path, name):
    with open_store("sqlite:", path=tmp_path / "app.db"), closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        statement = QUERIES_BY_AN_INDEX[name]
        count = statement.count("?")
        values = [0] * count if count else defaultdict(int)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        walked = [row[3] for row in plan if row[3].startswith("SCAN") and "USING" not in row[3]]
        # One row of meta; what a limit ends; a subquery's own rows; the values of a list; the few newest deletions.
        allowed = ("meta", "json_each", "(subquery", "CONSTANT ROW", "(join", *WALKED.get(name, ()))
        assert [step for step in walked if not step.removeprefix("SCAN ").startswith(allowed)] == []


@pytest.mark.parametrize("query", ["keys", "entries", "names"])
def test_the_last_page_of_names_under_a_prefix_takes_no_more_steps_than_the_first(tmp_path, query):
    with (
        open_store("sqlite:", path=tmp_path / "app.db") as store,
        closing(sqlite3.connect(tmp_path / "app.db")) as connection,
    ):
        for first in range(0, 1_000, 100):
            numbers = range(first, first + 100)
            store.run(transact(*(KvPut(f"k/{number:04}", number) for number in numbers)))
            store.run_many(log.append(f"k/{number:04}", "made", number) for number in numbers)

        def steps(after):
            taken = itertools.count()
            connection.set_progress_handler(lambda: next(taken) and None, 1)
            bounds = {"first": "k/", "end": "k0", "after": after, "limit": 10}
            rows = connection.execute(queries().texts[query], bounds).fetchall()
            connection.set_progress_handler(None, 0)
            return next(taken), [row[0] for row in rows]

        (first, names), (last, last_names) = steps(""), steps("k/0989")
    assert names == [f"k/{number:04}" for number in range(10)]
    assert last_names == [f"k/{number:04}" for number in range(990, 1_000)]
    assert last <= first + 10


WALKED = {
    "newest_deletion_under": ("deletions",),
    "newest_deletions": ("deletions",),
    "forget_deletions": ("deletions",),
}
