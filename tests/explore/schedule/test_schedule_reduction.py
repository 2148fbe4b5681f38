"""Leaving out interleavings that are equal to others: how many are left, and that nothing is missed by it."""

import random

import pytest
from steady import steady

from interpreters import open_store
from interpreters.explore import Pause, Sleep, explore
from interpreters.stores.memory import MemoryStore
from persist_effects import Conflict, Event, blob, kv, log, perform, run, transact
from persist_effects.requests import (
    Answered,
    Append,
    Appended,
    Draft,
    Entry,
    ExpectRevision,
    ExpectSeq,
    KvDelete,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)

pytestmark = pytest.mark.exploration


def memory():
    return MemoryStore(clock=lambda: 0)


# How many there are, without the reduction and with it


def put_twice(key):
    def go():
        yield from kv.get(key)
        yield from kv.put(key, 1)
        yield from kv.get(key)
        yield from kv.put(key, 2)

    return go


def append_to(stream, count=1):
    def go():
        for number in range(count):
            yield from log.append(stream, "made", number)

    return go


def get(key, count=1):
    def go():
        for _ in range(count):
            yield from kv.get(key)

    return go


def read_all():
    yield from log.page_all()


def update():
    yield from kv.update("n", lambda n: n + 1, 0)


def move(source, target):
    def go():
        entry = yield from kv.entry(source)
        yield from transact(KvPut(target, 1), checks=[ExpectRevision(source, entry.revision if entry else 0)])

    return go


TABLE = [
    # what, the programs, options, interleavings without and with the reduction
    ("four requests each, one key", [put_twice("a"), put_twice("a")], {}, 70, 34),
    ("four requests each, two keys", [put_twice("a"), put_twice("b")], {}, 70, 1),
    ("three writers, three streams", [append_to("a", 2), append_to("b", 2), append_to("c", 2)], {}, 90, 1),
    ("three writers, two streams", [append_to("a", 2), append_to("a", 2), append_to("b", 2)], {}, 90, 6),
    ("and one who reads them all", [append_to("a"), append_to("b"), append_to("c"), read_all], {}, 24, 24),
    ("readers of one key", [get("a", 3), get("a", 3), get("a", 3)], {}, 1680, 1),
    ("one writer among readers", [get("a", 2), get("a", 2), put_twice("a")], {}, 420, 36),
    ("three updates of one key", [update] * 3, {}, 498, 108),
    ("two transactions with checks", [move("a", "b"), move("b", "a")], {}, 6, 4),
    ("the same, and a stranger", [move("a", "b"), move("b", "a"), put_twice("c")], {}, 420, 4),
    ("at most two switches", [put_twice("a"), put_twice("a")], {"bound": 2}, 26, 23),
    ("one crash", [update, append_to("s")], {"crashes": True}, 19, 4),
]


def test_the_table_of_fixed_cases(capsys):
    rows = []
    for what, programs, options, *_ in TABLE:
        counts = [explore(programs, memory, reduce=reduce, **options) for reduce in (False, True)]
        assert all(report.is_exhaustive and report.verdict == "passed" for report in counts)
        rows.append((what, *(report.checked for report in counts)))
    with capsys.disabled():
        print(f"\n{'interleavings':<32}{'all':>8}{'reduced':>10}")
        for what, every, reduced in rows:
            print(f"{what:<32}{every:>8,}{reduced:>10,}")
    assert rows == [(what, *counts) for what, _, _, *counts in TABLE]


# Nothing is missed: the same ends are reached, for programs made at random


def plain(value):
    """An answer without positions and revisions."""
    match value:
        case Appended():
            return ("appended", value.first_seq, value.last_seq)
        case Conflict():
            return ("conflict", value.kind, value.name, value.write)
        case Entry():
            return ("entry", value.value)
        case Page():
            return ("page", *map(plain, value.events))
        case Event():
            return (value.stream, value.seq, value.type, value.data)
        case list():
            return tuple(map(plain, value))
        case bool() | str() | None:
            return value
        case int():
            return "number"
    return repr(value)


