"""Blobs in a directory: the bytes of each in a file of its own, under the hash of their content.

The directory is laid out so::

    q/bafkrei…qy         the bytes of a blob, and nothing else: the file's name is their content identifier
    unfinished/…-7       a file that is being written, not yet renamed to its place
    unfinished/1.lock    held by the process that writes the files ``1-…``

The blobs are fanned out over at most 32 directories by the last but one character of their identifiers, as IPFS's
flatfs does by ``next-to-last/1``: the last characters but one are drawn evenly from the alphabet of base32, which the
first, which say version, codec and hash, are not. So 100,000 blobs are some 3,000 names in each.

A blob's bytes are synced before its name is there, and its name before the blob is acknowledged. No file with a blob's
name is ever written to, so readers and writers need no lock between them, in any number of processes. Only whole blobs
are told of: a reader compares them with their identifier.
"""

import os
import re
import socket
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from interpreters.blobs.cid import CHUNK_BYTES, check_cid, cid_like, cid_of, is_cid, is_raw
from interpreters.disk import requests as disk
from interpreters.disk.files import PRIVATE
from interpreters.disk.real import RealDisk
from persist_effects.errors import BlobNotFound, CorruptStore, InvalidRequest, StoreClosed, StoreUnavailable
from persist_effects.machine import Effect, Handlers, perform, run
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef

A = TypeVar("A")

_SHARD = re.compile("[a-z2-7]")
_SLOT_FILE = re.compile(r"([1-9][0-9]*)(?:\.lock|-[0-9]+)")
_SOLE_WRITERS_FILE = re.compile(r"sole\.[0-9a-f]+-[0-9]+")


