"""The clock and the random source that a store is given, and what is answered with them: the same for every store."""

import os
import time
from collections.abc import Callable
from typing import Any

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import INT64_MAX, check_integer
from persist_effects.machine import Handlers
from persist_effects.requests import NewId, Now, Request

Clock = Callable[[], int]
"""Gives microseconds since the Unix epoch, UTC."""

RandomBytes = Callable[[int], bytes]
"""Gives so many bytes that nobody can guess, or, where runs are to be alike, that are the same in each."""

_ID_BYTES = 10
_ID_MILLISECONDS_MAX = 2**48 - 1


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


def checked_random(random_bytes: RandomBytes) -> RandomBytes:
    r"""The same source of random bytes, which is judged whenever it gives some.

    Args:
        random_bytes: The source that a store was given.

    Returns:
        A source that raises `InvalidRequest` where it gives something else than so many bytes.

    Raises:
        InvalidRequest: It is not a function.

    >>> checked_random(lambda count: bytes(count))(3)
    b'\x00\x00\x00'
    """
    if random_bytes is os.urandom:
        return random_bytes
    if not callable(random_bytes):
        raise InvalidRequest(f"random_bytes is {describe(random_bytes)}: give a function of a count that gives bytes")

    def checked(count: int) -> bytes:
        drawn = random_bytes(count)
        if type(drawn) is not bytes or len(drawn) != count:
            raise InvalidRequest(f"random_bytes({count}) gave {describe(drawn)}: let it give {count} bytes")
        return drawn

    return checked


def uuid7(now: int, random_bytes: bytes) -> str:
    """A UUID of version 7, as RFC 9562 makes it: 48 bits of milliseconds, then 74 random ones.

    Args:
        now: Microseconds since 1970, UTC.
        random_bytes: Ten of them.

    Returns:
        Its text form.

    Raises:
        InvalidRequest: If the time does not fit in it.

    >>> uuid7(1_645_557_742_000_000, bytes.fromhex("0cc318c4dc0c0c07398f"))  # the example of the RFC
    '017f22e2-79b0-7cc3-98c4-dc0c0c07398f'
    """
    milliseconds = now // 1_000
    if not 0 <= milliseconds <= _ID_MILLISECONDS_MAX:
        raise InvalidRequest(
            f"the store's clock gives {now} (microseconds since 1970, UTC), and a UUID of version 7 holds times from "
            f"0 to {_ID_MILLISECONDS_MAX * 1_000 + 999}: give the store another clock"
        )
    drawn = int.from_bytes(random_bytes, "big")
    high, low = (drawn >> 64) & 0xFFF, drawn & (2**62 - 1)
    text = f"{milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class ClockRow:
    """A row that asks the clock and the random source of this process, and nobody else: it never blocks.

    >>> ClockRow(lambda: 7)(Now())
    7
    """

    __slots__ = ("_answer",)

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def __call__(self, request: Request[Any]) -> Any:
        """Answer a request.

        Args:
            request: It asks for nothing but what this row answers.

        Returns:
            The answer.
        """
        return self._answer()


def rows_of_clock(interpreter: object, check_open: Callable[[], None] = lambda: None) -> Handlers:
    """The rows for `Now` and `NewId`, by the clock and the random source of a store's interpreter.

    Args:
        interpreter: Its ``clock`` and ``random_bytes`` are taken; where it has none, the machine's.
        check_open: Raises where the store was closed.

    Returns:
        The rows, each a `ClockRow`.

    Raises:
        InvalidRequest: One of the two is not a function.

    >>> class Fixed:
    ...     clock = staticmethod(lambda: 7)
    >>> rows_of_clock(Fixed())[Now](Now())
    7
    """
    clock = checked_clock(getattr(interpreter, "clock", wall_clock))
    random_bytes = checked_random(getattr(interpreter, "random_bytes", os.urandom))

    def now() -> int:
        check_open()
        return clock()

    def new_id() -> str:
        check_open()
        return uuid7(clock(), random_bytes(_ID_BYTES))

    return {Now: ClockRow(now), NewId: ClockRow(new_id)}
