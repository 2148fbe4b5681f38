"""What we keep to: locks that an interrupt lets go of; tests without clocks and sleep, and with steady names."""

import ast

import hypothesis
import pytest
from places import ROOT

# What looks at a clock. Programs beside the tests may, which run for as long as they are told to.
CLOCKS = {"monotonic", "perf_counter", "perf_counter_ns", "process_time", "monotonic_ns"}
CLOCKS |= {f"time.{name}" for name in CLOCKS}
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_test_measures_time_or_sleeps(path):
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert not {name for name in called if name in CLOCKS or name == "time.sleep" or name.startswith("time.time")}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_name_of_a_case_is_what_repr_or_str_says(path):
    # Which differs by process where a set is in it, or an address; then the workers of xdist collect other tests.
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "ids":
            told = ast.unparse(node.value)
            assert told not in {"repr", "str"}, f"{path.name}:{node.value.lineno}: write ids=steady"
            assert "repr(" not in told, f"{path.name}:{node.value.lineno}: write ids=steady"


def test_no_example_that_hypothesis_draws_has_to_be_ready_in_time():
    assert hypothesis.settings.default.deadline is None


ACQUIRED = {
    "interpreters/runtime/tasks.py": 2,  # claims, which are taken once and never let go of
    "interpreters/stores/file/store.py": 1,  # taken back where `with` has it, and looked at by `is_mine`
    "interpreters/stores/group.py": 2,  # a party's own gate, which nobody else waits at
    "interpreters/stores/served/line.py": 1,  # a claim, which is taken once and never let go of
    "interpreters/threads/gates.py": 2,  # when a gate is made, and in one call of C with letting go of it
}
"""Uses of `acquire`, by file. An interrupt may come right behind one, and then the lock stays taken."""


def test_locks_are_taken_by_with_which_no_interrupt_comes_behind():
    found = {}
    for path in sorted((ROOT / "interpreters").rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text()))
        count = sum(isinstance(node, ast.Attribute) and node.attr == "acquire" for node in nodes)
        if count:
            found[path.relative_to(ROOT).as_posix()] = count
    assert found == ACQUIRED


def test_threads_are_started_so_that_no_interrupt_leaves_them_half_begun():
    found = set()
    for path in sorted((ROOT / "interpreters").rglob("*.py")):
        called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if {"Thread", "threading.Thread"} & {*map(ast.unparse, called)}:
            found.add(path.relative_to(ROOT).as_posix())
    # The threads of a test, which end with it.
    assert found == {"interpreters/conformance/facts/base.py"}, "use BackgroundThread"
