"""The blobs of a store: each is read and compared with its identifier, and what is sound may be copied.

A blob is put before the log names it, and never changed. So blobs that are listed after a moment of the log has been
fixed are at least all that it names.
"""

from collections.abc import Callable
from typing import TypeVar

from interpreters.blobs.cid import LikeBuilder
from interpreters.blobs.files import DIGESTS, BlobFiles
from interpreters.blobs.homes import PIECE_BYTES
from interpreters.disk import requests as disk
from interpreters.stores.file.manifest import BLOBS
from interpreters.stores.file.scan import Damage
from interpreters.stores.file.upkeep.two_disks import on_target
from persist_effects.errors import StoreUnavailable
from persist_effects.machine import Effect, perform

A = TypeVar("A")

Piece = Callable[[int, bytes], Effect[None]]
"""What is done with some of the bytes of a blob, by where they begin."""


class Copying:
    """Copies blobs to the second disk (`two_disks`), where nobody else uses their directory yet."""

    def __init__(self) -> None:
        self.shards: set[str] = set()
        self._files = BlobFiles(BLOBS)

    def begin(self, path: str) -> Effect[None]:
        """Make the file of a blob, in the place of one that an attempt before left."""
        shard = path.rpartition("/")[0]
        if shard not in self.shards:
            for directory in (BLOBS, shard):
                yield from perform(disk.MakeDirectory(directory))
            self.shards.add(shard)
        yield from self.give_up(path)
        yield from perform(disk.Create(path))

    def finish(self, cid: str, path: str, digests: bytes) -> Effect[None]:
        """Have a copy on the disk, with the digests of its chunks, and compare it with its identifier."""
        yield from perform(disk.Sync(path))
        if digests:
            yield from self.give_up(path + DIGESTS)
            yield from perform(disk.Create(path + DIGESTS))
            yield from perform(disk.Write(path + DIGESTS, 0, digests))
            yield from perform(disk.Sync(path + DIGESTS))
        copy = yield from _read_through(self._files, cid)
        if copy is None or copy.cid() != cid:
            raise StoreUnavailable(f"{path}: the copy of blob {cid} has other bytes: the disk of the copy is faulty")

    def give_up(self, path: str) -> Effect[None]:
        """Remove a file, if there is one."""
        if (yield from perform(disk.Size(path))) is not None:
            yield from perform(disk.Remove(path))


class BlobWalk:
    """One reading of all blobs, in pieces: how many are sound, which are not, and what is wrong with them.

    Args:
        copying: Copies those that are sound.
    """

    def __init__(self, copying: Copying | None = None) -> None:
        self.blobs = 0
        self.bytes = 0
        self.damages: list[Damage] = []
        self.lost: list[str] = []
        self._copying = copying
        self._files = BlobFiles(BLOBS)

    def run(self) -> Effect[None]:
        """Read every blob, one at a time."""
        if BLOBS not in (yield from perform(disk.List("."))):
            return
        try:
            shards = yield from self._files.shards()
        except OSError as error:
            self.damages.append(Damage(BLOBS, 0, "the directory of the blobs", str(error)))
            return
        for shard in shards:
            try:
                cids = yield from self._files.cids_in(shard)
            except OSError as error:
                self.damages.append(Damage(shard, 0, "a directory of blobs", str(error)))
                continue
            for cid in cids:
                yield from self._look_at(cid)

    def _look_at(self, cid: str) -> Effect[None]:
        path, copying = self._files.path_of(cid), self._copying
        if copying is not None:
            yield from on_target(copying.begin(path))
        try:
            blob = yield from _read_through(self._files, cid, None if copying is None else _copies_to(path))
        except _Unreadable as error:
            yield from self._lose(cid, Damage(path, 0, "a file that can be read", str(error)))
            return
        found = None if blob is None else blob.cid()
        if blob is None or found != cid:
            told = "no file" if blob is None else f"{blob.size_bytes} bytes of blob {found}"
            yield from self._lose(cid, Damage(path, 0, f"the bytes of blob {cid}", told))
            return
        if copying is not None:
            yield from on_target(copying.finish(cid, path, blob.digests()))
        self.blobs += 1
        self.bytes += blob.size_bytes

    def _lose(self, cid: str, damage: Damage) -> Effect[None]:
        self.lost.append(cid)
        self.damages.append(damage)
        if self._copying is not None:
            yield from on_target(self._copying.give_up(self._files.path_of(cid)))


def _copies_to(path: str) -> Piece:
    return lambda offset, data: on_target(perform(disk.Write(path, offset, data)))


class _Unreadable(Exception):
    """The disk refuses to read a blob."""


def _readable(program: Effect[A]) -> Effect[A]:
    try:
        return (yield from program)
    except OSError as error:
        raise _Unreadable(str(error)) from error


def _read_through(files: BlobFiles, cid: str, each: Piece | None = None) -> Effect[LikeBuilder | None]:
    """What the bytes of a blob come to; None where there are none. Each piece is also handed on.

    Raises `_Unreadable` where they cannot be read. What `each` raises is raised as it is.
    """
    size_bytes = yield from _readable(files.size(cid))
    if size_bytes is None:
        return None
    builder = LikeBuilder(cid)
    for offset in range(0, size_bytes, PIECE_BYTES):
        data = yield from _readable(files.read_at(cid, offset, PIECE_BYTES))
        if data is None:
            return None
        builder.feed(data)
        if each is not None:
            yield from each(offset, data)
    yield from files.let_go(cid)
    return builder


def copy_blobs() -> Effect[BlobWalk]:
    """Copy the sound blobs on the first disk to the second (`two_disks`), into a directory that nobody else uses yet.

    Each copy is read again. All are on the second disk when it returns.
    """
    copying = Copying()
    walk = BlobWalk(copying)
    yield from walk.run()
    for directory in (*sorted(copying.shards), *([BLOBS, "."] if copying.shards else [])):
        yield from on_target(perform(disk.SyncDirectory(directory)))
    return walk
