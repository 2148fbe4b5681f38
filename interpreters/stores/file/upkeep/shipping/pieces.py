"""One segment on its way to a target, in pieces that are few and that are put once or twice."""

from collections.abc import Callable

from interpreters.disk import requests as disk
from interpreters.stores.file.format import SegmentHeader
from interpreters.stores.file.gathering import to_gather
from interpreters.stores.file.manifest import Sealed, segment_path
from interpreters.stores.file.sealed import check_digest
from interpreters.stores.file.upkeep.shipping.checking import SegmentCheck
from interpreters.stores.file.upkeep.shipping.layout import (
    PIECE_BYTES,
    Contents,
    Piece,
    SealedSegment,
    SegmentKey,
    covered_by,
)
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, perform


class SegmentShipping:
    """One segment on its way: what is read of it, checked and put."""

    def __init__(
        self,
        key: SegmentKey,
        header: SegmentHeader,
        contents: Contents,
        put: Callable[[str, bytes], Effect[None]],
        delete: Callable[[str], Effect[None]],
    ) -> None:
        self._key = key
        self._header = header
        self._contents = contents
        self._put = put
        self._delete = delete
        self.check = SegmentCheck(segment_path(key.number), header.seed)
        # The bytes from the last multiple of PIECE_BYTES on, as they were checked.
        self._cell = b""

    def seal(self, sealed: Sealed) -> Effect[SealedSegment]:
        """Put all of a sealed segment that is not there. Raises `CorruptStore` where it is not what was sealed."""
        if self.check.offset > sealed.length_bytes:
            # A recovery has cut it: what came behind is in the next segment.
            self.check, self._cell = SegmentCheck(self.check.path, self._header.seed), b""
        yield from self.advance(sealed.length_bytes, ends_frame_at=sealed.length_bytes, is_sealed=True)
        yield from perform(disk.LetGo(self.check.path))
        check_digest(self.check.path, sealed, self.check.digest.value(), self.check.checked)
        counters = self.check.counters
        return SealedSegment(
            *self._key,
            sealed.length_bytes,
            sealed.digest,
            sealed.replaced,
            counters.position,
            counters.revision,
        )

    def advance(self, until: int, *, ends_frame_at: int, is_sealed: bool = False) -> Effect[None]:
        """Put what is not there up to an offset. Raises `CorruptStore` where no frame is valid, or none ends there."""
        check = self.check
        while check.offset < until:
            start = check.offset - check.offset % PIECE_BYTES
            end = min(start + PIECE_BYTES, until)
            data = yield from perform(disk.Read(check.path, check.offset, end - check.offset))
            if len(data) < end - check.offset:
                raise CorruptStore(
                    f"{check.path}: offset {check.offset + len(data)}: expected bytes up to {until}, found the end of "
                    "the file"
                )
            self._cell = (self._cell if check.offset > start else b"") + data
            check.feed(data)
            if check.is_bad or end == ends_frame_at:
                check.finish()
            yield from self._put_cell(start, end, is_whole=end == start + PIECE_BYTES)
        if is_sealed and until % PIECE_BYTES:
            yield from self._put_cell(until - until % PIECE_BYTES, until, is_whole=True)

    def _put_cell(self, start: int, end: int, *, is_whole: bool) -> Effect[None]:
        """Have the bytes of a cell up to an offset in the target: as one piece, if it grows no more, or as a few."""
        pieces = self._contents.in_cell(self._key, start)
        if is_whole:
            if not any(one.start == start and one.end >= end for one in pieces):
                yield from self._put_piece(Piece(start, end), start)
            yield from self._delete_covered(start)
            return
        covered = max(start, self._contents.covered(self._key))
        if covered < end:
            yield from self._put_piece(Piece(covered, end), start)
        pieces = self._contents.in_cell(self._key, start)
        first = to_gather([one.end - one.start for one in pieces])
        if first is not None:
            yield from self._put_piece(Piece(pieces[first].start, end), start)
            yield from self._delete_covered(start)

    def _put_piece(self, piece: Piece, start: int) -> Effect[None]:
        yield from self._put(piece.name(self._key), self._cell[piece.start - start : piece.end - start])
        pieces = self._contents.pieces.setdefault(self._key, [])
        if piece not in pieces:
            pieces.append(piece)

    def _delete_covered(self, start: int) -> Effect[None]:
        """Delete the pieces of a cell all bytes of which another has."""
        pieces = self._contents.in_cell(self._key, start)
        for piece in pieces:
            for covered in covered_by(piece, pieces):
                if covered in self._contents.pieces[self._key]:
                    yield from self._delete(covered.name(self._key))
                    self._contents.pieces[self._key].remove(covered)
