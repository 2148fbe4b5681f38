"""The one suite that every store passes, for third parties' stores too. Needs Hypothesis, of the extra ``testing``.

In pytest, a subclass says how to open the store, and every fact is collected as a test:

    class TestMyStore(StoreConformance):
        capabilities = Capabilities(reopen=True)

        def open_store(self) -> Store:              # a new, empty store at each call
            return open_store(f"mystore:{tempfile.mkdtemp()}")

        def reopen(self, store: Store) -> Store:    # close it, and open the same data again
            ...

Anywhere else, one call does the same, and raises at the first fact that the store breaks: `check_conformance`. It
says what the fact compared and which calls came before, and works without pytest.

The facts are examples, grouped in `interpreters.conformance.facts`, and one sequence-finding test of the store against
an obvious model, `interpreters.conformance.model`. They count on nothing that a store may choose for itself: positions
and revisions only grow, and pages may be short.
"""

import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from traceback import extract_tb
from typing import Any, ClassVar

try:
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.stateful import run_state_machine_as_test
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "interpreters.conformance needs hypothesis, of the extra `testing`: pip install hypothesis",
        name=missing.name,
    ) from missing

# So that a fact that fails shows what it compared: pytest, where it runs, must know before the facts are imported.
if sys.modules.get("pytest") and "interpreters.conformance.facts" not in sys.modules:
    import pytest

    pytest.register_assert_rewrite("interpreters.conformance.facts")

from interpreters.conformance.explaining import explained
from interpreters.conformance.facts.advancing import AdvanceFacts
from interpreters.conformance.facts.base import PATIENCE_SECONDS, Calls, Facts, needs, record_calls
from interpreters.conformance.facts.beginning import BeginFacts
from interpreters.conformance.facts.claims import ClaimFacts
from interpreters.conformance.facts.closing import CloseFacts
from interpreters.conformance.facts.concurrency import KvWaitFacts, RaceFacts, WaitFacts
from interpreters.conformance.facts.following import FollowFacts
from interpreters.conformance.facts.kv import KeysFacts, KvFacts
from interpreters.conformance.facts.log import AppendFacts, StreamsFacts, TruncateFacts
from interpreters.conformance.facts.names import NameFacts
from interpreters.conformance.facts.reading import ReadAllFacts, ReadFacts
from interpreters.conformance.facts.reopening import ReopenFacts
from interpreters.conformance.facts.sql import SqlFacts
from interpreters.conformance.facts.time import TimeFacts
from interpreters.conformance.facts.transactions import TransactFacts
from interpreters.conformance.facts.values import RefusalFacts, ValueFacts
from interpreters.conformance.model import StoreMachine
from interpreters.runtime.store import Store
from persist_effects.capabilities import Capabilities
from persist_effects.requests import Request

__all__ = ["Capabilities", "NotConforming", "StoreConformance", "check_conformance", "facts_of", "needs"]

MACHINE_SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=80,
    stateful_step_count=50,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
"""The same sequences at each run, as many as a memory store answers in a few seconds.

A failing sequence is made short, but not explained: that takes minutes, and the short one says enough.
"""


class MachineFacts(Facts):
    """The fact that stands for all the sequences which nobody thought of."""

    machine_settings: ClassVar[settings] = MACHINE_SETTINGS
    """How many sequences to try: raise ``max_examples`` for a longer search."""

    def new_machine(self) -> StoreMachine:
        """The store beside the model: where they differ, Hypothesis prints code that begins with this call.

        Returns:
            The machine.
        """
        return StoreMachine(self.open_store, self.reopen, self.capabilities)

    def test_the_store_agrees_with_the_model_over_any_sequence_of_requests(self) -> None:
        run_state_machine_as_test(self._machine_type(), settings=self.machine_settings)

    def _machine_type(self) -> "type[StoreMachine]":
        suite = self

        class Machine(StoreMachine):
            def __init__(self) -> None:
                super().__init__(suite.open_store, suite.reopen, suite.capabilities)

        # Hypothesis prints this name and a pair of parentheses.
        Machine.__name__ = f"{type(self).__name__}().new_machine"
        return Machine


class _Examples(
    ClaimFacts,
    ReopenFacts,
    RaceFacts,
    FollowFacts,
    CloseFacts,
    TimeFacts,
    KvWaitFacts,
    WaitFacts,
    NameFacts,
    RefusalFacts,
    ValueFacts,
    SqlFacts,
    TransactFacts,
    KeysFacts,
    KvFacts,
    StreamsFacts,
    BeginFacts,
    AdvanceFacts,
    TruncateFacts,
    ReadAllFacts,
    ReadFacts,
    AppendFacts,
):
    """The facts that are examples. As pytest does, they are taken from the last base on: simple ones first."""


def _fixture(function: Callable[..., Iterator[Store]]) -> Any:
    # Where pytest is not loaded, nothing asks for fixtures.
    return sys.modules["pytest"].fixture(function) if sys.modules.get("pytest") else function


