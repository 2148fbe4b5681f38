"""Keys and values. Every function is a program. Values follow the rules of `persist_effects.codec`.

A value may be read as a type, ``get("profile/7", type=Profile)``, which checks and converts it. A `Cell` knows its key
and its type, and writes typed values too.
"""

import math
from collections.abc import Callable
from types import UnionType
from typing import Any, Generic, TypeVar, cast, overload

from persist_effects.contexts import leaves_contexts_alone
from persist_effects.errors import name_of_type
from persist_effects.key_template import KeyTemplate
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
from persist_effects.typed_values import check_type, value_as, value_to_put

V = TypeVar("V")
D = TypeVar("D")


@overload
def get(key: str) -> Effect[Any]: ...
@overload
def get(key: str, *, type: type[V]) -> Effect[V | None]: ...
@overload
def get(key: str, *, type: UnionType) -> Effect[Any]: ...
@program
@leaves_contexts_alone
def get(key: str, *, type: Any = None) -> Effect[Any]:
    """The value under a key. Where None may be stored, use `entry` or `has`.

    Args:
        key: The key.
        type: What to read it as, a class or another type that msgspec converts to. Unless it is given, the value is
            as it was stored, and Any to type checkers.

    Returns:
        The value, None if there is none.

    Raises:
        ValueMismatch: If the value is not one of the type. It names key, type and what was found.
        InvalidRequest: If the type is none that values are read as, before anything is asked.

    >>> import msgspec
    >>> from interpreters import open_store
    >>> class Profile(msgspec.Struct):
    ...     name: str
    >>> store = open_store("memory:")
    >>> store.run(get("profile/7")) is None
    True
    >>> _ = store.run(put("profile/7", Profile("Ada")))
    >>> store.run(get("profile/7")), store.run(get("profile/7", type=Profile))
    ({'name': 'Ada'}, Profile(name='Ada'))
    """
    if type is not None:
        check_type(type)
    found = yield from perform(KvGet(key))
    if found is None:
        return None
    return found.value if type is None else value_as(key, found.value, type)


@overload
def get_or(key: str, default: D) -> Effect[Any | D]: ...
@overload
def get_or(key: str, default: D, *, type: type[V]) -> Effect[V | D]: ...
@overload
def get_or(key: str, default: D, *, type: UnionType) -> Effect[Any | D]: ...
@program
@leaves_contexts_alone
def get_or(key: str, default: Any, *, type: Any = None) -> Effect[Any]:
    """The value under a key, or another one where there is none.

    Args:
        key: The key.
        default: What to return where nothing is under the key.
        type: What to read the value as, as `get` takes it.

    Returns:
        The value, or the default.

    Raises:
        ValueMismatch: If the value is not one of the type.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(get_or("color", "red"))
    'red'
    """
    if type is not None:
        check_type(type)
    found = yield from perform(KvGet(key))
    if found is None:
        return default
    return found.value if type is None else value_as(key, found.value, type)


@overload
def entry(key: str) -> Effect[Entry | None]: ...
@overload
def entry(key: str, *, type: type[V]) -> Effect[Entry[V] | None]: ...
@overload
def entry(key: str, *, type: UnionType) -> Effect[Entry | None]: ...
@program
@leaves_contexts_alone
def entry(key: str, *, type: Any = None) -> Effect[Any]:
    """The value under a key, with its revision.

    Args:
        key: The key.
        type: What to read the value as, as `get` takes it.

    Returns:
        Both, None if there is no value.

    Raises:
        ValueMismatch: If the value is not one of the type.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(put("color", "red"))
    >>> store.run(entry("color")).value
    'red'
    """
    if type is not None:
        check_type(type)
    found = yield from perform(KvGet(key))
    return found if found is None or type is None else _entry_as(key, found, type)


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


