"""A whole store copied into another one of any kind: what was begun goes on where it stopped, and all is compared.

Kept are the events, their order over all streams, sequence numbers and times, high-water marks, truncations, keys and
the order of their revisions. Positions and revisions are the new store's own, and all of them above those of the old
one, so that what expects an old number conflicts, and whoever goes on from an old position misses nothing. The
checkpoints of followers stand behind the event that they stood behind.

How far it is stands in the new store, under the key ``migration/state``, in the transactions that copy. So it may be
stopped, or killed, at any moment.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from interpreters.jsonl import Counts, Progress
from interpreters.runtime.store import Store
from persist_effects import kv, log
from persist_effects.errors import CorruptStore, InvalidRequest
from persist_effects.event import INT64_MAX, Draft, Event
from persist_effects.machine import Effect, perform
from persist_effects.requests import (
    Append,
    Begin,
    Conflict,
    Entry,
    KvDelete,
    KvEntries,
    KvPut,
    Read,
    ReadAll,
    Streams,
    Transact,
    TruncateThrough,
    Write,
)

STATE = "migration/state"
"""The key in the new store that says how far it is."""

PAGE = 1_000


class _State(msgspec.Struct):
    """How far it is: through which position and which revision of the old store."""

    position: int = 0
    revision: int = 0


def migrate(old: Store, new: Store, progress: Progress | None = None) -> Counts:
    """Copy all that a store holds, which nobody writes meanwhile, and compare both.

    Args:
        old: The store.
        new: An empty one, or one that an interrupted migration from the same store has begun to fill.
        progress: Told now and then how far it is.

    Returns:
        How many events, streams and keys there are.

    Raises:
        InvalidRequest: If the new store holds something else, before anything is written.
        CorruptStore: If the stores differ in the end; the new one is to be thrown away.

    >>> from interpreters import open_store
    >>> old, new = open_store("memory:"), open_store("memory:")
    >>> _ = old.run(log.append("orders/1", "placed", {"total": 12}))
    >>> migrate(old, new).events
    1
    >>> new.run(log.read("orders/1"))[0].data
    {'total': 12}
    """
    copy = Copy(old, new, progress)
    copy.begin()
    copy.events()
    copy.streams()
    copy.keys()
    counts = copy.compare()
    copy.end()
    return counts


class Copy:
    """The copying of one store into another.

    Args:
        old: The store.
        new: The other one.
        progress: Told now and then how far it is.
    """

    def __init__(self, old: Store, new: Store, progress: Progress | None = None) -> None:
        self._old = old
        self._new = new
        self._progress = progress
        self._state = _State()
        self._last_seqs: dict[str, int] = {}

    def begin(self) -> None:
        """See to it that the new store is empty, or holds what was copied before, and goes on above the old one.

        Raises:
            InvalidRequest: If it holds something else.
        """
        found = self._new.run(kv.get(STATE))
        if found is not None:
            self._state = _state_of(found)
            self._check_last_event()
            return
        self._new.run(_check_empty())
        position = self._old.run(log.head())
        revision = self._old.run(kv.wait(INT64_MAX, timeout=0))
        self._new.run(log.advance(position, revision))
        self._new.run(kv.put_expect(STATE, 0, msgspec.to_builtins(self._state)))

    def end(self) -> None:
        """Take away what was noted."""
        self._new.run(kv.delete(STATE))

    def _check_last_event(self) -> None:
        """Refuse a new store that was filled from another one than this."""
        (ours,) = self._old.run(_last_through(self._state.position)) or (None,)
        if ours is None:
            return
        theirs = self._new.run(log.read_range(ours.stream, ours.seq, ours.seq))
        if [_plain(event) for event in theirs] != [_plain(ours)]:
            raise InvalidRequest(
                f"the new store was filled from another one: expected event {ours.seq} of stream {ours.stream!r} to be "
                "as in the old one: migrate into an empty store"
            )

    # Events

    def events(self) -> None:
        """Copy the events that are not copied yet, in their order."""
        while True:
            page = self._old.run(log.page_all(after=self._state.position, limit=PAGE))
            self._copy_events(page.events, page.next)
            self._tell(page.next, page.head)
            if page.next >= page.head:
                return

    def _copy_events(self, events: Sequence[Event], position: int) -> None:
        writes: list[Write] = []
        for stream, run in groupby(events, attrgetter("stream")):
            writes += self._writes_for(stream, list(run))
        if writes or position > self._state.position:
            self._commit(writes, _State(position, self._state.revision))

    def _writes_for(self, stream: str, events: Sequence[Event]) -> Iterator[Write]:
        last = self._last_seqs.get(stream)
        if last is None:
            last = self._new.run(log.last_seq(stream))
        # What was copied before is there already.
        events = [event for event in events if event.seq > last]
        if not events:
            return
        first = events[0].seq
        if first > last + 1 and not last:
            yield Begin(stream, first - 1)
        elif first > last + 1:
            # They were dropped before they were copied.
            yield Append(stream, (Draft("dropped", None),) * (first - 1 - last), last)
            yield TruncateThrough(stream, first - 1)
        yield Append(stream, tuple(Draft(each.type, each.data, each.at, each.meta) for each in events), first - 1)
        self._last_seqs[stream] = events[-1].seq

    # Streams

    def streams(self) -> None:
        """Begin the streams of which no event is left, and truncate those that were truncated since."""
        names = self._old.run(log.streams())
        for count, name in enumerate(names, 1):
            dropped, last = self._old.run(_bounds_of(name))
            found_dropped, found_last = self._new.run(_bounds_of(name))
            if last and not found_last:
                self._run_alone(Begin(name, last))
            elif dropped > found_dropped:
                self._run_alone(TruncateThrough(name, dropped))
            self._tell(count, len(names))

    # Keys

    def keys(self) -> None:
        """Copy the keys that were changed since, in the order of their revisions, and delete those that are gone."""
        entries = dict(self._old.run(kv.entries()))
        changed = sorted(
            (entry.revision, key) for key, entry in entries.items() if entry.revision > self._state.revision
        )
        for start in range(0, len(changed), PAGE):
            part = changed[start : start + PAGE]
            puts = [KvPut(key, self._value_of(key, entries[key])) for _, key in part]
            self._commit(puts, _State(self._state.position, part[-1][0]))
            self._tell(start + len(part), len(changed))
        gone = [key for key, _ in self._new.run(kv.entries()) if key not in entries and key != STATE]
        for start in range(0, len(gone), PAGE):
            self._commit([KvDelete(key) for key in gone[start : start + PAGE]], self._state)

    def _value_of(self, key: str, entry: Entry) -> Any:
        """A key's value, with positions of the new store where this package has put some of the old one there."""
        value = entry.value
        if not key.startswith("follow/") or not isinstance(value, dict) or type(value.get("position")) is not int:
            return value
        return {**value, "position": self._position_of(value["position"])}

    def _position_of(self, position: int) -> int:
        """Where whoever stands at a position of the old store stands in the new one."""
        if position >= self._old.run(log.head()):
            return self._new.run(log.head())
        (last,) = self._old.run(_last_through(position)) or (None,)
        if last is None:
            return 0
        (copied,) = self._new.run(log.read_range(last.stream, last.seq, last.seq))
        return copied.position

    # Comparing

    def compare(self) -> Counts:
        """Compare every event, stream and key.

        Returns:
            How many there are.

        Raises:
            CorruptStore: Where they differ.
        """
        counts = Counts()
        after_old = after_new = 0
        while True:
            ours = self._old.run(log.page_all(after=after_old, limit=PAGE))
            theirs = self._new.run(perform(ReadAll(after_new, limit=max(len(ours.events), 1))))
            found, expected = [_plain(event) for event in theirs.events], [_plain(event) for event in ours.events]
            if ours.events and found != expected:
                raise CorruptStore(_first_difference(expected, found))
            counts.events += len(ours.events)
            after_old = ours.next
            after_new = theirs.events[-1].position if ours.events else after_new
            self._tell(after_old, ours.head)
            if ours.next >= ours.head:
                break
        if left := self._new.run(perform(ReadAll(after_new, limit=1))).events:
            (extra,) = left
            raise CorruptStore(f"the new store has event {extra.seq} of stream {extra.stream!r}, the old one has not")
        self._compare_streams(counts)
        self._compare_keys(counts)
        return counts

    def _compare_streams(self, counts: Counts) -> None:
        expected, found = self._old.run(log.streams()), self._new.run(log.streams())
        if expected != found:
            (name, *_) = sorted(set(expected) ^ set(found))
            raise CorruptStore(f"stream {name!r} is in one store only")
        for name in expected:
            bounds, others = self._old.run(_bounds_of(name)), self._new.run(_bounds_of(name))
            if bounds != others:
                raise CorruptStore(f"stream {name!r}: expected (dropped, last) {bounds}, found {others}")
            counts.streams += 1
            self._tell(counts.streams, len(expected))

    def _compare_keys(self, counts: Counts) -> None:
        expected = self._old.run(kv.entries())
        found = dict(self._new.run(kv.entries()))
        found.pop(STATE, None)
        for key, entry in expected:
            other = found.pop(key, None)
            value = self._value_of(key, entry)
            if other is None or msgspec.msgpack.encode(other.value) != msgspec.msgpack.encode(value):
                shown = "nothing" if other is None else f"{other.value!r:.100}"
                raise CorruptStore(f"key {key!r}: expected {value!r:.100}, found {shown}")
            counts.keys += 1
        for key in found:
            raise CorruptStore(f"the new store has key {key!r}, which the old one has not")

    # Writing

    def _commit(self, writes: Sequence[Write], state: _State) -> None:
        """Write, and note in the same transaction how far it is then."""
        self._run_alone(Transact((*writes, KvPut(STATE, msgspec.to_builtins(state)))))
        self._state = state

    def _run_alone(self, request: Any) -> None:
        answer = self._new.run(perform(request))
        if isinstance(answer, Conflict):
            raise InvalidRequest(
                f"{answer.kind} {answer.name!r} of the new store is at {answer.actual}, expected {answer.expected}: "
                "another program writes to it: migrate into a store of its own"
            )

    def _tell(self, done: int, of: int) -> None:
        if self._progress is not None:
            self._progress(done, of)


