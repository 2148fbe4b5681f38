"""What a page holds, and which hole it tells of: the same for every store with an index."""

from typing import NamedTuple, Protocol

from interpreters.stores.names import SortedNames
from persist_effects.requests import Hole, Read


class Shortened(Protocol):
    """A stream that has lost events, those through a sequence number."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def dropped(self) -> int:
        """The events through this one are gone."""
        ...


class PageRange(NamedTuple):
    """The events after ``low`` through ``high`` belong to the page; ``next`` and ``hole`` are the page's own."""

    low: int
    high: int
    next: int
    hole: Hole | None


def page_range(request: Read, dropped: int, head: int) -> PageRange:
    """Which events of a stream answer a request.

    Args:
        request: The request.
        dropped: Those through this sequence number are gone.
        head: The stream's last sequence number.

    Returns:
        The range, and the page's ``next`` and ``hole``.

    >>> page_range(Read("orders/1", after=2, limit=3), dropped=4, head=9)
    PageRange(low=4, high=7, next=7, hole=Hole(stream='orders/1', first_left=5))
    """
    until = head if request.until is None else min(request.until, head)
    hole = Hole(request.stream, dropped + 1) if request.after < min(dropped, until) else None
    # What is left of the range that was asked for.
    low = max(request.after, dropped)
    high = max(low, until)
    if request.backwards:
        first = max(low, high - request.limit)
        return PageRange(first, high, first if first > low else request.after, hole)
    last = min(high, low + request.limit)
    return PageRange(low, last, last if last < until else max(until, request.after), hole)


def hole_after(position: int, prefix: str, truncated: SortedNames[Shortened]) -> Hole | None:
    """What a page of all streams tells of what was dropped.

    Args:
        position: The page is asked for past this position.
        prefix: Of streams under this prefix.
        truncated: The streams that have lost events, by the positions of the last ones that they have lost.

    Returns:
        The first of those streams that has lost an event past the position, or None.
    """
    for stream in truncated.past(prefix, position):
        return Hole(stream.name, stream.dropped + 1)
    return None
