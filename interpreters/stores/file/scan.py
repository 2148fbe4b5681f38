"""One segment from its first frame to its last, past damage, some of it in memory at a time.

Where frames stop, the rule for what that means is the segment's. A *sealed* one is to hold valid frames up to its
length. In an *active* one the end is torn or still being written, and no damage; but where a frame behind proves
that the place was once on the disk, it is damage there too (`recovery`).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    FRAME_HEADER_BYTES,
    FRAME_TYPES,
    HEADER_BYTES,
    Frame,
    announced_bytes,
    decode_frame,
)
from persist_effects.machine import Effect, perform

WINDOW_BYTES = 1024 * 1024
"""How much is read at once."""

_ZEROS = bytes(WINDOW_BYTES)

# A frame's type, at 8 bytes from the frame's beginning: a small number in four bytes.
_KIND = re.compile(b"[" + bytes(sorted(FRAME_TYPES)) + rb"]\0\0\0")


class Damage(msgspec.Struct, frozen=True):
    """Something wrong in a file: where, what should be there, and what is."""

    file: str
    offset: int
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: offset {self.offset}: expected {self.expected}, found {self.found}"


class Bad(NamedTuple):
    """No frame from ``start`` to ``end`` is valid."""

    start: int
    end: int


class Segment(NamedTuple):
    """A segment to be scanned. ``end`` is its length as the manifest says, or the size of the file of an active one."""

    number: int
    path: str
    seed: int
    end: int
    is_active: bool


class Proof:
    """How far the frames of an active segment, in order, say that it is on the disk: up to ``end``.

    Each says it of those before it. All that were written before the segment was first synced, so that they know of
    nothing on the disk, are there: that is done before a manifest names it.
    """

    def __init__(self) -> None:
        self.end = HEADER_BYTES
        self._is_first_sync = True

    def take(self, frames: Sequence[Frame]) -> None:
        """Take in the next frames."""
        for frame in frames:
            self._is_first_sync = self._is_first_sync and frame.watermark == 0
            self.end = max(self.end, frame.end if self._is_first_sync else frame.watermark)


class Scan:
    """The frames of a segment in order. ``offset`` is where the next one is to stand."""

    def __init__(self, segment: Segment, offset: int = HEADER_BYTES) -> None:
        self.segment = segment
        self.offset = offset

    def next(self) -> Effect[list[Frame] | Bad | None]:
        """Some more frames, or the damage before the next ones, or None at the end. Raises OSError."""
        if self.offset >= self.segment.end:
            return None
        frames = yield from self.frames()
        if frames:
            return frames
        return (yield from (self._look_behind_the_end() if self.segment.is_active else self._skip_damage()))

    def _skip_damage(self) -> Effect[Bad]:
        bad = self.offset
        following = yield from self._valid_after(bad)
        self.offset = self.segment.end if following is None else following.offset
        return Bad(bad, self.offset)

    def _look_behind_the_end(self) -> Effect[list[Frame] | Bad | None]:
        bad = self.offset
        if (yield from self.witness()) is None:
            return None
        following = yield from self._valid_after(bad)
        if following is None:
            return None
        # A writer may have written here since this place was read, and then the frame behind.
        frames = yield from self.frames()
        if frames:
            return frames
        self.offset = following.offset
        return Bad(bad, following.offset)

    def witness(self) -> Effect[Frame | None]:
        """A valid frame behind the offset that was made when that place was known to be on the disk."""
        return (yield from self._valid_after(self.offset, self.offset))

    def frames(self) -> Effect[list[Frame]]:
        """The valid frames from the offset on, as many as one reading gives; goes past them. Or no frames."""
        data = yield from self._read(self.offset, WINDOW_BYTES)
        frames = self._frames_in(data)
        if not frames and len(data) >= FRAME_HEADER_BYTES:
            needed = announced_bytes(data, 0)
            if len(data) < needed <= self.segment.end - self.offset:
                frames = self._frames_in((yield from self._read(self.offset, needed)))
        if frames:
            self.offset = frames[-1].end
        return frames

    def _frames_in(self, data: bytes) -> list[Frame]:
        start, seed = self.offset, self.segment.seed
        frames: list[Frame] = []
        at = 0
        while (frame := decode_frame(data, at, seed, start + at)) is not None:
            frames.append(frame)
            at = frame.end - start
        return frames

    def _valid_after(self, offset: int, synced_past: int = -1) -> Effect[Frame | None]:
        """The first valid frame that stands behind an offset, and has a watermark past another."""
        start = offset + 8
        while self.segment.end - start >= FRAME_HEADER_BYTES:
            data = yield from self._read(start, WINDOW_BYTES)
            if len(data) < FRAME_HEADER_BYTES:
                return None
            # Most of what is behind the last frame is room that was only reserved.
            is_room = data == _ZEROS[: len(data)]
            for found in () if is_room else _KIND.finditer(data, 8):
                at = found.start() - 8
                if at % 8 == 0 and at + FRAME_HEADER_BYTES <= len(data):
                    frame = yield from self._frame_at(start + at, data, at)
                    if frame is not None and frame.watermark > synced_past:
                        return frame
            # The last bytes may be the beginning of a header.
            start += max(8, (len(data) - FRAME_HEADER_BYTES) // 8 * 8 + 8)
        return None

    def _frame_at(self, offset: int, data: bytes, at: int) -> Effect[Frame | None]:
        size_bytes = announced_bytes(data, at)
        if offset + size_bytes > self.segment.end:
            return None
        if at + size_bytes > len(data):
            data, at = (yield from self._read(offset, size_bytes)), 0
        return decode_frame(data, at, self.segment.seed, offset)

    def _read(self, offset: int, size_bytes: int) -> Effect[bytes]:
        size_bytes = min(size_bytes, self.segment.end - offset)
        return (yield from perform(disk.Read(self.segment.path, offset, size_bytes)))
