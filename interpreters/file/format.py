"""Bytes to frames and back: the format of `FORMAT.md`. Pure; it knows neither disk nor index."""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from persist_effects.errors import CorruptStore

FORMAT_VERSION = 1
MAGIC = b"PEFFSEG1"
HEADER_BYTES = 80
FRAME_HEADER_BYTES = 16
ALIGNMENT_BYTES = 8
DIGEST_BYTES = 16
NO_DIGEST = bytes(DIGEST_BYTES)

COMMIT, MARK, FOOTER, EVENT = 1, 2, 3, 4
FRAME_TYPES = frozenset({COMMIT, MARK, FOOTER, EVENT})

_HEADER = struct.Struct("<8sII16sQQQ16s8x")
_CHECKSUM = struct.Struct("<I")
_FRAME = struct.Struct("<IIII")
_FRAME_REST = struct.Struct("<III")


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The next ``count`` events of a commit: of which stream, and numbered from where."""

    stream: str
    first_seq: int
    first_position: int
    count: int


class StoredEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key that was put. The value is encoded."""

    key: str
    revision: int
    value: msgspec.Raw


class Drop(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stream that was truncated through a sequence number; its event had this position."""

    stream: str
    seq: int
    position: int


class StreamState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be known of a stream that has lost events: compaction writes it."""

    stream: str
    last_seq: int
    last_position: int
    dropped: int
    dropped_position: int


class Commit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one frame of type COMMIT holds. The events are encoded."""

    runs: list[Run]
    events: list[msgspec.Raw]
    entries: list[StoredEntry]
    deleted: list[str]
    drops: list[Drop]
    states: list[StreamState]
    revision: int
    position: int


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """How many frames a sealed segment has before this one, and their digest."""

    frames: int
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


encode_commit = msgspec.msgpack.Encoder().encode
decode_commit = msgspec.msgpack.Decoder(Commit).decode
encode_footer = msgspec.msgpack.Encoder().encode
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
    """The header at the beginning of a segment. Raises `CorruptStore`, naming the file."""
    if len(data) < HEADER_BYTES:
        raise CorruptStore(f"{path}: {len(data)} bytes, a segment's header has {HEADER_BYTES}: the file was cut")
    magic, version, checksum, *fields = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptStore(f"{path}: offset 0 holds {magic!r}, expected {MAGIC!r}: this is no segment of a store")
    without_checksum = data[:12] + bytes(4) + data[16:HEADER_BYTES]
    if zlib.crc32(without_checksum) != checksum:
        raise CorruptStore(
            f"{path}: offset 12: the header's checksum {checksum:#010x} does not fit its bytes: "
            "restore a backup or salvage the store"
        )
    if version != FORMAT_VERSION:
        raise CorruptStore(
            f"{path}: offset 8: format version {version}, this program reads {FORMAT_VERSION}: use a newer one"
        )
    return SegmentHeader(*fields)


def encode_frame(seed: int, offset: int, kind: int, watermark: int, payload: bytes) -> bytes:
    """A frame as it stands at this offset, padded. ``watermark`` is in bytes."""
    rest = _FRAME_REST.pack(len(payload), kind, watermark >> 3) + payload + bytes(-len(payload) & 7)
    return _CHECKSUM.pack(zlib.crc32(rest, seed ^ (offset >> 3))) + rest


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
    view = memoryview(data)
    if zlib.crc32(view[at + 4 : end], seed ^ (offset >> 3)) != checksum:
        return None
    payload_end = at + FRAME_HEADER_BYTES + length
    if any(view[payload_end:end]):
        return None
    payload = bytes(view[at + FRAME_HEADER_BYTES : payload_end])
    return Frame(offset, kind, watermark << 3, payload, checksum, offset + end - at)


def commit_in(frame: Frame) -> Commit:
    """The commit that a frame of type COMMIT or EVENT holds."""
    if frame.type == COMMIT:
        return decode_commit(frame.payload)
    run = run_in(frame)
    return Commit([run], [msgspec.Raw(frame.payload)], [], [], [], [], 0, run.first_position)


class _EventPlace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an index wants to know of an `Event`. Its data, which it does not, is passed over."""

    stream: str
    seq: int
    type: str
    at: int
    data: msgspec.Raw
    position: int


_decode_place = msgspec.msgpack.Decoder(_EventPlace).decode


def run_in(frame: Frame) -> Run:
    """Where the event of a frame of type EVENT belongs."""
    place = _decode_place(frame.payload)
    return Run(place.stream, place.seq, place.position, 1)


class Digest:
    """The digest of a segment, kept while its frames come."""

    def __init__(self) -> None:
        self.frames = 0
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, checksums: Sequence[bytes]) -> None:
        """Take in the checksums of the next frames, as they stand in the file."""
        self._hash.update(b"".join(checksums))
        self.frames += len(checksums)

    def value(self) -> bytes:
        """The digest of the frames so far."""
        return self._hash.digest()


def digest_of(frames: Iterable[Frame]) -> bytes:
    """The digest of these frames, footers left out."""
    digest = Digest()
    digest.add([_CHECKSUM.pack(frame.checksum) for frame in frames if frame.type != FOOTER])
    return digest.value()
