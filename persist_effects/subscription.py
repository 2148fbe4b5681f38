"""Reacting to events: at once with a `Hub`, or by catching up with `follow`. All effects are programs.

A hub runs callbacks in the program that publishes, after the append; it is lost with the process. A follower reads
the log from its own checkpoint, so it misses nothing, and each event takes effect once: the checkpoint is written in
the same transaction as the handler's writes.
"""

from collections.abc import Callable, Iterable, Sequence
from types import GeneratorType
from typing import Any, cast

from persist_effects import kv, log
from persist_effects.errors import InvalidRequest, Truncated
from persist_effects.event import Event, check_integer, check_name
from persist_effects.machine import Effect, perform
from persist_effects.requests import PAGE_SIZE_MAX, Conflict, KvPut, Transact, Wait, Write

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
        """Run ``callback(event)``, a program, after each publish to the stream, in the order of subscription."""
        check_name("stream name", stream)
        if not callable(callback):
            raise InvalidRequest(f"a callback is a {type(callback).__name__}: give a generator function of one event")
        self._callbacks[stream] = (*self.callbacks(stream), callback)

    def unsubscribe(self, stream: str, callback: Callback) -> bool:
        """Take a callback out again, and return whether it was there."""
        before = self.callbacks(stream)
        self._callbacks[stream] = tuple(kept for kept in before if kept != callback)
        return len(self._callbacks[stream]) < len(before)

    def callbacks(self, stream: str) -> tuple[Callback, ...]:
        """The callbacks of a stream, in the order of subscription."""
        return self._callbacks.get(stream, ())


def publish(
    hub: Hub, stream: str, type: str, data: Any, *, at: int | None = None, meta: dict[str, Any] | None = None
) -> Effect[Event]:
    """Append one event, run the hub's callbacks for its stream, and return it. A plain append bypasses them.

    An error from a callback is raised here, with a note that the event was appended; the callbacks after it do not
    run. What must not be missed belongs into `follow`.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(publish(Hub(), "orders/1", "placed", {"total": 12})).seq
    1
    """
    event = yield from log.append(stream, type, data, at=at, meta=meta)
    for callback in hub.callbacks(stream):
        try:
            yield from callback(event)
        except Exception as error:
            error.add_note(f"raised by a callback of {stream!r}, after event {event.seq} was appended")
            raise
    return event


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
    """Handle each event under a prefix once, from the checkpoint on, and return the position reached.

    ``handler(event)`` returns the writes that the event shall have (requests, such as ``KvPut``), or is a program
    that reads first and returns them; they and the checkpoint, kept in kv under ``follow/<name>``, are one
    transaction. Where it conflicts, because another follower of the same name or another writer came first, the
    checkpoint is read again and the handler asked again.

    ``batch`` events share a transaction: faster, but handlers of one batch do not see each other's writes. Caught
    up, it waits ``timeout`` seconds for the next event, and returns when none came; ``float("inf")`` follows for
    ever. Where truncation dropped events that this follower has not seen it raises `Truncated`, unless
    ``skip_truncated``.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", {"total": 12}))
    >>> store.run(follow("totals", "orders/", lambda event: [KvPut(f"total/{event.stream}", event.data["total"])]))
    1
    >>> store.run(kv.get("total/orders/1"))
    12
    """
    check_integer("batch", batch, 1, PAGE_SIZE_MAX)
    wanted_types = None if types is None else tuple(types)
    mark = f"follow/{name}"
    check_name("follower's checkpoint key", mark)
    revision, position = yield from _checkpoint(mark)
    last_conflict = None
    while True:
        page = yield from log.read_all(position, prefix, wanted_types)
        if page.hole is not None and not skip_truncated:
            raise Truncated(page.hole.stream, page.hole.first_left)
        for first in range(0, len(page.events), batch):
            events = page.events[first : first + batch]
            outcome = yield from _take_effect(mark, revision, events, handler)
            if isinstance(outcome, Conflict):
                if outcome == last_conflict:
                    raise InvalidRequest(_stuck(name, events, outcome))
                last_conflict = outcome
                revision, position = yield from _checkpoint(mark)
                break
            revision, position = outcome, events[-1].position
        else:
            position = page.next
            if page.next >= page.head:
                newest = yield from perform(Wait(position, prefix, timeout))
                if newest <= position:
                    return position


def _stuck(name: str, events: list[Event], conflict: Conflict) -> str:
    first, last = events[0], events[-1]
    return (
        f"follower {name!r} cannot go on: what its handler writes for the events at positions {first.position} to "
        f"{last.position} met {conflict} twice: the handler must read the actual revision or sequence and use it"
    )


def _checkpoint(mark: str) -> Effect[tuple[int, int]]:
    """The revision of a follower's checkpoint, and the position that it holds."""
    found = yield from kv.entry(mark)
    return (0, 0) if found is None else (found.revision, found.value["position"])


def _take_effect(mark: str, revision: int, events: list[Event], handler: FollowHandler) -> Effect[int | Conflict]:
    """Write what the handler says of these events, and the checkpoint with it: the checkpoint's new revision."""
    writes: list[Write] = []
    for event in events:
        said = handler(event)
        if isinstance(said, GeneratorType):
            said = yield from said
        writes += cast(Sequence[Write], said)
    checkpoint = KvPut(mark, {"position": events[-1].position}, revision)
    answers = yield from perform(Transact((checkpoint, *writes)))
    if isinstance(answers, Conflict):
        return answers
    answer: int = answers[0]
    return answer
