"""Leaving out of a trace what is another value in each run, or is not to stand in a file.

A place in a trace has a path: the request's ``op``, then ``request``, ``answer`` or ``error``, then the names of the
fields and keys that lead to it. Lists have no names of their own, what is in them has those of the list. So the time of
an event that was read is at ``("persist/read", "answer", "events", "at")``.

What is masked is an extension value of msgpack, which no store's value is, and ``{"$masked": true}`` in JSON.
"""

from collections.abc import Callable, Collection
from typing import Any

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import Event
from persist_effects.json_values import MASKED
from persist_effects.requests import AllOf
from persist_effects.trace.format import Trace
from persist_effects.trace.values import decode, encode

Mask = Collection[str | tuple[str, ...]] | Callable[[tuple[str, ...], Any], bool]
"""Names, each the end of a path: ``"at"``, ``"data.token"``, or ``("data", "a.b")`` where a name has a dot in it. Or a
function of a path and the value there, which says whether to mask that."""

_ALL_OF = str(AllOf.__struct_config__.tag)
_EVENT = Event.__struct_fields__


def masked(trace: Trace, mask: Mask) -> Trace:
    """The trace with a mark in the place of some values. It can be compared and saved, but not replayed.

    Args:
        trace: The trace.
        mask: The names of what is to be masked, or a function: see `Mask`.

    Returns:
        The trace that has marks.

    Raises:
        InvalidRequest: If the mask is none, or one of its names, or the function, matches nothing in the trace.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvPut
    >>> from persist_effects.trace import record
    >>> _, trace = record(kv.put("session", {"user": "ada", "token": "x7"}), {KvPut: lambda request: 1})
    >>> print(masked(trace, ["value.token"])[0])
    persist/kv-put(key='session', value={'user': 'ada', 'token': <masked>}, expected=None) → 1
    """
    found, unmatched = with_marks(trace, mask)
    if unmatched:
        raise InvalidRequest(unmatched)
    return found


def with_marks(trace: Trace, mask: Mask) -> tuple[Trace, str]:
    """As `masked`, but a mask that matches nothing is told, and not refused.

    Args:
        trace: The trace.
        mask: See `masked`.

    Returns:
        The trace that has marks, where there was something to mark; and what in the mask matched nothing.

    >>> with_marks(Trace([], [], ()), ["at"])
    (<Trace of 0 requests>, "the mask 'at' matches nothing in this trace: it is empty")
    """
    masking = _Masking(mask)
    found = masking.apply(trace)
    told = [f"the mask {name} matches nothing in this trace: {masking.there}" for name in masking.unused]
    return found, "; ".join(told[:1])


class _Masking:
    """One look through a trace. Whatever a mask matches below something that is masked counts as matched too."""

    def __init__(self, mask: Mask) -> None:
        self._patterns: list[tuple[str, ...]] = []
        self._function: Callable[[tuple[str, ...], Any], bool] | None = None
        if callable(mask):
            self._function = mask
        elif isinstance(mask, str | bytes) or not isinstance(mask, Collection):
            raise InvalidRequest(f"mask is {describe(mask)}: give a list of names, such as ['at'], or a function")
        else:
            self._patterns = [_pattern(name) for name in mask]
        self._used: set[Any] = set()
        self._names: dict[str, None] = {}

    @property
    def unused(self) -> list[str]:
        """The names that matched nothing."""
        if self._function is not None and self._function not in self._used:
            return [f"function {getattr(self._function, '__name__', 'given')!r}"]
        return [repr(".".join(pattern)) for pattern in self._patterns if pattern not in self._used]

    @property
    def there(self) -> str:
        """Which names there would have been."""
        names = list(self._names)
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        return f"its names are {', '.join(names[:12])}{more}" if names else "it is empty"

    def apply(self, trace: Trace) -> Trace:
        """The trace with marks."""
        requests, outcomes = list[bytes](), list[bytes]()
        for index in range(len(trace)):
            kind = "error" if index in trace.failed else "answer"
            request, outcome = self._pair(decode(trace.requests[index]), kind, decode(trace.outcomes[index]))
            requests.append(encode(request))
            outcomes.append(encode(outcome))
        found = Trace(requests, outcomes, trace.failed, trace.kinds, trace.package_version, errors=trace.errors)
        found.source = trace.source
        return found

    def _pair(self, request: Any, kind: str, outcome: Any) -> tuple[Any, Any]:
        op = str(request["op"] if isinstance(request, dict) else request[0])
        if op == _ALL_OF and kind == "answer":
            # Each of them as if it stood alone.
            parts = [self._part(part, answer) for part, answer in zip(request["requests"], outcome, strict=True)]
            return {**request, "requests": [part for part, _ in parts]}, [answer for _, answer in parts]
        if isinstance(request, dict):
            fields = {name: self._at((op, "request", str(name)), part) for name, part in request.items()}
            made: Any = {**fields, "op": request["op"]}
        else:
            made = [request[0], *(self._at((op, "request", str(at)), part) for at, part in enumerate(request[1:]))]
        return made, self._outcome(op, kind, outcome)

    def _part(self, request: Any, record: dict[str, Any]) -> tuple[Any, Any]:
        ((kind, outcome),) = record.items()
        made, found = self._pair(request, kind, outcome)
        return made, {kind: found}

    def _outcome(self, op: str, kind: str, outcome: Any) -> Any:
        if kind == "answer":
            return self._at((op, kind), outcome)
        # Which class of error it was is left, and so is that it was one of another package.
        head = outcome[:2] if outcome[0] == "RecordedError" else outcome[:1]
        rest = self._at((op, kind), outcome[len(head) :])
        return [*head, *(rest if isinstance(rest, list) else [rest])]

    def _at(self, path: tuple[str, ...], value: Any) -> Any:
        self._names.setdefault(path[-1])
        if value == MASKED:
            self._used.update(pattern for pattern in self._patterns if path[-len(pattern) :] == pattern)
            return value
        is_masked = self._matches(path, value)
        if isinstance(value, dict):
            value = {name: self._at((*path, str(name)), part) for name, part in value.items()}
        elif isinstance(value, list):
            value = [self._in_list(path, part) for part in value]
        return MASKED if is_masked else value

    def _in_list(self, path: tuple[str, ...], part: Any) -> Any:
        if path[1:] == ("answer", "events") and isinstance(part, list) and len(part) == len(_EVENT):
            # Events that were read are lists, so that pages are short.
            return [self._at((*path, name), field) for name, field in zip(_EVENT, part, strict=True)]
        if isinstance(part, list):
            return [self._in_list(path, one) for one in part]
        if isinstance(part, dict):
            return {name: self._at((*path, str(name)), one) for name, one in part.items()}
        return part

    def _matches(self, path: tuple[str, ...], value: Any) -> bool:
        found: list[Any] = [pattern for pattern in self._patterns if path[-len(pattern) :] == pattern]
        if self._function is not None and self._function(path, value):
            found.append(self._function)
        self._used.update(found)
        return bool(found) and path[1:] != ("request", "op")


def _pattern(name: Any) -> tuple[str, ...]:
    pattern = tuple(name.split(".")) if isinstance(name, str) else name
    if not isinstance(pattern, tuple) or not pattern or not all(isinstance(one, str) and one for one in pattern):
        raise InvalidRequest(
            f"a name in the mask is {describe(name)}: give one such as 'data.token', or a tuple of str"
        )
    if pattern[-1] == "op":
        raise InvalidRequest("the mask names 'op': by it a request is known, so it cannot be left out")
    return pattern
