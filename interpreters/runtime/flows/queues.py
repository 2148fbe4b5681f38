"""Queues of flows: which of those that wait for their first run has its turn, given the time. Nothing here waits.

A queue limits how many of its flows go on at once, and how many begin in a second. A flow that waits in it is nobody's
until its turn has come: its `Open` record has no owner. Then its host puts its own token there, so that of several
hosts with this queue one takes it; and after a restart one sees which had had their turn. The limits are those of each
host: two hosts with a queue of ``concurrency=3`` run six of its flows at once.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

import msgspec

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer, check_items, check_name
from persist_effects.flow.journal import Open
from persist_effects.flow.standing import FlowStatus


class Queue(msgspec.Struct, frozen=True):
    """A queue of a host: the limits for the flows that are begun in it.

    Args:
        name: What it is called, as in ``host.start(…, queue="mail")``.
        concurrency: How many of its flows go on at once, on one host. One counts from its first run to its end, also
            while it sleeps, waits for a signal, or is paused; not while it is halted or set aside.
        per_second: How many of its flows begin within any second, on one host. Less than one: 0.1 is one in ten
            seconds. A host that was started anew does not know how many began before.

    Raises:
        InvalidRequest: If the name is none, or a limit is not above 0.

    >>> Queue("mail", concurrency=10, per_second=50)
    Queue(name='mail', concurrency=10, per_second=50)
    """

    name: str
    concurrency: int | None = None
    per_second: float | None = None

    def __post_init__(self) -> None:
        check_name("the name of a queue", self.name)
        if self.concurrency is not None:
            check_integer(f"concurrency of queue {self.name!r}", self.concurrency, 1)
        rate = self.per_second
        if rate is not None and (type(rate) not in (int, float) or not 0 < rate <= _RATE_MAX):
            raise InvalidRequest(f"per_second of queue {self.name!r} is {rate!r}: give a number above 0, up to 1000000")


_RATE_MAX = 1e6
"""Each flow that begins within a second is kept in mind: more than any host begins."""


class QueueLines:
    """The flows that wait in the queues of a host, and those that had their turn.

    Args:
        queues: The queues.

    Raises:
        InvalidRequest: If two have one name, or one is not a `Queue`.

    >>> lines = QueueLines([Queue("mail", concurrency=1)])
    >>> lines.line_up("m-1", "mail", 0, 1_700_000_000_000_000)
    >>> lines.line_up("m-2", "mail", 5, 1_700_000_000_000_001)
    >>> lines.take_turns(0.0)
    ['m-2']
    >>> lines.release("m-2")
    >>> lines.take_turns(0.0)
    ['m-1']
    """

    def __init__(self, queues: Iterable[Queue] = ()) -> None:
        self._lines: dict[str, _Line] = {}
        for queue in check_items("queues", queues, "a list of Queue"):
            if not isinstance(queue, Queue):
                raise InvalidRequest(f"a queue of the host is {describe(queue)}: give a Queue")
            if queue.name in self._lines:
                raise InvalidRequest(f"two queues are called {queue.name!r}: give one of them another name")
            self._lines[queue.name] = _Line(queue)
        # Where each flow is that waits or had its turn.
        self._line_of: dict[str, _Line] = {}
        self._numbers = count()

    def check(self, name: str) -> None:
        """Refuse a queue that is not here. The empty one is none."""
        if name != "" and (type(name) is not str or name not in self._lines):
            raise InvalidRequest(f"queue {name!r} is not here: {self._give_it()}")

    def place(self, flow_id: str, standing: Open) -> bool:
        """Find the place of a flow that this host may run.

        Args:
            flow_id: The flow.
            standing: How it stands.

        Returns:
            Whether it is to go on now. Else it waits for its turn, or its queue is not here and it is left to others.
        """
        if not standing.queue:
            # One that was cancelled has left its queue.
            self.release(flow_id)
            return True
        if standing.owner:
            return self.go_on(flow_id, standing.queue)
        self.line_up(flow_id, standing.queue, standing.priority, standing.began)
        return False

    def line_up(self, flow_id: str, queue: str, priority: int, began: int) -> None:
        """Have a flow wait for its turn, unless it does, or had it.

        Args:
            flow_id: The flow.
            queue: Its queue. Where that is not here, nothing happens.
            priority: Those of a higher one are first.
            began: When it was begun: of one priority, those that were begun before are first.
        """
        line = self._lines.get(queue)
        if line is not None and flow_id not in self._line_of:
            self._line_of[flow_id] = line
            line.wait(_Place(-priority, began, next(self._numbers), flow_id))

    def go_on(self, flow_id: str, queue: str) -> bool:
        """Count a flow that had its turn before, be there room or not.

        Args:
            flow_id: The flow.
            queue: Its queue.

        Returns:
            Whether its queue is here.
        """
        line = self._lines.get(queue)
        if line is None:
            return False
        self._line_of[flow_id] = line
        line.go_on(flow_id)
        return True

    def take_turns(self, now: float) -> list[str]:
        """Have those that are next take their turns.

        Args:
            now: Seconds, by a monotonic clock.

        Returns:
            Whose turn it is. They count from now on.
        """
        return [flow_id for line in self._lines.values() for flow_id in line.take_turns(now)]

    @property
    def has_waiting(self) -> bool:
        """Whether someone waits."""
        return any(line.has_waiting for line in self._lines.values())

    def next_at(self, now: float) -> float | None:
        """When a rate lets the next one have its turn.

        Args:
            now: Seconds, by the same clock.

        Returns:
            Seconds, by that clock; None where nobody waits for that alone.
        """
        return min((at for line in self._lines.values() if (at := line.next_at(now)) is not None), default=None)

    def release(self, *flow_ids: str) -> None:
        """Count flows no longer: they have ended, or do not go on here."""
        for flow_id in flow_ids:
            line = self._line_of.pop(flow_id, None)
            if line is not None:
                line.release(flow_id)

    def give_back(self, flow_id: str) -> None:
        """Have a turn count as not taken: the flow has ended meanwhile, or another host has taken it."""
        line = self._line_of.get(flow_id)
        self.release(flow_id)
        if line is not None:
            line.forget_latest()

    def shown(self, status: FlowStatus) -> FlowStatus:
        """How a flow stands, with a word on it where its queue is not here.

        Args:
            status: How it stands.

        Returns:
            The same, or with an ``error`` that says why it does not go on here.
        """
        if not status.queue or status.queue in self._lines or status.ended is not None or status.error is not None:
            return status
        told = f"queue {status.queue!r} is not here, so the flow is left to other hosts: {self._give_it()}"
        return msgspec.structs.replace(status, error=told)

    def _give_it(self) -> str:
        return f"give it to the host, FlowHost(queues=[…]), which has {', '.join(sorted(self._lines)) or 'none'}"


class _Place(NamedTuple):
    """A place in a line: the least is the first."""

    rank: int
    began: int
    number: int
    flow_id: str


class _Line:
    """One queue: who waits, who had a turn, and when the last ones were."""

    def __init__(self, queue: Queue) -> None:
        # Those that wait, in a heap, and the numbers of their places. A place in the heap with another one is void.
        self._waiting: list[_Place] = []
        self._places: dict[str, int] = {}
        self._running: set[str] = set()
        self._begun: deque[float] = deque()
        self._concurrency = queue.concurrency
        # A bucket of tokens, each of which comes back so many seconds after it was taken. One that is filled evenly
        # would let twice as many begin in the second after a pause.
        self._tokens: int | None = None
        self._back_seconds = 0.0
        rate = queue.per_second
        if rate is not None:
            is_whole = rate == int(rate)
            self._tokens, self._back_seconds = (int(rate), 1.0) if is_whole else (1, 1 / rate)

    def wait(self, place: _Place) -> None:
        self._places[place.flow_id] = place.number
        heappush(self._waiting, place)

    def go_on(self, flow_id: str) -> None:
        self._places.pop(flow_id, None)
        self._running.add(flow_id)

    def release(self, flow_id: str) -> None:
        self._places.pop(flow_id, None)
        self._running.discard(flow_id)

    def forget_latest(self) -> None:
        if self._begun:
            self._begun.pop()

    @property
    def has_waiting(self) -> bool:
        return bool(self._places)

    def take_turns(self, now: float) -> list[str]:
        taken = []
        while self.next_at(now) == now:
            flow_id = heappop(self._waiting).flow_id
            self.go_on(flow_id)
            if self._tokens is not None:
                self._begun.append(now)
            taken.append(flow_id)
        return taken

    def next_at(self, now: float) -> float | None:
        waiting = self._waiting
        while waiting and self._places.get(waiting[0].flow_id) != waiting[0].number:
            heappop(waiting)
        has_room = self._concurrency is None or len(self._running) < self._concurrency
        return self._token_at(now) if waiting and has_room else None

    def _token_at(self, now: float) -> float:
        """When a token is there."""
        if self._tokens is None:
            return now
        begun = self._begun
        while begun and begun[0] + self._back_seconds <= now:
            begun.popleft()
        return now if len(begun) < self._tokens else begun[0] + self._back_seconds
