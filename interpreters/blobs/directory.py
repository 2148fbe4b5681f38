"""Blobs in a directory, for any number of threads and processes: `DirectoryBlobs`, and what a file store has of it.

How the directory is laid out is in the first lines of `interpreters.blobs.files`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any, BinaryIO, TypeVar

from interpreters.blobs.cid import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    CidBuilder,
    LikeBuilder,
    check_cid,
    cid_like,
    digest_in,
    is_raw,
    raw_cid_of_digest,
)
from interpreters.blobs.files import BlobFiles
from interpreters.blobs.homes import (
    ANY_MIME,
    BlobProgress,
    KeptBlob,
    check_is,
    check_mime,
    damaged,
    pieces_of,
)
from interpreters.blobs.proofs import BlobTree, ProvedDigests, Unproved
from interpreters.blobs.reading import as_file
from interpreters.disk import requests as disk
from interpreters.disk.files import PRIVATE
from interpreters.disk.real import RealDisk
from persist_effects.errors import (
    BlobNotFound,
    CorruptStore,
    InvalidRequest,
    StoreClosed,
    StoreUnavailable,
)
from persist_effects.machine import Effect, Handlers, run
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef

A = TypeVar("A")

DriveDisk = Callable[[Effect[Any]], Any]
"""Runs a program over `disk/*`, and tells the disk's errors as the package's."""


WRITE_BACK_BYTES = 2 * 1024 * 1024
"""After how many bytes the system is asked to begin to write them: many pages at once, and long before the end."""


class _Unfinished:
    """A blob that is being put in pieces: the file of its bytes, and that of the digests below the nodes of its tree.

    The digests of chunks are written as they come. Those of nodes, one for 174, are kept until the end.

    Args:
        files: Where it is to be, after `BlobFiles.begin`.
        drive: Runs a program over `disk/*`.
        expected: The identifier that it must have; None: it may have any.
    """

    def __init__(self, files: BlobFiles, drive: DriveDisk, expected: str | None) -> None:
        self.size_bytes = 0
        self._files = files
        self._drive = drive
        self._expected = expected
        self._paths = files.unfinished_path(), files.unfinished_path()
        # Of those that were made.
        self._sizes: dict[str, int] = {}
        self._begun_bytes = 0
        self._above: dict[int, bytearray] = {}
        self._tree = CidBuilder(self._take_digests)
        # Needed only for the identifiers that older releases gave.
        self._whole = sha256() if expected is not None and is_raw(expected) else None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes in."""
        self._write(self._paths[0], piece)
        self._tree.feed(piece)
        if self._whole is not None:
            self._whole.update(piece)
        self.size_bytes += len(piece)
        if self.size_bytes - self._begun_bytes >= WRITE_BACK_BYTES:
            # The disk writes while the next pieces are hashed.
            begun, self._begun_bytes = self._begun_bytes, self.size_bytes
            self._drive(self._files.write_back(self._paths[0], begun, self.size_bytes - begun))

    def finish(self) -> str:
        """Have it on the disk, and give its identifier. Raises `InvalidRequest` if that is another than expected."""
        data, digests = self._paths
        if data not in self._sizes:
            self._write(data, b"")
        cid = self._tree.cid()
        if self._whole is not None and self.size_bytes > CHUNK_BYTES:
            cid = raw_cid_of_digest(self._whole.digest())
        check_is(self._expected, cid)
        for level in sorted(self._above):
            self._write(digests, bytes(self._above[level]))
        if is_raw(cid):
            self._drive(self._files.take_away(digests))
        self._drive(self._files.finish(cid, data, None if is_raw(cid) else digests))
        return cid

    def take_away(self) -> None:
        """Leave nothing of it."""
        for path in self._paths:
            self._drive(self._files.take_away(path))

    def _take_digests(self, level: int, digests: bytes) -> None:
        if level == 0:
            self._write(self._paths[1], digests)
        else:
            self._above.setdefault(level, bytearray()).extend(digests)

    def _write(self, path: str, data: bytes) -> None:
        offset = self._sizes.get(path)
        self._drive(self._files.write(path, offset, data))
        self._sizes[path] = (offset or 0) + len(data)


def _digests_of(data: bytes) -> tuple[str, bytes]:
    """The identifier of bytes, and the digests below the nodes of their tree, in the order in which they are kept."""
    levels: dict[int, bytearray] = {}
    builder = CidBuilder(lambda level, digests: levels.setdefault(level, bytearray()).extend(digests))
    builder.feed(data)
    cid = builder.cid()
    return cid, b"".join(levels[level] for level in sorted(levels))


