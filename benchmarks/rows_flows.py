"""Durable flows against DBOS and dura, side by side, and against what a host must hold to."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from benchmarks.flow_rivals import STEPS, trivial
from benchmarks.ground import BENCH, new_directory, open_file_store, ready_processes
from benchmarks.table import Bound, Row, rate
from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from interpreters.runtime.store import Store
from persist_effects import Effect, flow, log
from persist_effects.flow.conducting import conduct
from persist_effects.flow.defining import Flows
from persist_effects.machine import Suspended

AT_ONCE = 1_000
WAIT_SECONDS = 600.0


def ten_steps() -> Effect[int]:
    """Ten trivial activities, one after the other."""
    total = 0
    for number in range(STEPS):
        total += yield from flow.call(trivial, number)
    return total


def steps_then_wait(count: int) -> Effect[int]:
    """So many steps, and then a signal that does not come."""
    total = 0
    for number in range(count):
        total += yield from flow.call(trivial, number)
    yield from flow.signal("end")
    return total


def month() -> Effect[None]:
    """A flow that sleeps for a month."""
    yield from flow.sleep(30 * 24 * 3600)


class Rival(NamedTuple):
    """A host of ours, and a rival's process, each with a store of its own that lasts for all rounds."""

    count: int
    host: FlowHost
    process: "subprocess.Popen[str]"


def beside(name: str) -> Callable[[int], "contextmanager[Rival]"]:  # type: ignore[type-arg]
    @contextmanager
    def prepare(count: int) -> Iterator[Rival]:
        with new_directory() as directory, open_file_store(directory / "ours") as store:
            (process,) = ready_processes("benchmarks.flow_rivals", [(name, str(directory))])
            try:
                with FlowHost(store, flows=[ten_steps], activities=[trivial]) as host:
                    yield Rival(count, host, process)
            finally:
                process.kill()
                process.communicate()

    return prepare


def ours_in_turn(rival: Rival) -> float:
    host, begun = rival.host, f"{time.monotonic_ns()}"

    def run_each() -> None:
        for number in range(rival.count):
            host.start(ten_steps, f"{begun}-{number}")
            host.result(f"{begun}-{number}", timeout=WAIT_SECONDS)

    return rate(rival.count * STEPS, run_each)


def rival_in_turn(rival: Rival) -> float:
    stdin, stdout = rival.process.stdin, rival.process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(f"{rival.count}\n")
    stdin.flush()
    return float(stdout.readline())


def all_at_once(flows_count: int) -> float:
    with (
        new_directory() as directory,
        open_file_store(directory / "ours") as store,
        FlowHost(store, flows=[ten_steps], activities=[trivial]) as host,
    ):
        run_at_once(host, flows_count, "warm")
        return rate(flows_count * STEPS, lambda: run_at_once(host, flows_count, "timed"))


def run_at_once(host: FlowHost, count: int, name: str) -> None:
    ids = [f"{name}-{number}" for number in range(count)]
    host.start_many(ten_steps, dict.fromkeys(ids, ()))
    for each in ids:
        host.result(each, timeout=WAIT_SECONDS)


class Journal(NamedTuple):
    """A store with one flow that waits, behind so many steps."""

    count: int
    store: Store


@contextmanager
def journal(count: int) -> Iterator[Journal]:
    with open_store("memory:") as store:
        with FlowHost(store, flows=[steps_then_wait], activities=[trivial]) as host:
            host.start(steps_then_wait, "long", count)
            store.run(until_it_waits("long", count))
        yield Journal(count, store)


def until_it_waits(flow_id: str, count: int) -> Effect[None]:
    """Until a flow's journal has its beginning and so many steps."""
    newest = 0
    while (yield from log.last_seq(f"flow/{flow_id}")) <= count:
        newest = yield from log.wait(newest, f"flow/{flow_id}", WAIT_SECONDS)


def replayed(prepared: Journal) -> float:
    """Nanoseconds for each step of a journal, from its first entry to where the flow waits."""
    conductor = conduct("long", Flows([steps_then_wait]), b"another")
    start = time.perf_counter_ns()
    step = prepared.store.start(conductor)
    cost = (time.perf_counter_ns() - start) / prepared.count
    cast(Suspended[object], step).close()
    return cost


@contextmanager
def unfinished(count: int) -> Iterator[tuple[int, Path]]:
    """A file store with so many flows that wait, ten steps behind them, whose host is gone."""
    with new_directory() as directory:
        with (
            open_file_store(directory / "ours", sync="os") as store,
            FlowHost(store, flows=[steps_then_wait], activities=[trivial]) as host,
        ):
            host.start_many(steps_then_wait, {f"f-{number}": (STEPS,) for number in range(count)})
            for number in range(count):
                store.run(until_it_waits(f"f-{number}", STEPS))
        yield count, directory / "ours"


