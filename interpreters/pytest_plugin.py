"""A plugin for pytest: the `store` fixture, `crash_test` and `explore_test`, and golden traces. Needs ``testing``.

It is there wherever the package and pytest are installed. A test may ask for the fixtures ``store``, which runs it on
each store that is available, and ``golden``, which compares a trace with the one in the test's directory.

    @crash_test(depth=1)
    def test_an_order_survives_every_crash():
        yield from log.append("orders/1", "placed", {"total": 12})

``--repro TOKEN`` runs the one state or interleaving that a failure named, and ``--update-traces`` writes golden traces
anew. A summary at the end says how much was explored.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from interpreters.store import Store, open_store
from persist_effects.machine import Effect

if TYPE_CHECKING:
    from interpreters.crash.report import Report
    from persist_effects.trace import Trace

Program = Callable[[], Effect[Any]]
Check = Callable[..., Effect[Any]]
Test = Callable[..., None]

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda directory: open_store("memory:"),
    "file": lambda directory: open_store(f"file:{directory / 'store'}"),
}
"""How the stores are opened on which the fixture ``store`` runs a test, each new and empty."""

_EXPLORED = pytest.StashKey[dict[str, list[int]]]()


def crash_test(check: Check | None = None, **options: Any) -> Callable[[Program | Callable[[], Any]], Test]:
    """Make a generator function a test that it survives every crash: see `interpreters.crash.explore_crashes`.

    The function is the workload, or returns a list of functions that make the programs of one. ``options`` are those
    of `explore_crashes`.
    """

    def explore(found: Any, repro: str | None) -> "Report":
        from interpreters.crash import explore_crashes

        return explore_crashes(found, check, repro=repro, **options)

    return functools.partial(_as_test, explore, "states")


def explore_test(check: Check | None = None, **options: Any) -> Callable[[Callable[[], Any]], Test]:
    """Make a function a test of every interleaving of the programs' functions that it returns: see `schedule.explore`.

    ``store_factory`` among the options makes the store of each interleaving, otherwise a memory store.
    """
    store_factory = options.pop("store_factory", lambda: open_store("memory:"))

    def explore(found: Any, repro: str | None) -> "Report":
        from interpreters.schedule import explore

        return explore(found, store_factory, check, repro=repro, **options)

    return functools.partial(_as_test, explore, "interleavings")


def _as_test(explore: Callable[[Any, str | None], "Report"], what: str, function: Any) -> Test:
    def test(request: pytest.FixtureRequest) -> None:
        workload = function if inspect.isgeneratorfunction(function) else function()
        report = explore(workload, request.config.getoption("--repro"))
        counts = request.config.stash.setdefault(_EXPLORED, {}).setdefault(what, [0, 0])
        counts[0] += 1
        counts[1] += report.checked
        if report.verdict != "passed":
            pytest.fail(f"{report}\n\nor: pytest {request.node.nodeid} {_repro_of(report)}", pytrace=False)

    # Without ``__wrapped__``, for pytest would look there for a generator function, and for fixtures.
    test.__name__, test.__doc__, test.__module__ = function.__name__, function.__doc__, function.__module__
    test.__qualname__ = function.__qualname__
    return test


def _repro_of(report: "Report") -> str:
    return f'--repro "{report.failures[0].token}"' if report.failures else ""


# Fixtures


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new, empty store: the test runs on each kind that is available."""
    with STORES[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``golden(trace)`` compares a trace with the one that stands beside the test, in ``traces/<test>.jsonl``.

    A second trace of a test needs a ``name``. With ``--update-traces`` the file is written anew.
    """

    def compare(trace: "Trace", name: str = "") -> None:
        from interpreters.traces import check_golden

        stem = "-".join(filter(None, (re.sub(r"[^\w.-]+", "-", request.node.name).strip("-"), name)))
        path = request.path.parent / "traces" / f"{stem}.jsonl"
        check_golden(trace, path, update=bool(request.config.getoption("--update-traces")))

    return compare


# Hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("persist-effects")
    group.addoption("--repro", metavar="TOKEN", help="run the one state or interleaving that a failure named")
    group.addoption("--update-traces", action="store_true", help="write golden traces anew")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how much was explored."""
    for what, (tests, checked) in sorted(config.stash.get(_EXPLORED, {}).items()):
        terminalreporter.write_line(f"explored {checked:,} {what} in {_tests(tests)}")


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Refuse a token for several tests: it names a state of one."""
    if config.getoption("--repro") and len(items) > 1:
        raise pytest.UsageError(f"--repro is for one test, and {len(items)} were collected: name the test, as in -k")
