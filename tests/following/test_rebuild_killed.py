"""A read model rebuilt under writers and readers by processes that are killed: it goes on where it was, and is whole.

``REBUILD_EVENTS`` says of how many events, ``REBUILD_KILLS`` how often it is killed, ``REBUILD_SEED`` what draws the
points, and ``REBUILD_STORE`` on which store of these; without them it is small, on stores that need no server.
"""

import os
from random import Random
from types import SimpleNamespace

import postgres_server
import pytest
from rebuilding import Plan, judge_rebuild
from rebuilt import AFTER, BEFORE, PHASES, append_first, event_key, filled, problems_of_model, read

from persist_effects import kv

EVENTS = int(os.environ.get("REBUILD_EVENTS", "4000"))
KILLS = int(os.environ.get("REBUILD_KILLS", "10"))
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


@pytest.mark.exploration
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
    assert rebuild.kills.total() == KILLS
    assert KILLS < 5 or min(rebuild.kills[phase] for phase in PHASES) >= KILLS // 5
    assert rebuild.was_outdated


# What the judgement catches


def rebuilt_in_memory(store):
    append_first(store, 5)
    store.run(filled(BEFORE, 2))
    store.run(filled(AFTER, 2))
    return store


def test_a_model_that_was_rebuilt_in_peace_is_whole(store):
    assert problems_of_model(rebuilt_in_memory(store)) == []


WRONG = {
    "an event is missing": lambda: kv.delete(f"model/rebuilt/2/{event_key(3)}"),
    "an event is another": lambda: kv.put(f"model/rebuilt/2/{event_key(3)}", [2, "a/0", 4]),
    "an event is there that was not appended": lambda: kv.put(f"model/rebuilt/2/{event_key(6)}", [2, "a/0", 6]),
    "an old key is left": lambda: kv.put(f"model/rebuilt/1/{event_key(1)}", [1, "a/0", 1]),
    "it says that it is behind": lambda: kv.put("model/rebuilt/2/through", 4),
    "the newer version has not taken over": lambda: kv.put("follow-next/rebuilt", {"position": 5}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_model_that_is_wrong_is_found(store, wrong):
    store = rebuilt_in_memory(store)
    store.run(WRONG[wrong]())
    assert problems_of_model(store)


@pytest.mark.parametrize("wrong", ["it says that it is behind", "an event is missing"])
def test_a_reader_that_is_shown_less_than_before_says_so(store, wrong):
    store = rebuilt_in_memory(store)
    store.run(WRONG[wrong]())
    with pytest.raises(AssertionError, match=r"went through 5"):
        # It is never over: what is wrong ends it.
        read(store, Random(0), SimpleNamespace(wait=lambda _: False), 5, lambda *_: None)
