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
    PATCHED,
    STARTED,
    Beginning,
    Closed,
    FlowEnded,
    JournalStep,
    Open,
    Parent,
    told_path,
)
from persist_effects.flow.replay import Path, Replay
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
from persist_effects.trace.errors import ErrorKinds
from persist_effects.trace.values import decode, is_same

RESULT_LIMIT_BYTES = 256 * 1024
"""The largest outcome that a journal takes, unless it is told otherwise: it holds references, and no large bytes."""

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


@program
def conduct(
    flow_id: str,
    flows: Flows,
    token: bytes,
    *,
    errors: ErrorKinds | None = None,
    result_limit_bytes: int = RESULT_LIMIT_BYTES,
    claims_limit: int = CLAIMS_LIMIT,
) -> Effect[Finished]:
    """Run a flow from its journal, and go on live.

    Args:
        flow_id: Its id.
        flows: The code of flows.
        token: Whose entries these are: one token for each host that lives.
        errors: Classes of errors by their names, as they are to come back from the journal.
        result_limit_bytes: The largest outcome that it takes.
        claims_limit: How often in a row it may have been taken over without getting on.

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
            if not (yield from conductor.take_up(claims_limit)):
                return Finished(flow_id, journal.SET_ASIDE)
            finished = yield from conductor.go_on()
        finally:
            conductor.close()
        if finished is not None:
            return finished
        withdrawn = conductor.withdrawn


class _Begun(NamedTuple):
    """What was begun for a step: when, and under which key or child."""

    at: int
    what: Any


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
        self._replay: Replay | None = None
        # The last sequence number of the journal, and whether its last entry is of this host.
        self._seq = 0
        self._is_owner = False
        self._latest = 0
        self._patches: dict[str, bool] = {}
        self._is_replaying = True
        self._begun: dict[Path, _Begun] = {}
        # Steps that the flow knows and the journal does not, their size, and the keys that go with them.
        self._untold: list[JournalStep] = []
        self._untold_bytes = 0
        self._obsolete: list[Write] = []
        # Steps for which something is to be begun once the journal has what came before.
        self._to_start: list[Path] = []
        self._calls: list[Path] = []
        self._timers: list[Timer] = []
        self.withdrawn: list[Path] = []
        """Paths that the host has not heard yet that nobody waits at: also those of the run before."""
        self._consumed: set[int] = set()
        self._read_through = 0
        self._signals: dict[str, deque[tuple[int, Any]]] = {}
        self._is_paused = False

    def close(self) -> None:
        if self._replay is not None:
            self._replay.close()

    @property
    def _flow(self) -> Replay:
        assert self._replay is not None, "it was taken up"
        return self._replay

    # From the journal

    def take_up(self, claims_limit: int) -> Effect[bool]:
        """Run the program from its journal. False: it was set aside, or is so already."""
        entry = yield from perform(KvGet(journal.OPEN + self._id))
        if entry is None:
            raise NoSuchFlow(self._id, (yield from _what_became_of(self._id)))
        self._open = msgspec.convert(entry.value, Open)
        if self._open.state == journal.SET_ASIDE:
            return False
        events = yield from _run_of(self._stream)
        self._beginning = msgspec.convert(events[0].data, Beginning)
        self._seq, self._latest = events[-1].seq, max(event.at for event in events)
        claims = next((at for at, event in enumerate(reversed(events)) if event.type != journal.CLAIMED), 0)
        if claims >= claims_limit:
            yield from self._set_aside(f"it was taken over {claims} times in a row without getting on")
            return False
        self._is_owner = events[-1].data.get("token") == self._token
        self._consumed.update(self._beginning.consumed)
        self._is_paused = self._open.state == journal.PAUSED
        self._feed(events)
        if self._open.state == journal.HALTED:
            self._restate(journal.RUNNING)
        return True

    def _feed(self, events: list[Event]) -> None:
        beginning = self._beginning
        code = self._flows.of(self._id, beginning.flow, beginning.version)
        entries = [
            (event, journal.decode_steps(event.data["steps"])) for event in events if event.type == journal.STEPS
        ]
        for _, steps in entries:
            self._patches.update((step.known.decode(), True) for step in steps if step.kind == PATCHED)
            self._consumed.update(step.message for step in steps if step.message is not None)
        # Where another host has begun something at the first step, the journal need not say so.
        tokens = {event.data.get("token") or self._token for event in events}
        self._is_replaying = bool(entries) or tokens != {self._token}
        self._replay = Replay(code.make(beginning.args), self._is_patched)
        self._replay.begin()
        self._feed_steps(entries)
        self._is_replaying = False
        # What was answered is no longer asked.
        self._replay.asked = deque(self._replay.waiting)

    def _feed_steps(self, entries: list[tuple[Event, list[JournalStep]]]) -> None:
        """Give the flow what it was given before, in that order, and compare what it asks with what it asked."""
        last: tuple[Path, bytes] | None = None
        replay = self._flow
        waiting, feed, withdrawn = replay.waiting, replay.feed, replay.withdrawn
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
                if kind == STARTED:
                    self._begun[path] = _Begun(event.at, encoded.decode() if isinstance(encoded, bytes) else encoded)
                else:
                    if kind == NOTED:
                        withdrawn.clear()
                    feed(path, self._outcome(request, kind, encoded, event))
            # What an entry's outcomes withdrew was seen to with it, but for that of a write, which is known only then.
            if not steps or steps[-1].kind != NOTED:
                withdrawn.clear()

    def _outcome(self, request: Any, kind: int, encoded: Any, event: Event) -> Outcome:
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
        yield from self._read_mail()
        while True:
            if self._is_paused:
                yield from self._commit()
            else:
                yield from self._settle()
                if self._flow.end is not None:
                    return (yield from self._end())
                yield from self._commit_what_is_to_start()
            if self._calls and not self._is_owner:
                yield from self._claim()
            withdrawn = tuple(dict.fromkeys(self.withdrawn))
            asked = Await(self._id, self._started(), tuple(self._timers), withdrawn, self._beginning.run)
            self._timers, self.withdrawn = [], []
            for came in (yield from perform(asked)):
                if not came.path:
                    yield from self._read_mail()
                else:
                    self._came(came)
                    if self._untold_bytes > self._limit_bytes:
                        yield from self._commit()

    def _settle(self) -> Effect[None]:
        """Answer what can be answered at once, until the flow waits for others."""
        replay, asked = self._flow, self._flow.asked
        while asked:
            path = asked.popleft()
            branch = replay.waiting.get(path)
            if branch is None:
                continue
            request = cast(Request[Any], branch.request)
            kind = type(request)
            if kind is Call or kind is Sleep:
                self._to_start.append(path)
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
            self._check_size(request, encoded)
        except Exception as error:
            if isinstance(error, PersistError) and not isinstance(error, CallerError):
                # The store's trouble, and not the flow's.
                raise
            self._fail(path, request, error)
        else:
            self._tell(JournalStep(path, identity(request), ANSWER, encoded), len(encoded))
            self._flow.feed(path, Answered(answer))

    def _write(self, path: Path, request: Request[Any]) -> Effect[None]:
        """A write, in one transaction with the journal."""
        try:
            writes, checks = _writes_of(request)
            answer = yield from self._commit(writes, checks, JournalStep(path, identity(request), NOTED))
        except CallerError as error:
            self._fail(path, request, error)
            return
        if isinstance(answer, Conflict):
            encoded, _ = journal.encode_reply(request, answer)
            self._tell(JournalStep(path, identity(request), ANSWER, encoded), len(encoded))
            self._flow.feed(path, Answered(answer))
        else:
            self._flow.feed(path, Answered(answer if isinstance(request, Transact) else answer[0]))

    def _begin_child(self, path: Path, request: Child) -> Effect[None]:
        if path in self._begun:
            return
        run = "" if self._beginning.run == 1 else f"r{self._beginning.run}."
        child_id = request.flow_id or f"{self._id}.{run}{told_path(path)}"
        try:
            code = self._flows.of(child_id, request.flow, request.version)
            args = code.encode_args(request.args)
            began = yield from perform(Now())
            parent = Parent(self._id, list(path))
            writes = beginning_writes(child_id, Beginning(code.name, code.version, args, began, parent=parent))
            step = JournalStep(path, identity(request), STARTED, child_id.encode())
            answer = yield from self._commit(writes, (), step, is_noted=False)
            if isinstance(answer, Conflict):
                raise FlowExists(child_id, f"a child of {self._id!r}", "another flow")
        except CallerError as error:
            self._fail(path, request, error)
        else:
            self._begun[path] = _Begun(self._latest, child_id)

    def _fail(self, path: Path, request: Request[Any], error: Exception, message: int | None = None) -> None:
        encoded = self._encode_raised(error)
        self._tell(JournalStep(path, identity(request), ERROR, encoded, message), len(encoded))
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

    def _check_size(self, request: Request[Any], encoded: bytes) -> None:
        if len(encoded) > self._limit_bytes:
            raise InvalidRequest(
                f"what came of {_told(request)} takes {len(encoded)} bytes, and a journal takes {self._limit_bytes}: "
                "put it into a blob store and hand the reference on"
            )

    # What comes from outside

    def _came(self, came: Came) -> None:
        """Feed what came of a call or a timer. What nobody waits for any more is forgotten."""
        branch = self._flow.waiting.get(came.path)
        if branch is None:
            return
        request = cast(Request[Any], branch.request)
        if isinstance(request, Signal):
            self._forget_timer(came.path)
            late = TimeoutError(f"no signal {request.name!r} came in {request.timeout} seconds")
            self._fail(came.path, request, late)
        elif came.error is not None:
            self._fail(came.path, request, came.error)
        else:
            self._forget_timer(came.path)
            self._answer(came.path, request, came.value)

    def _answer(self, path: Path, request: Request[Any], value: Any, message: int | None = None) -> None:
        """Feed an answer that came from outside, if it can be kept."""
        try:
            encoded, value = journal.encode_reply(request, value)
            self._check_size(request, encoded)
        except InvalidRequest as error:
            self._fail(path, request, error)
            return
        self._tell(JournalStep(path, identity(request), ANSWER, encoded, message), len(encoded))
        self._flow.feed(path, Answered(value))

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
            self._to_start.append(path)

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
        if branch is None or not isinstance(branch.request, Child | Call):
            return
        request = branch.request
        begun = self._begun.get(path)
        if event.data.get("child") != (None if begun is None else begun.what):
            # Of a child of an earlier run.
            return
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

    def _commit_what_is_to_start(self) -> Effect[None]:
        """Have the journal know all that the flow knows, before anything begins."""
        replay = self._flow
        new: list[tuple[Path, Any]] = []
        writes: list[Write] = []
        for path in self._to_start:
            branch = replay.waiting.get(path)
            if branch is None or path in self._begun:
                continue
            request = branch.request
            if isinstance(request, Call):
                if request.repeat == "never":
                    new.append((path, None))
                continue
            # By the clock of whoever commits, which may be a little off: the entry's own time counts.
            seconds = cast(float, request.seconds if isinstance(request, Sleep) else cast(Signal, request).timeout)
            due = _later((yield from perform(Now())), seconds)
            writes.append(KvPut(journal.due_key(due, self._id, path), None))
            new.append((path, due))
        for path, what in new:
            self._tell(JournalStep(path, identity(cast(Any, replay.waiting[path].request)), STARTED, what))
        self._obsolete.extend(writes)
        if self._untold or self._obsolete:
            yield from self._commit()
        for path, what in new:
            self._begun[path] = _Begun(self._latest, what)
        begun = {path for path, _ in new}
        for path in self._to_start:
            self._start(path, is_new=path in begun)
        self._to_start.clear()

    def _start(self, path: Path, *, is_new: bool) -> None:
        branch = self._flow.waiting.get(path)
        if branch is None:
            return
        request, begun = branch.request, self._begun.get(path)
        if isinstance(request, Call):
            # What became of one that was begun before, and must not be repeated, someone has to say.
            if request.repeat != "never" or is_new:
                self._calls.append(path)
        elif begun is not None:
            seconds = request.seconds if isinstance(request, Sleep) else cast(Any, request).timeout
            self._timers.append(Timer(path, _later(begun.at, seconds)))

    def _started(self) -> tuple[Started, ...]:
        waiting, before = self._flow.waiting, f"{self._id}/{self._beginning.run}/"
        paths, self._calls = self._calls, []
        return tuple(
            Started(path, cast(Call, waiting[path].request), before + told_path(path))
            for path in paths
            if path in waiting
        )

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
        self._withdraw()
        steps = self._untold if step is None else [*self._untold, step]
        if not steps and not self._obsolete:
            return []
        entry = Append(
            self._stream,
            (Draft(journal.STEPS, {"token": self._token, "steps": journal.encode_steps(steps)}),),
            self._seq,
        )
        answer = yield from self._append(entry, (*writes, *self._obsolete), checks, is_noted and bool(writes))
        if isinstance(answer, Conflict):
            return answer
        self._untold, self._untold_bytes, self._obsolete = [], 0, []
        return answer[: len(writes)]

    def _append(
        self, entry: Append, writes: tuple[Write, ...], checks: tuple[Any, ...] = (), is_noted: bool = False
    ) -> Effect[Any]:
        """Append an entry, together with writes. A conflict about the journal means that it is another's."""
        if not self._is_owner:
            self._open = msgspec.structs.replace(self._open, owner=self._token)
            writes = (*writes, KvPut(journal.OPEN + self._id, self._open))
        request: Request[Any] = Transact((*writes, entry), checks, is_noted) if writes or checks else entry
        answer, is_uncertain = None, False
        while answer is None:
            try:
                answer = yield from perform(request)
            except UncertainOutcome:
                is_uncertain = True
                answer = yield from self._read_back(request, writes)
            else:
                is_of_journal = isinstance(answer, Conflict) and (answer.kind, answer.name) == ("stream", self._stream)
                # One that was carried out later than it was looked for conflicts with itself, at whichever write.
                if is_of_journal or (is_uncertain and isinstance(answer, Conflict)):
                    answer = (yield from self._read_back(request, writes)) or answer
                if is_of_journal and isinstance(answer, Conflict):
                    raise OwnershipLost(self._id, self._seq + 1)
        if isinstance(answer, Conflict):
            return answer
        appended: Appended = answer if isinstance(answer, Appended) else answer[-1]
        self._seq, self._latest, self._is_owner = appended.last_seq, max(self._latest, appended.at), True
        return answer if isinstance(answer, list) else [answer]

    def _read_back(self, request: Request[Any], writes: tuple[Write, ...]) -> Effect[Any]:
        """What an append was answered whose answer was lost, if it was carried out; else None.

        Only this host writes with its token, one entry at a time: an entry with it, behind the last one, is this one.
        """
        page = yield from perform(Read(self._stream, self._seq, limit=1))
        if not page.events:
            return None
        (event,) = page.events
        if event.data.get("token") != self._token:
            raise OwnershipLost(self._id, event.seq)
        noted = (event.meta or {}).get(ANSWERS)
        answers = [None] * len(writes) if noted is None else journal.noted_answer(Transact(writes), noted)
        return [*answers, Appended(event.seq, event.seq, event.position, event.at)]

    def _claim(self) -> Effect[None]:
        """Take the flow over, before anything that it has begun is begun again."""
        claimed = Draft(journal.CLAIMED, {"token": self._token})
        yield from self._append(Append(self._stream, (claimed,), self._seq), ())

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
        told = None if error is None else f"{type(error).__name__}: {text_of(error)}"[:500]
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
        return Finished(self._id, state, value, error)

    def _append_last(self, draft: Draft, writes: list[Write]) -> Effect[None]:
        """Append what stands in the place of all before it, which is dropped in the same transaction."""
        entry = Append(self._stream, (draft,), self._seq)
        yield from self._append(entry, (TruncateThrough(self._stream, self._seq), *writes))

    def _continue(self, end: FlowContinued) -> Effect[None]:
        code, beginning = self._flows.newest(self._beginning.flow), self._beginning
        unread = [seq for kept in self._signals.values() for seq, _ in kept]
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

    def _set_aside(self, why: str) -> Effect[None]:
        self._open = msgspec.structs.replace(self._open, state=journal.SET_ASIDE, error=why)
        yield from perform(KvPut(journal.OPEN + self._id, self._open))

    def _code(self) -> Any:
        return self._flows.of(self._id, self._beginning.flow, self._beginning.version)


