"""A copy of a store as it was at one moment, made while others read and write.

A store is its log, so every prefix of the log is the store as it was at some moment. Sealed segments never change,
and are copied whole; of the active one, the frames that are there. Each copy is read again and compared with the
digest in the manifest, so that damage is not handed on in silence. Blobs come after the log, so that all are there
that it names. Where a compaction takes files away meanwhile,
everything begins again with the manifest that is then in force.
"""

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import FOOTER, HEADER_BYTES, Digest
from interpreters.stores.file.manifest import (
    Manifest,
    Moment,
    Sealed,
    index_path,
    load_beside_writer,
    publish,
    segment_path,
)
from interpreters.stores.file.scan import Bad, Damage, Scan, Segment
from interpreters.stores.file.sealed import check_nothing_is_left_out, check_order, index_limit_bytes, read_headers
from interpreters.stores.file.upkeep.blobs import copy_blobs
from interpreters.stores.file.upkeep.survey import BytesProgress, find_segment
from interpreters.stores.file.upkeep.two_disks import on_target
from persist_effects.errors import CorruptStore, InvalidRequest, StoreUnavailable
from persist_effects.machine import Effect, perform

_ATTEMPTS = 20
_CHUNK_BYTES = 1024 * 1024


class BackedUp(msgspec.Struct, frozen=True):
    """What was copied."""

    segments: int
    bytes: int
    """Of the segments."""
    blobs: int = 0
    blob_bytes: int = 0


def backup_store(moment: Moment | None = None, progress: BytesProgress | None = None) -> Effect[BackedUp]:
    """Copy the store on the first disk to the second (`two_disks`), as it was at a moment, or else now.

    At a moment: no compaction may have run since. Now: the copy may have a commit that was just being made. Raises
    `InvalidRequest` where there is no store, or the second disk is not empty, and `CorruptStore` for damage.
    """
    if (yield from on_target(perform(disk.List(".")))):
        raise InvalidRequest("the directory to back up into is not empty: give a new one")
    yield from on_target(perform(disk.MakeDirectory("log")))
    if moment is not None:
        return (yield from _Backup(moment.manifest, moment.offset, progress).run())
    for _ in range(_ATTEMPTS):
        manifest = yield from load_beside_writer()
        if manifest is None:
            raise InvalidRequest("there is no store in this directory: give the directory that holds CURRENT and log")
        try:
            return (yield from _Backup(manifest, None, progress).run())
        except (FileNotFoundError, CorruptStore):
            now = yield from load_beside_writer()
            if now is None or now.name == manifest.name:
                raise
    raise StoreUnavailable(f"the store was changed {_ATTEMPTS} times while it was copied: try again")


class _Backup:
    """One attempt to copy what a manifest names; of the active segment, what comes before ``until``."""

    def __init__(self, manifest: Manifest, until: int | None, progress: BytesProgress | None) -> None:
        self._manifest = manifest
        self._until = until
        self._progress = progress
        self._done_bytes = 0
        self._total_bytes = 0

    def run(self) -> Effect[BackedUp]:
        sealed = self._manifest.sealed
        headers = yield from read_headers(self._manifest)
        check_order(self._manifest, headers)
        yield from check_nothing_is_left_out(self._manifest, headers)
        last = yield from self._measure_active()
        seals = [*sealed, *([] if last is None else [last])]
        self._total_bytes = sum(one.length_bytes for one in seals)
        for one in seals:
            yield from self._copy(one, with_index=one is not last)
        blobs = yield from copy_blobs()
        if blobs.damages:
            raise CorruptStore(
                f"{blobs.damages[0]}: nothing was backed up: put the bytes of that blob again, or salvage the store"
            )
        yield from self._publish(seals)
        return BackedUp(len(seals), self._total_bytes, blobs.blobs, blobs.bytes)

    def _measure_active(self) -> Effect[Sealed | None]:
        """The active segment as if it had been sealed where it ends now; None if it has no frames."""
        number = self._manifest.active
        if number is None or self._until == HEADER_BYTES:
            return None
        segment = yield from self._find(number, None)
        end, digest = yield from _read_frames(segment, self._until)
        return None if end == HEADER_BYTES else Sealed(number, end, digest)

    def _find(self, number: int, sealed: Sealed | None) -> Effect[Segment]:
        damages: list[Damage] = []
        segment = yield from find_segment(number, self._manifest.uuid, sealed, damages)
        if damages or segment is None:
            raise CorruptStore(f"{damages[0]}: nothing was backed up: salvage the store")
        return segment

    def _copy(self, sealed: Sealed, *, with_index: bool) -> Effect[None]:
        path = segment_path(sealed.number)
        yield from self._copy_file(path, sealed.length_bytes, counts=True)
        yield from on_target(self._check_copy(sealed))
        index = index_path(sealed.number)
        size_bytes = (yield from perform(disk.Size(index))) if with_index else None
        if size_bytes is not None:
            # Where it is damaged or just being written, it will be made again.
            size_bytes = min(size_bytes, index_limit_bytes(sealed.length_bytes))
            yield from self._copy_file(index, size_bytes, counts=False)

    def _copy_file(self, path: str, size_bytes: int, *, counts: bool) -> Effect[None]:
        if (yield from on_target(perform(disk.Size(path)))) is not None:
            yield from on_target(perform(disk.Remove(path)))
        yield from on_target(perform(disk.Create(path)))
        for offset in range(0, size_bytes, _CHUNK_BYTES):
            data = yield from perform(disk.Read(path, offset, min(_CHUNK_BYTES, size_bytes - offset)))
            yield from on_target(perform(disk.Write(path, offset, data)))
            if counts:
                self._done_bytes += len(data)
                if self._progress is not None:
                    self._progress(self._done_bytes, self._total_bytes)
        yield from on_target(perform(disk.Sync(path)))

    def _check_copy(self, sealed: Sealed) -> Effect[None]:
        segment = yield from self._find(sealed.number, sealed)
        _, digest = yield from _read_frames(segment, None)
        if digest != sealed.digest:
            raise CorruptStore(
                f"{segment.path}: offset 0: the frames' digest is {digest.hex()}, expected {sealed.digest.hex()}: "
                "nothing was backed up: salvage the store"
            )

    def _publish(self, seals: list[Sealed]) -> Effect[None]:
        of = self._manifest
        yield from on_target(perform(disk.SyncDirectory("log")))
        manifest = Manifest(of.format, of.uuid, of.epoch, 1, of.next_segment, seals, None)
        yield from on_target(publish(manifest))


def _read_frames(segment: Segment, until: int | None) -> Effect[tuple[int, bytes]]:
    """Where the last frame ends that is not a footer, and the digest so far. Raises `CorruptStore`."""
    end, digest = HEADER_BYTES, Digest()
    scan = Scan(segment)
    while (found := (yield from scan.next())) is not None:
        if isinstance(found, Bad):
            raise CorruptStore(
                f"{segment.path}: offset {found.start}: no valid frame: nothing was backed up: salvage the store"
            )
        frames = [frame for frame in found if frame.type != FOOTER and (until is None or frame.end <= until)]
        digest.add([frame.checksum.to_bytes(4, "little") for frame in frames])
        end = frames[-1].end if frames else end
    return end, digest.value()
