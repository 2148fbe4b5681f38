"""The token that names one interleaving: whose turn it was at each step, and which programs took part."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from interpreters.explore.schedule.world import Move
from persist_effects.errors import InvalidRequest

_FAULTS = ("", "b", "d")
"""What stands behind the number of a program: it makes a step, or it crashes before its request, or during it."""

_TURNS = r"[0-9]{1,4}[bd]?(?:,[0-9]{1,4}[bd]?)*"
_PART = rf"(?:{_TURNS}|\({_TURNS}\)\*[1-9][0-9]{{0,6}})"
_TOKEN = re.compile(rf"s1:(?:only ([0-9]{{1,4}}(?:,[0-9]{{1,4}})*):)?((?:{_PART}(?:,{_PART})*)?)")
_REPEATED = re.compile(rf"\(({_TURNS})\)\*([0-9]+)|([0-9]+[bd]?)")

_TURNS_MAX = 1_000_000
_TURNS_WRITTEN_OUT = 40
"""Orders of more turns are written with what they repeat in brackets."""
_LONGEST_REPEATED = 40


class ScheduleToken(NamedTuple):
    """Names an interleaving. ``only``: which of the programs run, if not all; the turns count those.

    >>> str(ScheduleToken(None, ((0, 0), (1, 0), (1, 2), (0, 0))))
    's1:0,1,1d,0'
    >>> parsed("s1:only 0,2:0,1,1,0").only
    (0, 2)
    >>> str(ScheduleToken(None, ((1, 0),) + ((0, 0), (1, 0)) * 500))
    's1:(1,0)*500,1'
    >>> len(parsed("s1:(1,0)*500,1").turns)
    1001
    """

    only: tuple[int, ...] | None
    turns: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        only = "" if self.only is None else f"only {','.join(map(str, self.only))}:"
        turns = [f"{index}{_FAULTS[fault]}" for index, fault in self.turns]
        return f"s1:{only}{','.join(turns if len(turns) <= _TURNS_WRITTEN_OUT else _folded(turns))}"

    def moves(self, count: int) -> tuple[Move, ...]:
        """The turns as moves of so many programs."""
        return tuple(index + fault * count for index, fault in self.turns)


def token_of(moves: tuple[Move, ...], count: int, only: tuple[int, ...] | None) -> str:
    """The token of these moves of so many programs."""
    return str(ScheduleToken(only, tuple((move % count, move // count) for move in moves)))


def parsed(text: object, count: int | None = None) -> ScheduleToken:
    """The token that a text is. Raises `InvalidRequest` for what is none, or names programs past ``count``."""
    found = _TOKEN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise refused(text, "it is not a token of an interleaving, such as 's1:0,1,1,0': copy it whole")
    only = None if found[1] is None else tuple(map(int, found[1].split(",")))
    parts = _REPEATED.findall(found[2])
    if sum(int(times or 1) * (repeated.count(",") + 1) for repeated, times, _ in parts) > _TURNS_MAX:
        raise refused(text, f"it has more than {_TURNS_MAX:,} turns")
    turns = [turn for repeated, times, single in parts for turn in (single or repeated).split(",") * int(times or 1)]
    token = ScheduleToken(
        only, tuple((int(turn.rstrip("bd")), _FAULTS.index(turn.lstrip("0123456789"))) for turn in turns)
    )
    if count is not None:
        _check(text, token, count)
    return token


def _folded(turns: list[str]) -> Iterator[str]:
    """The turns, where what stands several times in a row stands once, with how often."""
    place = 0
    while place < len(turns):
        size, times = max(
            ((size, _times(turns, place, size)) for size in range(1, _LONGEST_REPEATED + 1)),
            key=lambda found: (found[0] * (found[1] - 1), -found[0]),
        )
        once = ",".join(turns[place : place + size])
        if times < 3:
            size, times, once = 1, 1, turns[place]
        yield once if times == 1 else f"({once})*{times}"
        place += size * times


def _times(turns: list[str], place: int, size: int) -> int:
    """How often the turns from a place on stand there in a row."""
    end = place + size
    while end < len(turns) and turns[end] == turns[end - size]:
        end += 1
    return max(1, (end - place) // size)


def _check(text: object, token: ScheduleToken, count: int) -> None:
    if token.only is not None:
        if sorted(set(token.only)) != [*token.only]:
            raise refused(text, "the programs that take part do not stand in order, each once")
        if token.only[-1] >= count:
            raise refused(text, f"it names program {token.only[-1]}, and there are programs 0 to {count - 1}")
        count = len(token.only)
    highest = max((index for index, _ in token.turns), default=0)
    if highest >= count:
        raise refused(text, f"it is the turn of program {highest}, and there are programs 0 to {count - 1}")


def refused(token: object, why: str) -> InvalidRequest:
    """The error for a token that cannot be run."""
    return InvalidRequest(f"the token {token!r:.200} cannot be run: {why}")
