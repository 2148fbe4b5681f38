"""Operations of several steps: a store whose steps come apart is found, and one whose steps do not passes."""

import pytest

from interpreters import Store, open_store
from interpreters.explore import Pause, explore, simulate
from interpreters.stores.memory import MemoryStore
from persist_effects import Conflict, Draft, UncertainOutcome, all_of, blob, kv, log, perform, transact
from persist_effects.requests import Append, ExpectSeq, Failed, KvGet, KvPut, LastSeq, Read, Wait


class Planted:
    """A memory store with some rows of its handler table replaced."""

    def __init__(self):
        self.healthy = MemoryStore(clock=lambda: 0)
        self.rows = self.healthy.handlers
        self.handlers = {**self.rows, **self.plant()}

    def plant(self):
        """The rows that are replaced: here, none."""
        return {}

    def close(self):
        self.healthy.close()


class ChecksBeforeItWrites(Planted):
    """Looks for a conflict in one step, and writes in another."""

    def plant(self):
        return {KvPut: self._put, Append: self._append}

    def _put(self, request):
        found = self.rows[KvGet](KvGet(request.key))
        revision = found.revision if found else 0
        if request.expected not in (None, revision):
            return Conflict("key", request.key, request.expected, revision)
        yield Pause()
        return self.rows[KvPut](KvPut(request.key, request.value))

    def _append(self, request):
        last = self.rows[LastSeq](LastSeq(request.stream))
        if request.expected not in (None, last):
            return Conflict("stream", request.stream, request.expected, last)
        yield Pause()
        return self.rows[Append](Append(request.stream, request.events))


class ChecksAndWritesAtOnce(Planted):
    """Takes several steps too, but all that matters happens in one of them."""

    def plant(self):
        return {kind: self._slowly(kind) for kind in (KvPut, KvGet, Append, Read)}

    def _slowly(self, kind):
        def answer(request):
            yield Pause()
            found = self.rows[kind](request)
            yield Pause()
            return found

        return answer


class ReadsInHalves(Planted):
    """Reads the head of a stream in one step, and its events in another."""

    def plant(self):
        return {Read: self._read}

    def _read(self, request):
        head = self.rows[LastSeq](LastSeq(request.stream))
        yield Pause()
        page = self.rows[Read](request)
        return type(page)(page.events, page.next, head, page.hole)


class Doubts(Planted):
    """Does not say what came of a put; `is_written` says it."""

    is_written = True

    def plant(self):
        return {KvPut: self._put}

    def _put(self, request):
        if self.is_written:
            self.rows[KvPut](request)
        raise UncertainOutcome("the store was lost in the middle of a commit")


class DoubtsWithoutWriting(Doubts):
    is_written = False


class LosesWhatItAcknowledged(Planted):
    """Says that a put is done, and does it only if the key is there already."""

    def plant(self):
        return {KvPut: lambda request: self.rows[KvPut](request) if self.rows[KvGet](KvGet(request.key)) else 1}


def claim(name):
    def go():
        return (yield from kv.put_expect("leader", 0, name))

    return go


def claim_in_log(name):
    def go():
        return (yield from log.append_expect("terms", 0, "elected", name))

    return go


# What is found


def test_a_conflict_check_outside_of_the_atomic_step_is_found_and_its_history_shown():
    report = explore(
        {"ada": claim("ada"), "bob": claim("bob"), "cleo": claim("cleo")}, ChecksBeforeItWrites, linearizable=True
    )
    assert report.verdict == "failed"
    failure = report.failures[0]
    assert failure.kind == "not linearizable"
    assert failure.found.split("\n") == [
        "no order does:",
        "steps 1 to 4: ada persist/kv-put leader 'ada' → 2",
        "steps 2 to 3: bob persist/kv-put leader 'bob' → 1",
        "the longest row: bob #1",
        f"then persist/kv-put leader 'ada' would be → {Conflict('key', 'leader', 0, 1)}",
    ]
    assert failure.trace == (
        "ada  #1 persist/kv-put leader 'ada' → 2, in step 4",
        "bob  #1 persist/kv-put leader 'bob' → 1, in step 3",
        "bob  #2 simulate/pause",
        "ada  #2 simulate/pause",
    )
    assert failure.token == "s1:only 0,1:0,1,1,0"
    programs = [claim("ada"), claim("bob"), claim("cleo")]
    again = explore(programs, ChecksBeforeItWrites, linearizable=True, repro=failure.token)
    assert again.failures[0].kind == "not linearizable"


def test_the_same_in_a_stream_is_found():
    report = explore([claim_in_log("ada"), claim_in_log("bob")], ChecksBeforeItWrites, linearizable=True)
    assert [failure.kind for failure in report.failures] == ["not linearizable"]


def test_a_page_whose_parts_are_from_two_moments_is_found():
    def read():
        return (yield from perform(Read("s")))

    def append():
        yield from log.append("s", "made", 1)

    report = explore([read, append], ReadsInHalves, linearizable=True)
    assert report.failures[0].kind == "not linearizable"
    assert "persist/read s → 1 events, head 0" in report.failures[0].found


def test_an_acknowledged_write_that_is_lost_is_found_without_any_overlap():
    def put_and_look():
        yield from kv.put("a", 1)
        return (yield from kv.get("a"))

    report = explore([put_and_look], LosesWhatItAcknowledged, linearizable=True)
    assert report.failures[0].kind == "not linearizable"


