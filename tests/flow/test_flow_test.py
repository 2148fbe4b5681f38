"""Flows under a clock that the test moves: what is faked, what is waited for, and what a crash at any write leaves."""

import threading

import pytest

from interpreters.flow_testing import FlowStuck, FlowTest, flow_test
from persist_effects import InvalidRequest, Retry, flow, kv, log
from persist_effects.errors import FlowFailed, Nondeterministic, NoSuchFlow

DAY = 86_400
MONTH = 30 * DAY


@flow.activity(repeat="keyed")
def charge(order: str, cents: int, *, key: str) -> str:
    return f"{order} paid {cents} with {key}"


def ship(order: str) -> str:
    return f"{order} shipped"


def remind(order: str) -> None: ...


def release(seat: str) -> None: ...


def pay(order: str):
    return (yield from flow.call(charge, order, 500))


def approval(order: str):
    place, value = yield from flow.first_of(flow.signal("approved", timeout=7 * DAY), nagging(order))
    assert place == 0, "the other one never ends"
    return value


def nagging(order: str):
    while True:
        yield from flow.sleep(DAY)
        yield from flow.call(remind, order)


# Time


def test_a_flow_that_sleeps_for_a_month_runs_at_once():
    def sleeper():
        began = yield from flow.now()
        yield from flow.sleep(MONTH)
        return (yield from flow.now()) - began

    with flow_test([sleeper]) as test:
        test.start(sleeper, "s-1")
        assert test.run_to_end("s-1") == MONTH * 1_000_000
        assert test.elapsed == MONTH


def test_the_clock_begins_where_it_is_said():
    def tell():
        return (yield from flow.now())

    with flow_test([tell], start=7) as test:
        test.start(tell, "t-1")
        assert (test.run_to_end("t-1"), test.now) == (7, 7)


def test_what_is_due_happens_in_order_each_at_its_own_time():
    def nap(name: str, seconds: int):
        yield from flow.sleep(seconds)
        yield from log.append("naps", name, (yield from flow.now()))

    with flow_test([nap], start=0) as test:
        for name, seconds in (("long", 30), ("short", 10), ("middle", 20)):
            test.start(nap, name, name, seconds)
        test.advance(25)
        assert [(event.type, event.data, event.at) for event in test.store.run(log.read("naps"))] == [
            ("short", 10_000_000, 10_000_000),
            ("middle", 20_000_000, 20_000_000),
        ]
        assert test.now == 25_000_000
        assert test.status("long").state == "running"


def test_a_timer_is_not_due_a_microsecond_early():
    def nap():
        yield from flow.sleep(1)

    with flow_test([nap]) as test:
        test.start(nap, "n-1")
        test.advance(0.999999)
        assert test.status("n-1").state == "running"
        test.advance(0.000001)
        assert test.status("n-1").state == "completed"


@pytest.mark.parametrize("seconds", [-1, float("inf"), "1"])
def test_the_clock_goes_on_by_a_number_of_seconds(seconds):
    with flow_test([pay]) as test, pytest.raises(InvalidRequest, match="seconds is"):
        test.advance(seconds)


def test_no_thread_is_begun():
    with flow_test([pay], [charge]) as test:
        before = threading.active_count()
        test.start(pay, "p-1", "o-1")
        assert test.run_to_end("p-1").startswith("o-1 paid 500")
        assert threading.active_count() == before


def test_two_runs_are_the_same_to_the_last_byte():
    def draw():
        yield from log.append("drawn", "id", (yield from flow.new_id()))
        yield from flow.sleep(1)
        return (yield from flow.random())

    def journal():
        with flow_test([draw]) as test:
            test.start(draw, "d-1")
            test.advance(0)
            return test.store.run(log.read("flow/d-1")), test.run_to_end("d-1")

    assert journal() == journal()


# Signals


def test_an_approval_is_reminded_of_each_day_until_it_comes():
    with flow_test([approval], [remind]) as test:
        test.start(approval, "a-1", "o-1")
        test.advance(3.5 * DAY)
        assert [call.activity for call in test.calls] == ["remind"] * 3
        test.signal("a-1", "approved", "by Ada")
        test.run_until_idle()
        assert test.result("a-1") == "by Ada"
        test.advance(MONTH)
        assert len(test.calls) == 3


