"""A plugin for pytest: the `store` fixture, `crash_test` and `explore_test`, and golden traces. Needs ``testing``.

It is there wherever the package and pytest are installed. A test may ask for the fixtures ``store``, which runs it on
each store that is available, and ``golden``, which compares a trace with the one in the test's directory.

Names: ``persist_store``, ``persist_golden``, ``--persist-repro`` and ``--persist-update-traces`` are always ours. The
short ``store``, ``golden``, ``--repro`` and ``--update-traces`` are ours where no other plugin and no ``conftest.py``
has them; where one does, theirs is used, and pytest says so once.

    @crash_test(depth=1)
    def test_an_order_survives_every_crash():
        yield from log.append("orders/1", "placed", {"total": 12})

Such a test takes no fixtures and no parameters, and may stand in a ``unittest.TestCase``. ``--repro TOKEN`` runs the
one state or interleaving that a failure named, and ``--update-traces`` writes golden traces anew. A summary at the end
says how much was explored.

What failed is kept beside the test, in ``.persist-effects-failures``, and is run before everything else the next time,
until all of the test passes. Commit the directory where others are to meet the same failures first; or leave it out.
"""

import argparse
import functools
import inspect
import os
import re
import shlex
import sys
import types
import unittest
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from interpreters.never_run import is_switched_off
from interpreters.pytest_never_run import NeverRunPlugin
from interpreters.store_testing import STORES, GoldenRun, file_stem, golden_path, golden_runs
from persist_effects.answers import check_answers
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Effect

if TYPE_CHECKING:
    from interpreters.explore.report import Report
    from interpreters.runtime.store import Store
    from persist_effects.trace import Trace
    from persist_effects.trace.masking import Mask

Test = Callable[..., None]

_EXPLORED = pytest.StashKey[dict[str, list[int]]]()

_CHECKED_BEFORE = pytest.StashKey[bool]()

_GOLDEN = pytest.StashKey[dict[str, str]]()
"""Which test has used which file of a golden trace."""

_FIRST_OF_STEM = pytest.StashKey[dict[str, str]]()
"""Which of the collected tests is the first whose golden traces have which files: the same in every process."""

_FOREIGN = pytest.StashKey[list[str]]()
"""What is to be said of short names that others have."""

_TO_PASTE = pytest.StashKey[list[str]]()
"""The commands that show again where explorations were interrupted."""

_KEPT = pytest.StashKey[list[str]]()
"""What is to be said of failures that were kept: which came back, and which are gone."""

_REFUSED = pytest.StashKey[str]()
"""What a worker of pytest-xdist is to say of the token in each test, since it cannot end before."""

_IS_EXPLORATION = "_persist_effects_explores"
"""The attribute of the tests that are made here."""

_DECORATORS = {"states": "crash_test", "interleavings": "explore_test"}


def crash_test(check: Callable[..., Effect[Any]] | None = None, **options: Any) -> Callable[[Callable[[], Any]], Test]:
    """Make a generator function a test that it survives every crash: see `interpreters.explore.explore_crashes`.

    The function is the workload, or returns a list of functions that make the programs of one. ``options`` are those
    of `explore_crashes`. The function takes no fixtures and no parameters, other than the ``self`` of a method.

    It runs on the file store alone, whose disk can be simulated. What a crash leaves of a database is the database's
    own affair: on a store of those, try `interpreters.explore.explore_effects`.
    """
    _refuse_bare(check, "states")

    def explore(found: Any, repro: str | None) -> "Report":
        from interpreters.explore import explore_crashes

        return explore_crashes(found, check, repro=repro, **options)

    return functools.partial(_as_test, explore, "states")


def explore_test(
    check: Callable[..., Effect[Any]] | None = None, **options: Any
) -> Callable[[Callable[[], Any]], Test]:
    """Make a function a test of every interleaving of the programs' functions that it returns: see `schedule.explore`.

    ``store_factory`` among the options makes the store of each interleaving, otherwise a memory store. Any store will
    do, new and empty each time; the memory store is the fastest by far, and is what all others must agree with. On
    PostgreSQL, where positions and revisions are others in each run, a program that hands one on is not deterministic.
    """
    _refuse_bare(check, "interleavings")
    store_factory = options.pop("store_factory", _memory_store)

    def explore(found: Any, repro: str | None) -> "Report":
        from interpreters.explore import explore

        return explore(found, store_factory, check, repro=repro, **options)

    return functools.partial(_as_test, explore, "interleavings")


