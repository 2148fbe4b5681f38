"""Reading frames: each is checked again before a byte of it is believed, and then to be what the index says it is.

A page is asked for as a `Part`: of one stream, or of the whole log. What is read must be the next of it, each by each.
"""

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, Protocol
from zlib import crc32

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    COMMITS,
    DECODING_ERRORS,
    ENTRY,
    EVENT,
    FRAME_HEADER_BYTES,
    Commit,
    Frame,
    announced_bytes,
    commit_in,
    decode_frame,
    decode_put,
    unpack_frame_header,
)
from interpreters.stores.file.index import SegmentIndex
from interpreters.stores.file.manifest import index_path, segment_path
from interpreters.stores.file.places import ref_of
from persist_effects.codec import decode, decode_event
from persist_effects.errors import CorruptStore
from persist_effects.event import Event
from persist_effects.machine import Effect, perform
from persist_effects.requests import Entry, ReadAll

READ_AHEAD_BYTES = 256 * 1024
"""How much is read at once where frames stand close together: some pages of usual events."""

FIRST_READ_BYTES = 1024
"""How much is read of a frame whose length is not known yet: most frames are shorter."""

CLOSE_BYTES = 8 * 1024
"""How far frames may stand from one another to be read at once: farther, a read of its own for each is quicker."""

PLACES = 256
"""Of how many frames that stand farther the beginnings are read at once."""

_KEPT_BYTES = 1024 * 1024


class Chunk:
    """Some bytes of a segment, and from where."""

    __slots__ = ("data", "number", "start")

    def __init__(self, number: int, start: int, data: bytes) -> None:
        self.number = number
        self.start = start
        self.data = data


class Seen(NamedTuple):
    """Bytes of a segment, and where in them the frames are, from the ``first`` of those that are wanted on.

    Where it ``is_spread``, the bytes are the beginnings of frames that stand far from one another, each by itself.
    """

    first: int
    data: bytes
    places: Sequence[int]
    is_spread: bool

    def has(self, index: int) -> bool:
        """Whether there is something of a frame, and no more to be had by reading on from it."""
        at = index - self.first
        return at < len(self.places) and (self.is_spread or is_whole_in(self.data, self.places[at]))


class Part(Protocol):
    """Which events are wanted, and which is the next."""

    def events_of(self, commit: Commit) -> Iterable[Event]:
        """Those of a commit, decoded."""
        ...

    def fits(self, commit: Commit, index: int) -> bool:
        """Whether a commit, found at the offset of this index, holds what is next. Goes on past it."""
        ...

    def fitting(self, events: Sequence[Event], begin: int, index: int) -> int:
        """How many of the events from ``begin`` on, found one to an offset from this index on, are next. Goes on."""
        ...

    def next_at(self, index: int) -> str:
        """What is next, for an error."""
        ...


class StreamPart:
    """The events of a stream after ``low`` through ``high``."""

    def __init__(self, stream: str, low: int, high: int) -> None:
        self.stream = stream
        self.next_seq = low + 1
        self.high = high

    def events_of(self, commit: Commit) -> Iterable[Event]:
        """Those of a commit, decoded."""
        return map(decode_event, self._wanted(commit))

    def _wanted(self, commit: Commit) -> Iterator[msgspec.Raw]:
        low, start = self.next_seq - 1, 0
        for run in commit.runs:
            if run.stream == self.stream:
                first = max(0, low + 1 - run.first_seq)
                last = min(run.count, self.high + 1 - run.first_seq)
                yield from islice(commit.events, start + first, max(start + first, start + last))
            start += run.count

    def fits(self, commit: Commit, index: int) -> bool:
        """Whether a commit goes on where the stream is. Goes on past it."""
        before = self.next_seq
        for run in commit.runs:
            if run.stream == self.stream and run.first_seq <= self.next_seq < run.first_seq + run.count:
                self.next_seq = min(run.first_seq + run.count, self.high + 1)
        return self.next_seq > before

    def fitting(self, events: Sequence[Event], begin: int, index: int) -> int:
        """How many of the events from ``begin`` on are the next ones. Goes on."""
        # Runs for every event that is read.
        stream, first = self.stream, self.next_seq
        seq = first
        for event in islice(events, begin, None) if begin else events:
            if event.seq != seq or event.stream != stream:
                break
            seq += 1
        self.next_seq = seq
        return seq - first

    def next_at(self, index: int) -> str:
        """What is next, for an error."""
        return f"event {self.next_seq} of stream {self.stream!r}"


