"""What reaches the recorded directory past the recording, as Python itself tells: by its audit events.

A hook once added stays as long as the process does. It does nothing while nobody records.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from interpreters.explore.files.recording import Recorder

_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NAMING = {
    "os.link": (0, 1), "os.mkdir": (0,), "os.remove": (0,), "os.rename": (0, 1), "os.rmdir": (0,),
    "os.symlink": (1,), "os.truncate": (0,),
}  # fmt: skip
"""The events of calls that name entries, and which of their arguments are paths."""

_STARTING = {"subprocess.Popen": (1, 2), "os.exec": (1,), "os.posix_spawn": (1,), "os.spawn": (2,), "os.system": (0,)}
"""The events of programs that are started, and which of their arguments may name the directory."""

_READ_ONLY_MAPS = (1, 3)  # mmap.ACCESS_READ and mmap.ACCESS_COPY, without importing it

_watching: list[Recorder] = []


@cache
def _add_hook() -> None:
    sys.addaudithook(_hear)


@contextmanager
def watched(recorder: Recorder) -> Iterator[None]:
    """What changes the recorder's directory in here, and is not recorded, is noted in `Recorder.past`."""
    _add_hook()
    _watching.append(recorder)
    try:
        yield
    finally:
        _watching.remove(recorder)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    for recorder in _watching:
        if not recorder.is_inside and not recorder.is_over:
            with recorder.inside():
                told = _told_past(recorder, event, arguments)
                if told:
                    recorder.note_past(told)


def _told_past(recorder: Recorder, event: str, arguments: tuple[Any, ...]) -> str:
    """What is done past the recording, in words; nothing where it does not concern the directory."""
    if event == "open":
        path, _, flags = arguments
        is_change = isinstance(flags, int) and flags & _CHANGING and not isinstance(path, int)
        return f"{path!s:.60} is opened for writing past `open`" if is_change and _is_here(recorder, path) else ""
    if event in _NAMING:
        paths = [arguments[index] for index in _NAMING[event]]
        here = [path for path in paths if _is_here(recorder, path)]
        return f"a call of {event} that was kept from before, of {here[0]!s:.60}" if here else ""
    if event == "sqlite3.connect":
        return f"sqlite3.connect({arguments[0]!s:.60})" if _is_here(recorder, arguments[0]) else ""
    if event == "mmap.__new__":
        node = recorder.node_of(arguments[0])
        is_change = node is not None and arguments[2] not in _READ_ONLY_MAPS
        return f"mmap of {recorder.told_node(node)}" if is_change and node is not None else ""
    if event in _STARTING:
        named = [str(arguments[index]) for index in _STARTING[event] if index < len(arguments)]
        return f"a process that is started ({event})" if any(recorder.root in one for one in named) else ""
    return ""


def _is_here(recorder: Recorder, path: Any) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and recorder.place_of(path, follow=True) is not None
