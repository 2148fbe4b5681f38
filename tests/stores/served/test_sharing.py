"""A file store that several processes share: who finds nobody starts an agent, and whoever dies, the others go on."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from agents import agent_of, agents_begun, is_over
from places import ROOT
from served_stores import PATIENCE_SECONDS, until

from interpreters import Store, open_store
from interpreters.conformance import StoreConformance
from interpreters.disk.files import locked
from interpreters.stores.served import sharing
from interpreters.stores.served.sharing import LOG_FILE, SOCKET, SharedDoor
from persist_effects import (
    CorruptStore,
    InternalError,
    InvalidRequest,
    StoreLocked,
    StoreUnavailable,
    UncertainOutcome,
    blob,
    kv,
    log,
)

IDLE_SECONDS = 0.2
COMMAND = [sys.executable, "-m", "interpreters.cli"]


def shared(path: Path, **options) -> Store:
    return open_store("file:", path=path, share="yes", idle_seconds=IDLE_SECONDS, **options)


def waits_at_agent_of(store: Store) -> int:
    try:
        return store.interpreter.health()["waits"]
    except StoreUnavailable:
        # It was asked one that was killed.
        return 0


@contextmanager
def python(code: str, *arguments: object, **options):
    """Another process, which has `path` and `shared`."""
    command = f"import sys; sys.path[:0] = {sys.path!r}; from test_sharing import *; path = Path(sys.argv[1]); {code}"
    with subprocess.Popen([sys.executable, "-c", command, *map(str, arguments)], text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.exploration
class TestSharedStore(StoreConformance):
    """All that a store must do, and a new agent each time: a process more for each test than over a socket."""

    places: ClassVar[list[tempfile.TemporaryDirectory]] = []

    def open_store(self) -> Store:
        place = tempfile.TemporaryDirectory(prefix="persist-effects-")
        self.places.append(place)
        return shared(Path(place.name) / "store", sync="os")

    @classmethod
    def teardown_class(cls) -> None:
        # Not after each test: an agent ends by itself, while the next one is at work.
        for place in cls.places:
            if (Path(place.name) / "store").exists():
                until(lambda place=place: is_over(Path(place.name) / "store"))
            place.cleanup()

    # A directory outlives its process, and this suite opens a new one each time.
    test_a_store_that_claims_to_outlive_its_process_can_be_reopened = None


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "var" / "store"
    yield path
    if (path / SOCKET).exists():
        until(lambda: is_over(path))


def test_who_opens_first_starts_an_agent_and_who_comes_later_uses_it(path):
    with shared(path) as first, shared(path) as second:
        appended = first.run(log.append("orders/1", "placed", {"total": 12}))
        assert second.run(log.read("orders/1")) == [appended]
        assert first.interpreter.health()["connections"] == 2
        assert first.capabilities.processes == "many"
        assert first.capabilities.durability == "commit"
        assert agents_begun(path) == 1
        assert agent_of(path) != os.getpid()


def test_an_agent_that_nobody_has_needed_for_a_while_ends_and_the_next_one_has_what_was_written(path):
    with shared(path) as store:
        store.run(kv.put("color", "red"))
    until(lambda: is_over(path))
    with open_store(f"file:{path}") as alone:
        assert alone.run(kv.get("color")) == "red"
    with shared(path) as store:
        assert store.run(kv.get("color")) == "red"
    assert agents_begun(path) == 2


@pytest.mark.exploration
def test_processes_that_open_a_new_store_at_once_start_one_agent(path):
    code = (
        "store = shared(path); print(store.run(log.append('all', 'made', 0)).seq, flush=True); input(); store.close()"
    )
    processes = [python(code, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(6)]
    opened = [process.__enter__() for process in processes]
    seqs = [int(process.stdout.readline()) for process in opened]
    for process in opened:
        assert process.communicate("\n", timeout=PATIENCE_SECONDS) == ("", None)
    assert sorted(seqs) == [1, 2, 3, 4, 5, 6]
    assert agents_begun(path) == 1


def test_where_an_agent_is_killed_another_one_goes_on(path):
    with shared(path) as store, shared(path) as other:
        store.run(kv.put("color", "red"))
        killed = agent_of(path)
        os.kill(killed, signal.SIGKILL)
        for each in (store, other):
            assert each.run(kv.get("color")) == "red"
            assert each.run(kv.entry("color")).revision == 1
        assert agent_of(path) != killed
        assert agents_begun(path) == 2


def test_what_was_on_its_way_to_an_agent_that_was_killed_is_uncertain_or_there(path):
    with shared(path, sync="os") as store:
        stopped, told = threading.Event(), []

        def write():
            for number in range(1_000_000):
                if stopped.is_set():
                    return
                try:
                    told.append(("there", store.run(log.append("all", "made", number)).data))
                except UncertainOutcome:
                    told.append(("uncertain", number))
                except StoreUnavailable:
                    told.append(("not there", number))

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(3):
            count = len(told)
            until(lambda count=count: len(told) > count + 20)
            os.kill(agent_of(path), signal.SIGKILL)
        count = len(told)
        until(lambda: len(told) > count + 20)
        stopped.set()
        thread.join()
        found = [event.data for event in store.run(log.read("all", limit=1_000_000))]
    assert len(set(found)) == len(found)
    assert {number for what, number in told if what == "there"} <= set(found)
    assert not {number for what, number in told if what == "not there"} & set(found)


def test_tasks_wait_over_the_death_of_an_agent(path):
    with shared(path) as store, shared(path) as writer:
        seen = []
        thread = threading.Thread(target=lambda: seen.append(store.run(log.wait(0, "orders/"))))
        thread.start()
        until(lambda: waits_at_agent_of(writer))
        os.kill(agent_of(path), signal.SIGKILL)
        until(lambda: waits_at_agent_of(writer))
        event = writer.run(log.append("orders/1", "placed", 0))
        thread.join(PATIENCE_SECONDS)
        assert seen == [event.position]


def test_whoever_starts_an_agent_may_die_at_once(path):
    code = "sharing._Starting.wait = lambda *_: os.kill(os.getpid(), signal.SIGKILL); shared(path)"
    with python(code, path) as process:
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    with shared(path) as store:
        assert store.run(kv.put("color", "red")) == 1
    assert agents_begun(path) == 1


def test_an_agent_that_dies_before_it_serves_is_told_of_and_nobody_is_kept_waiting(path, monkeypatch):
    monkeypatch.setattr(sharing, "_MAIN", "no_such_module")
    with pytest.raises(StoreUnavailable, match=r"ended without a word: see whether .* starts"):
        shared(path)
    monkeypatch.undo()
    shared(path).close()


def test_an_option_that_only_the_agent_refuses_is_told_to_whoever_has_started_it(path, monkeypatch):
    monkeypatch.setattr(sharing, "options_as_arguments", lambda options: ["clock=1"])
    with pytest.raises(InvalidRequest, match="clock"):
        shared(path)


def test_what_an_agent_meets_by_surprise_is_told_to_whoever_has_started_it(path):
    open_store(f"file:{path}").close()
    (path / LOG_FILE).mkdir()
    with pytest.raises(InternalError, match=r"(?s)the process that was to serve .* met.*IsADirectoryError"):
        shared(path)


def test_a_socket_that_an_agent_has_left_when_it_was_killed_is_replaced(path):
    shared(path).close()
    os.kill(agent_of(path), signal.SIGKILL)
    assert (path / SOCKET).is_socket()
    with shared(path) as store:
        assert store.run(kv.put("color", "red")) == 1


def test_an_agent_whose_socket_was_removed_ends_and_its_clients_go_on_with_the_next(path):
    with shared(path) as store:
        store.run(kv.put("color", "red"))
        first = agent_of(path)
        (path / SOCKET).unlink()
        until(lambda: (path / LOG_FILE).read_text().count("not in its place"))
        assert store.run(kv.get("color")) == "red"
        assert agent_of(path) != first


def test_who_comes_while_an_agent_ends_waits_until_it_has_let_go_of_the_store(path):
    shared(path).close()
    until(lambda: is_over(path))
    with locked(str(path), is_patient=True):
        # As an agent that ends holds it.
        door = SharedDoor(str(path), {}, IDLE_SECONDS)
        with pytest.raises(BlockingIOError, match="another process is about to serve the store, or to end doing so"):
            door.connect(lambda *_: None)
        with pytest.raises(StoreUnavailable, match=r"has not answered within 0\.05 s: .*another process is about to"):
            shared(path, timeout=0.05)


def test_a_process_that_has_the_store_for_itself_is_named(path):
    with open_store(f"file:{path}"), pytest.raises(StoreLocked, match=f"by process {os.getpid()} on .*share=yes"):
        shared(path)


def test_a_process_that_wants_the_store_for_itself_is_told_to_share_it(path):
    with shared(path), pytest.raises(StoreLocked, match="or open it everywhere with share=yes"):
        open_store(f"file:{path}")


def test_who_opens_it_otherwise_than_the_others_is_refused(path):
    with shared(path, sync="os"):
        with pytest.raises(InvalidRequest, match="opened it with sync=os, and here no options is given"):
            shared(path)
        shared(path, sync="os").close()


def test_damage_is_told_to_who_opens_it_and_to_who_had_it_open(path):
    with shared(path) as store:
        store.run(kv.put("color", "red"))
        (path / "CURRENT").write_bytes(b"nothing")
        os.kill(agent_of(path), signal.SIGKILL)
        with pytest.raises(CorruptStore, match="CURRENT"):
            shared(path)
        with pytest.raises(CorruptStore, match="CURRENT"):
            store.run(kv.get("color"))
    # No agent is left that could.
    (path / SOCKET).unlink()


def test_a_fork_has_a_connection_of_its_own(path):
    with shared(path) as store:
        ref = store.run(blob.put(b"hello"))
        child = os.fork()
        if not child:
            done = False
            try:
                done = store.run(kv.put("color", "red")) == 1 and store.run(blob.get(ref)) == b"hello"
                done = done and store.run(blob.put(b"child")).size == 5
            finally:
                os._exit(0 if done else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.run(kv.get("color")) == "red"
        assert store.run(blob.get(store.run(blob.put(b"parent")))) == b"parent"


def test_blobs_go_to_the_stores_directory_and_not_through_the_agent(path, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(bytes(1_000_000))
    with shared(path) as store:
        ref = store.put_file(large, "image/png")
        assert anyio.run(store.arun, blob.put(b"hello")).size == 5
        assert [found.size for found in store.run_many([blob.put(b"a"), blob.put(b"ab")])] == [1, 2]
        assert store.interpreter.health()["requests"] == 0
        with store.open_blob(ref) as file:
            assert len(file.read()) == 1_000_000
    until(lambda: is_over(path))
    with open_store(f"file:{path}") as alone:
        assert len(alone.run(blob.get(ref))) == 1_000_000


def test_an_agent_keeps_nothing_open_of_the_process_that_has_started_it(path):
    code = "open_store('file:', path=path, share='yes', idle_seconds=600).close()"
    with python(code, path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        # Its output is at its end, though the agent lives on.
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("", "")
    agent = agent_of(path)
    assert os.getsid(agent) != os.getsid(0)
    os.kill(agent, signal.SIGTERM)
    until(lambda: is_over(path))
    assert "told to end by SIGTERM" in (path / LOG_FILE).read_text()


def test_an_agent_is_no_child_that_somebody_has_to_wait_for(path):
    with shared(path), pytest.raises(ChildProcessError):
        os.waitpid(agent_of(path), os.WNOHANG)


def test_systemd_is_told_nothing_by_an_agent(path, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        shared(path).close()
        until(lambda: is_over(path))
        with pytest.raises(BlockingIOError):
            systemd.recv(1)


def test_who_may_read_the_files_may_connect_where_they_may_write_too(path):
    with shared(path, permissions=0o660):
        modes = {name: stat.S_IMODE((path / name).stat().st_mode) for name in (SOCKET, LOG_FILE, "CURRENT")}
    assert modes == {SOCKET: 0o660, LOG_FILE: 0o640, "CURRENT": 0o640}


def test_a_relative_path_means_the_same_store_wherever_the_process_goes_later(path, monkeypatch):
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    with open_store(f"file:{path.name}?share=yes&idle_seconds={IDLE_SECONDS}") as store:
        monkeypatch.chdir(ROOT)
        os.kill(agent_of(path), signal.SIGKILL)
        assert store.run(kv.get("color")) is None


def test_a_store_in_a_directory_whose_path_is_long_is_shared(tmp_path):
    path = tmp_path / ("a" * 100) / "store"
    with shared(path) as store:
        assert store.run(kv.put("color", "red")) == 1
    until(lambda: is_over(path))


def test_a_directory_that_is_taken_away_is_not_made_anew(path):
    with shared(path, timeout=2) as store:
        store.run(kv.put("color", "red"))
        os.kill(agent_of(path), signal.SIGKILL)
        path.rename(path.with_name("elsewhere"))
        with pytest.raises(StoreUnavailable, match="the store's directory is gone"):
            store.run(kv.get("color"))
        assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": "maybe"}, "share is 'maybe': give yes to have several processes write, or no"),
        ({"share": "yes", "mode": "r"}, "option 'share' is for writing, and mode=r was given"),
        ({"idle_seconds": 1.0}, "option 'idle_seconds' is for a store that is shared: give share=yes"),
        ({"share": "yes", "idle_seconds": 0}, "idle_seconds is .*0.*: give a number of seconds over 0"),
        ({"share": "yes", "timeout": 0}, "timeout is .*0.*: give a number of seconds over 0"),
        ({"share": "yes", "clock": lambda: 0}, "the option clock is a function"),
        ({"share": "yes", "sync": "never"}, "sync is 'never': give one of commit, interval, os"),
        ({"share": "yes", "permissions": 0o7777}, "permissions is 4095: give an integer from 0 to 511"),
        ({"share": "yes", "size": 1}, "a file store has no option 'size': it takes mode, .* share, timeout, idle_sec"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(path, options, message):
    with pytest.raises(InvalidRequest, match=message):
        open_store("file:", path=path, **options)


def test_what_cannot_be_a_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="is a file: a store is a directory"):
        shared(tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("")
    with pytest.raises(InvalidRequest, match="holds 'notes' and no store"):
        shared(tmp_path / "other")
    assert os.listdir(tmp_path / "other") == ["notes"]
    with pytest.raises(InvalidRequest, match="has a zero character"):
        shared(Path("a\0b"))
    with pytest.raises(StoreUnavailable, match="cannot be made"):
        shared(tmp_path / "file" / "store")


def test_the_log_of_agents_is_begun_anew_where_it_is_long(path):
    shared(path).close()
    until(lambda: is_over(path))
    (path / LOG_FILE).write_bytes(bytes(2_000_000))
    shared(path).close()
    until(lambda: is_over(path))
    assert agents_begun(path) == 1
    assert (path / f"{LOG_FILE}.1").stat().st_size == 2_000_000


def test_what_an_agent_leaves_in_the_directory_is_no_matter_to_the_commands(path, tmp_path):
    with shared(path) as store:
        store.run(kv.put("color", "red"))
        verified = subprocess.run([*COMMAND, "verify", f"file:{path}"], check=False, capture_output=True, text=True)
        assert verified.stdout.startswith("sound")
        health = subprocess.run(
            [*COMMAND, "health", f"unix:{path / SOCKET}"], check=False, capture_output=True, text=True
        )
        assert "connections" in health.stdout
    copied = subprocess.run([*COMMAND, "backup", f"file:{path}", str(tmp_path / "copy")], check=False)
    assert copied.returncode == 0
    assert not {SOCKET, LOG_FILE} & set(os.listdir(tmp_path / "copy"))
