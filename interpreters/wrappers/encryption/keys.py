"""The keys of subjects, in a key store: programs on any store of ours.

=================  ==================================================================================================
key                value
=================  ==================================================================================================
``keys/format``    ``{"version": 1, "id": …, "under": …}``: a random name of this key store, and the master key's
``keys/of/HASH``   of a subject, the ids of its keys, the newest last; and when it was last forgotten
``keys/id/HEX``    a key, perhaps wrapped under a master key; once it is deleted, when that was
``keys/changes``   is put with whatever takes a key away, so that its revision tells those who have keys in memory
=================  ==================================================================================================

A key is made before anything is written under it. Two processes that make the first one of a subject expect that there
is none, so that one of them meets a conflict and takes the other's. `Keys.forget` is one transaction: it is done or
not, and may be done again. What takes a key's place says when it was forgotten, so that a key that nobody deleted, and
that is not there, is known for what it is: lost.
"""

import hashlib
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from interpreters.wrappers.encryption.envelope import KEY_BYTES, KEY_ID_BYTES, NONCE_BYTES, Key
from interpreters.wrappers.encryption.masters import Masters
from persist_effects import kv
from persist_effects.erasure import Erased
from persist_effects.errors import InvalidRequest, KeyLost, NewerFormat, SubjectForgotten, UnknownSubject
from persist_effects.event import check_name
from persist_effects.machine import Effect, perform
from persist_effects.requests import Conflict, KvGet, KvKeys, KvPut, Transact

FORMAT_VERSION = 1
FORMAT = "keys/format"
CHANGES = "keys/changes"
SUBJECTS = "keys/of/"
IDS = "keys/id/"

Random = Callable[[int], bytes]
"""Gives so many random bytes, as `os.urandom` does."""


class KeyStoreFormat(msgspec.Struct, frozen=True):
    """What a key store says of itself."""

    version: int
    id: str
    under: str | None = None


DELETED_AT_ONCE = 100
"""How many keys are deleted by one transaction: fewer than any store takes, and more than a subject has."""


class Subject(msgspec.Struct, frozen=True):
    """What a key store holds of a subject."""

    ids: list[str]
    forgotten_at: int | None = None


