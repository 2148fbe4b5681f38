"""`follow`: handle each event once, from a checkpoint on. The door: what a caller says is checked here."""

from collections.abc import Iterable

from persist_effects import targets
from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer, check_items
from persist_effects.following.handling import ON_ERROR, FollowHandler, Handling, OnError, Retry
from persist_effects.following.models import ReadModel
from persist_effects.following.records import check_follower_name
from persist_effects.following.shared import Crew, Group, follow_shared
from persist_effects.following.sql_models import SqlModel
from persist_effects.following.whole import Follower, Wanted, follow_whole
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import PAGE_SIZE_MAX, NewId, Wait

NO_RETRY = Retry()


@program
def follow(
    name: str | ReadModel | SqlModel,
    prefix: str,
    handler: FollowHandler,
    *,
    types: Iterable[str] | None = None,
    batch: int = 1,
    timeout: float = 0.0,
    skip_truncated: bool = False,
    version: int = 1,
    on_error: OnError = "stop",
    retry: Retry = NO_RETRY,
    group: Group | None = None,
    member: str | None = None,
    into: str | None = None,
) -> Effect[int]:
    """Handle each event under a prefix once, from the checkpoint on.

    The writes of an event and the checkpoint, kept in kv under ``follow/<name>``, are one transaction. Where it
    conflicts, because another follower of the same name or another writer came first, the checkpoint is read again and
    the handler asked again. The checkpoint says which prefix and types it is of: a name is one follower's, and with
    others it is refused, since it has passed over events that they would never see. Over events that are not followed
    it is moved by itself, now and then, and at once over other types under the prefix, so that those may be truncated.

    **A handler that has changed** needs a higher ``version``: it begins with the first event, beside the one before,
    whose place it takes once it has caught up. Where ``name`` is a `ReadModel`, its keys are filled beside the old
    ones, which go on answering until then. A lower version is refused.

    **A handler that fails** is asked again as ``retry`` says, and then: "stop" raises its error, with a note that
    names follower and event; "skip" passes over the event; "set-aside" tells of it in the stream
    ``set-aside/<name>``, and goes on with other streams. Later events of that one are set aside too, until
    `persist_effects.followers.retry` has them tried again, in order. What no other event would be spared is always
    raised: `StoreUnavailable`, `UncertainOutcome`, `UnhandledEffect`.

    **Several workers**: any number may follow under one name, of which the quickest lets an event take effect. To
    share the streams, so that each works, they follow as the members of a ``group``: see `Group`.

    Args:
        name: The follower's name; or the handle of its read model, in keys or in tables.
        prefix: How the streams' names start.
        handler: A function of an event that returns the writes that it shall have (requests, such as ``KvPut``); or a
            program that reads first and returns them. With a read model, it is given the version that it
            fills too: a `ModelVersion`, or a `SqlVersion`.
        types: Only events of these types.
        batch: How many events share a transaction. More are faster, but handlers of one batch do not see each other's
            writes.
        timeout: How many seconds to wait for the next event, once all were handled; ``float("inf")`` follows for ever.
        skip_truncated: Whether to pass over events that were dropped before this follower has seen them.
        version: That of the handler, from 1 on: to be raised where what it writes changes.
        on_error: What comes of an event whose handler fails: "stop", "skip" or "set-aside".
        retry: How often a handler that fails is asked again before that, and when.
        group: Of how many partitions, and for how long a member has one that gives no sign of life.
        member: The name of this member of the group, which no other has; a new one unless given.
        into: The name of another store, where the checkpoint is kept, and whatever is written, in one transaction: see
            `persist_effects.targets`. Of the store that has the events, only these are read.

    Returns:
        The position reached. Of a group, that of this member's partitions.

    Raises:
        Truncated: If events were dropped that this follower has not seen.
        InvalidRequest: If the name is another follower's, or the version a lower one; if what the handler gives is not
            a list of writes; if the same events met too many conflicts.

    >>> from interpreters import open_store
    >>> from persist_effects import kv, log
    >>> from persist_effects.requests import KvPut
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", {"total": 12}))
    >>> store.run(follow("totals", "orders/", lambda event: [KvPut(f"total/{event.stream}", event.data["total"])]))
    1
    >>> store.run(kv.get("total/orders/1"))
    12
    """
    model, name = (name, name.name) if isinstance(name, ReadModel | SqlModel) else (None, name)
    check_follower_name(name)
    check_integer("batch", batch, 1, PAGE_SIZE_MAX)
    check_integer("version", version, 1)
    if not callable(handler):
        raise InvalidRequest(f"the handler of follower {name!r} is {describe(handler)}: give a function of one event")
    if on_error not in ON_ERROR:
        raise InvalidRequest(f"on_error is {on_error!r}: give one of {', '.join(ON_ERROR)}")
    if type(retry) is not Retry:
        raise InvalidRequest(f"retry is {describe(retry)}: give a Retry, such as Retry(times=5)")
    Wait(0, prefix, timeout)  # which refuses a prefix and a timeout that make no sense
    wanted_types = None if types is None else sorted(set(check_items("types", types, "a list of event types")))
    partitions = 0 if group is None else _checked_group(name, group).partitions
    handling = Handling(name, handler, batch, on_error, retry)
    follower = Follower(Wanted(name, prefix, wanted_types, version, partitions, model), handling)
    if group is None:
        if member is not None:
            raise InvalidRequest(f"member {member!r} of follower {name!r} needs a group: give group=Group(), too")
        following = follow_whole(follower, timeout, skip_truncated)
    else:
        crew = Crew(follower, group, (yield from perform(NewId())) if member is None else member)
        handling.pause = crew.pause
        following = follow_shared(crew, timeout, skip_truncated)
    return (yield from following if into is None else targets.into(into, following))


def _checked_group(name: str, group: Group) -> Group:
    if type(group) is not Group:
        raise InvalidRequest(f"group is {describe(group)}: give a Group, such as Group(partitions=16)")
    if "/" in name:
        raise InvalidRequest(
            f"follower name {name!r} has a slash: that of a group is part of keys, so give one without"
        )
    return group
