"""The store on SQLite, against SQLite itself, used as someone would who knows it well: see `benchmarks.peers`."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import NamedTuple

from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

from benchmarks.appends import (
    Appends,
    append_in_batches,
    append_in_programs,
    append_together,
    events_in_batches,
    events_in_turn,
    prepared_appends,
)
from benchmarks.ground import new_directory, ready_processes, tell_to_go
from benchmarks.peers import sqlite_log
from benchmarks.recorders import insert_in_batches, read_all, read_all_of_store
from benchmarks.rows_file_append import peer
from benchmarks.table import Bound, Row, rate, seconds
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from persist_effects import log

SINGLE_APPENDS = 1_000
"""A rate, the same however long it runs, so no round waits for more syncs than this."""


def ours(how: Callable[[Store, Appends], None], sync: str = "commit") -> Callable[[Appends], float]:
    def on_a_new_store(appends: Appends) -> float:
        with new_directory() as directory, open_store("sqlite:", path=directory / "app.db", sync=sync) as store:
            return rate(len(appends.orders), lambda: how(store, appends))

    return on_a_new_store


def own_singles(appends: Appends) -> float:
    first = appends.first(SINGLE_APPENDS)
    return ours(append_in_programs)(first)


def reading(how: Callable[[Store, int], float]) -> Callable[[Appends], float]:
    def of_a_new_store(appends: Appends) -> float:
        with new_directory() as directory, open_store("sqlite:", path=directory / "app.db", sync="os") as store:
            append_in_batches(store, appends)
            return how(store, len(appends.orders))

    return of_a_new_store


def read_and_kept(store: Store, count: int) -> float:
    return rate(count, lambda: _is(len(store.run(log.read_all())), count))


def sqlite_reads_all(appends: Appends) -> float:
    with new_directory() as directory, sqlite_log(directory, "NORMAL") as log_of_sqlite:
        log_of_sqlite.append_batches(events_in_batches(appends))
        return rate(len(appends.orders), lambda: _is(len(log_of_sqlite.read_all()), len(appends.orders)))


class Written(NamedTuple):
    """What processes that wrote at once came to."""

    seconds: float
    worst_seconds: float


def written_by(processes: int, count: int) -> Written:
    """So many events, by so many processes at once."""
    with new_directory() as directory:
        path, share = str(directory / "app.db"), str(count // processes)
        children = ready_processes(
            "benchmarks.sqlite_writer", [(path, str(number), share) for number in range(processes)]
        )
        said: list[str] = []

        def write_all() -> None:
            tell_to_go(children)
            said.extend(child.communicate()[0] for child in children)

        taken = seconds(write_all)
        return Written(taken, max(map(float, said)))


def their_recorder_reads_all(appends: Appends) -> float:
    with new_directory() as directory, closing(SQLiteDatastore(str(directory / "theirs.db"))) as datastore:
        made = SQLiteApplicationRecorder(datastore)
        made.create_table()
        insert_in_batches(made, appends)
        return read_all(made, len(appends.orders))


def _is(found: int, wanted: int) -> None:
    assert found == wanted, f"{found}, not {wanted}"


ONE_BY_ONE = Row(
    name="sqlite: durable append, one program after another, against a bare insert",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=0.9,
    operations=2_000,
    prepare=prepared_appends,
    ours=ours(append_in_programs),
    peer=peer(lambda path: sqlite_log(path, "FULL"), lambda log, given: log.append_each(events_in_turn(given))),
)

ROWS = (
    ONE_BY_ONE,
    ONE_BY_ONE._replace(
        name="sqlite: durable append, 1,000 events a commit, against a bare executemany",
        must=0.85,
        operations=50_000,
        ours=ours(append_in_batches),
        peer=peer(
            lambda path: sqlite_log(path, "FULL"), lambda log, given: log.append_batches(events_in_batches(given))
        ),
    ),
    ONE_BY_ONE._replace(
        name="sqlite: durable append, 1,000 programs by run_many, against its single append",
        must=15.0,
        operations=50_000,
        ours=ours(append_together),
        peer=own_singles,
    ),
    ONE_BY_ONE._replace(
        name="sqlite: durable append, four processes together, against one",
        must=0.9,
        operations=2_000,
        prepare=nullcontext,
        ours=lambda count: count / written_by(4, count).seconds,
        peer=lambda count: count / written_by(1, count).seconds,
    ),
    ONE_BY_ONE._replace(
        name="sqlite: durable append, the longest that one of four processes waits",
        unit="s",
        bound=Bound.AT_MOST,
        must=1.0,
        operations=2_000,
        prepare=nullcontext,
        ours=lambda count: written_by(4, count).worst_seconds,
        peer=lambda _: 0.5,
    ),
    ONE_BY_ONE._replace(
        name="sqlite: append with sync=os, one event a commit, against a bare insert",
        must=None,
        operations=20_000,
        ours=ours(append_in_programs, "os"),
        peer=peer(lambda path: sqlite_log(path, "NORMAL"), lambda log, given: log.append_each(events_in_turn(given))),
    ),
    ONE_BY_ONE._replace(
        name="sqlite: read all of 50,000 events, against eventsourcing's recorder with decoding",
        must=3.0,
        operations=50_000,
        ours=reading(read_all_of_store),
        peer=their_recorder_reads_all,
    ),
    ONE_BY_ONE._replace(
        name="sqlite: read all of 50,000 events, against a bare select with decoding",
        must=None,
        operations=50_000,
        ours=reading(read_and_kept),
        peer=sqlite_reads_all,
    ),
)
