"""A program that was made and never run is noticed; one that was run, or refused with an error, is not."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from weakref import WeakSet

import anyio
import pytest
from places import ROOT

# The plugin and the file store, because pytester forgets what a run has imported.
import persist_effects
from interpreters import open_store
from interpreters.explore import explore
from interpreters.never_run import Watcher
from interpreters.stores.file import FileReader
from interpreters.stores.file.upkeep.two_disks import on_target
from persist_effects import (
    AlreadyUsed,
    InvalidRequest,
    NotAProgram,
    StoreClosed,
    all_of,
    kv,
    log,
    perform,
    program,
    transact,
)
from persist_effects.log import append
from persist_effects.machine import Together, check_fresh, run, start
from persist_effects.programs import functions
from persist_effects.requests import LastSeq, Wait
from persist_effects.spinning import give_up
from persist_effects.testing import perform_sequence
from persist_effects.trace import record, replay, resume_at

pytest_plugins = ["pytester"]


@pytest.fixture
def lost():
    """What was noticed so far."""
    noticed = []
    with Watcher(noticed.append):
        yield noticed


@program
def order(number=1):
    yield from log.append("orders", "placed", number)


class Mark:
    """Something that a weak reference can look for."""


def test_programs_that_are_over_do_not_pile_up_while_they_are_watched(lost):
    marks = WeakSet()

    @program
    def marking():
        mark = Mark()
        marks.add(mark)
        yield from ()

    for _ in range(1000):
        run(marking(), {})
    assert len(marks) == 0
    assert not lost


def closing_over(number):
    @program
    def inner():
        yield from log.append("orders", "placed", number)

    return inner


class Shop:
    @program
    def order(self):
        yield from log.append("orders", "placed", 1)


FORGOTTEN = {
    "log.append": lambda: log.append("s", "t", 1),
    "log.append, imported by its name": lambda: append("s", "t", 1),
    "kv.put": lambda: kv.put("k", 1),
    "transaction.transact": lambda: transact(),
    "machine.all_of": lambda: all_of(),
    "machine.perform": lambda: perform(None),
    "test_never_run.order": lambda: order(),
    "test_never_run.Shop.order": lambda: Shop().order(),
    "test_never_run.inner": lambda: closing_over(1)(),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_program_that_was_dropped_without_being_run_is_told_with_its_name_and_line(lost, name):
    FORGOTTEN[name]()
    (one,) = lost
    assert one.name == name.partition(",")[0]
    assert (one.file, one.line) == (__file__, FORGOTTEN[name].__code__.co_firstlineno)
    assert str(one).startswith(f"the program {one.name}(…), made at {__file__}:{one.line}, was never run")


def test_the_place_is_told_where_a_yield_from_was_forgotten_in_a_program(lost, store):
    def place_order():
        yield from kv.put("latest", 1)
        log.append("orders", "placed", 1)

    store.run(place_order())
    (one,) = lost
    assert one.line == place_order.__code__.co_firstlineno + 2


def test_every_public_program_of_the_core_is_marked():
    unmarked = []
    for path in Path(persist_effects.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"persist_effects.{path.stem}")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name[0] != "_" and is_program(node):
                function = getattr(module, node.name)
                if function not in functions:
                    unmarked.append(f"{path.stem}.{node.name}")
    assert unmarked == ["listing.all_names"]  # an inner part of `log.streams` and `kv.keys`


def is_program(node):
    yields = any(isinstance(part, ast.Yield | ast.YieldFrom) for part in ast.walk(node))
    return yields and node.returns is not None and ast.unparse(node.returns).startswith("Effect[")


def test_a_program_that_was_run_or_at_least_started_is_not_told(lost, store):
    store.run(order())
    store.run(Shop().order())
    store.run(closing_over(1)())
    store.run_many([order(), all_of(order(), order())])
    anyio.run(store.arun, order())
    start(order()).close()
    next(order())
    assert lost == []


def closed():
    store = open_store("memory:")
    store.close()
    return store


def interrupted(make):
    def first():
        raise KeyboardInterrupt
        yield

    store = open_store("memory:")
    store.run(all_of(first(), make(), make()))


async def cancelled_before_it_began(make):
    async with anyio.create_task_group() as group:
        group.start_soon(open_store("memory:").arun, make())
        group.cancel_scope.cancel()
    raise TimeoutError


REFUSED = {
    "a closed store, run": (StoreClosed, lambda make: closed().run(make())),
    "a closed store, start": (StoreClosed, lambda make: closed().start(make())),
    "a closed store, run_many": (StoreClosed, lambda make: closed().run_many(make() for _ in range(2))),
    "a closed store, arun": (StoreClosed, lambda make: anyio.run(closed().arun, make())),
    "a task cancelled before it began": (TimeoutError, lambda make: anyio.run(cancelled_before_it_began, make)),
    "one that is not a program, in all_of": (NotAProgram, lambda make: run(all_of(make(), 7, make()), {})),
    "one that ends all_of at once": (KeyboardInterrupt, interrupted),
    "one that is not a program, in run_many": (NotAProgram, lambda make: open_store("memory:").run_many([make(), 7])),
    "one given twice": (AlreadyUsed, lambda make: check_fresh(*[make()] * 2)),
    "one that is not a program, together": (NotAProgram, lambda make: Together([make(), 7])),
    "a list": (NotAProgram, lambda make: run([make(), make()], {})),
    "no table, record": (InvalidRequest, lambda make: record(make(), 7)),
    "no trace, replay": (InvalidRequest, lambda make: replay(make(), 7)),
    "no request of the trace": (InvalidRequest, lambda make: resume_at(make(), record(make, {})[1], 9)),
    "no steps": (InvalidRequest, lambda make: perform_sequence([7], make())),
    "a program among the writes": (InvalidRequest, lambda make: run(transact(make(), make()), {})),
    "no program, on a second disk": (NotAProgram, lambda make: run(on_target(7), {})),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_a_program_that_was_refused_with_an_error_is_not_told_as_well(lost, refused):
    kind, give = REFUSED[refused]
    with pytest.raises(kind):
        give(order)
    assert lost == []


def test_a_store_of_files_that_was_closed_loses_none_of_its_own_programs(lost, tmp_path):
    open_store(f"file:{tmp_path / 'store'}").close()
    reader = FileReader(tmp_path / "store")
    reader.close()
    for request in (Wait(0, timeout=0.0), LastSeq("orders")):
        with pytest.raises(StoreClosed):
            reader.handlers[type(request)](request)
    assert lost == []


def test_a_program_that_is_given_up_before_it_has_begun_is_not_told(lost):
    give_up(order())
    assert lost == []


def test_a_program_that_an_exploration_made_to_look_at_it_is_not_told(lost):
    report = explore([order, lambda: order(2)], lambda: open_store("memory:"))
    assert report.verdict == "passed"
    assert lost == []


def test_whoever_watches_inside_is_told_alone_and_then_the_outer_one_again():
    outer, inner = [], []
    with Watcher(outer.append):
        with Watcher(inner.append):
            order()
        order()
    assert (len(outer), len(inner)) == (1, 1)


# Where it is on


SCRIPT = """
import inspect
from persist_effects import kv, log, program
from persist_effects.log import append

