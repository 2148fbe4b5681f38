"""Commands: run in this process, or at a terminal where somebody answers, on stores of the kinds that they are for."""

import os
import pty
import subprocess
import sys
from contextlib import contextmanager

from places import ROOT
from server_processes import ServerProcess
from typer.testing import CliRunner

from interpreters import open_store
from interpreters.cli import app

KINDS = ["file", "sqlite", "served"]


def invoke(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


@contextmanager
def store_of(kind, directory, fill):
    """The URL of a filled store, which any number of processes may open at once where it is not a file."""
    own = f"{'file' if kind == 'file' else 'sqlite'}:{directory / 'store'}"
    with open_store(own) as store:
        fill(store)
    if kind != "served":
        yield own
        return
    served = ServerProcess(own, f"unix:{directory / 'sock'}")
    yield served.url
    served.close()


def answered(answer, *arguments):
    """Run a command at a terminal, where somebody answers what it asks. Gives its exit code, and what it prints."""
    master, slave = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "interpreters.cli", *arguments],
            cwd=ROOT,
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(master, answer)
        printed, errors = child.communicate(timeout=60)
        return child.returncode, printed, errors
    finally:
        os.close(master)
        os.close(slave)
