"""A store on PostgreSQL, in a schema of its own, which any number of processes may have open at once."""

from typing import Any
from urllib.parse import quote, unquote, urlencode

from interpreters.stores.postgres.store import PostgresStore
from persist_effects.errors import InvalidRequest, describe

__all__ = ["PostgresStore", "open_postgres"]

_NUMBERS = {"timeout_seconds": float, "connections": int, "payload_limit_bytes": int}
_OPTIONS = ("schema", "sync", "mode", "clock", "random_bytes", *_NUMBERS)


def open_postgres(rest: str, options: dict[str, Any]) -> PostgresStore:
    """Open what stands behind ``postgresql:`` in a URL, as in ``//app@db.example/app?schema=orders``.

    What is not one of our options goes on to the driver, such as ``sslmode``. Our options may also be given as keywords
    of `open_store`.
    """
    if not rest.startswith("//"):
        raise InvalidRequest(
            "the URL of a store on PostgreSQL begins with postgresql://: write postgresql://USER@HOST/DATABASE?schema=NAME"
        )
    place, _, query = rest.partition("?")
    # Messages show options, and never what stands before the question mark: there may be a password.
    given: dict[str, Any] = {}
    others: list[tuple[str, str]] = []
    # As the driver reads it: a plus is a plus.
    for name, value in (map(unquote, pair.partition("=")[::2]) for pair in query.split("&") if pair):
        if name not in _OPTIONS:
            others.append((name, value))
        elif name in given or name in options:
            raise InvalidRequest(f"the option {name!r} of a store on PostgreSQL is given twice: leave one of them out")
        else:
            given[name] = _read(name, value)
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise InvalidRequest(
            f"a store on PostgreSQL has no option {unknown[0]!r}: it takes {', '.join(_OPTIONS)}; "
            "what its driver takes, stands in the URL"
        )
    conninfo = f"postgresql:{place}" + (f"?{urlencode(others, quote_via=quote)}" if others else "")
    return PostgresStore(conninfo, **given, **options)


def _read(name: str, value: str) -> Any:
    if name in ("clock", "random_bytes"):
        raise InvalidRequest(f"{name} is {describe(value)}: give a function, as a keyword of open_store")
    try:
        return _NUMBERS.get(name, str)(value)
    except ValueError as error:
        raise InvalidRequest(f"{name} is {value!r} in the URL: {error}") from error
