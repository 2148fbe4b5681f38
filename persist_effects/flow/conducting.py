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
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec

from persist_effects.errors import (
    CallerError,
    FlowContinued,
    FlowExists,
    FlowFailed,
    InvalidRequest,
    PersistError,
    text_of,
)
from persist_effects.event import Draft, Event
from persist_effects.flow import journal
from persist_effects.flow.asking import READS_OF_FLOWS, check_question, only_reads, writes_of
from persist_effects.flow.defining import Flows
from persist_effects.flow.journal import (
    ANSWER,
    CANCEL,
    ERROR,
    NOTED,
    PASSED,
    STARTED,
    Beginning,
    BegunFlow,
    Closed,
    FlowEnded,
    JournalStep,
    OpenFlow,
    Parent,
    beginning_writes,
    begun_of,
    message,
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
    told_request,
)
from persist_effects.flow.taking_up import BegunStep, TakenUp
from persist_effects.machine import Effect, perform, through
from persist_effects.programs import program
from persist_effects.requests import (
    WRITES,
    Answered,
    At,
    Conflict,
    Failed,
    KvDelete,
    KvPut,
    Now,
    Read,
    Request,
    Sleep,
    Transact,
    TruncateThrough,
    Write,
)
from persist_effects.trace.errors import ErrorKinds

RESULT_LIMIT_BYTES = 256 * 1024
"""The largest outcome that a journal takes, unless it is told otherwise: it holds references, and no large bytes."""

KEYS_AT_ONCE = 100
"""How many timers begin, or are over, in one transaction: fewer keys than any store has room for in one."""

CLAIMS_LIMIT = 10
"""How often a flow may be taken over in a row without getting on, before it is set aside: it may end its hosts."""

MICROSECONDS = 1_000_000


class Finished(NamedTuple):
    """What became of a flow that its conductor has left: how it ended, or that it was set aside."""

    flow_id: str
    state: str
    value: Any = None
    error: BaseException | None = None
    ended: FlowEnded | None = None


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


class _Conductor(TakenUp):
    """A flow that goes on live."""

    def __init__(self, flow_id: str, flows: Flows, token: bytes, errors: ErrorKinds, limit_bytes: int) -> None:
        super().__init__(flow_id, flows, token, errors)
        self._limit_bytes = limit_bytes
        self._inbox = journal.INBOX + flow_id
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
        self._read_through = 0
        self._signals: dict[str, deque[tuple[int, Any]]] = {}
        self._unheard: list[int] = []

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
            check_question(request)
            if type(request) is Local:
                answer: Any = yield from through(request.program, only_reads)
            else:
                if type(request) not in READS_OF_FLOWS and type(request) is not At:
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
            writes, checks = writes_of(request)
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
            self._begun[path] = BegunStep(self._entry_at, child_id)

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

    def _too_large(self, request: Request[Any], size_bytes: int) -> InvalidRequest:
        came = f"what came of {told_request(request)} takes {size_bytes} bytes"
        return InvalidRequest(
            f"{came}, and a journal takes {self._limit_bytes}: put it into a blob store and hand the reference on"
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
            self._begun[path] = BegunStep(self._entry_at, due)
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


# The flow's own words


def _later(at: int, seconds: float) -> int:
    return at + int(min(seconds, _LONGEST_SECONDS) * MICROSECONDS)


_LONGEST_SECONDS = 1e11


def _seconds_of(request: Any) -> float:
    return cast(float, request.seconds if isinstance(request, Sleep) else request.timeout)


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
