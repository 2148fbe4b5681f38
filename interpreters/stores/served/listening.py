"""Where a server listens: Unix sockets that only some may use, and TCP ports that are safe to open."""

import errno
import ipaddress
import os
import socket
import ssl
import stat
from contextlib import suppress
from functools import partial

from interpreters.disk.files import Identity, identity_of, locked
from interpreters.stores.served.doors import short_path
from interpreters.stores.served.opening import address_of
from interpreters.stores.served.server import ServedDoor
from persist_effects.errors import InvalidRequest, StoreUnavailable

SOCKET_MODE = 0o600
"""Who may connect to a Unix socket, unless told otherwise: its owner."""

_BACKLOG = 1024


def listen_at(
    url: str, *, mode: int = SOCKET_MODE, tls: ssl.SSLContext | None = None, has_token: bool = False
) -> ServedDoor:
    """Listen at a Unix socket or at a TCP port.

    Args:
        url: ``unix:PATH`` or ``tcp://HOST:PORT``; port 0 is one that is free.
        mode: Who may connect to a Unix socket, as permissions of a file.
        tls: The certificate of a TCP port.
        has_token: Whether clients must say a token.

    Returns:
        The socket, listening.

    Raises:
        InvalidRequest: If the URL is neither; if something that is not a socket is in the way; if others than this
            machine could connect, and would not need a token, or bytes would go as they are.
        StoreUnavailable: If another server listens there, or the system refuses.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "unix" and rest:
        return _listen_unix(rest, mode)
    if scheme != "tcp":
        raise InvalidRequest(f"{url!r} is nowhere to listen: write unix:PATH or tcp://HOST:PORT")
    host, port = address_of(url)
    return _listen_tcp(host, port, tls, has_token=has_token)


def _listen_unix(path: str, mode: int) -> ServedDoor:
    try:
        # One at a time, so that of two that find a dead server's socket neither takes the other's place.
        with locked(os.path.dirname(path) or ".", is_patient=True):
            _make_way(path)
            return take_place(path, mode)
    except OSError as error:
        raise StoreUnavailable(f"unix:{path}: {error}: give a path in a directory that is there") from error


def take_place(path: str, mode: int) -> ServedDoor:
    """Listen at a Unix socket, in the place of whatever has its name. By whoever has the lock of its directory.

    Args:
        path: The socket's path.
        mode: Who may connect, as permissions of a file.

    Returns:
        The socket, listening.

    Raises:
        OSError: If it cannot be made.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before it has a name, so that at no moment others may connect. What is given then is cut by the umask.
        os.fchmod(listening.fileno(), SOCKET_MODE)
        identity = _bind_unix(listening, path, mode)
    except BaseException:
        listening.close()
        raise
    return ServedDoor(
        listening=listening,
        where=f"unix:{path}",
        close=partial(_close_unix, listening, path, identity),
        hide=partial(_hide_unix, path, identity),
        is_in_place=partial(_is_in_place, path, identity),
    )


def _make_way(path: str) -> None:
    """Refuse a path where somebody listens, or where something else is. What a dead server has left is no matter."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidRequest(f"{path} is there, and is not a socket: give another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, short_path(path) as short:
        asking.setblocking(False)
        code = asking.connect_ex(short)
    # Where its queue is full, or it is somebody else's, it is somebody's.
    if code not in (errno.ECONNREFUSED, errno.ENOENT):
        raise StoreUnavailable(f"another server listens at {path}: end it, or give another path")


def _bind_unix(listening: socket.socket, path: str, mode: int) -> Identity:
    """Give it its name once it listens: whoever sees the name can connect."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.unfinished")
    with suppress(FileNotFoundError):
        # What a server has left that was killed just then.
        if stat.S_ISSOCK(os.lstat(temporary).st_mode):
            os.unlink(temporary)
    with short_path(temporary) as short:
        listening.bind(short)
    try:
        listening.listen(_BACKLOG)
        os.chmod(temporary, mode)
        identity = identity_of(os.lstat(temporary))
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return identity


def _is_in_place(path: str, identity: Identity) -> bool:
    try:
        return identity_of(os.lstat(path)) == identity
    except OSError:
        return False


def _hide_unix(path: str, identity: Identity) -> None:
    # Another server may have taken the place of one that was taken for dead.
    if _is_in_place(path, identity):
        with suppress(OSError):
            os.unlink(path)


def _close_unix(listening: socket.socket, path: str, identity: Identity) -> None:
    _hide_unix(path, identity)
    listening.close()


def _listen_tcp(host: str, port: int, tls: ssl.SSLContext | None, *, has_token: bool) -> ServedDoor:
    where = f"tcp://{f'[{host}]' if ':' in host else host}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        if not all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found):
            _check_safe(f"{where}:{port}", tls, has_token=has_token)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise StoreUnavailable(f"{where}:{port}: {error}: give another address, or end who listens there") from error
    bound = listening.getsockname()[1]
    return ServedDoor(listening=listening, where=f"{where}:{bound}", tls=tls, close=listening.close)


def _check_safe(where: str, tls: ssl.SSLContext | None, *, has_token: bool) -> None:
    missing = [name for name, is_there in (("a token", has_token), ("a certificate", tls is not None)) if not is_there]
    if missing:
        raise InvalidRequest(
            f"{where} can be reached from other machines, which needs {' and '.join(missing)}: give --token-file, "
            "--tls-cert and --tls-key, or listen at 127.0.0.1"
        )


def tls_of(certificate: str | os.PathLike[str], key: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """What a server speaks with a certificate.

    Args:
        certificate: The file of the certificate, and of those between it and one that clients know.
        key: The file of its key; None: it stands in the same file.

    Returns:
        What `listen_at` takes.

    Raises:
        InvalidRequest: If they cannot be read, or do not fit each other.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(f"the certificate {certificate} cannot be used: {error}") from error
    return context
