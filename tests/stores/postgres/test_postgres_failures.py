"""The store on PostgreSQL where it really fails: servers and processes that die, connections that are cut, forks.

A write ends in one of three ways. An answer: it is there, for good. `StoreUnavailable`: nothing of it is there.
`UncertainOutcome`: it is there whole or not at all, and ``log.append_once`` settles which.

``POSTGRES_KILL_ROUNDS`` says how often servers and processes die; ``POSTGRES_CUT_STEP``, after how many bytes more a
connection is cut.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from postgres_server import QUIET, new_schema, own_server

from interpreters import Store, open_store
from interpreters.stores.postgres.batches import bucket_of
from interpreters.stores.postgres.private_server import PrivateServer, binaries
from persist_effects import Conflict, Sql, StoreUnavailable, UncertainOutcome, kv, log, transact
from persist_effects.machine import perform
from persist_effects.requests import Append, KvPut, Request, Transact

pytestmark = pytest.mark.exploration

ROUNDS = int(os.environ.get("POSTGRES_KILL_ROUNDS", "3"))
CUT_STEP = int(os.environ.get("POSTGRES_CUT_STEP", "0"))
PATIENCE_SECONDS = 120
"""Nothing here takes so long, however busy the machine is: who waits so long, waits for ever."""

CHILD = Path(__file__).with_name("postgres_child.py")


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """A server that may be killed, as nobody else uses it."""
    if binaries() is None:
        own_server()  # which skips
    private = PrivateServer(settings=QUIET)
    yield private
    private.stop()


def data_of(store: Store, stream: str) -> list[Any]:
    return [event.data for event in store.run(log.read(stream))]


def outcome_of(store: Store, request: Request[Any]) -> Any:
    """What a request is answered; or the class of the error."""
    try:
        return store.run(perform(request))
    except (StoreUnavailable, UncertainOutcome) as error:
        return type(error)


def once(stream: str, number: int) -> Request[Any]:
    """The write that `append_once` begins with."""
    return next(log.append_once(stream, str(number), "made", number))


def settled(store: Store, stream: str, number: int) -> Any:
    return store.run(log.append_once(stream, str(number), "made", number))


@contextmanager
def administrator(server: PrivateServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(host=str(server.directory), user="postgres", dbname="postgres", autocommit=True) as connection:
        yield connection


def terminate(server: PrivateServer) -> None:
    """End all connections but the administrator's, and return when they are gone."""
    with administrator(server) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid, 60000) {OTHERS}")


OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def kill(server: PrivateServer) -> None:
    server.kill()
    server.start()


def crash(server: PrivateServer) -> None:
    """Kill one of its processes, after which it ends all others and starts itself anew; return when it has."""
    with administrator(server) as connection, suppress(psycopg.OperationalError):
        ((victim,),) = connection.execute(f"SELECT pid {OTHERS} LIMIT 1").fetchall()
        os.kill(victim, signal.SIGKILL)
        connection.execute("SELECT pg_sleep(%s)", [PATIENCE_SECONDS])
        raise AssertionError("the server has not noticed it")
    wait_for_row(server, "SELECT")


BLOWS: dict[str, Callable[[PrivateServer], None]] = {
    "crashed": crash,
    "killed": kill,
    "restarted": PrivateServer.restart,
    "terminated": terminate,
}


# Under load


