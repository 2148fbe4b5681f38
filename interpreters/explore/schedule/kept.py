"""One memory store for all orders of a search, which is taken back to what two orders have in common.

A new store for each order, and asking it again what was asked before, takes more than half of the time of a search.
Nobody sees the difference where the function that makes the stores can do nothing else than make an empty one: that is
looked up in its code. All other stores are made anew for each order.
"""

from types import FunctionType
from typing import Any

from interpreters.blobs.memory import MemoryBlobs
from interpreters.clocks import wall_clock
from interpreters.explore.inputs import StoreFactory
from interpreters.explore.schedule.world import Task
from interpreters.explore.virtual import rows_but_of_time
from interpreters.runtime.store import Store
from interpreters.stores.memory import MemoryStore
from interpreters.stores.rewinding import RewindableStore
from persist_effects.machine import Handlers
from persist_effects.requests import (
    Advance,
    Append,
    Appended,
    Begin,
    Conflict,
    Entry,
    KvDelete,
    KvGet,
    KvHas,
    KvPut,
    LastSeq,
    Request,
    TruncateThrough,
)
from persist_effects.rows import is_async_row, is_program_row

_TOLD_AGAIN = frozenset({Advance, Append, Begin, KvDelete, KvGet, KvHas, KvPut, LastSeq, TruncateThrough})
"""The requests of which an answer that cannot change is given again."""

_UNCHANGING = frozenset({bool, bytes, float, int, str, type(None), Appended, Conflict})


class KeptStore:
    """A memory store that is as new at the beginning of each order, or as it was after its first steps."""

    def __init__(self) -> None:
        self._store = RewindableStore(clock=wall_clock)
        self._rows = rows_but_of_time(Store(self._store))
        self.mark = self._store.mark
        self.rewind = self._store.rewind

    def new_rows(self) -> Handlers:
        """The table for an order. Blobs are not taken back, so each order has its own."""
        return {**self._rows, **MemoryBlobs().handlers}


def kept_store(store_factory: StoreFactory) -> KeptStore | None:
    """A store to be kept instead of those that a function makes; None where that could be told apart.

    >>> from interpreters import open_store
    >>> kept_store(lambda: open_store("memory:")) is None, kept_store(lambda: open_store("memory:?")) is None
    (False, True)
    """
    if not _can_only_open_memory(store_factory):
        return None
    store: Any = store_factory()
    try:
        is_plain = type(store) is Store and type(store.interpreter) is MemoryStore and not store.effects
        return KeptStore() if is_plain else None
    finally:
        store.close()


def _can_only_open_memory(store_factory: Any) -> bool:
    """Whether all that a function's code names is `open_store`, which is ours, and ``"memory:"``."""
    if type(store_factory) is not FunctionType or is_program_row(store_factory) or is_async_row(store_factory):
        return False
    code = store_factory.__code__
    if code.co_names != ("open_store",) or code.co_freevars or code.co_varnames:
        return False
    if not all(const in (None, "memory:", store_factory.__doc__) for const in code.co_consts):
        return False
    found: Any = store_factory.__globals__.get("open_store")
    if type(found) is not FunctionType:
        return False
    # By where it was defined, since what wraps it may bear its name.
    return found.__globals__["__name__"] == "interpreters.opening" and found.__code__.co_name == "open_store"


def can_be_told_again(task: Task, request: Request[Any], answer: Any) -> bool:
    """Whether a program that stands at a request may be given this answer of before, and the store not asked.

    Not where it could have changed the answer, or is in the middle of several requests at once.
    """
    if task.frames or type(request) not in _TOLD_AGAIN:
        return False
    return type(answer.value if type(answer) is Entry else answer) in _UNCHANGING
