"""Shipping: what a store has on its disk is put into a target, look after look. The store is only read.

A look puts the blobs, then the segments, then, where the manifest is a new one, a catalog that names them: so whenever
a shipper was killed, all that a catalog names is there. What was put is known by its name, and put again where that is
not listed. Bytes are deleted only once others that have them are there.
"""

from collections.abc import Callable, Sequence

import msgspec

from interpreters.blobs.cid import LikeBuilder
from interpreters.blobs.files import BlobFiles
from interpreters.disk import requests as disk
from interpreters.stores.file.format import SegmentHeader
from interpreters.stores.file.manifest import BLOBS, load_beside_writer
from interpreters.stores.file.upkeep.shipping.checking import Counters, SegmentCheck
from interpreters.stores.file.upkeep.shipping.lag import ShippingLag, bytes_behind, lag_between
from interpreters.stores.file.upkeep.shipping.layout import (
    IDENTITY,
    LAYOUT_VERSION,
    PIECE_BYTES,
    ActiveSegment,
    BlobPieces,
    Catalog,
    SealedSegment,
    SegmentKey,
    StoreIdentity,
    TargetContents,
    blob_piece,
    decode_catalog,
    decode_identity,
    encode,
)
from interpreters.stores.file.upkeep.shipping.pieces import SegmentShipping
from interpreters.stores.file.upkeep.shipping.source import Source, SourceReader, base_of
from interpreters.stores.file.upkeep.shipping.targets import (
    DeleteObject,
    GetObject,
    ListObjects,
    PutObject,
    TargetTrouble,
)
from persist_effects.errors import CorruptStore, InvalidRequest, StoreUnavailable
from persist_effects.machine import Effect, perform

_ATTEMPTS = 20
_DAY = 24 * 60 * 60 * 1_000_000
_ANOTHER = "give each store a target of its own"


class Shipped(msgspec.Struct, frozen=True):
    """What a look put, and where the target is now."""

    objects: int = 0
    bytes: int = 0
    blobs: int = 0
    position: int = 0
    revision: int = 0
    damages: list[str] = []
    """Blobs of the store that are damaged. They are not shipped."""


