"""Is a store sound? Every frame of every segment is read, and each damage is told with its file and offset.

Nothing is changed and no lock is taken, so a writer may be at work. What a writer is about to write is not damage.
Where damage is found and the manifest has changed since it was read, a compaction may have taken files away: then
everything is looked at again.
"""

from contextlib import suppress
from typing import Any

import msgspec

from interpreters.disk import requests as disk
from interpreters.stores.file.format import DECODING_ERRORS, FOOTER, Digest, Frame, decode_footer
from interpreters.stores.file.index import Index, IndexFile, SegmentIndex
from interpreters.stores.file.manifest import CURRENT, Manifest, Sealed, index_path, segment_path
from interpreters.stores.file.places import array_of
from interpreters.stores.file.scan import Bad, Damage, Scan, Segment
from interpreters.stores.file.sealed import left_out, order_damages, read_headers, read_index, take_in
from interpreters.stores.file.tables import IndexedStream
from interpreters.stores.file.upkeep.blobs import BlobWalk
from interpreters.stores.file.upkeep.survey import BytesProgress, find_manifest, find_segment, index_of
from interpreters.stores.file.upkeep.tally import Ledger
from persist_effects.errors import CorruptStore, StoreUnavailable
from persist_effects.machine import Effect, perform

_ATTEMPTS = 20
"""How often everything is looked at again because the store was changed meanwhile."""


