"""The agent: the process that serves a file store to all who share it. See `interpreters.stores.served.sharing`."""

import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from interpreters.disk.files import PRIVATE, locked
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.served.listening import SOCKET_MODE, take_place
from interpreters.stores.served.processes import option_of_argument
from interpreters.stores.served.server import LOG, ServedDoor, StoreServer
from interpreters.stores.served.service import run_service
from interpreters.stores.served.sharing import LOG_FILE, SOCKET
from interpreters.stores.served.wire import frame_of
from persist_effects.errors import InternalError, PersistError, StoreLocked, error_to_record

PATIENCE_SECONDS = 2.0
"""How long it waits for a process that has the store for itself: one that is about to end lets go of it."""

LOOK_AGAIN_SECONDS = 0.02

LOG_LIMIT_BYTES = 1024 * 1024
"""Beyond it, a new log is begun, and the last one is kept beside it."""


def main(arguments: list[str]) -> int:
    """Serve a file store until nobody has needed it for a while.

    Args:
        arguments: The descriptor by which it has the lock of the store's directory; that of a socket, over which it
            says that clients can connect, or why they cannot; the directory; after how many seconds without a client it
            ends; and the store's options, as ``NAME=JSON``.

    Returns:
        The process's exit code: 0, or 1 where it could not serve.
    """
    held, telling, root, idle_seconds, *options = arguments
    with socket.socket(fileno=int(telling)) as word:
        try:
            _serve(int(held), word, root, float(idle_seconds), dict(map(option_of_argument, options)))
        except PersistError as error:
            return _failed(word, error)
        except Exception:
            # Its stderr may be nowhere yet, and whoever has started it sees this.
            return _failed(word, InternalError(f"the process that was to serve {root} met\n{traceback.format_exc()}"))
    return 0


def _failed(word: socket.socket, error: PersistError) -> int:
    LOG.error("%s", error)
    _say(word, [0, False, error_to_record(error)])
    return 1


def _say(word: socket.socket, content: Any) -> None:
    # Whoever has started it may be gone, or have heard already all that it wants to know.
    with suppress(OSError):
        word.sendall(frame_of(content))
        word.close()


def _serve(held: int, word: socket.socket, root: str, idle_seconds: float, options: Mapping[str, Any]) -> None:
    # The lock is let go of after the store.
    with ExitStack() as until_closed, _opened(root, options) as store:
        permissions = options.get("permissions", PRIVATE)
        _log_to(os.path.join(root, LOG_FILE), permissions)
        door = take_place(os.path.join(root, SOCKET), permissions | SOCKET_MODE)
        server = StoreServer(
            store.interpreter,
            handlers=store.handlers,
            doors=[door],
            served=dict(options),
            idle_seconds=idle_seconds,
        )

        def on_ready() -> None:
            # Before the lock is given up, so that nobody finds neither.
            os.close(held)
            _say(word, [0, True, None])

        def on_end() -> None:
            _end_being_found(door, root, until_closed)

        run_service(server, told=f"serving {root} in process {os.getpid()}", on_ready=on_ready, on_end=on_end)


def _opened(root: str, options: Mapping[str, Any]) -> Store:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return open_store("file:", path=root, **options)
        except StoreLocked:
            if time.monotonic() >= deadline:
                raise
            time.sleep(LOOK_AGAIN_SECONDS)


def _end_being_found(door: ServedDoor, root: str, until_closed: ExitStack) -> None:
    """From here on clients find nobody, and wait with starting another one until the store is closed."""
    if door.is_in_place():
        until_closed.enter_context(locked(root, is_patient=True))
        door.hide()


def _log_to(path: str, permissions: int) -> None:
    """Have what is logged, and all else that goes to stderr, in a file."""
    with suppress(FileNotFoundError):
        if os.stat(path).st_size > LOG_LIMIT_BYTES:
            os.rename(path, f"{path}.1")
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, permissions)
    os.dup2(number, sys.__stderr__.fileno() if sys.__stderr__ else 2)
    os.close(number)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s", force=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
