"""`make interrupts`: Ctrl-C at a drawn moment of everything that a store does, again and again; then a look at it.

    python tests/stores/file/interrupt_sweep.py --seed 0 --interrupts 2000      all of it
    python tests/stores/file/interrupt_sweep.py --seed 0 --store 17 --times 50  the rounds of one store, so often

An interrupt is a signal that comes for real, so when it comes depends on the machine. What is said of the store
afterwards must not: whatever moment it was, each of the facts below holds. A store lives through some rounds, each an
operation that is interrupted. On standard output stand lines of JSON: each failure, and the counts at the end.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import io
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import anyio
from file_disks import contents
from file_killed_child import TASKS, THREADS, TOGETHER, WORKERS
from interrupt_alarm import BEYOND, IN_MEMORY, PLACES, Alarm, Interrupted
from interrupt_store import Subject, descriptors

from interpreters import Store, jsonl
from interpreters.stores.file.store import FileReader, FileStore
from interpreters.stores.file.upkeep import operations
from persist_effects import InvalidRequest, perform

ROUNDS_OF_A_STORE = 4
HANG_SECONDS = float(os.environ.get("INTERRUPT_HANG_SECONDS", "60"))
OWN_PACKAGES = ("interpreters", "persist_effects")


class Operation(NamedTuple):
    """Something that is interrupted, on an open store or a closed one; and how to look at what else it has made."""

    act: Callable[[Subject], None]
    is_on_open: bool = True
    look: Callable[[Subject], None] = lambda subject: None
    keeps_open: bool = True
    beside: Sequence[int] = ()
    """The workers that write meanwhile, from threads."""


# Operations


def write(subject: Subject) -> None:
    for _ in range(12):
        subject.write(subject.random.randrange(WORKERS))


def write_together(subject: Subject) -> None:
    for _ in range(5):
        subject.write(*TOGETHER)


def write_alone(subject: Subject) -> None:
    for _ in range(8):
        subject.write(TASKS[0])


def write_from_tasks(subject: Subject) -> None:
    ledger, store = subject.ledger, subject.opened()

    async def work(worker: int) -> None:
        for _ in range(4):
            request = ledger.next_write(worker)
            ledger.begun.append(worker)
            ledger.answers.append((worker, await store.arun(perform(request))))

    async def work_all() -> None:
        async with anyio.create_task_group() as group:
            for worker in TASKS:
                group.start_soon(work, worker)

    asyncio.run(work_all())


def close(subject: Subject) -> None:
    subject.opened().close()


def compact(subject: Subject) -> None:
    subject.opened().interpreter.compact()


def sync(subject: Subject) -> None:
    for _ in range(4):
        subject.write(0)
        subject.opened().interpreter.sync()


def read(subject: Subject) -> None:
    contents(subject.opened().handlers)


def open_and_close(subject: Subject) -> None:
    with Store(FileStore(subject.place, **subject.options)) as subject.store:
        subject.write(0)


def read_along(subject: Subject) -> None:
    with Store(FileReader(subject.place)) as reader:
        contents(reader.handlers)


def backup_open(subject: Subject) -> None:
    operations.backup(subject.opened().interpreter, subject.base / "made")


def backup_closed(subject: Subject) -> None:
    operations.backup(subject.place, subject.base / "made")


def salvage(subject: Subject) -> None:
    operations.salvage(subject.place, subject.base / "made")


def verify(subject: Subject) -> None:
    assert operations.verify(subject.place).is_sound


def export(subject: Subject) -> None:
    jsonl.export(subject.opened(), io.BytesIO())


def import_(subject: Subject) -> None:
    subject.other = Store(FileStore(subject.base / "made", **subject.options))
    jsonl.import_(subject.other, subject.lines)
    subject.close_other()


# What else they have made


def look_at_copy(make: Callable[[Subject], None], subject: Subject) -> None:
    """A copy is there whole or not at all, and can then be made."""
    made = subject.base / "made"
    unfinished = made.with_name("made.unfinished")
    if subject.is_twice and unfinished.exists():
        # Who interrupts the tidying up too is told what is left, and to remove it.
        with contextlib.suppress(InvalidRequest):
            make(subject)
        shutil.rmtree(unfinished, ignore_errors=True)
    if not made.exists():
        make(subject)
    assert operations.verify(made).is_sound
    with Store(FileStore(made)) as copy:
        subject.ledger.check_values(copy)
    shutil.rmtree(made)


def look_at_imported(subject: Subject) -> None:
    """What was imported by half is a sound store, and the next attempt makes a whole one."""
    made = subject.base / "made"
    subject.close_other()
    Store(FileStore(made)).close()
    assert operations.verify(made).is_sound
    shutil.rmtree(made)
    import_(subject)
    with Store(FileStore(made)) as copy:
        subject.ledger.check_values(copy)
    shutil.rmtree(made)


def whole_copy(make: Callable[[Subject], None], *, is_on_open: bool) -> Operation:
    return Operation(make, is_on_open, partial(look_at_copy, make))


OPERATIONS: dict[str, Operation] = {
    "open": Operation(Subject.open, is_on_open=False),
    "open and close": Operation(open_and_close, is_on_open=False, keeps_open=False),
    "close": Operation(close, keeps_open=False),
    "write": Operation(write),
    "write together": Operation(write_together),
    "write beside threads": Operation(write_alone, beside=THREADS),
    "write from tasks": Operation(write_from_tasks),
    "sync": Operation(sync),
    "read": Operation(read),
    "compact": Operation(compact),
    "compact beside threads": Operation(compact, beside=THREADS),
    "backup": whole_copy(backup_open, is_on_open=True),
    "backup by path": whole_copy(backup_closed, is_on_open=False),
    "salvage": whole_copy(salvage, is_on_open=False),
    "verify": Operation(verify, is_on_open=False),
    "read along": Operation(read_along, is_on_open=False),
    "export": Operation(export),
    "import": Operation(import_, look=look_at_imported),
}
OFTEN = ("open", "close", "write", "write together", "compact", "compact beside threads", "write beside threads")


# Rounds


class Failure(Exception):
    """A fact that did not hold."""


@contextlib.contextmanager
def fact(words: str) -> Iterator[None]:
    """Whatever is raised inside means that the fact does not hold."""
    try:
        yield
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
        raise Failure(f"{words}: {found} ({Path(where.filename).name}:{where.lineno})") from error


class Sweep:
    """Rounds of interrupts, each followed by a look."""

    def __init__(self, seed: int, only: str | None) -> None:
        self._seed = seed
        self._names = [only] if only else [*OPERATIONS, *OFTEN]
        self._alarm = Alarm()
        self._watchdog = Watchdog(self._alarm)
        self._seconds: dict[tuple[str, bool], list[float]] = defaultdict(list)
        self._printed: list[str] = []
        self.rounds = Counter[str]()
        self.raised = Counter[str]()
        self.counts = Counter[str]()
        sys.unraisablehook = self._note_unraisable

    def play_store(self, number: int, base: Path) -> None:
        """The rounds of one store, up to the first in which a fact does not hold."""
        place = Path(tempfile.mkdtemp(dir=base))
        subject = Subject(place, self._seed, number)
        self._threads_before = frozenset(threading.enumerate())
        try:
            self._prepare(subject)
            for turn in range(ROUNDS_OF_A_STORE):
                if not self._play(subject, number, turn):
                    break
        finally:
            with contextlib.suppress(Exception):
                subject.close()
            shutil.rmtree(place)
            self._printed.clear()

    def _prepare(self, subject: Subject) -> None:
        """Give it something to hold, or leave it to be made."""
        random = subject.random
        if random.random() < 0.2:
            return
        drawn = subject.options
        subject.options = drawn | {"sync": "os"}
        subject.open()
        for _ in range(random.choice([5, 20, 40])):
            subject.write(random.randrange(WORKERS))
        subject.options = drawn
        subject.ledger.take_answers()
        self._leave(subject)

    def _leave(self, subject: Subject) -> None:
        """Have it closed, or as a killed process leaves it."""
        (subject.close if subject.random.random() < 0.5 else subject.end_uncleanly)()

    def _play(self, subject: Subject, number: int, turn: int) -> bool:
        """Interrupt one operation, and look. False where a fact does not hold."""
        name = subject.random.choice(self._names)
        operation = OPERATIONS[name]
        self._make_ready(subject, operation)
        taken_seconds = self._seconds[name, str(subject.base).startswith(IN_MEMORY)]
        at_seconds = self._draw_moments(subject.random, operation, taken_seconds)
        self._watchdog.begin({"store": number, "turn": turn, "operation": name, "options": subject.options})
        # Whatever this was started by; and asyncio may have been interrupted before it put the handler back.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        subject.is_twice = len(at_seconds) > 1
        subject.begin_threads(operation.beside)
        done = self._alarm.during(partial(operation.act, subject), at_seconds)
        self.rounds[name] += 1
        self.raised[name] += done.was_raised
        if not done.places:
            taken_seconds.append(done.seconds)
        try:
            self._check(subject, operation, done)
        except Failure as failure:
            found = {"failure": str(failure), "places": done.places, "at_seconds": at_seconds}
            tell({"store": number, "turn": turn, "operation": name, "options": subject.options, **found})
            return False
        finally:
            self._watchdog.end()
        return True

    def _make_ready(self, subject: Subject, operation: Operation) -> None:
        """Have the store open or closed, as the operation needs it."""
        makes_store = operation.act in (Subject.open, open_and_close)
        if subject.store is None and (operation.is_on_open or not (makes_store or subject.place.exists())):
            subject.draw_options()
            subject.open()
        if not operation.is_on_open and subject.store is not None:
            self._leave(subject)
        if operation.act is import_:
            out = io.BytesIO()
            jsonl.export(subject.opened(), out)
            subject.lines = out.getvalue().splitlines(keepends=True)

    def _draw_moments(self, random: Random, operation: Operation, taken_seconds: list[float]) -> tuple[float, ...]:
        """When to interrupt. Not at all, as long as it is not known how long the operation takes."""
        share, is_twice, between = random.random(), random.random() < 0.1, random.uniform(2e-5, 4e-4)
        if len(taken_seconds) < 2:
            return ()
        # Pressed again while it ends its tasks, asyncio itself forgets what it was about to call.
        is_twice = is_twice and operation.act is not write_from_tasks
        at = max(share * BEYOND * statistics.median(taken_seconds), 1e-6)
        return (at, at + between) if is_twice else (at,)

    # Facts

    def _check(self, subject: Subject, operation: Operation, done: Interrupted) -> None:
        with fact("an operation that is interrupted ends by the interrupt, or well"):
            if done.error is not None:
                raise done.error
        with fact("threads beside it are told that the store is to be opened anew, or go on"):
            subject.end_threads()
        with fact("what it was making is there whole or not at all, and can be made again"):
            subject.ledger.take_answers()
            operation.look(subject)
        if subject.store is not None and operation.keeps_open:
            self._check_that_it_goes_on(subject, operation)
        with fact("the store can be closed"):
            subject.close()
            subject.close_other()
        held = _Held.now(subject.base, self._threads_before)
        with fact("the store can be opened anew in the same process"):
            subject.open()
        with fact("what was acknowledged is there when it is opened anew"):
            subject.look(settles=True)
        with fact("it takes writes when it is opened anew"):
            assert subject.goes_on(), "it asks to be opened anew again"
            subject.look(settles=True)
        with fact("it is sound"):
            report = operations.verify(subject.place)
            assert report.is_sound, f"{report.damages}"
        with fact("no file is left beside it"):
            names = sorted(path.name for path in subject.base.iterdir() if path != subject.place)
            assert not names, f"{names}"
        with fact("no descriptor and no thread was left"):
            if held:
                self._check_that_it_was_let_go_of(subject)
        with fact("nothing was printed"):
            printed, self._printed = self._printed, []
            assert not printed, "; ".join(printed)

    def _check_that_it_was_let_go_of(self, subject: Subject) -> None:
        """Who keeps an error keeps what its frames hold. But it must not be kept when the garbage was collected."""
        subject.close()
        gc.collect()
        held = _Held.now(subject.base, self._threads_before)
        assert not held, held.described()
        self.counts["let go of when the garbage was collected"] += 1

    def _check_that_it_goes_on(self, subject: Subject, operation: Operation) -> None:
        # What was sent from a task may be on its way still.
        is_quiet = operation.act is not write_from_tasks
        with fact("what was acknowledged can be read in the same store, or it asks to be opened anew"):
            can_be_read = not is_quiet or subject.can_be_read()
        with fact("it takes writes in the same store, or asks to be opened anew"):
            goes_on = subject.goes_on()
            assert can_be_read or not goes_on, "it takes writes, and what it has cannot be read"
            self.counts["went on" if goes_on else "asked to be opened anew"] += 1
        with fact("what was acknowledged in the same store can be read there"):
            if is_quiet and can_be_read:
                subject.look(settles=goes_on)

    def _note_unraisable(self, unraisable: Any) -> None:
        of = unraisable.object
        if str(getattr(of, "__module__", "")).startswith(OWN_PACKAGES):
            self._printed.append(f"{unraisable.exc_type.__name__} in {of.__qualname__}")
        else:
            # A callback of Python's own, as of a `WeakSet`, in which an interrupt is lost.
            self.counts["lost in Python's own callbacks"] += 1


class _Held(NamedTuple):
    """Descriptors and threads of this process."""

    descriptors: frozenset[tuple[str, str]]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls, base: Path, threads_before: frozenset[threading.Thread]) -> "_Held":
        """What is open of a directory, and the threads beyond those that were there before."""
        # The thread of that name ends by itself, when no task has asked for anything for a while.
        threads = [thread for thread in threading.enumerate() if thread.name != "persist-effects"]
        return cls(frozenset(descriptors(base).items()), _ending(frozenset(threads) - threads_before))

    def __bool__(self) -> bool:
        return bool(self.descriptors or self.threads)

    def described(self) -> str:
        names = [f"descriptor of {Path(file).name}" for _, file in self.descriptors]
        return ", ".join(sorted([*names, *(f"thread {thread.name}" for thread in self.threads)]))


def _ending(threads: frozenset[threading.Thread]) -> frozenset[threading.Thread]:
    """Those that do not end by themselves. A `join` that is interrupted makes Python 3.11 take a thread for ended."""
    patience = threading.Event()
    for _ in range(1000):
        left = threads & frozenset(threading.enumerate())
        if not left:
            break
        patience.wait(0.001)
    return left


class Watchdog:
    """Ends the process where a round does not end, and says which one it was, and where each thread is."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._line: dict[str, Any] = {}
        self._begins = threading.Semaphore(0)
        self._ends = threading.Semaphore(0)
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, line: dict[str, Any]) -> None:
        """A round begins."""
        self._line = line
        self._begins.release()

    def end(self) -> None:
        """It has ended."""
        self._ends.release()

    def _watch(self) -> None:
        while True:
            self._begins.acquire()
            if not self._ends.acquire(timeout=HANG_SECONDS):
                tell(self._line | {"failure": "it does not end", "places": self._alarm.places})
                faulthandler.dump_traceback()
                os._exit(1)


def tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interrupts", type=int, default=200, help="go on until so many came inside of an operation")
    parser.add_argument("--first", type=int, default=0, help="the number of the first store")
    parser.add_argument("--store", type=int, help="this store alone")
    parser.add_argument("--times", type=int, default=1, help="how often that store")
    parser.add_argument("--only", choices=OPERATIONS, help="this operation alone")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        bases = [Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place))) for place in PLACES]
        sweep = Sweep(options.seed, options.only)
        numbers = count(options.first) if options.store is None else [options.store] * options.times
        for number in numbers:
            sweep.play_store(number, bases[number % len(bases)])
            if options.store is None and sweep.raised.total() >= options.interrupts:
                break
        tell({"rounds": sweep.rounds, "raised": sweep.raised, "counts": sweep.counts})


if __name__ == "__main__":
    main()