class BlobDirectory:
    """The home of blobs in the files of a disk. Hashes are made outside of the programs, where nobody waits for a lock.

    Args:
        files: Where the blobs are.
        place: What the disk's root is called in errors.
        drive: Runs a program over `disk/*`, and tells the disk's errors as the package's.
        refuse: Raises the error for what puts or drops blobs, where they are only read.
    """

    def __init__(
        self,
        files: BlobFiles,
        place: str | os.PathLike[str],
        drive: DriveDisk,
        refuse: Callable[[str], Exception] | None = None,
    ) -> None:
        self.files = files
        self._place = os.fspath(place)
        self._drive = drive
        self._refuse = refuse
        self.handlers: Handlers = {BlobPut: self._put, BlobGet: self._get, BlobHas: self._has}

    def close(self) -> None:
        """Nothing: whoever has the disk closes it."""

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """Put all that a binary file gives: see `interpreters.blobs.homes.BlobHome`.

        Args:
            file: The file.
            mime: The MIME type of its bytes.
            progress: Told after each piece.
            cid: The identifier that the bytes must have. Here it may be one that older releases gave, of any size.

        Returns:
            The reference to keep.

        Raises:
            InvalidRequest: The bytes do not have that identifier, or the file does not give bytes.
            StoreUnavailable: The disk refuses. Nothing is left of it.
        """
        check_mime(mime)
        if cid is not None:
            check_cid(cid)
        self._check_may_put("put_file")
        self._drive(self.files.begin())
        unfinished = _Unfinished(self.files, self._drive, cid)
        try:
            for piece in pieces_of(file):
                unfinished.feed(piece)
                if progress is not None:
                    progress(unfinished.size_bytes, 0)
            return BlobRef(unfinished.finish(), unfinished.size_bytes, mime)
        except BaseException:
            # What went wrong first is told. Where this cannot be done, the next opening does it.
            with suppress(StoreUnavailable, CorruptStore):
                unfinished.take_away()
            raise

    def open_blob(self, cid: str, progress: BlobProgress | None = None) -> BinaryIO:
        """A blob as a binary file to read, from any place of it, of which a chunk is in memory at a time.

        Each chunk is compared with its digest, and that with the identifier, by the digests that are kept beside the
        blob. Where there are none, as of blobs that older releases put, the blob is read through first.

        Args:
            cid: The blob's identifier.
            progress: Told after each chunk.

        Returns:
            The file.

        Raises:
            BlobNotFound: It is not there.
            CorruptStore: It is damaged; told by the file's methods too.
        """
        check_cid(cid)
        size_bytes: int | None = self._drive(self.files.size(cid))
        if size_bytes is None:
            raise BlobNotFound(cid)
        return as_file(_StoredChunks(self, cid, size_bytes), progress)

    def kept(self) -> Iterator[KeptBlob]:
        """The blobs that are there: see `interpreters.blobs.homes.BlobHome`.

        Returns:
            The blobs.
        """
        for shard in self._drive(self.files.shards()):
            for cid in self._drive(self.files.cids_in(shard)):
                size_bytes, put_at = self._drive(self.files.size(cid)), self._drive(self.files.put_at(cid))
                if size_bytes is not None and put_at is not None:
                    yield KeptBlob(cid, size_bytes, put_at)

    def drop(self, cid: str, put_before: int) -> bool:
        """Give up a blob that nobody has put since a moment: see `interpreters.blobs.homes.BlobHome`.

        Args:
            cid: The blob's identifier.
            put_before: The moment, in microseconds since 1970, UTC.

        Returns:
            Whether it was given up.
        """
        check_cid(cid)
        self._check_may_put("drop")
        return bool(self._drive(self.files.drop(cid, put_before)))

    def drop_unfinished(self, put_before: int, *, dry_run: bool = False) -> int:
        """Nothing: the next process that puts a blob takes away what dead ones left.

        Args:
            put_before: The moment, in microseconds since 1970, UTC.
            dry_run: Whether it is only counted.

        Returns:
            0.
        """
        return 0

    # Rows

    def _put(self, request: BlobPut) -> BlobRef:
        self._check_may_put(request.op)
        cid, digests = _digests_of(request.data)
        self._drive(self.files.put(cid, request.data, digests))
        return BlobRef(cid, len(request.data), request.mime)

    def _get(self, request: BlobGet) -> bytes:
        check_cid(request.cid)
        data: bytes | None = self._drive(self.files.read(request.cid))
        if data is None:
            raise BlobNotFound(request.cid)
        found = cid_like(request.cid, data)
        if found != request.cid:
            raise self.damaged(request.cid, len(data), f"{len(data)} bytes of blob {found}")
        return data

    def _has(self, request: BlobHas) -> bool:
        check_cid(request.cid)
        return bool(self._drive(self.files.has(request.cid)))

    # Parts of a blob

    def read_at(self, cid: str, offset: int, size_bytes: int) -> bytes:
        """Some of the bytes of a blob, as they are.

        Args:
            cid: The blob's identifier.
            offset: Where to begin.
            size_bytes: How many, at the most.

        Returns:
            The bytes.

        Raises:
            BlobNotFound: It is not there.
        """
        data: bytes | None = self._drive(self.files.read_part(cid, offset, size_bytes))
        if data is None:
            raise BlobNotFound(cid)
        return data

    def read_digests(self, cid: str, offset: int, size_bytes: int) -> bytes:
        """Some of the digests beside a blob, as they are.

        Args:
            cid: The blob's identifier.
            offset: Where to begin.
            size_bytes: How many bytes, at the most.

        Returns:
            The bytes; none where there are no digests.
        """
        return self._drive(self.files.read_digests(cid, offset, size_bytes)) or b""

    def damaged(self, cid: str, size_bytes: int, found: str, offset: int | None = None) -> CorruptStore:
        """The error for a blob that is damaged.

        Args:
            cid: Its identifier.
            size_bytes: How many bytes it has.
            found: What was found in the place of its bytes.
            offset: Where, if that is known.

        Returns:
            The error, to be raised.
        """
        place = f"{self._place}/{self.files.path_of(cid)}" + ("" if offset is None else f": offset {offset}")
        # What has the hash of more than a chunk is put no more: the same bytes would get another identifier.
        return damaged(place, cid, found, may_be_put_again=not is_raw(cid) or size_bytes <= CHUNK_BYTES)

    def _check_may_put(self, what: str) -> None:
        if self._refuse is not None:
            raise self._refuse(what)


