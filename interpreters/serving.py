"""``python -m interpreters.serving URL [OPTION=VALUE …]``: open a store and serve it to whoever holds its stdin.

Its stdin is a socket, which goes both ways. It ends when the peer closes that. Where the store is not opened, the peer
is told why.
"""

import os
import socket
import sys
from typing import Any

import msgspec

from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.served.server import serve
from interpreters.stores.served.wire import frame_of
from persist_effects.errors import InvalidRequest, PersistError, error_to_record, repr_of


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
            serve(store.interpreter, connected, handlers=store.handlers)
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
        return open_store(url, **dict(map(_option, options)))
    except Exception as error:
        connected.sendall(frame_of([0, False, error_to_record(error)]))
        raise


def _option(argument: str) -> tuple[str, Any]:
    """A name, and the value that its JSON says."""
    name, _, value = argument.partition("=")
    try:
        return name, msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the option {repr_of(argument)} has no JSON value: write NAME=VALUE") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
