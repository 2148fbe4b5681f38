"""Jobs that are to be done later, in the thread of the flows: a thread of its own tells when their time has come."""

import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue

from interpreters.threads.background import BackgroundThread
from persist_effects.errors import StoreUnavailable, UncertainOutcome

Job = Callable[[], None]

Tell = Callable[[Job], None]
"""Has something done in the thread of the flows, from any thread."""

PASSING = (StoreUnavailable, UncertainOutcome)
"""The store's trouble, and nobody's fault here: what met it is done again."""

TRY_AGAIN_SECONDS = 1.0


class Alarm:
    """Jobs by the time at which they are due.

    Args:
        tell: Has a job done in the thread of the flows, from any thread.

    >>> done = SimpleQueue()
    >>> alarm = Alarm(lambda job: job())
    >>> alarm.later(0.001, lambda: done.put("tea"))
    >>> done.get(timeout=60)
    'tea'
    >>> alarm.close()
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._numbers = count()
        self._heap: list[tuple[float, int, Job]] = []
        # Deadlines that are earlier than those that the thread knows; None: it is to end.
        self._earlier: SimpleQueue[float | None] = SimpleQueue()
        self._thread: BackgroundThread | None = None

    def later(self, seconds: float, job: Job) -> None:
        """Have a job done after so many seconds. In the thread of the flows.

        Args:
            seconds: How many.
            job: What raises nothing but that the store cannot be reached. Then it is done again.
        """
        deadline, number = time.monotonic() + seconds, next(self._numbers)
        heappush(self._heap, (deadline, number, job))
        if self._heap[0][1] == number:
            self._arm(deadline)

    def insist(self, job: Job) -> None:
        """Do a job now, in the thread of the flows; where the store cannot be reached, again later, until it can be.

        Args:
            job: What asks the store, and may be done twice.
        """
        try:
            job()
        except PASSING:
            self.later(TRY_AGAIN_SECONDS, job)

    def close(self) -> None:
        """Do none of them."""
        self._earlier.put(None)

    def _arm(self, deadline: float) -> None:
        self._earlier.put(deadline)
        if self._thread is None:
            self._thread = BackgroundThread(self._watch, "persist-effects alarm")
            self._thread.start()

    def _fire(self) -> None:
        """In the thread of the flows: do what is due."""
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            self.insist(heappop(self._heap)[2])
        if self._heap:
            self._arm(self._heap[0][0])

    def _watch(self) -> None:
        deadline: float | None = None
        while True:
            seconds = None if deadline is None else min(max(0.0, deadline - time.monotonic()), _LONGEST_SECONDS)
            try:
                earlier = self._earlier.get(timeout=seconds)
            except Empty:
                if deadline is not None and deadline <= time.monotonic():
                    deadline = None
                    self._tell(self._fire)
                continue
            if earlier is None:
                return
            deadline = earlier if deadline is None else min(deadline, earlier)


_LONGEST_SECONDS = 3600.0
"""How long a thread waits at once: less than what a lock of the system takes at the most."""
