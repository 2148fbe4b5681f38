"""Views: a named fold of one stream that is kept up to date, so that reading it costs one read.

A view's state is kept as the snapshot ``view/<name>``, with its stream and version: a name is one view's. Two views of
one name and one stream whose steps differ cannot be told apart, so give each its own name, and a view whose step has
changed a higher ``version``: `persist_effects.snapshot` says what comes of the state that is kept.
"""

import copy
from typing import Any, Generic, TypeVar

from persist_effects import snapshot
from persist_effects.errors import InvalidRequest
from persist_effects.event import Event, check_name
from persist_effects.machine import Effect
from persist_effects.programs import program
from persist_effects.projection import State, StepFunction
from persist_effects.states import Lift, Shape
from persist_effects.subscription import Hub

S = TypeVar("S")


class View(Generic[S]):
    """A fold with a name: ``step`` over the events of ``stream``, from ``seed``.

    ``state_type``, ``version`` and ``lift`` are as in `persist_effects.snapshot`.

    >>> from interpreters import open_store
    >>> from persist_effects.subscription import publish
    >>> balance = View("balance", "account/1", lambda total, event: total + event.data, 0)
    >>> hub, store = Hub(), open_store("memory:")
    >>> attach(hub, balance)
    >>> _ = store.run(publish(hub, "account/1", "deposited", 5))
    >>> store.run(peek(balance))
    5
    """

    def __init__(
        self,
        name: str,
        stream: str,
        step: StepFunction[S],
        seed: S,
        version: int = 1,
        *,
        state_type: Any = None,
        lift: Lift | None = None,
    ) -> None:
        check_name("view name", name)
        check_name("stream name", stream)
        self.name = name
        self.stream = stream
        self.step = step
        self._seed = copy.deepcopy(seed)
        self.version = version
        self.state_type = snapshot.state_type_of(seed, state_type)
        self.lift = lift
        self.shape = Shape(self.state_type, version, lift)

    @property
    def seed(self) -> S:
        """A copy of the seed, so that what a caller does to a view's value changes no later one."""
        return copy.deepcopy(self._seed)

    @property
    def snapshot_name(self) -> str:
        """Under which snapshot name the view's state is kept."""
        return f"view/{self.name}"


class _Refreshing:
    """The callback of an attached view."""

    def __init__(self, view: View[Any]) -> None:
        self.view = view

    def __call__(self, event: Event) -> Effect[State[Any]]:
        return (yield from refresh(self.view))


def attach(hub: Hub, view: View[Any]) -> None:
    """Refresh a view on each publish to its stream.

    Args:
        hub: The hub that publishes.
        view: The view.

    Raises:
        InvalidRequest: If a view of this name and another stream is attached to the hub.

    >>> attach(Hub(), View("count", "account/1", lambda count, event: count + 1, 0))
    """
    for stream in hub.streams():
        for callback in hub.callbacks(stream):
            if isinstance(callback, _Refreshing) and callback.view.name == view.name and stream != view.stream:
                raise InvalidRequest(
                    f"view {view.name!r} is of stream {stream!r} on this hub, and was attached with {view.stream!r}: "
                    "give each stream a view name of its own"
                )
    hub.subscribe(view.stream, _Refreshing(view))


@program
def refresh(view: View[S]) -> Effect[State[S]]:
    """Fold the events that a view has not seen, and keep its state.

    Args:
        view: The view.

    Returns:
        The state.

    Raises:
        SnapshotMismatch: If what is kept is of another version or shape, and its events were dropped.
        Truncated: If events that it has not seen were dropped.
        InvalidRequest: If the name is that of another stream's view.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(refresh(View("count", "account/1", lambda count, event: count + 1, 0)))
    State(value=0, seq=0)
    """
    return (
        yield from snapshot.checkpoint(
            view.snapshot_name,
            view.stream,
            view.step,
            view.seed,
            state_type=view.state_type,
            version=view.version,
            lift=view.lift,
        )
    )


@program
def peek(view: View[S]) -> Effect[S]:
    """A view as it was last refreshed, in one read.

    Where what is kept is of another version, or does not fit the state's type, this is `value`, and raises as it does.

    Args:
        view: The view.

    Returns:
        Its value; the seed if it never was refreshed.

    Raises:
        InvalidRequest: If the name is that of another stream's view.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(peek(View("count", "account/1", lambda count, event: count + 1, 0)))
    0
    """
    kept = yield from snapshot.kept(view.snapshot_name, stream=view.stream)
    if kept is None:
        return view.seed
    state = view.shape.state_in(kept)
    return (yield from value(view)) if state is None else state.value


@program
def value(view: View[S]) -> Effect[S]:
    """A view with all events folded that the stream has: never stale. Writes nothing.

    Args:
        view: The view.

    Returns:
        Its value.

    Raises:
        SnapshotMismatch: If what is kept is of another version or shape, and its events were dropped.
        Truncated: If events that it has not seen were dropped.
        InvalidRequest: If the name is that of another stream's view.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("account/1", "deposited", 5))
    >>> store.run(value(View("count", "account/1", lambda count, event: count + 1, 0)))
    1
    """
    state = yield from snapshot.replay(
        view.snapshot_name,
        view.stream,
        view.step,
        view.seed,
        state_type=view.state_type,
        version=view.version,
        lift=view.lift,
    )
    return state.value
