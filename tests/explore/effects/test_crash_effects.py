"""Faults at every request of a program: what must be found, what must pass, and what no verdict may be given of."""

import itertools
from functools import partial

import pytest
from conftest import printed_under_hash_seeds

from interpreters import Store, open_store
from interpreters.explore.effects.explore import explore_effects
from interpreters.stores.memory import MemoryStore
from persist_effects import (
    Conflict,
    Draft,
    InvalidRequest,
    Request,
    UncertainOutcome,
    all_of,
    blob,
    follow,
    kv,
    log,
    perform,
    transact,
)
from persist_effects.requests import AllOf, Append, KvPut, Wait


def memory():
    return open_store("memory:", clock=lambda: 0)


def explore(program, check, **options):
    return explore_effects(program, options.pop("store_factory", memory), check, **options)


def tokens(report):
    return [failure.token for failure in report.failures]


def no_check(acked, maybe):
    yield from kv.has("anything")


# Programs and what must hold of them


def ensure(holds, found):
    # No assertion, to which pytest would add words of its own.
    if not holds:
        raise AssertionError(found)


def count_carelessly():
    number = yield from kv.get_or("counter", 0)
    yield from kv.put("counter", number + 1)


def count_carefully():
    yield from kv.update("counter", lambda number: number + 1, 0)


def counted_once(acked, maybe):
    number = yield from kv.get_or("counter", 0)
    ensure(number == 1, f"the counter is {number}")


def counted_as_acknowledged(acked, maybe):
    number = yield from kv.get_or("counter", 0)
    ensure(len(acked) <= number <= len(acked) + len(maybe), f"{number} of {len(acked)} and {len(maybe)}")


def pay():
    yield from log.append("payments", "paid", 5)


def pay_and_try_again():
    try:
        yield from pay()
    except UncertainOutcome:
        yield from pay()


def pay_once():
    yield from log.append_once("payments", "order 7", "paid", 5)


def paid_once(acked, maybe):
    count = len((yield from log.read("payments")))
    ensure(count == 1, f"paid {count} times")


def paid_at_most_once(acked, maybe):
    count = len((yield from log.read("payments")))
    ensure(count <= 1, f"paid {count} times")


def filled():
    store = memory()
    for number in (1, 2, 3):
        store.run(log.append("numbers", "counted", number))
    return store


def copy(event):
    return [Append("copies", (Draft("copied", event.data),))]


def follow_numbers():
    yield from follow("copier", "numbers", copy)


def follow_in_two_steps():
    position = yield from kv.get_or("position", 0)
    page = yield from log.page_all(position, "numbers")
    for event in page.events:
        yield from perform(copy(event)[0])
        yield from kv.put("position", event.position)


def copied_once(acked, maybe):
    copies = [event.data for event in (yield from log.read("copies"))]
    ensure(copies == [1, 2, 3], f"the copies are {copies}")


# What is found, and what passes


def test_a_counter_that_is_read_and_put_counts_again_after_a_restart():
    report = explore(count_carelessly, counted_once)
    assert report.verdict == "failed"
    assert tokens(report) == ["e1:2:crash-during", "e1:2:crash-after", "e1:2:uncertain-written"]
    assert {failure.found for failure in report.failures} == {"AssertionError: the counter is 2"}
    assert report.failures[0].trace == (
        "#1 persist/kv-get counter → None",
        "#2 persist/kv-put counter 1 → 1",
        "  ✗ crash-during: #2 was carried out, and the program is gone before its answer came",
        "the application is started anew",
        "#3 persist/kv-get counter → 1, revision 1",
        "#4 persist/kv-put counter 2 → 2",
        "check failed: AssertionError: the counter is 2",
    )
    assert report.failures[0].survivors == (
        "acked: persist/kv-put counter 2",
        "maybe: persist/kv-put counter 1",
    )
    assert "log.append_once" in report.failures[0].remedy


def test_an_increment_written_down_before_it_is_read_is_lost():
    def lose():
        yield from kv.put("started", True)
        yield from kv.put("counter", 1)

    def start_only_once():
        if not (yield from kv.has("started")):
            yield from lose()

    report = explore(start_only_once, counted_once)
    assert {failure.found for failure in report.failures} == {"AssertionError: the counter is 0"}
    assert tokens(report)[0] == "e1:2:crash-during"


