"""A flow that is conducted on a store by hand: what its journal has, and when."""

import gc
from weakref import WeakSet

import msgspec
import pytest
from conducted import Conducted, TestClock, counting, entries, keys

from interpreters import open_store
from persist_effects import Draft, Effect, flow, kv, log, perform
from persist_effects.errors import (
    Cancelled,
    FlowExists,
    FlowFailed,
    InvalidRequest,
    NoSuchFlow,
    OwnershipLost,
    UncertainOutcome,
)
from persist_effects.flow import journal
from persist_effects.flow.requests import Came
from persist_effects.requests import Append, Conflict, KvGet, KvPut, Now, Read, Request, Transact


@pytest.fixture
def clock():
    return TestClock()


@pytest.fixture
def store(clock):
    with open_store("memory:", clock=clock) as opened:
        yield opened


def begin(store, code, *args, flow_id="f-1"):
    return store.run(flow.begin(flow_id, code, *args))


def again(conducted, *flows, token=b"host two", **options):
    """The host is gone, and another one takes the flow up."""
    conducted.is_gone()
    return Conducted(conducted.store, *flows, flow_id=conducted.flow_id, token=token, **options)


def fetch(what: str) -> str: ...


# One entry a step


def test_each_call_is_one_entry_which_is_written_when_its_answer_is_known():
    def twice():
        first = yield from flow.call(fetch, "a")
        return first + (yield from flow.call(fetch, "b"))

    with open_store("memory:") as store:
        begin(store, twice)
        held = Conducted(store, twice, token=b"one")
        assert entries(store) == ["begun", "claimed"]
        held.give((1,), "A")
        assert entries(store) == ["begun", "claimed", [((1,), "answer")]]
        held.give((2,), "B")
        assert (held.finished.state, held.finished.value) == ("completed", "AB")


def test_a_host_that_began_a_flow_itself_need_not_claim_it(store):
    def once():
        yield from flow.call(fetch, "a")

    store.run(flow.begin("f-1", once, token=b"host one"))
    Conducted(store, once).is_gone()
    assert entries(store) == ["begun"]


def test_the_end_drops_what_the_journal_had(store):
    def once(what: str):
        yield from flow.call(fetch, what)
        yield from kv.put("a", 1)
        return "done"

    begin(store, once, "a")
    Conducted(store, once).give((1,), "A")
    assert entries(store) == ["ended"]
    assert keys(store, journal.OPEN) == []
    assert keys(store, journal.DONE) == ["f-1"]
    assert store.run(flow.result("f-1")) == "done"


def test_a_write_and_its_entry_are_one_transaction(store):
    def painting():
        revision = yield from kv.put("color", "red")
        appended = yield from log.append("paints", "painted", {"color": "red"})
        yield from flow.call(fetch, "a")
        return [revision, appended.seq]

    begin(store, painting)
    rows, count = counting(store, Transact, Append)
    held = Conducted(store, painting, rows=rows)
    assert entries(store) == ["begun", [((1,), "noted")], [((2,), "noted")]]
    assert count == {Transact: 2}
    revision = store.run(perform(KvGet("color"))).revision
    held = again(held, painting)
    held.give((3,), "A")
    assert held.finished.value == [revision, 1]
    assert len(store.run(log.read("paints"))) == 1


def test_a_transaction_of_several_writes_is_one_step_and_its_answers_are_kept(store):
    def both():
        answers = yield from perform(
            Transact((KvPut("a", 1), KvPut("b", 2), Append("log", (Draft("x", None), Draft("y", None)))))
        )
        yield from flow.call(fetch, "a")
        return [answers[0] < answers[1], answers[2].last_seq]

    begin(store, both)
    held = again(Conducted(store, both), both)
    held.give((2,), "A")
    assert held.finished.value == [True, 2]


def test_what_was_read_is_told_with_the_next_entry(store):
    def reading():
        before = yield from kv.get("color")
        yield from kv.get("size")
        yield from kv.put("color", "red")
        yield from kv.get("color")
        yield from flow.call(fetch, "a")
        return before

    store.run(kv.put("color", "blue"))
    begin(store, reading)
    held = Conducted(store, reading)
    assert entries(store) == [
        "begun",
        [((1,), "answer"), ((2,), "answer"), ((3,), "noted")],
        [((4,), "answer")],
    ]
    held = again(held, reading)
    held.give((5,), "A")
    assert held.finished.value == "blue"


def test_a_flow_that_only_reads_writes_nothing_but_its_end(store):
    def reading():
        return (yield from kv.get("color"))

    store.run(kv.put("color", "blue"))
    begin(store, reading)
    rows, count = counting(store, Transact, Append)
    assert Conducted(store, reading, rows=rows).finished.value == "blue"
    assert count == {Transact: 1}


def test_what_was_read_and_never_told_is_read_anew_by_the_next_host(store):
    def reading():
        color = yield from kv.get("color")
        yield from flow.signal("go")
        return color

    store.run(kv.put("color", "blue"))
    begin(store, reading)

    def lost(request):
        raise ConnectionError("the process is gone")

    with pytest.raises(ConnectionError):
        Conducted(store, reading, rows={Append: lost, Transact: lost})
    store.run(kv.put("color", "red"))
    held = Conducted(store, reading)
    held.signal("go")
    assert held.finished.value == "red"


def test_what_is_read_is_answered_the_same_after_a_restart(store):
    def reading():
        color = yield from kv.get("color")
        yield from flow.call(fetch, "a")
        return color

    store.run(kv.put("color", "blue"))
    begin(store, reading)
    held = Conducted(store, reading)
    store.run(kv.put("color", "red"))
    held = again(held, reading)
    held.give((2,), "A")
    assert held.finished.value == "blue"


