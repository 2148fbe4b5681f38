"""The file engine on a simulated disk, as a store for one thread: its time and its randomness are arguments."""

import hashlib
from collections.abc import Sequence
from itertools import count
from typing import Any, TypeVar, cast

import msgspec

from interpreters.clocks import RandomBytes
from interpreters.disk.crashing import CrashDisk
from interpreters.explore.virtual import START_MICROSECONDS
from interpreters.stores.file.engine import Engine, EngineOptions
from interpreters.stores.file.queries import Queries
from interpreters.stores.group import WriteRequest
from persist_effects.errors import PersistError, StoreUnavailable, UnhandledEffect
from persist_effects.listing import all_names
from persist_effects.machine import Effect, Handlers, perform, run, through
from persist_effects.requests import (
    PAGE_SIZE_MAX,
    READS,
    WAITS,
    WRITES,
    AllOf,
    Answered,
    Failed,
    KvGet,
    KvKeys,
    KvWait,
    LastSeq,
    Outcome,
    Read,
    ReadAll,
    Request,
    Streams,
    Wait,
)
from persist_effects.rows import is_program_row

A = TypeVar("A")

NO_EFFECTS: Handlers = {}

_SEED = 0
"""With another one, other salts: a few more images are equal, or a few less."""


class Compact(Request[None], frozen=True, tag="simulate/compact"):
    """In a workload that is explored: compact the store's files, as `FileStore.compact` does."""


class Reopen(Request[None], frozen=True, tag="simulate/reopen"):
    """In a workload that is explored: close the store, and open it again."""


class Mark(Request[None], frozen=True, tag="simulate/mark"):
    """In a workload that is explored: what a store does once it has been idle for a while."""


