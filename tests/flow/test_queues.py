"""Queues of flows: who is next, given the time; and hosts that hold to it."""

from queue import SimpleQueue

import pytest

from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from interpreters.runtime.flows.queues import Queue, QueueLines
from persist_effects import flow, kv
from persist_effects.errors import FlowFailed, InvalidRequest
from persist_effects.flow import journal
from persist_effects.flow.journal import Open


def lines(*queues: Queue) -> QueueLines:
    return QueueLines(queues)


def lined_up(found: QueueLines, *flow_ids: str, queue: str = "mail", priority: int = 0) -> QueueLines:
    for began, flow_id in enumerate(flow_ids):
        found.line_up(flow_id, queue, priority, began)
    return found


# Who is next


def test_as_many_flows_have_their_turn_as_the_queue_has_room_for():
    found = lined_up(lines(Queue("mail", concurrency=2)), "a", "b", "c")
    assert found.take_turns(0.0) == ["a", "b"]
    assert found.take_turns(100.0) == []


def test_a_flow_that_ended_makes_room_for_the_next():
    found = lined_up(lines(Queue("mail", concurrency=1)), "a", "b", "c")
    assert found.take_turns(0.0) == ["a"]
    found.release("a")
    assert found.take_turns(0.0) == ["b"]


def test_a_flow_that_had_begun_counts_though_there_is_no_room_for_it():
    found = lined_up(lines(Queue("mail", concurrency=1)), "c")
    assert found.go_on("a", "mail")
    assert found.go_on("b", "mail")
    assert found.take_turns(0.0) == []
    found.release("a")
    assert found.take_turns(0.0) == []
    found.release("b")
    assert found.take_turns(0.0) == ["c"]


def test_those_of_a_higher_priority_are_first_and_then_those_that_began_first():
    found = lines(Queue("mail", concurrency=1))
    for flow_id, priority, began in [("late", 0, 9), ("urgent", 5, 8), ("early", 0, 1), ("never mind", -1, 0)]:
        found.line_up(flow_id, "mail", priority, began)
    order = []
    while turn := found.take_turns(0.0):
        order += turn
        found.release(*turn)
    assert order == ["urgent", "early", "late", "never mind"]


def test_of_two_that_began_at_one_time_the_one_that_was_told_of_first_is_first():
    found = lines(Queue("mail", concurrency=1))
    found.line_up("b", "mail", 0, 7)
    found.line_up("a", "mail", 0, 7)
    assert found.take_turns(0.0) == ["b"]


def test_a_flow_that_is_lined_up_twice_has_one_turn():
    found = lined_up(lines(Queue("mail")), "a", "a")
    assert found.take_turns(0.0) == ["a"]
    lined_up(found, "a")
    assert found.take_turns(0.0) == []


def test_a_flow_that_ended_while_it_waited_has_no_turn():
    found = lined_up(lines(Queue("mail")), "a", "b")
    found.release("a")
    assert found.take_turns(0.0) == ["b"]


def test_a_flow_that_waits_again_has_the_place_of_then():
    found = lined_up(lines(Queue("mail", concurrency=1)), "a", "b", "c")
    found.go_on("b", "mail")
    found.release("b")
    found.line_up("b", "mail", -1, 0)
    order = []
    while turn := found.take_turns(0.0):
        order += turn
        found.release(*turn)
    assert order == ["a", "c", "b"]


def test_a_queue_does_not_wait_for_another():
    found = lines(Queue("mail", concurrency=1), Queue("photos", concurrency=1))
    lined_up(found, "m-1", "m-2", queue="mail")
    lined_up(found, "p-1", queue="photos")
    assert found.take_turns(0.0) == ["m-1", "p-1"]


# Rates


def test_at_most_so_many_begin_in_any_second():
    found = lined_up(lines(Queue("mail", per_second=3)), *"abcdefgh")
    begun = [(tenths, flow_id) for tenths in range(25) for flow_id in found.take_turns(tenths / 10)]
    assert begun == [
        *((0, flow_id) for flow_id in "abc"),
        *((10, flow_id) for flow_id in "def"),
        *((20, flow_id) for flow_id in "gh"),
    ]


def test_what_was_begun_late_in_one_second_counts_in_the_next():
    # A bucket that is filled evenly would let eight of them begin from 0.9 to 1.9.
    found = lined_up(lines(Queue("mail", per_second=4)), *"abcdefgh")
    assert found.take_turns(0.9) == list("abcd")
    assert found.take_turns(1.8) == []
    assert found.take_turns(1.9) == list("efgh")