def test_a_conflict_of_a_write_is_an_outcome_and_is_kept(store):
    def careful():
        found = yield from kv.put_expect("color", 0, "red")
        yield from flow.call(fetch, "a")
        return isinstance(found, Conflict)

    store.run(kv.put("color", "blue"))
    begin(store, careful)
    held = Conducted(store, careful)
    assert entries(store)[1] == [((1,), "answer")]
    store.run(kv.delete("color"))
    held = again(held, careful)
    held.give((2,), "A")
    assert held.finished.value is True
    assert not store.run(kv.has("color"))


def test_a_conflict_does_not_lose_what_was_untold_before_it(store):
    def careful():
        before = yield from kv.get("color")
        yield from kv.put_expect("color", 0, "red")
        yield from flow.call(fetch, "a")
        return before

    store.run(kv.put("color", "blue"))
    begin(store, careful)
    held = Conducted(store, careful)
    assert entries(store)[1] == [((1,), "answer"), ((2,), "answer")]
    held = again(held, careful)
    held.give((3,), "A")
    assert held.finished.value == "blue"


def test_an_effect_of_the_users_own_is_answered_once_and_what_came_before_is_told_first(store):
    class Ask(Request[str], frozen=True, tag="tests/ask"):
        question: str

    asked = []

    def answer(request):
        asked.append((request.question, entries(store)))
        return "Ada"

    def asking():
        yield from kv.get("color")
        name = yield from perform(Ask("name?"))
        yield from flow.call(fetch, "a")
        return name

    begin(store, asking)
    held = Conducted(store, asking, rows={Ask: answer})
    assert asked == [("name?", ["begun", [((1,), "answer")]])]
    held = again(held, asking, rows={Ask: answer})
    held.give((3,), "A")
    assert held.finished.value == "Ada"
    assert len(asked) == 1


# Calls


def test_a_calls_key_is_the_same_whenever_it_is_run_again_and_another_for_each_call(store):
    def twice():
        yield from flow.all_of(flow.call(fetch, "a"), flow.call(fetch, "a"))

    begin(store, twice)
    held = Conducted(store, twice)
    before = {path: started.key for path, started in held.calls.items()}
    assert len(set(before.values())) == 2
    held = again(held, twice)
    assert {path: started.key for path, started in held.calls.items()} == before


def test_of_calls_that_go_on_together_only_those_without_an_answer_are_begun_again(store):
    def both():
        return list((yield from flow.all_of(flow.call(fetch, "a"), flow.call(fetch, "b"))))

    begin(store, both)
    held = Conducted(store, both)
    held.give((1, 2, 1), "B")
    held = again(held, both)
    assert list(held.calls) == [(1, 1, 1)]
    held.give((1, 1, 1), "A")
    assert held.finished.value == ["A", "B"]


def test_what_a_call_raised_is_raised_in_the_flow_by_type_message_and_cause(store):
    def failing():
        try:
            yield from flow.call(fetch, "a")
        except LookupError as error:
            told = [type(error).__name__, str(error), repr(error.__cause__)]
        yield from flow.call(fetch, "b")
        return told

    begin(store, failing)
    held = Conducted(store, failing)
    error = KeyError("tea")
    error.__cause__ = OSError("the shelf is empty")
    held.fail((1,), error)
    assert entries(store)[-1] == [((1,), "error")]
    held = again(held, failing)
    held.give((2,), "B")
    assert held.finished.value == ["KeyError", "'tea'", "OSError('the shelf is empty')"]


class NoTea(Exception):
    pass


def test_an_error_of_ones_own_comes_back_as_its_class_where_the_host_knows_it(store):
    def failing():
        try:
            yield from flow.call(fetch, "a")
        except NoTea as error:
            return str(error)

    begin(store, failing)
    held = Conducted(store, failing, errors={"NoTea": NoTea, f"{__name__}.NoTea": NoTea})
    held.fail((1,), NoTea("at all"))
    assert held.finished.value == "at all"


def test_a_flow_that_raises_has_failed_with_that_as_the_cause(store):
    def failing():
        yield from flow.call(fetch, "a")

    begin(store, failing)
    held = Conducted(store, failing)
    held.fail((1,), LookupError("no tea"))
    assert held.finished.state == "failed"
    with pytest.raises(FlowFailed, match="flow 'f-1' raised LookupError: no tea") as raised:
        store.run(flow.result("f-1"))
    assert repr(raised.value.__cause__) == "LookupError('no tea')"
    assert store.run(flow.status("f-1")).error == "LookupError: no tea"


def test_the_first_outcome_wins_and_the_losers_call_is_withdrawn_and_later_not_begun_again(store):
    def racing():
        won = yield from flow.first_of(flow.call(fetch, "a"), flow.call(fetch, "b"))
        yield from flow.call(fetch, "c")
        return list(won)

    begin(store, racing)
    held = Conducted(store, racing)
    held.come(Came((1, 2, 1), "B"), Came((1, 1, 1), "A"))
    assert list(held.calls) == [(2,)]
    held = again(held, racing)
    assert list(held.calls) == [(2,)]
    held.give((2,), "C")
    assert held.finished.value == [1, "B"]


# Never repeated


@flow.activity(repeat="never")
def pay(cents: int) -> int: ...


def paying():
    return (yield from flow.call(pay, 5))


def test_a_call_that_must_not_be_repeated_is_told_before_it_is_begun(store):
    begin(store, paying)
    held = Conducted(store, paying)
    assert entries(store) == ["begun", [((1,), "started")]]
    assert list(held.calls) == [(1,)]
    held.give((1,), 5)
    assert held.finished.value == 5


def test_a_call_that_must_not_be_repeated_waits_after_a_restart_until_it_is_resolved(store):
    begin(store, paying)
    held = again(Conducted(store, paying), paying)
    assert not held.calls
    store.run(flow.resolve("f-1", (1,), 7))
    held.tell()
    assert held.finished.value == 7


def test_a_call_may_be_resolved_with_an_error(store):
    begin(store, paying)
    held = again(Conducted(store, paying), paying)
    store.run(flow.resolve("f-1", (1,), error=LookupError("it was never paid")))
    held.tell()
    assert repr(held.finished.error) == "LookupError('it was never paid')"


