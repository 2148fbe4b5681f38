"""The store on a cluster of three NATS servers, against bare ``nats-py``, which writes the same bytes there.

The peer is told each event's number, and what is expected of its subject; our store finds that out, and plans, checks
and encodes each value. What both write to is known already when the clock starts.
"""

import asyncio
import atexit
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import NamedTuple

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from benchmarks.appends import (
    BATCH_SIZE,
    PROGRAMS_TOGETHER,
    Appends,
    append_in_batches,
    append_together,
    prepared_appends,
)
from benchmarks.table import Bound, Row, rate
from interpreters.nats.private_cluster import PrivateCluster
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.nats.jetstream import EXPECTED, MESSAGE_ID, ROLLUP
from interpreters.stores.nats.records import event_body, value_body
from persist_effects import codec, kv, log

BATCH_MESSAGES = 20_000
NAMES = 20
"""How many streams or keys what comes one after the other has."""

_STORES = count(1)
_IDS = count(1)


@cache
def cluster() -> PrivateCluster:
    made = PrivateCluster(3, batch_messages=BATCH_MESSAGES)
    atexit.register(made.stop)
    return made


class Prepared(NamedTuple):
    """A store that is there, its name, and the server to which it is connected, as the peer is."""

    store: Store
    name: str
    server: str
    appends: Appends


@contextmanager
def prepared(operations: int) -> Iterator[Prepared]:
    name = f"bench{next(_STORES)}"
    with prepared_appends(operations) as appends, open_store(new_url(name)) as store:
        yield Prepared(store, name, store.interpreter.health()["connected to"], appends)


def new_url(name: str) -> str:
    return cluster().url(name, replicas=3, batch_messages=BATCH_MESSAGES)


# Ours


def append_in_turn(store: Store, appends: Appends) -> None:
    for number, placed in enumerate(appends.orders):
        store.run(log.append(appends.names[number % NAMES], "placed", placed))


def put_in_turn(store: Store, appends: Appends) -> None:
    for number, placed in enumerate(appends.orders):
        store.run(kv.put(appends.names[number % NAMES], placed))


def ours(how: Callable[[Store, Appends], None], warm_up: int) -> Callable[[Prepared], float]:
    def on_what_is_known(made: Prepared) -> float:
        how(made.store, made.appends.first(warm_up))
        return rate(len(made.appends.orders), lambda: how(made.store, made.appends))

    return on_what_is_known


def read_all_of_ours(made: Prepared) -> float:
    _fill(made)
    total = len(made.appends.orders)

    def read() -> None:
        found = position = 0
        while found < total:
            page = made.store.run(log.page_all(after=position, limit=1_000))
            found, position = found + len(page.events), page.next

    return rate(total, read)


def _fill(made: Prepared) -> None:
    """So many events, once."""
    if not made.store.run(log.page_all(limit=1)).events:
        append_in_batches(made.store, made.appends)


# nats-py


def bare(how: Callable[[Client, Appends, str], Awaitable[float]]) -> Callable[[Prepared], float]:
    async def over_a_connection(made: Prepared) -> float:
        client = await nats.connect(made.server, pending_size=64 << 20)
        try:
            return await how(client, made.appends, made.name)
        finally:
            await client.close()

    return lambda made: asyncio.run(over_a_connection(made))


def _headers(expected: int) -> dict[str, str]:
    return {EXPECTED: f"{expected}", MESSAGE_ID: f"b00cb00cb00cb00cb00c{next(_IDS):x}"}


def _bodies(appends: Appends) -> list[bytes]:
    return [
        event_body(number + 1, "placed", 1_800_000_000_000_000, (codec.encode(placed), None))
        for number, placed in enumerate(appends.orders)
    ]


async def _timed(operations: int, work: Callable[[], Awaitable[object]]) -> float:
    start = asyncio.get_running_loop().time()
    await work()
    return operations / (asyncio.get_running_loop().time() - start)


async def publish_in_turn(client: Client, appends: Appends, name: str) -> float:
    return await _publish_in_turn(client.jetstream(), name, "e", appends)


async def put_in_turn_bare(client: Client, appends: Appends, name: str) -> float:
    return await _publish_in_turn(client.jetstream(), name, "k", appends)


