"""Programs in the tasks of an event loop, asyncio's or trio's: how `Store.arun` answers their requests."""

import contextlib
from collections.abc import Callable
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


class TaskRunner:
    """Answers what never blocks in the event loop's thread, async rows by awaiting them, the rest in worker threads."""

    def __init__(self, store: "Store") -> None:
        self._handlers = store.handlers
        self._async_rows = store.async_rows
        self._watch = getattr(store.interpreter, "watch", None)
        self._is_batching = hasattr(store.interpreter, "answer_all")
        self._inline_rows = _rows_that_never_block(store)

    async def run(self, program: Effect[A]) -> A:
        """Drive a program to its end in the running task."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        step = machine.start(program, self._inline_rows)
        is_cancelled = False
        while isinstance(step, Suspended):
            try:
                answer = await self._answer(step.request, shield=is_cancelled)
            except BaseException as error:
                is_cancelled = is_cancelled or isinstance(error, anyio.get_cancelled_exc_class())
                step = step.throw(error)
            else:
                step = step.resume(answer)
                # It may be a page of events, and while the next one is read there should be no other.
                del answer
        return step.value

    async def _answer(self, request: Request[Any], shield: bool) -> Any:
        """``shield``: the task is cancelled already, and this is part of the program's cleaning up."""
        kind = type(request)
        if isinstance(request, Wait):
            return await self._wait(request)
        if isinstance(request, AllOf) and not self._can_batch(request):
            return [await self._outcome(part, shield) for part in request.requests]
        if kind in self._inline_rows:
            return self._inline_rows[kind](request)
        if kind not in self._handlers:
            raise UnhandledEffect(request.op)
        with anyio.CancelScope(shield=shield):
            if kind in self._async_rows:
                return await self._async_rows[kind](request)
            return await anyio.to_thread.run_sync(self._handlers[kind], request)

    def _can_batch(self, request: AllOf) -> bool:
        return self._is_batching and not any(type(part) in self._async_rows for part in request.requests)

    async def _outcome(self, request: Request[Any], shield: bool) -> Outcome:
        try:
            return Answered(await self._answer(request, shield))
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