class SimulatedStore:
    """An engine on a disk, opened. ``boot`` numbers the processes that open the store, each with its own salts."""

    def __init__(self, disk: CrashDisk, *, boot: int, segment_bytes: int) -> None:
        self.disk = disk
        self.engine = engine_of(boot, segment_bytes)
        self.handlers: Handlers = dict.fromkeys(WRITES | READS | WAITS, self._answer)
        self.drive(self.engine.open())

    def commit(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """The outcomes of writes that share one sync. Raises where the disk refuses."""
        return self.drive(self.engine.commit(requests))

    def compact(self) -> None:
        """Give back the space of what is dead."""
        self.drive(self.engine.compact())

    def close(self) -> None:
        """Close the store as a process does that ends well."""
        self.drive(self.engine.close())

    def drive(self, program: Effect[A]) -> A:
        """Drive a program over `disk/*`; what the disk refuses is `StoreUnavailable`, as in a store of files."""
        try:
            return run(program, self.disk.handlers)
        except OSError as error:
            raise StoreUnavailable(f"the disk: {error}") from error

    def unwatched(self, request: Request[Any]) -> Any:
        """The answer to a read by somebody else, at this moment; it leaves no trace, here or on the disk's count."""
        rows = dict.fromkeys(self.disk.handlers, self.disk.answer)
        return run(Queries(self.engine.index).answer(request), rows)

    def _answer(self, request: Request[Any]) -> Any:
        return self.drive(over_disk(self.engine, perform(request)))


def engine_of(boot: int, segment_bytes: int) -> Engine:
    """An engine that is not open yet, whose randomness depends on the boot alone."""
    # The clock stands still: the order of events is by number alone.
    drawn = bytes_drawn(f"{_SEED} {boot}")
    return Engine(EngineOptions(lambda: START_MICROSECONDS, drawn, f"boot {boot}", "commit", segment_bytes))


def bytes_drawn(label: str) -> RandomBytes:
    """A source of bytes, at most 64 at once, that are the same in each run, and other ones for each label."""
    numbers = count()
    return lambda size: hashlib.blake2b(f"{label} {next(numbers)}".encode(), digest_size=size).digest()


class Contents(msgspec.Struct, frozen=True):
    """All that a store shows: of each stream its high-water mark and events, every key, the order over all streams."""

    streams: dict[str, tuple[int, int, list[Any]]]
    """By name: the last sequence number, the first that was not dropped, and the events, as readers get them."""
    keys: dict[str, tuple[int, Any]]
    """By name: revision and value."""
    order: list[tuple[int, str, int]]
    """Position, stream and sequence number of each event, as `ReadAll` gives them."""
    position: int


def contents() -> Effect[Contents]:
    """What a store shows, as a program."""
    streams = {}
    for name in (yield from all_names(Streams, "")):
        page = yield from perform(Read(name, limit=PAGE_SIZE_MAX))
        events = [msgspec.structs.astuple(event) for event in page.events]
        first_left = 1 if page.hole is None else page.hole.first_left
        streams[name] = ((yield from perform(LastSeq(name))), first_left, events)
    keys = {}
    for name in (yield from all_names(KvKeys, "")):
        entry = yield from perform(KvGet(name))
        assert entry is not None, "a key that was listed is there"
        keys[name] = (entry.revision, entry.value)
    order: list[tuple[int, str, int]] = []
    after, head = 0, 1
    while after < head:
        page = yield from perform(ReadAll(after, limit=PAGE_SIZE_MAX))
        order += [(event.position, event.stream, event.seq) for event in page.events]
        after, head = page.next, page.head
    return Contents(streams, keys, order, head)


def over_disk(engine: Engine, program: Effect[A], effects: Handlers = NO_EFFECTS) -> Effect[A]:
    """A program of an open engine's requests as one of `disk/*` requests; ``effects`` answer others at once."""
    return (yield from through(program, lambda request: _answered(engine, request, effects), (PersistError, OSError)))


def _answered(engine: Engine, request: Request[Any], effects: Handlers) -> Effect[Any]:
    if type(request) in effects:
        row = effects[type(request)]
        return (yield from over_disk(engine, row(request), effects)) if is_program_row(row) else row(request)
    if isinstance(request, AllOf):
        outcomes = []
        for part in request.requests:
            outcomes.append((yield from _outcome(engine, part, effects)))  # noqa: PERF401 - no comprehension may yield
        return outcomes
    if type(request) in WRITES:
        (outcome,) = yield from engine.commit([cast(WriteRequest, request)])
        if isinstance(outcome, Answered):
            return outcome.value
        raise outcome.error
    if isinstance(request, Wait | KvWait):
        return engine.index.newest(request)
    if type(request) not in READS:
        raise UnhandledEffect(request.op, type(request).__name__)
    return (yield from engine.queries.answer(request))


def _outcome(engine: Engine, request: Request[Any], effects: Handlers) -> Effect[Outcome]:
    try:
        return Answered((yield from _answered(engine, request, effects)))
    except (PersistError, OSError) as error:
        return Failed(error)


def difference(found: Contents, wanted: Contents) -> tuple[str, str]:
    """Where two contents differ first: what was expected there, and what was found."""
    for part in ("streams", "keys"):
        have, want = getattr(found, part), getattr(wanted, part)
        for name in [*want, *have]:
            if have.get(name) != want.get(name):
                what = f"{part[:-1]} {name!r}"
                return f"{what}: {_shortly(part, want.get(name))}", f"{what}: {_shortly(part, have.get(name))}"
    if found.order != wanted.order:
        return f"the order {wanted.order!r:.200}", f"the order {found.order!r:.200}"
    return f"the newest position {wanted.position}", f"{found.position}"


def _shortly(part: str, shown: Any) -> str:
    if shown is None:
        return "absent"
    if part == "keys":
        return f"{shown[1]!r:.80} at revision {shown[0]}"
    last_seq, first_left, events = shown
    dropped = f" from {first_left} on" if first_left > 1 else ""
    told = ", ".join(f"{event[1]} ({event[2]} {event[4]!r:.40})" for event in events[-4:])
    return f"last sequence number {last_seq}, {len(events)} events{dropped}{': … ' if len(events) > 4 else ': '}{told}"
