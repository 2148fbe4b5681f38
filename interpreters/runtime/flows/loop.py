"""Many flows in one thread: what their conductors ask of the store is answered together, and they are woken in turn."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from persist_effects.flow.conducting import Finished
from persist_effects.flow.journal import BegunFlow, OpenFlow
from persist_effects.flow.requests import Await, Came, Started
from persist_effects.machine import Effect, next_request
from persist_effects.requests import Answered, Outcome, Request
from persist_effects.spinning import give_up


class Shell(Protocol):
    """What begins what flows ask for outside, and is told what became of them."""

    def begin(self, held: "Held", asked: Await) -> None:
        """Begin the calls and the timers of a flow. What comes of them is delivered later."""
        ...

    def left(self, flow_id: str, end: Finished | Exception) -> None:
        """A flow is no longer held: it has ended, was set aside, or its conductor has raised something."""
        ...


class Held:
    """A flow that was taken up: its conductor, and what came of what it waits for."""

    __slots__ = ("arrivals", "asked", "calls", "flow_id", "is_parked", "program")

    def __init__(self, flow_id: str, program: Effect[Finished]) -> None:
        self.flow_id = flow_id
        self.program = program
        self.arrivals: list[Came] = []
        self.is_parked = False
        self.calls: dict[tuple[int, ...], tuple[Started, int]] = {}
        """The calls that are under way, by their paths, and which try of each counts."""
        self.asked: dict[tuple[int, ...], int] = {}
        """The paths of the timers that it waits for, and when each is due."""


class FlowLoop:
    """Holds flows, and lets each go on whenever something came for it.

    Args:
        make: Makes the conductor of a flow.
        ask: Answers several requests of a store together.
        shell: What begins things outside.
    """

    def __init__(
        self,
        make: Callable[[str, BegunFlow | OpenFlow | None], Effect[Finished]],
        ask: Callable[[Sequence[Request[Any]]], Sequence[Outcome]],
        shell: Shell,
    ) -> None:
        self._make = make
        self._ask = ask
        self._shell = shell
        self.held: dict[str, Held] = {}
        # Those that wait for the store, each with what it asks; and those for which something came.
        self._asking: list[tuple[Held, Request[Any]]] = []
        self._woken: list[Held] = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing can be done before something comes."""
        return not self._asking and not self._woken

    @property
    def active(self) -> int:
        """How many flows are not waiting for something outside."""
        return len(self._asking) + len(self._woken)

    def take_up(self, flow_id: str, known: BegunFlow | OpenFlow | None = None) -> None:
        """Begin to hold a flow, unless it is held.

        Args:
            flow_id: The flow.
            known: What was begun, or read of it, a moment ago, so that it need not be read.
        """
        if flow_id not in self.held:
            held = self.held[flow_id] = Held(flow_id, self._make(flow_id, known))
            self._go_on(held, held.program.send, None)

    def deliver(self, flow_id: str, came: Came) -> bool:
        """Let a flow have what came for it.

        Args:
            flow_id: The flow.
            came: What came.

        Returns:
            Whether it is held.
        """
        held = self.held.get(flow_id)
        if held is None:
            return False
        self.arrived(held, came)
        return True

    def arrived(self, held: Held, came: Came) -> None:
        """Let a flow that is held have what came for it.

        Args:
            held: The flow.
            came: What came.
        """
        held.arrivals.append(came)
        if held.is_parked:
            held.is_parked = False
            self._woken.append(held)

    def turn(self) -> None:
        """Let those go on for which something came, and answer once what all ask of the store."""
        woken, self._woken = self._woken, []
        for held in woken:
            arrivals, held.arrivals = held.arrivals, []
            self._go_on(held, held.program.send, arrivals)
        asking, self._asking = self._asking, []
        if not asking:
            return
        outcomes = self._ask([request for _, request in asking])
        for (held, _), outcome in zip(asking, outcomes, strict=True):
            if isinstance(outcome, Answered):
                self._go_on(held, held.program.send, outcome.value)
            else:
                self._go_on(held, held.program.throw, outcome.error)

    def let_go(self, flow_id: str) -> None:
        """Hold a flow no longer, as if its process were gone. It may be taken up again.

        Args:
            flow_id: The flow.
        """
        held = self.held.pop(flow_id, None)
        if held is not None:
            held.calls.clear()
            give_up(held.program)
            self._asking = [each for each in self._asking if each[0] is not held]
            self._woken = [each for each in self._woken if each is not held]

    def close(self) -> None:
        """Hold none any more."""
        held, self.held = self.held, {}
        self._asking, self._woken = [], []
        for each in held.values():
            each.calls.clear()
            give_up(each.program)

    def _go_on(self, held: Held, go_on: Callable[[Any], Any], value: Any) -> None:
        if self.held.get(held.flow_id) is not held:
            return
        try:
            request = go_on(value)
            if not isinstance(request, Request):
                request = next_request(held.program, request)
        except StopIteration as end:
            del self.held[held.flow_id]
            self._shell.left(held.flow_id, end.value)
        except Exception as error:
            del self.held[held.flow_id]
            self._shell.left(held.flow_id, error)
        else:
            if type(request) is Await:
                self._park(held, request)
            else:
                self._asking.append((held, request))

    def _park(self, held: Held, asked: Await) -> None:
        for path in asked.withdrawn:
            held.calls.pop(path, None)
            held.asked.pop(path, None)
        if asked.withdrawn:
            held.arrivals = [came for came in held.arrivals if came.path not in asked.withdrawn]
        for timer in asked.timers:
            held.asked[timer.path] = timer.due
        held.is_parked = True
        self._shell.begin(held, asked)
        if held.arrivals and held.is_parked:
            held.is_parked = False
            self._woken.append(held)
