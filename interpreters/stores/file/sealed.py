"""Sealed segments: their place in the log, their index files, and how an index is made anew from its segment.

An index file is believed only where it is the one that the manifest was published with: the manifest has its digest.
Any other is made again from the segment's frames, whatever it says. So is one of which the manifest knows no digest,
as those of earlier programs; the next manifest then has it.
"""

import re
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    COMMIT,
    COMMITS,
    DECODING_ERRORS,
    DIGEST_BYTES,
    ENTRY,
    EVENT,
    FOOTER,
    HEADER_BYTES,
    NO_DIGEST,
    Digest,
    Frame,
    SegmentHeader,
    commit_in,
    decode_commit,
    decode_entry,
    decode_header,
    decode_place,
    decode_type,
)
from interpreters.stores.file.index import Index, IndexFile, SegmentIndex
from interpreters.stores.file.kinds import kind_of
from interpreters.stores.file.manifest import Manifest, Sealed, index_path, segment_path
from interpreters.stores.file.scan import Damage, Scan, Segment
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, perform

SEGMENT_FILE = re.compile(r"([0-9]{8}|[1-9][0-9]{8,9})\.seg")
"""The name of a segment in its directory. Its number has 32 bits."""

_INDEX_BYTES_FOR_EACH_OF_SEGMENT = 8
_INDEX_BYTES_BESIDE = 1024

_PLACE = struct.Struct("<QQ")

_encode_index = msgspec.msgpack.Encoder().encode
_decode_index = msgspec.msgpack.Decoder(IndexFile).decode


class Loaded(NamedTuple):
    """A sealed segment, with the digest of its index as it is now; its index; and its header."""

    sealed: Sealed
    file: IndexFile
    header: SegmentHeader


class FoundIndex(NamedTuple):
    """What an index file holds, if it holds an index; its bytes; and what is wrong with it, if anything is."""

    file: IndexFile | None
    body: bytes | memoryview
    trouble: str

    def is_meant_by(self, sealed: Sealed) -> bool:
        """Whether this is the index file that the manifest means."""
        return self.file is not None and _digest_of(sealed, self.body) == sealed.index


# Taking in


def take_in(index: Index, segment: SegmentIndex, frame: Frame) -> None:
    """Take a frame that was read into the index."""
    if frame.type == EVENT:
        index.add_event(segment, frame.offset, decode_place(frame.payload))
    elif frame.type == ENTRY:
        index.add_entry(segment, frame.offset, decode_entry(frame.payload))
    elif frame.type == COMMIT:
        commit = decode_commit(frame.payload)
        index.apply(segment, frame.offset, commit, kind_of(decode_type(event).type for event in commit.events))


def take_in_frame(index: Index, segment: SegmentIndex, frame: Frame) -> None:
    """Take a frame that was read into the index. Raises `CorruptStore` if it fits its checksum and is not a commit."""
    try:
        take_in(index, segment, frame)
    except DECODING_ERRORS as error:
        raise CorruptStore(
            f"{segment_path(segment.number)}: offset {frame.offset}: expected a commit, found bytes that fit their "
            f"checksum and are none ({error}): restore a backup or salvage the store"
        ) from error


def take_in_sealed(index: Index, loaded: Loaded) -> None:
    """Take a sealed segment into the index. Raises `CorruptStore` where its own index cannot be one."""
    try:
        index.load(loaded.file, loaded.sealed.length_bytes)
    except DECODING_ERRORS as error:
        path = index_path(loaded.sealed.number)
        raise CorruptStore(
            f"{path}: expected an index, as the manifest says, found one that cannot be ({error}): "
            "remove this file, which is then made again from its segment, and open the store anew"
        ) from error


def load_sealed(sealed: Sealed, uuid: bytes, *, mend: bool) -> Effect[Loaded]:
    """A sealed segment. Its index is made anew from its frames where its file is not the right one; ``mend`` writes it.

    Raises `CorruptStore` for damage.
    """
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
        sealed = with_index(sealed, file)
        if mend:
            yield from write_index(file)
    return Loaded(sealed, file, header)


def check_header(header: SegmentHeader, number: int, uuid: bytes) -> None:
    """Refuse a segment of another store, or one that stands in the place of another."""
    if header.uuid != uuid or header.number != number:
        raise CorruptStore(
            f"{segment_path(number)}: offset 0: the header is of segment {header.number} of store {header.uuid.hex()}, "
            f"expected segment {number} of store {uuid.hex()}: a file was put in the place of another"
        )


# The order of the log


