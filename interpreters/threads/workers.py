"""A few threads that do what an event loop must not: wait for a disk, or for a database."""

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from interpreters.threads.background import BackgroundThread


class Workers:
    """Threads that do one job after another, the oldest first. Each is there once there is a job for it.

    Args:
        count: How many of them at the most.
        name: What the threads are called.

    >>> workers, done = Workers(2, "example"), SimpleQueue()
    >>> workers.do(lambda: done.put("tea"))
    >>> done.get(timeout=60)
    'tea'
    >>> workers.end()
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._threads: list[BackgroundThread] = []
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done. One thread at a time calls this.

        Args:
            job: What must not raise.

        Raises:
            RuntimeError: If the system has no thread for it, and there is none yet.
        """
        if self._threads and not self._threads[-1].is_begun:
            # Its start was interrupted.
            self._threads.pop()
        if len(self._threads) < self._count:
            self._start()
        self._jobs.put(job)

    def end(self, *, may_wait: bool = True) -> None:
        """Let the threads end once what they were given is done.

        Args:
            may_wait: Whether to wait for that.
        """
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads if may_wait else ():
            thread.join()

    def _start(self) -> None:
        thread = BackgroundThread(self._work, self._name)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            if not self._threads:
                raise
            # Those that are there take longer.

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()
            # It holds answers, which should not be kept until the next one.
            del job


class ThreadPool:
    """Threads for many jobs, most of which take no time while some take long. None waits behind one that does.

    Where jobs are short, to wake a thread for each would take longer than they do. So one is woken where none is awake;
    and whoever begins a job while others wait, and sees nobody who could begin them, wakes one more first.

    Args:
        count: How many of them at the most.
        name: What the threads are called.

    >>> pool, done = ThreadPool(2, "example"), SimpleQueue()
    >>> pool.do(lambda: done.put("tea"))
    >>> done.get(timeout=60)
    'tea'
    >>> pool.end()
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        # Tokens, each of which wakes one that sleeps.
        self._wakings: SimpleQueue[bool] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._asleep = 0
        # Those that are awake and in no job, or were just woken.
        self._free = 0
        self._is_ending = False

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done, from any thread.

        Args:
            job: What must not raise.

        Raises:
            RuntimeError: If the system has no thread for it, and there is none yet.
        """
        self._jobs.append(job)
        if not self._free:
            self._wake()

    def end(self) -> None:
        """Let the threads end: those in a job once that has ended. What waits is not begun."""
        with self._lock:
            self._is_ending = True
            self._jobs.clear()
            for _ in range(self._threads):
                self._wakings.put(False)

    def _wake(self) -> None:
        """See to it that somebody is free, if there can be."""
        with self._lock:
            if self._free or self._is_ending:
                return
            if self._asleep:
                self._asleep -= 1
                self._free += 1
                self._wakings.put(True)
            elif self._threads < self._count:
                self._start()

    def _start(self) -> None:
        thread = BackgroundThread(self._work, self._name)
        self._threads += 1
        self._free += 1
        try:
            thread.start()
        except BaseException as error:
            if not thread.is_begun:
                self._threads -= 1
                self._free -= 1
            if not self._threads or not isinstance(error, RuntimeError):
                raise

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                if not self._sleep():
                    return
                continue
            with self._lock:
                self._free -= 1
            if self._jobs and not self._free:
                self._wake()
            job()
            # It holds answers, which should not be kept until the next one.
            del job
            with self._lock:
                self._free += 1

    def _sleep(self) -> bool:
        """Sleep until there is a job. False: there will be none."""
        with self._lock:
            if self._is_ending:
                return False
            # In this order: whoever brings a job, and then sees that this thread is free, has it found here.
            self._free -= 1
            if self._jobs:
                self._free += 1
                return True
            self._asleep += 1
        return self._wakings.get()
