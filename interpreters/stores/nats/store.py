"""The store on NATS JetStream: one connection, one event loop in a thread of its own, for all threads and tasks."""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, cast

from interpreters.blobs.later import BlobsLater
from interpreters.blobs.objects import NatsBlobs
from interpreters.clocks import Clock, RandomBytes, checked_clock, checked_random, wall_clock
from interpreters.nats.access import Access
from interpreters.nats.connection import CONNECT_SECONDS, Denied, NatsConnection, Unanswered
from interpreters.stores.asking import Alone, asked_alone
from interpreters.stores.group import WriteRequest
from interpreters.stores.nats.acknowledging import acknowledgement_of
from interpreters.stores.nats.barriers import Barriers
from interpreters.stores.nats.commits import limits_of, writes_of
from interpreters.stores.nats.jetstream import NO_ROOM, JetStream, Refused
from interpreters.stores.nats.latest import Latest
from interpreters.stores.nats.making import PATIENCE_SECONDS, check_version, make_stream, peers_of
from interpreters.stores.nats.numbers import ToldNumbers
from interpreters.stores.nats.reader import Reader
from interpreters.stores.nats.subjects import Subjects
from interpreters.stores.nats.writer import NatsWriter, Waiting
from interpreters.threads import forks
from interpreters.threads.gates import Notify
from persist_effects import codec
from persist_effects.capabilities import Capabilities
from persist_effects.errors import InternalError, InvalidRequest, PersistError, StoreClosed, StoreUnavailable, describe
from persist_effects.event import check_integer
from persist_effects.machine import Handlers
from persist_effects.requests import (
    READS,
    WAITS,
    WRITES,
    Advance,
    Answered,
    Append,
    Failed,
    KvWait,
    Outcome,
    Request,
    Wait,
)

GRACE_SECONDS = 0.5
"""How much longer than its timeout a read may take."""

TRY_SECONDS = 2.0
"""How long one try of anything may take."""

MESSAGE_OVERHEAD_BYTES = 8192
"""How many bytes of a message are left for its headers, and for what a body has beside its value."""

ToldRequests = Sequence[tuple[Request[Any], Callable[[Outcome], None]]]
"""Requests, and what is called with the outcome of each, in the store's thread."""

_LONG_SECONDS = 86_400 * 365
"""Longer than anybody waits: an event loop takes no endless time."""

_CLOSED = "this store was closed: open it again to run programs"

_LEFT: list[Any] = []
"""In a forked child: what is the parent's, and must be neither used nor ended."""


