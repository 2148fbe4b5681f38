"""`python -m benchmarks.sizing_model`: what a store would cost that is far larger than those which were measured.

Each cost is taken to be a line: something fixed, something for each event, and something more for each stream. The
lines go through the two largest sizes that were measured (``sizing_measured.json``), so that the smallest is left to
try them on. A partition is a store of its own, on a machine or a cluster of its own, with an equal share of the events
and of the streams.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.sizing import OF_SIZES, Measured, as_count, kept

MEASURED = Path(__file__).with_name("sizing_measured.json")
"""What was measured, a line for each store and size."""

EVENTS, STREAMS = 10**9, 10**7
STORES = ("file:", "postgresql:", "nats: on one")
PARTITIONS = (1, 10, 100)
"""What is asked of the model unless it is told otherwise."""

FIGURES = (
    "disk_bytes", "process_bytes", "restarted_server_bytes", "open_seconds", "first_list_seconds", "recovery_seconds",
    "all_seconds",
)  # fmt: skip
"""What grows with what a store has. The others do not, or by a logarithm: they stay as they were measured.

Of a server's memory it is what one takes that was started again: one that was just filled has not given back yet what
it needed for that.
"""

HEADINGS = {"restarted_server_bytes": "memory of a server"}
"""What a figure is called here, where that is not what it is called among those that were measured."""

FORGOTTEN = {("nats: on one", "restarted_server_bytes"), ("nats: on three", "restarted_server_bytes")}
"""What seems to grow with the events, and does not stay: blocks that were read, and identifiers of the last writes."""


BOUNDED = {
    # Its processes have no names but those of a page.
    "served file:": {"process_bytes", "open_seconds"},
    "sqlite:": {"process_bytes"},
    # Nor here; what the server has in memory is its settings' (``shared_buffers``), and it recovers what was written
    # since its last checkpoint, and lists by an index.
    "postgresql:": {
        "open_seconds",
        "process_bytes",
        "restarted_server_bytes",
        "recovery_seconds",
        "first_list_seconds",
    },
    # Opening looks at the settings of the stream, and at nothing that is in it.
    "nats: on one": {"open_seconds"},
    "nats: on three": {"open_seconds"},
}
"""What of a store does not grow with what it has, though it does among small ones: the largest figure counts."""


class Line(NamedTuple):
    """A cost that grows with a number of things.

    >>> Line(10.0, 2.0).at(5)
    20.0
    """

    fixed: float
    each: float

    def at(self, size: int) -> float:
        """The cost at a size."""
        return self.fixed + self.each * size


class Cost(NamedTuple):
    """A cost of a store: what is fixed, what comes for each event, and what more for each stream."""

    fixed: float
    each_event: float
    each_stream: float

    def at(self, events: int, streams: int) -> float:
        """The cost of a store that has so many.

        >>> Cost(1.0, 0.5, 2.0).at(events=10, streams=4)
        14.0
        """
        return self.fixed + self.each_event * events + self.each_stream * streams


def line_through(points: Iterable[tuple[int, float]]) -> Line:
    """The line through the two largest of some sizes, with their figures. It falls nowhere, and begins nowhere below 0.

    >>> line_through([(1, 99.0), (10, 30.0), (100, 210.0)])
    Line(fixed=10.0, each=2.0)
    """
    (size, figure), (larger, dearer) = sorted(points)[-2:]
    each = max(0.0, (dearer - figure) / (larger - size))
    fixed = dearer - each * larger
    return Line(fixed, each) if fixed >= 0 else Line(0.0, dearer / larger)


def line_of(records: Iterable[Measured], store: str, curve: str, figure: str) -> Line | None:
    """The line of a figure by one curve; None where it was not measured."""
    points = [
        (record.size, record.figures[figure])
        for record in records
        if (record.store, record.curve) == (store, curve) and figure in record.figures
    ]
    if len(points) < 2:
        return None
    if figure in BOUNDED.get(store, ()):
        return Line(max(dearest for _, dearest in points), 0.0)
    return line_through(points)


def cost_of(records: Sequence[Measured], store: str, figure: str) -> Cost | None:
    """A cost of a store, as a figure of its records tells it; None where it was not measured."""
    by_event, by_stream = (line_of(records, store, curve, figure) for curve in ("events", "streams"))
    if by_event is None or by_stream is None:
        return None
    if figure == "all_seconds":
        # Of streams it is their names that are read, which is another question.
        return Cost(by_event.fixed, by_event.each, 0.0)
    # Each of those streams has an event.
    each_stream = max(0.0, by_stream.each - by_event.each)
    each_event = 0.0 if (store, figure) in FORGOTTEN else by_event.each
    return Cost(max(by_event.fixed, by_stream.fixed), each_event, each_stream)


def predicted(
    records: Sequence[Measured], store: str, events: int, streams: int, partitions: int = 1
) -> dict[str, float]:
    """What each of the partitions of a store costs, by the names of the figures."""
    costs = ((figure, cost_of(records, store, figure)) for figure in FIGURES)
    share = events // partitions, streams // partitions
    return {figure: cost.at(*share) for figure, cost in costs if cost is not None}


def as_table(
    records: Sequence[Measured], stores: Iterable[str], events: int, streams: int, partitions: Iterable[int]
) -> list[str]:
    """The lines of a table in Markdown: for each store, and each number of partitions, what one of them costs."""
    columns = [column for column in OF_SIZES if column.figure in FIGURES]
    head = ["store", "partitions", *(HEADINGS.get(column.figure, column.heading) for column in columns)]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for store in stores:
        for count in partitions:
            found = predicted(records, store, events, streams, count)
            cells = [column.written(found[column.figure]) if column.figure in found else "" for column in columns]
            name = f"`{store}`" if store.endswith(":") else store
            lines.append(f"| {' | '.join([name, str(count), *cells])} |".replace("  ", " "))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the model says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing_model", description="What large stores cost.")
    parser.add_argument("--events", type=float, default=EVENTS, metavar="N", help="how many events there are")
    parser.add_argument("--streams", type=float, default=STREAMS, metavar="N", help="in how many streams")
    parser.add_argument("--partitions", type=int, action="append", default=[], metavar="N", help="on how many stores")
    parser.add_argument("--store", action="append", default=[], metavar="KIND", help="a kind of store")
    parser.add_argument("--measured", type=Path, default=MEASURED, metavar="FILE", help="what was measured")
    options = parser.parse_args(arguments)
    events, streams = int(options.events), int(options.streams)
    print(f"{as_count(events)} events in {as_count(streams)} streams; what one partition costs:\n")
    table = as_table(kept(options.measured), options.store or STORES, events, streams, options.partitions or PARTITIONS)
    print("\n".join(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
