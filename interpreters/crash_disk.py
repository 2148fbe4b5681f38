"""The `disk/*` requests on a disk in memory that loses, tears and reorders what was not synced, and fails when told to.

It keeps apart what a process sees and what is on the disk for good. `CrashDisk.states` are the images that a loss of
power may leave, as a profile of file systems allows. No clock, no chance: the same requests give the same states.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise, product
from typing import Any, ClassVar, NamedTuple

from interpreters import disk
from persist_effects.errors import InvalidRequest
from persist_effects.machine import Handlers
from persist_effects.requests import Request

Image = dict[str, bytes]
"""Files by path. A directory is a path that ends with a slash."""

PROFILES = ("posix", "ordered", "writeback")
"""Which directory operations survive without a sync: any of them, or those up to a point; ``writeback``: as posix, and
a file may have grown while its new bytes are those of an earlier file."""

SECTOR_BYTES = 512

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

TAKES_ROOM = (disk.MakeDirectory, disk.Create, disk.Write, disk.Allocate, disk.Rename, disk.Sync)
FAULTS: dict[str, tuple[type[Request[Any]], ...]] = {
    "EIO": (*MUTATING, disk.Read, disk.List, disk.Size),
    "ENOSPC": TAKES_ROOM,
    "failed sync, ext4 ordered": (disk.Sync,),
    "failed sync, ext4 data": (disk.Sync,),
    "failed sync, xfs": (disk.Sync,),
    "failed sync, btrfs": (disk.Sync,),
    "lost write": (disk.Write,),
    "misdirected write": (disk.Write,),
}
"""The faults that can be put at a request, and which requests can meet them. ``EIO`` at a sync is as on xfs."""


class Bound(NamedTuple):
    """How far states are enumerated: at most one write of a state is torn.

    That is next to its ends, where sectors end, and at multiples of ``tear_bytes`` (0: not at all). Where one file's
    unsynced changes, or the unsynced names, have more than ``subsets`` combinations, only prefixes are taken.
    """

    tear_bytes: int = 64
    subsets: int = 256


DEFAULT_BOUND = Bound()


class Fault(NamedTuple):
    """Something that goes wrong at a request: one of `FAULTS`, once or from then on."""

    kind: str
    is_for_good: bool = False

    @property
    def is_silent(self) -> bool:
        """Whether the disk says nothing of it at once."""
        return self.kind in SILENT


KINDS = ("nothing lost", "lost", "torn", "stale bytes", "names lost")
"""The classes of what survives."""


SILENT = frozenset({"lost write", "misdirected write", "failed sync, ext4 data"})
"""The faults of which the disk says nothing at once."""


class State(NamedTuple):
    """An image that may survive, its class of fault, and what of the unsynced did not survive."""

    image: Image
    kind: str
    names_lost: tuple[str, ...]
    contents_lost: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Names the image: eight hexadecimal digits."""
        hashed = hashlib.blake2b(digest_size=4)
        for path, content in sorted(self.image.items()):
            hashed.update(f"{path} {len(content)} ".encode() + content)
        return hashed.hexdigest()

    @property
    def losses(self) -> tuple[str, ...]:
        """What did not survive, in words."""
        return (*self.names_lost, *(f"{path}: {words}" for path, words in self.contents_lost if words))


class Change(NamedTuple):
    """A change of a file's bytes by a request of this number; ``offset`` None: of its size alone."""

    number: int
    offset: int | None
    data: bytes
    size_bytes: int
    may_shrink: bool = False

    def apply(self, content: bytes) -> bytes:
        """The content after it."""
        if self.offset is not None:
            return overwritten(content, self.offset, self.data)
        if len(content) < self.size_bytes:
            return content + bytes(self.size_bytes - len(content))
        return content[: self.size_bytes] if self.may_shrink else content


class NameChange(NamedTuple):
    """Names that one directory operation gives and takes away, all or none."""

    number: int
    names: tuple[tuple[str, "_File | None"], ...]


