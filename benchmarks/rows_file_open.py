"""Opening large file stores, and the memory that their indexes take, against fixed limits.

Opening is timed until the store has answered its first request, so nothing that it needs can be put off. The files
are in the page cache.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.built_stores import (
    batches_store,
    killed_store,
    many_keys_store,
    many_streams_store,
    single_appends_store,
)
from benchmarks.ground import BENCH, copy_of, open_file_store
from benchmarks.table import Bound, Row, seconds
from interpreters.runtime.store import Store
from persist_effects import log


class Built(NamedTuple):
    """A store and how many events it has."""

    directory: Path
    event_count: int


def prepared(build: Callable[[int], Path]) -> Callable[[int], AbstractContextManager[Built]]:
    @contextmanager
    def prepare(count: int) -> Iterator[Built]:
        yield Built(build(count), count)

    return prepare


def open_seconds(directory: Path, event_count: int, stream: str = "orders/00000") -> float:
    opened: list[Store] = []
    answers: list[int] = []

    def open_and_ask() -> None:
        opened.append(open_file_store(directory))
        answers.append(opened[0].run(log.last_seq(stream)))

    taken = seconds(open_and_ask)
    with opened[0] as store:
        assert answers[0] > 0
        newest = store.run(log.page_all(after=event_count - 1))
        assert (len(newest.events), newest.head) == (1, event_count), "the store is not whole"
    return taken


def open_clean(built: Built) -> float:
    return open_seconds(*built)


def open_killed(built: Built) -> float:
    with copy_of(built.directory) as directory:
        return open_seconds(directory, built.event_count)


def bytes_per_event(built: Built) -> float:
    """By a fresh process: see `benchmarks.index_memory`."""
    command = [sys.executable, "-m", "benchmarks.index_memory", str(built.directory)]
    child = subprocess.run(command, cwd=BENCH.parent.parent, stdout=subprocess.PIPE, check=True)  # noqa: S603
    return int(child.stdout) / built.event_count


CLEAN = Row(
    name="file: open after a clean close, single appends to 10,000 streams",
    unit="s",
    bound=Bound.AT_MOST,
    must=1.0,
    operations=1_000_000,
    prepare=prepared(single_appends_store),
    ours=open_clean,
    peer=lambda _: 0.2,
)
MEMORY = CLEAN._replace(
    name="file: memory for each event's index, single appends",
    unit="bytes",
    ours=bytes_per_event,
    peer=lambda _: 16.0,
    rounds=3,
)

ROWS = (
    CLEAN,
    CLEAN._replace(
        name="file: open after a clean close, one event in each of 1,000,000 streams",
        prepare=prepared(many_streams_store),
        ours=lambda built: open_seconds(built.directory, built.event_count, "orders/00000000"),
        peer=lambda _: 0.3,
        rounds=3,
    ),
    MEMORY._replace(
        name="file: memory for each stream's index, one event in each",
        operations=200_000,
        prepare=prepared(many_streams_store),
        peer=lambda _: 230.0,
    ),
    MEMORY._replace(
        name="file: memory for each key's index",
        operations=200_000,
        prepare=prepared(many_keys_store),
        peer=lambda _: 160.0,
    ),
    CLEAN._replace(
        name="file: open after a clean close, batches of 1,000",
        operations=10_000_000,
        prepare=prepared(batches_store),
        peer=lambda _: 0.5,
    ),
    CLEAN._replace(
        name="file: open after a kill, single appends to 10,000 streams",
        prepare=prepared(killed_store),
        ours=open_killed,
        peer=lambda _: 1.5,
        rounds=3,
    ),
    MEMORY,
    MEMORY._replace(
        name="file: memory for each event's index, batches of 1,000",
        operations=10_000_000,
        prepare=prepared(batches_store),
        peer=lambda _: 1.0,
    ),
)
