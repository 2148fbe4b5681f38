"""Following as a member of a group: the streams are shared by a hash of their names, each by one member at a time.

Each partition has a checkpoint of its own, which also says whose it is. Whoever moves it, or takes it over, does so
only where it is as he knows it: so a member that was thought dead, and goes on, meets a conflict and writes nothing.
That, and not the time, keeps each event to one effect. The time only says when a partition is taken over.

**Signs of life.** A member writes a key of its own, sixteen times in a lease. The others look as often; one whose key
has not changed for nine of those times, by the clock of whoever looks, is taken for dead. No clocks are compared. So a
partition stands still for eleven of them, two thirds of a lease; the rest is for a store, or a machine, that is slow.
"""

from collections.abc import Sequence

import msgspec

from persist_effects import kv, log
from persist_effects.errors import InvalidRequest, StoreUnavailable, Truncated
from persist_effects.event import Event, check_integer, check_name
from persist_effects.following.checkpoint import Checkpoint, parts_of
from persist_effects.following.records import (
    Partition,
    SignOfLife,
    hash_of,
    kept_in,
    members_prefix,
    parts_prefix,
    plain,
)
from persist_effects.following.whole import FAR_POSITIONS, Follower, check_not_past_end, followed
from persist_effects.holes import holes_after
from persist_effects.machine import Effect, perform
from persist_effects.requests import Conflict, ExpectRevision, KvDelete, KvPut, Now, Sleep, Wait

PARTITIONS_MAX = 4_096
BEATS = 16
"""How many signs of life a member gives in a lease."""

SILENT_BEATS = 9
"""After how many it is taken for dead. One may pass before that is counted, and one more until somebody looks."""

_MICROSECONDS = 1_000_000
_STRIDE = 64
"""The most batches that are handled before the time is asked; fewer, where so many take an eighth of a beat."""


class Group(msgspec.Struct, frozen=True):
    """How the streams of a prefix are shared: by so many partitions, each of which one member has at a time.

    More members than partitions have nothing to do. A member that gives no sign of life for ``lease_seconds`` has lost
    its partitions, and may lose them after half of that: let it be twice as long as the slowest handler takes, since
    none is given meanwhile. All members must say the same number of partitions; another number needs another
    ``version``.

    >>> Group(partitions=4).lease_seconds
    10.0
    """

    partitions: int = 16
    lease_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_integer("partitions", self.partitions, 1, PARTITIONS_MAX)
        seconds = self.lease_seconds
        if type(seconds) not in (int, float) or not 0.05 <= seconds < 1e9:
            raise InvalidRequest(f"lease_seconds is {seconds!r}: give a number from 0.05 on")

    @property
    def beat_seconds(self) -> float:
        """How often a member gives a sign of life."""
        return self.lease_seconds / BEATS


