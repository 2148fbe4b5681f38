"""`ThreadPool`: short jobs share few threads, and none waits behind a long one."""

import threading
from collections import deque
from queue import SimpleQueue

from interpreters.threads.workers import ThreadPool

PATIENCE_SECONDS = 60


def test_a_job_does_not_wait_behind_one_that_takes_long():
    pool, done, hold = ThreadPool(2, "test"), SimpleQueue(), threading.Event()
    pool.do(lambda: hold.wait(PATIENCE_SECONDS))
    for number in range(100):
        pool.do(lambda number=number: done.put(number))
    assert [done.get(timeout=PATIENCE_SECONDS) for _ in range(100)] == list(range(100))
    hold.set()
    pool.end()


def test_each_of_many_long_jobs_has_a_thread_as_long_as_there_are_some():
    pool, hold = ThreadPool(8, "test"), threading.Event()
    together = threading.Barrier(9)

    def job():
        together.wait(PATIENCE_SECONDS)
        hold.wait(PATIENCE_SECONDS)

    for _ in range(8):
        pool.do(job)
    together.wait(PATIENCE_SECONDS)
    hold.set()
    pool.end()


def test_no_more_jobs_run_at_once_than_there_are_threads():
    pool, done, lock = ThreadPool(3, "test"), SimpleQueue(), threading.Lock()
    running, most = 0, 0

    def job():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # Another one has the chance to run beside it.
        threading.Event().wait(0.001)
        with lock:
            running -= 1
        done.put(None)

    for _ in range(60):
        pool.do(job)
    for _ in range(60):
        done.get(timeout=PATIENCE_SECONDS)
    assert 1 <= most <= 3
    pool.end()


def test_jobs_from_many_threads_are_each_done_once_though_threads_fall_asleep_meanwhile():
    pool, done = ThreadPool(4, "test"), SimpleQueue()

    def give(first):
        for number in range(first, first + 500):
            pool.do(lambda number=number: done.put(number))

    givers = [threading.Thread(target=give, args=(first,)) for first in range(0, 2000, 500)]
    for giver in givers:
        giver.start()
    assert sorted(done.get(timeout=PATIENCE_SECONDS) for _ in range(2000)) == list(range(2000))
    for giver in givers:
        giver.join(PATIENCE_SECONDS)
    pool.end()


class LateJobs(deque):
    """Jobs of a pool. Right after a thread that is to sleep has found none, another brings one."""

    def __init__(self, pool: ThreadPool, job):
        super().__init__()
        self._pool, self._job = pool, job

    def __bool__(self) -> bool:
        found = len(self) > 0
        if not found and self._job is not None and self._pool._lock.locked():
            job, self._job = self._job, None
            self.append(job)
            # As `ThreadPool.do` goes on, which is not in the thread that looks.
            if not self._pool._free:
                threading.Thread(target=self._pool._wake).start()
        return found


def test_a_job_that_comes_while_a_thread_falls_asleep_is_done():
    pool, done = ThreadPool(1, "test"), SimpleQueue()
    pool._jobs = LateJobs(pool, lambda: done.put("late"))
    pool.do(lambda: done.put("first"))
    assert done.get(timeout=PATIENCE_SECONDS) == "first"
    assert done.get(timeout=PATIENCE_SECONDS) == "late"
    pool.end()


def test_what_waits_when_the_pool_ends_is_not_begun():
    pool, hold, begun, done = ThreadPool(1, "a pool that ends"), threading.Event(), SimpleQueue(), SimpleQueue()

    def first():
        begun.put(None)
        hold.wait(PATIENCE_SECONDS)

    pool.do(first)
    begun.get(timeout=PATIENCE_SECONDS)
    pool.do(lambda: done.put(None))
    pool.end()
    (thread,) = [each for each in threading.enumerate() if each.name == "a pool that ends"]
    hold.set()
    thread.join(PATIENCE_SECONDS)
    assert done.empty()
