"""Appending to the file store, against the raw limit of one writer, SQLite and LMDB.

Each round appends to a new store, and to a new peer, in a new directory. Opening and closing are not timed. The raw
limit writes what stands for the same events, encoded before; the other peers encode them as they go, as we do.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from benchmarks.appends import (
    Appends,
    append_in_batches,
    append_in_programs,
    append_in_tasks,
    append_in_threads,
    append_together,
    events_in_batches,
    events_in_turn,
    prepared_appends,
)
from benchmarks.ground import new_directory, open_file_store
from benchmarks.peers import as_records, lmdb_store, raw_file, sqlite_log
from benchmarks.table import Bound, Row, rate
from interpreters.runtime.store import Store

P = TypeVar("P")

RAW_APPENDS_MAX = 2_000
"""The raw limit is a rate, the same however long it runs, so no round waits for more syncs than this."""


def ours(how: Callable[[Store, Appends], None], sync: str) -> Callable[[Appends], float]:
    def on_a_new_store(appends: Appends) -> float:
        with new_directory() as directory, open_file_store(directory / "store", sync=sync) as store:
            return rate(len(appends.orders), lambda: how(store, appends))

    return on_a_new_store


def raw_limit(appends: Appends) -> float:
    records = as_records(events_in_turn(appends.first(RAW_APPENDS_MAX)))
    size_bytes = sum(map(len, records))
    with new_directory() as directory, raw_file(directory / "raw", size_bytes) as raw:
        return rate(len(records), lambda: raw.append_each(records))


def peer(
    opened: Callable[[Path], AbstractContextManager[P]], how: Callable[[P, Appends], None]
) -> Callable[[Appends], float]:
    def on_a_new_peer(appends: Appends) -> float:
        with new_directory() as directory, opened(directory) as log:
            return rate(len(appends.orders), lambda: how(log, appends))

    return on_a_new_peer


ONE_BY_ONE = Row(
    name="file: durable append, one program after another, against the raw limit",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=0.7,
    operations=2_000,
    prepare=prepared_appends,
    ours=ours(append_in_programs, "commit"),
    peer=raw_limit,
)
IN_BATCHES = Row(
    name="file: durable append, 1,000 events a commit, against SQLite FULL",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=2.0,
    operations=50_000,
    prepare=prepared_appends,
    ours=ours(append_in_batches, "commit"),
    peer=peer(lambda path: sqlite_log(path, "FULL"), lambda log, given: log.append_batches(events_in_batches(given))),
)
UNSYNCED = Row(
    name="file: append with sync=os, one event a commit, against SQLite NORMAL",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=1.6,
    operations=30_000,
    prepare=prepared_appends,
    ours=ours(append_in_programs, "os"),
    peer=peer(lambda path: sqlite_log(path, "NORMAL"), lambda log, given: log.append_each(events_in_turn(given))),
)

ROWS = (
    ONE_BY_ONE,
    ONE_BY_ONE._replace(
        name="file: durable append, one program after another, against SQLite FULL",
        must=1.3,
        peer=peer(lambda path: sqlite_log(path, "FULL"), lambda log, given: log.append_each(events_in_turn(given))),
    ),
    ONE_BY_ONE._replace(
        name="file: durable append, 1,000 programs by run_many, against the raw limit of one writer",
        must=14.0,
        operations=20_000,
        ours=ours(append_together, "commit"),
    ),
    ONE_BY_ONE._replace(
        name="file: durable append, 64 threads, against the raw limit of one writer",
        must=4.0,
        operations=20_000,
        ours=ours(append_in_threads, "commit"),
    ),
    ONE_BY_ONE._replace(
        name="file: durable append, 1,000 asyncio tasks, against the raw limit of one writer",
        must=8.0,
        operations=20_000,
        ours=ours(append_in_tasks, "commit"),
    ),
    IN_BATCHES,
    IN_BATCHES._replace(
        name="file: durable append, 1,000 events a commit, against LMDB",
        must=0.9,
        peer=peer(
            lambda path: lmdb_store(path, sync=True), lambda log, given: log.append_batches(events_in_batches(given))
        ),
    ),
    UNSYNCED,
    UNSYNCED._replace(
        name="file: append with sync=os, one event a commit, against LMDB without sync",
        must=0.8,
        peer=peer(lambda path: lmdb_store(path, sync=False), lambda log, given: log.append_each(events_in_turn(given))),
    ),
)
