"""Which positions and revisions of one store stand for which of another's, and whether two outcomes say the same.

Positions and revisions are the store's own choice: what counts is that equal ones stay equal.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from interpreters.explore.words import told_error
from persist_effects import codec
from persist_effects.event import INT64_MAX, Event
from persist_effects.requests import (
    ANSWERS,
    Answered,
    Appended,
    Begin,
    Conflict,
    Entry,
    ExpectRevision,
    Failed,
    KvDelete,
    KvEntries,
    KvPut,
    KvWait,
    Outcome,
    Page,
    ReadAll,
    Transact,
    Wait,
)

_NUMBERS: dict[type, str] = {Begin: "position", Wait: "position", KvPut: "revision", KvWait: "revision"}
"""Of which sort the number is that answers a request."""


class SameNumbers:
    """Which positions and revisions of one store are which of another's."""

    def __init__(self) -> None:
        self._ours: dict[tuple[str, int], int] = {("position", 0): 0, ("revision", 0): 0}
        self._theirs: dict[tuple[str, int], int] = {("position", 0): 0, ("revision", 0): 0}
        self._learned: list[tuple[tuple[str, int], tuple[str, int]]] = []

    def mark(self) -> int:
        """How many are known, for `forget_since`."""
        return len(self._learned)

    def known_since(self, mark: int) -> list[tuple[tuple[str, int], tuple[str, int]]]:
        """Which pairs were seen first after a mark: the sort and number of the store, and those of the other one.

        Args:
            mark: What `mark` has returned; 0 for all of them.
        """
        return self._learned[mark:]

    def forget_since(self, mark: int) -> None:
        """Forget those that were seen first after a mark.

        Args:
            mark: What `mark` has returned.
        """
        while len(self._learned) > mark:
            ours, theirs = self._learned.pop()
            del self._ours[ours], self._theirs[theirs]

    def translated(self, request: Any) -> Any:
        """The request with the memory store's numbers in the place of the store's."""
        if isinstance(request, Transact):
            writes, checks = (tuple(map(self.translated, parts)) for parts in (request.writes, request.checks))
            return Transact(writes, checks, request.noting)
        if isinstance(request, KvPut | KvDelete | ExpectRevision) and request.expected is not None:
            expected = self._ours.get(("revision", request.expected), INT64_MAX)
            return msgspec.structs.replace(request, expected=expected)
        if isinstance(request, ReadAll):
            ours = {name: self._in_ours("position", getattr(request, name)) for name in ("after", "until")}
            return msgspec.structs.replace(request, **ours)
        if isinstance(request, Wait | KvWait):
            return type(request)(self._in_ours(_NUMBERS[type(request)], request.after), request.prefix)
        return request

    def _in_ours(self, sort: str, number: Any) -> Any:
        return self._ours.get((sort, number), number)

    def are_same(self, request: Any, found: Outcome, wanted: Outcome) -> bool:
        """Whether two outcomes of a request say the same."""
        if isinstance(found, Failed) or isinstance(wanted, Failed):
            return (
                isinstance(found, Failed)
                and isinstance(wanted, Failed)
                and told_error(found.error) == told_error(wanted.error)
            )
        return self._are_same_answers(request, found.value, wanted.value)

    def are_same_parts(self, request: Any, parts: Sequence[Any], wanted: Outcome) -> bool:
        """Whether an outcome says what was seen of the writes of a request, each of them None where nothing was."""
        if not isinstance(wanted, Answered) or isinstance(wanted.value, Conflict):
            return False
        is_one_of_many = isinstance(request, Transact)
        writes, answers = (request.writes, wanted.value) if is_one_of_many else ((request,), (wanted.value,))
        seen = zip(writes, parts, answers, strict=True)
        return all(part is None or self._are_same_answers(write, part, answer) for write, part, answer in seen)

    def _are_same_answers(self, request: Any, found: Any, wanted: Any) -> bool:
        if type(found) is not type(wanted):
            return False
        match found:
            case list() if isinstance(request, Transact):
                return len(found) == len(wanted) and all(map(self._are_same_answers, request.writes, found, wanted))
            case Appended():
                numbers = found.first_seq == wanted.first_seq and found.last_seq == wanted.last_seq
                return numbers and self._is_same("position", found.position, wanted.position)
            case Entry():
                return self._are_same_values(found.value, wanted.value) and self._is_same(
                    "revision", found.revision, wanted.revision
                )
            case Conflict():
                return self._are_same_conflicts(found, wanted)
            case Page():
                return self._are_same_pages(request, found, wanted)
        sort = _NUMBERS.get(type(request))
        if sort is not None:
            return self._is_same(sort, found, wanted)
        if isinstance(request, KvEntries):
            return len(found) == len(wanted) and all(map(self._are_same_pairs, found, wanted))
        return bool(found == wanted)

    def _are_same_pairs(self, found: tuple[str, Entry], wanted: tuple[str, Entry]) -> bool:
        return found[0] == wanted[0] and self._are_same_answers(None, found[1], wanted[1])

    def _are_same_conflicts(self, found: Conflict, wanted: Conflict) -> bool:
        if (found.kind, found.name, found.write) != (wanted.kind, wanted.name, wanted.write):
            return False
        # What is expected and there is no conflict, also where nobody has said yet which of our numbers it is.
        if found.expected == found.actual:
            return False
        if found.kind == "stream":
            return (found.expected, found.actual) == (wanted.expected, wanted.actual)
        known = self._ours.get(("revision", found.expected))
        # One that nobody has seen was translated, or stands in the program, which asks both stores for it.
        is_expected = wanted.expected in ((INT64_MAX, found.expected) if known is None else (known,))
        return is_expected and self._is_same("revision", found.actual, wanted.actual)

    def _are_same_pages(self, request: Any, found: Page, wanted: Page) -> bool:
        if len(found.events) != len(wanted.events) or (found.hole is None) != (wanted.hole is None):
            return False
        if not all(map(self._are_same_events, found.events, wanted.events)):
            return False
        if isinstance(request, ReadAll):
            # Where several streams have a hole, either may be named.
            pairs = ((found.next, wanted.next), (found.head, wanted.head))
            return all(self._is_same("position", one, other) for one, other in pairs)
        return found.next == wanted.next and found.head == wanted.head and found.hole == wanted.hole

    def _are_same_events(self, found: Event, wanted: Event) -> bool:
        ours, theirs = ((e.stream, e.seq, e.type, _encoded(e.data)) for e in (found, wanted))
        is_same = ours == theirs and self._is_same("position", found.position, wanted.position)
        return is_same and self._are_same_values(found.meta, wanted.meta)

    def _are_same_values(self, found: Any, wanted: Any) -> bool:
        """Whether two values are the same. In answers that a transaction noted stand numbers of its store."""
        if not (isinstance(found, dict) and isinstance(wanted, dict) and ANSWERS in found and ANSWERS in wanted):
            return _encoded(found) == _encoded(wanted)
        ours, theirs = (
            _encoded({name: part for name, part in value.items() if name != ANSWERS}) for value in (found, wanted)
        )
        noted, wanted_noted = found[ANSWERS], wanted[ANSWERS]
        if ours != theirs or not (isinstance(noted, list) and isinstance(wanted_noted, list)):
            return False
        return len(noted) == len(wanted_noted) and all(map(self._are_same_noted, noted, wanted_noted))

    def _are_same_noted(self, found: Any, wanted: Any) -> bool:
        if isinstance(found, dict) and isinstance(wanted, dict):
            ours, theirs = dict(found), dict(wanted)
            # When it was is what the store's clock said.
            del ours["at"], theirs["at"]
            return self._is_same("position", ours.pop("position", 0), theirs.pop("position", 0)) and ours == theirs
        # An integer is a revision, a position or a count: it does not say which.
        return type(found) is type(wanted) and (type(found) is int or found == wanted)

    def _is_same(self, sort: str, found: int, wanted: int) -> bool:
        """Whether two numbers stand for the same. Two that are seen first together do, from then on."""
        ours, theirs = (sort, found), (sort, wanted)
        if ours not in self._ours and theirs not in self._theirs:
            self._ours[ours], self._theirs[theirs] = wanted, found
            self._learned.append((ours, theirs))
            return True
        return self._ours.get(ours) == wanted and self._theirs.get(theirs) == found


def _encoded(value: Any) -> bytes:
    return codec.encode(value)
