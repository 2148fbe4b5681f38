"""What a loss of power may leave of a disk: the images that its unsynced changes may come to.

Pure: the files, the changes of their bytes and of their names since they were last synced, and all combinations of
these that a profile of file systems allows.
"""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise, product
from typing import NamedTuple

from persist_effects.errors import InvalidRequest

Image = dict[str, bytes]
"""Files by path. A directory is a path that ends with a slash."""

PROFILES = ("posix", "ordered", "writeback")
"""Which directory operations survive without a sync: any of them, or those up to a point; ``writeback``: as posix, and
a file may have grown while its new bytes are those of an earlier file."""

SECTOR_BYTES = 512


class Bound(NamedTuple):
    """How far states are enumerated: at most one write of a state is torn.

    That is next to its ends, where sectors end, and at multiples of ``tear_bytes`` (0: not at all). Where one file's
    unsynced changes, or the unsynced names, have more than ``subsets`` combinations, only prefixes are taken. A write
    that may be torn at more than ``tears`` places is torn at as many of them, evenly spread (None: at all).
    """

    tear_bytes: int = 64
    subsets: int = 256
    tears: int | None = None


DEFAULT_BOUND = Bound()


class DiskState(NamedTuple):
    """An image that may survive, its class of fault, and what of the unsynced did not survive."""

    image: Image
    kind: str
    names_lost: tuple[str, ...]
    contents_lost: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Names the image: eight hexadecimal digits."""
        hashed = hashlib.blake2b(digest_size=4)
        for path, content in sorted(self.image.items()):
            hashed.update(f"{path} {len(content)} ".encode() + content)
        return hashed.hexdigest()

    @property
    def losses(self) -> tuple[str, ...]:
        """What did not survive, in words."""
        return (*self.names_lost, *(f"{path}: {words}" for path, words in self.contents_lost if words))


class DiskChange(NamedTuple):
    """A change of a file's bytes by a request of this number; ``offset`` None: of its size alone."""

    number: int
    offset: int | None
    data: bytes
    size_bytes: int
    may_shrink: bool = False

    def apply(self, content: bytes) -> bytes:
        """The content after it."""
        if self.offset is not None:
            return overwritten(content, self.offset, self.data)
        if len(content) < self.size_bytes:
            return content + bytes(self.size_bytes - len(content))
        return content[: self.size_bytes] if self.may_shrink else content


class NameChange(NamedTuple):
    """Names that one directory operation gives and takes away, all or none."""

    number: int
    names: tuple[tuple[str, "DiskFile | None"], ...]


class DiskFile:
    """What readers see of a file, what is on the disk, and the changes between."""

    __slots__ = ("changes", "content", "doomed", "durable")

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.durable = content
        self.changes: list[DiskChange] = []
        self.doomed: bytes | None = None

    def copy(self) -> "DiskFile":
        """The same file, for another process."""
        copy = DiskFile(self.content)
        copy.durable, copy.changes, copy.doomed = self.durable, list(self.changes), self.doomed
        return copy

    def change(self, change: DiskChange) -> None:
        """Let readers see a change, which is not on the disk yet."""
        self.content = change.apply(self.content)
        self.changes.append(change)

    def settle(self) -> None:
        """Bring what is unsynced to the disk."""
        # Not all that readers see: what a failed sync has marked clean is not written by the next.
        self.durable = applied(self.durable, self.changes)
        self.changes = []

    def sizes_only(self) -> bytes:
        """What is on the disk where the file got its new size and none of its new bytes."""
        return applied(self.durable, [change._replace(offset=None) for change in self.changes])