class Keys:
    """The programs. They yield requests for the key store, and draw random bytes.

    Args:
        masters: The master keys.
        random: Gives random bytes.

    >>> import os
    >>> from interpreters import open_store
    >>> keys, store = Keys(Masters(None), os.urandom), open_store("memory:")
    >>> key = store.run(keys.newest("customers/1"))
    >>> store.run(keys.newest("customers/1")).id == key.id
    True
    >>> store.run(keys.forget("customers/1", at=7))
    Subject(ids=[], forgotten_at=7)
    >>> store.run(keys.by_id(key.id, "event 1"))
    Erased(forgotten_at=7)
    """

    def __init__(self, masters: Masters, random: Random) -> None:
        self._masters = masters
        self._random = random

    # The key store itself

    def check_format(self) -> Effect[str]:
        """Make the key store ready, or see that it is one which this release and these master keys can use.

        Returns:
            The key store's id.

        Raises:
            NewerFormat: A later release has made it.
            InvalidRequest: Its keys are under another master key.
        """
        while (entry := (yield from perform(KvGet(FORMAT)))) is None:
            made = KeyStoreFormat(FORMAT_VERSION, self._random(KEY_ID_BYTES).hex(), self._masters.fingerprint)
            yield from perform(KvPut(FORMAT, made, expected=0))
        found = msgspec.convert(entry.value, KeyStoreFormat)
        if found.version > FORMAT_VERSION:
            raise NewerFormat("the key store", found.version, FORMAT_VERSION)
        if not self._masters.has(found.under):
            raise InvalidRequest(
                f"the keys of the key store are under the master key {found.under}, and "
                f"{self._masters.fingerprint or 'none'} was given: give that one, also behind a newer one"
            )
        return found.id

    def changes(self) -> Effect[int]:
        """A number that grows with each time that a key was taken away or followed by another.

        Returns:
            A revision.
        """
        entry = yield from perform(KvGet(CHANGES))
        return 0 if entry is None else entry.revision

    def rewrap(self) -> Effect[int]:
        """Wrap under the first master key all keys that are not. It may be interrupted, and done again.

        Returns:
            How many were wrapped anew.

        Raises:
            KeyLost: A key is under a master key that was not given. Those before it were wrapped anew.
            InvalidRequest: The store is not a key store.
        """
        if not (yield from kv.has(FORMAT)):
            raise InvalidRequest(
                f"this store has no key {FORMAT!r}, so it is not a key store: give the one with the keys"
            )
        count, after = 0, ""
        while names := (yield from perform(KvKeys(IDS, after))):
            for name in names:
                count += yield from self._rewrap(name)
            after = names[-1]
        fingerprint = self._masters.fingerprint
        yield from kv.update(FORMAT, lambda found: {**found, "under": fingerprint}, None)
        return count

    def _rewrap(self, name: str) -> Effect[bool]:
        key_id = bytes.fromhex(name.removeprefix(IDS))
        while True:
            entry = yield from perform(KvGet(name))
            assert entry is not None, "a key that is deleted leaves word of it"
            if "key" not in entry.value or entry.value.get("under") == self._masters.fingerprint:
                return False
            secret = self._unwrapped(key_id, entry.value, f"key {name!r}")
            # Where it was deleted meanwhile, that stands.
            put = yield from perform(KvPut(name, self._wrapped(key_id, secret), entry.revision))
            if not isinstance(put, Conflict):
                return True

    # Using keys

    def newest(self, subject: str) -> Effect[Key]:
        """The key under which to write about a subject, which is made if it has none.

        Args:
            subject: The subject.

        Returns:
            The key.

        Raises:
            SubjectForgotten: It was forgotten, and not admitted since.
            KeyLost: The key is not there, or cannot be unwrapped.
        """
        deleted_at = 0
        while True:
            found, revision = yield from self._look_up(subject)
            if found is None:
                key = yield from self._add_key(subject, Subject([]), revision)
                if key is not None:
                    return key
            elif found.ids:
                key_id = bytes.fromhex(found.ids[-1])
                there = yield from self.by_id(key_id, f"what is to be written about subject {subject!r}")
                if isinstance(there, Key):
                    return there
                # It was forgotten in between, which the subject says now.
                if revision == deleted_at:
                    raise KeyLost(
                        f"subject {subject!r}",
                        key_id.hex(),
                        "the key store says of it both that it is the newest and that it was deleted",
                    )
                deleted_at = revision
            else:
                raise SubjectForgotten(subject, found.forgotten_at or 0)

    def by_id(self, key_id: bytes, where: str) -> Effect[Key | Erased]:
        """The key that has this id, or since when it is deleted.

        Args:
            key_id: The id.
            where: How a message calls what is to be read with it.

        Returns:
            The key, or what stands in the place of everything that was written under it.

        Raises:
            KeyLost: There is neither, or the key cannot be unwrapped.
        """
        entry = yield from perform(KvGet(IDS + key_id.hex()))
        if entry is None:
            raise KeyLost(where, key_id.hex(), "the key store has no such key, nor says that it was forgotten")
        record = entry.value
        if "key" not in record:
            return Erased(record["forgotten_at"])
        return Key(key_id, self._unwrapped(key_id, record, where))

    def rotate(self, subject: str, of: str | None = None) -> Effect[int]:
        """Give a subject a key of the next generation. What was written before stays readable, as it is.

        Args:
            subject: The subject.
            of: Only where the newest key has this id; None: whichever it is.

        Returns:
            How many keys the subject has.

        Raises:
            UnknownSubject: Nothing was ever written about it.
            SubjectForgotten: It was forgotten.
        """
        while True:
            found, revision = yield from self._known(subject)
            if not found.ids:
                raise SubjectForgotten(subject, found.forgotten_at or 0)
            if of is not None and found.ids[-1] != of:
                return len(found.ids)
            if (yield from self._add_key(subject, found, revision)) is not None:
                return len(found.ids) + 1

    def admit(self, subject: str) -> Effect[int]:
        """Let a subject that was forgotten be written about again, under a new key. What was erased stays erased.

        Args:
            subject: The subject.

        Returns:
            How many keys it has: also where it was never forgotten, or admitted before.

        Raises:
            UnknownSubject: Nothing was ever written about it.
        """
        while True:
            found, revision = yield from self._known(subject)
            if found.ids:
                return len(found.ids)
            if (yield from self._add_key(subject, found, revision)) is not None:
                return 1

    def forget(self, subject: str, at: int) -> Effect[Subject]:
        """Delete all keys of a subject, and say when, in one transaction. Again: nothing more.

        Where it has very many, the oldest go before, in transactions of their own; interrupted, it is done again.

        Args:
            subject: The subject.
            at: The time, in microseconds since 1970, UTC.

        Returns:
            What the key store says of it now.

        Raises:
            UnknownSubject: Nothing was ever written about it.
        """
        while True:
            found, revision = yield from self._known(subject)
            if not found.ids:
                return found
            some, rest = found.ids[:DELETED_AT_ONCE], found.ids[DELETED_AT_ONCE:]
            left = Subject(rest, found.forgotten_at if rest else at)
            deleted = [KvPut(IDS + key_id, {"forgotten_at": at}) for key_id in some]
            writes = (*deleted, KvPut(place_of_subject(subject), left, revision), KvPut(CHANGES, at))
            if not isinstance((yield from perform(Transact(writes))), Conflict) and not rest:
                return left

    # Steps of these

    def _known(self, subject: str) -> Generator[Any, Any, tuple[Subject, int]]:
        found, revision = yield from self._look_up(subject)
        if found is None:
            raise UnknownSubject(subject)
        return found, revision

    def _look_up(self, subject: str) -> Generator[Any, Any, tuple[Subject | None, int]]:
        entry = yield from perform(KvGet(place_of_subject(subject)))
        return (None, 0) if entry is None else (msgspec.convert(entry.value, Subject), entry.revision)

    def _add_key(self, subject: str, found: Subject, revision: int) -> Effect[Key | None]:
        """Make a key the newest of a subject; None where another process was first."""
        key_id, secret = self._random(KEY_ID_BYTES), self._random(KEY_BYTES)
        writes = [
            KvPut(IDS + key_id.hex(), self._wrapped(key_id, secret), expected=0),
            KvPut(place_of_subject(subject), Subject([*found.ids, key_id.hex()], found.forgotten_at), revision),
        ]
        if revision:
            # Nobody has a first key in memory.
            writes.append(KvPut(CHANGES, None))
        answers = yield from perform(Transact(tuple(writes)))
        return None if isinstance(answers, Conflict) else Key(key_id, secret)

    def _wrapped(self, key_id: bytes, secret: bytes) -> dict[str, Any]:
        return self._masters.wrap(key_id, secret, self._random(NONCE_BYTES))

    def _unwrapped(self, key_id: bytes, record: dict[str, Any], where: str) -> bytes:
        secret = self._masters.unwrap(key_id, record)
        if secret is None:
            under = record.get("under")
            given = self._masters.fingerprint or "none"
            reason = (
                "what the key store has in its place is not a key"
                if self._masters.has(under)
                else f"that one is under the master key {under}, and {given} was given"
            )
            raise KeyLost(where, key_id.hex(), reason)
        return secret


def place_of_subject(subject: str) -> str:
    """Under which key the key store has a subject: by the hash of its name, which the key store need not know.

    >>> place_of_subject("customers/1")
    'keys/of/f1d540c9...'
    """
    check_name("subject", subject)
    return SUBJECTS + hashlib.sha256(subject.encode()).hexdigest()
