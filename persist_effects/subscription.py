"""Reacting to events: at once with a `Hub`, or by catching up with `follow`. All effects are programs.

A hub runs callbacks in the program that publishes, after the append; it is lost with the process. A follower reads
the log from its own checkpoint, so it misses nothing, and each event takes effect once: the checkpoint is written in
the same transaction as the handler's writes.
"""

from collections.abc import Callable, Iterable, Sequence
from types import GeneratorType
from typing import Any

from persist_effects import kv, log
from persist_effects.errors import InvalidRequest, Truncated, describe, describe_type
from persist_effects.event import INT64_MAX, Event, check_integer, check_items, check_name
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import PAGE_SIZE_MAX, Conflict, Entry, KvPut, Transact, Wait, Write

_ATTEMPTS = 100
"""How often a follower tries the same events: more often than a busy neighbour makes it lose."""

_FAR_POSITIONS = 1_000
"""Over how many positions a checkpoint is moved by itself. Reading past so many events again takes less time than one
synced write; and one write is little beside the appends that made them."""

_CHECKPOINT = 0
"""Which of the writes of a follower's transaction is its checkpoint."""

Callback = Callable[[Event], Effect[Any]]
FollowHandler = Callable[[Event], Effect[Sequence[Write]] | Sequence[Write]]


class Hub:
    """The callbacks of some streams. Pure data: make one for each store, when the program starts.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> hub = Hub()
    >>> hub.subscribe("orders/1", lambda event: kv.put("latest", event.seq))
    >>> store = open_store("memory:")
    >>> _ = store.run(publish(hub, "orders/1", "placed", {"total": 12}))
    >>> store.run(kv.get("latest"))
    1
    """

    def __init__(self) -> None:
        # Tuples, replaced whole: a publish that runs while another thread subscribes sees the old ones or the new.
        self._callbacks: dict[str, tuple[Callback, ...]] = {}

    def subscribe(self, stream: str, callback: Callback) -> None:
        """Run a callback after each publish to a stream, in the order of subscription.

        Args:
            stream: The stream's name.
            callback: A function of an event that gives a program.
        """
        check_name("stream name", stream)
        if not callable(callback):
            raise InvalidRequest(f"a callback is {describe(callback)}: give a generator function of one event")
        self._callbacks[stream] = (*self.callbacks(stream), callback)

    def unsubscribe(self, stream: str, callback: Callback) -> bool:
        """Take a callback out again.

        Args:
            stream: The stream's name.
            callback: The one that was subscribed.

        Returns:
            Whether it was there.
        """
        before = self.callbacks(stream)
        self._callbacks[stream] = tuple(kept for kept in before if kept != callback)
        return len(self._callbacks[stream]) < len(before)

    def callbacks(self, stream: str) -> tuple[Callback, ...]:
        """The callbacks of a stream.

        Args:
            stream: The stream's name.

        Returns:
            The callbacks, in the order of subscription.
        """
        return self._callbacks.get(stream, ())

    def streams(self) -> tuple[str, ...]:
        """The streams that have, or had, callbacks.

        Returns:
            Their names.
        """
        return tuple(self._callbacks)


@program
def publish(
    hub: Hub, stream: str, type: str, data: Any, *, at: int | None = None, meta: dict[str, Any] | None = None
) -> Effect[Event]:
    """Append one event, and run the hub's callbacks for its stream. A plain append bypasses them.

    An error from a callback is raised here, with a note that the event was appended; the callbacks after it do not
    run. What must not be missed belongs into `follow`.

    Args:
        hub: The hub.
        stream: The stream's name.
        type: The event's type.
        data: What happened: a value that can be stored.
        at: Its time, in microseconds since 1970, UTC. The store's clock gives one unless it is given.
        meta: What is kept beside the data.

    Returns:
        The event.

    Raises:
        InvalidRequest: If something in it cannot be stored, before anything is written; or if a callback is not a
            program.
        TooLarge: If the data or the meta is over the store's limit, before anything is written.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(publish(Hub(), "orders/1", "placed", {"total": 12})).seq
    1
    """
    event = yield from log.append(stream, type, data, at=at, meta=meta)
    for callback in hub.callbacks(stream):
        try:
            program = callback(event)
            if not isinstance(program, GeneratorType):
                raise InvalidRequest(
                    f"a callback of stream {stream!r} gave {describe(program)}, which is not a program: "
                    "subscribe a generator function of one event"
                )
            yield from program
        except Exception as error:
            error.add_note(f"raised by a callback of {stream!r}, after event {event.seq} was appended")
            raise
    return event


