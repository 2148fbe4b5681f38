"""Forks: a child has a store whole, or is told why not, and never waits for a lock of a thread that it does not have.

Each test forks while another thread is at a known place.
"""

import asyncio
import math
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager

import nats_cluster
import pytest
from served_stores import serving, until

from interpreters import Store, open_store
from interpreters.runtime import tasks
from interpreters.stores.file.store import FileReader, FileStore
from interpreters.stores.memory import MemoryStore
from interpreters.stores.served import RemoteStore, serve
from interpreters.stores.served.wire import WIRE_VERSION, Hello, frame_of
from interpreters.threads import forks
from persist_effects import Draft, StoreClosed, StoreUnavailable, kv, log, sleep
from persist_effects.requests import Append, KvGet, KvPut, Wait

LONG_SECONDS = 60


def in_child(use: Callable[[], object]) -> str:
    """What it gives in a forked child, or the error that it meets there. A child that hangs is killed, and says so."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads, which is what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(LONG_SECONDS)
            os.close(reading)
            try:
                told = repr(use())
            except BaseException as error:
                told = f"{type(error).__name__}: {error}"
            os.write(writing, told.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as told_by_child:
        told = told_by_child.read().decode()
    _, status = os.waitpid(pid, 0)
    return told if os.waitstatus_to_exitcode(status) == 0 else f"the child ended by {os.waitstatus_to_exitcode(status)}"


@contextmanager
def busy(work: Callable[[], object]):
    """Another thread that does something, for as long as the block goes on."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def impatient(monkeypatch):
    """A fork that waits for nobody."""
    monkeypatch.setattr(forks, "PATIENCE_SECONDS", 0.0)


# The memory store


