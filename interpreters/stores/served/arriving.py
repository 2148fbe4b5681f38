"""A connection of which TLS is not agreed on yet: counted from the moment it is there, and dropped where it takes long.

asyncio's own server of TLS tells of a connection only after its handshake. Until then nobody would count it.
"""

import asyncio
import ssl
from typing import Protocol

from interpreters.stores.served.clients import Hosting, ServedClient, told_peer

TOLD_BEYOND = 32
"""How many beyond the limit may agree on TLS at once, to be told in words that there is no room."""


class Receiving(Hosting, Protocol):
    """What a connection that arrives asks of its server."""

    arriving: "dict[Arriving, asyncio.Task[None]]"

    @property
    def connection_count(self) -> int:
        """How many there are, with those that arrive."""
        ...


class Arriving(asyncio.Protocol):
    """The handshake of one connection, in front of its client.

    Args:
        server: The server.
        tls: Its certificate.
    """

    def __init__(self, server: Receiving, tls: ssl.SSLContext) -> None:
        self._server = server
        self._tls = tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is any room for it."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._name = told_peer(transport)
        if self._server.connection_count >= self._server.limits.max_connections + TOLD_BEYOND:
            self._drop(f"this server has {self._server.limits.max_connections} clients, and takes no more")
        else:
            self._server.arriving[self] = self._server.loop.create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        loop, seconds = self._server.loop, self._server.limits.hello_seconds
        due = loop.time() + seconds
        early = _Early()
        try:
            secured = await loop.start_tls(
                self.transport, early, self._tls, server_side=True, ssl_handshake_timeout=seconds
            )
        except OSError as error:
            is_late = loop.time() >= due
            self._drop(f"TLS was not agreed on within {seconds:g} s" if is_late else f"no TLS with it: {error}")
            return
        finally:
            self._server.arriving.pop(self, None)
        if secured is None or early.is_gone:
            return
        client = ServedClient(self._server)
        secured.set_protocol(client)
        client.connection_made(secured)
        if "hello_seconds" in client.due:
            client.due["hello_seconds"] = due
        early.hand_on(client)

    def _drop(self, message: str) -> None:
        self._server.log.warning("%s was dropped: %s", self._name, message)
        self._server.tally.dropped += 1
        self.transport.abort()


class _Early(asyncio.Protocol):
    """Keeps what comes in the same breath as the end of the handshake, before there is a client for it."""

    def __init__(self) -> None:
        self._data = b""
        self._is_at_end = False
        self.is_gone = False

    def data_received(self, data: bytes) -> None:
        self._data += data

    def eof_received(self) -> None:
        self._is_at_end = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True

    def hand_on(self, client: ServedClient) -> None:
        if self._data:
            client.data_received(self._data)
        if self._is_at_end:
            client.eof_received()
