"""Puts a blob into a bucket, chunk after chunk, of which a few are in memory at a time."""

import asyncio
import secrets
from base64 import urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec

from interpreters.blobs.bucket_calls import BucketCalls, Running
from interpreters.blobs.buckets import (
    CHUNK_INDEX,
    MESSAGE_BYTES,
    Bucket,
    BucketMessage,
    BucketObject,
    BucketRefused,
    NewMessage,
    info_in,
)
from interpreters.blobs.cid import CHUNK_BYTES, CidBuilder, is_raw
from interpreters.blobs.homes import check_is
from interpreters.blobs.object_reading import BESIDE_BYTES, DIGESTS, PLACE_BYTES, PLACES
from persist_effects.errors import CorruptStore, StoreUnavailable


class Upload:
    """A blob that is being put. For one thread.

    A chunk is on its way while the next one is read and hashed. It is written only behind the one before it, so that
    their order is that of the blob, whatever is sent again.

    Args:
        calls: The bucket.
    """

    def __init__(self, calls: BucketCalls) -> None:
        self.size_bytes = 0
        self._calls = calls
        self._nuid = secrets.token_hex(11)
        self._tree = CidBuilder(self._take_digests)
        self._whole = sha256()
        self._gathered = bytearray()
        self._chunk_count = 0
        self._on_its_way: Running | None = None
        # The number of the last chunk that was written.
        self._last = 0
        self._beside = {what: _Pieces(self, what) for what in (DIGESTS, PLACES)}
        self._above: dict[int, bytearray] = {}
        self._may_be_there = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes in.

        Args:
            piece: The bytes.
        """
        self.size_bytes += len(piece)
        self._tree.feed(piece)
        self._whole.update(piece)
        self._gathered += piece
        # The last chunk stays for the end.
        while len(self._gathered) > CHUNK_BYTES:
            chunk = bytes(self._gathered[:CHUNK_BYTES])
            del self._gathered[:CHUNK_BYTES]
            message = self._next_chunk(chunk)
            bucket = self._calls.bucket
            self._on_its_way = self._calls.begin(bucket.write(message, self._last))

    def finish(self, expected: str | None) -> str:
        """Have it in the bucket.

        Args:
            expected: The identifier that it must have; None: it may have any.

        Returns:
            The one that it has.

        Raises:
            InvalidRequest: It is another than expected.
            StoreUnavailable: It cannot be written, or it is not known whether it was.
        """
        cid = self._tree.cid()
        check_is(expected, cid)
        bucket = self._calls.bucket
        rest: list[tuple[NewMessage, int]] = []
        if self._gathered:
            rest.append((self._next_chunk(bytes(self._gathered)), self._last))
        if not is_raw(cid):
            for level in sorted(self._above):
                self._beside[DIGESTS].feed(bytes(self._above[level]))
            rest += [(pieces.rest(), 0) for pieces in self._beside.values()]
        before = self._calls.call(_written(bucket, rest, cid))
        info = BucketObject(
            name=cid,
            bucket=bucket.name,
            nuid=self._nuid,
            size=self.size_bytes,
            chunks=self._chunk_count,
            mtime=time_of_now(),
            digest=f"SHA-256={urlsafe_b64encode(self._whole.digest()).decode()}",
            options={"max_chunk_size": MESSAGE_BYTES},
        )
        self._may_be_there = True
        refused: BucketRefused | None = self._calls.call(_keep(bucket, info, before))
        if refused is not None:
            self._may_be_there = False
            raise bucket.told(refused) from refused
        return cid

    def take_away(self) -> None:
        """Take away what was written, unless the blob may be there."""
        if self._on_its_way is not None:
            self._on_its_way.cancel()
        if self._chunk_count and not self._may_be_there:
            self._calls.call(self._calls.bucket.purge_chunks(self._nuid, is_patient=False))

    def write_beside(self, what: str, number: int, piece: bytes) -> None:
        """Write a piece of what stands beside the chunks.

        Args:
            what: Of what.
            number: Which piece.
            piece: The piece.
        """
        bucket = self._calls.bucket
        self._calls.call(bucket.write(NewMessage(bucket.piece_of(self._nuid, what, number), piece, {}), 0))

    def piece_of(self, what: str, number: int, piece: bytes) -> NewMessage:
        """A piece of what stands beside the chunks, to be written with the last chunk."""
        return NewMessage(self._calls.bucket.piece_of(self._nuid, what, number), piece, {})

    def _next_chunk(self, chunk: bytes) -> NewMessage:
        if self._on_its_way is not None:
            self._last = self._calls.result_of(self._on_its_way)
            self._on_its_way = None
        self._beside[PLACES].feed((self._last + 1).to_bytes(PLACE_BYTES, "big"))
        message = NewMessage(self._calls.bucket.chunks_of(self._nuid), chunk, {CHUNK_INDEX: str(self._chunk_count)})
        self._chunk_count += 1
        return message

    def _take_digests(self, level: int, digests: bytes) -> None:
        if level == 0:
            self._beside[DIGESTS].feed(digests)
        else:
            self._above.setdefault(level, bytearray()).extend(digests)


class _Pieces:
    """What stands beside the chunks, cut into pieces."""

    def __init__(self, upload: Upload, what: str) -> None:
        self._upload = upload
        self._what = what
        self._gathered = bytearray()
        self._number = 0

    def feed(self, data: bytes) -> None:
        self._gathered += data
        while len(self._gathered) > BESIDE_BYTES:
            self._upload.write_beside(self._what, self._number, bytes(self._gathered[:BESIDE_BYTES]))
            self._number += 1
            del self._gathered[:BESIDE_BYTES]

    def rest(self) -> NewMessage:
        return self._upload.piece_of(self._what, self._number, bytes(self._gathered))


class _Before(NamedTuple):
    """What is there when an object is put: what was said of its name, and the number of its own last chunk."""

    info: BucketMessage | None
    last_chunk: int


def time_of_now() -> str:
    """The time by this machine's clock, as NATS writes it.

    Returns:
        The time.

    >>> time_of_now()[-1]
    'Z'
    """
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


async def _written(bucket: Bucket, rest: list[tuple[NewMessage, int]], cid: str) -> _Before:
    """Write the last chunk, and what stands beside the chunks."""
    before, numbers = await asyncio.gather(
        bucket.last_of(bucket.subject_of(cid)),
        asyncio.gather(*(bucket.write(message, expected) for message, expected in rest)),
    )
    return _Before(before, numbers[0] if numbers else 0)


async def _keep(bucket: Bucket, info: BucketObject, before: _Before) -> BucketRefused | None:
    """Have an object in a blob's name, and take away the chunks of the one before it.

    Returns why nothing was written, where that is sure.
    """
    last = before.info
    try:
        while (number := await bucket.write_info(info, last.number if last else 0)) is None:
            last = await bucket.surely_last_of(bucket.subject_of(info.name))
    except BucketRefused as refused:
        return refused
    if info.chunks:
        await _check_not_swept(bucket, info, number, before.last_chunk)
    if last is not None:
        # Where this cannot be done, a sweep does it.
        with suppress(StoreUnavailable, CorruptStore, BucketRefused):
            old = info_in(last, bucket.place)
            if old.nuid and not old.deleted:
                await bucket.purge_chunks(old.nuid)
    return None


async def _check_not_swept(bucket: Bucket, info: BucketObject, number: int, last_chunk: int) -> None:
    """Raise where a sweep has taken the chunks for those of a dead process, before it could see the object.

    Such a sweep first writes a message behind the chunks, and then looks once more whether there is an object of them.
    So it finds the object, or its message is found here.
    """
    for ask in (bucket.last_of, bucket.surely_last_of):
        chunk = await ask(bucket.chunks_of(info.nuid))
        if chunk is not None and chunk.number == last_chunk:
            return
    now = await bucket.surely_last_of(bucket.subject_of(info.name))
    if now is None or now.number != number:
        # Somebody else has put it again, and taken these chunks away.
        return
    gone = await bucket.write_info(msgspec.structs.replace(info, deleted=True, mtime=time_of_now()), number)
    if gone is not None:
        raise bucket.swept()
