"""Where things are, as the index of a store has it: the frame of an entry, the frames of a stream.

A place is a *ref*: the segment's number in the upper 32 bits, the frame's offset in units of 8 bytes in the lower. What
is kept of a key, its *spot*, is its ref with its revision in the bits above. Both are one int, and most streams and all
keys are kept as few objects as can be, none of which the garbage collector has to look at: there may be millions.
"""

import sys
from array import array
from bisect import bisect_left, bisect_right

import msgspec

from interpreters.stores.file.format import StreamState

_REF_BITS = 64
_REF_MASK = (1 << _REF_BITS) - 1


def ref_of(number: int, offset: int) -> int:
    """The ref of the frame at an offset of a segment."""
    return number << 32 | offset >> 3


def segment_of(ref: int) -> int:
    """The number of the segment that a ref points into."""
    return ref >> 32


def offset_of(ref: int) -> int:
    """The offset in its segment that a ref points at."""
    return (ref & 0xFFFFFFFF) << 3


def spot_of(ref: int, revision: int) -> int:
    """What the index keeps of a key: the frame that put it, and its revision."""
    return revision << _REF_BITS | ref


def ref_in(spot: int) -> int:
    """The ref of a key's frame."""
    return spot & _REF_MASK


def revision_in(spot: int) -> int:
    """The revision of a key."""
    return spot >> _REF_BITS


def array_of(data: bytes | memoryview) -> "array[int]":
    """The refs, sequence numbers or positions that an index file holds as bytes."""
    values = array("Q")
    values.frombytes(data)
    return values


class _Frames(msgspec.Struct, gc=False, eq=False):
    """The frames of a stream, and what it has lost. ``firsts`` is None as long as each ref stands for one event."""

    refs: "array[int]"
    firsts: "array[int] | None" = None
    first_seq: int = 1
    dropped: int = 0
    dropped_position: int = 0

    def add(self, ref: int, first_seq: int, count: int) -> None:
        if not self.refs:
            self.first_seq, self.firsts = first_seq, None
        if count != 1 and self.firsts is None:
            self.firsts = array("Q", range(self.first_seq, self.first_seq + len(self.refs)))
        if self.firsts is not None:
            self.firsts.append(first_seq)
        self.refs.append(ref)

    def extend(self, refs: "array[int]", firsts: "array[int] | None", first_seq: int) -> None:
        if not refs:
            return
        if not self.refs:
            self.first_seq, self.firsts = first_seq, None
        if firsts is not None or self.firsts is not None:
            mine = self.firsts
            if mine is None:
                mine = array("Q", range(self.first_seq, self.first_seq + len(self.refs)))
            mine.extend(array("Q", range(first_seq, first_seq + len(refs))) if firsts is None else firsts)
            self.firsts = mine
        self.refs.extend(refs)

    def drop(self, seq: int, position: int, last_seq: int) -> None:
        self.dropped, self.dropped_position = seq, max(self.dropped_position, position)
        self.forget_through(seq, last_seq)

    def forget_through(self, seq: int, last_seq: int) -> None:
        """Take out the frames that hold no event after ``seq``."""
        if seq >= last_seq:
            count = len(self.refs)
        elif self.firsts is None:
            count = max(0, min(len(self.refs), seq - self.first_seq + 1))
        else:
            count = max(0, bisect_right(self.firsts, seq + 1) - 1)
        del self.refs[:count]
        if self.firsts is not None:
            del self.firsts[:count]
            self.first_seq = self.firsts[0] if self.firsts else seq + 1
        else:
            self.first_seq += count

    def between(self, low: int, high: int) -> "array[int]":
        if self.firsts is None:
            return self.refs[max(0, low + 1 - self.first_seq) : max(0, high + 1 - self.first_seq)]
        return self.refs[max(0, bisect_right(self.firsts, low + 1) - 1) : bisect_right(self.firsts, high)]

    def after(self, count: int) -> "tuple[array[int], array[int] | None, int]":
        """The frames after the first so many, their first events, and the first of all."""
        if self.firsts is None:
            return self.refs[count:], None, self.first_seq + count
        firsts = self.firsts[count:]
        return self.refs[count:], firsts, firsts[0] if firsts else 0


