"""A human approval as a durable flow: it waits for a decision, reminds now and then, and expires some day.

Nothing runs while it waits: what it waits for is in the store. Stop the process for a week, and start it again: the
reminders that fell due meanwhile are sent, and a decision that was sent meanwhile has been kept.
"""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from msgspec import Struct

from interpreters import Store, open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import Effect, Retry, flow, log, sleep

DAY = 24 * 60 * 60.0


class Claim(Struct, frozen=True):
    """What somebody has paid and wants back, how often the approver is reminded, and when it is too late."""

    number: str
    approver: str
    euros: int
    remind_every_seconds: float = 3 * DAY
    expires_after_seconds: float = 14 * DAY

    @property
    def stream(self) -> str:
        return f"claims/{self.number}"


class Decision(Struct, frozen=True):
    """What the approver says: the data of the signal ``decided``."""

    by: str
    is_approved: bool


# Outside. A mail that was sent twice does no harm, so these are as safe to repeat as they look.


@flow.activity(retry=Retry(times=5))
def ask(claim: Claim) -> None:
    """Write to the approver, with a link that sends the signal."""
    print(f"mail to {claim.approver}: {claim.number}, {claim.euros} EUR, yes or no?")


@flow.activity(retry=Retry(times=5))
def remind(claim: Claim, time: int) -> None:
    print(f"mail to {claim.approver}: {claim.number} still waits, reminder {time}")


ACTIVITIES: list[Callable[..., Any]] = [ask, remind]


# The flow


def approve(claim: Claim) -> Effect[str]:
    """See a claim through. Returns what has become of it."""
    yield from log.append(claim.stream, "claimed", claim.euros)
    yield from flow.call(ask, claim)
    waiting = flow.signal("decided", timeout=claim.expires_after_seconds, returns=Decision)
    try:
        _, decision = yield from flow.first_of(waiting, keep_reminding(claim))
    except TimeoutError:
        yield from log.append(claim.stream, "expired", None)
        return "expired"
    outcome = "approved" if decision.is_approved else "refused"
    yield from log.append(claim.stream, outcome, decision.by)
    return f"{outcome} by {decision.by}"


def keep_reminding(claim: Claim) -> Effect[NoReturn]:
    """Remind until it is cancelled, as a branch of `first_of` is that has lost."""
    time = 0
    while True:
        yield from sleep(claim.remind_every_seconds)
        time += 1
        yield from flow.call(remind, claim, time)
        yield from log.append(claim.stream, "reminded", time)


# Around it


def host_of(store: Store, activities: Iterable[Callable[..., Any]] = ACTIVITIES) -> FlowHost:
    return FlowHost(store, flows=[approve], activities=activities)


def when(claim: Claim, wanted: str, count: int = 1) -> Effect[None]:
    """Wait until a claim has so many events of a type. Raises TimeoutError where none comes for a minute."""
    seen = 0
    while [event.type for event in (yield from log.read(claim.stream))].count(wanted) < count:
        before, seen = seen, (yield from log.wait(seen, claim.stream, timeout=60))
        if seen == before:
            raise TimeoutError(f"nothing came to {claim.stream} for a minute")


def decide(host: FlowHost, claim: Claim, decision: Decision) -> None:
    """What the link in the mail does. Clicked again, it says nothing new, since the flow has ended."""
    with suppress(flow.NoSuchFlow):
        host.signal(claim.number, "decided", decision)


def main(url: str = "memory:") -> None:
    at_once = Claim("c-1", "grace", 40)
    late = Claim("c-2", "grace", 900, remind_every_seconds=0.1)
    never = Claim("c-3", "linus", 7, expires_after_seconds=0.2)
    with open_store(url) as store, host_of(store) as host:
        host.start(approve, at_once.number, at_once)
        decide(host, at_once, Decision("grace", is_approved=True))
        print(f"{at_once.number}: {host.result(at_once.number, timeout=60)}")
        host.start(approve, late.number, late)
        store.run(when(late, "reminded"))
        decide(host, late, Decision("grace", is_approved=False))
        print(f"{late.number}: {host.result(late.number, timeout=60)}")
        host.start(approve, never.number, never)
        print(f"{never.number}: {host.result(never.number, timeout=60)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
