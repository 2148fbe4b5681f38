"""Which hosts live: each has a key that it renews, and takes the keys of those away that have not."""

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from interpreters.runtime.store import Store
from interpreters.threads.background import BackgroundThread
from interpreters.threads.gates import Gate
from persist_effects import kv, new_id
from persist_effects.errors import StoreClosed, StoreUnavailable, UncertainOutcome
from persist_effects.flow import journal
from persist_effects.flow.journal import message
from persist_effects.machine import Effect, perform
from persist_effects.requests import Conflict, KvDelete, Transact

_SIGNS = 3
"""How often a lease is renewed within its term."""


class Leases:
    """The lease of one host, and what it knows of those of others.

    Where one process at a time may write to a store, the hosts that live are those of this process. Else each host
    renews a key. Another one that has seen it unchanged for a whole term, by its own monotonic clock, takes it away.
    Wherever a key goes, there is a message in the same transaction, so that no host misses that it went.

    Args:
        store: The store.
        token: The host's token.
        seconds: The term.
        look: Is called when another host of this process is gone, from any thread.
        lost: Is called when this lease was taken away, from another thread, with the token of the one in its place.
        clock: A monotonic clock.
    """

    def __init__(
        self,
        store: Store,
        token: bytes,
        seconds: float,
        look: Callable[[], None],
        lost: Callable[[bytes], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._token = token
        self._seconds = seconds
        self._look = look
        self._lost = lost
        self._clock = clock
        self._is_shared = store.capabilities.processes == "many"
        self._end = Gate()
        self._seen: dict[str, tuple[int, float]] = {}
        self._thread: BackgroundThread | None = None
        _here[token] = self
        if self._is_shared:
            self._revision = store.run(kv.put(self._key, seconds))
            self._thread = BackgroundThread(self._keep, "persist-effects lease")
            self._thread.start()

    @property
    def _key(self) -> str:
        return journal.HOST + self._token.hex()

    def alive(self) -> set[bytes]:
        """The tokens of the hosts that live, as far as is known."""
        if not self._is_shared:
            # One that was closed is gone; the others of this process hold their flows.
            # Taken at once, since hosts begin and end in other threads.
            leases = [ref() for ref in _here.valuerefs()]
            return {lease._token for lease in leases if lease is not None and not lease._is_closed}
        return {bytes.fromhex(key.removeprefix(journal.HOST)) for key in self._store.run(kv.keys(journal.HOST))}

    @property
    def _is_closed(self) -> bool:
        return self._end.wait(0)

    def close(self) -> None:
        """Give the lease back, so that others need not wait for its end."""
        self._end.open()
        if self._thread is not None:
            self._thread.join()
            return
        for other in list(_here.values()):
            if not other._is_shared and not other._is_closed:
                other._look()

    def renew(self) -> None:
        """Give a sign of life, and take the leases away of those that have given none for a term."""
        if self._is_kept():
            self._look_at_others()
        else:
            self._begin_anew()

    def take_away(self, key: str, revision: int) -> Any:
        """Take a lease away, unless it was renewed. Returns a `Conflict` where it was."""
        return self._store.run(_end_lease(key, revision))

    def _keep(self) -> None:
        while not self._end.wait(self._seconds / _SIGNS):
            try:
                self.renew()
            except StoreClosed:
                return
            except _PASSING:
                continue
        try:
            self.take_away(self._key, self._revision)
        except _PASSING:
            # It ends by itself.
            return

    def _is_kept(self) -> bool:
        """Renew the lease. False: it was taken away."""
        renewed = self._store.run(kv.put_expect(self._key, self._revision, self._seconds))
        if isinstance(renewed, Conflict):
            # Nobody else renews it: it was this host, which was not told of it.
            entry = self._store.run(kv.entry(self._key))
            if entry is None:
                return False
            renewed = entry.revision
        self._revision = renewed
        return True

    def _begin_anew(self) -> None:
        """Go on as another host: what was this one's is for others, who may have it by now."""
        token = new_token(self._store)
        self._revision = self._store.run(kv.put(journal.HOST + token.hex(), self._seconds))
        self._token = token
        self._lost(token)

    def _look_at_others(self) -> None:
        entries = self._store.run(kv.entries(journal.HOST))
        now = self._clock()
        before, self._seen = self._seen, {}
        for key, entry in entries:
            revision, since = before.get(key, (entry.revision, now))
            if revision != entry.revision:
                revision, since = entry.revision, now
            self._seen[key] = revision, since
        for key, entry in entries:
            is_over = now - self._seen[key][1] > max(self._seconds, float(entry.value))
            if key != self._key and is_over:
                self.take_away(key, entry.revision)


def new_token(store: Store) -> bytes:
    """A token that no host had before."""
    return bytes.fromhex(store.run(new_id()).replace("-", ""))[-8:]


def _end_lease(key: str, revision: int) -> Effect[Any]:
    return (yield from perform(Transact((KvDelete(key, revision), message("", "gone", None)))))


_PASSING = (StoreUnavailable, UncertainOutcome)

_here: WeakValueDictionary[bytes, Leases] = WeakValueDictionary()
"""The leases of this process, by their tokens."""
