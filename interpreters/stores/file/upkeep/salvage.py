"""What is sound of a damaged store, in a new store. The damaged one is not changed.

The new store gives every event that it keeps the same sequence number, position, time and bytes as before, and every
key the same revision. A stream of it can have no hole. So where events of a stream are lost, those after the last
hole are kept, and those before it are left out, sound or not, and count as truncated, like those that were truncated
before. `Salvaged.events_lost` names both. Where a stream's newest events are lost, nothing tells how many they were,
unless the segment's index or a compaction noted it; their sequence numbers will be given again.

A key whose newest entry is lost has the entry before that, if it is still in the log; one whose deletion is lost is
there again. Where the segment's index is sound, `Salvaged.keys_lost` names the first, and the second are deleted. Of a
transaction, some events may be kept and others left out: each is judged by its own stream. The new store has a UUID
of its own.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.engine import Engine
from interpreters.stores.file.format import (
    HEADER_BYTES,
    Commit,
    Frame,
    StoredEntry,
    StreamState,
    decode_header,
)
from interpreters.stores.file.manifest import Manifest, Sealed, segment_path
from interpreters.stores.file.scan import Bad, Damage, Scan, Segment
from interpreters.stores.file.sealed import SEGMENT_FILE, left_out, order_damages, read_headers
from interpreters.stores.file.staging import Frames
from interpreters.stores.file.upkeep.blobs import copy_blobs
from interpreters.stores.file.upkeep.survey import BytesProgress, find_manifest, find_segment, index_of
from interpreters.stores.file.upkeep.tally import Ledger, StreamLedger
from interpreters.stores.file.upkeep.two_disks import on_target
from persist_effects.errors import CorruptStore, InvalidRequest
from persist_effects.event import Event
from persist_effects.machine import Effect, perform

_BATCH_BYTES = 1024 * 1024
_STATES_IN_A_FRAME = 500


class LostBytes(msgspec.Struct, frozen=True):
    """A part of a segment in which there is no valid frame."""

    file: str
    start: int
    end: int


class LostEvents(msgspec.Struct, frozen=True):
    """Events of a stream that the new store does not have: ``damaged``, or ``left out`` because a hole follows."""

    stream: str
    first: int
    last: int
    reason: str


class Salvaged(msgspec.Struct):
    """What was kept, and what was lost, as far as that can be known."""

    damages: list[Damage] = []
    bytes_lost: list[LostBytes] = []
    events_lost: list[LostEvents] = []
    keys_lost: list[str] = []
    blobs_lost: list[str] = []
    streams: int = 0
    events: int = 0
    keys: int = 0
    position: int = 0
    revision: int = 0
    blobs: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is known to be lost."""
        return not (self.bytes_lost or self.events_lost or self.keys_lost or self.blobs_lost)


class _Kept(msgspec.Struct, frozen=True):
    """What is kept of a stream: the events from ``first`` through ``last_seq``."""

    first: int
    last_seq: int
    dropped_position: int


def salvage_store(engine: Engine, progress: BytesProgress | None = None) -> Effect[Salvaged]:
    """Copy what is sound of the store on the first disk into an engine, not yet opened, on the second (`two_disks`).

    Raises `InvalidRequest` where there is no store, or where there is one on the second disk.
    """
    if (yield from on_target(perform(disk.List(".")))):
        raise InvalidRequest("the directory to salvage into is not empty: give a new one")
    return (yield from _Salvage(engine, progress).run())


