"""`Retrying`: a store that is unavailable for a while is asked again, with waits that grow and differ."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from random import SystemRandom
from typing import Any, NamedTuple, TypeGuard

import msgspec

from interpreters.runtime.interpreter import AnswerAll, Interpreter, OnOutcome, Submit, Watch
from interpreters.runtime.sleeping import CLOSED, Sleepers
from interpreters.threads.later import Later
from interpreters.wrappers.around import Around
from persist_effects.errors import InvalidRequest, StoreClosed, StoreUnavailable, describe
from persist_effects.following.handling import Retry
from persist_effects.machine import Handler
from persist_effects.requests import Answered, Failed, KvWait, Outcome, Request, Sleep, Wait, at_once

A_WHILE = Retry(times=10, wait_seconds=0.05, longest_seconds=5.0)
"""Ten times within about twenty seconds: longer than a server takes to be started again."""

PATIENCE_SECONDS = 30.0

JITTER = SystemRandom().random
"""The system's numbers, which a forked child does not repeat."""


class Retrying(Around):
    """An interpreter around another one, which asks again what met `StoreUnavailable`, by which nothing was written.

    What may have been written, an `UncertainOutcome`, is not asked again, nor is a conflict, which is an answer, nor
    what met a closed store. What is asked together is asked again without what was answered, so that of requests in
    one `all_of` the later may take effect before the earlier.

    A program waits in its thread, and in its task without one where the store has ``submit``. Closing the store ends
    all waits, with `StoreClosed`.

    Args:
        inner: The interpreter inside, which is closed with this one.
        retry: How often a request is asked again, and how long is waited before: the first wait, how they grow, and
            the longest.
        patience_seconds: How long a request is asked again altogether. A wait that would end later is not begun.
        jitter: Gives numbers from 0 to below 1. Each wait is between a half, at 0, and the whole of what ``retry``
            says, so that those who were refused together do not come back together. `random.Random(7).random` gives
            the same ones each time.
        seconds: A clock that never goes back.

    Raises:
        InvalidRequest: An argument is wrong.

    >>> from interpreters import open_store
    >>> from interpreters.wrappers import wrapped
    >>> from persist_effects import kv
    >>> with wrapped(open_store("memory:"), lambda inner: Retrying(inner, Retry(times=3, wait_seconds=0.1))) as store:
    ...     store.run(kv.put("color", "red"))
    1
    """

    def __init__(
        self,
        inner: Interpreter,
        retry: Retry = A_WHILE,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        jitter: Callable[[], float] = JITTER,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(retry, Retry):
            raise InvalidRequest(
                f"retry is {describe(retry)}: give a Retry, such as Retry(times=10, wait_seconds=0.05)"
            )
        if type(patience_seconds) not in (int, float) or not patience_seconds >= 0:
            raise InvalidRequest(f"patience_seconds is {describe(patience_seconds)}: give a number from 0 on")
        for name, function in (("jitter", jitter), ("seconds", seconds)):
            if not callable(function):
                raise InvalidRequest(f"{name} is {describe(function)}: give a function that returns a number")
        self._way = _AskingAgain(_Patience(retry, patience_seconds, jitter, seconds))
        super().__init__(inner, self._way)
        # A row may wait now, also where none of the inner ones does.
        self.blocking = True
        self.quick: frozenset[type[Request[Any]]] = frozenset()
        watch: Watch | None = getattr(inner, "watch", None)
        if watch is not None:
            submit: Submit | None = getattr(inner, "submit", None)
            self.watch = _Watching(self._way, watch, submit).watch

    def close(self) -> None:
        """End all waits, then close the interpreter inside."""
        self._way.close()
        super().close()


class _Patience(NamedTuple):
    """How long something is asked again."""

    retry: Retry
    seconds_in_all: float
    jitter: Callable[[], float]
    clock: Callable[[], float]

    def wait_seconds(self, refusals: int, since: float) -> float | None:
        """How long to wait after so many refusals, the first at ``since``; None: it is given up."""
        if refusals > self.retry.times:
            return None
        seconds = self.retry.seconds_before(refusals) * (1 + self.jitter()) / 2
        return seconds if self.clock() - since + seconds <= self.seconds_in_all else None


class _Refused:
    """A request that was refused, or several, until they are answered or given up."""

    __slots__ = ("_patience", "_refusals", "_since")

    def __init__(self, patience: _Patience) -> None:
        self._patience = patience
        self._refusals = 0
        self._since = patience.clock()

    def wait_seconds(self, errors: Sequence[StoreUnavailable]) -> float | None:
        """Once more refused: how long to wait; None: it is given up, which the errors then tell."""
        self._refusals += 1
        seconds = self._patience.wait_seconds(self._refusals, self._since)
        if seconds is None:
            passed = self._patience.clock() - self._since
            for error in errors:
                error.add_note(f"asked {self._refusals} times in {passed:.1f} seconds, and given up")
        return seconds


class _AskingAgain:
    """What is done around each request: it is asked again for as long as there is patience."""

    def __init__(self, patience: _Patience) -> None:
        self._patience = patience
        self._sleepers = Sleepers()
        self._later: Later[_Asked] = Later("persist-effects retrying", self._fly, _give_up)

    def close(self) -> None:
        self._sleepers.close()
        self._later.close()

    def is_closed(self) -> bool:
        return self._sleepers.is_closed

    # In a thread

    def row(self, inner: Handler) -> Handler:
        clock = self._patience.clock

        def answer(request: Request[Any]) -> Any:
            began = clock()
            try:
                return inner(request)
            except StoreUnavailable as error:
                refusal = error
            refused = _Refused(self._patience)
            while True:
                self._wait(refused, refusal)
                try:
                    return inner(_left_of(request, clock() - began))
                except StoreUnavailable as error:
                    refusal = error

        return answer

    def _wait(self, refused: _Refused, refusal: StoreUnavailable) -> None:
        seconds = None if not _is_asked_again(refusal) else refused.wait_seconds([refusal])
        if seconds is None:
            raise refusal
        self._sleepers.sleep(Sleep(seconds))

    def answer_all(self, inner: AnswerAll, requests: Sequence[Request[Any]]) -> list[Outcome]:
        outcomes = inner(requests)
        if Failed not in set(map(type, outcomes)):
            return outcomes
        refused = _Refused(self._patience)
        began = self._patience.clock()
        while errors := _refusals_in(outcomes):
            seconds = refused.wait_seconds(list(errors.values()))
            if seconds is None:
                break
            try:
                self._sleepers.sleep(Sleep(seconds))
            except StoreClosed as closed:
                for index in errors:
                    outcomes[index] = Failed(closed)
                break
            passed = self._patience.clock() - began
            again = inner([_left_of(requests[index], passed) for index in errors])
            for index, outcome in zip(errors, again, strict=True):
                outcomes[index] = outcome
        return outcomes

    # Without one

    def submit(self, inner: Submit, requests: Sequence[Request[Any]], done: OnOutcome) -> None:
        if requests:
            self._fly([_Asked(inner, request, partial(done, index)) for index, request in enumerate(requests)])

    def _fly(self, asked: Sequence["_Asked"]) -> None:
        """Submit requests of one store, those of a while ago that are due together as one lot."""
        told: set[int] = set()

        def take(place: int, outcome: Outcome) -> None:
            told.add(place)
            self._take(asked[place], outcome)

        try:
            asked[0].inner([each.request for each in asked], take)
        except Exception as error:
            # What `submit` itself raises is the outcome of all that has none. Later, nobody else would take it.
            for place in range(len(asked)):
                if place not in told:
                    self._take(asked[place], Failed(error))

    def _take(self, asked: "_Asked", outcome: Outcome) -> None:
        error = outcome.error if isinstance(outcome, Failed) else None
        if not _is_asked_again(error):
            asked.done(outcome)
            return
        if asked.refused is None:
            asked.refused = _Refused(self._patience)
        seconds = asked.refused.wait_seconds([error])
        if seconds is None:
            asked.done(outcome)
            return
        try:
            self._later.add(seconds, asked)
        except RuntimeError:
            # The system has no more threads.
            asked.done(outcome)


class _Asked:
    """A request that was submitted, until it is answered or given up."""

    __slots__ = ("done", "inner", "refused", "request")

    def __init__(self, inner: Submit, request: Request[Any], done: Callable[[Outcome], None]) -> None:
        self.inner = inner
        self.request = request
        self.done = done
        self.refused: _Refused | None = None


class _Watching:
    """``watch`` around that of the store inside: who waits is told of what he waits for, not of what was refused.

    A store that is lost tells those who wait, so that they ask and are refused. Where it can be asked without a thread
    it is asked first, and watched again where there is nothing new.

    Args:
        way: Asks again.
        watch: That of the store inside.
        submit: Its own, too.
    """

    def __init__(self, way: _AskingAgain, watch: Watch, submit: Submit | None) -> None:
        self._way = way
        self._inner = watch
        self._submit = submit

    def watch(self, request: Wait | KvWait, notify: Callable[[], None]) -> Callable[[], None]:
        """Watch: see `interpreters.runtime.interpreter.Interpreter`."""
        if self._submit is None:
            return self._begin(request, notify)
        return _Look(self._way, self._submit, partial(self._begin, request), request, notify).end

    def _begin(self, request: Wait | KvWait, notify: Callable[[], None]) -> Callable[[], None]:
        try:
            return self._inner(request, notify)
        except StoreUnavailable as error:
            if not _is_asked_again(error):
                raise
            # Whoever waits asks by himself then, for as long as there is patience.
            notify()
            return _nothing


class _Look:
    """One wait that is watched, and looked at when the store tells of it."""

    def __init__(
        self,
        way: _AskingAgain,
        submit: Submit,
        begin: Callable[[Callable[[], None]], Callable[[], None]],
        request: Wait | KvWait,
        notify: Callable[[], None],
    ) -> None:
        self._way = way
        self._submit = submit
        self._begin = begin
        self._request = request
        self._notify = notify
        self._has_ended = False
        self._end_inner: Callable[[], None] = _nothing
        self._watch()

    def end(self) -> None:
        self._has_ended = True
        self._end_inner()

    def _watch(self) -> None:
        self._end_inner = self._begin(self._look)
        if self._has_ended:
            # Whoever ended it may have done so in between.
            self._end_inner()

    def _look(self) -> None:
        if not self._has_ended:
            self._way.submit(self._submit, [at_once(self._request)], self._looked)

    def _looked(self, _: int, outcome: Outcome) -> None:
        if isinstance(outcome, Answered) and outcome.value <= self._request.after and not self._way.is_closed():
            if not self._has_ended:
                self._watch()
        else:
            self._notify()


def _is_asked_again(error: Exception | None) -> TypeGuard[StoreUnavailable]:
    return isinstance(error, StoreUnavailable) and not isinstance(error, StoreClosed)


def _left_of(request: Request[Any], passed_seconds: float) -> Request[Any]:
    """What is left of a request once so many seconds have passed: of a wait the rest, of any other all."""
    if not isinstance(request, Wait | KvWait):
        return request
    return msgspec.structs.replace(request, timeout=max(0.0, request.timeout - passed_seconds))


def _refusals_in(outcomes: Sequence[Outcome]) -> dict[int, StoreUnavailable]:
    """The errors of those that are asked again, by their places."""
    errors = [(index, outcome.error) for index, outcome in enumerate(outcomes) if isinstance(outcome, Failed)]
    return {index: error for index, error in errors if _is_asked_again(error)}


def _give_up(asked: Sequence[_Asked]) -> None:
    for each in asked:
        each.done(Failed(StoreClosed(CLOSED)))


def _nothing() -> None:
    return None
