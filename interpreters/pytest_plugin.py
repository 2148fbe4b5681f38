"""A plugin for pytest: the `store` fixture, `crash_test` and `explore_test`, and golden traces. Needs ``testing``.

It is there wherever the package and pytest are installed. A test may ask for the fixtures ``store``, which runs it on
each store that is available, and ``golden``, which compares a trace with the one in the test's directory.

    @crash_test(depth=1)
    def test_an_order_survives_every_crash():
        yield from log.append("orders/1", "placed", {"total": 12})

Such a test takes no fixtures and no parameters. ``--repro TOKEN`` runs the one state or interleaving that a failure
named, and ``--update-traces`` writes golden traces anew. A summary at the end says how much was explored.
"""

import functools
import inspect
import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from interpreters.never_run import is_switched_off
from interpreters.pytest_never_run import NeverRunPlugin
from interpreters.store import Store, open_store
from persist_effects.answers import check_answers
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Effect

if TYPE_CHECKING:
    from interpreters.crash.report import Report
    from persist_effects.trace import Trace

Program = Callable[[], Effect[Any]]
Check = Callable[..., Effect[Any]]
Test = Callable[..., None]

FIRST_TIME = 1_700_000_000_000_000
"""The first time, in microseconds, that the clock of a fixture's store tells."""


def _counting_clock() -> Callable[[], int]:
    return itertools.count(FIRST_TIME).__next__


STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda directory: open_store("memory:", clock=_counting_clock()),
    "file": lambda directory: open_store(f"file:{directory / 'store'}", clock=_counting_clock()),
}
"""How the stores are opened on which the fixture ``store`` runs a test, each new and empty."""

_EXPLORED = pytest.StashKey[dict[str, list[int]]]()

_CHECKED_BEFORE = pytest.StashKey[bool]()

_GOLDEN = pytest.StashKey[dict[str, str]]()
"""Which test has used which file of a golden trace."""

_IS_EXPLORATION = "_persist_effects_explores"
"""The attribute of the tests that are made here."""

_DECORATORS = {"states": "crash_test", "interleavings": "explore_test"}


def crash_test(check: Check | None = None, **options: Any) -> Callable[[Program | Callable[[], Any]], Test]:
    """Make a generator function a test that it survives every crash: see `interpreters.crash.explore_crashes`.

    The function is the workload, or returns a list of functions that make the programs of one. ``options`` are those
    of `explore_crashes`. The function takes no fixtures and no parameters, other than the ``self`` of a method.
    """
    _refuse_bare(check, "states")

    def explore(found: Any, repro: str | None) -> "Report":
        from interpreters.crash import explore_crashes

        return explore_crashes(found, check, repro=repro, **options)

    return functools.partial(_as_test, explore, "states")


def explore_test(check: Check | None = None, **options: Any) -> Callable[[Callable[[], Any]], Test]:
    """Make a function a test of every interleaving of the programs' functions that it returns: see `schedule.explore`.

    ``store_factory`` among the options makes the store of each interleaving, otherwise a memory store.
    """
    _refuse_bare(check, "interleavings")
    store_factory = options.pop("store_factory", lambda: open_store("memory:"))

    def explore(found: Any, repro: str | None) -> "Report":
        from interpreters.schedule import explore

        return explore(found, store_factory, check, repro=repro, **options)

    return functools.partial(_as_test, explore, "interleavings")


def _as_test(explore: Callable[[Any, str | None], "Report"], what: str, function: Any) -> Test:
    is_method = _check_plain(function, what)

    def explored(request: pytest.FixtureRequest, program: Any) -> None:
        workload = program if inspect.isgeneratorfunction(function) else program()
        report = explore(workload, request.config.getoption("--repro"))
        counts = request.config.stash.setdefault(_EXPLORED, {}).setdefault(what, [0, 0])
        counts[0] += 1
        counts[1] += report.checked
        if report.verdict != "passed":
            pytest.fail(f"{report}\n\nor: pytest {_name_of(request)} {_repro_of(report)}", pytrace=False)

    def test(request: pytest.FixtureRequest) -> None:
        explored(request, function)

    def test_of_class(self: Any, request: pytest.FixtureRequest) -> None:
        explored(request, function.__get__(self))

    made: Any = test_of_class if is_method else test
    # Without ``__wrapped__``, for pytest would look there for a generator function, and for fixtures.
    made.__name__, made.__doc__, made.__module__ = function.__name__, function.__doc__, function.__module__
    made.__qualname__ = function.__qualname__
    made.pytestmark = list(getattr(function, "pytestmark", []))
    setattr(made, _IS_EXPLORATION, what)
    return cast(Test, made)


