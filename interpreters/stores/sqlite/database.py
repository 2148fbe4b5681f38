"""The database file of a store on SQLite: making it, knowing it again, its connections, its statements, its errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from interpreters.disk.files import directory_mode, make_directories, new_file
from interpreters.stores.statements import Statements
from persist_effects.errors import CorruptStore, InvalidRequest, NewerFormat, StoreUnavailable

APPLICATION_ID = 0x70656631
"""By which SQLite files of ours are known: "pef1"."""

FORMAT_VERSION = 1

_NOT_THERE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@cache
def schema() -> Statements:
    """What a new store is made of, in its order."""
    return Statements("interpreters.stores.sqlite", "schema")


@cache
def queries() -> Statements:
    """What is asked of a store, by the names of the files."""
    return Statements("interpreters.stores.sqlite", "queries")


class Database:
    """One file, and new connections to it.

    Args:
        path: The file.
        is_read_only: Whether nothing may be written; then it must be there.
        synchronous: What SQLite calls it: FULL or NORMAL.
        busy_seconds: How long to wait for a writer that is no store of ours.

    Raises:
        InvalidRequest: If it is no store of ours.
        NewerFormat: If it is one of a newer release.
        CorruptStore: If it is damaged.
        StoreUnavailable: If it cannot be opened.
    """

    def __init__(self, path: Path, *, is_read_only: bool, synchronous: str, busy_seconds: float) -> None:
        self.path = path
        self._is_read_only = is_read_only
        self._synchronous = synchronous
        self._busy_seconds = busy_seconds
        if is_read_only and not path.is_file():
            raise InvalidRequest(f"{path} is not a file: give the path of a store that is there")
        if path.is_dir():
            raise InvalidRequest(f"{path} is a directory: a store on SQLite is a file, give the path of one")

    def make(self) -> None:
        """Make the file where it is not there, for its owner alone."""
        try:
            make_directories(str(self.path.parent), directory_mode(0o600))
            if not self.path.exists():
                with new_file(self.path):
                    pass
        except FileExistsError:
            return
        except OSError as error:
            raise StoreUnavailable(f"{self.path} cannot be made: {error}") from error

    def connect(self) -> sqlite3.Connection:
        """A new connection. It may be used by any thread, one at a time, and begins no transaction by itself."""
        with self.errors():
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={'ro' if self._is_read_only else 'rw'}",
                uri=True,
                isolation_level=None,
                timeout=self._busy_seconds,
                check_same_thread=False,
                cached_statements=128,
            )
            try:
                self._set_up(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        if not self._is_read_only:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # A checkpoint is made in turn: see `SqliteStore`.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA trusted_schema = OFF")

    def check(self, connection: sqlite3.Connection) -> bool:
        """Whether it is a store of ours; False where there is nothing in it yet. Raises where it is something else."""
        application_id = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        if not application_id and not version and not _pragma(connection, "schema_version"):
            return False
        if application_id != APPLICATION_ID:
            raise InvalidRequest(f"{self.path} is a database of something else: give the path of a store, or a new one")
        if version > FORMAT_VERSION:
            raise NewerFormat(str(self.path), version, FORMAT_VERSION)
        if _pragma(connection, "encoding") != "UTF-8":
            raise CorruptStore(f"{self.path}: expected names in UTF-8, found {_pragma(connection, 'encoding')}")
        return True

    def create(self, connection: sqlite3.Connection) -> None:
        """Make the tables, all or none."""
        connection.execute("PRAGMA encoding = 'UTF-8'")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreUnavailable(f"{self.path}: expected a write-ahead log, found the journal mode {mode}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self.check(connection):
                for statement in schema().texts.values():
                    connection.execute(statement)
                connection.execute(queries().add_meta)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Have what SQLite raises be an error of ours. What was being written is not written."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.error_of(error) from error

    def error_of(self, error: sqlite3.Error) -> Exception:
        """The error of ours for one of SQLite's, where nothing was written."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            return CorruptStore(f"{self.path}: {error}: restore a backup")
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return StoreUnavailable(
                f"{self.path}: another program has held it for more than {self._busy_seconds:g} seconds: try again"
            )
        if code == sqlite3.SQLITE_FULL:
            return StoreUnavailable(f"{self.path}: {error}: make room on the disk, then try again")
        if code == sqlite3.SQLITE_READONLY:
            return StoreUnavailable(f"{self.path}: it may not be written: open it with mode=r, or mend its permissions")
        if code in _NOT_THERE:
            return StoreUnavailable(f"{self.path} cannot be opened: {error}")
        return StoreUnavailable(f"{self.path}: {error}")


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]
