"""The store that is shipped, as another process writes it: what is in force, and how far that is on the disk."""

from hashlib import blake2b
from typing import NamedTuple

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    COMMIT,
    COMMITS,
    DECODING_ERRORS,
    DIGEST_BYTES,
    SegmentHeader,
    decode_commit,
)
from interpreters.stores.file.manifest import Manifest, load_beside_writer, load_synced, segment_path
from interpreters.stores.file.scan import Proof, Scan, Segment
from interpreters.stores.file.sealed import check_nothing_is_left_out, check_order, read_header
from interpreters.stores.file.upkeep.shipping.checking import Counters
from persist_effects.errors import CorruptStore, InvalidRequest
from persist_effects.machine import Effect, perform


class Source(NamedTuple):
    """A store at a moment: its manifest, the headers of its segments in order, and where the active one's frames end.

    ``end`` is how far that is on the disk, 0 where none is active. ``seen`` counts up to the last commit that was
    written, on the disk or not, and to no less than what any compaction in this manifest has seen.
    """

    manifest: Manifest
    headers: list[SegmentHeader]
    end: int
    seen: Counters


class SourceReader:
    """Looks at the store on the disk again and again. Of the active segment it reads what is new since."""

    def __init__(self) -> None:
        self._manifest: Manifest | None = None
        self._headers: list[SegmentHeader] = []
        self._key: tuple[int, int] | None = None
        # What is known to be on the disk: behind it, frames may still be taken back.
        self._proof = Proof()
        self._counters = Counters()

    def look(self) -> Effect[Source]:
        """The store as it is now. Raises `InvalidRequest` where there is none, and `CorruptStore`."""
        while True:
            manifest = yield from load_beside_writer()
            if manifest is None:
                raise InvalidRequest("there is no store in this directory: give that which holds CURRENT and log")
            try:
                return (yield from self._look(manifest))
            except (FileNotFoundError, CorruptStore):
                # A compaction may have taken a segment away since: then there is another manifest in force.
                if (yield from load_beside_writer()) == manifest:
                    raise

    def _look(self, manifest: Manifest) -> Effect[Source]:
        if manifest != self._manifest:
            headers = yield from self._read_headers(manifest)
            check_order(manifest, headers)
            yield from check_nothing_is_left_out(manifest, headers)
            self._manifest, self._headers = manifest, headers
        headers = self._headers
        end, seen = (yield from self._measured(headers[-1])) if manifest.active is not None else (0, Counters())
        seen.position = max([seen.position, *(header.first_position - 1 for header in headers)])
        return Source(manifest, headers, end, seen)

    def _read_headers(self, manifest: Manifest) -> Effect[list[SegmentHeader]]:
        known = {header.number: header for header in self._headers}
        headers: list[SegmentHeader] = []
        for number in [*(one.number for one in manifest.sealed), manifest.active]:
            if number is None:
                continue
            # Numbers are never used twice.
            header = known.get(number) or (yield from read_header(number, manifest.uuid))
            if header is None:
                raise CorruptStore(f"{segment_path(number)}: offset 0: expected the header of a segment, found none")
            yield from perform(disk.LetGo(segment_path(number)))
            headers.append(header)
        return headers

    def _measured(self, header: SegmentHeader) -> Effect[tuple[int, Counters]]:
        """How far the active segment is on the disk, and what all frames in it count up to.

        The writer says the first, and so do the frames.
        """
        if self._key != (header.number, header.salt):
            self._key, self._proof, self._counters = (header.number, header.salt), Proof(), Counters()
        proof, path = self._proof, segment_path(header.number)
        size_bytes = yield from perform(disk.Size(path))
        number, synced = yield from load_synced()
        scan = Scan(Segment(header.number, path, header.seed, size_bytes or 0, True), proof.end)
        while frames := (yield from scan.frames()):
            proof.take(frames)
            # What is taken back again was counted in vain, which asks for no more than it must.
            self._counters.take_ends(frames)
        if number == header.number:
            proof.end = max(proof.end, synced)
        return proof.end, msgspec.structs.replace(self._counters)


def base_of(source: Source) -> Effect[bytes]:
    """What a compaction noted first in this log, by which logs are told apart; nothing where none was compacted.

    It begins with a commit of nothing, which says what the store counted up to. A log that begins with one for another
    reason counts as compacted, which asks for no more than it must.
    """
    numbers = [*(one.number for one in source.manifest.sealed), *([source.manifest.active] if source.end else [])]
    for number, header in zip(numbers, source.headers, strict=True):
        path = segment_path(number or 0)
        size_bytes = yield from perform(disk.Size(path))
        scan = Scan(Segment(header.number, path, header.seed, size_bytes or 0, True))
        while frames := (yield from scan.frames()):
            first = next((frame for frame in frames if frame.type in COMMITS), None)
            if first is not None:
                is_noted = first.type == COMMIT and _says_nothing(first.payload)
                return blake2b(first.payload, digest_size=DIGEST_BYTES).digest() if is_noted else b""
    return b""


def _says_nothing(payload: bytes) -> bool:
    try:
        commit = decode_commit(payload)
    except DECODING_ERRORS:
        return False
    return not (commit.runs or commit.entries or commit.deleted or commit.drops)
