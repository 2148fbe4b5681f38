"""An order as a durable flow: stock, payment and parcel, one after the other, or all of it undone.

What the store keeps is written by the flow itself: what is left of each thing, and the events of the order. Those
writes take effect once, whatever dies. The bank and the carrier are outside: calling them is an activity, which is run
again where its host died midway, so they are handed a key by which they know what they have done already.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from msgspec import Struct

from interpreters import Store, open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import Conflict, Effect, Retry, flow, kv, log, transact
from persist_effects.errors import FlowFailed
from persist_effects.requests import KvDelete, KvPut

PRICE_CENTS = {"mug": 1200, "tea": 450}
IN_STOCK = {"mug": 2, "tea": 3}
ON_ACCOUNT_CENTS = {"ada": 10_000, "bob": 800}


class Order(Struct, frozen=True):
    """Who wants how many of what."""

    number: str
    customer: str
    sku: str
    count: int

    @property
    def stream(self) -> str:
        return f"orders/{self.number}"

    @property
    def cents(self) -> int:
        return self.count * PRICE_CENTS[self.sku]


class SoldOut(Exception):
    """Too little is left."""


class CardDeclined(Exception):
    """The bank does not pay."""


class Unreachable(Exception):
    """The carrier does not go there."""


# Outside


@flow.activity(repeat="keyed", retry=Retry(times=3, wait_seconds=0.1))
def charge(number: str, customer: str, cents: int, *, key: str) -> str | None:
    """Ask the bank for money: once for one key, however often it is asked.

    Returns its receipt, None where it refuses. That is an answer, and no error, which would be tried again.
    """
    return f"receipt {key}" if cents <= ON_ACCOUNT_CENTS[customer] else None


@flow.activity(retry=Retry(times=3, wait_seconds=0.1))
def cancel_payment(number: str) -> None:
    """Have the bank give back what was paid for an order, or refuse it from now on. Saying so twice is as once."""
    print(f"bank: no money for {number}")


@flow.activity(repeat="keyed")
def send(number: str, customer: str, *, key: str) -> str:
    """Hand the parcel to the carrier. Returns where it can be tracked."""
    if number.endswith("-island"):
        raise Unreachable(f"no carrier goes to {customer}'s island")
    return f"parcel {key}"


ACTIVITIES: list[Callable[..., Any]] = [charge, cancel_payment, send]
ERRORS = [SoldOut, CardDeclined, Unreachable]


# The flow


def fulfil(order: Order) -> Effect[str]:
    """Take an order from its placing to its parcel. Returns where that can be tracked."""
    placed = yield from log.append_expect(order.stream, 0, "placed", {"sku": order.sku, "count": order.count})
    if isinstance(placed, Conflict):
        raise ValueError(f"order {order.number} was placed before, by another flow")
    try:
        return (yield from flow.saga(partial(steps_of, order)))
    except Exception as error:
        yield from log.append(order.stream, "given up", str(error))
        raise


def steps_of(order: Order, saga: flow.Saga) -> Effect[str]:
    """The steps, each with its undo. Where one raises, those before it are undone, the last one first."""
    yield from saga.step(take_from_stock(order), undo=lambda: put_back(order))
    yield from saga.step(pay(order), undo=lambda: pay_back(order))
    parcel = yield from flow.call(send, order.number, order.customer)
    yield from log.append(order.stream, "sent", parcel)
    return str(parcel)


def pay(order: Order) -> Effect[None]:
    receipt = yield from flow.call(charge, order.number, order.customer, order.cents)
    if receipt is None:
        raise CardDeclined(f"{order.customer} has less than {told_cents(order.cents)}")
    yield from log.append(order.stream, "paid", receipt)


def pay_back(order: Order) -> Effect[None]:
    # Also where it was cancelled while the bank was asked, so that nobody knows whether it has paid.
    yield from flow.call(cancel_payment, order.number)
    yield from log.append(order.stream, "paid back", None)


def take_from_stock(order: Order) -> Effect[None]:
    """Reserve what is ordered. Where another order came first, look again: a conflict is kept in the journal too."""
    while True:
        found = yield from kv.entry(f"stock/{order.sku}")
        left, revision = (0, 0) if found is None else (found.value, found.revision)
        if left < order.count:
            raise SoldOut(f"{left} {order.sku} left, and {order.count} ordered")
        taken = KvPut(f"stock/{order.sku}", left - order.count, revision)
        if not isinstance((yield from transact(taken, KvPut(f"reserved/{order.number}", order.count))), Conflict):
            return


def put_back(order: Order) -> Effect[None]:
    """Give back what was reserved, if it was."""
    if not (yield from kv.has(f"reserved/{order.number}")):
        return
    while True:
        found = yield from kv.entry(f"stock/{order.sku}")
        left, revision = (0, 0) if found is None else (found.value, found.revision)
        given_back = KvPut(f"stock/{order.sku}", left + order.count, revision)
        if not isinstance((yield from transact(given_back, KvDelete(f"reserved/{order.number}"))), Conflict):
            return


# Around it


ORDERS = [
    Order("o-1", "ada", "mug", 1),
    Order("o-2", "bob", "mug", 1),
    Order("o-3", "ada", "tea", 4),
    Order("o-4-island", "ada", "tea", 2),
]


def fill_stock() -> Effect[None]:
    """Put what there is into the stock, the first time."""
    for sku, count in IN_STOCK.items():
        yield from kv.put_expect(f"stock/{sku}", 0, count)


def host_of(store: Store, activities: Iterable[Callable[..., Any]] = ACTIVITIES) -> FlowHost:
    return FlowHost(store, flows=[fulfil], activities=activities, errors=ERRORS)


def report(numbers: Iterable[str]) -> Effect[list[str]]:
    """The events of each order, and what is left."""
    lines = []
    for number in numbers:
        types = [event.type for event in (yield from log.read(f"orders/{number}"))]
        lines += [f"{number}: {', '.join(types)}"]
    for sku in IN_STOCK:
        lines += [f"left of {sku}: {(yield from kv.get(f'stock/{sku}'))}"]
    return lines


def told_cents(cents: int) -> str:
    return f"{cents / 100:.2f} EUR"


def main(url: str = "memory:") -> None:
    with open_store(url) as store:
        store.run(fill_stock())
        with host_of(store) as host:
            for order in ORDERS:
                # The second time that this is run on one store, these are the flows that there are.
                host.start(fulfil, order.number, order)
                try:
                    print(f"{order.number}: {host.result(order.number, timeout=60)}")
                except FlowFailed as failed:
                    print(f"{order.number}: {type(failed.__cause__).__name__}: {failed.__cause__}")
        print(*store.run(report(order.number for order in ORDERS)), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
