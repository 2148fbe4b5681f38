"""The segments of an open store: opening, appending, rolling over, closing."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NoReturn, TypeVar

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import (
    FORMAT_VERSION,
    HEADER_BYTES,
    NO_DIGEST,
    Frame,
    SegmentHeader,
    decode_header,
    frame_bytes,
)
from interpreters.stores.file.gathering import Gathered, to_gather
from interpreters.stores.file.index import Index, SegmentIndex
from interpreters.stores.file.manifest import (
    CURRENT,
    NUMBER_LIMIT,
    SYNCED,
    Manifest,
    Sealed,
    index_path,
    load,
    load_beside_writer,
    publish,
    publish_synced,
    segment_path,
)
from interpreters.stores.file.recovery import recover
from interpreters.stores.file.scan import Scan, Segment
from interpreters.stores.file.sealed import (
    Loaded,
    check_nothing_is_left_out,
    check_order,
    load_sealed,
    read_header,
    read_headers,
    take_in_frame,
    take_in_sealed,
    with_index,
    with_what_was_replaced,
    write_index,
)
from interpreters.stores.file.staging import Frames
from interpreters.stores.file.writer import FOOTER_BYTES, Writer
from persist_effects.errors import (
    CorruptStore,
    InvalidRequest,
    PersistError,
    StoreLocked,
    StoreUnavailable,
    UncertainOutcome,
)
from persist_effects.machine import Effect, perform

A = TypeVar("A")

LOCK = "LOCK"
_FIRST_SEGMENT = segment_path(1)
_OWN_NAMES = {LOCK, SYNCED, "log", _FIRST_SEGMENT, "CURRENT.tmp", "MANIFEST-00000001"}
"""What an interrupted making of a new store may have left."""
_CHANGED_HANDS = "close this store, see what became of its directory, and open it again"
_ROOM_BESIDE_BYTES = 64 * 1024
"""More than an opening needs beside the next segment and indexes: for a manifest."""
_OF_A_STORE = re.compile(r"MANIFEST-\d{8,}|log/\d{8,}\.(seg|idx)")


class SegmentLog:
    """The segments of a store and the one that is written. Each opening and each roll-over publishes a manifest."""

    def __init__(
        self,
        index: Index,
        random_bytes: Callable[[int], bytes],
        segment_bytes: int,
        holder: str,
        is_check_due: Callable[[], bool] = lambda: True,
    ) -> None:
        self._index = index
        self._random_bytes = random_bytes
        self._segment_bytes = segment_bytes
        self._holder = holder
        self._is_check_due = is_check_due
        self._manifest: Manifest | None = None
        self._writer: Writer | None = None
        self._next_segment = 1
        self._poison: str | None = None
        # What changes the store just now, and has not ended yet.
        self._begun: str | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest in force."""
        assert self._manifest is not None, "the log was opened"
        return self._manifest

    @property
    def header(self) -> SegmentHeader:
        """The header of the segment that is written."""
        return self._writing().header

    # Interrupts

    def guarded(self, what: str, program: Effect[A]) -> Effect[A]:
        """Carry out a program that changes the store; where it is ended by what is not an answer of the disk, poison.

        An interrupt, or a lack of memory, may come between any two requests, and only a recovery can tell how far the
        program came. An interrupt at a sync may even stand in the place of the error that the sync met.
        """
        if self._begun is not None:
            # Interrupted again, before it was noted that it was interrupted.
            self.poison(f"{self._begun} was interrupted")
        self._begun = what
        try:
            answer = yield from program
        except (PersistError, OSError):
            self._begun = None
            raise
        except BaseException as error:
            self.poison(f"{what} was interrupted by {error!r}")
            raise
        self._begun = None
        return answer

    def leave_to_parent(self) -> None:
        """In a forked child: what another thread had begun goes on in the parent, and was not interrupted."""
        self._begun = None

    @property
    def poisoned(self) -> str | None:
        """Why nothing is written any more, or None."""
        return self._poison or (None if self._writer is None else self._writer.poison)

    def poison(self, reason: str) -> None:
        """Let nothing be written any more until the store is opened anew."""
        self._poison = self._poison or reason

    # Opening

    def open(self) -> Effect[None]:
        """Make or load the store, and start a new segment. Raises `CorruptStore`, `StoreLocked`, `InvalidRequest`."""
        is_new = (yield from perform(disk.Size(CURRENT))) is None
        if is_new:
            yield from self._check_that_the_directory_is_free()
        yield from self._take_lock()
        found = yield from load()
        if found is None:
            yield from perform(disk.MakeDirectory("log"))
            found = Manifest(FORMAT_VERSION, self._random_bytes(16), 0, 0, 1, [], None)
        # The name of the log, or that of CURRENT, which whoever opened the store before may not have come to sync.
        yield from perform(disk.SyncDirectory("."))
        self._manifest = found
        self._next_segment = found.next_segment
        seals = yield from self._load_sealed(found)
        copied: list[Frame] = []
        if found.active is not None:
            copied = yield from self._recover_active(found.active, seals)
        if (yield from perform(disk.Size(SYNCED))) is None:
            yield from perform(disk.Create(SYNCED))
        yield from self._start_segment(seals, copied, epoch=found.epoch + 1)
        yield from publish_synced(self._writing().header.number, self._writing().synced)
        yield from self._remove_what_no_manifest_names()

    def _check_that_the_directory_is_free(self) -> Effect[None]:
        names = yield from perform(disk.List("."))
        if "log" in names:
            names = sorted([*names, *(f"log/{name}" for name in (yield from perform(disk.List("log"))))])
        of_a_store = [name for name in names if _OF_A_STORE.fullmatch(name) and name not in _OWN_NAMES]
        if of_a_store or (yield from self._has_a_first_frame(names)):
            raise CorruptStore(
                f"{CURRENT} is not there, though {(of_a_store or [_FIRST_SEGMENT])[0]} is: "
                "restore it from a backup, or salvage the store"
            )
        foreign = [name for name in names if name not in _OWN_NAMES]
        if foreign:
            raise InvalidRequest(
                f"the directory holds {foreign[0]!r} and no store: give a store's directory, or an empty or new one"
            )

    def _has_a_first_frame(self, names: Sequence[str]) -> Effect[bool]:
        """Whether anything was ever committed to the first segment, which the making of a store leaves empty."""
        if _FIRST_SEGMENT not in names:
            return False
        size_bytes = yield from perform(disk.Size(_FIRST_SEGMENT))
        try:
            header = decode_header((yield from perform(disk.Read(_FIRST_SEGMENT, 0, HEADER_BYTES))), _FIRST_SEGMENT)
        except CorruptStore:
            return False
        scan = Scan(Segment(header.number, _FIRST_SEGMENT, header.seed, size_bytes or 0, True))
        return bool((yield from scan.frames()))

    def _take_lock(self) -> Effect[None]:
        other = yield from perform(disk.Lock(LOCK, self._holder))
        if other is not None:
            raise StoreLocked(other)

    def _load_sealed(self, manifest: Manifest) -> Effect[list[Sealed]]:
        """Take in the sealed segments, and return them as the next manifest is to name them."""
        small = to_gather([sealed.length_bytes for sealed in manifest.sealed])
        together = None if small is None else (yield from self._gathered(manifest, small))
        # Of each segment not more is kept than these: an index takes as many bytes as its file.
        seals: list[Sealed] = []
        headers: list[SegmentHeader | None] = []
        for sealed in manifest.sealed if together is None else manifest.sealed[:small]:
            loaded = yield from load_sealed(sealed, manifest.uuid, mend=True)
            take_in_sealed(self._index, loaded)
            seals.append(loaded.sealed)
            headers.append(loaded.header)
            del loaded
        if together is not None:
            take_in_sealed(self._index, together)
            seals.append(together.sealed)
            headers.append(together.header)
        if manifest.active is not None:
            headers.append((yield from read_header(manifest.active, manifest.uuid)))
        if together is None:
            yield from _check_whole(manifest, headers)
        return with_what_was_replaced(seals, headers)

    def _gathered(self, manifest: Manifest, small: int) -> Effect[Loaded | None]:
        """The sealed segments from this one on as one; None where it cannot be made: then they are as good as before.

        Raises `CorruptStore`, before anything is written, for a manifest whose segments do not follow on one another.
        """
        headers = yield from read_headers(manifest)
        yield from _check_whole(manifest, headers)
        seals = manifest.sealed[small:]
        found = [header for header in headers[small : len(manifest.sealed)] if header is not None]
        if len(found) < len(seals):
            return None
        writer: Writer | None = None
        try:
            header = found[0]._replace(number=self._new_number(), salt=self._new_salt())
            # With the room that the rest of the opening needs, an index among it: it is given back by the sealing.
            size_bytes = sum(sealed.length_bytes for sealed in seals) + FOOTER_BYTES
            writer = Writer(header, 2 * size_bytes + self._segment_bytes + _ROOM_BESIDE_BYTES)
            yield from writer.create()
            gathered = Gathered(writer)
            for sealed, header in zip(seals, found, strict=True):
                yield from gathered.add(sealed, header)
            return (yield from gathered.seal(seals[-1].replaced or seals[-1].digest))
        except (CorruptStore, OSError, StoreUnavailable):
            # No manifest names it. Now, and not at the end of the opening, which may need the room.
            if writer is not None:
                yield from _tidy(perform(disk.Remove(writer.path)))
            return None

    def _recover_active(self, number: int, seals: list[Sealed]) -> Effect[list[Frame]]:
        """Take in the segment that was active, and return the frames that are to be copied into the next one."""
        segments = self._index.segments

        def take(header: SegmentHeader, frame: Frame) -> None:
            if number not in segments:
                segments[number] = SegmentIndex(number, header.seed, HEADER_BYTES)
            self._index.expect(len(segments[number].frames))
            take_in_frame(self._index, segments[number], frame)

        recovered = yield from recover(number, self.manifest.uuid, take)
        if number not in segments:
            return recovered.unproved
        segment = segments[number]
        segment.length_bytes = recovered.proved_end
        sealed = Sealed(number, recovered.proved_end, recovered.digest)
        file = self._index.seal(segment, sealed.digest)
        seals.append(with_index(sealed, file))
        yield from write_index(file)
        return recovered.unproved

    def new_writer(self, seals: Sequence[Sealed], payload_bytes: int, frames: int) -> Writer:
        """A writer for a new segment after these, in which so many frames fit. Nothing is on the disk yet."""
        header = SegmentHeader(
            self.manifest.uuid,
            self._new_number(),
            self._new_salt(),
            self._index.position + 1,
            seals[-1].digest if seals else NO_DIGEST,
        )
        needed_bytes = HEADER_BYTES + payload_bytes + frames * (frame_bytes(0) + 7) + FOOTER_BYTES
        return Writer(header, max(self._segment_bytes, needed_bytes))

    def _new_number(self) -> int:
        number = self._next_segment
        if number + 1 >= NUMBER_LIMIT:
            raise StoreUnavailable(f"segment {number} would be the last number there is: salvage the store")
        self._next_segment += 1
        return number

    def _new_salt(self) -> int:
        return int.from_bytes(self._random_bytes(8), "little")

    def _start_segment(
        self, seals: list[Sealed], copied: Sequence[Frame], epoch: int, payload_bytes: int = 0, frames: int = 0
    ) -> Effect[None]:
        """Make the next segment, with frames of the one before whose place on the disk is not proved, and publish."""
        yield from self.check_held()
        writer = self.new_writer(seals, sum(frame.end - frame.offset for frame in copied) + payload_bytes, frames)
        number = writer.header.number
        yield from writer.create()
        offsets = (yield from writer.append([(frame.type, frame.payload) for frame in copied])) if copied else []
        yield from writer.sync()
        yield from perform(disk.SyncDirectory("log"))
        yield from self._publish(seals, number, epoch)
        segment = SegmentIndex(number, writer.seed, writer.offset)
        self._index.segments[number] = segment
        self._index.expect(len(copied))
        for frame, offset in zip(copied, offsets, strict=True):
            take_in_frame(self._index, segment, msgspec.structs.replace(frame, offset=offset))
        self._writer = writer

    def _publish(self, seals: list[Sealed], active: int | None, epoch: int) -> Effect[None]:
        before = self.manifest
        in_force = yield from self.check_in_force()
        if in_force not in (None, before):
            # Of the same epoch: a copy of this store in its place, or what an interrupted publication left.
            self._give_way(f"whoever put {in_force.name} in force, where this one had put {before.name}")
        manifest = Manifest(FORMAT_VERSION, before.uuid, epoch, before.number + 1, self._next_segment, seals, active)
        try:
            yield from publish(manifest)
        except UncertainOutcome as error:
            self.poison(str(error))
            raise
        self._manifest = manifest
        if in_force is not None:
            yield from _tidy(perform(disk.Remove(in_force.name)))

    def check_in_force(self) -> Effect[Manifest | None]:
        """The manifest in force. Raises `StoreLocked` where it is of a writer that came later.

        Before a segment is made or removed, too: the later one gives the same numbers to segments of its own.
        """
        yield from self.check_held()
        # A compaction asks this beside commits, one of which may just be publishing.
        in_force = yield from load_beside_writer()
        if in_force is not None and in_force.epoch != self.manifest.epoch:
            self._give_way(
                f"a writer that opened the store later (epoch {in_force.epoch}, this one's: {self.manifest.epoch})"
            )
        return in_force

    def check_held(self, *, poisons: bool = True) -> Effect[None]:
        """Before anything is told, made, put in force or removed: the store's path still leads to what is held.

        Where it does not, whoever opens the store finds another one than is written here. Then nothing is written any
        more, if it ``poisons``. Raises `StoreUnavailable`.
        """
        writer = self._writer
        try:
            yield from perform(disk.CheckHeld(LOCK if writer is None else writer.path))
        except OSError as error:
            reason = f"what is held is not what is there: {error}"
            if poisons:
                self.poison(reason)
            raise StoreUnavailable(f"{reason}: {_CHANGED_HANDS}") from error

    def _check_before_telling(self, *, poisons: bool = True) -> Effect[None]:
        try:
            yield from self.check_held(poisons=poisons)
        except StoreUnavailable as error:
            raise UncertainOutcome(f"the last commits were written, and may not be found again: {error}") from error

    def _give_way(self, holder: str) -> NoReturn:
        error = StoreLocked(holder)
        self.poison(str(error))
        raise error

    def _remove_what_no_manifest_names(self) -> Effect[None]:
        yield from self.check_held()
        manifest = self.manifest
        numbers = {sealed.number for sealed in manifest.sealed} | {manifest.active}
        kept = {segment_path(number) for number in numbers if number is not None}
        kept |= {index_path(number) for number in numbers if number is not None}
        for name in (yield from perform(disk.List("log"))):
            # What somebody has put there is not ours to remove.
            if f"log/{name}" not in kept and _OF_A_STORE.fullmatch(f"log/{name}"):
                yield from perform(disk.Remove(f"log/{name}"))
        for name in (yield from perform(disk.List("."))):
            if name.startswith("MANIFEST-") and name != manifest.name:
                yield from perform(disk.Remove(name))
        for sealed in manifest.sealed:
            path = segment_path(sealed.number)
            if (yield from perform(disk.Size(path))) != sealed.length_bytes:
                yield from perform(disk.Truncate(path, sealed.length_bytes))

    # Appending

    def append(self, frames: Frames, *, sync: bool) -> Effect[None]:
        """Write frames, sync them unless told otherwise, and take them into the index."""
        writer = self._writing()
        payloads = frames.payloads
        size_bytes = sum([len(payload) for _, payload in payloads])
        if not writer.has_room_for(size_bytes, len(payloads)):
            yield from self._roll_over(size_bytes, len(payloads))
            writer = self._writing()
        offsets = yield from writer.append(payloads, fill=sync)
        if sync:
            yield from self.sync(is_commit=True)
        elif self._is_check_due():
            yield from self._check_before_telling()
        segment = self._index.segments[writer.header.number]
        segment.length_bytes = writer.offset
        self._index.take_in(segment, offsets, frames.contents)

    def mark(self) -> Effect[None]:
        """Prove all that was appended: write a frame that says how far the segment is synced, and sync that too."""
        writer = self._writing()
        if writer.offset == HEADER_BYTES or not writer.has_room_for(0, 1):
            return
        yield from writer.sync()
        yield from writer.mark()
        yield from self.check_held(poisons=False)
        self._index.segments[writer.header.number].length_bytes = writer.offset
        yield from publish_synced(writer.header.number, writer.synced)

    def sync(self, *, is_commit: bool = False) -> Effect[None]:
        """Bring all that was appended to the disk."""
        writer = self._writing()
        if writer.synced == writer.offset:
            return
        yield from writer.sync()
        # Where none waits for it, as when the store is idle, the next commit, or the closing, is to be the one told.
        yield from self._check_before_telling(poisons=is_commit)
        # The commit is on the disk, and that is what is acknowledged. The next sync brings readers up to date.
        yield from _tidy(publish_synced(writer.header.number, writer.synced))

    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable("the store is not open for writing: close it and open it again")
        self._writer.poison = self.poisoned
        self._writer.check_healthy()
        return self._writer

    def _roll_over(self, size_bytes: int, frames: int) -> Effect[None]:
        """Seal the active segment and start the next one, in which so much fits."""
        before = self._writing()
        try:
            yield from self.check_in_force()
            sealed = yield from self._seal(before)
            seals = [*self.manifest.sealed, *sealed]
            yield from self._start_segment(seals, [], self.manifest.epoch, size_bytes, frames)
        except UncertainOutcome as error:
            # A failed sync, of the next segment too, ends the writing here: after it the disk is not to be trusted.
            self.poison(str(error))
            raise
        yield from _tidy(publish_synced(self._writing().header.number, self._writing().synced))
        yield from self._settle(before, sealed)

    def _seal(self, writer: Writer) -> Effect[list[Sealed]]:
        """Write the footer of a segment, unless it has no frames: then it is not worth keeping."""
        if writer.offset == HEADER_BYTES:
            return []
        digest = yield from writer.seal()
        file = self._index.describe(self._index.segments[writer.header.number], digest)
        return [with_index(Sealed(writer.header.number, writer.offset, digest), file)]

    def _settle(self, writer: Writer, seals: Sequence[Sealed]) -> Effect[None]:
        """Once the manifest has it: write the index of what was sealed, and give back the room it does not need."""
        yield from self.check_held()
        number = writer.header.number
        segment = self._index.segments[number]
        if not seals:
            del self._index.segments[number]
            yield from _tidy(perform(disk.Remove(writer.path)))
            return
        segment.length_bytes = writer.offset
        file = self._index.seal(segment, seals[0].digest)
        yield from _tidy(write_index(file))
        yield from _tidy(perform(disk.Truncate(writer.path, writer.offset)))

    # Compaction

    def roll_over(self) -> Effect[None]:
        """Seal the active segment, so that compaction sees all of it."""
        if self._writing().offset > HEADER_BYTES:
            yield from self._roll_over(0, 0)

    def replace(self, old: Sequence[Sealed], new: Sequence[Sealed]) -> Effect[None]:
        """Put sealed segments in force in the place of others, which are the first of the log."""
        manifest = self.manifest
        assert manifest.sealed[: len(old)] == list(old), "compaction takes the log from its beginning"
        yield from perform(disk.SyncDirectory("log"))
        yield from self._publish([*new, *manifest.sealed[len(old) :]], manifest.active, manifest.epoch)

    def remove(self, numbers: Iterable[int]) -> Effect[None]:
        """Remove segments that no manifest names, and their indexes, as far as they are there."""
        yield from self.check_held()
        for number in numbers:
            for path in (segment_path(number), index_path(number)):
                if (yield from perform(disk.Size(path))) is not None:
                    yield from perform(disk.Remove(path))

    # Closing

    def close(self) -> Effect[None]:
        """Seal the active segment and publish a manifest that has none."""
        if self.poisoned is not None:
            # The next opening finds out what is on the disk.
            return
        writer = self._writing()
        # Raised here if nobody was told yet: what was acknowledged unsynced may be gone, and the store is not sealed.
        yield from self.check_held()
        sealed = yield from self._seal(writer)
        manifest = self.manifest
        yield from self._publish([*manifest.sealed, *sealed], None, manifest.epoch)
        self._writer = None
        yield from self._settle(writer, sealed)


def _check_whole(manifest: Manifest, headers: Sequence[SegmentHeader | None]) -> Effect[None]:
    check_order(manifest, headers)
    yield from check_nothing_is_left_out(manifest, headers)


def _tidy(program: Effect[None]) -> Effect[None]:
    """Do what can as well be left undone, as the next opening, or the next sync, makes up for it.

    What it comes after has been carried out, and must not be reported as failed.
    """
    with suppress(OSError):
        yield from program
