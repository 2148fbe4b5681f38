"""Histories with many writes of unknown outcome are decided in few tries, and as trying every order decides them."""

from collections import Counter
from threading import Barrier, Thread

import pytest
from histories import UNKNOWN, is_in_any_order, learn, problem_of, step
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreters import open_store
from interpreters.explore import Observed
from interpreters.explore.schedule import linear
from interpreters.stores.memory import MemoryStore
from persist_effects import Draft, InvalidRequest, UncertainOutcome, kv, log, run
from persist_effects.requests import (
    CHANGES,
    Answered,
    Append,
    Conflict,
    Entry,
    ExpectRevision,
    ExpectSeq,
    Failed,
    KvDelete,
    KvEntries,
    KvGet,
    KvPut,
    LastSeq,
    Now,
    Page,
    Read,
    ReadAll,
    Sql,
    Transact,
)

MANY = (8, 16, 32)


def observed_of(*rows):
    """A history of a table: when it began and ended, the request, and the answer."""
    observed = Observed()
    for client, (began, ended, request, answer) in enumerate(rows):
        outcome = answer if isinstance(answer, Failed) else Answered(answer)
        observed.note(f"client {client}", request, outcome, began=began, ended=ended)
    return observed


def unknown(*requests):
    return [(1, 2, request, UNKNOWN) for request in requests]


def appends(count, stream="s"):
    return unknown(*(Append(stream, (Draft("made", number),)) for number in range(count)))


def puts(count, key="a"):
    return unknown(*(KvPut(key, number) for number in range(count)))


def asked(first, *pairs):
    """One after the other, from a moment on."""
    return [(first + 2 * index, first + 2 * index + 1, *pair) for index, pair in enumerate(pairs)]


def refused_put(revision):
    return KvPut("a", "x", 999), Conflict("key", "a", 999, revision)


def page_of(count):
    store = MemoryStore(clock=lambda: 0)
    for number in range(count):
        run(log.append("s", "made", number), store.handlers)
    return store.handlers[Read](Read("s"))


def moved(number):
    return Transact((KvPut(f"from/{number}", number), KvPut(f"to/{number}", number)))