def check_order(manifest: Manifest, headers: Sequence[SegmentHeader | None]) -> None:
    """Refuse a manifest whose segments, by their headers, do not follow on one another. Raises `CorruptStore`."""
    damages = order_damages(manifest, headers)
    if damages:
        raise CorruptStore(f"{damages[0]}: restore a backup or salvage the store")


def order_damages(manifest: Manifest, headers: Sequence[SegmentHeader | None]) -> list[Damage]:
    """Where segments do not follow on one another. ``headers`` are of the sealed ones, and then of the active one.

    A segment's header has the digest of the one before it. Where that was replaced by compaction, the last of the
    copies says what it stands for; earlier programs did not note it, and so one break is let pass where they wrote.
    """
    damages: list[Damage] = []
    breaks_left = 0 if any(sealed.index for sealed in manifest.sealed) else 1
    befores = [None, *manifest.sealed]
    for header, before in zip(headers, befores, strict=False):
        if header is None or header.digest_before in _digests_of(before):
            continue
        if before is not None and breaks_left:
            breaks_left -= 1
            continue
        wanted = "the first" if before is None else f"the one after {segment_path(before.number)}"
        damages.append(
            Damage(
                manifest.name,
                0,
                f"{segment_path(header.number)} to be {wanted}",
                f"by its header that it follows on a segment with the digest {header.digest_before.hex()}: "
                "segments were left out or reordered",
            )
        )
    return damages


def with_what_was_replaced(seals: Sequence[Sealed], headers: Sequence[SegmentHeader | None]) -> list[Sealed]:
    """The same segments, each knowing what the one after it follows on, though a program may not have noted it."""
    noted = list(seals)
    for number, (sealed, header) in enumerate(zip(seals, headers[1:], strict=False)):
        if header is not None and header.digest_before not in _digests_of(sealed):
            noted[number] = msgspec.structs.replace(sealed, replaced=header.digest_before)
    return noted


def _digests_of(before: Sealed | None) -> tuple[bytes, ...]:
    if before is None:
        return (NO_DIGEST,)
    return (before.digest, before.replaced) if before.replaced else (before.digest,)


def read_headers(manifest: Manifest) -> Effect[list[SegmentHeader | None]]:
    """The headers of the segments that a manifest names, in order; None for one that cannot be read."""
    headers: list[SegmentHeader | None] = []
    for sealed in manifest.sealed:
        headers += [(yield from read_header(sealed.number, manifest.uuid))]
    if manifest.active is not None:
        headers += [(yield from read_header(manifest.active, manifest.uuid))]
    return headers


def read_header(number: int, uuid: bytes) -> Effect[SegmentHeader | None]:
    """The header of a segment of this store, or None where it has none."""
    path = segment_path(number)
    try:
        header = decode_header((yield from perform(disk.Read(path, 0, HEADER_BYTES))), path)
        check_header(header, number, uuid)
    except (CorruptStore, OSError):
        return None
    return header


def check_nothing_is_left_out(manifest: Manifest, headers: Sequence[SegmentHeader | None]) -> Effect[None]:
    """Refuse a manifest that leaves out the last segment of a store that was closed. Raises `CorruptStore`."""
    damage = yield from left_out(manifest, headers)
    if damage is not None:
        raise CorruptStore(f"{damage}: restore a backup or salvage the store")


def left_out(manifest: Manifest, headers: Sequence[SegmentHeader | None]) -> Effect[Damage | None]:
    """A segment with commits that the manifest does not name, though there is nothing else in its place, or None.

    Places are where a segment that is named has no header, as in `read_headers`, and the end of the log where no
    segment is active: then nothing that is named can tell. What compaction leaves over follows on others.
    """
    befores = [None, *manifest.sealed]
    places = [before for before, header in zip(befores, headers, strict=False) if header is None]
    places += befores[-1:] if manifest.active is None else []
    wanted = {digest for before in places for digest in _digests_of(before)}
    if not wanted:
        return None
    named = {sealed.number for sealed in manifest.sealed} | {manifest.active}
    for name in (yield from perform(disk.List("log"))):
        found = SEGMENT_FILE.fullmatch(name)
        if found is None or int(found[1]) in named:
            continue
        header = yield from read_header(int(found[1]), manifest.uuid)
        if header is None or header.digest_before not in wanted:
            continue
        if (yield from _has_commits(header)):
            expected = f"log/{name} to be named, which follows on a segment that is"
            return Damage(manifest.name, 0, expected, "no mention of it")
    return None


