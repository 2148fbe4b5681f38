"""Programs in the tasks of an event loop, asyncio's or trio's: how `Store.arun` answers their requests."""

import asyncio
import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread

from persist_effects import machine
from persist_effects.errors import UnhandledEffect
from persist_effects.machine import Effect, Handler, Handlers, Suspended
from persist_effects.requests import AllOf, Answered, Failed, Outcome, Request, Wait

if TYPE_CHECKING:
    from interpreters.store import Store

A = TypeVar("A")

TURN_REQUESTS = 64
"""How many requests a program may have answered in the loop's thread before the other tasks get their turn.

That is a tenth of a millisecond or two, as long as giving way costs next to nothing beside them.
"""

_NO_ROWS: Handlers = {}


class TaskRunner:
    """Answers what never blocks in the event loop's thread, async rows by awaiting them, the rest in worker threads."""

    def __init__(self, store: "Store") -> None:
        self._handlers = store.handlers
        self._effects = store.effects
        # A wait is not for the threads, where it could not be cancelled.
        self._batched = store.batched - {Wait}
        self._gatherings: WeakKeyDictionary[Any, _Gathering] = WeakKeyDictionary()
        self._watch = getattr(store.interpreter, "watch", None)
        self._inline_rows = _rows_that_never_block(store)
        # Where the store's own rows block, the machine stops at every request, and need not ask which ones do.
        self._is_inline = not getattr(store.interpreter, "blocking", True)

    async def run(self, program: Effect[A]) -> A:
        """Drive a program to its end in the running task."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        turn = _Turn(self._inline_rows)
        step = machine.start(program, turn if self._is_inline else _NO_ROWS)
        while isinstance(step, Suspended):
            try:
                turn.raise_late_cancellation()
                request = step.request
                if type(request) in self._batched:
                    answer = _value_of(*await self._gathering().outcomes((request,), turn))
                else:
                    answer = await self._answer(request, turn)
            except BaseException as error:
                turn.is_cancelled = turn.is_cancelled or isinstance(error, anyio.get_cancelled_exc_class())
                step = step.throw(error)
            else:
                step = step.resume(answer)
                # It may be a page of events, and while the next one is read there should be no other.
                del answer
        turn.raise_cancellation_that_comes_once()
        return step.value

    async def _answer(self, request: Request[Any], turn: "_Turn") -> Any:
        kind = type(request)
        if kind in self._inline_rows:
            await turn.give_way_if_over()
            return turn[kind](request)
        if kind in self._effects:
            return await self._answer_as_user(request, turn)
        if isinstance(request, Wait) and Wait in self._handlers:
            return await self._wait(request)
        if isinstance(request, AllOf):
            return await self._outcomes(request.requests, turn)
        if kind not in self._handlers:
            raise UnhandledEffect(request.op, kind.__name__)
        return await _in_thread(self._handlers[kind], request, turn)

    def _gathering(self) -> "_Gathering":
        """That of the running event loop."""
        loop = _running_loop()
        gathering = self._gatherings.get(loop)
        if gathering is None:
            gathering = self._gatherings[loop] = _Gathering(self._handlers[AllOf])
        return gathering

    async def _answer_as_user(self, request: Request[Any], turn: "_Turn") -> Any:
        row = self._effects[type(request)]
        if inspect.iscoroutinefunction(row):
            answer = row(request)
        else:
            # In a list, because trio lets no thread give a coroutine back.
            (answer,) = await _in_thread(lambda given: [row(given)], request, turn)
        if inspect.isawaitable(answer):
            with anyio.CancelScope(shield=turn.is_cancelled):
                return await answer
        return answer

    async def _outcomes(self, requests: Sequence[Request[Any]], turn: "_Turn") -> list[Outcome]:
        """Each request's outcome. What the interpreter can batch is answered first, together."""
        batch = tuple(request for request in requests if type(request) in self._batched)
        batched = iter(await self._gathering().outcomes(batch, turn) if batch else ())
        return [
            next(batched) if type(request) in self._batched else await self._outcome(request, turn)
            for request in requests
        ]

    async def _outcome(self, request: Request[Any], turn: "_Turn") -> Outcome:
        try:
            return Answered(await self._answer(request, turn))
        except Exception as error:
            return Failed(error)

    async def _wait(self, request: Wait) -> Any:
        wait = self._handlers[Wait]
        if self._watch is None:
            # The thread ends with the timeout at the latest, also when this task is cancelled before.
            return await anyio.to_thread.run_sync(wait, request, abandon_on_cancel=True)
        past = anyio.Event()
        cancel_watch = self._watch(request.after, request.prefix, _from_any_thread(past.set))
        try:
            with anyio.move_on_after(request.timeout):
                await past.wait()
        finally:
            cancel_watch()
        return wait(Wait(request.after, request.prefix, timeout=0))


