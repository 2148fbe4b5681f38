"""The names of streams or keys in order: pages of them, and the newest under a prefix, at a cost that does not grow.

Names stand in short sorted runs, which are found by their first ones. Beside each run stands the highest number of its
names, a stream's last position or a key's revision, and beside each block of runs the highest of those: so a question
about a prefix looks at single names only where a run begins or ends within the prefix.

What changes is only noted, and taken in by the next question. Nothing is noted until the first question of a kind.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

M_co = TypeVar("M_co", covariant=True)

RUN = 256
"""How many names a run has when it is made; one of twice as many is split. Other sizes near it are no quicker."""

BLOCK = 64
"""How many runs have a number in common."""

NOTED = 1024
"""How many changed names are noted at the most: to take them in keeps a write waiting for about a millisecond."""


def end_of(prefix: str) -> str | None:
    """The first string after all that begin with a prefix, by code point.

    Args:
        prefix: What they begin with.

    Returns:
        The string, or None where none comes after them.

    >>> end_of("orders/"), end_of("")
    ('orders0', None)
    """
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None


def range_of(prefix: str) -> tuple[str, str]:
    """From which name to before which all names begin with a prefix, for databases that can be asked for ranges only.

    Args:
        prefix: What they begin with.

    Returns:
        Both ends, without surrogates, which no name has and no database takes.

    >>> range_of("orders/")
    ('orders/', 'orders0')
    """
    end = end_of(prefix) or _PAST_ALL
    return prefix, end[:-1] + "\ue000" if end[-1] == "\ud800" else end


_PAST_ALL = "\U0010ffff" * 129
"""Greater than every name: names have at most 512 bytes."""


class SortedNames(Generic[M_co]):
    """The names of a mapping, in the order of their code points, and the numbers of what they stand for.

    A number only grows, as long as its name is there. Whoever changes the mapping holds its lock, and so does whoever
    asks. An interrupt may come anywhere: then the next question sorts all names anew.

    Args:
        members: What the names stand for. None of it is None.
        number_of: The number of one member.

    >>> streams = {"b": 1, "a": 4}
    >>> names = SortedNames(streams, lambda position: position)
    >>> names.page("", after="a", limit=10), names.newest("b")
    (['b'], 1)
    >>> names.note("b")
    >>> streams["b"] = 5
    >>> names.newest("b"), list(names.past("", 4))
    (5, [5])
    """

    __slots__ = (
        "_changed",
        "_firsts",
        "_is_sorted",
        "_members",
        "_newest",
        "_number_of",
        "_runs",
        "_tops",
        "is_ranked",
    )

    def __init__(self, members: Mapping[str, M_co], number_of: Callable[[M_co], int]) -> None:
        self._members = members
        self._number_of = number_of
        self._changed: set[str] = set()
        # Until then there are no runs.
        self._is_sorted = False
        # Whether anybody has asked for numbers: until then only names that come and go are to be noted.
        self.is_ranked = False

    def note(self, name: str) -> None:
        """Say that a name is about to come, to go or, if they are ranked, to get a higher number.

        Args:
            name: The name.
        """
        if self._is_sorted:
            if len(self._changed) >= NOTED:
                self._settle()
            self._changed.add(name)

    # Questions

    def page(self, prefix: str, after: str, limit: int) -> list[str]:
        """One page of the names, in order.

        Args:
            prefix: What they begin with; "": all.
            after: They are greater than this one; "": from the first.
            limit: At most so many.

        Returns:
            The names.
        """
        self._settle()
        runs, end = self._runs, end_of(prefix)
        at, index = self._place_of(prefix)
        if after >= prefix:
            at, index = self._place_of(after)
            if at < len(runs) and index < len(runs[at]) and runs[at][index] == after:
                index += 1
        page: list[str] = []
        while at < len(runs) and len(page) < limit:
            page += runs[at][index : index + limit - len(page)]
            if end is not None and page and page[-1] >= end:
                del page[bisect_left(page, end) :]
                break
            at, index = at + 1, 0
        return page

    def newest(self, prefix: str) -> int:
        """The highest number of the names under a prefix.

        Args:
            prefix: What they begin with; "": all.

        Returns:
            The number; 0 if there are none.
        """
        self._settle(ranked=True)
        (at, first), (last_at, last) = self._place_of(prefix), self._end_of(prefix)
        if at == last_at:
            return self._highest_in(self._runs[at][first:last]) if first < last else 0
        begin = at + 1 if first else at
        newest = self._highest_of(begin, last_at)
        # Where the prefix begins or ends within a run, that may have come further by other names.
        if first and self._newest[at] > newest:
            newest = max(newest, self._highest_in(self._runs[at][first:]))
        if last and self._newest[last_at] > newest:
            newest = max(newest, self._highest_in(self._runs[last_at][:last]))
        return newest

    def past(self, prefix: str, number: int) -> Iterator[M_co]:
        """What stands under a prefix and has come further than a number.

        Args:
            prefix: What the names begin with; "": all.
            number: That number.

        Returns:
            The members, in the order of their names. None may change meanwhile.
        """
        self._settle(ranked=True)
        number_of, members = self._number_of, self._members
        for at, first, last in self._parts(prefix, number):
            for name in self._runs[at][first:last]:
                member = members[name]
                if number_of(member) > number:
                    yield member

    def count_past(self, prefix: str, number: int, enough: int) -> int:
        """About how many stand under a prefix and have come further than a number.

        Args:
            prefix: What the names begin with; "": all.
            number: That number.
            enough: More need not be counted.

        Returns:
            No fewer than there are, unless it is more than ``enough``.
        """
        self._settle(ranked=True)
        count = 0
        for _, first, last in self._parts(prefix, number):
            count += last - first
            if count > enough:
                break
        return count

    # Places

    def _place_of(self, name: str) -> tuple[int, int]:
        """In which run, and where in it, the first name stands that is not less than this one."""
        at = max(0, bisect_right(self._firsts, name) - 1)
        return at, bisect_left(self._runs[at], name) if self._runs else 0

    def _end_of(self, prefix: str) -> tuple[int, int]:
        end = end_of(prefix)
        return (len(self._runs), 0) if end is None else self._place_of(end)

    def _parts(self, prefix: str, number: int = -1) -> Iterator[tuple[int, int, int]]:
        """The runs that have names under a prefix, and from where to where; but for those that are no further."""
        at, first = self._place_of(prefix)
        last_at, last = self._end_of(prefix)
        while at < len(self._runs) and at <= last_at:
            if number >= 0 and not at % BLOCK and at + BLOCK <= last_at and self._tops[at // BLOCK] <= number:
                at, first = at + BLOCK, 0
                continue
            end = last if at == last_at else len(self._runs[at])
            if first < end and (number < 0 or self._newest[at] > number):
                yield at, first, end
            at, first = at + 1, 0

    def _highest_of(self, begin: int, end: int) -> int:
        """The highest number of the runs from one to another."""
        first, last = -(-begin // BLOCK), end // BLOCK
        if first >= last:
            return max(self._newest[begin:end], default=0)
        sides = self._newest[begin : first * BLOCK] + self._newest[last * BLOCK : end]
        return max(*self._tops[first:last], *sides, 0)

    # Changes

    def _settle(self, *, ranked: bool = False) -> None:
        """Take in what was noted, or sort all names where they were not sorted yet, or an interrupt came."""
        if not self._is_sorted:
            self._sort()
        if self._changed:
            self._is_sorted = False
            for name in self._changed:
                self._take_in(name)
            self._changed.clear()
            self._is_sorted = True
        if ranked and not self.is_ranked:
            self._rank()

    def _sort(self) -> None:
        names = sorted(self._members)
        self._changed.clear()
        self._runs = [names[at : at + RUN] for at in range(0, len(names), RUN)]
        self._firsts = names[::RUN]
        if self.is_ranked:
            self._rank()
        self._is_sorted = True

    def _rank(self) -> None:
        self._newest = [self._highest_in(run) for run in self._runs]
        self._set_tops()
        self.is_ranked = True

    def _highest_in(self, run: list[str]) -> int:
        # One that is noted as gone may still stand there.
        members = [member for member in map(self._members.get, run) if member is not None]
        return max(map(self._number_of, members), default=0)

    def _set_tops(self) -> None:
        newest = self._newest
        self._tops = [max(newest[at : at + BLOCK]) for at in range(0, len(newest), BLOCK)]

    def _take_in(self, name: str) -> None:
        if not self._runs:
            self._insert_run(0, [])
        at, index = self._place_of(name)
        run = self._runs[at]
        is_in = index < len(run) and run[index] == name
        member = self._members.get(name)
        if member is None:
            if is_in:
                self._take_out(at, index)
            return
        if not is_in:
            run.insert(index, name)
            self._firsts[at] = run[0]
        if self.is_ranked:
            number = self._number_of(member)
            if number > self._newest[at]:
                self._newest[at] = number
                self._tops[at // BLOCK] = max(number, self._tops[at // BLOCK])
        if len(run) > 2 * RUN:
            self._insert_run(at + 1, run[RUN:])
            del run[RUN:]
            if self.is_ranked:
                self._newest[at] = self._highest_in(run)
                self._set_tops()

    def _take_out(self, at: int, index: int) -> None:
        run = self._runs[at]
        del run[index]
        if run:
            # Its number may have been that of the name: it stays, as that of a wait that is over.
            self._firsts[at] = run[0]
            return
        del self._runs[at], self._firsts[at]
        if self.is_ranked:
            del self._newest[at]
            self._set_tops()

    def _insert_run(self, at: int, names: list[str]) -> None:
        self._runs.insert(at, names)
        self._firsts.insert(at, names[0] if names else "")
        if self.is_ranked:
            self._newest.insert(at, self._highest_in(names))
            self._set_tops()
