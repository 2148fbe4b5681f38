"""What type checkers must find out about handler tables: this file is checked by mypy and pyright, not run."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from collections.abc import Awaitable, Callable
from typing import assert_type

from interpreters import Store, open_store
from interpreters.explore import explore_crashes
from interpreters.stores.memory import MemoryStore
from persist_effects import Effect, Handlers, HandlerTable, Request, kv, perform, run
from persist_effects.requests import KvHas
from persist_effects.trace import record


class FetchPrice(Request[int], frozen=True, tag="shop/fetch-price"):
    """Answered with cents."""

    sku: str


class AskUser(Request[str | None], frozen=True, tag="shop/ask-user"):
    """Answered with what was typed, if anything was."""

    question: str


ROWS = HandlerTable()


@ROWS.row(FetchPrice)
def fetch_price(request: FetchPrice) -> int:
    """A plain function."""
    return len(request.sku)


@ROWS.row(AskUser)
def ask_user(request: AskUser) -> Effect[str | None]:
    """A program of the same store."""
    return (yield from kv.get(request.question, type=str))


OTHERS = HandlerTable()


@OTHERS.row(FetchPrice)
async def fetch_later(request: FetchPrice) -> int:
    """An async function."""
    return len(request.sku)


@OTHERS.row(AskUser)
def ask_anything(request: Request[str | None]) -> str:
    """One that takes more, and answers with less."""
    return request.op


HAS = HandlerTable().row(KvHas)(lambda request: request.key == "color")


def rows_stay_what_they_were() -> None:
    """What is a row can be called as before."""
    assert_type(fetch_price(FetchPrice("tea")), int)
    assert_type(ask_user(AskUser("name")), Effect[str | None])
    assert_type(HAS(KvHas("color")), bool)
    later: Callable[[FetchPrice], Awaitable[int]] = fetch_later
    assert_type(later(FetchPrice("tea")), Awaitable[int])


def wherever_a_table_goes(price: Effect[int]) -> None:
    """A table goes to stores, to `run`, to `record`, and together with others."""
    with open_store("memory:", effects=ROWS) as store:
        assert_type(store.run(perform(FetchPrice("tea"))), int)
        record(price, {**store.handlers, **ROWS})
    Store(MemoryStore(), effects=ROWS)
    assert_type(run(price, ROWS), int)
    merged: Handlers = ROWS | OTHERS
    explore_crashes(lambda: price, effects=lambda: merged)


def wrong(rows: HandlerTable) -> None:
    """No line of it is run."""

    @rows.row(FetchPrice)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator]
    def answers_with_text(request: FetchPrice) -> str:
        """The request is answered with an int."""
        return request.sku

    @rows.row(FetchPrice)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator]
    def takes_another(request: AskUser) -> int:
        """The request is another one."""
        return len(request.question)

    @rows.row(FetchPrice)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator]
    def returns_text(request: FetchPrice) -> Effect[str]:
        """The program's value should be an int."""
        yield from kv.put("asked", request.sku)
        return request.sku

    @rows.row(FetchPrice)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator]
    async def answers_later_with_text(request: FetchPrice) -> str:
        """What is awaited should be an int."""
        return request.sku

    @rows.row(FetchPrice)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator]
    def takes_none() -> int:
        """It lacks its argument."""
        return 7

    rows.row(int)  # type: ignore[type-var] # pyright: ignore[reportArgumentType]
    rows.row(FetchPrice)(lambda request: request.question)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
