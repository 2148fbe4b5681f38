"""Which frames a page of all streams is read from: some at a time, until the page is full."""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple

from interpreters.stores.file.index import Index, SegmentGone, SegmentIndex
from interpreters.stores.file.places import segment_of
from interpreters.stores.merging import merged, places_to_scan
from persist_effects.requests import ReadAll


class Chosen(NamedTuple):
    """Some frames of a segment, at ascending offsets, and the positions of their first events."""

    segment: SegmentIndex
    offsets: list[int]
    positions: Sequence[int]


class PageFrames:
    """The frames that may hold what a page asks for, in its order, in parts that hold about what is wanted yet.

    Between two parts the store goes on: frames are added at the end, streams are truncated, segments are replaced.
    ``wanted`` is how many events are wanted yet: one more than a page has, to know what comes next.
    """

    def __init__(self, index: Index, request: ReadAll, until: int) -> None:
        self._index = index
        self._request = request
        self._until = until
        self._backwards = bool(request.backwards)
        self._types = None if request.types is None else frozenset(request.types)
        self._generation = index.generation
        # The frame that was looked at last, by its place in the log.
        self._place: int | None = None
        # Whether all of the log was looked at.
        self._is_scanned = False
        self.wanted = request.limit + 1

    def found(self, events: int) -> None:
        """Say how many events were wanted of the last part."""
        self.wanted -= events

    def parts(self) -> Iterator[Chosen]:
        """The parts, each chosen when it is asked for."""
        index, request = self._index, self._request
        if not request.prefix:
            return self._scanned(None)
        places = places_to_scan(request, index.stream_names, index.stream_count)
        return chain(self._scanned(places), self._merged())

    def _scanned(self, places: int | None) -> Iterator[Chosen]:
        """All frames, or so many of them."""
        segments = [one for one in self._index.segments.values() if one.last_position > self._request.after]
        for segment in reversed(segments) if self._backwards else segments:
            frames = segment.frames_between(self._request.after, self._until)
            while frames and places != 0:
                some = self._some_of(segment, frames)
                if places is not None:
                    some = some[-places:] if self._backwards else some[:places]
                    places -= len(some)
                if not some:
                    break
                frames = range(frames.start, some[0]) if self._backwards else range(some[-1] + 1, frames.stop)
                yield self._looked_at(Chosen(segment, segment.offsets_of(some), segment.positions_of(some)))
        self._is_scanned = places != 0

    def _some_of(self, segment: SegmentIndex, frames: range) -> Sequence[int]:
        """The next of these frames that may hold what is wanted: about so many as hold enough of it."""
        if self._types is not None:
            return segment.kinds.holding(self._types, frames, self.wanted, backwards=self._backwards)
        if self._backwards:
            return segment.last_frames(frames, self._until, self.wanted)
        return segment.first_frames(frames, self._request.after, self.wanted)

    def _merged(self) -> Iterator[Chosen]:
        """The frames of streams under the prefix, from where the log was looked at."""
        index, request = self._index, self._request
        while not self._is_scanned:
            if self._generation != index.generation:
                # Places are others now. Whoever asks for the page begins anew.
                raise SegmentGone(next(iter(index.segments)))
            shape = index.shape
            first, last = self._places()
            if first >= last:
                return
            streams = [stream.refs for stream in index.stream_names.past(request.prefix, request.after)]
            refs = merged(streams, index.segments.place_of, first, last, backwards=self._backwards)
            # Several streams may have events in one frame.
            distinct = (ref for ref, _ in groupby(refs) if self._may_hold(ref))
            least = 1
            while shape == index.shape:
                some = list(self._enough_of(distinct, least))
                # A frame may hold mostly what is not wanted: so that there are few parts, each has more of them.
                least = min(2 * least, self.wanted)
                if not some:
                    return
                for number, of_one in groupby(some, key=segment_of):
                    yield self._looked_at(self._chosen(index.segments[number], list(of_one)))

    def _enough_of(self, refs: Iterator[int], least: int) -> Iterator[int]:
        """The next frames, ``least`` or as many as hold enough where all that they hold is wanted."""
        events = 0
        for count, ref in enumerate(refs, 1):
            yield ref
            events += self._index.segments[segment_of(ref)].count_at(ref & 0xFFFFFFFF)
            if count == self.wanted or (count >= least and events >= self.wanted):
                return

    def _may_hold(self, ref: int) -> bool:
        """Whether a frame of one of the streams may hold an event of the types that are asked for."""
        if self._types is None:
            return True
        segment = self._index.segments[segment_of(ref)]
        frame = segment.frame_at(ref & 0xFFFFFFFF)
        # Where none stands there, the index is wrong, and whoever reads it says so.
        return frame is None or segment.kinds.may_hold(self._types, frame)

    def _chosen(self, segment: SegmentIndex, refs: list[int]) -> Chosen:
        places = [ref & 0xFFFFFFFF for ref in (reversed(refs) if self._backwards else refs)]
        return Chosen(segment, [place << 3 for place in places], list(map(segment.position_at, places)))

    def _places(self) -> tuple[int, int]:
        """Between which places, the first not included, frames may hold what was not looked at yet."""
        first = last = -1
        for segment in self._index.segments.values():
            frames = segment.frames_between(self._request.after, self._until)
            if frames:
                first = segment.place_of(segment.frames[frames.start]) - 1 if first == -1 else first
                last = segment.place_of(segment.frames[frames.stop - 1])
        if self._place is None:
            return first, last
        return (first, self._place - 1) if self._backwards else (self._place, last)

    def _looked_at(self, chosen: Chosen) -> Chosen:
        offset = chosen.offsets[0 if self._backwards else -1]
        self._place = chosen.segment.place_of(offset >> 3)
        return chosen
