"""A host of flows on real stores: threads, event loops, restarts."""

import asyncio
import os
import signal
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import Effect, Retry, flow, kv, log, perform
from persist_effects.errors import FlowExists, FlowFailed, InternalError, NoSuchFlow, StoreClosed
from persist_effects.requests import Request

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

LONG_SECONDS = 60


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    with open_store("memory:" if request.param == "memory" else f"file:{tmp_path / 'store'}") as opened:
        yield opened


@pytest.fixture
def memory():
    with open_store("memory:") as opened:
        yield opened


class Doors:
    """Activities that wait until a test lets them go on: each says that it began, and waits at its own door."""

    def __init__(self):
        self.began = defaultdict(threading.Event)
        self._open = defaultdict(threading.Event)
        self.count = Counter()

    def enter(self, name: str) -> str:
        self.count[name] += 1
        self.began[name].set()
        assert self._open[name].wait(LONG_SECONDS)
        return name

    def open(self, name):
        self._open[name].set()

    def await_entry(self, name):
        assert self.began[name].wait(LONG_SECONDS)


@pytest.fixture
def doors():
    doors = Doors()
    yield doors
    for name in list(doors.began):
        doors.open(name)


def greeting(name: str) -> str:
    return f"hello {name}"


def greet(name: str):
    return (yield from flow.call(greeting, name))


# Beginning, and results


def test_a_flow_is_begun_and_its_result_awaited(store):
    with FlowHost(store, flows=[greet], activities=[greeting]) as host:
        assert host.start(greet, "g-1", "Ada") is True
        assert host.result("g-1", timeout=LONG_SECONDS) == "hello Ada"
        assert host.status("g-1").state == "completed"


def test_a_flow_that_is_begun_twice_is_the_same_flow_also_once_it_has_ended(store):
    count = Counter()

    def counted(name: str) -> str:
        count[name] += 1
        return name

    def once(name: str):
        return (yield from flow.call(counted, name))

    with FlowHost(store, flows=[once], activities=[counted]) as host:
        assert [host.start(once, "f-1", "Ada") for _ in range(3)] == [True, False, False]
        assert host.result("f-1", timeout=LONG_SECONDS) == "Ada"
        assert host.start(once, "f-1", "Ada") is False
        with pytest.raises(FlowExists, match="flow 'f-1' is 'once' with other arguments"):
            host.start(once, "f-1", "Bob")
    assert count == {"Ada": 1}


def test_a_flow_that_others_begin_by_the_store_is_taken_up_by_the_host(store):
    with FlowHost(store, flows=[greet], activities=[greeting]) as host:
        store.run(flow.begin("g-1", greet, "Ada"))
        assert host.result("g-1", timeout=LONG_SECONDS) == "hello Ada"


def test_a_flow_whose_beginning_was_not_heard_of_is_taken_up_once_it_is_begun_again(store):
    with FlowHost(store, flows=[greet], activities=[greeting]) as host:
        # What is left where an interrupt, or a lost answer, came between its beginning and its being taken up.
        store.run(flow.begin("g-1", greet, "Ada", token=host.token))
        assert host.start(greet, "g-1", "Ada") is False
        assert host.result("g-1", timeout=LONG_SECONDS) == "hello Ada"


def test_a_flow_that_is_not_one_of_the_hosts_is_one_once_it_is_begun(store):
    with FlowHost(store, flows=[], activities=[greeting]) as host:
        host.start(greet, "g-1", "Ada")
        assert host.result("g-1", timeout=LONG_SECONDS) == "hello Ada"


def test_a_result_is_waited_for_no_longer_than_is_said(store):
    def waiting():
        yield from flow.signal("go")

    with FlowHost(store, flows=[waiting]) as host:
        host.start(waiting, "f-1")
        with pytest.raises(TimeoutError, match=r"flow 'f-1' has not ended within 0\.01 seconds"):
            host.result("f-1", timeout=0.01)


def test_a_flow_that_never_was_has_no_result(store):
    with FlowHost(store, flows=[greet], activities=[greeting]) as host, pytest.raises(NoSuchFlow, match="never begun"):
        host.result("g-1", timeout=LONG_SECONDS)


