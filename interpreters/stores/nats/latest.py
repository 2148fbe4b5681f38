"""The last messages of names, as they all are at one moment after they were asked for, whichever server answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from interpreters.nats.connection import Unanswered
from interpreters.stores.nats.barriers import Barriers
from interpreters.stores.nats.jetstream import JetStream, Message
from interpreters.stores.nats.subjects import Subjects

A = TypeVar("A")

AT_ONCE = 1_000
"""How many names are asked for at once: JetStream takes 1,024."""

TRIES = 50
"""How often something is asked for again that is not yet whole at the server that answered."""

AGAIN_SECONDS = 0.005


class Latest:
    """Asks for last messages. All of it runs in one event loop.

    Args:
        stream: JetStream.
        subjects: The store's subjects.
        barriers: How it is known that an answer is not of before.
    """

    def __init__(self, stream: JetStream, subjects: Subjects, barriers: Barriers) -> None:
        self._stream = stream
        self._subjects = subjects
        self._barriers = barriers
        self.asked_at = 0
        """Whatever had been written when something was asked for last has a number up to this one."""

    async def of(self, *wanted: tuple[str, str]) -> list[Message | None]:
        """Ask.

        Args:
            wanted: The kinds and the names, `AT_ONCE` of them at the most.

        Returns:
            Their last messages.

        Raises:
            Unanswered: If no server has all that was written in time.
        """
        barrier = await self._barriers.under(self._subjects.reads)
        self.asked_at = max(self.asked_at, barrier)
        subjects = [self._subjects.of(kind, name) for kind, name in wanted]
        # There is always one under it, so that it is told how far the server has come.
        asked = [*subjects, self._subjects.reads]

        async def ask() -> list[Message | None] | None:
            found, up_to = await self._stream.last_each(asked)
            return [found.get(subject) for subject in subjects] if up_to >= barrier else None

        return await until_whole(ask)


async def until_whole(ask: Callable[[], Awaitable[A | None]]) -> A:
    """Ask again for as long as the server that answers has not all of it yet.

    Args:
        ask: Gives what was asked for, or None.

    Returns:
        What was asked for.

    Raises:
        Unanswered: If that does not come in time.
    """
    for _ in range(TRIES):
        found = await ask()
        if found is not None:
            return found
        await asyncio.sleep(AGAIN_SECONDS)
    raise Unanswered("the server that was asked has not all that was written", is_sent=False)
