"""`open_store(url)`, and `Store`: run programs on an interpreter, from threads, asyncio or trio.

A store composes handler tables: the interpreter's, a blob store's, and the user's own effects.
"""

import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from interpreters.blobs.memory import MemoryBlobs, NoBlobs
from interpreters.stores.memory import MemoryStore
from persist_effects import machine
from persist_effects.answers import rows_of_a_store
from persist_effects.codec import check_ops
from persist_effects.contexts import RunIn, own_contexts, runs_of
from persist_effects.errors import InvalidRequest, StoreClosed, describe
from persist_effects.machine import Effect, Handler, Handlers, Step
from persist_effects.programs import refused
from persist_effects.requests import AllOf, Answered, Failed, Outcome, Request, Wait
from persist_effects.rows import is_async_generator_row, is_async_row, is_program_row, refuse_async

if TYPE_CHECKING:
    from interpreters.runtime.tasks import TaskRunner

A = TypeVar("A")
AnswerAll = Callable[[Sequence[Request[Any]]], list[Outcome]]


class Interpreter(Protocol):
    """What a store, or a blob store, must offer: a handler table, and an end. Handlers are called from any thread.

    Four things are optional. ``answer_all(requests)`` gives the outcomes of several of its requests, faster together
    than one by one. ``watch(after, prefix, notify)`` calls ``notify()`` once when a stream under the prefix has an
    event past a position, or the store is closed, and returns the function that ends the watch. ``blocking = False``
    says that no row but that of `Wait` blocks. ``durable = True`` says that what was written outlives the process, so
    that a `Store` without a blob store of its own refuses blobs.
    """

    @property
    def handlers(self) -> Handlers:
        """The function that answers each type of request."""
        ...

    def close(self) -> None:
        """Let go of files, connections and threads. The handlers raise `StoreClosed` from then on."""
        ...


def open_store(
    url: str, *, effects: Handlers | None = None, blobs: Interpreter | None = None, **options: Any
) -> "Store":
    """Open the store that a URL names. Close it, or use it in a ``with`` block.

    ``memory:`` is a new, empty store in this process; its options are ``clock`` (a function that gives microseconds
    since 1970, UTC) and ``payload_limit_bytes``. ``effects`` are rows for your own requests, ``blobs`` is a blob store:
    a memory store has a `MemoryBlobs` unless given, and a durable one refuses ``blob/put`` then, because the bytes
    would be lost with the process. Raises `InvalidRequest` for a URL that names no store.

    >>> from persist_effects import log
    >>> with open_store("memory:") as store:
    ...     store.run(log.append("orders/1", "placed", {"total": 12})).seq
    1
    """
    if type(url) is not str:
        advice = "f'file:{path}', or open_store('file:', path=path)" if isinstance(url, os.PathLike) else "'memory:'"
        raise InvalidRequest(f"a store's URL is {describe(url)}: give a str, such as {advice}")
    scheme, colon, rest = url.partition(":")
    opener = _OPENERS.get(scheme) if colon else None
    if opener is None:
        known = ", ".join(f"{name}:" for name in _OPENERS)
        advice = "" if colon else f". For a directory, write {f'file:{url}'!r}"
        raise InvalidRequest(f"{url!r} names no store: a store's URL starts with one of {known}{advice}")
    # Before anything is opened, which nobody could close then.
    _checked_effects(effects)
    if blobs is not None:
        _check_interpreter(_BLOBS, blobs)
    interpreter = opener(rest, options)
    try:
        return Store(interpreter, effects=effects, blobs=blobs)
    except BaseException:
        # An interrupt: nobody could close it any more.
        interpreter.close()
        raise


def _open_memory(rest: str, options: dict[str, Any]) -> Interpreter:
    if rest:
        raise InvalidRequest(f"'memory:{rest}' names no store: write 'memory:', a memory store has no path")
    unknown = options.keys() - {"clock", "payload_limit_bytes"}
    if unknown:
        raise InvalidRequest(f"a memory store has no option {min(unknown)!r}: it takes clock and payload_limit_bytes")
    return MemoryStore(**options)


