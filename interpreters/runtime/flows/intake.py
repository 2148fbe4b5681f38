"""Which flows a host takes up, and when: what it finds, what is begun, and what a message or a timer comes for."""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from math import inf

import msgspec

from interpreters.runtime.flows.alarm import Alarm, Tell
from interpreters.runtime.flows.loop import FlowLoop
from interpreters.runtime.flows.queues import QueueLines
from interpreters.runtime.flows.schedules import Schedule, see_to
from interpreters.runtime.flows.timers import HORIZON_SECONDS
from interpreters.runtime.store import Store
from persist_effects import flow as flows_
from persist_effects import kv, log
from persist_effects.flow import journal
from persist_effects.flow.defining import Flows
from persist_effects.flow.journal import BegunFlow, Open, OpenFlow
from persist_effects.flow.requests import Came
from persist_effects.requests import Wait

AT_ONCE = 100
"""How many flows are read from their journals at once: one that has something to do waits no longer than that takes."""


class Intake:
    """Finds flows that go on and are nobody's, or this host's, and has them taken up. All in the thread of the flows.

    Args:
        store: The store.
        token: What this host's entries bear.
        flows: The code that is here.
        queues: The queues whose flows it runs.
        loop: Holds what was taken up.
        alarm: For what is done later.
        tell: Has something done in the thread of the flows.
        alive: The tokens of the hosts that live.
    """

    def __init__(
        self,
        store: Store,
        token: bytes,
        *,
        flows: Flows,
        queues: QueueLines,
        loop: FlowLoop,
        alarm: Alarm,
        tell: Tell,
        alive: Callable[[], Collection[bytes]],
    ) -> None:
        self._store = store
        self._is_shared = store.capabilities.processes == "many"
        self.token = token
        self._flows = flows
        self._queues = queues
        self._loop = loop
        self._alarm = alarm
        self._tell = tell
        self._alive = alive
        # Flows to take up, each with how it stands, where that was read. Those that have something to do come first.
        self._to_take: deque[tuple[str, OpenFlow | None]] = deque()
        self._turns_at = inf
        self._position = store.run(log.head(journal.INBOX))
        self._end_watch: Callable[[], None] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no flow is to be taken up now."""
        return not self._to_take

    def take_up(self) -> None:
        """Take up those that are to be, as many as may be read at once."""
        while self._to_take and self._loop.active < AT_ONCE:
            flow_id, known = self._to_take.popleft()
            # A message may have come for it. It may also be held by now.
            if not self._loop.deliver(flow_id, Came(())):
                self._loop.take_up(flow_id, known)

    def take_up_new(self, begun: Mapping[str, BegunFlow]) -> None:
        """Take up flows that this host has begun a moment ago."""
        for flow_id, each in begun.items():
            self._loop.take_up(flow_id, each)

    def close(self) -> None:
        """Wait for no more messages."""
        if self._end_watch is not None:
            self._end_watch()
            self._end_watch = None

    # What goes on and is not held

    def look_for_flows(self) -> None:
        """Take up all flows that go on and are nobody's, or this host's."""
        # In this order: a host that comes in between has its lease before it owns anything.
        found = self._store.run(flows_.unended())
        alive = self._alive()
        for flow_id, known in found.items():
            if flow_id not in self._loop.held and self._goes_on_here(flow_id, known.standing, alive):
                self._to_take.append((flow_id, known))

    def look_at(self, flow_id: str) -> None:
        """Take a flow up, if it goes on and is nobody's, or this host's; where the store is away, later."""
        self._alarm.insist(partial(self._look_at, flow_id))

    def _look_at(self, flow_id: str) -> None:
        entry = self._store.run(kv.entry(journal.OPEN + flow_id))
        if entry is None:
            return
        known = OpenFlow(msgspec.convert(entry.value, Open), entry.revision)
        if self._goes_on_here(flow_id, known.standing, self._alive()):
            # As it was found: another host may have it by the time that it is taken up.
            self._to_take.appendleft((flow_id, known))

    def is_left(self, flow: str, version: int) -> bool:
        """Whether a flow is left to other hosts: its code is not here, and there may be others.

        As while a new version is deployed on one host after the other.
        """
        return self._is_shared and not self._flows.has(flow, version)

    def _goes_on_here(self, flow_id: str, standing: Open, alive: Collection[bytes]) -> bool:
        """Whether a flow is to be taken up: it is nobody's, or this host's, and does not wait for its turn."""
        is_ours = standing.owner == self.token or standing.owner not in alive
        if is_ours and self.is_left(standing.flow, standing.version):
            return False
        return is_ours and self._queues.place(flow_id, standing)

    # What comes from others

    def watch(self) -> None:
        """Read the messages that came to inboxes, and wait for more."""
        self.close()
        while True:
            page = self._store.run(log.page_all(after=self._position, prefix=journal.INBOX))
            for flow_id in dict.fromkeys(event.stream.removeprefix(journal.INBOX) for event in page.events):
                if not flow_id:
                    # A host is gone.
                    self._alarm.insist(self.look_for_flows)
                elif not self._loop.deliver(flow_id, Came(())):
                    self.look_at(flow_id)
            self._position = page.next
            if page.next >= page.head:
                break
        watch = getattr(self._store.interpreter, "watch", None)
        if watch is None:
            self._alarm.later(_LOOK_AGAIN_SECONDS, self.watch)
        else:
            told = partial(self._tell, partial(self._alarm.insist, self.watch))
            self._end_watch = watch(Wait(self._position, journal.INBOX), told)

    def see_to(self, schedule: Schedule) -> None:
        """Begin what is due by a schedule, and look again when the next is; sooner, as clocks are set."""
        seen = self._store.run(see_to(schedule, self.token))
        for flow_id in seen.flow_ids:
            self.look_at(flow_id)
        seconds = min((seen.next - seen.now) / 1e6, HORIZON_SECONDS)
        self._alarm.later(seconds, partial(self.see_to, schedule))

    # Queues

    def take_turns(self) -> None:
        """Take those up whose turn has come in their queue, and look again when a rate lets the next begin."""
        now = time.monotonic()
        turns = self._queues.take_turns(now)
        if turns:
            self._alarm.insist(partial(self._own, turns))
        at = self._queues.next_at(now)
        if at is not None and at < self._turns_at:
            self._turns_at = at
            self._alarm.later(at - now, partial(self._may_turn, at))

    def _may_turn(self, at: float) -> None:
        if at == self._turns_at:
            self._turns_at = inf

    def _own(self, turns: Sequence[str]) -> None:
        owned = self._store.run(flows_.own(turns, self.token))
        self._to_take.extend((flow_id, None) for flow_id in owned)
        for flow_id in set(turns) - set(owned):
            self._queues.give_back(flow_id)


_LOOK_AGAIN_SECONDS = 0.05
"""How often messages are looked for where a store cannot tell of them."""
