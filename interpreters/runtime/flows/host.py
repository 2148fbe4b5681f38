"""`FlowHost`: runs durable flows on a store, in threads of its own."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, cast

import msgspec

from interpreters.runtime.flows.activities import Activities
from interpreters.runtime.flows.leases import Leases
from interpreters.runtime.flows.loop import FlowLoop
from interpreters.runtime.store import Store
from persist_effects import flow as flows_
from persist_effects import kv, log, machine, new_id
from persist_effects.contexts import here, parts_in
from persist_effects.errors import (
    InvalidRequest,
    OwnershipLost,
    StoreClosed,
    StoreUnavailable,
    UncertainOutcome,
    describe,
    text_of,
)
from persist_effects.flow import journal
from persist_effects.flow.conducting import Finished, conduct
from persist_effects.flow.defining import Flows, activities_by_name
from persist_effects.flow.journal import Open
from persist_effects.flow.outside import FlowStatus
from persist_effects.flow.requests import Await, Came
from persist_effects.machine import Effect
from persist_effects.requests import AllOf, Answered, KvGet, KvPut, Now, Outcome, ReadAll, Request, Wait
from persist_effects.trace.errors import errors_by_name

ACTIVITIES = 32
"""How many activities run at once, in threads, unless it is said otherwise."""

HELD_LIMIT = 10_000
"""How many flows that only wait are kept in memory. Others are let go of, and read from their journals when woken."""

AT_ONCE = 1_000
"""How many flows are read from their journals at once."""

HORIZON_SECONDS = 60.0
"""Timers that are due later than that are not kept in memory: they are found by their keys when their time comes."""

LEASE_SECONDS = 10.0

_TRY_AGAIN_SECONDS = 1.0
_TRY_AGAIN_SECONDS_MAX = 60.0
_PASSING = (StoreUnavailable, UncertainOutcome)


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

    Raises:
        InvalidRequest: If two flows, or two activities, have one name, or something is not what it should be.

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
    ) -> None:
        if not isinstance(store, Store):
            raise InvalidRequest(f"a host's store is {describe(store)}: give what open_store(url) returns")
        self._store = store
        self._flows = Flows(flows)
        self._errors = errors_by_name(errors)
        self._held_limit = held_limit
        self._limit_bytes = min(flows_.RESULT_LIMIT_BYTES, store.capabilities.payload_limit_bytes // 4)
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop = FlowLoop(self._conductor, self._ask, self)
        self._activities = Activities(
            activities_by_name(activities), self._inbox.put, self._later, self._deliver, activities_at_once
        )
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._to_take: deque[str] = deque()
        self._pauses: dict[str, float] = {}
        self._is_closing = False
        self._failure: BaseException | None = None
        self._end_watch: Callable[[], None] | None = None
        self.token = bytes.fromhex(store.run(new_id()).replace("-", ""))[-8:]
        """What the entries of this host bear."""
        self._leases = Leases(store, self.token, lease_seconds, lambda: self._inbox.put(self._look_for_flows))
        self._position = store.run(log.head(journal.INBOX))
        self._inbox.put(self._look_for_flows)
        self._inbox.put(self._look_for_timers)
        self._inbox.put(self._watch)
        self._thread = Thread(target=self._run, name="persist-effects flows", daemon=True)
        self._thread.start()

    # For others

    def start(
        self,
        flow: Callable[..., Effect[Any]],
        flow_id: str,
        *args: Any,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """Begin a flow. The same id with the same arguments is the same flow: nothing happens.

        Args:
            flow: The flow. The host has it from now on.
            flow_id: Its id.
            args: Its arguments.
            tags: By which it is found in lists.

        Returns:
            Whether it was begun now.

        Raises:
            FlowExists: If there is another flow of this id.
            InvalidRequest: If the host has another flow of this name and version, or something cannot be kept.
        """
        self._flows.add(flow)
        is_new = self._store.run(flows_.begin(flow_id, flow, *args, tags=tags, token=self.token))
        # One that was there may be this host's, and not taken up: where an interrupt came here, or an answer was lost.
        self._inbox.put(partial(self._loop.take_up if is_new else self._look_at, flow_id))
        return is_new

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
        return self._store.run(self._result(flow_id, timeout))

    async def aresult(self, flow_id: str, timeout: float | None = None) -> Any:
        """Wait for a flow's result in a task, of asyncio or trio: see `result`."""
        return await self._store.arun(self._result(flow_id, timeout))

    def _result(self, flow_id: str, timeout: float | None) -> Effect[Any]:
        standing = yield from flows_.status(flow_id)
        try:
            returns = self._flows.of(flow_id, standing.flow, standing.version).returns
        except flows_.NoSuchFlow:
            returns = Any
        return (yield from flows_.wait_for(flow_id, timeout=timeout, returns=returns, errors=self._errors))

    def status(self, flow_id: str) -> FlowStatus:
        """How a flow stands. Raises `NoSuchFlow` if it was never begun."""
        return self._store.run(flows_.status(flow_id))

    def list(self, **wanted: Any) -> list[FlowStatus]:
        """Flows, by their ids: see `persist_effects.flow.listing` for what can be asked for."""
        return self._store.run(flows_.listing(**wanted))

    def close(self) -> None:
        """Stop. Flows that go on are not cancelled: they are taken up again by the next host. Again: nothing."""
        if not self._is_closing:
            self._is_closing = True
            self._inbox.put(None)
            self._thread.join()
            self._activities.close()
            self._leases.close()

    def __enter__(self) -> "FlowHost":
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # The thread of the flows

    def _run(self) -> None:
        try:
            while not self._is_closing:
                self._take_in()
                self._loop.turn()
        except BaseException as error:
            self._failure = error
            if not isinstance(error, StoreClosed):
                raise
        finally:
            if self._end_watch is not None:
                self._end_watch()
            self._loop.close()

    def _take_in(self) -> None:
        """Do what others have put here, and what is due by now; wait for it where there is nothing else to do."""
        while self._to_take and self._loop.active < AT_ONCE:
            self._loop.take_up(self._to_take.popleft())
        seconds = self._seconds_left() if self._loop.is_idle else 0.0
        try:
            job = self._inbox.get(timeout=seconds) if seconds else self._inbox.get_nowait()
            while True:
                if job is not None:
                    job()
                job = self._inbox.get_nowait()
        except Empty:
            pass
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            heappop(self._heap)[2]()

    def _seconds_left(self) -> float | None:
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def _later(self, seconds: float, job: Callable[[], None]) -> None:
        heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), job))

    def _ask(self, requests: Sequence[Request[Any]]) -> Sequence[Outcome]:
        handlers = self._store.handlers
        if len(requests) == 1:
            return [machine.outcome_of(requests[0], handlers)]
        return cast(Sequence[Outcome], handlers[AllOf](AllOf(parts_in(requests, [here] * len(requests)))))

    def _answer(self, request: Request[Any]) -> Any:
        outcome = machine.outcome_of(request, self._store.handlers)
        if isinstance(outcome, Answered):
            return outcome.value
        raise outcome.error

    def _conductor(self, flow_id: str) -> Effect[Finished]:
        return conduct(flow_id, self._flows, self.token, errors=self._errors, result_limit_bytes=self._limit_bytes)

    # What flows ask for outside

    def begin(self, asked: Await) -> None:
        """Begin what a flow asks for, and forget what it has withdrawn."""
        flow_id = asked.flow_id
        try:
            for started in asked.calls:
                self._activities.check(started.call)
        except InvalidRequest as error:
            self._loop.let_go(flow_id)
            self._halt(flow_id, error)
            return
        for path in asked.withdrawn:
            self._activities.forget(flow_id, path)
        for started in asked.calls:
            self._activities.start(flow_id, started)
        if asked.timers:
            now = self._answer(Now())
            for timer in asked.timers:
                self._set_timer(flow_id, timer.path, timer.due, now)
        held = self._loop.held[flow_id]
        # What came for it meanwhile would be lost with it.
        if len(self._loop.held) > self._held_limit and not held.calls and not held.arrivals:
            now = self._answer(Now())
            # One whose timer is due would be read again for it, and let go of again, for ever.
            if all(due > now for due in held.asked.values()):
                self._loop.let_go(flow_id)

    def left(self, flow_id: str, end: Finished | Exception) -> None:
        """See to a flow that is no longer held."""
        if isinstance(end, Finished | OwnershipLost):
            self._pauses.pop(flow_id, None)
        elif isinstance(end, StoreClosed):
            raise end
        elif isinstance(end, _PASSING):
            # The store's trouble, and not the flow's.
            pause = self._pauses[flow_id] = min(
                2 * self._pauses.get(flow_id, _TRY_AGAIN_SECONDS / 2), _TRY_AGAIN_SECONDS_MAX
            )
            self._later(pause, partial(self._to_take.append, flow_id))
        else:
            self._halt(flow_id, end)

    def _halt(self, flow_id: str, error: Exception) -> None:
        """Have others see why a flow does not go on. It is taken up again when a host begins, or someone retries it."""
        try:
            entry = self._answer(KvGet(journal.OPEN + flow_id))
            if entry is None:
                return
            standing = msgspec.convert(entry.value, Open)
            told = f"{type(error).__name__}: {text_of(error)}"[:2000]
            halted = msgspec.structs.replace(standing, state=journal.HALTED, error=told)
            self._answer(KvPut(journal.OPEN + flow_id, halted, entry.revision))
        except _PASSING:
            self._later(_TRY_AGAIN_SECONDS, partial(self._halt, flow_id, error))

    def _deliver(self, flow_id: str, came: Came) -> None:
        held = self._loop.held.get(flow_id)
        if held is not None:
            held.calls.discard(came.path)
            self._loop.deliver(flow_id, came)

    # Timers

    def _set_timer(self, flow_id: str, path: tuple[int, ...], due: int, now: int) -> None:
        seconds = (due - now) / 1e6
        if seconds <= HORIZON_SECONDS:
            self._later(max(0.0, seconds), partial(self._is_due, flow_id, path, due))

    def _is_due(self, flow_id: str, path: tuple[int, ...], due: int) -> None:
        held = self._loop.held.get(flow_id)
        if held is None:
            self._look_at(flow_id)
            return
        if held.asked.get(path) != due:
            return
        now = self._answer(Now())
        if now < due:
            # The clocks do not go alike.
            self._set_timer(flow_id, path, due, now)
            return
        del held.asked[path]
        self._loop.deliver(flow_id, Came(path))

    def _look_for_timers(self) -> None:
        """Find the timers that are due soon, by their keys."""
        try:
            now = self._answer(Now())
            found = self._store.run(flows_.due_before(now + int(HORIZON_SECONDS * 1e6)))
        except _PASSING:
            self._later(_TRY_AGAIN_SECONDS, self._look_for_timers)
            return
        for due, flow_id, path in found:
            held = self._loop.held.get(flow_id)
            self._set_timer(flow_id, path, due if held is None else held.asked.get(path, due), now)
        self._later(HORIZON_SECONDS / 2, self._look_for_timers)

    # Flows to take up

    def _look_for_flows(self) -> None:
        """Take up all flows that go on and are nobody's, or this host's."""
        try:
            alive = self._leases.alive()
            for each, owner in self._store.run(flows_.owners()):
                if each not in self._loop.held and (owner == self.token or owner not in alive):
                    self._to_take.append(each)
        except _PASSING:
            self._later(_TRY_AGAIN_SECONDS, self._look_for_flows)

    def _look_at(self, flow_id: str) -> None:
        """Take a flow up, if it goes on and is nobody's, or this host's."""
        try:
            standing = self._store.run(kv.get(journal.OPEN + flow_id))
            owner = b"" if standing is None else msgspec.convert(standing, Open).owner
            if standing is not None and (owner == self.token or owner not in self._leases.alive()):
                self._to_take.append(flow_id)
        except _PASSING:
            self._later(_TRY_AGAIN_SECONDS, partial(self._look_at, flow_id))

    def _watch(self) -> None:
        """Read the messages that came to inboxes, and wait for more."""
        if self._end_watch is not None:
            self._end_watch()
            self._end_watch = None
        try:
            while True:
                page = self._answer(ReadAll(self._position, journal.INBOX))
                for flow_id in dict.fromkeys(event.stream.removeprefix(journal.INBOX) for event in page.events):
                    if not self._loop.deliver(flow_id, Came(())):
                        self._look_at(flow_id)
                self._position = page.next
                if page.next >= page.head:
                    break
            watch = getattr(self._store.interpreter, "watch", None)
            if watch is None:
                self._later(_LOOK_AGAIN_SECONDS, self._watch)
            else:
                told = partial(self._inbox.put, self._watch)
                self._end_watch = watch(Wait(self._position, journal.INBOX), told)
        except _PASSING:
            self._later(_TRY_AGAIN_SECONDS, self._watch)


_LOOK_AGAIN_SECONDS = 0.05
"""How often messages are looked for where a store cannot tell of them."""
