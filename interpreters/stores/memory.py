"""The memory store: the executable specification of every request. What it answers, every other store answers.

Events and values are kept as the bytes that a durable store would write, and decoded afresh for each reader, so
nothing that a caller holds can change what is stored. Under one lock, a write is planned, which refuses what cannot be
stored and finds conflicts, and then applied. Where an interrupt, or a lack of memory, ends that halfway, it is taken
back, or the store answers nothing any more.
"""

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import attrgetter, itemgetter
from typing import Any, NoReturn

import msgspec

from interpreters.clocks import Clock, RandomBytes, checked_clock, checked_random, wall_clock
from interpreters.stores.group import WriteRequest
from interpreters.stores.merging import merged, places_to_scan
from interpreters.stores.names import SortedNames
from interpreters.stores.ranges import hole_after, page_range
from interpreters.stores.waiting import Revisions, Watchers, wait
from interpreters.threads import forks
from interpreters.threads.gates import Notify
from persist_effects import codec
from persist_effects.capabilities import Capabilities
from persist_effects.errors import StoreClosed, StoreUnavailable, UncertainOutcome
from persist_effects.event import check_integer
from persist_effects.machine import Handlers
from persist_effects.planning import Begun, Change, Limits, PlannedRun, Put, plan, plan_append, plan_put
from persist_effects.requests import (
    Advance,
    Append,
    Appended,
    Begin,
    Conflict,
    Entry,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Sql,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)