def _has_commits(header: SegmentHeader) -> Effect[bool]:
    """Whether the first frames of a segment hold anything that was committed."""
    path = segment_path(header.number)
    size_bytes = (yield from perform(disk.Size(path))) or 0
    frames = yield from Scan(Segment(header.number, path, header.seed, size_bytes, True)).frames()
    try:
        commits = [commit_in(frame) for frame in frames if frame.type in COMMITS]
    except DECODING_ERRORS:
        return True
    # A compaction of nothing begins with a commit of nothing.
    return any(commit.runs or commit.entries or commit.deleted or commit.drops for commit in commits)


# Index files


def with_index(sealed: Sealed, file: IndexFile) -> Sealed:
    """The same segment, to be named in a manifest with the digest of this index."""
    return msgspec.structs.replace(sealed, index=_digest_of(sealed, _encode_index(file)))


def _digest_of(sealed: Sealed, body: bytes | memoryview) -> bytes:
    digest = blake2b(_PLACE.pack(sealed.number, sealed.length_bytes) + sealed.digest, digest_size=DIGEST_BYTES)
    digest.update(body)
    return digest.digest()


def index_limit_bytes(segment_bytes: int) -> int:
    """More than the index of a segment of this length takes.

    An event takes at least 13 bytes of its segment and twice its stream's name, and at most 78 of the index and the
    name once; keys, and streams that were truncated, take less.
    """
    return segment_bytes * _INDEX_BYTES_FOR_EACH_OF_SEGMENT + _INDEX_BYTES_BESIDE


def read_index(number: int, segment_bytes: int) -> Effect[FoundIndex]:
    """The index file of a sealed segment of this length, right or wrong."""
    path = index_path(number)
    size_bytes = yield from perform(disk.Size(path))
    if size_bytes is None:
        return FoundIndex(None, b"", "no file")
    if size_bytes > index_limit_bytes(segment_bytes):
        return FoundIndex(None, b"", f"{size_bytes} bytes, more than an index of {segment_bytes} bytes of log takes")
    data = yield from perform(disk.Read(path, 0, size_bytes))
    body = memoryview(data)[4:]
    if len(data) < 4 or crc32(body) != int.from_bytes(data[:4], "little"):
        return FoundIndex(None, b"", f"{len(data)} bytes that do not fit their checksum")
    try:
        file = _decode_index(body)
        file.check()
        return FoundIndex(file, body, "")
    except DECODING_ERRORS as error:
        return FoundIndex(None, b"", f"something else: {error}")


def _read_index(sealed: Sealed) -> Effect[IndexFile | None]:
    """The index of a sealed segment, or None where its file is not the one that the manifest means."""
    if not sealed.index:
        return None
    found = yield from read_index(sealed.number, sealed.length_bytes)
    if not found.is_meant_by(sealed):
        return None
    file = found.file
    return file if file is not None and (file.number, file.digest) == (sealed.number, sealed.digest) else None


def _index_again(sealed: Sealed, header: SegmentHeader) -> Effect[IndexFile]:
    """Make the index of a sealed segment anew, from its frames, of which some are in memory at a time."""
    path = segment_path(sealed.number)
    scan = Scan(Segment(sealed.number, path, header.seed, sealed.length_bytes, False))
    digest = Digest()
    scratch = Index()
    segment = SegmentIndex(sealed.number, header.seed, sealed.length_bytes)
    while frames := (yield from scan.frames()):
        digest.add([frame.checksum.to_bytes(4, "little") for frame in frames if frame.type != FOOTER])
        for frame in frames:
            take_in_frame(scratch, segment, frame)
    check_digest(path, sealed, digest.value(), scan.offset)
    return scratch.seal(segment, sealed.digest)


def check_digest(path: str, sealed: Sealed, digest: bytes, end: int) -> None:
    """Refuse a sealed segment whose frames are not those that the manifest says."""
    if end < sealed.length_bytes:
        raise CorruptStore(
            f"{path}: offset {end}: no valid frame in a sealed segment of {sealed.length_bytes} bytes: "
            "restore a backup or salvage the store"
        )
    if digest != sealed.digest:
        raise CorruptStore(
            f"{path}: offset {HEADER_BYTES}: the frames' digest is {digest.hex()}, the manifest says "
            f"{sealed.digest.hex()}: restore a backup or salvage the store"
        )


def write_index(file: IndexFile) -> Effect[None]:
    """Write a segment's index file. It is not synced: a bad one is found out, and made again."""
    path = index_path(file.number)
    body = _encode_index(file)
    if (yield from perform(disk.Size(path))) is not None:
        yield from perform(disk.Remove(path))
    yield from perform(disk.Create(path))
    yield from perform(disk.Write(path, 0, crc32(body).to_bytes(4, "little") + body))
