"""Requests with their values sealed, and answers with their values opened. No IO, but for what gives the keys.

An event's data is replaced by its envelope, a meta by ``{"sealed": envelope}``, a key's value by its envelope. Where a
transaction notes answers, which the store adds to a dict, the value is ``{"sealed": envelope}`` too. The answers stand
beside the envelope in the clear, for they are numbers, and come back right in the dict that they were noted in.

What stands in the clear is read as it is. So a store may be given encryption late, and read on. A value that the user
gives and that looks like an envelope is refused, sealed or not: nothing is ever taken for one that is none.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby, repeat
from typing import Any, Protocol

import msgspec

from interpreters.runtime.interpreter import Between
from interpreters.wrappers.encryption.envelope import (
    HEAD_BYTES,
    META,
    NONCE_BYTES,
    WORN_BELOW,
    Found,
    Key,
    KeyById,
    key_id_in,
    place_of_events,
    place_of_key,
    where,
)
from interpreters.wrappers.encryption.keys import Random
from interpreters.wrappers.encryption.sealed_blobs import checked_blob, opened_blob
from persist_effects import codec
from persist_effects.erasure import ENVELOPE, SEALED, Erased, is_sealed
from persist_effects.errors import CorruptStore, InvalidRequest, describe
from persist_effects.event import Draft, Event
from persist_effects.requests import (
    ANSWERS,
    Append,
    BlobGet,
    BlobPut,
    Entry,
    KvEntries,
    KvGet,
    KvPut,
    Page,
    Read,
    ReadAll,
    Request,
    Transact,
    Write,
)

SubjectOf = Callable[[str], str | None]
"""A pure function of the name of a stream or a key: about whom its values are; None: they stand in the clear."""

SubjectOfEvent = Callable[[str, Draft], str | None]
"""A pure function of a stream's name and a draft: about whom that one event is; None: it stands in the clear.

