"""Bytes to frames and back: the format of `FORMAT.md`. Pure; it knows neither disk nor index."""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from persist_effects.errors import CorruptStore, NewerFormat

FORMAT_VERSION = 1
MAGIC = b"PEFFSEG1"
HEADER_BYTES = 80
FRAME_HEADER_BYTES = 16
ALIGNMENT_BYTES = 8
DIGEST_BYTES = 16
NO_DIGEST = bytes(DIGEST_BYTES)

COMMIT, MARK, FOOTER, EVENT, ENTRY = 1, 2, 3, 4, 5
FRAME_TYPES = frozenset({COMMIT, MARK, FOOTER, EVENT, ENTRY})
COMMITS = frozenset({COMMIT, EVENT, ENTRY})
"""The types of frames that hold a commit."""

_HEADER = struct.Struct("<8sII16sQQQ16s8x")
_CHECKSUM = struct.Struct("<I")
_FRAME = struct.Struct("<IIII")
_FRAME_REST = struct.Struct("<III")
_PADDINGS = tuple(bytes(-size_bytes % ALIGNMENT_BYTES) for size_bytes in range(ALIGNMENT_BYTES))
_HASHED_AT_ONCE = 1024

DECODING_ERRORS = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""What decoding raises where bytes fit their checksum, and are not what they should be."""

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""A sequence number, a position, a revision or a number of things: one that can still be counted on from."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
"""A stream or a key: as many characters at the most as bytes are allowed."""

Payload = tuple[int, bytes]
"""A frame to be written: its type, and what it holds."""


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The next ``count`` events of a commit: of which stream, and numbered from where."""

    stream: Name
    first_seq: Count
    first_position: Count
    count: Count


class StoredEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key that was put. The value is encoded."""

    key: Name
    revision: Count
    value: msgspec.Raw


class Drop(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stream that was truncated through a sequence number; its event had this position."""

    stream: Name
    seq: Count
    position: Count


class StreamState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be known of a stream that has lost events: compaction writes it."""

    stream: Name
    last_seq: Count
    last_position: Count
    dropped: Count
    dropped_position: Count


class Commit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one frame of type COMMIT holds. The events are encoded."""

    runs: list[Run]
    events: list[msgspec.Raw]
    entries: list[StoredEntry]
    deleted: list[str]
    drops: list[Drop]
    states: list[StreamState]
    revision: Count
    position: Count


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """How many frames a sealed segment has before this one, and their digest."""

    frames: Count
    digest: bytes


class SegmentHeader(NamedTuple):
    """The first bytes of a segment."""

    uuid: bytes
    number: int
    salt: int
    first_position: int
    digest_before: bytes

    @property
    def seed(self) -> int:
        """Where the checksums of this segment's frames start from."""
        return zlib.crc32(self.uuid + struct.pack("<QQ", self.number, self.salt))


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A valid frame: where it stands, and what it says."""

    offset: int
    type: int
    watermark: int
    payload: bytes
    checksum: int
    end: int


_encode = msgspec.msgpack.Encoder().encode


def encode_commit(commit: Commit, events: Iterable[bytes] = ()) -> bytes:
    """The payload of a frame of type COMMIT. ``events`` are those of its runs, encoded, where it has none itself."""
    if not commit.runs or commit.events:
        return _encode(commit)
    count = sum(run.count for run in commit.runs)
    array_of_events = msgspec.Raw(b"".join((b"\xdd", count.to_bytes(4, "big"), *events)))
    runs, _, *rest = msgspec.structs.astuple(commit)
    return _encode((runs, array_of_events, *rest))


decode_commit = msgspec.msgpack.Decoder(Commit).decode
decode_entry = msgspec.msgpack.Decoder(StoredEntry).decode
"""The key in a frame of type ENTRY."""
decode_put = msgspec.msgpack.Decoder(tuple[str, int, Any]).decode
"""The same, with its value decoded: key, revision and value."""
encode_footer = _encode
decode_footer = msgspec.msgpack.Decoder(Footer).decode


unpack_frame_header = _FRAME.unpack_from
"""The checksum, the length, the type and the watermark, in units of 8 bytes, of the frame at a place of some bytes."""


def encode_header(header: SegmentHeader) -> bytes:
    """The bytes of a segment's header."""

    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            checksum,
            header.uuid,
            header.number,
            header.salt,
            header.first_position,
            header.digest_before,
        )

    return packed(zlib.crc32(packed(0)))


def decode_header(data: bytes, path: str) -> SegmentHeader:
    """The header at the beginning of a segment. Raises `CorruptStore` or `NewerFormat`, naming the file."""
    if len(data) < HEADER_BYTES:
        raise CorruptStore(f"{path}: {len(data)} bytes, a segment's header has {HEADER_BYTES}: the file was cut")
    magic, version, checksum, *fields = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptStore(f"{path}: offset 0 holds {magic!r}, expected {MAGIC!r}: this is not a segment of a store")
    without_checksum = data[:12] + bytes(4) + data[16:HEADER_BYTES]
    if zlib.crc32(without_checksum) != checksum:
        raise CorruptStore(
            f"{path}: offset 12: the header's checksum {checksum:#010x} does not fit its bytes: "
            "restore a backup or salvage the store"
        )
    check_version(version, path)
    return SegmentHeader(*fields)