class StreamIndex(msgspec.Struct, gc=False, eq=False):
    """Where a stream's events are.

    ``frames`` is a ref where the stream has only ever had its first event, by itself in its commit or not; 0: no event.
    """

    name: str
    last_seq: int = 0
    last_position: int = 0
    frames: int | _Frames = 0

    @property
    def refs(self) -> "array[int]":
        """The frames that hold its events, in their order."""
        frames = self.frames
        return frames.refs if isinstance(frames, _Frames) else array("Q", (frames,) if frames else ())

    @property
    def dropped(self) -> int:
        """The events through this one are gone."""
        frames = self.frames
        return frames.dropped if isinstance(frames, _Frames) else 0

    @property
    def dropped_position(self) -> int:
        """The position of the last event that is gone."""
        frames = self.frames
        return frames.dropped_position if isinstance(frames, _Frames) else 0

    def _table(self) -> _Frames:
        if not isinstance(self.frames, _Frames):
            self.frames = _Frames(self.refs)
        return self.frames

    def add(self, ref: int, first_seq: int, count: int, last_position: int) -> None:
        """Note that the next events, ``count`` of them, are in this frame."""
        if self.frames == 0 and first_seq == count == 1:
            self.frames = ref
        else:
            self._table().add(ref, first_seq, count)
        self.last_seq = first_seq + count - 1
        self.last_position = last_position

    def extend(self, refs: bytes | memoryview, firsts: bytes | memoryview | None, first_seq: int) -> None:
        """Note frames of a sealed segment, all at once, as its index file has them."""
        if len(refs) == 8 and firsts is None and self.frames == 0 and first_seq == 1:
            self.frames = int.from_bytes(refs, sys.byteorder)
        elif refs:
            self._table().extend(array_of(refs), None if firsts is None else array_of(firsts), first_seq)

    def drop(self, seq: int, position: int) -> None:
        """Forget the events through ``seq``."""
        if seq > self.dropped:
            self._table().drop(seq, position, self.last_seq)

    def frames_between(self, low: int, high: int) -> "array[int]":
        """The refs of the frames that hold the events after ``low`` through ``high``, which are there."""
        frames = self.frames
        if low >= high or not frames:
            return array("Q")
        if isinstance(frames, _Frames):
            return frames.between(low, high)
        return array("Q", (frames,) if low < 1 else ())

    def frames_in(self, number: int) -> "tuple[array[int], array[int] | None, int]":
        """What an index file has of the newest segment: the frames there, their first events, and the first of all."""
        frames = self._table() if self.frames == 0 else self.frames
        if isinstance(frames, _Frames):
            return frames.after(bisect_left(frames.refs, True, key=lambda ref: segment_of(ref) == number))
        return (self.refs, None, 1) if segment_of(frames) == number else (array("Q"), None, 2)

    def replace_front(self, gone: set[int], copy: "StreamIndex | None") -> None:
        """Put the frames of ``copy`` in the place of those in segments that are gone, which are the first."""
        mine = self.frames
        if not isinstance(mine, _Frames):
            if segment_of(mine) in gone:
                assert copy is not None, "a stream that has lost no event is copied"
                self.frames = copy.frames
            return
        count = bisect_left(mine.refs, True, key=lambda ref: segment_of(ref) not in gone)
        if not count:
            return
        later = _Frames(array("Q"), dropped=mine.dropped, dropped_position=mine.dropped_position)
        if copy is not None:
            later.extend(*copy._table().after(0))
        later.extend(*mine.after(count))
        # What was dropped while it was copied.
        later.forget_through(mine.dropped, self.last_seq)
        self.frames = later

    def state(self) -> StreamState:
        """What compaction must keep of it beside the events."""
        return StreamState(self.name, self.last_seq, self.last_position, self.dropped, self.dropped_position)
