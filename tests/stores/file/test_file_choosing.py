"""A page of all streams while the store goes on: whatever is done between two reads of the disk, no event is missed."""

from random import Random

import pytest
from file_disks import MemoryDisk

from interpreters.disk import requests as disk
from interpreters.stores import merging
from interpreters.stores.file import frames
from interpreters.stores.file.engine import Engine, EngineOptions
from persist_effects import Draft, run
from persist_effects.requests import Append, ReadAll, TruncateThrough

TYPES = ("placed", "paid")


class Going:
    """An engine on a disk in memory, and all events that were appended to it and not truncated."""

    def __init__(self, seed):
        self.random = Random(seed)
        self.disk = MemoryDisk()
        self.engine = Engine(EngineOptions(lambda: 0, self.random.randbytes, "a test", segment_bytes=4096))
        self.events = {}
        self.ever: set[int] = set()
        self.run(self.engine.open())
        for _ in range(self.random.choice([10, 60])):
            self.append()

    def run(self, program):
        return run(program, self.disk.handlers)

    def append(self):
        stream = self.random.choice(["a/1", "a/2", "a/3", "b/1", "b/2", *(f"c/{number}" for number in range(20))])
        types = self.random.choices(TYPES, k=self.random.choice([1, 1, 1, 4, 30]))
        drafts = tuple(Draft(event_type, "x" * self.random.randrange(200)) for event_type in types)
        (outcome,) = self.run(self.engine.commit([Append(stream, drafts, None)]))
        for number, event_type in enumerate(types):
            seq, position = outcome.value.first_seq + number, outcome.value.position - len(types) + 1 + number
            self.events[position] = (stream, seq, event_type)
            self.ever.add(position)

    def truncate(self):
        stream = self.random.choice(["a/1", "a/2", "b/1"])
        seq = self.random.randrange(1, 20)
        self.run(self.engine.commit([TruncateThrough(stream, seq)]))
        gone = [position for position, event in self.events.items() if event[0] == stream and event[1] <= seq]
        for position in gone:
            del self.events[position]

    def compact(self):
        self.run(self.engine.compact())

    def go_on(self):
        self.random.choice([self.append, self.append, self.truncate, self.compact, lambda: None, lambda: None])()

    def page_meanwhile(self, request):
        """The page, where something may be done before each read of the disk."""
        answering = self.engine.queries.answer(request)
        go_on, answer = answering.send, None
        # Each compaction has the page read anew.
        changes_left = 12
        while True:
            try:
                asked = go_on(answer)
            except StopIteration as end:
                return end.value
            if isinstance(asked, disk.Read | disk.ReadPlaces) and changes_left:
                changes_left -= 1
                self.go_on()
            try:
                go_on, answer = answering.send, self.disk.handlers[type(asked)](asked)
            except OSError as error:
                go_on, answer = answering.throw, error


@pytest.mark.exploration
@pytest.mark.parametrize("scans", [True, False], ids=["scanned", "merged"])
@pytest.mark.parametrize("seed", range(60))
def test_no_event_is_missed_or_seen_twice_whatever_is_done_while_a_page_is_read(seed, scans, monkeypatch):
    # Small reads, so that there are many.
    monkeypatch.setattr(frames, "READ_AHEAD_BYTES", 512)
    monkeypatch.setattr(frames, "_KEPT_BYTES", 0)
    if scans:
        monkeypatch.setattr("interpreters.stores.file.choosing.places_to_scan", lambda *arguments: 3)
    going = Going(seed)
    for _ in range(12):
        prefix, types = going.random.choice(["a/", "a/1", "b/", "c/"]), going.random.choice([None, None, ("paid",)])
        backwards, limit = going.random.choice([False, True]), going.random.choice([1, 3, 10, 50])
        after = going.random.randrange(max(going.events, default=1))
        before = dict(going.events)
        page = going.page_meanwhile(ReadAll(after, prefix, types, limit, backwards=backwards))
        found = [event.position for event in page.events]
        assert found == sorted(set(found), reverse=backwards)
        wanted = [
            position
            for position, (stream, _, event_type) in sorted(before.items())
            if stream.startswith(prefix) and (types is None or event_type in types)
            if position in going.events and (page.next < position if backwards else after < position <= page.next)
            if position > after
        ]
        assert set(wanted) <= set(found), f"missed {set(wanted) - set(found)}"
        # After a compaction it is read anew, with what came meanwhile, and may be gone since.
        assert set(found) <= going.ever


def test_a_page_by_prefix_looks_at_few_places_where_few_streams_match_and_at_few_where_many_do():
    streams = merging.SortedNames({f"s/{number}": number for number in range(10_000)}, lambda position: position)
    assert merging.places_to_scan(ReadAll(0, "s/12", None, 100), streams, 10_000) == 0
    assert merging.places_to_scan(ReadAll(0, "s/", None, 100), streams, 10_000) == 1414
    assert merging.places_to_scan(ReadAll(9_990, "s/", None, 100), streams, 10_000) == 0


@pytest.mark.parametrize("backwards", [False, True])
def test_a_page_by_prefix_of_long_commits_reads_no_more_where_there_are_more_of_them(backwards):
    few, many = (bytes_read_by_a_page(commits, backwards) for commits in (10, 100))
    assert many < 2 * few


def bytes_read_by_a_page(commits, backwards):
    store = MemoryDisk()
    engine = Engine(EngineOptions(lambda: 0, Random(1).randbytes, "a test"))
    run(engine.open(), store.handlers)
    for number in range(commits):
        run(engine.commit([Append(f"a/{number % 3}", (Draft("placed", "x" * 50),) * 100, None)]), store.handlers)
    read = []

    def counted(request):
        answer = store.handlers[type(request)](request)
        read.append(len(answer) if isinstance(answer, bytes) else sum(map(len, answer)))
        return answer

    handlers = {**store.handlers, disk.Read: counted, disk.ReadPlaces: counted}
    page = run(engine.queries.answer(ReadAll(0, "a/", None, 100, backwards=backwards)), handlers)
    assert len(page.events) == 100
    return sum(read)
