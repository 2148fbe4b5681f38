"""A host of flows, until it is killed or its stdin ends: `python flow_child.py ORDER`, as JSON.

An order says the store's ``url``, the ``lease_seconds``, and the file in which it notes the journals' entries that it
has ``written``. On stdin there are commands, a line of JSON each: see `Commands`. On stdout there is a line for each:
``lives KEY`` once it is there, ``did`` when a command was carried out, ``stuck`` and what is, ``wrote`` after each
entry of a journal, ``refused`` where another host had one first, ``stops`` before it stops itself, ``taken`` or
``still`` of another host's lease, and ``left``. SIGUSR1 has it stop itself, as SIGSTOP would, when it is about to
write an entry.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from killed_flows import ACTIVITIES, FLOWS
from overlapping import OUTAGES

from interpreters import Store, open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import kv
from persist_effects.errors import FlowFailed, NoSuchFlow
from persist_effects.flow import journal
from persist_effects.requests import Append, Conflict, Transact

PATIENCE_SECONDS = 30


def main() -> None:
    # Where it stands is told when it is aborted, as one is that does not end.
    faulthandler.enable(all_threads=True)
    order = json.loads(sys.argv[1])
    with open_telling(order["url"], order["written"]) as store, FlowHost(
        store, flows=FLOWS, activities=ACTIVITIES, lease_seconds=order["lease_seconds"]
    ) as host:  # fmt: skip
        say("lives", journal.HOST + host.token.hex())
        commands = Commands(store, host)
        for line in sys.stdin:
            commands.carry_out(*json.loads(line))
    say("left")


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Commands:
    """What a host is told to do."""

    def __init__(self, store: Store, host: FlowHost) -> None:
        self._store, self._host = store, host
        self._flows = {each.__name__: each for each in FLOWS}

    def carry_out(self, name: str, *arguments: Any) -> None:
        """Do as a command says, again and again while the store is away."""
        row: Callable[..., Any] = getattr(self, name)
        while True:
            try:
                row(*arguments)
            except OUTAGES:
                time.sleep(0.05)
            else:
                say("did")
                return

    def begin(self, kind: str, flow_id: str) -> None:
        self._host.start(self._flows[kind], flow_id, flow_id)

    def send(self, flow_id: str, name: str, data: Any) -> None:
        try:
            self._host.signal(flow_id, name, data)
        except NoSuchFlow:
            # One that was killed has sent it, and said nothing of it.
            return

    def cancel(self, flow_id: str) -> None:
        try:
            self._host.cancel(flow_id)
        except NoSuchFlow:
            return

    def finish(self, flow_ids: list[str]) -> None:
        """Wait until flows have ended."""
        for flow_id in flow_ids:
            try:
                self._host.result(flow_id, PATIENCE_SECONDS)
            except FlowFailed:
                continue
            except TimeoutError:
                entries = self._store.run(kv.entries("flow-"))
                say(
                    "stuck",
                    flow_id,
                    [each for each in entries if flow_id in each[0] or "host" in each[0] or "due" in each[0]],
                )

    def gone(self, key: str, seconds: float) -> None:
        """Wait until another host's lease was taken away, so long at the most."""
        deadline = time.monotonic() + seconds
        seen = 0
        while self._store.run(kv.has(key)) and (left := deadline - time.monotonic()) > 0:
            seen = self._store.run(kv.wait(seen, key, left))
        say("still" if self._store.run(kv.has(key)) else "taken")


def open_telling(url: str, written: str) -> Store:
    """Open a store that tells of the entries of journals that were written, and before one of which it may stop."""
    is_to_stop = False
    file = os.open(written, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def stop_soon(*_: object) -> None:
        nonlocal is_to_stop
        is_to_stop = True

    def write(request: Append | Transact) -> Any:
        nonlocal is_to_stop
        writes = request.writes if isinstance(request, Transact) else (request,)
        entries = [each for each in writes if isinstance(each, Append) and each.stream.startswith(journal.JOURNAL)]
        if entries and is_to_stop:
            is_to_stop = False
            say("stops")
            os.kill(os.getpid(), signal.SIGSTOP)
        answer = store.interpreter.handlers[type(request)](request)
        if entries and isinstance(answer, Conflict):
            # Or else it is one that a flow has about its own keys.
            if answer.name.startswith((journal.JOURNAL, journal.OPEN)):
                say("refused")
        elif entries:
            answers = answer if isinstance(answer, list) else [answer]
            for each, appended in zip(writes, answers, strict=False):
                if each in entries:
                    os.write(file, f"{each.stream} {appended.last_seq} {token_of(each)}\n".encode())
            say("wrote")
        return answer

    signal.signal(signal.SIGUSR1, stop_soon)
    store = open_store(url, effects={Append: write, Transact: write})
    return store


def token_of(entry: Append) -> str:
    data = entry.events[0].data
    token = data["token"] if isinstance(data, dict) else data.token
    # One that is begun for whichever host comes first bears none.
    return token.hex() or "none"


if __name__ == "__main__":
    main()
