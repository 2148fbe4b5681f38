"""The plugin for pytest, run by pytest itself on small test files, as a user's are."""

import re
import subprocess
import sys

import pytest
from places import ROOT

# Imported here, because pytester forgets what a run has imported, and half of a package would then be there twice.
import interpreters.explore.crashes
import interpreters.explore.schedule
import interpreters.stores.file.store
import interpreters.stores.served
import interpreters.traces
from interpreters import Store
from interpreters.pytest_plugin import crash_test, explore_test
from persist_effects import InvalidRequest, kv

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "interpreters.pytest_plugin", "-p", "no:persist-effects")


HEAD = """
from interpreters.pytest_plugin import crash_test, explore_test
from persist_effects import kv, log
"""


@pytest.fixture
def run(pytester):
    """Runs a test file with the plugin, and gives the result."""

    def run_file(text: str, *arguments: str):
        pytester.makepyfile(HEAD + text)
        return pytester.runpytest_inprocess(*PLUGIN, *arguments)

    return run_file


@pytest.fixture
def few_plugins(monkeypatch):
    """Pytest in processes of its own loads the plugins that it is told to: all that there are take seconds."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


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
    result = pytester.runpytest_inprocess(*PLUGIN, directory)
    assert "or: pytest 'two words/test_sums.py::test_it' --repro " in result.stdout.str()
    monkeypatch.chdir(directory)
    result = pytester.runpytest_inprocess(*PLUGIN)
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
    run(GOLDEN.replace("VALUE", "1")).assert_outcomes(failed=1)
    run(GOLDEN.replace("VALUE", "1"), "--update-traces").assert_outcomes(passed=1)
    assert "made" in next((pytester.path / "traces").rglob("test_it.jsonl")).read_text()
    run(GOLDEN.replace("VALUE", "1")).assert_outcomes(passed=1)
    run(GOLDEN.replace("VALUE", "2")).assert_outcomes(failed=1)


@pytest.mark.parametrize("token", ["1.00000000", "s1:0,1,1,0", "99.12345678"])
def test_a_token_that_fits_no_state_of_the_test_is_told_in_one_line(run, token):
    result = run(FAILING, "--repro", token)
    result.assert_outcomes(failed=1)
    refused_in_one_line(result, token)


@pytest.mark.parametrize("token", ["1.00000000", "s1:5,5", "s1:0,0,0,0,0,0,0"])
def test_a_token_that_fits_no_interleaving_of_the_test_is_told_in_one_line(run, token):
    result = run(INTERLEAVED.replace("PROGRAM", "add"), "--repro", token)
    result.assert_outcomes(failed=1)
    refused_in_one_line(result, token)


def refused_in_one_line(result, token):
    heading = next(at for at, line in enumerate(result.outlines) if "FAILURES" in line)
    _, told, after, *_ = result.outlines[heading + 1 :]
    assert told.startswith("--repro: ")
    assert token in told
    assert after.startswith("=====")


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
    page = (ROOT / "docs" / "tutorial" / "ten-minutes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    result = run("\n".join(blocks))
    result.assert_outcomes(passed=4)
    result.stdout.re_match_lines([r"explored \d+ interleavings in 1 test", r"explored \d+ states in 1 test"])


# Beside other plugins


def test_options_that_another_plugin_or_conftest_has_are_theirs_and_ours_have_long_names(run, pytester):
    pytester.makeconftest(
        """
def pytest_addoption(parser):
    parser.addoption("--repro", default="of others")
    parser.getgroup("theirs").addoption("--update-traces", action="store_true")
