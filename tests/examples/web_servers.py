"""Real servers of `examples/web_orders.py`, in processes of their own, and clients that keep them busy."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from places import ROOT
from served_stores import PATIENCE_SECONDS, until

WORKERS = 4
CLIENTS = 4
UVICORN = ["uvicorn", "examples.web_orders:app", "--timeout-graceful-shutdown", "3", "--no-access-log"]
GUNICORN = [
    "gunicorn", "web_orders_preloaded:app", "--preload", "--no-control-socket",
    "--worker-class", "uvicorn_worker.UvicornWorker", "--workers", f"{WORKERS}",
]  # fmt: skip


class WebServer:
    """One that runs. What clients ask before it is up waits in the queue of the socket that it was given."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False, **options)

    def end(self) -> None:
        """Have it end as it does when it is told to."""
        self.process.send_signal(signal.SIGTERM)
        # One uvicorn alone ends by the signal, once it has closed all it has.
        assert self.process.wait(PATIENCE_SECONDS) in {0, -signal.SIGTERM}

    def orders_of_each(self, workers: set[int]) -> dict[int, Any]:
        """All orders, as each worker tells them."""
        told: dict[int, Any] = {}
        with one_request_each(self) as client, ThreadPoolExecutor(2 * WORKERS) as threads:

            def ask(_: int) -> None:
                response = client.get("/orders")
                told[int(response.headers["X-Worker"])] = response.json()

            until(lambda: list(threads.map(ask, range(2 * WORKERS))) and workers <= told.keys())
        return told


def one_request_each(server: WebServer) -> httpx.Client:
    """A client that connects anew for each request, so that any worker may answer it."""
    return server.client(limits=httpx.Limits(max_keepalive_connections=0))


@contextmanager
def running(command: list[str], store_url: str, output: Path) -> Iterator[WebServer]:
    """A server, which is gone behind the block with all its workers. Where a test fails, what it has said is shown."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as door, output.open("ab") as written:
        number = door.fileno()
        bound = ["--bind", f"fd://{number}"] if command[0] == "gunicorn" else ["--fd", f"{number}"]
        paths = [f"{ROOT}", f"{ROOT / 'tests' / 'examples'}"]
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(command[0])), *command[1:], *bound],
            cwd=ROOT, env={**os.environ, "STORE": store_url, "PYTHONPATH": os.pathsep.join(paths)},
            pass_fds=[number], start_new_session=True, stdout=written, stderr=written,
        )  # fmt: skip
        try:
            yield WebServer(process, f"http://127.0.0.1:{door.getsockname()[1]}")
        except BaseException:
            print(output.read_text())
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Load:
    """Clients that place orders, each under a key of its own, and ask again, by that key, where a connection broke."""

    def __init__(self, server: WebServer) -> None:
        self._server = server
        self._changed = threading.Condition()
        self._is_over = False
        self._threads = [threading.Thread(target=self._run, args=(f"client {n}",), daemon=True) for n in range(CLIENTS)]
        self._failed: list[BaseException] = []
        self.placed: dict[str, Any] = {}
        """The orders that were acknowledged, by their keys."""
        self.workers: set[int] = set()
        """All that have answered."""
        self.broken = 0
        """How many connections broke."""

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def until(self, is_so: Callable[[], object]) -> None:
        """Wait for something that clients find out."""
        with self._changed:
            in_time = self._changed.wait_for(lambda: self._failed or is_so(), PATIENCE_SECONDS)
        if self._failed:
            raise AssertionError("a client failed") from self._failed[0]
        assert in_time, f"{len(self.placed)} orders were placed, {self.broken} connections broke, and then nothing"

    def go_on(self) -> None:
        """Wait until each client has had an answer to something that it asked after this call."""
        wanted = len(self.placed) + 2 * CLIENTS
        self.until(lambda: len(self.placed) >= wanted)

    def kill_workers(self, meanwhile: Callable[[int], None]) -> set[int]:
        """Kill one worker after another, each once the one before it was replaced. Returns those that there are then.

        ``meanwhile`` is called with how many were killed, while the last of them is being replaced.
        """
        self.until(lambda: len(self.workers) == WORKERS)
        living = set(self.workers)
        for count, worker in enumerate(sorted(living), 1):
            known = set(self.workers)
            os.kill(worker, signal.SIGKILL)
            meanwhile(count)
            self.until(lambda known=known: self.workers - known)
            living = living - {worker} | (self.workers - known)
        return living

    def _run(self, name: str) -> None:
        try:
            with one_request_each(self._server) as client:
                for number in itertools.count():
                    if self._is_over:
                        return
                    self._place(client, f"{name}, order {number}", {"sku": name, "count": number % 1000 + 1})
        except BaseException as error:
            with self._changed:
                self._failed.append(error)
                self._changed.notify_all()

    def _place(self, client: httpx.Client, key: str, wanted: dict[str, Any]) -> None:
        while True:
            try:
                response = client.post("/orders", headers={"Idempotency-Key": key}, json=wanted)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # The worker that had it was killed. Where nobody listens any more, another error ends the client.
                self.broken += 1
                continue
            assert response.status_code == 201, response.text
            with self._changed:
                self.placed[key] = response.json()
                self.workers.add(int(response.headers["X-Worker"]))
                self._changed.notify_all()
            return
