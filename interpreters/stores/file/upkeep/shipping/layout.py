"""What is shipped, as objects: their names, which bytes of a segment they cover, and the catalogs that say what counts.

Pure. These are the objects of a target:

``identity``
    Which store's they all are: its UUID.
``segment.<number>.<salt>.<start>.<end>``
    The bytes of a segment from an offset to another, each the end of a frame, or the segment's beginning. Together they
    cover it from its beginning on, some perhaps twice, since short ones are put together before they are deleted.
``blob.<cid>.<size>.<start>``
    The bytes of a blob from an offset on, as many as are left up to `PIECE_BYTES`.
``catalog.<number>``
    Which segments the store consisted of when its manifest of this number was in force. All that a catalog names was
    there before it was. Of the segment that was written then, more pieces come behind it.
"""

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from interpreters.stores.file.format import DECODING_ERRORS
from interpreters.stores.file.manifest import COUNT_LIMIT, Sealed
from persist_effects.errors import CorruptStore, InvalidRequest, NewerFormat

T = TypeVar("T")

IDENTITY = "identity"
PIECE_BYTES = 4 * 1024 * 1024
LAYOUT_VERSION = 1

_PIECE = re.compile(r"segment\.([0-9]{8,10})\.([0-9a-f]{16})\.([0-9]{11})\.([0-9]{11})")
_BLOB = re.compile(r"blob\.([a-z0-9]{1,150})\.([0-9]{1,19})\.([0-9]{1,19})")
_CATALOG = re.compile(r"catalog\.([0-9]{19})")


class SegmentKey(NamedTuple):
    """Which segment of a store: its number, and its salt, in which two of one number differ."""

    number: int
    salt: int

    def __str__(self) -> str:
        return f"segment.{self.number:08d}.{self.salt:016x}"


class SegmentPiece(NamedTuple):
    """The bytes of a segment from an offset to another."""

    start: int
    end: int

    def name(self, key: SegmentKey) -> str:
        """The name of its object."""
        return f"{key}.{self.start:011d}.{self.end:011d}"


_BEHIND_ALL = SegmentPiece(1 << 63, 1 << 63)


class SealedSegment(msgspec.Struct, frozen=True):
    """A sealed segment, as a manifest has it, with its salt, and the highest position and revision in it, or 0."""

    number: int
    salt: int
    length_bytes: int
    digest: bytes
    replaced: bytes
    position: int
    revision: int

    @property
    def key(self) -> SegmentKey:
        """Which it is."""
        return SegmentKey(self.number, self.salt)

    def sealed(self) -> Sealed:
        """As a manifest has it. Its index is made again when the store is opened."""
        return Sealed(self.number, self.length_bytes, self.digest, replaced=self.replaced)


class ActiveSegment(msgspec.Struct, frozen=True):
    """The segment that was written, and how much of it was shipped when the catalog was put."""

    number: int
    salt: int
    end: int

    @property
    def key(self) -> SegmentKey:
        """Which it is."""
        return SegmentKey(self.number, self.salt)


class Catalog(msgspec.Struct, frozen=True):
    """What a store consisted of.

    ``base`` tells the logs apart that compaction makes: those of one base have the same commits, as far as both go.
    From ``since_position`` and ``since_revision`` on they have all commits; what came before, a compaction has seen
    the end of. ``since_at`` is when the first catalog of this base was put.
    """

    layout: int
    uuid: bytes
    epoch: int
    number: int
    next_segment: int
    sealed: list[SealedSegment]
    active: ActiveSegment | None
    base: bytes
    since_position: int
    since_revision: int
    since_at: int
    at: int

    @property
    def name(self) -> str:
        """The name of its object."""
        return f"catalog.{self.number:019d}"

    @property
    def keys(self) -> list[SegmentKey]:
        """The segments, in the order of the log."""
        return [*(one.key for one in self.sealed), *([] if self.active is None else [self.active.key])]


class StoreIdentity(msgspec.Struct, frozen=True):
    """Whose objects lie in a target."""

    layout: int
    uuid: bytes


class _Layout(msgspec.Struct, frozen=True):
    layout: int


def encode(value: Catalog | StoreIdentity) -> bytes:
    r"""As JSON, with its CRC-32 in front.

    >>> encode(StoreIdentity(1, bytes(16)))
    b'ea5ec02d {"layout":1,"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}\n'
    """
    body = msgspec.json.encode(value) + b"\n"
    return f"{zlib.crc32(body):08x} ".encode() + body


def decode_catalog(name: str, data: bytes | None) -> Catalog:
    """A catalog. Raises `CorruptStore` and `NewerFormat`, naming the object."""
    catalog = _decoded(name, data, Catalog)
    if catalog.name != name:
        raise CorruptStore(f"{name}: offset 0: expected {name}, found {catalog.name}: one was copied over the other")
    return catalog


def decode_identity(data: bytes | None) -> StoreIdentity:
    """Whose the objects are. Raises `CorruptStore` and `NewerFormat`."""
    return _decoded(IDENTITY, data, StoreIdentity)


