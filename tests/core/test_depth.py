"""What is nested 10,000 deep is refused by an error of ours, by every encoder and every decoder, and before a write."""

import socket
import subprocess
import sys
import threading
import tracemalloc
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from interpreters import Store, open_store
from interpreters.stores.served import RemoteStore, serve
from interpreters.stores.served.processes import option_of_argument as option_of
from interpreters.stores.served.wire import FRAME_LIMIT_BYTES, WIRE_VERSION, FrameParser, frame_of
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
HELLO = frame_of({"wire": WIRE_VERSION, "token": None})
GREETING = frame_of([0, True, {"wire": WIRE_VERSION, "capabilities": None}])
DEEP_BYTES = b"\x91" * DEPTH + b"\xc0"


class Node(msgspec.Struct):
    inner: Any


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def replies_in(connected: socket.socket) -> list[Any]:
    """All that a server has said until it closed."""
    data = b"".join(iter(lambda: connected.recv(65536), b""))
    return [msgspec.msgpack.decode(body) for body in FrameParser(FRAME_LIMIT_BYTES).take(data)]


def deep(kind: str, depth: int = DEPTH) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value} if kind == "dict" else Node(value)
    return value


kinds = pytest.mark.parametrize("kind", ["list", "dict", "Struct"])


@pytest.fixture
def socket_pair():
    here, there = socket.socketpair()
    with here, there:
        yield here, there


@contextmanager
def served():
    here, there = socket.socketpair()
    with open_store("memory:") as behind:
        server = threading.Thread(target=serve, args=(behind.interpreter, there))
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
    here.sendall(HELLO + framed(frame))
    with open_store("memory:") as store:
        serve(store.interpreter, there)
    _, (call_id, is_answer, error) = replies_in(here)
    assert (call_id, is_answer, error[0]) == (0, False, "InvalidRequest")
    assert "is not a call" in error[1]


def test_a_server_refuses_a_request_that_is_deeper_than_values_are_and_goes_on(socket_pair):
    here, there = socket_pair
    put = {"op": "persist/kv-put", "key": "a", "value": deep("list", 150)}
    here.sendall(HELLO + frame_of([1, put]) + frame_of([2, {"op": "persist/kv-keys"}]))
    here.shutdown(socket.SHUT_WR)
    with open_store("memory:") as store:
        serve(store.interpreter, there)
    _, *replies = replies_in(here)
    assert [replies[0][:2], replies[0][2][0], replies[1]] == [[1, False], "InvalidRequest", [2, True, []]]


def test_an_answer_that_is_deep_is_an_error_and_the_connection_goes_on(socket_pair):
    here, there = socket_pair
    with open_store("memory:") as store:
        rows = {**store.handlers, KvGet: lambda request: deep("list")}
        server = threading.Thread(target=serve, args=(store.interpreter, there), kwargs={"handlers": rows})
        server.start()
        with Store(RemoteStore(here)) as remote:
            with pytest.raises(InternalError, match="the reply cannot be sent, RecursionError"):
                remote.run(kv.get("a"))
            assert remote.run(kv.put("a", 1)) == 1
        server.join()


@pytest.mark.parametrize("frame", [DEEP_BYTES, b"\x93\x01\xc3" + DEEP_BYTES, b"\x93\x01\xc2" + DEEP_BYTES, b"\xa1\xff"])
def test_a_client_that_gets_a_deep_or_broken_frame_says_that_the_store_is_lost(socket_pair, frame):
    here, there = socket_pair
    there.sendall(GREETING)
    with Store(RemoteStore(here)) as remote:
        there.sendall(framed(frame))
        with pytest.raises(StoreUnavailable, match="is not a reply"):
            remote.run(kv.get("a"))


def test_what_a_frame_announces_is_not_kept_before_it_is_there():
    parser = FrameParser(FRAME_LIMIT_BYTES)
    data = (1024**3).to_bytes(4, "big") + b"x" * 300_000
    tracemalloc.start()
    assert parser.take(data) == []
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1_000_000
    assert parser.is_within


def test_a_frame_that_announces_too_much_is_refused_before_it_is_there():
    with pytest.raises(InvalidRequest, match="a frame of 4294967295 bytes was announced, the limit is 1073741824"):
        FrameParser(FRAME_LIMIT_BYTES).take(b"\xff\xff\xff\xff" + b"x" * 10)


def test_a_served_process_that_is_given_a_deep_option_says_so(socket_pair):
    here, there = socket_pair
    command = [sys.executable, "-m", "interpreters.serving", "memory:", "clock=" + "[" * DEPTH + "]" * DEPTH]
    done = subprocess.run(command, stdin=there, capture_output=True, check=False)
    there.close()
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    ((call_id, is_answer, error),) = replies_in(here)
    assert (call_id, is_answer, error[0]) == (0, False, "InvalidRequest")