def _check_plain(function: Any, what: str) -> bool:
    """Whether a function is a method of a class. Raises `InvalidRequest` for one that cannot be such a test."""
    if not inspect.isfunction(function):
        raise InvalidRequest(f"{_DECORATORS[what]} makes a test of a function, not of {describe(function)}")
    parameters = list(inspect.signature(function).parameters)
    is_method = "." in function.__qualname__.rpartition("<locals>.")[2]
    if is_method and parameters[:1] != ["self"]:
        raise InvalidRequest(f"{function.__qualname__} stands in a class: make `self` its first parameter")
    marks = [mark.name for mark in getattr(function, "pytestmark", [])]
    if parameters != ["self"] * is_method or "parametrize" in marks:
        raise InvalidRequest(_refusal(function.__name__, what))
    return is_method


def _refuse_bare(check: Any, what: str) -> None:
    """Raise `InvalidRequest` where a decorator stands without parentheses: its check is then the test."""
    if inspect.isfunction(check) and (
        check.__name__.startswith("test") or list(inspect.signature(check).parameters) in ([], ["self"])
    ):
        raise InvalidRequest(_refusal(check.__name__, what))


def _refusal(name: str, what: str) -> str:
    return (
        f"{name}: such a test takes no fixtures and no parameters, and its decorator has parentheses. "
        f"Write `@{_DECORATORS[what]}()` above `def {name}():`, and make in it what it needs"
    )


def _name_of(request: pytest.FixtureRequest) -> str:
    """The test, for a command that is given where pytest was started."""
    path = os.path.relpath(request.node.path, request.config.invocation_params.dir)
    return shlex.quote("::".join([path, *request.node.nodeid.split("::")[1:]]))


def _repro_of(report: "Report") -> str:
    return f'--repro "{report.failures[0].token}"' if report.failures else ""


# Fixtures


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new, empty store: the test runs on each kind that is available.

    Its clock counts microseconds from a fixed time, so that times, and golden traces, are the same in each run.
    """
    with STORES[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``golden(trace)`` compares a trace with the one that stands beside the test, in ``traces``.

    The file is ``traces/<module>/<class>.<test>.jsonl``. A second trace of a test needs a ``name``, of letters,
    digits, and ``. _ -``. With ``--update-traces`` the file is written anew.
    """
    given: set[Path] = set()

    def compare(trace: "Trace", name: str = "") -> None:
        from interpreters.traces import check_golden

        path = _golden_path(request, name)
        # A test that is run again, as after a failure, has the same node, and another fixture.
        users = request.config.stash.setdefault(_GOLDEN, {})
        user = users.setdefault(str(path).casefold(), request.node.nodeid)
        if path in given or user != request.node.nodeid:
            raise InvalidRequest(f"a golden trace was given for {path} already, in {user}: give a name for this one")
        given.add(path)
        try:
            check_golden(trace, path, bool(request.config.getoption("--update-traces")), "pytest --update-traces")
        except AssertionError as error:
            message = str(error)
        else:
            return
        pytest.fail(message, pytrace=False)

    return compare


def _golden_path(request: pytest.FixtureRequest, name: str) -> Path:
    """The file of a test's golden trace: no two tests of a directory have the same, but for odd parameters."""
    if not (isinstance(name, str) and re.fullmatch(r"[\w.-]*", name)):
        raise InvalidRequest(f"the name of a golden trace is {describe(name)}: it has only letters, digits, and . _ -")
    classes = [node.name for node in request.node.listchain() if isinstance(node, pytest.Class)]
    test = re.sub(r"[^\w.-]+", "-", ".".join([*classes, request.node.name])).strip("-")
    stem = "-".join(filter(None, (test, name)))
    return request.path.parent / "traces" / request.path.stem / f"{stem}.jsonl"


# Hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("persist-effects")
    group.addoption("--repro", metavar="TOKEN", help="run the one state or interleaving that a failure named")
    group.addoption("--update-traces", action="store_true", help="write golden traces anew")


def pytest_configure(config: pytest.Config) -> None:
    """Have the tests watched for programs that they make and do not run, and the rows of their stores checked."""
    config.stash[_CHECKED_BEFORE] = check_answers(True)
    if not is_switched_off():
        config.pluginmanager.register(NeverRunPlugin(), "persist-effects-never-run")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave it as it was."""
    check_answers(config.stash.get(_CHECKED_BEFORE, False))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how much was explored."""
    for what, (tests, checked) in sorted(config.stash.get(_EXPLORED, {}).items()):
        terminalreporter.write_line(f"explored {checked:,} {what} in {_tests(tests)}")


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse parameters for a test that explores: they stand above its decorator, or at its class."""
    what = getattr(metafunc.function, _IS_EXPLORATION, None)
    if what is not None and any(metafunc.definition.iter_markers("parametrize")):
        pytest.fail(_refusal(metafunc.function.__name__, what), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Refuse a token for several tests, for it names a state of one, and for a test that explores nothing."""
    if not config.getoption("--repro"):
        return
    if len(items) > 1:
        raise pytest.UsageError(f"--repro is for one test, and {len(items)} were collected: name the test, as in -k")
    for item in items:
        if not hasattr(getattr(item, "function", None), _IS_EXPLORATION):
            raise pytest.UsageError(f"--repro is for a crash_test or an explore_test, and {item.nodeid} is neither")
