"""The one suite that every store passes, for third parties' stores too. Needs the extra ``testing``.

In pytest, a subclass says how to open the store, and every fact is collected as a test:

    class TestMyStore(StoreConformance):
        capabilities = Capabilities(reopen=True)

        def open_store(self) -> Store:              # a new, empty store at each call
            return open_store(f"mystore:{tempfile.mkdtemp()}")

        def reopen(self, store: Store) -> Store:    # close it, and open the same data again
            ...

Anywhere else, one call does the same, and raises at the first fact that the store breaks: `check_conformance`.

The facts are examples, grouped in `interpreters.conformance.facts`, and one sequence-finding test of the store against
an obvious model, `interpreters.conformance.model`. They count on nothing that a store may choose for itself: positions
and revisions only grow, and pages may be short.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import ClassVar

try:
    import pytest
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.stateful import run_state_machine_as_test
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "interpreters.conformance needs pytest and hypothesis, the extra `testing`: pip install pytest hypothesis",
        name=missing.name,
    ) from missing

# So that a fact that fails shows what it compared: pytest must know before the facts are imported.
if "interpreters.conformance.facts" not in sys.modules:
    pytest.register_assert_rewrite("interpreters.conformance.facts")

from interpreters.conformance.facts.base import Facts, needs
from interpreters.conformance.facts.claims import ClaimFacts
from interpreters.conformance.facts.closing import CloseFacts
from interpreters.conformance.facts.concurrency import RaceFacts, WaitFacts
from interpreters.conformance.facts.kv import KeysFacts, KvFacts
from interpreters.conformance.facts.log import AppendFacts, StreamsFacts, TruncateFacts
from interpreters.conformance.facts.names import NameFacts
from interpreters.conformance.facts.reading import ReadAllFacts, ReadFacts
from interpreters.conformance.facts.reopening import ReopenFacts
from interpreters.conformance.facts.transactions import TransactFacts
from interpreters.conformance.facts.values import RefusalFacts, ValueFacts
from interpreters.conformance.model import StoreMachine
from interpreters.runtime.store import Store
from persist_effects.capabilities import Capabilities

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
        """The store beside the model: where they differ, Hypothesis prints code that begins with this call."""
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


class StoreConformance(
    ClaimFacts,
    AppendFacts,
    ReadFacts,
    ReadAllFacts,
    TruncateFacts,
    StreamsFacts,
    KvFacts,
    KeysFacts,
    TransactFacts,
    ValueFacts,
    RefusalFacts,
    NameFacts,
    WaitFacts,
    RaceFacts,
    CloseFacts,
    ReopenFacts,
    MachineFacts,
):
    """All facts. A subclass defines `open_store`; with ``Capabilities(reopen=True)`` also `reopen`.

    More facts of your own are more methods ``test_…``, marked with `needs` where not every store has them.

    >>> from interpreters import open_store
    >>> class TestMemory(StoreConformance):
    ...     def open_store(self):
    ...         return open_store("memory:")
    >>> len(facts_of(TestMemory())) > 100
    True
    """

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """A new, empty store for one fact, closed after it."""
        with self.open_store() as store:
            yield store


class NotConforming(AssertionError):
    """A store broke a fact of the suite. The cause is what the fact raised.

    >>> NotConforming("test_none_is_a_value", ValueError("no entry")).fact
    'test_none_is_a_value'
    """

    def __init__(self, fact: str, error: Exception) -> None:
        super().__init__(fact, error)
        self.fact = fact
        self.error = error

    def __str__(self) -> str:
        sentence = self.fact.removeprefix("test_").replace("_", " ")
        return f"the store breaks the fact {sentence!r}: {type(self.error).__name__}: {self.error}"


def facts_of(suite: StoreConformance) -> dict[str, Callable[[], None]]:
    """Every fact that the suite's capabilities call for, by name, ready to be run on a new store."""
    names = dict.fromkeys(name for kind in type(suite).__mro__ for name in vars(kind) if name.startswith("test_"))
    kept = {name: getattr(suite, name) for name in names}
    return {name: _on_a_new_store(suite, fact) for name, fact in kept.items() if fact is not None}


def check_conformance(
    factory: Callable[[], Store],
    capabilities: Capabilities | None = None,
    *,
    reopen: Callable[[Store], Store] | None = None,
) -> None:
    """Run every fact on stores that ``factory`` opens, a new and empty one at each call.

    ``reopen`` closes a store and opens another on the same data. Raises `NotConforming` at the first fact that does
    not hold, and returns if all do.

    >>> from interpreters import open_store
    >>> check_conformance(lambda: open_store("no store"))
    Traceback (most recent call last):
    interpreters.conformance.NotConforming: the store breaks the fact 'the first event ...': InvalidRequest: ...
    """
    able = Capabilities(reopen=reopen is not None) if capabilities is None else capabilities

    class Given(StoreConformance):
        capabilities = able

        def open_store(self) -> Store:
            return factory()

        def reopen(self, store: Store) -> Store:
            return super().reopen(store) if reopen is None else reopen(store)

    for name, fact in facts_of(Given()).items():
        try:
            fact()
        except Exception as error:
            raise NotConforming(name, error) from error


def _on_a_new_store(suite: StoreConformance, fact: Callable[..., None]) -> Callable[[], None]:
    if "store" not in inspect.signature(fact).parameters:
        return fact

    def run() -> None:
        with suite.open_store() as store:
            fact(store)

    return run
