"""The errors that a recorded program met, as bytes and back.

An error of this package is a list, the name of its class and its arguments. Any other is
``["RecordedError", name, text]``, and behind that, where the text alone does not make it again, its arguments and its
attributes; None in their place says that they cannot be recorded. It comes back as what it was where its class is one
of Python's own, or was registered; else as a `RecordedError`, with a note that says why.
"""

import builtins
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from persist_effects.errors import (
    InvalidRequest,
    RecordedError,
    describe,
    error_class,
    error_from_record,
    text_of,
)
from persist_effects.sameness import EXACT, sameness

ErrorKinds = Mapping[str, type[Exception]]
"""The classes of errors that are not this package's, by their full names."""

NO_ERROR_KINDS: ErrorKinds = MappingProxyType({})

_ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def errors_by_name(kinds: Collection[type[Exception]]) -> ErrorKinds:
    """Classes of errors by their full names. Raises `InvalidRequest` for what is none, and for two of one name.

    >>> errors_by_name([TimeoutError])
    {'TimeoutError': <class 'TimeoutError'>}
    """
    named: dict[str, type[Exception]] = {}
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise InvalidRequest(f"one of `errors` is {describe(kind)}: give classes of exceptions")
        if named.setdefault(full_name(kind), kind) is not kind:
            raise InvalidRequest(f"two classes of errors are named {full_name(kind)}: give one of them")
    return named


def full_name(kind: type) -> str:
    """A class's name with its module, which Python's own need not have.

    >>> full_name(KeyError), full_name(InvalidRequest)
    ('KeyError', 'persist_effects.errors.InvalidRequest')
    """
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_foreign(kind: type) -> bool:
    """Whether a class of errors must be registered to come back: it is neither this package's nor Python's own.

    >>> is_foreign(KeyError), is_foreign(InvalidRequest)
    (False, False)
    """
    return error_class(kind.__name__) is not kind and kind is not RecordedError and _own_of_python(kind) is None


def encode_error(error: Exception) -> bytes:
    """An error that a request met: its name, its text, and what else is needed to make it again.

    >>> from persist_effects.errors import Truncated
    >>> decode_error(encode_error(Truncated("orders/7", 12))).first_left
    12
    >>> decode_error(encode_error(KeyError("tea")))
    KeyError('tea')
    """
    kind, text = type(error), text_of(error)
    if error_class(kind.__name__) is kind:
        for arguments in (error.args, (text,)):
            try:
                encoded = _encode([kind.__name__, *arguments])
                if text_of(error_from_record(_decode(encoded))) == text:
                    return encoded
            except _ENCODING_ERRORS:
                continue
    if kind is RecordedError:
        return _encode([RecordedError.__name__, *error.args])
    return _encode([RecordedError.__name__, full_name(kind), text, *_what_makes(error, text)])


def _what_makes(error: Exception, text: str) -> list[Any]:
    """Nothing where the text makes an equal error; or its arguments and attributes; or None: they cannot be kept."""
    try:
        if _is_made_by(error, [text], {}):
            return []
        parts = _arguments_of(error)
        if sameness(parts, tuple(_decode(_encode(parts)))) != EXACT or not _is_made_by(error, *parts):
            return [None]
    except Exception:  # a class of another package may raise anything, and so may its arguments
        return [None]
    return [*parts] if parts[1] else [parts[0]]


def _arguments_of(error: Exception) -> tuple[list[Any], dict[str, Any]]:
    """As pickle asks for them. Notes are left out: who drives a program may add some."""
    found = error.__reduce__()
    reduced: list[Any] = [*found] if isinstance(found, tuple) else []
    is_usual = len(reduced) > 1 and reduced[0] is type(error)
    attributes = reduced[2] if is_usual and len(reduced) > 2 and isinstance(reduced[2], dict) else vars(error)
    kept = {name: value for name, value in attributes.items() if name != "__notes__"}
    return [*(reduced[1] if is_usual else error.args)], kept


def _is_made_by(error: Exception, arguments: list[Any], attributes: Mapping[str, Any]) -> bool:
    again = _made(type(error), arguments, attributes, text_of(error))
    return again is not None and sameness(_arguments_of(error), _arguments_of(again)) == EXACT


def _made(kind: Any, arguments: list[Any], attributes: Mapping[str, Any], text: str) -> Exception | None:
    """An error of a class that says this text; None where it does not come to that."""
    # First as pickle does it, without a constructor, whose parameters may be others than the arguments that are kept.
    for is_constructed in (False, True):
        try:
            made = kind(*arguments) if is_constructed else kind.__new__(kind, *arguments)
            made.__setstate__(dict(attributes))
            if type(made) is kind and text_of(made) == text:
                return made  # type: ignore[no-any-return]
        except Exception:  # noqa: S112 - a class of another package may raise anything
            continue
    return None


def decode_error(encoded: bytes, kinds: ErrorKinds = NO_ERROR_KINDS) -> Exception:
    """The fresh error that these bytes hold. Raises `InvalidRequest` for bytes that hold none."""
    try:
        record = _decode(encoded)
        name, *rest = record
        if name == RecordedError.__name__:
            return _recorded(rest, kinds)
        return error_from_record(record)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InvalidRequest(f"a recorded error does not fit: {error}") from error


def _recorded(rest: list[Any], kinds: ErrorKinds) -> Exception:
    name, text, *parts = rest
    if type(name) is not str or type(text) is not str or len(parts) > 2:
        raise TypeError("expected a name, a text, arguments and attributes")
    kind = kinds.get(name) or _own_of_python(name)
    if kind is None:
        return _stand_in(name, text, f"{name} is not registered: give its class to what reads the trace, errors=[...]")
    arguments: Any = parts[0] if parts else [text]
    attributes: Any = parts[1] if len(parts) > 1 else {}
    made = None if arguments is None else _made(kind, arguments, attributes, text)
    return made or _stand_in(name, text, f"{name} is known, but its arguments could not be recorded: give plain ones")


def _stand_in(name: str, text: str, why: str) -> RecordedError:
    error = RecordedError(name, text)
    error.add_note(why)
    return error


def _own_of_python(kind: type | str) -> type[Exception] | None:
    found = getattr(builtins, kind if isinstance(kind, str) else kind.__name__, None)
    is_error = isinstance(found, type) and issubclass(found, Exception)
    return found if is_error and (isinstance(kind, str) or found is kind) else None


def is_same_error(first: bytes, second: bytes) -> bool:
    """Whether two encoded errors have the same name and text; traces of before kept no more of other packages' errors.

    >>> is_same_error(encode_error(KeyError("tea")), _encode(["RecordedError", "KeyError", "'tea'"]))
    True
    """
    one, other = _decode(first), _decode(second)
    if isinstance(one, list) and isinstance(other, list) and one[:1] == other[:1] == [RecordedError.__name__]:
        shorter = min(len(one), len(other)) if min(len(one), len(other)) == 3 else None
        one, other = one[:shorter], other[:shorter]
    return bool(one == other)
