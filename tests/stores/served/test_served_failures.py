"""A served store where it really fails: servers that die under load, connections that are cut anywhere, slow ones.

A write ends in one of three ways. An answer: it is there, for good. `StoreUnavailable`: nothing of it is there.
`UncertainOutcome`: it is there whole or not at all, and ``log.append_once`` settles which.

``SERVED_KILL_ROUNDS`` says how often the server dies, ``SERVED_CLIENTS`` how many processes write meanwhile, and
``SERVED_CUT_SEEDS`` how many seeds draw where a connection is cut.
"""

import os
import signal
import subprocess
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from proxies import cutting_proxy, slow_proxy
from served_stores import PATIENCE_SECONDS, Ending, serving
from server_processes import python_process, server_process

from interpreters import Store, open_store
from interpreters.conformance import Capabilities, StoreConformance
from persist_effects import StoreUnavailable, UncertainOutcome, log, subscription
from persist_effects.requests import Append, LastSeq, Read

ROUNDS = int(os.environ.get("SERVED_KILL_ROUNDS", "3"))
SEEDS = int(os.environ.get("SERVED_CUT_SEEDS", "3"))
CHILD = Path(__file__).with_name("served_child.py")
CLIENTS = int(os.environ.get("SERVED_CLIENTS", "4"))


def child(server, name, number):
    return python_process(CHILD, server.url, name, number, stdout=subprocess.PIPE, text=True)


@pytest.mark.exploration
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_lost_or_doubled_while_the_server_dies_under_the_load_of_several_processes(blow):
    with server_process() as server, open_store(server.url) as store:
        writers = {name: child(server, name, 120 * ROUNDS) for name in map(str, range(CLIENTS))}
        told = {name: [] for name in writers}
        followed, following = [], threading.Event()

        def follow():
            seen = lambda event: followed.append(event.position) or ()  # noqa: E731
            while not following.is_set():
                try:
                    store.run(subscription.follow("readers", "orders/", seen, timeout=0.05))
                except (StoreUnavailable, UncertainOutcome):
                    continue

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        for _ in range(ROUNDS):
            for name, writer in writers.items():
                # Each goes on: what it was told after the last blow is there.
                told[name] += [writer.stdout.readline() for _ in range(60)]
            assert server.end(blow) in {-signal.SIGKILL, 0}
            server.start()
        uncertain = 0
        for name, writer in writers.items():
            told[name] += writer.stdout.read().splitlines()
            assert writer.wait(PATIENCE_SECONDS) == 0
            writer.stdout.close()
            uncertain += int(told[name].pop().split()[1])
        if blow == signal.SIGTERM:
            assert not uncertain, "a server that is told to end leaves nothing uncertain"
        events = {name: store.run(log.read(f"orders/{name}")) for name in writers}
        newest = store.run(log.head("orders/"))
        while not followed or followed[-1] < newest:
            assert follower.is_alive()
        following.set()
        follower.join(PATIENCE_SECONDS)
    for name in writers:
        assert [event.data for event in events[name]] == list(range(120 * ROUNDS))
        acknowledged = [tuple(map(int, line.split())) for line in told[name]]
        assert acknowledged == [(event.data, event.seq, event.position) for event in events[name]]
    # In their order, and none was passed over. One whose checkpoint was on its way at a blow may have come again.
    assert list(dict.fromkeys(followed)) == sorted(event.position for found in events.values() for event in found)


# Connections that are cut, and slow ones


@pytest.mark.exploration
class TestStoreOverASlowConnection(StoreConformance):
    """A byte at a time."""

    # What is larger takes long by the byte.
    capabilities = Capabilities(payload_limit_bytes=100_000)

    def open_store(self) -> Store:
        ends = ExitStack()
        inner = ends.enter_context(open_store("memory:", payload_limit_bytes=100_000))
        place = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="persist-effects-")))
        ends.enter_context(serving(inner, place / "server"))
        ends.enter_context(slow_proxy(place / "sock", place / "server"))
        return Store(Ending(open_store(f"unix:{place / 'sock'}").interpreter, ends))

    # So do its many sequences.
    test_the_store_agrees_with_the_model_over_any_sequence_of_requests = None


@contextmanager
def cut_store(seed):
    with (
        tempfile.TemporaryDirectory(prefix="persist-effects-") as place,
        open_store("memory:") as inner,
        serving(inner, Path(place) / "server"),
        cutting_proxy(Path(place) / "sock", Path(place) / "server", seed) as proxy,
        open_store(f"unix:{place}/sock") as store,
    ):
        yield inner, proxy, store


@pytest.mark.parametrize("seed", range(SEEDS))
def test_over_connections_that_are_cut_at_any_byte_nothing_is_lost_or_doubled_and_no_answer_is_wrong(seed):
    with cut_store(seed) as (inner, proxy, store):
        uncertain = 0
        for number in range(300):
            while True:
                try:
                    event = store.run(log.append_once("orders", str(number), "made", number))
                    break
                except UncertainOutcome:
                    uncertain += 1
            assert (event.data, event.seq) == (number, number + 1)
            # What was acknowledged is there for whoever asks, over whichever connection.
            assert store.interpreter.handlers[LastSeq](LastSeq("orders")) == number + 1
            page = store.interpreter.handlers[Read](Read("orders", after=max(0, number - 3)))
            assert [found.data for found in page.events] == list(range(max(0, number - 3), number + 1))
        assert [event.data for event in inner.run(log.read("orders"))] == list(range(300))
        assert proxy.cuts > 10, "the connections were cut"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_write_that_is_said_not_to_be_written_is_not_and_one_that_was_answered_is(seed):
    with cut_store(seed) as (inner, proxy, store):
        certain, maybe = set(), set()
        for number in range(300):
            try:
                store.interpreter.handlers[Append](next(log.append("orders", "made", number)))
                certain.add(number)
            except UncertainOutcome:
                maybe.add(number)
        found = [event.data for event in inner.run(log.read("orders"))]
        assert len(found) == len(set(found)), "no write was sent twice"
        assert certain <= set(found) <= certain | maybe
        assert proxy.cuts > 5


@pytest.mark.parametrize("seed", range(SEEDS))
def test_tasks_that_wait_over_connections_that_are_cut_are_told_of_everything(seed):
    with cut_store(seed) as (inner, _, store):
        followed = []
        seen = lambda event: followed.append(event.data) or ()  # noqa: E731
        done = threading.Event()

        def follow():
            while 99 not in followed and not done.is_set():
                try:
                    store.run(subscription.follow("readers", "orders", seen, timeout=0.2))
                except UncertainOutcome:
                    continue

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        for number in range(100):
            inner.run(log.append("orders", "made", number))
        follower.join(PATIENCE_SECONDS)
        done.set()
        assert not follower.is_alive()
    # A handler may be asked again where it is not known whether its checkpoint was written; none is passed over.
    assert list(dict.fromkeys(followed)) == list(range(100))
