"""Read models: keys that a follower fills, named through a handle, so that nobody spells versions.

What a handler writes goes into the generation that is being built; readers ask the one that is whole. When a generation
has caught up it takes the place of the one before in one transaction, and the keys of that one are deleted.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from persist_effects import kv
from persist_effects.errors import InvalidRequest
from persist_effects.event import check_name
from persist_effects.following.checkpoint import head_of
from persist_effects.following.records import model_prefix
from persist_effects.following.tables import ModelTables
from persist_effects.machine import Effect
from persist_effects.programs import program
from persist_effects.requests import Entry, KvDelete, KvPut

A = TypeVar("A")


class ModelHandle(Protocol):
    """The handle of a read model, as following knows it: what belongs to each generation.

    What is there of one that is gone is deleted without the handle, by `persist_effects.following.dropping`.
    """

    name: str

    @property
    def tables(self) -> ModelTables | None:
        """Those that each generation has; None: it has keys, which need no making."""
        ...

    def version(self, generation: int) -> Any:
        """What the handler is given: it makes the writes."""
        ...


def check_model_name(name: str) -> None:
    """Refuse what cannot be a read model's name: one with a slash could not be told from keys.

    >>> check_model_name("totals")
    """
    check_name("read model's name", name)
    if "/" in name:
        raise InvalidRequest(f"read model's name {name!r} has a slash: it is part of keys, so give one without")


class ReadModel:
    """The handle of a read model: the keys that the follower of this name fills. Pure data; make it where you like.

    Given to `persist_effects.subscription.follow` as the name, it has the handler called with the event and with a
    `ModelVersion`, whose ``put`` and ``delete`` make the writes. Readers ask the handle: they see the newest version
    that has caught up, and go on seeing it while another is built. Where none has, the first is seen as it grows.

    Raises `InvalidRequest` for a name with a slash: such names could not be told from keys.

    >>> from interpreters import open_store
    >>> from persist_effects import follow, log
    >>> totals = ReadModel("totals")
    >>> def add(event, totals):
    ...     before = yield from totals.get_or(event.stream, 0)
    ...     return [totals.put(event.stream, before + event.data)]
    >>> store = open_store("memory:")
    >>> for amount in (5, 7):
    ...     _ = store.run(log.append("orders/1", "placed", amount))
    >>> _ = store.run(follow(totals, "orders/", add))
    >>> store.run(totals.get("orders/1"))
    12
    >>> _ = store.run(follow(totals, "orders/", lambda event, totals: [totals.put("newest", event.data)], version=2))
    >>> store.run(totals.keys())
    ['newest']
    """

    tables: ModelTables | None = None
    """It has none: what a generation has are keys, which need no making."""

    def __init__(self, name: str) -> None:
        check_model_name(name)
        self.name = name

    def __repr__(self) -> str:
        return f"ReadModel({self.name!r})"

    def version(self, generation: int) -> "ModelVersion":
        """What the handler is given: the keys of a generation."""
        return ModelVersion(self.name, generation)

    @program
    def get(self, key: str) -> Effect[Any]:
        """The value under a key; None where there is none."""
        return (yield from self.get_or(key, None))

    @program
    def get_or(self, key: str, default: A) -> Effect[Any | A]:
        """The value under a key; the default where there is none."""
        found = yield from self.entry(key)
        return default if found is None else found.value

    @program
    def has(self, key: str) -> Effect[bool]:
        """Whether there is a value under a key."""
        return (yield from self.entry(key)) is not None

    @program
    def entry(self, key: str) -> Effect[Entry | None]:
        """The value under a key and its revision; None where there is none."""
        # What is there was put by a version that was whole. Only what is not may have gone with that version.
        return (yield from self._asked(lambda model: model.entry(key), lambda found: found is not None))

    @program
    def keys(self, prefix: str = "") -> Effect[list[str]]:
        """The keys that start with a prefix, sorted by code point."""
        return (yield from self._asked(lambda model: model.keys(prefix)))

    @program
    def entries(self, prefix: str = "") -> Effect[list[tuple[str, Entry]]]:
        """The keys that start with a prefix, with their entries, sorted by code point."""
        return (yield from self._asked(lambda model: model.entries(prefix)))

    def _asked(
        self, ask: Callable[["ModelVersion"], Effect[A]], is_sure: Callable[[A], bool] = lambda _: False
    ) -> Effect[A]:
        """What the version says that is whole, and still is once it was asked: its keys go when another takes over."""
        generation = yield from self._generation()
        while True:
            answer = yield from ask(ModelVersion(self.name, generation))
            if is_sure(answer):
                return answer
            before, generation = generation, (yield from self._generation())
            if generation == before:
                return answer

    def _generation(self) -> Effect[int]:
        found = yield from head_of(self.name)
        return 1 if found is None else found[0].generation


class ModelVersion:
    """A read model as its handler sees it: the version that is being filled.

    >>> ModelVersion("totals", 2).put("orders/1", 12)
    KvPut(key='model/totals/2/orders/1', value=12, expected=None)
    """

    def __init__(self, name: str, generation: int) -> None:
        self._prefix = model_prefix(name, generation)

    def put(self, key: str, value: Any, *, expected: int | None = None) -> KvPut:
        """The write that puts a value under a key, with ``expected`` only if that is its revision."""
        return KvPut(self._prefix + key, value, expected)

    def delete(self, key: str, *, expected: int | None = None) -> KvDelete:
        """The write that deletes a key, with ``expected`` only if that is its revision."""
        return KvDelete(self._prefix + key, expected)

    @program
    def get(self, key: str) -> Effect[Any]:
        """The value under a key; None where there is none."""
        return (yield from kv.get(self._prefix + key))

    @program
    def get_or(self, key: str, default: A) -> Effect[Any | A]:
        """The value under a key; the default where there is none."""
        return (yield from kv.get_or(self._prefix + key, default))

    @program
    def entry(self, key: str) -> Effect[Entry | None]:
        """The value under a key and its revision; None where there is none."""
        return (yield from kv.entry(self._prefix + key))

    @program
    def has(self, key: str) -> Effect[bool]:
        """Whether there is a value under a key."""
        return (yield from kv.has(self._prefix + key))

    @program
    def keys(self, prefix: str = "") -> Effect[list[str]]:
        """The keys that start with a prefix, sorted by code point."""
        start = len(self._prefix)
        return [key[start:] for key in (yield from kv.keys(self._prefix + prefix))]

    @program
    def entries(self, prefix: str = "") -> Effect[list[tuple[str, Entry]]]:
        """The keys that start with a prefix, with their entries, sorted by code point."""
        start = len(self._prefix)
        return [(key[start:], found) for key, found in (yield from kv.entries(self._prefix + prefix))]
