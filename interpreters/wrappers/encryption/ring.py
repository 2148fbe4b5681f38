"""The keys that this process has in memory, and when it lets go of them.

Looking a key up costs a request to the key store, so keys are kept. `KeyRing.forget` lets go of a subject's keys in
every ring of this process, before it returns. What another process takes away is noticed within `FRESH_SECONDS`: at
the first use after that time, the ring asks the key store whether anything was taken away, and if so lets go of all.
Until then, another process may still read what was forgotten, and what it writes about the subject is erased already.

No lock is held, so that neither an interrupt nor a fork leaves one behind: what is kept stands in one object, which is
replaced as a whole. Who looks up a key puts it into the object that stood there before he asked. If a key was
forgotten meanwhile, another object stands there by then.
"""

import time
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

from interpreters.threads import forks
from interpreters.wrappers.encryption.envelope import Found, Key, where
from interpreters.wrappers.encryption.keys import Keys, Subject
from persist_effects import machine
from persist_effects.erasure import Erased
from persist_effects.machine import Effect, Handlers

A = TypeVar("A")

FRESH_SECONDS = 1.0
"""How long keys are used before the key store is asked whether one of them was taken away."""

KEPT_KEYS = 16_384
"""How many keys are kept in memory, of each sort. Past that, all are let go, and looked up anew."""


class NotKept(Exception):
    """The key store would have to be asked, and whoever wants the key cannot wait for that."""


class _Kept:
    """Keys in memory: the newest by subject, and any by id."""

    __slots__ = ("by_id", "newest")

    def __init__(self) -> None:
        self.newest: dict[str, Key] = {}
        self.by_id: dict[bytes, Key | Erased] = {}


class KeyRing:
    """Keys by subject and by id, from memory or from the key store. Any thread may use it.

    Args:
        keys: The programs.
        handlers: The key store's table, which answers them.
        seconds: A clock that never goes back.

    >>> import os
    >>> from interpreters.stores.memory import MemoryStore
    >>> from interpreters.wrappers.encryption.masters import Masters
    >>> ring = KeyRing(Keys(Masters(None), os.urandom), MemoryStore().handlers)
    >>> ring.newest("customers/1") is ring.newest("customers/1")
    True
    """

    def __init__(self, keys: Keys, handlers: Handlers, seconds: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._handlers = handlers
        self._seconds = seconds
        self._kept = _Kept()
        self._changes = -1
        self._fresh_until = seconds()
        with forks.no_fork():
            _rings.add(self)

    def newest(self, subject: str) -> Key:
        """The key under which to write about a subject: see `Keys.newest`."""
        kept = self._fresh()
        key = kept.newest.get(subject)
        if key is None:
            key = self.run(self._keys.newest(subject))
            if len(kept.newest) >= KEPT_KEYS:
                kept.newest.clear()
            kept.newest[subject] = key
        return key

    def by_id(self, key_id: bytes, found: Found) -> Key | Erased:
        """The key that has an id, or since when it is deleted: see `Keys.by_id`."""
        kept = self._fresh()
        key = kept.by_id.get(key_id)
        if key is None:
            key = self.run(self._keys.by_id(key_id, where(found)))
            if len(kept.by_id) >= KEPT_KEYS:
                kept.by_id.clear()
            kept.by_id[key_id] = key
        return key

    def worn(self, subject: str, key_id: bytes) -> None:
        """Give a subject its next key, where its newest is still the one with this id."""
        self.rotate(subject, key_id)

    def rotate(self, subject: str, of: bytes | None = None) -> int:
        """Give a subject its next key: see `Keys.rotate`. In this process it is used at once."""
        try:
            return self.run(self._keys.rotate(subject, None if of is None else of.hex()))
        finally:
            let_go_everywhere()

    def admit(self, subject: str) -> int:
        """Let a forgotten subject be written about again: see `Keys.admit`."""
        return self.run(self._keys.admit(subject))

    def forget(self, subject: str, at: int) -> Subject:
        """Delete a subject's keys: see `Keys.forget`. Once it returns, nothing in this process has them."""
        try:
            return self.run(self._keys.forget(subject, at))
        finally:
            # However it ended: they may be deleted.
            let_go_everywhere()

    def run(self, program: Effect[A]) -> A:
        """Run a program on the key store."""
        return machine.run(program, self._handlers)

    def let_go(self) -> None:
        """Keep no key any more."""
        self._kept = _Kept()

    def kept(self) -> _Kept:
        """What is in memory. Raises `NotKept` where the key store must be asked first."""
        if self._seconds() >= self._fresh_until:
            raise NotKept
        return self._kept

    def _fresh(self) -> _Kept:
        """What is kept, after a look whether anything was taken away, if the last one was too long ago."""
        now = self._seconds()
        if now >= self._fresh_until:
            # What stands there from here on was looked up after this moment.
            changes = self.run(self._keys.changes())
            if changes != self._changes:
                self.let_go()
                self._changes = changes
            self._fresh_until = now + FRESH_SECONDS
        return self._kept


class KeptKeys:
    """The keys of a ring, of which only those in memory are given, to threads that cannot wait for the key store.

    Args:
        ring: The ring.
        wear: Takes what is to be done, elsewhere, where a key is to be followed by another.
    """

    def __init__(self, ring: KeyRing, wear: Callable[[Callable[[], object]], object]) -> None:
        self._ring = ring
        self._wear = wear

    def newest(self, subject: str) -> Key:
        """The key of a subject. Raises `NotKept` where it is not in memory."""
        key = self._ring.kept().newest.get(subject)
        if key is None:
            raise NotKept
        return key

    def by_id(self, key_id: bytes, _: Found) -> Key | Erased:
        """The key that has an id, likewise."""
        key = self._ring.kept().by_id.get(key_id)
        if key is None:
            raise NotKept
        return key

    def worn(self, subject: str, key_id: bytes) -> None:
        """Have the next key made by a thread that can wait."""
        self._wear(lambda: self._ring.worn(subject, key_id))


_rings: WeakSet[KeyRing] = WeakSet()


def let_go_everywhere() -> None:
    """Let every ring of this process let go of its keys: which of them are of one key store is not known."""
    with forks.no_fork():
        rings = list(_rings)
    for ring in rings:
        ring.let_go()
