"""A process that writes to a store until it is killed, and says what was acknowledged.

It waits for orders, one a line on its standard input, and forks for each a child that carries it out, so that a round
costs no start of Python. On its standard output stand, one a line: the child's ``pid``, ``opened``, then for each
acknowledgement ``ack`` with the worker, the number of its write and the answer, and at last, when the child is
dead, ``dead``.
"""

import json
import os
import signal
import sys
import threading
import traceback
from random import Random
from typing import Any

import anyio

from interpreters import Store
from interpreters.stores.file.store import FileStore
from persist_effects import Draft, perform
from persist_effects.requests import Append, Appended, KvDelete, KvPut, Request, Transact, TruncateThrough

THREADS, TASKS, TOGETHER = (0, 1), (2, 3, 4), (5, 6, 7)
"""Which workers write from threads of their own, from tasks of one event loop, and by one `run_many`."""

WORKERS = len(THREADS) + len(TASKS) + len(TOGETHER)


def write_of(seed: int, worker: int, number: int) -> Request[Any]:
    """What a worker writes as its ``number``-th. Each worker has streams and keys of its own."""
    random = Random(f"{seed} {worker} {number}")
    stream, other = f"{worker}/a", f"{worker}/b"
    key = f"{worker}/{random.randrange(6)}"
    value = {"number": number, "text": "x" * random.choice([3, 30, 300])}
    one = Append(stream, (Draft("made", value),))
    three = Append(other, (Draft("made", value),) * 3)
    kinds: list[Request[Any]] = [
        one,
        one,
        three,
        KvPut(key, value),
        KvDelete(key),
        Transact((one, KvPut(key, value), three, KvPut(f"{worker}/together", number))),
        Transact((three, KvDelete(key), KvPut(f"{worker}/together", number))),
        TruncateThrough(stream, random.randrange(1, number + 2)),
    ]
    return random.choices(kinds, [4, 2, 2, 4, 2, 4, 2, 2])[0]


def numbers_in(answer: Any) -> Any:
    """An answer as plain numbers."""
    if isinstance(answer, Appended):
        return {"last_seq": answer.last_seq, "position": answer.position}
    return [numbers_in(part) for part in answer] if isinstance(answer, list) else answer


def say(line: str) -> None:
    """One system call, so that a line is never there by half."""
    os.write(1, f"{line}\n".encode())


class Writers:
    """The workers of one round, each of which goes on from its start until the process is killed."""

    def __init__(self, store: Store, seed: int, starts: list[int]) -> None:
        self._store = store
        self._seed = seed
        self._next = list(starts)

    def write_from_thread(self, worker: int) -> None:
        while True:
            self._acknowledge(worker, self._store.run(self._program(worker)))

    def write_together(self) -> None:
        while True:
            answers = self._store.run_many(self._program(worker) for worker in TOGETHER)
            for worker, answer in zip(TOGETHER, answers, strict=True):
                self._acknowledge(worker, answer)

    async def write_from_tasks(self) -> None:
        async with anyio.create_task_group() as group:
            for worker in TASKS:
                group.start_soon(self._write_from_task, worker)

    async def _write_from_task(self, worker: int) -> None:
        while True:
            self._acknowledge(worker, await self._store.arun(self._program(worker)))

    def compact(self) -> None:
        while True:
            self._store.interpreter.compact()

    def _program(self, worker: int):
        return perform(write_of(self._seed, worker, self._next[worker]))

    def _acknowledge(self, worker: int, answer: Any) -> None:
        say(f"ack {worker} {self._next[worker]} {json.dumps(numbers_in(answer))}")
        self._next[worker] += 1


def carry_out(order: dict[str, Any]) -> None:
    """Open the store, and write with all workers until killed."""
    store = Store(FileStore(order["path"], **order["options"]))
    say("opened")
    if not order["writes"]:
        signal.pause()
    writers = Writers(store, order["seed"], order["starts"])
    jobs = [(writers.write_from_thread, worker) for worker in THREADS]
    jobs += [(writers.write_together,), (anyio.run, writers.write_from_tasks)]
    if order["compacts"]:
        jobs.append((writers.compact,))
    threads = [threading.Thread(target=or_say_why_not, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def or_say_why_not(job, *arguments) -> None:
    """Run a job. Its error is told, and is the end of the process."""
    try:
        job(*arguments)
    except BaseException:
        for line in traceback.format_exc().splitlines():
            say(f"error {line}")
        os._exit(1)


def main() -> None:
    """Wait for orders, and give each to a child."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            or_say_why_not(carry_out, json.loads(line))
            os._exit(0)
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("dead")


if __name__ == "__main__":
    main()
