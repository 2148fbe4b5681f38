"""Something happens in the middle of the n-th change that a real disk makes: the process dies, or Ctrl-C is pressed.

    python tests/examples/dying_disk.py disk|bars N git_history|order_ledger ARGUMENT…

runs an example, which kills itself by SIGKILL in the middle of its n-th change of the disk, or at the n-th move of its
progress bars. No signal from outside, so nothing depends on how fast anything is.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interpreters.disk.crashing import MUTATING
from interpreters.disk.real import RealDisk
from interpreters.disk.requests import Write

EXAMPLES = Path(__file__).parents[2] / "examples"


class Died(BaseException):
    """As far as the disk is concerned, the process was killed: nothing reaches it any more."""


class Changes:
    """Counts the changes of all disks that are opened from now on, and calls ``happens`` in the middle of one.

    With ``is_final`` no change after that one is made: what tidies up in this process cannot do what a killed one
    would not have done.
    """

    def __init__(self, at: int, happens: Callable[[], Any], *, is_final: bool = False) -> None:
        self.count = 0
        self._at = at
        self._happens = happens
        self._is_final = is_final

    def install(self, patch: Callable[[Any, str, Any], None]) -> "Changes":
        """Put the counter into `RealDisk`; ``patch`` is `setattr`, or a fixture's."""
        make = RealDisk.__init__

        def init(disk: RealDisk, *args: Any, **options: Any) -> None:
            make(disk, *args, **options)
            rows = disk.handlers
            disk.handlers = {kind: self._around(row) if kind in MUTATING else row for kind, row in rows.items()}

        patch(RealDisk, "__init__", init)
        return self

    def _around(self, row: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def change(request: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                if isinstance(request, Write):
                    row(Write(request.path, request.offset, request.data[: len(request.data) // 2]))
                self._happens()
            if self._is_final and self.count >= self._at:
                raise Died
            return row(request)

        return change


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_bar(module: Any, at: int) -> None:
    """Die when the progress bars move for so many times."""
    show, moves = module.Bars.show, 0

    def count_and_show(bars: Any, request: Any) -> None:
        nonlocal moves
        moves += 1
        if moves == at:
            kill_myself()
        show(bars, request)

    module.Bars.show = count_and_show


def main(what: str, at: str, example: str, *arguments: str) -> Any:
    sys.path.insert(0, str(EXAMPLES))
    module: Any = importlib.import_module(example)
    if what == "bars":
        die_at_bar(module, int(at))
    else:
        Changes(int(at), kill_myself).install(setattr)
    return module.app(arguments) if example == "git_history" else module.command(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
