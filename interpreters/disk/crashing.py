"""The `disk/*` requests on a disk in memory that loses, tears and reorders what was not synced, and fails when told to.

It keeps apart what a process sees and what is on the disk for good. `CrashDisk.states` are the images that a loss of
power may leave, as a profile of file systems allows. No clock, no chance: the same requests give the same states.
"""

import errno
import os
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple, NoReturn

from interpreters.disk import requests as disk
from interpreters.disk.keeping import Keep, survivor_of
from interpreters.disk.survivors import (
    DEFAULT_BOUND,
    PROFILES,
    SECTOR_BYTES,
    Bound,
    DiskChange,
    DiskFile,
    DiskState,
    Image,
    NameChange,
    OnDisk,
    apply_names,
    directory_of,
    overwritten,
)
from persist_effects.machine import Handlers
from persist_effects.requests import Request

__all__ = [
    "DEFAULT_BOUND",
    "FAULTS",
    "INTERRUPTS",
    "MUTATING",
    "PROFILES",
    "SILENT",
    "Bound",
    "CrashDisk",
    "DiskFault",
    "DiskState",
    "Image",
    "Interrupted",
    "SteadyDisk",
    "faults_of",
    "overwritten",
]

MUTATING: tuple[type[Request[Any]], ...] = (
    disk.MakeDirectory,
    disk.Create,
    disk.Write,
    disk.Sync,
    disk.Truncate,
    disk.Allocate,
    disk.Rename,
    disk.Remove,
    disk.SyncDirectory,
)
"""The requests after which another image may survive."""

REQUESTS: tuple[type[Request[Any]], ...] = (
    *MUTATING,
    disk.Read,
    disk.ReadPlaces,
    disk.List,
    disk.Size,
    disk.Modified,
    disk.Touch,
    disk.WriteBack,
    disk.Lock,
    disk.CheckHeld,
    disk.LetGo,
)
TAKES_ROOM = (disk.MakeDirectory, disk.Create, disk.Write, disk.Allocate, disk.Rename, disk.Sync)
FAULTS: dict[str, tuple[type[Request[Any]], ...]] = {
    "EIO": (*MUTATING, disk.Read, disk.ReadPlaces, disk.List, disk.Size, disk.Modified, disk.Touch, disk.CheckHeld),
    "ENOSPC": TAKES_ROOM,
    "failed sync, ext4 ordered": (disk.Sync,),
    "failed sync, ext4 data": (disk.Sync,),
    "failed sync, xfs": (disk.Sync,),
    "failed sync, btrfs": (disk.Sync,),
    "lost write": (disk.Write,),
    "misdirected write": (disk.Write,),
    "interrupt before": REQUESTS,
    "interrupt after": REQUESTS,
    "interrupt in a failed sync": (disk.Sync,),
}
"""The faults that can be put at a request, and which requests can meet them. ``EIO`` at a sync is as on xfs."""

INTERRUPTS = frozenset({"interrupt before", "interrupt after", "interrupt in a failed sync"})
"""The faults that are not the disk's: an interrupt comes in the place of the answer, or of the error."""


class Interrupted(BaseException):
    """What an interrupt raises, as Ctrl-C raises KeyboardInterrupt. The process goes on."""


class DiskFault(NamedTuple):
    """Something that goes wrong at a request: one of `FAULTS`, once or from then on."""

    kind: str
    is_for_good: bool = False

    @property
    def is_silent(self) -> bool:
        """Whether the disk says nothing of it at once."""
        return self.kind in SILENT

    @property
    def is_interrupt(self) -> bool:
        """Whether it comes from somewhere else than the disk."""
        return self.kind in INTERRUPTS


def faults_of(kind: str) -> tuple[DiskFault, ...]:
    """The faults of a kind: once and for good, but an interrupt comes once."""
    return (DiskFault(kind),) if kind in INTERRUPTS else (DiskFault(kind), DiskFault(kind, is_for_good=True))


SILENT = frozenset({"lost write", "misdirected write", "failed sync, ext4 data"})
"""The faults of which the disk says nothing at once."""


