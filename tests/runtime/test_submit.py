"""Stores that take requests and answer later: the test says when each outcome comes, and in which order."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from queue import SimpleQueue

import anyio
import pytest
from fewer import FEWER
from msgspec import structs

from interpreters import Store, open_store
from interpreters.conformance import StoreConformance
from interpreters.runtime import tasks
from interpreters.runtime.interpreter import pass_on
from interpreters.stores.memory import MemoryStore
from interpreters.threads import gates
from persist_effects import CorruptStore, InvalidRequest, StoreClosed, all_of, kv, perform
from persist_effects.machine import outcome_of
from persist_effects.requests import Answered, Failed, KvPut, Wait

LONG_SECONDS = 60.0
"""A timeout that no test reaches: what is waited for happens, or the test fails."""

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Delaying(MemoryStore):
    """Keeps what is submitted, until the test delivers it. A memory store answers, as late as can be."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.arrived = SimpleQueue()
        self.in_flight = deque()
        self.sizes = []

    def submit(self, requests, done):
        self.sizes.append(len(requests))
        for index, request in enumerate(requests):
            self.in_flight.append((request, index, done))
            self.arrived.put(request)

    def await_arrival(self, count):
        """Wait until so many requests more are in flight."""
        return [self.arrived.get(timeout=LONG_SECONDS) for _ in range(count)]

    def deliver(self, at=-1):
        """Carry out one of those in flight, the last unless told otherwise, and tell who asked."""
        request, index, done = self.in_flight[at]
        del self.in_flight[at]
        done(index, outcome_of(request, self.handlers))

    def deliver_all(self):
        while self.in_flight:
            self.deliver()

    def close(self):
        super().close()
        while self.in_flight:
            _, index, done = self.in_flight.pop()
            done(index, Failed(StoreClosed("closed in flight")))


def in_thread(function, *arguments):
    """What a thread of its own comes to, as a future."""
    future = Future()

    def run():
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.fixture
def delaying():
    return Delaying()


@pytest.fixture
def store(delaying):
    with Store(delaying) as store:
        yield store


def puts(count):
    return [kv.put(f"key/{number}", number) for number in range(count)]


# Threads


def test_a_round_has_all_of_its_requests_in_flight_and_takes_the_outcomes_in_any_order(store, delaying):
    running = in_thread(store.run_many, puts(3))
    assert [request.key for request in delaying.await_arrival(3)] == ["key/0", "key/1", "key/2"]
    delaying.deliver_all()
    assert running.result(LONG_SECONDS) == [3, 2, 1], "each has the revision that it got, the last one the first"


def test_all_of_has_its_parts_in_flight_at_once(store, delaying):
    running = in_thread(store.run, all_of(*puts(3)))
    delaying.await_arrival(3)
    delaying.deliver(1)
    assert not running.done()
    delaying.deliver_all()
    assert running.result(LONG_SECONDS) == (3, 1, 2)


def test_a_program_has_its_own_requests_one_after_the_other(store, delaying):
    def two():
        first = yield from kv.put("a", 1)
        return first, (yield from kv.put("a", 2))

    running = in_thread(store.run_many, [two()])
    for _ in range(2):
        delaying.await_arrival(1)
        assert len(delaying.in_flight) == 1
        delaying.deliver()
    assert running.result(LONG_SECONDS) == [(1, 2)]


def test_outcomes_may_come_before_submit_returns():
    class AtOnce(MemoryStore):
        def submit(self, requests, done):
            for index in reversed(range(len(requests))):
                done(index, outcome_of(requests[index], self.handlers))

    with Store(AtOnce()) as store:
        assert store.run_many(puts(3)) == [3, 2, 1]


def test_a_wait_is_never_in_flight_so_that_others_end_and_an_interrupt_comes_through(store, delaying):
    wait = perform(Wait(0, "", 0))
    running = in_thread(store.run, all_of(wait, *puts(1)))
    assert [type(request) for request in delaying.await_arrival(1)] == [KvPut]
    delaying.deliver_all()
    assert running.result(LONG_SECONDS) == (0, 1)
    assert delaying.arrived.empty()


