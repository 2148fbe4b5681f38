"""Answering the requests that write nothing, from the index and the frames. All are programs over `disk/*`."""

from collections.abc import Callable, Sequence
from typing import Any

from interpreters.stores.file.choosing import PageFrames
from interpreters.stores.file.frames import FrameReader, LogPart, StreamPart, disagrees, offsets_in
from interpreters.stores.file.index import Index, SegmentGone, SegmentIndex
from interpreters.stores.file.manifest import index_path, segment_path
from interpreters.stores.file.places import StreamIndex, offset_of, ref_in, revision_in, segment_of
from interpreters.stores.ranges import hole_after, page_range
from persist_effects.errors import CorruptStore, StoreUnavailable
from persist_effects.event import Event
from persist_effects.machine import Effect
from persist_effects.requests import (
    Entry,
    KvEntries,
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


class Queries:
    """The answers that an index and its segments give."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._reader = FrameReader(index.segments)
        self._known: dict[type[Request[Any]], Callable[[Any], Any]] = {
            LastSeq: lambda request: index.last_seq(request.stream),
            Streams: lambda request: index.stream_names.page(request.prefix, request.after, request.limit),
            KvHas: lambda request: index.spot(request.key) is not None,
            KvKeys: lambda request: index.key_names.page(request.prefix, request.after, request.limit),
        }
        self._read_from_segments: dict[type[Request[Any]], Callable[[Any], Effect[Any]]] = {
            Read: self._read,
            ReadAll: self._read_all,
            KvGet: self._get,
            KvEntries: self._entries,
        }

    def answer(self, request: Request[Any]) -> Effect[Any]:
        """The answer to a request that writes nothing."""
        if self.index.is_changing:
            raise StoreUnavailable(
                "a commit was interrupted while it was taken into the index: close the store and open it again"
            )
        known = self._known.get(type(request))
        if known is not None:
            return known(request)
        while True:
            generation = self.index.generation
            try:
                return (yield from self._read_from_segments[type(request)](request))
            except (FileNotFoundError, SegmentGone) as error:
                # Unless a compaction has taken the segment away since the index was asked.
                if generation == self.index.generation:
                    raise _without_segment(error) from error

    def _read(self, request: Read) -> Effect[Page]:
        stream = self.index.stream(request.stream)
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
        index, backwards = self.index, bool(request.backwards)
        head = index.position
        until = max(request.last_position(head), request.after)
        hole = hole_after(request.after, request.prefix, index.truncated_names) if until > request.after else None
        events: list[Event] = []
        choice = PageFrames(index, request, until)
        for segment, offsets, positions in choice.parts():
            part = LogPart(request, until, choice.wanted, self._dropped_of(segment), positions)
            found = yield from self._reader.events(segment.number, offsets, part)
            if not self._are_all_wanted(request, until, positions, found):
                found = part.wanted_of(found)
            events += reversed(found) if backwards else found
            if len(events) > request.limit:
                del events[request.limit :]
                last = events[-1].position
                return Page(events, last - 1 if backwards else last, head, hole)
            choice.found(len(found))
        return Page(events, request.after if backwards else until, head, hole)

    def _are_all_wanted(self, request: ReadAll, until: int, positions: Sequence[int], found: Sequence[Event]) -> bool:
        """Whether none of these events is to be left out, where that is known without a look at each by each."""
        if request.prefix or request.types is not None or self.index.truncated or not found:
            return False
        is_within = request.after < positions[0] and found[-1].position <= until
        return is_within and self.index.knows_all({event.stream for event in found})

    def _dropped_of(self, segment: SegmentIndex) -> Callable[[str], int]:
        """Through which sequence number a stream was truncated of which a segment holds events."""

        def dropped_of(name: str) -> int:
            stream = self.index.stream(name)
            if stream is not None:
                return stream.dropped
            path = index_path(segment.number)
            raise CorruptStore(
                f"{path}: expected stream {name!r}, of which {segment_path(segment.number)} holds events, found none: "
                f"close the store, remove {path}, which is then made again from the segment, and open it anew"
            )

        return dropped_of

    def _get(self, request: KvGet) -> Effect[Entry | None]:
        spot = self.index.spot(request.key)
        return None if spot is None else (yield from self._entry(request.key, spot))

    def _entries(self, request: KvEntries) -> Effect[list[tuple[str, Entry]]]:
        keys = self.index.key_names.page(request.prefix, request.after, request.limit)
        # All as of now, whatever is put while they are read.
        found = [(key, spot) for key in keys if (spot := self.index.spot(key)) is not None]
        entries: list[tuple[str, Entry]] = []
        for key, spot in found:
            entries.append((key, (yield from self._entry(key, spot))))
        return entries

    def _entry(self, key: str, spot: int) -> Effect[Entry]:
        ref, revision = ref_in(spot), revision_in(spot)
        entry = yield from self._reader.entry(segment_of(ref), offset_of(ref), key)
        if entry is not None and entry.revision == revision:
            return entry
        expected = f"key {key!r} at revision {revision}"
        raise disagrees(segment_of(ref), offset_of(ref), expected, "a commit without it")


def _without_segment(error: FileNotFoundError | SegmentGone) -> Exception:
    if isinstance(error, FileNotFoundError):
        return error
    return CorruptStore(
        f"{INDEX_FILES} point to segment {error.number}, which the store does not have: close the store, remove the "
        "index files, which are then made again from the segments, and open it anew"
    )


def _without(part: StreamPart, groups: Sequence[tuple[int, Sequence[int]]]) -> CorruptStore:
    """The error of an index that has fewer frames of a stream than events."""
    files = " and ".join(index_path(number) for number, _ in groups) or INDEX_FILES
    return CorruptStore(
        f"{files}: expected events of stream {part.stream!r} up to {part.high}, found none from {part.next_seq} on: "
        f"close the store, remove {files}, made again from the segments then, and open it anew"
    )
