"""What comes of an activity late: after another branch has won, and the flow has gone on as a new run."""

from threading import Event as Flag

from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import flow

PATIENCE_SECONDS = 60


def test_what_comes_of_an_activity_of_an_earlier_run_is_not_taken_for_that_of_a_later_one():
    goes_on, ended, began = [Flag(), Flag()], Flag(), [Flag(), Flag()]

    @flow.activity
    def look(run: int) -> int:
        began[run].set()
        assert goes_on[run].wait(PATIENCE_SECONDS)
        return run

    @flow.activity
    def mark() -> None:
        ended.set()

    def looking(run: int):
        place, seen = yield from flow.first_of(flow.call(look, run), flow.signal("on"))
        if place == 1:
            flow.continue_as_new(run + 1)
        yield from flow.call(mark)
        return seen

    with open_store("memory:") as store, FlowHost(store, flows=[looking], activities=[look, mark]) as host:
        host.start(looking, "l", 0)
        assert began[0].wait(PATIENCE_SECONDS)
        host.signal("l", "on")
        assert began[1].wait(PATIENCE_SECONDS)
        goes_on[0].set()
        # Behind what came of the first run, in the order in which the host is told.
        host.start(looking, "other", 1)
        goes_on[1].set()
        assert host.result("l", PATIENCE_SECONDS) == 1
