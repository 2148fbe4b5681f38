"""What the two members do between whom a fence stands: each event's effect is appended to a stream."""

from collections.abc import Callable

from persist_effects import Append, Draft, Event, Group, follow
from persist_effects.machine import Effect

GROUP = Group(partitions=2, lease_seconds=0.5)
EFFECTS = "effects"


def followed_as(member: str, before: Callable[[Event], None] = lambda _: None, timeout: float = 0.0) -> Effect[int]:
    """Follow as a member, calling ``before`` inside of the handler."""

    def copied(event: Event) -> list[Append]:
        before(event)
        return [Append(EFFECTS, (Draft("copied", [event.stream, event.seq, member]),))]

    return follow("crew", "s/", copied, group=GROUP, member=member, timeout=timeout)
