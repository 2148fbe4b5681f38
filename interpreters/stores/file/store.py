"""The file store: the engine on a real disk, driven from many threads. Waiting commits share one sync."""

import contextlib
import gc
import os
import socket
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

from interpreters.blobs.directory import BlobDirectory
from interpreters.blobs.files import BlobFiles
from interpreters.clocks import Clock, RandomBytes, checked_clock, checked_random, wall_clock
from interpreters.disk.files import PRIVATE, refuse_home
from interpreters.disk.real import RealDisk
from interpreters.disk.requests import CheckHeld, ForeignFile
from interpreters.disk.requests import Read as ReadBytes
from interpreters.stores.compacting import Compacted, Told
from interpreters.stores.file.beside_writer import ReaderEngine
from interpreters.stores.file.engine import Engine, EngineOptions
from interpreters.stores.file.index import OF_ALL_NAMES
from interpreters.stores.file.manifest import BLOBS, CURRENT, Moment
from interpreters.stores.file.values import CACHE_BYTES, Values
from interpreters.stores.file.writer import NO_ROOM
from interpreters.stores.group import GroupCommit, WriteRequest
from interpreters.stores.waiting import Watchers, wait
from interpreters.threads import forks
from interpreters.threads.background import BackgroundThread
from interpreters.threads.gates import Gate, Notify, OwnedLock
from persist_effects import codec
from persist_effects.capabilities import Capabilities, Durability
from persist_effects.errors import (
    CorruptStore,
    InvalidRequest,
    NewerFormat,
    PersistError,
    StoreClosed,
    StoreLocked,
    StoreUnavailable,
    describe,
)
from persist_effects.event import check_integer
from persist_effects.machine import Effect, Handler, Handlers, outcomes_by_kind, perform, run
from persist_effects.programs import refused
from persist_effects.requests import (
    READS,
    WAITS,
    WRITES,
    Answered,
    Entry,
    Failed,
    KvGet,
    KvWait,
    Outcome,
    Request,
    Wait,
)

A = TypeVar("A")

LOOK_AGAIN_SECONDS = 0.005
"""How long a reading process waits before it looks for new events: a writer's sync takes a part of a millisecond."""

IDLE_SECONDS = 0.25
"""After how long without a commit the last ones are proved by a mark."""

CHECK_SECONDS = 0.05
"""The most that a reader, or writes that are not synced, go on without a look whether the directory is another."""

HANDOVER_SECONDS = 0.0001
"""How long a thread that takes in all names, some milliseconds at a time, stays away from the lock in between."""

SYNC_MODES = ("commit", "interval", "os")
SEGMENT_LIMIT_BYTES = 4 * 1024 * 1024 * 1024