def test_an_error_of_one_leaves_the_others_theirs(store, delaying):
    running = in_thread(lambda: store.run_many([*puts(1), kv.put("b", {1})], return_exceptions=True))
    delaying.await_arrival(2)
    delaying.deliver_all()
    revision, error = running.result(LONG_SECONDS)
    assert revision == 1
    assert "which cannot be stored" in str(error)


def test_closing_answers_what_is_in_flight(store, delaying):
    running = in_thread(lambda: store.run_many(puts(3), return_exceptions=True))
    delaying.await_arrival(3)
    delaying.deliver(0)
    store.close()
    revision, *errors = running.result(LONG_SECONDS)
    assert revision == 1
    assert [type(error) for error in errors] == [StoreClosed, StoreClosed]


class Refusing(MemoryStore):
    """Takes the first request, and raises at the second."""

    blocking = True

    def __init__(self, error):
        super().__init__()
        self.error = error

    def submit(self, requests, done):
        done(0, outcome_of(requests[0], self.handlers))
        raise self.error


def test_what_submit_raises_is_the_outcome_of_those_that_have_none():
    with Store(Refusing(StoreClosed("gone"))) as store:
        revision, error = store.run_many(puts(2), return_exceptions=True)
    assert revision == 1
    assert isinstance(error, StoreClosed)


def test_the_first_outcome_of_a_request_counts_and_a_wrong_index_is_told_to_the_store():
    class Twice(MemoryStore):
        def submit(self, requests, done):
            for value in (1, 2):
                done(0, Answered(value))
            with pytest.raises(IndexError, match="done was called with index 1, and 1 requests were submitted"):
                done(1, Answered(3))

    with Store(Twice()) as store:
        assert store.run_many(puts(1)) == [1]