@program
def follow(
    name: str,
    prefix: str,
    handler: FollowHandler,
    *,
    types: Iterable[str] | None = None,
    batch: int = 1,
    timeout: float = 0.0,
    skip_truncated: bool = False,
) -> Effect[int]:
    """Handle each event under a prefix once, from the checkpoint on.

    The writes of an event and the checkpoint, kept in kv under ``follow/<name>``, are one transaction. Where it
    conflicts, because another follower of the same name or another writer came first, the checkpoint is read again and
    the handler asked again. The checkpoint says which prefix and types it is of: a name is one follower's, and with
    others it is refused, since it has passed over events that they would never see. Over events that are not followed
    it is moved by itself, now and then, and at once over other types under the prefix, so that those may be truncated.

    Args:
        name: The follower's name.
        prefix: How the streams' names start.
        handler: A function of an event that returns the writes that it shall have (requests, such as ``KvPut``); or a
            program that reads first and returns them.
        types: Only events of these types.
        batch: How many events share a transaction. More are faster, but handlers of one batch do not see each other's
            writes.
        timeout: How many seconds to wait for the next event, once all were handled; ``float("inf")`` follows for ever.
        skip_truncated: Whether to pass over events that were dropped before this follower has seen them.

    Returns:
        The position reached.

    Raises:
        Truncated: If events were dropped that this follower has not seen.
        InvalidRequest: If the name is another follower's; if what the handler gives is not a list of writes; if the
            same events met too many conflicts.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", {"total": 12}))
    >>> store.run(follow("totals", "orders/", lambda event: [KvPut(f"total/{event.stream}", event.data["total"])]))
    1
    >>> store.run(kv.get("total/orders/1"))
    12
    """
    check_integer("batch", batch, 1, PAGE_SIZE_MAX)
    if not callable(handler):
        raise InvalidRequest(f"the handler of follower {name!r} is {describe(handler)}: give a function of one event")
    wanted_types = None if types is None else check_items("types", types, "a list of event types")
    follower = _Follower(name, prefix, wanted_types, handler, batch)
    position = yield from follower.load()
    while True:
        page = yield from log.page_all(position, prefix, wanted_types)
        if page.head < position:
            raise InvalidRequest(
                f"follower {name!r} has its checkpoint at position {position}, but the store ends at {page.head}: "
                f"delete the key 'follow/{name}' to begin anew"
            )
        hole, reached, has_more = page.hole, page.next, page.next < page.head
        is_refused = hole is not None and not skip_truncated
        is_handled = not is_refused and (yield from follower.handle(page.events))
        # Let the page go before the next one is asked for.
        del page
        if not is_handled:
            before, position = position, (yield from follower.load())
            # Another follower of this name may have been here since: then its checkpoint covers what was dropped.
            if hole is not None and is_refused and position <= before:
                raise Truncated(hole.stream, hole.first_left)
            continue
        # What waits long moves its checkpoint before, and what returns at once only if it was asked for more.
        passes_all = wanted_types is not None and timeout > 0 and not has_more
        position = yield from follower.pass_over(reached, 1 if passes_all else _FAR_POSITIONS)
        if has_more or position != reached:
            continue
        if timeout > 0:
            newest = yield from perform(Wait(position, prefix, timeout))
            if newest > position:
                continue
            has_passed = follower.position < newest
        else:
            has_passed = hole is not None or (yield from follower.has_passed_other_types())
        if has_passed:
            yield from follower.pass_over(position, 1)
        return position


