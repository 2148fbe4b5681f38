"""What one call of ``commit_writes`` carries out: the writes of several programs, as arrays, and what came of them.

A program's expectations are turned into conditions on what is there before it: of the events that it appends itself,
and of the keys that it changes itself, it is known beforehand what they add. So the server compares numbers, and never
undoes anything.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from zlib import crc32

from interpreters.stores.group import WriteRequest
from persist_effects import codec
from persist_effects.errors import InvalidRequest
from persist_effects.event import Event
from persist_effects.planning import Limits, plan_append, plan_put, with_answers
from persist_effects.requests import (
    Answered,
    Append,
    Appended,
    Begin,
    Check,
    Conflict,
    ExpectSeq,
    KvDelete,
    KvPut,
    Outcome,
    Transact,
    TruncateThrough,
    Write,
)

BUCKETS = 1024
"""Over how many locks the streams and keys of a store are spread. A transaction may hold all of them."""

CHANGES_LIMIT = 2**20 - 1
"""How many positions, or revisions, one transaction can give: they share the number that its id is multiplied by."""

# The kinds of conditions and writes, as `commit_writes` has them.
_SEQ_IS, _REVISION_IS, _NEVER, _NEVER_BUT_NEW = 1, 2, 3, 4
_APPEND, _TRUNCATE, _BEGIN, _PUT, _DELETE = 1, 2, 3, 4, 5


def bucket_of(name: str, *, is_key: bool = False) -> int:
    """Which lock keeps a stream, or a key.

    Args:
        name: Its name.
        is_key: Whether it is a key.

    Returns:
        The number of the lock, the same in every process.

    >>> bucket_of("orders/1") == bucket_of("orders/1"), bucket_of("orders/1") < BUCKETS
    (True, True)
    """
    return crc32(name.encode(), 1 if is_key else 0) % BUCKETS


def encode_apart(events: list[Event], limit_bytes: int) -> list[tuple[bytes, bytes | None]]:
    """The bytes of each event's data and of its meta, which stand in columns of their own.

    Args:
        events: The events.
        limit_bytes: How many either may have.

    Returns:
        Both for each; None where there is no meta.

    Raises:
        InvalidRequest: For what cannot be stored.
        TooLarge: For what is over the limit.
    """
    return [
        (
            codec.encode(event.data, codec.payload_name("data", event.stream, event.type), limit_bytes),
            None
            if event.meta is None
            else codec.encode(event.meta, codec.payload_name("meta", event.stream, event.type), limit_bytes),
        )
        for event in events
    ]


class Condition(NamedTuple):
    """What must be there before a program, where it says so."""

    kind: int
    is_key: bool
    name: str
    expected: int
    added: int
    # Which write of the program asks for it; None: a check.
    write: int | None


def conflict(condition: Condition, actual: int) -> Conflict:
    """What a program is answered whose condition is not right.

    Args:
        condition: The condition.
        actual: What is there.

    Returns:
        The conflict.
    """
    kind: Literal["stream", "key"] = "key" if condition.is_key else "stream"
    return Conflict(kind, condition.name, condition.expected, actual, condition.write)


class _Change(NamedTuple):
    """One write: its kind, what it is of, its number, and what is stored."""

    kind: int
    name: str
    number: int
    value: bytes
    events: Sequence[Event]
    encoded: Sequence[tuple[bytes, bytes | None]]


class Program:
    """The writes of one request, checked and encoded, and what must be there before them.

    Args:
        request: The request.
        now: The time of the commit, in microseconds since 1970, UTC.
        limits: What the store takes. Events are encoded by `encode_apart`.

    Raises:
        InvalidRequest: For what cannot be stored, whatever is held.
        TooLarge: For a payload over the limit.
    """

    def __init__(self, request: WriteRequest, now: int, limits: Limits) -> None:
        self.conditions: list[Condition] = []
        self.changes: list[_Change] = []
        self.is_transaction = type(request) is Transact
        self.notes = isinstance(request, Transact) and bool(request.noting)
        self._now = now
        self._limits = limits
        # What this program adds to what is there: events of streams, beginnings, keys that it puts (True) or deletes.
        self._appended: dict[str, int] = {}
        self._begun: set[str] = set()
        self._keys: dict[str, bool] = {}
        self._put_count = 0
        writes: Sequence[Write] = request.writes if isinstance(request, Transact) else (request,)
        for check in request.checks if isinstance(request, Transact) else ():
            self._check(check)
        last = len(writes) - 1
        for index, write in enumerate(writes):
            answers = [self._answer(change, 0, 0) for change in self.changes] if index == last and self.notes else None
            staged = write if answers is None else with_answers(write, answers, limits)
            _STAGERS[type(write)](self, staged, index)
        if self.change_count > CHANGES_LIMIT:
            raise InvalidRequest(
                f"{request.op} has {self.change_count} events and writes: a store on PostgreSQL takes {CHANGES_LIMIT} "
                "in one transaction: make several"
            )

    @property
    def change_count(self) -> int:
        """How many events and writes it has."""
        return sum(len(change.events) + 1 for change in self.changes)

    @property
    def deletes(self) -> int:
        """How many keys it deletes, if they are there."""
        return sum(change.kind == _DELETE for change in self.changes)

    @property
    def size_bytes(self) -> int:
        """How much is stored."""
        return sum(
            len(change.value) + sum(len(data) + len(meta or b"") for data, meta in change.encoded)
            for change in self.changes
        )

    def answer(self, answers: Sequence[int], positions: Sequence[int]) -> Any:
        """What the request is answered, from the numbers of its writes."""
        found = [
            self._answer(change, number, position)
            for change, number, position in zip(self.changes, answers, positions, strict=True)
        ]
        return found if self.is_transaction else found[0]

    def _answer(self, change: _Change, number: int, position: int) -> Any:
        if change.kind == _APPEND:
            return Appended(number, number + change.number - 1, position, self._now)
        return bool(number) if change.kind == _DELETE else number

    # Staging

    def _check(self, check: Check) -> None:
        if isinstance(check, ExpectSeq):
            self._expect(_SEQ_IS, check.stream, check.expected, None, is_key=False)
        else:
            self._expect(_REVISION_IS, check.key, check.expected, None, is_key=True)

    def _expect(self, kind: int, name: str, expected: int, write: int | None, *, is_key: bool, added: int = 0) -> None:
        self.conditions.append(Condition(kind, is_key, name, expected, added, write))

    def _change(
        self,
        kind: int,
        name: str,
        number: int = 0,
        *,
        value: bytes = b"",
        events: Sequence[Event] = (),
        encoded: Sequence[tuple[bytes, bytes | None]] = (),
    ) -> None:
        self.changes.append(_Change(kind, name, number, value, events, encoded))

    def _append(self, write: Append, index: int) -> None:
        name = write.stream
        _, (events, encoded) = plan_append(write, 0, 0, self._now, self._limits)
        if write.expected is not None:
            self._expect_seq(name, write.expected, index)
        self._appended[name] = self._appended.get(name, 0) + len(events)
        self._change(_APPEND, name, len(events), events=events, encoded=encoded)

    def _expect_seq(self, name: str, expected: int, index: int) -> None:
        added = self._appended.get(name, 0)
        if name not in self._begun:
            self._expect(_SEQ_IS, name, expected, index, is_key=False, added=added)
        elif added != expected:
            self._expect(_NEVER, name, expected, index, is_key=False, added=added)

    def _truncate(self, write: TruncateThrough, _: int) -> None:
        self._change(_TRUNCATE, write.stream, write.seq)

    def _begin(self, write: Begin, index: int) -> None:
        self._expect_seq(write.stream, 0, index)
        self._begun.add(write.stream)
        self._appended[write.stream] = write.seq
        self._change(_BEGIN, write.stream, write.seq)

    def _put(self, write: KvPut, index: int) -> None:
        _, (value, _) = plan_put(write, 0, 0, self._limits)
        self._expect_revision(write, index)
        self._keys[write.key] = True
        self._put_count += 1
        self._change(_PUT, write.key, value=value)

    def _delete(self, write: KvDelete, index: int) -> None:
        self._expect_revision(write, index)
        self._keys[write.key] = False
        self._change(_DELETE, write.key)

    def _expect_revision(self, write: KvPut | KvDelete, index: int) -> None:
        if write.expected is None:
            return
        is_put = self._keys.get(write.key)
        if is_put is None:
            self._expect(_REVISION_IS, write.key, write.expected, index, is_key=True)
        elif is_put:
            # Nobody has known the revision that this very commit gives.
            self._expect(_NEVER_BUT_NEW, write.key, write.expected, index, is_key=True, added=self._put_count)
        elif write.expected:
            self._expect(_NEVER, write.key, write.expected, index, is_key=True)


_STAGERS: dict[type, Any] = {
    Append: Program._append,
    TruncateThrough: Program._truncate,
    Begin: Program._begin,
    KvPut: Program._put,
    KvDelete: Program._delete,
}


class Batch:
    """Several programs that share a transaction."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs
        self._conditions = [condition for program in programs for condition in program.conditions]
        self._changes = [change for program in programs for change in program.changes]

    def parameters(self) -> tuple[Any, ...]:
        """What `commit_writes` is called with, but for the space of its locks."""
        streams, keys, types = _Indexes(), _Indexes(), _Indexes()
        payload = _Payload()
        condition_names = [(keys if one.is_key else streams).of(one.name) for one in self._conditions]
        write_names = [(keys if change.kind >= _PUT else streams).of(change.name) for change in self._changes]
        write_starts = [payload.add(change.value) for change in self._changes]
        events: list[tuple[int, ...]] = []
        for write, change in enumerate(self._changes, 1):
            for number, (event, (data, meta)) in enumerate(zip(change.events, change.encoded, strict=True), 1):
                start = payload.add(data)
                meta_length = 0 if meta is None else len(meta)
                if meta is not None:
                    payload.add(meta)
                events.append((write, number, types.of(event.type), event.at, start, len(data), meta_length))
        columns = list(zip(*events, strict=True)) or [()] * 7
        buckets = {bucket_of(name) for name in streams.names} | {bucket_of(key, is_key=True) for key in keys.names}
        return (
            _array(sorted(buckets)),
            streams.names,
            keys.names,
            _array(len(program.conditions) for program in self._programs),
            _array(len(program.changes) for program in self._programs),
            _array("t" if program.notes else "f" for program in self._programs),
            _array(condition.kind for condition in self._conditions),
            _array(condition_names),
            _array(condition.expected for condition in self._conditions),
            _array(condition.added for condition in self._conditions),
            _array(change.kind for change in self._changes),
            _array(write_names),
            _array(change.number for change in self._changes),
            _array(write_starts),
            _array(len(change.value) for change in self._changes),
            _array(columns[0]),
            _array(columns[1]),
            types.names,
            *(_array(column) for column in columns[2:]),
            payload.taken(),
        )

    def outcomes(
        self, failed: Sequence[int], actuals: Sequence[int], answers: Sequence[int], positions: Sequence[int]
    ) -> list[Outcome]:
        """The outcome of each program, from what `commit_writes` has answered."""
        outcomes: list[Outcome] = []
        start = 0
        for program, condition, actual in zip(self._programs, failed, actuals, strict=True):
            end = start + len(program.changes)
            if condition:
                outcomes.append(Answered(conflict(self._conditions[condition - 1], actual)))
            else:
                outcomes.append(Answered(program.answer(answers[start:end], positions[start:end])))
            start = end
        return outcomes


