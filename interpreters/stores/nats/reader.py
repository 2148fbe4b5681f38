"""Reads: each sees all that was acknowledged before it was asked, because who leads is asked how far that goes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

import msgspec

from interpreters.nats.connection import NatsConnection, heard
from interpreters.stores.names import SortedNames
from interpreters.stores.nats.barriers import BARRIER, Barriers
from interpreters.stores.nats.commits import DELETION_SECONDS
from interpreters.stores.nats.following import Followed
from interpreters.stores.nats.jetstream import JetStream, Message
from interpreters.stores.nats.latest import AGAIN_SECONDS, AT_ONCE, Latest, until_whole
from interpreters.stores.nats.numbers import ToldNumbers
from interpreters.stores.nats.records import DropMark, entry_of, event_in, event_of, event_record, mark_of, stored_event
from interpreters.stores.nats.scanning import AHEAD_MESSAGES, MessageScan
from interpreters.stores.nats.subjects import EVENTS, KEYS, MARKS, Subjects
from interpreters.stores.ranges import hole_after, page_range
from interpreters.stores.waiting import Revisions, Watchers
from interpreters.threads.gates import Notify
from persist_effects.event import Event
from persist_effects.requests import (
    Entry,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvWait,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Request,
    Streams,
    Wait,
)

PAGE_MESSAGES = 256
"""How many messages are read at once, where fewer events are asked for: some of them are perhaps not wanted."""


class Reader:
    """Answers reads, and knows the names of streams and keys. All of it runs in one event loop.

    Args:
        connection: The connection.
        stream: JetStream.
        subjects: The store's subjects.
        barriers: How it is known that what is told is not of before.
        latest: Asks for last messages.
        numbers: How numbers are told. What is known of names has those of the messages themselves.
    """

    def __init__(
        self,
        connection: NatsConnection,
        stream: JetStream,
        subjects: Subjects,
        *,
        barriers: Barriers,
        latest: Latest,
        numbers: ToldNumbers,
    ) -> None:
        self._stream = stream
        self._numbers = numbers
        self._barriers = barriers
        self._latest = latest
        self._subjects = subjects
        self._positions: dict[str, int] = {}
        self._streams = SortedNames(self._positions, int)
        self._revisions: dict[str, int] = {}
        self._keys = SortedNames(self._revisions, int)
        self._changes = Revisions(self._keys.newest)
        self._births: list[list[str]] = []
        self._knows_forgotten = False
        self._marked: dict[str, DropMark] = {}
        self._marks = SortedNames(self._marked, attrgetter("dropped_position"))
        self.watchers = Watchers()
        self._scan: MessageScan | None = None

        def followed(kind: str, take: Callable[[Message], None], *, headers_only: bool) -> Followed:
            return Followed(connection, stream, subjects.under(kind, ""), take, headers_only=headers_only)

        self.events = followed(EVENTS, self._note_event, headers_only=True)
        self.keys = followed(KEYS, self._note_key, headers_only=True)
        self.marks = followed(MARKS, self._note_mark, headers_only=False)

    def _note_event(self, message: Message) -> None:
        if message.subject.endswith(BARRIER):
            return
        _, name = self._subjects.kind_and_name(message.subject)
        self._streams.note(name)
        self._positions[name] = message.number
        for notify in self.watchers.take(Wait, {name: message.number}):
            notify()

    def _note_key(self, message: Message) -> None:
        if message.subject.endswith(BARRIER):
            return
        _, name = self._subjects.kind_and_name(message.subject)
        self._keys.note(name)
        if message.body:
            if name not in self._revisions:
                for births in self._births:
                    births.append(name)
            self._revisions[name] = message.number
        else:
            self._revisions.pop(name, None)
            self._changes.deleted(name, message.number)
        for notify in self.watchers.take(KvWait, {name: message.number}):
            notify()

    def _note_mark(self, message: Message) -> None:
        if message.subject.endswith(BARRIER):
            return
        _, name = self._subjects.kind_and_name(message.subject)
        self._marks.note(name)
        self._marked[name] = mark_of(message, name)

    async def answer(self, request: Request[Any]) -> Any:
        """Answer a read, or what a wait is answered now."""
        await self._numbers.settle()
        while True:
            version = self._numbers.version
            answer = await _ANSWERS[type(request)](self, request)
            # What has been read may have been written after an advance of which nothing was known yet.
            await self._numbers.settle()
            if self._numbers.version == version:
                return answer

    async def _events_up_to_date(self) -> None:
        await self.events.reach(await self._barriers.under(self._subjects.under(EVENTS, "")))

    async def _keys_up_to_date(self) -> None:
        await self.keys.reach(await self._barriers.under(self._subjects.under(KEYS, "")))

    async def _marked_up_to_date(self) -> None:
        await self.marks.reach(await self._barriers.under(self._subjects.under(MARKS, "")))

    async def _last(self, kind: str, name: str) -> Message | None:
        (found,) = await self._latest.of((kind, name))
        return found

    async def _last_seq(self, request: LastSeq) -> int:
        found = await self._last(EVENTS, request.stream)
        return 0 if found is None else event_record(found).seq

    async def _get(self, request: KvGet) -> Entry | None:
        found = await self._last(KEYS, request.key)
        return None if found is None or not found.body else entry_of(found, self._numbers.told(found.number))

    async def _has(self, request: KvHas) -> bool:
        found = await self._last(KEYS, request.key)
        return found is not None and bool(found.body)

    # Events

    async def _read(self, request: Read) -> Page:
        return await until_whole(lambda: self._read_once(request))

    async def _read_once(self, request: Read) -> Page | None:
        """A page; None where the server that was asked has not all of it yet, or some was truncated meanwhile."""
        name = request.stream
        last, mark = await self._latest.of((EVENTS, name), (MARKS, name))
        if last is None:
            return Page([], request.after, 0)
        dropped = 0 if mark is None else mark_of(mark, name).dropped
        head = event_record(last).seq
        low, high, next_seq, hole = page_range(request, dropped, head)
        events = await self._events(name, low, high, last) if low < high else []
        if events is None:
            return None
        if request.backwards:
            events.reverse()
        return Page(events, next_seq, head, hole)

    async def _events(self, name: str, low: int, high: int, last: Message) -> list[Event] | None:
        """The events of a stream past a number through another one, if they are all there."""
        if high - low == 1 and event_record(last).seq == high:
            return [self._event(name, last)]
        subject = self._subjects.of(EVENTS, name)
        number = await self._located(subject, low + 1, last)
        found: list[Event] = []
        while number is not None and len(found) < high - low:
            messages, left = await self._stream.page(subject, number, high - low - len(found))
            found += [self._event(name, one) for one in messages]
            number = messages[-1].number + 1 if messages and left else None
        is_whole = len(found) == high - low and found[0].seq == low + 1 and found[-1].seq == high
        return found if is_whole else None

    def _event(self, name: str, message: Message) -> Event:
        return event_of(message, name, self._numbers.told(message.number))

    async def located(self, name: str, seq: int) -> int:
        """The number of the message of an event that is there."""
        subject = self._subjects.of(EVENTS, name)

        async def asked() -> int | None:
            last = await self._stream.last_of(subject)
            return None if last is None else await self._located(subject, seq, last)

        return await until_whole(asked)

    async def _located(self, subject: str, seq: int, last: Message) -> int | None:
        """Where an event of a stream is, or if it is gone the next one, by guesses between what is known."""
        first = await self._stream.next_of(subject, 1)
        if first is None:
            return None
        low, low_seq = first.number, event_record(first).seq
        high, high_seq = last.number, event_record(last).seq
        if seq <= low_seq:
            return low
        # The event is past ``low`` and at ``high`` at the latest.
        while low + 1 < high and low_seq + 1 < high_seq:
            part = (high - low - 1) * (seq - low_seq) // (high_seq - low_seq)
            guess = min(max(low + 1, low + part), high - 1)
            found = await self._stream.next_of(subject, guess)
            if found is None:
                return None
            found_seq = event_record(found).seq
            if found_seq == seq:
                return found.number
            if found_seq < seq:
                low, low_seq = found.number, found_seq
            elif found.number < high:
                high, high_seq = found.number, found_seq
            else:
                # Nothing stands between the guess and there.
                high = guess
        return high if high_seq == seq else await self._number_past(subject, low)

    async def _number_past(self, subject: str, number: int) -> int | None:
        found = await self._stream.next_of(subject, number + 1)
        return None if found is None else found.number

    async def _read_all(self, request: ReadAll) -> Page:
        caught_up = asyncio.ensure_future(asyncio.gather(self._events_up_to_date(), self._marked_up_to_date()))
        numbers = self._numbers
        after = numbers.message_at(request.after)
        scan = self._scan_past(request, after)
        try:
            if scan.is_coming and await scan.more(request.limit):
                # The server goes on while these are looked at.
                scan.begin(max(AHEAD_MESSAGES, request.limit + 1))
            # While it is asked how far it goes, what is there is looked at already.
            looked_at = self._events_in(scan.messages, request, request.limit + 1)
        except BaseException:
            caught_up.add_done_callback(heard)
            caught_up.cancel()
            raise
        await caught_up
        newest = self._streams.newest
        head = max(numbers.least, numbers.told(newest("")))
        until = max(request.last_position(head), request.after)
        last = min(numbers.message_at(until), newest(request.prefix))
        hole = hole_after(after, request.prefix, self._marks) if until > request.after else None
        if request.backwards:
            found = await self._before(request, after, last)
            next_position = found[request.limit - 1].position - 1 if len(found) > request.limit else request.after
        else:
            found = await self._past(scan, request, looked_at, last, request.limit + 1)
            next_position = found[request.limit - 1].position if len(found) > request.limit else until
            if len(found) > request.limit:
                scan.drop(numbers.message_at(next_position))
                self._scan = scan
                # Whoever has gone on once goes on.
                if scan.is_continued and len(scan.messages) < AHEAD_MESSAGES // 2:
                    scan.begin(max(AHEAD_MESSAGES, request.limit + 1))
        return Page(found[: request.limit], next_position, head, hole)

    def _scan_past(self, request: ReadAll, after: int) -> MessageScan:
        """The one that was left where a page ended, or another one."""
        subject = self._subjects.under(EVENTS, request.prefix)
        scan, self._scan = self._scan, None
        if scan is None or request.backwards or (scan.subject, scan.after) != (subject, after):
            return MessageScan(self._stream, subject, after)
        scan.is_continued = True
        return scan

    async def _past(
        self, scan: MessageScan, request: ReadAll, looked_at: list[tuple[int, Event]], last: int, limit: int
    ) -> list[Event]:
        """The first events of a scan that are asked for, up to a message, ``limit`` of them at the most."""
        found = [
            event for number, event in looked_at if number <= last and not self._is_dropped(event.stream, event.seq)
        ]
        start = len(scan.messages)
        if len(looked_at) >= limit > len(found):
            # Some were dropped since, so that there are more to look at among those that have come.
            found, start = [], 0
        while len(found) < limit and (scan.reached < last or start < len(scan.messages)):
            if start == len(scan.messages):
                size = limit - len(found)
                has_more = await scan.more(size if request.types is None else max(PAGE_MESSAGES, size))
                if not has_more and scan.reached < last:
                    # This server has not come as far yet.
                    await asyncio.sleep(AGAIN_SECONDS)
            new, start = scan.messages[start:], len(scan.messages)
            for number, event in self._events_in(new, request, limit - len(found)):
                if number <= last:
                    found.append(event)
        return found

    async def _before(self, request: ReadAll, after: int, until: int) -> list[Event]:
        """The last events up to a message, the newest first: by windows that double, downwards from the end."""
        found: list[Event] = []
        size = request.limit
        while after < until and len(found) <= request.limit:
            low = max(after, until - size)
            scan = MessageScan(self._stream, self._subjects.under(EVENTS, request.prefix), low)
            found += reversed(await self._past(scan, request, [], until, until - low))
            until, size = low, size * 2
        return found

    def _events_in(self, messages: list[Message], request: ReadAll, limit: int) -> list[tuple[int, Event]]:
        """The first events in some messages that are asked for, and are not known to be dropped, with their numbers."""
        found: list[tuple[int, Event]] = []
        told, name_in, prefix, types = self._numbers.told, self._subjects.name_in, request.prefix, request.types
        for message in messages:
            if len(found) == limit:
                break
            if message.subject.endswith(BARRIER):
                continue
            name = name_in(message.subject)
            record = stored_event(message)
            is_asked_for = record.type and name.startswith(prefix) and (types is None or record.type in types)
            if is_asked_for and not self._is_dropped(name, record.seq):
                found.append((message.number, event_in(record, name, told(message.number))))
        return found

    def _is_dropped(self, stream: str, seq: int) -> bool:
        mark = self._marked.get(stream)
        return mark is not None and seq <= mark.dropped

    # Names

    async def _list_streams(self, request: Streams) -> list[str]:
        await self._events_up_to_date()
        return self._streams.page(request.prefix, request.after, request.limit)

    async def _list_keys(self, request: KvKeys) -> list[str]:
        await self._keys_up_to_date()
        return self._keys.page(request.prefix, request.after, request.limit)

    async def _list_entries(self, request: KvEntries) -> list[tuple[str, Entry]]:
        while True:
            await self._keys_up_to_date()
            names = self._keys.page(request.prefix, request.after, request.limit)
            with self._noting_births() as births:
                found = await self._values_of(names)
                await self._keys_up_to_date()
            if found is None:
                continue
            entries = [(name, entry_of(one, self._numbers.told(one.number))) for name, one in found if one.body]
            is_last = len(names) < request.limit
            if is_last or len(entries) == len(names):
                # A key that is new may have been there already when the values were asked for.
                end = None if is_last else names[-1]
                if not any(_is_in(name, request, end) for name in births):
                    return entries

    async def _values_of(self, names: list[str]) -> list[tuple[str, Message]] | None:
        """The messages of keys as they were at one moment. None: some of them have changed meanwhile."""
        parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
        came = await asyncio.gather(*(self._latest.of(*((KEYS, name) for name in part)) for part in parts))
        found = [one for part in came for one in part]
        if len(parts) > 1:
            # Each part is of a moment of its own: they are of one if nothing has changed until now.
            await self._keys_up_to_date()
            if [one.number if one and one.body else None for one in found] != list(map(self._revisions.get, names)):
                return None
        return [(name, one) for name, one in zip(names, found, strict=True) if one]

    @contextmanager
    def _noting_births(self) -> Iterator[list[str]]:
        births: list[str] = []
        self._births.append(births)
        try:
            yield births
        finally:
            self._births = [one for one in self._births if one is not births]

    # Waiting

    async def _newest_position(self, request: Wait) -> int:
        await self._events_up_to_date()
        return self.newest_known(request)

    async def _newest_revision(self, request: KvWait) -> int:
        if not self._knows_forgotten:
            self._changes.forget(await self._forgotten())
            self._knows_forgotten = True
        await self._keys_up_to_date()
        return self.newest_known(request)

    def newest_known(self, request: Wait | KvWait) -> int:
        """The newest position or revision that a wait asks for, of what has been heard until now."""
        names = self._streams if isinstance(request, Wait) else self._changes
        return self._numbers.told(names.newest(request.prefix))

    async def _forgotten(self) -> int:
        """A number that no deletion has passed of which nothing is left. Perhaps too high, never too low."""
        info = await self._stream.api(f"STREAM.INFO.{self._stream.stream}")
        # By the servers' own clocks, which do not differ by half of that time.
        since = datetime.fromisoformat(info["ts"]) - timedelta(seconds=DELETION_SECONDS / 2)
        if datetime.fromisoformat(info["created"]) > since:
            return 0
        first = await self._stream.first_since(self._subjects.all, since.isoformat())
        return int(info["state"]["last_seq"]) if first is None else first - 1

    def watch(self, request: Wait | KvWait, notify: Notify) -> object:
        """Have one told that waits. Returns the token by which the watchers forget it."""
        after = self._numbers.message_at(request.after)
        return self.watchers.add(msgspec.structs.replace(request, after=after), notify)


def _is_in(name: str, request: KvEntries, end: str | None) -> bool:
    """Whether a key is one of those that a page may have, which ends with one, or with the last one there is."""
    return name.startswith(request.prefix) and name > request.after and (end is None or name <= end)


_ANSWERS: dict[type[Request[Any]], Any] = {
    LastSeq: Reader._last_seq,
    Read: Reader._read,
    ReadAll: Reader._read_all,
    Streams: Reader._list_streams,
    KvGet: Reader._get,
    KvHas: Reader._has,
    KvKeys: Reader._list_keys,
    KvEntries: Reader._list_entries,
    Wait: Reader._newest_position,
    KvWait: Reader._newest_revision,
}