def _decoded(name: str, data: bytes | None, kind: type[T]) -> T:
    if data is None:
        raise CorruptStore(f"{name}: offset 0: expected an object, found none, though it was listed")
    if data[8:9] != b" " or f"{zlib.crc32(data[9:]):08x}".encode() != data[:8]:
        raise CorruptStore(f"{name}: offset 0: expected a checksum that fits, found {data[:40]!r}")
    try:
        found = msgspec.json.decode(data[9:], type=_Layout).layout
        if found > LAYOUT_VERSION:
            raise NewerFormat(name, found, LAYOUT_VERSION)
        return msgspec.json.decode(data[9:], type=kind)
    except DECODING_ERRORS as error:
        raise CorruptStore(f"{name}: offset 9: its checksum fits, and it is something else: {error}") from error


class BlobPieces(NamedTuple):
    """A blob of which there are pieces: its size, and where those begin that are there."""

    size_bytes: int
    starts: set[int]

    def wanted(self) -> range:
        """Where the pieces of a whole blob begin. One of no bytes has one."""
        return range(0, max(1, self.size_bytes), PIECE_BYTES)

    @property
    def is_whole(self) -> bool:
        """Whether all pieces are there."""
        return self.starts.issuperset(self.wanted())


def blob_piece(cid: str, size_bytes: int, start: int) -> str:
    """The name of a piece of a blob."""
    return f"blob.{cid}.{size_bytes}.{start}"


class TargetContents:
    """The names in a target, and what they mean.

    >>> key = SegmentKey(1, 7)
    >>> names = [SegmentPiece(0, 80).name(key), SegmentPiece(80, 112).name(key), "catalog.0000000000000000002"]
    >>> contents = TargetContents(names)
    >>> contents.catalogs, contents.covered(key)
    ([2], 112)
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.has_identity = False
        self.catalogs: list[int] = []
        self.pieces: dict[SegmentKey, list[SegmentPiece]] = {}
        self.blobs: dict[str, BlobPieces] = {}
        self.foreign: list[str] = []
        self.names = list(names)
        for name in self.names:
            self._take(name)

    def _take(self, name: str) -> None:
        if name == IDENTITY:
            self.has_identity = True
        elif (found := _PIECE.fullmatch(name)) is not None:
            key = SegmentKey(int(found[1]), int(found[2], 16))
            self.pieces.setdefault(key, []).append(SegmentPiece(int(found[3]), int(found[4])))
        elif (found := _BLOB.fullmatch(name)) is not None:
            self.blobs.setdefault(found[1], BlobPieces(int(found[2]), set())).starts.add(int(found[3]))
        elif (found := _CATALOG.fullmatch(name)) is not None and int(found[1]) < COUNT_LIMIT:
            self.catalogs.append(int(found[1]))
        else:
            self.foreign.append(name)

    def check_ours(self) -> None:
        """Refuse a target with something in it that no shipper puts, before anything is put there."""
        if self.foreign or (self.names and not self.has_identity):
            strange = (self.foreign or self.names)[0]
            raise InvalidRequest(
                f"the target holds {strange!r}, which is not of a shipped store: mend its path, or ship to an empty one"
            )

    def cover(self, key: SegmentKey) -> list[SegmentPiece]:
        """The fewest pieces that follow on one another from a segment's beginning, or overlap."""
        chosen: list[SegmentPiece] = []
        best = SegmentPiece(0, 0)
        end = 0
        for piece in [*sorted(self.pieces.get(key, ())), _BEHIND_ALL]:
            if piece.start > end and best.end > end:
                chosen.append(best)
                end = best.end
            if piece.start > end:
                break
            best = max(best, piece, key=lambda one: one.end)
        return chosen

    def covered(self, key: SegmentKey) -> int:
        """Up to which offset a segment is there, without a gap."""
        cover = self.cover(key)
        return cover[-1].end if cover else 0

    def pieces_from(self, key: SegmentKey, start: int) -> list[SegmentPiece]:
        """The pieces of a segment that begin at an offset or behind it, in order."""
        return sorted(one for one in self.pieces.get(key, ()) if start <= one.start)

    def add(self, key: SegmentKey, piece: SegmentPiece) -> None:
        """Note a piece that was put."""
        pieces = self.pieces.setdefault(key, [])
        if piece not in pieces:
            pieces.append(piece)


def covered_by_others(pieces: Sequence[SegmentPiece]) -> list[SegmentPiece]:
    """Those of some pieces of which another one has all bytes, and more.

    >>> covered_by_others([SegmentPiece(0, 80), SegmentPiece(0, 160), SegmentPiece(80, 160), SegmentPiece(160, 200)])
    [SegmentPiece(start=0, end=80), SegmentPiece(start=80, end=160)]
    """
    return [
        piece
        for piece in pieces
        if any(one != piece and one.start <= piece.start and piece.end <= one.end for one in pieces)
    ]