def test_an_interrupt_waits_for_what_is_in_flight_so_that_clean_up_comes_after_it(store, delaying, monkeypatch):
    def clean():
        try:
            yield from kv.put("a", "begun")
        finally:
            yield from kv.delete("a")

    waits = []

    def wait_interrupted(gate, seconds, is_past):
        waits.append(len(delaying.in_flight))
        if len(waits) == 1:
            raise KeyboardInterrupt
        delaying.deliver_all()
        assert is_past()

    monkeypatch.setattr("interpreters.runtime.flights.wait_until_told", wait_interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.run_many([clean()])
    assert waits[:2] == [1, 1]
    assert store.run(kv.get("a")) is None


def test_a_lost_telling_is_found_by_looking(store, delaying, monkeypatch):
    monkeypatch.setattr(gates, "LOOK_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(gates.Gate, "open", lambda gate: None)
    running = in_thread(store.run_many, puts(2))
    delaying.await_arrival(2)
    delaying.deliver_all()
    assert running.result(LONG_SECONDS) == [2, 1]


# Tasks


@backends
def test_tasks_keep_many_in_flight_and_each_goes_on_as_its_own_outcome_comes(store, delaying, backend):
    ended = []

    async def put(number):
        ended.append((number, await store.arun(kv.put(f"key/{number}", number))))

    async def main():
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(put, number)
            await anyio.to_thread.run_sync(delaying.await_arrival, 3)
            for place in (1, 1, 0):
                before = len(ended)
                await anyio.to_thread.run_sync(delaying.deliver, place)
                while len(ended) == before:
                    await anyio.lowlevel.checkpoint()

    anyio.run(main, backend=backend)
    assert [revision for _, revision in ended] == [1, 2, 3], "whoever was answered first went on first"
    assert sorted(number for number, _ in ended) == [0, 1, 2]
    assert delaying.sizes == [3], "asked between two turns of the loop, they are submitted together"


@backends
def test_what_is_asked_later_does_not_wait_for_what_is_in_flight(store, delaying, backend):
    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(store.arun, kv.put("slow", 1))
            await anyio.to_thread.run_sync(delaying.await_arrival, 1)
            group.start_soon(store.arun, kv.put("quick", 2))
            await anyio.to_thread.run_sync(delaying.await_arrival, 1)
            await anyio.to_thread.run_sync(delaying.deliver_all)

    anyio.run(main, backend=backend)
    assert delaying.sizes == [1, 1]
    assert store.run(kv.entry("quick")).revision == 1


@backends
def test_all_of_in_a_task_has_its_parts_in_flight_at_once(store, delaying, backend):
    async def main():
        async with anyio.create_task_group() as group:

            async def ask():
                found.append(await store.arun(all_of(*puts(3))))

            group.start_soon(ask)
            await anyio.to_thread.run_sync(delaying.await_arrival, 3)
            await anyio.to_thread.run_sync(delaying.deliver_all)

    found = []
    anyio.run(main, backend=backend)
    assert found == [(3, 2, 1)]


@backends
def test_a_cancelled_task_has_its_answer_first_and_its_clean_up_comes_after(store, delaying, backend):
    def clean():
        try:
            yield from kv.put("a", "begun")
            yield from kv.put("b", "never")
        finally:
            seen.append((yield from kv.get("a")))

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(store.arun, clean())
            await anyio.to_thread.run_sync(delaying.await_arrival, 1)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(delaying.deliver_all)
                await anyio.to_thread.run_sync(delaying.await_arrival, 1)
                await anyio.to_thread.run_sync(delaying.deliver_all)

    seen = []
    anyio.run(main, backend=backend)
    assert seen == ["begun"]
    assert store.run(kv.keys()) == ["a"]


@backends
def test_closing_answers_the_tasks_whose_requests_are_in_flight(store, delaying, backend):
    async def ask():
        with pytest.raises(StoreClosed, match="closed in flight"):
            await store.arun(kv.put("a", 1))
        told.append(1)

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            await anyio.to_thread.run_sync(delaying.await_arrival, 2)
            await anyio.to_thread.run_sync(store.close)

    told = []
    anyio.run(main, backend=backend)
    assert told == [1, 1]


@backends
def test_what_submit_raises_is_told_to_each_task_without_an_outcome(backend):
    async def ask(number):
        try:
            outcomes.append(await store.arun(kv.put(f"key/{number}", number)))
        except StoreClosed as error:
            outcomes.append(str(error))

    async def main():
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(ask, number)

    outcomes = []
    with Store(Refusing(StoreClosed("gone"))) as store:
        anyio.run(main, backend=backend)
    assert sorted(outcomes, key=str) == [1, "gone", "gone"]


class Interrupted(Delaying):
    """Ctrl-C comes once while a request is submitted, before or after it is carried out."""

    def __init__(self, *, is_after):
        super().__init__()
        self.is_after = is_after
        self.is_due = True

    def submit(self, requests, done):
        is_due, self.is_due = self.is_due, False
        if is_due and not self.is_after:
            raise KeyboardInterrupt
        super().submit(requests, done)
        self.deliver_all()
        if is_due:
            raise KeyboardInterrupt


def outcomes_of_interrupted_tasks(store):
    """Three tasks put a key each, in a loop that Ctrl-C ends in another thread, where asyncio makes nothing of it."""
    outcomes = []

    async def ask(number):
        try:
            outcomes.append(await store.arun(kv.put(f"key/{number}", number)))
        except BaseException as error:
            outcomes.append(type(error))
            raise

    async def main():
        await asyncio.gather(*(ask(number) for number in range(3)))

    with pytest.raises(KeyboardInterrupt):
        in_thread(lambda: asyncio.run(main())).result(LONG_SECONDS)
    return outcomes


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_an_interrupt_while_requests_are_submitted_leaves_no_task_waiting(is_after):
    with Store(Interrupted(is_after=is_after)) as store:
        assert len(outcomes_of_interrupted_tasks(store)) == 3
        assert store.run(kv.put("color", "red")) == (4 if is_after else 1), "none is submitted a second time"


def test_an_interrupt_that_loses_the_sending_leaves_no_task_waiting(monkeypatch):
    original = tasks._SubmittingLoop._send

    def interrupted(loop):
        monkeypatch.setattr(tasks._SubmittingLoop, "_send", original)
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks._SubmittingLoop, "_send", interrupted)
    with Store(Interrupted(is_after=False)) as store:
        store.interpreter.is_due = False
        assert len(outcomes_of_interrupted_tasks(store)) == 3
        assert store.run(kv.keys()) == ["key/0", "key/1", "key/2"]


# Wrappers


class Shouting:
    """A wrapper that changes keys, on every way into the store."""

    def __init__(self, inner):
        self.inner = inner
        self.handlers = {**inner.handlers, KvPut: lambda request: inner.handlers[KvPut](loud(request))}
        self.close = inner.close
        pass_on(self, inner, loud)


def loud(request):
    return structs.replace(request, key=request.key.upper()) if isinstance(request, KvPut) else request


def test_a_wrapper_passes_on_every_way_into_a_store(delaying):
    with Store(Shouting(delaying)) as store:
        running = in_thread(store.run_many, puts(2))
        delaying.await_arrival(2)
        delaying.deliver_all()
        assert running.result(LONG_SECONDS) == [2, 1]
        assert store.run(kv.keys()) == ["KEY/0", "KEY/1"]
        assert store.capabilities == delaying.capabilities
        assert (store.interpreter.blocking, store.interpreter.watch) == (True, delaying.watch)
        assert not hasattr(store.interpreter, "answer_all")


def test_a_wrapper_of_a_store_that_answers_many_at_once_does_so_too(tmp_path):
    with open_store(f"file:{tmp_path}/store") as inner:
        wrapper = Shouting(inner.interpreter)
        assert not hasattr(wrapper, "submit")
        assert Store(wrapper).run_many(puts(2)) == [1, 2]
        assert inner.run(kv.keys()) == ["KEY/0", "KEY/1"]


class Translating:
    """A wrapper that changes answers too, and refuses one key."""

    def __init__(self, inner):
        self.inner = inner
        self.handlers = dict(inner.handlers)
        self.close = inner.close
        pass_on(self, inner, self.change, self.receive)

    @staticmethod
    def change(request):
        if getattr(request, "key", "") == "key/1":
            raise InvalidRequest("not this one")
        return loud(request)

    @staticmethod
    def receive(request, answer):
        if not isinstance(request, KvPut):
            return answer
        if request.key == "key/2":
            raise CorruptStore(f"the answer to {request.key}")
        return f"{request.key}: {answer}"


def four_puts():
    # Not `kv.put`, which knows what a store answers.
    return [perform(KvPut(f"key/{number}", number)) for number in range(4)]


def check_translated(outcomes, revisions):
    assert [str(outcome) for outcome in outcomes] == [
        f"key/0: {revisions[0]}",
        "not this one",
        "the answer to key/2",
        f"key/3: {revisions[1]}",
    ]


def test_a_wrapper_changes_answers_and_what_one_meets_the_others_do_not(delaying):
    with Store(Translating(delaying)) as store:
        running = in_thread(lambda: store.run_many(four_puts(), return_exceptions=True))
        delaying.await_arrival(3)
        delaying.deliver_all()
        check_translated(running.result(LONG_SECONDS), (3, 1))
        assert store.run(kv.keys()) == ["KEY/0", "KEY/2", "KEY/3"]


def test_a_wrapper_of_a_store_that_answers_many_at_once_changes_answers_too(tmp_path):
    with open_store(f"file:{tmp_path}/store") as inner:
        check_translated(Store(Translating(inner.interpreter)).run_many(four_puts(), return_exceptions=True), (1, 3))


# The whole suite


class Reordering(MemoryStore):
    """Answers from a thread of its own, what was submitted last first."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.submitted = SimpleQueue()
        threading.Thread(target=self.answer, daemon=True).start()

    def submit(self, requests, done):
        self.submitted.put((requests, done))

    def answer(self):
        while (taken := self.submitted.get()) is not None:
            requests, done = taken
            for index in reversed(range(len(requests))):
                done(index, outcome_of(requests[index], self.handlers))

    def close(self):
        super().close()
        self.submitted.put(None)


@pytest.mark.exploration
class TestReorderingStore(StoreConformance):
    machine_settings = FEWER

    def open_store(self):
        return Store(Reordering())
