"""Read models in tables: rows once for each event, views that never show half, tables that are gone afterwards."""

import io
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from databases import Database, database

from interpreters import Store, jsonl, open_store
from interpreters.explore import explore_effects
from persist_effects import (
    Group,
    InvalidRequest,
    KvPut,
    ReadModel,
    SqlFailed,
    SqlModel,
    StoreUnavailable,
    follow,
    followers,
    kv,
    log,
)
from persist_effects.following import dropping, tables, whole
from persist_effects.following.checkpoint import Checkpoint
from persist_effects.following.records import head_key, record_in
from persist_effects.machine import perform
from persist_effects.requests import Sql, Transact
from persist_effects.targets import into, rows_at

__all__ = ["database"]

CHILD = Path(__file__).with_name("sql_model_child.py")

FIRST = {
    "orders": "CREATE TABLE {orders} (id TEXT PRIMARY KEY, made BIGINT NOT NULL)",
    "sums": ("CREATE TABLE {sums} (name TEXT PRIMARY KEY, made BIGINT)", "CREATE INDEX {sums}_made ON {sums} (made)"),
}
SECOND = {
    "orders": "CREATE TABLE {orders} (id TEXT PRIMARY KEY, made BIGINT NOT NULL, version BIGINT)",
    "days": "CREATE TABLE {days} (day TEXT PRIMARY KEY)",
}


def count_made(event: Any, model: Any) -> Sequence[Any]:
    """Not the same twice: an event that counts two times shows."""
    add = "ON CONFLICT (id) DO UPDATE SET made = {orders}.made + 1"
    total = "ON CONFLICT (name) DO UPDATE SET made = {sums}.made + 1"
    return [
        model.sql(f"INSERT INTO {{orders}} VALUES (:id, 1) {add}", {"id": event.stream}),
        model.sql(f"INSERT INTO {{sums}} VALUES ('all', 1) {total}"),
    ]


def count_made_again(event: Any, model: Any) -> Sequence[Any]:
    add = "ON CONFLICT (id) DO UPDATE SET made = {orders}.made + 1"
    return [model.sql(f"INSERT INTO {{orders}} VALUES (:id, 1, 2) {add}", {"id": event.stream})]


def append(store: Store, count: int, streams: int = 3) -> None:
    for number in range(count):
        store.run(log.append(f"orders/{number % streams}", "made", number))
    store.wait_for_order()


def model_of(tables: Any) -> SqlModel:
    return SqlModel("orders", tables)


def test_each_event_counts_once_and_others_query_by_the_plain_names(database: Database) -> None:
    with database.open() as store:
        append(store, 7)
        for batch in (2, 5):
            store.run(follow(model_of(FIRST), "orders/", count_made, batch=batch))
        assert sorted(database.rows("SELECT id, made FROM orders")) == [
            ("orders/0", 3),
            ("orders/1", 2),
            ("orders/2", 2),
        ]
        assert database.rows("SELECT made FROM sums") == [(7,)]
        assert database.tables() == ["orders__1", "sums__1"]


def test_a_version_has_tables_of_its_own_and_takes_the_views_once_it_has_caught_up(database: Database) -> None:
    with database.open() as store:
        append(store, 4)
        store.run(follow(model_of(FIRST), "orders/", count_made))
        store.run(follow(model_of(SECOND), "orders/", count_made_again, version=2))
        assert database.rows("SELECT sum(made), max(version) FROM orders") == [(4, 2)]
        assert database.rows("SELECT count(*) FROM days") == [(0,)]
        assert database.tables() == ["days__2", "orders__2"]
        with pytest.raises(Exception, match="sums"):
            database.rows("SELECT * FROM sums")


