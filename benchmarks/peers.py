"""What the file store is measured against: SQLite, LMDB, and the least that any log on this disk must do.

The peers are used as someone would who knows them well. They are told each event's sequence number and position, which
our store finds out itself and checks, and they check no value and no name.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from struct import Struct
from typing import Any, Literal, TypeVar

import lmdb
import msgspec

from persist_effects import Event

V = TypeVar("V")

_encode = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(Event).decode
_decode_value = msgspec.msgpack.Decoder().decode
_big_endian = Struct(">Q").pack

_MAP_BYTES = 16 * 2**30
"""How large LMDB's file may grow. Only what is used takes space."""


class RawFile:
    """The raw limit: records written one after the other to a file of the right size, each with an fdatasync.

    The file is filled with zeros and synced before, so a sync has nothing to write but the record.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = 0

    def append_each(self, records: Iterable[bytes]) -> None:
        """Write and sync each record by itself."""
        descriptor, end = self._descriptor, self._end
        for record in records:
            end += os.pwrite(descriptor, record, end)
            os.fdatasync(descriptor)
        self._end = end

    def read(self) -> bytes:
        """All records, one after the other."""
        return os.pread(self._descriptor, self._end, 0)


@contextmanager
def raw_file(path: Path, size_bytes: int) -> Iterator[RawFile]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        os.pwrite(descriptor, bytes(size_bytes), 0)
        os.fsync(descriptor)
        yield RawFile(descriptor)
    finally:
        os.close(descriptor)


def as_records(events: Iterable[Event]) -> list[bytes]:
    """Each event as the bytes that stand for it."""
    return [_encode(event) for event in events]


class SqliteLog:
    """An event table of SQLite's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append_each(self, events: Iterable[Event]) -> None:
        """Insert each event in a transaction of its own."""
        execute = self._connection.execute
        for event in events:
            execute(_INSERT, _as_row(event))

    def append_batches(self, batches: Iterable[Sequence[Event]]) -> None:
        """Insert each batch in one transaction."""
        for batch in batches:
            self._connection.execute("BEGIN")
            self._connection.executemany(_INSERT, map(_as_row, batch))
            self._connection.execute("COMMIT")

    def read_all(self) -> list[Event]:
        """The events of all streams, by position."""
        rows = self._connection.execute("SELECT stream, seq, type, at, data, position FROM events ORDER BY position")
        return [
            Event(stream, seq, event_type, at, _decode_value(data), position)
            for stream, seq, event_type, at, data, position in rows
        ]

    def setting(self, name: str) -> Any:
        """What a pragma is set to."""
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]


_TABLE = """
CREATE TABLE events (
    position INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL,
    type TEXT NOT NULL, at INTEGER NOT NULL, data BLOB NOT NULL
)
"""
_INSERT = "INSERT INTO events (position, stream, seq, type, at, data) VALUES (?, ?, ?, ?, ?, ?)"


def _as_row(event: Event) -> tuple[Any, ...]:
    return event.position, event.stream, event.seq, event.type, event.at, _encode(event.data)


@contextmanager
def sqlite_log(directory: Path, synchronous: Literal["FULL", "NORMAL"]) -> Iterator[SqliteLog]:
    """A new log in WAL mode, where FULL syncs each commit and NORMAL only its checkpoints."""
    # Without an isolation level the module begins no transactions of its own.
    with closing(sqlite3.connect(directory / "log.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(_TABLE)
        connection.execute("CREATE UNIQUE INDEX by_stream ON events (stream, seq)")
        yield SqliteLog(connection)


class LmdbStore:
    """Events by position, their positions by stream and sequence number, and values by key, in LMDB."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment = environment
        self._events = environment.open_db(b"events")
        self._by_stream = environment.open_db(b"by_stream")
        self._values = environment.open_db(b"values")

    def append_each(self, events: Iterable[Event]) -> None:
        """Put each event in a write transaction of its own."""
        for event in events:
            position = _big_endian(event.position)
            with self._environment.begin(write=True) as transaction:
                transaction.put(position, _encode(event), append=True, db=self._events)
                transaction.put(_stream_key(event), position, db=self._by_stream)

    def append_batches(self, batches: Iterable[Sequence[Event]]) -> None:
        """Put each batch in one write transaction."""
        for batch in batches:
            with self._environment.begin(write=True) as transaction:
                by_position = [(_big_endian(event.position), _encode(event)) for event in batch]
                transaction.cursor(self._events).putmulti(by_position, append=True)
                by_stream = [(_stream_key(event), _big_endian(event.position)) for event in batch]
                transaction.cursor(self._by_stream).putmulti(by_stream)

    def fold(self, step: Callable[[V, Event], V], value: V) -> V:
        """Fold all events, by position: nothing in LMDB reads a stream faster, where it is the only one."""
        with self._environment.begin(db=self._events, buffers=True) as transaction:
            for encoded in transaction.cursor().iternext(keys=False):
                value = step(value, _decode_event(encoded))
        return value

    def positions(self, stream: str) -> list[int]:
        """The positions of a stream's events, in order."""
        start = stream.encode() + b"\0"
        with self._environment.begin(db=self._by_stream) as transaction:
            cursor = transaction.cursor()
            cursor.set_range(start)
            return [int.from_bytes(position) for key, position in cursor if key.startswith(start)]

    def put_each(self, entries: Iterable[tuple[str, Any]]) -> None:
        """Put each value in a write transaction of its own."""
        for key, value in entries:
            with self._environment.begin(write=True, db=self._values) as transaction:
                transaction.put(key.encode(), _encode(value))

    def get_each(self, keys: Iterable[str]) -> Iterator[Any]:
        """Get each value in a read transaction of its own, so that it is the newest."""
        for key in keys:
            with self._environment.begin(db=self._values, buffers=True) as transaction:
                encoded = transaction.get(key.encode())
                yield None if encoded is None else _decode_value(encoded)


def _stream_key(event: Event) -> bytes:
    # A stream's name holds no zero byte, so no stream's keys fall among another's.
    return event.stream.encode() + b"\0" + _big_endian(event.seq)


@contextmanager
def lmdb_store(directory: Path, *, sync: bool) -> Iterator[LmdbStore]:
    """The environment in a directory, where each commit is synced or none is."""
    with lmdb.open(str(directory), map_size=_MAP_BYTES, max_dbs=3, sync=sync, metasync=sync) as environment:
        yield LmdbStore(environment)
