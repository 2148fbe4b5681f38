"""The server: many clients share it, hostile ones are dropped, and only those may connect who may."""

import logging
import math
import os
import resource
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from certificates import self_signed
from served_stores import PATIENCE_SECONDS, running, serving, until

from interpreters import Store, open_store
from interpreters.stores.served.arriving import TOLD_BEYOND
from interpreters.stores.served.limits import ServingLimits
from interpreters.stores.served.listening import listen_at, tls_of
from interpreters.stores.served.opening import address_of
from interpreters.stores.served.server import StoreServer
from interpreters.stores.served.service import take_descriptors
from interpreters.stores.served.wire import WIRE_VERSION, frame_of
from persist_effects import InvalidRequest, StoreUnavailable, kv, log, perform
from persist_effects.requests import Answered, KvGet, KvPut, KvWait, Read, Streams, Wait, at_once

HELLO = frame_of({"wire": WIRE_VERSION, "token": None})


@pytest.fixture
def behind():
    with open_store("memory:") as store:
        yield store


class Halting:
    """A store that commits only once it may, and notes how many writes each commit has."""

    def __init__(self, inner) -> None:
        self._inner = inner
        self.handlers = inner.handlers
        self.batches = []
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def answer_all(self, requests):
        self.batches.append(len(requests))
        self.begun.set()
        assert self.may_go_on.wait(PATIENCE_SECONDS)
        return [Answered(self.handlers[type(request)](request)) for request in requests]

    def close(self) -> None:
        self._inner.close()


class Sent:
    """Requests that were submitted to a store, and what comes of them."""

    def __init__(self, store, *requests) -> None:
        self.come = {}
        self._count = len(requests)
        self._all_there = threading.Event()
        store.interpreter.submit(requests, self._done)

    def _done(self, index, outcome) -> None:
        self.come[index] = outcome
        if len(self.come) == self._count:
            self._all_there.set()

    def outcomes(self):
        assert self._all_there.wait(PATIENCE_SECONDS)
        return [self.come[index] for index in range(self._count)]


def test_what_several_clients_write_while_the_store_is_busy_is_one_commit(tmp_path, behind):
    halting = Halting(behind.interpreter)
    with running(Store(halting), tmp_path / "sock") as server, ExitStack() as opened:
        clients = [opened.enter_context(open_store(server.where)) for _ in range(4)]
        first = Sent(clients[0], KvPut("first", 0))
        assert halting.begun.wait(PATIENCE_SECONDS)
        sent = [Sent(client, KvPut(f"a/{n}", n), KvPut(f"b/{n}", n)) for n, client in enumerate(clients)]
        for client in clients:
            # Answered behind what the same client has sent.
            client.interpreter.health()
        halting.may_go_on.set()
        assert all(isinstance(outcome, Answered) for one in [first, *sent] for outcome in one.outcomes())
        assert halting.batches == [1, 8]
        assert clients[0].interpreter.health()["commits"] == 2


def test_a_thousand_waits_take_no_thread_and_end_with_their_client(tmp_path, behind):
    with running(behind, tmp_path / "sock") as server, open_store(server.where) as other:
        before = threading.active_count()
        with open_store(server.where) as store:
            threads = threading.active_count()
            for _ in range(500):
                store.interpreter.watch(Wait(0), bool)
                store.interpreter.watch(KvWait(0, "k"), bool)
            until(lambda: other.interpreter.health()["waits"] == 1000)
            assert threading.active_count() == threads
        until(lambda: other.interpreter.health()["waits"] == 0)
        assert threading.active_count() <= before
        assert not behind.interpreter._watchers


def test_a_wait_that_is_told_of_nothing_ends_at_its_timeout(tmp_path, behind):
    with serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        assert store.run(perform(Wait(0, "", 0.01))) == 0
        assert store.run(perform(at_once(KvWait(0)))) == 0


# Ends


def test_a_server_that_is_told_to_end_before_it_runs_ends_at_once(tmp_path, behind):
    server = StoreServer(behind.interpreter, doors=[listen_at(f"unix:{tmp_path / 'sock'}")])
    server.stop()
    assert server.run() is None
    assert not (tmp_path / "sock").exists()
    server.stop()


