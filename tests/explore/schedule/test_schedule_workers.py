"""Several processes go through the interleavings, and the report is that of one."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import msgspec
import pytest

from interpreters.explore import explore
from interpreters.explore.workers import WorkerDied
from interpreters.stores.memory import MemoryStore
from persist_effects import InvalidRequest, kv, log


def memory():
    return MemoryStore(clock=lambda: 0)


def write(streams):
    def go():
        for stream in streams:
            yield from log.append(stream, "made", 1)

    return go


def add():
    number = yield from kv.get_or("n", 0)
    yield from kv.put("n", number + 1)


def all_added(outcomes):
    if (yield from kv.get("n")) != len(outcomes):
        raise ValueError("one is lost")


def looking():
    yield from log.append("a", "made", 1)
    yield from log.read_all()


WORKLOADS = {
    "writes that race": ([write("aba"), write("ba"), write("ab")], {}),
    "writes that commute": ([write("ab"), write("cd"), write("ef")], {}),
    "lost updates": ([add, add, add], {"check": all_added}),
    "the order of all streams": ([looking, write("b"), write("c")], {}),
    "nothing reduced": ([write("ab"), write("ba"), add], {"reduce": False}),
    "operations": ([write("ab"), write("ba")], {"linearizable": True}),
    "two programs, of which one asks nothing": ([write("ab"), lambda: iter_nothing()], {}),
}


def iter_nothing():
    yield from ()


@pytest.mark.exploration
@pytest.mark.parametrize("name", WORKLOADS)
def test_the_report_is_the_same_for_any_number_of_workers(name):
    programs, options = WORKLOADS[name]
    alone, one, two, four = (explore(programs, memory, workers=count, **options) for count in (None, 1, 2, 4))
    assert msgspec.json.encode(one) == msgspec.json.encode(two) == msgspec.json.encode(four)
    assert (one.checked, one.failure_count, one.failures) == (alone.checked, alone.failure_count, alone.failures)
    assert one.is_exhaustive


def test_an_invariant_is_checked_in_all_of_them():
    def holds():
        if (yield from log.last_seq("b")) > (yield from log.last_seq("a")):
            raise ValueError("b is ahead")

    alone, two = (explore([write("ab"), write("ba")], memory, invariant=holds, workers=count) for count in (None, 2))
    assert two.failures == alone.failures
    assert (two.checked, two.failure_count) == (alone.checked, alone.failure_count)


def test_programs_that_never_end_are_told_as_by_one():
    def poll():
        while not (yield from kv.get_or("ready", False)):
            pass

    def set_late():
        for number in range(9):
            yield from kv.put("ready", number == 8)

    alone, two = (explore([poll, set_late], memory, requests_limit=40, workers=count) for count in (None, 2))
    for report in (alone, two):
        assert report.failures[0].kind.removesuffix(" in some orders") == "polls without end"


def test_a_worker_that_dies_is_told():
    parent = os.getpid()

    def die():
        yield from kv.get("n")
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDied, match=r"ended with -9"):
        explore([die, add], memory, workers=2)
    assert not multiprocessing.active_children()


def test_what_ends_the_exploration_in_a_worker_ends_it_here_with_its_token():
    parent = os.getpid()

    def check(outcomes):
        yield from kv.get("n")
        if os.getpid() != parent:
            pytest.skip("not here")

    with pytest.raises(pytest.skip.Exception, match="not here") as caught:
        explore([add, add], memory, check, workers=2)
    assert 'repro="s1:' in "".join(caught.value.__notes__)
    assert not multiprocessing.active_children()


def test_an_error_that_cannot_be_sent_is_told_in_words():
    parent = os.getpid()

    class Local(BaseException):
        pass

    def check(outcomes):
        yield from kv.get("n")
        if os.getpid() != parent:
            raise Local("odd")

    with pytest.raises(RuntimeError, match=r"Local: odd"):
        explore([add, add], memory, check, workers=2)


SCRIPT = """
import os, sys
from interpreters.explore import explore
from interpreters.stores.memory import MemoryStore
from persist_effects import kv

parent = os.getpid()

def wait_for_ever():
    yield from kv.get("n")
    if os.getpid() != parent:
        sys.stdout.write(f"{os.getpid()}\\n")
        sys.stdout.flush()
        while True:
            pass

explore([wait_for_ever, wait_for_ever], lambda: MemoryStore(clock=lambda: 0), workers=2)
"""


def test_ctrl_c_ends_all_of_them():
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        workers = [int(process.stdout.readline()) for _ in range(2)]
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)


@pytest.mark.parametrize("option", [{"bound": 2}, {"limit": 5}, {"crashes": True}])
def test_what_does_not_go_with_several_processes_is_refused(option):
    with pytest.raises(InvalidRequest, match=f"workers does not go with {next(iter(option))}"):
        explore([add, add], memory, workers=2, **option)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_what_is_no_number_of_processes_is_refused(workers):
    with pytest.raises(InvalidRequest, match="workers"):
        explore([add, add], memory, workers=workers)


def test_another_thread_than_the_main_one_is_refused():
    caught = []

    def go():
        try:
            explore([add, add], memory, workers=2)
        except InvalidRequest as error:
            caught.append(str(error))

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert caught == ["workers are forked from the main thread alone: explore there, or leave it out"]