@overload
def entries(prefix: str = "") -> Effect[list[tuple[str, Entry]]]: ...
@overload
def entries(prefix: str = "", *, type: type[V]) -> Effect[list[tuple[str, Entry[V]]]]: ...
@overload
def entries(prefix: str = "", *, type: UnionType) -> Effect[list[tuple[str, Entry]]]: ...
@program
def entries(prefix: str = "", *, type: Any = None) -> Effect[Any]:
    """All keys that start with a prefix, with their values and revisions. They are in memory together.

    Args:
        prefix: How the keys start.
        type: What to read each value as, as `get` takes it.

    Returns:
        Pairs of key and `Entry`, sorted by key, by code point. Those of a page, a few hundred, are of one moment.

    Raises:
        ValueMismatch: If one of the values is not one of the type.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(put("color/b", 1)), store.run(put("color/a", 2)), store.run(put("size", 3))
    >>> [(key, found.value) for key, found in store.run(entries("color/"))]
    [('color/a', 2), ('color/b', 1)]
    """
    if type is not None:
        check_type(type)
    found: list[tuple[str, Entry]] = []
    while True:
        page = yield from perform(KvEntries(prefix, found[-1][0] if found else ""))
        found += page if type is None else [(key, _entry_as(key, one, type)) for key, one in page]
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


@overload
def update(key: str, fn: Callable[[Any], V], default: Any = None) -> Effect[V]: ...
@overload
def update(key: str, fn: Callable[[V | None], V], default: None = None, *, type: type[V]) -> Effect[V]: ...
@overload
def update(key: str, fn: Callable[[V], V], default: V, *, type: type[V]) -> Effect[V]: ...
@program
def update(key: str, fn: Callable[[Any], Any], default: Any = None, *, type: Any = None) -> Effect[Any]:
    """Put what a function makes of the value under a key in its place.

    Args:
        key: The key.
        fn: Gives the new value of the old one. It is pure, and applied again where another writer came first.
        default: What it is given where nothing is under the key.
        type: What to read the old value as, as `get` takes it; the new one is stored as one of it too.

    Returns:
        The new value.

    Raises:
        ValueMismatch: If the old value is not one of the type.
        InvalidRequest: If the new value cannot be stored.
        TooLarge: If it is over the store's limit.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> [store.run(update("visits", lambda n: n + 1, 0)) for _ in range(3)]
    [1, 2, 3]
    """
    if type is not None:
        check_type(type)
    while True:
        found = yield from perform(KvGet(key))
        old = default if found is None else found.value
        value = fn(old if type is None or found is None else value_as(key, old, type))
        plain = value if type is None else value_to_put(key, value, type)
        revision = yield from perform(KvPut(key, plain, 0 if found is None else found.revision))
        if not isinstance(revision, Conflict):
            return value


def _entry_as(key: str, found: Entry, kind: Any) -> Entry:
    return Entry(value_as(key, found.value, kind), found.revision)


