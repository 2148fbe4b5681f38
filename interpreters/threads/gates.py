"""What a thread waits at until another one opens it, so that an interrupt leaves no lock held."""

import operator
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

Notify = Callable[[], None]
"""Tells one that waits, from the thread that commits or closes: quick, and without raising."""


LOOK_AGAIN_SECONDS = 1.0
LOOK_AGAIN_SECONDS_MAX = 60.0
"""After how long, at first and at last, one that waits looks by itself: an interrupt that came between a commit and the
telling of it has lost what was to be told."""


SLICE_SECONDS = 0.04
"""How long a wait lasts that cannot be ended from outside, before it is looked whether anybody still wants it."""


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


_ReentrantLock: Any = type(threading.RLock())


class OwnedLock(_ReentrantLock):  # type: ignore[misc]
    """A lock that may be taken again by the thread that has it, and that knows whether this thread does.

    It knows so as soon as it is taken, which a note beside it could not: an interrupt may come in between. To ask it,
    ``is_mine()``, is one call of C, into which no interrupt comes.

    >>> lock = OwnedLock()
    >>> with lock:
    ...     lock.is_mine()
    True
    >>> lock.is_mine()
    False
    """

    # What a Condition asks of its lock.
    is_mine: Any = _ReentrantLock._is_owned


def slices(seconds: float) -> Iterator[float]:
    """The parts of a wait of so many seconds, which each block: one, or in the main thread many.

    A Ctrl-C that comes right before a thread blocks is told when it goes on, and only the main thread is told.

    >>> from itertools import islice
    >>> list(slices(0.0)), len(list(islice(slices(float("inf")), 3)))
    ([0.0], 3)
    """
    if threading.current_thread() is not threading.main_thread():
        yield min(seconds, threading.TIMEOUT_MAX)
        return
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        yield max(0.0, min(left, SLICE_SECONDS))
        if left <= SLICE_SECONDS:
            return


_call: Any = operator.call


class Gate:
    """What threads wait at until it is opened, once and for all.

    An Event's own lock stays held where an interrupt comes while it is set, and then whoever sets it again, or waits,
    hangs. Here each step is one call of C, into which no interrupt comes: also that by which who waits gets through and
    leaves the gate open behind him. While he waits for Python's lock in between, an interrupt is likely.

    >>> gate = Gate()
    >>> gate.wait(0)
    False
    >>> gate.open()
    >>> gate.wait(60)
    True
    """

    def __init__(self) -> None:
        self._is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let through who waits, and who comes. Again: nothing."""
        self._is_open = True
        # It may be open, or somebody may be on his way through.
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Wait for so long at the most. Whether it is open."""
        for slice_seconds in slices(seconds):
            if self._is_open:
                break
            take = partial(self._lock.acquire, timeout=slice_seconds)
            with suppress(RuntimeError):
                # Whoever opens it a second time may have been quicker to let go of the lock.
                all(map(_call, (take, self._lock.release)))
        return self._is_open


def wait_in_slices(
    ask: Callable[[float], int], after: int, timeout_seconds: float, is_given_up: Callable[[], bool]
) -> int:
    """Wait by asking again and again, so that it ends soon after it was given up.

    Args:
        ask: Gives the newest number, once it is past ``after``, or so many seconds are over.
        after: The number to be passed.
        timeout_seconds: How long to wait at the most.
        is_given_up: Whether nobody wants the answer any more.

    Returns:
        The newest number, as it was asked last.

    >>> wait_in_slices(lambda seconds: 7, 6, 60.0, lambda: False)
    7
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        newest = ask(min(left, SLICE_SECONDS))
        if newest > after or not left or is_given_up():
            return newest


def wait_until_told(told: Gate, timeout_seconds: float, is_past: Callable[[], bool]) -> None:
    """Wait at a gate that a `Notify` opens, and now and then look whether that was lost, at most so many seconds.

    >>> wait_until_told(Gate(), 0.0, lambda: False)
    """
    deadline = time.monotonic() + timeout_seconds
    for pause in pauses():
        left = deadline - time.monotonic()
        if left <= 0 or told.wait(min(left, pause)) or is_past():
            return
