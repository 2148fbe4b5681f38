"""The nodes of a cluster that holds one store, which are killed, stopped, and started again while it is used."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from random import Random
from typing import NamedTuple

from killing import Children, is_hasty
from overlapping import Asked
from served_stores import until

from interpreters import open_store
from interpreters.nats.private_cluster import PrivateCluster

NAME = "orders"
TIMEOUT_SECONDS, HASTY_SECONDS = 2, 0.5
"""How long requests are tried while nodes are killed: for less time than it takes to elect a leader."""


class Nodes:
    """A store on a cluster. ``url`` is where clients find it; by ``hasty_url`` they give up soon.

    Args:
        cluster: The cluster, of three.
    """

    def __init__(self, cluster: PrivateCluster) -> None:
        self.cluster = cluster
        self.url = cluster.url(NAME, replicas=cluster.size, timeout=TIMEOUT_SECONDS)
        self.hasty_url = cluster.url(NAME, replicas=cluster.size, timeout=HASTY_SECONDS)
        open_store(self.url).close()

    def leader(self, *others: int) -> int:
        """Who leads the store's stream, as some other nodes know it. Waits until one does, and is none of these."""
        asked = [node for node in range(self.cluster.size) if node not in others]
        found: list[int] = []

        def is_known() -> bool:
            found.extend(leader for node in asked for leader in self._led(node) if leader in asked)
            return bool(found)

        until(is_known)
        return found[0]

    def _led(self, node: int) -> list[int]:
        """Who leads the stream as a node sees it, if it knows."""
        with suppress(OSError):
            told = self.cluster.monitored(node, "jsz?streams=true&accounts=true")
            streams = [stream for account in told.get("account_details", []) for stream in account["stream_detail"]]
            leaders = [stream["cluster"].get("leader") for stream in streams if stream["name"] == NAME]
            return [int(leader.removeprefix("n")) for leader in leaders if leader]
        return []

    def kill(self) -> None:
        """Kill the leader, and start it again."""
        leader = self.leader()
        self.cluster.kill(leader)
        self.cluster.start(leader)

    def kill_all(self) -> None:
        """Kill all at once, and start them again."""
        self.cluster.kill()
        self.cluster.start()

    def stop_leader(self) -> int:
        """Stop the leader as it stands, until another one leads. Returns the node that is stopped."""
        leader = self.leader()
        self.cluster.signal(signal.SIGSTOP, leader)
        self.leader(leader)
        return leader

    def go_on(self, node: int) -> None:
        """Let a node go on that was stopped."""
        self.cluster.signal(signal.SIGCONT, node)

    def are_equal(self) -> bool:
        """Whether all nodes hold the same messages, as far as they tell."""
        states = [self._state(node) for node in range(self.cluster.size)]
        return None not in states and len(set(states)) == 1

    def _state(self, node: int) -> tuple[int, ...] | None:
        told = self.cluster.monitored(node, "jsz?streams=true&accounts=true")
        for account in told.get("account_details", []):
            for stream in account["stream_detail"]:
                if stream["name"] == NAME:
                    state = stream["state"]
                    return state["messages"], state["bytes"], state["first_seq"], state["last_seq"]
        return None


class Blow(NamedTuple):
    """Something that happens to the nodes while clients go on: what, and how."""

    name: str
    strike: Callable[[Nodes, Children, Random], None]


def _kill_leader(nodes: Nodes, children: Children, random: Random) -> None:
    nodes.kill()


def _kill_all(nodes: Nodes, children: Children, random: Random) -> None:
    nodes.kill_all()


def _stop_leader(nodes: Nodes, children: Children, random: Random) -> None:
    stopped = nodes.stop_leader()
    children.let_ask(random.randint(10, 20))
    nodes.go_on(stopped)


def _leave_one(nodes: Nodes, children: Children, random: Random) -> list[int]:
    """Kill two nodes, one of them or the one that is left being the leader, and have requests of all clients end."""
    left = nodes.leader() if random.randrange(2) else random.randrange(nodes.cluster.size)
    killed = [node for node in range(nodes.cluster.size) if node != left]
    nodes.cluster.kill(*killed)
    children.let_ask(2 * children.clients)
    return killed


def _leave_one_for_a_while(nodes: Nodes, children: Children, random: Random) -> None:
    nodes.cluster.start(*_leave_one(nodes, children, random))


def _leave_one_then_none(nodes: Nodes, children: Children, random: Random) -> None:
    _leave_one(nodes, children, random)
    nodes.kill_all()


LEADER_KILLED = Blow("leader killed", _kill_leader)
LEADER_STOPPED = Blow("leader stopped until another one leads", _stop_leader)
ONE_LEFT = Blow("one of three left", _leave_one_for_a_while)
ALL_KILLED = Blow("all killed", _kill_all)
ONE_THEN_NONE_LEFT = Blow("one of three left, then none", _leave_one_then_none)

SHORT = (LEADER_STOPPED, LEADER_KILLED, ONE_THEN_NONE_LEFT)
"""Each kind once, since most of the time goes by until a leader is elected."""

LONG = (LEADER_KILLED, LEADER_STOPPED, LEADER_KILLED, ONE_LEFT, ALL_KILLED, LEADER_KILLED, ONE_THEN_NONE_LEFT)

LEAST_REQUESTS, MEAN_REQUESTS = 20_000, 2_000
"""What is asked in the long form: altogether, and between two blows."""


def struck(nodes: Nodes, children: Children, random: Random, seconds: float) -> Counter[str]:
    """Strike the nodes, again and again for so long, or where that is 0 each kind once. Returns how often."""
    struck: Counter[str] = Counter()
    until_then = time.monotonic() + seconds
    for blow in cycle(LONG) if seconds else SHORT:
        children.let_ask(random.randint(0, 2 * MEAN_REQUESTS) if seconds else 150)
        blow.strike(nodes, children, random)
        struck[blow.name] += 1
        if seconds and time.monotonic() > until_then and children.told >= LEAST_REQUESTS:
            break
    # They have healed once all are answered again.
    children.let_ask(20 * children.clients)
    return struck


def longest_over(asked: list[Asked]) -> float:
    """By how many seconds more than its timeout the longest request took."""
    return max(
        (one.ended - one.began) / 1e9 - (HASTY_SECONDS if is_hasty(one.client) else TIMEOUT_SECONDS) for one in asked
    )
