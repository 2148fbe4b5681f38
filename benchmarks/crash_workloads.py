"""Small workloads, every crash of which is explored: one for each thing that the file engine does to its disk.

They are as small as their subject allows, so that all crashes of most of them, and of their recoveries, take seconds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from interpreters.explore import Compact, Mark, Reopen
from persist_effects import Draft, PersistError, kv, log, transact
from persist_effects.machine import Effect, perform
from persist_effects.requests import Append, KvDelete, KvPut, TruncateThrough

Maker = Callable[[], Effect[Any]]


class Fixed(NamedTuple):
    """A workload, and how it is explored: so many crashes deep, with these faults."""

    name: str
    programs: tuple[Maker, ...]
    depth: int = 2
    segment_bytes: int = 4096
    faults: tuple[str, ...] = ()


def appends() -> Effect[None]:
    for number in range(3):
        yield from log.append("orders/1", "placed", {"total": number})


def customer(number: int) -> Maker:
    def buys() -> Effect[None]:
        yield from log.append(f"orders/{number}", "placed", number)
        yield from kv.put(f"total/{number}", number)

    return buys


def transactions() -> Effect[None]:
    for number in (1, 2):
        yield from transact(
            Append("orders/1", (Draft("placed", number), Draft("paid", number))),
            Append("invoices", (Draft("sent", number),)),
            KvPut("orders", number),
        )
    yield from transact(KvDelete("orders"), TruncateThrough("orders/1", 2))


def roll_over() -> Effect[None]:
    # A segment of 400 bytes has room for one of these, beside its header and its footer.
    for number in range(2):
        yield from log.append("orders/1", "placed", f"{number}" * 120)


def compaction() -> Effect[None]:
    placed_and_paid = (Draft("placed", 1), Draft("paid", 1))
    yield from transact(Append("orders/1", placed_and_paid), KvPut("total", 1))
    yield from transact(TruncateThrough("orders/1", 1), KvPut("total", 2))
    yield from perform(Compact())


def keys() -> Effect[None]:
    yield from kv.put("total", 1)
    yield from kv.put("total", 2)
    yield from kv.delete("total")
    yield from kv.put("total", 3)


def truncation() -> Effect[None]:
    yield from log.append_many("orders/1", [Draft("placed", number) for number in range(3)])
    yield from log.truncate_through("orders/1", 2)
    yield from log.truncate_through("orders/1", 3)
    yield from log.append("orders/1", "placed", 4)


def opened_again() -> Effect[None]:
    yield from log.append("orders/1", "placed", 1)
    yield from perform(Reopen())
    yield from log.append("orders/1", "placed", 2)


def torn_tail() -> Effect[None]:
    """Where a fault fails the second append, the tail of the log is cut or copied when the store is opened again."""
    yield from log.append("orders/1", "placed", 1)
    try:
        yield from log.append("orders/1", "placed", 2)
    except PersistError:
        yield from perform(Reopen())
    yield from log.append("orders/1", "placed", 3)


def idle() -> Effect[None]:
    yield from log.append("orders/1", "placed", 1)
    yield from perform(Mark())
    yield from log.append("orders/1", "placed", 2)


FIXED = (
    Fixed("appends", (appends,)),
    Fixed("group commit", tuple(map(customer, (1, 2, 3)))),
    Fixed("transactions", (transactions,)),
    Fixed("roll-over", (roll_over,), segment_bytes=400),
    Fixed("compaction", (compaction,), depth=1),
    Fixed("keys", (keys,)),
    Fixed("truncation", (truncation,)),
    Fixed("opened again", (opened_again,), depth=1),
    Fixed("torn tail", (torn_tail,), depth=1, faults=("EIO", "failed sync, ext4 ordered", "failed sync, btrfs")),
    Fixed("idle", (idle,)),
)
