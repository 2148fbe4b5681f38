"""Stores with SQL, and what others see in their databases: on SQLite, and on PostgreSQL in schemas of their own."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from postgres_server import new_schema, new_store_url
from psycopg import sql as names

from interpreters import Store, open_store

DIALECTS = ("sqlite", "postgresql")


class Database:
    """A database that has room for a store, and for tables that others query.

    Args:
        dialect: "sqlite" or "postgresql".
        root: A directory.
    """

    def __init__(self, dialect: str, root: Path) -> None:
        self.dialect = dialect
        self._file = root / "app.db"
        self._tables = new_schema()
        self.url = f"sqlite:{self._file}"
        if dialect == "postgresql":
            self.url = new_store_url(options=f"-c search_path={self._tables}")
            with self.connect() as connection:
                connection.execute(names.SQL("CREATE SCHEMA {}").format(names.Identifier(self._tables)))

    def open(self, **options: Any) -> Store:
        """Its store."""
        return open_store(self.url, **options)

    def connect(self) -> Any:
        """A connection of somebody else's, who knows nothing of the store."""
        if self.dialect == "sqlite":
            return closing(sqlite3.connect(self._file, isolation_level=None, timeout=30))
        found = urlsplit(self.url)
        kept = "&".join(part for part in found.query.split("&") if not part.startswith("schema="))
        return psycopg.connect(found._replace(query=kept).geturl(), autocommit=True)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query is answered there."""
        with self.connect() as connection:
            return [tuple(row) for row in connection.execute(query).fetchall()]

    def tables(self) -> list[str]:
        """The tables beside the store's own."""
        if self.dialect == "sqlite":
            own = "('meta', 'streams', 'events', 'entries', 'deletions')"
            found = f"SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN {own}"
        else:
            found = f"SELECT tablename FROM pg_tables WHERE schemaname = '{self._tables}'"
        return sorted(name for (name,) in self.rows(found))


@pytest.fixture(params=DIALECTS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database of each kind."""
    return Database(request.param, tmp_path)
