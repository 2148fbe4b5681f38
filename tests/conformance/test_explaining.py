"""Facts of a suite that pytest has not rewritten: what a failed assertion of theirs says."""

import importlib.util
import sys
from types import ModuleType

import pytest

from interpreters.conformance.explaining import explained

FACTS = """
import operator

class Suite:
    wanted = 3

    def equal(self, found=2): assert found == self.wanted
    def between(self): assert 1 < self.wanted < 3, "out of bounds"
    def condition(self): assert isinstance(self.wanted, str)
    def through_a_helper(self): check(self.wanted, least=4)
    def long(self): assert "x" * 1000 in ["y"]
    def holds(self, *, times: "Undefined" = 2) -> "Undefined":
        for each in range(times):
            assert each is not None
            assert operator.lt(each, times)

def check(value, *, least):
    assert value >= least

def with_a_closure():
    wanted = 1
    def fact():
        assert wanted == 2
    return fact

made = eval("lambda: 1")
"""


@pytest.fixture
def facts(tmp_path) -> ModuleType:
    """A module that pytest imports as any other, and does not rewrite."""
    path = tmp_path / "some_facts.py"
    path.write_text(FACTS)
    spec = importlib.util.spec_from_file_location("some_facts", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["some_facts"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["some_facts"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("equal", "found == self.wanted\n  found:    2\n  expected: 3"),
        ("between", "out of bounds: 1 < self.wanted < 3\n  found:    1\n  found:    3\n  expected: < 3"),
        ("condition", "isinstance(self.wanted, str)"),
        ("through_a_helper", "value >= least\n  found:    3\n  expected: >= 4"),
        ("long", f"'x' * 1000 in ['y']\n  found:    '{'x' * 399}… (1002 characters)\n  expected: in ['y']"),
    ],
)
def test_an_assertion_that_fails_says_what_it_compared(facts, name, said):
    with pytest.raises(AssertionError) as failed:
        explained(getattr(facts.Suite(), name))()
    assert str(failed.value) == said


def test_a_fact_that_holds_holds_with_its_own_defaults(facts):
    assert explained(facts.Suite().holds)() is None
    assert explained(facts.Suite.holds)(facts.Suite(), times=3) is None


def test_what_cannot_be_compiled_again_is_left_as_it_is(facts):
    for fact in (facts.with_a_closure(), facts.made, print):
        assert explained(fact) is fact


def test_a_failed_assertion_shows_the_line_of_the_fact(facts):
    with pytest.raises(AssertionError) as failed:
        explained(facts.Suite().equal)()
    assert (failed.traceback[-1].path.name, failed.traceback[-1].lineno) == ("some_facts.py", 6)
