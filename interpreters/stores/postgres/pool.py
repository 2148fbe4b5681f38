"""Connections that are lent, each to one thread at a time, and never more than so many.

The driver has a pool of its own. It makes new connections in threads of its own and after pauses that double: where a
server was restarted, each dead connection costs whoever asks another second or two, and while it is down everybody
waits for the whole timeout without a reason. An interrupt at the wrong moment takes a connection out of it for good.
Here a dead connection is seen before it is lent, whoever asks connects by itself and is told why that fails, and what
an interrupt leaves behind is counted no more as soon as nobody has it.
"""

import gc
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from weakref import WeakSet

import psycopg

from interpreters.threads.gates import Gate, wait_until_told
from persist_effects.errors import StoreClosed, StoreUnavailable


class _Place:
    """Room for one connection: taken as long as anybody has it."""

    __slots__ = ("__weakref__",)


class Connection(psycopg.Connection[Any]):
    """A connection with one cursor for all that is asked over it, which knows by then how answers are read."""

    place: _Place | None = None
    _asking: psycopg.Cursor[Any] | None = None

    def ask(self, query: LiteralString, parameters: Any = ()) -> psycopg.Cursor[Any]:
        """Ask one question.

        Args:
            query: The question.
            parameters: Its parameters.

        Returns:
            The cursor, with the answer, until the next question.
        """
        cursor = self._asking
        if cursor is None:
            cursor = self._asking = self.cursor(binary=True)
        return cursor.execute(query, parameters)

    def __del__(self, _: Any = None, /) -> None:
        """Say nothing: an interrupt has left it behind, and what it holds closes itself, but not in a forked child."""

    @property
    def is_alive(self) -> bool:
        """Whether the server has not closed a connection that nobody uses, which is seen without asking it.

        What may come unasked is its last words, which are read as early as its end; nothing else is worth a doubt.
        """
        if self.closed:
            return False
        readable, _, _ = select.select([self.fileno()], [], [], 0)
        return not readable


class Pool:
    """Connections to one server.

    Args:
        connect: Makes one, set up. Raises where that cannot be done.
        limit: How many there are at the most.
        timeout_seconds: How long to wait for one, where all are in use.
        where: What messages call the store.
    """

    def __init__(self, connect: Callable[[], Connection], limit: int, timeout_seconds: float, where: str) -> None:
        self._connect = connect
        self._limit = limit
        self._timeout_seconds = timeout_seconds
        self._where = where
        self._lock = threading.Lock()
        self._places: WeakSet[_Place] = WeakSet()
        self._free: list[Connection] = []
        self._waiting: list[Gate] = []
        self._is_closed = False

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection that nobody else has for the block.

        Raises:
            StoreUnavailable: Where there is none to be had.
        """
        connection = self._take()
        try:
            yield connection
        except BaseException:
            # Whatever state it is in.
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.close()
            raise
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close all that nobody has, and the others once they are given back. Again: nothing."""
        self._is_closed = True
        with self._lock:
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _take(self) -> Connection:
        deadline = time.monotonic() + self._timeout_seconds
        has_collected = False
        while True:
            gate = Gate()
            taken = self._taken_at_once(gate)
            if isinstance(taken, Connection):
                return taken
            if taken is not None:
                connection = self._connect()
                connection.place = taken
                return connection
            left = deadline - time.monotonic()
            if left <= 0 and not has_collected:
                # What an interrupt has left behind knows its cursor, which knows it.
                gc.collect()
                has_collected = True
                continue
            if left <= 0:
                raise StoreUnavailable(
                    f"{self._where}: all of the store's {self._limit} connections were in use for "
                    f"{self._timeout_seconds:g} seconds: open it with more connections"
                )
            wait_until_told(gate, left, self._has_room)

    def _taken_at_once(self, gate: Gate) -> Connection | _Place | None:
        """A connection that is free, or room for a new one; None where this thread is to wait at the gate."""
        with self._lock:
            if self._is_closed:
                raise StoreClosed(f"{self._where}: the store was closed: open it again")
            while self._free:
                connection = self._free.pop()
                if connection.is_alive:
                    return connection
                connection.place = None
                connection.close()
            if len(self._places) < self._limit:
                place = _Place()
                self._places.add(place)
                return place
            self._waiting.append(gate)
            return None

    def _has_room(self) -> bool:
        return bool(self._free) or len(self._places) < self._limit

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if connection.closed or self._is_closed:
                connection.place = None
            else:
                self._free.append(connection)
            gate = self._waiting.pop(0) if self._waiting else None
        if connection.place is None:
            connection.close()
        if gate is not None:
            gate.open()
