"""Between an event loop and a store: what came from all clients, given to the store so that the loop never waits.

===========================  ==========================================================================================
what the store calls quick   is answered at once, in the loop
all else, if it has          is submitted together, what has come in one turn of the loop
``submit``
writes                       are one ``answer_all`` in a thread: all that have come by the time the store is free
waits                        are told by the store's ``watch``, and take no thread
everything else              is answered in one of a few threads
===========================  ==========================================================================================

All methods are called in the loop's thread.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from interpreters.clocks import ClockRow
from interpreters.stores.compacting import compact_store
from interpreters.stores.served.tally import Tally
from interpreters.stores.served.wire import AskCompact, WaitForOrder
from interpreters.threads.gates import SLICE_SECONDS, Notify, pauses
from interpreters.threads.workers import Workers
from persist_effects.errors import InvalidRequest, UncertainOutcome
from persist_effects.machine import Handlers, outcome_of
from persist_effects.requests import (
    WAITS,
    WRITES,
    Answered,
    Failed,
    KvWait,
    Outcome,
    Request,
    Wait,
    at_once,
)

A = TypeVar("A")

OnAnswer = Callable[[Outcome], None]
"""Takes what came of a request, in the loop's thread."""

READER_COUNT = 4
"""How many threads answer what is neither quick nor a write."""

_Asked = tuple[Request[Any], OnAnswer]


