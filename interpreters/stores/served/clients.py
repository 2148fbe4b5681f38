"""One client of a server, as the server sees it: its calls come in, its answers go out, and its limits are kept.

A client that does not do its part is dropped, and the log says who it was and why. Nothing here waits.
"""

import asyncio
import socket
import struct
from collections import deque
from functools import partial
from logging import Logger
from typing import Any, Protocol

from interpreters.stores.served.answering import Answering
from interpreters.stores.served.limits import ServingLimits
from interpreters.stores.served.tally import Tally
from interpreters.stores.served.wire import (
    HELLO_LIMIT_BYTES,
    WIRE_VERSION,
    AskCompact,
    AskHealth,
    FrameParser,
    Greeting,
    May,
    call_of,
    frame_of,
    hello_of,
    request_of,
)
from persist_effects.capabilities import Capabilities
from persist_effects.errors import (
    InternalError,
    InvalidRequest,
    PersistError,
    StoreUnavailable,
    error_to_record,
    repr_of,
)
from persist_effects.requests import CHANGES, Answered, Failed, KvWait, Outcome, Request, Wait, has_sql

TURN_SECONDS = 0.005
"""How long the calls of one client are taken before the others get their turn."""

PIECE_BYTES = 256 * 1024
"""How many bytes of answers are gathered before they are written, within one turn."""

LINGER_SECONDS = 5.0
"""How long a client that was refused may take to read why."""


class Hosting(Protocol):
    """What a client asks of its server."""

    limits: ServingLimits
    log: Logger
    tally: Tally
    capabilities: Capabilities | None
    takes_sql: bool
    served: dict[str, Any] | None
    loop: asyncio.AbstractEventLoop
    answering: Answering
    is_to_flush: "dict[ServedClient, None]"

    def admit(self, client: "ServedClient") -> StoreUnavailable | None:
        """Take it in, or say why not."""
        ...

    def may(self, token: str | None) -> May:
        """What it may do, or an error."""
        ...

    def health(self) -> dict[str, Any]:
        """How the server is."""
        ...

    def forget(self, client: "ServedClient", error: Exception | None) -> None:
        """It is gone."""
        ...


