"""The values of keys, for the row that is asked most: without a lock, and from memory where they were read lately.

No two values have one revision, so what is kept under a revision never changes and is never taken back. It is kept only
once the index has it: the revision of a commit that failed is given again, to another value.
"""

from collections.abc import Callable

from interpreters.disk import requests as disk
from interpreters.stores.file.format import DECODING_ERRORS, decode_put
from interpreters.stores.file.frames import FIRST_READ_BYTES, single_entry_in
from interpreters.stores.file.index import Index, SegmentGone
from interpreters.stores.file.manifest import segment_path
from interpreters.stores.file.places import offset_of, ref_in, revision_in, segment_of
from persist_effects import codec
from persist_effects.errors import PersistError
from persist_effects.requests import Entry

CACHE_BYTES = 32 * 1024 * 1024
"""How many bytes of values are kept unless told otherwise: some ten thousand usual ones."""

KEPT_BESIDE_BYTES = 150
"""What one takes in memory beside its bytes."""


class Recent:
    """Encoded values by their revisions: those asked for last, as many as fit.

    There are two halves. What is found in the older one moves to the younger; when that is full it becomes the older.

    >>> recent = Recent(1_000)
    >>> for revision in range(1, 10):
    ...     recent.add(revision, b"value")
    >>> recent.get(9), recent.get(1)
    (b'value', None)
    """

    __slots__ = ("_half_bytes", "_old", "_young", "_young_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._half_bytes = limit_bytes // 2
        self._young: dict[int, bytes] = {}
        self._old: dict[int, bytes] = {}
        self._young_bytes = 0

    def get(self, revision: int) -> bytes | None:
        """What is kept under a revision, if it still is."""
        found = self._young.get(revision)
        if found is None:
            found = self._old.get(revision)
            if found is not None:
                self.add(revision, found)
        return found

    def add(self, revision: int, encoded: bytes) -> None:
        """Keep what has this revision. Threads that do so at once may miscount; the next half is counted anew."""
        size_bytes = len(encoded) + KEPT_BESIDE_BYTES
        if self._young_bytes + size_bytes > self._half_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        if size_bytes <= self._half_bytes:
            self._young[revision] = encoded
            self._young_bytes += size_bytes


class Values:
    """Answers `KvGet` where that takes one look into the index and at most one read of the disk.

    Args:
        index: The store's.
        read: The disk's row for `disk.Read`, to be called from any thread.
        cache_bytes: How many bytes of encoded values are kept, about, with what each takes beside them.
    """

    def __init__(self, index: Index, read: Callable[[disk.Read], bytes], cache_bytes: int = CACHE_BYTES) -> None:
        self._index = index
        self._read = read
        self._recent = Recent(cache_bytes)

    def get(self, key: str) -> Entry | None:
        """The entry of a key, or None if it is absent.

        Raises LookupError where it is to be asked for with the lock: the store is changing, the frame is not that of
        one key, or is not what the index says.
        """
        spot = self._index.spot_without_lock(key)
        if spot is None:
            return None
        revision = revision_in(spot)
        encoded = self._recent.get(revision)
        if encoded is not None:
            return Entry(decode_put(encoded)[2], revision)
        encoded = self._encoded(ref_in(spot))
        decoded = decode_put(encoded)
        if decoded[0] != key or decoded[1] != revision:
            raise LookupError(key)
        self._recent.add(revision, encoded)
        return Entry(decoded[2], revision)

    def keep(self, key: str, entry: Entry) -> None:
        """Keep what was read with the lock, as of a transaction, or longer than what is read at once."""
        self._recent.add(entry.revision, codec.encode_new_entry(key, entry.value, entry.revision))

    def _encoded(self, ref: int) -> bytes:
        try:
            segment, offset = self._index.segments[segment_of(ref)], offset_of(ref)
            size_bytes = min(FIRST_READ_BYTES, segment.length_bytes - offset)
            data = self._read(disk.Read(segment_path(segment.number), offset, size_bytes))
            encoded = single_entry_in(data, 0, offset, segment.seed)
        except (SegmentGone, OSError, PersistError, *DECODING_ERRORS) as error:
            # A compaction, or the closing, was quicker; or the disk fails, and says so again.
            raise LookupError(ref) from error
        if encoded is None:
            raise LookupError(ref)
        return encoded
