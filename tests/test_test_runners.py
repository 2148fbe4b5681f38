"""The plugin and its fixtures beside what else runs tests: unittest, Hypothesis, pytest-xdist, anyio, mocks."""

import sys

import pytest
from test_pytest_plugin import GOLDEN, HEAD, INTERLEAVED, PLUGIN, RECORDED

# Imported here, because pytester forgets what a run has imported, and half of a package would then be there twice.
from interpreters.store_testing import fresh_store
from persist_effects import InvalidRequest, clock, log

pytest_plugins = ["pytester"]

# The plugin is imported in here already, of which pytest warns before it starts.
STRICT = ("-W", "error", "-W", "ignore:Module already imported")


@pytest.fixture
def run(pytester):
    """Runs a test file with the plugin, and gives the result."""

    def run_file(text, *arguments):
        pytester.makepyfile(HEAD + text)
        return pytester.runpytest_inprocess(*PLUGIN, *arguments)

    return run_file


# Stores without fixtures


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_each_fresh_store_is_empty_and_tells_the_same_times(kind):
    for _ in range(2):
        with fresh_store(kind) as store:
            event = store.run(log.append("s", "made", 1))
            assert (event.seq, event.at) == (1, 1_700_000_000_000_000)
            assert store.run(clock.new_id())


def test_a_kind_of_store_that_is_not_there_is_refused():
    with pytest.raises(InvalidRequest, match="there is no store a str, 'redis' for tests: give one of memory, file"):
        fresh_store("redis").__enter__()


# In a TestCase

IN_A_TEST_CASE = (
    RECORDED
    + """
import unittest
from interpreters.store_testing import StoreMixin

class TestOrders(StoreMixin, unittest.TestCase):
    def test_one(self):
        self.assertEqual(self.store.run(log.append("s", "made", 1)).seq, 1)
        self.golden(recorded(1))
        self.golden(recorded(NUMBER), "second", mask=["at"])

    def test_two(self):
        self.assertIs(self.store, self.store)
        self.assertEqual(self.store.run(log.append("s", "made", 1)).seq, 1)

class TestOrdersInFiles(TestOrders):
    store_kind = "file"

class TestTasks(StoreMixin, unittest.IsolatedAsyncioTestCase):
    async def test_it(self):
        self.assertEqual((await self.store.arun(log.append("s", "made", 1))).seq, 1)
"""
)


def test_a_test_case_has_a_store_for_each_test_and_golden_traces(run, pytester):
    text = IN_A_TEST_CASE.replace("NUMBER", "2")
    run(text, "--update-traces").assert_outcomes(passed=5)
    [module] = (pytester.path / "traces").iterdir()
    names = {f"TestOrders{kind}.test_one{name}.jsonl" for kind in ("", "InFiles") for name in ("", "-second")}
    assert {path.name for path in module.iterdir()} == names
    run(text).assert_outcomes(passed=5)
    result = run(IN_A_TEST_CASE.replace("NUMBER", "3"))
    result.assert_outcomes(failed=2, passed=3)
    result.stdout.fnmatch_lines(["*if that is meant, write it anew: pytest --update-traces"])


def test_under_unittest_alone_it_is_the_same_and_a_variable_writes_golden_traces(pytester, monkeypatch):
    pytester.makepyfile(test_it=HEAD + IN_A_TEST_CASE.replace("NUMBER", "2"))
    result = pytester.run(sys.executable, "-W", "error", "-m", "unittest", "test_it")
    assert "FAILED (failures=2)" in result.stderr.str()
    assert "write it anew: PERSIST_UPDATE_TRACES=1 python -m unittest" in result.stderr.str()
    monkeypatch.setenv("PERSIST_UPDATE_TRACES", "1")
    assert "OK" in pytester.run(sys.executable, "-m", "unittest", "test_it").stderr.str()
    monkeypatch.delenv("PERSIST_UPDATE_TRACES")
    assert "OK" in pytester.run(sys.executable, "-m", "unittest", "test_it").stderr.str()
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=5)


def test_a_golden_trace_that_a_test_case_gives_twice_needs_a_name(run):
    text = IN_A_TEST_CASE.replace("NUMBER", "2").replace('"second"', '""')
    result = run(text, "--update-traces")
    result.assert_outcomes(failed=2, passed=3)
    result.stdout.fnmatch_lines(["*InvalidRequest: a golden trace was given for *: give a name for this one"])


