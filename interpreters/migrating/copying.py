"""A whole store copied into another one of any kind: what was begun goes on where it stopped, and all is compared.

Kept are the events, their order over all streams, sequence numbers and times, high-water marks, truncations, keys and
the order of their revisions. Positions and revisions are the new store's own, and all of them above those of the old
one, so that what expects an old number conflicts, and whoever goes on from an old position misses nothing. The
checkpoints of followers stand behind the event that they stood behind.

How far it is stands in the new store, under the key ``migration/state``, in the transactions that copy. So it may be
stopped, or killed, at any moment.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from interpreters.jsonl import Counts, Progress, check_empty
from interpreters.migrating.comparing import STATE, Bounds, Comparison, bounds_in, bounds_of, plain
from interpreters.runtime.store import ORDER_SECONDS, Store
from persist_effects import kv, log
from persist_effects.errors import CorruptStore, InvalidRequest
from persist_effects.event import INT64_MAX, Draft, Event
from persist_effects.following.records import KEPT, positions_in
from persist_effects.machine import Effect, all_of, perform
from persist_effects.requests import (
    Append,
    Begin,
    Conflict,
    Entry,
    KvDelete,
    KvPut,
    ReadAll,
    Transact,
    TruncateThrough,
    Write,
)

PAGE = 1_000

OnEvents = Callable[[Sequence[Event]], None]
"""Is given the events of the old store as they are copied."""


class CopyState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a copy is: through which position of the old store.

    The others are those of a `Mirror`. ``base``: the positions and revisions that all of the new store are above. Where
    this store answers, ``era`` says how often that has changed, and ``bases`` above which position each era stands.
    Where it follows, ``of`` is the era of the one that answers.
    """

    position: int = 0
    base: tuple[int, int] = (0, 0)
    era: int = 0
    bases: tuple[int, ...] = ()
    of: int = 0


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
        StoreUnavailable: If one of them cannot be asked, or does not show all that it has acknowledged. Do it again.

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
    """The copying of one store into another. Where anything goes wrong, go on with a new one.

    Args:
        old: The store.
        new: The other one.
        progress: Told now and then how far it is.
        on_events: Given the events as they are copied.
        order_seconds: How long a store whose order lags may take to show all that it has acknowledged.
    """

    def __init__(
        self,
        old: Store,
        new: Store,
        progress: Progress | None = None,
        on_events: OnEvents = lambda events: None,
        order_seconds: float = ORDER_SECONDS,
    ) -> None:
        self._old = old
        self._new = new
        self.progress = progress
        """Told now and then how far it is."""
        self._on_events = on_events
        self._order_seconds = order_seconds
        self.state = CopyState()
        """How far it is."""
        self._last_seqs: dict[str, int] = {}
        # The keys that were put since all were looked at, by the revisions that they had, and where that began.
        self._put: list[tuple[int, str]] = []
        self._looked_at = 0
        # Streams of which events were dropped that all had seen who stand at a position, by that position.
        self._to_begin: list[tuple[int, list[str]]] = []

    def begin(self, headroom: int = 0) -> None:
        """See to it that the new store is empty, or holds what was copied before, and goes on above the old one.

        Args:
            headroom: How many positions and revisions the old one may take meanwhile.

        Raises:
            InvalidRequest: If it holds something else.
            StoreUnavailable: If the old one does not show all that it has acknowledged.
        """
        found = state_in(self._new)
        if found is not None:
            self.state = found
            self._old.wait_for_order(self._order_seconds)
            self._check_last_event()
        else:
            check_empty(self._new, "the new store", "migrate into an empty store")
            self.begin_at(CopyState(), headroom)
        self._find_what_was_seen_before_it_was_dropped()

    def begin_at(self, state: CopyState, headroom: int) -> None:
        """Have the new store go on above the old one, and note how far it is already.

        Args:
            state: How far it is. Its ``base`` is found here.
            headroom: How many positions and revisions the old one may take meanwhile.

        Raises:
            StoreUnavailable: If the old one does not show all that it has acknowledged.
        """
        position, revision = newest_of(self._old, self._order_seconds)
        base = (position + headroom, revision + headroom)
        self._new.run(log.advance(*base))
        self._looked_at = revision
        self.state = msgspec.structs.replace(state, base=base)
        self._run_alone(noting(self.state))

    def end(self) -> None:
        """Take away what was noted."""
        self._new.run(kv.delete(STATE))

    def _check_last_event(self) -> None:
        """Refuse a new store that was filled from another one than this."""
        (ours,) = self._old.run(_last_through(self.state.position)) or (None,)
        if ours is None:
            return
        theirs = self._new.run(log.read_range(ours.stream, ours.seq, ours.seq))
        if [plain(event) for event in theirs] != [plain(ours)]:
            raise InvalidRequest(
                f"the new store was filled from another one: expected event {ours.seq} of stream {ours.stream!r} to be "
                "as in the old one: migrate into an empty store"
            )

    def _find_what_was_seen_before_it_was_dropped(self) -> None:
        """So that no follower is told of a hole that it had passed, nor passes one that it is to be told of."""
        entries = self._old.run(kv.entries(KEPT))
        positions = sorted({at for key, entry in entries for at in positions_in(key, entry.value).values()})
        streams: dict[int, list[str]] = {}
        for name in self._old.run(log.streams()) if positions else ():
            dropped, _ = self._old.run(bounds_of(name))
            at = bisect_left(positions, True, key=lambda position: not self._old.run(_has_hole(name, position)))
            if dropped and at < len(positions):
                streams.setdefault(positions[at], []).append(name)
        self._to_begin = [pair for pair in sorted(streams.items()) if pair[0] > self.state.position]

    # Events

    def events(self) -> None:
        """Copy the events that are not copied yet, in their order, as far as there are some now."""
        head = self._old.run(log.head())
        while True:
            page = self._old.run(log.page_all(after=self.state.position, limit=PAGE))
            self._on_events(page.events)
            self._copy_events(page.events, page.next)
            self._tell(page.next, page.head)
            if page.next >= min(page.head, head):
                return

    def _copy_events(self, events: Sequence[Event], position: int) -> None:
        # Asked together: one after the other, each would go to a server and back.
        unknown = sorted({event.stream for event in events} - self._last_seqs.keys())
        if unknown:
            self._last_seqs.update(zip(unknown, self._new.run(all_of(*map(log.last_seq, unknown))), strict=True))
        writes: list[Write] = []
        while self._to_begin and self._to_begin[0][0] <= position:
            at, names = self._to_begin[0]
            before = bisect_right(events, at, key=attrgetter("position"))
            writes += self._writes_for_all(events[:before])
            writes += self._beginnings(names)
            events = events[before:]
            del self._to_begin[0]
        writes += self._writes_for_all(events)
        if writes or position > self.state.position:
            state = msgspec.structs.replace(self.state, position=position)
            self._commit(writes, state)
            self.state = state

    def _writes_for_all(self, events: Sequence[Event]) -> Iterator[Write]:
        for stream, run in groupby(events, attrgetter("stream")):
            yield from self._writes_for(stream, list(run))

    def _beginnings(self, names: Iterable[str]) -> Iterator[Write]:
        for name in names:
            dropped, _ = self._old.run(bounds_of(name))
            if dropped and not (self._last_seqs.get(name) or self._new.run(log.last_seq(name))):
                yield Begin(name, dropped)
                self._last_seqs[name] = dropped

    def _writes_for(self, stream: str, events: Sequence[Event]) -> Iterator[Write]:
        last = self._last_seqs[stream]
        # What was copied before is there already.
        events = [event for event in events if event.seq > last]
        if not events:
            return
        first = events[0].seq
        if first > last + 1:
            yield from self._dropped(stream, last, first - 1)
        yield Append(stream, tuple(Draft(each.type, each.data, each.at, each.meta) for each in events), first - 1)
        self._last_seqs[stream] = events[-1].seq

    def _dropped(self, stream: str, last: int, through: int) -> Iterator[Write]:
        """What brings a stream to where the events up to one were dropped, which were not copied before."""
        if not last:
            yield Begin(stream, through)
        else:
            yield Append(stream, (Draft("dropped", None),) * (through - last), last)
            yield TruncateThrough(stream, through)

    # Streams

    def streams(self, names: Iterable[str] | None = None) -> None:
        """Begin the streams of which no event is left, and truncate those that were truncated since.

        Args:
            names: Those that may have been; None: all.
        """
        among = self._old.run(log.streams()) if names is None else list(names)
        done = 0
        for part, bounds, others in bounds_in(self._old, self._new, among):
            for name, ours, theirs in zip(part, bounds, others, strict=True):
                self._drop_as(name, ours, theirs)
            done += len(part)
            self._tell(done, len(among))

    def _drop_as(self, name: str, ours: Bounds, theirs: Bounds) -> None:
        """Bring a stream of the new store to where its events are dropped in the old one."""
        (dropped, last), (found_dropped, found_last) = ours, theirs
        if dropped == last > found_last:
            for part in within(self._dropped(name, found_last, last), self._new.capabilities.batch_limit):
                self._run_alone(Transact(tuple(part)))
            self._last_seqs[name] = last
        elif found_last and dropped > found_dropped:
            self._run_alone(TruncateThrough(name, dropped))

    # Keys

    def keys(self) -> None:
        """Copy the keys that are not as in the old store, in the order of their revisions, and delete what is gone."""
        self.put(self.keys_that_differ(), is_all=True)

    def keys_that_differ(self) -> dict[str, Entry | None]:
        """What there is to be put, by key, so that all are as in the old store; None: it is not there.

        From the first key on, in the order of revisions, that differs or stands elsewhere in that order, it is all.
        """
        self._looked_at, self._put = self._old.run(kv.wait(INT64_MAX, timeout=0)), []
        entries, found = dict(self._old.run(kv.entries())), dict(self._new.run(kv.entries()))
        for each in (entries, found):
            each.pop(STATE, None)
        in_order = sorted(entries, key=lambda key: entries[key].revision)
        first = self._first_apart(in_order, entries, found)
        gone = dict.fromkeys(found.keys() - entries.keys())
        return {**{key: entries[key] for key in in_order[first:]}, **gone}

    def _first_apart(self, keys: Sequence[str], entries: Mapping[str, Entry], found: Mapping[str, Entry]) -> int:
        newest = 0
        for at, key in enumerate(keys):
            other = found.get(key)
            if other is None or other.revision < newest:
                return at
            if not _is_same(self._value_of(key, entries[key]), other.value):
                return at
            newest = other.revision
        return len(keys)

    def keys_of(self, names: Iterable[str]) -> dict[str, Entry | None]:
        """What these keys of the old store hold; None: it is not there."""
        asked = list(names)
        return dict(zip(asked, self._old.run(all_of(*map(kv.entry, asked))), strict=True)) if asked else {}

    def put(self, entries: Mapping[str, Entry | None], *, is_all: bool = False) -> None:
        """Put, and delete, keys of the new store, in the order of their revisions.

        Args:
            entries: What the old store holds. All events that it had then are copied.
            is_all: Whether all keys that have higher revisions are among them.
        """
        standing = {key: entry for key, entry in entries.items() if entry is not None}
        if any(positions_in(key, entry.value) for key, entry in standing.items()):
            # It is told where its followers stand.
            self._new.wait_for_order(self._order_seconds)
        lowest = min((entry.revision for entry in standing.values()), default=INT64_MAX)
        at = bisect_left(self._put, (lowest, ""))
        if not is_all:
            standing |= self._standing_above(lowest, at, standing)
        in_order = sorted((entry.revision, key) for key, entry in standing.items())
        for start in range(0, len(in_order), PAGE):
            part = in_order[start : start + PAGE]
            self._commit([KvPut(key, self._value_of(key, standing[key])) for _, key in part], self.state)
            self._tell(start + len(part), len(in_order))
        gone = [key for key, entry in entries.items() if entry is None]
        for start in range(0, len(gone), PAGE):
            self._commit([KvDelete(key) for key in gone[start : start + PAGE]], self.state)
        self._put[at:] = [pair for pair in in_order if pair[0] > self._looked_at]

    def _standing_above(self, lowest: int, at: int, but: Mapping[str, Entry]) -> dict[str, Entry]:
        """The keys that were put before, and have higher revisions than one that is put now: they come again."""
        if lowest <= self._looked_at:
            # Of a transaction that was on its way when all were looked at, or of a checkpoint.
            entries = self._old.run(kv.entries())
            return {key: entry for key, entry in entries if entry.revision > lowest and key not in {*but, STATE}}
        above = self.keys_of({key for _, key in self._put[at:]} - but.keys())
        return {key: entry for key, entry in above.items() if entry is not None}

    def _value_of(self, key: str, entry: Entry) -> Any:
        """A key's value, with positions of the new store where this package has put some of the old one there."""
        value = entry.value
        positions = positions_in(key, value)
        now = {name: position_in(self._new, self._old, position) for name, position in positions.items()}
        return {**value, **now} if now else value

    # Comparing

    def comparison(self) -> Comparison:
        """Both stores, to be compared."""
        return Comparison(self._old, self._new, self._value_of, self._tell)

    def compare(self) -> Counts:
        """Compare every event, stream and key.

        Returns:
            How many there are.

        Raises:
            CorruptStore: Where they differ.
            StoreUnavailable: If one of them does not show all that it has acknowledged.
        """
        self._old.wait_for_order(self._order_seconds)
        self._new.wait_for_order(self._order_seconds)
        comparison = self.comparison()
        comparison.events()
        for difference in (*comparison.streams().values(), *comparison.keys().values()):
            raise CorruptStore(difference)
        return comparison.counts

    # Writing

    def _commit(self, writes: Iterable[Write], state: CopyState) -> None:
        """Write, and note in the same transaction how far it is then.

        Where the new store does not take as much at once, the last one notes it. What was written before is passed
        over by whoever goes on from the state before.
        """
        *others, last = within(writes, self._new.capabilities.batch_limit)
        for part in others:
            self._run_alone(Transact(tuple(part)))
        self._run_alone(Transact((*last, noting(state))))

    def _run_alone(self, request: Any) -> None:
        answer = self._new.run(perform(request))
        if isinstance(answer, Conflict):
            raise InvalidRequest(
                f"{answer.kind} {answer.name!r} of the new store is at {answer.actual}, expected {answer.expected}: "
                "another program writes to it: migrate into a store of its own"
            )

    def _tell(self, done: int, of: int) -> None:
        if self.progress is not None:
            self.progress(done, of)


