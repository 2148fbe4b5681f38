"""A store that is interrupted, with a ledger of what it has acknowledged."""

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from file_disks import contents, first_difference
from file_killed_child import WORKERS, numbers_in, write_of
from write_ledger import Ledger

from interpreters import Store
from interpreters.stores.file.store import FileStore
from persist_effects import StoreClosed, StoreUnavailable, UncertainOutcome, log, perform
from persist_effects.requests import Request

AFTERWARDS = WORKERS
"""The worker that goes on writing after an interrupt."""


class OpenLedger(Ledger):
    """A ledger for workers whose store is open in this process, so that it is known which of them were interrupted.

    What a worker begins and what is acknowledged is noted by a list's own methods, which no interrupt can come into.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed, WORKERS + 1)
        self.begun: list[int] = []
        self.refused: list[int] = []
        self.answers: list[tuple[int, Any]] = []
        self._unsettled: set[int] = set()

    def next_write(self, worker: int) -> Request[Any]:
        """The write that comes next."""
        number = self.workers[worker].done + sum(answered == worker for answered, _ in self.answers)
        return write_of(self.seed, worker, number)

    def take_answers(self) -> None:
        """Take what was noted into the ledger."""
        for worker in set(self.begun):
            answered = self.refused.count(worker) + sum(one == worker for one, _ in self.answers)
            if self.begun.count(worker) > answered:
                self._unsettled.add(worker)
        for worker, answer in self.answers:
            self.acknowledge(worker, numbers_in(answer))
        self.begun, self.refused, self.answers = [], [], []

    def may_have_one_more(self, worker: int) -> bool:
        return worker in self._unsettled

    def settle(self) -> None:
        """What was in flight is there or not, and that stays so."""
        self._unsettled.clear()

    def check_values(self, store: Store) -> None:
        """A copy without the positions and revisions of its original has what was acknowledged, and nothing more."""
        found = self.by_worker(contents(store.handlers))
        for worker in self.workers:
            wanted = worker.expects()
            assert found[worker.number] == wanted, first_difference(found[worker.number], wanted)


class Subject:
    """A store's directory beside others of the same round, and the store if it is open."""

    def __init__(self, base: Path, seed: int, number: int) -> None:
        self.base = base
        self.place = base / "store"
        self.random = Random(f"{seed} store {number}")
        self.ledger = OpenLedger(seed)
        self.store: Store | None = None
        self.other: Store | None = None
        self.lines: list[bytes] = []
        self.is_twice = False
        self._threads: Sequence[threading.Thread] = ()
        self._thread_errors: list[BaseException] = []
        self._is_over = threading.Event()
        self.options: dict[str, Any] = {}
        self.draw_options()

    def draw_options(self) -> None:
        self.options = {
            "sync": self.random.choice(["commit", "commit", "commit", "os", "interval"]),
            "segment_bytes": self.random.choice([4096, 4096, 16384]),
            "interval_seconds": 0.001,
        }

    def open(self) -> None:
        self.store = Store(FileStore(self.place, **self.options))

    def opened(self) -> Store:
        assert self.store is not None, "an operation that needs an open store is given one"
        return self.store

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    def close_other(self) -> None:
        """Close the other store."""
        if self.other is not None:
            self.other.close()
            self.other = None

    def end_uncleanly(self) -> None:
        """Have the directory as it is where the process dies now, and the store open no more."""
        copy = self.base / "copy"
        shutil.copytree(self.place, copy)
        self.close()
        shutil.rmtree(self.place)
        copy.rename(self.place)

    # Writing

    def write(self, *workers: int) -> None:
        """Carry out the next write of each worker, and note what is acknowledged."""
        ledger = self.ledger
        requests = [ledger.next_write(worker) for worker in workers]
        ledger.begun.extend(workers)
        try:
            if len(workers) == 1:
                ledger.answers.append((workers[0], self.opened().run(perform(requests[0]))))
            else:
                answers = self.opened().run_many(map(perform, requests))
                ledger.answers.extend(zip(workers, answers, strict=True))
        except StoreUnavailable:
            # It says of itself that nothing was written.
            ledger.refused.extend(workers)
            raise

    def begin_threads(self, workers: Sequence[int]) -> None:
        """Have each of these workers write from a thread of its own, until `end_threads`."""
        self._is_over.clear()
        self._threads = [threading.Thread(target=self._work, args=(worker,)) for worker in workers]
        for thread in self._threads:
            thread.start()

    def _work(self, worker: int) -> None:
        try:
            while not self._is_over.is_set():
                self.write(worker)
        except (StoreUnavailable, UncertainOutcome):
            # An interrupt came in the middle of a commit.
            return
        except BaseException as error:
            self._thread_errors.append(error)

    def end_threads(self) -> None:
        """Wait for the threads that write. Raises what one of them has raised."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        for error in self._thread_errors:
            raise error

    # Looking

    def look(self, *, settles: bool) -> None:
        """What was acknowledged is there. With ``settles`` what was in flight and is not there may not come later."""
        self.ledger.check(self.opened())
        if settles:
            self.ledger.settle()

    def goes_on(self) -> bool:
        """Write some more in the same store. False where it asks to be opened anew."""
        try:
            # Those of a worker may change nothing, as when they delete what is not there.
            self.opened().run(log.append("goes on", "made", 0))
            for _ in range(3):
                self.write(AFTERWARDS)
        except (StoreUnavailable, UncertainOutcome) as error:
            return not _check_asks_to_be_opened_anew(error)
        finally:
            self.ledger.take_answers()
        return True

    def can_be_read(self) -> bool:
        """Look at what was acknowledged in the same store. False where it asks to be opened anew."""
        try:
            self.look(settles=False)
        except StoreUnavailable as error:
            return not _check_asks_to_be_opened_anew(error)
        return True


def _check_asks_to_be_opened_anew(error: Exception) -> bool:
    is_known = type(error) in (StoreUnavailable, StoreClosed, UncertainOutcome)
    if not is_known or "open it again" not in str(error):
        raise error
    return True


def descriptors(under: Path) -> dict[str, str]:
    """The open descriptors of what is in a directory, and the paths that they were opened by."""
    found: dict[str, str] = {}
    for name in os.listdir("/dev/fd"):
        try:
            path = os.readlink(f"/dev/fd/{name}")
        except OSError:
            continue  # that of the listing itself
        if path.startswith(str(under)):
            found[name] = path
    return found
