"""Stores in memory that fail when they are told to, whichever way they are asked."""

from collections.abc import Callable, Sequence
from typing import Any

from interpreters.stores.memory import MemoryStore
from persist_effects import StoreUnavailable
from persist_effects.machine import outcome_of
from persist_effects.requests import WRITES, Outcome, Request


class Faltering(MemoryStore):
    """Refuses the first so many times that each name is written, or with ``kinds`` that such a request comes."""

    def __init__(
        self,
        times: int = 2,
        error: Callable[[str], Exception] = StoreUnavailable,
        kinds: frozenset[type[Request[Any]]] = WRITES,
    ) -> None:
        super().__init__()
        self.times, self.error, self.kinds = times, error, kinds
        self.asked: list[Request[Any]] = []
        self.refused: dict[object, int] = {}
        self.on_refusal: Callable[[], object] = lambda: None
        self.handlers = {kind: self._row(row) for kind, row in self.handlers.items()}

    def _row(self, row: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def answer(request: Any) -> Any:
            self.asked.append(request)
            name = getattr(request, "stream", getattr(request, "key", None))
            if type(request) in self.kinds and self.refused.get(name, 0) < self.times:
                self.refused[name] = self.refused.get(name, 0) + 1
                self.on_refusal()
                raise self.error("the server is being started again")
            return row(request)

        return answer


class Batching(Faltering):
    """The same, and answers several requests together. Its rows may block."""

    blocking = True

    def answer_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        return [outcome_of(request, self.handlers) for request in requests]


class Submitting(Faltering):
    """The same, and takes requests that it answers later: here, at once."""

    blocking = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.submitted: list[int] = []

    def submit(self, requests: Sequence[Request[Any]], done: Callable[[int, Outcome], None]) -> None:
        self.submitted.append(len(requests))
        for index, request in enumerate(requests):
            done(index, outcome_of(request, self.handlers))


class Lost(Submitting):
    """Refuses what is submitted as a whole, the first time."""

    def submit(self, requests: Sequence[Request[Any]], done: Callable[[int, Outcome], None]) -> None:
        if not self.submitted:
            self.submitted.append(0)
            raise StoreUnavailable("nothing is submitted now")
        super().submit(requests, done)


__all__ = ["Batching", "Faltering", "Lost", "Submitting"]