class OnDisk:
    """Which files are on the disk under which names, the changes of names since, and the contents of removed files."""

    def __init__(self, names: Mapping[str, DiskFile]) -> None:
        self.names = dict(names)
        self.name_changes: list[NameChange] = []
        self.removed: list[bytes] = []

    def reachable(self, names: Mapping[str, DiskFile]) -> dict[str, DiskFile]:
        """The names of which all directories above are there."""
        return reachable(names)

    def sync_directory(self, directory: str) -> None:
        """Bring the names in a directory to the disk; it is given as what their paths begin with."""
        left = []
        for change in self.name_changes:
            # Of a rename to another directory, each of the two has its own side to keep.
            here = tuple(pair for pair in change.names if directory_of(pair[0]) == directory)
            apply_names(self.names, change._replace(names=here))
            if len(here) < len(change.names):
                elsewhere = tuple(pair for pair in change.names if directory_of(pair[0]) != directory)
                left.append(change._replace(names=elsewhere))
        self.name_changes = left

    def is_over(self, bound: Bound, read: Container[str] | None) -> bool:
        """Whether more of the names, and of these files, is unsynced now than the bound takes all combinations of.

        ``read`` is None for all files.
        """
        pending = [pair for change in self.name_changes for pair in change.names]
        places = [*self.names.items(), *pending]
        counts = [len(file.changes) for path, file in places if file is not None and (read is None or path in read)]
        return any(2**count > bound.subsets for count in [len(self.name_changes), *counts])

    def states(
        self, profile: str = "posix", bound: Bound = DEFAULT_BOUND, read: Container[str] | None = None
    ) -> Iterator[DiskState]:
        """The images that a loss of power may leave now; the first is that nothing was lost. Some may be equal.

        With ``read``, other files than these are varied in their sizes only, since nobody looks into them.
        """
        if profile not in PROFILES:
            raise InvalidRequest(f"the profile is {profile!r}: give one of {', '.join(PROFILES)}")
        whole = {id(file): _subsets(file, bound) for file in self._changed()}
        for names, name_losses in self._namings(profile, bound):
            # Where a rename survived and the one before it did not, a file has two names.
            here: dict[DiskFile, list[str]] = {}
            for path, file in names.items():
                if file.changes:
                    here.setdefault(file, []).append(path)
            choices = [_seen(whole[id(file)], paths, read) for file, paths in here.items()]
            places = list(here.values())
            yield from _combined(names, name_losses, choices, places)
            for index, (file, paths) in enumerate(here.items()):
                torn = _seen(_tears(file, profile, bound, self.removed), paths, read)
                yield from _combined(names, name_losses, [*choices[:index], torn, *choices[index + 1 :]], places)

    def _changed(self) -> list[DiskFile]:
        """The files with unsynced changes that may survive under some name."""
        pending = [file for change in self.name_changes for _, file in change.names if file is not None]
        files = {id(file): file for file in [*self.names.values(), *pending]}
        return [file for file in files.values() if file.changes]

    def _namings(self, profile: str, bound: Bound) -> Iterator[tuple[dict[str, DiskFile], tuple[str, ...]]]:
        changes = self.name_changes
        is_prefix = profile == "ordered" or 2 ** len(changes) > bound.subsets
        kept_sets: Iterable[tuple[bool, ...]] = (
            (tuple(index < count for index in range(len(changes))) for count in range(len(changes), -1, -1))
            if is_prefix
            else product((True, False), repeat=len(changes))
        )
        seen = set()
        for kept in kept_sets:
            names = dict(self.names)
            for change, is_kept in zip(changes, kept, strict=True):
                if is_kept:
                    apply_names(names, change)
            names = self.reachable(names)
            key = tuple(sorted((path, id(file)) for path, file in names.items()))
            if key not in seen:
                seen.add(key)
                yield (
                    names,
                    tuple(name_loss(change) for change, is_kept in zip(changes, kept, strict=True) if not is_kept),
                )


Choice = tuple[bytes, str, str]
"""A content that may survive, what of it did not in words, and the class of fault."""


def _seen(choices: list[Choice], paths: Sequence[str], read: Container[str] | None) -> list[Choice]:
    """The choices between which somebody could tell who knows the sizes of all files, and the bytes of those read."""
    if read is None or any(path in read for path in paths):
        return choices
    return list({len(choice[0]): choice for choice in reversed(choices)}.values())[::-1]


def _combined(
    names: Mapping[str, DiskFile], name_losses: tuple[str, ...], choices: list[list[Choice]], places: list[list[str]]
) -> Iterator[DiskState]:
    settled = {path: file.durable for path, file in names.items()}
    for combination in product(*choices):
        image = settled | {path: choice[0] for at, choice in zip(places, combination, strict=True) for path in at}
        kinds = {choice[2] for choice in combination}
        kind = next(kind for kind in ("torn", "stale bytes", "lost", "") if kind in kinds or not kind)
        lost = tuple((at[-1], choice[1]) for at, choice in zip(places, combination, strict=True))
        yield DiskState(image, kind or ("names lost" if name_losses else "nothing lost"), name_losses, lost)


def _subsets(file: DiskFile, bound: Bound) -> list[Choice]:
    """The contents that any of the unsynced changes leave, each of them whole; first all of them."""
    changes = file.changes
    everything = _all(changes)
    found = _landed(file.durable, changes, is_prefix=2 ** len(changes) > bound.subsets)
    landed = {file.content: everything} | {content: found[content] for content in found if content != file.content}
    return [
        (content, losses_among(changes, numbers), "" if numbers == everything else "lost")
        for content, numbers in landed.items()
    ]


def _landed(content: bytes, changes: Iterable[DiskChange], *, is_prefix: bool) -> dict[bytes, tuple[int, ...]]:
    """The contents that any of these changes, or any first ones, make of this one, and the numbers of which did."""
    found: dict[bytes, tuple[int, ...]] = {content: ()}
    newest = content
    for change in changes:
        before = [(newest, found[newest])] if is_prefix else list(found.items())
        for one, numbers in before:
            found.setdefault(change.apply(one), (*numbers, change.number))
        newest = change.apply(newest)
    return found


def _none_or_all(content: bytes, changes: Sequence[DiskChange]) -> dict[bytes, tuple[int, ...]]:
    return {content: (), applied(content, changes): _all(changes)}