def _memory_store() -> "Store":
    from interpreters.opening import open_store

    return open_store("memory:")


def _as_test(explore: Callable[[Any, str | None], "Report"], what: str, function: Any) -> Test:
    is_method = _check_plain(function, what)

    def explored(program: Any) -> None:
        item = _running[-1] if _running else None
        config = None if item is None else item.config
        try:
            workload = program if inspect.isgeneratorfunction(function) else program()
            report = _explored(functools.partial(explore, workload), item)
        except BaseException as error:
            if item is not None:
                _note_command(item, error)
            raise
        if config is not None:
            counts = config.stash.setdefault(_EXPLORED, {}).setdefault(what, [0, 0])
            counts[0] += 1
            counts[1] += report.checked
        if report.verdict != "passed":
            _fail(report, item)

    def test() -> None:
        explored(function)

    def test_of_class(self: Any) -> None:
        explored(function.__get__(self))

    made: Any = test_of_class if is_method else test
    # Without ``__wrapped__``, for pytest would look there for a generator function, and for fixtures.
    made.__name__, made.__doc__, made.__module__ = function.__name__, function.__doc__, function.__module__
    made.__qualname__ = function.__qualname__
    made.pytestmark = list(getattr(function, "pytestmark", []))
    setattr(made, _IS_EXPLORATION, what)
    return cast(Test, made)


def _explored(explore: Callable[[str | None], "Report"], item: pytest.Item | None) -> "Report":
    """Explore a test's programs: the state of the token that was given, or else what failed before, and all."""
    token = None if item is None else item.config.getoption("persist_repro")
    if item is None:
        return explore(None)
    if token:
        return _explored_again(explore, token, item)
    from interpreters.pytest_failures import FOLDER, explored_with_kept

    path = item.path.parent / FOLDER / f"{item.path.stem}.{file_stem(_test_name(item))}.jsonl"
    report, told = explored_with_kept(explore, path)
    item.config.stash.setdefault(_KEPT, []).extend(f"{item.nodeid}: {line}" for line in told)
    return report


def _explored_again(explore: Callable[[str | None], "Report"], token: str, item: pytest.Item) -> "Report":
    """Explore the state of a token. Fails in one line, without a traceback, where it fits no state of the test."""
    try:
        return explore(token)
    except InvalidRequest as error:
        refusal = str(error)
    pytest.fail(f"{_option(item.config, '--repro')}: {refusal}", pytrace=False)


def _check_plain(function: Any, what: str) -> bool:
    """Whether a function is a method of a class. Raises `InvalidRequest` for one that cannot be such a test."""
    if not inspect.isfunction(function):
        raise InvalidRequest(f"{_DECORATORS[what]} makes a test of a function, not of {describe(function)}")
    if getattr(function, "is_hypothesis_test", False):
        raise InvalidRequest(
            f"{function.__name__} has @given: {_DECORATORS[what]} chooses what happens, and takes no examples beside it"
        )
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


_running: list[pytest.Item] = []
"""The test that runs, last of those within which it runs. Nothing where `unittest` alone runs it."""


def _fail(report: "Report", item: pytest.Item | None) -> None:
    if item is None:
        raise AssertionError(str(report))
    again = f"\n\nor: {_command(item, report.failures[0].token)}" if report.failures else ""
    pytest.fail(f"{report}{again}", pytrace=False)


def _note_command(item: pytest.Item, error: BaseException) -> None:
    """Where an exploration was ended, say how to see it again with pytest, which shows no notes of an interrupt."""
    told = "\n".join(getattr(error, "__notes__", ()))
    found = re.search(r'repro="([^"]+)"', told)
    if found is None:
        return
    error.add_note(f"or: {_command(item, found[1])}")
    item.config.stash.setdefault(_TO_PASTE, []).append(_command(item, found[1]))


