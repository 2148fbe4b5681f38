"""Blobs that are envelopes, and those that would only seem to be."""

from interpreters.wrappers.encryption.envelope import BLOB_PLACE, Key, KeyById, key_id_in
from persist_effects.erasure import ENVELOPE
from persist_effects.errors import BlobNotFound, CorruptStore, InvalidRequest
from persist_effects.requests import BlobPut


def opened_blob(cid: str, data: bytes, by_id: KeyById) -> bytes:
    """A blob's bytes, opened where they are an envelope.

    Args:
        cid: Its identifier.
        data: What the home has.
        by_id: Gives keys.

    Returns:
        The bytes that were put.

    Raises:
        BlobNotFound: Its subject was forgotten.
        CorruptStore: They are not what was sealed.
        KeyLost: The key is lost.
    """
    if not data.startswith(ENVELOPE):
        return data
    found = f"blob {cid}"
    key = by_id(key_id_in(data, found), found)
    if not isinstance(key, Key):
        error = BlobNotFound(cid)
        error.add_note(f"its subject was forgotten at {key.forgotten_at} (microseconds since 1970, UTC)")
        raise error
    plain = key.open(data, BLOB_PLACE)
    if plain is None:
        raise CorruptStore(f"{found}: expected what was encrypted, found something else: restore it from a backup")
    return plain


def checked_blob(request: BlobPut) -> BlobPut:
    """Refuse to put bytes that would be taken for an envelope.

    Args:
        request: The request.

    Returns:
        The request.

    Raises:
        InvalidRequest: They begin as one.
    """
    refuse_envelope(request.data)
    return request


def refuse_envelope(data: bytes) -> None:
    """Refuse what a blob begins with, where that would be taken for an envelope.

    Args:
        data: Its bytes, or the first of them.

    Raises:
        InvalidRequest: It would.
    """
    if data.startswith(ENVELOPE):
        raise InvalidRequest(
            f"a blob begins with {ENVELOPE!r}, as an envelope does, which only encryption may write: put it into the "
            "blob store itself, without encryption around it"
        )
