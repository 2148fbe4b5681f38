"""The examples on every store, by changing the URL alone; and what they wrote is there once everything was ended."""

import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import nats_cluster
import postgres_server
import pytest
from agents import is_over
from git_repositories import quiet_git  # noqa: F401
from places import EXAMPLES
from served_stores import until
from server_processes import ServerProcess
from test_agent import TRANSCRIPT as agent_printed  # noqa: N811
from test_courses import TRANSCRIPT as courses_printed  # noqa: N811
from test_flow_order import TRANSCRIPT as flow_order_printed  # noqa: N811
from test_git_history_kept import assert_proved, run, small  # noqa: F401
from test_order_ledger import TRANSCRIPT
from test_sessions import TRANSCRIPT as sessions_printed  # noqa: N811

from interpreters import open_store
from persist_effects import Effect, Event, blob, kv, log, new_id, now, sleep, subscription
from persist_effects.requests import KvPut

sys.path.insert(0, str(EXAMPLES))

import agent
import courses
import flow_order
import order_ledger
import sessions


class Place:
    """Where a store is: its URL, and what ends all that stands behind it, and starts it again."""

    def __init__(self, url: str, *, is_kept: bool = True) -> None:
        self.url = url
        self.is_kept = is_kept

    def restart(self) -> None:
        """Nothing stands behind it once it is closed."""


class ServedPlace(Place):
    """A file store that a process serves."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(server.url)
        self._server = server

    def restart(self) -> None:
        self._server.restart()
        self.url = self._server.url


class SharedPlace(Place):
    """A file store that an agent serves, until nobody has needed it for a while."""

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(url)
        self._path = path

    def restart(self) -> None:
        until(lambda: is_over(self._path))


class NatsPlace(Place):
    """A server of NATS."""

    def __init__(self) -> None:
        super().__init__(nats_cluster.new_store_url())

    def restart(self) -> None:
        cluster = nats_cluster.own_cluster(1)
        cluster.end()
        cluster.start()


@contextmanager
def served_at(listen: str, tmp_path: Path) -> Iterator[Place]:
    server = ServerProcess(f"file:{tmp_path}/store", listen.format(tmp_path))
    try:
        yield ServedPlace(server)
    finally:
        server.close()


@contextmanager
def at(url: str, tmp_path: Path) -> Iterator[Place]:
    yield Place(
        postgres_server.new_store_url() if url == "postgresql:" else url.format(tmp_path), is_kept=url != "memory:"
    )


SHARED = "file:{}/store?share=yes&idle_seconds=0.2"
URLS = ("memory:", "file:{}/store", "sqlite:{}/store", "postgresql:", "spawn:file:{}/store")


@contextmanager
def shared_at(url: str, tmp_path: Path) -> Iterator[Place]:
    place = SharedPlace(url.format(tmp_path), tmp_path / "store")
    yield place
    place.restart()


@contextmanager
def nats_at(tmp_path: Path) -> Iterator[Place]:
    yield NatsPlace()


LISTENED_AT = ("unix:{}/sock", "tcp://127.0.0.1:0")
PLACES: dict[str, Callable[[Path], Any]] = {
    **{url: partial(at, url) for url in URLS},
    "nats:": nats_at,
    SHARED: partial(shared_at, SHARED),
    **{f"served at {url}": partial(served_at, url) for url in LISTENED_AT},
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with PLACES[request.param](tmp_path) as made:
        yield made


@pytest.mark.exploration
def test_the_order_ledger_prints_the_same_and_its_invoices_are_kept(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    race, _, rest = TRANSCRIPT.partition("\n")
    assert "decided again" in race
    assert order_ledger.command([place.url]) == 0
    assert capsys.readouterr().out == TRANSCRIPT
    if not place.is_kept:
        return
    place.restart()
    with open_store(place.url) as store:
        events = store.run(log.read(order_ledger.LEDGER))
        orders = store.run(order_ledger.current()).value.orders
        texts = {fact.order: store.run(blob.get(fact.invoice)) for fact in map(invoice_in, events)}
    assert texts == {number: order_ledger.invoice_text(order) for number, order in orders.items() if order}
    assert texts["o-2"] == b"o-2: 2 tea, 9.00 EUR"
    assert order_ledger.command([place.url]) == 0
    assert capsys.readouterr().out == rest


def test_the_courses_keep_their_rules_and_the_sessions_end(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    courses.main(place.url)
    sessions.main(place.url)
    assert capsys.readouterr().out == courses_printed + sessions_printed


@pytest.mark.exploration
def test_the_flows_of_orders_print_the_same_and_are_known_once_everything_was_ended(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    flow_order.main(place.url)
    assert capsys.readouterr().out == flow_order_printed
    if place.is_kept:
        place.restart()
        flow_order.main(place.url)
        assert capsys.readouterr().out == flow_order_printed.replace("bank: no money for o-4-island\n", "")


@pytest.mark.exploration
def test_the_agent_says_the_same_and_asks_nobody_again_once_everything_was_ended(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.main(place.url)
    assert capsys.readouterr().out.startswith(agent_printed)
    if place.is_kept:
        place.restart()
        agent.main(place.url)
        assert capsys.readouterr().out.startswith(agent_printed.replace("after event 1", "after event 8"))


@pytest.mark.exploration
def test_deciders_on_several_connections_give_out_the_seats_that_there_are(place: Place) -> None:
    with open_store(place.url) as store:
        store.run(courses.offer("drama", 3))
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda name: store.run(courses.subscribe(name, "drama")), "abcdefgh"))
        assert courses.told(results).count("done") == 3
        store.wait_for_order()
        store.run(courses.check_courses())


def test_programs_are_told_the_time_and_sleep_in_a_task(place: Place) -> None:
    def nap() -> Effect[tuple[int, str, int]]:
        before = yield from now()
        name = yield from new_id()
        yield from sleep(0.001)
        event = yield from log.append("naps", "napped", name)
        return before, name, event.at

    with open_store(place.url) as store:
        before, name, at = anyio.run(store.arun, nap())
        assert uuid.UUID(name).version == 7
        assert before <= at


def invoice_in(event: Event) -> order_ledger.Invoiced:
    fact = order_ledger.SCHEMA.lift(event).data
    assert isinstance(fact, order_ledger.Invoiced)
    return fact


@pytest.mark.exploration
def test_the_demo_proves_its_answers_and_finds_what_it_recorded(place: Place, small: Path) -> None:  # noqa: F811
    if not place.is_kept:
        assert "\nproved: " in run(small, place.url).stdout
        return
    first = assert_proved(small, place.url, recorded=3)
    place.restart()
    assert assert_proved(small, place.url, recorded=0) == first


@pytest.mark.exploration
def test_a_follower_goes_on_where_it_was_once_everything_was_ended(place: Place) -> None:
    seen: list[int] = []

    def counted(event: Event) -> list[Any]:
        seen.append(event.data)
        return [KvPut("sum", sum(seen))]

    with open_store(place.url) as store:
        for number in range(1, 6):
            store.run(log.append(f"orders/{number % 2}", "placed", number))
        store.wait_for_order()
        store.run(subscription.follow("sums", "orders/", counted))
        if not place.is_kept:
            assert seen == [1, 2, 3, 4, 5]
            return
        store.run(log.append("orders/0", "placed", 6))
    place.restart()
    with open_store(place.url) as store:
        store.wait_for_order()
        store.run(subscription.follow("sums", "orders/", counted))
        assert store.run(kv.get("sum")) == 21
    assert seen == [1, 2, 3, 4, 5, 6]
