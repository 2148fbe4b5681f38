"""Blobs in a bucket of JetStream's object store: on the servers of NATS where the store is. Needs the extra ``nats``.

A blob is an object whose name is the blob's identifier. How it is laid out is in the first lines of
`interpreters.blobs.buckets`.

A put writes chunk after chunk, each behind the last, and then what the object is: so a blob is there whole or not at
all. The chunks that a dead process left are taken away by a sweep. Whoever puts a blob that is there takes its place,
and then takes the old chunks away; who is reading them finds the new ones, which have the same bytes.

Everything that is given was compared with the identifier, as in a directory: a whole blob by computing it anew, a part
of one by the digests that stand beside it, which are proved up to the root.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

import msgspec

from interpreters.blobs.bucket_calls import BucketCalls
from interpreters.blobs.buckets import Bucket, BucketObject, info_in, name_in
from interpreters.blobs.cid import check_cid, cid_like, cid_of, is_cid
from interpreters.blobs.homes import ANY_MIME, BlobProgress, KeptBlob, check_mime, pieces_of
from interpreters.blobs.object_putting import Upload, time_of_now
from interpreters.blobs.object_reading import ObjectChunks, ObjectMessages, object_of
from interpreters.blobs.reading import as_file
from interpreters.nats.access import Access
from persist_effects.errors import BlobNotFound, CorruptStore, InvalidRequest, PersistError
from persist_effects.event import check_integer
from persist_effects.machine import Handlers
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef


class NatsBlobs:
    """A blob store in a bucket of JetStream's object store, which any number of threads and processes may use at once.

    Args:
        servers: Where some of its servers are, as ``host:port``.
        bucket: The bucket's name. It is made where it is missing.
        access: How the servers know this client.
        replicas: On how many servers it is kept; None: on as many as it is, or on one where it is made.
        timeout_seconds: How long the servers may take to answer, or to be there again.
        read_only: Blobs cannot be put, and nothing is made.

    Raises:
        InvalidRequest: The bucket is there with settings that do not fit; the servers do not let this client in.
        StoreUnavailable: The servers or the bucket cannot be had now.

    >>> from interpreters.nats.private_cluster import PrivateCluster
    >>> from persist_effects import blob, run
    >>> with PrivateCluster() as cluster:
    ...     blobs = NatsBlobs([f"{cluster.host}:4222"], "pictures")
    ...     print(run(blob.get(run(blob.put(b"hello"), blobs.handlers)), blobs.handlers))
    ...     blobs.close()
    b'hello'
    """

    def __init__(
        self,
        servers: Sequence[str],
        bucket: str,
        *,
        access: Access | None = None,
        replicas: int | None = None,
        timeout_seconds: float = 30.0,
        read_only: bool = False,
    ) -> None:
        if replicas is not None:
            check_integer("replicas", replicas, 1, 5)
        if not 0.001 <= timeout_seconds <= 86_400:
            raise InvalidRequest(f"timeout is {timeout_seconds}: give a number of seconds, from 0.001 to 86400")
        self._is_read_only = read_only
        self._calls = BucketCalls(servers, bucket, access or Access(), timeout_seconds, read_only=read_only)
        self.handlers: Handlers = {BlobPut: self._put, BlobGet: self._get, BlobHas: self._has}
        try:
            opened = self._calls.bucket
            self._calls.call(opened.look() if read_only else opened.make(replicas))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. Again: nothing."""
        self._calls.close()

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """Put all that a binary file gives: see `interpreters.blobs.homes.BlobHome`.

        Args:
            file: The file.
            mime: The MIME type of its bytes.
            progress: Told after each piece.
            cid: The identifier that the bytes must have.

        Returns:
            The reference to keep.

        Raises:
            InvalidRequest: The bytes do not have that identifier, or the file does not give bytes.
            StoreUnavailable: The servers cannot be asked, or the bucket is full. Nothing of it is seen; put again, it
                is put whole.
        """
        check_mime(mime)
        if cid is not None:
            check_cid(cid)
        self._check_may_put("put_file")
        upload = Upload(self._calls)
        try:
            for piece in pieces_of(file):
                upload.feed(piece)
                if progress is not None:
                    progress(upload.size_bytes, 0)
            return BlobRef(upload.finish(cid), upload.size_bytes, mime)
        except BaseException:
            # What went wrong first is told. What is left then, a sweep finds.
            with suppress(PersistError):
                upload.take_away()
            raise

    def open_blob(self, cid: str, progress: BlobProgress | None = None) -> BinaryIO:
        """A blob as a binary file to read, from any place of it, of which a few chunks are in memory at a time.

        Args:
            cid: The blob's identifier.
            progress: Told after each chunk.

        Returns:
            The file.

        Raises:
            BlobNotFound: It is not there.
            CorruptStore: It is damaged; told by the file's methods too.
            StoreUnavailable: The servers cannot be asked; told by the file's methods too.
        """
        check_cid(cid)
        return as_file(ObjectChunks(self._calls, cid), progress)

    def kept(self) -> Iterator[KeptBlob]:
        """The blobs that are there: see `interpreters.blobs.homes.BlobHome`.

        Returns:
            The blobs.

        Raises:
            StoreUnavailable: The servers cannot be asked.
        """
        bucket = self._calls.bucket
        for message in self._calls.call(bucket.infos()):
            name = name_in(message)
            if is_cid(name):
                # What says nothing of an object is listed too, so that reading all finds the damage.
                with suppress(CorruptStore):
                    info = info_in(message, bucket.place)
                    if info.deleted:
                        continue
                    yield KeptBlob(name, info.size, message.at)
                    continue
                yield KeptBlob(name, 0, message.at)

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
        return bool(self._calls.call(_drop(self._calls.bucket, cid, put_before)))

    def drop_unfinished(self, put_before: int, *, dry_run: bool = False) -> int:
        """Take away the chunks that nobody has finished, nor written more of since a moment.

        Args:
            put_before: The moment, in microseconds since 1970, UTC.
            dry_run: Whether they are only counted.

        Returns:
            Of how many puts there were some.
        """
        if not dry_run:
            self._check_may_put("drop_unfinished")
        return int(self._calls.call(_drop_unfinished(self._calls.bucket, put_before, dry_run)))

    # Rows

    def _put(self, request: BlobPut) -> BlobRef:
        self._check_may_put(request.op)
        cid = cid_of(request.data)
        if not self._renew(cid, request.data):
            self.put_file(io.BytesIO(request.data), cid=cid)
        return BlobRef(cid, len(request.data), request.mime)

    def _renew(self, cid: str, data: bytes) -> bool:
        """Have a blob that is there, and is whole, count as put now."""
        try:
            messages = ObjectMessages(self._calls, cid, is_sure=False)
            if messages.read_all() != data:
                return False
        except (CorruptStore, BlobNotFound):
            return False
        renewed = msgspec.structs.replace(messages.info, mtime=time_of_now())
        return self._calls.call(self._calls.bucket.write_info(renewed, messages.number)) is not None

    def _get(self, request: BlobGet) -> bytes:
        check_cid(request.cid)
        messages = ObjectMessages(self._calls, request.cid)
        while True:
            data = messages.read_all()
            found = cid_like(request.cid, data)
            if found == request.cid:
                return data
            if not messages.has_moved():
                raise messages.damaged(f"{len(data)} bytes of blob {found}")

    def _has(self, request: BlobHas) -> bool:
        check_cid(request.cid)
        return self._calls.call(object_of(self._calls.bucket, request.cid)) is not None

    def _check_may_put(self, what: str) -> None:
        self._calls.check_open()
        if self._is_read_only:
            raise InvalidRequest(
                f"{what}: {self._calls.place} was opened to read only: open it without read_only to write"
            )


