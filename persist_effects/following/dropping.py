"""Removing what is left of a generation that is gone, a little at a time, so that events go on meanwhile."""

from persist_effects.following.records import asides_prefix, model_prefix, parts_prefix
from persist_effects.following.tables import drop_tables
from persist_effects.machine import Effect, perform
from persist_effects.requests import KvDelete, KvKeys, Transact

DROPPED_AT_ONCE = 100
"""How many keys are deleted by one transaction: fewer than any store takes, and no event waits long for it."""


def drop_some(name: str, generation: int) -> Effect[bool]:
    """Delete some of what is left of a follower's generation.

    Args:
        name: The follower's name.
        generation: The generation.

    Returns:
        Whether there may be more of it.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(drop_some("totals", 1))
    False
    """
    if "/" not in name:  # else it has no read model
        keys = yield from perform(KvKeys(model_prefix(name, generation), limit=DROPPED_AT_ONCE))
        if keys:
            yield from perform(Transact(tuple(KvDelete(key) for key in keys)))
            return True
    yield from drop_tables(name, generation)
    yield from drop_keys(parts_prefix(name, generation))
    yield from drop_keys(asides_prefix(name, generation))
    return False


def drop_generation(name: str, generation: int, *, are_seen: bool) -> Effect[None]:
    """Delete all that is left of a follower's generation.

    Args:
        name: The follower's name.
        generation: The generation.
        are_seen: Whether its tables are those that its views show.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(drop_generation("totals", 1, are_seen=True))
    """
    yield from drop_tables(name, generation, are_seen=are_seen)
    while (yield from drop_some(name, generation)):
        continue


def drop_keys(prefix: str) -> Effect[None]:
    """Delete all keys that start with a prefix and have no slash after it: else they are another follower's.

    Args:
        prefix: How the keys start.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(drop_keys("follow-part/totals/1/"))
    """
    after = ""
    while True:
        page = yield from perform(KvKeys(prefix, after, DROPPED_AT_ONCE))
        keys = [key for key in page if "/" not in key[len(prefix) :]]
        if keys:
            yield from perform(Transact(tuple(KvDelete(key) for key in keys)))
        if len(page) < DROPPED_AT_ONCE:
            return
        after = page[-1]
