"""Conducting a flow: a program that runs it from its journal, and goes on live. It asks a store, and a host.

`conduct` reads the journal and feeds it to the replay core. Then it goes on by turns:

1. *Settle.* What the flow asks is answered where that is possible at once. What a read was answered, and what has come
   of an activity, is *untold*: the flow knows it, and the journal does not yet. A write goes to the store in one
   transaction with the journal's next entry, which has all that is untold.
2. *Commit.* What is still untold becomes an entry, before anything begins of which others may see that it was: an
   activity, a timer, a child. So whatever was seen outside follows from what is in the journal.
3. *Await.* The host begins those, and answers once something came of them. That is fed, and the next turn begins.

Where the host is gone at any place, what was untold is forgotten, and nothing outside has followed from it. Each entry
is appended with its expected sequence number, so that of two hosts which both take a flow for theirs, one writes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast

import msgspec

from persist_effects import log
from persist_effects.errors import (
    CallerError,
    Cancelled,
    FlowContinued,
    FlowExists,
    FlowFailed,
    InvalidRequest,
    Nondeterministic,
    NoSuchFlow,
    OwnershipLost,
    PersistError,
    UncertainOutcome,
    repr_of,
    text_of,
)
from persist_effects.event import Draft, Event
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
    Closed,
    FlowEnded,
    JournalStep,
    Open,
    OpenFlow,
    Parent,
    told_path,
)
from persist_effects.flow.replay import Path, Replay, release
from persist_effects.flow.requests import (
    Await,
    Call,
    Came,
    Child,
    Local,
    Signal,
    Started,
    Timer,
    identity,
    told_identity,
)
from persist_effects.machine import Effect, perform, through
from persist_effects.programs import program
from persist_effects.requests import (
    ANSWERS,
    READS,
    WAITS,
    WRITES,
    Advance,
    Answered,
    Append,
    Appended,
    At,
    Begin,
    BlobGet,
    BlobHas,
    BlobPut,
    Conflict,
    ExpectRevision,
    Failed,
    KvDelete,
    KvGet,
    KvPut,
    NewId,
    Now,
    Outcome,
    Read,
    Request,
    Sleep,
    Transact,
    TruncateThrough,
    Write,
    has_sql,
)
from persist_effects.trace.errors import NO_ERROR_KINDS, ErrorKinds
from persist_effects.trace.values import decode, is_same

RESULT_LIMIT_BYTES = 256 * 1024
"""The largest outcome that a journal takes, unless it is told otherwise: it holds references, and no large bytes."""

KEYS_AT_ONCE = 100
"""How many timers begin, or are over, in one transaction: fewer keys than any store has room for in one."""

CLAIMS_LIMIT = 10
"""How often a flow may be taken over in a row without getting on, before it is set aside: it may end its hosts."""

MICROSECONDS = 1_000_000

_READS = READS | {Now, NewId, BlobHas, BlobPut}


class Finished(NamedTuple):
    """What became of a flow that its conductor has left: how it ended, or that it was set aside."""

    flow_id: str
    state: str
    value: Any = None
    error: BaseException | None = None
    ended: FlowEnded | None = None


class BegunFlow(NamedTuple):
    """What a flow that begins has in the store: the data of its journal's first entry, and its key."""

    beginning: Beginning
    standing: Open


@program
def conduct(
    flow_id: str,
    flows: Flows,
    token: bytes,
    *,
    errors: ErrorKinds | None = None,
    result_limit_bytes: int = RESULT_LIMIT_BYTES,
    claims_limit: int = CLAIMS_LIMIT,
    known: BegunFlow | OpenFlow | None = None,
    look: Callable[[Replay], None] | None = None,
) -> Effect[Finished]:
    """Run a flow from its journal, and go on live.

    Args:
        flow_id: Its id.
        flows: The code of flows.
        token: Whose entries these are: one token for each host that lives.
        errors: Classes of errors by their names, as they are to come back from the journal.
        result_limit_bytes: The largest outcome that it takes.
        claims_limit: How often in a row it may have been taken over without getting on.
        known: What the host that runs this has begun it with a moment ago, so that nothing needs to be read; or how it
            stood a moment ago, where that was read.
        look: Is given the flow at its frontier, each time that it was taken up, so that one can see what it waits for.

    Returns:
        How it ended, or that it was set aside.

    Raises:
        NoSuchFlow: If it was never begun, or has ended.
        Nondeterministic: If the code does not do what the journal says.
        OwnershipLost: If another host has taken it over.
    """
    withdrawn: list[Path] = []
    while True:
        conductor = _Conductor(flow_id, flows, token, errors or {}, result_limit_bytes)
        conductor.withdrawn = withdrawn
        try:
            if isinstance(known, BegunFlow):
                conductor.take_up_new(known)
            elif not (yield from conductor.take_up(claims_limit, known)):
                return Finished(flow_id, journal.SET_ASIDE)
            known = None
            if look is not None:
                look(conductor._flow)
            finished = yield from conductor.go_on()
        finally:
            conductor.close()
        if finished is not None:
            return finished
        # The next run has steps at the same paths, and must not be given what comes of those of this one.
        withdrawn = conductor.withdrawn


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
    conductor = _Conductor(flow_id, flows, b"", errors, RESULT_LIMIT_BYTES)
    try:
        conductor.check(events)
    finally:
        conductor.close()


