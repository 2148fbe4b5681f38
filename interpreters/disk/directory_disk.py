"""`DirectoryDisk`: the door through which a user's own file code reaches a real disk."""

import os
from types import TracebackType
from typing import TypeVar

from interpreters.disk.checking import checked_disk_rows
from interpreters.disk.files import PRIVATE
from interpreters.disk.real import RealDisk
from persist_effects.machine import Effect, Handlers, run

A = TypeVar("A")


class DirectoryDisk:
    """Answers `interpreters.disk.requests` in a directory of a real disk, and never outside of it, until `close`.

    The directory is made where it is missing. A path that leads out of it, and a request that makes no sense, raises
    `InvalidRequest` in the program; what the system refuses is an OSError there, which names the file; a link, a FIFO
    or a device in the place of a file is a `ForeignFile`, and is left alone.

    Files are taken to be this process's own, and stay open: one that somebody else puts in the place of another is
    found once the program has let that one go, by ``LetGo``. Until then it reads and writes the one that it had, or
    meets an OSError, ESTALE.

    ``handlers`` are its rows, to be put beside others: ``open_store(url, effects=disk.handlers)``.

    Args:
        root: The directory.
        read_only: Refuse with PermissionError whatever would change a file, and do not make the directory.
        permissions: Those of new files, less what the process's umask takes. Who may read a file may enter its
            directory.

    Raises:
        OSError: If the directory can neither be opened nor be made.

    >>> import tempfile
    >>> from interpreters import disk
    >>> from persist_effects import perform
    >>> def save_and_load(data):
    ...     yield from perform(disk.Create("note"))
    ...     yield from perform(disk.Write("note", 0, data))
    ...     yield from perform(disk.Sync("note"))
    ...     yield from perform(disk.SyncDirectory(""))
    ...     return (yield from perform(disk.Read("note", 0, 100)))
    >>> with tempfile.TemporaryDirectory() as root, DirectoryDisk(root) as opened:
    ...     opened.run(save_and_load(b"buy tea"))
    b'buy tea'
    """

    def __init__(self, root: str | os.PathLike[str], *, read_only: bool = False, permissions: int = PRIVATE) -> None:
        self._disk = RealDisk(root, read_only=read_only, permissions=permissions)
        self.handlers: Handlers = checked_disk_rows(self._disk.handlers)

    def run(self, program: Effect[A]) -> A:
        """Run a program of `disk/*` requests to its end.

        Args:
            program: The program.

        Returns:
            The value that it came to. The error that it raised is raised.

        Raises:
            UnhandledEffect: In the program, for a request that is not of a disk.
        """
        return run(program, self.handlers)

    def close(self) -> None:
        """Let go of the files and the locks. Twice is as good as once; later requests raise OSError."""
        self._disk.close()

    def __enter__(self) -> "DirectoryDisk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
