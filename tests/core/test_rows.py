"""Rows of a handler table: plain functions, programs of the same table, async functions; and what they answer."""

import functools
import socket
import threading
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NewType, TypedDict

import anyio
import msgspec
import pytest
from steady import steady

from interpreters import Store, open_store
from interpreters.explore import explore, explore_crashes, explore_effects
from interpreters.stores.memory import MemoryStore
from interpreters.stores.served import RemoteStore, serve
from persist_effects import (
    Entry,
    HandlerTable,
    InvalidAnswer,
    InvalidRequest,
    PersistError,
    Request,
    all_of,
    kv,
    log,
    perform,
    run,
    start,
)
from persist_effects.answers import check_answers, checked_rows, fits
from persist_effects.requests import Answered, KvGet, KvHas
from persist_effects.testing import given
from persist_effects.trace import record, replay


class Price(Request[int], frozen=True, tag="rows/price"):
    sku: str


class Name(Request[str], frozen=True, tag="rows/name"):
    pass


def cached_price(request):
    """A row that is a program: it asks the store first."""
    known = yield from kv.get(f"price/{request.sku}")
    if known is None:
        if request.sku == "none":
            raise LookupError("no such thing")
        known = len(request.sku)
        yield from kv.put(f"price/{request.sku}", known)
    return known


class Cache:
    def row(self, request):
        return (yield from cached_price(request))

    __call__ = row


def price_of(sku):
    try:
        return (yield from perform(Price(sku)))
    except LookupError as error:
        return str(error)


PROGRAM_ROWS = {
    "a function": cached_price,
    "a method": Cache().row,
    "a partial": functools.partial(cached_price),
    "an object": Cache(),
}


def in_tasks(store, program):
    return anyio.run(store.arun, program)


def recorded(store, program):
    outcome, _ = record(program, store)
    assert isinstance(outcome, Answered), outcome
    return outcome.value


WAYS = {
    "run": lambda store, program: store.run(program),
    "start": lambda store, program: store.start(program).value,
    "run_many": lambda store, program: store.run_many([program, kv.has("k")])[0],
    "arun": in_tasks,
    "all_of": lambda store, program: store.run(all_of(program, kv.has("k")))[0],
    "record": recorded,
    "a plain table": lambda store, program: run(program, {**store.handlers}),
}


@pytest.mark.parametrize("row", PROGRAM_ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_a_generator_function_as_a_row_is_run_as_a_program_of_the_same_table(open_new, way, row):
    with Store(MemoryStore(), effects={Price: PROGRAM_ROWS[row]}) as store:
        assert WAYS[way](store, price_of("tea")) == 3
        assert WAYS[way](store, price_of("tea")) == 3
        assert store.run(log.streams()) == []
        assert store.run(kv.keys()) == ["price/tea"]
        assert WAYS[way](store, price_of("none")) == "no such thing"


def test_a_row_that_is_a_program_may_ask_for_what_is_awaited():
    async def name(request):
        await anyio.sleep(0)
        return "tea"

    def price(request):
        return len((yield from perform(Name())))

    with open_store("memory:", effects={Price: price, Name: name}) as store:
        assert anyio.run(store.arun, price_of("x")) == 3
        with pytest.raises(InvalidRequest, match="the handler of 'rows/name' is an async function"):
            store.run(price_of("x"))


def test_what_a_row_asks_is_no_part_of_the_trace_and_the_replay_needs_no_row():
    with open_store("memory:", effects={Price: cached_price}) as store:
        outcome, trace = record(lambda: price_of("tea"), store)
    assert len(trace) == 1
    assert replay(lambda: price_of("tea"), trace) == outcome.value == 3


def test_a_served_store_runs_a_row_that_is_a_program_in_the_place_of_one_of_its_own():
    def always(request):
        return Entry(f"{request.key} {(yield from kv.has('k'))}", 1)

    here, there = socket.socketpair()
    with open_store("memory:", effects={KvGet: always}) as served:
        server = threading.Thread(target=serve, args=(served.interpreter, there), kwargs={"handlers": served.handlers})
        server.start()
        with Store(RemoteStore(here)) as store:
            assert store.run(kv.get("color")) == "color False"
        server.join()


def test_explorations_run_such_a_row_too():
    def twice():
        assert (yield from price_of("tea")) == 3
        yield from log.append("asked", "once", None)

    def kept(*_):
        asked = yield from log.last_seq("asked")
        assert (yield from kv.get_or("price/tea", 3)) == 3
        assert asked <= 2

    def make():
        return Store(MemoryStore(), effects={Price: cached_price})

    assert explore([twice, twice], make, kept).verdict == "passed"
    assert explore_effects(twice, make, lambda_passes).verdict == "passed"
    assert explore_crashes(twice, kept, depth=1, effects=lambda: {Price: cached_price}).verdict == "passed"


def lambda_passes(acked, maybe):
    yield from kv.has("k")


def test_a_generator_that_a_plain_function_answers_is_an_answer():
    class Letters(Request[Any], frozen=True, tag="rows/letters"):
        pass

    def all_letters():
        return "".join((yield from perform(Letters())))

    with open_store("memory:", effects={Letters: lambda request: (letter for letter in "ab")}) as store:
        for way in ("run", "start", "run_many", "all_of", "a plain table", "arun"):
            assert WAYS[way](store, all_letters()) == "ab"


# Rows that are async functions


async def fetch(request):
    raise AssertionError("nobody awaits it")


class AsyncStore(MemoryStore):
    def __init__(self):
        super().__init__()
        self.handlers = {**self.handlers, KvGet: fetch}


class AsyncCall:
    async def __call__(self, request):
        raise AssertionError("nobody awaits it")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Store(AsyncStore()),
        lambda: Store(MemoryStore(), blobs=AsyncStore()),
        lambda: open_store("memory:", blobs=AsyncStore()),
    ],
)
def test_a_store_refuses_rows_of_its_own_that_nothing_awaits(make):
    with pytest.raises(InvalidRequest, match=r"cannot await the row for KvGet of its .*, which is an async function"):
        make()


