"""What may stand between a client and a server: something that cuts connections, and something that is slow."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random


class Proxy:
    """Passes bytes on between clients and a server, both at Unix sockets, by one thread.

    Args:
        place: Where clients connect.
        server: Where the server listens.
        cut_after: Gives, for each new connection, after how many bytes it is cut; None: never.
        piece_bytes: How many bytes are passed on at once.
    """

    def __init__(self, place: Path, server: Path, cut_after=lambda: None, piece_bytes: int = 65536) -> None:
        self._server = str(server)
        self._cut_after = cut_after
        self._piece_bytes = piece_bytes
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(place))
        self._listening.listen(128)
        self._waking, self._woken = socket.socketpair()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._left: dict[socket.socket, int] = {}
        self.cuts = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._waking.send(b"x")
        self._thread.join()
        for one in [*self._peers, self._listening, self._waking, self._woken]:
            one.close()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._listening, self._woken, *self._peers], [], [])
            if self._woken in ready:
                return
            for one in ready:
                if one is self._listening:
                    self._accept()
                elif one in self._peers:
                    self._pass_on(one)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._server)
        except OSError:
            client.close()
            server.close()
            return
        self._peers |= {client: server, server: client}
        limit = self._cut_after()
        if limit is not None:
            self._left[client] = self._left[server] = limit

    def _pass_on(self, one: socket.socket) -> None:
        other = self._peers[one]
        left = self._left.get(one)
        try:
            data = one.recv(self._piece_bytes if left is None else min(left, self._piece_bytes))
            other.sendall(data)
        except OSError:
            data = b""
        if left is not None:
            left -= len(data)
            self._left[one] = self._left[other] = left
            if not left:
                self.cuts += 1
                data = b""
        if not data:
            self._drop(one, other)

    def _drop(self, *both: socket.socket) -> None:
        for one in both:
            self._peers.pop(one, None)
            self._left.pop(one, None)
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def slow_proxy(place: Path, server: Path) -> Iterator[Proxy]:
    """One that passes on a byte at a time."""
    proxy = Proxy(place, server, piece_bytes=1)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def cutting_proxy(
    place: Path, server: Path, seed: object, shortest: int = 200, longest: int = 4_000
) -> Iterator[Proxy]:
    """One that cuts each connection after so many bytes, in both directions together, drawn by a seed."""
    random = Random(str(seed))
    proxy = Proxy(place, server, cut_after=lambda: random.randint(shortest, longest))
    try:
        yield proxy
    finally:
        proxy.close()
