"""The same programs, and all that they asked and were answered, step by step."""

from collections.abc import Generator, Sequence
from types import GeneratorType
from typing import Any

from interpreters.explore.inputs import ProgramMaker
from interpreters.explore.limits import as_failure
from interpreters.explore.schedule.world import Task, World
from interpreters.explore.sources import source_of
from persist_effects.machine import Handlers
from persist_effects.requests import Answered, Failed, Outcome


class RecordedStep:
    """A request that was carried out, or a crash.

    ``number`` counts the steps of all programs, ``ordinal`` the requests of its own in this life. ``ended`` is the
    step in which it was answered, None where it was not, or where its program was gone by then. ``is_inner`` says that
    no program asked for it, but an operation of several steps.
    """

    __slots__ = ("ended", "fault", "index", "is_inner", "number", "ordinal", "outcome", "request", "source")

    def __init__(self, number: int, task: Task, *, is_inner: bool, fault: str | None = None) -> None:
        self.number = number
        self.index = task.index
        self.ordinal = task.asked
        self.request: Any = task.request
        self.is_inner = is_inner
        self.fault = fault
        self.outcome: Outcome | None = None
        self.ended: int | None = None
        self.source = ""
        """The line of the program that asks, where that is looked for: `LocatedWorld`."""


class RecordedWorld(World):
    """Keeps the steps. They cost about as much again as the running."""

    def __init__(
        self, makers: Sequence[ProgramMaker], handlers: Handlers, *, now: float = 0.0, kind: str = "program"
    ) -> None:
        self.trace: list[RecordedStep] = []
        self._steps = 0
        super().__init__(makers, handlers, now=now, kind=kind)

    def step_here(self, task: Task) -> None:
        """Carry out a program's request, and let it go on, in its own context."""
        try:
            answer = task.row(task.request)
        except BaseException as error:
            self._throw(task, error)
            return
        if isinstance(answer, GeneratorType):
            self._enter(task, answer)
        else:
            self._go_on(task, task.send, answer)

    def crash(self, index: int, *, is_carried_out: bool) -> None:
        """Give a program up, and note that nobody hears what its requests came to."""
        task = self.tasks[index]
        crash = RecordedStep(
            self._steps, task, is_inner=False, fault="crash-during" if is_carried_out else "crash-before"
        )
        count = len(self.trace)
        unheard = [step for step in self.trace if step.index == index and step.ended is None]
        super().crash(index, is_carried_out=is_carried_out)
        for step in [*unheard, *self.trace[count:]]:
            step.ended = None
        self.trace.append(crash)

    def _arrive(self, task: Task, request: Any) -> None:
        super()._arrive(task, request)
        if task.request is not request:
            return  # it was an `AllOf`, and the program stands at its first part now
        row, is_inner = task.row, self.is_in_operation(task)

        def answer(request: Any) -> Any:
            self._steps += 1
            step = RecordedStep(self._steps, task, is_inner=is_inner)
            self.trace.append(step)
            try:
                found = row(request)
            except BaseException as error:
                self._end(step, Failed(as_failure(error)))
                raise
            if isinstance(found, GeneratorType):
                return self._watched(found, step)
            self._end(step, Answered(found))
            return found

        task.row = answer

    def _watched(self, operation: Generator[Any, Any, Any], step: RecordedStep) -> Generator[Any, Any, Any]:
        try:
            found = yield from operation
        except GeneratorExit:
            raise
        except BaseException as error:
            self._end(step, Failed(as_failure(error)))
            raise
        self._end(step, Answered(found))
        return found

    def _end(self, step: RecordedStep, outcome: Outcome) -> None:
        step.outcome, step.ended = outcome, self._steps


class LocatedWorld(RecordedWorld):
    """Keeps the lines at which the programs ask, too: for a report, since it costs as much as all the rest."""

    def _arrive(self, task: Task, request: Any) -> None:
        super()._arrive(task, request)
        if task.request is not request:
            return
        answer, source = task.row, source_of([*task.frames, task.top][0])

        def located(request: Any) -> Any:
            count = len(self.trace)
            try:
                return answer(request)
            finally:
                self.trace[count].source = source

        task.row = located
