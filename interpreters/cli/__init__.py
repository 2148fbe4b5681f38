"""`persist-effects`: what operators do with a store, from the command line. Needs the extra ``cli``, all but `explain`.

What looks inside of a store takes any URL that `open_store` does; what looks after its files takes ``file:PATH``.
Answers go to stdout, progress and errors to stderr. What a script can trust are the exit codes, the same for all
commands; see `EXIT_CODES`.
"""

import importlib
import sys

from interpreters.error_pages import plain

try:
    for needed in ("rich", "typer"):
        importlib.import_module(needed)
except ModuleNotFoundError as missing:
    if sys.argv[1:2] == ["explain"]:  # what an error message names works without the extra
        raise SystemExit(plain.main(sys.argv[2:])) from None
    sys.stderr.write(f"persist-effects needs the package {missing.name}: pip install 'persist-effects[cli]'\n")
    raise SystemExit(2) from None

from interpreters.cli.commands import app, main

__all__ = ["app", "main"]
