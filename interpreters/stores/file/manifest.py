"""The manifest: which segments a store consists of, and how a new one takes the place of the old."""

import re
import struct
import zlib
from functools import lru_cache
from typing import NamedTuple

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import ALIGNMENT_BYTES, DECODING_ERRORS, DIGEST_BYTES, HEADER_BYTES, check_version
from persist_effects.errors import CorruptStore, UncertainOutcome
from persist_effects.machine import Effect, perform

CURRENT = "CURRENT"
CURRENT_TEMPORARY = "CURRENT.tmp"
BLOBS = "blobs"
"""The blobs' directory, in the store's own: so they are moved, kept and restored with the log that names them."""
_ADVICE = "restore it from a backup, or salvage the store"
_MANIFEST_LIMIT_BYTES = 64 * 1024 * 1024
"""Room for some 900,000 sealed segments."""

MANIFEST_NAME = re.compile(r"MANIFEST-[0-9]{8,19}")
NUMBER_LIMIT = 1 << 31
"""A place in the log has 63 bits: 31 for its segment's number, and 32 for the offset, in units of 8 bytes."""

LENGTH_LIMIT_BYTES = 1 << 35
COUNT_LIMIT = 1 << 63
"""More than any sequence number, position, revision or epoch."""

_encode = msgspec.msgpack.Encoder().encode


SYNCED = "SYNCED"
_SYNCED = struct.Struct("<QQI")


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """A sealed segment: how long it is, and the digest of its frames.

    ``index`` is the digest of its index file, empty where that is not known. ``replaced`` is for the last copy that a
    compaction made: the digest of the last segment that the copies stand for, on which the next one follows.
    """

    number: int
    length_bytes: int
    digest: bytes
    index: bytes = b""
    replaced: bytes = b""


class _Format(msgspec.Struct, frozen=True, array_like=True):
    """What manifests of all versions begin with."""

    format: int


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """The segments of a store, in the order of the log."""

    format: int
    uuid: bytes
    epoch: int
    number: int
    next_segment: int
    sealed: list[Sealed]
    active: int | None

    @property
    def name(self) -> str:
        """The name of this manifest's file."""
        return f"MANIFEST-{self.number:08d}"


class Moment(NamedTuple):
    """The log at some time: the manifest then in force, and how far the active segment was written."""

    manifest: Manifest
    offset: int


_decode = msgspec.msgpack.Decoder(Manifest).decode
_decode_format = msgspec.msgpack.Decoder(_Format).decode


@lru_cache(maxsize=1024)
def segment_path(number: int) -> str:
    """Where a segment is."""
    return f"log/{number:08d}.seg"


def index_path(number: int) -> str:
    """Where a sealed segment's index is."""
    return f"log/{number:08d}.idx"


def load() -> Effect[Manifest | None]:
    """The manifest in force, or None where there is no store yet. Raises `CorruptStore` and `NewerFormat`."""
    name = yield from name_in_force()
    return None if name is None else (yield from load_named(name))


def load_beside_writer() -> Effect[Manifest | None]:
    """As `load`, where another process may put a new manifest in force, and remove the one before, at any time."""
    while True:
        name = yield from name_in_force()
        if name is None:
            return None
        try:
            return (yield from load_named(name))
        except (FileNotFoundError, CorruptStore):
            if (yield from name_in_force()) == name:
                raise


def name_in_force() -> Effect[str | None]:
    """The name of the manifest in force, or None where there is no store yet. Raises `CorruptStore`."""
    if (yield from perform(disk.Size(CURRENT))) is None:
        return None
    return _name_in((yield from perform(disk.Read(CURRENT, 0, 1024))))


def load_named(name: str) -> Effect[Manifest]:
    """The manifest of this name, in force or not. Raises `CorruptStore` and `NewerFormat`."""
    if (yield from perform(disk.Size(name))) is None:
        raise CorruptStore(f"{CURRENT} names {name}, which is not there: {_ADVICE}")
    return _manifest_in(name, (yield from perform(disk.Read(name, 0, _MANIFEST_LIMIT_BYTES))))


def publish_synced(number: int, offset: int) -> Effect[None]:
    """Say how far the active segment is on the disk. It need not get there itself: what was once true stays true."""
    fields = _SYNCED.pack(number, offset, 0)[:-4]
    yield from perform(disk.Write(SYNCED, 0, fields + zlib.crc32(fields).to_bytes(4, "little")))


