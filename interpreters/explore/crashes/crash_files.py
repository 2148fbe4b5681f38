"""The file engine on a disk whose plug can be pulled, as an interpreter that any thread may use.

It is what answers for ``crash:``. Its clock and its randomness come from a seed, and nothing is done by itself between
two requests, so that one thread finds the same requests of the disk, and the same losses, each time.
"""

import textwrap
import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar, cast

from interpreters.clocks import Clock, checked_clock
from interpreters.disk.crashing import PROFILES, CrashDisk
from interpreters.disk.keeping import Keep
from interpreters.explore.crashes.plug import PluggedDisk, PlugPulled, Pulled
from interpreters.explore.crashes.simulated import bytes_drawn
from interpreters.explore.virtual import START_MICROSECONDS
from interpreters.stores.compacting import Compacted
from interpreters.stores.file.engine import Engine, EngineOptions
from interpreters.stores.file.writer import NO_ROOM
from interpreters.stores.group import WriteRequest
from interpreters.stores.grouped import GroupedStore
from interpreters.stores.urls import Numbers, options_given
from persist_effects.capabilities import Capabilities, Durability
from persist_effects.errors import InvalidRequest, StoreUnavailable
from persist_effects.event import check_integer
from persist_effects.machine import Effect, Handlers, run
from persist_effects.requests import KvWait, Outcome, Request, Wait

A = TypeVar("A")

SEGMENT_BYTES = 64 * 1024
"""How long a segment of the log is unless asked: so short that a test of some hundred writes sees several."""

_SYNC_MODES = ("commit", "os")
_NUMBERS: Numbers = {"seed": int, "segment_bytes": int}


class CrashStoreOptions(NamedTuple):
    """The options of ``crash:``, each as `open_store` takes it."""

    seed: int = 0
    profile: str = "posix"
    sync: str = "commit"
    segment_bytes: int = SEGMENT_BYTES
    clock: Clock | None = None

    @property
    def url(self) -> str:
        """The URL of the store, with what was asked for."""
        given = {name: value for name, value in self._asdict().items() if name != "clock"}
        asked = [f"{name}={value}" for name, value in given.items() if value != self._field_defaults[name]]
        return f"crash:{'?' if asked else ''}{'&'.join(asked)}"


def crash_options(rest: str, keywords: dict[str, Any]) -> CrashStoreOptions:
    """The options of a store of ``crash:``.

    Args:
        rest: What stands behind the colon, such as ``?seed=7&sync=os``.
        keywords: Those that were given beside the URL.

    Returns:
        Them.

    Raises:
        InvalidRequest: If one cannot be read, or none has its name.

    >>> crash_options("?seed=7", {"sync": "os"}).url
    'crash:?seed=7&sync=os'
    """
    given = options_given("crash", rest, keywords, _NUMBERS)
    if "path" in given:
        raise InvalidRequest(
            f"'crash:{rest}' names a path: write 'crash:' or 'crash:?seed=7', it has a disk of its own"
        )
    unknown = given.keys() - set(CrashStoreOptions._fields)
    if unknown:
        raise InvalidRequest(
            f"a store of crash: has no option {min(unknown)!r}: it takes {', '.join(CrashStoreOptions._fields)}"
        )
    options = CrashStoreOptions(**given)
    check_integer("seed", options.seed)
    check_integer("segment_bytes", options.segment_bytes, 4096)
    for name, known in (("profile", PROFILES), ("sync", _SYNC_MODES)):
        if getattr(options, name) not in known:
            raise InvalidRequest(f"{name} is {getattr(options, name)!r}: give one of {', '.join(known)}")
    return options._replace(clock=checked_clock(options.clock or _clock_of_its_own()))


def _clock_of_its_own() -> Clock:
    """A clock that is a millisecond later each time that somebody looks."""
    milliseconds = count()
    return lambda: START_MICROSECONDS + 1_000 * next(milliseconds)


def _after(number: int) -> str:
    return f"# after {number} requests of the disk"


