"""A worker of a group, until it is killed or interrupted: `python crew_child.py ORDER`, as JSON.

An order says the store's ``url``, how many ``partitions`` and ``lease_seconds`` the group has, and the ``member``'s
name or null. On stdout there is a line for each: ``lives KEY`` once it
has given a sign of life, ``refused`` where it came late and wrote nothing, ``outage`` where the store could not be
asked, ``stops`` before it stops itself, and ``left``. SIGUSR1 has it stop itself, as SIGSTOP would, when its handler
has been asked for the next event and nothing is written yet.
"""

import faulthandler
import json
import math
import os
import signal
import sys
from typing import Any

from overlapping import OUTAGES

from interpreters import open_store
from persist_effects import Append, Draft, Event, Group, follow, run
from persist_effects.following.records import members_prefix
from persist_effects.machine import Handlers
from persist_effects.requests import Conflict, KvPut, Transact

NAME, PREFIX = "crew", "s/"
EFFECTS = "effects/"
"""How the streams' names start to which effects are appended: one for each stream, so that they are not all in one."""


def main() -> None:
    # Where it stands is told when it is aborted, as one is that does not end.
    faulthandler.enable(all_threads=True)
    order = json.loads(sys.argv[1])
    group = Group(partitions=order["partitions"], lease_seconds=order["lease_seconds"])
    try:
        with open_store(order["url"]) as store:
            rows = telling(store.handlers)
            while True:
                try:
                    run(
                        follow(
                            NAME, PREFIX, copied,
                            group=group, member=order["member"], timeout=math.inf,
                        ),
                        rows,
                    )  # fmt: skip
                except OUTAGES as error:
                    # As whoever looks after workers starts one again.
                    say("outage", repr(error))
    except KeyboardInterrupt:
        say("left")


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def copied(event: Event) -> list[Append]:
    return [Append(f"{EFFECTS}{event.stream}", (Draft("copied", [event.stream, event.seq]),))]


def telling(rows: Handlers) -> Handlers:
    """The same rows, which tell of what becomes of this worker, and before a write of which it may be stopped."""
    is_to_stop = lives = False

    def stop_soon(*_: object) -> None:
        nonlocal is_to_stop
        is_to_stop = True

    def put(request: KvPut) -> Any:
        nonlocal lives
        answer = rows[KvPut](request)
        if not lives and request.key.startswith(members_prefix(NAME)):
            lives = True
            say("lives", request.key)
        return answer

    def transact(request: Transact) -> Any:
        nonlocal is_to_stop
        has_effect = len(request.writes) > 1
        if is_to_stop and has_effect:
            is_to_stop = False
            say("stops")
            os.kill(os.getpid(), signal.SIGSTOP)
        answer = rows[Transact](request)
        if has_effect and isinstance(answer, Conflict):
            say("refused")
        return answer

    signal.signal(signal.SIGUSR1, stop_soon)
    return {**rows, KvPut: put, Transact: transact}


if __name__ == "__main__":
    main()
