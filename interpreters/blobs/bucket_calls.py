"""A bucket for threads that wait for its answers, and for the children of their processes."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

from interpreters.blobs.buckets import Bucket, BucketRefused
from interpreters.nats.access import Access
from interpreters.nats.connection import CONNECT_SECONDS, NatsConnection
from interpreters.threads import forks
from persist_effects.errors import StoreClosed

TRY_SECONDS = 2.0
"""How long one try of anything may take."""

LOOK_SECONDS = 1.0
"""How often who waits looks whether it was closed: what is asked at that very moment may never be answered."""

Running = concurrent.futures.Future[Any]


class BucketCalls:
    """A bucket, by a connection that is made when it is needed. For any thread.

    Args:
        servers: Where some of its servers are, as ``host:port``.
        name: The bucket's name.
        access: How the servers know this client.
        timeout_seconds: How long the servers may take to answer, or to be there again.
        read_only: Whether nothing is written.
    """

    def __init__(
        self, servers: Sequence[str], name: str, access: Access, timeout_seconds: float, *, read_only: bool
    ) -> None:
        self.place = f"nats://{','.join(servers)}/{name}"
        self._servers = list(servers)
        self._name = name
        self._access = access
        self._timeout_seconds = timeout_seconds
        self._is_read_only = read_only
        self._is_closed = False
        self._lock = threading.Lock()
        self._opened: tuple[NatsConnection, Bucket] | None = None
        forks.register(self)

    @property
    def bucket(self) -> Bucket:
        """The bucket, by a connection of this process.

        Raises:
            StoreClosed: It was closed.
            StoreUnavailable: There is no connection yet, and none can be made.
        """
        return self._open()[1]

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the connection's loop.

        Args:
            coroutine: The coroutine.

        Returns:
            What it gives.
        """
        return self.result_of(self.begin(coroutine))

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Running:
        """Run a coroutine in the connection's loop, and return at once.

        Args:
            coroutine: The coroutine.

        Returns:
            What is given to `result_of`.
        """
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._open()[0].loop)
        except RuntimeError as error:
            coroutine.close()
            raise self._closed() from error

    def result_of(self, running: Running) -> Any:
        """Wait for a coroutine that was begun.

        Args:
            running: What `begin` returned.

        Returns:
            What it gives.

        Raises:
            StoreClosed: It was closed meanwhile.
            StoreUnavailable: The servers do not answer, or refuse it.
        """
        while not concurrent.futures.wait([running], LOOK_SECONDS).done:
            self.check_open()
        try:
            return running.result()
        except concurrent.futures.CancelledError as error:
            raise self._closed() from error
        except BucketRefused as refused:
            raise self.bucket.told(refused) from refused

    def check_open(self) -> None:
        """Raise `StoreClosed` where it was closed."""
        if self._is_closed:
            raise self._closed()

    def close(self) -> None:
        """Close the connection. Again: nothing."""
        with self._lock:
            self._is_closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened[0].close()

    def state_lock(self) -> forks.StateLock | None:
        """What a fork waits for: no connection is just made then."""
        return self._lock

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: it makes a connection of its own when it needs one."""
        opened, self._opened = self._opened, None
        self._lock = threading.Lock()
        if opened is not None:
            # What is the parent's is not ended here.
            _INHERITED.append(opened)
            opened[0].leave_to_parent()

    def _open(self) -> tuple[NatsConnection, Bucket]:
        opened = self._opened
        if opened is not None:
            return opened
        with self._lock:
            self.check_open()
            if self._opened is None:
                tried, patience = (min(each, self._timeout_seconds) for each in (TRY_SECONDS, CONNECT_SECONDS))
                connection = NatsConnection(self._servers, self._access, tried, patience)
                try:
                    connection.open()
                    bucket = Bucket(connection, self._name, self._timeout_seconds, may_write=not self._is_read_only)
                    self._opened = connection, bucket
                except BaseException:
                    connection.close()
                    raise
            return self._opened

    def _closed(self) -> StoreClosed:
        return StoreClosed(f"{self.place}: the blob store was closed: open it again")


_INHERITED: list[Any] = []
