"""The file store: a log-structured engine over disk effects, and its host. `FORMAT.md` has the bytes."""

from typing import Any

from interpreters.stores.file.store import FileReader, FileStore
from interpreters.stores.urls import Numbers, if_in_path, options_given
from persist_effects.errors import InvalidRequest

__all__ = ["NUMBERS", "FileReader", "FileStore", "open_file"]

_OPTIONS = ("sync", "interval_seconds", "segment_bytes", "clock", "payload_limit_bytes", "permissions", "cache_bytes")
NUMBERS: Numbers = {
    "interval_seconds": float,
    "segment_bytes": int,
    "payload_limit_bytes": int,
    "cache_bytes": int,
    "permissions": lambda text: int(text, 8),
}


def open_file(rest: str, options: dict[str, Any]) -> FileStore | FileReader:
    """Open what stands behind ``file:`` in a URL: a path and options, as in ``var/orders?sync=os&segment_bytes=65536``.

    ``mode=r`` reads along with another process. Options may also be given as keywords of `open_store`. So may the path,
    ``path``, which is taken as it is there.
    """
    given = options_given("file", rest, options, NUMBERS)
    path = given.pop("path", "")
    if not path:
        raise InvalidRequest("'file:' names no directory: write file:PATH")
    mode = given.pop("mode", "w")
    if mode not in ("r", "w"):
        raise InvalidRequest(f"mode is {mode!r}: give r to read only, or w")
    unknown = sorted(given.keys() - set(_OPTIONS))
    if unknown:
        raise InvalidRequest(
            f"a file store has no option {unknown[0]!r}: it takes mode, {', '.join(_OPTIONS)}, "
            f"path{if_in_path('file', rest)}"
        )
    if mode == "w":
        return FileStore(path, **given)
    if given:
        raise InvalidRequest(f"option {min(given)!r} is for writing, and mode=r was given: leave one of them out")
    return FileReader(path)
