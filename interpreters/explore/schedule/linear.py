"""Whether a store's operations, as they overlapped, could have been done one after the other.

A history is linearizable if each operation can be given one moment between its request and its answer, so that a store
which does them in the order of these moments gives the same answers (Herlihy and Wing, 1990). The memory store is asked
what those answers are. An operation whose outcome is uncertain, or of which nobody heard because its program was gone,
may have taken effect at any time after its request, or not at all.

Positions and revisions are the store's own choice: what counts is that equal ones stay equal.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from interpreters.explore.faults import is_own
from interpreters.explore.report import Problem
from interpreters.explore.schedule.recorded import RecordedStep
from interpreters.explore.schedule.world import World
from interpreters.explore.words import told, told_error, told_outcome
from interpreters.stores.memory import MemoryStore
from persist_effects import codec, machine
from persist_effects.errors import CallerError, StoreUnavailable
from persist_effects.event import INT64_MAX, Draft, Event
from persist_effects.kv import entries
from persist_effects.log import last_seq, read_all, streams
from persist_effects.machine import Effect, Handlers
from persist_effects.requests import (
    ANSWERS,
    CHANGES,
    Append,
    Appended,
    Begin,
    Conflict,
    Entry,
    ExpectRevision,
    Failed,
    KvDelete,
    KvEntries,
    KvPut,
    KvWait,
    Outcome,
    Page,
    ReadAll,
    Transact,
    Wait,
)

NEVER = 1 << 62
"""When an operation ended of which nobody knows whether it did."""


class Filling(NamedTuple):
    """What a store holds: the writes that fill an empty one likewise."""

    writes: tuple[Any, ...]


class Operation(NamedTuple):
    """One operation of a history: between which steps it was done, and what came of it, None where nobody knows."""

    step: RecordedStep
    began: int
    ended: int
    outcome: Outcome | None


def contents_of(handlers: Handlers) -> Filling:
    """Read everything that a store holds.

    >>> store = MemoryStore()
    >>> _ = store.handlers[KvPut](KvPut("color", "red"))
    >>> contents_of(store.handlers).writes
    (KvPut(key='color', value='red', expected=None),)
    """
    return Filling(tuple(World((), handlers).run_alone(_writes())))


def _writes() -> Effect[list[Any]]:
    left = yield from read_all()
    writes: list[Any] = []
    for stream in (yield from streams()):
        first = next((event.seq for event in left if event.stream == stream), (yield from last_seq(stream)) + 1)
        if first > 1:
            writes.append(Begin(stream, first - 1))
    writes += (Append(event.stream, (Draft(event.type, event.data, event.at, event.meta),)) for event in left)
    found = yield from entries()
    found.sort(key=lambda pair: pair[1].revision)
    return [*writes, *(KvPut(key, entry.value) for key, entry in found)]


def linear_problem(trace: Sequence[RecordedStep], contents: Filling, names: Sequence[str]) -> Problem | None:
    """What is wrong with a history, None if it can be put in a row."""
    history = operations_in(trace)
    search = _Rows(history, contents)
    if search.find():
        return None
    return Problem(
        "not linearizable",
        "some order of the operations, each between its request and its answer, explains all answers",
        "\n".join(["no order does:", *_told_history(history, names), *search.told_best(names)]),
    )


def operations_in(trace: Sequence[RecordedStep]) -> list[Operation]:
    """The operations of a history that count, in the order in which they began."""
    found = []
    for step in trace:
        if step.fault or step.is_inner or is_own(step.request):
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


def _told_history(history: Sequence[Operation], names: Sequence[str]) -> Iterator[str]:
    for operation in history:
        until = "on" if operation.ended == NEVER else f"to {operation.ended}"
        said = told_outcome(operation.step.request, operation.outcome) or ", whose outcome nobody knows"
        name = names[operation.step.index]
        yield f"steps {operation.began} {until}: {name} {told(operation.step.request)}{said}"


class _Rows:
    """The search for an order: depth first, each order on a memory store from the start."""

    def __init__(self, history: Sequence[Operation], contents: Filling) -> None:
        self._history = history
        self._contents = contents
        self._best: tuple[list[Operation], str] = ([], "")

    def find(self) -> bool:
        """Whether there is an order."""
        known = [operation for operation in self._history if operation.outcome is not None]
        in_order = sorted(known, key=lambda operation: (operation.ended, operation.began))
        # Nearly always it is that of the answers, and uncertain operations did nothing.
        return self._explains(in_order) or self._extend([])

    def told_best(self, names: Sequence[str]) -> list[str]:
        """How far an order went, and what stopped it."""
        row, stopped = self._best
        went = ", ".join(f"{names[operation.step.index]} #{operation.step.ordinal}" for operation in row) or "none"
        return [f"the longest row: {went}", *([f"then {stopped}"] if stopped else [])]

    def _extend(self, row: list[Operation]) -> bool:
        left = [operation for operation in self._history if operation not in row]
        if all(operation.outcome is None for operation in left):
            return True
        first_end = min(operation.ended for operation in left)
        for operation in left:
            # One that began after another had ended does not come before it.
            if operation.began <= first_end and self._explains([*row, operation]) and self._extend([*row, operation]):
                return True
        return False

    def _explains(self, row: list[Operation]) -> bool:
        store = MemoryStore(clock=lambda: 0)
        for write in self._contents.writes:
            store.handlers[type(write)](write)
        same = SameNumbers()
        for count, operation in enumerate(row):
            wanted = machine.outcome_of(same.translated(operation.step.request), store.handlers)
            if operation.outcome is not None and not same.are_same(operation.step.request, operation.outcome, wanted):
                if count >= len(self._best[0]):
                    said = told_outcome(operation.step.request, wanted)
                    self._best = row[:count], f"{told(operation.step.request)} would be{said or ' answered'}"
                return False
        return True


_NUMBERS: dict[type, str] = {Begin: "position", Wait: "position", KvPut: "revision", KvWait: "revision"}
"""Of which sort the number is that answers a request."""


class SameNumbers:
    """Which positions and revisions of one store are which of another's."""

    def __init__(self) -> None:
        self._ours: dict[tuple[str, int], int] = {("position", 0): 0, ("revision", 0): 0}
        self._theirs: dict[tuple[str, int], int] = {("position", 0): 0, ("revision", 0): 0}

    def translated(self, request: Any) -> Any:
        """The request with the memory store's numbers in the place of the store's."""
        if isinstance(request, Transact):
            writes, checks = (tuple(map(self.translated, parts)) for parts in (request.writes, request.checks))
            return Transact(writes, checks, request.noting)
        if isinstance(request, KvPut | KvDelete | ExpectRevision) and request.expected is not None:
            expected = self._ours.get(("revision", request.expected), INT64_MAX)
            return msgspec.structs.replace(request, expected=expected)
        if isinstance(request, ReadAll):
            ours = {name: self._in_ours("position", getattr(request, name)) for name in ("after", "until")}
            return msgspec.structs.replace(request, **ours)
        if isinstance(request, Wait | KvWait):
            return type(request)(self._in_ours(_NUMBERS[type(request)], request.after), request.prefix)
        return request

    def _in_ours(self, sort: str, number: Any) -> Any:
        return self._ours.get((sort, number), number)

    def are_same(self, request: Any, found: Outcome, wanted: Outcome) -> bool:
        """Whether two outcomes of a request say the same."""
        if isinstance(found, Failed) or isinstance(wanted, Failed):
            return (
                isinstance(found, Failed)
                and isinstance(wanted, Failed)
                and told_error(found.error) == told_error(wanted.error)
            )
        return self._are_same_answers(request, found.value, wanted.value)

    def _are_same_answers(self, request: Any, found: Any, wanted: Any) -> bool:
        if type(found) is not type(wanted):
            return False
        match found:
            case list() if isinstance(request, Transact):
                return len(found) == len(wanted) and all(map(self._are_same_answers, request.writes, found, wanted))
            case Appended():
                numbers = found.first_seq == wanted.first_seq and found.last_seq == wanted.last_seq
                return numbers and self._is_same("position", found.position, wanted.position)
            case Entry():
                return self._are_same_values(found.value, wanted.value) and self._is_same(
                    "revision", found.revision, wanted.revision
                )
            case Conflict():
                return self._are_same_conflicts(found, wanted)
            case Page():
                return self._are_same_pages(request, found, wanted)
        sort = _NUMBERS.get(type(request))
        if sort is not None:
            return self._is_same(sort, found, wanted)
        if isinstance(request, KvEntries):
            return len(found) == len(wanted) and all(map(self._are_same_pairs, found, wanted))
        return bool(found == wanted)

    def _are_same_pairs(self, found: tuple[str, Entry], wanted: tuple[str, Entry]) -> bool:
        return found[0] == wanted[0] and self._are_same_answers(None, found[1], wanted[1])

    def _are_same_conflicts(self, found: Conflict, wanted: Conflict) -> bool:
        if (found.kind, found.name, found.write) != (wanted.kind, wanted.name, wanted.write):
            return False
        if found.kind == "stream":
            return found.actual == wanted.actual
        return self._is_same("revision", found.actual, wanted.actual)

    def _are_same_pages(self, request: Any, found: Page, wanted: Page) -> bool:
        if len(found.events) != len(wanted.events) or (found.hole is None) != (wanted.hole is None):
            return False
        if not all(map(self._are_same_events, found.events, wanted.events)):
            return False
        if isinstance(request, ReadAll):
            # Where several streams have a hole, either may be named.
            pairs = ((found.next, wanted.next), (found.head, wanted.head))
            return all(self._is_same("position", one, other) for one, other in pairs)
        return found.next == wanted.next and found.head == wanted.head and found.hole == wanted.hole

    def _are_same_events(self, found: Event, wanted: Event) -> bool:
        ours, theirs = ((e.stream, e.seq, e.type, _encoded(e.data)) for e in (found, wanted))
        is_same = ours == theirs and self._is_same("position", found.position, wanted.position)
        return is_same and self._are_same_values(found.meta, wanted.meta)

    def _are_same_values(self, found: Any, wanted: Any) -> bool:
        """Whether two values are the same. In answers that a transaction noted stand numbers of its store."""
        if not (isinstance(found, dict) and isinstance(wanted, dict) and ANSWERS in found and ANSWERS in wanted):
            return _encoded(found) == _encoded(wanted)
        ours, theirs = (
            _encoded({name: part for name, part in value.items() if name != ANSWERS}) for value in (found, wanted)
        )
        noted, wanted_noted = found[ANSWERS], wanted[ANSWERS]
        if ours != theirs or not (isinstance(noted, list) and isinstance(wanted_noted, list)):
            return False
        return len(noted) == len(wanted_noted) and all(map(self._are_same_noted, noted, wanted_noted))

    def _are_same_noted(self, found: Any, wanted: Any) -> bool:
        if isinstance(found, dict) and isinstance(wanted, dict):
            ours, theirs = dict(found), dict(wanted)
            return self._is_same("position", ours.pop("position", 0), theirs.pop("position", 0)) and ours == theirs
        # An integer is a revision, a position or a count: it does not say which.
        return type(found) is type(wanted) and (type(found) is int or found == wanted)

    def _is_same(self, sort: str, found: int, wanted: int) -> bool:
        """Whether two numbers stand for the same. Two that are seen first together do, from then on."""
        return (
            self._ours.setdefault((sort, found), wanted) == wanted
            and self._theirs.setdefault((sort, wanted), found) == found
        )


def _encoded(value: Any) -> bytes:
    return codec.encode(value)
