"""Large stores, each built once in a run and used by all rows that ask for it.

Rows that change a store take a copy. ``python -m benchmarks.built_stores DIRECTORY COUNT`` builds the store of single
appends and then waits, open, to be killed.
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.appends import BATCH_SIZE
from benchmarks.ground import BENCH, lasting_directory, open_file_store
from benchmarks.orders import order
from benchmarks.peers import lmdb_store
from interpreters.runtime.store import Store
from persist_effects import Draft, Event, log, transact
from persist_effects.machine import perform
from persist_effects.requests import Append, KvPut, Request

STREAM_COUNT = 10_000
BATCHED_STREAM_COUNT = 1_000
POOL_SIZE = 10
"""How many different batches the largest store repeats: making ten million orders takes longer than storing them."""

VERSIONS = 20
"""How often each key is put, and out of how many events one is kept: 1 record in 20 is alive, 95 % are dead."""

BUILT = "built"


@cache
def single_appends_store(count: int) -> Path:
    """Events in many streams in turn, each appended by a commit of its own; closed."""
    directory = _new_place("single-appends")
    with open_file_store(directory, sync="os") as store:
        append_single(store, count)
    return directory


@cache
def killed_store(count: int) -> Path:
    """The same, left by a process that was killed once the last append was acknowledged. Copy it: opening mends it."""
    directory = _new_place("killed")
    command = [sys.executable, "-m", "benchmarks.built_stores", str(directory), str(count)]
    with subprocess.Popen(  # noqa: S603 - this module
        command, cwd=BENCH.parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = child.stdout.readline().strip()
        child.kill()
    assert said == BUILT, f"{' '.join(command)} did not build the store: see its error above"
    return directory


@cache
def batches_store(count: int) -> Path:
    """Events in batches, each of them one commit to one of many streams in turn; closed."""
    directory = _new_place("batches")
    pool = [_drafts(start, start + min(BATCH_SIZE, count)) for start in range(0, POOL_SIZE * BATCH_SIZE, BATCH_SIZE)]
    with open_file_store(directory, sync="os") as store:
        for batch, start in enumerate(range(0, count, BATCH_SIZE)):
            drafts = pool[batch % POOL_SIZE][: count - start]
            store.run(log.append_many(f"orders/{batch % BATCHED_STREAM_COUNT:05}", drafts))
    return directory


@cache
def one_stream_store(count: int) -> Path:
    """Events of one stream, ``orders``, appended in batches; closed."""
    directory = _new_place("one-stream")
    with open_file_store(directory, sync="os") as store:
        for start in range(0, count, BATCH_SIZE):
            store.run(log.append_many("orders", _drafts(start, min(start + BATCH_SIZE, count))))
    return directory


@cache
def one_stream_lmdb(count: int) -> Path:
    """The same events in LMDB."""
    directory = _new_place("one-stream-lmdb")
    starts = range(0, count, BATCH_SIZE)
    with lmdb_store(directory, sync=False) as store:
        store.append_batches(
            [
                Event("orders", number + 1, "placed", 1_700_000_000_000_000, order(number), number + 1)
                for number in range(start, min(start + BATCH_SIZE, count))
            ]
            for start in starts
        )
    return directory


@cache
def mostly_dead_store(count: int) -> Path:
    """Records of which 1 in ``VERSIONS`` is alive: half of them events, half puts; closed.

    Of each batch of events the last are kept. The puts go to the same keys over and over, each time with another value.
    """
    directory = _new_place("mostly-dead")
    half = count // 2
    key_count = max(1, half // VERSIONS)
    with open_file_store(directory, sync="os") as store:
        for start in range(0, half, BATCH_SIZE):
            size = min(BATCH_SIZE, half - start)
            events = Append(f"orders/{start:08}", tuple(_drafts(start, start + size)))
            puts = [KvPut(f"latest/{n % key_count:08}", order(n)) for n in range(start, start + size)]
            store.run(transact(events, *puts))
        for start in range(0, half, BATCH_SIZE):
            size = min(BATCH_SIZE, half - start)
            store.run(log.truncate_through(f"orders/{start:08}", size - size // VERSIONS))
    return directory


@cache
def many_streams_store(count: int) -> Path:
    """One event in each of many streams; closed."""
    return _filled("many-streams", (Append(f"orders/{number:08}", _EVENT) for number in range(count)))


@cache
def many_keys_store(count: int) -> Path:
    """Many keys; closed."""
    return _filled("many-keys", (KvPut(f"orders/{number:08}", number) for number in range(count)))


_EVENT = (Draft("placed", None),)


def _filled(name: str, writes: Iterator[Append | KvPut]) -> Path:
    directory = _new_place(name)
    with open_file_store(directory, sync="os") as store:
        fill(store, writes)
    return directory


def fill(store: Store, writes: Iterator[Request[Any]]) -> None:
    """Make the writes, some together."""
    while some := list(islice(writes, BATCH_SIZE)):
        store.run_many(map(perform, some))


def append_single(store: Store, count: int) -> None:
    """Append each event by a program of its own, to many streams in turn."""
    for number in range(count):
        store.run(log.append(f"orders/{number % STREAM_COUNT:05}", "placed", order(number)))


def _drafts(start: int, end: int) -> list[Draft]:
    return [Draft("placed", order(number)) for number in range(start, end)]


def _new_place(name: str) -> Path:
    # Stores of several sizes may be built in one process, so the name alone does not do.
    return lasting_directory() / f"{len(list(lasting_directory().iterdir())):03}-{name}"


def _build_and_wait(directory: str, count: str) -> None:
    store = open_file_store(Path(directory), sync="os")
    append_single(store, int(count))
    print(BUILT, flush=True)
    sys.stdin.read()  # Ends with the parent, should that be killed first.


if __name__ == "__main__":
    _build_and_wait(*sys.argv[1:])
