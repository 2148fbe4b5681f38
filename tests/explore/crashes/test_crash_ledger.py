"""The order ledger after crashes of the disk: log, read model, snapshot, compaction and invoices, all at once.

The workload is the example's own day, with the store's files compacted and the store opened again in the middle. The
power fails at every request that changes the disk, and leaves whatever POSIX allows; then what was acknowledged must
be there, the read model must fit the log, and the day, run again, must come to where it would have come.
"""

import random
from functools import reduce
from itertools import islice
from typing import Any

import pytest
from test_order_ledger import example

from interpreters import open_store
from interpreters.blobs.memory import MemoryBlobs
from interpreters.disk.crashing import MUTATING, Bound, CrashDisk, Image
from interpreters.explore import Compact, Reopen, explore_crashes
from interpreters.explore.crashes.simulated import SimulatedStore, contents
from persist_effects import Effect, KvPut, blob, kv, log, perform, run, snapshot
from persist_effects.requests import Append, Event, Request

pytestmark = pytest.mark.exploration

LEDGER = example.LEDGER
STEP = example.SCHEMA.typed(example.step)

TORN = Bound(tear_bytes=512, subsets=64)
WHOLE = Bound(tear_bytes=0, subsets=64)
"""No write is torn: a tenth of the states."""


def blobs() -> Any:
    return MemoryBlobs().handlers


def another_order() -> Effect[None]:
    """The last tea, once the day's work is done, and its invoice."""
    yield from example.place("o-4", "tea", 1)
    yield from example.tend()
    yield from example.ledger()


def day() -> Effect[None]:
    yield from example.ledger()
    yield from perform(Compact())
    yield from another_order()
    yield from perform(Reopen())
    yield from example.ledger()


def day_again() -> Effect[None]:
    """What whoever starts the application again runs: the same programs, from the first."""
    yield from example.ledger()
    yield from another_order()


def undisturbed() -> tuple[Any, int]:
    """The ledger and its last sequence number after a day without a crash."""
    with open_store("memory:") as store:
        store.run(day_again())
        return store.run(example.current()).value, store.run(log.last_seq(LEDGER))


END, END_SEQ = undisturbed()


# What must hold after a crash


def events_of(requests: list[Request[Any]]) -> list[Event]:
    """The events that these writes, in order, give an empty ledger; one that lost a race gives none."""
    events: list[Event] = []
    for request in requests:
        if isinstance(request, Append) and request.stream == LEDGER and request.expected == len(events):
            draft = request.events[0]
            events.append(Event(LEDGER, len(events) + 1, draft.type, 0, draft.data, 1, None))
    return events


def look(acked, maybe):
    """Everything acknowledged is there, and the parts fit each other. Of blobs it only reads."""
    certain = events_of([request for request, _ in acked])
    possible = events_of([*(request for request, _ in acked), *maybe])
    now = yield from example.current()
    last = yield from log.last_seq(LEDGER)
    assert last in {len(certain), len(possible)}, f"the last event is {last}, {len(certain)} were acknowledged"
    assert now.seq == last, f"the ledger ends at {now.seq}, its log at {last}"
    folded = reduce(STEP, possible[:last], example.Ledger())
    assert now.value == folded, f"found {now.value}, the events give {folded}"
    assert (yield from snapshot.covered_seq(LEDGER)) <= last, "the snapshot is ahead of its log"
    yield from example.check_ledger()
    for sku in example.STOCK:
        assert (yield from kv.get_or(f"sales/{sku}", [0, 0])) == folded.sold(sku)


def go_on(acked, maybe):
    """The day, run again, ends as one that nothing disturbed; once more, and nothing changes; numbers go on."""
    yield from day_again()
    yield from example.check_ledger()
    assert (yield from example.current()).value == END
    assert (yield from log.last_seq(LEDGER)) == END_SEQ
    shown = yield from contents()
    yield from day_again()
    assert (yield from contents()) == shown, "the second time, something changed"
    event = yield from example.SCHEMA.append(LEDGER, example.Declined("o-9"))
    assert event.seq == END_SEQ + 1
    assert event.position > shown.position


def look_and_go_on(acked, maybe):
    yield from look(acked, maybe)
    yield from go_on(acked, maybe)


def test_the_day_has_orders_a_race_a_snapshot_and_invoices():
    assert (END.sold("tea"), END.sold("mug"), END.orders["o-3"]) == ([3, 1350], [1, 1200], None)
    assert sorted(END.invoices) == ["o-1", "o-2", "o-4"]
    assert END_SEQ == 7


# A check that puts blobs leaves them to the states after it, so what only looks is explored by itself.


@pytest.mark.parametrize(("profile", "bound"), [("posix", TORN), ("ordered", WHOLE), ("writeback", WHOLE)])
def test_after_any_crash_what_was_acknowledged_is_there_and_the_read_model_and_the_invoices_fit(profile, bound):
    report = explore_crashes(day, look, profile=profile, depth=1, bound=bound, effects=blobs)
    assert report.verdict == "passed", report
    assert report.is_exhaustive, report
    assert report.checked > 1_000


