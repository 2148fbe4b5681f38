"""The client: what it sends after a lost connection and what not, in time and out of it, interrupted, and forked."""

import errno
import gc
import math
import os
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import msgspec
import pytest
from beside import LOST_INTERRUPT, interrupted
from interrupts import Interrupt, InterruptInside
from lagging import LaggingMemoryStore
from served_stores import PATIENCE_SECONDS, running, serving, until

from interpreters import Store, open_store
from interpreters.runtime import flights
from interpreters.runtime import store as store_room
from interpreters.stores.served import RemoteStore, client, line
from interpreters.stores.served.doors import UNIX_PATH_BYTES, Door, UnixDoor
from interpreters.stores.served.wire import FRAME_LIMIT_BYTES, WIRE_VERSION, FrameParser, frame_of
from persist_effects import InvalidRequest, StoreUnavailable, UncertainOutcome, kv, log, perform
from persist_effects.errors import error_to_record
from persist_effects.requests import AllOf, Answered, KvGet, KvPut, KvWait, Wait

GREETING = frame_of([0, True, {"wire": WIRE_VERSION, "capabilities": None}])


class Peer:
    """The server's end of one connection, by hand."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        self._parser = FrameParser(FRAME_LIMIT_BYTES)
        self._frames: list[bytes] = []
        connected.settimeout(PATIENCE_SECONDS)

    def hear(self):
        while not self._frames:
            data = self._connected.recv(65536)
            assert data, "the client has closed the connection"
            self._frames += self._parser.take(data)
        return msgspec.msgpack.decode(self._frames.pop(0))

    def greet(self) -> None:
        assert self.hear()["wire"] == WIRE_VERSION
        self._connected.sendall(GREETING)

    def say(self, *content) -> None:
        self._connected.sendall(frame_of(list(content)))

    def close(self) -> None:
        self._connected.close()


class SlowSocket(socket.socket):
    """May return from the call that sends only some time after the system has taken what is sent."""

    after_send = staticmethod(lambda: None)

    def send(self, *arguments):
        count = super().send(*arguments)
        self.after_send()
        return count


class ByHand(Door):
    """A door to servers by hand: one for each connection that is dialled."""

    where = "by hand"

    def __init__(self) -> None:
        self._come = threading.Semaphore(0)
        self._peers: list[Peer] = []
        self.every: list[Peer] = []
        self.refusing = 0
        self.refusal: OSError = ConnectionRefusedError("refused")

    def connect(self, ready):
        if self.refusing:
            self.refusing -= 1
            raise self.refusal
        ours, theirs = socket.socketpair()
        ours = SlowSocket(fileno=ours.detach())
        ours.setblocking(False)
        self._peers.append(Peer(theirs))
        self.every += self._peers[-1:]
        self._come.release()
        return ours

    def next_peer(self, *, is_greeted: bool = True) -> Peer:
        """The next one, once the client has said hello, and been greeted."""
        assert self._come.acquire(timeout=PATIENCE_SECONDS)
        peer = self._peers.pop(0)
        if is_greeted:
            peer.greet()
        return peer


@contextmanager
def by_hand(timeout=PATIENCE_SECONDS):
    """A client, its door, and the server's end of its first connection."""
    door, pool = ByHand(), ThreadPoolExecutor(16)
    opening = pool.submit(RemoteStore, door, timeout=timeout)
    peer = door.next_peer()
    remote = opening.result(PATIENCE_SECONDS)
    try:
        yield remote, door, peer, lambda request: pool.submit(remote.handlers[type(request)], request)
    finally:
        remote.close()
        pool.shutdown()
        for one in door.every:
            one.close()


# Lost connections


def test_a_read_that_was_on_its_way_is_asked_again_over_the_next_connection():
    with by_hand() as (_, door, peer, ask):
        asked = ask(KvGet("a"))
        assert peer.hear() == [1, {"op": "persist/kv-get", "key": "a"}]
        peer.close()
        again = door.next_peer()
        assert again.hear() == [1, {"op": "persist/kv-get", "key": "a"}]
        again.say(1, True, None)
        assert asked.result(PATIENCE_SECONDS) is None