def test_an_approval_that_does_not_come_is_too_late_after_a_week():
    with flow_test([approval], [remind]) as test:
        test.start(approval, "a-1", "o-1")
        with pytest.raises(FlowFailed) as raised:
            test.run_to_end("a-1")
        assert isinstance(raised.value.__cause__, TimeoutError)
        assert test.elapsed == 7 * DAY


def test_a_signal_that_an_activity_sends_is_received():
    def ask(order: str) -> None: ...

    def asking(order: str):
        yield from flow.call(ask, order)
        return (yield from flow.signal("answer"))

    with flow_test([asking]) as test:
        test.fake(ask, lambda order: test.signal("a-1", "answer", f"yes, {order}"))
        test.start(asking, "a-1", "o-1")
        assert test.run_to_end("a-1") == "yes, o-1"


def test_a_paused_flow_begins_nothing_until_it_is_resumed():
    def nap(order: str):
        yield from flow.sleep(1)
        return (yield from flow.call(ship, order))

    with flow_test([nap], [ship]) as test:
        test.start(nap, "n-1", "o-1")
        test.run_until_idle()
        test.pause("n-1")
        with pytest.raises(FlowStuck, match=r"it is paused: test\.resume\('n-1'\)"):
            test.run_to_end("n-1")
        assert test.calls == []
        test.resume("n-1")
        assert test.run_to_end("n-1") == "o-1 shipped"


def test_a_flow_that_is_cancelled_cleans_up():
    def holding():
        try:
            yield from flow.signal("never")
        finally:
            yield from flow.call(release, "12a")

    with flow_test([holding], [release]) as test:
        test.start(holding, "h-1")
        test.run_until_idle()
        test.cancel("h-1")
        with pytest.raises(FlowFailed, match="was cancelled"):
            test.run_to_end("h-1")
        assert [call.args for call in test.calls] == [("12a",)]


def test_a_child_is_waited_for():
    def parent(order: str):
        return (yield from flow.child(pay, order))

    with flow_test([parent, pay], [charge]) as test:
        test.start(parent, "p-1", "o-1")
        assert test.run_to_end("p-1").startswith("o-1 paid 500 with p-1.1/1/")


# Activities


def test_an_activity_that_fails_is_tried_again_as_the_clock_goes_on():
    def stubborn(order: str):
        return (yield from flow.call(ship, order, retry=Retry(3, wait_seconds=10, factor=2)))

    tried = []

    def failing(order: str) -> str:
        tried.append(test.elapsed)
        if len(tried) < 4:
            raise ConnectionError("no road")
        return "at last"

    with flow_test([stubborn], fakes={ship: failing}) as test:
        test.start(stubborn, "s-1", "o-1")
        assert test.run_to_end("s-1") == "at last"
        assert tried == [0, 10, 30, 70]
        assert {call.path for call in test.calls} == {(1,)}


def test_a_call_that_does_not_end_in_time_raises_in_the_flow():
    def hasty(order: str):
        try:
            yield from flow.call(ship, order, timeout=30)
        except TimeoutError as error:
            return str(error)

    with flow_test([hasty], fakes={ship: FlowTest.never}) as test:
        test.start(hasty, "h-1", "o-1")
        assert test.run_to_end("h-1") == "activity 'ship' did not end within 30 seconds"
        assert test.elapsed == 30


def test_each_try_has_its_own_timeout():
    def hasty(order: str):
        return (yield from flow.call(ship, order, timeout=30, retry=Retry(1, wait_seconds=5)))

    with flow_test([hasty], fakes={ship: [FlowTest.never, FlowTest.after(29, "slow")]}) as test:
        test.start(hasty, "h-1", "o-1")
        assert test.run_to_end("h-1") == "slow"
        assert test.elapsed == 30 + 5 + 29


