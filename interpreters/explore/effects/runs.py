"""One run of an application on a store of its own, with faults put at some of its requests."""

from collections.abc import Sequence
from contextvars import copy_context
from itertools import zip_longest
from typing import Any, NamedTuple

from interpreters.explore.faults import FAULTS, asks_store, conflict_of, faults_of, is_own
from interpreters.explore.inputs import CheckOfWrites, ProgramMaker, StoreFactory, new_store
from interpreters.explore.limits import as_failure, give_up, is_said_by_pytest, outcome_of_check, thrown
from interpreters.explore.report import NOT_DETERMINISTIC, Problem
from interpreters.explore.virtual import VirtualTime, rows_but_of_time
from interpreters.explore.words import MARK, name_of, told, told_error, told_outcome
from interpreters.runtime.store import Store
from persist_effects import codec, machine
from persist_effects.answers import checked_rows
from persist_effects.contexts import runs_of
from persist_effects.errors import (
    CallerError,
    PersistError,
    StoreUnavailable,
    UncertainOutcome,
)
from persist_effects.machine import Done, Effect, Handlers, Step, Suspended
from persist_effects.requests import (
    CHANGES,
    WAITS,
    AllOf,
    Answered,
    Conflict,
    Failed,
    Outcome,
    Request,
    at_once,
)

PlacedFaults = tuple[tuple[int, str], ...]
"""The faults of one run, each with the number of its request."""

_DIFFERENCE_WIDTH = 200


class Asked(NamedTuple):
    """A request that was asked. Those of one ``group`` were asked together, as parts of an `AllOf`."""

    request: Request[Any]
    key: bytes | str
    group: int
    may_change: bool
    faults: tuple[str, ...]


class _Crashed(Exception):
    """The program is to be given up. Never raised inside of it."""