def test_less_than_one_a_second_is_one_in_so_many_seconds():
    found = lined_up(lines(Queue("mail", per_second=0.25)), "a", "b")
    assert found.take_turns(0.0) == ["a"]
    assert found.next_at(1.0) == 4.0
    assert found.take_turns(3.999) == []
    assert found.take_turns(4.0) == ["b"]


def test_flows_of_a_fraction_of_a_rate_begin_evenly():
    found = lined_up(lines(Queue("mail", per_second=1.6)), *"abcd")
    assert [found.take_turns(at) for at in (0, 0.5, 0.625, 1.25, 1.875)] == [["a"], [], ["b"], ["c"], ["d"]]


def test_a_flow_that_had_begun_takes_nothing_from_the_rate():
    found = lined_up(lines(Queue("mail", per_second=1)), "b")
    found.go_on("a", "mail")
    assert found.take_turns(0.0) == ["b"]


def test_a_turn_that_was_not_taken_is_given_back_to_the_rate_and_the_room():
    found = lined_up(lines(Queue("mail", concurrency=1, per_second=1)), "a", "b")
    assert found.take_turns(0.0) == ["a"]
    found.give_back("a")
    assert found.take_turns(0.0) == ["b"]


def test_when_the_next_turn_is_is_known_where_only_the_rate_holds_it_up():
    found = lined_up(lines(Queue("mail", concurrency=2, per_second=1)), "a", "b", "c")
    assert found.next_at(0.5) == 0.5
    found.take_turns(0.5)
    assert found.next_at(0.75) == 1.5
    assert found.take_turns(1.5) == ["b"]
    # Now the room is missing, which no time brings.
    assert found.next_at(1.5) is None
    found.release("a", "b")
    assert found.next_at(1.75) == 2.5
    assert found.has_waiting
    assert found.take_turns(2.5) == ["c"]
    assert found.next_at(2.5) is None
    assert not found.has_waiting


def test_the_next_turn_is_that_of_the_queue_that_has_one_first():
    found = lines(Queue("slow", per_second=0.25), Queue("fast", per_second=1))
    lined_up(found, "s-1", "s-2", queue="slow")
    lined_up(found, "f-1", "f-2", queue="fast")
    assert found.take_turns(0.0) == ["s-1", "f-1"]
    assert found.next_at(0.0) == 1.0


# What is refused


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"concurrency": 0}, "concurrency of queue 'mail' is 0: give an integer from 1"),
        ({"concurrency": -1}, "concurrency of queue 'mail' is -1: give an integer from 1"),
        ({"concurrency": 1.5}, "concurrency of queue 'mail' is a float, 1.5: give an integer"),
        ({"concurrency": True}, "concurrency of queue 'mail' is a bool, True: give an integer"),
        ({"per_second": 0}, "per_second of queue 'mail' is 0: give a number above 0"),
        ({"per_second": -2}, "per_second of queue 'mail' is -2: give a number above 0"),
        ({"per_second": float("nan")}, "per_second of queue 'mail' is nan: give a number above 0"),
        ({"per_second": float("inf")}, "per_second of queue 'mail' is inf: give a number above 0"),
        ({"per_second": "3"}, "per_second of queue 'mail' is '3': give a number above 0"),
    ],
)
def test_a_limit_that_is_none_is_refused_with_the_name_of_the_queue(given, told):
    with pytest.raises(InvalidRequest) as met:
        Queue("mail", **given)
    assert told in str(met.value)


@pytest.mark.parametrize("name", ["", "a\x00b", None, 7])
def test_a_name_that_no_queue_can_have_is_refused(name):
    with pytest.raises(InvalidRequest, match="queue"):
        Queue(name)


def test_two_queues_of_one_name_are_refused():
    with pytest.raises(InvalidRequest, match="two queues are called 'mail'"):
        lines(Queue("mail"), Queue("mail", concurrency=1))


def test_what_is_not_a_queue_is_refused():
    with pytest.raises(InvalidRequest, match="a queue of the host is a str, 'mail': give a Queue"):
        QueueLines(["mail"])  # type: ignore[list-item]
    with pytest.raises(InvalidRequest, match="queues is a str, 'mail'"):
        QueueLines("mail")  # type: ignore[arg-type]