def test_an_append_that_is_tried_again_after_an_uncertain_outcome_stands_there_twice():
    report = explore(pay_and_try_again, paid_at_most_once, restart=False)
    assert report.verdict == "failed"
    assert tokens(report) == ["e1:1:uncertain-written:no-restart"]
    assert report.failures[0].found == "AssertionError: paid 2 times"
    assert "log.append_once" in report.failures[0].remedy


def test_a_plain_append_is_doubled_by_a_restart_and_not_without_one():
    assert tokens(explore(pay, paid_once)) == ["e1:1:crash-during", "e1:1:crash-after", "e1:1:uncertain-written"]
    assert explore(pay, paid_at_most_once, restart=False).verdict == "passed"


@pytest.mark.parametrize("depth", [1, 2])
def test_append_once_passes_everything(depth):
    report = explore(pay_once, paid_once, depth=depth)
    assert (report.verdict, report.is_exhaustive, report.failures) == ("passed", True, [])


@pytest.mark.parametrize("depth", [1, 2])
def test_an_update_passes_forced_conflicts_and_keeps_what_was_acknowledged(depth):
    report = explore(count_carefully, counted_as_acknowledged, depth=depth)
    assert report.verdict == "passed"
    assert any(cell.fault == "conflict-once" and cell.states for cell in report.cells)


def test_a_conflict_that_is_ignored_is_found():
    def count():
        entry = yield from kv.entry("counter")
        yield from kv.put_expect("counter", entry.revision if entry else 0, (entry.value if entry else 0) + 1)

    report = explore(count, counted_once, restart=False)
    assert "e1:2:conflict-once:no-restart" in tokens(report)


@pytest.mark.exploration
@pytest.mark.parametrize("depth", [1, 2])
def test_a_follower_lets_each_event_take_effect_once_across_every_fault(depth):
    report = explore(follow_numbers, copied_once, store_factory=filled, depth=depth)
    assert (report.verdict, report.is_exhaustive) == ("passed", True)


def test_a_subscription_that_saves_its_position_in_a_second_write_is_found():
    report = explore(follow_in_two_steps, copied_once, store_factory=filled)
    assert report.verdict == "failed"
    assert "e1:3:crash-during" in tokens(report)
    assert "the copies are [1, 1, 2, 3]" in report.failures[0].found


# What is known of the writes


def test_acked_and_maybe_hold_what_was_seen_and_what_may_have_been_written():
    told = {}

    def write():
        yield from kv.put("a", 1)
        yield from kv.put("b", 2)

    def look(acked, maybe):
        found = yield from kv.keys()
        told[len(told)] = ([request.key for request, _ in acked], [request.key for request in maybe], found)

    for fault, expected in {
        "2:crash-before": (["a"], [], ["a"]),
        "2:crash-during": (["a"], ["b"], ["a", "b"]),
        "2:crash-after": (["a", "b"], [], ["a", "b"]),
        "2:unavailable-once": (["a"], [], ["a"]),
        "1:unavailable-for-good": ([], [], []),
        "2:uncertain-written": (["a"], ["b"], ["a", "b"]),
        "2:uncertain-unwritten": (["a"], ["b"], ["a"]),
    }.items():
        assert explore(write, look, repro=f"e1:{fault}:no-restart").checked == 1
        assert told[len(told) - 1] == expected, fault


def test_a_conflict_is_no_write():
    told = []

    def write():
        yield from transact(KvPut("a", 1), KvPut("b", 2, 0))

    def look(acked, maybe):
        told.append((acked, maybe, (yield from kv.has("a"))))

    explore(write, look, repro="e1:1:conflict-once")
    assert told[-1] == ([], [], False)


def test_the_parts_of_an_all_of_are_requests_of_their_own():
    told = []

    def write():
        yield from all_of(kv.put("a", 1), kv.put("b", 2), kv.put("c", 3))

    def look(acked, maybe):
        found = yield from kv.keys()
        told.append(([request.key for request, _ in acked], [request.key for request in maybe], found))

    rows = dict.fromkeys(cell.request for cell in explore(write, look).cells)
    assert [*rows] == ["#1 persist/kv-put a", "#2 persist/kv-put b", "#3 persist/kv-put c"]
    explore(write, look, repro="e1:2:crash-during:no-restart")
    assert told[-1] == ([], ["a", "b"], ["a", "b"])
    explore(write, look, repro="e1:1:crash-after:no-restart")
    assert told[-1] == (["a", "b", "c"], [], ["a", "b", "c"])
    explore(write, look, repro="e1:2:uncertain-unwritten:no-restart")
    assert told[-1] == (["a", "c"], ["b"], ["a", "c"])


