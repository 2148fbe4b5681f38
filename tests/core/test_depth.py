"""What is nested 10,000 deep is refused by an error of ours, by every encoder and every decoder, and before a write."""

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from interpreters import Store, open_store
from interpreters.serving import _option as option_of
from interpreters.stores.served import RemoteStore, SocketTransport, serve
from interpreters.stores.served.server import send_greeting
from interpreters.stores.served.transport import receive_frame, send_frame
from persist_effects import (
    CallerError,
    Draft,
    InternalError,
    InvalidRequest,
    NotAProgram,
    NotARequest,
    State,
    StoreUnavailable,
    codec,
    kv,
    log,
    perform,
    snapshot,
    transact,
)
from persist_effects.errors import describe, error_to_record, repr_of, text_of
from persist_effects.machine import start
from persist_effects.requests import Append, KvGet, KvPut, LastSeq, Transact, Wait

DEPTH = 10_000
DEEP_BYTES = b"\x91" * DEPTH + b"\xc0"


class Node(msgspec.Struct):
    inner: Any


def deep(kind: str, depth: int = DEPTH) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value} if kind == "dict" else Node(value)
    return value


kinds = pytest.mark.parametrize("kind", ["list", "dict", "Struct"])


@pytest.fixture
def socket_pair():
    pair = tuple(map(SocketTransport, socket.socketpair()))
    yield pair
    for transport in pair:
        transport.close()


@contextmanager
def served():
    here, there = map(SocketTransport, socket.socketpair())
    with open_store("memory:") as behind:
        server = threading.Thread(target=serve, args=(behind.handlers, there))
        server.start()
        with Store(RemoteStore(here)) as remote:
            yield remote
        server.join()


@pytest.fixture(params=["memory", "file", "served"])
def store(request, tmp_path):
    url = "memory:" if request.param == "memory" else f"file:{tmp_path}/store"
    with served() if request.param == "served" else open_store(url) as opened:
        yield opened


WRITES = {
    "put": lambda value: kv.put("a", value),
    "append": lambda value: log.append("a", "made", value),
    "meta": lambda value: log.append("a", "made", 1, meta={"a": value}),
    "append_many": lambda value: log.append_many("a", [Draft("made", 1), Draft("made", value)]),
    "append_once": lambda value: log.append_once("a", "key", "made", value),
    "transact": lambda value: transact(KvPut("b", 1), KvPut("a", value)),
    "snapshot": lambda value: snapshot.write("a", State(value, 1)),
}


@kinds
@pytest.mark.parametrize("write", WRITES)
def test_a_deep_value_is_refused_before_anything_is_written(store, kind, write):
    with pytest.raises(InvalidRequest, match="nested deeper than 100"):
        store.run(WRITES[write](deep(kind)))
    assert (store.run(kv.keys()), store.run(log.streams())) == ([], [])
    # The store goes on, and what is as deep as it may be comes back.
    value = deep("list", codec.DEPTH_LIMIT)
    store.run(kv.put("a", value))
    assert store.run(kv.get("a")) == value


def yielding(found: Any):
    yield found


@pytest.mark.parametrize(
    ("program", "error"),
    [
        (lambda: yielding(deep("list")), NotARequest),
        (lambda: kv.put(deep("list"), 1), InvalidRequest),
        (lambda: kv.put_expect("a", deep("dict"), 1), InvalidRequest),
        (lambda: log.append("a", deep("Struct"), 1), InvalidRequest),
        (lambda: perform(Append("a", deep("list"))), InvalidRequest),
        (lambda: perform(Wait(0, "", deep("list"))), InvalidRequest),
        (lambda: (yield from KvPut("a", deep("list"))), NotAProgram),
        (lambda: KvPut("a", deep("list")), NotAProgram),
    ],
    ids=range(8),
)
def test_messages_about_what_is_deep_do_not_recurse(program, error):
    with open_store("memory:") as store, pytest.raises(error) as found:
        store.run(program())
    assert len(str(found.value)) < 300


def test_a_step_that_was_used_says_so_whatever_its_request_holds():
    step = start(perform(KvPut("a", deep("list"))))
    step.close()
    with pytest.raises(CallerError, match="nested too deep to show"):
        step.resume(1)


def test_what_has_no_repr_is_shown_all_the_same():
    class Broken:
        def __repr__(self):
            raise LookupError

    assert repr_of(deep("list")) == "<a list that is nested too deep to show>"
    assert describe(Broken()) == "a Broken, <a Broken, whose repr raises LookupError>"
    assert text_of(InvalidRequest(deep("list"))) == "its arguments are nested too deep to show"
    assert error_to_record(InvalidRequest(deep("list"))) == ["InvalidRequest", text_of(InvalidRequest(deep("list")))]
    with pytest.raises(InvalidRequest, match="64 bits"):
        codec.encode(10**5000)


