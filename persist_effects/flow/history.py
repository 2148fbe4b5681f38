"""What a flow has done, for people: its journal in words, and the calls that wait for someone to say what came of them.

Nothing here needs the flow's code: outcomes are shown as the plain values that the journal holds.
"""

from typing import Any

import msgspec

from persist_effects import log
from persist_effects.errors import NoSuchFlow, RecordedError, repr_of, text_of
from persist_effects.event import Event
from persist_effects.flow import journal
from persist_effects.flow.journal import (
    ANSWER,
    CANCEL,
    ERROR,
    NOTED,
    PASSED,
    PATCHED,
    STARTED,
    Beginning,
    FlowEnded,
    JournalStep,
)
from persist_effects.flow.replay import Path
from persist_effects.flow.requests import check_flow_id, count_writes, told_identity
from persist_effects.machine import Effect
from persist_effects.programs import program
from persist_effects.requests import ANSWERS
from persist_effects.trace.errors import NO_ERROR_KINDS
from persist_effects.trace.values import decode


class HistoryEntry(msgspec.Struct, frozen=True):
    """One thing that happened to a flow.

    ``seq`` is the number of the journal's entry that has it, ``at`` that entry's time in microseconds since 1970, and
    ``run`` which run of the flow it was. ``kind`` is ``begun``, ``claimed`` (a host took the flow over), ``started``
    (a timer, a child, or a call that is never repeated), ``answered``, ``raised``, ``cancelled``, ``patched`` or
    ``ended``. ``path`` is that of the step, empty where it is about the whole flow. ``asked`` and ``outcome`` are in
    words. ``due`` is when a timer that was started is due. ``message`` is the number, in the inbox, of what was taken.
    """

    seq: int
    at: int
    run: int
    kind: str
    path: Path = ()
    asked: str = ""
    outcome: str = ""
    due: int | None = None
    message: int | None = None


class UnresolvedCall(msgspec.Struct, frozen=True):
    """A call that is never repeated, and of which nothing has come. ``seq`` and ``at`` say when it was begun."""

    path: Path
    asked: str
    seq: int
    at: int


@program
def history(flow_id: str) -> Effect[list[HistoryEntry]]:
    """What a flow has done in its current run, in that order. What runs before that did is dropped when they end.

    Args:
        flow_id: The flow.

    Returns:
        Its steps, and when it was begun, taken over and ended. Of one that has ended there is only that.

    Raises:
        NoSuchFlow: If it was never begun.

    >>> from interpreters import open_store
    >>> from persist_effects import flow
    >>> def greet(name: str):
    ...     yield
    >>> store = open_store("memory:")
    >>> store.run(flow.begin("g-1", greet, "Ada"))
    True
    >>> [(entry.seq, entry.kind, entry.asked) for entry in store.run(history("g-1"))]
    [(1, 'begun', "greet('Ada')")]
    """
    events = yield from _journal(flow_id)
    run = _beginning_in(events[0]).run
    return [entry for event in events for entry in _entries_of(event, run)]


@program
def unresolved(flow_id: str) -> Effect[list[UnresolvedCall]]:
    """Calls that are never repeated, were begun, and of which nobody knows or has said what came of them.

    Where the host that began one is gone, the flow waits there for `resolve`. A journal does not say whether that host
    is at it still, so a call that runs at this moment is among them: look at its host first. So is one that the flow
    has withdrawn meanwhile, of which a resolution changes nothing.

    Args:
        flow_id: The flow.

    Returns:
        The calls, in the order in which they were begun. None where the flow has ended.

    Raises:
        NoSuchFlow: If it was never begun.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(unresolved("o-7"))
    Traceback (most recent call last):
    persist_effects.errors.NoSuchFlow: there is no flow 'o-7' that goes on: it was never begun
    """
    events = yield from _journal(flow_id)
    waiting: dict[Path, UnresolvedCall] = {}
    taken: set[int | None] = set(_beginning_in(events[0]).consumed)
    for event in events:
        for step in steps_of(event):
            taken.add(step.message)
            if step.kind != STARTED:
                waiting.pop(step.path, None)
            elif step.outcome is None:
                waiting[step.path] = UnresolvedCall(step.path, told_identity(decode(step.known)), event.seq, event.at)
    if waiting:
        # What was said of one, and was not taken yet.
        for said in (yield from log.read(journal.INBOX + flow_id)):
            if said.type == "resolve" and said.seq not in taken:
                waiting.pop(tuple(said.data["path"]), None)
    return list(waiting.values())


