"""Rows that a follower writes, against the same rows written by SQLite alone, in transactions of the same size."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ground import new_directory
from benchmarks.table import Bound, Row, rate
from interpreters.opening import open_store
from persist_effects import Draft, SqlModel, follow, log

BATCH = 100
"""How many events share a transaction."""

INSERT = "INSERT INTO {orders} VALUES (:id, :customer, :cents)"
MODEL = SqlModel("orders", {"orders": "CREATE TABLE {orders} (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)"})


@contextmanager
def prepared_rows(count: int) -> Iterator[list[dict[str, Any]]]:
    """The rows, each of which is the data of an event."""
    yield [{"id": number, "customer": f"customer {number % 97}", "cents": number} for number in range(count)]


def followed(rows: list[dict[str, Any]]) -> float:
    """Rows a second that a follower writes: each is read from the log, and handled."""
    with new_directory() as directory, open_store("sqlite:", path=directory / "app.db") as store:
        for first in range(0, len(rows), 1_000):
            some = rows[first : first + 1_000]
            store.run(log.append_many("orders", [Draft("placed", row) for row in some]))
        following = follow(MODEL, "orders", lambda event, model: [model.sql(INSERT, event.data)], batch=BATCH)
        return rate(len(rows), lambda: store.run(following))


def inserted(rows: list[dict[str, Any]]) -> float:
    """Rows a second that SQLite writes, with a position beside each hundred of them, as one would by hand."""
    with new_directory() as directory, _database(directory / "rows.db") as connection:
        insert = INSERT.replace("{orders}", "orders")

        def write() -> None:
            for first in range(0, len(rows), BATCH):
                connection.execute("BEGIN IMMEDIATE")
                for row in rows[first : first + BATCH]:
                    connection.execute(insert, row)
                connection.execute("INSERT OR REPLACE INTO reached VALUES (1, ?)", (first,))
                connection.execute("COMMIT")

        return rate(len(rows), write)


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)")
        connection.execute("CREATE TABLE reached (id INTEGER PRIMARY KEY, position INTEGER)")
        yield connection


ROWS = (
    Row(
        name="read models: rows of a follower on SQLite, 100 events a transaction, against bare inserts",
        unit="rows/s",
        bound=Bound.AT_LEAST,
        must=0.2,
        operations=10_000,
        prepare=prepared_rows,
        ours=followed,
        peer=inserted,
    ),
)