"""
    )
    text = FAILING + "\ndef test_theirs(request):\n    assert request.config.getoption('--repro') == 'of others'\n"
    result = run(text)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines_random(
        [
            "persist-effects: --repro is an option of another plugin, so here it is --persist-repro",
            "persist-effects: --update-traces is an option of another plugin, so here it is --persist-update-traces",
        ]
    )
    line, *_ = [line for line in result.outlines if line.startswith("or: pytest")]
    token = line.split(' --persist-repro "')[1].removesuffix('"')
    again = run(text, "-k", "test_it", "--persist-repro", token)
    again.assert_outcomes(failed=1, deselected=1)
    again.stdout.fnmatch_lines(["explored 1 states in 1 test"])


def test_the_long_names_are_there_beside_the_short_ones(run, pytester):
    run(GOLDEN.replace("VALUE", "1"), "--persist-update-traces").assert_outcomes(passed=1)
    run(GOLDEN.replace("VALUE", "1")).assert_outcomes(passed=1)
    text = "def test_it(persist_store, store, persist_golden, golden):\n    assert persist_store is store\n"
    run(text).assert_outcomes(passed=2)


@pytest.mark.parametrize("is_first", [True, False])
def test_fixtures_that_another_plugin_has_are_theirs_whichever_was_loaded_first(pytester, is_first):
    pytester.makepyfile(
        other_plugin="""
import pytest

@pytest.fixture
def store():
    return "of others"
""",
        test_it="""
def test_theirs(store, golden):
    assert store == "of others"

def test_ours(persist_store):
    assert persist_store.handlers
""",
    )
    plugins = ["-p", "interpreters.pytest_plugin", "-p", "other_plugin"]
    order = plugins[2:] + plugins[:2] if is_first else plugins
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess(*order, "-p", "no:persist-effects")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["persist-effects: store is a fixture of other_plugin, so here it is persist_store"])


def test_a_fixture_of_a_conftest_goes_before_ours(run, pytester):
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef store():\n    return 7\n")
    result = run("def test_it(store):\n    assert store == 7\n")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*is a fixture of*")


IN_A_TEST_CASE = """
import unittest

def check(outcomes):
    assert (yield from kv.get("n")) == 2

class TestSums(unittest.TestCase):
    @crash_test(depth=1)
    def test_workload(self):
        self.assertTrue(True)
        yield from kv.put("n", 1)

    @explore_test(check)
    def test_programs(self):
        def add():
            yield from kv.put("n", (yield from kv.get_or("n", 0)) + 1)
        return [add, add]
"""


def test_methods_of_a_test_case_are_tests_under_pytest_and_tokens_show_them_again(run):
    result = run(IN_A_TEST_CASE)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.re_match_lines([r"explored \d+ interleavings in 1 test", r"explored \d+ states in 1 test"])
    line, *_ = [line for line in result.outlines if line.startswith("or: pytest")]
    again = run(IN_A_TEST_CASE, "-k", "test_programs", "--repro", line.split('"')[1])
    again.assert_outcomes(failed=1, deselected=1)
    again.stdout.fnmatch_lines(["explored 1 interleavings in 1 test"])


def test_methods_of_a_test_case_are_tests_under_unittest_alone(pytester):
    pytester.makepyfile(test_it=HEAD + IN_A_TEST_CASE)
    result = pytester.run(sys.executable, "-m", "unittest", "test_it")
    assert "FAILED (failures=1)" in result.stderr.str()
    assert "Ran 2 tests" in result.stderr.str()
    assert "check failed" in result.stderr.str()


def test_tests_that_explore_need_no_plugin(pytester):
    pytester.makepyfile(HEAD + INTERLEAVED.replace("PROGRAM", "add"))
    result = pytester.runpytest_inprocess("-p", "no:interpreters.pytest_plugin", "-p", "no:persist-effects")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*check failed*"])


def test_an_interrupt_of_an_exploration_says_what_to_paste(pytester, few_plugins):
    text = """
def check(outcomes):
    if (yield from kv.get("n")) == 2:
        raise KeyboardInterrupt

@explore_test(check)
def test_it():
    def put(value):
        return lambda: kv.put("n", value)
    return [put(1), put(2)]
