"""Finding the files of a store, damaged or not: its manifest, its segments, and what they should have been."""

import re
from collections.abc import Callable

from interpreters.disk import requests as disk
from interpreters.stores.file.format import HEADER_BYTES, SegmentHeader, decode_header
from interpreters.stores.file.index import IndexFile
from interpreters.stores.file.manifest import (
    CURRENT,
    CURRENT_TEMPORARY,
    LENGTH_LIMIT_BYTES,
    MANIFEST_NAME,
    SYNCED,
    Manifest,
    Sealed,
    load_named,
    name_in_force,
    segment_path,
)
from interpreters.stores.file.scan import Bad, Damage, Scan, Segment
from interpreters.stores.file.sealed import read_index
from interpreters.stores.file.segments import LOCK
from persist_effects.errors import CorruptStore, InvalidRequest
from persist_effects.machine import Effect, perform

BytesProgress = Callable[[int, int], None]
"""Told now and then how many bytes are done, and how many there are."""

_SALT = slice(40, 48)
"""Where the salt stands in a segment's header."""


def find_manifest() -> Effect[tuple[Manifest | None, list[Damage]]]:
    """The manifest in force, or where that is not known, the newest if it is sound; and what is wrong with them.

    Raises `InvalidRequest` where there is no store.
    """
    names = yield from perform(disk.List("."))
    manifests = sorted((name for name in names if MANIFEST_NAME.fullmatch(name)), key=_number_of, reverse=True)
    if not manifests and CURRENT not in names and "log" not in names:
        raise InvalidRequest("there is no store in this directory: give the directory that holds CURRENT and log")
    damages = yield from _find_foreign(names)
    name = yield from _name_in_force(damages)
    if name is not None:
        manifest = yield from _manifest(name, damages)
        if manifest is not None or name in manifests[:1]:
            return manifest, damages
    newest = (yield from _manifest(manifests[0], damages)) if manifests else None
    return newest, damages


def _find_foreign(names: list[str]) -> Effect[list[Damage]]:
    """What no opening accepts in the place of files that say nothing of what is stored."""
    damages = []
    for name in names:
        if name in {LOCK, SYNCED, CURRENT_TEMPORARY}:
            try:
                yield from perform(disk.Size(name))
            except OSError as error:
                damages.append(Damage(name, 0, "a file of the store's own", str(error)))
    return damages


def _number_of(name: str) -> int:
    return int(name.partition("-")[2])


def _name_in_force(damages: list[Damage]) -> Effect[str | None]:
    expected = "the name of the manifest in force, with its checksum"
    try:
        name = yield from name_in_force()
    except (CorruptStore, OSError) as error:
        damages.append(Damage(CURRENT, 0, expected, _without_place(error, CURRENT)))
        return None
    if name is None:
        damages.append(Damage(CURRENT, 0, expected, "no file"))
    return name


def _manifest(name: str, damages: list[Damage]) -> Effect[Manifest | None]:
    try:
        return (yield from load_named(name))
    except (CorruptStore, OSError) as error:
        damages.append(Damage(name, 0, "a manifest with its checksum", _without_place(error, name)))
        return None


def _without_place(error: Exception, path: str) -> str:
    """An error's message without the file's name in front, which is told already."""
    return re.sub(rf"^{re.escape(path)}[: ]+(offset 0: |offset 0 holds )?", "", str(error))


def find_segment(
    number: int, uuid: bytes | None, sealed: Sealed | None, damages: list[Damage]
) -> Effect[Segment | None]:
    """A segment by its number, or None where nothing of it can be read. ``uuid`` is the store's, where it is known."""
    path = segment_path(number)
    wanted = "the active segment" if sealed is None else f"a segment of {sealed.length_bytes} bytes"
    try:
        size_bytes, trouble = (yield from perform(disk.Size(path))), "no file"
    except disk.ForeignFile as error:
        size_bytes, trouble = None, str(error)
    if size_bytes is None:
        damages.append(Damage(path, 0, f"{wanted}, as the manifest says", trouble))
        return None
    end = min(size_bytes, LENGTH_LIMIT_BYTES if sealed is None else sealed.length_bytes)
    if sealed is not None and size_bytes < sealed.length_bytes:
        damages.append(
            Damage(path, size_bytes, f"{sealed.length_bytes} bytes, as the manifest says", "the end of the file")
        )
    data = yield from perform(disk.Read(path, 0, HEADER_BYTES))
    try:
        header = decode_header(data, path)
    except CorruptStore as error:
        damages.append(Damage(path, 0, f"the header of segment {number}", _without_place(error, path)))
        segment = Segment(number, path, 0, end, sealed is None)
        return (yield from _without_header(segment, uuid, data))
    if header.number != number or header.uuid != (uuid or header.uuid):
        damages.append(
            Damage(
                path,
                0,
                f"the header of segment {number}" + (f" of store {uuid.hex()}" if uuid else ""),
                f"that of segment {header.number} of store {header.uuid.hex()}: a file was put in the place of another",
            )
        )
        return None
    segment = Segment(number, path, header.seed, end, sealed is None)
    if sealed is None and size_bytes > LENGTH_LIMIT_BYTES:
        damages.append(Damage(path, 0, f"at most {LENGTH_LIMIT_BYTES} bytes", f"{size_bytes}"))
        return (yield from _up_to_its_last_frame(segment))
    return segment


def _up_to_its_last_frame(segment: Segment) -> Effect[Segment]:
    """A segment that claims to be longer than any, without what comes after the first place that has no frame."""
    scan = Scan(segment)
    while (yield from scan.frames()):
        pass
    return segment._replace(end=scan.offset)


def _without_header(segment: Segment, uuid: bytes | None, data: bytes) -> Effect[Segment | None]:
    """A segment whose header is damaged, by the seed of its checksums, if that is still to be found."""
    seeds: list[int] = []
    if uuid is not None and len(data) == HEADER_BYTES:
        salt = int.from_bytes(data[_SALT], "little")
        seeds.append(SegmentHeader(uuid, segment.number, salt, 0, b"").seed)
    index = (yield from read_index(segment.number, segment.end)).file
    if index is not None and 0 <= index.seed < 1 << 32:
        seeds.append(index.seed)
    for seed in seeds:
        guess = segment._replace(seed=seed)
        found = yield from Scan(guess._replace(is_active=False)).next()
        if isinstance(found, list) or (isinstance(found, Bad) and found.end < guess.end):
            return guess
    return None


def index_of(sealed: Sealed) -> Effect[IndexFile | None]:
    """The index of a sealed segment, if there is one that was made of what was sealed."""
    try:
        found = yield from read_index(sealed.number, sealed.length_bytes)
    except OSError:
        return None
    index = found.file
    if index is None or (index.number, index.digest) != (sealed.number, sealed.digest):
        return None
    return index if found.is_meant_by(sealed) or not sealed.index else None