class _Load:
    """Threads that write through one store, each to a stream of its own, while its server is struck.

    Each number is settled before the next one is begun. So a stream is right if it has all of them in order.
    """

    def __init__(self, store: Store, names: str) -> None:
        self.store = store
        self.begun = dict.fromkeys(names, 0)
        self.met = set[type]()
        self.is_up = threading.Event()
        self.is_up.set()
        self._is_over = False
        self._acknowledged = Counter[str]()
        self.last = dict.fromkeys(names)
        self._change = threading.Condition()
        self._pool = ThreadPoolExecutor(len(names))
        self._threads = [self._pool.submit(self._write_all, name) for name in names]

    def wait_for(self, count: int) -> None:
        """Wait until each thread has so many more acknowledged; what went wrong in one is raised."""
        with self._change:
            wanted = {name: self._acknowledged[name] + count for name in self.begun}
            assert self._change.wait_for(
                lambda: self._is_over or all(self._acknowledged[name] >= wanted[name] for name in wanted),
                PATIENCE_SECONDS,
            ), f"of {wanted} there are {self._acknowledged}"
        if self._is_over:
            self.end()

    def end(self) -> None:
        self._is_over = True
        self.is_up.set()
        for thread in self._threads:
            thread.result(PATIENCE_SECONDS)
        self._pool.shutdown()

    def _write_all(self, name: str) -> None:
        try:
            while not self._is_over:
                self._write(name, self.begun[name])
        finally:
            with self._change:
                # Nobody waits for a thread that has failed.
                self._is_over = self._is_over or sys.exc_info()[0] is not None
                self._change.notify_all()

    def _write(self, name: str, number: int) -> None:
        self.begun[name] = number + 1
        outcome = outcome_of(self.store, once(f"own/{name}", number))
        if isinstance(outcome, type):
            self._meet(outcome)
            if outcome is StoreUnavailable:
                assert self.store.run(log.last_seq(f"own/{name}")) == number, f"{name} {number} was written"
            settled(self.store, f"own/{name}", number)
        if number % 3 == 0:
            self._put(name, number)
        with self._change:
            self._acknowledged[name] += 1
            self._change.notify_all()

    def _put(self, name: str, number: int) -> None:
        outcome = outcome_of(self.store, KvPut(f"last/{name}", number))
        before, self.last[name] = self.last[name], number
        if isinstance(outcome, type):
            self._meet(outcome)
            self.last[name] = self.store.run(kv.get(f"last/{name}"))
            possible = {before} if outcome is StoreUnavailable else {before, number}
            assert self.last[name] in possible, f"last/{name} after {outcome}"

    def _meet(self, error: type) -> None:
        self.met.add(error)
        assert self.is_up.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("blow", sorted(BLOWS))
def test_a_store_whose_server_is_struck_under_load_loses_and_doubles_nothing_and_goes_on_by_itself(server, blow):
    random = Random(blow)
    url = server.url(new_schema())
    with open_store(url) as store:
        load = _Load(store, "abcd")
        try:
            rounds = 0
            # Where the server is there again at once, it may be that nobody meets anything.
            while rounds < ROUNDS or (not load.met and rounds < 50 * ROUNDS):
                rounds += 1
                load.wait_for(random.randrange(5, 40))
                load.is_up.clear()
                BLOWS[blow](server)
                load.is_up.set()
                # All of them come through, each beyond what it was at.
                load.wait_for(2)
        finally:
            load.end()
        assert load.met
    with open_store(url) as store:
        for name, begun in load.begun.items():
            assert data_of(store, f"own/{name}") == list(range(begun)), f"own/{name} after {load.met}"
            assert store.run(kv.get(f"last/{name}")) == load.last[name]
        positions = [event.position for event in store.run(log.read_all())]
        assert positions == sorted(set(positions))
        assert len(positions) == sum(load.begun.values())


# While it is idle


@pytest.mark.parametrize("blow", sorted(BLOWS))
def test_a_store_that_was_idle_when_its_server_was_struck_reads_and_writes_on_as_if_nothing_had_been(server, blow):
    with open_store(server.url(new_schema())) as store, ThreadPoolExecutor(8) as pool:
        for number in range(ROUNDS):
            # Several connections, which all are lost.
            list(pool.map(store.run, [log.last_seq("s") for _ in range(64)]))
            assert store.run(log.append("s", "made", number)).seq == number + 1
            BLOWS[blow](server)
            if number % 2:
                store.run(kv.put("k", number))
            assert store.run(log.last_seq("s")) == number + 1
        assert store.run(log.append("s", "made", ROUNDS)).seq == ROUNDS + 1
        assert data_of(store, "s") == list(range(ROUNDS + 1))


