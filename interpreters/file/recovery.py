"""What a crash left of the active segment: what was acknowledged, what may be cut, and what is damage."""

import re

from interpreters import disk
from interpreters.file.format import (
    FOOTER,
    HEADER_BYTES,
    Frame,
    SegmentHeader,
    decode_frame,
    decode_header,
)
from interpreters.file.manifest import segment_path
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, perform

_NOT_ZERO = re.compile(rb"[^\0]")


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
    data = yield from perform(disk.Read(path, 0, size_bytes))
    header = decode_header(data, path)
    frames, bad = valid_frames(data, header.seed)
    witness = _frame_that_proves(data, header.seed, bad)
    if witness is not None:
        raise CorruptStore(
            f"{path}: offset {bad}: no valid frame, though the frame at {witness.offset} says that the file was on the "
            f"disk up to {witness.watermark}: restore a backup or salvage the store"
        )
    proved_end = max((frame.watermark for frame in frames), default=HEADER_BYTES)
    return Recovered(header, frames, proved_end)


def valid_frames(data: bytes, seed: int, start: int = HEADER_BYTES) -> tuple[list[Frame], int]:
    """The frames from the first on, and the offset at which there is no valid one."""
    frames: list[Frame] = []
    offset = start
    while (frame := decode_frame(data, offset, seed, offset)) is not None:
        frames.append(frame)
        offset = frame.end
    return frames, offset


def _frame_that_proves(data: bytes, seed: int, bad: int) -> Frame | None:
    """A valid frame after ``bad`` that was made when ``bad`` was known to be on the disk, if there is one."""
    offset = bad + 8
    while (found := _NOT_ZERO.search(data, offset)) is not None:
        # A frame begins with its checksum, of which the first byte may be zero.
        offset = max(offset, found.start() & ~7)
        frame = decode_frame(data, offset, seed, offset)
        if frame is not None and frame.watermark > bad:
            return frame
        offset += 8
    return None
