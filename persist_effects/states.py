"""A fold's state as a snapshot keeps it, and back: believed only where it comes back as what was kept.

A type that has changed since may still decode what is kept: a field that was renamed or added takes its default, one
that was removed is passed over. So what was decoded is encoded again, and compared with what is kept. Numbers are
compared by what they are worth, dicts without the order of their keys, sets without the order of their parts.

Where a type may leave out what has its default (``omit_defaults``, a dataclass), the default is kept too. And where the
plain form of a type does not name its fields (``array_like``, a NamedTuple, a field that is ``UNSET``), what is encoded
again would look the same under other names. So the names of the fields of all these types are kept beside the value.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from persist_effects.codec import decode, encode, fresh, from_plain, to_plain
from persist_effects.errors import InvalidRequest, SnapshotMismatch, Truncated, describe
from persist_effects.event import check_integer
from persist_effects.projection import State
from persist_effects.requests import Entry

Lift = Mapping[int, Callable[[Any], Any]]
"""By version: a pure function from the plain value that was kept of this version to the state of the next version."""

_NO_LIMIT_BYTES = 2**63
_encode = msgspec.msgpack.encode
_to_json = msgspec.json.Encoder().encode


class Kept(msgspec.Struct, frozen=True):
    """What is kept under a snapshot's name: a state as a plain value, and whose it is.

    ``version`` is that of the fold which made it; 0: what is kept there is not a snapshot. ``fields`` are the names of
    the fields that the value does not show. ``missed`` events were truncated before they were folded.
    """

    seq: Annotated[int, msgspec.Meta(ge=0)]
    value: Any
    stream: str | None = None
    version: Annotated[int, msgspec.Meta(ge=1)] = 1
    fields: list[list[str]] | None = None
    missed: Annotated[int, msgspec.Meta(ge=0)] = 0


def kept_in(found: Entry | None) -> Kept | None:
    """What an entry keeps.

    >>> kept_in(Entry({"seq": 2, "value": 12, "stream": "account/1"}, 7))
    Kept(seq=2, value=12, stream='account/1', version=1, fields=None, missed=0)
    >>> kept_in(Entry("something else", 7)).version
    0
    """
    if found is None:
        return None
    try:
        return msgspec.convert(found.value, Kept)
    except msgspec.ValidationError:
        return Kept(0, found.value, version=0)


def record_of(state: State[Any], stream: str | None, state_type: Any, version: int, what: str) -> dict[str, Any]:
    """What is to be kept of a state. Raises `InvalidRequest` if it would not come back, or would not be believed.

    >>> record_of(State({2, 1}, 7), "account/1", set[int], 1, "the state")
    {'seq': 7, 'value': [1, 2], 'stream': 'account/1'}
    """
    value, fields = _keep(state.value, state_type, what)
    record: dict[str, Any] = {"seq": state.seq, "value": value, "stream": stream}
    # What is not said is version 1, and has no such fields: as it was kept before there were versions.
    if version != 1:
        record["version"] = version
    if fields is not None:
        record["fields"] = fields
    if state.missed:
        record["missed"] = state.missed
    return record


class Shape:
    """The type of a fold's states and the version of the fold: it says which of what is kept can be believed.

    >>> Shape(int, 2).state_in(Kept(7, 12, version=2)), Shape(int, 2).state_in(Kept(7, 12, version=1))
    (State(value=12, seq=7), None)
    >>> Shape(int, 2, {1: lambda cents: cents // 100}).lifted("balance", Kept(7, 1200), "account/1")
    State(value=12, seq=7)
    """

    def __init__(self, state_type: Any, version: int = 1, lift: Lift | None = None) -> None:
        check_integer("version", version, 1)
        self.state_type = state_type
        self.version = version
        self._lift: Lift = lift or {}
        for before, function in self._lift.items():
            check_integer("a version in lift", before, 1)
            if before >= version or not callable(function):
                raise InvalidRequest(
                    f"lift has {describe(function)} for version {before}, and this is version {version}: give a "
                    "function for each earlier version, from its plain value to the next version's state"
                )

    def state_in(self, kept: Kept | None) -> State[Any] | None:
        """The state that is kept, where it is of this version and comes back as it was kept; else None."""
        if kept is None or kept.version != self.version:
            return None
        value, doubt = _believe(kept.value, kept.fields, self.state_type)
        return State(value, kept.seq, kept.missed) if doubt is None else None

    def can_lift(self, kept: Kept) -> bool:
        """Whether there is a function for each version from the one that is kept to this one."""
        return 0 < kept.version < self.version and all(
            version in self._lift for version in range(kept.version, self.version)
        )

    def lifted(self, name: str, kept: Kept, stream: str | None) -> State[Any]:
        """The state that `Lift` makes of what is kept. Raises `SnapshotMismatch` where it fails to."""
        plain, version, fields = kept.value, kept.version, kept.fields
        try:
            while version < self.version:
                made, form = self._lift[version](fresh(plain)), _Form()
                plain = fresh(form.of(made, _builtins(made)))
                fields = form.hidden_fields()
                version += 1
        except Exception as error:  # a function that meets a shape it did not expect may raise anything
            reason = f"lift[{version}] raised {type(error).__name__}: {error}"
            raise self._mismatch(name, kept, stream, reason) from error
        value, doubt = _believe(plain, fields, self.state_type)
        if doubt is not None:
            raise self._mismatch(name, kept, stream, f"what lift[{version - 1}] made does not fit: {doubt}")
        return State(value, kept.seq, kept.missed)

    def only_copy(self, name: str, kept: Kept | None, truncated: Truncated) -> State[Any]:
        """The state in what is kept, where it stands for events that were dropped, and is not believed as it is.

        Raises `SnapshotMismatch` where it cannot be lifted, and the `Truncated` where it would not help.
        """
        if kept is not None and self.can_lift(kept):
            return self.lifted(name, kept, truncated.stream)
        if kept is None or kept.version == 0 or kept.seq + 1 < truncated.first_left:
            raise truncated
        raise self._mismatch(name, kept, truncated.stream, self._why_not(kept)) from truncated

    def _mismatch(self, name: str, kept: Kept, stream: str | None, reason: str) -> SnapshotMismatch:
        return SnapshotMismatch(name, stream or kept.stream, kept.version, self.version, kept.seq, reason)

    def _why_not(self, kept: Kept) -> str:
        if kept.version > self.version:
            return "it is of a later version of the fold"
        if kept.version < self.version:
            return "it is of an earlier version of the fold"
        _, doubt = _believe(kept.value, kept.fields, self.state_type)
        return f"it does not fit the type of the state: {doubt}"


# A value and its plain form


class _Unordered(list[Any]):
    """The parts of a set, in the plain form of a value that is compared."""


def _keep(value: Any, kind: Any, what: str) -> tuple[Any, list[list[str]] | None]:
    if kind is None:
        return to_plain(value, None, what), None
    plain, fields, back, doubt = _tried(value, kind, what)
    # Not a number is not equal to itself, but looks the same.
    if repr(back) != repr(value) and back != value:
        raise InvalidRequest(
            f"{what} is {value!r:.80} and would come back as {back!r:.80}: say its type, which now is {kind!r}"
        )
    if doubt is not None:
        # An equal value of another type than was said: kept as the value that comes back.
        plain, fields, _, doubt = _tried(back, kind, what)
    if doubt is not None:
        raise InvalidRequest(f"{what} cannot be stored and read back as {kind!r}: {doubt}")
    return plain, fields


def _tried(value: Any, kind: Any, what: str) -> tuple[Any, list[list[str]] | None, Any, str | None]:
    """A value's plain form with the fields that it does not show, the value that comes back, and the doubt about it."""
    try:
        form = _Form()
        plain = form.of(value, _builtins(value))
        fields = form.hidden_fields()
        kept = decode(encode(plain, what, _NO_LIMIT_BYTES))
        back = from_plain(kept, kind)
        return plain, fields, back, _doubt_about(back, kept, fields)
    except (TypeError, RecursionError, msgspec.ValidationError) as error:
        raise InvalidRequest(f"{what} cannot be stored and read back as {kind!r}: {error}") from error


def _believe(plain: Any, fields: list[list[str]] | None, kind: Any) -> tuple[Any, str | None]:
    """The value that was kept in plain form, and why it is not to be believed; None: it is."""
    if kind is None:
        return plain, None
    try:
        value = from_plain(plain, kind)
        return value, _doubt_about(value, plain, fields)
    except (msgspec.ValidationError, TypeError, RecursionError) as error:
        return None, str(error)


def _doubt_about(value: Any, plain: Any, fields: list[list[str]] | None) -> str | None:
    """How a decoded value, encoded again, differs from what is kept."""
    # Nearly always the same at once. JSON says ints as keys, dates and tuples as the plain form does, and is fast.
    if fields is None and _to_json(value) == _to_json(plain):
        return None
    form = _Form(set_type=_Unordered)
    doubt = _difference(plain, form.of(value, _builtins(value)))
    if fields is None:
        # Before the names of such fields were kept, what has its default was left out.
        return doubt and _difference(plain, _Form(fills=False, set_type=_Unordered).of(value, _builtins(value)))
    unknown = [names for names in form.hidden_fields() or () if names not in fields]
    return doubt or (f"the fields were {fields}, and now are {unknown}" if unknown else None)


def _builtins(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True)


class _Form:
    """Makes the plain form of a value, with ``fills`` its defaults too, and notes the fields that it does not show."""

    def __init__(self, fills: bool = True, set_type: type[list[Any]] = list) -> None:
        self._fills = fills
        self._set_type = set_type
        self._hidden: set[tuple[str, ...]] = set()

    def hidden_fields(self) -> list[list[str]] | None:
        """The names of the fields, of each type of which the plain form does not show them all."""
        return [list(names) for names in sorted(self._hidden)] or None

    def of(self, value: Any, plain: Any) -> Any:
        """The plain form; ``plain`` is what msgspec makes of the value."""
        if isinstance(plain, dict):
            if isinstance(value, dict):
                parts = zip(plain, value.values(), strict=False)
                return {key: self.of(part, plain[key]) for key, part in parts}
            return self._of_object(value, plain)
        if isinstance(plain, list | tuple):
            return self._of_parts(value, plain)
        return plain

    def _of_parts(self, value: Any, plain: Sequence[Any]) -> list[Any]:
        parts = value
        if isinstance(value, msgspec.Struct):  # array_like, perhaps with a tag in front
            self._hidden.add(value.__struct_encode_fields__)
            tag = plain[: len(plain) - len(value.__struct_fields__)]
            parts = [*tag, *(getattr(value, name) for name in value.__struct_fields__)]
        elif hasattr(value, "_fields"):
            self._hidden.add(value._fields)
        made = [self.of(part, plain_part) for part, plain_part in zip(parts, plain, strict=True)]
        # By their bytes, because Structs, enums, and values of several types have no order of their own.
        return self._set_type(sorted(made, key=_encode)) if isinstance(value, set | frozenset) else made

    def _of_object(self, value: Any, plain: dict[str, Any]) -> dict[str, Any]:
        """Of a Struct or dataclass: a tag if it has one, and its fields."""
        names = _fields_of(value, plain)
        parts = {key: getattr(value, name, plain.get(key)) for key, name in names.items()}
        if _leaves_out(value, names) or any(part is msgspec.UNSET for part in parts.values()):
            self._hidden.add(tuple(names))
        made = {key: part for key, part in plain.items() if key not in names}
        for key, part in parts.items():
            if key in plain:
                made[key] = self.of(part, plain[key])
            elif self._fills and part is not msgspec.UNSET:
                made[key] = self.of(part, _builtins(part))
        return made


def _leaves_out(value: Any, names: dict[str, str]) -> bool:
    """Whether msgspec may leave out fields that have their defaults."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_config__.omit_defaults
    # A dataclass keeps a default in the class, and not in an object that msgspec has made.
    return any(hasattr(type(value), name) for name in names.values())


def _fields_of(value: Any, plain: dict[str, Any]) -> dict[str, str]:
    """By the names in the plain form: the names of a Struct's or dataclass's fields."""
    if isinstance(value, msgspec.Struct):
        return dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
    return {name: name for name in getattr(value, "__dataclass_fields__", plain)}


def _difference(kept: Any, again: Any, place: str = "state") -> str | None:
    """Where a plain value differs from what is kept, in words; None: it does not."""
    if isinstance(again, dict) and isinstance(kept, dict):
        return _difference_of_dicts(kept, again, place)
    if isinstance(again, list) and isinstance(kept, list):
        if len(again) != len(kept):
            return f"{place} has {len(again)} parts, and what is kept has {len(kept)}"
        if isinstance(again, _Unordered):
            kept, again = (sorted(parts, key=lambda part: _encode(_worth(part))) for parts in (kept, again))
        pairs = enumerate(zip(kept, again, strict=True))
        return next(filter(None, (_difference(*pair, f"{place}[{index}]") for index, pair in pairs)), None)
    return None if _is_same(kept, again) else f"{place} is {again!r:.80}, and what is kept is {kept!r:.80}"


def _difference_of_dicts(kept: dict[str, Any], again: dict[str, Any], place: str) -> str | None:
    for key in kept:
        if key not in again:
            return f"what is kept has {key!r:.80} in {place}, and the type has no such field"
    for key, part in again.items():
        if key not in kept:
            return f"{place} has the field {key!r:.80}, which is not in what is kept"
        found = _difference(kept[key], part, f'{place}["{key:.80}"]')
        if found is not None:
            return found
    return None


def _is_same(kept: Any, again: Any) -> bool:
    if type(kept) is float and type(again) is float and math.isnan(kept) and math.isnan(again):
        return True
    are_numbers = {type(kept), type(again)} <= {int, float}
    return bool((are_numbers or type(kept) is type(again)) and kept == again)


def _worth(plain: Any) -> Any:
    """What is the same for plain values without a `_difference`, so that the parts of sets are sorted alike."""
    if isinstance(plain, dict):
        return {key: _worth(plain[key]) for key in sorted(plain)}
    if isinstance(plain, list):
        return [_worth(part) for part in plain]
    return int(plain) if isinstance(plain, float) and plain.is_integer() and abs(plain) < 2**63 else plain
