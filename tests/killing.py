"""Client processes of one store, whose server is killed while they work."""

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import IO, Any, Protocol

from overlapping import Asked, Client, problems_in, tally_of, written_in
from served_stores import PATIENCE_SECONDS, until
from server_processes import python_process

from interpreters import Store, open_store
from persist_effects import Event, StoreUnavailable, log

CHILD = Path(__file__).with_name("overlapping_child.py")
FOLLOWERS = ("read", "follow")


class Served(Protocol):
    """Where a store is served, whoever does it.

    ``url`` is where clients find it; by ``hasty_url`` they give up soon, where there is such a URL.
    """

    url: str
    hasty_url: str


class Killable(Served, Protocol):
    """A server of a store that may be killed."""

    def kill(self) -> None:
        """Kill it. From then on it is there again, or comes back when a client needs it."""
        ...


def is_hasty(number: int) -> bool:
    """Whether a client gives up soon, by its number."""
    return number % 4 == 3


class Children:
    """Processes that use a store, each of which writes to a file of its own."""

    def __init__(self, server: Served, seed: object, clients: int, place: Path, counting: int = 0) -> None:
        self._place = place
        self._progress, telling = os.pipe()
        self.clients = clients
        self.told = 0
        """How much they have asked."""
        roles = [("ask", number) for number in range(clients)]
        roles += [(role, 0) for role in FOLLOWERS]
        roles += [("count", number) for number in range(counting)]
        self._processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        for role, number in roles:
            with self._file_of(role, number).open("wb") as said:
                # Every fourth gives up soon, so that it is told also that nothing was written.
                url = server.hasty_url if is_hasty(number) else server.url
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
        end_at = time.monotonic() + seconds
        while (left := end_at - time.monotonic()) > 0:
            self._told(left)

    def are_interrupted_for(self, seconds: float, random: Random, server: Killable) -> int:
        """Kill the server every few seconds, for so long. Returns how often."""
        end_at = time.monotonic() + seconds
        kills = 0
        while time.monotonic() < end_at:
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
        self.told += told
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
def working(*arguments: Any) -> Iterator[Children]:
    """Processes at work, as `Children` makes them."""
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
    with working(server, seed, clients, place) as children:
        for _ in range(kills):
            children.let_ask(random.randint(300, 600))
            server.kill()
        kills += children.are_interrupted_for(seconds, random, server)
        children.let_ask(10 * clients)
        asked, events = all_done(children, server, seed, clients)
    check(asked, events, f"KILL_SERVED_SEED={seed}, what each was answered is in {place}")
    return f"{kills} kills, {len(events)} events, {tally_of(asked)}"


def check(asked: list[Asked], events: list[Event], told: str, *others: str) -> None:
    """Look whether what was answered can be true, and say with the first problem how to see it again.

    Args:
        asked: What was asked.
        events: All events, by position.
        told: How to see it again.
        others: Problems that were found already.
    """
    problems = [*others, *problems_in(asked, events)]
    assert not problems, f"{told}: " + "\n".join(problems)


def _all_events(store: Store) -> list[Event]:
    """All events. Where a node that was killed is still catching up, the store says that it cannot tell them now."""
    found: list[list[Event]] = []

    def are_told() -> bool:
        with suppress(StoreUnavailable):
            found.append(store.run(log.read_all()))
        return bool(found)

    until(are_told)
    return found[0]


def all_done(children: Children, server: Served, seed: object, clients: int) -> tuple[list[Asked], list[Event]]:
    """Have all end, and see that those that follow have seen all.

    Returns:
        What was asked, at last for all that is there; and all events, by position.
    """
    children.end("ask")
    asked: list[Asked] = children.written_by("ask")
    with open_store(server.url) as store:
        Client(store.handlers, seed, clients, asked.append).look()
        events = _all_events(store)
    for role in FOLLOWERS:
        children.end(role)
        # In their order, and none was passed over. One whose checkpoint was on its way at a blow may come again.
        positions = children.written_by(role)
        in_order = positions if role == "read" else list(dict.fromkeys(positions))
        assert in_order == [event.position for event in events], role
    return asked, events
