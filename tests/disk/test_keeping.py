"""What is drawn as having survived is one of the states that a loss of power may leave."""

import pytest

from interpreters.disk import requests as disk
from interpreters.disk.crashing import CrashDisk
from interpreters.disk.survivors import PROFILES, Bound
from persist_effects.errors import InvalidRequest

DRAWS = 400
# No draw may be missed for being torn where the states are not.
BOUND = Bound(tear_bytes=64, subsets=4096)


def worked_on() -> CrashDisk:
    """A disk on which files were made, written in several places, renamed and removed, and little of that synced."""
    crash_disk = CrashDisk({"kept": b"old " * 40, "gone": b"removed " * 40, "log/": b""})
    for request in [
        disk.Create("log/new"),
        disk.Write("log/new", 0, b"first " * 20),
        disk.Remove("gone"),
        disk.Write("log/new", 90, b"second " * 20),
        disk.Write("kept", 8, b"in its place"),
        disk.Rename("log/new", "log/renamed"),
        disk.Sync("kept"),
        disk.Write("kept", 4, b"again"),
        disk.Truncate("kept", 30),
    ]:
        crash_disk.answer(request)
    return crash_disk


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_drawn_is_one_of_the_states_and_a_crash_may_draw_any_kind_of_them(profile):
    crash_disk = worked_on()
    states = {state.digest: state for state in crash_disk.states(profile, BOUND)}
    drawn = [crash_disk.survivor(seed, profile) for seed in range(DRAWS)]
    assert {state.digest for state in drawn} <= states.keys()
    assert {"lost", "torn"} <= {states[state.digest].kind for state in drawn}
    assert len({state.digest for state in drawn}) > 30
    if profile == "writeback":
        assert "stale bytes" in {states[state.digest].kind for state in drawn}


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_and_everything_are_the_ends(profile):
    crash_disk = worked_on()
    everything = crash_disk.survivor("everything", profile)
    assert (everything.image, everything.losses) == (crash_disk.image(), ())
    nothing = crash_disk.survivor("nothing", profile)
    assert nothing.image == {
        "kept": b"old old in its place" + (b"old " * 40)[20:],
        "gone": b"removed " * 40,
        "log/": b"",
    }
    assert any("again" not in loss and "kept: lost" in loss for loss in nothing.losses)


def test_many_unsynced_writes_are_drawn_from_without_looking_at_all_their_combinations():
    crash_disk = CrashDisk({"log": b""})
    for number in range(2_000):
        crash_disk.answer(disk.Write("log", 8 * number, b"12345678"))
    assert len({len(crash_disk.survivor(seed).image["log"]) for seed in range(20)}) > 5


@pytest.mark.parametrize("keep", ["some", -1, True, None, 1.5])
def test_what_does_not_say_what_survives_is_refused(keep):
    with pytest.raises(InvalidRequest, match=r"keep is .*: give 'nothing' or 'everything', or a number"):
        CrashDisk().survivor(keep)


def test_a_profile_that_is_none_is_refused():
    with pytest.raises(InvalidRequest, match="the profile is 'fat'"):
        CrashDisk().survivor("nothing", "fat")
