"""How writes go to NATS: together where that is cheaper, apart where others write the same, and told at the end."""

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from nats_cluster import new_store_url
from served_stores import until

from interpreters import open_store
from interpreters.nats import connection
from interpreters.nats.private_cluster import PrivateCluster
from interpreters.stores.nats.jetstream import JetStream
from interpreters.stores.nats.writer import NatsWriter
from persist_effects import StoreClosed, StoreUnavailable, UncertainOutcome, kv, log

PATIENCE_SECONDS = 60


@pytest.fixture
def sent(monkeypatch):
    """The sizes of the batches that are written."""
    sizes = []
    write_soon = JetStream.write_soon

    def noting(self, messages, batch, done):
        sizes.append(len(messages))
        write_soon(self, messages, batch, done)

    monkeypatch.setattr(JetStream, "write_soon", noting)
    return sizes


def append_to_all(store, count=200):
    return [event.seq for event in store.run_many(log.append(f"orders/{n}", "placed", n) for n in range(count))]


def test_what_waits_for_many_streams_goes_together_and_so_does_what_waits_for_one(sent):
    with open_store(new_store_url()) as store:
        assert append_to_all(store) == [1] * 200
        sent.clear()
        assert append_to_all(store) == [2] * 200
        assert sum(sent) == 200
        assert len(sent) < 10
        sent.clear()
        events = store.run_many(log.append("orders/0", "paid", n) for n in range(200))
        assert [event.seq for event in events] == list(range(3, 203))
        assert len(sent) < 5


def test_where_another_store_has_written_to_one_of_them_the_others_are_written_all_the_same():
    url = new_store_url()
    with open_store(url) as store, open_store(url) as other:
        append_to_all(store)
        other.run(log.append("orders/7", "paid", 7))
        assert append_to_all(store) == [3 if n == 7 else 2 for n in range(200)]
        assert len(other.run(log.read_all())) == 401


@pytest.mark.exploration
def test_two_stores_that_write_the_same_streams_at_once_lose_and_double_nothing():
    url = new_store_url()
    with open_store(url) as one, open_store(url) as other, ThreadPoolExecutor(2) as threads:
        for _ in range(3):
            found = list(threads.map(append_to_all, (one, other)))
        assert {seq for seqs in found for seq in seqs} <= set(range(1, 7))
        for number in range(200):
            assert [event.seq for event in one.run(log.read(f"orders/{number}"))] == [1, 2, 3, 4, 5, 6]


@pytest.mark.exploration
def test_many_transactions_at_once_are_each_whole():
    with open_store(new_store_url()) as store:
        puts = store.run_many(kv.put(f"k{n % 50}", n) for n in range(300))
        assert len(set(puts)) == 300
        assert [store.run(kv.get(f"k{n}")) for n in range(50)] == [250 + n for n in range(50)]


def test_a_nats_py_that_takes_in_messages_another_way_is_heard_all_the_same(monkeypatch):
    monkeypatch.delattr(connection._Client, "_process_msg")
    with open_store(new_store_url()) as store:
        assert append_to_all(store, 20) == [1] * 20
        assert sorted(event.data for event in store.run(log.read_all())) == list(range(20))
        assert store.run(kv.get("absent")) is None
        with pytest.raises(StoreUnavailable, match="nobody leads it now"):
            store.interpreter._connection.call(_asked_of_nobody, store.interpreter._connection)


async def _asked_of_nobody(own):
    try:
        await own.ask("nobody", b"")
    except connection.Unanswered as error:
        raise StoreUnavailable(str(error)) from error


def test_what_is_on_its_way_when_a_store_is_closed_is_told_that_it_is_not_known():
    with PrivateCluster() as cluster:
        store = open_store(cluster.url("app"))
        store.run(log.append("orders/1", "placed", 1))
        own = store.interpreter._connection
        cluster.signal(signal.SIGSTOP, 0)
        told = []

        def append():
            try:
                store.run(log.append("orders/1", "placed", 2))
            except (UncertainOutcome, StoreClosed) as error:
                told.append(type(error))

        thread = threading.Thread(target=append)
        thread.start()
        until(lambda: own._asked)
        store.close()
        thread.join(PATIENCE_SECONDS)
        assert told == [UncertainOutcome]
        cluster.signal(signal.SIGCONT, 0)
        with pytest.raises(StoreClosed):
            store.run(kv.get("a"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_write_and_are_woken_from_either_kind_of_event_loop(backend):
    with open_store(new_store_url()) as store:
        woken = []

        async def follow():
            position = await store.arun(log.wait(0, "orders/"))
            woken.append(position)

        async def work():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                for number in range(20):
                    tasks.start_soon(store.arun, log.append(f"orders/{number}", "placed", number))

        anyio.run(work, backend=backend)
        assert len(woken) == 1
        assert len(store.run(log.read_all())) == 20


def test_waits_by_the_hundred_write_little(sent):
    url = new_store_url()
    with open_store(url) as store, open_store(url) as other:
        before = store.run(log.append("other", "made", 0)).position

        async def work():
            waits = [asyncio.ensure_future(store.arun(log.wait(before, "orders/"))) for _ in range(100)]
            await asyncio.sleep(0)
            await other.arun(log.append("orders/1", "placed", 1))
            return await asyncio.gather(*waits)

        positions = asyncio.run(work())
        assert len(set(positions)) == 1
        # Each by itself would write one; on a busy machine they come in more parts.
        assert len(sent) < 60


def test_pages_pass_over_what_is_truncated_and_nothing_else_though_it_is_not_purged_yet(monkeypatch):
    async def later(self, stream, through):
        """A purge that does not come."""

    monkeypatch.setattr(NatsWriter, "_purge", later)
    with open_store(new_store_url()) as store:
        for number in range(30):
            store.run(log.append(f"orders/{number % 3}", "placed", number))
        store.run(log.truncate_through("orders/0", 9))
        store.run(log.truncate_through("orders/1", 5))
        found, position = [], 0
        while True:
            page = store.run(log.page_all(after=position, limit=3))
            found += [event.data for event in page.events]
            position = page.next
            if page.next >= page.head:
                break
        assert found == [n for n in range(30) if n % 3 == 2 or n == 27 or (n % 3 == 1 and n > 15)]
        assert [event.data for event in store.run(log.read_all(types=["placed"]))] == found
        assert [event.data for event in store.run(log.read_all(backwards=True))] == found[::-1]
