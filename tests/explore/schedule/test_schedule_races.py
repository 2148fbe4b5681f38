"""Which interleavings are left out because no race in them is new: how many are left, and that no failure is missed."""

import random
from functools import partial

import pytest
from steady import steady

from interpreters import open_store
from interpreters.explore import explore
from interpreters.explore.schedule.case import Case
from interpreters.explore.schedule.footprint import ORDERS
from interpreters.explore.schedule.ordered import Ordered
from interpreters.stores.memory import MemoryStore
from persist_effects import Conflict, kv, log, perform
from persist_effects.requests import (
    Append,
    Draft,
    KvDelete,
    KvGet,
    KvPut,
    KvWait,
    LastSeq,
    Read,
    ReadAll,
    Sleep,
    Streams,
    TruncateThrough,
    Wait,
)

pytestmark = pytest.mark.exploration


memory = partial(MemoryStore, clock=lambda: 0)


def append_to(*streams):
    def go():
        for number, stream in enumerate(streams):
            yield from log.append(stream, "made", number)

    return go


def read_three():
    for key in "abc":
        yield from kv.get(key)


def read_streams():
    yield from log.read("a")
    yield from log.streams()
    yield from log.last_seq("b")


def put_own(key):
    def go():
        for number in range(3):
            yield from kv.put(key, number)
            yield from kv.get(key)

    return go


# How many are gone through


NO_RACES = {
    "six that only read": [read_three, read_streams] * 3,
    "eight that write what is their own": [put_own(f"key {number}") for number in range(8)],
}


@pytest.mark.parametrize("programs", NO_RACES.values(), ids=NO_RACES)
def test_programs_that_only_read_or_commute_have_one_order_and_none_is_begun_in_vain(programs):
    report = explore(programs, memory)
    assert (report.verdict, report.is_exhaustive, report.checked, report.equal) == ("passed", True, 1, 0)


def test_who_commutes_with_all_others_adds_no_order_to_those_that_they_have():
    racing = [append_to("a", "a"), append_to("a", "a")]
    alone = explore(racing, memory)
    beside = explore([put_own("x"), racing[0], read_three, racing[1], append_to("b", "b", "b")], memory)
    assert (beside.checked, beside.equal) == (alone.checked, alone.equal) == (6, 0)


FOUR_WRITERS = [append_to(*streams) for streams in ("aba", "bab", "aba", "bab")]


def test_four_programs_of_three_writes_on_two_streams_are_gone_through_with_one_run_in_twenty_five_in_vain():
    report = explore(FOUR_WRITERS, lambda: open_store("memory:"))
    # 34,660 were begun where states were remembered instead.
    assert (report.verdict, report.is_exhaustive) == ("passed", True)
    assert (report.checked, report.equal) == (11_512, 440)


def test_six_of_them_are_exhaustive_within_no_switch():
    report = explore([*FOUR_WRITERS, *FOUR_WRITERS[:2]], memory, bound=0)
    assert (report.verdict, report.is_exhaustive, report.checked) == ("passed", True, 720)


# Nothing is missed: the same ends and the same failures, for programs drawn at random


class Late(Exception):
    pass


def some_request(draw, name, last):
    stream, key = draw.choice("st"), draw.choice("kl")
    drafts = (Draft("made", name),)
    waits = [Wait(0, stream, float("inf")), Wait(0, stream, 5.0), Wait(1, "", 3.0), KvWait(0, key, float("inf"))]
    return draw.choice(
        [
            Append(stream, drafts),
            Append(stream, drafts),
            Append(stream, drafts, last.get(stream, 0)),
            Read(stream),
            LastSeq(stream),
            KvPut(key, name),
            KvGet(key),
            KvDelete(key),
            TruncateThrough(stream, 1),
            draw.choice([ReadAll(), Streams(), Sleep(1), Sleep(4)]),
            *([*waits] if draw.random() < 0.5 else []),
        ]
    )


def some_program(seed, name, length):
    """Raises where it is told a conflict, or finds a key that another has put, now and then."""

    def go():
        draw, last, seen = random.Random(f"{seed} {name}"), {}, []
        for number in range(length):
            request = some_request(draw, f"{name}{number}", last)
            answer = yield from perform(request)
            if isinstance(request, LastSeq):
                last[request.stream] = answer
            if isinstance(answer, Conflict) and draw.random() < 0.5:
                raise Late(f"{name} came late to {answer.name}")
            seen.append(told(request, answer))
        return tuple(seen)

    return go


def told(request, answer):
    """What a program learns of it, other than numbers of the store's own choice."""
    match request:
        case Read() | ReadAll():
            return tuple(event.data for event in answer.events)
        case KvGet():
            return None if answer is None else answer.value
        case Streams():
            return tuple(answer.names) if hasattr(answer, "names") else repr(answer)
        case Append():
            return isinstance(answer, Conflict)
    return None


def ends_and_failures(programs, *, reduce):
    """All that the programs come to, and all that is wrong with it."""
    ends = set()

    def judge(outcomes):
        contents = []
        for request in (Read("s"), Read("t"), KvGet("k"), KvGet("l")):
            answer = yield from perform(request)
            contents.append(told(request, answer))
        ends.add((repr(outcomes), *contents))
        if contents[0] and contents[0][0].startswith("y"):
            raise ValueError(f"y was the first of {contents[0]}")

    names = tuple("xyz"[: len(programs)])
    case = Case(names, tuple(programs), memory, judge, 100)
    search = Ordered(case, bound=None, reduce=reduce, crashes=False, orders=ORDERS)
    failures = {(found.problem.kind, found.problem.found) for found in search.failures()}
    assert search.is_finished
    return ends, failures, search.checked


@pytest.mark.parametrize(("lengths", "rounds"), [((3, 3), 150), ((4, 3), 40), ((2, 2, 2), 150)], ids=steady)
def test_the_same_ends_and_failures_are_found_as_without_leaving_any_out(lengths, rounds):
    kinds = set()
    for seed in range(rounds):
        programs = [some_program(seed, name, length) for name, length in zip("xyz", lengths, strict=False)]
        every, all_failures, count = ends_and_failures(programs, reduce=False)
        reduced, failures, count_reduced = ends_and_failures(programs, reduce=True)
        assert reduced == every, f"seed {seed}"
        assert failures == all_failures, f"seed {seed}"
        assert count_reduced <= count
        kinds |= {kind for kind, _ in failures}
    assert kinds >= {"check failed", "deadlock"}
