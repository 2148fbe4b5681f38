"""Writes on their way: those that wait for one name go together, those for different names at the same time.

A write expects what is known of each name that it depends on. Where that was not so, JetStream refuses it, all names
are looked at anew, and it is planned again.

Where very many wait, some of different names go together too, in one batch that costs less than each by itself. Another
process that writes to one of them has them all refused. Then they are taken apart, and fewer go together from then on.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from interpreters.clocks import Clock
from interpreters.nats.connection import Unanswered, end_tasks
from interpreters.stores.group import WriteRequest
from interpreters.stores.nats.commits import Named, NatsCommit, SubjectHead, named_by, writes_of
from interpreters.stores.nats.jetstream import Ack, JetStream, Message, Outgoing, Refused, TryResult
from interpreters.stores.nats.latest import AT_ONCE, Latest
from interpreters.stores.nats.numbers import ToldNumbers
from interpreters.stores.nats.records import event_record, mark_of
from interpreters.stores.nats.sending import Ids, Sending, back_off
from interpreters.stores.nats.subjects import EVENTS, KEYS, Subjects
from persist_effects.errors import InternalError, InvalidRequest, PersistError, StoreUnavailable, UncertainOutcome
from persist_effects.planning import Limits
from persist_effects.requests import Answered, Append, Failed, Outcome, Transact, TruncateThrough

HEADS_KEPT = 100_000
"""Of how many names a store keeps what it knows."""

TOGETHER_AT_LEAST, TOGETHER_AT_MOST = 8, 128
"""How many groups have to wait until they go together, and how many do."""

COMMIT_BYTES = 1 << 20
"""When a commit has so many bytes, nothing more goes with it."""

_NOT_BEGUN = "this store was closed: nothing was written"
_CLOSED_MEANWHILE = "the store was closed while this was on its way: whether it was written is not known"

Positions = Mapping[tuple[str, int], int]


class Waiting:
    """A write that waits for its turn, until a time of the monotonic clock."""

    __slots__ = ("deadline", "done", "names", "request")

    def __init__(self, request: WriteRequest, done: Callable[[Outcome], None], deadline: float) -> None:
        self.request = request
        self.done = done
        self.deadline = deadline
        self.names = frozenset(named_by(request))


class Joined:
    """Writes that go together. ``parts``: of how many groups of different names."""

    __slots__ = ("names", "parts", "writes")

    def __init__(self, writes: list[Waiting], names: set[Named]) -> None:
        self.writes = writes
        self.names = names
        self.parts = 1

    def take_in(self, other: "Joined") -> None:
        """Have another one go with these."""
        self.writes += other.writes
        self.names |= other.names
        self.parts += other.parts


class Attempt(NamedTuple):
    """A commit as it is planned: the writes that are in it, those that are settled otherwise, those that come later."""

    commit: NatsCommit
    joined: list[Waiting]
    settled: list[tuple[Waiting, Outcome]]
    later: list[Waiting]
    messages: list[Outgoing]


FirstTry = tuple[Attempt, Sending | None, TryResult]
"""A commit and what came of the first try to write it; None where there is nothing to write."""


class NatsWriter:
    """Writes what it is given. All of it runs in one event loop.

    Args:
        stream: JetStream.
        subjects: The store's subjects.
        limits: What the store takes.
        clock: Gives microseconds since 1970, UTC.
        batch_messages: How many messages one commit may have.
        located: Finds the number of the message of an event, by its stream and number.
        latest: Asks for last messages.
        numbers: How numbers are told.
    """

    def __init__(
        self,
        stream: JetStream,
        subjects: Subjects,
        limits: Limits,
        *,
        clock: Clock,
        batch_messages: int,
        located: Callable[[str, int], Awaitable[int]],
        latest: Latest,
        numbers: ToldNumbers,
    ) -> None:
        self._stream = stream
        self._subjects = subjects
        self._limits = limits
        self._clock = clock
        self._batch_messages = self._room = batch_messages
        self._located = located
        self._latest = latest
        self._numbers = numbers
        self._ids = Ids()
        self._heads: OrderedDict[Named, SubjectHead] = OrderedDict()
        self._waiting: list[Waiting] = []
        self._busy: set[Named] = set()
        self._under_way = 0
        self._together = TOGETHER_AT_MOST
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_pumping = False
        self._is_closed = False

    def take(self, writes: Iterable[Waiting]) -> None:
        """Write some more."""
        self._waiting.extend(writes)
        if not self._under_way and not self._is_pumping:
            self._pump()
        elif not self._is_pumping:
            # What others ask in the same moment goes along.
            self._is_pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    # Who goes together

    def _pump(self) -> None:
        self._is_pumping = False
        waiting, self._waiting = self._waiting, []
        for group in self._gathered(self._grouped(waiting)):
            self._busy |= group.names
            self._under_way += 1
            self._begin(group)

    def _grouped(self, waiting: Iterable[Waiting]) -> list[Joined]:
        """The writes that may begin, by the names that they share. The others go on waiting."""
        # Of the names that those before it wait for, none goes first.
        blocked: set[Named] = set()
        groups: list[Joined] = []
        group_of: dict[Named, Joined] = {}
        for write in waiting:
            found = {id(group_of[name]): group_of[name] for name in write.names if name in group_of}
            if len(found) > 1 or not self._busy.isdisjoint(write.names) or not blocked.isdisjoint(write.names):
                blocked |= write.names
                self._waiting.append(write)
                continue
            if found:
                (group,) = found.values()
                group.writes.append(write)
                group.names |= write.names
            else:
                group = Joined([write], set(write.names))
                groups.append(group)
            group_of.update(dict.fromkeys(write.names, group))
        return groups

    def _gathered(self, groups: list[Joined]) -> list[Joined]:
        """The groups, or where they are many, several of them as one."""
        if len(groups) < TOGETHER_AT_LEAST:
            return groups
        gathered: list[Joined] = []
        for group in groups:
            if gathered and len(gathered[-1].writes) < self._together:
                gathered[-1].take_in(group)
            else:
                gathered.append(group)
        return gathered

    # The short way: all is known, and all goes well

    def _begin(self, group: Joined) -> None:
        try:
            attempt = self._attempt_at_once(group)
        except Exception:
            # The long way meets it again, and tells of it.
            attempt = None
        if attempt is None:
            self._start_writing(group)
            return
        sending = Sending(self._stream, attempt.messages, self._ids, _deadline(group))

        def told(result: TryResult) -> None:
            if isinstance(result, Ack) and self._numbers.are_settled:
                self._finish(attempt, result.number)
                self._widen(group)
                self._go_on(group, attempt.later)
            elif self._is_closed:
                for write in self._fail(attempt, UncertainOutcome(_CLOSED_MEANWHILE)):
                    write.done(Failed(StoreUnavailable(_NOT_BEGUN)))
            else:
                self._start_writing(group, (attempt, sending, result))

        try:
            sending.begin(told)
        except Exception:
            self._start_writing(group)

    def _attempt_at_once(self, group: Joined) -> Attempt | None:
        """A commit of what is known already; None where something has to be asked first."""
        if not all(name in self._heads for name in group.names) or _deadline(group) < time.monotonic():
            return None
        if any(_truncates(write.request) for write in group.writes):
            return None
        attempt = self._attempt(group.writes, {})
        # What is refused, and what finds nothing to do, is told by what is there, not by what was.
        return attempt if attempt.messages and not attempt.settled else None

    def _go_on(self, group: Joined, later: list[Waiting]) -> None:
        if later:
            group.writes = later
            self._begin(group)
            return
        self._busy -= group.names
        self._under_way -= 1
        if self._waiting and not self._is_pumping:
            self._is_pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _widen(self, group: Joined) -> None:
        if group.parts > 1:
            self._together = min(TOGETHER_AT_MOST, self._together + self._together // 4 + 1)

    # The long way

    def _start_writing(self, group: Joined, begun: FirstTry | None = None) -> None:
        def end(task: "asyncio.Task[None]") -> None:
            # Also where it was cancelled before it began.
            if task.cancelled():
                for write in group.writes:
                    write.done(Failed(UncertainOutcome(_CLOSED_MEANWHILE)))

        self._start(self._write(group, begun)).add_done_callback(end)

    async def _write(self, group: Joined, begun: FirstTry | None) -> None:
        later: list[Waiting] = []
        try:
            later = await self._commit(group, begun)
        except Exception as error:
            for write in group.writes:
                write.done(Failed(_failure(error)))
        self._go_on(group, later)

    async def _commit(self, group: Joined, begun: FirstTry | None) -> list[Waiting]:
        """Write as many as go together, and return the others."""
        fresh: set[Named] = set()
        refusals = 0
        while True:
            if begun is None:
                begun = await self._begun(group, fresh)
            attempt, sending, result = begun
            begun = None
            try:
                ack = Ack(0) if sending is None else await sending.settled(result)
                if ack is not None:
                    await self._settle_numbers(group, is_written=ack.number > 0)
            except PersistError as error:
                if isinstance(error, InvalidRequest) and len(attempt.joined) > 1:
                    # The servers take fewer messages at once than was said.
                    self._room = max(1, len(attempt.messages) // 2)
                    continue
                return self._fail(attempt, error)
            if ack is not None:
                self._finish(attempt, ack.number)
                return attempt.later
            self._forget(group.names)
            fresh.clear()
            if group.parts > 1:
                self._together = max(1, self._together // 2)
                self._waiting[:0] = group.writes
                return []
            if time.monotonic() > _deadline(group):
                raise StoreUnavailable("others have written the same, again and again: try again later")
            refusals += 1
            await back_off(refusals)

    async def _begun(self, group: Joined, fresh: set[Named]) -> FirstTry:
        """A commit of what is there, and what came of the first try; no try where there is nothing to write."""
        while True:
            await self._learn(group.names, fresh, _deadline(group))
            attempt = self._attempt(group.writes, await self._positions(group.writes))
            told = [write for write, _ in attempt.settled]
            unsure = {name for write in (told if attempt.messages else group.writes) for name in write.names} - fresh
            if not unsure:
                break
            self._forget(unsure)
        if not attempt.messages:
            return attempt, None, Ack(0)
        sending = Sending(self._stream, attempt.messages, self._ids, _deadline(group))
        return attempt, sending, await sending.tried()

    async def _settle_numbers(self, group: Joined, *, is_written: bool) -> None:
        """Have numbers be told as they are now, as often as it takes: what was written cannot be answered otherwise."""
        attempt = 0
        while True:
            try:
                await self._numbers.settle()
                return
            except (Unanswered, Refused) as error:
                if time.monotonic() > _deadline(group):
                    if is_written:
                        raise UncertainOutcome(f"it is written, and its numbers are not known: {error}") from error
                    raise
                attempt += 1
                await back_off(attempt)

    def _attempt(self, writes: list[Waiting], positions: Positions) -> Attempt:
        names = {name for write in writes for name in write.names}
        heads = {name: self._heads[name] for name in names}
        commit = NatsCommit(self._subjects, self._limits, heads, self._numbers.told(self._latest.asked_at))
        joined: list[Waiting] = []
        settled: list[tuple[Waiting, Outcome]] = []
        later: list[Waiting] = []
        for index, write in enumerate(writes):
            is_full = len(commit) + _weight(write.request) > self._room or commit.size_bytes >= COMMIT_BYTES
            if joined and (is_full or not commit.may_join(write.request)):
                later = writes[index:]
                break
            try:
                conflict = commit.add(write.request, self._clock(), lambda *event: positions[event])
            except PersistError as error:
                settled.append((write, Failed(error)))
                continue
            if conflict is None:
                joined.append(write)
            else:
                settled.append((write, Answered(conflict)))
        messages = commit.messages()
        if len(messages) > self._batch_messages:
            # It is one request, since others join only where there is room.
            too_much = InvalidRequest(
                f"it takes {len(messages)} messages, and these servers take {self._batch_messages} in a batch: write "
                "less at once"
            )
            settled += [(write, Failed(too_much)) for write in joined]
            return Attempt(NatsCommit(self._subjects, self._limits, {}), [], settled, later, [])
        return Attempt(commit, joined, settled, later, messages)

    def _fail(self, attempt: Attempt, error: PersistError) -> list[Waiting]:
        for write in attempt.joined:
            self._forget(write.names)
            write.done(Failed(error))
        for write, outcome in attempt.settled:
            write.done(outcome)
        return attempt.later

    def _finish(self, attempt: Attempt, number: int) -> None:
        """Tell those who have written: the last message has this number, or there was none to write."""
        if number:
            self._heads.update(attempt.commit.heads(number, self._numbers.told))
            while len(self._heads) > HEADS_KEPT:
                self._heads.popitem(last=False)
        for write, outcome in attempt.settled:
            write.done(outcome)
        for write, answer in zip(attempt.joined, attempt.commit.answers(number, self._numbers.told), strict=True):
            write.done(Answered(answer))
        for stream, through in attempt.commit.dropped.items():
            self._start(self._purge(stream, through))

    # What is known

    async def _positions(self, writes: Iterable[Waiting]) -> Positions:
        """Where the last events are that some writes drop."""
        found: dict[tuple[str, int], int] = {}
        for request in (write.request for write in writes):
            for write in writes_of(request):
                if isinstance(write, TruncateThrough):
                    head = self._heads[Named(EVENTS, write.stream)]
                    through = min(write.seq, head.value)
                    if through == head.value:
                        found[write.stream, through] = head.number
                    elif through:
                        found[write.stream, through] = await self._located(write.stream, through)
        return found

    async def _learn(self, names: Iterable[Named], fresh: set[Named], deadline: float) -> None:
        """Look up what is not known, as often as it takes."""
        attempt = 0
        while missing := [name for name in names if name not in self._heads]:
            some = missing[:AT_ONCE]
            try:
                found = await self._latest.of(*some)
                await self._numbers.settle()
            except (Unanswered, Refused) as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"nothing was written: {error}") from error
                attempt += 1
                await back_off(attempt)
                continue
            self._heads.update((name, self._head(name, last)) for name, last in zip(some, found, strict=True))
            fresh.update(some)
        for name in names:
            self._heads.move_to_end(name)

    def _head(self, named: Named, last: Message | None) -> SubjectHead:
        if last is None:
            return SubjectHead()
        if named.kind == EVENTS:
            return SubjectHead(last.number, event_record(last).seq)
        if named.kind == KEYS:
            return SubjectHead(last.number, self._numbers.told(last.number) if last.body else 0)
        return SubjectHead(last.number, mark_of(last, named.name).dropped)

    def _forget(self, names: Iterable[Named]) -> None:
        for name in names:
            self._heads.pop(name, None)

    async def _purge(self, stream: str, through: int) -> None:
        # What is not purged now is no longer told either, and goes with the next one.
        with suppress(Refused, Unanswered):
            number = await self._located(stream, through)
            await self._stream.api(
                f"STREAM.PURGE.{self._stream.stream}", filter=self._subjects.of(EVENTS, stream), seq=number
            )

    async def close(self) -> None:
        """End what is under way: of what is on its way nobody knows whether it is written."""
        self._is_closed = True
        for write in self._waiting:
            write.done(Failed(StoreUnavailable(_NOT_BEGUN)))
        self._waiting.clear()
        await end_tasks(self._tasks)


def _deadline(group: Joined) -> float:
    return group.writes[0].deadline


def _truncates(request: WriteRequest) -> bool:
    return any(isinstance(write, TruncateThrough) for write in writes_of(request))


def _weight(request: WriteRequest) -> int:
    """How many messages a request comes to, at the most."""
    checks = len(request.checks) if isinstance(request, Transact) else 0
    return checks + sum(len(write.events) if isinstance(write, Append) else 2 for write in writes_of(request))


def _failure(error: Exception) -> Exception:
    if isinstance(error, PersistError):
        return error
    if isinstance(error, Unanswered | Refused):
        return StoreUnavailable(f"nothing was written: {error}")
    return InternalError(f"{type(error).__name__}: {error}")
