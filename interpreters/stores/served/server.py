"""Serving a handler table over a transport: one client, until it closes."""

import threading
from contextlib import suppress
from typing import Any

import msgspec

from interpreters.stores.served.transport import WIRE_VERSION, Transport, receive_frame, send_frame
from interpreters.threads.gates import wait_in_slices
from persist_effects import codec
from persist_effects.capabilities import Capabilities
from persist_effects.errors import (
    InternalError,
    InvalidRequest,
    PersistError,
    StoreUnavailable,
    UnhandledEffect,
    error_to_record,
    repr_of,
)
from persist_effects.machine import Handler, Handlers, settled
from persist_effects.requests import KvWait, Request, Wait
from persist_effects.rows import UNSETTLED

_decode_call = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode
_encode = msgspec.msgpack.Encoder().encode


def serve(handlers: Handlers, transport: Transport, capabilities: Capabilities | None = None) -> None:
    """Answer the requests that come over a transport, in order, until the peer closes it. Then close it too.

    Requests that wait get a thread each, which ends with the connection, so the others go on. An error from a handler
    goes to the client and ends nothing.

    Args:
        handlers: The table that answers them.
        transport: The connection to the one client.
        capabilities: What the store promises, which the client is told; None: it is not known.

    Raises:
        StoreUnavailable: If the connection breaks in the middle of a frame.
        InvalidRequest: If a frame is not a call.

    >>> import socket, threading
    >>> from interpreters import Store, open_store
    >>> from interpreters.stores.served import RemoteStore, SocketTransport
    >>> from persist_effects import kv
    >>> here, there = socket.socketpair()
    >>> server = threading.Thread(target=serve, args=(open_store("memory:").handlers, SocketTransport(there)))
    >>> server.start()
    >>> with Store(RemoteStore(SocketTransport(here))) as store:
    ...     store.run(kv.put("color", "red"))
    1
    >>> server.join()
    """
    connection = _Connection(handlers, transport)
    try:
        codec.check_ops("the table to serve", handlers)
        connection.greet(capabilities)
        while (frame := receive_frame(transport)) is not None:
            connection.answer(frame)
    finally:
        connection.close()


def send_reply(transport: Transport, call_id: int, is_answer: bool, content: Any) -> None:
    """Send the frame of one reply: an answer, or an error's record. Where it cannot be sent, an error says so."""
    try:
        send_frame(transport, _encode([call_id, is_answer, content]))
    except OSError:
        raise
    except Exception as error:
        send_frame(transport, _encode([call_id, False, error_to_record(_unsendable(content, error))]))


def send_greeting(transport: Transport, capabilities: Capabilities | None = None) -> None:
    """Send the reply to call 0, which nobody made: that the store is open, what is spoken, and what it promises."""
    promised = None if capabilities is None else msgspec.to_builtins(capabilities)
    send_reply(transport, 0, True, {"wire": WIRE_VERSION, "capabilities": promised})


def _unsendable(content: Any, error: Exception) -> PersistError:
    if isinstance(error, InvalidRequest):
        return error
    # Text may hold what is not UTF-8, such as the name of a file.
    told = f"the reply cannot be sent, {type(error).__name__}: {error}; it is {repr_of(content, 1000)}"
    return InternalError(told.encode("utf-8", "backslashreplace").decode())


class _Connection:
    def __init__(self, handlers: Handlers, transport: Transport) -> None:
        self._handlers = handlers
        self._transport = transport
        self._sending = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        with self._sending:
            self._is_closed = True
            self._transport.close()

    def answer(self, frame: bytes) -> None:
        try:
            call_id, record = _decode_call(frame)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"a frame of {len(frame)} bytes is not a call, `[id, request]`: {error}") from error
        try:
            request = codec.decode_request(bytes(record))
        except InvalidRequest as error:
            self._send(call_id, False, error_to_record(error))
            return
        if isinstance(request, Wait | KvWait) and request.timeout > 0:
            threading.Thread(target=self._carry_out, args=(call_id, request), daemon=True).start()
        else:
            self._carry_out(call_id, request)

    def greet(self, capabilities: Capabilities | None) -> None:
        # A peer that is gone already is found out by the loop that receives.
        with suppress(BrokenPipeError, ConnectionError):
            send_greeting(self._transport, capabilities)

    def _carry_out(self, call_id: int, request: Request[Any]) -> None:
        try:
            handler = self._handlers.get(type(request))
            if handler is None:
                raise UnhandledEffect(request.op, type(request).__name__)
            is_wait = isinstance(request, Wait | KvWait)
            answer = self._wait(request, handler) if is_wait else self._answer(request, handler)
        except Exception as error:
            self._send(call_id, False, error_to_record(error))
        else:
            self._send(call_id, True, answer)

    def _answer(self, request: Request[Any], handler: Handler) -> Any:
        answer = handler(request)
        return settled(answer, handler, request, self._handlers) if type(answer) in UNSETTLED else answer

    def _wait(self, request: Any, handler: Handler) -> Any:
        """The answer to a wait, which ends soon after the connection has."""

        def ask(seconds: float) -> int:
            newest: int = self._answer(msgspec.structs.replace(request, timeout=seconds), handler)
            return newest

        return wait_in_slices(ask, request.after, request.timeout, lambda: self._is_closed)

    def _send(self, call_id: int, is_answer: bool, content: Any) -> None:
        try:
            with self._sending:
                # After the end, a request that waited for events may still get its answer, which nobody awaits.
                if not self._is_closed:
                    send_reply(self._transport, call_id, is_answer, content)
        except OSError as error:
            # Nobody is there to be answered. The loop that receives finds that out too, and ends.
            if not isinstance(error, BrokenPipeError | ConnectionError):
                raise StoreUnavailable(f"the answer to call {call_id} could not be sent: {error}") from error