class Answering:
    """Answers the requests of all clients of one store.

    Args:
        interpreter: The store's interpreter. What of its optional parts is used, it has.
        handlers: The table that answers; the interpreter's own rows, and those of blobs beside it.
        tally: Where its commits are counted.
        told: Called after some requests were answered.
    """

    def __init__(self, interpreter: Any, handlers: Handlers, tally: Tally, told: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._handlers = handlers
        self._tally = tally
        self._told = told
        self._interpreter = interpreter
        own = {kind for kind, row in interpreter.handlers.items() if handlers.get(kind) == row}
        of_clock = {kind for kind, row in handlers.items() if isinstance(row, ClockRow)}
        self._quick = (frozenset(getattr(interpreter, "quick", ())) & own) | of_clock
        self._submit: Callable[..., None] | None = getattr(interpreter, "submit", None)
        self._answer_all: Callable[[Sequence[Request[Any]]], list[Outcome]] | None = None
        self._together: set[type[Request[Any]]] = own - WAITS - self._quick
        if self._submit is None:
            self._answer_all = getattr(interpreter, "answer_all", None)
            self._together &= WRITES if self._answer_all else set()
        watch = getattr(interpreter, "watch", None) if own >= WAITS else None
        self._watch = _Polling(self).watch if watch is None else watch
        self._is_watch_quick = watch is None or self._quick >= WAITS
        self._pending: deque[_Asked] = deque()
        self._is_giving = False
        self._come: deque[tuple[OnAnswer, Outcome]] = deque()
        self._is_come_told = False
        self._orders: deque[_Asked] = deque()
        self._writer = Workers(1, "persist-effects writer")
        self._readers = Workers(READER_COUNT, "persist-effects reader")
        self._order_waiter = Workers(1, "persist-effects order")
        self._compactor = Workers(1, "persist-effects compaction")

    def ask(self, request: Request[Any], done: OnAnswer) -> None:
        """Have a request answered.

        Args:
            request: It must not be one that waits.
            done: Takes what comes of it, perhaps at once.
        """
        kind = type(request)
        if kind in self._quick:
            done(outcome_of(request, self._handlers))
        elif kind in self._together:
            self._pending.append((request, done))
            if not self._is_giving:
                # Not at once: what others have sent by now is to go with it.
                self._is_giving = True
                self._loop.call_soon(self._give)
        elif isinstance(request, WaitForOrder):
            self._orders.append((request, done))
            self._order_waiter.do(self._wait_for_order)
        elif isinstance(request, AskCompact):
            self._compactor.do(partial(self._compact, done))
        else:
            self._readers.do(partial(self._answer, request, done))

    async def wait(self, request: Wait | KvWait) -> Outcome:
        """Wait for what a request waits for, at most as long as it says. Cancelled, it ends.

        Args:
            request: The wait.

        Returns:
            What came of it.
        """
        told: asyncio.Future[None] = self._loop.create_future()
        deadline = self._loop.time() + request.timeout
        try:
            end_watch = await self._begin_watch(request, partial(self._call_soon, _set, told))
        except Exception as error:
            return Failed(error)
        try:
            for pause in pauses():
                left = deadline - self._loop.time()
                if left > 0:
                    await asyncio.wait([told], timeout=min(left, pause))
                outcome = await self._now(at_once(request))
                is_past = not isinstance(outcome, Answered) or outcome.value > request.after
                if is_past or told.done() or self._loop.time() >= deadline:
                    return outcome
        finally:
            end_watch()
        raise AssertionError("pauses never end")

    def end(self) -> None:
        """Wait until the threads have done what they were given, but for what clients wait for as long as they like."""
        self._order_waiter.end(may_wait=False)
        # The store waits for what goes on when it is closed.
        self._compactor.end(may_wait=False)
        for workers in (self._writer, self._readers):
            workers.end()

    # Together

    def _give(self) -> None:
        asked = self._take_pending()
        if self._submit is None:
            self._writer.do(partial(self._commit, asked))
            return
        self._is_giving = False
        self._count(asked)
        try:
            self._submit([request for request, _ in asked], partial(self._has_come, [done for _, done in asked]))
        except Exception as error:
            # Whoever has an outcome already is not told a second one.
            for _, done in asked:
                self._has_come([done], 0, Failed(error))

    def _take_pending(self) -> list[_Asked]:
        pending = self._pending
        asked = []
        # One by one, because the loop may add to it meanwhile.
        while pending:
            asked.append(pending.popleft())
        return asked

    def _count(self, asked: Sequence[_Asked]) -> None:
        self._tally.commit_count += 1
        self._tally.committed_count += len(asked)

    def _commit(self, asked: list[_Asked]) -> None:
        """In the writer's thread: commit these, then what has come meanwhile, until there is nothing."""
        assert self._answer_all is not None
        while asked:
            self._count(asked)
            try:
                outcomes = self._answer_all([request for request, _ in asked])
            except BaseException as error:
                lost = UncertainOutcome(f"the commit met {error!r}: whether it was written is not known")
                outcomes = [Failed(lost) for _ in asked]
            self._call_soon(self._settle, [done for _, done in asked], outcomes)
            asked = self._take_pending()
        self._call_soon(self._given)

    def _given(self) -> None:
        self._is_giving = False
        if self._pending:
            self._is_giving = True
            self._give()

    def _has_come(self, dones: list[OnAnswer], index: int, outcome: Outcome) -> None:
        """From any thread: one of those that were submitted has an outcome."""
        self._come.append((dones[index], outcome))
        if not self._is_come_told:
            self._is_come_told = True
            self._call_soon(self._take_come)

    def _take_come(self) -> None:
        # Before anything is taken, so that what comes from now on is told anew.
        self._is_come_told = False
        while self._come:
            done, outcome = self._come.popleft()
            done(outcome)
        self._told()

    def _settle(self, dones: Sequence[OnAnswer], outcomes: Sequence[Outcome]) -> None:
        for done, outcome in zip(dones, outcomes, strict=True):
            done(outcome)
        self._told()

    # In threads

    def _answer(self, request: Request[Any], done: OnAnswer) -> None:
        self._call_soon(self._settle, [done], [outcome_of(request, self._handlers)])

    def _compact(self, done: OnAnswer) -> None:
        outcome: Outcome
        try:
            outcome = Answered(list(compact_store(self._interpreter)))
        except Exception as error:
            outcome = Failed(error)
        self._call_soon(self._settle, [done], [outcome])

    def _wait_for_order(self) -> None:
        """In its thread: wait for all that have asked by now. What is shown to one is shown to all of them."""
        asked, began = [], time.monotonic()
        while self._orders:
            asked.append(self._orders.popleft())
        is_shown, outcomes = False, list[Outcome]()
        asked.sort(key=lambda one: one[0].timeout)  # type: ignore[attr-defined]
        for request, _ in asked:
            assert isinstance(request, WaitForOrder)
            try:
                if not is_shown:
                    self._wait_until_shown(max(0.0, began + request.timeout - time.monotonic()))
                is_shown = True
                outcomes.append(Answered(None))
            except Exception as error:
                outcomes.append(Failed(error))
        self._call_soon(self._settle, [done for _, done in asked], outcomes)

    def _wait_until_shown(self, seconds: float) -> None:
        waiting: Callable[[float], None] | None = getattr(self._interpreter, "wait_for_order", None)
        if waiting is not None:
            waiting(seconds)
        elif getattr(getattr(self._interpreter, "capabilities", None), "order_lags", False):
            raise InvalidRequest(
                f"a {type(self._interpreter).__name__} cannot tell when its order shows all that was acknowledged: it "
                "has no wait_for_order(timeout)"
            )

    def in_thread(self, job: Callable[[], A]) -> "asyncio.Future[A]":
        """Do something in one of the threads.

        Args:
            job: What may block for a while.

        Returns:
            What comes of it.
        """
        future: asyncio.Future[A] = self._loop.create_future()

        def work() -> None:
            try:
                found = job()
            except Exception as error:
                self._call_soon(_fail, future, error)
            else:
                self._call_soon(_set, future, found)

        self._readers.do(work)
        return future

    def _call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        # The loop may have ended since; then nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    # Waits

    async def _now(self, request: Wait | KvWait) -> Outcome:
        if type(request) in self._quick:
            return outcome_of(request, self._handlers)
        return await self.in_thread(partial(outcome_of, request, self._handlers))

    async def _begin_watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        begin = partial(self._watch, request, notify)
        if self._is_watch_quick:
            return begin()
        begun = self.in_thread(begin)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_end_watch)
            raise

    def newest_of(self, kinds: Sequence[Wait | KvWait]) -> "asyncio.Future[list[Outcome]]":
        """What several waits that do not wait are answered now."""
        return self.in_thread(lambda: [outcome_of(request, self._handlers) for request in kinds])


def _set(future: "asyncio.Future[Any]", value: Any = None) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _end_watch(begun: "asyncio.Future[Callable[[], None]]") -> None:
    if begun.exception() is None:
        begun.result()()


class _Polling:
    """Watches a store that cannot be watched: it is asked again and again, once for all that wait alike."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._watching: dict[object, tuple[Wait | KvWait, Notify]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """As a store's own ``watch``."""
        token = object()
        self._watching[token] = (request, notify)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())

        def end_watch() -> None:
            self._watching.pop(token, None)

        return end_watch

    async def _look(self) -> None:
        while self._watching:
            asked = {(type(request), request.prefix) for request, _ in self._watching.values()}
            questions = [kind(0, prefix) for kind, prefix in asked]
            outcomes = await self._answering.newest_of(questions)
            newest = {
                (type(request), request.prefix): outcome.value if isinstance(outcome, Answered) else math.inf
                for request, outcome in zip(questions, outcomes, strict=True)
            }
            for token, (request, notify) in list(self._watching.items()):
                # One that came meanwhile is looked at the next time.
                if newest.get((type(request), request.prefix), 0) > request.after:
                    self._watching.pop(token, None)
                    notify()
            await asyncio.sleep(SLICE_SECONDS)
