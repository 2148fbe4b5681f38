"""A process that writes to a served store: `python served_child.py URL NAME COUNT`. Its stdout is what it was told.

Each number is settled before the next is begun. A line is the number, and its position once that is known.
"""

import sys

from interpreters import open_store
from persist_effects import StoreUnavailable, UncertainOutcome, log


def main() -> None:
    url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    uncertain = 0
    with open_store(url) as store:
        for number in range(count):
            while True:
                try:
                    event = store.run(log.append_once(f"orders/{name}", str(number), "made", number))
                    break
                except UncertainOutcome:
                    uncertain += 1
                except StoreUnavailable:
                    # It was told that nothing of it was written.
                    continue
            sys.stdout.write(f"{number} {event.seq} {event.position}\n")
            sys.stdout.flush()
    sys.stdout.write(f"uncertain {uncertain}\n")


if __name__ == "__main__":
    main()
