"""The clock that a store is given: what every store takes in the same way."""

import time
from collections.abc import Callable

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import INT64_MAX, check_integer

Clock = Callable[[], int]
"""Gives microseconds since the Unix epoch, UTC."""


def wall_clock() -> int:
    """The machine's clock.

    Returns:
        Microseconds since the Unix epoch, UTC.

    >>> wall_clock() > 1_600_000_000_000_000
    True
    """
    return time.time_ns() // 1_000


def checked_clock(clock: Clock) -> Clock:
    """The same clock, whose times are judged before they are written.

    Args:
        clock: The clock that a store was given.

    Returns:
        A clock that raises `InvalidRequest` for a time that is not an integer.

    Raises:
        InvalidRequest: It is not a function.

    >>> checked_clock(lambda: 7)()
    7
    """
    if clock is wall_clock:
        return clock
    if not callable(clock):
        raise InvalidRequest(f"clock is {describe(clock)}: give a function that gives microseconds since 1970, UTC")

    def checked() -> int:
        now = clock()
        check_integer("the time that the store's clock gives (microseconds since 1970, UTC)", now, -INT64_MAX)
        return now

    return checked
