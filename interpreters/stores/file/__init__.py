"""The file store: a log-structured engine over disk effects, and its host. `FORMAT.md` has the bytes."""

from typing import Any

from interpreters.stores.file.manifest import BLOBS
from interpreters.stores.file.store import FileReader, FileStore
from interpreters.stores.urls import Numbers, if_in_path, options_given
from persist_effects.errors import InvalidRequest

__all__ = ["BLOBS", "NUMBERS", "FileReader", "FileStore", "file_options", "open_file"]

_OPTIONS = (
    "sync", "interval_seconds", "segment_bytes", "clock", "random_bytes", "payload_limit_bytes", "permissions",
    "cache_bytes",
)  # fmt: skip
_OF_SHARED = ("share", "timeout", "idle_seconds")
NUMBERS: Numbers = {
    "idle_seconds": float,
    "timeout": float,
    "interval_seconds": float,
    "segment_bytes": int,
    "payload_limit_bytes": int,
    "cache_bytes": int,
    "permissions": lambda text: int(text, 8),
}


def file_options(rest: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a file store, from a URL and from keywords, by their names. ``path`` is among them.

    Args:
        rest: What stands behind ``file:``: a path and options, as in ``var/orders?sync=os&segment_bytes=65536``.
        options: Those that were given as keywords. So may ``path`` be, which is taken as it is there.

    Returns:
        Them.

    Raises:
        InvalidRequest: If one cannot be read, or none has its name.

    >>> file_options("var/orders?segment_bytes=65536", {"sync": "os"})
    {'path': 'var/orders', 'segment_bytes': 65536, 'sync': 'os'}
    """
    given = options_given("file", rest, options, NUMBERS)
    if not given.get("path"):
        raise InvalidRequest("'file:' names no directory: write file:PATH")
    unknown = sorted(given.keys() - {"path", "mode", *_OPTIONS, *_OF_SHARED})
    if unknown:
        raise InvalidRequest(
            f"a file store has no option {unknown[0]!r}: it takes mode, {', '.join((*_OPTIONS, *_OF_SHARED))}, "
            f"path{if_in_path('file', rest)}"
        )
    mode, share = given.get("mode", "w"), given.get("share", "no")
    if mode not in ("r", "w"):
        raise InvalidRequest(f"mode is {mode!r}: give r to read only, or w")
    if share not in ("yes", "no"):
        raise InvalidRequest(f"share is {share!r}: give yes to have several processes write, or no")
    if share == "no":
        alone = given.keys() & set(_OF_SHARED) - {"share"}
        if alone:
            raise InvalidRequest(
                f"option {min(alone)!r} is for a store that is shared: give share=yes, or leave it out"
            )
    if mode == "r":
        for_writing = given.keys() - {"path", "mode"}
        if for_writing:
            raise InvalidRequest(
                f"option {min(for_writing)!r} is for writing, and mode=r was given: leave one of them out"
            )
    return given


def open_file(path: Any, *, mode: str = "w", **options: Any) -> FileStore | FileReader:
    """Open a file store that no other process writes, or with ``mode`` "r" read along with the one that does.

    Args:
        path: Its directory, as a str or a Path.
        mode: "w", or "r".
        options: Those of `FileStore`.

    Returns:
        The store.
    """
    return FileReader(path) if mode == "r" else FileStore(path, **options)
