"""Disks in memory for the tests of the file engine, a store on one of them, and all that a store holds, to compare.

The disks answer `interpreters.disk.requests` from dicts, so that thousands of damaged, full or failing disks take
seconds. The same programs run on a real disk in each of those tests too.
"""

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from interpreters import Store
from interpreters.disk import requests as disk
from interpreters.disk.crashing import MUTATING, CrashDisk
from interpreters.stores.file.engine import Engine, EngineOptions
from persist_effects import Draft, StoreUnavailable, run
from persist_effects.machine import Effect, Handlers
from persist_effects.requests import (
    READS,
    WRITES,
    Append,
    KvDelete,
    KvGet,
    KvKeys,
    KvPut,
    LastSeq,
    Read,
    ReadAll,
    Request,
    Streams,
    Transact,
    TruncateThrough,
)

SYNCS = (disk.Sync, disk.SyncDirectory)
TAKES_ROOM = (disk.MakeDirectory, disk.Create, disk.Write, disk.Allocate, disk.Rename)
"""What a full disk goes on refusing. Cutting and removing make room."""


class MemoryDisk:
    """A disk that never fails: paths to bytes. What it was given is not changed, so an image can be used again."""

    def __init__(self, image: Mapping[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes | bytearray] = dict(image or {})
        self.has_log = any(path.startswith("log/") for path in self.files)
        self.handlers: Handlers = {
            disk.MakeDirectory: self.make_directory,
            disk.Create: self.create,
            disk.Write: self.write,
            disk.Read: self.read,
            disk.ReadPlaces: self.read_places,
            disk.Sync: lambda request: None,
            disk.Truncate: self.truncate,
            disk.Allocate: self.allocate,
            disk.Rename: self.rename,
            disk.Remove: self.remove,
            disk.List: self.list,
            disk.Size: self.size,
            disk.SyncDirectory: lambda request: None,
            disk.Lock: self.lock,
            disk.CheckHeld: lambda request: None,
        }

    def image(self) -> dict[str, bytes]:
        """What is on the disk now."""
        return {path: bytes(data) for path, data in self.files.items()}

    def make_directory(self, request):
        assert request.path == "log"
        self.has_log = True

    def create(self, request):
        if request.path in self.files:
            raise FileExistsError(errno.EEXIST, "there already", request.path)
        self.files[request.path] = bytearray()

    def write(self, request):
        data = self._changeable(request.path)
        if len(data) < request.offset:
            data.extend(bytes(request.offset - len(data)))
        data[request.offset : request.offset + len(request.data)] = request.data

    def read(self, request):
        return bytes(self._found(request.path)[request.offset : request.offset + request.size_bytes])

    def read_places(self, request):
        return [self.read(disk.Read(request.path, offset, request.size_bytes)) for offset in request.offsets]

    def truncate(self, request):
        data = self._changeable(request.path)
        del data[request.size_bytes :]
        data.extend(bytes(request.size_bytes - len(data)))

    def allocate(self, request):
        data = self._changeable(request.path)
        data.extend(bytes(max(0, request.size_bytes - len(data))))

    def rename(self, request):
        self.files[request.target] = self._found(request.source)
        del self.files[request.source]

    def remove(self, request):
        self._found(request.path)
        del self.files[request.path]

    def list(self, request):
        if request.path == "log":
            if not self.has_log:
                raise FileNotFoundError(errno.ENOENT, "not there", request.path)
            return sorted(path[4:] for path in self.files if path.startswith("log/"))
        assert request.path in {"", "."}
        return sorted([path for path in self.files if "/" not in path] + ["log"] * self.has_log)

    def size(self, request):
        data = self.files.get(request.path)
        return None if data is None else len(data)

    def lock(self, request):
        self.files[request.path] = bytearray(request.holder.encode())

    def _found(self, path: str) -> bytes | bytearray:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "not there", path) from None

    def _changeable(self, path: str) -> bytearray:
        data = self._found(path)
        if not isinstance(data, bytearray):
            data = self.files[path] = bytearray(data)
        return data


