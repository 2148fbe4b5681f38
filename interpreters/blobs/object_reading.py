"""Reads the objects of a bucket: the chunks of a blob one after the other, or any of them by itself, each proved.

Whoever puts a blob again writes it under another nuid, and takes the old chunks away. Who is reading these finds the
object anew, and goes on: its bytes are the same.
"""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256

from interpreters.blobs.bucket_calls import BucketCalls, Running
from interpreters.blobs.buckets import CHUNK_INDEX, MESSAGE_BYTES, Bucket, BucketMessage, BucketObject, info_in
from interpreters.blobs.cid import CHUNK_BYTES, DIGEST_BYTES, LikeBuilder, digest_in, is_raw
from interpreters.blobs.homes import damaged
from interpreters.blobs.proofs import BlobTree, ProvedDigests, Unproved
from persist_effects.errors import BlobNotFound, CorruptStore

AHEAD = 4
"""How many chunks are asked for at once where a blob is read from one to the next; as many more are on their way."""

PLACE_BYTES = 8
BESIDE_BYTES = MESSAGE_BYTES
"""How many bytes of what stands beside the chunks are one message."""

DIGESTS, PLACES = "digests", "places"


async def object_of(bucket: Bucket, cid: str, *, is_sure: bool = True) -> tuple[BucketObject, int] | None:
    """The object of a blob, if there is one.

    Args:
        bucket: The bucket.
        cid: The blob's identifier.
        is_sure: Whether one is found that was put just now, though who leads has been stopped meanwhile.

    Returns:
        The object, and the number of the message that says what it is.
    """
    subject = bucket.subject_of(cid)
    # That there is one is true, whoever says so.
    for ask in (bucket.last_of, bucket.surely_last_of) if is_sure else (bucket.last_of,):
        message = await ask(subject)
        if message is not None:
            info = info_in(message, bucket.place)
            if not info.deleted:
                return info, message.number
    return None


