"""Several processes go through the crashes of a workload, and the report is the same for any number of them."""

import multiprocessing
import os
import signal

import msgspec
import pytest

from interpreters.explore import explore_crashes
from interpreters.explore.workers import WorkerDied
from persist_effects import InvalidRequest, kv, log


def order():
    yield from log.append("orders/1", "placed", {"total": 12})
    yield from kv.put("latest", 1)


def stock():
    yield from kv.put("stock", 11)


def latest_is_there(acked, maybe):
    if (yield from log.last_seq("orders/1")) and not (yield from kv.get_or("latest", 0)):
        raise ValueError("an order without the latest one")


WORKLOADS = {
    "all is well": (order, {"depth": 1}),
    "two crashes": (stock, {"depth": 2}),
    "two programs and a check that fails": ([order, stock], {"check": latest_is_there, "depth": 1}),
    "faults": (stock, {"depth": 1, "faults": ["lost write"]}),
    "faults and a check that fails": (order, {"check": latest_is_there, "depth": 1, "faults": ["failed sync, xfs"]}),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_report_is_the_same_for_any_number_of_workers(name):
    workload, options = WORKLOADS[name]
    alone, one, two, three = (explore_crashes(workload, workers=count, **options) for count in (None, 1, 2, 3))
    assert msgspec.json.encode(one) == msgspec.json.encode(two) == msgspec.json.encode(three)
    assert (one.verdict, one.failures, one.bound) == (alone.verdict, alone.failures, alone.bound)
    assert one.is_exhaustive
    assert one.checked >= alone.checked > 0
    assert not multiprocessing.active_children()


def test_each_cell_that_one_process_has_failures_in_has_failures_in_several():
    failing = (
        {(cell.request, cell.fault) for cell in report.cells if cell.failures}
        for report in (explore_crashes(order, latest_is_there, depth=1, workers=count) for count in (None, 2))
    )
    alone, two = failing
    assert alone
    assert alone <= two


def test_the_token_of_a_failure_shows_it_again_with_workers_or_without():
    report = explore_crashes(order, latest_is_there, depth=1, workers=2)
    token = report.failures[0].token
    for count in (None, 2):
        again = explore_crashes(order, latest_is_there, depth=1, workers=count, repro=token)
        assert again.failures[0].token == token
        assert again.checked == 1


def test_how_many_were_checked_is_told_part_by_part():
    told = []
    report = explore_crashes(order, depth=1, workers=2, progress=told.append)
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == report.checked


def test_when_the_time_is_over_the_report_says_from_where_on():
    report = explore_crashes(order, depth=1, faults=["EIO"], workers=2, seconds=1e-6)
    assert (report.checked, report.is_exhaustive, report.failures) == (0, False, [])
    assert report.not_reached == "crashes from before request #4 on, and what comes later"


def test_what_ends_the_exploration_in_a_worker_ends_it_here_with_its_token():
    parent = os.getpid()

    def check(acked, maybe):
        yield from kv.get_or("stock", 0)
        if os.getpid() != parent:
            pytest.skip("not here")

    with pytest.raises(pytest.skip.Exception, match="not here") as caught:
        explore_crashes(stock, check, depth=1, workers=2)
    assert 'repro="' in "".join(caught.value.__notes__)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_told():
    parent = os.getpid()

    def check(acked, maybe):
        yield from kv.get_or("stock", 0)
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDied, match="ended with -9"):
        explore_crashes(stock, check, depth=1, workers=2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"workers": 2, "limit": 5}, "workers does not go with limit: leave one of them out"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": "two"}, "workers"),
    ],
)
def test_workers_that_make_no_sense_are_refused(arguments, told):
    with pytest.raises(InvalidRequest, match=told):
        explore_crashes(stock, **arguments)
