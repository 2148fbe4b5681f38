"""A blob as a binary file: its chunks, each of them proved, as one row of bytes that can be read from any place."""

import io
from typing import BinaryIO, Protocol, cast

from interpreters.blobs.cid import CHUNK_BYTES
from interpreters.blobs.homes import BlobProgress


class Chunks(Protocol):
    """The chunks of a blob, for one thread at a time."""

    @property
    def size_bytes(self) -> int:
        """How many bytes the blob has."""
        ...

    def chunk(self, index: int) -> bytes:
        """A chunk, which was compared with what the blob's identifier says of it.

        Args:
            index: Which one.

        Returns:
            Its bytes.
        """
        ...

    def close(self) -> None:
        """Let go of the blob. It may be called in the middle of anything, so it must not wait for anything."""
        ...


class BlobReader(io.RawIOBase):
    """Reads a blob by its chunks, of which it keeps the last.

    Args:
        chunks: The blob's chunks.
        progress: Told after each read how many bytes were read, and how many the blob has.
    """

    def __init__(self, chunks: Chunks, progress: BlobProgress | None = None) -> None:
        super().__init__()
        self._chunks = chunks
        self._progress = progress
        self._position = 0
        self._read_bytes = 0
        self._last: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        """That it is.

        Returns:
            True.
        """
        return True

    def seekable(self) -> bool:
        """That it is.

        Returns:
            True.
        """
        return True

    def tell(self) -> int:
        """Where the next read begins.

        Returns:
            The offset.
        """
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Have the next read begin somewhere else: also behind the end, where there is nothing to read.

        Args:
            offset: How far, in bytes.
            whence: From where: the beginning, the place it stands at, or the end.

        Returns:
            The offset from the beginning.
        """
        self._check_open()
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._chunks.size_bytes}[whence]
        if begin + offset < 0:
            raise ValueError(f"{begin + offset} is before the beginning of the blob")
        self._position = begin + offset
        return self._position

    def readinto(self, buffer: "bytearray | memoryview", /) -> int:  # type: ignore[override]
        """Read into a buffer up to the end of a chunk.

        Args:
            buffer: The buffer.

        Returns:
            How many bytes were read; 0 at the end.
        """
        self._check_open()
        if self._position >= self._chunks.size_bytes:
            return 0
        index, begin = divmod(self._position, CHUNK_BYTES)
        if self._last[0] != index:
            self._last = index, self._chunks.chunk(index)
        piece = memoryview(self._last[1])[begin : begin + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        self._read_bytes += len(piece)
        if self._progress is not None:
            self._progress(self._read_bytes, self._chunks.size_bytes)
        return len(piece)

    def readall(self) -> bytes:
        """Read all that is left, a chunk at a time.

        Returns:
            The bytes.
        """
        left = bytearray(max(0, self._chunks.size_bytes - self._position))
        view, done = memoryview(left), 0
        while done < len(left):
            done += self.readinto(view[done:])
        return bytes(left)

    def close(self) -> None:
        """Let go of the blob. Again: nothing."""
        if not self.closed:
            self._last = (-1, b"")
            try:
                # Not there where an interrupt came while this was made.
                if hasattr(self, "_chunks"):
                    self._chunks.close()
            finally:
                super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the blob's file was closed")


def as_file(chunks: Chunks, progress: BlobProgress | None = None) -> BinaryIO:
    """A blob as a binary file, of which a chunk is in memory at a time.

    Args:
        chunks: The blob's chunks.
        progress: Told after each chunk how many bytes were read, and how many the blob has.

    Returns:
        The file.

    >>> from interpreters.blobs.memory import ChunksOf
    >>> with as_file(ChunksOf(b"hello")) as file:
    ...     file.seek(1), file.read(3)
    (1, b'ell')
    """
    return cast(BinaryIO, io.BufferedReader(BlobReader(chunks, progress), CHUNK_BYTES))
