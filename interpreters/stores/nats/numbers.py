"""Positions and revisions: the numbers of messages, and how much `Advance` has added to them.

An advance is a message of its own, from which on all numbers are higher. Each store of the cluster has to know of it
before it tells a number from beyond it. So it comes in two steps: it is announced, and comes into force no sooner than
everybody who has not heard of it has had to ask. Whoever has asked within `LEASE_SECONDS`, and heard of nothing, knows
that nothing is in force that it does not know.
"""

import asyncio
import time
from bisect import bisect_left

import msgspec

from interpreters.stores.nats.jetstream import EXPECTED, ROLLUP, WRONG_LAST, JetStream, Outgoing, Refused
from interpreters.stores.nats.latest import Latest
from interpreters.stores.nats.subjects import META, Subjects

LEASE_SECONDS = 0.5
"""For how long a store relies on what it has heard."""

MARGIN_SECONDS = 0.1
"""How much longer an advance waits: clocks of different machines do not go alike."""


ABANDONED_SECONDS = 5.0
"""After how long an advance that was announced, and does not come, is taken back by whoever waits for it."""


class Advances(msgspec.Struct, frozen=True, array_like=True):
    """What is told of advances: after which message each came, and how much is added from there on.

    ``is_announced``: another one is about to come.
    """

    after: list[int] = []
    added: list[int] = []
    is_announced: bool = False


_decode = msgspec.msgpack.Decoder(Advances).decode
_encode = msgspec.msgpack.Encoder().encode


class Scale:
    """How numbers of messages are told.

    Args:
        advances: What has been added to them.

    >>> scale = Scale(Advances([10], [100]))
    >>> scale.told(10), scale.told(11), scale.message_at(10), scale.message_at(60), scale.message_at(111)
    (10, 111, 10, 10, 11)
    """

    def __init__(self, advances: Advances) -> None:
        self._advances = advances

    def told(self, number: int) -> int:
        """What a message's number is told as."""
        index = bisect_left(self._advances.after, number)
        return number + self._advances.added[index - 1] if index else number

    @property
    def least(self) -> int:
        """Every number that is given from now on is told as more than this one."""
        return self._advances.after[-1] + self._advances.added[-1] if self._advances.after else 0

    def message_at(self, told: int) -> int:
        """The last message whose number is told as this one, or as less."""
        for after, added in zip(reversed(self._advances.after), reversed(self._advances.added), strict=True):
            if told > after + added:
                return told - added
            # What nobody was given yet, or ever.
            told = min(told, after + added)
            lower = self._added_up_to(after)
            if told > after + lower:
                return after
        return told

    def _added_up_to(self, number: int) -> int:
        index = bisect_left(self._advances.after, number)
        return self._advances.added[index - 1] if index else 0


class ToldNumbers(Scale):
    """The numbers of a store, of which each is told as the newest advance has it. All of it runs in one event loop.

    Args:
        stream: JetStream.
        subjects: The store's subjects.
        latest: Asks for last messages.
    """

    def __init__(self, stream: JetStream, subjects: Subjects, latest: Latest) -> None:
        super().__init__(Advances())
        self._stream = stream
        self._subjects = subjects
        self._latest = latest
        self._own_number = 0
        self.version = 0
        """Another one for each advance that is known."""
        self._asked = -LEASE_SECONDS
        self._announced_at = 0.0

    @property
    def are_settled(self) -> bool:
        """Whether every number that was given until now can be told without asking."""
        return not self._advances.is_announced and time.monotonic() - self._asked < LEASE_SECONDS

    async def settle(self) -> None:
        """Return once every number that was given until now can be told. Most often at once."""
        if not self.are_settled:
            await self.ask()

    async def ask(self) -> None:
        """Ask which advances there are."""
        asked = time.monotonic()
        (found,) = await self._latest.of(_WHERE)
        if found is not None:
            advances = _decode(found.body)
            after = [number or found.number for number in advances.after]
            self._advances = Advances(after, advances.added, advances.is_announced)
            if advances.is_announced and found.number != self._own_number:
                self._announced_at = asked
            self._own_number, self.version = found.number, len(after)
        self._asked = asked
        if self._advances.is_announced and asked - self._announced_at > ABANDONED_SECONDS:
            # Where it comes all the same, it is refused now, and announced again.
            await self._write(Advances(self._advances.after, self._advances.added), self._own_number)

    async def advance(self, least: int) -> None:
        """Have every number from now on be told as more than this one. Again: nothing. Raises `Unanswered`."""
        while True:
            await self.ask()
            if await self._is_above(least) and not self._advances.is_announced:
                return
            announced = await self._write(Advances(self._advances.after, self._advances.added, True), self._own_number)
            if announced is None:
                continue
            await asyncio.sleep(LEASE_SECONDS + MARGIN_SECONDS)
            # The message that says so comes after the announcement, and so do all that it counts for.
            after, added = [*self._advances.after, _OWN], [*self._advances.added, max(0, least - announced)]
            added[-1] = max(added)
            if await self._write(Advances(after, added), announced) is not None:
                await self.ask()
                return

    async def _is_above(self, least: int) -> bool:
        last = await self._stream.last_of(self._subjects.all)
        return least <= (0 if last is None else self.told(last.number))

    async def _write(self, advances: Advances, expected: int) -> int | None:
        """Tell of advances, and return the message's number; None where another has told of some meanwhile."""
        headers = {EXPECTED: f"{expected}", **ROLLUP}
        try:
            ack = await self._stream.write([Outgoing(self._subjects.of(*_WHERE), _encode(advances), headers)], "")
        except Refused as refused:
            if refused.code in WRONG_LAST:
                return None
            raise
        return ack.number


_WHERE = META, "advances"
"""The kind and the name of where advances are told."""

_OWN = 0
"""Stands for the number of the very message in which it stands."""
