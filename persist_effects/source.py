"""Where a suspended program stands in its source, for messages."""

from types import FrameType, GeneratorType
from typing import Any

_PACKAGE = __name__.partition(".")[0] + "."


def source_of(program: Any) -> str:
    """The lines at which a suspended program waits: the innermost of the user's own, then those of this package.

    >>> from persist_effects import kv
    >>> program = kv.update("visits", lambda visits: visits + 1, 0)
    >>> _ = next(program)
    >>> source_of(program)
    'persist_effects/kv.py:... in update'
    """
    frames = _suspended_frames(program)
    own = [index for index, frame in enumerate(frames) if not _module(frame).startswith(_PACKAGE)]
    shown = frames[own[-1] if own else 0 :]
    return " > ".join(f"{_file(frame)}:{frame.f_lineno} in {frame.f_code.co_name}" for frame in shown) or "none"


def _suspended_frames(program: Any) -> list[FrameType]:
    """The frames of a program and of those that it has called, the outermost first, without that of `perform`."""
    frames: list[FrameType] = []
    while isinstance(program, GeneratorType) and program.gi_frame is not None:
        if not _is_perform(program.gi_frame):
            frames.append(program.gi_frame)
        program = program.gi_yieldfrom
    return frames


def _is_perform(frame: FrameType) -> bool:
    return frame.f_code.co_name == "perform" and _module(frame) == "persist_effects.machine"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _file(frame: FrameType) -> str:
    # As many of the last parts of the path as the module's name has, so that it is relative to where that is found.
    parts = frame.f_code.co_filename.replace("\\", "/").split("/")
    count = _module(frame).count(".") + 1 + (parts[-1] == "__init__.py")
    return "/".join(parts[-count:])
