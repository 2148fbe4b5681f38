"""Of which types the events in the frames of a segment are, so that a page of some types passes over all other frames.

Frames that hold events of the same types are of one kind. A frame costs a byte, and none as long as all are of one.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

MIXED = 255
"""What stands for all further kinds once there are so many: their frames are looked at, whatever is wanted."""

Kind = tuple[str, ...]
"""The types of the events in a frame, each once, in order."""


def kind_of(types: Iterable[str]) -> Kind:
    """The kind of a frame with events of these types.

    >>> kind_of(["paid", "placed", "paid"])
    ('paid', 'placed')
    """
    return tuple(sorted(set(types)))


class FrameKinds:
    """The kinds of a segment's frames, which are numbered from 0 on.

    Args:
        kinds: All there are.
        of_frames: Of each frame, which of them; None where all are of the first.
        count: How many frames there are.

    Raises ValueError where these do not fit each other.

    >>> kinds = FrameKinds()
    >>> for types in ("placed", "paid", "placed", "sent", "paid"):
    ...     kinds.add((types,))
    >>> kinds.holding({"paid", "sent"}, range(5), 2), kinds.holding({"paid", "sent"}, range(5), 2, backwards=True)
    ([1, 3], [3, 4])
    """

    __slots__ = ("_count", "_kinds", "_numbers", "_of_frames")

    def __init__(self, kinds: Iterable[Kind] = (), of_frames: bytes | None = None, count: int = 0) -> None:
        self._kinds = list(kinds)
        self._numbers = {kind: number for number, kind in enumerate(self._kinds)}
        self._of_frames = None if of_frames is None else bytearray(of_frames)
        self._count = count
        if count or of_frames is not None:
            self._check(bytes(1) if of_frames is None else of_frames)

    def _check(self, of_frames: bytes) -> None:
        known = bytes(range(len(self._kinds))) + bytes((MIXED,)) if len(self._kinds) <= MIXED else b""
        is_short = self._of_frames is not None and len(of_frames) != self._count
        if is_short or of_frames.translate(None, known):
            raise ValueError(f"{len(self._kinds)} kinds of {len(of_frames)} frames, of which there are {self._count}")

    def add(self, kind: Kind) -> None:
        """Note the next frame."""
        # Runs for every commit.
        number = self._numbers.get(kind)
        if number is None:
            number = self._number_of_new(kind)
        if number or self._of_frames is not None:
            if self._of_frames is None:
                self._of_frames = bytearray(self._count)
            self._of_frames.append(number)
        self._count += 1

    def _number_of_new(self, kind: Kind) -> int:
        number = len(self._kinds)
        if number == MIXED:
            return MIXED
        self._kinds.append(kind)
        self._numbers[kind] = number
        return number

    def may_hold(self, types: AbstractSet[str], frame: int) -> bool:
        """Whether a frame may hold an event of one of these types."""
        number = 0 if self._of_frames is None else self._of_frames[frame]
        return number == MIXED or not types.isdisjoint(self._kinds[number])

    def holding(self, types: AbstractSet[str], frames: range, limit: int, *, backwards: bool = False) -> list[int]:
        """The first so many of these frames that may hold an event of one of these types; backwards, the last."""
        wanted = [number for number, kind in enumerate(self._kinds) if not types.isdisjoint(kind)]
        if self._of_frames is None:
            some = frames[-limit:] if backwards else frames[:limit]
            return list(some) if wanted else []
        found: list[int] = []
        for number in (*wanted, MIXED):
            found += self._of_number(number, frames, limit, backwards=backwards)
        found.sort()
        return found[-limit:] if backwards else found[:limit]

    def _of_number(self, number: int, frames: range, limit: int, *, backwards: bool) -> Iterator[int]:
        """The first so many of these frames that have a kind of this number; backwards, the last."""
        of_frames = self._of_frames or b""
        # Each look is as quick as memory is read: no frame in between costs anything by itself.
        start, stop = frames.start, frames.stop
        for _ in range(limit):
            at = of_frames.rfind(number, start, stop) if backwards else of_frames.find(number, start, stop)
            if at < 0:
                return
            yield at
            start, stop = (start, at) if backwards else (at + 1, stop)

    # As index files have them

    def all(self) -> Sequence[Kind]:
        """All kinds, in the order of their numbers."""
        return self._kinds

    def of_frames(self) -> bytes | None:
        """Of each frame, the number of its kind; None where all are of the first."""
        return None if self._of_frames is None else bytes(self._of_frames)