class _Turn(Mapping[type[Request[Any]], Handler]):
    """The rows that never block, for so many requests of one program; then none, so that the machine stops there.

    ``is_cancelled``: the task is cancelled already, and what the program performs is part of its cleaning up.
    ``late_cancellation``: one that came while a request was on its way, of which the program has not been told.
    """

    __slots__ = ("_left", "_rows", "is_cancelled", "late_cancellation")

    def __init__(self, rows: Handlers) -> None:
        self.is_cancelled = False
        self.late_cancellation: BaseException | None = None
        self._rows = rows
        self._left = TURN_REQUESTS

    def raise_late_cancellation(self) -> None:
        """Tell the program of it, once."""
        if self.late_cancellation is not None and not self.is_cancelled:
            error, self.late_cancellation = self.late_cancellation, None
            raise error

    def raise_cancellation_that_comes_once(self) -> None:
        """At a program's end: pass on `asyncio.Task.cancel`. A cancelled scope says so again at its next checkpoint."""
        if self.late_cancellation is not None and anyio.current_effective_deadline() != -math.inf:
            self.raise_late_cancellation()

    async def give_way_if_over(self) -> None:
        """Let other tasks run, and a cancellation arrive, if this turn is over; then begin another."""
        if not self._left:
            self._left = TURN_REQUESTS
            with anyio.CancelScope(shield=self.is_cancelled):
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


def _value_of(outcome: Outcome) -> Any:
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome.value


async def _in_thread(row: Handler, request: Request[Any], turn: _Turn) -> Any:
    with anyio.CancelScope(shield=turn.is_cancelled):
        return await anyio.to_thread.run_sync(row, request)


class _Lot:
    """Requests that go to the store together, their outcomes once they are there, and how to tell the event loop."""

    __slots__ = ("answered", "call_soon", "outcomes", "requests")

    def __init__(self, call_soon: Callable[[Callable[[], object]], object]) -> None:
        self.call_soon = call_soon
        self.requests: list[Request[Any]] = []
        self.outcomes: list[Outcome] = []
        # A thousand tasks wait for it, each in a coroutine less where it is asyncio's own.
        self.answered: asyncio.Event | anyio.Event = asyncio.Event() if _is_in_asyncio() else anyio.Event()


class _Gathering:
    """The requests with which tasks of one event loop wait. They go to the store together, so one sync serves all.

    While a lot is on its way, in a thread, what is asked is the next lot. No task sends them, because a task may be
    cancelled at any moment, and the others would wait for ever: the loop itself does.
    """

    def __init__(self, answer_all_of: Handler) -> None:
        self._answer_all_of = answer_all_of
        self._next: _Lot | None = None
        self._is_sending = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="persist-effects")

    async def outcomes(self, requests: Sequence[Request[Any]], turn: _Turn) -> list[Outcome]:
        """The outcomes of these requests. What has begun is not abandoned when the task is cancelled."""
        lot = self._next
        if lot is None:
            lot = self._next = _Lot(_call_soon_from_any_thread())
            if not self._is_sending:
                self._send_soon(lot)
        start = len(lot.requests)
        lot.requests += requests
        try:
            await lot.answered.wait()
        except anyio.get_cancelled_exc_class() as cancellation:
            turn.late_cancellation = cancellation
            await _in_spite_of_cancellations(lot.answered)
        return lot.outcomes[start : start + len(requests)]

    def _send_soon(self, lot: _Lot) -> None:
        self._is_sending = True
        # Not at once: tasks that are ready to run get to add theirs.
        lot.call_soon(partial(self._send, lot))

    def _send(self, lot: _Lot) -> None:
        self._next = None
        self._thread.submit(self._answer, lot)

    def _answer(self, lot: _Lot) -> None:
        request = AllOf(tuple(lot.requests))
        try:
            lot.outcomes = self._answer_all_of(request)
        except BaseException as error:
            # Whatever it is, it must not leave them waiting.
            lot.outcomes = [Failed(cast(Exception, error)) for _ in request.requests]
        # The loop may have ended since; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            lot.call_soon(partial(self._arrived, lot))

    def _arrived(self, lot: _Lot) -> None:
        lot.answered.set()
        self._is_sending = False
        if self._next is not None:
            self._send_soon(self._next)


async def _in_spite_of_cancellations(event: asyncio.Event | anyio.Event) -> None:
    """Wait for an event until it comes, in a task that is cancelled, and perhaps again."""
    while not event.is_set():
        # A shield keeps a cancelled scope away, but not another `asyncio.Task.cancel`.
        with anyio.CancelScope(shield=True), contextlib.suppress(anyio.get_cancelled_exc_class()):
            await event.wait()


def _rows_that_never_block(store: "Store") -> Handlers:
    rows: dict[type[Request[Any]], Handler] = {}
    for source in (store.interpreter, store.blobs):
        if not getattr(source, "blocking", True):
            rows.update(source.handlers)
    # A row of the user's own in the place of the store's may block.
    return {kind: row for kind, row in rows.items() if kind is not Wait and store.handlers.get(kind) == row}


def _from_any_thread(callback: Callable[[], object]) -> Callable[[], None]:
    """A function that any thread may call, to have ``callback`` called soon in the running event loop."""
    call_soon = _call_soon_from_any_thread()

    def call() -> None:
        # The loop may have ended since; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            call_soon(callback)

    return call


def _call_soon_from_any_thread() -> Callable[[Callable[[], object]], object]:
    """The running event loop's function for this, asyncio's or trio's."""
    native = _running_loop()
    found: Callable[[Callable[[], object]], object]
    found = native.call_soon_threadsafe if hasattr(native, "call_soon_threadsafe") else native.run_sync_soon
    return found


def _is_in_asyncio() -> bool:
    """Whether a task of asyncio runs here, not one of trio."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _running_loop() -> Any:
    """What stands for the running event loop. asyncio is asked itself, because to ask anyio takes ten times as long."""
    return asyncio.get_running_loop() if _is_in_asyncio() else anyio.lowlevel.current_token().native_token
