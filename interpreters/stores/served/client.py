"""The client's side: an interpreter whose requests are answered in another process."""

import math
import os
import socket
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from interpreters.blobs.later import BlobsBeside
from interpreters.stores.asking import Alone
from interpreters.stores.compacting import Compacted
from interpreters.stores.served.doors import Door, ForeignDoor, GivenDoor
from interpreters.stores.served.line import Line, WireCall
from interpreters.stores.served.processes import SpawnedDoor
from interpreters.stores.served.wire import FRAME_LIMIT_BYTES, AskCompact, AskHealth, May, WaitForOrder
from interpreters.threads import forks
from interpreters.threads.gates import Notify
from persist_effects import codec
from persist_effects.errors import InvalidRequest, StoreClosed, describe
from persist_effects.machine import Handlers
from persist_effects.requests import Failed, KvWait, Outcome, Request, Sleep, Wait

TIMEOUT_SECONDS = 30.0
"""After how long without an answer a request is given up, unless told otherwise."""

HURRY_SECONDS = 0.02
"""After how long a caller has its connection's thread look after its call, which most answers do not take."""

_FRAME_BYTES = 64
"""What a frame has beside its request's record, at the most."""


class RemoteStore:
    """Answers the store's and the blob store's requests by asking a server. Usable from any thread, by many tasks.

    A request is checked before it is sent. Where the connection is lost and can be dialled again, what was not sent,
    reads and waits are asked again, and a write that was on its way raises `UncertainOutcome`. Where it cannot, or for
    ``timeout`` seconds nobody answers, they raise `StoreUnavailable`. Closed by its owner, it raises `StoreClosed`.

    Args:
        door: Where connections come from; or a connected socket.
        token: What the server is told, where it wants to be.
        timeout: After how many seconds without an answer a request is given up.
        blobs: The home of its blobs, where that can be had without asking the server. It is closed with it.

    Raises:
        StoreUnavailable: If nobody serves there.
        InvalidRequest: If the server does not know the token.

    >>> with RemoteStore.spawn("memory:") as interpreter:
    ...     from persist_effects import kv, run
    ...     run(kv.put("color", "red"), interpreter.handlers)
    1
    """

    def __init__(
        self,
        door: Door | socket.socket,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        blobs: BlobsBeside | None = None,
    ) -> None:
        if type(timeout) not in (int, float) or not 0 < timeout < math.inf:
            raise InvalidRequest(f"timeout is {describe(timeout)}: give a number of seconds over 0")
        self._door = GivenDoor(door) if isinstance(door, socket.socket) else door
        self._token, self._timeout = token, timeout
        self._is_closed = False
        self._pid = os.getpid()
        self.blobs = blobs
        """The home of its blobs, which a `Store` asks; None: the server answers for them."""
        # Whoever runs programs on it sleeps here; no server is asked to.
        answered_elsewhere = {Sleep} | (set() if blobs is None else blobs.handlers.keys())
        self.handlers: Handlers = {kind: self._ask for kind in codec.STORE_REQUESTS if kind not in answered_elsewhere}
        self._line = self._new_line()
        try:
            forks.register(self)
            self._line.start()
            self._line.opened.wait(math.inf)
            self._look_at_greeting()
        except BaseException:
            self.close()
            raise

    def _new_line(self, *, is_patient: bool = False) -> Line:
        line = Line(self._door, self._token, self._timeout, is_patient=is_patient)
        self._abandoned = weakref.finalize(self, line.abandon)
        # At the end of the process the system does it.
        self._abandoned.atexit = False
        return line

    def _look_at_greeting(self) -> None:
        if self._line.failure is not None:
            raise self._line.failure
        greeting = self._line.greeting
        if greeting is None:
            raise StoreClosed("this store was closed while it was being opened")
        self.may: May = greeting.may
        """What this client may do."""
        promised = greeting.capabilities
        if promised is not None:
            processes = "many" if self._door.is_dialled else promised.processes
            self.capabilities = msgspec.structs.replace(promised, processes=processes)

    @classmethod
    def spawn(cls, url: str, **options: Any) -> "RemoteStore":
        """Start a process that opens a store, and be its client until `close`.

        Args:
            url: The store's URL, as for `open_store`.
            options: Those of `open_store` that JSON can hold, such as ``payload_limit_bytes``.

        Returns:
            The client, of a store that is open.

        Raises:
            InvalidRequest: If the URL names no store; and whatever else opening the store raises there.
            StoreUnavailable: If the process ends without a word.
        """
        return cls(SpawnedDoor(url, options))

    def submit(self, requests: Sequence[Request[Any]], done: Callable[[int, Outcome], None]) -> None:
        """Send several requests, and return at once.

        Args:
            requests: The requests.
            done: Called with the index of each and its outcome, as it comes.
        """
        calls = []
        for index, request in enumerate(requests):
            try:
                calls.append(self._call(request, partial(done, index)))
            except Exception as error:
                done(index, Failed(error))
        if calls:
            self._line.ask(calls)

    def watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """Call ``notify()`` once as soon as a wait is over, or the store is closed.

        Args:
            request: What is waited for. Its timeout is for the caller to see to.
            notify: Called in the connection's thread; it must be quick and must not raise.

        Returns:
            The function that ends the watch.
        """
        endless = msgspec.structs.replace(request, timeout=math.inf)
        call = self._call(endless, lambda _: notify())
        line = self._line
        line.ask([call])

        def end_watch() -> None:
            if not call.is_done:
                line.withdraw(call)

        return end_watch

    def wait_for_order(self, timeout: float) -> None:
        """Wait until the order shows all that was acknowledged by now, where it lags: the server asks its store.

        Args:
            timeout: How many seconds at the most.

        Raises:
            StoreUnavailable: If it does not, by then.
        """
        self._ask(WaitForOrder(timeout))

    def health(self) -> dict[str, Any]:
        """How the server is: its counts of connections, waits, requests and commits."""
        found: dict[str, Any] = self._ask(AskHealth())
        return found

    def compact(self) -> Compacted:
        """Have the server's store compacted, while it goes on serving.

        Returns:
            How many bytes it took before, and takes now.

        Raises:
            InvalidRequest: If that store has nothing to compact, or this client may only read.
            StoreUnavailable: If it cannot be done now, or the server is lost.
        """
        bytes_before, bytes_after, elsewhere = self._ask(AskCompact())
        return Compacted(bytes_before, bytes_after, tuple(elsewhere))

    def close(self) -> None:
        """Close the connection; requests that still wait are lost. A spawned process is awaited. Again: nothing."""
        self._is_closed = True
        self._line.close()
        self._abandoned.detach()
        if self.blobs is not None:
            self.blobs.close_home()

    def __enter__(self) -> "RemoteStore":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, request: Request[Any]) -> Any:
        alone = Alone()
        call = self._call(request, alone.done)
        line = self._line
        try:
            line.ask_alone(call)
            if not alone.wait(HURRY_SECONDS):
                line.hurry()
                alone.wait()
        except BaseException:
            line.withdraw(call)
            raise
        return alone.value()

    def _call(self, request: Request[Any], done: Callable[[Outcome], None]) -> WireCall:
        record = codec.encode_request(request)
        if len(record) > FRAME_LIMIT_BYTES - _FRAME_BYTES:
            raise InvalidRequest(f"{request.op} takes {len(record)} bytes, the limit is {FRAME_LIMIT_BYTES}")
        if self._is_closed:
            raise StoreClosed("this store was closed: open it again to run programs")
        return WireCall(request, record, done)

    # Forks

    def state_lock(self) -> None:
        """A child uses nothing of it, so no fork waits for it."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: the connection is the parent's. One of its own is dialled when it is used."""
        self._abandoned.detach()
        self._line.leave_to_parent()
        if self.blobs is not None:
            self.blobs.leave_to_parent()
        if not self._door.is_dialled:
            self._door = ForeignDoor(self._pid)
        self._pid = os.getpid()
        self._line = self._new_line(is_patient=True)