def test_a_rebuild_needs_no_handle_and_forgetting_takes_everything_away(database: Database) -> None:
    with database.open() as store:
        append(store, 4)
        store.run(follow(model_of(FIRST), "orders/", count_made))
        store.run(followers.rebuild("orders"))
        assert database.tables() == ["orders__1", "orders__2", "sums__1", "sums__2"]
        store.run(follow(model_of(FIRST), "orders/", count_made))
        assert database.rows("SELECT made FROM sums") == [(4,)]
        assert database.tables() == ["orders__2", "sums__2"]
        with pytest.raises(InvalidRequest, match="have it rebuilt instead"):
            store.run(followers.reset("orders"))
        store.run(followers.forget("orders"))
        assert database.tables() == []
        assert store.run(kv.keys()) == []
        store.run(follow(model_of(SECOND), "orders/", count_made_again))
        assert database.rows("SELECT sum(made) FROM orders") == [(4,)]


def test_the_members_of_a_group_write_rows_with_their_partitions(database: Database) -> None:
    with database.open() as store:
        append(store, 12, streams=5)
        group = Group(partitions=4)
        members = [follow(model_of(FIRST), "orders/", count_made, group=group, member=f"m{n}") for n in range(2)]
        store.run_many(members)
        store.run(follow(model_of(FIRST), "orders/", count_made, group=group))
        assert database.rows("SELECT made FROM sums") == [(12,)]
        store.run(follow(model_of(SECOND), "orders/", count_made_again, group=Group(partitions=2), version=2))
        assert database.rows("SELECT sum(made) FROM orders") == [(12,)]
        assert database.tables() == ["days__2", "orders__2"]


# What fails


def fails_for_two(event: Any, model: Any) -> Sequence[Any]:
    wrong = None if event.data == 2 else 1
    return [
        KvPut(f"seen/{event.data}", 1),
        model.sql("INSERT INTO {orders} VALUES (:id, :made)", {"id": f"{event.data}", "made": wrong}),
    ]


def test_a_statement_that_fails_sets_only_its_event_aside(database: Database) -> None:
    with database.open() as store:
        append(store, 5)
        store.run(follow(model_of(FIRST), "orders/", fails_for_two, on_error="set-aside", batch=4))
        assert sorted(database.rows("SELECT id FROM orders")) == [("0",), ("1",), ("3",), ("4",)]
        assert not store.run(kv.has("seen/2"))
        (told,) = store.run(log.read("set-aside/orders"))
        assert told.data["error"].startswith("SqlFailed: SQL 'INSERT INTO orders__1 VALUES (:id, :made)' failed: ")
        store.run(followers.retry("orders"))
        mended = lambda event, model: [model.sql("INSERT INTO {orders} VALUES (:id, 1)", {"id": f"{event.data}"})]  # noqa: E731
        store.run(follow(model_of(FIRST), "orders/", mended, on_error="set-aside"))
        assert len(database.rows("SELECT id FROM orders")) == 5