def taken_up(prepared: tuple[int, Path]) -> float:
    """Milliseconds from when a host begins until a flow that is signalled then has ended, beside all the others."""
    _, directory = prepared
    with open_file_store(directory, sync="os") as store:
        start = time.perf_counter()
        with FlowHost(store, flows=[steps_then_wait], activities=[trivial]) as host:
            unended = host.list(state="running", limit=1)[0].flow_id
            host.signal(unended, "end")
            host.result(unended, timeout=WAIT_SECONDS)
            return (time.perf_counter() - start) * 1e3


def child_says(what: str, count: int) -> float:
    """What a process of its own measures."""
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.rows_flows", what, str(count)],
        cwd=BENCH.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(said.stdout)


def memory_of_sleeping(count: int) -> float:
    """MiB that a process takes more, with a file store and a host of so many flows that sleep for a month."""
    with (
        new_directory() as directory,
        open_file_store(directory / "ours", sync="os") as store,
        FlowHost(store, flows=[month]) as host,
    ):
        host.start_many(month, {"first": ()})
        before = resident_mib()
        for first in range(0, count, 10_000):
            host.start_many(month, {f"s-{number}": () for number in range(first, min(first + 10_000, count))})
        store.run(until_all_sleep(count + 1))
        return resident_mib() - before


def until_all_sleep(count: int) -> Effect[None]:
    """Until so many flows have a second entry in their journals, that of their timers."""
    newest = 0
    while True:
        page = yield from log.page_all(after=newest, prefix="flow/", types=("steps",))
        count -= len(page.events)
        newest = page.next
        if count <= 0:
            return
        if page.next >= page.head:
            yield from log.wait(page.head, "flow/", WAIT_SECONDS)


def memory_of_finished(count: int) -> float:
    """MiB that a host takes to begin on a store with so many flows that have ended."""
    with new_directory() as directory:
        with (
            open_file_store(directory / "ours", sync="os") as store,
            FlowHost(store, flows=[ten_steps], activities=[trivial]) as host,
        ):
            for first in range(0, count, 10_000):
                run_at_once(host, min(10_000, count - first), f"{first}")
        with open_file_store(directory / "ours", sync="os") as store:
            store.run(flow.listing(state="running", limit=1))
            before = resident_mib()
            with FlowHost(store, flows=[ten_steps], activities=[trivial]) as host:
                host.start(ten_steps, "another")
                host.result("another", timeout=WAIT_SECONDS)
                return max(0.1, resident_mib() - before)


def resident_mib() -> float:
    """What this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main(what: str, count: str) -> None:
    """Measure in this process, which has done nothing else."""
    print({"sleeping": memory_of_sleeping, "finished": memory_of_finished}[what](int(count)))


def limit(figure: float) -> Callable[[object], float]:
    return lambda _: figure


ROWS: tuple[Row, ...] = (
    Row(
        "flows: 10 steps each, one flow at a time, against DBOS on SQLite",
        "step/s", Bound.AT_LEAST, 8, 50, ours_in_turn, rival_in_turn, beside("dbos"),
    ),
    Row(
        "flows: 10 steps each, one flow at a time, against dura",
        "step/s", Bound.AT_LEAST, 1.2, 100, ours_in_turn, rival_in_turn, beside("dura"),
    ),
    Row(
        "flows: 10 steps each, 1,000 flows at once, with full sync",
        "step/s", Bound.AT_LEAST, 1, AT_ONCE, all_at_once, limit(30_000),
    ),
    Row(
        "flows: a journal is replayed, each step",
        "ns", Bound.AT_MOST, 1, 2_000, replayed, limit(3_000), journal,
    ),
    Row(
        "flows: a host begins among 1,000 unfinished flows, until one goes on and ends",
        "ms", Bound.AT_MOST, 1, AT_ONCE, taken_up, limit(50), unfinished,
    ),
    Row(
        "flows: 100,000 flows sleep",
        "MiB", Bound.AT_MOST, 1, 100_000, lambda count: child_says("sleeping", count), limit(200), rounds=1,
    ),
    Row(
        "flows: a host begins among 20,000 flows that have ended",
        "MiB", Bound.AT_MOST, 1, 20_000, lambda count: child_says("finished", count), limit(10), rounds=1,
    ),
)  # fmt: skip

if __name__ == "__main__":
    main(*sys.argv[1:])