def steps_of(event: Event) -> list[JournalStep]:
    """The steps of a journal's entry; none where it is of another type."""
    return journal.decode_steps(event.data["steps"]) if event.type == journal.STEPS else []


def _journal(flow_id: str) -> Effect[list[Event]]:
    check_flow_id(flow_id)
    events = yield from log.read(journal.journal_of(flow_id))
    if not events:
        raise NoSuchFlow(flow_id)
    return events


def _beginning_in(event: Event) -> Beginning:
    """What a flow was begun with: a journal's first entry has it, be it that it goes on or has ended."""
    if event.type == journal.ENDED:
        return msgspec.convert(event.data, FlowEnded).beginning
    return msgspec.convert(event.data, Beginning)


# In words


def _entries_of(event: Event, run: int) -> list[HistoryEntry]:
    if event.type == journal.STEPS:
        return [_entry_of(event, run, step) for step in steps_of(event)]
    asked, outcome = "", ""
    match event.type:
        case journal.BEGUN:
            asked = _told_beginning(_beginning_in(event))
        case journal.CLAIMED:
            outcome = f"by host {event.data['token'].hex()}"
        case journal.ENDED:
            ended = msgspec.convert(event.data, FlowEnded)
            told = _told_value(ended.result) if ended.error is None else _told_error(ended.error)
            asked, outcome = _told_beginning(ended.beginning), f"{ended.state}: {told}"
    # Of these, kinds are called as the types of events.
    return [HistoryEntry(event.seq, event.at, run, event.type, (), asked, outcome)]


def _entry_of(event: Event, run: int, step: JournalStep) -> HistoryEntry:
    asked, outcome, due = "", "", None
    if step.kind == PATCHED:
        asked = f"patched({step.known.decode()!r})"
    elif step.kind not in (CANCEL, PASSED):
        known = decode(step.known)
        asked = told_identity(known)
        outcome = _told_outcome(event, step, known)
        due = step.outcome if step.kind == STARTED and isinstance(step.outcome, int) else None
    return HistoryEntry(event.seq, event.at, run, _KINDS[step.kind], step.path, asked, outcome, due, step.message)


_KINDS = {
    ANSWER: "answered",
    NOTED: "answered",
    ERROR: "raised",
    STARTED: "started",
    CANCEL: "cancelled",
    PATCHED: "patched",
    PASSED: "passed over",
}


def _told_outcome(event: Event, step: JournalStep, known: Any) -> str:
    match step.kind, step.outcome:
        case (kind, bytes(encoded)) if kind == ERROR:
            return _told_error(encoded)
        case (kind, bytes(encoded)) if kind == STARTED:
            return f"flow {encoded.decode()!r}"
        case (kind, bytes(encoded)) if kind == ANSWER:
            return _told_value(encoded)
        case (kind, _) if kind == NOTED:
            noted = (event.meta or {})[ANSWERS]
            return _shown(noted[: count_writes(known)] if "writes" in known else noted[0])
    return ""


def _told_beginning(beginning: Beginning) -> str:
    args = journal.decode_value(beginning.args, list[bytes], "arguments")
    return f"{beginning.flow}({', '.join(_told_value(each) for each in args)})"


def _told_value(encoded: bytes | None) -> str:
    return "" if encoded is None else _shown(decode(encoded))


def _told_error(encoded: bytes) -> str:
    """An error, of a class that need not be here.

    >>> _told_error(journal.encode_raised(ValueError("no tea")))
    'ValueError: no tea'
    """
    error = journal.decode_raised(encoded, NO_ERROR_KINDS)
    # What stands in for another says the name of that.
    told = text_of(error) if isinstance(error, RecordedError) else f"{type(error).__name__}: {text_of(error)}"
    return told[:_SHOWN_LIMIT]


def _shown(value: Any) -> str:
    return repr_of(value, _SHOWN_LIMIT)


_SHOWN_LIMIT = 500
