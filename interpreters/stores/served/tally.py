"""What a server counts, for its operators."""

from bisect import bisect_left

BOUNDS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""The upper bounds of the classes in which the times of answers are counted."""


class Latencies:
    """How long the answers to one kind of request took.

    >>> latencies = Latencies()
    >>> latencies.note(0.0003)
    >>> latencies.counts[:3], latencies.count
    ([0, 0, 1], 1)
    """

    __slots__ = ("count", "counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.count = 0
        self.seconds = 0.0

    def note(self, seconds: float) -> None:
        """Count one answer."""
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.count += 1
        self.seconds += seconds


class Tally:
    """The counts of one server. Its loop alone changes them, but for the commits, which the thread that commits counts.

    >>> tally = Tally()
    >>> tally.note("persist/kv-get", 0.001, is_error=False)
    >>> tally.request_count, tally.errors
    (1, {})
    """

    def __init__(self) -> None:
        self.latencies: dict[str, Latencies] = {}
        """By the request's op. Those of waits say nothing, so they are only counted."""
        self.waited: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.received_bytes = self.sent_bytes = 0
        self.connection_count = self.dropped = 0
        self.commit_count = self.committed_count = 0
        """How often the store was given writes together, and how many."""
        self.waits = 0
        """How many go on now."""

    @property
    def request_count(self) -> int:
        """How many requests were answered."""
        return sum(one.count for one in [*self.latencies.values()]) + sum([*self.waited.values()])

    def note(self, op: str, seconds: float | None, *, is_error: bool) -> None:
        """Count a request that was answered.

        Args:
            op: What it asked.
            seconds: How long that took; None for one that waited.
            is_error: Whether the answer is an error.
        """
        if seconds is None:
            self.waited[op] = self.waited.get(op, 0) + 1
        else:
            found = self.latencies.get(op)
            if found is None:
                found = self.latencies[op] = Latencies()
            found.note(seconds)
        if is_error:
            self.errors[op] = self.errors.get(op, 0) + 1