class NatsStore:
    """An interpreter that keeps a store in a stream of JetStream. Any number of processes may have it open.

    Its blobs are in a bucket of JetStream's object store, which is made when one is first asked for.

    Args:
        servers: Where some of its servers are, as ``host:port``.
        name: The store's name.
        prefix: What stands before the name in all subjects; tokens between dots.
        access: How the servers know this client.
        replicas: On how many servers it is kept; None: on as many as it is, or on one where it is made.
        timeout: How many seconds a request may take.
        batch_messages: How many messages these servers take in an atomic batch.
        monitor: Where the servers' monitoring ports are, as ``http://host:8222,http://host2:8222``: there they are
            asked whether they sync each write.
        clock: Gives microseconds since 1970, UTC: that of this process.
        random_bytes: Gives so many: what fresh identifiers are made of.
        payload_limit_bytes: How large one value may be; None: 8 MiB, or as much as a message of these servers holds.

    Raises:
        InvalidRequest: If an option makes no sense, the servers do not let this client in, or the stream is of another
            kind.
        StoreUnavailable: If no server answers, or the stream cannot be had there.
    """

    blocking = True

    def __init__(
        self,
        servers: Sequence[str],
        name: str,
        *,
        prefix: str = "",
        access: Access | None = None,
        replicas: int | None = None,
        timeout: float = 30.0,
        batch_messages: int = 1_000,
        monitor: str = "",
        clock: Clock = wall_clock,
        random_bytes: RandomBytes = os.urandom,
        payload_limit_bytes: int | None = None,
    ) -> None:
        if replicas is not None:
            check_integer("replicas", replicas, 1, 5)
        if payload_limit_bytes is not None:
            check_integer("payload_limit_bytes", payload_limit_bytes, 1)
        check_integer("batch_messages", batch_messages, 2, 1_000_000)
        if type(timeout) not in (int, float) or not 0.1 <= timeout <= 86_400:
            raise InvalidRequest(f"timeout is {describe(timeout)}: give a number of seconds from 0.1 to 86400")
        self._subjects = Subjects(f"{prefix}.{name}" if prefix else name)
        self._stream_name = self._subjects.store.replace(".", "_")
        self._replicas, self._timeout, self._batch_messages = replicas, timeout, batch_messages
        self._monitors = [one.rstrip("/") for one in monitor.split(",")] if monitor else []
        if not all(one.startswith(("http://", "https://")) for one in self._monitors):
            raise InvalidRequest(f"monitor is {monitor!r}: give http://HOST:PORT of each server, with commas between")
        self.clock = checked_clock(clock)
        self.random_bytes = checked_random(random_bytes)
        self._payload_limit_bytes = payload_limit_bytes
        self._connect = partial(
            NatsConnection, list(servers), access or Access(), min(TRY_SECONDS, timeout), min(CONNECT_SECONDS, timeout)
        )
        self.blobs = BlobsLater(
            partial(_open_bucket, list(servers), f"{self._stream_name}_blobs", access, replicas, timeout),
            f"the bucket {self._stream_name}_blobs",
        )
        self._is_closed = False
        self._connecting = threading.Lock()
        self._connection: NatsConnection | None = None
        self.handlers: Handlers = {
            **dict.fromkeys(WRITES | READS, self._ask),
            **dict.fromkeys(WAITS, self._wait),
            **self.blobs.handlers,
        }
        try:
            forks.register(self)
            self._connected()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> NatsConnection:
        """The connection. It is made where there is none: when it is opened, and in a forked child."""
        connection = self._connection
        if connection is None:
            with self._connecting:
                connection = self._connection
                if connection is None:
                    if self._is_closed:
                        raise StoreClosed(_CLOSED)
                    # It holds nothing yet, so an interrupt leaves nothing behind.
                    connection = self._connect()
                    try:
                        connection.open()
                        connection.call(self._open, connection)
                        self._abandoned = weakref.finalize(self, connection.abandon)
                        self._connection = connection
                    except BaseException:
                        connection.close()
                        raise
        return connection

    async def _open(self, connection: NatsConnection) -> None:
        stream = JetStream(connection, self._stream_name)
        version = connection.client.connected_server_version
        check_version((version.major, version.minor, str(version)), connection.where)
        info = await make_stream(stream, self._subjects.all, self._replicas, min(PATIENCE_SECONDS, self._timeout))
        await self._look_at_servers(connection, info)
        message_bytes = connection.client.max_payload - MESSAGE_OVERHEAD_BYTES
        payload_bytes = self._payload_limit_bytes or min(codec.PAYLOAD_LIMIT_BYTES, message_bytes)
        if payload_bytes > message_bytes:
            raise InvalidRequest(
                f"payload_limit_bytes is {payload_bytes}, and a message of these servers holds {message_bytes}: raise "
                f"their max_payload to {payload_bytes + MESSAGE_OVERHEAD_BYTES} or more"
            )
        self.capabilities = Capabilities(
            durability=self.acknowledgement.durability,
            processes="many",
            payload_limit_bytes=payload_bytes,
            batch_limit=self._batch_messages // 2,
            reopen=True,
        )
        barriers = Barriers(stream)
        latest = Latest(stream, self._subjects, barriers)
        self._numbers = ToldNumbers(stream, self._subjects, latest)
        self._reader = Reader(
            connection, stream, self._subjects, barriers=barriers, latest=latest, numbers=self._numbers
        )
        self._writer = NatsWriter(
            stream,
            self._subjects,
            limits_of(payload_bytes, message_bytes),
            clock=self.clock,
            batch_messages=self._batch_messages,
            located=self._reader.located,
            latest=latest,
            numbers=self._numbers,
        )
        connection.on_end.append(partial(_end, self._reader, self._writer))

    async def _look_at_servers(self, connection: NatsConnection, info: dict[str, Any]) -> dict[str, str]:
        """The servers on which the stream is, and how each is; with them it is known what an acknowledgement means."""
        peers = peers_of(info) or {connection.client.server_name: "leads"}
        self.acknowledgement = await asyncio.to_thread(acknowledgement_of, peers, self._monitors)
        return peers

    # Asking

    def submit(self, requests: Sequence[Request[Any]], done: Callable[[int, Outcome], None]) -> None:
        """Ask several requests, and return at once.

        Args:
            requests: The requests.
            done: Called with the index of each and its outcome, as it comes, in the store's thread.
        """
        asked = [(request, partial(done, index)) for index, request in enumerate(requests)]
        try:
            if self._is_closed:
                raise StoreClosed(_CLOSED)
            self._connected().do(partial(self._take, asked), partial(_refuse, asked))
        except PersistError as error:
            for _, told in asked:
                told(Failed(error))

    def _ask(self, request: Request[Any]) -> Any:
        if self._is_closed:
            raise StoreClosed(_CLOSED)
        connection = self._connected()

        def begin(done: Callable[[Outcome], None]) -> None:
            asked = [(request, done)]
            connection.do(partial(self._take, asked), partial(_refuse, asked))

        return asked_alone(begin)

    def _take(self, asked: ToldRequests) -> None:
        writes: list[Waiting] = []
        deadline = time.monotonic() + self._timeout
        for request, told in asked:
            if self._is_closed:
                told(Failed(StoreClosed(_CLOSED)))
            elif type(request) in WRITES and not isinstance(request, Advance):
                write = cast(WriteRequest, request)
                refused = self._beyond_limit(write)
                if refused is None:
                    writes.append(Waiting(write, told, deadline))
                else:
                    told(Failed(refused))
            else:
                answering = self._connected().start(self._answer(request, told, deadline))
                answering.add_done_callback(partial(_tell_of_end, told))
        if writes:
            self._writer.take(writes)

    def _beyond_limit(self, request: WriteRequest) -> InvalidRequest | None:
        limit = self.capabilities.batch_limit or 0
        writes = writes_of(request)
        if len(writes) > limit:
            return InvalidRequest(f"a transaction of {len(writes)} writes is over the limit of {limit}: make several")
        for write in writes:
            if isinstance(write, Append) and len(write.events) > limit:
                return InvalidRequest(
                    f"an append of {len(write.events)} events is over the limit of {limit}: make several"
                )
        return None

    async def _answer(self, request: Request[Any], told: Callable[[Outcome], None], deadline: float) -> None:
        while True:
            try:
                if isinstance(request, Advance):
                    await self._numbers.advance(max(request.position, request.revision))
                    told(Answered(None))
                else:
                    async with asyncio.timeout(deadline + GRACE_SECONDS - time.monotonic()):
                        answer = await self._reader.answer(request)
                    told(Answered(answer))
                return
            except (Unanswered, TimeoutError, Refused) as error:
                reason = error if str(error) else f"it takes longer than {self._timeout:g} s"
                if time.monotonic() > deadline or _is_final(error):
                    told(Failed(StoreUnavailable(f"{request.op} was not answered: {reason}")))
                    return
                await asyncio.sleep(0.05)
            except PersistError as error:
                told(Failed(error))
                return
            except Exception as error:
                told(Failed(InternalError(f"{request.op} met {type(error).__name__}: {error}")))
                return

    def health(self) -> dict[str, Any]:
        """How the store is: what an acknowledgement means, and how each of its servers is.

        Returns:
            That, its messages and bytes on each server, and its limits, by name.

        Raises:
            StoreUnavailable: If there is no answer.
        """
        connection = self._connected()
        try:
            return dict(connection.call(self._health, connection))
        except (Unanswered, Refused) as error:
            raise StoreUnavailable(f"{connection.where}: {error}") from error

    async def _health(self, connection: NatsConnection) -> dict[str, Any]:
        info = await JetStream(connection, self._stream_name).api(f"STREAM.INFO.{self._stream_name}")
        peers = await self._look_at_servers(connection, info)
        return {
            "acknowledged": self.acknowledgement.meaning,
            "durability": self.acknowledgement.durability,
            **{f"server {name}": state for name, state in peers.items()},
            "connected to": connection.server,
            "nats-server": str(connection.client.connected_server_version),
            "stream": self._stream_name,
            "replicas": info["config"]["num_replicas"],
            "messages": info["state"]["messages"],
            "bytes": info["state"]["bytes"],
            "consumers": info["state"]["consumer_count"],
            "payload_limit_bytes": self.capabilities.payload_limit_bytes,
            "batch_messages": self._batch_messages,
        }

    def compact(self) -> NoReturn:
        """Refuse: what is dropped stays in JetStream's files until it rewrites them, for which nobody can ask.

        Raises:
            InvalidRequest: Always. It says what can be done instead.
        """
        raise InvalidRequest(
            "a store on NATS cannot be compacted: JetStream rewrites a file of its own accord, once less than half of "
            "it is wanted, and never the newest one. To be rid of what was dropped, copy it by `persist-effects "
            f"migrate` to one of another name, and remove this one by `nats stream rm {self._stream_name}`: see "
            "docs/how-to/dropping-streams.md"
        )

    # Waiting

    def watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """Call ``notify()`` once as soon as a wait is over, or the store is closed."""
        token: list[object] = []

        async def begin() -> None:
            newest = await self._reader.answer(request)
            if newest > request.after or self._is_closed:
                notify()
            elif not token:
                token.append(self._reader.watch(request, notify))

        def end() -> None:
            if token and token[0] is not None:
                self._reader.watchers.remove(token[0])
            token.append(None)

        def begun(task: "asyncio.Task[None]") -> None:
            if task.cancelled() or task.exception() is not None:
                # Whoever waits asks by itself, and is told.
                notify()

        connection = self._connected()
        connection.do(lambda: connection.start(begin()).add_done_callback(begun), notify)
        return partial(connection.do, end, _do_nothing)

    def _wait(self, request: Wait | KvWait) -> int:
        if not request.timeout or self._is_closed:
            return int(self._ask(request))
        connection = self._connected()
        alone = Alone()
        waiting: list[asyncio.Task[None]] = []

        def begin() -> None:
            task = connection.start(self._waited(request, alone.done))
            task.add_done_callback(partial(_tell_of_end, alone.done))
            waiting.append(task)

        def end() -> None:
            for task in waiting:
                task.cancel()

        try:
            connection.do(begin, partial(_refuse, [(request, alone.done)]))
            alone.wait()
        except BaseException:
            connection.do(end, _do_nothing)
            raise
        return int(alone.value())

    async def _waited(self, request: Wait | KvWait, told: Callable[[Outcome], None]) -> None:
        """Answer a wait. What is heard after it was asked need not be asked for again: the newest was that then."""
        heard = asyncio.Event()
        token = self._reader.watch(request, heard.set)
        try:
            first = await self._asked(request)
            if isinstance(first, Answered) and first.value <= request.after:
                with suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), min(request.timeout, _LONG_SECONDS))
                newest = self._reader.newest_known(request)
                first = Answered(newest) if newest > request.after else await self._asked(request)
            told(first)
        finally:
            self._reader.watchers.remove(token)

    async def _asked(self, request: Request[Any]) -> Outcome:
        come: list[Outcome] = []
        await self._answer(request, come.append, time.monotonic() + self._timeout)
        return come[0]

    # Closing, and forks

    def close(self) -> None:
        """Close the connection. Again: nothing."""
        self._is_closed = True
        self.blobs.close_home()
        connection = self._connection
        if connection is not None:
            connection.close()
            self._connection = None

    def state_lock(self) -> None:
        """A child uses nothing of it, so no fork waits for it."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: the connection is the parent's. One of its own is made when it is used."""
        self.blobs.leave_to_parent()
        self._connecting = threading.Lock()
        connection, self._connection = self._connection, None
        if connection is not None:
            self._abandoned.detach()
            _LEFT.append((connection, self._reader, self._writer))
            connection.leave_to_parent()


def _refuse(asked: ToldRequests) -> None:
    for _, told in asked:
        told(Failed(StoreClosed(_CLOSED)))


def _tell_of_end(told: Callable[[Outcome], None], task: "asyncio.Task[None]") -> None:
    """Tell whoever asked what a task was to answer that was cancelled, be it before it began."""
    if task.cancelled():
        told(Failed(StoreClosed(_CLOSED)))


def _do_nothing() -> None:
    """What there is to do for one who asks for nothing."""


def _is_final(error: Exception) -> bool:
    """Whether it is of no use to ask again. Also a read writes, as `interpreters.stores.nats.barriers` has it."""
    return isinstance(error, Denied) or (isinstance(error, Refused) and error.code in NO_ROOM)


async def _end(reader: Reader, writer: NatsWriter) -> None:
    reader.watchers.tell_all()
    await writer.close()


def _open_bucket(
    servers: Sequence[str], bucket: str, access: Access | None, replicas: int | None, timeout: float, _: bool
) -> NatsBlobs:
    return NatsBlobs(servers, bucket, access=access, replicas=replicas, timeout_seconds=timeout)
