"""The process that serves a store over its stdin, run here: what its client and its user are told."""

import io
import os
import socket
import threading
from types import SimpleNamespace

import msgspec
import pytest

from interpreters import Store, serving
from interpreters.stores.served import RemoteStore
from interpreters.stores.served.wire import FRAME_LIMIT_BYTES, FrameParser
from persist_effects import InvalidRequest, errors, kv


class Process:
    """The streams of the process, and the other end of its stdin."""

    def __init__(self, monkeypatch) -> None:
        self.peer, self.stdin = socket.socketpair()
        self.stderr = io.StringIO()
        monkeypatch.setattr(serving, "sys", SimpleNamespace(stdin=self.stdin, stderr=self.stderr))


@pytest.fixture
def process(monkeypatch):
    process = Process(monkeypatch)
    with process.peer, process.stdin:
        yield process


def test_it_serves_what_its_arguments_say_and_ends_when_its_client_does(process):
    ended = []
    server = threading.Thread(
        target=lambda: ended.append(serving.main(["memory:", "payload_limit_bytes=100"])),
    )
    server.start()
    with Store(RemoteStore(process.peer)) as store:
        assert store.run(kv.put("a", 1)) == 1
        with pytest.raises(errors.TooLarge, match="100"):
            store.run(kv.put("a", "x" * 101))
    server.join()
    assert ended == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing:"], "'nothing:' names no store"),
        (["memory:", "clock"], "the option 'clock' has no JSON value: write NAME=VALUE"),
    ],
)
def test_a_store_that_cannot_be_opened_is_told_to_the_client_and_on_stderr_in_one_line(process, arguments, message):
    assert serving.main(arguments) == 2
    (frame,) = FrameParser(FRAME_LIMIT_BYTES).take(process.peer.recv(65536))
    call_id, is_open, record = msgspec.msgpack.decode(frame)
    error = errors.error_from_record(record)
    assert (call_id, is_open, type(error)) == (0, False, InvalidRequest)
    assert message in str(error)
    told = process.stderr.getvalue()
    assert told == f"persist-effects serve: {error}\n"


def test_without_a_url_it_says_how_it_is_called(process):
    assert serving.main([]) == 2
    assert process.stderr.getvalue() == "usage: python -m interpreters.serving URL [OPTION=VALUE ...]\n"


def test_a_stdin_that_is_not_a_socket_is_refused(process, monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(serving.sys, "stdin", nothing)
        assert serving.main(["memory:"]) == 2
    assert "stdin is not a socket" in process.stderr.getvalue()


def test_an_interrupt_ends_it_in_one_line(process, monkeypatch):
    def interrupted(interpreter, connected, handlers, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "serve", interrupted)
    assert serving.main(["memory:"]) == 130
    assert process.stderr.getvalue() == "persist-effects serve: interrupted\n"