class BlobFiles:
    """Reads and writes the files of blobs below a directory of a disk, by programs over `disk/*`. For any thread.

    Args:
        root: The directory's path on the disk; "" is the disk's own root. It is made when the first blob is put.
        sole_writer: Eight bytes that no other opening has, where something else sees to it that no other process
            writes here, such as a store's lock. None: the writers of the files that are unfinished hold locks.

    >>> from interpreters.disk.crashing import CrashDisk
    >>> crash_disk, files = CrashDisk(), BlobFiles("blobs", sole_writer=bytes(8))
    >>> run(files.put(cid_of(b"hello"), b"hello"), crash_disk.handlers)
    >>> run(files.read(cid_of(b"hello")), crash_disk.handlers)
    b'hello'
    >>> [path[:16] for path in crash_disk.image()]
    ['blobs/', 'blobs/unfinished', 'blobs/e/', 'blobs/e/bafkreib']
    """

    def __init__(self, root: str, *, sole_writer: bytes | None = None) -> None:
        self._root = root
        self._unfinished = self._inside("unfinished")
        self._sole_writer = None if sole_writer is None else f"sole.{sole_writer.hex()}"
        # What the files begin with that are ours to write, once those are gone that dead processes left.
        self._begins: str | None = None
        self._numbers = count(1)
        # Those whose names are on the disk.
        self._shards: set[str] = set()

    def path_of(self, cid: str) -> str:
        """Where a blob's file is.

        Args:
            cid: The blob's identifier.

        Returns:
            The path on the disk.

        Raises:
            InvalidRequest: It is not an identifier; told before it is a path.

        >>> BlobFiles("").path_of(cid_of(b"hello"))
        'e/bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq'
        """
        check_cid(cid)
        return self._inside(f"{cid[-2]}/{cid}")

    def has(self, cid: str) -> Effect[bool]:
        """Whether a blob is there.

        Args:
            cid: The blob's identifier.

        Returns:
            Whether there is a file of that name.
        """
        return (yield from perform(disk.Size(self.path_of(cid)))) is not None

    def read(self, cid: str) -> Effect[bytes | None]:
        """The bytes in a blob's file, whatever they are: `check_bytes` judges them.

        Args:
            cid: The blob's identifier.

        Returns:
            The bytes; None where there is no file.
        """
        path = self.path_of(cid)
        size_bytes = yield from perform(disk.Size(path))
        if size_bytes is None:
            return None
        data = yield from perform(disk.Read(path, 0, size_bytes))
        yield from perform(disk.LetGo(path))
        return data

    def shards(self) -> Effect[list[str]]:
        """The directories that blobs lie in.

        Returns:
            Their paths.

        Raises:
            FileNotFoundError: No blob was ever put.
        """
        names = yield from perform(disk.List(self._root))
        return [self._inside(name) for name in names if _SHARD.fullmatch(name)]

    def cids_in(self, shard: str) -> Effect[list[str]]:
        """The blobs in one of the directories that `shards` gives.

        Args:
            shard: The directory's path.

        Returns:
            The blobs' identifiers, sorted.
        """
        names = yield from perform(disk.List(shard))
        return [name for name in names if is_cid(name) and self.path_of(name) == f"{shard}/{name}"]

    def put(self, cid: str, data: bytes) -> Effect[None]:
        """Return when these bytes are on the disk under their name.

        Bytes that are there are not written again, and damaged ones are replaced.

        Args:
            cid: The identifier of the bytes.
            data: The bytes.

        Raises:
            OSError: The disk refuses: the blob is there or not, and may be put again.
        """
        path = self.path_of(cid)
        if (yield from self.read(cid)) != data:
            yield from self._make_directories(cid[-2])
            yield from self._write(path, data)
        # Also of a file that was found: whoever renamed it may not have come to sync its name.
        yield from perform(disk.SyncDirectory(self._inside(cid[-2])))
        yield from perform(disk.CheckHeld(""))

    def _write(self, path: str, data: bytes) -> Effect[None]:
        unfinished = f"{self._unfinished}/{self._begins}-{next(self._numbers)}"
        try:
            yield from perform(disk.Create(unfinished))
            yield from perform(disk.Write(unfinished, 0, data))
            # After a sync that failed, nobody knows what of the file is on the disk: it is given up, as after all else.
            yield from perform(disk.Sync(unfinished))
            yield from perform(disk.Rename(unfinished, path))
        except GeneratorExit:
            # Nothing may be asked any more: the next opening takes the file away.
            raise
        except BaseException:
            yield from self._take_away(unfinished)
            raise
        yield from perform(disk.LetGo(path))

    def _take_away(self, unfinished: str) -> Effect[None]:
        try:
            if (yield from perform(disk.Size(unfinished))) is not None:
                yield from perform(disk.Remove(unfinished))
        except OSError:
            # What went wrong first is told. The file is taken away by the next opening.
            return

    # Directories

    def _inside(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name

    def _make_directories(self, shard: str) -> Effect[None]:
        if self._begins is None:
            if self._root:
                yield from perform(disk.MakeDirectory(self._root))
                yield from perform(disk.SyncDirectory(os.path.dirname(self._root)))
            yield from perform(disk.MakeDirectory(self._unfinished))
            self._begins = yield from self._take_unfinished()
        if shard not in self._shards:
            yield from perform(disk.MakeDirectory(self._inside(shard)))
            yield from perform(disk.SyncDirectory(self._root))
            self._shards.add(shard)

    def _take_unfinished(self) -> Effect[str]:
        """What our files begin with, once what dead processes left unfinished is gone."""
        names = yield from perform(disk.List(self._unfinished))
        if self._sole_writer is not None:
            for name in names:
                # Another thread may be past this already.
                if _SOLE_WRITERS_FILE.fullmatch(name) and not name.startswith(self._sole_writer):
                    yield from perform(disk.Remove(f"{self._unfinished}/{name}"))
            return self._sole_writer
        slots = sorted({int(found[1]) for found in map(_SLOT_FILE.fullmatch, names) if found is not None})
        ours: int | None = None
        # Each that no process holds, whose files are therefore a dead one's.
        for slot in slots:
            if (yield from self._take_slot(slot)) and ours is None:
                ours = slot
        new = max(slots, default=0)
        while ours is None:
            new += 1
            if (yield from self._take_slot(new)):
                ours = new
        return str(ours)

    def _take_slot(self, slot: int) -> Effect[bool]:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        if (yield from perform(disk.Lock(f"{self._unfinished}/{slot}.lock", holder))) is not None:
            return False
        for name in (yield from perform(disk.List(self._unfinished))):
            if name.startswith(f"{slot}-"):
                yield from perform(disk.Remove(f"{self._unfinished}/{name}"))
        return True


def check_bytes(cid: str, data: bytes, place: str) -> None:
    """Refuse bytes that are not those of the identifier.

    Args:
        cid: The identifier.
        data: What was found.
        place: The file that it was found in, for the message.

    Raises:
        CorruptStore: Naming the file, what was expected and what was found.

    >>> check_bytes(cid_of(b"hello"), b"hellO", "var/blobs/q/…")
    Traceback (most recent call last):
    persist_effects.errors.CorruptStore: var/blobs/q/…: expected the bytes of blob bafkreibm6jg3ux5qumhcn2b3flc...
    """
    found = cid_like(cid, data)
    if found != cid:
        # What has the hash of more than one block is put no more: the same bytes would get another identifier.
        again = (
            ""
            if is_raw(cid) and len(data) > CHUNK_BYTES
            else "put the blob's bytes again, which replaces the file, or "
        )
        raise CorruptStore(
            f"{place}: expected the bytes of blob {cid}, found {len(data)} bytes of blob {found}: "
            f"{again}restore it from a backup"
        )


def rows_of(files: BlobFiles, place: str | os.PathLike[str], drive: Callable[[Effect[Any]], Any]) -> Handlers:
    """The rows for ``blob/*``. The hashes are made outside of the programs, where nobody waits for a lock.

    Args:
        files: Where the blobs are.
        place: What the disk's root is called in errors.
        drive: Runs a program over `disk/*`, and tells the disk's errors as the package's.

    Returns:
        The rows.
    """

    def put(request: BlobPut) -> BlobRef:
        cid = cid_of(request.data)
        drive(files.put(cid, request.data))
        return BlobRef(cid, len(request.data), request.mime)

    def get(request: BlobGet) -> bytes:
        path = files.path_of(request.cid)
        data: bytes | None = drive(files.read(request.cid))
        if data is None:
            raise BlobNotFound(request.cid)
        check_bytes(request.cid, data, f"{os.fspath(place)}/{path}")
        return data

    def has(request: BlobHas) -> bool:
        check_cid(request.cid)
        return bool(drive(files.has(request.cid)))

    return {BlobPut: put, BlobGet: get, BlobHas: has}


class DirectoryBlobs:
    """A blob store in a directory, which any number of threads and processes may use at once.

    A `file:` store has its own, in ``blobs/`` of its directory. This one stands beside any other store:
    ``open_store(url, blobs=DirectoryBlobs(path))``. The layout is in the first lines of this module.

    Args:
        path: The directory. It is made where it is missing, with those above it.
        read_only: Blobs cannot be put, and nothing is made.
        permissions: Those of new files, less what the process's umask takes: for their owner alone unless given.

    Raises:
        StoreUnavailable: The directory cannot be made or opened.

    >>> import tempfile
    >>> from persist_effects import blob
    >>> with tempfile.TemporaryDirectory() as path:
    ...     blobs = DirectoryBlobs(path)
    ...     run(blob.get(run(blob.put(b"hello"), blobs.handlers)), blobs.handlers)
    ...     blobs.close()
    b'hello'
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, permissions: int = PRIVATE) -> None:
        self.path = os.fspath(path)
        self._is_closed = False
        try:
            self._disk = RealDisk(self.path, read_only=read_only, permissions=permissions)
        except OSError as error:
            raise StoreUnavailable(f"{self.path} cannot be made or opened: {error}") from error
        self.files = BlobFiles("")
        rows = rows_of(self.files, self.path, self._drive)
        self.handlers: Handlers = {**rows, BlobPut: self._refuse} if read_only else rows

    def close(self) -> None:
        """Let go of the files and locks. Again: nothing."""
        self._is_closed = True
        self._disk.close()

    def _drive(self, program: Effect[A]) -> A:
        try:
            return run(program, self._disk.handlers)
        except disk.ForeignFile as error:
            raise CorruptStore(f"{self.path}: {error}") from error
        except OSError as error:
            if self._is_closed:
                raise StoreClosed(f"{self.path}: the blob store was closed: open it again") from error
            raise StoreUnavailable(f"{self.path}: {error}: see to the disk, then try again") from error

    def _refuse(self, request: BlobPut) -> BlobRef:
        raise InvalidRequest(f"{request.op}: {self.path} was opened to read only: open it without read_only to write")
