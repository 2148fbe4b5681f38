"""Content identifiers: CIDv1 with the raw codec, sha2-256 and base32, as IPFS writes them for a block of raw bytes."""

import re

from persist_effects.errors import InvalidRequest

# Version 1, codec raw, hash sha2-256 of 32 bytes: these four bytes and the multibase letter of base32 begin every such
# identifier with the same seven characters, and 52 more carry the digest.
_CID = re.compile(r"bafkrei[a-z2-7]{52}")


def cid_of(data: bytes) -> str:
    """The identifier of these bytes.

    >>> cid_of(b"hello")
    'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq'
    """
    # Imported when the first blob is put: it takes 50 ms, and many stores never see a blob.
    try:
        from multiformats import CID, multihash
    except ModuleNotFoundError as error:
        raise InvalidRequest("blobs need the package multiformats: pip install multiformats") from error

    return str(CID("base32", 1, "raw", multihash.digest(data, "sha2-256")))


def is_cid(text: str) -> bool:
    """Whether a text is an identifier of the kind that `cid_of` makes.

    >>> is_cid(cid_of(b"hello")), is_cid("hello")
    (True, False)
    """
    return _CID.fullmatch(text) is not None


def check_cid(text: str) -> None:
    """Refuse what is not an identifier of the kind that `cid_of` makes.

    >>> check_cid("hello")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: 'hello' is not a content identifier of a blob: ...
    """
    if not is_cid(text):
        raise InvalidRequest(f"{text!r:.80} is not a content identifier of a blob: give a CIDv1, raw, sha2-256, base32")
