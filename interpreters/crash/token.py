"""The token that names one state of an exploration: which faults were put where, and where the power failed."""

import re
from typing import NamedTuple

from interpreters.crash_disk import FAULTS, Fault
from persist_effects.errors import InvalidRequest


class Place(NamedTuple):
    """A crash: before which request of the disk's, and which of the states that it may leave."""

    request: int
    state: int


class Token(NamedTuple):
    """Names a state. As text, a token can be pasted.

    >>> token = Token(((7, Fault("EIO")),), (Place(13, 4), Place(2, 0)))
    >>> str(token)
    'EIO@7;13.4/2.0'
    >>> parsed(str(token)) == token
    True
    """

    faults: tuple[tuple[int, Fault], ...]
    places: tuple[Place, ...]

    def __str__(self) -> str:
        faults = "".join(f"{fault.kind}@{number}{'!' if fault.is_for_good else ''};" for number, fault in self.faults)
        return faults + "/".join(f"{place.request}.{place.state}" for place in self.places)


def parsed(text: str) -> Token:
    """The token that a text is. Raises `InvalidRequest` for what is none."""
    *faults, places = text.split(";") if isinstance(text, str) else [""]
    if not re.fullmatch(r"\d+\.\d+(/\d+\.\d+)*", places):
        raise _refusal(text)
    found = []
    for fault in faults:
        match = re.fullmatch(r"(.+)@(\d+)(!?)", fault)
        if match is None or match[1] not in FAULTS:
            raise _refusal(text)
        found.append((int(match[2]), Fault(match[1], bool(match[3]))))
    pairs = [place.split(".") for place in places.split("/")]
    return Token(tuple(found), tuple(Place(int(request), int(state)) for request, state in pairs))


def _refusal(text: object) -> InvalidRequest:
    return InvalidRequest(
        f"{text!r:.80} is no token of an exploration: give the one that a failure names, such as '13.4/2.0'"
    )