class ObjectMessages:
    """The chunks of a blob as they are, wherever they are now. For one thread at a time.

    Args:
        calls: The bucket.
        cid: The blob's identifier.
        is_sure: Whether one is found that was put just now, though who leads has been stopped meanwhile.

    Raises:
        BlobNotFound: There is no such blob.
        CorruptStore: It is not cut as blobs are.
    """

    def __init__(self, calls: BucketCalls, cid: str, *, is_sure: bool = True) -> None:
        self._calls = calls
        self._cid = cid
        self._is_sure = is_sure
        self._begin(self._find())

    def _find(self) -> tuple[BucketObject, int]:
        found: tuple[BucketObject, int] | None = self._calls.call(
            object_of(self._calls.bucket, self._cid, is_sure=self._is_sure)
        )
        if found is None:
            raise BlobNotFound(self._cid)
        info = found[0]
        if info.chunks != -(-info.size // CHUNK_BYTES) or (info.options or {}).get("max_chunk_size") != MESSAGE_BYTES:
            raise self.damaged(f"an object of {info.size} bytes in {info.chunks} messages, which something else put")
        return found

    def _begin(self, found: tuple[BucketObject, int]) -> None:
        self.info, self.number = found
        # The number of the last chunk that was read, and which chunk it is.
        self._last = (-1, 0)
        self._ahead: list[BucketMessage] = []
        self._coming: tuple[Bucket, Running] | None = None
        self._pieces: dict[str, tuple[int, bytes]] = {}

    def has_moved(self) -> bool:
        """Whether the blob was put again since it was found. Then it is read from there.

        Returns:
            Whether it was.

        Raises:
            BlobNotFound: It is gone.
        """
        found = self._find()
        if found[0].nuid == self.info.nuid:
            return False
        self._begin(found)
        return True

    def read_all(self) -> bytes:
        """All bytes, whatever they are.

        Returns:
            The bytes.
        """
        return b"".join(self.chunk(index) for index in range(self.info.chunks))

    def chunk(self, index: int) -> bytes:
        """A chunk, whatever its bytes are.

        Args:
            index: Which one.

        Returns:
            Its bytes.

        Raises:
            BlobNotFound: The blob is gone.
            CorruptStore: The chunk is missing.
        """
        while True:
            message = self._next_one() if index == self._last[0] + 1 else self._one_at(index)
            if message is not None:
                self._last = index, message.number
                return message.body
            if not self.has_moved():
                raise self.damaged(f"no chunk {index} of {self.info.chunks}")

    def _next_one(self) -> BucketMessage | None:
        """The chunk behind the last one. Those behind it come meanwhile."""
        if not self._ahead:
            bucket, coming = self._coming or (None, None)
            self._coming = None
            # What a parent has asked for does not come in a forked child.
            if coming is None or bucket is not self._calls.bucket:
                coming = self._asked_from(self._last[1] + 1, AHEAD)
            self._ahead = self._calls.result_of(coming)
            if len(self._ahead) == AHEAD:
                self._coming = self._calls.bucket, self._asked_from(self._ahead[-1].number + 1, AHEAD)
        if self._ahead:
            return self._ahead.pop(0)
        return self._of_leader(self._last[0] + 1, self._last[1] + 1)

    def _one_at(self, index: int) -> BucketMessage | None:
        self._ahead, self._coming = [], None
        place = self._place(index)
        if place is None:
            return self._by_walking(index)
        messages: list[BucketMessage] = self._calls.result_of(self._asked_from(place, 1))
        message = messages[0] if messages else self._of_leader(index, place)
        if message is None or not self._is_chunk(message, index):
            return self._by_walking(index)
        return message

    def _by_walking(self, index: int) -> BucketMessage | None:
        """A chunk by all those before it, where it does not stand where it should."""
        self._last = (-1, 0)
        self._ahead, self._coming = [], None
        message: BucketMessage | None = None
        for each in range(index + 1):
            message = self._next_one()
            if message is None:
                return None
            self._last = each, message.number
        return message

    def _asked_from(self, number: int, limit: int) -> Running:
        bucket = self._calls.bucket
        return self._calls.begin(bucket.page(bucket.chunks_of(self.info.nuid), number, limit))

    def _of_leader(self, index: int, number: int) -> BucketMessage | None:
        """A chunk that one of the servers did not have, which may lag."""
        if index >= self.info.chunks:
            return None
        bucket = self._calls.bucket
        found: BucketMessage | None = self._calls.call(bucket.next_of(bucket.chunks_of(self.info.nuid), number))
        return found

    def _is_chunk(self, message: BucketMessage, index: int) -> bool:
        return message.headers.get(CHUNK_INDEX, str(index)) == str(index)

    # Beside the chunks

    def beside(self, what: str, offset: int, size_bytes: int) -> bytes:
        """Some of what stands beside the chunks, whatever it is.

        Args:
            what: `DIGESTS` or `PLACES`.
            offset: Where to begin.
            size_bytes: How many bytes.

        Returns:
            The bytes; fewer where some are missing.
        """
        found = b""
        while size_bytes > len(found):
            piece, begin = divmod(offset + len(found), BESIDE_BYTES)
            part = self._piece(what, piece)[begin : begin + size_bytes - len(found)]
            if not part:
                break
            found += part
        return found

    def _piece(self, what: str, number: int) -> bytes:
        kept = self._pieces.get(what)
        if kept is None or kept[0] != number:
            bucket = self._calls.bucket
            message = self._calls.call(bucket.last_of(bucket.piece_of(self.info.nuid, what, number)))
            kept = self._pieces[what] = number, b"" if message is None else message.body
        return kept[1]

    def _place(self, index: int) -> int | None:
        """From which number on a chunk is found."""
        if index == 0:
            return 1
        found = self.beside(PLACES, index * PLACE_BYTES, PLACE_BYTES)
        return int.from_bytes(found, "big") if len(found) == PLACE_BYTES else None

    def damaged(self, found: str) -> CorruptStore:
        """The error for a blob that is damaged.

        Args:
            found: What was found in the place of its bytes.

        Returns:
            The error, to be raised.
        """
        return damaged(f"{self._calls.place}/{self._cid}", self._cid, found, may_be_put_again=True)


class ObjectChunks:
    """The chunks of a blob in a bucket, each proved.

    Args:
        calls: The bucket.
        cid: The blob's identifier.

    Raises:
        BlobNotFound: There is no such blob.
        CorruptStore: It is damaged.
    """

    def __init__(self, calls: BucketCalls, cid: str) -> None:
        self._cid = cid
        self._messages = ObjectMessages(calls, cid)
        while True:
            self.size_bytes = self._messages.info.size
            self._digest_of = self._prover()
            # What is one chunk is compared at once, so that its size is true; that of a tree is proved with the root.
            self._whole: bytes | None = None
            if self.size_bytes > CHUNK_BYTES:
                return
            with suppress(_Moved):
                self._whole = self._proved(0) if self.size_bytes else self._empty()
                return

    def chunk(self, index: int) -> bytes:
        """A chunk, compared with its digest.

        Args:
            index: Which one.

        Returns:
            Its bytes.
        """
        if self._whole is not None:
            return self._whole
        while True:
            with suppress(_Moved):
                return self._proved(index)

    def close(self) -> None:
        """Nothing to let go of: what is on its way is dropped when it comes."""

    def _proved(self, index: int) -> bytes:
        data = self._messages.chunk(index)
        try:
            expected = self._digest_of(index)
        except Unproved:
            self._digest_of = self._digests_of_all()
            expected = self._digest_of(index)
        if sha256(data).digest() == expected:
            return data
        if self._messages.has_moved():
            raise _Moved
        raise self._messages.damaged(f"{len(data)} other bytes at offset {index * CHUNK_BYTES}")

    def _empty(self) -> bytes:
        if sha256(b"").digest() != digest_in(self._cid):
            if self._messages.has_moved():
                raise _Moved
            raise self._messages.damaged("no bytes")
        return b""

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
                lambda level, index, digest: self._messages.beside(DIGESTS, *tree.place_of(level, index)),
            )
            with suppress(Unproved):
                proved.of_chunk(0)
                return proved.of_chunk
        return self._digests_of_all()

    def _digests_of_all(self) -> Callable[[int], bytes]:
        """The digests of all chunks, by reading the whole blob and comparing it with its identifier.

        They take an eight-thousandth of its size. What is read later is compared with them, as it may be damaged since.
        """
        while True:
            digests, like = bytearray(), LikeBuilder(self._cid)
            for index in range(self._messages.info.chunks):
                data = self._messages.chunk(index)
                digests += sha256(data).digest()
                like.feed(data)
            found = like.cid()
            if found == self._cid:
                self.size_bytes = self._messages.info.size
                return lambda index: bytes(digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])
            if not self._messages.has_moved():
                raise self._messages.damaged(f"{self._messages.info.size} bytes of blob {found}")


class _Moved(Exception):
    """The blob was put again meanwhile: what was just read may be of the one before."""