class ServedClient(asyncio.Protocol):
    """A connection to a server.

    Args:
        server: The server.
    """

    def __init__(self, server: Hosting) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = FrameParser(min(HELLO_LIMIT_BYTES, self._limits.frame_bytes))
        self._may: May | None = None
        self.name = "a client"
        # Frames that were read and not looked at yet.
        self._backlog: deque[bytes] = deque()
        self._is_continuing = False
        self._last_id = 0
        self._in_flight = self._in_flight_bytes = 0
        self._waits: dict[int, asyncio.Task[None]] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_reading = True
        self._is_stalled = self._is_at_end = self._is_closed = False
        self.due: dict[str, float] = {}
        """By when it must have done what it is in the middle of, by the name of the limit."""

    @property
    def descriptor(self) -> int:
        """The number of its socket; negative once that is closed."""
        own: socket.socket = self._transport.get_extra_info("socket")
        return own.fileno()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it in, or tell it that there is no room."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._is_half_closable = transport.can_write_eof()
        self.name = told_peer(transport)
        transport.set_write_buffer_limits(high=self._limits.queue_bytes, low=self._limits.queue_bytes // 4)
        self._must_be_done("hello_seconds")
        refused = self._server.admit(self)
        if refused is not None:
            self.refuse(refused)

    def data_received(self, data: bytes) -> None:
        """Take the calls in that are whole now."""
        if self._is_closed:
            return
        self._server.tally.received_bytes += len(data)
        try:
            self._backlog.extend(self._parser.take(data))
        except InvalidRequest as error:
            self.refuse(error)
            return
        if self._may is not None:
            if self._parser.is_within:
                self._must_be_done("frame_seconds", is_anew=bool(self._backlog))
            else:
                self.due.pop("frame_seconds", None)
        self._work()

    def eof_received(self) -> bool:
        """Answer what it has asked, and then close. Its waits end."""
        self._is_at_end = True
        self._end_waits()
        if self._parser.is_within and not self._is_closed:
            self._server.log.info("%s went away in the middle of a frame", self.name)
        self._work()
        return self._is_half_closable and not self._is_closed

    def pause_writing(self) -> None:
        """It does not read its answers: nothing more is read from it, and it has a while."""
        self._is_stalled = True
        self._must_be_done("stalled_seconds")

    def resume_writing(self) -> None:
        """It has read some of them."""
        self._is_stalled = False
        self.due.pop("stalled_seconds", None)
        self._continue_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._is_closed = True
        self._end_waits()
        self._backlog.clear()
        self._out.clear()
        self.due.clear()
        self._server.forget(self, exc)

    # Calls

    def _work(self) -> None:
        """Take calls for as long as they may be taken, and for this turn."""
        loop = self._server.loop
        end_of_turn = loop.time() + TURN_SECONDS
        while self._backlog and not self._is_stalled and self._in_flight_bytes <= self._limits.queue_bytes:
            self._take(self._backlog.popleft())
            if loop.time() > end_of_turn:
                self._continue_soon()
                break
        self.flush()

    def _continue_soon(self) -> None:
        if not self._is_continuing:
            self._is_continuing = True
            self._server.loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._is_continuing = False
        if not self._is_closed:
            self._work()

    def _take(self, frame: bytes) -> None:
        if self._may is None:
            self._greet(frame)
            return
        try:
            call_id, record = call_of(frame)
            if record is not None and call_id <= self._last_id:
                raise InvalidRequest(f"call {call_id} came after call {self._last_id}: ids count upwards")
        except InvalidRequest as error:
            self.refuse(error)
            return
        if record is None:
            self._end_wait(call_id)
            return
        self._last_id = call_id
        try:
            request = request_of(record)
            if self._may == "read" and type(request) in CHANGES | {AskCompact}:
                raise InvalidRequest(f"{request.op}: this client's token is for reading only")
            if has_sql(request) and not self._server.takes_sql:
                raise InvalidRequest(
                    f"{request.op}: this server takes no SQL: start it with --sql, if clients may do all"
                )
        except InvalidRequest as error:
            self._reply(call_id, Failed(error))
            return
        self._begin(call_id, request, len(frame))

    def _greet(self, frame: bytes) -> None:
        try:
            self._may = self._server.may(hello_of(frame).token)
        except PersistError as error:
            self.refuse(error)
            return
        self.due.pop("hello_seconds", None)
        self._parser.limit_bytes = self._limits.frame_bytes
        greeting = Greeting(WIRE_VERSION, self._server.capabilities, self._may, self._server.served)
        self._send(frame_of([0, True, greeting]))
        self._server.log.debug("%s may %s", self.name, self._may)

    def _begin(self, call_id: int, request: Request[Any], size_bytes: int) -> None:
        now = self._server.loop.time()
        if isinstance(request, AskHealth):
            self._reply(call_id, Answered(self._server.health()))
        elif isinstance(request, Wait | KvWait) and request.timeout > 0:
            if len(self._waits) >= self._limits.max_waits:
                message = f"{request.op}: this connection has {len(self._waits)} waits, and may have no more"
                self._reply(call_id, Failed(StoreUnavailable(message)))
                return
            self._waits[call_id] = task = self._server.loop.create_task(self._wait(call_id, request))
            self._server.tally.waits += 1
            # Not by the task: one that is cancelled before it has begun never does anything.
            task.add_done_callback(partial(self._wait_ended, call_id))
        else:
            self._in_flight += 1
            self._in_flight_bytes += size_bytes
            self._server.answering.ask(request, partial(self._answered, call_id, size_bytes, request.op, now))

    def _answered(self, call_id: int, size_bytes: int, op: str, began: float, outcome: Outcome) -> None:
        self._in_flight -= 1
        self._in_flight_bytes -= size_bytes
        self._server.tally.note(op, self._server.loop.time() - began, is_error=isinstance(outcome, Failed))
        self._reply(call_id, outcome)
        self._server.is_to_flush[self] = None

    async def _wait(self, call_id: int, request: Wait | KvWait) -> None:
        outcome = await self._server.answering.wait(request)
        self._server.tally.note(request.op, None, is_error=isinstance(outcome, Failed))
        self._reply(call_id, outcome)
        self.flush()

    def _wait_ended(self, call_id: int, task: "asyncio.Task[None]") -> None:
        self._server.tally.waits -= 1
        self._waits.pop(call_id, None)
        if not task.cancelled() and task.exception() is not None:
            self._server.log.error("%s: a wait met a bug", self.name, exc_info=task.exception())

    def _end_wait(self, call_id: int) -> None:
        # At once, so that there is room for another one.
        task = self._waits.pop(call_id, None)
        if task is not None:
            task.cancel()

    def _end_waits(self) -> None:
        for task in list(self._waits.values()):
            task.cancel()

    # Answers

    def _reply(self, call_id: int, outcome: Outcome) -> None:
        if self._is_closed:
            return
        if isinstance(outcome, Answered):
            try:
                frame = frame_of([call_id, True, outcome.value])
            except Exception as error:
                frame = frame_of([call_id, False, error_to_record(_unsendable(outcome.value, error))])
        else:
            frame = frame_of([call_id, False, error_to_record(outcome.error)])
        self._send(frame)

    def _send(self, frame: bytes) -> None:
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes > PIECE_BYTES:
            self._write()

    def _write(self) -> None:
        if self._out and not self._is_closed:
            self._server.tally.sent_bytes += self._out_bytes
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0

    def flush(self) -> None:
        """Write what was gathered, see whether more may be read, and whether it is at its end."""
        self._write()
        if self._is_closed:
            return
        is_full = self._is_stalled or self._in_flight_bytes > self._limits.queue_bytes
        if self._backlog and not is_full:
            self._continue_soon()
        may_read = not self._backlog and not is_full and not self._is_at_end
        if may_read != self._is_reading:
            self._is_reading = may_read
            if may_read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
                # What is not read cannot be late.
                self.due.pop("frame_seconds", None)
        if self._is_at_end and not self._in_flight and not self._backlog:
            self._close()

    # Ends

    def take_leave(self) -> None:
        """Tell the client up to which call it was heard, answer those, and close."""
        if self._may is None:
            self._close()
            return
        self._backlog.clear()
        self._is_at_end = True
        self._end_waits()
        self._send(frame_of([0, True, self._last_id]))
        self.flush()

    def refuse(self, error: PersistError) -> None:
        """Tell the client why it is dropped, and drop it."""
        if self._is_closed:
            return
        self._server.log.warning("%s was dropped: %s", self.name, error)
        self._server.tally.dropped += 1
        self._backlog.clear()
        self._send(frame_of([0, False, error_to_record(error)]))
        self._write()
        self._close()
        self._server.loop.call_later(LINGER_SECONDS, self._transport.abort)

    def drop_if_late(self, now: float) -> None:
        """Drop the client if it has not done in time what it began."""
        for name, due in self.due.items():
            if now >= due:
                seconds = getattr(self._limits, name)
                message = _LATE[name].format(seconds)
                if name == "stalled_seconds":
                    # It would not read this either.
                    self._server.log.warning("%s was dropped: %s", self.name, message)
                    self._server.tally.dropped += 1
                    self.abort()
                else:
                    self.refuse(StoreUnavailable(message))
                return

    def abort(self) -> None:
        """Close it without sending what is left."""
        self._is_closed = True
        self._end_waits()
        self._transport.abort()

    def _close(self) -> None:
        self._is_closed = True
        self._end_waits()
        self.due.clear()
        self._transport.close()

    def _must_be_done(self, limit: str, *, is_anew: bool = True) -> None:
        if is_anew or limit not in self.due:
            self.due[limit] = self._server.loop.time() + getattr(self._limits, limit)


_LATE = {
    "hello_seconds": f"no hello came within {{:g}} s: this server speaks version {WIRE_VERSION} of the wire",
    "frame_seconds": "a frame was begun and did not end within {:g} s",
    "stalled_seconds": "it read none of its answers for {:g} s",
}


def _unsendable(content: Any, error: Exception) -> PersistError:
    if isinstance(error, InvalidRequest):
        return error
    # Text may hold what is not UTF-8, such as the name of a file.
    told = f"the reply cannot be sent, {type(error).__name__}: {error}; it is {repr_of(content, 1000)}"
    return InternalError(told.encode("utf-8", "backslashreplace").decode())


_UCRED = struct.Struct("3i")


def told_peer(transport: asyncio.Transport) -> str:
    """How the log calls a client.

    Args:
        transport: Its connection.

    Returns:
        Its process and user, or its address.
    """
    own: socket.socket = transport.get_extra_info("socket")
    if own.family != socket.AF_UNIX:
        host, port = transport.get_extra_info("peername")[:2]
        return f"the client at {host} port {port}"
    if not hasattr(socket, "SO_PEERCRED"):
        return "a client of this machine"
    pid, user, _ = _UCRED.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return f"the client of process {pid}, user {user}"
