"""Decisions over several streams: what is folded, what is checked, what is refused; and that none passes another by."""

import sys
from types import ModuleType

import pytest
from places import ROOT

from interpreters.explore import explore, explore_effects
from persist_effects import (
    Append,
    Conflict,
    Draft,
    Event,
    InvalidRequest,
    KvPut,
    Truncated,
    all_of,
    decide,
    kv,
    log,
    run,
    testing,
    transact,
)
from persist_effects.requests import PAGE_SIZE, AllOf, Answered, Appended, ExpectSeq, LastSeq, Page, Read, Transact

SOURCE = (ROOT / "persist_effects" / "decision.py").read_text("utf-8")


def seen(events, event):
    return (*events, (event.stream, event.seq, event.position))


def add(total, event):
    return total + event.data


def made(stream, data):
    return Append(stream, (Draft("made", data),))


def test_the_events_of_all_streams_are_folded_in_the_order_of_positions_page_by_page(store):
    for number in range(2 * PAGE_SIZE + 3):
        store.run(log.append("a" if number % 3 else "b", "made", number))
    store.run(log.append_many("c", [Draft("made", 1)] * (2 * PAGE_SIZE)))
    found = store.run(decide(["c", "b", "a", "unused"], seen, (), lambda events: events))
    everything = store.run(log.read_all())
    assert found == tuple((event.stream, event.seq, event.position) for event in everything)


def test_at_most_a_page_of_each_stream_is_asked_for_at_a_time(store):
    asked = []
    for stream in "ab":
        store.run(log.append_many(stream, [Draft("made", 1)] * (PAGE_SIZE + 1)))

    class Noting(dict):
        def __getitem__(self, kind):
            row = super().__getitem__(kind)
            return lambda request: asked.append(request) or row(request)

    assert run(decide(["a", "b"], add, 0, lambda total: total), Noting(store.handlers)) == 2 * PAGE_SIZE + 2
    reads = [part for request in asked if isinstance(request, AllOf) for part in request.requests] + asked
    assert [read.limit for read in reads if isinstance(read, Read)] == [PAGE_SIZE] * 4


def test_what_was_decided_is_written_in_one_transaction_with_a_check_of_each_stream(store):
    store.run(log.append("a", "made", 4))
    answers = store.run(decide(["a", "b"], add, 0, lambda total: [made("c", total), KvPut("sum", total)]))
    assert answers[0].last_seq == 1
    assert store.run(all_of(kv.get("sum"), log.last_seq("c"))) == (4, 1)


def test_after_a_conflict_only_what_is_new_is_asked_for():
    """Each request of a decision between two streams, where another writer was quicker on one of them."""
    first, second = (Event("a", seq, "made", 0, data, seq) for seq, data in ((1, 3), (2, 4)))
    steps = [
        (AllOf((Read("a"), Read("b"))), [Answered(Page([first], 1, 1)), Answered(Page([], 0, 0))]),
        (Transact((made("b", 3),), (ExpectSeq("a", 1), ExpectSeq("b", 0))), Conflict("stream", "a", 1, 2, None)),
        (AllOf((Read("a", 1), Read("b"))), [Answered(Page([second], 2, 2)), Answered(Page([], 0, 0))]),
        (Transact((made("b", 7),), (ExpectSeq("a", 2), ExpectSeq("b", 0))), [Appended(1, 1, 3, 0)]),
    ]
    program = decide(["a", "b"], add, 0, lambda total: [made("b", total)])
    assert testing.perform_sequence(steps, program) == [Appended(1, 1, 3, 0)]


@pytest.mark.parametrize("answer", ["no", None, 7, {"a": 1}, ()])
def test_what_is_no_list_of_writes_is_returned_as_it_is_and_nothing_is_written(store, answer):
    assert store.run(decide(["a", "b"], add, 0, lambda total: answer)) is answer
    assert store.run(log.streams()) == []


def test_an_empty_list_writes_nothing(store):
    assert store.run(decide(["a"], add, 0, lambda total: [])) == []