@pytest.mark.parametrize(
    "body",
    [
        "    def test_it(self, store):\n        pass\n",
        "    def test_it(self, persist_golden):\n        pass\n",
        "    @pytest.fixture(autouse=True)\n    def its(self, store): self.s = store\n    def test_it(self): pass\n",
        "    @pytest.mark.usefixtures('golden')\n    def test_it(self): pass\n",
    ],
    ids=["an argument", "a long name", "an autouse fixture", "usefixtures"],
)
def test_a_test_case_that_asks_for_our_fixtures_is_told_what_to_write(run, body):
    result = run(f"import pytest, unittest\n\nclass TestIt(unittest.TestCase):\n{body}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = result.stdout.str()
    assert "TestIt::test_it is in a unittest.TestCase, which can have no fixture" in told
    assert "class TestIt(StoreMixin, unittest.TestCase)" in told
    assert "missing 1 required positional argument" not in told


def test_arguments_that_a_mock_gives_and_fixtures_of_others_are_left_alone(run, pytester):
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef golden():\n    return 7\n")
    text = """
import pytest, unittest
from unittest import mock

class TestIt(unittest.TestCase):
    @mock.patch("os.getcwd")
    def test_mocked(self, store):
        self.assertIsNotNone(store)

    @pytest.fixture(autouse=True)
    def of_others(self, golden):
        self.golden = golden

    def test_other(self):
        self.assertEqual(self.golden, 7)
"""
    run(text).assert_outcomes(passed=2)


# With Hypothesis

GIVEN = """
import unittest
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from interpreters.store_testing import StoreMixin, fresh_store
settings.register_profile("short", max_examples=7, database=None, deadline=None)
settings.load_profile("short")
"""


def test_examples_have_fresh_stores(run):
    text = """
@pytest.mark.parametrize("kind", ["memory", "file"])
@given(n=st.integers(0, 9))
def test_function(kind, n):
    with fresh_store(kind) as store:
        assert store.run(log.append("s", "made", n)).seq == 1

class TestIt(StoreMixin, unittest.TestCase):
    store_kind = "file"

    @given(n=st.integers(0, 9))
    def test_method(self, n):
        assert self.store.run(log.append("s", "made", n)).seq == 1
        assert self.store.run(log.last_seq("s")) == 1
"""
    run(GIVEN + text, *STRICT).assert_outcomes(passed=3)


@pytest.mark.parametrize("decorator", ["", "@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])\n"])
@pytest.mark.parametrize("fixture", ["store", "golden", "persist_store", "mine"])
def test_fixtures_that_all_examples_would_share_are_refused_with_what_to_write(run, fixture, decorator):
    text = f"""
@pytest.fixture
def mine(store):
    return store

{decorator}@given(n=st.integers(0, 9))
def test_it({fixture}, n):
    pass
"""
    result = run(GIVEN + text)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = result.stdout.str()
    assert "::test_it" in told
    assert "would be one for all examples" in told
    assert "with fresh_store() as store:" in told
    assert "FailedHealthCheck" not in told


def test_fixtures_of_others_are_left_to_hypothesis(run, pytester):
    pytester.makeconftest("import pytest\n\n@pytest.fixture(scope='session')\ndef store():\n    return 7\n")
    run(GIVEN + "@given(n=st.integers(0, 9))\ndef test_it(store, n):\n    assert store == 7\n").assert_outcomes(
        passed=1
    )


def test_an_exploration_takes_no_examples(run):
    text = """
@explore_test()
@given(n=st.integers(0, 9))
def test_it(n):
    return []
"""
    result = run(GIVEN + text)
    result.stdout.fnmatch_lines(["*InvalidRequest: test_it has @given: explore_test chooses what happens*"])


# In several processes


@pytest.fixture
def workers(pytester, monkeypatch):
    """Runs test files with the plugin in two processes, which load no plugins but those that are named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return lambda *arguments: pytester.runpytest_subprocess(*PLUGIN, "-p", "xdist", "-n2", *arguments)


@pytest.mark.exploration
def test_workers_write_golden_traces_and_have_stores_of_their_own(workers, pytester):
    text = """
import os

@pytest.mark.parametrize("n", range(6))
def test_each(golden, store, n):
    from persist_effects.trace import record
    golden(record(log.append("s", "made", n), store)[1], mask=["position"])

def test_two(golden):
    golden(recorded(NUMBER))
"""
    pytester.makepyfile(test_one=HEAD + IN_A_TEST_CASE.replace("NUMBER", "2"))
    pytester.makepyfile(test_two=HEAD + RECORDED + text.replace("NUMBER", "1"))
    workers("--update-traces").assert_outcomes(passed=18)
    assert len([*(pytester.path / "traces").rglob("*.jsonl")]) == 17
    pytester.makepyfile(test_two=HEAD + RECORDED + text.replace("NUMBER", "7"))
    result = workers()
    result.assert_outcomes(failed=1, passed=17)
    result.stdout.fnmatch_lines(["*if that is meant, write it anew: pytest --update-traces"])


@pytest.mark.exploration
def test_workers_say_what_to_paste_where_another_plugin_has_the_short_names(workers, pytester):
    pytester.makeconftest(
        """
def pytest_addoption(parser):
    parser.addoption("--repro", default="of others")
    parser.addoption("--update-traces", action="store_true")
"""
    )
    pytester.makepyfile(
        test_one=HEAD + INTERLEAVED.replace("PROGRAM", "add") + GOLDEN.replace("VALUE", "1").replace("it(", "golden(")
    )
    result = workers()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines_random(
        ["*write it anew: pytest --persist-update-traces", 'or: pytest test_one.py::test_it --persist-repro "*"']
    )


# Beside other plugins


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tests_that_are_tasks_have_our_fixtures_and_no_warning(run, backend):
    text = f"""
import pytest
from persist_effects.trace import record

@pytest.fixture
def anyio_backend():
    return "{backend}"

@pytest.mark.anyio
async def test_it(store, golden):
    assert (await store.arun(log.append("s", "made", 1))).seq == 1
    golden(record(log.last_seq("s"), store)[1])
"""
    result = run(text, "-p", "anyio", *STRICT, "--update-traces")
    result.assert_outcomes(passed=2)
