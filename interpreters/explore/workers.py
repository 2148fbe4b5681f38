"""Several processes that explore: each is given a part of what there is, and what they find is taken in in order.

They are forked, for programs are closures, which cannot be sent to another process. Each asks for a part when it is
done with the one before.
"""

import multiprocessing
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

from interpreters.explore.words import told_error
from persist_effects.errors import InvalidRequest
from persist_effects.event import check_integer

G = TypeVar("G")
T = TypeVar("T")


class WorkerDied(RuntimeError):
    """A process that explored has ended before its time, by a signal or by the system."""


def check_workers(workers: Any, **others: object) -> None:
    """Refuse what is not a number of processes, what cannot be had here, and what does not go with several.

    >>> check_workers(2, limit=5)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: workers does not go with limit: leave one of them out
    """
    if workers is None:
        return
    check_integer("workers", workers, 1)
    for name, value in others.items():
        if value not in (None, False):
            raise InvalidRequest(f"workers does not go with {name}: leave one of them out")
    if "fork" not in multiprocessing.get_all_start_methods():
        raise InvalidRequest("workers needs processes that are forked, which this system does not have: leave it out")
    if threading.current_thread() is not threading.main_thread():
        raise InvalidRequest("workers are forked from the main thread alone: explore there, or leave it out")


def in_order(explored: Callable[[G], T], given: Sequence[G], workers: int) -> Generator[T, None, None]:
    """What became of each, in this order, by so many processes. Ends them, however it ends itself."""
    crew: list[_Worker[G, T]] = []
    idle, busy = list[_Worker[G, T]](), dict[Any, _Worker[G, T]]()
    done: dict[int, T | _Ended] = {}
    handed_out = told = 0
    try:
        for _ in range(min(workers, len(given))):
            crew.append(_Worker(explored, given, [worker.line for worker in crew]))
        idle += crew
        while told < len(given):
            while idle and handed_out < len(given):
                worker = idle.pop()
                worker.begin(handed_out)
                busy[worker.line] = worker
                handed_out += 1
            if told in done:
                part = done.pop(told)
                told += 1
                if isinstance(part, _Ended):
                    raise part.error()
                yield part
                continue
            for line in wait([*busy]):
                worker = busy.pop(line)
                done[worker.number] = worker.answer()
                idle.append(worker)
    finally:
        for worker in crew:
            worker.end()


class _Worker(Generic[G, T]):
    """A process that explores one part after the other."""

    def __init__(
        self,
        explored: Callable[[G], T],
        given: Sequence[G],
        others: Sequence[Connection],
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.line, line = context.Pipe()
        self.number = -1
        self._process = context.Process(target=_work, args=(line, explored, given, [*others, self.line]), daemon=True)
        self._process.start()
        line.close()

    def begin(self, number: int) -> None:
        """Have it explore the part of this number."""
        self.number = number
        self.line.send(number)

    def answer(self) -> "T | _Ended":
        """What became of it. Raises `WorkerDied` where nobody says so any more."""
        try:
            answer: T | _Ended = self.line.recv()
        except EOFError:
            self._process.join()
            raise WorkerDied(
                f"a process that explored has ended with {self._process.exitcode}, where a number below 0 is a signal: "
                "explore without workers to see where"
            ) from None
        return answer

    def end(self) -> None:
        """End it, whatever it does."""
        self.line.close()
        self._process.kill()
        self._process.join()


def _work(
    line: Connection,
    explored: Callable[[G], T],
    given: Sequence[G],
    of_parent: Sequence[Connection],
) -> None:
    # Else this one would not notice that there is no parent any more.
    for other in of_parent:
        other.close()
    # Ctrl-C goes to all processes of a terminal; the one that waits for these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            number = line.recv()
        except EOFError:
            return
        try:
            answer: T | _Ended = explored(given[number])
        except BaseException as error:
            answer = _Ended.by(error)
        line.send(answer)


class _Ended(NamedTuple):
    """An error that has ended an exploration, as it can be sent: pickled, or in words where that does not go."""

    pickled: bytes
    outcome: str
    told: str
    notes: tuple[str, ...]

    @classmethod
    def by(cls, error: BaseException) -> "_Ended":
        """What ended it."""
        notes = tuple(getattr(error, "__notes__", ()))
        if _outcome_of_pytest(type(error).__name__) is type(error):
            return cls(b"", type(error).__name__, str(error), notes)
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)  # noqa: S301 - what was made in the line before
        except Exception:
            # Not every error can be made again from its arguments, or has a name that another process finds.
            pickled = b""
        return cls(pickled, "", told_error(error), notes)

    def error(self) -> BaseException:
        """The error again, or one that tells of it."""
        if self.pickled:
            again: BaseException = pickle.loads(self.pickled)  # noqa: S301 - from a process that this one has forked
            return again
        of_pytest = _outcome_of_pytest(self.outcome)
        told = RuntimeError(f"in a process that explored: {self.told}") if of_pytest is None else of_pytest(self.told)
        for note in self.notes:
            told.add_note(note)
        return told


def _outcome_of_pytest(name: str) -> type[BaseException] | None:
    """The class of an outcome of pytest's, which pickle looks for in the wrong place."""
    outcomes = sys.modules.get("_pytest.outcomes")
    return getattr(outcomes, name, None) if name in ("Skipped", "XFailed", "Exit") else None
