"""Where the stores stand that are measured by size: how each kind is made, looked at from outside, and killed.

A kind knows what its store takes of the disk and what its servers take of memory, and how long it takes until a store
that was killed answers again. Where one of these makes no sense, or cannot be seen from here, it is None.
"""

import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.ground import allocated_bytes, new_directory
from benchmarks.rows_served import served_file
from benchmarks.table import seconds
from interpreters.nats.private_cluster import PrivateCluster
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.postgres.private_server import PrivateServer
from persist_effects import log
from persist_effects.errors import InvalidRequest, StoreUnavailable

BATCH_MESSAGES = 4_000
"""How many messages these servers of NATS take in one batch: as many as a thousand appends of one event, and more."""


PATIENCE_SECONDS = 60.0
"""How long servers that were started may take until a store on them can be opened."""


class Ground(ABC):
    """What stores of one kind stand on."""

    is_within_its_process = False
    """Whether nobody but the process that has made a store can look at it."""

    serves_many = True
    """Whether a store may be opened several times at once."""

    fills_singly: int | None = None
    """How many writes are made by themselves while a store is filled, after which they are made in transactions."""

    fills_quickly = ""
    """What is added to a URL for a store that is only filled: what is acknowledged need not be on the disk then."""

    def __init__(self) -> None:
        self._names = (f"s{number}" for number in count(1))

    @abstractmethod
    def new_url(self) -> str:
        """The URL of a store that nobody else has."""

    def empty_url(self) -> str:
        """The URL of a store in which there is next to nothing, for what every store takes."""
        return self.new_url()

    def disk_bytes(self, url: str) -> int | None:
        """What a store takes of one disk, with what its kind keeps beside it."""
        return None

    def server_bytes(self) -> int | None:
        """What the server takes of memory: of several the one that takes most."""
        return None

    def recovery_seconds(self, url: str, stream: str) -> float | None:
        """How long it takes from a kill until the store tells the last sequence number of a stream."""
        return None


def patiently_opened(url: str) -> Store:
    """The open store, tried again while its servers have not agreed yet who leads."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return open_store(url)
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise


def asked_seconds(url: str, stream: str) -> float:
    """How long it takes until a store is open and has told the last sequence number of a stream."""

    def ask() -> None:
        with patiently_opened(url) as store:
            assert store.run(log.last_seq(stream)) > 0

    return seconds(ask)


class Given(Ground):
    """Stores that somebody else runs, at URLs with a name of their own: nothing outside of them can be seen."""

    def __init__(self, template: str) -> None:
        super().__init__()
        if "{}" not in template:
            raise InvalidRequest(f"{template!r} is one store, and many are made: write {{}} where their names differ")
        self._template = template

    def new_url(self) -> str:
        """The URL with the next name."""
        return self._template.replace("{}", f"sizing-{secrets.token_hex(4)}")


class Memory(Ground):
    """Stores in this process."""

    is_within_its_process = True
    serves_many = False

    def new_url(self) -> str:
        """Each is another one."""
        return "memory:"


class Files(Ground):
    """Stores in files of this machine. What a killed process leaves is what a copy of its open files has."""

    fills_quickly = "?sync=os"

    def __init__(self, scheme: str, directory: Path) -> None:
        super().__init__()
        self._scheme, self._directory = scheme, directory
        self.serves_many = scheme != "file"

    def new_url(self) -> str:
        """A path of its own, in a directory of its own."""
        place = self._directory / next(self._names)
        place.mkdir()
        return f"{self._scheme}:{place / 'store'}"

    def disk_bytes(self, url: str) -> int:
        """What the files take."""
        return allocated_bytes(Path(url.removeprefix(f"{self._scheme}:")).parent)

    def recovery_seconds(self, url: str, stream: str) -> float:
        """Of a copy of what an open store has on its disk."""
        place = Path(url.removeprefix(f"{self._scheme}:"))
        copy = self._directory / next(self._names)
        with open_store(f"{url}{self.fills_quickly}") as store:
            # The newest segment is not yet sealed, which is what there is to recover.
            store.run_many(log.append(stream, "placed", number) for number in range(10_000))
            shutil.copytree(place.parent, copy)
        try:
            return asked_seconds(f"{self._scheme}:{copy / place.name}", stream)
        finally:
            shutil.rmtree(copy)


class Served(Ground):
    """File stores, each behind a server at a Unix socket."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def new_url(self) -> str:
        """That of the server, which has one store."""
        return self._url

    def empty_url(self) -> str:
        """One that a server in a process of its own has."""
        return "spawn:memory:"

    def server_bytes(self) -> int:
        """That of the process which has the store."""
        return max(map(own_share_bytes, processes_with(self._url)))