class _Host:
    """Drives an engine on a real disk: a lock is held while it runs, and let go while the disk works."""

    blocking = True

    def __init__(
        self, root: Path, disk: RealDisk, sync: str = "commit", payload_limit_bytes: int = codec.PAYLOAD_LIMIT_BYTES
    ) -> None:
        self.path = root
        self.capabilities = Capabilities(
            durability=cast(Durability, sync),
            processes="one-writer",
            payload_limit_bytes=payload_limit_bytes,
            reopen=True,
        )
        self._disk = disk
        self._lock = OwnedLock()
        self._is_closed = False
        self._is_fork = False
        self._disk_rows: Handlers = {kind: self._unlocked(row) for kind, row in disk.handlers.items()}

    def _drive(self, program: Effect[A]) -> A:
        with self._lock:
            if self._is_closed:
                refused(program)
                raise self._closed()
            try:
                return run(program, self._disk_rows)
            except OSError as error:
                if self._is_closed:
                    # Meanwhile, while the lock was let go.
                    raise self._closed() from error
                if isinstance(error, ForeignFile):
                    raise CorruptStore(f"{self.path}: {error}") from error
                advice = ": make room on the disk, then try again" if error.errno in NO_ROOM else ""
                raise StoreUnavailable(f"{self.path}: {error}{advice}") from error
            except StoreLocked as error:
                # The same, with the store's path: a second traceback would tell nothing more.
                raise StoreLocked(error.holder, f"the store {self.path}") from None
            except CorruptStore as error:
                # The engine knows the files of its own directory only.
                raise CorruptStore(f"{self.path}: {error}") from error
            except NewerFormat as error:
                raise NewerFormat(f"{self.path}/{error.file}", error.found, error.known) from error
            finally:
                self._take_lock_back()

    def _open(self, engine: Engine | ReaderEngine) -> None:
        try:
            self._drive(engine.open())
        except InvalidRequest as error:
            raise InvalidRequest(f"{self.path}: {error}") from error

    def _take_in_names(self, request: Request[Any], engine: Engine | ReaderEngine) -> None:
        """Take in the names of which an answer needs all, and let others have the lock after each slice."""
        while type(request) in OF_ALL_NAMES and not self._is_closed:
            with self._lock:
                if not engine.index.take_in_names(request):
                    return
            # Who waits for a lock is woken when it is let go, and gets it only where it is not taken at once again.
            time.sleep(HANDOVER_SECONDS)

    def _closed(self) -> StoreUnavailable:
        return StoreClosed(f"{self.path}: the store was closed: open it again")

    def _unlocked(self, row: Handler) -> Handler:
        def call(request: Request[Any]) -> Any:
            try:
                try:
                    self._lock.release()
                    return row(request)
                finally:
                    self._take_lock_back()
            except BaseException:
                # An interrupt may have come on the way there, and who is told of it may ask the disk again.
                self._take_lock_back()
                raise

        return call

    def _take_lock_back(self) -> None:
        """Whatever happens: a Ctrl-C that comes meanwhile must not have this thread go on without the lock.

        Done a second time after an error, and where the lock is let go for good: the Ctrl-C may come on the way here.
        """
        interrupt: BaseException | None = None
        while not self._lock.is_mine():
            try:
                self._lock.acquire()
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def state_lock(self) -> forks.StateLock | None:
        """What a fork waits for, so that the child has the index whole."""
        return self._lock

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child, where no thread is left that could let go of a lock: the store goes on as a reader."""
        self._lock = OwnedLock()
        self._is_fork = True
        if not is_whole:
            self._forget_half_copied()

    def _forget_half_copied(self) -> None:
        """In a forked child whose copy of the index may be half of something: answer nothing from it."""
        raise NotImplementedError


def _checked_root(path: str | os.PathLike[str]) -> Path:
    if "\0" in os.fspath(path):
        raise InvalidRequest(f"{os.fspath(path)!r} is not a path: it has a zero character")
    refuse_home(path)
    return Path(path)


def _disk_of(root: Path, permissions: int | None) -> RealDisk:
    """A store's directory, made where there is none. Without permissions they stay as they are."""
    if os.path.exists(root) and not os.path.isdir(root):
        raise InvalidRequest(f"{root} is a file: a store is a directory, give the path of one or of a new one")
    try:
        disk = RealDisk(root, permissions=PRIVATE if permissions is None else permissions)
        if permissions is None:
            disk.keep_permissions_of(CURRENT)
    except ForeignFile as error:
        raise CorruptStore(f"{root}: {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"{root} cannot be made or opened: {error}") from error
    return disk


def _check_permissions(permissions: int | None) -> None:
    is_given = permissions is not None
    if is_given and (type(permissions) is not int or permissions & PRIVATE != PRIVATE or permissions & ~0o666):
        found = oct(permissions) if type(permissions) is int else describe(permissions)
        raise InvalidRequest(
            f"permissions is {found}: give those of a file that its owner may read and write, from 0o600 to 0o666"
        )


class _Seldom:
    """Says that something is due, at most once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + self._seconds
        return True


class FileReader(_Host):
    """An interpreter that reads a store which another process may be writing. It takes no lock, and refuses writes.

    It shows what is on the disk for good; waiting for an event looks again every few milliseconds.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        root = _checked_root(path)
        if not root.is_dir():
            raise InvalidRequest(f"{root} is not a directory: give the path of a store that is there")
        try:
            real_disk = RealDisk(root, read_only=True)
        except OSError as error:
            raise StoreUnavailable(f"{root} cannot be opened: {error}") from error
        super().__init__(root, real_disk)
        self._engine = ReaderEngine()
        self._is_check_due: Callable[[], bool] = _Seldom(CHECK_SECONDS)
        # One at a time: each takes in what is new before it reads, and asks the disk in between.
        self._reading = threading.Lock()
        self.blobs = BlobDirectory(BlobFiles(BLOBS), root, self._drive, self._refusal)
        """The home of its blobs."""
        self.handlers: Handlers = {
            **self.blobs.handlers,
            **dict.fromkeys(WRITES, self._refuse),
            **dict.fromkeys(READS, self._read),
            **dict.fromkeys((Wait, KvWait), self._wait),
        }
        try:
            self._open(self._engine)
        except BaseException:
            self.close()
            raise
        forks.register(self)

    def close(self) -> None:
        """Let go of the files. Again: nothing."""
        with self._lock:
            self._is_closed = True
        self._disk.close()

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child, which reads on by itself."""
        super().leave_to_parent(is_whole=is_whole)
        self._reading = threading.Lock()

    def _forget_half_copied(self) -> None:
        self._engine = ReaderEngine()

    def _read(self, request: Request[Any]) -> Any:
        self._take_in_names(request, self._engine)
        with self._reading:
            self._check_held()
            return self._drive(self._engine.answer(request))

    def _check_held(self) -> None:
        """Raise `StoreUnavailable` where the path leads to another directory now, whose events would be other ones."""
        if not self._is_check_due():
            return
        try:
            self._drive(perform(CheckHeld("")))
        except StoreClosed:
            raise
        except StoreUnavailable as error:
            self._is_check_due = lambda: True
            raise StoreUnavailable(f"{error}: close this reader and open the path anew") from error

    def _refuse(self, request: Request[Any]) -> Any:
        raise self._refusal(request.op)

    def _refusal(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"{what}: {self.path} was opened to read only: open it without mode=r to write")

    def _wait(self, request: Wait | KvWait) -> int:
        deadline = time.monotonic() + request.timeout
        pause = Gate()
        self._take_in_names(request, self._engine)
        while True:
            with self._reading:
                self._check_held()
                newest = self._drive(self._newest(request))
            left_seconds = deadline - time.monotonic()
            if newest > request.after or left_seconds <= 0:
                return newest
            pause.wait(min(left_seconds, LOOK_AGAIN_SECONDS))

    def _newest(self, request: Wait | KvWait) -> Effect[int]:
        yield from self._engine.refresh()
        return self._engine.index.newest(request)


_stores: "weakref.WeakSet[FileStore]" = weakref.WeakSet()
"""Those of this process, so that one that is in another's way can be named."""


class FileStore(_Host):
    """An interpreter that keeps a store in a directory. One process writes; its handlers serve any thread.

    ``sync``: "commit" (acknowledged means on the disk), "interval" (synced every ``interval_seconds``), "os" (when the
    system likes). ``segment_bytes`` is the size at which the next file is begun. ``permissions`` are those of new
    files, such as 0o640: 0o600 unless given, or in a store that is there as it has them. Who may read a file may enter
    its directory. ``cache_bytes`` bounds how much of the values of keys that were read lately is kept in memory.
    ``clock`` gives microseconds since 1970, UTC, and ``random_bytes`` what fresh identifiers are made of.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sync: str = "commit",
        interval_seconds: float = 0.1,
        segment_bytes: int = 32 * 1024 * 1024,
        clock: Clock = wall_clock,
        payload_limit_bytes: int = codec.PAYLOAD_LIMIT_BYTES,
        permissions: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        root = _checked_root(path)
        if sync not in SYNC_MODES:
            raise InvalidRequest(f"sync is {sync!r}: give one of {', '.join(SYNC_MODES)}")
        check_integer("segment_bytes", segment_bytes, 4096, SEGMENT_LIMIT_BYTES)
        check_integer("payload_limit_bytes", payload_limit_bytes, 1)
        check_integer("cache_bytes", cache_bytes)
        if type(interval_seconds) not in (int, float) or not 0.001 <= interval_seconds <= threading.TIMEOUT_MAX:
            raise InvalidRequest(f"interval_seconds is {describe(interval_seconds)}: give a number from 0.001 on")
        self.clock = checked_clock(clock)
        self.random_bytes = checked_random(random_bytes)
        _check_permissions(permissions)
        real_disk = _disk_of(root, permissions)
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        is_due = _Seldom(CHECK_SECONDS)
        # Its salts are drawn from the system, whatever ``random_bytes`` is: no two openings may have the same.
        options = EngineOptions(self.clock, os.urandom, holder, sync, segment_bytes, payload_limit_bytes, is_due)
        super().__init__(root, real_disk, sync, payload_limit_bytes)
        self._engine = Engine(options)
        self._group = GroupCommit(self._commit)
        self._compacting = threading.Lock()
        self._is_half_copied = self._is_let_go = False
        self._watchers = Watchers()
        self.blobs = BlobDirectory(BlobFiles(BLOBS, sole_writer=os.urandom(8)), root, self._drive)
        """The home of its blobs."""
        self.handlers: Handlers = {
            **self.blobs.handlers,
            **dict.fromkeys(WRITES, self._write),
            **dict.fromkeys(READS, self._read),
            **dict.fromkeys((Wait, KvWait), self._wait),
            KvGet: self._get,
        }
        self.quick = READS | WAITS
        self._values = Values(self._engine.index, self._disk.handlers[ReadBytes], cache_bytes)
        self._commits = self._commits_seen = self._commits_proved = 0
        self._closing = Gate()
        # From then on nobody waits any more, though writes, or a copy of the store, may still go on.
        self._is_closing = False
        self._keeper: BackgroundThread | None = None
        self._opened_at = _place_of_caller()
        self._abandoned = weakref.finalize(self, _abandon, self._disk, self._closing, str(root), self._opened_at)
        # At the end of the process the system does it.
        self._abandoned.atexit = False
        try:
            self._open_alone(holder)
            with forks.no_fork():
                _stores.add(self)
            if sync == "interval":
                self._look_after_it(FileStore.sync, interval_seconds)
            elif sync == "commit":
                self._look_after_it(FileStore.mark_when_idle, IDLE_SECONDS)
        except BaseException:
            # An interrupt too must not leave the directory locked for as long as the process lives.
            self._let_go()
            raise
        forks.register(self)

    def _look_after_it(self, look: "Callable[[FileStore], None]", pause_seconds: float) -> None:
        arguments = (weakref.ref(self), self._closing, look, pause_seconds)
        self._keeper = BackgroundThread(_keep, "persist-effects keeper", arguments)
        self._keeper.start()

    def _open_alone(self, holder: str) -> None:
        """Open the store, or say which other store has it open."""
        try:
            self._open(self._engine)
            return
        except StoreLocked as error:
            if error.holder != holder and not _stores_at(self.path, but=self):
                raise
        # It may be one that nobody has any more, or whose opening was interrupted, and that is only not collected yet.
        gc.collect()
        for other in _stores_at(self.path, but=self):
            raise StoreLocked(holder, f"the store {self.path}", other._opened_at)
        self._open(self._engine)

    def close(self) -> None:
        """Seal the log and let go of the directory. Writes that wait are carried out before. Again: nothing.

        Where Ctrl-C comes meanwhile, the directory is let go of all the same, unless another thread is at work in it:
        then close it again.
        """
        try:
            if not self._is_let_go:
                self._close()
        except BaseException:
            self._let_go_if_idle()
            raise
        finally:
            if self._is_closed:
                self._watchers.tell_all()

    def _close(self) -> None:
        with self._lock:
            self._is_closing = True
        self._watchers.tell_all()
        self._closing.open()
        if self._keeper is not None:
            self._keeper.join()
        with self._compacting, self._group.turn:
            self._seal_and_let_go()

    def _seal_and_let_go(self) -> None:
        try:
            if not self._is_closed and not self._is_fork:
                self._drive(self._engine.close())
        finally:
            self._let_go()

    def _let_go_if_idle(self) -> None:
        # Whoever has one of the two may be writing, which must not land after another process has taken the lock.
        # Not tried by `acquire`: an interrupt right behind it would leave the lock taken. Where another thread is
        # quicker, this waits until it is done.
        if not self._compacting.locked() and not self._group.turn.locked():
            with self._compacting, self._group.turn:
                self._let_go()

    def _let_go(self) -> None:
        """Refuse what comes from now on, and give up the lock and the files. Again: nothing."""
        with self._lock:
            self._is_closed = True
        self._closing.open()
        self._disk.close()
        self._abandoned.detach()
        self._is_let_go = True

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: what waits, and the threads, are the parent's, and so is it to close the store."""
        super().leave_to_parent(is_whole=is_whole)
        self._abandoned.detach()
        self._engine.log.leave_to_parent()
        self._group = GroupCommit(self._commit)
        self._compacting = threading.Lock()
        self._closing = Gate()
        self._is_closing = False
        self._keeper = None
        self._watchers.forget()

    def _holds(self, path: Path) -> bool:
        """Whether it is this store that has a directory open."""
        try:
            return not self._is_let_go and not self._is_fork and os.path.samefile(self.path, path)
        except OSError:
            return False

    def _forget_half_copied(self) -> None:
        self._is_half_copied = self._is_closed = True

    def _closed(self) -> StoreUnavailable:
        if self._is_half_copied:
            return StoreUnavailable(
                f"{self.path}: this process was forked while another thread was in the middle of changing the store, "
                "so its copy may be half of something: open it here to read only, with mode=r"
            )
        return super()._closed()

    def answer_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """The outcomes of several requests: the writes share one commit, then the reads are answered."""
        if WRITES.issuperset(map(type, requests)):
            return self._group.write(cast(Sequence[WriteRequest], requests)) if requests else []
        write = cast(Callable[[Sequence[Request[Any]]], list[Outcome]], self._group.write)
        return outcomes_by_kind(requests, WRITES, write, lambda _, request: self._outcome(request))

    def sync(self) -> None:
        """Return when all that was written so far is on the disk, whatever the mode."""
        with self._group.turn:
            self._drive(self._engine.sync())

    def mark_when_idle(self) -> None:
        """Have the last commits proved if none came since this was called before. A thread does so now and then."""
        commits, seen = self._commits, self._commits_seen
        self._commits_seen = commits
        if commits == seen and commits != self._commits_proved:
            with self._group.turn:
                self._drive(self._engine.mark())
            self._commits_proved = commits

    def compact(self, told: Told | None = None) -> Compacted:
        """Give back the space of what was truncated, overwritten and deleted, while others read and write.

        Args:
            told: Told after each segment how many bytes were looked at, and how many there are.

        Returns:
            How many bytes the sealed segments took before, and take now.
        """
        with self._compacting:
            with self._group.turn:
                self._drive(self._engine.roll_over())
                compaction = self._engine.compaction()
            self._drive(compaction.copy(told))
            with self._group.turn:
                compacted: Compacted = self._drive(compaction.publish())
            self._drive(compaction.remove_old())
        return compacted

    @contextmanager
    def standing_still(self) -> Iterator[tuple[RealDisk, Moment]]:
        """The store's disk, and the log as it is now, for who copies it. Others read and write; a compaction waits."""
        with self._compacting:
            with self._group.turn:
                manifest = self._engine.log.manifest
                if self._is_closed or manifest.active is None:
                    raise StoreClosed(f"{self.path}: the store was closed: back it up by its path")
                moment = Moment(manifest, self._engine.index.segments[manifest.active].length_bytes)
            yield self._disk, moment

    # Writes: whoever gets the turn commits for all that wait.

    def _write(self, request: Any) -> Any:
        (outcome,) = self._group.write([request])
        if isinstance(outcome, Answered):
            return outcome.value
        raise outcome.error

    def _commit(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        outcomes = self._drive(self._engine.commit(requests))
        self._commits += 1
        if self._watchers:
            self._tell(requests)
        return outcomes

    # Reads

    def _read(self, request: Request[Any]) -> Any:
        self._take_in_names(request, self._engine)
        return self._drive(self._engine.queries.answer(request))

    def _get(self, request: KvGet) -> Entry | None:
        if self._is_closed:
            raise self._closed()
        try:
            return self._values.get(request.key)
        except LookupError:
            answer: Entry | None = self._read(request)
            if answer is not None:
                self._values.keep(request.key, answer)
            return answer

    def _outcome(self, request: Request[Any]) -> Outcome:
        try:
            return Answered(self.handlers[type(request)](request))
        except Exception as error:
            return Failed(error)

    # Waiting

    def watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """Call ``notify()`` once as soon as a wait is over, or the store is closed.

        Args:
            request: What is waited for. Its timeout is for the caller to see to.
            notify: Called in the thread that commits or closes, or at once; it must be quick and must not raise.

        Returns:
            The function that ends the watch.
        """
        token = None
        self._take_in_names(request, self._engine)
        with self._lock:
            is_open = not self._is_closing and not self._is_closed
            if is_open and self._engine.index.newest(request) <= request.after:
                token = self._watchers.add(request, notify)
        if token is None:
            notify()

        def end_watch() -> None:
            with self._lock:
                self._watchers.remove(token)

        return end_watch

    def _wait(self, request: Wait | KvWait) -> int:
        self._take_in_names(request, self._engine)
        return wait(request, self.watch, self._newest)

    def _newest(self, request: Wait | KvWait) -> int:
        with self._lock:
            if self._is_closing or self._is_closed:
                raise self._closed()
            return self._engine.index.newest(request)

    def _tell(self, requests: Sequence[WriteRequest]) -> None:
        """Tell those that wait for what these requests have brought."""
        with self._lock:
            streams, keys = self._engine.newest_of(requests)
            ready = [*self._watchers.take(Wait, streams), *self._watchers.take(KvWait, keys)]
        for notify in ready:
            notify()


def _keep(
    ref: "weakref.ref[FileStore]", closing: Gate, look: Callable[[FileStore], None], pause_seconds: float
) -> None:
    """Look after a store until it is closed, or nobody has it any more."""
    while not closing.wait(pause_seconds):
        store = ref()
        if store is None:
            return
        # Where the disk refuses, the next write is told: by the writer that is poisoned, or by a disk still full.
        with contextlib.suppress(PersistError):
            look(store)
        del store


def _abandon(disk: RealDisk, closing: Gate, path: str, opened_at: str) -> None:
    """Give up the lock of a store that was never closed, and that nobody has any more."""
    closing.open()
    disk.close()
    warnings.warn(f"the store {path}, opened at {opened_at}, was not closed", ResourceWarning, stacklevel=1)


def _stores_at(path: Path, but: FileStore) -> list[FileStore]:
    """The stores of this process that hold a directory's lock."""
    with forks.no_fork():
        stores = list(_stores)
    return [store for store in stores if store is not but and store._holds(path)]


def _place_of_caller() -> str:
    """The line that opened a store: the nearest outside of this package."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "interpreters":
        frame = frame.f_back
    return "an unknown place" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
