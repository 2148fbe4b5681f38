"""Running one program on many disks: what was answered as before comes to the same end, and is not run again.

A program is a function of its answers. So its requests form a tree, whose branches are the answers; where a disk's
answers lead to an end that is known, only they are worked out, which takes a tenth of the time of the program.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from interpreters.disk.crashing import CrashDisk
from persist_effects.machine import Effect
from persist_effects.requests import Failed, Request

A = TypeVar("A")


class End(Generic[A]):
    """How a program ended: with a value or an error. One object for all disks that lead to it."""

    __slots__ = ("error", "value")

    def __init__(self, value: A | None, error: Exception | None) -> None:
        self.value = value
        self.error = error


class _Node(Generic[A]):
    """A place of the tree: the request that the program makes there, or its end."""

    __slots__ = ("branches", "end", "request")

    def __init__(self) -> None:
        self.request: Request[Any] | None = None
        self.end: End[A] | None = None
        self.branches: dict[Any, _Node[A]] = {}


class Memo(Generic[A]):
    """The ends of one deterministic program over `disk/*`, which ``make`` makes anew, on whichever disks.

    >>> from interpreters.disk import requests as disk
    >>> from persist_effects import perform
    >>> def program():
    ...     return len((yield from perform(disk.Read("a", 0, 10))))
    >>> memo = Memo(program)
    >>> first, second = memo.run(CrashDisk({"a": b"one"})), memo.run(CrashDisk({"a": b"one", "b": b"two"}))
    >>> first.value, first is second, memo.runs
    (3, True, 1)
    """

    def __init__(self, make: Callable[[], Effect[A]]) -> None:
        self._make = make
        self._root: _Node[A] = _Node()
        self.runs = 0
        """How often the program itself was run."""

    def run(self, on: CrashDisk) -> End[A]:
        """The end to which this disk leads. The disk is changed as the program changes it."""
        # Most of an exploration is spent in this loop.
        node = self._root
        answers: list[Any] = []
        ask = on.answer
        while node.request is not None:
            try:
                answer = branch = ask(node.request)
            except OSError as error:
                answer, branch = _refused(error)
            else:
                if type(answer) is list:
                    branch = tuple(answer)
            answers.append(answer)
            following = node.branches.get(branch)
            if following is None:
                following = node.branches[branch] = _Node()
                return self._go_on(on, following, answers)
            node = following
        return node.end if node.end is not None else self._go_on(on, node, answers)

    def _go_on(self, on: CrashDisk, node: _Node[A], answers: list[Any]) -> End[A]:
        """Run the program itself: up to this node with the answers so far, from there on with the disk's."""
        self.runs += 1
        program = self._make()
        known = iter(answers)
        try:
            request = next(program)
            for answer in known:
                request = _resume(program, answer)
            while True:
                node.request = request
                answer, branch = _ask(on, request)
                following: _Node[A] = _Node()
                node.branches[branch] = following
                node = following
                request = _resume(program, answer)
        except StopIteration as end:
            node.end = End(end.value, None)
        except Exception as error:
            node.end = End(None, error)
        return node.end


def _ask(on: CrashDisk, request: Request[Any]) -> tuple[Any, Any]:
    """A disk's answer, and what tells it from others."""
    try:
        answer = on.answer(request)
    except OSError as error:
        return _refused(error)
    return answer, tuple(answer) if isinstance(answer, list) else answer


def _refused(error: OSError) -> tuple[Failed, Any]:
    return Failed(error), (type(error), error.errno)


def _resume(program: Effect[Any], answer: Any) -> Request[Any]:
    return program.throw(answer.error) if isinstance(answer, Failed) else program.send(answer)
