"""`open_store(url)`: a URL to an open store. What drives programs and what answers them meet here."""

import os
from collections.abc import Callable
from typing import Any

from interpreters.runtime.interpreter import Interpreter, check_blobs, checked_effects
from interpreters.runtime.store import Store
from interpreters.stores.memory import MemoryStore
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers


def open_store(url: str, *, effects: Handlers | None = None, blobs: Interpreter | None = None, **options: Any) -> Store:
    """Open the store that a URL names. Close it, or use it in a ``with`` block.

    ``memory:`` is a new, empty store in this process; its options are ``clock`` (a function that gives microseconds
    since 1970, UTC) and ``payload_limit_bytes``. ``effects`` are rows for your own requests, ``blobs`` is a blob store:
    unless given, a memory store has a `MemoryBlobs`, and a file store keeps blobs in its directory. Raises
    `InvalidRequest` for a URL that names no store.

    >>> from persist_effects import log
    >>> with open_store("memory:") as store:
    ...     store.run(log.append("orders/1", "placed", {"total": 12})).seq
    1
    """
    if type(url) is not str:
        advice = "f'file:{path}', or open_store('file:', path=path)" if isinstance(url, os.PathLike) else "'memory:'"
        raise InvalidRequest(f"a store's URL is {describe(url)}: give a str, such as {advice}")
    scheme, colon, rest = url.partition(":")
    opener = _OPENERS.get(scheme) if colon else None
    if opener is None:
        known = ", ".join(f"{name}:" for name in _OPENERS)
        advice = "" if colon else f". For a directory, write {f'file:{url}'!r}"
        raise InvalidRequest(f"{url!r} names no store: a store's URL starts with one of {known}{advice}")
    # Before anything is opened, which nobody could close then.
    checked_effects(effects)
    if blobs is not None:
        check_blobs(blobs)
    interpreter = opener(rest, options)
    try:
        return Store(interpreter, effects=effects, blobs=blobs)
    except BaseException:
        # An interrupt: nobody could close it any more.
        interpreter.close()
        raise


def _open_memory(rest: str, options: dict[str, Any]) -> Interpreter:
    if rest:
        raise InvalidRequest(f"'memory:{rest}' names no store: write 'memory:', a memory store has no path")
    unknown = options.keys() - {"clock", "payload_limit_bytes"}
    if unknown:
        raise InvalidRequest(f"a memory store has no option {min(unknown)!r}: it takes clock and payload_limit_bytes")
    return MemoryStore(**options)


def _open_file(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: it needs a system with file locks.
    from interpreters.stores.file import open_file

    return open_file(rest, options)


_OPENERS: dict[str, Callable[[str, dict[str, Any]], Interpreter]] = {"memory": _open_memory, "file": _open_file}
