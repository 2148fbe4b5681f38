"""What is to be done after a while, without a thread for each."""

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from interpreters.threads import forks
from interpreters.threads.background import BackgroundThread

T = TypeVar("T")

TOGETHER_SECONDS = 0.005
"""What is due within so long after the first one is given back with it: many that wait differ by little."""


class Later(Generic[T]):
    """Gives each thing back once its time has come, in one thread, which is there from the first one on.

    Args:
        name: What the thread is called.
        do: Is given what is due, together, the earliest first. It returns soon, and does not raise.
        give_up: Is given what waits, or comes, when this is closed. Likewise.

    >>> done = SimpleQueue()
    >>> later = Later("example", lambda due: done.put(due[0]), lambda left: print("not", left))
    >>> later.add(0.001, "tea")
    >>> done.get(timeout=60)
    'tea'
    >>> later.add(3600, "cake")
    >>> later.close()
    not ['cake']
    """

    def __init__(self, name: str, do: Callable[[list[T]], None], give_up: Callable[[list[T]], None]) -> None:
        self._name = name
        self._do = do
        self._give_up = give_up
        self._numbers = count()
        self._make()
        self._is_closed = False
        forks.register(self)

    def add(self, seconds: float, thing: T) -> None:
        """Have a thing given back in so many seconds. From any thread.

        Raises:
            RuntimeError: If the system has no thread for it.
        """
        with self._lock:
            if not self._is_closed:
                self._put(seconds, thing)
                return
        self._give_up([thing])

    def close(self) -> None:
        """Give up what waits, and wait until that is done. Again: nothing."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._coming.put(None)
        if thread is not None:
            thread.join()

    def state_lock(self) -> None:
        """A child begins anew, so no fork waits for it."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: what waits is the parent's, and so is the thread."""
        self._make()

    def _make(self) -> None:
        self._lock = threading.Lock()
        self._coming: SimpleQueue[tuple[float, int, T] | None] = SimpleQueue()
        self._thread: BackgroundThread | None = None

    def _put(self, seconds: float, thing: T) -> None:
        if self._thread is None or not self._thread.is_begun:
            self._thread = BackgroundThread(self._work, self._name)
            self._thread.start()
        self._coming.put((time.monotonic() + seconds, next(self._numbers), thing))

    def _work(self) -> None:
        waiting: list[tuple[float, int, T]] = []
        while True:
            try:
                coming = self._coming.get(timeout=max(0.0, waiting[0][0] - time.monotonic()) if waiting else None)
            except Empty:
                due, until = [], time.monotonic() + TOGETHER_SECONDS
                while waiting and waiting[0][0] <= until:
                    due.append(heapq.heappop(waiting)[2])
                if due:
                    self._do(due)
                continue
            if coming is None:
                break
            heapq.heappush(waiting, coming)
        if waiting:
            self._give_up([thing for _, _, thing in sorted(waiting)])