def test_a_statement_that_fails_stops_the_follower_before_its_event_with_the_databases_words(
    database: Database,
) -> None:
    with database.open() as store:
        append(store, 5)
        with pytest.raises(SqlFailed, match=r"(?i)not.null") as caught:
            store.run(follow(model_of(FIRST), "orders/", fails_for_two))
        assert "event 1 of stream 'orders/2'" in caught.value.__notes__[0]
        assert sorted(database.rows("SELECT id FROM orders")) == [("0",), ("1",)]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "give a dict"),
        ({"Orders": "CREATE TABLE {Orders} (id TEXT)"}, "small letters"),
        ({"orders__1": "CREATE TABLE {orders__1} (id TEXT)"}, "small letters"),
        ({"orders": "CREATE TABLE orders (id TEXT)"}, r"does not name \{orders\}"),
        ({"orders": "CREATE TABLE {orders} (id TEXT); DROP TABLE x"}, "more than one statement"),
        ({"orders": ["CREATE TABLE {orders} (id TEXT)", "CREATE INDEX {others}_i ON {orders} (id)"]}, "is not a table"),
        ({"orders": []}, "give a statement, or a list"),
    ],
)
def test_tables_that_make_no_sense_are_refused_where_the_handle_is_made(given: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        SqlModel("orders", given)


def test_a_handle_of_other_tables_is_refused_unless_it_has_another_version(database: Database) -> None:
    with database.open() as store:
        append(store, 1)
        store.run(follow(model_of(FIRST), "orders/", count_made))
        with pytest.raises(InvalidRequest, match="give version=2, to build it anew"):
            store.run(follow(model_of(SECOND), "orders/", count_made_again))
        with pytest.raises(
            InvalidRequest, match="has a read model in tables, and was asked to follow with a read model"
        ):
            store.run(follow(ReadModel("orders"), "orders/", lambda event, model: []))
        store.run(follow(ReadModel("orders"), "orders/", lambda event, model: [], version=2))
        assert database.tables() == []


def test_a_table_of_somebody_else_is_left_alone_and_nothing_is_begun(database: Database) -> None:
    with database.open() as store:
        append(store, 1)
        with database.connect() as other:
            other.execute("CREATE TABLE sums (a INTEGER)")
        with pytest.raises(SqlFailed, match="exists"):
            store.run(follow(model_of(FIRST), "orders/", count_made))
        assert database.tables() == ["sums"]
        assert store.run(kv.keys()) == []


def test_a_store_without_sql_refuses_to_begin() -> None:
    with open_store("memory:") as store:
        append(store, 1)
        with pytest.raises(InvalidRequest, match="this store has no SQL"):
            store.run(follow(model_of(FIRST), "orders/", count_made))
        assert store.run(kv.keys()) == []


# The swap, seen by others


class _Reader(threading.Thread):
    """Queries by the plain names until it is told to end, and keeps what it saw."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self.seen: set[tuple[Any, ...]] = set()
        self.trouble: Exception | None = None
        self.has_seen = threading.Event()
        self.is_over = False

    def run(self) -> None:
        query = "SELECT count(*), min(a.version), max(a.version), min(b.version), max(b.version) FROM one a, two b"
        try:
            with self._database.connect() as connection:
                while not self.is_over:
                    self.seen.add(tuple(connection.execute(query).fetchone()))
                    self.has_seen.set()
        except Exception as error:
            self.trouble = error
            self.has_seen.set()


def test_readers_never_see_half_of_a_version_while_others_take_its_place(database: Database) -> None:
    made = {name: f"CREATE TABLE {{{name}}} (id BIGINT PRIMARY KEY, version BIGINT)" for name in ("one", "two")}
    model, last = SqlModel("orders", made), 6

    def fill(version: int) -> Any:
        params = lambda event: {"id": event.data, "version": version}  # noqa: E731
        return lambda event, model: [
            model.sql(f"INSERT INTO {{{name}}} VALUES (:id, :version)", params(event)) for name in made
        ]

    with database.open() as store:
        append(store, 5)
        store.run(follow(model, "orders/", fill(1), version=1))
        readers = [_Reader(database) for _ in range(2)]
        for reader in readers:
            reader.start()
            assert reader.has_seen.wait(60)
        for version in range(2, last + 1):
            store.run(follow(model, "orders/", fill(version), version=version, batch=2))
        for reader in readers:
            reader.is_over = True
            reader.join(60)
            assert reader.trouble is None
            assert reader.seen <= {(25, version, version, version, version) for version in range(1, last + 1)}
        assert database.tables() == [f"one__{last}", f"two__{last}"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_reader_in_a_long_transaction_holds_a_version_back_and_nothing_is_lost(database: Database) -> None:
    with database.open(timeout_seconds=0.3) as store:
        append(store, 3)
        store.run(follow(model_of(FIRST), "orders/", count_made))
        with database.connect() as reader, reader.transaction():
            assert reader.execute("SELECT count(*) FROM orders").fetchone() == (3,)
            with pytest.raises(StoreUnavailable, match="try again"):
                store.run(follow(model_of(SECOND), "orders/", count_made_again, version=2))
            assert reader.execute("SELECT count(*) FROM sums").fetchone() == (1,)
        store.run(follow(model_of(SECOND), "orders/", count_made_again, version=2))
        assert database.rows("SELECT sum(made), max(version) FROM orders") == [(3, 2)]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_tables_that_somebody_still_reads_are_dropped_another_time(database: Database) -> None:
    with database.open(timeout_seconds=0.3) as store:
        append(store, 3)
        store.run(follow(model_of(FIRST), "orders/", count_made))
        with database.connect() as reader, reader.transaction():
            reader.execute("SELECT count(*) FROM orders__1")
            store.run(follow(model_of(SECOND), "orders/", count_made_again, version=2))
            assert database.rows("SELECT max(version) FROM orders") == [(2,)]
            assert "orders__1" in database.tables()
        store.run(follow(model_of(SECOND), "orders/", count_made_again, version=2))
        assert database.tables() == ["days__2", "orders__2"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_repeatable_read_that_began_before_a_version_sees_its_view_without_rows(database: Database) -> None:
    """A limit of the database, which the docs tell of: views are new at once, rows are those of before."""
    with database.open() as store:
        append(store, 3)
        store.run(follow(model_of(FIRST), "orders/", count_made))
        with database.connect() as reader, reader.transaction():
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT 1")
            store.run(follow(model_of(SECOND), "orders/", count_made_again, version=2))
            assert reader.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_after_an_import_the_tables_are_made_by_a_rebuild(tmp_path: Path) -> None:
    lines = io.BytesIO()
    with open_store(f"sqlite:{tmp_path}/old.db") as store:
        append(store, 3)
        store.run(follow(model_of(FIRST), "orders/", count_made))
        jsonl.export(store, lines)
    lines.seek(0)
    with open_store(f"sqlite:{tmp_path}/new.db") as store:
        jsonl.import_(store, lines)
        store.run(log.append("orders/9", "made", 9))
        with pytest.raises(SqlFailed, match="no such table"):
            store.run(follow(model_of(FIRST), "orders/", count_made))
        store.run(followers.rebuild("orders"))
        store.run(follow(model_of(FIRST), "orders/", count_made))
        with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
            assert connection.execute("SELECT made FROM sums").fetchone() == (4,)


# Crashes at every request, and mutants


class _Places:
    """A file for each run of an exploration."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = count(1)
        self.newest = root

    def open(self) -> Store:
        self.newest = self._root / f"{next(self._numbers)}.db"
        store = open_store(f"sqlite:{self.newest}?sync=os")
        append(store, 2, streams=1)
        return store

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.newest)) as connection:
            return connection.execute(query).fetchall()


