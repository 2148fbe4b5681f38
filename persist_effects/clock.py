"""Time and fresh identifiers: a program asks for them as it asks for what is stored, so it needs no clock of its own.

Every store answers: with the clock that stamps its events, and with its source of random bytes. Both can be given when
it is opened. In a trace the answers are kept, so a replay sees the same time; in a simulation time is virtual.
"""

from persist_effects.contexts import leaves_contexts_alone
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import NewId, Now, Sleep


@program
@leaves_contexts_alone
def now() -> Effect[int]:
    """The time by the store's clock, the one that stamps events.

    Of a served store that is the server's clock; of one on PostgreSQL or NATS it is the clock of the process that
    opened it, so that programs on several machines see clocks that differ. It may be set back: order events by their
    numbers, not by their times.

    Returns:
        Microseconds since 1970, UTC.

    Raises:
        StoreClosed: If the store was closed.

    >>> from interpreters import open_store
    >>> open_store("memory:", clock=lambda: 1_700_000_000_000_000).run(now())
    1700000000000000
    """
    return (yield from perform(Now()))


@program
@leaves_contexts_alone
def new_id() -> Effect[str]:
    r"""A fresh identifier that nobody else has: a UUID of version 7, of the store's time and of random bytes.

    Those of a later millisecond sort behind those of an earlier one; of one millisecond they have no order.

    Returns:
        Its usual text form, 36 characters.

    Raises:
        StoreClosed: If the store was closed.
        InvalidRequest: If the store's clock gives a time before 1970, or after the year 10889.

    >>> from interpreters import open_store
    >>> store = open_store("memory:", clock=lambda: 1_700_000_000_000_000, random_bytes=lambda count: b"\7" * count)
    >>> store.run(new_id())
    '018bcfe5-6800-7707-8707-070707070707'
    """
    return (yield from perform(NewId()))


@program
@leaves_contexts_alone
def sleep(seconds: float) -> Effect[None]:
    """Go on after so many seconds. Other programs go on meanwhile: other threads, tasks, and those of `run_many`.

    Args:
        seconds: How long, 0 or more; ``math.inf`` until the store is closed.

    Raises:
        StoreClosed: If the store was closed, or is closed meanwhile.
        InvalidRequest: If it is not a number, or below 0.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(sleep(0.001))
    """
    yield from perform(Sleep(seconds))
