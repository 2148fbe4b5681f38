"""The example `examples/web_orders.py`, by real HTTP: what it answers, and that no order is lost or doubled."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from agents import agent_of, is_over
from served_stores import until
from web_servers import GUNICORN, UVICORN, WORKERS, Load, WebServer, running

from examples import web_orders
from interpreters import open_store
from interpreters.explore import explore_effects
from persist_effects import log

PHOTO = b"\x89PNG and so on"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Of a store that is shared. Behind the test its agent ends, as nobody needs it any more."""
    path = tmp_path / "store"
    yield path
    if path.exists():
        until(lambda: is_over(path))


def shared(path: Path) -> str:
    return f"file:{path}?share=yes&idle_seconds=0.5"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web-orders")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[WebServer]:
    """One for all tests that leave it as it is. What one of them orders, the others may see."""
    with running(UVICORN, shared(place / "store"), place / "output") as server:
        yield server
    until(lambda: is_over(place / "store"))


@pytest.fixture
def client(server: WebServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def order(client: httpx.Client, key: str, sku: str = "tea", count: Any = 2) -> httpx.Response:
    return client.post("/orders", headers={"Idempotency-Key": key}, json={"sku": sku, "count": count})


def events_in(lines: Iterator[str], count: int) -> list[dict[str, Any]]:
    """The next events that were pushed. Comments are passed over."""
    events: list[dict[str, Any]] = []
    fields: dict[str, str] = {}
    while len(events) < count:
        line = next(lines)
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            events.append({"id": int(fields["id"]), "event": fields["event"], **json.loads(fields["data"])})
            fields = {}
    return events


def read_all_so_far(lines: Iterator[str]) -> None:
    until(lambda: next(lines).startswith(": that is all"))


# What it answers


def test_an_order_is_answered_with_what_it_is_and_where(client: httpx.Client) -> None:
    response = order(client, "placed")
    number = response.json()["number"]
    assert response.status_code == 201
    assert response.json() == {"number": number, "seq": 1, "sku": "tea", "count": 2}
    assert response.headers["Location"] == f"/orders/{number}"
    assert client.get(f"/orders/{number}").json() == response.json()


def test_the_same_key_is_the_same_order_and_gets_the_same_answer(client: httpx.Client) -> None:
    first, second, other = order(client, "a"), order(client, "a"), order(client, "b")
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert other.json()["number"] != first.json()["number"]
    numbers = [each["number"] for each in client.get("/orders").json()]
    assert numbers.count(first.json()["number"]) == 1


def test_orders_are_listed_as_they_came(client: httpx.Client) -> None:
    placed = [order(client, f"listed {count}", "mug", count).json() for count in range(1, 4)]
    assert [each for each in client.get("/orders").json() if each["sku"] == "mug"] == placed


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status", "message"),
    [
        ("POST", "/orders", {}, b"{}", 400, "needs the header Idempotency-Key"),
        ("POST", "/orders", {"Idempotency-Key": "c"}, b"{", 400, "truncated"),
        ("POST", "/orders", {"Idempotency-Key": "c"}, b'{"sku": "tea"}', 400, "missing required field `count`"),
        ("POST", "/orders", {"Idempotency-Key": "c"}, b'{"sku": "tea", "count": 0}', 400, "Expected `int` >= 1"),
        ("GET", "/orders/0", {}, b"", 404, "there is no order '0'"),
        ("GET", "/orders/a%00b", {}, b"", 422, "control character"),
        ("GET", "/orders/0/photo", {}, b"", 404, "there is no order '0'"),
        ("PUT", "/orders/0/photo", PNG, PHOTO, 404, "there is no order '0'"),
        ("PUT", "/orders/0/photo", {}, PHOTO, 415, "needs the header Content-Type"),
        ("PUT", "/orders/0/photo?seq=-1", PNG, PHOTO, 400, "Expected `int` >= 0"),
        ("PUT", "/orders/0/photo", PNG, bytes(8 * 1024 * 1024 + 1), 413, "Content Too Large"),
        ("GET", "/feed", {"Last-Event-ID": "x"}, b"", 400, "Expected `int"),
    ],
)
def test_what_cannot_be_is_refused_with_words(
    *, client: httpx.Client, method: str, path: str, headers: dict[str, str], content: bytes, status: int, message: str
) -> None:
    response = client.request(method, path, headers=headers, content=content)
    assert response.status_code == status, response.text
    assert message in response.text


