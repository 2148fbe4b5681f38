"""Following with one checkpoint: from it on, page after page, each event once, also beside others of the same name.

**Another version.** A version that is higher than the one whose effects are seen is built beside it, as a generation of
its own, from the first event on. Once it has come to where the log ended when it began, and no less far than the other,
it takes its place: one transaction makes the one record the other. Where the other goes on meanwhile, and may always be
a little ahead, it is asked to wait first (``hands_over``). It does so for a few seconds, in case nobody comes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from persist_effects import kv, log
from persist_effects.errors import InvalidRequest, StoreUnavailable, Truncated
from persist_effects.following.checkpoint import Checkpoint, extent, head_of
from persist_effects.following.dropping import drop_some
from persist_effects.following.handling import Handling
from persist_effects.following.models import ModelHandle
from persist_effects.following.records import (
    ASIDE_STREAMS,
    Record,
    head_key,
    kept_in,
    next_key,
    plain,
)
from persist_effects.following.tables import ModelTables, kept_tables, views_switched
from persist_effects.holes import holes_after
from persist_effects.machine import Effect, perform
from persist_effects.requests import Conflict, Entry, Hole, KvDelete, KvPut, Page, Transact, Wait, Write

FAR_POSITIONS = 1_000
"""Over how many positions a checkpoint is moved by itself. Reading past so many events again takes less time than one
synced write; and one write is little beside the appends that made them."""

HANDING_OVER_SECONDS = 5.0
"""How long a version waits for the one that is to take its place: more than a few events take, and no outage."""

LOOK_SECONDS = 5.0
"""How often a follower that waits for events looks whether somebody wants a rebuild, or what was set aside tried again.
"""


class Wanted(NamedTuple):
    """What a caller wants to follow."""

    name: str
    prefix: str
    types: list[str] | None
    version: int
    partitions: int
    model: ModelHandle | None

    @property
    def tables(self) -> ModelTables | None:
        """Those of its read model, if that has any."""
        return None if self.model is None else self.model.tables

    def record(self, **more: Any) -> Record:
        """What is to be kept of it at the beginning."""
        return Record(
            **{"position": 0, **more},
            prefix=self.prefix,
            types=self.types,
            version=self.version,
            partitions=self.partitions,
            has_model=self.model is not None,
            has_tables=self.tables is not None,
        )


class Follower:
    """One that follows: which generation it lets events take effect in, and how far that has come."""

    def __init__(self, wanted: Wanted, handling: Handling) -> None:
        self.wanted = wanted
        self.handling = handling
        self.is_building = False
        self.checkpoint: Checkpoint[Record] = self._checkpoint(head_key(wanted.name), wanted.record(), 0)

    @property
    def position(self) -> int:
        """Through which position events took effect."""
        return self.checkpoint.position

    def _checkpoint(self, key: str, record: Record, revision: int) -> Checkpoint[Record]:
        return Checkpoint(self.wanted.name, record.generation, key, record, revision)

    # Reading the checkpoint

    def load(self) -> Effect[int]:
        """Read the checkpoint, and return its position. Begins to build where this version is a higher one."""
        before = self.checkpoint.position
        yield from self.load_generation()
        self.handling.reloaded(self.position > before)
        return self.position

    def load_generation(self) -> Effect[None]:
        """The same for who has checkpoints beside this one, and says of those whether they have moved."""
        yield from self._load()
        model = self.wanted.model
        if self.wanted.tables is not None:
            yield from self._check_tables(self.wanted.tables)
        self.handling.fill(None if model is None else model.version(self.checkpoint.generation))

    def _load(self) -> Effect[None]:
        name = self.wanted.name
        while True:
            found = yield from head_of(name)
            if found is None:
                if self.checkpoint.revision:
                    raise InvalidRequest(
                        f"follower {name!r} was forgotten, or its checkpoint deleted, while it followed: it has "
                        "stopped, since all events would take effect again; follow again to begin with the first one"
                    )
                if (yield from self._begin_first()):
                    continue
                self.is_building = False
                self.checkpoint = self._checkpoint(head_key(name), self.wanted.record(), 0)
                return
            head, revision = found
            check_not_forgotten(name, head)
            if head.version > self.wanted.version:
                raise _goes_back(self.wanted, head.version, "has")
            built = yield from self._built(head)
            if self._is_to_build(head, built):
                if built is not None and built[0].version == self.wanted.version:
                    self._take(built[0], built[1].revision, is_building=True)
                    return
                yield from self._begin_to_build(head, revision, built)
                continue
            self._take(head, revision, is_building=False)
            if not head.hands_over:
                return
            yield from self._wait_for_the_other(revision)

    def _begin_first(self) -> Effect[bool]:
        """Make what the first generation needs before its first event. Whether there is such."""
        name, tables = self.wanted.name, self.wanted.tables
        if tables is None:
            return False
        first = KvPut(head_key(name), plain(self.wanted.record()), 0)
        # A conflict says that another follower of this name has begun.
        yield from perform(Transact((first, *tables.begun(name, 1), *tables.shown(1))))
        return True

    def _take(self, record: Record, revision: int, *, is_building: bool) -> None:
        check_same(self.wanted, record)
        # As it was kept before it said whose it is: that is said from now on.
        if record.prefix == "" and record.types is None:
            record = msgspec.structs.replace(record, prefix=self.wanted.prefix, types=self.wanted.types)
        key = next_key(self.wanted.name) if is_building else head_key(self.wanted.name)
        self.is_building = is_building
        self.checkpoint = self._checkpoint(key, record, revision)

    def _is_to_build(self, head: Record, built: tuple[Record, Entry] | None) -> bool:
        if built is not None and built[0].version > self.wanted.version > head.version:
            raise _goes_back(self.wanted, built[0].version, "is being built with")
        return head.version < self.wanted.version or (built is not None and built[0].version == self.wanted.version)

    def _built(self, head: Record) -> Effect[tuple[Record, Entry] | None]:
        """What is built to take the head's place."""
        if not head.building:
            return None
        key = next_key(self.wanted.name)
        found = yield from kv.entry(key)
        return None if found is None else (kept_in(found, Record, key), found)

    def _check_tables(self, tables: ModelTables) -> Effect[None]:
        """Refuse to fill tables that are other ones than there are."""
        name = self.wanted.name
        if (yield from kept_tables(name, self.checkpoint.generation)) != tables:
            raise InvalidRequest(
                f"read model {name!r} has other tables, or others' statements, than were made for version "
                f"{self.wanted.version}: give version={self.wanted.version + 1}, to build it anew"
            )

    # Building another generation

    def _begin_to_build(self, head: Record, revision: int, built: tuple[Record, Entry] | None) -> Effect[None]:
        dropping = head.dropping if built is None else [*head.dropping, built[0].generation]
        record = self.wanted.record(generation=head.last_generation + 1, target=(yield from log.head()))
        tables = self.wanted.tables
        begun = () if tables is None else tables.begun(self.wanted.name, record.generation)
        yield from begin_to_build(
            self.wanted.name, head, revision, record, dropping, built and built[1].revision, begun
        )

    def take_over(self) -> Effect[bool]:
        """Have what was built take the place of the other, if it has caught up. True: load, and go on."""
        mine, name = self.checkpoint.record, self.wanted.name
        lowest, _ = yield from extent(name, mine)
        if lowest < mine.target:
            return False
        found = yield from head_of(name)
        if found is None or found[0].building != mine.generation:
            return True
        head, revision = found
        _, highest = yield from extent(name, head)
        # The checkpoints of a group are not in the record, so that it must not move while this takes its place.
        if highest > lowest or (head.partitions and not head.hands_over):
            yield from self._ask_to_wait()
            return True
        whole = msgspec.structs.replace(mine, target=0, dropping=[*head.dropping, head.generation])
        has_tables = mine.has_tables or head.has_tables
        views = (yield from views_switched(name, head.generation, mine.generation)) if has_tables else []
        writes = (
            KvPut(head_key(name), plain(whole), revision),
            KvDelete(next_key(name), self.checkpoint.revision),
            *views,
        )
        if isinstance((yield from perform(Transact(writes))), Conflict):
            yield from self._ask_to_wait()
        return True

    def _ask_to_wait(self, *, is_asked: bool = True) -> Effect[None]:
        """Ask the version that is seen to wait for the one that is built, or take that back."""
        name = self.wanted.name
        found = yield from head_of(name)
        if found is None:
            return
        head, revision = found
        if head.hands_over != is_asked and (head.building or not is_asked):
            yield from put_head(name, msgspec.structs.replace(head, hands_over=is_asked), revision)

    def _wait_for_the_other(self, revision: int) -> Effect[None]:
        """Wait for the version that is to take this one's place; where it does not come, go on."""
        yield from kv.wait(revision, head_key(self.wanted.name), HANDING_OVER_SECONDS)
        yield from self._ask_to_wait(is_asked=False)

    def drop_some(self) -> Effect[bool]:
        """Delete some of what is left of generations that are gone. Whether there was any."""
        dropping = self.checkpoint.record.dropping
        if not dropping or self.is_building:
            return False
        try:
            if (yield from drop_some(self.wanted.name, dropping[0])):
                return True
        except StoreUnavailable:
            # Somebody still reads a table of it, say: it is dropped another time, and is in nobody's way.
            return False
        if isinstance((yield from self.checkpoint.advance(self.position, dropping=dropping[1:])), Conflict):
            yield from self.load()
        return True

    # Following

    def pass_over(self, position: int, far: int) -> Effect[int]:
        """Move the checkpoint to a position, where that is ``far``, and return the position to go on from."""
        if position - self.position < far:
            return position
        # A conflict says that another follower of this name has moved it.
        is_moved = not isinstance((yield from self.checkpoint.advance(position)), Conflict)
        return position if is_moved else (yield from self.load())

    def count_missed(self, hole: Hole) -> Effect[None]:
        """Count what was dropped before it was seen, once: it is written with the next events, or what passes over."""
        if not self.checkpoint.has_counted(hole.stream, hole.first_left):
            for stream, first_left in (yield from holes_after(self.wanted.prefix, self.position)).items():
                self.checkpoint.count_missed(stream, first_left)

    def has_passed_others(self) -> Effect[bool]:
        """Whether there are events under the prefix, past the checkpoint, that are not followed."""
        if self.wanted.types is None:
            return False
        page = yield from log.page_all(self.position, self.wanted.prefix, limit=1)
        return bool(page.events)


