"""Blobs in this process's memory, and what stands for a blob store where none was given that could keep them."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from interpreters.blobs.cid import CHUNK_BYTES, check_cid, cid_of
from interpreters.blobs.homes import ANY_MIME, BlobProgress, KeptBlob, check_is, check_mime, now_micros, pieces_of
from interpreters.blobs.reading import as_file
from persist_effects.errors import BlobNotFound, InvalidRequest
from persist_effects.machine import Handlers
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef


class ChunksOf:
    """The chunks of bytes that are in memory.

    Args:
        data: The bytes.

    >>> ChunksOf(b"hello").chunk(0)
    b'hello'
    """

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self._data = data

    def chunk(self, index: int) -> bytes:
        """One of them.

        Args:
            index: Which one.

        Returns:
            Its bytes.
        """
        return self._data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryBlobs:
    """Bytes by the hash of their content, for as long as the object lives. Usable from any thread.

    Args:
        clock: Gives microseconds since 1970, UTC: when a blob was put.

    >>> from persist_effects import blob, run
    >>> run(blob.put(b"hello"), MemoryBlobs().handlers).size
    5
    """

    def __init__(self, clock: Callable[[], int] = now_micros) -> None:
        self._clock = clock
        # A dict's single operations are atomic, and the same key always has the same bytes: no lock is needed.
        self._blobs: dict[str, tuple[bytes, int]] = {}
        # What is being dropped, and is still there.
        self._swept: dict[str, tuple[bytes, int]] = {}
        self.handlers: Handlers = {BlobPut: self._put, BlobGet: self._get, BlobHas: self._has}

    def close(self) -> None:
        """Nothing to let go of."""

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """Put all that a binary file gives: see `interpreters.blobs.homes.BlobHome`. All of it stays in memory.

        Args:
            file: The file.
            mime: The MIME type of its bytes.
            progress: Told after each piece.
            cid: The identifier that the bytes must have.

        Returns:
            The reference to keep.

        Raises:
            InvalidRequest: The bytes do not have that identifier, or the file does not give bytes.
        """
        check_mime(mime)
        gathered = bytearray()
        for piece in pieces_of(file):
            gathered += piece
            if progress is not None:
                progress(len(gathered), 0)
        data = bytes(gathered)
        found = cid_of(data)
        check_is(cid, found)
        return self._keep(found, data, mime)

    def open_blob(self, cid: str, progress: BlobProgress | None = None) -> BinaryIO:
        """A blob as a binary file to read.

        Args:
            cid: The blob's identifier.
            progress: Told after each chunk.

        Returns:
            The file.

        Raises:
            BlobNotFound: It is not there.
        """
        return as_file(ChunksOf(self._found(cid)[0]), progress)

    def kept(self) -> Iterator[KeptBlob]:
        """The blobs that are there.

        Returns:
            The blobs.
        """
        for cid, (data, put_at) in list(self._blobs.items()):
            yield KeptBlob(cid, len(data), put_at)

    def drop(self, cid: str, put_before: int) -> bool:
        """Give up a blob that nobody has put since a moment.

        Args:
            cid: The blob's identifier.
            put_before: The moment, in microseconds since 1970, UTC.

        Returns:
            Whether it was given up.
        """
        check_cid(cid)
        found = self._blobs.get(cid)
        if found is None or found[1] >= put_before:
            return False
        # As in a directory: it can be read all the time, and whoever has put it meanwhile has it back.
        self._swept[cid] = found
        taken = self._blobs.pop(cid, None)
        if taken is not None and taken[1] >= put_before:
            self._blobs.setdefault(cid, taken)
        self._swept.pop(cid, None)
        return cid not in self._blobs

    def drop_unfinished(self, put_before: int, *, dry_run: bool = False) -> int:
        """Nothing: no put leaves anything.

        Args:
            put_before: The moment, in microseconds since 1970, UTC.
            dry_run: Whether it is only counted.

        Returns:
            0.
        """
        return 0

    def _put(self, request: BlobPut) -> BlobRef:
        return self._keep(cid_of(request.data), request.data, request.mime)

    def _keep(self, cid: str, data: bytes, mime: str) -> BlobRef:
        self._blobs[cid] = data, self._clock()
        return BlobRef(cid, len(data), mime)

    def _found(self, cid: str) -> tuple[bytes, int]:
        check_cid(cid)
        found = self._blobs.get(cid) or self._swept.get(cid) or self._blobs.get(cid)
        if found is None:
            raise BlobNotFound(cid)
        return found

    def _get(self, request: BlobGet) -> bytes:
        return self._found(request.cid)[0]

    def _has(self, request: BlobHas) -> bool:
        check_cid(request.cid)
        return request.cid in self._blobs or request.cid in self._swept or request.cid in self._blobs


class NoBlobs(MemoryBlobs):
    """Beside a durable store that was given no blob store: it holds nothing, and refuses to put what it would lose.

    >>> from persist_effects import blob, run
    >>> run(blob.put(b"hello"), NoBlobs().handlers)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: blob/put: this store is durable and has no blob store of its own: ...
    """

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """Refuse.

        Args:
            file: The file, of which nothing is read.
            mime: The MIME type of its bytes.
            progress: Told nothing.
            cid: The identifier that the bytes must have.

        Returns:
            Nothing.

        Raises:
            InvalidRequest: Always.
        """
        raise _refusal("put_file")

    def _put(self, request: BlobPut) -> BlobRef:
        raise _refusal(request.op)


def _refusal(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what}: this store is durable and has no blob store of its own: its references would outlive bytes "
        "that are only in this process's memory. Give it a blob store that keeps them, as in "
        "open_store(url, blobs='dir:var/blobs'), or blobs='memory:' to accept that they are lost with the process"
    )