class Cell(Generic[V]):
    """A key, or one for each of its names, whose value has a type. What it reads is checked, what it writes too.

    The key is a template: each name in braces is given by keyword, a str or an int. A name that is missing, or that
    the template does not have, is refused, and so is a value that would make the key of others, as one with a ``/``
    where a ``/`` follows. Raises `InvalidRequest` for a template or a type that is wrong.

    >>> import msgspec
    >>> from interpreters import open_store
    >>> class Profile(msgspec.Struct, frozen=True):
    ...     name: str
    ...     visits: int = 0
    >>> profiles = Cell("profile/{id}", Profile)
    >>> store = open_store("memory:")
    >>> _ = store.run(profiles.put(Profile("Ada"), id=7))
    >>> def visit(profile):
    ...     return msgspec.structs.replace(profile, visits=profile.visits + 1)
    >>> store.run(profiles.update(visit, Profile("nobody"), id=7))
    Profile(name='Ada', visits=1)
    >>> store.run(profiles.get(id=7)), store.run(get("profile/7"))
    (Profile(name='Ada', visits=1), {'name': 'Ada', 'visits': 1})
    """

    def __init__(self, key: str, type: type[V]) -> None:
        self._template = KeyTemplate(key)
        check_type(type)
        self._type = type

    def __repr__(self) -> str:
        return f"Cell({self._template.text!r}, {name_of_type(self._type)})"

    def key(self, /, **names: str | int) -> str:
        """The key that has these values for its names.

        Args:
            **names: A value for each name of the template.

        Returns:
            The key.

        Raises:
            InvalidRequest: If a name is missing or is not the template's; if a value would make the key of others.

        >>> Cell("stock/{shop}/{sku}", int).key(shop="north", sku="tea")
        'stock/north/tea'
        """
        return self._template.filled(names)

    def get(self, /, **names: str | int) -> Effect[V | None]:
        """The value. Where None may be stored, use `entry` or `has`.

        Args:
            **names: A value for each name of the template.

        Returns:
            The value, None if there is none.

        Raises:
            ValueMismatch: If the value is not one of the type.
        """
        return get(self.key(**names), type=self._type)

    def get_or(self, default: D, /, **names: str | int) -> Effect[V | D]:
        """The value, or another one where there is none.

        Args:
            default: What to return where there is no value.
            **names: A value for each name of the template.

        Returns:
            The value, or the default.

        Raises:
            ValueMismatch: If the value is not one of the type.
        """
        return get_or(self.key(**names), default, type=self._type)

    def entry(self, /, **names: str | int) -> Effect[Entry[V] | None]:
        """The value with its revision.

        Args:
            **names: A value for each name of the template.

        Returns:
            Both, None if there is no value.

        Raises:
            ValueMismatch: If the value is not one of the type.
        """
        return entry(self.key(**names), type=self._type)

    def has(self, /, **names: str | int) -> Effect[bool]:
        """Whether there is a value.

        Args:
            **names: A value for each name of the template.

        Returns:
            Whether there is.
        """
        return has(self.key(**names))

    def put(self, value: V, /, **names: str | int) -> Effect[int]:
        """Put a value.

        Args:
            value: The value. Whatever msgspec converts may be in it, as it is stored by its type.
            **names: A value for each name of the template.

        Returns:
            Its revision, which is higher than any given before.

        Raises:
            InvalidRequest: If the value is not one of the type, or cannot be stored, before anything is written.
            TooLarge: If it is over the store's limit, likewise.
        """
        return put(*self._key_and_plain(value, names))

    def put_expect(self, revision: int, value: V, /, **names: str | int) -> Effect[int | Conflict]:
        """Put a value only if a revision is the key's.

        Args:
            revision: The revision, as the caller knows it; 0: there must be no value.
            value: The value, as `put` takes it.
            **names: A value for each name of the template.

        Returns:
            The new revision; or a `Conflict`, with both revisions, where it is another one. Nothing is written then.

        Raises:
            InvalidRequest: If the value is not one of the type, or cannot be stored, before anything is written.
            TooLarge: If it is over the store's limit, likewise.
        """
        key, plain = self._key_and_plain(value, names)
        return put_expect(key, revision, plain)

    def write(self, value: V, /, **names: str | int) -> KvPut:
        """The put of a value as a write for `persist_effects.transaction.transact`.

        Args:
            value: The value, as `put` takes it.
            **names: A value for each name of the template.

        Returns:
            The request.

        Raises:
            InvalidRequest: If the value is not one of the type.

        >>> Cell("tags/{id}", set[str]).write({"new", "hot"}, id=7)
        KvPut(key='tags/7', value=['hot', 'new'], expected=None)
        """
        return KvPut(*self._key_and_plain(value, names))

    def delete(self, /, **names: str | int) -> Effect[bool]:
        """Delete the value.

        Args:
            **names: A value for each name of the template.

        Returns:
            Whether it was there.
        """
        return delete(self.key(**names))

    def delete_expect(self, revision: int, /, **names: str | int) -> Effect[bool | Conflict]:
        """Delete the value only if a revision is the key's.

        Args:
            revision: The revision, as the caller knows it; 0: there must be no value.
            **names: A value for each name of the template.

        Returns:
            Whether it was there; or a `Conflict`, with both revisions, where it is another one.
        """
        return delete_expect(self.key(**names), revision)

    @overload
    def update(self, fn: Callable[[V], V], default: V, /, **names: str | int) -> Effect[V]: ...
    @overload
    def update(self, fn: Callable[[V | None], V], default: None = None, /, **names: str | int) -> Effect[V]: ...
    def update(self, fn: Callable[[Any], V], default: Any = None, /, **names: str | int) -> Effect[V]:
        """Put what a function makes of the value in its place.

        Args:
            fn: Gives the new value of the old one. It is pure, and applied again where another writer came first.
            default: What it is given where there is no value.
            **names: A value for each name of the template.

        Returns:
            The new value.

        Raises:
            ValueMismatch: If the old value is not one of the type.
            InvalidRequest: If the new one is not, or cannot be stored.
            TooLarge: If it is over the store's limit.
        """
        return update(self.key(**names), fn, default, type=cast(Any, self._type))

    def _key_and_plain(self, value: V, names: dict[str, str | int]) -> tuple[str, Any]:
        key = self.key(**names)
        return key, value_to_put(key, value, self._type)
