"""The recipes of three pages, as they stand there: in every order of requests, and with every fault."""

import pytest
from places import ROOT
from test_docs import blocks

from interpreters import open_store
from interpreters.explore import explore, explore_crashes, explore_effects
from persist_effects import all_of, kv, log


def names_of(page):
    """What a page of docs/how-to defines."""
    found = {"__name__": page}
    for block in blocks(ROOT / "docs" / "how-to" / f"{page}.md"):
        if block.language == "python":
            exec(compile(block.code, page, "exec"), found)
    return found


recipes, uniqueness, outbox = names_of("recipes"), names_of("uniqueness"), names_of("outbox")


def memory():
    return open_store("memory:")


def explored(programs, check, stores=memory, *, crashes=False):
    report = explore(programs, stores, check, crashes=crashes)
    assert report.verdict == "passed", report
    assert report.checked > 1


# Uniqueness


def one_account_is_opened(*_):
    assert (yield from log.last_seq("accounts/7")) == 1


def test_an_account_is_opened_once_in_every_order():
    def opened_by(owner):
        return lambda: uniqueness["open_account"]("7", owner)

    explored({"ada": opened_by("Ada"), "eve": opened_by("Eve")}, one_account_is_opened, crashes=True)


def register(user):
    return lambda: uniqueness["register"](user, "a@example.org", user.title())


def each_address_has_one_user(*_):
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
    explored({"ada": register("ada"), "eve": register("eve")}, each_address_has_one_user, crashes=crashes)


def registered_once(*_):
    assert [event.type for event in (yield from log.read("users/ada"))] == ["registered"]
    assert (yield from uniqueness["user_of"]("a@example.org")) == "ada"
    # Asked again, it says what it has done.
    assert (yield from register("ada")())


def test_who_asks_again_whatever_fails_is_registered_once():
    report = explore_effects(register("ada"), memory, registered_once)
    assert report.verdict == "passed", report


def test_an_address_is_given_up_and_taken_by_another_in_every_order():
    def with_ada():
        # Each store that is explored must begin alike.
        store = open_store("memory:", clock=lambda: 1_700_000_000_000_000)
        store.run(uniqueness["register"]("ada", "old@example.org", "Ada"))
        return store

    def change():
        return (yield from uniqueness["change_email"]("ada", "old@example.org", "a@example.org"))

    programs = {"change": change, "change again": change, "eve": register("eve")}
    explored(programs, each_address_has_one_user, with_ada)


# An outbox, and an inbox


def receiving(request):
    """A message arrives: where it comes twice, it is dropped."""
    yield from outbox["receive"](request.id, request.body)


def shop():
    return open_store("memory:", effects={outbox["Send"]: receiving})


def place_order():
    yield from outbox["place_order"]("o-1", ["tea"])


def place_orders():
    yield from place_order()
    yield from outbox["place_order"]("o-2", ["mug"])


def send():
    return (yield from outbox["send_confirmations"]())


def no_message_is_lost_or_counted_twice(*_):
    # What has come by now; then the rest.
    early = [event.data for event in (yield from log.read("confirmed"))]
    yield from outbox["send_confirmations"]()
    confirmed = [event.data for event in (yield from log.read("confirmed"))]
    placed = [stream.removeprefix("orders/") for stream in (yield from log.streams("orders/"))]
    assert confirmed[: len(early)] == early
    assert sorted(confirmed) == sorted(placed), f"{placed} were placed, {confirmed} confirmed"
    assert (yield from kv.keys("confirmed/")) == [f"confirmed/{order}" for order in sorted(placed)]


@pytest.mark.parametrize(
    "programs",
    [{"place": place_orders, "send": send}, {"place": place_order, "one": send, "two": send}],
    ids=["one sends", "two send"],
)
def test_no_message_is_lost_or_counted_twice_in_every_order(programs):
    explored(programs, no_message_is_lost_or_counted_twice, shop)


def test_no_message_is_lost_or_counted_twice_whoever_crashes():
    explored({"place": place_orders, "send": send}, no_message_is_lost_or_counted_twice, shop, crashes=True)


def place_and_send():
    yield from place_order()
    yield from outbox["send_confirmations"]()


def test_no_message_is_lost_or_counted_twice_whatever_request_fails():
    report = explore_effects(place_and_send, shop, no_message_is_lost_or_counted_twice)
    assert report.verdict == "passed", report


@pytest.mark.exploration
def test_an_inbox_without_its_key_is_caught():
    def careless(request):
        yield from log.append("confirmed", "confirmed", request.body["order"])

    def careless_shop():
        return open_store("memory:", effects={outbox["Send"]: careless})

    programs = {"place": place_order, "one": send, "two": send}
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


@pytest.mark.exploration
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
