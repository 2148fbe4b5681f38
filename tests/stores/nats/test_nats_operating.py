"""What an operator does with a store on NATS, done on real servers, with a program that writes meanwhile."""

import asyncio
import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nats
import pytest
from nats.errors import NoRespondersError
from nats_cluster import BATCH_MESSAGES, new_store_url, own_cluster
from served_stores import PATIENCE_SECONDS, until
from stores_of_a_move import read_model
from typer.testing import CliRunner

from interpreters import Store, cli, open_store
from interpreters.nats.private_cluster import CLIENT_PORT, PrivateCluster
from interpreters.stores.nats import snapshots
from interpreters.stores.nats.jetstream import JetStream, Refused, Unanswered
from interpreters.stores.nats.snapshots import restore, save
from persist_effects import Conflict, CorruptStore, Draft, InvalidRequest, StoreUnavailable, kv, log, transact
from persist_effects.requests import Append, KvPut

pytestmark = pytest.mark.exploration

SYSTEM = {"user": "operator", "password": "of-the-test"}
SETTINGS = "accounts {{ $SYS {{ users: [{{user: {user}, password: {password}}}] }} }}".format(**SYSTEM)
"""An account of the system's, for what is asked of the cluster itself. All others need to show nothing."""


@pytest.fixture
def cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster(3, settings=SETTINGS) as made:
        yield made


def with_client(cluster: PrivateCluster, node: int, use: Callable[[Any], Any], **options: Any) -> Any:
    """What is done with a connection to one server."""

    async def work() -> Any:
        client = await nats.connect(f"nats://{cluster.host}:{CLIENT_PORT + node}", **options)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(work())


def asked(cluster: PrivateCluster, node: int, subject: str, request: Any = None, **options: Any) -> Any:
    """What JetStream's administration answers, which may be that it is not so now."""
    payload = b"" if request is None else json.dumps(request).encode()

    async def ask(client: Any) -> Any:
        return json.loads((await client.request(subject, payload, timeout=10)).data)

    return with_client(cluster, node, ask, **options)


def peers_of(cluster: PrivateCluster, node: int, name: str) -> tuple[str, set[str]] | None:
    """Who leads a store's stream, and who else has all of it; None while nobody leads."""
    found = asked(cluster, node, f"$JS.API.STREAM.INFO.{name}").get("cluster", {})
    if "leader" not in found:
        return None
    whole = {each["name"] for each in found.get("replicas", []) if each["current"] and not each.get("lag")}
    return found["leader"], whole


def is_whole(cluster: PrivateCluster, node: int, name: str, servers: set[str]) -> bool:
    found = peers_of(cluster, node, name)
    return found is not None and {found[0]} | found[1] == servers


def messages_at(cluster: PrivateCluster, node: int, name: str) -> int | None:
    """How many messages of a store a server has, by itself."""
    told = cluster.monitored(node, "jsz?accounts=true&streams=true")
    return next(
        (
            stream["state"]["messages"]
            for account in told.get("account_details", [])
            for stream in account.get("stream_detail", [])
            if stream["name"] == name
        ),
        None,
    )


