"""Pauses at random between lines, in all threads, so that what depends on how threads meet fails soon: `make paused`.

A seed draws the same pauses for a test each time. Which thread meets them is not in its hand, so a failure may take
several runs to come again.
"""

import random
import sys
import time

import pytest

VARIABLE = "PAUSES_SEED"

_LINES_PER_PAUSE = 100
_PAUSE_SECONDS_MAX = 0.04
_TEST_SECONDS_MAX = 1.5
"""For how long a test is paused, all in all."""

_NUMBER = 5
_NAME = "persist-effects pauses"


class Pauses:
    """A plugin for pytest that pauses the threads of each test.

    Args:
        seed: Draws where, and for how long.
        places: Beginnings of the paths of code between whose lines there are pauses.
    """

    def __init__(self, seed, places):
        if sys.version_info < (3, 12):
            raise pytest.UsageError(f"{VARIABLE} asks for pauses, for which Python 3.12 is needed: see `make paused`")
        self._seed, self._places = seed, tuple(places)
        self._random, self._seconds_left = random.Random(), 0.0

    def pytest_configure(self):
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(_NUMBER, _NAME)
        sys.monitoring.register_callback(_NUMBER, events.PY_START, self._begun)
        sys.monitoring.register_callback(_NUMBER, events.LINE, self._pause)
        sys.monitoring.set_events(_NUMBER, events.PY_START)

    def pytest_unconfigure(self):
        # The number is kept: other threads may still be on their way to it.
        sys.monitoring.register_callback(_NUMBER, sys.monitoring.events.PY_START, None)
        sys.monitoring.register_callback(_NUMBER, sys.monitoring.events.LINE, None)

    def pytest_report_header(self):
        return f"{VARIABLE}={self._seed}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self._random.seed(f"{self._seed}/{item.nodeid}")
        self._seconds_left = _TEST_SECONDS_MAX
        try:
            return (yield)
        finally:
            self._seconds_left = 0.0

    def _begun(self, code, offset):
        if code.co_filename.startswith(self._places):
            sys.monitoring.set_local_events(_NUMBER, code, sys.monitoring.events.LINE)
        return sys.monitoring.DISABLE

    def _pause(self, code, line):
        if self._seconds_left > 0 and self._random.random() * _LINES_PER_PAUSE < 1:
            # Most of them are short.
            seconds = _PAUSE_SECONDS_MAX * self._random.random() ** 3
            self._seconds_left -= seconds
            time.sleep(seconds)