"""
    pytester.makepyfile(HEAD + text)
    result = pytester.runpytest_subprocess(*PLUGIN)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    line, *_ = [line for line in result.outlines if line.startswith("interrupted in one state of an exploration")]
    token = line.split('--repro "')[1].rstrip('"')
    again = pytester.runpytest_subprocess(*PLUGIN, "--repro", token)
    assert again.ret == pytest.ExitCode.INTERRUPTED


# Failures that come back first


def kept_in(pytester):
    return sorted((pytester.path / ".persist-effects-failures").glob("*.jsonl"))


def test_what_failed_is_run_first_the_next_time_and_alone(run, pytester):
    program = INTERLEAVED.replace("PROGRAM", "add")
    run(program).assert_outcomes(failed=1)
    [file] = kept_in(pytester)
    assert file.name.endswith(".test_it.jsonl")
    assert file.read_text() == '{"token":"s1:0,1,1,0","kind":"check failed"}\n'
    again = run(program)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(
        ["explored 1 interleavings in 1 test", "*::test_it: failed before, and again: s1:0,1,1,0. *not explored"]
    )
    assert kept_in(pytester) == [file]


def test_what_passes_now_is_forgotten_once_everything_has_passed(run, pytester):
    run(INTERLEAVED.replace("PROGRAM", "add"))
    mended = INTERLEAVED.replace("PROGRAM", "add").replace("== 2", "in (1, 2)")
    result = run(mended)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_it: passes now, and is forgotten: s1:0,1,1,0"])
    assert kept_in(pytester) == []
    assert "passes now, and" not in run(mended).stdout.str()


def test_what_passes_now_is_kept_while_the_test_fails_otherwise(run, pytester):
    run(INTERLEAVED.replace("PROGRAM", "add"))
    # The order that failed passes, and one that passed fails.
    run(INTERLEAVED.replace("PROGRAM", "add").replace("== 2", "== 1")).assert_outcomes(failed=1)
    [file] = kept_in(pytester)
    assert [line.split('"')[3] for line in file.read_text().splitlines()] == ["s1:0,0,1,1", "s1:0,1,1,0"]


def test_a_kept_token_that_fits_no_more_is_dropped_with_a_word(run, pytester):
    run(INTERLEAVED.replace("PROGRAM", "add"))
    [file] = kept_in(pytester)
    with file.open("a") as more:
        more.write("<<<<<<< ours\n")
    shorter = INTERLEAVED.replace("PROGRAM, PROGRAM", "safe").replace("== 2", "== 1")
    result = run(shorter)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*: 1 lines are not kept failures: dropped", "*dropped s1:0,1,1,0, which fits these programs no more: *"]
    )
    assert kept_in(pytester) == []


def test_a_crash_test_keeps_its_failures_too(run, pytester):
    run(FAILING).assert_outcomes(failed=1)
    again = run(FAILING)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["explored 1 states in 1 test", "*::test_it: failed before, and again: *"])


def test_a_workload_that_raises_is_told_again_from_what_was_kept(run, pytester):
    raising = """
@crash_test(depth=1)
def test_it():
    yield from kv.put("k", 1)
    raise ValueError("no")
"""
    run(raising).assert_outcomes(failed=1)
    run(raising).stdout.fnmatch_lines(["*::test_it: failed before, and again: 0.r.*"])


# In several processes


@pytest.fixture
def workers(pytester, few_plugins):
    """Runs test files with the plugin in two processes, and gives the result."""
    return lambda *arguments: pytester.runpytest_subprocess(*PLUGIN, "-p", "xdist", "-n2", *arguments)


@pytest.mark.exploration
def test_workers_hand_over_how_much_they_explored_and_keep_what_failed_and_their_tokens_show_it_again(
    workers, pytester
):
    pytester.makepyfile(
        test_one=HEAD + FAILING,
        test_two=HEAD + FAILING + INTERLEAVED.replace("test_it", "test_other").replace("PROGRAM", "safe"),
    )
    result = workers()
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.re_match_lines([r"explored \d+ interleavings in 1 test", r"explored \d+ states in 2 tests"])
    assert [file.name for file in kept_in(pytester)] == ["test_one.test_it.jsonl", "test_two.test_it.jsonl"]
    again = workers("-k", "test_it")
    again.assert_outcomes(failed=2)
    told = [line for line in again.outlines if "failed before, and again" in line]
    assert sorted(line.split("::")[0] for line in told) == ["test_one.py", "test_two.py"]
    line, *_ = [line for line in result.outlines if line.startswith("or: pytest test_one.py")]
    again = workers("test_one.py", "--repro", line.split('"')[1])
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["explored 1 states in 1 test"])


def test_a_token_for_several_tests_is_refused_in_workers_too(workers, pytester):
    pytester.makepyfile(HEAD + FAILING + "\ndef test_other(): pass\n")
    result = workers("--repro", "1.00000000")
    assert result.ret != pytest.ExitCode.OK
    assert "--repro is for one test, and 2 were collected" in result.stdout.str() + result.stderr.str()


@pytest.mark.exploration
def test_two_tests_with_one_file_for_their_traces_are_refused_in_whichever_process_they_run(workers, pytester):
    text = """
