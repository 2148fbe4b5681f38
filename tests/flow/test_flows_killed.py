"""Hosts of flows are killed, and stopped for longer than their lease: every flow ends, and each effect is there once.

``FLOW_ROUNDS`` says how many blows fall on each store, ``FLOW_SEED`` draws them, ``FLOW_STORE`` names one store.
Without rounds each blow falls once.
"""

import os
from contextlib import contextmanager
from random import Random

import pytest
from flow_hosts import BLOWS, KILLED, flow_hosts
from follower_stores import ALL

ROUNDS = int(os.environ.get("FLOW_ROUNDS", "0"))
SEED = int(os.environ.get("FLOW_SEED", "0"))
CHOSEN = os.environ.get("FLOW_STORE", "all")


@contextmanager
def file(place):
    yield f"file:{place / 'store'}"


STORES = {"file": file, **ALL}
SLOW = {"served", "postgres", "nats"}
"""Where `make test` leaves it out."""


def blows(name):
    """What befalls a host in each round."""
    # Where one host has the store, it gains nothing from another one's being stopped.
    kinds = (KILLED,) if name == "file" else BLOWS
    if not ROUNDS:
        return kinds
    random = Random(SEED)
    return [random.choice([KILLED, *kinds]) for _ in range(ROUNDS)]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.exploration if name in SLOW else ())
        for name in STORES
        if CHOSEN in {name, "all"}
    ],
)
def test_every_flow_ends_and_each_effect_is_there_once_while_hosts_are_killed(tmp_path, capsys, name):
    again = f"make flow-kill ROUNDS={ROUNDS or 3} STORE={name} SEED={SEED}"
    with STORES[name](tmp_path) as url, flow_hosts(url, tmp_path, 1 if name == "file" else 2, SEED) as hosts:
        for number, blow in enumerate(blows(name), 1):
            hosts.round(number, blow)
            if ROUNDS:
                with capsys.disabled():
                    print(f"{name}: round {number}: {blow}", flush=True)
        problems = hosts.judge()
        if ROUNDS:
            with capsys.disabled():
                print(
                    f"{name}: {len(hosts.flows)} flows, {dict(hosts.blows)}, {hosts.taken} taken over meanwhile, {hosts.told['wrote']} "
                    "entries, "
                    f"{hosts.told['refused']} refused, {hosts.repeated()} activities run again",
                    flush=True,
                )
    assert not problems, "\n".join([again, *problems])
