"""One thread and one connection of a store, by which processes tell each other that something was written.

A commit tells nobody by itself, which would have all commits of the server wait for each other. The courier tells
after them, for many at once, and only if somebody may listen. While anybody waits here it listens too, and looks what
was written. It also looks by itself now and then, for what was told is lost with a connection.

Who listens holds a lock that those who write try to get, in their transactions. Who gets it knows that nobody listens,
and whoever begins to listen meanwhile waits for the end of that transaction before it looks for the first time.
"""

import select
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from psycopg.types.numeric import Int4

from interpreters.stores.grouped import GroupedStore
from interpreters.stores.postgres.pool import Connection
from interpreters.stores.postgres.questions import Questions
from interpreters.stores.postgres.server import QUERIES, Server
from interpreters.threads.background import BackgroundThread
from persist_effects.errors import PersistError

GATHER_SECONDS = 0.02
"""For how long what is written is told by one notification."""

LOOK_AGAIN_SECONDS = 1.0
"""How often it is looked, while anybody waits, whether a notification was lost."""

LAG_SECONDS = (0.002, 0.1)
"""After how long, at first and at last, it is looked again while a transaction in flight holds readers back."""


class Courier:
    """Tells and hears for one store, until it is closed, or nobody has the store any more.

    Args:
        store: Whose waits are told of.
        server: Its server.
    """

    def __init__(self, store: GroupedStore, server: Server) -> None:
        self._store = weakref.ref(store, lambda _: self._wake())
        self._server = server
        self._lock = threading.Lock()
        # Something was written here since the last notification; and since those were told that wait here.
        self._is_untold = False
        self._is_unseen = False
        self._is_to_listen = False
        self._is_closed = False
        self._seen = 0
        self._waking, self._woken = socket.socketpair()
        self._waking.setblocking(False)
        self._woken.setblocking(False)
        self._thread = BackgroundThread(self._run, "persist-effects courier")
        self._thread.start()

    # Called by others

    def tell(self) -> None:
        """Say that something was written here."""
        # Where it is known already, or nobody waits here, the thread is not disturbed once more.
        is_new = not self._is_untold or (self._is_to_listen and not self._is_unseen)
        self._is_untold = self._is_unseen = True
        if is_new:
            self._wake()

    def listen(self) -> None:
        """See to it that what is written from now on is noticed, as long as anybody waits."""
        with self._lock:
            if self._is_to_listen:
                return
            _, _, self._seen, _ = Questions(self._server.read).changed_since(1 << 62)
            self._is_to_listen = True
        self._wake()

    def close(self) -> None:
        """End it."""
        self._is_closed = True
        self._wake()
        self._thread.join()
        self._waking.close()
        self._woken.close()

    def _wake(self) -> None:
        # Where it is full, or closed, there is nothing to wake.
        with suppress(OSError):
            self._waking.send(b"\0")

    # The thread

    def _run(self) -> None:
        link: _Link | None = None
        while not self._is_over():
            try:
                if link is None:
                    link = _Link(self._server.connect(), self._server.space)
                pause = self._work(link)
            except (psycopg.Error, PersistError, OSError):
                # Who waits looks by itself now and then, and is told what is wrong.
                if link is not None:
                    link.close()
                link, pause = None, LOOK_AGAIN_SECONDS
            self._rest(link, pause)
        if link is not None:
            link.close()

    def _is_over(self) -> bool:
        return self._is_closed or self._store() is None

    def _work(self, link: "_Link") -> float | None:
        """Do what is to be done, and say how long nothing may be done then; None: until something happens."""
        with self._lock:
            store = self._store()
            if self._is_to_listen and (store is None or not store.is_waited_for):
                self._is_to_listen = False
        is_heard = link.listen(self._is_to_listen)
        is_unseen, self._is_unseen = self._is_unseen, False
        pause = LOOK_AGAIN_SECONDS if link.is_listening else None
        if link.is_listening and store is not None:
            now = time.monotonic()
            if is_heard or is_unseen or now >= link.look_at:
                pause = self._look(link, store)
                link.look_at = now + pause
            else:
                pause = link.look_at - now
        if self._is_untold:
            wait_seconds = link.seconds_until_notification()
            if wait_seconds > 0:
                return wait_seconds if pause is None else min(pause, wait_seconds)
            self._is_untold = False
            link.notify()
        return pause

    def _look(self, link: "_Link", store: GroupedStore) -> float:
        """Tell those that wait what has changed, and say when to look again."""
        streams, keys, self._seen, newest = link.questions.changed_since(self._seen)
        store.tell_of(streams, keys)
        if newest < self._seen:
            link.lag_seconds = LAG_SECONDS[0]
            return LOOK_AGAIN_SECONDS
        link.lag_seconds = min(2 * link.lag_seconds, LAG_SECONDS[1])
        return link.lag_seconds

    def _rest(self, link: "_Link | None", pause: float | None) -> None:
        sources: list[Any] = [self._woken]
        if link is not None:
            sources.append(link.connection.fileno())
        readable, _, _ = select.select(sources, [], [], pause)
        if self._woken in readable:
            with suppress(BlockingIOError):
                while self._woken.recv(4096):
                    pass
        if link is not None and len(readable) > (self._woken in readable):
            link.receive()


class _Link:
    """The courier's connection, and what has come over it."""

    def __init__(self, connection: Connection, space: int) -> None:
        self.connection = connection
        self._space = Int4(space)
        self.questions = Questions(self._ask)
        self.is_listening = False
        self.look_at = 0.0
        self.lag_seconds = LAG_SECONDS[0]
        self._notified_at = float("-inf")
        self._has_heard = False
        self._is_lost = False
        connection.add_notify_handler(self._hear)

    def _ask(self, query: LiteralString, parameters: Any = ()) -> list[Any]:
        return self.connection.ask(query, parameters).fetchall()

    def _hear(self, notify: psycopg.Notify) -> None:
        # What was written here is known.
        if notify.pid != self.connection.info.backend_pid:
            self._has_heard = True

    def listen(self, is_to_listen: bool) -> bool:
        """Listen, or no more, and say whether there is something to look at."""
        if is_to_listen != self.is_listening:
            self.connection.execute(QUERIES.listen if is_to_listen else QUERIES.unlisten)
            self._ask(QUERIES.await_writes if is_to_listen else QUERIES.await_no_writes, (self._space,))
            self.is_listening = is_to_listen
            self._has_heard = True
        if self._is_lost:
            raise psycopg.OperationalError("the server has closed the connection")
        has_heard, self._has_heard = self._has_heard, False
        return has_heard

    def seconds_until_notification(self) -> float:
        """How long to gather what is written before others are told of it."""
        return self._notified_at + GATHER_SECONDS - time.monotonic()

    def notify(self) -> None:
        """Tell others that something was written."""
        self.connection.execute(QUERIES.notify)
        self._notified_at = time.monotonic()

    def receive(self) -> None:
        """Take what the server has sent."""
        try:
            self.connection.pgconn.consume_input()
        except psycopg.OperationalError:
            self._is_lost = True
            return
        while (notify := self.connection.pgconn.notifies()) is not None:
            if notify.be_pid != self.connection.info.backend_pid:
                self._has_heard = True

    def close(self) -> None:
        with suppress(psycopg.Error):
            self.connection.close()
