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

from collections.abc import Callable, Generator, Mapping
from types import GeneratorType
from typing import Any, Generic, TypeVar, cast, overload

from persist_effects.errors import AlreadyUsed, NotAProgram, NotARequest, UnhandledEffect
from persist_effects.requests import AllOf, Answered, Failed, Outcome, Request

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

Effect = Generator[Request[Any], Any, A]
"""A program that performs requests and returns an ``A``."""

Handler = Callable[[Any], Any]
Handlers = Mapping[type[Request[Any]], Handler]
"""A handler table: the function that answers each type of request. An error it raises is thrown into the program."""


def perform(request: Request[A]) -> Effect[A]:
    """Suspend the program until the request is answered, and return the answer.

    Raises in the program whatever the handler raises, `UnhandledEffect` where no row answers the request, and
    `NotARequest` where it is none.
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

    __slots__ = ("_handlers", "_program", "request")
    __match_args__ = ("request",)

    def __init__(self, program: Effect[A], request: Request[Any], handlers: Handlers) -> None:
        self.request = request
        self._program: Effect[A] | None = program
        self._handlers = handlers

    def __repr__(self) -> str:
        return f"Suspended({self.request!r})"

    @property
    def used(self) -> bool:
        """Whether this step was already resumed, thrown into or closed."""
        return self._program is None

    def resume(self, answer: Any) -> "Step[A]":
        """Go on with the answer, to the next request or to the end. Raises what the program raises."""
        program = self._take("resumed")
        return _advance(program, program.send, answer, self._handlers)

    def throw(self, error: BaseException) -> "Step[A]":
        """Go on with an error raised where the program waits. Raises what the program raises."""
        program = self._take("thrown into")
        return _advance(program, program.throw, error, self._handlers)

    def close(self) -> None:
        """Give the program up: ``GeneratorExit`` is raised where it waits, so its ``finally`` blocks run.

        Raises RuntimeError if the program then performs another request.
        """
        self._take("closed").close()

    def _take(self, verb: str) -> Effect[A]:
        program, self._program = self._program, None
        if program is None:
            raise AlreadyUsed(
                f"this Suspended at {_describe(self.request)} cannot be {verb}: it was already resumed, thrown into or "
                "closed, and each is used once: use the step that came back then"
            )
        return program


Step = Suspended[A] | Done[A]

_NO_HANDLERS: Handlers = {}


def start(program: Effect[A], handlers: Handlers = _NO_HANDLERS) -> Step[A]:
    """Run a fresh program to its first request that the table does not answer, or to its end.

    Without a table it stops at every request: so host code drives a program by hand. Raises `NotAProgram` and
    `AlreadyUsed` before anything runs, and what the program raises.

    >>> from persist_effects import kv
    >>> step = start(kv.get_or("color", "red"))
    >>> step.request.key
    'color'
    """
    _check_fresh(program)
    return _advance(program, program.send, None, handlers)


def run(program: Effect[A], handlers: Handlers) -> A:
    """Drive a fresh program to its end and return its value.

    An error from a handler is thrown in at the guilty ``yield``. A request that no row answers raises
    `UnhandledEffect` there, where the program may catch it.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> run(kv.has("color"), {KvHas: lambda request: True})
    True
    """
    step = start(program, handlers)
    try:
        while isinstance(step, Suspended):
            if isinstance(step.request, AllOf):
                step = step.resume([outcome_of(part, handlers) for part in step.request.requests])
            else:
                step = step.throw(UnhandledEffect(step.request.op))
    finally:
        program.close()
    return step.value


def _advance(program: Effect[A], go_on: Callable[[Any], Any], value: Any, handlers: Handlers) -> Step[A]:
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
                    return Suspended(program, request, handlers)
                request = program.throw(NotARequest(_describe(request)))
                continue
            try:
                answer = handler(request)
            except BaseException as error:
                request = program.throw(error)
            else:
                request = send(answer)
                answer = None
    except StopIteration as end:
        return Done(end.value)


def outcome_of(request: Request[A], handlers: Handlers) -> Outcome:
    """The answer to one request, or the error that it met, as a value.

    >>> from persist_effects.requests import KvHas
    >>> outcome_of(KvHas("color"), {KvHas: lambda request: True})
    Answered(value=True)
    """
    try:
        return Answered(run(perform(request), handlers))
    except Exception as error:
        return Failed(error)


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
def all_of(*items: Effect[Any] | Request[Any]) -> Effect[tuple[Any, ...]]:
    """Perform several programs or requests at once, and return their values in order.

    They go on in rounds: the requests that all of them wait for are performed together, which lets an interpreter
    batch them, then each is resumed, in order. Where one raises, the others are closed and the error is raised here.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> open_store("memory:").run(all_of(kv.put("a", 1), kv.put("b", 2), kv.has("c")))
    (1, 2, False)
    """
    steps: list[Step[Any]] = []
    try:
        steps.extend(start(perform(item) if isinstance(item, Request) else item) for item in items)
        while waiting := [(index, step) for index, step in enumerate(steps) if isinstance(step, Suspended)]:
            outcomes = yield from perform(AllOf(tuple(step.request for _, step in waiting)))
            for (index, step), outcome in zip(waiting, outcomes, strict=True):
                steps[index] = (
                    step.resume(outcome.value) if isinstance(outcome, Answered) else step.throw(outcome.error)
                )
    finally:
        for unfinished in steps:
            if isinstance(unfinished, Suspended) and not unfinished.used:
                unfinished.close()
    return tuple(cast(Done[Any], step).value for step in steps)


def check_fresh(*programs: object) -> None:
    """Refuse what is no program, was started already, or stands among the others twice. Nothing is started.

    >>> check_fresh(len)
    Traceback (most recent call last):
    persist_effects.errors.NotAProgram: a builtin_function_or_method, <built-in function len>, is no program: ...
    """
    for program in programs:
        _check_fresh(program)
    if len(set(map(id, programs))) < len(programs):
        raise AlreadyUsed("a program stands among the others twice, and a program runs once: call its function again")


def _check_fresh(program: object) -> None:
    if not isinstance(program, GeneratorType):
        raise NotAProgram(
            f"{_describe(program)}, is no program: give the generator that calling a generator function makes"
        )
    if program.gi_frame is None or program.gi_suspended or program.gi_running:
        raise AlreadyUsed(
            f"the program {program.__qualname__!r} was already started, and a program runs once: "
            "call its function again for a fresh one"
        )


def _describe(found: object) -> str:
    return f"{found!r:.120}" if isinstance(found, Request) else f"a {type(found).__name__}, {found!r:.80}"
