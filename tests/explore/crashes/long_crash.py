"""`make crash`: explore the crashes of workload after workload, each drawn by its seed, for as long as there is time.

It goes on where it stopped, by Ctrl-C too: the next seed and the counts so far are in ``var/crash.json``. Where a
failure is found it is printed in full, with the seed, and the exit code is 1. ``CRASH_SECONDS`` (600) is the time,
``CRASH_SEED`` explores that one seed alone, and shows all of its report.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from interpreters.disk.crashing import FAULTS, PROFILES
from interpreters.explore import Compact, Mark, Reopen, Report, explore_crashes
from persist_effects import Draft, PersistError
from persist_effects.machine import Effect, perform
from persist_effects.requests import Append, KvDelete, KvPut, Request, Transact, TruncateThrough

PLACE = Path(__file__).parents[3] / "var" / "crash.json"
COUNTS = ("workloads", "enumerated", "equal", "checked", "exhaustive")


# Workloads


class Drawn(NamedTuple):
    """A workload, and how it is explored."""

    programs: list[Callable[[], Effect[None]]]
    options: dict[str, Any]

    def __str__(self) -> str:
        programs = f"{len(self.programs)} program{'s' if len(self.programs) > 1 else ''}"
        options = self.options
        faults = "".join(f", {fault}" for fault in options["faults"])
        return f"{programs}, {options['profile']}, depth {options['depth']}, {options['segment_bytes']} bytes{faults}"


def drawn(seed: int) -> Drawn:
    """The workload of a seed. It does not depend on anything else."""
    random = Random(f"{seed} crashes")
    count = random.choice([1, 1, 2, 3])
    lengths = [random.randrange(2, 9) // count + 1 for _ in range(count)]
    programs = [program(Random(f"{seed} program {number}"), number, lengths[number]) for number in range(count)]
    is_deep = seed % 4 == 3
    options = {
        "profile": PROFILES[seed % len(PROFILES)],
        "depth": 2 if is_deep else 1,
        "segment_bytes": random.choice([700, 1000, 4096]),
        "faults": () if is_deep else tuple(random.sample(sorted(FAULTS), random.choice([0, 1, 2]))),
        "seed": seed,
        "limit": 20_000 if is_deep else None,
    }
    return Drawn(programs, options)


def program(random: Random, number: int, length: int) -> Callable[[], Effect[None]]:
    """A program of so many requests, of which none is refused."""
    draw = Draw(random, number)
    requests = [draw.request() for _ in range(length)]
    if number == 0 and random.random() < 0.7:
        requests.insert(random.randrange(1, len(requests) + 1), random.choice([Compact(), Reopen(), Mark()]))

    def goes_on() -> Effect[None]:
        for request in requests:
            try:
                yield from perform(request)
            except PersistError:
                # Where a fault was put. What was in doubt is settled by opening the store again.
                yield from perform(Reopen())

    return goes_on


class Draw:
    """Requests of one program. Its streams and keys are its own, but for one stream and one key."""

    def __init__(self, random: Random, number: int) -> None:
        self._random = random
        self._number = number
        self._last_seq = 0
        self._dropped = 0

    def request(self) -> Request[None]:
        """The next one."""
        kinds = [self._append, self._append_to_shared, self._put, self._delete, self._cut, self._several]
        return self._random.choices(kinds, [6, 3, 4, 1, 2, 3])[0]()

    def _value(self) -> str:
        return "v" * self._random.choice([0, 1, 8, 40, 150])

    def _drafts(self) -> tuple[Draft, ...]:
        return tuple(Draft("made", self._value()) for _ in range(self._random.choice([1, 1, 2, 3])))

    def _append(self) -> Append:
        drafts = self._drafts()
        self._last_seq += len(drafts)
        return Append(f"stream/{self._number}", drafts)

    def _append_to_shared(self) -> Append:
        return Append("shared", self._drafts())

    def _put(self) -> KvPut:
        return KvPut(self._random.choice([f"key/{self._number}", "shared"]), self._value())

    def _delete(self) -> KvDelete:
        return KvDelete(self._random.choice([f"key/{self._number}", "shared"]))

    def _cut(self) -> Request[Any]:
        if self._dropped == self._last_seq:
            return self._append()
        self._dropped = self._random.randrange(self._dropped + 1, self._last_seq + 1)
        return TruncateThrough(f"stream/{self._number}", self._dropped)

    def _several(self) -> Transact:
        return Transact((self._append(), self._put(), self._append_to_shared()))


# Progress that is kept


def load() -> dict[str, int]:
    """What was kept, or the beginning."""
    beginning = dict.fromkeys(("next_seed", *COUNTS), 0)
    try:
        return beginning | json.loads(PLACE.read_text("utf-8"))
    except FileNotFoundError:
        return beginning


def keep(state: dict[str, int]) -> None:
    """Put the new file in the place of the old one, so that there is always a whole one."""
    PLACE.parent.mkdir(exist_ok=True)
    temporary = PLACE.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(PLACE)


def add(state: dict[str, int], report: Report) -> None:
    """Count a workload that was explored."""
    state["next_seed"] += 1
    state["workloads"] += 1
    state["exhaustive"] += report.is_exhaustive
    for name in ("enumerated", "equal", "checked"):
        state[name] += getattr(report, name)


# Running


class TimeIsUp(Exception):
    """The time is up in the middle of a workload, which is explored again the next time."""


def explore(seed: int, tell: Callable[[int], None] | None = None) -> Report:
    """Explore the workload of a seed."""
    workload = drawn(seed)
    return explore_crashes(workload.programs, progress=tell, **workload.options)


def explore_one(seed: int, console: Console) -> int:
    """Explore one seed, and show all that was found. Returns the exit code."""
    console.print(f"seed {seed}: {drawn(seed)}", markup=False)
    report = explore(seed)
    print(report)
    return int(report.verdict != "passed")


def explore_on(state: dict[str, int], seconds: float, console: Console) -> int:
    """Explore from the next seed on until the time is up, a failure is found or Ctrl-C. Returns the exit code."""
    start = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=seconds)
        while time.monotonic() - start < seconds:
            seed = state["next_seed"]

            def tell(checked: int, seed: int = seed) -> None:
                passed = time.monotonic() - start
                bar.update(task, completed=passed, description=f"seed {seed}: {checked:,} states")
                if passed >= seconds:
                    raise TimeIsUp

            try:
                report = explore(seed, tell)
            except TimeIsUp:
                break
            except KeyboardInterrupt:
                bar.stop()
                print("interrupted")
                return 130
            extent = "exhaustive" if report.is_exhaustive else "sampled"
            bar.console.print(
                f"seed {seed:>4}: {report.verdict}, {report.checked:>7,} states, {extent}; {drawn(seed)}",
                markup=False,
                soft_wrap=True,
            )
            if report.verdict != "passed":
                bar.stop()
                print(report)
                print(f"\nseed {seed}. To see it again: CRASH_SEED={seed} make crash")
                return 1
            add(state, report)
            keep(state)
    return 0


def main() -> int:
    """Run, and print the totals."""
    console = Console()
    if "CRASH_SEED" in os.environ:
        return explore_one(int(os.environ["CRASH_SEED"]), console)
    state = load()
    if state["next_seed"]:
        console.print(f"going on at seed {state['next_seed']}; to begin anew, remove var/{PLACE.name}")
    code = explore_on(state, float(os.environ.get("CRASH_SECONDS", "600")), console)
    console.print(
        f"so far {state['workloads']:,} workloads, {state['exhaustive']:,} of them to exhaustion: "
        f"{state['enumerated']:,} states enumerated, {state['equal']:,} equal to others, {state['checked']:,} checked",
        soft_wrap=True,
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