@pytest.mark.parametrize("blow", sorted(BLOWS))
def test_who_waits_while_the_server_is_struck_is_woken_by_a_later_write_of_another_store(server, blow):
    schema = new_schema()
    with (
        open_store(server.url(schema, application_name="of events")) as of_events,
        open_store(server.url(schema, application_name="of keys")) as of_keys,
        open_store(server.url(schema)) as writing,
        ThreadPoolExecutor() as pool,
    ):
        is_up = threading.Event()
        waits = [
            pool.submit(waited, of_events, log.wait, "s/", is_up, blow),
            pool.submit(waited, of_keys, kv.wait, "k/", is_up, blow),
        ]
        try:
            for application in ("of events", "of keys"):
                wait_for_waiter(server, application)
            BLOWS[blow](server)
        finally:
            is_up.set()
        event = writing.run(log.append("s/1", "made", 1))
        revision = writing.run(kv.put("k/1", 1))
        assert [each.result(PATIENCE_SECONDS) for each in waits] == [event.position, revision]


def waited(store: Store, wait: Callable[..., Any], prefix: str, is_up: threading.Event, blow: str) -> int:
    """What a wait is answered. Who looks while there is no server is told so, and waits again."""
    try:
        return store.run(wait(0, prefix, timeout=PATIENCE_SECONDS))
    except StoreUnavailable:
        assert blow != "terminated", "there was a server all the time"
        assert is_up.wait(PATIENCE_SECONDS)
        return store.run(wait(0, prefix, timeout=PATIENCE_SECONDS))


def wait_for_waiter(server: PrivateServer, application: str) -> None:
    """Return when a store has begun to listen, and then has found nothing that it waits for."""
    connections = f"FROM pg_stat_activity WHERE application_name = '{application}'"
    wait_for_row(
        server,
        "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4294967295 AND granted "
        f"AND pid IN (SELECT pid {connections})",
    )
    wait_for_row(server, f"SELECT {connections} AND state = 'idle' AND query ~ 'newest_(position|revision)'")


def wait_for_row(server: PrivateServer, query: str) -> None:
    """Return when a question has an answer."""
    for _ in range(100 * PATIENCE_SECONDS):
        with suppress(psycopg.OperationalError), administrator(server) as connection:
            if connection.execute(query).fetchall():
                return
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(f"nothing is found by: {query}")


# Cut connections

TO_SERVER, FROM_SERVER = "to the server", "from the server"
EVERYTHING = 1 << 62


class _Proxy:
    """Stands between a store and its server, and cuts a connection once so many bytes have passed in one direction.

    One thread forwards all. What was cut on the side of the client stays connected to the server until that one has
    noticed: from then on, nothing is in flight.
    """

    def __init__(self, real: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="persist-effects-proxy-"))
        self.left = EVERYTHING
        self.over = threading.Event()
        self._direction = TO_SERVER
        self._real = str(real / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.directory / ".s.PGSQL.5432"))
        self._listener.listen()
        self._ending, self._ended = socket.socketpair()
        # From each side of a connection: the other side, and in which direction this one sends; None: it was cut.
        self._sides: dict[socket.socket, tuple[socket.socket, str] | None] = {}
        self._thread = threading.Thread(target=self._forward_all)
        self._thread.start()

    def __enter__(self) -> "_Proxy":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ending.send(b"\0")
        self._thread.join()
        for each in (*self._sides, self._listener, self._ending, self._ended):
            each.close()
        shutil.rmtree(self.directory)

    def arm(self, direction: str, count: int) -> None:
        """Cut a connection when so many bytes more have passed; with 0, when the next ones come."""
        self.over.clear()
        self._direction, self.left = direction, count

    def _forward_all(self) -> None:
        while True:
            readable, _, _ = select.select([self._ended, self._listener, *self._sides], [], [])
            if self._ended in readable:
                return
            for each in readable:
                if each is self._listener:
                    self._accept()
                elif each in self._sides:
                    self._forward(each)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._real)
        except OSError:
            client.close()
            server.close()
            return
        self._sides[client] = (server, TO_SERVER)
        self._sides[server] = (client, FROM_SERVER)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
        except ConnectionError:
            data = b""
        sides = self._sides[source]
        if sides is None:
            if not data:
                self._drop(source)
                self.over.set()
            return
        other, direction = sides
        if not data:
            self._drop(source)
            self._drop(other)
            return
        is_armed = direction == self._direction
        if is_armed:
            data = data[: self.left]
            self.left -= len(data)
        try:
            other.sendall(data)
        except ConnectionError:
            return  # its end is noticed when it is read
        if is_armed and not self.left:
            self.left = EVERYTHING
            self._cut(*((source, other) if direction == TO_SERVER else (other, source)))

    def _cut(self, client: socket.socket, server: socket.socket) -> None:
        self._drop(client)
        self._sides[server] = None
        server.shutdown(socket.SHUT_WR)

    def _drop(self, side: socket.socket) -> None:
        del self._sides[side]
        side.close()