@pytest.mark.parametrize(
    ("decided", "words"),
    [
        (made("a", 1), "give a list of writes"),
        ((made("a", 1),), "give a list of writes"),
        ([made("a", 1), "b"], "among its writes"),
        ([LastSeq("a")], "among its writes"),
    ],
    ids=["a write alone", "a tuple of writes", "something else in the list", "a read in the list"],
)
def test_what_was_likely_meant_to_be_written_is_refused_and_nothing_is_written(store, decided, words):
    with pytest.raises(InvalidRequest, match=words):
        store.run(decide(["a"], add, 0, lambda total: decided))
    assert store.run(log.streams()) == []


def test_a_command_that_is_a_program_is_refused(store):
    def command(total):
        return (yield from log.last_seq("a"))

    with pytest.raises(InvalidRequest, match="a decision is"):
        store.run(decide(["a"], add, 0, command))


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ("orders", "give a list of the names of streams"),
        ([], "streams is empty"),
        (["a", "b", "a"], "'a' twice"),
        (["a", ""], "stream name"),
        (["a", 7], "stream name"),
    ],
)
def test_streams_that_are_not_a_list_of_different_names_are_refused(store, streams, words):
    with pytest.raises(InvalidRequest, match=words):
        store.run(decide(streams, add, 0, lambda total: []))


def test_a_stream_that_lost_events_is_refused_by_name_unless_told_to_skip_them(store):
    store.run(log.append_many("a", [Draft("made", 1), Draft("made", 20), Draft("made", 300)]))
    store.run(log.append("b", "made", 4_000))
    store.run(log.truncate_through("a", 2))
    with pytest.raises(Truncated) as met:
        store.run(decide(["b", "a"], add, 0, lambda total: total))
    assert (met.value.stream, met.value.first_left) == ("a", 3)
    assert store.run(decide(["b", "a"], add, 0, lambda total: total, skip_truncated=True)) == 4_300
    store.run(log.truncate_through("a", 3))
    answers = store.run(decide(["a"], add, 0, lambda total: [made("a", total)], skip_truncated=True))
    assert answers[0].first_seq == 4


def test_a_conflict_of_what_a_write_itself_expected_is_returned_and_not_tried_again(store):
    store.run(kv.put("taken", 1))
    calls = []

    def command(total):
        calls.append(total)
        return [made("a", 1), KvPut("taken", 2, 0)]

    found = store.run(decide(["a"], add, 0, command))
    assert found == Conflict("key", "taken", 0, 1, write=1)
    assert (calls, store.run(log.last_seq("a"))) == ([0], 0)


# Every interleaving


def mutant(*changes):
    """The module with some of its lines changed, each of which must be there."""
    source = SOURCE
    for line, other in changes:
        assert line in source, line
        source = source.replace(line, other)
    module = ModuleType("persist_effects.decision_mutant")
    sys.modules[module.__name__] = module
    exec(compile(source, "decision_mutant.py", "exec"), module.__dict__)
    return module.decide


CHECKS = "checks = tuple(ExpectSeq(name, seq) for name, seq in fold.seqs.items())"
MUTANTS = {
    "no check": (CHECKS, "checks = ()"),
    "only what is written is checked": (
        CHECKS,
        "checks = tuple(ExpectSeq(name, seq) for name, seq in fold.seqs.items() if name in repr(decided))",
    ),
    "decided on a stale fold": (
        "decided = command(fold.value)",
        "decided = command(stale if (stale := locals().get('stale')) is not None else (stale := fold.value))",
    ),
    "a refusal of no moment": ("if (yield from _is_of_one_moment(fold.seqs)):", "if True:"),
    "a fold out of order": ("if any(tail.position <= self._position for tail in tails if tail.events):", "if False:"),
}


