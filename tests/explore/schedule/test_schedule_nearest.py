"""What a report says of a failing order: the line of each step, and the nearest order that passes."""

import inspect

from interpreters import open_store
from interpreters.explore import explore
from interpreters.stores.memory import MemoryStore
from persist_effects import all_of, kv, log


def memory():
    return MemoryStore(clock=lambda: 0)


def line_in(function, text):
    """The line of a function in which a text stands, as reports name it."""
    lines, first = inspect.getsourcelines(function)
    [at] = [number for number, line in enumerate(lines, first) if text in line]
    return f"tests/explore/schedule/test_schedule_nearest.py:{at}"


def read_number():
    return (yield from kv.get_or("n", 0))


def add():
    number = yield from read_number()
    yield from kv.put("n", number + 1)


def is_two(outcomes):
    assert (yield from kv.get("n")) == 2


def test_each_step_has_the_innermost_line_of_the_program_that_asked_for_it():
    [failure] = explore({"one": add, "two": add}, memory, is_two).failures
    reads, writes = line_in(read_number, "kv.get_or"), line_in(add, "kv.put")
    assert failure.sources == (reads, reads, writes, writes)
    assert len(failure.trace) == 4


def test_the_text_has_the_line_behind_each_step_and_the_trace_is_as_before():
    report = explore({"one": add, "two": add}, memory, is_two)
    assert report.failures[0].trace[0] == "one  #1 persist/kv-get n → None"
    assert f"    one  #1 persist/kv-get n → None  {line_in(read_number, 'kv.get_or')}" in str(report).splitlines()
    assert line_in(add, "kv.put") in report.to_html()


def test_what_is_asked_within_all_of_has_the_line_of_all_of():
    def both():
        yield from all_of(kv.put("a", 1), kv.put("b", 1))
        raise ValueError("no")

    [failure] = explore(both, memory).failures
    assert failure.sources == (line_in(both, "all_of"),) * 2


def test_a_program_of_the_librarys_own_has_no_line():
    [failure] = explore([lambda: kv.put("n", 1), lambda: kv.put("n", 2)], memory, is_two).failures
    assert failure.sources == ("", "")


def test_a_failure_says_what_would_have_to_come_before_what_and_what_is_answered_then():
    [failure] = explore({"one": add, "two": add}, memory, is_two).failures
    assert failure.passes == (
        "one #2 persist/kv-put n 1 comes before two #1 persist/kv-get n",
        "then two #1 persist/kv-get n → 1, revision 1",
        "and not → None",
    )


def test_an_answer_that_differs_in_its_time_alone_is_not_told_as_another_one():
    def take():
        yield from log.append("seen", "looked", None)
        yield from add()

    [failure] = explore({"one": take, "two": take}, lambda: open_store("memory:"), is_two).failures
    _, then, instead = failure.passes
    assert (then.partition(" → ")[2], instead) == ("1, revision 1", "and not → None")


def test_of_two_steps_that_could_be_moved_the_one_that_is_nearest_is():
    def set_to(value):
        return lambda: kv.put("color", value)

    def ends_red(outcomes):
        assert (yield from kv.get("color")) == "red"

    programs = {"blue": set_to("blue"), "red": set_to("red")}
    [failure] = explore(programs, memory, ends_red).failures
    assert failure.token == "s1:1,0"
    assert failure.passes[0] == "blue #1 persist/kv-put color 'blue' comes before red #1 persist/kv-put color 'red'"


def test_where_no_order_passes_nothing_is_said_of_one():
    def never(outcomes):
        yield from kv.get("n")
        raise ValueError("no")

    [failure] = explore([add, add], memory, never).failures
    assert failure.passes == ()
    assert "passes if" not in str(explore([add, add], memory, never))


def test_a_deadlock_says_which_order_has_none():
    def wait_for(mine):
        def go():
            position = yield from log.last_seq("a")
            yield from log.append("a", "made", mine)
            if position:
                yield from log.wait(99, "b")

        return go

    [failure] = explore({"one": wait_for(1), "two": wait_for(2)}, memory).failures
    assert failure.kind == "deadlock"
    assert failure.passes[0].startswith("two #1 persist/last-seq a comes before one #2 persist/append a")


def test_the_report_of_a_long_order_stays_short_and_ends_soon():
    def write_many():
        for number in range(400):
            yield from kv.put("n", number)

    def look():
        if (yield from kv.get_or("n", 0)) == 399:
            raise ValueError("saw the last one")

    report = explore({"write": write_many, "look": look}, memory, limit=3)
    assert report.failure_count
    assert len(report.failures[0].trace) <= 21
    assert len(str(report).splitlines()) <= 50