def an_append(number: int) -> Request[Any]:
    return Append(f"s/{number}", once(f"s/{number}", number).writes[0].events, 0)


def a_batch(number: int) -> Request[Any]:
    return once(f"s/{number}", number)


def with_a_row(number: int) -> Transact:
    row = Sql("INSERT INTO rows_of_cuts VALUES (:number)", {"number": number})
    return Transact((*once(f"s/{number}", number).writes, row))


def again_append(store: Store, number: int) -> None:
    """It says whether it was written: by an answer or a conflict."""
    answer = store.run(perform(an_append(number)))
    assert not isinstance(answer, Conflict) or answer.actual == 1


def again_batch(store: Store, number: int) -> None:
    assert settled(store, f"s/{number}", number).seq == 1


def again_with_a_row(store: Store, number: int) -> None:
    """The row is there as often as the event."""
    assert type(store.run(perform(with_a_row(number)))) in {list, Conflict}
    found = Sql("UPDATE rows_of_cuts SET number = number WHERE number = :number", {"number": number})
    assert store.run(transact(found)) == [1]


WITH_SQL = "a batch with SQL"
WRITES = {
    "an append": (an_append, again_append),
    "a batch": (a_batch, again_batch),
    WITH_SQL: (with_a_row, again_with_a_row),
}

ANSWERED, UNAVAILABLE = ("an answer", 1), (StoreUnavailable, 0)
UNWRITTEN, WRITTEN = (UncertainOutcome, 0), (UncertainOutcome, 1)
CUTS = {
    # While it is asked over a connection that is there; and from the first byte of a new one on.
    ("there", TO_SERVER): (9, {UNWRITTEN, WRITTEN}),
    ("there", FROM_SERVER): (5, {WRITTEN, ANSWERED}),
    ("new", TO_SERVER): (37, {UNAVAILABLE, UNWRITTEN, WRITTEN}),
    ("new", FROM_SERVER): (7, {UNAVAILABLE, UNWRITTEN, WRITTEN, ANSWERED}),
}
"""Of each way to cut: how many bytes lie between two cuts, and what must occur."""

OCCUR_WITH_SQL = {
    TO_SERVER: {UNAVAILABLE, UNWRITTEN, WRITTEN},
    FROM_SERVER: {UNAVAILABLE, WRITTEN, ANSWERED},
}
"""Its commit is sent by itself, once all before it was answered: until then it is known that nothing was written."""


