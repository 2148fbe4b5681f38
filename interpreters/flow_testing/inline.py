"""A host of flows without threads: it does one thing after another in the thread that asks, and can be killed.

What it does of its own accord comes in one order: first what flows ask of the store, then activities, then messages,
then what came of activities, then what is due. Time stands still until someone moves it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any, Literal

import msgspec

from interpreters.flow_testing.fakes import InlineActivities, OutsideWorld
from interpreters.runtime.flows.loop import FlowLoop, Held
from interpreters.runtime.store import Store
from persist_effects import flow as flows_
from persist_effects import kv, log, machine, new_id
from persist_effects.errors import InvalidRequest, OwnershipLost, StoreUnavailable, UncertainOutcome, text_of
from persist_effects.flow import journal
from persist_effects.flow.conducting import MICROSECONDS, Finished, conduct
from persist_effects.flow.defining import Flows
from persist_effects.flow.journal import BegunFlow, Open, OpenFlow
from persist_effects.flow.replay import Path, Replay
from persist_effects.flow.requests import Await, Came
from persist_effects.machine import Effect
from persist_effects.requests import (
    READS,
    TIMES,
    Answered,
    At,
    BlobGet,
    BlobHas,
    KvGet,
    KvPut,
    Outcome,
    ReadAll,
    Request,
)
from persist_effects.trace.errors import ErrorKinds

CrashMoment = Literal["before", "after"]
"""Whether a host is killed before a write is carried out, or after, before its answer came."""

# A crash there leaves what one at the write before it leaves.
_CHANGES_NOTHING = READS | TIMES | {BlobGet, BlobHas, At}


class HostClock:
    """The time of a test, in microseconds since 1970. It goes on where it is told to."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        """The time."""
        return self.now


class _Killed(BaseException):
    """The host is gone. Raised by what it asks of the store, and never inside of a flow."""


class InlineHost:
    """Runs flows on a store in the thread that calls.

    Args:
        store: The store.
        clock: Its clock.
        flows: The code of flows.
        world: Activities.
        errors: Classes of errors by their names.
    """

    def __init__(self, store: Store, clock: HostClock, flows: Flows, world: OutsideWorld, errors: ErrorKinds) -> None:
        self._store = store
        self._clock = clock
        self.flows = flows
        self._world = world
        self._errors = errors
        self._numbers = count()
        self.writes: list[Request[Any]] = []
        """What was asked of the store that may change something, or is seen elsewhere; before a crash too."""
        self.crashes: dict[int, CrashMoment] = {}
        """Which of the writes, by their numbers from 1 on, are not survived."""
        self._loop = FlowLoop(self._conductor, self._ask, self)
        self.restart()

    def restart(self) -> None:
        """Be another host, which knows nothing but what is in the store."""
        self._loop.close()
        self._loop = FlowLoop(self._conductor, self._ask, self)
        self.token = bytes.fromhex(self._store.run(new_id()).replace("-", ""))[-8:]
        """What the entries of this host bear."""
        self.halts: dict[str, Exception] = {}
        """What has halted flows."""
        self._replays: dict[str, Replay] = {}
        self._heap: list[tuple[int, int, Callable[[], None], Callable[[], bool]]] = []
        self._told: deque[Callable[[], None]] = deque()
        self._activities = InlineActivities(self._world, self._told.append, self._later, self._loop.arrived)
        self._position = self._store.run(log.head(journal.INBOX))
        self._to_take: deque[tuple[str, BegunFlow | OpenFlow | None]] = deque()
        self._to_take.extend(self._store.run(flows_.unended()).items())

    def close(self) -> None:
        """Hold no flows any more."""
        self._loop.close()

    def take_up(self, flow_id: str, begun: BegunFlow) -> None:
        """Have a flow go on that was just begun for this host, once it does what comes first."""
        self._to_take.append((flow_id, begun))

    def frontier(self, flow_id: str) -> list[tuple[Path, Request[Any]]]:
        """The requests that a flow waits with, by their paths."""
        replay = self._replays.get(flow_id)
        waiting = {} if replay is None or flow_id not in self._loop.held else replay.waiting
        return [(path, branch.request) for path, branch in waiting.items() if branch.request is not None]

    # One thing after another

    def do_next(self) -> bool:
        """Do what comes first. False: nothing can be done before something comes, or the clock goes on."""
        try:
            return self._do_next()
        except _Killed:
            self.restart()
            return True

    def _do_next(self) -> bool:
        if self._to_take:
            self._loop.take_up(*self._to_take.popleft())
        elif not self._loop.is_idle:
            self._loop.turn()
        elif self._activities.ready:
            # What has begun together runs together: what comes of one does not keep the others from it.
            work, self._activities.ready = self._activities.ready, []
            self._told.extend(each() for each in work)
        elif self._look_for_mail():
            pass
        elif self._told:
            self._told.popleft()()
        elif (due := self.next_due()) is not None and due <= self._clock.now:
            heappop(self._heap)[2]()
        else:
            return False
        return True

    def _look_for_mail(self) -> bool:
        """Let flows know of messages in their inboxes; False: there are none."""
        page = self._store.run(machine.perform(ReadAll(self._position, journal.INBOX)))
        self._position = page.next
        for flow_id in dict.fromkeys(event.stream.removeprefix(journal.INBOX) for event in page.events):
            if not self._loop.deliver(flow_id, Came(())) and self._store.run(kv.has(journal.OPEN + flow_id)):
                self._to_take.append((flow_id, None))
        return bool(page.events)

    # For the loop of flows

    def _conductor(self, flow_id: str, known: BegunFlow | OpenFlow | None) -> Effect[Finished]:
        look = partial(self._replays.__setitem__, flow_id)
        return conduct(flow_id, self.flows, self.token, errors=self._errors, known=known, look=look)

    def _ask(self, requests: Sequence[Request[Any]]) -> Sequence[Outcome]:
        return [self._ask_one(request) for request in requests]

    def _ask_one(self, request: Request[Any]) -> Outcome:
        moment = None
        if type(request) not in _CHANGES_NOTHING:
            self.writes.append(request)
            moment = self.crashes.get(len(self.writes))
        if moment == "before":
            raise _Killed
        outcome = machine.outcome_of(request, self._store.handlers)
        if moment == "after":
            raise _Killed
        return outcome

    def _answer(self, request: Request[Any]) -> Any:
        outcome = self._ask_one(request)
        if isinstance(outcome, Answered):
            return outcome.value
        raise outcome.error

    def begin(self, held: Held, asked: Await) -> None:
        """Begin what a flow asks for."""
        flow_id = held.flow_id
        for started in asked.calls:
            try:
                self._activities.check(started.call)
            except InvalidRequest as error:
                self._loop.let_go(flow_id)
                self._halt(flow_id, error)
                return
            self._activities.start(held, started)
        for timer in asked.timers:
            waits = partial(self._waits_until, flow_id, timer.path, timer.due)
            self._push(timer.due, partial(self._is_due, flow_id, timer.path), waits)

    def left(self, flow_id: str, end: Finished | Exception) -> None:
        """See to a flow that is no longer held."""
        self._replays.pop(flow_id, None)
        if isinstance(end, StoreUnavailable | UncertainOutcome):
            raise end
        if not isinstance(end, Finished | OwnershipLost):
            self._halt(flow_id, end)

    def _halt(self, flow_id: str, error: Exception) -> None:
        entry = self._answer(KvGet(journal.OPEN + flow_id))
        if entry is not None:
            self.halts[flow_id] = error
            told = f"{type(error).__name__}: {text_of(error)}"[:2000]
            standing = msgspec.convert(entry.value, Open)
            halted = msgspec.structs.replace(standing, state=journal.HALTED, error=told)
            self._answer(KvPut(journal.OPEN + flow_id, halted, entry.revision))

    # Time

    def next_due(self) -> int | None:
        """When the next thing is due: now, where it was due before; None: nothing is."""
        while self._heap:
            due, _, _, is_wanted = self._heap[0]
            if is_wanted():
                return max(due, self._clock.now)
            heappop(self._heap)
        return None

    def _later(self, seconds: float, job: Callable[[], None]) -> None:
        self._push(self._clock.now + int(seconds * MICROSECONDS), job, lambda: True)

    def _push(self, due: int, job: Callable[[], None], is_wanted: Callable[[], bool]) -> None:
        heappush(self._heap, (due, next(self._numbers), job, is_wanted))

    def _waits_until(self, flow_id: str, path: Path, due: int) -> bool:
        held = self._loop.held.get(flow_id)
        return held is not None and held.asked.get(path) == due

    def _is_due(self, flow_id: str, path: Path) -> None:
        del self._loop.held[flow_id].asked[path]
        self._loop.deliver(flow_id, Came(path))