It is asked of streams that are about nobody, so that the states of those that are about somebody hold nobody else.
"""

SNAPSHOTS = "snapshot/"
"""Under which prefix `persist_effects.snapshot` keeps states, each with the name of the stream that it is of."""


class KeysForWriting(Protocol):
    """What gives the keys under which to write."""

    def newest(self, subject: str) -> Key:
        """The key of a subject."""
        ...

    def worn(self, subject: str, key_id: bytes) -> object:
        """Have the key of this id be followed by the next generation."""
        ...


class KeySource(KeysForWriting, Protocol):
    """What gives the keys to write and to read with."""

    def by_id(self, key_id: bytes, found: Found, /) -> Key | Erased:
        """The key that has an id, or what stands for all that was written under it."""
        ...


class Sealing:
    """Seals what requests write.

    Args:
        subject_of: About whom a stream or a key is.
        subject_of_event: About whom one event is, of a stream that is about nobody.
        limit_bytes: How many bytes a value may have.
        random: Gives random bytes.
    """

    def __init__(
        self, subject_of: SubjectOf, subject_of_event: SubjectOfEvent | None, limit_bytes: int, random: Random
    ) -> None:
        self._subject_of = subject_of
        self._subject_of_event = subject_of_event
        self._limit_bytes = limit_bytes
        self._random = random

    def sealed(self, request: Any, keys: KeysForWriting) -> Any:
        """What the store is asked in the place of a request.

        Args:
            request: The request.
            keys: Gives the keys under which to write.

        Returns:
            The same request with its values sealed; itself, where it has none.

        Raises:
            InvalidRequest: A value cannot be stored, or looks like an envelope.
            TooLarge: One is over the limit.
            SubjectForgotten: One is about a subject that was forgotten.
        """
        kind = type(request)
        if kind is Append:
            return self._append(request, keys)
        if kind is KvPut:
            return self._put(request, keys, is_noting=False)
        if kind is Transact:
            return self._transact(request, keys)
        return checked_blob(request) if kind is BlobPut else request

    def sealed_bytes(self, subject: str, plain: bytes, place: bytes, keys: KeysForWriting) -> bytes:
        """The envelope of some bytes about a subject.

        Args:
            subject: The subject.
            plain: The bytes.
            place: For which place.
            keys: Gives its key.

        Returns:
            The envelope.
        """
        key, nonce = keys.newest(subject), self._random(NONCE_BYTES)
        if nonce < WORN_BELOW:
            keys.worn(subject, key.id)
        return key.seal(plain, place, nonce)

    def _append(self, request: Append, keys: KeysForWriting) -> Append:
        stream, drafts = request.stream, request.events
        subject = self._subject(stream)
        if subject is not None:
            return Append(stream, tuple(self._sealed_drafts(stream, drafts, subject, keys)), request.expected)
        sealed: list[Draft] = []
        # Those of one append mostly are about one subject.
        for subject, alike in groupby(drafts, partial(self._subject_of_draft, stream)):
            if subject is not None:
                sealed += self._sealed_drafts(stream, tuple(alike), subject, keys)
                continue
            for draft in alike:
                if _may_look_sealed(draft):
                    _refuse_envelopes(stream, draft, is_clear=True)
                sealed.append(draft)
        return Append(stream, tuple(sealed), request.expected)

    def _sealed_drafts(self, stream: str, drafts: Sequence[Draft], subject: str, keys: KeysForWriting) -> list[Draft]:
        """Drafts about one subject, with envelopes in the place of what they say."""
        # Runs for every event that is written, and so one step after the other for all of them: see `_Alike`.
        begin, encode, limit_bytes = place_of_events(stream), codec.encode_apart, self._limit_bytes
        for draft in drafts:
            if _may_look_sealed(draft):
                _refuse_envelopes(stream, draft, is_clear=False)
        places = {kind: begin + kind.encode() for kind in {draft.type for draft in drafts}}
        plains = [encode(stream, draft, limit_bytes) for draft in drafts]
        key, nonces = keys.newest(subject), self._nonces(len(drafts))
        data = [(plain, places[draft.type]) for (plain, _), draft in zip(plains, drafts, strict=True)]
        sealed = [
            Draft(draft.type, envelope, draft.at)
            for draft, envelope in zip(drafts, key.seal_all(data, nonces), strict=True)
        ]
        for index, (draft, (_, meta)) in enumerate(zip(drafts, plains, strict=True)):
            if meta is not None:
                nonces.append(self._random(NONCE_BYTES))
                envelope = key.seal(meta, places[draft.type] + META, nonces[-1])
                sealed[index] = msgspec.structs.replace(sealed[index], meta={SEALED: envelope})
        if min(nonces, default=WORN_BELOW) < WORN_BELOW:
            keys.worn(subject, key.id)
        return sealed

    def _nonces(self, count: int) -> list[bytes]:
        """So many nonces, drawn at once, because asking the system for each takes half as long as encrypting."""
        drawn = self._random(count * NONCE_BYTES)
        return [drawn[start : start + NONCE_BYTES] for start in range(0, count * NONCE_BYTES, NONCE_BYTES)]

    def _put(self, request: KvPut, keys: KeysForWriting, *, is_noting: bool) -> KvPut:
        name, value = request.key, request.value
        subject = self._subject(name) or self._subject_of_snapshot(name, value)
        _refuse_envelope(value, lambda: codec.value_name(name), is_clear=subject is None)
        if subject is None:
            return request
        plain = codec.encode(value, codec.value_name(name), self._limit_bytes)
        envelope = self.sealed_bytes(subject, plain, place_of_key(name), keys)
        return KvPut(name, {SEALED: envelope} if is_noting else envelope, request.expected)

    def _transact(self, request: Transact, keys: KeysForWriting) -> Transact:
        last = len(request.writes) - 1
        writes: list[Write] = []
        for index, write in enumerate(request.writes):
            if type(write) is KvPut:
                writes.append(self._put(write, keys, is_noting=index == last and request.noting is True))
            else:
                writes.append(self.sealed(write, keys))
        return Transact(tuple(writes), request.checks, request.noting)

    # About whom

    def _subject(self, name: str) -> str | None:
        subject = self._subject_of(name)
        if subject is not None and type(subject) is not str:
            raise _no_subject("subject_of", name, subject)
        return subject

    def _subject_of_draft(self, stream: str, draft: Draft) -> str | None:
        if self._subject_of_event is None:
            return None
        subject = self._subject_of_event(stream, draft)
        if subject is not None and type(subject) is not str:
            raise _no_subject("subject_of_event", stream, subject)
        return subject

    def _subject_of_snapshot(self, name: str, value: Any) -> str | None:
        """A state is about whom its stream is, whatever its name."""
        if name.startswith(SNAPSHOTS) and type(value) is dict and type(value.get("stream")) is str:
            return self._subject(value["stream"])
        return None


def _may_look_sealed(draft: Draft) -> bool:
    data = draft.data
    return draft.meta is not None or type(data) is not dict or SEALED in data


def _refuse_envelopes(stream: str, draft: Draft, *, is_clear: bool) -> None:
    _refuse_envelope(draft.data, lambda: codec.payload_name("data", stream, draft.type), is_clear=is_clear)
    _refuse_envelope(draft.meta, lambda: codec.payload_name("meta", stream, draft.type), is_clear=is_clear)


def _refuse_envelope(value: Any, name: Callable[[], str], *, is_clear: bool) -> None:
    if is_clear and isinstance(value, msgspec.Struct):
        # As the store will hold it. What cannot be stored, the store refuses.
        value = msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=repr)
    if is_sealed(value):
        raise InvalidRequest(
            f"{name()} looks like an envelope, which only encryption may write: where it was exported as it lay in a "
            "store, import it into the store itself, without encryption around it; else give it in another form than "
            f"bytes that begin with {ENVELOPE!r}"
        )


def _no_subject(function: str, name: str, found: object) -> InvalidRequest:
    return InvalidRequest(f"{function}({name!r}) is {describe(found)}: return the subject's name, a str, or None")


# Opening

_decode = msgspec.msgpack.Decoder().decode


def opened(request: Request[Any], answer: Any, by_id: KeyById) -> Any:
    """An answer with its values opened.

    Args:
        request: What was asked.
        answer: What the store answered.
        by_id: Gives the key that has an id, or what stands for all that was written under it.

    Returns:
        The answer; itself, where nothing in it is sealed.

    Raises:
        CorruptStore: An envelope was altered, or is not where it was sealed for.
        KeyLost: The key of one is lost.
    """
    open_answer = _OPENING.get(type(request))
    return answer if open_answer is None else open_answer(request, answer, by_id)


class _Alike:
    """Events of a page that are of one stream and one type, and whose data is under one key."""

    __slots__ = ("envelopes", "events", "key", "kind", "stream")

    def __init__(self, stream: str, kind: str, key: Key | Erased) -> None:
        self.stream, self.kind, self.key = stream, kind, key
        self.events: list[Event] = []
        self.envelopes: list[bytes] = []

    def opened(self, by_id: KeyById) -> list[Event]:
        """They, as they were before they were sealed."""
        # All are decrypted, then all decoded, and then made: in turn, one by one, that takes a third longer.
        stream, kind = self.stream, self.kind
        place = place_of_events(stream) + kind.encode()
        opened = [
            Event(stream, event.seq, kind, event.at, value, event.position, event.meta)
            for event, value in zip(self.events, self._values(place), strict=True)
        ]
        for index, event in enumerate(opened):
            if event.meta is not None:
                # It is about the same subject.
                meta = _opened_meta(event.meta, place + META, by_id, event)
                opened[index] = msgspec.structs.replace(event, meta=meta)
        return opened

    def _values(self, place: bytes) -> Iterable[Any]:
        if isinstance(self.key, Erased):
            return repeat(self.key, len(self.events))
        plains = self.key.open_all(self.envelopes, place)
        if plains is None:
            # One by one, so that it is said which of them it is.
            return [_opened(event.data, place, lambda *_: self.key, event) for event in self.events]
        return list(map(_decode, plains))


def _opened_page(_: Read | ReadAll, page: Page, by_id: KeyById) -> Page:
    found = _sealed_in(page.events, by_id)
    if not found:
        return page
    opened = [event for alike in found for event in alike.opened(by_id)]
    if len(found) > 1 or len(opened) < len(page.events):
        by_position = {event.position: event for event in opened}
        opened = [by_position.get(event.position, event) for event in page.events]
    return Page(opened, page.next, page.head, page.hole)


def _sealed_in(events: Sequence[Event], by_id: KeyById) -> list[_Alike]:
    """The events whose data is sealed; where that is not, the meta is not either."""
    # Runs for every event that is read. Those of a page mostly are under the key of the one before, of its stream, and
    # of few types.
    found: list[_Alike] = []
    stream, head, by_type = "", b"", dict[str, _Alike]()
    key: Key | Erased | None = None
    for event in events:
        data = event.data
        if type(data) is not bytes or data[:HEAD_BYTES] != head:
            if not is_sealed(data):
                continue
            key, head, by_type = by_id(key_id_in(data, event), event), data[:HEAD_BYTES], {}
        if event.stream != stream:
            stream, by_type = event.stream, {}
        alike = by_type.get(event.type)
        if alike is None:
            assert key is not None, "a head was seen"
            alike = by_type[event.type] = _Alike(stream, event.type, key)
            found.append(alike)
        alike.events.append(event)
        alike.envelopes.append(data)
    return found


def _opened_meta(meta: dict[str, Any], place: bytes, by_id: KeyById, found: Event) -> Any:
    """The meta of an event whose data is sealed: it is too, or the store has noted answers where there was none."""
    return _opened_dict(meta, place, by_id, found) if SEALED in meta else meta


def _opened_entry(request: KvGet, entry: Entry | None, by_id: KeyById) -> Entry | None:
    return None if entry is None else _entry_opened(request.key, entry, by_id)


def _opened_entries(_: KvEntries, entries: list[tuple[str, Entry]], by_id: KeyById) -> list[tuple[str, Entry]]:
    return [(key, _entry_opened(key, entry, by_id)) for key, entry in entries]


def _entry_opened(key: str, entry: Entry, by_id: KeyById) -> Entry:
    value = entry.value
    if not is_sealed(value):
        return entry
    open_value: Callable[..., Any] = _opened_dict if type(value) is dict else _opened
    return Entry(open_value(value, place_of_key(key), by_id, codec.value_name(key)), entry.revision)


def _opened(envelope: bytes, place: bytes, by_id: KeyById, found: Found) -> Any:
    key = by_id(key_id_in(envelope, found), found)
    if type(key) is not Key:
        return key
    return _unsealed(key.open(envelope, place), found)


def _unsealed(plain: bytes | None, found: Found) -> Any:
    """The value whose bytes were in an envelope; None: they were not what was sealed."""
    if plain is None:
        raise CorruptStore(
            f"{where(found)}: expected what was encrypted for this place, found something else: it was altered, or "
            "moved here from another stream, type or key: restore it from a backup"
        )
    return codec.decode(plain)


def _opened_dict(holder: dict[str, Any], place: bytes, by_id: KeyById, found: Found) -> Any:
    """What is in a dict with an envelope, and with the answers that were noted beside it."""
    if holder.keys() - {SEALED, ANSWERS}:
        raise CorruptStore(
            f"{where(found)}: expected an envelope, perhaps with noted answers, found also "
            f"{min(holder.keys() - {SEALED, ANSWERS})!r}: restore it from a backup"
        )
    value = _opened(holder[SEALED], place, by_id, found)
    if ANSWERS in holder and not isinstance(value, Erased):
        value[ANSWERS] = holder[ANSWERS]
    return value


def _opened_blob(request: BlobGet, data: bytes, by_id: KeyById) -> bytes:
    return opened_blob(request.cid, data, by_id)


_OPENING: dict[type[Request[Any]], Callable[[Any, Any, KeyById], Any]] = {
    BlobGet: _opened_blob,
    Read: _opened_page,
    ReadAll: _opened_page,
    KvGet: _opened_entry,
    KvEntries: _opened_entries,
}


def between(sealing: Sealing, keys: KeySource) -> Between:
    """What is done with each request, and with each answer.

    Args:
        sealing: Seals.
        keys: Gives the keys.

    Returns:
        Both.
    """
    sealed, by_id = sealing.sealed, keys.by_id
    return Between(lambda request: sealed(request, keys), lambda request, answer: opened(request, answer, by_id))
