"""What is left of data that was forgotten: `Erased` in its place, and steps of folds that pass over it.

A store that encrypts, such as `interpreters.wrappers.encryption` makes of any other, keeps each value in an envelope
under a key of the subject whom it is about. Once the key is deleted, nobody can open the envelope any more. The event
stays where it was, with its number, type and time, and its data is read as `Erased`.

What an envelope is, is said here, so that whatever looks into values can tell one: bytes that begin with `ENVELOPE`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from persist_effects.event import Event

S = TypeVar("S")

ENVELOPE = b"\xc1sealed"
"""With what the bytes of an envelope begin. The next byte is the version of its format."""

SEALED = "sealed"
"""Under which name an envelope stands where a dict must be: in an event's meta, and beside noted answers."""


class Erased(msgspec.Struct, frozen=True, tag=True):
    """Stands in the place of a value whose subject was forgotten.

    ``forgotten_at`` is when, in microseconds since 1970, UTC.
    """

    forgotten_at: int


def is_erased(found: object) -> bool:
    """Whether the data of an event, or a value, was forgotten.

    Args:
        found: An event, or a value.

    Returns:
        Whether nothing is left of it.

    >>> is_erased(Event("customers/1", 1, "registered", 0, Erased(7), 1)), is_erased({"name": "Ada"})
    (True, False)
    """
    return isinstance(found.data if isinstance(found, Event) else found, Erased)


def passing_over_erased(step: Callable[[S, Event], S]) -> Callable[[S, Event], S]:
    """A fold's step that leaves the state as it is where an event's data was forgotten.

    Args:
        step: The step, which need not know of `Erased`.

    Returns:
        The step to give to `projection`, `snapshot`, `view` or `compaction`.

    >>> total = passing_over_erased(lambda total, event: total + event.data["cents"])
    >>> events = [Event("orders", 1, "paid", 0, {"cents": 5}, 1), Event("orders", 2, "paid", 0, Erased(7), 2)]
    >>> from functools import reduce
    >>> reduce(total, events, 0)
    5
    """

    def step_over(state: S, event: Event) -> S:
        return state if isinstance(event.data, Erased) else step(state, event)

    return step_over


def is_sealed(value: Any) -> bool:
    r"""Whether a value, as a store holds it, is an envelope, or a dict with one.

    Args:
        value: The value, or an event's meta.

    Returns:
        Whether it is encrypted.

    >>> is_sealed(b"\xc1sealed\x01..."), is_sealed({"sealed": b"\xc1sealed\x01..."}), is_sealed({"sealed": "no"})
    (True, True, False)
    """
    if type(value) is dict:
        value = value.get(SEALED)
    return type(value) is bytes and value.startswith(ENVELOPE)
