"""Reacting to events: at once with a `Hub`, or by catching up with `follow`. All effects are programs.

A hub runs callbacks in the program that publishes, after the append; it is lost with the process. A follower reads
the log from its own checkpoint, so it misses nothing, and each event takes effect once: the checkpoint is written in
the same transaction as the handler's writes. `persist_effects.followers` looks after those that there are.
"""

from collections.abc import Callable
from types import GeneratorType
from typing import Any

from persist_effects import log
from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import Event, check_name
from persist_effects.following.follow import follow
from persist_effects.following.handling import Retry
from persist_effects.following.models import ReadModel
from persist_effects.following.shared import Group
from persist_effects.following.sql_models import SqlModel
from persist_effects.machine import Effect
from persist_effects.programs import program

__all__ = ["Callback", "Group", "Hub", "ReadModel", "Retry", "SqlModel", "follow", "publish"]

Callback = Callable[[Event], Effect[Any]]


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