class LogPart:
    """What a page of all streams wants of some frames.

    Args:
        request: What is asked for.
        until: Up to which position.
        enough: How many events of one commit are enough: the first ones, or the last where they are read backwards.
        dropped_of: Through which sequence number a stream was truncated.
        positions: Frame by frame, those of the first events.
    """

    def __init__(
        self, request: ReadAll, until: int, enough: int, dropped_of: Callable[[str], int], positions: Sequence[int]
    ) -> None:
        self.request = request
        self.until = until
        self.enough = enough
        self.dropped_of = dropped_of
        self.positions = positions

    def events_of(self, commit: Commit) -> Iterable[Event]:
        """Those of a commit, decoded: no more of them than are wanted."""
        types, backwards = self.request.types, self.request.backwards
        events: Iterable[Event] = map(decode_event, self._wanted(commit))
        if types is not None:
            events = (event for event in events if event.type in types)
        enough = list(islice(events, self.enough))
        return reversed(enough) if backwards else enough

    def _wanted(self, commit: Commit) -> Iterator[msgspec.Raw]:
        request, end = self.request, 0
        parts = []
        for run in commit.runs:
            start, end = end, end + run.count
            if run.stream.startswith(request.prefix):
                first = max(0, request.after + 1 - run.first_position, self.dropped_of(run.stream) + 1 - run.first_seq)
                last = min(run.count, self.until + 1 - run.first_position)
                parts.append(range(start + first, start + last))
        for part in reversed(parts) if request.backwards else parts:
            yield from map(commit.events.__getitem__, reversed(part) if request.backwards else part)

    def wanted_of(self, events: Iterable[Event]) -> list[Event]:
        """Those of some events, whatever commits they are of."""
        request, until, dropped_of = self.request, self.until, self.dropped_of
        after, prefix, types = request.after, request.prefix, request.types
        return [
            event
            for event in events
            if after < event.position <= until
            and event.stream.startswith(prefix)
            and (types is None or event.type in types)
            and event.seq > dropped_of(event.stream)
        ]

    def fits(self, commit: Commit, index: int) -> bool:
        """Whether a commit begins with the position that the index has for it."""
        return bool(commit.runs) and commit.runs[0].first_position == self.positions[index]

    def fitting(self, events: Sequence[Event], begin: int, index: int) -> int:
        """How many of the events from ``begin`` on have the positions that the index has for them."""
        # Runs for every event that is read.
        found = [event.position for event in islice(events, begin, None)]
        expected = list(self.positions[index : index + len(found)])
        if found == expected:
            return len(found)
        return next(count for count, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])

    def next_at(self, index: int) -> str:
        """What is next, for an error."""
        return f"the event at position {self.positions[index]}"