def within(writes: Iterable[Write], limit: int | None) -> list[list[Write]]:
    """Writes in their order, parted into what a store takes as one transaction with one write more.

    Args:
        writes: The writes. An append of too many events is parted too: it expects where it stands.
        limit: The store's `Capabilities.batch_limit`. An event counts as a write does, and what it is written by too.

    Returns:
        The parts, at least one.

    >>> part = Append("s", (Draft("made", None),) * 5, 0)
    >>> [[(len(each.events), each.expected) for each in found] for found in within([part], 6)]
    [[(3, 0)], [(2, 3)]]
    """
    parts: list[list[Write]] = [[]]
    left = most = INT64_MAX if limit is None else max(limit - 2, 2)
    for write in (each for whole in writes for each in _parted(whole, max(most - 1, 1))):
        weight = 1 + (len(write.events) if isinstance(write, Append) else 1)
        if weight > left and parts[-1]:
            parts.append([])
            left = most
        parts[-1].append(write)
        left -= weight
    return parts


def _parted(write: Write, size: int) -> Iterator[Write]:
    if not isinstance(write, Append) or len(write.events) <= size:
        yield write
        return
    assert write.expected is not None
    for start in range(0, len(write.events), size):
        yield Append(write.stream, write.events[start : start + size], write.expected + start)


