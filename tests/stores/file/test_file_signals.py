"""Ctrl-C for real, at whatever moment, of everything that a file store does: the facts hold whatever moment it was.

The moments are drawn, but a signal comes when the machine has it come. So a failure may not show again at once: what
it prints plays its store again and again.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from interrupt_alarm import PLACES
from interrupt_commands import Commands, CommandSweep

pytestmark = pytest.mark.exploration

INTERRUPTS = int(os.environ.get("INTERRUPT_ROUNDS", "120"))
SEED = int(os.environ.get("INTERRUPT_SEED", "0"))
SHOWN = 20
"""How many failures are shown in full."""


def test_wherever_an_interrupt_comes_nothing_is_lost_and_no_lock_is_left(capsys):
    command = [sys.executable, str(Path(__file__).with_name("interrupt_sweep.py"))]
    command += ["--seed", str(SEED), "--interrupts", str(INTERRUPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    failures = [line for line in lines if "failure" in line]
    assert not failures, "\n\n".join([f"{len(failures)} stores failed", *map(told, failures[:SHOWN]), done.stderr])
    assert done.returncode == 0, done.stderr
    counts = lines[-1]
    with capsys.disabled():
        print(
            f"\ninterrupted {sum(counts['raised'].values())} times in {sum(counts['rounds'].values())} rounds of "
            f"{len(counts['rounds'])} operations: {counts['counts']}"
        )


def told(line: dict[str, Any]) -> str:
    """A failure, and what to paste."""
    return "\n  ".join(
        [
            f"store {line['store']}, turn {line['turn']}: {line['operation']}: {line['failure']}",
            *(f"interrupted at {place}" for place in line["places"]),
            f"options {line['options']}",
            f"{sys.executable} tests/stores/file/interrupt_sweep.py --seed {SEED} --store {line['store']} --times 50",
        ]
    )


def test_an_interrupted_command_prints_no_traceback_and_leaves_the_store_as_it_was(capsys):
    failures: list[str] = []
    with tempfile.TemporaryDirectory(dir=PLACES[-1]) as place, Commands() as commands:
        sweep = CommandSweep(Path(place), SEED)
        for number in range(INTERRUPTS // 4):
            failure = sweep.play(commands, number)
            if failure is not None:
                script = "tests/stores/file/interrupt_commands.py"
                again = f"{sys.executable} {script} --seed {SEED} --round {number} --times 50"
                failures.append(f"round {number}: {failure}\n  {again}")
    assert not failures, "\n\n".join([f"{len(failures)} rounds failed", *failures[:SHOWN]])
    with capsys.disabled():
        print(f"\ninterrupted commands: {dict(sweep.counts)}")