REFUSING = {
    "decode": lambda: codec.decode(DEEP_BYTES),
    "decode no UTF-8": lambda: codec.decode(b"\xa1\xff"),
    "decode nothing": lambda: codec.decode(b""),
    "decode_request": lambda: codec.decode_request(b"\x82\xa2op\xaepersist/kv-put\xa3key\xa1a\xa5value" + DEEP_BYTES),
    "decode_request of a list": lambda: codec.decode_request(DEEP_BYTES),
    "decode_answer": lambda: codec.decode_answer(KvGet("a"), b"\x82\xa5value" + DEEP_BYTES + b"\xa8revision\x01"),
    "decode_answer of another type": lambda: codec.decode_answer(LastSeq("a"), DEEP_BYTES),
    "decode_answer of a transaction": lambda: codec.decode_answer(Transact((KvPut("a", 1),)), DEEP_BYTES),
    "decode_answer of nothing": lambda: codec.decode_answer(Transact((KvPut("a", 1),)), b""),
    "decode_answer too few": lambda: codec.decode_answer(Transact((KvPut("a", 1),)), b"\x90"),
    "encode_answer": lambda: codec.encode_answer(deep("list")),
    "encode_request": lambda: codec.encode_request(KvPut("a", deep("dict"))),
    "encode": lambda: codec.encode(deep("Struct")),
    "fresh": lambda: codec.fresh(deep("list")),
    "to_plain": lambda: codec.to_plain(deep("list"), list, "state"),
    "to_plain of a Struct": lambda: codec.to_plain(deep("Struct"), Node, "state"),
    "an option": lambda: option_of("clock=" + "[" * DEPTH + "]" * DEPTH),
    "a client's option": lambda: RemoteStore.spawn("memory:", clock=deep("list")),
}


@pytest.mark.parametrize("name", REFUSING)
def test_every_encoder_and_decoder_refuses_what_is_deep_or_broken(name):
    with pytest.raises(InvalidRequest):
        REFUSING[name]()


# Frames


@pytest.mark.parametrize("frame", [DEEP_BYTES, b"\x92\x01" + DEEP_BYTES, b"\xa1\xff", b""])
def test_a_server_refuses_a_frame_that_is_deep_or_broken(socket_pair, frame):
    here, there = socket_pair
    send_frame(here, frame)
    with open_store("memory:") as store, pytest.raises(InvalidRequest, match="is not a call"):
        serve(store.handlers, there)
    receive_frame(here)  # the greeting
    assert receive_frame(here) is None


def test_a_server_refuses_a_request_that_is_deeper_than_values_are_and_goes_on(socket_pair):
    here, there = socket_pair
    put = {"op": "persist/kv-put", "key": "a", "value": deep("list", 150)}
    send_frame(here, msgspec.msgpack.encode([1, put]))
    send_frame(here, msgspec.msgpack.encode([2, {"op": "persist/kv-keys"}]))
    with open_store("memory:") as store:
        server = threading.Thread(target=serve, args=(store.handlers, there))
        server.start()
        _, *replies = [msgspec.msgpack.decode(receive_frame(here)) for _ in range(3)]
        here.close()
        server.join()
    assert [replies[0][:2], replies[0][2][0], replies[1]] == [[1, False], "InvalidRequest", [2, True, []]]


def test_an_answer_that_is_deep_is_an_error_and_the_connection_goes_on(socket_pair):
    here, there = socket_pair
    with open_store("memory:") as store:
        rows = {**store.handlers, KvGet: lambda request: deep("list")}
        server = threading.Thread(target=serve, args=(rows, there))
        server.start()
        with Store(RemoteStore(here)) as remote:
            with pytest.raises(InternalError, match="the reply cannot be sent, RecursionError"):
                remote.run(kv.get("a"))
            assert remote.run(kv.put("a", 1)) == 1
        server.join()


@pytest.mark.parametrize("frame", [DEEP_BYTES, b"\x93\x01\xc3" + DEEP_BYTES, b"\x93\x01\xc2" + DEEP_BYTES, b"\xa1\xff"])
def test_a_client_that_gets_a_deep_or_broken_frame_says_that_the_store_is_lost(socket_pair, frame):
    here, there = socket_pair
    send_greeting(there)
    with Store(RemoteStore(here)) as remote:
        send_frame(there, frame)
        with pytest.raises(StoreUnavailable, match="is not a reply"):
            remote.run(kv.get("a"))


class Announcing:
    """A peer that announces a frame, sends some of it, and is gone."""

    def __init__(self, length: int, sent: int):
        self.data = length.to_bytes(4, "big") + b"x" * sent
        self.asked: list[int] = []

    def receive(self, size_bytes: int) -> bytes:
        self.asked.append(size_bytes)
        data, self.data = self.data[:size_bytes], self.data[size_bytes:]
        return data

    def send(self, data: bytes) -> None:
        raise AssertionError("nothing is sent")

    def close(self) -> None:
        """Nothing is held."""


def test_what_a_frame_announces_is_not_asked_for_before_it_is_there():
    peer = Announcing(1024**3, 300_000)
    with pytest.raises(StoreUnavailable, match="ended after 300000 of 1073741824 bytes"):
        receive_frame(peer)
    assert max(peer.asked) <= 128 * 1024
    whole = Announcing(300_000, 300_000)
    assert receive_frame(whole) == b"x" * 300_000


def test_a_frame_that_announces_too_much_is_refused_before_it_is_read():
    peer = Announcing(2**32 - 1, 10)
    with pytest.raises(StoreUnavailable, match="a frame of 4294967295 bytes was announced, the limit is 1073741824"):
        receive_frame(peer)
    assert peer.asked == [4]


def test_a_served_process_that_is_given_a_deep_option_says_so():
    command = [sys.executable, "-m", "interpreters.serving", "memory:", "clock=" + "[" * DEPTH + "]" * DEPTH]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"InvalidRequest" in done.stdout
