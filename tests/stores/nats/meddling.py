"""What a network and servers that fail do to one of several stores on a stream: as a test says, with no luck in it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from served_stores import until

from interpreters.nats.connection import Unanswered
from interpreters.stores.nats.barriers import BARRIER
from interpreters.stores.nats.following import Followed
from interpreters.stores.nats.jetstream import Ack, JetStream, Message, Outgoing, Refused
from interpreters.stores.nats.store import NatsStore
from interpreters.stores.nats.subjects import EVENTS, KEYS, MARKS, Subjects
from persist_effects.requests import Outcome, Request

TryResult = Ack | Refused | Unanswered


class Meddled:
    """A store, between which and JetStream something stands. It does what it is told, from then on.

    Args:
        store: The store.
    """

    def __init__(self, store: NatsStore) -> None:
        self.store = store
        self.before_write: list[Callable[[], object]] = []
        """What happens right before the next writes."""
        self.after_write: list[Callable[[], object]] = []
        """What happens right after the next writes, before their answers come."""
        self.lost_answers = 0
        """Of how many writes that are carried out the answer is lost."""
        self.lost_writes = 0
        """How many writes are lost on their way, and nobody knows."""
        self.reaches_nobody = False
        """Whether no write reaches anybody any more, as who asks is told."""
        self.refusals: list[dict[str, Any]] = []
        """What the next writes are answered, of which none is carried out."""
        self.lagging = 0
        """How many reads are answered as the same reads were answered last, by a server that has come no further."""
        self.has_no_events = False
        """Whether pages of events are asked of a server that has none yet."""
        self.unanswered: set[str] = set()
        """Which operations of the administration nobody answers."""
        self._remembered: dict[tuple[str, ...], tuple[dict[str, Message], int]] = {}
        stream: JetStream = store._writer._stream
        self._inner = _Kept(stream.write_soon, stream.last_each, stream.page, stream.api)
        for name in ("write_soon", "last_each", "page", "api"):
            setattr(stream, name, getattr(self, name))

    def write_soon(self, messages: Sequence[Outgoing], batch: str, done: Callable[[TryResult], None]) -> None:
        if not any(_is_asked_for(message, self.store._subjects) for message in messages):
            self._inner.write_soon(messages, batch, done)
            return
        _next_of(self.before_write)
        if self.reaches_nobody:
            done(Unanswered("nobody is there", is_sent=False))
        elif self.lost_writes:
            self.lost_writes -= 1
            done(Unanswered("lost on its way", is_sent=True))
        elif self.refusals and not self.lost_answers:
            done(Refused(self.refusals.pop(0)))
        else:
            self._inner.write_soon(messages, batch, lambda result: self._answered(result, done))

    def _answered(self, result: TryResult, done: Callable[[TryResult], None]) -> None:
        if isinstance(result, Ack):
            _next_of(self.after_write)
            if self.lost_answers:
                self.lost_answers -= 1
                result = Unanswered("its answer is lost", is_sent=True)
        done(result)

    def reach_nobody(self) -> None:
        """Have no write reach anybody from now on."""
        self.reaches_nobody = True

    def ask_in_vain(self) -> None:
        """Have whoever leads answer no question from now on; and what was heard of numbers holds no longer."""
        self.unanswered.add("STREAM.MSG.GET")
        self.store._numbers._asked = -math.inf

    async def last_each(self, subjects: Sequence[str]) -> tuple[dict[str, Message], int]:
        asked = tuple(subjects)
        if self.lagging and asked in self._remembered:
            self.lagging -= 1
        else:
            self._remembered[asked] = await self._inner.last_each(subjects)
        return self._remembered[asked]

    async def page(self, subject: str, number: int, limit: int) -> tuple[list[Message], int]:
        if self.has_no_events:
            return [], 0
        found: tuple[list[Message], int] = await self._inner.page(subject, number, limit)
        return found

    async def api(self, operation: str, request: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        if operation.rpartition(".")[0] in self.unanswered:
            raise Unanswered("nobody answers", is_sent=False)
        found: dict[str, Any] = await self._inner.api(operation, request, **more)
        return found

    def answer_behind(self, request: Request[Any], followed: Followed) -> Any:
        """What a request is answered where what the store follows comes in late: not before the store waits for it.

        Args:
            request: The request.
            followed: What the store follows, and has not begun to.

        Returns:
            The answer.
        """
        heard, held = followed._heard, []
        followed._heard = held.append  # type: ignore[method-assign]

        def let_in() -> None:
            followed._heard = heard  # type: ignore[method-assign]
            for message in held:
                heard(message)

        outcomes: list[Outcome] = []
        self.store.submit([request], lambda _, outcome: outcomes.append(outcome))
        until(lambda: outcomes or followed._reaching)
        self.store._connected().loop.call_soon_threadsafe(let_in)
        until(lambda: outcomes)
        return outcomes[0].value  # type: ignore[union-attr]


class _Kept:
    """The functions in whose place others stand."""

    def __init__(self, write_soon: Any, last_each: Any, page: Any, api: Any) -> None:
        self.write_soon, self.last_each, self.page, self.api = write_soon, last_each, page, api


def _next_of(happening: list[Callable[[], object]]) -> None:
    if happening:
        happening.pop(0)()


def _is_asked_for(message: Outgoing, subjects: Subjects) -> bool:
    """Whether a message is part of what somebody asked for, and not what the stores say to each other."""
    kind, _, rest = message.subject.removeprefix(f"{subjects.store}.").partition(".")
    return kind in {EVENTS, KEYS, MARKS} and rest != BARRIER
