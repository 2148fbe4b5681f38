"""Pauses at random between the lines of a test: `make paused`."""

import json
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = f"""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, {str(Path(__file__).parent)!r})
import pauses

HERE = Path(__file__).parent
SLEPT = []
pauses.time = SimpleNamespace(sleep=SLEPT.append)


def pytest_configure(config):
    config.pluginmanager.register(pauses.Pauses(SEED, [str(HERE)]))


def pytest_unconfigure():
    (HERE / "slept.json").write_text(json.dumps(SLEPT))
"""

TEST = """
from threading import Thread


def test_lines():
    counted = count()
    thread = Thread(target=count)
    thread.start()
    thread.join()


def count():
    number = 0
    while number < 10_000:
        number += 1
    return number
"""


def run(pytester, seed):
    pytester.makeconftest(CONFTEST.replace("SEED", repr(seed)))
    pytester.makepyfile(TEST)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def slept(pytester, seed):
    result = run(pytester, seed)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK, "what runs after the last test is left alone"
    result.stdout.fnmatch_lines([f"PAUSES_SEED={seed}"])
    return json.loads((pytester.path / "slept.json").read_text())


if sys.version_info >= (3, 12):

    def test_a_seed_draws_the_same_pauses_each_time_and_another_seed_others(pytester):
        first = slept(pytester, "1")
        assert slept(pytester, "1") == first
        assert slept(pytester, "2") != first
        assert all(0 <= seconds <= 0.04 for seconds in first)
        assert 1.5 <= sum(first) < 1.6, "a test is paused for as long as it may be, and no longer"

else:

    def test_a_python_that_is_too_old_for_pauses_is_told_which_is_not(pytester):
        result = run(pytester, "1")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*Python 3.12 is needed*make paused*"])
