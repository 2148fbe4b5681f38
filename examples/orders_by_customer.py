"""Questions that a log is bad at, asked of tables that a follower fills: a customer's orders in March, the best ones.

Run it on a store with SQL, `sqlite:var/orders.db` or `postgresql://…`; or have the events in another store and only
the tables there: `orders_by_customer.py sqlite:var/reports.db file:var/orders`. Run it again: no order counts twice.
"""

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

from interpreters import Store, open_store
from persist_effects import Effect, Event, InvalidRequest, SqlModel, follow, followers, log, targets
from persist_effects.requests import Write
from persist_effects.targets import rows_at

# What happened: who ordered on which day, from where, and for how much.
ORDERS = [
    ("o-1", "placed", {"customer": "ada", "day": "2026-02-27", "cents": 1200, "country": "UK"}),
    ("o-2", "placed", {"customer": "ada", "day": "2026-03-02", "cents": 450, "country": "UK"}),
    ("o-3", "placed", {"customer": "bo", "day": "2026-03-09", "cents": 9900, "country": "SE"}),
    ("o-4", "placed", {"customer": "ada", "day": "2026-03-30", "cents": 700, "country": "UK"}),
    ("o-3", "cancelled", {}),
]

# The first version of the tables. Each version has some of its own: {orders} is the one that is being filled.
FIRST = SqlModel(
    "orders-by-customer",
    {
        "orders": [
            "CREATE TABLE {orders} (id TEXT PRIMARY KEY, customer TEXT NOT NULL, day TEXT NOT NULL, cents BIGINT)",
            "CREATE INDEX {orders}_of_customers ON {orders} (customer, day)",
        ]
    },
)

# The second one has a column more. It is filled from the first event on, while the first one goes on answering.
SECOND = SqlModel(
    "orders-by-customer",
    {
        "orders": [
            """CREATE TABLE {orders} (
                id TEXT PRIMARY KEY, customer TEXT NOT NULL, day TEXT NOT NULL, cents BIGINT, country TEXT NOT NULL
            )""",
            "CREATE INDEX {orders}_of_customers ON {orders} (customer, day)",
        ]
    },
)


def rows_of(event: Event, orders: Any) -> list[Write]:
    """What an event does to the tables: with its checkpoint, in one transaction."""
    order = event.stream.removeprefix("orders/")
    if event.type == "cancelled":
        return [orders.sql("DELETE FROM {orders} WHERE id = :id", {"id": order})]
    row = {"id": order, **{name: event.data[name] for name in ("customer", "day", "cents")}}
    return [orders.sql("INSERT INTO {orders} VALUES (:id, :customer, :day, :cents)", row)]


def rows_with_country(event: Event, orders: Any) -> list[Write]:
    """The same, with the column that the second version has."""
    if event.type == "cancelled":
        return rows_of(event, orders)
    row = {"id": event.stream.removeprefix("orders/"), **event.data}
    return [orders.sql("INSERT INTO {orders} VALUES (:id, :customer, :day, :cents, :country)", row)]


def record() -> Effect[None]:
    """Append what happened, each event once however often this runs."""
    for number, (order, kind, data) in enumerate(ORDERS):
        yield from log.append_once(f"orders/{order}", f"event {number}", kind, data)


def connect(url: str) -> Any:
    """A connection of one's own to the database of a store: whoever queries needs nothing of this package."""
    if url.startswith("sqlite:"):
        return closing(sqlite3.connect(url.removeprefix("sqlite:").partition("?")[0]))
    import psycopg

    found = urlsplit(url)
    driver_query = "&".join(option for option in found.query.split("&") if not option.startswith("schema="))
    return psycopg.connect(found._replace(query=driver_query).geturl())


def ask(url: str, question: str) -> list[Sequence[Any]]:
    """What the tables say. The names are plain: whichever version is whole answers."""
    with connect(url) as connection:
        return list(connection.execute(question).fetchall())


MARCH = """
SELECT id, cents FROM orders
WHERE customer = 'ada' AND day >= '2026-03-01' AND day < '2026-04-01' ORDER BY day
"""
BEST = "SELECT customer, count(*), sum(cents) FROM orders GROUP BY customer ORDER BY sum(cents) DESC LIMIT 3"
COUNTRIES = "SELECT country, count(*) FROM orders GROUP BY country ORDER BY country"


def main(tables_url: str, events_url: str | None = None) -> None:
    with ExitStack() as stores:
        tables: Store = stores.enter_context(open_store(tables_url))
        events, into = tables, None
        if events_url is not None:
            into = "reports"
            events = stores.enter_context(open_store(events_url, effects=rows_at({into: tables})))
        events.run(record())
        events.wait_for_order()
        # A release that is older than the tables would be refused: here it is this program's first run alone.
        if not events.run(is_known(into)):
            events.run(follow(FIRST, "orders/", rows_of, into=into))
        for order, cents in ask(tables_url, MARCH):
            print(f"ada in March: {order} for {cents / 100:.2f} EUR")
        for customer, count, cents in ask(tables_url, BEST):
            print(f"best: {customer}, {count} orders for {cents / 100:.2f} EUR")
        events.run(follow(SECOND, "orders/", rows_with_country, version=2, into=into))
        for country, count in ask(tables_url, COUNTRIES):
            print(f"since version 2: {count} orders from {country}")


def is_known(into: str | None) -> Effect[bool]:
    """Whether somebody has followed under this name before."""
    names = followers.names() if into is None else targets.into(into, followers.names())
    return FIRST.name in (yield from names)


def command(arguments: list[str]) -> int:
    """Run on the stores that the arguments name. Returns the process's exit code."""
    if len(arguments) not in (1, 2):
        print("usage: orders_by_customer.py URL_OF_THE_TABLES [URL_OF_THE_EVENTS]", file=sys.stderr)
        return 2
    try:
        main(*arguments)
    except InvalidRequest as error:
        print(f"orders_by_customer: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
