"""`BackgroundThread`: after an interrupt at any step of its start it is not begun at all, or begins for certain."""

import contextlib
import gc
import itertools
import queue
import threading
from queue import SimpleQueue

import pytest
from interrupts import InterruptInside

from interpreters import Store, open_store
from interpreters.runtime import tasks
from interpreters.stores.file import FileStore
from interpreters.stores.sqlite import SqliteStore
from interpreters.threads import background, gates, later, workers
from interpreters.threads.background import BackgroundThread
from persist_effects import kv

PATIENCE_SECONDS = 60
FILES = (background.__file__, gates.__file__, threading.__file__)


def each_step(make, act):
    """Do something with an interrupt at each of its steps in turn. Gives where, and what was made, after each."""
    for at in itertools.count(1):
        made = make()
        with contextlib.suppress(KeyboardInterrupt), InterruptInside(at, FILES) as interrupt:
            act(made)
        yield interrupt.place, made
        if not interrupt.place:
            assert at > 10
            return


def listed(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_after_an_interrupt_at_any_step_of_its_start_a_thread_is_not_begun_or_does_its_work():
    begun = []
    for place, (thread, done) in each_step(thread_and_what_it_does, lambda made: made[0].start()):
        begun.append(thread.is_begun)
        thread.join()
        assert [*iter_of(done)] == ["tea"] * thread.is_begun, place
        assert not thread.is_alive(), place
        assert listed("test") == [], place
    assert {*begun} == {False, True}


def thread_and_what_it_does():
    done = SimpleQueue()
    return BackgroundThread(done.put, "test", ("tea",)), done


def iter_of(done):
    with contextlib.suppress(queue.Empty):
        while True:
            yield done.get_nowait()


def test_after_an_interrupt_at_any_step_of_joining_it_a_thread_is_waited_for_by_who_joins_it_again():
    for place, (thread, goes_on, done) in each_step(held_thread, let_go_and_join):
        goes_on.open()
        thread.join()
        assert [*iter_of(done)] == [True], place
        assert listed("test") == [], place


def held_thread():
    goes_on, done = gates.Gate(), SimpleQueue()
    thread = BackgroundThread(lambda: done.put(goes_on.wait(PATIENCE_SECONDS)), "test")
    thread.start()
    return thread, goes_on, done


def let_go_and_join(made):
    thread, goes_on, _ = made
    goes_on.open()
    thread.join()


def test_a_thread_that_was_never_started_is_not_waited_for_and_none_waits_for_itself():
    BackgroundThread(print, "test").join()
    done = SimpleQueue()
    thread = BackgroundThread(lambda: done.put(thread.join()), "test")
    thread.start()
    thread.join()
    assert done.get_nowait() is None


def test_a_thread_for_which_the_system_has_none_left_says_so_and_is_not_waited_for(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("can't start new thread")

    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    monkeypatch.setattr(threading, name, refuse)
    thread = BackgroundThread(print, "test")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        thread.start()
    assert not thread.is_begun
    thread.join()
    assert listed("test") == []


def test_a_thread_is_started_once():
    thread = BackgroundThread(len, "test", ("tea",))
    thread.start()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    thread.join()


class AtOnce:
    """`Later`, of which everything is due at once, as a pool that does jobs."""

    def __init__(self):
        self._later = later.Later("test", lambda due: [job() for job in due], lambda left: None)

    def do(self, job):
        self._later.add(0.0, job)

    def end(self):
        self._later.close()


POOLS = {
    "ThreadPool": lambda: workers.ThreadPool(1, "test"),
    "Workers": lambda: workers.Workers(1, "test"),
    "Later": AtOnce,
    "the worker of tasks": tasks._Worker,
}
THREADS = {"test", "persist-effects"}


@pytest.mark.parametrize("kind", POOLS)
def test_after_an_interrupt_at_any_step_of_its_first_thread_s_start_a_pool_does_what_comes_next(kind):
    before = {*threading.enumerate()}
    for place, pool in each_step(POOLS[kind], lambda pool: pool.do(lambda: None)):
        done = SimpleQueue()
        pool.do(lambda done=done: done.put("tea"))
        assert done.get(timeout=PATIENCE_SECONDS) == "tea", place
        pool.end()
        for thread in [thread for thread in {*threading.enumerate()} - before if thread.name in THREADS]:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), place


def open_file(path):
    return FileStore(path / "store")


def open_in_intervals(path):
    return SqliteStore(path / "store.db", sync="interval")


@pytest.mark.parametrize("opening", [open_file, open_in_intervals], ids=lambda opening: opening.__name__)
def test_a_store_whose_opening_is_interrupted_while_its_thread_is_started_says_so_and_leaves_none(tmp_path, opening):
    Store(opening(tmp_path)).close()
    before = {*threading.enumerate()}
    for place, opened in each_step(list, lambda opened: opened.append(opening(tmp_path))):
        if opened:
            opened.pop().close()
        gc.collect()
        for thread in {*threading.enumerate()} - before:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), place
        with Store(opening(tmp_path)) as again:
            again.run(kv.put("color", "red"))


def test_a_wait_on_sqlite_that_is_interrupted_while_its_looking_thread_is_started_leaves_none(tmp_path):
    url = f"sqlite:{tmp_path / 'store.db'}"
    with open_store(url) as store:
        made = store.run(kv.put("color", "red"))
    before = {*threading.enumerate()}
    for place, store in each_step(lambda: open_store(url), lambda store: store.run(kv.wait(made, "color", 0.001))):
        assert store.run(kv.wait(made - 1, "color", PATIENCE_SECONDS)) == made, place
        store.close()
        for thread in {*threading.enumerate()} - before:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), place
