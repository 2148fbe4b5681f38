"""Answering the requests that write nothing, from the index and the frames. All are programs over `disk/*`."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any

from interpreters.stores.file.frames import LogPart, Reader, StreamPart, disagrees, offsets_in
from interpreters.stores.file.index import Index, SegmentIndex, StreamIndex, offset_of, segment_of
from interpreters.stores.file.manifest import index_path, segment_path
from interpreters.stores.ranges import page_range
from persist_effects.errors import CorruptStore, StoreUnavailable
from persist_effects.event import Event
from persist_effects.machine import Effect
from persist_effects.requests import (
    Entry,
    Hole,
    KvGet,
    KvHas,
    KvKeys,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Request,
    Streams,
)

INDEX_FILES = "the index files log/*.idx"

"""The requests that are answered here."""


class Queries:
    """The answers that an index and its segments give."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._reader = Reader(index.segments)
        self._answers: dict[type[Request[Any]], Callable[[Any], Effect[Any]]] = {
            Read: self._read,
            ReadAll: self._read_all,
            KvGet: self._get,
            LastSeq: self._last_seq,
            Streams: self._streams,
            KvHas: self._has,
            KvKeys: self._keys,
        }

    def answer(self, request: Request[Any]) -> Effect[Any]:
        """The answer to a request that writes nothing."""
        if self.index.is_changing:
            raise StoreUnavailable(
                "a commit was interrupted while it was taken into the index: close the store and open it again"
            )
        while True:
            generation = self.index.generation
            try:
                return (yield from self._answers[type(request)](request))
            except FileNotFoundError:
                # A compaction may have taken the segment away since the index was asked.
                if generation == self.index.generation:
                    raise
            except KeyError as error:
                if generation == self.index.generation:
                    raise CorruptStore(
                        f"{INDEX_FILES} point to segment {error}, which the store does not have: close the store, "
                        "remove the index files, which are then made again from the segments, and open it anew"
                    ) from error

    def _read(self, request: Read) -> Effect[Page]:
        stream = self.index.streams.get(request.stream)
        if stream is None:
            return Page([], request.after, 0)
        head = stream.last_seq
        low, high, next_seq, hole = page_range(request, stream.dropped, head)
        events = yield from self._events_between(stream, low, high)
        if request.backwards:
            events.reverse()
        return Page(events, next_seq, head, hole)

    def _events_between(self, stream: StreamIndex, low: int, high: int) -> Effect[list[Event]]:
        events: list[Event] = []
        part = StreamPart(stream.name, low, high)
        groups = offsets_in(stream.frames_between(low, high))
        for number, offsets in groups:
            events += yield from self._reader.events(number, offsets, part)
        if part.next_seq <= high:
            raise _without(part, groups)
        return events

    def _read_all(self, request: ReadAll) -> Effect[Page]:
        head = self.index.position
        hole = self._hole_after(request.after, request.prefix)
        events: list[Event] = []
        for segment, frames, positions in self.index.frames_after(request.after):
            start = 0
            while start < len(frames):
                # As many frames at once as may be wanted, so that a page costs few reads.
                until = start + request.limit + 1
                part = LogPart(request.after, request.prefix, positions[start:until])
                events += yield from self._matching(segment, frames[start:until], part, request, head)
                start = until
                if len(events) > request.limit:
                    del events[request.limit :]
                    return Page(events, events[-1].position, head, hole)
        return Page(events, max(head, request.after), head, hole)

    def _matching(
        self, segment: SegmentIndex, frames: "array[int]", part: LogPart, request: ReadAll, head: int
    ) -> Effect[list[Event]]:
        found = yield from self._reader.events(segment.number, [frame << 3 for frame in frames], part)
        streams = self.index.streams
        try:
            return [
                event
                for event in found
                if request.after < event.position <= head
                and event.stream.startswith(request.prefix)
                and (request.types is None or event.type in request.types)
                and event.seq > streams[event.stream].dropped
            ]
        except KeyError as error:
            path = index_path(segment.number)
            raise CorruptStore(
                f"{path}: expected stream {error}, of which {segment_path(segment.number)} holds events, found none: "
                f"close the store, remove {path}, which is then made again from the segment, and open it anew"
            ) from error

    def _hole_after(self, position: int, prefix: str) -> Hole | None:
        if position >= self.index.highest_dropped_position:
            return None
        for stream in self.index.streams.values():
            if stream.dropped_position > position and stream.name.startswith(prefix):
                return Hole(stream.name, stream.dropped + 1)
        return None

    def _get(self, request: KvGet) -> Effect[Entry | None]:
        found = self.index.entries.get(request.key)
        if found is None:
            return None
        ref, revision = found
        entry = yield from self._reader.entry(segment_of(ref), offset_of(ref), request.key)
        if entry is not None and entry.revision == revision:
            return entry
        expected = f"key {request.key!r} at revision {revision}"
        raise disagrees(segment_of(ref), offset_of(ref), expected, "a commit without it")

    def _last_seq(self, request: LastSeq) -> Effect[int]:
        return self.index.last_seq(request.stream)
        yield

    def _streams(self, request: Streams) -> Effect[list[str]]:
        return self.index.stream_names.page(request.prefix, request.after, request.limit)
        yield

    def _has(self, request: KvHas) -> Effect[bool]:
        return request.key in self.index.entries
        yield

    def _keys(self, request: KvKeys) -> Effect[list[str]]:
        return self.index.key_names.page(request.prefix, request.after, request.limit)
        yield


def _without(part: StreamPart, groups: Sequence[tuple[int, Sequence[int]]]) -> CorruptStore:
    """The error of an index that has fewer frames of a stream than events."""
    files = " and ".join(index_path(number) for number, _ in groups) or INDEX_FILES
    return CorruptStore(
        f"{files}: expected events of stream {part.stream!r} up to {part.high}, found none from {part.next_seq} on: "
        f"close the store, remove {files}, made again from the segments then, and open it anew"
    )