class SmallDisk(MemoryDisk):
    """A disk of so many bytes. Room is taken in blocks, by files as long as they are."""

    BLOCK_BYTES = 512

    def __init__(self, capacity_bytes: int) -> None:
        super().__init__()
        self.capacity_bytes = capacity_bytes

    def write(self, request):
        """Write as far as there is room, and say so."""
        have = len(self._found(request.path))
        end = request.offset + len(request.data)
        fits = end
        while fits > have and self._used(request.path, fits) > self.capacity_bytes:
            fits -= 1
        super().write(disk.Write(request.path, request.offset, request.data[: max(0, fits - request.offset)]))
        if fits < end:
            raise OSError(errno.ENOSPC, "No space left on device", request.path)

    def allocate(self, request):
        if self._used(request.path, request.size_bytes) > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "No space left on device", request.path)
        super().allocate(request)

    def _used(self, path: str, size_bytes: int) -> int:
        sizes = {other: len(data) for other, data in self.files.items()}
        sizes[path] = max(size_bytes, sizes.get(path, 0))
        return sum(-(-size // self.BLOCK_BYTES) * self.BLOCK_BYTES for size in sizes.values())


class _Node:
    """A file: what readers see, what is on the disk, and the changes between the two."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[Callable[[bytearray], None]] = []


class FailingDisk(MemoryDisk):
    """A disk that counts its requests, and fails the ``fail_at``-th (from 0) of those it is told to.

    It keeps apart what has reached the disk: an image after a loss of power has only what was synced. A sync that
    fails marks what it should have written as clean, so that a later one leaves it out.
    """

    def __init__(
        self,
        *,
        kinds: Iterable[type] = MUTATING,
        code: int = errno.ENOSPC,
        fail_at: int | None = None,
        is_for_good: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.kinds = frozenset(kinds)
        self.code = code
        self.fail_at = fail_at
        self.is_for_good = is_for_good
        self.count = 0
        self.failed: list[Request[Any]] = []
        self._random = Random(seed)
        self._nodes: dict[str, _Node] = {}
        self._durable_names: dict[str, _Node] = {}
        plain = dict(self.handlers)
        plain[disk.Sync] = self._sync
        plain[disk.SyncDirectory] = self._sync_directory
        self.handlers = {kind: self._counted(kind, row) for kind, row in plain.items()}

    def load(self, image: Mapping[str, bytes]) -> None:
        """Begin with these files, all of them synced."""
        for path, data in image.items():
            self.files[path] = data
            node = self._nodes[path] = self._durable_names[path] = _Node()
            node.durable[:] = data
        self.has_log = True

    def heal(self) -> None:
        """Fail no more."""
        self.fail_at = None

    def after_power_loss(self, *, names_survive: bool) -> dict[str, bytes]:
        """What is there after a loss of power: only what was synced; of the names all, or only those synced."""
        names = self._nodes if names_survive else self._durable_names
        return {path: bytes(node.durable) for path, node in names.items()}

    def _counted(self, kind, row):
        def call(request):
            if kind in self.kinds:
                self.count += 1
                number = self.count - 1
                goes_on = self.is_for_good and (self.code != errno.ENOSPC or kind in TAKES_ROOM)
                is_due = self.fail_at is not None and (number == self.fail_at or (number > self.fail_at and goes_on))
                if is_due:
                    self._fail(request)
            answer = row(request)
            self._note(request)
            return answer

        return call

    def _fail(self, request):
        self.failed.append(request)
        if isinstance(request, disk.Write):
            # Nothing, a part or even all of it is there, though the caller is told that it failed.
            size = self._random.choice([0, len(request.data) // 2, self._random.randrange(len(request.data) + 1)])
            part = disk.Write(request.path, request.offset, request.data[:size])
            self.write(part)
            self._note(part)
        if isinstance(request, disk.Sync):
            self._nodes[request.path].pending.clear()
        raise OSError(self.code, os.strerror(self.code), getattr(request, "path", None))

    def _note(self, request):
        match request:
            case disk.Create(path=path):
                self._nodes[path] = _Node()
            case disk.Write(path=path, offset=offset, data=data):
                self._nodes[path].pending.append(lambda file: _overwrite(file, offset, data))
            case disk.Truncate(path=path, size_bytes=size_bytes):
                self._nodes[path].pending.append(lambda file: _resize(file, size_bytes))
            case disk.Allocate(path=path, size_bytes=size_bytes):
                self._nodes[path].pending.append(lambda file: _resize(file, max(size_bytes, len(file))))
            case disk.Rename(source=source, target=target):
                self._nodes[target] = self._nodes.pop(source)
            case disk.Remove(path=path):
                self._nodes.pop(path, None)
            case disk.Lock(path=path):
                self._nodes.setdefault(path, _Node())

    def _sync(self, request):
        node = self._nodes[request.path]
        for change in node.pending:
            change(node.durable)
        node.pending.clear()

    def _sync_directory(self, request):
        is_inside = (lambda path: "/" in path) if request.path == "log" else (lambda path: "/" not in path)
        for path in [path for path in self._durable_names if is_inside(path) and path not in self._nodes]:
            del self._durable_names[path]
        for path, node in self._nodes.items():
            if is_inside(path):
                self._durable_names[path] = node


def _overwrite(file: bytearray, offset: int, data: bytes) -> None:
    if len(file) < offset:
        file.extend(bytes(offset - len(file)))
    file[offset : offset + len(data)] = data


def _resize(file: bytearray, size_bytes: int) -> None:
    del file[size_bytes:]
    file.extend(bytes(size_bytes - len(file)))


class EngineStore:
    """The file engine on any disk, as an interpreter for one thread. Its time and its randomness are numbered."""

    def __init__(
        self,
        on: MemoryDisk | CrashDisk,
        *,
        segment_bytes: int = 4096,
        seed: int = 0,
        sync: str = "commit",
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.disk = on
        ticks = itertools.count(1_700_000_000_000_000, 1_000)
        options = EngineOptions(
            clock=clock or (lambda: next(ticks)),
            random_bytes=Random(f"{seed} salts").randbytes,
            holder="process 1 on tests",
            sync=sync,
            segment_bytes=segment_bytes,
        )
        self.engine = Engine(options)
        self.handlers: Handlers = {
            **dict.fromkeys(WRITES, lambda request: self.commit([request])[0]),
            **dict.fromkeys(READS, lambda request: self._drive(self.engine.queries.answer(request))),
        }
        self._drive(self.engine.open())

    def commit(self, requests) -> list[Any]:
        """Carry out writes with one sync, and return their answers."""
        outcomes = self._drive(self.engine.commit(requests))
        for outcome in outcomes:
            if hasattr(outcome, "error"):
                raise outcome.error
        return [outcome.value for outcome in outcomes]

    def close(self) -> None:
        """Close the store as a process does that ends well."""
        self._drive(self.engine.close())

    def _drive(self, program: Effect[Any]) -> Any:
        try:
            return run(program, self.disk.handlers)
        except OSError as error:
            raise StoreUnavailable(f"the disk: {error}") from error


def open_on(on: MemoryDisk, **options: Any) -> Store:
    """A store on a disk in memory."""
    return Store(EngineStore(on, **options))


def contents(handlers: Handlers) -> dict[str, Any]:
    """All that a store shows: every event by position and by stream, every high-water mark, every key."""
    names = _names(handlers, Streams)
    shown: dict[str, Any] = {"streams": names, "all": [], "holes": []}
    after, head = 0, 1
    while after < head:
        page = handlers[ReadAll](ReadAll(after, limit=1_000))
        shown["all"] += page.events
        # Of several streams with a hole, any may be named.
        shown["holes"].append(page.hole is not None)
        after, head = page.next, page.head
    shown["position"] = head
    for name in names:
        first = page = handlers[Read](Read(name, limit=10_000))
        events = list(page.events)
        while page.next < page.head:
            page = handlers[Read](Read(name, page.next, limit=10_000))
            events += page.events
        shown[f"stream {name}"] = (handlers[LastSeq](LastSeq(name)), events, first.hole)
    shown["keys"] = _names(handlers, KvKeys)
    for key in shown["keys"]:
        shown[f"key {key}"] = handlers[KvGet](KvGet(key))
    return shown


def _names(handlers, kind) -> list[str]:
    names = page = handlers[kind](kind(limit=10_000))
    assert len(page) < 10_000, "one page holds them all"
    return names


def first_difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Where two contents differ, for a message."""
    for what in [*wanted, *found]:
        if found.get(what) != wanted.get(what):
            return f"{what}: found {found.get(what)!r:.300}, wanted {wanted.get(what)!r:.300}"
    return "nothing"


class Workload:
    """Writes chosen by a seed, each of which changes something, so that each is one frame of the log."""

    def __init__(self, seed: int, *, long_values: bool = False) -> None:
        self._random = Random(f"{seed} workload")
        self._long_values = long_values
        self._seqs: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._keys: set[str] = set()
        self._number = 0

    def next(self) -> Request[Any]:
        """The next write."""
        self._number += 1
        kind = self._random.choices(
            [self._one_event, self._some_events, self._some_put, self._some_delete, self._some_cut, self._several],
            [8, 2, 5, 2, 1, 3],
        )[0]
        return kind()

    def _value(self):
        text = f"{self._number:06d} " + "".join(self._random.choices("abcdefgh", k=self._random.randrange(1, 40)))
        if self._long_values and self._random.random() < 0.05:
            text *= 150
        return {"text": text, "number": self._number}

    def _drafts(self, count):
        return tuple(Draft(self._random.choice(["made", "paid"]), self._value()) for _ in range(count))

    def _add(self, count):
        stream = f"stream/{self._random.randrange(4)}"
        self._seqs[stream] = self._seqs.get(stream, 0) + count
        return Append(stream, self._drafts(count))

    def _one_event(self):
        return self._add(1)

    def _some_events(self):
        return self._add(self._random.randrange(2, 6))

    def _some_put(self):
        key = f"key/{self._random.randrange(12)}"
        self._keys.add(key)
        return KvPut(key, self._value())

    def _some_delete(self):
        if not self._keys:
            return self._some_put()
        key = self._random.choice(sorted(self._keys))
        self._keys.discard(key)
        return KvDelete(key)

    def _some_cut(self):
        stream = self._random.choice([*self._seqs, None])
        if stream is None or self._dropped.get(stream, 0) == self._seqs[stream]:
            return self._one_event()
        seq = self._random.randrange(self._dropped.get(stream, 0) + 1, self._seqs[stream] + 1)
        self._dropped[stream] = seq
        return TruncateThrough(stream, seq)

    def _several(self):
        return Transact((self._some_put(), self._add(2), self._some_put(), self._add(1)))
