"""`open_encrypted`: a URL, and where its keys are, to an open store."""

import os
from collections.abc import Sequence
from typing import Any

from interpreters.opening import open_store
from interpreters.runtime.interpreter import Interpreter
from interpreters.runtime.store import Store
from interpreters.wrappers.encryption.interpreter import Encrypted
from interpreters.wrappers.encryption.masters import Master
from interpreters.wrappers.encryption.sealing import SubjectOf, SubjectOfEvent
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers


def open_encrypted(
    url: str,
    *,
    keys: Store | str,
    subject_of: SubjectOf,
    subject_of_event: SubjectOfEvent | None = None,
    master: Master | Sequence[Master] | None = None,
    effects: Handlers | None = None,
    blobs: Interpreter | str | None = None,
    **options: Any,
) -> Store:
    """Open the store that a URL names, with its values encrypted under keys of their subjects.

    Args:
        url: The URL of the store, any that `open_store` takes.
        keys: The key store: another store of ours, which stays open; or its URL, and it is closed with this one.
        subject_of: About whom a stream or a key is, by its name; None: it stands in the clear. A pure function.
        subject_of_event: About whom one event is, by its stream's name and its draft, where the stream is about nobody.
        master: The master key under which keys lie in the key store: 32 bytes, or a function that gives them; of
            several, the newest first. None: they lie there as they are.
        effects: Rows for your own requests.
        blobs: A blob store, or the URL of one, as for `open_store`.
        options: Those of the store.

    Returns:
        The open store. Its programs may also be `forget`, `admit`, `rotate_key` and `put_blob`.

    Raises:
        InvalidRequest: The keys would lie in the store itself, or the master key is not that of the key store.
        StoreUnavailable: One of the two cannot be opened now.

    >>> from persist_effects import kv
    >>> with open_encrypted("memory:", keys="memory:", subject_of=lambda name: name) as store:
    ...     _ = store.run(kv.put("customers/1", {"name": "Ada"}))
    ...     store.run(kv.get("customers/1"))
    {'name': 'Ada'}
    """
    if not isinstance(keys, Store | str):
        raise InvalidRequest(f"keys is {describe(keys)}: give an open store, or the URL of one")
    if isinstance(keys, str) and _place_of(keys) == _place_of(url):
        raise InvalidRequest(
            f"{keys!r} is the store itself, and the keys would lie in each of its backups, from which nothing could be "
            "forgotten: give another store for them"
        )
    opened: list[Store] = []
    try:
        key_store = keys if isinstance(keys, Store) else open_store(keys)
        opened += [key_store] if isinstance(keys, str) else []
        inner = open_store(url, blobs=blobs, **options)
        opened.append(inner)
        encrypted = Encrypted(
            inner.interpreter,
            key_store.interpreter,
            subject_of=subject_of,
            subject_of_event=subject_of_event,
            master=master,
            blobs=None if blobs is None else inner.blobs,
        )
        return _ClosingKeys(encrypted, effects, blobs is not None, opened[:-1])
    except BaseException:
        # An interrupt too: nobody could close them any more.
        for each in reversed(opened):
            each.close()
        raise


class _ClosingKeys(Store):
    """A store that closes its key store too, where it was opened with it."""

    def __init__(
        self, encrypted: Encrypted, effects: Handlers | None, has_home: bool, key_stores: Sequence[Store]
    ) -> None:
        super().__init__(
            encrypted,
            effects={**encrypted.effects, **(effects or {})},
            blobs=encrypted.blobs if has_home else None,
        )
        self._key_stores = key_stores

    def close(self) -> None:
        """Close the store, and then its keys."""
        super().close()
        for each in self._key_stores:
            each.close()


def _place_of(url: str) -> object:
    """What two URLs of one store have in common, as far as the URLs tell."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        return object()
    address = rest.partition("?")[0]
    return (scheme, os.path.realpath(address) if scheme in {"file", "sqlite"} else address)
