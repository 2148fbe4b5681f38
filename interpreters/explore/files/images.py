"""The images that a loss of power may leave of a recorded run, each as a real directory that is looked into."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from interpreters.disk.keeping import survivor_of
from interpreters.disk.survivors import Bound, DiskState, Image
from interpreters.explore.files.recording import RecordedCall
from interpreters.explore.files.tree import LINK_MARK, FileTree, TreeChange, settled_tree

BOUND = Bound(tears=16)
"""How far images are enumerated: a write is torn at up to so many places, since a user's files may be long."""


class FilesMoment(NamedTuple):
    """A moment at which the power may fail: before this call, of the calls from 1 on, and what was told until then."""

    call: int
    tree: FileTree
    told: tuple[Any, ...]


def moments(
    before: Image, calls: Sequence[RecordedCall], barrier: tuple[int, TreeChange] | None = None
) -> Iterator[FilesMoment]:
    """The moments before each call, and at the end; each is to be looked at before the next one is asked for.

    Args:
        before: What was there before the first call.
        calls: What was recorded.
        barrier: A sync that is made unasked behind the call of this number, beside a moment before it.
    """
    tree = settled_tree(before)
    told: tuple[Any, ...] = ()
    for number, call in enumerate(calls, 1):
        yield FilesMoment(number, tree, told)
        tree.count = number
        for change in call.changes:
            change(tree)
        told += call.told
        if barrier is not None and barrier[0] == number:
            yield FilesMoment(number + 1, tree, told)
            barrier[1](tree)
    yield FilesMoment(len(calls) + 1, tree, told)


def states_of(tree: FileTree, profile: str, limit: int) -> tuple[Iterable[DiskState], bool]:
    """The images that one profile may leave, and whether they are all of them: of more than ``limit``, a draw."""
    states = list(islice(tree.on_disk.states(profile, BOUND), limit + 1))
    if len(states) <= limit:
        return states, not tree.on_disk.is_over(BOUND, None)
    return islice(_drawn(tree, profile), limit), False


def _drawn(tree: FileTree, profile: str) -> Iterator[DiskState]:
    """Images that differ much: everything is there; all but what one file was given; nothing; then any of these."""
    everything = survivor_of(tree.on_disk, "everything", profile, BOUND)
    yield everything
    for path, file in tree.files().items():
        if file.durable != file.content:
            yield DiskState(everything.image | {path: file.durable}, "lost", (), ((path, "lost all that is unsynced"),))
    for keep in ("nothing", *range(1_000_000)):
        yield survivor_of(tree.on_disk, keep, profile, BOUND)


def put(root: str, image: Image) -> None:
    """Make a directory of an image, in the place of what is there."""
    if os.path.isdir(root):
        shutil.rmtree(root)
    os.mkdir(root)
    for path in sorted(image):
        whole = os.path.join(root, path.rstrip("/" + LINK_MARK))
        if path.endswith("/"):
            os.mkdir(whole)
        elif path.endswith(LINK_MARK):
            os.symlink(image[path], os.fsencode(whole))
        else:
            Path(whole).write_bytes(image[path])
