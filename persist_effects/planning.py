r"""What a commit's writes will be answered, and the change that makes it so: a pure function.

A store gives the writes, the heads that they touch, the time and its limits to `plan`. It gets back the answer, and a
`Change` to carry out, or a conflict and nothing to do. What cannot be stored is refused before, whatever is there.

Positions and revisions count on from those of the heads. Where these are 0, as for a store that learns its own only
when it writes, they are ordinals within the commit, and the store makes them absolute. A revision that the commit
itself gives was never known to anybody, so nothing that expects one is right.

>>> answer, change = plan(KvPut("color", "red"), Nothing(), now=0, limits=Limits())
>>> answer, change.puts
(1, {'color': (b'\xa3red', 1)})
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from persist_effects import codec
from persist_effects.event import Draft, Event
from persist_effects.requests import (
    ANSWERS,
    Advance,
    Append,
    Appended,
    Begin,
    Check,
    Conflict,
    ExpectSeq,
    KvDelete,
    KvPut,
    Sql,
    Transact,
    TruncateThrough,
    Write,
)
from persist_effects.sql_text import refusal

_LONGEST = 2**63
"""Encoded in nine bytes, as many as any integer takes."""


class Heads(Protocol):
    """What a plan must know of what is there before the commit."""

    @property
    def position(self) -> int:
        """The position last given."""
        ...

    @property
    def revision(self) -> int:
        """The revision last given."""
        ...

    def last_seq(self, stream: str) -> int:
        """The high-water mark of a stream, 0 if it was never used."""
        ...

    def dropped(self, stream: str) -> int:
        """Through which sequence number the events of a stream were dropped."""
        ...

    def revision_of(self, key: str) -> int:
        """The revision of a key, 0 if it is absent."""
        ...


class Nothing:
    """The heads of a store that holds nothing."""

    position = 0
    revision = 0

    def last_seq(self, stream: str) -> int:
        """No stream was used."""
        return 0

    def dropped(self, stream: str) -> int:
        """Nothing was dropped."""
        return 0

    def revision_of(self, key: str) -> int:
        """Every key is absent."""
        return 0


class Limits(NamedTuple):
    """How many bytes of payload a store takes, and how it encodes the events of one append, refusing what it does not.

    It is called with the events and the limit; where it is None, each is encoded by itself, as a list of bytes.
    ``has_sql``: it carries out SQL statements.
    """

    payload_bytes: int = codec.PAYLOAD_LIMIT_BYTES
    encode_events: Callable[[list[Event], int], Any] | None = None
    has_sql: bool = False


PlannedRun = tuple[list[Event], Any]
"""The events of one append, with consecutive sequence numbers and positions, and what they were encoded as."""


Put = tuple[bytes, int]
"""A value that is put, encoded, and its revision."""

Begun = tuple[int, int]
"""After which sequence number a stream begins, and the position that this took."""


class Change:
    """What a commit changes: first streams are ``begun``, then ``runs`` appended, then ``drops`` made.

    The numbers of ``drops`` are those through which events are dropped.

    Where it ``advances``, the numbers of the store may be raised by it though nothing else changes.

    ``puts`` and ``deleted`` have the last word on each key; the numbers of ``deleted`` are the revisions that the
    deletions took. ``seqs`` and ``revisions`` are the heads afterwards of what was written, ``position`` and
    ``revision`` those of the store.

    ``statements`` are SQL, by the index of the write, to be carried out before anything else: what they are answered,
    the store learns then. Only a store whose limits say that it has SQL meets any.
    """

    __slots__ = (
        "advances",
        "begun",
        "deleted",
        "drops",
        "position",
        "puts",
        "revision",
        "revisions",
        "runs",
        "seqs",
        "statements",
    )

    def __init__(self, position: int, revision: int) -> None:
        self.advances = False
        self.begun: dict[str, Begun] = {}
        self.runs: list[PlannedRun] = []
        self.drops: dict[str, int] = {}
        self.puts: dict[str, Put] = {}
        self.deleted: dict[str, int] = {}
        self.seqs: dict[str, int] = {}
        self.revisions: dict[str, int] = {}
        self.statements: dict[int, Sql] = {}
        self.position = position
        self.revision = revision

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        changes = self.begun or self.runs or self.drops or self.puts or self.deleted or self.statements
        return not (self.advances or changes)


Planned = tuple[Any, Change | None]
"""An answer, and the change that makes it true; None where nothing is written because of a conflict."""


def plan(request: Write | Transact | Advance, heads: Heads, now: int, limits: Limits) -> Planned:
    """Plan one commit: a transaction, or a write by itself.

    Args:
        request: what is to be committed.
        heads: what is there before. They are asked only for the streams and keys that the request names.
        now: the time of the commit, in microseconds since 1970, UTC.
        limits: what the store takes.

    Returns:
        The answer to the request, and the change. A conflict comes with none.

    Raises:
        InvalidRequest: if something in it cannot be stored.
        TooLarge: if a payload is over the limit.

    >>> from persist_effects.event import Draft
    >>> writes = (Append("orders/1", (Draft("placed", 12),)), KvPut("latest", 1))
    >>> plan(Transact(writes), Nothing(), 0, Limits())[0]
    [Appended(first_seq=1, last_seq=1, position=1, at=0), 1]
    >>> plan(KvPut("latest", 1, expected=7), Nothing(), 0, Limits())[0]
    Conflict(kind='key', name='latest', expected=7, actual=0, write=0)
    """
    if type(request) is Advance:
        return None, _advanced(request, heads)
    commit = _Commit(heads, now, limits)
    if type(request) is not Transact:
        answer = commit.stage(cast(Write, request), 0)
        return (answer, commit.change) if commit.conflict is None else (commit.conflict, None)
    commit.conflict = _first_failing(request.checks, heads)
    last = len(request.writes) - 1
    answers: list[Any] = []
    for index, write in enumerate(request.writes):
        # All are staged, also after a conflict: what cannot be stored is told first, whatever is held.
        staged = with_answers(write, answers, limits) if index == last and request.noting else write
        answers.append(commit.stage(staged, index))
    return (answers, commit.change) if commit.conflict is None else (commit.conflict, None)


def _advanced(request: Advance, heads: Heads) -> Change:
    position, revision = max(heads.position, request.position), max(heads.revision, request.revision)
    change = Change(position, revision)
    change.advances = (position, revision) != (heads.position, heads.revision)
    return change


def plan_append(
    request: Append, last_seq: int, position: int, now: int, limits: Limits
) -> tuple[Appended | Conflict, PlannedRun]:
    """Plan a commit of one append, without what only others need: it is what stores do most.

    Args:
        request: the append.
        last_seq: the high-water mark of its stream.
        position: the position last given.
        now: the time of the commit, in microseconds since 1970, UTC.
        limits: what the store takes.

    Returns:
        The answer, and what is to be appended unless that is a conflict.

    Raises:
        InvalidRequest: if something in it cannot be stored.
        TooLarge: if a payload is over the limit.

    >>> from persist_effects.event import Draft
    >>> answer, (events, _) = plan_append(Append("orders/1", (Draft("placed", 12),)), 4, 10, 0, Limits())
    >>> answer, events[0].position
    (Appended(first_seq=5, last_seq=5, position=11, at=0), 11)
    """
    name, expected = request.stream, request.expected
    limit_bytes, encode_events, _ = limits
    if len(request.events) == 1 and encode_events is None:
        # What is appended most, without a list that is gone through twice.
        (draft,) = request.events
        at = now if draft.at is None else draft.at
        event = Event(name, last_seq + 1, draft.type, at, draft.data, position + 1, draft.meta)
        run = [event], [codec.encode_new_event(event, limit_bytes)]
        if expected is not None and expected != last_seq:
            return Conflict("stream", name, expected, last_seq), run
        return Appended(last_seq + 1, last_seq + 1, position + 1, now), run
    events = [
        Event(
            name,
            last_seq + number,
            draft.type,
            now if draft.at is None else draft.at,
            draft.data,
            position + number,
            draft.meta,
        )
        for number, draft in enumerate(request.events, 1)
    ]
    if encode_events is None:
        encode = codec.encode_new_event
        encoded: Any = [encode(event, limit_bytes) for event in events]
    else:
        encoded = encode_events(events, limit_bytes)
    if expected is not None and expected != last_seq:
        return Conflict("stream", name, expected, last_seq), (events, encoded)
    count = len(events)
    return Appended(last_seq + 1, last_seq + count, position + count, now), (events, encoded)


def plan_put(request: KvPut, actual: int, revision: int, limits: Limits) -> tuple[int | Conflict, Put]:
    r"""Plan a commit of one put, likewise.

    Args:
        request: the put.
        actual: the revision of its key, 0 if it is absent.
        revision: the revision last given.
        limits: what the store takes.

    Returns:
        The answer, and what is to be put unless that is a conflict.

    Raises:
        InvalidRequest: if the value cannot be stored.
        TooLarge: if it is over the limit.

    >>> plan_put(KvPut("color", "red"), 0, 6, Limits())
    (7, (b'\xa3red', 7))
    """
    key, expected = request.key, request.expected
    value = codec.encode(request.value, codec.value_name(key), limits.payload_bytes)
    revision += 1
    if expected is not None and expected != actual:
        return Conflict("key", key, expected, actual), (value, revision)
    return revision, (value, revision)


class _Commit:
    """What the writes of one commit so far come to. Each sees those before it."""

    def __init__(self, heads: Heads, now: int, limits: Limits) -> None:
        self.conflict: Conflict | None = None
        self.change = Change(heads.position, heads.revision)
        self._heads = heads
        self._now = now
        self._limits = limits

    def stage(self, write: Write, index: int) -> Any:
        """The answer to a write, which counts unless there is a conflict."""
        return _STAGERS[type(write)](self, write, index)

    def _append(self, write: Append, index: int) -> Any:
        change, name = self.change, write.stream
        last_seq = self._last_seq(name)
        answer, run = plan_append(write, last_seq, change.position, self._now, self._limits)
        change.runs.append(run)
        count = len(run[0])
        change.seqs[name] = last_seq + count
        change.position += count
        if type(answer) is Conflict:
            self.conflict = self.conflict or msgspec.structs.replace(answer, write=index)
        return answer

    def _truncate(self, write: TruncateThrough, _: int) -> int:
        name = write.stream
        dropped = self.change.drops.get(name)
        if dropped is None:
            begun = self.change.begun.get(name)
            dropped = self._heads.dropped(name) if begun is None else begun[0]
        seq = min(write.seq, self._last_seq(name))
        if seq <= dropped:
            return 0
        self.change.drops[name] = seq
        return seq - dropped

    def _begin(self, write: Begin, index: int) -> int:
        change, name = self.change, write.stream
        actual = self._last_seq(name)
        if actual and self.conflict is None:
            self.conflict = Conflict("stream", name, 0, actual, index)
        change.position += 1
        change.begun[name] = (write.seq, change.position)
        change.seqs[name] = write.seq
        return change.position

    def _put(self, write: KvPut, index: int) -> int:
        change, key = self.change, write.key
        value = codec.encode(write.value, codec.value_name(key), self._limits.payload_bytes)
        self._expect(write, index)
        change.revision = revision = change.revision + 1
        change.revisions[key] = revision
        change.puts[key] = (value, revision)
        change.deleted.pop(key, None)
        return revision

    def _delete(self, write: KvDelete, index: int) -> bool:
        change, key = self.change, write.key
        if not self._expect(write, index):
            return False
        change.revision += 1
        change.revisions[key] = 0
        change.puts.pop(key, None)
        change.deleted[key] = change.revision
        return True

    def _sql(self, write: Sql, index: int) -> int:
        check_sql(write, self._limits)
        self.change.statements[index] = write
        return 0

    def _expect(self, write: KvPut | KvDelete, index: int) -> int:
        """The revision of a write's key. Where it expects another one, there is a conflict."""
        key, expected = write.key, write.expected
        given = self.change.revisions.get(key)
        actual = self._heads.revision_of(key) if given is None else given
        # Nobody has known the revision that this very commit gives.
        if expected is not None and (expected != actual or given) and self.conflict is None:
            self.conflict = Conflict("key", key, expected, actual, index)
        return actual

    def _last_seq(self, name: str) -> int:
        seq = self.change.seqs.get(name)
        return self._heads.last_seq(name) if seq is None else seq


