"""New stores that several processes may use at once, by name; each is there as long as its block."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import nats_cluster
import postgres_server
from server_processes import server_process

UrlAt = Callable[[Path], AbstractContextManager[str]]


@contextmanager
def sqlite(place: Path) -> Iterator[str]:
    yield f"sqlite:{place / 'store.db'}"


@contextmanager
def served(place: Path) -> Iterator[str]:
    """A file store behind a server at a Unix socket."""
    with server_process() as server:
        yield server.url


@contextmanager
def postgres(place: Path) -> Iterator[str]:
    yield postgres_server.new_store_url()


@contextmanager
def nats(place: Path) -> Iterator[str]:
    yield nats_cluster.new_store_url()


OWN: dict[str, UrlAt] = {"sqlite": sqlite, "served": served}
"""Those that need no server of others."""

ALL: dict[str, UrlAt] = {**OWN, "postgres": postgres, "nats": nats}
