"""Programs for an encrypted store, `forget`, `admit`, `rotate_key`, `put_blob`; and `rewrap_keys` for a key store."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from interpreters.wrappers.encryption.keys import Keys
from interpreters.wrappers.encryption.masters import Master, Masters
from interpreters.wrappers.encryption.requests import (
    AdmitSubject,
    DeleteKeys,
    HoldsSeveral,
    MayHold,
    PutSubjectsBlob,
    RotateKey,
)
from interpreters.wrappers.encryption.sealing import SNAPSHOTS
from persist_effects import followers
from persist_effects.errors import Truncated
from persist_effects.following.records import head_key
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import BlobRef, Conflict, Entry, KvDelete, KvEntries, KvGet, Read, Streams
from persist_effects.states import Kept, kept_in

Derive = Callable[[], Effect[Any]]
"""Makes a program that brings up to date what was derived from events, such as a read model."""


class Forgotten(msgspec.Struct, frozen=True):
    """What `forget` has done.

    ``forgotten_at`` is when the subject was forgotten first since it was last admitted. ``dropped`` are the keys of the
    states that were deleted, for they may have held the subject. ``left`` are those that may still hold it, and are the
    only copy of what their events said, which were truncated: what is in them is for you to look at. ``rebuilt`` are
    the followers whose read models are being built anew by those that follow; until that is done the old ones answer.
    ``seen_by`` are the other followers that may have read the subject: what they wrote, and where, only you know.
    """

    subject: str
    forgotten_at: int
    dropped: list[str]
    left: list[str]
    rebuilt: list[str] = []
    seen_by: list[str] = []


@program
def forget(subject: str, *, derived: Sequence[Derive] = ()) -> Effect[Forgotten]:
    """Make all that was ever written about a subject unreadable, in the store and in every copy of it.

    Its keys are deleted in the key store, in one transaction. Its events stay, with their numbers, types and times, and
    are read as `Erased`; so are the values of its keys, and the states that folds have kept of its streams. Where
    ``subject_of_event`` was given, states of streams with several subjects are deleted, so that the next fold makes
    them anew. Read models of followers that may have read it are built anew. It may be interrupted anywhere, and
    performed again.

    Args:
        subject: The subject, as ``subject_of`` returns it.
        derived: Functions that make programs, run in order once the keys are gone: to rebuild what followers made.

    Returns:
        What was done.

    Raises:
        UnknownSubject: Nothing was ever written about it. Nothing was changed.

    >>> from interpreters.wrappers.encryption import open_encrypted
    >>> from persist_effects import log
    >>> store = open_encrypted("memory:", keys="memory:", subject_of=lambda name: name)
    >>> _ = store.run(log.append("customers/1", "registered", {"name": "Ada"}))
    >>> _ = store.run(forget("customers/1"))
    >>> store.run(log.read("customers/1"))[0].data
    Erased(forgotten_at=...)
    """
    forgotten_at = yield from perform(DeleteKeys(subject))
    dropped: list[str] = []
    left: list[str] = []
    if (yield from perform(HoldsSeveral())):
        yield from _drop_states(dropped, left)
    rebuilt, seen_by = yield from _rebuild_models(subject, left)
    for derive in derived:
        yield from derive()
    return Forgotten(subject, forgotten_at, dropped, left, rebuilt, seen_by)


def _rebuild_models(subject: str, left: list[str]) -> Effect[tuple[list[str], list[str]]]:
    """Have the read models of followers that may have read the subject built anew; which, and which have none."""
    rebuilt: list[str] = []
    seen_by: list[str] = []
    for follower in (yield from followers.all_registered()):
        if follower.is_forgotten or not (yield from _may_have_read(follower, subject)):
            continue
        if not follower.has_model:
            seen_by.append(follower.name)
            continue
        # What was being built may have read the subject before it was forgotten.
        yield from followers.cancel(follower.name)
        try:
            yield from followers.rebuild(follower.name)
            rebuilt.append(follower.name)
        except Truncated:
            left.append(head_key(follower.name))
    return rebuilt, seen_by


def _may_have_read(follower: followers.Registered, subject: str) -> Effect[bool]:
    after = ""
    while names := (yield from perform(Streams(follower.prefix, after))):
        for name in names:
            if (yield from perform(MayHold(name, subject))):
                return True
        after = names[-1]
    return False


def _drop_states(dropped: list[str], left: list[str]) -> Effect[None]:
    """Delete the states of streams with several subjects."""
    after = ""
    while entries := (yield from perform(KvEntries(SNAPSHOTS, after))):
        for key, entry in entries:
            stream = _stream_of(kept_in(entry))
            if stream is None or not (yield from perform(HoldsSeveral(stream))):
                continue
            first = yield from perform(Read(stream, limit=1))
            if first.hole is not None:
                left.append(key)
            elif (yield from _deleted(key, entry)):
                dropped.append(key)
        after = entries[-1][0]


def _stream_of(kept: Kept | None) -> str | None:
    return None if kept is None or kept.version == 0 else kept.stream


def _deleted(key: str, entry: Entry) -> Effect[bool]:
    """Delete a state, also where a fold has just made it anew: it may have begun before the subject was forgotten."""
    there: Entry | None = entry
    while there is not None:
        deleted = yield from perform(KvDelete(key, there.revision))
        if not isinstance(deleted, Conflict):
            return deleted
        there = yield from perform(KvGet(key))
    return False


@program
def admit(subject: str) -> Effect[int]:
    """Let a subject that was forgotten be written about again, under a new key. What was erased stays erased.

    Args:
        subject: The subject.

    Returns:
        How many keys it has: more than one only where it was not forgotten.

    Raises:
        UnknownSubject: Nothing was ever written about it, so it needs no admission.

    >>> from interpreters.wrappers.encryption import open_encrypted
    >>> from persist_effects import log
    >>> store = open_encrypted("memory:", keys="memory:", subject_of=lambda name: name)
    >>> _ = store.run(log.append("customers/1", "registered", {"name": "Ada"}))
    >>> _ = store.run(forget("customers/1"))
    >>> store.run(admit("customers/1"))
    1
    >>> store.run(log.append("customers/1", "registered", {"name": "A."})).seq
    2
    """
    return (yield from perform(AdmitSubject(subject)))


@program
def rotate_key(subject: str) -> Effect[int]:
    """Give a subject a key of the next generation, for what is written from now on.

    What was written before stays as it is, and readable. This process uses the new key at once, others within a second.

    Args:
        subject: The subject.

    Returns:
        How many keys it has.

    Raises:
        UnknownSubject: Nothing was ever written about it.
        SubjectForgotten: It was forgotten.

    >>> from interpreters.wrappers.encryption import open_encrypted
    >>> from persist_effects import log
    >>> store = open_encrypted("memory:", keys="memory:", subject_of=lambda name: name)
    >>> _ = store.run(log.append("customers/1", "registered", {"name": "Ada"}))
    >>> store.run(rotate_key("customers/1"))
    2
    """
    return (yield from perform(RotateKey(subject)))


@program
def put_blob(subject: str, data: bytes, mime: str = "application/octet-stream") -> Effect[BlobRef]:
    """Store bytes about a subject, under its key. `blob.get` reads them, until the subject is forgotten.

    Args:
        subject: The subject.
        data: The bytes.
        mime: Their MIME type.

    Returns:
        The reference to keep: that of the encrypted bytes, with their size. The same bytes put again have another one.

    Raises:
        SubjectForgotten: It was forgotten.

    >>> from interpreters.wrappers.encryption import open_encrypted
    >>> from persist_effects import blob
    >>> store = open_encrypted("memory:", keys="memory:", subject_of=lambda name: name)
    >>> ref = store.run(put_blob("customers/1", b"a photo", "image/png"))
    >>> store.run(blob.get(ref))
    b'a photo'
    """
    return (yield from perform(PutSubjectsBlob(subject, data, mime)))


@program
def rewrap_keys(master: Master | Sequence[Master]) -> Effect[int]:
    """A program for the key store: wrap all keys under the first master key. The log itself is not touched.

    It may be interrupted, and performed again. Give the stores that are open meanwhile all of the master keys; once it
    has returned, the first alone is enough.

    Args:
        master: The master keys, the new one first.

    Returns:
        How many keys were wrapped anew.

    Raises:
        KeyLost: A key is under a master key that was not given.

    >>> from interpreters import open_store
    >>> from interpreters.wrappers.encryption import open_encrypted
    >>> from persist_effects import log
    >>> keys, old, new = open_store("memory:"), b"o" * 32, b"n" * 32
    >>> store = open_encrypted("memory:", keys=keys, subject_of=lambda name: name, master=old)
    >>> _ = store.run(log.append("customers/1", "registered", {"name": "Ada"}))
    >>> keys.run(rewrap_keys([new, old]))
    1
    """
    return (yield from Keys(Masters(master), os.urandom).rewrap())