@pytest.mark.parametrize(("connection", "direction"), CUTS)
@pytest.mark.parametrize("kind", WRITES)
def test_a_connection_that_is_cut_after_any_byte_leaves_a_write_whole_or_not_there(server, kind, connection, direction):
    step, must_occur = CUTS[connection, direction]
    schema = new_schema()
    with (
        _Proxy(server.directory) as proxy,
        open_store(server.url(schema).replace(*in_url(server.directory, proxy.directory))) as store,
        open_store(server.url(schema)) as direct,
    ):
        direct.run(transact(Sql("CREATE TABLE IF NOT EXISTS rows_of_cuts (number bigint)")))
        direct.run(transact(Sql("DELETE FROM rows_of_cuts")))
        cuts = _Cuts(proxy, store, direct, kind, is_new=connection == "new")
        length = cuts.length(direction)
        counts = sorted({*range(0, length, CUT_STEP or step), length - 1, length})
        occurred = {cuts.cut(direction, count) for count in counts}
    assert occurred == (OCCUR_WITH_SQL[direction] if kind == WITH_SQL else must_occur), f"of {length} bytes {direction}"


def in_url(*directories: Path) -> tuple[str, ...]:
    return tuple(str(directory).replace("/", "%2F") for directory in directories)


def is_as_long_as_others(number: int) -> bool:
    """Whether a write takes as many bytes as most do: the numbers of its locks are sent in decimals."""
    append, put = a_batch(number).writes
    return all(100 <= bucket < 1000 for bucket in (bucket_of(append.stream), bucket_of(put.key, is_key=True)))


class _Cuts:
    """Writes over connections that are cut.

    Args:
        proxy: Cuts them.
        store: Writes through the proxy.
        direct: The same store, without.
        kind: What is written.
        is_new: Whether a connection is cut from its first byte on; else, from that of the write.
    """

    def __init__(self, proxy: _Proxy, store: Store, direct: Store, kind: str, *, is_new: bool) -> None:
        self._proxy, self._store, self._direct = proxy, store, direct
        self._request, self._again = WRITES[kind]
        self._is_new = is_new
        self._numbers = filter(is_as_long_as_others, count(1000))
        self._number = next(self._numbers)

    def length(self, direction: str) -> int:
        """How many bytes a write takes."""
        self._proxy.arm(direction, EVERYTHING)
        if self._is_new:
            self._lose_connection()
        self._prepare()
        self._proxy.arm(direction, EVERYTHING)
        assert self._write() == "an answer"
        return EVERYTHING - self._proxy.left

    def cut(self, direction: str, count: int) -> tuple[Any, int]:
        """The outcome of a write whose connection is cut, and how many events there are of it."""
        self._prepare()
        number = self._number
        self._proxy.arm(direction, count)
        outcome = self._write()
        assert self._proxy.over.wait(PATIENCE_SECONDS), f"{count} bytes {direction} have never passed"
        stream, where = f"s/{number}", f"after {count} bytes {direction}: {outcome}"
        there = self._direct.run(log.last_seq(stream))
        self._again(self._direct, number)
        assert data_of(self._direct, stream) == [number], where
        return outcome, there

    def _prepare(self) -> None:
        self._number = next(self._numbers)
        if not self._is_new:
            # The same write, so that the server knows it.
            self._proxy.arm(TO_SERVER, EVERYTHING)
            assert self._write() == "an answer"
            self._number = next(self._numbers)

    def _write(self) -> Any:
        outcome = outcome_of(self._store, self._request(self._number))
        return outcome if isinstance(outcome, type) else "an answer"

    def _lose_connection(self) -> None:
        self._prepare()
        self._proxy.arm(TO_SERVER, 0)
        self._write()
        assert self._proxy.over.wait(PATIENCE_SECONDS)


# Processes


