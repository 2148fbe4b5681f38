"""Many programs together in one thread: each round answers what all of them ask."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from persist_effects import machine
from persist_effects.contexts import RunIn, own_contexts
from persist_effects.machine import Effect, Handlers
from persist_effects.requests import Answered, Outcome, Request, Wait


class Rounds:
    """Drives programs together: each round answers what all of them ask, save those that wait for events."""

    def __init__(
        self, handlers: Handlers, outcomes_of: Callable[[Sequence[Request[Any]], Iterable[RunIn]], list[Outcome]]
    ) -> None:
        self._handlers = handlers
        self._outcomes_of = outcomes_of
        # When each program's wait for events is given up.
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
        """The outcome of each request; None for a wait that goes on."""
        if Wait not in set(map(type, together.requests)):
            return self._outcomes_of(together.requests, (together.runs[index] for index in together.asking))
        asked = [(index, request) for index, request in zip(together.asking, together.requests, strict=True)]
        waits = {index: request for index, request in asked if isinstance(request, Wait)}
        others = [(request, together.runs[index]) for index, request in asked if index not in waits]
        answered = iter(self._outcomes_of([request for request, _ in others], [run_in for _, run_in in others]))
        waited = self._look_whether_events_came(waits, may_block=not others)
        return [waited[index] if index in waits else next(answered) for index, _ in asked]

    def _look_whether_events_came(self, waits: Mapping[int, Wait], *, may_block: bool) -> dict[int, Outcome | None]:
        newest = self._ask_wait(0, "", 0)
        outcomes = {index: self._outcome_of_wait(index, request) for index, request in waits.items()}
        if may_block and isinstance(newest, Answered) and not any(outcomes.values()):
            # All of them wait, so this thread may, until any event comes or the first of them gives up.
            first_deadline = min(self._deadlines.values())
            self._ask_wait(newest.value, "", max(0.0, first_deadline - time.monotonic()))
        return outcomes

    def _outcome_of_wait(self, index: int, request: Wait) -> Outcome | None:
        deadline = self._deadlines.setdefault(index, time.monotonic() + request.timeout)
        outcome = self._ask_wait(request.after, request.prefix, 0)
        if isinstance(outcome, Answered) and outcome.value <= request.after and time.monotonic() < deadline:
            return None
        del self._deadlines[index]
        return outcome

    def _ask_wait(self, after: int, prefix: str, timeout: float) -> Outcome:
        return machine.outcome_of(Wait(after, prefix, timeout), self._handlers)