class Verified(msgspec.Struct):
    """What was found. ``repairable`` is made good by the next opening; ``notes`` are no fault.

    ``garbage_bytes`` is what compaction would give back of the segments' ``bytes``: events that were dropped, and
    values that were overwritten or deleted. ``position`` and ``revision`` are the highest given.
    """

    damages: list[Damage] = []
    repairable: list[Damage] = []
    notes: list[str] = []
    segments: int = 0
    bytes: int = 0
    garbage_bytes: int = 0
    frames: int = 0
    streams: int = 0
    events: int = 0
    keys: int = 0
    position: int = 0
    revision: int = 0
    blobs: int = 0
    blob_bytes: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether there is no damage."""
        return not self.damages


def verify_store(progress: BytesProgress | None = None) -> Effect[Verified]:
    """Look at all of a store. Raises `InvalidRequest` where there is none.

    Raises `StoreUnavailable` where it changes faster than it can be read.
    """
    for _ in range(_ATTEMPTS):
        before = yield from _current()
        report = yield from _Verification(progress).run()
        if report.is_sound or before == (yield from _current()):
            return report
    raise StoreUnavailable(f"the store was changed {_ATTEMPTS} times while it was read: try again when less is written")


def _current() -> Effect[bytes]:
    try:
        return (yield from perform(disk.Read(CURRENT, 0, 1024)))
    except OSError:
        # Whether that is damage is found where it is looked at.
        return b""


class _Verification:
    """One look at everything."""

    def __init__(self, progress: BytesProgress | None) -> None:
        self._progress = progress
        self._report = Verified()
        self._ledger = Ledger()
        self._done_bytes = 0
        self._total_bytes = 0

    def run(self) -> Effect[Verified]:
        report = self._report
        manifest, damages = yield from find_manifest()
        report.damages += damages
        if manifest is not None:
            yield from self._check_order(manifest)
            yield from self._check_segments(manifest)
            yield from self._note_other_files(manifest)
        yield from self._check_blobs()
        self._add_up()
        return report

    def _check_blobs(self) -> Effect[None]:
        walk = BlobWalk()
        yield from walk.run()
        self._report.damages += walk.damages
        self._report.blobs, self._report.blob_bytes = walk.blobs, walk.bytes

    def _check_order(self, manifest: Manifest) -> Effect[None]:
        """Whether the manifest's segments follow on one another, and on the last one nothing that it does not name."""
        damages = self._report.damages
        headers = yield from read_headers(manifest)
        damages += order_damages(manifest, headers)
        try:
            damage = yield from left_out(manifest, headers)
        except OSError:
            # The directory of the segments: that it cannot be read is told where the other files in it are noted.
            return
        damages += [] if damage is None else [damage]

    def _check_segments(self, manifest: Manifest) -> Effect[None]:
        active_bytes = 0
        if manifest.active is not None:
            # Where it cannot be told, that is told where the segment is looked at.
            with suppress(OSError):
                active_bytes = (yield from perform(disk.Size(segment_path(manifest.active)))) or 0
        self._total_bytes = sum(sealed.length_bytes for sealed in manifest.sealed) + active_bytes
        for sealed in manifest.sealed:
            yield from self._unless_unreadable(sealed.number, self._check_sealed(sealed, manifest.uuid))
        if manifest.active is not None:
            yield from self._unless_unreadable(manifest.active, self._check_active(manifest.active, manifest.uuid))

    def _unless_unreadable(self, number: int, program: Effect[None]) -> Effect[None]:
        try:
            yield from program
        except OSError as error:
            self._report.damages.append(Damage(segment_path(number), 0, "a file that can be read", str(error)))

    def _check_sealed(self, sealed: Sealed, uuid: bytes) -> Effect[None]:
        damages = self._report.damages
        count_before = len(damages)
        segment = yield from find_segment(sealed.number, uuid, sealed, damages)
        content = None if segment is None else _Content(segment)
        if segment is not None:
            yield from self._scan(segment, content)
        if content is None or len(damages) > count_before:
            yield from self._ask_index(sealed)
            return
        damages += content.troubles(sealed)
        if len(damages) == count_before:
            yield from self._check_index(sealed, content)

    def _ask_index(self, sealed: Sealed) -> Effect[None]:
        """Find out what the damaged frames held."""
        index = yield from index_of(sealed)
        if index is not None:
            for key in self._ledger.take_index(index):
                path = segment_path(sealed.number)
                self._report.damages.append(Damage(path, 0, f"the newest entry of key {key!r}", "none that is valid"))

    def _check_active(self, number: int, uuid: bytes) -> Effect[None]:
        segment = yield from find_segment(number, uuid, None, self._report.damages)
        if segment is not None:
            yield from self._scan(segment, None)

    def _scan(self, segment: Segment, content: "_Content | None") -> Effect[None]:
        scan = Scan(segment)
        begun_bytes = self._done_bytes
        while (found := (yield from scan.next())) is not None:
            if isinstance(found, Bad):
                self._report.damages.append(
                    Damage(segment.path, found.start, "a frame", f"none that is valid up to {found.end}")
                )
            else:
                for frame in found:
                    self._ledger.take(segment.path, frame)
                if content is not None:
                    content.take(found)
            self._tell(begun_bytes + scan.offset)
        self._report.segments += 1
        self._report.bytes += scan.offset
        self._tell(begun_bytes + segment.end)

    def _tell(self, done_bytes: int) -> None:
        self._done_bytes = done_bytes
        if self._progress is not None:
            self._progress(done_bytes, self._total_bytes)

    def _check_index(self, sealed: Sealed, content: "_Content") -> Effect[None]:
        path = index_path(sealed.number)
        found = yield from read_index(sealed.number, sealed.length_bytes)
        file, _, trouble = found
        is_believed = found.is_meant_by(sealed)
        if file is not None:
            trouble = _trouble_in(file, content.index_file(sealed))
        if trouble and is_believed:
            advice = "remove this file, which the next opening makes again"
            expected = f"the index of segment {sealed.number}"
            self._report.damages.append(Damage(path, 0, expected, f"{trouble}: {advice}"))
            return
        if not trouble and sealed.index and not is_believed:
            trouble = "another than the manifest means"
        if trouble:
            self._report.repairable.append(Damage(path, 0, f"the index of segment {sealed.number}", trouble))

    def _note_other_files(self, manifest: Manifest) -> Effect[None]:
        numbers = [sealed.number for sealed in manifest.sealed]
        if manifest.active is not None:
            numbers.append(manifest.active)
        named = {path for number in numbers for path in (segment_path(number), index_path(number))}
        try:
            names = yield from perform(disk.List("log"))
        except OSError as error:
            self._report.damages.append(Damage("log", 0, "the directory of the segments", str(error)))
            return
        for name in names:
            if f"log/{name}" not in named:
                self._report.notes.append(
                    f"log/{_printable(name)} is not named by the manifest: "
                    "it is being made, or the next opening removes it"
                )

    def _add_up(self) -> None:
        report, ledger = self._report, self._ledger
        ledger.finish()
        report.damages += ledger.damages
        report.frames, report.streams, report.keys = ledger.frames, len(ledger.streams), len(ledger.keys)
        report.events = sum(len(stream.sizes_bytes) for stream in ledger.streams.values())
        report.position, report.revision = ledger.position, ledger.revision
        report.garbage_bytes = ledger.garbage_bytes
        of_no_stream = ledger.position - sum(stream.last_seq for stream in ledger.streams.values())
        # A stream that was begun after a sequence number took one position for all that it has not.
        if report.is_sound and of_no_stream > 0:
            report.notes.append(f"{of_no_stream} positions are of no event: this store was salvaged from a damaged one")


