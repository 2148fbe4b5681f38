"""The file engine: a store on the `disk/*` requests. It knows no system call, and runs on any disk.

Everything is a generator. Reads look into the index and read frames; writes are staged, written as frames, synced, and
only then taken into the index, so nobody is ever shown what is not yet on the disk (as far as ``sync`` says).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from interpreters.stores.compacting import Compacted
from interpreters.stores.file.compaction import Compaction
from interpreters.stores.file.index import Index
from interpreters.stores.file.queries import Queries
from interpreters.stores.file.segments import SegmentLog
from interpreters.stores.file.staging import Staging
from interpreters.stores.group import NO_MEMORY, NO_MEMORY_NOR_WORD, WriteRequest
from persist_effects import codec
from persist_effects.errors import StoreUnavailable, UncertainOutcome
from persist_effects.machine import Effect
from persist_effects.planning import Limits
from persist_effects.requests import (
    Advance,
    Append,
    Begin,
    KvDelete,
    KvPut,
    Outcome,
    Read,
    Request,
    Transact,
    TruncateThrough,
)

_DROP_NOTHING: frozenset[type[Request[Any]]] = frozenset({Advance, Append, Begin, KvPut, KvDelete})


class EngineOptions(NamedTuple):
    """How an engine works. ``sync``: acknowledged means on the disk ("commit"), or handed to the system ("os")."""

    clock: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    holder: str
    sync: str = "commit"
    segment_bytes: int = 32 * 1024 * 1024
    payload_limit_bytes: int = codec.PAYLOAD_LIMIT_BYTES
    is_check_due: Callable[[], bool] = lambda: True
    """Whether to look, after a commit that is not synced, that the directory is still the one that is held."""


class Engine:
    """One store, open for reading and writing. Its methods are programs over `disk/*`, one writing at a time."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.index = Index()
        self.log = SegmentLog(
            self.index, options.random_bytes, options.segment_bytes, options.holder, options.is_check_due
        )
        self.queries = Queries(self.index)
        self._limits = Limits(options.payload_limit_bytes, codec.encode_new_events)

    def open(self) -> Effect[None]:
        """Take the lock, and bring the store to where it was when it was closed, or went down."""
        yield from self.log.guarded("the opening", self.log.open())
        # Of the deletions before, only what no compaction has left out is known.
        self.index.revisions.forget(self.index.revision)

    def close(self) -> Effect[None]:
        """Seal what is open, so that the next opening finds everything proved."""
        yield from self.log.guarded("the closing", self.log.close())

    def sync(self) -> Effect[None]:
        """Bring to the disk what was written with ``sync="os"`` or ``"interval"``."""
        yield from self.log.guarded("a sync", self.log.sync())

    def mark(self) -> Effect[None]:
        """Have the last commits proved, as those before were by what followed them."""
        yield from self.log.guarded("a mark", self.log.mark())

    # Writing

    def commit(self, requests: Sequence[WriteRequest]) -> Effect[list[Outcome]]:
        """Carry out writes, each all or nothing, all with one sync; the outcome of each, in order.

        Raises where the disk refuses, or memory is lacking, and then none of them was carried out: `StoreUnavailable`
        if that is certain, `UncertainOutcome` if it is not.
        """
        try:
            staging = Staging(self.index, self._options.clock(), self._limits)
            if not _DROP_NOTHING.issuperset(map(type, requests)):
                yield from self._find_dropped_positions(requests, staging)
            outcomes = staging.stage(requests)
        except MemoryError as error:
            raise StoreUnavailable(f"nothing was written: {NO_MEMORY}") from error
        if staging.frames.payloads:
            appending = self.log.append(staging.frames, sync=self._options.sync == "commit")
            try:
                yield from self.log.guarded("a commit", appending)
            except MemoryError as error:
                raise UncertainOutcome(NO_MEMORY_NOR_WORD) from error
        return outcomes

    def _find_dropped_positions(self, requests: Sequence[WriteRequest], staging: Staging) -> Effect[None]:
        for request in requests:
            writes = request.writes if isinstance(request, Transact) else (request,)
            for write in writes:
                if isinstance(write, TruncateThrough) and (seq := staging.last_dropped(write)) is not None:
                    page = yield from self.queries.answer(Read(write.stream, seq - 1, seq))
                    staging.know_position(write.stream, seq, page.events[0].position)

    def newest_of(self, requests: Sequence[Request[Any]]) -> tuple[dict[str, int], dict[str, int]]:
        """The newest positions of the streams, and the newest revisions of the keys, that a commit may have changed.

        Args:
            requests: The writes of the commit.

        Returns:
            Them, by the names of the streams and by the keys.
        """
        changed, keys = set(), set()
        for request in requests:
            for write in request.writes if isinstance(request, Transact) else (request,):
                if isinstance(write, Append | Begin):
                    changed.add(write.stream)
                elif isinstance(write, KvPut | KvDelete):
                    keys.add(write.key)
        # Where all that was asked of a new one conflicted, it is not there.
        streams = filter(None, map(self.index.stream, changed))
        positions = {stream.name: stream.last_position for stream in streams}
        return positions, {key: self.index.last_change_of(key) for key in keys}

    def roll_over(self) -> Effect[None]:
        """Seal the active segment."""
        yield from self.log.guarded("a roll-over", self.log.roll_over())

    def compaction(self) -> Compaction:
        """A compaction of what is sealed now."""
        return Compaction(self.index, self.log)

    def compact(self) -> Effect[Compacted]:
        """A whole compaction, for who has the store to itself meanwhile."""
        yield from self.roll_over()
        compaction = self.compaction()
        yield from compaction.copy()
        compacted = yield from compaction.publish()
        yield from compaction.remove_old()
        return compacted