def check_version(version: int, path: str) -> None:
    """Refuse a file of another format, whose checksum is right. Raises `NewerFormat`, or `CorruptStore`."""
    if version > FORMAT_VERSION:
        raise NewerFormat(path, version, FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise CorruptStore(
            f"{path}: format version {version}, and there is none before {FORMAT_VERSION}: restore a backup or salvage "
            "the store"
        )


def encode_frame(seed: int, offset: int, kind: int, watermark: int, payload: bytes) -> bytes:
    """A frame as it stands at this offset, padded. ``watermark`` is in bytes."""
    return b"".join(encode_frames(seed, offset, watermark, [(kind, payload)]).pieces)


class EncodedFrames(NamedTuple):
    """Frames that follow on one another: where each stands, where the last ends, their checksums and bytes in turn."""

    offsets: list[int]
    end: int
    pieces: list[bytes]


def encode_frames(seed: int, offset: int, watermark: int, payloads: Iterable[Payload]) -> EncodedFrames:
    """Frames as they stand from this offset on, padded. ``watermark`` is in bytes."""
    # Runs for every commit.
    offsets: list[int] = []
    pieces: list[bytes] = []
    pack_rest, pack_checksum, crc32, paddings = _FRAME_REST.pack, _CHECKSUM.pack, zlib.crc32, _PADDINGS
    synced = watermark >> 3
    for kind, payload in payloads:
        size_bytes = len(payload)
        rest = pack_rest(size_bytes, kind, synced) + payload + paddings[size_bytes & 7]
        offsets.append(offset)
        pieces.append(pack_checksum(crc32(rest, seed ^ (offset >> 3))))
        pieces.append(rest)
        offset += 4 + len(rest)
    return EncodedFrames(offsets, offset, pieces)


def frame_bytes(payload_bytes: int) -> int:
    """How many bytes the frame of a payload takes."""
    return FRAME_HEADER_BYTES + payload_bytes + (-payload_bytes & 7)


def announced_bytes(data: bytes | memoryview, at: int) -> int:
    """How many bytes the frame at this place of ``data`` says it takes. Its first 16 bytes must be there."""
    return frame_bytes(_FRAME.unpack_from(data, at)[1])


def decode_frame(data: bytes | memoryview, at: int, seed: int, offset: int) -> Frame | None:
    """The frame at this place of ``data``, which stands at ``offset`` in the segment; None if there is no valid one."""
    if len(data) - at < FRAME_HEADER_BYTES:
        return None
    checksum, length, kind, watermark = _FRAME.unpack_from(data, at)
    end = at + FRAME_HEADER_BYTES + length + (-length & 7)
    if kind not in FRAME_TYPES or end > len(data):
        return None
    # Copied rather than looked at, because most frames are short.
    rest = data[at + 4 : end]
    if zlib.crc32(rest, seed ^ (offset >> 3)) != checksum:
        return None
    if length & 7 and any(rest[12 + length :]):
        return None
    return Frame(offset, kind, watermark << 3, bytes(rest[12 : 12 + length]), checksum, offset + end - at)


def commit_in(frame: Frame) -> Commit:
    """The commit that a frame of one of the types COMMITS holds."""
    if frame.type == COMMIT:
        return decode_commit(frame.payload)
    if frame.type == ENTRY:
        entry = decode_entry(frame.payload)
        return Commit([], [], [entry], [], [], [], entry.revision, 0)
    place = decode_place(frame.payload)
    run = Run(place.stream, place.seq, place.position, 1)
    return Commit([run], [msgspec.Raw(frame.payload)], [], [], [], [], 0, place.position)


class EventPlace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an index wants to know of an `Event`. Its data, which it does not, is passed over."""

    stream: Name
    seq: Count
    type: str
    at: int
    data: msgspec.Raw
    position: Count


class _EventType(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The type of an `Event`. What comes after it is passed over."""

    stream: Name
    seq: Count
    type: str


decode_type = msgspec.msgpack.Decoder(_EventType).decode
decode_place = msgspec.msgpack.Decoder(EventPlace).decode
"""Where the event of a frame of type EVENT belongs."""


class Digest:
    """The digest of a segment, kept while its frames come."""

    def __init__(self) -> None:
        self.frames = 0
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._waiting: list[bytes] = []

    def add(self, checksums: Sequence[bytes]) -> None:
        """Take in the checksums of the next frames, as they stand in the file."""
        self._waiting += checksums
        self.frames += len(checksums)
        if len(self._waiting) >= _HASHED_AT_ONCE:
            self._hash_waiting()

    def value(self) -> bytes:
        """The digest of the frames so far."""
        self._hash_waiting()
        return self._hash.digest()

    def _hash_waiting(self) -> None:
        self._hash.update(b"".join(self._waiting))
        self._waiting.clear()
