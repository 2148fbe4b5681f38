"""What a test does beside itself: in a thread, whose end it waits for."""

import gc
import signal
import threading
from contextlib import contextmanager

from interpreters.never_run import Watcher

PATIENCE_SECONDS = 60.0

_PRESSED_AGAIN_SECONDS = 5.0


def in_thread(function):
    """Begin it, and return what waits for its end and gives the error that it met."""
    errors = []

    def run():
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end():
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        return errors[0] if errors else None

    return end


@contextmanager
def interrupted(await_moment):
    """Ctrl-C in the main thread, which the block is to end with, once a function has returned in another thread.

    Python loses one that comes while a weak reference tells that something is gone, and says so by a warning. So no
    garbage is collected meanwhile, and whoever presses presses again after a while, as people do. It may come
    between the making of a program and its running, so nobody is told of those that were never run.
    """
    is_over, main = threading.Event(), threading.main_thread()

    def press():
        await_moment()
        signal.pthread_kill(main.ident, signal.SIGINT)
        while not is_over.wait(_PRESSED_AGAIN_SECONDS):
            signal.pthread_kill(main.ident, signal.SIGINT)

    is_interrupted = False
    gc.disable()
    try:
        with Watcher(lambda lost: None):
            end = in_thread(press)
            try:
                yield
            except KeyboardInterrupt:
                is_interrupted = True
            finally:
                is_over.set()
    finally:
        gc.enable()
    assert is_interrupted, "the block has ended by itself"
    assert end() is None


LOST_INTERRUPT = "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
"""The warning of one that was lost."""