def _bounds_of(stream: str) -> Effect[tuple[int, int]]:
    """Through which sequence number a stream was dropped, and its last one."""
    page = yield from perform(Read(stream, limit=1))
    return (0 if page.hole is None else page.hole.first_left - 1), page.head


def _last_through(position: int) -> Effect[list[Event]]:
    """The last event at or below a position, if one is left."""
    page = yield from perform(ReadAll(until=position, limit=1, backwards=True))
    return page.events


def _check_empty() -> Effect[None]:
    streams = yield from perform(Streams(limit=1))
    keys = yield from perform(KvEntries(limit=1))
    if streams or keys:
        found = f"stream {streams[0]!r}" if streams else f"key {keys[0][0]!r}"
        raise InvalidRequest(f"the new store has {found}: migrate into an empty store")


def _state_of(found: Any) -> _State:
    try:
        return msgspec.convert(found, _State)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the new store's key {STATE!r} is none of ours: {error}: delete it") from error


def _plain(event: Event) -> tuple[Any, ...]:
    """What of an event is the same in both stores."""
    return event.stream, event.seq, event.type, event.at, msgspec.msgpack.encode(event.data), event.meta


def _first_difference(expected: Sequence[Any], found: Sequence[Any]) -> str:
    for one, other in zip(expected, found, strict=False):
        if one != other:
            return f"expected event {one[1]} of stream {one[0]!r}, {one!r:.200}, found {other!r:.200}"
    return f"expected {len(expected)} events, found {len(found)}"
