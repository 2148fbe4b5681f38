"""SQL statements in transactions, where the databases differ: what they let a program touch, and how they are lost."""

from pathlib import Path
from typing import Any

import pytest
from databases import Database, database
from served_stores import serving
from server_processes import ServerProcess

from interpreters import Store, open_store
from interpreters.conformance.facts.sql import SqlFacts
from interpreters.migrating.mirroring import mirror
from interpreters.stores.served import RemoteStore
from interpreters.stores.sqlite.database import queries
from interpreters.stores.sqlite.foreign import Foreign
from persist_effects import (
    Conflict,
    InvalidRequest,
    KvPut,
    Sql,
    SqlFailed,
    StoreUnavailable,
    TooLarge,
    kv,
    perform,
    transact,
)

__all__ = ["database"]

ORDERS = Sql("CREATE TABLE orders (id TEXT PRIMARY KEY, total BIGINT)")


def insert(number: int, total: Any = 1) -> Sql:
    return Sql("INSERT INTO orders VALUES (:id, :total)", {"id": f"o-{number}", "total": total})


def only(dialect: str) -> Any:
    return pytest.mark.parametrize("database", [dialect], indirect=True)


def test_rows_are_there_for_others_once_the_transaction_is(database: Database) -> None:
    with database.open() as store:
        store.run(perform(ORDERS))
        assert store.run(transact(insert(1), KvPut("a", 1)))[0] == 1
        assert database.rows("SELECT * FROM orders") == [("o-1", 1)]


def test_a_constraint_that_is_broken_is_an_error_with_the_databases_words_and_no_conflict(database: Database) -> None:
    with database.open() as store:
        store.run(transact(ORDERS, insert(1)))
        with pytest.raises(SqlFailed, match=r"(?i)INSERT INTO orders VALUES .* failed: .*unique constraint"):
            store.run(transact(KvPut("a", 1), insert(1)))
        conflict = store.run(transact(KvPut("a", 1, expected=3), insert(1)))
        assert isinstance(conflict, Conflict)
        assert not store.run(kv.has("a"))


def test_a_statement_over_the_stores_limit_is_refused_before_anything_is_written(database: Database) -> None:
    with database.open(payload_limit_bytes=1_000) as store:
        store.run(perform(ORDERS))
        with pytest.raises(TooLarge, match="an SQL statement with its parameters takes"):
            store.run(transact(KvPut("a", 1), insert(1, "x" * 1_000)))
        assert not store.run(kv.has("a"))


def test_a_store_that_was_opened_to_read_takes_no_statement(database: Database) -> None:
    database.open().close()
    with database.open(mode="r") as store, pytest.raises(InvalidRequest, match="opened to read only"):
        store.run(perform(ORDERS))


def test_many_programs_share_commits_and_each_statement_counts_once(database: Database) -> None:
    with database.open() as store:
        store.run(transact(ORDERS, insert(0, 0)))
        add = Sql("UPDATE orders SET total = total + :n", {"n": 1})
        programs = [
            transact(add, KvPut(f"k/{number}", 1)) if number % 3 else perform(insert(0)) for number in range(30)
        ]
        outcomes = store.run_many(programs, return_exceptions=True)
        assert [type(one) for one in outcomes] == [list if number % 3 else SqlFailed for number in range(30)]
        assert database.rows("SELECT total FROM orders") == [(20,)]


# What a statement may touch on SQLite


