# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""SQL statements in a store's transactions, where the store claims to take them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from interpreters.conformance.facts.base import Facts, ask, error_of, needs
from interpreters.runtime.store import Store
from persist_effects.errors import InvalidRequest, SqlFailed, UnhandledEffect
from persist_effects.event import Draft
from persist_effects.machine import perform
from persist_effects.requests import (
    Append,
    Conflict,
    Entry,
    KvGet,
    KvKeys,
    KvPut,
    LastSeq,
    NewId,
    Request,
    Sql,
    Transact,
    TruncateThrough,
)


class _Table:
    """A table of a fact: its name is nobody else's, since several stores may have their tables in one place."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name

    def sql(self, statement: str, **params: object) -> Sql:
        """A statement, in which ``{t}`` stands for the table."""
        return Sql(statement.replace("{t}", self.name), dict(params))

    def insert(self, number: int, text: object = None) -> Sql:
        return self.sql("INSERT INTO {t} (id, note) VALUES (:id, :note)", id=number, note=text)

    def has(self, number: int) -> bool:
        return bool(ask(self._store, self.sql("UPDATE {t} SET id = id WHERE id = :id", id=number)))

    def holds(self, number: int, text: str) -> bool:
        statement = self.sql("DELETE FROM {t} WHERE id = :id AND note = :note", id=number, note=text)
        return bool(ask(self._store, statement))


def _of(statement: str, name: str) -> Sql:
    return Sql(statement.replace("{t}", name))


@contextmanager
def _table(store: Store) -> Iterator[_Table]:
    name = f"facts_{ask(store, NewId()).replace('-', '')}"
    ask(store, _of("CREATE TABLE {t} (id INTEGER PRIMARY KEY, note TEXT)", name))
    try:
        yield _Table(store, name)
    finally:
        ask(store, _of("DROP TABLE {t}", name))


def _outcomes(store: Store, *requests: Request[Any]) -> list[Any]:
    return store.run_many(map(perform, requests), return_exceptions=True)


class SqlFacts(Facts):
    """A statement is a write as any other: it happens with the others of its transaction, or not at all."""

    def test_sql_is_refused_before_anything_is_written_by_a_store_that_claims_none(self, store: Store) -> None:
        if store.capabilities.sql:
            return
        statement = _of("CREATE TABLE {t} (id INTEGER PRIMARY KEY)", "facts")
        assert isinstance(error_of(store, statement), InvalidRequest | UnhandledEffect)
        if store.capabilities.transact:
            assert isinstance(error_of(store, Transact((KvPut("a", 1), statement))), InvalidRequest)
            assert ask(store, KvKeys()) == []

    @needs("sql")
    def test_a_statement_is_answered_with_how_many_rows_it_changed(self, store: Store) -> None:
        with _table(store) as table:
            assert [ask(store, table.insert(number)) for number in (1, 2)] == [1, 1]
            assert ask(store, table.sql("UPDATE {t} SET note = 'x'")) == 2
            assert ask(store, table.sql("DELETE FROM {t} WHERE id = :id RETURNING id", id=1)) == 1
            them = "WITH them AS (SELECT id FROM {t}) DELETE FROM {t} WHERE id IN (SELECT id FROM them)"
            assert ask(store, table.sql(them)) == 1
            assert ask(store, table.sql("DELETE FROM {t}")) == 0

    @needs("sql", "transact")
    def test_statements_and_other_writes_are_answered_in_their_order(self, store: Store) -> None:
        with _table(store) as table:
            drafts = (Draft("made", 1), Draft("made", 2))
            writes = (table.insert(1), KvPut("a", 1), table.insert(2), Append("s", drafts), TruncateThrough("s", 1))
            answers = ask(store, Transact(writes))
            assert isinstance(answers, list)
            first, revision, second, appended, dropped = answers
            assert (first, second, appended.last_seq, dropped) == (1, 1, 2, 1)
            assert ask(store, KvGet("a")) == Entry(1, revision)

    @needs("sql", "transact")
    def test_nothing_of_a_transaction_happens_whose_statement_fails(self, store: Store) -> None:
        with _table(store) as table:
            ask(store, table.insert(1))
            error = error_of(
                store, Transact((KvPut("a", 1), table.insert(2), Append("s", (Draft("made", 1),)), table.insert(1)))
            )
            assert isinstance(error, SqlFailed)
            assert error.statement == table.insert(1).statement
            assert not table.has(2)
            assert (ask(store, KvKeys()), ask(store, LastSeq("s"))) == ([], 0)

    @needs("sql", "transact")
    def test_nothing_of_a_transaction_happens_that_meets_a_conflict(self, store: Store) -> None:
        with _table(store) as table:
            assert ask(store, Transact((table.insert(1), KvPut("a", 1, 7)))) == Conflict("key", "a", 7, 0, 1)
            assert not table.has(1)

    @needs("sql", "transact")
    def test_a_statement_that_fails_fails_for_nobody_else(self, store: Store) -> None:
        """Though they share a commit."""
        with _table(store) as table:
            ask(store, table.insert(1))
            requests = [
                KvPut("a", 1),
                Transact((KvPut("lost", 1), table.insert(2), table.insert(1))),
                Transact((KvPut("b", 1), table.insert(3))),
                table.insert(1),
                Append("s", (Draft("made", 1),)),
            ]
            kept, failed, both, single, appended = _outcomes(store, *requests)
            assert isinstance(failed, SqlFailed)
            assert isinstance(single, SqlFailed)
            assert (type(kept), both[1], appended.last_seq) == (int, 1, 1)
            assert ask(store, KvKeys()) == ["a", "b"]
            assert [table.has(number) for number in (1, 2, 3)] == [True, False, True]

    @needs("sql")
    def test_a_statement_of_a_table_that_is_not_there_fails(self, store: Store) -> None:
        assert isinstance(error_of(store, Sql("DELETE FROM no_such_table")), SqlFailed)
        assert isinstance(error_of(store, Sql("DELETE DELETE FROM no_such_table")), SqlFailed)

    @needs("sql")
    def test_what_looks_like_a_parameter_and_is_none_is_left_alone(self, store: Store) -> None:
        with _table(store) as table:
            said = "it''s :no 100%"
            statement = """
                INSERT /* :no */ INTO {t} (id, note) -- :no % %s
                VALUES (CAST(:id AS INTEGER), 'SAID' || :note)
            """.replace("SAID", said)
            assert ask(store, table.sql(statement, id=1, note=" %s :id")) == 1
            assert table.holds(1, said.replace("''", "'") + " %s :id")

    @needs("sql")
    def test_values_come_as_they_are(self, store: Store) -> None:
        with _table(store) as table:
            for number, text in enumerate(("", "'; DROP TABLE x; --", "\\", "žluťoučký 🐎", "a\nb")):
                ask(store, table.insert(number, text))
                assert table.holds(number, text)
            ask(store, table.insert(9, None))
            assert ask(store, table.sql("DELETE FROM {t} WHERE note IS NULL")) == 1

    @needs("sql")
    def test_a_statement_cannot_touch_what_is_the_stores(self, store: Store) -> None:
        ask(store, KvPut("a", 1))
        for name in ("entries", "events", "streams", "meta", "deletions"):
            assert isinstance(error_of(store, _of("DELETE FROM {t}", name)), InvalidRequest)
            assert isinstance(error_of(store, _of('DROP TABLE "{t}"', name)), InvalidRequest)
        assert ask(store, KvKeys()) == ["a"]
