"""What a store in a directory takes of a fresh process's memory: `python -m benchmarks.index_memory DIRECTORY`.

It prints bytes: how far ``RssAnon``, the memory that is this process's own and not some file's, grew from before the
store was opened to when an event had been read from each stream, at places spread over the whole log, and each key was
looked for, so that an index which is loaded when first used is counted too. Before, the same was done with a store of
one event, so what every store takes (modules, threads, buffers) is left out. Of the allocator's waste, all is counted.
"""

import gc
import sys
from pathlib import Path

from benchmarks.ground import new_directory, open_file_store
from interpreters.runtime.store import Store
from persist_effects import kv, log


def growth_bytes(directory: Path) -> int:
    """How much more of this process's memory is taken once the store is open and was read from all over."""
    with new_directory() as first:
        with open_file_store(first / "store") as store:
            store.run(log.append("orders/1", "placed", None))
        with open_file_store(first / "store") as store:
            read_from_all_over(store)
    before = own_memory_bytes()
    with open_file_store(directory) as store:
        read_from_all_over(store)
        return max(1, own_memory_bytes() - before)


def read_from_all_over(store: Store) -> None:
    """Read one event of each stream: of the first stream its first, of the last its last, and between likewise."""
    for key in store.run(kv.keys()):
        assert store.run(kv.has(key))
    names = store.run(log.streams())
    for index, name in enumerate(names):
        last_seq = store.run(log.last_seq(name))
        (event,) = store.run(log.read(name, after=index * last_seq // len(names), limit=1))
        assert event.stream == name


def own_memory_bytes() -> int:
    """How much memory is this process's own, and not some file's."""
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/self/status has no RssAnon: this row needs Linux 4.5 or newer")


if __name__ == "__main__":
    print(growth_bytes(Path(sys.argv[1])))
