"""What stands in the messages of a store: the bodies of events, keys and marks, as bytes and back.

=======================  =============================================================================================
``app.e.<stream>``       an event; of a stream that was begun, what stands before its first one: it has no type
``app.k.<key>``          a value; nothing where the key was deleted
``app.t.<stream>``       a mark: through which event the stream was truncated
=======================  =============================================================================================

A message's own sequence number in JetStream is the event's position, or the key's revision. What else has to name one
that its own commit gives says how far before its own message that one stands: a commit's messages are consecutive.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from interpreters.stores.nats.jetstream import Message
from persist_effects import codec
from persist_effects.errors import CorruptStore
from persist_effects.event import Event
from persist_effects.requests import ANSWERS, Entry

R = TypeVar("R")


class Noted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How the numbers of the answers that a transaction has noted are found, from the message that keeps them.

    Its first event stands ``events`` before this message, and its first key ``keys``. ``kinds`` has a letter for each
    answer: e for what counts from the first event, k from the first key, and a dash for what is as it stands.
    """

    events: int
    keys: int
    kinds: str


class EventRecord(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """The body of an event's message.

    ``noted`` is there in the last one of a transaction that notes.
    """

    seq: int
    type: str
    at: int
    data: msgspec.Raw
    meta: msgspec.Raw
    noted: Noted | None = None


class StoredEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The body of an event's message, its data and meta decoded."""

    seq: int
    type: str
    at: int
    data: Any
    meta: Any
    noted: Noted | None = None


class ValueRecord(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """The body of a key's message."""

    value: msgspec.Raw
    noted: Noted | None = None


class MarkRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The body of a mark: the events ``through`` this one are gone.

    ``position`` is that of the last of them; up to 0 it counts from this message.
    """

    through: int
    position: int


class DropMark(NamedTuple):
    """A mark that was read."""

    name: str
    dropped: int
    dropped_position: int


NOTHING = msgspec.Raw(b"\xc0")

_encode = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(EventRecord).decode
_decode_stored = msgspec.msgpack.Decoder(StoredEvent).decode
_decode_value = msgspec.msgpack.Decoder(ValueRecord).decode
_decode_mark = msgspec.msgpack.Decoder(MarkRecord).decode


def event_body(
    seq: int, event_type: str, at: int, encoded: tuple[bytes, bytes | None], noted: Noted | None = None
) -> bytes:
    """The body of an event's message. ``encoded``: its data and its meta.

    >>> body = event_body(3, "placed", 0, (codec.encode(12), None))
    >>> event_of(Message(40, "app.e.orders.1", body), "orders/1", 40)
    Event(stream='orders/1', seq=3, type='placed', at=0, data=12, position=40, meta=None)
    """
    data, meta = encoded
    return _encode(
        EventRecord(seq, event_type, at, msgspec.Raw(data), NOTHING if meta is None else msgspec.Raw(meta), noted)
    )


def beginning_body(seq: int) -> bytes:
    """The body of what stands before the first event of a stream that was begun after a sequence number."""
    return _encode(EventRecord(seq, "", 0, NOTHING, NOTHING))


def value_body(value: bytes, noted: Noted | None = None) -> bytes:
    """The body of a key's message."""
    return _encode(ValueRecord(msgspec.Raw(value), noted))


def mark_body(through: int, position: int) -> bytes:
    """The body of a mark."""
    return _encode(MarkRecord(through, position))


def event_record(message: Message) -> EventRecord:
    """What stands in an event's message. Raises `CorruptStore` where that is none of a store's."""
    return _decoded(_decode_event, message)


def stored_event(message: Message) -> StoredEvent:
    """What stands in an event's message, decoded. Raises `CorruptStore` where that is none of a store's."""
    return _decoded(_decode_stored, message)


def event_of(message: Message, stream: str, position: int) -> Event:
    """The event in a message whose number is told as this one. A commit's numbers are all told alike."""
    return event_in(stored_event(message), stream, position)


def event_in(record: StoredEvent, stream: str, position: int) -> Event:
    """The event that stands in a message whose number is told as this one."""
    meta = record.meta if record.noted is None else with_numbers(record.meta, position, record.noted)
    return Event(stream, record.seq, record.type, record.at, record.data, position, meta)


def entry_of(message: Message, revision: int) -> Entry:
    """The entry in a key's message, which is not one of a deletion."""
    record = _decoded(_decode_value, message)
    value = codec.decode(record.value)
    return Entry(value if record.noted is None else with_numbers(value, revision, record.noted), revision)


def mark_of(message: Message, stream: str) -> DropMark:
    """The mark in a message."""
    record = _decoded(_decode_mark, message)
    return DropMark(
        stream, record.through, record.position if record.position > 0 else message.number + record.position
    )


def _decoded(decode: Callable[[bytes], R], message: Message) -> R:
    try:
        return decode(message.body)
    except msgspec.DecodeError as error:
        raise CorruptStore(
            f"message {message.number} of {message.subject} is none of a store's ({error}): something else writes to "
            "the store's subjects, or its format is a newer one"
        ) from error


def with_numbers(holder: dict[str, Any], own: int, noted: Noted) -> dict[str, Any]:
    """Fill in the numbers of the answers that a transaction has noted, now that they are known.

    Args:
        holder: The value, or the meta, that keeps the answers.
        own: The number of the message in which it stands.
        noted: How they are found.

    Returns:
        The same with them.

    >>> with_numbers({"answers": [{"first_seq": 4, "last_seq": 4, "position": 1}, 1, False]}, 42, Noted(2, 1, "ek-"))
    {'answers': [{'first_seq': 4, 'last_seq': 4, 'position': 40}, 41, False]}
    """
    before = {"e": own - noted.events - 1, "k": own - noted.keys - 1}
    filled = [
        answer if kind == "-" else _counted_from(before[kind], answer)
        for kind, answer in zip(noted.kinds, holder[ANSWERS], strict=True)
    ]
    return {**holder, ANSWERS: filled}


def _counted_from(before: int, answer: Any) -> Any:
    if isinstance(answer, dict):
        return {**answer, "position": before + answer["position"]}
    return before + answer