class Postgres(Ground):
    """Schemas on a server of PostgreSQL of one's own."""

    def __init__(self, server: PrivateServer) -> None:
        super().__init__()
        self._server = server

    def new_url(self) -> str:
        """A schema of its own."""
        return self._server.url(next(self._names))

    def disk_bytes(self, url: str) -> int:
        """All that the server has on the disk, with its log of changes: one store at a time is measured."""
        return allocated_bytes(self._server.directory)

    def server_bytes(self) -> int:
        """That of all its processes, what they share counted once."""
        return sum(map(own_share_bytes, processes_with(str(self._server.directory))))

    def recovery_seconds(self, url: str, stream: str) -> float:
        """All its processes are killed and started again."""
        self._server.kill()
        return seconds(self._server.start) + asked_seconds(url, stream)


class Nats(Ground):
    """Streams of JetStream on servers of one's own. What lies there is the same, however it was written."""

    fills_singly = 10_000

    def __init__(self, cluster: PrivateCluster) -> None:
        super().__init__()
        self._cluster = cluster

    def new_url(self) -> str:
        """A stream of its own, kept on all servers."""
        return self._cluster.url(next(self._names), replicas=self._cluster.size, batch_messages=BATCH_MESSAGES)

    def disk_bytes(self, url: str) -> int:
        """What the first server has on its disk: one store at a time is measured."""
        return allocated_bytes(self._cluster.directory / "n0")

    def server_bytes(self) -> int:
        """That of the server that takes most."""
        return max(map(own_share_bytes, processes_with(str(self._cluster.directory))))

    def recovery_seconds(self, url: str, stream: str) -> float:
        """All servers are killed and started again."""
        self._cluster.kill()
        return seconds(self._cluster.start) + asked_seconds(url, stream)


def processes_with(text: str) -> list[int]:
    """The processes whose command has this text, and all that they have started."""
    found: set[int] = set()
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode(errors="replace")
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            # It has ended meanwhile.
            continue
        if text in command:
            found.add(int(path.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def own_share_bytes(pid: int) -> int:
    """What a process takes of memory; of what it shares with others, its share."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        # It has ended meanwhile.
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


# Kinds


@contextmanager
def _memory() -> Iterator[Ground]:
    yield Memory()


@contextmanager
def _files(scheme: str) -> Iterator[Ground]:
    with new_directory() as directory:
        yield Files(scheme, directory)


@contextmanager
def _served() -> Iterator[Ground]:
    with new_directory() as directory, served_file(directory) as url:
        yield Served(url)


@contextmanager
def _postgres() -> Iterator[Ground]:
    server = PrivateServer(settings={"max_connections": "1000"})
    try:
        yield Postgres(server)
    finally:
        server.stop()


@contextmanager
def _nats(size: int) -> Iterator[Ground]:
    with PrivateCluster(size, batch_messages=BATCH_MESSAGES) as cluster:
        yield Nats(cluster)


KINDS: dict[str, Callable[[], AbstractContextManager[Ground]]] = {
    "memory:": _memory,
    "file:": partial(_files, "file"),
    "served file:": _served,
    "sqlite:": partial(_files, "sqlite"),
    "postgresql:": _postgres,
    "nats: on one": partial(_nats, 1),
    "nats: on three": partial(_nats, 3),
}
"""What stores of each kind stand on, which is there as long as the block is, and all that it has."""


def ground_of(store: str) -> AbstractContextManager[Ground]:
    """That of a kind, or of a store that is there, by its URL."""
    make = KINDS.get(store)
    return nullcontext(Given(store)) if make is None else make()