def test_a_deadlock_among_the_parts_of_a_write_is_shown_with_all_that_take_part():
    def produce():
        if not (yield from kv.get("leader")):
            yield from log.append("jobs", "made", 1)

    def consume():
        yield from perform(Wait(0, "jobs", float("inf")))

    report = explore({"produce": produce, "consume": consume, "ada": claim("ada")}, Planted)
    failure = report.failures[0]
    assert failure.kind == "deadlock"
    assert failure.survivors == ("produce returned None", "consume has not ended", "ada returned 1")


def test_a_crash_may_come_once_an_operation_of_several_steps_is_done():
    def look_twice(outcomes):
        value = yield from kv.get("leader")
        assert value != "ada", "ada leads"

    def claim_for_nobody():
        entry = yield from kv.entry("leader")
        if entry is None:
            yield from kv.put("leader", "ada")
            yield from kv.put("leader", "nobody")

    report = explore([claim_for_nobody], ChecksAndWritesAtOnce, look_twice, crashes=True)
    assert report.failures[0].found.startswith("AssertionError: ada leads")
    assert "crash-during" in "".join(report.failures[0].trace)


# What passes


@pytest.mark.parametrize("store", [Planted, ChecksAndWritesAtOnce])
@pytest.mark.parametrize("make", [claim, claim_in_log])
def test_a_store_that_checks_and_writes_in_one_step_passes(store, make):
    report = explore([make("ada"), make("bob")], store, linearizable=True)
    assert report.verdict == "passed"
    assert report.is_exhaustive
    assert report.equal == 0


def test_a_store_that_holds_something_already_passes():
    def filled():
        planted = ChecksAndWritesAtOnce()
        healthy = Store(planted.healthy)
        healthy.run(log.append_many("terms", [Draft("elected", "old"), Draft("elected", "older")]))
        healthy.run(log.append("gone", "made", 1))
        healthy.run(log.truncate_through("terms", 1))
        healthy.run(log.truncate_through("gone", 1))
        healthy.run(kv.put("a", 1))
        healthy.run(kv.put("leader", "old"))
        healthy.run(kv.put("a", 2))
        return planted

    def look_around():
        entry = yield from kv.entry("leader")
        yield from kv.put_expect("leader", entry.revision, "new")
        yield from log.append("terms", "elected", "new")
        yield from log.append_expect("gone", 1, "made", 2)
        yield from log.page_all()
        return (yield from log.read("terms"))

    report = explore([look_around, claim("bob")], filled, linearizable=True, bound=1)
    assert report.verdict == "passed"


@pytest.mark.parametrize("store", [Doubts, DoubtsWithoutWriting])
def test_a_write_of_uncertain_outcome_may_have_happened_or_not(store):
    def put():
        try:
            yield from kv.put("a", 1)
        except UncertainOutcome:
            return "who knows"

    def look_twice():
        return (yield from kv.get("a")), (yield from kv.get("a"))

    assert explore([put, look_twice], store, linearizable=True).verdict == "passed"


def test_a_write_whose_program_was_gone_may_have_happened_or_not():
    def look_twice():
        return (yield from kv.get("leader")), (yield from kv.get("leader"))

    report = explore([claim("ada"), look_twice], ChecksAndWritesAtOnce, linearizable=True, crashes=True, bound=2)
    assert report.verdict == "passed"
    assert report.checked > 100


def test_transactions_and_several_requests_at_once_are_operations_too():
    def transfer():
        entry = yield from kv.entry("a")
        writes = KvPut("a", 1, entry.revision if entry else 0), Append("log", (Draft("moved", 1),))
        return (yield from transact(*writes, checks=[ExpectSeq("other", 0)]))

    def look():
        yield from all_of(kv.get("a"), kv.put("b", 1), log.page_all(), kv.delete("b"), log.streams(), kv.keys())

    report = explore([transfer, transfer, look], Planted, linearizable=True, bound=2)
    assert report.verdict == "passed"
    assert report.checked > 50


def test_blobs_are_no_operations_on_streams_and_keys():
    def put_and_look():
        ref = yield from blob.put(b"red", "text/plain")
        yield from kv.put("color", ref.cid)
        return (yield from blob.get(ref))

    assert explore([put_and_look, claim("ada")], lambda: open_store("memory:"), linearizable=True).verdict == "passed"


def test_an_error_of_the_callers_is_the_same_in_the_memory_store():
    no_value = object()

    def put_what_cannot_be():
        yield from kv.put("a", no_value)

    def judge(outcomes):
        assert isinstance(outcomes[0], Failed)
        yield from kv.get("a")

    assert explore([put_what_cannot_be, claim("ada")], Planted, judge, linearizable=True).verdict == "passed"


def test_a_simulation_shows_operations_that_overlap():
    for seed in range(20):
        done = simulate({"ada": claim("ada"), "bob": claim("bob")}, Store(ChecksBeforeItWrites()), seed)
        if sorted(outcome.value for outcome in done.outcomes if isinstance(outcome.value, int)) == [1, 2]:
            break
    else:
        raise AssertionError("no seed of twenty shows it")
    assert "in step" in str(done)


def test_an_operation_may_ask_its_own_store():
    class Retries(Planted):
        """A put that asks for the old value first, by a request of its own."""

        def plant(self):
            return {KvPut: self._put}

        def _put(self, request):
            yield KvGet(request.key)
            return self.rows[KvPut](request)

    report = explore([claim("ada"), claim("bob")], Retries, linearizable=True)
    assert report.verdict == "passed"
    assert report.checked == 6