class StoreConformance(MachineFacts, _Examples):
    """All facts. A subclass defines `open_store`; with ``Capabilities(reopen=True)`` also `reopen`.

    More facts of your own are more methods ``test_…``, marked with `needs` where not every store has them.

    >>> from interpreters import open_store
    >>> class TestMemory(StoreConformance):
    ...     def open_store(self):
    ...         return open_store("memory:")
    >>> len(facts_of(TestMemory())) > 100
    True
    """

    @_fixture
    def store(self) -> Iterator[Store]:
        """A new, empty store for one fact, closed after it."""
        with self.open_store() as store:
            yield store


class NotConforming(AssertionError):
    """A store broke a fact of the suite. The cause is what the fact raised; ``calls`` are the last ones before it.

    >>> NotConforming("test_none_is_a_value", ValueError("no entry")).fact
    'test_none_is_a_value'
    """

    def __init__(self, fact: str, error: Exception, calls: Sequence[tuple[Request[Any], Any]] = ()) -> None:
        super().__init__(fact, error, calls)
        self.fact = fact
        self.error = error
        self.calls = tuple(calls)

    def __str__(self) -> str:
        sentence = self.fact.removeprefix("test_").replace("_", " ")
        frames = extract_tb(self.error.__traceback__)
        # An assertion of a module that was not compiled again says nothing by itself.
        said = str(self.error) or (frames[-1].line if frames else "")
        lines = [f"the store breaks the fact {sentence!r}: {type(self.error).__name__}: {said}"]
        if places := [frame for frame in frames if frame.name == self.fact]:
            lines.append(f"It failed at {places[-1].filename}:{places[-1].lineno}.")
        # Hypothesis says there how to come by the failure.
        lines += getattr(self.error, "__notes__", [])
        if self.calls:
            lines += ["The last calls before, each with its answer:"]
            lines += [f"  {_short(request)} -> {_short(answer)}" for request, answer in self.calls]
        return "\n".join(lines)


def facts_of(suite: StoreConformance) -> dict[str, Callable[[], None]]:
    """Every fact that the suite's capabilities call for, by name, ready to be run on a new store: simple ones first.

    Args:
        suite: An instance of your subclass of `StoreConformance`.

    Returns:
        A function without arguments for each fact. It raises AssertionError, or what the store raised, where the fact
        does not hold.

    >>> from interpreters import open_store
    >>> class Suite(StoreConformance):
    ...     def open_store(self):
    ...         return open_store("memory:")
    >>> facts_of(Suite())["test_none_is_a_value"]()
    """
    kinds = reversed(type(suite).__mro__)
    # A suite's own class may have set a fact aside, or anew, and keeps the place that the fact had.
    names = dict.fromkeys(name for kind in kinds for name in vars(kind) if name.startswith("test_"))
    kept = {name: getattr(suite, name) for name in names}
    return {name: _on_a_new_store(suite, explained(fact)) for name, fact in kept.items() if fact is not None}


def check_conformance(
    factory: Callable[[], Store],
    capabilities: Capabilities | None = None,
    *,
    reopen: Callable[[Store], Store] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Run every fact on new stores, simple ones first, and stop at the first that does not hold. Needs no pytest.

    Args:
        factory: Opens a new and empty store at each call.
        capabilities: What the store can do beside what every store must.
        reopen: Closes a store and opens another one on the same data.
        patience_seconds: How long a wait may take, in a thread, to be woken by what it waits for.

    Raises:
        NotConforming: A fact does not hold. It says which, what was found and expected, and the calls before.

    >>> from interpreters import open_store
    >>> check_conformance(lambda: open_store("no store"))
    Traceback (most recent call last):
    interpreters.conformance.suite.NotConforming: the store breaks the fact 'the first event ...': InvalidRequest: ...
    """
    able = Capabilities(reopen=reopen is not None) if capabilities is None else capabilities
    patience = patience_seconds
    calls: Calls = deque(maxlen=_CALLS_SHOWN)

    class Given(StoreConformance):
        capabilities = able
        patience_seconds = patience

        def open_store(self) -> Store:
            calls.clear()
            return record_calls(factory(), calls)

        def reopen(self, store: Store) -> Store:
            return record_calls(super().reopen(store) if reopen is None else reopen(store), calls)

    for name, fact in facts_of(Given()).items():
        calls.clear()
        try:
            fact()
        except Exception as error:
            raise NotConforming(name, error, tuple(calls)) from error


_CALLS_SHOWN = 12
_SHOWN_CHARACTERS = 200


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _on_a_new_store(suite: StoreConformance, fact: Callable[..., None]) -> Callable[[], None]:
    if "store" not in inspect.signature(fact).parameters:
        return fact

    def run() -> None:
        with suite.open_store() as store:
            fact(store)

    return run
