"""The store on SQLite: one file, of which several processes may read and write at once.

Whatever waits to be written in this process shares a transaction. Processes take turns: one at a time has the lock that
stands beside the file, and whoever has waited goes first. Readers wait for nobody, and nobody waits for them.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from interpreters.blobs.later import BlobsBeside
from interpreters.clocks import Clock, RandomBytes, checked_clock, checked_random, wall_clock
from interpreters.disk.files import lengthen_file, sync_file
from interpreters.disk.turns import Turns
from interpreters.stores.compacting import Compacted, Told
from interpreters.stores.group import NO_MEMORY, NO_MEMORY_NOR_WORD, WriteRequest
from interpreters.stores.grouped import GroupedStore
from interpreters.stores.sqlite.compacting import bytes_of, rewrite
from interpreters.stores.sqlite.database import Database
from interpreters.stores.sqlite.foreign import Undone
from interpreters.stores.sqlite.guard import Guard
from interpreters.stores.sqlite.reading import Reading
from interpreters.stores.sqlite.writing import KnownHeads, Writing
from interpreters.threads import forks
from interpreters.threads.background import BackgroundThread
from interpreters.threads.gates import Gate
from persist_effects import codec
from persist_effects.capabilities import Capabilities, Durability
from persist_effects.errors import (
    InvalidRequest,
    PersistError,
    StoreUnavailable,
    UncertainOutcome,
    describe,
)
from persist_effects.event import check_integer
from persist_effects.planning import Limits
from persist_effects.requests import (
    Failed,
    KvWait,
    Outcome,
    Request,
    Wait,
)

LOOK_AGAIN_SECONDS = 0.01
"""How often it is looked, while anybody waits, whether another process has written: 1.7 % of a core."""

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""After about how many bytes of its own commits a process has them moved from the write-ahead log into the file."""

FIRST_ROOM_BYTES = 256 * 1024
"""About how much is written to the write-ahead log before it is given as much room: then twice as much each time, up to
what is moved into the file at once. So who writes little gives little."""

_PAGE_BYTES = 4096
_PAGES_OF_A_COMMIT = 2
_MORE_AT_MOST = 2
"""How many times as much as is reckoned a commit may write to the log: it may touch four pages."""

SYNC_MODES = {"commit": "FULL", "interval": "NORMAL", "os": "NORMAL"}
"""What SQLite calls them. In NORMAL mode the system is not waited for but at checkpoints."""

_INHERITED: list[Any] = []
"""In a forked child: what is the parent's, and must be neither used nor closed."""


