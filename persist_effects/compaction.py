"""Compaction: once a snapshot covers a stream's events, the events can go. All are programs.

Every other fold of that stream that has not seen the dropped events raises `Truncated` from then on: compact by the
projection that is slowest, or keep the stream. Followers are known: what one of them has not seen is kept unless
``unseen`` says otherwise; see `persist_effects.log.truncate_through`.

``version`` and ``lift`` are as in `persist_effects.snapshot`. Beside a snapshot of a higher version, which another
release has made, nothing is dropped and nothing is overwritten.
"""

from typing import Any, TypeVar

from persist_effects import log, snapshot
from persist_effects.event import check_integer
from persist_effects.following.retention import Unseen, droppable
from persist_effects.machine import Effect
from persist_effects.programs import program
from persist_effects.projection import State, StepFunction
from persist_effects.requests import TruncateThrough
from persist_effects.states import Lift

S = TypeVar("S")


@program
def compact(
    name: str,
    stream: str,
    step: StepFunction[S],
    seed: S,
    *,
    state_type: Any = None,
    version: int = 1,
    lift: Lift | None = None,
    unseen: Unseen = "keep",
) -> Effect[State[S]]:
    """Checkpoint a stream under a snapshot's name and drop the events that it covers, in one transaction.

    Args:
        name: The snapshot's name.
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.
        state_type: The type of the value, as a snapshot is decoded; None for plain values.
        version: That of the fold, from 1 on: to be raised where the fold changes.
        lift: For each older version, what converts its value to the next.
        unseen: What becomes of events that a follower has not seen: "keep" keeps them, "refuse" raises, "drop" drops.

    Returns:
        The state that the snapshot keeps.

    Raises:
        SnapshotMismatch: If the snapshot is of another version or shape, and its events were dropped.
        Truncated: If events that the snapshot does not cover were dropped.
        FollowersBehind: If events were to be dropped that a follower has not seen, and that is to be refused.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> for amount in (5, 7):
    ...     _ = store.run(log.append("account/1", "deposited", amount))
    >>> store.run(compact("balance", "account/1", lambda balance, event: balance + event.data, 0))
    State(value=12, seq=2)
    >>> store.run(log.read("account/1"))
    []
    """
    state_type = snapshot.state_type_of(seed, state_type)
    state = yield from snapshot.replay(name, stream, step, seed, state_type=state_type, version=version, lift=lift)
    drop = TruncateThrough(stream, (yield from droppable(stream, state.seq, unseen)))
    yield from snapshot.write(name, state, stream=stream, state_type=state_type, version=version, drop=drop)
    return state


@program
def should_compact(name: str, stream: str, every: int, *, version: int = 1) -> Effect[bool]:
    """Whether a stream has so many events that its snapshot does not cover.

    Args:
        name: The snapshot's name.
        stream: The stream's name.
        every: How many events at least.
        version: That of the fold. Where the snapshot is of a higher one, it is that release's to compact.

    Returns:
        Whether it has.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(should_compact("balance", "account/1", 100))
    False
    """
    check_integer("every", every, 1)
    check_integer("version", version, 1)
    kept = yield from snapshot.kept(name, stream=stream)
    last = yield from log.last_seq(stream)
    if kept is None:
        return last >= every
    return kept.version <= version and last - kept.seq >= every


@program
def maybe_compact(
    name: str,
    stream: str,
    step: StepFunction[S],
    seed: S,
    every: int,
    *,
    state_type: Any = None,
    version: int = 1,
    lift: Lift | None = None,
    unseen: Unseen = "keep",
) -> Effect[State[S] | None]:
    """Compact a stream if `should_compact`.

    Args:
        name: The snapshot's name.
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.
        every: How many events at least that the snapshot does not cover.
        state_type: The type of the value, as a snapshot is decoded; None for plain values.
        version: That of the fold, from 1 on: to be raised where the fold changes.
        lift: For each older version, what converts its value to the next.
        unseen: What becomes of events that a follower has not seen: "keep" keeps them, "refuse" raises, "drop" drops.

    Returns:
        The state that the snapshot keeps; None where nothing was compacted.

    Raises:
        SnapshotMismatch: If the snapshot is of another version or shape, and its events were dropped.
        Truncated: If events that the snapshot does not cover were dropped.
        FollowersBehind: If events were to be dropped that a follower has not seen, and that is to be refused.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("account/1", "deposited", 5))
    >>> store.run(maybe_compact("balance", "account/1", lambda balance, event: balance + event.data, 0, every=1))
    State(value=5, seq=1)
    """
    if not (yield from should_compact(name, stream, every, version=version)):
        return None
    return (
        yield from compact(name, stream, step, seed, state_type=state_type, version=version, lift=lift, unseen=unseen)
    )
