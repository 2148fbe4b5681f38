"""Requests of a disk that users wrote, checked where they are answered, alike on a real disk and a simulated one.

The engine of the file store asks without this: its requests are many, and its own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from interpreters.disk import requests as disk
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers
from persist_effects.requests import Request

_MAY_BE_ROOT = (disk.List, disk.SyncDirectory)


def checked_disk_rows(rows: Handlers) -> Handlers:
    """The same rows, before which each request is checked.

    Args:
        rows: Those of a disk.

    Returns:
        Rows that raise `InvalidRequest` where a request makes no sense, or leads out of the disk's directory.

    >>> from persist_effects import perform, run
    >>> run(perform(disk.Create("../note")), checked_disk_rows({disk.Create: print}))
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: disk/create: the path '../note' leads out of the disk's directory, or is ...
    """
    return {kind: partial(_checked, row) for kind, row in rows.items()}


def _checked(row: Callable[[Any], Any], request: Request[Any]) -> Any:
    for name in request.__struct_fields__:
        check, wanted = _CHECKS[name]
        value = getattr(request, name)
        if not check(value):
            raise InvalidRequest(f"{request.op}: {name} is {describe(value)}: give {wanted}")
        if check is _is_text and name != "holder":
            _check_path(request, value)
    return row(request)


def _check_path(request: Request[Any], path: str) -> None:
    if path in {"", "."}:
        if not isinstance(request, _MAY_BE_ROOT):
            raise InvalidRequest(f"{request.op}: the path {path!r} is the disk's own directory: give that of a file")
    elif not {"", ".", ".."}.isdisjoint(path.split("/")) or "\0" in path:
        raise InvalidRequest(
            f"{request.op}: the path {path!r} leads out of the disk's directory, or is written in another way than "
            "'notes/1.txt': give it relative, without empty, '.' and '..' parts"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _are_counts(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_count, value))


_PATH = _is_text, "a str, relative to the disk's directory"
_COUNT = _is_count, "an int from 0 on"

_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "path": _PATH,
    "source": _PATH,
    "target": _PATH,
    "offset": _COUNT,
    "size_bytes": _COUNT,
    "offsets": (_are_counts, "a tuple of ints from 0 on"),
    "data": (_is_bytes, "bytes, such as text.encode()"),
    "holder": (_is_text, "a str"),
}
