"""What the user's own code may do in an exploration: how much it asks, which errors of it count, which end everything.

=====================================================  ===============================================================
what a program or a check raises                       what becomes of it
=====================================================  ===============================================================
an ``Exception``, ``pytest.fail``, ``SystemExit``      it has failed: what is told of that state has a token
``KeyboardInterrupt``, a cancellation, ``pytest.skip``  the exploration ends with it, and a note on it names the state
and whatever else is not a ``Exception``
=====================================================  ===============================================================
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from persist_effects import spinning
from persist_effects.machine import Effect, Suspended, perform, start

A = TypeVar("A")

_CLOSING_ATTEMPTS = 100


class Hangs(Exception):
    """A program made more requests than it may."""


class Ended(Exception):
    """A program or a check has failed with an error that is not a ``Exception``; that is its cause."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def limited(program: Effect[A], requests: int) -> Effect[A]:
    """The same program, in which `Hangs` is raised where it asks more than so many requests.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> open_store("memory:").run(limited(kv.has("color"), 1))
    False
    """
    step = start(program)
    while isinstance(step, Suspended):
        if not requests:
            give_up(program)
            raise Hangs("the program asked more than its limit of requests")
        requests -= 1
        try:
            answer = yield from perform(step.request)
        except GeneratorExit:
            give_up(program)
            raise
        except BaseException as error:
            step = step.throw(error)
        else:
            step = step.resume(answer)
    return step.value


def outcome_of_check(check: Callable[..., Effect[Any]], *found: Any, requests_limit: int) -> Effect[Exception | None]:
    """A user's check as a program that returns what it failed with, None where it passes.

    Raises what ends an exploration.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> def check(outcomes):
    ...     assert (yield from kv.has("color")), "there is no color"
    >>> open_store("memory:").run(outcome_of_check(check, [], requests_limit=9))
    AssertionError('there is no color')
    """
    try:
        yield from limited(check(*found), requests_limit)
    except BaseException as error:
        return as_failure(error)
    return None


def failing(program: Effect[A]) -> Effect[A]:
    """The same program, in which whatever counts as a failure of it is an ``Exception``: `Ended`, if it was none."""
    try:
        return (yield from program)
    except BaseException as error:
        failure = as_failure(error)
        if failure is error:
            raise
        raise failure from error


def as_failure(error: BaseException) -> Exception:
    """The error with which a program or a check has failed. Raises it anew if it ends the exploration.

    >>> as_failure(SystemExit(3))
    Ended(SystemExit(3))
    >>> as_failure(GeneratorExit())
    Traceback (most recent call last):
    GeneratorExit
    """
    if ends_all(error):
        raise error
    return error if isinstance(error, Exception) else Ended(error)


def ends_all(error: BaseException) -> bool:
    """Whether an error is not a failure of the program or check that raised it, but ends what runs them."""
    outcomes: Any = sys.modules.get("_pytest.outcomes")
    if outcomes is not None:
        # A test that is skipped, or expected to fail, is so whatever it explores.
        if isinstance(error, outcomes.Skipped | outcomes.XFailed | outcomes.Exit):
            return True
        if isinstance(error, outcomes.Failed):
            return False
    if isinstance(error, BaseExceptionGroup):
        return any(map(ends_all, error.exceptions))
    return not isinstance(error, Exception | SystemExit)


def thrown(error: Exception) -> BaseException:
    """What is to be raised in a program for an error: what had failed, where that was no ``Exception``."""
    return error.error if isinstance(error, Ended) else error


def is_said_by_pytest(error: object) -> bool:
    """Whether an error is that of ``pytest.fail``, by which a program says itself that the test has failed."""
    outcomes: Any = sys.modules.get("_pytest.outcomes")
    return outcomes is not None and isinstance(error, Ended) and isinstance(error.error, outcomes.Failed)


@contextmanager
def noted(place: Callable[[], str]) -> Iterator[None]:
    """Whatever ends what is done in here gets a note that says where, and how to see that again.

    >>> try:
    ...     with noted(lambda: "this ended the exploration in state 7"):
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt as error:
    ...     error.__notes__
    ['this ended the exploration in state 7']
    """
    try:
        yield
    except BaseException as error:
        note(error, place)
        raise


def note(error: BaseException, place: Callable[[], str]) -> None:
    """Say in a note where an exploration ended, unless what was done within it has said so."""
    if not any(NOTE in told for told in getattr(error, "__notes__", ())):
        error.add_note(place())


NOTE = "this ended "
"""Every such note has these words."""


def give_up(program: Effect[Any]) -> None:
    """End a program as if its process were gone: what its ``finally`` blocks ask for reaches no store."""
    for _ in range(_CLOSING_ATTEMPTS):
        try:
            spinning.give_up(program)
        except BaseException as error:
            if ends_all(error):
                raise
            # There is nobody left whom it would concern.
            continue
        return