def test_after_any_crash_the_day_run_again_ends_as_if_nothing_had_been():
    report = explore_crashes(day, go_on, depth=1, bound=WHOLE, effects=blobs)
    assert report.verdict == "passed", report
    assert report.is_exhaustive, report


def test_after_a_sample_of_crashes_in_the_recovery_from_a_crash_too():
    report = explore_crashes(day, look_and_go_on, depth=2, bound=TORN, limit=1_500, seed=11, effects=blobs)
    assert report.verdict == "passed", report
    assert not report.is_exhaustive, "it is a sample, and says so"
    assert "sampled, seed 11" in str(report)
    assert 1_000 < report.checked <= 1_500
    assert sum(cell.states for cell in report.cells if cell.request.startswith("recovery")) > 1_000


# Two restarts


def crashed() -> tuple[list[tuple[str, Image]], MemoryBlobs]:
    """A sample of what crashes leave of the day, and the blobs, which are not on that disk."""
    draw = random.Random("the ledger's crashes")
    crash_disk, bytes_of_invoices = CrashDisk(), MemoryBlobs()
    found: list[tuple[str, Image]] = []

    def before(number: int, request: Request[Any]) -> None:
        if type(request) in MUTATING:
            states = list(islice(crash_disk.states("posix", TORN), 300))
            sample = draw.sample(range(len(states)), min(2, len(states)))
            found.extend((f"request {number}, state {index}", states[index].image) for index in sample)

    crash_disk.watch(before)
    for boot, program in enumerate((example.ledger, another_order, example.ledger), 1):
        store = SimulatedStore(crash_disk, boot=boot, segment_bytes=4096)
        run(program(), {**store.handlers, **bytes_of_invoices.handlers})
        if boot == 1:
            store.compact()
        store.close()
    return found, bytes_of_invoices


def start_again(image: Image, boot: int, bytes_of_invoices: MemoryBlobs) -> tuple[Any, Any, Image]:
    """Open, run the day, and lose the power with all that is not synced: what it showed before, after, and left."""
    crash_disk = CrashDisk(image)
    store = SimulatedStore(crash_disk, boot=boot, segment_bytes=4096)
    rows = {**store.handlers, **bytes_of_invoices.handlers}
    before = run(contents(), rows)
    run(day_again(), rows)
    run(example.check_ledger(), rows)
    after = run(contents(), rows)
    *_, left = crash_disk.states("ordered", Bound(tear_bytes=0, subsets=1))
    return before, after, left.image


def test_two_restarts_come_to_the_same_store():
    found, bytes_of_invoices = crashed()
    assert len(found) > 150
    for name, image in found:
        _, after_first, left = start_again(image, 50, bytes_of_invoices)
        before_second, after_second, _ = start_again(left, 51, bytes_of_invoices)
        assert before_second == after_first, f"{name}: the second start does not see what the first one left"
        assert after_second == after_first, f"{name}: the second start changed something"
        assert after_second.streams[LEDGER][0] == END_SEQ, name


# That the checks can fail: the ledger with one mistake each


def invoice_before_its_bytes(order):
    """Records the reference first, and then puts the bytes."""
    ref = run(blob.put(example.invoice_text(order), "text/plain"), MemoryBlobs().handlers)
    lost = yield from example.record(
        lambda ledger: None if order.order in ledger.invoices else example.Invoiced(order.order, ref)
    )
    yield from blob.put(example.invoice_text(order), "text/plain")
    return lost


def catch_up_in_two_transactions():
    """Counts the sales, and then moves its checkpoint."""
    done = yield from kv.get_or("counted", 0)
    for event in (yield from log.page_all(done, LEDGER)).events:
        for write in (yield from example.count_sale(event)):
            yield from kv.put(write.key, write.value)
        yield from perform(KvPut("counted", event.position))


def tend_that_drops_first():
    """Drops the events, and then writes the snapshot that covers them."""
    yield from example.catch_up()
    state = yield from example.current()
    if state.seq - (yield from snapshot.covered_seq(LEDGER)) >= example.COMPACT_EVERY:
        yield from log.truncate_through(LEDGER, state.seq)
        yield from snapshot.write(LEDGER, state, stream=LEDGER, state_type=example.Ledger)


@pytest.mark.parametrize(
    ("name", "mistake", "told"),
    [
        ("invoice", invoice_before_its_bytes, "BlobNotFound"),
        ("catch_up", catch_up_in_two_transactions, "the read model has"),
        ("tend", tend_that_drops_first, "Truncated"),
    ],
    ids=["a reference before its bytes", "a count apart from its checkpoint", "events dropped before their snapshot"],
)
def test_a_mistake_in_the_ledger_is_found(monkeypatch, name, mistake, told):
    monkeypatch.setattr(example, name, mistake)
    report = explore_crashes(example.ledger, look, depth=1, bound=TORN, effects=blobs)
    assert report.verdict == "failed", report
    (failure,) = report.failures
    assert failure.kind == "invariant"
    assert told in failure.found
    again = explore_crashes(example.ledger, look, depth=1, bound=TORN, effects=blobs, repro=failure.token)
    assert [one.found for one in again.failures] == [failure.found]