def test_a_partial_program_is_called_by_its_function():
    report = explore(partial(follow, "copier", "numbers", copy), copied_once, store_factory=filled, repro="e1:no-fault")
    assert (report.subject, report.verdict) == ("follow", "passed")


def test_what_a_program_asks_for_while_it_is_given_up_reaches_no_store():
    def write():
        try:
            yield from kv.put("a", 1)
        finally:
            try:
                yield from kv.put("cleaned", 1)
            finally:
                yield from kv.put("cleaned", 2)

    def not_cleaned(acked, maybe):
        if not acked:
            assert not (yield from kv.has("cleaned"))

    report = explore(write, not_cleaned, restart=False)
    assert report.verdict == "passed"
    assert explore(write, not_cleaned, repro="e1:1:crash-during:no-restart").verdict == "passed"


def test_a_list_of_programs_runs_one_after_the_other_and_anew_from_the_first():
    report = explore([pay_once, pay, pay_once], paid_at_most_once)
    assert report.subject == "pay_once, pay, pay_once"
    assert report.verdict == "failed"
    assert explore([pay_once, pay_once], paid_once).verdict == "passed"


def test_blobs_and_the_users_own_requests_are_struck_too():
    class Mail(Request[None], frozen=True, tag="test/mail"):
        to: str

    sent = []

    def order():
        yield from blob.put(b"picture")
        yield from perform(Mail("ada"))

    def look(acked, maybe):
        yield from kv.keys()

    factory = lambda: Store(MemoryStore(lambda: 0), effects={Mail: lambda request: sent.append(request.to)})  # noqa: E731
    report = explore(order, look, store_factory=factory)
    assert report.verdict == "passed"
    assert [cell.fault for cell in report.cells if cell.request == "#2 test/mail"] == [
        "crash-before",
        "crash-during",
        "crash-after",
    ]
    assert any(cell.fault == "uncertain-written" and cell.request == "#1 blob/put 7 bytes" for cell in report.cells)


def test_no_wait_lasts():
    def wait():
        yield from perform(Wait(0, timeout=float("inf")))
        yield from all_of(Wait(0, timeout=float("inf")))

    def wait_too(acked, maybe):
        yield from wait()

    assert explore(wait, wait_too).verdict == "passed"


# How many states


def test_the_states_of_a_program_are_counted():
    # A read has 3 crashes and 2 outages; an update's put has 2 doubts and 1 conflict more. Its crashes differ only by
    # whether the put was done, and known: before it, during it, after it.
    report = explore(count_carefully, counted_as_acknowledged)
    assert (report.enumerated, report.equal, report.checked) == (5 + 8, 3, 10)
    assert sum(cell.states for cell in report.cells) == report.checked
    assert report.bound == "one fault in a program of 2 requests, started anew afterwards"
    # After the first fault in a life the update runs anew: 5 + 8 - 3 states behind each of the crashes at three
    # points, of the outages at two requests, and of the doubts. The conflict lets it try again, for as many more.
    deeper = explore(count_carefully, counted_as_acknowledged, depth=2)
    assert deeper.checked == 10 + 10 * 10
    assert (deeper.enumerated, deeper.equal) == (13 + 10 * 13, 3 + 10 * 3)
    assert deeper.is_exhaustive


def test_a_program_that_asks_for_nothing_was_not_checked():
    def idle():
        return
        yield

    assert explore(idle, no_check).verdict == "nothing was checked"


def test_a_limit_draws_a_sample_by_its_seed():
    def sample(seed, limit=4):
        return explore(follow_numbers, copied_once, store_factory=filled, limit=limit, seed=seed)

    whole = explore(follow_numbers, copied_once, store_factory=filled)
    report = sample(7)
    assert (report.checked, report.seed, report.is_exhaustive) == (4, 7, False)
    assert report.enumerated == whole.enumerated
    assert str(report) == str(sample(7))
    assert len({str(sample(seed)) for seed in range(8)}) > 1
    assert sample(None).seed == 0
    enough = sample(None, whole.checked)
    assert (enough.is_exhaustive, enough.seed, enough.checked) == (True, None, whole.checked)


