"""References to large bytes. Logs and keys hold the `BlobRef`; a blob store holds the bytes. All are programs."""

from persist_effects.machine import Effect, perform
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef


def put(data: bytes, mime: str = "application/octet-stream") -> Effect[BlobRef]:
    """Store bytes, and return the reference to keep. Its ``cid`` is a CIDv1: raw codec, sha2-256, base32.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(put(b"hello", "text/plain"))
    BlobRef(cid='bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq', size=5, mime='text/plain')
    """
    return (yield from perform(BlobPut(data, mime)))


def get(ref: BlobRef | str) -> Effect[bytes]:
    """The bytes of a reference, or of a bare CID. Raises `BlobNotFound`.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(get(store.run(put(b"hello"))))
    b'hello'
    """
    return (yield from perform(BlobGet(_cid(ref))))


def has(ref: BlobRef | str) -> Effect[bool]:
    """Whether the blob store has the bytes of a reference, or of a bare CID.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(has("bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"))
    False
    """
    return (yield from perform(BlobHas(_cid(ref))))


def _cid(ref: BlobRef | str) -> str:
    return ref.cid if isinstance(ref, BlobRef) else ref
