"""What is stored in the place of a value: its bytes under AES-256-GCM, and what is needed to open them but the key.

An envelope is bytes:

=============  =====  ==================================================================================
part           bytes  what
=============  =====  ==================================================================================
mark           7      `persist_effects.erasure.ENVELOPE`
version        1      of this format: 1
key id         16     random, the key store's name for the key; it tells nothing of the subject
nonce          12     random, its own
ciphertext     any    as many bytes as the value has in msgpack
tag            16     proves the ciphertext, and the place that it was sealed for
=============  =====  ==================================================================================

**The place** is bound as associated data: of an event its stream, its type and whether it is data or meta; of a value
its key. It is not the sequence number, which a store gives only when it writes, and not the store, so that a store
that is migrated, imported or restored reads on. An envelope that is moved to another stream, type or key is refused as
damage. One that is moved within its stream, to another event of its type, is not noticed.

**How often a key is used.** With random nonces of 96 bits one key may seal 2**32 values (NIST SP 800-38D, 8.3). No
process knows how often the others have used it, and counting in the key store would cost a commit for each value. So
chance counts: where a nonce begins with `ROTATING_BITS` zero bits, which comes once in 2**24 values on average, whoever
drew it makes the next generation of the key. That one key seals 2**32 values has a probability of e**-256.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from persist_effects.erasure import ENVELOPE, Erased
from persist_effects.errors import CorruptStore, InvalidRequest, NewerFormat
from persist_effects.event import Event

VERSION = 1
KEY_BYTES = 32
KEY_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16

ROTATING_BITS = 24
"""With how many zero bits a nonce begins whose key is to be followed by the next generation."""

_MARK = ENVELOPE + bytes([VERSION])
_NONCE_AT = len(_MARK) + KEY_ID_BYTES
_SEALED_AT = _NONCE_AT + NONCE_BYTES

WORN_BELOW = bytes(ROTATING_BITS // 8 - 1) + b"\1"
"""Nonces below this begin with so many zero bits: their key is to be followed by the next generation."""

HEAD_BYTES = _NONCE_AT
"""How many bytes envelopes of one key have in common, at their beginning."""

ENVELOPE_BYTES = _SEALED_AT + TAG_BYTES
"""How many bytes an envelope has beside the ciphertext."""

OVERHEAD_BYTES = ENVELOPE_BYTES + 5 + 8
"""How many bytes a stored value may have more than the user's: the msgpack headers of the bytes, and of the dict
``{"sealed": …}`` in which an envelope stands where a dict must be."""


@cache
def library() -> Any:
    """The cipher, and the errors by which it says that an envelope is not what was sealed.

    Returns:
        Both.

    Raises:
        InvalidRequest: Its package is not installed.

    >>> library()[0].__name__
    'AESGCM'
    """
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as error:
        raise InvalidRequest("encryption needs the package cryptography: pip install 'persist-effects[crypto]'") from (
            error
        )
    # A nonce that is cut short is a ValueError.
    return AESGCM, (InvalidTag, ValueError)


class Key:
    """A subject's key of one generation, ready to be used, by any thread.

    Args:
        key_id: Its id.
        secret: Its 32 bytes.

    >>> key = Key(bytes(16), bytes(32))
    >>> envelope = key.seal(b"tea", b"orders/1", nonce=bytes(range(12)))
    >>> len(envelope), key.open(envelope, b"orders/1"), key_id_in(envelope, "event 1") == bytes(16)
    (55, b'tea', True)
    >>> key.open(envelope, b"orders/2") is None
    True
    """

    __slots__ = ("_decrypt", "_encrypt", "_head", "_invalid", "id")

    def __init__(self, key_id: bytes, secret: bytes) -> None:
        aesgcm, self._invalid = library()
        cipher = aesgcm(secret)
        self.id = key_id
        self._encrypt, self._decrypt = cipher.encrypt, cipher.decrypt
        self._head = _MARK + key_id

    def seal(self, plain: bytes, place: bytes, nonce: bytes) -> bytes:
        """The envelope of some bytes.

        Args:
            plain: The bytes.
            place: For which place.
            nonce: Twelve random bytes, drawn for this envelope.

        Returns:
            The envelope.
        """
        (envelope,) = self.seal_all([(plain, place)], [nonce])
        return envelope

    def seal_all(self, plains: Iterable[tuple[bytes, bytes]], nonces: Iterable[bytes]) -> list[bytes]:
        """The envelopes of many bytes, each for its place and with its nonce, as `seal` makes them."""
        encrypt, head = self._encrypt, self._head
        pairs = zip(plains, nonces, strict=True)
        return [head + nonce + encrypt(nonce, plain, place) for (plain, place), nonce in pairs]

    def open(self, envelope: bytes, place: bytes) -> bytes | None:
        """What is in an envelope.

        Args:
            envelope: The envelope, of this key.
            place: Where it was found.

        Returns:
            The bytes; None where they are not what was sealed for this place.
        """
        opened = self.open_all([envelope], place)
        return None if opened is None else opened[0]

    def open_all(self, envelopes: Iterable[bytes], place: bytes) -> list[bytes] | None:
        """What is in many envelopes, all of one place; None where one of them is not what was sealed for it."""
        decrypt = self._decrypt
        try:
            return [decrypt(envelope[_NONCE_AT:_SEALED_AT], envelope[_SEALED_AT:], place) for envelope in envelopes]
        except self._invalid:
            return None


Found = Event | str
"""What was read: an event, or in words what else it is."""


def where(found: Found) -> str:
    """How messages call what was read.

    >>> where(Event("orders/1", 3, "placed", 0, None, 3)), where("value of key 'latest'")
    ("event 3 of stream 'orders/1'", "value of key 'latest'")
    """
    return found if isinstance(found, str) else f"event {found.seq} of stream {found.stream!r}"


def key_id_in(envelope: bytes, found: Found) -> bytes:
    """The id of the key under which an envelope is.

    Args:
        envelope: The envelope.
        found: What was read.

    Returns:
        The id.

    Raises:
        NewerFormat: The envelope is of a later version.
        CorruptStore: It is too short for one.

    >>> key_id_in(ENVELOPE + bytes([9]) + bytes(60), "event 3 of stream 'orders/1'")
    Traceback (most recent call last):
    persist_effects.errors.NewerFormat: event 3 of stream 'orders/1': format version 9, and this release reads up ...
    """
    if envelope.startswith(_MARK) and len(envelope) >= ENVELOPE_BYTES:
        return envelope[len(_MARK) : _NONCE_AT]
    if len(envelope) > len(ENVELOPE) and envelope[len(ENVELOPE)] > VERSION:
        raise NewerFormat(where(found), envelope[len(ENVELOPE)], VERSION)
    raise CorruptStore(
        f"{where(found)}: expected an envelope of at least {ENVELOPE_BYTES} bytes in format {VERSION}, found "
        f"{len(envelope)} bytes that only begin as one: restore it from a backup"
    )


def place_of_events(stream: str) -> bytes:
    r"""With what the places of a stream's events begin, before their type. The place of a meta ends with `META`.

    No name has a control character, so that no two places are the same.

    >>> place_of_events("orders/1") + b"placed"
    b'event\x00orders/1\x00placed'
    """
    return f"event\0{stream}\0".encode()


META = b"\0meta"
"""What is added to the place of an event's data for its meta."""

BLOB_PLACE = b"blob"
"""The place of a blob, whose identifier is known only once it is sealed. The identifier itself says whether it was
altered."""


def place_of_key(key: str) -> bytes:
    r"""The place of a key's value.

    >>> place_of_key("latest")
    b'key\x00latest'
    """
    return f"key\0{key}".encode()


KeyById = Callable[[bytes, Found], Key | Erased]
"""Gives the key that has an id, told what is to be read with it; or what stands for all that was written under it."""
