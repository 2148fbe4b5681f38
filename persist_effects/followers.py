"""Looking after followers: which there are, how far each is behind, and what to do about one. All are programs.

They ask and change what `persist_effects.subscription.follow` keeps, so that they need no handler: a rebuild, or what
was set aside and is to be tried again, is done by those that follow, at once where they wait for events.
"""

import msgspec

from persist_effects import kv, log
from persist_effects.errors import InvalidRequest
from persist_effects.event import Event, check_integer
from persist_effects.following.checkpoint import Checkpoint, asides_of, extent, parts_of
from persist_effects.following.records import (
    HEADS,
    Aside,
    Partition,
    Reached,
    Record,
    check_follower_name,
    hash_of,
    head_key,
    kept_in,
    members_prefix,
    next_key,
    parts_prefix,
    record_in,
)
from persist_effects.following.tables import kept_tables
from persist_effects.following.whole import (
    begin_to_build,
    check_not_forgotten,
    drop_generation,
    drop_keys,
    followed,
)
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import PAGE_SIZE_MAX, Conflict, KvDelete, KvPut, Transact


class Built(msgspec.Struct, frozen=True):
    """A version that is built beside the one whose effects are seen: through ``position`` so far, of ``target``."""

    version: int
    position: int
    target: int


class Registered(msgspec.Struct, frozen=True):
    """A follower, as it is now.

    Args:
        name: Its name.
        prefix: How the names of its streams start.
        types: Only events of these types; None: of all.
        version: The version whose effects are seen.
        position: Through which position all its events took effect.
        has_model: Whether it has a read model.
        partitions: Of a group, how many it has; 0: it is none.
        members: Of a group, who has given a sign of life.
        aside: The streams of which events were set aside.
        skipped: How many events were passed over, since their handler failed.
        missed: How many, at the most, were truncated before they were seen.
        building: What is built to take its place; None: nothing is.
        is_forgotten: Somebody has begun to remove it.
    """

    name: str
    prefix: str
    types: list[str] | None
    version: int
    position: int
    has_model: bool
    partitions: int
    members: list[str]
    aside: list[Aside]
    skipped: int
    missed: int
    building: Built | None
    is_forgotten: bool


class Lag(msgspec.Struct, frozen=True):
    """How far a follower is behind: of how many events, the first of which is from ``since``; None: of none.

    ``position`` is that through which all its events took effect, ``head`` that of the newest event of the store.
    """

    name: str
    position: int
    head: int
    unseen: int
    since: int | None


@program
def names() -> Effect[list[str]]:
    """The names of all followers.

    Returns:
        The names, sorted by code point.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", 12)), store.run(follow("totals", "orders/", lambda event: []))
    >>> store.run(names())
    ['totals']
    """
    return [key[len(HEADS) :] for key in (yield from kv.keys(HEADS))]


@program
def registered(name: str) -> Effect[Registered]:
    """A follower, as it is now.

    Args:
        name: Its name.

    Returns:
        What is known of it.

    Raises:
        InvalidRequest: If there is none of this name.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", 12)), store.run(follow("totals", "orders/", lambda event: []))
    >>> found = store.run(registered("totals"))
    >>> found.prefix, found.version, found.position
    ('orders/', 1, 1)
    """
    record, _ = yield from _head(name)
    position, _ = yield from extent(name, record)
    parts = yield from parts_of(name, record.generation)
    asides = yield from asides_of(name, record.generation)
    prefix = members_prefix(name)
    members = [key[len(prefix) :] for key in (yield from kv.keys(prefix))] if record.partitions else []
    return Registered(
        name,
        record.prefix,
        record.types,
        record.version,
        position,
        record.has_model,
        record.partitions,
        members,
        sorted((aside for aside, _ in asides.values()), key=lambda aside: aside.position),
        record.skipped + sum(part.skipped for part, _ in parts.values()),
        record.missed + sum(part.missed for part, _ in parts.values()),
        (yield from _built(name, record)),
        record.is_forgotten,
    )


