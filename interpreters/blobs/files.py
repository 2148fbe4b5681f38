"""Blobs in the files of a directory, each under the hash of its content: programs over `disk/*`.

The directory is laid out so::

    q/bafkrei…qy         the bytes of a blob, and nothing else: the file's name is their content identifier
    q/bafybei…qe         so too of one larger than a chunk, which has beside it
    q/bafybei…qe.digests   the digests of its chunks and of the nodes above them, by which any part of it is proved
    q/bafkrei…qy.swept   a blob that a sweep is about to remove: it is still there, until it is known that it may go
    unfinished/…-7       a file that is being written, not yet renamed to its place
    unfinished/1.lock    held by the process that writes the files ``1-…``

The blobs are fanned out over at most 32 directories by the last but one character of their identifiers, as IPFS's
flatfs does by ``next-to-last/1``: the last characters but one are drawn evenly from the alphabet of base32, which the
first, which say version, codec and hash, are not. So 100,000 blobs are some 3,000 names in each.

A blob's bytes are synced before its name is there, and its name before the blob is acknowledged. No file with a blob's
name is ever written to, so readers and writers need no lock between them, in any number of processes. Only whole blobs
are told of: a reader compares them with their identifier.

Nobody relies on the digests: they are compared with the identifier too, and where they are missing or damaged, the
whole blob is read to prove a part of it.
"""

import errno
import os
import re
import socket
from itertools import count

from interpreters.blobs.cid import check_cid, is_cid
from interpreters.disk import requests as disk
from persist_effects.machine import Effect, perform

DIGESTS = ".digests"
SWEPT = ".swept"

_SHARD = re.compile("[a-z2-7]")
_SLOT_FILE = re.compile(r"([1-9][0-9]*)(?:\.lock|-[0-9]+)")
_SOLE_WRITERS_FILE = re.compile(r"sole\.[0-9a-f]+-[0-9]+")