class _BegunStep(NamedTuple):
    """What was begun for a step: when, and under which key or child."""

    at: int
    what: Any


_Entries = list[tuple[Event, list[JournalStep]]]


class _Conductor:
    """One flow, taken up."""

    def __init__(self, flow_id: str, flows: Flows, token: bytes, errors: ErrorKinds, limit_bytes: int) -> None:
        self._id = flow_id
        self._flows = flows
        self._token = token
        self._errors = errors
        self._limit_bytes = limit_bytes
        self._stream = journal.journal_of(flow_id)
        self._inbox = journal.INBOX + flow_id
        # Made when it is taken up.
        self._flow = cast(Replay, None)
        # The last sequence number of the journal, and whether its last entry is of this host.
        self._seq = 0
        self._is_owner = False
        # That of its key when it was taken up; None: it was begun by this host, and never read.
        self._open_revision: int | None = None
        # When that was written, and the latest time that the flow has seen.
        self._entry_at = 0
        self._latest = 0
        self._patches: dict[str, bool] = {}
        self._is_replaying = True
        self._begun: dict[Path, _BegunStep] = {}
        # Steps that the flow knows and the journal does not, their size, and the keys that go with them.
        self._untold: list[Any] = []
        self._untold_bytes = 0
        self._obsolete: list[Write] = []
        # The keys of timers that begin with the next entry.
        self._due: list[Write] = []
        # Steps for which something is to be begun once the journal knows that: timers, and calls that are not repeated.
        self._to_begin: list[Path] = []
        self._prepared: list[tuple[Path, int | None]] = []
        # What the host is to begin, or to forget, at the next turn.
        self._calls: list[Path] = []
        self._timers: list[Timer] = []
        self.withdrawn: list[Path] = []
        """What the host is still to forget."""
        self._consumed: set[int] = set()
        self._read_through = 0
        self._signals: dict[str, deque[tuple[int, Any]]] = {}
        self._unheard: list[int] = []
        self._is_paused = False
        self._has_mail = True

    def close(self) -> None:
        if self._flow:
            self._flow.close()

    # From the journal

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
        self._seq, self._latest = events[-1].seq, max(map(attrgetter("at"), events))
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
                    self._begun[path] = _BegunStep(
                        event.at, encoded.decode() if isinstance(encoded, bytes) else encoded
                    )
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
            actual = f"step {told_path(path)}, {_told(replay.waiting[path].request)}"
        else:
            there = [f"step {told_path(at)}, {_told(branch.request)}" for at, branch in replay.waiting.items()]
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

    # Turns

    def go_on(self) -> Effect[Finished | None]:
        """Go on live, until the flow has ended; None: as a new run."""
        replay = self._flow
        if self._has_mail:
            yield from self._read_mail()
        while True:
            if not self._is_paused:
                if not self._is_settled():
                    yield from self._settle()
                if replay.end is not None:
                    return (yield from self._end())
                if self._to_begin:
                    yield from self._prepare()
            if self._untold or self._obsolete or replay.withdrawn:
                yield from self._commit_all()
            self._begin_prepared()
            if self._calls and not self._is_owner:
                yield from self._claim()
            arrivals = yield from perform(self._awaited())
            if not self._took_in(arrivals):
                yield from self._take_in(arrivals)

    # Most turns of most flows are one call that has ended and one that begins. For those no other program is made.

    def _is_settled(self) -> bool:
        """Whether all that is asked are calls, which begin at once; those are taken out."""
        waiting, asked = self._flow.waiting, self._flow.asked
        while asked:
            branch = waiting.get(asked[0])
            if branch is not None:
                request = branch.request
                if type(request) is not Call or request.repeat == "never":
                    return False
                self._calls.append(asked[0])
            asked.popleft()
        return True

    def _took_in(self, arrivals: list[Came]) -> bool:
        """Whether all that came was one outcome; that is fed."""
        if len(arrivals) != 1 or not arrivals[0].path:
            return False
        self._came(arrivals[0])
        return True

    def _settle(self) -> Effect[None]:
        """Answer what can be answered at once, until the flow waits for others."""
        waiting, asked = self._flow.waiting, self._flow.asked
        while asked:
            path = asked.popleft()
            branch = waiting.get(path)
            if branch is None:
                continue
            request = cast(Request[Any], branch.request)
            kind = type(request)
            if kind is Call and cast(Call, request).repeat != "never":
                self._calls.append(path)
            elif kind is Call or kind is Sleep:
                self._to_begin.append(path)
            elif kind is Signal:
                self._look_for_signal(path, cast(Signal, request))
            elif kind is Child:
                yield from self._begin_child(path, cast(Child, request))
            elif kind in WRITES:
                yield from self._write(path, request)
            else:
                yield from self._ask(path, request)
            if self._untold_bytes > self._limit_bytes:
                yield from self._commit()

    def _commit_all(self) -> Effect[None]:
        """Have the journal know all that the flow knows, and what is over be gone."""
        if self._is_owner and not self._obsolete and not self._due and not self._flow.withdrawn:
            steps, self._untold, self._untold_bytes = self._untold, [], 0
            draft = Draft(journal.STEPS, {"token": self._token, "steps": journal.encode_steps(steps)})
            yield from self._append(draft)
            return
        yield from self._commit()
        while self._obsolete:
            yield from self._commit()

    def _ask(self, path: Path, request: Request[Any]) -> Effect[None]:
        """A read, or an effect of the user's own."""
        try:
            _check_question(request)
            if type(request) is Local:
                answer: Any = yield from through(request.program, _only_reads)
            else:
                if type(request) not in _READS and type(request) is not At:
                    # Others may see that it was asked.
                    yield from self._commit()
                answer = yield from perform(request)
            if type(request) is Now:
                # Never before something that the flow has seen.
                answer = self._latest = max(self._latest, answer)
            encoded, answer = journal.encode_reply(request, answer)
            if len(encoded) > self._limit_bytes:
                raise self._too_large(request, len(encoded))
        except Exception as error:
            if isinstance(error, PersistError) and not isinstance(error, CallerError):
                # The store's trouble, and not the flow's.
                raise
            self._fail(path, request, error)
        else:
            self._tell(JournalStep(path, identity(request), ANSWER, encoded), len(encoded))
            self._flow.answer(path, answer)

    def _write(self, path: Path, request: Request[Any]) -> Effect[None]:
        """A write, in one transaction with the journal."""
        try:
            writes, checks = _writes_of(request)
            if len(writes) + len(self._obsolete) > KEYS_AT_ONCE:
                # Of the room in a transaction, all is the flow's.
                yield from self._commit_all()
            answer = yield from self._commit(writes, checks, JournalStep(path, identity(request), NOTED))
        except CallerError as error:
            self._fail(path, request, error)
            return
        if isinstance(answer, Conflict):
            encoded, _ = journal.encode_reply(request, answer)
            self._tell(JournalStep(path, identity(request), ANSWER, encoded), len(encoded))
            self._flow.answer(path, answer)
        else:
            self._flow.answer(path, answer if isinstance(request, Transact) else answer[0])

    def _begin_child(self, path: Path, request: Child) -> Effect[None]:
        if path in self._begun:
            return
        run = "" if self._beginning.run == 1 else f"r{self._beginning.run}."
        child_id = request.flow_id or f"{self._id}.{run}{told_path(path)}"
        # Where it is not here, the flow is halted: its host was not given all that it needs.
        code = self._flows.of(child_id, request.flow, request.version)
        try:
            args = code.encode_args(request.args)
            began = yield from perform(Now())
            parent = Parent(self._id, list(path))
            beginning = Beginning(code.name, code.version, args, began, parent=parent)
            writes = beginning_writes(child_id, begun_of(beginning))
            step = JournalStep(path, identity(request), STARTED, child_id.encode())
            answer = yield from self._commit(writes, (), step, is_noted=False)
            if isinstance(answer, Conflict):
                raise FlowExists(child_id, f"a child of {self._id!r}", "another flow")
        except CallerError as error:
            self._fail(path, request, error)
        else:
            self._begun[path] = _BegunStep(self._entry_at, child_id)

    def _fail(self, path: Path, request: Request[Any], error: Exception, message: int | None = None) -> None:
        encoded = self._encode_raised(error)
        known = identity(request)
        self._tell(JournalStep(path, known, ERROR, encoded, message), len(encoded))
        # As a replay gives it, so that the flow never sees what it will not see again.
        self._flow.feed(path, Failed(journal.decode_raised(encoded, self._errors)))

    def _encode_raised(self, error: Exception) -> bytes:
        """An error as bytes; its words, shortened, where those are too many."""
        encoded = journal.encode_raised(error)
        if len(encoded) > self._limit_bytes:
            error = InvalidRequest(f"{type(error).__name__} of {len(encoded)} bytes: {text_of(error)[:1000]}")
            encoded = journal.encode_raised(error)
        return encoded

    def _tell(self, step: JournalStep, size_bytes: int = 0) -> None:
        self._untold.append(step)
        self._untold_bytes += size_bytes + len(step.known)

    def _too_large(self, request: Request[Any], size_bytes: int) -> InvalidRequest:
        return InvalidRequest(
            f"what came of {_told(request)} takes {size_bytes} bytes, and a journal takes {self._limit_bytes}: put it "
            "into a blob store and hand the reference on"
        )

    # What comes from outside

    def _take_in(self, arrivals: list[Came]) -> Effect[None]:
        """Feed what came, and keep the entries of the journal from growing too large meanwhile."""
        for came in arrivals:
            if came.path:
                self._came(came)
            else:
                yield from self._read_mail()
            if self._untold_bytes > self._limit_bytes:
                yield from self._commit()

    def _came(self, came: Came) -> None:
        """Feed what came of a call or a timer. What nobody waits for any more is forgotten."""
        path = came.path
        branch = self._flow.waiting.get(path)
        if branch is None:
            return
        request = branch.request
        if type(request) is Call:
            if came.error is None:
                self._answer(path, request, came.value)
            else:
                self._fail(path, request, came.error)
            return
        self._forget_timer(path)
        if isinstance(request, Signal):
            late = TimeoutError(f"no signal {request.name!r} came in {request.timeout} seconds")
            self._fail(path, request, late)
        else:
            self._answer(path, cast(Request[Any], request), None)

    def _answer(self, path: Path, request: Request[Any], value: Any, message: int | None = None) -> None:
        """Feed an answer that came from outside, if it can be kept."""
        try:
            encoded, value = journal.encode_reply(request, value)
            size_bytes = len(encoded)
            if size_bytes > self._limit_bytes:
                raise self._too_large(request, size_bytes)
        except InvalidRequest as error:
            self._fail(path, request, error, message)
            return
        known = identity(request)
        # A `JournalStep`, whose constructor takes longer than the rest of this.
        self._untold.append((path, known, ANSWER, encoded, message))
        self._untold_bytes += size_bytes + len(known)
        self._flow.answer(path, value)

    def _read_mail(self) -> Effect[None]:
        """Take what came to the inbox since it was read."""
        page = yield from perform(Read(self._inbox, self._read_through))
        while True:
            for event in page.events:
                if event.seq not in self._consumed:
                    self._take(event)
                if self._untold_bytes > self._limit_bytes:
                    yield from self._commit()
            self._read_through = max(self._read_through, page.next)
            if page.next >= page.head:
                break
            page = yield from perform(Read(self._inbox, page.next))

    def _take(self, event: Event) -> None:
        match event.type:
            case "signal":
                self._signals.setdefault(event.data["name"], deque()).append((event.seq, event.data["data"]))
                self._deliver(event.data["name"])
            case "cancel" if self._flow.end is not None:
                # Too late for this run: if another one follows, it is for that.
                self._unheard.append(event.seq)
            case "cancel" if not self._flow.is_cancelled:
                self._tell(JournalStep((), b"", CANCEL, None, event.seq))
                self._flow.cancel()
            case "resolve":
                self._resolve(event)
            case "pause" | "resume":
                self._pause(event.type == "pause")

    def _pause(self, is_paused: bool) -> None:
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            self._restate(journal.PAUSED if is_paused else journal.RUNNING)

    def _restate(self, state: str) -> None:
        """Have others see how the flow stands, with the next entry."""
        self._open = msgspec.structs.replace(self._open, state=state, error=None)
        self._obsolete.append(KvPut(journal.OPEN + self._id, self._open))

    def _deliver(self, name: str) -> None:
        """Give signals of a name to the steps that wait for it, those that asked first before the others."""
        kept = self._signals[name]
        while kept:
            path = next(
                (
                    at
                    for at, branch in self._flow.waiting.items()
                    if isinstance(branch.request, Signal) and branch.request.name == name
                ),
                None,
            )
            if path is None:
                return
            self._receive(path, cast(Signal, self._flow.waiting[path].request))

    def _look_for_signal(self, path: Path, request: Signal) -> None:
        if self._signals.get(request.name):
            self._receive(path, request)
        elif request.timeout is not None:
            self._to_begin.append(path)

    def _receive(self, path: Path, request: Signal) -> None:
        seq, data = self._signals[request.name].popleft()
        self._forget_timer(path)
        try:
            value = journal.convert_value(data, request.returns, f"signal {request.name!r}")
        except InvalidRequest as error:
            self._fail(path, request, error, seq)
            return
        self._answer(path, request, value, seq)

    def _resolve(self, event: Event) -> None:
        """What came of a child, or what someone says came of a call whose outcome nobody knows."""
        path = tuple(event.data["path"])
        branch = self._flow.waiting.get(path)
        begun = self._begun.get(path)
        # A child may also be that of an earlier run.
        is_expected = event.data.get("child") == (None if begun is None else begun.what)
        if branch is None or not isinstance(branch.request, Child | Call) or not is_expected:
            # Nor is it for a step that comes to wait there later, be it before or after the flow is taken up again.
            self._tell(JournalStep((), b"", PASSED, None, event.seq))
            return
        request = branch.request
        if isinstance(request, Call):
            # It may be under way: its host is not to try it again.
            self.withdrawn.append(path)
        error = event.data.get("error")
        if error is not None:
            self._fail(path, request, journal.decode_raised(error, self._errors), event.seq)
            return
        what = f"what step {told_path(path)} was resolved with"
        try:
            value = journal.decode_value(event.data["value"], request.returns, what)
        except InvalidRequest as misfit:
            self._fail(path, request, misfit, event.seq)
            return
        self._answer(path, request, value, event.seq)

    def _forget_timer(self, path: Path) -> None:
        begun = self._begun.pop(path, None)
        if begun is not None and isinstance(begun.what, int):
            self._obsolete.append(KvDelete(journal.due_key(begun.what, self._id, path)))

    # To the journal

    def _prepare(self) -> Effect[None]:
        """Tell the journal of timers, and of calls that must not be repeated, before they begin."""
        paths, self._to_begin = self._to_begin, []
        for path in paths:
            branch = self._flow.waiting.get(path)
            if branch is None:
                continue
            request = cast(Request[Any], branch.request)
            begun = self._begun.get(path)
            if begun is not None:
                # By a host before this one. What became of a call someone has to say.
                if not isinstance(request, Call):
                    self._timers.append(Timer(path, _later(begun.at, _seconds_of(request))))
                continue
            due: int | None = None
            if not isinstance(request, Call):
                # By the clock of whoever asks, which may be a little off: the time of the entry counts.
                due = _later((yield from perform(Now())), _seconds_of(request))
                self._due.append(KvPut(journal.due_key(due, self._id, path), None))
            self._tell(JournalStep(path, identity(request), STARTED, due))
            self._prepared.append((path, due))
            if len(self._due) >= KEYS_AT_ONCE:
                yield from self._commit()
                self._begin_prepared()

    def _begin_prepared(self) -> None:
        if not self._prepared:
            return
        prepared, self._prepared = self._prepared, []
        for path, due in prepared:
            self._begun[path] = _BegunStep(self._entry_at, due)
            branch = self._flow.waiting[path]
            if due is None:
                self._calls.append(path)
            else:
                self._timers.append(Timer(path, _later(self._entry_at, _seconds_of(branch.request))))

    def _awaited(self) -> Await:
        """What the host is to begin now, and to wait for."""
        waiting = self._flow.waiting
        calls: tuple[Started, ...] = ()
        if self._calls:
            paths, self._calls = self._calls, []
            started = [self._started(path, cast(Call, waiting[path].request)) for path in paths if path in waiting]
            calls = tuple(started)
        if not self._timers and not self.withdrawn:
            return Await(self._id, calls)
        asked = Await(self._id, calls, tuple(self._timers), tuple(self.withdrawn))
        self._timers, self.withdrawn = [], []
        return asked

    def _started(self, path: Path, call: Call) -> Started:
        return Started(path, call, f"{self._id}/{self._beginning.run}/{told_path(path)}")

    def _commit(
        self,
        writes: tuple[Write, ...] = (),
        checks: tuple[Any, ...] = (),
        step: JournalStep | None = None,
        *,
        is_noted: bool = True,
    ) -> Effect[Any]:
        """Append all that is untold to the journal, together with writes and the step that they are.

        Returns the answers of the writes, or their conflict, and then nothing was written.
        """
        if self._flow.withdrawn:
            self._withdraw()
        steps = self._untold if step is None else [*self._untold, step]
        if not steps and not self._obsolete:
            return []
        draft = Draft(journal.STEPS, {"token": self._token, "steps": journal.encode_steps(steps)})
        over = self._obsolete[:KEYS_AT_ONCE]
        answer = yield from self._append(draft, (*writes, *self._due, *over), checks, is_noted and bool(writes))
        if isinstance(answer, Conflict):
            return answer
        self._untold, self._untold_bytes = [], 0
        if self._due:
            self._due = []
        if over:
            del self._obsolete[: len(over)]
        return answer[: len(writes)]

    def _append(
        self, draft: Draft, writes: tuple[Write, ...] = (), checks: tuple[Any, ...] = (), is_noted: bool = False
    ) -> Effect[Any]:
        """Append an entry, together with writes. A conflict about the journal means that it is another's."""
        entry = Append(self._stream, (draft,), self._seq)
        if not self._is_owner:
            self._open = msgspec.structs.replace(self._open, owner=self._token)
            writes = (*writes, KvPut(journal.OPEN + self._id, self._open))
            if self._open_revision is not None:
                # Another host may have taken it since it was found to be nobody's.
                checks = (*checks, ExpectRevision(journal.OPEN + self._id, self._open_revision))
        request: Request[Any] = Transact((*writes, entry), checks, is_noted) if writes or checks else entry
        answer: Any = None
        is_uncertain = False
        while answer is None:
            try:
                answer = yield from perform(request)
            except UncertainOutcome:
                is_uncertain = True
                answer = yield from self._read_back(draft, writes)
            if isinstance(answer, Conflict):
                of_journal = answer.name == self._stream and answer.kind == "stream"
                of_journal |= not self._is_owner and answer.name == journal.OPEN + self._id
                if of_journal or is_uncertain:
                    # It may be this very entry, which was written after all.
                    answer = (yield from self._read_back(draft, writes)) or answer
                if of_journal and isinstance(answer, Conflict):
                    raise OwnershipLost(self._id, self._seq + 1)
        if type(answer) is Conflict:
            return answer
        appended: Appended = answer if type(answer) is Appended else cast(list[Any], answer)[-1]
        self._seq, self._entry_at, self._is_owner = appended.last_seq, appended.at, True
        self._latest = max(self._latest, appended.at)
        return (answer,) if type(answer) is Appended else answer

    def _read_back(self, draft: Draft, writes: tuple[Write, ...]) -> Effect[Any]:
        """What an append was answered whose answer was lost, if it was carried out; else None.

        Only this host writes with its token, one entry at a time. So an entry with it, behind the last one, is this
        one; or one that was on its way when this host could not reach the store, and took the flow up again.
        """
        page = yield from perform(Read(self._stream, self._seq, limit=1))
        if not page.events:
            return None
        (event,) = page.events
        if event.data.get("token") != self._token:
            raise OwnershipLost(self._id, event.seq)
        if event.type != draft.type or (event.type == journal.STEPS and event.data["steps"] != draft.data["steps"]):
            raise UncertainOutcome(
                f"flow {self._id!r} has an entry {event.seq} of this host which it had not seen: it is to be taken up "
                "again"
            )
        noted = (event.meta or {}).get(ANSWERS)
        answers = [None] * len(writes) if noted is None else journal.noted_answer(Transact(writes), noted)
        return [*answers, Appended(event.seq, event.seq, event.position, event.at)]

    def _claim(self) -> Effect[None]:
        """Take the flow over, before anything that it has begun is begun again."""
        claimed = Draft(journal.CLAIMED, {"token": self._token})
        yield from self._append(claimed)

    def _withdraw(self) -> None:
        """See to it that what nobody waits for any more is not gone on with."""
        for path in self._flow.withdrawn:
            begun = self._begun.pop(path, None)
            if begun is None or begun.what is None:
                self.withdrawn.append(path)
            elif isinstance(begun.what, int):
                self.withdrawn.append(path)
                self._obsolete.append(KvDelete(journal.due_key(begun.what, self._id, path)))
            else:
                self._obsolete.append(message(begun.what, "cancel", {"by": self._id}))
        self._flow.withdrawn.clear()

    # The end

    def _end(self) -> Effect[Finished | None]:
        """Write how the flow has ended, and drop what its journal had; or begin it anew."""
        self._withdraw()
        while len(self._obsolete) > KEYS_AT_ONCE:
            yield from self._commit()
        end = self._flow.end
        if isinstance(end, FlowContinued):
            yield from self._continue(end)
            return None
        state, value, error = _state_of(end)
        result: bytes | None = None
        if error is None:
            try:
                result, value = journal.encode_value(value, self._code().returns, f"the result of flow {self._id!r}")
                if len(result) > self._limit_bytes:
                    raise InvalidRequest(
                        f"the result of flow {self._id!r} takes {len(result)} bytes, and a journal takes "
                        f"{self._limit_bytes}: put it into a blob store and return the reference"
                    )
            except InvalidRequest as refused:
                state, value, error, result = journal.FAILED, None, refused, None
        raised = None if error is None else self._encode_raised(_as_error(self._id, error))
        beginning, now = self._beginning, (yield from perform(Now()))
        told = None if error is None else _told_error(error)[:500]
        closed = Closed(
            beginning.flow, beginning.version, beginning.began, now, state, beginning.run, beginning.tags, told
        )
        ended = FlowEnded(beginning, state, result, raised, self._token)
        writes: list[Write] = [
            *self._obsolete,
            KvDelete(journal.OPEN + self._id),
            KvPut(journal.DONE + self._id, closed),
        ]
        if beginning.parent is not None:
            data = {"path": beginning.parent.path, "child": self._id, "value": result, "error": raised}
            writes.append(message(beginning.parent.flow_id, "resolve", data))
        self._is_owner = True
        yield from self._append_last(Draft(journal.ENDED, ended), writes)
        return Finished(self._id, state, value, error, ended)

    def _append_last(self, draft: Draft, writes: list[Write]) -> Effect[None]:
        """Append what stands in the place of all before it, which is dropped in the same transaction."""
        yield from self._append(draft, (TruncateThrough(self._stream, self._seq), *writes))

    def _continue(self, end: FlowContinued) -> Effect[None]:
        code, beginning = self._flows.newest(self._beginning.flow), self._beginning
        unread = [*self._unheard, *(seq for kept in self._signals.values() for seq, _ in kept)]
        through = min(unread, default=self._read_through + 1) - 1
        again = msgspec.structs.replace(
            beginning,
            version=code.version,
            args=code.encode_args(end.args),
            run=beginning.run + 1,
            first_args=beginning.first_args or beginning.args,
            consumed=sorted(set(range(through + 1, self._read_through + 1)) - set(unread)),
            token=self._token,
        )
        self._open = msgspec.structs.replace(
            self._open, version=code.version, run=again.run, owner=self._token, state=journal.RUNNING
        )
        writes = [*self._obsolete, KvPut(journal.OPEN + self._id, self._open)]
        if through:
            writes.append(TruncateThrough(self._inbox, through))
        self._is_owner = True
        yield from self._append_last(Draft(journal.BEGUN, again), writes)

    def _set_aside(self, why: str, revision: int, claims_limit: int) -> Effect[bool]:
        """Have no host take it up any more; where it stands otherwise by now, look again. As `take_up` returns."""
        aside = msgspec.structs.replace(self._open, state=journal.SET_ASIDE, error=why)
        put = yield from perform(KvPut(journal.OPEN + self._id, aside, revision))
        return isinstance(put, Conflict) and (yield from self.take_up(claims_limit))

    def _code(self) -> Any:
        return self._flows.of(self._id, self._beginning.flow, self._beginning.version)


