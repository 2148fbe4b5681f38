"""Orders against a stock, in one event log: a race, a read model, a snapshot, compaction, and invoices as blobs.

Everything above `main` is pure: its programs yield requests and touch no IO, so they run the same on every store.
Each may be interrupted anywhere and run again: what is recorded is not recorded twice.
"""

import sys
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from interpreters import open_store
from persist_effects import (
    BlobRef,
    Conflict,
    Effect,
    Event,
    InvalidRequest,
    KvPut,
    Schema,
    State,
    all_of,
    blob,
    compaction,
    follow,
    kv,
    log,
    snapshot,
)
from persist_effects.requests import Write

LEDGER = "ledger"
COMPACT_EVERY = 3
STOCK = {"mug": 1, "tea": 3}
PRICE_CENTS = {"mug": 1200, "tea": 450}


class Placed(Struct, frozen=True):
    """An order was accepted."""

    order: str
    sku: str
    count: int
    cents: int


class Declined(Struct, frozen=True):
    """An order found too little left."""

    order: str


class Invoiced(Struct, frozen=True):
    """An order's invoice was written: the log holds the reference, the blob store the bytes."""

    order: str
    invoice: BlobRef


Fact = Placed | Declined | Invoiced
SCHEMA = Schema[Placed | Declined | Invoiced]({"placed": Placed, "declined": Declined, "invoiced": Invoiced})


class Ledger(Struct, frozen=True):
    """What the events amount to. A declined order is None."""

    orders: dict[str, Placed | None] = {}
    invoices: dict[str, BlobRef] = {}

    def sold(self, sku: str) -> list[int]:
        """How many were sold, and for how many cents."""
        sales = [order for order in self.orders.values() if order is not None and order.sku == sku]
        return [sum(order.count for order in sales), sum(order.cents for order in sales)]


def step(ledger: Ledger, event: Event) -> Ledger:
    match event.data:
        case Placed(order=number) as placed:
            return replace(ledger, orders={**ledger.orders, number: placed})
        case Declined(order=number):
            return replace(ledger, orders={**ledger.orders, number: None})
        case Invoiced(order=number, invoice=ref):
            return replace(ledger, invoices={**ledger.invoices, number: ref})
        case unknown:
            raise AssertionError(f"the schema let {unknown!r} through")


def current() -> Effect[State[Ledger]]:
    """The ledger as it is now: its snapshot, and the events since."""
    return (yield from snapshot.replay(LEDGER, LEDGER, SCHEMA.typed(step), Ledger()))


def record(decide: Callable[[Ledger], Fact | None]) -> Effect[list[Conflict]]:
    """Append what is decided on the ledger; where another came first, decide again. Returns the races lost."""
    lost: list[Conflict] = []
    while True:
        ledger = yield from current()
        fact = decide(ledger.value)
        if fact is None:
            return lost
        appended = yield from SCHEMA.append_expect(LEDGER, ledger.seq, fact)
        if not isinstance(appended, Conflict):
            return lost
        lost.append(appended)


def place(number: str, sku: str, count: int) -> Effect[list[Conflict]]:
    def decide(ledger: Ledger) -> Fact | None:
        if number in ledger.orders:
            return None
        is_left = ledger.sold(sku)[0] + count <= STOCK[sku]
        return Placed(number, sku, count, count * PRICE_CENTS[sku]) if is_left else Declined(number)

    return record(decide)


def invoice(order: Placed) -> Effect[list[Conflict]]:
    ref = yield from blob.put(invoice_text(order), "text/plain")
    return (yield from record(lambda ledger: None if order.order in ledger.invoices else Invoiced(order.order, ref)))


def invoice_text(order: Placed) -> bytes:
    return f"{order.order}: {order.count} {order.sku}, {order.cents / 100:.2f} EUR".encode()


def count_sale(event: Event) -> Effect[list[Write]]:
    """The read model: ``sales/<sku>`` holds what `Ledger.sold` gives."""
    fact = SCHEMA.lift(event).data
    if not isinstance(fact, Placed):
        return []
    found = yield from kv.entry(f"sales/{fact.sku}")
    (count, cents), revision = ([0, 0], 0) if found is None else (found.value, found.revision)
    return [KvPut(f"sales/{fact.sku}", [count + fact.count, cents + fact.cents], revision)]


def catch_up() -> Effect[int]:
    """Each sale counts once, however often this runs: the checkpoint is written in the same transaction."""
    for newest in (yield from log.read_back(LEDGER, 1)):
        # What the ledger shows, a store that many processes write may show to followers a little later.
        yield from log.wait(newest.position - 1, LEDGER)
    return (yield from follow("sales", LEDGER, count_sale))


def tend() -> Effect[None]:
    """Compact, but let the read model catch up first: it must have seen what is dropped. One process tends."""
    yield from catch_up()
    yield from compaction.maybe_compact(LEDGER, LEDGER, SCHEMA.typed(step), Ledger(), COMPACT_EVERY)


def ledger() -> Effect[list[Conflict]]:
    """The day's work. Returns the races lost on the way."""
    yield from place("o-1", "mug", 1)
    # Two clerks sell the last tea. Both find three left and append; one is refused, and decides again.
    races = yield from all_of(place("o-2", "tea", 2), place("o-3", "tea", 2))
    yield from tend()
    for order in (yield from current()).value.orders.values():
        if order is not None:
            yield from invoice(order)
    yield from tend()
    return [conflict for lost in races for conflict in lost]


def check_ledger() -> Effect[None]:
    """Assert what holds at any time, also where `ledger` was interrupted."""
    yield from catch_up()
    now = (yield from current()).value
    for sku, stock in STOCK.items():
        sales = yield from kv.get_or(f"sales/{sku}", [0, 0])
        assert sales == now.sold(sku), f"the read model has {sales} for {sku}, the events give {now.sold(sku)}"
        assert sales[0] <= stock, f"{sales[0]} {sku} were sold, and there were {stock}"
    for number, ref in now.invoices.items():
        order, text = now.orders[number], (yield from blob.get(ref))
        assert order is not None, f"{number} was declined, and has an invoice"
        assert (text, ref.size) == (invoice_text(order), len(text)), f"the invoice of {number} reads {text!r}"


def report() -> Effect[list[str]]:
    yield from check_ledger()
    now = yield from current()
    lines = [f"{number}: {'placed' if order else 'declined'}" for number, order in now.value.orders.items()]
    for key in (yield from kv.keys("sales/")):
        count, cents = yield from kv.get(key)
        lines += [f"{key}: {count} for {cents / 100:.2f} EUR"]
    left = [event.seq for event in (yield from log.read(LEDGER))]
    lines += [f"snapshot: through event {(yield from snapshot.covered_seq(LEDGER))}, events left: {left}"]
    for ref in now.value.invoices.values():
        lines += [f"invoice: {(yield from blob.get(ref)).decode()} ({ref.mime}, {ref.cid[:12]}…)"]
    return lines


def main(url: str = "memory:") -> None:
    with open_store(url) as store:
        for lost in store.run(ledger()):
            print(f"race: expected event {lost.expected} to be the last, it was {lost.actual}: decided again")
        lines = store.run(report())
        print(*lines, sep="\n")
        assert store.run(ledger()) == []
        assert store.run(report()) == lines
        print("again: nothing was recorded or counted twice")


def command(arguments: list[str]) -> int:
    """Run on the store that the only argument names, a memory store without one. Returns the process's exit code."""
    if len(arguments) > 1:
        print("usage: order_ledger.py [URL]", file=sys.stderr)
        return 2
    try:
        main(*arguments)
    except InvalidRequest as error:
        print(f"order_ledger: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
