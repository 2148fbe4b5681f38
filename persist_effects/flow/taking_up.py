"""Taking a flow up: its program is run from its journal, up to where it goes on live.

What the journal says that the flow asked is compared with what it asks, step by step. Nothing is asked of others.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import msgspec

from persist_effects import log
from persist_effects.errors import (
    Cancelled,
    InvalidRequest,
    Nondeterministic,
    NoSuchFlow,
    OwnershipLost,
    repr_of,
    text_of,
)
from persist_effects.event import Event
from persist_effects.flow import journal
from persist_effects.flow.defining import Flows
from persist_effects.flow.journal import (
    ANSWER,
    CANCEL,
    ERROR,
    NOTED,
    PASSED,
    PATCHED,
    STARTED,
    Beginning,
    BegunFlow,
    Closed,
    JournalStep,
    Open,
    OpenFlow,
    told_path,
)
from persist_effects.flow.owning import OwnedJournal
from persist_effects.flow.replay import Path, Replay, release
from persist_effects.flow.requests import Call, Local, identity, told_identity, told_request
from persist_effects.machine import Effect, perform
from persist_effects.requests import ANSWERS, Answered, Conflict, Failed, KvGet, KvPut, Now, Outcome
from persist_effects.trace.errors import NO_ERROR_KINDS, ErrorKinds
from persist_effects.trace.values import decode, is_same


class BegunStep(NamedTuple):
    """What was begun for a step: when, and under which key or child."""

    at: int
    what: Any


_Entries = list[tuple[Event, list[JournalStep]]]


class TakenUp(OwnedJournal):
    """A flow that was run from its journal, and stands where it goes on live."""

    def __init__(self, flow_id: str, flows: Flows, token: bytes, errors: ErrorKinds) -> None:
        super().__init__(flow_id, token)
        self._flows = flows
        self._errors = errors
        # Made when it is taken up.
        self._flow = cast(Replay, None)
        self._beginning = cast(Beginning, None)
        self._patches: dict[str, bool] = {}
        self._is_replaying = True
        self._begun: dict[Path, BegunStep] = {}
        # The messages that it has taken, and whether there may be others.
        self._consumed: set[int] = set()
        self._has_mail = True
        self._is_paused = False

    def close(self) -> None:
        """Let go of the program as if its process were gone."""
        if self._flow:
            self._flow.close()

    def take_up(self, claims_limit: int, known: OpenFlow | None = None) -> Effect[bool]:
        """Run the program from its journal. False: it was set aside, or is so already."""
        if known is None:
            entry = yield from perform(KvGet(journal.OPEN + self._id))
            if entry is None:
                raise NoSuchFlow(self._id, (yield from _what_became_of(self._id)))
            known = OpenFlow(msgspec.convert(entry.value, Open), entry.revision)
        self._open, self._open_revision = known
        if self._open.state == journal.SET_ASIDE:
            return False
        events = yield from log.read(self._stream)
        if not events or events[0].type != journal.BEGUN:
            # It has ended since.
            raise NoSuchFlow(self._id, (yield from _what_became_of(self._id)))
        if any(event.type in _OF_RUNS for event in events[1:]):
            # Another host has begun a run, or ended it, between two pages.
            raise OwnershipLost(self._id, events[-1].seq)
        self._beginning = msgspec.convert(events[0].data, Beginning)
        self._seq, self._latest = events[-1].seq, max([event.at for event in events])
        claims = next(at for at, event in enumerate(reversed(events)) if not self._is_fruitless(event))
        if claims >= claims_limit:
            told = f"it was taken over {claims} times in a row without getting on"
            return (yield from self._set_aside(told, known.revision, claims_limit))
        self._is_owner = self._open.owner == self._token == events[-1].data.get("token")
        self._consumed.update(self._beginning.consumed)
        self._is_paused = self._open.state == journal.PAUSED
        self._feed(events)
        if self._open.state == journal.HALTED:
            self._restate(journal.RUNNING)
        return True

    def take_up_new(self, begun: BegunFlow) -> None:
        """Run the program of a flow whose journal has nothing but its beginning, and whose inbox has nothing."""
        self._beginning, self._open = begun
        beginning = self._beginning
        self._seq, self._entry_at, self._latest = 1, beginning.began, beginning.began
        # Its host may have lost its lease since, and go on with another token.
        self._is_owner = beginning.token == self._token
        self._has_mail = False
        self._feed([])

    def check(self, events: Sequence[Event]) -> None:
        """Run the program from these events, and no further."""
        self._beginning = msgspec.convert(events[0].data, Beginning)
        self._feed(events)

    def _is_fruitless(self, event: Event) -> bool:
        return event.type == journal.CLAIMED and event.seq > self._open.retried

    def _feed(self, events: Sequence[Event]) -> None:
        beginning = self._beginning
        code = self._flows.of(self._id, beginning.flow, beginning.version)
        entries = [
            (event, journal.decode_steps(event.data["steps"])) for event in events if event.type == journal.STEPS
        ]
        for _, steps in entries:
            for _, known, kind, _, message_seq in steps:
                if kind == PATCHED:
                    self._patches[known.decode()] = True
                if message_seq is not None:
                    self._consumed.add(message_seq)
        before, last = _split_at_last_step(entries)
        self._flow = Replay(code.make(beginning.args), self._is_patched)
        # Of what it asks behind the last step the journal says nothing: there it goes on live.
        self._is_replaying = bool(last)
        self._flow.begin()
        matched = self._feed_steps(before)
        self._forget_withdrawn()
        self._is_replaying = False
        self._feed_steps(last, matched)
        if last and last[0][1][0].kind != NOTED:
            self._forget_withdrawn()
        # What was answered is no longer asked.
        self._flow.asked = deque(self._flow.waiting)

    def _forget_withdrawn(self) -> None:
        """The entry that has what withdrew a step also has that it is not gone on with, unless that was its write."""
        for path in self._flow.withdrawn:
            self._begun.pop(path, None)
        self._flow.withdrawn.clear()

    def _feed_steps(self, entries: _Entries, last: tuple[Path, bytes] | None = None) -> tuple[Path, bytes] | None:
        """Give the flow what it was given before, in that order, and compare what it asks with what it asked.

        Returns the last that was the same.
        """
        replay = self._flow
        waiting = replay.waiting
        encoded: Any
        for event, steps in entries:
            # The hot loop of replays.
            for path, known, kind, encoded, _ in steps:
                if kind > STARTED:
                    if kind == CANCEL:
                        replay.cancel()
                    continue
                branch = waiting.get(path)
                request: Any = None if branch is None else branch.request
                if branch is None or (identity(request) != known and not _is_same_step(request, known)):
                    self._is_replaying = False
                    raise self._diverged(path, known, last)
                last = path, known
                if kind == ANSWER and type(request) is Call:
                    replay.answer(path, journal.decode_reply(request, encoded))
                elif kind == STARTED:
                    self._begun[path] = BegunStep(event.at, encoded.decode() if isinstance(encoded, bytes) else encoded)
                else:
                    replay.feed(path, self._outcome(request, kind, encoded, event))
        return last

    def _outcome(self, request: Any, kind: int, encoded: Any, event: Event) -> Outcome:
        if type(request) is Local:
            # The journal has its value, so it is not run.
            release([request.program])
        if kind == ANSWER:
            answer = journal.decode_reply(request, encoded)
            if type(request) is Now:
                self._latest = max(self._latest, answer)
            return Answered(answer)
        if kind == ERROR:
            return Failed(journal.decode_raised(encoded, self._errors))
        return Answered(journal.noted_answer(request, event.meta[ANSWERS]))

    def _diverged(self, path: Path, known: bytes, last: tuple[Path, bytes] | None) -> Nondeterministic:
        replay = self._flow
        expected = f"step {told_path(path)}, {told_identity(decode(known))}"
        source = replay.source(path)
        if replay.end is not None:
            actual, source = f"the flow has ended: {_told_end(replay.end)}", "the flow has ended"
        elif path in replay.waiting:
            actual = f"step {told_path(path)}, {told_request(replay.waiting[path].request)}"
        else:
            there = [f"step {told_path(at)}, {told_request(branch.request)}" for at, branch in replay.waiting.items()]
            actual = " and ".join(there[:3]) or "nothing"
        match = "none" if last is None else f"step {told_path(last[0])}, {told_identity(decode(last[1]))}"
        return Nondeterministic(self._id, expected, actual, source, match)

    def _is_patched(self, change: str) -> bool:
        """Whether a change is in force: where the journal says so, or the flow gets to it only now."""
        decided = self._patches.get(change)
        if decided is None:
            decided = self._patches[change] = not self._is_replaying
            if decided:
                self._tell(JournalStep((), change.encode(), PATCHED))
        return decided

    def _set_aside(self, why: str, revision: int, claims_limit: int) -> Effect[bool]:
        """Have no host take it up any more; where it stands otherwise by now, look again. As `take_up` returns."""
        aside = msgspec.structs.replace(self._open, state=journal.SET_ASIDE, error=why)
        put = yield from perform(KvPut(journal.OPEN + self._id, aside, revision))
        return isinstance(put, Conflict) and (yield from self.take_up(claims_limit))

    def _code(self) -> Any:
        return self._flows.of(self._id, self._beginning.flow, self._beginning.version)


_OF_RUNS = (journal.BEGUN, journal.ENDED)


def check_history(flow_id: str, flows: Flows, events: Sequence[Event], *, errors: ErrorKinds = NO_ERROR_KINDS) -> None:
    """Whether a flow's code still does what a journal says, without a store: nothing is asked, and nothing written.

    Args:
        flow_id: The flow.
        flows: The code of flows.
        events: What its journal has, from ``begun`` on.
        errors: Classes of errors by their names.

    Raises:
        Nondeterministic: If the code does something else.
        NoSuchFlow: If the flow's code, of that version, is not here.
        InvalidRequest: If these are not a journal of a flow that goes on, or what they hold does not fit the types
            that the code gives.

    >>> from interpreters import open_store
    >>> from persist_effects.flow import begin
    >>> def greet(name: str):
    ...     yield
    >>> store = open_store("memory:")
    >>> store.run(begin("g-1", greet, "Ada"))
    True
    >>> check_history("g-1", Flows([greet]), store.run(log.read("flow/g-1")))
    """
    if not events or events[0].type != journal.BEGUN:
        found = repr(events[0].type) if events else "nothing"
        raise InvalidRequest(f"the journal of flow {flow_id!r} begins with {found}: give one that begins with 'begun'")
    taken_up = TakenUp(flow_id, flows, b"", errors)
    try:
        taken_up.check(events)
    finally:
        taken_up.close()


def _what_became_of(flow_id: str) -> Effect[str]:
    closed = yield from perform(KvGet(journal.DONE + flow_id))
    return "it was never begun" if closed is None else f"it has ended, {msgspec.convert(closed.value, Closed).state}"


def _split_at_last_step(entries: _Entries) -> tuple[_Entries, _Entries]:
    """The entries before the last step with which the flow went on, and that step, if there is one."""
    for at in range(len(entries) - 1, -1, -1):
        event, steps = entries[at]
        for place in range(len(steps) - 1, -1, -1):
            if steps[place].kind not in (PATCHED, PASSED):
                return [*entries[:at], (event, steps[:place])], [(event, steps[place:])]
    return [], []


def _is_same_step(request: Any, known: bytes) -> bool:
    try:
        return is_same(identity(request), known)
    except InvalidRequest:
        return False


def _told_end(end: Any) -> str:
    match end:
        case Answered(value):
            return f"it returned {repr_of(value)}"
        case Failed(error):
            return f"it raised {type(error).__name__}: {text_of(error)}"
        case Cancelled():
            return "it was cancelled"
    return "it goes on as a new run"
