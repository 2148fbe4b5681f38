"""Who sleeps on a store, and how each is woken when it is closed."""

from collections.abc import Callable
from typing import Any

from interpreters.threads import forks
from interpreters.threads.gates import Gate, Notify, wait_until_told
from persist_effects.errors import StoreClosed
from persist_effects.requests import Request, Sleep

CLOSED = "this store was closed: open it again to run programs"


class Sleepers:
    """Those that sleep. No lock is taken, so that an interrupt leaves none held.

    >>> sleepers = Sleepers()
    >>> sleepers.sleep(Sleep(0.001))
    >>> end_watch = sleepers.watch(lambda: print("woken"))
    >>> sleepers.close()
    woken
    >>> sleepers.sleep(Sleep(60))
    Traceback (most recent call last):
    persist_effects.errors.StoreClosed: this store was closed: open it again to run programs
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._ended: Callable[[], BaseException] = _closed
        self.sleeping: dict[object, Notify] = {}
        """How each is told. Who takes one out by ``pop``, which is one call of C, does so whatever interrupt comes."""
        forks.register(self)

    def sleep(self, request: Sleep) -> None:
        """Sleep in the calling thread.

        Args:
            request: For how long.

        Raises:
            StoreClosed: If the store was closed, or is closed meanwhile.
        """
        self.check_open()
        if request.seconds > 0:
            told = Gate()
            try:
                self.add(told, told.open)
                wait_until_told(told, request.seconds, lambda: self.is_closed)
            finally:
                self.sleeping.pop(told, None)
            self.check_open()

    def watch(self, notify: Notify) -> Callable[[], None]:
        """Call ``notify()`` once as soon as the store is closed.

        Args:
            notify: Called in the thread that closes, or at once; it must be quick and must not raise.

        Returns:
            The function that ends the watch.
        """
        token = object()

        def end() -> None:
            self.sleeping.pop(token, None)

        self.add(token, notify)
        return end

    def add(self, token: object, notify: Notify) -> None:
        """As `watch`, for who has the token before, and so can take it out again wherever an interrupt comes.

        Args:
            token: What nobody else has.
            notify: As for `watch`.
        """
        self.sleeping[token] = notify
        if self.is_closed:
            # Whoever closes it may have looked before.
            self._tell(token)

    def check_open(self) -> None:
        """Raise `StoreClosed` where the store was closed, or what `close` was given."""
        if self.is_closed:
            raise self._ended()

    def close(self, ended: Callable[[], BaseException] | None = None) -> None:
        """Wake all. Again: those that an interrupt has left.

        Args:
            ended: Makes what they are told, unless that is `StoreClosed`.
        """
        if ended is not None:
            self._ended = ended
        self.is_closed = True
        for token in list(self.sleeping):
            self._tell(token)

    def _tell(self, token: object) -> None:
        notify = self.sleeping.pop(token, None)
        if notify is not None:
            notify()

    def state_lock(self) -> forks.StateLock | None:
        """Each step is one of Python's own, so no fork waits for it."""
        return None

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: who sleeps is a thread or an event loop of the parent's."""
        self.sleeping = {}


def _closed() -> StoreClosed:
    return StoreClosed(CLOSED)


def left_of(request: Request[Any], seconds: float) -> Request[Any]:
    """What is left of a request once so many seconds have passed: of a sleep the rest, of any other all.

    >>> left_of(Sleep(5), 2), left_of(Sleep(5), 7)
    (Sleep(seconds=3), Sleep(seconds=0.0))
    """
    return Sleep(max(0.0, request.seconds - seconds)) if isinstance(request, Sleep) else request