class _Content:
    """What a sealed segment holds, to be compared with what its footer, its manifest and its index say."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._digest = Digest()
        self._troubles: list[Damage] = []
        self._index = Index()
        self._segment_index = SegmentIndex(segment.number, segment.seed, segment.end)
        self._is_indexed = True

    def take(self, frames: list[Frame]) -> None:
        """Take in the next valid frames."""
        for frame in frames:
            if frame.type == FOOTER:
                self._check_footer(frame)
                continue
            self._digest.add([frame.checksum.to_bytes(4, "little")])
            if self._is_indexed:
                self._take_into_index(frame)

    def _check_footer(self, frame: Frame) -> None:
        # It need not be the last frame: where the next segment could not be made, more frames come after it.
        digest = self._digest.value()
        try:
            footer = decode_footer(frame.payload)
        except DECODING_ERRORS as error:
            self._troubles.append(Damage(self._segment.path, frame.offset, "a footer", f"something else: {error}"))
            return
        if (footer.frames, footer.digest) != (self._digest.frames, digest):
            self._troubles.append(
                Damage(
                    self._segment.path,
                    frame.offset,
                    f"a footer of {self._digest.frames} frames with the digest {digest.hex()}",
                    f"{footer.frames} frames and {footer.digest.hex()}",
                )
            )

    def _take_into_index(self, frame: Frame) -> None:
        try:
            take_in(self._index, self._segment_index, frame)
        except Exception:
            # A frame that contradicts others, or cannot be decoded: the ledger says which. No index fits it.
            self._is_indexed = False

    def troubles(self, sealed: Sealed) -> list[Damage]:
        """Where its frames, all of them valid, are not those that were sealed."""
        path, digest = self._segment.path, self._digest.value()
        found = list(self._troubles)
        if digest != sealed.digest:
            found.append(
                Damage(path, 0, f"frames with the digest {sealed.digest.hex()}, as the manifest says", digest.hex())
            )
        return found

    def index_file(self, sealed: Sealed) -> IndexFile:
        """What its index file should say."""
        return self._index.seal(self._segment_index, sealed.digest)


def _printable(name: str) -> str:
    """A file's name, of which the bytes that are no UTF-8 are written as such."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _trouble_in(file: IndexFile, made_again: IndexFile) -> str:
    """In what an index file differs from what its segment's frames say; nothing where it does not."""
    if (file.number, file.digest, file.seed) != (made_again.number, made_again.digest, made_again.seed):
        return f"that of segment {file.number} with the digest {file.digest.hex()}"
    try:
        is_right = _meaning(file) == _meaning(made_again)
    except (CorruptStore, *DECODING_ERRORS) as error:
        return f"one that cannot be: {error}"
    return "" if is_right else "another, made of other frames"


def _meaning(file: IndexFile) -> tuple[Any, ...]:
    """What an index file says, however it says it. Its high-water marks are of the log up to there, so left out."""
    return (
        file.frames,
        file.positions,
        file.kinds,
        file.kinds_of_frames,
        {stream.name: _places(stream) for stream in file.stream_table().rows() if stream.refs},
        file.keys,
        file.drops,
        file.states,
    )


def _places(stream: IndexedStream) -> tuple[bytes | memoryview, list[int]]:
    if stream.firsts is not None:
        return stream.refs, array_of(stream.firsts).tolist()
    return stream.refs, list(range(stream.first_seq, stream.first_seq + len(stream.refs) // 8))
