"""Snapshots: a fold's state, kept in kv under ``snapshot/<name>``, so that a replay reads only the tail.

A state is a plain value. Where it is something else, ``state_type`` says what: a Struct, ``set[str]``,
``dict[int, Decimal]``, whatever msgspec converts. It need not be said where the seed is a Struct.

**When the code changes.** A snapshot outlives the code that made it, so it is kept with the ``version`` of the fold,
1 where none is said. Raise it whenever the step or the state comes to mean something else: of a plain value nothing
else can tell. A snapshot is believed where it is of this version, and what was decoded, encoded again, is what is
kept: a Struct that has got, lost or renamed a field does not fit. What is not believed is rebuilt while its events are
there. Where they were dropped it is the only copy. Then ``lift={1: f}`` converts it, ``f`` from the plain value that
version 1 has kept to the state of version 2, and so on; without it `SnapshotMismatch` says what is there, and nothing
is overwritten.

**Two releases side by side.** A snapshot of a higher version is never overwritten, and nothing is dropped beside it.
The earlier release goes on from the events, and raises `SnapshotMismatch` once they were dropped.
"""

from typing import Any, TypeVar

import msgspec

from persist_effects import kv
from persist_effects.errors import InvalidRequest, Truncated
from persist_effects.event import check_name
from persist_effects.machine import Effect
from persist_effects.programs import program
from persist_effects.projection import State, StepFunction, project_resume
from persist_effects.requests import Check, Conflict, ExpectRevision, KvPut, TruncateThrough, Write
from persist_effects.states import Kept, Lift, Shape, kept_in, record_of
from persist_effects.transaction import transact

S = TypeVar("S")


@program
def read(
    name: str, *, stream: str | None = None, state_type: Any = None, version: int = 1, lift: Lift | None = None
) -> Effect[State[Any] | None]:
    """The snapshot under a name.

    Args:
        name: The snapshot's name.
        stream: The stream that it is of; None: of any.
        state_type: The type that the value is read back as; None for a plain value, or the type of a Struct that is the
            seed.
        version: That of the fold, from 1 on: to be raised where the fold changes.
        lift: For each older version, what converts its value to the next.

    Returns:
        The state; None where there is none that this version of the fold can use.

    Raises:
        InvalidRequest: If it is the snapshot of another stream.
        SnapshotMismatch: If ``lift`` fails.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(write("balance", State(12, 2)))
    >>> store.run(read("balance"))
    State(value=12, seq=2)
    """
    shape = Shape(state_type, version, lift)
    found = yield from kept(name, stream=stream)
    if found is not None and shape.can_lift(found):
        return shape.lifted(name, found, stream)
    return shape.state_in(found)


@program
def write(
    name: str,
    state: State[Any],
    *,
    stream: str | None = None,
    state_type: Any = None,
    version: int = 1,
    drop: TruncateThrough | None = None,
) -> Effect[None]:
    """Keep a state under a name, unless a later one, or one of a higher version, is kept there already.

    Args:
        name: The snapshot's name.
        state: The value, and the sequence number up to which it was folded.
        stream: The stream that it is of. Without it the snapshot is taken for that of any stream.
        state_type: The type that the value is read back as; None for a plain value.
        version: That of the fold, from 1 on.
        drop: A truncation, made in the same transaction if what is kept after it is of this version and can be read;
            else nothing is written.

    Raises:
        InvalidRequest: If the value would not come back as it is, or if the name is in use for another stream.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(write("balance", State(12, 2), stream="account/1"))
    """
    shape = Shape(state_type, version)
    record = record_of(state, stream, state_type, version, f"the state for snapshot {name!r}")
    also = () if drop is None else (drop,)
    while True:
        found = yield from kv.entry(_key(name))
        there = kept_in(found)
        writes: tuple[Write, ...] = also
        checks: tuple[Check, ...] = ()
        if there is not None:
            _check_stream(name, there, stream)
        # A later state stays, also one that this code cannot decode: newer code may have made it, and dropped events.
        if there is None or (there.version <= version and there.seq <= state.seq):
            whose = stream or (None if there is None else there.stream)
            writes = (KvPut(_key(name), {**record, "stream": whose}, 0 if found is None else found.revision), *also)
        elif shape.state_in(there) is None:
            return
        elif found is not None:
            checks = (ExpectRevision(_key(name), found.revision),)
        if not writes or not isinstance((yield from transact(*writes, checks=checks)), Conflict):
            return