def _open_file(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: it needs a system with file locks.
    from interpreters.stores.file import open_file

    return open_file(rest, options)


_BLOBS = "a store's blob store"
_OPENERS: dict[str, Callable[[str, dict[str, Any]], Interpreter]] = {"memory": _open_memory, "file": _open_file}


class Store:
    """Runs programs on an interpreter. All methods may be used from any thread.

    A row of ``effects`` is a function of one request; a generator function, which is run as a program of this store,
    and answers with what it returns; or an async function, where programs run by `arun`. Closing
    the store closes the interpreter and the blob store. Raises `InvalidRequest` for what is no interpreter, and for
    effects that are no table of rows.

    >>> from persist_effects import Request, perform
    >>> class Ask(Request[str], frozen=True, tag="example/ask"):
    ...     question: str
    >>> def greet():
    ...     return "hello " + (yield from perform(Ask("name?")))
    >>> Store(MemoryStore(), effects={Ask: lambda request: "Ada"}).run(greet())
    'hello Ada'
    """

    def __init__(
        self, interpreter: Interpreter, *, effects: Handlers | None = None, blobs: Interpreter | None = None
    ) -> None:
        _check_interpreter("a store's interpreter", interpreter)
        self.interpreter = interpreter
        self.blobs = _blobs_beside(interpreter) if blobs is None else blobs
        _check_interpreter(_BLOBS, self.blobs)
        for what, answering in (("its interpreter", interpreter), ("its blob store", self.blobs)):
            _check_nothing_to_await(what, answering.handlers)
        self.effects = rows_of_a_store(_checked_effects(effects))
        # A store that answers for blobs itself gives way only to a blob store that was asked for.
        answers = {**self.blobs.handlers, **interpreter.handlers, **({} if blobs is None else blobs.handlers)}
        own = {kind: _answering_at_once(row) for kind, row in self.effects.items()}
        self.handlers: Handlers = {**answers, AllOf: self._all_of, **own}
        check_ops("a store's table", self.handlers)
        self._answer_all: AnswerAll | None = getattr(interpreter, "answer_all", None)
        of_interpreter = {kind for kind, row in interpreter.handlers.items() if self.handlers[kind] == row}
        self.batched: frozenset[type[Request[Any]]] = frozenset(of_interpreter if self._answer_all else ())
        # Whose rows the user wrote, which may look at the context of the program that asks.
        self._in_context: frozenset[type[Request[Any]]] = frozenset({*self.effects, AllOf})
        # Of the first `arun`, from whichever thread: none, or the one.
        self._task_runners: dict[str, TaskRunner] = {}
        self._is_closed = False

    def run(self, program: Effect[A]) -> A:
        """Drive a program to its end in this thread, and return its value or raise its error."""
        if self._is_closed:
            raise self._closed(program)
        return machine.run(program, self.handlers)

    def start(self, program: Effect[A]) -> Step[A]:
        """Drive a program to the first request that this store does not answer, or to its end.

        So host code answers its own effects by hand, and the store the rest: `Suspended.resume` goes on likewise.

        >>> from persist_effects import Request, kv, perform
        >>> class Ask(Request[str], frozen=True, tag="example/ask"):
        ...     question: str
        >>> def learn_name():
        ...     yield from kv.put("name", (yield from perform(Ask("name?"))))
        ...     return (yield from kv.get("name"))
        >>> step = open_store("memory:").start(learn_name())
        >>> step.request, step.resume("Ada")
        (Ask(question='name?'), Done('Ada'))
        """
        if self._is_closed:
            raise self._closed(program)
        return machine.start(program, self.handlers)

    def run_many(self, programs: Iterable[Effect[A]], *, return_exceptions: bool = False) -> list[A]:
        """Drive many programs to their ends in this thread, together, and return their values in order.

        In each round, the requests that all of them wait for are answered together, in order, so an interpreter
        can make one commit of them. A program that waits for events lets the others go on. If programs raise, the
        others still go to their ends; then an ExceptionGroup of the errors is raised, or with ``return_exceptions``
        the errors stand among the values. What is no Exception, such as a KeyboardInterrupt, is raised in all of
        them instead, then here.

        Each program has a copy of this context, as a task of asyncio's has: of the context variables that it sets no
        other one sees anything, nor does the caller. So do the rows of ``effects`` that it asks.

        >>> from persist_effects import kv
        >>> open_store("memory:").run_many(kv.put(key, 0) for key in ("a", "b", "c"))
        [1, 2, 3]
        """
        given = list(programs)
        if self._is_closed:
            raise self._closed(*given)
        outcomes = _Rounds(self.handlers, self._outcomes_of).drive(given)
        errors = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
        if errors and not return_exceptions:
            raise ExceptionGroup(f"{len(errors)} of {len(outcomes)} programs failed", errors)
        return [outcome.value if isinstance(outcome, Answered) else cast(A, outcome.error) for outcome in outcomes]

    async def arun(self, program: Effect[A]) -> A:
        """Drive a program to its end in this task, under asyncio or trio, and return its value or raise its error.

        Rows that are async functions are awaited; plain rows that may block run in worker threads. A cancelled task
        raises its cancellation at the program's ``yield``; requests that the program's ``finally`` blocks then
        perform are still carried out. A write that has begun is never abandoned: its answer comes first, then the
        cancellation. A plain row in its thread is left to end by itself where ``asyncio.Task.cancel`` comes, since
        only a cancelled scope waits for it. Needs the extra ``async``.

        >>> import anyio
        >>> from persist_effects import kv
        >>> anyio.run(open_store("memory:").arun, kv.put("color", "red"))
        1
        """
        if self._is_closed:
            raise self._closed(program)
        runner = self._task_runners.get("of all")
        if runner is None:
            # In one step: several threads may be the first.
            runner = self._task_runners.setdefault("of all", _make_task_runner(self))
        return await runner.run(program)

    def close(self) -> None:
        """Close the interpreter and the blob store. Programs that still run meet `StoreClosed`. Again: nothing."""
        if not self._is_closed:
            # Closed only once that has gone well: where Ctrl-C comes in between, it can be closed again.
            try:
                self.interpreter.close()
            finally:
                self.blobs.close()
            self._is_closed = True

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _closed(self, *programs: object) -> StoreClosed:
        refused(*programs)
        return StoreClosed("this store was closed: open it again to run programs")

    # Several requests at once

    def _all_of(self, request: AllOf) -> list[Outcome]:
        return self._outcomes_of(request.requests, runs_of(request))

    def _outcomes_of(self, requests: Sequence[Request[Any]], runs: Iterable[RunIn]) -> list[Outcome]:
        """Each request's outcome, in the context that asks it. What the interpreter can batch is answered together."""
        kinds = set(map(type, requests))
        batched, outcome_of, handlers = self.batched, machine.outcome_of, self.handlers
        if self._answer_all is None:
            if self._in_context.isdisjoint(kinds):
                return [outcome_of(request, handlers) for request in requests]
            answered: Iterator[Outcome] = iter(())
        elif batched.issuperset(kinds):
            return self._answer_all(requests)
        else:
            answered = iter(self._answer_all([request for request in requests if type(request) in batched]))
        return [
            next(answered) if type(request) in batched else run_in(outcome_of, request, handlers)
            for request, run_in in zip(requests, runs, strict=True)
        ]


class _Rounds:
    """Drives programs together: each round answers what all of them ask, save those that wait for events."""

    def __init__(
        self, handlers: Handlers, outcomes_of: Callable[[Sequence[Request[Any]], Iterable[RunIn]], list[Outcome]]
    ) -> None:
        self._handlers = handlers
        self._outcomes_of = outcomes_of
        # When each program's wait for events is given up.
        self._deadlines: dict[int, float] = {}

    def drive(self, programs: Sequence[Effect[Any]]) -> list[Outcome]:
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


def _blobs_beside(interpreter: Interpreter) -> Interpreter:
    """The blob store of a store that was given none. An interpreter with rows for blobs answers before it."""
    return NoBlobs() if getattr(interpreter, "durable", False) else MemoryBlobs()


def _check_interpreter(what: str, interpreter: object) -> None:
    is_one = isinstance(getattr(interpreter, "handlers", None), Mapping) and callable(
        getattr(interpreter, "close", None)
    )
    if not is_one:
        advice = ": open_store(url) opens the store of a URL" if isinstance(interpreter, str) else ""
        raise InvalidRequest(
            f"{what} is {describe(interpreter)}: give an object with `handlers` and `close()`, such as MemoryStore()"
            f"{advice}"
        )


def _checked_effects(effects: Handlers | None) -> Handlers:
    if effects is None:
        return {}
    if not isinstance(effects, Mapping):
        raise InvalidRequest(f"effects is {describe(effects)}: give a dict, {{FetchPrice: fetch_price}}")
    for kind, row in effects.items():
        if not (isinstance(kind, type) and issubclass(kind, Request)):
            raise InvalidRequest(f"a key of effects is {describe(kind)}: give a subclass of Request")
        if not callable(row):
            raise InvalidRequest(f"the row for {kind.__name__} is {describe(row)}: give a function of one request")
        if is_async_generator_row(row):
            raise InvalidRequest(
                f"the row for {kind.__name__} is an async generator function: return the answer, do not yield it"
            )
    check_ops("effects", effects)
    return dict(effects)


def _check_nothing_to_await(what: str, handlers: Handlers) -> None:
    for kind, row in handlers.items():
        if is_async_row(row):
            raise InvalidRequest(
                f"a store cannot await the row for {kind.__name__} of {what}, which is an async function: make it a "
                "plain one, which `arun` calls in a thread. Only rows of `effects` may be async"
            )


def _answering_at_once(row: Handler) -> Handler:
    """The user's row where nothing can be awaited: one that would have to be is refused. A program is run."""

    def refuse(request: Request[Any]) -> Any:
        raise refuse_async(request.op)

    def answer(request: Request[Any]) -> Any:
        found = row(request)
        if inspect.isawaitable(found):
            raise refuse_async(request.op, found)
        return found

    if is_program_row(row):
        return row
    return refuse if is_async_row(row) else answer


def _make_task_runner(store: Store) -> "TaskRunner":
    try:
        from interpreters.runtime.tasks import TaskRunner
    except ModuleNotFoundError as error:
        raise InvalidRequest("`arun` needs the package anyio: pip install anyio") from error
    return TaskRunner(store)
