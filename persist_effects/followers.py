"""Looking after followers: which there are, how far each is behind, and what to do about one. All are programs.

They ask and change what `persist_effects.subscription.follow` keeps, so that they need no handler: a rebuild, or what
was set aside and is to be tried again, is done by those that follow, at once where they wait for events.
"""

import msgspec

from persist_effects import kv, log
from persist_effects.errors import InvalidRequest, Truncated
from persist_effects.event import Event, check_integer
from persist_effects.following.checkpoint import Checkpoint, asides_of, extent, head_of, parts_of
from persist_effects.following.dropping import drop_generation, drop_keys
from persist_effects.following.records import (
    HEADS,
    Aside,
    Partition,
    Record,
    aside_stream,
    check_follower_name,
    hash_of,
    head_key,
    kept_in,
    members_prefix,
    next_key,
    parts_prefix,
    plain,
    record_in,
)
from persist_effects.following.tables import kept_tables
from persist_effects.following.whole import (
    begin_to_build,
    check_not_forgotten,
    followed,
    put_head,
)
from persist_effects.holes import holes_after
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import PAGE_SIZE_MAX, Conflict, KvDelete, KvPut, Read, Transact


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
        awaits_retry: What was set aside is to be tried again, and has not been yet.
        shares: Of a group, by each member the numbers of its partitions; under an empty name those that nobody has.
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
    awaits_retry: bool = False
    shares: dict[str, list[int]] = {}


class SetAside(msgspec.Struct, frozen=True):
    """Events of a stream that were set aside: from ``first`` through ``through``, the first of which failed.

    ``position`` is that of the first, ``type`` its type, ``error`` what it met the last time, at ``at``, and ``tried``
    how often it was tried then. They are None where the event that told so, of the stream ``set-aside/<name>``, was
    truncated.
    """

    stream: str
    first: int
    through: int
    position: int
    type: str | None = None
    error: str | None = None
    tried: int | None = None
    at: int | None = None


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
    return (yield from _registered(name, record))


@program
def all_registered() -> Effect[list[Registered]]:
    """All followers, as they are now.

    Returns:
        What is known of each, sorted by the names.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", 12)), store.run(follow("totals", "orders/", lambda event: []))
    >>> [found.name for found in store.run(all_registered())]
    ['totals']
    """
    found: list[Registered] = []
    for key, entry in (yield from kv.entries(HEADS)):
        name = key[len(HEADS) :]
        record = record_in(entry, name)
        assert record is not None
        found.append((yield from _registered(name, record)))
    return found


