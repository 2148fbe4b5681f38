"""What truncation has dropped before somebody has seen it: in which streams, and how much."""

from typing import Any

from persist_effects.machine import Effect, all_of, perform
from persist_effects.programs import program
from persist_effects.requests import PAGE_SIZE, Page, Read, ReadAll, Streams


@program
def holes_after(prefix: str, position: int) -> Effect[dict[str, int]]:
    """The streams under a prefix of which events past a position were dropped, and the first event left of each.

    A page tells of one such stream. So each stream is asked, by pages of names.

    Args:
        prefix: How the streams' names start.
        position: The position.

    Returns:
        By stream, the first sequence number that is left, or will be given next. Of streams whose names start with
        another's that has such a hole, it may be told of one that was dropped before.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("memory:")
    >>> for stream in ("a", "a", "b"):
    ...     _ = store.run(log.append(stream, "made", None))
    >>> _ = store.run(log.truncate_through("a", 1))
    >>> store.run(holes_after("", 0)), store.run(holes_after("", 2))
    ({'a': 2}, {})
    """
    found: dict[str, int] = {}
    after = ""
    while True:
        names = yield from perform(Streams(prefix, after))
        if names:
            pages: tuple[Page, ...] = yield from all_of(*(Read(name, limit=1) for name in names))
            for name, page in zip(names, pages, strict=True):
                if page.hole is not None and (yield from _is_past(name, page, position)):
                    found[name] = page.hole.first_left
        if len(names) < PAGE_SIZE:
            return found
        after = names[-1]


def _is_past(stream: str, page: Page, position: int) -> Effect[bool]:
    """Whether some of what a stream has lost may have stood past a position."""
    if page.events and page.events[0].position <= position:
        return False
    if not position:
        return True
    rest: Any = yield from perform(ReadAll(position, stream, limit=1))
    return rest.hole is not None


def missed_of(holes: dict[str, int]) -> int:
    """How many events that is at the most.

    >>> missed_of({"a": 2, "b": 5})
    5
    """
    return sum(first_left - 1 for first_left in holes.values())
