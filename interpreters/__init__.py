"""Interpreters answer the requests of programs: stores, blob stores, and what drives and tests them."""

from typing import TYPE_CHECKING, Any

from interpreters.never_run import watch_if_asked

if TYPE_CHECKING:
    from interpreters.opening import open_store
    from interpreters.runtime.store import Store

__all__ = ["Store", "open_store"]


def __getattr__(name: str) -> Any:
    # Loaded when it is used: the plugin for pytest is imported in each project of an environment.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interpreters import opening

    return getattr(opening, name)


watch_if_asked()