class _Looked(NamedTuple):
    """What came of a page: through which position all was handled, and whether there is more, or was a hole."""

    reached: int
    has_more: bool
    had_hole: bool


def follow_whole(follower: Follower, timeout: float, skip_truncated: bool) -> Effect[int]:
    """Follow with one checkpoint, to the end of the log, or for as long as is waited for more."""
    wanted = follower.wanted
    position = yield from follower.load()
    waited = 0.0
    while True:
        looked = yield from _look(follower, position, skip_truncated)
        if looked is None:
            position = yield from follower.load()
            continue
        # What waits long moves its checkpoint before, and what returns at once only if it was asked for more.
        passes_all = (wanted.types is not None and timeout > 0) or follower.is_building
        far = 1 if passes_all and not looked.has_more else FAR_POSITIONS
        position = yield from follower.pass_over(looked.reached, far)
        if follower.is_building and (yield from follower.take_over()):
            position = yield from follower.load()
            continue
        known = follower.checkpoint
        if (yield from follower.drop_some()):
            # Events may have come meanwhile, and another follower of this name, or who resets it, may have been here.
            position = position if follower.checkpoint is known else follower.position
            continue
        if looked.has_more or position != looked.reached:
            continue
        if timeout <= 0:
            has_passed = looked.had_hole or (yield from follower.has_passed_others())
            return (yield from follower.pass_over(position, 1)) if has_passed else position
        rest = min(timeout - waited, LOOK_SECONDS)
        newest = yield from perform(Wait(position, wanted.prefix, rest))
        if newest > position:
            waited = 0.0
            continue
        waited += rest
        if waited >= timeout:
            return (yield from follower.pass_over(position, 1)) if follower.position < newest else position
        position = yield from follower.load()


