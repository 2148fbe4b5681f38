"""A store in another process: what goes over one connection, what is refused, and what a lost peer means."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import anyio
import msgspec
import pytest

from interpreters import Store, open_store
from interpreters.stores.served import RemoteStore, serve
from interpreters.stores.served.wire import FRAME_LIMIT_BYTES, WIRE_VERSION, FrameParser, frame_of
from persist_effects import (
    BlobNotFound,
    InternalError,
    InvalidRequest,
    StoreUnavailable,
    TooLarge,
    UncertainOutcome,
    all_of,
    blob,
    codec,
    kv,
    log,
    perform,
)
from persist_effects.requests import KvGet, KvPut, LastSeq, Transact, Wait

HELLO = frame_of({"wire": WIRE_VERSION, "token": None})
GREETING = [0, True, {"wire": WIRE_VERSION, "capabilities": None, "may": "write"}]


@pytest.fixture
def store():
    with open_store("memory:") as store:
        yield store


@pytest.fixture
def served():
    with Store(RemoteStore.spawn("memory:")) as store:
        yield store


@pytest.fixture
def socket_pair():
    here, there = socket.socketpair()
    with here, there:
        yield here, there


@contextmanager
def served_by_a_thread(store, connected, **options):
    thread = threading.Thread(target=serve, args=(store.interpreter, connected), kwargs=options)
    thread.start()
    yield
    thread.join()


def frames_in(connected):
    """All frames that come until the peer closes."""
    data = b"".join(iter(lambda: connected.recv(65536), b""))
    return [msgspec.msgpack.decode(body) for body in FrameParser(FRAME_LIMIT_BYTES).take(data)]


def next_frame(connected, parser):
    """The next one, where they come one by one."""
    while True:
        frames = parser.take(connected.recv(65536))
        if frames:
            (frame,) = frames
            return msgspec.msgpack.decode(frame)


def test_a_store_is_served_over_a_socket_pair(socket_pair, store):
    here, there = socket_pair
    with served_by_a_thread(store, there), Store(RemoteStore(here)) as remote:
        event = remote.run(log.append("orders/1", "placed", {"total": 12}))
        assert store.run(log.read("orders/1")) == [event]


def test_blobs_live_with_the_served_store(served):
    ref = served.run(blob.put(b"hello", "text/plain"))
    assert served.run(blob.get(ref)) == b"hello"
    missing = ref.cid[:-1] + "a"
    with pytest.raises(BlobNotFound) as caught:
        served.run(blob.get(missing))
    assert caught.value.cid == missing


def test_errors_arrive_as_what_they_were(served):
    with pytest.raises(TooLarge) as caught:
        served.run(kv.put("big", b"x" * (codec.PAYLOAD_LIMIT_BYTES + 1)))
    assert caught.value.limit_bytes == codec.PAYLOAD_LIMIT_BYTES
    with pytest.raises(InvalidRequest, match="is a tuple"):
        served.run(kv.put("bad", (1,)))
    assert served.run(kv.keys()) == []


def test_requests_are_answered_while_another_one_waits(served):
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(served.run(perform(Wait(0, "", 60.0)))))
    waiter.start()
    served.run(kv.put("a", 1))
    served.run(log.append("s", "made", 1))
    waiter.join()
    assert answers == [1]


def test_several_requests_are_sent_without_waiting_for_one_another(served):
    assert served.run(all_of(kv.put("a", 1), kv.put("b", 2), LastSeq("s"))) == (1, 2, 0)
    assert served.run_many(kv.has(key) for key in ("a", "b", "c")) == [True, True, False]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_use_a_served_store(served, backend):
    async def main():
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(served.arun, kv.update("count", lambda count: count + 1, 0))
        return await served.arun(perform(Wait(0, "", 0.001)))

    assert anyio.run(main, backend=backend) == 0
    assert served.run(kv.get("count")) == 20


def test_a_write_that_was_on_its_way_to_a_killed_process_is_uncertain():
    remote = RemoteStore.spawn("memory:")
    with Store(remote) as store:
        store.run(kv.put("a", 1))
        pid = remote._door.pid
        os.kill(pid, signal.SIGSTOP)  # so that the request surely waits when the process dies
        write = remote._call(KvPut("a", 2), come := [].append)
        remote._line.ask([write])
        while not write.is_sent:
            assert come is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(
            StoreUnavailable, match="that served 'memory:' was killed by signal 9, SIGKILL: start it again"
        ):
            store.run(kv.get("a"))
    (outcome,) = come.__self__
    assert isinstance(outcome.error, UncertainOutcome)
    assert "persist/kv-put was on its way" in str(outcome.error)


def test_a_process_that_was_killed_before_anything_was_asked_is_named_too():
    remote = RemoteStore.spawn("memory:")
    with Store(remote) as store:
        os.kill(remote._door.pid, signal.SIGKILL)
        remote._line._thread.join()
        # Nothing was sent, so nothing is uncertain.
        for program in (kv.get("a"), kv.put("a", 1)):
            with pytest.raises(StoreUnavailable, match="was killed by signal 9, SIGKILL: start it again"):
                store.run(program)


def lost_peer(answer_frames):
    """A client whose peer reads one request, sends these frames, and closes."""
    here, there = socket.socketpair()

    def peer():
        with there:
            parser = FrameParser(FRAME_LIMIT_BYTES)
            next_frame(there, parser)
            there.sendall(frame_of(GREETING))
            next_frame(there, parser)
            for frame in answer_frames:
                there.sendall(frame)

    thread = threading.Thread(target=peer)
    thread.start()
    return RemoteStore(here), thread


def ask(remote, thread, request):
    try:
        return remote.handlers[type(request)](request)
    finally:
        remote.close()
        thread.join()


def test_a_lost_read_is_unavailable_and_a_lost_write_is_uncertain():
    with pytest.raises(StoreUnavailable, match="persist/kv-get was not answered"):
        ask(*lost_peer([]), KvGet("a"))
    for write in (KvPut("a", 1), Transact((KvPut("a", 1),))):
        with pytest.raises(UncertainOutcome, match="whether it was written is not known"):
            ask(*lost_peer([]), write)


def framed(body):
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ([framed(b"\x00" * 10)[:7]], StoreUnavailable, "the connection ended in the middle of a frame"),
        ([b"\xff\xff\xff\xff"], StoreUnavailable, "a frame of 4294967295 bytes was announced"),
        ([framed(b"junk")], StoreUnavailable, "the store is lost: the connection was lost"),
        ([frame_of([99, True, 1])], StoreUnavailable, "a reply came to call 99"),
        ([frame_of([1, True, "seven"])], InternalError, "the reply to persist/last-seq is not"),
        ([frame_of([1, False, ["Odd", 1]])], InternalError, "unknown error 'Odd'"),
        ([frame_of([1, False, 7])], InternalError, "the reply to persist/last-seq is not"),
        ([frame_of([0, False, ["StoreUnavailable", "no tea"]])], StoreUnavailable, "the store is lost: no tea"),
    ],
)
def test_a_peer_that_speaks_otherwise_is_found_out(frames, error, message):
    with pytest.raises(error, match=message):
        ask(*lost_peer(frames), LastSeq("s"))


def serve_frames(store, frames, handlers=None):
    """Serve these frames from a client that then closes, and give the replies."""
    here, there = socket.socketpair()
    with here:
        here.sendall(HELLO + b"".join(map(frame_of, frames)))
        here.shutdown(socket.SHUT_WR)
        serve(store.interpreter, there, handlers=handlers)
        greeting, *replies = frames_in(here)
        assert greeting[2]["wire"] == WIRE_VERSION
        return replies


def test_the_server_answers_plain_records(store):
    assert serve_frames(
        store,
        [
            [7, {"op": "persist/kv-put", "key": "a", "value": [1]}],
            [8, {"op": "persist/kv-get", "key": "a"}],
        ],
    ) == [[7, True, 1], [8, True, {"value": [1], "revision": 1}]]


def test_the_server_refuses_what_is_no_request_and_goes_on(store):
    replies = serve_frames(
        store,
        [
            [1, {"op": "persist/nothing"}],
            [2, {"op": "persist/last-seq", "stream": ""}],
            [3, {"op": "persist/last-seq"}],
            [4, "text"],
            [5, {"op": "persist/last-seq", "stream": "s"}],
        ],
    )
    assert [reply[:2] for reply in replies] == [[1, False], [2, False], [3, False], [4, False], [5, True]]
    assert all(reply[2][0] == "InvalidRequest" for reply in replies[:4])


def test_a_handlers_own_bug_is_told_to_the_client_and_ends_nothing(store):
    def broken(request):
        raise ZeroDivisionError("oh")

    calls = [[1, {"op": "persist/kv-get", "key": "a"}], [2, {"op": "blob/has", "cid": "x"}]]
    replies = sorted(serve_frames(store, calls, handlers={**store.handlers, KvGet: broken}))
    assert replies[0] == [1, False, ["InternalError", "ZeroDivisionError: oh"]]
    assert replies[1][:2] == [2, False]


def test_a_request_that_the_server_has_no_row_for_is_refused_by_name(store):
    assert serve_frames(store, [[1, {"op": "persist/kv-get", "key": "a"}]], handlers={}) == [
        [1, False, ["UnhandledEffect", "persist/kv-get", "KvGet"]]
    ]


@pytest.mark.parametrize("calls", [["junk"], [[2, {"op": "persist/streams"}], [2, {"op": "persist/streams"}]]])
def test_a_frame_that_is_no_call_ends_the_connection_and_says_why(store, calls, caplog):
    *_, (call_id, is_answer, error) = serve_frames(store, calls)
    assert (call_id, is_answer, error[0]) == (0, False, "InvalidRequest")
    assert "was dropped: " in caplog.text
    assert error[1] in caplog.text


def test_the_process_that_serves_refuses_a_bad_url_in_one_line(socket_pair):
    _, there = socket_pair
    for arguments, message in (
        (["nothing:"], "'nothing:' names no store"),
        ([], "usage: python -m interpreters.serving"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "interpreters.serving", *arguments], stdin=there, capture_output=True, check=False
        )
        assert done.returncode == 2
        assert message in done.stderr.decode()
        assert len(done.stderr.splitlines()) == 1


def test_a_value_that_cannot_be_stored_is_refused_before_it_is_sent(served):
    for write in (kv.put("a", object()), log.append("s", "made", {1: 2}), kv.put("a", 2**64)):
        with pytest.raises(InvalidRequest):
            served.run(write)
    assert served.run(kv.put("a", 1)) == 1


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("nothing:", {}, "'nothing:' names no store"),
        (7, {}, "a store's URL is an int, 7: give a str"),
        ("memory:", {"color": "red"}, "a memory store has no option 'color'"),
        ("memory:", {"payload_limit_bytes": "1"}, "payload_limit_bytes is a str, '1': give an integer"),
        ("memory:", {"clock": len}, "the option clock is .*, which cannot go to another process: give a plain value"),
    ],
)
def test_a_store_that_cannot_be_opened_in_its_process_is_refused_here(url, options, message):
    with pytest.raises(InvalidRequest, match=message):
        RemoteStore.spawn(url, **options)


def test_a_process_that_ends_before_it_served_is_told_of_with_its_url_and_exit_status(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StoreUnavailable, match=r"not opened: the process that served 'memory:' ended with exit stat"):
        RemoteStore.spawn("memory:")


def test_a_program_that_cannot_be_started_is_told_of(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/not-there")
    with pytest.raises(StoreUnavailable, match=r"the process that serves 'memory:': .*No such file.*not-there"):
        RemoteStore.spawn("memory:")


def test_a_spawned_store_takes_a_payload_limit():
    with open_store("spawn:memory:", payload_limit_bytes=100) as store, pytest.raises(TooLarge) as caught:
        store.run(kv.put("a", "x" * 101))
    assert caught.value.limit_bytes == 100


def test_values_larger_than_a_socket_holds_go_both_ways_at_once(served):
    large = "x" * 2_000_000
    served.run(kv.put("large", large))

    def work(number):
        for _ in range(5):
            values = served.run(all_of(kv.get("large"), kv.put(f"key/{number}", large), kv.get("large")))
            assert (values[0], values[2]) == (large, large)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [None] * 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (lambda request: object(), "the reply cannot be sent, TypeError: Encoding objects of type object is unsupp"),
        (lambda request: refuse("caf\udce9"), r"LookupError: caf\\udce9"),
    ],
)
def test_a_reply_that_cannot_be_sent_is_an_error_and_the_connection_goes_on(store, socket_pair, row, message):
    here, there = socket_pair
    with served_by_a_thread(store, there, handlers={**store.handlers, KvGet: row}), Store(RemoteStore(here)) as remote:
        with pytest.raises(InternalError, match=message):
            remote.run(kv.get("color"))
        assert remote.run(kv.put("color", "red")) == 1


def refuse(text):
    raise LookupError(text)


@pytest.mark.parametrize("content", [[], ["Truncated"], 7])
def test_a_reply_that_is_nothing_like_one_fails_its_request_alone(content):
    with pytest.raises(InternalError, match="the reply to persist/kv-get is not what a store answers"):
        ask(*lost_peer([frame_of([1, False, content])]), KvGet("color"))


# What the peers say first


def test_a_client_knows_what_the_store_behind_the_connection_promises(tmp_path):
    with open_store(f"spawn:file:{tmp_path / 'store'}", sync="os", payload_limit_bytes=100) as store:
        promised = store.capabilities
    assert (promised.durability, promised.processes, promised.payload_limit_bytes) == ("os", "one-writer", 100)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        ([0, True, {"wire": 2, "capabilities": None}], "the server speaks version 2 of the wire, and this client vers"),
        ([0, True, {"wire": 5, "news": 1}], "the server speaks version 5 of the wire"),
        ([0, True, None], "is not a greeting of version 4 of the wire"),
        ([7, True, {"wire": 4}], "is not a greeting of version 4 of the wire"),
        ([0, False, 7], "does not say why"),
        ([0, False, ["StoreUnavailable", "no tea"]], "no tea"),
    ],
)
def test_a_server_that_speaks_another_version_is_refused_by_name(socket_pair, greeting, message):
    here, there = socket_pair
    there.sendall(frame_of(greeting))
    with pytest.raises(StoreUnavailable, match=message):
        RemoteStore(here)
    assert frames_in(there) == [{"wire": WIRE_VERSION, "token": None}]


@pytest.mark.parametrize(
    ("hello", "error", "message"),
    [
        ({"wire": 2, "token": None}, "StoreUnavailable", "the client speaks version 2 of the wire, and this server"),
        ({"wire": 5, "color": "red"}, "StoreUnavailable", "the client speaks version 5 of the wire"),
        ([1, {"op": "persist/streams"}], "InvalidRequest", "is not a hello of version 4 of the wire"),
        ({"wire": 4, "token": 7}, "InvalidRequest", "is not a hello of version 4 of the wire"),
    ],
)
def test_a_client_that_speaks_another_version_is_refused_by_name(socket_pair, store, hello, error, message):
    here, there = socket_pair
    here.sendall(frame_of(hello))
    serve(store.interpreter, there)
    ((call_id, is_answer, record),) = frames_in(here)
    assert (call_id, is_answer, record[0]) == (0, False, error)
    assert message in record[1]


def test_a_server_that_closes_before_it_greets_is_told_of(socket_pair):
    here, there = socket_pair
    there.close()
    with pytest.raises(StoreUnavailable, match="the server closed the connection before it greeted"):
        RemoteStore(here)
