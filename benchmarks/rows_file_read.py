"""Reading from the file store, and its keys, against LMDB."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.built_stores import one_stream_lmdb, one_stream_store, single_appends_store
from benchmarks.ground import drop_page_cache, new_directory, open_file_store
from benchmarks.orders import add_total, order
from benchmarks.peers import LmdbStore, lmdb_store
from benchmarks.table import Bound, Row, rate
from interpreters.runtime.store import Store
from persist_effects import kv
from persist_effects.machine import Effect
from persist_effects.projection import State, project, project_all

SEED = 0x5EED
HOT_KEYS = 1_000


# Replay


class Replays(NamedTuple):
    """The same events, in a store of ours and in LMDB, and what they come to."""

    event_count: int
    total_cents: int
    store: Path
    lmdb: Path


def prepared_replays(build: Callable[[int], Path]) -> Callable[[int], AbstractContextManager[Replays]]:
    @contextmanager
    def prepare(count: int) -> Iterator[Replays]:
        total_cents = sum(order(number)["total_cents"] for number in range(count))
        yield Replays(count, total_cents, build(count), one_stream_lmdb(count))

    return prepare


def replay(projected: Callable[[], Effect[State]]) -> Callable[[Replays], float]:
    """Opened and read, with nothing of the files in the page cache."""

    def replay_ours(replays: Replays) -> float:
        drop_page_cache(replays.store)

        def fold() -> None:
            with open_file_store(replays.store) as store:
                state = store.run(projected())
            assert state.value == replays.total_cents

        return rate(replays.event_count, fold)

    return replay_ours


def replay_lmdb(replays: Replays) -> float:
    """The peer's, opened and read likewise."""
    drop_page_cache(replays.lmdb)

    def fold() -> None:
        with lmdb_store(replays.lmdb, sync=True) as store:
            total_cents = store.fold(add_total, 0)
        assert total_cents == replays.total_cents

    return rate(replays.event_count, fold)


# Keys


class Keys(NamedTuple):
    """Entries in an order that has nothing to do with their keys'."""

    entries: list[tuple[str, Any]]

    @property
    def in_another_order(self) -> list[str]:
        """The keys, shuffled anew but the same in every run."""
        keys = [key for key, _ in self.entries]
        random.Random(SEED).shuffle(keys)  # noqa: S311 - no secret
        return keys


@contextmanager
def prepared_keys(count: int) -> Iterator[Keys]:
    entries = [(f"orders/{number:08}", order(number)) for number in range(count)]
    random.Random(SEED).shuffle(entries)  # noqa: S311 - no secret
    yield Keys(entries)


class Filled(NamedTuple):
    """Both stores with the same values, and the keys in the order in which to get them."""

    store: Store
    lmdb: LmdbStore
    keys: list[str]


@contextmanager
def filled_stores(count: int) -> Iterator[Filled]:
    with ExitStack() as stack:
        keys = stack.enter_context(prepared_keys(count))
        directory = stack.enter_context(new_directory())
        store = stack.enter_context(open_file_store(directory / "store", sync="os"))
        lmdb = stack.enter_context(lmdb_store(directory / "lmdb", sync=False))
        put(store, keys)
        lmdb.put_each(keys.entries)
        yield Filled(store, lmdb, keys.in_another_order)


@contextmanager
def hot_keys(count: int) -> Iterator[Filled]:
    """The same, where a few of the keys are got as often as all of them together would be."""
    with filled_stores(count) as filled:
        yield filled._replace(keys=[filled.keys[number % HOT_KEYS % count] for number in range(count)])


def get(store: Store, keys: list[str]) -> None:
    """Each value by a program of its own."""
    for key in keys:
        assert store.run(kv.get(key)) is not None


def get_lmdb(store: LmdbStore, keys: list[str]) -> None:
    for value in store.get_each(keys):
        assert value is not None


def put(store: Store, keys: Keys) -> None:
    """Each value by a program of its own."""
    for key, value in keys.entries:
        store.run(kv.put(key, value))


def put_to_new_store(keys: Keys) -> float:
    with new_directory() as directory, open_file_store(directory / "store", sync="os") as store:
        return rate(len(keys.entries), lambda: put(store, keys))


def put_to_new_lmdb(keys: Keys) -> float:
    with new_directory() as directory, lmdb_store(directory, sync=False) as store:
        return rate(len(keys.entries), lambda: store.put_each(keys.entries))


REPLAY = Row(
    name="file: cold replay of one stream, against a cursor of LMDB's with decoding",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=1.0,
    operations=1_000_000,
    prepare=prepared_replays(one_stream_store),
    ours=replay(lambda: project("orders", add_total, 0)),
    peer=replay_lmdb,
    rounds=5,
)

ROWS = (
    REPLAY,
    REPLAY._replace(
        name="file: cold read of all streams, 1,000 events a commit, against a cursor of LMDB's with decoding",
        ours=replay(lambda: project_all("", add_total, 0)),
    ),
    REPLAY._replace(
        name="file: cold read of all streams, single appends to 10,000, against a cursor of LMDB's with decoding",
        prepare=prepared_replays(single_appends_store),
        ours=replay(lambda: project_all("", add_total, 0)),
    ),
    Row(
        name="file: kv get at random, against LMDB",
        unit="gets/s",
        bound=Bound.AT_LEAST,
        must=0.45,
        operations=100_000,
        prepare=filled_stores,
        ours=lambda filled: rate(len(filled.keys), lambda: get(filled.store, filled.keys)),
        peer=lambda filled: rate(len(filled.keys), lambda: get_lmdb(filled.lmdb, filled.keys)),
    ),
    Row(
        name="file: kv get of 1,000 keys again and again, against LMDB",
        unit="gets/s",
        bound=Bound.AT_LEAST,
        must=0.9,
        operations=100_000,
        prepare=hot_keys,
        ours=lambda filled: rate(len(filled.keys), lambda: get(filled.store, filled.keys)),
        peer=lambda filled: rate(len(filled.keys), lambda: get_lmdb(filled.lmdb, filled.keys)),
    ),
    Row(
        name="file: kv put with sync=os, against LMDB without sync",
        unit="puts/s",
        bound=Bound.AT_LEAST,
        must=0.6,
        operations=30_000,
        prepare=prepared_keys,
        ours=put_to_new_store,
        peer=put_to_new_lmdb,
    ),
)