def _look(follower: Follower, position: int, skip_truncated: bool) -> Effect[_Looked | None]:
    """Handle a page of events. None: something has changed meanwhile, so load and begin anew."""
    wanted, handling, checkpoint = follower.wanted, follower.handling, follower.checkpoint
    if checkpoint.record.retry and not (yield from handling.try_again(checkpoint, wanted.types, skip_truncated)):
        return None
    page = yield from log.page_all(position, wanted.prefix, wanted.types)
    check_not_past_end(wanted.name, position, page)
    hole = page.hole
    if hole is not None:
        if not skip_truncated:
            # Another follower of this name may have been here since: then its checkpoint covers what was dropped.
            if (yield from follower.load()) <= position:
                raise Truncated(hole.stream, hole.first_left)
            return None
        yield from follower.count_missed(hole)
    if not (yield from handling.handle(checkpoint, followed(page, wanted.prefix))):
        return None
    return _Looked(page.next, page.next < page.head, hole is not None)


def check_not_past_end(name: str, position: int, page: Page) -> None:
    """Refuse to follow from a position that the store has not come to."""
    if page.head < position:
        raise InvalidRequest(
            f"follower {name!r} has its checkpoint at position {position}, but the store ends at {page.head}: "
            f"delete the key {head_key(name)!r} to begin anew"
        )


