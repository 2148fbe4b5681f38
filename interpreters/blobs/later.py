"""A home of blobs that is found each time it is used: one that is made by the first blob, say."""

from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

from interpreters.blobs.homes import ANY_MIME, BlobHome, BlobProgress, KeptBlob
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

    def _ask(self, request: BlobGet | BlobHas) -> Any:
        return self._find(request.op, False).handlers[type(request)](request)

    def _change(self, request: BlobPut) -> Any:
        return self._find(request.op, True).handlers[BlobPut](request)