def _command(item: pytest.Item, token: str) -> str:
    """What to paste where pytest was started, to see one state of a test."""
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    name = shlex.quote("::".join([path, *item.nodeid.split("::")[1:]]))
    return f'pytest {name} {_option(item.config, "--repro")} "{token}"'


# Fixtures


@pytest.fixture(params=sorted(STORES))
def persist_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator["Store"]:
    """A new, empty store: the test runs on each kind that is available. In short: ``store``.

    Its clock counts microseconds from a fixed time, and its random source counts too, so that times, identifiers, and
    golden traces, are the same in each run.
    """
    with STORES[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
def persist_golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``golden(trace)`` compares a trace with the one that stands beside the test, in ``traces``. In short: ``golden``.

    The file is ``traces/<module>/<class>.<test>.jsonl``. A second trace of a test needs a ``name``, of letters,
    digits, and ``. _ -``. With ``--update-traces`` the file is written anew. ``mask=["at", "data.token"]`` leaves out
    what is another value in each run, or is not to stand in a file: see `interpreters.traces.check_golden`.
    """
    given: set[Path] = set()

    def compare(trace: "Trace", name: str = "", *, mask: "Mask" = ()) -> None:
        from interpreters.traces import check_golden

        path = _golden_path(request.node, name)
        _refuse_path_of_another(request.node, path, given)
        given.add(path)
        run = _golden_run(request.config)
        try:
            check_golden(trace, path, run.is_update, run.how, mask)
        except AssertionError as error:
            message = str(error)
        else:
            return
        pytest.fail(message, pytrace=False)

    return compare


def _golden_run(config: pytest.Config) -> GoldenRun:
    how = f"pytest {_option(config, '--update-traces')}"
    return GoldenRun(bool(config.getoption("persist_update_traces")), how)


@pytest.fixture(name="store")
def _store(persist_store: "Store") -> "Store":
    """A new, empty store: the test runs on each kind that is available."""
    return persist_store


@pytest.fixture(name="golden")
def _golden(persist_golden: Callable[..., None]) -> Callable[..., None]:
    """``golden(trace)`` compares a trace with the one that stands beside the test, in ``traces``."""
    return persist_golden


_SHORT = {"store": _store, "golden": _golden}
del _store, _golden  # which pytest would find in this module


def _refuse_path_of_another(item: pytest.Item, path: Path, given: set[Path]) -> None:
    # A test that is run again, as after a failure, has the same node, and another fixture.
    users = item.config.stash.setdefault(_GOLDEN, {})
    user = users.setdefault(_folded(path), item.nodeid)
    # Another process may run the other test, so it counts which of them was collected first.
    first = item.config.stash.get(_FIRST_OF_STEM, {}).get(_folded(_golden_path(item, "")), item.nodeid)
    other = user if user != item.nodeid else first
    if path in given or other != item.nodeid:
        raise InvalidRequest(f"a golden trace was given for {path} already, in {other}: give a name for this one")


def _folded(path: Path) -> str:
    return str(path).casefold()


def _golden_path(item: pytest.Item, name: str) -> Path:
    return golden_path(item.path, _test_name(item), name)


def _test_name(item: pytest.Item) -> str:
    """A test with the classes that it is in."""
    classes = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    return ".".join([*classes, item.name])


# Tests that cannot have our fixtures


def _refusal_of_fixtures(item: Any) -> str | None:
    """Why a test cannot have our fixtures that it asks for, and what to do; None where it can, or asks for none."""
    asked = [name for name in ("persist_store", "persist_golden") if name in getattr(item, "fixturenames", ())]
    kind = getattr(item, "cls", None)
    if kind is not None and issubclass(kind, unittest.TestCase):
        asked = asked or _arguments_that_are_ours(item)
        if asked:
            return (
                f"{item.nodeid} is in a unittest.TestCase, which can have no {_in_short(asked)}: begin the class with "
                f"`class {kind.__name__}(StoreMixin, unittest.TestCase)`, with `StoreMixin` of "
                "interpreters.store_testing, and use self.store and self.golden(trace)"
            )
    elif asked and getattr(item.obj, "is_hypothesis_test", False):
        return (
            f"{item.nodeid} has @given, and {_in_short(asked)} would be one for all examples, which would see what "
            "others wrote: write `with fresh_store() as store:` within the test, with `fresh_store` of "
            "interpreters.store_testing; and compare golden traces in a test without @given"
        )
    return None


def _in_short(names: Sequence[str]) -> str:
    return " and ".join(f"fixture {name.removeprefix('persist_')}" for name in names)


def _arguments_that_are_ours(item: Any) -> list[str]:
    """Which arguments of a method are named as fixtures that are ours there."""
    if hasattr(item.function, "patchings"):
        # Of `unittest.mock`, which gives them.
        return []
    found = []
    for name in inspect.signature(item.function).parameters:
        long = f"persist_{name.removeprefix('persist_')}"
        fixtures = item.session._fixturemanager.getfixturedefs(name, item) or ()
        if name in {long, *_SHORT} and any(fixture.func.__module__ == __name__ for fixture in fixtures[-1:]):
            found.append(long)
    return found


# Hooks


_OPTIONS: dict[str, dict[str, Any]] = {
    "--repro": {"metavar": "TOKEN", "help": "run the one state or interleaving that a failure named"},
    "--update-traces": {"action": "store_true", "help": "write golden traces anew"},
}


def _long(option: str) -> str:
    return f"--persist-{option.removeprefix('--')}"


def _option(config: pytest.Config, short: str) -> str:
    """The name of an option, the short one if it is ours."""
    is_foreign = any(told.startswith(f"{short} ") for told in config.stash.get(_FOREIGN, []))
    return _long(short) if is_foreign else short


def _dest(option: str) -> str:
    return _long(option).removeprefix("--").replace("-", "_")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options under the names that nobody else has."""
    group = parser.getgroup("persist-effects")
    for short, details in _OPTIONS.items():
        group.addoption(_long(short), dest=_dest(short), **details)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser
) -> Generator[None, object, object]:
    """Add the short names, once all plugins and ``conftest.py`` have added theirs: one of those would fail after us."""
    result = yield
    taken = _names_in(parser)
    for short, details in _OPTIONS.items():
        if short in taken:
            _say(early_config, f"{short} is an option of another plugin, so here it is {_long(short)}")
        else:
            default = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            parser.getgroup("persist-effects").addoption(short, dest=_dest(short), **{**details, **default})
    return result


