"""A store of one's own in little code: an interpreter over two dicts, which passes the whole conformance suite.

A commit makes a new state, and puts it in the place of the old one if nothing conflicts: all or nothing, and readers
need no lock. The entry point `dict = "dict_store:DictStore"` of the group persist_effects.stores registers it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from interpreters.stores.ranges import page_range
from persist_effects import Conflict, Entry, Event, InvalidRequest, Page, StoreClosed, codec
from persist_effects import requests as ask
from persist_effects.machine import Handlers


class Stream(NamedTuple):
    """Events as bytes, before which ``dropped`` others were; the positions of the last one, and the last dropped."""

    events: tuple[bytes, ...] = ()
    dropped: int = 0
    position: int = 0
    dropped_position: int = 0


class State:
    """All that is stored. A change is made to a copy."""

    def __init__(self, streams: dict[str, Stream], entries: dict[str, tuple[bytes, int]], newest: list[int]) -> None:
        self.streams, self.entries = dict(streams), dict(entries)
        self.position, self.revision = newest

    def stream(self, name: str) -> tuple[Stream, int]:
        return (it := self.streams.get(name, Stream())), it.dropped + len(it.events)

    def newest(self, prefix: str) -> int:
        return max((it.position for name, it in self.streams.items() if name.startswith(prefix)), default=0)

    def append(self, request: ask.Append, now: int) -> ask.Appended:
        (stream, last), events = self.stream(request.stream), []
        for seq, draft in enumerate(request.events, last + 1):
            self.position += 1
            at = now if draft.at is None else draft.at
            made = Event(request.stream, seq, draft.type, at, draft.data, self.position, draft.meta)
            events.append(codec.encode_new_event(made))
        self.streams[request.stream] = stream._replace(events=(*stream.events, *events), position=self.position)
        return ask.Appended(last + 1, last + len(events), self.position, now)

    def truncate(self, request: ask.TruncateThrough, now: int) -> int:
        stream, last = self.stream(request.stream)
        count = max(0, min(request.seq, last) - stream.dropped)
        if count:
            last_dropped, kept = codec.decode_event(stream.events[count - 1]), stream.events[count:]
            self.streams[request.stream] = Stream(kept, last_dropped.seq, stream.position, last_dropped.position)
        return count

    def put(self, request: ask.KvPut, now: int) -> int:
        self.revision += 1
        self.entries[request.key] = codec.encode(request.value, codec.value_name(request.key)), self.revision
        return self.revision

    def conflict(self, request: Any) -> Conflict | None:
        name, expected = getattr(request, "key", None) or request.stream, getattr(request, "expected", None)
        actual = self.entries.get(name, (b"", 0))[1] if hasattr(request, "key") else self.stream(name)[1]
        return None if expected in (None, actual) else Conflict(name, expected, actual)

    def read(self, request: ask.Read) -> Page:
        stream, last = self.stream(request.stream)
        low, high, following, hole = page_range(request, stream.dropped, last)
        found = [codec.decode_event(it) for it in stream.events[low - stream.dropped : high - stream.dropped]]
        return Page(found[::-1] if request.backwards else found, following, last, hole)

    def read_all(self, request: ask.ReadAll) -> Page:
        under = {name: stream for name, stream in self.streams.items() if name.startswith(request.prefix)}
        events = [codec.decode_event(event) for stream in under.values() for event in stream.events]
        types = request.types
        wanted = [it for it in events if it.position > request.after and (types is None or it.type in types)]
        found = sorted(wanted, key=lambda event: event.position)[: request.limit]
        following = max(self.position, request.after) if len(found) == len(wanted) else found[-1].position
        holes = [ask.Hole(name, s.dropped + 1) for name, s in under.items() if s.dropped_position > request.after]
        return Page(found, following, self.position, holes[0] if holes else None)


def entry(value: bytes, revision: int) -> Entry | None:
    return Entry(codec.decode(value), revision) if revision else None


def page(names: Iterable[str], request: ask.Streams | ask.KvKeys) -> list[str]:
    return sorted(it for it in names if it.startswith(request.prefix) and it > request.after)[: request.limit]


WRITES: dict[Any, Callable[[State, Any, int], Any]] = {
    ask.Append: State.append, ask.TruncateThrough: State.truncate, ask.KvPut: State.put,
    ask.KvDelete: lambda state, request, now: state.entries.pop(request.key, None) is not None,
}  # fmt: skip
READS: dict[Any, Callable[[State, Any], Any]] = {
    ask.Read: State.read, ask.ReadAll: State.read_all,
    ask.KvGet: lambda state, request: entry(*state.entries.get(request.key, (b"", 0))),
    ask.LastSeq: lambda state, request: state.stream(request.stream)[1],
    ask.Streams: lambda state, request: page(state.streams, request),
    ask.KvKeys: lambda state, request: page(state.entries, request),
    ask.KvHas: lambda state, request: request.key in state.entries,
}  # fmt: skip


class DictStore:
    """An interpreter: a table of rows, and an end. Without ``capabilities`` it promises what each must, no more."""

    def __init__(self, rest: str, options: dict[str, Any]) -> None:
        if rest or options:
            raise InvalidRequest(f"'dict:{rest}' with {options} names no store: write 'dict:', it takes no options")
        self.state: State | None = State({}, {}, [0, 0])
        self.changed = threading.Condition()
        self.handlers: Handlers = {
            **dict.fromkeys(WRITES, lambda request: self.commit([request], is_one=True)),
            **dict.fromkeys(READS, lambda request: READS[type(request)](self.now(), request)),
            ask.Transact: lambda request: self.commit(request.writes, request.checks),
            ask.Wait: self.wait,
        }

    def close(self) -> None:
        with self.changed:
            self.state = None
            self.changed.notify_all()

    def now(self) -> State:
        if (state := self.state) is None:
            raise StoreClosed("this store was closed: open it again to run programs")
        return state

    def commit(self, writes: Sequence[Any], checks: Sequence[Any] = (), *, is_one: bool = False) -> Any:
        with self.changed:
            now, at = self.now(), time.time_ns() // 1_000
            after, answers = State(now.streams, now.entries, [now.position, now.revision]), []
            conflicts = [now.conflict(check) for check in checks]
            for write in writes:  # also after a conflict: what cannot be stored is told first
                conflicts.append(after.conflict(write))
                answers.append(WRITES[type(write)](after, write, at))
            for conflict in filter(None, conflicts):
                return conflict
            self.state = after
            self.changed.notify_all()
            return answers[0] if is_one else answers

    def wait(self, request: ask.Wait) -> int:
        prefix, seconds = request.prefix, min(request.timeout, threading.TIMEOUT_MAX)
        with self.changed:
            self.changed.wait_for(lambda: self.now().newest(prefix) > request.after, seconds)
            return self.now().newest(request.prefix)