def test_how_a_server_is_can_be_asked_again_too():
    with by_hand() as (remote, door, peer, _), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(remote.health)
        assert peer.hear() == [1, {"op": "served/health"}]
        peer.close()
        again = door.next_peer()
        assert again.hear() == [1, {"op": "served/health"}]
        again.say(1, True, {"waits": 0})
        assert asked.result(PATIENCE_SECONDS) == {"waits": 0}


def test_what_the_next_server_says_to_everybody_is_told_to_all_that_wait_at_once():
    with by_hand() as (_, door, peer, ask):
        asked = [ask(KvGet(key)) for key in ("a", "b")]
        for _ in asked:
            peer.hear()
        peer.close()
        again = door.next_peer(is_greeted=False)
        again.say(0, False, error_to_record(InvalidRequest("this server does not know the token that was given")))
        for each in asked:
            with pytest.raises(InvalidRequest, match="does not know the token"):
                each.result(PATIENCE_SECONDS)


def test_a_server_whose_queue_is_full_is_dialled_again_also_by_who_comes_new():
    door = ByHand()
    door.refusal = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    door.refusing = 3
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(RemoteStore, door, timeout=PATIENCE_SECONDS)
        door.next_peer()
        opening.result(PATIENCE_SECONDS).close()
        assert door.refusing == 0
        door.refusing = 1_000_000
        with pytest.raises(StoreUnavailable, match=r"by hand: it has not answered within 0\.1 s: Resource temporarily"):
            RemoteStore(door, timeout=0.1)
    door.every[0].close()


def test_a_write_that_was_sent_is_uncertain_and_is_not_sent_again():
    with by_hand() as (_, door, peer, ask):
        asked = ask(KvPut("a", 1))
        peer.hear()
        peer.close()
        with pytest.raises(UncertainOutcome, match=r"persist/kv-put was on its way: by hand: .* is not known"):
            asked.result(PATIENCE_SECONDS)
        read = ask(KvGet("a"))
        again = door.next_peer()
        assert again.hear()[1]["op"] == "persist/kv-get"
        again.say(1, True, None)
        assert read.result(PATIENCE_SECONDS) is None


def test_a_write_of_which_the_server_has_a_part_is_sent_again():
    with by_hand() as (_, door, peer, ask):
        # More than a socket takes, so that its end cannot have been sent when nobody reads.
        large = "x" * 4_000_000
        asked = ask(KvPut("a", large))
        assert peer._connected.recv(4)
        peer.close()
        again = door.next_peer()
        assert again.hear()[1]["value"] == large
        again.say(1, True, 7)
        assert asked.result(PATIENCE_SECONDS) == 7


def test_a_write_that_the_server_says_it_has_not_read_is_sent_again():
    with by_hand() as (_, door, peer, ask):
        first = ask(KvPut("a", 1))
        assert peer.hear()[0] == 1
        second = ask(KvPut("a", 2))
        assert peer.hear()[0] == 2
        # The farewell: it has read the first call, and answers it.
        peer.say(0, True, 1)
        peer.say(1, True, 5)
        assert first.result(PATIENCE_SECONDS) == 5
        peer.close()
        again = door.next_peer()
        assert again.hear()[1]["value"] == 2
        again.say(1, True, 6)
        assert second.result(PATIENCE_SECONDS) == 6


def test_after_a_farewell_nothing_more_is_sent_over_that_connection():
    with by_hand() as (_, door, peer, ask):
        read = ask(KvGet("a"))
        assert peer.hear()[0] == 1
        peer.say(0, True, 1)
        peer.say(1, True, None)
        assert read.result(PATIENCE_SECONDS) is None
        write = ask(KvPut("a", 1))
        peer._connected.shutdown(socket.SHUT_WR)
        again = door.next_peer()
        assert again.hear()[1]["op"] == "persist/kv-put"
        again.say(1, True, 6)
        assert write.result(PATIENCE_SECONDS) == 6
        assert peer._connected.recv(1) == b""