def test_a_queue_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(InvalidRequest, match=r"queue 'mial' is not here: .* which has mail, photos"):
        lines(Queue("photos"), Queue("mail")).check("mial")


# What is kept of them


def test_a_flow_that_waits_in_a_queue_goes_on_when_it_has_an_owner():
    found = lines(Queue("mail", concurrency=1))
    assert found.place("a", Open("letter", 1, 0))
    assert not found.place("b", Open("letter", 1, 0, queue="mail"))
    assert found.place("b", Open("letter", 1, 0, queue="mail", owner=b"one that is gone"))
    assert not found.place("c", Open("letter", 1, 0, queue="photos"))
    assert not found.place("c", Open("letter", 1, 0, queue="photos", owner=b"one that is gone"))
    assert found.take_turns(0.0) == []


def test_a_flow_that_left_its_queue_has_no_turn_there():
    found = lined_up(lines(Queue("mail", concurrency=1)), "a", "b")
    assert found.place("a", Open("letter", 1, 0))
    assert found.take_turns(0.0) == ["b"]


@pytest.fixture
def store():
    with open_store("memory:") as store:
        yield store


def letter(to: str):
    return (yield from flow.signal(f"to {to}"))


def test_a_flow_is_shown_as_waiting_until_it_is_a_hosts(store):
    store.run(flow.begin("m-1", letter, "Ada", queue="mail"))
    store.run(flow.begin("m-2", letter, "Ada"))
    assert [each.flow_id for each in store.run(flow.listing(state="waiting"))] == ["m-1"]
    assert [each.flow_id for each in store.run(flow.listing(state="running"))] == ["m-2"]
    store.run(flow.own(["m-1"], b"host"))
    assert store.run(flow.status("m-1")).state == "running"


def test_of_two_hosts_one_gets_a_flow_in_whichever_order_they_ask(store):
    ids = [f"m-{number}" for number in range(9)]
    for flow_id in ids:
        store.run(flow.begin(flow_id, letter, "Ada", queue="mail"))
    one, other = store.run_many([flow.own(ids, b"one"), flow.own(reversed(ids), b"other")])
    assert sorted(one + other) == ids
    # Asked again, as after an outcome that nobody knows, it is answered the same.
    assert sorted(store.run(flow.own(ids, b"one"))) == sorted(one)


def test_a_queue_that_no_queue_can_be_is_refused_where_a_flow_is_begun(store):
    with pytest.raises(InvalidRequest, match="the name of a queue is an int, 7"):
        store.run(flow.begin("m-1", letter, "Ada", queue=7))
    assert store.run(flow.listing()) == []


# Hosts


class Outside:
    """An activity that says that it began, and ends when the test lets it."""

    def __init__(self) -> None:
        self.began: SimpleQueue[str] = SimpleQueue()
        self.may_end: SimpleQueue[None] = SimpleQueue()

    def work(self, name: str) -> str:
        self.began.put(name)
        self.may_end.get(timeout=60)
        return name

    def next_one(self) -> str:
        return self.began.get(timeout=60)

    def let_end(self, count: int = 1) -> None:
        for _ in range(count):
            self.may_end.put(None)


@pytest.fixture
def outside():
    outside = Outside()
    yield outside
    # What a failing test has left.
    outside.let_end(100)


@pytest.fixture
def job(outside):
    @flow.activity(name="work")
    def work(name: str) -> str:
        return outside.work(name)

    def job(name: str):
        return (yield from flow.call(work, name))

    job.work = work
    return job


def host_of(store, job, *queues: Queue, **options) -> FlowHost:
    return FlowHost(store, flows=[job, *options.pop("flows", ())], activities=[job.work], queues=queues, **options)


def waiting(host: FlowHost) -> list[str]:
    return [each.flow_id for each in host.list(state="waiting")]


def test_a_host_runs_as_many_of_a_queue_at_once_as_it_has_room_for(store, job, outside):
    with host_of(store, job, Queue("mail", concurrency=2)) as host:
        ids = [f"m-{number}" for number in range(6)]
        for flow_id in ids:
            assert host.start(job, flow_id, flow_id, queue="mail")
        assert {outside.next_one(), outside.next_one()} == {"m-0", "m-1"}
        for number in range(2, 6):
            assert waiting(host) == ids[number:]
            outside.let_end()
            assert outside.next_one() == ids[number]
        outside.let_end(2)
        assert [host.result(flow_id, timeout=60) for flow_id in ids] == ids