class Crew:
    """One member of a group: the partitions that it has, and what it knows of the others."""

    def __init__(self, follower: Follower, group: Group, member: str) -> None:
        check_name("member name", member)
        self.follower = follower
        self.group = group
        self.member = member
        self.name = follower.wanted.name
        check_name("member's key", self._member_key)
        self.parts: dict[int, Checkpoint[Partition]] = {}
        # By partition: through which position this member has read, perhaps past the checkpoint.
        self.reached: dict[int, int] = {}
        self._beat = 0
        self._passed_at = 0
        self._member_revision = 0
        self._beat_at = self._asked_at = 0
        # Of each other member: the revision of its sign of life, and when it was seen first.
        self._seen: dict[str, tuple[int, int]] = {}
        # How many batches are handled before the time is asked.
        self._stride = 1
        self._partition_of: dict[str, int] = {}

    @property
    def _member_key(self) -> str:
        return f"{members_prefix(self.name)}{self.member}"

    @property
    def _beat_micros(self) -> int:
        return int(self.group.beat_seconds * _MICROSECONDS)

    def partition_of(self, stream: str) -> int:
        """To which partition a stream falls."""
        found = self._partition_of.get(stream)
        if found is None:
            if len(self._partition_of) >= 10_000:
                self._partition_of.clear()
            found = self._partition_of[stream] = hash_of(stream) % self.group.partitions
        return found

    # What is kept

    def load(self) -> Effect[None]:
        """Read which generation is followed, and which partitions of it are this member's."""
        follower = self.follower
        generation = follower.checkpoint.generation
        yield from follower.load_generation()
        while follower.checkpoint.revision == 0:
            # Whoever is the first of a group says so before it has any partition, so that all know of it.
            if not isinstance((yield from follower.checkpoint.advance(0)), Conflict):
                break
            yield from follower.load_generation()
        if follower.checkpoint.generation != generation:
            self.parts, self.reached = {}, {}
        before = {index: part.position for index, part in self.parts.items()}
        kept = yield from parts_of(self.name, follower.checkpoint.generation)
        self._take({index: found for index, found in kept.items() if found[0].owner == self.member})
        follower.handling.reloaded(any(self.parts[index].position > before.get(index, 0) for index in self.parts))

    def _take(self, mine: dict[int, tuple[Partition, int]]) -> None:
        self.parts = {index: self._checkpoint(index, *found) for index, found in sorted(mine.items())}
        self.reached = {index: max(part.position, self.reached.get(index, 0)) for index, part in self.parts.items()}

    def _checkpoint(self, index: int, part: Partition, revision: int) -> Checkpoint[Partition]:
        base = self.follower.checkpoint
        key = f"{parts_prefix(self.name, base.generation)}{index}"
        return Checkpoint(
            self.name,
            base.generation,
            key,
            part,
            revision,
            checks=(ExpectRevision(base.key, base.revision),),
            covers=lambda stream: self.partition_of(stream) == index,
        )

    # Signs of life, and who has what

    def beat_if_due(self) -> Effect[bool]:
        """Give a sign of life where it is time, and take or give back partitions. False: something has changed."""
        now = self._asked_at = yield from perform(Now())
        if self._beat_at and 0 <= now - self._beat_at < self._beat_micros:
            return True
        yield from self._give_sign()
        self._beat_at = now
        living = yield from self._living(now)
        base = self.follower.checkpoint
        found = yield from kv.entry(base.key)
        is_as_known = found is not None and found.revision == base.revision
        return (yield from self._share(living)) and is_as_known

    def _give_sign(self) -> Effect[None]:
        self._beat += 1
        sign = SignOfLife(self._beat, self.follower.checkpoint.generation, self.group.partitions)
        while True:
            if not self._member_revision:
                found = yield from kv.entry(self._member_key)
                # What stands there is of one that was killed, or goes on and will learn that it has lost its name.
                self._member_revision = 0 if found is None else found.revision
            answer = yield from perform(KvPut(self._member_key, plain(sign), self._member_revision))
            if not isinstance(answer, Conflict):
                self._member_revision = answer
                return
            if answer.actual and self._beat > 1:
                raise InvalidRequest(
                    f"member {self.member!r} of follower {self.name!r} has begun a second time: give each member a "
                    "name of its own, or none"
                )
            # Others have taken this one for dead.
            self._member_revision = 0

    def _living(self, now: int) -> Effect[list[str]]:
        """The members that live, this one too. The signs of the others are taken away."""
        prefix, generation = members_prefix(self.name), self.follower.checkpoint.generation
        seen, living = {}, [self.member]
        for key, entry in (yield from kv.entries(prefix)):
            member = key[len(prefix) :]
            if member == self.member:
                continue
            revision, since = self._seen.get(member, (0, now))
            since = min(since, now) if revision == entry.revision else now
            if now - since >= SILENT_BEATS * self._beat_micros:
                yield from perform(KvDelete(key, entry.revision))
                continue
            seen[member] = entry.revision, since
            if kept_in(entry, SignOfLife, key).generation == generation:
                living.append(member)
        self._seen = seen
        return sorted(living)

    def _share(self, living: Sequence[str]) -> Effect[bool]:
        kept = yield from parts_of(self.name, self.follower.checkpoint.generation)
        count, place = len(living), living.index(self.member)
        share = self.group.partitions // count + (place < self.group.partitions % count)
        known = {index: part.revision for index, part in self.parts.items()}
        mine = {index for index, (part, _) in kept.items() if part.owner == self.member}
        is_as_known = {index: kept[index][1] for index in mine} == known
        for index in sorted(mine, reverse=True)[: max(0, len(mine) - share)]:
            yield from self._own(index, kept, "")
            is_as_known = False
        left = share - len(mine)
        for index in self._nobodys(kept, living):
            if left <= 0:
                break
            left -= yield from self._own(index, kept, self.member)
            is_as_known = False
        return is_as_known

    def _nobodys(self, kept: dict[int, tuple[Partition, int]], living: Sequence[str]) -> list[int]:
        """The partitions that nobody has who lives. Each member begins elsewhere, so that they seldom meet."""
        partitions = self.group.partitions
        start = living.index(self.member) * partitions // len(living)
        order = [(start + step) % partitions for step in range(partitions)]
        return [index for index in order if index not in kept or kept[index][0].owner not in living]

    def _own(self, index: int, kept: dict[int, tuple[Partition, int]], owner: str) -> Effect[bool]:
        """Have a partition belong to a member, or to nobody, where nothing has changed. Whether it was so."""
        part, revision = kept.get(index, (Partition(position=self.follower.checkpoint.position), 0))
        return not isinstance(
            (yield from self._checkpoint(index, part, revision).advance(part.position, owner=owner)), Conflict
        )

    def drop_some(self) -> Effect[bool]:
        """Delete some of what is left of generations that are gone. Whether there was any."""
        before = self.follower.checkpoint.revision
        dropped = yield from self.follower.drop_some()
        if self.follower.checkpoint.revision != before:
            yield from self.load()
        return dropped

    def leave(self) -> Effect[None]:
        """Give all partitions back, with what was passed over, and the name."""
        for index, part in self.parts.items():
            # Of events that were handled together some may have taken effect, and what was reached not be told yet.
            yield from part.advance(max(part.position, self.reached[index]), owner="")
        self.parts = {}
        if self._member_revision:
            yield from perform(KvDelete(self._member_key, self._member_revision))

    # Handling

    def handle(self, events: Sequence[Event]) -> Effect[bool]:
        """Let those of these events take effect that are this member's to see to. False: load and begin anew."""
        by_part: dict[int, list[Event]] = {}
        for event in events:
            index = self.partition_of(event.stream)
            if index in self.parts and event.position > self.reached[index]:
                by_part.setdefault(index, []).append(event)
        for index, mine in by_part.items():
            if not (yield from self._handle_part(index, mine)):
                self._stride = 1
                return False
        return True

    def _handle_part(self, index: int, events: Sequence[Event]) -> Effect[bool]:
        handling, first = self.follower.handling, 0
        while first < len(events):
            some = events[first : first + self._stride * handling.batch]
            if not (yield from handling.handle(self.parts[index], some)):
                return False
            self.reached[index] = some[-1].position
            first += len(some)
            asked_at = self._asked_at
            if not (yield from self.beat_if_due()):
                return False
            is_quick = self._asked_at - asked_at < self._beat_micros // 8
            self._stride = min(_STRIDE, 2 * self._stride) if is_quick else 1
        return True

    def pass_over(self, position: int, *, is_at_end: bool, at_once: bool) -> Effect[bool]:
        """All before a position was looked at: move the checkpoints that are far behind. False: begin anew.

        At the end all are moved, once for each sign of life, so that what they have passed may be truncated soon.
        """
        moves_all = is_at_end and (at_once or self._passed_at != self._beat)
        far = 1 if moves_all else FAR_POSITIONS
        self._passed_at = self._beat if moves_all else self._passed_at
        for index, part in self.parts.items():
            self.reached[index] = max(self.reached[index], position)
            behind = self.reached[index] - part.position
            if behind >= far and isinstance((yield from part.advance(self.reached[index])), Conflict):
                return False
        return True

    def pause(self, seconds: float) -> Effect[None]:
        """Wait so long, and give signs of life meanwhile."""
        until = (yield from perform(Now())) + int(seconds * _MICROSECONDS)
        while (left := until - (yield from perform(Now()))) > 0:
            yield from perform(Sleep(min(left / _MICROSECONDS, self.group.beat_seconds)))
            yield from self._give_sign()