def explored(root: Path, *, restart: bool, depth: int = 1) -> Any:
    """A model that is filled, and built anew by another version: struck at each request, and looked at."""
    places = _Places(root)

    def check(acked: Any, maybe: Any) -> Iterator[Any]:
        record = record_in((yield from kv.entry(head_key("orders"))), "orders")
        if record is None:
            assert not restart
            return
        columns = [row[1] for row in places.rows("PRAGMA table_info(orders)")]
        assert ("version" in columns) == (record.version == 2), "the views show what the record does not say"
        (made,) = places.rows("SELECT coalesce(sum(made), 0) FROM orders")[0]
        page = yield from log.page_all(0, "orders/")
        assert made == sum(event.position <= record.position for event in page.events)
        if restart:
            assert (made, record.version) == (2, 2)
            found = places.rows(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%\\_\\_%' ESCAPE '\\'"
            )
            assert sorted(found) == [("days__2",), ("orders__2",)]

    return explore_effects(both_versions, places.open, check, restart=restart, depth=depth)


def both_versions() -> Iterator[Any]:
    """Two releases, one after the other: once the second has begun, nobody starts the first one any more."""
    head = record_in((yield from kv.entry(head_key("orders"))), "orders")
    if head is None or (head.version == 1 and not head.building):
        yield from follow(model_of(FIRST), "orders/", count_made)
    # Twice, since what could not be dropped is dropped when somebody follows next.
    yield from follow(model_of(SECOND), "orders/", count_made_again, version=2)
    yield from follow(model_of(SECOND), "orders/", count_made_again, version=2)


