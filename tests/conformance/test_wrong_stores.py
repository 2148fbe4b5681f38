"""The suite catches wrong stores: every row of the table is broken by the fact that it names, and by one call."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import Phase, Verbosity, settings
from wrong_stores import WRONG_STORES, Planted, Wrong

from interpreters import Store
from interpreters.conformance.suite import (
    MACHINE_SETTINGS,
    Capabilities,
    NotConforming,
    StoreConformance,
    check_conformance,
    facts_of,
)

MACHINE = "test_the_store_agrees_with_the_model_over_any_sequence_of_requests"

PATIENCE_SECONDS = 0.5
"""For a store that never wakes who waits. A right one that is too slow for it is tried in `test_conformance`."""

# The search beside the model must find such faults by itself: no example may have been written for the next one.
FOUND_BY_THE_SEARCH = (
    "starts a stream again from 1 once it was truncated whole",
    "gives the revision again of a key that was deleted",
    "makes the writes of a transaction one by one, and stops at the first that conflicts",
    "takes a prefix for a path, so that `a/` also finds `a` and `a_b`",
    "keeps the caller's own object in a cache, and gives it to every reader",
)


class Opened:
    """The stores that a suite opens, each of which ends with the test."""

    def __init__(self, wrong: Wrong) -> None:
        self._wrong = wrong
        self._planted: list[Planted] = []

    def open(self) -> Store:
        self._planted.append(Planted(self._wrong.plant))
        return Store(self._planted[-1])

    def reopen(self, store: Store) -> Store:
        """A memory store lives until it is closed, so the same one goes on."""
        planted = store.interpreter
        assert isinstance(planted, Planted)
        planted.reopening()
        return Store(planted)

    def end(self) -> None:
        for planted in self._planted:
            planted.healthy.close()
            planted.gate.open()


@pytest.fixture
def opened(wrong: Wrong) -> Iterator[Opened]:
    stores = Opened(wrong)
    yield stores
    stores.end()


def _suite(opened: Opened, patience: float = PATIENCE_SECONDS) -> StoreConformance:
    class Suite(StoreConformance):
        capabilities = Capabilities(reopen=True)
        patience_seconds = patience
        # The first sequence that fails is enough here: making it short takes longer than finding it. As many are tried
        # as it takes, since Hypothesis draws others whenever a constant changes somewhere in the code.
        machine_settings = settings(
            MACHINE_SETTINGS, max_examples=2_000, phases=[Phase.generate], verbosity=Verbosity.quiet
        )

        def open_store(self) -> Store:
            return opened.open()

        def reopen(self, store: Store) -> Store:
            return opened.reopen(store)

    return Suite()


def _is_broken(fact: Callable[[], None]) -> bool:
    # An AssertionError is a wrong answer; the store may also stumble over its books, or the fact over an answer.
    try:
        fact()
    except Exception:
        return True
    return False


def _rows(rows: list[Wrong]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("wrong", rows, ids=[row.sentence for row in rows])


def test_the_table_names_each_wrong_store_once() -> None:
    sentences = [wrong.sentence for wrong in WRONG_STORES]
    assert len(sentences) == len(set(sentences)) >= 40
    assert set(FOUND_BY_THE_SEARCH) <= set(sentences)


@_rows(WRONG_STORES)
def test_the_fact_named_by_the_table_catches_the_wrong_store(wrong: Wrong, opened: Opened) -> None:
    assert _is_broken(facts_of(_suite(opened))[f"test_{wrong.fact}"])


@pytest.mark.exploration
@_rows(WRONG_STORES)
def test_one_call_catches_the_wrong_store_no_later_than_by_the_fact_of_the_table(wrong: Wrong, opened: Opened) -> None:
    with pytest.raises(NotConforming) as broken:
        check_conformance(opened.open, reopen=opened.reopen, patience_seconds=PATIENCE_SECONDS)
    facts = list(facts_of(_suite(opened)))
    assert facts.index(broken.value.fact) <= facts.index(f"test_{wrong.fact}")


@pytest.mark.exploration
@_rows([wrong for wrong in WRONG_STORES if wrong.sentence in FOUND_BY_THE_SEARCH])
def test_the_search_finds_it_too(wrong: Wrong, opened: Opened) -> None:
    assert _is_broken(facts_of(_suite(opened))[MACHINE])


def test_a_store_without_a_fault_passes_every_fact() -> None:
    stores = Opened(Wrong("is right", "none", lambda store: {}))
    # What is right may take its time.
    suite = _suite(stores, StoreConformance.patience_seconds)
    assert [name for name, fact in facts_of(suite).items() if name != MACHINE and _is_broken(fact)] == []
    stores.end()


# What the call says where pytest does not run, or is not there

WRONG_LAST_SEQ = """
import sys
sys.path.insert(0, "tests/conformance")
{before}
from interpreters import Store
from interpreters.conformance import NotConforming, check_conformance
from wrong_stores import Planted, answered
from persist_effects.requests import {request}

try:
    check_conformance(lambda: Store(Planted(answered({request}, {change}))))
except NotConforming as broken:
    print(broken)
"""


def _said(request: str, change: str, before: str = "") -> str:
    program = WRONG_LAST_SEQ.format(request=request, change=change, before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.exploration
@pytest.mark.parametrize("before", ["", "sys.modules['pytest'] = sys.modules['_pytest'] = None"])
def test_without_pytest_the_call_says_what_was_compared_and_the_calls_before(before: str) -> None:
    said = _said("LastSeq", "lambda request, last: last + 5", before)
    assert said.startswith(
        "the store breaks the fact 'an append that conflicts writes nothing': "
        "AssertionError: ask(store, LastSeq('a')) == 1\n  found:    6\n  expected: 1\nIt failed at "
    )
    assert said.endswith("  LastSeq(stream='a') -> 6\n")
    assert "  Append(stream='a', events=(Draft(type='made', data='tea'" in said


@pytest.mark.exploration
def test_without_pytest_the_call_says_what_a_condition_was() -> None:
    said = _said("Transact", "lambda request, answers: tuple(answers)")
    assert "AssertionError: isinstance(answers, list)\n" in said
