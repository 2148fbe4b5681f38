"""Snapshots: a fold's state, kept in kv under ``snapshot/<name>``, so that a replay reads only the tail.

A state is a plain value. Where it is something else, ``state_type`` says what: a Struct, ``set[str]``,
``dict[int, Decimal]``, whatever msgspec converts. It need not be said where the seed is a Struct. A snapshot that no
longer decodes as that type is taken for absent, and rebuilt.
"""

from typing import Annotated, Any, TypeVar

import msgspec

from persist_effects import kv
from persist_effects.codec import from_plain, to_plain
from persist_effects.errors import InvalidRequest, Truncated
from persist_effects.event import check_name
from persist_effects.machine import Effect
from persist_effects.programs import program
from persist_effects.projection import State, StepFunction, project_resume
from persist_effects.requests import Conflict, Entry, KvPut, TruncateThrough, Write
from persist_effects.transaction import transact

S = TypeVar("S")


class _Record(msgspec.Struct, frozen=True):
    """What is stored: ``stream`` says of which stream, so that a name used for two of them is found out."""

    seq: Annotated[int, msgspec.Meta(ge=0)]
    value: Any
    stream: str | None = None


@program
def read(name: str, *, state_type: Any = None) -> Effect[State[Any] | None]:
    """The snapshot under a name, or None where there is none that decodes.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(write("balance", State(12, 2)))
    >>> store.run(read("balance"))
    State(value=12, seq=2)
    """
    record = _record_of((yield from kv.entry(_key(name))))
    return None if record is None else _state_of(record, state_type)


@program
def write(
    name: str,
    state: State[Any],
    *,
    stream: str | None = None,
    state_type: Any = None,
    drop: TruncateThrough | None = None,
) -> Effect[None]:
    """Keep a state under a name, unless a later one is kept there already: a snapshot never goes back.

    ``drop`` is carried out in the same transaction, whichever state is kept. Raises `InvalidRequest` if the value
    would not come back as it is, or if the name is in use for another stream.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(write("balance", State(12, 2), stream="account/1"))
    """
    value = to_plain(state.value, state_type, f"the state for snapshot {name!r}")
    also = () if drop is None else (drop,)
    while True:
        found = yield from kv.entry(_key(name))
        kept = _record_of(found)
        writes: tuple[Write, ...] = also
        if kept is not None:
            _check_stream(name, kept, stream)
            stream = stream or kept.stream
        # A later state stays, also one that this code cannot decode: newer code may have made it, and dropped events.
        if kept is None or kept.seq <= state.seq:
            record = {"seq": state.seq, "value": value, "stream": stream}
            writes = (KvPut(_key(name), record, 0 if found is None else found.revision), *also)
        if not writes or not isinstance((yield from transact(*writes)), Conflict):
            return


@program
def replay(name: str, stream: str, step: StepFunction[S], seed: S, *, state_type: Any = None) -> Effect[State[S]]:
    """The state of a stream: its snapshot, and the tail folded on top. Writes nothing.

    Raises `Truncated` where there is no snapshot and the stream's beginning was dropped.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("account/1", "deposited", 5))
    >>> store.run(replay("balance", "account/1", lambda balance, event: balance + event.data, 0))
    State(value=5, seq=1)
    """
    state_type = state_type_of(seed, state_type)
    truncated: Truncated | None = None
    state = State(seed, 0)
    while True:
        record = _record_of((yield from kv.entry(_key(name))))
        kept = None
        if record is not None:
            _check_stream(name, record, stream)
            kept = _state_of(record, state_type)
        if truncated is not None and (kept is None or kept.seq <= state.seq):
            raise truncated
        state = state if kept is None else kept
        try:
            return (yield from project_resume(stream, step, state))
        except Truncated as error:
            # A compaction may have come between the two reads: then there is a later snapshot now.
            truncated = error


@program
def checkpoint(name: str, stream: str, step: StepFunction[S], seed: S, *, state_type: Any = None) -> Effect[State[S]]:
    """Replay, and keep the state that came out as the snapshot.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("account/1", "deposited", 5))
    >>> _ = store.run(checkpoint("balance", "account/1", lambda balance, event: balance + event.data, 0))
    >>> store.run(read("balance"))
    State(value=5, seq=1)
    """
    state_type = state_type_of(seed, state_type)
    state = yield from replay(name, stream, step, seed, state_type=state_type)
    yield from write(name, state, stream=stream, state_type=state_type)
    return state


@program
def covered_seq(name: str, *, stream: str | None = None) -> Effect[int]:
    """Up to which sequence number the snapshot under a name reaches, 0 where there is none.

    Raises `InvalidRequest` if it is the snapshot of another stream.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(covered_seq("balance"))
    0
    """
    record = _record_of((yield from kv.entry(_key(name))))
    if record is None:
        return 0
    _check_stream(name, record, stream)
    return record.seq


def state_type_of(seed: object, state_type: Any) -> Any:
    """The type that a state is read back as: the one that was said, or a Struct seed's own; None: a plain value.

    >>> state_type_of(set(), set[str]), state_type_of(0, None)
    (set[str], None)
    """
    return type(seed) if state_type is None and isinstance(seed, msgspec.Struct) else state_type


def _key(name: str) -> str:
    check_name("snapshot name", name)
    return f"snapshot/{name}"


def _record_of(found: Entry | None) -> _Record | None:
    if found is None:
        return None
    try:
        return msgspec.convert(found.value, _Record)
    except msgspec.ValidationError:
        return None


def _state_of(record: _Record, state_type: Any) -> State[Any] | None:
    try:
        return State(from_plain(record.value, state_type), record.seq)
    except msgspec.ValidationError:
        return None


def _check_stream(name: str, record: _Record, stream: str | None) -> None:
    if stream is not None and record.stream is not None and record.stream != stream:
        raise InvalidRequest(
            f"snapshot {name!r} is of stream {record.stream!r}, and was asked for with {stream!r}: "
            "give each stream a snapshot name of its own"
        )