def test_what_resolves_a_call_has_to_fit_what_it_returns(store):
    begin(store, paying)
    held = again(Conducted(store, paying), paying)
    store.run(flow.resolve("f-1", (1,), "seven"))
    held.tell()
    assert isinstance(held.finished.error, InvalidRequest)
    assert "what step 1 was resolved with does not fit its type <class 'int'>" in str(held.finished.error)


def test_what_resolves_a_step_that_does_not_wait_changes_nothing(store):
    begin(store, paying)
    held = Conducted(store, paying)
    store.run(flow.resolve("f-1", (9,), 7))
    held.tell()
    held.give((1,), 5)
    assert held.finished.value == 5


# Signals


def test_a_signal_that_came_early_is_kept(store):
    def waiting():
        yield from flow.call(fetch, "a")
        return (yield from flow.signal("approved"))

    begin(store, waiting)
    held = Conducted(store, waiting)
    held.signal("approved", "by Ada")
    assert list(held.calls) == [(1,)]
    held.give((1,), "A")
    assert held.finished.value == "by Ada"


def test_a_signal_that_came_early_is_kept_over_a_restart(store):
    def waiting():
        yield from flow.call(fetch, "a")
        return (yield from flow.signal("approved"))

    begin(store, waiting)
    held = Conducted(store, waiting)
    held.signal("approved", "by Ada")
    held = again(held, waiting)
    held.give((1,), "A")
    assert held.finished.value == "by Ada"


def test_signals_of_one_name_are_received_in_the_order_in_which_they_were_sent_each_once(store):
    def two():
        first = yield from flow.signal("go")
        yield from flow.call(fetch, "a")
        return [first, (yield from flow.signal("go"))]

    begin(store, two)
    for number in range(2):
        store.run(flow.send("f-1", "go", number))
    held = again(Conducted(store, two), two)
    held.give((2,), "A")
    assert held.finished.value == [0, 1]


def test_a_signal_does_not_wait_behind_one_of_another_name(store):
    def one():
        return (yield from flow.signal("b"))

    begin(store, one)
    store.run(flow.send("f-1", "a", 1))
    store.run(flow.send("f-1", "b", 2))
    assert Conducted(store, one).finished.value == 2


def test_what_asked_first_for_a_signal_gets_the_first_one(store):
    def both():
        return list((yield from flow.all_of(flow.signal("go"), flow.signal("go"))))

    begin(store, both)
    held = Conducted(store, both)
    held.signal("go", 1)
    held.signal("go", 2)
    assert held.finished.value == [1, 2]


def test_more_signals_than_a_page_holds_are_all_received(store):
    def counting_():
        total = 0
        for _ in range(2500):
            total += yield from flow.signal("go")
        return total

    begin(store, counting_)
    for _ in range(2500):
        store.run(flow.send("f-1", "go", 1))
    assert Conducted(store, counting_).finished.value == 2500


def test_a_signal_that_does_not_come_in_time_is_a_timeout_and_its_key_is_gone(store, clock):
    def waiting():
        try:
            yield from flow.signal("approved", timeout=60)
        except TimeoutError as error:
            told = str(error)
        yield from flow.call(fetch, "a")
        return told

    begin(store, waiting)
    held = Conducted(store, waiting)
    assert held.timers == {(1,): clock.at + 60_000_000}
    assert len(keys(store, journal.DUE)) == 1
    clock.go_on(60)
    held.is_due((1,))
    assert keys(store, journal.DUE) == []
    held = again(held, waiting)
    held.give((2,), "A")
    assert held.finished.value == "no signal 'approved' came in 60 seconds"


def test_a_signal_that_comes_in_time_takes_its_timer_away(store):
    def waiting():
        yield from flow.signal("approved", timeout=60)
        yield from flow.call(fetch, "a")

    begin(store, waiting)
    held = Conducted(store, waiting)
    held.signal("approved")
    assert keys(store, journal.DUE) == []
    assert list(held.calls) == [(2,)]


# Timers


def test_a_timers_key_is_put_with_its_entry_and_deleted_with_that_of_its_end(store, clock):
    def sleeping():
        yield from flow.sleep(60)
        yield from flow.call(fetch, "a")

    begin(store, sleeping)
    held = Conducted(store, sleeping)
    due = clock.at + 60_000_000
    assert entries(store)[1:] == [[((1,), "started")]]
    assert keys(store, journal.DUE) == [f"{due:017d}/f-1/1"]
    assert store.run(flow.due_before(due + 1)) == [(due, "f-1", (1,))]
    assert store.run(flow.due_before(due)) == []
    held.is_due((1,))
    assert keys(store, journal.DUE) == []


def test_a_timer_is_due_at_its_entrys_time_plus_its_length_whoever_takes_it_up(store, clock):
    def sleeping():
        yield from flow.sleep(60)

    begin(store, sleeping)
    held = Conducted(store, sleeping)
    due = held.timers[1,]
    clock.go_on(45)
    held = again(held, sleeping)
    assert held.timers == {(1,): due}


def test_the_length_of_a_sleep_may_be_changed_and_counts_from_when_it_began(store, clock):
    def sleeping():
        yield from flow.sleep(60)

    def longer():
        yield from flow.sleep(90)

    longer = flow.defined(name="sleeping")(longer)
    begin(store, sleeping)
    held = Conducted(store, sleeping)
    began = clock.at
    clock.go_on(45)
    held = again(held, longer)
    assert held.timers == {(1,): began + 90_000_000}
    held.is_due((1,))
    assert keys(store, journal.DUE) == []


def test_a_timer_of_a_loser_is_withdrawn_and_its_key_deleted_with_the_winners_entry(store):
    def racing():
        place, _ = yield from flow.first_of(flow.sleep(60), flow.call(fetch, "a"))
        yield from flow.call(fetch, "b")
        return place

    begin(store, racing)
    held = Conducted(store, racing)
    held.give((1, 2, 1), "A")
    assert not held.timers
    assert keys(store, journal.DUE) == []
    held = again(held, racing)
    assert not held.timers
    held.give((2,), "B")
    assert held.finished.value == 1


