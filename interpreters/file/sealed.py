"""Sealed segments and their index files: loading, checking, and making an index anew from its segment."""

from collections.abc import Sequence
from zlib import crc32

import msgspec

from interpreters import disk
from interpreters.file.format import (
    COMMIT,
    ENTRY,
    EVENT,
    HEADER_BYTES,
    Frame,
    SegmentHeader,
    decode_commit,
    decode_entry,
    decode_header,
    decode_place,
    digest_of,
)
from interpreters.file.index import Index, IndexFile, SegmentIndex
from interpreters.file.manifest import Sealed, index_path, segment_path
from interpreters.file.recovery import valid_frames
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, perform

_encode_index = msgspec.msgpack.Encoder().encode
_decode_index = msgspec.msgpack.Decoder(IndexFile).decode


def take_in(index: Index, segment: SegmentIndex, frame: Frame) -> None:
    """Take a frame that was read into the index."""
    if frame.type == EVENT:
        index.add_event(segment, frame.offset, decode_place(frame.payload))
    elif frame.type == ENTRY:
        index.add_entry(segment, frame.offset, decode_entry(frame.payload))
    elif frame.type == COMMIT:
        index.apply(segment, frame.offset, decode_commit(frame.payload))


def load_sealed(sealed: Sealed, uuid: bytes, *, mend: bool) -> Effect[IndexFile]:
    """The index of a sealed segment, made anew from its frames where its file is bad; then written, if ``mend``."""
    path = segment_path(sealed.number)
    size_bytes = yield from perform(disk.Size(path))
    if size_bytes is None or size_bytes < sealed.length_bytes:
        raise CorruptStore(
            f"{path}: expected {sealed.length_bytes} bytes, as the manifest says, found "
            f"{'no file' if size_bytes is None else size_bytes}: restore a backup or salvage the store"
        )
    header = decode_header((yield from perform(disk.Read(path, 0, HEADER_BYTES))), path)
    check_header(header, sealed.number, uuid)
    file = yield from _read_index(sealed)
    if file is None or file.seed != header.seed:
        file = yield from _index_again(sealed, header)
        if mend:
            yield from write_index(file)
    return file


def check_header(header: SegmentHeader, number: int, uuid: bytes) -> None:
    """Refuse a segment of another store, or one that stands in the place of another."""
    if header.uuid != uuid or header.number != number:
        raise CorruptStore(
            f"{segment_path(number)}: offset 0: the header is of segment {header.number} of store {header.uuid.hex()}, "
            f"expected segment {number} of store {uuid.hex()}: a file was put in the place of another"
        )


def _index_again(sealed: Sealed, header: SegmentHeader) -> Effect[IndexFile]:
    """Make the index of a sealed segment anew, from its frames."""
    path = segment_path(sealed.number)
    data = yield from perform(disk.Read(path, 0, sealed.length_bytes))
    frames, end = valid_frames(data, header.seed)
    check_digest(path, sealed, frames, end)
    scratch = Index()
    segment = SegmentIndex(sealed.number, header.seed, sealed.length_bytes)
    for frame in frames:
        take_in(scratch, segment, frame)
    return scratch.seal(segment, sealed.digest)


def check_digest(path: str, sealed: Sealed, frames: Sequence[Frame], end: int) -> None:
    """Refuse a sealed segment whose frames are not those that the manifest says."""
    if end < sealed.length_bytes:
        raise CorruptStore(
            f"{path}: offset {end}: no valid frame in a sealed segment of {sealed.length_bytes} bytes: "
            "restore a backup or salvage the store"
        )
    if digest_of(frames) != sealed.digest:
        raise CorruptStore(
            f"{path}: offset {HEADER_BYTES}: the frames' digest is {digest_of(frames).hex()}, the manifest says "
            f"{sealed.digest.hex()}: restore a backup or salvage the store"
        )


def _read_index(sealed: Sealed) -> Effect[IndexFile | None]:
    """The index file of a sealed segment, or None where there is no good one: it can be made again."""
    path = index_path(sealed.number)
    size_bytes = yield from perform(disk.Size(path))
    if size_bytes is None or size_bytes < 4:
        return None
    data = yield from perform(disk.Read(path, 0, size_bytes))
    body = memoryview(data)[4:]
    if crc32(body) != int.from_bytes(data[:4], "little"):
        return None
    try:
        file = _decode_index(body)
    except msgspec.DecodeError:
        return None
    return file if (file.number, file.digest) == (sealed.number, sealed.digest) else None


def write_index(file: IndexFile) -> Effect[None]:
    """Write a segment's index file. It is not synced: a bad one is found out, and made again."""
    path = index_path(file.number)
    body = _encode_index(file)
    if (yield from perform(disk.Size(path))) is not None:
        yield from perform(disk.Remove(path))
    yield from perform(disk.Create(path))
    yield from perform(disk.Write(path, 0, crc32(body).to_bytes(4, "little") + body))
