"""One of several processes that write to a store on SQLite: `python -m benchmarks.sqlite_writer PATH NAME COUNT`.

It waits for a line on its standard input, so that all begin together, and prints the longest that an append took, in
seconds.
"""

import sys
import time

from interpreters.opening import open_store
from persist_effects import log


def main() -> None:
    """Append so many events, one by one."""
    path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open_store("sqlite:", path=path) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        worst_seconds = 0.0
        for number in range(count):
            begun = time.perf_counter()
            store.run(log.append(f"orders/{name}", "placed", number))
            worst_seconds = max(worst_seconds, time.perf_counter() - begun)
        print(worst_seconds, flush=True)


if __name__ == "__main__":
    main()
