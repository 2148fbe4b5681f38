"""Typed events: Structs in, Structs out, and old shapes lifted to the new one when they are read.

An event's data is stored as plain values, with the version of its shape in ``meta["schema_version"]``. The type's
version is one more than the number of its upcasters: ``upcasters["placed"] = (to_2, to_3)`` makes it 3, and an event
of version 1 goes through both. An upcaster is a pure function from the old data to the next version's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from persist_effects import log
from persist_effects.codec import from_plain, to_plain
from persist_effects.errors import InvalidRequest, SchemaMismatch, describe
from persist_effects.event import Draft, Event, check_name
from persist_effects.machine import Effect
from persist_effects.projection import StepFunction
from persist_effects.requests import Conflict
from persist_effects.type_variables import EventDataT

S = TypeVar("S")
Upcaster = Callable[[Any], Any]

_VERSION = "schema_version"


class Schema(Generic[EventDataT]):
    """Which type each event type has, and how old shapes become the present one.

    To type checkers the data of its events is one of its types: ``Schema[Placed | Paid]({"placed": Placed, …})``.

    Raises `InvalidRequest` for a type that stands under two names, and for upcasters of an unknown event type.

    >>> class Placed(msgspec.Struct, frozen=True):
    ...     total_cents: int
    >>> schema = Schema({"placed": Placed}, upcasters={"placed": [lambda old: {"total_cents": old["total"] * 100}]})
    >>> schema.lift(Event("orders/1", 1, "placed", 0, {"total": 12}, 1)).data
    Placed(total_cents=1200)
    """

    def __init__(
        self, types: Mapping[str, type[EventDataT]], upcasters: Mapping[str, Sequence[Upcaster]] | None = None
    ) -> None:
        self._types: dict[str, type[EventDataT]] = dict(types)
        self._upcasters = {name: tuple(chain) for name, chain in (upcasters or {}).items()}
        for name, kind in self._types.items():
            check_name("event type", name)
            if not isinstance(kind, type):
                raise InvalidRequest(f"the event type {name!r} has {describe(kind)} for its type: give a class")
        self._names = {kind: name for name, kind in self._types.items()}
        for name, kind in self._types.items():
            if self._names[kind] != name:
                raise InvalidRequest(
                    f"{kind.__name__} stands for the event types {name!r} and {self._names[kind]!r}: "
                    "give each event type a class of its own"
                )
        for name in self._upcasters:
            if name not in self._types:
                raise InvalidRequest(f"there are upcasters for the event type {name!r}, but no type: add it to `types`")

    def draft(self, value: EventDataT, *, at: int | None = None, meta: dict[str, Any] | None = None) -> Draft:
        """The draft of a typed event.

        Args:
            value: The event's data, of a class of the schema.
            at: Its time, in microseconds since 1970, UTC; None: the store's clock gives one.
            meta: What is kept beside the data.

        Returns:
            The draft.

        Raises:
            InvalidRequest: If the value's class is not in the schema.

        >>> class Placed(msgspec.Struct, frozen=True):
        ...     total: int
        >>> Schema({"placed": Placed}).draft(Placed(12))
        Draft(type='placed', data={'total': 12}, at=None, meta={'schema_version': 1})
        """
        name = self._names.get(type(value))
        if name is None:
            raise InvalidRequest(f"no event type of the schema has the class {type(value).__name__}: add it")
        data = to_plain(value, type(value), f"a {name!r} event")
        draft = Draft(name, data, at, meta)
        return msgspec.structs.replace(draft, meta={**(draft.meta or {}), _VERSION: self._version(name)})

    def append(
        self, stream: str, value: EventDataT, *, at: int | None = None, meta: dict[str, Any] | None = None
    ) -> Effect[Event[EventDataT]]:
        """Append a typed event.

        Args:
            stream: The stream's name.
            value: The event's data, of a class of the schema.
            at: Its time, in microseconds since 1970, UTC; None: the store's clock gives one.
            meta: What is kept beside the data.

        Returns:
            The event, typed.

        Raises:
            InvalidRequest: If the value's class is not in the schema.
        """
        draft = self.draft(value, at=at, meta=meta)
        event = yield from log.append(stream, draft.type, draft.data, at=at, meta=draft.meta)
        return self.lift(event)

    def append_expect(
        self,
        stream: str,
        expected: int,
        value: EventDataT,
        *,
        at: int | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Effect[Event[EventDataT] | Conflict]:
        """Append a typed event only if a sequence number is the stream's last one.

        Args:
            stream: The stream's name.
            expected: The last sequence number, as the caller knows it; 0: the stream was never used.
            value: The event's data, of a class of the schema.
            at: Its time, in microseconds since 1970, UTC; None: the store's clock gives one.
            meta: What is kept beside the data.

        Returns:
            The event, typed; or a `Conflict` where another number is the last.

        Raises:
            InvalidRequest: If the value's class is not in the schema.
        """
        draft = self.draft(value, at=at, meta=meta)
        answer = yield from log.append_expect(stream, expected, draft.type, draft.data, at=at, meta=draft.meta)
        return answer if isinstance(answer, Conflict) else self.lift(answer)

    def lift(self, event: Event) -> Event[EventDataT]:
        """The same event with its data as the schema's type.

        Args:
            event: The event as it was read, perhaps of an old shape.

        Returns:
            The event, typed.

        Raises:
            SchemaMismatch: If its data does not fit. It names stream and sequence number.
        """
        kind = self._types.get(event.type)
        if kind is None:
            raise SchemaMismatch(event.stream, event.seq, event.type, "the schema has no such event type")
        version = _version_of(event)
        newest = self._version(event.type)
        if type(version) is not int or not 1 <= version <= newest:
            reason = f"it has version {version!r:.40}, and this schema knows versions 1 to {newest}"
            raise SchemaMismatch(event.stream, event.seq, event.type, reason)
        data = event.data
        try:
            for upcaster in self._upcasters.get(event.type, ())[version - 1 :]:
                data = upcaster(data)
            typed = from_plain(data, kind)
        except Exception as error:  # an upcaster that meets a shape it did not expect may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise SchemaMismatch(event.stream, event.seq, event.type, reason) from error
        return msgspec.structs.replace(event, data=typed)

    def typed(self, step: Callable[[S, Event[EventDataT]], S]) -> StepFunction[S]:
        """A step for a projection that gets its events lifted.

        Args:
            step: A step that takes typed events.

        Returns:
            The step for the projection.

        >>> from interpreters import open_store
        >>> from persist_effects import projection
        >>> class Placed(msgspec.Struct, frozen=True):
        ...     total: int
        >>> schema, store = Schema({"placed": Placed}), open_store("memory:")
        >>> _ = store.run(schema.append("orders/1", Placed(12)))
        >>> store.run(projection.project("orders/1", schema.typed(lambda sum, event: sum + event.data.total), 0)).value
        12
        """

        def lifted_step(value: S, event: Event) -> S:
            return step(value, self.lift(event))

        return lifted_step

    def _version(self, event_type: str) -> int:
        return len(self._upcasters.get(event_type, ())) + 1


def _version_of(event: Event) -> Any:
    # An event that was appended without a schema is of the first shape.
    return event.meta.get(_VERSION, 1) if isinstance(event.meta, dict) else 1
