"""Waits without end: whatever ends them ends them all, on every store, and leaves nobody behind who waits."""

import math
import socket
import tempfile
import threading
from collections import Counter
from functools import partial

import anyio
import pytest
from beside import LOST_INTERRUPT, PATIENCE_SECONDS, in_thread, interrupted

from interpreters import Store, open_store
from interpreters.stores.served import RemoteStore, serve
from persist_effects import StoreClosed, kv, log, perform
from persist_effects.requests import Answered, KvWait, Wait

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])
both_waits = pytest.mark.parametrize("kind", [Wait, KvWait])


class Noting:
    """An interpreter around another one, which knows how many of its waits are going on."""

    def __init__(self, inner, *, watches: bool = True) -> None:
        self._inner = inner
        self._changed = threading.Condition()
        self._counts = Counter()
        self.handlers = {**inner.handlers, Wait: self._wait, KvWait: self._wait}
        self.close = inner.close
        if watches and hasattr(inner, "watch"):
            self.watch = self._watch

    def _count(self, name: str, change: int) -> None:
        with self._changed:
            self._counts[name] += change
            self._changed.notify_all()

    def _wait(self, request):
        if not request.timeout:
            self._count("looked", 1)
            return self._inner.handlers[type(request)](request)
        self._count("begun", 1)
        try:
            return self._inner.handlers[type(request)](request)
        finally:
            self._count("begun", 0)
            self._count("ended", 1)

    def _watch(self, request, notify):
        end_watch = self._inner.watch(request, notify)
        self._count("begun", 1)

        def end():
            end_watch()
            self._count("ended", 1)

        return end

    def await_begun(self, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._counts["begun"] >= count, PATIENCE_SECONDS)

    def await_looked(self) -> None:
        """As `await_begun`, where whoever waits looks again and again."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._counts["looked"] > 0, PATIENCE_SECONDS)

    def await_all_ended(self) -> None:
        """As many as have begun: where nobody wants them any more, no others begin."""
        with self._changed:
            is_over = self._changed.wait_for(lambda: self._counts["begun"] == self._counts["ended"], PATIENCE_SECONDS)
            assert is_over, self._counts


def reader():
    path = tempfile.mkdtemp()
    open_store(f"file:{path}").close()
    return open_store(f"file:{path}?mode=r").interpreter


STORES = {
    "memory": lambda: Noting(open_store("memory:").interpreter),
    "file": lambda: Noting(open_store(f"file:{tempfile.mkdtemp()}").interpreter),
    "file, read only": lambda: Noting(reader()),
    "served": lambda: Noting(RemoteStore.spawn("memory:")),
    "one that cannot be watched": lambda: Noting(open_store("memory:").interpreter, watches=False),
}


@pytest.fixture(params=STORES)
def noting(request):
    interpreter = STORES[request.param]()
    yield interpreter
    interpreter.close()


def endless(kind):
    return (yield from perform(kind(0, timeout=math.inf)))


WAYS = {
    "run": lambda store, kind: store.run(endless(kind)),
    "run_many": lambda store, kind: store.run_many([endless(kind), endless(kind)]),
    "arun in asyncio": lambda store, kind: anyio.run(store.arun, endless(kind), backend="asyncio"),
    "arun in trio": lambda store, kind: anyio.run(store.arun, endless(kind), backend="trio"),
}


@both_waits
def test_a_wait_ends_as_soon_as_a_file_store_begins_to_close_whatever_it_has_to_do_yet(kind):
    store = open_store(f"file:{tempfile.mkdtemp()}")
    noting = Noting(store.interpreter)
    with store.interpreter.standing_still():
        end = in_thread(lambda: Store(noting).run(endless(kind)))
        noting.await_begun()
        end_closing = in_thread(store.close)
        assert isinstance(end(), StoreClosed)
        assert isinstance(in_thread(lambda: Store(noting).run(endless(kind)))(), StoreClosed)
    assert end_closing() is None


@both_waits
@pytest.mark.parametrize("way", WAYS)
def test_closing_the_store_ends_a_wait_without_end(noting, way, kind):
    store = Store(noting)
    end = in_thread(lambda: WAYS[way](store, kind))
    noting.await_begun()
    noting.close()
    error = end()
    for met in error.exceptions if isinstance(error, ExceptionGroup) else [error]:
        assert isinstance(met, StoreClosed)
    noting.await_all_ended()


@both_waits
@backends
def test_the_cancellation_of_its_task_ends_a_wait_without_end(noting, backend, kind):
    store = Store(noting)

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.arun, endless(kind))
            await anyio.to_thread.run_sync(noting.await_begun)
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    noting.await_all_ended()


@both_waits
def test_an_interrupt_of_its_neighbour_ends_a_wait_without_end(noting, kind):
    def interrupted():
        yield from log.last_seq("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(noting).run_many([endless(kind), interrupted()])
    noting.await_all_ended()


@pytest.mark.filterwarnings(LOST_INTERRUPT)
@both_waits
@pytest.mark.parametrize("way", ["run", "run_many"])
def test_ctrl_c_ends_a_wait_without_end(noting, way, kind):
    store = Store(noting)
    with interrupted(noting.await_begun):
        WAYS[way](store, kind)
    noting.await_all_ended()


@both_waits
@pytest.mark.parametrize("watches", [True, False])
def test_the_loss_of_its_client_ends_a_wait_without_end(kind, watches):
    noting = Noting(open_store("memory:").interpreter, watches=watches)
    here, there = socket.socketpair()
    end_serving = in_thread(lambda: serve(noting, there))
    remote = RemoteStore(here)
    end = in_thread(lambda: Store(remote).run(endless(kind)))
    (noting.await_begun if watches else noting.await_looked)()
    remote.close()
    assert isinstance(end(), StoreClosed)
    assert end_serving() is None
    noting.await_all_ended()
    noting.close()


@pytest.mark.parametrize("noting", sorted(STORES.keys() - {"file, read only"}), indirect=True)
def test_programs_that_wait_for_events_and_for_keys_go_on_together(noting):
    store = Store(noting)

    def events():
        position = yield from log.wait(0, "a")
        yield from kv.put("b", position)
        return position

    def keys():
        revision = yield from kv.wait(0, "b")
        return (revision, (yield from kv.get("b")))

    def begin():
        return (yield from log.append("a", "made", 1)).position

    assert store.run_many([keys(), events(), begin()]) == [(1, 1), 1, 1]


class FarAway:
    """A store that answers what is submitted to it when it is told to, and whose rows would take as long."""

    blocking = True

    def __init__(self) -> None:
        self.handlers = {Wait: self._refuse}
        self.submitted = []

    def _refuse(self, request):
        raise AssertionError("the event loop's thread waits for a store that is far away")

    def submit(self, requests, done):
        self.submitted += [partial(done, index) for index in range(len(requests))]

    def watch(self, request, notify):
        notify()
        return lambda: None

    def close(self):
        pass


@backends
def test_other_tasks_go_on_while_one_that_waited_asks_a_store_that_is_far_away(backend):
    far_away = FarAway()

    async def use():
        found = []
        with Store(far_away) as store:
            async with anyio.create_task_group() as tasks:

                async def wait():
                    found.append(await store.arun(log.wait(6)))

                tasks.start_soon(wait)
                while not far_away.submitted:
                    await anyio.lowlevel.checkpoint()
                far_away.submitted.pop()(Answered(7))
        return found

    assert anyio.run(use, backend=backend) == [7]