def test_a_wait_goes_on_over_the_next_connection_with_what_is_left_of_its_time():
    with by_hand() as (_, door, peer, ask):
        endless, long = ask(Wait(3, "a", math.inf)), ask(KvWait(4, "b", 3600.0))
        assert sorted(peer.hear()[1]["op"] for _ in range(2)) == ["persist/kv-wait", "persist/wait"]
        peer.close()
        again = door.next_peer()
        calls = {request["op"]: (call_id, request["timeout"]) for call_id, request in (again.hear(), again.hear())}
        assert calls["persist/wait"][1] == math.inf
        assert 0 < calls["persist/kv-wait"][1] < 3600.0
        again.say(calls["persist/wait"][0], True, 9)
        again.say(calls["persist/kv-wait"][0], True, 8)
        assert (endless.result(PATIENCE_SECONDS), long.result(PATIENCE_SECONDS)) == (9, 8)


def test_a_watch_goes_on_over_the_next_connection_and_its_end_is_told_to_the_server():
    with by_hand() as (remote, door, peer, _):
        told = threading.Event()
        end_watch = remote.watch(Wait(3, "a"), told.set)
        assert peer.hear()[1]["timeout"] == math.inf
        peer.close()
        again = door.next_peer()
        call_id, request = again.hear()
        assert request["after"] == 3
        end_watch()
        assert again.hear() == [call_id, None]
        # An answer that was on its way already is no matter.
        again.say(call_id, True, 9)
        end_watch()
        assert not told.is_set()


def test_a_server_that_comes_back_late_is_dialled_until_it_is_there():
    with by_hand() as (_, door, peer, ask):
        door.refusing = 5
        peer.close()
        asked = ask(KvPut("a", 1))
        again = door.next_peer()
        assert again.hear()[1]["value"] == 1
        again.say(1, True, 1)
        assert asked.result(PATIENCE_SECONDS) == 1
        assert door.refusing == 0


def test_a_server_that_nobody_needs_is_not_dialled():
    with by_hand() as (remote, door, peer, _):
        peer.close()
        remote.close()
        assert door._peers == []


# In time


def test_a_read_that_is_not_answered_in_time_is_given_up_and_the_connection_with_it():
    with by_hand(timeout=0.05) as (_, _door, peer, ask):
        with pytest.raises(StoreUnavailable, match=r"persist/kv-get was not answered: by hand: .* for 0.05 s"):
            ask(KvGet("a")).result(PATIENCE_SECONDS)
        assert peer.hear()[0] == 1
        assert peer._connected.recv(1) == b""


def test_a_write_that_is_not_answered_in_time_is_uncertain():
    with by_hand(timeout=0.05) as (_, _door, _peer, ask):
        asked = ask(KvPut("a", 1))
        with pytest.raises(UncertainOutcome, match=r"persist/kv-put was on its way: by hand: .* for 0.05 s"):
            asked.result(PATIENCE_SECONDS)