def test_a_call_that_takes_longer_than_its_time_is_too_late():
    def hasty(order: str):
        yield from flow.call(ship, order, timeout=30)

    with flow_test([hasty], fakes={ship: FlowTest.after(31, "slow")}) as test:
        test.start(hasty, "h-1", "o-1")
        with pytest.raises(FlowFailed) as raised:
            test.run_to_end("h-1")
        assert isinstance(raised.value.__cause__, TimeoutError)


@pytest.mark.parametrize("step", [ship, "ship", (1,)], ids=["function", "name", "path"])
def test_a_call_that_does_not_end_is_resolved(step):
    def shipping(order: str):
        return (yield from flow.call(ship, order))

    with flow_test([shipping], fakes={ship: FlowTest.never}) as test:
        test.start(shipping, "s-1", "o-1")
        test.run_until_idle()
        test.resolve("s-1", step, "by hand")
        assert test.run_to_end("s-1") == "by hand"


def test_a_call_that_does_not_end_is_resolved_with_an_error():
    def shipping(order: str):
        yield from flow.call(ship, order)

    with flow_test([shipping], fakes={ship: FlowTest.never}) as test:
        test.start(shipping, "s-1", "o-1")
        test.run_until_idle()
        test.resolve("s-1", ship, error=LookupError("lost"))
        with pytest.raises(FlowFailed) as raised:
            test.run_to_end("s-1")
        assert repr(raised.value.__cause__) == "LookupError('lost')"


def test_a_call_that_was_resolved_is_not_tried_again_when_its_time_is_over():
    def shipping(order: str):
        yield from flow.call(ship, order, timeout=30, retry=Retry(5))
        yield from flow.sleep(DAY)

    with flow_test([shipping], fakes={ship: FlowTest.never}) as test:
        test.start(shipping, "s-1", "o-1")
        test.run_until_idle()
        test.resolve("s-1", ship, "by hand")
        test.run_to_end("s-1")
        assert len(test.calls) == 1


def test_one_can_resolve_only_what_is_waited_for():
    def both():
        yield from flow.all_of(flow.call(ship, "o-1"), flow.call(ship, "o-2"))

    with flow_test([both], fakes={ship: FlowTest.never}) as test:
        test.start(both, "b-1")
        test.run_until_idle()
        with pytest.raises(InvalidRequest, match="its call of activity 'charge', and waits for none"):
            test.resolve("b-1", charge)
        with pytest.raises(InvalidRequest, match=r"waits for 2 calls of it, \(1, 1, 1\), \(1, 2, 1\): give one of"):
            test.resolve("b-1", ship)


async def shipped_in_a_while(order: str) -> str:
    return f"{order} in a while"


FAKES = {
    "a function": (lambda order: f"fake of {order}", "fake of o-1"),
    "an async function": (shipped_in_a_while, "o-1 in a while"),
    "a value": ("as it is", "as it is"),
    "a list": (["first", "second"], "first"),
    "a list with a function": ([lambda order: f"called with {order}"], "called with o-1"),
}


@pytest.mark.parametrize("kind", FAKES)
@pytest.mark.parametrize("activity", [ship, "ship"], ids=["by function", "by name"])
def test_an_activity_is_faked_by(kind, activity):
    fake, expected = FAKES[kind]

    def shipping(order: str):
        return (yield from flow.call(ship, order))

    with flow_test([shipping], [ship], fakes={activity: fake}) as test:
        test.start(shipping, "s-1", "o-1")
        assert test.run_to_end("s-1") == expected


@pytest.mark.parametrize("fake", [LookupError("no tea"), [LookupError("no tea")]], ids=["an error", "a list of one"])
def test_an_activity_is_faked_by_an_error_that_is_raised(fake):
    def shipping(order: str):
        yield from flow.call(ship, order)

    with flow_test([shipping], fakes={ship: fake}) as test:
        test.start(shipping, "s-1", "o-1")
        with pytest.raises(FlowFailed) as raised:
            test.run_to_end("s-1")
        assert repr(raised.value.__cause__) == "LookupError('no tea')"


