"""The work that the rows share: realistic orders, the same in every run, of about 125 bytes of msgpack."""

from typing import Any

from persist_effects import Event

TEAS = ("assam", "darjeeling", "earl-grey", "genmaicha", "lapsang", "oolong", "sencha")


def order(number: int) -> dict[str, Any]:
    """The order of this number."""
    count = 1 + number % 3
    price_cents = 450 + number % 97 * 10
    return {
        "order_id": f"o-{number:07}",
        "customer": f"c-{number * 7919 % 100_003:06}",
        "items": [{"sku": TEAS[number % len(TEAS)], "count": count, "price_cents": price_cents}],
        "total_cents": count * price_cents,
        "currency": "EUR",
        "express": number % 5 == 0,
        "note": None,
    }


def add_total(total_cents: int, event: Event) -> int:
    """The step of a fold over orders: what they come to."""
    total: int = total_cents + event.data["total_cents"]
    return total