# What others have for a flow


def beginning_writes(flow_id: str, beginning: Beginning, open_: Open | None = None) -> tuple[Write, ...]:
    """The writes that begin a flow, all of which conflict where there is one.

    >>> [write.op for write in beginning_writes("o-1", Beginning("order", 1, b"", 0))]
    ['persist/append', 'persist/kv-put', 'persist/append']
    """
    if open_ is None:
        open_ = Open(beginning.flow, beginning.version, beginning.began, owner=beginning.token, tags=beginning.tags)
    writes = (
        Append(journal.journal_of(flow_id), (Draft(journal.BEGUN, beginning),), 0),
        KvPut(journal.OPEN + flow_id, open_, 0),
    )
    # A host that begins it for itself needs no word of it.
    return writes if beginning.token else (*writes, message(flow_id, "begun", None))


def message(flow_id: str, kind: str, data: Any) -> Append:
    """The write that puts a message into a flow's inbox."""
    return Append(journal.INBOX + flow_id, (Draft(kind, data),))


def _what_became_of(flow_id: str) -> Effect[str]:
    closed = yield from perform(KvGet(journal.DONE + flow_id))
    return "it was never begun" if closed is None else f"it has ended, {msgspec.convert(closed.value, Closed).state}"


def _run_of(stream: str) -> Effect[list[Event]]:
    """The entries of a journal that are left: those of the run that goes on."""
    return (yield from log.read(stream))


# The flow's own words


def _later(at: int, seconds: float) -> int:
    return at + int(min(seconds, _LONGEST_SECONDS) * MICROSECONDS)


_LONGEST_SECONDS = 1e11


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
