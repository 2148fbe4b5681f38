"""A store whose plug a test pulls where it likes: `open_store("crash:")`."""

import errno
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import count

import anyio
import pytest
from places import ROOT

from interpreters import open_store
from interpreters.conformance import Capabilities, StoreConformance
from interpreters.explore import CrashStore, PlugPulled
from persist_effects import (
    Append,
    Draft,
    InvalidRequest,
    KvDelete,
    KvPut,
    Request,
    StoreClosed,
    StoreUnavailable,
    UncertainOutcome,
    all_of,
    clock,
    kv,
    log,
    perform,
    transact,
)

KEEPS = ["nothing", "everything", *range(12)]


@pytest.mark.exploration
class TestConformance(StoreConformance):
    capabilities = Capabilities(durability="commit", reopen=True)

    def open_store(self):
        return open_store("crash:")

    def reopen(self, store):
        store.close()
        return store.restart()


def numbers(store):
    return [event.data for event in store.run(log.read("numbers"))]


def crashed_at_each_request(program, keep="nothing", **options):
    """A store for each request of the disk that a program comes to, with the plug pulled there, opened again."""
    for at in count():
        store = open_store("crash:", **options)
        store.crash(keep, at=at)
        try:
            store.run(program())
        except PlugPulled:
            yield store.restart()
        else:
            assert at, "the program asks the disk for something"
            return


# What is left


@pytest.mark.parametrize("keep", KEEPS)
def test_a_synced_append_survives_every_crash(keep):
    for store in crashed_at_each_request(lambda: log.append("numbers", "counted", 2), keep):
        before = numbers(store)
        store.run(log.append("numbers", "counted", 3))
        store.crash(keep)
        assert numbers(store.restart()) == [*before, 3]


def test_an_unsynced_append_may_be_lost_and_may_be_kept():
    left = {}
    for keep in KEEPS:
        store = open_store("crash:?sync=os")
        for number in range(4):
            store.run(log.append("numbers", "counted", number))
        store.crash(keep)
        left[keep] = numbers(store.restart())
    assert (left["nothing"], left["everything"]) == ([], [0, 1, 2, 3])
    assert all(found == [0, 1, 2, 3][: len(found)] for found in left.values())
    assert {1, 2, 3} & set(map(len, left.values())), "a draw keeps some of them"


def test_what_was_synced_by_hand_is_not_lost():
    store = open_store("crash:?sync=os")
    store.run(log.append("numbers", "counted", 1))
    store.interpreter.sync()
    store.run(log.append("numbers", "counted", 2))
    store.crash("nothing")
    assert numbers(store.restart()) == [1]


def test_a_half_written_commit_is_never_seen():
    found = set()
    for keep in KEEPS:
        writes = [Append("numbers", (Draft("counted", 1), Draft("counted", 2))), KvPut("newest", 2)]
        for store in crashed_at_each_request(lambda writes=writes: transact(*writes), keep):
            found.add((tuple(numbers(store)), store.run(kv.get_or("newest", None))))
    assert found == {((), None), ((1, 2), 2)}


@pytest.mark.exploration
def test_a_compaction_that_is_cut_short_loses_nothing_and_brings_nothing_back():
    store = open_store("crash:?segment_bytes=4096")
    for at in count():
        for number in range(12):
            store.run(kv.put(f"key {number}", "x" * 800))
        store.run(transact(*(KvDelete(f"key {number}") for number in range(1, 12))))
        store.crash(at=at)
        try:
            store.interpreter.compact()
        except PlugPulled:
            store = store.restart()
            assert store.run(kv.keys()) == ["key 0"]
        else:
            break
    assert at > 10


def test_after_a_close_it_is_opened_again_as_it_was():
    store = open_store("crash:")
    store.run(log.append("numbers", "counted", 1))
    store.close()
    assert numbers(store.restart()) == [1]


# What fails


