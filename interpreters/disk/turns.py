"""Turns among processes: one at a time, and whoever has waited goes before whoever has just had one."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from interpreters.disk.files import PRIVATE

NEXT_SECONDS = 0.0002
"""How often whoever is next looks whether it is its turn."""

WAITING_SECONDS = 0.002
"""How often the others look whether they are next."""


class Turns:
    """A lock among processes, and within one among those who open it anew. Its two files hold nothing.

    Whoever wants the turn first takes the place of the one who is next, and gives that up only when it has the turn: so
    whoever gives its turn back cannot take it again before the one who has waited. It is given back by the system where
    a process ends.

    Args:
        path: Of which file the turns are. Beside it stand two more, which are made where they are not there.

    Raises:
        OSError: They cannot be made or opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     one, other = Turns(f"{root}/a"), Turns(f"{root}/a")
    ...     with one.taken(1.0) as is_taken, other.taken(0.01) as is_taken_too:
    ...         print(is_taken, is_taken_too)
    ...     one.close()
    ...     other.close()
    True False
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._next = os.open(f"{os.fspath(path)}-next", flags, PRIVATE)
        try:
            self._turn = os.open(f"{os.fspath(path)}-turn", flags, PRIVATE)
        except BaseException:
            os.close(self._next)
            raise

    def close(self) -> None:
        """Close the files, and give back what is taken."""
        for number in (self._next, self._turn):
            os.close(number)

    @contextmanager
    def taken(self, timeout_seconds: float) -> Iterator[bool]:
        """Take the turn for the block, and say whether it was got in time.

        Args:
            timeout_seconds: How long to wait for it.
        """
        deadline = time.monotonic() + timeout_seconds
        is_taken = False
        try:
            try:
                if _locked(self._next, deadline, WAITING_SECONDS):
                    is_taken = _locked(self._turn, deadline, NEXT_SECONDS)
            finally:
                _unlock(self._next)
            yield is_taken
        finally:
            # Also where an interrupt came before it was noted that it was taken.
            _unlock(self._turn)


def _locked(number: int, deadline: float, pause_seconds: float) -> bool:
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause_seconds)
        else:
            return True


def _unlock(number: int) -> None:
    """Give a lock back, whatever happens: other processes wait for it."""
    interrupt: BaseException | None = None
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_UN)
            break
        except OSError:
            raise
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
