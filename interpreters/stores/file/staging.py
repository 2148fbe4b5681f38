"""Staging a batch of writes: what each will be answered, and the frames that make it so.

Nothing here touches the index or the disk: a batch that cannot be written leaves no trace.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgspec

from interpreters.stores.file.format import (
    COMMIT,
    ENTRY,
    EVENT,
    Commit,
    Drop,
    Payload,
    Run,
    StoredEntry,
    StreamState,
    encode_commit,
)
from interpreters.stores.file.index import Content, Index, StagedCommit
from interpreters.stores.file.kinds import kind_of
from interpreters.stores.group import WriteRequest
from persist_effects import codec
from persist_effects.event import Event
from persist_effects.planning import Change, Limits, plan
from persist_effects.requests import (
    Advance,
    Answered,
    Append,
    Appended,
    Begin,
    Conflict,
    Failed,
    KvDelete,
    KvPut,
    Outcome,
    Request,
    Sql,
    Transact,
    TruncateThrough,
)

_NO_VALUE = msgspec.Raw()


class Frames:
    """Frames to be written, and in the same order what the index will take in."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.contents: list[Content] = []

    def add_event(self, event: Event, payload: bytes) -> None:
        """Add a frame of one event."""
        self.payloads.append((EVENT, payload))
        self.contents.append(event)

    def add_entry(self, entry: StoredEntry, payload: bytes) -> None:
        """Add a frame of one key that was put."""
        self.payloads.append((ENTRY, payload))
        self.contents.append(entry)

    def add_commit(self, commit: Commit, runs: Sequence[tuple[Sequence[Event], bytes]] = ()) -> None:
        """Add a frame of a commit. ``runs`` are the events of its runs, and these encoded."""
        self.payloads.append((COMMIT, encode_commit(commit, [encoded for _, encoded in runs])))
        kind = kind_of(event.type for events, _ in runs for event in events)
        self.contents.append(StagedCommit(commit, kind))


class Staging:
    """The writes of one batch, one commit after the other, all at one time. Each sees what those before it do."""

    def __init__(self, index: Index, now: int, limits: Limits) -> None:
        self._index = index
        self._now = now
        self._limits = limits
        self._limit_bytes = limits.payload_bytes
        self._seqs: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self.position = index.position
        self.revision = index.revision
        self.frames = Frames()

    def stage(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """Stage these writes, one after the other, and return what each will be answered.

        Raises MemoryError, after which nothing that was staged is of use: it may have come in the middle of one.
        """
        outcomes: list[Outcome] = []
        for request in requests:
            try:
                outcomes.append(Answered(_STAGERS[type(request)](self, request)))
            except MemoryError:
                raise
            except Exception as error:
                outcomes.append(Failed(error))
        return outcomes

    def know_position(self, stream: str, seq: int, position: int) -> None:
        """Say which position an event has that one of the batch's truncations drops last."""
        self._positions[stream, seq] = position

    def last_dropped(self, request: TruncateThrough) -> int | None:
        """Which stored event a truncation drops last, if it drops one that is stored now."""
        stream = self._index.stream(request.stream)
        if stream is None:
            return None
        seq = min(request.seq, stream.last_seq)
        return seq if seq > stream.dropped else None

    def append(self, request: Append) -> Appended | Conflict:
        """Stage an append as a commit of its own."""
        if len(request.events) != 1:
            answer: Appended | Conflict = self.commit(request)
            return answer
        name, (draft,) = request.stream, request.events
        last_seq = self.last_seq(name)
        now = self._now
        position = self.position + 1
        at = now if draft.at is None else draft.at
        event = Event(name, last_seq + 1, draft.type, at, draft.data, position, draft.meta)
        payload = codec.encode_new_event(event, self._limit_bytes)
        if request.expected is not None and request.expected != last_seq:
            return Conflict("stream", name, request.expected, last_seq)
        self._seqs[name] = last_seq + 1
        self.position = position
        self.frames.add_event(event, payload)
        return Appended(last_seq + 1, last_seq + 1, position, now)

    def put(self, request: KvPut) -> int | Conflict:
        """Stage a put as a commit of its own."""
        key = request.key
        revision = self.revision + 1
        payload = codec.encode_new_entry(key, request.value, revision, self._limit_bytes)
        if request.expected is not None and request.expected != (actual := self.revision_of(key)):
            return Conflict("key", key, request.expected, actual)
        self.revision = self._revisions[key] = revision
        self.frames.add_entry(StoredEntry(key, revision, _NO_VALUE), payload)
        return revision

    def commit(self, request: WriteRequest) -> Any:
        """Stage any request as a commit of its own."""
        answer, change = plan(request, self, self._now, self._limits)
        if change is not None and not change.is_empty:
            # Whatever fails, fails before anything that the next commit sees is changed.
            self.frames.add_commit(self._commit_of(change), change.runs)
            self._seqs.update(change.seqs)
            self._revisions.update(change.revisions)
            self._dropped.update({name: seq for name, (seq, _) in change.begun.items()} | change.drops)
            self.position, self.revision = change.position, change.revision
        return answer

    def _commit_of(self, change: Change) -> Commit:
        runs = [Run(events[0].stream, events[0].seq, events[0].position, len(events)) for events, _ in change.runs]
        entries = [StoredEntry(key, revision, msgspec.Raw(value)) for key, (value, revision) in change.puts.items()]
        drops = [Drop(name, seq, self._position_of(name, seq, runs)) for name, seq in change.drops.items()]
        states = [StreamState(name, seq, position, seq, position) for name, (seq, position) in change.begun.items()]
        return Commit(runs, [], entries, list(change.deleted), drops, states, change.revision, change.position)

    def _position_of(self, name: str, seq: int, runs: Sequence[Run]) -> int:
        """The position of an event that is stored, or that this batch appends."""
        stored = self._positions.get((name, seq))
        if stored is not None:
            return stored
        staged = chain.from_iterable(map(_runs_in, self.frames.contents))
        return next(
            run.first_position + seq - run.first_seq
            for run in chain(runs, staged)
            if run.stream == name and run.first_seq <= seq < run.first_seq + run.count
        )

    # The heads, as the commits before leave them

    def last_seq(self, stream: str) -> int:
        """The high-water mark of a stream."""
        seq = self._seqs.get(stream)
        return self._index.last_seq(stream) if seq is None else seq

    def dropped(self, stream: str) -> int:
        """Through which sequence number the events of a stream were dropped."""
        found = self._index.stream(stream)
        return self._dropped.get(stream, 0 if found is None else found.dropped)

    def revision_of(self, key: str) -> int:
        """The revision of a key, 0 if it is absent."""
        revision = self._revisions.get(key)
        return self._index.revision_of(key) if revision is None else revision


def _runs_in(content: Content) -> Sequence[Run]:
    if isinstance(content, Event):
        return (Run(content.stream, content.seq, content.position, 1),)
    return content.commit.runs if isinstance(content, StagedCommit) else ()


_STAGERS: dict[type[Request[Any]], Callable[[Staging, Any], Any]] = {
    Append: Staging.append,
    Transact: Staging.commit,
    TruncateThrough: Staging.commit,
    Begin: Staging.commit,
    Advance: Staging.commit,
    KvPut: Staging.put,
    KvDelete: Staging.commit,
    Sql: Staging.commit,
}
