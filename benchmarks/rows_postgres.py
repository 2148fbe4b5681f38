"""The store on PostgreSQL, against bare inserts, and against ``eventsourcing`` with its own recorder: one server."""

import atexit
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from itertools import count

import msgspec
import psycopg
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from benchmarks.appends import STREAM_COUNT, Appends, append_in_programs, append_together, prepared_appends
from benchmarks.recorders import BATCH, insert_in_batches, read_all, read_all_of_store, stored
from benchmarks.table import Bound, Row, rate
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.postgres.private_server import PrivateServer
from persist_effects import Draft, log

SINGLE_APPENDS = 1_000
WRITERS = 16

_SCHEMAS = count(1)
_encode = msgspec.msgpack.Encoder().encode


@cache
def server() -> PrivateServer:
    made = PrivateServer()
    atexit.register(made.stop)
    return made


def ours(how: Callable[[Store, Appends], None]) -> Callable[[Appends], float]:
    def on_a_new_store(appends: Appends) -> float:
        with open_store(server().url(f"ours_{next(_SCHEMAS)}", connections="20")) as store:
            return rate(len(appends.orders), lambda: how(store, appends))

    return on_a_new_store


def append_in_batches(store: Store, appends: Appends) -> None:
    for start in range(0, len(appends.orders), BATCH):
        drafts = [Draft("placed", placed) for placed in appends.orders[start : start + BATCH]]
        store.run(log.append_many(appends.names[start // BATCH % STREAM_COUNT], drafts))


def append_in_threads(store: Store, appends: Appends) -> None:
    def append_share(first: int) -> None:
        for number in range(first, len(appends.orders), WRITERS):
            store.run(log.append(appends.names[number % STREAM_COUNT], "placed", appends.orders[number]))

    _in_threads(append_share)


def _in_threads(append_share: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(WRITERS) as threads:
        for _ in threads.map(append_share, range(WRITERS)):
            pass


def own_singles(appends: Appends) -> float:
    return ours(append_in_programs)(appends.first(SINGLE_APPENDS))


def read_all_of_ours(appends: Appends) -> float:
    with open_store(server().url(f"ours_{next(_SCHEMAS)}")) as store:
        append_in_batches(store, appends)
        return read_all_of_store(store, len(appends.orders))


def bare_inserts(appends: Appends) -> float:
    """The same row, in a table with the same indexes, by a prepared statement that knows all."""
    with closing(psycopg.connect(server().url("", database="postgres").partition("&schema=")[0])) as connection:
        connection.autocommit = True
        connection.prepare_threshold = 0
        table = f"bare_{next(_SCHEMAS)}"
        connection.execute(
            f"CREATE TABLE {table} (position bigint PRIMARY KEY, stream bigint NOT NULL, seq bigint NOT NULL, "
            "type text NOT NULL, at bigint NOT NULL, data bytea NOT NULL, meta bytea, noted bigint[])"
        )
        connection.execute(f"CREATE UNIQUE INDEX ON {table} (stream, seq)")
        insert = f"INSERT INTO {table} (position, stream, seq, type, at, data) VALUES (%s, %s, %s, %s, %s, %s)"  # noqa: S608
        cursor = connection.cursor(binary=True)

        def insert_all() -> None:
            for number, placed in enumerate(appends.orders):
                stream, seq = number % STREAM_COUNT, number // STREAM_COUNT + 1
                cursor.execute(insert, (number, stream, seq, "placed", number, _encode(placed)))

        return rate(len(appends.orders), insert_all)


@contextmanager
def recorder(pool_size: int = 1) -> Iterator[PostgresApplicationRecorder]:
    datastore = PostgresDatastore(
        dbname="postgres", host=str(server().directory), port=5432, user="postgres", password="", pool_size=pool_size
    )
    with datastore:
        made = PostgresApplicationRecorder(datastore, events_table_name=f"theirs_{next(_SCHEMAS)}")
        made.create_table()
        yield made


def theirs(how: Callable[[PostgresApplicationRecorder, Appends], None]) -> Callable[[Appends], float]:
    def with_a_new_table(appends: Appends) -> float:
        with recorder(WRITERS) as made:
            return rate(len(appends.orders), lambda: how(made, appends))

    return with_a_new_table


def insert_in_turn(made: PostgresApplicationRecorder, appends: Appends) -> None:
    for number in range(len(appends.orders)):
        made.insert_events([stored(appends, number)])


def insert_in_threads(made: PostgresApplicationRecorder, appends: Appends) -> None:
    def insert_share(first: int) -> None:
        for number in range(first, len(appends.orders), WRITERS):
            made.insert_events([stored(appends, number)])

    _in_threads(insert_share)


def read_all_of_theirs(appends: Appends) -> float:
    with recorder() as made:
        insert_in_batches(made, appends)
        return read_all(made, len(appends.orders))


ONE_BY_ONE = Row(
    name="postgresql: append, one program after another, against a bare insert of the same row",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=0.7,
    operations=2_000,
    prepare=prepared_appends,
    ours=ours(append_in_programs),
    peer=bare_inserts,
)

ROWS = (
    ONE_BY_ONE,
    ONE_BY_ONE._replace(
        name="postgresql: append, one program after another, against eventsourcing's recorder",
        must=2.0,
        peer=theirs(insert_in_turn),
    ),
    ONE_BY_ONE._replace(
        name="postgresql: append, 100 events a commit, against eventsourcing's recorder",
        must=4.0,
        operations=20_000,
        ours=ours(append_in_batches),
        peer=theirs(insert_in_batches),
    ),
    ONE_BY_ONE._replace(
        name="postgresql: append, 16 writers at once, against eventsourcing's recorder",
        must=4.0,
        operations=3_000,
        ours=ours(append_in_threads),
        peer=theirs(insert_in_threads),
    ),
    ONE_BY_ONE._replace(
        name="postgresql: append, 1,000 programs by run_many, against its single append",
        must=10.0,
        operations=20_000,
        ours=ours(append_together),
        peer=own_singles,
    ),
    ONE_BY_ONE._replace(
        name="postgresql: read all of 20,000 events, against eventsourcing's recorder with decoding",
        must=2.0,
        operations=20_000,
        ours=read_all_of_ours,
        peer=read_all_of_theirs,
    ),
)