class SqliteStore(GroupedStore):
    """An interpreter that keeps a store in a SQLite file. Any number of processes may have it open, and any thread.

    Args:
        path: The file. It is made where it is not there, with the directories above it.
        sync: What an acknowledgement means: "commit", the write is on the disk; "interval", it is there within
            ``interval_seconds``; "os", when the system likes. No process that ends loses anything in any of them.
        interval_seconds: For ``sync="interval"``.
        busy_seconds: How long a write waits for other processes, before it is `StoreUnavailable`.
        mode: "r" refuses writes, and makes nothing; "w" unless given.
        clock: Gives microseconds since 1970, UTC: that of this process.
        random_bytes: Gives so many: what fresh identifiers are made of.
        payload_limit_bytes: How large the data and the meta of an event, and a value, may be.

    Raises:
        InvalidRequest: Where an option makes no sense, or the file is no store.
        StoreUnavailable: Where it cannot be opened.
        NewerFormat: Where a newer release has made it.
        CorruptStore: Where it is damaged.

    >>> import tempfile
    >>> from persist_effects import kv, run
    >>> with tempfile.TemporaryDirectory() as root:
    ...     store = SqliteStore(f"{root}/app.db")
    ...     run(kv.put("color", "red"), store.handlers)
    ...     store.close()
    1
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sync: str = "commit",
        interval_seconds: float = 0.1,
        busy_seconds: float = 5.0,
        mode: str = "w",
        clock: Clock = wall_clock,
        random_bytes: RandomBytes = os.urandom,
        payload_limit_bytes: int = codec.PAYLOAD_LIMIT_BYTES,
    ) -> None:
        if "\0" in os.fspath(path):
            raise InvalidRequest(f"{os.fspath(path)!r} is not a path: it has a zero character")
        if sync not in SYNC_MODES:
            raise InvalidRequest(f"sync is {sync!r}: give one of {', '.join(SYNC_MODES)}")
        if mode not in ("r", "w"):
            raise InvalidRequest(f"mode is {mode!r}: give r to read only, or w")
        _check_seconds("interval_seconds", interval_seconds)
        _check_seconds("busy_seconds", busy_seconds)
        check_integer("payload_limit_bytes", payload_limit_bytes, 1)
        self.path = Path(path)
        super().__init__(str(self.path), is_read_only=mode == "r")
        self.capabilities = Capabilities(
            durability=cast(Durability, sync),
            processes="many",
            payload_limit_bytes=payload_limit_bytes,
            reopen=True,
            sql="sqlite",
        )
        self.clock = checked_clock(clock)
        self.random_bytes = checked_random(random_bytes)
        self._limits = Limits(payload_limit_bytes, has_sql=True)
        self._guard = Guard()
        self._busy_seconds = busy_seconds
        self._interval_seconds = interval_seconds if sync == "interval" and not self._is_read_only else None
        self._database = Database(
            self.path, is_read_only=self._is_read_only, synchronous=SYNC_MODES[sync], busy_seconds=busy_seconds
        )
        self._turns: Turns | None = None
        # Used by whoever has the turn in the group.
        self._writer: sqlite3.Connection | None = None
        self._heads: KnownHeads | None = None
        self._data_version = -1
        self._unmoved_bytes = 0
        # How much may be written to the log before it is given as much room again.
        self._room_bytes = FIRST_ROOM_BYTES
        self._unsynced = False
        # Why nothing is written any more.
        self._poison: str | None = None
        self._idle: list[sqlite3.Connection] = []
        self.blobs = BlobsBeside(f"{self.path}-blobs", read_only=self._is_read_only, check=self._check_home)
        """The home of its blobs."""
        self._looker: BackgroundThread | None = None
        self._seen = (0, 0)
        self._keeper: BackgroundThread | None = None
        self.handlers = {**self.handlers, **self.blobs.handlers}
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        forks.register(self)

    # Opening and closing

    def _open(self) -> None:
        if not self._is_read_only:
            self._database.make()
            with self._in_turn():
                connection = self._database.connect()
                self._idle.append(connection)
                with self._database.errors():
                    if not self._database.check(connection):
                        self._database.create(connection)
        with self._reading() as reading:
            reading.heads()
        if self._interval_seconds is not None:
            self._start_keeper()

    def close(self) -> None:
        """Move what was written into the file, and let go of it. Whoever waits is told. Again: nothing."""
        self._begin_close()
        if self._keeper is not None:
            self._keeper.join()
        with self._group.turn:
            with ExitStack() as turn:
                if self._turns is not None:
                    # In turn if that comes in time: the last connection of all processes takes the log of writes away.
                    turn.enter_context(self._turns.taken(self._busy_seconds))
                self._close_connections()
            if self._turns is not None:
                self._turns.close()
                self._turns = None
        self.blobs.close_home()

    def _close_connections(self) -> None:
        if self._writer is not None:
            # What cannot be moved now stays in the log of writes, where the next opening finds it.
            with suppress(PersistError):
                self._checkpoint(self._writer, "TRUNCATE")
            self._writer.close()
            self._writer = None
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def state_lock(self) -> forks.StateLock | None:
        """What a fork waits for: no transaction is under way then."""
        return self._group.turn

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: it has the store open too, by connections of its own."""
        # What is the parent's is not even closed here: that would end the parent's transaction, or its locks.
        _INHERITED.append((self._writer, self._idle, self._turns, self._heads))
        self.blobs.leave_to_parent()
        self._writer = self._turns = self._heads = None
        self._idle = []
        self._looker = self._keeper = None
        self._begin_anew()

    def _check_open(self) -> None:
        if self._is_closed:
            raise self._closed()
        if self._poison is not None:
            raise StoreUnavailable(f"{self._poison}: reading goes on; to write, close the store and open it again")

    # Writing

    def _commit(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """Carry out writes in one transaction. Whoever calls it has the turn in the group."""
        self._check_open()
        if self._interval_seconds is not None and (self._keeper is None or not self._keeper.is_begun):
            self._start_keeper()
        failed: dict[int, Failed] = {}
        while True:
            try:
                return self._commit_without(requests, failed)
            except Undone as undone:
                program, error = undone.args
                failed[program] = Failed(error)

    def _commit_without(self, requests: Sequence[WriteRequest], failed: Mapping[int, Failed]) -> list[Outcome]:
        """Carry them out, but for those of which it is known that they undo the others."""
        with self._in_turn():
            connection = self._begun()
            try:
                heads = self._heads_of(connection)
                writing = Writing(connection, heads, self.clock(), self._limits, self._guard)
                with self._database.errors():
                    outcomes = writing.carry_out(requests, failed)
            except BaseException as error:
                self._roll_back(connection)
                if isinstance(error, MemoryError):
                    raise StoreUnavailable(f"{self.path}: nothing was written: {NO_MEMORY}") from error
                raise
            self._end(connection)
            heads.make_room()
            self._unsynced = True
            self._unmoved_bytes += writing.written_bytes + _PAGES_OF_A_COMMIT * _PAGE_BYTES
            # What was written is written, whatever comes now.
            if self._unmoved_bytes >= CHECKPOINT_BYTES:
                with suppress(PersistError):  # the next commit tries again
                    self._checkpoint(connection, "PASSIVE")
        if self._watchers:
            with suppress(PersistError):  # who waits looks by itself now and then
                self._tell()
        return outcomes

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Have the turn among all processes for the block. Raises `StoreUnavailable` where it does not come in time."""
        if self._turns is None:
            try:
                self._turns = Turns(self.path)
            except OSError as error:
                raise StoreUnavailable(f"{self.path} cannot be opened to write: {error}") from error
        with self._turns.taken(self._busy_seconds) as is_taken:
            if not is_taken:
                raise StoreUnavailable(
                    f"{self.path}: other processes have written for {self._busy_seconds:g} seconds without a pause, or "
                    "one holds it: nothing was written: try again"
                )
            yield

    def _begun(self) -> sqlite3.Connection:
        """The connection that writes, at the beginning of a transaction."""
        connection = self._writing_connection()
        with self._database.errors():
            connection.execute("BEGIN IMMEDIATE")
        self._make_room()
        return connection

    def _writing_connection(self) -> sqlite3.Connection:
        """The connection that writes, in no transaction."""
        if self._writer is None:
            self._heads = None
            self._writer = self._database.connect()
            self._writer.set_authorizer(self._guard)
        if self._writer.in_transaction:
            # An interrupt, and another one while it was rolled back.
            self._roll_back(self._writer)
        return self._writer

    def _make_room(self) -> None:
        """Put zeros behind the write-ahead log where it is full, which synced commits then overwrite.

        Else each makes it longer: the sync of a file that became longer has the file system write its length too, and
        takes longer for it. Zeros are no frames to SQLite. Nobody else writes there: the transaction has the log's
        lock.
        """
        is_full = _MORE_AT_MOST * self._unmoved_bytes >= self._room_bytes
        if is_full and self._room_bytes < CHECKPOINT_BYTES and self.capabilities.durability == "commit":
            with suppress(OSError):  # where there is no room, SQLite says so when it needs some
                lengthen_file(f"{self.path}-wal", self._room_bytes, CHECKPOINT_BYTES)
            self._room_bytes *= 2

    def _heads_of(self, connection: sqlite3.Connection) -> KnownHeads:
        """What is known of streams and keys: that of the transaction before, unless another process has written."""
        with self._database.errors():
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if self._heads is None or version != self._data_version:
                self._heads, self._data_version = KnownHeads(Reading(connection)), version
        return self._heads

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._heads = None
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _end(self, connection: sqlite3.Connection) -> None:
        heads, self._heads = self._heads, None
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(connection)
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_IOERR:
                # It may stand in the log of writes, and be found there once the file is opened anew.
                self._poison = f"{self.path}: a commit failed: {error}"
                raise UncertainOutcome(
                    f"{self._poison}: whether it is on the disk is not known: close the store and open it again"
                ) from error
            raise self._database.error_of(error) from error
        except MemoryError as error:
            raise UncertainOutcome(f"{self.path}: {NO_MEMORY_NOR_WORD}") from error
        self._heads = heads

    # Moving commits from the write-ahead log into the file

    def _checkpoint(self, connection: sqlite3.Connection, how: str) -> None:
        """Move what was written into the file, as far as readers let it.

        A process that holds the turn does so, since several at once have damaged files in some releases of SQLite.
        """
        with self._database.errors():
            connection.execute(f"PRAGMA wal_checkpoint({how})").fetchall()
        self._unmoved_bytes = 0

    def compact(self, told: Told | None = None) -> Compacted:
        """Write the file anew, so that nothing is left in it of what was truncated, overwritten and deleted.

        Others read meanwhile, in this process and in others; writes wait. For a while it takes twice the room, and as
        much again in SQLite's directory for temporary files.

        Args:
            told: Told now and then how many bytes were written, and how many there may be.

        Returns:
            How many bytes the file and its write-ahead log took before, and take now.

        Raises:
            InvalidRequest: If it was opened to read only.
            StoreUnavailable: If there is no room, or another program goes on reading what the file was before.
        """
        if self._is_read_only:
            raise self._refusal("compact")
        with self._group.turn:
            self._check_open()
            with self._in_turn():
                connection = self._writing_connection()
                bytes_before = bytes_of(self.path)
                try:
                    with self._database.errors():
                        is_whole = rewrite(connection, self.path, told)
                finally:
                    self._roll_back(connection)
                self._unmoved_bytes, self._room_bytes = 0, FIRST_ROOM_BYTES
        if not is_whole:
            raise StoreUnavailable(
                f"{self.path}: it is written anew, but another program has read for more than {self._busy_seconds:g} "
                f"seconds what it was before, which stands in {self.path}-wal still: end that program, and compact "
                "again"
            )
        return Compacted(bytes_before, bytes_of(self.path))

    def sync(self) -> None:
        """Return when all that was written so far is on the disk, whatever the mode."""
        self._check_open()
        self._unsynced = False
        try:
            # What is not there any more was moved into the file, and synced before.
            sync_file(f"{self.path}-wal")
        except OSError as error:
            # What was to be written may count as written now: a second sync would succeed and prove nothing.
            self._poison = f"{self.path}: a sync failed: {error}"
            raise UncertainOutcome(
                f"{self._poison}: whether what was written last is on the disk is not known: close the store and open "
                "it again"
            ) from error

    def _start_keeper(self) -> None:
        arguments = (weakref.ref(self), self._closing, self._interval_seconds)
        self._keeper = BackgroundThread(_keep, "persist-effects keeper", arguments)
        self._keeper.start()

    def _sync_when_due(self) -> None:
        if self._unsynced:
            self.sync()

    # Reading

    @contextmanager
    def _reading(self) -> Iterator[Reading]:
        """A transaction that reads, on a connection that nobody else has meanwhile."""
        if self._is_closed:
            raise self._closed()
        connection: sqlite3.Connection | None = None
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._database.connect()
            connection.execute("BEGIN")
            yield Reading(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            # Whatever state it is in.
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise (self._closed() if self._is_closed else self._database.error_of(error)) from error
            raise
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _read(self, request: Request[Any]) -> Any:
        with self._reading() as reading:
            return reading.answer(request)

    # Blobs

    def _check_home(self, what: str, changes: bool) -> None:
        if self._is_closed:
            raise self._closed()
        if changes and self._is_read_only:
            raise self._refusal(what)

    # Waiting

    def _newest(self, request: Wait | KvWait) -> int:
        with self._reading() as reading:
            return reading.newest(request)

    def _start_looking(self) -> None:
        """See to it that a thread looks for what other processes write, as long as anybody waits."""
        if self._looker is not None:
            return
        with self._reading() as reading:
            heads = reading.heads()
        with self._lock:
            if self._looker is not None:
                return
            self._seen = heads
            looker = BackgroundThread(_look, "persist-effects looker", (weakref.ref(self), self._closing))
            try:
                looker.start()
            finally:
                self._looker = looker if looker.is_begun else None

    def _tell(self) -> None:
        """Tell those that wait for what has changed since this was called before."""
        with self._reading() as reading:
            streams, keys = reading.changed_since(*self._seen)
            seen = reading.heads()
        with self._lock:
            self._seen = max(seen[0], self._seen[0]), max(seen[1], self._seen[1])
        self.tell_of(streams, keys)


def _keep(ref: "weakref.ref[SqliteStore]", closing: Gate, interval_seconds: float) -> None:
    """Have a store synced every so many seconds, until it is closed, or nobody has it any more."""
    while not closing.wait(interval_seconds):
        store = ref()
        if store is None:
            return
        # Where the disk refuses, the next write is told.
        with suppress(PersistError):
            store._sync_when_due()
        del store


def _look(ref: "weakref.ref[SqliteStore]", closing: Gate) -> None:
    """Look for what other processes write, until nobody waits any more, or the store is closed."""
    version = None
    connection: sqlite3.Connection | None = None
    try:
        while not closing.wait(LOOK_AGAIN_SECONDS):
            store = ref()
            if store is None:
                return
            with store._lock:
                if not store._watchers:
                    store._looker = None
                    return
            try:
                if connection is None:
                    connection = store._database.connect()
                (newest,) = connection.execute("PRAGMA data_version").fetchone()
                if newest != version:
                    store._tell()
                    version = newest
            except (PersistError, sqlite3.Error):
                # Who waits looks by itself now and then, and is told what is wrong.
                version = None
            del store
    finally:
        if connection is not None:
            connection.close()


def _check_seconds(name: str, seconds: float) -> None:
    if type(seconds) not in (int, float) or not 0.001 <= seconds <= threading.TIMEOUT_MAX:
        raise InvalidRequest(f"{name} is {describe(seconds)}: give a number from 0.001 on")
