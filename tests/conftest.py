"""What the tests share."""

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pauses
import pytest
from hypothesis import settings
from places import ROOT

from interpreters import Store, open_store
from interpreters.conformance import StoreConformance
from interpreters.pytest_never_run import NeverRunPlugin
from persist_effects import Effect, Suspended, machine
from persist_effects.machine import Step
from persist_effects.requests import Answered

# The longest test of the conformance suite, which every store passes.
SEARCH = StoreConformance.test_the_store_agrees_with_the_model_over_any_sequence_of_requests.__name__

# What tests share says as well what it found where it is not what it asserts.
SHARED = {path.stem for path in Path(__file__).parent.rglob("*.py") if not path.name.startswith(("test_", "conftest"))}
pytest.register_assert_rewrite(*sorted(SHARED - sys.modules.keys()))

# How long an example takes is the machine's affair, not the test's.
settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")


def pytest_configure(config: pytest.Config) -> None:
    """A test that makes a program and does not run it fails, as under the plugin. Ctrl-C is told to every test."""
    config.pluginmanager.register(NeverRunPlugin(), "persist-effects-never-run")
    if seed := os.environ.get(pauses.VARIABLE):
        ours = [f"{ROOT / room}{os.sep}" for room in ("persist_effects", "interpreters", "examples", "tests")]
        config.pluginmanager.register(pauses.Pauses(seed, ours))
    # Of what a shell starts in the background it is ignored, and then by all that such a process starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test whose name holds an address has another one in each process. Each search at random is an exploration."""
    for item in items:
        if re.search(r"0x[0-9a-f]{6,}", item.name):
            raise pytest.UsageError(f"{item.nodeid}: its name holds an address: give it an id by `steady`")
        if item.name == SEARCH:
            item.add_marker(pytest.mark.exploration)


def pytest_collection_finish() -> None:
    """The tests themselves stay until the end, so that no collection of garbage need look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def open_new() -> Callable[[], Store]:
    """Opens a new, empty store, for tests that need several; whoever calls it closes the store."""
    return lambda: open_store("memory:")


@pytest.fixture
def store(open_new: Callable[[], Store]) -> Iterator[Store]:
    """A new, empty store."""
    with open_new() as opened:
        yield opened


def answer(step: Suspended[Any], store: Store) -> Step[Any]:
    """Let the store answer the one request at which a program waits, by its value or by its error."""
    outcome = machine.outcome_of(step.request, store.handlers)
    return step.resume(outcome.value) if isinstance(outcome, Answered) else step.throw(outcome.error)


def stop_after(program: Effect[Any], store: Store, count: int) -> bool:
    """Let the store answer ``count`` requests, then give the program up. Returns whether it had ended before."""
    step = machine.start(program)
    for _ in range(count):
        if not isinstance(step, Suspended):
            return True
        step = answer(step, store)
    if not isinstance(step, Suspended):
        return True
    step.close()
    return False


def printed_under_hash_seeds(script: str, *seeds: int) -> list[str]:
    """What a script that may import the tests prints, in a process for each seed of the hashes."""
    path = os.pathsep.join(filter(None, sys.path))
    return [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for seed in seeds
    ]


def interleavings(
    open_new: Callable[[], Store], begin: Callable[[Store], list[Effect[Any]]]
) -> Iterator[tuple[tuple[int, ...], Store, list[Any]]]:
    """Run programs together in every order of their requests, each order on a store of its own.

    ``begin(store)`` fills the store and returns the programs. Gives each order (whose turn it was at each request),
    the store after it, and what each program returned, or raised.
    """
    untried: list[tuple[int, ...]] = [()]
    while untried:
        chosen = untried.pop()
        order: list[int] = []
        with open_new() as store:
            steps: list[Any] = [_turn(machine.start, program) for program in begin(store)]
            while waiting := [index for index, step in enumerate(steps) if isinstance(step, Suspended)]:
                if len(order) < len(chosen):
                    turn = chosen[len(order)]
                else:
                    turn = waiting[0]
                    untried += [(*order, other) for other in waiting[1:]]
                order.append(turn)
                steps[turn] = _turn(answer, steps[turn], store)
            yield tuple(order), store, [step.value if isinstance(step, machine.Done) else step for step in steps]


def _turn(go_on: Callable[..., Step[Any]], *arguments: Any) -> Step[Any] | Exception:
    try:
        return go_on(*arguments)
    except Exception as error:
        return error
