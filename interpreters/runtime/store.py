"""`Store`: run programs on an interpreter, from threads, asyncio or trio.

A store composes handler tables: the interpreter's, a blob store's, and the user's own effects.
"""

import inspect
import os
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from interpreters.blobs.homes import ANY_MIME, BlobHome, BlobProgress, pieces_of
from interpreters.blobs.memory import ChunksOf, MemoryBlobs, NoBlobs
from interpreters.blobs.reading import as_file
from interpreters.clocks import rows_of_clock
from interpreters.disk.files import open_to_read
from interpreters.error_pages import name_pages_of_uncaught
from interpreters.runtime.flights import answering_through
from interpreters.runtime.interpreter import (
    AnswerAll,
    Composed,
    Interpreter,
    Submit,
    Watch,
    capabilities_of,
    check_blobs,
    check_interpreter,
    checked_effects,
)
from interpreters.runtime.rounds import Rounds
from interpreters.runtime.sleeping import CLOSED, Sleepers, left_of
from persist_effects import blob, machine
from persist_effects.answers import rows_of_a_store
from persist_effects.blob import AnyRef, cid_in
from persist_effects.capabilities import Capabilities
from persist_effects.codec import check_ops
from persist_effects.contexts import RunIn, runs_of
from persist_effects.errors import InvalidRequest, StoreClosed
from persist_effects.machine import Effect, Handler, Handlers, Step
from persist_effects.programs import refused
from persist_effects.requests import WAITS, AllOf, Answered, BlobPut, BlobRef, Failed, Outcome, Request, Sleep
from persist_effects.rows import is_async_row, is_program_row, refuse_async

if TYPE_CHECKING:
    from interpreters.runtime.tasks import TaskRunner

A = TypeVar("A")

ORDER_SECONDS = 60.0
"""How long a store whose order lags may take to show what it has acknowledged, unless it is told otherwise."""


