"""A rebuild whose process is killed at drawn points of its progress, again and again, and begun again each time."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any, NamedTuple

from rebuilt import AFTER, BEFORE, PHASES, append_first, filled, problems_of_model
from server_processes import python_process

from interpreters import open_store

CHILD = Path(__file__).with_name("rebuild_child.py")
DROPPED_AT_ONCE = 100
"""How many keys of an old generation are deleted by one transaction."""

Progress = Callable[[str], None]


class Point(NamedTuple):
    """Where the process is killed: in which phase, and once so much of it is done.

    Either before the transaction that does it, which then does not take place; or after so much idling, in which it
    does or does not.
    """

    phase: str
    number: int
    is_before: bool
    spin: int


class Plan(NamedTuple):
    """What is rebuilt, and how often it is killed.

    Args:
        events: How many there are at first.
        kills: How often: three in five while it is built, and the others while it takes over and the old keys go.
        batch: How many events share a transaction.
        seed: What draws the points, and what writers and readers do.
        is_one_process: Whether writers and readers are threads of the process that is killed.
    """

    events: int
    kills: int
    batch: int
    seed: int
    is_one_process: bool

    def points(self) -> list[Point]:
        """Where it is killed, in order."""
        random = Random(self.seed)
        built, taken = self.kills * 3 // 5, self.kills // 5
        # What is told of is one transaction less than was done, so the last points keep clear of the end.
        most = max(1, self.events - 2 * DROPPED_AT_ONCE * self.kills)
        numbers = {
            "build": sorted(random.randrange(self.events) for _ in range(built)),
            "take-over": [0] * taken,
            "drop": sorted(random.randrange(most) for _ in range(self.kills - built - taken)),
        }
        return [
            # It takes over once only, so all but the last of these come before that.
            Point(phase, number, phase == "take-over" and place < taken, int(10 ** random.uniform(0, 6)))
            for phase in PHASES
            for place, number in enumerate(numbers[phase], 1)
        ]


class Rebuild:
    """What is known of a rebuild from the lines of the processes that did it."""

    def __init__(self, url: str, plan: Plan, show: Progress) -> None:
        self._url, self._plan, self._show = url, plan, show
        self.kills: Counter[str] = Counter()
        self.longest_read = 0.0
        self.was_outdated = False
        self._seen: dict[str, int] = {}
        self._done = Counter[str]()
        self._reached = 0
        self._killed_in = ""

    def run(self) -> None:
        """Have it done, and kill it on the way."""
        with nullcontext() if self._plan.is_one_process else self._load():
            for point in self._plan.points():
                if not self._live(point):
                    self._show("done before all points were reached")
                    return
                self.kills[self._killed_in] += 1
                self._show(
                    f"killed {self.kills.total()} of {self._plan.kills}, the last time in {self._killed_in}: "
                    f"{self._done['build']} events built, {self._done['drop']} old keys gone"
                )
            assert self._live(None)

    def _process(self, point: Point | None = None, **roles: bool) -> subprocess.Popen[str]:
        order = {
            "url": self._url,
            "batch": self._plan.batch,
            "seed": f"{self._plan.seed} {self.kills.total()}",
            "seen": max(self._seen.values(), default=0),
            "point": point and (point.phase, point.number - self._done[point.phase], point.is_before),
            **roles,
        }
        return python_process(
            CHILD, json.dumps(order), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def _live(self, point: Point | None) -> bool:
        """Let a process go on until it is at a point, and kill it. Without a point: see it through.

        Returns:
            Whether it was killed, or was seen through.
        """
        was_at, is_killed = self._reached, False
        with self._process(point, rebuilds=True, loads=self._plan.is_one_process) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    words = line.split()
                    if words[0] == "begins":
                        assert int(words[1]) > was_at, f"began at {words[1]}, and had come to {was_at}"
                    self._take(words)
                    if words[0] == "point":
                        assert point is not None
                        is_killed = True
                        for _ in range(point.spin):
                            pass
                        process.kill()
            finally:
                process.kill()
        if not is_killed:
            assert process.returncode == 0, f"it ended by itself, with {process.returncode}"
        return is_killed == (point is not None)

    def _take(self, words: list[str]) -> None:
        match words:
            case ["point", phase]:
                self._killed_in = phase
            case ["build" | "follow" as phase, count, position]:
                self._done[phase] += int(count)
                self._reached = int(position)
            case ["drop", keys, _]:
                self._done["drop"] += int(keys)
            case ["seen", reader, position]:
                self._seen[reader] = int(position)
            case ["took", _, seconds]:
                self.longest_read = max(self.longest_read, float(seconds))
            case ["outdated"]:
                self.was_outdated = True
            case ["failed", *said]:
                raise AssertionError(json.loads(" ".join(said)))

    @contextmanager
    def _load(self) -> Iterator[None]:
        """Writers and readers in a process of their own, which is not killed."""
        with self._process(rebuilds=False, loads=True) as process, ExitStack() as stack:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdin is not None
            for line in process.stdout:
                if line == "loads\n":
                    break
                # Its readers may have seen something before it has said that all of them are there.
                self._take(line.split())
            else:
                raise AssertionError(f"what loads the store ended before it did, with {process.wait()}")
            failures: list[AssertionError] = []
            listening = Thread(target=self._listen, args=(process.stdout, failures))
            listening.start()
            yield
            process.stdin.close()
            listening.join()
        if failures:
            raise failures[0]
        assert process.returncode == 0, f"what loads the store ended with {process.returncode}"

    def _listen(self, lines: Any, failures: list[AssertionError]) -> None:
        for line in lines:
            try:
                self._take(line.split())
            except AssertionError as error:
                failures.append(error)


def judge_rebuild(url: str, plan: Plan, show: Progress) -> Rebuild:
    """Rebuild a read model as a newer version while it is used, killed at drawn points, and look what it is.

    Args:
        url: Where a new store is made.
        plan: What is rebuilt, and how often it is killed.
        show: Called with how far it has come.

    Returns:
        What is known of it.
    """
    with open_store(url) as store:
        with _timed(f"{plan.events} events appended", plan.events, show):
            append_first(store, plan.events)
        with _timed(f"version {BEFORE} built, alone", plan.events, show):
            store.run(filled(BEFORE, plan.batch))
    rebuild = Rebuild(url, plan, show)
    with _timed(f"version {AFTER} built in its place", plan.events, show):
        rebuild.run()
    with open_store(url) as store, _timed("compared with a fold", plan.events, show):
        store.run(filled(AFTER, plan.batch))
        problems = problems_of_model(store)
    assert not problems, "\n".join(problems)
    return rebuild


@contextmanager
def _timed(what: str, events: int, show: Progress) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    show(f"{what}: {seconds:.1f} s, {events / seconds:.0f} events a second")
