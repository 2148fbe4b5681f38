"""A store that is moved into another one of any kind while it is in use: an interpreter around the two.

One of the two answers. What is written goes to it alone, and the other is brought after it: the events by following the
log, in its order, and what a log does not say, the streams that were begun or truncated and the keys that were changed,
by what was noted as the writes were acknowledged. So the other one costs no write any time, and may be away. After a
crash all keys and streams are compared, and the copying goes on.

A cut makes the other one answer. All is compared before it, while writes go on; then writes wait for the moment in
which the last of them is copied. One write, of the key ``migration/state`` in the store that is to answer, decides: so
whenever the process dies, one of the two answers once both are opened again. From then on the store that answered
before is brought after the other. So a cut is taken back by another cut.

The positions of the new store stand far above those of the old one. So a position says which of the two it is of, and
whoever goes on from one of before the cut, a follower in the middle of a page, is answered what comes after it.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec

from interpreters.jsonl import Progress
from interpreters.migrating.comparing import STATE
from interpreters.migrating.copying import Copy, CopyState, newest_of, noting, position_in, state_in
from interpreters.migrating.written import WrittenThrough
from interpreters.runtime.flights import answering_through
from interpreters.runtime.interpreter import AnswerAll, Interpreter, Submit, check_interpreter
from interpreters.runtime.store import Store
from interpreters.stores.group import WriteRequest
from interpreters.stores.waiting import wait
from interpreters.threads import forks
from interpreters.threads.background import BackgroundThread
from interpreters.threads.gates import Gate, Notify, wait_until_told
from persist_effects import kv, log
from persist_effects.capabilities import DURABILITIES, Capabilities, Durability
from persist_effects.errors import CorruptStore, InvalidRequest, PersistError, StoreClosed, StoreUnavailable
from persist_effects.event import Event
from persist_effects.machine import Handlers, perform
from persist_effects.requests import (
    READS,
    WRITES,
    Answered,
    Failed,
    KvWait,
    Now,
    Outcome,
    ReadAll,
    Request,
    Wait,
    has_sql,
)

STORES = ("old", "new")

MOMENT_SECONDS = 5.0
"""How long a cut waits, in which writes wait, for those that are on their way."""

INTERVAL_SECONDS = 0.05
"""How often the store that follows is brought after the other."""

HEADROOM = 1 << 48
"""How many positions and revisions the store that answers may take before it reaches the first ones of the other."""


class Moving(msgspec.Struct, frozen=True):
    """How far a move is.

    Args:
        answering: Which of the two answers: "old" or "new".
        copied: Up to which position of it the other one has the events.
        head: Its newest position.
        trouble: What keeps the other one from being brought after it, if something does.
    """

    answering: str
    copied: int
    head: int
    trouble: PersistError | None


class Mirror:
    """An interpreter around two stores, of which one answers, and the other is brought after it.

    Every program that writes does so through one mirror. Any thread may use it. Closing it closes both stores.

    Args:
        old: The interpreter of the store that is to be left. It answers until the cut.
        new: That of an empty store, or of one that was the new one of an earlier mirror around the same two.
        in_background: Whether a thread brings the other one after it. If not, `catch_up` does.

    Raises:
        InvalidRequest: If the new store has something in it that is not the old one's; if one cannot be watched.

    >>> from interpreters import Store
    >>> from interpreters.stores.memory import MemoryStore
    >>> moving = Mirror(MemoryStore(), MemoryStore())
    >>> with Store(moving) as store:
    ...     _ = store.run(log.append("orders/1", "placed", {"total": 12}))
    ...     moving.cut()
    ...     _ = store.run(log.append("orders/1", "paid", {"total": 12}))
    ...     moving.moving().answering, [event.seq for event in store.run(log.read("orders/1"))]
    ('new', [1, 2])
    """

    blocking = True

    def __init__(self, old: Interpreter, new: Interpreter, *, in_background: bool = True) -> None:
        for name, store in zip(STORES, (old, new), strict=True):
            check_interpreter(f"the {name} store of a mirror", store)
            if not hasattr(store, "watch"):
                raise InvalidRequest(f"the {name} store, a {type(store).__name__}, has no watch(request, notify)")
        self._stores = (Store(old), Store(new))
        self.capabilities = _least(*(store.capabilities for store in self._stores))
        """What both promise."""
        # Held by who brings one after the other; and by a cut, for the moment in which writes wait.
        self._copying = threading.Lock()
        self._gate = threading.Lock()
        self._in_flight: set[object] = set()
        self._are_over = Gate()
        self._watched: dict[object, _Watched] = {}
        self._ended: PersistError | None = None
        self._undecided: PersistError | None = None
        self._trouble: PersistError | None = None
        self._is_finished = False
        self._lead = 0
        self._era = 0
        # Above which positions each era stands, of which the first begins at 0.
        self._bases: tuple[int, ...] = ()
        # The newest position of the store that answers when it began to.
        self._cut_at = 0
        self._copy: Copy | None = None
        # Whether all that was there before was copied.
        self._is_whole = False
        self._find_out_who_answers()
        self._written = self._from_now_on()
        self._begun_copy()
        self.handlers: Handlers = {
            **dict.fromkeys(WRITES, self._write),
            **dict.fromkeys(READS, self._read),
            **dict.fromkeys((Wait, KvWait), self._wait),
        }
        self._closing = Gate()
        self._keeper = BackgroundThread(self._keep, "persist-effects mirror")
        if in_background:
            self._keeper.start()
        forks.register(self)

    def close(self) -> None:
        """Close both stores. What was not copied yet is, once both are opened again. Again: nothing."""
        self._ended = self._ended or StoreClosed("the mirror was closed: open it again")
        self._closing.open()
        if not self._is_fork:
            self._keeper.join()
        try:
            self._stores[0].close()
        finally:
            self._stores[1].close()

    _is_fork = False

    def state_lock(self) -> forks.StateLock | None:
        """A fork waits for nothing: the child only reads."""
        return None

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: it reads what its stores let it read. What it wrote, the parent would not copy."""
        self._is_fork = True
        self._copying, self._gate = threading.Lock(), threading.Lock()
        self._in_flight.clear()
        self._watched.clear()

    # Who answers

    def _find_out_who_answers(self) -> None:
        states = [state_in(store) or CopyState() for store in self._stores]
        self._lead = 1 if states[1].era > states[0].era else 0
        answering = states[self._lead]
        self._era, self._bases, self._cut_at = answering.era, answering.bases, answering.position

    def _from_now_on(self) -> WrittenThrough:
        return WrittenThrough(*newest_of(self._leading))

    @property
    def _leading(self) -> Store:
        return self._stores[self._lead]

    @property
    def _following(self) -> Store:
        return self._stores[1 - self._lead]

    def moving(self) -> Moving:
        """How far the move is.

        Returns:
            How far.
        """
        copied = 0 if self._copy is None else self._copy.state.position
        return Moving(STORES[self._lead], copied, self._leading.run(log.head()), self._trouble)

    # Copying

    def catch_up(self, progress: Progress | None = None) -> None:
        """Bring the store that follows after the one that answers.

        Args:
            progress: Told now and then how far it is.

        Raises:
            StoreUnavailable: If one of them cannot be asked. Do it again.
            InvalidRequest: If another program writes to the one that follows.
        """
        with self._copying:
            self._catch_up(progress)

    def _catch_up(self, progress: Progress | None = None) -> None:
        self._check_moving()
        copy = self._begun_copy()
        copy.progress = progress
        written, is_whole = self._written, self._is_whole
        streams, keys = written.take()
        try:
            # What a key says of a position is of an event that is there by now, and is copied before it.
            entries = copy.keys_of(keys) if is_whole else copy.keys_that_differ()
            copy.events()
            copy.streams(streams if is_whole else None)
            copy.put(entries, is_all=not is_whole)
        except BaseException:
            # Some of it may be done. What there is to be found out is found out anew.
            written.mark(streams, keys)
            self._copy, self._is_whole = None, False
            raise
        self._is_whole = True

    def _begun_copy(self) -> Copy:
        if self._copy is None:
            # Who closes the mirror waits for it.
            copy = Copy(self._leading, self._following, on_events=self._saw, order_seconds=MOMENT_SECONDS)
            if not self._era:
                copy.begin(HEADROOM)
            else:
                found = state_in(self._following)
                if found is not None and not found.era and found.of == self._era:
                    copy.state = found
                else:
                    # It was not told yet that it follows. It has what the other one had then.
                    copy.begin_at(CopyState(self._cut_at, of=self._era), HEADROOM)
            self._copy = copy
        return self._copy

    def _saw(self, events: Sequence[Event]) -> None:
        self._written.saw(events)

    def _keep(self) -> None:
        while not self._closing.wait(INTERVAL_SECONDS):
            try:
                self.catch_up()
                self._trouble = None
            except PersistError as error:
                if self._ended is not None or self._is_finished:
                    return
                self._trouble = error

    def _check_moving(self) -> None:
        self._check_open()
        if self._is_finished:
            raise InvalidRequest("this move was finished: one store answers, and nothing is copied any more")
        if self._is_fork:
            raise StoreUnavailable("this process was forked from the one that has the mirror, which copies")

    # The cut

    def cut(self, timeout: float = MOMENT_SECONDS, progress: Progress | None = None) -> None:
        """Have the new store answer, once all that the old one has is in it.

        All events, streams and keys are compared first, while writes go on. Then writes wait for a moment.

        Args:
            timeout: How many seconds they may wait for those that are on their way.
            progress: Told now and then how far the comparing is.

        Raises:
            InvalidRequest: If something was written past this mirror, which is named. It is copied; what was written
                past it before is no reason to refuse the next cut.
            CorruptStore: If the stores differ.
            StoreUnavailable: If one of them cannot be asked, or what is on its way does not end. The old one answers
                on, unless the message says otherwise.
        """
        self._cut_to(1, timeout, progress)

    def roll_back(self, timeout: float = MOMENT_SECONDS, progress: Progress | None = None) -> None:
        """Have the old store answer again, with all that was written since the cut. As `cut`, the other way round.

        Args:
            timeout: As for `cut`.
            progress: As for `cut`.

        Raises:
            InvalidRequest: As `cut`.
            CorruptStore: As `cut`.
            StoreUnavailable: As `cut`.
        """
        self._cut_to(0, timeout, progress)

    def finish(self) -> None:
        """End the move: from now on nothing is copied any more, and the other store may be thrown away.

        Raises:
            StoreUnavailable: If one of the stores cannot be asked. Do it again.
        """
        with self._copying:
            if self._is_finished:
                return
            self._check_moving()
            # First of the one that follows: as long as the other one has it, the two are known to belong together.
            self._following.run(kv.delete(STATE))
            self._leading.run(kv.delete(STATE))
            self._is_finished = True

    def _cut_to(self, to: int, timeout: float, progress: Progress | None) -> None:
        with self._copying:
            if self._lead == to:
                raise InvalidRequest(f"the {STORES[to]} store answers already")
            self._catch_up(progress)
            streams, keys = self._compare(progress)
            self._catch_up()
            with self._gate:
                self._wait_for_writes(timeout)
                self._leading.wait_for_order(timeout)
                self._catch_up()
                self._following.wait_for_order(timeout)
                self._check(streams, keys)
                self._switch()
            self._begun_copy()

    def _compare(self, progress: Progress | None) -> tuple[set[str], set[str]]:
        """Compare all, while writes go on. Which streams and keys were not the same, beside events still to come."""
        copy = self._begun_copy()
        copy.progress = progress
        self._following.wait_for_order()
        comparison = copy.comparison()
        comparison.events(through=copy.state.position)
        streams = set(filter(comparison.are_dropped_apart, comparison.streams()))
        keys = set(comparison.keys())
        self._written.mark(streams, keys)
        return streams, keys

    def _wait_for_writes(self, timeout: float) -> None:
        self._are_over = Gate()
        if self._in_flight:
            wait_until_told(self._are_over, timeout, lambda: not self._in_flight)
        if self._in_flight:
            raise StoreUnavailable(
                f"{len(self._in_flight)} writes are on their way for more than {timeout} s: the "
                f"{STORES[self._lead]} store answers on: cut again"
            )

    def _check(self, streams: Iterable[str], keys: Iterable[str]) -> None:
        copy, written = self._begun_copy(), self._written
        past_it = written.past_it(streams, copy.keys_of(keys))
        if past_it is not None:
            self._written = self._from_now_on()
            raise InvalidRequest(
                f"the cut is refused: past this mirror somebody wrote {past_it}: stop who does so, and cut again; what "
                "was written was copied"
            )
        comparison = copy.comparison()
        for difference in (*map(comparison.stream, streams), *map(comparison.key, keys)):
            if difference is not None:
                raise CorruptStore(difference)
        for newest, base in zip(newest_of(self._leading, MOMENT_SECONDS), copy.state.base, strict=True):
            if newest >= base:
                raise InvalidRequest(
                    f"the {STORES[self._lead]} store has come to {newest}, and the other begins at {base}: that was "
                    "more than was foreseen: begin anew with an empty store"
                )

    def _switch(self) -> None:
        copy, era = self._begun_copy(), self._era + 1
        position, revision = newest_of(self._following, MOMENT_SECONDS)
        bases = (*self._bases, copy.state.base[0])
        # Until it is known who answers, which an interrupt may come before, nobody does.
        self._undecided = StoreUnavailable(
            f"whether the {STORES[1 - self._lead]} store answers now is not known: close the mirror and open it again, "
            "once that store can be asked"
        )
        interrupt = self._decide(CopyState(position, era=era, bases=bases))
        # From here on the other one answers, whatever comes.
        self._lead, self._era, self._bases, self._cut_at = 1 - self._lead, era, bases, position
        self._copy, self._written = None, WrittenThrough(position, revision)
        self._undecided = None
        for watched in list(self._watched.values()):
            watched.go_on_at(self)
        if interrupt is not None:
            raise interrupt

    def _decide(self, state: CopyState) -> BaseException | None:
        """Write who answers. The interrupt that came meanwhile, where it is known that it is written."""
        try:
            self._following.run(perform(noting(state)))
        except (InvalidRequest, StoreUnavailable):
            self._undecided = None
            raise
        except BaseException as error:
            # It may have been written, or be yet.
            with suppress(PersistError):
                found = state_in(self._following)
                if found is not None and found.era == state.era:
                    return None if isinstance(error, Exception) else error
            if self._undecided is None or not isinstance(error, Exception):
                raise
            raise self._undecided from error
        return None

    # Answering

    def wait_for_order(self, timeout: float) -> None:
        """Wait until the store that answers shows all that it has acknowledged by now.

        Args:
            timeout: How many seconds at the most.

        Raises:
            StoreUnavailable: If it does not, by then.
        """
        self._check_open()
        self._leading.wait_for_order(timeout)

    def answer_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """The outcomes of several requests, together as the store that answers does it.

        Args:
            requests: The requests.

        Returns:
            Their outcomes, in order.
        """
        if any(type(request) in WRITES for request in requests):
            return self._through(requests)
        self._check_open()
        return self._answered_by(self._leading, requests)

    def _answered_by(self, store: Store, requests: Sequence[Request[Any]]) -> list[Outcome]:
        if any(map(has_sql, requests)):
            return self._answered_without_sql(store, requests)
        asked = [self._translated(request) for request in requests]
        interpreter = store.interpreter
        submit: Submit | None = getattr(interpreter, "submit", None)
        answer_all: AnswerAll | None = getattr(interpreter, "answer_all", None)
        if submit is not None:
            answer_all = answering_through(submit)
        if answer_all is None or len(asked) == 1:
            return [_outcome(interpreter, request) for request in asked]
        return answer_all(asked)

    def _answered_without_sql(self, store: Store, requests: Sequence[Request[Any]]) -> list[Outcome]:
        others = iter(self._answered_by(store, [request for request in requests if not has_sql(request)]))
        return [Failed(_no_sql(request)) if has_sql(request) else next(others) for request in requests]

    def _through(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """Have them answered, and note what of them was written before a cut can pass."""
        token = object()
        try:
            with self._gate:
                self._check_writable()
                self._in_flight.add(token)
                store, written = self._leading, self._written
            outcomes: list[Outcome] = []
            try:
                outcomes = self._answered_by(store, requests)
            finally:
                # Of those that have no outcome, nothing is known.
                unknown = [Failed(StoreUnavailable("interrupted"))] * (len(requests) - len(outcomes))
                for request, outcome in zip(requests, [*outcomes, *unknown], strict=True):
                    if type(request) in WRITES:
                        written.note(cast(WriteRequest, request), outcome)
            return outcomes
        finally:
            self._in_flight.discard(token)
            if not self._in_flight:
                self._are_over.open()

    def _write(self, request: Request[Any]) -> Any:
        (outcome,) = self.answer_all([request])
        if isinstance(outcome, Answered):
            return outcome.value
        raise outcome.error

    def _read(self, request: Request[Any]) -> Any:
        self._check_open()
        return self._leading.interpreter.handlers[type(request)](self._translated(request))

    def clock(self) -> int:
        """The time by the clock that stamps what is written: that of the store that answers.

        Returns:
            Microseconds since 1970, UTC.
        """
        self._check_open()
        now: int = self._leading.handlers[Now](Now())
        return now

    def _wait(self, request: Wait | KvWait) -> int:
        return wait(request, self.watch, self._newest)

    def _newest(self, request: Wait | KvWait) -> int:
        newest: int = self._read(msgspec.structs.replace(request, timeout=0.0))
        return newest

    def watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """Call ``notify()`` once as soon as a wait is over, before or after a cut, or the store is closed.

        Args:
            request: What is waited for. Its timeout is for the caller to see to.
            notify: Called from any thread, or at once.

        Returns:
            The function that ends the watch.
        """
        token, watched = object(), _Watched(request, notify)
        self._watched[token] = watched

        def end_watch() -> None:
            self._watched.pop(token, None)
            watched.end()

        try:
            lead = self._lead
            watched.go_on_at(self)
            if lead != self._lead:
                watched.go_on_at(self)
        except BaseException:
            end_watch()
            raise
        return end_watch

    def watch_leading(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """Watch the store that answers now.

        Args:
            request: As for `watch`.
            notify: As for `watch`.

        Returns:
            The function that ends the watch.
        """
        interpreter: Any = self._leading.interpreter
        end_watch: Callable[[], None] = interpreter.watch(self._translated(request), notify)
        return end_watch

    def _check_open(self) -> None:
        # A cut that is at it holds the gate.
        if self._ended is None and self._undecided is not None and not self._gate.locked():
            self._ended = self._undecided
        if self._ended is not None:
            raise self._ended

    def _check_writable(self) -> None:
        """With the gate: a cut that was at it has ended."""
        self._ended = self._ended or self._undecided
        self._check_open()
        if self._is_fork:
            raise StoreUnavailable("this process was forked from the one that has the mirror: write there")

    def _translated(self, request: Request[Any]) -> Request[Any]:
        """A request in which positions of the other store, from before a cut, are of the one that answers."""
        if not self._bases:
            return request
        if isinstance(request, ReadAll):
            after, until = self._position(request.after), request.until
            if isinstance(until, int):
                until = self._position(until)
            if after != request.after or until != request.until:
                return msgspec.structs.replace(request, after=after, until=until)
        elif isinstance(request, Wait):
            return msgspec.structs.replace(request, after=self._position(request.after))
        return request

    def _position(self, position: int) -> int:
        era = bisect_right(self._bases, position)
        if not position or era % 2 == self._lead:
            return position
        # What the other one has not yet was written after the cut.
        return position_in(self._leading, self._stores[era % 2], position, end=self._cut_at)


class _Watched:
    """A wait, at whichever store answers."""

    def __init__(self, request: Wait | KvWait, notify: Notify) -> None:
        self._request = request
        self._notify = notify
        self._lock = threading.Lock()
        self._is_told = False
        self._end_watch: Callable[[], None] = _nothing

    def go_on_at(self, mirror: Mirror) -> None:
        """Watch the store that answers now, and no other."""
        before, self._end_watch = self._end_watch, _nothing
        before()
        self._end_watch = mirror.watch_leading(self._request, self._tell)

    def end(self) -> None:
        """Watch no more."""
        self._is_told = True
        self._end_watch()

    def _tell(self) -> None:
        with self._lock:
            is_told, self._is_told = self._is_told, True
        if not is_told:
            self._notify()


def mirror(old: Interpreter, new: Interpreter, *, in_background: bool = True) -> Mirror:
    """An interpreter around two stores, to move from the one to the other while programs use it: see `Mirror`.

    Args:
        old: The interpreter of the store that is to be left.
        new: That of the one that is to answer in the end.
        in_background: Whether a thread copies. If not, `Mirror.catch_up` does.

    Returns:
        The interpreter.

    Raises:
        InvalidRequest: If the new store has something in it that is not the old one's; if one cannot be watched.

    >>> from interpreters import Store
    >>> from interpreters.stores.memory import MemoryStore
    >>> with Store(mirror(MemoryStore(), MemoryStore())) as store:
    ...     store.run(kv.put("color", "red"))
    1
    """
    return Mirror(old, new, in_background=in_background)


def _nothing() -> None:
    """There is no watch to be ended."""


def _outcome(interpreter: Interpreter, request: Request[Any]) -> Outcome:
    try:
        return Answered(interpreter.handlers[type(request)](request))
    except Exception as error:
        return Failed(error)


def _no_sql(request: Request[Any]) -> InvalidRequest:
    return InvalidRequest(
        f"{request.op}: a mirror takes no SQL: it copies events and keys, and no tables: move the store while nobody "
        "writes rows, then have them built anew: followers.rebuild"
    )


def _least(one: Capabilities, other: Capabilities) -> Capabilities:
    """What two stores both promise."""
    limits = [each.batch_limit for each in (one, other) if each.batch_limit is not None]
    durability: Durability = min((one.durability, other.durability), key=DURABILITIES.index)
    return Capabilities(
        durability=durability,
        order_lags=one.order_lags or other.order_lags,
        payload_limit_bytes=min(one.payload_limit_bytes, other.payload_limit_bytes),
        batch_limit=min(limits, default=None),
        reopen=one.reopen and other.reopen,
        transact=one.transact and other.transact,
        wait=one.wait and other.wait,
    )