class _File:
    """What readers see of a file, what is on the disk, and the changes between."""

    __slots__ = ("changes", "content", "doomed", "durable")

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.durable = content
        self.changes: list[Change] = []
        self.doomed: bytes | None = None

    def copy(self) -> "_File":
        copy = _File(self.content)
        copy.durable, copy.changes, copy.doomed = self.durable, list(self.changes), self.doomed
        return copy

    def change(self, change: Change) -> None:
        self.content = change.apply(self.content)
        self.changes.append(change)

    def settle(self) -> None:
        # Not all that readers see: what a failed sync has marked clean is not written by the next.
        self.durable = _applied(self.durable, self.changes)
        self.changes = []


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
        faults: Mapping[int, Fault] | None = None,
        barriers: Mapping[int, Request[Any]] | None = None,
    ) -> None:
        self._names: dict[str, _File] = {path: _File(content) for path, content in (image or {}).items()}
        self._durable_names = dict(self._names)
        self._name_changes: list[NameChange] = []
        self._removed: list[bytes] = []
        self._faults = dict(faults or {})
        self._barriers = dict(barriers or {})
        self._standing: dict[type[Request[Any]], Fault] = {}
        self.count = 0
        """How many requests were made; while one is carried out, its number."""
        self.met: list[tuple[int, Request[Any], Fault]] = []
        """The faults that were met: at which request."""
        self.paths_read: set[str] = set()
        """The files of which bytes were read."""
        self._before: Callable[[int, Request[Any]], None] | None = None

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
        files: dict[int, _File] = {}

        def copied(file: _File) -> _File:
            return files.setdefault(id(file), file.copy())

        copy._names = {path: copied(file) for path, file in self._names.items()}
        copy._durable_names = {path: copied(file) for path, file in self._durable_names.items()}
        copy._name_changes = [
            change._replace(names=tuple((path, file and copied(file)) for path, file in change.names))
            for change in self._name_changes
        ]
        copy._removed = list(self._removed)
        return copy

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
            return self._fail(fault, request)
        finally:
            if number in self._barriers:
                self.answer(self._barriers[number])
            self.count += 1

    def _due(self, number: int, request: Request[Any]) -> Fault | None:
        fault = self._faults.get(number)
        if fault is not None and fault.is_for_good:
            for kind in FAULTS[fault.kind]:
                self._standing[kind] = fault
        if fault is None:
            fault = self._standing.get(type(request))
        return fault if fault is not None and type(request) in FAULTS[fault.kind] else None

    def _fail(self, fault: Fault, request: Any) -> Any:
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

    def _fail_sync(self, fault: Fault, request: disk.Sync) -> None:
        file = self._found(request.path)
        if fault.kind == "failed sync, ext4 data":
            # It is in the journal, so the sync succeeds; that it never gets from there to its place, the next one says.
            file.doomed = _sizes_only(file)
            file.settle()
            return
        if fault.kind == "failed sync, ext4 ordered":
            file.durable = _sizes_only(file)
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
            self._name((path, _File()))

    def _create(self, request: disk.Create) -> None:
        if request.path in self._names or f"{request.path}/" in self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), request.path)
        self._check_directory(request.path)
        self._name((request.path, _File()))

    def _write(self, request: disk.Write) -> None:
        file = self._found(request.path)
        # To write nothing changes nothing, not even the size.
        if request.data:
            end = request.offset + len(request.data)
            file.change(Change(self.count, request.offset, request.data, end))

    def _read(self, request: disk.Read) -> bytes:
        self.paths_read.add(request.path)
        return self._found(request.path).content[request.offset : request.offset + request.size_bytes]

    def _sync(self, request: disk.Sync) -> None:
        file = self._found(request.path)
        if file.doomed is not None:
            file.durable, file.doomed, file.changes = file.doomed, None, []
            raise OSError(errno.EIO, os.strerror(errno.EIO), request.path)
        file.settle()

    def _truncate(self, request: disk.Truncate) -> None:
        self._found(request.path).change(Change(self.count, None, b"", request.size_bytes, may_shrink=True))

    def _allocate(self, request: disk.Allocate) -> None:
        self._found(request.path).change(Change(self.count, None, b"", request.size_bytes))

    def _rename(self, request: disk.Rename) -> None:
        file = self._found(request.source)
        self._check_no_directory(request.target)
        self._name((request.source, None), (request.target, file))

    def _remove(self, request: disk.Remove) -> None:
        self._removed.append(self._found(request.path).content)
        self._name((request.path, None))

    def _list(self, request: disk.List) -> list[str]:
        inside = self._found_directory(request.path)
        found = [path[len(inside) :].rstrip("/") for path in self._names if path != inside and path.startswith(inside)]
        return sorted(name for name in found if "/" not in name)

    def _size(self, request: disk.Size) -> int | None:
        file = self._names.get(request.path)
        return None if file is None else len(file.content)

    def _sync_directory(self, request: disk.SyncDirectory) -> None:
        directory = self._found_directory(request.path)
        left = []
        for change in self._name_changes:
            if _directory_of(change.names[0][0]) == directory:
                _apply_names(self._durable_names, change)
            else:
                left.append(change)
        self._name_changes = left

    def _lock(self, request: disk.Lock) -> None:
        # A lock ends with the process that holds it, so after a crash it is free.
        if request.path not in self._names:
            self._check_no_directory(request.path)
            self._name((request.path, _File()))
        self._names[request.path].content = request.holder.encode()

    def _name(self, *names: tuple[str, _File | None]) -> None:
        change = NameChange(self.count, names)
        _apply_names(self._names, change)
        self._name_changes.append(change)

    def _found(self, path: str) -> _File:
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
        directory = _directory_of(path)
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
        is_directory = f"{path}/" in self._names
        code = errno.EISDIR if is_directory else errno.ENOTDIR if is_in_file else errno.ENOENT
        return OSError(code, os.strerror(code), path)

    # Survivors

    def is_over(self, bound: Bound, read: Container[str]) -> bool:
        """Whether more of the names, and of these files, is unsynced now than the bound takes all combinations of."""
        pending = [pair for change in self._name_changes for pair in change.names]
        places = [*self._durable_names.items(), *pending]
        counts = [len(file.changes) for path, file in places if file is not None and path in read]
        return any(2**count > bound.subsets for count in [len(self._name_changes), *counts])

    def states(
        self, profile: str = "posix", bound: Bound = DEFAULT_BOUND, read: Container[str] | None = None
    ) -> Iterator[State]:
        """The images that a loss of power may leave now; the first is that nothing was lost. Some may be equal.

        With ``read``, other files than these are varied in their sizes only, since nobody looks into them.
        """
        if profile not in PROFILES:
            raise InvalidRequest(f"the profile is {profile!r}: give one of {', '.join(PROFILES)}")
        whole = {id(file): _subsets(file, bound) for file in self._changed()}
        for names, name_losses in self._namings(profile, bound):
            # Where a rename survived and the one before it did not, a file has two names.
            here: dict[_File, list[str]] = {}
            for path, file in names.items():
                if file.changes:
                    here.setdefault(file, []).append(path)
            choices = [_seen(whole[id(file)], paths, read) for file, paths in here.items()]
            places = list(here.values())
            yield from _combined(names, name_losses, choices, places)
            for index, (file, paths) in enumerate(here.items()):
                torn = _seen(_tears(file, profile, bound, self._removed), paths, read)
                yield from _combined(names, name_losses, [*choices[:index], torn, *choices[index + 1 :]], places)

    def _changed(self) -> list[_File]:
        """The files with unsynced changes that may survive under some name."""
        pending = [file for change in self._name_changes for _, file in change.names if file is not None]
        files = {id(file): file for file in [*self._durable_names.values(), *pending]}
        return [file for file in files.values() if file.changes]

    def _namings(self, profile: str, bound: Bound) -> Iterator[tuple[dict[str, _File], tuple[str, ...]]]:
        changes = self._name_changes
        is_prefix = profile == "ordered" or 2 ** len(changes) > bound.subsets
        kept_sets: Iterable[tuple[bool, ...]] = (
            (tuple(index < count for index in range(len(changes))) for count in range(len(changes), -1, -1))
            if is_prefix
            else product((True, False), repeat=len(changes))
        )
        seen = set()
        for kept in kept_sets:
            names = dict(self._durable_names)
            for change, is_kept in zip(changes, kept, strict=True):
                if is_kept:
                    _apply_names(names, change)
            names = {path: file for path, file in names.items() if _directory_of(path) in {"", *names}}
            key = tuple(sorted((path, id(file)) for path, file in names.items()))
            if key not in seen:
                seen.add(key)
                yield (
                    names,
                    tuple(_name_loss(change) for change, is_kept in zip(changes, kept, strict=True) if not is_kept),
                )


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

    def _resize(self, file: _File, size_bytes: int) -> None:
        file.content = file.content[:size_bytes].ljust(size_bytes, b"\0")

    def _sync(self, request: disk.Sync) -> None:
        self._found(request.path)

    def _sync_directory(self, request: disk.SyncDirectory) -> None:
        self._found_directory(request.path)

    def _name(self, *names: tuple[str, _File | None]) -> None:
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
        disk.Read: kind._read,
        disk.Sync: kind._sync,
        disk.Truncate: kind._truncate,
        disk.Allocate: kind._allocate,
        disk.Rename: kind._rename,
        disk.Remove: kind._remove,
        disk.List: kind._list,
        disk.Size: kind._size,
        disk.SyncDirectory: kind._sync_directory,
        disk.Lock: kind._lock,
    }


