"""What a home of blobs offers beside the rows for ``blob/*``: blobs larger than memory, and what it keeps."""

import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

from persist_effects.errors import CorruptStore, InvalidRequest, describe
from persist_effects.event import check_name
from persist_effects.machine import Handlers
from persist_effects.requests import BlobRef

BlobProgress = Callable[[int, int], None]
"""Told now and then how many bytes were done, and how many there are: 0 where that is not known."""

ANY_MIME = "application/octet-stream"
"""The MIME type of bytes of which nothing more is known."""

PIECE_BYTES = 262144
"""How much of a file is in memory at once. For larger pieces the system gives, and clears, memory anew each time."""


def now_micros() -> int:
    """The time by this machine's clock, by which it also says when a file was last modified.

    Returns:
        Microseconds since 1970, UTC.

    >>> now_micros() > 0
    True
    """
    return time.time_ns() // 1000


class KeptBlob(NamedTuple):
    """A blob that a home keeps."""

    cid: str
    size_bytes: int
    put_at: int | None
    """When it was last put, in microseconds since 1970, UTC; None where the home does not keep that."""


class BlobHome(Protocol):
    """Where blobs are kept. All methods may be used from any thread."""

    @property
    def handlers(self) -> Handlers:
        """The rows for ``blob/*``."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """Put all that a binary file gives from where it stands, a piece of it in memory at a time.

        Args:
            file: The file, which is left open.
            mime: The MIME type of the bytes.
            progress: Told after each piece.
            cid: The identifier that the bytes must have; None: whichever they have.

        Returns:
            The reference to keep.

        Raises:
            InvalidRequest: The bytes do not have that identifier, or the file does not give bytes.
        """
        ...

    def open_blob(self, cid: str, progress: BlobProgress | None = None) -> BinaryIO:
        """A blob as a binary file to read, from any place of it. What it reads was compared with the identifier.

        Args:
            cid: The blob's identifier.
            progress: Told after each piece that is read.

        Returns:
            The file. Close it, or use it in a ``with`` block.

        Raises:
            BlobNotFound: It is not there.
            CorruptStore: It is damaged; told by the file's methods too.
        """
        ...

    def kept(self) -> Iterator[KeptBlob]:
        """The blobs that are there, one after the other. What is put or dropped meanwhile may be among them or not.

        Returns:
            The blobs.
        """
        ...

    def drop(self, cid: str, put_before: int) -> bool:
        """Give up a blob that nobody has put since a moment, whatever others do at the same time.

        Args:
            cid: The blob's identifier.
            put_before: The moment, in microseconds since 1970, UTC.

        Returns:
            Whether it was given up: not if it was put again since, or is not there.
        """
        ...

    def drop_unfinished(self, put_before: int, *, dry_run: bool = False) -> int:
        """Take away what puts that ended half-way have left, where the next put does not do so by itself.

        Args:
            put_before: The moment, in microseconds since 1970, UTC, since which nothing of it was written.
            dry_run: Whether it is only counted.

        Returns:
            How many puts there were of which something was left.
        """
        ...


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """What a binary file gives from where it stands, in pieces.

    Args:
        file: The file.

    Returns:
        The pieces, none of them empty.

    Raises:
        InvalidRequest: It gives something else than bytes.

    >>> import io
    >>> list(pieces_of(io.BytesIO(b"hello")))
    [b'hello']
    """
    while True:
        piece: object = file.read(PIECE_BYTES)
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise InvalidRequest(f"the file of a blob gave {describe(piece)}: give one that is opened to read bytes")
        if not piece:
            return
        yield bytes(piece)


def check_mime(mime: str) -> None:
    """Refuse what cannot be a MIME type.

    Args:
        mime: The MIME type.

    Raises:
        InvalidRequest: It is not a name.
    """
    check_name("MIME type", mime)


def check_is(expected: str | None, found: str) -> None:
    """Refuse a file that has not the identifier that it must have.

    Args:
        expected: That identifier; None: it may have any.
        found: The one that it has.

    Raises:
        InvalidRequest: They differ.

    >>> check_is(None, "bafkrei…")
    """
    if expected is not None and found != expected:
        raise InvalidRequest(f"expected the bytes of blob {expected}, and got those of {found}: nothing was put")


def read_through(home: BlobHome, cid: str) -> int:
    """Read all of a blob, which compares it with its identifier.

    Args:
        home: Where it is.
        cid: Its identifier.

    Returns:
        How many bytes it has.

    Raises:
        BlobNotFound: It is not there.
        CorruptStore: It is damaged.

    >>> from interpreters.blobs.memory import MemoryBlobs
    >>> import io
    >>> home = MemoryBlobs()
    >>> read_through(home, home.put_file(io.BytesIO(b"hello")).cid)
    5
    """
    with home.open_blob(cid) as file:
        return sum(len(piece) for piece in pieces_of(file))


def damaged(place: str, cid: str, found: str, *, may_be_put_again: bool) -> CorruptStore:
    """The error for bytes that are not those of a blob.

    Args:
        place: Where they are.
        cid: The blob's identifier.
        found: What was found.
        may_be_put_again: Whether bytes that are put would get that identifier.

    Returns:
        The error, to be raised.
    """
    again = "put the blob's bytes again, which replaces the file, or " if may_be_put_again else ""
    return CorruptStore(f"{place}: expected the bytes of blob {cid}, found {found}: {again}restore it from a backup")