def test_a_limit_between_the_depths_draws_among_the_second_faults():
    report = explore(count_carefully, counted_as_acknowledged, depth=2, limit=25)
    assert (report.checked, report.is_exhaustive, report.enumerated) == (25, False, 13 + 10 * 13)
    assert explore(count_carefully, counted_as_acknowledged, depth=2, limit=5).checked == 5


# Verdicts of their own


def test_a_program_that_asks_for_something_else_in_each_run_is_not_deterministic():
    numbers = itertools.count(1)

    def wander():
        yield from kv.put("a", next(numbers))

    report = explore(wander, no_check)
    assert report.verdict == "not deterministic"
    assert report.failures[0].found == (
        "request #1 is persist/kv-put a 1 in one run, and persist/kv-put a 2 in the next"
    )
    assert not report.is_exhaustive


def test_a_program_that_asks_for_more_in_the_second_run_is_not_deterministic():
    runs = itertools.count()

    def grow():
        for _ in range(next(runs)):
            yield from kv.get("a")

    report = explore(grow, no_check)
    assert report.verdict == "not deterministic"
    assert report.failures[0].found == "request #1 is nothing more in one run, and persist/kv-get a in the next"


def test_a_program_that_changes_its_mind_later_is_not_deterministic():
    runs = itertools.count()

    def change():
        yield from kv.get("a" if next(runs) < 2 else "b")

    report = explore(change, no_check)
    assert {failure.kind for failure in report.failures} == {"not deterministic"}
    assert report.verdict == "not deterministic"


def test_what_comes_up_only_after_many_runs_is_told_in_the_end():
    asked = []

    def grow_tired():
        # Struck at its first request, it does not come so far.
        yield from kv.get("a")
        asked.append(1)
        if len(asked) > 5:
            yield from kv.get("b")

    report = explore(grow_tired, no_check)
    assert (report.verdict, report.is_exhaustive) == ("not deterministic", False)
    assert "share state only through the store" in report.failures[0].remedy


def test_a_store_that_is_not_fresh_is_told():
    store = MemoryStore()

    class Kept(MemoryStore):
        def __init__(self):
            self.handlers = store.handlers

        def close(self):
            pass

    report = explore(count_carelessly, counted_once, store_factory=Kept)
    assert report.verdict == "not deterministic"


def test_a_run_that_ends_otherwise_than_the_first_is_not_deterministic():
    runs = itertools.count()

    def check(acked, maybe):
        yield from kv.keys()
        ensure(next(runs) == 0, "it ran before")

    report = explore(pay, check)
    assert report.verdict == "not deterministic"
    assert report.failures[0].found == "one run passes, and in the other: check failed, AssertionError: it ran before"


def test_requests_of_the_users_own_are_compared_too():
    class Roll(Request[int], frozen=True, tag="test/roll"):
        sides: int

    sides = itertools.count(6)

    def play():
        yield from perform(Roll(next(sides)))

    report = explore(play, no_check, store_factory=lambda: Store(MemoryStore(), effects={Roll: lambda request: 1}))
    assert report.failures[0].found == "request #1 is Roll(sides=6) in one run, and Roll(sides=7) in the next"


def test_a_value_that_cannot_be_stored_is_told_by_its_type():
    def write():
        try:
            yield from kv.put("a", {1, 2})
        except InvalidRequest:
            yield from kv.put("a", 1)

    def refuse(acked, maybe):
        yield from kv.keys()
        ensure(not maybe, "something is uncertain")

    trace = explore(write, refuse, repro="e1:2:uncertain-written:no-restart").failures[0].trace
    assert trace[0].startswith("#1 persist/kv-put a <set> raises InvalidRequest: ")


@pytest.mark.parametrize("error", [KeyError("tea"), InvalidRequest("no")])
def test_a_program_that_raises_without_a_fault_has_its_own_verdict(error):
    def fail():
        yield from kv.put("a", 1)
        raise error

    report = explore(fail, no_check)
    assert report.verdict == "raises"
    assert type(error).__name__ in report.failures[0].found
    assert report.failures[0].token == "e1:no-fault"