class CrashDisk:
    """A disk that begins with an image, all of it durable. ``faults`` are put at requests by their number, from 0.

    ``barriers`` are syncs that are made, unasked, after the requests of these numbers.

    >>> from persist_effects import perform, run
    >>> def program():
    ...     yield from perform(disk.Create("a"))
    ...     yield from perform(disk.Write("a", 0, b"hello"))
    ...     yield from perform(disk.Sync("a"))
    >>> crash_disk = CrashDisk()
    >>> run(program(), crash_disk.handlers)
    >>> [state.image for state in crash_disk.states()]
    [{'a': b'hello'}, {}]
    """

    _rows: ClassVar[dict[type[Request[Any]], "Row"]]

    def __init__(
        self,
        image: Mapping[str, bytes] | None = None,
        faults: Mapping[int, DiskFault] | None = None,
        barriers: Mapping[int, Request[Any]] | None = None,
    ) -> None:
        self._names: dict[str, DiskFile] = {path: DiskFile(content) for path, content in (image or {}).items()}
        self._on_disk = OnDisk(self._names)
        self._faults = dict(faults or {})
        self._barriers = dict(barriers or {})
        self._standing: dict[type[Request[Any]], DiskFault] = {}
        self.count = 0
        """How many requests were made; while one is carried out, its number."""
        self.met: list[tuple[int, Request[Any], DiskFault]] = []
        """The faults that were met: at which request."""
        self.paths_read: set[str] = set()
        """The files of which bytes were read."""
        self._before: Callable[[int, Request[Any]], None] | None = None
        self._former: dict[str, DiskFile] = {}
        self._has_changed_hands = False

    @cached_property
    def handlers(self) -> Handlers:
        """The function that answers each type of request: counted, watched, and failed where a fault is due."""
        return {kind: partial(self._answer_counted, row) for kind, row in self._rows.items()}

    def answer(self, request: Request[Any]) -> Any:
        """The answer to a request that is not counted, watched or failed."""
        return self._rows[type(request)](self, request)

    def watch(self, before: Callable[[int, Request[Any]], None]) -> None:
        """Call ``before(number, request)`` before each request is carried out."""
        self._before = before

    def copy(self) -> "CrashDisk":
        """The same disk, for another process: nobody watches it, and it fails no more."""
        copy = CrashDisk()
        files: dict[int, DiskFile] = {}

        def copied(file: DiskFile) -> DiskFile:
            return files.setdefault(id(file), file.copy())

        copy._names = {path: copied(file) for path, file in self._names.items()}
        copy._on_disk.names = {path: copied(file) for path, file in self._on_disk.names.items()}
        copy._on_disk.name_changes = [
            change._replace(names=tuple((path, file and copied(file)) for path, file in change.names))
            for change in self._on_disk.name_changes
        ]
        copy._on_disk.removed = list(self._on_disk.removed)
        return copy

    def change_hands(self, image: Mapping[str, bytes]) -> None:
        """Put other files in the place of all, as a process that restores a backup does, or a second writer.

        What the engine has opened it still holds, as a system's descriptors do: what it writes there is seen nowhere.
        What it makes, renames, removes or looks for is among the new files.
        """
        self._former, self._has_changed_hands = dict(self._names), True
        self._names = {path: DiskFile(content) for path, content in image.items()}
        self._on_disk = OnDisk(self._names)

    def image(self) -> Image:
        """What a process that starts now would find, if the power stays on."""
        return {path: file.content for path, file in self._names.items()}

    # Requests

    def _answer_counted(self, row: "Row", request: Request[Any]) -> Any:
        number = self.count
        if self._before is not None:
            self._before(number, request)
        fault = self._due(number, request) if self._faults or self._standing else None
        try:
            if fault is None:
                return row(self, request)
            self.met.append((number, request, fault))
            return self._interrupt(fault, row, request) if fault.is_interrupt else self._fail(fault, request)
        finally:
            if number in self._barriers:
                self.answer(self._barriers[number])
            self.count += 1

    def _due(self, number: int, request: Request[Any]) -> DiskFault | None:
        fault = self._faults.get(number)
        if fault is not None and fault.is_for_good:
            for kind in FAULTS[fault.kind]:
                self._standing[kind] = fault
        if fault is None:
            fault = self._standing.get(type(request))
        return fault if fault is not None and type(request) in FAULTS[fault.kind] else None

    def _interrupt(self, fault: DiskFault, row: "Row", request: Any) -> None:
        if fault.kind == "interrupt after":
            row(self, request)
        elif fault.kind == "interrupt in a failed sync":
            with suppress(OSError):
                self._fail_sync(fault, request)
        raise Interrupted(f"{fault.kind} {type(request).__name__}")

    def _fail(self, fault: DiskFault, request: Any) -> Any:
        if fault.kind == "lost write":
            return None
        if fault.kind == "misdirected write":
            return self._write(disk.Write(request.path, request.offset + SECTOR_BYTES, request.data))
        if isinstance(request, disk.Sync):
            return self._fail_sync(fault, request)
        if isinstance(request, disk.Write) and len(request.data) > 1:
            # A part of it may be there, though the caller is told that it failed.
            self._write(disk.Write(request.path, request.offset, request.data[: len(request.data) // 2]))
        code = errno.ENOSPC if fault.kind == "ENOSPC" else errno.EIO
        raise OSError(code, os.strerror(code), getattr(request, "path", None))

    def refuse(self, request: Request[Any], error: OSError) -> NoReturn:
        """Refuse a request that is not counted or watched: it leaves behind what one does that meets ``EIO``.

        Args:
            request: What is refused.
            error: What the disk says.

        Raises:
            OSError: That one.
        """
        with suppress(OSError):
            self._fail(DiskFault("EIO"), request)
        raise error

    def _fail_sync(self, fault: DiskFault, request: disk.Sync) -> None:
        file = self._found(request.path)
        if fault.kind == "failed sync, ext4 data":
            # It is in the journal, so the sync succeeds; that it never gets from there to its place, the next one says.
            file.doomed = file.sizes_only()
            file.settle()
            return
        if fault.kind == "failed sync, ext4 ordered":
            file.durable = file.sizes_only()
        elif fault.kind == "failed sync, btrfs":
            file.content = file.durable
        # The pages are clean now, whatever is on the disk.
        file.changes = []
        code = errno.ENOSPC if fault.kind == "ENOSPC" else errno.EIO
        raise OSError(code, os.strerror(code), request.path)

    def _make_directory(self, request: disk.MakeDirectory) -> None:
        path = f"{request.path}/"
        if request.path in self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), request.path)
        if path not in self._names:
            self._check_directory(request.path)
            self._name((path, DiskFile()))

    def _create(self, request: disk.Create) -> None:
        if request.path in self._names or f"{request.path}/" in self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), request.path)
        self._check_directory(request.path)
        self._former.pop(request.path, None)
        self._name((request.path, DiskFile()))

    def _write(self, request: disk.Write) -> None:
        file = self._found(request.path)
        # To write nothing changes nothing, not even the size.
        if request.data:
            end = request.offset + len(request.data)
            file.change(DiskChange(self.count, request.offset, request.data, end))

    def _write_back(self, request: disk.WriteBack) -> None:
        """What of the unsynced is on the disk, nobody can know anyway."""
        self._found(request.path)

    def _read(self, request: disk.Read) -> bytes:
        self.paths_read.add(request.path)
        return self._found(request.path).content[request.offset : request.offset + request.size_bytes]

    def _read_places(self, request: disk.ReadPlaces) -> list[bytes]:
        return [self._read(disk.Read(request.path, offset, request.size_bytes)) for offset in request.offsets]

    def _sync(self, request: disk.Sync) -> None:
        file = self._found(request.path)
        if file.doomed is not None:
            file.durable, file.doomed, file.changes = file.doomed, None, []
            raise OSError(errno.EIO, os.strerror(errno.EIO), request.path)
        file.settle()

    def _truncate(self, request: disk.Truncate) -> None:
        self._found(request.path).change(DiskChange(self.count, None, b"", request.size_bytes, may_shrink=True))

    def _allocate(self, request: disk.Allocate) -> None:
        self._found(request.path).change(DiskChange(self.count, None, b"", request.size_bytes))

    def _rename(self, request: disk.Rename) -> None:
        file = self._named(request.source)
        self._check_no_directory(request.target)
        for path in (request.source, request.target):
            self._former.pop(path, None)
        self._name((request.source, None), (request.target, file))

    def _remove(self, request: disk.Remove) -> None:
        self._on_disk.removed.append(self._named(request.path).content)
        self._former.pop(request.path, None)
        self._name((request.path, None))

    def _list(self, request: disk.List) -> list[str]:
        inside = self._found_directory(request.path)
        found = [path[len(inside) :].rstrip("/") for path in self._names if path != inside and path.startswith(inside)]
        return sorted(name for name in found if "/" not in name)

    def _size(self, request: disk.Size) -> int | None:
        file = self._names.get(request.path)
        if file is not None:
            return len(file.content)
        error = self._missing(request.path)
        if isinstance(error, disk.ForeignFile):
            raise error
        return None

    def _modified(self, request: disk.Modified) -> int | None:
        """It knows no time, so every file is as old as can be."""
        return None if self._size(disk.Size(request.path)) is None else 0

    def _touch(self, request: disk.Touch) -> None:
        self._named(request.path)

    def _sync_directory(self, request: disk.SyncDirectory) -> None:
        self._on_disk.sync_directory(self._found_directory(request.path))

    def _lock(self, request: disk.Lock) -> None:
        # A lock ends with the process that holds it, so after a crash it is free.
        if request.path not in self._names:
            self._check_no_directory(request.path)
            self._name((request.path, DiskFile()))
        self._names[request.path].content = request.holder.encode()

    def _check_held(self, request: disk.CheckHeld) -> None:
        if self._has_changed_hands:
            raise OSError(errno.ESTALE, "the store's directory was removed, moved away or replaced", request.path)

    def _let_go_of(self, request: disk.LetGo) -> None:
        """It keeps nothing open that a path does not lead to."""

    def _name(self, *names: tuple[str, DiskFile | None]) -> None:
        change = NameChange(self.count, names)
        apply_names(self._names, change)
        self._on_disk.name_changes.append(change)

    def _found(self, path: str) -> DiskFile:
        """The file at a path, as it was opened."""
        return self._former.get(path) or self._named(path)

    def _named(self, path: str) -> DiskFile:
        file = self._names.get(path)
        if file is None:
            raise self._missing(path)
        return file

    def _found_directory(self, path: str) -> str:
        """What the paths of a directory's files begin with."""
        inside = "" if path in {"", "."} else f"{path}/"
        if inside and inside not in self._names:
            raise self._missing(inside)
        return inside

    def _check_directory(self, path: str) -> None:
        directory = directory_of(path)
        if directory and directory not in self._names:
            raise self._missing(path)

    def _check_no_directory(self, path: str) -> None:
        """Refuse to put a file where a directory is, or where no directory is to put it into."""
        self._check_directory(path)
        if f"{path}/" in self._names:
            raise self._missing(path)

    def _missing(self, path: str) -> OSError:
        """What POSIX says of a path under which there is no file."""
        parts = path.split("/")
        is_in_file = any("/".join(parts[:count]) in self._names for count in range(1, len(parts)))
        is_directory = f"{path}/" in self._names or path in {"", "."}
        if is_directory or is_in_file:
            return disk.ForeignFile(errno.EISDIR if is_directory else errno.ENOTDIR, "it stands there", path)
        return OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    # Survivors

    def is_over(self, bound: Bound, read: Container[str]) -> bool:
        """Whether more of the names, and of these files, is unsynced now than the bound takes all combinations of."""
        return self._on_disk.is_over(bound, read)

    def states(
        self, profile: str = "posix", bound: Bound = DEFAULT_BOUND, read: Container[str] | None = None
    ) -> Iterator[DiskState]:
        """The images that a loss of power may leave now; the first is that nothing was lost. Some may be equal.

        With ``read``, other files than these are varied in their sizes only, since nobody looks into them.
        """
        return self._on_disk.states(profile, bound, read)

    def survivor(self, keep: Keep, profile: str = "posix") -> DiskState:
        """One image that a loss of power may leave now.

        Args:
            keep: What of the unsynced stays: see `survivor_of`.
            profile: One of `PROFILES`.

        Returns:
            The image, and what of the unsynced did not survive.
        """
        return survivor_of(self._on_disk, keep, profile)


