"""Programs in the tasks of an event loop, asyncio's or trio's: how `Store.arun` answers their requests."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

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


class TaskRunner:
    """Answers what never blocks in the event loop's thread, async rows by awaiting them, the rest in worker threads."""

    def __init__(self, store: "Store") -> None:
        self._handlers = store.handlers
        self._effects = store.effects
        # A wait is not for the threads, where it could not be cancelled.
        self._batched = store.batched - {Wait}
        self._gathering: anyio.lowlevel.RunVar[_Gathering] = anyio.lowlevel.RunVar("persist_effects_gathering")
        self._watch = getattr(store.interpreter, "watch", None)
        self._inline_rows = _rows_that_never_block(store)

    async def run(self, program: Effect[A]) -> A:
        """Drive a program to its end in the running task."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        turn = _Turn(self._inline_rows)
        step = machine.start(program, turn)
        while isinstance(step, Suspended):
            try:
                answer = await self._answer(step.request, turn)
            except BaseException as error:
                turn.is_cancelled = turn.is_cancelled or isinstance(error, anyio.get_cancelled_exc_class())
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
        if kind in self._batched:
            return await self._gathered(request)
        if isinstance(request, Wait) and Wait in self._handlers:
            return await self._wait(request)
        if isinstance(request, AllOf):
            return await self._outcomes(request.requests, turn)
        if kind not in self._handlers:
            raise UnhandledEffect(request.op, kind.__name__)
        return await _in_thread(self._handlers[kind], request, turn)

    async def _gathered(self, request: Request[Any]) -> Any:
        gathering = self._gathering.get(None)
        if gathering is None:
            gathering = _Gathering(self._handlers[AllOf])
            self._gathering.set(gathering)
        return await gathering.answer(request)

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
        batched = iter(await _in_thread(self._handlers[AllOf], AllOf(batch), turn) if batch else ())
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
    """

    def __init__(self, rows: Handlers) -> None:
        self.is_cancelled = False
        self._rows = rows
        self._left = TURN_REQUESTS

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


async def _in_thread(row: Handler, request: Request[Any], turn: _Turn) -> Any:
    with anyio.CancelScope(shield=turn.is_cancelled):
        return await anyio.to_thread.run_sync(row, request)


class _Asked:
    """A request of a task, and its outcome once it is there."""

    __slots__ = ("outcome", "request")

    def __init__(self, request: Request[Any]) -> None:
        self.request = request
        self.outcome: Outcome | None = None


class _Gathering:
    """The requests with which tasks of one event loop wait. They go to the store together, so one sync serves all.

    Whoever finds none on their way sends those that wait; what is asked meanwhile is the next lot.
    """

    def __init__(self, answer_all_of: Handler) -> None:
        self._answer_all_of = answer_all_of
        self._waiting: list[_Asked] = []
        self._is_sending = False
        self._sent = anyio.Event()

    async def answer(self, request: Request[Any]) -> Any:
        """The answer to a request, or its error raised. What has begun is not abandoned when the task is cancelled."""
        asked = _Asked(request)
        self._waiting.append(asked)
        with anyio.CancelScope(shield=True):
            while asked.outcome is None:
                if self._is_sending:
                    await self._sent.wait()
                else:
                    await self._send()
        outcome = asked.outcome
        assert outcome is not None, "the loop ends with an outcome"
        if isinstance(outcome, Failed):
            raise outcome.error
        return outcome.value

    async def _send(self) -> None:
        self._is_sending = True
        try:
            # Tasks that are ready to run get to add theirs.
            await anyio.lowlevel.checkpoint()
            lot, self._waiting = self._waiting, []
            request = AllOf(tuple(asked.request for asked in lot))
            for asked, outcome in zip(lot, await anyio.to_thread.run_sync(self._outcomes, request), strict=True):
                asked.outcome = outcome
        finally:
            self._is_sending = False
            sent, self._sent = self._sent, anyio.Event()
            sent.set()

    def _outcomes(self, request: AllOf) -> list[Outcome]:
        try:
            outcomes: list[Outcome] = self._answer_all_of(request)
        except Exception as error:
            outcomes = [Failed(error) for _ in request.requests]
        return outcomes


def _rows_that_never_block(store: "Store") -> Handlers:
    rows: dict[type[Request[Any]], Handler] = {}
    for source in (store.interpreter, store.blobs):
        if not getattr(source, "blocking", True):
            rows.update(source.handlers)
    # A row of the user's own in the place of the store's may block.
    return {kind: row for kind, row in rows.items() if kind is not Wait and store.handlers.get(kind) == row}


def _from_any_thread(callback: Callable[[], object]) -> Callable[[], None]:
    """A function that any thread may call, to have ``callback`` called soon in the running event loop."""
    native: Any = anyio.lowlevel.current_token().native_token
    call_soon = native.call_soon_threadsafe if hasattr(native, "call_soon_threadsafe") else native.run_sync_soon

    def call() -> None:
        # The loop may have ended since; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            call_soon(callback)

    return call