async def _drop(bucket: Bucket, cid: str, put_before: int) -> bool:
    subject = bucket.subject_of(cid)
    last = await bucket.last_of(subject)
    if last is None or last.at >= put_before:
        return False
    info = info_in(last, bucket.place)
    if info.deleted:
        return False
    gone = BucketObject(name=cid, bucket=bucket.name, nuid=info.nuid, mtime=time_of_now(), deleted=True)
    number = await bucket.write_info(gone, last.number)
    if number is None:
        # It was put again meanwhile.
        return False
    await bucket.purge_chunks(info.nuid)
    # What says that it is deleted, and nothing that was put since.
    await bucket.purge(subject, below=number + 1)
    return True


async def _drop_unfinished(bucket: Bucket, put_before: int, dry_run: bool) -> int:
    nuids = [nuid async for nuid in bucket.nuids()]
    finished = await _nuids_of_objects(bucket)
    old: dict[str, int] = {}
    for nuid in nuids:
        if nuid in finished:
            continue
        chunk = await bucket.last_of(bucket.chunks_of(nuid))
        seen = chunk or await bucket.last_of(f"{bucket.chunks_of(nuid)}.>")
        if seen is not None and seen.at < put_before:
            old[nuid] = 0 if chunk is None else chunk.number
    if dry_run or not old:
        return len(old)
    # Who still puts it either has written what it is until the objects are looked at again, or finds this.
    claims = {nuid: await bucket.claim(nuid, last) if last else 0 for nuid, last in old.items()}
    finished = await _nuids_of_objects(bucket)
    count = 0
    for nuid, claim in claims.items():
        if claim is None:
            continue
        if nuid not in finished:
            await bucket.purge_chunks(nuid)
            count += 1
        elif claim:
            await bucket.delete(claim)
    return count


async def _nuids_of_objects(bucket: Bucket) -> set[str]:
    infos = [info_in(message, bucket.place) for message in await bucket.infos()]
    return {info.nuid for info in infos if not info.deleted}
