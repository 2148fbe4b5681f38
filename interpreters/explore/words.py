"""Requests, their answers and errors in words that are the same in every process."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from interpreters.disk import requests as disk
from interpreters.explore.faults import is_own
from interpreters.explore.limits import Ended
from persist_effects import codec
from persist_effects.errors import InvalidRequest
from persist_effects.requests import (
    Answered,
    Append,
    Appended,
    BlobPut,
    Conflict,
    Entry,
    Failed,
    KvPut,
    Outcome,
    Page,
    Request,
    Transact,
)

MARK = "  ✗ "
"""How the line of a fault begins."""

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b")
_LINES_AROUND = 6
_SURVIVORS_TOLD = 10


def name_of(function: Any) -> str:
    """What a function is called; of a partial one, the function within."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__name__", type(function).__name__))


def named(request: Request[Any]) -> str:
    """A request's operation, and the names it is about."""
    if isinstance(request, Transact):
        names = ", ".join(dict.fromkeys(_name_in(write) for write in request.writes))
    elif isinstance(request, BlobPut):
        names = f"{len(request.data)} bytes"
    elif isinstance(request, disk.Rename):
        names = f"{request.source} to {request.target}"
    elif request.op.startswith("disk/"):
        names = cast(Any, request).path or "."
    else:
        names = "" if is_own(request) else _name_in(request)
    return f"{request.op} {names}".rstrip()


def _name_in(request: Any) -> str:
    fields = ("stream", "key", "prefix", "cid", "seconds", "statement")
    return next((str(getattr(request, field)) for field in fields if hasattr(request, field)), "")


def told(request: Request[Any], width: int = 60) -> str:
    """A request with what it writes."""
    values: list[Any] = []
    if isinstance(request, KvPut):
        values = [request.value]
    elif isinstance(request, Append):
        values = [value for draft in request.events for value in (draft.type, draft.data)]
    elif isinstance(request, Transact):
        return f"{request.op} ({', '.join(told(write, width) for write in request.writes)})"
    return " ".join([named(request), *(_plain(value, width) for value in values)])


def _plain(value: Any, width: int) -> str:
    # As the store would keep it, because the order of a set, say, is another one in each process.
    try:
        text = repr(codec.decode(codec.encode(value, "a value")))
    except InvalidRequest:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= width else f"{text[:width]}…"


def told_outcome(request: Request[Any], outcome: Outcome | None) -> str:
    """What came of a request, to stand behind it; nothing where it was not carried out."""
    match outcome:
        case None:
            return ""
        case Failed(error=error):
            return f" raises {told_error(error)}"
        case Answered(value=Appended(first_seq=first, last_seq=last)):
            return f" → sequence {first}" if first == last else f" → sequences {first} to {last}"
        case Answered(value=Page(events=events, head=head)):
            return f" → {len(events)} events, head {head}"
        case Answered(value=Entry(value=value, revision=revision)):
            return f" → {_plain(value, 60)}, revision {revision}"
        case Answered(value=Conflict() as conflict):
            return f" → {conflict}"
        case Answered(value=value):
            # A transaction's answers hold the store's clock, and what the user's own requests answer may be anything.
            is_told = not isinstance(request, Transact) and not is_own(request)
            return f" → {value!r:.60}" if is_told else " → answered"


def told_error(error: BaseException) -> str:
    """An error by its class and its message."""
    if isinstance(error, Ended):
        error = error.error
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def are_alike(one: Any, other: Any) -> bool:
    """Whether two requests, answers, or outcomes are the same, as far as that can be told.

    >>> are_alike(Answered(1), Answered(2)), are_alike(Answered(object()), Answered(object()))
    (False, True)
    """
    # Most that is compared is the same, and this is asked at every step.
    if _say_they_are_equal(one, other):
        return True
    if isinstance(one, Failed) and isinstance(other, Failed):
        return _without_addresses(told_error(one.error)) == _without_addresses(told_error(other.error))
    # As of floats that are not numbers, and of objects that are equal to themselves alone.
    return type(one) is type(other) and _without_addresses(repr(one)) == _without_addresses(repr(other))


def _say_they_are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        # Of what does not say whether it is equal, its words do.
        return False


def _without_addresses(text: str) -> str:
    return _ADDRESS.sub("0x…", text)


def told_writes(label: str, requests: Sequence[Request[Any]]) -> Iterator[str]:
    """A line for each of the last of these writes."""
    if len(requests) > _SURVIVORS_TOLD:
        yield f"{label}: {len(requests) - _SURVIVORS_TOLD} more before these"
    for request in requests[-_SURVIVORS_TOLD:]:
        yield f"{label}: {told(request)}"


def window(lines: Sequence[str]) -> Iterator[str]:
    """The lines around each fault, and the last ones."""
    marks = [index for index, line in enumerate(lines) if line.startswith(MARK)] + [len(lines) - 1]
    told_before = -1
    for index in sorted({near for mark in marks for near in range(mark - _LINES_AROUND, mark + _LINES_AROUND + 1)}):
        if 0 <= index < len(lines):
            if index > told_before + 1:
                yield "…"
            yield lines[index]
            told_before = index