@program
def replay(
    name: str,
    stream: str,
    step: StepFunction[S],
    seed: S,
    *,
    state_type: Any = None,
    version: int = 1,
    lift: Lift | None = None,
    skip_truncated: bool = False,
) -> Effect[State[S]]:
    """The state of a stream: its snapshot, and the tail folded on top. Writes nothing.

    A snapshot that this version of the fold cannot use is passed over, as long as the stream's beginning is there.

    Args:
        name: The snapshot's name.
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.
        state_type: The type that the value is read back as; None for a plain value, or the type of a Struct that is the
            seed.
        version: That of the fold, from 1 on: to be raised where the fold changes.
        lift: For each older version, what converts its value to the next.
        skip_truncated: Whether to pass over events that were dropped and that no snapshot covers, and count them as
            ``missed``.

    Returns:
        The state at the stream's end.

    Raises:
        SnapshotMismatch: If the beginning was dropped, and the snapshot, the only copy of it, cannot be lifted.
        Truncated: If no snapshot covers what was dropped, unless it is skipped.
        InvalidRequest: If it is the snapshot of another stream.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("account/1", "deposited", 5))
    >>> store.run(replay("balance", "account/1", lambda balance, event: balance + event.data, 0))
    State(value=5, seq=1)
    """
    shape = Shape(state_type_of(seed, state_type), version, lift)
    truncated: Truncated | None = None
    state = State(seed, 0)
    while True:
        there = kept_in((yield from kv.entry(_key(name))))
        if there is not None:
            _check_stream(name, there, stream)
        usable = shape.state_in(there)
        if truncated is not None:
            is_covered = usable is not None and usable.seq > state.seq
            if skip_truncated and not is_covered and (there is None or usable is not None):
                return (yield from project_resume(stream, step, state, skip_truncated=True))
            if usable is None:
                usable = shape.only_copy(name, there, truncated)
            if usable.seq <= state.seq:
                raise truncated
        state = state if usable is None else usable
        try:
            return (yield from project_resume(stream, step, state))
        except Truncated as error:
            # A compaction may have come between the two reads: then there is a later snapshot now.
            truncated = error


@program
def checkpoint(
    name: str,
    stream: str,
    step: StepFunction[S],
    seed: S,
    *,
    state_type: Any = None,
    version: int = 1,
    lift: Lift | None = None,
    skip_truncated: bool = False,
) -> Effect[State[S]]:
    """Replay a stream, and keep the state that came out as its snapshot, as `write` does.

    Args:
        name: The snapshot's name.
        stream: The stream's name.
        step: Gives the next value of a value and an event. It is pure.
        seed: The value before the first event.
        state_type: The type that the value is read back as; None for a plain value, or the type of a Struct that is the
            seed.
        version: That of the fold, from 1 on: to be raised where the fold changes.
        lift: For each older version, what converts its value to the next.
        skip_truncated: Whether to pass over events that were dropped and that no snapshot covers, and count them as
            ``missed``.

    Returns:
        The state at the stream's end.

    Raises:
        SnapshotMismatch: As `replay` does.
        Truncated: As `replay` does.
        InvalidRequest: As `replay` and `write` do.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("account/1", "deposited", 5))
    >>> _ = store.run(checkpoint("balance", "account/1", lambda balance, event: balance + event.data, 0))
    >>> store.run(read("balance"))
    State(value=5, seq=1)
    """
    state_type = state_type_of(seed, state_type)
    state = yield from replay(
        name,
        stream,
        step,
        seed,
        state_type=state_type,
        version=version,
        lift=lift,
        skip_truncated=skip_truncated,
    )
    yield from write(name, state, stream=stream, state_type=state_type, version=version)
    return state


@program
def kept(name: str, *, stream: str | None = None) -> Effect[Kept | None]:
    """What is kept under a name, in its plain form, whichever version made it.

    Args:
        name: The snapshot's name.
        stream: The stream that it is of; None: of any.

    Returns:
        What is kept; None: nothing is.

    Raises:
        InvalidRequest: If it is the snapshot of another stream.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(write("balance", State(12, 2), version=3))
    >>> found = store.run(kept("balance"))
    >>> found.version, found.seq, found.value
    (3, 2, 12)
    """
    found = kept_in((yield from kv.entry(_key(name))))
    if found is not None:
        _check_stream(name, found, stream)
    return found


@program
def covered_seq(name: str, *, stream: str | None = None) -> Effect[int]:
    """Up to which sequence number the snapshot under a name reaches, of any version.

    Args:
        name: The snapshot's name.
        stream: The stream that it is of; None: of any.

    Returns:
        The sequence number, 0 where there is no snapshot.

    Raises:
        InvalidRequest: If it is the snapshot of another stream.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(covered_seq("balance"))
    0
    """
    found = yield from kept(name, stream=stream)
    return 0 if found is None else found.seq


def state_type_of(seed: object, state_type: Any) -> Any:
    """The type that a state is read back as.

    Args:
        seed: The value before the first event.
        state_type: The type that was said, None where none was.

    Returns:
        That one, or a Struct seed's own; None: a plain value.

    >>> state_type_of(set(), set[str]), state_type_of(0, None)
    (set[str], None)
    """
    return type(seed) if state_type is None and isinstance(seed, msgspec.Struct) else state_type


def _key(name: str) -> str:
    check_name("snapshot name", name)
    return f"snapshot/{name}"


def _check_stream(name: str, found: Kept, stream: str | None) -> None:
    if stream is not None and found.stream is not None and found.stream != stream:
        raise InvalidRequest(
            f"snapshot {name!r} is of stream {found.stream!r}, and was asked for with {stream!r}: "
            "give each stream a snapshot name of its own"
        )