CrashDisk._rows = _rows_of(CrashDisk)
SteadyDisk._rows = _rows_of(SteadyDisk)

Choice = tuple[bytes, str, str]
"""A content that may survive, what of it did not in words, and the class of fault."""


def _seen(choices: list[Choice], paths: Sequence[str], read: Container[str] | None) -> list[Choice]:
    """The choices between which somebody could tell who knows the sizes of all files, and the bytes of those read."""
    if read is None or any(path in read for path in paths):
        return choices
    return list({len(choice[0]): choice for choice in reversed(choices)}.values())[::-1]


def _combined(
    names: Mapping[str, _File], name_losses: tuple[str, ...], choices: list[list[Choice]], places: list[list[str]]
) -> Iterator[State]:
    settled = {path: file.durable for path, file in names.items()}
    for combination in product(*choices):
        image = settled | {path: choice[0] for at, choice in zip(places, combination, strict=True) for path in at}
        kinds = {choice[2] for choice in combination}
        kind = next(kind for kind in ("torn", "stale bytes", "lost", "") if kind in kinds or not kind)
        lost = tuple((at[-1], choice[1]) for at, choice in zip(places, combination, strict=True))
        yield State(image, kind or ("names lost" if name_losses else "nothing lost"), name_losses, lost)


def _subsets(file: _File, bound: Bound) -> list[Choice]:
    """The contents that any of the unsynced changes leave, each of them whole; first all of them."""
    changes = file.changes
    everything = _all(changes)
    found = _landed(file.durable, changes, is_prefix=2 ** len(changes) > bound.subsets)
    landed = {file.content: everything} | {content: found[content] for content in found if content != file.content}
    return [
        (content, _losses(changes, numbers), "" if numbers == everything else "lost")
        for content, numbers in landed.items()
    ]


