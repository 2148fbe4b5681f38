"""Give up the blobs that no log and no key reaches any more.

A program puts a blob first and refers to it then, so what was put lately is never given up: only what is older than a
grace, and putting it again makes it young. So the grace is the longest that a program may take from the one to the
other.

A blob is reached where its identifier stands in the data or the meta of an event, or in the value of a key, as a text
of its own, wherever in it: as a reference, as a bare identifier, in a snapshot. What is old is listed before the store
is read, and each blob is looked at once more when it is given up. The store is read page by page, and again what was
written meanwhile, for a reference may be moved from what is not read yet to what was read already.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import msgspec

from interpreters.blobs.cid import is_cid
from interpreters.blobs.homes import BlobHome, now_micros
from persist_effects import kv, log
from persist_effects.codec import value_name
from persist_effects.erasure import is_sealed
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Effect, perform
from persist_effects.requests import KvEntries

A = TypeVar("A")

GRACE = timedelta(days=1)
"""How long after it was put a blob is kept though nothing reaches it, unless it is told otherwise."""

LOOKS = 5
"""How often at the most the store is read because something was written meanwhile."""


class RunsPrograms(Protocol):
    """A store, as far as a sweep needs one."""

    def run(self, program: Effect[A]) -> A:
        """Run a program.

        Args:
            program: The program.

        Returns:
            Its value.
        """
        ...

    def wait_for_order(self) -> None:
        """Wait until all that was acknowledged is shown."""
        ...


class Swept(msgspec.Struct, kw_only=True):
    """What a sweep found, and gave up."""

    blobs: int = 0
    """How many there were."""
    young: int = 0
    """How many of them were put within the grace."""
    reached: int = 0
    """How many of the others a log or a key reaches."""
    dropped: list[str] = []
    """Those that were given up; in a dry run, those that would be."""
    dropped_bytes: int = 0
    unfinished: int = 0
    """How many puts that ended half-way had left something that was taken away; in a dry run, that would be."""
    is_dry_run: bool = False


def sweep(
    blobs: BlobHome,
    *stores: RunsPrograms,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    clock: Callable[[], int] = now_micros,
    progress: Callable[[int, int], None] | None = None,
) -> Swept:
    """Give up the blobs that nothing in the stores reaches, and that nobody has put within the grace.

    Programs may go on meanwhile, in other processes too. Give all stores that refer to blobs of this home.

    Args:
        blobs: The home of the blobs, such as ``store.blobs``.
        stores: The stores whose logs and keys refer to them.
        grace: How long a blob is kept after it was put.
        dry_run: Whether nothing is given up, and only said what would be.
        clock: Gives microseconds since 1970, UTC. It should agree with that of the home's file system.
        progress: Told now and then how many events were read of a store, and how many there are.

    Returns:
        What was found and given up.

    Raises:
        InvalidRequest: There is no store, or one of them has never held anything, as where its name is mistyped, or
            has encrypted values; the grace is less than nothing; the home does not keep when a blob was put, as an
            IPFS node.
        StoreUnavailable: A store or the home cannot be asked. What was given up until then is gone.

    >>> from interpreters import open_store
    >>> from persist_effects import blob
    >>> with open_store("memory:") as store:
    ...     kept, forgotten = store.run(blob.put(b"tea")), store.run(blob.put(b"milk"))
    ...     _ = store.run(log.append("orders", "placed", kept))
    ...     swept = sweep(store.blobs, store, grace=timedelta(0))
    ...     swept.dropped == [forgotten.cid], store.run(blob.has(kept))
    (True, True)
    """
    if not stores:
        raise InvalidRequest("a sweep needs the stores that refer to the blobs: give at least one")
    if not isinstance(grace, timedelta) or grace < timedelta(0):
        raise InvalidRequest(f"grace is {describe(grace)}: give a timedelta that is not negative")
    put_before = clock() - grace // timedelta(microseconds=1)
    swept = Swept(is_dry_run=dry_run)
    old = _old_in(blobs, put_before, swept)
    unreached = dict(old)
    for store in stores:
        if unreached:
            _Reading(store, unreached, progress).run()
    swept.reached = len(old) - len(unreached)
    for cid, size_bytes in unreached.items():
        if dry_run or blobs.drop(cid, put_before):
            swept.dropped.append(cid)
            swept.dropped_bytes += size_bytes
        else:
            # It was put again meanwhile.
            swept.young += 1
    swept.unfinished = blobs.drop_unfinished(put_before, dry_run=dry_run)
    return swept


def _old_in(blobs: BlobHome, put_before: int, swept: Swept) -> dict[str, int]:
    """The sizes of the blobs that were put before a moment."""
    old = {}
    for kept in blobs.kept():
        if kept.put_at is None:
            raise InvalidRequest(
                f"this home does not keep when a blob was put, such as {kept.cid}, so it cannot be told which are old "
                "enough to give up: unpin on the node what you know to be needed no more"
            )
        swept.blobs += 1
        if kept.put_at < put_before:
            old[kept.cid] = kept.size_bytes
        else:
            swept.young += 1
    return old


class _Reading:
    """Reads a store, and takes what it reaches out of those that are not."""

    def __init__(
        self, store: RunsPrograms, unreached: dict[str, int], progress: Callable[[int, int], None] | None
    ) -> None:
        self._store = store
        self._unreached = unreached
        self._progress = progress
        self._position = 0

    def run(self) -> None:
        """Read all of it, and then again what was written meanwhile, until nothing was."""
        for look in range(LOOKS):
            self._store.wait_for_order()
            revision = self._newest_revision()
            if look == 0 and revision == 0 and self._store.run(log.head()) == 0:
                raise InvalidRequest(
                    "a store that is to say which blobs it reaches has never held anything, so all would be given up: "
                    "give the store that refers to them"
                )
            self._read_events()
            self._read_keys()
            if self._newest_revision() == revision and self._store.run(log.head()) == self._position:
                return

    def _newest_revision(self) -> int:
        return self._store.run(kv.wait(0, timeout=0))

    def _read_events(self) -> None:
        head = self._store.run(log.head())
        while self._position < head:
            page = self._store.run(log.page_all(self._position))
            for event in page.events:
                for value in (event.data, event.meta):
                    if is_sealed(value):
                        raise _cannot_be_read(f"event {event.seq} of stream {event.stream!r}")
                    self._take(value)
            self._position = page.next
            head = max(head, page.head)
            if self._progress is not None:
                self._progress(self._position, head)

    def _read_keys(self) -> None:
        after = ""
        while entries := self._store.run(perform(KvEntries("", after))):
            for key, entry in entries:
                if is_sealed(entry.value):
                    raise _cannot_be_read(value_name(key))
                self._take(entry.value)
            after = entries[-1][0]

    def _take(self, value: Any) -> None:
        for cid in cids_in(value):
            self._unreached.pop(cid, None)


def _cannot_be_read(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} is encrypted, so it cannot be told which blobs it reaches, and those in use would be given up: "
        "nothing was. Sweep through the store that open_encrypted opens"
    )


def cids_in(value: Any) -> Iterator[str]:
    """The content identifiers in a value, wherever in it they stand as a text of their own.

    Args:
        value: The value, of what stores hold.

    Returns:
        The identifiers.

    >>> from interpreters.blobs.cid import cid_of
    >>> cid = cid_of(b"tea")
    >>> list(cids_in({"pictures": [{"cid": cid, "size": 3, "mime": "image/png"}], "note": "x"})) == [cid]
    True
    """
    # Without recursion: a value may be nested as deep as stores allow.
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            if is_cid(each):
                yield each
        elif isinstance(each, Mapping):
            left += each.keys()
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