def follow_shared(crew: Crew, timeout: float, skip_truncated: bool) -> Effect[int]:
    """Follow as a member, to the end of the log, or for as long as is waited for more. Then leave the group."""
    try:
        position = yield from _follow(crew, timeout, skip_truncated)
    except (GeneratorExit, StoreUnavailable):
        # Nothing can be asked any more: the others will notice.
        raise
    except BaseException:
        yield from crew.leave()
        raise
    yield from crew.leave()
    return position


def _follow(crew: Crew, timeout: float, skip_truncated: bool) -> Effect[int]:
    follower, prefix = crew.follower, crew.follower.wanted.prefix
    yield from crew.load()
    waited = 0.0
    while True:
        if not (yield from crew.beat_if_due()):
            yield from crew.load()
        is_good, has_more, position = yield from _look(crew, skip_truncated)
        if not is_good:
            yield from crew.load()
            continue
        if (0 in crew.parts or not has_more) and (yield from crew.drop_some()):
            # One of the members sees to it, and who has nothing else to do. Events may have come meanwhile.
            continue
        if has_more:
            waited = 0.0
            continue
        if follower.is_building and (yield from follower.take_over()):
            yield from crew.load()
            continue
        if waited >= timeout:
            return position
        rest = min(timeout - waited, crew.group.beat_seconds)
        if not crew.parts:
            yield from perform(Sleep(rest))
        elif (yield from perform(Wait(position, prefix, rest))) > position:
            waited = 0.0
            continue
        waited += rest


