"""Where two traces differ, and where a store answers a trace's requests otherwise than was recorded."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Protocol

import msgspec

from persist_effects.codec import check_ops
from persist_effects.errors import InvalidRequest, UnhandledEffect, describe
from persist_effects.machine import Handlers, outcome_of
from persist_effects.requests import Failed, Outcome
from persist_effects.trace.errors import is_same_error
from persist_effects.trace.format import Recorded, Trace, by_op
from persist_effects.trace.replay import check_trace, check_unmasked
from persist_effects.trace.values import UnknownRequest, encode_outcome, is_same

_Pair = tuple[int | None, int | None]

_SEARCH_LIMIT = 20_000_000
"""How many pairs of requests may be looked at to align two traces: some seconds. Past that they pair in order."""


class HasHandlers(Protocol):
    """What has a handler table, as a store does."""

    @property
    def handlers(self) -> Handlers:
        """The function that answers each type of request."""
        ...


def handlers_of(store: HasHandlers | Handlers) -> Handlers:
    """The handler table of a store, or the table itself.

    Args:
        store: The store, or the table.

    Returns:
        The table.

    Raises:
        InvalidRequest: If it is neither.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> handlers_of(store) is store.handlers
    True
    """
    handlers = store if isinstance(store, Mapping) else getattr(store, "handlers", None)
    if not isinstance(handlers, Mapping):
        raise InvalidRequest(f"the handlers are {describe(store)}: give a store, or a table of a function by request")
    return handlers


class Difference(msgspec.Struct, frozen=True):
    """A place where two traces differ: what each has there, and at which index. None: it has nothing there."""

    first_index: int | None
    second_index: int | None
    first: Recorded | None
    second: Recorded | None

    @property
    def index(self) -> int:
        """The index in the first trace; in the second, where the first has nothing."""
        found = self.second_index if self.first_index is None else self.first_index
        assert found is not None, "one of the two has something"
        return found

    def __str__(self) -> str:
        lines = [f"request {self.index}:"]
        if self.first is not None:
            lines.append(f"  - {self.first}")
        if self.second is not None:
            lines.append(f"  + {self.second}")
        return "\n".join(lines)


def as_text(differences: Sequence[Difference], limit: int = 20) -> str:
    """Differences to read: after ``-`` what the first trace has, after ``+`` the second.

    Args:
        differences: What `diff` or `compare` found.
        limit: How many are told at the most.

    Returns:
        The text.

    >>> as_text([])
    'no difference'
    """
    if not differences:
        return "no difference"
    lines = [str(difference) for difference in differences[:limit]]
    if len(differences) > limit:
        lines.append(f"… and {len(differences) - limit} more")
    return "\n".join(lines)


def diff(first: Trace, second: Trace) -> list[Difference]:
    """Where two traces differ, aligned by their requests: one more or less does not make the rest differ.

    Where thousands of requests differ on both sides, they are not searched for each other, but pair in order.

    Args:
        first: A trace.
        second: Another one.

    Returns:
        The differences, none where they are equal.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> from persist_effects.trace import record
    >>> one, other = [record(kv.has("color"), {KvHas: lambda request: has})[1] for has in (True, False)]
    >>> print(as_text(diff(one, other)))
    request 0:
      - KvHas(key='color') → True
      + KvHas(key='color') → False
    """
    check_trace(first)
    check_trace(second)
    return [
        Difference(i, j, None if i is None else first[i], None if j is None else second[j])
        for i, j in _aligned(first.requests, second.requests)
        if i is None or j is None or not _is_same_at(first, i, second, j)
    ]


def compare(trace: Trace, store: HasHandlers | Handlers) -> list[Difference]:
    """Perform each recorded request on a store, or a handler table, and say where it answers otherwise.

    The requests are those of the trace, whatever the store answers. A `Wait` waits again.

    Args:
        trace: The trace.
        store: The store, in the state that the recorded one began with, and with a fixed clock, because times are
            answers too; or a table.

    Returns:
        The differences, none where it answers the same.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> from persist_effects.trace import record
    >>> _, trace = record(kv.has("color"), {KvHas: lambda request: True})
    >>> print(as_text(compare(trace, {KvHas: lambda request: request.key == "size"})))
    request 0:
      - KvHas(key='color') → True
      + KvHas(key='color') → False
    """
    check_unmasked(trace)
    handlers = handlers_of(store)
    check_ops("the handler table", handlers)
    kinds = {**trace.kinds, **by_op(list(handlers))}
    differences: list[Difference] = []
    for index in range(len(trace)):
        request = trace.request(index, kinds)
        recorded = trace.outcome(index, request)
        if isinstance(request, UnknownRequest):
            outcome = _unhandled(request, recorded)
            is_same_outcome = outcome is recorded
        else:
            outcome = outcome_of(request, handlers)
            is_same_kind = isinstance(outcome, Failed) == isinstance(recorded, Failed)
            is_same_outcome = is_same_kind and _is_same_outcome(
                encode_outcome(request, outcome), trace.outcomes[index], isinstance(outcome, Failed)
            )
        if not is_same_outcome:
            differences.append(Difference(index, index, Recorded(request, recorded), Recorded(request, outcome)))
    return differences


def _unhandled(request: UnknownRequest, recorded: Outcome) -> Outcome:
    """What a table answers that has no row for a request: nothing else where none was there when it was recorded."""
    if isinstance(recorded, Failed) and isinstance(recorded.error, UnhandledEffect):
        return recorded
    return Failed(UnhandledEffect(request.op))


def _aligned(first: Sequence[bytes], second: Sequence[bytes]) -> list[_Pair]:
    """The indexes of requests that stand for each other. What both begin and end with needs no search."""
    shorter = min(len(first), len(second))
    before = next((at for at in range(shorter) if first[at] != second[at]), shorter)
    left = shorter - before
    after = next((at for at in range(left) if first[-1 - at] != second[-1 - at]), left)
    ends = len(first) - after, len(second) - after
    pairs: list[_Pair] = list(zip(range(before), range(before), strict=True))
    if (ends[0] - before) * (ends[1] - before) > _SEARCH_LIMIT:
        pairs += zip_longest(range(before, ends[0]), range(before, ends[1]))
    else:
        matcher = SequenceMatcher(None, first[before : ends[0]], second[before : ends[1]], autojunk=False)
        for _, i, i_end, j, j_end in matcher.get_opcodes():
            pairs += zip_longest(range(before + i, before + i_end), range(before + j, before + j_end))
    pairs += zip(range(ends[0], len(first)), range(ends[1], len(second)), strict=True)
    return pairs


def _is_same_at(first: Trace, i: int, second: Trace, j: int) -> bool:
    return (
        (i in first.failed) == (j in second.failed)
        and is_same(first.requests[i], second.requests[j])
        and _is_same_outcome(first.outcomes[i], second.outcomes[j], i in first.failed)
    )


def _is_same_outcome(first: bytes, second: bytes, is_error: bool) -> bool:
    return is_same(first, second) or (is_error and is_same_error(first, second))