class FrameReader:
    """Reads frames of segments. It keeps the last bytes read, which never change, for the reader that goes on there."""

    def __init__(self, segments: Mapping[int, SegmentIndex]) -> None:
        self._segments = segments
        self._chunk = Chunk(0, 0, b"")
        self._commit: tuple[int, Commit] | None = None

    def events(self, number: int, offsets: Sequence[int], part: Part) -> Effect[list[Event]]:
        """The events of frames of one segment, at ascending offsets; of a commit of many, those of the part.

        Raises `CorruptStore`, naming file and offset, where a frame is damaged, or is not the next of the part.
        """
        events: list[Event] = []
        index = 0
        seen = Seen(0, b"", (), is_spread=False)
        while index < len(offsets):
            if not seen.has(index):
                seen = yield from self._seen_from(number, offsets, index)
            begin = len(events)
            stopped_at = self._take_events(number, seen, offsets, index, events)
            if stopped_at == index:
                # A commit of several, a frame longer than what was read, or damage.
                commit = yield from self.commit(number, offsets[index])
                with _decoding(number, offsets[index]):
                    events.extend(part.events_of(commit))
                if not part.fits(commit, index):
                    raise disagrees(number, offsets[index], part.next_at(index), "a commit without it")
                stopped_at += 1
            elif (count := part.fitting(events, begin, index)) < stopped_at - index:
                found = events[begin + count]
                raise disagrees(
                    number,
                    offsets[index + count],
                    part.next_at(index + count),
                    f"event {found.seq} of stream {found.stream!r} at position {found.position}",
                )
            index = stopped_at
        return events

    def _take_events(self, number: int, seen: "Seen", offsets: Sequence[int], index: int, events: list[Event]) -> int:
        """Decode frames of single events as long as they are whole in what was read; returns where it stopped."""
        data, seed = seen.data, self._segments[number].seed
        size_bytes = len(data)
        unpack, decode, append = unpack_frame_header, decode_event, events.append
        offset = offsets[index]
        try:
            for at in seen.places[index - seen.first :]:
                offset = offsets[index]
                body = at + FRAME_HEADER_BYTES
                if body > size_bytes:
                    return index
                checksum, length, kind, _ = unpack(data, at)
                stop = body + length
                end = stop + (-length & 7)
                # Copied rather than looked at, because most frames are short.
                if kind != EVENT or end > size_bytes or crc32(data[at + 4 : end], seed ^ (offset >> 3)) != checksum:
                    return index
                append(decode(data[body:stop]))
                index += 1
        except struct.error:
            # Offsets that go back, to before what was read.
            return index
        except DECODING_ERRORS as error:
            raise undecodable(number, offset, error) from error
        return index

    def _seen_from(self, number: int, offsets: Sequence[int], index: int) -> Effect["Seen"]:
        """What stands at this offset and those after it: at once where they stand close together, or each by itself."""
        chunk, offset = self._chunk, offsets[index]
        if chunk.number != number or chunk.start > offset or not is_whole_in(chunk.data, offset - chunk.start):
            end = bisect_right(offsets, offset + READ_AHEAD_BYTES, index)
            span = offsets[end - 1] - offset
            is_alone = end == index + 1 < len(offsets)
            if is_alone or span > CLOSE_BYTES * (end - index):
                places = tuple(offsets[index : index + PLACES])
                pieces = yield from perform(disk.ReadPlaces(segment_path(number), places, FIRST_READ_BYTES))
                data = b"".join([piece.ljust(FIRST_READ_BYTES, b"\0") for piece in pieces])
                return Seen(index, data, range(0, len(data), FIRST_READ_BYTES), is_spread=True)
            size_bytes = max(FIRST_READ_BYTES, min(span + FIRST_READ_BYTES, READ_AHEAD_BYTES))
            chunk = Chunk(number, offset, (yield from self._read(number, offset, size_bytes)))
        end = bisect_left(offsets, chunk.start + len(chunk.data), index)
        return Seen(index, chunk.data, [each - chunk.start for each in offsets[index:end]], is_spread=False)

    def entry(self, number: int, offset: int, key: str) -> Effect[Entry | None]:
        """What the frame at an offset puts under a key. Raises `CorruptStore`, naming file and offset."""
        chunk = self._chunk
        if chunk.number != number or not 0 <= offset - chunk.start < len(chunk.data):
            chunk = Chunk(number, offset, (yield from perform(self._read_request(number, offset, FIRST_READ_BYTES))))
            self._chunk = chunk
        try:
            encoded = single_entry_in(chunk.data, offset - chunk.start, offset, self._segments[number].seed)
            found = None if encoded is None else decode_put(encoded)
        except DECODING_ERRORS as error:
            raise undecodable(number, offset, error) from error
        if found is not None:
            return Entry(found[2], found[1]) if found[0] == key else None
        # A commit of several, a frame longer than the chunk, or damage.
        commit = yield from self.commit(number, offset)
        with _decoding(number, offset):
            return next((Entry(decode(one.value), one.revision) for one in commit.entries if one.key == key), None)

    def commit(self, number: int, offset: int) -> Effect[Commit]:
        """The commit in the frame at an offset. Raises `CorruptStore`, naming file and offset."""
        key = ref_of(number, offset)
        if self._commit is not None and self._commit[0] == key:
            return self._commit[1]
        frame = yield from self._frame(number, offset)
        with _decoding(number, offset):
            commit = commit_in(frame)
        if len(commit.events) > 1:
            # The next page is likely to want more of them.
            self._commit = (key, commit)
        return commit

    def _frame(self, number: int, offset: int) -> Effect[Frame]:
        chunk = self._chunk
        at = offset - chunk.start
        data = chunk.data
        if chunk.number != number or at < 0 or at + FRAME_HEADER_BYTES > len(data):
            data, at = (yield from self._read(number, offset, FIRST_READ_BYTES)), 0
        frame = decode_frame(data, at, self._segments[number].seed, offset)
        if frame is None and len(data) - at >= FRAME_HEADER_BYTES:
            size_bytes = announced_bytes(data, at)
            if size_bytes > len(data) - at:
                data = yield from self._read(number, offset, size_bytes)
                frame = decode_frame(data, 0, self._segments[number].seed, offset)
        if frame is None or frame.type not in COMMITS:
            raise CorruptStore(
                f"{segment_path(number)}: offset {offset}: expected a frame, found bytes that do not fit their "
                f"checksum, unless {index_path(number)} points to the wrong place: run `persist-effects verify`, "
                "and restore a backup or salvage the store"
            )
        return frame

    def _read(self, number: int, offset: int, size_bytes: int) -> Effect[bytes]:
        data = yield from perform(self._read_request(number, offset, size_bytes))
        if len(data) <= _KEPT_BYTES:
            self._chunk = Chunk(number, offset, data)
        return data

    def _read_request(self, number: int, offset: int, size_bytes: int) -> disk.Read:
        # Not past what is committed: there the bytes will change.
        left_bytes = max(0, self._segments[number].length_bytes - offset)
        return disk.Read(segment_path(number), offset, min(size_bytes, left_bytes))


