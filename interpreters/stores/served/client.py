"""The client's side: an interpreter whose requests are answered in another process."""

import itertools
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from interpreters.stores.served.transport import (
    WIRE_VERSION,
    PipeTransport,
    Transport,
    leave_to_parent,
    receive_frame,
    send_frame,
)
from interpreters.threads import forks
from interpreters.threads.gates import slices
from persist_effects import codec
from persist_effects.capabilities import Capabilities
from persist_effects.errors import (
    InternalError,
    InvalidRequest,
    PersistError,
    StoreClosed,
    StoreUnavailable,
    UncertainOutcome,
    describe,
    error_from_record,
)
from persist_effects.machine import Handlers
from persist_effects.requests import (
    CHANGES,
    Answered,
    Failed,
    Outcome,
    Request,
)

CLOSING_SECONDS = 5.0
"""How long `close` waits for a request that another thread is just sending."""

_CLOSED = "this store was closed: open it again to run programs"

_decode_frame = msgspec.msgpack.Decoder(tuple[int, bool, msgspec.Raw]).decode
_encode = msgspec.msgpack.Encoder().encode


class RemoteStore:
    """Answers the store's and the blob store's requests by asking the peer of a transport. Usable from any thread.

    A request is checked before it is sent. Where the connection is lost while a write is on its way, the write
    raises `UncertainOutcome`; anything else raises `StoreUnavailable`, and so does every later request. Closed by its
    owner, it raises `StoreClosed`.

    >>> with RemoteStore.spawn("memory:") as interpreter:
    ...     from persist_effects import kv, run
    ...     run(kv.put("color", "red"), interpreter.handlers)
    1
    """

    def __init__(self, transport: Transport, *, _child: "_Child | None" = None) -> None:
        self._transport = transport
        self._child = _child
        try:
            promised = _promised_by(transport, _child)
        except BaseException:
            transport.close()
            raise
        if promised is not None:
            self.capabilities = promised
        # Held while a frame is sent, which may take until the peer has read it.
        self._sending = threading.Lock()
        # Never held for long: replies must be taken in while a frame is being sent, or both sides wait for ever.
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Request[Any], Future[Any]]] = {}
        self._calls = 0
        self._is_closed = False
        self._lost: str | None = None
        self._pid, self._is_fork = os.getpid(), False
        forks.register(self)
        self.handlers: Handlers = dict.fromkeys(codec.STORE_REQUESTS, self._ask)
        self._receiver = threading.Thread(target=self._receive_replies, name="persist-effects replies", daemon=True)
        try:
            self._receiver.start()
        except BaseException:
            self._let_go()
            raise

    @classmethod
    def spawn(cls, url: str, **options: Any) -> "RemoteStore":
        """Start a process that opens a store, and be its client over pipes until `close`.

        Args:
            url: The store's URL, as for `open_store`.
            options: Those of `open_store` that JSON can hold, such as ``payload_limit_bytes``.

        Returns:
            The client, of a store that is open.

        Raises:
            InvalidRequest: If the URL names no store; and whatever else opening the store raises there.
            StoreUnavailable: If the process ends without a word.
        """
        child = _Child(url, options)
        try:
            child.start()
            return cls(child.transport, _child=child)
        except BaseException:
            child.end()
            raise

    def answer_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """The outcomes of several requests, sent without waiting for one another.

        Args:
            requests: The requests.

        Returns:
            The outcomes, in order.
        """
        return [_outcome(answer) for answer in [self._try_send(request) for request in requests]]

    def state_lock(self) -> None:
        """A child uses nothing of it, so no fork waits for it."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: the connection is the parent's, who goes on using it."""
        self._is_fork = True
        self._lock, self._sending = threading.Lock(), threading.Lock()
        # Those that ask are threads of the parent's.
        self._waiting = {}
        leave_to_parent(self._transport)

    def close(self) -> None:
        """Close the connection; requests that still wait are lost. A spawned process is awaited.

        In a forked child this does nothing: the connection is the parent's.
        """
        self._is_closed = True
        if self._is_fork:
            return
        try:
            # A request that is just being sent gets there, unless the peer has stopped reading.
            if self._sending.acquire(timeout=CLOSING_SECONDS):
                self._sending.release()
            self._let_go()
        except BaseException:
            # An interrupt, or an error of a transport's: the rest is let go of all the same.
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Close the connection, and wait for what then ends: the thread, and the process. Again: nothing."""
        self._transport.close()
        if self._receiver.ident is not None:  # and started, as it is unless an interrupt came before
            self._receiver.join()
        if self._child is not None:
            self._child.end()

    def __enter__(self) -> "RemoteStore":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, request: Request[Any]) -> Any:
        answer = self._send(request)
        for seconds in slices(math.inf):
            with suppress(FutureTimeout):
                return answer.result(seconds)
            if answer.done():
                break
        return answer.result()

    def _try_send(self, request: Request[Any]) -> "Future[Any]":
        try:
            return self._send(request)
        except Exception as error:
            refused: Future[Any] = Future()
            refused.set_exception(error)
            return refused

    def _send(self, request: Request[Any]) -> "Future[Any]":
        record = codec.encode_request(request)
        answer: Future[Any] = Future()
        with self._sending:
            call_id = self._register(request, answer)
            try:
                send_frame(self._transport, _encode([call_id, msgspec.Raw(record)]))
            except InvalidRequest:
                with self._lock:
                    self._waiting.pop(call_id, None)
                raise
            except BaseException as error:
                # Part of a frame may be on its way, after which the peer would misread every other.
                with self._lock:
                    self._waiting.pop(call_id, None)
                    self._lost = f"the store is lost: the connection was lost: {error!r}"
                self._transport.close()
                if isinstance(error, BrokenPipeError) and self._child is not None:
                    # It has closed what it reads from, so it is at its end. Who reads its answers says the same.
                    self._lost = f"the store is lost: {self._child.how_it_ended()}"
                if isinstance(error, OSError | ValueError | MemoryError):
                    raise self._lost_error(request) from error
                raise
        return answer

    def _register(self, request: Request[Any], answer: "Future[Any]") -> int:
        with self._lock:
            if self._is_closed:
                raise StoreClosed(_CLOSED)
            if self._is_fork:
                raise StoreUnavailable(
                    f"the connection to the store is that of process {self._pid}, of which process {os.getpid()} is a "
                    "fork: connect anew here, by RemoteStore.spawn(url) or over a transport of its own"
                )
            if self._lost is not None:
                raise StoreUnavailable(self._lost)
            self._calls += 1
            self._waiting[self._calls] = (request, answer)
            return self._calls

    def _receive_replies(self) -> None:
        reason = "its process closed the connection: start it again and connect anew"
        try:
            while (frame := receive_frame(self._transport)) is not None:
                self._settle(frame)
            if self._child is not None:
                reason = self._child.how_it_ended()
        except (OSError, ValueError, StoreUnavailable, msgspec.DecodeError, MemoryError) as error:
            reason = f"the connection was lost: {error or repr(error)}"
        finally:
            with self._lock:
                self._lost = self._lost or f"the store is lost: {reason}"
                waiting = list(self._waiting.values())
                self._waiting.clear()
            for request, answer in waiting:
                answer.set_exception(self._lost_error(request))

    def _lost_error(self, request: Request[Any], reason: str | None = None) -> StoreUnavailable | UncertainOutcome:
        reason = reason or (_CLOSED if self._is_closed else self._lost)
        if type(request) in CHANGES:
            return UncertainOutcome(f"{request.op} was on its way: {reason}; whether it was written is not known")
        kind = StoreClosed if self._is_closed else StoreUnavailable
        return kind(f"{request.op} was not answered: {reason}")

    def _settle(self, frame: bytes) -> None:
        call_id, is_answer, content = _decode_reply(frame)
        with self._lock:
            waiting = self._waiting.pop(call_id, None)
        if waiting is None:
            raise StoreUnavailable(f"a reply came to call {call_id}, which was not made")
        request, answer = waiting
        try:
            if is_answer:
                answer.set_result(codec.decode_answer(request, bytes(content)))
            else:
                answer.set_exception(error_from_record(msgspec.msgpack.decode(content)))
        except MemoryError:
            answer.set_exception(self._lost_error(request, "there was no memory for the answer"))
        except Exception as error:
            # Whatever is wrong with it, somebody waits for it.
            answer.set_exception(InternalError(f"the reply to {request.op} is not what a store answers: {error}"))


def _decode_reply(frame: bytes) -> tuple[int, bool, msgspec.Raw]:
    try:
        return _decode_frame(frame)
    except (ValueError, RecursionError) as error:
        raise StoreUnavailable(f"a frame of {len(frame)} bytes is not a reply: {error}") from error


class _Greeting(msgspec.Struct, forbid_unknown_fields=True):
    wire: int
    capabilities: Capabilities | None


def _promised_by(transport: Transport, child: "_Child | None") -> Capabilities | None:
    """What the peer's store promises, as it greets with. Raises what opening it raised there, and where it has none."""
    frame = receive_frame(transport)
    if frame is None:
        if child is not None:
            raise StoreUnavailable(f"the store {child.url!r} was not opened: {child.how_it_ended()}")
        raise StoreUnavailable("the peer closed the connection before it greeted: see what it says of it")
    call_id, is_open, content = _decode_reply(frame)
    if not is_open:
        raise _error_of_opening(content)
    try:
        greeting = msgspec.msgpack.decode(content, type=_Greeting) if call_id == 0 else _Greeting(1, None)
    except ValueError:
        greeting = _Greeting(1, None)
    if greeting.wire != WIRE_VERSION:
        raise StoreUnavailable(
            f"the peer speaks version {greeting.wire} of the wire, and this package version {WIRE_VERSION}: use the "
            "same release of persist-effects on both sides"
        )
    return greeting.capabilities