def _tears(file: DiskFile, profile: str, bound: Bound, removed: list[bytes]) -> list[Choice]:
    """The contents in which one unsynced write is torn, beside any of the others; first those with all before it.

    Where these have more combinations than the bound has room for: all or none of those before it, and of the later.
    """
    changes = file.changes
    is_over = 2 ** len(changes) > bound.subsets
    some = _none_or_all if is_over else partial(_landed, is_prefix=False)
    found: dict[bytes, Choice] = {}
    for index, change in enumerate(changes):
        if change.offset is None:
            continue
        before = applied(file.durable, changes[:index])
        others = [*changes[:index], *changes[index + 1 :]]
        for base, earlier in reversed(some(file.durable, changes[:index]).items()):
            for piece, words in pieces_left(change, bound):
                torn = base
                for offset, data in piece:
                    torn = overwritten(torn, offset, data)
                for content, later in some(torn, changes[index + 1 :]).items():
                    if content not in found:
                        lost = losses_among(others, (*earlier, *later))
                        told = f"{told_change(change)} is torn: {words}{'; ' if lost else ''}{lost}"
                        found[content] = (content, told, "torn")
        if profile == "writeback" and change.size_bytes > len(before):
            content = before + stale_bytes(len(before), change.size_bytes, removed)
            words = f"{told_change(change)} is lost, but the size grew, over bytes of an earlier file"
            found.setdefault(content, (content, words, "stale bytes"))
    return list(found.values())


def pieces_left(change: DiskChange, bound: Bound) -> Iterator[tuple[list[tuple[int, bytes]], str]]:
    """What may be left of a write: its beginning, its end, or both without a hole between."""
    offset, data = change.offset or 0, change.data
    cuts = cuts_of(offset, len(data), bound.tear_bytes) if bound.tear_bytes else []
    if bound.tears is not None and len(cuts) > bound.tears:
        cuts = [cuts[index * (len(cuts) - 1) // max(1, bound.tears - 1)] for index in range(bound.tears)]
    for cut in cuts:
        yield [(offset, data[:cut])], f"its first {cut} of {len(data)} bytes are there"
        yield [(offset + cut, data[cut:])], f"its first {cut} of {len(data)} bytes are not"
    for low, high in pairwise(cuts):
        yield [(offset, data[:low]), (offset + high, data[high:])], f"its bytes {low} to {high} of {len(data)} are not"


def cuts_of(offset: int, size_bytes: int, tear_bytes: int) -> list[int]:
    """Where a write may be torn: next to its ends, where sectors end, and every so many bytes."""
    cuts = {1, size_bytes - 1}
    cuts.update(range(tear_bytes, size_bytes, tear_bytes))
    cuts.update(range(-offset % SECTOR_BYTES, size_bytes, SECTOR_BYTES))
    return sorted(cut for cut in cuts if 0 < cut < size_bytes)


def overwritten(content: bytes, offset: int, data: bytes) -> bytes:
    """A content with these bytes at an offset; what is between its end and there reads as zeros."""
    if len(content) < offset:
        content += bytes(offset - len(content))
    return content[:offset] + data + content[offset + len(data) :]


def applied(content: bytes, changes: Iterable[DiskChange]) -> bytes:
    """A content after these changes."""
    for change in changes:
        content = change.apply(content)
    return content


def stale_bytes(start: int, end: int, removed: list[bytes]) -> bytes:
    """The bytes that an earlier file had at this place."""
    old = next((content[start:end] for content in reversed(removed) if len(content) > start), b"")
    return old + b"\xa5" * (end - start - len(old))


def _all(changes: Iterable[DiskChange]) -> tuple[int, ...]:
    return tuple(change.number for change in changes)


def losses_among(changes: Iterable[DiskChange], landed: Iterable[int]) -> str:
    """Which of these changes did not survive, in words; nothing where all did."""
    there = set(landed)
    lost = [told_change(change) for change in changes if change.number not in there]
    return f"lost {', '.join(lost)}" if lost else ""


def told_change(change: DiskChange) -> str:
    """A change of a file's bytes, in words."""
    if change.offset is None:
        return f"the size of {change.size_bytes} bytes (request {change.number})"
    return f"the {len(change.data)} bytes at {change.offset} (request {change.number})"


def name_loss(change: NameChange) -> str:
    """That a change of names did not survive, in words."""
    told = [f"{'' if file is not None else 'no '}{path}" for path, file in change.names]
    return f"the directory lost request {change.number}: {', '.join(told)}"


def apply_names(names: dict[str, DiskFile], change: NameChange) -> None:
    """Give and take away the names that an operation does."""
    for path, file in change.names:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def reachable(names: Mapping[str, "DiskFile"]) -> dict[str, "DiskFile"]:
    """The names of which all directories above are there."""
    there = {""}
    # A directory comes before what is in it.
    for path in sorted(names):
        if directory_of(path) in there:
            there.add(path)
    return {path: file for path, file in names.items() if path in there}


def directory_of(path: str) -> str:
    """What the path of a file's directory is, with its slash; nothing for the root."""
    head, slash, _ = path.rstrip("/").rpartition("/")
    return head + slash