def followed(page: Page, prefix: str) -> Sequence[Any]:
    """The events of a page, without those that tell what was set aside: a follower of everything would meet its own."""
    if prefix.startswith(ASIDE_STREAMS) or not ASIDE_STREAMS.startswith(prefix):
        return page.events
    return [event for event in page.events if not event.stream.startswith(ASIDE_STREAMS)]


def check_same(wanted: Wanted, record: Record) -> None:
    """Refuse to go on from a checkpoint of other events, or of another kind of follower."""
    name, whose = wanted.name, (record.prefix, record.types)
    if whose not in (("", None), (wanted.prefix, wanted.types)):
        raise InvalidRequest(
            f"follower {name!r} is one of {_say_whose(*whose)}, and was asked to follow "
            f"{_say_whose(wanted.prefix, wanted.types)}, of which its checkpoint may have passed over events: give "
            f"each its own name; or this one version={record.version + 1}, to build it anew; or, to go on from here, "
            f"put {{'position': {record.position}}} under the key {head_key(name)!r}"
        )
    if record.partitions != wanted.partitions:
        raise InvalidRequest(
            f"follower {name!r} has {_say_partitions(record.partitions)}, and was asked to follow with "
            f"{_say_partitions(wanted.partitions)}: all that follow must say the same; to change it, give "
            f"version={record.version + 1}"
        )
    has = _say_model(record.has_model, record.has_tables)
    asked = _say_model(wanted.model is not None, wanted.tables is not None)
    if has != asked:
        raise InvalidRequest(
            f"follower {name!r} has {has}, and was asked to follow with {asked}: give the same, or "
            f"version={record.version + 1}"
        )


def _say_whose(prefix: str, types: list[str] | None) -> str:
    return f"the prefix {prefix!r}" + ("" if types is None else f" of the types {types}")


def _say_partitions(partitions: int) -> str:
    return f"{partitions} partitions" if partitions else "no partitions"


def _say_model(has_model: bool, has_tables: bool) -> str:
    return "a read model in tables" if has_tables else "a read model" if has_model else "no read model"


def check_not_forgotten(name: str, record: Record) -> None:
    """Refuse to follow as somebody who is being removed."""
    if record.is_forgotten:
        raise InvalidRequest(
            f"follower {name!r} is being forgotten, and that has not come to its end: forget it again, and then follow"
        )


def _goes_back(wanted: Wanted, version: int, verb: str) -> InvalidRequest:
    return InvalidRequest(
        f"follower {wanted.name!r} {verb} version {version}, and was asked to follow with version {wanted.version}, "
        f"which is older: run the release of version {version}, or give a version above it"
    )


def begin_to_build(  # noqa: PLR0917 - what is there, and what is to come
    name: str,
    head: Record,
    revision: int,
    record: Record,
    dropping: list[int],
    built_revision: int | None,
    begun: Sequence[Write] = (),
) -> Effect[bool]:
    """Begin another generation beside the one whose effects are seen. False: something has changed meanwhile."""
    beside = msgspec.structs.replace(head, building=record.generation, hands_over=False, dropping=dropping)
    writes = (
        KvPut(head_key(name), plain(beside), revision),
        KvPut(next_key(name), plain(record), built_revision or 0),
        *begun,
    )
    return not isinstance((yield from perform(Transact(writes))), Conflict)


def put_head(name: str, record: Record, revision: int) -> Effect[int | Conflict]:
    """Put what is kept of a follower, where it is as it was known."""
    return (yield from perform(KvPut(head_key(name), plain(record), revision)))
