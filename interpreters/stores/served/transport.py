"""Bytes from one process to another, and frames of them."""

import contextlib
import os
import socket
from typing import BinaryIO, Protocol

from persist_effects.errors import InvalidRequest, StoreUnavailable

FRAME_LIMIT_BYTES = 1024 * 1024 * 1024
"""No request and no page of the largest events comes near it: a longer frame means that the peer speaks otherwise."""

WIRE_VERSION = 2
"""What both sides speak. A peer of version 1 does not say so: it greets by nothing."""

_LENGTH_BYTES = 4

_PIECE_BYTES = 128 * 1024
"""How much is asked for at once, for which memory is taken before it is there. A pipe holds half of it."""


class Transport(Protocol):
    """A stream of bytes in both directions."""

    def send(self, data: bytes) -> None:
        """Send all of these bytes, or raise OSError."""
        ...

    def receive(self, size_bytes: int) -> bytes:
        """Receive at least one byte and at most ``size_bytes``; empty bytes: the peer has closed."""
        ...

    def close(self) -> None:
        """Close both directions. A `receive` that waits in another thread ends."""
        ...


def leave_to_parent(transport: Transport) -> None:
    """In a forked child: close its copy of the descriptors, without a word to the peer, which is the parent's.

    Else the peer of a parent that has closed, or died, would go on waiting for the child. A transport that cannot say
    how (by a method ``close_copy``) is left as it is.
    """
    close_copy = getattr(transport, "close_copy", None)
    if close_copy is not None:
        close_copy()


class SocketTransport:
    """A connected stream socket, such as one end of ``socket.socketpair()``."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def send(self, data: bytes) -> None:
        """Send all of these bytes."""
        self._socket.sendall(data)

    def receive(self, size_bytes: int) -> bytes:
        """Receive some bytes. A peer that closes without having read all that was sent has closed, too."""
        try:
            return self._socket.recv(size_bytes)
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        """Shut the connection down and close it."""
        # The peer may be gone already, which is what is wanted.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close_copy(self) -> None:
        """Close this process's descriptor. The connection lives on in the process that it was copied from."""
        self._socket.close()


class PipeTransport:
    """Two unbuffered binary files, such as a child's ``stdout`` to read from and its ``stdin`` to write to."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Send all of these bytes."""
        rest = memoryview(data)
        while rest:
            written = self._writer.write(rest)
            rest = rest[written:]
        self._writer.flush()

    def receive(self, size_bytes: int) -> bytes:
        """Receive some bytes."""
        return self._reader.read(size_bytes)

    def close(self) -> None:
        """Close the writing side, upon which the peer ends and closes the other."""
        with contextlib.suppress(BrokenPipeError):
            self._writer.close()

    def close_copy(self) -> None:
        """Close this process's descriptors. The pipes live on in the process that they were copied from."""
        # Something else takes their numbers: to close a file object would write what the parent has in its buffer.
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for file in (self._reader, self._writer):
                # One that is closed already has no number.
                with contextlib.suppress(ValueError):
                    os.dup2(nothing, file.fileno(), inheritable=False)
        finally:
            os.close(nothing)


def send_frame(transport: Transport, body: bytes) -> None:
    """Send one frame. Raises `InvalidRequest` for one over the limit, before anything is sent."""
    if len(body) > FRAME_LIMIT_BYTES:
        raise InvalidRequest(
            f"a frame of {len(body)} bytes is over the limit of {FRAME_LIMIT_BYTES}: "
            "ask for smaller pages, or write less at once"
        )
    transport.send(len(body).to_bytes(_LENGTH_BYTES, "big") + body)


def receive_frame(transport: Transport) -> bytes | None:
    """The next frame, or None where the peer has closed after a whole one.

    Raises `StoreUnavailable` where it closed in the middle, or announced a frame over the limit.
    """
    header = _receive_exactly(transport, _LENGTH_BYTES, may_end=True)
    if header is None:
        return None
    length = int.from_bytes(header, "big")
    if length > FRAME_LIMIT_BYTES:
        raise StoreUnavailable(
            f"a frame of {length} bytes was announced, the limit is {FRAME_LIMIT_BYTES}: "
            "the peer speaks another protocol"
        )
    return _receive_exactly(transport, length, may_end=False)


def _receive_exactly(transport: Transport, size_bytes: int, *, may_end: bool) -> bytes | None:
    received = bytearray()
    while len(received) < size_bytes:
        data = transport.receive(min(size_bytes - len(received), _PIECE_BYTES))
        if not data:
            if may_end and not received:
                return None
            raise StoreUnavailable(f"the connection ended after {len(received)} of {size_bytes} bytes of a frame")
        received += data
    return bytes(received)
