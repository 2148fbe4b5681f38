"""Restoring: a new store of what was shipped, as it was at last, or at a position or a revision of before.

As it was at last, it is the same store: its segments are the same bytes, and it may go on being shipped to the same
target. As it was before, it is another store, with a UUID of its own and the same commits in segments of its own: it
goes another way from there, and is shipped to a target of its own.

A commit is one frame, events and keys together, and so is restored whole or not at all. At a position, a store has all
commits in the order of the log before the first with an event past it: so it has the keys that were put and the streams
that were truncated behind the event of that position and before the next event. At a revision, likewise.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from interpreters.blobs.cid import LikeBuilder
from interpreters.blobs.files import BlobFiles
from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    COMMITS,
    FORMAT_VERSION,
    NO_DIGEST,
    Frame,
    Payload,
    SegmentHeader,
    decode_header,
)
from interpreters.stores.file.manifest import BLOBS, Manifest, Sealed, publish, segment_path
from interpreters.stores.file.sealed import load_sealed
from interpreters.stores.file.upkeep.blobs import Copying
from interpreters.stores.file.upkeep.shipping.checking import Counters, SegmentCheck
from interpreters.stores.file.upkeep.shipping.layout import (
    IDENTITY,
    BlobPieces,
    Catalog,
    SegmentKey,
    SegmentPiece,
    TargetContents,
    blob_piece,
    decode_identity,
)
from interpreters.stores.file.upkeep.shipping.shipper import load_catalogs, shipped_counters
from interpreters.stores.file.upkeep.shipping.targets import GetObject, ListObjects
from interpreters.stores.file.writer import FOOTER_BYTES, Writer
from persist_effects.errors import CorruptStore, InvalidRequest
from persist_effects.machine import Effect, perform


class Restored(msgspec.Struct):
    """What was restored: up to which position and revision, and which blobs are damaged or not whole, and left out."""

    segments: int = 0
    bytes: int = 0
    position: int = 0
    revision: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    damages: list[str] = []


class Cut(msgspec.Struct, frozen=True):
    """Up to where a log is restored: all of it, or its commits up to a position or a revision."""

    position: int | None = None
    revision: int | None = None

    @property
    def is_none(self) -> bool:
        """Whether all is wanted."""
        return self.position is None and self.revision is None

    def is_past(self, frame: Frame) -> bool:
        """Whether a commit is not to be restored, nor any behind it."""
        counters = Counters()
        counters.take(frame)
        return (self.position is not None and counters.position > self.position) or (
            self.revision is not None and counters.revision > self.revision
        )

    def is_before(self, counters: Counters) -> bool:
        """Whether what counts up to here lacks something of what is wanted."""
        return (self.position or 0) > counters.position or (self.revision or 0) > counters.revision

    def fits(self, catalog: Catalog) -> bool:
        """Whether the log of a catalog has all commits from here on."""
        return (self.position is None or self.position >= catalog.since_position) and (
            self.revision is None or self.revision >= catalog.since_revision
        )

    def __str__(self) -> str:
        told = ("position", self.position), ("revision", self.revision)
        return " and ".join(f"{name} {number}" for name, number in told if number is not None)


def restore_store(
    cut: Cut, random_bytes: Callable[[int], bytes], progress: Callable[[int, int], None] | None = None
) -> Effect[Restored]:
    """Make a store on the empty disk of what is in a target, asked for by ``objects/*``.

    Raises:
        InvalidRequest: The target has no store, or not what is wanted of it.
        CorruptStore: An object is damaged, or missing; told by its name and the offset in it.
    """
    contents, catalogs = yield from _listed()
    uuid = decode_identity((yield from perform(GetObject(IDENTITY)))).uuid
    strange = next((one for one in catalogs if one.uuid != uuid), None)
    if strange is not None:
        raise CorruptStore(
            f"{strange.name}: offset 0: expected a catalog of store {uuid.hex()}, found that of {strange.uuid.hex()}"
        )
    catalog = _chosen(catalogs, cut)
    yield from perform(disk.MakeDirectory("log"))
    restoring = _Restoring(contents, catalog, cut, random_bytes, progress)
    restored = yield from restoring.run()
    if not restoring.has_cut:
        yield from _check_reached(contents, catalogs, catalog, cut, restored)
    yield from restoring.publish()
    return restored


def _listed() -> Effect[tuple[TargetContents, list[Catalog]]]:
    """What a target has, at one moment, though a shipper may put a catalog in the place of another meanwhile."""
    names = yield from perform(ListObjects(""))
    while True:
        contents = TargetContents(names)
        contents.check_ours()
        if not contents.catalogs:
            raise InvalidRequest("no store was shipped to this target: mend its path, or wait for a first look to end")
        try:
            return contents, (yield from load_catalogs(contents))
        except CorruptStore:
            before, names = names, (yield from perform(ListObjects("")))
            if names == before:
                raise


def _chosen(catalogs: Sequence[Catalog], cut: Cut) -> Catalog:
    for catalog in reversed(catalogs):
        if cut.fits(catalog):
            return catalog
    oldest = catalogs[0]
    raise InvalidRequest(
        f"what was shipped first begins at position {oldest.since_position} and revision {oldest.since_revision}, "
        f"and {cut} was before: a compaction took it"
    )


def _check_reached(
    contents: TargetContents, catalogs: Sequence[Catalog], catalog: Catalog, cut: Cut, restored: Restored
) -> Effect[None]:
    """Refuse where the log that was chosen does not go so far: it has not been, or a compaction took it unshipped."""
    counters = Counters(restored.position, restored.revision)
    if cut.is_none or not cut.is_before(counters):
        return
    later = next((one for one in catalogs if one.number > catalog.number), None)
    if later is not None:
        raise InvalidRequest(
            f"{cut} was compacted away before it was shipped: restore position {counters.position} and revision "
            f"{counters.revision}, or from {later.since_position} and {later.since_revision} on"
        )
    newest = yield from shipped_counters(contents, catalogs)
    if cut.is_before(newest):
        raise InvalidRequest(
            f"{cut} was not shipped: the target goes up to position {newest.position} and revision {newest.revision}"
        )


class _Restoring:
    """The log of one catalog, segment after segment, up to the cut."""

    def __init__(
        self,
        contents: TargetContents,
        catalog: Catalog,
        cut: Cut,
        random_bytes: Callable[[int], bytes],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._contents = contents
        self._catalog = catalog
        self._cut = cut
        self._random_bytes = random_bytes
        self._progress = progress
        self._restored = Restored()
        self._seals: list[Sealed] = []
        self._counters = Counters()
        self.has_cut = False
        """Whether a commit came that is not to be restored."""
        # Of a store of its own, which one that was cut is.
        self._uuid = catalog.uuid if cut.is_none else random_bytes(16)

    def run(self) -> Effect[Restored]:
        """Write the segments and the blobs. No manifest names them yet."""
        for key, sealed in self._segments():
            yield from (self._copy(key, sealed) if self._cut.is_none else self._write_anew(key, sealed))
            if self.has_cut:
                break
        yield from perform(disk.SyncDirectory("log"))
        restored = self._restored
        restored.segments = len(self._seals)
        restored.bytes = sum(one.length_bytes for one in self._seals)
        restored.position, restored.revision = self._counters.position, self._counters.revision
        yield from self._restore_blobs()
        return restored

    def publish(self) -> Effect[None]:
        """Put the store's manifest in force."""
        of = self._catalog
        if self._cut.is_none:
            manifest = Manifest(FORMAT_VERSION, of.uuid, of.epoch, of.number, of.next_segment, self._seals, None)
        else:
            manifest = Manifest(FORMAT_VERSION, self._uuid, 1, 1, len(self._seals) + 1, self._seals, None)
        yield from publish(manifest)

    def _segments(self) -> Iterator[tuple[SegmentKey, Sealed | None]]:
        yield from ((one.key, one.sealed()) for one in self._catalog.sealed)
        if self._catalog.active is not None:
            yield self._catalog.active.key, None

    # As it is

    def _copy(self, key: SegmentKey, sealed: Sealed | None) -> Effect[None]:
        """Write the same bytes."""
        path = segment_path(key.number)
        reading = _Reading(self._contents, self._catalog, key, sealed)
        yield from perform(disk.Create(path))
        offset = 0
        while data := (yield from reading.next()):
            reading.check_frames()
            yield from perform(disk.Write(path, offset, data))
            offset += len(data)
            self._tell(len(data))
        reading.finish()
        yield from perform(disk.Sync(path))
        self._counters.take_all(reading.check.counters)
        if sealed is None and not reading.check.digest.frames:
            yield from perform(disk.Remove(path))
        else:
            yield from self._note(sealed or Sealed(key.number, offset, reading.check.digest.value()))

    # As it was

    def _write_anew(self, key: SegmentKey, sealed: Sealed | None) -> Effect[None]:
        """Write the same commits up to the cut into a segment of the new store."""
        reading = _Reading(self._contents, self._catalog, key, sealed)
        writer: Writer | None = None
        while data := (yield from reading.next()):
            self._tell(len(data))
            frames = [frame for frame in reading.frames if frame.type in COMMITS]
            past = next((place for place, frame in enumerate(frames) if self._cut.is_past(frame)), None)
            self.has_cut = past is not None
            frames = frames[:past]
            for frame in frames:
                self._counters.take(frame)
            if frames and writer is None:
                writer = self._new_writer(reading.header.first_position, reading.end)
                yield from writer.create()
            if writer is not None:
                yield from writer.append([_payload_of(frame) for frame in frames])
            if self.has_cut:
                break
            reading.check_frames()
        if not self.has_cut:
            reading.finish()
        if writer is not None:
            digest = yield from writer.seal()
            yield from perform(disk.Truncate(writer.path, writer.offset))
            yield from perform(disk.Sync(writer.path))
            yield from self._note(Sealed(writer.header.number, writer.offset, digest))

    def _note(self, sealed: Sealed) -> Effect[None]:
        """Read what was written again, compare it with its digest, and make its index."""
        loaded = yield from load_sealed(sealed, self._uuid, mend=True)
        self._seals.append(loaded.sealed)

    def _new_writer(self, first_position: int, length_bytes: int) -> Writer:
        header = SegmentHeader(
            self._uuid,
            len(self._seals) + 1,
            int.from_bytes(self._random_bytes(8), "little"),
            first_position,
            self._seals[-1].digest if self._seals else NO_DIGEST,
        )
        return Writer(header, length_bytes + FOOTER_BYTES)

    def _tell(self, size_bytes: int) -> None:
        self._restored.bytes += size_bytes
        if self._progress is not None:
            total = sum(one.length_bytes for one in self._catalog.sealed)
            self._progress(self._restored.bytes, max(total, self._restored.bytes))

    # Blobs

    def _restore_blobs(self) -> Effect[None]:
        copying = Copying()
        for cid, pieces in sorted(self._contents.blobs.items()):
            yield from self._restore_blob(copying, cid, pieces)
        for directory in (*sorted(copying.shards), *([BLOBS, "."] if copying.shards else [])):
            yield from perform(disk.SyncDirectory(directory))

    def _restore_blob(self, copying: Copying, cid: str, pieces: BlobPieces) -> Effect[None]:
        """Write a blob whose bytes are there, and what its identifier says; tell any other."""
        if 0 not in pieces.starts:
            # Just being shipped, or given up half-way: the first piece is put last.
            return
        missing = next((start for start in pieces.wanted() if start not in pieces.starts), None)
        if missing is not None:
            name = blob_piece(cid, pieces.size_bytes, missing)
            self._restored.damages.append(f"{name}: offset 0: expected a piece of a blob, found no object")
            return
        path, builder = BlobFiles(BLOBS).path_of(cid), LikeBuilder(cid)
        yield from copying.begin(path)
        for start in pieces.wanted():
            data = (yield from perform(GetObject(blob_piece(cid, pieces.size_bytes, start)))) or b""
            builder.feed(data)
            yield from perform(disk.Write(path, start, data))
        if builder.cid() != cid:
            yield from copying.give_up(path)
            name = blob_piece(cid, pieces.size_bytes, 0)
            self._restored.damages.append(f"{name}: offset 0: expected bytes of blob {cid}, found others")
            return
        yield from copying.finish(cid, path, builder.digests())
        self._restored.blobs += 1
        self._restored.blob_bytes += pieces.size_bytes


def _payload_of(frame: Frame) -> Payload:
    return frame.type, frame.payload


class _Reading:
    """The bytes of a shipped segment, piece after piece, each frame of which is checked."""

    def __init__(self, contents: TargetContents, catalog: Catalog, key: SegmentKey, sealed: Sealed | None) -> None:
        self._key = key
        self._sealed = sealed
        self._uuid = catalog.uuid
        self.pieces = contents.cover(key)
        covered = self.pieces[-1].end if self.pieces else 0
        promised = sealed.length_bytes if sealed is not None else catalog.active.end if catalog.active else 0
        if covered < promised:
            raise CorruptStore(
                f"{key}: offset {covered}: expected objects up to {promised}, found none: one is missing"
            )
        self.end = sealed.length_bytes if sealed is not None else covered
        self.check = SegmentCheck(str(key), SegmentHeader(catalog.uuid, *key, 0, b"").seed)
        self.frames: list[Frame] = []
        self.header = SegmentHeader(catalog.uuid, *key, 1, NO_DIGEST)

    def next(self) -> Effect[bytes]:
        """The bytes of the next piece, as far as they are wanted and not read yet; none at the end."""
        if self.check.offset >= self.end:
            return b""
        piece = self._piece_at(self.check.offset)
        data = yield from perform(GetObject(piece.name(self._key)))
        if data is None:
            # A shipper may just have put another one in its place.
            self.pieces = TargetContents((yield from perform(ListObjects(f"{self._key}.")))).cover(self._key)
            piece = self._piece_at(self.check.offset) if self.pieces else piece
            data = yield from perform(GetObject(piece.name(self._key)))
        name = piece.name(self._key)
        if data is None or len(data) != piece.end - piece.start:
            found = "none" if data is None else f"{len(data)}"
            raise CorruptStore(f"{name}: offset 0: expected {piece.end - piece.start} bytes, found {found}")
        data = data[self.check.offset - piece.start : self.end - piece.start]
        if not self.check.offset:
            self.header = self._decoded_header(name, data)
        self.frames = self.check.feed(data)
        return data

    def _piece_at(self, offset: int) -> SegmentPiece:
        return next((one for one in self.pieces if one.start <= offset < one.end), self.pieces[-1])

    def _decoded_header(self, name: str, data: bytes) -> SegmentHeader:
        header = decode_header(data, name)
        if (header.uuid, header.number, header.salt) != (self._uuid, *self._key):
            raise CorruptStore(f"{name}: offset 0: expected the header of {self._key}, found that of another segment")
        return header

    def check_frames(self) -> None:
        """Raise `CorruptStore`, naming the object, where a frame is not valid, or not whole: pieces have whole ones."""
        if self.check.checked != self.check.offset:
            raise self._error()

    def finish(self) -> None:
        """Raise `CorruptStore` unless these were the frames that were sealed, to the last."""
        check, sealed = self.check, self._sealed
        if check.checked != check.offset or check.offset != self.end:
            raise self._error()
        if sealed is not None and check.digest.value() != sealed.digest:
            raise CorruptStore(
                f"{self._key}: offset 0: the frames' digest is {check.digest.value().hex()}, expected "
                f"{sealed.digest.hex()}"
            )

    def _error(self) -> CorruptStore:
        at = self.check.checked
        piece = self._piece_at(at)
        return CorruptStore(
            f"{piece.name(self._key)}: offset {at - piece.start}: expected a frame, found bytes that do not fit their "
            f"checksum: what comes before position {self.check.counters.position} can be restored"
        )
