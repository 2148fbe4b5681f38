"""A limit on what a program asks."""

from typing import TypeVar

from persist_effects.machine import Effect, Suspended, perform, start
from persist_effects.spinning import give_up

A = TypeVar("A")


class Hangs(Exception):
    """A program made more requests than it may."""


def limited(program: Effect[A], requests: int) -> Effect[A]:
    """The same program, in which `Hangs` is raised where it asks more than so many requests.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> open_store("memory:").run(limited(kv.has("color"), 1))
    False
    """
    step = start(program)
    while isinstance(step, Suspended):
        if not requests:
            give_up(program)
            raise Hangs("the program asked more than its limit of requests")
        requests -= 1
        try:
            answer = yield from perform(step.request)
        except Exception as error:
            step = step.throw(error)
        else:
            step = step.resume(answer)
    return step.value