def some_request(draw, name, last):
    """A request; ``last`` holds what this program saw last of each sort, which later ones depend on."""
    stream, key = draw.choice("st"), draw.choice("kl")
    drafts = (Draft("made", name),)
    expected_seq, expected_revision = last.get(stream, 0), last.get(key, 0)
    return draw.choice(
        [
            Append(stream, drafts),
            Append(stream, drafts, expected_seq),
            LastSeq(stream),
            Read(stream),
            TruncateThrough(stream, 1),
            KvPut(key, name),
            KvPut(key, name, expected_revision),
            KvGet(key),
            KvHas(key),
            KvDelete(key),
            Transact((KvPut(key, name), Append(stream, drafts)), (ExpectSeq(stream, expected_seq),)),
            Transact((KvPut("m", name),), (ExpectRevision(key, expected_revision),)),
            Streams(),
            KvKeys("k"),
            *([ReadAll(), Wait(0), Wait(0, "t", 5.0), Sleep(1)] if draw.random() < 0.25 else []),
        ]
    )


def some_program(seed, name, length):
    def go():
        draw, last, seen = random.Random(f"{seed} {name}"), {}, []
        for number in range(length):
            request = some_request(draw, f"{name}{number}", last)
            answer = yield from perform(request)
            seen.append(plain(answer))
            if isinstance(request, LastSeq):
                last[request.stream] = answer
                seen[-1] = answer
            elif isinstance(request, KvGet):
                last[request.key] = answer.revision if answer else 0
        return tuple(seen)

    return go


class Careless(MemoryStore):
    """Looks for a conflict in one step, and writes in another."""

    def __init__(self):
        super().__init__(clock=lambda: 0)
        rows = self.handlers

        def put(request):
            found = rows[KvGet](KvGet(request.key))
            yield Pause()
            revision = found.revision if found else 0
            if request.expected not in (None, revision):
                return Conflict("key", request.key, request.expected, revision)
            return rows[KvPut](KvPut(request.key, request.value))

        self.handlers = {**rows, KvPut: put}


def ends(programs, store=memory, **options):
    """All that may come of the programs: what they saw, and what is in the streams and keys then."""
    found = set()

    def collect(outcomes):
        contents = []
        for stream in "st":
            contents += [plain((yield from perform(Read(stream)))), (yield from perform(LastSeq(stream)))]
        for key in "klm":
            contents.append(plain((yield from perform(KvGet(key)))))
        assert all(isinstance(outcome, Answered) for outcome in outcomes), outcomes
        found.add((tuple(outcome.value for outcome in outcomes), tuple(contents)))

    report = explore(programs, store, collect, **options)
    assert report.verdict == "passed", report
    return found, report.checked


SHAPES = [((3, 3), {}, 100), ((2, 2, 2), {}, 60), ((4, 3), {"bound": 1}, 60), ((3, 3), {"bound": 2}, 60)]
SHAPES += [((2, 2), {"crashes": True}, 40), ((2, 2), {"crashes": True, "bound": 1}, 40)]
SHAPES += [((2, 2), {"store": Careless}, 100), ((2, 2), {"store": Careless, "crashes": True}, 30)]


@pytest.mark.parametrize(("lengths", "options", "rounds"), SHAPES, ids=steady)
def test_the_reduced_search_reaches_the_same_ends_as_the_full_one(lengths, options, rounds):
    saved = 0
    for seed in range(rounds):
        programs = [some_program(seed, name, length) for name, length in zip("xyz", lengths, strict=False)]
        every, count = ends(programs, reduce=False, **options)
        reduced, count_reduced = ends(programs, **options)
        assert reduced == every, f"seed {seed}"
        assert count_reduced <= count
        saved += count - count_reduced
    assert saved > 0


def test_what_reads_a_blob_and_what_puts_one_depend_on_each_other():
    def put():
        return (yield from blob.put(b"tea")).cid

    cid = run(put(), open_store("memory:").handlers)

    def look():
        return (yield from blob.has(cid))

    seen = set()

    def collect(outcomes):
        seen.add(outcomes[1].value)
        yield from kv.get("a")

    assert explore([put, look], lambda: open_store("memory:"), collect).checked == 2
    assert seen == {True, False}