@pytest.mark.parametrize("way", ["a/b", "a:b"])
def test_ways(golden, way):
    golden(recorded(1))
"""
    pytester.makepyfile(HEAD + RECORDED + text)
    for _ in range(2):
        result = workers("--update-traces")
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(["FAILED *test_ways[[]a:b[]]*"])


# Beside another package of our name


def test_the_plugin_imports_no_store_before_a_test_uses_one():
    code = (
        "import sys, interpreters.pytest_plugin\\n"
        "print(*(name for name in sys.modules if name.startswith('interpreters.') or name == 'multiformats'))"
    ).replace("\\n", "\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    names = {f"interpreters.{name}" for name in ("pytest_plugin", "never_run", "pytest_never_run", "store_testing")}
    assert set(done.stdout.split()) == names


@pytest.fixture
def shadowed(pytester, monkeypatch, few_plugins):
    """A directory with a package of the user's own, named as ours is."""
    package = pytester.mkpydir("interpreters")
    (package / "brainfuck.py").write_text("def run(): return 7\n")
    pytester.makepyfile("from interpreters.brainfuck import run\n\ndef test_it():\n    assert run() == 7\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return package


def test_a_package_of_our_name_makes_the_plugin_stand_aside_and_say_so(shadowed, pytester):
    result = pytester.run(sys.executable, "-m", "pytest", "-p", "persist_effects_start", "-p", "no:persist-effects")
    result.assert_outcomes(passed=1)
    told = result.stdout.str()
    assert f"{shadowed / '__init__.py'} is found" in told
    assert f"{ROOT / 'interpreters'}, of persist-effects, is not" in told


def test_a_test_that_imports_from_a_package_of_our_name_is_told_of_both(shadowed, pytester):
    # Without the directory where it starts, ours is loaded before pytest puts the tests' directory on the path.
    left = "sys.path[:] = [place for place in sys.path if place not in ('', os.getcwd())]"
    code = f"import os, sys; {left}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    plugins = ["-p", "persist_effects_start", "-p", "no:persist-effects"]
    result = pytester.run(sys.executable, "-c", code, *plugins)
    result.assert_outcomes(errors=1)
    assert f"{shadowed} is a package of the same name as {ROOT / 'interpreters'}" in result.stdout.str()


def test_the_command_says_that_another_package_has_our_name(shadowed, pytester):
    code = "from persist_effects_start import command; command()"
    result = pytester.run(sys.executable, "-c", code, "verify", "x")
    assert result.ret == 1
    assert (
        f"persist-effects: there are two packages named 'interpreters': {shadowed / '__init__.py'}"
        in result.stderr.str()
    )


def test_a_served_store_starts_beside_a_package_of_our_name(shadowed, pytester, monkeypatch):
    monkeypatch.chdir(pytester.path)
    with interpreters.stores.served.RemoteStore.spawn("memory:") as remote:
        assert Store(remote).run(kv.put("k", 1)) == 1


def test_a_test_that_fails_with_an_error_of_ours_names_its_page(run):
    result = run(
        """
from persist_effects import StoreClosed

def test_it(persist_store):
    persist_store.run(kv.get(""))

def test_of_another_error():
    raise LookupError("no tea")

def test_of_one_that_ours_has_caused():
    try:
        raise StoreClosed("closed")
    except StoreClosed as error:
        raise LookupError("no tea") from error
"""
    )
    result.assert_outcomes(failed=4)
    told = [line for line in result.outlines if line.startswith("see: ")]
    assert told == [
        *["see: persist-effects explain InvalidRequest"] * 2,
        "see: persist-effects explain StoreClosed",
    ]