class Halting:
    """A clock at which a commit halts, under the store's lock, in the one thread that asks for it by `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self.halted = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> int:
        if self.armed:
            self.armed = False
            self.halted.set()
            self.go_on.wait(LONG_SECONDS)
        return 0


def test_a_fork_waits_for_the_commit_of_another_thread_and_the_child_has_it_whole():
    clock = Halting()

    class GoesOnAtTheFork(MemoryStore):
        def state_lock(self):
            clock.go_on.set()
            return super().state_lock()

    store = Store(GoesOnAtTheFork(clock=clock))
    clock.armed = True
    with busy(lambda: store.run(log.append("s", "made", 1))):
        clock.halted.wait(LONG_SECONDS)
        told = in_child(lambda: (store.run(log.append("s", "made", 2)).position, len(store.run(log.read("s")))))
    assert told == "(2, 2)"
    assert [event.data for event in store.run(log.read("s"))] == [1], "what the child writes is its own"


def test_a_fork_that_another_threads_commit_keeps_waiting_refuses_in_the_child_and_not_in_the_parent(impatient):
    clock = Halting()
    store = Store(MemoryStore(clock=clock))
    clock.armed = True
    with busy(lambda: store.run(log.append("s", "made", 1))):
        clock.halted.wait(LONG_SECONDS)
        told = in_child(lambda: store.run(kv.get("color")))
        clock.go_on.set()
    assert told.startswith("StoreUnavailable: this process was forked while another thread was in the middle")
    assert "open a new one here" in told
    assert store.run(log.last_seq("s")) == 1


def test_a_childs_commit_wakes_nobody_of_the_parents():
    store = MemoryStore()
    woken = []
    store.watch(Wait(0), lambda: woken.append(os.getpid()))
    told = in_child(lambda: (store.handlers[Append](Append("s", (Draft("made", 1),))).position, woken))
    assert told == "(1, [])"
    store.handlers[Append](Append("s", (Draft("made", 1),)))
    assert woken == [os.getpid()]


def test_who_sleeps_in_the_parent_does_not_sleep_in_the_child():
    store = open_store("memory:")

    def in_the_child():
        store.run(sleep(0.001))
        found = store._sleepers.sleeping
        store.close()
        return found

    def asleep():
        with pytest.raises(StoreClosed):
            store.run(sleep(math.inf))

    with busy(asleep):
        until(lambda: store._sleepers.sleeping)
        assert in_child(in_the_child) == "{}"
        assert store._sleepers.sleeping, "the child has woken nobody of the parent's"
        store.close()


def test_a_closed_memory_store_is_closed_in_the_child_too():
    store = open_store("memory:")
    store.close()
    assert in_child(lambda: store.interpreter.handlers[KvGet](KvGet("a"))).startswith("StoreClosed")


def test_a_fork_by_the_thread_that_holds_a_lock_does_not_hang(impatient):
    told = []

    def clock():
        if not told:
            told.append(in_child(lambda: store.run(kv.get("color"))))
        return 0

    store = Store(MemoryStore(clock=clock))
    assert store.run(log.append("s", "made", 1)).seq == 1
    assert told[0].startswith("StoreUnavailable: this process was forked while")


# The served store


@pytest.fixture
def served():
    with Store(RemoteStore.spawn("memory:")) as store:
        yield store


def test_a_child_is_refused_by_a_served_store_and_the_parents_connection_goes_on(served):
    served.run(kv.put("color", "red"))
    pid = os.getpid()
    told = in_child(lambda: served.run(kv.get("color")))
    assert told.startswith("StoreUnavailable: persist/kv-get was not answered: the connection to the store is that of ")
    assert f"process {pid}, of which process" in told
    assert "connect anew here" in told
    assert in_child(lambda: served.run_many([kv.put("a", 1)], return_exceptions=True)).startswith("[StoreUnavailable(")
    assert served.run(kv.get("color")) == "red"


def test_a_child_closes_a_served_store_without_a_word_to_its_process(served):
    assert in_child(served.close) == "None"
    assert served.run(kv.put("color", "red")) == 1


def test_a_child_closes_a_connection_by_socket_without_shutting_it_down():
    here, there = socket.socketpair()
    with (
        open_store("memory:") as behind,
        busy(lambda: serve(behind.interpreter, there)),
        Store(RemoteStore(here)) as store,
    ):
        assert in_child(store.close) == "None"
        assert store.run(kv.put("color", "red")) == 1


def test_a_child_has_a_connection_of_its_own_though_another_thread_is_just_sending(tmp_path):
    with open_store("memory:") as behind, serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        large = "x" * 2_000_000
        with busy(lambda: [store.run(kv.put("large", large)) for _ in range(20)]):
            told = in_child(lambda: (store.run(kv.put("color", "red")) > 0, len(store.run(kv.get("large")) or large)))
        assert told == "(True, 2000000)"
        assert in_child(lambda: in_child(lambda: store.run(kv.get("color")))) == "\"'red'\""
        assert store.run(kv.get("color")) == "red"


def test_a_child_that_uses_no_store_leaves_its_server_one_client(tmp_path):
    with open_store("memory:") as behind, serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        assert in_child(store.close) == "None"
        assert store.interpreter.health()["connections"] == 1


@contextmanager
def a_child_that_lives_on():
    """A fork that does nothing until the block is over."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(LONG_SECONDS)
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    yield
    os.close(writing)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the child ended first, and the block waited for it"


def test_a_child_that_lives_on_does_not_keep_the_served_process_from_ending():
    served = Store(RemoteStore.spawn("memory:"))
    with a_child_that_lives_on():
        # It waits for the process, which waits for the last copy of its pipe to be closed.
        served.close()


def test_a_child_that_lives_on_does_not_keep_a_servers_clients_from_seeing_its_end(tmp_path):
    with ExitStack() as stack:
        behind = stack.enter_context(open_store("memory:"))
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(LONG_SECONDS)
        with serving(behind, tmp_path / "sock"):
            client.connect(str(tmp_path / "sock"))
            client.sendall(frame_of(Hello(WIRE_VERSION)))
            assert client.recv(65536)
            stack.enter_context(a_child_that_lives_on())
        # The farewell, and then the end; and nobody listens there any more.
        assert len(b"".join(iter(lambda: client.recv(65536), b""))) < 20
        with pytest.raises(StoreUnavailable, match="nobody serves there"):
            open_store(f"unix:{tmp_path / 'sock'}")


# Tasks


