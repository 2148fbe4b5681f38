"""Nobody waits for ever on a connection to NATS that ends, whatever it is that ends with it, and in which order."""

import asyncio
import contextlib
import math
import threading

import pytest
from beside import PATIENCE_SECONDS, in_thread
from nats_cluster import new_store_url

from interpreters import open_store
from interpreters.nats import connection as connection_module
from interpreters.nats.access import Access
from interpreters.nats.connection import NatsConnection, Unanswered
from persist_effects import StoreClosed, StoreUnavailable, UncertainOutcome
from persist_effects.requests import Failed, KvGet, KvPut, KvWait, Wait

LONG_SECONDS = 3600.0


@pytest.fixture
def store():
    with open_store(new_store_url()) as opened:
        yield opened.interpreter


async def stubborn():
    """Goes on when it is cancelled for the first time, as nats-py does while it flushes."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(LONG_SECONDS)
    await asyncio.sleep(LONG_SECONDS)


def cancelled_at_once(start):
    """As a close that comes in the same turn of the loop: the task that is started never begins."""

    def begin(coroutine):
        task = start(coroutine)
        task.cancel()
        return task

    return begin


@contextlib.contextmanager
def held_at(store, hold):
    """The store's connection, which ends and is held on its way: ``hold`` is given what it tells, and waits for."""
    is_there, go_on = threading.Event(), threading.Event()
    hold(store._connection, is_there, go_on)
    store._connection.abandon()
    assert is_there.wait(PATIENCE_SECONDS)
    try:
        yield store._connection
    finally:
        go_on.set()


def ended(store):
    """Its event loop has run for the last time, and is not closed yet."""

    def hold(connection, is_there, go_on):
        close = connection.loop.close

        def close_when_told():
            is_there.set()
            assert go_on.wait(PATIENCE_SECONDS)
            close()

        connection.loop.close = close_when_told

    return held_at(store, hold)


def saying_goodbye(store):
    """It has ended what it was doing, and its event loop runs still."""

    def hold(connection, is_there, go_on):
        close = connection.client.close

        async def close_when_told():
            is_there.set()
            await asyncio.to_thread(go_on.wait, PATIENCE_SECONDS)
            await close()

        connection.client.close = close_when_told

    return held_at(store, hold)


STARTS = {"a task": lambda store: store._connection.start, "a write": lambda store: store._writer._start}


@pytest.mark.parametrize("what", STARTS)
def test_what_goes_on_when_it_is_cancelled_does_not_keep_a_store_open(store, what):
    async def begin():
        STARTS[what](store)(stubborn())
        # It has begun by then.
        await asyncio.sleep(0)

    store._connection.call(begin)
    assert in_thread(store.close)() is None


def test_what_fails_at_the_end_does_not_keep_a_store_open(store):
    async def fail():
        raise OSError("no")

    store._connection.on_end.insert(0, fail)
    assert in_thread(store.close)() is None


def test_a_goodbye_that_never_comes_does_not_keep_a_store_open(store, monkeypatch):
    monkeypatch.setattr(connection_module, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(store._connection.client, "close", stubborn)
    assert in_thread(store.close)() is None


def test_a_connection_that_goes_on_to_be_tried_when_it_was_given_up_does_not_keep_anybody_waiting(monkeypatch):
    monkeypatch.setattr(NatsConnection, "_connect", lambda _: stubborn())
    connection = NatsConnection(["127.0.0.1:1"], Access(), 0.1, 0.1)
    error = in_thread(connection.open)()
    assert isinstance(error, StoreUnavailable)
    assert "no server answers" in str(error)
    assert in_thread(connection.close)() is None


@pytest.mark.parametrize("request_", [KvGet("a"), Wait(0, timeout=math.inf), KvWait(0, timeout=math.inf)])
def test_what_was_to_be_answered_by_a_task_that_was_cancelled_before_it_began_is_told_so(store, monkeypatch, request_):
    monkeypatch.setattr(store._connection, "start", cancelled_at_once(store._connection.start))
    error = in_thread(lambda: store.handlers[type(request_)](request_))()
    assert isinstance(error, StoreClosed)


def test_a_write_whose_task_was_cancelled_before_it_began_is_uncertain(store, monkeypatch):
    monkeypatch.setattr(store._writer, "_start", cancelled_at_once(store._writer._start))
    error = in_thread(lambda: store.handlers[KvPut](KvPut("a", 1)))()
    assert isinstance(error, UncertainOutcome)


def test_a_watch_whose_task_was_cancelled_before_it_began_is_told(store, monkeypatch):
    monkeypatch.setattr(store._connection, "start", cancelled_at_once(store._connection.start))
    told = threading.Event()
    store.watch(Wait(0, timeout=math.inf), told.set)
    assert told.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("request_", [KvGet("a"), KvPut("a", 1), Wait(0, timeout=math.inf)])
@pytest.mark.parametrize("end", [saying_goodbye, ended], ids=lambda end: end.__name__)
def test_what_is_asked_once_the_loop_has_ended_its_tasks_is_told_that_it_has_ended(store, request_, end):
    with end(store):
        error = in_thread(lambda: store.handlers[type(request_)](request_))()
    assert isinstance(error, StoreClosed)


@pytest.mark.parametrize("end", [saying_goodbye, ended], ids=lambda end: end.__name__)
def test_what_is_submitted_and_watched_then_is_told_so_too(store, end):
    come, told = [], threading.Event()
    with end(store):
        store.submit([KvGet("a"), KvPut("a", 1)], lambda index, outcome: come.append((index, outcome)))
        end_watch = store.watch(Wait(0, timeout=math.inf), told.set)
        assert told.wait(PATIENCE_SECONDS)
        end_watch()
    assert [index for index, _ in come] == [0, 1]
    assert all(isinstance(outcome, Failed) and isinstance(outcome.error, StoreClosed) for _, outcome in come)


def test_who_waits_for_something_done_in_the_loop_is_told_then(store):
    async def never():
        raise AssertionError("it has ended")

    with ended(store) as connection:
        error = in_thread(lambda: connection.call(never))()
    assert isinstance(error, Unanswered)
    assert str(error) == "the connection was closed"


def test_what_was_interrupted_while_it_was_asked_is_not_done_with_what_comes_next(store, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store._connection.loop, "call_soon_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.handlers[KvPut](KvPut("a", 1))
    assert store.handlers[KvGet](KvGet("a")) is None


def test_a_job_that_fails_does_not_keep_the_next_one_from_being_done(store):
    connection, told, both = store._connection, [], threading.Event()
    connection.loop.call_soon_threadsafe(
        connection.loop.set_exception_handler, lambda _, context: told.append(context["exception"])
    )

    def fail():
        raise ValueError("no")

    connection.do(fail, both.set)
    connection.do(both.set, both.set)
    assert both.wait(PATIENCE_SECONDS)
    assert [str(error) for error in told] == ["no"]
