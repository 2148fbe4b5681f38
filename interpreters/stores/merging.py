"""The events of some streams in the order of all: by merging the streams, or by looking at all there is for a while.

Merging looks at every stream that may have some, and looking at all there is at what other streams have in between.
Which of them is cheaper depends on how many streams match. So that no distribution of events makes a page look at
everything, looking ends after a while, and the streams are merged from there on.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from math import isqrt
from typing import Any, TypeVar

from interpreters.stores.names import SortedNames
from persist_effects.requests import ReadAll

T = TypeVar("T")


def places_to_scan(request: ReadAll, names: SortedNames[Any], streams: int) -> int:
    """At how many places of the log to look one by one before streams are merged.

    A page is found in about ``limit * streams / matching`` places if events are spread evenly, and merging looks at
    ``matching`` streams. Where both are equal, they are the root of ``limit * streams``.

    Args:
        request: What is asked for.
        names: The names of the streams, by the positions that these have come to.
        streams: How many there are.

    Returns:
        The number of places: 0 where few enough streams match to be merged at once.
    """
    enough = isqrt(2 * request.limit * streams)
    return enough if names.count_past(request.prefix, request.after, enough) > enough else 0


def merged(
    sequences: Sequence[Sequence[T]], place_of: Callable[[T], int], after: int, until: int, *, backwards: bool
) -> Iterator[T]:
    """The items of sequences in the order of their places.

    Args:
        sequences: Each in the order of its places.
        place_of: The place of an item.
        after: Only items past this place.
        until: And up to this one.
        backwards: From the last to the first.

    Returns:
        The items.

    >>> list(merged([[1, 4, 6], [2, 3, 9]], lambda place: place, after=1, until=6, backwards=False))
    [2, 3, 4, 6]
    >>> list(merged([[1, 4, 6], [2, 3, 9]], lambda place: place, after=1, until=6, backwards=True))
    [6, 4, 3, 2]
    """
    sign = -1 if backwards else 1
    heap = []
    for number, sequence in enumerate(sequences):
        at = (
            bisect_right(sequence, until, key=place_of) - 1
            if backwards
            else bisect_right(sequence, after, key=place_of)
        )
        if 0 <= at < len(sequence):
            heap.append((sign * place_of(sequence[at]), number, at))
    heapify(heap)
    while heap:
        signed, number, at = heap[0]
        if not after < sign * signed <= until:
            return
        sequence = sequences[number]
        yield sequence[at]
        at += sign
        if 0 <= at < len(sequence):
            heapreplace(heap, (sign * place_of(sequence[at]), number, at))
        else:
            heappop(heap)