_OF_RUNS = (journal.BEGUN, journal.ENDED)


# What others have for a flow


def beginning_writes(flow_id: str, begun: BegunFlow) -> tuple[Write, ...]:
    """The writes that begin a flow, all of which conflict where there is one.

    >>> [write.op for write in beginning_writes("o-1", begun_of(Beginning("order", 1, b"", 0)))]
    ['persist/append', 'persist/kv-put', 'persist/append']
    """
    writes = (
        Append(journal.journal_of(flow_id), (Draft(journal.BEGUN, begun.beginning),), 0),
        KvPut(journal.OPEN + flow_id, begun.standing, 0),
    )
    # A host that begins it for itself needs no word of it.
    return writes if begun.beginning.token else (*writes, message(flow_id, "begun", None))


def begun_of(beginning: Beginning, queue: str = "", priority: int = 0) -> BegunFlow:
    """What a flow that begins has in the store.

    >>> begun_of(Beginning("order", 1, b"", 0), queue="mail").standing.queue
    'mail'
    """
    standing = Open(
        beginning.flow,
        beginning.version,
        beginning.began,
        owner=beginning.token,
        queue=queue,
        priority=priority,
        tags=beginning.tags,
    )
    return BegunFlow(beginning, standing)


def message(flow_id: str, kind: str, data: Any) -> Append:
    """The write that puts a message into a flow's inbox."""
    return Append(journal.INBOX + flow_id, (Draft(kind, data),))


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