def _names_in(parser: Any) -> set[str]:
    """The options that there are. Pytest has no name for them that is public."""
    return {name for group in [*parser._groups, parser._anonymous] for one in group.options for name in one.names()}


def _say(config: pytest.Config, told: str) -> None:
    config.stash.setdefault(_FOREIGN, []).append(told)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which short names others have."""
    return [f"persist-effects: {told}" for told in config.stash.get(_FOREIGN, [])]


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have the tests watched for programs that they make and do not run, and the rows of their stores checked."""
    config.stash[_CHECKED_BEFORE] = check_answers(True)
    if not is_switched_off():
        config.pluginmanager.register(NeverRunPlugin(), "persist-effects-never-run")
    _add_short_fixtures(config)


def _add_short_fixtures(config: pytest.Config) -> None:
    """Add the short names of the fixtures that no other plugin has. A ``conftest.py`` may have them too, and wins."""
    short = types.ModuleType("persist_effects_short_names")
    for name, fixture in _SHORT.items():
        other = next((plugin for plugin in config.pluginmanager.get_plugins() if _is_fixture(plugin, name)), None)
        if other is None:
            setattr(short, name, fixture)
        else:
            whose = config.pluginmanager.get_name(other)
            _say(config, f"{name} is a fixture of {whose}, so here it is persist_{name}")
    config.pluginmanager.register(short, short.__name__)