def test_a_key_that_was_used_for_another_order_is_refused(client: httpx.Client) -> None:
    order(client, "used", count=1)
    response = order(client, "used", count=2)
    assert response.status_code == 422
    assert "'used' was used for another order" in response.text


def test_a_photo_is_a_blob_and_the_order_has_the_reference(client: httpx.Client) -> None:
    number = order(client, "photographed").json()["number"]
    at = f"/orders/{number}/photo"
    assert client.get(at).status_code == 404
    ref = client.put(at, content=PHOTO, headers=PNG).json()["photo"]
    assert (ref["size"], ref["mime"]) == (len(PHOTO), "image/png")
    assert client.get(f"/orders/{number}").json()["photo"] == ref
    found = client.get(at)
    assert (found.content, found.headers["Content-Type"]) == (PHOTO, "image/png")


def test_the_same_photo_again_is_no_new_event_and_another_one_is(client: httpx.Client) -> None:
    at = f"/orders/{order(client, 'photographed twice').json()['number']}/photo"
    seqs = [client.put(at, content=photo, headers=PNG).json()["seq"] for photo in (PHOTO, PHOTO, b"other", PHOTO)]
    assert seqs == [2, 2, 3, 4]


def test_a_photo_for_an_order_that_has_changed_since_is_a_conflict(client: httpx.Client) -> None:
    at = f"/orders/{order(client, 'photographed by two').json()['number']}/photo?seq=1"
    assert client.put(at, content=PHOTO, headers=PNG).status_code == 200
    response = client.put(at, content=b"other", headers=PNG)
    assert response.status_code == 409
    assert (response.json()["expected"], response.json()["actual"]) == (1, 2)


def test_the_feed_goes_on_behind_the_last_event_that_its_reader_has_seen(client: httpx.Client) -> None:
    placed = [order(client, f"fed {number}").json()["number"] for number in range(3)]
    with client.stream("GET", "/feed") as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        lines = response.iter_lines()
        events: list[dict[str, Any]] = []
        until(lambda: events.extend(events_in(lines, 1)) or events[-1]["stream"] == f"orders/{placed[0]}")
    with client.stream("GET", "/feed", headers={"Last-Event-ID": f"{events[-1]['id']}"}) as response:
        rest = events_in(response.iter_lines(), 2)
    assert [event["stream"] for event in rest] == [f"orders/{number}" for number in placed[1:]]
    assert [event["data"] for event in rest] == [{"sku": "tea", "count": 2}] * 2


