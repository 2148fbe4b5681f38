"""Messages on their way, until it is known what became of them.

Where no answer comes, the same messages are written again. Of all tries one at the most is written, since the first of
them changes what the others expect; whose it was that did, is told by the id of the message that is there.
"""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Callable, Sequence

from interpreters.nats.connection import Denied, Unanswered
from interpreters.stores.nats.jetstream import (
    EXPECTED,
    EXPECTED_OF,
    MESSAGE_ID,
    NOT_WRITTEN,
    TOO_LARGE,
    WRONG_LAST,
    Ack,
    JetStream,
    Message,
    Outgoing,
    Refused,
    TryResult,
)
from persist_effects.errors import InvalidRequest, StoreUnavailable, UncertainOutcome

BACKOFF_SECONDS = 0.02
"""After how long something is tried again, drawn anew each time, and longer each time."""

_DUPLICATE = 10201


class Ids:
    """Gives what nothing else is called, in any process: a part that was drawn, and a count."""

    def __init__(self) -> None:
        self._drawn = secrets.token_hex(12)
        self._numbers = itertools.count(1)

    def __call__(self) -> str:
        """Another one."""
        return f"{self._drawn}{next(self._numbers):x}"


class Sending:
    """Some messages that are written, all or none.

    Args:
        stream: JetStream.
        messages: The messages. One of them expects something of its own subject.
        ids: What they are called.
        deadline: Until when they are tried, by the monotonic clock.
    """

    def __init__(self, stream: JetStream, messages: Sequence[Outgoing], ids: Ids, deadline: float) -> None:
        self._stream = stream
        self._messages = list(messages)
        self._ids = ids
        self._deadline = deadline
        self._own = ids()
        self._at = next(index for index, one in enumerate(messages) if _expects_of_itself(one))
        marked = messages[self._at]
        self._marked = marked._replace(headers={**marked.headers, MESSAGE_ID: self._own})
        self._messages[self._at] = self._marked
        self._may_be_written = False

    def begin(self, done: Callable[[TryResult], None]) -> None:
        """Try once. ``done`` is called with what comes of it, perhaps before this returns."""
        self._stream.write_soon(self._messages, self._ids(), done)

    async def tried(self) -> TryResult:
        """Try once."""
        try:
            return await self._stream.write(self._messages, self._ids())
        except (Refused, Unanswered) as result:
            return result

    async def settled(self, result: TryResult) -> Ack | None:
        """Try again for as long as it is not known what became of them.

        Args:
            result: What came of the first try.

        Returns:
            What was written; None where something was not as they expect it, and nothing was written.

        Raises:
            StoreUnavailable: If nothing was written.
            UncertainOutcome: If that is not known.
            InvalidRequest: If they are too many.
        """
        attempt = 0
        while True:
            if isinstance(result, Ack):
                return result
            if isinstance(result, Unanswered):
                self._may_be_written = self._may_be_written or result.is_sent
            elif result.code in WRONG_LAST or result.code == _DUPLICATE:
                if not self._may_be_written:
                    return None
                try:
                    if (found := await self._stream.next_of(self._marked.subject, self._next)) is not None:
                        return self._told_by(found, result)
                except (Refused, Unanswered) as error:
                    result = error
            elif result.code not in NOT_WRITTEN:
                self._refuse(result)
            if time.monotonic() > self._deadline or isinstance(result, Denied):
                self._give_up(result)
            attempt += 1
            await back_off(attempt)
            result = await self.tried()

    def _told_by(self, found: Message, refused: Refused) -> Ack | None:
        """What became of them, by the first message that is there after what they expect."""
        if found.id == self._own:
            return Ack(found.number + len(self._messages) - 1 - self._at)
        if found.expected != self._marked.headers[EXPECTED]:
            # What came right after that is gone, as a value is that was put over: it may have been these.
            self._give_up(refused)
        return None

    @property
    def _next(self) -> int:
        return int(self._marked.headers[EXPECTED]) + 1

    def _refuse(self, refused: Refused) -> None:
        if refused.code == TOO_LARGE:
            raise InvalidRequest(
                f"a commit takes {len(self._messages)} messages, and the servers take fewer in a batch ({refused}): "
                "give their limit as batch_messages"
            )
        if not self._may_be_written:
            raise StoreUnavailable(f"JetStream refuses it: {refused}")
        self._give_up(refused)

    def _give_up(self, reason: Exception) -> None:
        if self._may_be_written:
            raise UncertainOutcome(f"it was on its way: {reason}; whether it was written is not known")
        raise StoreUnavailable(f"nothing was written: {reason}")


def _expects_of_itself(message: Outgoing) -> bool:
    return EXPECTED in message.headers and EXPECTED_OF not in message.headers


async def back_off(attempt: int) -> None:
    """Wait for a moment before another try, the longer the more there were."""
    await asyncio.sleep(random.uniform(0.0, BACKOFF_SECONDS * min(attempt, 10)))  # noqa: S311 - no secret
