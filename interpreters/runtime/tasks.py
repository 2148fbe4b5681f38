"""Programs in the tasks of an event loop, asyncio's or trio's: how `Store.arun` answers their requests."""

import asyncio
import contextlib
import contextvars
import inspect
import math
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from interpreters.clocks import ClockRow
from interpreters.runtime.flights import Flight, out_of_range
from interpreters.runtime.interpreter import Composed, OnOutcome, Submit
from interpreters.runtime.sleeping import Sleepers, left_of
from interpreters.threads import forks
from interpreters.threads.background import BackgroundThread
from interpreters.threads.gates import pauses, wait_in_slices
from persist_effects import machine
from persist_effects.contexts import RunIn, here, runs_of
from persist_effects.errors import StoreUnavailable, UnhandledEffect
from persist_effects.machine import Effect, Handler, Handlers, Suspended
from persist_effects.requests import (
    WAITS,
    AllOf,
    Answered,
    Failed,
    KvWait,
    Outcome,
    Request,
    Sleep,
    Wait,
    at_once,
)
from persist_effects.rows import is_async_row, is_program_row

A = TypeVar("A")

TURN_REQUESTS = 64
"""How many requests a program may have answered in the loop's thread before the other tasks get their turn.

That is a tenth of a millisecond or two, as long as giving way costs next to nothing beside them.
"""

_NO_ROWS: Handlers = {}

_IDLE_SECONDS = 2.0
"""How long a thread is kept for the next lot."""


