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
from killed_flows import ACTIVITIES, COUNT, EFFECTS, FLOWS, PLACE, is_undone, judge_flows, stepping

from interpreters.runtime.flows import FlowHost
from persist_effects import kv, log

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


def again(name):
    if ROUNDS:
        return f"make flow-kill ROUNDS={ROUNDS} STORE={name} SEED={SEED}"
    return f"FLOW_STORE={name} FLOW_SEED={SEED} .venv/bin/python -m pytest {__file__}"


CASES = [pytest.param(name, marks=pytest.mark.exploration if name in SLOW else ()) for name in STORES]


@pytest.mark.exploration
@pytest.mark.parametrize("name", [case for case in CASES if CHOSEN in {*case.values, "all"}])
def test_every_flow_ends_and_each_effect_is_there_once_while_hosts_are_killed(tmp_path, capsys, name):
    def tell(*words):
        if ROUNDS:
            with capsys.disabled():
                print(f"{name}:", *words, flush=True)

    try:
        with STORES[name](tmp_path) as url, flow_hosts(url, tmp_path, 1 if name == "file" else 2, SEED) as hosts:
            for number, blow in enumerate(blows(name), 1):
                hosts.round(number, blow)
                tell(f"round {number}: {blow}")
            problems = hosts.judge()
    except AssertionError as error:
        error.add_note(again(name))
        raise
    tell(
        f"{len(hosts.flows)} flows, {dict(hosts.blows)}, {hosts.taken} times taken over meanwhile, "
        f"{hosts.told['wrote']} entries of journals, {hosts.told['refused']} refused, "
        f"{hosts.repeated()} activities run again"
    )
    assert not problems, "\n".join([again(name), *problems])


# What the judgement catches


@pytest.fixture
def done(store, tmp_path, monkeypatch):
    """A flow that has ended, and what is judged of it: the store, its notes, and which entries were written."""
    notes, written = tmp_path / "notes", tmp_path / "written"
    notes.mkdir()
    written.write_text("flow/f 1 aa\nflow/f 2 aa\nflow/f 3 bb\nflow/g 1 bb\nflow/g 2 aa\n")
    monkeypatch.setenv(PLACE, str(notes))
    with FlowHost(store, flows=FLOWS, activities=ACTIVITIES) as host:
        host.start(stepping, "f", "f")
        host.result("f", 60)
    return store, notes, written


def problems_of(done, kind="stepping"):
    store, notes, written = done
    return judge_flows(store, [("f", kind)], notes, [written])


def test_what_a_flow_has_done_without_trouble_is_right(done):
    assert problems_of(done) == []


def test_an_effect_that_is_there_twice_is_found(done):
    done[0].run(log.append(f"{EFFECTS}f", "did", [9, 55]))
    assert any("effects of f" in each for each in problems_of(done))


def test_a_count_that_was_counted_twice_is_found(done):
    done[0].run(kv.put(COUNT, 2))
    assert problems_of(done) == ["count is not 1"]


def test_a_flow_that_has_come_to_something_else_is_found(done):
    assert any("not failed" in each for each in problems_of(done, "failing"))


def test_an_activity_that_was_not_run_is_found(done):
    next(done[1].iterdir()).unlink()
    assert ["was not run" in each for each in problems_of(done)] == [True]


def test_an_activity_that_was_run_with_another_key_is_found(done):
    (path, *_) = done[1].iterdir()
    (done[1] / "another").write_text(path.read_text())
    assert ["was handed the keys" in each for each in problems_of(done)] == [True]


def test_an_activity_that_nobody_asked_for_is_found(done):
    (done[1] / "another").write_text("('weigh', 'f', 99)\n")
    assert problems_of(done) == ["('weigh', 'f', 99) was run"]


@pytest.mark.parametrize("line", ["flow/f 3 aa", "flow/f 4 aa"], ids=["the same entry", "after it was superseded"])
def test_an_entry_of_a_host_that_no_longer_owned_the_flow_is_found(done, line):
    done[2].write_text(f"{done[2].read_text()}{line}\n")
    assert any(line.split()[1] in each for each in problems_of(done))


@pytest.mark.parametrize(
    ("effects", "is_right"),
    [
        ("b0 b1 u1 u0", True),
        ("b0 u1 u0", True),
        ("", True),
        ("u0", True),
        ("b0 b1 u0 u1", False),
        ("b0 b1 u1", False),
        ("b0 b1", False),
        ("b0 u0 u0", False),
    ],
)
def test_what_was_cancelled_is_undone_in_reverse_or_that_is_found(effects, is_right):
    words = {"b": "booked", "u": "unbooked"}
    assert is_undone([[words[each[0]], int(each[1])] for each in effects.split()]) is is_right