def test_a_sync_that_fails_poisons_the_store_until_it_is_opened_anew():
    store = open_store("crash:")
    store.run(log.append("numbers", "counted", 1))
    store.fail("sync", OSError(errno.EIO))
    with pytest.raises(UncertainOutcome, match=r"Input/output error.*close the store and open it again"):
        store.run(log.append("numbers", "counted", 2))
    with pytest.raises(StoreUnavailable, match=r"a sync failed.*reading goes on"):
        store.run(log.append("numbers", "counted", 3))
    assert numbers(store) == [1]
    store.crash("everything")
    store = store.restart()
    # The system took it for written, and it was not.
    assert numbers(store) == [1]
    assert store.run(log.append("numbers", "counted", 4)).seq == 2


def test_a_store_whose_sync_failed_is_closed_and_opened_again_as_its_error_says():
    store = open_store("crash:")
    store.run(log.append("numbers", "counted", 1))
    store.fail("sync", OSError(errno.EIO))
    with pytest.raises(UncertainOutcome):
        store.run(log.append("numbers", "counted", 2))
    store.close()
    store = store.restart()
    store.run(log.append("numbers", "counted", 3))
    left = numbers(store)
    assert left in ([1, 3], [1, 2, 3])
    store.crash("nothing")
    assert numbers(store.restart()) == left


def test_a_full_disk_refuses_a_write_and_takes_the_next():
    store = open_store("crash:")
    store.fail("write", OSError(errno.ENOSPC))
    with pytest.raises(StoreUnavailable, match="No space left"):
        store.run(log.append("numbers", "counted", 1))
    store.run(log.append("numbers", "counted", 2))
    store.crash("nothing")
    assert numbers(store.restart()) == [2]


# Who is gone


class SendMail(Request[None], frozen=True, tag="test/send-mail"):
    to: str