def test_a_result_is_of_the_type_that_its_flow_is_annotated_with(store):
    def both() -> Effect[tuple[str, str]]:
        return (yield from flow.all_of(flow.call(greeting, "Ada"), flow.call(greeting, "Bob")))

    with FlowHost(store, flows=[both], activities=[greeting]) as host:
        host.start(both, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == ("hello Ada", "hello Bob")


@backends
def test_a_result_is_awaited_in_a_task(memory, backend):
    async def main(host):
        host.start(greet, "g-1", "Ada")
        with anyio.fail_after(LONG_SECONDS):
            return await host.aresult("g-1")

    with FlowHost(memory, flows=[greet], activities=[greeting]) as host:
        assert anyio.run(main, host, backend=backend) == "hello Ada"


@backends
def test_many_tasks_await_the_results_of_many_flows(memory, backend):
    results = {}

    async def main(host):
        async def one(number):
            host.start(greet, f"g-{number}", str(number))
            results[number] = await host.aresult(f"g-{number}", timeout=LONG_SECONDS)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, number)

    with FlowHost(memory, flows=[greet], activities=[greeting]) as host:
        anyio.run(main, host, backend=backend)
    assert results == {number: f"hello {number}" for number in range(20)}


def test_an_interrupt_of_whoever_waits_for_a_result_leaves_the_flow_and_the_host_alone(store, doors):
    def interrupting():
        yield from flow.call(interrupt)
        return (yield from flow.call(doors.enter, "a"))

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with FlowHost(store, flows=[interrupting], activities=[interrupt, doors.enter]) as host:

        def begin_and_wait():
            host.start(interrupting, "f-1")
            host.result("f-1", timeout=LONG_SECONDS)

        with pytest.raises(KeyboardInterrupt):
            begin_and_wait()
        host.start(interrupting, "f-1")
        doors.open("a")
        assert host.result("f-1", timeout=LONG_SECONDS) == "a"


# Activities


def test_many_flows_go_on_at_once(store):
    with FlowHost(store, flows=[greet], activities=[greeting]) as host:
        for number in range(200):
            host.start(greet, f"g-{number}", str(number))
        results = [host.result(f"g-{number}", timeout=LONG_SECONDS) for number in range(200)]
    assert results == [f"hello {number}" for number in range(200)]