class _StoredChunks:
    """The chunks of a blob in a directory."""

    def __init__(self, home: BlobDirectory, cid: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._home = home
        self._cid = cid
        self._digest_of = self._prover()
        # What is one chunk is compared at once, so that its size is true; that of a tree is proved with the root.
        self._whole = self._proved(0) if size_bytes <= CHUNK_BYTES else None

    def chunk(self, index: int) -> bytes:
        """A chunk, compared with its digest."""
        return self._proved(index) if self._whole is None else self._whole

    def _proved(self, index: int) -> bytes:
        offset = index * CHUNK_BYTES
        data = self._home.read_at(self._cid, offset, CHUNK_BYTES)
        try:
            expected = self._digest_of(index)
        except Unproved:
            self._digest_of = self._digests_of_all()
            expected = self._digest_of(index)
        if sha256(data).digest() != expected:
            raise self._home.damaged(self._cid, self.size_bytes, f"{len(data)} other bytes", offset)
        return data

    def close(self) -> None:
        """Nothing is held between two reads: Python closes a file that is forgotten whenever it likes."""

    def _prover(self) -> Callable[[int], bytes]:
        """What gives the digest of each chunk, proved."""
        if self.size_bytes <= CHUNK_BYTES:
            whole = digest_in(self._cid)
            return lambda index: whole
        if not is_raw(self._cid):
            tree = BlobTree(self.size_bytes)
            proved = ProvedDigests(
                self._cid,
                self.size_bytes,
                lambda level, index, digest: self._home.read_digests(self._cid, *tree.place_of(level, index)),
            )
            with suppress(Unproved):
                proved.of_chunk(0)
                return proved.of_chunk
        return self._digests_of_all()

    def _digests_of_all(self) -> Callable[[int], bytes]:
        """The digests of all chunks, by reading the whole blob and comparing it with its identifier.

        They take an eight-thousandth of its size. What is read later is compared with them, as it may be damaged since.
        """
        digests, like = bytearray(), LikeBuilder(self._cid)
        for offset in range(0, self.size_bytes, CHUNK_BYTES):
            data = self._home.read_at(self._cid, offset, CHUNK_BYTES)
            digests += sha256(data).digest()
            like.feed(data)
        found = like.cid()
        if found != self._cid:
            raise self._home.damaged(self._cid, self.size_bytes, f"{self.size_bytes} bytes of blob {found}")
        return lambda index: bytes(digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])


class DirectoryBlobs(BlobDirectory):
    """A blob store in a directory, which any number of threads and processes may use at once.

    A `file:` store has its own, in ``blobs/`` of its directory. This one stands beside any other store:
    ``open_store(url, blobs=DirectoryBlobs(path))``.

    Args:
        path: The directory. It is made where it is missing, with those above it.
        read_only: Blobs cannot be put, and nothing is made.
        permissions: Those of new files, less what the process's umask takes: for their owner alone unless given.

    Raises:
        StoreUnavailable: The directory cannot be made or opened.

    >>> import tempfile
    >>> from persist_effects import blob
    >>> with tempfile.TemporaryDirectory() as path:
    ...     blobs = DirectoryBlobs(path)
    ...     run(blob.get(run(blob.put(b"hello"), blobs.handlers)), blobs.handlers)
    ...     blobs.close()
    b'hello'
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, permissions: int = PRIVATE) -> None:
        self.path = os.fspath(path)
        self._is_closed = False
        try:
            self._disk = RealDisk(self.path, read_only=read_only, permissions=permissions)
        except OSError as error:
            raise StoreUnavailable(f"{self.path} cannot be made or opened: {error}") from error
        super().__init__(BlobFiles(""), self.path, self._run, self._refusal if read_only else None)

    def close(self) -> None:
        """Let go of the files and locks. Again: nothing."""
        self._is_closed = True
        self._disk.close()

    def _run(self, program: Effect[A]) -> A:
        try:
            return run(program, self._disk.handlers)
        except disk.ForeignFile as error:
            raise CorruptStore(f"{self.path}: {error}") from error
        except OSError as error:
            if self._is_closed:
                raise StoreClosed(f"{self.path}: the blob store was closed: open it again") from error
            raise StoreUnavailable(f"{self.path}: {error}: see to the disk, then try again") from error

    def _refusal(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"{what}: {self.path} was opened to read only: open it without read_only to write")
