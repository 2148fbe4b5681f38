"""Writing frames to the active segment. What is not yet known to be on the disk is never taken for granted."""

import errno
from collections.abc import Sequence

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    FOOTER,
    HEADER_BYTES,
    MARK,
    Digest,
    EncodedFrames,
    Footer,
    Payload,
    SegmentHeader,
    encode_footer,
    encode_frames,
    encode_header,
    frame_bytes,
)
from interpreters.stores.file.manifest import segment_path
from interpreters.stores.group import NO_MEMORY
from persist_effects.errors import StoreUnavailable, UncertainOutcome
from persist_effects.machine import Effect, perform

FOOTER_BYTES = 64
"""More than any footer takes: room for it is kept in each segment."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a system says where there is no room for a file, or not for so long a one."""

_MAKE_ROOM = "make room, or open the store with a smaller segment_bytes"

FILL_BYTES = 128 * 1024
"""How far ahead zeros are written: room for some hundred small commits."""


class Writer:
    """The end of one segment: where the next frame goes, and how far the segment is on the disk."""

    def __init__(self, header: SegmentHeader, capacity_bytes: int) -> None:
        self.header = header
        self.path = segment_path(header.number)
        self.seed = header.seed
        self.capacity_bytes = capacity_bytes
        self.offset = HEADER_BYTES
        # Not even the header is, yet.
        self.synced = 0
        # How far there are bytes that were written, and not only room.
        self.filled = HEADER_BYTES
        self.digest = Digest()
        self.poison: str | None = None

    def create(self) -> Effect[None]:
        """Make the segment's file, with its room and its header. Its name is not on the disk yet."""
        if (yield from perform(disk.Size(self.path))) is not None:
            # Of an opening or a roll-over that was interrupted: no manifest names it.
            yield from perform(disk.Remove(self.path))
        yield from perform(disk.Create(self.path))
        yield from self._take_room()
        yield from perform(disk.Write(self.path, 0, encode_header(self.header)))

    def _take_room(self) -> Effect[None]:
        try:
            yield from perform(disk.Allocate(self.path, self.capacity_bytes))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            told = f"{error.strerror}, and a segment takes {self.capacity_bytes} bytes at once: {_MAKE_ROOM}"
            raise OSError(error.errno, told, error.filename) from error

    def has_room_for(self, payload_sizes_bytes: int, frames: int) -> bool:
        """Whether frames of so many bytes of payload, at the most, fit before the footer."""
        at_most = payload_sizes_bytes + frames * (frame_bytes(0) + 7)
        return self.offset + at_most + FOOTER_BYTES <= self.capacity_bytes

    def append(self, payloads: Sequence[Payload], *, fill: bool = False) -> Effect[list[int]]:
        """Write frames, each given by its type and payload, and return their offsets. They are not synced.

        With ``fill``, zeros are written ahead now and then, for small frames that will each be synced.
        Raises `StoreUnavailable` where the disk refuses, or memory is lacking: then nothing was written, and writing
        may be tried again.
        """
        self.check_healthy()
        try:
            frames = encode_frames(self.seed, self.offset, self.synced, payloads)
            data = b"".join(frames.pieces)
            if fill and frames.end > self.filled:
                data += bytes(self._zeros_after(len(data), frames.end))
        except MemoryError as error:
            raise StoreUnavailable(
                f"{self.path}: offset {self.offset}: nothing was written: {NO_MEMORY}: write less at once"
            ) from error
        try:
            yield from perform(disk.Write(self.path, self.offset, data))
        except PermissionError as error:
            # In the fork of a writer, say: it was refused before a byte was written.
            raise StoreUnavailable(f"{self.path}: offset {self.offset}: nothing was written: {error}") from error
        except OSError as error:
            yield from self._take_back(error)
        self._note(payloads, frames)
        return frames.offsets

    def _zeros_after(self, size_bytes: int, end: int) -> int:
        """How many zeros to write after so many bytes that end there.

        The first write to blocks that are only allocated makes the file system note, at the next sync, that they are
        in use. That takes a tenth of a small sync, and is done here for many frames at once.
        """
        is_small = size_bytes <= FILL_BYTES // 8
        self.filled = min(end + FILL_BYTES, self.capacity_bytes) if is_small else end
        return self.filled - end

    def _note(self, payloads: Sequence[Payload], frames: EncodedFrames) -> None:
        if payloads and payloads[-1][0] != FOOTER:
            self.digest.add(frames.pieces[::2])
        self.offset = frames.end

    def _take_back(self, error: OSError) -> Effect[None]:
        # Some of the frames may be there, whole. Were the next ones written over the first of them only, the rest
        # might follow on them as if they had been committed. So all must be gone from the disk before others come.
        try:
            yield from perform(disk.Truncate(self.path, self.offset))
            yield from perform(disk.Sync(self.path))
        except OSError as second:
            self.poison = (
                f"{self.path}: offset {self.offset}: a write failed ({error}) and could not be undone ({second})"
            )
            raise UncertainOutcome(
                f"{self.poison}: whether the commit is on the disk is not known: close the store and open it again"
            ) from error
        self.synced = self.offset
        raise StoreUnavailable(
            f"{self.path}: offset {self.offset}: nothing was written: {error}: "
            "make room or mend the disk, then try again"
        ) from error

    def sync(self) -> Effect[None]:
        """Wait until all frames written are on the disk. Where that fails, nothing is written here any more."""
        self.check_healthy()
        target = self.offset
        if self.synced == target:
            return
        try:
            yield from perform(disk.Sync(self.path))
        except OSError as error:
            # The dirty pages may have been marked clean: a second sync would succeed and prove nothing.
            self.poison = f"{self.path}: a sync failed: {error}"
            raise UncertainOutcome(
                f"{self.poison}: whether the last commit is on the disk is not known: close the store and open it again"
            ) from error
        self.synced = target

    def mark(self) -> Effect[None]:
        """Write a frame that says how far the segment is synced, so that all before it counts as proved."""
        yield from self.append([(MARK, b"")])
        yield from self.sync()

    def seal(self) -> Effect[bytes]:
        """Write the footer and sync. Returns the segment's digest."""
        digest = self.digest.value()
        yield from self.sync()
        footer = encode_footer(Footer(self.digest.frames, digest))
        yield from self.append([(FOOTER, footer)])
        yield from self.sync()
        return digest

    def check_healthy(self) -> None:
        """Refuse to go on after a failure that left the disk in doubt."""
        if self.poison is not None:
            raise StoreUnavailable(f"{self.poison}: reading goes on; to write, close the store and open it again")