# The flow's own words


def _later(at: int, seconds: float) -> int:
    return at + int(min(seconds, _LONGEST_SECONDS) * MICROSECONDS)


_LONGEST_SECONDS = 1e11


def _seconds_of(request: Any) -> float:
    return cast(float, request.seconds if isinstance(request, Sleep) else request.timeout)


def _is_same_step(request: Any, known: bytes) -> bool:
    try:
        return is_same(identity(request), known)
    except InvalidRequest:
        return False


def _told(request: Any) -> str:
    try:
        return told_identity(decode(identity(request)))
    except InvalidRequest:
        return repr_of(request, 200)


def _told_end(end: Any) -> str:
    match end:
        case Answered(value):
            return f"it returned {repr_of(value)}"
        case Failed(error):
            return f"it raised {type(error).__name__}: {text_of(error)}"
        case Cancelled():
            return "it was cancelled"
    return "it goes on as a new run"


def _state_of(end: Any) -> tuple[str, Any, BaseException | None]:
    match end:
        case Answered(value):
            return journal.COMPLETED, value, None
        case Failed(error):
            return journal.FAILED, None, error
    return journal.CANCELLED, None, end


def _told_error(error: BaseException) -> str:
    """An error with what was noted of it: of a saga, what its undos raised."""
    return "; ".join([f"{type(error).__name__}: {text_of(error)}", *getattr(error, "__notes__", ())])


