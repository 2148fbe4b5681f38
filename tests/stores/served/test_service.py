"""`persist-effects serve` and `health`: run here in the main thread, where signals come, and as processes."""

import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import urllib.request
from types import SimpleNamespace

import pytest
from served_stores import PATIENCE_SECONDS
from server_processes import started
from typer.testing import CliRunner

from interpreters import cli, open_store, serving
from interpreters.stores.served import service
from interpreters.stores.served.limits import ServingLimits
from persist_effects import InvalidRequest, StoreUnavailable, kv


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def descriptors_as_before():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.INFO, "persist_effects.served")
    return caplog


def serve_until(use, url, *listen, number=signal.SIGTERM, **options):
    """Serve here until another thread has used it, and then sends the signal. Gives what ended it."""
    reading, writing = os.pipe()
    errors = []

    def act():
        with open(reading, "rb") as ready:
            if ready.read() == b"ready\n":
                try:
                    use()
                except BaseException as error:
                    errors.append(error)
                os.kill(os.getpid(), number)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        return serving.serve_at(url, listen, limits=ServingLimits(), ready_fd=writing, **options)
    except BaseException:
        os.close(writing)  # of what was refused before it was ready
        raise
    finally:
        thread.join(PATIENCE_SECONDS)
        assert errors == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_tells_that_it_is_ready_and_ends_by_a_signal(tmp_path, logged, number):
    urls = [f"unix:{tmp_path / 'sock'}", f"unix:{tmp_path / 'other'}"]

    def use():
        for url in urls:
            with open_store(url) as store:
                store.run(kv.update("count", lambda count: count + 1, 0))

    assert serve_until(use, f"file:{tmp_path / 'store'}", *urls, number=number) == number
    with open_store(f"file:{tmp_path / 'store'}") as store:
        assert store.run(kv.get("count")) == 2
    assert not (tmp_path / "sock").exists()
    told = [record.message for record in logged.records]
    assert told[0] == f"serving file:{tmp_path / 'store'} at {', '.join(urls)}, process {os.getpid()}"
    assert told[1:] == [f"told to end by {number.name}", "ended; 4 requests were answered"]


def test_a_socket_has_the_mode_that_is_asked_for(tmp_path):
    place = tmp_path / "sock"
    seen = []
    serve_until(lambda: seen.append(place.stat().st_mode & 0o777), "memory:", f"unix:{place}", socket_mode="0660")
    assert seen == [0o660]


def test_systemd_is_told_when_it_is_ready_and_when_it_ends(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        serve_until(lambda: None, "memory:", f"unix:{tmp_path / 'sock'}")
        assert systemd.recv(1000).decode().splitlines()[0] == "READY=1"
        assert systemd.recv(1000) == b"STOPPING=1"


def test_a_systemd_that_is_not_there_keeps_nothing_from_being_served(tmp_path, monkeypatch, logged):
    monkeypatch.setenv("NOTIFY_SOCKET", "@persist-effects-nobody")
    serve_until(lambda: None, "memory:", f"unix:{tmp_path / 'sock'}")
    assert "systemd cannot be told: @persist-effects-nobody" in logged.text


def test_tokens_come_from_files(tmp_path):
    url = f"unix:{tmp_path / 'sock'}"
    (tmp_path / "write").write_text("w\n")
    (tmp_path / "read").write_text("r\n")

    def use():
        with open_store(url, token_file=tmp_path / "read") as store, pytest.raises(InvalidRequest, match="for reading"):
            store.run(kv.put("a", 1))
        with open_store(url, token_file=tmp_path / "write") as store:
            assert store.run(kv.put("a", 1)) == 1

    serve_until(use, "memory:", url, token_file=tmp_path / "write", read_token_file=tmp_path / "read")


def test_metrics_are_told_in_the_text_of_openmetrics(tmp_path, logged):
    url = f"unix:{tmp_path / 'sock'}"
    said = []

    def use():
        with open_store(url) as store:
            store.run_many([kv.put("a", 1), kv.put("b", 1), kv.get("a")])
            store.run(kv.wait(0, "", timeout=0.001))
            with pytest.raises(InvalidRequest):
                store.run(kv.put_expect("a", 1, "x" * 9_000_000))
            (address,) = [word for word in logged.records[0].message.split() if word.startswith("http://")]
            asked = urllib.request.Request(address.rstrip(","), headers={"Accept": "application/openmetrics-text"})
            with urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS) as answer:
                said.extend([answer.headers["Content-Type"], *answer.read().decode().splitlines()])

    serve_until(use, f"file:{tmp_path / 'store'}", url, metrics="127.0.0.1:0")
    kind, *lines = said
    assert kind.startswith("application/openmetrics-text")
    assert lines[-1] == "# EOF"
    assert 'persist_effects_request_seconds_count{op="persist/kv-put"} 3.0' in lines
    assert 'persist_effects_errors_total{op="persist/kv-put"} 1.0' in lines
    assert "persist_effects_committed_total 3.0" in lines
    assert "persist_effects_open_connections 1.0" in lines
    buckets = [line for line in lines if line.startswith('persist_effects_request_seconds_bucket{le="+Inf"')]
    assert any(line.endswith(" 1.0") for line in buckets)