class _Indexes:
    """Names, each once, and their numbers from 1 on."""

    def __init__(self) -> None:
        self._indexes: dict[str, int] = {}

    def of(self, name: str) -> int:
        return self._indexes.setdefault(name, len(self._indexes) + 1)

    @property
    def names(self) -> list[str]:
        return list(self._indexes)


class _Payload:
    """All bytes of a batch, one after the other, so that they are sent as they are."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._next = 1

    def add(self, part: bytes) -> int:
        """Where a part begins, counted from 1."""
        start = self._next
        if part:
            self._parts.append(part)
            self._next += len(part)
        return start

    def taken(self) -> bytes:
        return b"".join(self._parts)


def _array(items: Any) -> str:
    """Numbers as the text of an array: several times faster than an array of the driver's."""
    return "{" + ",".join(map(str, items)) + "}"


def filled_in(value: dict[str, Any], name: str, noted: Sequence[int]) -> dict[str, Any]:
    """What was noted, with the numbers that were known only when it was written.

    Args:
        value: The value, or the meta, that has the answers.
        name: Under which name.
        noted: The numbers of the answers, and after them their positions.

    Returns:
        The value, with its answers as they were given.

    >>> filled_in({"answers": [{"first_seq": 0, "last_seq": 1, "position": 0}, False]}, "answers", [7, 1, 30, 0])
    {'answers': [{'first_seq': 7, 'last_seq': 8, 'position': 30}, True]}
    """
    answers = value[name]
    count = len(answers)
    return {**value, name: [_filled(*one) for one in zip(answers, noted[:count], noted[count:], strict=True)]}


def _filled(answer: Any, number: int, position: int) -> Any:
    if isinstance(answer, dict):
        last_seq = number + answer["last_seq"] - answer["first_seq"]
        return {**answer, "first_seq": number, "last_seq": last_seq, "position": position}
    return bool(number) if isinstance(answer, bool) else number