def load_synced() -> Effect[tuple[int, int]]:
    """The segment and the offset that were published last; (0, 0) where a crash has left none that can be read."""
    if (yield from perform(disk.Size(SYNCED))) is None:
        return 0, 0
    data = yield from perform(disk.Read(SYNCED, 0, _SYNCED.size))
    while len(data) < _SYNCED.size or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        # Read while it was being written, it is another one the next time.
        before, data = data, (yield from perform(disk.Read(SYNCED, 0, _SYNCED.size)))
        if data == before:
            return 0, 0
    number, offset, _ = _SYNCED.unpack(data)
    return number, offset


def publish(manifest: Manifest) -> Effect[None]:
    """Put a manifest in force. What the one before named may be removed after this has returned.

    Raises OSError where the one before stays in force, and `UncertainOutcome` where that is not known.
    """
    body = _encode(manifest)
    yield from _write_whole(manifest.name, zlib.crc32(body).to_bytes(4, "little") + body)
    yield from perform(disk.SyncDirectory("."))
    yield from _write_whole(CURRENT_TEMPORARY, f"{manifest.name} {zlib.crc32(manifest.name.encode()):08x}".encode())
    try:
        yield from perform(disk.Rename(CURRENT_TEMPORARY, CURRENT))
        yield from perform(disk.SyncDirectory("."))
    except OSError as error:
        raise UncertainOutcome(
            f"whether {CURRENT} names {manifest.name} is not known: {error}: close the store and open it again"
        ) from error


def _write_whole(path: str, data: bytes) -> Effect[None]:
    # A publication that was interrupted, or met a full disk, may have left one of this name.
    if (yield from perform(disk.Size(path))) is not None:
        yield from perform(disk.Remove(path))
    yield from perform(disk.Create(path))
    yield from perform(disk.Write(path, 0, data))
    yield from perform(disk.Sync(path))


def _name_in(current: bytes) -> str:
    name, _, checksum = current.partition(b" ")
    if f"{zlib.crc32(name):08x}".encode() != checksum:
        raise CorruptStore(
            f"{CURRENT} holds {current[:80]!r}, which is not a manifest's name with its checksum: {_ADVICE}"
        )
    decoded = name.decode("ascii", "replace")
    if MANIFEST_NAME.fullmatch(decoded) is None:
        raise CorruptStore(
            f"{CURRENT} names {name[:80]!r}, which is not a manifest's name, as MANIFEST-00000001 is one: {_ADVICE}"
        )
    return decoded


def _manifest_in(name: str, data: bytes) -> Manifest:
    if len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise CorruptStore(f"{name}: offset 0: the checksum does not fit the {len(data)} bytes of the file: {_ADVICE}")
    try:
        check_version(_decode_format(data[4:]).format, name)
        manifest = _decode(data[4:])
    except DECODING_ERRORS as error:
        raise CorruptStore(f"{name}: its checksum fits and it is not a manifest: {error}: {_ADVICE}") from error
    if manifest.name != name:
        raise CorruptStore(f"{name} says that it is {manifest.name}: one was copied over the other: {_ADVICE}")
    trouble = _trouble_in(manifest)
    if trouble:
        raise CorruptStore(f"{name}: {trouble}: {_ADVICE}")
    return manifest


def _trouble_in(manifest: Manifest) -> str:
    """What in a manifest cannot be, or nothing. What only its segments can tell is told by their headers."""
    if len(manifest.uuid) != 16:
        return f"the store's UUID has {len(manifest.uuid)} bytes, expected 16"
    if not 0 <= manifest.epoch < COUNT_LIMIT:
        return f"the epoch is {manifest.epoch}, expected a count"
    numbers = [sealed.number for sealed in manifest.sealed]
    if manifest.active is not None:
        numbers.append(manifest.active)
    seen: set[int] = set()
    for number in numbers:
        if number in seen:
            return f"segment {number} is named twice"
        if not 0 < number < manifest.next_segment:
            return f"segment {number} is named, expected numbers from 1 to before the next one, {manifest.next_segment}"
        seen.add(number)
    if not 0 < manifest.next_segment < NUMBER_LIMIT:
        return f"the next segment's number is {manifest.next_segment}, expected 1 to {NUMBER_LIMIT - 1}"
    return next(filter(None, map(_trouble_with, manifest.sealed)), "")


def _trouble_with(sealed: Sealed) -> str:
    length, sizes = sealed.length_bytes, [len(sealed.index), len(sealed.replaced)]
    if not HEADER_BYTES <= length <= LENGTH_LIMIT_BYTES or length % ALIGNMENT_BYTES:
        return f"segment {sealed.number} has {length} bytes, expected a multiple of 8 from {HEADER_BYTES} on"
    if len(sealed.digest) != DIGEST_BYTES or not {0, DIGEST_BYTES}.issuperset(sizes):
        return f"a digest of segment {sealed.number} has not {DIGEST_BYTES} bytes"
    return ""
