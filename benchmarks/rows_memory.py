"""The memory store, against the in-memory recorder of ``eventsourcing`` and against decoding alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from eventsourcing.domain import DomainEvent, datetime_now_with_tzinfo
from eventsourcing.persistence import DatetimeAsISO, DecimalAsStr, JSONTranscoder, Mapper, StoredEvent, UUIDAsHex
from eventsourcing.popo import POPOApplicationRecorder

from benchmarks.appends import (
    BATCH_SIZE,
    STREAM_COUNT,
    Appends,
    append_in_batches,
    append_in_one_program,
    append_in_programs,
    prepared_appends,
)
from benchmarks.orders import add_total, order
from benchmarks.table import Bound, Row, rate
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from persist_effects import Draft, Event, log
from persist_effects.projection import project


def insert_one_by_one(recorder: POPOApplicationRecorder, appends: Appends) -> None:
    """The peer's: the caller encodes the state and numbers the versions, as the recorder asks."""
    encode = msgspec.msgpack.Encoder().encode
    for number, placed in enumerate(appends.orders):
        version = number // STREAM_COUNT + 1
        recorder.insert_events([StoredEvent(appends.ids[number % STREAM_COUNT], version, "placed", encode(placed))])


@dataclass(frozen=True)
class Placed(DomainEvent):
    """An order as an event of the peer's."""

    originator_id: UUID
    originator_version: int
    timestamp: datetime
    order: dict[str, Any]


def insert_from_values(recorder: POPOApplicationRecorder, appends: Appends) -> None:
    """The peer's, from the value on, as ours: its own mapper and transcoder make the state that it records."""
    transcoder = JSONTranscoder()
    for transcoding in (UUIDAsHex(), DatetimeAsISO(), DecimalAsStr()):
        transcoder.register(transcoding)
    to_stored_event = Mapper(transcoder).to_stored_event
    for number, placed in enumerate(appends.orders):
        version = number // STREAM_COUNT + 1
        event = Placed(appends.ids[number % STREAM_COUNT], version, datetime_now_with_tzinfo(), placed)
        recorder.insert_events([to_stored_event(event)])


def insert_in_batches(recorder: POPOApplicationRecorder, appends: Appends) -> None:
    """The peer's: many events of one stream by each insert."""
    encode = msgspec.msgpack.Encoder().encode
    for start in range(0, len(appends.orders), BATCH_SIZE):
        stream_id = appends.ids[start // BATCH_SIZE % STREAM_COUNT]
        first_version = start // (BATCH_SIZE * STREAM_COUNT) * BATCH_SIZE + 1
        batch = enumerate(appends.orders[start : start + BATCH_SIZE], first_version)
        recorder.insert_events([StoredEvent(stream_id, version, "placed", encode(placed)) for version, placed in batch])


def ours(how: Callable[[Store, Appends], None]) -> Callable[[Appends], float]:
    def on_a_new_store(appends: Appends) -> float:
        with open_store("memory:") as store:
            return rate(len(appends.orders), lambda: how(store, appends))

    return on_a_new_store


def peer(how: Callable[[POPOApplicationRecorder, Appends], None]) -> Callable[[Appends], float]:
    def on_a_new_recorder(appends: Appends) -> float:
        recorder = POPOApplicationRecorder()
        return rate(len(appends.orders), lambda: how(recorder, appends))

    return on_a_new_recorder


class Stored(NamedTuple):
    """A store with one stream, and the bytes of its events."""

    store: Store
    encoded: list[bytes]


@contextmanager
def stored_orders(count: int) -> Iterator[Stored]:
    encode = msgspec.msgpack.Encoder().encode
    encoded: list[bytes] = []
    with open_store("memory:", clock=lambda: 1_700_000_000_000_000) as store:
        for start in range(0, count, BATCH_SIZE):
            drafts = [Draft("placed", order(number)) for number in range(start, min(start + BATCH_SIZE, count))]
            store.run(log.append_many("orders", drafts))
            encoded += map(encode, store.run(log.read("orders", after=start)))
        yield Stored(store, encoded)


def fold(stored: Stored) -> None:
    state = stored.store.run(project("orders", add_total, 0))
    assert state.seq == len(stored.encoded)


def decode_alone(encoded: list[bytes]) -> None:
    decode = msgspec.msgpack.Decoder(Event).decode
    for event in encoded:
        decode(event)


ROWS = (
    Row(
        name="memory: append, a program for each event, against eventsourcing's recorder",
        unit="events/s",
        bound=Bound.AT_LEAST,
        must=None,
        operations=100_000,
        prepare=prepared_appends,
        ours=ours(append_in_programs),
        peer=peer(insert_one_by_one),
    ),
    Row(
        name="memory: append, a program for each event, against eventsourcing's mapper and recorder",
        unit="events/s",
        bound=Bound.AT_LEAST,
        must=2.7,
        operations=100_000,
        prepare=prepared_appends,
        ours=ours(append_in_programs),
        peer=peer(insert_from_values),
    ),
    Row(
        name="memory: append one by one in one program, against eventsourcing's recorder",
        unit="events/s",
        bound=Bound.AT_LEAST,
        must=None,
        operations=100_000,
        prepare=prepared_appends,
        ours=ours(append_in_one_program),
        peer=peer(insert_one_by_one),
    ),
    Row(
        name="memory: append 1,000 at once, against eventsourcing's recorder",
        unit="events/s",
        bound=Bound.AT_LEAST,
        must=None,
        operations=100_000,
        prepare=prepared_appends,
        ours=ours(append_in_batches),
        peer=peer(insert_in_batches),
    ),
    Row(
        name="memory: fold one stream, against decoding its events with msgspec alone",
        unit="events/s",
        bound=Bound.AT_LEAST,
        must=0.55,
        operations=1_000_000,
        prepare=stored_orders,
        ours=lambda stored: rate(len(stored.encoded), lambda: fold(stored)),
        peer=lambda stored: rate(len(stored.encoded), lambda: decode_alone(stored.encoded)),
    ),
)