def test_flows_of_no_queue_wait_for_none(store, job, outside):
    with host_of(store, job, Queue("mail", concurrency=1)) as host:
        host.start(job, "m-1", "in the queue", queue="mail")
        assert outside.next_one() == "in the queue"
        host.start(job, "m-2", "in none")
        assert outside.next_one() == "in none"
        outside.let_end(2)


def test_a_host_takes_those_of_a_higher_priority_first(store, job, outside):
    for name, priority in [("early", 0), ("late", 0), ("urgent", 5), ("never mind", -5)]:
        store.run(flow.begin(name, job, name, queue="mail", priority=priority))
    outside.let_end(4)
    with host_of(store, job, Queue("mail", concurrency=1)) as host:
        assert [outside.next_one() for _ in range(4)] == ["urgent", "early", "late", "never mind"]
        assert host.result("never mind", timeout=60) == "never mind"


def test_after_a_restart_those_that_had_begun_go_on_and_count_and_the_others_wait(tmp_path, job, outside):
    url = f"file:{tmp_path}/store"

    def careful(name: str):
        yield from flow.call(job.work, name)
        return (yield from flow.signal("go on"))

    with open_store(url) as store, host_of(store, job, Queue("mail", concurrency=2), flows=[careful]) as host:
        for flow_id in ("a", "b", "c", "d"):
            host.start(careful, flow_id, flow_id, queue="mail")
        assert {outside.next_one(), outside.next_one()} == {"a", "b"}
    # Nobody was told what came of the activities: they are run again.
    outside.let_end(2)
    with open_store(url) as store, host_of(store, job, Queue("mail", concurrency=1), flows=[careful]) as host:
        assert {outside.next_one(), outside.next_one()} == {"a", "b"}
        outside.let_end(4)
        host.signal("a", "go on", "a goes on")
        assert host.result("a", timeout=60) == "a goes on"
        # One still goes on, which is as many as there is room for.
        assert waiting(host) == ["c", "d"]
        host.signal("b", "go on", "b goes on")
        assert host.result("b", timeout=60) == "b goes on"
        assert outside.next_one() == "c"
        assert waiting(host) == ["d"]


def test_a_host_begins_no_more_in_its_time_than_the_rate_says(store, job, outside):
    outside.let_end(2)
    with host_of(store, job, Queue("mail", per_second=0.0001)) as host:
        host.start(job, "a", "a", queue="mail")
        host.start(job, "b", "b", queue="mail")
        assert host.result("a", timeout=60) == "a"
        assert waiting(host) == ["b"]


def test_a_host_that_waits_for_a_rate_goes_on_by_itself(store, job, outside):
    outside.let_end(5)
    with host_of(store, job, Queue("mail", per_second=19.9)) as host:
        for name in "abcde":
            host.start(job, name, name, queue="mail")
        # Each is begun in a thread of its own, and one may be overtaken.
        assert sorted(outside.next_one() for _ in range(5)) == list("abcde")


def test_a_flow_that_sleeps_or_waits_keeps_its_place(store, job, outside):
    with host_of(store, job, Queue("mail", concurrency=1), flows=[letter], held_limit=0) as host:
        host.start(letter, "m-1", "Ada", queue="mail")
        host.start(job, "m-2", "m-2", queue="mail")
        seen = 0
        while "m-1" in waiting(host):
            seen = store.run(kv.wait(seen, journal.OPEN + "m-1", 60))
        host.signal("m-1", "to Bob", "dear Bob")
        host.pause("m-1")
        host.resume("m-1")
        assert waiting(host) == ["m-2"]
        host.signal("m-1", "to Ada", "dear Ada")
        assert host.result("m-1", timeout=60) == "dear Ada"
        assert outside.next_one() == "m-2"
        outside.let_end()


def test_a_flow_that_halts_makes_room_and_waits_again_once_it_is_retried(store, job, outside):
    @flow.activity
    def stamp() -> None: ...

    def stamped(name: str):
        yield from flow.call(stamp)
        return name

    outside.let_end()
    with host_of(store, job, Queue("mail", concurrency=1), flows=[stamped]) as host:
        host.start(stamped, "m-1", "m-1", queue="mail")
        host.start(job, "m-2", "m-2", queue="mail")
        assert host.result("m-2", timeout=60) == "m-2"
        assert host.status("m-1").state == "halted"
        assert outside.next_one() == "m-2"
        host.start(job, "m-3", "m-3", queue="mail")
        assert outside.next_one() == "m-3"
        host.retry("m-1")
        assert host.status("m-1").state == "waiting"
        outside.let_end()


