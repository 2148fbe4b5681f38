"""One memory store for all orders of a search: nobody can tell it from a new store for each of them."""

import functools
import random

import pytest
from steady import steady

from interpreters import Store, open_store
from interpreters.explore import explore
from interpreters.explore.schedule.kept import kept_store
from interpreters.stores.memory import MemoryStore
from persist_effects import Event, Request, all_of, blob, kv, log, perform
from persist_effects.requests import (
    Advance,
    Append,
    Appended,
    Begin,
    BlobHas,
    Draft,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvPut,
    KvWait,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Sleep,
    Streams,
    Transact,
    TruncateThrough,
)

pytestmark = pytest.mark.exploration

new_for_each = functools.partial(open_store, "memory:")


def kept():
    """An empty store."""
    return open_store("memory:")


class Ask(Request[int], frozen=True, tag="test/kept-ask"):
    pass


# It is used where that cannot be seen


def test_a_store_is_kept_where_its_function_can_only_open_an_empty_memory_store():
    for factory in (kept, lambda: open_store("memory:")):
        assert kept_store(factory) is not None


made = []


def noting():
    made.append(open_store("memory:"))
    return made[-1]


def filled():
    store = open_store("memory:")
    store.run(kv.put("n", 1))
    return store


def other():
    """crash:"""
    return open_store("crash:")


def answering_more():
    return open_store("memory:", effects={Ask: lambda request: 1})


def timed():
    return open_store("memory:", clock=lambda: 7)


def in_a_closure(url):
    return lambda: open_store(url)


def wrapping():
    count = []

    @functools.wraps(open_store)
    def counted(url):
        count.append(url)
        return open_store(url)

    return eval('lambda: open_store("memory:")', {"open_store": counted})


OTHERS = [
    *(new_for_each, MemoryStore, noting, filled, other, answering_more, timed, in_a_closure("memory:"), wrapping()),
    *(lambda: Store(MemoryStore()), eval('lambda: open_store("memory:")', {}), {}.get),
]


@pytest.mark.parametrize("factory", OTHERS, ids=steady)
def test_any_other_function_is_called_for_each_order(factory):
    assert kept_store(factory) is None


def test_what_a_function_does_besides_it_does_for_each_order():
    made.clear()
    report = explore([lambda: log.append("a", "made", 1)] * 3, noting)
    assert len(made) > report.checked == 6


# Nothing else is seen of it


def drawn_request(draw, name):
    stream, key = draw.choice("st"), draw.choice("kl")
    append, put = Append(stream, (Draft("made", name),)), KvPut(key, draw.choice([name, [name]]))
    writes = [append, put, KvDelete(key), TruncateThrough(stream, 1), Begin(stream, 3), Advance(position=9, revision=9)]
    expecting = [Append(stream, (Draft("made", name),), draw.randrange(3)), KvPut(key, 0, draw.randrange(3))]
    reads = [Read(stream), LastSeq(stream), KvGet(key), KvHas(key), KvEntries(), ReadAll(), Streams()]
    rest = [Transact((append, put)), KvWait(0, key, 5.0), Sleep(1)]
    return draw.choice([append, put, *writes, *expecting, *reads, *rest])


def drawn_program(seed, name, length):
    def go():
        draw, seen = random.Random(f"{seed} {name}"), []
        for number in range(length):
            told = f"{name}{number}"
            match draw.randrange(8):
                case 0:
                    together = yield from all_of(perform(drawn_request(draw, told)), kv.put("k", told))
                    seen.append([without_time(answer) for answer in together])
                case 1:
                    ref = yield from blob.put(draw.choice([b"1", b"2"]))
                    seen.append((yield from perform(BlobHas(ref.cid))))
                case _:
                    answer = yield from perform(drawn_request(draw, told))
                    seen.append(without_time(answer))
                    if isinstance(answer, list):
                        answer.append("changed by who was told")
        return repr(seen)

    return go


def without_time(answer):
    match answer:
        case Appended(first, last, position):
            return first, last, position
        case Event():
            return answer.position, answer.seq, answer.data
        case Page():
            return [without_time(event) for event in answer.events]
        case list() | tuple():
            return [without_time(each) for each in answer]
    return repr(answer)


def seen_in_all_orders(programs, store_factory, **options):
    """What each order came to, one after the other, and the report."""
    seen = []

    def judge(outcomes):
        whole = yield from log.read_all()
        # Of it the next order sees nothing.
        yield from kv.put("k", "judged")
        yield from log.append("s", "judged", None)
        seen.append((repr([getattr(each, "value", each) for each in outcomes]), without_time(whole)))
        if len(seen) % 5 == 4:
            raise ValueError(f"{len(whole)} events")

    report = explore(programs, store_factory, judge, **options)
    return seen, str(report)


def holds():
    return (yield from kv.get("k"))


@pytest.mark.parametrize(
    ("options", "lengths", "rounds"),
    [
        ({}, (3, 3), 40),
        ({}, (2, 2, 2), 25),
        ({"bound": 1}, (3, 3), 15),
        ({"crashes": True}, (2, 2), 15),
        ({"invariant": holds}, (2, 3), 15),
        ({"reduce": False}, (2, 2), 10),
        ({"linearizable": True}, (2, 2), 5),
    ],
    ids=steady,
)
def test_programs_see_the_same_as_on_a_new_store_for_each_order(options, lengths, rounds):
    for seed in range(rounds):
        programs = {name: drawn_program(seed, name, size) for name, size in zip("xyz", lengths, strict=False)}
        seen = seen_in_all_orders(programs, kept, **options)
        assert seen == seen_in_all_orders(programs, new_for_each, **options), f"seed {seed}"


def test_events_have_the_time_at_which_they_were_appended():
    times = []

    def judge(outcomes):
        times.append([event.at for event in (yield from log.read_all())])

    explore([lambda: log.append("a", "made", 1), lambda: log.append("a", "made", 2)], kept, judge)
    assert len(times) > 2
    assert all(1_600_000_000_000_000 < first <= second for first, second in times)


def test_what_two_orders_have_in_common_is_not_asked_again(monkeypatch):
    counts = []
    plain = MemoryStore._apply_run
    monkeypatch.setattr(MemoryStore, "_apply_run", lambda self, run: (counts.append(1), plain(self, run))[1])

    def writer():
        for number in range(3):
            yield from log.append("a", "made", number)

    asked = {}
    for factory in (kept, new_for_each):
        counts.clear()
        report = explore([writer, writer, writer], factory)
        asked[factory] = len(counts)
    assert report.checked == 1680
    assert asked[kept] < asked[new_for_each] / 2


def test_a_program_that_is_another_one_in_each_order_is_found_as_such():
    runs = []

    def fickle():
        runs.append(1)
        yield from log.append("a", "made", 1)
        yield from log.append("a", "made", len(runs) > 8)

    def steady_one():
        yield from log.append("a", "made", 1)
        yield from log.append("a", "made", 2)

    verdicts = set()
    for factory in (kept, new_for_each):
        runs.clear()
        verdicts.add(explore([fickle, steady_one], factory).verdict)
    assert verdicts == {"not deterministic"}
