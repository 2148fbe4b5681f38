"""A store on a cluster of NATS, in a stream of JetStream, which any number of processes may have open at once."""

import re
from typing import Any

from interpreters.nats.access import ACCESS_OPTIONS, access_of
from interpreters.stores.nats.store import NatsStore
from interpreters.stores.urls import options_given
from persist_effects.errors import InvalidRequest

__all__ = ["NatsStore", "open_nats"]

_NUMBERS = {"replicas": int, "timeout": float, "batch_messages": int, "payload_limit_bytes": int}
_OPTIONS = ("prefix", "monitor", "clock", "random_bytes", *_NUMBERS)
_PLACE = re.compile(r"//(?:([^@/?#]*)@)?([^@/?#]+)/([A-Za-z0-9_-]{1,64})")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}")


def open_nats(rest: str, options: dict[str, Any]) -> NatsStore:
    """Open what stands behind ``nats:`` in a URL, as in ``//host:4222,host2:4222/app?replicas=3``.

    Args:
        rest: The servers, the store's name, and options. A user and a password may stand before the servers, and an @.
        options: The same as keywords.

    Returns:
        The store.

    Raises:
        InvalidRequest: If an option makes no sense, the servers do not let this client in, or the stream of that name
            is of another kind.
        StoreUnavailable: If no server answers, or the stream cannot be had there.
    """
    place, mark, query = rest.partition("?")
    found = _PLACE.fullmatch(place)
    if found is None:
        raise InvalidRequest(
            "the URL of a store on NATS is nats://HOST:PORT,HOST:PORT/NAME, with a name of letters, digits, - and _"
        )
    login, hosts, name = found.groups()
    given = options_given("nats", f"{mark}{query}", options, _NUMBERS)
    unknown = sorted(given.keys() - {*_OPTIONS, *ACCESS_OPTIONS})
    if unknown:
        known = ", ".join((*_OPTIONS, *ACCESS_OPTIONS))
        raise InvalidRequest(f"a store on NATS has no option {unknown[0]!r}: it takes {known}")
    prefix = given.get("prefix", "")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise InvalidRequest(f"prefix is {prefix!r}: give tokens of letters, digits, - and _ with dots between them")
    access = access_of(given, login or "")
    own = {name: value for name, value in given.items() if name in _OPTIONS}
    return NatsStore(hosts.split(","), name, access=access, **own)