@program
def lag(name: str) -> Effect[Lag]:
    """How far a follower is behind. Reads what it has not seen.

    Args:
        name: Its name.

    Returns:
        How many events it has not seen, and from when the first of them is.

    Raises:
        InvalidRequest: If there is none of this name.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store = open_store("memory:", clock=lambda: 7)
    >>> _ = store.run(log.append("orders/1", "placed", 12)), store.run(follow("totals", "orders/", lambda event: []))
    >>> _ = store.run(log.append("orders/1", "placed", 12))
    >>> store.run(lag("totals"))
    Lag(name='totals', position=1, head=2, unseen=1, since=7)
    """
    record, _ = yield from _head(name)
    lowest, _ = yield from extent(name, record)
    seen = {index: part.position for index, (part, _) in (yield from parts_of(name, record.generation)).items()}

    def is_unseen(event: Event) -> bool:
        partition = hash_of(event.stream) % record.partitions if record.partitions else 0
        return event.position > seen.get(partition, lowest if record.partitions else record.position)

    unseen, since, position = 0, None, lowest
    while True:
        page = yield from log.page_all(position, record.prefix, record.types, limit=PAGE_SIZE_MAX)
        for event in followed(page, record.prefix):
            if is_unseen(event):
                unseen += 1
                since = event.at if since is None else since
        position = page.next
        if position >= page.head:
            return Lag(name, lowest, page.head, unseen, since)


@program
def rebuild(name: str) -> Effect[None]:
    """Have the read model of a follower built anew, beside the one that answers until it has caught up.

    Those that follow build it: they begin once they have handled a page, and where they wait, with the next event.

    Args:
        name: The follower's name.

    Raises:
        InvalidRequest: If there is no such follower; if it has no read model; if one is being built.

    >>> from interpreters import open_store
    >>> from persist_effects import ReadModel, follow
    >>> store, totals = open_store("memory:"), ReadModel("totals")
    >>> _ = store.run(log.append("orders/1", "placed", 12))
    >>> def add(event, totals):
    ...     return [totals.put(event.stream, event.data)]
    >>> _ = store.run(follow(totals, "orders/", add))
    >>> store.run(rebuild("totals"))
    >>> store.run(registered("totals")).building
    Built(version=1, position=0, target=1)
    >>> _ = store.run(follow(totals, "orders/", add))
    >>> store.run(totals.get("orders/1"))
    12
    """
    while True:
        head, revision = yield from _live_head(name)
        if not head.has_model:
            raise InvalidRequest(
                f"follower {name!r} has no read model that could be built beside another: have it reset, and its "
                "events take effect again; or let it follow with a ReadModel"
            )
        if head.building:
            raise InvalidRequest(f"follower {name!r} is being built anew already: let that come to its end")
        record = Record(
            position=0,
            prefix=head.prefix,
            types=head.types,
            version=head.version,
            generation=head.last_generation + 1,
            partitions=head.partitions,
            has_model=True,
            has_tables=head.has_tables,
            target=(yield from log.head()),
        )
        tables = (yield from kept_tables(name, head.generation)) if head.has_tables else None
        begun = tables.begun(name, record.generation) if tables else ()
        if (yield from begin_to_build(name, head, revision, record, head.dropping, None, begun)):
            return


@program
def reset(name: str, position: int = 0) -> Effect[None]:
    """Have the events of a follower take effect again, those past a position. What was set aside is forgotten.

    Args:
        name: The follower's name.
        position: Past which position; 0: all of them.

    Raises:
        InvalidRequest: If there is no such follower; if it has a read model, which is rebuilt instead; if the position
            is past the store's end.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", 12)), store.run(follow("mails", "orders/", lambda event: []))
    >>> store.run(reset("mails"))
    >>> store.run(lag("mails")).unseen
    1
    """
    check_integer("position", position)
    end = yield from log.head()
    if position > end:
        raise InvalidRequest(f"position is {position}, and the store ends at {end}: give one that it has come to")
    while True:
        head, revision = yield from _live_head(name)
        if head.has_model:
            raise InvalidRequest(
                f"follower {name!r} has a read model, in which events would count twice: have it rebuilt instead"
            )
        anew = msgspec.structs.replace(
            head,
            position=position,
            generation=head.last_generation + 1,
            dropping=[*head.dropping, head.generation],
            aside=0,
            skipped=0,
            retry=False,
        )
        if not isinstance((yield from _put(name, anew, revision)), Conflict):
            return


