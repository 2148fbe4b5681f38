"""The token that names one state of an exploration: which faults were put where, and where the power failed."""

import re
from typing import NamedTuple

from interpreters.disk.crashing import FAULTS, DiskFault
from persist_effects.errors import InvalidRequest

RESTART = "r"
"""In the place of a state: the process starts again, and the power stays on until then."""


_RECOVERY = "recovery "
_PROGRAMS = "programs "
# More digits than any request or program has, and fewer than Python refuses to read.
_NUMBER = "[0-9]{1,15}"


class CrashPlace(NamedTuple):
    """A crash: before which request of the disk's, and which of the states that it may leave, by its digest."""

    request: int
    state: str


class CrashToken(NamedTuple):
    """Names a state. As text, a token can be pasted.

    ``recovery`` is a fault at a request of the recovery after it, ``programs`` says which ones run, if not all.

    >>> token = CrashToken(((7, DiskFault("EIO")),), (CrashPlace(13, "0a1b2c3d"), CrashPlace(2, "00ff00ff")))
    >>> str(token)
    'EIO@7;13.0a1b2c3d/2.00ff00ff'
    >>> parsed(str(token)) == token
    True
    """

    faults: tuple[tuple[int, DiskFault], ...]
    places: tuple[CrashPlace, ...]
    recovery: tuple[int, DiskFault] | None = None
    programs: tuple[int, ...] | None = None

    def __str__(self) -> str:
        faults = "".join(_told(*fault) for fault in self.faults)
        recovery = f"{_RECOVERY}{_told(*self.recovery)}" if self.recovery else ""
        programs = "" if self.programs is None else f"{_PROGRAMS}{','.join(map(str, self.programs))};"
        return programs + faults + recovery + "/".join(f"{place.request}.{place.state}" for place in self.places)


def parsed(text: str) -> CrashToken:
    """The token that a text is. Raises `InvalidRequest` for what is none."""
    *faults, places = text.split(";") if isinstance(text, str) else [""]
    if not re.fullmatch(rf"{_NUMBER}\.([0-9a-f]{{8}}|r)(/{_NUMBER}\.[0-9a-f]{{8}})*", places):
        raise _refusal(text)
    found = []
    recovery = programs = None
    for fault in faults:
        if match := re.fullmatch(rf"{_PROGRAMS}({_NUMBER}(,{_NUMBER})*)", fault):
            programs = tuple(map(int, match[1].split(",")))
            continue
        match = re.fullmatch(rf"({_RECOVERY})?(.+)@({_NUMBER})(!?)", fault)
        if match is None or match[2] not in FAULTS:
            raise _refusal(text)
        placed = (int(match[3]), DiskFault(match[2], bool(match[4])))
        if match[1]:
            recovery = placed
        else:
            found.append(placed)
    pairs = [place.split(".") for place in places.split("/")]
    where = tuple(CrashPlace(int(at), state) for at, state in pairs)
    return CrashToken(tuple(found), where, recovery, programs)


def _told(number: int, fault: DiskFault) -> str:
    return f"{fault.kind}@{number}{'!' if fault.is_for_good else ''};"


def _refusal(text: object) -> InvalidRequest:
    return InvalidRequest(
        f"{text!r:.80} is not a token of an exploration: give the one that a failure names, such as '13.0a1b2c3d'"
    )
