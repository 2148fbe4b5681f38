"""Master keys, under which the subjects' keys lie in the key store, if the user gives any."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any

from interpreters.wrappers.encryption.envelope import KEY_BYTES, Key
from persist_effects.errors import InvalidRequest, describe

Master = bytes | Callable[[], bytes]
"""A master key of 32 bytes, or a function that gives it whenever it is needed."""

_FINGERPRINT_BYTES = 8


class Masters:
    """The master keys that were given: keys are wrapped under the first, and unwrapped under whichever it was.

    Args:
        given: A master key, several of them with the newest first, or None: keys lie in the key store as they are.

    Raises:
        InvalidRequest: One of them is not 32 bytes.

    >>> masters, key_id = Masters(b"m" * 32), bytes(16)
    >>> record = masters.wrap(key_id, b"k" * 32, nonce=bytes(12))
    >>> masters.unwrap(key_id, record) == b"k" * 32, Masters(None).unwrap(key_id, record) is None
    (True, True)
    """

    def __init__(self, given: Master | Sequence[Master] | None) -> None:
        self._masters = _several(given)
        self.fingerprint = self._named()[0][0] if self._masters else None
        """Which master key is the first; None where there is none."""

    def __len__(self) -> int:
        return len(self._masters)

    def wrap(self, key_id: bytes, secret: bytes, nonce: bytes) -> dict[str, Any]:
        """What the key store holds of a key.

        Args:
            key_id: The key's id, to which the wrapping is bound.
            secret: The key.
            nonce: Twelve random bytes, drawn for this.

        Returns:
            The record.
        """
        if not self._masters:
            return {"key": secret}
        fingerprint, master = self._named()[0]
        return {"key": Key(key_id, master).seal(secret, key_id, nonce), "under": fingerprint}

    def unwrap(self, key_id: bytes, record: dict[str, Any]) -> bytes | None:
        """The key in a record.

        Args:
            key_id: Its id.
            record: What the key store holds.

        Returns:
            The key; None where it is under a master key that was not given, or not what was wrapped.
        """
        under = record.get("under")
        if under is None:
            found = record.get("key")
            return found if type(found) is bytes and len(found) == KEY_BYTES else None
        master = dict(self._named()).get(under)
        return None if master is None else Key(key_id, master).open(record["key"], key_id)

    def has(self, fingerprint: object) -> bool:
        """Whether keys that were wrapped under this master key, or under none, can be unwrapped."""
        return fingerprint is None or fingerprint in dict(self._named())

    def _named(self) -> list[tuple[str, bytes]]:
        """The master keys with their fingerprints, which tell nothing of them."""
        return [(_fingerprint(master), master) for master in map(_secret_of, self._masters)]


def _several(given: Master | Sequence[Master] | None) -> tuple[Master, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, bytes) or callable(given) or not isinstance(given, Sequence) else (*given,)


def _secret_of(master: Master) -> bytes:
    found = master() if callable(master) else master
    if type(found) is not bytes or len(found) != KEY_BYTES:
        what = f"{len(found)} bytes" if isinstance(found, bytes) else describe(type(found).__name__)
        raise InvalidRequest(
            f"a master key is {what}: give {KEY_BYTES} random bytes, such as secrets.token_bytes({KEY_BYTES}) makes, "
            "or a function that gives them"
        )
    return found


def _fingerprint(master: bytes) -> str:
    return hmac.digest(master, b"persist-effects master key", hashlib.sha256)[:_FINGERPRINT_BYTES].hex()
