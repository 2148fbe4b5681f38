"""What is explored: some programs, a maker of stores, and what must hold in the end."""

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from interpreters.explore.inputs import CheckOfOutcomes, Invariant, ProgramMaker, StoreFactory
from interpreters.explore.limits import is_said_by_pytest, note, outcome_of_check
from interpreters.explore.report import INVARIANT_BROKEN, Problem, told_end
from interpreters.explore.schedule.kept import KeptStore, kept_store
from interpreters.explore.schedule.linear import Filling, contents_of, linear_problem
from interpreters.explore.schedule.recorded import RecordedWorld
from interpreters.explore.schedule.token import token_of
from interpreters.explore.schedule.world import Move, World
from interpreters.explore.virtual import rows_but_of_time
from interpreters.explore.words import named, told, told_error
from interpreters.runtime.interpreter import Interpreter
from interpreters.runtime.store import Store
from persist_effects.errors import InvalidRequest, NotAProgram, NotARequest, UnhandledEffect
from persist_effects.requests import CHANGES, Answered, Failed, Request

MISTAKES = (AttributeError, ImportError, NameError, TypeError, NotAProgram, NotARequest, UnhandledEffect)
"""Errors that are not an outcome for a check to judge, but mistakes in a program."""


class FoundOrder(NamedTuple):
    """An interleaving in which something is wrong: whose turn it was, and how often a program had to give way."""

    moves: tuple[Move, ...]
    switches: int
    problem: Problem


class LastStep(NamedTuple):
    """What was asked last: by which program, as which of its requests."""

    program: int
    number: int
    request: Request[Any]


class _InvariantWrites(Exception):
    """An invariant asked for a change."""


class Case(NamedTuple):
    """Programs with their names, and how they are judged.

    ``contents``: what each store holds at first, where the store's answers are judged too.
    """

    names: tuple[str, ...]
    programs: tuple[ProgramMaker, ...]
    store_factory: StoreFactory
    check: CheckOfOutcomes | None
    requests_limit: int
    contents: Filling | None = None
    chosen: tuple[int, ...] | None = None
    """Which of the programs that were given these are, if not all."""
    invariant: Invariant | None = None

    @property
    def arguments(self) -> str:
        """Those that must be given again, as code, for a token to mean the same."""
        given = (("linearizable=True", self.contents), ("invariant=invariant", self.invariant))
        return ", ".join(told for told, value in given if value is not None)

    def begin(self) -> tuple[World, Store | Interpreter]:
        """The programs at their first requests, on a store of their own, which the caller closes."""
        store = self.store_factory()
        kind = World if self.contents is None else RecordedWorld
        return kind(self.programs, rows_but_of_time(store)), store

    def kept_store(self) -> KeptStore | None:
        """A store for all orders that are gone through one after the other; None where each has its own."""
        return kept_store(self.store_factory) if self.contents is None else None

    def looking_at_operations(self) -> "Case":
        """The same, judged by the answers of the store too."""
        store = self.store_factory()
        try:
            return self._replace(contents=contents_of(store.handlers))
        finally:
            store.close()

    def only(self, indices: Sequence[int]) -> "Case":
        """The same with fewer programs."""
        return self._replace(
            names=tuple(self.names[index] for index in indices),
            programs=tuple(self.programs[index] for index in indices),
            chosen=tuple(index if self.chosen is None else self.chosen[index] for index in indices),
        )

    def note_end(self, error: BaseException, moves: Sequence[Move]) -> None:
        """Say on an error that ends the exploration in which interleaving it came."""
        token = token_of(tuple(moves), len(self.programs), self.chosen)
        note(error, lambda: told_end("schedule", token, self.arguments))

    def judge(self, world: World) -> Problem | None:
        """What is wrong where no program can go on."""
        if world.live:
            return self._deadlock(world)
        if self.check is not None:
            failure = self._failure_of_check(self.check, world)
            if failure is not None:
                expected = "check(outcomes) passes once all programs have ended"
                return Problem("check failed", expected, told_error(failure))
        # Where a check has passed, the errors that it saw are as they should be, but for mistakes in a program.
        kinds = Exception if self.check is None else MISTAKES
        for name, task in zip(self.names, world.tasks, strict=True):
            if isinstance(task.outcome, Failed) and (
                isinstance(task.outcome.error, kinds) or is_said_by_pytest(task.outcome.error)
            ):
                end = (
                    "goes to its end" if self.check is None else "ends, or raises an error that is not a mistake in it"
                )
                return Problem("raises", f"every program {end}", f"{name} raises {told_error(task.outcome.error)}")
        if self.contents is not None and isinstance(world, RecordedWorld):
            return linear_problem(world.trace, self.contents, self.names)
        return None

    def broken(self, world: World, last: LastStep | None) -> Problem | None:
        """What the invariant says of the store as it is now, after this step, or before all of them.

        Raises `InvalidRequest` for an invariant that writes.
        """
        if self.invariant is None:
            return None
        program = outcome_of_check(self.invariant, requests_limit=self.requests_limit)
        try:
            failure = world.run_alone(program, {**world.handlers, **dict.fromkeys(CHANGES, _refuse_to_write)})
        except TimeoutError as error:
            failure = error
        if failure is None:
            return None
        if isinstance(failure, _InvariantWrites):
            raise InvalidRequest(f"invariant asks {failure}: let it only read, for programs would see what it writes")
        when = "before the first" if last is None else f"after {self.names[last.program]} #{last.number}"
        asked = "request" if last is None else told(last.request)
        return Problem(INVARIANT_BROKEN, f"invariant() passes {when} {asked}", told_error(failure))

    def _failure_of_check(self, check: CheckOfOutcomes, world: World) -> Exception | None:
        program = outcome_of_check(check, world.outcomes, requests_limit=self.requests_limit)
        try:
            failure: Exception | None = world.run_alone(program)
        except TimeoutError as error:
            return error
        return failure

    def hang(self) -> Problem:
        """What is wrong where the programs ask for ever."""
        limit = self.requests_limit
        return Problem("hangs", f"the programs end within {limit} requests", "they ask for more")

    def _deadlock(self, world: World) -> Problem:
        waiting = ", ".join(f"{self.names[index]} for {world.tasks[index].request!r:.100}" for index in world.live)
        return Problem("deadlock", "a program can go on, until all have ended", f"they wait for ever: {waiting}")


def _refuse_to_write(request: Request[Any]) -> NoReturn:
    raise _InvariantWrites(named(request))


def told_outcomes(names: Sequence[str], world: World) -> list[str]:
    """A line for each program: how it ended."""
    lines = []
    for name, task in zip(names, world.tasks, strict=True):
        match task.outcome:
            case Answered(value=value):
                lines.append(f"{name} returned {value!r:.100}")
            case Failed(error=error):
                lines.append(f"{name} raised {told_error(error)}")
            case None:
                lines.append(f"{name} has not ended")
    return lines
