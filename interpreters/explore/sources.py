"""Where in the user's own code a program stands: the file and the line that a report names."""

import os
from pathlib import Path
from types import GeneratorType
from typing import Any

import persist_effects

_OURS = tuple(f"{root}{os.sep}" for root in (Path(__file__).parents[1], Path(persist_effects.__path__[0])))


def source_of(program: Any) -> str:
    """The file and line of the innermost ``yield from`` of the user's, at which a program that waits stands.

    Args:
        program: A generator that is suspended. What it has begun within `all_of` is not looked into.

    Returns:
        Such as ``tests/test_orders.py:12``, relative to where Python was started if it lies there; nothing where no
        frame is the user's.

    >>> from persist_effects import kv
    >>> program = kv.put("color", "red")
    >>> request = next(program)
    >>> source_of(program)
    ''
    >>> program.close()
    """
    found = ""
    while isinstance(program, GeneratorType):
        frame = program.gi_frame
        if frame is not None and not frame.f_code.co_filename.startswith(_OURS):
            found = f"{_told_path(frame.f_code.co_filename)}:{frame.f_lineno}"
        program = program.gi_yieldfrom
    return found


def _told_path(path: str) -> str:
    here = f"{os.getcwd()}{os.sep}"
    return path.removeprefix(here) if path.startswith(here) else os.sep.join(("…", *Path(path).parts[-2:]))
