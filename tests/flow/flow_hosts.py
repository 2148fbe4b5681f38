"""Hosts of flows, as processes that are killed and stopped."""

import json
import os
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event as Flag
from threading import Thread

from killed_flows import KINDS, PLACE, judge_flows
from served_stores import PATIENCE_SECONDS
from server_processes import python_process

from interpreters import open_store

CHILD = Path(__file__).with_name("flow_child.py")
LEASE_SECONDS = 1.0
BLOWS = KILLED, STOPPED, STOPPED_IN_WRITE = "killed", "stopped", "stopped in a write"
"""What may befall a host."""


class HostProcess:
    """A process that runs flows."""

    def __init__(self, url: str, written: Path) -> None:
        order = {"url": url, "written": str(written), "lease_seconds": LEASE_SECONDS}
        self.told = Counter[str]()
        self.key = ""
        self.stuck: list[str] = []
        self.is_stopped, self.stopped_at = False, 0.0
        self._rest = b""
        self._process = python_process(CHILD, json.dumps(order), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def listen(self, seconds: float = 0.0) -> bool:
        """Take in what it has told, waiting so long for the first of it. Whether it told anything."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return False
        piece = os.read(self._process.stdout.fileno(), 65536)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for word, *more in (line.decode().split(" ", 1) for line in lines):
            self.told[word] += 1
            if word == "lives":
                (self.key,) = more
            if word == "stuck":
                self.stuck += more
        return bool(piece)

    def wait_for(self, word: str, times: int = 1) -> None:
        """Wait until it has told something so many times."""
        while self.told[word] < times:
            # It waits for flows for longer than this test's patience with a store.
            if not self.listen(3 * PATIENCE_SECONDS):
                self.signal(signal.SIGABRT)
                raise AssertionError(f"a host did not say {word!r}: it ended with {self._process.wait()}")

    def do(self, *command: object) -> None:
        """Have it carry out a command."""
        assert self._process.stdin is not None
        times = self.told["did"] + 1
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        self.wait_for("did", times)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and take in all that it has told."""
        self.signal(signal.SIGKILL)
        assert self._process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        while self.listen():
            pass
        self.close()

    def end(self) -> None:
        """Have it end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.wait_for("left")
        assert self._process.wait(PATIENCE_SECONDS) == 0
        self.close()

    def close(self) -> None:
        with self._process:
            self._process.kill()


class Hosts:
    """Hosts on one store, what they were told to do, and what befell them."""

    def __init__(self, url: str, place: Path, count: int, random: Random) -> None:
        self._url, self._place, self._count, self._random = url, place, count, random
        self.notes = place / "notes"
        self.notes.mkdir()
        self.flows: list[tuple[str, str]] = []
        self.told, self.blows = Counter[str](), Counter[str]()
        self.stuck: list[str] = []
        self.taken = 0
        """How often another host took over before the one that was struck was there again."""
        self._all: list[HostProcess] = []
        self._processes = 0
        os.environ[PLACE] = str(self.notes)
        self._is_over = Flag()
        self._waker = Thread(target=self._wake)
        self._waker.start()

    def _wake(self) -> None:
        """Let those go on that stop themselves late: when they had nothing to write before they were healed.

        And one that has been stopped for many leases: it may have waited for the lock of the store, which the system
        gives it though it is stopped, and then all others wait for it.
        """
        while not self._is_over.wait(LEASE_SECONDS):
            for each in list(self._all):
                if not each.is_stopped or time.monotonic() - each.stopped_at > LONGEST_STOP_SECONDS:
                    each.signal(signal.SIGCONT)

    @property
    def living(self) -> list[HostProcess]:
        return [each for each in self._all if not each.is_stopped]

    def fill(self) -> None:
        """Begin hosts for those that are gone."""
        begun = []
        while len(self._all) < self._count:
            self._processes += 1
            begun.append(HostProcess(self._url, self._place / f"written {self._processes}"))
            self._all.append(begun[-1])
        for each in begun:
            each.wait_for("lives")

    def round(self, number: int, blow: str) -> None:
        """Begin flows, have a blow fall, heal it, and wait until all flows have ended."""
        begun = [(f"{number}-{kind}", kind) for kind in KINDS]
        self._random.shuffle(begun)
        self.flows += begun
        commands = [["begin", kind, flow_id] for flow_id, kind in begun]
        more = [command for flow_id, kind in begun for command in KINDS[kind](flow_id).commands]
        self._random.shuffle(more)
        commands += more
        cut = self._random.randint(1, len(commands))
        for command in commands[:cut]:
            self._random.choice(self.living).do(*command)
        struck = self._random.choice(self._all)
        self._let_write(self._random.randint(0, 3 * min(cut, len(begun))))
        self._strike(struck, blow)
        if self.living and self._random.random() < 0.6 and self._is_taken(struck):
            # The others are told, while it is away.
            self._do_all(commands[cut:])
            cut = len(commands)
        self._heal()
        self._do_all(commands[cut:])
        self._random.choice(self.living).do("finish", [flow_id for flow_id, _ in begun])
        self._take_in()

    def _is_taken(self, struck: HostProcess) -> bool:
        """Wait until the others have taken away a host's lease. One that holds a lock of the store may keep them."""
        host = self._random.choice(self.living)
        taken = host.told["taken"]
        host.do("gone", struck.key, 4 * LEASE_SECONDS)
        self.taken += host.told["taken"] - taken
        return host.told["taken"] > taken

    def _do_all(self, commands: list[list[object]]) -> None:
        for command in commands:
            self._random.choice(self.living).do(*command)

    def _let_write(self, entries: int) -> None:
        """Wait until hosts have written so many entries, or have nothing more to write."""
        until = sum(each.told["wrote"] for each in self._all) + entries
        while sum(each.told["wrote"] for each in self._all) < until:
            if not any(each.listen(SLICE_SECONDS) for each in self._all):
                return

    def _strike(self, host: HostProcess, blow: str) -> None:
        self.blows[blow] += 1
        if blow == KILLED:
            host.kill()
            self._all.remove(host)
            self._leave(host)
            return
        host.is_stopped, host.stopped_at = True, time.monotonic()
        if blow == STOPPED_IN_WRITE:
            host.signal(signal.SIGUSR1)
            # It may have nothing more to write.
            while host.told["stops"] < 1 and host.listen(10 * SLICE_SECONDS):
                pass
        host.signal(signal.SIGSTOP)

    def _heal(self) -> None:
        for each in self._all:
            if each.is_stopped:
                each.signal(signal.SIGCONT)
                each.is_stopped = False
        self.fill()

    def _leave(self, host: HostProcess) -> None:
        self.told.update(host.told)
        self.stuck += host.stuck

    def _take_in(self) -> None:
        for each in self._all:
            while each.listen():
                pass
            each.told["stops"] = 0
            assert not each.stuck, each.stuck

    def judge(self) -> list[str]:
        """End all hosts, and look at what the flows have done."""
        for each in self._all:
            each.end()
            self._leave(each)
        self._all.clear()
        with open_store(self._url) as store:
            return [*self.stuck, *judge_flows(store, self.flows, self.notes, self._place.glob("written *"))]

    def repeated(self) -> int:
        """How often activities were run again."""
        return sum(max(0, len(path.read_text().splitlines()) - 1) for path in self.notes.iterdir())

    def close(self) -> None:
        self._is_over.set()
        self._waker.join()
        for each in self._all:
            each.close()


SLICE_SECONDS = 0.05

LONGEST_STOP_SECONDS = 10 * LEASE_SECONDS
"""Longer than others take to find that a lease is over, and to take what was its host's."""


@contextmanager
def flow_hosts(url: str, place: Path, count: int, seed: int) -> Iterator[Hosts]:
    """So many hosts on one store."""
    hosts = Hosts(url, place, count, Random(seed))
    try:
        hosts.fill()
        yield hosts
    finally:
        hosts.close()
