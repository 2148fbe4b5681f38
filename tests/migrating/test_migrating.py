"""A store that is copied into one of another kind, whole, and wherever it was interrupted."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import nats_cluster
import postgres_server
import pytest
from lagging import LaggingMemoryStore
from stores_of_a_move import read_model, stopping_after

from interpreters import Store, open_store
from interpreters.migrating import STATE, Copy, migrate
from persist_effects import CorruptStore, Draft, InvalidRequest, kv, log, snapshot, subscription, transact
from persist_effects.requests import Append, KvPut

KINDS = ("memory", "lagging", "file", "sqlite", "postgresql", "nats")


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str], Store]:
    numbers = count()

    def new_store(kind: str) -> Store:
        if kind == "lagging":
            return Store(LaggingMemoryStore())
        if kind == "postgresql":
            return open_store(postgres_server.new_store_url(sync="interval"))
        if kind == "nats":
            return open_store(nats_cluster.new_store_url())
        return open_store("memory:" if kind == "memory" else f"{kind}:{tmp_path}/{next(numbers)}?sync=os")

    return new_store


def fill(store: Store, seed: int = 0) -> None:
    """Something of everything: streams that were truncated, wholly too, or begin later, keys, followers, snapshots."""
    random = Random(seed)
    for number in range(60):
        stream = f"orders/{random.randrange(8)}"
        drafts = [Draft(random.choice(["placed", "paid"]), {"n": number}, at=number, meta={"by": "me"})] * 3
        store.run(log.append_many(stream, drafts[: random.randint(1, 3)]))
        if number % 20 == 7:
            store.run(log.truncate_through(stream, 1, unseen="drop"))
    store.run(log.truncate_through("orders/1", 1_000, unseen="drop"))
    store.run(log.begin("later", 41))
    store.run(log.append("later", "made", None))
    store.run(log.begin("empty", 7))
    for number in range(40):
        store.run(kv.put(f"key/{random.randrange(20)}", [number, b"\x00", 2.5]))
    store.run(kv.delete("key/3"))
    store.run(subscription.follow("some", "orders/2", lambda event: [], skip_truncated=True))
    store.run(log.append_once("orders/2", "7", "paid", 5))
    store.run(transact(Append("a", (Draft("made", 1),)), KvPut("last", {"seq": 1})))
    store.run(snapshot.checkpoint("sum", "a", lambda total, event: total + 1, 0))


@pytest.mark.exploration
@pytest.mark.parametrize("new_kind", KINDS)
@pytest.mark.parametrize("old_kind", KINDS)
def test_a_store_is_the_same_after_it_was_migrated_and_goes_on_above_the_old_one(old_kind, new_kind, opened):
    with opened(old_kind) as old, opened(new_kind) as new:
        fill(old)
        counts = migrate(old, new)
        assert read_model(new) == read_model(old)
        assert (counts.events, counts.keys) == (len(old.run(log.read_all())), len(old.run(kv.keys(""))))
        position, revision = old.run(log.head()), max(entry.revision for _, entry in old.run(kv.entries()))
        assert new.run(log.append("orders/2", "placed", 1)).position > position
        assert new.run(kv.put("key/1", 1)) > revision
        new.wait_for_order()
        seen = []
        new.run(subscription.follow("some", "orders/2", lambda event: seen.append(event.data) or []))
        old.run(log.append("orders/2", "placed", 1))
        old.wait_for_order()
        expected = []
        old.run(subscription.follow("some", "orders/2", lambda event: expected.append(event.data) or []))
        assert seen == expected


class Stopping(Exception):
    """The process is gone."""


@pytest.mark.exploration
@pytest.mark.parametrize(
    ("old_kind", "new_kind"),
    [("memory", "file"), ("file", "sqlite"), ("sqlite", "postgresql"), ("file", "nats"), ("nats", "file")],
)
def test_a_migration_that_is_stopped_after_any_request_goes_on_where_it_was(old_kind, new_kind, opened, monkeypatch):
    monkeypatch.setattr("interpreters.migrating.copying.PAGE", 20)
    with opened(old_kind) as old:
        fill(old)
        expected = read_model(old)
        for requests in count(0, 7):
            with opened(new_kind) as new:
                try:
                    migrate(old, Store(stopping_after(new.interpreter, requests, Stopping)))
                except Stopping:
                    migrate(old, new)
                    assert read_model(new) == expected, f"stopped after {requests} requests"
                else:
                    break
        assert requests > 20


@pytest.mark.parametrize("batch_messages", [8, 20, 100])
def test_a_store_that_takes_little_at_once_is_filled_by_several_transactions(batch_messages, opened):
    with opened("file") as old, open_store(nats_cluster.new_store_url(batch_messages=batch_messages)) as new:
        fill(old)
        old.run(log.append_many("long", [Draft("made", number) for number in range(150)]))
        old.run(log.begin("truncated", 3))
        migrate(old, new)
        assert read_model(new) == read_model(old)
        copy = Copy(old, new)
        copy.begin_at(copy.state, 0)
        # Of what was copied of it, events were dropped, and then some that had not been copied.
        old.run(log.append_many("long", [Draft("made", number) for number in range(150)]))
        old.run(log.truncate_through("long", 260, unseen="drop"))
        copy.events()
        copy.streams()
        copy.keys()
        copy.compare()


def test_what_was_written_since_is_copied_too(opened):
    with open_store("memory:") as old, opened("sqlite") as new:
        copy = Copy(old, new)
        copy.begin()
        for seed in range(3):
            fill_more(old, seed)
            copy.events()
            copy.streams()
            copy.keys()
            copy.compare()
        copy.end()
        assert read_model(new) == read_model(old)
        assert STATE not in new.run(kv.keys(""))


def fill_more(store: Store, seed: int) -> None:
    random = Random(seed)
    for number in range(40):
        name = f"s/{random.randrange(6)}"
        store.run(log.append_many(name, [Draft("made", number)] * random.randint(1, 4)))
        if random.random() < 0.3:
            # Also of what was not copied yet.
            store.run(log.truncate_through(name, random.randrange(30), unseen="drop"))
        key = f"k/{random.randrange(9)}"
        store.run(kv.delete(key) if random.random() < 0.3 else kv.put(key, number))


def test_a_store_with_something_in_it_and_one_that_was_filled_from_another_are_refused():
    with open_store("memory:") as old, open_store("memory:") as other, open_store("memory:") as new:
        fill(old)
        fill(other, seed=1)
        copy = Copy(other, new)
        copy.begin()
        copy.events()
        with pytest.raises(InvalidRequest, match=r"the new store was filled from another one: expected event \d+ of"):
            migrate(old, new)
        with pytest.raises(InvalidRequest, match=r"the new store has stream 'a': migrate into an empty store"):
            migrate(new, old)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: log.append("orders/2", "more", None), "the new store has event"),
        (lambda: kv.put("key/1", 1), "key 'key/1': expected"),
        (lambda: kv.delete("key/1"), "key 'key/1': expected .*, found nothing"),
        (lambda: kv.put("other", 1), "the new store has key 'other', which the old one has not"),
        (lambda: log.truncate_through("orders/2", 3, unseen="drop"), r"stream 'orders/2': expected \(dropped, last\)"),
        (lambda: log.begin("more", 1), "stream 'more' is in one store only"),
    ],
)
def test_any_difference_is_told(spoil, message):
    with open_store("memory:") as old, open_store("memory:") as new:
        fill(old)
        copy = Copy(old, new)
        copy.begin()
        copy.events()
        copy.streams()
        copy.keys()
        new.run(spoil())
        with pytest.raises(CorruptStore, match=message):
            copy.compare()
