"""How soon a wait without end ends, whatever ends it: the longest of some, against the 50 ms that it may take."""

import asyncio
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.ground import new_directory, open_file_store
from benchmarks.table import Bound, Row
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.served import RemoteStore, serve
from persist_effects.errors import StoreUnavailable
from persist_effects.machine import perform
from persist_effects.requests import Wait

LIMIT_MS = 50.0
_FOREVER = Wait(0, timeout=math.inf)
_SETTLE_SECONDS = 0.05
"""How long a wait goes on before it is ended, so that it is asleep by then."""


def _worst_ms(once: Callable[[], float]) -> Callable[[int], float]:
    """The longest of so many times, each in seconds, as milliseconds."""
    return lambda operations: max(once() for _ in range(operations)) * 1e3


def _thread_after_closing(store: Store) -> float:
    """From the closing of a store until the thread that waits in it is told."""
    told: list[float] = []

    def wait_for_ever() -> None:
        try:
            store.run(perform(_FOREVER))
        except StoreUnavailable:
            told.append(time.perf_counter())

    thread = threading.Thread(target=wait_for_ever)
    thread.start()
    time.sleep(_SETTLE_SECONDS)
    start = time.perf_counter()
    store.close()
    thread.join()
    return told[0] - start


def closing_memory() -> float:
    return _thread_after_closing(open_store("memory:"))


def closing_file() -> float:
    with new_directory() as directory:
        return _thread_after_closing(open_file_store(directory))


@contextmanager
def _served() -> Iterator[tuple[RemoteStore, threading.Thread]]:
    """A memory store that a thread serves over a socket, and that thread, which ends once the store is closed."""
    ours, theirs = socket.socketpair()
    with open_store("memory:") as behind:
        server = threading.Thread(target=serve, args=(behind.interpreter, theirs))
        server.start()
        remote = RemoteStore(ours)
        try:
            yield remote, server
        finally:
            remote.close()
            server.join()


def cancelling_a_task_of_a_served_store() -> float:
    async def cancel() -> float:
        task = asyncio.ensure_future(store.arun(perform(_FOREVER)))
        await asyncio.sleep(_SETTLE_SECONDS)
        start = time.perf_counter()
        task.cancel()
        await asyncio.wait([task])
        return time.perf_counter() - start

    with _served() as (remote, _), Store(remote) as store:
        return asyncio.run(cancel())


def losing_the_client() -> float:
    """From the moment that a client is gone which waits until no thread of the server serves it any more."""
    with _served() as (remote, server):
        threads_before = threading.active_count()
        waiting = threading.Thread(target=_ignoring_its_end, args=(remote,))
        waiting.start()
        time.sleep(_SETTLE_SECONDS)
        start = time.perf_counter()
        remote.close()
        server.join()
        while threading.active_count() >= threads_before:
            time.sleep(0.0005)
        took = time.perf_counter() - start
        waiting.join()
    return took


def _ignoring_its_end(remote: RemoteStore) -> None:
    try:
        remote.handlers[Wait](_FOREVER)
    except StoreUnavailable:
        # That is what a wait on a store that was closed is told.
        return


def interrupting_run_many() -> float:
    """From Ctrl-C until two programs that wait in the main thread are left, both without end."""
    sent: list[float] = []

    def interrupt() -> None:
        time.sleep(_SETTLE_SECONDS)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    # Where this runs in the background, a shell may have it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with open_store("memory:") as store:
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                store.run_many([perform(_FOREVER), perform(_FOREVER)])
            except KeyboardInterrupt:
                took = time.perf_counter() - sent[0]
            thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    return took


def _row(what: str, once: Callable[[], float]) -> Row:
    return Row(
        name=f"waiting: {what}, the longest of 20, against 50 ms",
        unit="ms",
        bound=Bound.AT_MOST,
        must=1.0,
        operations=20,
        ours=_worst_ms(once),
        peer=lambda _: LIMIT_MS,
        rounds=3,
    )


ROWS = (
    _row("a memory store is closed, until its wait ends", closing_memory),
    _row("a file store is closed, until its wait ends", closing_file),
    _row("a task of a served store is cancelled, until its wait ends", cancelling_a_task_of_a_served_store),
    _row("a client that waits is gone, until the server has no thread for it", losing_the_client),
    _row("Ctrl-C in run_many, until all waits end", interrupting_run_many),
)
