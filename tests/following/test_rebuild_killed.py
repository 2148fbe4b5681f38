"""A read model rebuilt under writers and readers by processes that are killed: it goes on where it was, and is whole.

``REBUILD_EVENTS`` says of how many events, ``REBUILD_KILLS`` how often it is killed, ``REBUILD_SEED`` what draws the
points, and ``REBUILD_STORE`` on which store of these; without them it is small, on stores that need no server.
"""

import os

import postgres_server
import pytest
from rebuilding import Plan, judge_rebuild
from rebuilt import PHASES

EVENTS = int(os.environ.get("REBUILD_EVENTS", "4000"))
KILLS = int(os.environ.get("REBUILD_KILLS", "5"))
SEED = int(os.environ.get("REBUILD_SEED", "0"))
IS_LONG = "REBUILD_EVENTS" in os.environ
BATCH = 1000 if IS_LONG else 100

URLS = {
    "file": lambda place: f"file:{place / 'store'}",
    "sqlite": lambda place: f"sqlite:{place / 'store.db'}",
    "postgres": lambda place: postgres_server.new_store_url(),
}
CHOSEN = os.environ.get("REBUILD_STORE", "all")
STORES = [name for name in URLS if CHOSEN in {name, "all"} and (IS_LONG or name != "postgres")]


@pytest.mark.parametrize("name", STORES)
def test_a_rebuild_that_is_killed_goes_on_where_it_was_and_readers_see_whole_versions(tmp_path, capsys, name):
    def show(words):
        if IS_LONG:
            with capsys.disabled():
                print(f"{name}: {words}", flush=True)

    # One process at a time has a file store, so that there it is killed with its writers and readers.
    plan = Plan(EVENTS, KILLS, BATCH, SEED, is_one_process=name == "file")
    try:
        rebuild = judge_rebuild(URLS[name](tmp_path), plan, show)
    except AssertionError as error:
        again = f"make rebuild EVENTS={EVENTS} STORE={name} KILLS={KILLS} SEED={SEED}"
        raise AssertionError(f"{again}: {error}") from error
    show(f"killed {dict(rebuild.kills)}, the longest read took {rebuild.longest_read:.3f} s")
    assert set(rebuild.kills) == set(PHASES)
    assert rebuild.kills.total() == KILLS
    assert rebuild.was_outdated
