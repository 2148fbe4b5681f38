"""`python -m benchmarks.sizing`: how what a store costs grows with what it has: the tables of docs/concepts/sizing.md.

Each store is made anew, filled up to a size, looked at from outside, opened by a fresh process which asks it, and
killed. What was measured can be kept in a file (``--keep FILE``), from which it is not measured again; ``--keep FILE
--show`` prints the tables of what the file has, and measures nothing.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby, islice
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.built_stores import fill
from benchmarks.ground import BENCH
from benchmarks.sizing_places import KINDS, Ground, ground_of, patiently_opened
from benchmarks.sizing_process import Asked, writes
from benchmarks.table import seconds
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from persist_effects import log, transact
from persist_effects.requests import Append, KvPut

NAMES = (100, 1_000, 10_000, 100_000)
SIZES = {"events": (*NAMES[1:], 1_000_000), "streams": NAMES, "keys": NAMES, "followers": (1, 10, 100)}
"""What may be measured of each curve: of a store the three largest that are not too large for it."""
CURVES = tuple(SIZES)

LARGEST = {"served file:": 100_000}
"""How many events there are at the most in the stores that take long to fill."""

ROUNDS = 3
"""How many fresh processes look at a store; a figure is the median of theirs. A very large one is looked at once."""

LOOKED_AT_ONCE = 1_000_000

IN_A_TRANSACTION = 100
"""How many writes are one transaction, where a store is filled by those."""

WAKINGS = 15
"""How often followers are woken; the figure is the median."""

SETTLE_SECONDS = 0.3
"""How long followers have to fall asleep before they are woken."""


class Measured(msgspec.Struct, frozen=True):
    """What a store of one kind costs at one size.

    Args:
        store: The kind, or the URL that was given.
        curve: What there are so many of: events, streams, keys or followers.
        size: How many.
        figures: What was measured, by its name, which ends in its unit.
    """

    store: str
    curve: str
    size: int
    figures: dict[str, float]


# Measuring


def measured(store: str, curve: str, size: int, rounds: int = ROUNDS) -> Measured:
    """Measure a store of a kind at a size, on servers of its own."""
    with ground_of(store) as ground:
        if curve == "followers":
            return Measured(store, curve, size, followed(ground, size))
        return Measured(store, curve, size, looked_at(ground, curve, size, rounds))


def looked_at(ground: Ground, curve: str, size: int, rounds: int) -> dict[str, float]:
    """The figures of a store that has so many events, streams or keys."""
    url = ground.new_url()
    figures: dict[str, float] = {}
    disk_bytes_before = ground.disk_bytes(url)
    if not ground.is_within_its_process:
        with patiently_opened(f"{url}{ground.fills_quickly}") as store:
            figures["filled_per_second"] = filled_per_second(store, writes(curve, size), size, ground.fills_singly)
            store.run(log.append("own", "placed", None))
        disk_bytes = ground.disk_bytes(url)
        if disk_bytes is not None and disk_bytes_before is not None:
            figures["disk_bytes"] = disk_bytes - disk_bytes_before
        figures |= _known(server_bytes=ground.server_bytes())
    asked = Asked(url, "", curve, size, ground.is_within_its_process)
    figures |= _of_fresh_processes(ground, asked, 1 if size >= LOOKED_AT_ONCE else rounds)
    if not ground.is_within_its_process:
        figures |= _known(recovery_seconds=ground.recovery_seconds(url, "own"))
        figures |= _known(restarted_server_bytes=ground.server_bytes())
    return figures


def filled_per_second(store: Store, wanted: Iterator[Append | KvPut], size: int, singly: int | None) -> float:
    """Make the writes, and return how many a second that was while each was by itself: the first so many, or all."""
    count = size if singly is None else min(size, singly)
    rate = count / seconds(lambda: fill(store, islice(wanted, count)))
    while some := list(islice(wanted, 10 * IN_A_TRANSACTION)):
        parts = range(0, len(some), IN_A_TRANSACTION)
        store.run_many(transact(*some[start : start + IN_A_TRANSACTION]) for start in parts)
    return rate


def _known(**figures: float | None) -> dict[str, float]:
    return {name: figure for name, figure in figures.items() if figure is not None}


def _of_fresh_processes(ground: Ground, asked: Asked, rounds: int) -> dict[str, float]:
    found = [_of_a_fresh_process(msgspec.structs.replace(asked, empty_url=ground.empty_url())) for _ in range(rounds)]
    return {name: median(figures[name] for figures in found) for name in found[0]}


def _of_a_fresh_process(asked: Asked) -> dict[str, float]:
    # Told by a line, and not by arguments: the processes of a server are found by what their arguments say.
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.sizing_process"],
        input=msgspec.json.encode(asked) + b"\n",
        cwd=BENCH.parent.parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    return msgspec.json.decode(child.stdout, type=dict[str, float])


def followed(ground: Ground, count: int) -> dict[str, float]:
    """How long it takes from the beginning of an append until the last of so many followers is told of it."""
    figures: dict[str, float] = {}
    url = ground.new_url()
    with patiently_opened(url) as store:
        figures["shared_wake_ms"] = woken_ms(store, [store] * count)
    if ground.serves_many:
        with ExitStack() as stack:
            own = [stack.enter_context(open_store(url)) for _ in range(count)]
            with open_store(url) as store:
                figures["own_wake_ms"] = woken_ms(store, own)
                figures |= _known(server_bytes=ground.server_bytes())
    return figures


def woken_ms(store: Store, followers: Sequence[Store]) -> float:
    """The median of some times, each from the beginning of an append until the last follower is told."""

    async def follow(follower: Store, after: int) -> float:
        assert await follower.arun(log.wait(after, timeout=60)) > after
        return time.perf_counter()

    async def wake(number: int) -> float:
        after = await store.arun(log.head())
        waiting = [asyncio.ensure_future(follow(follower, after)) for follower in followers]
        await asyncio.sleep(SETTLE_SECONDS + 0.01 * len(followers))
        begun = time.perf_counter()
        await store.arun(log.append("orders/1", "placed", number))
        return max(await asyncio.gather(*waiting)) - begun

    async def wake_all() -> list[float]:
        return [await wake(number) for number in range(WAKINGS)]

    return median(asyncio.run(wake_all())) * 1e3


# Showing


class Column(msgspec.Struct, frozen=True):
    """A column of a table: what it is headed by, the figure that it shows, and how that is written."""

    heading: str
    figure: str
    written: Callable[[float], str]


def as_bytes(number: float) -> str:
    """A number of bytes, by the largest unit of which there is one.

    >>> as_bytes(1_234), as_bytes(12_345_678), as_bytes(4e12)
    ('1.2 kB', '12 MB', '4.0 TB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{_figure(number / size)} {unit}"
    return f"{number:.0f} bytes"


def as_seconds(number: float) -> str:
    """A time, by a unit in which it can be read.

    >>> as_seconds(0.000_25), as_seconds(2.5), as_seconds(600), as_seconds(90_000)
    ('0.25 ms', '2.5 s', '10 min', '25 h')
    """
    for unit, size in (("h", 3_600), ("min", 60), ("s", 1)):
        if number >= (1 if size == 1 else 2 * size):
            return f"{_figure(number / size)} {unit}"
    return f"{_figure(number * 1e3)} ms"


def as_ms(number: float) -> str:
    """A time in milliseconds, likewise."""
    return as_seconds(number / 1e3)


def as_count(number: float) -> str:
    """A number of things, in thousands where there are many.

    >>> as_count(12_345), as_count(1_000_000)
    ('12,000', '1,000,000')
    """
    digits = max(0, len(f"{number:.0f}") - 2)
    return f"{round(number, -digits):,.0f}"


def _figure(number: float) -> str:
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 0.995 else f"{number:.2g}"


OF_SIZES = (
    Column("filled, a second", "filled_per_second", as_count),
    Column("on the disk", "disk_bytes", as_bytes),
    Column("memory of a process", "process_bytes", as_bytes),
    Column("memory of a server", "server_bytes", as_bytes),
    Column("once started again", "restarted_server_bytes", as_bytes),
    Column("opened", "open_seconds", as_seconds),
    Column("first list", "first_list_seconds", as_seconds),
    Column("after a kill", "recovery_seconds", as_seconds),
    Column("write", "write_ms", as_ms),
    Column("read one", "read_ms", as_ms),
    Column("page of 100", "page_ms", as_ms),
    Column("list of 10", "list_ms", as_ms),
    Column("all of it", "all_seconds", as_seconds),
)
COLUMNS = {
    **dict.fromkeys(("events", "streams", "keys"), OF_SIZES),
    "followers": (
        Column("woken, sharing one open store", "shared_wake_ms", as_ms),
        Column("woken, each with its own", "own_wake_ms", as_ms),
        Column("memory of a server", "server_bytes", as_bytes),
    ),
}


def as_tables(records: Iterable[Measured]) -> Iterator[tuple[str, list[str]]]:
    """A table for each curve, in Markdown: the curve, and the table's lines."""
    order = [*KINDS]

    def place(record: Measured) -> tuple[int, int, str, int]:
        known = order.index(record.store) if record.store in order else len(order)
        return CURVES.index(record.curve), known, record.store, record.size

    for curve, some in groupby(sorted(records, key=place), key=lambda record: record.curve):
        rows = list(some)
        columns = [column for column in COLUMNS[curve] if any(column.figure in row.figures for row in rows)]
        head = ["store", curve, *(column.heading for column in columns)]
        yield curve, [_line(head), "|---|" + "--:|" * (len(head) - 1), *(_line(_cells(row, columns)) for row in rows)]


def _cells(row: Measured, columns: Iterable[Column]) -> list[str]:
    shown = (column.written(row.figures[column.figure]) if column.figure in row.figures else "" for column in columns)
    return [f"`{row.store}`" if row.store.endswith(":") else row.store, f"{row.size:,}", *shown]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("  ", " ")


# The command


def kept(path: Path) -> list[Measured]:
    """What a file has of what was measured before."""
    return msgspec.json.decode(path.read_bytes(), type=list[Measured]) if path.exists() else []


def keep(path: Path, records: Iterable[Measured]) -> None:
    """Write what was measured to a file, a line for each."""
    lines = ",\n".join(msgspec.json.encode(record).decode() for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def wanted_points(stores: Iterable[str], curves: Iterable[str], largest: int) -> Iterator[tuple[str, str, int]]:
    """What is to be measured: each store, by each curve, at each of its sizes."""
    for store in stores:
        for curve in curves:
            limit = min(largest, LARGEST.get(store, largest))
            for size in [size for size in SIZES[curve] if size <= limit][-3:]:
                yield store, curve, size


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments select, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description="How the costs of stores grow.")
    parser.add_argument(
        "--store", action="append", metavar="URL", default=[],
        help=f"a kind ({', '.join(KINDS)}), or the URL of new stores with {{}} for their names; all kinds unless given",
    )  # fmt: skip
    parser.add_argument("--curve", action="append", choices=CURVES, default=[], help="all of them unless given")
    parser.add_argument("--largest", type=int, default=1_000_000, metavar="N", help="the largest size")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="how many processes look at each store")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where what was measured is kept")
    parser.add_argument("--show", action="store_true", help="measure nothing: print what the file has")
    options = parser.parse_args(arguments)
    records = kept(options.keep) if options.keep else []
    known = {(record.store, record.curve, record.size) for record in records}
    points = () if options.show else wanted_points(options.store or KINDS, options.curve or CURVES, options.largest)
    for point in points:
        if point not in known:
            print(*point, file=sys.stderr, flush=True)
            records.append(measured(*point, rounds=options.rounds))
            if options.keep:
                keep(options.keep, records)
    for _, lines in as_tables(records):
        print("\n".join(["", *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
