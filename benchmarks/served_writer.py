"""One of several processes whose tasks write to a served store: `python -m benchmarks.served_writer URL TASKS COUNT`.

It waits for a line on its standard input, so that all begin together, and prints a line when it is done.
"""

import asyncio
import sys

from benchmarks.appends import append_in_tasks, prepared_appends
from interpreters.opening import open_store


def main() -> None:
    """Append so many events, in so many tasks."""
    url, tasks, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with open_store(url) as store, prepared_appends(count) as appends:
        # The first use of asyncio, and of the connection, is not timed.
        asyncio.run(_nothing())
        print("ready", flush=True)
        sys.stdin.readline()
        append_in_tasks(store, appends, tasks)
        print("done", flush=True)


async def _nothing() -> None:
    await asyncio.sleep(0)


if __name__ == "__main__":
    main()
