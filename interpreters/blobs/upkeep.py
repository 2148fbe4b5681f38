"""What operators do with a home of blobs: compare each blob with its identifier, and copy all into another home."""

import msgspec

from interpreters.blobs.homes import ANY_MIME, BlobHome, BlobProgress, KeptBlob, read_through
from persist_effects.errors import BlobNotFound, CallerError, CorruptStore
from persist_effects.requests import BlobHas


class LostBlob(msgspec.Struct, frozen=True):
    """A blob that is damaged, or cannot be copied, and why."""

    cid: str
    reason: str


class CheckedBlobs(msgspec.Struct):
    """What was found by reading all blobs."""

    blobs: int = 0
    """How many are sound."""
    bytes: int = 0
    damages: list[LostBlob] = []


class CopiedBlobs(msgspec.Struct):
    """What was copied from one home into another."""

    blobs: int = 0
    """How many were copied."""
    bytes: int = 0
    there: int = 0
    """How many were there already."""
    left: list[LostBlob] = []
    """Those that could not be copied."""


def check_all(home: BlobHome, progress: BlobProgress | None = None) -> CheckedBlobs:
    """Read every blob of a home, and compare it with its identifier.

    Args:
        home: The home.
        progress: Told after each blob how many bytes were read, and how many there are.

    Returns:
        What was found.

    Raises:
        StoreUnavailable: The home cannot be asked.

    >>> from interpreters.blobs.memory import MemoryBlobs
    >>> import io
    >>> home = MemoryBlobs()
    >>> _ = home.put_file(io.BytesIO(b"tea"))
    >>> check_all(home)
    CheckedBlobs(blobs=1, bytes=3, damages=[])
    """
    checked = CheckedBlobs()
    blobs = list(home.kept())
    total_bytes, done_bytes = sum(kept.size_bytes for kept in blobs), 0
    for kept in blobs:
        try:
            checked.bytes += read_through(home, kept.cid)
            checked.blobs += 1
        except BlobNotFound:
            # It was dropped meanwhile.
            continue
        except CorruptStore as error:
            checked.damages.append(LostBlob(kept.cid, str(error)))
        done_bytes += kept.size_bytes
        if progress is not None:
            progress(done_bytes, total_bytes)
    return checked


def copy_all(source: BlobHome, target: BlobHome, progress: BlobProgress | None = None) -> CopiedBlobs:
    """Copy every blob of a home into another one that does not have it. Interrupted, and run again, it goes on.

    Each is compared with its identifier on the way, and keeps it.

    Args:
        source: The home to copy from.
        target: The home to copy into.
        progress: Told after each blob how many bytes were done, and how many there are.

    Returns:
        What was copied, and what could not be: damaged blobs, and into an IPFS node those of more than 256 KiB that
        older releases put, which have identifiers of a kind that it does not give.

    Raises:
        StoreUnavailable: One of the homes cannot be asked.

    >>> from interpreters.blobs.memory import MemoryBlobs
    >>> import io
    >>> source, target = MemoryBlobs(), MemoryBlobs()
    >>> _ = source.put_file(io.BytesIO(b"tea"))
    >>> copy_all(source, target), copy_all(source, target).there
    (CopiedBlobs(blobs=1, bytes=3, there=0, left=[]), 1)
    """
    copied = CopiedBlobs()
    blobs = list(source.kept())
    total_bytes, done_bytes = sum(kept.size_bytes for kept in blobs), 0
    for kept in blobs:
        _copy(kept, source, target, copied)
        done_bytes += kept.size_bytes
        if progress is not None:
            progress(done_bytes, total_bytes)
    return copied


def _copy(kept: KeptBlob, source: BlobHome, target: BlobHome, copied: CopiedBlobs) -> None:
    if target.handlers[BlobHas](BlobHas(kept.cid)):
        copied.there += 1
        return
    try:
        with source.open_blob(kept.cid) as file:
            copied.bytes += target.put_file(file, ANY_MIME, cid=kept.cid).size
        copied.blobs += 1
    except BlobNotFound:
        # It was dropped meanwhile.
        return
    except (CorruptStore, CallerError) as error:
        copied.left.append(LostBlob(kept.cid, str(error)))