def _nothing() -> Iterator[Any]:
    yield from kv.has("nothing")


@pytest.mark.exploration
@pytest.mark.parametrize("restart", [True, False])
def test_whatever_request_a_crash_strikes_rows_views_and_record_agree(tmp_path: Path, restart: bool) -> None:
    report = explored(tmp_path, restart=restart)
    assert report.verdict == "passed", str(report)
    assert report.checked > 40


def rows_apart(self: Checkpoint[Any], position: int, writes: Sequence[Any] = (), **changes: Any) -> Any:
    """Rows are written before the checkpoint is, by a transaction of their own."""
    rows = tuple(write for write in writes if isinstance(write, Sql))
    if rows:
        yield from perform(Transact(rows))
    return (yield from ADVANCE(self, position, [write for write in writes if write not in rows], **changes))


def switched_before(name: str, before: int, after: int) -> Any:
    """The views are switched before the record is."""
    writes = yield from SWITCHED(name, before, after)
    yield from perform(Transact(tuple(writes)))
    return []


def dropped_before(name: str, before: int, after: int) -> Any:
    """The old tables are dropped before the views are switched."""
    kept = yield from tables.kept_tables(name, before)
    yield from perform(Transact(tuple(kept.dropped(before))))
    return (yield from SWITCHED(name, before, after))


ADVANCE, SWITCHED = Checkpoint.advance, tables.views_switched


@pytest.mark.exploration
@pytest.mark.parametrize(
    ("mutant", "restart"),
    [
        ((Checkpoint, "advance", rows_apart), True),
        ((whole, "views_switched", switched_before), False),
        ((whole, "views_switched", dropped_before), False),
        ((dropping, "drop_tables", lambda name, generation: _nothing()), True),
    ],
    ids=["rows apart", "views switched before", "tables dropped before", "tables never dropped"],
)
def test_a_follower_that_writes_apart_what_belongs_together_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: tuple[Any, str, Any], restart: bool
) -> None:
    monkeypatch.setattr(*mutant)
    report = explored(tmp_path, restart=restart)
    assert report.verdict == "failed"


# Processes that are killed


def test_events_count_once_whenever_processes_that_follow_are_killed(tmp_path: Path) -> None:
    path, random, events = tmp_path / "app.db", Random(7), 120
    with open_store("sqlite:", path=path) as store:
        append(store, events)
    for version in (1, 1, 2, 2, 3, 3):
        process = subprocess.Popen(
            [sys.executable, str(CHILD), str(path), str(version)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(random.randrange(1, 50)):
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
    done = subprocess.run(
        [sys.executable, str(CHILD), str(path), "3"], stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "done"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT sum(made) FROM orders").fetchone() == (events,)
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'orders%'")
        (name,) = [name for (name,) in found]
    with open_store("sqlite:", path=path) as store:
        registered = store.run(followers.registered("orders"))
        assert registered.version == 3
        assert name == f"orders__{store.run(kv.get(head_key('orders')))['generation']}"


# Into another store


def test_events_of_a_file_store_fill_tables_elsewhere_once(database: Database, tmp_path: Path) -> None:
    with database.open() as reports, open_store(f"file:{tmp_path}/log", effects=rows_at({"reports": reports})) as store:
        append(store, 6)
        store.run(follow(model_of(FIRST), "orders/", count_made, into="reports"))
        append(store, 3)
        store.run(follow(model_of(FIRST), "orders/", count_made, into="reports", batch=2))
        store.run(into("reports", followers.rebuild("orders")))
        store.run_many([follow(model_of(FIRST), "orders/", count_made, into="reports")])
        assert database.rows("SELECT made FROM sums") == [(9,)]
        assert store.run(kv.keys()) == []
        assert store.run(into("reports", followers.lag("orders"))).unseen == 0
        store.run(follow(model_of(SECOND), "orders/", count_made_again, into="reports", version=2, group=Group(2)))
        assert database.rows("SELECT sum(made) FROM orders") == [(9,)]
        assert database.tables() == ["days__3", "orders__3"]