class _Salvage:
    """Two readings: the first finds out what can be kept, the second copies it."""

    def __init__(self, engine: Engine, progress: BytesProgress | None) -> None:
        self._engine = engine
        self._progress = progress
        self._salvaged = Salvaged()
        self._segments: list[Segment] = []
        self._sealed: dict[int, Sealed] = {}
        self._ledger = Ledger()
        self._batch = Frames()
        self._batch_bytes = 0
        self._position = 0

    def run(self) -> Effect[Salvaged]:
        manifest, damages = yield from find_manifest()
        self._salvaged.damages += damages
        if manifest is not None and (yield from self._is_out_of_order(manifest)):
            # The headers of the segments know better.
            manifest = None
        if manifest is None:
            yield from self._find_segments_without_manifest()
        else:
            yield from self._find_segments(manifest)
        yield from self._survey()
        kept = {name: self._judge(name, stream) for name, stream in self._ledger.streams.items()}
        yield from on_target(self._engine.open())
        yield from self._write(kept)
        yield from on_target(self._engine.close())
        yield from self._copy_blobs()
        return self._salvaged

    def _copy_blobs(self) -> Effect[None]:
        blobs = yield from copy_blobs()
        self._salvaged.damages += blobs.damages
        self._salvaged.blobs_lost += blobs.lost
        self._salvaged.blobs = blobs.blobs

    # Finding

    def _is_out_of_order(self, manifest: Manifest) -> Effect[bool]:
        headers = yield from read_headers(manifest)
        damages = order_damages(manifest, headers)
        if not any(headers):
            damages += yield from self._damages_of_uuid(manifest)
        try:
            damage = yield from left_out(manifest, headers)
        except OSError as error:
            damage = Damage("log", 0, "the directory of the segments", str(error))
        damages += [] if damage is None else [damage]
        self._salvaged.damages += damages
        return bool(damages)

    def _find_segments(self, manifest: Manifest) -> Effect[None]:
        damages = self._salvaged.damages
        for sealed in manifest.sealed:
            self._sealed[sealed.number] = sealed
            segment = yield from find_segment(sealed.number, manifest.uuid, sealed, damages)
            # One of which nothing can be read has its place in the log too.
            empty = Segment(sealed.number, segment_path(sealed.number), 0, HEADER_BYTES, False)
            self._segments.append(segment or empty)
        if manifest.active is not None:
            segment = yield from find_segment(manifest.active, manifest.uuid, None, damages)
            self._segments += [] if segment is None else [segment]

    def _find_segments_without_manifest(self) -> Effect[None]:
        numbers = yield from self._numbers_in_log()
        uuid = yield from self._most_common_uuid(numbers)
        found: list[tuple[int, Segment]] = []
        for number in numbers:
            segment = yield from find_segment(number, uuid, None, self._salvaged.damages)
            if segment is not None:
                # Only the newest can have a torn end.
                segment = segment._replace(is_active=number == numbers[-1])
                found.append(((yield from _position_of(segment)), segment))
        # Compaction gives new numbers to what is old, so numbers do not tell the order of the log.
        self._segments = [segment for _, segment in sorted(found)]

    def _damages_of_uuid(self, manifest: Manifest) -> Effect[list[Damage]]:
        numbers = yield from self._numbers_in_log()
        uuid = yield from self._most_common_uuid(numbers)
        if uuid is None or uuid == manifest.uuid:
            return []
        return [Damage(manifest.name, 0, f"the UUID of the segments, {uuid.hex()}", manifest.uuid.hex())]

    def _numbers_in_log(self) -> Effect[list[int]]:
        names = yield from self._names_in_log()
        return sorted(int(found[1]) for found in map(SEGMENT_FILE.fullmatch, names) if found is not None)

    def _names_in_log(self) -> Effect[list[str]]:
        try:
            return (yield from perform(disk.List("log")))
        except OSError as error:
            self._salvaged.damages.append(Damage("log", 0, "the directory of the segments", str(error)))
            return []

    def _most_common_uuid(self, numbers: Iterable[int]) -> Effect[bytes | None]:
        uuids: Counter[bytes] = Counter()
        for number in numbers:
            path = segment_path(number)
            try:
                uuids[decode_header((yield from perform(disk.Read(path, 0, HEADER_BYTES))), path).uuid] += 1
            except (CorruptStore, OSError):
                continue
        return uuids.most_common(1)[0][0] if uuids else None

    # The first reading

    def _survey(self) -> Effect[None]:
        for segment in self._segments:
            is_damaged = yield from self._survey_segment(segment)
            sealed = self._sealed.get(segment.number)
            if sealed is not None and is_damaged:
                index = yield from index_of(sealed)
                self._salvaged.keys_lost += [] if index is None else self._ledger.take_index(index)
        self._salvaged.damages += self._ledger.damages

    def _survey_segment(self, segment: Segment) -> Effect[bool]:
        """Read a segment, and return whether something of it is lost."""
        lost = self._salvaged.bytes_lost
        count_before = len(lost)
        scan = Scan(segment)
        while (found := (yield from self._next(scan))) is not None:
            if isinstance(found, Bad):
                lost.append(LostBytes(segment.path, found.start, found.end))
            else:
                for frame in found:
                    self._ledger.take(segment.path, frame)
        sealed = self._sealed.get(segment.number)
        if sealed is not None and segment.end < sealed.length_bytes:
            lost.append(LostBytes(segment.path, segment.end, sealed.length_bytes))
        return len(lost) > count_before

    def _next(self, scan: Scan) -> Effect[list[Frame] | Bad | None]:
        """What a scan finds next; what cannot be read at all is damage to the segment's end."""
        bad = scan.offset
        try:
            return (yield from scan.next())
        except OSError as error:
            self._salvaged.damages.append(Damage(scan.segment.path, bad, "bytes that can be read", str(error)))
            scan.offset = scan.segment.end
            return Bad(bad, scan.offset)

    def _judge(self, name: str, stream: StreamLedger) -> _Kept:
        """What can be kept of a stream; notes what is lost."""
        missing = stream.missing()
        lost = self._salvaged.events_lost
        lost += [LostEvents(name, gap.first, gap.last, "damaged") for gap in missing]
        inner = [gap for gap in missing if gap.last <= stream.seen]
        first, dropped_position, before = stream.dropped + 1, stream.dropped_position, stream.dropped
        for gap in inner:
            if gap.first > before + 1:
                lost.append(LostEvents(name, before + 1, gap.first - 1, "left out"))
            before = gap.last
            first, dropped_position = gap.last + 1, gap.position_after - 1
        if first > stream.seen:
            # Nothing is kept, so the numbers that were given need not be given again.
            return _Kept(stream.last_seq + 1, stream.last_seq, max(dropped_position, stream.last_position))
        return _Kept(first, stream.seen, dropped_position)

    # The second reading

    def _write(self, kept: dict[str, _Kept]) -> Effect[None]:
        yield from self._write_states(kept)
        copied = Ledger()
        done_bytes, total_bytes = 0, sum(segment.end for segment in self._segments)
        for segment in self._segments:
            scan = Scan(segment)
            while (found := (yield from self._next_again(scan))) is not None:
                for frame in found:
                    taken = copied.take(segment.path, frame)
                    for event, payload in taken.events:
                        if event.seq >= kept[event.stream].first:
                            self._add_event(event, payload)
                    for entry in taken.entries:
                        self._add_entry(entry)
                yield from self._flush(_BATCH_BYTES)
                if self._progress is not None:
                    self._progress(done_bytes + scan.offset, total_bytes)
            done_bytes += segment.end
        ledger = self._ledger
        self._add_commit(Commit([], [], [], [], [], [], ledger.revision, ledger.position))
        yield from self._flush(0)
        self._salvaged.streams = len(kept)
        self._salvaged.position, self._salvaged.revision = ledger.position, ledger.revision

    def _next_again(self, scan: Scan) -> Effect[list[Frame] | None]:
        try:
            found = yield from scan.next()
        except OSError:
            return None
        return [] if isinstance(found, Bad) else found

    def _write_states(self, kept: dict[str, _Kept]) -> Effect[None]:
        streams = self._ledger.streams
        states = [
            StreamState(name, kept_.last_seq, streams[name].last_position, kept_.first - 1, kept_.dropped_position)
            for name, kept_ in kept.items()
            if kept_.first > 1
        ]
        for start in range(0, len(states), _STATES_IN_A_FRAME):
            self._add_commit(Commit([], [], [], [], [], states[start : start + _STATES_IN_A_FRAME], 0, 0))
            yield from self._flush(_BATCH_BYTES)

    def _add_event(self, event: Event, payload: bytes) -> None:
        self._batch.add_event(event, payload)
        self._batch_bytes += len(payload)
        self._salvaged.events += 1
        self._position = event.position

    def _add_entry(self, entry: StoredEntry) -> None:
        newest = self._ledger.keys.get(entry.key)
        if newest is not None and newest.revision == entry.revision:
            self._add_commit(Commit([], [], [entry], [], [], [], entry.revision, self._position))
            self._salvaged.keys += 1

    def _add_commit(self, commit: Commit) -> None:
        self._batch.add_commit(commit)
        self._batch_bytes += len(self._batch.payloads[-1][1])

    def _flush(self, over_bytes: int) -> Effect[None]:
        """Write the batch if it has become long."""
        if self._batch.payloads and self._batch_bytes >= over_bytes:
            yield from on_target(self._engine.log.append(self._batch, sync=False))
            self._batch, self._batch_bytes = Frames(), 0


def _position_of(segment: Segment) -> Effect[int]:
    """Where in the order of the log a segment belongs: the position of its first event, or what its commits say."""
    ledger = Ledger()
    scan = Scan(segment)
    while (found := (yield from scan.next())) is not None:
        for frame in [] if isinstance(found, Bad) else found:
            taken = ledger.take(segment.path, frame)
            if taken.events:
                return taken.events[0][0].position
    return ledger.position
