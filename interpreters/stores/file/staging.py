"""Staging a batch of writes: what each will be answered, and the frames that make it so.

Nothing here touches the index or the disk: a batch that cannot be written leaves no trace.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from interpreters.stores.file.format import COMMIT, ENTRY, EVENT, Commit, Drop, Payload, Run, StoredEntry, encode_commit
from interpreters.stores.file.index import Content, Index
from persist_effects import codec
from persist_effects.event import Event
from persist_effects.requests import (
    Answered,
    Append,
    Appended,
    Check,
    Conflict,
    ExpectSeq,
    Failed,
    KvDelete,
    KvPut,
    Outcome,
    Request,
    Transact,
    TruncateThrough,
    Write,
)

WriteRequest = Append | TruncateThrough | KvPut | KvDelete | Transact
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

    def add_commit(self, commit: Commit, events: Iterable[bytes] = ()) -> None:
        """Add a frame of a commit. ``events`` are those of its runs, encoded; the index keeps nothing of them."""
        self.payloads.append((COMMIT, encode_commit(commit, events)))
        self.contents.append(commit)


class _Parts:
    """What the writes of one commit add up to."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.events: list[bytes] = []
        self.entries: dict[str, StoredEntry] = {}
        self.deleted: dict[str, None] = {}
        self.drops: list[Drop] = []
        self.answers: list[Any] = []


