"""The store on PostgreSQL: tables and functions in one schema, which any number of processes may use at once.

Whatever waits to be written in this process shares one call. Writers on different streams do not wait for each other:
a position is made of the number of its transaction, so that there is no counter to take turns at. Readers of all
streams take only what lies below every transaction in flight. So they never pass a position that may still be filled.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from psycopg.types.numeric import Int4, Int8

from interpreters.blobs.cid import check_cid, cid_of
from interpreters.clocks import Clock, RandomBytes, checked_clock, checked_random, wall_clock
from interpreters.stores.compacting import Compacted, Told
from interpreters.stores.group import NO_MEMORY, WriteRequest
from interpreters.stores.grouped import GroupedStore
from interpreters.stores.postgres.batches import Batch, bucket_of
from interpreters.stores.postgres.compacting import compact
from interpreters.stores.postgres.courier import Courier
from interpreters.stores.postgres.foreign import carry_out, check_foreign
from interpreters.stores.postgres.installing import Installation
from interpreters.stores.postgres.pool import Connection
from interpreters.stores.postgres.questions import Questions
from interpreters.stores.postgres.server import QUERIES, Server
from interpreters.stores.waiting import DELETIONS_KEPT
from interpreters.threads import forks
from interpreters.threads.gates import Gate, wait_until_told
from persist_effects import codec
from persist_effects.capabilities import Capabilities
from persist_effects.errors import BlobNotFound, InvalidRequest, PersistError, StoreUnavailable, TooLarge, describe
from persist_effects.event import check_integer
from persist_effects.planning import Limits, check_sql
from persist_effects.requests import (
    Advance,
    Answered,
    Append,
    Appended,
    BlobGet,
    BlobHas,
    BlobPut,
    BlobRef,
    Conflict,
    Failed,
    KvWait,
    Outcome,
    Request,
    Sql,
    Transact,
    Wait,
    has_sql,
)

DEFAULT_SCHEMA = "persist_effects"

SCHEMA_LIMIT_BYTES = 63
"""How long PostgreSQL lets a name be."""

SYNC_MODES = ("commit", "interval")

BLOB_LIMIT_BYTES = 2**28
"""How large one blob may be: what the server takes in one value, with room for how it is sent."""

BATCH_BYTES = 16 * 1024 * 1024
"""About how much one call writes, unless a single program has more."""

BATCH_CHANGES = 20_000
"""About how many events and writes one call has, unless a single program has more."""

_INHERITED: list[Any] = []
"""In a forked child: what is the parent's, and must be neither used nor closed."""