def _landed(content: bytes, changes: Iterable[Change], *, is_prefix: bool) -> dict[bytes, tuple[int, ...]]:
    """The contents that any of these changes, or any first ones, make of this one, and the numbers of which did."""
    found: dict[bytes, tuple[int, ...]] = {content: ()}
    newest = content
    for change in changes:
        before = [(newest, found[newest])] if is_prefix else list(found.items())
        for one, numbers in before:
            found.setdefault(change.apply(one), (*numbers, change.number))
        newest = change.apply(newest)
    return found


def _none_or_all(content: bytes, changes: Sequence[Change]) -> dict[bytes, tuple[int, ...]]:
    return {content: (), _applied(content, changes): _all(changes)}


def _tears(file: _File, profile: str, bound: Bound, removed: list[bytes]) -> list[Choice]:
    """The contents in which one unsynced write is torn, beside any of the others; first those with all before it.

    Where these have more combinations than the bound has room for: all or none of those before it, and of the later.
    """
    changes = file.changes
    is_over = 2 ** len(changes) > bound.subsets
    some = _none_or_all if is_over else partial(_landed, is_prefix=False)
    found: dict[bytes, Choice] = {}
    for index, change in enumerate(changes):
        if change.offset is None:
            continue
        before = _applied(file.durable, changes[:index])
        others = [*changes[:index], *changes[index + 1 :]]
        for base, earlier in reversed(some(file.durable, changes[:index]).items()):
            for piece, words in _pieces(change, bound):
                torn = base
                for offset, data in piece:
                    torn = overwritten(torn, offset, data)
                for content, later in some(torn, changes[index + 1 :]).items():
                    if content not in found:
                        lost = _losses(others, (*earlier, *later))
                        told = f"{_told(change)} is torn: {words}{'; ' if lost else ''}{lost}"
                        found[content] = (content, told, "torn")
        if profile == "writeback" and change.size_bytes > len(before):
            content = before + _stale(len(before), change.size_bytes, removed)
            words = f"{_told(change)} is lost, but the size grew, over bytes of an earlier file"
            found.setdefault(content, (content, words, "stale bytes"))
    return list(found.values())