@pytest.mark.parametrize("row", [fetch, functools.partial(fetch), AsyncCall(), lambda request: fetch(request)])
@pytest.mark.parametrize("way", ["run", "start", "run_many", "all_of", "record", "a plain table"])
def test_an_async_row_is_refused_at_the_yield_where_nothing_awaits_it(way, row):
    def careful():
        try:
            return (yield from perform(Price("tea")))
        except InvalidRequest as error:
            return str(error)

    with open_store("memory:", effects={Price: row}) as store:
        table = {Price: row}
        said = run(careful(), table) if way == "a plain table" else WAYS[way](store, careful())
        assert said == (
            "the handler of 'rows/price' is an async function: run this program with `await store.arun(program)`"
        )
        step = start(careful(), table)
        assert step.value == said


def test_an_async_generator_function_is_no_row():
    async def stream(request):
        yield 1

    with pytest.raises(InvalidRequest, match="the row for Price is an async generator function: return the answer"):
        open_store("memory:", effects={Price: stream})


# What rows answer


async def awaited_text(request):
    return "4.50"


def program_text(request):
    yield from kv.has("k")
    return "4.50"


WRONG_ROWS = {"plain": lambda request: "4.50", "a program": program_text, "async": awaited_text}


@pytest.fixture
def checking():
    before = check_answers(True)
    yield
    check_answers(before)


@pytest.mark.usefixtures("checking")
@pytest.mark.parametrize("row", WRONG_ROWS)
def test_where_answers_are_checked_a_wrong_one_names_row_request_and_types(row):
    with open_store("memory:", effects={Price: WRONG_ROWS[row]}) as store, pytest.raises(InvalidAnswer) as caught:
        anyio.run(store.arun, price_of("tea"))
    error = caught.value
    assert (error.request, error.kind, error.expected) == ("Price(sku='tea')", "Price", "int")
    assert error.found == "a str, '4.50'"
    assert WRONG_ROWS[row].__qualname__ in str(error)
    assert "so answer with that, or change the class" in str(error)


def test_elsewhere_answers_are_not_checked():
    with open_store("memory:", effects={Price: WRONG_ROWS["plain"]}) as store:
        assert store.run(price_of("tea")) == "4.50"