_STAGERS: dict[type, Callable[[_Commit, Any, int], Any]] = {
    Append: _Commit._append,
    TruncateThrough: _Commit._truncate,
    Begin: _Commit._begin,
    KvPut: _Commit._put,
    KvDelete: _Commit._delete,
    Sql: _Commit._sql,
}


def check_sql(write: Sql, limits: Limits) -> None:
    """Refuse a statement where the store has no SQL, or it is over the limit.

    Args:
        write: The statement.
        limits: What the store takes.

    Raises:
        InvalidRequest: Where the store has no SQL.
        TooLarge: If the statement, or its parameters, are over the limit.

    >>> check_sql(Sql("DELETE FROM orders"), Limits())
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: SQL 'DELETE FROM orders': this store has no SQL: stores on SQLite and ...
    """
    if not limits.has_sql:
        raise refusal(
            write.statement,
            "this store has no SQL: stores on SQLite and PostgreSQL have, opened by their own URLs, or served by a "
            "server that was told to take SQL",
        )
    codec.encode([write.statement, write.params], "an SQL statement with its parameters", limits.payload_bytes)


def _first_failing(checks: tuple[Check, ...], heads: Heads) -> Conflict | None:
    for check in checks:
        if isinstance(check, ExpectSeq):
            actual = heads.last_seq(check.stream)
            conflict = Conflict("stream", check.stream, check.expected, actual, None)
        else:
            actual = heads.revision_of(check.key)
            conflict = Conflict("key", check.key, check.expected, actual, None)
        if check.expected != actual:
            return conflict
    return None


