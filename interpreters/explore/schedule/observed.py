"""What really happened on a store, noted from outside, and whether an order explains it: for threads and processes.

`interpreters.explore.explore` runs programs in orders of its own. Here others run them, at the same time, on any store,
and only what they asked and were answered is kept.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from interpreters.explore.schedule.history import is_judged
from interpreters.explore.schedule.linear import Filling, Linearity, contents_of, linearity_of
from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer
from persist_effects.machine import Handlers
from persist_effects.requests import Answered, Failed, Outcome, Request, Sql, Transact, check_seconds


@dataclass(frozen=True, slots=True)
class _Asked:
    """A step as the check of linearizability takes it. ``index`` is that of its client, ``ordinal`` counts its own."""

    client: str
    number: int
    request: Any
    outcome: Outcome | None
    ended: int | None
    index: int = 0
    ordinal: int = 0
    fault: None = None
    is_inner: bool = False


class Observed:
    """The history of a store: who asked what, when it was asked and answered, and the answer. For any threads.

    An operation that raised `UncertainOutcome`, or that never ended, may have been done at any time since it began, or
    not at all.

    Args:
        handlers: The table of the store, all of which is read first; None: it is empty.

    >>> from interpreters.stores.memory import MemoryStore
    >>> from persist_effects import kv, run
    >>> store, observed = MemoryStore(), Observed()
    >>> ada = observed.rows("ada", store.handlers)
    >>> run(kv.put("color", "red"), ada)
    1
    >>> print(observed.linearity())
    linearizable: 1 operations in 1 parts
    >>> from persist_effects.requests import Answered, KvGet
    >>> observed.note("bob", KvGet("color"), Answered(None), began=100, ended=101)
    >>> observed.linearity().verdict
    'not linearizable'
    """

    def __init__(self, handlers: Handlers | None = None) -> None:
        self._before = Filling(()) if handlers is None else contents_of(handlers)
        self._ticks = count(1)
        self._asked: list[_Asked] = []

    def rows(self, client: str, handlers: Handlers) -> Handlers:
        """The same table, whose requests about streams and keys are noted.

        One of them raises `InvalidRequest`, before it is done: a transaction that writes rows of SQL, too, whose
        answers no memory store knows.

        Args:
            client: Who uses it.
            handlers: The table of the store.
        """

        def noted(row: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def answer(request: Any) -> Any:
                if not is_judged(request):
                    return row(request)
                _check_judged(request)
                began = next(self._ticks)
                outcome: Outcome | None = None
                try:
                    found = row(request)
                    outcome = Answered(found)
                except Exception as error:
                    outcome = Failed(error)
                    raise
                finally:
                    ended = None if outcome is None else next(self._ticks)
                    self.note(client, request, outcome, began=began, ended=ended)
                return found

            return answer

        return {kind: noted(row) for kind, row in handlers.items()}

    def note(
        self, client: str, request: Request[Any], outcome: Outcome | None, *, began: int, ended: int | None
    ) -> None:
        """Note one operation, such as another process has written down.

        Args:
            client: Who asked.
            request: What was asked.
            outcome: `Answered` or `Failed`; None, if nobody knows.
            began: When it was asked, by a clock that all clients share.
            ended: When it was answered; None, if it was not.

        Raises:
            InvalidRequest: If it is not a request about streams and keys, or its outcome and its times do not fit
                together.
        """
        _check_judged(request)
        if not isinstance(outcome, Answered | Failed | None):
            raise InvalidRequest(f"outcome is {describe(outcome)}: give an Answered, a Failed, or None")
        check_integer("began", began)
        if ended is not None:
            check_integer("ended", ended, began)
        elif outcome is not None:
            raise InvalidRequest(f"{client} was answered {outcome!r:.60}, and ended is None: say when")
        self._asked.append(_Asked(client, began, request, outcome, ended))

    def linearity(self, *, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> Linearity:
        """Look for an order of the operations that explains all answers, each between its request and its answer.

        Args:
            seconds: How long to look at the most. After that it is undecided.
            clock: What measures them.

        Returns:
            The verdict, with the operations that no order explains, or how far the search has come.

        Raises:
            InvalidRequest: If ``seconds`` is negative or not a number.
        """
        check_seconds("seconds", seconds)
        end = clock() + seconds
        asked = sorted(self._asked, key=lambda one: one.number)
        names = [*dict.fromkeys(one.client for one in asked)]
        counts = Counter[str]()
        steps: list[Any] = []
        for one in asked:
            counts[one.client] += 1
            steps.append(replace(one, index=names.index(one.client), ordinal=counts[one.client]))
        return linearity_of(steps, self._before.writes, names, is_late=lambda: clock() > end)


def _check_judged(request: Any) -> None:
    if not (isinstance(request, Request) and is_judged(request)):
        raise InvalidRequest(f"{describe(request)} is not a request about streams and keys: note those alone")
    if isinstance(request, Transact) and any(isinstance(write, Sql) for write in request.writes):
        raise InvalidRequest(f"{request.op} writes rows of SQL, which cannot be judged: observe it without them")
