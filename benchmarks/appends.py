"""Appending orders, by us in each of our ways, and as the events that a peer is given: the same in every row."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from benchmarks.orders import order
from interpreters.runtime.store import Store
from persist_effects import Draft, Event, log
from persist_effects.machine import Effect

STREAM_COUNT = 1_000
BATCH_SIZE = 1_000
PROGRAMS_TOGETHER = 1_000
THREAD_COUNT = 64
TASK_COUNT = 1_000


class Appends(NamedTuple):
    """Orders to append, one after the other to each of the streams in turn. Both sides' names are made before."""

    orders: list[dict[str, Any]]
    ids: list[UUID]
    names: list[str]

    def first(self, count: int) -> "Appends":
        """The first so many of them."""
        return self._replace(orders=self.orders[:count])


@contextmanager
def prepared_appends(count: int) -> Iterator[Appends]:
    ids = [UUID(int=0x5EED << 112 | number) for number in range(STREAM_COUNT)]
    yield Appends([order(number) for number in range(count)], ids, [f"orders/{uuid}" for uuid in ids])


# Ours


def append_in_programs(store: Store, appends: Appends) -> None:
    """Each event by a program of its own."""
    for number, placed in enumerate(appends.orders):
        store.run(log.append(appends.names[number % STREAM_COUNT], "placed", placed))


def append_in_one_program(store: Store, appends: Appends) -> None:
    """Each event by an append of its own, all of them in one program."""

    def program() -> Effect[None]:
        for number, placed in enumerate(appends.orders):
            yield from log.append(appends.names[number % STREAM_COUNT], "placed", placed)

    store.run(program())


def append_in_batches(store: Store, appends: Appends) -> None:
    """Many events of one stream by each append."""
    for start in range(0, len(appends.orders), BATCH_SIZE):
        drafts = [Draft("placed", placed) for placed in appends.orders[start : start + BATCH_SIZE]]
        store.run(log.append_many(appends.names[start // BATCH_SIZE % STREAM_COUNT], drafts))


def append_together(store: Store, appends: Appends) -> None:
    """Each event by a program of its own, many programs at once."""
    for start in range(0, len(appends.orders), PROGRAMS_TOGETHER):
        numbers = range(start, min(start + PROGRAMS_TOGETHER, len(appends.orders)))
        store.run_many(log.append(appends.names[n % STREAM_COUNT], "placed", appends.orders[n]) for n in numbers)


def append_in_threads(store: Store, appends: Appends) -> None:
    """Each event by a program of its own, in threads that each take their share of them."""

    def append_share(first: int) -> None:
        for number in range(first, len(appends.orders), THREAD_COUNT):
            store.run(log.append(appends.names[number % STREAM_COUNT], "placed", appends.orders[number]))

    with ThreadPoolExecutor(THREAD_COUNT) as threads:
        for _ in threads.map(append_share, range(THREAD_COUNT)):
            pass


def append_in_tasks(store: Store, appends: Appends, task_count: int = TASK_COUNT) -> None:
    """Each event by a program of its own, in asyncio's tasks that each take their share of them."""

    async def append_share(first: int) -> None:
        for number in range(first, len(appends.orders), task_count):
            await store.arun(log.append(appends.names[number % STREAM_COUNT], "placed", appends.orders[number]))

    async def append_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for first in range(task_count):
                tasks.create_task(append_share(first))

    asyncio.run(append_all())


# What a peer is given


def events_in_turn(appends: Appends) -> Iterator[Event]:
    """The events, each made when it is asked for, and timed: we make ours from the same values."""
    for number, placed in enumerate(appends.orders):
        name = appends.names[number % STREAM_COUNT]
        yield Event(name, number // STREAM_COUNT + 1, "placed", time.time_ns() // 1_000, placed, number + 1)


def events_in_batches(appends: Appends) -> Iterator[list[Event]]:
    """The events as `append_in_batches` appends them: those of a batch are of one stream."""
    for start in range(0, len(appends.orders), BATCH_SIZE):
        batch = start // BATCH_SIZE
        name = appends.names[batch % STREAM_COUNT]
        first_seq = batch // STREAM_COUNT * BATCH_SIZE + 1
        at = time.time_ns() // 1_000
        yield [
            Event(name, first_seq + index, "placed", at, placed, start + index + 1)
            for index, placed in enumerate(appends.orders[start : start + BATCH_SIZE])
        ]