def test_what_happens_is_pushed_to_all_who_read_the_feed_and_none_of_them_costs_a_thread(
    server: WebServer, client: httpx.Client, place: Path
) -> None:
    def threads_of(process: int) -> int:
        found = re.search(r"^Threads:\t(\d+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    worker, agent = int(order(client, "seen").headers["X-Worker"]), agent_of(place / "store")
    assert worker == server.process.pid
    before = threads_of(worker), threads_of(agent)
    with ExitStack() as readers:
        feeds = []
        for _ in range(30):
            response = readers.enter_context(readers.enter_context(server.client()).stream("GET", "/feed"))
            feeds.append(response.iter_lines())
            read_all_so_far(feeds[-1])
        number = order(client, "pushed").json()["number"]
        for lines in feeds:
            assert [event["stream"] for event in events_in(lines, 1)] == [f"orders/{number}"]
        assert threads_of(worker) <= before[0]
        assert threads_of(agent) <= before[1]


@pytest.mark.exploration
def test_while_the_store_cannot_be_had_clients_are_told_to_come_again(path: Path, tmp_path: Path) -> None:
    with running(UVICORN, f"{shared(path)}&timeout=5", tmp_path / "output") as server, server.client() as client:
        placed = order(client, "before").json()
        agent = agent_of(path)
        path.rename(tmp_path / "elsewhere")
        os.kill(agent, signal.SIGKILL)
        response = order(client, "meanwhile")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        (tmp_path / "elsewhere").rename(path)
        assert order(client, "meanwhile").status_code == 201
        assert client.get("/orders").json()[0] == placed
        server.end()


def test_no_fault_of_the_store_at_any_request_loses_an_order_or_doubles_one() -> None:
    def place() -> Any:
        return (yield from web_orders.place("77", web_orders.Wanted("tea", 2)))

    def check(acked: Any, maybe: Any) -> Any:
        (event,) = yield from log.read_all()
        assert event.data == {"sku": "tea", "count": 2}

    assert explore_effects(place, lambda: open_store("memory:"), check, depth=2).verdict == "passed"


def test_no_fault_of_the_store_at_any_request_loses_a_photo_or_attaches_it_twice() -> None:
    def place_and_attach() -> Any:
        placed = yield from web_orders.place("77", web_orders.Wanted("tea", 2))
        return (yield from web_orders.attach(placed["number"], PHOTO, "image/png", None))

    def check(acked: Any, maybe: Any) -> Any:
        (found,) = yield from web_orders.listed()
        assert [event.type for event in (yield from log.read_all())] == ["placed", "photographed"]
        assert (yield from web_orders.photo_of(found["number"])) == ("image/png", PHOTO)

    assert explore_effects(place_and_attach, lambda: open_store("memory:"), check).verdict == "passed"


# Many workers


@pytest.mark.exploration
@pytest.mark.parametrize("command", [[*UVICORN, "--workers", f"{WORKERS}"], GUNICORN], ids=["uvicorn", "gunicorn"])
def test_workers_that_are_killed_one_by_one_and_the_agent_too_lose_no_order_and_double_none(
    command: list[str], path: Path, tmp_path: Path
) -> None:
    killed: set[int] = set()
    with running(command, shared(path), tmp_path / "output") as server:
        with server.client() as client, Load(server) as load:
            first = order(client, "with a photo").json()
            assert client.put(f"/orders/{first['number']}/photo", content=PHOTO, headers=PNG).status_code == 200

            def kill_agent(count: int) -> None:
                if count % 2:
                    killed.add(agent_of(path))
                    os.kill(agent_of(path), signal.SIGKILL)
                    load.go_on()

            living = load.kill_workers(meanwhile=kill_agent)
            load.go_on()
        assert len(killed) == 2
        assert agent_of(path) not in killed
        told = server.orders_of_each(living)
        assert server.process.poll() is None
        server.end()
    placed = [first, *load.placed.values()]
    assert len(living) == WORKERS
    for worker in living:
        assert told[worker] == told[min(living)]
        assert sorted(map(str, told[worker])) == sorted(map(str, placed))

    with running(UVICORN, shared(path), tmp_path / "output") as server, server.client() as client:
        assert client.get("/orders").json() == told[min(living)]
        assert client.get(f"/orders/{first['number']}/photo").content == PHOTO
        with client.stream("GET", "/feed") as response:
            events = events_in(response.iter_lines(), len(placed) + 1)
        assert len({event["stream"] for event in events}) == len(placed)
        server.end()


@pytest.mark.exploration
def test_workers_that_gunicorn_forks_from_an_open_store_have_connections_of_their_own(
    path: Path, tmp_path: Path
) -> None:
    with running(GUNICORN, shared(path), tmp_path / "output") as server, Load(server) as load:
        load.until(lambda: len(load.workers) == WORKERS)
        with open_store(shared(path)) as store:
            # Those of the workers, of the master, who had opened it before, and this one.
            assert store.interpreter.health()["connections"] == WORKERS + 2  # type: ignore[attr-defined]