def test_now_never_falls_within_a_flow(store, clock):
    def looking():
        first = yield from flow.now()
        yield from flow.call(fetch, "a")
        second = yield from flow.now()
        yield from flow.call(fetch, "b")
        return [first, second, (yield from flow.now())]

    begin(store, looking)
    held = Conducted(store, looking)
    clock.go_on(-30)
    held.give((2,), "A")
    held = again(held, looking)
    clock.go_on(-30)
    held.give((4,), "B")
    first, second, third = held.finished.value
    assert first <= second <= third


def test_now_does_not_fall_behind_what_the_host_before_has_seen(store, clock):
    def looking():
        first = yield from flow.now()
        yield from flow.call(fetch, "a")
        return first <= (yield from flow.now())

    begin(store, looking)
    fast = {Now: lambda request: clock.at + 90_000_000}
    held = again(Conducted(store, looking, rows=fast), looking)
    held.give((2,), "A")
    assert held.finished.value is True


def test_a_random_number_and_an_id_are_the_same_after_a_restart(store):
    def drawing():
        drawn = [(yield from flow.random()), (yield from flow.new_id())]
        yield from flow.call(fetch, "a")
        return drawn

    begin(store, drawing)
    held = Conducted(store, drawing)
    steps = [step for event in store.run(log.read("flow/f-1"))[1:] if event.type == "steps"
             for step in journal.decode_steps(event.data["steps"])]  # fmt: skip
    held = again(held, drawing)
    held.give((3,), "A")
    number, fresh = held.finished.value
    assert 0 <= number < 1
    assert msgspec.msgpack.decode(steps[1].outcome) == fresh


# A new run


def test_a_new_run_has_an_empty_journal_and_the_same_id(store):
    def looping(number: int):
        yield from flow.call(fetch, str(number))
        flow.continue_as_new(number + 1)

    begin(store, looping, 0)
    held = Conducted(store, looping)
    for number in range(3):
        assert held.calls[1,].call.args == (str(number),)
        held.give((1,), "A")
    assert entries(store) == ["begun"]
    assert store.run(flow.status("f-1")).run == 4
    held = again(held, looping)
    assert held.calls[1,].call.args == ("3",)


def test_a_call_of_another_run_has_another_key(store):
    def looping(number: int):
        yield from flow.call(fetch, "a")
        flow.continue_as_new(number + 1)

    begin(store, looping, 0)
    held = Conducted(store, looping)
    before = held.calls[1,].key
    held.give((1,), "A")
    assert held.calls[1,].key != before


def test_signals_that_were_not_received_are_kept_for_the_next_run(store):
    def looping(number: int):
        got = yield from flow.signal("go")
        if number == 2:
            return [got, (yield from flow.signal("other"))]
        return flow.continue_as_new(number + 1)

    begin(store, looping, 0)
    held = Conducted(store, looping)
    store.run(flow.send("f-1", "other", "kept"))
    for number in range(2):
        held.signal("go", number)
    held = again(held, looping)
    held.signal("go", 2)
    assert held.finished.value == [2, "kept"]


def test_a_new_run_drops_the_messages_that_were_received(store):
    def looping():
        yield from flow.signal("go")
        flow.continue_as_new()

    begin(store, looping)
    held = Conducted(store, looping)
    for _ in range(20):
        held.signal("go")
    assert store.run(log.read("flow-inbox/f-1")) == []


def test_thousands_of_runs_take_no_more_of_the_stack_than_one(store):
    def looping(number: int):
        if number < 3000:
            flow.continue_as_new(number + 1)
        return number
        yield

    begin(store, looping, 0)
    held = Conducted(store, looping)
    assert held.finished.value == 3000
    assert len(store.run(log.read("flow/f-1"))) == 1


def test_a_run_that_is_over_leaves_nothing_in_memory(store):
    class Mark:
        pass

    marks = WeakSet()

    def looping(number: int):
        mark = Mark()
        marks.add(mark)
        yield from flow.all_of(kv.get("a"), flow.local(kv.get("b")))
        if number == 300:
            yield from flow.signal("go")
        flow.continue_as_new(number + 1)

    begin(store, looping, 0)
    held = Conducted(store, looping)
    assert held.asked is not None
    gc.collect()
    assert len(marks) == 1


def test_an_error_group_that_a_flow_ended_with_is_told_by_its_words(store):
    def failing():
        yield from kv.get("a")
        raise ExceptionGroup("two things", [LookupError("no tea"), OSError("no disk")])

    begin(store, failing)
    Conducted(store, failing)
    with pytest.raises(FlowFailed, match="two things") as raised:
        store.run(flow.result("f-1"))
    assert "ExceptionGroup" in f"{type(raised.value.__cause__).__name__}{raised.value.__cause__}"


def test_a_new_run_takes_the_newest_version_of_the_code(store):
    @flow.defined(name="looping")
    def old():
        yield from flow.signal("go")
        flow.continue_as_new()

    @flow.defined(name="looping", version=2)
    def new():
        return "new"
        yield

    begin(store, old)
    held = again(Conducted(store, old), old, new)
    held.signal("go")
    assert held.finished.value == "new"


def test_a_flow_is_known_by_its_first_arguments_in_whichever_run(store):
    def looping(number: int):
        yield from flow.signal("go")
        flow.continue_as_new(number + 1)

    assert begin(store, looping, 0) is True
    held = Conducted(store, looping)
    held.signal("go")
    assert begin(store, looping, 0) is False
    with pytest.raises(FlowExists, match="with other arguments"):
        begin(store, looping, 1)


