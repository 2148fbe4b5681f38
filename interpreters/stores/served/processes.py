"""Processes that a client starts to serve it a store: how they are started, and what they are told."""

import itertools
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from interpreters.stores.served.doors import Door, Ready
from interpreters.threads import forks
from persist_effects.errors import InvalidRequest, describe, repr_of

_HERE = str(Path(__file__).parents[3])
_ATTACHED = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from {} import main; del sys.path[0]; "
    "sys.exit(main(sys.argv[1:]))"
)
"""What the process runs: this very package, whatever other one of its name stands in the directory where it starts."""

# Forked before it has anything but Python in memory.
_DETACHED = f"import os; os.fork() and os._exit(0); {_ATTACHED}"


def command_of(module: str, *arguments: str, is_detached: bool = False) -> list[str]:
    """What starts a module of this package in a process of its own.

    Args:
        module: The module, whose ``main`` is called with the arguments.
        arguments: They.
        is_detached: Whether the process ends at once, and leaves a child of its own that goes on, for the system to
            look after.

    Returns:
        The command.
    """
    return [sys.executable, "-P", "-c", (_DETACHED if is_detached else _ATTACHED).format(module), _HERE, *arguments]


def options_as_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options of a store, as arguments of a command.

    Args:
        options: They.

    Returns:
        A ``NAME=JSON`` each.

    Raises:
        InvalidRequest: If JSON cannot hold one.

    >>> options_as_arguments({"sync": "os"}), option_of_argument('sync="os"')
    (['sync="os"'], ('sync', 'os'))
    """
    return list(itertools.starmap(_argument, options.items()))


def _argument(name: str, value: Any) -> str:
    try:
        return f"{name}={msgspec.json.encode(value).decode()}"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(
            f"the option {name} is {describe(value)}, which cannot go to another process: give a plain value"
        ) from error


def option_of_argument(argument: str) -> tuple[str, Any]:
    """An option that is an argument.

    Args:
        argument: As ``NAME=JSON``.

    Returns:
        Its name and its value.

    Raises:
        InvalidRequest: If it is none.
    """
    name, _, value = argument.partition("=")
    try:
        return name, msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the option {repr_of(argument)} has no JSON value: write NAME=VALUE") from error


class SpawnedDoor(Door):
    """A process of one's own that serves a store over a socket, which is its stdin.

    Args:
        url: The store's URL.
        options: Options of the store, which JSON can hold.
    """

    is_dialled = False

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        if type(url) is not str:
            raise InvalidRequest(f"a store's URL is {describe(url)}: give a str, such as 'memory:'")
        self._url = url
        self.where = f"the process that serves {url!r}"
        self._process: subprocess.Popen[bytes] | None = None
        self._command = command_of("interpreters.serving", url, *options_as_arguments(options))

    @property
    def pid(self) -> int | None:
        """The process's number, once it was started."""
        return None if self._process is None else self._process.pid

    def connect(self, ready: Ready) -> socket.socket:
        """Start the process. This is called by a thread into which no interrupt comes."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                ours.setblocking(False)
                # A fork in another thread would copy the socket, and the process never see its end.
                with forks.no_fork():
                    # In a session of its own, so that a Ctrl-C here reaches this process alone, which then closes it.
                    self._process = subprocess.Popen(  # noqa: S603 - this package's own command
                        self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
                    )
            except BaseException:
                ours.close()
                raise
        return ours

    def how_it_ended(self) -> str:
        """Say it of a process that has closed its stdin, and so is at its end."""
        assert self._process is not None, "it was started"
        code = self._process.wait()
        if code < 0:
            end = f"was killed by signal {-code}, {signal.Signals(-code).name}"
        else:
            end = f"ended with exit status {code}"
        return f"the process that served {self._url!r} {end}: start it again"

    def end(self) -> None:
        """Wait for its end, now that its stdin is closed."""
        if self._process is not None:
            self._process.wait()

    def leave_to_parent(self) -> None:
        """How the process ends is for the parent to ask."""
        if self._process is not None:
            self._process.returncode = 0
