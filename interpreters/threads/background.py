"""A thread beside those of the user, whose beginning and end no interrupt leaves half done."""

import _thread
import math
import threading
from collections.abc import Callable
from typing import Any

from interpreters.threads.gates import Gate


class BackgroundThread(threading.Thread):
    """A daemon thread that, wherever Ctrl-C comes while it is started, is not begun at all or begins for certain.

    Python's own `start` may be left in the middle: then the thread is listed for ever though there is none, nobody can
    tell whether it comes still, a lock is let go of twice, and `join` refuses. And a `join` that is interrupted makes
    Python 3.11 take a thread for ended that is not. Only the main thread is interrupted, so there another thread, begun
    by one call of C, does what Python does in many steps.

    Args:
        work: What it does.
        name: What it is called.
        arguments: Of the work.

    >>> done = []
    >>> thread = BackgroundThread(done.append, "example", ("tea",))
    >>> thread.join()  # was never started
    >>> thread.start()
    >>> thread.join()
    >>> done
    ['tea']
    """

    def __init__(self, work: Callable[..., object], name: str, arguments: tuple[Any, ...] = ()) -> None:
        super().__init__(target=work, name=name, args=arguments, daemon=True)
        # Of the thread that starts this one, noted in the same call of C that begins it.
        self._starters: list[int] = []
        self._is_settled = Gate()
        self._is_done = Gate()
        self._refused: BaseException | None = None

    @property
    def is_begun(self) -> bool:
        """Whether it was started, also where the start was interrupted."""
        if self.ident is not None:
            return True
        return bool(self._starters) and self._is_settled.wait(math.inf) and self._refused is None

    def start(self) -> None:
        """Start it, once. After an interrupt, `is_begun` tells whether it begins.

        Raises:
            RuntimeError: If the system has no more threads, or it was started before.
        """
        if self._starters:
            raise RuntimeError("threads can only be started once")
        if threading.current_thread() is threading.main_thread():
            self._starters.extend(map(_thread.start_new_thread, (self._start,), ((),)))
            self._is_settled.wait(math.inf)
        else:
            self._starters.append(threading.get_ident())
            self._start()
        if self._refused is not None:
            raise self._refused

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended. Not at all where it was never begun, or in this thread itself.

        Args:
            timeout: How long at the most, in seconds; None: as long as it takes.
        """
        if not self.is_begun or self.ident == threading.get_ident():
            return
        if self._is_done.wait(math.inf if timeout is None else timeout):
            # What is left of it takes a moment.
            super().join(timeout)

    def run(self) -> None:
        """Do the work, and let those go on that wait for the end."""
        try:
            super().run()
        finally:
            self._is_done.open()

    def _start(self) -> None:
        try:
            super().start()
        except BaseException as error:
            self._refused = error
        finally:
            self._is_settled.open()
