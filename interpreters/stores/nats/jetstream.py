"""What a store asks of JetStream, and what that answers. All of it runs in one event loop."""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from interpreters.nats.connection import NatsConnection, Unanswered, failing, headers_in

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_OF = "Nats-Expected-Last-Subject-Sequence-Subject"
MESSAGE_ID = "Nats-Msg-Id"
ROLLUP = {"Nats-Rollup": "sub"}

NO_MESSAGE = 10037
WRONG_LAST = frozenset({10071, 10164})
"""The errors of an expectation that is not met, and of one that another write, on its way, may not leave met."""

NOT_WRITTEN = frozenset({10176, 10210})
"""The errors of a batch of which nothing was written: who leads has changed, or too many are being written."""

DIRECT_SECONDS = 0.5
"""How long a server may take until it begins to answer a direct get, or goes on: then another one is asked."""

NO_ROOM = frozenset({10023, 10047, 10077})
"""The errors of servers that can write no more, or of a stream that is not to grow."""

PAGE_BYTES = 16 << 20
"""When a page has so many bytes, it ends."""

TOO_LARGE = 10199
"""The error of a batch of more messages than the servers take."""


class Refused(Exception):
    """JetStream says no.

    Args:
        error: What it says.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", error)))
        self.code = int(error.get("err_code", error.get("code", 0)))
        self.status = int(error.get("code", 0))


class Message(NamedTuple):
    """A message that is kept: its sequence number in JetStream, its subject, and what it says."""

    number: int
    subject: str
    body: bytes
    id: str | None = None
    expected: str | None = None


class Outgoing(NamedTuple):
    """A message that is to be written."""

    subject: str
    body: bytes
    headers: dict[str, str]


class Ack(NamedTuple):
    """What was written: the number of its last message."""

    number: int


TryResult = Ack | Refused | Unanswered
"""What came of one try to write."""


class _Written(msgspec.Struct):
    """What JetStream says of a write."""

    seq: int = 0
    error: dict[str, Any] | None = None


_decode_written = msgspec.json.Decoder(_Written).decode


class JetStream:
    """One stream of JetStream.

    Args:
        connection: The connection.
        stream: The stream's name.
    """

    def __init__(self, connection: NatsConnection, stream: str) -> None:
        self._connection = connection
        self.stream = stream
        self.timeout = connection.timeout
        self._direct = f"$JS.API.DIRECT.GET.{stream}"

    async def api(self, operation: str, request: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Ask its administration. Raises `Refused` and `Unanswered`."""
        payload = json.dumps({**(request or {}), **more}).encode() if request or more else b""
        answer: dict[str, Any] = json.loads(await self._connection.ask(f"$JS.API.{operation}", payload))
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    async def last_of(self, subject: str) -> Message | None:
        """The last message of a subject, or under a wildcard, as who leads has it."""
        return await self._got(last_by_subj=subject)

    async def next_of(self, subject: str, number: int) -> Message | None:
        """The first message of a subject from a number on, as who leads has it."""
        return await self._got(seq=number, next_by_subj=subject)

    async def _got(self, **which: Any) -> Message | None:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{self.stream}", which)
        except Refused as refused:
            if refused.code == NO_MESSAGE:
                return None
            raise
        found = answer["message"]
        headers = headers_in(base64.b64decode(found.get("hdrs", "")))
        body = base64.b64decode(found.get("data", ""))
        return Message(found["seq"], found["subject"], body, headers.get(MESSAGE_ID), headers.get(EXPECTED))

    async def write(self, messages: Sequence[Outgoing], batch: str) -> Ack:
        """Write messages, all or none. ``batch``: what nothing else is called.

        Raises `Refused`, where nothing was written, and `Unanswered`.
        """
        answer: asyncio.Future[Ack] = self._connection.loop.create_future()

        def done(result: TryResult) -> None:
            if answer.done():
                return
            if isinstance(result, Ack):
                answer.set_result(result)
            else:
                answer.set_exception(result)

        self.write_soon(messages, batch, done)
        return await answer

    def write_soon(self, messages: Sequence[Outgoing], batch: str, done: Callable[[TryResult], None]) -> None:
        """Write messages, all or none, and return at once.

        Args:
            messages: The messages.
            batch: What nothing else is called.
            done: Called with what comes of it, perhaps before this returns.
        """

        def take(body: bytes, _: bytes) -> bool:
            written = _decode_written(body)
            done(Ack(written.seq) if written.error is None else Refused(written.error))
            return True

        *others, last = messages
        headers = last.headers
        try:
            if others:
                for number, message in enumerate(others, 1):
                    own = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                    self._connection.publish(message.subject, message.body, own)
                ending = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(messages)), "Nats-Batch-Commit": "1"}
                headers = {**headers, **ending}
            self._connection.begin(last.subject, last.body, take, done, headers)
        except Unanswered as unanswered:
            # What was sent of a batch is not written without its last message.
            done(unanswered)

    async def page(self, subject: str, number: int, limit: int) -> tuple[list[Message], int]:
        """Messages of a subject, or under a wildcard, from a number on, as any of the servers has them.

        Returns them, and how many more that server has. It may have fewer than who leads.
        """
        found, ending = await self._got_directly(
            {"seq": number, "next_by_subj": subject, "batch": limit, "max_bytes": PAGE_BYTES}
        )
        return found, int(ending.get("Nats-Num-Pending", 0))

    async def first_since(self, subject: str, time: str) -> int | None:
        """The number of the first message under a filter since a time, as any of the servers has it."""
        found, _ = await self._got_directly({"start_time": time, "next_by_subj": subject, "batch": 1})
        return found[0].number if found else None

    async def last_each(self, subjects: Sequence[str]) -> tuple[dict[str, Message], int]:
        """The last message of each of some subjects, as any of the servers has them, all at one moment.

        Returns them by their subjects, and up to which number that server had all there was. Where it has none of
        them, that is 0.
        """
        found, ending = await self._got_directly({"multi_last": list(subjects)})
        return {message.subject: message for message in found}, int(ending.get("Nats-UpTo-Sequence", 0))

    async def _got_directly(self, asked: Mapping[str, Any]) -> tuple[list[Message], dict[str, str]]:
        found: list[Message] = []
        ended: asyncio.Future[dict[str, str]] = self._connection.loop.create_future()

        def take(body: bytes, headers: bytes) -> bool:
            if headers[8:9] != b" ":
                found.append(_message(headers, body))
                return False
            status = headers[9:12]
            if ended.done():
                return True
            if status in _ENDINGS:
                ended.set_result(headers_in(headers))
            else:
                ended.set_exception(Refused({"code": int(status), "description": headers[13:].decode().strip()}))
            return True

        self._connection.begin(
            self._direct, json.dumps(asked).encode(), take, failing(ended), timeout=min(self.timeout, DIRECT_SECONDS)
        )
        return found, await ended


_ENDINGS = frozenset({b"204", b"404"})


def _message(headers: bytes, body: bytes) -> Message:
    """A message that was got directly, by its headers. There its number follows its subject."""
    start = headers.index(_SUBJECT) + len(_SUBJECT)
    end = headers.index(b"\r", start)
    number = headers.index(_NUMBER, end) + len(_NUMBER)
    return Message(int(headers[number : headers.index(b"\r", number)]), headers[start:end].decode(), body)


_SUBJECT, _NUMBER = b"\nNats-Subject: ", b"\nNats-Sequence: "
