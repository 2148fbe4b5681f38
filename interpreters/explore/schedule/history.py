"""The operations of a history, and what later answers say of those whose outcome nobody knows.

Such an operation may have taken effect at any time after its request, or not at all. But where an answer shows a value
that no other operation has written, the one that wrote it has taken effect by then; and the numbers beside the value
are what it would have been answered.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from interpreters.explore.faults import is_own
from interpreters.explore.schedule.footprint import Touched
from interpreters.explore.schedule.recorded import RecordedStep
from persist_effects import codec
from persist_effects.errors import CallerError, StoreUnavailable
from persist_effects.requests import (
    CHANGES,
    TIMES,
    Answered,
    Append,
    Appended,
    Begin,
    BlobGet,
    BlobHas,
    BlobPut,
    Conflict,
    Entry,
    Failed,
    KvEntries,
    KvPut,
    Outcome,
    Page,
    Read,
    Request,
    Sql,
    Transact,
    TruncateThrough,
)

NEVER = 1 << 62
"""When an operation ended of which nobody knows whether it did."""


class Operation(NamedTuple):
    """One operation of a history: between which steps it was done, and what came of it, None where nobody knows.

    One that ended `NEVER` may not have been done at all. ``parts`` are what was seen of one whose outcome nobody knows:
    for each of its writes the answer, None where it was not seen.
    """

    step: RecordedStep
    began: int
    ended: int
    outcome: Outcome | None
    parts: tuple[Any, ...] = ()


_UNJUDGED = TIMES | {BlobPut, BlobGet, BlobHas, Sql}
"""Blobs are the same in any order, and what stands in tables a memory store does not know."""


def is_judged(request: Request[Any]) -> bool:
    """Whether it is an operation on streams and keys, whose answer depends on what came before."""
    return not is_own(request) and type(request) not in _UNJUDGED


def operations_in(trace: Sequence[RecordedStep]) -> list[Operation]:
    """The operations of a history that count, in the order in which they began."""
    found = []
    for step in trace:
        if step.fault or step.is_inner or not is_judged(step.request):
            continue
        outcome = step.outcome if step.ended is not None else None
        if isinstance(outcome, Failed) and not isinstance(outcome.error, CallerError):
            if isinstance(outcome.error, StoreUnavailable):
                continue
            outcome = None
        if outcome is None and type(step.request) not in CHANGES:
            continue
        ended = NEVER if outcome is None or step.ended is None else step.ended
        found.append(Operation(step, step.number, ended, outcome))
    return found


_Written = tuple[Touched, bytes]
"""A stream or a key, and a value that was written there, encoded."""


class _Shown(NamedTuple):
    """The first answer that shows a value: when it came, and its sequence number and position, or its revision."""

    ended: int
    seq: int
    number: int


def settled(history: Sequence[Operation], before: Iterable[Any]) -> list[Operation]:
    """The same history, in which operations of unknown outcome that were seen to be done have ended by then.

    Args:
        history: The operations.
        before: The writes of which the store was made.

    Returns:
        The operations, with what was seen of them.
    """
    if all(operation.outcome is not None for operation in history):
        return list(history)
    # What met a conflict, or another error, has written nothing.
    writes = [
        write
        for operation in history
        if operation.outcome is None or not _is_refusal(operation.outcome)
        for write in writes_in(operation.step.request)
    ]
    counts = Counter(written for write in (*writes, *before) for written in _written_by(write))
    shown: dict[_Written, _Shown] = {}
    for operation in history:
        if isinstance(operation.outcome, Answered):
            for written, seq, number in _shown_by(operation.step.request, operation.outcome.value):
                if counts[written] == 1 and (written not in shown or operation.ended < shown[written].ended):
                    shown[written] = _Shown(operation.ended, seq, number)
    whole = _whole_reads_in(history)
    return [
        operation if operation.outcome is not None else _not_before(_settled(operation, shown), whole, counts)
        for operation in history
    ]


def values_shown(history: Iterable[Operation]) -> frozenset[tuple[Touched, bytes]]:
    """All values that answers show: where, and their bytes.

    Args:
        history: The operations.
    """
    return frozenset(
        written
        for operation in history
        if isinstance(operation.outcome, Answered)
        for written, _, _ in _shown_by(operation.step.request, operation.outcome.value)
    )


def _whole_reads_in(history: Sequence[Operation]) -> dict[str, int]:
    """When the last read began that shows all of a stream, of those from which nothing is ever dropped."""
    whole: dict[str, int] = {}
    for operation in history:
        request = operation.step.request
        if isinstance(request, Read) and isinstance(operation.outcome, Answered):
            page = operation.outcome.value
            if len(page.events) == page.head:
                whole[request.stream] = max(operation.began, whole.get(request.stream, 0))
    for operation in history:
        for write in writes_in(operation.step.request):
            if isinstance(write, TruncateThrough | Begin):
                whole.pop(write.stream, None)
    return whole


def _not_before(operation: Operation, whole: Mapping[str, int], counts: Mapping[_Written, int]) -> Operation:
    """What none of them shows, though it would be there for good, was done after them, if at all."""
    if operation.ended < NEVER:
        return operation
    began = operation.began
    for write in writes_in(operation.step.request):
        if isinstance(write, Append) and any(counts[written] == 1 for written in _written_by(write)):
            began = max(began, whole.get(write.stream, 0))
    return operation._replace(began=began)


def _settled(operation: Operation, shown: dict[_Written, _Shown]) -> Operation:
    parts: list[Any] = []
    ended = NEVER
    for write in writes_in(operation.step.request):
        found = [shown[written] for written in _written_by(write) if written in shown]
        ended = min([ended, *(one.ended for one in found)])
        part: Any = None
        if isinstance(write, Append) and len(found) == len(write.events):
            part = Appended(found[0].seq, found[-1].seq, found[-1].number, 0)
        elif isinstance(write, KvPut) and found:
            part = found[0].number
        parts.append(part)
    return operation._replace(ended=ended, parts=tuple(parts))


def _is_refusal(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) or isinstance(outcome.value, Conflict)


def writes_in(request: Any) -> tuple[Any, ...]:
    """The writes of a transaction, else the request itself."""
    return request.writes if isinstance(request, Transact) else (request,)


def _written_by(write: Any) -> Iterator[_Written]:
    if isinstance(write, Append):
        for draft in write.events:
            yield ("stream", write.stream), encoded(draft.data)
    elif isinstance(write, KvPut):
        yield ("key", write.key), encoded(write.value)


def _shown_by(request: Any, answer: Any) -> Iterator[tuple[_Written, int, int]]:
    if isinstance(answer, Page):
        for event in answer.events:
            yield (("stream", event.stream), encoded(event.data)), event.seq, event.position
    elif isinstance(answer, Entry):
        yield (("key", request.key), encoded(answer.value)), 0, answer.revision
    elif isinstance(request, KvEntries):
        for key, entry in answer:
            yield (("key", key), encoded(entry.value)), 0, entry.revision


def encoded(value: Any) -> bytes:
    """A value's bytes; none for one that cannot be stored: a caller's mistake, which is judged elsewhere."""
    try:
        return codec.encode(value)
    except CallerError:
        return b""
