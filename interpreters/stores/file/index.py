"""Where everything is: the in-memory index of a store, and the index files that make opening quick.

An event of a stream costs its ref, 8 bytes, and an entry in its segment's table of frames, 4 bytes; where many events
share a frame, both are shared. Of the sealed segments, streams and keys are taken in as they are asked for.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from interpreters.stores.file.format import Commit, Count, Drop, EventPlace, StoredEntry, StreamState
from interpreters.stores.file.kinds import FrameKinds, Kind
from interpreters.stores.file.places import StreamIndex, array_of, ref_of, revision_in, spot_of
from interpreters.stores.file.tables import (
    IndexedStream,
    KeyColumns,
    KeyTable,
    StreamColumns,
    StreamTable,
    Tables,
    key_columns,
    stream_columns,
)
from interpreters.stores.names import SortedNames
from interpreters.stores.waiting import Revisions
from persist_effects.event import Event
from persist_effects.requests import KvEntries, KvKeys, KvWait, ReadAll, Request, Streams, Wait


class StagedCommit(NamedTuple):
    """A commit that is written: but for its events, of which the index wants to know their types only."""

    commit: Commit
    kind: Kind


Content = Event | StoredEntry | StagedCommit
"""What is to be known of a frame: of the one event or key in it where that belongs, or the commit."""


class SegmentIndex:
    """A segment, and where in it the frames are that hold events, in the order of their positions."""

    def __init__(self, number: int, seed: int, length_bytes: int) -> None:
        self.number = number
        # Its place among the segments.
        self.rank = 0
        self.seed = seed
        self.length_bytes = length_bytes
        self.frames = array("I")
        # The first position in each frame; None as long as there is one event in each, one after the other.
        self.positions: array[int] | None = None
        self.kinds = FrameKinds()
        self.first_position = 0
        self.last_position = 0
        # What the segment says of streams and keys, for its index file: kept while it is active.
        self.streams: set[str] = set()
        self.keys: dict[str, bool] = {}
        self.drops: list[Drop] = []
        self.states: list[StreamState] = []

    def place_of(self, frame: int) -> int:
        """A number by which frames are in the order of the log. The frame is given as `frames` has it."""
        return self.rank << 32 | frame

    def forget_contents(self) -> None:
        """What the segment says of streams and keys is in its index file."""
        self.streams, self.keys, self.drops, self.states = set(), {}, [], []

    def add_frame(self, offset: int, first: int, last: int, kind: Kind) -> None:
        """Note a frame that holds the events of these positions, and of which types they are."""
        frames = self.frames
        if not frames:
            self.first_position = first
        if self.positions is None and (first != last or first != self.first_position + len(frames)):
            self.positions = array("Q", range(self.first_position, self.first_position + len(frames)))
        if self.positions is not None:
            self.positions.append(first)
        frames.append(offset >> 3)
        self.kinds.add(kind)
        self.last_position = last

    # Frames by their numbers, from 0 on.

    def frames_between(self, after: int, until: int) -> range:
        """Which frames may hold an event past a position up to another."""
        if after >= self.last_position or until < self.first_position:
            return range(0)
        if self.positions is None:
            first = self.first_position
            return range(max(0, after + 1 - first), min(len(self.frames), until + 1 - first))
        return range(max(0, bisect_right(self.positions, after + 1) - 1), bisect_right(self.positions, until))

    def first_frames(self, frames: range, after: int, events: int) -> range:
        """The first of these frames, with so many events past a position, if there are so many; one at the least."""
        if self.positions is None:
            return frames[:events]
        wanted = max(self.positions[frames[0]], after + 1) + events
        return frames[: max(1, bisect_left(self.positions, wanted, frames.start, frames.stop) - frames.start)]

    def last_frames(self, frames: range, until: int, events: int) -> range:
        """The last of these frames, with so many events up to a position, if there are so many; one at the least."""
        if self.positions is None:
            return frames[-events:]
        end = self.last_position if frames.stop == len(self.frames) else self.positions[frames.stop] - 1
        wanted = min(end, until) + 1 - events
        return frames[max(0, bisect_right(self.positions, wanted, frames.start, frames.stop) - 1 - frames.start) :]

    def offsets_of(self, frames: Sequence[int]) -> list[int]:
        """Where these frames stand."""
        some = (
            self.frames[frames.start : frames.stop]
            if isinstance(frames, range)
            else map(self.frames.__getitem__, frames)
        )
        return [place << 3 for place in some]

    def positions_of(self, frames: Sequence[int]) -> Sequence[int]:
        """The positions of the first events in these frames."""
        positions = self.positions
        if not isinstance(frames, range):
            return [self.first_position + frame if positions is None else positions[frame] for frame in frames]
        if positions is None:
            return range(self.first_position + frames.start, self.first_position + frames.stop)
        return positions[frames.start : frames.stop]

    def frame_at(self, place: int) -> int | None:
        """Which frame stands at an offset, in units of 8 bytes; None where none does."""
        frame = bisect_left(self.frames, place)
        return frame if frame < len(self.frames) and self.frames[frame] == place else None

    def position_at(self, place: int) -> int:
        """The position of the first event in the frame at an offset, in units of 8 bytes; 0 where there is none."""
        frame = self.frame_at(place)
        if frame is None:
            return 0
        return self.first_position + frame if self.positions is None else self.positions[frame]

    def count_at(self, place: int) -> int:
        """How many events the frame at an offset holds, in units of 8 bytes; more where some were dropped after it."""
        positions = self.positions
        frame = None if positions is None else self.frame_at(place)
        if positions is None or frame is None:
            return 1
        end = self.last_position + 1 if frame + 1 == len(positions) else positions[frame + 1]
        return end - positions[frame]


class SegmentGone(LookupError):
    """A segment was asked for that the store does not have, or has no more: a compaction may have taken it away."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Segments(dict[int, SegmentIndex]):
    """The segments by their numbers, in the order of the log, which compaction makes another than that of numbers."""

    def __missing__(self, number: int) -> SegmentIndex:
        raise SegmentGone(number)

    def __setitem__(self, number: int, segment: SegmentIndex) -> None:
        segment.rank = next(reversed(self.values())).rank + 1 if self else 0
        super().__setitem__(number, segment)

    def place_of(self, ref: int) -> int:
        """A number by which refs are in the order of the log."""
        return self[ref >> 32].place_of(ref & 0xFFFFFFFF)


