"""Reading along: a process that follows a store which another process writes. It takes no lock and writes nothing.

It shows only what the writer has said to be on the disk, so nothing that a crash could still take back.
"""

from typing import Any

from interpreters.disk import requests as disk
from interpreters.stores.file.format import HEADER_BYTES, SegmentHeader, decode_header
from interpreters.stores.file.index import Index, SegmentIndex
from interpreters.stores.file.manifest import SYNCED, Manifest, load_beside_writer, load_synced, segment_path
from interpreters.stores.file.queries import Queries
from interpreters.stores.file.scan import Proof, Scan, Segment
from interpreters.stores.file.sealed import (
    check_header,
    check_nothing_is_left_out,
    check_order,
    load_sealed,
    take_in_frame,
    take_in_sealed,
)
from persist_effects.errors import CorruptStore, InvalidRequest
from persist_effects.machine import Effect, perform
from persist_effects.requests import Request

_ATTEMPTS = 100
"""How often a reader begins anew because a compaction took a file away: each time is a new manifest."""


class ReaderEngine:
    """One store, open for reading beside its writer. Its methods are programs over `disk/*`."""

    def __init__(self) -> None:
        self.index = Index()
        self._queries = Queries(self.index)
        self._manifest: Manifest | None = None
        self._active: SegmentHeader | None = None
        self._proved = 0

    def open(self) -> Effect[None]:
        """Find the store. Raises `InvalidRequest` where there is none, and `CorruptStore`."""
        yield from self.refresh()

    def answer(self, request: Request[Any]) -> Effect[Any]:
        """The answer to a request that writes nothing, as of now."""
        return (yield from self._look(request))

    def refresh(self) -> Effect[None]:
        """Take in what the writer has brought to the disk since."""
        yield from self._look(None)

    def _look(self, request: Request[Any] | None) -> Effect[Any]:
        """Take in what is new and answer the request, if there is one: anew, where a compaction takes a file away."""
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                yield from self._take_in()
                return None if request is None else (yield from self._queries.answer(request))
            except FileNotFoundError:
                # Between two reads: the manifest is a new one then.
                self._manifest = None
                if not attempts_left:
                    raise

    def _take_in(self) -> Effect[None]:
        manifest = yield from self._load_in_force()
        number, offset = yield from load_synced()
        while manifest.active is not None and number > manifest.active:
            # That one was sealed since, and only a newer manifest says how far it goes. There is none where SYNCED is
            # not of this store.
            before, manifest = manifest, (yield from self._load_in_force())
            if manifest == before:
                break
            number, offset = yield from load_synced()
        if number == manifest.active:
            self._proved = max(self._proved, offset)
        # Where an interrupt leaves a frame half taken in, all is loaded anew the next time.
        self._manifest = None
        yield from self._take_in_active()
        self._manifest = manifest

    def _load_in_force(self) -> Effect[Manifest]:
        """Load what the manifest in force names, unless that is what is loaded. Returns the manifest."""
        while True:
            manifest = yield from load_beside_writer()
            if manifest is None:
                raise InvalidRequest("there is no store in this directory: open it to write once, or mend the path")
            if manifest == self._manifest:
                return manifest
            try:
                yield from self._load(manifest)
            except (FileNotFoundError, CorruptStore):
                # A compaction may have taken a segment away since: then there is another manifest in force.
                if (yield from load_beside_writer()) == manifest:
                    raise

    def _load(self, manifest: Manifest) -> Effect[None]:
        self._manifest = None
        self.index = Index()
        self._queries = Queries(self.index)
        headers = []
        for sealed in manifest.sealed:
            loaded = yield from load_sealed(sealed, manifest.uuid, mend=False)
            take_in_sealed(self.index, loaded)
            headers.append(loaded.header)
        self._active, self._proved = None, 0
        if manifest.active is not None:
            headers.append((yield from self._begin_active(manifest.active, manifest.uuid)))
        check_order(manifest, headers)
        yield from check_nothing_is_left_out(manifest, headers)
        self.index.revisions.forget(self.index.revision)
        self._manifest = manifest

    def _begin_active(self, number: int, uuid: bytes) -> Effect[SegmentHeader]:
        path = segment_path(number)
        size_bytes = yield from perform(disk.Size(path))
        if size_bytes is None:
            raise CorruptStore(
                f"{path} is not there, though the manifest names it: restore a backup or salvage the store"
            )
        header = decode_header((yield from perform(disk.Read(path, 0, HEADER_BYTES))), path)
        check_header(header, number, uuid)
        self._active = header
        self.index.segments[number] = SegmentIndex(number, header.seed, HEADER_BYTES)
        # Where no writer is left to say how far it came, its frames do.
        scan, proof = Scan(Segment(number, path, header.seed, size_bytes, True)), Proof()
        while frames := (yield from scan.frames()):
            proof.take(frames)
        self._proved = proof.end
        return header

    def _take_in_active(self) -> Effect[None]:
        if self._active is None:
            return
        segment = self.index.segments[self._active.number]
        start = segment.length_bytes
        if self._proved <= start:
            return
        path = segment_path(segment.number)
        scan = Scan(Segment(segment.number, path, segment.seed, self._proved, True), start)
        while frames := (yield from scan.frames()):
            for frame in frames:
                segment.length_bytes = frame.end
                take_in_frame(self.index, segment, frame)
        if scan.offset < self._proved:
            raise CorruptStore(
                f"{path}: offset {scan.offset}: no valid frame, though {SYNCED} or a frame says that the segment is on "
                f"the disk up to {self._proved}: run `persist-effects verify`"
            )
