"""Ctrl-C at a drawn moment of the command line's commands, each in a process of its own; then a look at the store.

    python tests/stores/file/interrupt_commands.py --seed 0 --round 17 --times 50     one round, so often
    python tests/stores/file/interrupt_commands.py --serve

The latter waits for orders, one a line on its standard input, and forks for each a child that runs the command, so
that a round costs no start of Python. On its standard output stand the child's ``pid`` and then its exit code.
"""

import argparse
import atexit
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from statistics import median
from threading import Event
from time import perf_counter
from typing import Any

from file_disks import contents
from file_killed_child import WORKERS, write_of
from interrupt_alarm import BEYOND, PLACES

from interpreters import Store, cli, jsonl
from interpreters.stores.file.store import FileStore
from interpreters.stores.file.upkeep import operations
from persist_effects import perform

COMMANDS: dict[str, list[str]] = {
    "verify": ["verify", "file:{store}"],
    "stats": ["stats", "file:{store}", "--json"],
    "backup": ["backup", "file:{store}", "{base}/made"],
    "salvage": ["salvage", "file:{store}", "{base}/made"],
    "export": ["export", "file:{store}", "--out", "{base}/made.jsonl"],
    "import": ["import", "file:{base}/made", "--from", "{lines}"],
    "tail": ["tail", "file:{store}", "--no-follow"],
    "tail and follow": ["tail", "file:{store}"],
    "compact": ["compact", "file:{store}"],
    "read": ["read", "file:{store}", "0/a"],
    "keys": ["keys", "file:{store}", "--values"],
    "doctor": ["doctor", "file:{store}"],
}
GOOD, INTERRUPTED = 0, 130
KILLED = -signal.SIGINT
"""Killed by the signal, before a command begins or in Python's own end. A shell says 130 of that too."""


class Commands:
    """A prepared process that runs commands, each in a child."""

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--serve"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def run(self, arguments: list[str], output: Path, interrupt_at_seconds: float | None) -> tuple[int, float]:
        """Run a command, interrupt it so long after its beginning, and return its exit code and how long it took."""
        print(json.dumps([*arguments, str(output)]), file=self._stdin(), flush=True)
        pid, start = int(self._line()), perf_counter()
        if interrupt_at_seconds is not None:
            Event().wait(interrupt_at_seconds)
            # Not waited for yet, so the number is still the child's.
            os.kill(pid, signal.SIGINT)
        print(file=self._stdin(), flush=True)
        return int(self._line()), perf_counter() - start

    def _stdin(self) -> Any:
        return self._process.stdin

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def make_store(place: Path, seed: int) -> dict[str, Any]:
    """A store with some segments, which was not closed; returns what it holds."""
    store = Store(FileStore(place / "open", sync="os", segment_bytes=4096))
    for number in range(60):
        store.run(perform(write_of(seed, number % WORKERS, number // WORKERS)))
    shown = contents(store.handlers)
    with (place / "lines").open("wb") as lines:
        jsonl.export(store, lines)
    shutil.copytree(place / "open", place / "store")
    store.close()
    return shown


class CommandSweep:
    """Rounds of commands that are interrupted."""

    def __init__(self, place: Path, seed: int) -> None:
        self._place = place
        self._seed = seed
        self._seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
        self._shown = make_store(place, seed)
        self.counts = Counter[str]()

    def play(self, commands: Commands, number: int) -> str | None:
        """Interrupt one command, and say which fact does not hold afterwards, if there is one."""
        random = Random(f"{self._seed} command {number}")
        name = random.choice(list(COMMANDS))
        base = self._place / "round"
        shutil.copytree(self._place / "store", base / "store")
        values = {"store": base / "store", "base": base, "lines": self._place / "lines"}
        arguments = [part.format(**values) for part in COMMANDS[name]]
        try:
            return self._interrupt(commands, name, arguments, base, random.random())
        except Exception as error:
            return f"{' '.join(COMMANDS[name])}: {type(error).__name__}: {error}"
        finally:
            shutil.rmtree(base)

    def _interrupt(self, commands: Commands, name: str, arguments: list[str], base: Path, share: float) -> str | None:
        taken = self._seconds[name]
        at_seconds = share * BEYOND * median(taken) if len(taken) >= 2 else None
        if name == "tail and follow":
            at_seconds = share * 0.4
        code, seconds = commands.run(arguments, base / "output", at_seconds)
        if at_seconds is None:
            taken.append(seconds)
        self.counts[f"exit code {code}"] += 1
        self.counts["rounds"] += 1
        errors = (base / "output.errors").read_text()
        # What `read` says of the stream may come before the word that it was interrupted.
        told = [line for line in errors.splitlines() if not re.fullmatch(r"events before \d+ were truncated", line)]
        assert len(told) <= 1, f"exit code {code}, and it printed {errors[:200]} … {errors[-400:]}"
        assert code in (GOOD, INTERRUPTED, KILLED), f"exit code {code}: {errors}"
        self._look(base)
        if name not in ("compact", "tail and follow"):
            self._again(commands, name, arguments, base, code)
        return None

    def _look(self, base: Path) -> None:
        """The store has what it had, and can be opened."""
        with Store(FileStore(base / "store")) as store:
            found = contents(store.handlers)
        assert found == self._shown, "the store does not hold what it held"
        assert operations.verify(base / "store").is_sound

    def _again(self, commands: Commands, name: str, arguments: list[str], base: Path, code: int) -> None:
        """Where it was interrupted, the same command can be given again."""
        if code == GOOD:
            return
        if name == "import":
            # As its help says: remove that store and begin again.
            shutil.rmtree(base / "made", ignore_errors=True)
        elif name in ("backup", "salvage") and (base / "made").exists():
            # Made whole, just before the interrupt.
            assert operations.verify(base / "made").is_sound
            return
        elif name == "export" and (base / "made.jsonl").exists():
            # Likewise.
            assert b'{"end":' in (base / "made.jsonl").read_bytes()
            return
        again, _ = commands.run(arguments, base / "again", None)
        errors = (base / "again.errors").read_text()
        assert again == GOOD, f"after exit code {code}, given again, exits with {again}: {errors[-600:]}"


def serve() -> list[str] | None:
    """Fork a child for each order. Returns the command in the child, and None at the end."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        # What is imported only when a command runs.
        cli.app(["verify", "--help"])
    for line in sys.stdin:
        *arguments, output = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for number, name in ((1, output), (2, f"{output}.errors")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600), number)
            # As the command's first line has it. What comes while Python itself begins is Python's to tell.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            return arguments
        print(pid, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def run_to_the_end(arguments: list[str]) -> None:
    """Run a command as its entry point does, and then what Python does at its end, but for taking its heap to pieces.

    That takes ten times as long as the command in a forked process, and no signal is handled there any more.
    """
    sys.argv = ["persist-effects", *arguments]
    code = 0
    try:
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="run what is ordered on standard input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, default=0, help="the first round")
    parser.add_argument("--times", type=int, default=50, help="how often that round")
    options = parser.parse_args()
    if options.serve:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        order = serve()
        if order is not None:
            run_to_the_end(order)
        return
    with tempfile.TemporaryDirectory(dir=PLACES[-1]) as place, Commands() as commands:
        sweep = CommandSweep(Path(place), options.seed)
        for _ in range(options.times):
            print(sweep.play(commands, options.round) or "well")


if __name__ == "__main__":
    main()
