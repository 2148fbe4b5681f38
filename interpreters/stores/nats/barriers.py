"""How a read knows that it sees all that was acknowledged before it was asked, whichever server answers it.

Who leads may have been stopped for a while, and answer as if it led still; and other servers lag. So a barrier is
written first, which a majority takes in: whatever was acknowledged before stands before it. A server that has the
barrier has all of that. Reads that are asked meanwhile share the next one.
"""

import asyncio
import secrets

from interpreters.nats.connection import heard
from interpreters.stores.nats.jetstream import ROLLUP, JetStream, Outgoing

BARRIER = "%b"
"""The token of a barrier, which stands in no name's subject."""


class Barriers:
    """Writes barriers. All of it runs in one event loop.

    Args:
        stream: JetStream.
    """

    def __init__(self, stream: JetStream) -> None:
        self._stream = stream
        self._next: dict[str, asyncio.Task[int]] = {}
        self._under_way: dict[str, asyncio.Task[int]] = {}

    async def under(self, subject_filter: str) -> int:
        """Write a barrier.

        Args:
            subject_filter: As ``app.e.>``: the barrier is among the messages that it has.

        Returns:
            The barrier's number: whatever was acknowledged before this was called has a lower one.

        Raises:
            Unanswered: Whether it is there is not known, and does not matter.
        """
        task = self._next.get(subject_filter)
        if task is None:
            before = self._under_way.get(subject_filter)
            task = asyncio.get_running_loop().create_task(self._write(subject_filter, before))
            self._next[subject_filter] = task
            # Whoever waits may have given up by the time that it fails.
            task.add_done_callback(heard)
        return await asyncio.shield(task)

    async def _write(self, subject_filter: str, before: "asyncio.Task[int] | None") -> int:
        if before is not None:
            # Those who come meanwhile wait for this one too.
            await asyncio.wait([before])
        task = self._next.pop(subject_filter)
        self._under_way[subject_filter] = task
        try:
            subject = subject_filter.removesuffix(">") + BARRIER
            ack = await self._stream.write([Outgoing(subject, b"", {**ROLLUP})], secrets.token_hex(8))
            return ack.number
        finally:
            if self._under_way.get(subject_filter) is task:
                del self._under_way[subject_filter]
