"""The example `examples/flow_order.py`: what it prints, and that an order is sent or undone once, whatever dies."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from held_activities import HeldActivity, counted
from places import EXAMPLES

from interpreters import Store, open_store
from persist_effects import flow, kv, log
from persist_effects.errors import FlowExists, FlowFailed

sys.path.insert(0, str(EXAMPLES))

import flow_order
from flow_order import ACTIVITIES, Order

URLS = ["memory:", "file:{}/store"]
TRANSCRIPT = """\
o-1: parcel o-1/1/6
o-2: CardDeclined: bob has less than 12.00 EUR
o-3: SoldOut: 3 tea left, and 4 ordered
bank: no money for o-4-island
o-4-island: Unreachable: no carrier goes to ada's island
o-1: placed, paid, sent
o-2: placed, given up
o-3: placed, given up
o-4-island: placed, paid, paid back, given up
left of mug: 1
left of tea: 3
"""
MUG = Order("o-1", "ada", "mug", 1)
TO_AN_ISLAND = Order("o-2-island", "ada", "tea", 2)


@pytest.fixture
def url(tmp_path):
    return f"file:{tmp_path}/store"


@pytest.fixture(params=URLS)
def any_url(request, tmp_path):
    return request.param.format(tmp_path)


def types_of(store: Store, order: Order) -> list[str]:
    return [event.type for event in store.run(log.read(order.stream))]


def stock(store: Store) -> dict[str, int]:
    return {sku: store.run(kv.get(f"stock/{sku}")) for sku in flow_order.IN_STOCK}


def result(url: str, order: Order, activities: Iterable[Callable[..., Any]] = ACTIVITIES) -> Any:
    with open_store(url) as store, flow_order.host_of(store, activities) as host:
        return host.result(order.number, timeout=60)


def stopped_in(url: str, order: Order, activity: Callable[..., Any]) -> HeldActivity:
    """Begin an order, and close the host and its store while an activity is under way."""
    held = HeldActivity(activity)
    with open_store(url) as store:
        store.run(flow_order.fill_stock())
        with flow_order.host_of(store, held.in_place_in(ACTIVITIES)) as host:
            host.start(flow_order.fulfil, order.number, order)
            held.wait()
    return held


def test_it_prints_this_and_the_second_time_nobody_is_asked_anything(any_url, capsys):
    flow_order.main(any_url)
    assert capsys.readouterr().out == TRANSCRIPT
    flow_order.main(any_url)
    again = TRANSCRIPT if any_url == "memory:" else TRANSCRIPT.replace("bank: no money for o-4-island\n", "")
    assert capsys.readouterr().out == again


def test_a_user_starts_it_from_the_command_line(url):
    command = [sys.executable, EXAMPLES / "flow_order.py", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == TRANSCRIPT


def test_a_host_that_stopped_while_the_bank_was_asked_is_followed_by_one_that_asks_with_the_same_key(url):
    asked: list[Any] = []
    with stopped_in(url, MUG, flow_order.charge) as held:
        activities = [counted(each, asked) if each is flow_order.charge else each for each in ACTIVITIES]
        parcel = result(url, MUG, activities)
        held.may_end.set()
    assert parcel == "parcel o-1/1/6"
    assert asked == [("o-1", "ada", 1200, "o-1/1/4")]
    with open_store(url) as store:
        assert types_of(store, MUG) == ["placed", "paid", "sent"]
        assert store.run(log.read(MUG.stream))[1].data == "receipt o-1/1/4"
        assert stock(store) == {"mug": 1, "tea": 3}


def test_a_host_that_stopped_while_an_order_was_undone_is_followed_by_one_that_undoes_the_rest(url):
    with stopped_in(url, TO_AN_ISLAND, flow_order.cancel_payment):
        with open_store(url) as store:
            assert types_of(store, TO_AN_ISLAND) == ["placed", "paid"]
            assert stock(store) == {"mug": 2, "tea": 1}
        with pytest.raises(FlowFailed) as failed:
            result(url, TO_AN_ISLAND)
    assert isinstance(failed.value.__cause__, flow_order.Unreachable)
    with open_store(url) as store:
        assert types_of(store, TO_AN_ISLAND) == ["placed", "paid", "paid back", "given up"]
        assert stock(store) == {"mug": 2, "tea": 3}
        assert not store.run(kv.has("reserved/o-2-island"))


def test_an_order_that_is_cancelled_while_the_bank_is_asked_is_undone(any_url):
    cancelled: list[Any] = []
    with HeldActivity(flow_order.charge) as held, open_store(any_url) as store:
        store.run(flow_order.fill_stock())
        activities = [held.activity, counted(flow_order.cancel_payment, cancelled), flow_order.send]
        with flow_order.host_of(store, activities) as host:
            host.start(flow_order.fulfil, MUG.number, MUG)
            held.wait()
            host.cancel(MUG.number)
            with pytest.raises(FlowFailed, match="was cancelled"):
                host.result(MUG.number, timeout=60)
            assert host.status(MUG.number).state == "cancelled"
        assert cancelled == [("o-1",)]
        assert stock(store) == flow_order.IN_STOCK
        assert types_of(store, MUG) == ["placed", "paid back"]


def test_of_many_orders_at_once_as_many_are_sent_as_there_are_mugs(any_url):
    orders = [Order(f"o-{number}", "ada", "mug", 1) for number in range(10)]
    with open_store(any_url) as store:
        store.run(flow_order.fill_stock())
        with flow_order.host_of(store) as host:
            for order in orders:
                host.start(flow_order.fulfil, order.number, order)
            causes = []
            for order in orders:
                try:
                    host.result(order.number, timeout=60)
                except FlowFailed as failed:
                    causes.append(type(failed.__cause__))
        assert causes == [flow_order.SoldOut] * 8
        assert stock(store) == {"mug": 0, "tea": 3}


def test_an_order_that_another_flow_has_placed_is_refused_and_its_stream_left_alone(store):
    store.run(flow_order.fill_stock())
    with flow_order.host_of(store) as host:
        host.start(flow_order.fulfil, "o-1", MUG)
        host.result("o-1", timeout=60)
        host.start(flow_order.fulfil, "o-1 again", MUG)
        with pytest.raises(FlowFailed, match="order o-1 was placed before, by another flow"):
            host.result("o-1 again", timeout=60)
    assert types_of(store, MUG) == ["placed", "paid", "sent"]


def test_the_same_order_under_the_same_id_is_the_same_flow_and_another_one_is_refused(store):
    store.run(flow_order.fill_stock())
    with flow_order.host_of(store) as host:
        assert host.start(flow_order.fulfil, "o-1", MUG)
        assert not host.start(flow_order.fulfil, "o-1", MUG)
        with pytest.raises(FlowExists, match="with other arguments"):
            host.start(flow_order.fulfil, "o-1", TO_AN_ISLAND)
        host.result("o-1", timeout=60)


def test_a_bank_that_cannot_be_reached_is_asked_again(store):
    tries: list[str] = []

    @flow.activity(name="charge", repeat="keyed")
    def out_of_order_twice(number: str, customer: str, cents: int, *, key: str) -> str:
        tries.append(key)
        if len(tries) < 3:
            raise ConnectionError("the line is busy")
        return "receipt"

    store.run(flow_order.fill_stock())
    with flow_order.host_of(store, [out_of_order_twice, flow_order.cancel_payment, flow_order.send]) as host:
        host.start(flow_order.fulfil, "o-1", MUG)
        host.result("o-1", timeout=60)
    assert tries == ["o-1/1/4"] * 3


def test_an_undo_that_fails_is_told_with_what_it_raised_and_the_others_are_carried_out(store):
    @flow.activity(name="cancel_payment")
    def nobody_there(number: str) -> None:
        raise ConnectionError(f"nobody at the bank for {number}")

    activities = [flow_order.charge, nobody_there, flow_order.send]
    store.run(flow_order.fill_stock())
    with flow_order.host_of(store, activities) as host:
        host.start(flow_order.fulfil, TO_AN_ISLAND.number, TO_AN_ISLAND)
        with pytest.raises(FlowFailed) as failed:
            host.result(TO_AN_ISLAND.number, timeout=60)
    assert "Unreachable: no carrier goes to ada's island" in failed.value.reason
    assert "ConnectionError: nobody at the bank for o-2-island" in failed.value.reason
    cause = failed.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, flow_order.Unreachable)
    assert stock(store) == flow_order.IN_STOCK


def test_an_undo_that_fails_after_a_cancellation_shows_in_the_status(store):
    @flow.activity(name="cancel_payment")
    def nobody_there(number: str) -> None:
        raise ConnectionError(f"nobody at the bank for {number}")

    store.run(flow_order.fill_stock())
    with HeldActivity(flow_order.charge) as held, flow_order.host_of(store, [held.activity, nobody_there]) as host:
        host.start(flow_order.fulfil, MUG.number, MUG)
        held.wait()
        host.cancel(MUG.number)
        with pytest.raises(FlowFailed, match="was cancelled"):
            host.result(MUG.number, timeout=60)
        status = host.status(MUG.number)
    assert status.state == "cancelled"
    assert "what was to undo it raised ConnectionError: nobody at the bank for o-1" in str(status.error)
    assert stock(store) == flow_order.IN_STOCK
