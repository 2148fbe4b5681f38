"""Where a client gets its connection from: a socket that is connected already, a Unix socket, TCP."""

import errno
import os
import select
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from persist_effects.errors import InvalidRequest, StoreUnavailable

Ready = Callable[[socket.socket, int], None]
"""Waits until a socket can be read, or written to: ``select.POLLIN`` or ``POLLOUT``. Raises where it is given up."""

DIAL_SECONDS = 10.0
"""How long a server that can be dialled may take to greet, unless its door knows better."""

UNIX_PATH_BYTES = 107
"""How long a path may be that the system takes for a socket."""


class Door(ABC):
    """Where a client's connections come from.

    ``where`` is what messages call it. ``is_dialled``: a lost connection can be made anew, in a forked child too.
    ``comes_back``: where a server goes, another one comes by itself. ``dial_seconds``: how long it may take to greet.
    """

    is_dialled = True
    comes_back = False
    dial_seconds = DIAL_SECONDS
    where = "the peer"

    @abstractmethod
    def connect(self, ready: Ready) -> socket.socket:
        """A connected socket, which does not block. Raises OSError or a PersistError where there is none.

        BlockingIOError says that there will be one soon.
        """

    def check_served(self, options: Mapping[str, Any] | None) -> None:  # noqa: B027 - most take any
        """Raise `InvalidRequest` where the store was opened by the server with other options than are wanted."""

    def advice(self, error: Exception) -> str:
        """What to do about an error, with a colon in front; or nothing."""
        return ""

    def how_it_ended(self) -> str | None:
        """Say it of a peer that has closed the connection, if it is known."""
        return None

    def end(self) -> None:  # noqa: B027 - most have nothing to do there
        """Let go of what is behind it, once its connection is closed."""

    def leave_to_parent(self) -> None:  # noqa: B027 - as above
        """In a forked child: let go of what is the parent's."""


class GivenDoor(Door):
    """A socket that is connected already, and there is no other.

    Args:
        connected: The socket, which is closed with the connection.
    """

    is_dialled = False

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def connect(self, ready: Ready) -> socket.socket:
        """The socket."""
        self._socket.setblocking(False)
        return self._socket

    def end(self) -> None:
        """Close it, also where it was never used."""
        self._socket.close()

    def leave_to_parent(self) -> None:
        """Close the child's copy."""
        self._socket.close()


class UnixDoor(Door):
    """A Unix socket.

    Args:
        path: Its path, as long as a file's may be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.where = f"unix:{self.path}"
        if "\0" in self.path:
            raise InvalidRequest(f"{self.path!r} is not a path: it has a zero character")

    def connect(self, ready: Ready) -> socket.socket:
        """A new connection."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            with short_path(self.path) as path:
                # Where its queue is full, the server does not keep up, and this is tried again.
                made.connect(path)
        except BaseException:
            made.close()
            raise
        return made

    def advice(self, error: Exception) -> str:
        """Tell a server that is not there from a file that is not a socket."""
        if isinstance(error, FileNotFoundError):
            return f": nobody serves there: start `persist-effects serve URL --listen {self.where}`"
        if isinstance(error, ConnectionRefusedError):
            if Path(self.path).is_socket():
                return f": its server is gone: start `persist-effects serve URL --listen {self.where}`"
            return ": it is not a socket: give the path that a server listens at"
        if isinstance(error, PermissionError):
            return ": this user may not connect: see the option --socket-mode of `persist-effects serve`"
        return ""


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """A path of the same file that the system takes for a socket, which a long one is not.

    Args:
        path: The path.

    Returns:
        The path itself, or one by way of its directory's descriptor, for as long as the block goes on.

    Raises:
        OSError: If there is no such directory.
        InvalidRequest: If the name by itself is too long.
    """
    if len(os.fsencode(path)) <= UNIX_PATH_BYTES:
        yield path
        return
    directory, name = os.path.split(path)
    opened = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{opened}/{name}"
        if len(os.fsencode(short)) > UNIX_PATH_BYTES or not os.path.isdir("/proc/self/fd"):
            raise InvalidRequest(f"{path} is too long for a socket: give one of at most {UNIX_PATH_BYTES} bytes")
        yield short
    finally:
        os.close(opened)


class TcpDoor(Door):
    """A TCP port.

    Args:
        host: The server's name or address.
        port: Its port.
        tls: How the server is known; None: the bytes go as they are.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self.where = f"tcp://{f'[{host}]' if ':' in host else host}:{port}"

    def connect(self, ready: Ready) -> socket.socket:
        """A new connection, to the first of the host's addresses that answers."""
        failed: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            made = socket.socket(family, kind, protocol)
            try:
                return self._secured(_connected(made, address, ready), ready)
            except OSError as error:
                made.close()
                failed = error
            except BaseException:
                made.close()
                raise
        raise failed or OSError(f"{self._host} has no address")

    def _secured(self, made: socket.socket, ready: Ready) -> socket.socket:
        if self._tls is None:
            return made
        secured = self._tls.wrap_socket(made, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            while True:
                try:
                    secured.do_handshake()
                    return secured
                except ssl.SSLWantReadError:
                    ready(secured, select.POLLIN)
                except ssl.SSLWantWriteError:
                    ready(secured, select.POLLOUT)
        except BaseException:
            secured.close()
            raise

    def advice(self, error: Exception) -> str:
        """Tell a server that is not there from one that is not known."""
        if isinstance(error, ConnectionRefusedError):
            return f": nobody serves there: start `persist-effects serve URL --listen {self.where}`"
        if isinstance(error, ssl.SSLCertVerificationError):
            return ": its certificate is not one that is known here: give ca_file=PATH"
        if isinstance(error, ssl.SSLError):
            return ": it does not speak TLS, or another one: see the option tls"
        if isinstance(error, socket.gaierror):
            return ": its name is not known"
        return ""


def _connected(made: socket.socket, address: Any, ready: Ready) -> socket.socket:
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = made.connect_ex(address)
    if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        ready(made, select.POLLOUT)
        code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    return made


class ForeignDoor(Door):
    """In a forked child, what stands for a connection that cannot be dialled again.

    Args:
        parent: The process whose connection it is.
    """

    is_dialled = False

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def connect(self, ready: Ready) -> socket.socket:
        """Refuse."""
        raise StoreUnavailable(
            f"the connection to the store is that of process {self._parent}, of which process {os.getpid()} is a "
            "fork: connect anew here, by RemoteStore.spawn(url), or use a store that can be dialled: unix: or tcp:"
        )
