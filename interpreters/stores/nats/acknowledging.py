"""What an acknowledgement means on some servers: whether each has synced what it says it has.

A client cannot tell: servers say so only at their monitoring ports. What nobody could be asked about is not promised.
"""

import json
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from persist_effects.capabilities import Durability

MONITOR_SECONDS = 2.0
"""How long a monitoring port may take."""


class Acknowledgement(NamedTuple):
    """What it outlives, and the same in words."""

    durability: Durability
    meaning: str


def acknowledgement_of(peers: Iterable[str], monitors: Sequence[str]) -> Acknowledgement:
    """Ask servers whether they sync what they acknowledge.

    Args:
        peers: The names of the servers on which a stream is.
        monitors: Where their monitoring ports are, as ``http://host:8222``.

    Returns:
        What an acknowledgement means.

    >>> acknowledgement_of({"n0"}, []).durability
    'os'
    """
    found = dict(filter(None, map(_synced, monitors)))
    names = sorted(peers)
    unknown = [name for name in names if name not in found]
    if not monitors:
        unsaid = "and where nobody has said where to ask (monitor=http://HOST:8222,…), that is not known"
        return Acknowledgement("os", f"{_OUTLIVES_PROCESSES}, unless each server syncs each write, {unsaid}")
    if unknown:
        return Acknowledgement("os", f"{_OUTLIVES_PROCESSES}: of {', '.join(unknown)} it is not known whether it syncs")
    lazy = [name for name in names if not found[name]]
    if lazy:
        return Acknowledgement("os", f"{_OUTLIVES_PROCESSES}: {', '.join(lazy)} writes to its disk every now and then")
    return Acknowledgement("commit", f"a majority of {', '.join(names)} has it on its disk")


_OUTLIVES_PROCESSES = "a majority has it, and it outlives killed processes and not a loss of power at all of them"


def _synced(monitor: str) -> tuple[str, bool] | None:
    """The name of a server, and whether it syncs each write."""
    try:
        with urllib.request.urlopen(f"{monitor}/varz", timeout=MONITOR_SECONDS) as answer:  # noqa: S310 - it was checked
            told: dict[str, Any] = json.load(answer)
    except (OSError, ValueError):
        return None
    settings = told.get("jetstream", {}).get("config") or {}
    return str(told.get("server_name")), settings.get("sync_always") is True