def test_outcomes_of_a_list_are_taken_one_after_the_other_and_the_list_stays():
    def shipping():
        first = yield from flow.call(ship, "o-1", retry=Retry(1))
        return [first, (yield from flow.call(ship, "o-2"))]

    outcomes = [ConnectionError, "second", "third"]
    with flow_test([shipping], fakes={ship: outcomes}) as test:
        test.start(shipping, "s-1")
        assert test.run_to_end("s-1") == ["second", "third"]
    assert len(outcomes) == 3


def test_a_list_that_is_too_short_fails_the_test():
    def shipping():
        yield from flow.call(ship, "o-1", retry=Retry(5))

    with flow_test([shipping], fakes={ship: [ConnectionError()]}) as test:
        test.start(shipping, "s-1")
        with pytest.raises(
            AssertionError, match=r"'ship' is called once more than its fake has outcomes, with \('o-1'"
        ):
            test.run_to_end("s-1")


def test_what_a_fake_asserts_fails_the_test_and_not_the_flow():
    def check(order: str) -> str:
        assert order == "o-2"
        return order

    def shipping():
        try:
            yield from flow.call(ship, "o-1")
        except Exception:
            return "caught"

    with flow_test([shipping], fakes={ship: check}) as test:
        test.start(shipping, "s-1")
        with pytest.raises(AssertionError):
            test.run_to_end("s-1")


def test_a_fake_is_given_the_key_if_it_takes_one():
    keys = []
    with flow_test([pay], fakes={charge: lambda order, cents, key: keys.append(key)}) as test:
        test.start(pay, "p-1", "o-1")
        test.start(pay, "p-2", "o-2")
        test.run_until_idle()
        assert keys == [call.key for call in test.calls]
        test.fake(charge, lambda order, cents: "without")
        test.start(pay, "p-3", "o-3")
        assert test.run_to_end("p-3") == "without"


def test_an_async_activity_is_run():
    async def fetch(name: str) -> str:
        return f"fetched {name}"

    def fetching():
        return (yield from flow.call(fetch, "tea"))

    with flow_test([fetching], [fetch]) as test:
        test.start(fetching, "f-1")
        assert test.run_to_end("f-1") == "fetched tea"


def test_activities_that_begin_together_all_run_though_one_wins():
    def racing():
        return list((yield from flow.first_of(flow.call(ship, "o-1"), flow.call(ship, "o-2"))))

    with flow_test([racing], [ship]) as test:
        test.start(racing, "r-1")
        assert test.run_to_end("r-1") == [0, "o-1 shipped"]
        assert [call.args for call in test.calls] == [("o-1",), ("o-2",)]


# Misuse


def test_a_flow_that_hangs_is_told_what_it_waits_for():
    def hanging():
        yield from kv.get("color")
        yield from flow.all_of(flow.signal("approved"), flow.call(ship, "o-1"))

    with flow_test([hanging], fakes={ship: FlowTest.never}) as test:
        test.start(hanging, "h-1")
        with pytest.raises(FlowStuck) as raised:
            test.run_to_end("h-1")
        assert str(raised.value) == (
            "flow 'h-1' does not end, and nothing is due that could bring it on\n"
            "  it waits for step 2.1.1, signal('approved'), which nobody sends: test.signal('h-1', 'approved', …)\n"
            "  it waits for step 2.2.1, call(ship, 'o-1'), which does not end: test.resolve('h-1', 'ship', …)"
        )
        assert test.waiting("h-1") == ["step 2.1.1, signal('approved')", "step 2.2.1, call(ship, 'o-1')"]


def test_a_flow_that_waits_for_a_child_that_hangs_is_told_what_that_waits_for():
    def hanging():
        yield from flow.signal("go")

    def parent():
        yield from flow.child(hanging)

    with flow_test([parent, hanging]) as test:
        test.start(parent, "p-1")
        with pytest.raises(FlowStuck, match=r"flow 'p-1.1' is running\n    it waits for step 1, signal\('go'\)"):
            test.run_to_end("p-1")


def test_a_result_that_is_not_there_yet_says_what_is_waited_for():
    def nap():
        yield from flow.sleep(60)

    with flow_test([nap]) as test:
        test.start(nap, "n-1")
        test.run_until_idle()
        with pytest.raises(FlowStuck, match=r"flow 'n-1' has not ended yet\n  it waits for step 1, sleep"):
            test.result("n-1")