class SteadyDisk(CrashDisk):
    """The same disk as long as the power stays on: it takes no account of what is unsynced, which is much faster."""

    def _write(self, request: disk.Write) -> None:
        file = self._found(request.path)
        if request.data:
            file.content = overwritten(file.content, request.offset, request.data)

    def _truncate(self, request: disk.Truncate) -> None:
        self._resize(self._found(request.path), request.size_bytes)

    def _allocate(self, request: disk.Allocate) -> None:
        file = self._found(request.path)
        self._resize(file, max(len(file.content), request.size_bytes))

    def _resize(self, file: DiskFile, size_bytes: int) -> None:
        file.content = file.content[:size_bytes].ljust(size_bytes, b"\0")

    def _sync(self, request: disk.Sync) -> None:
        self._found(request.path)

    def _sync_directory(self, request: disk.SyncDirectory) -> None:
        self._found_directory(request.path)

    def _name(self, *names: tuple[str, DiskFile | None]) -> None:
        for path, file in names:
            if file is None:
                del self._names[path]
            else:
                self._names[path] = file


Row = Callable[[Any, Any], Any]


def _rows_of(kind: type[CrashDisk]) -> dict[type[Request[Any]], Row]:
    return {
        disk.MakeDirectory: kind._make_directory,
        disk.Create: kind._create,
        disk.Write: kind._write,
        disk.WriteBack: kind._write_back,
        disk.Read: kind._read,
        disk.ReadPlaces: kind._read_places,
        disk.Sync: kind._sync,
        disk.Truncate: kind._truncate,
        disk.Allocate: kind._allocate,
        disk.Rename: kind._rename,
        disk.Remove: kind._remove,
        disk.List: kind._list,
        disk.Size: kind._size,
        disk.Modified: kind._modified,
        disk.Touch: kind._touch,
        disk.SyncDirectory: kind._sync_directory,
        disk.Lock: kind._lock,
        disk.CheckHeld: kind._check_held,
        disk.LetGo: kind._let_go_of,
    }


CrashDisk._rows = _rows_of(CrashDisk)
SteadyDisk._rows = _rows_of(SteadyDisk)