def test_what_lost_in_one_run_is_withdrawn_before_the_next_begins(store):
    def looping(number: int):
        yield from flow.first_of(flow.call(fetch, str(number)), flow.sleep(60), flow.signal("go"))
        flow.continue_as_new(number + 1)

    begin(store, looping, 0)
    held = Conducted(store, looping)
    held.signal("go")
    assert set(held.asked.withdrawn) >= {(1, 1, 1), (1, 2, 1)}
    assert held.calls[1, 1, 1].call.args == ("1",)
    assert len(keys(store, journal.DUE)) == 1


# Children


def ship(order: str) -> str:
    return (yield from flow.call(fetch, order))


def ordering():
    return (yield from flow.child(ship, "o-1"))


def test_a_child_is_a_flow_of_its_own_and_its_result_is_its_parents(store):
    begin(store, ordering)
    held = Conducted(store, ordering, ship)
    assert entries(store)[1] == [((1,), "started")]
    child = Conducted(store, ordering, ship, flow_id="f-1.1")
    child.give((1,), "shipped")
    held.tell()
    assert held.finished.value == "shipped"


def test_a_child_is_begun_once_whoever_takes_its_parent_up(store):
    begin(store, ordering)
    held = again(Conducted(store, ordering, ship), ordering, ship)
    assert keys(store, journal.OPEN) == ["f-1", "f-1.1"]
    Conducted(store, ordering, ship, flow_id="f-1.1").give((1,), "shipped")
    held = again(held, ordering, ship, token=b"host three")
    assert held.finished.value == "shipped"


def test_what_a_child_raises_is_raised_in_its_parent(store):
    begin(store, ordering)
    held = Conducted(store, ordering, ship)
    Conducted(store, ordering, ship, flow_id="f-1.1").fail((1,), LookupError("no ship"))
    held.tell()
    assert repr(held.finished.error) == "LookupError('no ship')"


def test_a_child_is_cancelled_with_its_parent(store):
    begin(store, ordering)
    held = Conducted(store, ordering, ship)
    held.cancel()
    assert held.finished.state == "cancelled"
    child = Conducted(store, ordering, ship, flow_id="f-1.1")
    assert child.finished.state == "cancelled"


def test_a_child_that_lost_is_told_so_once_and_not_by_each_host_that_takes_its_parent_up(store):
    def racing():
        yield from flow.first_of(flow.child(ship, "o-1"), flow.signal("go"))
        yield from flow.call(fetch, "a")

    begin(store, racing)
    held = Conducted(store, racing, ship)
    held.signal("go")
    for token in (b"host two", b"host three"):
        held = again(held, racing, ship, token=token)
    held.give((2,), "A")
    told = [event.type for event in store.run(log.read("flow-inbox/f-1.1.1.1"))]
    assert told.count("cancel") == 1


def test_a_child_that_was_cancelled_on_its_own_fails_its_parent(store):
    begin(store, ordering)
    held = Conducted(store, ordering, ship)
    child = Conducted(store, ordering, ship, flow_id="f-1.1")
    child.cancel()
    held.tell()
    assert isinstance(held.finished.error, FlowFailed)
    assert "flow 'f-1.1' was cancelled" in str(held.finished.error)


def test_a_childs_id_that_is_taken_is_an_error_in_its_parent(store):
    def naming():
        try:
            yield from flow.child(ship, "o-1", flow_id="taken")
        except FlowExists as error:
            return str(error)

    begin(store, ship, "o-9", flow_id="taken")
    begin(store, naming)
    assert "flow 'taken' is another flow, and not a child of 'f-1'" in Conducted(store, naming, ship).finished.value


def test_a_child_of_the_next_run_is_another_child(store):
    def looping(number: int):
        yield from flow.child(ship, f"o-{number}")
        flow.continue_as_new(number + 1)

    begin(store, looping, 1)
    held = Conducted(store, looping, ship)
    Conducted(store, looping, ship, flow_id="f-1.1").give((1,), "shipped")
    held.tell()
    assert keys(store, journal.OPEN) == ["f-1", "f-1.r2.1"]


# Changes of code


def test_a_flow_that_had_got_past_a_change_goes_on_without_it(store):
    @flow.defined(name="order")
    def before():
        yield from flow.call(fetch, "a")
        yield from flow.call(fetch, "b")

    @flow.defined(name="order")
    def after():
        if (yield from flow.patched("ask for fraud")):
            yield from flow.call(fetch, "fraud")
        yield from flow.call(fetch, "a")
        return (yield from flow.call(fetch, "b"))

    begin(store, before)
    held = Conducted(store, before)
    held.give((1,), "A")
    held = again(held, after)
    held.give((2,), "B")
    assert held.finished.value == "B"


def test_a_flow_that_begins_after_a_change_has_it_and_keeps_it(store):
    def after():
        if (yield from flow.patched("ask for fraud")):
            yield from flow.call(fetch, "fraud")
        yield from flow.call(fetch, "a")

    begin(store, after)
    held = Conducted(store, after)
    held.give((1,), "F")
    held = again(held, after)
    held = again(held, after, token=b"host three")
    assert held.calls[2,].call.args == ("a",)


def test_a_change_is_decided_once_although_it_is_asked_for_in_a_loop(store):
    @flow.defined(name="order")
    def before():
        for _ in range(2):
            yield from flow.call(fetch, "a")

    @flow.defined(name="order")
    def after():
        said = []
        for _ in range(2):
            said.append((yield from flow.patched("tea")))
            yield from flow.call(fetch, "a")
        return said

    begin(store, before)
    held = Conducted(store, before)
    held.give((1,), "A")
    held = again(held, after)
    held.give((2,), "A")
    assert held.finished.value == [False, False]


# Only what was read


def test_of_a_local_program_only_its_value_is_kept(store):
    def summing():
        total = 0
        for event in (yield from log.read("orders")):
            total += event.data
        return total

    def reading():
        total = yield from flow.local(summing())
        yield from flow.call(fetch, "a")
        return total

    for number in range(5):
        store.run(log.append("orders", "placed", number))
    begin(store, reading)
    held = Conducted(store, reading)
    assert entries(store)[1] == [((1,), "answer")]
    store.run(log.append("orders", "placed", 100))
    rows, count = counting(store, Read)
    held = again(held, reading, rows=rows)
    # Its journal and its inbox.
    assert count == {Read: 2}
    held.give((2,), "A")
    assert held.finished.value == 10