class BlobFiles:
    """Reads and writes the files of blobs below a directory of a disk, by programs over `disk/*`. For any thread.

    Args:
        root: The directory's path on the disk; "" is the disk's own root. It is made when the first blob is put.
        sole_writer: Eight bytes that no other opening has, where something else sees to it that no other process
            writes here, such as a store's lock. None: the writers of the files that are unfinished hold locks.

    >>> from interpreters.blobs.cid import cid_of
    >>> from interpreters.disk.crashing import CrashDisk
    >>> from persist_effects import run
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

        >>> from interpreters.blobs.cid import cid_of
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
        return (yield from self.size(cid)) is not None

    def size(self, cid: str) -> Effect[int | None]:
        """How many bytes a blob's file has.

        Args:
            cid: The blob's identifier.

        Returns:
            The number; None where there is no file.
        """
        for path in self._paths_of(cid):
            size_bytes = yield from perform(disk.Size(path))
            if size_bytes is not None:
                return size_bytes
        return None

    def read(self, cid: str) -> Effect[bytes | None]:
        """The bytes in a blob's file, whatever they are.

        Args:
            cid: The blob's identifier.

        Returns:
            The bytes; None where there is no file.
        """
        size_bytes = yield from self.size(cid)
        if size_bytes is None:
            return None
        data = yield from self.read_at(cid, 0, size_bytes)
        yield from self.let_go(cid)
        return data

    def read_at(self, cid: str, offset: int, size_bytes: int) -> Effect[bytes | None]:
        """Some of the bytes in a blob's file, whatever they are. The file is kept open: see `let_go`.

        Args:
            cid: The blob's identifier.
            offset: Where to begin.
            size_bytes: How many, at the most.

        Returns:
            The bytes, fewer only where the file ends; None where there is no file.
        """
        for path in self._paths_of(cid):
            data = yield from _read(path, offset, size_bytes)
            if data is not None:
                return data
        return None

    def read_part(self, cid: str, offset: int, size_bytes: int) -> Effect[bytes | None]:
        """As `read_at`, and the file is not kept open.

        Args:
            cid: The blob's identifier.
            offset: Where to begin.
            size_bytes: How many, at the most.

        Returns:
            The bytes, fewer only where the file ends; None where there is no file.
        """
        data = yield from self.read_at(cid, offset, size_bytes)
        yield from self.let_go(cid)
        return data

    def read_digests(self, cid: str, offset: int, size_bytes: int) -> Effect[bytes | None]:
        """Some of the digests that were kept beside a blob, whatever they are. Their file is not kept open.

        Args:
            cid: The blob's identifier.
            offset: Where to begin.
            size_bytes: How many bytes, at the most.

        Returns:
            The bytes, fewer only where the file ends; None where there are none.
        """
        data = yield from _read(self.path_of(cid) + DIGESTS, offset, size_bytes)
        yield from self.let_go(cid)
        return data

    def let_go(self, cid: str) -> Effect[None]:
        """Keep none of a blob's files open.

        Args:
            cid: The blob's identifier.
        """
        path = self.path_of(cid)
        for each in (path, path + DIGESTS, path + SWEPT):
            yield from perform(disk.LetGo(each))

    def shards(self) -> Effect[list[str]]:
        """The directories that blobs lie in.

        Returns:
            Their paths; none where no blob was ever put.
        """
        try:
            names = yield from perform(disk.List(self._root))
        except FileNotFoundError:
            return []
        return [self._inside(name) for name in names if _SHARD.fullmatch(name)]

    def cids_in(self, shard: str) -> Effect[list[str]]:
        """The blobs in one of the directories that `shards` gives.

        Args:
            shard: The directory's path.

        Returns:
            The blobs' identifiers, sorted.
        """
        names = {name.removesuffix(SWEPT) for name in (yield from perform(disk.List(shard)))}
        return sorted(name for name in names if is_cid(name) and self.path_of(name) == f"{shard}/{name}")

    def put_at(self, cid: str) -> Effect[int | None]:
        """When a blob was last put.

        Args:
            cid: The blob's identifier.

        Returns:
            The moment, in microseconds since 1970, UTC; None where it is not there.
        """
        for path in self._paths_of(cid):
            modified = yield from perform(disk.Modified(path))
            if modified is not None:
                return modified
        return None

    def _paths_of(self, cid: str) -> tuple[str, str, str]:
        """Where a blob may be. While it is taken away by a sweep and put back, it is somewhere at each moment."""
        path = self.path_of(cid)
        return path, path + SWEPT, path

    # Putting

    def put(self, cid: str, data: bytes, digests: bytes = b"") -> Effect[None]:
        """Return when these bytes are on the disk under their name.

        Bytes that are there are not written again, but count as put now, and damaged ones are replaced.

        Args:
            cid: The identifier of the bytes.
            data: The bytes.
            digests: Those below the nodes of their tree, where there is one.

        Raises:
            OSError: The disk refuses: the blob is there or not, and may be put again.
        """
        path = self.path_of(cid)
        if (yield from self.read(cid)) != data or not (yield from self._renew(path)):
            yield from self._make_directories(cid[-2])
            if digests:
                yield from self._write(path + DIGESTS, digests)
            yield from self._write(path, data)
        yield from self._publish(cid)

    def begin(self) -> Effect[None]:
        """Have the directories of what is unfinished. The first step of what is put in pieces."""
        yield from self._make_directories(None)

    def unfinished_path(self) -> str:
        """A path for a file to be written, after `begin`.

        Returns:
            The path, which nobody else has.
        """
        return f"{self._unfinished}/{self._begins}-{next(self._numbers)}"

    def write(self, unfinished: str, offset: int | None, data: bytes) -> Effect[None]:
        """Write some of a file that is to be put.

        Args:
            unfinished: The file's path.
            offset: Where; None: at the beginning of a file that is made for it.
            data: The bytes.
        """
        if offset is None:
            yield from perform(disk.Create(unfinished))
        yield from perform(disk.Write(unfinished, offset or 0, data))

    def write_back(self, unfinished: str, offset: int, size_bytes: int) -> Effect[None]:
        """Have the system begin to bring what was written to the disk.

        Args:
            unfinished: The file's path.
            offset: Where that begins.
            size_bytes: How many bytes it is.
        """
        yield from perform(disk.WriteBack(unfinished, offset, size_bytes))

    def finish(self, cid: str, unfinished: str, digests: str | None) -> Effect[None]:
        """Return when a file that was written is on the disk under the name of its blob. The last step.

        Args:
            cid: The identifier of the bytes.
            unfinished: The file's path.
            digests: That of the file of the digests below the nodes of its tree, where there is one.

        Raises:
            OSError: The disk refuses: the blob is there or not, and may be put again.
        """
        path = self.path_of(cid)
        yield from self._make_directories(cid[-2])
        if digests is not None:
            yield from perform(disk.Sync(digests))
        # After a sync that failed, nobody knows what of the file is on the disk: it is given up, as after all else.
        yield from perform(disk.Sync(unfinished))
        if digests is not None:
            yield from perform(disk.Rename(digests, path + DIGESTS))
        yield from perform(disk.Rename(unfinished, path))
        yield from self.let_go(cid)
        yield from self._publish(cid)

    def take_away(self, unfinished: str) -> Effect[None]:
        """Remove a file that was being written, if it came that far and if that can be done.

        Args:
            unfinished: The file's path.
        """
        try:
            if (yield from perform(disk.Size(unfinished))) is not None:
                yield from perform(disk.Remove(unfinished))
        except OSError:
            # What went wrong first is told. The file is taken away by the next opening.
            return

    def _publish(self, cid: str) -> Effect[None]:
        # Also of a file that was found: whoever renamed it may not have come to sync its name.
        yield from perform(disk.SyncDirectory(self._inside(cid[-2])))
        yield from perform(disk.CheckHeld(""))

    def _renew(self, path: str) -> Effect[bool]:
        """Have a blob that is there count as put now. Not where a sweep has just taken it: then it is put anew."""
        try:
            yield from perform(disk.Touch(path))
        except FileNotFoundError:
            return False
        return True

    def _write(self, path: str, data: bytes) -> Effect[None]:
        unfinished = self.unfinished_path()
        try:
            yield from perform(disk.Create(unfinished))
            yield from perform(disk.Write(unfinished, 0, data))
            yield from perform(disk.Sync(unfinished))
            yield from perform(disk.Rename(unfinished, path))
        except GeneratorExit:
            # Nothing may be asked any more: the next opening takes the file away.
            raise
        except BaseException:
            yield from self.take_away(unfinished)
            raise
        yield from perform(disk.LetGo(path))

    # Dropping

    def drop(self, cid: str, put_before: int) -> Effect[bool]:
        """Remove a blob, unless somebody has put it since a moment.

        Whoever puts it meanwhile finds its file, and touches it, or finds none, and writes it anew. So the file is
        first given another name, under which it is still read, and nobody can touch it any more.

        Args:
            cid: The blob's identifier.
            put_before: The moment, in microseconds since 1970, UTC.

        Returns:
            Whether it was removed.
        """
        path = self.path_of(cid)
        put_at = yield from self.put_at(cid)
        if put_at is None or put_at >= put_before:
            return False
        try:
            if (yield from perform(disk.Size(path))) is not None:
                yield from perform(disk.Rename(path, path + SWEPT))
            put_at = yield from perform(disk.Modified(path + SWEPT))
            if put_at is None or put_at >= put_before:
                yield from perform(disk.Rename(path + SWEPT, path))
                return False
            yield from perform(disk.Remove(path + SWEPT))
        except FileNotFoundError:
            # Another sweep is at it.
            return False
        if (yield from perform(disk.Size(path))) is None and (
            yield from perform(disk.Size(path + DIGESTS))
        ) is not None:
            yield from perform(disk.Remove(path + DIGESTS))
        yield from self.let_go(cid)
        return True

    # Directories

    def _inside(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name

    def _make_directories(self, shard: str | None) -> Effect[None]:
        if self._begins is None:
            if self._root:
                yield from perform(disk.MakeDirectory(self._root))
                yield from perform(disk.SyncDirectory(os.path.dirname(self._root)))
            yield from perform(disk.MakeDirectory(self._unfinished))
            self._begins = yield from self._take_unfinished()
        if shard is not None and shard not in self._shards:
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


def _read(path: str, offset: int, size_bytes: int) -> Effect[bytes | None]:
    try:
        try:
            return (yield from perform(disk.Read(path, offset, size_bytes)))
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        # Another process has put the blob again since the file was opened: what has its name now is as good.
        yield from perform(disk.LetGo(path))
        return (yield from perform(disk.Read(path, offset, size_bytes)))
    except FileNotFoundError:
        return None
