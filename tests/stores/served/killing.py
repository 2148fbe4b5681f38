"""Client processes of one store, whose server is killed while they work."""

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import IO, Any, Protocol

from overlapping import Asked, Client, problems_in, tally_of, written_in
from served_stores import PATIENCE_SECONDS
from server_processes import python_process

from interpreters import open_store
from persist_effects import log

CHILD = Path(__file__).with_name("overlapping_child.py")
FOLLOWERS = ("read", "follow")


class Killable(Protocol):
    """A server of a store, whoever starts it.

    ``url`` is where clients find it; by ``hasty_url`` they give up soon, where there is such a URL.
    """

    url: str
    hasty_url: str

    def kill(self) -> None:
        """Kill it. From then on it is there again, or comes back when a client needs it."""
        ...


class Children:
    """Processes that use a store, each of which writes to a file of its own."""

    def __init__(self, server: Killable, seed: object, clients: int, place: Path) -> None:
        self._place = place
        self._progress, telling = os.pipe()
        roles = [*(("ask", number) for number in range(clients)), *((role, 0) for role in FOLLOWERS)]
        self._processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        for role, number in roles:
            with self._file_of(role, number).open("wb") as said:
                # Every fourth gives up soon, so that it is told also that nothing was written.
                url = server.hasty_url if number % 4 == 3 else server.url
                self._processes[role, number] = python_process(
                    CHILD, role, url, seed, number, telling,
                    stdin=subprocess.PIPE, stdout=said, pass_fds=[telling],
                )  # fmt: skip
        os.close(telling)

    def begin(self) -> None:
        """Have them go on, once all have opened the store."""
        self.let_ask(len(self._processes))
        for process in self._processes.values():
            self._stdin_of(process).write(b"\n")
            self._stdin_of(process).flush()

    def _stdin_of(self, process: subprocess.Popen[bytes]) -> IO[bytes]:
        assert process.stdin is not None
        return process.stdin

    def _file_of(self, role: str, number: int) -> Path:
        return self._place / f"{role} {number}"

    def let_ask(self, count: int) -> None:
        """Wait until the clients have asked for so many things more."""
        while count > 0:
            count -= self._told(PATIENCE_SECONDS)

    def let_ask_for(self, seconds: float) -> None:
        """Wait for so long, in which they go on."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._told(left)

    def are_interrupted_for(self, seconds: float, random: Random, server: Killable) -> int:
        """Kill the server every few seconds, for so long. Returns how often."""
        until = time.monotonic() + seconds
        kills = 0
        while time.monotonic() < until:
            self.let_ask_for(random.uniform(1, 4))
            server.kill()
            kills += 1
        return kills

    def _told(self, seconds: float) -> int:
        ready, _, _ = select.select([self._progress], [], [], seconds)
        if not ready:
            assert seconds < PATIENCE_SECONDS, "no client goes on"
            return 0
        told = len(os.read(self._progress, 65536))
        assert told, "all clients have ended"
        return told

    def end(self, role: str) -> None:
        """Have those of a role end, and wait for it."""
        processes = [process for (own, _), process in self._processes.items() if own == role]
        for process in processes:
            self._stdin_of(process).close()
        for process in processes:
            assert process.wait(PATIENCE_SECONDS) == 0

    def written_by(self, role: str) -> list[Any]:
        return [
            piece for own, number in self._processes if own == role for piece in written_in(self._file_of(own, number))
        ]

    def close(self) -> None:
        os.close(self._progress)
        for process in self._processes.values():
            process.kill()
            process.communicate()


@contextmanager
def _children(*arguments: Any) -> Iterator[Children]:
    made = Children(*arguments)
    try:
        made.begin()
        yield made
    finally:
        made.close()


def judge_while_killed(
    server: Killable, place: Path, *, seed: int, clients: int, kills: int = 0, seconds: float = 0.0
) -> str:
    """Have processes use a store while its server is killed, and look whether what they were answered can be true.

    Args:
        server: The server.
        place: A directory in which they may write.
        seed: What draws what they ask.
        clients: How many there are, beside those that follow.
        kills: How often the server is killed, each time after some hundred requests.
        seconds: For how long it is killed every few seconds, beside that.

    Returns:
        How much was asked, and what it met.
    """
    random = Random(seed)
    with _children(server, seed, clients, place) as working:
        for _ in range(kills):
            working.let_ask(random.randint(300, 600))
            server.kill()
        kills += working.are_interrupted_for(seconds, random, server)
        working.let_ask(10 * clients)
        working.end("ask")
        asked: list[Asked] = working.written_by("ask")
        with open_store(server.url) as store:
            Client(store.handlers, seed, clients, asked.append).look()
            events = store.run(log.read_all())
        for role in FOLLOWERS:
            working.end(role)
            # In their order, and none was passed over. One whose checkpoint was on its way at a blow may come again.
            positions = working.written_by(role)
            in_order = positions if role == "read" else list(dict.fromkeys(positions))
            assert in_order == [event.position for event in events], role
    problems = problems_in(asked, events)
    assert not problems, "\n".join([f"KILL_SERVED_SEED={seed}", *problems])
    return f"{kills} kills, {len(events)} events, {tally_of(asked)}"
