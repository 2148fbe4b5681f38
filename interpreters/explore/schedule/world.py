"""Programs side by side on one store, one request at a time. Whose turn it is, is chosen elsewhere.

A step carries out the request at which a program stands, and lets it go on to its next one, or to its end. What a
program does between two requests touches nothing that others see, so these are all the orders that matter. Context
variables too: each life of a program has a context of its own.

**Time** is virtual. A `Wait`, or a `KvWait`, is answered as soon as a write makes it true. Where no program can go on
otherwise, the clock moves to the earliest end of a `Sleep` or timeout of a wait. So time never runs out while there
is work. `Now` reads this clock, and a `NewId` is made of it, of who asks, and of how many it has asked for; so neither
tells a program anything of what the others did.

**Operations of several steps.** A handler that is a generator function makes its request an operation of several
steps: each `Pause` that it yields is a place where others may go first; any other request that it yields is answered
by the same table. The parts of an `AllOf` are steps of their own, as they are on a real store.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import GeneratorType
from typing import Any, NamedTuple, NoReturn

from interpreters.explore.inputs import ProgramMaker
from interpreters.explore.limits import as_failure, ends_all, give_up
from interpreters.explore.schedule.footprint import Touched, orders_seen_by
from interpreters.explore.schedule.requests import Pause
from interpreters.explore.virtual import id_of, microseconds_at
from interpreters.runtime.sleeping import left_of
from persist_effects import machine
from persist_effects.answers import checked_rows
from persist_effects.contexts import RunIn, here, runs_of
from persist_effects.errors import NotARequest, UnhandledEffect, describe
from persist_effects.machine import Effect, Handler, Handlers
from persist_effects.requests import (
    WAITS,
    AllOf,
    Answered,
    Failed,
    KvWait,
    NewId,
    Now,
    Outcome,
    ReadAll,
    Request,
    Sleep,
    Wait,
    at_once,
)

Move = int
"""Whose turn it is, by the number of the program; a crash before its request is that plus the number of programs,
and a crash once the request was carried out is that plus twice the number of programs."""

_SPECIAL = WAITS | {AllOf, Pause, ReadAll}


class Task:
    """A program on its way: the request at which it stands, None once it has ended."""

    __slots__ = (
        "answer", "asked", "deadline", "frames", "ids", "index", "make", "outcome", "request", "row", "run_in", "send",
        "top",
    )  # fmt: skip

    def __init__(self, index: int, make: ProgramMaker) -> None:
        self.index = index
        self.make = make
        self.request: Any = None
        self.outcome: Outcome | None = None
        self.answer: Any = None
        """What its last request was answered, or the error that it met."""
        self.asked = 0
        """How many requests it has asked since it was started."""
        self.ids = 0
        """How many identifiers it has asked for, in all of its lives."""
        self.deadline: float | None = None
        """When its wait or sleep is over; None where it does neither."""
        self.row: Handler = _nothing
        self.run_in: RunIn = here
        """The context of this life, in which all of its steps and their rows are."""
        self.top: Any
        self.send: Callable[[Any], Any]
        self.frames: list[Any] = []
        """The program and the operations that wait for ``top``, which is an operation of several steps."""


class World:
    """The programs, and the table that answers them. What it has no rows for of `TIMES` is answered here."""

    def __init__(
        self, makers: Sequence[ProgramMaker], handlers: Handlers, *, now: float = 0.0, kind: str = "program"
    ) -> None:
        self.handlers = checked_rows(handlers)
        self.now = now
        """How many seconds have passed."""
        self._kind = kind
        self.orders_seen: frozenset[Touched] = frozenset()
        """Which orders, of all streams or of all keys, anything has asked for."""
        self.tasks: list[Task] = []
        self.live: tuple[int, ...] = tuple(range(len(makers)))
        """Which programs have not ended."""
        self._count = len(makers)
        self._waiting = 0
        for index, make in enumerate(makers):
            task = Task(index, make)
            self.tasks.append(task)
            self._begin(task)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the programs ended. Only once all have."""
        return [task.outcome for task in self.tasks if task.outcome is not None]

    # Whose turn it may be

    def ready(self) -> tuple[int, ...]:
        """The programs that can go on now. None, though some have not ended: a deadlock."""
        if not self._waiting:
            return self.live
        found = tuple(index for index in self.live if self._can_go(self.tasks[index]))
        return found or self._first_over()

    def _can_go(self, task: Task) -> bool:
        if task.deadline is None or task.deadline <= self.now:
            return True
        return isinstance(task.request, Wait | KvWait) and self._newest(task.request) > task.request.after

    def _first_over(self) -> tuple[int, ...]:
        """Those whose waiting is over first, where all wait."""
        deadlines = {index: self._deadline(index) for index in self.live}
        first = min(deadlines.values(), default=math.inf)
        return () if first == math.inf else tuple(index for index, at in deadlines.items() if at == first)

    def _deadline(self, index: int) -> float:
        deadline = self.tasks[index].deadline
        assert deadline is not None, "a program that does not wait can go on"
        return deadline

    # Steps

    def play(self, move: Move) -> None:
        """Make a step, or crash a program."""
        if move < self._count:
            self.step(move)
        else:
            self.crash(move % self._count, is_carried_out=move >= 2 * self._count)

    def step(self, index: int) -> None:
        """Carry out a program's request, and let it go on to its next one, or to its end."""
        task = self.tasks[index]
        task.run_in(self.step_here, task)

    def step_here(self, task: Task) -> None:
        """The same, where the context that is there is the program's own."""
        # The hot loop of all that is explored: what follows the first lines is `_go_on` and `_arrive`, written out.
        try:
            task.answer = answer = task.row(task.request)
        except BaseException as error:
            self._throw(task, error)
            return
        kind: type = type(answer)
        if kind is GeneratorType:
            self._enter(task, answer)
            return
        try:
            task.request = request = task.send(answer)
        except StopIteration as end:
            self._leave(task, Answered(end.value))
            return
        except BaseException as error:
            self._leave(task, Failed(as_failure(error)))
            return
        kind = type(request)
        row = self.handlers.get(kind)
        if row is None or kind in _SPECIAL:
            self._arrive(task, request)
        else:
            task.asked += 1
            task.row = row

    def tell_here(self, task: Task, answer: Any) -> None:
        """Let a program go on with an answer, and ask nothing, where the context that is there is its own."""
        task.answer = answer
        self._go_on(task, task.send, answer)

    def crash(self, index: int, *, is_carried_out: bool) -> None:
        """Give a program up, and start it anew. What it asked for is carried out before, or not."""
        task = self.tasks[index]
        if is_carried_out:
            # Of errors too nobody hears any more.
            with suppress(Exception):
                task.run_in(self._carry_out, task)
        self._stop_waiting(task)
        self.give_up(task)
        self._begin(task)

    def _carry_out(self, task: Task) -> None:
        """Carry out a request, up to the first pause in it; within an operation, go on to the next pause."""
        answer = task.row(task.request)
        if isinstance(answer, GeneratorType):
            next(answer, None)
            answer.close()
        elif self.is_in_operation(task):
            task.send(answer)

    def give_up(self, task: Task) -> None:
        """End a program and its operation as if the process were gone."""
        for program in (task.top, *reversed(task.frames)):
            task.run_in(give_up, program)
        task.frames.clear()

    def close(self) -> None:
        """Give up all programs that have not ended."""
        for index in self.live:
            self.give_up(self.tasks[index])

    def run_alone(self, program: Effect[Any], handlers: Handlers | None = None) -> Any:
        """Run another program to its end, between two steps of the others. Returns its value, or raises its error.

        ``handlers``: the table that answers it, where that is another one.
        """
        rows = self.handlers if handlers is None else handlers
        other = type(self)([lambda: program], rows, now=self.now, kind="check")
        while ready := other.ready():
            other.step(ready[0])
        self.orders_seen |= other.orders_seen
        (task,) = other.tasks
        if task.outcome is None:
            other.close()
            raise TimeoutError(f"it waits for ever, for {task.request!r:.200}")
        if isinstance(task.outcome, Failed):
            raise task.outcome.error
        return task.outcome.value

    def is_in_operation(self, task: Task) -> bool:
        """Whether it stands at a request of an operation of several steps, not of its program."""
        return any(top.gi_code is not _one_by_one.__code__ for top in [*task.frames, task.top][1:])

    # How programs go on

    def _begin(self, task: Task) -> None:
        task.run_in = copy_context().run
        task.run_in(self._start, task)

    def _start(self, task: Task) -> None:
        program = task.make()
        if type(program) is not GeneratorType or program.gi_suspended:
            machine.check_fresh(program)
        task.top, task.send, task.asked, task.answer = program, program.send, 0, None
        self._go_on(task, program.send, None)

    def _go_on(self, task: Task, go_on: Callable[[Any], Any], value: Any) -> None:
        try:
            request = go_on(value)
        except StopIteration as end:
            self._leave(task, Answered(end.value))
        except BaseException as error:
            self._leave(task, Failed(as_failure(error)))
        else:
            self._arrive(task, request)

    def _throw(self, task: Task, error: BaseException) -> None:
        """Go on with an error that the row of its request met, unless that ends everything."""
        if ends_all(error):
            raise error
        task.answer = error
        self._go_on(task, task.top.throw, error)

    def _enter(self, task: Task, operation: Generator[Any, Any, Any]) -> None:
        task.frames.append(task.top)
        task.top, task.send = operation, operation.send
        self._go_on(task, operation.send, None)

    def _leave(self, task: Task, outcome: Outcome) -> None:
        """What stood on top has ended: an operation, whose outcome goes to who asked for it, or the program."""
        if task.frames:
            task.top = task.frames.pop()
            task.send = task.top.send
            if isinstance(outcome, Answered):
                self._go_on(task, task.send, outcome.value)
            else:
                self._go_on(task, task.top.throw, outcome.error)
            return
        if isinstance(outcome, Answered):
            outcome = machine.ended(task.top, outcome.value)
        task.outcome, task.request = outcome, None
        live = self.live
        place = live.index(task.index)
        self.live = live[:place] + live[place + 1 :]

    def _arrive(self, task: Task, request: Any) -> None:
        kind = type(request)
        if kind is _Part:
            self._arrive(task, request.request)
            task.row = partial(request.run_in, task.row)
            return
        task.request = request
        row = self.handlers.get(kind)
        if row is None or kind in _SPECIAL:
            self._arrive_at_special(task, request)
            return
        task.asked += 1
        task.row = row

    def _arrive_at_special(self, task: Task, request: Any) -> None:
        """A request that this module answers itself, that is to be noted, or that nobody answers."""
        if isinstance(request, AllOf) and request.requests:
            self._enter(task, _one_by_one(request, lambda: self.now))
            return
        if not isinstance(request, Request):
            self._go_on(task, lambda found: machine.next_request(task.top, found), request)
            return
        task.asked += 1
        self.orders_seen |= orders_seen_by(request)
        if isinstance(request, Now | NewId | Sleep) and type(request) not in self.handlers:
            self._arrive_at_time(task, request)
        elif isinstance(request, Wait | KvWait) and type(request) in self.handlers:
            self._wait(task, request.timeout)
        elif isinstance(request, Pause | AllOf):
            task.row = _nothing if isinstance(request, Pause) else _no_outcomes
        else:
            task.row = self.handlers.get(type(request), _refuse)

    # Time

    def _arrive_at_time(self, task: Task, request: Now | NewId | Sleep) -> None:
        if isinstance(request, Sleep):
            self._wait(task, request.seconds)
        else:
            task.row = self._tell_time if isinstance(request, Now) else partial(self._new_id, task)

    def _tell_time(self, request: Now) -> int:
        return microseconds_at(self.now)

    def _new_id(self, task: Task, request: NewId) -> str:
        task.ids += 1
        return id_of(microseconds_at(self.now), f"{self._kind} {task.index}", task.ids)

    # Waiting

    def _wait(self, task: Task, seconds: float) -> None:
        self._waiting += 1
        task.deadline = self.now + seconds

        def answer(request: Any) -> Any:
            newest = self._newest(request) if isinstance(request, Wait | KvWait) else None
            if newest is None or newest <= request.after:
                assert task.deadline is not None, "it waits"
                self.now = max(self.now, task.deadline)
            self._stop_waiting(task)
            return newest

        task.row = answer

    def _stop_waiting(self, task: Task) -> None:
        self._waiting -= task.deadline is not None
        task.deadline = None

    def _newest(self, request: Wait | KvWait) -> int:
        newest: int = self.handlers[type(request)](at_once(request))
        return newest


class _Part(NamedTuple):
    """A part of an `AllOf`, and the context of the program that asks it."""

    request: Request[Any]
    run_in: RunIn


def _one_by_one(request: AllOf, now: Callable[[], float]) -> Generator[_Part, Any, list[Outcome]]:
    """The parts of a request, one after the other; those that sleep last, and all of them at once."""
    parts, runs, began = request.requests, list(runs_of(request)), now()
    outcomes: dict[int, Outcome] = {}
    for index in sorted(range(len(parts)), key=lambda index: isinstance(parts[index], Sleep)):
        try:
            outcomes[index] = Answered((yield _Part(left_of(parts[index], now() - began), runs[index])))
        except Exception as error:
            outcomes[index] = Failed(error)
    return [outcomes[index] for index in range(len(parts))]


def _nothing(request: Any) -> None:
    return None


def _no_outcomes(request: Any) -> list[Outcome]:
    return []


def _refuse(request: Any) -> NoReturn:
    if isinstance(request, Request):
        raise UnhandledEffect(request.op, type(request).__name__)
    raise NotARequest(describe(request))