def test_a_request_that_the_store_does_not_answer_is_told():
    class Mail(Request[None], frozen=True, tag="test/mail"):
        to: str

    def order():
        yield from perform(Mail("ada"))

    report = explore(order, no_check)
    assert report.verdict == "raises"
    assert "UnhandledEffect: no handler answers 'test/mail'" in report.failures[0].found


@pytest.mark.parametrize("request_", [AllOf(()), Wait(0)])
def test_a_program_that_never_ends_hangs(request_):
    def spin():
        while True:
            yield from perform(request_)

    report = explore(spin, no_check, requests_limit=50)
    assert report.verdict == "hangs"
    assert report.failures[0].expected == "the program ends within 50 requests"


def test_a_check_that_fails_without_a_fault_is_told_alone():
    report = explore(count_carelessly, paid_once)
    assert (report.verdict, tokens(report), report.checked) == ("failed", ["e1:no-fault"], 1)
    assert report.failures[0].trace[-1] == "  ✗ check failed: AssertionError: paid 0 times"


def test_a_program_that_raises_or_hangs_after_a_restart_has_failed():
    def start_once():
        if (yield from kv.has("lock")):
            raise RuntimeError("it is running already")
        yield from kv.put("lock", True)
        yield from kv.delete("lock")

    report = explore(start_once, no_check)
    assert report.verdict == "failed"
    assert {failure.kind for failure in report.failures} == {"raises after a restart"}
    assert "e1:2:crash-during" in tokens(report)

    def insist():
        while True:
            try:
                return (yield from kv.put("a", 1))
            except Exception:
                continue

    report = explore(insist, no_check, requests_limit=20)
    assert [(failure.kind, failure.token) for failure in report.failures] == [
        ("hangs after a fault", "e1:1:unavailable-for-good")
    ]
    assert report.verdict == "failed"


def test_a_program_may_end_with_an_error_of_its_own_where_it_was_struck():
    def take():
        taken = yield from kv.put_expect("seat", 0, "ada")
        if isinstance(taken, Conflict) and (yield from kv.get("seat")) != "ada":
            raise LookupError("somebody sits there")

    assert explore(take, no_check).verdict == "passed"


# Failures that can be seen again


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    ("program", "check", "factory"),
    [(count_carelessly, counted_once, memory), (follow_in_two_steps, copied_once, filled), (pay, paid_once, memory)],
)
@pytest.mark.parametrize("restart", [True, False])
def test_a_token_runs_its_state_alone_and_gives_the_same_failure(program, check, factory, depth, restart):
    report = explore(program, check, store_factory=factory, depth=depth, restart=restart)
    assert report.failures
    for failure in report.failures:
        again = explore(program, check, store_factory=factory, repro=failure.token)
        assert (again.checked, again.failures) == (1, [failure])


def test_a_failure_of_two_faults_has_a_token_of_two():
    # It settles one doubt, and trusts that there is no second one.
    def pay_twice_careful():
        try:
            yield from pay()
        except UncertainOutcome:
            if not (yield from log.read("payments")):
                yield from pay_and_try_again()

    assert explore(pay_twice_careful, paid_at_most_once, restart=False).verdict == "passed"
    report = explore(pay_twice_careful, paid_at_most_once, restart=False, depth=2)
    assert tokens(report) == ["e1:1:uncertain-unwritten,3:uncertain-written:no-restart"]
    assert report.failures[0].crash == (
        "uncertain-unwritten at #1 persist/append payments, then uncertain-written at #3 persist/append payments"
    )
    assert sum(line.startswith("  ✗ ") for line in report.failures[0].trace) == 2
    again = explore(pay_twice_careful, paid_at_most_once, repro=tokens(report)[0])
    assert (again.failures, again.depth) == (report.failures, 2)