def is_whole_in(data: bytes, at: int) -> bool:
    """Whether all of a frame is in these bytes, as far as it says how long it is."""
    return 0 <= at <= len(data) - FRAME_HEADER_BYTES and at + announced_bytes(data, at) <= len(data)


def disagrees(number: int, offset: int, expected: str, found: str) -> CorruptStore:
    """The error of a frame that is sound, and not the one that its segment's index says it is."""
    return CorruptStore(
        f"{segment_path(number)}: offset {offset}: expected {expected}, as the index says, found {found}: "
        f"close the store, remove {index_path(number)}, which is then made again from the segment, and open it anew"
    )


def undecodable(number: int, offset: int, error: Exception) -> CorruptStore:
    """The error of a frame that fits its checksum, and holds something else than a commit."""
    return CorruptStore(
        f"{segment_path(number)}: offset {offset}: expected a commit, found bytes that fit their checksum and are none "
        f"({error}): restore a backup or salvage the store"
    )


@contextmanager
def _decoding(number: int, offset: int) -> Iterator[None]:
    try:
        yield
    except DECODING_ERRORS as error:
        raise undecodable(number, offset, error) from error


def single_entry_in(data: bytes, at: int, offset: int, seed: int) -> bytes | None:
    """What a frame of one key holds, if it is whole in these bytes, ``at`` so many from their beginning, and sound."""
    # Runs for every `KvGet` that is not answered from memory.
    body = at + FRAME_HEADER_BYTES
    if body > len(data):
        return None
    checksum, length, kind, _ = unpack_frame_header(data, at)
    end = body + length + (-length & 7)
    if kind != ENTRY or end > len(data):
        return None
    rest = data[at + 4 : end]
    return rest[12 : 12 + length] if crc32(rest, seed ^ (offset >> 3)) == checksum else None


def offsets_in(refs: "array[int]") -> "list[tuple[int, list[int]]]":
    """Refs as offsets, by segment, in their order; a frame that stands there twice is read once."""
    groups: list[tuple[int, list[int]]] = []
    last = -1
    for ref in refs:
        if ref == last:
            continue
        last = ref
        number = ref >> 32
        if not groups or groups[-1][0] != number:
            groups.append((number, []))
        groups[-1][1].append((ref & 0xFFFFFFFF) << 3)
    return groups
