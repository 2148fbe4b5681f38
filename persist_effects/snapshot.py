"""Snapshots: a fold's state, kept in kv under ``snapshot/<name>``, so that a replay reads only the tail.

A state is a plain value. Where it is something else, ``state_type`` says what: a Struct, ``set[str]``,
``dict[int, Decimal]``, whatever msgspec converts. It need not be said where the seed is a Struct. A snapshot that no
longer decodes as that type is taken for absent, and rebuilt.
"""

from typing import Any, TypeVar, cast

import msgspec

from persist_effects import kv
from persist_effects.errors import InvalidRequest
from persist_effects.event import check_name
from persist_effects.machine import Effect
from persist_effects.projection import State, StepFunction, project_resume
from persist_effects.requests import Conflict, Entry

S = TypeVar("S")


class _Record(msgspec.Struct, frozen=True):
    """What is stored: ``stream`` says of which stream, so that a name used for two of them is found out."""

    seq: int
    value: Any
    stream: str | None = None


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


def write(name: str, state: State[Any], *, stream: str | None = None, state_type: Any = None) -> Effect[None]:
    """Keep a state under a name, unless a later one is kept there already: a snapshot never goes back.

    Raises `InvalidRequest` if the value cannot be stored, or if the name is in use for another stream.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(write("balance", State(12, 2), stream="account/1"))
    """
    value = (
        state.value if state_type is None else msgspec.to_builtins(state.value, builtin_types=(bytes,), str_keys=True)
    )
    while True:
        found = yield from kv.entry(_key(name))
        kept = _record_of(found)
        if kept is not None:
            _check_stream(name, kept, stream)
            if kept.seq > state.seq and _state_of(kept, state_type) is not None:
                return
        record = msgspec.to_builtins(_Record(state.seq, None, stream)) | {"value": value}
        put = yield from kv.put_expect(_key(name), 0 if found is None else found.revision, record)
        if not isinstance(put, Conflict):
            return


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
    state_type = _state_type(seed, state_type)
    record = _record_of((yield from kv.entry(_key(name))))
    kept = None
    if record is not None:
        _check_stream(name, record, stream)
        kept = _state_of(record, state_type)
    return (yield from project_resume(stream, step, State(seed, 0) if kept is None else kept))


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
    state_type = _state_type(seed, state_type)
    state = yield from replay(name, stream, step, seed, state_type=state_type)
    yield from write(name, state, stream=stream, state_type=state_type)
    return state


def covered_seq(name: str) -> Effect[int]:
    """Up to which sequence number the snapshot under a name reaches, 0 where there is none.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(covered_seq("balance"))
    0
    """
    record = _record_of((yield from kv.entry(_key(name))))
    return 0 if record is None else record.seq


def _key(name: str) -> str:
    check_name("snapshot name", name)
    return f"snapshot/{name}"


def _state_type(seed: object, state_type: Any) -> Any:
    return type(seed) if state_type is None and isinstance(seed, msgspec.Struct) else state_type


def _record_of(found: Entry | None) -> _Record | None:
    if found is None:
        return None
    try:
        return msgspec.convert(found.value, _Record)
    except msgspec.ValidationError:
        return None


def _state_of(record: _Record, state_type: Any) -> State[Any] | None:
    if state_type is None:
        return State(record.value, record.seq)
    try:
        value = msgspec.convert(record.value, state_type, builtin_types=(bytes,), str_keys=True)
    except msgspec.ValidationError:
        return None
    return State(cast(Any, value), record.seq)


def _check_stream(name: str, record: _Record, stream: str | None) -> None:
    if stream is not None and record.stream is not None and record.stream != stream:
        raise InvalidRequest(
            f"snapshot {name!r} is of stream {record.stream!r}, and was asked for with {stream!r}: "
            "give each stream a snapshot name of its own"
        )
