"""How a command ends: errors become messages and exit codes, and Ctrl-C ends it in one line at the most."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import msgspec
import typer

from interpreters.error_pages import see_pages
from persist_effects.errors import CallerError, CorruptStore, PersistError

GOOD, DAMAGED, WRONG_USE, UNAVAILABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141


EXIT_CODES = """
Exit codes: 0 good; 1 damage was found; 2 wrong use or bad input; 3 the store or its disk cannot be used now, the store
is locked, or a newer release wrote it; 130 interrupted by Ctrl-C; 141 the reader of the output went away.
"""


@contextlib.contextmanager
def exit_codes(as_json: bool) -> Iterator[None]:
    """Errors become messages and exit codes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        raise typer.Exit(BROKEN_PIPE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except CorruptStore as error:
        fail(error, DAMAGED, as_json)
    except CallerError as error:
        fail(error, WRONG_USE, as_json)
    except (PersistError, OSError) as error:
        fail(error, UNAVAILABLE, as_json)


@contextlib.contextmanager
def noting_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; pressed again, it interrupts at once.

    An exception would be lost where it met a ``__del__``, as where a file is closed, and `tail` would go on for ever.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def fail(error: Exception, code: int, as_json: bool) -> NoReturn:
    """Tell an error, and end with an exit code."""
    if as_json:
        typer.echo(msgspec.json.encode({"error": type(error).__name__, "message": str(error)}).decode())
    typer.echo(f"persist-effects: {error}", err=True)
    if pages := see_pages(error):
        typer.echo(pages, err=True)
    raise typer.Exit(code) from error


def exit_if_damaged(is_damaged: bool) -> None:
    """End with the exit code of damage, if there is any, once all that was printed is out."""
    sys.stdout.flush()
    if is_damaged:
        raise typer.Exit(DAMAGED)


def _forget_stdout() -> None:
    # Python flushes it once more at its end, and would complain.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_interrupted() -> NoReturn:
    """End the process as one that Ctrl-C has ended."""
    # Pressed again, it has nothing more to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr.write("persist-effects: interrupted\n")
    sys.exit(INTERRUPTED)