@only("sqlite")
@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("INSERT INTO orders SELECT key, revision FROM entries", "it touches 'entries'"),
        (
            "WITH x AS (SELECT type FROM events) DELETE FROM orders WHERE id IN (SELECT type FROM x)",
            "it touches 'events'",
        ),
        ("UPDATE main.meta SET position = 0", "it touches 'meta'"),
        ('DROP INDEX "events_of_streams"', "it touches 'events_of_streams'"),
        ("CREATE INDEX mine ON entries (value)", "it touches 'entries'"),
        ("ALTER TABLE entries RENAME TO mine", "it touches 'entries'"),
        ("DELETE FROM seen_entries", "it touches 'entries'"),
        ("INSERT INTO watched VALUES (1)", "it touches 'entries'"),
        ("CREATE VIRTUAL TABLE pages USING sqlite_dbpage", "it makes a table by the module 'sqlite_dbpage'"),
        ("UPDATE sqlite_master SET sql = ''", "may not be modified"),
        ("DELETE FROM orders WHERE id = @id", "Incorrect number of bindings|no value|did not supply"),
    ],
)
def test_sqlite_is_asked_what_a_statement_touches_whatever_way_it_takes(
    database: Database, statement: str, why: str
) -> None:
    with database.open() as store:
        store.run(perform(ORDERS))
        with database.connect() as other:
            other.execute("CREATE TABLE watched (id INTEGER)")
            other.execute("CREATE TRIGGER t AFTER INSERT ON watched BEGIN DELETE FROM entries; END")
            other.execute("CREATE VIEW seen_entries AS SELECT * FROM entries")
            other.execute("CREATE TRIGGER d INSTEAD OF DELETE ON seen_entries BEGIN DELETE FROM entries; END")
        store.run(kv.put("a", 1))
        with pytest.raises(SqlFailed, match=why):
            store.run(transact(KvPut("b", 1), Sql(statement)))
        assert store.run(kv.keys()) == ["a"]


@only("sqlite")
def test_a_statement_with_the_text_of_one_of_the_stores_own_is_refused_all_the_same(database: Database) -> None:
    with database.open() as store:
        store.run(kv.put("a", 1))
        store.run(kv.delete("a"))
        own = queries().delete_entry.replace("?", "'a'")
        with pytest.raises(SqlFailed, match="it touches 'entries'"):
            store.run(perform(Sql(own)))
        with pytest.raises(SqlFailed, match="it touches"):
            store.run(perform(Sql(queries().drop_forgotten)))


@only("sqlite")
def test_a_table_whose_constraint_undoes_the_transaction_undoes_only_its_own_programs_writes(
    database: Database,
) -> None:
    with database.open() as store:
        store.run(perform(ORDERS))
        with database.connect() as other:
            other.execute("CREATE TABLE harsh (id INTEGER UNIQUE ON CONFLICT ROLLBACK)")
        harsh = Sql("INSERT INTO harsh VALUES (1)")
        store.run(perform(harsh))
        outcomes = store.run_many(
            [perform(insert(1)), transact(KvPut("lost", 1), harsh), transact(KvPut("kept", 1), insert(2))],
            return_exceptions=True,
        )
        assert [type(one) for one in outcomes] == [int, SqlFailed, list]
        assert database.rows("SELECT id FROM orders") == [("o-1",), ("o-2",)]
        assert store.run(kv.keys()) == ["kept"]
        assert store.run(kv.put("after", 1)) > 0


# What a statement may touch on PostgreSQL


@only("postgresql")
def test_postgresql_refuses_what_names_the_stores_schema_or_reaches_past_the_transaction(database: Database) -> None:
    with database.open() as store:
        schema = store.interpreter._server.schema  # type: ignore[attr-defined]
        store.run(transact(ORDERS, KvPut("a", 1)))
        for statement, why in (
            (f"DELETE FROM {schema}.entries", "it names .*, the store's own schema"),
            (f'DELETE FROM "{schema}"."entries"', "it names .*, the store's own schema"),
            (f"INSERT INTO orders SELECT set_config('search_path', '{schema}', true), 1", "it names 'set_config'"),
            ("DELETE FROM entries", "does not exist"),
        ):
            with pytest.raises(InvalidRequest, match=why):
                store.run(transact(KvPut("b", 1), Sql(statement)))
        assert store.run(kv.keys()) == ["a"]


@only("postgresql")
def test_a_store_whose_schema_is_in_the_search_path_takes_no_sql(database: Database) -> None:
    with database.open() as store:
        schema = store.interpreter._server.schema  # type: ignore[attr-defined]
    inside = database.url.partition("options=")[0] + f"options=-c%20search_path%3D{schema}"
    with open_store(inside) as store, pytest.raises(InvalidRequest, match="let the store have a schema of its own"):
        store.run(transact(KvPut("a", 1), ORDERS))


@only("postgresql")
def test_a_constraint_that_is_checked_at_the_end_fails_the_program_and_nobody_else(database: Database) -> None:
    with database.open() as store:
        deferred = "CREATE TABLE orders (id TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED, total BIGINT)"
        store.run(perform(Sql(deferred)))
        outcomes = store.run_many(
            [transact(KvPut("a", 1), insert(1)), transact(KvPut("b", 1), insert(2), insert(2)), perform(insert(3))],
            return_exceptions=True,
        )
        assert [type(one) for one in outcomes] == [list, SqlFailed, int]
        assert store.run(kv.keys()) == ["a"]


