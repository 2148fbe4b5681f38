"""Driving a program request by request, so that a bar moves while it reads or writes much."""

from collections.abc import Callable
from typing import Any, TypeVar

from persist_effects import machine
from persist_effects.machine import Effect, Suspended
from persist_effects.requests import Answered, Request

A = TypeVar("A")


def run_watched(store: Any, program: Effect[A], watch: Callable[[Request[Any], Any], None]) -> A:
    """Drive a program on a store to its end, and tell of each request that was answered.

    Args:
        store: The open store.
        program: A fresh program.
        watch: Told each request, and its answer.

    Returns:
        The program's value. What it raises is raised.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> run_watched(open_store("memory:"), kv.put("color", "red"), lambda request, answer: print(request.op, answer))
    persist/kv-put 1
    1
    """
    step = machine.start(program)
    while isinstance(step, Suspended):
        try:
            outcome = machine.outcome_of(step.request, store.handlers)
            if isinstance(outcome, Answered):
                watch(step.request, outcome.value)
        except BaseException:
            # Ctrl-C: what was asked last may be done, and nothing more is asked.
            step.close()
            raise
        step = step.resume(outcome.value) if isinstance(outcome, Answered) else step.throw(outcome.error)
    return step.value