def _is_fixture(plugin: object, name: str) -> bool:
    """Whether a plugin has a fixture of this name, as pytest 8.4 makes them, or as those before did."""
    found = getattr(plugin, name, None)
    is_one = type(found).__module__ == "_pytest.fixtures" or hasattr(found, "_pytestfixturefunction")
    return is_one and not str(getattr(plugin, "__file__", "")).endswith("conftest.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Know which test it is that explores: a method of a ``unittest.TestCase`` can ask for no fixture."""
    _running.append(item)
    golden_runs.append(_golden_run(item.config))
    try:
        return (yield)
    finally:
        _running.pop()
        golden_runs.pop()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave it as it was."""
    check_answers(config.stash.get(_CHECKED_BEFORE, False))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how much was explored, and how to see again what was interrupted."""
    for what, (tests, checked) in sorted(config.stash.get(_EXPLORED, {}).items()):
        terminalreporter.write_line(f"explored {checked:,} {what} in {_tests(tests)}")
    for told in config.stash.get(_KEPT, []):
        terminalreporter.write_line(told)
    for command in config.stash.get(_TO_PASTE, []):
        terminalreporter.write_line(f"interrupted in one state of an exploration. To see it again: {command}")


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist: hand over how much was explored."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_WORKER_OUTPUT] = session.config.stash.get(_EXPLORED, {})
        output[_WORKER_KEPT] = session.config.stash.get(_KEPT, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Where pytest-xdist was started: add what a worker has explored. One that crashed says nothing."""
    explored = node.config.stash.setdefault(_EXPLORED, {})
    for what, (tests, checked) in getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT, {}).items():
        counts = explored.setdefault(what, [0, 0])
        counts[0] += tests
        counts[1] += checked
    kept = getattr(node, "workeroutput", {}).get(_WORKER_KEPT, [])
    node.config.stash.setdefault(_KEPT, []).extend(kept)


_WORKER_OUTPUT, _WORKER_KEPT = "persist_effects_explored", "persist_effects_kept"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse parameters for a test that explores: they stand above its decorator, or at its class."""
    what = getattr(metafunc.function, _IS_EXPLORATION, None)
    if what is not None and any(metafunc.definition.iter_markers("parametrize")):
        pytest.fail(_refusal(metafunc.function.__name__, what), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Refuse a token for several tests, for it names a state of one, and for a test that explores nothing."""
    firsts = config.stash.setdefault(_FIRST_OF_STEM, {})
    for item in items:
        if "persist_golden" in getattr(item, "fixturenames", ()):
            firsts.setdefault(_folded(_golden_path(item, "")), item.nodeid)
    if not config.getoption("persist_repro"):
        return
    refusal = _refusal_of_token(_option(config, "--repro"), items)
    if refusal is None:
        return
    if not hasattr(config, "workerinput"):
        raise pytest.UsageError(refusal)
    # A worker of pytest-xdist that ends here is taken for one that crashed, and the words are lost.
    config.stash[_REFUSED] = refusal


def _refusal_of_token(option: str, items: Sequence[pytest.Item]) -> str | None:
    if len(items) > 1:
        return f"{option} is for one test, and {len(items)} were collected: name the test, as in -k"
    for item in items:
        if not hasattr(getattr(item, "function", None), _IS_EXPLORATION):
            return f"{option} is for a crash_test or an explore_test, and {item.nodeid} is neither"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that cannot have our fixtures, and each where a worker could not say before what it refused."""
    refusal = item.config.stash.get(_REFUSED, None) or _refusal_of_fixtures(item)
    if refusal is not None:
        pytest.fail(refusal, pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_exception_interact(node: Any, call: pytest.CallInfo[Any], report: Any) -> None:
    """Name the pages of our errors. Where an import fails, say that another package has the name `interpreters`."""
    from interpreters.error_pages import see_pages

    error = call.excinfo.value if call.excinfo is not None else None
    if error is not None and (pages := see_pages(error)):
        report.sections.append(("persist-effects", pages))
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__ or error.__context__
    if error is None or not str(error.name).startswith("interpreters"):
        return
    ours = Path(__file__).parent
    roots = dict.fromkeys(Path(root) for root in (*sys.path, node.config.rootpath, node.config.invocation_params.dir))
    for root in roots:
        for other in (root / "interpreters", root / "interpreters.py"):
            if other.exists() and other.resolve() != ours.resolve():
                told = f"{other} is a package of the same name as {ours}, of persist-effects, which was imported first"
                report.sections.append(("persist-effects", f"{told}: rename it"))
                return
