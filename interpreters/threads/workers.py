"""A few threads that do what an event loop must not: wait for a disk, or for a database."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


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
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done. One thread at a time calls this.

        Args:
            job: What must not raise.

        Raises:
            RuntimeError: If the system has no thread for it, and there is none yet.
        """
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
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
            # Those that are there take longer.
            return
        self._threads.append(thread)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()
            # It holds answers, which should not be kept until the next one.
            del job