def test_a_server_that_ends_answers_what_it_has_heard(tmp_path, behind):
    halting = Halting(behind.interpreter)
    with running(Store(halting), tmp_path / "sock") as server, open_store(server.where) as store:
        sent = Sent(store, KvPut("a", 1))
        assert halting.begun.wait(PATIENCE_SECONDS)
        server.stop()
        until(lambda: server._is_leaving)
        halting.may_go_on.set()
        assert sent.outcomes() == [Answered(1)]


def test_clients_go_on_with_the_next_server_at_the_same_place(tmp_path, behind):
    with serving(behind, tmp_path / "sock") as url:
        store = open_store(url)
        store.run(kv.put("a", 1))
        told = threading.Event()
        store.interpreter.watch(Wait(0), told.set)
    with store, serving(behind, tmp_path / "sock"):
        assert store.run(kv.get("a")) == 1
        store.run(log.append("s", "made", 1))
        assert told.wait(PATIENCE_SECONDS)


def test_a_client_that_does_not_take_its_answers_keeps_no_server_from_its_end(tmp_path, behind, caplog):
    behind.run(kv.put("large", "x" * 4_000_000))
    with running(behind, tmp_path / "sock", limits=ServingLimits(drain_seconds=0.05)) as server:
        silent = connected_to(server)
        silent.sendall(calls(*[{"op": "persist/kv-get", "key": "large"}] * 8))
        until(lambda: server.tally.request_count > 0)
        server.stop()
        until(lambda: "did not take its answers before the end" in caplog.text)
        silent.close()


# Hostile clients


def connected_to(server, *, hello=HELLO) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE_SECONDS)
    made.connect(server.where.removeprefix("unix:"))
    made.sendall(hello)
    if hello == HELLO:
        assert made.recv(65536)  # the greeting
    return made


def calls(*requests, first=1):
    return b"".join(frame_of([number, request]) for number, request in enumerate(requests, first))


def ended(made) -> bytes:
    """What the server has said until it closed."""
    said = b""
    with suppress(ConnectionResetError):
        while data := made.recv(65536):
            said += data
    made.close()
    return said


LIMITS = ServingLimits(
    frame_bytes=1_000_000, hello_seconds=0.2, frame_seconds=0.2, stalled_seconds=0.2, queue_bytes=65536
)
IDLE = 500
DEEP = b"\x92\x01" + b"\x91" * 10_000 + b"\xc0"
BEFORE_HELLO = {
    "garbage": (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "was announced"),
    "nothing": (b"", "no hello came within 0.2 s: this server speaks version 4"),
    "a part of a frame": (b"\x00\x00", "no hello came within 0.2 s"),
    "a length of 4 GiB": (b"\xff\xff\xff\xff" + b"x" * 100_000, "a frame of 4294967295 bytes was announced"),
    "what is no hello": (frame_of([1, 2]), "is not a hello of version 4 of the wire"),
    "what is deep": (len(DEEP).to_bytes(4, "big") + DEEP, "is not a hello"),
}
AFTER_HELLO = {
    "garbage": (b"\x00\x00\x00\x04junk", "is not a call"),
    "a length of 4 GiB": (b"\xff\xff\xff\xff" + b"x" * 100_000, "a frame of 4294967295 bytes was announced"),
    "a frame over the limit": ((1_000_001).to_bytes(4, "big"), "the limit is 1000000"),
    "a frame that does not end": (frame_of([1, {"op": "persist/streams"}])[:-3], "a frame was begun and did not end"),
    "what is deep": (len(DEEP).to_bytes(4, "big") + DEEP, "is not a call"),
    "an id twice": (calls({"op": "persist/streams"}) * 2, "call 1 came after call 1"),
}


