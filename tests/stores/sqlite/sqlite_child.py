"""A process that writes to a store on SQLite, and says after each write that it was acknowledged.

`python sqlite_child.py PATH NAME COUNT [SYNC]`: each transaction appends to a stream of its own and to one of all.
"""

import sys

from interpreters import open_store
from persist_effects import Draft, transact
from persist_effects.requests import Append, KvPut


def main() -> None:
    path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open_store("sqlite:", path=path, sync=sys.argv[4] if len(sys.argv) > 4 else "commit") as store:
        begun = store.run(_own(name))
        for number in range(begun, begun + count):
            store.run(
                transact(
                    Append(f"own/{name}", (Draft("made", number),)),
                    Append("all", (Draft("made", [name, number]),)),
                    KvPut(f"last/{name}", number),
                )
            )
            print(number, flush=True)


def _own(name):
    from persist_effects import log

    return (yield from log.last_seq(f"own/{name}"))


if __name__ == "__main__":
    main()
