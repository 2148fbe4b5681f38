"""The clock that a store is given, and how whoever waits is told: what every store takes in the same way."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import INT64_MAX, check_integer

Clock = Callable[[], int]
"""Gives microseconds since the Unix epoch, UTC."""

Notify = Callable[[], None]
"""Tells one that waits, from the thread that commits or closes: quick, and without raising."""


LOOK_AGAIN_SECONDS = 1.0
LOOK_AGAIN_SECONDS_MAX = 60.0
"""After how long, at first and at last, one that waits looks by itself: an interrupt that came between a commit and the
telling of it has lost what was to be told."""


def pauses() -> Iterator[float]:
    """How long one that waits sleeps before each look, in seconds: ever longer, so that many who wait cost little.

    >>> from itertools import islice
    >>> list(islice(pauses(), 8))
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    """
    pause = LOOK_AGAIN_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LOOK_AGAIN_SECONDS_MAX)


def wall_clock() -> int:
    """Microseconds since the Unix epoch, UTC.

    >>> wall_clock() > 1_600_000_000_000_000
    True
    """
    return time.time_ns() // 1_000


class Gate:
    """What threads wait at until it is opened, once and for all.

    An Event's own lock stays held where an interrupt comes while it is set, and then whoever sets it again, or waits,
    hangs. Here each step is one call of C, into which no interrupt comes.

    >>> gate = Gate()
    >>> gate.wait(0)
    False
    >>> gate.open()
    >>> gate.wait(60)
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let through who waits, and who comes. Again: nothing."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Wait for so long at the most. Whether it is open."""
        if not self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            return False
        self.open()
        return True


def wait_until_told(told: Gate, timeout_seconds: float, is_past: Callable[[], bool]) -> None:
    """Wait at a gate that a `Notify` opens, and now and then look whether that was lost, at most so many seconds.

    >>> wait_until_told(Gate(), 0.0, lambda: False)
    """
    deadline = time.monotonic() + timeout_seconds
    for pause in pauses():
        left = deadline - time.monotonic()
        if left <= 0 or told.wait(min(left, pause)) or is_past():
            return


def checked_clock(clock: Clock) -> Clock:
    """The same clock, whose times are refused where they are no integers, before they are written.

    Raises `InvalidRequest` for what is no function, and, when it is called, for a time that is no integer.

    >>> checked_clock(lambda: 7)()
    7
    """
    if clock is wall_clock:
        return clock
    if not callable(clock):
        raise InvalidRequest(f"clock is {describe(clock)}: give a function that gives microseconds since 1970, UTC")

    def checked() -> int:
        now = clock()
        check_integer("the time that the store's clock gives (microseconds since 1970, UTC)", now, -INT64_MAX)
        return now

    return checked
