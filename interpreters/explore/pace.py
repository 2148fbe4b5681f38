"""How long an exploration may take, and the line that says how far it is."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from persist_effects.errors import InvalidRequest, describe

_SECONDS_BETWEEN = 0.25
"""How often the line is written anew: a few times a second is as often as it can be read."""


class Pace:
    """The time since an exploration began, of the time that it has.

    >>> ticks = iter([0.0, 3.0, 9.0])
    >>> pace = Pace("pay, refund", 10, is_told=False, clock=lambda: next(ticks))
    >>> pace.is_over(0.5), pace.is_over(0.5)
    (False, True)
    """

    def __init__(
        self, what: str, seconds: float | None, *, is_told: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._what = what
        self._is_told = is_told
        self._clock = clock
        self._began = clock()
        self._told_at = -math.inf
        self._width = 0

    def is_over(self, share: float = 1.0) -> bool:
        """Whether so much of the time has passed; never, where there is no end to it."""
        return self.seconds is not None and self._clock() - self._began >= self.seconds * share

    def tell(self, checked: int, equal: int, failed: int) -> None:
        """Write the line that says how far it is to standard error, unless it was written just before."""
        if self._is_told and self._clock() - self._told_at >= _SECONDS_BETWEEN:
            self._told_at = self._clock()
            self._write(checked, equal, failed)

    def end(self, checked: int, equal: int, failed: int) -> None:
        """Write the last line."""
        if self._is_told:
            self._write(checked, equal, failed)
            sys.stderr.write("\n")

    def _write(self, checked: int, equal: int, failed: int) -> None:
        of = "" if self.seconds is None else f" of {self.seconds:g}"
        passed = self._clock() - self._began
        line = f"{self._what:.40}: {checked:,} checked, {equal:,} equal, {failed:,} failed, {passed:.0f}{of} s"
        # What is longer than this line, of the one before it, would stay.
        sys.stderr.write(f"\r{line:<{self._width}}")
        sys.stderr.flush()
        self._width = len(line)


def never_over() -> bool:
    """Say that the time is not over, where there is no end to it.

    >>> never_over()
    False
    """
    return False


def check_pace(seconds: Any, progress: Any) -> None:
    """Refuse what is not a time, or does not say whether progress is told."""
    if seconds is not None and (type(seconds) not in (int, float) or not 0 < seconds < math.inf):
        raise InvalidRequest(f"seconds is {describe(seconds)}: give a number above 0, or None for no end")
    if type(progress) is not bool:
        raise InvalidRequest(f"progress is {describe(progress)}: give a bool")
