"""Asking a store one request, and waiting for its outcome in the thread that asks."""

import math
from collections.abc import Callable
from typing import Any

from interpreters.threads.gates import Gate
from persist_effects.requests import Answered, Outcome


class Alone:
    """One request that a thread waits for.

    >>> alone = Alone()
    >>> alone.done(Answered("b"))
    >>> alone.wait(60.0), alone.value()
    (True, 'b')
    """

    __slots__ = ("_come", "_told")

    def __init__(self) -> None:
        self._told = Gate()
        self._come: list[Outcome] = []

    def done(self, outcome: Outcome) -> None:
        """Take in the outcome, from any thread."""
        self._come.append(outcome)
        self._told.open()

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait for so long at the most. Whether it has come."""
        return self._told.wait(seconds)

    def value(self) -> Any:
        """The answer, once it has come. Raises the error, if that is what came."""
        outcome = self._come[0]
        if isinstance(outcome, Answered):
            return outcome.value
        raise outcome.error


def asked_alone(begin: Callable[[Callable[[Outcome], None]], object]) -> Any:
    """Ask one request, and wait for its answer.

    Args:
        begin: Asks it; is given what to call with its outcome.

    Returns:
        The answer. An interrupt is raised once it has come, so that no clean-up overtakes what is on its way; a second
        one at once.

    >>> asked_alone(lambda done: done(Answered("b")))
    'b'
    """
    alone = Alone()
    begin(alone.done)
    try:
        alone.wait()
    except BaseException:
        alone.wait()
        raise
    return alone.value()
