"""Many processes on a store whose cluster loses nodes again and again: what they are answered could have been done.

Each operation at one moment between its request and its answer; one whose outcome is uncertain at any moment after its
request, or never. What is acknowledged is there once, and who follows sees all of it in order.

``CLUSTER_KILL_SECONDS`` says how long it goes on, without which each blow falls once; ``CLUSTER_KILL_SEED`` draws what
is asked, and the blows.
"""

import os
from random import Random
from types import SimpleNamespace

import pytest
from append_checks import append_problems
from killing import all_done, check, working
from nats_cluster import new_store_url
from nodes import Nodes, longest_over, struck
from overlapping import tally_of
from served_stores import until

from interpreters.nats.private_cluster import PrivateCluster
from interpreters.stores.nats.store import TRY_SECONDS

pytestmark = pytest.mark.exploration

SECONDS = float(os.environ.get("CLUSTER_KILL_SECONDS", "0"))
SEED = int(os.environ.get("CLUSTER_KILL_SEED", "0"))
CLIENTS = 8 if SECONDS else 4


def test_what_processes_are_answered_that_open_a_new_store_at_once_could_have_been_done_one_by_one(tmp_path):
    url = new_store_url()
    server = SimpleNamespace(url=url, hasty_url=url)
    with working(server, SEED, 3, tmp_path, 2) as children:
        children.let_ask(600)
        children.end("count")
        asked, events = all_done(children, server, SEED, 3)
    counted = children.written_by("count")
    assert sorted(counted) == list(range(1, len(counted) + 1))
    tally = tally_of(asked)
    assert min(tally.conflicts, len(events), len(counted)) > 20
    assert (tally.uncertain, tally.unavailable) == (0, 0)
    check(asked, events, f"what each was answered is in {tmp_path}", *append_problems(asked, events))


def test_what_processes_are_answered_while_nodes_are_killed_could_have_been_done_one_by_one(tmp_path):
    with PrivateCluster(3) as cluster:
        nodes = Nodes(cluster)
        with working(nodes, SEED, CLIENTS, tmp_path) as children:
            blows = struck(nodes, children, Random(SEED), SECONDS)
            asked, events = all_done(children, nodes, SEED, CLIENTS)
        until(nodes.are_equal)
    tally = tally_of(asked)
    print(f"{dict(blows)}, {len(events)} events, {tally}, the longest took {longest_over(asked):.1f} s too long")
    check(
        asked,
        events,
        f"CLUSTER_KILL_SEED={SEED}, what each was answered is in {tmp_path}",
        *append_problems(asked, events),
    )
    assert tally.unavailable, "no client has met a blow"
    # A try that has begun is waited for, and asks for up to four things one after the other.
    assert longest_over(asked) < 4 * TRY_SECONDS
