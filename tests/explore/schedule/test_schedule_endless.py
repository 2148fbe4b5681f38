"""Programs that never end: found as what they are, and told in few lines, with a token that can be pasted."""

import pytest

from interpreters.explore import explore, explore_effects
from interpreters.stores.memory import MemoryStore
from persist_effects import InvalidRequest, kv, log


def memory():
    return MemoryStore(clock=lambda: 0)


def poll():
    while not (yield from kv.get_or("ready", False)):
        pass


def poll_two_keys():
    while not (yield from kv.get_or("ready", False)):
        yield from kv.get("steady")


def set_ready():
    yield from kv.put("ready", True)


def wait_then_append(awaited, stream):
    def go():
        yield from log.wait(0, awaited)
        yield from log.append(stream, "made", 1)

    return go


def retry(mine, others):
    """Take one of two locks, and give it back where the other one is taken."""

    def go():
        while True:
            yield from kv.put(mine, 1)
            if not (yield from kv.has(others)):
                return (yield from kv.delete(mine))
            yield from kv.delete(mine)

    return go


def append_for_ever():
    while True:
        yield from log.append("a", "made", 1)


def count_for_ever():
    number = 0
    while True:
        yield from kv.put(f"key {number}", number)
        number += 1


BOTH_RETRY = {"a": retry("a", "b"), "b": retry("b", "a")}
BOTH_WAIT = {"a": wait_then_append("a", "b"), "b": wait_then_append("b", "a")}

CASES = [
    ("one polls", [poll], {}, "polls without end", "poll asks persist/kv-get ready again and again"),
    ("and is never let go", [poll, set_ready], {}, "polls without end", "while set_ready is held up"),
    ("it comes second", [set_ready, poll], {}, "polls without end", "while set_ready is held up"),
    ("two polls in turn", [poll_two_keys], {}, "polls without end", "persist/kv-get ready, persist/kv-get steady"),
    ("two poll", [poll, poll_two_keys], {}, "polls without end", "again and again"),
    ("it polls where others crash", [set_ready, poll], {"crashes": True}, "polls without end", "set_ready is held up"),
    ("drawn", [set_ready, poll], {"bound": 0, "limit": 20}, "polls without end", "while set_ready is held up"),
    ("two wait", BOTH_WAIT, {}, "deadlock", "they wait for ever: a for Wait(after=0, prefix='a'"),
    ("two retry", BOTH_RETRY, {}, "livelock", "a and b go on asking the same, and none comes to its end"),
    ("two retry beside a third", {**BOTH_RETRY, "c": set_ready}, {}, "livelock", "a and b go on asking the same"),
    ("one writes for ever", [append_for_ever], {}, "hangs", "append_for_ever asks persist/append a again and again"),
    ("other keys each time", [count_for_ever], {}, "hangs", "they ask for more"),
]


@pytest.mark.parametrize(
    ("programs", "options", "kind", "found"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_what_never_ends_is_found_as_such_and_told_in_under_forty_lines(programs, options, kind, found):
    report = explore(programs, memory, **options)
    (failure,) = report.failures
    assert failure.kind.removesuffix(" in some orders") == kind
    assert found in failure.found
    assert len(str(report).splitlines()) < 40, str(report)
    assert len(failure.token) < 200
    again = explore(programs, memory, repro=failure.token)
    assert [(one.kind, one.found) for one in again.failures] == [(kind, failure.found)]


def test_two_that_retry_end_where_one_of_them_is_faster():
    report = explore({"a": retry("a", "b")}, memory)
    assert report.verdict == "passed"


def test_a_program_that_polls_is_told_by_the_explorer_of_effects_in_under_forty_lines():
    def nothing(acked, maybe):
        yield from kv.get("a")

    report = explore_effects(poll, memory, nothing)
    assert report.failures[0].kind == "hangs"
    assert len(str(report).splitlines()) < 40


@pytest.mark.exploration
def test_a_table_of_many_requests_is_folded_in_the_text_and_whole_on_the_page():
    def put_many():
        for number in range(200):
            yield from kv.put("a", number)

    report = explore([put_many, set_ready, poll_once], memory, reduce=False, bound=1)
    assert report.verdict == "passed"
    assert len(report.cells) == 199
    text = str(report).splitlines()
    assert len(text) < 60
    assert any(line.startswith("… 1") and "more requests" in line for line in text)
    assert report.to_html().count("</th><td") >= 199


def poll_once():
    yield from kv.get_or("ready", False)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("s1:(0,1)*0", "it is not a token of an interleaving"),
        ("s1:(0,2)*3", "it is the turn of program 2"),
        ("s1:(0,1)*99999999", "it is not a token of an interleaving"),
        ("s1:(0,1)*9999999", "it has more than 1,000,000 turns"),
        ("s1:()*3", "it is not a token of an interleaving"),
    ],
)
def test_a_token_whose_turns_cannot_be_repeated_so_is_refused(token, why):
    with pytest.raises(InvalidRequest, match=why.replace("(", r"\(")):
        explore([poll, set_ready], memory, repro=token)