# Noting


def with_answers(write: Write, answers: list[Any], limits: Limits) -> Write:
    """Have the last write of a transaction that notes keep the answers of those before it.

    Args:
        write: An append of one draft, or a put of a dict.
        answers: The answers. A store that learns some of their numbers only later fills them in when it reads.
        limits: What the store takes. The numbers count at their longest, so that the same transaction fits wherever it
            is made.

    Returns:
        The write, with the answers as plain values.

    Raises:
        TooLarge: If it is over the limit with them.

    >>> with_answers(KvPut("latest", {}), [7, True], Limits()).value
    {'answers': [7, True]}
    """
    plain = [msgspec.to_builtins(answer) for answer in answers]
    longest = [_at_its_longest(answer) for answer in plain]
    if isinstance(write, KvPut):
        codec.encode({**write.value, ANSWERS: longest}, codec.value_name(write.key), limits.payload_bytes)
        return msgspec.structs.replace(write, value={**write.value, ANSWERS: plain})
    assert isinstance(write, Append), "a transaction that notes was checked where it was built"
    (draft,) = write.events
    meta = draft.meta or {}
    what = codec.payload_name("meta", write.stream, draft.type)
    codec.encode({**meta, ANSWERS: longest}, what, limits.payload_bytes)
    noted = Draft(draft.type, draft.data, draft.at, {**meta, ANSWERS: plain})
    return msgspec.structs.replace(write, events=(noted,))


def _at_its_longest(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: _at_its_longest(part) for name, part in answer.items()}
    return _LONGEST if type(answer) is int else answer
