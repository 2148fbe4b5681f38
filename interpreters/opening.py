"""`open_store(url)`: a URL to an open store. What drives programs and what answers them meet here.

The schemes of other packages' stores are entry points of the group `STORES`, each named as its scheme. It stands for a
function of what follows the colon and of the options, which returns an interpreter:

    [project.entry-points."persist_effects.stores"]
    mystore = "my_package:open_my_store"          # def open_my_store(rest: str, options: dict[str, Any]) -> Interpreter
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from interpreters.blobs.urls import open_blobs
from interpreters.runtime.interpreter import Interpreter, check_blobs, check_interpreter, checked_effects
from interpreters.runtime.store import Store
from interpreters.stores.memory import MemoryStore
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from interpreters.explore.crashes.crash_store import CrashStore


@overload
def open_store(
    url: Literal["crash:"], *, effects: Handlers | None = None, blobs: Interpreter | str | None = None, **options: Any
) -> "CrashStore": ...


@overload
def open_store(
    url: str, *, effects: Handlers | None = None, blobs: Interpreter | str | None = None, **options: Any
) -> Store: ...


def open_store(
    url: str, *, effects: Handlers | None = None, blobs: Interpreter | str | None = None, **options: Any
) -> Store:
    """Open the store that a URL names. Close it, or use it in a ``with`` block.

    ``memory:`` is a new, empty store in this process; its options are ``clock`` (a function that gives microseconds
    since 1970, UTC), ``random_bytes`` (one that gives as many as it is asked for) and ``payload_limit_bytes``.
    ``crash:`` is a new, empty `CrashStore` for tests, of files on a disk in memory whose plug can be pulled. Other
    packages add schemes by entry points of the group ``persist_effects.stores``.

    Args:
        url: The URL.
        effects: Rows for your own requests: from their types to functions of one request.
        blobs: A blob store, or the URL of one: ``dir:PATH``, ``ipfs:http://HOST:PORT``,
            ``nats://HOST:PORT/BUCKET`` or ``memory:``. Unless given, a memory store keeps blobs in memory, and
            ``file:`` and ``sqlite:`` stores in a directory beside them.
        options: Those of the store, as they may also stand in its URL.

    Returns:
        The open store.

    Raises:
        InvalidRequest: If the URL names no store, or an option is wrong; if a package's store cannot be had.
        StoreUnavailable: If it cannot be opened now. `StoreLocked` is one.
        CorruptStore: If it is damaged.

    >>> from persist_effects import log
    >>> with open_store("memory:") as store:
    ...     store.run(log.append("orders/1", "placed", {"total": 12})).seq
    1
    """
    if type(url) is not str:
        advice = "f'file:{path}', or open_store('file:', path=path)" if isinstance(url, os.PathLike) else "'memory:'"
        raise InvalidRequest(f"a store's URL is {describe(url)}: give a str, such as {advice}")
    scheme, colon, rest = url.partition(":")
    opener = _OPENERS.get(scheme) or _registered(scheme) if colon else None
    if opener is None:
        known = ", ".join(f"{name}:" for name in [*_OPENERS, *_other_schemes()])
        advice = "" if colon else f". For a directory, write {f'file:{url}'!r}"
        raise InvalidRequest(f"{url!r} names no store: a store's URL starts with one of {known}{advice}")
    # Before anything is opened, which nobody could close then.
    checked_effects(effects)
    home = _opened_blobs(blobs)
    opened: list[Interpreter] = [] if home is None or home is blobs else [home]
    try:
        opened.append(opener(rest, options))
        return _store_of(scheme)(opened[-1], effects=effects, blobs=home)
    except BaseException:
        # An interrupt too: nobody could close them any more.
        for each in reversed(opened):
            each.close()
        raise


def _store_of(scheme: str) -> Callable[..., Store]:
    """What runs programs on what was opened."""
    if scheme != "crash":
        return Store
    from interpreters.explore.crashes.crash_store import CrashStore

    return CrashStore


def _opened_blobs(blobs: Interpreter | str | None) -> Interpreter | None:
    if isinstance(blobs, str):
        return open_blobs(blobs)
    if blobs is not None:
        check_blobs(blobs)
    return blobs


_OF_MEMORY = ("clock", "random_bytes", "payload_limit_bytes")


def _open_memory(rest: str, options: dict[str, Any]) -> Interpreter:
    if rest:
        raise InvalidRequest(f"'memory:{rest}' names no store: write 'memory:', a memory store has no path")
    unknown = options.keys() - set(_OF_MEMORY)
    if unknown:
        raise InvalidRequest(f"a memory store has no option {min(unknown)!r}: it takes {', '.join(_OF_MEMORY)}")
    return MemoryStore(**options)


def _open_file(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: it needs a system with file locks.
    from interpreters.stores.file import BLOBS, file_options, open_file

    given = file_options(rest, options)
    if given.pop("share", "no") == "no":
        return open_file(**given)
    from interpreters.stores.served.sharing import open_shared

    given.pop("mode", None)
    return open_shared(**given, blobs=BLOBS)


def _open_crash(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: it is for tests.
    from interpreters.explore.crashes.crash_files import CrashFiles, crash_options

    return CrashFiles(crash_options(rest, options))


def _open_sqlite(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: not every Python has sqlite3.
    from interpreters.stores.sqlite import open_sqlite

    return open_sqlite(rest, options)


def _open_postgres(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: it needs its driver.
    try:
        from interpreters.stores.postgres import open_postgres
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "a store on PostgreSQL needs the package psycopg, of the extra `postgres`: pip install 'psycopg[binary]'"
        ) from error

    return open_postgres(rest, options)


def _open_nats(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: it needs its driver.
    try:
        from interpreters.stores.nats import open_nats
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "a store on NATS needs the package nats-py, of the extra `nats`: pip install nats-py"
        ) from error

    return open_nats(rest, options)


def _open_unix(rest: str, options: dict[str, Any]) -> Interpreter:
    # Imported when it is used: the other stores need neither sockets nor TLS.
    from interpreters.stores.served.opening import open_unix

    return open_unix(rest, options)


def _open_tcp(rest: str, options: dict[str, Any]) -> Interpreter:
    from interpreters.stores.served.opening import open_tcp

    return open_tcp(rest, options)


def _open_spawned(rest: str, options: dict[str, Any]) -> Interpreter:
    from interpreters.stores.served.client import RemoteStore

    return RemoteStore.spawn(rest, **options)


Opener = Callable[[str, dict[str, Any]], Interpreter]
"""Opens what stands behind the colon of a URL, with the options that were given as keywords."""

STORES = "persist_effects.stores"
"""The group of entry points by which other packages register their schemes."""

_OPENERS: dict[str, Opener] = {
    "memory": _open_memory,
    "file": _open_file,
    "sqlite": _open_sqlite,
    "postgresql": _open_postgres,
    "nats": _open_nats,
    "unix": _open_unix,
    "tcp": _open_tcp,
    "spawn": _open_spawned,
    "crash": _open_crash,
}


def _entry_points() -> "list[EntryPoint]":
    # Imported when a scheme is asked that is not ours: it reads what is installed, which takes a while.
    from importlib.metadata import entry_points

    return list(entry_points(group=STORES))


def _other_schemes() -> list[str]:
    return sorted({entry.name for entry in _entry_points()} - _OPENERS.keys())


def _registered(scheme: str) -> Opener | None:
    """The opener that another package has registered for a scheme, checked, or None where there is none."""
    # One package may be found twice, installed and beside it in editing; then both say the same.
    found = {entry.value: entry for entry in _entry_points() if entry.name == scheme}
    if not found:
        return None
    if len(found) > 1:
        packages = " and ".join(sorted(map(_described, found.values())))
        raise InvalidRequest(f"{scheme}: is the scheme of two stores, {packages}: uninstall one of the packages")
    (entry,) = found.values()
    try:
        opener: Any = entry.load()
    except Exception as error:
        raise InvalidRequest(
            f"{scheme}: is the scheme of {_described(entry)}, which cannot be loaded: {type(error).__name__}: {error}: "
            "install what it needs, or mend the entry point"
        ) from error
    if not callable(opener):
        raise InvalidRequest(
            f"{scheme}: is the scheme of {_described(entry)}, which is {describe(opener)}: let the entry point name a "
            "function of (rest, options) that returns an interpreter"
        )

    def open_registered(rest: str, options: dict[str, Any]) -> Interpreter:
        interpreter = cast(Opener, opener)(rest, options)
        check_interpreter(f"what {_described(entry)} opens for {scheme}:", interpreter)
        return interpreter

    return open_registered


def _described(entry: "EntryPoint") -> str:
    return f"{entry.value} of {entry.dist.name if entry.dist else 'an unknown package'}"