def test_what_a_local_program_raises_is_raised_in_the_flow(store):
    def failing():
        yield from kv.get("color")
        raise LookupError("no color")

    def reading():
        try:
            yield from flow.local(failing())
        except LookupError as error:
            return str(error)

    begin(store, reading)
    assert Conducted(store, reading).finished.value == "no color"


# Types


class Receipt(msgspec.Struct, frozen=True):
    order: str
    cents: int


def charge(order: str, cents: int) -> Receipt: ...


def approving(receipt: Receipt):
    charged: Receipt = yield from flow.call(charge, receipt.order, receipt.cents)
    more: Receipt = yield from flow.signal("more", returns=Receipt)
    return charged.cents + more.cents


def test_arguments_results_and_signals_are_of_the_types_that_annotations_say(store):
    begin(store, approving, Receipt("o-1", 5))
    held = Conducted(store, approving)
    assert held.calls[1,].call.args == ("o-1", 5)
    held.give((1,), Receipt("o-1", 6))
    held = again(held, approving)
    held.signal("more", Receipt("o-1", 7))
    assert held.finished.value == 13


def test_a_result_is_of_the_type_that_its_flows_annotation_says(store):
    def receipt() -> Effect[Receipt]:
        yield from kv.get("color")
        return Receipt("o-1", 5)

    begin(store, receipt)
    assert Conducted(store, receipt).finished.value == Receipt("o-1", 5)
    assert store.run(flow.result("f-1", returns=Receipt)) == Receipt("o-1", 5)


def test_a_signal_of_another_type_is_an_error_and_is_not_received_again(store):
    def waiting():
        try:
            yield from flow.signal("more", returns=int)
        except InvalidRequest as error:
            told = str(error)
        return [told, (yield from flow.signal("more", returns=int))]

    begin(store, waiting)
    held = Conducted(store, waiting)
    held.signal("more", "many")
    held = again(held, waiting)
    held.signal("more", 7)
    told, more = held.finished.value
    assert "signal 'more' does not fit its type <class 'int'>" in told
    assert more == 7


# Sizes


def test_what_is_too_large_for_a_journal_is_an_error_in_the_flow(store):
    def fetching():
        try:
            yield from flow.call(fetch, "a")
        except InvalidRequest as error:
            return str(error)

    begin(store, fetching)
    held = Conducted(store, fetching, result_limit_bytes=1000)
    held.give((1,), "x" * 1001)
    assert held.finished.value == (
        "what came of call(fetch, 'a') takes 1004 bytes, and a journal takes 1000: put it into a blob store and hand "
        "the reference on"
    )


def test_a_result_that_is_too_large_fails_the_flow(store):
    def large():
        return "x" * 1001
        yield

    begin(store, large)
    held = Conducted(store, large, result_limit_bytes=1000)
    assert held.finished.state == "failed"
    assert "the result of flow 'f-1' takes 1004 bytes" in str(held.finished.error)


def test_an_error_that_is_too_large_is_cut_where_a_call_raised_it(store):
    def fetching():
        try:
            yield from flow.call(fetch, "a")
        except InvalidRequest as error:
            return str(error)

    begin(store, fetching)
    held = Conducted(store, fetching, result_limit_bytes=2000)
    held.fail((1,), LookupError("x" * 100_000))
    assert held.finished.value.startswith("LookupError of 100")
    assert len(held.finished.value) < 1500


def test_an_error_that_is_too_large_still_ends_the_flow(store):
    def failing():
        raise LookupError("x" * 100_000)
        yield

    begin(store, failing)
    held = Conducted(store, failing, result_limit_bytes=2000)
    assert held.finished.state == "failed"
    (ended,) = store.run(log.read("flow/f-1"))
    assert len(ended.data["error"]) <= 2000


def test_much_that_was_read_is_told_in_entries_of_limited_size(store):
    def reading():
        for _ in range(20):
            yield from kv.get("large")
        yield from flow.call(fetch, "a")

    store.run(kv.put("large", "x" * 600))
    begin(store, reading)
    Conducted(store, reading, result_limit_bytes=1000).is_gone()
    sizes = [len(entry) for entry in entries(store) if isinstance(entry, list)]
    assert sum(sizes) == 20
    assert max(sizes) <= 2


SMALL = 16_384
"""What a payload takes in these stores; a journal's outcome a quarter of it."""