def test_a_flow_that_is_cancelled_while_it_waits_ends_before_its_turn(store, job, outside):
    with host_of(store, job, Queue("mail", concurrency=1)) as host:
        host.start(job, "m-1", "m-1", queue="mail")
        host.start(job, "m-2", "m-2", queue="mail")
        assert outside.next_one() == "m-1"
        host.cancel("m-2")
        with pytest.raises(FlowFailed, match="was cancelled"):
            host.result("m-2", timeout=60)
        assert host.status("m-1").state == "running"
        outside.let_end()


def test_a_flow_that_was_cancelled_while_no_host_was_there_ends_before_its_turn(store, job, outside):
    for flow_id in ("m-1", "m-2"):
        store.run(flow.begin(flow_id, job, flow_id, queue="mail"))
    store.run(flow.cancel("m-2"))
    with host_of(store, job, Queue("mail", concurrency=1)) as host:
        assert outside.next_one() == "m-1"
        with pytest.raises(FlowFailed, match="was cancelled"):
            host.result("m-2", timeout=60)
        outside.let_end()


def test_limits_are_those_of_one_host(store, job, outside):
    queue = Queue("mail", concurrency=1)
    with host_of(store, job, queue) as one, host_of(store, job, queue) as other:
        for name in ("a", "b", "c"):
            one.start(job, name, name, queue="mail")
        assert {outside.next_one(), outside.next_one()} == {"a", "b"}
        owners = {flow_id: found.standing.owner for flow_id, found in store.run(flow.unended()).items()}
        assert {owners["a"], owners["b"]} == {one.token, other.token}
        assert owners["c"] == b""
        outside.let_end(3)
        assert other.result("c", timeout=60) == "c"
        assert outside.next_one() == "c"
        assert outside.began.empty()


def test_a_queue_that_the_host_does_not_have_is_refused_before_anything_is_written(store, job):
    with host_of(store, job, Queue("mail")) as host:
        with pytest.raises(InvalidRequest, match=r"queue 'mial' is not here: give it to the host, .* which has mail"):
            host.start(job, "m-1", "m-1", queue="mial")
        with pytest.raises(InvalidRequest, match="priority is 5, and the flow waits in no queue: give queue= too"):
            host.start(job, "m-1", "m-1", priority=5)
        with pytest.raises(InvalidRequest, match="queue 'mial' is not here"):
            host.start_many(job, {"m-1": ["m-1"], "m-2": ["m-2"]}, queue="mial")
        assert host.list() == []


def test_flows_that_are_begun_together_wait_in_their_queue_in_that_order_and_have_their_tags(store, job, outside):
    with host_of(store, job, Queue("mail", concurrency=1)) as host:
        ids = [f"m-{number}" for number in range(4)]
        assert host.start_many(job, {each: [each] for each in ids}, queue="mail", tags={"by": "Ada"}) == ids
        assert outside.next_one() == "m-0"
        assert waiting(host) == ids[1:]
        assert [each.flow_id for each in host.list(tags={"by": "Ada"})] == ids
        outside.let_end(4)
        assert [host.result(each, timeout=60) for each in ids] == ids
        assert [outside.next_one() for _ in range(3)] == ids[1:]


def test_a_flow_of_a_queue_that_the_host_does_not_have_is_left_to_others_and_shown_so(store, job, outside):
    store.run(flow.begin("p-1", job, "p-1", queue="photos"))
    outside.let_end()
    with host_of(store, job, Queue("mail")) as host:
        # This one is behind the other in all that the host looks at.
        host.start(job, "q-1", "q-1", queue="mail")
        assert host.result("q-1", timeout=60) == "q-1"
        (shown,) = host.list(prefix="p-")
        assert (shown.state, shown.queue) == ("waiting", "photos")
        assert host.status("p-1") == shown
        assert shown.error.startswith("queue 'photos' is not here, so the flow is left to other hosts: give it to")
        assert outside.next_one() == "q-1"
        outside.let_end()
        with host_of(store, job, Queue("photos")):
            assert host.result("p-1", timeout=60) == "p-1"
        assert host.status("p-1").error is None
