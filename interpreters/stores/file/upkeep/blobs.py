"""The blobs of a store: each is read and compared with its identifier, and what is sound may be copied.

A blob is put before the log names it, and never changed. So blobs that are listed after a moment of the log has been
fixed are at least all that it names.
"""

from collections.abc import Callable

from interpreters.blobs.cid import cid_like
from interpreters.blobs.directory import BlobFiles
from interpreters.disk import requests as disk
from interpreters.stores.file.manifest import BLOBS
from interpreters.stores.file.scan import Damage
from interpreters.stores.file.upkeep.two_disks import on_target
from persist_effects.errors import StoreUnavailable
from persist_effects.machine import Effect, perform

Visit = Callable[[str, str, bytes], Effect[None]]
"""What is done with a sound blob, by its identifier, its path and its bytes."""


class BlobWalk:
    """One reading of all blobs: how many are sound, which are not, and what is wrong with them."""

    def __init__(self) -> None:
        self.blobs = 0
        self.bytes = 0
        self.damages: list[Damage] = []
        self.lost: list[str] = []
        self._files = BlobFiles(BLOBS)

    def run(self, visit: Visit | None = None) -> Effect[None]:
        """Read every blob, one at a time, and hand on those that are sound."""
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
                yield from self._look_at(cid, visit)

    def _look_at(self, cid: str, visit: Visit | None) -> Effect[None]:
        path = self._files.path_of(cid)
        try:
            data = yield from self._files.read(cid)
        except OSError as error:
            self._lose(cid, Damage(path, 0, "a file that can be read", str(error)))
            return
        found = None if data is None else cid_like(cid, data)
        if data is None or found != cid:
            told = "no file" if data is None else f"{len(data)} bytes of blob {found}"
            self._lose(cid, Damage(path, 0, f"the bytes of blob {cid}", told))
            return
        if visit is not None:
            yield from visit(cid, path, data)
        self.blobs += 1
        self.bytes += len(data)

    def _lose(self, cid: str, damage: Damage) -> None:
        self.lost.append(cid)
        self.damages.append(damage)


def copy_blobs() -> Effect[BlobWalk]:
    """Copy the sound blobs on the first disk to the second (`two_disks`), into a directory that nobody else uses yet.

    Each copy is read again. All are on the second disk when it returns.
    """
    walk, made = BlobWalk(), set[str]()

    def copy(cid: str, path: str, data: bytes) -> Effect[None]:
        shard = path.rpartition("/")[0]
        if shard not in made:
            for directory in (BLOBS, shard):
                yield from perform(disk.MakeDirectory(directory))
            made.add(shard)
        if (yield from perform(disk.Size(path))) is None:  # else it is there from an attempt before
            yield from perform(disk.Create(path))
            yield from perform(disk.Write(path, 0, data))
            yield from perform(disk.Sync(path))
        if (yield from perform(disk.Read(path, 0, len(data) + 1))) != data:
            raise StoreUnavailable(f"{path}: the copy of blob {cid} has other bytes: the disk of the copy is faulty")
        yield from perform(disk.LetGo(path))

    yield from walk.run(lambda cid, path, data: on_target(copy(cid, path, data)))
    for directory in (*sorted(made), *([BLOBS, "."] if made else [])):
        yield from on_target(perform(disk.SyncDirectory(directory)))
    return walk