WRONG = {
    "one append more than there were": lambda n: [*appends(n), *asked(3, (LastSeq("s"), n + 1))],
    "a stream that grew and shrank": lambda n: [*appends(n), *asked(3, (LastSeq("s"), n), (LastSeq("s"), n - 1))],
    "one that was seen is gone": lambda n: [
        *appends(n), *asked(3, (Read("s"), page_of(n // 2)), (LastSeq("s"), n // 2 - 1)),
    ],
    "one revision more than there were puts": lambda n: [
        *puts(n), *asked(3, *(refused_put(10 + number) for number in range(n + 1))),
    ],
    "each was seen, then the first again": lambda n: [
        *puts(n), *asked(3, *((KvGet("a"), Entry(number, 10 + number)) for number in [*range(n), 0])),
    ],
    "an acknowledged put is lost beside them": lambda n: [
        *unknown(*(KvPut(f"k/{number}", number) for number in range(n))),
        *asked(3, (KvPut("a", 1), 5), (KvGet("a"), None)),
    ],
    "half of a transaction is there": lambda n: [
        *unknown(*(moved(number) for number in range(n))),
        *asked(3, (KvGet("from/0"), Entry(0, 5)), (KvGet("to/0"), None)),
    ],
    "deletions and puts of one key, and a number too many": lambda n: [
        *puts(n // 2), *unknown(*(KvDelete("a") for _ in range(n // 2))),
        *asked(3, *(refused_put(10 + number) for number in range(n // 2 + 1))),
    ],
    "they end in a listing that shows two of one": lambda n: [
        *puts(n), *asked(3, (KvEntries(), [("a", Entry(1, 5))]), (KvEntries(), [("a", Entry(1, 6))])),
    ],
}  # fmt: skip
RIGHT = {
    "all took effect": lambda n: [*appends(n), *asked(3, (LastSeq("s"), n), (Read("s"), page_of(n)))],
    "none took effect": lambda n: [*appends(n), *asked(3, (LastSeq("s"), 0), (LastSeq("s"), 0))],
    "half of them took effect, one after the other": lambda n: [
        *appends(n), *asked(3, *((LastSeq("s"), number) for number in range(n // 2))),
    ],
    "each put was met by one that was refused": lambda n: [
        *puts(n), *asked(3, *(refused_put(10 + number) for number in range(n))),
    ],
    "each was seen": lambda n: [
        *puts(n), *asked(3, *((KvGet("a"), Entry(number, 10 + number)) for number in range(n))),
    ],
}  # fmt: skip


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_with_many_uncertain_writes_is_refused_in_few_tries(name, count):
    found = observed_of(*WRONG[name](count)).linearity()
    assert found.verdict == "not linearizable", found
    assert found.tries <= 2 * count**2


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_with_many_uncertain_writes_passes_in_few_tries(name, count):
    found = observed_of(*RIGHT[name](count)).linearity()
    assert found.verdict == "linearizable", found
    assert found.tries <= 2 * count**2


def test_streams_and_keys_are_judged_each_by_itself():
    rows = [row for number in range(8) for row in [*appends(4, f"s/{number}"), *puts(4, f"k/{number}")]]
    heads = asked(3, *((LastSeq(f"s/{number}"), 4) for number in range(8)))
    assert str(observed_of(*rows, *heads).linearity()) == "linearizable: 72 operations in 16 parts"
    # A transaction joins what it touches, and the order of all streams joins these.
    joined = unknown(Transact((KvPut("k/0", 1), KvPut("k/1", 1))))
    assert "73 operations in 15 parts" in observed_of(*rows, *heads, *joined).linearity().found
    everything = asked(0, (ReadAll(), Page([], 0, 0)))
    assert "in 9 parts" in observed_of(*everything, *rows, *heads).linearity().found


def test_a_position_or_revision_that_two_names_have_is_refused_though_each_by_itself_is_right():
    for first, second in ((KvPut("a", 1), KvPut("b", 1)),):
        assert observed_of(*asked(1, (first, 5), (second, 6))).linearity().verdict == "linearizable"
        assert observed_of(*asked(1, (first, 5), (second, 5))).linearity().verdict == "not linearizable"


# A budget


class Ticking:
    """A clock that goes on by one second each time it is looked at."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def test_what_is_not_decided_in_time_is_undecided_and_says_how_far_it_came():
    history = observed_of(*WRONG["one append more than there were"](8), *asked(1, (KvPut("z", 1), 5)))
    found = history.linearity(seconds=20, clock=Ticking())
    assert found.verdict == "undecided"
    assert 0 < found.tries <= 40
    first, *rest = found.found.split("\n")
    assert first.startswith(f"no order was found in {found.tries} tries, and more were not tried: 1 of 2 parts have")
    assert "the longest row has" in first
    assert "of 9 operations" in first
    assert any(line.startswith("the longest row: ") for line in rest)
    assert history.linearity(seconds=0, clock=Ticking()).tries == 0
    assert history.linearity().verdict == "not linearizable"


def test_an_exploration_says_undecided_too(monkeypatch):
    monkeypatch.setattr(linear, "TRIES", 0)
    rows = WRONG["one append more than there were"](8)
    steps = [step((began, ended), request, answer if answer is UNKNOWN else Answered(answer))
             for began, ended, request, answer in rows]  # fmt: skip
    assert problem_of(steps).startswith("undecided: no order was found")


# The door


def test_threads_on_a_store_are_observed(tmp_path):
    with open_store(f"file:{tmp_path}/store") as store:
        store.run(kv.put("n", 1))
        observed, barrier = Observed(store.handlers), Barrier(4)

        def work(name):
            rows = observed.rows(name, store.handlers)
            barrier.wait()
            for _ in range(5):
                run(kv.update("n", lambda n: n + 1), rows)
                run(log.append("counted", "by", name), rows)

        threads = [Thread(target=work, args=(name,)) for name in ("ada", "bob", "cleo", "dan")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run(kv.get("n"), observed.rows("eve", store.handlers))
        assert observed.linearity().verdict == "linearizable"
        lost = Answered(Entry(20, 1_000))
        observed.note("eve", KvGet("n"), lost, began=1_000_000, ended=1_000_001)
        assert observed.linearity().verdict == "not linearizable"


def test_what_a_store_raises_is_observed_and_raised():
    def doubt(request):
        raise UncertainOutcome("the connection was lost")

    observed = Observed()
    rows = observed.rows("ada", {**MemoryStore().handlers, KvPut: doubt})
    with pytest.raises(UncertainOutcome):
        run(kv.put("a", 1), rows)
    assert observed.linearity().verdict == "linearizable"
    observed.note("bob", KvGet("a"), Answered(Entry(1, 1)), began=10, ended=11)
    assert observed.linearity().verdict == "linearizable"
    observed.note("bob", KvGet("a"), Answered(None), began=12, ended=13)
    assert "bob #2" in observed.linearity().found or "bob persist/kv-get" in observed.linearity().found


def test_what_is_no_operation_is_refused():
    observed = Observed()
    with pytest.raises(InvalidRequest, match="not a request about streams and keys"):
        observed.note("ada", Now(), Answered(1), began=1, ended=2)
    with pytest.raises(InvalidRequest, match="observe it without them"):
        observed.rows("ada", MemoryStore().handlers)[Transact](Transact((KvPut("a", 1), Sql("DELETE FROM t"))))
    with pytest.raises(InvalidRequest, match="ended"):
        observed.note("ada", KvGet("a"), Answered(None), began=3, ended=2)
    with pytest.raises(InvalidRequest, match="say when"):
        observed.note("ada", KvGet("a"), Answered(None), began=3, ended=None)
    with pytest.raises(InvalidRequest, match="give an Answered, a Failed, or None"):
        observed.note("ada", KvGet("a"), 5, began=3, ended=4)
    with pytest.raises(InvalidRequest, match="give seconds"):
        observed.linearity(seconds=-1)


# Compared with a search that has no tricks

VALUES = st.integers(0, 2)
EXPECTED = st.sampled_from([None, None, 0, 1])


@st.composite
def drawn_requests(draw, names):
    """A request; of one that expects something, whether it expects what is there."""
    name, value, expected = draw(st.sampled_from(names)), draw(VALUES), draw(EXPECTED)
    made = (Draft("made", value),)
    return draw(
        st.sampled_from(
            [
                lambda known: KvPut(name, value, expected and known[name]),
                lambda known: KvDelete(name, expected and known[name]),
                lambda known: KvGet(name),
                lambda known: KvEntries(),
                lambda known: Append(name * 2, made, expected and known[name * 2]),
                lambda known: Append(name * 2, made * 2),
                lambda known: LastSeq(name * 2),
                lambda known: Read(name * 2),
                lambda known: ReadAll(),
                lambda known: Transact((Append(name * 2, made), KvPut("a", value)), (ExpectSeq("bb", known["bb"]),)),
                lambda known: Transact((KvPut("a", value), KvDelete("b")), (ExpectRevision("a", known["a"]),)),
            ]
        )
    )


@st.composite
def drawn_histories(draw):
    """Operations that overlap; some took effect late, or never, and their client was not told; one may be spoilt."""
    store, known = MemoryStore(clock=lambda: 0), Counter()
    drawn, names = [], draw(st.sampled_from(["a", "ab"]))
    for number in range(draw(st.sampled_from([4, 5, 6]))):
        fate = draw(st.sampled_from(["known", "known", "at once", "late", "never"]))
        began = 10 * number - draw(st.sampled_from([0, 1, 15, 25]))
        moment = 10 * number + (35 if fate == "late" else 0)
        ended = 10 * number + draw(st.sampled_from([0, 1, 15, 25]))
        drawn.append((moment, began, ended, fate, draw(drawn_requests(names)), number))
    steps = []
    for _, began, ended, fate, make, number in sorted(drawn, key=lambda one: one[0]):
        request = make(known)
        outcome = UNKNOWN
        if fate != "never":
            answer = store.handlers[type(request)](request)
            if fate == "known":
                learn(known, request, answer)
                outcome = Answered(answer)
        if outcome is not UNKNOWN or type(request) in CHANGES:
            steps.append(step((began, ended), request, outcome, (number, 0)))
    if steps:
        spoilt = draw(st.sampled_from(steps))
        match draw(st.sampled_from(["nothing", "lost", "lost", "another's answer", "another's answer", "later"])):
            case "lost":
                steps.remove(spoilt)
            case "another's answer":
                alike = [one for one in steps if type(one.request) is type(spoilt.request)]
                other = draw(st.sampled_from(alike))
                spoilt.outcome, other.outcome = other.outcome, spoilt.outcome
            case "later":
                spoilt.number, spoilt.ended = spoilt.number + 30, spoilt.ended + 30
    return steps


@pytest.mark.exploration
def test_drawn_histories_pass_and_are_refused_as_by_trying_every_order():
    verdicts = Counter()

    @settings(derandomize=True, deadline=None, database=None, max_examples=800)
    @given(drawn_histories())
    def judge(steps):
        is_possible = is_in_any_order(steps)
        assert (problem_of(steps) is None) == is_possible
        verdicts[is_possible, any(one.outcome is UNKNOWN for one in steps)] += 1

    judge()
    assert min(verdicts[is_possible, True] for is_possible in (True, False)) > 30, verdicts