def test_a_flow_that_goes_on_for_ever_is_given_up_when_its_time_is_over():
    def for_ever(month: int):
        yield from flow.sleep(MONTH)
        flow.continue_as_new(month + 1)

    with flow_test([for_ever]) as test:
        test.start(for_ever, "f-1", 1)
        with pytest.raises(
            FlowStuck, match=r"flow 'f-1' has not ended within 3.1536e\+07 seconds\n  it waits for step 1, sl"
        ):
            test.run_to_end("f-1", within=365 * DAY)
        assert test.status("f-1").run == 13


def test_a_flow_that_runs_in_circles_is_found(monkeypatch):
    def circling():
        while True:
            yield from flow.sleep(0)

    monkeypatch.setattr("interpreters.flow_testing.testing.TURNS_LIMIT", 100)
    with flow_test([circling]) as test:
        test.start(circling, "c-1")
        with pytest.raises(FlowStuck, match=r"flows have gone on 100 times, and find no end: \{'c-1'"):
            test.run_until_idle()


def test_an_activity_that_is_not_there_halts_the_flow_and_says_which():
    with flow_test([pay], [ship]) as test:
        test.start(pay, "p-1", "o-1")
        with pytest.raises(FlowStuck, match=r"flow 'p-1' is halted: .*activity 'charge' is not here.*which has ship"):
            test.run_to_end("p-1")
        assert test.status("p-1").state == "halted"
        test.restart(activities=[charge])
        assert test.run_to_end("p-1").startswith("o-1 paid 500")


def test_a_call_with_an_argument_that_cannot_be_stored_fails_in_the_flow_before_it_is_run():
    def shipping():
        yield from flow.call(ship, object())

    with flow_test([shipping], [ship]) as test:
        test.start(shipping, "s-1")
        with pytest.raises(FlowFailed, match="an argument of activity 'ship' cannot be stored"):
            test.run_to_end("s-1")
        assert test.calls == []


def test_two_activities_of_one_name_are_refused():
    def other(order: str) -> None: ...

    named_alike = flow.activity(name="ship")(other)
    with pytest.raises(InvalidRequest, match=r"two activities are called 'ship': .*ship and .*other"):
        flow_test([pay], [ship, named_alike])
    with pytest.raises(InvalidRequest, match="two activities are called 'ship'"):
        flow_test([pay], [ship], fakes={named_alike: None})


def test_two_flows_of_one_name_are_refused():
    with pytest.raises(InvalidRequest, match="two flows are called 'pay', version 1"):
        flow_test([pay, flow.defined(name="pay")(lambda order: (yield))])


def test_a_fake_of_an_activity_that_is_not_there_is_refused():
    with pytest.raises(InvalidRequest, match="a fake for activity 'shpi', and no such activity: the test has ship"):
        flow_test([pay], [ship], fakes={"shpi": None})


def test_a_flow_that_was_never_begun_is_told():
    with flow_test([pay]) as test:
        for ask in (test.run_to_end, test.result, test.waiting, test.status, test.cancel):
            with pytest.raises(NoSuchFlow):
                ask("p-1")


def test_an_activity_cannot_let_the_flows_of_its_test_go_on():
    with flow_test([pay]) as test:
        test.fake(charge, lambda order, cents: test.advance(1))
        test.start(pay, "p-1", "o-1")
        with pytest.raises(FlowFailed) as raised:
            test.run_to_end("p-1")
        assert "an activity lets the flows of its test go on" in str(raised.value.__cause__)


# Restarts


def test_a_flow_survives_a_restart_at_any_time():
    def order(name: str):
        yield from log.append("orders", "placed", name)
        receipt = yield from flow.call(charge, name, 500)
        yield from flow.sleep(DAY)
        approved = yield from flow.signal("approved")
        yield from log.append("orders", "done", [receipt, approved])

    with flow_test([order], [charge]) as test:
        test.start(order, "o-1", "o-1")
        test.restart()
        test.advance(DAY / 2)
        test.restart()
        test.advance(DAY / 2)
        test.restart()
        test.signal("o-1", "approved", "by Ada")
        test.restart()
        test.run_to_end("o-1")
        assert [event.type for event in test.store.run(log.read("orders"))] == ["placed", "done"]
        assert len(test.calls) == 1
        assert test.elapsed == DAY