def _error_of_opening(content: msgspec.Raw) -> PersistError:
    try:
        return error_from_record(codec.decode(bytes(content)))
    except ValueError as error:
        return InternalError(f"the store was not opened, and the reply does not say why: {error}")


def _outcome(answer: "Future[Any]") -> Outcome:
    error = answer.exception()
    if error is None:
        return Answered(answer.result())
    if not isinstance(error, Exception):
        raise error
    return Failed(error)


_HERE = str(Path(__file__).parents[2])
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from interpreters.serving import main; del sys.path[0]; "
    "sys.exit(main(sys.argv[1:]))"
)
"""What the child runs: this very package, whatever other one of its name stands in the directory where it starts."""


class _Process(subprocess.Popen[bytes]):
    """A process that its owner knows before it is there, so that an interrupt loses none."""

    def __init__(self, owner: "_Child", command: Sequence[str]) -> None:
        owner.process = self
        # In a session of its own, so that a Ctrl-C here reaches this process alone, which then closes the store.
        super().__init__(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)


class _Child:
    """A process that serves a store over its stdin and stdout."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        if type(url) is not str:
            raise InvalidRequest(f"a store's URL is {describe(url)}: give a str, such as 'memory:'")
        self.url = url
        self.process: _Process | None = None
        self._command = [sys.executable, "-P", "-c", _START, _HERE, url, *itertools.starmap(_option, options.items())]

    def start(self) -> None:
        """Start the process."""
        # A fork in another thread would copy the pipes, and the process never see their end.
        with forks.no_fork():
            _Process(self, self._command)
            forks.register(self)

    @property
    def transport(self) -> PipeTransport:
        assert self.process is not None, "it was started"
        return PipeTransport(cast(BinaryIO, self.process.stdout), cast(BinaryIO, self.process.stdin))

    @property
    def pid(self) -> int:
        assert self.process is not None, "it was started"
        return self.process.pid

    def state_lock(self) -> None:
        """No thread changes it."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: the process is not a child of this one, and its pipes are the parent's."""
        if self.process is not None:
            leave_to_parent(self.transport)
            # How it ends is for the parent to ask.
            self.process.returncode = 0

    def how_it_ended(self) -> str:
        """Say it of a process that has closed its stdout, and so is at its end."""
        assert self.process is not None, "it was started"
        code = self.process.wait()
        if code < 0:
            end = f"was killed by signal {-code}, {signal.Signals(-code).name}"
        else:
            end = f"ended with exit status {code}"
        return f"the process that served {self.url!r} {end}: start it again"

    def end(self) -> None:
        """Close what it reads from, upon which it ends, and wait for that."""
        process = self.process
        # An interrupt may have come before it was there.
        if process is not None and getattr(process, "pid", None) is not None:
            self.transport.close()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _option(name: str, value: Any) -> str:
    try:
        return f"{name}={msgspec.json.encode(value).decode()}"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(
            f"the option {name} is {describe(value)}, which cannot go to another process: give a plain value"
        ) from error
