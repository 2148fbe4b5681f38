"""Servers in threads of the tests' own process, and what stands between them and their clients."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from interpreters.runtime.interpreter import Interpreter
from interpreters.runtime.store import Store
from interpreters.stores.served.listening import listen_at
from interpreters.stores.served.server import StoreServer

PATIENCE_SECONDS = 60


def until(is_so: Callable[[], object]) -> None:
    """Ask again and again, for so long that whoever makes it so must have had the time, however busy the machine is."""
    deadline = time.monotonic() + 5 * PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it is not so, and will not be"


class Ending:
    """A client that takes what it stands on with it when it is closed."""

    def __init__(self, inner: Interpreter, ends: ExitStack) -> None:
        self._inner, self._ends = inner, ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def close(self) -> None:
        self._inner.close()
        self._ends.close()


@contextmanager
def serving(store: Store, place: Path | str, **options: Any) -> Iterator[str]:
    """Serve a store at a Unix socket's path, or at a URL, and give the URL at which a client finds it."""
    with running(store, place, **options) as server:
        yield server.where


@contextmanager
def running(store: Store, place: Path | str, **options: Any) -> Iterator[StoreServer]:
    """As `serving`, and give the server."""
    tls = options.pop("tls", None)
    door = listen_at(f"unix:{place}" if isinstance(place, Path) else place, tls=tls)
    server = StoreServer(store.interpreter, handlers=store.handlers, doors=[door], **options)
    is_ready = threading.Event()
    thread = threading.Thread(target=server.run, kwargs={"on_ready": is_ready.set}, daemon=True)
    thread.start()
    assert is_ready.wait(PATIENCE_SECONDS)
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
