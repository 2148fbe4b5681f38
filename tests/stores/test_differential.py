"""The file store beside the memory store: each of very many random requests is answered alike by both.

`make differential` goes through half a million of them; DIFFERENTIAL_SEED=n with DIFFERENTIAL_ROUNDS shows one again.
"""

import os
import random

import pytest
from msgspec import UNSET

from interpreters.stores.file.store import FileStore
from interpreters.stores.memory import MemoryStore
from persist_effects.errors import InvalidRequest
from persist_effects.requests import (
    Append,
    Begin,
    Draft,
    ExpectRevision,
    ExpectSeq,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
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

ROUNDS = int(os.environ.get("DIFFERENTIAL_ROUNDS", "12000"))
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "0"))
ROUNDS_OF_A_STORE = 6_000
TYPES = ("placed", "paid", "sent")


class Requests:
    """Random requests, of streams and keys with prefixes in common, some rare and some common."""

    def __init__(self, seed, streams):
        self.random = random.Random(seed)
        self.names = [
            f"{self.random.choice(['a', 'a/b', 'b/', 'ccc'])}{self.random.randrange(streams)}" for _ in range(streams)
        ]
        self.position = 0

    def __call__(self):
        (make,) = self.random.choices(self.KINDS, self.WEIGHTS)
        return make(self)

    def name(self):
        # The first ones more often than the others.
        return self.names[int(len(self.names) * self.random.random() ** 3)]

    def prefix(self):
        name = self.name()
        return self.random.choice(["", name, name[:1], name[: self.random.randrange(1, len(name) + 1)], "zz"])

    def number(self, highest):
        return self.random.choice([0, self.random.randrange(highest + 2), max(0, highest - self.random.randrange(9))])

    def limit(self):
        return self.random.choice([1, 2, 7, 100, 1000])

    def until(self, highest):
        return self.random.choice([None, self.number(highest)])

    def backwards(self):
        return self.random.choice([False, False, True])

    def types(self):
        count = self.random.choice([0, 0, 1, 2])
        return tuple(self.random.sample(TYPES, count)) if count else None

    def draft(self):
        data = self.random.choice([None, 7, "x" * self.random.randrange(1 << self.random.randrange(11))])
        return Draft(self.random.choice(TYPES), data)

    def append(self):
        count = self.random.choice([1, 1, 1, 1, 2, 5, 40])
        return Append(self.name(), tuple(self.draft() for _ in range(count)), self.random.choice([None, None, 0, 3]))

    def put(self):
        return KvPut(self.name(), self.random.randrange(99), self.random.choice([None, None, 0, 5]))

    def delete(self):
        return KvDelete(self.name(), None)

    def truncate(self):
        return TruncateThrough(self.name(), self.random.randrange(1, 30))

    def begin(self):
        return Begin(self.name() + self.random.choice("xyz"), self.random.randrange(1, 9))

    def transact(self):
        makers = self.random.choices([Requests.append, Requests.put, Requests.delete, Requests.truncate], k=3)
        checks = self.random.choice([(), (), (ExpectSeq(self.name(), 0),), (ExpectRevision(self.name(), 0),)])
        return Transact(tuple(make(self) for make in makers), checks)

    def read(self):
        return Read(self.name(), self.number(20), self.until(20), self.limit(), self.backwards())

    def read_all(self):
        after, until = self.number(self.position), self.until(self.position)
        return ReadAll(after, self.prefix(), self.types(), self.limit(), until or UNSET, self.backwards() or UNSET)

    def page(self):
        kind = self.random.choice([Streams, KvKeys, KvEntries])
        return kind(self.prefix(), self.random.choice(["", self.name()]), self.limit())

    def one(self):
        return self.random.choice([LastSeq, KvGet, KvHas])(self.name())

    def newest(self):
        return self.random.choice([Wait, KvWait])(0, self.prefix(), 0)

    KINDS = (append, put, delete, truncate, begin, transact, read, read_all, page, one, newest)
    WEIGHTS = (30, 8, 3, 3, 1, 5, 8, 25, 8, 6, 5)


def outcome(store, request):
    try:
        return store.handlers[type(request)](request)
    except InvalidRequest as error:
        return type(error)


def agree(request, of_file, of_memory):
    if isinstance(request, KvWait):
        # What a store has forgotten of deletions may have it answer too high.
        return of_file >= of_memory
    return of_file == of_memory


def compare(path, seed, rounds):
    chosen = random.Random(seed)
    requests = Requests(seed, streams=chosen.choice([5, 60, 900]))
    segment_bytes = chosen.choice([4096, 65536, 1 << 20])
    memory = MemoryStore(clock=lambda: 0)
    file = FileStore(path, sync="os", segment_bytes=segment_bytes, clock=lambda: 0)
    try:
        for number in range(rounds):
            request = requests()
            found = [outcome(file, request), outcome(memory, request)]
            assert agree(request, *found), (
                f"DIFFERENTIAL_SEED={seed}, request {number}: {request}\nthe file store: {found[0]}\nmemory: {found[1]}"
            )
            requests.position = memory._position
            event = chosen.random()
            if event < 0.002:
                file.compact()
            elif event < 0.004:
                file.close()
                file = FileStore(path, sync="os", segment_bytes=segment_bytes, clock=lambda: 0)
    finally:
        file.close()
        memory.close()


@pytest.mark.exploration
@pytest.mark.parametrize("seed", range(SEED, SEED - (-ROUNDS // ROUNDS_OF_A_STORE)))
def test_the_file_store_answers_each_request_as_the_memory_store_does(tmp_path, seed):
    compare(tmp_path / "store", seed, min(ROUNDS, ROUNDS_OF_A_STORE))
