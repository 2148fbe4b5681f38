"""Under pytest: the test that made a program which was never run fails, with the line that made it.

A part of the plugin. A program that is dropped after its test is over is told in the summary, and the run fails.
"""

import gc
from collections.abc import Generator
from typing import Any

import pytest

from interpreters.never_run import Lost, Watcher

Hook = Generator[None, Any, Any]


class NeverRunPlugin:
    """Watches the programs that are made in each test."""

    def __init__(self) -> None:
        self._test = ""
        self._lost: list[Lost] = []
        self._late: list[Lost] = []
        self._has_failed: set[str] = set()
        self._watcher = Watcher(self._note, lambda: self._test)

    def pytest_configure(self) -> None:
        """Watch from now on."""
        self._watcher.__enter__()

    def pytest_unconfigure(self) -> None:
        """Watch no more."""
        self._watcher.__exit__()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Hook:
        """Fail a setup in which a program was lost."""
        self._test = item.nodeid
        return (yield from self._watched(item, "setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Hook:
        """Fail a test in which a program was lost."""
        return (yield from self._watched(item, "call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Hook:
        """Fail a teardown in which a program was lost, or after which one that was made before is gone."""
        try:
            return (yield from self._watched(item, "teardown", is_last=True))
        finally:
            self._test = ""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let the run fail, where nothing else does, for what was found too late."""
        if self._told_late() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell what was found too late for its test to fail."""
        for lost in self._told_late():
            where = f"made in {lost.made_in}, and " if lost.made_in else ""
            terminalreporter.write_line(f"ERROR {where}found after it was over: {lost}", red=True)

    def _note(self, lost: Lost) -> None:
        (self._lost if lost.made_in == self._test else self._late).append(lost)

    def _told_late(self) -> list[Lost]:
        # What a failed test has left behind was kept by its traceback.
        return [lost for lost in self._late if lost.made_in not in self._has_failed]

    def _watched(self, item: pytest.Item, when: str, *, is_last: bool = False) -> Hook:
        try:
            result = yield
        except BaseException:
            self._has_failed.add(item.nodeid)
            if lost := self._take():
                item.add_report_section(when, "programs that were never run", lost)
            raise
        if is_last and self._watcher.pending(item.nodeid):
            # It may be held by a circle. Rare, so no other test pays for it.
            gc.collect()
        if lost := self._take():
            self._has_failed.add(item.nodeid)
            pytest.fail(lost, pytrace=False)
        return result

    def _take(self) -> str:
        lost, self._lost = self._lost, []
        return "\n".join(map(str, lost))