class Store:
    """Runs programs on an interpreter. All methods may be used from any thread.

    A row of ``effects`` is a function of one request; a generator function, which is run as a program of this store,
    and answers with what it returns; or an async function, where programs run by `arun`. Closing
    the store closes the interpreter and the blob store. Raises `InvalidRequest` for what is not an interpreter, and for
    effects that are not a table of rows.

    >>> from interpreters import open_store
    >>> from persist_effects import Request, perform
    >>> class Ask(Request[str], frozen=True, tag="example/ask"):
    ...     question: str
    >>> def greet():
    ...     return "hello " + (yield from perform(Ask("name?")))
    >>> open_store("memory:", effects={Ask: lambda request: "Ada"}).run(greet())
    'hello Ada'
    """

    def __init__(
        self, interpreter: Interpreter, *, effects: Handlers | None = None, blobs: Interpreter | None = None
    ) -> None:
        check_interpreter("a store's interpreter", interpreter)
        self.interpreter = interpreter
        self.capabilities = capabilities_of(interpreter)
        """What the store promises."""
        self.blobs = blobs_of(interpreter, self.capabilities) if blobs is None else blobs
        """Where blobs are kept, unless the interpreter or a row of ``effects`` answers for them otherwise."""
        check_blobs(self.blobs)
        for what, answering in (("its interpreter", interpreter), ("its blob store", self.blobs)):
            _check_nothing_to_await(what, answering.handlers)
        self.effects = rows_of_a_store(checked_effects(effects))
        # A store that answers for blobs itself gives way only to a blob store that was asked for.
        answers = {**self.blobs.handlers, **interpreter.handlers, **({} if blobs is None else blobs.handlers)}
        own = {kind: _answering_at_once(row) for kind, row in self.effects.items()}
        self._sleepers = Sleepers()
        # Where the interpreter has rows for its clock, they count; but whoever runs programs knows how they sleep.
        answers = {**rows_of_clock(interpreter, self._sleepers.check_open), **answers}
        self.handlers: Handlers = {**answers, AllOf: self._all_of, Sleep: self._sleep, **own}
        check_ops("a store's table", self.handlers)
        self._submit: Submit | None = getattr(interpreter, "submit", None)
        self._answer_all: AnswerAll | None = getattr(interpreter, "answer_all", None)
        # Where the user answers one of the waits, the interpreter knows nothing of what they wait for.
        self._watch: Watch | None = None if WAITS & self.effects.keys() else getattr(interpreter, "watch", None)
        of_interpreter = {kind for kind, row in interpreter.handlers.items() if self.handlers[kind] == row}
        if self._submit is not None:
            # What waits would keep the others from ending, and could not be interrupted.
            self._answer_all = answering_through(self._submit)
            of_interpreter -= WAITS
        self.batched: frozenset[type[Request[Any]]] = frozenset(of_interpreter if self._answer_all else ())
        # Whose rows the user wrote, which may look at the context of the program that asks.
        self._in_context: frozenset[type[Request[Any]]] = frozenset({*self.effects, AllOf})
        # Of the first `arun`, from whichever thread: none, or the one.
        self._task_runners: dict[str, TaskRunner] = {}
        self._is_closed = False

    def run(self, program: Effect[A]) -> A:
        """Drive a program to its end in this thread.

        Args:
            program: A fresh program.

        Returns:
            Its value. What it raises is raised.
        """
        if self._is_closed:
            raise self._closed(program)
        return machine.run(program, self.handlers)

    def start(self, program: Effect[A]) -> Step[A]:
        """Drive a program to the first request that this store does not answer, or to its end.

        So host code answers its own effects by hand, and the store the rest: `Suspended.resume` goes on likewise.

        Args:
            program: A fresh program.

        Returns:
            Where it stopped: `Suspended` or `Done`.

        >>> from interpreters import open_store
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
        """Drive many programs to their ends in this thread, together.

        In each round, the requests that all of them wait for are answered together, in order, so an interpreter
        can make one commit of them. A program that sleeps, or waits for events, lets the others go on, but not where it
        does so within `all_of`. What is not an Exception, such as a KeyboardInterrupt, is raised in all of them, then
        here.

        Each program has a copy of this context, as a task of asyncio's has: of the context variables that it sets no
        other one sees anything, nor does the caller. So do the rows of ``effects`` that it asks.

        Args:
            programs: Fresh programs.
            return_exceptions: Whether errors stand among the values, and are not raised.

        Returns:
            Their values, in order.

        Raises:
            ExceptionGroup: If programs raised: of their errors, once the others have come to their ends.

        >>> from interpreters import open_store
        >>> from persist_effects import kv
        >>> open_store("memory:").run_many(kv.put(key, 0) for key in ("a", "b", "c"))
        [1, 2, 3]
        """
        given = list(programs)
        if self._is_closed:
            raise self._closed(*given)
        outcomes = Rounds(self.handlers, self._outcomes_of, self._watch, self._own_sleepers()).drive(given)
        errors = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
        if errors and not return_exceptions:
            raise ExceptionGroup(f"{len(errors)} of {len(outcomes)} programs failed", errors)
        return [outcome.value if isinstance(outcome, Answered) else cast(A, outcome.error) for outcome in outcomes]

    async def arun(self, program: Effect[A]) -> A:
        """Drive a program to its end in this task, under asyncio or trio. Needs the extra ``async``.

        Rows that are async functions are awaited; plain rows that may block run in worker threads. A cancelled task
        raises its cancellation at the program's ``yield``; requests that the program's ``finally`` blocks then
        perform are still carried out. A write that has begun is never abandoned: its answer comes first, then the
        cancellation. A plain row in its thread is left to end by itself where ``asyncio.Task.cancel`` comes, since
        only a cancelled scope waits for it.

        Args:
            program: A fresh program.

        Returns:
            Its value. What it raises is raised.

        Raises:
            InvalidRequest: If anyio is not installed.

        >>> import anyio
        >>> from interpreters import open_store
        >>> from persist_effects import kv
        >>> anyio.run(open_store("memory:").arun, kv.put("color", "red"))
        1
        """
        if self._is_closed:
            raise self._closed(program)
        runner = self._task_runners.get("of all")
        if runner is None:
            # In one step: several threads may be the first.
            runner = self._task_runners.setdefault("of all", _make_task_runner(self._composed()))
        return await runner.run(program)

    def close(self) -> None:
        """Close the interpreter and the blob store. Programs that still run meet `StoreClosed`. Again: nothing."""
        if not self._is_closed:
            # Closed only once that has gone well: where Ctrl-C comes in between, it can be closed again.
            self._sleepers.close()
            try:
                self.interpreter.close()
            finally:
                self.blobs.close()
            self._is_closed = True

    def on_close(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Have something called once, as soon as the store begins to close; at once where it has.

        Args:
            notify: Called in the thread that closes. It must be quick, and must not raise.

        Returns:
            The function that takes that back.

        >>> from interpreters import open_store
        >>> store = open_store("memory:")
        >>> end = store.on_close(lambda: print("closed"))
        >>> store.close()
        closed
        """
        return self._sleepers.watch(notify)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _closed(self, *programs: object) -> StoreClosed:
        refused(*programs)
        return StoreClosed(CLOSED)

    def _composed(self) -> Composed:
        sleepers = self._own_sleepers()
        return Composed(self.handlers, self.effects, self.batched, self.interpreter, self.blobs, self._submit, sleepers)

    # Blobs larger than memory

    def put_file(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        mime: str = ANY_MIME,
        *,
        progress: BlobProgress | None = None,
    ) -> BlobRef:
        """Put a file as a blob, of which a piece is in memory at a time. For logs and keys there is the reference.

        On a directory of blobs and on IPFS. Where blobs are kept otherwise, by PostgreSQL, by another process or by
        rows of your own, all of it is read into memory first.

        Args:
            source: The file's path, or a binary file, which is read from where it stands and left open.
            mime: The MIME type of the bytes.
            progress: Told after each piece how many bytes were put, and how many there are: 0 where a file was given.

        Returns:
            The reference to keep.

        Raises:
            InvalidRequest: There is no such file, it does not give bytes, or the store would lose them.
            StoreUnavailable: They cannot be put now. Nothing is left of them.

        >>> import io
        >>> from interpreters import open_store
        >>> with open_store("memory:") as store:
        ...     store.put_file(io.BytesIO(b"a picture"), mime="image/png").size
        9
        """
        self._check_open()
        if not isinstance(source, str | os.PathLike):
            return self._put_open(source, mime, progress)
        with open_to_read(source) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            told = None if progress is None else _of_total(progress, size_bytes)
            return self._put_open(file, mime, told)

    def open_blob(self, ref: AnyRef, *, progress: BlobProgress | None = None) -> BinaryIO:
        """A blob as a binary file to read, from any place of it. What it gives was compared with the reference.

        Of a directory of blobs and of IPFS a piece is in memory at a time, and only what is read is looked at.

        Args:
            ref: The blob's reference, also as it comes back from a log or a key; or a bare content identifier.
            progress: Told after each piece how many bytes were read, and how many there are.

        Returns:
            The file. Close it, or use it in a ``with`` block.

        Raises:
            BlobNotFound: The blob is not there.
            CorruptStore: It is damaged. The methods of the file raise it too.

        >>> import io
        >>> from interpreters import open_store
        >>> with open_store("memory:") as store:
        ...     ref = store.put_file(io.BytesIO(b"a picture"))
        ...     with store.open_blob(ref) as file:
        ...         file.seek(2), file.read(3)
        (2, b'pic')
        """
        self._check_open()
        home = self.blob_home
        if home is not None:
            return home.open_blob(cid_in(ref), progress)
        return as_file(ChunksOf(self.run(blob.get(ref))), progress)

    @property
    def blob_home(self) -> BlobHome | None:
        """The home that answers for blobs here; None where something else does, by rows alone."""
        row = self.handlers.get(BlobPut)
        is_home = row is not None and row == self.blobs.handlers.get(BlobPut) and hasattr(self.blobs, "open_blob")
        return cast(BlobHome, self.blobs) if is_home else None

    def _put_open(self, file: BinaryIO, mime: str, progress: BlobProgress | None) -> BlobRef:
        home = self.blob_home
        if home is not None:
            return home.put_file(file, mime, progress)
        ref = self.run(blob.put(b"".join(pieces_of(file)), mime))
        if progress is not None:
            progress(ref.size, 0)
        return ref

    def _check_open(self) -> None:
        if self._is_closed:
            raise self._closed()

    # Time

    def _own_sleepers(self) -> Sleepers | None:
        """Those that sleep here; None where the user answers for that."""
        return None if Sleep in self.effects else self._sleepers

    def _sleep(self, request: Sleep) -> None:
        self._sleepers.sleep(request)

    # Several requests at once

    def _all_of(self, request: AllOf) -> list[Outcome]:
        """The outcomes of the parts. Who sleeps does so while the others are answered, and all of them at once."""
        parts = request.requests
        kinds = frozenset(map(type, parts))
        if Sleep not in kinds or Sleep in self.effects:
            return self._outcomes_of(parts, runs_of(request))
        began = time.monotonic()
        runs = [run_in for part, run_in in zip(parts, runs_of(request), strict=True) if type(part) is not Sleep]
        return machine.outcomes_by_kind(
            parts,
            kinds - {Sleep},
            lambda others: self._outcomes_of(others, runs),
            lambda _, part: machine.outcome_of(left_of(part, time.monotonic() - began), self.handlers),
        )

    def wait_for_order(self, timeout: float = ORDER_SECONDS) -> None:
        """Wait until `ReadAll`, `Wait` and `KvWait` show all that the store has acknowledged by now.

        That is at once, but where ``capabilities.order_lags``. A program that knows what it waits for uses `log.wait`.

        Args:
            timeout: How many seconds to wait for it at the most.

        Raises:
            StoreUnavailable: If they do not, by then.
            InvalidRequest: If the order lags, and the interpreter cannot tell how far.

        >>> from interpreters import open_store
        >>> open_store("memory:").wait_for_order()
        """
        if not self.capabilities.order_lags:
            return
        waiting: Callable[[float], None] | None = getattr(self.interpreter, "wait_for_order", None)
        if waiting is None:
            raise InvalidRequest(
                f"a {type(self.interpreter).__name__} cannot tell when its order shows all that was acknowledged: it "
                "has no wait_for_order(timeout): open the store itself"
            )
        waiting(timeout)

    def _outcomes_of(self, requests: Sequence[Request[Any]], runs: Iterable[RunIn]) -> list[Outcome]:
        """Each request's outcome, in the context that asks it. What the interpreter can batch is answered together."""
        kinds = set(map(type, requests))
        batched, outcome_of, handlers = self.batched, machine.outcome_of, self.handlers
        if self._answer_all is None:
            if self._in_context.isdisjoint(kinds):
                return [outcome_of(request, handlers) for request in requests]
            return [run_in(outcome_of, request, handlers) for request, run_in in zip(requests, runs, strict=True)]
        if batched.issuperset(kinds):
            return self._answer_all(requests)
        run_in = list(runs)
        return machine.outcomes_by_kind(
            requests, batched, self._answer_all, lambda index, request: run_in[index](outcome_of, request, handlers)
        )


def _of_total(progress: BlobProgress, total_bytes: int) -> BlobProgress:
    return lambda done_bytes, _: progress(done_bytes, total_bytes)


def blobs_of(interpreter: Interpreter, capabilities: Capabilities) -> Interpreter:
    """The blob store of a store that was given none. An interpreter with rows for blobs answers before it.

    Args:
        interpreter: The store's interpreter.
        capabilities: What it promises.

    Returns:
        Its own home of blobs; else one in memory for a store in memory, or one that refuses.
    """
    own: Interpreter | None = getattr(interpreter, "blobs", None)
    if own is not None:
        return own
    return NoBlobs() if capabilities.is_durable else MemoryBlobs()


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


def _make_task_runner(composed: Composed) -> "TaskRunner":
    try:
        from interpreters.runtime.tasks import TaskRunner
    except ModuleNotFoundError as error:
        raise InvalidRequest("`arun` needs the package anyio: pip install anyio") from error
    return TaskRunner(composed)


name_pages_of_uncaught()
