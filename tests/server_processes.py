"""`persist-effects serve` as a process, which a test may kill and start again."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from served_stores import PATIENCE_SECONDS

COMMAND = [sys.executable, "-m", "interpreters.cli", "serve"]


def started(behind, url, *options):
    """A process that serves the store of a URL at another one, and is ready."""
    reading, writing = os.pipe()
    with open(reading, "rb") as ready:
        process = subprocess.Popen(
            [*COMMAND, behind, "--listen", url, "--ready-fd", str(writing), *options],
            pass_fds=[writing], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(writing)
        assert ready.read() == b"ready\n", process.communicate()
    return process


def child_processes() -> set[str]:
    """Processes that this one has started, those that have ended too as long as nobody has asked how.

    Each process says who its parent is. The lists of children that the system keeps are lists of threads, and a
    thread that ends meanwhile takes its own with it, or hands it on to another that was looked at before.
    """
    children = set()
    for process in Path("/proc").glob("[0-9]*"):
        # What has ended since it was listed is nobody's child.
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name of the program stands in parentheses, and may hold any character.
            _, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            if int(parent) == os.getpid():
                children.add(process.name)
    return children


class ServerProcess:
    """A server of one store, which may be ended and started again."""

    def __init__(self, behind: str, url: str, *options: str) -> None:
        self._arguments = (behind, url, *options)
        self.start()

    def start(self) -> None:
        self.process = started(*self._arguments)
        # Of a port that the system has chosen only the log knows the number.
        said = self.process.stderr.readline()
        self.url = re.search(r" at (\S+), process ", said)[1]
        self.hasty_url = f"{self.url}?timeout=0.5"

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        _, self.log = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode

    def kill(self) -> None:
        """Kill it, and start it again."""
        assert self.end(signal.SIGKILL) == -signal.SIGKILL
        self.start()

    def restart(self) -> None:
        """Tell it to end, and start it again."""
        assert self.end(signal.SIGTERM) == 0
        self.start()

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)


@contextmanager
def server_process(*options: str):
    """One of a file store, at a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="persist-effects-") as made:
        place = Path(made)
        server = ServerProcess(f"file:{place / 'store'}?segment_bytes=1048576", f"unix:{place / 'sock'}", *options)
        try:
            yield server
        finally:
            server.close()


def python_process(script, *arguments, **options):
    """A process of the tests' own, which may import what they import."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)], env={**os.environ, "PYTHONPATH": path}, **options
    )
