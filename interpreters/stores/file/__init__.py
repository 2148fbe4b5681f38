"""The file store: a log-structured engine over disk effects, and its host. `FORMAT.md` has the bytes."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

from interpreters.stores.file.store import FileReader, FileStore
from persist_effects.errors import InvalidRequest, describe

__all__ = ["FileReader", "FileStore", "open_file", "options_of_url"]

_OPTIONS = ("sync", "interval_seconds", "segment_bytes", "clock", "payload_limit_bytes", "permissions")
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "interval_seconds": float,
    "segment_bytes": int,
    "payload_limit_bytes": int,
    "permissions": lambda text: int(text, 8),
}


_ESCAPED = re.compile("%[0-9A-Fa-f]{2}")
_ELSE = "write it as an option, percent-encoded: 'file:?path=…', or give it as a keyword: open_store('file:', path=…)"


def open_file(rest: str, options: dict[str, Any]) -> FileStore | FileReader:
    """Open what stands behind ``file:`` in a URL: a path and options, as in ``var/orders?sync=os&segment_bytes=65536``.

    ``mode=r`` reads along with another process. Options may also be given as keywords of `open_store`. So may the path,
    ``path``, which is taken as it is there.
    """
    in_url = options_of_url(rest)
    twice = sorted(in_url.keys() & options.keys())
    if twice:
        raise InvalidRequest(f"{twice[0]} is given in the URL 'file:{rest}' and as a keyword: leave one of them out")
    given = {**in_url, **options}
    path = given.pop("path", "")
    if not isinstance(path, str) and not hasattr(path, "__fspath__"):
        raise InvalidRequest(f"path is {describe(path)}: give a str or a Path")
    if not path:
        raise InvalidRequest("'file:' names no directory: write file:PATH")
    mode = given.pop("mode", "w")
    if mode not in ("r", "w"):
        raise InvalidRequest(f"mode is {mode!r}: give r to read only, or w")
    unknown = sorted(given.keys() - set(_OPTIONS))
    if unknown:
        raise InvalidRequest(
            f"a file store has no option {unknown[0]!r}: it takes mode, {', '.join(_OPTIONS)}, path{_if_in_path(rest)}"
        )
    if mode == "w":
        return FileStore(path, **given)
    if given:
        raise InvalidRequest(f"option {min(given)!r} is for writing, and mode=r was given: leave one of them out")
    return FileReader(path)


def options_of_url(rest: str) -> dict[str, Any]:
    """What stands behind ``file:`` in a URL, as options of the file store, of which ``path`` is one if it is there.

    Raises `InvalidRequest` for what cannot be read, and for a path that is likely meant to be another.

    >>> options_of_url("var/orders?sync=os"), options_of_url("?path=var/what%3F")
    ({'path': 'var/orders', 'sync': 'os'}, {'path': 'var/what?'})
    """
    path, _, query = rest.partition("?")
    given = _options_in(query, rest)
    if not path:
        return given
    if "path" in given:
        raise InvalidRequest(f"the URL 'file:{rest}' has two paths: leave one of them out")
    _check_plain(path)
    return {"path": path, **given}


def _check_plain(path: str) -> None:
    """Refuse a path that stands in a URL as it is, and likely means another than the one that it would be."""
    if path != path.strip() or not path.replace("\0", "").isprintable():
        raise InvalidRequest(
            f"the path {path!r} has white space at an end, or a character that is not printable: mend it, or {_ELSE}"
        )
    if path.startswith("//") and not path.startswith("///"):
        relative = path.lstrip("/")
        raise InvalidRequest(
            f"'file:{path}' names a host, and there is none: write 'file:{relative}' for a directory below this "
            f"one, or 'file:/{relative}'"
        )
    if path.startswith("///") and _ESCAPED.search(path):
        raise InvalidRequest(
            f"'file:{path}' looks percent-encoded, and a path is taken as it stands: write 'file:{unquote(path[2:])}', "
            f"or for a name with the % in it 'file:{path[2:]}'"
        )


def _options_in(query: str, rest: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        given = {name: _NUMBERS.get(name, str)(value) for name, value in pairs}
    except ValueError as error:
        raise InvalidRequest(
            f"the options {query!r} of a URL cannot be read: {error}: write name=value&…{_if_in_path(rest)}"
        ) from error
    for name in given:
        if sum(name == other for other, _ in pairs) > 1:
            raise InvalidRequest(f"the option {name!r} is given twice in the URL 'file:{rest}': leave one of them out")
    return given


def _if_in_path(rest: str) -> str:
    return f". Where the ? belongs to the path, {_ELSE}" if "?" in rest else ""
