"""The fence with real processes: a worker that stands in its handler while another takes its place writes nothing."""

import subprocess
from pathlib import Path

import pytest
from fenced import EFFECTS, GROUP, followed_as
from follower_stores import OWN
from server_processes import python_process

from interpreters import open_store
from persist_effects import kv, log

CHILD = Path(__file__).with_name("fence_child.py")
EVENTS = [["s/1", 1], ["s/1", 2], ["s/2", 1]]


def effects_beside_a_late_worker(url, fence):
    """What takes effect, and by whom, where one worker is late."""
    with open_store(url) as store:
        for stream, _ in EVENTS:
            store.run(log.append(stream, "made", None))
        late = python_process(CHILD, url, "late", fence, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with late:
            try:
                assert late.stdout.readline() == "s/1 1\n"
                # Longer than a lease: it is not asked for the time, but looked at so often.
                store.run(followed_as("quick", timeout=2 * GROUP.lease_seconds))
                assert not store.run(kv.has("follow-member/crew/late"))
                assert late.poll() is None
                before = [event.data for event in store.run(log.read(EFFECTS))]
                late.communicate("\n" * 10, timeout=60)
            finally:
                late.kill()
        assert late.returncode == 0
        after = [event.data for event in store.run(log.read(EFFECTS))]
        assert after[: len(before)] == before
        return before, after[len(before) :]


@pytest.mark.parametrize("name", OWN)
def test_a_worker_that_was_taken_for_dead_while_in_its_handler_writes_nothing(tmp_path, name):
    with OWN[name](tmp_path) as url:
        before, after = effects_beside_a_late_worker(url, "with")
    assert sorted(before) == [[*event, "quick"] for event in EVENTS]
    assert after == []


@pytest.mark.parametrize("name", OWN)
def test_without_the_fence_the_same_event_takes_effect_twice(tmp_path, name):
    with OWN[name](tmp_path) as url:
        before, after = effects_beside_a_late_worker(url, "without")
    assert sorted(before) == [[*event, "quick"] for event in EVENTS]
    assert ["s/1", 1, "late"] in after