def test_many_large_outcomes_that_come_at_once_are_told_in_several_entries():
    def fetching():
        got = yield from flow.all_of(*(flow.call(fetch, str(number)) for number in range(20)))
        yield from flow.call(fetch, "a")
        return sum(map(len, got))

    with open_store("memory:", payload_limit_bytes=SMALL) as store:
        begin(store, fetching)
        held = Conducted(store, fetching, result_limit_bytes=SMALL // 4)
        held.come(*(Came((1, number + 1, 1), "x" * 4000) for number in range(20)))
        held = again(held, fetching, result_limit_bytes=SMALL // 4)
        held.give((2,), "")
        assert held.finished.value == 80_000


def test_many_large_signals_that_came_at_once_are_told_in_several_entries():
    def receiving():
        total = 0
        for _ in range(20):
            total += len((yield from flow.signal("go")))
        yield from flow.call(fetch, "a")
        return total

    with open_store("memory:", payload_limit_bytes=SMALL) as store:
        begin(store, receiving)
        for _ in range(20):
            store.run(flow.send("f-1", "go", "x" * 4000))
        held = Conducted(store, receiving, result_limit_bytes=SMALL // 4)
        held = again(held, receiving, result_limit_bytes=SMALL // 4)
        held.give((21,), "")
        assert held.finished.value == 80_000


def test_many_large_signals_for_branches_are_told_in_several_entries():
    def receiving():
        got = yield from flow.all_of(*(flow.signal("go") for _ in range(20)))
        yield from flow.call(fetch, "a")
        return sum(map(len, got))

    with open_store("memory:", payload_limit_bytes=SMALL) as store:
        begin(store, receiving)
        held = Conducted(store, receiving, result_limit_bytes=SMALL // 4)
        for _ in range(20):
            store.run(flow.send("f-1", "go", "x" * 4000))
        held.tell()
        held = again(held, receiving, result_limit_bytes=SMALL // 4)
        held.give((2,), "")
        assert held.finished.value == 80_000


# Cancellation


def test_what_a_flow_does_in_its_finally_is_done_and_kept_after_it_was_cancelled(store):
    def cleaning():
        try:
            yield from flow.call(fetch, "a")
        finally:
            yield from kv.put("cleaned", 1)
            yield from flow.call(fetch, "clean")

    begin(store, cleaning)
    held = Conducted(store, cleaning)
    held.cancel()
    assert entries(store)[-1] == [((), "cancel"), ((2,), "noted")]
    assert list(held.calls) == [(3,)]
    held = again(held, cleaning)
    assert list(held.calls) == [(3,)]
    held.give((3,), "C")
    assert held.finished.state == "cancelled"
    with pytest.raises(FlowFailed, match="flow 'f-1' was cancelled"):
        store.run(flow.result("f-1"))


def test_a_flow_that_cleans_up_is_not_cancelled_again(store):
    def cleaning():
        try:
            yield from flow.call(fetch, "a")
        finally:
            yield from flow.call(fetch, "clean")

    begin(store, cleaning)
    held = Conducted(store, cleaning)
    held.cancel()
    held.cancel()
    assert list(held.calls) == [(2,)]
    held = again(held, cleaning)
    assert list(held.calls) == [(2,)]


def test_a_flow_that_catches_its_cancellation_has_completed(store):
    def stubborn():
        try:
            yield from flow.call(fetch, "a")
        except Cancelled:
            return "all the same"

    begin(store, stubborn)
    held = Conducted(store, stubborn)
    held.cancel()
    assert (held.finished.state, held.finished.value) == ("completed", "all the same")


def test_a_flow_that_has_ended_by_the_same_news_is_not_cancelled_any_more(store):
    def once():
        return (yield from flow.call(fetch, "a"))

    begin(store, once)
    held = Conducted(store, once)
    store.run(flow.cancel("f-1"))
    held.come(Came((1,), "A"), Came(()))
    assert (held.finished.state, held.finished.value) == ("completed", "A")


def test_what_a_flow_that_is_let_go_of_asks_in_its_finally_is_neither_done_nor_kept(store):
    def cleaning():
        try:
            yield from flow.call(fetch, "a")
        finally:
            yield from kv.put("cleaned", 1)

    begin(store, cleaning)
    held = Conducted(store, cleaning)
    before = entries(store)
    held.is_gone()
    assert entries(store) == before
    assert not store.run(kv.has("cleaned"))


# Pause


def test_a_flow_that_is_paused_begins_nothing_and_what_it_has_begun_is_kept(store):
    def twice():
        yield from flow.call(fetch, "a")
        return (yield from flow.call(fetch, "b"))

    begin(store, twice)
    held = Conducted(store, twice)
    store.run(flow.pause("f-1"))
    held.tell()
    assert store.run(flow.status("f-1")).state == "paused"
    held.give((1,), "A")
    assert not held.calls
    held = again(held, twice)
    assert not held.calls
    store.run(flow.resume("f-1"))
    held.tell()
    assert list(held.calls) == [(2,)]
    assert store.run(flow.status("f-1")).state == "running"


# Who owns it


def test_a_host_that_was_overtaken_writes_nothing_more_and_lets_go(store):
    def twice():
        yield from flow.call(fetch, "a")
        yield from kv.put("color", "red")

    begin(store, twice)
    slow = Conducted(store, twice, token=b"slow")
    fast = Conducted(store, twice, token=b"fast")
    with pytest.raises(OwnershipLost, match="flow 'f-1' was taken over by another host"):
        slow.give((1,), "A")
    assert not store.run(kv.has("color"))
    fast.give((1,), "A")
    assert fast.finished.state == "completed"


def test_a_flow_cannot_catch_that_another_host_has_taken_it_over(store):
    def catching():
        yield from flow.call(fetch, "a")
        try:
            yield from kv.put("color", "red")
        except Exception:
            return "caught"

    begin(store, catching)
    slow = Conducted(store, catching, token=b"slow")
    Conducted(store, catching, token=b"fast").is_gone()
    with pytest.raises(OwnershipLost):
        slow.give((1,), "A")


def test_a_flow_that_is_taken_over_again_and_again_without_getting_on_is_set_aside(store):
    def once():
        yield from flow.call(fetch, "a")

    begin(store, once)
    for number in range(10):
        Conducted(store, once, token=b"host %d" % number).is_gone()
    held = Conducted(store, once, token=b"the last")
    assert held.finished.state == "set aside"
    status = store.run(flow.status("f-1"))
    assert (status.state, status.error) == ("set aside", "it was taken over 10 times in a row without getting on")
    assert store.run(flow.unended()) == {}


def test_a_flow_that_was_set_aside_is_taken_up_again_once_someone_says_so(store):
    def once():
        yield from flow.call(fetch, "a")

    begin(store, once)
    for number in range(3):
        Conducted(store, once, token=b"host %d" % number, claims_limit=2)
    assert store.run(flow.status("f-1")).state == "set aside"
    store.run(flow.retry("f-1"))
    held = Conducted(store, once)
    held.give((1,), "A")
    assert held.finished.state == "completed"


def test_a_flow_that_has_ended_is_not_taken_up(store):
    def at_once():
        return 1
        yield

    begin(store, at_once)
    Conducted(store, at_once)
    with pytest.raises(NoSuchFlow, match="it has ended, completed"):
        Conducted(store, at_once)


# Where the outcome of a write is uncertain


class Losing:
    """Rows that lose the answer of the write with this number: before it was written, or after."""

    def __init__(self, store, number, *, is_written, is_late=False):
        self._store = store
        self._left = number
        self._is_written = is_written
        self._is_late = is_late
        self._on_its_way = None

    def rows(self):
        return {Transact: self._answer, Append: self._answer}

    def _answer(self, request):
        if self._on_its_way is not None:
            on_its_way, self._on_its_way = self._on_its_way, None
            self._store.handlers[type(on_its_way)](on_its_way)
        self._left -= 1
        if self._left:
            return self._store.handlers[type(request)](request)
        if self._is_late:
            self._on_its_way = request
        elif self._is_written:
            self._store.handlers[type(request)](request)
        raise UncertainOutcome("the connection was cut")


def counting_up():
    first = yield from kv.put("a", 1)
    seen = yield from kv.get("a")
    appended = yield from log.append("log", "counted", seen)
    found = yield from kv.put_expect("b", 0, 1)
    yield from flow.call(fetch, "a")
    yield from flow.sleep(5)
    return [first > 0, appended.seq, isinstance(found, Conflict)]


WAYS = {
    "it was not written": {"is_written": False},
    "it was written": {"is_written": True},
    "it is written later": {"is_written": True, "is_late": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(1, 8))
def test_a_write_whose_answer_was_lost_takes_effect_once_and_the_flow_goes_on(store, number, way):
    begin(store, counting_up)
    held = Conducted(store, counting_up, rows=Losing(store, number, **WAYS[way]).rows())
    held.give((5,), "A")
    held.is_due((6,))
    assert held.finished.value == [True, 1, False]
    assert len(store.run(log.read("log"))) == 1
    assert entries(store) == ["ended"]
    assert keys(store, journal.DUE) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_new_run_whose_answer_was_lost_begins_once(store, way):
    def looping(number: int):
        yield from flow.call(fetch, "a")
        if number == 2:
            return number
        return flow.continue_as_new(number + 1)

    begin(store, looping, 1)
    # The claim is the first.
    held = Conducted(store, looping, rows=Losing(store, 2, **WAYS[way]).rows())
    held.give((1,), "A")
    assert store.run(flow.status("f-1")).run == 2
    held.give((1,), "A")
    assert held.finished.value == 2


def test_a_host_that_lost_an_answer_and_was_overtaken_lets_go(store):
    def once():
        yield from flow.call(fetch, "a")
        yield from kv.put("color", "red")

    begin(store, once)
    slow = Conducted(store, once, token=b"slow", rows=Losing(store, 2, is_written=False).rows())
    Conducted(store, once, token=b"fast").is_gone()
    with pytest.raises(OwnershipLost):
        slow.give((1,), "A")
    assert not store.run(kv.has("color"))


# Sagas


def booking(fails_at: int):
    def body(saga):
        for number, what in enumerate(("seat", "room", "car")):
            yield from saga.step(flow.call(fetch, what), undo=lambda what=what: flow.call(fetch, f"give back {what}"))
            if number == fails_at:
                raise LookupError(f"no {what}")
        return "booked"

    return (yield from flow.saga(body))


def test_the_steps_of_a_saga_that_fails_are_undone_the_last_one_first(store):
    begin(store, booking, 1)
    held = Conducted(store, booking)
    held.give((1,), "S")
    held.give((2,), "R")
    asked = []
    while held.asked is not None:
        held = again(held, booking, token=b"host %d" % len(asked))
        ((path, started),) = held.calls.items()
        asked.append(started.call.args[0])
        held.give(path, "")
    assert asked == ["give back room", "give back seat"]
    assert repr(held.finished.error) == "LookupError('no room')"


def test_the_steps_of_a_saga_that_is_cancelled_are_undone_also_the_one_that_was_under_way(store):
    begin(store, booking, 9)
    held = Conducted(store, booking)
    held.give((1,), "S")
    held.cancel()
    assert held.calls[3,].call.args == ("give back room",)
    held.give((3,), "")
    assert held.calls[4,].call.args == ("give back seat",)
    held.give((4,), "")
    assert held.finished.state == "cancelled"


def test_an_undo_that_fails_does_not_keep_the_others_from_it_and_is_heard(store):
    begin(store, booking, 1)
    held = Conducted(store, booking)
    held.give((1,), "S")
    held.give((2,), "R")
    held.fail((3,), OSError("the hotel is closed"))
    held.give((4,), "")
    assert held.finished.state == "failed"
    assert isinstance(held.finished.error, ExceptionGroup)
    assert [repr(each) for each in held.finished.error.exceptions] == [
        "LookupError('no room')",
        "OSError('the hotel is closed')",
    ]


def test_a_step_of_a_saga_that_raised_is_not_undone(store):
    begin(store, booking, 9)
    held = Conducted(store, booking)
    held.fail((1,), LookupError("no seat"))
    assert repr(held.finished.error) == "LookupError('no seat')"


# How its keys stand


def test_a_flow_that_a_host_has_taken_up_and_written_for_is_that_hosts(store):
    def once():
        yield from kv.put("a", 1)
        yield from flow.call(fetch, "a")

    begin(store, once)
    assert store.run(flow.unended())["f-1"].standing.owner == b""
    held = Conducted(store, once)
    assert store.run(flow.unended())["f-1"].standing.owner == b"host one"
    again(held, once)
    assert store.run(flow.unended())["f-1"].standing.owner == b"host two"


# Messages that nobody waits for


def test_what_a_step_is_resolved_with_before_it_waits_is_passed_over_also_after_a_restart(store):
    def twice():
        yield from flow.call(fetch, "a")
        return (yield from flow.call(fetch, "b"))

    begin(store, twice)
    held = Conducted(store, twice)
    store.run(flow.resolve("f-1", (2,), "from nobody"))
    held.tell()
    held = again(held, twice)
    held.give((1,), "A")
    held = again(held, twice)
    held.give((2,), "B")
    assert held.finished.value == "B"