class _Stream:
    """The events of a stream that are left, and how many before them were dropped."""

    __slots__ = ("dropped", "dropped_position", "events", "last_position", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[_Logged] = []
        self.dropped = 0
        self.dropped_position = 0
        self.last_position = 0

    @property
    def last_seq(self) -> int:
        return self.dropped + len(self.events)


class _Logged(msgspec.Struct, frozen=True, gc=False):
    """An event, encoded, and its place in the order of all streams."""

    position: int
    stream: _Stream
    seq: int
    type: str
    event: bytes


_CLOSED = "this memory store was closed, and what it held is gone: open a new one"
_HALF_COPIED = (
    "this process was forked while another thread was in the middle of changing this memory store, so its copy may be "
    "half of something: open a new one here, or fork while no thread uses it"
)


_CUT_SHORT = (
    "this memory store was changing when an interrupt came or memory was lacking, so it may hold half of something: "
    "open a new one"
)
_NO_MEMORY = "this process has not enough memory"


class _Spoilt:
    """Stands in the place of what a store holds when that may be half of something: whoever asks for it is told."""

    def __getattr__(self, name: str) -> NoReturn:
        # Others look for names of their own at whatever stands in a module.
        raise AttributeError(name) if name.startswith("__") else StoreUnavailable(_CUT_SHORT)

    def _refuse(self, *arguments: object) -> NoReturn:
        raise StoreUnavailable(_CUT_SHORT)

    __len__ = __contains__ = _refuse


_SPOILT: Any = _Spoilt()


class _Heads:
    """What planning asks of a store that is locked."""

    __slots__ = ("_store", "dropped", "last_seq", "revision_of")

    def __init__(self, store: "MemoryStore") -> None:
        self._store = store
        self.last_seq = store._last_seq_of
        self.dropped = store._dropped_of
        self.revision_of = store._revision_of

    @property
    def position(self) -> int:
        return self._store._position

    @property
    def revision(self) -> int:
        return self._store._revision


_position_of = attrgetter("position")


class MemoryStore:
    """An interpreter that keeps everything in this process's memory, for as long as the object lives.

    ``clock`` gives microseconds since the Unix epoch. ``payload_limit_bytes`` bounds the data and the meta of each
    event, and each value. ``random_bytes`` gives what fresh identifiers are made of. The handlers may be called from
    any thread.

    >>> from persist_effects import kv, run
    >>> store = MemoryStore(clock=lambda: 0)
    >>> run(kv.put("color", "red"), store.handlers)
    1
    """

    blocking = False

    def __init__(
        self,
        clock: Clock = wall_clock,
        payload_limit_bytes: int = codec.PAYLOAD_LIMIT_BYTES,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        check_integer("payload_limit_bytes", payload_limit_bytes, 1)
        self.clock = checked_clock(clock)
        self.random_bytes = checked_random(random_bytes)
        self._limits = Limits(payload_limit_bytes)
        self.capabilities = Capabilities(payload_limit_bytes=payload_limit_bytes)
        self._lock = threading.Lock()
        # What whoever uses it is told, once it is of no use any more.
        self._ended: Callable[[], StoreUnavailable] | None = None
        self._streams: dict[str, _Stream] = {}
        self._stream_names = SortedNames(self._streams, attrgetter("last_position"))
        self._truncated: dict[str, _Stream] = {}
        self._truncated_names = SortedNames(self._truncated, attrgetter("dropped_position"))
        self._log: list[_Logged] = []
        self._dropped_in_log = 0
        self._position = 0
        self._entries: dict[str, Put] = {}
        self._keys = SortedNames(self._entries, itemgetter(1))
        self._revision = 0
        self._revisions = Revisions(self._keys.newest)
        self._watchers = Watchers()
        self._heads = _Heads(self)
        self.handlers: Handlers = {
            Append: self._append,
            TruncateThrough: self._commit,
            Begin: self._commit,
            Advance: self._commit,
            KvPut: self._put,
            KvDelete: self._commit,
            Sql: self._commit,
            Transact: self._commit,
            Read: self._read,
            ReadAll: self._read_all,
            LastSeq: self._last_seq,
            Streams: self._list_streams,
            Wait: self._wait,
            KvGet: self._get,
            KvHas: self._has,
            KvKeys: self._list_keys,
            KvEntries: self._list_entries,
            KvWait: self._wait,
        }
        self.quick = frozenset(self.handlers)
        forks.register(self)

    def close(self) -> None:
        """Forget everything. Whoever waits is woken, and from now on every row raises `StoreClosed`."""
        with self._lock:
            self._ended = self._ended or _closed
        self._watchers.tell_all()

    def state_lock(self) -> forks.StateLock | None:
        """What a fork waits for, so that the child has the store whole."""
        return self._lock

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: a store of its own from here on, a copy of what the parent's was."""
        self._watchers.forget()
        self._lock = threading.Lock()
        if not is_whole:
            self._ended = self._ended or _half_copied

    # Writes. All that can go wrong goes wrong before anything is applied.

    def _append(self, request: Append) -> Appended | Conflict:
        is_planned = False
        try:
            with self._lock:
                if self._ended is not None:
                    raise self._ended()
                last_seq = self._last_seq_of(request.stream)
                answer, run = plan_append(request, last_seq, self._position, self.clock(), self._limits)
                if type(answer) is Conflict:
                    return answer
                is_planned = True
                self._apply_run(run)
                told = self._watchers.take(Wait, {request.stream: self._position}) if self._watchers else ()
            for notify in told:
                notify()
            return answer
        except MemoryError as error:
            raise _no_memory(may_be_written=is_planned) from error

    def _put(self, request: KvPut) -> int | Conflict:
        is_planned = False
        try:
            with self._lock:
                if self._ended is not None:
                    raise self._ended()
                answer, put = plan_put(request, self._revision_of(request.key), self._revision, self._limits)
                if type(answer) is Conflict:
                    return answer
                is_planned = True
                self._apply_put(request.key, put)
                told = self._watchers.take(KvWait, {request.key: put[1]}) if self._watchers else ()
            for notify in told:
                notify()
            return answer
        except MemoryError as error:
            raise _no_memory(may_be_written=is_planned) from error

    def _commit(self, request: WriteRequest) -> Any:
        is_planned = False
        try:
            with self._lock:
                if self._ended is not None:
                    raise self._ended()
                answer, change = plan(request, self._heads, self.clock(), self._limits)
                if change is None:
                    return answer
                is_planned = True
                self._apply(change)
                told = self._take_ready(change) if self._watchers else ()
            for notify in told:
                notify()
            return answer
        except MemoryError as error:
            raise _no_memory(may_be_written=is_planned) from error

    def _apply(self, change: Change) -> None:
        try:
            for name, begun in change.begun.items():
                self._apply_beginning(name, begun)
            for run in change.runs:
                self._apply_run(run)
            for name, seq in change.drops.items():
                self._apply_drop(name, seq)
            for key, put in change.puts.items():
                self._apply_put(key, put)
            for key, revision in change.deleted.items():
                self._apply_deletion(key, revision)
            # What was put and deleted in one commit, or begun after an append, is told by nothing else.
            self._revision, self._position = change.revision, change.position
        except BaseException:
            if len(change.begun) + len(change.runs) + len(change.drops) + len(change.puts) + len(change.deleted) > 1:
                self._spoil()
            raise

    def _spoil(self) -> None:
        # Of a transaction, say, of which some writes were applied, and perhaps not all.
        self._streams = self._entries = self._log = self._stream_names = self._keys = self._truncated_names = _SPOILT
        self._watchers.tell_all()

    # An interrupt, or a lack of memory, may end each of them at any line: it is applied then, or not at all.

    def _apply_beginning(self, name: str, begun: Begun) -> None:
        stream = _Stream(name)
        stream.dropped, stream.dropped_position = begun
        stream.last_position = begun[1]
        # The number first: where an interrupt comes in between, one is left out, and nothing is begun.
        self._position = max(self._position, begun[1])
        self._stream_names.note(name)
        self._note_truncated(stream)
        self._streams[name] = stream

    def _apply_run(self, run: PlannedRun) -> None:
        events, encoded = run
        first = events[0]
        name, last_seq = first.stream, first.seq - 1
        try:
            stream = self._streams.get(name)
            if stream is None or self._stream_names.is_ranked:
                self._stream_names.note(name)
            if stream is None:
                stream = self._streams[name] = _Stream(name)
            for event, event_bytes in zip(events, encoded, strict=True):
                logged = _Logged(event.position, stream, event.seq, event.type, event_bytes)
                self._log.append(logged)
                stream.events.append(logged)
            self._position = stream.last_position = events[-1].position
        except BaseException:
            self._take_back_append(name, last_seq)
            raise

    def _take_back_append(self, name: str, last_seq: int) -> None:
        try:
            while self._log and self._log[-1].position > self._position:
                self._log.pop()
            stream = self._streams.get(name)
            if stream is not None:
                del stream.events[last_seq - stream.dropped :]
            if not last_seq:
                self._streams.pop(name, None)
        except BaseException:
            self._spoil()
            raise

    def _apply_drop(self, name: str, seq: int) -> None:
        stream = self._streams[name]
        count = seq - stream.dropped
        position = stream.events[count - 1].position
        self._note_truncated(stream)
        left, dropped = stream.events[count:], stream.dropped + count
        stream.events, stream.dropped, stream.dropped_position = left, dropped, position
        self._dropped_in_log += count
        if self._dropped_in_log > len(self._log) // 2:
            self._log = [logged for logged in self._log if logged.seq > logged.stream.dropped]
            self._dropped_in_log = 0

    def _note_truncated(self, stream: _Stream) -> None:
        # Before anything was dropped, it has others look for a hole, and they find none.
        self._truncated_names.note(stream.name)
        self._truncated[stream.name] = stream

    def _apply_put(self, key: str, put: Put) -> None:
        if self._keys.is_ranked or key not in self._entries:
            self._keys.note(key)
        self._entries[key], self._revision = put, put[1]

    def _apply_deletion(self, key: str, revision: int) -> None:
        # The number first: where an interrupt comes between the two, one is left out, and nothing is deleted.
        self._revision = revision
        self._revisions.deleted(key, revision)
        self._keys.note(key)
        self._entries.pop(key, None)

    # Reads

    def _last_seq_of(self, stream: str) -> int:
        found = self._streams.get(stream)
        return 0 if found is None else found.last_seq

    def _dropped_of(self, stream: str) -> int:
        found = self._streams.get(stream)
        return 0 if found is None else found.dropped

    def _revision_of(self, key: str) -> int:
        found = self._entries.get(key)
        return 0 if found is None else found[1]

    def _last_seq(self, request: LastSeq) -> int:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            return self._last_seq_of(request.stream)

    def _read(self, request: Read) -> Page:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            stream = self._streams.get(request.stream)
            if stream is None:
                return Page([], request.after, 0)
            dropped, head = stream.dropped, stream.last_seq
            low, high, next_seq, hole = page_range(request, dropped, head)
            found = stream.events[low - dropped : high - dropped]
        # What is in the log does not change, so it is decoded outside of the lock.
        decode = codec.decode_event
        events = [decode(logged.event) for logged in found]
        if request.backwards:
            events.reverse()
        return Page(events, next_seq, head, hole)

    def _read_all(self, request: ReadAll) -> Page:
        found: list[_Logged] = []
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            head = self._position
            until = max(request.last_position(head), request.after)
            next_position = request.after if request.backwards else until
            for logged in self._between(request, until):
                if not _is_wanted(logged, request):
                    continue
                if len(found) == request.limit:
                    newest = found[-1].position
                    next_position = newest - 1 if request.backwards else newest
                    break
                found.append(logged)
            hole = hole_after(request.after, request.prefix, self._truncated_names) if until > request.after else None
        decode = codec.decode_event
        return Page([decode(logged.event) for logged in found], next_position, head, hole)

    def _between(self, request: ReadAll, until: int) -> Iterator[_Logged]:
        """The events past a position up to another, in the order asked for; of streams under the prefix all of them."""
        after, backwards = request.after, bool(request.backwards)
        first = bisect_right(self._log, after, key=_position_of)
        last = len(self._log) if until >= self._position else bisect_right(self._log, until, key=_position_of)
        places = range(last - 1, first - 1, -1) if backwards else range(first, last)
        if not request.prefix:
            yield from map(self._log.__getitem__, places)
            return
        count = places_to_scan(request, self._stream_names, len(self._streams))
        yield from map(self._log.__getitem__, places[:count])
        if len(places) > count:
            # From there on.
            position = self._log[places[count]].position
            after, until = (after, position) if backwards else (position - 1, until)
            streams = [stream.events for stream in self._stream_names.past(request.prefix, after)]
            yield from merged(streams, _position_of, after, until, backwards=backwards)

    def _list_streams(self, request: Streams) -> list[str]:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            return self._stream_names.page(request.prefix, request.after, request.limit)

    def _get(self, request: KvGet) -> Entry | None:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            found = self._entries.get(request.key)
        return None if found is None else Entry(codec.decode(found[0]), found[1])

    def _has(self, request: KvHas) -> bool:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            return request.key in self._entries

    def _list_keys(self, request: KvKeys) -> list[str]:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            return self._keys.page(request.prefix, request.after, request.limit)

    def _list_entries(self, request: KvEntries) -> list[tuple[str, Entry]]:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            keys = self._keys.page(request.prefix, request.after, request.limit)
            found = [self._entries[key] for key in keys]
        return [(key, Entry(codec.decode(value), revision)) for key, (value, revision) in zip(keys, found, strict=True)]

    # Waiting

    def watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """Call ``notify()`` once as soon as a wait is over, or the store is closed.

        Args:
            request: What is waited for. Its timeout is for the caller to see to.
            notify: Called in the thread that commits or closes, or at once; it must be quick and must not raise.

        Returns:
            The function that ends the watch.
        """
        token = None
        with self._lock:
            if self._ended is None and self._newest(request) <= request.after:
                token = self._watchers.add(request, notify)
        if token is None:
            notify()

        def end_watch() -> None:
            with self._lock:
                self._watchers.remove(token)

        return end_watch

    def _wait(self, request: Wait | KvWait) -> int:
        return wait(request, self.watch, self._newest_now)

    def _newest_now(self, request: Wait | KvWait) -> int:
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            return self._newest(request)

    def _newest(self, request: Wait | KvWait) -> int:
        prefix = request.prefix
        if type(request) is KvWait:
            return self._revisions.newest(prefix) if prefix else self._revision
        return self._stream_names.newest(prefix) if prefix else self._position

    def _take_ready(self, change: Change) -> list[Notify]:
        """Those that waited for what a change has brought."""
        ready: list[Notify] = []
        if change.seqs:
            ready += self._watchers.take(Wait, {name: self._streams[name].last_position for name in change.seqs})
        if change.puts or change.deleted:
            newest = {key: revision for key, (_, revision) in change.puts.items()} | change.deleted
            ready += self._watchers.take(KvWait, newest)
        return ready


def _closed() -> StoreUnavailable:
    return StoreClosed(_CLOSED)


def _half_copied() -> StoreUnavailable:
    return StoreUnavailable(_HALF_COPIED)


def _no_memory(*, may_be_written: bool) -> StoreUnavailable | UncertainOutcome:
    if may_be_written:
        return UncertainOutcome(f"{_NO_MEMORY}: whether this was written is not known: look, or ask again")
    return StoreUnavailable(f"nothing was written: {_NO_MEMORY}")


def _is_wanted(logged: _Logged, request: ReadAll) -> bool:
    return (
        logged.seq > logged.stream.dropped
        and logged.stream.name.startswith(request.prefix)
        and (request.types is None or logged.type in request.types)
    )
