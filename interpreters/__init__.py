"""Interpreters answer the requests of programs: stores, blob stores, and what drives and tests them."""

from interpreters.never_run import watch_if_asked
from interpreters.store import Store, open_store

__all__ = ["Store", "open_store"]

watch_if_asked()
