"""Who sleeps: nobody else waits for it, and whatever ends it ends it soon."""

import contextlib
import itertools
import math
import socket
import threading
from contextlib import closing

import anyio
import pytest
import trio
import trio.testing
from beside import LOST_INTERRUPT, PATIENCE_SECONDS, in_thread, interrupted
from interrupts import InterruptInside
from served_stores import until

from interpreters import Store, open_store
from interpreters.never_run import Watcher
from interpreters.runtime import rounds, sleeping
from interpreters.stores.memory import MemoryStore
from interpreters.stores.served import RemoteStore, serve
from persist_effects import StoreClosed, all_of, kv, log, now, sleep
from persist_effects.requests import Sleep

DAY_SECONDS = 86_400

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

WAYS = {
    "run": lambda store: store.run(sleep(math.inf)),
    "run within all_of": lambda store: store.run(all_of(kv.has("a"), sleep(math.inf))),
    "run_many": lambda store: store.run_many([sleep(math.inf), log.wait(0)]),
    "arun in asyncio": lambda store: anyio.run(store.arun, sleep(math.inf), backend="asyncio"),
    "arun in trio": lambda store: anyio.run(store.arun, sleep(math.inf), backend="trio"),
}
NAPS = {
    "run": lambda store: store.run(sleep(0.001)),
    "run within all_of": lambda store: store.run(all_of(kv.has("a"), sleep(0.001))),
    "run_many": lambda store: store.run_many([sleep(0.001), log.wait(0, timeout=0.001)]),
}


@pytest.fixture(params=["memory:", "file:{}/store", "sqlite:{}/store.db", "spawn:memory:"])
def opened(request, tmp_path):
    with open_store(request.param.format(tmp_path)) as store:
        yield store


def is_anyone_asleep(store):
    return bool(store._sleepers.sleeping)


@pytest.mark.parametrize("way", WAYS)
def test_closing_the_store_ends_a_sleep(opened, way):
    end = in_thread(lambda: WAYS[way](opened))
    until(lambda: is_anyone_asleep(opened))
    opened.close()
    error = end()
    for met in error.exceptions if isinstance(error, ExceptionGroup) else [error]:
        assert isinstance(met, StoreClosed)
    assert not is_anyone_asleep(opened)


@pytest.mark.filterwarnings(LOST_INTERRUPT)
@pytest.mark.parametrize("way", ["run", "run within all_of", "run_many"])
def test_ctrl_c_ends_a_sleep(opened, way):
    with interrupted(lambda: until(lambda: is_anyone_asleep(opened))):
        WAYS[way](opened)
    assert not is_anyone_asleep(opened)


@pytest.mark.parametrize("way", NAPS)
def test_wherever_ctrl_c_comes_nobody_is_left_asleep(way):
    for at in itertools.count(1):
        store = open_store("memory:")
        with (
            # A program that was made may never be run then.
            Watcher(lambda lost: None),
            contextlib.suppress(KeyboardInterrupt),
            InterruptInside(at, (sleeping.__file__, rounds.__file__)) as interrupt,
        ):
            NAPS[way](store)
        assert not is_anyone_asleep(store), interrupt.place
        store.close()
        if not interrupt.place:
            break
    assert at > 10


@backends
def test_the_cancellation_of_its_task_ends_a_sleep_and_its_finally_may_still_write(opened, backend):
    def sleeper():
        try:
            yield from sleep(math.inf)
        finally:
            yield from kv.put("cleaned", True)

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(opened.arun, sleeper())
            while not is_anyone_asleep(opened):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert opened.run(kv.get("cleaned")) is True
    assert not is_anyone_asleep(opened)


@backends
def test_a_hundred_tasks_that_sleep_take_no_thread(backend):
    async def main():
        with MemoryBehindThreads() as store:
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(store.arun, sleep(math.inf))
                while len(store._sleepers.sleeping) < 100:
                    await anyio.lowlevel.checkpoint()
                found = {*threading.enumerate()}
                tasks.cancel_scope.cancel()
            return found

    before = {*threading.enumerate()}
    assert anyio.run(main, backend=backend) <= before


def MemoryBehindThreads():  # noqa: N802 - it is a kind of store
    """A store whose rows may block, so that everything else would be answered in a thread."""
    inner = MemoryStore()

    class Blocking:
        blocking = True
        handlers, close = inner.handlers, inner.close

    return Store(Blocking())


def test_programs_go_on_together_while_one_of_them_sleeps(opened):
    order = []

    def sleeper():
        # For as long as the other must have had the time, however busy the machine is.
        for _ in range(60_000):
            yield from sleep(0.001)
            if order:
                break
        order.append("slept")
        return (yield from kv.get("b"))

    def worker():
        for number in range(3):
            yield from kv.put("b", number)
        order.append("worked")

    assert opened.run_many([sleeper(), worker()]) == [2, None]
    assert order == ["worked", "slept"]


def test_who_waits_for_an_event_is_told_while_another_sleeps(opened):
    def teller():
        yield from sleep(0.001)
        return (yield from log.append("a", "made", 1)).seq

    assert opened.run_many([log.wait(0, "a"), teller()])[1] == 1


def test_sleeps_that_are_performed_at_once_pass_at_once():
    async def main():
        with open_store("memory:") as store:
            began = trio.current_time()
            parts = sleep(30 * DAY_SECONDS), sleep(20 * DAY_SECONDS), log.wait(0, timeout=DAY_SECONDS), kv.put("a", 1)
            found = await store.arun(all_of(*parts))
            return found, (trio.current_time() - began) / DAY_SECONDS

    found, days = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert found == (None, None, 0, 1)
    assert days == pytest.approx(30)


@pytest.mark.parametrize("way", ["run", "run within all_of", "run_many", "asyncio", "trio"])
def test_a_sleep_lasts_as_long_as_it_says(way):
    with open_store("memory:") as store:
        began = store.run(now())
        if way == "run":
            store.run(sleep(0.02))
        elif way == "run within all_of":
            store.run(all_of(kv.has("a"), sleep(0.02)))
        elif way == "run_many":
            store.run_many([sleep(0.02)])
        else:
            anyio.run(store.arun, sleep(0.02), backend=way)
        assert store.run(now()) - began >= 20_000


def test_a_client_sleeps_by_itself_and_reads_the_clock_of_its_server():
    asked = []

    class Noting:
        """The store that is served, which notes what it is asked."""

        def __init__(self):
            inner = MemoryStore(clock=lambda: 7)
            self.clock, self.close = inner.clock, inner.close
            self.handlers = {kind: self.noted(row) for kind, row in inner.handlers.items()}

        def noted(self, row):
            def answer(request):
                asked.append(request)
                return row(request)

            return answer

    here, there = socket.socketpair()
    thread = threading.Thread(target=serve, args=(Noting(), there), daemon=True)
    thread.start()
    with closing(RemoteStore(here)) as remote:
        assert Sleep not in remote.handlers
        store = Store(remote)
        store.run(sleep(0.001))
        assert asked == []
        assert store.run(now()) == 7
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_the_users_own_row_for_sleeping_is_awaited_in_a_task():
    slept = []

    async def own(request):
        slept.append(request.seconds)

    with open_store("memory:", effects={Sleep: own}) as store:
        anyio.run(store.arun, sleep(3_600))
        anyio.run(store.arun, all_of(sleep(1), sleep(2)))
    assert slept == [3_600, 1, 2]
