"""What one call of ``commit_writes`` carries out: the writes of several programs, as arrays, and what came of them.

A program's expectations are turned into conditions on what is there before it: of the events that it appends itself,
and of the keys that it changes itself, it is known beforehand what they add. So the server compares numbers, and never
undoes anything.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple
from zlib import crc32

from interpreters.stores.group import WriteRequest
from persist_effects import codec
from persist_effects.errors import InvalidRequest
from persist_effects.planning import Limits, with_answers
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
    Sql,
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


class _Condition(NamedTuple):
    """What must be there before a program, where it says so."""

    kind: int
    is_key: bool
    name: str
    expected: int
    added: int
    # Which write of the program asks for it; None: a check.
    write: int | None


class _Program(NamedTuple):
    """One request of a batch: where its conditions and its writes begin, and where they end."""

    is_transaction: bool
    notes: bool
    first_condition: int
    last_condition: int
    first_write: int
    last_write: int


class _Added:
    """What a program adds by itself to what is there: events, beginnings, keys that it puts (True) or deletes."""

    __slots__ = ("appended", "begun", "keys", "put_count")

    def __init__(self) -> None:
        self.appended: dict[str, int] = {}
        self.begun: set[str] = set()
        self.keys: dict[str, bool] = {}
        self.put_count = 0


class Batch:
    """The writes of several programs that share a transaction.

    Args:
        now: The time of the commit, in microseconds since 1970, UTC.
        limits: What the store takes.

    >>> batch = Batch(0, Limits())
    >>> batch.add(KvPut("color", "red"))
    >>> batch.change_count, batch.size_bytes
    (1, 4)
    """

    def __init__(self, now: int, limits: Limits) -> None:
        self.size_bytes = 0
        self.delete_count = 0
        self._now = now
        self._limits = limits
        self._programs: list[_Program] = []
        self._conditions: list[_Condition] = []
        self._condition_names: list[int] = []
        self._streams: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._types: dict[str, int] = {}
        self._write_kinds: list[int] = []
        self._write_names: list[int] = []
        self._write_numbers: list[int] = []
        self._values: dict[int, bytes] = {}
        self._event_writes: list[int] = []
        self._event_types: list[int] = []
        self._event_times: list[int] = []
        self._datas: list[bytes] = []
        self._metas: dict[int, bytes] = {}

    def __len__(self) -> int:
        """How many programs it has."""
        return len(self._programs)

    @property
    def change_count(self) -> int:
        """How many events and writes it has."""
        return len(self._write_kinds) + len(self._datas)

    def add(self, request: WriteRequest) -> None:
        """Add a program. What of it is SQL is not for ``commit_writes``: it has no answer here.

        Args:
            request: Its writes.

        Raises:
            InvalidRequest: For what cannot be stored, whatever is held. Then it is not added.
            TooLarge: For a payload over the limit, likewise.
        """
        before = self._lengths()
        try:
            self._add(request)
        except BaseException:
            self._cut_to(before)
            raise

    def _add(self, request: WriteRequest) -> None:
        first_condition, first_write = len(self._conditions), len(self._write_kinds)
        first_event = len(self._datas)
        added = _Added()
        notes = False
        if isinstance(request, Transact):
            notes = bool(request.noting)
            for check in request.checks:
                self._check(check)
            last = len(request.writes) - 1
            for index, write in enumerate(request.writes):
                if isinstance(write, Sql):
                    continue
                noted = self._with_answers(write, first_write) if index == last and notes else write
                _STAGERS[type(write)](self, noted, index, added)
        elif not isinstance(request, Sql):
            _STAGERS[type(request)](self, request, 0, added)
        count = len(self._write_kinds) - first_write + len(self._datas) - first_event
        if count > CHANGES_LIMIT:
            raise InvalidRequest(
                f"{request.op} has {count} events and writes: a store on PostgreSQL takes {CHANGES_LIMIT} in one "
                "transaction: make several"
            )
        ends = first_condition, len(self._conditions), first_write, len(self._write_kinds)
        self._programs.append(_Program(type(request) in (Transact, Sql), notes, *ends))

    def _lengths(self) -> tuple[int, ...]:
        return len(self._conditions), len(self._write_kinds), len(self._datas), self.size_bytes, self.delete_count

    def _cut_to(self, lengths: tuple[int, ...]) -> None:
        """Take out what was added since. Names may stay: what is asked of them is not used."""
        conditions, writes, events, self.size_bytes, self.delete_count = lengths
        del self._conditions[conditions:], self._condition_names[conditions:]
        for of_writes in (self._write_kinds, self._write_names, self._write_numbers):
            del of_writes[writes:]
        for of_events in (self._event_writes, self._event_types, self._event_times):
            del of_events[events:]
        del self._datas[events:]
        self._values = {write: value for write, value in self._values.items() if write < writes}
        self._metas = {event: meta for event, meta in self._metas.items() if event < events}

    # Staging

    def _check(self, check: Check) -> None:
        if isinstance(check, ExpectSeq):
            self._expect(_SEQ_IS, check.stream, check.expected, None, is_key=False)
        else:
            self._expect(_REVISION_IS, check.key, check.expected, None, is_key=True)

    def _expect(self, kind: int, name: str, expected: int, write: int | None, *, is_key: bool, added: int = 0) -> None:
        self._conditions.append(_Condition(kind, is_key, name, expected, added, write))
        self._condition_names.append(_index_of(name, self._keys if is_key else self._streams))

    def _change(self, kind: int, name: int, number: int = 0) -> None:
        self._write_kinds.append(kind)
        self._write_names.append(name)
        self._write_numbers.append(number)

    def _append(self, write: Append, index: int, added: _Added) -> None:
        name, drafts, now = write.stream, write.events, self._now
        if write.expected is not None:
            self._expect_seq(name, write.expected, index, added)
        added.appended[name] = added.appended.get(name, 0) + len(drafts)
        self._change(_APPEND, _index_of(name, self._streams), len(drafts))
        number, limit_bytes, types = len(self._write_kinds), self._limits.payload_bytes, self._types
        for draft in drafts:
            data, meta = codec.encode_apart(name, draft, limit_bytes)
            if meta is not None:
                self._metas[len(self._datas)] = meta
                self.size_bytes += len(meta)
            self._datas.append(data)
            self._event_writes.append(number)
            self._event_types.append(_index_of(draft.type, types))
            self._event_times.append(now if draft.at is None else draft.at)
            self.size_bytes += len(data)

    def _expect_seq(self, name: str, expected: int, index: int, added: _Added) -> None:
        own = added.appended.get(name, 0)
        if name not in added.begun:
            self._expect(_SEQ_IS, name, expected, index, is_key=False, added=own)
        elif own != expected:
            self._expect(_NEVER, name, expected, index, is_key=False, added=own)

    def _truncate(self, write: TruncateThrough, _: int, __: _Added) -> None:
        self._change(_TRUNCATE, _index_of(write.stream, self._streams), write.seq)

    def _begin(self, write: Begin, index: int, added: _Added) -> None:
        self._expect_seq(write.stream, 0, index, added)
        added.begun.add(write.stream)
        added.appended[write.stream] = write.seq
        self._change(_BEGIN, _index_of(write.stream, self._streams), write.seq)

    def _put(self, write: KvPut, index: int, added: _Added) -> None:
        value = codec.encode(write.value, codec.value_name(write.key), self._limits.payload_bytes)
        self._expect_revision(write, index, added)
        added.keys[write.key] = True
        added.put_count += 1
        self._values[len(self._write_kinds)] = value
        self._change(_PUT, _index_of(write.key, self._keys))
        self.size_bytes += len(value)

    def _delete(self, write: KvDelete, index: int, added: _Added) -> None:
        self._expect_revision(write, index, added)
        added.keys[write.key] = False
        self._change(_DELETE, _index_of(write.key, self._keys))
        self.delete_count += 1

    def _expect_revision(self, write: KvPut | KvDelete, index: int, added: _Added) -> None:
        if write.expected is None:
            return
        is_put = added.keys.get(write.key)
        if is_put is None:
            self._expect(_REVISION_IS, write.key, write.expected, index, is_key=True)
        elif is_put:
            # Nobody has known the revision that this very commit gives.
            self._expect(_NEVER_BUT_NEW, write.key, write.expected, index, is_key=True, added=added.put_count)
        elif write.expected:
            self._expect(_NEVER, write.key, write.expected, index, is_key=True)

    def _with_answers(self, write: Write, first_write: int) -> Write:
        """The last write of a program that notes: its answers have no numbers yet, and get them when it is read."""
        answers = [self._answer(index, 0, 0) for index in range(first_write, len(self._write_kinds))]
        return with_answers(write, answers, self._limits)

    # To the server, and back

    def parameters(self) -> tuple[Any, ...]:
        """What `commit_writes` is called with, but for the space of its locks."""
        buckets = {bucket_of(name) for name in self._streams}
        buckets |= {bucket_of(key, is_key=True) for key in self._keys}
        payload = [*self._datas, *self._metas.values(), *self._values.values()]
        ends = list(accumulate(map(len, payload), initial=1))
        metas = dict(zip(self._metas, ends[len(self._datas) :], strict=False))
        values = dict(zip(self._values, ends[len(self._datas) + len(self._metas) :], strict=False))
        events, writes = range(len(self._datas)), range(len(self._write_kinds))
        return (
            self._now,
            _array(sorted(buckets)),
            list(self._streams),
            list(self._keys),
            _array(program.last_condition - program.first_condition for program in self._programs),
            _array(program.last_write - program.first_write for program in self._programs),
            _array("ft"[program.notes] for program in self._programs),
            _array(condition.kind for condition in self._conditions),
            _array(self._condition_names),
            _array(condition.expected for condition in self._conditions),
            _array(condition.added for condition in self._conditions),
            _array(self._write_kinds),
            _array(self._write_names),
            _array(self._write_numbers),
            _array(values.get(write, 0) for write in writes) if values else None,
            _array(len(self._values.get(write, b"")) for write in writes) if values else None,
            _array(self._event_writes),
            list(self._types),
            _array(self._event_types),
            None if self._event_times == [self._now] * len(events) else _array(self._event_times),
            _array(ends[: len(events)]),
            _array(map(len, self._datas)),
            _array(metas.get(event, 0) for event in events) if metas else None,
            _array(len(self._metas.get(event, b"")) for event in events) if metas else None,
            b"".join(payload),
        )

    def outcomes(
        self, failed: Sequence[int], actuals: Sequence[int], answers: Sequence[int], positions: Sequence[int]
    ) -> list[Outcome]:
        """The outcome of each program.

        Args:
            failed: Of each program, the number of the condition that was not right; 0: all were.
            actuals: What was there instead.
            answers: Of each write, its number.
            positions: Of each append, the position of its last event.

        Returns:
            The outcomes, in order.
        """
        outcomes: list[Outcome] = []
        for (is_transaction, _, _, _, first, last), condition, actual in zip(
            self._programs, failed, actuals, strict=True
        ):
            if condition:
                outcomes.append(Answered(_conflict(self._conditions[condition - 1], actual)))
            elif is_transaction:
                outcomes.append(
                    Answered([self._answer(write, answers[write], positions[write]) for write in range(first, last)])
                )
            else:
                outcomes.append(Answered(self._answer(first, answers[first], positions[first])))
        return outcomes

    def _answer(self, write: int, number: int, position: int) -> Any:
        kind = self._write_kinds[write]
        if kind == _APPEND:
            return Appended(number, number + self._write_numbers[write] - 1, position, self._now)
        return bool(number) if kind == _DELETE else number


_STAGERS: dict[type, Callable[[Batch, Any, int, _Added], None]] = {
    Append: Batch._append,
    TruncateThrough: Batch._truncate,
    Begin: Batch._begin,
    KvPut: Batch._put,
    KvDelete: Batch._delete,
}


def _index_of(name: str, indexes: dict[str, int]) -> int:
    """The number of a name, from 1 on, the next one where it is new."""
    index = indexes.get(name)
    if index is None:
        index = indexes[name] = len(indexes) + 1
    return index


def _conflict(condition: _Condition, actual: int) -> Conflict:
    kind: Literal["stream", "key"] = "key" if condition.is_key else "stream"
    return Conflict(kind, condition.name, condition.expected, actual, condition.write)


def _array(items: Iterable[Any]) -> str:
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