@program
def retry(name: str) -> Effect[int]:
    """Have what a follower has set aside tried again, each stream in its order, by those that follow.

    Args:
        name: The follower's name.

    Returns:
        Of how many streams events were set aside.

    Raises:
        InvalidRequest: If there is no such follower.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store, refused = open_store("memory:"), ["orders/1"]
    >>> def mail(event):
    ...     if event.stream in refused:
    ...         raise ValueError("no address")
    ...     return [KvPut(f"mailed/{event.stream}", event.seq)]
    >>> _ = store.run(log.append("orders/1", "placed", 12))
    >>> _ = store.run(follow("mails", "orders/", mail, on_error="set-aside"))
    >>> [event.data["error"] for event in store.run(log.read("set-aside/mails"))]
    ['ValueError: no address']
    >>> refused.clear()
    >>> store.run(retry("mails"))
    1
    >>> _ = store.run(follow("mails", "orders/", mail, on_error="set-aside"))
    >>> store.run(kv.get("mailed/orders/1"))
    1
    """
    head, revision = yield from _live_head(name)
    if not head.partitions:
        while head.aside and isinstance((yield from _put(name, _to_retry(head), revision)), Conflict):
            head, revision = yield from _live_head(name)
        return head.aside
    count = 0
    for index in (yield from parts_of(name, head.generation)):
        count += yield from _retry_part(name, head.generation, index)
    return count


@program
def forget(name: str) -> Effect[None]:
    """Remove a follower, its checkpoint and its read model: it holds back no truncation any more.

    Interrupted, it is done again by the same call; until then nobody can follow under this name. What tells of events
    that were set aside stays, in the stream ``set-aside/<name>``.

    Args:
        name: The follower's name.

    Raises:
        InvalidRequest: If there is no such follower.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", 12)), store.run(follow("mails", "orders/", lambda event: []))
    >>> store.run(forget("mails"))
    >>> store.run(names())
    []
    """
    while True:
        head, revision = yield from _head(name)
        put = yield from _put(name, msgspec.structs.replace(head, is_forgotten=True), revision)
        if not isinstance(put, Conflict):
            break
    for generation in {head.generation, head.building, *head.dropping} - {0}:
        yield from drop_generation(name, generation, are_seen=generation == head.generation)
    if head.partitions:
        yield from drop_keys(members_prefix(name), in_folders=True)
    yield from perform(Transact((KvDelete(next_key(name)), KvDelete(head_key(name), put))))


def _head(name: str) -> Effect[tuple[Record, int]]:
    check_follower_name(name)
    found = yield from kv.entry(head_key(name))
    record = record_in(found, name)
    if record is None or found is None:
        others = yield from names()
        known = f"there are {', '.join(map(repr, others[:20]))}" if others else "there is none"
        raise InvalidRequest(f"there is no follower {name!r}: {known}")
    return record, found.revision


def _live_head(name: str) -> Effect[tuple[Record, int]]:
    head, revision = yield from _head(name)
    check_not_forgotten(name, head)
    return head, revision


def _built(name: str, head: Record) -> Effect[Built | None]:
    found = (yield from kv.entry(next_key(name))) if head.building else None
    if found is None:
        return None
    record = kept_in(found, Record, next_key(name))
    position, _ = yield from extent(name, record)
    return Built(record.version, position, record.target)


def _to_retry(progress: Reached) -> Reached:
    return msgspec.structs.replace(progress, retry=True)


def _retry_part(name: str, generation: int, index: int) -> Effect[int]:
    while True:
        part, revision = (yield from parts_of(name, generation)).get(index, (Partition(position=0), 0))
        if not part.aside:
            return 0
        checkpoint = Checkpoint(name, generation, f"{parts_prefix(name, generation)}{index}", part, revision)
        if not isinstance((yield from checkpoint.advance(part.position, retry=True)), Conflict):
            return part.aside


def _put(name: str, record: Reached, revision: int) -> Effect[int | Conflict]:
    return (yield from perform(KvPut(head_key(name), msgspec.to_builtins(record), revision)))
