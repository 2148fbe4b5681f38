"""Followers beside others, in every order of their requests within the bounds of each scene, and killed at each."""

import pytest
from follower_scenes import SCENES


@pytest.mark.parametrize("name", SCENES)
def test_however_requests_come_each_event_takes_effect_once_and_readers_see_whole_versions(name):
    report = SCENES[name].explored()
    assert report.verdict == "passed", report
