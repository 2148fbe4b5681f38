"""One image that a loss of power leaves, for who pulls the plug once: of the unsynced nothing, everything, or a draw.

Where all images are looked at, `OnDisk.states` has them. A draw is one of these, and is not kept to their bound: any of
the unsynced changes may have survived, however many there are, and one write may be torn.
"""

from collections.abc import Sequence
from random import Random

from interpreters.disk.survivors import (
    DEFAULT_BOUND,
    PROFILES,
    Bound,
    DiskChange,
    DiskFile,
    DiskState,
    OnDisk,
    applied,
    apply_names,
    losses_among,
    name_loss,
    overwritten,
    pieces_left,
    stale_bytes,
    told_change,
)
from persist_effects.errors import InvalidRequest, describe

Keep = str | int
"""What of the unsynced survives: ``"nothing"``, ``"everything"``, or what is drawn by a number."""


def check_keep(keep: object) -> None:
    """Refuse what does not say what survives.

    Args:
        keep: What was given for it.

    Raises:
        InvalidRequest: It is none of those.
    """
    if keep not in ("nothing", "everything") and (type(keep) is not int or keep < 0):
        raise InvalidRequest(
            f"keep is {describe(keep)}: give 'nothing' or 'everything', or a number from 0 on, by which is drawn what "
            "of the unsynced survives"
        )


def survivor_of(on_disk: OnDisk, keep: Keep, profile: str = "posix", bound: Bound = DEFAULT_BOUND) -> DiskState:
    """The image that is left where this much of the unsynced survives.

    Args:
        on_disk: The disk.
        keep: See `Keep`. By one number the same is drawn each time.
        profile: Which file systems a draw may be of: one of `PROFILES`.
        bound: Where a write may be torn.

    Returns:
        The image, and what of the unsynced did not survive.

    Raises:
        InvalidRequest: If ``keep`` or ``profile`` is none.

    >>> from interpreters.disk import requests as disk
    >>> from interpreters.disk.crashing import CrashDisk
    >>> crash_disk = CrashDisk({"a": b"old"})
    >>> crash_disk.answer(disk.Write("a", 0, b"new, and long"))
    >>> [crash_disk.survivor(keep).image["a"] for keep in ("nothing", "everything", 2)]
    [b'old', b'new, and long', b'nld']
    """
    check_keep(keep)
    if profile not in PROFILES:
        raise InvalidRequest(f"the profile is {profile!r}: give one of {', '.join(PROFILES)}")
    draw = _Draw(keep, profile, bound)
    changes = on_disk.name_changes
    kept = draw.which(len(changes), in_order=profile == "ordered")
    names = dict(on_disk.names)
    for change, is_kept in zip(changes, kept, strict=True):
        if is_kept:
            apply_names(names, change)
    names = on_disk.reachable(names)
    # Where a rename survived and the one before it did not, a file has two names.
    files = {id(file): file for file in names.values() if file.changes}
    torn = draw.torn_file(list(files.values()))
    found = {at: draw.content(file, on_disk.removed, is_torn=file is torn) for at, file in files.items()}
    image = {path: found[id(file)][0] if id(file) in found else file.durable for path, file in names.items()}
    names_lost = tuple(name_loss(change) for change, is_kept in zip(changes, kept, strict=True) if not is_kept)
    lost = tuple((path, found[id(file)][1]) for path, file in names.items() if id(file) in found)
    return DiskState(image, "torn" if torn else "lost", names_lost, lost)


class _Draw:
    """What one draw comes to. By ``"nothing"`` and ``"everything"`` nothing is drawn."""

    def __init__(self, keep: Keep, profile: str, bound: Bound) -> None:
        self._keep = keep
        self._bound = bound
        self._may_be_stale = profile == "writeback"
        # By its bits alone, which are the same on every Python.
        self._bits = Random(f"keep {keep}").getrandbits  # noqa: S311 - a draw that can be repeated, no secret

    def which(self, count: int, *, in_order: bool) -> list[bool]:
        """Which of so many changes survive: those up to a point, as often as not, or any."""
        if isinstance(self._keep, str):
            return [self._keep == "everything"] * count
        if self._bits(1) or in_order:
            point = self._below(count + 1)
            return [index < point for index in range(count)]
        return [bool(self._bits(1)) for _ in range(count)]

    def torn_file(self, files: Sequence[DiskFile]) -> DiskFile | None:
        """The one file of which a write is torn, or None."""
        writes = [file for file in files if any(len(change.data) > 1 for change in file.changes)]
        if isinstance(self._keep, str) or not writes or self._bits(1):
            return None
        return writes[self._below(len(writes))]

    def content(self, file: DiskFile, removed: list[bytes], *, is_torn: bool) -> tuple[bytes, str]:
        """What is left of a file, and what is not, in words."""
        kept = self.which(len(file.changes), in_order=False)
        if not is_torn:
            landed = [change for change, is_kept in zip(file.changes, kept, strict=True) if is_kept]
            return applied(file.durable, landed), losses_among(file.changes, [change.number for change in landed])
        places = [index for index, change in enumerate(file.changes) if len(change.data) > 1]
        place = places[self._below(len(places))]
        change = file.changes[place]
        before = applied(file.durable, file.changes[:place])
        if self._may_be_stale and change.size_bytes > len(before) and self._bits(1):
            words = f"{told_change(change)} is lost, but the size grew, over bytes of an earlier file"
            return before + stale_bytes(len(before), change.size_bytes, removed), words
        return self._torn(file, place, kept)

    def _torn(self, file: DiskFile, place: int, kept: Sequence[bool]) -> tuple[bytes, str]:
        change = file.changes[place]
        pieces = list(pieces_left(change, self._bound))
        # Most that matters is in the first bytes, before the zeros that are written ahead: so near the beginning as
        # often as anywhere.
        piece, words = pieces[self._below(min(len(pieces), 1 << self._below(len(pieces).bit_length() + 1)))]
        content = file.durable
        landed: list[DiskChange] = []
        for index, (other, is_kept) in enumerate(zip(file.changes, kept, strict=True)):
            if index == place:
                for offset, data in piece:
                    content = overwritten(content, offset, data)
            elif is_kept:
                content = other.apply(content)
                landed.append(other)
        others = [*file.changes[:place], *file.changes[place + 1 :]]
        lost = losses_among(others, [one.number for one in landed])
        return content, f"{told_change(change)} is torn: {words}{'; ' if lost else ''}{lost}"

    def _below(self, count: int) -> int:
        return self._bits(32) % count
