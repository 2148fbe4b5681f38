"""What a test does beside itself: in a thread, whose end it waits for."""

import threading

PATIENCE_SECONDS = 60.0


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
