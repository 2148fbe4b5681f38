"""Programs over two disks: one that is read from, and one that is written to.

A program's own requests go to the first. What it runs with `on_target` goes to the second.
"""

from typing import Any, TypeVar

from persist_effects.machine import Effect, Handlers, perform, through
from persist_effects.requests import Request

A = TypeVar("A")


class OnTarget(Request[Any], frozen=True, tag="disk/on-target"):
    """A request for the second disk. Answered with its answer."""

    request: Request[Any]


def on_target(program: Effect[A]) -> Effect[A]:
    """Run a program over `disk/*` on the second disk."""
    return (yield from through(program, lambda request: perform(OnTarget(request)), (Exception,)))


def two_disks(source: Handlers, target: Handlers) -> Handlers:
    """The handler table of both disks.

    >>> from interpreters.disk import requests as disk
    >>> from persist_effects import run
    >>> table = two_disks({disk.Size: lambda request: 1}, {disk.Size: lambda request: 2})
    >>> run(perform(disk.Size("a")), table), run(on_target(perform(disk.Size("a"))), table)
    (1, 2)
    """
    return {**source, OnTarget: lambda request: target[type(request.request)](request.request)}
