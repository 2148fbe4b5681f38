"""The bytes of a segment, in any portions: whether all frames are valid, and what they count up to."""

import msgspec

from interpreters.stores.file.format import (
    COMMIT,
    DECODING_ERRORS,
    ENTRY,
    EVENT,
    FOOTER,
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    Digest,
    Frame,
    announced_bytes,
    decode_commit,
    decode_entry,
    decode_frame,
    decode_place,
)
from persist_effects.errors import CorruptStore


class Counters(msgspec.Struct):
    """The highest position and the highest revision that were given."""

    position: int = 0
    revision: int = 0

    def take(self, frame: Frame) -> None:
        """Go on past a frame. Raises one of DECODING_ERRORS where it is not a commit."""
        if frame.type == EVENT:
            self.position = max(self.position, decode_place(frame.payload).position)
        elif frame.type == ENTRY:
            self.revision = max(self.revision, decode_entry(frame.payload).revision)
        elif frame.type == COMMIT:
            commit = decode_commit(frame.payload)
            ends = [run.first_position + run.count - 1 for run in commit.runs]
            self.position = max(self.position, commit.position, *ends)
            self.revision = max(self.revision, commit.revision, *(entry.revision for entry in commit.entries))

    def take_ends(self, frames: list[Frame]) -> None:
        """Go on past all of these, which follow on one another, by the first one and the last that tell.

        The first that a compaction writes is above all that it copies; in all others the last one is.
        """
        if frames:
            self.take(frames[0])
        for tells in ({COMMIT, EVENT}, {COMMIT, ENTRY}):
            last = next((frame for frame in reversed(frames) if frame.type in tells), None)
            if last is not None:
                self.take(last)

    def take_all(self, other: "Counters") -> None:
        """Go on to where another one is, if that is further."""
        self.position = max(self.position, other.position)
        self.revision = max(self.revision, other.revision)


class SegmentCheck:
    """Takes in a segment, header and all, up to the first place where no frame is valid.

    Args:
        path: Where it stands, for errors.
        seed: Where the checksums of its frames start from.

    >>> from interpreters.stores.file.format import SegmentHeader, encode_frame, encode_header
    >>> header = SegmentHeader(bytes(16), 1, 7, 1, bytes(16))
    >>> check = SegmentCheck("log/00000001.seg", header.seed)
    >>> data = encode_header(header) + encode_frame(header.seed, 80, 2, 0, b"")
    >>> check.feed(data[:90]), len(check.feed(data[90:])), check.offset
    ([], 1, 96)
    >>> check.finish()
    """

    def __init__(self, path: str, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.offset = 0
        """How much was taken in."""
        self.checked = HEADER_BYTES
        """Where the next frame is to begin."""
        self.counters = Counters()
        self.digest = Digest()
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Take in the bytes that come next. Returns the frames that are whole now. Raises `CorruptStore`."""
        base = self.offset - len(self._rest)
        self.offset += len(data)
        data = self._rest + data if self._rest else data
        # The header is no frame; its own checksum is looked at where it is read.
        at = max(0, HEADER_BYTES - base)
        frames: list[Frame] = []
        while (frame := decode_frame(data, at, self.seed, base + at)) is not None:
            frames.append(frame)
            at = frame.end - base
        self._rest, self.checked = data[at:] if at <= len(data) else data, base + at
        self.digest.add([frame.checksum.to_bytes(4, "little") for frame in frames if frame.type != FOOTER])
        try:
            self.counters.take_ends(frames)
        except DECODING_ERRORS as error:
            raise CorruptStore(
                f"{self.path}: offset {frames[0].offset}: expected commits, found something else: {error}"
            ) from error
        return frames

    @property
    def is_bad(self) -> bool:
        """Whether a frame that is all there is not valid."""
        rest = self._rest
        return (
            len(rest) >= FRAME_HEADER_BYTES and self.checked >= HEADER_BYTES and announced_bytes(rest, 0) <= len(rest)
        )

    def finish(self) -> None:
        """Raise `CorruptStore` unless what was taken in ends with a valid frame, or the header."""
        if self.checked != self.offset:
            raise self.error()

    def error(self) -> CorruptStore:
        """That no frame is valid where the next one is to begin."""
        return CorruptStore(
            f"{self.path}: offset {self.checked}: expected a frame, found bytes that do not fit their checksum"
        )