class TaskRunner:
    """Answers what never blocks in the event loop's thread, async rows by awaiting them, the rest in worker threads."""

    def __init__(self, composed: Composed) -> None:
        self._handlers = composed.handlers
        self._effects = composed.effects
        # A wait is not for the threads, where it could not be cancelled.
        self._batched = composed.batched - WAITS
        # What each thread keeps of the loops that run in it. No other thread touches it.
        self._own = threading.local()
        self._submit = composed.submit
        self._watch = getattr(composed.interpreter, "watch", None)
        self._sleepers = composed.sleepers
        self._inline_rows = _rows_that_never_block(composed)
        # Where the store's own rows block, the machine stops at every request, and need not ask which ones do.
        self._is_inline = not getattr(composed.interpreter, "blocking", True)

    async def run(self, program: Effect[A]) -> A:
        """Drive a program to its end in the running task."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        turn = _Turn(self._inline_rows)
        value = await self._drive(program, turn)
        turn.raise_cancellation_that_comes_once()
        return value

    async def _drive(self, program: Effect[A], turn: "_Turn") -> A:
        step = machine.start(program, turn if self._is_inline else _NO_ROWS)
        while isinstance(step, Suspended):
            try:
                turn.raise_late_cancellation()
                request = step.request
                if type(request) in self._batched:
                    answer = _value_of(*await self._loop().outcomes((request,), turn))
                else:
                    answer = await self._answer(request, turn)
            except GeneratorExit:
                # The task is thrown away, and nothing can be awaited any more.
                step.close()
                raise
            except BaseException as error:
                turn.is_cancelled = turn.is_cancelled or turn.is_by_cancellation(error)
                step = step.throw(error)
            else:
                step = step.resume(answer)
                # It may be a page of events, and while the next one is read there should be no other.
                del answer
        return step.value

    async def _answer(self, request: Request[Any], turn: "_Turn") -> Any:
        kind = type(request)
        if kind in self._inline_rows:
            await turn.give_way_if_over()
            return turn[kind](request)
        if kind in self._effects:
            return await self._answer_as_user(request, turn)
        if isinstance(request, Sleep) and self._sleepers is not None:
            with turn.shield():
                return await _sleep(request, self._sleepers)
        if isinstance(request, Wait | KvWait) and kind in self._handlers:
            with turn.shield():
                return await self._wait(request, turn)
        if isinstance(request, AllOf):
            return await self._outcomes(request, turn)
        if kind not in self._handlers:
            raise UnhandledEffect(request.op, kind.__name__)
        return await _in_thread(self._answer_in_thread, request, turn)

    def _answer_in_thread(self, request: Request[Any]) -> Any:
        outcome = machine.outcome_of(request, self._handlers)
        return _value_of(outcome)

    def _loop(self) -> "_Loop | _SubmittingLoop":
        """What is kept for the running event loop."""
        native = _running_loop()
        try:
            loops: WeakKeyDictionary[Any, _Loop | _SubmittingLoop] = self._own.loops
        except AttributeError:
            loops = self._own.loops = WeakKeyDictionary()
        loop = loops.get(native)
        if loop is None:
            for ended in [one for one in loops if _is_closed(one)]:
                # What its tasks waited for at the end would keep it.
                del loops[ended]
            loop = _Loop(self._handlers[AllOf]) if self._submit is None else _SubmittingLoop(self._submit)
            loops[native] = loop
        return loop

    async def _answer_as_user(self, request: Request[Any], turn: "_Turn") -> Any:
        row = self._effects[type(request)]
        if is_program_row(row):
            # A part of this one, which may ask what is awaited.
            return await self._drive(row(request), turn)
        if is_async_row(row):
            answer = row(request)
        else:
            # In a list, because trio lets no thread give a coroutine back.
            (answer,) = await _in_thread(lambda given: [row(given)], request, turn)
        if inspect.isawaitable(answer):
            with turn.shield():
                return await answer
        return answer

    async def _outcomes(self, request: AllOf, turn: "_Turn") -> list[Outcome]:
        """Each part's outcome, in the context that asks it. What the interpreter can batch is answered together.

        Who sleeps does so while the others are answered, and all of them at once.
        """
        parts, runs, began = request.requests, list(runs_of(request)), anyio.current_time()
        batch = tuple(part for part in parts if type(part) in self._batched)
        batched = iter(await self._loop().outcomes(batch, turn) if batch else ())
        if len(batch) < len(parts):
            # What else was asked may take long.
            turn.raise_late_cancellation()
        outcomes: dict[int, Outcome] = {}
        for index in sorted(range(len(parts)), key=lambda index: isinstance(parts[index], Sleep)):
            part = parts[index]
            if type(part) in self._batched:
                outcomes[index] = next(batched)
            else:
                left = part if self._sleepers is None else left_of(part, anyio.current_time() - began)
                outcomes[index] = await self._outcome(left, runs[index], turn)
        return [outcomes[index] for index in range(len(parts))]

    async def _outcome(self, request: Request[Any], run_in: RunIn, turn: "_Turn") -> Outcome:
        try:
            if run_in is here or type(request) not in self._effects:
                return Answered(await self._answer(request, turn))
            return Answered(await _stepped(run_in, self._answer(request, turn)))
        except Exception as error:
            return Failed(error)

    async def _wait(self, request: Wait | KvWait, turn: "_Turn") -> Any:
        if self._watch is None:
            return await self._wait_in_thread(request, self._handlers[type(request)])
        past = anyio.Event()
        deadline = anyio.current_time() + request.timeout
        question = at_once(request)
        end_watch = self._watch(request, partial(_call_soon, _running_loop(), past.set))
        try:
            for pause in pauses():
                with anyio.move_on_after(min(pause, deadline - anyio.current_time())):
                    await past.wait()
                if past.is_set() or anyio.current_time() >= deadline:
                    break
                # What the watch was to tell may have been lost.
                if await self._newest(question, turn) > request.after:
                    break
        finally:
            end_watch()
        return await self._newest(question, turn)

    async def _newest(self, question: Wait | KvWait, turn: "_Turn") -> Any:
        """What a wait is answered at once: where the store is far away, other tasks go on meanwhile."""
        if self._submit is None:
            return self._handlers[type(question)](question)
        (outcome,) = await self._loop().outcomes((question,), turn)
        return _value_of(outcome)

    async def _wait_in_thread(self, request: Wait | KvWait, answer: Handler) -> Any:
        """Where a store watches nothing: in a thread, which ends soon after this task was cancelled."""
        is_given_up = False

        def ask(seconds: float) -> int:
            newest: int = answer(msgspec.structs.replace(request, timeout=seconds))
            return newest

        def wait() -> int:
            return wait_in_slices(ask, request.after, request.timeout, lambda: is_given_up)

        try:
            return await anyio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=self._loop().waits)
        finally:
            is_given_up = True


class _Turn(Mapping[type[Request[Any]], Handler]):
    """The rows that never block, for so many requests of one program; then none, so that the machine stops there.

    ``is_cancelled``: the task is cancelled already, and what the program performs is part of its cleaning up.
    ``late_cancellation``: one that came while a request was on its way, of which the program has not been told; that
    of a scope ``comes_again`` at each checkpoint, an `asyncio.Task.cancel` only once.
    """

    __slots__ = ("_left", "_rows", "cancelled", "comes_again", "is_cancelled", "late_cancellation")

    def __init__(self, rows: Handlers) -> None:
        # Asked for here, because a coroutine may be thrown away where no loop runs.
        self.cancelled = anyio.get_cancelled_exc_class()
        self.is_cancelled = False
        self.late_cancellation: BaseException | None = None
        self.comes_again = False
        self._rows = rows
        self._left = TURN_REQUESTS

    def shield(self) -> AbstractContextManager[object]:
        """Keeps a cancellation away from what the program performs while it cleans up after one."""
        return anyio.CancelScope(shield=True) if self.is_cancelled else contextlib.nullcontext()

    def is_by_cancellation(self, error: BaseException) -> bool:
        """Whether the task itself is cancelled. A row may also meet the cancellation of something that it awaits."""
        return isinstance(error, self.cancelled) and _is_task_cancelled()

    def raise_late_cancellation(self) -> None:
        """Tell the program of it, once."""
        if self.late_cancellation is not None and not self.is_cancelled:
            error, self.late_cancellation = self.late_cancellation, None
            raise error

    def raise_cancellation_that_comes_once(self) -> None:
        """At a program's end: nobody else would."""
        if not self.comes_again:
            self.raise_late_cancellation()

    async def keep_until(
        self, event: "asyncio.Event | anyio.Event", see_to_it: Callable[[], None], cancellation: BaseException
    ) -> None:
        """Wait for an event until it comes. The cancellation, or one that comes meanwhile, is kept for later.

        At each cancellation ``see_to_it()`` makes sure that it will come: the task may have been cancelled because an
        interrupt has ended the event loop, and that loses the callback which it came into.
        """
        self.late_cancellation, self.comes_again = cancellation, anyio.current_effective_deadline() == -math.inf
        while not event.is_set():
            see_to_it()
            # Past the shield comes no cancelled scope, but another `asyncio.Task.cancel`.
            with anyio.CancelScope(shield=True):
                try:
                    await event.wait()
                except self.cancelled as another:
                    self.late_cancellation, self.comes_again = another, False

    async def give_way_if_over(self) -> None:
        """Let other tasks run, and a cancellation arrive, if this turn is over; then begin another."""
        if not self._left:
            self._left = TURN_REQUESTS
            with self.shield():
                await anyio.lowlevel.checkpoint()

    def __getitem__(self, kind: type[Request[Any]]) -> Handler:
        if not self._left:
            raise KeyError(kind)
        row = self._rows[kind]
        self._left -= 1
        return row

    def __iter__(self) -> Iterator[type[Request[Any]]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


@types.coroutine
def _stepped(run_in: RunIn, steps: Coroutine[Any, Any, A]) -> Generator[Any, Any, A]:
    """Await something in a context, in the running task: of a task of its own, a cancellation would be another one."""
    go_on: Callable[[Any], Any] = steps.send
    value: Any = None
    try:
        while True:
            found = run_in(go_on, value)
            try:
                go_on, value = steps.send, (yield found)
            except GeneratorExit:
                run_in(steps.close)
                raise
            except BaseException as error:
                go_on, value = steps.throw, error
    except StopIteration as end:
        return cast(A, end.value)


async def _sleep(request: Sleep, sleepers: Sleepers) -> None:
    """Sleep in the event loop, until the store is closed at the longest."""
    woken = anyio.Event()
    deadline = anyio.current_time() + request.seconds
    end_watch = sleepers.watch(partial(_call_soon, _running_loop(), woken.set))
    try:
        for pause in pauses():
            left = deadline - anyio.current_time()
            with anyio.move_on_after(min(pause, left)):
                await woken.wait()
            # What was to be told may have been lost.
            if sleepers.is_closed or left <= pause:
                break
    finally:
        end_watch()
    sleepers.check_open()


def _value_of(outcome: Outcome) -> Any:
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome.value


async def _in_thread(row: Handler, request: Request[Any], turn: _Turn) -> Any:
    with turn.shield():
        return await anyio.to_thread.run_sync(row, request)


class _Lot:
    """Requests that go to the store together, and their outcomes once they are there."""

    __slots__ = ("_loop", "answered", "claim", "is_scheduled", "outcomes", "requests")

    def __init__(self) -> None:
        # Not held: the lot is kept for as long as the loop is there.
        self._loop = weakref.ref(_running_loop())
        self.requests: list[Request[Any]] = []
        self.outcomes: list[Outcome] = []
        self.answered = _new_event()
        self.is_scheduled = False
        # Taken by whoever answers it: the worker, or who could not give it to the worker.
        self.claim = threading.Lock()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have something called in the event loop, from any thread. Where it has ended, nobody waits any more."""
        loop = self._loop()
        if loop is not None:
            _call_soon(loop, callback)


class _Loop:
    """The requests with which tasks of one event loop wait. They go to the store together, so one sync serves all.

    While a lot is on its way, in a thread, what is asked is the next lot. No task sends them, because a task may be
    cancelled at any moment, and the others would wait for ever: the loop itself does.
    """

    def __init__(self, answer_all_of: Handler) -> None:
        self._answer_all_of = answer_all_of
        self._next: _Lot | None = None
        self._is_sending = False
        self._worker = _Worker()
        weakref.finalize(self, self._worker.end)
        self.waits = anyio.CapacityLimiter(math.inf)
        """For waits that each take a thread of their own, and should not keep others from having one."""

    async def outcomes(self, requests: Sequence[Request[Any]], turn: _Turn) -> list[Outcome]:
        """The outcomes of these requests. What has begun is not abandoned when the task is cancelled."""
        lot = self._next
        if lot is None:
            lot = self._next = _Lot()
        if not lot.is_scheduled and not self._is_sending:
            self._schedule(lot)
        # After that, so that a Ctrl-C in between leaves no request behind that is never sent.
        start = len(lot.requests)
        lot.requests += requests
        try:
            await lot.answered.wait()
        except turn.cancelled as cancellation:
            await turn.keep_until(lot.answered, partial(self._see_to, lot), cancellation)
        return lot.outcomes[start : start + len(requests)]

    def _schedule(self, lot: _Lot) -> None:
        # Not at once: tasks that are ready to run get to add theirs.
        lot.call_soon(partial(self._send, lot))
        lot.is_scheduled = True

    def _send(self, lot: _Lot) -> None:
        if lot is not self._next:
            return
        self._next, self._is_sending = None, True
        try:
            self._worker.do(partial(self._answer, lot))
        except BaseException as error:
            # An interrupt may also have come when the worker had it already.
            if lot.claim.acquire(blocking=False):
                refused = StoreUnavailable(
                    f"no thread could be started to ask the store: {str(error) or type(error).__name__}"
                )
                lot.outcomes = [Failed(refused) for _ in lot.requests]
                self._arrived(lot)
            if not isinstance(error, RuntimeError):
                raise

    def _see_to(self, lot: _Lot) -> None:
        """Do what a callback should have done for a lot, where the event loop has lost it."""
        if lot.outcomes:
            self._arrived(lot)
        elif lot is self._next and not self._is_sending:
            self._schedule(lot)

    def _answer(self, lot: _Lot) -> None:
        if not lot.claim.acquire(blocking=False):
            return
        request = AllOf(tuple(lot.requests))
        try:
            lot.outcomes = self._answer_all_of(request)
        except BaseException as error:
            # Whatever it is, it must not leave them waiting.
            lot.outcomes = [Failed(cast(Exception, error)) for _ in request.requests]
        lot.call_soon(partial(self._arrived, lot))

    def _arrived(self, lot: _Lot) -> None:
        if lot.answered.is_set():
            return
        self._is_sending = False
        lot.answered.set()
        if self._next is not None:
            self._schedule(self._next)


class _Arrivals:
    """The events of those whose outcomes have come, in whichever thread, until the event loop sets them.

    It is told once for all that come before it looks: each time, the thread that tells would give way to it.
    """

    def __init__(self) -> None:
        # Not held, because the store keeps what is in flight.
        self._loop = weakref.ref(_running_loop())
        self._come: deque[asyncio.Event | anyio.Event] = deque()
        self._is_told = False

    def add(self, all_there: "asyncio.Event | anyio.Event") -> None:
        """From any thread: have an event set soon."""
        self._come.append(all_there)
        loop = self._loop()
        if not self._is_told and loop is not None:
            self._is_told = True
            _call_soon(loop, self.take)

    def take(self) -> None:
        """In the loop: set them. An interrupt may lose the call of this, so whoever submits more makes it too."""
        # Before any is taken out, so that who comes from now on tells anew.
        self._is_told = False
        while self._come:
            self._come.popleft().set()


class _Party:
    """The requests of one task that are, or will be, in flight, and what it waits for until all have come."""

    __slots__ = ("_arrivals", "all_there", "flight", "requests")

    def __init__(self, requests: Sequence[Request[Any]], arrivals: _Arrivals) -> None:
        self.requests = requests
        self.all_there = _new_event()
        self._arrivals = arrivals
        self.flight = Flight(len(requests), self._tell)

    def _tell(self) -> None:
        self._arrivals.add(self.all_there)


def _shared_out(parties: Sequence[_Party]) -> OnOutcome:
    """Gives each party its share of the outcomes of requests that were submitted one party's after another's."""
    places = [(party.flight, index) for party in parties for index in range(len(party.requests))]

    def done(place: int, outcome: Outcome) -> None:
        if not 0 <= place < len(places):
            raise out_of_range(place, len(places))
        flight, index = places[place]
        flight.done(index, outcome)

    return done


class _SubmittingLoop:
    """As `_Loop`, for a store that takes requests and answers them later: none waits for what was sent before it.

    What tasks ask between two turns of the event loop is submitted together, so that the store may make one commit
    of it. The loop itself submits it, because a task may be cancelled at any moment.
    """

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._arrivals = _Arrivals()
        self._next: list[_Party] = []
        # What several tasks ask is submitted in the context of none of them.
        self._context = contextvars.Context()
        self.waits = anyio.CapacityLimiter(math.inf)
        """For waits that each take a thread of their own, and should not keep others from having one."""

    async def outcomes(self, requests: Sequence[Request[Any]], turn: _Turn) -> list[Outcome]:
        """The outcomes of these requests. What has begun is not abandoned when the task is cancelled."""
        party = _Party(requests, self._arrivals)
        if not self._next:
            # Before it is added, so that a Ctrl-C in between leaves no request behind that is never sent.
            _call_soon(_running_loop(), partial(self._context.run, self._send))
        self._next.append(party)
        try:
            await party.all_there.wait()
        except turn.cancelled as cancellation:
            await turn.keep_until(party.all_there, partial(self._see_to, party), cancellation)
        return party.flight.outcomes()

    def _send(self) -> None:
        parties = self._next
        try:
            self._next = []
            self._arrivals.take()
            if parties:
                self._submit([request for party in parties for request in party.requests], _shared_out(parties))
        except BaseException as error:
            # Those that an interrupt kept from being submitted must not be submitted later either.
            self._next = [party for party in self._next if party not in parties]
            for party in parties:
                party.flight.fail_the_rest(error)
            if not isinstance(error, Exception):
                raise

    def _see_to(self, party: _Party) -> None:
        """Do what a callback should have done for a party, where the event loop has lost it."""
        if party.flight.is_complete():
            party.all_there.set()
        elif party in self._next:
            self._send()


class _Worker:
    """Does one job after the other in a thread, which is there while there are some, and a while longer.

    The thread is nobody's to join, so that it works also after the main thread has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_there = False
        forks.register(self)

    def state_lock(self) -> None:
        """A child begins anew, so no fork waits for it."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: the thread and its jobs are the parent's."""
        self._lock, self._jobs, self._is_there = threading.Lock(), SimpleQueue(), False

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done. Raises RuntimeError where the system has no more threads."""
        with self._lock:
            if not self._is_there:
                thread = BackgroundThread(self._work, "persist-effects")
                try:
                    thread.start()
                finally:
                    self._is_there = thread.is_begun
            self._jobs.put(job)

    def end(self) -> None:
        """Let the thread end, now that no more jobs come."""
        self._jobs.put(None)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except Empty:
                job = None
            if job is None:
                with self._lock:
                    if self._jobs.empty():
                        self._is_there = False
                        return
            else:
                job()
                # It holds answers, which should not be kept until the next one.
                del job


def _rows_that_never_block(composed: Composed) -> Handlers:
    rows: dict[type[Request[Any]], Handler] = {
        kind: row for kind, row in composed.handlers.items() if isinstance(row, ClockRow)
    }
    for source in (composed.interpreter, composed.blobs):
        if not getattr(source, "blocking", True):
            rows.update(source.handlers)
    # A row of the user's own in the place of the store's may block.
    return {
        kind: row
        for kind, row in rows.items()
        if kind not in WAITS and composed.handlers.get(kind) == row and not is_program_row(row)
    }


def _new_event() -> "asyncio.Event | anyio.Event":
    """An event of the running loop. A thousand tasks wait, each in a coroutine less where it is asyncio's own."""
    return asyncio.Event() if _is_in_asyncio() else anyio.Event()


def _call_soon(loop: Any, callback: Callable[[], object]) -> None:
    """Have something called in an event loop, asyncio's or trio's, from any thread."""
    call_soon = loop.call_soon_threadsafe if hasattr(loop, "call_soon_threadsafe") else loop.run_sync_soon
    # The loop may have ended since; then nobody waits any more.
    with contextlib.suppress(RuntimeError):
        call_soon(callback)


def _is_closed(loop: Any) -> bool:
    """Whether it is a loop of asyncio's that was closed. What stands for one of trio's holds nothing."""
    return hasattr(loop, "is_closed") and bool(loop.is_closed())


def _is_task_cancelled() -> bool:
    """Whether the running task is cancelled: by a scope around it, or by itself."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task() if _is_in_asyncio() else None
    return task is not None and task.cancelling() > 0


def _is_in_asyncio() -> bool:
    """Whether a task of asyncio runs here, not one of trio."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _running_loop() -> Any:
    """What stands for the running event loop. asyncio is asked itself, because to ask anyio takes ten times as long."""
    return asyncio.get_running_loop() if _is_in_asyncio() else anyio.lowlevel.current_token().native_token
