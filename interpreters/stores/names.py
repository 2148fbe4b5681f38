"""Names kept ready to be listed in order, at little cost to the writes between two listings."""

from bisect import bisect_left, bisect_right
from collections.abc import Container


class SortedNames:
    """The names of a mapping, sorted by code point, for listing by prefix and page.

    A new name is only noted; the next listing sorts it in, which is linear in the number of names because a sort
    merges sorted runs. A name that has left the mapping is passed over, and dropped at the next sorting.

    >>> mapping = {"b": 1, "a": 2}
    >>> names = SortedNames(mapping)
    >>> names.added("b"), names.added("a")
    (None, None)
    >>> names.page("", after="a", limit=10)
    ['b']
    """

    def __init__(self, members: Container[str]) -> None:
        self._members = members
        self._sorted: list[str] = []
        self._new: list[str] = []

    def added(self, name: str) -> None:
        """Say that a name came into the mapping.

        Args:
            name: The name.
        """
        self._new.append(name)

    def page(self, prefix: str, after: str, limit: int) -> list[str]:
        """One page of the names, in order.

        Args:
            prefix: What they begin with; "": all.
            after: They are greater than this one; "": from the first.
            limit: At most so many.

        Returns:
            The names.
        """
        if self._new:
            self._sort_in()
        names = self._sorted
        start = max(bisect_left(names, prefix), bisect_right(names, after))
        page: list[str] = []
        for index in range(start, len(names)):
            name = names[index]
            if not name.startswith(prefix) or len(page) == limit:
                break
            if name in self._members:
                page.append(name)
        return page

    def _sort_in(self) -> None:
        merged = self._sorted + self._new
        merged.sort()
        # A name that left and came again may stand twice.
        self._sorted = [name for name in dict.fromkeys(merged) if name in self._members]
        self._new.clear()
