"""A process that uses a store until its stdin ends: `python overlapping_child.py ROLE URL SEED NUMBER PROGRESS`.

Once the store is open it writes a byte to the descriptor PROGRESS, and goes on when there is a line in its stdin. A
client (`ask`) writes what it asked and was answered to its stdout, and a byte for each to PROGRESS; one that counts
(`count`) adds one to what all of them count, and writes what it makes it. Those that follow (`read`, `follow`) write
each event's position to their stdout, and end once they have seen all.
"""

import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

from overlapping import COUNTED, OUTAGES, PREFIX, Client

from interpreters import Store, open_store
from persist_effects import kv, log, subscription


def main() -> None:
    role, url, seed, number, progress = sys.argv[1:]
    telling = int(progress)
    is_over = threading.Event()
    opened = open_store(url)
    os.write(telling, b".")
    sys.stdin.buffer.readline()
    threading.Thread(target=lambda: sys.stdin.buffer.read() or is_over.set(), daemon=True).start()

    def note(piece: Any) -> None:
        pickle.dump(piece, sys.stdout.buffer)

    with opened as store:
        if role == "ask":
            client = Client(store.handlers, seed, int(number), note)
            while not is_over.is_set():
                client.ask_something()
                os.write(telling, b".")
        elif role == "count":
            while not is_over.is_set():
                note(store.run(kv.update(COUNTED, lambda number: number + 1, 0)))
                os.write(telling, b".")
        else:
            follow(store, role, note, is_over.is_set)


def follow(store: Store, role: str, note: Callable[[int], None], is_over: Callable[[], bool]) -> None:
    reached = 0
    was_over = False
    while True:
        before = reached
        try:
            if role == "follow":
                handler = lambda event: note(event.position) or ()  # noqa: E731
                reached = store.run(subscription.follow("readers", PREFIX, handler, batch=100))
            else:
                for event in store.run(log.read_all(reached, PREFIX)):
                    note(event.position)
                    reached = event.position
            if was_over and reached == before:
                return
            was_over = is_over()
            if reached == before:
                store.run(log.wait(reached, PREFIX, timeout=0.05))
        except OUTAGES:
            continue


if __name__ == "__main__":
    main()