class PostgresStore(GroupedStore):
    """An interpreter that keeps a store in a schema of a PostgreSQL database. Any number of processes may have it open.

    Args:
        conninfo: What the driver connects by: a URL, or words such as ``host=db.example dbname=app``.
        schema: The schema. It is made where it is not there, with the store's tables, if the role may do so.
        sync: What an acknowledgement means: "commit", the write is on the server's disk; "interval", it is there within
            three times the server's ``wal_writer_delay``, 0.6 seconds unless that is set.
        timeout_seconds: How long to wait for a connection, a lock, or a statement, before it is `StoreUnavailable`.
        connections: How many connections this process has at the most, beside one that waits for notifications.
        mode: "r" refuses writes, and makes nothing; "w" unless given.
        clock: Gives microseconds since 1970, UTC: that of this process.
        random_bytes: Gives so many: what fresh identifiers are made of.
        payload_limit_bytes: How large the data and the meta of an event, and a value, may be.

    Raises:
        InvalidRequest: Where an option makes no sense, or the schema is of something else.
        StoreUnavailable: Where the server cannot be reached, or does not let us.
        NewerFormat: Where a newer release has made the store.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str = DEFAULT_SCHEMA,
        sync: str = "commit",
        timeout_seconds: float = 10.0,
        connections: int = 10,
        mode: str = "w",
        clock: Clock = wall_clock,
        random_bytes: RandomBytes = os.urandom,
        payload_limit_bytes: int = codec.PAYLOAD_LIMIT_BYTES,
    ) -> None:
        _check_schema(schema)
        if sync not in SYNC_MODES:
            raise InvalidRequest(f"sync is {sync!r}: give one of {', '.join(SYNC_MODES)}")
        if mode not in ("r", "w"):
            raise InvalidRequest(f"mode is {mode!r}: give r to read only, or w")
        if type(timeout_seconds) not in (int, float) or not 0.1 <= timeout_seconds <= 86_400:
            raise InvalidRequest(f"timeout_seconds is {describe(timeout_seconds)}: give a number from 0.1 to 86400")
        check_integer("connections", connections, 1, 1_000)
        check_integer("payload_limit_bytes", payload_limit_bytes, 1, 2**28)
        self.clock = checked_clock(clock)
        self.random_bytes = checked_random(random_bytes)
        self._limits = Limits(payload_limit_bytes, has_sql=True)
        self._server = Server(
            conninfo,
            schema,
            is_read_only=mode == "r",
            is_synced=sync == "commit",
            timeout_seconds=timeout_seconds,
            connections=connections,
        )
        super().__init__(self._server.where, is_read_only=mode == "r")
        self._questions = Questions(self._server.read)
        self.handlers = {
            **self.handlers,
            BlobPut: self._refuse if self._is_read_only else self._put_blob,
            BlobGet: self._blob,
            BlobHas: self._has_blob,
        }
        self._courier: Courier | None = None
        self._deletion_count = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        is_durable, is_synced = self._server.read(QUERIES.settings)[0]
        self.capabilities = Capabilities(
            durability="os" if not is_durable else "commit" if is_synced else "interval",
            processes="many",
            order_lags=True,
            payload_limit_bytes=payload_limit_bytes,
            reopen=True,
            sql="postgresql",
        )
        forks.register(self)

    # Opening and closing

    def _open(self) -> None:
        Installation(self._server).prepare(is_read_only=self._is_read_only)
        self._server.open_pool(self._configure)
        # So that what is wrong is told now; a pool only tries again.
        self._server.writing_connection()

    def _configure(self, connection: Connection) -> None:
        """Set up a connection: it may be the first one to a server where the store was restored."""
        space, _, has_fallen_behind = cast(Any, connection.execute(QUERIES.attach).fetchone())
        # As the two halves of an advisory lock's number are signed.
        self._server.space = space - (1 << 32) if space >= 1 << 31 else space
        if has_fallen_behind and not self._is_read_only:
            connection.execute(QUERIES.go_on_above, (Int8(0),))

    def close(self) -> None:
        """Let go of all connections. Whoever waits is told. Again: nothing."""
        self._begin_close()
        with self._lock:
            courier, self._courier = self._courier, None
        if courier is not None:
            courier.close()
        with self._group.turn:
            self._server.close()

    def connect(self) -> Connection:
        """A new connection to the store's schema, for what SQL is needed beside the store. Whoever calls it closes it.

        Returns:
            The driver's connection, which commits each statement by itself.

        Raises:
            StoreUnavailable: If it cannot be had.
        """
        return self._server.connect()

    def grant_to_reader(self, role: str) -> None:
        """Let a role read the store, and no more: it opens it with ``mode=r``.

        Args:
            role: The role's name.

        Raises:
            StoreUnavailable: If there is no such role, or the store's own role may not grant it.
        """
        with self._group.turn:
            self._server.write(QUERIES.grant_to_reader, (role,))

    def grant_to_writer(self, role: str) -> None:
        """Let a role read and write the store, and no more: it can neither change the tables nor upgrade them.

        Args:
            role: The role's name.

        Raises:
            StoreUnavailable: If there is no such role, or the store's own role may not grant it.
        """
        with self._group.turn:
            self._server.write(QUERIES.grant_to_writer, (role,))

    def forget_deletions(self) -> None:
        """Keep of all deletions but the newest only how new they are. The store does so by itself now and then."""
        with self._group.turn:
            self._forget_deletions()

    def compact(self, told: Told | None = None) -> Compacted:
        """Write the tables anew, so that nothing is left in them of what was truncated, overwritten and deleted.

        Each table is locked meanwhile, so nobody reads or writes the store for as long as that takes. It takes as much
        room again as the largest of them.

        Args:
            told: Told after each table how many bytes were looked at, and how many there are.

        Returns:
            How many bytes the tables took before, and take now; and what of the server may keep what was in them.

        Raises:
            InvalidRequest: If it was opened to read only.
            StoreUnavailable: If a table cannot be had in time, or an older transaction may see what was deleted.
        """
        if self._is_read_only:
            raise self._refusal("compact")
        self._check_open()
        with self._server.connect() as connection:
            return compact(self._server, connection, told)

    def _forget_deletions(self) -> None:
        self._deletion_count = 0
        self._server.write(QUERIES.forget_deletions, (Int4(DELETIONS_KEPT),))

    def state_lock(self) -> forks.StateLock | None:
        """What a fork waits for: no transaction is under way then."""
        return self._group.turn

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: it has the store open too, by connections of its own."""
        # What is the parent's is not even closed here: that would end the parent's sessions.
        _INHERITED.append((self._server.left_to_parent(), self._courier))
        self._courier = None
        self._begin_anew()
        if not self._is_closed:
            self._server.open_pool(self._configure)

    def _check_open(self) -> None:
        if self._is_closed:
            raise self._closed()

    # Writing

    def _commit(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """Carry out writes, most often in one transaction. Whoever calls it has the turn in the group."""
        self._check_open()
        now = self.clock()
        if len(requests) == 1 and type(requests[0]) is Append and len(requests[0].events) == 1:
            outcomes = [self._append(requests[0], now)]
        else:
            outcomes = self._commit_all(requests, now)
        return outcomes

    def _commit_all(self, requests: Sequence[WriteRequest], now: int) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(requests)
        batch, indexes = Batch(now, self._limits), list[int]()
        for index, request in enumerate(requests):
            if isinstance(request, Advance) or has_sql(request):
                self._commit_batch(batch, indexes, outcomes)
                batch, indexes = Batch(now, self._limits), []
                outcomes[index] = (
                    self._advance(request) if isinstance(request, Advance) else self._commit_with_sql(request, now)
                )
                continue
            try:
                batch.add(request)
            except MemoryError:
                outcomes[index] = Failed(StoreUnavailable(f"{self._where}: nothing was written: {NO_MEMORY}"))
                continue
            except Exception as error:
                outcomes[index] = Failed(error)
                continue
            indexes.append(index)
            if batch.size_bytes >= BATCH_BYTES or batch.change_count >= BATCH_CHANGES:
                self._commit_batch(batch, indexes, outcomes)
                batch, indexes = Batch(now, self._limits), []
        self._commit_batch(batch, indexes, outcomes)
        return cast(list[Outcome], outcomes)

    def _commit_batch(self, batch: Batch, indexes: Sequence[int], outcomes: list[Outcome | None]) -> None:
        """Carry out a batch, and put the outcomes of its programs where they belong."""
        if not indexes:
            return
        try:
            *found, is_awaited = self._server.write(QUERIES.commit_writes, (self._space(), *batch.parameters()))
            self._tell(is_awaited)
            of_batch = batch.outcomes(*found)
        except PersistError as error:
            # What other batches have written is written.
            of_batch = [Failed(type(error)(*error.args)) for _ in indexes]
        for index, outcome in zip(indexes, of_batch, strict=True):
            outcomes[index] = outcome
        self._deletion_count += batch.delete_count
        if self._deletion_count > DELETIONS_KEPT:
            with suppress(PersistError):  # it is done another time
                self._forget_deletions()

    def _commit_with_sql(self, request: WriteRequest, now: int) -> Outcome:
        """The outcome of a program that has SQL statements: a transaction of its own, so that they fail it alone."""
        writes = request.writes if isinstance(request, Transact) else (request,)
        statements = {index: write for index, write in enumerate(writes) if isinstance(write, Sql)}
        changed: dict[int, int] = {}
        of_batch: list[Outcome] = []

        def go_on(connection: Connection, row: Any) -> bool:
            nonlocal of_batch
            changed.clear()
            of_batch = batch.outcomes(*row[:-1])
            if isinstance(cast(Answered, of_batch[0]).value, Conflict):
                return False
            changed.update(carry_out(connection, self._server.schema, statements))
            return True

        try:
            batch = Batch(now, self._limits)
            for statement in statements.values():
                check_sql(statement, self._limits)
                check_foreign(statement, self._server.schema)
            batch.add(request)
            parameters = (self._space(), *batch.parameters())
            *_, is_awaited = self._server.write_with(QUERIES.commit_writes, parameters, go_on)
            self._tell(is_awaited)
        except MemoryError:
            return Failed(StoreUnavailable(f"{self._where}: nothing was written: {NO_MEMORY}"))
        except Exception as error:
            return Failed(error)
        answers = cast(Answered, of_batch[0]).value
        if isinstance(answers, Conflict):
            return Answered(answers)
        if isinstance(request, Sql):
            return Answered(changed[0])
        others = iter(answers)
        return Answered([changed[index] if index in changed else next(others) for index in range(len(writes))])

    def _advance(self, request: Advance) -> Outcome:
        try:
            self._server.write(QUERIES.go_on_above, (Int8(max(request.position, request.revision)),))
        except PersistError as error:
            return Failed(error)
        return Answered(None)

    def _append(self, request: Append, now: int) -> Outcome:
        """The outcome of what is written most: one event."""
        stream, expected = request.stream, request.expected
        try:
            (draft,) = request.events
            data, meta = codec.encode_apart(stream, draft, self._limits.payload_bytes)
            parameters = (
                self._space(),
                Int4(bucket_of(stream)),
                stream,
                None if expected is None else Int8(expected),
                draft.type,
                Int8(now if draft.at is None else draft.at),
                data,
                meta,
            )
            actual, position, is_awaited = self._server.write(QUERIES.append_event, parameters)
            self._tell(is_awaited)
        except MemoryError:
            raise
        except Exception as error:
            return Failed(error)
        if position is None:
            return Answered(Conflict("stream", stream, cast(int, expected), actual))
        return Answered(Appended(actual + 1, actual + 1, position, now))

    def _tell(self, is_awaited: bool) -> None:
        """Have others told of what was written, where there may be some."""
        if is_awaited and not self._is_closed:
            self._call().tell()

    def _space(self) -> Int4:
        return Int4(self._server.space)

    # Questions

    def _read(self, request: Request[Any]) -> Any:
        self._check_open()
        return self._questions.answer(request)

    # Blobs

    def _put_blob(self, request: BlobPut) -> BlobRef:
        self._check_open()
        size_bytes = len(request.data)
        if size_bytes > BLOB_LIMIT_BYTES:
            raise TooLarge("a blob in PostgreSQL", size_bytes, BLOB_LIMIT_BYTES)
        cid = cid_of(request.data)
        # To put it twice is to put it once, so that it may be asked again where a connection is lost.
        self._server.read(QUERIES.put_blob, (cid, request.data))
        return BlobRef(cid, size_bytes, request.mime)

    def _blob(self, request: BlobGet) -> bytes:
        self._check_open()
        check_cid(request.cid)
        rows = self._server.read(QUERIES.blob, (request.cid,))
        if not rows:
            raise BlobNotFound(request.cid)
        return bytes(rows[0][0])

    def _has_blob(self, request: BlobHas) -> bool:
        self._check_open()
        check_cid(request.cid)
        return bool(self._server.read(QUERIES.has_blob, (request.cid,)))

    # Waiting

    def _newest(self, request: Wait | KvWait) -> int:
        self._check_open()
        return self._questions.newest(request)

    def wait_for_order(self, timeout: float) -> None:
        """Wait until what was acknowledged by now, by anyone, is below every transaction in flight, and so is shown.

        Args:
            timeout: How many seconds at the most. A transaction that somebody leaves open may take any time.

        Raises:
            StoreUnavailable: If it is not, by then. The transaction is named.
        """

        def are_over() -> bool:
            self._check_open()
            return self._questions.transactions()[0] >= begun

        self._check_open()
        over, begun = self._questions.transactions()
        if over >= begun:
            return
        wait_until_told(Gate(), timeout, are_over)
        if not are_over():
            raise StoreUnavailable(
                f"{self._where}: what was acknowledged is still not shown in the order of all streams, after {timeout} "
                f"seconds: a transaction holds it back, {self._questions.held_back_by()}: end it, and ask again"
            )

    def _start_looking(self) -> None:
        self._call().listen()

    def _call(self) -> Courier:
        """The courier, which is there from the first write or wait on."""
        courier = self._courier
        if courier is not None:
            return courier
        with self._lock:
            if self._is_closed:
                raise self._closed()
            if self._courier is None:
                self._courier = Courier(self, self._server)
            return self._courier


def _check_schema(schema: object) -> None:
    if type(schema) is not str or not schema.replace("\0", "") or "\0" in schema:
        raise InvalidRequest(f"schema is {describe(schema)}: give the name of a schema, such as {DEFAULT_SCHEMA!r}")
    if len(schema.encode()) > SCHEMA_LIMIT_BYTES or schema.startswith("pg_") or schema == "information_schema":
        raise InvalidRequest(
            f"schema is {schema!r}: give a name of up to {SCHEMA_LIMIT_BYTES} bytes that does not begin with pg_"
        )
