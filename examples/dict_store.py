"""A store of one's own in little code: an interpreter over two dicts, which passes the whole conformance suite.

`plan` says what a commit is answered and what it changes. What comes of it takes the place of the state before: all or
nothing, and readers need no lock. The entry point `dict = "dict_store:DictStore"` of the group persist_effects.stores
registers it.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from interpreters.stores.ranges import page_range
from persist_effects import Entry, InvalidRequest, Page, StoreClosed, codec
from persist_effects import requests as ask
from persist_effects.machine import Handlers
from persist_effects.planning import Change, Limits, plan


class Stream(NamedTuple):
    """Events as bytes, before which ``dropped`` others were; the positions of the last one, and the last dropped."""

    events: tuple[bytes, ...] = ()
    dropped: int = 0
    position: int = 0
    dropped_position: int = 0


UNUSED = Stream()


class State:
    """All that is stored, which never changes; and what `plan` must know of it."""

    def __init__(self, streams: dict[str, Stream], entries: dict[str, tuple[bytes, int]], newest: list[int]) -> None:
        self.streams, self.entries = streams, entries
        self.position, self.revision = newest

    def last_seq(self, stream: str) -> int:
        it = self.streams.get(stream, UNUSED)
        return it.dropped + len(it.events)

    def dropped(self, stream: str) -> int:
        return self.streams.get(stream, UNUSED).dropped

    def revision_of(self, key: str) -> int:
        return self.entries.get(key, (b"", 0))[1]

    def newest(self, request: ask.Wait | ask.KvWait) -> int:
        if isinstance(request, ask.KvWait):
            return self.revision  # of all keys: too high under a prefix, which a waiter may be told
        return max((it.position for name, it in self.streams.items() if name.startswith(request.prefix)), default=0)

    def after(self, change: Change) -> "State":
        """What is stored once a commit was made."""
        streams, entries = dict(self.streams), {**self.entries, **change.puts}
        for name, (seq, position) in change.begun.items():
            streams[name] = Stream((), seq, position, position)
        for events, encoded in change.runs:
            it = streams.get(events[0].stream, UNUSED)
            streams[events[0].stream] = it._replace(events=(*it.events, *encoded), position=events[-1].position)
        for name, seq in change.drops.items():
            it = streams[name]
            last, kept = codec.decode_event(it.events[seq - it.dropped - 1]), it.events[seq - it.dropped :]
            streams[name] = Stream(kept, seq, it.position, last.position)
        for key in change.deleted:
            entries.pop(key, None)
        return State(streams, entries, [change.position, change.revision])

    def read(self, request: ask.Read) -> Page:
        stream, last = self.streams.get(request.stream, UNUSED), self.last_seq(request.stream)
        low, high, following, hole = page_range(request, stream.dropped, last)
        found = [codec.decode_event(it) for it in stream.events[low - stream.dropped : high - stream.dropped]]
        return Page(found[::-1] if request.backwards else found, following, last, hole)

    def read_all(self, request: ask.ReadAll) -> Page:
        under = {name: stream for name, stream in self.streams.items() if name.startswith(request.prefix)}
        events = [codec.decode_event(event) for stream in under.values() for event in stream.events]
        types, after, back = request.types, request.after, bool(request.backwards)
        until = max(after, request.last_position(self.position))
        wanted = [it for it in events if after < it.position <= until and (types is None or it.type in types)]
        found = sorted(wanted, key=lambda event: event.position, reverse=back)[: request.limit]
        following = after if back else until
        if len(found) < len(wanted):
            following = found[-1].position - back
        dropped = {name: stream for name, stream in under.items() if after < min(stream.dropped_position, until)}
        holes = [ask.Hole(name, stream.dropped + 1) for name, stream in dropped.items()]
        return Page(found, following, self.position, holes[0] if holes else None)


def entry(value: bytes, revision: int) -> Entry | None:
    return Entry(codec.decode(value), revision) if revision else None


def page(names: Iterable[str], request: ask.Streams | ask.KvKeys | ask.KvEntries) -> list[str]:
    return sorted(it for it in names if it.startswith(request.prefix) and it > request.after)[: request.limit]


READS: dict[Any, Callable[[State, Any], Any]] = {
    ask.Read: State.read, ask.ReadAll: State.read_all,
    ask.KvGet: lambda state, request: entry(*state.entries.get(request.key, (b"", 0))),
    ask.LastSeq: lambda state, request: state.last_seq(request.stream),
    ask.Streams: lambda state, request: page(state.streams, request),
    ask.KvKeys: lambda state, request: page(state.entries, request),
    ask.KvEntries: lambda state, request: [(it, entry(*state.entries[it])) for it in page(state.entries, request)],
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
            **dict.fromkeys(ask.WRITES, self.commit),
            **dict.fromkeys(READS, lambda request: READS[type(request)](self.now(), request)),
            **dict.fromkeys(ask.WAITS, self.wait),
        }

    def close(self) -> None:
        with self.changed:
            self.state = None
            self.changed.notify_all()

    def now(self) -> State:
        if (state := self.state) is None:
            raise StoreClosed("this store was closed: open it again to run programs")
        return state

    def commit(self, request: Any) -> Any:
        with self.changed:
            answer, change = plan(request, self.now(), time.time_ns() // 1_000, Limits())
            if change is not None:
                self.state = self.now().after(change)
                self.changed.notify_all()
            return answer

    def wait(self, request: ask.Wait | ask.KvWait) -> int:
        with self.changed:
            seconds = min(request.timeout, threading.TIMEOUT_MAX)
            self.changed.wait_for(lambda: self.now().newest(request) > request.after, seconds)
            return self.now().newest(request)
