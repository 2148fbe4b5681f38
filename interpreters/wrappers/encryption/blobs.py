"""A home of blobs around a home: what was put under a subject's key is opened, the rest is handed on as it is."""

from collections.abc import Iterator
from typing import BinaryIO, cast

from interpreters.blobs.homes import ANY_MIME, BlobHome, BlobProgress, KeptBlob
from interpreters.blobs.memory import ChunksOf
from interpreters.blobs.reading import as_file
from interpreters.runtime.interpreter import Interpreter
from interpreters.wrappers.encryption.envelope import KeyById
from interpreters.wrappers.encryption.sealed_blobs import checked_blob, opened_blob, refuse_envelope
from persist_effects.erasure import ENVELOPE
from persist_effects.machine import Handlers
from persist_effects.requests import BlobGet, BlobPut, BlobRef


class EncryptedBlobs:
    """A home around a home. Any thread may use it.

    Args:
        inner: The home.
        by_id: Gives keys.
        blocking: Whether the home, or what gives keys, may have whoever asks wait.
    """

    def __init__(self, inner: Interpreter, by_id: KeyById, *, blocking: bool) -> None:
        self.inner = inner
        self._home = cast(BlobHome, inner)
        self._by_id = by_id
        rows = dict(inner.handlers)
        put, get = rows[BlobPut], rows[BlobGet]
        rows[BlobPut] = lambda request: put(checked_blob(request))
        rows[BlobGet] = lambda request: opened_blob(request.cid, get(request), by_id)
        self.handlers: Handlers = rows
        self.blocking = blocking

    def close(self) -> None:
        """Close the home inside."""
        self.inner.close()

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """Put all that a binary file gives, as it is: see `interpreters.blobs.homes.BlobHome`."""
        return self._home.put_file(cast(BinaryIO, _Checking(file)), mime, progress, cid=cid)

    def open_blob(self, cid: str, progress: BlobProgress | None = None) -> BinaryIO:
        """A blob as a binary file. Of an encrypted one, all is in memory, and was proved."""
        with self._home.open_blob(cid) as file:
            if file.read(len(ENVELOPE)) == ENVELOPE:
                file.seek(0)
                return as_file(ChunksOf(opened_blob(cid, file.read(), self._by_id)), progress)
        return self._home.open_blob(cid, progress)

    def kept(self) -> Iterator[KeptBlob]:
        """The blobs that are there."""
        return self._home.kept()

    def drop(self, cid: str, put_before: int) -> bool:
        """Give up a blob that nobody has put since a moment."""
        return self._home.drop(cid, put_before)

    def drop_unfinished(self, put_before: int, *, dry_run: bool = False) -> int:
        """Take away what puts that ended half-way have left."""
        return self._home.drop_unfinished(put_before, dry_run=dry_run)


class _Checking:
    """A binary file that is refused where it begins as an envelope."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begin = b""

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        if isinstance(piece, bytes | bytearray) and len(self._begin) < len(ENVELOPE):
            self._begin += piece[: len(ENVELOPE)]
            refuse_envelope(self._begin)
        return piece