class Shipper:
    """Ships one store to one target. Its methods are programs over `disk/*`, the store's, and `objects/*`.

    Args:
        clock: Gives microseconds since 1970, UTC.
        keep_days: How many days a log is kept, for restoring what was before, after a compaction has made another of
            it; None: for ever.
        told: Told after each object how many bytes the look has put, and how many there are to put at the least.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        keep_days: float | None = None,
        told: Callable[[int, int], None] | None = None,
    ) -> None:
        self._clock = clock
        self._keep_days = keep_days
        self._told = told
        self._reader = SourceReader()
        self._contents: TargetContents | None = None
        self._is_stale = False
        self._catalogs: list[Catalog] = []
        self._checks: dict[SegmentKey, SegmentShipping] = {}
        self._base: tuple[SegmentKey, bytes] | None = None
        self._damaged_blobs: list[str] = []
        self._shipped = Counters()
        self._objects = self._bytes = self._blobs = self._wanted_bytes = 0

    @property
    def _known(self) -> TargetContents:
        """What the target has, as it was listed, and as it was put since."""
        assert self._contents is not None, "it has begun"
        return self._contents

    def forget(self) -> None:
        """Begin the next look with what the target lists then, as after whatever has ended one."""
        self._is_stale, self._checks = True, {}

    @property
    def knows_target(self) -> bool:
        """Whether the target was ever listed."""
        return self._contents is not None

    def look(self) -> Effect[Shipped]:
        """Put what is new since the last look. Afterwards the target has all that the store had when it began.

        Raises:
            InvalidRequest: There is no store, or the target is another's, or of another branch of this one.
            CorruptStore: The store or the target is damaged.
            TargetTrouble: The target did not do what it was asked. Look again: what it has counts.
        """
        self._objects = self._bytes = self._blobs = 0
        try:
            return (yield from self._look())
        except BaseException:
            self.forget()
            raise

    def _look(self) -> Effect[Shipped]:
        for _ in range(_ATTEMPTS):
            source = yield from self._reader.look()
            if self._contents is None or self._is_stale:
                yield from self._begin(source.manifest.uuid)
            self._check_branch(source)
            try:
                return (yield from self._ship(source))
            except (FileNotFoundError, CorruptStore):
                # A compaction may have taken a segment away meanwhile.
                if (yield from load_beside_writer()) == source.manifest:
                    raise
                self._checks = {}
        raise StoreUnavailable(f"the store was changed {_ATTEMPTS} times while it was shipped: try again")

    def measure(self) -> Effect[ShippingLag]:
        """How far the target is behind now, as far as it was listed. Nothing is put. Raises as `look`."""
        source = yield from self._reader.look()
        if self._contents is None:
            yield from self._list(source.manifest.uuid)
        return (yield from lag_between(source, self._known, self._shipped, self._clock()))

    # Who it is

    def _begin(self, uuid: bytes) -> Effect[None]:
        """Find out what the target has, and make it this store's if it has nothing."""
        if not (yield from self._list(uuid)):
            yield from self._put(IDENTITY, encode(StoreIdentity(LAYOUT_VERSION, uuid)))
            yield from self._check_identity(uuid)
            self._known.has_identity = True
        self._is_stale = False

    def _list(self, uuid: bytes) -> Effect[bool]:
        """Find out what the target has. Returns whether it is this store's, and not an empty one."""
        contents = TargetContents((yield from perform(ListObjects(""))))
        contents.check_ours()
        if not contents.names and self._contents is not None and self._contents.has_identity:
            raise TargetTrouble("the target is empty now, and was not: see whether its disk is mounted")
        if contents.has_identity:
            yield from self._check_identity(uuid)
        self._catalogs = yield from load_catalogs(contents)
        self._shipped = yield from shipped_counters(contents, self._catalogs)
        self._contents = contents
        return contents.has_identity

    def _check_identity(self, uuid: bytes) -> Effect[None]:
        found = decode_identity((yield from perform(GetObject(IDENTITY)))).uuid
        if found != uuid:
            raise InvalidRequest(
                f"the target has the objects of store {found.hex()}, and this is store {uuid.hex()}: {_ANOTHER}"
            )

    def _check_branch(self, source: Source) -> None:
        """Refuse a store that has not all that the target has: one of before, or one that went on from there."""
        if not self._catalogs:
            return
        last, manifest = self._catalogs[-1], source.manifest
        told = "a copy of this store has been shipped here, which went another way"
        if (manifest.epoch, manifest.number) < (last.epoch, last.number):
            raise InvalidRequest(
                f"the target has manifest {last.number} of epoch {last.epoch}, and the store {manifest.number} of "
                f"epoch {manifest.epoch}: {told}: {_ANOTHER}"
            )
        salts = {key.number: key.salt for key in self._known.pieces}
        for header in source.headers:
            if salts.get(header.number, header.salt) != header.salt:
                raise InvalidRequest(
                    f"the target has another segment {header.number} than the store: {told}: {_ANOTHER}"
                )

    # Shipping

    def _ship(self, source: Source) -> Effect[Shipped]:
        manifest = source.manifest
        self._wanted_bytes = bytes_behind(source, self._known)
        if self._wanted_bytes:
            yield from self._ship_blobs()
        known = {one.key: one for one in self._catalogs[-1].sealed} if self._catalogs else {}
        sealed = []
        for one, header in zip(manifest.sealed, source.headers, strict=False):
            key = SegmentKey(one.number, header.salt)
            done = known.get(key)
            if done is None or (done.length_bytes, done.digest) != (one.length_bytes, one.digest):
                done = yield from self._shipping(key, header).seal(one)
            sealed.append(msgspec.structs.replace(done, replaced=one.replaced))
        counters = Counters(*(max([0, *(getattr(one, name) for one in sealed)]) for name in ("position", "revision")))
        active = None
        if manifest.active is not None:
            key = SegmentKey(manifest.active, source.headers[-1].salt)
            shipping = self._shipping(key, source.headers[-1])
            # Where the power has failed, the writer's word may be older than what is there: that is on the disk, too.
            yield from shipping.advance(max(source.end, self._known.covered(key)))
            counters.take_all(shipping.check.counters)
            active = ActiveSegment(*key, shipping.check.checked)
        self._check_nothing_is_lost(counters)
        self._shipped = counters
        if not self._catalogs or self._catalogs[-1].number != manifest.number:
            yield from self._publish(source, sealed, active)
        return Shipped(
            self._objects, self._bytes, self._blobs, counters.position, counters.revision, self._damaged_blobs
        )

    def _check_nothing_is_lost(self, counters: Counters) -> None:
        before = self._shipped
        if counters.position < before.position or counters.revision < before.revision:
            raise InvalidRequest(
                f"the target goes up to position {before.position} and revision {before.revision}, and the store to "
                f"{counters.position} and {counters.revision}: it is a copy of before: {_ANOTHER}"
            )

    def _shipping(self, key: SegmentKey, header: SegmentHeader) -> SegmentShipping:
        if key not in self._checks:
            self._checks[key] = SegmentShipping(key, header, self._known, self._put, self._delete)
        return self._checks[key]

    def _put(self, name: str, data: bytes) -> Effect[None]:
        yield from perform(PutObject(name, data))
        self._objects += 1
        self._bytes += len(data)
        if self._told is not None:
            self._told(self._bytes, max(self._bytes, self._wanted_bytes))

    def _delete(self, name: str) -> Effect[None]:
        yield from perform(DeleteObject(name))

    # Catalogs

    def _publish(self, source: Source, sealed: list[SealedSegment], active: ActiveSegment | None) -> Effect[None]:
        """Put the catalog of a manifest, and give up what nobody restores any more."""
        manifest = source.manifest
        base, now = (yield from self._base_of(source)), self._clock()
        before = self._catalogs[-1] if self._catalogs else None
        if before is not None and before.base == base:
            since = (before.since_position, before.since_revision, before.since_at)
        elif base:
            since = (max(source.seen.position, self._shipped.position), self._seen_revision(source), now)
        else:
            since = (0, 0, now)
        catalog = Catalog(
            LAYOUT_VERSION,
            manifest.uuid,
            manifest.epoch,
            manifest.number,
            manifest.next_segment,
            sealed,
            active,
            base,
            *since,
            now,
        )
        yield from self._put(catalog.name, encode(catalog))
        self._catalogs.append(catalog)
        self._checks = {key: one for key, one in self._checks.items() if active is not None and key == active.key}
        yield from self._give_up_old(catalog)

    def _seen_revision(self, source: Source) -> int:
        return max(source.seen.revision, self._shipped.revision)

    def _base_of(self, source: Source) -> Effect[bytes]:
        if not source.headers:
            return b""
        first = SegmentKey(source.headers[0].number, source.headers[0].salt)
        if self._base is None or self._base[0] != first:
            base = yield from base_of(source)
            is_empty = not base and not source.manifest.sealed
            if is_empty:
                return base
            self._base = first, base
        return self._base[1]

    def _give_up_old(self, newest: Catalog) -> Effect[None]:
        """Delete the catalogs that the newest one makes unneeded, and then the segments that none names."""
        kept = catalogs_to_keep(self._catalogs, self._keep_days, self._clock())
        for catalog in self._catalogs:
            if catalog not in kept:
                yield from self._delete(catalog.name)
        self._catalogs = kept
        named = {key for catalog in kept for key in catalog.keys}
        # A number is never used twice: what is older than the newest manifest and not in it never will be.
        for key in [key for key in self._known.pieces if key not in named and key.number < newest.next_segment]:
            for piece in self._known.pieces.pop(key):
                yield from self._delete(piece.name(key))

    # Blobs

    def _ship_blobs(self) -> Effect[None]:
        """Put the blobs that are not there. Whatever the log names, as far as it is shipped next, was put before it."""
        self._damaged_blobs = []
        if BLOBS not in (yield from perform(disk.List("."))):
            return
        files = BlobFiles(BLOBS)
        for shard in (yield from files.shards()):
            for cid in (yield from files.cids_in(shard)):
                yield from self._ship_blob(files, cid)

    def _ship_blob(self, files: BlobFiles, cid: str) -> Effect[None]:
        there = self._known.blobs.get(cid)
        if there is not None and there.is_whole:
            return
        size_bytes = yield from files.size(cid)
        if size_bytes is None or not (yield from self._is_sound(files, cid, size_bytes)):
            return
        pieces = BlobPieces(size_bytes, set() if there is None else there.starts)
        # The first piece last: a blob without it is not whole yet, and nothing that was shipped names it.
        for start in reversed(pieces.wanted()):
            if start not in pieces.starts:
                data = yield from files.read_at(cid, start, PIECE_BYTES)
                if data is None:
                    return
                yield from self._put(blob_piece(cid, size_bytes, start), data)
                pieces.starts.add(start)
        yield from files.let_go(cid)
        self._known.blobs[cid] = pieces
        self._blobs += 1

    def _is_sound(self, files: BlobFiles, cid: str, size_bytes: int) -> Effect[bool]:
        """Whether all of a blob can be read, and is what its identifier says. It is read again to be put."""
        builder = LikeBuilder(cid)
        for start in range(0, size_bytes, PIECE_BYTES):
            data = yield from files.read_at(cid, start, PIECE_BYTES)
            if data is None:
                return False
            builder.feed(data)
        found = builder.cid()
        if found != cid:
            path = files.path_of(cid)
            self._damaged_blobs.append(f"{path}: offset 0: expected the bytes of blob {cid}, found those of {found}")
        return found == cid


