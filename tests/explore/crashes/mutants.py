"""Wrong file engines, one mistake each, and who is to catch each of them.

A mutant is the real engine with some lines of its source replaced (`edit`), so that it goes along with the engine;
where a line is not there any more, the test fails. The first 27 are those of the list that the engine was designed by,
the others are our own. Of those that nothing can catch, the reason stands beside them.
"""
# ruff: noqa: E501 - the engine's own lines, further to the right

import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import mutant_looks as looks
import pytest
from mutant_looks import (
    ANSWER,
    ANYTHING,
    CLOSED,
    EARLY,
    HALF,
    INVARIANT,
    LOST,
    NO_DAMAGE,
    UNUSABLE,
    WRONG,
    Look,
)

from interpreters.disk import requests as disk
from interpreters.disk.files import File as _File
from interpreters.stores.file import format as formats
from interpreters.stores.file import manifest, recovery, sealed
from interpreters.stores.file.compaction import Compaction
from interpreters.stores.file.format import HEADER_BYTES, Digest
from interpreters.stores.file.frames import FrameReader
from interpreters.stores.file.gathering import Gathered
from interpreters.stores.file.index import Index, SegmentIndex
from interpreters.stores.file.segments import SegmentLog
from interpreters.stores.file.staging import Staging
from interpreters.stores.file.writer import Writer
from persist_effects import log, snapshot
from persist_effects.machine import Effect, perform

Patch = Callable[[pytest.MonkeyPatch], None]


class Mutant(NamedTuple):
    """A mistake, and the looks that it is not to survive; what is wrong then, and which class of fault shows it.

    Or why nothing can show it.
    """

    number: int
    name: str
    patch: Patch
    looks: Sequence[Look]
    kind: str = ""
    by: str = ""
    why: str = ""


def edit(function: Any, change: str) -> Patch:
    """Replace whole lines of a function's source, each group of which stands there once.

    ``change`` is written as a patch is: ``-`` goes, ``+`` comes, the others stay; ``...`` stands between two places.
    """

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(function, FunctionType)
        # Marked as a program again, it would be watched, and not the one that is called.
        source = textwrap.dedent(inspect.getsource(function)).removeprefix("@program\n")
        for place in textwrap.dedent(change).strip("\n").split("\n...\n"):
            lines = place.split("\n")
            old = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
            new = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
            assert source.count(f"\n{old}") == 1, (
                f"{function.__qualname__} has not one but {source.count(old)} of\n{old}"
            )
            source = source.replace(f"\n{old}", f"\n{new}")
        room: dict[str, Any] = {}
        exec(compile(source, f"<mutant of {function.__qualname__}>", "exec"), function.__globals__, room)
        # The code, and not the name, since other modules have imported the function.
        monkeypatch.setattr(function, "__code__", room[function.__name__].__code__)

    return patch


def both(*patches: Patch) -> Patch:
    """Several patches as one."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for one in patches:
            one(monkeypatch)

    return patch


def go_on_in_the_recovered_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the next frame where the torn tail began, as if nothing could stand behind it."""
    recover_active, start_segment = SegmentLog._recover_active, SegmentLog._start_segment
    left: dict[SegmentLog, Any] = {}

    def keep(self: SegmentLog, number: int, seals: Any) -> Effect[Any]:
        proved: list[Any] = []
        found = yield from recovery.recover(number, self.manifest.uuid, lambda _, frame: proved.append(frame))
        left[self] = found, proved
        return []
        yield from recover_active(self, number, seals)

    def go_on(self: SegmentLog, seals: Any, copied: Any, epoch: int, *room: int) -> Effect[None]:
        recovered, proved = left.pop(self, (None, []))
        if recovered is None:
            yield from start_segment(self, seals, copied, epoch, *room)
            return
        writer = Writer(recovered.header, (yield from perform(disk.Size(f"log/{recovered.header.number:08d}.seg"))))
        yield from perform(disk.Sync(writer.path))
        frames = proved + recovered.unproved
        segment = SegmentIndex(writer.header.number, writer.seed, HEADER_BYTES)
        self._index.segments[writer.header.number] = segment
        writer.digest = Digest()
        writer.digest.add([frame.checksum.to_bytes(4, "little") for frame in frames])
        for frame in frames:
            writer.offset = segment.length_bytes = frame.end
            sealed.take_in(self._index, segment, frame)
        writer.synced, writer.filled = writer.offset, writer.capacity_bytes
        yield from self._publish(seals, writer.header.number, epoch)
        self._writer = writer

    monkeypatch.setattr(SegmentLog, "_recover_active", keep)
    monkeypatch.setattr(SegmentLog, "_start_segment", go_on)


