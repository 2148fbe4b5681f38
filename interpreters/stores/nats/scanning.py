"""Messages in their order, past a number, of which more come while these are looked at.

What has come stays as it is: messages are never changed, and only truncation takes some away.
"""

import asyncio

from interpreters.nats.connection import heard
from interpreters.stores.nats.jetstream import JetStream, Message

AHEAD_MESSAGES = 2_000
"""How many messages are had ahead, by whoever goes on where a page ended."""


class MessageScan:
    """Messages under a filter, past a number. All of it runs in one event loop.

    Args:
        stream: JetStream.
        subject: The filter.
        after: The number.
    """

    def __init__(self, stream: JetStream, subject: str, after: int) -> None:
        self._stream = stream
        self.subject = subject
        self.after = after
        self.messages: list[Message] = []
        """Those past it that have come."""
        self.is_continued = False
        """Whether somebody has gone on where a page had ended."""
        self._coming: asyncio.Task[tuple[list[Message], int]] | None = None

    @property
    def reached(self) -> int:
        """All messages have come up to this number, and perhaps more."""
        return self.messages[-1].number if self.messages else self.after

    @property
    def is_coming(self) -> bool:
        """Whether more are on their way."""
        return self._coming is not None

    def begin(self, size: int) -> None:
        """Have more come, unless some do."""
        if self._coming is None:
            page = self._stream.page(self.subject, self.reached + 1, size)
            self._coming = asyncio.get_running_loop().create_task(page)
            # Nobody may ever ask for them.
            self._coming.add_done_callback(heard)

    async def more(self, size: int) -> bool:
        """Wait for more.

        Args:
            size: How many are asked for, where none are on their way.

        Returns:
            Whether the server has still more.

        Raises:
            Unanswered: If they do not come.
        """
        self.begin(size)
        coming, self._coming = self._coming, None
        assert coming is not None
        found, left = await coming
        self.messages += found
        return left > 0

    def drop(self, through: int) -> None:
        """Forget what has been looked at, up to a number."""
        self.messages = [message for message in self.messages if message.number > through]
        self.after = through