codes = append.__code__, kv.get.__code__

from interpreters import Store, open_store

def place_order():
    yield from kv.put("latest", 1)
    append("orders", "placed", 1)

open_store("memory:").run(place_order())
print(codes == (append.__code__, kv.get.__code__), append.__kwdefaults__, inspect.iscoroutinefunction(Store.arun))
"""


@pytest.mark.parametrize(
    ("flags", "value", "is_on"),
    [([], None, False), ([], "1", True), ([], "0", False), (["-X", "dev"], None, True), (["-X", "dev"], "0", False)],
)
def test_development_mode_and_the_environment_switch_it_on_and_else_nothing_is_touched(tmp_path, flags, value, is_on):
    script = tmp_path / "shop.py"
    script.write_text(SCRIPT)
    environment = {key: kept for key, kept in os.environ.items() if not key.startswith("PERSIST_EFFECTS_")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, *flags, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env=environment if value is None else {**environment, "PERSIST_EFFECTS_DEBUG": value},
    )
    if is_on:
        assert f"{script}:12: NeverRun: the program log.append(…), made at {script}:12, was never run" in done.stderr
        assert done.stderr.count("NeverRun") == 1
        assert done.stdout.startswith("False")
    else:
        assert done.stderr == ""
        assert done.stdout == "True {'at': None, 'meta': None} True\n"


def test_once_nobody_watches_any_more_the_functions_are_what_they_were(tmp_path):
    script = tmp_path / "again.py"
    script.write_text(
        "import inspect\n"
        "from interpreters.never_run import Watcher\n"
        "from persist_effects import log\n"
        "before = log.append.__code__, log.append.__kwdefaults__, vars(log.append).copy()\n"
        "with Watcher(print): assert log.append.__code__ != before[0]\n"
        "assert (log.append.__code__, log.append.__kwdefaults__, vars(log.append)) == before\n"
        "log.append('s', 't', 1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == done.stderr == ""


def test_a_watched_function_looks_like_itself(lost):
    assert inspect.isgeneratorfunction(log.append)
    assert list(inspect.signature(log.append).parameters) == ["stream", "type", "data", "at", "meta"]
    with pytest.raises(TypeError, match=r"append\(\) missing 1 required positional argument: 'data'"):
        log.append("s", "t")
    assert lost == []


# Under pytest


@pytest.fixture
def run_file(pytester):
    def run_it(text, *arguments):
        pytester.makepyfile("from persist_effects import kv, log, program, perform\nimport pytest\n" + text)
        return pytester.runpytest_inprocess("-p", "interpreters.pytest_plugin", "-p", "no:persist-effects", *arguments)

    return run_it


def test_the_test_that_lost_a_write_fails_with_the_line(run_file):
    result = run_file(
        """
