"""The two requests of simulated time and simulated stores: `Sleep`, and `Pause`."""

import math

from persist_effects.errors import InvalidRequest
from persist_effects.requests import Request


class Sleep(Request[None], frozen=True, tag="simulate/sleep"):
    """Go on after so many seconds. No clock is waited for: time passes when no program can do anything else.

    >>> Sleep(-1)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: seconds is -1: give a number, 0 or more
    """

    seconds: float

    def __post_init__(self) -> None:
        if type(self.seconds) not in (int, float) or math.isnan(self.seconds) or self.seconds < 0:
            raise InvalidRequest(f"seconds is {self.seconds!r}: give a number, 0 or more")


class Pause(Request[None], frozen=True, tag="simulate/pause"):
    """Let other programs go first, here. A store's handler that is a generator function yields it between two steps.

    So an operation that is not one step in reality is not one step in the simulation either.

    >>> Pause().op
    'simulate/pause'
    """
