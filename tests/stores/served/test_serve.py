"""A store in another process: the same programs over a socket pair and over pipes, and what a lost peer means."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import msgspec
import pytest

from interpreters import Store, open_store
from interpreters.conformance import StoreConformance
from interpreters.stores.served import PipeTransport, RemoteStore, SocketTransport, serve
from interpreters.stores.served.server import send_greeting, send_reply
from interpreters.stores.served.transport import WIRE_VERSION, receive_frame, send_frame
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


class TestServedStore(StoreConformance):
    """The whole suite, on a store in another process, over pipes."""

    def open_store(self) -> Store:
        return Store(RemoteStore.spawn("memory:"))

    # Each of the sequences has a process of its own.
    @pytest.mark.exploration
    def test_the_store_agrees_with_the_model_over_any_sequence_of_requests(self) -> None:
        super().test_the_store_agrees_with_the_model_over_any_sequence_of_requests()


@pytest.fixture
def served():
    with Store(RemoteStore.spawn("memory:")) as store:
        yield store


@pytest.fixture
def socket_pair():
    here, there = socket.socketpair()
    with here, there:
        yield SocketTransport(here), SocketTransport(there)


def test_a_store_is_served_over_a_socket_pair(socket_pair):
    here, there = socket_pair
    with open_store("memory:") as behind:
        server = threading.Thread(target=serve, args=(behind.handlers, there))
        server.start()
        with Store(RemoteStore(here)) as store:
            event = store.run(log.append("orders/1", "placed", {"total": 12}))
            assert behind.run(log.read("orders/1")) == [event]
        server.join()


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
        pid = remote._child.pid
        os.kill(pid, signal.SIGSTOP)  # so that the request surely waits when the process dies
        errors = []

        def write():
            try:
                store.run(kv.put("a", 2))
            except UncertainOutcome as error:
                errors.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        os.kill(pid, signal.SIGKILL)
        writer.join()
        assert "persist/kv-put was on its way" in str(errors[0])
        with pytest.raises(
            StoreUnavailable, match="that served 'memory:' was killed by signal 9, SIGKILL: start it again"
        ):
            store.run(kv.get("a"))


def test_a_process_that_was_killed_before_anything_was_asked_is_named_too():
    remote = RemoteStore.spawn("memory:")
    with Store(remote) as store:
        os.kill(remote._child.pid, signal.SIGKILL)
        remote._child.process.wait()
        # Whoever meets it first, the one who sends or the one who reads.
        for program in (kv.get("a"), kv.get("a")):
            with pytest.raises(StoreUnavailable, match="was killed by signal 9, SIGKILL: start it again"):
                store.run(program)


def lost_peer(answer_frames):
    """A client whose peer reads one request, sends these frames, and closes."""
    here, there = socket.socketpair()

    def peer():
        with there:
            send_greeting(SocketTransport(there))
            receive_frame(SocketTransport(there))
            for frame in answer_frames:
                there.sendall(frame)

    thread = threading.Thread(target=peer)
    thread.start()
    return RemoteStore(SocketTransport(here)), thread


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


def frame(body):
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ([frame(b"\x00" * 10)[:7]], StoreUnavailable, "the connection ended after 3 of 10 bytes of a frame"),
        ([b"\xff\xff\xff\xff"], StoreUnavailable, "a frame of 4294967295 bytes was announced"),
        ([frame(b"junk")], StoreUnavailable, "the store is lost: the connection was lost"),
        ([frame(msgspec.msgpack.encode([99, True, 1]))], StoreUnavailable, "a reply came to call 99"),
        ([frame(msgspec.msgpack.encode([1, True, "seven"]))], InternalError, "the reply to persist/last-seq is not"),
        ([frame(msgspec.msgpack.encode([1, False, ["Odd", 1]]))], InternalError, "unknown error 'Odd'"),
        ([frame(msgspec.msgpack.encode([1, False, 7]))], InternalError, "the reply to persist/last-seq is not"),
    ],
)
def test_a_peer_that_speaks_otherwise_is_found_out(frames, error, message):
    with pytest.raises(error, match=message):
        ask(*lost_peer(frames), LastSeq("s"))


GREETING = [0, True, {"wire": WIRE_VERSION, "capabilities": None}]


def serve_frames(handlers, frames):
    """Serve these frames from a client that then closes, and give the replies."""
    here, there = socket.socketpair()
    with here:
        for body in frames:
            send_frame(SocketTransport(here), body)
        here.shutdown(socket.SHUT_WR)
        serve(handlers, SocketTransport(there))
        assert msgspec.msgpack.decode(receive_frame(SocketTransport(here))) == GREETING
        replies = []
        while (reply := receive_frame(SocketTransport(here))) is not None:
            replies.append(msgspec.msgpack.decode(reply))
        return replies


def call(call_id, record):
    return msgspec.msgpack.encode([call_id, record])


def test_the_server_answers_plain_records(store):
    assert serve_frames(
        store.handlers,
        [
            call(7, {"op": "persist/kv-put", "key": "a", "value": [1]}),
            call(8, {"op": "persist/kv-get", "key": "a"}),
        ],
    ) == [[7, True, 1], [8, True, {"value": [1], "revision": 1}]]


def test_the_server_refuses_what_is_no_request_and_goes_on(store):
    replies = serve_frames(
        store.handlers,
        [
            call(1, {"op": "persist/nothing"}),
            call(2, {"op": "persist/last-seq", "stream": ""}),
            call(3, {"op": "persist/last-seq"}),
            call(4, "text"),
            call(5, {"op": "persist/last-seq", "stream": "s"}),
        ],
    )
    assert [reply[:2] for reply in replies] == [[1, False], [2, False], [3, False], [4, False], [5, True]]
    assert all(reply[2][0] == "InvalidRequest" for reply in replies[:4])


def test_a_handlers_own_bug_is_told_to_the_client_and_ends_nothing(store):
    def broken(request):
        raise ZeroDivisionError("oh")

    replies = serve_frames(
        {**store.handlers, KvGet: broken},
        [call(1, {"op": "persist/kv-get", "key": "a"}), call(2, {"op": "blob/has", "cid": "x"})],
    )
    assert replies[0] == [1, False, ["InternalError", "ZeroDivisionError: oh"]]
    assert replies[1][:2] == [2, False]


def test_a_request_that_the_server_has_no_row_for_is_refused_by_name():
    assert serve_frames({}, [call(1, {"op": "persist/kv-get", "key": "a"})]) == [
        [1, False, ["UnhandledEffect", "persist/kv-get", "KvGet"]]
    ]


def test_a_frame_that_is_no_call_ends_the_connection(store):
    with pytest.raises(InvalidRequest, match=r"a frame of 4 bytes is not a call, `\[id, request\]`"):
        serve_frames(store.handlers, [b"junk"])


def test_a_transport_of_pipes_sends_all_of_a_large_frame():
    reading, writing = os.pipe()
    big = b"x" * 300_000  # more than a pipe holds, so it is written in parts
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        transport = PipeTransport(reader, writer)
        sender = threading.Thread(target=send_frame, args=(transport, big))
        sender.start()
        assert receive_frame(transport) == big
        sender.join()


def test_the_process_that_serves_refuses_a_bad_url_in_one_line():
    for arguments, message in (
        (["nothing:"], "'nothing:' names no store"),
        ([], "usage: python -m interpreters.serving"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "interpreters.serving", *arguments], capture_output=True, check=False
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
    with pytest.raises(StoreUnavailable, match=r"'memory:' was not opened: the process .* ended with exit status 1"):
        RemoteStore.spawn("memory:")


def test_a_spawned_store_takes_a_payload_limit():
    with Store(RemoteStore.spawn("memory:", payload_limit_bytes=100)) as store, pytest.raises(TooLarge) as caught:
        store.run(kv.put("a", "x" * 101))
    assert caught.value.limit_bytes == 100


def test_an_option_without_a_json_value_is_refused_by_the_process_that_serves():
    done = subprocess.run(
        [sys.executable, "-m", "interpreters.serving", "memory:", "clock"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"the option 'clock' has no JSON value: write NAME=VALUE" in done.stderr


def test_an_answer_that_comes_after_the_end_goes_nowhere(store, socket_pair):
    here, there = socket_pair
    is_waiting, errors = threading.Event(), []

    def wait(request):
        is_waiting.set()
        return store.handlers[Wait](request)

    server = threading.Thread(target=serve, args=({**store.handlers, Wait: wait}, there))
    server.start()
    send_frame(here, call(1, {"op": "persist/wait", "after": 0, "timeout": 60.0}))
    is_waiting.wait()
    (waiter,) = [thread for thread in threading.enumerate() if "_carry_out" in thread.name]
    threading.excepthook = errors.append
    try:
        here.close()
        server.join()
        store.close()
        waiter.join()
    finally:
        threading.excepthook = threading.__excepthook__
    assert errors == []


def test_values_larger_than_a_pipe_holds_go_both_ways_at_once(served):
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
    server = threading.Thread(target=serve, args=({**store.handlers, KvGet: row}, there))
    server.start()
    with Store(RemoteStore(here)) as remote:
        with pytest.raises(InternalError, match=message):
            remote.run(kv.get("color"))
        assert remote.run(kv.put("color", "red")) == 1
    server.join()


def refuse(text):
    raise LookupError(text)


@pytest.mark.parametrize("content", [[], ["Truncated"], 7])
def test_a_reply_that_is_nothing_like_one_fails_its_request_alone(socket_pair, content):
    here, there = socket_pair
    send_greeting(there)
    with Store(RemoteStore(here)) as remote, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(remote.run, kv.get("color"))
        assert receive_frame(there) is not None
        send_frame(there, msgspec.msgpack.encode([1, False, content]))
        with pytest.raises(InternalError, match="the reply to persist/kv-get is not what a store answers"):
            asked.result(60.0)
        there.close()


# What the peer greets with


def test_a_client_knows_what_the_store_behind_the_connection_promises(tmp_path):
    with Store(RemoteStore.spawn(f"file:{tmp_path / 'store'}", sync="os", payload_limit_bytes=100)) as store:
        promised = store.capabilities
    assert (promised.durability, promised.processes, promised.payload_limit_bytes) == ("os", "one-writer", 100)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        ([0, True, None], "the peer speaks version 1 of the wire, and this package version 2: use the same release"),
        ([0, True, {"wire": 3, "capabilities": None}], "the peer speaks version 3 of the wire"),
        ([7, True, {"wire": 2, "capabilities": None}], "the peer speaks version 1 of the wire"),
    ],
)
def test_a_peer_that_speaks_another_version_is_refused_by_name(socket_pair, greeting, message):
    here, there = socket_pair
    send_reply(there, *greeting)
    with pytest.raises(StoreUnavailable, match=message):
        RemoteStore(here)
    assert receive_frame(there) is None


def test_a_peer_that_closes_before_it_greets_is_told_of(socket_pair):
    here, there = socket_pair
    there.close()
    with pytest.raises(StoreUnavailable, match="the peer closed the connection before it greeted"):
        RemoteStore(here)
