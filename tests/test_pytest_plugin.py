"""The plugin for pytest, run by pytest itself on small test files, as a user's are."""

import re
from pathlib import Path

import pytest

# Imported here, because pytester forgets what a run has imported, and half of a package would then be there twice.
import interpreters.crash
import interpreters.file.store
import interpreters.schedule
import interpreters.traces  # noqa: F401

pytest_plugins = ["pytester"]

HEAD = """
from interpreters.pytest_plugin import crash_test, explore_test
from persist_effects import kv, log
"""


@pytest.fixture
def run(pytester):
    """Runs a test file with the plugin, and gives the result."""

    def run_file(text: str, *arguments: str):
        pytester.makepyfile(HEAD + text)
        return pytester.runpytest_inprocess("-p", "interpreters.pytest_plugin", "-p", "no:persist-effects", *arguments)

    return run_file


def test_a_test_that_asks_for_a_store_runs_on_each_kind(run):
    result = run(
        """
def test_it(store):
    assert store.run(log.append("s", "made", 1)).seq == 1
""",
        "-v",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines_random(["*test_it[[]memory[]] PASSED*", "*test_it[[]file[]] PASSED*"])


def test_a_workload_is_a_test_of_every_crash_and_the_summary_counts_the_states(run):
    result = run(
        """
@crash_test(depth=1)
def test_an_order_survives():
    yield from log.append("orders/1", "placed", {"total": 12})

@crash_test(depth=1)
def test_two_programs_survive():
    def buy():
        yield from log.append("orders/1", "placed", 1)
    return [buy, buy]
"""
    )
    result.assert_outcomes(passed=2)
    result.stdout.re_match_lines([r"explored \d+ states in 2 tests"])


FAILING = """
def check(acked, maybe):
    assert (yield from kv.get("k")) != 1, "k is 1"

@crash_test(check, depth=1)
def test_it():
    yield from kv.put("k", 1)
    yield from kv.put("k", 2)
"""


def test_a_failure_shows_the_report_and_what_to_paste_and_that_replays_one_state(run):
    result = run(FAILING)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*failure 1 of 1: invariant*", "*AssertionError: k is 1*"])
    [line] = [line for line in result.outlines if "--repro" in line]
    token = line.split('--repro "')[1].rstrip('"')
    again = run(FAILING, "--repro", token)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["explored 1 states in 1 test"])


def test_a_token_for_several_tests_is_refused(run):
    result = run(FAILING + "\ndef test_other(): pass\n", "--repro", "1.00000000")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--repro is for one test, and 2 were collected*"])


INTERLEAVED = """
def add():
    value = yield from kv.get_or("n", 0)
    yield from kv.put("n", value + 1)

def safe():
    yield from kv.update("n", lambda n: n + 1, 0)

def check(outcomes):
    assert (yield from kv.get("n")) == 2

@explore_test(check)
def test_it():
    return [PROGRAM, PROGRAM]
"""


def test_programs_are_a_test_of_every_interleaving(run):
    result = run(INTERLEAVED.replace("PROGRAM", "safe"))
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r"explored \d+ interleavings in 1 test"])


def test_a_lost_update_fails_and_its_token_replays_it(run):
    result = run(INTERLEAVED.replace("PROGRAM", "add"))
    result.assert_outcomes(failed=1)
    [line] = [line for line in result.outlines if "--repro" in line and line.startswith("or: pytest")]
    token = line.split('--repro "')[1].rstrip('"')
    again = run(INTERLEAVED.replace("PROGRAM", "add"), "--repro", token)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["explored 1 interleavings in 1 test"])


GOLDEN = """
from interpreters import open_store
from persist_effects.trace import record

def test_it(golden):
    store = open_store("memory:", clock=lambda: 7)
    outcome, trace = record(log.append("s", "made", VALUE), store.handlers)
    golden(trace)
"""


def test_a_golden_trace_is_written_when_asked_and_compared_after(run, pytester):
    assert run(GOLDEN.replace("VALUE", "1")).parseoutcomes() == {"failed": 1}
    run(GOLDEN.replace("VALUE", "1"), "--update-traces").assert_outcomes(passed=1)
    assert "made" in (pytester.path / "traces" / "test_it.jsonl").read_text()
    run(GOLDEN.replace("VALUE", "1")).assert_outcomes(passed=1)
    run(GOLDEN.replace("VALUE", "2")).assert_outcomes(failed=1)


def test_the_test_file_of_the_guide_passes(run):
    page = (Path(__file__).parents[1] / "docs" / "ten-minutes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    result = run("\n".join(blocks))
    result.assert_outcomes(passed=4)
    result.stdout.re_match_lines([r"explored \d+ interleavings in 1 test", r"explored \d+ states in 1 test"])
