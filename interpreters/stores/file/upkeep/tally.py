"""What the frames of a log add up to: streams, keys and high-water marks, and what is missing in between.

Frames are taken in the order of the log. What contradicts what came before is a `Damage`, at the frame that does.
Gaps in a stream are judged only at the end, because a truncation that explains one may come later.
"""

from array import array
from typing import NamedTuple

from interpreters.stores.file.format import (
    COMMIT,
    COMMITS,
    DECODING_ERRORS,
    EVENT,
    Commit,
    Drop,
    Frame,
    Run,
    StoredEntry,
    StreamState,
    commit_in,
)
from interpreters.stores.file.index import IndexFile
from interpreters.stores.file.manifest import COUNT_LIMIT
from interpreters.stores.file.places import revision_in
from interpreters.stores.file.scan import Damage
from persist_effects.codec import decode, decode_event
from persist_effects.event import Event


class Gap(NamedTuple):
    """Events of a stream that are not in the log, the position of the next one, and the place of its frame."""

    first: int
    last: int
    position_after: int
    file: str
    offset: int


class Taken(NamedTuple):
    """What a frame holds that fits what came before it: events with their bytes, and entries."""

    events: list[tuple[Event, bytes]]
    entries: list[StoredEntry]


class _Content(NamedTuple):
    """All of a frame, decoded."""

    commit: Commit
    events: list[tuple[Event, bytes]]


class StreamLedger:
    """What the log says of a stream. ``seen`` is the last event met, ``last_seq`` the high-water mark."""

    __slots__ = ("dropped", "dropped_position", "first", "gaps", "last_position", "last_seq", "seen", "sizes_bytes")

    def __init__(self) -> None:
        self.seen = 0
        self.last_seq = 0
        self.last_position = 0
        self.dropped = 0
        self.dropped_position = 0
        self.gaps: list[Gap] = []
        # Of the events from `first` on that were not dropped.
        self.first = 1
        self.sizes_bytes = array("I")

    def missing(self) -> list[Gap]:
        """The gaps that no truncation explains."""
        gaps = list(self.gaps)
        if self.last_seq > self.seen:
            gaps.append(Gap(self.seen + 1, self.last_seq, self.last_position + 1, "log", 0))
        return [gap._replace(first=max(gap.first, self.dropped + 1)) for gap in gaps if gap.last > self.dropped]

    def drop(self, seq: int, position: int) -> int:
        """Note a truncation, and return how many bytes of the log it made garbage."""
        if seq <= self.dropped:
            return 0
        self.dropped, self.dropped_position = seq, max(self.dropped_position, position)
        count = max(0, seq + 1 - self.first)
        garbage_bytes = sum(self.sizes_bytes[:count])
        del self.sizes_bytes[:count]
        self.first = seq + 1
        return garbage_bytes


class KeyLedger(NamedTuple):
    """The newest entry under a key."""

    revision: int
    size_bytes: int


_NO_ENTRY = KeyLedger(0, 0)