class _Follower:
    """A follower's checkpoint: the position up to which its events took effect, and the revision that says so."""

    def __init__(
        self, name: str, prefix: str, types: tuple[str, ...] | None, handler: FollowHandler, batch: int
    ) -> None:
        self._name = name
        self._mark = f"follow/{name}"
        # A follower of everything says nothing, as none did before.
        self._whose: dict[str, Any] = {}
        if prefix:
            self._whose["prefix"] = prefix
        if types is not None:
            self._whose["types"] = sorted(set(types))
        self._handler = handler
        self._wanted_batch = self._batch = batch
        self.position = 0
        self._revision = 0
        self._attempts_left = _ATTEMPTS
        self._lost: str | None = None
        check_name("follower name", name)
        check_name("follower's checkpoint key", self._mark)

    def load(self) -> Effect[int]:
        """Read the checkpoint, and return its position. Raises where the same events met too many conflicts."""
        before, lost, self._lost = self.position, self._lost, None
        found = yield from kv.entry(self._mark)
        self.position, self._revision = (0, 0) if found is None else (self._position_in(found), found.revision)
        if self.position > before:
            # Another follower of this name let these events take effect: the race was lost, and nothing is wrong.
            self._attempts_left = _ATTEMPTS
        elif lost is not None:
            self._attempts_left -= 1
            if not self._attempts_left:
                raise InvalidRequest(lost)
        return self.position

    def handle(self, events: Sequence[Event]) -> Effect[bool]:
        """Let these events take effect, batch by batch. False: something changed meanwhile, so load and begin anew."""
        for first in range(0, len(events), self._batch):
            batch = events[first : first + self._batch]
            writes = yield from self._writes_for(batch)
            conflict = yield from self._advance(batch[-1].position, writes)
            if conflict is not None:
                self._lost = self._say_stuck(batch, conflict)
                # Handlers of one batch do not see each other's writes, so the next try lets them go one by one. A
                # checkpoint that has moved says only that another follower was quicker.
                if conflict.write != _CHECKPOINT:
                    self._batch = 1
                return False
            self._attempts_left = _ATTEMPTS
        self._batch = self._wanted_batch
        return True

    def has_passed_other_types(self) -> Effect[bool]:
        """Whether there are events under the prefix, past the checkpoint, that are not followed."""
        if "types" not in self._whose:
            return False
        page = yield from log.page_all(self.position, self._whose.get("prefix", ""), limit=1)
        return bool(page.events)

    def pass_over(self, position: int, far: int) -> Effect[int]:
        """Move the checkpoint to a position, where that is ``far``, and return the position to go on from."""
        if position - self.position < far:
            return position
        conflict = yield from self._advance(position, [])
        # A conflict says that another follower of this name has moved it.
        return position if conflict is None else (yield from self.load())

    def _advance(self, position: int, writes: Sequence[Write]) -> Effect[Conflict | None]:
        checkpoint = KvPut(self._mark, {"position": position, **self._whose}, self._revision)
        answers = yield from perform(Transact((checkpoint, *writes)))
        if isinstance(answers, Conflict):
            return answers
        self.position, self._revision = position, answers[0]
        return None

    def _writes_for(self, events: Sequence[Event]) -> Effect[list[Write]]:
        writes: list[Write] = []
        for event in events:
            said = self._handler(event)
            if isinstance(said, GeneratorType):
                said = yield from said
            if not isinstance(said, list | tuple):
                raise InvalidRequest(
                    f"the handler of follower {self._name!r} gave {describe_type(said)} for the event at position "
                    f"{event.position}: give a list of writes, an empty one where there are none"
                )
            writes += said
        return writes

    def _position_in(self, found: Entry) -> int:
        position = found.value.get("position") if isinstance(found.value, dict) else None
        if type(position) is not int or not 0 <= position <= INT64_MAX:
            raise InvalidRequest(
                f"key {self._mark!r} holds {found.value!r:.80}, which is not a checkpoint of a follower: "
                "delete it, or give the follower another name"
            )
        whose = {key: value for key, value in found.value.items() if key in {"prefix", "types"}}
        if whose and whose != self._whose:
            raise InvalidRequest(
                f"follower {self._name!r} is one of {_say_whose(whose)}, and was asked to follow "
                f"{_say_whose(self._whose)}, of which its checkpoint may have passed over events: give each its own "
                f"name, or, to go on from here, put {{'position': {position}}} under the key {self._mark!r}"
            )
        return position

    def _say_stuck(self, events: Sequence[Event], conflict: Conflict) -> str:
        first, last = events[0], events[-1]
        return (
            f"follower {self._name!r} cannot go on: what its handler writes for the events at positions "
            f"{first.position} to {last.position} met a conflict {_ATTEMPTS} times, the last time {conflict}: "
            "the handler must expect the revisions and sequences that it reads, and leave the writing to the follower"
        )


def _say_whose(whose: dict[str, Any]) -> str:
    types = f" of the types {whose['types']}" if "types" in whose else ""
    return f"the prefix {whose.get('prefix', '')!r}{types}"
