"""The stream of a store: made where it is not there, and looked at where it is.

A stream that would lose something, or cannot keep a promise, is refused in words before anything is written to it.
"""

import asyncio
import time
from typing import Any

from interpreters.nats.connection import Denied, Unanswered
from interpreters.stores.nats.jetstream import JetStream, Refused
from persist_effects.errors import InvalidRequest, StoreUnavailable

LEAST_VERSION = (2, 12)
"""The first servers that write several messages all or none."""

NO_STREAM = 10059
NO_JETSTREAM = frozenset({10039, 10076})
NOT_ENOUGH_SERVERS = frozenset({10005, 10074})

_NEEDED = {"allow_direct": True, "allow_atomic": True, "allow_rollup_hdrs": True, "allow_msg_ttl": True}
_UNLIMITED = (None, 0, -1)
_LOSES = {
    "max_msgs": "would drop the oldest messages",
    "max_bytes": "would drop the oldest messages, or refuse new ones",
    "max_age": "would drop what is old",
    "max_msgs_per_subject": "would cut streams",
}
_DUPLICATE_WINDOW_NS = 120_000_000_000

PATIENCE_SECONDS = 10.0
"""How long servers may take that have just begun, or lost who leads them: they agree upon another within that."""

_AGAIN_SECONDS = 0.1
_UNAVAILABLE = 503


def check_version(version: tuple[int, int, str], where: str) -> None:
    """Refuse servers that are too old.

    Args:
        version: The first two numbers of the server's, and how it is told.
        where: What messages call the server.
    """
    if version[:2] < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise StoreUnavailable(
            f"{where} is nats-server {version[2]}, which cannot write several messages all or none: use {least} or a "
            "newer one"
        )


async def make_stream(
    stream: JetStream, subjects: str, replicas: int | None, patience_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """Have a stream as a store needs it.

    Args:
        stream: The stream, which may not be there yet.
        subjects: The filter of all its subjects.
        replicas: On how many servers it is to be; None: as it is, or on one.
        patience_seconds: For how long it is tried where nobody leads it.

    Returns:
        What JetStream tells of it.

    Raises:
        InvalidRequest: If it is there with settings that do not fit.
        StoreUnavailable: If it cannot be had.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            found = await _found(stream)
            if found is None:
                return await _create(stream, subjects, replicas or 1)
            await _adapt(stream, found["config"], subjects, replicas)
            return found
        except Denied as denied:
            raise StoreUnavailable(f"the stream {stream.stream!r} cannot be had: {denied}") from denied
        except Unanswered as unanswered:
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"JetStream does not answer: {unanswered}: is it enabled there?") from unanswered
        except Refused as refused:
            is_over = refused.code in NO_JETSTREAM or not (refused.status == _UNAVAILABLE or "offline" in str(refused))
            if is_over or time.monotonic() > deadline:
                raise _told(stream.stream, refused) from refused
        await asyncio.sleep(_AGAIN_SECONDS)


async def _found(stream: JetStream) -> dict[str, Any] | None:
    try:
        return await stream.api(f"STREAM.INFO.{stream.stream}")
    except Refused as refused:
        if refused.code == NO_STREAM:
            return None
        raise


async def _create(stream: JetStream, subjects: str, replicas: int) -> dict[str, Any]:
    return await stream.api(
        f"STREAM.CREATE.{stream.stream}",
        {
            "name": stream.stream,
            "subjects": [subjects],
            "storage": "file",
            "num_replicas": replicas,
            "retention": "limits",
            "discard": "new",
            "duplicate_window": _DUPLICATE_WINDOW_NS,
            **_NEEDED,
        },
    )


async def _adapt(stream: JetStream, found: dict[str, Any], subjects: str, replicas: int | None) -> None:
    name = stream.stream
    if found.get("subjects") != [subjects]:
        raise InvalidRequest(
            f"the stream {name!r} is there with the subjects {found.get('subjects')}, and a store has {[subjects]}: "
            "give the store another name"
        )
    for setting, harm in _LOSES.items():
        if found.get(setting) not in _UNLIMITED:
            raise InvalidRequest(
                f"the stream {name!r} is there with {setting}={found[setting]}, which {harm}: set it to -1, or give "
                "the store another name"
            )
    for setting, wanted in (("retention", "limits"), ("storage", "file")):
        if found.get(setting) != wanted:
            raise InvalidRequest(
                f"the stream {name!r} is there with {setting}={found.get(setting)}, and a store needs {wanted}: give "
                "the store another name"
            )
    if replicas is not None and found.get("num_replicas") != replicas:
        raise InvalidRequest(
            f"the stream {name!r} is kept on {found.get('num_replicas')} servers, and replicas={replicas} was given: "
            f"leave it out, or change it by `nats stream edit {name} --replicas {replicas}`"
        )
    missing = {setting: wanted for setting, wanted in _NEEDED.items() if found.get(setting) != wanted}
    if missing:
        await stream.api(f"STREAM.UPDATE.{name}", {**found, **missing})


def _told(name: str, refused: Refused) -> StoreUnavailable:
    if refused.code in NO_JETSTREAM:
        return StoreUnavailable(f"JetStream is not enabled there, or not for this account: {refused}")
    if refused.code in NOT_ENOUGH_SERVERS:
        return StoreUnavailable(f"there are too few servers for the stream {name!r}: {refused}: give fewer replicas")
    return StoreUnavailable(f"the stream {name!r} cannot be had: {refused}")


def peers_of(info: dict[str, Any]) -> dict[str, str]:
    """The servers on which a stream is, by their names, and how each of them is.

    >>> peers_of({"cluster": {"leader": "n0", "replicas": [{"name": "n1", "current": True}]}})
    {'n0': 'leads', 'n1': 'has all of it'}
    """
    cluster = info.get("cluster") or {}
    states = {
        str(one["name"]): "offline" if one.get("offline") else "has all of it" if one.get("current") else "lags behind"
        for one in cluster.get("replicas") or []
    }
    leader = cluster.get("leader")
    return {**({str(leader): "leads"} if leader else {}), **states}
