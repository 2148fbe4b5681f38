"""Workers of a group are killed, stopped for longer than their lease, and interrupted: each event takes effect once.

``CREW_SECONDS`` says how long that goes on, on every store that several processes may use; without it each blow falls
once, on stores that need no server of others. ``CREW_SEED`` draws the blows, ``CREW_STORE`` names one store.

A partition stands still from when an event of it was appended, the one before had taken effect and the last blow had
fallen, until the event takes effect. Blows come in rounds, and between two of them there is time for a lease.
"""

import os
from random import Random
from threading import Event as Flag

import pytest
from crews import INTERRUPTED, KILLED, STOPPED, STOPPED_IN_HANDLER, Size, crew_at_work, judge_effects
from follower_stores import ALL, OWN

from interpreters import open_store
from persist_effects import log

SECONDS = float(os.environ.get("CREW_SECONDS", "0"))
SEED = int(os.environ.get("CREW_SEED", "0"))
SIZE = Size() if SECONDS else Size(workers=3, partitions=8, lease_seconds=1.0)


CHOSEN = os.environ.get("CREW_STORE", "all")
STORES = [name for name in (ALL if SECONDS else OWN) if CHOSEN in {name, "all"}]


def rounds(name):
    """What befalls how many workers, round by round."""
    # One that is stopped while it holds the lock of a SQLite file holds back all others, whatever they do.
    stopped = STOPPED_IN_HANDLER if name == "sqlite" else STOPPED
    if not SECONDS:
        yield from ([KILLED], [STOPPED_IN_HANDLER], [stopped], [INTERRUPTED])
        return
    random, left = Random(SEED), SECONDS
    kinds = [KILLED, KILLED, KILLED, STOPPED_IN_HANDLER, stopped, INTERRUPTED]
    while left > 0:
        yield random.choices(kinds, k=random.choice([1, 1, 2, 3, SIZE.workers - 1]))
        left -= 3 * SIZE.lease_seconds


@pytest.mark.exploration
@pytest.mark.parametrize("name", STORES)
def test_each_event_takes_effect_once_and_in_order_while_workers_are_killed(tmp_path, capsys, name):
    again = f"make crew-kill SECONDS={SECONDS:g} STORE={name} SEED={SEED}"
    with ALL[name](tmp_path) as url:
        open_store(url).close()
        with crew_at_work(url, SIZE, SEED) as crew:
            for number, kinds in enumerate(rounds(name), 1):
                crew.strike(kinds)
                crew.until_noticed()
                if SECONDS:
                    # From the last blow on all others have a lease to notice, and as long for what came late.
                    Flag().wait(SIZE.lease_seconds)
                crew.heal()
                if SECONDS:
                    Flag().wait(1.5 * SIZE.lease_seconds)
                    with capsys.disabled():
                        print(f"{name}: round {number}: {', '.join(kinds)}", flush=True)
        with open_store(url) as store:
            found = judge_effects(store, SIZE, crew.blown_at)
    if SECONDS:
        with capsys.disabled():
            print(
                f"{name}: {found.events} events, {dict(crew.blows)}, {crew.told['refused']} late writes refused, "
                f"{crew.told['outage']} outages; the longest that an event waited for its effect: "
                f"{found.since_appended:.2f} s, from its turn {found.since_turn:.2f} s, with no blow since "
                f"{found.since_blow:.2f} s, of a lease of {SIZE.lease_seconds} s: {found.where}; "
                f"the writer's longest append took {max(crew.writes_took):.2f} s",
                flush=True,
            )
    assert not found.problems, "\n".join([again, *found.problems])
    assert crew.told["refused"], "no late write was refused"
    if SECONDS:
        assert found.since_blow <= SIZE.lease_seconds, f"{again}: a partition stood still: {found.where}"


# What the judgement catches

SECOND = 1_000_000


def judged(store, effects, blown_at=()):
    """Of two events of a stream, appended in the first and the second second, where these are the effects, and when."""
    for at in (1, 2):
        store.run(log.append("s/1", "made", None, at=at * SECOND))
    for seq, at in effects:
        store.run(log.append("effects/s/1", "copied", ["s/1", seq], at=at * SECOND))
    return judge_effects(store, SIZE, [at * SECOND for at in blown_at])


def test_effects_that_are_there_once_and_in_order_are_right_and_waits_are_told(store):
    found = judged(store, [(1, 5), (2, 9)], blown_at=[3, 6, 20])
    assert (found.problems, found.events) == ([], 2)
    assert (found.since_appended, found.since_turn, found.since_blow) == (7, 4, 3)


@pytest.mark.parametrize(
    "effects",
    [[(1, 3)], [(1, 3), (1, 4), (2, 5)], [(2, 3), (1, 4)], [(1, 3), (2, 4), (3, 5)], []],
    ids=["missing", "twice", "out of order", "of no event", "none"],
)
def test_effects_that_are_wrong_are_found(store, effects):
    assert judged(store, effects).problems
