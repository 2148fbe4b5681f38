"""One table of ratios: rows, the interleaved rounds that measure them, and the verdicts.

A ratio of two figures that were measured in turns, in one process, says the same on a fast machine and a slow one.
To add a row, write a `Row` into the tuple ``ROWS`` of one of the modules that ``benchmarks/__main__.py`` lists.
"""

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from statistics import median
from typing import Any, NamedTuple

from rich import box
from rich.table import Table


class Bound(Enum):
    """On which side of its limit a row's ratio must be."""

    AT_MOST = "at most"
    AT_LEAST = "at least"


class Row(NamedTuple):
    """Some work, done by us and by a peer. Each of the two does it ``operations`` times and returns its figure.

    Both figures are in ``unit``: a cost, which must be ``AT_MOST`` so many times the peer's, or a rate, which must
    be ``AT_LEAST`` that; where ``must`` is None, the row is only reported. Where the peer is a fixed limit, it returns
    that. ``prepare(operations)`` opens, untimed and once for all rounds, what both sides are given; unless a row has
    one, they are given the number of operations.
    """

    name: str
    unit: str
    bound: Bound
    must: float | None
    operations: int
    ours: Callable[[Any], float]
    peer: Callable[[Any], float]
    prepare: Callable[[int], AbstractContextManager[Any]] = nullcontext
    rounds: int = 7


class Result(NamedTuple):
    """What the rounds of a row came to: one figure of ours and one of the peer's for each round."""

    row: Row
    ours: Sequence[float]
    peer: Sequence[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios, so that a slow spell of the machine weighs on both sides of a ratio."""
        return median(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))

    @property
    def is_reached(self) -> bool:
        """Whether the ratio is on the right side of what the row must reach, or just there."""
        if self.row.must is None:
            return True
        return self.ratio <= self.row.must if self.row.bound is Bound.AT_MOST else self.ratio >= self.row.must


def measure(row: Row, on_round: Callable[[], None] = lambda: None) -> Result:
    """Measure a row: in each round ours, then the peer. ``on_round`` is called after each round."""
    ours: list[float] = []
    peer: list[float] = []
    with row.prepare(row.operations) as prepared:
        for _ in range(row.rounds):
            for side, figures in ((row.ours, ours), (row.peer, peer)):
                gc.collect()
                figures.append(side(prepared))
            on_round()
    return Result(row, ours, peer)


def selected(rows: Iterable[Row], only: str = "") -> list[Row]:
    """The rows whose names hold this text, whatever its case."""
    return [row for row in rows if only.lower() in row.name.lower()]


def rate(operations: int, work: Callable[[], object]) -> float:
    """Do the work, which is so many operations, and return how many a second that is."""
    return operations / seconds(work)


def cost_ns(operations: int, work: Callable[[], object]) -> float:
    """Do the work, which is so many operations, and return how many nanoseconds each took."""
    return seconds(work) / operations * 1e9


def seconds(work: Callable[[], object]) -> float:
    """Do the work, and return how many seconds it took."""
    start = time.perf_counter_ns()
    work()
    return max(1, time.perf_counter_ns() - start) / 1e9


# Showing


def as_table(results: Iterable[Result]) -> Table:
    """The results as a table for people."""
    table = Table(box=box.SIMPLE, caption="each figure is the median of its rounds, each ratio the median of theirs")
    table.add_column("work")
    for heading in ("ours", "peer or limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("ratio", justify="right")
    table.add_column("must reach", justify="right", no_wrap=True)
    table.add_column("verdict")
    for result in results:
        row = result.row
        table.add_row(
            row.name,
            f"{_figure(median(result.ours))} {row.unit}",
            f"{_figure(median(result.peer))} {row.unit}",
            f"{result.ratio:.2f}",
            "" if row.must is None else f"{row.bound.value} {row.must:g}",
            _verdict(result),
        )
    return table


def as_record(result: Result) -> dict[str, Any]:
    """A result for machines, with the figures of all rounds."""
    row = result.row
    return {
        "work": row.name,
        "unit": row.unit,
        "operations": row.operations,
        "ours": median(result.ours),
        "peer": median(result.peer),
        "ratio": result.ratio,
        "bound": row.bound.value,
        "must": row.must,
        "is_reached": result.is_reached,
        "rounds": {"ours": list(result.ours), "peer": list(result.peer)},
    }


def _verdict(result: Result) -> str:
    if result.row.must is None:
        return "reported"
    return "[green]reached[/]" if result.is_reached else "[bold red]falls short[/]"


def _figure(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"
