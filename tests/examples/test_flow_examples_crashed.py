"""The four examples of flows, with their host killed before and after each of its writes."""

import sys
from typing import Any

import pytest
from places import EXAMPLES

from interpreters.flow_testing import FlowTest, flow_test
from persist_effects import Effect, kv, log
from persist_effects.errors import FlowFailed

sys.path.insert(0, str(EXAMPLES))

import flow_approval
import flow_billing
import flow_fan_out
import flow_order

MUG = flow_order.Order("o-1", "ada", "mug", 1)
TO_AN_ISLAND = flow_order.Order("o-2-island", "ada", "tea", 2)
CLAIM = flow_approval.Claim("c-1", "grace", 40)
PLAN = flow_billing.Plan("ada", 990)
LINKS = ["example.org/1", "example.org/2", "example.org/3"]


def types_of(test: FlowTest, stream: str) -> list[str]:
    return [event.type for event in test.store.run(log.read(stream))]


def each_key_is_of_one_call(test: FlowTest) -> None:
    asked: dict[str, Any] = {}
    for call in test.calls:
        assert asked.setdefault(call.key, call.args) == call.args


def filled_stock() -> Effect[None]:
    for sku, count in flow_order.IN_STOCK.items():
        yield from kv.put(f"stock/{sku}", count)


def an_order_is_sent(test: FlowTest) -> None:
    test.store.run(filled_stock())
    test.start(flow_order.fulfil, MUG.number, MUG)
    test.run_to_end(MUG.number)
    assert types_of(test, MUG.stream) == ["placed", "paid", "sent"]
    assert test.store.run(kv.get("stock/mug")) == flow_order.IN_STOCK["mug"] - 1
    each_key_is_of_one_call(test)


def an_order_is_undone(test: FlowTest) -> None:
    test.store.run(filled_stock())
    test.start(flow_order.fulfil, TO_AN_ISLAND.number, TO_AN_ISLAND)
    with pytest.raises(FlowFailed):
        test.run_to_end(TO_AN_ISLAND.number)
    assert types_of(test, TO_AN_ISLAND.stream) == ["placed", "paid", "paid back", "given up"]
    assert test.store.run(kv.get("stock/tea")) == flow_order.IN_STOCK["tea"]
    assert not test.store.run(kv.has(f"reserved/{TO_AN_ISLAND.number}"))
    each_key_is_of_one_call(test)


def a_claim_is_approved_after_a_reminder(test: FlowTest) -> None:
    test.start(flow_approval.approve, CLAIM.number, CLAIM)
    test.advance(CLAIM.remind_every_seconds)
    test.signal(CLAIM.number, "decided", {"by": "grace", "is_approved": True})
    assert test.run_to_end(CLAIM.number) == "approved by grace"
    assert types_of(test, CLAIM.stream) == ["claimed", "reminded", "approved"]


def a_claim_expires(test: FlowTest) -> None:
    test.start(flow_approval.approve, CLAIM.number, CLAIM)
    assert test.run_to_end(CLAIM.number) == "expired"
    types = types_of(test, CLAIM.stream)
    assert (types[0], types[-1]) == ("claimed", "expired")
    assert set(types[1:-1]) == {"reminded"}


def links_are_checked(test: FlowTest) -> None:
    test.start(flow_fan_out.check_site, "check-1", "example.org", LINKS)
    report = test.run_to_end("check-1")
    assert (report.good, report.broken) == (2, ["example.org/2: 404"])
    assert {call.args for call in test.calls} == {(link,) for link in LINKS}


def a_subscription_is_billed_for_three_months(test: FlowTest) -> None:
    test.start(flow_billing.subscription, "ada", PLAN)
    test.advance(2.5 * flow_billing.MONTH_MICROS / 1e6)
    test.signal("ada", "unsubscribed", "no time for tea")
    assert test.run_to_end("ada") == "paid for 3: no time for tea"
    assert types_of(test, PLAN.stream) == ["paid", "paid", "paid", "ended"]
    assert len({call.key for call in test.calls}) == 3
    each_key_is_of_one_call(test)


def fetched(link: str) -> int:
    return 404 if link.endswith("/2") else 200


SCENARIOS = [
    (an_order_is_sent, flow_order.fulfil, {}, flow_order.ACTIVITIES),
    (an_order_is_undone, flow_order.fulfil, {}, flow_order.ACTIVITIES),
    (a_claim_is_approved_after_a_reminder, flow_approval.approve, {}, flow_approval.ACTIVITIES),
    (a_claim_expires, flow_approval.approve, {}, flow_approval.ACTIVITIES),
    (links_are_checked, flow_fan_out.check_site, {flow_fan_out.fetch: fetched}, flow_fan_out.ACTIVITIES),
    (a_subscription_is_billed_for_three_months, flow_billing.subscription, {}, flow_billing.ACTIVITIES),
]


@pytest.mark.parametrize(
    ("scenario", "code", "fakes", "activities"), SCENARIOS, ids=lambda part: getattr(part, "__name__", "")
)
def test_wherever_its_host_is_killed_it_comes_to_the_same(scenario, code, fakes, activities):
    errors = flow_order.ERRORS if code is flow_order.fulfil else []
    assert flow_test([code], activities, fakes=fakes, errors=errors).every_crash(scenario) > 6


@pytest.mark.exploration
def test_wherever_two_hosts_are_killed_one_after_the_other_an_order_is_undone_once():
    test = flow_test([flow_order.fulfil], flow_order.ACTIVITIES, errors=flow_order.ERRORS)
    assert test.every_crash(an_order_is_undone, depth=2) > 100
