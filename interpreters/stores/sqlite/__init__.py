"""A store on SQLite, in one file that several processes may have open at once."""

from typing import Any

from interpreters.stores.sqlite.store import SqliteStore
from interpreters.stores.urls import Numbers, if_in_path, options_given
from persist_effects.errors import InvalidRequest

__all__ = ["SqliteStore", "open_sqlite"]

_OPTIONS = ("sync", "interval_seconds", "busy_seconds", "mode", "clock", "random_bytes", "payload_limit_bytes")
_NUMBERS: Numbers = {"interval_seconds": float, "busy_seconds": float, "payload_limit_bytes": int}


def open_sqlite(rest: str, options: dict[str, Any]) -> SqliteStore:
    """Open what stands behind ``sqlite:`` in a URL: a path and options, as in ``var/app.db?sync=os``.

    Options may also be given as keywords of `open_store`. So may the path, ``path``, which is taken as it is there.
    """
    given = options_given("sqlite", rest, options, _NUMBERS)
    path = given.pop("path", "")
    if not path:
        raise InvalidRequest("'sqlite:' names no file: write sqlite:PATH")
    unknown = sorted(given.keys() - set(_OPTIONS))
    if unknown:
        raise InvalidRequest(
            f"a store on SQLite has no option {unknown[0]!r}: it takes {', '.join(_OPTIONS)}, "
            f"path{if_in_path('sqlite', rest)}"
        )
    return SqliteStore(path, **given)