@only("postgresql")
def test_a_connection_that_is_lost_within_a_statement_leaves_nothing_and_says_so(database: Database) -> None:
    with database.open() as store:
        store.run(perform(ORDERS))
        with database.connect() as other:
            other.execute(
                "CREATE FUNCTION lose() RETURNS bigint LANGUAGE sql "
                "AS 'SELECT pg_terminate_backend(pg_backend_pid())::int'"
            )
        with pytest.raises(StoreUnavailable, match="the connection was lost, and nothing was written"):
            store.run(transact(KvPut("a", 1), insert(1), Sql("INSERT INTO orders VALUES ('o-2', lose())")))
        assert store.run(kv.keys()) == []
        assert database.rows("SELECT * FROM orders") == []
        assert store.run(transact(KvPut("a", 1), insert(1)))[1] == 1


@only("postgresql")
def test_statements_are_planned_as_on_a_connection_of_ones_own(database: Database) -> None:
    with database.open() as store:
        store.run(perform(Sql("CREATE TABLE settings (name TEXT, said TEXT)")))
        asked = "INSERT INTO settings SELECT name, setting FROM pg_settings WHERE name IN (:one, :other)"
        store.run(perform(Sql(asked, {"one": "enable_seqscan", "other": "enable_hashjoin"})))
        assert sorted(database.rows("SELECT * FROM settings")) == [("enable_hashjoin", "on"), ("enable_seqscan", "on")]


# Served


def test_a_server_takes_sql_only_where_it_was_told_to(database: Database, tmp_path: Path) -> None:
    with database.open() as inner:
        with serving(inner, tmp_path / "closed") as url, open_store(url) as store:
            assert store.capabilities.sql == ""
            with pytest.raises(InvalidRequest, match="this server takes no SQL: start it with --sql"):
                store.run(transact(KvPut("a", 1), ORDERS))
            assert store.run(kv.keys()) == []
        with serving(inner, tmp_path / "open", takes_sql=True) as url, open_store(url) as store:
            assert store.capabilities.sql == database.dialect
            store.run(transact(KvPut("a", 1), ORDERS, insert(1)))
            with pytest.raises(SqlFailed, match="failed: ") as caught:
                store.run(perform(insert(1)))
            assert caught.value.statement == insert(1).statement
        assert database.rows("SELECT * FROM orders") == [("o-1", 1)]


def test_a_process_for_one_client_takes_sql_since_that_could_open_the_store_itself(database: Database) -> None:
    with Store(RemoteStore.spawn(database.url)) as store:
        assert store.capabilities.sql == database.dialect
        store.run(transact(ORDERS, insert(1)))
        assert database.rows("SELECT * FROM orders") == [("o-1", 1)]


def test_the_command_line_serves_sql_where_it_is_asked_to(tmp_path: Path) -> None:
    server = ServerProcess(f"sqlite:{tmp_path}/app.db", f"unix:{tmp_path}/sock", "--sql")
    try:
        with open_store(server.url) as store:
            assert store.run(transact(ORDERS, insert(1))) == [0, 1]
    finally:
        server.close()


def test_a_mirror_takes_no_sql_and_carries_out_what_comes_with_it(tmp_path: Path) -> None:
    old, new = (open_store(f"sqlite:{tmp_path}/{name}.db").interpreter for name in ("old", "new"))
    with Store(mirror(old, new, in_background=False)) as store:
        assert store.capabilities.sql == ""
        refused, put = store.run_many([transact(KvPut("a", 1), ORDERS), kv.put("b", 1)], return_exceptions=True)
        assert "a mirror takes no SQL" in str(refused)
        assert put > 0
        assert store.run(kv.keys()) == ["b"]


# Mutants


def test_a_store_that_leaves_the_savepoint_out_is_caught(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_savepoint(self: Foreign, program: int, statements: Any) -> dict[int, int]:
        return {index: self._execute(statement) for index, statement in statements.items()}

    monkeypatch.setattr(Foreign, "carry_out", without_savepoint)
    with open_store(f"sqlite:{tmp_path}/app.db") as store, pytest.raises(AssertionError):
        SqlFacts().test_a_statement_that_fails_fails_for_nobody_else(store)
