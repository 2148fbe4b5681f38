# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of time: the clock that a store tells, and the identifiers that it makes."""

import uuid

from interpreters.conformance.facts.base import Facts, append, ask
from interpreters.runtime.store import Store
from persist_effects.requests import NewId, Now

_TOGETHER = 50


class TimeFacts(Facts):
    """What is asked of time. Where an interpreter has no row for it, its `Store` answers with the machine's clock."""

    def test_the_clock_that_is_told_is_the_one_that_stamps_events(self, store: Store) -> None:
        before = ask(store, Now())
        at = append(store, "a", "tea").at
        after = ask(store, Now())
        assert before <= at <= after

    def test_an_identifier_is_a_uuid_of_version_7_in_its_usual_text_form(self, store: Store) -> None:
        before, found, after = ask(store, Now()), ask(store, NewId()), ask(store, Now())
        made = uuid.UUID(found)
        assert str(made) == found
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert before // 1_000 <= made.int >> 80 <= after // 1_000

    def test_no_two_identifiers_are_the_same(self, store: Store) -> None:
        assert len({ask(store, NewId()) for _ in range(_TOGETHER)}) == _TOGETHER
