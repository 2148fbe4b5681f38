# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of several threads: waiting, racing writers, and readers beside them.

Nothing here sleeps: a right store passes in every interleaving, given some seconds. A wait in a thread is one without
end, so that a store which never wakes it is found by the patience that a fact has, and not saved by the timeout.
"""

import math
import threading
from collections.abc import Callable
from functools import partial

from interpreters.conformance.facts.base import (
    PATIENCE_SECONDS,
    Facts,
    append,
    ask,
    ask_at_once,
    data_of,
    needs,
    put,
    read_everything,
)
from interpreters.runtime.store import Store
from persist_effects import kv
from persist_effects.event import Draft
from persist_effects.requests import (
    Append,
    Appended,
    Conflict,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvPut,
    KvWait,
    LastSeq,
    ReadAll,
    Transact,
    TruncateThrough,
    Wait,
)

_THREADS = 4
_ROUNDS = 15


class WaitFacts(Facts):
    """Waiting for events."""

    @needs("wait")
    def test_a_wait_for_what_is_there_already_returns_at_once(self, store: Store) -> None:
        first = append(store, "a", 1).position
        newest = append(store, "a", 2).position
        assert self.together(lambda: ask(store, Wait(first, timeout=math.inf))) == [newest]
        assert self.together(lambda: ask(store, Wait(0, timeout=math.inf))) == [newest]

    @needs("wait")
    def test_a_wait_gives_the_newest_position_at_its_timeout(self, store: Store) -> None:
        assert ask(store, Wait(0)) == 0
        assert ask(store, Wait(0, timeout=0.01)) == 0
        newest = append(store, "a", 1).position
        assert ask(store, Wait(newest)) == newest
        assert ask(store, Wait(newest, timeout=0.01)) == newest
        assert ask(store, Wait(newest + 1_000, timeout=0.01)) == newest

    @needs("wait")
    def test_a_wait_with_a_prefix_does_not_see_its_neighbours(self, store: Store) -> None:
        newest = append(store, "orders/1", 1).position
        for neighbour in ("orders", "orders-old", "Orders/1", "my/orders/"):
            append(store, neighbour, 2)
        assert ask(store, Wait(0, "orders/", timeout=PATIENCE_SECONDS)) == newest
        assert ask(store, Wait(newest, "orders/")) == newest
        assert ask(store, Wait(newest, "orders/", timeout=0.01)) == newest
        assert ask(store, Wait(0, "nothing", timeout=0.01)) == 0

    @needs("wait")
    def test_the_newest_position_is_remembered_after_its_event_was_truncated(self, store: Store) -> None:
        newest = append(store, "a", 1).position
        ask(store, TruncateThrough("a", 1))
        assert ask(store, Wait(0, timeout=PATIENCE_SECONDS)) == newest
        assert ask(store, Wait(0, "a", timeout=PATIENCE_SECONDS)) == newest

    @needs("wait")
    def test_a_waiting_thread_is_woken_by_an_append(self, store: Store) -> None:
        """Two threads wake each other in turn, so most of the waits begin before their event."""

        def echo() -> list[int]:
            after = 0
            heard = []
            for _ in range(_ROUNDS):
                after = ask(store, Wait(after, "ping/", math.inf))
                heard.append(after)
                append(store, "pong/", after)
            return heard

        def call() -> list[int]:
            after = 0
            said = []
            for number in range(_ROUNDS):
                said.append(append(store, f"ping/{number}", number).position)
                answered = ask(store, Wait(after, "pong/", math.inf))
                assert answered > after, "the answer to this append did not wake the thread that waited for it"
                after = answered
            return said

        heard, said = self.together(echo, call)
        assert heard == said

    @needs("wait", "transact")
    def test_a_waiting_thread_is_woken_by_a_transaction(self, store: Store) -> None:
        """Again and again, since a thread that begins to wait after the write needs nobody to wake it."""

        def wait() -> list[int]:
            heard = [0]
            for number in range(_ROUNDS):
                heard.append(ask(store, Wait(heard[-1], "a", math.inf)))
                append(store, "heard", number)
            return heard[1:]

        def write() -> list[int]:
            heard_at, written = 0, []
            for number in range(_ROUNDS):
                append(store, "neighbour", number)
                answers = ask(store, Transact((KvPut("k", number), Append("a", (Draft("made", number),)))))
                assert isinstance(answers, list)
                appended: Appended = answers[1]
                written.append(appended.position)
                heard_at = ask(store, Wait(heard_at, "heard", math.inf))
            return written

        woken, written = self.together(wait, write)
        assert woken == written

    @needs("wait")
    def test_a_wait_without_end_is_not_over_before_its_event(self, store: Store) -> None:
        """Nor do events under other prefixes end it, nor what is done to keys."""

        def wait() -> list[int]:
            heard = [0]
            for _ in range(_ROUNDS):
                heard.append(ask(store, Wait(heard[-1], "a/", math.inf)))
                append(store, "heard", heard[-1])
            return heard[1:]

        def echo() -> list[int]:
            after = 0
            for number in range(2 * _ROUNDS):
                after = ask(store, Wait(after, "other", math.inf))
                append(store, "echo", number)
            return []

        def write() -> list[int]:
            after = heard_at = 0
            said = []
            for number in range(2 * _ROUNDS):
                # Until another thread has heard of it, so that one that would hear of it wrongly has, too.
                append(store, "other", number)
                put(store, "a/", number)
                after = ask(store, Wait(after, "echo", math.inf))
                if number % 2:
                    said.append(append(store, "a/b", number).position)
                    heard_at = ask(store, Wait(heard_at, "heard", math.inf))
            return said

        heard, _, said = self.together(wait, echo, write)
        assert heard == said

    @needs("wait")
    def test_all_who_wait_for_the_same_are_woken(self, store: Store) -> None:
        barrier = threading.Barrier(_THREADS)

        def wait() -> list[int]:
            heard = [0]
            for _ in range(_ROUNDS):
                barrier.wait(self.patience_seconds)
                heard.append(ask(store, Wait(heard[-1], "a", math.inf)))
            return heard[1:]

        def write() -> list[int]:
            said = []
            for number in range(_ROUNDS):
                barrier.wait(self.patience_seconds)
                said.append(append(store, "a", number).position)
            return said

        *all_heard, said = self.together(*[wait] * (_THREADS - 1), write)
        assert all_heard == [said] * (_THREADS - 1)

    @needs("wait")
    def test_what_a_wait_answers_can_be_read(self, store: Store) -> None:
        after = 0
        for number in range(_ROUNDS):
            append(store, "a", number)
            after = self.together(partial(ask_at_once, store, Wait(after, timeout=math.inf)))[0]
            page = ask_at_once(store, ReadAll(after - 1))
            assert [event.position for event in page.events] == [after]
            assert page.head == after


class KvWaitFacts(Facts):
    """Waiting for changes of keys. Under a prefix a store may answer too high, never too low."""

    @needs("wait")
    def test_a_wait_for_a_change_that_was_made_already_returns_at_once(self, store: Store) -> None:
        first = put(store, "a", 1)
        newest = put(store, "a", 2)
        assert self.together(lambda: ask(store, KvWait(first, timeout=math.inf))) == [newest]
        assert self.together(lambda: ask(store, KvWait(0, "a", timeout=math.inf))) == [newest]

    @needs("wait")
    def test_a_wait_for_a_change_gives_the_newest_revision_at_its_timeout(self, store: Store) -> None:
        append(store, "a", "an event is not a change of a key")
        assert ask(store, KvWait(0, timeout=0.01)) == 0
        newest = put(store, "a", 1)
        append(store, "a", 2)
        for timeout in (0, 0.01):
            assert ask(store, KvWait(newest, timeout=timeout)) == newest
            assert ask(store, KvWait(newest + 1_000, "a", timeout=timeout)) == newest

    @needs("wait")
    def test_a_change_is_told_under_each_prefix_of_its_key(self, store: Store) -> None:
        put(store, "b", 1)
        newest = put(store, "orders/1", 1)
        for prefix in ("", "o", "orders/", "orders/1"):
            assert ask(store, KvWait(0, prefix)) == newest
        assert put(store, "b", 2) > newest

    @needs("wait")
    def test_the_deletion_of_a_key_is_a_change_under_its_prefix(self, store: Store) -> None:
        before = put(store, "a/1", 1)
        ask(store, KvDelete("a/1"))
        deletion = ask(store, KvWait(before, timeout=PATIENCE_SECONDS))
        assert deletion > before
        assert ask(store, KvWait(before, "a/", timeout=PATIENCE_SECONDS)) == deletion
        ask(store, KvDelete("a/1"))
        assert ask(store, KvWait(0)) == deletion, "the deletion of an absent key took a revision"
        assert put(store, "a/1", 2) > deletion

    @needs("wait")
    def test_a_waiting_thread_is_woken_by_a_change(self, store: Store) -> None:
        """Two threads wake each other in turn, by puts and by deletions."""

        def echo() -> None:
            after = 0
            for number in range(_ROUNDS):
                after = _await_change(store, "ping", is_there=not number % 2, after=after)
                put(store, f"pong/{number}", number)

        def call() -> None:
            after = 0
            for number in range(_ROUNDS):
                ask(store, KvDelete("ping") if number % 2 else KvPut("ping", number))
                after = _await_change(store, f"pong/{number}", is_there=True, after=after)

        self.together(echo, call)

    @needs("wait", "transact")
    def test_a_transaction_wakes_those_who_wait_for_its_keys(self, store: Store) -> None:
        """Again and again, since a thread that begins to wait after the write needs nobody to wake it."""

        def echo() -> int:
            told = after = ask(store, KvWait(0, "ping/", math.inf))
            for number in range(_ROUNDS):
                after = _await_change(store, f"ping/{number}", is_there=True, after=after)
                put(store, f"pong/{number}", number)
            return told

        def call() -> int:
            after, written = 0, list[int]()
            for number in range(_ROUNDS):
                answers = ask(store, Transact((Append("b", (Draft("made", number),)), KvPut(f"ping/{number}", number))))
                assert isinstance(answers, list)
                written.append(answers[1])
                after = _await_change(store, f"pong/{number}", is_there=True, after=after)
            return written[0]

        told, written = self.together(echo, call)
        assert told == written

    @needs("wait")
    def test_whoever_goes_on_from_what_was_told_misses_no_change(self, store: Store) -> None:
        def follow() -> dict[str, int]:
            after, seen = 0, dict[str, int]()
            while seen.get("a/last") is None:
                told = ask_at_once(store, KvWait(after, "a/", math.inf))
                assert told > after
                for key, entry in ask(store, KvEntries("a/")):
                    if after < entry.revision <= told:
                        seen[key] = entry.revision
                after = told
            return seen

        def write() -> dict[str, int]:
            given = {f"a/{number % 5}": put(store, f"a/{number % 5}", number) for number in range(10 * _ROUNDS)}
            return given | {"a/last": put(store, "a/last", 0)}

        seen, given = self.together(follow, write)
        assert seen == given


class RaceFacts(Facts):
    """Writers that race, and readers beside them."""

    def test_of_writers_that_expect_the_same_one_wins(self, store: Store) -> None:
        for seq in range(_ROUNDS):
            barrier = threading.Barrier(_THREADS)

            def write(seq: int = seq, barrier: threading.Barrier = barrier) -> Appended | Conflict:
                barrier.wait()
                return ask(store, Append("a", (Draft("made", seq),), seq))

            answers = self.together(*[write] * _THREADS)
            lost = [answer for answer in answers if isinstance(answer, Conflict)]
            assert lost == [Conflict("stream", "a", seq, seq + 1)] * (_THREADS - 1)
        assert data_of(read_everything(store)) == list(range(_ROUNDS))

    def test_racing_updates_of_a_key_lose_nothing(self, store: Store) -> None:
        def count() -> None:
            for _ in range(_ROUNDS):
                store.run(kv.update("counter", lambda number: number + 1, 0))

        self.together(*[count] * _THREADS)
        entry = ask(store, KvGet("counter"))
        assert entry is not None
        assert entry.value == _THREADS * _ROUNDS

    def test_racing_appends_leave_no_gap_in_a_stream(self, store: Store) -> None:
        def write() -> list[int]:
            return [append(store, "a", 0).last_seq for _ in range(_ROUNDS)]

        given = [seq for seqs in self.together(*[write] * _THREADS) for seq in seqs]
        assert sorted(given) == list(range(1, _THREADS * _ROUNDS + 1))

    def test_a_reader_that_moved_past_a_position_never_finds_a_new_event_below_it(self, store: Store) -> None:
        """A position taken before its commit shows after others did; a reader who went on by then never sees it."""
        finished: list[str] = []

        def write(stream: str) -> list[int]:
            try:
                for number in range(_ROUNDS):
                    append(store, stream, number, number)
            finally:
                finished.append(stream)
            return []

        def follow() -> list[int]:
            seen: list[int] = []
            after = 0
            while True:
                is_last_round = len(finished) == _THREADS
                # Then what is shown is all of it, though the order lags.
                page = (ask if is_last_round else ask_at_once)(store, ReadAll(after, limit=7))
                seen += [event.position for event in page.events]
                after = page.next
                if is_last_round and page.next >= page.head:
                    return seen

        writers = [partial(write, f"writer {number}") for number in range(_THREADS)]
        *_, seen = self.together(*writers, follow)
        assert seen == [event.position for event in read_everything(store)]
        assert len(seen) == _THREADS * _ROUNDS * 2

    def test_another_thread_never_sees_a_part_of_an_append(self, store: Store) -> None:
        self._look_while(store, lambda number: ask(store, Append("a", (Draft("made", number), Draft("made", number)))))

    @needs("transact")
    def test_another_thread_never_sees_a_part_of_a_transaction(self, store: Store) -> None:
        self._look_while(
            store,
            lambda number: ask(
                store, Transact((Append("a", (Draft("made", number),)), Append("a", (Draft("made", number),))))
            ),
        )

    def _look_while(self, store: Store, write_two: Callable[[int], object]) -> None:
        """Another thread asks for the last sequence number until all is written: it is always even."""
        is_written = threading.Event()

        def write() -> list[int]:
            try:
                for number in range(_ROUNDS):
                    write_two(number)
            finally:
                is_written.set()
            return []

        def look() -> list[int]:
            seen: list[int] = []
            while not is_written.is_set():
                seen.append(ask(store, LastSeq("a")))
            return seen

        _, seen = self.together(write, look)
        assert [last for last in seen if last % 2] == []
        assert ask(store, LastSeq("a")) == 2 * _ROUNDS


def _await_change(store: Store, key: str, *, is_there: bool, after: int) -> int:
    """Wait until a key is there, or is not. Returns the revision from which on to wait for another."""
    while ask(store, KvHas(key)) is not is_there:
        after = ask_at_once(store, KvWait(after, key, math.inf))
    return after