def load_catalogs(contents: TargetContents) -> Effect[list[Catalog]]:
    """All catalogs of a target, the newest last. Raises `CorruptStore` where one is damaged."""
    catalogs = []
    for number in sorted(contents.catalogs):
        name = f"catalog.{number:019d}"
        catalogs.append(decode_catalog(name, (yield from perform(GetObject(name)))))
    return catalogs


def catalogs_to_keep(catalogs: Sequence[Catalog], keep_days: float | None, now: int) -> list[Catalog]:
    """Those that something can be restored from that the later ones do not have, unless that is too old.

    Of catalogs of one base, the newest has all. One of another base is kept for so many days after the next base began.
    """
    kept = list(catalogs[-1:])
    for catalog in reversed(catalogs[:-1]):
        later = kept[-1]
        is_young = keep_days is None or now - later.since_at < keep_days * _DAY
        if catalog.base != later.base and is_young:
            kept.append(catalog)
    return kept[::-1]


def shipped_counters(contents: TargetContents, catalogs: Sequence[Catalog]) -> Effect[Counters]:
    """What the commits in a target count up to."""
    counters = Counters()
    if not catalogs:
        return counters
    for one in catalogs[-1].sealed:
        counters.take_all(Counters(one.position, one.revision))
    active = catalogs[-1].active
    if active is not None:
        check = SegmentCheck(str(active.key), SegmentHeader(catalogs[-1].uuid, *active.key, 0, b"").seed)
        for piece in contents.cover(active.key):
            data = yield from perform(GetObject(piece.name(active.key)))
            check.feed((data or b"")[check.offset - piece.start :])
        counters.take_all(check.counters)
    return counters
