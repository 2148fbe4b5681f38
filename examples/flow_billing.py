"""A subscription that is billed each month, as a durable flow without an end: each month is a run of its own.

A flow that went round in a loop would have all its past in its journal. `continue_as_new` ends a run and begins the
next with an empty journal, in one transaction; the flow keeps its id, and signals that were not read yet stay.
"""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from msgspec import Struct

from interpreters import Store, open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import Effect, Retry, flow, log, now

MONTH_MICROS = 30 * 24 * 60 * 60 * 1_000_000


class Plan(Struct, frozen=True):
    """What a customer pays each month."""

    customer: str
    cents: int

    @property
    def stream(self) -> str:
        return f"bills/{self.customer}"


# Outside


@flow.activity(repeat="keyed", retry=Retry(times=5))
def charge(customer: str, cents: int, *, key: str) -> str:
    """Ask the bank for money, once for one key. A key names the flow, its run and the step: another each month."""
    print(f"bank: {cents / 100:.2f} EUR from {customer}")
    return f"receipt {key}"


ACTIVITIES: list[Callable[..., Any]] = [charge]


# The flow


def subscription(plan: Plan, month: int = 1, bill_at: int = 0) -> Effect[str]:
    """Bill a month, and wait for the next, or for the signal ``unsubscribed``. Returns how long it was billed.

    When the next bill is due is handed on, and not counted from when this one was paid, so that bills do not drift.
    """
    next_at = (bill_at or (yield from now())) + MONTH_MICROS
    receipt = yield from flow.call(charge, plan.customer, plan.cents)
    yield from log.append(plan.stream, "paid", {"month": month, "receipt": receipt})
    seconds_left = (next_at - (yield from now())) / 1_000_000
    try:
        reason = yield from flow.signal("unsubscribed", timeout=max(0, seconds_left), returns=str)
    except TimeoutError:
        flow.continue_as_new(plan, month + 1, next_at)
    yield from log.append(plan.stream, "ended", reason)
    return f"paid for {month}: {reason}"


# Around it


class Calendar:
    """A clock for the store that is set by hand, so that a month need not last one."""

    def __init__(self) -> None:
        self.micros = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.micros

    def move(self, micros: int) -> None:
        self.micros += micros


def host_of(store: Store, activities: Iterable[Callable[..., Any]] = ACTIVITIES) -> FlowHost:
    return FlowHost(store, flows=[subscription], activities=activities)


def when_paid(plan: Plan, month: int) -> Effect[None]:
    """Wait until a month is paid. Raises TimeoutError where no bill is paid for a minute."""
    seen = 0
    while len((yield from log.read(plan.stream))) < month:
        before, seen = seen, (yield from log.wait(seen, plan.stream, timeout=60))
        if seen == before:
            raise TimeoutError(f"nothing came to {plan.stream} for a minute")


def main(url: str = "memory:") -> None:
    plan, calendar = Plan("ada", 990), Calendar()
    with open_store(url, clock=calendar) as store:
        # A host runs for as long as its process. Here it is another one each month, which comes to the same.
        for month in (1, 2, 3):
            calendar.move(MONTH_MICROS)
            with host_of(store) as host:
                host.start(subscription, "ada", plan, tags={"plan": "small"})
                store.run(when_paid(plan, month))
                print(f"month {month} is paid")
        # Kept until there is a host again.
        with suppress(flow.NoSuchFlow):
            store.run(flow.send("ada", "unsubscribed", "no time for tea"))
        with host_of(store) as host:
            print(host.result("ada", timeout=60))


if __name__ == "__main__":
    main(*sys.argv[1:])
