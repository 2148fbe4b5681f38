"""Shipping and restoring on real disks: once, or look after look until told to stop."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext

import msgspec

from interpreters.clocks import Clock, wall_clock
from interpreters.disk.files import refuse_home
from interpreters.disk.real import RealDisk
from interpreters.stores.file.upkeep.operations import StrPath, errors_of, making, reading
from interpreters.stores.file.upkeep.shipping.lag import ShippingLag
from interpreters.stores.file.upkeep.shipping.layout import TargetContents
from interpreters.stores.file.upkeep.shipping.restoring import Cut, Restored, restore_store
from interpreters.stores.file.upkeep.shipping.shipper import Shipped, Shipper
from interpreters.stores.file.upkeep.shipping.targets import BackupTarget, DirectoryTarget, TargetTrouble, objects_on
from interpreters.stores.file.upkeep.survey import BytesProgress
from persist_effects.errors import InvalidRequest, StoreUnavailable
from persist_effects.machine import run

TRIES = 5
"""How often a look that is to be the only one is tried."""

LONGEST_WAIT_SECONDS = 60.0


class FailedLook(msgspec.Struct, frozen=True):
    """A look that a target ended: why, how often that has happened in a row, and when the next one is."""

    reason: str
    tries: int
    wait_seconds: float
    lag: ShippingLag | None
    """How far the target is behind, as far as it is known what it has; None where it was never listed."""


def ship(
    store: StrPath,
    target: str | BackupTarget,
    *,
    every_seconds: float = 1.0,
    once: bool = False,
    keep_days: float | None = None,
    told: Callable[[Shipped | FailedLook], None] | None = None,
    progress: BytesProgress | None = None,
    wait: Callable[[float], bool] | None = None,
    clock: Clock = wall_clock,
) -> Shipped:
    """Ship a store that another process may be writing: what is new, look after look.

    Args:
        store: The directory of a file store. It is only read.
        target: A directory, as a path or ``dir:PATH``, which is made; or whatever has the calls of `BackupTarget`.
        every_seconds: How long to wait after a look. What is on the store's disk is in the target after this time and
            that of a look, at the latest, while the target is well.
        once: End after one look: all that the store had when it began is in the target then.
        keep_days: For how many days to keep, after a compaction, what was before it; None: for ever.
        told: Told of each look that put something, and of each that the target ended.
        progress: Told after each object how many bytes the look has put, and how many there are at the least.
        wait: Waits for so many seconds, and says whether to stop then.
        clock: Gives microseconds since 1970, UTC.

    Returns:
        The last look.

    Raises:
        InvalidRequest: There is no store, or the target is not its own, or an option cannot be.
        CorruptStore: The store or the target is damaged.
        TargetTrouble: With ``once``, the target did not do what it was asked, several times in a row.
        StoreUnavailable: The store cannot be read, or another process ships to this directory.

    >>> import tempfile
    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with open_store(f"file:{place}/store") as store:
    ...         _ = store.run(kv.put("color", "red"))
    ...         shipped = ship(f"{place}/store", f"{place}/target", once=True)
    ...     restored = restore(f"{place}/target", f"{place}/again")
    ...     with open_store(f"file:{place}/again") as store:
    ...         store.run(kv.get("color")), shipped.revision, restored.revision
    ('red', 1, 1)
    """
    if not every_seconds > 0:
        raise InvalidRequest(f"every_seconds is {every_seconds}: give a number above 0")
    if keep_days is not None and not keep_days >= 0:
        raise InvalidRequest(f"keep_days is {keep_days}: give a number from 0 on, or None to keep all")
    if isinstance(target, str):
        _check_is_elsewhere(_path_of(target), store)
    shipper = Shipper(clock, keep_days, progress)
    with reading(store) as source:
        return _Running(store, source, shipper, target).run(every_seconds, once, told, wait or _wait)


class _Running:
    """Look after look. After trouble, the target is opened anew: its disk may have gone and come back."""

    def __init__(self, store: StrPath, source: RealDisk, shipper: Shipper, target: str | BackupTarget) -> None:
        self._store = store
        self._source = source
        self._shipper = shipper
        self._target = target

    def run(
        self,
        every_seconds: float,
        once: bool,
        told: Callable[[Shipped | FailedLook], None] | None,
        wait: Callable[[float], bool],
    ) -> Shipped:
        last, tries = Shipped(), 0
        while True:
            try:
                with open_target(self._target) as target:
                    while True:
                        last = self._look(target)
                        tries = 0
                        if told is not None and last.objects:
                            told(last)
                        if once or wait(every_seconds):
                            return last
            except TargetTrouble as error:
                tries += 1
                if once and tries == TRIES:
                    raise
                seconds = min(every_seconds * 2 ** min(tries, 30), max(LONGEST_WAIT_SECONDS, every_seconds))
                if told is not None:
                    told(FailedLook(str(error), tries, seconds, self._lag()))
                if wait(seconds):
                    return last

    def _look(self, target: BackupTarget) -> Shipped:
        with errors_of(self._store, "nothing more was shipped"):
            return run(self._shipper.look(), {**self._source.handlers, **objects_on(target)})

    def _lag(self) -> ShippingLag | None:
        """How far the target is behind, without asking it."""
        if not self._shipper.knows_target:
            return None
        with errors_of(self._store, "nothing more was shipped"):
            return run(self._shipper.measure(), self._source.handlers)


def lag(store: StrPath, target: str | BackupTarget, *, clock: Clock = wall_clock) -> ShippingLag:
    """How far a target is behind its store now. Nothing is changed, and a shipper may be at work.

    Args:
        store: The directory of a file store.
        target: As for `ship`.
        clock: Gives microseconds since 1970, UTC.

    Returns:
        The bytes, positions and seconds; all zero where the target has everything.

    Raises:
        InvalidRequest: There is no store, or the target is not its own.
        CorruptStore: The store or the target is damaged.
        TargetTrouble: The target did not do what it was asked.

    >>> import tempfile
    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with open_store(f"file:{place}/store") as store:
    ...         _ = store.run(log.append("orders/1", "placed", 12))
    ...     shipped = ship(f"{place}/store", f"{place}/target", once=True)
    ...     shipped.position, lag(f"{place}/store", f"{place}/target").bytes
    (1, 0)
    """
    with reading(store) as source, open_target(target, read_only=True) as opened, errors_of(store):
        return run(Shipper(clock).measure(), {**source.handlers, **objects_on(opened)})


def restore(
    target: str | BackupTarget,
    into: StrPath,
    *,
    position: int | None = None,
    revision: int | None = None,
    progress: BytesProgress | None = None,
) -> Restored:
    """Make a new store of what was shipped: as it was at last, or at a position or a revision of before.

    Args:
        target: As for `ship`. It is only read, and a shipper may be at work.
        into: The directory to make.
        position: Restore the commits before the first that has an event past this position. The store is another one
            then, with a UUID of its own.
        revision: Restore the commits before the first that has a change of a key past this revision, likewise.
        progress: Told now and then how many bytes are written, and how many there are at the least.

    Returns:
        How much was restored, and which blobs could not be.

    Raises:
        InvalidRequest: ``into`` is a directory with something in it, or the target has not what is wanted.
        CorruptStore: An object is damaged or missing. Nothing was restored.
        TargetTrouble: The target did not do what it was asked.
    """
    for name, number in (("position", position), ("revision", revision)):
        if number is not None and number < 0:
            raise InvalidRequest(f"{name} is {number}: give a number from 0 on")
    nothing = "nothing was restored"
    with open_target(target, read_only=True) as opened, making(into, nothing) as disk, errors_of(into, nothing):
        handlers = {**disk.handlers, **objects_on(opened)}
        return run(restore_store(Cut(position, revision), os.urandom, progress), handlers)


def open_target(target: str | BackupTarget, *, read_only: bool = False) -> AbstractContextManager[BackupTarget]:
    """A target by its path or URL, held for one shipper unless it is only read; or one that is open, as it is.

    Raises `InvalidRequest` for a URL of another kind, and `TargetTrouble` where its directory cannot be used.
    """
    return _directory(_path_of(target), read_only) if isinstance(target, str) else nullcontext(target)


@contextmanager
def _directory(path: str, read_only: bool) -> Iterator[BackupTarget]:
    refuse_home(path)
    if read_only and not os.path.isdir(path):
        raise InvalidRequest(f"{path} is not a directory: give one that a store was shipped to")
    if os.path.exists(os.path.join(path, "CURRENT")):
        raise InvalidRequest(f"{path} is a store: give a directory of its own to what is shipped")
    try:
        disk = RealDisk(path, read_only=read_only)
    except OSError as error:
        raise TargetTrouble(f"the target {path} cannot be used: {error}") from error
    with closing(disk):
        target = DirectoryTarget(disk.handlers)
        if not read_only:
            # Before a lock is made there.
            TargetContents(target.list("")).check_ours()
            _hold(target, path)
        yield target


def _hold(target: DirectoryTarget, path: str) -> None:
    try:
        target.hold(f"process {os.getpid()} on {socket.gethostname()}")
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{path}: {error}") from error
    except OSError as error:
        raise TargetTrouble(f"the target {path} cannot be used: {error}") from error


def _path_of(target: str) -> str:
    """The directory that a target names.

    >>> _path_of("dir:var/shipped"), _path_of("var/shipped")
    ('var/shipped', 'var/shipped')
    """
    scheme, colon, rest = target.partition(":")
    path = rest if scheme == "dir" and colon else target
    if (colon and scheme != "dir" and "/" not in scheme) or not path:
        raise InvalidRequest(f"{target!r} is not a target: give dir:PATH, or from Python what has the calls of one")
    return path


def _check_is_elsewhere(target: str, store: StrPath) -> None:
    """Refuse a target in the store's own directory, with which it would be lost."""
    place, other = os.path.realpath(store), os.path.realpath(target)
    if other != place and os.path.commonpath((place, other)) == place:
        raise InvalidRequest(f"{target} lies in the store {os.fspath(store)}: give a directory elsewhere")


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False