def test_a_state_that_passes_can_be_run_alone_too():
    report = explore(pay_once, paid_once, repro="e1:1:crash-during")
    assert (report.verdict, report.checked, report.enumerated) == ("passed", 1, 1)
    assert explore(pay_once, paid_once, repro="e1:no-fault").verdict == "passed"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "not a token of a failure"),
        (7, "not a token of a failure"),
        ("e2:1:crash-before", "not a token of a failure"),
        ("e1:0:crash-before", "not a token of a failure"),
        ("e1:1:crash-before,2:crash-before,3:crash-before", "not a token of a failure"),
        ("e1:1:explodes", "'explodes' is not a fault: it is one of crash-before, "),
        ("e1:9:crash-before", "names request #9, and there are requests #1 to #2"),
        ("e1:1:conflict-once", "request #1 is persist/kv-get counter, which has only crash-before, "),
        ("e1:2:crash-during,2:crash-during", "names request #2, and there are requests #3 to #4"),
    ],
)
def test_a_token_that_fits_nothing_is_refused(token, why):
    with pytest.raises(InvalidRequest) as refused:
        explore(count_carelessly, counted_once, repro=token)
    assert repr(token) in str(refused.value)
    assert why in str(refused.value)


def test_at_most_ten_failures_are_told_and_all_are_counted():
    def write_much():
        for number in range(6):
            yield from kv.put("a", number)

    def refuse(acked, maybe):
        value = yield from kv.get("a")
        ensure(len(acked) == 6, f"{len(acked)} of {value}")

    report = explore(write_much, refuse, restart=False)
    assert len(report.failures) == 10
    assert report.failure_count > 10


# The same everywhere

_SCRIPT = """
from test_crash_effects import *
for depth in (1, 2):
    print(explore(follow_in_two_steps, copied_once, store_factory=filled, depth=depth, limit=60, seed=3))
    print(explore(count_carelessly, counted_once, depth=depth))
"""


@pytest.mark.exploration
def test_the_report_is_the_same_under_another_hash_seed():
    one, other = printed_under_hash_seeds(_SCRIPT, 0, 12345)
    assert one == other
    assert "the copies are" in one


def test_a_file_store_gives_the_same_report_as_the_memory_store(tmp_path):
    numbers = itertools.count()

    def file_store():
        return open_store(f"file:{tmp_path / str(next(numbers))}")

    careless = explore(count_carelessly, counted_once, store_factory=file_store)
    assert str(careless) == str(explore(count_carelessly, counted_once))
    assert explore(pay_once, paid_once, store_factory=file_store).verdict == "passed"


# Bad input


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            {"program": count_carelessly()},
            "the generator 'count_carelessly': give the function, not the generator it made",
        ),
        ({"program": 7}, "program is an int, 7: give a function that makes a program"),
        ({"program": []}, "program is an empty list"),
        ({"program": [pay, None]}, "program is None"),
        ({"program": kv.get}, "program 'get' takes arguments"),
        ({"program": lambda: 7}, "program '<lambda>' makes no program: an int, 7"),
        ({"program": partial(next, itertools.repeat(pay()))}, "gives the same generator twice"),
        ({"store_factory": "memory:"}, "store_factory is a str, 'memory:': give a function"),
        ({"store_factory": lambda: 7}, "and gave an int, 7: give a function that makes a fresh store"),
        ({"store_factory": partial(next, itertools.repeat(MemoryStore()))}, "gave the same MemoryStore twice"),
        ({"check": None}, "check is None: give a generator function of (acked, maybe)"),
        ({"check": lambda acked, maybe: None}, "give a generator function of (acked, maybe)"),
        ({"check": pay}, "check 'pay' takes other arguments than (acked, maybe)"),
        ({"depth": 3}, "depth is 3"),
        ({"depth": "1"}, "depth is a str, '1'"),
        ({"restart": 1}, "restart is an int, 1: give a bool"),
        ({"requests_limit": 0}, "requests_limit is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"seed": "x"}, "seed is a str, 'x'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_is_refused_before_anything_runs(arguments, why):
    def must_not_run():
        raise AssertionError("it ran")
        yield

    given = {"program": must_not_run, "store_factory": memory, "check": no_check, **arguments}
    with pytest.raises(InvalidRequest) as refused:
        explore_effects(given.pop("program"), given.pop("store_factory"), given.pop("check"), **given)
    assert why in str(refused.value)


def test_a_check_that_never_ends_is_a_failure():
    def look_for_ever(acked, maybe):
        while True:
            yield from kv.get("counter")

    def count():
        yield from kv.put("counter", 1)

    report = explore_effects(count, lambda: open_store("memory:"), look_for_ever, requests_limit=50)
    assert report.verdict != "passed"
    assert "asked more than its limit" in report.failures[0].found
