"""Staging a batch of writes: what each will be answered, and the frames that make it so.

Nothing here touches the index or the disk: a batch that cannot be written leaves no trace.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgspec

from interpreters.file.format import COMMIT, EVENT, Commit, Drop, Run, StoredEntry, encode_commit
from interpreters.file.index import Index
from persist_effects import codec
from persist_effects.event import Event
from persist_effects.requests import (
    Append,
    Appended,
    Check,
    Conflict,
    ExpectSeq,
    KvDelete,
    KvPut,
    Request,
    Transact,
    TruncateThrough,
    Write,
)

WriteRequest = Append | TruncateThrough | KvPut | KvDelete | Transact
DroppedPosition = Callable[[str, int], int]


class StagedFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame to be written, and what the index will take in: a run of one event, or a commit."""

    kind: int
    payload: bytes
    content: Run | Commit


class _Parts:
    """What the writes of one commit add up to."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.events: list[msgspec.Raw] = []
        self.entries: dict[str, StoredEntry] = {}
        self.deleted: dict[str, None] = {}
        self.drops: list[Drop] = []


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
        self.frames: list[StagedFrame] = []
        self.stagers: dict[type[Request[Any]], Callable[[Any], Any]] = {
            Append: self.append,
            Transact: self.transact,
            TruncateThrough: self._commit_one,
            KvPut: self._commit_one,
            KvDelete: self._commit_one,
        }

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
            answer: Appended | Conflict = self._commit_one(request)
            return answer
        name, (draft,) = request.stream, request.events
        last_seq = self._last_seq(name)
        now = self._now
        position = self._position + 1
        at = now if draft.at is None else draft.at
        event = Event(name, last_seq + 1, draft.type, at, draft.data, position, draft.meta)
        payload = codec.encode_new_event(event, self._limit_bytes)
        if request.expected is not None and request.expected != last_seq:
            return Conflict(name, request.expected, last_seq)
        self._seqs[name] = last_seq + 1
        self._position = position
        self.frames.append(StagedFrame(EVENT, payload, Run(name, last_seq + 1, position, 1)))
        return Appended(last_seq + 1, last_seq + 1, position, now)

    def transact(self, request: Transact) -> list[Any] | Conflict:
        """Stage several writes as one commit."""
        return self._commit(request.writes, request.checks)

    def _commit_one(self, request: Write) -> Any:
        answers = self._commit([request], ())
        return answers if isinstance(answers, Conflict) else answers[0]

    def _commit(self, writes: Sequence[Write], checks: Sequence[Check]) -> list[Any] | Conflict:
        conflict = self._first_failing(checks)
        before = (self._position, self._revision, dict(self._seqs), dict(self._revisions), dict(self._dropped))
        parts = _Parts()
        answers: list[Any] = []
        try:
            for write in writes:
                # All are staged, also after a conflict: what cannot be stored is told first, whatever the store holds.
                answer = self._stage(write, parts)
                if isinstance(answer, Conflict):
                    conflict = conflict or answer
                answers.append(answer)
        except BaseException:
            self._position, self._revision, self._seqs, self._revisions, self._dropped = before
            raise
        if conflict is not None:
            self._position, self._revision, self._seqs, self._revisions, self._dropped = before
            return conflict
        if parts.runs or parts.entries or parts.deleted or parts.drops:
            self._add_frame(parts)
        return answers

    def _add_frame(self, parts: _Parts) -> None:
        commit = Commit(
            parts.runs,
            parts.events,
            list(parts.entries.values()),
            list(parts.deleted),
            parts.drops,
            [],
            self._revision,
            self._position,
        )
        self.frames.append(StagedFrame(COMMIT, encode_commit(commit), _without_events(commit)))

    def _first_failing(self, checks: Sequence[Check]) -> Conflict | None:
        for check in checks:
            if isinstance(check, ExpectSeq):
                name, actual = check.stream, self._last_seq(check.stream)
            else:
                name, actual = check.key, self._revision_of(check.key)
            if check.expected != actual:
                return Conflict(name, check.expected, actual)
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
        limit_bytes = self._limit_bytes
        for number, draft in enumerate(write.events):
            at = now if draft.at is None else draft.at
            seq, position = last_seq + 1 + number, first_position + number
            event = Event(name, seq, draft.type, at, draft.data, position, draft.meta)
            parts.events.append(msgspec.Raw(codec.encode_new_event(event, limit_bytes)))
        count = len(write.events)
        parts.runs.append(Run(name, last_seq + 1, first_position, count))
        self._seqs[name] = last_seq + count
        self._position += count
        if write.expected is not None and write.expected != last_seq:
            return Conflict(name, write.expected, last_seq)
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
        contents = [frame.content for frame in self.frames]
        staged = (run for content in contents for run in ([content] if isinstance(content, Run) else content.runs))
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
            return Conflict(key, write.expected, actual)
        return self._revision

    def _stage_delete(self, write: KvDelete, parts: _Parts) -> bool | Conflict:
        key = write.key
        actual = self._revision_of(key)
        self._revisions[key] = 0
        parts.entries.pop(key, None)
        if actual:
            parts.deleted[key] = None
        if write.expected is not None and write.expected != actual:
            return Conflict(key, write.expected, actual)
        return actual != 0

    def _last_seq(self, name: str) -> int:
        seq = self._seqs.get(name)
        return self._index.last_seq(name) if seq is None else seq

    def _revision_of(self, key: str) -> int:
        revision = self._revisions.get(key)
        return self._index.revision_of(key) if revision is None else revision


def _without_events(commit: Commit) -> Commit:
    # The index keeps nothing of the values, so they need not be held until the sync has returned.
    return msgspec.structs.replace(commit, events=[])
