"""A home of blobs that is found each time it is used: one that is made by the first blob, say."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import ANY_MIME, BlobHome, BlobProgress, KeptBlob
from interpreters.blobs.memory import NoBlobs
from interpreters.disk.files import PRIVATE
from persist_effects.errors import StoreClosed
from persist_effects.machine import Handlers
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef


class FindHome(Protocol):
    """Finds the home for one use of it."""

    def __call__(self, what: str, changes: bool) -> BlobHome:
        """Find it.

        Args:
            what: The use, for messages.
            changes: Whether it puts or drops blobs.

        Returns:
            The home.
        """
        ...


class BlobsOf:
    """The home of blobs that a function finds.

    Args:
        find: The function. What it raises is raised.

    >>> from interpreters.blobs.memory import MemoryBlobs
    >>> from persist_effects import blob, run
    >>> found = MemoryBlobs()
    >>> run(blob.put(b"hello"), BlobsOf(lambda what, changes: found).handlers).size
    5
    """

    def __init__(self, find: FindHome) -> None:
        self._find = find
        self.handlers: Handlers = {BlobPut: self._change, BlobGet: self._ask, BlobHas: self._ask}

    def close(self) -> None:
        """Nothing: whoever finds the home closes it."""

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """As the home does.

        Args:
            file: The file.
            mime: The MIME type of its bytes.
            progress: Told after each piece.
            cid: The identifier that the bytes must have.

        Returns:
            The reference to keep.
        """
        return self._find("put_file", True).put_file(file, mime, progress, cid=cid)

    def open_blob(self, cid: str, progress: BlobProgress | None = None) -> BinaryIO:
        """As the home does.

        Args:
            cid: The blob's identifier.
            progress: Told after each piece.

        Returns:
            The file.
        """
        return self._find("open_blob", False).open_blob(cid, progress)

    def kept(self) -> Iterator[KeptBlob]:
        """As the home does.

        Returns:
            The blobs.
        """
        return self._find("kept", False).kept()

    def drop(self, cid: str, put_before: int) -> bool:
        """As the home does.

        Args:
            cid: The blob's identifier.
            put_before: The moment, in microseconds since 1970, UTC.

        Returns:
            Whether it was given up.
        """
        return self._find("drop", True).drop(cid, put_before)

    def drop_unfinished(self, put_before: int, *, dry_run: bool = False) -> int:
        """As the home does.

        Args:
            put_before: The moment, in microseconds since 1970, UTC.
            dry_run: Whether it is only counted.

        Returns:
            How many puts there were of which something was left.
        """
        return self._find("drop_unfinished", not dry_run).drop_unfinished(put_before, dry_run=dry_run)

    def _ask(self, request: BlobGet | BlobHas) -> Any:
        return self._find(request.op, False).handlers[type(request)](request)

    def _change(self, request: BlobPut) -> Any:
        return self._find(request.op, True).handlers[BlobPut](request)


def _no_objection(what: str, changes: bool) -> None:
    pass


class BlobsLater(BlobsOf):
    """The home of blobs that belongs to a store, and is opened when it is used. For any thread.

    Args:
        open_home: Opens it, and is told whether blobs are about to be changed. Where they are not, and it is not there
            yet, it returns None.
        where: What messages call it.
        check: Called with a use, and whether that changes blobs; raises where the store is not to be used so.

    >>> from interpreters.blobs.memory import MemoryBlobs
    >>> from persist_effects import blob, run
    >>> blobs = BlobsLater(lambda changes: MemoryBlobs() if changes else None, "in memory")
    >>> list(blobs.kept()), run(blob.put(b"hello"), blobs.handlers).size, len(list(blobs.kept()))
    ([], 5, 1)
    """

    def __init__(
        self,
        open_home: Callable[[bool], BlobHome | None],
        where: str,
        check: Callable[[str, bool], None] = _no_objection,
    ) -> None:
        super().__init__(self._opened)
        self._open_home = open_home
        self._where = where
        self._check = check
        self._home: BlobHome | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def close_home(self) -> None:
        """Let go of it, by the store when it is closed. Again: nothing."""
        with self._lock:
            self._is_closed = True
            home, self._home = self._home, None
        if home is not None:
            home.close()

    def leave_to_parent(self) -> None:
        """In a forked child: it opens the home by itself."""
        # What is the parent's is not even closed here: that would give its locks back.
        _INHERITED.append(self._home)
        self._home = None
        self._lock = threading.Lock()

    def _opened(self, what: str, changes: bool) -> BlobHome:
        self._check(what, changes)
        home = self._home
        if home is not None:
            return home
        if self._is_closed:
            raise self._closed()
        opened = self._open_home(changes)
        return NoBlobs() if opened is None else self._keep(opened)

    def _keep(self, opened: BlobHome) -> BlobHome:
        """The one that is kept: another thread may have been quicker."""
        with self._lock:
            if self._home is None and not self._is_closed:
                self._home = opened
            home = self._home
        if home is not opened:
            opened.close()
        if home is None:
            raise self._closed()
        return home

    def _closed(self) -> StoreClosed:
        return StoreClosed(f"{self._where}: the store was closed: open it again")


class BlobsBeside(BlobsLater):
    """The home of blobs in a directory beside a store, which is made by the first blob that is put. For any thread.

    Args:
        place: The directory.
        read_only: Whether nothing is made.
        permissions: Those of new files.
        check: Called with a use, and whether that changes blobs; raises where the store is not to be used so.

    >>> import os, tempfile
    >>> from persist_effects import blob, run
    >>> with tempfile.TemporaryDirectory() as root:
    ...     blobs = BlobsBeside(f"{root}/blobs")
    ...     print(list(blobs.kept()), os.listdir(root))
    ...     print(run(blob.put(b"hello"), blobs.handlers).size, os.listdir(root))
    ...     blobs.close_home()
    [] []
    5 ['blobs']
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        read_only: bool = False,
        permissions: int = PRIVATE,
        check: Callable[[str, bool], None] = _no_objection,
    ) -> None:
        def directory(changes: bool) -> BlobHome | None:
            if not changes and not os.path.isdir(place):
                return None
            return DirectoryBlobs(place, read_only=read_only, permissions=permissions)

        super().__init__(directory, os.fspath(place), check)


_INHERITED: list[BlobHome | None] = []
