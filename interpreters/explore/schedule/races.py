"""Which steps had to come before which, and which of them only happened to: the races.

Two steps of different programs are in a race where one had to come before the other, and nothing between them had to.
Every interleaving that is not equal to this one has some race of it the other way round. So it is enough to turn each
race round: to begin, before the first of its two steps, with what does not depend on that one, and the second step.
This is dynamic partial order reduction by source sets (Abdulla, Aronis, Jonsson, Sagonas, 2014).
"""

from collections.abc import Sequence
from typing import Any

from interpreters.explore.schedule.footprint import NOTHING, Footprint, Touched, are_dependent, footprint_of
from persist_effects.requests import Request

StepClock = tuple[int, ...]
"""How many steps of each program had to come before a step, it included."""

CausedStep = tuple[int, int, StepClock]
"""A step: its program, the number of its footprint, and its clock."""


class Causes:
    """Which steps came before which because they had to: a clock for each, by which equal orders are known.

    The clock of a step counts, for each program, how many of its steps had to come before. Orders whose steps have the
    same clocks differ only in the order of steps that may change places, and lead to the same state.
    """

    def __init__(self, count: int, *, orders: frozenset[Touched]) -> None:
        self.orders = orders
        self._start = (0,) * count
        self._numbers: dict[Footprint | None, int] = {}
        self._footprints: list[Footprint | None] = []
        self._dependence: dict[tuple[int, int], bool] = {}

    @property
    def nothing(self) -> int:
        """The number of the footprint of what touches nothing."""
        return self._number(NOTHING)

    def footprint(self, request: Request[Any]) -> int:
        """A number for what a request touches."""
        return self._number(footprint_of(request, orders=self.orders))

    def clock(self, index: int, footprint: int, before: Sequence[CausedStep]) -> tuple[StepClock, list[int]]:
        """The clock of a program's next step, and which of the steps before it are in a race with it.

        Those are the steps of others that had to come before, with nothing between that had to: the store alone
        orders the two, and in another order of the programs they come the other way round.
        """
        clock = self._start
        racing: list[int] = []
        for place in range(len(before) - 1, -1, -1):
            of, touched, at = before[place]
            if clock[of] >= at[of]:
                continue
            if of != index:
                if not self.are_dependent(touched, footprint):
                    continue
                racing.append(place)
            clock = tuple(map(max, clock, at))
        return (*clock[:index], clock[index] + 1, *clock[index + 1 :]), racing

    def _number(self, footprint: Footprint | None) -> int:
        number = self._numbers.setdefault(footprint, len(self._footprints))
        if number == len(self._footprints):
            self._footprints.append(footprint)
        return number

    def are_dependent(self, one: int, other: int) -> bool:
        """Whether it matters which comes first of two requests, by the numbers of their footprints."""
        pair = one, other
        known = self._dependence.get(pair)
        if known is None:
            known = self._dependence[pair] = are_dependent(self._footprints[one], self._footprints[other])
        return known


def firsts_without(place: int, before: Sequence[CausedStep], event: CausedStep) -> list[int]:
    """With which programs an order may begin that has a race the other way round.

    Args:
        place: The first step of the race, among those before the second.
        before: The steps before the second one.
        event: The second step.

    Returns:
        The programs whose first step, of those that did not depend on the first of the race, depends on none of these.

    >>> firsts_without(0, [(0, 0, (1, 0))], (1, 0, (1, 1)))
    [1]
    """
    of, _, at = before[place]
    rest = [step for step in before[place + 1 :] if step[2][of] < at[of]]
    rest.append(event)
    found: list[int] = []
    seen: set[int] = set()
    for number, (index, _, clock) in enumerate(rest):
        if index not in seen:
            seen.add(index)
            if all(clock[other] < known[other] for other, _, known in rest[:number]):
                found.append(index)
    return found