def test_one_flow_makes_a_thousand_calls_at_once(memory):
    def many():
        return len((yield from flow.all_of(*(flow.call(greeting, str(number)) for number in range(1000)))))

    with FlowHost(memory, flows=[many], activities=[greeting]) as host:
        host.start(many, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == 1000


def test_no_more_activities_run_at_once_than_is_said(memory, doors):
    def two():
        yield from flow.all_of(flow.call(doors.enter, "a"), flow.call(doors.enter, "b"))

    with FlowHost(memory, flows=[two], activities=[doors.enter], activities_at_once=1) as host:
        host.start(two, "f-1")
        doors.await_entry("a")
        assert not doors.began["b"].is_set()
        doors.open("a")
        doors.await_entry("b")
        doors.open("b")
        host.result("f-1", timeout=LONG_SECONDS)


def test_an_activity_may_be_an_async_function(store):
    async def fetch(name: str) -> str:
        await anyio.sleep(0)
        return f"async {name}"

    def fetching():
        return list((yield from flow.all_of(flow.call(fetch, "a"), flow.call(fetch, "b"))))

    with FlowHost(store, flows=[fetching], activities=[fetch]) as host:
        host.start(fetching, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == ["async a", "async b"]


def test_what_an_async_activity_raises_is_raised_in_the_flow(memory):
    async def fetch() -> str:
        raise LookupError("no tea")

    def fetching():
        yield from flow.call(fetch)

    with FlowHost(memory, flows=[fetching], activities=[fetch]) as host:
        host.start(fetching, "f-1")
        with pytest.raises(FlowFailed, match="raised LookupError: no tea"):
            host.result("f-1", timeout=LONG_SECONDS)


@pytest.mark.parametrize("ending", [asyncio.CancelledError, SystemExit])
def test_an_async_activity_that_would_end_its_loop_fails_and_others_go_on(memory, ending):
    async def leaving() -> str:
        raise ending("out")

    async def staying() -> str:
        return "here"

    def calling(is_leaving: bool):
        return (yield from flow.call(leaving if is_leaving else staying))

    with FlowHost(memory, flows=[calling], activities=[leaving, staying]) as host:
        host.start(calling, "f-1", True)
        with pytest.raises(FlowFailed, match=f"raised RuntimeError: activity 'leaving' raised {ending.__name__}"):
            host.result("f-1", timeout=LONG_SECONDS)
        host.start(calling, "f-2", False)
        assert host.result("f-2", timeout=LONG_SECONDS) == "here"


def test_an_activity_that_would_end_its_thread_fails_and_others_go_on(memory):
    def leaving() -> str:
        raise SystemExit("out")

    def calling():
        try:
            yield from flow.call(leaving)
        except RuntimeError as error:
            return [str(error), (yield from flow.call(greeting, "Ada"))]

    with FlowHost(memory, flows=[calling], activities=[leaving, greeting], activities_at_once=1) as host:
        host.start(calling, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == ["activity 'leaving' raised SystemExit('out')", "hello Ada"]


def test_an_activity_is_tried_again_as_often_as_is_said(store):
    count = Counter()

    def failing(name: str) -> str:
        count[name] += 1
        if count[name] < 3:
            raise LookupError(f"try {count[name]}")
        return name

    def trying(name: str, times: int):
        return (yield from flow.call(failing, name, retry=Retry(times=times, wait_seconds=0)))

    with FlowHost(store, flows=[trying], activities=[failing]) as host:
        host.start(trying, "f-1", "a", 2)
        host.start(trying, "f-2", "b", 1)
        assert host.result("f-1", timeout=LONG_SECONDS) == "a"
        with pytest.raises(FlowFailed, match="raised LookupError: try 2"):
            host.result("f-2", timeout=LONG_SECONDS)
    assert count == {"a": 3, "b": 2}


def test_an_activity_that_takes_too_long_is_a_timeout_in_the_flow_and_is_not_waited_for(store, doors):
    def hurrying():
        try:
            yield from flow.call(doors.enter, "a", timeout=0.01)
        except TimeoutError as error:
            return str(error)

    with FlowHost(store, flows=[hurrying], activities=[doors.enter]) as host:
        host.start(hurrying, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == "activity 'enter' did not end within 0.01 seconds"


def test_a_try_that_took_too_long_does_not_count_any_more(memory, doors):
    def slow_at_first(number: int) -> int:
        tries.append(number)
        if len(tries) == 1:
            doors.enter("first")
            return 1
        doors.open("first")
        doors.enter("second")
        return 2

    tries = []

    def hurrying():
        retry = Retry(times=100, wait_seconds=0)
        return (yield from flow.call(slow_at_first, 1, retry=retry, timeout=1))

    with FlowHost(memory, flows=[hurrying], activities=[slow_at_first]) as host:
        host.start(hurrying, "f-1")
        doors.await_entry("second")
        doors.open("second")
        assert host.result("f-1", timeout=LONG_SECONDS) == 2


def test_a_key_is_handed_to_an_activity_that_takes_one(memory):
    @flow.activity(repeat="keyed")
    def charge(cents: int, *, key: str) -> str:
        return f"{cents} by {key}"

    def charging():
        return (yield from flow.call(charge, 5))

    with FlowHost(memory, flows=[charging], activities=[charge]) as host:
        host.start(charging, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == "5 by f-1/1/1"


class Unpicklable(Exception):
    def __init__(self, lock):
        super().__init__("it holds a lock")
        self.lock = lock

    def __reduce__(self):
        raise TypeError("cannot pickle it")


class Odd(Exception):
    """Cannot be made of its arguments, and holds what cannot be stored."""

    def __init__(self, one, *, two):
        super().__init__(one, threading.Lock())
        self.two = two


@pytest.mark.parametrize(
    ("make", "said"), [(lambda: Unpicklable(threading.Lock()), "it holds a lock"), (lambda: Odd(1, two=2), "lock")]
)
def test_an_error_that_could_not_be_copied_is_told_by_its_type_and_words(memory, make, said):
    def failing() -> None:
        raise make()

    def calling():
        try:
            yield from flow.call(failing)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    with FlowHost(memory, flows=[calling], activities=[failing]) as host:
        host.start(calling, "f-1")
        told = host.result("f-1", timeout=LONG_SECONDS)
    assert type(make()).__name__ in told
    assert said in told


class OutOfTea(Exception):
    pass


def test_an_error_of_ones_own_is_caught_by_its_class_where_the_host_was_told_of_it(store):
    def failing() -> None:
        raise OutOfTea("today") from LookupError("the shelf")

    def calling():
        try:
            yield from flow.call(failing)
        except OutOfTea as error:
            return [str(error), repr(error.__cause__)]

    with FlowHost(store, flows=[calling], activities=[failing], errors=[OutOfTea]) as host:
        host.start(calling, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == ["today", "LookupError('the shelf')"]


# Signals, cancellation, pauses, timers


def approving():
    return (yield from flow.signal("approved"))


def test_a_signal_wakes_the_flow_that_waits_for_it(store):
    with FlowHost(store, flows=[approving]) as host:
        host.start(approving, "f-1")
        host.signal("f-1", "approved", {"by": "Ada"})
        assert host.result("f-1", timeout=LONG_SECONDS) == {"by": "Ada"}


def test_a_flow_that_is_cancelled_cleans_up(store, doors):
    def cleaning():
        try:
            yield from flow.call(doors.enter, "a")
        finally:
            yield from kv.put("cleaned", "yes")

    with FlowHost(store, flows=[cleaning], activities=[doors.enter]) as host:
        host.start(cleaning, "f-1")
        doors.await_entry("a")
        host.cancel("f-1")
        with pytest.raises(FlowFailed, match="flow 'f-1' was cancelled"):
            host.result("f-1", timeout=LONG_SECONDS)
        assert host.status("f-1").state == "cancelled"
    assert store.run(kv.get("cleaned")) == "yes"


def test_a_flow_that_is_paused_begins_nothing_until_it_is_resumed(store, doors):
    def twice():
        yield from flow.call(doors.enter, "a")
        return (yield from flow.call(doors.enter, "b"))

    with FlowHost(store, flows=[twice, approving], activities=[doors.enter]) as host:
        host.start(twice, "f-1")
        doors.await_entry("a")
        host.pause("f-1")
        store.run(wait_until_state("f-1", "paused"))
        doors.open("a")
        # What others do meanwhile is done behind it.
        host.start(approving, "f-2")
        host.signal("f-2", "approved")
        host.result("f-2", timeout=LONG_SECONDS)
        assert not doors.began["b"].is_set()
        host.resume("f-1")
        doors.open("b")
        assert host.result("f-1", timeout=LONG_SECONDS) == "b"


def wait_until_state(flow_id, state):
    seen = 0
    while (yield from flow.status(flow_id)).state != state:
        seen = yield from kv.wait(seen, f"flow-open/{flow_id}", LONG_SECONDS)


def test_a_flow_goes_on_once_its_sleep_is_over(store):
    def sleeping():
        yield from flow.sleep(0.01)
        return "awake"

    with FlowHost(store, flows=[sleeping]) as host:
        host.start(sleeping, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == "awake"


def test_a_signal_that_does_not_come_in_time_is_a_timeout(store):
    def waiting():
        try:
            yield from flow.signal("approved", timeout=0.01)
        except TimeoutError as error:
            return str(error)

    with FlowHost(store, flows=[waiting]) as host:
        host.start(waiting, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == "no signal 'approved' came in 0.01 seconds"


def test_a_child_runs_on_the_same_host(store):
    def asking(name: str):
        return (yield from flow.child(greet, name))

    with FlowHost(store, flows=[asking, greet], activities=[greeting]) as host:
        host.start(asking, "f-1", "Ada")
        assert host.result("f-1", timeout=LONG_SECONDS) == "hello Ada"
        assert host.status("f-1.1").flow == "greet"


def test_a_flow_of_hundreds_of_runs_goes_on(store):
    def looping(number: int):
        yield from flow.call(greeting, str(number))
        if number == 300:
            return number
        return flow.continue_as_new(number + 1)

    with FlowHost(store, flows=[looping], activities=[greeting]) as host:
        host.start(looping, "f-1", 1)
        assert host.result("f-1", timeout=LONG_SECONDS) == 300
    assert len(store.run(log.read("flow/f-1"))) == 1


def test_what_a_call_of_the_run_before_returns_late_is_not_that_of_this_one(memory, doors):
    def looping(number: int):
        place, value = yield from flow.first_of(flow.call(doors.enter, f"run {number}"), flow.signal("go"))
        if place == 0:
            return value
        return flow.continue_as_new(number + 1)

    with FlowHost(memory, flows=[looping, greet], activities=[doors.enter, greeting], activities_at_once=2) as host:
        host.start(looping, "f-1", 1)
        doors.await_entry("run 1")
        host.signal("f-1", "go")
        doors.await_entry("run 2")
        doors.open("run 1")
        # It is run by the thread that had the call of the first run, and so behind it.
        host.start(greet, "g-1", "Ada")
        host.result("g-1", timeout=LONG_SECONDS)
        doors.open("run 2")
        assert host.result("f-1", timeout=LONG_SECONDS) == "run 2"


def test_a_timer_of_the_run_before_does_not_answer_a_call_of_this_one(memory, doors):
    def looping(number: int):
        step = flow.sleep(0.5) if number == 1 else flow.call(doors.enter, "a")
        _, value = yield from flow.first_of(step, flow.signal("go"))
        if number == 2:
            return value
        return flow.continue_as_new(number + 1)

    def sleeping():
        yield from flow.sleep(0.6)

    with FlowHost(memory, flows=[looping, sleeping], activities=[doors.enter]) as host:
        host.start(looping, "f-1", 1)
        host.signal("f-1", "go")
        doors.await_entry("a")
        host.start(sleeping, "f-2")
        host.result("f-2", timeout=LONG_SECONDS)
        doors.open("a")
        assert host.result("f-1", timeout=LONG_SECONDS) == "a"


# Lists


def test_flows_are_listed_by_name_state_id_and_tags(store):
    with FlowHost(store, flows=[greet, approving], activities=[greeting]) as host:
        for number in range(3):
            host.start(greet, f"g-{number}", "Ada", tags={"to": "Ada", "number": str(number)})
            host.start(approving, f"a-{number}", tags={"number": str(number)})
            host.result(f"g-{number}", timeout=LONG_SECONDS)

        def ids(**wanted):
            return [each.flow_id for each in host.list(**wanted)]

        assert ids() == ["a-0", "a-1", "a-2", "g-0", "g-1", "g-2"]
        assert ids(flow="greet") == ["g-0", "g-1", "g-2"]
        assert ids(state="running") == ["a-0", "a-1", "a-2"]
        assert ids(state="completed", tags={"number": "1"}) == ["g-1"]
        assert ids(tags={"number": "1"}) == ["a-1", "g-1"]
        assert ids(prefix="a-", limit=2) == ["a-0", "a-1"]
        began = host.status("g-1").began
        assert "g-2" in ids(began_after=began)
        assert "g-0" not in ids(began_after=began + 1)
        assert ids(began_before=0) == []
        assert ids(tags={"to": "Bob"}) == []


# Flows that are let go of


def test_flows_that_only_wait_are_let_go_of_and_read_again_when_they_are_woken(store):
    runs = Counter()

    def waiting(number: int):
        runs[number] += 1
        first = yield from flow.signal("go")
        yield from flow.sleep(0.01)
        return [first, (yield from flow.signal("go"))]

    with FlowHost(store, flows=[waiting], held_limit=1) as host:
        for number in range(5):
            host.start(waiting, f"f-{number}", number)
        for turn in range(2):
            for number in range(5):
                host.signal(f"f-{number}", "go", turn)
        results = [host.result(f"f-{number}", timeout=LONG_SECONDS) for number in range(5)]
    assert results == [[0, 1]] * 5
    assert sum(runs.values()) > 5


def test_a_flow_whose_timer_is_due_is_not_let_go_of_before_it_has_heard_of_it(memory):
    def sleeping():
        yield from flow.sleep(0)
        return "awake"

    with FlowHost(memory, flows=[sleeping], held_limit=0) as host:
        host.start(sleeping, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == "awake"


def test_a_flow_whose_call_is_under_way_is_not_let_go_of(memory, doors):
    runs = Counter()

    def calling(number: int):
        runs[number] += 1
        return (yield from flow.call(doors.enter, str(number)))

    with FlowHost(memory, flows=[calling], activities=[doors.enter], held_limit=0) as host:
        for number in range(3):
            host.start(calling, f"f-{number}", number)
        for number in range(3):
            doors.await_entry(str(number))
            doors.open(str(number))
            assert host.result(f"f-{number}", timeout=LONG_SECONDS) == str(number)
    assert runs == {0: 1, 1: 1, 2: 1}
    assert doors.count == {"0": 1, "1": 1, "2": 1}


class Nudge(Request[int], frozen=True, tag="tests/nudge"):
    """Have the flow itself be sent a signal, while it asks for something else."""


def test_a_flow_to_which_something_came_just_before_it_waits_is_not_let_go_of():
    def nudged():
        yield from perform(Nudge())
        yield from kv.put("nudged", 1)
        return (yield from flow.signal("go"))

    def nudge(request):
        return store.run(flow.send("f-1", "go", "gone"))

    with (
        open_store("memory:", effects={Nudge: nudge}) as store,
        FlowHost(store, flows=[nudged], held_limit=0) as host,
    ):
        host.start(nudged, "f-1")
        assert host.result("f-1", timeout=LONG_SECONDS) == "gone"


# Restarts


def test_what_a_host_has_begun_the_next_one_ends(tmp_path):
    doors, count = Doors(), Counter()

    def counted(name: str) -> str:
        count[name] += 1
        return name

    def both():
        first = yield from flow.call(counted, "a")
        yield from kv.put("between", first)
        yield from flow.call(doors.enter, "b")
        return first

    def taken_up(store):
        return FlowHost(store, flows=[both, approving], activities=[counted, doors.enter])

    with open_store(f"file:{tmp_path / 'store'}") as store, taken_up(store) as host:
        host.start(both, "f-1")
        host.start(approving, "f-2")
        doors.await_entry("b")
        doors.began["b"].clear()
    with open_store(f"file:{tmp_path / 'store'}") as store, taken_up(store) as host:
        doors.await_entry("b")
        doors.open("b")
        assert host.result("f-1", timeout=LONG_SECONDS) == "a"
        host.signal("f-2", "approved", 7)
        assert host.result("f-2", timeout=LONG_SECONDS) == 7
    assert count == {"a": 1}
    assert doors.count == {"b": 2}


def test_what_was_due_and_sent_while_no_host_was_there_comes_to_the_next_one(store):
    def sleeping():
        yield from flow.sleep(0.01)
        return (yield from flow.signal("go"))

    with FlowHost(store, flows=[sleeping]) as host:
        host.start(sleeping, "f-1")
    store.run(flow.send("f-1", "go", 7))
    with FlowHost(store, flows=[sleeping]) as host:
        assert host.result("f-1", timeout=LONG_SECONDS) == 7


def test_a_host_is_closed_while_activities_run_and_what_was_not_begun_is_not_begun(memory, doors):
    def two():
        yield from flow.all_of(flow.call(doors.enter, "a"), flow.call(doors.enter, "b"))
        return "done"

    with FlowHost(memory, flows=[two], activities=[doors.enter], activities_at_once=1) as host:
        host.start(two, "f-1")
        doors.await_entry("a")
        (thread,) = [each for each in threading.enumerate() if each.name == "persist-effects activity"]
    host.close()
    doors.open("a")
    thread.join(LONG_SECONDS)
    assert not thread.is_alive()
    assert doors.count == {"a": 1}
    doors.open("b")
    with FlowHost(memory, flows=[two], activities=[doors.enter]) as host:
        assert host.result("f-1", timeout=LONG_SECONDS) == "done"


def test_a_host_is_closed_while_async_activities_run(memory):
    began, ended = threading.Event(), threading.Event()

    async def waiting() -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    def calling():
        yield from flow.call(waiting)

    with FlowHost(memory, flows=[calling], activities=[waiting]) as host:
        host.start(calling, "f-1")
        assert began.wait(LONG_SECONDS)
    assert ended.wait(LONG_SECONDS)
    assert memory.run(flow.status("f-1")).state == "running"


@pytest.mark.parametrize("held_limit", [0, 10])
def test_each_thread_that_waits_for_a_flow_gets_its_result_though_the_host_lets_go_of_it_meanwhile(store, held_limit):
    def told(name):
        return f"{name} heard {(yield from flow.signal('news'))}"

    with (
        FlowHost(store, flows=[told], held_limit=held_limit) as host,
        ThreadPoolExecutor(4) as threads,
    ):
        host.start(told, "t-1", "Ada")
        waiting = [threads.submit(host.result, "t-1", LONG_SECONDS) for _ in range(4)]
        host.signal("t-1", "news", "tea")
        assert [each.result(LONG_SECONDS) for each in waiting] == ["Ada heard tea"] * 4
        # And whoever comes later.
        assert host.result("t-1", timeout=LONG_SECONDS) == "Ada heard tea"


def test_who_waits_for_a_flow_gets_its_result_though_the_host_was_closed_and_another_goes_on(store):
    def told(name):
        return f"{name} heard {(yield from flow.signal('news'))}"

    with ThreadPoolExecutor(1) as threads:
        with FlowHost(store, flows=[told]) as one:
            one.start(told, "t-1", "Ada")
            waiting = threads.submit(one.result, "t-1", LONG_SECONDS)
        with FlowHost(store, flows=[told]) as other:
            other.signal("t-1", "news", "tea")
            assert waiting.result(LONG_SECONDS) == "Ada heard tea"


def test_flows_of_two_hosts_of_one_process_go_on_each_with_its_own(store):
    with (
        FlowHost(store, flows=[greet], activities=[greeting]) as one,
        FlowHost(store, flows=[greet], activities=[greeting]) as other,
    ):
        for number in range(10):
            (one, other)[number % 2].start(greet, f"g-{number}", str(number))
        assert [other.result(f"g-{number}", timeout=LONG_SECONDS) for number in range(10)] == [
            f"hello {number}" for number in range(10)
        ]


def test_a_host_is_not_begun_on_a_store_that_is_closed(memory):
    memory.close()
    with pytest.raises(StoreClosed):
        FlowHost(memory, flows=[greet])


def test_a_host_whose_store_was_closed_before_it_still_ends(memory):
    host = FlowHost(memory, flows=[approving])
    host.start(approving, "f-1")
    memory.close()
    with pytest.raises(StoreClosed):
        host.result("f-1", timeout=LONG_SECONDS)
    host.close()


def test_a_flow_that_would_end_its_host_fails_and_others_go_on(memory):
    def leaving():
        yield from kv.get("color")
        raise SystemExit("out")

    with FlowHost(memory, flows=[leaving, greet], activities=[greeting]) as host:
        host.start(leaving, "f-1")
        with pytest.raises(FlowFailed, match=r"the flow raised SystemExit\('out'\)"):
            host.result("f-1", timeout=LONG_SECONDS)
        host.start(greet, "g-1", "Ada")
        assert host.result("g-1", timeout=LONG_SECONDS) == "hello Ada"


# Code that is not here


def test_a_flow_whose_code_is_not_here_is_left_to_other_hosts_where_there_may_be_such(tmp_path):
    with open_store(f"sqlite:{tmp_path}/app.db") as shared:
        shared.run(flow.begin("g-1", greet, "Ada"))
        with FlowHost(shared, flows=[approving]) as old:
            assert "version 1, is not here, so it is left to other hosts" in old.status("g-1").error
            assert [each.state for each in old.list()] == ["running"]
            with FlowHost(shared, flows=[greet], activities=[greeting]) as new:
                assert new.result("g-1", timeout=LONG_SECONDS) == "hello Ada"


def test_a_flow_whose_child_is_not_here_is_halted_until_it_is(memory):
    def parent():
        return (yield from flow.child(greet, "Ada"))

    with FlowHost(memory, flows=[parent], activities=[greeting]) as host:
        host.start(parent, "p-1")
        memory.run(wait_until_state("p-1", "halted"))
        assert "the code of 'greet', version 1, is not here: give it to the host" in host.status("p-1").error
    with FlowHost(memory, flows=[parent, greet], activities=[greeting]) as host:
        assert host.result("p-1", timeout=LONG_SECONDS) == "hello Ada"


def test_who_waits_for_a_result_is_told_where_the_host_has_failed(memory, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda failed: told.set())

    def fail():
        raise ZeroDivisionError("of the host")

    with FlowHost(memory, flows=[approving]) as host:
        host.start(approving, "f-1")
        host._tell(fail)
        assert told.wait(LONG_SECONDS)
        with pytest.raises(InternalError, match=r"this host has failed, and runs no flows: .*of the host"):
            host.result("f-1")
