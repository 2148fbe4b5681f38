"""Many programs together in one thread: each round answers what all of them ask."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from interpreters.runtime.interpreter import Watch
from interpreters.runtime.sleeping import Sleepers
from interpreters.threads.gates import SLICE_SECONDS, Gate, wait_until_told
from persist_effects import machine
from persist_effects.contexts import RunIn, own_contexts
from persist_effects.machine import Effect, Handlers
from persist_effects.requests import WAITS, Answered, KvWait, Outcome, Request, Sleep, Wait, at_once

_Passing = Wait | KvWait | Sleep
"""What is over by itself some time."""


class Rounds:
    """Drives programs together: each round answers what all of them ask, save those that wait."""

    def __init__(
        self,
        handlers: Handlers,
        outcomes_of: Callable[[Sequence[Request[Any]], Iterable[RunIn]], list[Outcome]],
        watch: Watch | None,
        sleepers: Sleepers | None,
    ) -> None:
        self._handlers = handlers
        self._outcomes_of = outcomes_of
        self._watch = watch
        self._sleepers = sleepers
        self._passing = WAITS if sleepers is None else WAITS | {Sleep}
        # When each program's sleep is over, or its wait is given up.
        self._deadlines: dict[int, float] = {}

    def drive(self, programs: Sequence[Effect[Any]]) -> list[Outcome]:
        """Drive programs to their ends, and return what came of each."""
        runs = own_contexts(programs)
        try:
            together = machine.Together(programs, runs)
            while together.requests:
                together.resume(self._round(together))
        except BaseException as error:
            machine.unwind_all(programs, error, self._handlers, runs)
            raise
        return cast(list[Outcome], together.outcomes)

    def _round(self, together: machine.Together) -> Sequence[Outcome | None]:
        """The outcome of each request; None for a wait, or a sleep, that goes on."""
        if self._passing.isdisjoint(map(type, together.requests)):
            return self._outcomes_of(together.requests, (together.runs[index] for index in together.asking))
        asked = [(index, request) for index, request in zip(together.asking, together.requests, strict=True)]
        waits = {index: cast(_Passing, request) for index, request in asked if type(request) in self._passing}
        others = [(request, together.runs[index]) for index, request in asked if index not in waits]
        answered = iter(self._outcomes_of([request for request, _ in others], [run_in for _, run_in in others]))
        waited = self._look_whether_any_is_over(waits, may_block=not others)
        return [waited[index] if index in waits else next(answered) for index, _ in asked]

    def _look_whether_any_is_over(self, waits: Mapping[int, _Passing], *, may_block: bool) -> dict[int, Outcome | None]:
        kinds = dict.fromkeys(type(request) for request in waits.values() if not isinstance(request, Sleep))
        newest = {kind: self._ask(kind(0)) for kind in kinds}
        outcomes = {index: self._outcome_if_over(index, request) for index, request in waits.items()}
        if may_block and not any(outcomes.values()):
            # All of them wait, so this thread may, until anything comes or the first of them gives up.
            first_deadline = min(self._deadlines.values())
            passing = [kind(found.value) for kind, found in newest.items() if isinstance(found, Answered)]
            self._block(passing, max(0.0, first_deadline - time.monotonic()))
        return outcomes

    def _outcome_if_over(self, index: int, request: _Passing) -> Outcome | None:
        seconds = request.seconds if isinstance(request, Sleep) else request.timeout
        deadline = self._deadlines.setdefault(index, time.monotonic() + seconds)
        # Of a sleep it is told whether the store is still open.
        outcome = self._ask(Sleep(0) if isinstance(request, Sleep) else at_once(request))
        goes_on = isinstance(outcome, Answered) and (isinstance(request, Sleep) or outcome.value <= request.after)
        if goes_on and time.monotonic() < deadline:
            return None
        del self._deadlines[index]
        return outcome

    def _block(self, passing: Sequence[Wait | KvWait], seconds: float) -> None:
        """Wait until one of these is over, or the store is closed, at most so long."""
        if passing and self._watch is None:
            # Each for a while: none of them can be ended from outside.
            for request in passing:
                timeout = min(seconds, SLICE_SECONDS) / len(passing)
                self._ask(msgspec.structs.replace(request, timeout=timeout))
            return
        told = Gate()
        ends: list[Callable[[], None]] = []
        try:
            if self._sleepers is not None:
                self._sleepers.add(told, told.open)
            for request in passing:
                assert self._watch is not None, "without it no wait comes here"
                # One by one: an interrupt must not lose those before.
                ends.append(self._watch(request, told.open))
            wait_until_told(told, seconds, lambda: self._is_closed() or any(map(self._is_over, passing)))
        finally:
            if self._sleepers is not None:
                self._sleepers.sleeping.pop(told, None)
            for end_watch in ends:
                end_watch()

    def _is_closed(self) -> bool:
        return self._sleepers is not None and self._sleepers.is_closed

    def _is_over(self, request: Wait | KvWait) -> bool:
        outcome = self._ask(request)
        return not isinstance(outcome, Answered) or outcome.value > request.after

    def _ask(self, request: _Passing) -> Outcome:
        return machine.outcome_of(request, self._handlers)
