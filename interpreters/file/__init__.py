"""The file store: a log-structured engine over disk effects, and its host. `FORMAT.md` has the bytes."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from interpreters.file.store import FileReader, FileStore
from persist_effects.errors import InvalidRequest

__all__ = ["FileReader", "FileStore", "open_file"]

_OPTIONS = ("sync", "interval_seconds", "segment_bytes", "clock", "payload_limit_bytes", "permissions")
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "interval_seconds": float,
    "segment_bytes": int,
    "payload_limit_bytes": int,
    "permissions": lambda text: int(text, 8),
}


def open_file(rest: str, options: dict[str, Any]) -> FileStore | FileReader:
    """Open what stands behind ``file:`` in a URL: a path and options, as in ``var/orders?sync=os&segment_bytes=65536``.

    ``mode=r`` reads along with another process. Options may also be given as keywords of `open_store`.
    """
    path, _, query = rest.partition("?")
    if not path:
        raise InvalidRequest("'file:' names no directory: write file:PATH")
    given = {**_options_in(query), **options}
    mode = given.pop("mode", "w")
    if mode not in ("r", "w"):
        raise InvalidRequest(f"mode is {mode!r}: give r to read only, or w")
    unknown = sorted(given.keys() - set(_OPTIONS))
    if unknown:
        raise InvalidRequest(f"a file store has no option {unknown[0]!r}: it takes mode, {', '.join(_OPTIONS)}")
    if mode == "w":
        return FileStore(path, **given)
    if given:
        raise InvalidRequest(f"option {min(given)!r} is for writing, and mode=r was given: leave one of them out")
    return FileReader(path)


def _options_in(query: str) -> dict[str, Any]:
    try:
        return {name: _NUMBERS.get(name, str)(value) for name, value in parse_qsl(query, strict_parsing=bool(query))}
    except ValueError as error:
        raise InvalidRequest(f"the options {query!r} of a URL cannot be read: {error}: write name=value&…") from error
