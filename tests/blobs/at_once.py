"""Processes that do the same at once."""

import subprocess
import sys
from pathlib import Path


def run_at_once(script: str, path: Path) -> None:
    """Run a script in three processes, which begin together once each reads a line. It is given a path."""
    children = [
        subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.close()
    assert [child.wait(120) for child in children] == [0, 0, 0]
