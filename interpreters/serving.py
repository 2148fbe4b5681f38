"""A store for other processes: `serve_at` for all that connect, and a process for one client alone.

``python -m interpreters.serving URL [OPTION=VALUE …]`` opens a store and serves it to whoever holds its stdin, a socket
which goes both ways. It ends when the peer closes that. Where the store is not opened, the peer is told why.
"""

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from interpreters.access import secret_in
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.served.limits import ServingLimits
from interpreters.stores.served.listening import listen_at, tls_of
from interpreters.stores.served.opening import address_of
from interpreters.stores.served.processes import option_of_argument
from interpreters.stores.served.server import StoreServer, serve
from interpreters.stores.served.service import run_service, told_of
from interpreters.stores.served.wire import frame_of
from persist_effects.errors import InvalidRequest, PersistError, error_to_record


def serve_at(
    url: str,
    listen: Sequence[str],
    *,
    limits: ServingLimits,
    token_file: Path | None = None,
    read_token_file: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    socket_mode: str = "0600",
    takes_sql: bool = False,
    ready_fd: int | None = None,
    metrics: str | None = None,
) -> int | None:
    """Open a store and serve it until a signal comes. Only in the main thread.

    Args:
        url: The store's URL.
        listen: Where: ``unix:PATH`` or ``tcp://HOST:PORT`` each.
        limits: What a client may take.
        token_file: The file with what clients must say.
        read_token_file: That of those who may only read.
        tls_cert: The certificate of TCP ports.
        tls_key: Its key; None: it stands in the same file.
        socket_mode: Who may connect to a Unix socket, as permissions in octal.
        takes_sql: Whether clients may send SQL, where the store takes it.
        ready_fd: A descriptor that is written to, and closed, once clients can connect.
        metrics: Where to answer with metrics, ``HOST:PORT``.

    Returns:
        The signal that ended it.

    Raises:
        InvalidRequest: If something that was given makes no sense, or is not safe.
        StoreUnavailable: If the store, or a place to listen, cannot be had.
    """
    mode = _mode_of(socket_mode)
    token, read_token = (None if path is None else secret_in(path) for path in (token_file, read_token_file))
    if tls_key is not None and tls_cert is None:
        raise InvalidRequest("there is a key and no certificate: give --tls-cert too")
    tls = None if tls_cert is None else tls_of(tls_cert, tls_key)
    with open_store(url) as store, ExitStack() as ends:
        doors = []
        for place in listen:
            door = listen_at(place, mode=mode, tls=tls, has_token=token is not None)
            ends.callback(door.close)
            doors.append(door)
        server = StoreServer(
            store.interpreter,
            handlers=store.handlers,
            doors=doors,
            limits=limits,
            token=token,
            read_token=read_token,
            takes_sql=takes_sql,
        )
        places = [door.where for door in doors]
        if metrics is not None:
            places.append(_begin_metrics(server, metrics, ends))
        return run_service(server, told=told_of(url, places), ready_fd=ready_fd)


def _mode_of(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777 or mode & 0o600 != 0o600:
        raise InvalidRequest(f"the mode of the socket is {text!r}: give one in octal, from 0600 to 0777")
    return mode


def _begin_metrics(server: StoreServer, address: str, ends: ExitStack) -> str:
    """Answer with metrics, and say where."""
    host, port = address_of(f"tcp://{address}")
    try:
        from interpreters.stores.served.metrics import serve_metrics
    except ModuleNotFoundError as missing:
        raise InvalidRequest(f"metrics need the package {missing.name}: install the extra `metrics`") from missing
    bound, end = serve_metrics(server, host, port)
    ends.callback(end)
    return f"http://{f'[{host}]' if ':' in host else host}:{bound}/metrics"


def main(arguments: list[str]) -> int:
    """Serve one store to the process at the other end of stdin.

    Args:
        arguments: The store's URL, then options as ``NAME=JSON``.

    Returns:
        The process's exit code: 0, 2 for an error that was told, 130 when interrupted.
    """
    if not arguments:
        print("usage: python -m interpreters.serving URL [OPTION=VALUE ...]", file=sys.stderr)
        return 2
    try:
        connected = _stdin()
        with connected, _opened(arguments, connected) as store:
            # The client has named the store, so that it could open it by itself.
            serve(store.interpreter, connected, handlers=store.handlers, takes_sql=True)
    except PersistError as error:
        print(f"persist-effects serve: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("persist-effects serve: interrupted", file=sys.stderr)
        return 130
    return 0


def _stdin() -> socket.socket:
    # A copy, because whoever reads from stdin would take what is the client's.
    number = os.dup(sys.stdin.fileno())
    try:
        return socket.socket(fileno=number)
    except OSError as error:
        os.close(number)
        raise InvalidRequest(
            "stdin is not a socket: RemoteStore.spawn(URL) starts this, and `persist-effects serve` listens"
        ) from error


def _opened(arguments: list[str], connected: socket.socket) -> Store:
    url, *options = arguments
    try:
        return open_store(url, **dict(map(option_of_argument, options)))
    except Exception as error:
        connected.sendall(frame_of([0, False, error_to_record(error)]))
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
