"""What a fork copies of this process's stores: whole, or refused with words; never a lock that nobody lets go of.

A child has the one thread that forked. Of what other threads were doing it has the state in which they were caught, and
the locks that they held, for ever. So the fork waits for the locks of each store that is registered here, which are
held only while its data is half-changed, and the child makes them anew. Where one is held for longer, the child is
told that its copy may be half of something.

Subprocesses are no such forks: Python starts them without calling any of this.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from typing import Protocol
from weakref import WeakSet

PATIENCE_SECONDS = 5.0
"""How long a fork waits for what other threads are doing. A commit in memory takes microseconds."""


class StateLock(Protocol):
    """A `threading.Lock`, or one that its owner may take again."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Take it, and say whether it was got in time."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


class Shared(Protocol):
    """What several threads use, and a fork copies."""

    def state_lock(self) -> StateLock | None:
        """The lock that is held by whoever has it half-changed; None where nothing of it is used in a child."""
        ...

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In the child: make the locks anew, and let go of what is the parent's. ``is_whole``: nothing is half-changed.

        It must not wait for anything, nor say anything to a peer.
        """
        ...


_shared: WeakSet[Shared] = WeakSet()
_registering = threading.RLock()
_own = threading.local()


def register(shared: Shared) -> None:
    """Have something left to the parent by each fork, for as long as it lives."""
    with _registering:
        _shared.add(shared)


@contextmanager
def no_fork() -> Iterator[None]:
    """Have forks in other threads wait, and those who call this too: to make and to register something in one."""
    with _registering:
        yield


class _Fork:
    """The locks that are held for one fork."""

    def __init__(self) -> None:
        self.locks: list[StateLock] = []
        self.are_held: list[bool] = []

    def take(self, lock: StateLock, timeout_seconds: float) -> None:
        self.locks.append(lock)
        # In one step of Python's, so that no interrupt comes between taking a lock and knowing it.
        self.are_held.extend(map(methodcaller("acquire", timeout=timeout_seconds), [lock]))

    def held(self) -> list[StateLock]:
        return [lock for lock, is_held in zip(self.locks, self.are_held, strict=False) if is_held]


def _before() -> None:
    _own.fork = fork = _Fork()
    fork.take(_registering, -1)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for shared in list(_shared):
        lock = shared.state_lock()
        if lock is not None:
            fork.take(lock, max(0.0, deadline - time.monotonic()))


def _after_in_parent() -> None:
    for lock in _own.fork.held():
        lock.release()


def _after_in_child() -> None:
    global _registering  # noqa: PLW0603
    held = set(map(id, _own.fork.held()))
    _registering = threading.RLock()
    for shared in list(_shared):
        lock = shared.state_lock()
        shared.leave_to_parent(is_whole=lock is None or id(lock) in held)


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