def test_without_its_package_the_extra_for_metrics_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "interpreters.stores.served.metrics", None)
    with pytest.raises(InvalidRequest, match="install the extra `metrics`"):
        serve_until(lambda: None, "memory:", f"unix:{tmp_path / 'sock'}", metrics="127.0.0.1:0")
    assert not (tmp_path / "sock").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"socket_mode": "rw"}, InvalidRequest, "the mode of the socket is 'rw': give one in octal"),
        ({"socket_mode": "0066"}, InvalidRequest, "the mode of the socket is '0066'"),
        ({"tls_key": "x"}, InvalidRequest, "there is a key and no certificate"),
        ({"tls_cert": "x"}, InvalidRequest, "the certificate x cannot be used"),
        ({"token_file": "nothing"}, InvalidRequest, "the token cannot be read from nothing"),
        ({"metrics": "here"}, InvalidRequest, "is not an address"),
        ({"metrics": "192.0.2.1:9"}, StoreUnavailable, "metrics cannot be served at 192.0.2.1:9"),
        ({"ready_fd": 9_999}, InvalidRequest, "the descriptor 9999, to tell that it is ready, cannot be used"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_served(tmp_path, options, error, message):
    with pytest.raises(error) as caught:
        serving.serve_at("memory:", [f"unix:{tmp_path / 'sock'}"], limits=ServingLimits(), **options)
    assert message in str(caught.value)
    assert not (tmp_path / "sock").exists()


@pytest.mark.parametrize(("soft", "hard", "given"), [(64, 4096, 1128), (64, 500, 500), (2000, 4096, None)])
def test_there_is_room_for_as_many_clients_as_there_may_be(monkeypatch, logged, soft, hard, given):
    asked = []
    own = SimpleNamespace(
        RLIMIT_NOFILE=1, RLIM_INFINITY=-1, getrlimit=lambda kind: (soft, hard), setrlimit=lambda *to: asked.append(to)
    )
    monkeypatch.setattr(service, "resource", own)
    service.take_descriptors(ServingLimits())
    assert asked == ([] if given is None else [(1, (given, hard))])
    assert ("too few for 1000 clients" in logged.text) == (given == 500)


# As processes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_ends_with_the_exit_code_of_what_ended_it(tmp_path, number, code):
    url = f"unix:{tmp_path / 'sock'}"
    process = started(f"file:{tmp_path / 'store'}", url, "--verbose")
    with open_store(url) as store:
        store.run(kv.put("a", 1))
    done = invoke("health", url, "--json")
    assert json.loads(done.stdout)["committed"] == 1
    assert "connections: 1" in invoke("health", url).stdout
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code
    assert f"the client of process {os.getpid()}" in said
    assert "Traceback" not in said
    assert invoke("health", url).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "memory:"], 2, "--listen"),
        (["serve", "nothing:", "--listen", "unix:x"], 2, "'nothing:' names no store"),
        (["serve", "memory:", "--listen", "tcp://0.0.0.0:0"], 2, "can be reached from other machines"),
        (["serve", "memory:", "--listen", "unix:no/such/place"], 3, "give a path in a directory that is there"),
        (["serve", "memory:", "--listen", "unix:x", "--max-waits", "0"], 2, "max_waits is 0"),
        (["health", "file:x"], 2, "has no server to ask: give unix:PATH, tcp://HOST:PORT or nats://HOST:PORT/NAME"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(arguments, code, message):
    done = invoke(*arguments)
    assert done.exit_code == code
    assert message in done.output