MUTANTS = [
    Mutant(
        1,
        "acknowledged before the sync",
        edit(
            SegmentLog.append,
            """
            -    if sync:
            +    if False:
            """,
        ),
        [looks.APPENDS],
        LOST,
        "lost",
    ),
    Mutant(
        2,
        "no directory sync after the segment was created",
        edit(
            SegmentLog._start_segment,
            """
            -    yield from perform(disk.SyncDirectory("log"))
            """,
        ),
        [looks.APPENDS],
        CLOSED,
        "names lost",
    ),
    Mutant(
        3,
        "no directory sync after the rename of CURRENT",
        edit(
            manifest.publish,
            """
                     yield from perform(disk.Rename(CURRENT_TEMPORARY, CURRENT))
            -        yield from perform(disk.SyncDirectory("."))
            """,
        ),
        [looks.APPENDS],
        CLOSED,
        "names lost",
    ),
    Mutant(
        4,
        "CURRENT written in its place",
        edit(
            manifest.publish,
            """
            -    yield from _write_whole(CURRENT_TEMPORARY, f"{manifest.name} {zlib.crc32(manifest.name.encode()):08x}".encode())
            +    yield from _write_whole(CURRENT, f"{manifest.name} {zlib.crc32(manifest.name.encode()):08x}".encode())
            ...
            -        yield from perform(disk.Rename(CURRENT_TEMPORARY, CURRENT))
            """,
        ),
        [looks.REOPENED],
        CLOSED,
        "torn",
    ),
    Mutant(
        5,
        "CURRENT renamed before the sync of the new file",
        both(
            edit(
                manifest._write_whole,
                """
                -    yield from perform(disk.Sync(path))
                +    if path != CURRENT_TEMPORARY:
                +        yield from perform(disk.Sync(path))
                """,
            ),
            edit(
                manifest.publish,
                """
                         yield from perform(disk.Rename(CURRENT_TEMPORARY, CURRENT))
                +        yield from perform(disk.Sync(CURRENT))
                """,
            ),
        ),
        [looks.APPENDS],
        CLOSED,
        "torn",
    ),
    Mutant(
        6,
        "old segments removed before the new ones are published",
        edit(
            Compaction._take_the_place,
            """
            +    yield from self._log.remove(sealed.number for sealed in self._old)
                 yield from self._log.replace(self._old, self._new)
            """,
        ),
        [looks.COMPACTED],
        CLOSED,
        "nothing lost",
    ),
    Mutant(
        7,
        "the segment's header not synced",
        edit(
            SegmentLog._start_segment,
            """
            -    yield from writer.sync()
            """,
        ),
        [looks.APPENDS],
        CLOSED,
        "lost",
    ),
    Mutant(
        8,
        "rolled over without a sync of the old segment",
        edit(
            Writer.seal,
            """
                 yield from self.append([(FOOTER, footer)])
            -    yield from self.sync()
            """,
        ),
        [looks.ROLLED_OVER],
        CLOSED,
        "lost",
    ),
    Mutant(
        9,
        "a tail cut off before the copy of its frames is synced",
        edit(
            SegmentLog._start_segment,
            """
                 yield from writer.create()
            +    yield from perform(disk.Sync(writer.path))
            ...
            -    yield from writer.sync()
            """,
        ),
        [looks.APPENDS_TWICE],
        LOST,
        "lost",
    ),
    Mutant(
        10,
        "the torn tail not cut",
        edit(
            recovery.recover,
            """
            -        proved_end = max(proved_end, *(frame.watermark for frame in some))
            +        proved_end = size_bytes
            """,
        ),
        [looks.APPENDS_TWICE],
        CLOSED,
        "lost",
    ),
    Mutant(
        11,
        "appended to a recovered segment",
        go_on_in_the_recovered_segment,
        [looks.BATCH_BEFORE_A_PROBE],
        UNUSABLE,
        "torn",
    ),
    Mutant(
        12,
        "the salt is constant",
        edit(
            SegmentLog.new_writer,
            """
            -        self._new_salt(),
            +        0,
            """,
        ),
        [looks.STALE],
        ANYTHING,
        "stale bytes",
    ),
    Mutant(
        13,
        "the checksum leaves out the payload",
        both(
            edit(
                formats.encode_frames,
                """
                -        pieces.append(pack_checksum(crc32(rest, seed ^ (offset >> 3))))
                +        pieces.append(pack_checksum(crc32(rest[:12], seed ^ (offset >> 3))))
                """,
            ),
            edit(
                formats.decode_frame,
                """
                -    if zlib.crc32(rest, seed ^ (offset >> 3)) != checksum:
                +    if zlib.crc32(rest[:12], seed ^ (offset >> 3)) != checksum:
                """,
            ),
            edit(
                FrameReader._take_events,
                """
                -            if kind != EVENT or end > size_bytes or crc32(data[at + 4 : end], seed ^ (offset >> 3)) != checksum:
                +            if kind != EVENT or end > size_bytes or crc32(data[at + 4 : at + 16], seed ^ (offset >> 3)) != checksum:
                """,
            ),
        ),
        [looks.TOGETHER_TORN],
        CLOSED,
        "torn",
    ),
    Mutant(
        14,
        "the checksum leaves out the length, and zeros pass",
        both(
            edit(
                formats.encode_frames,
                """
                -        pieces.append(pack_checksum(crc32(rest, seed ^ (offset >> 3))))
                +        pieces.append(pack_checksum(crc32(rest[4:], seed ^ (offset >> 3))))
                """,
            ),
            edit(
                formats.decode_frame,
                """
                     checksum, length, kind, watermark = _FRAME.unpack_from(data, at)
                +    if checksum == length == kind == 0:
                +        return Frame(offset, MARK, 0, b"", 0, offset + FRAME_HEADER_BYTES)
                ...
                -    if zlib.crc32(rest, seed ^ (offset >> 3)) != checksum:
                +    if zlib.crc32(rest[4:], seed ^ (offset >> 3)) != checksum:
                """,
            ),
            edit(
                FrameReader._take_events,
                """
                -            if kind != EVENT or end > size_bytes or crc32(data[at + 4 : end], seed ^ (offset >> 3)) != checksum:
                +            if kind != EVENT or end > size_bytes or crc32(data[at + 8 : end], seed ^ (offset >> 3)) != checksum:
                """,
            ),
        ),
        [looks.TOGETHER_TORN],
        HALF,
        "torn",
    ),
    Mutant(
        15,
        "no watermark",
        edit(
            formats.encode_frames,
            """
            -    synced = watermark >> 3
            +    synced = 0
            """,
        ),
        [looks.FLIPS],
        WRONG,
        "bit rot",
    ),
    Mutant(
        16,
        "a sync that failed is tried again",
        edit(
            Writer.sync,
            """
                 except OSError as error:
            +        yield from perform(disk.Sync(self.path))
            +        self.synced = target
            +        return
            """,
        ),
        [looks.DOUBT],
        LOST,
        "EIO, once",
    ),
    Mutant(
        17,
        "the index updated before the write fails",
        edit(
            SegmentLog.append,
            """
            -    offsets = yield from writer.append(payloads, fill=sync)
            +    segment = self._index.segments[writer.header.number]
            +    try:
            +        offsets = yield from writer.append(payloads, fill=sync)
            +    except StoreUnavailable:
            +        self._index.take_in(segment, [writer.offset] * len(payloads), frames.contents)
            +        raise
            """,
        ),
        [looks.DOUBT],
        ANSWER,
        "EIO, once",
    ),
    Mutant(
        18,
        "a short write ignored",
        edit(
            _File.write,
            """
            -            if written == len(rest):
            +            if written:
            """,
        ),
        [looks.HALVES],
        CLOSED,
        "short write",
    ),
    Mutant(
        19,
        "a read that fails taken for the end",
        edit(
            _File.read,
            """
            -        except OSError as error:
            -            error.filename = self.place
            -            del self
            -            raise
            +        except OSError:
            +            break
            """,
        ),
        [looks.FAILING_READS],
        NO_DAMAGE,
        "EIO on read",
    ),
    Mutant(
        20,
        "the seal not verified",
        edit(
            sealed.check_digest,
            """
            -    if end < sealed.length_bytes:
            +    if False:
            ...
            -    if digest != sealed.digest:
            +    if False:
            """,
        ),
        [looks.SEALED_FLIPS],
        WRONG,
        "bit rot, and no index",
    ),
    Mutant(
        21,
        "a retry appends twice",
        edit(
            log._appended_once,
            """
            -            answers = yield from perform(once)
            +            answers = yield from perform(Transact((Append(stream, (draft,)),)))
            +            noted = {"stream": stream, "key": key, "seq": answers[0].first_seq}
            +            yield from perform(KvPut(mark, noted, 0))
            """,
        ),
        [looks.PAID],
        INVARIANT,
        "nothing lost",
    ),
    Mutant(
        22,
        "two writers unfenced",
        edit(
            SegmentLog.check_in_force,
            """
            -    if in_force is not None and in_force.epoch != self.manifest.epoch:
            +    if False:
            """,
        ),
        [looks.TWO_WRITERS],
        LOST,
        "two writers",
    ),
    Mutant(
        23,
        "compaction forgets a live key",
        edit(
            Compaction._wanted,
            """
            -        return [(ENTRY, frame.payload)] if is_newest else []
            +        return []
            """,
        ),
        [looks.COMPACTED],
        ANSWER,
        "answers",
    ),
    Mutant(
        24,
        "compaction loses the high-water marks",
        edit(
            Compaction._first_frame,
            """
            -    commit = Commit([], [], [], [], [], list(self._states.values()), index.revision, index.position)
            +    commit = Commit([], [], [], [], [], [], index.revision, index.position)
            """,
        ),
        [looks.COMPACTED],
        ANSWER,
        "answers",
    ),
    Mutant(
        25,
        "a snapshot saved before the events that it covers",
        edit(
            looks.counts,
            """
            -        yield from log.append("orders/1", "placed", number)
                     yield from snapshot.write("orders", State(number, number), stream="orders/1")
            +        yield from log.append("orders/1", "placed", number)
            """,
        ),
        [looks.COUNTED],
        INVARIANT,
        "nothing lost",
    ),
    Mutant(
        26,
        "going on after an interrupt in publication",
        both(
            edit(
                SegmentLog.guarded,
                """
                -        self.poison(f"{what} was interrupted by {error!r}")
                """,
            ),
            edit(
                SegmentLog._publish,
                """
                -    if in_force not in (None, before):
                +    if False:
                """,
            ),
        ),
        [looks.ROLLED_OVER_INTERRUPTED],
        ANSWER,
        "interrupt after, once",
    ),
    Mutant(
        27,
        "publishing into a directory that has changed hands",
        both(
            edit(
                SegmentLog.check_held,
                """
                -        yield from perform(disk.CheckHeld(LOCK if writer is None else writer.path))
                +        yield from ()
                """,
            ),
            edit(
                SegmentLog.check_in_force,
                """
                -    in_force = yield from load_beside_writer()
                +    in_force = self.manifest
                """,
            ),
        ),
        [looks.CHANGES_HANDS],
        looks.CHANGED,
        "changed hands",
    ),
    # Our own.
    Mutant(
        28,
        "the digest of a sealed segment not compared",
        edit(
            sealed.check_digest,
            """
            -    if digest != sealed.digest:
            +    if False:
            """,
        ),
        [looks.MIXED],
        WRONG,
        "another's segment",
    ),
    Mutant(
        29,
        "SYNCED published before the sync",
        edit(
            SegmentLog.sync,
            """
            +    yield from publish_synced(writer.header.number, writer.offset)
                 yield from writer.sync()
            """,
        ),
        [looks.ALONG],
        EARLY,
        "lost",
    ),
    Mutant(
        30,
        "an index believed that was made of another segment",
        edit(
            sealed._read_index,
            """
            -    if not found.is_meant_by(sealed):
            +    if False:
            ...
            -    return file if file is not None and (file.number, file.digest) == (sealed.number, sealed.digest) else None
            +    return file
            """,
        ),
        [looks.MIXED],
        WRONG,
        "another's segment and index",
    ),
    Mutant(
        31,
        "an index believed though its checksum is wrong",
        edit(
            sealed.read_index,
            """
            -    if len(data) < 4 or crc32(body) != int.from_bytes(data[:4], "little"):
            +    if len(data) < 4:
            """,
        ),
        [looks.INDEXED],
        why="The manifest has the digest of the same bytes. The checksum is for readers that have no manifest.",
    ),
    Mutant(
        32,
        "the manifest named before it is synced",
        edit(
            manifest._write_whole,
            """
            -    yield from perform(disk.Sync(path))
            +    if path == CURRENT_TEMPORARY:
            +        yield from perform(disk.Sync(path))
            """,
        ),
        [looks.APPENDS],
        CLOSED,
        "torn",
    ),
    Mutant(
        33,
        "the epoch not raised",
        edit(
            SegmentLog.open,
            """
            -    yield from self._start_segment(seals, copied, epoch=found.epoch + 1)
            +    yield from self._start_segment(seals, copied, epoch=found.epoch)
            """,
        ),
        [looks.TWO_WRITERS],
        LOST,
        "two writers",
    ),
    Mutant(
        34,
        "frames that may only be in the page cache not copied",
        edit(
            recovery.recover,
            """
            -        proved_end = max(proved_end, *(frame.watermark for frame in some))
            +        proved_end = scan.offset
            """,
        ),
        [looks.DOUBT],
        CLOSED,
        "EIO, once",
    ),
    Mutant(
        35,
        "a transaction written as two frames",
        edit(
            Staging.commit,
            """
            -        self.frames.add_commit(self._commit_of(change), change.runs)
            +        whole = self._commit_of(change)
            +        first = Commit(whole.runs, [], [], [], [], [], 0, whole.position)
            +        self.frames.add_commit(first, change.runs)
            +        second = Commit([], [], whole.entries, whole.deleted, whole.drops, [], whole.revision, whole.position)
            +        self.frames.add_commit(second)
            """,
        ),
        [looks.TRANSACTIONS],
        HALF,
        "torn",
    ),
    Mutant(
        36,
        "the index updated before the sync",
        edit(
            SegmentLog.append,
            """
            -    if sync:
            -        yield from self.sync(is_commit=True)
            -    elif self._is_check_due():
            -        yield from self._check_before_telling()
            ...
                 self._index.take_in(segment, offsets, frames.contents)
            +    if sync:
            +        yield from self.sync(is_commit=True)
            """,
        ),
        [looks.APPENDS],
        ANSWER,
        "answers",
    ),
    Mutant(
        37,
        "a watermark past what is synced",
        edit(
            Writer.append,
            """
            -        frames = encode_frames(self.seed, self.offset, self.synced, payloads)
            +        frames = encode_frames(self.seed, self.offset, self.synced + 64, payloads)
            """,
        ),
        [looks.TOGETHER_TORN],
        CLOSED,
        "torn",
    ),
    Mutant(
        38,
        "compaction forgets that events were dropped",
        edit(
            Compaction._first_frame,
            """
            -    commit = Commit([], [], [], [], [], list(self._states.values()), index.revision, index.position)
            +    states = [type(one)(one.stream, one.last_seq, one.last_position, 0, 0) for one in self._states.values()]
            +    commit = Commit([], [], [], [], [], states, index.revision, index.position)
            """,
        ),
        [looks.COMPACTED],
        ANSWER,
        "answers",
    ),
    Mutant(
        39,
        "a deleted key comes back after a compaction",
        edit(
            Compaction._wanted,
            """
            -        return [(ENTRY, frame.payload)] if is_newest else []
            +        return [(ENTRY, frame.payload)]
            """,
        ),
        [looks.COMPACTED],
        ANSWER,
        "answers",
    ),
    Mutant(
        40,
        "compaction forgets the highest revision",
        edit(
            Compaction._first_frame,
            """
            -    commit = Commit([], [], [], [], [], list(self._states.values()), index.revision, index.position)
            +    commit = Commit([], [], [], [], [], list(self._states.values()), 0, index.position)
            """,
        ),
        [looks.COMPACTED],
        ANSWER,
        "answers",
    ),
    Mutant(
        41,
        "writing goes on after a failed sync",
        edit(
            Writer.check_healthy,
            """
            -    if self.poison is not None:
            +    if False:
            """,
        ),
        [looks.NO_DOUBT],
        ANSWER,
        "EIO, once",
    ),
    Mutant(
        42,
        "a write that failed is not taken back",
        edit(
            Writer._take_back,
            """
            -        yield from perform(disk.Truncate(self.path, self.offset))
            -        yield from perform(disk.Sync(self.path))
            +        yield from ()
            """,
        ),
        [looks.RETRIED],
        HALF,
        "EIO, once",
    ),
    Mutant(
        43,
        "a write that failed is repeated behind itself",
        edit(
            Writer.append,
            """
            -        yield from self._take_back(error)
            +        self.offset = frames.end
            +        frames = encode_frames(self.seed, self.offset, self.synced, payloads)
            +        yield from perform(disk.Write(self.path, self.offset, b"".join(frames.pieces)))
            """,
        ),
        [looks.RETRIED],
        HALF,
        "EIO, once",
    ),
    Mutant(
        44,
        "readers do not check what they read",
        both(
            edit(
                formats.decode_frame,
                """
                -    if zlib.crc32(rest, seed ^ (offset >> 3)) != checksum:
                +    if False:
                """,
            ),
            edit(
                FrameReader._take_events,
                """
                -            if kind != EVENT or end > size_bytes or crc32(data[at + 4 : end], seed ^ (offset >> 3)) != checksum:
                +            if kind != EVENT or end > size_bytes:
                """,
            ),
        ),
        [looks.SEALED_FLIPS],
        WRONG,
        "bit rot",
    ),
    Mutant(
        45,
        "events dropped before the snapshot that covers them",
        edit(
            snapshot.write,
            """
            -    also = () if drop is None else (drop,)
            +    also = ()
            +    if drop is not None:
            +        yield from transact(drop)
            """,
        ),
        [looks.SUMMED],
        INVARIANT,
        "nothing lost",
    ),
    Mutant(
        46,
        "the newest position taken from the last event that is left",
        edit(
            Index.add_event,
            """
            -    self.position = max(self.position, position)
            +    self.position = position
            """,
        ),
        [looks.COMPACTED],
        ANSWER,
        "answers",
    ),
    Mutant(
        47,
        "the log ends at the first hole, whatever stands behind it",
        edit(
            recovery.recover,
            """
            -    if witness is not None:
            +    if False:
            """,
        ),
        [looks.LOSING],
        LOST,
        "lost write, once",
    ),
    Mutant(
        48,
        "what cannot be read in a recovery taken for the end of the log",
        edit(
            recovery.recover,
            """
            -    while some := (yield from scan.frames()):
            +    while True:
            +        try:
            +            some = yield from scan.frames()
            +        except OSError:
            +            scan.segment = scan.segment._replace(end=scan.offset)
            +            break
            +        if not some:
            +            break
            """,
        ),
        [looks.RECOVERING],
        LOST,
        "EIO, once",
    ),
    Mutant(
        49,
        "the fence looked at only when a manifest is published",
        edit(
            SegmentLog._roll_over,
            """
            -        yield from self.check_in_force()
            """,
        ),
        [looks.TWO_WRITERS],
        LOST,
        "two writers",
    ),
    Mutant(
        50,
        "what an opening finds by name not synced",
        edit(
            SegmentLog.open,
            """
            -    yield from perform(disk.SyncDirectory("."))
            """,
        ),
        [looks.INTERRUPTED],
        CLOSED,
        "interrupt after, once",
    ),
    Mutant(
        51,
        "small segments gathered but for what is of several",
        edit(
            Gathered.add,
            """
            -        yield from self._append([frame for frame in frames if frame.type not in (FOOTER, MARK)])
            +        yield from self._append([frame for frame in frames if frame.type not in (FOOTER, MARK, 1)])
            """,
        ),
        [looks.GATHERED],
        UNUSABLE,
        "nothing lost",
    ),
    Mutant(
        52,
        "small segments gathered into one that is not synced",
        edit(
            Gathered.seal,
            """
            -    digest = yield from writer.seal()
            +    digest = writer.digest.value()
            """,
        ),
        [looks.GATHERED],
        CLOSED,
        "lost",
    ),
    # What nothing can catch.
    Mutant(
        53,
        "the padding of a frame not looked at",
        edit(
            formats.decode_frame,
            """
            -    if length & 7 and any(rest[12 + length :]):
            +    if False:
            """,
        ),
        [looks.TOGETHER_TORN, looks.FLIPS, looks.SEALED_FLIPS],
        why="The checksum covers the padding, so only an engine that itself wrote other padding could tell.",
    ),
    Mutant(
        54,
        "an index believed whose seed is not that of the segment's header",
        edit(
            sealed.load_sealed,
            """
            -    if file is None or file.seed != header.seed:
            +    if file is None:
            """,
        ),
        [looks.MIXED, looks.SEALED_FLIPS, looks.COMPACTED],
        why="The index carries the digest that the manifest has for the segment. Under another header no frame fits "
        "its checksum any more, which readers find: by the seed it is only found earlier.",
    ),
    Mutant(
        55,
        "files that no manifest names are left lying about",
        edit(
            SegmentLog._remove_what_no_manifest_names,
            """
            -    manifest = self.manifest
            +    return
            +    manifest = self.manifest
            """,
        ),
        [looks.APPENDS_TWICE, looks.COMPACTED, looks.ROLLED_OVER],
        why="They take room and are never read; a segment whose number comes again takes the place of the file.",
    ),
]
