"""What a store follows of its stream: of each subject under a filter the last message, as soon as it is written.

JetStream pushes it, numbered without a gap. Where a number is missing, nothing is heard for a while, or the connection
was lost, it is begun anew past the last message that was taken in.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from interpreters.nats.connection import NatsConnection, Unanswered
from interpreters.stores.nats.jetstream import JetStream, Message, Refused
from persist_effects.errors import CorruptStore

HEARTBEAT_SECONDS = 0.5
"""How often JetStream says that there is nothing new. One server does, and where it is lost nobody."""

SILENCE_SECONDS = 1.5
"""How long nothing may be heard."""

FORGOTTEN_SECONDS = 60.0
"""When JetStream forgets somebody who does not listen any more."""

_STATUS, _FLOW = "Status", "FlowControl Request"


class Followed:
    """The last messages under a filter, kept up to date. All of it runs in one event loop.

    Args:
        connection: The connection.
        stream: JetStream.
        filter_subject: The filter.
        take: Called with each message, in their order; of those that only their headers are followed, without a body.
            What it raises as `CorruptStore` is raised by `reach`.
        headers_only: Whether the bodies are left where they are. An empty body is told from another all the same.
    """

    def __init__(
        self,
        connection: NatsConnection,
        stream: JetStream,
        filter_subject: str,
        take: Callable[[Message], None],
        *,
        headers_only: bool,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._filter = filter_subject
        self._take = take
        self._headers_only = headers_only
        self._begun: asyncio.Task[None] | None = None
        self._subscription: Any = None
        self._amiss = asyncio.Event()
        self._times = 0
        self._next = 1
        self._heard_at = 0.0
        self._damage: CorruptStore | None = None
        self._reaching: list[tuple[int, asyncio.Future[None]]] = []
        self.reached = 0
        """The number of the newest message that was taken in."""

    async def reach(self, number: int) -> None:
        """Return once all is taken in up to a number, which is that of a message under the filter, or was.

        Raises `Unanswered`, and `CorruptStore` where something in it is none of a store's.
        """
        if self._begun is None or self._begun.done():
            if self._begun is None:
                self._connection.on_back.append(self._begin_anew)
                self._begun = self._connection.start(self._keep())
            else:
                self._begun.result()
        if number > self.reached:
            reached: asyncio.Future[None] = self._connection.loop.create_future()
            self._reaching.append((number, reached))
            try:
                await asyncio.wait_for(reached, self._stream.timeout)
            except TimeoutError as error:
                if self._connection.loop.time() - self._heard_at > HEARTBEAT_SECONDS:
                    self._begin_anew()
                raise Unanswered(
                    f"names are fetched still, and have come up to message {self.reached} of {number}", is_sent=False
                ) from error
        if self._damage is not None:
            raise self._damage

    def _begin_anew(self) -> None:
        self._amiss.set()

    async def _keep(self) -> None:
        """Begin, and again whenever something is amiss."""
        try:
            while True:
                self._amiss.clear()
                try:
                    await self._begin()
                except (Unanswered, Refused, nats.errors.Error):
                    await asyncio.sleep(HEARTBEAT_SECONDS / 10)
                    continue
                while not self._amiss.is_set() and self._connection.loop.time() - self._heard_at < SILENCE_SECONDS:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._amiss.wait(), HEARTBEAT_SECONDS)
        finally:
            await self._unsubscribe()

    async def _begin(self) -> None:
        await self._unsubscribe()
        name = secrets.token_hex(12)
        inbox = self._connection.client.new_inbox()
        self._next = 1
        self._times = times = self._times + 1

        async def heard(message: Msg) -> None:
            if times == self._times and not self._amiss.is_set():
                self._heard(message)

        self._subscription = await self._connection.client.subscribe(
            inbox, cb=heard, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        begins = (
            {"deliver_policy": "by_start_sequence", "opt_start_seq": self.reached + 1}
            if self.reached
            else {"deliver_policy": "last_per_subject"}
        )
        config = {
            "name": name,
            "deliver_subject": inbox,
            "filter_subject": self._filter,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
            "inactive_threshold": int(FORGOTTEN_SECONDS * 1e9),
            "headers_only": self._headers_only,
            **begins,
        }
        where = f"CONSUMER.CREATE.{self._stream.stream}.{name}.{self._filter}"
        await self._stream.api(where, stream_name=self._stream.stream, config=config)
        self._heard_at = self._connection.loop.time()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def _heard(self, message: Msg) -> None:
        self._heard_at = self._connection.loop.time()
        headers = message.headers or {}
        if _STATUS in headers and not message.data and not message.reply.startswith("$JS.ACK."):
            if headers.get("Description") == _FLOW and message.reply:
                self._answer(message.reply)
            elif stalled := headers.get("Nats-Consumer-Stalled"):
                self._answer(stalled)
            return
        numbers = message.metadata.sequence
        if numbers.consumer != self._next:
            self._begin_anew()
            return
        self._next += 1
        body = message.data
        if self._headers_only and headers.get("Nats-Msg-Size", "0") != "0":
            body = b"-"
        try:
            self._take(Message(numbers.stream, message.subject, body))
        except CorruptStore as error:
            self._damage = error
        self.reached = max(self.reached, numbers.stream)
        for wanted, reached in self._reaching:
            if wanted <= self.reached and not reached.done():
                reached.set_result(None)
        self._reaching = [one for one in self._reaching if not one[1].done()]

    def _answer(self, subject: str) -> None:
        with suppress(Unanswered):
            self._connection.publish(subject, b"")
