"""Giving space back: what is still wanted of the sealed segments is copied into new ones, which then take their place.

Copying needs no lock: sealed segments never change. It judges what is wanted by the index as it is then; what is
dropped or overwritten meanwhile is copied in vain, and never the other way round. Putting the copies in force is one
manifest. A crash before it leaves the old segments, and after it the new.
"""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.compacting import Compacted, Told
from interpreters.stores.file.format import (
    COMMIT,
    ENTRY,
    EVENT,
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    Commit,
    Frame,
    Payload,
    Run,
    StoredEntry,
    announced_bytes,
    decode_commit,
    decode_entry,
    decode_frame,
    encode_commit,
)
from interpreters.stores.file.frames import READ_AHEAD_BYTES
from interpreters.stores.file.index import Index, IndexFile, SegmentIndex
from interpreters.stores.file.manifest import Sealed, segment_path
from interpreters.stores.file.places import ref_of, spot_of
from interpreters.stores.file.sealed import take_in, with_index, write_index
from interpreters.stores.file.segments import SegmentLog
from interpreters.stores.file.writer import Writer
from persist_effects.codec import decode_event
from persist_effects.errors import CorruptStore, PersistError
from persist_effects.machine import Effect, perform


class Compaction:
    """One compaction of all segments that are sealed when it begins: `copy`, then `publish`, then `remove_old`."""

    def __init__(self, index: Index, log: SegmentLog) -> None:
        self._index = index
        self._log = log
        self._old = list(log.manifest.sealed)
        # What the segment after the old ones goes on naming as the one before it.
        self._replaced = log.header.digest_before
        self._new: list[Sealed] = []
        self._copies = Index()
        self._files: list[IndexFile] = []
        # As of now, for the whole of the copying: else a stream truncated meanwhile would have a hole in its middle.
        self._states = {name: stream.state() for name, stream in index.truncated.items()}
        self._writer: Writer | None = None

    def copy(self, told: Told | None = None) -> Effect[None]:
        """Write what is wanted into new segments, and sync them. May run beside commits and reads.

        After each segment ``told`` is told how many bytes of the old ones were looked at, and how many there are.
        """
        try:
            yield from self._append([self._first_frame()])
            done, total = 0, _bytes_of(self._old)
            for sealed in self._old:
                yield from self._copy_segment(sealed)
                done += sealed.length_bytes
                if told is not None:
                    told(done, total)
            yield from self._seal()
        except GeneratorExit:
            raise
        except BaseException:
            yield from self._give_up()
            raise

    def publish(self) -> Effect[Compacted]:
        """Put the new segments in the place of the old. No commit may run beside it."""
        try:
            yield from self._log.guarded("a compaction", self._take_the_place())
        except OSError:
            # The old ones stay in force for certain.
            yield from self._give_up()
            raise
        return Compacted(_bytes_of(self._old), _bytes_of(self._new))

    def remove_old(self) -> Effect[None]:
        """Remove the old segments, which takes a while where they are large. May run beside commits and reads."""
        yield from self._log.remove(sealed.number for sealed in self._old)

    def _take_the_place(self) -> Effect[None]:
        # What made the old entries unwanted must be on the disk before they go.
        yield from self._log.sync()
        self._new[-1] = msgspec.structs.replace(self._new[-1], replaced=self._replaced)
        yield from self._log.replace(self._old, self._new)
        self._index.replace_segments([sealed.number for sealed in self._old], self._copies, self._files)

    def _give_up(self) -> Effect[None]:
        """Take away what was written. Where that cannot be done, the next opening does it."""
        with suppress(OSError, PersistError):
            yield from self._log.check_in_force()
            yield from self._log.remove(self._copies.segments)

    # What is wanted

    def _first_frame(self) -> Payload:
        """What outlives all events: high-water marks, and what was dropped."""
        index = self._index
        commit = Commit([], [], [], [], [], list(self._states.values()), index.revision, index.position)
        return COMMIT, encode_commit(commit)

    def _dropped(self, name: str) -> int:
        state = self._states.get(name)
        return 0 if state is None else state.dropped

    def _copy_segment(self, sealed: Sealed) -> Effect[None]:
        seed = self._index.segments[sealed.number].seed
        path = segment_path(sealed.number)
        offset, size_bytes = HEADER_BYTES, READ_AHEAD_BYTES
        while offset < sealed.length_bytes:
            data = yield from perform(disk.Read(path, offset, min(size_bytes, sealed.length_bytes - offset)))
            frames = _frames_in(data, seed, offset)
            if frames:
                yield from self._append([copy for frame in frames for copy in self._wanted(sealed.number, frame)])
                offset, size_bytes = frames[-1].end, READ_AHEAD_BYTES
                continue
            # Either the frame is longer than what was read, or there is none.
            needed = announced_bytes(data, 0) if len(data) >= FRAME_HEADER_BYTES else 0
            if needed <= len(data) or offset + needed > sealed.length_bytes:
                raise CorruptStore(
                    f"{path}: offset {offset}: no valid frame in a sealed segment: the store was left as it is: "
                    "restore a backup or salvage it"
                )
            size_bytes = needed

    def _wanted(self, number: int, frame: Frame) -> list[Payload]:
        """What is to be kept of a frame: nothing, the frame, or a smaller one."""
        if frame.type == EVENT:
            event = decode_event(frame.payload)
            return [(EVENT, frame.payload)] if event.seq > self._dropped(event.stream) else []
        if frame.type == ENTRY:
            entry = decode_entry(frame.payload)
            is_newest = self._is_newest(entry, ref_of(number, frame.offset))
            return [(ENTRY, frame.payload)] if is_newest else []
        if frame.type == COMMIT:
            return self._wanted_of(decode_commit(frame.payload), ref_of(number, frame.offset))
        return []

    def _is_newest(self, entry: StoredEntry, ref: int) -> bool:
        return self._index.spot(entry.key) == spot_of(ref, entry.revision)

    def _wanted_of(self, commit: Commit, ref: int) -> list[Payload]:
        entries = [entry for entry in commit.entries if self._is_newest(entry, ref)]
        runs, events = self._wanted_events(commit)
        if not entries and not runs:
            return []
        kept = Commit(runs, events, entries, [], [], [], commit.revision, commit.position)
        return [(COMMIT, encode_commit(kept))]

    def _wanted_events(self, commit: Commit) -> tuple[list[Run], list[msgspec.Raw]]:
        runs: list[Run] = []
        events: list[msgspec.Raw] = []
        start = 0
        for run in commit.runs:
            dropped = min(run.count, max(0, self._dropped(run.stream) + 1 - run.first_seq))
            if dropped < run.count:
                runs.append(Run(run.stream, run.first_seq + dropped, run.first_position + dropped, run.count - dropped))
                events += commit.events[start + dropped : start + run.count]
            start += run.count
        return runs, events

    # The copies

    def _append(self, payloads: Sequence[Payload]) -> Effect[None]:
        if not payloads:
            return
        size_bytes = sum(len(payload) for _, payload in payloads)
        writer = self._writer
        if writer is None or not writer.has_room_for(size_bytes, len(payloads)):
            yield from self._seal()
            yield from self._log.check_in_force()
            writer = self._writer = self._log.new_writer(self._new, size_bytes, len(payloads))
            self._copies.segments[writer.header.number] = SegmentIndex(writer.header.number, writer.seed, 0)
            yield from writer.create()
        offsets = yield from writer.append(payloads)
        segment = self._copies.segments[writer.header.number]
        for offset, (kind, payload) in zip(offsets, payloads, strict=True):
            take_in(self._copies, segment, Frame(offset, kind, 0, payload, 0, 0))

    def _seal(self) -> Effect[None]:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        digest = yield from writer.seal()
        number = writer.header.number
        segment = self._copies.segments[number]
        segment.length_bytes = writer.offset
        file = self._copies.seal(segment, digest)
        self._files.append(file)
        self._new.append(with_index(Sealed(number, writer.offset, digest), file))
        yield from write_index(file)
        yield from perform(disk.Truncate(writer.path, writer.offset))


def _frames_in(data: bytes, seed: int, offset: int) -> list[Frame]:
    """The valid frames at the beginning of these bytes, which stand at an offset of their segment."""
    frames: list[Frame] = []
    at = 0
    while (frame := decode_frame(data, at, seed, offset + at)) is not None:
        frames.append(frame)
        at = frame.end - offset
    return frames


def _bytes_of(seals: Sequence[Sealed]) -> int:
    return sum(sealed.length_bytes for sealed in seals)
