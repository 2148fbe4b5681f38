"""What a crash left of the active segment: what was acknowledged, what may be cut, and what is damage."""

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    FOOTER,
    HEADER_BYTES,
    Frame,
    SegmentHeader,
    decode_header,
)
from interpreters.stores.file.manifest import LENGTH_LIMIT_BYTES, segment_path
from interpreters.stores.file.scan import Scan, Segment
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, perform


class Recovered:
    """The valid frames of an active segment. Those from ``proved_end`` on may only be in the page cache."""

    def __init__(self, header: SegmentHeader, frames: list[Frame], proved_end: int) -> None:
        self.header = header
        self.proved = [frame for frame in frames if frame.offset < proved_end and frame.type != FOOTER]
        self.unproved = [frame for frame in frames if frame.offset >= proved_end and frame.type != FOOTER]
        self.proved_end = proved_end


def recover(number: int) -> Effect[Recovered]:
    """Read the segment that was active when the store went down. Raises `CorruptStore` for damage.

    Let f be the first bad offset. A valid frame behind it whose watermark is past f proves that f was on the disk:
    that is damage. Else the tail is torn, and everything from f on was never acknowledged.
    """
    path = segment_path(number)
    size_bytes = yield from perform(disk.Size(path))
    if size_bytes is None:
        raise CorruptStore(f"{path} is not there, though the manifest names it: restore a backup or salvage the store")
    if size_bytes > LENGTH_LIMIT_BYTES:
        raise CorruptStore(f"{path}: {size_bytes} bytes, a segment has at most {LENGTH_LIMIT_BYTES}: salvage the store")
    header = decode_header((yield from perform(disk.Read(path, 0, HEADER_BYTES))), path)
    scan = Scan(Segment(number, path, header.seed, size_bytes, True))
    frames: list[Frame] = []
    while some := (yield from scan.frames()):
        frames += some
    bad = scan.offset
    witness = yield from scan.witness()
    if witness is not None:
        raise CorruptStore(
            f"{path}: offset {bad}: no valid frame, though the frame at {witness.offset} says that the file was on the "
            f"disk up to {witness.watermark}: restore a backup or salvage the store"
        )
    proved_end = max((frame.watermark for frame in frames), default=HEADER_BYTES)
    return Recovered(header, frames, proved_end)
