"""The timers of flows: those that are due soon are kept in memory, and the others are found by their keys in time."""

from collections.abc import Callable, Sequence
from functools import partial

from interpreters.runtime.flows.alarm import Alarm
from interpreters.runtime.flows.loop import FlowLoop
from interpreters.runtime.store import Store
from persist_effects import flow as flows_
from persist_effects import kv
from persist_effects.clock import now
from persist_effects.flow import journal
from persist_effects.flow.requests import Came, Timer

HORIZON_SECONDS = 60.0
"""Timers that are due later than that are not kept in memory: they are found by their keys when their time comes."""


class Timers:
    """Tells flows that their timers are due. All of it happens in the thread of the flows.

    Args:
        store: The store, whose clock it is.
        loop: The flows that are held.
        alarm: Calls it when the time has come.
        look_at: Takes a flow up that is not held.
    """

    def __init__(self, store: Store, loop: FlowLoop, alarm: Alarm, look_at: Callable[[str], None]) -> None:
        self._store = store
        self._loop = loop
        self._alarm = alarm
        self._look_at = look_at

    def set(self, flow_id: str, timers: Sequence[Timer]) -> None:
        """Begin timers of a flow that is held."""
        at = self._store.run(now())
        for timer in timers:
            self._set(flow_id, timer.path, timer.due, at)

    def look(self) -> None:
        """Find the timers that are due soon, by their keys, and look again in time."""
        at = self._store.run(now())
        for due, flow_id, path in self._store.run(flows_.due_before(at + int(HORIZON_SECONDS * 1e6))):
            held = self._loop.held.get(flow_id)
            self._set(flow_id, path, due if held is None else held.asked.get(path, due), at)
        self._alarm.later(HORIZON_SECONDS / 2, self.look)

    def _set(self, flow_id: str, path: tuple[int, ...], due: int, at: int) -> None:
        seconds = (due - at) / 1e6
        if seconds <= HORIZON_SECONDS:
            self._alarm.later(max(0.0, seconds), partial(self._is_due, flow_id, path, due))

    def _is_due(self, flow_id: str, path: tuple[int, ...], due: int) -> None:
        held = self._loop.held.get(flow_id)
        if held is None:
            self._look_at(flow_id)
            return
        if held.is_parked and path not in held.asked:
            # A host died before it could take the key away.
            self._store.run(kv.delete(journal.due_key(due, flow_id, path)))
        at = self._store.run(now())
        if held.asked.get(path) != due:
            return
        if at < due:
            # The clocks do not go alike.
            self._set(flow_id, path, due, at)
            return
        del held.asked[path]
        self._loop.deliver(flow_id, Came(path))
