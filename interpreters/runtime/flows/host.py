"""`FlowHost`: runs durable flows on a store, in threads of its own."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from math import inf
from queue import Empty, SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar, cast

import msgspec

from interpreters.runtime.flows.activities import Activities, Work
from interpreters.runtime.flows.alarm import PASSING, TRY_AGAIN_SECONDS, Alarm
from interpreters.runtime.flows.ends import Ends
from interpreters.runtime.flows.intake import Intake
from interpreters.runtime.flows.leases import Leases, new_token
from interpreters.runtime.flows.loop import FlowLoop, Held
from interpreters.runtime.flows.queues import Queue, QueueLines
from interpreters.runtime.flows.schedules import Schedule, schedules_by_name
from interpreters.runtime.flows.timers import Timers
from interpreters.runtime.sleeping import CLOSED
from interpreters.runtime.store import Store
from interpreters.threads.gates import LOOK_AGAIN_SECONDS_MAX, Gate
from interpreters.threads.workers import ThreadPool
from persist_effects import flow as flows_
from persist_effects import kv, machine
from persist_effects.clock import now
from persist_effects.contexts import here, parts_in
from persist_effects.errors import (
    InternalError,
    InvalidRequest,
    OwnershipLost,
    StoreClosed,
    describe,
    text_of,
)
from persist_effects.flow import journal
from persist_effects.flow.conducting import Finished, conduct
from persist_effects.flow.defining import Flows, activities_by_name
from persist_effects.flow.history import HistoryEntry
from persist_effects.flow.journal import BegunFlow, FlowEnded, Open, OpenFlow
from persist_effects.flow.requests import Await
from persist_effects.flow.standing import FlowStatus, outcome_in, value_of
from persist_effects.machine import Effect
from persist_effects.requests import AllOf, Outcome, Request
from persist_effects.trace.errors import errors_by_name

A = TypeVar("A")

ACTIVITIES = 32
"""How many activities run at once, in threads, unless it is said otherwise."""

HELD_LIMIT = 2_000
"""How many flows that only wait are kept in memory. Others are let go of, and read from their journals when woken."""

BEGUN_AT_ONCE = 1_000
"""How many flows are begun in one commit, where many are to be begun."""

LEASE_SECONDS = 10.0

_PAUSE_SECONDS_MAX = 60.0


class FlowHost:
    """Runs durable flows on a store: takes up those that go on, begins new ones, runs their activities.

    Whatever `persist_effects.flow` offers as programs can be run on the store by anyone; the methods here are short
    for that. Close the host before its store.

    Args:
        store: The store.
        flows: The flows: generator functions. Of one that changed, give the versions that still go on too.
        activities: The functions that they call.
        errors: Classes of errors that activities and flows raise. Those of Python and of this package need not be
            named.
        activities_at_once: How many activities run at once, in threads.
        lease_seconds: How long a host may be silent before others take its flows over, where several processes may
            open the store.
        held_limit: How many flows that only wait are kept in memory.
        queues: The queues whose flows it runs. Those of others are left to other hosts. Limits are those of one host.
        schedules: When it begins which flows. Give them to each host: each time, one of them begins the flow.

    Raises:
        InvalidRequest: If two flows, activities, queues or schedules have one name, or something is not what it should
            be.

    >>> from interpreters import open_store
    >>> from persist_effects import flow
    >>> def greeting(name: str) -> str:
    ...     return f"hello {name}"
    >>> def greet(name: str):
    ...     return (yield from flow.call(greeting, name))
    >>> with open_store("memory:") as store, FlowHost(store, flows=[greet], activities=[greeting]) as host:
    ...     host.start(greet, "g-1", "Ada")
    ...     host.result("g-1", timeout=60)
    True
    'hello Ada'
    """

    def __init__(
        self,
        store: Store,
        *,
        flows: Iterable[Callable[..., Effect[Any]]],
        activities: Iterable[Callable[..., Any]] = (),
        errors: Collection[type[Exception]] = (),
        activities_at_once: int = ACTIVITIES,
        lease_seconds: float = LEASE_SECONDS,
        held_limit: int = HELD_LIMIT,
        queues: Iterable[Queue] = (),
        schedules: Iterable[Schedule] = (),
    ) -> None:
        if not isinstance(store, Store):
            raise InvalidRequest(f"a host's store is {describe(store)}: give what open_store(url) returns")
        self._store = store
        self._flows = Flows(flows)
        self._queues = QueueLines(queues)
        self._schedules = schedules_by_name(schedules)
        for schedule in self._schedules.values():
            self._flows.add(schedule.flow)
            self._queues.check(schedule.queue)
        self._errors = errors_by_name(errors)
        self._held_limit = held_limit
        self._limit_bytes = min(flows_.RESULT_LIMIT_BYTES, store.capabilities.payload_limit_bytes // 4)
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # One that leads, and one that leads on where the first is doing an activity.
        self._leaders = ThreadPool(2, "persist-effects flows")
        self._threads = ThreadPool(activities_at_once, "persist-effects activity")
        # How many activities run, or wait for a thread.
        self._running = 0
        # Where the thread that leads is doing an activity: what stands for that. Whoever takes over takes it away.
        self._lent: object | None = None
        self._lending = Lock()
        self._alarm = Alarm(self._tell)
        self._loop = FlowLoop(self._conductor, self._ask, self)
        self._ends = Ends()
        self._activities = Activities(activities_by_name(activities), self._tell, self._alarm.later, self._loop.arrived)
        self._pauses: dict[str, float] = {}
        self._is_closing = self._is_closed = False
        self._failure: BaseException | None = None
        token = new_token(store)
        self._intake = Intake(
            store,
            token,
            flows=self._flows,
            queues=self._queues,
            loop=self._loop,
            alarm=self._alarm,
            tell=self._tell,
            alive=self._alive,
        )
        self._timers = Timers(store, self._loop, self._alarm, self._intake.look_at)
        look_for_flows = partial(self._alarm.insist, self._intake.look_for_flows)
        self._leases = Leases(
            store,
            token,
            lease_seconds,
            look=partial(self._tell, look_for_flows),
            lost=lambda token: self._tell(partial(self._begin_anew, token)),
        )
        self._inbox.put(look_for_flows)
        self._inbox.put(partial(self._alarm.insist, self._timers.look))
        self._inbox.put(partial(self._alarm.insist, self._intake.watch))
        for schedule in self._schedules.values():
            self._inbox.put(partial(self._alarm.insist, partial(self._intake.see_to, schedule)))
        self._ended = Gate()
        self._leaders.do(self._lead)
        self._end_close_watch = store.on_close(partial(self._tell, self._store_was_closed))

    @property
    def token(self) -> bytes:
        """What the entries of this host bear. Another one, once its lease was taken away."""
        return self._intake.token

    # For others

    def start(
        self,
        flow: Callable[..., Effect[Any]],
        flow_id: str,
        *args: Any,
        tags: Mapping[str, str] | None = None,
        queue: str = "",
        priority: int = 0,
    ) -> bool:
        """Begin a flow. The same id with the same arguments is the same flow: nothing happens.

        Args:
            flow: The flow. The host has it from now on.
            flow_id: Its id.
            args: Its arguments.
            tags: By which it is found in lists.
            queue: In which queue it waits for its turn, on whichever host of the store has room first; empty: in none.
            priority: Those in a queue with a higher one are first, and of one priority those that were begun first.

        Returns:
            Whether it was begun now.

        Raises:
            FlowExists: If there is another flow of this id.
            InvalidRequest: If the host does not have this flow or this queue, something cannot be kept, or the host is
                closed.
        """
        token = self._token_for(flow, queue, priority)
        begin = flows_.begin_as(flow_id, flow, *args, tags=tags, queue=queue, priority=priority, token=token)
        begun = self._store.run(begin)
        self._go_on_with({flow_id: begun})
        return begun is not None

    def start_many(
        self,
        flow: Callable[..., Effect[Any]],
        args_by_id: Mapping[str, Sequence[Any]],
        *,
        tags: Mapping[str, str] | None = None,
        queue: str = "",
        priority: int = 0,
    ) -> list[str]:
        """Begin many flows together, which takes far less time than one after the other.

        Args:
            flow: The flow.
            args_by_id: The arguments of each, by its id.
            tags: By which all of them are found in lists.
            queue: In which queue they wait, in this order; empty: in none.
            priority: Those in a queue with a higher one are first.

        Returns:
            The ids of those that were begun now.

        Raises:
            ExceptionGroup: If some could not be begun, as `start` says; the others were.
        """
        token = self._token_for(flow, queue, priority)
        begun: list[str] = []
        errors: list[Exception] = []
        for ids in batched(args_by_id, BEGUN_AT_ONCE):
            begins = [
                flows_.begin_as(each, flow, *args_by_id[each], tags=tags, queue=queue, priority=priority, token=token)
                for each in ids
            ]
            found: list[Any] = self._store.run_many(begins, return_exceptions=True)
            answers = {each: one for each, one in zip(ids, found, strict=True) if not isinstance(one, Exception)}
            self._go_on_with(answers)
            begun.extend(each for each, one in answers.items() if one is not None)
            errors.extend(one for one in found if isinstance(one, Exception))
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(args_by_id)} flows were not begun", errors)
        return begun

    def _token_for(self, flow: Callable[..., Effect[Any]], queue: str, priority: int) -> bytes:
        """Check what is to be begun. Whose it is: this host's, or in a queue nobody's until its turn."""
        self._check_open()
        self._flows.add(flow)
        self._queues.check(queue)
        if priority and not queue:
            raise InvalidRequest(f"priority is {priority!r}, and the flow waits in no queue: give queue= too")
        return b"" if queue else self.token

    def _go_on_with(self, found: Mapping[str, BegunFlow | None]) -> None:
        """Take up what this host has begun, and look at what was there."""
        new = {flow_id: begun for flow_id, begun in found.items() if begun is not None and begun.beginning.token}
        if new:
            self._expect(new)
            self._tell(partial(self._intake.take_up_new, new))
        for flow_id, begun in found.items():
            if begun is None:
                # It may be this host's, which was not told what came of beginning it.
                self._tell(partial(self._intake.look_at, flow_id))

    def _expect(self, flow_ids: Iterable[str]) -> None:
        """Have those who wait for flows that this host has begun be told by it, and not by the store."""
        for flow_id in flow_ids:
            self._ends.expect(flow_id)
        if self._is_closing:
            # Whoever leads may have told all that there were.
            self._ends.tell_all()

    def _alive(self) -> Collection[bytes]:
        return self._leases.alive()

    def _check_open(self) -> None:
        """Refuse to begin what this host would never run."""
        if self._is_closing:
            ended = "is closed" if self._failure is None else "has failed"
            raise InvalidRequest(f"this host {ended}, and runs no flows: begin it with another") from self._failure

    def signal(self, flow_id: str, name: str, data: Any = None) -> None:
        """Send a signal to a flow that goes on: see `persist_effects.flow.send`."""
        self._store.run(flows_.send(flow_id, name, data))

    def cancel(self, flow_id: str) -> None:
        """Cancel a flow that goes on: see `persist_effects.flow.cancel`."""
        self._store.run(flows_.cancel(flow_id))

    def pause(self, flow_id: str) -> None:
        """Have a flow begin nothing more until it is resumed."""
        self._store.run(flows_.pause(flow_id))

    def resume(self, flow_id: str) -> None:
        """Have a flow that was paused go on."""
        self._store.run(flows_.resume(flow_id))

    def resolve(
        self, flow_id: str, path: tuple[int, ...], value: Any = None, *, error: Exception | None = None
    ) -> None:
        """Say what came of a call that must not be repeated: see `persist_effects.flow.resolve`."""
        self._store.run(flows_.resolve(flow_id, path, value, error=error))

    def retry(self, flow_id: str) -> None:
        """Have a flow that was halted or set aside be taken up again."""
        self._store.run(flows_.retry(flow_id))

    def result(self, flow_id: str, timeout: float | None = None) -> Any:
        """Wait for a flow's result.

        Args:
            flow_id: The flow.
            timeout: For how many seconds at the most; None: for ever.

        Returns:
            What it returned.

        Raises:
            FlowFailed: If it raised, with that as the cause, or was cancelled.
            NoSuchFlow: If it was never begun.
            TimeoutError: If it has not ended by then.
        """
        for seconds in self._patience(timeout):
            end = self._ends.of(flow_id)
            if end is not None:
                if not end.wait(seconds):
                    continue
                if end.ended is not None:
                    return self._value_of(flow_id, end.ended)
                if self._failure is not None:
                    continue
            with suppress(TimeoutError):
                return self._store.run(self._result(flow_id, seconds))
        raise TimeoutError(f"flow {flow_id!r} has not ended within {timeout} seconds")

    async def aresult(self, flow_id: str, timeout: float | None = None) -> Any:
        """Wait for a flow's result in a task, of asyncio or trio: see `result`."""
        for seconds in self._patience(timeout):
            with suppress(TimeoutError):
                return await self._store.arun(self._result(flow_id, seconds))
        raise TimeoutError(f"flow {flow_id!r} has not ended within {timeout} seconds")

    def _patience(self, timeout: float | None) -> Iterator[float]:
        """How long to wait each time, before it is looked whether this host still lives. Raises where it has failed."""
        left = inf if timeout is None else timeout
        deadline = time.monotonic() + left
        while True:
            if self._failure is not None and not isinstance(self._failure, StoreClosed):
                raise InternalError(f"this host has failed, and runs no flows: {self._failure!r}") from self._failure
            yield min(left, LOOK_AGAIN_SECONDS_MAX)
            left = deadline - time.monotonic()
            if left <= 0:
                return

    def _value_of(self, flow_id: str, ended: FlowEnded) -> Any:
        return value_of(flow_id, outcome_in(flow_id, ended, flows=self._flows, errors=self._errors))

    def _result(self, flow_id: str, timeout: float) -> Effect[Any]:
        return flows_.wait_for(flow_id, timeout=timeout, flows=self._flows, errors=self._errors)

    def status(self, flow_id: str) -> FlowStatus:
        """How a flow stands. Raises `NoSuchFlow` if it was never begun."""
        return self._shown(self._store.run(flows_.status(flow_id)))

    def _shown(self, status: FlowStatus) -> FlowStatus:
        """How a flow stands, with a word on it where it is left to other hosts."""
        is_left = self._intake.is_left(status.flow, status.version)
        if is_left and status.ended is None and status.error is None:
            told = f"the code of {status.flow!r}, version {status.version}, is not here, so it is left to other hosts"
            return msgspec.structs.replace(status, error=told)
        return self._queues.shown(status)

    def list(self, **wanted: Any) -> list[FlowStatus]:
        """Flows, by their ids: see `persist_effects.flow.listing` for what can be asked for."""
        return [self._shown(each) for each in self._store.run(flows_.listing(**wanted))]

    def history(self, flow_id: str) -> Sequence[HistoryEntry]:
        """What a flow has done: see `persist_effects.flow.history`."""
        return self._store.run(flows_.history(flow_id))

    def fork(self, flow_id: str, new_id: str, at: int) -> None:
        """Begin a new flow that goes on from an entry of another one's journal: see `persist_effects.flow.fork`."""
        self._store.run(flows_.fork(flow_id, new_id, at))

    def rewind(self, flow_id: str, at: int) -> None:
        """Have a flow that stands still go on from an earlier entry: see `persist_effects.flow.rewind`."""
        self._store.run(flows_.rewind(flow_id, at))

    def close(self) -> None:
        """Stop. Flows that go on are not cancelled: they are taken up again by the next host. Again: nothing."""
        if not self._is_closed:
            self._is_closed = self._is_closing = True
            self._end_close_watch()
            self._tell(None)
            self._ended.wait(inf)
            self._alarm.close()
            self._activities.close()
            self._threads.end()
            self._leaders.end()
            self._leases.close()

    def __enter__(self) -> "FlowHost":
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # The thread that leads: all that is not said to be otherwise happens there
    #
    # It lets flows go on, and answers what they ask of the store. Where all that is left to do is one activity, it does
    # that itself, which saves two changes of threads: it is lent. Whoever has something for it then, which may not wait
    # behind an activity, has another thread lead.

    def _tell(self, job: Callable[[], None] | None) -> None:
        """From any thread: have something done by the thread that leads."""
        self._inbox.put(job)
        if self._lent is not None:
            with self._lending:
                lent, self._lent = self._lent, None
            if lent is not None:
                self._leaders.do(self._lead)

    def _lead(self) -> None:
        try:
            while not self._is_closing:
                self._take_in()
                self._loop.turn()
                if self._queues.has_waiting:
                    self._intake.take_turns()
                if self._activities.ready and not self._launch():
                    return
        except BaseException as error:
            self._failure = error
            self._is_closing = True
            self._stop()
            # Others need not wait for one that does nothing any more.
            self._leases.close()
            if not isinstance(error, StoreClosed):
                raise
        else:
            self._stop()

    def _store_was_closed(self) -> None:
        raise StoreClosed(CLOSED)

    def _stop(self) -> None:
        self._intake.close()
        self._loop.close()
        self._ends.tell_all()
        self._ended.open()

    def _launch(self) -> bool:
        """Have the activities done that are to be done now. False: another thread leads since."""
        work, self._activities.ready = self._activities.ready, []
        if len(work) == 1 and not self._running and self._loop.is_idle and self._intake.is_empty:
            self._running = 1
            token = self._lent = object()
            if self._inbox.empty():
                outcome = work[0]()
                if self._takes_back(token):
                    self._settle(outcome)
                    return True
                self._tell(partial(self._settle, outcome))
                return False
            if not self._takes_back(token):
                self._threads.do(partial(self._work, work[0]))
                return False
            self._running = 0
        self._running += len(work)
        for each in work:
            self._threads.do(partial(self._work, each))
        return True

    def _takes_back(self, token: object) -> bool:
        with self._lending:
            if self._lent is not token:
                return False
            self._lent = None
            return True

    def _work(self, work: Work) -> None:
        self._tell(partial(self._settle, work()))

    def _settle(self, outcome: Callable[[], None]) -> None:
        self._running -= 1
        outcome()

    def _take_in(self) -> None:
        """Do what others have put here, and wait for it where there is nothing else to do."""
        self._intake.take_up()
        try:
            job = self._inbox.get() if self._loop.is_idle else self._inbox.get_nowait()
            while True:
                if job is not None:
                    job()
                job = self._inbox.get_nowait()
        except Empty:
            return

    def _ask(self, requests: Sequence[Request[Any]]) -> Sequence[Outcome]:
        handlers = self._store.handlers
        if len(requests) == 1:
            return [machine.outcome_of(requests[0], handlers)]
        return cast(Sequence[Outcome], handlers[AllOf](AllOf(parts_in(requests, [here] * len(requests)))))

    def _conductor(self, flow_id: str, known: BegunFlow | OpenFlow | None) -> Effect[Finished]:
        return conduct(
            flow_id,
            self._flows,
            self.token,
            errors=self._errors,
            result_limit_bytes=self._limit_bytes,
            known=known,
        )

    # What flows ask for outside

    def begin(self, held: Held, asked: Await) -> None:
        """Begin what a flow asks for."""
        for started in asked.calls:
            try:
                self._activities.check(started.call)
            except InvalidRequest as error:
                self._let_go(held.flow_id)
                self._halt(held.flow_id, error)
                return
            self._activities.start(held, started)
        if asked.timers:
            self._alarm.insist(partial(self._timers.set, held.flow_id, asked.timers))
        if len(self._loop.held) > self._held_limit and self._only_waits(held):
            self._let_go(held.flow_id)

    def _let_go(self, flow_id: str) -> None:
        self._loop.let_go(flow_id)
        self._ends.tell(flow_id, None)

    def _only_waits(self, held: Held) -> bool:
        """Whether nothing is lost where a flow is let go of, and read again once something comes for it."""
        if held.calls or held.arrivals:
            return False
        try:
            # One whose timer is due would be read again for it, and let go of again, for ever.
            return not held.asked or self._store.run(now()) < min(held.asked.values())
        except PASSING:
            return False

    def left(self, flow_id: str, end: Finished | Exception) -> None:
        """See to a flow that is no longer held."""
        self._ends.tell(flow_id, end.ended if isinstance(end, Finished) else None)
        if isinstance(end, Finished):
            self._pauses.pop(flow_id, None)
            self._queues.release(flow_id)
        elif isinstance(end, OwnershipLost):
            self._pauses.pop(flow_id, None)
            self._queues.release(flow_id)
            # Whoever wrote may have left it to nobody: who rewound it, or a host that wrote late, and is gone.
            self._intake.look_at(flow_id)
        elif isinstance(end, StoreClosed):
            raise end
        elif isinstance(end, PASSING):
            # The store's trouble, and not the flow's.
            pause = self._pauses[flow_id] = min(
                2 * self._pauses.get(flow_id, TRY_AGAIN_SECONDS / 2), _PAUSE_SECONDS_MAX
            )
            self._alarm.later(pause, partial(self._intake.look_at, flow_id))
        else:
            self._halt(flow_id, end)

    def _halt(self, flow_id: str, error: Exception) -> None:
        """Have others see why a flow does not go on. It is taken up again when a host begins, or someone retries it."""
        self._queues.release(flow_id)
        self._alarm.insist(partial(self._put_halted, flow_id, f"{type(error).__name__}: {text_of(error)}"[:2000]))

    def _put_halted(self, flow_id: str, told: str) -> None:
        entry = self._store.run(kv.entry(journal.OPEN + flow_id))
        if entry is None:
            return
        halted = msgspec.structs.replace(msgspec.convert(entry.value, Open), state=journal.HALTED, error=told)
        self._store.run(kv.put_expect(journal.OPEN + flow_id, entry.revision, halted))

    def _begin_anew(self, token: bytes) -> None:
        """Let go of all flows, which others may have by now, and go on as another host."""
        self._loop.close()
        self._ends.tell_all()
        self._intake.token = token
        self._alarm.insist(self._intake.look_for_flows)


def batched(items: Iterable[A], count: int) -> Iterator[list[A]]:
    """Items, so many at a time.

    >>> list(batched("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    left = iter(items)
    while batch := list(islice(left, count)):
        yield batch