def noting(state: CopyState) -> KvPut:
    """What notes in a store how far the copying into it is."""
    return KvPut(STATE, msgspec.json.decode(msgspec.json.encode(state)))


def state_in(store: Store) -> CopyState | None:
    """What a store says of the copying into it, or None.

    Raises:
        InvalidRequest: If something else stands there.
    """
    found = store.run(kv.get(STATE))
    try:
        return None if found is None else msgspec.convert(found, CopyState)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the store's key {STATE!r} is none of a migration: {error}: delete it") from error


def newest_of(store: Store, seconds: float = ORDER_SECONDS) -> tuple[int, int]:
    """The newest position and the newest revision of a store, once it shows all that it has acknowledged by now.

    Args:
        store: The store.
        seconds: How long it may take to do so.

    Returns:
        The position, and the revision.

    Raises:
        StoreUnavailable: If it takes longer, or the store cannot be asked.
    """
    store.wait_for_order(seconds)
    return store.run(log.head()), store.run(kv.wait(INT64_MAX, timeout=0))


def position_in(store: Store, other: Store, position: int, end: int | None = None) -> int:
    """Where whoever stands at a position of another store stands in this one, into which it is copied, or was.

    Args:
        store: This one.
        other: The one that the position is of.
        position: That position.
        end: Where whoever has seen all that the other one has stands in this one; None: at its end.

    Returns:
        The position in this one right before the first event that follows there and that both have. So what was dropped
        before that position was dropped before this one.
    """
    while True:
        page = other.run(log.page_all(after=position, limit=16))
        for event in page.events:
            for found in store.run(log.read_range(event.stream, event.seq, event.seq)):
                return found.position - 1
        if page.next >= page.head:
            return store.run(log.head()) if end is None else end
        position = page.next


def _last_through(position: int) -> Effect[list[Event]]:
    """The last event at or below a position, if one is left."""
    page = yield from perform(ReadAll(until=position, limit=1, backwards=True))
    return page.events


def _has_hole(stream: str, position: int) -> Effect[bool]:
    """Whether events of a stream were dropped past a position."""
    page = yield from perform(ReadAll(position, stream, limit=1))
    return page.hole is not None and page.hole.stream == stream


def _is_same(one: Any, other: Any) -> bool:
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
