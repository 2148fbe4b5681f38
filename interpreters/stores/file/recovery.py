"""What a crash left of the active segment: what was acknowledged, what may be cut, and what is damage."""

from bisect import bisect_left
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    FOOTER,
    HEADER_BYTES,
    Digest,
    Frame,
    SegmentHeader,
    decode_header,
)
from interpreters.stores.file.manifest import LENGTH_LIMIT_BYTES, segment_path
from interpreters.stores.file.scan import Scan, Segment
from interpreters.stores.file.sealed import check_header
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, perform


class Recovered(NamedTuple):
    """An active segment, sealed where what is proved ends. The frames after it may only be in the page cache."""

    header: SegmentHeader
    proved_end: int
    digest: bytes
    unproved: list[Frame]


def recover(number: int, uuid: bytes, take: Callable[[SegmentHeader, Frame], None]) -> Effect[Recovered]:
    """Read the segment that was active when the store went down. Raises `CorruptStore` for damage.

    Let f be the first bad offset. A valid frame behind it whose watermark is past f proves that f was on the disk:
    that is damage. Else the tail is torn, and everything from f on was never acknowledged.

    ``take`` is given the frames that are proved, as soon as they are: only those that are not yet are kept in memory.
    """
    path = segment_path(number)
    size_bytes = yield from perform(disk.Size(path))
    if size_bytes is None:
        raise CorruptStore(f"{path} is not there, though the manifest names it: restore a backup or salvage the store")
    if size_bytes > LENGTH_LIMIT_BYTES:
        raise CorruptStore(f"{path}: {size_bytes} bytes, a segment has at most {LENGTH_LIMIT_BYTES}: salvage the store")
    header = decode_header((yield from perform(disk.Read(path, 0, HEADER_BYTES))), path)
    check_header(header, number, uuid)
    scan = Scan(Segment(number, path, header.seed, size_bytes, True))
    frames: list[Frame] = []
    proved_end, digest = HEADER_BYTES, Digest()
    while some := (yield from scan.frames()):
        frames += [frame for frame in some if frame.type != FOOTER]
        proved_end = max(proved_end, *(frame.watermark for frame in some))
        proved = frames[: bisect_left(frames, proved_end, key=attrgetter("offset"))]
        digest.add([frame.checksum.to_bytes(4, "little") for frame in proved])
        for frame in proved:
            take(header, frame)
        del frames[: len(proved)]
    bad = scan.offset
    witness = yield from scan.witness()
    if witness is not None:
        raise CorruptStore(
            f"{path}: offset {bad}: no valid frame, though the frame at {witness.offset} says that the file was on the "
            f"disk up to {witness.watermark}: restore a backup or salvage the store"
        )
    return Recovered(header, proved_end, digest.value(), frames)
