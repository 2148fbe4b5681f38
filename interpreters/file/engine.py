"""The file engine: a store on the `disk/*` requests. It knows no system call, and runs on any disk.

Everything is a generator. Reads look into the index and read frames; writes are staged, written as frames, synced, and
only then taken into the index, so nobody is ever shown what is not yet on the disk (as far as ``sync`` says).
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from interpreters.file.compaction import Compaction
from interpreters.file.format import Commit
from interpreters.file.index import Index, SegmentIndex, StreamIndex, offset_of, segment_of
from interpreters.file.log import Log
from interpreters.file.reader import Reader, offsets_in
from interpreters.file.staging import Staging, WriteRequest
from persist_effects import codec
from persist_effects.codec import decode
from persist_effects.errors import StoreUnavailable
from persist_effects.event import Event
from persist_effects.machine import Effect
from persist_effects.requests import (
    Answered,
    Append,
    Entry,
    Failed,
    Hole,
    KvDelete,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    LastSeq,
    Outcome,
    Page,
    Read,
    ReadAll,
    Request,
    Streams,
    Transact,
    TruncateThrough,
)

WRITES = (Append, TruncateThrough, KvPut, KvDelete, Transact)


class Options(NamedTuple):
    """How an engine works. ``sync``: acknowledged means on the disk ("commit"), or handed to the system ("os")."""

    clock: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    holder: str
    sync: str = "commit"
    segment_bytes: int = 64 * 1024 * 1024
    payload_limit_bytes: int = codec.PAYLOAD_LIMIT_BYTES


class Engine:
    """One store, open for reading and writing. Its methods are programs over `disk/*`, one writing at a time."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.index = Index()
        self.log = Log(self.index, options.random_bytes, options.segment_bytes, options.holder)
        self._reader = Reader(self.index.segments)
        self.reads: dict[type[Request[Any]], Callable[[Any], Effect[Any]]] = {
            Read: self._read,
            ReadAll: self._read_all,
            KvGet: self._get,
            LastSeq: self._last_seq,
            Streams: self._streams,
            KvHas: self._has,
            KvKeys: self._keys,
        }

    def open(self) -> Effect[None]:
        """Take the lock, and bring the store to where it was when it was closed, or went down."""
        yield from self.log.open()

    def close(self) -> Effect[None]:
        """Seal what is open, so that the next opening finds everything proved."""
        yield from self.log.close()

    def sync(self) -> Effect[None]:
        """Bring to the disk what was written with ``sync="os"`` or ``"interval"``."""
        yield from self.log.sync()

    # Writing

    def commit(self, requests: Sequence[WriteRequest]) -> Effect[list[Outcome]]:
        """Carry out writes, each all or nothing, all with one sync; the outcome of each, in order.

        Raises where the disk refuses, and then none of them was carried out: `StoreUnavailable` if that is certain,
        `UncertainOutcome` if it is not.
        """
        staging = Staging(self.index, self._options.clock, self._options.payload_limit_bytes)
        yield from self._find_dropped_positions(requests, staging)
        outcomes: list[Outcome] = []
        for request in requests:
            try:
                if type(request) is Append:
                    answer: Any = staging.append(request)
                elif isinstance(request, Transact):
                    answer = staging.transact(request)
                else:
                    answer = staging.write(request)
                outcomes.append(Answered(answer))
            except Exception as error:
                outcomes.append(Failed(error))
        if staging.frames:
            yield from self.log.append(staging.frames, sync=self._options.sync == "commit")
        return outcomes

    def _find_dropped_positions(self, requests: Sequence[WriteRequest], staging: Staging) -> Effect[None]:
        for request in requests:
            if type(request) is Append:
                continue
            writes = request.writes if isinstance(request, Transact) else (request,)
            for write in writes:
                if isinstance(write, TruncateThrough) and (seq := staging.last_dropped(write)) is not None:
                    page = yield from self._read(Read(write.stream, seq - 1, seq))
                    staging.know_position(write.stream, seq, page.events[0].position)

    def roll_over(self) -> Effect[None]:
        """Seal the active segment."""
        yield from self.log.roll_over()

    def compaction(self) -> Compaction:
        """A compaction of what is sealed now."""
        return Compaction(self.index, self.log)

    # Reading

    def read(self, request: Request[Any]) -> Effect[Any]:
        """The answer to a request that writes nothing."""
        while True:
            generation = self.index.generation
            try:
                return (yield from self.reads[type(request)](request))
            except (FileNotFoundError, KeyError):
                # A compaction may have taken the segment away since the index was asked.
                if generation == self.index.generation:
                    raise

    def _read(self, request: Read) -> Effect[Page]:
        stream = self.index.streams.get(request.stream)
        if stream is None:
            return Page([], request.after, 0)
        dropped, head = stream.dropped, stream.last_seq
        until = head if request.until is None else min(request.until, head)
        # What is left of the range that was asked for: the events after `low`, through `high`.
        low = max(request.after, dropped)
        high = max(low, until)
        if request.backwards:
            low = max(low, high - request.limit)
            next_seq = low if low > max(request.after, dropped) else request.after
        else:
            high = min(high, low + request.limit)
            next_seq = high if high < until else max(until, request.after)
        hole = Hole(stream.name, dropped + 1) if request.after < min(dropped, until) else None
        events = yield from self._events_between(stream, low, high)
        if request.backwards:
            events.reverse()
        return Page(events, next_seq, head, hole)

    def _events_between(self, stream: StreamIndex, low: int, high: int) -> Effect[list[Event]]:
        events: list[Event] = []
        wanted = partial(_events_of, stream.name, low, high)
        for number, offsets in offsets_in(stream.frames_between(low, high)):
            events += yield from self._reader.events(number, offsets, wanted)
        return events

    def _read_all(self, request: ReadAll) -> Effect[Page]:
        head = self.index.position
        hole = self._hole_after(request.after, request.prefix)
        events: list[Event] = []
        for segment, frames in self.index.frames_after(request.after):
            start = 0
            while start < len(frames):
                # As many frames at once as may be wanted, so that a page costs few reads.
                some = frames[start : start + request.limit + 1]
                start += len(some)
                events += yield from self._matching(segment, some, request, head)
                if len(events) > request.limit:
                    del events[request.limit :]
                    return Page(events, events[-1].position, head, hole)
        return Page(events, max(head, request.after), head, hole)

    def _matching(
        self, segment: SegmentIndex, frames: "array[int]", request: ReadAll, head: int
    ) -> Effect[list[Event]]:
        wanted = partial(_events_after, request.after, request.prefix)
        found = yield from self._reader.events(segment.number, [frame << 3 for frame in frames], wanted)
        streams = self.index.streams
        return [
            event
            for event in found
            if request.after < event.position <= head
            and event.stream.startswith(request.prefix)
            and (request.types is None or event.type in request.types)
            and event.seq > streams[event.stream].dropped
        ]

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
        commit = yield from self._reader.commit(segment_of(ref), offset_of(ref))
        for entry in commit.entries:
            if entry.key == request.key and entry.revision == revision:
                return Entry(decode(bytes(entry.value)), revision)
        raise StoreUnavailable(f"key {request.key!r} at revision {revision} is not where the index says: open anew")

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


def _events_of(stream: str, low: int, high: int, commit: Commit) -> Iterable[msgspec.Raw]:
    """The events of a stream after ``low`` through ``high`` that a commit holds."""
    start = 0
    for run in commit.runs:
        if run.stream == stream:
            first = max(0, low + 1 - run.first_seq)
            last = min(run.count, high + 1 - run.first_seq)
            yield from islice(commit.events, start + first, max(start + first, start + last))
        start += run.count


def _events_after(position: int, prefix: str, commit: Commit) -> Iterable[msgspec.Raw]:
    """The events past a position of streams under a prefix that a commit holds."""
    start = 0
    for run in commit.runs:
        if run.stream.startswith(prefix):
            first = max(0, position + 1 - run.first_position)
            yield from islice(commit.events, start + first, max(start + first, start + run.count))
        start += run.count
