"""Ctrl-C at any line of asking, opening and closing a store on NATS: it can be used on, and nothing is left behind."""

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
from interrupts import Interrupt, InterruptInside
from nats_cluster import new_store_url
from test_interrupted_doors import is_as_before, left_behind, sweep

from interpreters import open_store, opening
from interpreters.nats import connection
from interpreters.runtime import flights
from interpreters.runtime import store as store_room
from interpreters.stores import asking
from interpreters.stores.nats import store as nats_store
from persist_effects import kv
from persist_effects.requests import AllOf, KvGet, KvPut

PATIENCE_SECONDS = 60
CALLER = (nats_store.__file__, asking.__file__, store_room.__file__, flights.__file__)
DOORS = (opening.__file__, store_room.__file__, nats_store.__file__, connection.__file__)
ASKED = {"one": KvPut("color", "red"), "several": AllOf((KvPut("color", "red"), KvGet("color")))}


@pytest.mark.parametrize("kind", [Interrupt, InterruptInside])
@pytest.mark.parametrize("name", ASKED)
def test_an_interrupt_at_any_line_of_asking_nats_leaves_the_store_usable(name, kind):
    asked = ASKED[name]
    with open_store(new_store_url()) as store, ThreadPoolExecutor(1) as thread:

        def use():
            # By its row: an interrupt before a program runs would leave it behind.
            store.handlers[type(asked)](asked)

        with kind(0, CALLER) as counting:
            use()
        assert len(counting.firsts) > 5
        for at in counting.firsts.values():
            try:
                with kind(at, CALLER) as interrupt:
                    use()
            except KeyboardInterrupt:
                pass
            else:
                assert not interrupt.place, f"the interrupt at {interrupt.place} was lost"
            put = thread.submit(store.run, kv.put("number", at))
            assert put.result(PATIENCE_SECONDS), interrupt.place
            assert store.run(kv.get("number")) == at, interrupt.place


@pytest.mark.exploration
def test_an_interrupt_anywhere_while_a_store_on_nats_is_opened_leaves_nothing_behind():
    url = new_store_url()
    open_store(url).close()
    before = left_behind()
    opened = []

    def use():
        opened.append(open_store(url))
        opened[-1].close()
        opened.pop()

    for place in sweep(use, DOORS):
        if opened:
            opened.pop().close()
        # One that was on its way to whoever opened it is nobody's, and closed when it is collected.
        gc.collect()
        assert is_as_before(before), place


@pytest.mark.exploration
def test_after_an_interrupt_anywhere_in_closing_a_store_on_nats_it_can_be_closed_again():
    url = new_store_url()
    open_store(url).close()
    before = left_behind()
    opened = [open_store(url)]
    for place in sweep(lambda: opened[-1].close(), DOORS):
        opened.pop().close()
        assert is_as_before(before), place
        opened.append(open_store(url))
    opened.pop().close()
