"""Compacting a file store of which 95 % is dead, against fixed limits. Each round compacts a copy."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.built_stores import mostly_dead_store
from benchmarks.ground import allocated_bytes, copy_of, open_file_store
from benchmarks.orders import order
from benchmarks.table import Bound, Row
from interpreters.runtime.store import Store
from persist_effects import log


@contextmanager
def prepared_mostly_dead(count: int) -> Iterator[Path]:
    yield mostly_dead_store(count)


def compact(store: Store) -> None:
    store.interpreter.compact()  # type: ignore[attr-defined] # which only the file store has


def share_left(built: Path) -> float:
    """What the files of the compacted store take of the disk, for each byte that they took before."""
    with copy_of(built) as directory:
        before_bytes = allocated_bytes(directory)
        with open_file_store(directory) as store:
            compact(store)
        return allocated_bytes(directory) / before_bytes


class Writer:
    """A thread that appends, durably, one event after the other, and notes the longest that it waited for one."""

    def __init__(self, store: Store) -> None:
        self.longest_seconds = 0.0
        self._store = store
        self._has_begun, self._is_over = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> "Writer":
        self._thread.start()
        self._has_begun.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        try:
            number = 0
            while not self._is_over.is_set():
                number += 1
                start = time.perf_counter()
                self._store.run(log.append("orders/meanwhile", "placed", order(number)))
                self.longest_seconds = max(self.longest_seconds, time.perf_counter() - start)
                self._has_begun.set()
        except BaseException as error:  # Raised where the writer ends.
            self._error = error
        finally:
            self._has_begun.set()


def longest_wait_ms(built: Path) -> float:
    """The longest that a writer waited for an append while the store was compacted."""
    with copy_of(built) as directory, open_file_store(directory) as store:
        with Writer(store) as writer:
            compact(store)
        return writer.longest_seconds * 1e3


SHARE_LEFT = Row(
    name="file: compact 1,000,000 records, 95 % dead: the share of the bytes that is left",
    unit="of the bytes",
    bound=Bound.AT_MOST,
    must=1.0,
    operations=1_000_000,
    prepare=prepared_mostly_dead,
    ours=share_left,
    peer=lambda _: 0.1,
    rounds=3,
)

ROWS = (
    SHARE_LEFT,
    SHARE_LEFT._replace(
        name="file: compact 1,000,000 records, 95 % dead: the longest that a writer waits meanwhile",
        unit="ms",
        ours=longest_wait_ms,
        peer=lambda _: 100.0,
    ),
)
