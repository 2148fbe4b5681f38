"""The process that serves a store over its stdin and stdout, run here: what its client and its user are told."""

import io
import os
import threading
from types import SimpleNamespace

import msgspec
import pytest

from interpreters import Store, serving
from interpreters.stores.served import PipeTransport, RemoteStore
from interpreters.stores.served.transport import receive_frame
from persist_effects import InvalidRequest, errors, kv


def pipe():
    reading, writing = os.pipe()
    return open(reading, "rb", buffering=0), open(writing, "wb", buffering=0)


class Process:
    """The streams of the process, and this end of them."""

    def __init__(self, monkeypatch) -> None:
        (self.stdin, self.writing), (self.reading, self.stdout) = pipe(), pipe()
        self.stderr = io.StringIO()
        own = SimpleNamespace(
            stdin=SimpleNamespace(buffer=self.stdin), stdout=SimpleNamespace(buffer=self.stdout), stderr=self.stderr
        )
        monkeypatch.setattr(serving, "sys", own)

    def end(self) -> None:
        for end in (self.stdin, self.stdout, self.writing, self.reading):
            end.close()


@pytest.fixture
def process(monkeypatch):
    process = Process(monkeypatch)
    yield process
    process.end()


def first_reply(reading) -> tuple[bool, object]:
    call, is_open, answer = msgspec.msgpack.decode(receive_frame(PipeTransport(reading, io.BytesIO())))
    assert call == 0
    return is_open, answer


def test_its_first_reply_is_that_the_store_is_open_and_it_ends_when_its_input_does(process):
    ended = []

    def run() -> None:
        ended.append(serving.main(["memory:", "payload_limit_bytes=100"]))
        process.stdout.close()  # as its end does

    server = threading.Thread(target=run)
    server.start()
    with Store(RemoteStore(PipeTransport(process.reading, process.writing))) as store:
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
    is_open, record = first_reply(process.reading)
    error = errors.error_from_record(record)
    assert (is_open, type(error)) == (False, InvalidRequest)
    assert message in str(error)
    told = process.stderr.getvalue()
    assert told == f"persist-effects serve: {error}\n"


def test_without_a_url_it_says_how_it_is_called(process):
    assert serving.main([]) == 2
    assert process.stderr.getvalue() == "usage: python -m interpreters.serving URL [OPTION=VALUE ...]\n"


def test_an_interrupt_ends_it_in_one_line(process, monkeypatch):
    def interrupted(handlers, transport, capabilities):
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "serve", interrupted)
    assert serving.main(["memory:"]) == 130
    assert process.stderr.getvalue() == "persist-effects serve: interrupted\n"