class IndexFile(msgspec.Struct, frozen=True, array_like=True):
    """The contents of a sealed segment's index file. ``digest`` is the segment's, which binds the two."""

    number: Count
    digest: bytes
    seed: Count
    frames: bytes
    positions: bytes | None
    kinds: list[Kind]
    kinds_of_frames: bytes | None
    first_position: Count
    last_position: Count
    streams: StreamColumns
    keys: KeyColumns
    drops: list[Drop]
    states: list[StreamState]
    revision: Count
    position: Count

    def check(self) -> None:
        """Raise ValueError where what it says cannot be."""
        self.stream_table()
        self.key_table()

    def stream_table(self) -> StreamTable:
        """What it says of streams. Raises ValueError where that cannot be."""
        return StreamTable(self.number, self.streams)

    def key_table(self) -> KeyTable:
        """What it says of keys. Raises ValueError where that cannot be."""
        return KeyTable(self.keys)


OF_ALL_NAMES = frozenset[type[Request[Any]]]({Streams, ReadAll, Wait, KvKeys, KvEntries, KvWait})
"""The kinds of requests whose answers may need all names."""

LAST_POSITION, DROPPED_POSITION = attrgetter("last_position"), attrgetter("dropped_position")


class Index:
    """Streams, keys and segments of a store, as far as they are committed."""

    def __init__(self) -> None:
        # Those that were asked for, or changed, since the store was opened; of others the tables know.
        self._streams: dict[str, StreamIndex] = {}
        self._stream_tables = Tables(self._streams)
        self._stream_names = SortedNames(self._streams, LAST_POSITION)
        self.truncated: dict[str, StreamIndex] = {}
        self.truncated_names = SortedNames(self.truncated, DROPPED_POSITION)
        self._spots: dict[str, int] = {}
        self._key_tables = Tables(self._spots)
        self._key_names = SortedNames(self._spots, revision_in)
        self.segments = Segments()
        self.revisions = Revisions(self._newest_put)
        self.position = 0
        self.revision = 0
        # Grows when segments are replaced, so that a reader on its way to an old one can begin anew.
        self.generation = 0
        # Grows when refs are taken out from among others, which then stand elsewhere.
        self.shape = 0
        # Stays so where an interrupt ended a change half-way: nobody is shown half of a commit.
        self.is_changing = False

    # Questions

    def stream(self, name: str) -> StreamIndex | None:
        """A stream, or None if there never was one of this name."""
        stream = self._streams.get(name)
        if stream is None and not self._stream_tables.are_taken_in:
            stream = self._stream_tables.take(name)
        return stream

    def knows_all(self, names: set[str]) -> bool:
        """Whether there are streams of all these names."""
        return all(map(self.stream, names.difference(self._streams)))

    def spot(self, key: str) -> int | None:
        """The spot of a key, or None if it is absent."""
        spot = self._spots.get(key)
        if spot is None and not self._key_tables.are_taken_in:
            spot = self._key_tables.take(key)
        return spot

    def spot_without_lock(self, key: str) -> int | None:
        """The same, asked while others change the index. Raises LookupError where that takes the lock."""
        spot = self._spots.get(key)
        # In this order: what was found in the middle of a commit is not shown before all of that is. And what was not
        # found may have been taken in meanwhile, with all the rest.
        if self.is_changing or (spot is None and (not self._key_tables.are_taken_in or key in self._spots)):
            raise LookupError(key)
        return spot

    def take_in_names(self, request: Request[Any]) -> bool:
        """Take in a slice of the names of which an answer needs all. Returns whether some are left.

        Whoever answers may let others in between two slices; what was not taken in before, the answer itself takes in.
        """
        if isinstance(request, Streams) or (isinstance(request, ReadAll | Wait) and request.prefix):
            return self._stream_tables.take_slice()
        if isinstance(request, KvKeys | KvEntries) or (isinstance(request, KvWait) and request.prefix):
            return self._key_tables.take_slice()
        return False

    @property
    def stream_names(self) -> SortedNames[StreamIndex]:
        """The names of all streams, by their last positions."""
        self._stream_tables.take_all()
        return self._stream_names

    @property
    def key_names(self) -> SortedNames[int]:
        """All keys, by their revisions."""
        self._key_tables.take_all()
        return self._key_names

    @property
    def stream_count(self) -> int:
        """How many streams there are."""
        self._stream_tables.take_all()
        return len(self._streams)

    def last_seq(self, name: str) -> int:
        """The high-water mark of a stream."""
        stream = self.stream(name)
        return 0 if stream is None else stream.last_seq

    def revision_of(self, key: str) -> int:
        """The revision of a key, 0 if it is absent."""
        spot = self.spot(key)
        return 0 if spot is None else revision_in(spot)

    def newest(self, request: Wait | KvWait) -> int:
        """The newest position, or revision, under the prefix of a wait."""
        return (self.newest_revision if type(request) is KvWait else self.newest_position)(request.prefix)

    def newest_revision(self, prefix: str) -> int:
        """The newest revision of a key under a prefix, that of a deletion too; perhaps too high, never too low."""
        return self.revisions.newest(prefix) if prefix else self.revision

    def _newest_put(self, prefix: str) -> int:
        return self.key_names.newest(prefix)

    def last_change_of(self, key: str) -> int:
        """The revision of a key, or of its deletion; perhaps too high, never too low."""
        return self.revision_of(key) or self.revisions.of_deleted(key)

    def newest_position(self, prefix: str) -> int:
        """The position of the newest event ever appended under a prefix."""
        return self.stream_names.newest(prefix) if prefix else self.position

    # Commits

    def expect(self, frames: int) -> None:
        """Say that so many frames are about to be taken in, one by one, or were already, and that more are to come."""
        self._stream_tables.expect(frames)
        self._key_tables.expect(frames)

    def take_in(self, segment: SegmentIndex, offsets: Sequence[int], contents: Sequence[Content]) -> None:
        """Take in what frames at these offsets say. They are on the disk as far as the store promises."""
        self.is_changing = True
        for offset, content in zip(offsets, contents, strict=True):
            if isinstance(content, Event):
                self.add_event(segment, offset, content)
            elif isinstance(content, StoredEntry):
                self.add_entry(segment, offset, content)
            else:
                self.apply(segment, offset, content.commit, content.kind)
        self.is_changing = False

    def add_event(self, segment: SegmentIndex, offset: int, event: Event | EventPlace) -> None:
        """Take in a frame of one event: what `apply` does for the commit that stores write most."""
        name, position = event.stream, event.position
        segment.add_frame(offset, position, position, (event.type,))
        segment.streams.add(name)
        stream = self._streams.get(name)
        if stream is None or self._stream_names.is_ranked:
            stream = self._stream(name)
        stream.add(segment.number << 32 | offset >> 3, event.seq, 1, position)
        # Compaction notes the newest position of all before the events that are left.
        self.position = max(self.position, position)

    def add_entry(self, segment: SegmentIndex, offset: int, entry: StoredEntry) -> None:
        """Take in a frame of one key that was put, likewise."""
        key, revision = entry.key, entry.revision
        segment.keys[key] = True
        self._put(key, segment.number << 32 | offset >> 3, revision)
        self.revision = max(self.revision, revision)

    def apply(self, segment: SegmentIndex, offset: int, commit: Commit, kind: Kind) -> None:
        """Take in what a frame says. It is on the disk as far as the store promises."""
        ref = ref_of(segment.number, offset)
        for state in commit.states:
            self._apply_state(segment, state)
        if commit.runs:
            last_run = commit.runs[-1]
            last_position = last_run.first_position + last_run.count - 1
            segment.add_frame(offset, commit.runs[0].first_position, last_position, kind)
        for run in commit.runs:
            segment.streams.add(run.stream)
            stream = self._stream(run.stream)
            stream.add(ref, run.first_seq, run.count, run.first_position + run.count - 1)
        for entry in commit.entries:
            segment.keys[entry.key] = True
            self._put(entry.key, ref, entry.revision)
        for key in commit.deleted:
            segment.keys[key] = False
            self.revisions.deleted(key, commit.revision)
            self._delete(key)
        for drop in commit.drops:
            segment.drops.append(drop)
            self._drop(drop.stream, drop.seq, drop.position)
        self.position = max(self.position, commit.position)
        self.revision = max(self.revision, commit.revision)

    def _stream(self, name: str) -> StreamIndex:
        """The stream of a name, which is about to come further."""
        stream = self.stream(name)
        if stream is None or self._stream_names.is_ranked:
            self._stream_names.note(name)
        if stream is None:
            stream = self._streams[name] = StreamIndex(name)
        return stream

    def _put(self, key: str, ref: int, revision: int) -> None:
        if self._key_names.is_ranked or key not in self._spots:
            self._key_names.note(key)
        self._spots[key] = spot_of(ref, revision)

    def _delete(self, key: str) -> None:
        self._key_names.note(key)
        self._key_tables.note_gone(key)
        self._spots.pop(key, None)

    def _drop(self, name: str, seq: int, position: int) -> None:
        stream = self._stream(name)
        if seq > stream.dropped:
            self.truncated_names.note(name)
            self.truncated[name] = stream
            stream.drop(seq, position)
            self.shape += 1

    def _apply_state(self, segment: SegmentIndex, state: StreamState) -> None:
        segment.states.append(state)
        stream = self._stream(state.stream)
        stream.last_seq = max(stream.last_seq, state.last_seq)
        stream.last_position = max(stream.last_position, state.last_position)
        self._drop(state.stream, state.dropped, state.dropped_position)

    # Compaction

    def replace_segments(self, old: Sequence[int], copies: "Index", files: Sequence[IndexFile]) -> None:
        """Put the segments of ``copies``, of which these are the index files, in the place of the first of the log.

        All segments that were there when the store was opened are among the old ones.
        """
        self.is_changing = True
        gone = set(old)
        rest = {number: segment for number, segment in self.segments.items() if number not in gone}
        self.segments.clear()
        for number, segment in (copies.segments | rest).items():
            self.segments[number] = segment
        # What was not asked for yet is now where the copies have it.
        self._stream_tables.replace([file.stream_table() for file in files])
        self._key_tables.replace([file.key_table() for file in files])
        for name, stream in self._streams.items():
            stream.replace_front(gone, copies.stream(name))
        for key, spot in copies._spots.items():
            # One that was overwritten or deleted meanwhile was copied in vain.
            if self.revision_of(key) == revision_in(spot):
                self._spots[key] = spot
        self.generation += 1
        self.shape += 1
        self.is_changing = False

    # Index files

    def seal(self, segment: SegmentIndex, digest: bytes) -> IndexFile:
        """Take the active segment for sealed, and return what its index file says. The next one starts empty."""
        file = self.describe(segment, digest)
        segment.forget_contents()
        return file

    def describe(self, segment: SegmentIndex, digest: bytes) -> IndexFile:
        """What the index file of the active segment says if it is sealed now."""
        spots = self._spots
        return IndexFile(
            segment.number,
            digest,
            segment.seed,
            segment.frames.tobytes(),
            None if segment.positions is None else segment.positions.tobytes(),
            list(segment.kinds.all()),
            segment.kinds.of_frames(),
            segment.first_position,
            segment.last_position,
            stream_columns(self._indexed_stream(name, segment.number) for name in sorted(segment.streams)),
            key_columns((key, spots[key] if segment.keys[key] else 0) for key in sorted(segment.keys)),
            segment.drops,
            segment.states,
            self.revision,
            self.position,
        )

    def _indexed_stream(self, name: str, number: int) -> IndexedStream:
        stream = self._streams[name]
        refs, firsts, first_seq = stream.frames_in(number)
        encoded = None if firsts is None else firsts.tobytes()
        return IndexedStream(name, refs.tobytes(), encoded, first_seq, stream.last_seq, stream.last_position)

    def load(self, file: IndexFile, length_bytes: int) -> None:
        """Take in a sealed segment by its index file, in the order of the log.

        Raises ValueError where that cannot be an index.
        """
        segment = SegmentIndex(file.number, file.seed, length_bytes)
        segment.frames.frombytes(file.frames)
        if file.positions is not None:
            segment.positions = array_of(file.positions)
            if len(segment.positions) != len(segment.frames):
                raise ValueError(f"{len(segment.positions)} positions of {len(segment.frames)} frames")
        segment.kinds = FrameKinds(file.kinds, file.kinds_of_frames, len(segment.frames))
        segment.first_position, segment.last_position = file.first_position, file.last_position
        self.segments[file.number] = segment
        for state in file.states:
            self._apply_state(segment, state)
        segment.forget_contents()
        # Before the events: the refs are what was left after the drops, and may not follow on those that went.
        for drop in file.drops:
            self._drop(drop.stream, drop.seq, drop.position)
        self._stream_tables.add(file.stream_table())
        self._key_tables.add(file.key_table())
        self.position = max(self.position, file.position)
        self.revision = max(self.revision, file.revision)
