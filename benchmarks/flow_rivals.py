"""The rivals of durable flows, each in a process of its own: ten trivial steps a workflow, one workflow after another.

They are used as someone would who knows them: DBOS on SQLite, as it is without a server, and dura on its one file. A
line of standard input says how many workflows are to run; a line of standard output how many steps a second that were.
"""

import importlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = 10

Runs = Callable[[int], object]
"""Runs the so-many-th workflow to its end."""


def trivial(number: int) -> int:
    """What a step does."""
    return number


def of_dbos(directory: Path) -> Runs:
    """DBOS keeps its journal in SQLite unless it is told otherwise, and needs one of 3.42 or later."""
    sys.modules["sqlite3"] = importlib.import_module("pysqlite3")
    logging.disable(logging.CRITICAL)
    dbos: Any = importlib.import_module("dbos")
    url = f"sqlite:///{directory}/dbos.sqlite"
    dbos.DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False})
    step = dbos.DBOS.step()(trivial)

    @dbos.DBOS.workflow()  # type: ignore[untyped-decorator]
    def ten_steps() -> int:
        return sum(step(number) for number in range(STEPS))

    dbos.DBOS.launch()
    return lambda number: ten_steps()


def of_dura(directory: Path) -> Runs:
    """Dura owns no threads: whoever uses it claims a task, and carries out its steps."""
    engine: Any = importlib.import_module("dura").DurableEngine(directory / "dura.db")

    def run(number: int) -> None:
        engine.spawn_task(name="ten", params={}, idempotency_key=f"{number}")
        task = engine.claim_task(worker_id="bench")
        results = [
            engine.checkpoint(task_id=task.task_id, step_name=f"{step}", fn=lambda step=step: trivial(step))
            for step in range(STEPS)
        ]
        engine.complete_run(run_id=task.run_id, result=sum(results))

    return run


RIVALS: dict[str, Callable[[Path], Runs]] = {"dbos": of_dbos, "dura": of_dura}


def main(name: str, directory: str) -> None:
    """Answer lines until there are none."""
    run = RIVALS[name](Path(directory))
    begun = 0
    run(begun)
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line)
        start = time.perf_counter()
        for _ in range(count):
            begun += 1
            run(begun)
        print(count * STEPS / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