def _pieces(change: Change, bound: Bound) -> Iterator[tuple[list[tuple[int, bytes]], str]]:
    """What may be left of a write: its beginning, its end, or both without a hole between."""
    offset, data = change.offset or 0, change.data
    cuts = cuts_of(offset, len(data), bound.tear_bytes) if bound.tear_bytes else []
    for cut in cuts:
        yield [(offset, data[:cut])], f"its first {cut} of {len(data)} bytes are there"
        yield [(offset + cut, data[cut:])], f"its first {cut} of {len(data)} bytes are not"
    for low, high in pairwise(cuts):
        yield [(offset, data[:low]), (offset + high, data[high:])], f"its bytes {low} to {high} of {len(data)} are not"


def cuts_of(offset: int, size_bytes: int, tear_bytes: int) -> list[int]:
    """Where a write may be torn: next to its ends, where sectors end, and every so many bytes."""
    cuts = {1, size_bytes - 1}
    cuts.update(range(tear_bytes, size_bytes, tear_bytes))
    cuts.update(range(-offset % SECTOR_BYTES, size_bytes, SECTOR_BYTES))
    return sorted(cut for cut in cuts if 0 < cut < size_bytes)


def overwritten(content: bytes, offset: int, data: bytes) -> bytes:
    """A content with these bytes at an offset; what is between its end and there reads as zeros."""
    if len(content) < offset:
        content += bytes(offset - len(content))
    return content[:offset] + data + content[offset + len(data) :]


def _applied(content: bytes, changes: Iterable[Change]) -> bytes:
    for change in changes:
        content = change.apply(content)
    return content


def _sizes_only(file: _File) -> bytes:
    """What is on the disk where a file got its new size and none of its new bytes."""
    content = file.durable
    for change in file.changes:
        content = change._replace(offset=None).apply(content)
    return content


def _stale(start: int, end: int, removed: list[bytes]) -> bytes:
    """The bytes that an earlier file had at this place."""
    old = next((content[start:end] for content in reversed(removed) if len(content) > start), b"")
    return old + b"\xa5" * (end - start - len(old))


def _all(changes: Iterable[Change]) -> tuple[int, ...]:
    return tuple(change.number for change in changes)


def _losses(changes: Iterable[Change], landed: Iterable[int]) -> str:
    lost = [_told(change) for change in changes if change.number not in set(landed)]
    return f"lost {', '.join(lost)}" if lost else ""


def _told(change: Change) -> str:
    if change.offset is None:
        return f"the size of {change.size_bytes} bytes (request {change.number})"
    return f"the {len(change.data)} bytes at {change.offset} (request {change.number})"


def _name_loss(change: NameChange) -> str:
    told = [f"{'' if file is not None else 'no '}{path}" for path, file in change.names]
    return f"the directory lost request {change.number}: {', '.join(told)}"


def _apply_names(names: dict[str, _File], change: NameChange) -> None:
    for path, file in change.names:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def _directory_of(path: str) -> str:
    head, slash, _ = path.rstrip("/").rpartition("/")
    return head + slash
