"""Going on from an earlier step: as a new flow, or as the same one.

Both keep the first entries of a flow's current run, so that nothing of what those have is done again: answers of
activities and of writes to the store stay as they were given. What comes after is done anew, with new keys: a fork has
another id, and a flow that was rewound another run, and a key has both. So an activity that is ``keyed`` takes effect
again, and one that is never repeated unasked is called again where its begin was not kept: to rewind is to ask.

What had begun by then and had not come to an end begins anew as well, since only the program can tell whether it still
waits there: a timer with its whole length; an activity; of a fork also a child, as a child of its own, unless its id
was given. A call that is never repeated waits for `resolve`.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import msgspec

from persist_effects import kv, log
from persist_effects.clock import now
from persist_effects.errors import FlowExists, InvalidRequest, NoSuchFlow
from persist_effects.event import Draft, Event, check_integer
from persist_effects.flow import journal
from persist_effects.flow.history import steps_of
from persist_effects.flow.journal import CANCEL, PASSED, STARTED, Beginning, FlowEnded, JournalStep, message, told_path
from persist_effects.flow.outside import open_of
from persist_effects.flow.replay import Path
from persist_effects.flow.requests import check_flow_id
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import Append, Conflict, KvDelete, KvPut, Transact, TruncateThrough, Write
from persist_effects.trace.values import decode


@program
def fork(flow_id: str, new_id: str, at: int) -> Effect[None]:
    """Begin a new flow that has done what another one had, up to an entry of its journal, and goes on from there.

    The other one is left as it is. The new one has the same code, arguments, tags, queue and priority; no parent, and
    an inbox of its own: signals that the other one has not received yet are not for it.

    Args:
        flow_id: The flow, which goes on.
        new_id: The id of the new one.
        at: The sequence number of the last entry that it keeps, as `history` gives it; that of ``begun``: none.

    Raises:
        FlowExists: If there is a flow of the new id, or was one.
        InvalidRequest: If the flow's current run has no such entry; or if it had begun another flow by then, by an id
            of its own, of which that entry knows no end, and which has not ended yet either.
        NoSuchFlow: If there is none, or it has ended.

    >>> from interpreters import open_store
    >>> from persist_effects import flow
    >>> def greet(name: str):
    ...     yield
    >>> store = open_store("memory:")
    >>> store.run(flow.begin("g-1", greet, "Ada"))
    True
    >>> store.run(fork("g-1", "g-2", 1))
    >>> store.run(flow.status("g-2")).flow
    'greet'
    """
    check_flow_id(new_id)
    check_integer("at", at, 0)
    _, standing = yield from open_of(flow_id)
    cut = yield from _cut(flow_id, at)
    anew, said = yield from _waits_of(flow_id, new_id, cut.kept)
    began, code = (yield from now()), cut.beginning
    beginning = Beginning(code.flow, code.version, code.args, began, tags=code.tags)
    open_ = msgspec.structs.replace(
        standing, version=code.version, began=began, state=journal.RUNNING, owner=b"", run=1, error=None
    )
    entries = (Draft(journal.BEGUN, beginning), *_copied(cut.kept, anew, to_other_inbox=True))
    writes = (
        KvPut(journal.OPEN + new_id, open_, 0),
        message(new_id, "begun", None),
        *said,
        Append(journal.journal_of(new_id), entries, 0),
    )
    if isinstance((yield from perform(Transact(writes))), Conflict):
        raise FlowExists(new_id, f"a fork of {flow_id!r}", "there already")


@program
def rewind(flow_id: str, at: int) -> Effect[None]:
    """Have a flow that stands still go on from an earlier entry of its journal. What came after is dropped.

    What it did then is not undone, and is done again, with new keys. Flows that it began then and that have not ended
    are cancelled. Signals that it received then are there to be received again; a cancellation that it took then is
    forgotten. One that is paused stays so until it is resumed. A host that still holds the flow can write nothing more
    to it, and takes it up anew.

    Args:
        flow_id: The flow, which is paused, halted or set aside.
        at: The sequence number of the last entry that it keeps, as `history` gives it; that of ``begun``: none. What is
            kept has other numbers afterwards.

    Raises:
        InvalidRequest: If it is running; if its current run has no such entry; or if it has begun another flow after
            that, by an id of its own, which cannot be begun twice.
        NoSuchFlow: If there is none, or it has ended.

    >>> from interpreters import open_store
    >>> from persist_effects import flow
    >>> def greet(name: str):
    ...     yield
    >>> store = open_store("memory:")
    >>> store.run(flow.begin("g-1", greet, "Ada"))
    True
    >>> store.run(rewind("g-1", 1))
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: flow 'g-1' is running: pause it, and rewind it once its status says paused
    """
    check_integer("at", at, 0)
    while True:
        entry, standing = yield from open_of(flow_id)
        if standing.state == journal.RUNNING:
            raise InvalidRequest(
                f"flow {flow_id!r} is running: pause it, and rewind it once its status says {journal.PAUSED}"
            )
        cut = yield from _cut(flow_id, at)
        _check_dropped(flow_id, cut)
        again = _begun_again(cut)
        state = journal.PAUSED if standing.state == journal.PAUSED else journal.RUNNING
        restated = msgspec.structs.replace(standing, state=state, owner=b"", error=None, run=again.run)
        entries = (Draft(journal.BEGUN, again), *_copied(cut.kept, set(_timers(cut.kept)), to_other_inbox=False))
        stream = journal.journal_of(flow_id)
        writes: list[Write] = [
            TruncateThrough(stream, cut.last_seq),
            *_undue(flow_id, [*cut.kept, *cut.dropped]),
            *(yield from _cancellations(flow_id, cut.dropped)),
            KvPut(journal.OPEN + flow_id, restated, entry.revision),
            message(flow_id, "begun", None),
            Append(stream, entries, cut.last_seq),
        ]
        if not isinstance((yield from perform(Transact(tuple(writes)))), Conflict):
            return


class _Cut(NamedTuple):
    """A journal, cut behind an entry."""

    beginning: Beginning
    kept: list[Event]
    dropped: list[Event]
    last_seq: int


class _Begun(NamedTuple):
    """A step that was begun, and the number of the entry that says so."""

    seq: int
    step: JournalStep

    @property
    def names_child(self) -> bool:
        """Whether it has begun another flow by an id that the program gave."""
        return self.child is not None and decode(self.step.known)[-1] is not None

    @property
    def child(self) -> str | None:
        """The flow that it has begun."""
        return self.step.outcome.decode() if isinstance(self.step.outcome, bytes) else None

    def told(self, flow_id: str) -> str:
        at = f"step {told_path(self.step.path)}, entry {self.seq}"
        return f"flow {flow_id!r} has begun flow {self.child!r} at {at}"


def _cut(flow_id: str, at: int) -> Effect[_Cut]:
    events = yield from log.read(journal.journal_of(flow_id))
    if events[-1].type == journal.ENDED:
        raise NoSuchFlow(flow_id, f"it has ended, {events[-1].data['state']}")
    first, last = events[0].seq, events[-1].seq
    beginning = msgspec.convert(events[0].data, Beginning)
    if not first <= at <= last:
        raise InvalidRequest(
            f"flow {flow_id!r} has no entry {at} to go on from: those of its run {beginning.run}, which goes on, are "
            f"{first} to {last}. What earlier runs did is dropped when they end"
        )
    kept = at - first + 1
    return _Cut(beginning, events[1:kept], events[kept:], last)


# What was begun, and what came of it


def _started(events: Iterable[Event]) -> dict[Path, _Begun]:
    """The steps that were begun, by their paths."""
    return {step.path: _Begun(event.seq, step) for event in events for step in steps_of(event) if step.kind == STARTED}


def _pending(events: list[Event]) -> dict[Path, _Begun]:
    """Those of them of which nothing has come."""
    come = {step.path for event in events for step in steps_of(event) if step.kind != STARTED}
    return {path: begun for path, begun in _started(events).items() if path not in come}


def _timers(events: list[Event]) -> dict[Path, int]:
    """When each of the timers is due that were begun, and that have not ended."""
    return {path: begun.step.outcome for path, begun in _pending(events).items() if isinstance(begun.step.outcome, int)}


def _undue(flow_id: str, events: list[Event]) -> list[KvDelete]:
    return [KvDelete(journal.due_key(due, flow_id, path)) for path, due in _timers(events).items()]


def _cancellations(flow_id: str, dropped: list[Event]) -> Effect[list[Write]]:
    """Messages that cancel the children that were begun in what is dropped, and that go on."""
    writes: list[Write] = []
    for begun in _pending(dropped).values():
        child = begun.child
        if child is not None and (yield from kv.has(journal.OPEN + child)):
            writes.append(message(child, "cancel", {"by": flow_id}))
    return writes


def _check_dropped(flow_id: str, cut: _Cut) -> None:
    for begun in _started(cut.dropped).values():
        if begun.names_child:
            raise InvalidRequest(
                f"{begun.told(flow_id)}, which it would begin again, and there cannot be another one of that id: "
                f"rewind it to {begun.seq} or later, or begin a new flow"
            )


def _waits_of(flow_id: str, new_id: str, kept: list[Event]) -> Effect[tuple[set[Path], list[Write]]]:
    """Which steps that were begun begin anew in a fork, and messages that say what came of those that cannot.

    A call that is never repeated is in neither.
    """
    anew: set[Path] = set()
    said: list[Write] = []
    for path, begun in _pending(kept).items():
        if begun.names_child:
            said.append((yield from _said_of_child(flow_id, new_id, begun)))
        elif begun.step.outcome is not None:
            anew.add(path)
    return anew, said


def _said_of_child(flow_id: str, new_id: str, begun: _Begun) -> Effect[Write]:
    """The message by which a child has told its end, to a fork of the flow that has begun it."""
    child = cast(str, begun.child)
    events = yield from log.read_back(journal.journal_of(child), 1)
    if not events or events[0].type != journal.ENDED:
        raise InvalidRequest(
            f"{begun.told(flow_id)}, whose end is not in what is kept, and a fork cannot begin another one of that id: "
            f"fork it at an entry before {begun.seq}, or once that flow has ended"
        )
    ended = msgspec.convert(events[0].data, FlowEnded)
    data = {"path": list(begun.step.path), "child": child, "value": ended.result, "error": ended.error}
    return message(new_id, "resolve", data)


# What the journal has then


def _begun_again(cut: _Cut) -> Beginning:
    """The beginning of a flow that was rewound: another run, so that keys of calls and ids of children are new.

    Of the messages that dropped steps took, two kinds are not taken again: cancellations, and what came of calls whose
    begin is dropped too.
    """
    kept = _started(cut.kept)
    forgotten = {
        step.message
        for event in cut.dropped
        for step in steps_of(event)
        if step.message is not None and (step.kind in (CANCEL, PASSED) or (_is_call(step) and step.path not in kept))
    }
    consumed = sorted({*cut.beginning.consumed, *forgotten})
    return msgspec.structs.replace(cut.beginning, run=cut.beginning.run + 1, consumed=consumed, token=b"")


def _is_call(step: JournalStep) -> bool:
    return bool(decode(step.known)[0] == "flow/call")


def _copied(events: list[Event], without: set[Path], *, to_other_inbox: bool) -> list[Draft]:
    """Entries as they were, but that nobody owns them, and without the begin of some steps.

    Where they go to another inbox's flow, no step has taken a message. Their times stay: `now` never falls in a flow.
    """
    drafts: list[Draft] = []
    for event in events:
        steps = [
            step._replace(message=None) if to_other_inbox else step
            for step in steps_of(event)
            if step.kind != STARTED or step.path not in without
        ]
        if steps:
            data = {"token": b"", "steps": journal.encode_steps(steps)}
            drafts.append(Draft(journal.STEPS, data, event.at, event.meta))
    return drafts
