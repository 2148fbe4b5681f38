"""A memory store that is taken back holds, answers and counts what one does to which nothing else ever came."""

from random import Random

import pytest

from interpreters.explore.schedule.linear import contents_of
from interpreters.stores.memory import MemoryStore
from interpreters.stores.rewinding import RewindableStore
from persist_effects import Draft, machine
from persist_effects.requests import (
    Append,
    Begin,
    KvDelete,
    KvEntries,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    Read,
    ReadAll,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)

NAMES = ("a", "b", "c/1", "c/2")


def drawn_write(random, kinds=6):
    name, drafts = random.choice(NAMES), tuple(Draft("made", random.random()) for _ in range(random.randint(1, 3)))
    match random.randrange(kinds):
        case 0:
            return KvPut(name, random.random(), random.choice([None, None, 0, 3]))
        case 1:
            return KvDelete(name)
        case 2:
            return TruncateThrough(name, random.randrange(6))
        case 3:
            return Begin(name, random.randint(1, 5))
        case 4:
            return Append(name, drafts, random.choice([None, None, 0, 2]))
        case _:
            return Transact(tuple(drawn_write(random, 5) for _ in range(random.randint(1, 4))))


QUESTIONS = [
    *(kind(prefix=prefix) for kind in (Streams, KvKeys, KvEntries, ReadAll) for prefix in ("", "c/")),
    *(kind(0, prefix) for kind in (Wait, KvWait) for prefix in ("", "a", "c/")),
    *(kind(name) for kind in (Read, LastSeq) for name in NAMES),
]  # fmt: skip


def answers_of(store, requests):
    return [machine.outcome_of(request, store.handlers) for request in requests]


@pytest.mark.parametrize("seed", range(100))
def test_what_was_written_since_a_mark_is_as_if_it_had_never_been(seed):
    random = Random(seed)
    before, given_up, after = ([drawn_write(random) for _ in range(random.randrange(20))] for _ in range(3))
    store, other = RewindableStore(), MemoryStore(clock=lambda: 0)
    assert answers_of(store, before) == answers_of(other, before)
    mark = store.mark()
    for _ in range(2):
        answers_of(store, random.choice([QUESTIONS, []]))
        answers_of(store, given_up)
        store.rewind(mark)
    assert answers_of(store, QUESTIONS) == answers_of(other, QUESTIONS)
    assert contents_of(store.handlers) == contents_of(other.handlers)
    assert answers_of(store, after) == answers_of(other, after)
    assert answers_of(store, QUESTIONS) == answers_of(other, QUESTIONS)
    store.rewind(0)
    assert contents_of(store.handlers).writes == ()
