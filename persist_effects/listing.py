"""Listing names to the end, page after page."""

from persist_effects.machine import Effect, perform
from persist_effects.requests import PAGE_SIZE, KvKeys, Streams


def all_names(kind: type[KvKeys] | type[Streams], prefix: str) -> Effect[list[str]]:
    """All names that these requests list under a prefix, sorted by code point.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> store = open_store("memory:")
    >>> _ = store.run(kv.put("color", "red"))
    >>> store.run(all_names(KvKeys, "c"))
    ['color']
    """
    names: list[str] = []
    while True:
        page = yield from perform(kind(prefix, names[-1] if names else ""))
        names += page
        if len(page) < PAGE_SIZE:
            return names