def _as_error(flow_id: str, error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else FlowFailed(flow_id, "was cancelled")


# What a flow may ask


def _only_reads(request: Request[Any]) -> Effect[Any]:
    if type(request) not in _READS and not isinstance(request, BlobGet | At):
        raise InvalidRequest(f"flow.local runs programs that only read, and this one asks {request.op}")
    _check_question(request, may_be_large=True)
    return (yield from perform(request))


def _check_question(request: Request[Any], *, may_be_large: bool = False) -> None:
    kind = type(request)
    if kind in WAITS:
        raise InvalidRequest(f"a flow does not ask {request.op}: wait for a signal, or wait in an activity")
    if kind is BlobGet and not may_be_large:
        raise InvalidRequest("a flow's journal holds no large bytes: read blobs in flow.local, or in an activity")
    if kind is At:
        of = type(cast(At, request).request)
        if of not in _READS:
            raise InvalidRequest(
                f"a flow does not ask {of.__name__} of another store, which cannot be in the transaction of its "
                "journal: do it in an activity"
            )


def _writes_of(request: Request[Any]) -> tuple[tuple[Write, ...], tuple[Any, ...]]:
    """The writes and checks of a request that a flow may make."""
    if has_sql(request):
        raise InvalidRequest("a flow writes no SQL, whose answer cannot be noted in its journal: do it in an activity")
    if type(request) is Advance:
        raise InvalidRequest("a flow does not ask persist/advance: it is for moving stores")
    writes, checks = (request.writes, request.checks) if isinstance(request, Transact) else ((request,), ())
    if isinstance(request, Transact) and request.noting is True:
        raise InvalidRequest(
            "a flow notes what its writes were answered, so its transactions cannot: leave `noting` out, and use "
            "log.append in the place of log.append_once, since each step of a flow takes effect once"
        )
    for write in writes:
        name = write.stream if isinstance(write, _OF_STREAMS) else cast(KvPut | KvDelete, write).key
        if name.startswith(journal.OWN_STREAMS if isinstance(write, _OF_STREAMS) else journal.OWN_KEYS):
            raise InvalidRequest(f"{_told(write)} writes what belongs to flows: use another name")
    return cast(Any, writes), checks


_OF_STREAMS = (Append, TruncateThrough, Begin)
