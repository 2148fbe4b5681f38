"""Small sealed segments, as each opening and closing leaves one, are written together into one when a store is opened.

Eight of about one length become one of about eight times that, and eight of those again: so a log has few segments
however often it was opened, and each frame is copied a few times at the most. Nothing is judged and nothing left out;
that is what compaction is for. The manifest that opening publishes anyway names the new segment in the place of the
old ones. A crash before it leaves the old ones in force, and one after it the new.
"""

from collections.abc import Sequence

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import FOOTER, MARK, Digest, Frame, Payload, SegmentHeader
from interpreters.stores.file.index import Index, SegmentIndex
from interpreters.stores.file.manifest import Sealed, segment_path
from interpreters.stores.file.scan import Scan, Segment
from interpreters.stores.file.sealed import Loaded, check_digest, take_in_frame, with_index, write_index
from interpreters.stores.file.writer import Writer
from persist_effects.machine import Effect, perform

TOGETHER = 8
"""How many segments of about one length become one."""

SMALLEST_BYTES = 4096
"""Shorter segments count as so long: what one commit or a few leave."""

LIMIT_BYTES = 4 * 1024 * 1024
"""Segments that would be longer together are left alone: to write so much keeps an opening waiting for some 50 ms."""


def to_gather(lengths_bytes: Sequence[int]) -> int | None:
    """From which of the sealed segments on all are to become one.

    Args:
        lengths_bytes: Of all sealed segments, in the order of the log.

    Returns:
        The place of the first in that order; None where they are few, or long enough.

    >>> to_gather([40_000_000] + 8 * [300])
    1
    >>> to_gather([40_000_000] + 7 * [300]) is None
    True
    """
    longest_bytes = SMALLEST_BYTES
    while longest_bytes <= LIMIT_BYTES:
        first = len(lengths_bytes)
        while first and lengths_bytes[first - 1] <= longest_bytes:
            first -= 1
        last_ones = lengths_bytes[first:]
        shortest_bytes = longest_bytes // TOGETHER if longest_bytes > SMALLEST_BYTES else 0
        is_enough = sum(length_bytes > shortest_bytes for length_bytes in last_ones) >= TOGETHER
        if is_enough and sum(last_ones) <= LIMIT_BYTES:
            return first
        longest_bytes *= TOGETHER
    return None


class Gathered:
    """Writes segments into one new segment. `add` each, in the order of the log, then `seal`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._index = Index()
        self._segment = SegmentIndex(writer.header.number, writer.seed, 0)

    def add(self, sealed: Sealed, header: SegmentHeader) -> Effect[None]:
        """Copy the frames of a segment. Raises `CorruptStore` where they are not those that were sealed."""
        path = segment_path(sealed.number)
        scan = Scan(Segment(sealed.number, path, header.seed, sealed.length_bytes, False))
        digest = Digest()
        while frames := (yield from scan.frames()):
            digest.add([frame.checksum.to_bytes(4, "little") for frame in frames if frame.type != FOOTER])
            yield from self._append([frame for frame in frames if frame.type not in (FOOTER, MARK)])
        check_digest(path, sealed, digest.value(), scan.offset)

    def _append(self, frames: Sequence[Frame]) -> Effect[None]:
        payloads: list[Payload] = [(frame.type, frame.payload) for frame in frames]
        offsets = (yield from self._writer.append(payloads)) if payloads else []
        for frame, offset in zip(frames, offsets, strict=True):
            take_in_frame(self._index, self._segment, msgspec.structs.replace(frame, offset=offset))

    def seal(self, replaced: bytes) -> Effect[Loaded]:
        """The new segment as a manifest is to name it, with its index, on the disk but for its name.

        ``replaced`` is the digest by which the segment after these names the one before it.
        """
        writer = self._writer
        digest = yield from writer.seal()
        file = self._index.seal(self._segment, digest)
        yield from write_index(file)
        # It took more room than it needs.
        yield from perform(disk.Truncate(writer.path, writer.offset))
        sealed = Sealed(writer.header.number, writer.offset, digest, replaced=replaced)
        return Loaded(with_index(sealed, file), file, writer.header)