class Writer:
    """A program that writes on and on, and notes what it was acknowledged. Nothing may fail."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.acknowledged: list[int] = []
        self.error: BaseException | None = None
        self._is_over = threading.Event()
        self._has_more = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        try:
            with open_store(self._url) as store:
                for number in count(1):
                    if self._is_over.is_set():
                        return
                    event = Draft("made", number)
                    # The two are written together or not at all.
                    answer = store.run(transact(Append("own", (event,), number - 1), KvPut("own/newest", number)))
                    assert not isinstance(answer, Conflict), answer
                    with self._has_more:
                        self.acknowledged.append(number)
                        self._has_more.notify()
        except BaseException as error:
            with self._has_more:
                self.error = error
                self._has_more.notify()

    def __enter__(self) -> "Writer":
        self._thread.start()
        self.wait_for_more()
        return self

    def wait_for_more(self) -> None:
        """Return once it was acknowledged three more, or has failed."""
        with self._has_more:
            wanted = len(self.acknowledged) + 3
            assert self._has_more.wait_for(
                lambda: self.error is not None or len(self.acknowledged) >= wanted, PATIENCE_SECONDS
            )

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error

    def assert_all_is_there(self, store: Store) -> None:
        assert [event.data for event in store.run(log.read("own"))] == self.acknowledged
        assert store.run(kv.get("own/newest")) == self.acknowledged[-1]


def fill(store: Store) -> None:
    """Something of everything that a store keeps."""
    for number in range(40):
        store.run(log.append_many(f"orders/{number % 4}", [Draft("placed", number, meta={"by": "me"})] * 3))
        store.run(kv.put(f"key/{number % 7}", [number, b"\x00" * 1_000]))
    store.run(log.truncate_through("orders/1", 5))
    store.run(log.truncate_through("orders/2", 1_000))
    store.run(log.begin("later", 41))
    store.run(kv.delete("key/3"))
    store.run(log.advance(5_000, 5_000))
    store.run(log.append_once("orders/1", "once", "paid", 5))


def all_of_it(store: Store) -> Any:
    """All that is kept, with positions and revisions."""
    holes = [store.run(log.page_all(prefix=name)).hole for name in store.run(log.streams())]
    return store.run(log.read_all()), holes, store.run(kv.entries()), read_model(store)


# A server is lost


def test_a_server_that_lost_its_disk_comes_back_empty_under_its_name_and_gets_all_again(cluster):
    url = cluster.url("app", replicas=3)
    with open_store(url) as store, Writer(url) as writer:
        fill(store)
        expected = all_of_it_but_the_writers(store)
        leader, _ = peers_of(cluster, 0, "app")
        lost = next(node for node in range(3) if f"n{node}" != leader)
        cluster.kill(lost)
        cluster.empty(lost)
        writer.wait_for_more()
        cluster.start(lost)
        until(lambda: is_whole(cluster, lost, "app", {"n0", "n1", "n2"}))
        writer.wait_for_more()
        assert all_of_it_but_the_writers(store) == expected
        writer.__exit__()
        writer.assert_all_is_there(store)
        until(lambda: len({messages_at(cluster, node, "app") for node in range(3)}) == 1)


def all_of_it_but_the_writers(store: Store) -> Any:
    events = [event for event in store.run(log.read_all()) if event.stream != "own"]
    return events, [pair for pair in store.run(kv.entries()) if pair[0] != "own/newest"]


def test_a_server_that_is_lost_for_good_is_removed_and_a_new_one_takes_its_place(cluster):
    url = cluster.url("app", replicas=3)
    with open_store(url) as store, Writer(url) as writer:
        fill(store)
        expected = all_of_it_but_the_writers(store)
        leader, _ = peers_of(cluster, 0, "app")
        lost = next(node for node in range(3) if f"n{node}" != leader)
        left = {f"n{node}" for node in range(3)} - {f"n{lost}"}
        cluster.kill(lost)
        new = cluster.add()
        node = int(leader[1:])
        removed = asked(cluster, node, "$JS.API.SERVER.REMOVE", {"peer": f"n{lost}"}, **SYSTEM)
        assert removed["success"], removed
        until(lambda: is_whole(cluster, node, "app", {*left, f"n{new}"}))
        writer.wait_for_more()
        assert all_of_it_but_the_writers(store) == expected
        writer.__exit__()
        writer.assert_all_is_there(store)
        servers = [int(name[1:]) for name in left] + [new]
        until(lambda: len({messages_at(cluster, each, "app") for each in servers}) == 1)


def test_what_a_lost_server_followed_for_a_store_is_made_up_for_by_another_one():
    url = new_store_url(1, timeout=10)
    name = url.rpartition("/")[2].partition("?")[0]
    with open_store(url) as store, open_store(url) as other:
        store.run(log.append("orders/1", "placed", 1))
        assert (store.run(log.head()), store.run(kv.keys())) == (other.run(log.head()), [])
        # They are in the memory of one server. Here they are lost, and the server stays.
        consumers = asked(own_cluster(1), 0, f"$JS.API.CONSUMER.NAMES.{name}", {})["consumers"]
        assert len(consumers) >= 3
        for each in consumers:
            assert asked(own_cluster(1), 0, f"$JS.API.CONSUMER.DELETE.{name}.{each}")["success"]
        event = other.run(log.append("orders/2", "placed", 2))
        other.run(kv.put("color", "red"))
        assert store.run(log.wait(event.position - 1, "orders/2", timeout=PATIENCE_SECONDS)) == event.position
        assert [each.data for each in store.run(log.read_all())] == [1, 2]
        assert store.run(kv.keys()) == ["color"]


# Servers are full, or do not know yet who leads


def test_a_store_that_is_full_has_all_that_it_acknowledged_and_goes_on_once_its_server_may_take_more():
    with PrivateCluster() as alone:
        path = alone.directory / "0.conf"
        configured = path.read_text()

        def limit_to(size: str) -> None:
            path.write_text(configured.replace("jetstream {", f"jetstream {{\n  max_file_store: {size}"))

        limit_to("10MB")
        alone.end()
        alone.start()
        with open_store(alone.url("app")) as store:
            acknowledged: list[int] = []
            with pytest.raises(StoreUnavailable, match="insufficient resources"):
                append_megabytes(store, acknowledged)
            limit_to("100MB")
            alone.signal(signal.SIGHUP, 0)
            # The signal is seen to when the server has the time.
            until(lambda: is_answered(store))
            assert [event.data[0] for event in store.run(log.read("s"))] == acknowledged
            store.run(log.truncate_through("s", len(acknowledged)))
            assert store.run(log.append("s", "made", None)).seq == len(acknowledged) + 1


def is_answered(store: Store) -> bool:
    try:
        store.run(log.read("s"))
    except StoreUnavailable as error:
        if "insufficient resources" not in str(error):
            raise
        return False
    return True


def append_megabytes(store: Store, acknowledged: list[int]) -> None:
    for number in range(50):
        store.run(log.append("s", "made", [number, b"x" * 1_000_000]))
        acknowledged.append(number)


@pytest.mark.parametrize(
    "error",
    [
        Unanswered("nobody leads it now", is_sent=False),
        Refused({"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}),
    ],
    ids=["no answer", "another time"],
)
def test_a_store_is_opened_though_its_servers_do_not_know_yet_who_leads(error, monkeypatch):
    api, left = JetStream.api, [3]

    async def api_later(self: JetStream, *arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return await api(self, *arguments, **more)

    monkeypatch.setattr(JetStream, "api", api_later)
    with open_store(new_store_url(1)) as store:
        assert left[0] < 0
        assert store.run(log.append("s", "made", 1)).seq == 1


# Servers are changed


def test_a_program_that_writes_notices_nothing_of_a_rolling_restart(cluster):
    url = cluster.url("app", replicas=3)
    with Writer(url) as writer:
        for node in range(3):
            cluster.end(node)
            writer.wait_for_more()
            cluster.start(node)
            until(partial(is_whole, cluster, node, "app", {"n0", "n1", "n2"}))
            writer.wait_for_more()
    with open_store(url) as store:
        writer.assert_all_is_there(store)


def test_a_store_on_one_server_is_kept_on_three_from_then_on(cluster):
    url = cluster.url("app")
    with open_store(url) as store, Writer(url) as writer:
        fill(store)
        expected = all_of_it_but_the_writers(store)
        config = asked(cluster, 0, "$JS.API.STREAM.INFO.app")["config"]
        assert config["num_replicas"] == 1
        changed = asked(cluster, 0, "$JS.API.STREAM.UPDATE.app", {**config, "num_replicas": 3})
        assert "error" not in changed, changed
        until(lambda: is_whole(cluster, 0, "app", {"n0", "n1", "n2"}))
        writer.wait_for_more()
        leader, _ = peers_of(cluster, 0, "app")
        cluster.end(int(leader[1:]))
        writer.wait_for_more()
        assert all_of_it_but_the_writers(store) == expected
        writer.__exit__()
        writer.assert_all_is_there(store)
    cluster.start(int(leader[1:]))
    with open_store(cluster.url("app", replicas=3)) as store:
        writer.assert_all_is_there(store)


# Backups


@contextmanager
def saved(url: str, size: int) -> Iterator[io.BytesIO]:
    """A snapshot of a store on the servers that tests share."""
    file = io.BytesIO()
    name = url.rpartition("/")[2].partition("?")[0]
    written = with_client(own_cluster(size), 0, lambda client: save(client, name, file))
    assert written == len(file.getvalue())
    file.seek(0)
    yield file


def put_back(file: io.BytesIO, size: int, replicas: int | None) -> Store:
    name = with_client(own_cluster(size), 0, lambda client: restore(client, file, replicas))
    return open_store(own_cluster(size).url(name, batch_messages=BATCH_MESSAGES))


@pytest.mark.parametrize(("size", "new_size"), [(1, 3), (3, 1)])
def test_a_store_that_was_saved_is_put_back_elsewhere_with_all_its_numbers(size, new_size):
    url = new_store_url(size)
    with open_store(url) as store:
        fill(store)
        expected = all_of_it(store)
        with saved(url, size) as file:
            pass
        position, revision = store.run(log.append("orders/0", "placed", 1)).position, store.run(kv.put("key/1", 1))
    with put_back(file, new_size, new_size) as again:
        assert all_of_it(again) == expected
        # What comes next has the numbers that it would have had, or higher ones.
        assert again.run(log.append("orders/0", "placed", 1)).position >= position
        assert again.run(kv.put("key/1", 1)) >= revision
        with saved(url, size) as newer, pytest.raises(StoreUnavailable, match="RESTORE"):
            put_back(newer, new_size, new_size)


class Unheard:
    """A client of a server that is slow to hear of those who listen elsewhere: so many of its requests find nobody."""

    def __init__(self, client: Any, subject: str, count: float) -> None:
        self._client, self._subject, self.count = client, subject, count

    async def request(self, subject: str, *args: Any, **options: Any) -> Any:
        if subject.startswith(self._subject) and self.count > 0:
            self.count -= 1
            raise NoRespondersError
        return await self._client.request(subject, *args, **options)


def test_a_store_is_put_back_where_the_other_servers_hear_late_which_one_takes_it():
    url = new_store_url(1)
    with open_store(url) as store:
        fill(store)
        expected = all_of_it(store)
    unheard = []

    def put_back_late(client: Any) -> Any:
        unheard.append(Unheard(client, "$JS.SNAPSHOT.RESTORE.", 3))
        return restore(unheard[0], file, 3)

    with saved(url, 1) as file:
        name = with_client(own_cluster(3), 0, put_back_late)
    assert unheard[0].count == 0
    with open_store(own_cluster(3).url(name, batch_messages=BATCH_MESSAGES)) as again:
        assert all_of_it(again) == expected


@pytest.mark.parametrize("subject", ["$JS.SNAPSHOT.RESTORE.", "$JS.API.STREAM.RESTORE."])
def test_who_puts_a_store_back_where_nobody_listens_is_told(subject, monkeypatch):
    url = new_store_url(1)
    with open_store(url) as store:
        fill(store)

    # Each time that it is looked at a minute has gone by.
    monkeypatch.setattr(snapshots, "time", SimpleNamespace(monotonic=partial(next, count(0, 60))))
    with saved(url, 1) as file, pytest.raises(StoreUnavailable, match="no server listens there"):
        with_client(own_cluster(3), 0, lambda client: restore(Unheard(client, subject, inf), file, 3))


class Interposed(io.BytesIO):
    """A file in whose first chunk something else is done."""

    def __init__(self, use: Callable[[], object]) -> None:
        super().__init__()
        self._use = use
        self._writes = 0

    def write(self, data: Any, /) -> int:
        self._writes += 1
        if self._writes == 2:
            self._use()
        return super().write(data)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    "program",
    [lambda: kv.put("color", "blue"), lambda: log.append("orders/0", "placed", 1), log.read_all],
    ids=["a put", "an append", "a read over all streams"],
)
def test_a_store_that_is_written_while_it_is_saved_is_told_to_be_saved_again(size, program):
    url = new_store_url(size)
    name = url.rpartition("/")[2].partition("?")[0]
    with open_store(url) as store:
        store.run(kv.put("color", "red"))
        file = Interposed(lambda: store.run(program()))
        with pytest.raises(StoreUnavailable, match="was written to while it was saved"):
            with_client(own_cluster(size), 0, lambda client: save(client, name, file))


def test_a_file_that_is_no_snapshot_and_a_damaged_one_are_refused_and_nothing_is_left():
    url = new_store_url(1)
    with open_store(url) as store:
        fill(store)
    with saved(url, 1) as file:
        head, _, body = file.getvalue().partition(b"\n")
    newer = head.replace(b'"version": 1', b'"version": 2') + b"\n"
    for text in (b"", b"nonsense\n", b'{"format": "another"}\n', newer):
        with pytest.raises(InvalidRequest, match="not a file that `save` wrote"):
            put_back(io.BytesIO(text), 3, 1)
    for damaged in (body[: len(body) // 2], bytes(len(body))):
        with pytest.raises(CorruptStore, match="cannot be put back"):
            put_back(io.BytesIO(head + b"\n" + damaged), 3, 1)
    with put_back(io.BytesIO(head + b"\n" + body), 3, 1) as again:
        assert len(again.run(log.read("orders/0"))) == 30


def test_a_store_is_kept_as_a_file_store_which_is_verified_and_put_back(tmp_path: Path):
    url, new_url = new_store_url(3), new_store_url(1)
    with open_store(url) as store:
        fill(store)
        expected = read_model(store)
    kept = f"file:{tmp_path}/kept"
    for arguments in (["migrate", url, kept], ["verify", kept], ["migrate", kept, new_url]):
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
    with open_store(new_url) as again:
        assert read_model(again) == expected