USES = {
    "append": lambda store: store.run(log.append("numbers", "counted", 1)),
    "get": lambda store: store.run(kv.get("a")),
    "now": lambda store: store.run(clock.now()),
    "new_id": lambda store: store.run(clock.new_id()),
    "sleep": lambda store: store.run(clock.sleep(0)),
    "an effect": lambda store: store.run(perform(SendMail("Ada"))),
    "all_of": lambda store: store.run(all_of(kv.get("a"), kv.get("b"))),
    "run_many": lambda store: store.run_many([kv.put("a", 1), kv.put("b", 2)]),
    "wait": lambda store: store.run(log.wait(0, timeout=60)),
    "start": lambda store: store.start(kv.get("a")),
    "arun": lambda store: anyio.run(store.arun, kv.get("a")),
    "a task that sleeps": lambda store: anyio.run(store.arun, clock.sleep(60)),
    "sync": lambda store: store.interpreter.sync(),
    "compact": lambda store: store.interpreter.compact(),
    "crash": lambda store: store.crash(),
    "fail": lambda store: store.fail("sync", OSError(errno.EIO)),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_every_use_after_a_crash_says_that_the_plug_was_pulled_and_to_restart(use):
    store = open_store("crash:", effects={SendMail: lambda request: None})
    store.crash()
    with pytest.raises(PlugPulled, match=r"the plug was pulled.*store\.restart\(\)"):
        use(store)
    store.close()


def test_a_program_that_stood_still_in_a_crash_does_not_go_on_with_the_next_store():
    def place():
        yield from log.append("numbers", "counted", 1)
        yield from perform(SendMail("Ada"))
        yield from log.append("numbers", "counted", 2)

    store = open_store("crash:")
    step = store.start(place())
    assert step.request == SendMail("Ada")
    store.crash()
    after = store.restart()
    with pytest.raises(PlugPulled):
        step.resume(None)
    assert numbers(after) == [1]


def test_what_was_pulled_sends_nothing_more():
    sent = []

    def place():
        try:
            yield from log.append("numbers", "counted", 1)
        finally:
            yield from perform(SendMail("Ada"))

    store = open_store("crash:", effects={SendMail: sent.append})
    store.crash(at="sync")
    with pytest.raises(PlugPulled):
        store.run(place())
    assert sent == []
    store.restart().run(place())
    assert sent == [SendMail("Ada")]


def test_rows_that_are_programs_or_async_do_nothing_after_the_plug_is_pulled():
    sent = []

    async def post(request):
        sent.append(request)

    def note(request):
        return (yield from log.append("numbers", "counted", request.to)).seq

    store = open_store("crash:", effects={SendMail: post})
    anyio.run(store.arun, perform(SendMail("Ada")))
    store.crash()
    with pytest.raises(PlugPulled):
        anyio.run(store.arun, perform(SendMail("Ada")))
    assert sent == [SendMail("Ada")]
    store = open_store("crash:", effects={SendMail: note})
    assert store.run(perform(SendMail("Ada"))) == 1
    store.crash()
    with pytest.raises(PlugPulled):
        store.run(perform(SendMail("Ada")))
    assert numbers(store.restart()) == ["Ada"]


@pytest.mark.parametrize("at", [1, 2, 7, 20, 45])
def test_threads_that_write_while_the_plug_is_pulled_lose_nothing_that_was_acknowledged(at):
    store = open_store("crash:", seed=at)
    acked = []

    def write(thread):
        with suppress(PlugPulled):
            for number in count():
                store.run(log.append(f"thread {thread}", "counted", number))
                acked.append((thread, number))

    store.crash(at=at)
    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = store.restart()
    for thread in range(6):
        left = [event.data for event in after.run(log.read(f"thread {thread}"))]
        assert left == list(range(len(left))), repr(store)
        # One more may be there, of which the thread was not told.
        assert len(left) - sum(one == thread for one, _ in acked) in {0, 1}, repr(store)


def test_the_plug_may_be_pulled_by_another_thread_while_programs_run():
    store = open_store("crash:")
    enough = threading.Semaphore(0)
    acked = []

    def write():
        with suppress(PlugPulled):
            for number in count():
                acked.append(store.run(log.append("numbers", "counted", number)).data)
                enough.release()

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(10):
        enough.acquire()
    store.crash("nothing")
    thread.join()
    assert numbers(store.restart())[: len(acked)] == acked


def test_programs_that_run_together_are_gone_together_and_their_commit_is_there_whole_or_not_at_all():
    found = set()
    for keep in KEEPS:
        for at in range(3):
            store = open_store("crash:")
            store.crash(keep, at=at)
            with pytest.raises(PlugPulled):
                store.run_many(kv.put(f"a {number}", number) for number in range(5))
            found.add(len(store.restart().run(kv.keys())))
    assert found <= {0, 5}
    assert 0 in found


def test_tasks_are_gone_too():
    store = open_store("crash:")

    async def write():
        for number in count():
            await store.arun(log.append("numbers", "counted", number))

    store.crash("everything", at=9)
    with pytest.raises(PlugPulled):
        anyio.run(write)
    left = numbers(store.restart())
    assert left == list(range(len(left)))
    assert len(left) > 1


WAITS = {
    "a thread waits": lambda store: store.run(log.wait(0, timeout=600)),
    "a thread waits for a key": lambda store: store.run(kv.wait(0, timeout=600)),
    "a task waits": lambda store: anyio.run(store.arun, log.wait(0, timeout=600)),
    "one of several waits": lambda store: store.run_many([log.wait(0, timeout=600), kv.get("a")]),
}
SLEEPS = {
    "a thread sleeps": lambda store: store.run(clock.sleep(600)),
    "a task sleeps": lambda store: anyio.run(store.arun, clock.sleep(600)),
    "one of several sleeps": lambda store: store.run_many([clock.sleep(600), kv.get("a")]),
}


def told_when_pulled(use):
    store = open_store("crash:")
    errors = []

    def use_it():
        try:
            use(store)
        except BaseException as error:
            errors.append(type(error))

    thread = threading.Thread(target=use_it)
    thread.start()
    store.crash()
    thread.join(60)
    return errors


@pytest.mark.parametrize("use", WAITS.values(), ids=WAITS)
def test_who_waits_when_the_plug_is_pulled_is_told_so(use):
    assert told_when_pulled(use) == [PlugPulled]


@pytest.mark.parametrize("use", SLEEPS.values(), ids=SLEEPS)
def test_who_sleeps_when_the_plug_is_pulled_is_told_so(use):
    assert told_when_pulled(use) == [PlugPulled]


def test_rows_and_blobs_go_on_with_the_next_store():
    sent = []
    with open_store("crash:", effects={SendMail: sent.append}, blobs="memory:") as store:
        ref = store.put_file(__file__)
        store.crash()
        after = store.restart()
    assert after.run(perform(SendMail("Ada"))) is None
    assert len(sent) == 1
    with after.open_blob(ref) as file:
        assert file.read(3) == b'"""'


# A user's own test, with a bug planted


class Post(Request[None], frozen=True, tag="test/post"):
    message: str


def order_in_two_steps(number):
    yield from log.append("orders", "placed", number)
    yield from kv.put(f"outbox/{number}", f"order {number}")


def order_in_one_step(number):
    yield from transact(
        Append("orders", (Draft("placed", number),)),
        KvPut(f"outbox/{number}", f"order {number}"),
    )


def deliver():
    for key in (yield from kv.keys("outbox/")):
        yield from perform(Post((yield from kv.get(key))))
        yield from kv.delete(key)


def orders_that_nobody_heard_of(order, seed):
    """What an ordinary test would assert to be empty, wherever the plug is pulled."""
    for at in count():
        posted = set()
        effects = {Post: lambda request, posted=posted: posted.add(request.message)}
        store = open_store("crash:", seed=seed, effects=effects)
        store.crash(at=at)
        try:
            for number in (1, 2):
                store.run(order(number))
                store.run(deliver())
        except PlugPulled:
            store = store.restart()
            store.run(deliver())
        else:
            return
        placed = {f"order {event.data}" for event in store.run(log.read("orders"))}
        yield from ((at, one, repr(store)) for one in placed - posted)


@pytest.mark.parametrize("seed", range(4))
def test_an_outbox_that_is_filled_by_a_second_commit_is_found_to_forget_an_order(seed):
    found = list(orders_that_nobody_heard_of(order_in_two_steps, seed))
    assert found
    at, _, told = found[0]
    assert f"at={at})" in told


@pytest.mark.parametrize("seed", range(4))
def test_an_outbox_that_is_filled_by_the_same_commit_forgets_none(seed):
    assert list(orders_that_nobody_heard_of(order_in_one_step, seed)) == []


# One seed, one trace

TRACE = """
from interpreters import open_store
from interpreters.explore import PlugPulled
from persist_effects import clock, kv, log

def program():
    for number in range(8):
        yield from log.append("numbers", "counted", (yield from clock.new_id()))
        yield from kv.put(f"key {number}", (yield from clock.now()))

def trace(seed):
    store = open_store(f"crash:?seed={seed}&sync=os&profile=writeback")
    store.crash(at=12)
    try:
        store.run(program())
    except PlugPulled as error:
        told = str(error)
    store = store.restart()
    return [told, repr(store), *(event.data for event in store.run(log.read("numbers")))]
"""


def trace_of(seed):
    namespace = {}
    exec(TRACE, namespace)
    return namespace["trace"](seed)


def test_one_seed_is_one_trace_in_another_process_too():
    told = subprocess.run(
        [sys.executable, "-c", f"{TRACE}\nprint(trace(7))"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout == f"{trace_of(7)}\n"
    assert len({str(trace_of(seed)[1:]) for seed in range(8)}) == 8


def test_what_a_store_says_of_itself_can_be_pasted_and_leaves_the_same():
    def count_on():
        for number in count():
            yield from log.append("numbers", "counted", "x" * number)

    def use(store):
        with pytest.raises(PlugPulled) as raised:
            store.run(count_on())
        return raised.value

    store = open_store("crash:?seed=3&sync=os&segment_bytes=4096")
    store.fail("allocate", OSError(errno.EOPNOTSUPP))
    store.crash(at=25)
    first = use(store)
    pasted = repr(store).partition("\n")[2].rstrip(">").splitlines()
    assert pasted[0] == "store = open_store('crash:?seed=3&sync=os&segment_bytes=4096')"
    namespace = {"open_store": open_store}
    exec("\n".join(pasted), namespace)
    again = use(namespace["store"])
    assert str(again) == str(first)
    assert "\n".join(f"  {line}" for line in pasted) in str(first)
    assert namespace["store"].interpreter.plug.pulled.image == store.interpreter.plug.pulled.image


def test_each_restart_draws_another_loss_and_is_told_of():
    store = open_store("crash:")
    for number in range(3):
        store.run(log.append("numbers", "counted", number))
        store.crash()
        store = store.restart()
    lines = repr(store).splitlines()[1:]
    assert [line.partition("(")[0] for line in lines] == [
        "store = open_store",
        *["store.crash", "store = store.restart"] * 3,
    ]
    assert len({line for line in lines if "keep" in line}) == 3


# What is refused


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("crash:var/store", {}, "'crash:var/store' names a path"),
        ("crash:", {"path": "var"}, "names a path"),
        ("crash:?seed=many", {}, "cannot be read"),
        ("crash:", {"seed": -1}, "seed"),
        ("crash:", {"seed": "7"}, "seed"),
        ("crash:?sync=interval", {}, "sync is 'interval': give one of commit, os"),
        ("crash:?profile=fat", {}, "profile is 'fat': give one of posix"),
        ("crash:", {"segment_bytes": 10}, "segment_bytes"),
        ("crash:", {"colour": "red"}, "has no option 'colour'"),
    ],
)
def test_options_that_are_none_are_refused(url, options, words):
    with pytest.raises(InvalidRequest, match=words):
        open_store(url, **options)


def test_what_cannot_be_pulled_or_failed_is_refused_and_the_store_goes_on():
    store = open_store("crash:")
    store.run(log.append("numbers", "counted", 1))
    for refused, words in [
        (lambda: store.crash("some"), "keep is a str, 'some': give 'nothing' or 'everything', or a number"),
        (lambda: store.crash(True), "keep is a bool"),
        (lambda: store.crash(-1), "keep is an int, -1"),
        (
            lambda: store.crash(at="fsync"),
            "at is a str, 'fsync': give one of allocate, .* or how many requests come before",
        ),
        (lambda: store.crash(at=-1), "at is an int, -1"),
        (lambda: store.fail("fsync", OSError(errno.EIO)), "op is a str, 'fsync': give one of allocate"),
        (lambda: store.fail("sync", ValueError("no")), "error is a ValueError.*OSError"),
        (lambda: store.fail("sync", OSError("no number")), "error is an OSError"),
        (store.restart, "still goes on: crash.. it or close.. it before restart"),
    ]:
        with pytest.raises(InvalidRequest, match=words):
            refused()
    assert store.run(log.append("numbers", "counted", 2)).seq == 2


def test_a_restart_says_that_the_plug_was_not_pulled_yet_where_it_was_to_be_later():
    store = open_store("crash:")
    store.crash(at="rename")
    store.run(log.append("numbers", "counted", 1))
    with pytest.raises(InvalidRequest, match=r"still goes on.*waits for a request of the disk that has not come"):
        store.restart()


def test_a_closed_store_says_that_it_is_closed():
    store = open_store("crash:")
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        store.run(kv.get("a"))
    with pytest.raises(StoreClosed):
        store.interpreter.sync()


def test_it_is_a_store_of_crashes_by_url_too():
    assert isinstance(open_store("crash:?seed=7"), CrashStore)
