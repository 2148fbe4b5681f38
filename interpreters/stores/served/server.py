"""The server: one event loop, which serves a store to all that connect."""

import asyncio
import hmac
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from interpreters.clocks import rows_of_clock
from interpreters.stores.served.answering import Answering
from interpreters.stores.served.arriving import Arriving
from interpreters.stores.served.clients import ServedClient
from interpreters.stores.served.limits import ServingLimits
from interpreters.stores.served.tally import Tally
from interpreters.stores.served.wire import May
from interpreters.threads import forks
from interpreters.threads.descriptors import close_copies
from persist_effects import codec
from persist_effects.capabilities import Capabilities
from persist_effects.errors import InvalidRequest, StoreUnavailable
from persist_effects.machine import Handlers

LOG = logging.getLogger("persist_effects.served")
"""Who was dropped, and why; who came and went, at a lower level."""

_LOOKS_IN_A_LIMIT = 4
"""How often a limit of time is looked at while it runs."""

_LOOK_SECONDS = 1.0
"""How often a server that ends by itself looks whether it is time, at the least."""


class ServedDoor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server listens: a bound socket, and what TLS it speaks there.

    Args:
        listening: The socket, bound and listening.
        where: What messages call it.
        tls: The server's certificate; None: the bytes go as they are.
        close: Undoes what binding it did.
        hide: Has clients find it no more; those that have found it are served on.
        is_in_place: Whether clients that look there find it.
    """

    listening: socket.socket
    where: str
    tls: ssl.SSLContext | None = None
    close: Callable[[], None]
    hide: Callable[[], None] = lambda: None
    is_in_place: Callable[[], bool] = lambda: True


class StoreServer:
    """Serves one store, in one thread, to any number of clients.

    Args:
        interpreter: The store's interpreter. Closing it is for its owner.
        handlers: The table that answers; None: the interpreter's own. A `Store` has one with blobs in it.
        doors: Where it listens. It closes them.
        limits: What a client may take.
        token: What a client must say that may write; None: nothing.
        read_token: What one must say that may only read; None: there are none of these.
        takes_sql: Whether clients may send SQL, where the store takes it: it may be any, so let only those in who may
            do all that the store's own connection may.
        served: How the store was opened, for clients to whom that matters.
        idle_seconds: After how many seconds without a client it ends by itself, and soon where clients do not find it
            any more; None: it does not.

    >>> import socket
    >>> from threading import Thread
    >>> from interpreters import Store, open_store
    >>> from interpreters.stores.served import RemoteStore
    >>> from persist_effects import kv
    >>> here, there = socket.socketpair()
    >>> server = StoreServer(open_store("memory:").interpreter)
    >>> thread = Thread(target=server.run, args=(there,))
    >>> thread.start()
    >>> with Store(RemoteStore(here)) as store:
    ...     store.run(kv.put("color", "red"))
    1
    >>> thread.join()
    """

    def __init__(
        self,
        interpreter: Any,
        *,
        handlers: Handlers | None = None,
        doors: Iterable[ServedDoor] = (),
        limits: ServingLimits | None = None,
        token: str | None = None,
        read_token: str | None = None,
        takes_sql: bool = False,
        served: dict[str, Any] | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        self._doors = list(doors)
        self._interpreter = interpreter
        answering = interpreter.handlers if handlers is None else handlers
        self._handlers = dict(rows_of_clock(interpreter)) | dict(answering)
        codec.check_ops("the table to serve", self._handlers)
        self.capabilities: Capabilities | None = getattr(interpreter, "capabilities", None)
        self.takes_sql = takes_sql
        if self.capabilities is not None and not takes_sql:
            self.capabilities = msgspec.structs.replace(self.capabilities, sql="")
        self.limits = ServingLimits() if limits is None else limits
        self._tokens = _checked_tokens(token, read_token)
        self.served = served
        self._idle_seconds = idle_seconds
        self._left = 0.0
        self.log = LOG
        self.tally = Tally()
        self.is_to_flush: dict[ServedClient, None] = {}
        """The clients that have answers which were not written yet."""
        self._clients: dict[ServedClient, None] = {}
        self.arriving: dict[Arriving, asyncio.Task[None]] = {}
        """The connections of which TLS is not agreed on yet."""
        self._is_leaving = self._is_of_one = False
        self._ended_by: int | None = None
        self._stop: asyncio.Event | None = None
        self._is_empty: asyncio.Event
        self._is_to_stop = False
        self.loop: asyncio.AbstractEventLoop
        self.answering: Answering

    def run(
        self,
        connected: socket.socket | None = None,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
        signals: Sequence[int] = (),
    ) -> int | None:
        """Serve until `stop` is called, in this thread; then answer what has come, and close.

        Args:
            connected: A socket whose peer is the only client; it is served until the peer closes.
            on_ready: Called when clients can connect.
            on_end: Called when it begins to end.
            signals: Which signals end it too. Only in the main thread.

        Returns:
            The signal that ended it, or None.
        """
        forks.register(self)
        try:
            asyncio.run(self._serve(connected, on_ready, on_end, signals))
        finally:
            for door in self._doors:
                door.close()
        return self._ended_by

    @property
    def where(self) -> str:
        """The URL at which clients find its first door."""
        return self._doors[0].where

    def stop(self) -> None:
        """Have it end, from any thread. Before it runs: as soon as it does."""
        self._is_to_stop = True
        stop = self._stop
        if stop is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(stop.set)

    def health(self) -> dict[str, Any]:
        """How it is, for `AskHealth` and for metrics."""
        counts = {"connections": self.connection_count, "waits": self.tally.waits, "dropped": self.tally.dropped}
        commits = {"commits": self.tally.commit_count, "committed": self.tally.committed_count}
        return {**counts, "requests": self.tally.request_count, **commits, "is_leaving": self._is_leaving}

    # For its clients

    @property
    def connection_count(self) -> int:
        """How many connections there are."""
        return len(self._clients) + len(self.arriving)

    def admit(self, client: ServedClient) -> StoreUnavailable | None:
        """Take a new client in, or say why not."""
        self._clients[client] = None
        self.tally.connection_count += 1
        if self._is_leaving:
            return StoreUnavailable("this server is about to end")
        if self.connection_count > self.limits.max_connections:
            return StoreUnavailable(f"this server has {self.limits.max_connections} clients, and takes no more")
        self.log.debug("%s has come", client.name)
        return None

    def may(self, token: str | None) -> May:
        """What a client may do that says this token. Raises `InvalidRequest` where that is nothing."""
        if not self._tokens:
            return "write"
        given = (token or "").encode("utf-8", "surrogatepass")
        # All are compared, whichever fits, so that the time says nothing.
        fitting: list[May] = [may for may, known in self._tokens.items() if hmac.compare_digest(given, known)]
        if not fitting:
            raise InvalidRequest(
                "this server wants a token, and none was given: give token_file=PATH"
                if token is None
                else "this server does not know the token that was given"
            )
        return fitting[0]

    def forget(self, client: ServedClient, error: Exception | None) -> None:
        """A client's connection is closed."""
        self._clients.pop(client, None)
        self._left = self.loop.time()
        self.is_to_flush.pop(client, None)
        self.log.debug("%s has gone%s", client.name, f": {error}" if error else "")
        if self._stop is not None and not self._clients and (self._is_leaving or self._is_of_one):
            self._stop.set()
            self._is_empty.set()

    def _flush(self) -> None:
        clients, self.is_to_flush = self.is_to_flush, {}
        for client in clients:
            client.flush()

    # The loop

    async def _serve(
        self,
        connected: socket.socket | None,
        on_ready: Callable[[], None],
        on_end: Callable[[], None],
        signals: Sequence[int],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._note_bug)
        self._stop, self._is_empty = asyncio.Event(), asyncio.Event()
        self._is_of_one = connected is not None
        self.answering = Answering(self._interpreter, self._handlers, self.tally, self._flush)
        for number in signals:
            self.loop.add_signal_handler(number, self._end_by, number)
        looking = [self.loop.create_task(self._look_for_late())]
        if self._idle_seconds is not None:
            looking.append(self.loop.create_task(self._look_for_end(self._idle_seconds)))
        servers = [await self._open(door) for door in self._doors]
        try:
            if connected is not None:
                await self.loop.connect_accepted_socket(self._new_client, connected)
            if self._is_to_stop:
                self._stop.set()
            on_ready()
            await self._stop.wait()
        finally:
            on_end()
            for server in servers:
                server.close()
            await self._leave()
            for task in looking:
                task.cancel()
            self.answering.end()

    async def _open(self, door: ServedDoor) -> asyncio.AbstractServer:
        made = self._new_client if door.tls is None else partial(Arriving, self, door.tls)
        return await self.loop.create_server(made, sock=door.listening, backlog=1024)

    def _new_client(self) -> ServedClient:
        return ServedClient(self)

    def _end_by(self, number: int) -> None:
        assert self._stop is not None
        if self._ended_by is not None:
            # Told once more, it does not wait for what it is doing.
            self._is_empty.set()
        self._ended_by = number
        self.log.info("told to end by %s", signal.Signals(number).name)
        self._stop.set()

    async def _leave(self) -> None:
        """Answer what was asked, and close."""
        self._is_leaving = True
        for arriving in list(self.arriving):
            arriving.transport.abort()
        for client in list(self._clients):
            client.take_leave()
        if self._clients:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), self.limits.drain_seconds)
        for client in list(self._clients):
            self.log.warning("%s did not take its answers before the end", client.name)
            client.abort()

    async def _look_for_late(self) -> None:
        limits = self.limits
        pause = min(limits.hello_seconds, limits.frame_seconds, limits.stalled_seconds) / _LOOKS_IN_A_LIMIT
        while True:
            await asyncio.sleep(pause)
            now = self.loop.time()
            for client in list(self._clients):
                client.drop_if_late(now)

    async def _look_for_end(self, idle_seconds: float) -> None:
        assert self._stop is not None
        self._left = self.loop.time()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, idle_seconds / _LOOKS_IN_A_LIMIT))
            if not self._clients and self.loop.time() - self._left >= idle_seconds:
                self.log.info("nobody has needed it for %g s", idle_seconds)
                self._stop.set()
            elif not all(door.is_in_place() for door in self._doors):
                self.log.warning("its socket is not in its place any more")
                self._stop.set()

    def _note_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError):
            # A client that went away while it said hello, for instance.
            self.log.info("%s: %s", context.get("message"), error)
        else:
            self.log.error("%s", context.get("message"), exc_info=error)

    # Forks

    def state_lock(self) -> None:
        """A child uses nothing of it, so no fork waits for it."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: what listens and what is connected is the parent's."""
        for door in self._doors:
            door.listening.close()
        arriving = [connection.transport.get_extra_info("socket").fileno() for connection in self.arriving]
        close_copies([*arriving, *(client.descriptor for client in self._clients)])


def _checked_tokens(token: str | None, read_token: str | None) -> dict[May, bytes]:
    if read_token is not None and token is None:
        raise InvalidRequest("there is a token for those that read and none for those that write: give both")
    if token is not None and token == read_token:
        raise InvalidRequest("the token for those that read is the one for those that write: give two")
    given: dict[May, str | None] = {"write": token, "read": read_token}
    return {may: text.encode("utf-8", "surrogatepass") for may, text in given.items() if text is not None}


def serve(
    interpreter: Any,
    connected: socket.socket,
    *,
    handlers: Handlers | None = None,
    limits: ServingLimits | None = None,
    takes_sql: bool = False,
) -> None:
    """Serve one client over a connected socket, until it closes. Then the socket is closed too.

    Args:
        interpreter: The store's interpreter.
        connected: The socket, such as one end of ``socket.socketpair()``.
        handlers: The table that answers; None: the interpreter's own.
        limits: What the client may take.
        takes_sql: Whether it may send SQL.
    """
    StoreServer(interpreter, handlers=handlers, limits=limits, takes_sql=takes_sql).run(connected)
