"""Flows struck by faults at every request, and beside others in every order: they end, and nothing happens twice."""

import pytest
from flow_scenes import SCENES

STRUCK = [name for name, scene in SCENES.items() if scene.depth]
STRUCK_TWICE = [name for name, scene in SCENES.items() if scene.depth > 1]
BESIDE = [name for name, scene in SCENES.items() if scene.bound is not None]


@pytest.mark.exploration
@pytest.mark.parametrize("name", STRUCK)
def test_whatever_strikes_a_flow_its_effects_are_there_once_and_it_ends(name):
    report = SCENES[name].struck()
    assert report.verdict == "passed", report
    assert report.is_exhaustive


@pytest.mark.exploration
@pytest.mark.parametrize("name", STRUCK_TWICE)
def test_whatever_strikes_a_flow_twice_its_effects_are_there_once_and_it_ends(name):
    report = SCENES[name].struck(2)
    assert report.verdict == "passed", report


@pytest.mark.exploration
@pytest.mark.parametrize("name", BESIDE)
def test_however_requests_come_a_flow_is_written_by_one_host_and_hears_all_that_it_is_told(name):
    report = SCENES[name].side_by_side()
    assert report.verdict == "passed", report


@pytest.mark.exploration
@pytest.mark.parametrize("name", BESIDE)
def test_however_requests_come_with_one_switch_more_a_flow_is_written_by_one_host(name):
    scene = SCENES[name]
    report = scene._replace(bound=scene.bound + 1, limit=600).side_by_side()
    assert report.verdict == "passed", report