@program
def set_aside(name: str) -> Effect[list[SetAside]]:
    """What a follower has set aside, and what each first event met. Reads what the stream ``set-aside/<name>`` tells.

    Args:
        name: The follower's name.

    Returns:
        The streams of which events were set aside, in the order of these.

    Raises:
        InvalidRequest: If there is no such follower.

    >>> from interpreters import open_store
    >>> from persist_effects import follow
    >>> store = open_store("memory:")
    >>> def mail(event):
    ...     raise ValueError("no address")
    >>> _ = store.run(log.append("orders/1", "placed", 12))
    >>> _ = store.run(follow("mails", "orders/", mail, on_error="set-aside"))
    >>> [(found.stream, found.first, found.error) for found in store.run(set_aside("mails"))]
    [('orders/1', 1, 'ValueError: no address')]
    """
    record, _ = yield from _head(name)
    asides = yield from asides_of(name, record.generation)
    wanted = {(aside.stream, aside.first): aside for aside, _ in asides.values()}
    told: dict[tuple[str, int], Event] = {}
    until: int | None = None
    # From the newest on: what it met last.
    while until != 0 and len(told) < len(wanted):
        page = yield from perform(Read(aside_stream(name), until=until, backwards=True))
        for event in page.events:
            which = (event.data["stream"], event.data["seq"])
            if which in wanted:
                told.setdefault(which, event)
        until = page.events[-1].seq - 1 if page.events else 0
    found = [_set_aside(aside, told.get(which)) for which, aside in wanted.items()]
    return sorted(found, key=lambda one: one.position)


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
def rebuild(name: str, *, skip_truncated: bool = False) -> Effect[None]:
    """Have the read model of a follower built anew, beside the one that answers until it has caught up.

    Those that follow build it: they begin once they have handled a page, and where they wait, with the next event.
    `cancel` gives it up.

    Args:
        name: The follower's name.
        skip_truncated: Whether to build it without events that were dropped. Those that follow must say the same.

    Raises:
        InvalidRequest: If there is no such follower; if it has no read model; if one is being built.
        Truncated: If events were dropped that it would be built of: those that follow could not go on.

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
            raise InvalidRequest(
                f"follower {name!r} is being built anew already: let that come to its end, or have it cancelled"
            )
        if not skip_truncated:
            for stream, first_left in sorted((yield from holes_after(head.prefix, 0)).items()):
                raise Truncated(stream, first_left)
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
def cancel(name: str) -> Effect[bool]:
    """Give up what is built to take a follower's place. The version whose effects are seen goes on.

    A program that follows with a higher version begins to build again.

    Args:
        name: The follower's name.

    Returns:
        Whether anything was being built.

    Raises:
        InvalidRequest: If there is no such follower.

    >>> from interpreters import open_store
    >>> from persist_effects import ReadModel, follow
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", 12))
    >>> _ = store.run(follow(ReadModel("totals"), "orders/", lambda event, totals: []))
    >>> store.run(rebuild("totals"))
    >>> store.run(cancel("totals")), store.run(cancel("totals"))
    (True, False)
    """
    while True:
        head, revision = yield from _live_head(name)
        if not head.building:
            return False
        alone = msgspec.structs.replace(head, building=0, hands_over=False, dropping=[*head.dropping, head.building])
        # Who builds it knows the key by its revision, meets a conflict, and looks what there is now.
        writes = (KvPut(head_key(name), plain(alone), revision), KvDelete(next_key(name)))
        if not isinstance((yield from perform(Transact(writes))), Conflict):
            return True


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
        if not isinstance((yield from put_head(name, anew, revision)), Conflict):
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
        while head.aside and isinstance(
            (yield from put_head(name, msgspec.structs.replace(head, retry=True), revision)), Conflict
        ):
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
        put = yield from put_head(name, msgspec.structs.replace(head, is_forgotten=True), revision)
        if not isinstance(put, Conflict):
            break
    for generation in {head.generation, head.building, *head.dropping} - {0}:
        yield from drop_generation(name, generation, are_seen=generation == head.generation)
    if head.partitions:
        yield from drop_keys(members_prefix(name))
    yield from perform(Transact((KvDelete(next_key(name)), KvDelete(head_key(name), put))))


def _head(name: str) -> Effect[tuple[Record, int]]:
    check_follower_name(name)
    found = yield from head_of(name)
    if found is None:
        others = yield from names()
        known = f"there are {', '.join(map(repr, others[:20]))}" if others else "there is none"
        raise InvalidRequest(f"there is no follower {name!r}: {known}")
    return found


def _registered(name: str, record: Record) -> Effect[Registered]:
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
        record.retry or any(part.retry for part, _ in parts.values()),
        _shares(record.partitions, parts),
    )


def _shares(partitions: int, parts: dict[int, tuple[Partition, int]]) -> dict[str, list[int]]:
    shares: dict[str, list[int]] = {}
    for index in range(partitions):
        owner = parts[index][0].owner if index in parts else ""
        shares.setdefault(owner, []).append(index)
    return shares


def _set_aside(aside: Aside, told: Event | None) -> SetAside:
    if told is None:
        return SetAside(aside.stream, aside.first, aside.through, aside.position)
    said = told.data
    return SetAside(
        aside.stream, aside.first, aside.through, aside.position, said["type"], said["error"], said["tried"], told.at
    )


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


def _retry_part(name: str, generation: int, index: int) -> Effect[int]:
    while True:
        part, revision = (yield from parts_of(name, generation)).get(index, (Partition(position=0), 0))
        if not part.aside:
            return 0
        checkpoint = Checkpoint(name, generation, f"{parts_prefix(name, generation)}{index}", part, revision)
        if not isinstance((yield from checkpoint.advance(part.position, retry=True)), Conflict):
            return part.aside
