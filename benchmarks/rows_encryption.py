"""A store with encryption around it, against the same store without, in the same round: how many times the time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.appends import (
    BATCH_SIZE,
    Appends,
    append_in_batches,
    append_in_programs,
    append_together,
    prepared_appends,
)
from benchmarks.ground import drop_page_cache, new_directory
from benchmarks.orders import add_total, order
from benchmarks.table import Bound, Row, cost_ns
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.wrappers.encryption import open_encrypted
from persist_effects import Draft, log
from persist_effects.projection import project

Open = Callable[[Path], Store]
"""Opens the store in a directory."""

Prepare = Callable[[int], AbstractContextManager[Any]]

EVENTS_OF_ONE = 10
"""How many events a subject has, where there are many of them."""


def plain(directory: Path) -> Store:
    return open_store(f"file:{directory}/store", sync="os")


def encrypted(directory: Path) -> Store:
    """Each stream is about a subject of its own."""
    keys = f"file:{directory}/keys?sync=os"
    return open_encrypted(f"file:{directory}/store", keys=keys, subject_of=lambda name: name, sync="os")


# Append


def appending(how: Callable[[Store, Appends], None], open_it: Open) -> Callable[[Appends], float]:
    """Nothing but appends is timed: each subject has its key, as it has from its first event on."""

    def append(appends: Appends) -> float:
        with new_directory() as directory, open_it(directory) as store:
            append_in_programs(store, appends.first(BATCH_SIZE))
            return cost_ns(len(appends.orders), lambda: how(store, appends))

    return append


# Replay


class Replays(NamedTuple):
    """The same events in a store and in an encrypted one, of so many streams, and what they come to."""

    directory: Path
    events: int
    streams: int
    total_cents: int


@contextmanager
def prepared_replays(events_of_one: int | None, events: int) -> Iterator[Replays]:
    """Of one stream, or of as many as there are subjects with so many events each."""
    streams = 1 if events_of_one is None else events // events_of_one
    total_cents = sum(order(number)["total_cents"] for number in range(events))
    with new_directory() as directory:
        for name, open_it in (("plain", plain), ("encrypted", encrypted)):
            (directory / name).mkdir()
            with open_it(directory / name) as store:
                for start in range(0, events, BATCH_SIZE):
                    numbers = range(start, min(start + BATCH_SIZE, events))
                    _append_batch(store, numbers, streams)
        yield Replays(directory, events, streams, total_cents)


def _append_batch(store: Store, numbers: range, streams: int) -> None:
    if streams == 1:
        store.run(log.append_many("orders/0", [Draft("placed", order(number)) for number in numbers]))
    else:
        store.run_many(log.append(f"orders/{number % streams}", "placed", order(number)) for number in numbers)


def replaying(name: str, open_it: Open) -> Callable[[Replays], float]:
    """Opened and read, with nothing of the files in the page cache, each stream by a fold of its own."""

    def replay(replays: Replays) -> float:
        directory = replays.directory / name
        drop_page_cache(directory)

        def fold() -> None:
            with open_it(directory) as store:
                total_cents = sum(
                    store.run(project(f"orders/{number}", add_total, 0)).value for number in range(replays.streams)
                )
            assert total_cents == replays.total_cents

        return cost_ns(replays.events, fold)

    return replay


NEAR = 2
"""How many times the time it may take."""

BULK = 3
"""The same where it cannot be so little. A thousand events at once take the store inside 1.7 microseconds each. Of the
2.3 more that they take here, 0.6 are the cipher's; besides, each is encoded before it is encrypted, and again as an
envelope. Where each subject has few events, the key of each is read from the key store, as one more value.
"""


def _row(name: str, must: float, **rest: Any) -> Row:
    return Row(
        f"encrypted: {name}, against the same in the clear", unit="ns/event", bound=Bound.AT_MOST, must=must, **rest
    )


def _append_row(name: str, must: float, how: Callable[[Store, Appends], None]) -> Row:
    sides = {"ours": appending(how, encrypted), "peer": appending(how, plain)}
    return _row(name, must, operations=20_000, prepare=prepared_appends, **sides)


def _replay_row(name: str, must: float, operations: int, prepare: Prepare) -> Row:
    sides = {"ours": replaying("encrypted", encrypted), "peer": replaying("plain", plain)}
    return _row(name, must, operations=operations, prepare=prepare, **sides)


ROWS = (
    _append_row("append, a program for each event", NEAR, append_in_programs),
    _append_row("append, 1,000 programs together", NEAR, append_together),
    _append_row("append 1,000 at once", BULK, append_in_batches),
    _replay_row("replay one stream", NEAR, 100_000, partial(prepared_replays, None)),
    _replay_row("replay 5,000 subjects", BULK, 50_000, partial(prepared_replays, EVENTS_OF_ONE)),
)