def test_a_timer_that_was_due_while_there_was_no_host_is_due_at_once():
    def nap():
        yield from flow.sleep(DAY)

    with flow_test([nap]) as test:
        test.start(nap, "n-1")
        test.run_until_idle()
        test.restart(down_seconds=2 * DAY)
        test.run_until_idle()
        assert test.status("n-1").state == "completed"


def test_a_call_that_must_not_be_repeated_waits_after_a_crash_until_it_is_resolved():
    @flow.activity(repeat="never")
    def wire(cents: int) -> str: ...

    def wiring():
        return (yield from flow.call(wire, 500))

    with flow_test([wiring], fakes={wire: FlowTest.never}) as test:
        test.start(wiring, "w-1")
        test.run_until_idle()
        test.restart()
        test.fake(wire, "again")
        with pytest.raises(FlowStuck, match=r"call\(wire, 500\), which does not end: test.resolve\('w-1', 'wire', …\)"):
            test.run_to_end("w-1")
        test.resolve("w-1", wire, "it had arrived")
        assert test.run_to_end("w-1") == "it had arrived"
        assert len(test.calls) == 1


def test_a_restart_with_changed_code_halts_a_flow_and_one_with_the_right_code_lets_it_go_on():
    def order(name: str):
        yield from flow.sleep(DAY)
        return (yield from flow.call(ship, name))

    @flow.defined(name="order")
    def changed(name: str):
        yield from flow.call(ship, name)
        yield from flow.sleep(DAY)

    with flow_test([order], [ship]) as test:
        test.start(order, "o-1", "o-1")
        test.run_until_idle()
        test.restart(flows=[changed])
        with pytest.raises(FlowStuck, match="flow 'o-1' is halted: Nondeterministic") as raised:
            test.run_to_end("o-1")
        assert isinstance(raised.value.__cause__, Nondeterministic)
        test.restart(flows=[order])
        assert test.run_to_end("o-1") == "o-1 shipped"


# Crashes


def booking(traveller: str):
    def body(saga):
        yield from saga.step(kv.put("seat", traveller), undo=lambda: kv.delete("seat"))
        yield from saga.step(flow.call(charge, traveller, 500), undo=lambda: flow.call(release, traveller))
        yield from log.append("bookings", "reserved", traveller)
        yield from flow.sleep(DAY)
        if not (yield from flow.signal("confirmed", timeout=DAY)):
            raise LookupError("not confirmed")
        yield from log.append("bookings", "confirmed", traveller)

    yield from flow.saga(body)


def steps_by_activity(test):
    """Which steps each activity was called for, with which key."""
    steps = {}
    for call in test.calls:
        steps.setdefault(call.activity, set()).add((call.path, call.key))
    return steps


def test_a_booking_that_is_confirmed_survives_every_crash():
    def scenario(test):
        test.start(booking, "b-1", "Ada")
        test.advance(DAY / 2)
        test.signal("b-1", "confirmed", True)
        test.run_to_end("b-1")
        assert [event.type for event in test.store.run(log.read("bookings"))] == ["reserved", "confirmed"]
        assert test.store.run(kv.get("seat")) == "Ada"
        assert steps_by_activity(test) == {"charge": {((2,), "b-1/1/2")}}
        assert test.elapsed == DAY
        assert test.store.run(kv.keys("flow-due/")) == []
        assert test.store.run(kv.keys("flow-open/")) == []

    assert flow_test([booking], [charge, release]).every_crash(scenario) >= 10