class _Broken(Exception):
    """The run is over, because it can be judged already. Never raised inside of a program."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


class Application(NamedTuple):
    """What is explored, and how a run of it is made."""

    programs: tuple[ProgramMaker, ...]
    store_factory: StoreFactory
    check: CheckOfWrites
    restart: bool
    requests_limit: int

    @property
    def name(self) -> str:
        """What its programs are called."""
        return ", ".join(name_of(make) for make in self.programs)

    def run(self, state: PlacedFaults) -> "FaultyRun":
        """What became of the application in this state, on a new store."""
        with new_store(self.store_factory) as store:
            run = FaultyRun(self, state, store)
            run.go()
            return run


class FaultyRun:
    """One run: what was asked, what is known to be written, what may be, and how it is told."""

    def __init__(self, application: Application, state: PlacedFaults, store: Store) -> None:
        self.asked: list[Asked] = []
        self.acked: list[tuple[Request[Any], Any]] = []
        self.maybe: list[Request[Any]] = []
        self.lines: list[str] = []
        self.problem: Problem | None = None
        self.was_restarted = False
        self._application = application
        self._faults = dict(state)
        self._handlers = checked_rows({**VirtualTime().rows, **_impatient(rows_but_of_time(store))})
        # Outcomes that the program was not given yet.
        self._unseen: list[tuple[Request[Any], Outcome]] = []
        self._group = 0
        self._asked_in_life = 0
        self._is_struck = False
        self._is_down = False

    def go(self) -> None:
        """Run the application, as often as the faults make it end, and check the store."""
        try:
            while not self._live() and self._application.restart:
                self.was_restarted = True
                self.lines.append("the application is started anew")
            self._check()
        except _Broken as broken:
            self.problem = broken.problem
            self.lines.append(f"{'' if self._faults else MARK}{broken.problem.kind}: {broken.problem.found}")

    def compare(self, before: "FaultyRun", count: int | None = None) -> None:
        """Find out whether the first ``count`` requests, or all, are those of another run that should be the same."""
        found = _difference(before.asked[:count], self.asked[:count])
        if not found and count is None and (before.problem is None) != (self.problem is None):
            problem = before.problem or self.problem
            found = f"one run passes, and in the other: {problem.kind}, {problem.found}" if problem else ""
        if found:
            self.problem = Problem(NOT_DETERMINISTIC, "two runs on fresh stores ask the same, and end alike", found)
            self.lines.append(f"{MARK}not deterministic: {found}")

    def _live(self) -> bool:
        """Whether the programs went to their ends."""
        self._asked_in_life = 0
        self._is_struck = self._is_down = False
        try:
            for make in self._application.programs:
                # What it sets of context variables is gone with it.
                copy_context().run(lambda make: self._drive(make()), make)
        except _Crashed:
            return False
        except _Broken:
            raise
        except BaseException as error:
            failure = as_failure(error)
            if not self._is_struck or is_said_by_pytest(failure):
                kind = "raises after a restart" if self._faults and not self._is_struck else "raises"
                raise _Broken(Problem(kind, "the program goes to its end", told_error(failure))) from error
            self.lines.append(f"the program ends with {told_error(failure)}")
            return False
        return True

    def _drive(self, program: Effect[Any]) -> None:
        try:
            step = machine.start(program)
            while isinstance(step, Suspended):
                step = self._go_on(step)
        except (_Crashed, _Broken):
            self._settle(is_seen=False)
            give_up(program)
            raise

    def _go_on(self, step: Suspended[Any]) -> Step[Any]:
        self._group += 1
        first = len(self.asked) + 1
        outcome = self._outcome(step.request)
        self._count(len(self.asked) + 1 - first)
        self._settle(is_seen=True)
        step_after = step.resume(outcome.value) if isinstance(outcome, Answered) else step.throw(thrown(outcome.error))
        if any(self._faults.get(number) == "crash-after" for number in range(first, len(self.asked) + 1)):
            if isinstance(step_after, Done):
                self.lines.append("the program had ended")
            raise _Crashed
        return step_after

    def _count(self, asked: int) -> None:
        # One that asks for nothing at all, again and again, goes on for ever too.
        self._asked_in_life += max(1, asked)
        limit = self._application.requests_limit
        if self._asked_in_life > limit:
            kind = "hangs after a fault" if self._faults else "hangs"
            raise _Broken(Problem(kind, f"the program ends within {limit} requests", "it asks for more"))

    def _outcome(self, request: Request[Any]) -> Outcome:
        if isinstance(request, AllOf):
            parts = zip(request.requests, runs_of(request), strict=True)
            return Answered([run_in(self._outcome, part) for part, run_in in parts])
        return self._ask(request)

    def _ask(self, request: Request[Any]) -> Outcome:
        number = len(self.asked) + 1
        fault = self._faults.get(number)
        is_down = self._is_down and asks_store(request)
        may_change = not is_down and (is_own(request) or type(request) in CHANGES)
        faults = faults_of(request, is_down=is_down)
        self.asked.append(Asked(request, _key_of(request), self._group, may_change, faults))
        self._is_struck = self._is_struck or fault is not None
        self._is_down = self._is_down or fault == "unavailable-for-good"
        outcome = None if fault == "crash-before" else self._answer(request, fault)
        self.lines.append(f"#{number} {told(request)}{told_outcome(request, outcome)}")
        if outcome is not None:
            self._unseen.append((request, outcome))
        if fault is not None:
            self.lines.append(f"{MARK}{fault}: {FAULTS[fault].says.format(number)}")
        if outcome is None or fault == "crash-during":
            raise _Crashed
        return outcome

    def _answer(self, request: Request[Any], fault: str | None) -> Outcome:
        if fault == "unavailable-once" or (self._is_down and asks_store(request)):
            return Failed(StoreUnavailable("the store cannot be reached: a fault that was put here"))
        if fault == "conflict-once":
            return Answered(conflict_of(request))
        doubt = Failed(UncertainOutcome("the store was lost in the middle of a commit: a fault that was put here"))
        if fault == "uncertain-unwritten":
            return doubt
        outcome = self._outcome_of_row(request)
        return doubt if fault == "uncertain-written" else outcome

    def _outcome_of_row(self, request: Request[Any]) -> Outcome:
        try:
            return machine.outcome_of(request, self._handlers)
        except BaseException as error:
            return Failed(as_failure(error))

    def _settle(self, *, is_seen: bool) -> None:
        """Take down what the program now knows of its writes, or will never know."""
        for request, outcome in self._unseen:
            if type(request) not in CHANGES:
                continue
            if isinstance(outcome, Failed):
                if not isinstance(outcome.error, CallerError | StoreUnavailable):
                    self.maybe.append(request)
            elif not isinstance(outcome.value, Conflict):
                if is_seen:
                    self.acked.append((request, outcome.value))
                else:
                    self.maybe.append(request)
        self._unseen.clear()

    def _check(self) -> None:
        application = self._application
        check = outcome_of_check(
            application.check, [*self.acked], [*self.maybe], requests_limit=application.requests_limit
        )
        failure = machine.run(check, self._handlers)
        if failure is not None:
            when = "after the fault" if not application.restart else "once the program went to its end"
            problem = Problem("check failed", f"check(acked, maybe) passes {when}", told_error(failure))
            raise _Broken(problem) from failure


def _impatient(handlers: Handlers) -> Handlers:
    """The store's rows, where no wait lasts, and the parts of an `AllOf` are answered one by one."""
    rows = {kind: row for kind, row in handlers.items() if kind is not AllOf}
    for kind in WAITS & rows.keys():
        rows[kind] = lambda request: handlers[type(request)](at_once(request))
    return rows


def _key_of(request: Request[Any]) -> bytes | str:
    """What makes two requests the same."""
    try:
        return repr(request) if is_own(request) else codec.encode_request(request)
    except PersistError:
        return repr(request)


def _difference(ours: Sequence[Asked], theirs: Sequence[Asked]) -> str:
    """The first request that is another one in the second run; nothing where there is none."""
    for number, (one, other) in enumerate(zip_longest(ours, theirs), 1):
        if one is None or other is None or one.key != other.key:
            return f"request #{number} is {_told_of(one, other)} in one run, and {_told_of(other, one)} in the next"
    return ""


def _told_of(one: Asked | None, other: Asked | None) -> str:
    if one is None:
        return "nothing more"
    words = told(one.request, _DIFFERENCE_WIDTH)
    is_enough = other is None or words != told(other.request, _DIFFERENCE_WIDTH)
    return words if is_enough else f"{one.request!r:.{_DIFFERENCE_WIDTH}}"
