"""What the answers of a history say of what must stand in the store before each operation.

A stream's last sequence number only grows, a revision that was written over never stands again, and the event at a
sequence number stays what it is. So a row of operations in which one comes too late for its answer can be left at once,
before the row comes to it.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from interpreters.explore.schedule.history import Operation, encoded, writes_in
from persist_effects.requests import (
    Answered,
    Append,
    Appended,
    Begin,
    Conflict,
    Entry,
    ExpectRevision,
    ExpectSeq,
    Failed,
    KvDelete,
    KvEntries,
    KvGet,
    KvPut,
    LastSeq,
    Page,
    Read,
    Transact,
    TruncateThrough,
)

Need = tuple[str, str, int]
"""That a stream has a last sequence number, or a key a revision, when an operation is done."""


def needs_of(operation: Operation) -> tuple[Need, ...]:
    """What stood in the store when an operation was done, as far as its answer says.

    Args:
        operation: One that must have been done.
    """
    request, outcome = operation.step.request, operation.outcome
    if isinstance(outcome, Failed):
        return ()
    answer = None if outcome is None else outcome.value
    if isinstance(answer, Conflict):
        # The other writes of a transaction may have come before the one that met it.
        return () if isinstance(request, Transact) else _standing(answer.kind, answer.name, answer.actual)
    match request:
        case Read() if isinstance(answer, Page):
            return (("stream", request.stream, answer.head),)
        case LastSeq() if isinstance(answer, int):
            return (("stream", request.stream, answer),)
        case KvGet() if isinstance(answer, Entry):
            return _standing("key", request.key, answer.revision)
        case KvEntries() if isinstance(answer, list):
            return tuple(need for key, entry in answer for need in _standing("key", key, entry.revision))
    answers = operation.parts if outcome is None else answer if isinstance(request, Transact) else [answer]
    return tuple(_needs_of_writes(request, answers)) if isinstance(answers, list | tuple) else ()


def _needs_of_writes(request: Any, answers: Sequence[Any]) -> Iterator[Need]:
    for check in request.checks if isinstance(request, Transact) else ():
        if isinstance(check, ExpectSeq):
            yield "stream", check.stream, check.expected
        elif isinstance(check, ExpectRevision):
            yield from _standing("key", check.key, check.expected)
    begun: set[str] = set()
    for write, answer in zip(writes_in(request), answers, strict=False):
        if isinstance(write, Append | Begin | TruncateThrough):
            if isinstance(write, Append) and isinstance(answer, Appended) and write.stream not in begun:
                yield "stream", write.stream, answer.first_seq - 1
            begun.add(write.stream)
        elif isinstance(write, KvPut | KvDelete) and write.expected is not None:
            yield from _standing("key", write.key, write.expected)


def _standing(kind: str, name: str, number: int) -> tuple[Need, ...]:
    # That a key is absent may come again.
    return ((kind, name, number),) if kind == "stream" or number > 0 else ()


class Needs:
    """What those operations need that are not done yet.

    Args:
        operations: Those that must be done.
        history: All of them, of which some show events.
    """

    def __init__(self, operations: Iterable[Operation], history: Iterable[Operation]) -> None:
        self._of = [needs_of(operation) for operation in operations]
        self._open = Counter(need for needs in self._of for need in needs)
        sequences = defaultdict[str, set[int]](set)
        for kind, name, number in self._open:
            if kind == "stream":
                sequences[name].add(number)
        self._sequences = {name: sorted(numbers) for name, numbers in sequences.items()}
        self._least = dict.fromkeys(sequences, 0)
        self._events: dict[tuple[str, int], tuple[str, bytes]] = {}
        for operation in history:
            if isinstance(operation.outcome, Answered) and isinstance(operation.outcome.value, Page):
                for event in operation.outcome.value.events:
                    self._events.setdefault((event.stream, event.seq), (event.type, encoded(event.data)))

    def done(self, index: int) -> None:
        """Note that an operation was done.

        Args:
            index: Its place among the operations.
        """
        for need in self._of[index]:
            self._open[need] -= 1
            kind, name, _ = need
            if kind == "stream":
                self._move_on(name)

    def undone(self, index: int) -> None:
        """Take `done` back.

        Args:
            index: Its place among the operations.
        """
        for kind, name, number in self._of[index]:
            self._open[kind, name, number] += 1
            if kind == "stream":
                self._least[name] = min(self._least[name], bisect_left(self._sequences[name], number))

    def _move_on(self, stream: str) -> None:
        numbers, least = self._sequences[stream], self._least[stream]
        while least < len(numbers) and not self._open["stream", stream, numbers[least]]:
            least += 1
        self._least[stream] = least

    def late_in_stream(self, stream: str, last_seq: int) -> str | None:
        """What comes too late once a stream has a last sequence number: in words, None if nothing does.

        Args:
            stream: The stream.
            last_seq: Its last sequence number now.
        """
        numbers, least = self._sequences.get(stream, ()), self._least.get(stream, 0)
        if least < len(numbers) and numbers[least] < last_seq:
            return f"come before what found {stream} at {numbers[least]}"
        return None

    def late_for_key(self, key: str, revision: int) -> str | None:
        """What comes too late once a key's revision is written over: in words, None if nothing does.

        Args:
            key: The key.
            revision: The revision that stood there, as answers name it.
        """
        return f"come before what found {key} at revision {revision}" if self._open["key", key, revision] else None

    def wrong_events(self, write: Append, first_seq: int) -> str | None:
        """Which of a write's events is not the one that answers show at its place: in words, None if none is.

        Args:
            write: The write.
            first_seq: The sequence number of its first event.
        """
        for seq, draft in enumerate(write.events, first_seq):
            known = self._events.get((write.stream, seq))
            if known is not None and known != (draft.type, encoded(draft.data)):
                return f"stand at {write.stream} {seq}, where another event was read"
        return None
