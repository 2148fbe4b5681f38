"""The agents of shared stores: who they are, and whether they are over."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from served_stores import until

from interpreters import open_store
from interpreters.disk.files import locked
from interpreters.stores.served.sharing import LOG_FILE, SOCKET


def agent_of(path: Path) -> int:
    """The process that has the store's lock, or had it last."""
    return int((path / "LOCK").read_text().split()[1])


def agents_begun(path: Path) -> int:
    return (path / LOG_FILE).read_text().count("INFO serving")


def is_over(path: Path) -> bool:
    """Whether no agent serves the store, nor has it."""
    with locked(str(path), is_patient=False) as held:
        return held is not None and not (path / SOCKET).exists()


class SharedAgent:
    """The agent of a shared store, whichever client has started it. It may be killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"file:{path}?share=yes&idle_seconds=0.2&segment_bytes=1048576"
        self.hasty_url = f"{self.url}&timeout=0.5"
        self._kept_there = open_store(self.url)

    def kill(self) -> None:
        """Kill it. The next one is there as soon as a client asks for anything."""
        before = agents_begun(self._path)
        os.kill(agent_of(self._path), signal.SIGKILL)
        until(lambda: agents_begun(self._path) > before)

    def close(self) -> None:
        self._kept_there.close()
        until(lambda: is_over(self._path))


@contextmanager
def shared_agent() -> Iterator[SharedAgent]:
    with tempfile.TemporaryDirectory(prefix="persist-effects-") as place:
        agent = SharedAgent(Path(place) / "store")
        try:
            yield agent
        finally:
            agent.close()
