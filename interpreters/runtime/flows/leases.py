"""Which hosts live: each has a key that it renews, and takes the keys of those away that have not."""

import time
from collections.abc import Callable
from threading import Thread
from weakref import WeakValueDictionary

from interpreters.runtime.store import Store
from interpreters.threads.gates import Gate
from persist_effects import kv
from persist_effects.errors import StoreClosed, StoreUnavailable, UncertainOutcome
from persist_effects.flow import journal

_SIGNS = 3
"""How often a lease is renewed within its term."""


class Leases:
    """The lease of one host, and what it knows of those of others.

    Where one process at a time may write to a store, the hosts that live are those of this process. Else each host
    renews a key. Another one that has seen it unchanged for a whole term, by its own monotonic clock, takes it away.

    Args:
        store: The store.
        token: The host's token.
        seconds: The term.
        look: Is called when a host is gone, from another thread.
    """

    def __init__(self, store: Store, token: bytes, seconds: float, look: Callable[[], None]) -> None:
        self._store = store
        self._token = token
        self._key = journal.HOST + token.hex()
        self._seconds = seconds
        self._look = look
        self._is_shared = store.capabilities.processes == "many"
        self._end = Gate()
        self._seen: dict[str, tuple[int, float]] = {}
        self._thread: Thread | None = None
        _here[token] = self
        if self._is_shared:
            store.run(kv.put(self._key, seconds))
            self._thread = Thread(target=self._renew, name="persist-effects lease", daemon=True)
            self._thread.start()

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

    def _renew(self) -> None:
        while not self._end.wait(self._seconds / _SIGNS):
            try:
                self._store.run(kv.put(self._key, self._seconds))
                self._look_at_others()
            except StoreClosed:
                return
            except (StoreUnavailable, UncertainOutcome):
                continue
        try:
            self._store.run(kv.delete(self._key))
        except (StoreUnavailable, UncertainOutcome):
            # It ends by itself.
            return

    def _look_at_others(self) -> None:
        entries = self._store.run(kv.entries(journal.HOST))
        now = time.monotonic()
        before, self._seen = self._seen, {}
        is_one_gone = not before.keys() <= {key for key, _ in entries}
        for key, entry in entries:
            revision, since = before.get(key, (entry.revision, now))
            if revision != entry.revision:
                revision, since = entry.revision, now
            self._seen[key] = revision, since
            if key != self._key and now - since > max(self._seconds, float(entry.value)):
                self._store.run(kv.delete_expect(key, entry.revision))
                is_one_gone = True
        if is_one_gone:
            self._look()


_here: WeakValueDictionary[bytes, Leases] = WeakValueDictionary()
"""The leases of this process, by their tokens."""
