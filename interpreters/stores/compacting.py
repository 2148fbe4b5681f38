"""What a compaction comes to, and how a store is asked for one."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from persist_effects.errors import InvalidRequest

Told = Callable[[int, int], None]
"""Is told how much is done, and how much there is."""


class Compacted(NamedTuple):
    """How many bytes a store took before a compaction, and how many after it; and where else something may be left.

    ``elsewhere`` says so in words: it is not the store's to take away.
    """

    bytes_before: int
    bytes_after: int
    elsewhere: tuple[str, ...] = ()


def compact_store(interpreter: Any, told: Told | None = None) -> Compacted:
    """Have a store give back the space of what was truncated, overwritten and deleted, so that none of it is left.

    Args:
        interpreter: The store's interpreter.
        told: Told how far it has come, where the store says so.

    Returns:
        What it comes to.

    Raises:
        InvalidRequest: If the store has nothing to compact.

    >>> from interpreters import open_store
    >>> compact_store(open_store("memory:").interpreter)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: a MemoryStore cannot be compacted: ...
    """
    compact: Callable[..., Compacted] | None = getattr(interpreter, "compact", None)
    if compact is None:
        raise InvalidRequest(
            f"a {type(interpreter).__name__} cannot be compacted: it has no compact(); "
            "docs/how-to/dropping-streams.md says what each store keeps of what was dropped"
        )
    # Of another package's store it is not known whether it tells how far it has come.
    takes_told = "told" in inspect.signature(compact).parameters
    return compact(told=told) if takes_told else compact()
