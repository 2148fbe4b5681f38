"""Programs and how they are stepped. `perform` is the only yield; `start`, `resume` and `run` the only stepping.

A program is a generator that yields requests and is resumed with their answers. It mirrors a CEK machine: the program
suspends at a request, the host does the work, the program goes on. A handler table maps a request's type to the
function that answers it; tables are plain dicts and merge with ``|``, so adding an effect is adding a row.

>>> from persist_effects.requests import Request
>>> class Ask(Request[str], frozen=True, tag="example/ask"):
...     question: str
>>> def greet():
...     name = yield from perform(Ask("name?"))
...     return f"hello {name}"
>>> run(greet(), {Ask: lambda request: "Ada"})
'hello Ada'
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import CoroutineType, GeneratorType
from typing import Any, Generic, TypeVar, cast, overload

from persist_effects.contexts import RunIn, here, own_contexts, parts_in, runs_of
from persist_effects.errors import (
    Abandoned,
    AlreadyUsed,
    NotAProgram,
    NotARequest,
    PersistError,
    Spinning,
    UnhandledEffect,
)
from persist_effects.programs import is_fresh_program, refused
from persist_effects.programs import program as _program
from persist_effects.requests import AllOf, Answered, Failed, Outcome, Request
from persist_effects.rows import is_program_row, refuse_async
from persist_effects.slips import instead_of_program, instead_of_request, said
from persist_effects.spinning import Trouble, counted, give_up

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

Effect = Generator[Request[Any], Any, A]
"""A program that performs requests and returns an ``A``."""

Handler = Callable[[Any], Any]
Handlers = Mapping[type[Request[Any]], Handler]
"""A handler table: the function that answers each type of request. An error it raises is thrown into the program."""


@_program
def perform(request: Request[A]) -> Effect[A]:
    """Suspend the program until a request is answered.

    Args:
        request: The request.

    Returns:
        Its answer.

    Raises:
        UnhandledEffect: In the program, if no row answers the request; and whatever the handler raises.
        NotARequest: If it is not one.
    """
    return (yield request)  # type: ignore[no-any-return]


class Done(Generic[A]):
    """A program that has ended: its value.

    >>> def three():
    ...     return 3
    ...     yield
    >>> start(three())
    Done(3)
    """

    __slots__ = ("value",)
    __match_args__ = ("value",)

    def __init__(self, value: A) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Done({self.value!r})"


class Suspended(Generic[A]):
    """A program that waits for the answer to ``request``. One of `resume`, `throw` and `close`, once.

    >>> from persist_effects import kv
    >>> suspended = start(kv.get("color"))
    >>> suspended.request
    KvGet(key='color')
    >>> suspended.resume(None)
    Done(None)
    """

    __slots__ = ("_handlers", "_program", "_trouble", "request")
    __match_args__ = ("request",)

    def __init__(
        self, program: Effect[A], request: Request[Any], handlers: Handlers, trouble: Trouble | None = None
    ) -> None:
        self.request = request
        self._program: Effect[A] | None = program
        self._handlers = handlers
        self._trouble = trouble

    def __repr__(self) -> str:
        return f"Suspended({self.request!r})"

    @property
    def used(self) -> bool:
        """Whether this step was already resumed, thrown into or closed."""
        return self._program is None

    def resume(self, answer: Any) -> "Step[A]":
        """Go on with the answer, to the next request or to the end. Raises what the program raises.

        Args:
            answer: What the program gets for its request.

        Returns:
            Where it stopped next.
        """
        program = self._take("resumed")
        trouble = self._trouble
        if trouble is not None:
            trouble.answered()
        return _step(program, program.send, answer, self._handlers, trouble)

    def throw(self, error: BaseException) -> "Step[A]":
        """Go on with an error raised where the program waits. Raises what the program raises.

        Args:
            error: The error.

        Returns:
            Where it stopped next.

        Raises:
            Spinning: If the program was refused the same too often in a row; and an interrupt itself where it has
                caught too many. The program is given up then.
        """
        program = self._take("thrown into")
        trouble = counted(self._trouble, program, self.request, error)
        return _step(program, program.throw, error, self._handlers, trouble)

    def close(self) -> None:
        """Give the program up: ``GeneratorExit`` is raised where it waits, so its ``finally`` blocks run.

        Raises RuntimeError if the program then performs another request.
        """
        self._take("closed").close()

    def _take(self, verb: str) -> Effect[A]:
        program, self._program = self._program, None
        if program is None:
            raise AlreadyUsed(
                f"this Suspended at {said(self.request)} cannot be {verb}: it was already resumed, thrown into or "
                "closed, and each is used once: use the step that came back then"
            )
        return program


Step = Suspended[A] | Done[A]

_NO_HANDLERS: Handlers = {}


def start(program: Effect[A], handlers: Handlers = _NO_HANDLERS) -> Step[A]:
    """Run a fresh program to its first request that the table does not answer, or to its end.

    Args:
        program: The program.
        handlers: The table. Without one it stops at every request: so host code drives a program by hand.

    Returns:
        Where it stopped: `Suspended` or `Done`.

    Raises:
        NotAProgram: If it is not one, before anything runs; and whatever the program raises.
        AlreadyUsed: If it was started before, likewise.

    >>> from persist_effects import kv
    >>> step = start(kv.get_or("color", "red"))
    >>> step.request.key
    'color'
    """
    _check_fresh(program)
    return _step(program, program.send, None, handlers, None)


def run(program: Effect[A], handlers: Handlers) -> A:
    """Drive a fresh program to its end.

    An error from a handler is thrown in at the guilty ``yield``. An interrupt that comes between a handler and the
    program is raised in the program too, whose ``finally`` blocks may perform requests.

    Args:
        program: The program.
        handlers: The table. A request that no row answers raises `UnhandledEffect` at its ``yield``, where the program
            may catch it.

    Returns:
        The program's value.

    Raises:
        NotAProgram: If it is not one, before anything runs; and whatever the program raises.
        AlreadyUsed: If it was started before, likewise.
        Spinning: If it goes on for ever, refused the same request for good too often in a row. One that catches
            interrupt after interrupt is ended by the last of them.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> run(kv.has("color"), {KvHas: lambda request: True})
    True
    """
    _check_fresh(program)
    return _drive(program, program.send, None, handlers, None)


@_program
def through(
    program: Effect[A],
    carry_out: Callable[[Request[Any]], Effect[Any]],
    errors: tuple[type[BaseException], ...] = (BaseException,),
) -> Effect[A]:
    """A program whose requests are carried out by programs of others: one that asks a store as one that asks its disk.

    Args:
        program: A fresh one.
        carry_out: Makes of each of its requests the program that answers it.
        errors: Those that are raised in the program when its request meets them. Any other ends both, as if their
            process were gone: what the program's ``finally`` blocks ask for is then not carried out.

    Returns:
        What the program returns.

    >>> class Ask(Request[str], frozen=True, tag="example/ask"):
    ...     question: str
    >>> def greet():
    ...     return "hello " + (yield from perform(Ask("name?")))
    >>> def politely(request):
    ...     return (yield from perform(Ask(f"please, {request.question}")))
    >>> run(through(greet(), politely), {Ask: lambda request: f"<{request.question}>"})
    'hello <please, name?>'
    """
    check_fresh(program)
    trouble: Trouble | None = None
    try:
        request = next(program)
        while True:
            if not isinstance(request, Request):
                error: BaseException = _no_request(program, request)
                trouble = counted(trouble, program, request, error)
                request = program.throw(error)
                continue
            try:
                answer = yield from carry_out(request)
            except GeneratorExit:
                give_up(program)
                raise
            except errors as met:
                trouble = counted(trouble, program, request, met)
                request = program.throw(met)
            except BaseException:
                give_up(program)
                raise
            else:
                if trouble is not None:
                    trouble.answered()
                request = program.send(answer)
    except StopIteration as end:
        value: A = end.value
        if type(value) is GeneratorType:
            check_returned(program, value)
        return value


def unwind(program: Effect[Any], error: BaseException, handlers: Handlers) -> None:
    """Give up a program for an error: raise it where the program waits, and answer what its cleaning up performs.

    Does nothing to a program that has ended, or was never started. Another error than this one, raised by the
    cleaning up, becomes a note on it; an interrupt that comes meanwhile is raised, unless the error is one.

    Args:
        program: The program.
        error: The error.
        handlers: The table that answers its requests.

    >>> from persist_effects import kv
    >>> program = kv.get("color")
    >>> step = start(program)
    >>> unwind(program, KeyboardInterrupt(), {})
    >>> start(program)
    Traceback (most recent call last):
    persist_effects.errors.AlreadyUsed: the program 'get' was already started, ...
    """
    if not _is_suspended(program):
        return
    try:
        _drive(program, program.throw, error, handlers, Trouble(is_ending=True))
    except BaseException as trouble:
        if trouble is error:
            return
        if not isinstance(trouble, Exception | Abandoned) and isinstance(error, Exception | Abandoned):
            raise
        _note(error, trouble)


def unwind_all(
    programs: Sequence[Effect[Any]], error: BaseException, handlers: Handlers, runs: Sequence[RunIn] | None = None
) -> None:
    """Give up several programs for an error, as `unwind` does each. An interrupt is raised once all are given up.

    Args:
        programs: The programs.
        error: The error.
        handlers: The table that answers their requests.
        runs: Their contexts, where they have their own.

    >>> from persist_effects import kv
    >>> both = [kv.get("color"), kv.get("size")]
    >>> steps = [start(program) for program in both]
    >>> unwind_all(both, KeyboardInterrupt(), {})
    >>> [program.gi_frame for program in both]
    [None, None]
    """
    met = error
    for program, run_in in zip(programs, runs or [here] * len(programs), strict=True):
        try:
            run_in(unwind, program, met, handlers)
        except BaseException as interrupt:
            met = interrupt
    if met is not error:
        raise met


def _drive(
    program: Effect[A], go_on: Callable[[Any], Any], value: Any, handlers: Handlers, trouble: Trouble | None
) -> A:
    interrupt: BaseException | None = None
    while True:
        try:
            step = _advance(program, go_on, value, handlers, trouble)
            while isinstance(step, Suspended):
                trouble = step._trouble
                if isinstance(step.request, AllOf):
                    step = step.resume(outcomes_of(step.request, handlers))
                else:
                    step = step.throw(_unhandled(step.request))
            return step.value
        except BaseException as error:
            if isinstance(error, Spinning) or not _is_suspended(program):
                if interrupt is None or not isinstance(error, PersistError):
                    raise
                # What a request of its cleaning up met must not hide that it was interrupted.
                _note(interrupt, error)
                break
            # An interrupt, in a handler or between that and the program: what becomes of it, the program decides.
            trouble = trouble or Trouble()
            trouble.interrupted(program, error)
            interrupt = error
            go_on, value = program.throw, error
    raise interrupt


def _step(
    program: Effect[A],
    go_on: Callable[[Any], Any],
    value: Any,
    handlers: Handlers,
    trouble: Trouble | None,
) -> Step[A]:
    """Go on to the next request that no row answers, or to the end. An interrupt is raised in the program."""
    while True:
        try:
            return _advance(program, go_on, value, handlers, trouble)
        except BaseException as error:
            if isinstance(error, Spinning) or not _is_suspended(program):
                raise
            trouble = trouble or Trouble()
            trouble.interrupted(program, error)
            go_on, value = program.throw, error


def _advance(
    program: Effect[A],
    go_on: Callable[[Any], Any],
    value: Any,
    handlers: Handlers,
    trouble: Trouble | None,
) -> Step[A]:
    # The hot loop: one table look-up and one call for each request. `answer` is dropped at once, because it may be
    # a page of events, and while the next one is read there should be no other.
    try:
        request = go_on(value)
        del value
        send = program.send
        while True:
            try:
                handler = handlers[type(request)]
            except KeyError:
                if isinstance(request, Request):
                    return Suspended(program, request, handlers, trouble)
                error = _no_request(program, request)
                trouble = counted(trouble, program, request, error)
                request = program.throw(error)
                continue
            try:
                answer = handler(request)
                kind = type(answer)
                if kind is GeneratorType or kind is CoroutineType:
                    answer = settled(answer, handler, request, handlers)
            except Exception as error:
                trouble = counted(trouble, program, request, error)
                request = program.throw(error)
            else:
                if trouble is not None:
                    trouble.answered()
                request = send(answer)
                answer = None
    except StopIteration as end:
        done: Done[A] = Done(end.value)
        if type(end.value) is GeneratorType:
            check_returned(program, end.value)
        return done


def check_returned(program: Any, value: object) -> None:
    """Refuse a program as what another program returned: a ``yield from`` was forgotten.

    Only those of functions that are marked with `persist_effects.program` are known, as those of this package are.

    Args:
        program: The program that has ended.
        value: What it returned.

    Raises:
        NotAProgram: If the value is a program that was not run.

    >>> from persist_effects import kv
    >>> def forgetful():
    ...     yield from kv.has("color")
    ...     return kv.put("color", "red")
    >>> check_returned(forgetful(), kv.put("color", "red"))
    Traceback (most recent call last):
    persist_effects.errors.NotAProgram: the program 'forgetful' returned the program 'put', which was not run: ...
    """
    if is_fresh_program(value):
        refused(value)
        raise NotAProgram(
            f"the program {program.__qualname__!r} returned the program {value.__qualname__!r}, which was not run: "
            f"write `return (yield from {value.__name__}(…))`"
        ) from None


def next_request(program: Effect[Any], found: object) -> Request[Any]:
    """The request that a program asks, having yielded something: what is not a request is refused at that ``yield``.

    Args:
        program: The program.
        found: What it yielded.

    Returns:
        The request. What the program raises is raised, StopIteration where it ends.

    >>> def careless():
    ...     try:
    ...         yield 7
    ...     except NotARequest:
    ...         yield from perform(AllOf(()))
    >>> program = careless()
    >>> next_request(program, next(program))
    AllOf(requests=())
    """
    trouble: Trouble | None = None
    while not isinstance(found, Request):
        error = _no_request(program, found)
        trouble = counted(trouble, program, found, error)
        found = program.throw(error)
    return found


class Together:
    """Fresh programs that go on together: all that wait for an answer ask at once, and are answered at once.

    Each goes on in a context of its own, one of ``runs`` if they are given.

    >>> from persist_effects import kv
    >>> together = Together([kv.get("color"), kv.has("size")])
    >>> together.requests
    [KvGet(key='color'), KvHas(key='size')]
    >>> together.resume([Answered(None), Answered(True)])
    >>> together.outcomes
    [Answered(value=None), Answered(value=True)]
    """

    def __init__(self, programs: Sequence[Effect[Any]], runs: Sequence[RunIn] | None = None) -> None:
        check_fresh(*programs)
        self.runs = own_contexts(programs) if runs is None else runs
        """The context of each program, as a function that calls another one in it."""
        self.outcomes: list[Outcome | None] = [None] * len(programs)
        """How each program ended, in order, None where it has not."""
        self.requests: list[Request[Any]] = []
        """What those that wait ask, in order."""
        self.asking: Sequence[int] = range(len(programs))
        """Which ones those are, by their place among the programs."""
        self._programs = programs
        self._troubles: dict[int, Trouble | None] = {}
        self.resume([Answered(None)] * len(programs))

    def resume(self, outcomes: Sequence[Outcome | None]) -> None:
        """Go on with the outcome of each request.

        Args:
            outcomes: In the order of the requests. One whose outcome is None yet goes on waiting.
        """
        # Runs for every request of `Store.run_many`.
        programs, runs, before, troubles = self._programs, self.runs, self.requests, self._troubles
        still_asking: list[int] = []
        self.requests = requests = []
        asking, self.asking = self.asking, still_asking
        for at, (index, outcome) in enumerate(zip(asking, outcomes, strict=True)):
            program, run_in = programs[index], runs[index]
            try:
                if isinstance(outcome, Answered):
                    if troubles:
                        troubles.pop(index, None)
                    value = outcome.value
                    request = program.send(value) if run_in is here else run_in(program.send, value)
                elif outcome is None:
                    request = before[at]
                else:
                    troubles[index] = counted(troubles.get(index), program, before[at], outcome.error)
                    request = run_in(program.throw, outcome.error)
                if not isinstance(request, Request):
                    request = run_in(next_request, program, request)
            except StopIteration as end:
                value = end.value
                self.outcomes[index] = ended(program, value) if type(value) is GeneratorType else Answered(value)
            except Exception as error:
                self.outcomes[index] = Failed(error)
            else:
                still_asking.append(index)
                requests.append(request)


def ended(program: Any, value: Any) -> Outcome:
    """How a program ended that returned a value: see `check_returned`.

    Args:
        program: The program.
        value: What it returned.

    Returns:
        The value, or the error that it should not be a program, as an outcome.

    >>> ended(None, 7)
    Answered(value=7)
    """
    try:
        check_returned(program, value)
    except NotAProgram as error:
        return Failed(error)
    return Answered(value)


def outcome_of(request: Request[A], handlers: Handlers) -> Outcome:
    """The answer to one request, or the error that it met, as a value.

    Args:
        request: The request.
        handlers: The table.

    Returns:
        The outcome.

    >>> from persist_effects.requests import KvHas
    >>> outcome_of(KvHas("color"), {KvHas: lambda request: True})
    Answered(value=True)
    """
    try:
        return Answered(_answer_to(request, handlers))
    except Exception as error:
        return Failed(error)


def outcomes_of(request: AllOf, handlers: Handlers) -> list[Outcome]:
    """The outcomes of the parts of a request, one after the other, each in the context of the program that asks it.

    Args:
        request: What was asked at once.
        handlers: The table.

    Returns:
        The outcomes, in the order of the parts.

    >>> from persist_effects.requests import KvHas
    >>> outcomes_of(AllOf((KvHas("color"), KvHas("size"))), {KvHas: lambda request: True})
    [Answered(value=True), Answered(value=True)]
    """
    return [run_in(outcome_of, part, handlers) for part, run_in in zip(request.requests, runs_of(request), strict=True)]


def outcomes_by_kind(
    requests: Sequence[Request[Any]],
    kinds: frozenset[type[Request[Any]]],
    answer_together: Callable[[Sequence[Request[Any]]], Iterable[Outcome]],
    answer_alone: Callable[[int, Request[Any]], Outcome],
) -> list[Outcome]:
    """The outcomes of several requests in their order, of which those of some kinds are answered together, and first.

    Args:
        requests: What is asked.
        kinds: The types of requests that are answered together.
        answer_together: Gives the outcome of each of these, in order. It is not called for none.
        answer_alone: Gives the outcome of another one, told its index and itself.

    Returns:
        The outcomes, in the order of the requests.

    >>> from persist_effects.requests import KvHas, LastSeq
    >>> asked = [LastSeq("orders/1"), KvHas("color"), KvHas("size")]
    >>> together = lambda requests: [Answered(f"one of {len(requests)}") for _ in requests]
    >>> outcomes_by_kind(asked, frozenset({KvHas}), together, lambda index, request: Answered(index))
    [Answered(value=0), Answered(value='one of 2'), Answered(value='one of 2')]
    """
    batch = [request for request in requests if type(request) in kinds]
    outcomes = iter(answer_together(batch) if batch else ())
    return [
        next(outcomes) if type(request) in kinds else answer_alone(index, request)
        for index, request in enumerate(requests)
    ]


def _answer_to(request: Request[Any], handlers: Handlers) -> Any:
    try:
        row = handlers[type(request)]
    except KeyError:
        if isinstance(request, AllOf):
            return outcomes_of(request, handlers)
        raise _unhandled(request) from None
    answer = row(request)
    kind = type(answer)
    return settled(answer, row, request, handlers) if kind is GeneratorType or kind is CoroutineType else answer


def settled(answer: Any, row: Handler, request: Request[Any], handlers: Handlers) -> Any:
    """What a row's generator or coroutine comes to: the value of its program, run with the same table.

    Args:
        answer: What the row gave.
        row: The row. A generator that is the answer of a plain function is an answer.
        request: The request.
        handlers: The table.

    Returns:
        The answer.

    Raises:
        InvalidRequest: If it is a coroutine, since nothing awaits it; and whatever the program raises.

    >>> class Ask(Request[str], frozen=True, tag="settled/ask"):
    ...     pass
    >>> def ask(request):
    ...     return "yes" if (yield from perform(AllOf(()))) == [] else "no"
    >>> settled(ask(Ask()), ask, Ask(), {})
    'yes'
    """
    if type(answer) is CoroutineType:
        raise refuse_async(request.op, answer)
    return run(answer, handlers) if is_program_row(row) else answer


@overload
def all_of(first: Effect[A] | Request[A], /) -> Effect[tuple[A]]: ...
@overload
def all_of(first: Effect[A] | Request[A], second: Effect[B] | Request[B], /) -> Effect[tuple[A, B]]: ...
@overload
def all_of(
    first: Effect[A] | Request[A], second: Effect[B] | Request[B], third: Effect[C] | Request[C], /
) -> Effect[tuple[A, B, C]]: ...
@overload
def all_of(
    first: Effect[A] | Request[A],
    second: Effect[B] | Request[B],
    third: Effect[C] | Request[C],
    fourth: Effect[D] | Request[D],
    /,
) -> Effect[tuple[A, B, C, D]]: ...
@overload
def all_of(*items: Effect[A] | Request[A]) -> Effect[tuple[A, ...]]: ...
@_program
def all_of(*items: Effect[Any] | Request[Any]) -> Effect[tuple[Any, ...]]:
    """Perform several programs or requests at once.

    They go on in rounds: the requests that all of them wait for are performed together, which lets an interpreter
    batch them, then each is resumed, in order. Where one raises, `Abandoned` is raised in the others, whose
    ``finally`` blocks may perform requests; then the error is raised here. What goes wrong in a ``finally`` becomes
    a note on it. Each program has a context of its own: of the context variables that it sets, no other one sees
    anything.

    Args:
        items: Programs and requests.

    Returns:
        Their values, in order.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> open_store("memory:").run(all_of(kv.put("a", 1), kv.put("b", 2), kv.has("c")))
    (1, 2, False)
    """
    steps: list[Step[Any]] = []
    runs = own_contexts(items)
    try:
        steps.extend(
            run_in(start, perform(item) if isinstance(item, Request) else item)
            for item, run_in in zip(items, runs, strict=True)
        )
        while waiting := [index for index, step in enumerate(steps) if isinstance(step, Suspended)]:
            yield from _perform_together(steps, waiting, runs)
    except GeneratorExit:
        raise
    except BaseException as error:
        # Those that come after one which did not start.
        refused(*items[len(steps) :])
        yield from _abandon(steps, error, runs)
        raise
    finally:
        # Only where this program itself is being closed does any wait still: then Python lets none perform any more.
        _close(steps, runs)
    return tuple(cast(Done[Any], step).value for step in steps)


def _perform_together(steps: list[Step[Any]], waiting: Sequence[int], runs: Sequence[RunIn]) -> Effect[None]:
    """Perform the requests of these steps at once, and put the steps that come next in their places."""
    requests = [cast(Suspended[Any], steps[index]).request for index in waiting]
    outcomes = yield from perform(AllOf(parts_in(requests, [runs[index] for index in waiting])))
    for index, outcome in zip(waiting, outcomes, strict=True):
        step = cast(Suspended[Any], steps[index])
        if isinstance(outcome, Answered):
            steps[index] = runs[index](step.resume, outcome.value)
        else:
            steps[index] = runs[index](step.throw, outcome.error)


def _abandon(steps: list[Step[Any]], error: BaseException, runs: Sequence[RunIn]) -> Effect[None]:
    """Give up the programs that still wait, one after the other, and perform what their cleaning up asks for."""
    for index in _unfinished(steps):
        try:
            steps[index] = runs[index](cast(Suspended[Any], steps[index]).throw, Abandoned())
            while isinstance(steps[index], Suspended):
                yield from _perform_next(steps, index, runs[index])
        except Abandoned:
            pass
        except Exception as trouble:
            _note(error, trouble)
        except GeneratorExit:
            raise
        except BaseException as interrupt:
            # It takes the error's place, and the others are given up for it.
            yield from _abandon(steps, interrupt, runs)
            raise


def _perform_next(steps: list[Step[Any]], index: int, run_in: RunIn) -> Effect[None]:
    step = cast(Suspended[Any], steps[index])
    try:
        answer = yield from perform(step.request)
    except GeneratorExit:
        raise
    except BaseException as error:
        steps[index] = run_in(step.throw, error)
    else:
        steps[index] = run_in(step.resume, answer)


def _close(steps: list[Step[Any]], runs: Sequence[RunIn]) -> None:
    for index in _unfinished(steps):
        runs[index](cast(Suspended[Any], steps[index]).close)


def _unfinished(steps: list[Step[Any]]) -> list[int]:
    return [index for index, step in enumerate(steps) if isinstance(step, Suspended) and not step.used]


def check_fresh(*programs: object) -> None:
    """Refuse what is not a program, was started already, or stands among the others twice. Nothing is started.

    Args:
        programs: What is to be run.

    Raises:
        NotAProgram: If one of them is not a program.
        AlreadyUsed: If one was started, or is given twice.

    >>> check_fresh(len)
    Traceback (most recent call last):
    persist_effects.errors.NotAProgram: a builtin_function_or_method, <built-in function len>, is not a program: ...
    """
    try:
        for given in programs:
            _check_fresh(given)
        if len(set(map(id, programs))) < len(programs):
            raise AlreadyUsed(
                "a program stands among the others twice, and a program runs once: call its function again"
            )
    except PersistError:
        refused(*programs)
        raise


def _check_fresh(program: object) -> None:
    if not isinstance(program, GeneratorType):
        raise NotAProgram(
            f"{said(program)}, is not a program: give the generator that calling a generator function makes"
            f"{instead_of_program(program)}"
        )
    if program.gi_frame is None or program.gi_suspended or program.gi_running:
        raise AlreadyUsed(
            f"the program {program.__qualname__!r} was already started, and a program runs once: "
            "call its function again for a fresh one"
        )


def _is_suspended(program: object) -> bool:
    return isinstance(program, GeneratorType) and program.gi_suspended


def _unhandled(request: object) -> UnhandledEffect | NotARequest:
    if isinstance(request, Request):
        return UnhandledEffect(request.op, type(request).__name__)
    return _no_request(None, request)


def _no_request(program: Any, found: object) -> NotARequest:
    return NotARequest(said(found), instead_of_request(program, found))


def _note(error: BaseException, trouble: BaseException) -> None:
    error.add_note(f"a program that was given up for this raised in turn: {type(trouble).__name__}: {trouble}")
