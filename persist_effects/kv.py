"""Keys and values. Every function is a program. Values follow the rules of `persist_effects.codec`."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from persist_effects.contexts import leaves_contexts_alone
from persist_effects.listing import all_names
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import (
    PAGE_SIZE,
    Conflict,
    Entry,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    KvWait,
)

V = TypeVar("V")


@program
@leaves_contexts_alone
def get(key: str) -> Effect[Any]:
    """The value under a key. Where None may be stored, use `entry` or `has`.

    Args:
        key: The key.

    Returns:
        The value, None if there is none.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(get("color")) is None
    True
    """
    found = yield from perform(KvGet(key))
    return None if found is None else found.value


@program
@leaves_contexts_alone
def get_or(key: str, default: V) -> Effect[Any | V]:
    """The value under a key, or another one where there is none.

    Args:
        key: The key.
        default: What to return where nothing is under the key.

    Returns:
        The value, or the default.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(get_or("color", "red"))
    'red'
    """
    found = yield from perform(KvGet(key))
    return default if found is None else found.value


@program
@leaves_contexts_alone
def entry(key: str) -> Effect[Entry | None]:
    """The value under a key, with its revision.

    Args:
        key: The key.

    Returns:
        Both, None if there is no value.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(put("color", "red"))
    >>> store.run(entry("color")).value
    'red'
    """
    return (yield from perform(KvGet(key)))


@program
@leaves_contexts_alone
def put(key: str, value: Any) -> Effect[int]:
    """Put a value under a key.

    Args:
        key: The key.
        value: A value that can be stored.

    Returns:
        Its revision, which is higher than any given before.

    Raises:
        InvalidRequest: If the value cannot be stored, before anything is written.
        TooLarge: If it is over the store's limit, likewise.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(put("color", "red")) < store.run(put("color", "blue"))
    True
    """
    revision = yield from perform(KvPut(key, value))
    assert isinstance(revision, int), "a put that expects nothing has no conflict"
    return revision


@program
@leaves_contexts_alone
def put_expect(key: str, revision: int, value: Any) -> Effect[int | Conflict]:
    """Put a value under a key only if a revision is the key's.

    Args:
        key: The key.
        revision: The revision, as the caller knows it; 0: the key must be absent.
        value: A value that can be stored.

    Returns:
        The new revision; or a `Conflict`, with both revisions, where it is another one. Nothing is written then.

    Raises:
        InvalidRequest: If the value cannot be stored, before anything is written.
        TooLarge: If it is over the store's limit, likewise.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(put_expect("color", 7, "red"))
    Conflict(kind='key', name='color', expected=7, actual=0, write=0)
    """
    return (yield from perform(KvPut(key, value, revision)))


@program
@leaves_contexts_alone
def delete(key: str) -> Effect[bool]:
    """Delete a key.

    Args:
        key: The key.

    Returns:
        Whether it was there. If it was, the deletion has taken a revision.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(delete("color"))
    False
    """
    was_there = yield from perform(KvDelete(key))
    assert isinstance(was_there, bool), "a delete that expects nothing has no conflict"
    return was_there


@program
@leaves_contexts_alone
def delete_expect(key: str, revision: int) -> Effect[bool | Conflict]:
    """Delete a key only if a revision is the key's.

    Args:
        key: The key.
        revision: The revision, as the caller knows it; 0: the key must be absent.

    Returns:
        Whether it was there; or a `Conflict`, with both revisions, where it is another one.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> revision = store.run(put("color", "red"))
    >>> store.run(delete_expect("color", 7))
    Conflict(kind='key', name='color', expected=7, actual=1, write=0)
    >>> store.run(delete_expect("color", revision))
    True
    """
    return (yield from perform(KvDelete(key, revision)))


@program
@leaves_contexts_alone
def has(key: str) -> Effect[bool]:
    """Whether there is a value under a key.

    Args:
        key: The key.

    Returns:
        Whether there is.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(has("color"))
    False
    """
    return (yield from perform(KvHas(key)))


@program
def keys(prefix: str = "") -> Effect[list[str]]:
    """All keys that start with a prefix.

    Args:
        prefix: How they start.

    Returns:
        The keys, sorted by code point.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(put("color/b", 1)), store.run(put("color/a", 2)), store.run(put("size", 3))
    >>> store.run(keys("color/"))
    ['color/a', 'color/b']
    """
    return (yield from all_names(KvKeys, prefix))


@program
def entries(prefix: str = "") -> Effect[list[tuple[str, Entry]]]:
    """All keys that start with a prefix, with their values and revisions. They are in memory together.

    Args:
        prefix: How the keys start.

    Returns:
        Pairs of key and `Entry`, sorted by key, by code point. Those of a page, a few hundred, are of one moment.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(put("color/b", 1)), store.run(put("color/a", 2)), store.run(put("size", 3))
    >>> [(key, found.value) for key, found in store.run(entries("color/"))]
    [('color/a', 2), ('color/b', 1)]
    """
    found: list[tuple[str, Entry]] = []
    while True:
        page = yield from perform(KvEntries(prefix, found[-1][0] if found else ""))
        found += page
        if len(page) < PAGE_SIZE:
            return found


@program
@leaves_contexts_alone
def wait(after: int, prefix: str = "", timeout: float = math.inf) -> Effect[int]:
    """Wait until a key that starts with a prefix is put or deleted after a revision.

    Args:
        after: The revision.
        prefix: How the keys start.
        timeout: For how many seconds at the most; without end unless it is given.

    Returns:
        The newest revision under the prefix, also when the time was over before. Whoever goes on from it misses no
        change. It may be too high where the store does not know any more which keys were deleted.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> revision = store.run(put("grants/ada", "read"))
    >>> _ = store.run(delete("grants/ada"))
    >>> store.run(wait(revision, "grants/"))
    2
    """
    return (yield from perform(KvWait(after, prefix, timeout)))


@program
def update(key: str, fn: Callable[[Any], V], default: Any = None) -> Effect[V]:
    """Put what a function makes of the value under a key in its place.

    Args:
        key: The key.
        fn: Gives the new value of the old one. It is pure, and applied again where another writer came first.
        default: What it is given where nothing is under the key.

    Returns:
        The new value.

    Raises:
        InvalidRequest: If the new value cannot be stored.
        TooLarge: If it is over the store's limit.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> [store.run(update("visits", lambda n: n + 1, 0)) for _ in range(3)]
    [1, 2, 3]
    """
    while True:
        found = yield from perform(KvGet(key))
        value = fn(default if found is None else found.value)
        revision = yield from perform(KvPut(key, value, 0 if found is None else found.revision))
        if not isinstance(revision, Conflict):
            return value