@pytest.mark.parametrize("answer", [False, None], ids=["refused", "no answer"])
def test_a_booking_that_is_not_confirmed_is_undone_at_every_crash(answer):
    def scenario(test):
        test.start(booking, "b-1", "Ada")
        if answer is not None:
            test.signal("b-1", "confirmed", answer)
        with pytest.raises(FlowFailed):
            test.run_to_end("b-1")
        assert [event.type for event in test.store.run(log.read("bookings"))] == ["reserved"]
        assert not test.store.run(kv.has("seat"))
        steps = steps_by_activity(test)
        assert {name: len(each) for name, each in steps.items()} == {"charge": 1, "release": 1}
        assert test.elapsed == (2 * DAY if answer is None else DAY)

    assert flow_test([booking], [charge, release]).every_crash(scenario) >= 12


def test_two_crashes_are_survived_as_one_is():
    def short():
        yield from kv.put("color", "red")
        yield from flow.call(ship, "o-1")
        yield from log.append("orders", "shipped", None)

    def scenario(test):
        test.start(short, "s-1")
        test.run_to_end("s-1")
        assert len(test.store.run(log.read("orders"))) == 1
        assert {call.path for call in test.calls} == {(2,)}

    once = flow_test([short], [ship]).every_crash(scenario)
    assert flow_test([short], [ship]).every_crash(scenario, depth=2) > 2 * once


def test_a_crash_runs_an_activity_again_that_was_not_in_the_journal():
    with flow_test([pay], [charge]) as test:
        test.start(pay, "p-1", "o-1")
        # Its only write is that of its end.
        test.crash_at(1, "before")
        test.run_to_end("p-1")
        assert [call.key for call in test.calls] == ["p-1/1/1", "p-1/1/1"]


def test_a_crash_behind_the_journal_does_not():
    with flow_test([pay], [charge]) as test:
        test.start(pay, "p-1", "o-1")
        test.crash_at(1, "after")
        test.run_to_end("p-1")
        assert len(test.calls) == 1


def test_what_does_not_hold_at_a_crash_is_told_with_how_to_see_it_again():
    def scenario(test):
        test.start(pay, "p-1", "o-1")
        test.run_to_end("p-1")
        assert len(test.calls) == 1

    test = flow_test([pay], [charge])
    with pytest.raises(AssertionError) as raised:
        test.every_crash(scenario)
    (note,) = raised.value.__notes__
    assert note.startswith("the host was killed before write 1, persist/transact of flow/p-1")
    assert note.endswith("to see it again, begin the scenario with: test.crash_at(1, 'before')")


def test_each_crash_has_fakes_and_a_world_of_its_own():
    def scenario(test):
        test.start(pay, "p-1", "o-1")
        assert test.run_to_end("p-1") in {"first", "second"}

    assert flow_test([pay], fakes={charge: ["first", "second"]}).every_crash(scenario) == 2


def test_a_scenario_that_is_not_the_same_each_time_is_told():
    names = iter("abcdef")

    def scenario(test):
        name = next(names)
        test.start(pay, name, "o-1")
        test.run_to_end(name)

    with pytest.raises(AssertionError, match="the scenario does not do the same each time"):
        flow_test([pay], [charge]).every_crash(scenario)


def test_a_scenario_that_lets_nothing_go_on_is_refused():
    with pytest.raises(InvalidRequest, match="the scenario lets no flow go on"):
        flow_test([pay], [charge]).every_crash(lambda test: test.start(pay, "p-1", "o-1"))


@pytest.mark.parametrize(("number", "moment"), [(0, "before"), (1, "during")])
def test_a_crash_is_before_or_after_a_write(number, moment):
    with flow_test([pay]) as test, pytest.raises(InvalidRequest):
        test.crash_at(number, moment)


def test_requests_of_ones_own_are_answered_and_are_places_of_crashes():
    from persist_effects import Request, perform

    class Ring(Request[int], frozen=True, tag="example/ring"):
        times: int

    def ringing():
        return (yield from perform(Ring(3)))

    rung = []
    made = flow_test([ringing], effects={Ring: lambda request: rung.append(request.times) or len(rung)})

    def scenario(test):
        rung.clear()
        test.start(ringing, "r-1")
        assert test.run_to_end("r-1") == len(rung)

    assert made.every_crash(scenario) == 4