def on_call(deciding, doctor, other):
    """A doctor goes off call, if another one is left: the classic of write skew."""

    def step(off, event):
        return off | {event.stream}

    def command(off):
        return [made(doctor, 1)] if other not in off else "nobody would be left"

    return lambda: deciding([doctor, other], step, frozenset(), command)


def somebody_is_on_call(outcomes):
    gone = yield from all_of(log.last_seq("ada"), log.last_seq("bob"))
    assert sum(gone) == 1, f"{gone} are gone"


def transfers(deciding):
    """Ten are moved from one account to another, while somebody counts both."""

    def move():
        yield from transact(made("from", -10), made("to", 10))

    return {"move": move, "count": lambda: deciding(["from", "to"], add, 0, lambda total: total)}


def ten_are_counted(outcomes):
    assert outcomes[-1].value == 0, f"counted {outcomes[-1].value}"
    yield from log.last_seq("from")


def counter(deciding):
    """Two give out numbers, each the next one."""

    def count():
        return deciding(["numbers"], lambda top, event: event.data, 0, lambda top: [made("numbers", top + 1)])

    return {"one": count, "two": count}


def numbers_have_no_gap(outcomes):
    assert [event.data for event in (yield from log.read("numbers"))] == [1, 2]


def in_order(deciding):
    """Somebody writes to one stream after the other, while another decides on both."""

    def write():
        yield from log.append("a", "made", 1)
        yield from log.append("b", "made", 2)

    return {
        "write": write,
        "note": lambda: deciding(
            ["a", "b"], lambda seen, event: [*seen, event.data], [], lambda seen: [KvPut("seen", seen)]
        ),
    }


def seen_in_order(outcomes):
    found = yield from kv.get("seen")
    assert found == sorted(found), f"saw {found}"


SCENES = {
    "on call": (
        lambda deciding: {"ada": on_call(deciding, "ada", "bob"), "bob": on_call(deciding, "bob", "ada")},
        somebody_is_on_call,
    ),
    "transfers": (transfers, ten_are_counted),
    "counter": (counter, numbers_have_no_gap),
    "in order": (in_order, seen_in_order),
}
CAUGHT_BY = {
    "no check": {"on call", "counter"},
    "only what is written is checked": {"on call"},
    "decided on a stale fold": {"on call", "counter", "transfers"},
    "a refusal of no moment": {"transfers"},
    "a fold out of order": {"in order"},
}


@pytest.mark.parametrize("scene", SCENES)
def test_no_interleaving_breaks_what_was_decided(open_new, scene):
    programs, check = SCENES[scene]
    report = explore(programs(decide), open_new, check)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report
    assert report.checked > 1


@pytest.mark.parametrize("name", MUTANTS)
def test_the_exploration_catches_a_decider_with(open_new, name):
    deciding = mutant(MUTANTS[name])
    caught = set()
    for scene, (programs, check) in SCENES.items():
        if explore(programs(deciding), open_new, check).verdict == "failed":
            caught.add(scene)
    assert caught == CAUGHT_BY[name]


@pytest.mark.parametrize(("names", "crashes"), [("one two three", False), ("one two", True)])
def test_several_deciders_and_a_crash_give_out_numbers_without_a_gap(open_new, names, crashes):
    count = counter(decide)["one"]

    def no_gap(outcomes):
        data = [event.data for event in (yield from log.read("numbers"))]
        assert data == [*range(1, len(data) + 1)]
        assert len(data) >= len(names.split())

    report = explore(dict.fromkeys(names.split(), count), open_new, no_gap, crashes=crashes)
    assert report.verdict == "passed", report


def test_every_fault_of_an_effect_leaves_all_of_a_decision_or_nothing(open_new):
    def book():
        return decide(
            ["seats", "bookings"], add, 1, lambda left: [made("seats", -1), made("bookings", 0)] if left else "full"
        )

    def all_or_nothing(acked, maybe):
        assert (yield from log.last_seq("seats")) == (yield from log.last_seq("bookings")) <= 1

    assert explore_effects(book, open_new, all_or_nothing).verdict == "passed"