class AwaitedLock:
    """A lock that notes whether anybody has found it held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_awaited = False

    def __enter__(self):
        self.is_awaited = self._lock.locked()
        self._lock.acquire()

    def __exit__(self, *exc_info):
        self._lock.release()


def test_a_write_that_is_late_in_the_moment_in_which_it_is_sent_is_not_called_unwritten(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(line, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with by_hand(timeout=0.2) as (remote, _, peer, ask):
        own = remote._line
        until(lambda: own._is_plain)
        own._turn = AwaitedLock()

        def stand_still():
            now[0] += 1.0
            own.hurry()
            until(lambda: own._turn.is_awaited or own._due[0].is_done)

        own._socket.after_send = stand_still
        asked = ask(KvPut("a", 1))
        assert peer.hear()[0] == 1
        peer.say(1, True, 7)
        assert asked.result(PATIENCE_SECONDS) == 7


def test_what_is_large_may_take_longer_as_long_as_it_moves(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(line, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with by_hand(timeout=0.2) as (_, _door, peer, ask):
        large = "x" * 2_000_000
        asked = ask(KvPut("a", large))
        received = b""
        while len(received) < len(large):
            # All of it takes twice the time that it may be silent; what a socket holds, a part of that.
            received += peer._connected.recv(1_000)
            now[0] += 0.0002
        while not peer._frames:
            peer._frames += peer._parser.take(received)
            received = b"" if peer._frames else peer._connected.recv(65536)
        assert peer.hear()[1]["value"] == large
        peer.say(1, True, 7)
        assert asked.result(PATIENCE_SECONDS) == 7
        assert now[0] > 0.3


def test_what_could_not_be_sent_in_time_is_unavailable_a_write_too():
    with by_hand(timeout=0.05) as (_, door, peer, ask):
        door.refusing = 1 << 62
        peer.close()
        for request in (KvPut("a", 1), KvGet("a"), Wait(0, "", math.inf)):
            with pytest.raises(StoreUnavailable, match=r"was not answered: by hand: refused"):
                ask(request).result(PATIENCE_SECONDS)


def test_a_silent_server_is_asked_whether_it_is_there_while_somebody_waits_and_dropped_where_it_is_not():
    with by_hand(timeout=0.2) as (_, door, peer, ask):
        asked = ask(Wait(0, "", math.inf))
        assert peer.hear()[1]["op"] == "persist/wait"
        assert peer.hear()[1]["op"] == "served/health"
        peer.say(2, True, {})
        assert peer.hear()[1]["op"] == "served/health"
        again = door.next_peer()
        call_id, request = again.hear()
        assert request["op"] == "persist/wait"
        again.say(call_id, True, 9)
        assert asked.result(PATIENCE_SECONDS) == 9


# Interrupts

CALLER = (client.__file__, line.__file__, store_room.__file__, flights.__file__)


ASKED = {"one": KvPut("color", "red"), "several": AllOf((KvPut("color", "red"), KvGet("color")))}


@pytest.mark.parametrize("kind", [Interrupt, InterruptInside])
@pytest.mark.parametrize("name", ASKED)
def test_an_interrupt_at_any_line_of_asking_leaves_the_store_usable(tmp_path, name, kind):
    asked = ASKED[name]
    with open_store("memory:") as behind, serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        own = store.interpreter._line

        def use():
            # By its row: an interrupt before a program runs would leave it behind.
            store.handlers[type(asked)](asked)

        with kind(0, CALLER) as counting:
            use()
        assert len(counting.firsts) > 10
        for at in counting.firsts.values():
            try:
                with kind(at, CALLER) as interrupt:
                    use()
            except KeyboardInterrupt:
                pass
            else:
                # What comes in the end depends on how long the answer takes.
                assert not interrupt.place, f"the interrupt at {interrupt.place} was lost"
            with ThreadPoolExecutor(1) as thread:
                put = thread.submit(store.run, kv.put("number", at))
                assert put.result(PATIENCE_SECONDS), interrupt.place
                assert store.run(kv.get("number")) == at, interrupt.place
        # None of it is kept, and it is the one connection still.
        assert not own._calls
        assert store.interpreter.health()["dropped"] == 0
        assert store.interpreter._line is own


@pytest.mark.filterwarnings(LOST_INTERRUPT)
def test_an_interrupted_wait_is_ended_at_the_server_too(tmp_path):
    with open_store("memory:") as behind, serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        with interrupted(lambda: until(lambda: store.interpreter.health()["waits"] == 1)):
            store.run(perform(Wait(0, "", math.inf)))
        until(lambda: store.interpreter.health()["waits"] == 0)


# What lags


def test_who_waits_for_the_order_of_a_served_store_is_told_what_the_store_says(tmp_path):
    with Store(LaggingMemoryStore()) as behind, serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        assert store.capabilities.order_lags
        for number in range(5):
            store.run(log.append("a", "made", number))
        store.wait_for_order()
        assert [event.data for event in store.run(log.read_all())] == [0, 1, 2, 3, 4]
    with (
        Store(LaggingMemoryStore(never="shown")) as behind,
        serving(behind, tmp_path / "sock") as url,
        open_store(url) as store,
        pytest.raises(StoreUnavailable, match="is still not shown"),
    ):
        store.wait_for_order(0.1)


# Forgotten, and bad input


def test_a_client_that_nobody_has_any_more_goes_away(tmp_path):
    with open_store("memory:") as behind, running(behind, tmp_path / "sock") as server:
        forgotten = RemoteStore(UnixDoor(server.where.removeprefix("unix:")))
        thread = forgotten._line._thread
        del forgotten
        gc.collect()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_a_socket_whose_path_is_longer_than_the_system_takes_is_found(tmp_path):
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    place = directory / "sock"
    assert len(os.fsencode(place)) > UNIX_PATH_BYTES
    with open_store("memory:") as behind, serving(behind, place) as url, open_store(url) as store:
        assert store.run(kv.put("color", "red")) == 1
        assert list(directory.iterdir()) == [place]
    assert list(directory.iterdir()) == []
    with pytest.raises(InvalidRequest, match="is too long for a socket"):
        open_store(f"unix:{directory / ('f' * 120)}")


def stale(tmp_path):
    """A socket that a dead server has left."""
    path = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    return path


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        (
            "unix:{place}/nothing",
            StoreUnavailable,
            "nobody serves there: start `persist-effects serve URL --listen unix:",
        ),
        ("unix:{place}/stale", StoreUnavailable, "its server is gone: start `persist-effects serve"),
        ("unix:{place}/file", StoreUnavailable, "it is not a socket"),
        ("unix:", InvalidRequest, "'unix:' names no socket: write unix:PATH"),
        ("unix:a?color=red", InvalidRequest, "a store behind unix: has no option 'color': it takes timeout, token"),
        ("unix:a?timeout=0", InvalidRequest, "timeout is a float, 0.0: give a number of seconds over 0"),
        ("unix:a?timeout=long", InvalidRequest, "cannot be read"),
        ("unix:a?token=", InvalidRequest, "the token is not a text of one character or more"),
        ("unix:a?token=x&token_file=y", InvalidRequest, "both token and token_file are given"),
        ("unix:a?token_file={place}/nothing", InvalidRequest, "the token cannot be read from"),
        ("unix:a?token_file={place}/empty", InvalidRequest, "there is no token in"),
        ("tcp:localhost", InvalidRequest, "is not an address: write tcp://HOST:PORT"),
        ("tcp://localhost:70000", InvalidRequest, "is not an address"),
        ("tcp://127.0.0.1:{port}", StoreUnavailable, "nobody serves there: start"),
        ("tcp://127.0.0.1:1?tls=perhaps", InvalidRequest, "tls is a str, 'perhaps': give yes or no"),
        ("tcp://127.0.0.1:1?tls=no&ca_file=x", InvalidRequest, "ca_file is given, and tls=no"),
        ("tcp://127.0.0.1:1?ca_file={place}/file", InvalidRequest, "the certificates cannot be read"),
        ("tcp://127.0.0.1:1?color=red", InvalidRequest, "a store behind tcp: has no option 'color'"),
        ("spawn:nothing:", InvalidRequest, "'nothing:' names no store"),
    ],
)
def test_where_there_is_no_server_or_no_such_option_one_error_says_so(tmp_path, url, error, message):
    stale(tmp_path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(error) as caught:
        open_store(url.format(place=tmp_path, port=port))
    assert message in str(caught.value)


def test_where_no_thread_can_be_started_the_store_is_not_opened(tmp_path, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    here, there = socket.socketpair()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with here, there, pytest.raises(StoreUnavailable, match="no thread could be started to ask the store"):
        RemoteStore(here)


def test_what_waited_when_a_fork_came_is_not_asked_by_the_child(tmp_path):
    with open_store("memory:") as behind, serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        store.run(kv.put("color", "red"))
        reading, writing = os.pipe()
        waiter = threading.Thread(target=lambda: store.run(perform(Wait(0, "", math.inf))))
        waiter.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.write(writing, repr(store.interpreter.health()["waits"]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reading, 10) in {b"0", b"1"}
        os.close(reading)
        os.close(writing)
        store.run(log.append("s", "made", 1))
        waiter.join(PATIENCE_SECONDS)
        assert not waiter.is_alive()


def test_the_outcomes_of_what_is_submitted_come_by_their_index(tmp_path):
    with open_store("memory:") as behind, serving(behind, tmp_path / "sock") as url, open_store(url) as store:
        come, all_there = {}, threading.Event()

        def done(index, outcome):
            come[index] = outcome
            if len(come) == 3:
                all_there.set()

        store.interpreter.submit([KvPut("a", 1), KvPut("b", object()), KvGet("c")], done)
        assert all_there.wait(PATIENCE_SECONDS)
    assert (come[0], come[2]) == (Answered(1), Answered(None))
    assert isinstance(come[1].error, InvalidRequest)