async def _publish_in_turn(context: JetStreamContext, name: str, kind: str, appends: Appends) -> float:
    expected = [0] * NAMES
    own = next(_IDS)

    async def publish() -> None:
        for number, placed in enumerate(appends.orders):
            data = codec.encode(placed)
            body = value_body(data) if kind == "k" else event_body(number, "placed", 0, (data, None))
            index = number % NAMES
            headers = {**_headers(expected[index]), **(ROLLUP if kind == "k" else {})}
            ack = await context.publish(f"{name}.{kind}.bare{own}.{index}", body, headers=headers)
            expected[index] = ack.seq

    return await _timed(len(appends.orders), publish)


async def publish_together(client: Client, appends: Appends, name: str) -> float:
    context = client.jetstream()
    own = next(_IDS)

    async def publish() -> None:
        bodies = _bodies(appends)
        for start in range(0, len(bodies), PROGRAMS_TOGETHER):
            acks = [
                await context.publish_async(f"{name}.e.bare{own}.{start + index}", body, headers=_headers(0))
                for index, body in enumerate(bodies[start : start + PROGRAMS_TOGETHER])
            ]
            await asyncio.gather(*acks)

    return await _timed(len(appends.orders), publish)


async def publish_in_batches(client: Client, appends: Appends, name: str) -> float:
    own = next(_IDS)

    async def publish() -> None:
        bodies = _bodies(appends)
        for start in range(0, len(bodies), BATCH_SIZE):
            *others, last = bodies[start : start + BATCH_SIZE]
            batch = f"b00cb00cb00cb00cb00c{next(_IDS):x}"
            subject = f"{name}.e.bare{own}.{start}"
            first = _headers(0)
            for number, body in enumerate(others, 1):
                headers = {**first, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": f"{number}"}
                await client.publish(subject, body, headers=headers)
                first = {}
            headers = {
                **first, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": f"{len(others) + 1}", "Nats-Batch-Commit": "1",
            }  # fmt: skip
            answer = await client.request(subject, last, timeout=30, headers=headers)
            assert b"error" not in answer.data, answer.data

    return await _timed(len(appends.orders), publish)


async def consume_all(client: Client, appends: Appends, name: str) -> float:
    """By a callback, which is the fastest way that nats-py has. Each value is decoded, as ours is."""
    decode = msgspec.msgpack.Decoder().decode
    total = len(appends.orders)
    found = 0
    all_there = asyncio.Event()

    async def take(message: Msg) -> None:
        nonlocal found
        decode(message.data)
        found += 1
        if found == total:
            all_there.set()

    async def consume() -> None:
        subscription = await client.jetstream().subscribe(
            f"{name}.e.>", stream=name, cb=take, ordered_consumer=True, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        await all_there.wait()
        await subscription.unsubscribe()

    return await _timed(total, consume)


APPEND = Row(
    name="nats: append, one program after another, against a bare publish of the same bytes",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=0.8,
    operations=1_000,
    prepare=prepared,
    ours=ours(append_in_turn, NAMES),
    peer=bare(publish_in_turn),
)

ROWS = (
    APPEND,
    APPEND._replace(
        name="nats: kv put, one program after another, against a bare publish of the same bytes",
        unit="puts/s",
        must=0.75,
        ours=ours(put_in_turn, NAMES),
        peer=bare(put_in_turn_bare),
    ),
    APPEND._replace(
        name="nats: append, 1,000 programs together, against as many bare publishes at once",
        must=0.7,
        operations=10_000,
        ours=ours(append_together, PROGRAMS_TOGETHER),
        peer=bare(publish_together),
    ),
    APPEND._replace(
        name="nats: append_many of 1,000 events, against a bare batch of the same bytes",
        must=0.7,
        operations=20_000,
        ours=ours(append_in_batches, BATCH_SIZE),
        peer=bare(publish_in_batches),
    ),
    APPEND._replace(
        name="nats: read all by pages of 1,000, against a bare ordered consumer that decodes",
        operations=20_000,
        ours=read_all_of_ours,
        peer=bare(consume_all),
    ),
)
