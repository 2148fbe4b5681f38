"""A flow that goes on as a new run has steps at the paths of the one before: what comes of those is not for these."""

from flow_scenes import with_flow

from interpreters.runtime.flows.activities import Activities
from interpreters.runtime.flows.loop import FlowLoop, Held
from persist_effects import flow, machine
from persist_effects.flow.defining import activities_by_name
from persist_effects.flow.requests import Call, Came, Started

LOSES, WINS = (1, 1, 1), (1, 2, 1)


def echo(value):
    return value


def two_runs(number):
    place, value = yield from flow.first_of(flow.call(echo, "slow"), flow.call(echo, "quick"))
    if number == 1:
        flow.continue_as_new(2)
    return [place, value]


class Outside:
    """The other side of a loop: what was to be begun, and what has ended."""

    def __init__(self):
        self.begun = []
        self.ends = {}

    def begin(self, held, asked):
        self.begun.append(asked)

    def left(self, flow_id, end):
        self.ends[flow_id] = end


def run_until_idle(loop):
    while not loop.is_idle:
        loop.turn()


def test_what_comes_of_a_call_while_the_next_run_begins_is_not_given_to_that():
    outside = Outside()
    with with_flow(two_runs, 1)() as store:

        def ask(requests):
            return [machine.outcome_of(request, store.handlers) for request in requests]

        loop = FlowLoop(
            lambda flow_id, known: flow.conduct(flow_id, flow.Flows([two_runs]), b"a host..", known=known), ask, outside
        )
        loop.take_up("f")
        run_until_idle(loop)
        loop.deliver("f", Came(WINS, "quick"))
        loop.turn()
        loop.deliver("f", Came(LOSES, "slow, in run 1"))
        run_until_idle(loop)
        assert outside.ends == {}
        assert LOSES in outside.begun[-1].withdrawn
        loop.deliver("f", Came(LOSES, "slow, in run 2"))
        run_until_idle(loop)
    assert outside.ends["f"].value == [0, "slow, in run 2"]


def test_a_call_of_the_run_before_that_goes_on_in_its_thread_is_told_to_nobody():
    delivered = []
    activities = Activities(
        activities_by_name([echo]), None, lambda seconds, job: None, lambda held, came: delivered.append(came)
    )
    held = Held("f", None)
    activities.start(held, Started(LOSES, Call("echo", ("old",)), "f/1/1.1.1"))
    old = activities.ready.pop()()
    del held.calls[LOSES]
    activities.start(held, Started(LOSES, Call("echo", ("new",)), "f/2/1.1.1"))
    new = activities.ready.pop()()
    old()
    assert delivered == []
    new()
    assert delivered == [Came(LOSES, "new")]
