"""`python -m benchmarks.side_by_side`: what each store costs against `file:`, for docs/how-to/choosing-a-store.md.

All stores are asked in turns, round after round, so that a slow spell of the machine is one for all of them. A figure
is the median of its rounds' ratios, by one digit: more of it would be noise.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks.built_stores import fill
from benchmarks.sizing_places import KINDS, ground_of, patiently_opened
from benchmarks.sizing_process import median_ms, questions, writes
from interpreters.runtime.store import Store

AGAINST = "file:"

HEADINGS = {
    "write_ms": "a write costs",
    "read_ms": "reading an event costs",
    "page_ms": "a page of 100 costs",
    "list_ms": "10 names cost",
}

Costs = dict[str, dict[str, list[float]]]
"""What was measured: for each question, and each store, a figure of each round."""


def measured(events: int, rounds: int, times: int) -> Costs:
    """Ask new stores of all kinds, which have so many events, each question so many times in each round."""
    with ExitStack() as stack:
        stores: dict[str, Store] = {}
        for kind in KINDS:
            ground = stack.enter_context(ground_of(kind))
            stores[kind] = stack.enter_context(patiently_opened(ground.new_url()))
            fill(stores[kind], writes("events", events))
            stores[kind].wait_for_order()
        costs: Costs = {name: {kind: [] for kind in KINDS} for name in HEADINGS}
        for _ in range(rounds):
            for kind, store in stores.items():
                for name, ask in questions(store, "events", events).items():
                    costs[name][kind].append(median_ms(ask, times))
        return costs


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios.

    >>> ratio([2.0, 9.0, 2.0], [1.0, 3.0, 1.0])
    2.0
    """
    return median(our / their for our, their in zip(ours, theirs, strict=True))


def as_digit(number: float) -> str:
    """A number by its first digit.

    >>> as_digit(0.0249), as_digit(1.4), as_digit(37.0), as_digit(1_890.0)
    ('0.02', '1', '40', '2,000')
    """
    return f"{float(f'{number:.0e}'):,g}"


def as_row(name: str, costs: Mapping[str, Sequence[float]]) -> str:
    """A row in Markdown: the question, and the cost of each store in the order of the kinds."""
    cells = [as_digit(ratio(costs[kind], costs[AGAINST])) for kind in costs]
    typical = f"{median(costs[AGAINST]):.2g} ms"
    return f"| {HEADINGS[name]}, against {typical} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description="What stores cost.")
    parser.add_argument("--events", type=int, default=5_000, metavar="N", help="how many events each store has")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="how often each store has its turn")
    parser.add_argument("--times", type=int, default=30, metavar="N", help="how often it is asked the same in a turn")
    options = parser.parse_args(arguments)
    costs = measured(options.events, options.rounds, options.times)
    print(f"| | {' | '.join(KINDS)} |")
    for name, by_kind in costs.items():
        print(as_row(name, by_kind))
    return 0


if __name__ == "__main__":
    sys.exit(main())