def place_order():
    yield from kv.put("latest", 1)
    log.append("orders", "placed", 1)

def test_orders(store):
    store.run(place_order())

def test_other(store):
    store.run(kv.put("k", 1))
"""
    )
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.fnmatch_lines(["*the program log.append(…), made at *:6, was never run*"])


def test_one_of_the_users_own_that_is_marked_is_found_too_and_one_in_a_circle(run_file):
    result = run_file(
        """
@program
def own():
    yield from kv.put("k", 1)

def test_own():
    own()

def test_circle():
    circle = [own()]
    circle.append(circle)
"""
    )
    result.assert_outcomes(failed=1, passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_circle*", "*test_own*"])


def test_a_fixture_that_loses_a_program_is_an_error_of_its_test(run_file):
    result = run_file(
        """
@pytest.fixture
def filled():
    kv.put("k", 1)

def test_it(filled):
    pass
"""
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*kv.put(…), made at *:6, was never run*"])


def test_a_program_that_is_dropped_after_its_test_fails_the_run_and_is_told_with_its_test(run_file):
    result = run_file(
        """
kept = []

def test_keeping():
    kept.append(kv.put("k", 1))

def test_dropping():
    kept.clear()
"""
    )
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR made in *::test_keeping, and found after it was over: the program kv.put(…)*"])


def test_a_test_that_fails_anyway_tells_it_beside_and_its_traceback_blames_no_other(run_file):
    result = run_file(
        """
def test_failing():
    left = kv.put("k", 1)
    log.append("s", "t", 1)
    assert False, "for another reason"

def test_next():
    pass
"""
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*for another reason*", "*programs that were never run*", "*log.append(…), made at*"])
    result.stdout.no_fnmatch_line("*found after it was over*")


def test_the_environment_switches_it_off(run_file, monkeypatch, lost):
    monkeypatch.setenv("PERSIST_EFFECTS_DEBUG", "0")
    run_file("def test_it():\n    kv.put('k', 1)\n").assert_outcomes(passed=1)
    assert [one.name for one in lost] == ["kv.put"]
