"""References to large bytes. Logs and keys hold the `BlobRef`; a blob store holds the bytes. All are programs."""

from collections.abc import Mapping
from typing import Any

from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef

AnyRef = BlobRef | Mapping[str, Any] | str
"""A reference, one as it is stored, or its bare CID."""


@program
def put(data: bytes, mime: str = "application/octet-stream") -> Effect[BlobRef]:
    """Store bytes.

    Args:
        data: The bytes.
        mime: Their MIME type.

    Returns:
        The reference to keep. Its ``cid`` is the CIDv1 that IPFS gives a file of these bytes.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(put(b"hello", "text/plain"))
    BlobRef(cid='bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq', size=5, mime='text/plain')
    """
    return (yield from perform(BlobPut(data, mime)))


@program
def get(ref: AnyRef) -> Effect[bytes]:
    """The bytes of a reference.

    Args:
        ref: The reference, also as it comes back from a log or a key, a dict with a ``"cid"``; or a bare CID.

    Returns:
        The bytes.

    Raises:
        BlobNotFound: If the blob store does not have them.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(get(store.run(put(b"hello"))))
    b'hello'
    >>> from persist_effects import kv
    >>> _ = store.run(kv.put("greeting", store.run(put(b"hello"))))
    >>> store.run(get(store.run(kv.get("greeting"))))
    b'hello'
    """
    return (yield from perform(BlobGet(cid_in(ref))))


@program
def has(ref: AnyRef) -> Effect[bool]:
    """Whether the blob store has the bytes of a reference.

    Args:
        ref: The reference, given as to `get`.

    Returns:
        Whether it has.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(has("bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"))
    False
    """
    return (yield from perform(BlobHas(cid_in(ref))))


def cid_in(ref: AnyRef) -> str:
    """The content identifier that a reference holds. This one is a plain function.

    Args:
        ref: The reference, given as to `get`.

    Returns:
        The identifier, which is not checked.

    Raises:
        InvalidRequest: It is not a reference.

    >>> cid_in({"cid": "bafkrei…", "size": 5, "mime": "text/plain"})
    'bafkrei…'
    """
    match ref:
        case BlobRef(cid=cid) | {"cid": str(cid)} | str(cid):
            return cid
    raise InvalidRequest(
        f'a blob\'s reference is {describe(ref)}: give a BlobRef, the dict with a str "cid" that a stored one comes '
        "back as, or a content identifier"
    )