def test_a_child_runs_tasks_though_the_parents_worker_is_not_there(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        store.run(kv.put("color", "red"))
        asyncio.run(store.arun(kv.get("color")))
        assert in_child(lambda: asyncio.run(store.arun(kv.get("color")))) == "'red'"


def test_a_child_goes_on_with_a_loop_of_the_parents_that_did_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "_IDLE_SECONDS", LONG_SECONDS)  # so that the parent's worker surely is there still
    with open_store(f"file:{tmp_path / 'store'}") as store, closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(store.arun(kv.put("color", "red")))
        assert in_child(lambda: loop.run_until_complete(store.arun(kv.get("color")))) == "'red'"
        assert loop.run_until_complete(store.arun(kv.get("color"))) == "red"


# The file store


def test_a_child_whose_copy_of_a_file_store_may_be_half_of_something_is_refused(tmp_path, impatient):
    with Store(FileStore(tmp_path / "store")) as store:
        store.run(kv.put("color", "red"))
        held, go_on = threading.Event(), threading.Event()

        def hold():
            with store.interpreter._lock:
                held.set()
                go_on.wait(LONG_SECONDS)

        with busy(hold):
            held.wait(LONG_SECONDS)
            told = in_child(lambda: store.run(kv.get("color")))
            assert in_child(store.close) == "None"
            go_on.set()
        assert told.startswith("StoreUnavailable: ")
        assert "forked while another thread" in told
        assert "mode=r" in told
        assert store.run(kv.get("color")) == "red"


def test_a_reader_whose_copy_may_be_half_of_something_reads_all_anew(tmp_path, impatient):
    with Store(FileStore(tmp_path / "store")) as writer, Store(FileReader(tmp_path / "store")) as store:
        writer.run(kv.put("color", "red"))
        held, go_on = threading.Event(), threading.Event()

        def hold():
            with store.interpreter._reading, store.interpreter._lock:
                held.set()
                go_on.wait(LONG_SECONDS)

        with busy(hold):
            held.wait(LONG_SECONDS)
            told = in_child(lambda: store.run(kv.get("color")))
            go_on.set()
        assert told == "'red'"


def test_what_is_made_where_no_fork_may_come_is_registered_before_one_does():
    entered, made = threading.Event(), []

    def make():
        with forks.no_fork():
            entered.set()
            while len(made) < 100_000:
                made.append(None)

    with busy(make):
        entered.wait(LONG_SECONDS)
        assert in_child(lambda: len(made)) == "100000"


def test_a_fork_within_a_fork_has_the_store_whole():
    store = open_store("memory:")
    store.run(kv.put("color", "red"))
    assert in_child(lambda: in_child(lambda: store.run(kv.get("color")))) == "\"'red'\""


def test_the_requests_of_a_forked_child_are_none_of_those_that_waited(served):
    with busy(lambda: served.interpreter.handlers[Wait](Wait(0, "", LONG_SECONDS))):
        assert in_child(lambda: served.run(kv.get("color"))).startswith("StoreUnavailable")
        served.run(log.append("s", "made", 1))
    assert served.interpreter.handlers[KvPut](KvPut("color", "red")) == 1


# NATS


def test_a_forked_child_has_a_connection_to_nats_of_its_own_and_the_parents_goes_on():
    with open_store(nats_cluster.new_store_url()) as store:
        store.run(kv.put("color", "red"))
        with busy(lambda: store.handlers[Wait](Wait(0, "", LONG_SECONDS))):
            assert in_child(lambda: store.run(kv.get("color"))) == "'red'"
            assert in_child(lambda: store.run(log.append("orders/1", "placed", 1)).seq) == "1"
        assert in_child(store.close) == "None"
        assert in_child(lambda: in_child(lambda: store.run(kv.get("color")))) == "\"'red'\""
        assert store.run(log.append("orders/1", "paid", 1)).seq == 2


def test_a_child_that_lives_on_does_not_keep_the_parents_connection_to_nats_open():
    cluster = nats_cluster.own_cluster(1)
    store = open_store(nats_cluster.new_store_url())
    client = store.interpreter._connection.client.client_id
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        store.close()
        until(lambda: client not in [one["cid"] for one in cluster.monitored(0, "connz")["connections"]])
    finally:
        os.close(writing)
        os.waitpid(pid, 0)
        os.close(reading)