class CrashFiles(GroupedStore):
    """A file store on a simulated disk, from one opening of it to the next.

    Args:
        options: See `crash_options`.
        disk: The disk as it is now.
        story: What was done to the store in the openings before, as lines that can be pasted.
    """

    # Its disk is memory, so an event loop need not hand its requests to threads.
    blocking = False

    def __init__(self, options: CrashStoreOptions, disk: CrashDisk | None = None, story: Sequence[str] = ()) -> None:
        super().__init__(f"the store of {options.url}", is_read_only=False)
        self.capabilities = Capabilities(durability=cast(Durability, options.sync), reopen=True)
        self.options = options
        self._story = list(story) or [f"store = open_store({options.url!r})"]
        self._failed: list[str] = []
        # Each opening draws other bytes, as it does from the system: its salts must be its own.
        opening = f"{options.seed} {len(self._story)}"
        self.random_bytes = bytes_drawn(f"identifiers {opening}")
        self._keep_drawn = int.from_bytes(bytes_drawn(f"keep {opening}")(4)) % 1_000_000
        self.plug = PluggedDisk(disk or CrashDisk(), options.profile, self._gone)
        self._engine_lock = threading.Lock()
        self._engine = Engine(
            EngineOptions(self.clock, bytes_drawn(f"salts {opening}"), "crash:", options.sync, options.segment_bytes)
        )
        self._drive(self._engine.open())
        self.plug.count_from_now()
        self.plug.on_pull(self._watchers.tell_all)
        self.handlers: Handlers = {kind: self.powered(row) for kind, row in self.handlers.items()}

    def powered(self, row: Callable[..., A]) -> Callable[..., A]:
        """The same function, where the plug is not pulled, not meanwhile either: what it answered then is lost."""

        def answer(*arguments: Any) -> A:
            self.plug.check()
            try:
                found = row(*arguments)
            except Exception:
                self.plug.check()
                raise
            self.plug.check()
            return found

        return answer

    # Pulling the plug, and what comes after

    def crash(self, keep: Keep | None = None, at: int | str | None = None) -> None:
        """See `CrashStore.crash`."""
        kept = self._keep_drawn if keep is None else keep
        if at is None:
            self.plug.pull(kept)
        else:
            self.plug.pull_at(at, kept)

    def fail(self, op: str, error: OSError) -> None:
        """See `CrashStore.fail`."""
        number = self.plug.count
        self.plug.fail(op, error)
        self._failed.append(f"store.fail({op!r}, {error!r})  {_after(number)}")

    @property
    def story(self) -> str:
        """What to paste so that the same happens to the same program, as lines."""
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        pulled = self.plug.pulled
        if pulled is None:
            return [*self._story, *self._failed]
        if pulled.request is None:
            return [*self._story, *self._failed, f"store.crash(keep={pulled.keep!r})  {_after(pulled.after)}"]
        # Said right after the opening, from where it counts.
        return [*self._story, f"store.crash(keep={pulled.keep!r}, at={pulled.after})", *self._failed]

    def _gone(self, pulled: Pulled) -> PlugPulled:
        lost = "".join(f"\n  {loss}" for loss in pulled.losses) or " nothing"
        return PlugPulled(
            f"{pulled}: go on with the store that store.restart() returns\nof the unsynced was lost:{lost}\n"
            f"to have the same again:\n{textwrap.indent(self.story, '  ')}"
        )

    def restarted(self) -> "CrashFiles":
        """The store that is opened over what is left. Raises `InvalidRequest` where this one still goes on."""
        pulled = self.plug.pulled
        if pulled is None and not self._is_closed:
            late = "; crash(at=…) waits for a request of the disk that has not come" if self.plug.is_due else ""
            raise InvalidRequest(f"{self._where} still goes on: crash() it or close() it before restart(){late}")
        disk = self.plug.disk.copy() if pulled is None else CrashDisk(pulled.image)
        ended = ["store.close()"] if pulled is None else []
        return CrashFiles(self.options, disk, [*self._lines(), *ended, "store = store.restart()"])

    # What a store of files does

    def clock(self) -> int:
        """The time that stamps events."""
        self.plug.check()
        assert self.options.clock is not None, "`crash_options` gave it one"
        return self.options.clock()

    def close(self) -> None:
        """Seal the log, as a process does that ends well. Where the plug is pulled, or again: nothing."""
        if self._is_closed or self.plug.pulled is not None:
            return
        with self._group.turn:
            self._begin_close()
            self._drive(self._engine.close())

    def sync(self) -> None:
        """Return when all that was written so far is on the disk, whatever the mode."""
        with self._group.turn:
            self._drive_open(self._engine.sync())

    def compact(self) -> Compacted:
        """Give back the space of what was truncated, overwritten and deleted.

        Returns:
            How many bytes the sealed segments took before, and take now.
        """
        with self._group.turn:
            return self._drive_open(self._engine.compact())

    def answer_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """The outcomes of several requests: the writes share one commit, then the reads are answered."""
        return self.powered(super().answer_all)(requests)

    def _commit(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        outcomes = self._drive_open(self._engine.commit(requests))
        with self._engine_lock:
            streams, keys = self._engine.newest_of(requests)
        self.tell_of(streams, keys)
        return outcomes

    def _read(self, request: Request[Any]) -> Any:
        return self._drive_open(self._engine.queries.answer(request))

    def _newest(self, request: Wait | KvWait) -> int:
        self.plug.check()
        with self._engine_lock:
            if self._is_closed:
                raise self._closed()
            return self._engine.index.newest(request)

    def _start_looking(self) -> None:
        """No other process writes to it."""

    def _drive_open(self, program: Effect[A]) -> A:
        self.plug.check()
        if self._is_closed:
            raise self._closed()
        return self._drive(program)

    def _drive(self, program: Effect[A]) -> A:
        with self._engine_lock:
            try:
                return run(program, self.plug.handlers)
            except OSError as error:
                advice = ": make room on the disk, then try again" if error.errno in NO_ROOM else ""
                raise StoreUnavailable(f"{self._where}: {error}{advice}") from error
