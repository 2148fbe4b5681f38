"""The plugin for pytest, run by pytest itself on small test files, as a user's are."""

import re
from pathlib import Path

import pytest

# Imported here, because pytester forgets what a run has imported, and half of a package would then be there twice.
import interpreters.crash
import interpreters.file.store
import interpreters.schedule
import interpreters.traces  # noqa: F401
from interpreters.pytest_plugin import crash_test, explore_test
from persist_effects import InvalidRequest, kv

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
    [line, *_] = [line for line in result.outlines if "--repro" in line]
    token = line.split('--repro "')[1].rstrip('"')
    again = run(FAILING, "--repro", token)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["explored 1 states in 1 test"])


def test_a_token_for_a_test_that_explores_nothing_is_refused(run):
    result = run(FAILING + "\ndef test_other(): pass\n", "-k", "other", "--repro", "1.00000000")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--repro is for a crash_test or an explore_test, and *::test_other is neither*"])


def test_marks_of_the_function_are_marks_of_the_test(run):
    result = run(
        """
import pytest

@crash_test(depth=1)
@pytest.mark.skip(reason="below")
def test_below():
    yield from kv.put("k", 1)

@pytest.mark.skip(reason="above")
@explore_test()
def test_above():
    return []
""",
        "-rs",
    )
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines_random(["*below", "*above"])


def test_methods_of_a_class_are_tests_with_their_self(run):
    result = run(
        """
class TestBoth:
    key = "k"

    @crash_test(depth=1)
    def test_workload(self):
        yield from kv.put(self.key, 1)

    @crash_test(depth=1)
    def test_list(self):
        def put():
            yield from kv.put(self.key, 1)
        return [put]

    @explore_test()
    def test_programs(self):
        def put():
            yield from kv.put(self.key, 1)
        return [put, put]
"""
    )
    result.assert_outcomes(passed=3)
    result.stdout.re_match_lines([r"explored \d+ interleavings in 1 test", r"explored \d+ states in 2 tests"])


def test_what_a_decorator_cannot_make_a_test_of_is_refused_where_it_stands():
    def test_plain():
        yield from kv.put("k", 1)

    def test_with_a_fixture(store):
        yield from kv.put("k", store)

    class TestIt:
        def test_method(self):
            yield from kv.put("k", 1)

        def test_with_a_fixture(self, store):
            yield from kv.put("k", store)

        @staticmethod
        def test_without_self():
            yield from kv.put("k", 1)

    @pytest.mark.parametrize("n", [1])
    def test_with_parameters():
        yield from kv.put("k", 1)

    for decorator in (crash_test, explore_test):
        for refused in (
            lambda d=decorator: d(test_plain),
            lambda d=decorator: d(test_with_a_fixture),
            lambda d=decorator: d(TestIt.test_method),
            lambda d=decorator: d()(test_with_a_fixture),
            lambda d=decorator: d()(TestIt.test_with_a_fixture),
            lambda d=decorator: d()(test_with_parameters),
        ):
            with pytest.raises(InvalidRequest, match=r"takes no fixtures and no parameters.*Write `@(crash|explore)_"):
                refused()
        with pytest.raises(InvalidRequest, match="make `self` its first parameter"):
            decorator()(TestIt.test_without_self)
        with pytest.raises(InvalidRequest, match="makes a test of a function, not of an int, 7"):
            decorator()(7)


def test_parameters_above_the_decorator_are_refused_when_the_test_is_collected(run):
    result = run(
        """
import pytest

@pytest.mark.parametrize("n", [1, 2])
@crash_test()
def test_it():
    yield from kv.put("k", 1)
"""
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*test_it: such a test takes no fixtures and no parameters*"])


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
    [line, *_] = [line for line in result.outlines if "--repro" in line and line.startswith("or: pytest")]
    token = line.split('--repro "')[1].rstrip('"')
    again = run(INTERLEAVED.replace("PROGRAM", "add"), "--repro", token)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["explored 1 interleavings in 1 test"])


