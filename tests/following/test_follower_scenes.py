"""Followers beside others, in every order of their requests within the bounds of each scene, and killed at each."""

import pytest
from follower_scenes import SCENES

LONG = {"members are killed", "a member is late", "a version is built while the one before goes on"}


@pytest.mark.exploration
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exploration) if name in LONG else name for name in SCENES]
)
def test_however_requests_come_each_event_takes_effect_once_and_readers_see_whole_versions(name):
    report = SCENES[name].explored()
    assert report.verdict == "passed", report
