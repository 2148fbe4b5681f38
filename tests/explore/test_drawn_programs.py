"""Programs drawn at random: every store answers them the same, a trace replays them, and every crash is survived."""

from hypothesis import given, settings
from hypothesis import strategies as st

from interpreters import open_store
from interpreters.conformance.strategies import programs
from interpreters.disk.crashing import Bound
from interpreters.explore import explore, explore_crashes
from persist_effects.requests import Answered
from persist_effects.trace import compare, record, replay


def memory():
    return open_store("memory:", clock=lambda: 7)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(program=programs())
def test_a_trace_of_a_program_replays_it_and_fits_another_store(program):
    with memory() as store, memory() as other:
        outcome, trace = record(program, store.handlers)
        assert isinstance(outcome, Answered)
        assert replay(program, trace) == outcome.value
        assert compare(trace, other.handlers) == []


@settings(derandomize=True, max_examples=20, deadline=None)
@given(program=programs())
def test_a_file_answers_a_program_as_memory_does(program, tmp_path_factory):
    with memory() as store:
        _, trace = record(program, store.handlers)
    with open_store(f"file:{tmp_path_factory.mktemp('file') / 'store'}", clock=lambda: 7) as store:
        assert compare(trace, store.handlers) == []


@settings(derandomize=True, max_examples=25, deadline=None)
@given(together=st.lists(programs(max_requests=3), min_size=1, max_size=2))
def test_programs_together_survive_every_crash_and_end_in_every_order(together):
    report = explore_crashes(together, depth=1, bound=Bound(tear_bytes=512))
    assert report.verdict == "passed", report
    assert explore(together, memory).verdict == "passed"