@pytest.mark.parametrize("name", BEFORE_HELLO)
def test_who_says_no_hello_is_dropped_and_the_log_says_who_and_why(tmp_path, behind, caplog, name):
    said, message = BEFORE_HELLO[name]
    with running(behind, tmp_path / "sock", limits=LIMITS) as server, open_store(server.where) as store:
        hostile = connected_to(server, hello=said)
        assert store.run(kv.put("a", 1)) == 1
        assert message.encode() in ended(hostile)
        assert store.run(kv.get("a")) == 1
    assert message in caplog.text
    assert f"the client of process {os.getpid()}, user {os.getuid()} was dropped: " in caplog.text


@pytest.mark.parametrize("name", AFTER_HELLO)
def test_who_breaks_the_rules_is_dropped_and_the_log_says_who_and_why(tmp_path, behind, caplog, name):
    said, message = AFTER_HELLO[name]
    with running(behind, tmp_path / "sock", limits=LIMITS) as server, open_store(server.where) as store:
        hostile = connected_to(server)
        hostile.sendall(said)
        assert store.run(kv.put("a", 1)) == 1
        assert message.encode() in ended(hostile)
        assert store.run(kv.get("a")) == 1
    assert message in caplog.text
    assert "was dropped: " in caplog.text


def test_who_never_reads_is_read_no_more_then_dropped_and_memory_is_bounded(tmp_path, behind, caplog):
    behind.run(kv.put("large", "x" * 1_000_000))
    answered = []
    rows = {**behind.handlers, KvGet: lambda request: answered.append(1) or behind.handlers[KvGet](request)}
    counting = Store(_Rows(behind.interpreter, rows))
    with running(counting, tmp_path / "sock", limits=LIMITS) as server, open_store(server.where) as store:
        hostile = connected_to(server)
        # Answers of 1 GB, of which a few are made.
        hostile.sendall(calls(*[{"op": "persist/kv-get", "key": "large"}] * 1_000))
        assert store.run(kv.put("a", 1)) == 2
        until(lambda: "it read none of its answers for 0.2 s" in caplog.text)
        assert len(answered) < 20
        assert store.run(kv.put("a", 1)) == 3
        hostile.close()


class _Rows:
    """The rows of an interpreter, some of them other ones, all of them quick."""

    def __init__(self, inner, rows) -> None:
        self.handlers = rows
        self.quick = frozenset(rows)
        self.watch = inner.watch
        self.close = inner.close


def test_who_sends_more_than_the_store_can_take_is_read_no_more_until_it_can(tmp_path, behind):
    halting = Halting(behind.interpreter)
    put = {"op": "persist/kv-put", "key": "a", "value": "x" * 10_000}
    with running(Store(halting), tmp_path / "sock", limits=LIMITS) as server:
        greedy = connected_to(server)
        sending = threading.Thread(target=greedy.sendall, args=(calls(*[put] * 500),), daemon=True)
        sending.start()
        assert halting.begun.wait(PATIENCE_SECONDS)
        (client,) = server._clients
        until(lambda: not client._is_reading)
        # The queue, what was read of it at once, and no more.
        assert client._in_flight_bytes < 2 * LIMITS.queue_bytes
        halting.may_go_on.set()
        until(lambda: server.tally.request_count == 500)
        sending.join(PATIENCE_SECONDS)
        greedy.close()
        assert sum(halting.batches) == 500