def test_explorations_and_tests_check_answers():
    def make():
        return Store(MemoryStore(), effects={Price: WRONG_ROWS["plain"]})

    def order():
        yield from price_of("tea")

    for report in (
        explore([order], make),
        explore_effects(order, make, lambda_passes),
        explore_crashes(order, lambda_passes, depth=1, effects=lambda: {Price: WRONG_ROWS["plain"]}),
    ):
        assert report.verdict != "passed"
        assert "InvalidAnswer: the row for Price" in report.failures[0].found
    given().when(order, {Price: WRONG_ROWS["plain"]}).then_raises(InvalidAnswer, "a str, '4.50'")


def test_a_table_is_checked_once_and_rows_of_the_store_are_left_alone():
    handlers = open_store("memory:").handlers
    assert checked_rows(handlers) is handlers
    table = checked_rows({Price: lambda request: 1})
    assert checked_rows(table) is table


Cents = NewType("Cents", int)


class Row(TypedDict):
    sku: str


class Point(msgspec.Struct):
    x: int


FITTING = [
    (1, int),
    (True, int),
    (1, float),
    (None, None),
    (None, int | None),
    ("a", Literal["a", "b"]),
    ([1], list[int]),
    ((1, "a"), tuple[int, str]),
    ((1, 2, 3), tuple[int, ...]),
    ({"a": [1]}, dict[str, list[int]]),
    ({"a": 1}, Mapping[str, int]),
    ({1}, set[int]),
    (Cents(4), Cents),
    ({"sku": "tea"}, Row),
    (Point(1), Point),
    (object(), Any),
    (object(), object),
    ("x", Annotated[str, "of letters"]),
    (7, "a name that nobody knows"),
]

MISFITTING = [
    ("1", int),
    (1.5, int),
    (7, None),
    ("x", int | None),
    ("c", Literal["a", "b"]),
    (["a"], list[int]),
    ((1,), tuple[int, str]),
    ((1, "a"), tuple[int, ...]),
    ({"a": ["1"]}, dict[str, list[int]]),
    ({1: 1}, dict[str, int]),
    ({"1"}, set[int]),
    ("4", Cents),
    ([], Row),
    ({"x": 1}, Point),
    (7, Annotated[str, "of letters"]),
]


@pytest.mark.parametrize(("value", "wanted"), FITTING, ids=steady)
def test_a_value_of_a_type_fits(value, wanted):
    assert fits(value, wanted)


@pytest.mark.parametrize(("value", "wanted"), MISFITTING, ids=steady)
def test_a_value_of_another_type_does_not(value, wanted):
    assert not fits(value, wanted)


def test_the_error_is_one_of_ours():
    assert issubclass(InvalidAnswer, PersistError)
    assert run(kv.has("k"), {KvHas: lambda request: True})


# Tables that are made row by row


def test_a_table_made_row_by_row_is_one_like_any_other():
    async def name(request):
        return "Ada"

    rows = HandlerTable()
    rows.row(Price)(cached_price)
    rows.row(Name)(name)
    assert rows == {Price: cached_price, Name: name}
    assert rows | {Name: len} == {Price: cached_price, Name: len}
    with open_store("memory:", effects=rows) as store:
        assert store.run(perform(Price("tea"))) == 3
        assert anyio.run(store.arun, perform(Name())) == "Ada"


def test_a_row_gives_its_function_back():
    assert HandlerTable().row(Price)(cached_price) is cached_price


def test_what_cannot_be_a_row_is_refused_where_it_is_written():
    class Twin(Request[int], frozen=True, tag="rows/price"):
        pass

    async def prices(request):
        yield 1

    rows = HandlerTable()
    rows.row(Price)(len)
    before = dict(rows)
    with pytest.raises(InvalidRequest, match=r"^the table has a row for Price: take one of the two away$"):
        rows.row(Price)(len)
    with pytest.raises(InvalidRequest, match=r"^the table: .*Twin and .*Price both have the tag 'rows/price'"):
        rows.row(Twin)(len)
    with pytest.raises(InvalidRequest, match=r"^the table: found an int, 7: give classes of requests$"):
        rows.row(7)(len)
    with pytest.raises(InvalidRequest, match=r"^the row for Name is an int, 7: give a function of one request$"):
        rows.row(Name)(7)
    with pytest.raises(InvalidRequest, match=r"^the row for Name is an async generator function: return the answer"):
        rows.row(Name)(prices)
    assert rows == before