def _look(crew: Crew, skip_truncated: bool) -> Effect[tuple[bool, bool, int]]:
    """Handle a page of events. Whether nothing has changed, whether there is more, and the position reached."""
    follower, wanted = crew.follower, crew.follower.wanted
    for part in crew.parts.values():
        if part.record.retry and not (yield from follower.handling.try_again(part, wanted.types, skip_truncated)):
            return False, True, 0
    if not crew.parts:
        return True, False, 0
    position = min(crew.reached.values())
    page = yield from log.page_all(position, wanted.prefix, wanted.types)
    check_not_past_end(wanted.name, position, page)
    if page.hole is not None:
        yield from _count_missed(crew, skip_truncated)
    if not (yield from crew.handle(followed(page, wanted.prefix))):
        return False, True, position
    has_more = page.next < page.head
    is_good = yield from crew.pass_over(page.next, is_at_end=not has_more, at_once=follower.is_building)
    return is_good, has_more, page.next


def _count_missed(crew: Crew, skip_truncated: bool) -> Effect[None]:
    """Count, or refuse, what was dropped before this member's partitions have seen it.

    A page tells of one stream, which may be one that falls to another member, or that its partition was past. So each
    is asked for. Truncation that knows of followers leaves no such holes, so this is seldom done.
    """
    if not skip_truncated:
        yield from crew.load()
    low = min(crew.reached.values(), default=0)
    for stream, first_left in (yield from holes_after(crew.follower.wanted.prefix, low)).items():
        index = crew.partition_of(stream)
        part = crew.parts.get(index)
        if part is None or part.has_counted(stream, first_left):
            continue
        if stream in (yield from holes_after(stream, crew.reached[index])):
            if not skip_truncated:
                raise Truncated(stream, first_left)
            part.count_missed(stream, first_left)
