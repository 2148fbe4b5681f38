"""What became of the flows of one host, told to those of its process that wait for it, without asking the store."""

from interpreters.threads.gates import Gate
from persist_effects.flow.journal import FlowEnded


class EndOfFlow:
    """What becomes of a flow that this host holds. Threads wait for it, and the one that leads the flows tells it."""

    __slots__ = ("_told", "ended")

    def __init__(self) -> None:
        self._told = Gate()
        self.ended: FlowEnded | None = None
        """How it has ended; None: it goes on, here or elsewhere, as the store knows."""

    def tell(self, ended: FlowEnded | None) -> None:
        """Let go on who waits.

        Args:
            ended: How it has ended; None: this host does not hold it any more.
        """
        self.ended = ended
        self._told.open()

    def wait(self, seconds: float) -> bool:
        """Wait until it is told. Whether it was.

        Args:
            seconds: For how long at the most.
        """
        return self._told.wait(seconds)


class Ends:
    """The flows that a host holds, and those that it is about to take up, since it has just begun them.

    >>> ends = Ends()
    >>> ends.expect("o-1")
    >>> end = ends.of("o-1")
    >>> end.wait(0)
    False
    >>> ends.tell("o-1", None)
    >>> end.wait(60), end.ended, ends.of("o-1")
    (True, None, None)
    """

    def __init__(self) -> None:
        self._ends: dict[str, EndOfFlow] = {}

    def expect(self, flow_id: str) -> None:
        """Before the thread that leads hears of a flow which it is to hold. Whatever comes of that, it is told."""
        self._ends[flow_id] = EndOfFlow()

    def of(self, flow_id: str) -> EndOfFlow | None:
        """What becomes of a flow; None where the store is to be asked."""
        return self._ends.get(flow_id)

    def tell(self, flow_id: str, ended: FlowEnded | None) -> None:
        """Say that a flow has ended, or that it is no longer held."""
        end = self._ends.pop(flow_id, None)
        if end is not None:
            end.tell(ended)

    def tell_all(self) -> None:
        """Say that none is held any more."""
        for flow_id in list(self._ends):
            self.tell(flow_id, None)