class Ledger:
    """The sum of the frames taken so far. ``damages`` are those that contradict the frames before them."""

    def __init__(self) -> None:
        self.streams: dict[str, StreamLedger] = {}
        self.keys: dict[str, KeyLedger] = {}
        self.frames = 0
        self.events = 0
        self.position = 0
        self.revision = 0
        self.last_event_position = 0
        self.garbage_bytes = 0
        self.damages: list[Damage] = []
        self._file = ""
        self._offset = 0

    def take(self, file: str, frame: Frame) -> Taken:
        """Take in a valid frame, and return what of it counts."""
        self.frames += 1
        self._file, self._offset = file, frame.offset
        if frame.type not in COMMITS:
            return Taken([], [])
        try:
            commit, events = _content_of(frame)
        except DECODING_ERRORS as error:
            self._contradict("a commit that can be decoded", f"one that cannot: {error}")
            return Taken([], [])
        overhead_bytes = frame.end - frame.offset - len(frame.payload) if frame.type == EVENT else 0
        for state in commit.states:
            self._take_state(state)
        self._check_runs(commit, events)
        accepted = [pair for pair in events if self._take_event(pair[0], len(pair[1]) + overhead_bytes)]
        entries = [entry for entry in commit.entries if self._take_entry(entry, commit.revision)]
        for key in commit.deleted:
            self._take_deletion(key, commit.revision)
        for drop in commit.drops:
            self._take_drop(drop)
        if frame.type == COMMIT and commit.position < self.last_event_position:
            self._contradict(f"a position of at least {self.last_event_position}", f"{commit.position}")
        if frame.type != EVENT:
            self.position = max(self.position, commit.position)
        self.revision = max(self.revision, commit.revision)
        return Taken(accepted, entries)

    def take_index(self, file: IndexFile) -> list[str]:
        """Take in what a damaged segment's index knows of the lost frames; return the keys whose entries they held."""
        for state in file.states:
            self._take_state(state)
        for name, last_seq, last_position in file.stream_table().heads():
            stream = self.stream(name)
            stream.last_seq = max(stream.last_seq, last_seq)
            stream.last_position = max(stream.last_position, last_position)
        for drop in file.drops:
            self.garbage_bytes += self.stream(drop.stream).drop(drop.seq, drop.position)
        entries = []
        for key, spot in file.key_table().rows():
            if spot:
                entries.append((key, revision_in(spot)))
            else:
                self._take_deletion(key, file.revision)
        self.position, self.revision = max(self.position, file.position), max(self.revision, file.revision)
        return [key for key, revision in entries if self._revision_of(key) < revision]

    def _revision_of(self, key: str) -> int:
        return self.keys.get(key, _NO_ENTRY).revision

    def finish(self) -> None:
        """Judge what can only be judged when all frames were taken."""
        for name, stream in self.streams.items():
            for gap in stream.missing():
                self.damages.append(
                    Damage(
                        gap.file,
                        gap.offset,
                        f"events {gap.first} to {gap.last} of stream {name!r}" + (" before it" if gap.offset else ""),
                        "none of them",
                    )
                )

    def stream(self, name: str) -> StreamLedger:
        """What is known of a stream."""
        found = self.streams.get(name)
        if found is None:
            found = self.streams[name] = StreamLedger()
        return found

    def _contradict(self, expected: str, found: str) -> None:
        self.damages.append(Damage(self._file, self._offset, expected, found))

    def _check_runs(self, commit: Commit, events: list[tuple[Event, bytes]]) -> None:
        count = sum(run.count for run in commit.runs)
        if count != len(events):
            self._contradict(f"{count} events, as the commit says", f"{len(events)}")
            return
        places = [
            (run.stream, run.first_seq + index, run.first_position + index)
            for run in commit.runs
            for index in range(run.count)
        ]
        found = [(event.stream, event.seq, event.position) for event, _ in events]
        if places != found:
            self._contradict(f"events {_shortened(places)}, as the commit says", _shortened(found))

    def _take_event(self, event: Event, size_bytes: int) -> bool:
        if not (0 < event.seq < COUNT_LIMIT and event.position < COUNT_LIMIT):
            self._contradict("an event that can be", f"event {event.seq} at position {event.position}")
            return False
        stream = self.stream(event.stream)
        if event.position <= self.last_event_position:
            self._contradict(f"a position after {self.last_event_position}", f"{event.position}")
            return False
        if event.seq <= stream.seen:
            self._contradict(
                f"event {stream.seen + 1} of stream {event.stream!r}", f"event {event.seq}, which was there before"
            )
            return False
        if event.seq > stream.seen + 1:
            stream.gaps.append(Gap(stream.seen + 1, event.seq - 1, event.position, self._file, self._offset))
        self.events += 1
        self.last_event_position = event.position
        self.position = max(self.position, event.position)
        stream.seen = event.seq
        stream.last_seq = max(stream.last_seq, event.seq)
        stream.last_position = max(stream.last_position, event.position)
        if event.seq <= stream.dropped:
            self.garbage_bytes += size_bytes
            return True
        if not stream.sizes_bytes:
            stream.first = event.seq
        stream.sizes_bytes.append(size_bytes)
        return True

    def _take_state(self, state: StreamState) -> None:
        stream = self.stream(state.stream)
        stream.last_seq = max(stream.last_seq, state.last_seq)
        stream.last_position = max(stream.last_position, state.last_position)
        self.garbage_bytes += stream.drop(state.dropped, state.dropped_position)

    def _take_drop(self, drop: Drop) -> None:
        stream = self.stream(drop.stream)
        if drop.seq > stream.last_seq:
            self._contradict(f"a truncation of stream {drop.stream!r} through at most {stream.last_seq}", f"{drop.seq}")
        self.garbage_bytes += stream.drop(drop.seq, drop.position)

    def _take_entry(self, entry: StoredEntry, highest: int) -> bool:
        key, size_bytes = entry.key, len(entry.value) + len(entry.key)
        before = self.keys.get(key, _NO_ENTRY)
        if not before.revision < entry.revision <= highest:
            self._contradict(f"a revision of key {key!r} from {before.revision + 1} to {highest}", f"{entry.revision}")
            self.garbage_bytes += size_bytes
            return False
        self.garbage_bytes += before.size_bytes
        self.keys[key] = KeyLedger(entry.revision, size_bytes)
        return True

    def _take_deletion(self, key: str, highest: int) -> None:
        before = self.keys.get(key)
        if before is None:
            return
        if before.revision > highest:
            self._contradict(f"a deletion of key {key!r} at revision {before.revision} or later", f"one at {highest}")
            return
        self.garbage_bytes += before.size_bytes
        del self.keys[key]


def _content_of(frame: Frame) -> _Content:
    if frame.type == EVENT:
        event = decode_event(frame.payload)
        run = Run(event.stream, event.seq, event.position, 1)
        return _Content(Commit([run], [], [], [], [], [], 0, event.position), [(event, frame.payload)])
    commit = commit_in(frame)
    for entry in commit.entries:
        decode(bytes(entry.value))
    return _Content(commit, [(decode_event(bytes(raw)), bytes(raw)) for raw in commit.events])


def _shortened(places: list[tuple[str, int, int]]) -> str:
    """Some of the events, by stream, sequence number and position."""
    told = ", ".join(f"{seq} of {stream!r} at position {position}" for stream, seq, position in places[:3])
    return told + (f" and {len(places) - 3} more" if len(places) > 3 else "")
