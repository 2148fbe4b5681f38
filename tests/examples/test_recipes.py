"""The recipes of docs/how-to/recipes.md, as they stand there: in every order of requests, and with every fault."""

import pytest
from places import ROOT
from test_docs import blocks

from interpreters import open_store
from interpreters.explore import explore, explore_crashes, explore_effects
from persist_effects import all_of, kv, log

PAGE = ROOT / "docs" / "how-to" / "recipes.md"
recipes: dict = {"__name__": "recipes"}
for block in blocks(PAGE):
    exec(compile(block.code, str(PAGE), "exec"), recipes)


def memory():
    return open_store("memory:")


def explored(programs, check, stores=memory, *, crashes=False):
    report = explore(programs, stores, check, crashes=crashes)
    assert report.verdict == "passed", report
    assert report.checked > 1


# An e-mail address once


def register(name):
    return lambda: recipes["register"]("a@example.org", name)


def each_address_has_one_user(outcomes):
    claims = yield from kv.entries("emails/")
    for key, claim in claims:
        first, *_ = yield from log.read(f"users/{claim.value}")
        last = (yield from log.read_back(f"users/{claim.value}", 1))[0]
        address = last.data if last.type == "email changed" else first.data["email"]
        assert key == f"emails/{address}"
    assert sorted(stream.removeprefix("users/") for stream in (yield from log.streams("users/"))) == sorted(
        {claim.value for _, claim in claims}
    )


@pytest.mark.parametrize("crashes", [False, True])
def test_an_address_is_taken_once_in_every_order_and_with_a_crash_of_anybody(crashes):
    explored({"ada": register("Ada"), "eve": register("Eve")}, each_address_has_one_user, crashes=crashes)


def test_an_address_is_given_up_and_taken_by_another_in_every_order():
    def with_ada():
        # Each store that is explored must begin alike, so what fills it may not draw by chance.
        store = open_store("memory:", clock=lambda: 1_700_000_000_000_000, random_bytes=bytes)
        store.run(recipes["register"]("old@example.org", "Ada"))
        return store

    def change():
        (user,) = [claim.value for _, claim in (yield from kv.entries("emails/old@"))] or [None]
        return (yield from recipes["change_email"](user, "old@example.org", "a@example.org"))

    programs = {"change": change, "change again": change, "eve": register("Eve")}
    explored(programs, each_address_has_one_user, with_ada)


# An outbox, and an inbox


def receiving(request):
    """A message arrives: where it comes twice, it is dropped."""
    yield from recipes["receive"](request.id, request.body)


def shop():
    return open_store("memory:", effects={recipes["Send"]: receiving})


def place_orders():
    yield from recipes["place_order"]("o-1", ["tea"])
    yield from recipes["place_order"]("o-2", ["mug"])


def send():
    return (yield from recipes["send_outbox"]())


def no_message_is_lost_or_counted_twice(*_):
    # What has come by now; then the rest.
    early = [event.data for event in (yield from log.read("confirmed"))]
    while (yield from recipes["send_outbox"]()):
        pass
    confirmed = [event.data for event in (yield from log.read("confirmed"))]
    placed = [stream.removeprefix("orders/") for stream in (yield from log.streams("orders/"))]
    assert confirmed[: len(early)] == early
    assert sorted(confirmed) == sorted(placed), f"{placed} were placed, {confirmed} confirmed"


@pytest.mark.parametrize(
    "programs",
    [{"place": place_orders, "send": send}, {"place": place_orders, "one": send, "two": send}],
    ids=["one sends", "two send"],
)
def test_no_message_is_lost_or_counted_twice_in_every_order(programs):
    explored(programs, no_message_is_lost_or_counted_twice, shop)


def test_no_message_is_lost_or_counted_twice_whoever_crashes():
    explored({"place": place_orders, "send": send}, no_message_is_lost_or_counted_twice, shop, crashes=True)


def place_and_send():
    if not (yield from log.last_seq("orders/o-1")):
        yield from recipes["place_order"]("o-1", ["tea"])
    yield from recipes["send_outbox"]()


def test_no_message_is_lost_or_counted_twice_whatever_request_fails():
    report = explore_effects(place_and_send, shop, no_message_is_lost_or_counted_twice)
    assert report.verdict == "passed", report


def test_an_inbox_without_its_key_is_caught():
    def careless(request):
        yield from log.append("confirmed", "confirmed", request.body["order"])

    def careless_shop():
        return open_store("memory:", effects={recipes["Send"]: careless})

    programs = {"place": place_orders, "one": send, "two": send}
    assert explore(programs, careless_shop, no_message_is_lost_or_counted_twice).verdict == "failed"


# A counter without gaps


def numbers_have_no_gap(*_):
    events = yield from log.read("invoices")
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]
    orders = [event.data["order"] for event in events]
    assert len(set(orders)) == len(orders), f"{orders}: one has two invoices"


def invoice(order):
    return lambda: recipes["invoice"](order, 450)


@pytest.mark.parametrize("crashes", [False, True])
def test_invoices_have_no_gap_and_an_order_has_one(crashes):
    programs = {"one": invoice("o-1"), "the same": invoice("o-1"), "two": invoice("o-2")}
    explored(programs, numbers_have_no_gap, crashes=crashes)


def test_invoices_have_no_gap_after_a_crash_of_the_disk():
    def two():
        yield from all_of(recipes["invoice"]("o-1", 450), recipes["invoice"]("o-2", 450))

    report = explore_crashes(two, numbers_have_no_gap)
    assert report.verdict == "passed", report


# A saga


def agency(refused):
    """A store with services in it that book, and refuse some things."""

    def book(request):
        if request.id.endswith(refused):
            return False
        yield from kv.put(f"booked/{request.id}", True)
        return True

    def cancel(request):
        yield from kv.delete(f"booked/{request.id}")
        return True

    return lambda: open_store("memory:", effects={recipes["Book"]: book, recipes["Cancel"]: cancel})


def trip():
    return (yield from recipes["book_trip"]("rome"))


def all_or_none(wanted):
    def check(*_):
        # As when it is started again at last.
        assert (yield from recipes["book_trip"]("rome")) == bool(wanted)
        assert len((yield from kv.keys("booked/"))) == wanted

    return check


CASES = {"nothing": ("never", 3), "the first": ("flight", 0), "the last": ("car", 0)}


@pytest.mark.parametrize("case", CASES)
def test_a_trip_is_booked_whole_or_not_at_all_whatever_fails(case):
    refused, wanted = CASES[case]
    report = explore_effects(trip, agency(refused), all_or_none(wanted), depth=1)
    assert report.verdict == "passed", report


@pytest.mark.parametrize("case", CASES)
def test_a_trip_is_booked_whole_or_not_at_all_though_its_program_crashes(case):
    refused, wanted = CASES[case]
    explored({"trip": trip}, all_or_none(wanted), agency(refused), crashes=True)
