"""Traces in files: saved, loaded, and golden ones, which a test compares with.

A file whose name ends in ``.jsonl`` holds JSON Lines, to read and to keep in version control; any other the compact
bytes. A file is written whole or not at all.
"""

import errno
from collections.abc import Collection
from pathlib import Path
from typing import Any

from interpreters.disk.files import ORDINARY, write_whole
from persist_effects.errors import InvalidRequest
from persist_effects.requests import Request
from persist_effects.trace import Trace, as_text, diff
from persist_effects.trace.masking import Mask, with_marks
from persist_effects.trace.replay import check_trace


def save(trace: Trace, path: str | Path) -> None:
    """Write a trace to a file, in the place of what was there. Directories that are missing are made.

    Args:
        trace: The trace.
        path: The file's path.

    >>> import tempfile
    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> from persist_effects.trace import record
    >>> _, trace = record(kv.has("color"), {KvHas: lambda request: True})
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save(trace, Path(directory, "color.jsonl"))
    ...     load(Path(directory, "color.jsonl")) == trace
    True
    """
    path = Path(path)
    check_trace(trace)
    data = trace.to_json_lines().encode() if _has_lines(path) else trace.encode()
    _refuse_directory(path)
    write_whole(path, data, ORDINARY)


def load(
    path: str | Path, kinds: Collection[type[Request[Any]]] = (), errors: Collection[type[Exception]] = ()
) -> Trace:
    """Read a trace from a file. The example stands at `save`.

    What is wrong inside is told when it is read, with the name of the file.

    Args:
        path: The file's path.
        kinds: The types of your own requests in it.
        errors: The classes of errors that are to come back as what they were. Those of Python and of this package need
            not be named.

    Returns:
        The trace.

    Raises:
        InvalidRequest: If the file holds no trace, is damaged or cut. It names the file.
        OSError: If it cannot be read.
    """
    path = Path(path)
    _refuse_directory(path)
    data = path.read_bytes()
    try:
        named = kinds, errors
        trace = Trace.from_json_lines(data.decode(), *named) if _has_lines(path) else Trace.decode(data, *named)
    except (InvalidRequest, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: {error}") from error
    trace.source = str(path)
    return trace


def check_golden(
    trace: Trace,
    path: str | Path,
    update: bool = False,
    how: str = "check_golden(trace, path, update=True)",
    mask: Mask = (),
) -> None:
    """Compare a trace with the golden one in a file, or write the file anew.

    Args:
        trace: The trace.
        path: The file's path.
        update: Whether to write the file anew.
        how: How to do that, for the message.
        mask: What is left out, because it is another value in each run, or is not to stand in a file: names such as
            ``["at", "data.token"]``, each the end of a path, or a function of a path and a value. It is written as a
            mark, and is equal whatever it is. See `persist_effects.trace.masked`.

    Raises:
        AssertionError: If they differ, with the requests and answers that do; if there is no file; if something in
            the mask matches nothing in the trace; if the file holds what the mask names.
        InvalidRequest: If the trace is not one, or the mask.

    >>> import tempfile
    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> from persist_effects.trace import record
    >>> one, other = [record(kv.has("color"), {KvHas: lambda request: has})[1] for has in (True, False)]
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     check_golden(one, Path(directory, "masked.jsonl"), update=True, mask=["answer"])
    ...     check_golden(other, Path(directory, "masked.jsonl"), mask=["answer"])
    ...     check_golden(one, Path(directory, "color.jsonl"), update=True)
    ...     check_golden(other, Path(directory, "color.jsonl"))
    Traceback (most recent call last):
    AssertionError: the trace differs from the golden one in .../color.jsonl (-: golden, +: now)
    request 0:
      - KvHas(key='color') → True
      + KvHas(key='color') → False
    if that is meant, write it anew: check_golden(trace, path, update=True)
    """
    check_trace(trace)
    path = Path(path)
    kept, unmatched = with_marks(trace, mask)
    if unmatched:
        raise AssertionError(f"{unmatched}. Take it out of the mask of {path}, or write it as it stands in the trace")
    if update:
        save(kept, path)
        return
    how = f"write it anew: {how}"
    if not path.exists():
        raise AssertionError(f"there is no golden trace in {path}: {how}")
    try:
        golden = load(path, tuple(trace.kinds.values()), tuple(trace.errors.values()))
        differences = diff(golden, kept)
        is_clear = with_marks(golden, mask)[0] != golden
    except InvalidRequest as error:
        raise AssertionError(f"{error}\nif it cannot be mended, {how}") from error
    if is_clear:
        raise AssertionError(f"the golden trace in {path} holds in the clear what the mask names: {how}")
    if differences:
        raise AssertionError(
            f"the trace differs from the golden one in {path} (-: golden, +: now)\n{as_text(differences)}\n"
            f"if that is meant, {how}"
        )


def _refuse_directory(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a directory stands where the file of a trace should be", str(path))


def _has_lines(path: Path) -> bool:
    return path.suffix == ".jsonl"
