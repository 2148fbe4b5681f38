"""Stores for tests of any kind: for one example of Hypothesis, for a ``unittest.TestCase``, for a plain function.

The fixtures of `interpreters.pytest_plugin` are made of the same. In here is nothing of pytest.
"""

import inspect
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from persist_effects.errors import InvalidRequest, describe

if TYPE_CHECKING:
    from interpreters.runtime.store import Store
    from persist_effects.trace import Trace
    from persist_effects.trace.masking import Mask

# The stores are imported when a test uses them: this module is imported by every run of pytest.

FIRST_TIME = 1_700_000_000_000_000
"""The first time, in microseconds, that the clock of a test's store tells."""

UPDATE_VARIABLE = "PERSIST_UPDATE_TRACES"
"""Set to 1, it has golden traces written anew where there is no option for that."""


def _counting_bytes() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda count: next(numbers).to_bytes(count, "big")


def _open(url: str) -> "Store":
    from interpreters.opening import open_store

    return open_store(url, clock=itertools.count(FIRST_TIME).__next__, random_bytes=_counting_bytes())


STORES: dict[str, Callable[[Path], "Store"]] = {
    "memory": lambda directory: _open("memory:"),
    "file": lambda directory: _open(f"file:{directory / 'store'}"),
}
"""How the stores are opened on which the fixture ``store`` runs a test, each new and empty."""


@contextmanager
def fresh_store(kind: str = "memory") -> Iterator["Store"]:
    """A new, empty store, which is gone when the block has ended: for each example that Hypothesis chooses, say.

    Its clock counts microseconds from a fixed time, and its random source counts too, so that times, identifiers, and
    golden traces, are the same in each run.

    Args:
        kind: ``"memory"``, or ``"file"``: then in a temporary directory of its own.

    Returns:
        The store, by a ``with``.

    Raises:
        InvalidRequest: If there is no such kind.

    >>> from persist_effects import kv
    >>> for color in ("red", "blue"):
    ...     with fresh_store() as store:
    ...         store.run(kv.get("color")), store.run(kv.put("color", color))
    (None, 1)
    (None, 1)
    """
    if kind not in STORES:
        raise InvalidRequest(f"there is no store {describe(kind)} for tests: give one of {', '.join(STORES)}")
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory()) if kind == "file" else ""
        yield stack.enter_context(STORES[kind](Path(directory)))


# Golden traces


class GoldenRun(NamedTuple):
    """Whether golden traces are written anew in this run, and what to say of how to do that."""

    is_update: bool
    how: str


golden_runs: list[GoldenRun] = []
"""That of the test that runs, last of those within which it runs; set by the plugin for pytest."""


def golden_path(file: Path, test: str, name: str) -> Path:
    """Where the golden trace of a test stands: no two tests of a directory have the same, but for odd parameters.

    Args:
        file: The file of the test.
        test: The test, with the classes that it is in, as ``TestOrders.test_placing``.
        name: That of the trace, empty for the only one of a test.

    Returns:
        The path, in ``traces`` beside the test's file.

    Raises:
        InvalidRequest: If the name is not a plain one.

    >>> golden_path(Path("tests/test_orders.py"), "test_placing[tea]", "second").as_posix()
    'tests/traces/test_orders/test_placing-tea-second.jsonl'
    """
    if not (isinstance(name, str) and re.fullmatch(r"[\w.-]*", name)):
        raise InvalidRequest(f"the name of a golden trace is {describe(name)}: it has only letters, digits, and . _ -")
    stem = "-".join(filter(None, (file_stem(test), name)))
    return file.parent / "traces" / file.stem / f"{stem}.jsonl"


def file_stem(test: str) -> str:
    """A test's name as that of a file.

    Args:
        test: The name, as pytest has it.

    Returns:
        The name with a dash for whatever else than letters, digits, and ``. _ -`` was in it.

    >>> file_stem("TestOrders.test_placing[tea]")
    'TestOrders.test_placing-tea'
    """
    return re.sub(r"[^\w.-]+", "-", test).strip("-")


# Test cases


class StoreMixin:
    """For a ``unittest.TestCase``, which can ask for no fixture: ``self.store``, and ``self.golden(trace)``.

    Each test has a store of its own, and with ``@given`` each example. ``store_kind`` says which: a subclass with
    another one runs the same tests on that. It works under pytest and under unittest alone, and with
    ``IsolatedAsyncioTestCase``.

    >>> import unittest
    >>> from persist_effects import log
    >>> class TestOrders(StoreMixin, unittest.TestCase):
    ...     def test_placing(self):
    ...         self.assertEqual(self.store.run(log.append("orders/1", "placed", 12)).seq, 1)
    >>> class TestOrdersInFiles(TestOrders):
    ...     store_kind = "file"
    >>> [test("test_placing").run().wasSuccessful() for test in (TestOrders, TestOrdersInFiles)]
    [True, True]
    """

    store_kind = "memory"

    @property
    def store(self) -> "Store":
        """The test's store, which is opened when it is first asked for."""
        opened: Store | None = vars(self).get("_store")
        if opened is None:
            stack = ExitStack()
            opened = stack.enter_context(fresh_store(self.store_kind))
            self._store, self._open_store = opened, stack
            case: Any = self
            case.addCleanup(self._close_store)
        return opened

    def setup_example(self) -> None:
        """Called by Hypothesis before each example: the next store is a new one."""
        self._close_store()

    def teardown_example(self, example: object) -> None:
        """Called by Hypothesis after each example.

        Args:
            example: What the test was given.
        """
        self._close_store()

    def _close_store(self) -> None:
        stack: ExitStack | None = vars(self).pop("_open_store", None)
        vars(self).pop("_store", None)
        if stack is not None:
            stack.close()

    def golden(self, trace: "Trace", name: str = "", *, mask: "Mask" = ()) -> None:
        """Compare a trace with the golden one beside the test, in ``traces``, as the fixture ``golden`` does.

        Under pytest, ``--update-traces`` writes it anew; under unittest alone, the environment variable
        ``PERSIST_UPDATE_TRACES=1``.

        Args:
            trace: The trace.
            name: Of a second trace of a test.
            mask: What is left out: see `interpreters.traces.check_golden`.

        Raises:
            AssertionError: If they differ.
            InvalidRequest: If the test has given a trace of this name before.
        """
        from interpreters.traces import check_golden

        case: Any = self
        # Under pytest it is the same: the class, and the method.
        path = golden_path(Path(inspect.getfile(type(self))), f"{type(self).__name__}.{case._testMethodName}", name)
        given: set[Path] = vars(self).setdefault("_golden_given", set())
        if path in given:
            raise InvalidRequest(f"a golden trace was given for {path} already: give a name for this one")
        given.add(path)
        alone = GoldenRun(os.environ.get(UPDATE_VARIABLE) == "1", f"{UPDATE_VARIABLE}=1 python -m unittest …")
        run = golden_runs[-1] if golden_runs else alone
        check_golden(trace, path, run.is_update, run.how, mask)