def test_the_command_to_paste_starts_from_where_pytest_was_started(pytester, monkeypatch):
    directory = pytester.mkdir("two words")
    (directory / "test_sums.py").write_text(HEAD + INTERLEAVED.replace("PROGRAM", "add"))
    (pytester.path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "interpreters.pytest_plugin", "-p", "no:persist-effects"]
    result = pytester.runpytest_inprocess(*plugins, directory)
    assert "or: pytest 'two words/test_sums.py::test_it' --repro " in result.stdout.str()
    monkeypatch.chdir(directory)
    result = pytester.runpytest_inprocess(*plugins)
    assert "or: pytest test_sums.py::test_it --repro " in result.stdout.str()


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
    assert "made" in next((pytester.path / "traces").rglob("test_it.jsonl")).read_text()
    run(GOLDEN.replace("VALUE", "1")).assert_outcomes(passed=1)
    run(GOLDEN.replace("VALUE", "2")).assert_outcomes(failed=1)


RECORDED = """
import pytest
from persist_effects.trace import record

def recorded(value):
    from interpreters import open_store
    return record(log.append("s", "made", value), open_store("memory:", clock=lambda: 7))[1]
"""


def test_golden_traces_stand_under_their_module_and_class(run, pytester):
    text = """
class TestOne:
    def test_it(self, golden):
        golden(recorded(1))
        golden(recorded(2), "second")

class TestOther:
    class TestInner:
        @pytest.mark.parametrize("way", ["a/b"])
        def test_it(self, golden, way):
            golden(recorded(3))
"""
    run(RECORDED + text, "--update-traces").assert_outcomes(passed=2)
    [module] = (pytester.path / "traces").iterdir()
    assert module.name.startswith("test_golden_traces_stand")
    names = {"TestOne.test_it.jsonl", "TestOne.test_it-second.jsonl", "TestOther.TestInner.test_it-a-b.jsonl"}
    assert {path.name for path in module.iterdir()} == names
    run(RECORDED + text).assert_outcomes(passed=2)


@pytest.mark.parametrize("how", [(), ("--update-traces",)])
def test_a_golden_trace_that_would_take_the_file_of_another_is_refused(run, how):
    text = """
def test_it(golden):
    golden(recorded(1), "one")
    golden(recorded(1), "one")

@pytest.mark.parametrize("way", ["a/b", "a:b"])
def test_ways(golden, way):
    golden(recorded(1))
"""
    run(RECORDED + text, "--update-traces")
    result = run(RECORDED + text, *how)
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*InvalidRequest: a golden trace was given for *: give a name for this one"])


@pytest.mark.parametrize("name", ["../up", "a b", "a/b", "a\\n"])
def test_the_name_of_a_golden_trace_is_a_plain_name(run, pytester, name):
    result = run(RECORDED + f"def test_it(golden):\n    golden(recorded(1), {name!r})\n", "--update-traces")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*it has only letters, digits, and . _ -"])
    assert not (pytester.path / "traces").exists()


def test_a_golden_trace_that_differs_or_is_missing_is_told_with_the_option_alone(run):
    text = RECORDED + "def test_it(golden):\n    golden(recorded(VALUE))\n"
    for result in (
        run(text.replace("VALUE", "1")),
        run(text.replace("VALUE", "1"), "--update-traces") and run(text.replace("VALUE", "2")),
    ):
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*write it anew: pytest --update-traces"])
        assert "update=True" not in str(result.stdout)
        assert "Traceback" not in str(result.stdout)
        assert "check_golden" not in str(result.stdout)


def test_golden_given_the_pair_that_record_returns_says_to_give_the_trace(run, pytester):
    text = "def test_it(golden, store):\n    golden(record(log.last_seq('s'), store))\n"
    result = run(RECORDED + text, "--update-traces")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*give the trace: `outcome, trace = record(...)`"])
    assert not (pytester.path / "traces").exists()


def test_golden_traces_of_the_stores_are_the_same_each_time(run):
    text = """
def test_it(golden, store):
    golden(record(log.append("s", "made", 1), store)[1])
    golden(record(log.append("s", "made", 2), store)[1], "second")
"""
    run(RECORDED + text, "--update-traces").assert_outcomes(passed=2)
    run(RECORDED + text).assert_outcomes(passed=2)


def test_the_test_file_of_the_guide_passes(run):
    page = (Path(__file__).parents[1] / "docs" / "ten-minutes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    result = run("\n".join(blocks))
    result.assert_outcomes(passed=4)
    result.stdout.re_match_lines([r"explored \d+ interleavings in 1 test", r"explored \d+ states in 1 test"])