@pytest.fixture
def many_descriptors():
    """As many as both ends of the connections take."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    take_descriptors(ServingLimits(max_connections=2 * IDLE))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_descriptors")
def test_idle_connections_keep_nobody_out_until_there_are_as_many_as_may_be(tmp_path, behind, caplog):
    limits = ServingLimits(max_connections=IDLE + 1)
    with (
        running(behind, tmp_path / "sock", limits=limits) as server,
        open_store(server.where) as store,
        ExitStack() as open_,
    ):
        for _ in range(IDLE):
            open_.enter_context(connected_to(server))
        assert store.run(kv.put("a", 1)) == 1
        with pytest.raises(StoreUnavailable, match=f"this server has {IDLE + 1} clients, and takes no more"):
            open_store(server.where)
        assert store.run(kv.get("a")) == 1
    assert "takes no more" in caplog.text


def test_a_connection_has_no_more_waits_than_it_may(tmp_path, behind):
    limits = ServingLimits(max_waits=2)
    with serving(behind, tmp_path / "sock", limits=limits) as url, open_store(url) as store:
        ends = [store.interpreter.watch(Wait(0), bool) for _ in range(2)]
        with pytest.raises(StoreUnavailable, match="persist/wait: this connection has 2 waits, and may have no more"):
            store.run(perform(Wait(0, "", math.inf)))
        ends[0]()
        assert store.run(perform(Wait(0, "", 0.001))) == 0


def test_a_wait_that_is_given_up_in_the_same_breath_is_counted_no_more(tmp_path, behind):
    limits = ServingLimits(max_waits=1)
    with running(behind, tmp_path / "sock", limits=limits) as server, open_store(server.where) as other:
        made = connected_to(server)
        wait = {"op": "persist/wait", "after": 0, "timeout": math.inf}
        made.sendall(b"".join(frame_of([number, wait]) + frame_of([number, None]) for number in range(1, 50)))
        made.sendall(frame_of([50, {"op": "persist/streams"}]))
        assert frame_of([50, True, []]) == made.recv(65536), "no wait was refused"
        until(lambda: other.interpreter.health()["waits"] == 0)
        assert not behind.interpreter._watchers
        made.close()


def test_a_client_whose_calls_take_long_gives_way_to_the_others(tmp_path, behind, monkeypatch):
    monkeypatch.setattr("interpreters.stores.served.clients.TURN_SECONDS", 0.0)
    with running(behind, tmp_path / "sock") as server:
        made = connected_to(server)
        made.sendall(calls(*[{"op": "persist/streams"}] * 100))
        made.shutdown(socket.SHUT_WR)
        assert ended(made).count(b"\xc3\x90") == 100


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_connections", 0, "max_connections is 0: give an integer from 1"),
        ("frame_seconds", math.inf, "frame_seconds is a float, inf: give a number of seconds over 0"),
        ("drain_seconds", "1", "drain_seconds is a str, '1': give a number of seconds over 0"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(name, value, message):
    with pytest.raises(InvalidRequest, match=message):
        ServingLimits(**{name: value})


def test_what_a_bug_raises_in_the_loop_is_in_the_log(tmp_path, behind, caplog):
    with running(behind, tmp_path / "sock") as server, open_store(server.where) as store:
        server.loop.call_soon_threadsafe(lambda: 1 / 0)
        assert store.run(kv.put("a", 1)) == 1
    assert "ZeroDivisionError" in caplog.text


# Who may


def test_a_client_with_the_second_token_reads_and_does_not_write(tmp_path, behind):
    (tmp_path / "token").write_text("secret\n")
    with serving(behind, tmp_path / "sock", token="secret", read_token="readers") as url:
        with open_store(f"{url}?token_file={tmp_path / 'token'}") as writer:
            assert writer.run(kv.put("a", 1)) == 1
            assert writer.interpreter.may == "write"
        with open_store(url, token="readers") as reader:
            assert reader.interpreter.may == "read"
            assert reader.run(kv.get("a")) == 1
            assert reader.run(perform(KvWait(0, "", 0.0))) == 1
            for write in (kv.put("a", 2), log.append("s", "made", 1), log.advance(7, 7)):
                with pytest.raises(InvalidRequest, match="this client's token is for reading only"):
                    reader.run(write)
        with pytest.raises(InvalidRequest, match=r"wants a token, and none was given: give token_file=PATH"):
            open_store(url)
        for wrong in ("Secret", "secre", "é"):
            with pytest.raises(InvalidRequest, match="this server does not know the token that was given"):
                open_store(url, token=wrong)


def test_tokens_that_make_no_sense_are_refused(behind):
    with pytest.raises(InvalidRequest, match="there is a token for those that read and none for those that write"):
        StoreServer(behind.interpreter, read_token="x")
    with pytest.raises(InvalidRequest, match="the token for those that read is the one for those that write"):
        StoreServer(behind.interpreter, token="x", read_token="x")


def test_a_socket_is_for_its_owner_alone_unless_told_otherwise(tmp_path, behind):
    with serving(behind, tmp_path / "sock"):
        assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o600
    door = listen_at(f"unix:{tmp_path / 'sock'}", mode=0o660)
    assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o660
    door.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_server_has_left_is_replaced_and_a_living_one_is_not(tmp_path, behind):
    place = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    with serving(behind, place) as url:
        with pytest.raises(StoreUnavailable, match="another server listens at"):
            listen_at(url)
        with open_store(url) as store:
            assert store.run(kv.put("a", 1)) == 1


@pytest.mark.parametrize("attempt", range(20))
def test_of_two_servers_that_find_a_dead_ones_socket_at_once_one_is_told_of_the_other(tmp_path, attempt):
    place, barrier = tmp_path / "sock", threading.Barrier(2)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))

    def listen():
        barrier.wait()
        try:
            return listen_at(f"unix:{place}")
        except StoreUnavailable as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        found = [each.result() for each in [pool.submit(listen), pool.submit(listen)]]
    (refused,) = [each for each in found if isinstance(each, str)]
    assert "another server listens at" in refused
    for door in found:
        if door is not refused:
            assert door.is_in_place()
            door.close()


def test_what_a_server_has_left_that_was_killed_while_it_began_is_no_matter(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / ".sock.unfinished"))
    listen_at(f"unix:{tmp_path / 'sock'}").close()
    assert list(tmp_path.iterdir()) == []


def test_a_server_leaves_the_socket_of_its_successor_alone(tmp_path):
    first = listen_at(f"unix:{tmp_path / 'sock'}")
    (tmp_path / "sock").unlink()
    second = listen_at(f"unix:{tmp_path / 'sock'}")
    first.close()
    assert (tmp_path / "sock").is_socket()
    second.close()


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("unix:{place}/file", InvalidRequest, "file is there, and is not a socket: give another path, or remove it"),
        ("unix:{place}/no/sock", StoreUnavailable, "give a path in a directory that is there"),
        ("unix:", InvalidRequest, "is nowhere to listen: write unix:PATH or tcp://HOST:PORT"),
        ("file:x", InvalidRequest, "is nowhere to listen"),
        (
            "tcp://0.0.0.0:0",
            InvalidRequest,
            "can be reached from other machines, which needs a token and a certificate",
        ),
        ("tcp://[::]:0", InvalidRequest, "can be reached from other machines"),
        ("tcp://127.0.0.1:{port}", StoreUnavailable, "give another address, or end who listens there"),
        ("tcp://no.such.host.invalid:0", StoreUnavailable, "give another address"),
    ],
)
def test_where_it_cannot_or_must_not_listen_one_error_says_so(tmp_path, url, error, message):
    (tmp_path / "file").write_text("text")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(error) as caught:
        listen_at(url.format(place=tmp_path, port=taken.getsockname()[1]))
    assert message in str(caught.value)
    assert (tmp_path / "file").read_text() == "text"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that knows itself, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"), "127.0.0.1")


def running_tls(store, certificate, **options):
    return running(store, "tcp://127.0.0.1:0", tls=tls_of(*certificate), **options)


def test_tls_and_a_token_are_what_other_machines_need(behind, certificate):
    with running_tls(behind, certificate, token="secret") as server:
        url = server.where
        with open_store(f"{url}?ca_file={certificate[0]}", token="secret") as store:
            large = "x" * 5_000_000
            assert store.run(kv.put("large", large)) == 1
            assert store.run_many(kv.get("large") for _ in range(4)) == [large] * 4
        with pytest.raises(StoreUnavailable, match="its certificate is not one that is known here: give ca_file=PATH"):
            open_store(f"{url}?tls=yes", token="secret")
        with pytest.raises(StoreUnavailable, match=r"the server closed the connection before it greeted|reset"):
            open_store(url, token="secret")
    door = listen_at("tcp://0.0.0.0:0", tls=tls_of(*certificate), has_token=True)
    door.close()


class Silent:
    """Connections that say nothing, or not what TLS begins with."""

    def __init__(self, url: str) -> None:
        self._address = address_of(url)
        self._open: list[socket.socket] = []

    def come(self, count, said=b""):
        for _ in range(count):
            self._open.append(socket.create_connection(self._address, PATIENCE_SECONDS))
            self._open[-1].sendall(said)
        return self._open[-1]

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for each in self._open:
            each.close()


def test_who_connects_to_tls_and_says_nothing_counts_from_then_on(behind, certificate):
    limits = ServingLimits(max_connections=3, hello_seconds=PATIENCE_SECONDS)
    with running_tls(behind, certificate, limits=limits) as server, Silent(server.where) as silent:
        url = f"{server.where}?ca_file={certificate[0]}"
        with open_store(url) as store:
            silent.come(2)
            until(lambda: store.interpreter.health()["connections"] == 3)
            with pytest.raises(StoreUnavailable, match="this server has 3 clients, and takes no more"):
                open_store(url)
            assert store.run(kv.put("a", 1)) == 1


def test_who_does_not_agree_on_tls_is_dropped_and_the_log_says_who_and_why(behind, certificate, caplog):
    with running_tls(behind, certificate, limits=LIMITS) as server, Silent(server.where) as silent:
        silent.come(2)
        silent.come(1, b"GET / HTTP/1.1\r\n\r\n")
        with open_store(f"{server.where}?ca_file={certificate[0]}") as store:
            until(lambda: store.interpreter.health()["dropped"] == 3)
            assert store.interpreter.health()["connections"] == 1
    assert caplog.text.count("was dropped: TLS was not agreed on within 0.2 s") == 2
    assert caplog.text.count("was dropped: no TLS with it: ") == 1
    assert caplog.text.count("the client at 127.0.0.1 port ") == 3


def test_of_connections_to_tls_beyond_the_limit_only_some_are_told_in_words(behind, certificate, caplog):
    limits = ServingLimits(max_connections=1, hello_seconds=PATIENCE_SECONDS)
    with running_tls(behind, certificate, limits=limits) as server, Silent(server.where) as silent:
        silent.come(1 + TOLD_BEYOND)
        with suppress(ConnectionResetError):
            assert silent.come(1).recv(1) == b""
        assert server.connection_count == 1 + TOLD_BEYOND
    assert "was dropped: this server has 1 clients, and takes no more" in caplog.text


def test_a_server_ends_at_once_though_somebody_is_just_connecting_by_tls(behind, certificate):
    with running_tls(behind, certificate) as server, Silent(server.where) as silent:
        made = silent.come(1)
        until(lambda: server.connection_count == 1)
        server.stop()
        with suppress(ConnectionResetError):
            assert made.recv(1) == b""


def test_a_client_of_tls_at_a_server_without_it_is_told(behind):
    with serving(behind, "tcp://127.0.0.1:0") as url, pytest.raises(StoreUnavailable, match="it does not speak TLS"):
        open_store(f"{url}?tls=yes")


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path, certificate):
    (tmp_path / "cert").write_text("none")
    with pytest.raises(InvalidRequest, match="cannot be used"):
        tls_of(tmp_path / "cert", certificate[1])
    with pytest.raises(InvalidRequest, match="cannot be used"):
        tls_of(certificate[0], tmp_path / "nothing")


def test_the_log_says_who_came_and_went_where_it_is_asked_to(tmp_path, behind, caplog):
    caplog.set_level(logging.DEBUG, "persist_effects.served")
    with serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        store.run(kv.put("a", 1))
    who = f"the client of process {os.getpid()}, user {os.getuid()}"
    assert [f"{who} has come", f"{who} may write", f"{who} has gone"] == [record.message for record in caplog.records]


def test_requests_of_all_kinds_are_counted(tmp_path, behind):
    with running(behind, tmp_path / "sock") as server, open_store(server.where) as store:
        store.run(kv.put("a", 1))
        store.run(perform(Wait(0, "", 0.001)))
        with suppress(InvalidRequest):
            store.interpreter.handlers[Read](Read("s", after=7))
        store.run(perform(Streams()))
        health = store.interpreter.health()
        assert health["connections"] == 1
        assert health["requests"] == 4
        assert server.tally.latencies["persist/kv-put"].count == 1
        assert server.tally.waited == {"persist/wait": 1}
