"""A store's stream as JetStream itself backs it up: one file, which is put back into a cluster that has no such stream.

All numbers come back: positions, revisions and sequence numbers are those of before. The file begins with a line of
JSON, the stream's configuration and state; what follows is JetStream's own, and is read by servers of NATS alone.
"""

import asyncio
import json
import time
from typing import Any, BinaryIO

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError

from persist_effects.errors import CorruptStore, InvalidRequest, StoreUnavailable

CHUNK_BYTES = 128 * 1024
"""How many bytes are sent at once, either way."""

PATIENCE_SECONDS = 30.0
"""How long the servers may take for one step: the last one of putting back takes longer the more there is."""

_LOOK_AGAIN_SECONDS = 0.01

_UNCHANGED = ("messages", "first_seq", "last_seq", "num_deleted")
"""What of a stream's state stays as it is where nothing is written and nothing purged."""

_FORMAT = "persist-effects nats snapshot"


async def save(client: Client, name: str, file: BinaryIO) -> int:
    """Write a store into a file. No program may write to it meanwhile, nor read over all streams, which writes too.

    Of a key that is put while JetStream saves, a snapshot has neither the value before nor the one after.

    Args:
        client: A connection to one of its servers.
        name: The store's name.
        file: A file that is open for writing.

    Returns:
        How many bytes there are.

    Raises:
        StoreUnavailable: If the servers do not give it whole, or something was written meanwhile. The file is to be
            thrown away. Do it again.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
    try:
        asked = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES, "jsck": True}
        begun = await _asked(client, f"$JS.API.STREAM.SNAPSHOT.{name}", asked)
        head = {"format": _FORMAT, "version": 1, "config": begun["config"], "state": begun["state"]}
        size = file.write(json.dumps(head).encode() + b"\n")
        while True:
            try:
                message = await subscription.next_msg(timeout=PATIENCE_SECONDS)
            except TimeoutError as error:
                raise StoreUnavailable(f"the store {name!r} was not given whole: no more came") from error
            if not message.data:
                status = (message.headers or {}).get("Status", "204")
                if status != "204":
                    raise StoreUnavailable(f"the store {name!r} was not given whole: {message.headers}")
                break
            size += file.write(message.data)
            if message.reply:
                # Without it no more come than a few.
                await message.respond(b"")
    finally:
        await subscription.unsubscribe()
    now = (await _asked(client, f"$JS.API.STREAM.INFO.{name}", {}))["state"]
    if any(now.get(each) != begun["state"].get(each) for each in _UNCHANGED):
        raise StoreUnavailable(
            f"the store {name!r} was written to while it was saved, so keys may be missing: throw the file away, stop "
            "the programs that have the store open, and save it again"
        )
    return size


async def restore(client: Client, file: BinaryIO, replicas: int | None = None) -> str:
    """Put a store back, into servers that have none of its name.

    Args:
        client: A connection to one of them.
        file: What `save` wrote, open for reading.
        replicas: On how many servers it is to be; None: on as many as it was.

    Returns:
        The store's name.

    Raises:
        InvalidRequest: If the file is none of `save`'s.
        CorruptStore: If the servers refuse what is in it.
        StoreUnavailable: If they have such a stream, or do not answer.
    """
    head = _head_of(file)
    config, state = head["config"], head["state"]
    if replicas is not None:
        config["num_replicas"] = replicas
    name: str = config["name"]
    begun = await _asked(client, f"$JS.API.STREAM.RESTORE.{name}", {"config": config, "state": state})
    try:
        await _send(client, begun["deliver_subject"], name, file)
    except CorruptStore:
        # What there is of it would keep a sound one from being put back.
        await client.request(f"$JS.API.STREAM.DELETE.{name}", b"", timeout=PATIENCE_SECONDS)
        raise
    return name


async def _send(client: Client, subject: str, name: str, file: BinaryIO) -> None:
    is_first, chunk = True, file.read(CHUNK_BYTES)
    while chunk:
        reply = await _answered(client, subject, chunk, is_first=is_first)
        if reply.data:
            raise CorruptStore(f"the store {name!r} cannot be put back: {reply.data.decode(errors='replace')}")
        is_first, chunk = False, file.read(CHUNK_BYTES)
    ended = json.loads((await _answered(client, subject, b"")).data)
    if "error" in ended:
        raise CorruptStore(f"the store {name!r} cannot be put back: {ended['error'].get('description')}")


def _head_of(file: BinaryIO) -> dict[str, Any]:
    try:
        head: Any = json.loads(file.readline())
    except ValueError as error:
        raise InvalidRequest("this is not a file that `save` wrote: it begins with no line of JSON") from error
    if not isinstance(head, dict) or head.get("format") != _FORMAT or head.get("version") != 1:
        raise InvalidRequest(f"this is not a file that `save` wrote, of a version that is known: {head!r:.100}")
    return head


async def _asked(client: Client, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await _answered(client, subject, json.dumps(request).encode())).data)
    if "error" in answer:
        raise StoreUnavailable(f"{subject}: {answer['error'].get('description')}")
    return answer


async def _answered(client: Client, subject: str, data: bytes, *, is_first: bool = False) -> Msg:
    """What a server answers. Where the first goes to a new subject, others may not know yet which of them listens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await client.request(subject, data, timeout=PATIENCE_SECONDS)
        except NoRespondersError as error:
            # It was given to nobody.
            if not is_first or time.monotonic() >= deadline:
                raise StoreUnavailable(f"{subject}: no server listens there") from error
        except Error as error:
            raise StoreUnavailable(f"{subject}: {error}") from error
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
