"""A file store that several processes share: the first that finds nobody starts a process which serves it to all.

That process, the agent, listens at a socket in the store's directory, and ends when nobody has needed it for a while.
The lock of the directory itself belongs to whoever changes who serves: to the client that starts an agent, then to
that agent until it can be found, and to an agent that ends until it has let go of the store. So nobody starts a second
one beside it, and where any of them is killed, the system gives the lock back.
"""

import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from interpreters.blobs.later import BlobsBeside
from interpreters.disk.files import PRIVATE, directory_mode, locked, make_directories, refuse_home
from interpreters.stores.served.client import TIMEOUT_SECONDS, RemoteStore
from interpreters.stores.served.doors import Ready, UnixDoor
from interpreters.stores.served.processes import command_of, options_as_arguments
from interpreters.stores.served.wire import HELLO_LIMIT_BYTES, FrameParser, error_of_reply, reply_of
from interpreters.threads import forks
from persist_effects.errors import InvalidRequest, StoreUnavailable, describe
from persist_effects.event import check_integer

SOCKET = "serve.sock"
"""Where in the store's directory the agent listens."""

LOG_FILE = "serve.log"
"""Where in the store's directory the agent notes what it does."""

IDLE_SECONDS = 10.0
"""After how many seconds without a client the agent ends, unless told otherwise."""

_NOBODY = (FileNotFoundError, ConnectionRefusedError)

_MAIN = "interpreters.sharing"


def open_shared(
    path: str | os.PathLike[str],
    *,
    blobs: str,
    timeout: float = TIMEOUT_SECONDS,
    idle_seconds: float = IDLE_SECONDS,
    **options: Any,
) -> RemoteStore:
    """Be a client of the process that serves a file store, which is started where there is none.

    Args:
        path: The store's directory. It is made where it is missing.
        blobs: Where in it the file store keeps blobs.
        timeout: After how many seconds without an answer a request is given up; and without an agent, the opening.
        idle_seconds: After how many seconds without a client an agent ends that this one starts.
        options: Those of the file store. All who share it must give the same.

    Returns:
        The client.

    Raises:
        InvalidRequest: If an option makes no sense, or is not what the others have given.
        StoreUnavailable: If no agent can be had. `StoreLocked`: a process has the store for itself.
        CorruptStore: If it is damaged.
    """
    if "\0" in os.fspath(path):
        raise InvalidRequest(f"{os.fspath(path)!r} is not a path: it has a zero character")
    refuse_home(path)
    if type(idle_seconds) not in (int, float) or not 0 < idle_seconds < float("inf"):
        raise InvalidRequest(f"idle_seconds is {describe(idle_seconds)}: give a number of seconds over 0")
    root = os.path.abspath(path)
    permissions = options.get("permissions", PRIVATE)
    check_integer("permissions", permissions, 0, 0o777)
    door = SharedDoor(root, options, idle_seconds)
    if os.path.exists(root) and not os.path.isdir(root):
        raise InvalidRequest(f"{root} is a file: a store is a directory, give the path of one or of a new one")
    try:
        make_directories(root, directory_mode(permissions))
    except OSError as error:
        raise StoreUnavailable(f"{root} cannot be made: {error}") from error
    return RemoteStore(door, timeout=timeout, blobs=BlobsBeside(os.path.join(root, blobs), permissions=permissions))


class SharedDoor(UnixDoor):
    """The socket of an agent, which is started where there is none.

    Args:
        root: The store's directory, as an absolute path.
        options: How the store is opened, as JSON can hold it.
        idle_seconds: After how many seconds without a client the agent ends.
    """

    comes_back = True
    # Those of the client, since a store that went down is brought up first.
    dial_seconds = float("inf")

    def __init__(self, root: str, options: Mapping[str, Any], idle_seconds: float) -> None:
        super().__init__(os.path.join(root, SOCKET))
        self.where = f"file:{root}?share=yes"
        self._root = root
        self._options = dict(options)
        self._arguments = [root, f"{idle_seconds}", *options_as_arguments(options)]

    def connect(self, ready: Ready) -> socket.socket:
        """A new connection. This is called by a thread into which no interrupt comes."""
        try:
            return super().connect(ready)
        except _NOBODY:
            begun = self._begin(ready)
        if isinstance(begun, _Starting):
            begun.wait(ready)
            return super().connect(ready)
        return begun

    def advice(self, error: Exception) -> str:
        """Say it of a directory that is gone, or is another user's."""
        if isinstance(error, FileNotFoundError):
            return ": the store's directory is gone: restore it, or open the store anew"
        if isinstance(error, PermissionError):
            return ": this user may not: see the option permissions"
        return ""

    def check_served(self, options: Mapping[str, Any] | None) -> None:
        """Refuse a store that was opened otherwise: it would keep other promises than this client relies on."""
        if options != self._options:
            raise InvalidRequest(
                f"{self._root} is shared by processes that opened it with {_told(options or {})}, and here "
                f"{_told(self._options)} is given: give the same in all of them, or end them first"
            )

    def _begin(self, ready: Ready) -> "socket.socket | _Starting":
        with forks.no_fork(), locked(self._root, is_patient=False) as held:
            if held is None:
                raise BlockingIOError(errno.EAGAIN, "another process is about to serve the store, or to end doing so")
            try:
                # Another may have come between the look and the lock.
                return super().connect(ready)
            except _NOBODY:
                return _Starting(self._arguments, held)


class _Starting:
    """An agent on its way. Until it can be found, it has the lock of the directory.

    Args:
        arguments: What it is told, beside the descriptors.
        held: The descriptor by which it has the lock.
    """

    def __init__(self, arguments: list[str], held: int) -> None:
        self._word, theirs = socket.socketpair()
        with theirs:
            try:
                self._word.setblocking(False)
                # Nobody would see the end of its output, which lasts for as long as the agent lives. And what systemd
                # wants to be told is another process's to tell.
                self._process = subprocess.Popen(  # noqa: S603 - this package's own command
                    command_of(_MAIN, f"{held}", f"{theirs.fileno()}", *arguments, is_detached=True),
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                    pass_fds=(held, theirs.fileno()), start_new_session=True,
                    env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
                )  # fmt: skip
            except BaseException:
                self._word.close()
                raise

    def wait(self, ready: Ready) -> None:
        """Wait until clients can connect. Raises what keeps it from that."""
        try:
            said = self._heard(ready)
        finally:
            self._word.close()
            # It has left the agent behind, and ended at once.
            self._process.wait()
        if not said:
            raise StoreUnavailable(
                "the process that was started to serve it ended without a word: see whether "
                f"`{sys.executable} -m interpreters.cli` starts, and whether the system has killed it"
            )
        _, is_ready, content = reply_of(said[0])
        if not is_ready:
            raise error_of_reply(content)

    def _heard(self, ready: Ready) -> list[bytes]:
        """The frame that the agent says; none where it is dead."""
        parser, frames = FrameParser(HELLO_LIMIT_BYTES), list[bytes]()
        while not frames:
            ready(self._word, select.POLLIN)
            with suppress(ConnectionResetError, BlockingIOError):
                data = self._word.recv(HELLO_LIMIT_BYTES)
                if data:
                    frames = parser.take(data)
                    continue
                break
        return frames


def _told(options: Mapping[str, Any]) -> str:
    return " and ".join(f"{name}={value}" for name, value in sorted(options.items())) or "no options"
