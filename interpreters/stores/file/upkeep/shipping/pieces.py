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
    SealedSegment,
    SegmentKey,
    SegmentPiece,
    TargetContents,
    covered_by_others,
)
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, perform

_READ_BYTES = 1024 * 1024


class SegmentShipping:
    """One segment on its way: what is read of it, checked and put.

    Each piece has whole frames, so that whatever pieces are there end with one. A *cell* is as many frames as take
    `PIECE_BYTES`, counted from the segment's beginning, or the last frames of a sealed segment: when it is whole it is
    put as one piece, in the place of the smaller ones that it had until then.
    """

    def __init__(
        self,
        key: SegmentKey,
        header: SegmentHeader,
        contents: TargetContents,
        put: Callable[[str, bytes], Effect[None]],
        delete: Callable[[str], Effect[None]],
    ) -> None:
        self._key = key
        self._header = header
        self._contents = contents
        self._put = put
        self._delete = delete
        self.check = SegmentCheck(segment_path(key.number), header.seed)
        # The bytes of the cell that is not whole yet, and where it begins.
        self._cell, self._start = bytearray(), 0

    def seal(self, sealed: Sealed) -> Effect[SealedSegment]:
        """Put all of a sealed segment that is not there. Raises `CorruptStore` where it is not what was sealed."""
        if self.check.offset > sealed.length_bytes:
            # A recovery has cut it: what came behind is in the next segment.
            self.check = SegmentCheck(self.check.path, self._header.seed)
            self._cell, self._start = bytearray(), 0
        yield from self._take_in(sealed.length_bytes)
        yield from perform(disk.LetGo(self.check.path))
        check_digest(self.check.path, sealed, self.check.digest.value(), self.check.checked)
        if self._cell:
            yield from self._put_whole(self.check.offset)
        counters = self.check.counters
        return SealedSegment(
            *self._key,
            sealed.length_bytes,
            sealed.digest,
            sealed.replaced,
            counters.position,
            counters.revision,
        )

    def advance(self, until: int) -> Effect[None]:
        """Put what is not there up to where a frame ends. Raises `CorruptStore` where no frame is valid before that."""
        yield from self._take_in(until)
        if self._cell:
            yield from self._put_tail()

    def _take_in(self, until: int) -> Effect[None]:
        """Read and check all up to an offset, and put the cells that are whole now."""
        check = self.check
        while check.offset < until:
            data = yield from perform(disk.Read(check.path, check.offset, min(_READ_BYTES, until - check.offset)))
            if not data:
                raise CorruptStore(f"{check.path}: offset {check.offset}: expected bytes up to {until}, found none")
            self._cell += data
            for frame in check.feed(data):
                if frame.end - self._start >= PIECE_BYTES:
                    yield from self._put_whole(frame.end)
            if check.is_bad:
                raise check.error()
        check.finish()

    def _put_whole(self, end: int) -> Effect[None]:
        """Have a cell that grows no more in the target as one piece, and begin the next."""
        start = self._start
        if not any(one.start == start and one.end >= end for one in self._contents.pieces_from(self._key, start)):
            yield from self._put_piece(SegmentPiece(start, end))
        yield from self._delete_covered(start)
        del self._cell[: end - start]
        self._start = end

    def _put_tail(self) -> Effect[None]:
        """Have what there is of a cell in the target as a few pieces."""
        start, end = self._start, self.check.offset
        covered = max(start, self._contents.covered(self._key))
        if covered < end:
            yield from self._put_piece(SegmentPiece(covered, end))
        pieces = self._contents.pieces_from(self._key, start)
        first = to_gather([one.end - one.start for one in pieces])
        if first is not None:
            yield from self._put_piece(SegmentPiece(pieces[first].start, end))
            yield from self._delete_covered(start)

    def _put_piece(self, piece: SegmentPiece) -> Effect[None]:
        data = memoryview(self._cell)[piece.start - self._start : piece.end - self._start].tobytes()
        yield from self._put(piece.name(self._key), data)
        self._contents.add(self._key, piece)

    def _delete_covered(self, start: int) -> Effect[None]:
        """Delete the pieces from an offset on all bytes of which another has."""
        for piece in covered_by_others(self._contents.pieces_from(self._key, start)):
            yield from self._delete(piece.name(self._key))
            self._contents.pieces[self._key].remove(piece)