class Staging:
    """The writes of one batch, one commit after the other. Each sees what those before it will have done."""

    def __init__(self, index: Index, clock: Callable[[], int], payload_limit_bytes: int) -> None:
        self._index = index
        # Read once: the commits of one batch are made at one time.
        self._now = clock()
        self._limit_bytes = payload_limit_bytes
        self._seqs: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._position = index.position
        self._revision = index.revision
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
        stream = self._index.streams.get(request.stream)
        if stream is None:
            return None
        seq = min(request.seq, stream.last_seq)
        return seq if seq > stream.dropped else None

    def append(self, request: Append) -> Appended | Conflict:
        """Stage an append as a commit of its own."""
        if len(request.events) != 1:
            answer: Appended | Conflict = self.commit_one(request)
            return answer
        name, (draft,) = request.stream, request.events
        last_seq = self._last_seq(name)
        now = self._now
        position = self._position + 1
        at = now if draft.at is None else draft.at
        event = Event(name, last_seq + 1, draft.type, at, draft.data, position, draft.meta)
        payload = codec.encode_new_event(event, self._limit_bytes)
        if request.expected is not None and request.expected != last_seq:
            return Conflict("stream", name, request.expected, last_seq)
        self._seqs[name] = last_seq + 1
        self._position = position
        self.frames.add_event(event, payload)
        return Appended(last_seq + 1, last_seq + 1, position, now)

    def put(self, request: KvPut) -> int | Conflict:
        """Stage a put as a commit of its own."""
        key = request.key
        revision = self._revision + 1
        payload = codec.encode_new_entry(key, request.value, revision, self._limit_bytes)
        if request.expected is not None and request.expected != (actual := self._revision_of(key)):
            return Conflict("key", key, request.expected, actual)
        self._revision = self._revisions[key] = revision
        self.frames.add_entry(StoredEntry(key, revision, _NO_VALUE), payload)
        return revision

    def transact(self, request: Transact) -> list[Any] | Conflict:
        """Stage several writes as one commit."""
        return self._commit(request.writes, request.checks)

    def commit_one(self, request: Write) -> Any:
        """Stage any write as a commit of its own."""
        answers = self._commit([request], ())
        return answers if isinstance(answers, Conflict) else answers[0]

    def _commit(self, writes: Sequence[Write], checks: Sequence[Check]) -> list[Any] | Conflict:
        conflict = self._first_failing(checks)
        before = (self._position, self._revision, dict(self._seqs), dict(self._revisions), dict(self._dropped))
        parts = _Parts()
        try:
            for write in writes:
                # All are staged, also after a conflict: what cannot be stored is told first, whatever the store holds.
                answer = self._stage(write, parts)
                if isinstance(answer, Conflict):
                    conflict = conflict or answer
                parts.answers.append(answer)
        except BaseException:
            self._position, self._revision, self._seqs, self._revisions, self._dropped = before
            raise
        if conflict is not None:
            self._position, self._revision, self._seqs, self._revisions, self._dropped = before
            return conflict
        if parts.runs or parts.entries or parts.deleted or parts.drops:
            self._add_frame(parts)
        return parts.answers

    def _add_frame(self, parts: _Parts) -> None:
        entries = list(parts.entries.values())
        commit = Commit(parts.runs, [], entries, list(parts.deleted), parts.drops, [], self._revision, self._position)
        self.frames.add_commit(commit, parts.events)

    def _first_failing(self, checks: Sequence[Check]) -> Conflict | None:
        for check in checks:
            if isinstance(check, ExpectSeq):
                actual = self._last_seq(check.stream)
                conflict = Conflict("stream", check.stream, check.expected, actual, None)
            else:
                actual = self._revision_of(check.key)
                conflict = Conflict("key", check.key, check.expected, actual, None)
            if check.expected != actual:
                return conflict
        return None

    def _stage(self, write: Write, parts: _Parts) -> Any:
        match write:
            case Append():
                return self._stage_append(write, parts)
            case TruncateThrough():
                return self._stage_truncate(write, parts)
            case KvPut():
                return self._stage_put(write, parts)
            case KvDelete():
                return self._stage_delete(write, parts)

    def _stage_append(self, write: Append, parts: _Parts) -> Appended | Conflict:
        name = write.stream
        last_seq = self._last_seq(name)
        now = self._now
        first_position = self._position + 1
        events = [
            Event(
                name,
                last_seq + 1 + number,
                draft.type,
                now if draft.at is None else draft.at,
                draft.data,
                first_position + number,
                draft.meta,
            )
            for number, draft in enumerate(write.events)
        ]
        parts.events.append(codec.encode_new_events(events, self._limit_bytes))
        count = len(write.events)
        parts.runs.append(Run(name, last_seq + 1, first_position, count))
        self._seqs[name] = last_seq + count
        self._position += count
        if write.expected is not None and write.expected != last_seq:
            return Conflict("stream", name, write.expected, last_seq, len(parts.answers))
        return Appended(last_seq + 1, last_seq + count, self._position, now)

    def _stage_truncate(self, write: TruncateThrough, parts: _Parts) -> int:
        name = write.stream
        stream = self._index.streams.get(name)
        dropped = self._dropped.get(name, 0 if stream is None else stream.dropped)
        seq = min(write.seq, self._last_seq(name))
        if seq <= dropped:
            return 0
        parts.drops.append(Drop(name, seq, self._position_of(name, seq, parts.runs)))
        self._dropped[name] = seq
        return seq - dropped

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

    def _stage_put(self, write: KvPut, parts: _Parts) -> int | Conflict:
        key = write.key
        actual = self._revision_of(key)
        value = codec.encode(write.value, codec.value_name(key), self._limit_bytes)
        self._revision += 1
        self._revisions[key] = self._revision
        parts.entries[key] = StoredEntry(key, self._revision, msgspec.Raw(value))
        parts.deleted.pop(key, None)
        if write.expected is not None and write.expected != actual:
            return Conflict("key", key, write.expected, actual, len(parts.answers))
        return self._revision

    def _stage_delete(self, write: KvDelete, parts: _Parts) -> bool | Conflict:
        key = write.key
        actual = self._revision_of(key)
        self._revisions[key] = 0
        parts.entries.pop(key, None)
        if actual:
            self._revision += 1
            parts.deleted[key] = None
        if write.expected is not None and write.expected != actual:
            return Conflict("key", key, write.expected, actual, len(parts.answers))
        return actual != 0

    def _last_seq(self, name: str) -> int:
        seq = self._seqs.get(name)
        return self._index.last_seq(name) if seq is None else seq

    def _revision_of(self, key: str) -> int:
        revision = self._revisions.get(key)
        return self._index.revision_of(key) if revision is None else revision


def _runs_in(content: Content) -> Sequence[Run]:
    if isinstance(content, Event):
        return (Run(content.stream, content.seq, content.position, 1),)
    return content.runs if isinstance(content, Commit) else ()


_STAGERS: dict[type[Request[Any]], Callable[[Staging, Any], Any]] = {
    Append: Staging.append,
    Transact: Staging.transact,
    TruncateThrough: Staging.commit_one,
    KvPut: Staging.put,
    KvDelete: Staging.commit_one,
}
