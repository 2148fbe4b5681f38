"""The served store over a Unix socket, against the same store in process, and against a bare echo of asyncio."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from benchmarks.appends import (
    TASK_COUNT,
    Appends,
    append_in_tasks,
    append_in_threads,
    append_together,
    prepared_appends,
)
from benchmarks.ground import BENCH, new_directory, open_file_store, ready_processes, tell_to_go
from benchmarks.table import Bound, Row, rate, seconds
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from persist_effects import kv

PROCESSES = 4
VALUE = {"total_cents": 1_250, "items": ["tea", "mug"], "paid": True}
FRAME = b"\x00\x00\x00\x30" + b"x" * 48
"""About as long as a `kv.get` and its answer are, which differ by a few bytes."""


@contextmanager
def _process(module: str, *arguments: str, passing: tuple[int, ...] = ()) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", module, *arguments],
        cwd=BENCH.parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=passing,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def served_file(directory: Path) -> Iterator[str]:
    """The URL of a new file store that a process of its own serves."""
    reading, writing = os.pipe()
    url = f"unix:{directory / 'sock'}"
    serve = ("serve", f"file:{directory / 'store'}", "--listen", url, "--ready-fd", str(writing))
    with _process("interpreters.cli", *serve, passing=(writing,)):
        os.close(writing)
        assert os.read(reading, 6) == b"ready\n"
        os.close(reading)
        yield url


# Round trips


class Asked(NamedTuple):
    """A served store with one key, an echo beside it, and how often each is asked."""

    store: Store
    echo: str
    count: int


@contextmanager
def store_and_echo(count: int) -> Iterator[Asked]:
    with new_directory() as directory, served_file(directory) as url, open_store(url) as store:
        store.run(kv.put("orders/1/latest", VALUE))
        path = str(directory / "echo")
        with _process("benchmarks.echo_server", path) as echo:
            assert echo.stdout is not None
            echo.stdout.readline()
            yield Asked(store, path, count)


def get_again_and_again(asked: Asked) -> float:
    def get_all() -> None:
        for _ in range(asked.count):
            asked.store.run(kv.get("orders/1/latest"))

    return rate(asked.count, get_all)


def echo_again_and_again(asked: Asked) -> float:
    async def measure() -> float:
        reader, writer = await asyncio.open_unix_connection(asked.echo)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(asked.count):
            writer.write(FRAME)
            await writer.drain()
            await reader.readexactly(4)
            await reader.readexactly(len(FRAME) - 4)
        taken = loop.time() - start
        writer.close()
        return asked.count / max(taken, 1e-9)

    return asyncio.run(measure())


# Appends


def served(how: Callable[[Store, Appends], None]) -> Callable[[Appends], float]:
    def on_a_new_store(appends: Appends) -> float:
        with new_directory() as directory, served_file(directory) as url, open_store(url) as store:
            return rate(len(appends.orders), lambda: how(store, appends))

    return on_a_new_store


def in_process(how: Callable[[Store, Appends], None]) -> Callable[[Appends], float]:
    def on_a_new_store(appends: Appends) -> float:
        with new_directory() as directory, open_file_store(directory / "store") as store:
            return rate(len(appends.orders), lambda: how(store, appends))

    return on_a_new_store


def written_by(processes: int, count: int) -> float:
    """How many events a second so many processes write, which have a thousand tasks among them."""
    share = (str(TASK_COUNT // processes), str(max(1, count // processes)))
    with new_directory() as directory, served_file(directory) as url:
        children = ready_processes("benchmarks.served_writer", [(url, *share)] * processes)

        def write_all() -> None:
            tell_to_go(children)
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == "done\n"

        taken = seconds(write_all)
        for child in children:
            child.communicate()
        return count / taken


THREADS = Row(
    name="served: durable append, 64 threads on one connection, against the same in process",
    unit="events/s",
    bound=Bound.AT_LEAST,
    must=0.6,
    operations=10_000,
    prepare=prepared_appends,
    ours=served(append_in_threads),
    peer=in_process(append_in_threads),
)

ROWS = (
    Row(
        name="served: kv.get over a Unix socket, against a bare echo of asyncio",
        unit="round trips/s",
        bound=Bound.AT_LEAST,
        must=0.5,
        operations=10_000,
        prepare=store_and_echo,
        ours=get_again_and_again,
        peer=echo_again_and_again,
    ),
    THREADS,
    THREADS._replace(
        name="served: durable append, 1,000 tasks on one connection, against the same in process",
        must=0.4,
        operations=20_000,
        ours=served(append_in_tasks),
        peer=in_process(append_in_tasks),
    ),
    THREADS._replace(
        name="served: durable append, 1,000 programs by run_many, against the same in process",
        must=None,
        operations=20_000,
        ours=served(append_together),
        peer=in_process(append_together),
    ),
    THREADS._replace(
        name="served: durable append, 4 processes of 250 tasks, against one of 1,000",
        must=0.8,
        operations=20_000,
        prepare=nullcontext,
        ours=lambda count: written_by(PROCESSES, count),
        peer=lambda count: written_by(1, count),
    ),
)