class _Child:
    """A process with the store open. It says by lines what it has done."""

    def __init__(self, url: str, *arguments: str) -> None:
        command = [sys.executable, str(CHILD), url, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        line = self.process.stdout.readline()
        assert line.endswith("\n"), f"it ended with {self.process.wait(PATIENCE_SECONDS)}: run {self.process.args}"
        return line.strip()

    def rest(self) -> list[str]:
        """What else it says until its end; a line that was cut is no word."""
        lines = self.process.stdout.read().splitlines(keepends=True)
        self.process.wait(PATIENCE_SECONDS)
        self.process.stdout.close()
        return [line.strip() for line in lines if line.endswith("\n")]


def test_of_processes_that_write_at_once_and_are_killed_one_by_one_nothing_acknowledged_is_lost(server):
    random, names = Random(1), "abcd"
    url = server.url(new_schema())
    acknowledged = dict.fromkeys(names, -1)
    kills = Counter[str]()
    children = {name: _Child(url, "write", name) for name in names}
    try:
        for number in range(ROUNDS + 1):
            for name, child in children.items():
                for _ in range(random.randrange(1, 12)):
                    acknowledged[name] = int(child.line())
            name = names[number % len(names)]
            kills[name] += 1
            children[name].process.kill()
            acknowledged[name] = max([acknowledged[name], *map(int, children[name].rest())])
            children[name] = _Child(url, "write", name)
    finally:
        for name, child in children.items():
            child.process.kill()
            acknowledged[name] = max([acknowledged[name], *map(int, child.rest())])
    wait_for_the_end(server)
    with open_store(url) as store:
        check_streams(store, acknowledged, kills)


def wait_for_the_end(server: PrivateServer) -> None:
    """Return when the server has noticed that all its clients are gone."""
    wait_for_row(server, f"SELECT WHERE NOT EXISTS (SELECT {OTHERS})")


def check_streams(store: Store, acknowledged: dict[str, int], kills: Counter[str]) -> None:
    everything = store.run(log.read("all"))
    owns = {name: store.run(log.read(f"own/{name}")) for name in acknowledged}
    for name, own in owns.items():
        numbers = [event.data for event in own]
        assert numbers == list(range(len(own)))
        # Each kill may have come between a commit and the word of it.
        assert acknowledged[name] < len(own) <= acknowledged[name] + 2 + kills[name]
        assert [number for of, number in (event.data for event in everything) if of == name] == numbers
        assert store.run(kv.get(f"last/{name}")) == numbers[-1]
    for events in (everything, *owns.values()):
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        positions = [event.position for event in events]
        assert positions == sorted(set(positions))
    assert len(store.run(log.read_all())) == 2 * len(everything)


def test_a_child_of_a_fork_goes_on_with_connections_of_its_own_and_its_parent_too(server):
    url = server.url(new_schema())
    assert _Child(url, "fork").rest() == ["child", "waited for", "parent"]
    with open_store(url) as store:
        assert Counter(data_of(store, "s")) == Counter(["before", "child", "parent", "after"])
        assert data_of(store, "s")[::3] == ["before", "after"]
        assert [store.run(kv.get(f"k/{name}")) for name in ("child", "parent")] == [1, 1]


def test_forks_while_a_thread_writes_lose_and_double_nothing(server):
    url = server.url(new_schema())
    said = _Child(url, "fork-under-load", str(ROUNDS)).rest()
    count = json.loads(said[-1])
    with open_store(url) as store:
        assert data_of(store, "thread") == list(range(count))
        for number in range(ROUNDS):
            assert data_of(store, f"child/{number}") == list(range(10))


def test_ctrl_c_in_the_middle_of_a_write_leaves_a_store_that_goes_on(server):
    random = Random(2)
    url = server.url(new_schema())
    child = _Child(url, "interrupted")
    acknowledged = -1
    for _ in range(5 * ROUNDS):
        for _ in range(random.randrange(1, 6)):
            acknowledged = int(child.line())
        child.process.send_signal(signal.SIGINT)
        while (line := child.line()) != "interrupted":
            acknowledged = int(line)
    # It goes on after the last one too. Where it was interrupted after it had said a number, it says that again.
    wanted = acknowledged + 5
    while acknowledged < wanted:
        number = int(child.line())
        assert number - acknowledged in {0, 1}
        acknowledged = number
    child.process.send_signal(signal.SIGTERM)
    *numbers, everything = child.rest()
    acknowledged = max(acknowledged, *map(int, numbers), 0)
    assert json.loads(everything) == list(range(acknowledged + 1))
    assert child.process.returncode == 0
    with open_store(url) as store:
        assert data_of(store, "s") == list(range(acknowledged + 1))
