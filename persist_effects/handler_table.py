"""A handler table that type checkers check: each row answers its request with the ``A`` of its ``Request[A]``.

A plain dict is a handler table too. But Python's dicts are invariant, so that one with a name of its own,
``rows = {FetchPrice: fetch_price}``, is refused by checkers where a table is wanted; and in no dict can they compare
what a row answers with what its request promises.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, overload

from persist_effects.codec import check_ops
from persist_effects.errors import InvalidRequest
from persist_effects.machine import Effect, Handler
from persist_effects.requests import Request
from persist_effects.rows import check_row

A = TypeVar("A")
R = TypeVar("R", bound=Request[Any])
R_co = TypeVar("R_co", bound=Request[Any], covariant=True)


class HandlerTable(dict[type[Request[Any]], Handler]):
    """A handler table that is made row by row. It is a dict, so it goes wherever a table goes, and merges with ``|``.

    >>> from interpreters import open_store
    >>> from persist_effects import perform
    >>> class FetchPrice(Request[int], frozen=True, tag="shop/fetch-price"):
    ...     sku: str
    >>> rows = HandlerTable()
    >>> @rows.row(FetchPrice)
    ... def fetch_price(request: FetchPrice) -> int:
    ...     return 450
    >>> open_store("memory:", effects=rows).run(perform(FetchPrice("tea")))
    450
    """

    def row(self, kind: type[R]) -> "RowOf[R]":
        """Begin a row: call what comes back with the function that answers, or write it above that.

        Args:
            kind: The type of the requests that are answered.

        Returns:
            What takes the function, and gives it back as it was. It may be a plain one, a program of the same store,
            or an async one.

        Raises:
            InvalidRequest: When that is called: if the kind is not a type of requests, or another one in the table
                has its tag; if the table has a row for it; if the function is no such function.

        >>> from persist_effects.requests import KvHas
        >>> rows = HandlerTable()
        >>> has = rows.row(KvHas)(lambda request: True)
        >>> rows.row(KvHas)(has)
        Traceback (most recent call last):
        persist_effects.errors.InvalidRequest: the table has a row for KvHas: take one of the two away
        """
        return RowOf(self, kind)


class RowOf(Generic[R_co]):
    """A row that was begun and lacks its function: see `HandlerTable.row`."""

    def __init__(self, table: HandlerTable, kind: type[R_co]) -> None:
        self._table, self._kind = table, kind

    # The answer's type is told by the type of `self`: so a checker finds it out of the request's class alone.
    @overload
    def __call__(self: "RowOf[Request[A]]", function: Callable[[R_co], Effect[A]]) -> Callable[[R_co], Effect[A]]: ...
    @overload
    def __call__(
        self: "RowOf[Request[A]]", function: Callable[[R_co], Awaitable[A]]
    ) -> Callable[[R_co], Awaitable[A]]: ...
    @overload
    def __call__(self: "RowOf[Request[A]]", function: Callable[[R_co], A]) -> Callable[[R_co], A]: ...
    def __call__(self, function: Any) -> Any:
        """Take the function that answers, and give it back."""
        check_ops("the table", [*self._table, self._kind])
        check_row(self._kind.__name__, function)
        if self._kind in self._table:
            raise InvalidRequest(f"the table has a row for {self._kind.__name__}: take one of the two away")
        self._table[self._kind] = function
        return function
