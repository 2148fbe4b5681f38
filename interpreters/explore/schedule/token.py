"""The token that names one interleaving: whose turn it was at each step, and which programs took part."""

import re
from typing import NamedTuple

from interpreters.explore.schedule.world import Move
from persist_effects.errors import InvalidRequest

_FAULTS = ("", "b", "d")
"""What stands behind the number of a program: it makes a step, or it crashes before its request, or during it."""

_TOKEN = re.compile(r"s1:(?:only ([0-9]{1,4}(?:,[0-9]{1,4})*):)?((?:[0-9]{1,4}[bd]?(?:,[0-9]{1,4}[bd]?)*)?)")


class ScheduleToken(NamedTuple):
    """Names an interleaving. ``only``: which of the programs run, if not all; the turns count those.

    >>> str(ScheduleToken(None, ((0, 0), (1, 0), (1, 2), (0, 0))))
    's1:0,1,1d,0'
    >>> parsed("s1:only 0,2:0,1,1,0").only
    (0, 2)
    """

    only: tuple[int, ...] | None
    turns: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        only = "" if self.only is None else f"only {','.join(map(str, self.only))}:"
        return f"s1:{only}{','.join(f'{index}{_FAULTS[fault]}' for index, fault in self.turns)}"

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
    turns = tuple(
        (int(turn.rstrip("bd")), _FAULTS.index(turn.lstrip("0123456789"))) for turn in found[2].split(",") if turn
    )
    token = ScheduleToken(only, turns)
    if count is not None:
        _check(text, token, count)
    return token


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
