"""How positions and revisions are told, and what is left of deletions."""

from contextlib import closing

from nats_cluster import new_store_url
from served_stores import until

from interpreters import open_store
from interpreters.stores.nats import commits, numbers
from interpreters.stores.nats.numbers import Advances, ToldNumbers
from persist_effects import kv, log


def numbers_of(store) -> ToldNumbers:
    return store.interpreter._numbers


def in_loop(store, function, *arguments):
    return store.interpreter._connection.call(function, *arguments)


def test_an_advance_whose_announcer_died_is_taken_back_and_another_one_comes(monkeypatch):
    with open_store(new_store_url()) as store:
        store.run(kv.put("a", 1))
        own = numbers_of(store)
        in_loop(store, own._write, Advances([], [], True), 0)
        in_loop(store, own.ask)
        assert not own.are_settled
        monkeypatch.setattr(numbers, "ABANDONED_SECONDS", -1.0)
        in_loop(store, own.ask)
        in_loop(store, own.ask)
        assert own.are_settled
        store.run(log.advance(1_000, 1_000))
        assert store.run(kv.put("a", 2)) > 1_000


def test_an_announcer_whose_advance_was_taken_back_announces_it_again(monkeypatch):
    with open_store(new_store_url()) as store, open_store(new_store_url()) as _:
        own = numbers_of(store)
        written = []
        write = own._write

        async def taken_back(advances, expected):
            number = await write(advances, expected)
            if advances.is_announced and len(written) == 0:
                await write(Advances(), number)
            written.append(advances.is_announced)
            return number

        monkeypatch.setattr(own, "_write", taken_back)
        store.run(log.advance(1_000, 1_000))
        assert written == [True, False, True, False]
        assert store.run(kv.put("a", 2)) > 1_000


def test_a_key_that_was_deleted_long_ago_takes_no_space_and_its_revision_is_told_too_high_never_too_low(monkeypatch):
    monkeypatch.setattr(commits, "DELETION_SECONDS", 1)
    url = new_store_url()
    with open_store(url) as store:
        store.run(kv.put("session", 1))
        store.run(kv.delete("session"))
        deleted = store.run(kv.wait(0, timeout=0))
        stream = store.interpreter._reader._stream
        subject = store.interpreter._subjects.of("k", "session")
        until(lambda: in_loop(store, stream.last_of, subject) is None)
        assert store.run(kv.get("session")) is None
        # What is known of it from before is not true any more, and found out.
        assert store.run(kv.put("session", 2)) > deleted
        store.run(kv.delete("session"))
        deleted = store.run(kv.wait(0, timeout=0))
        until(lambda: in_loop(store, stream.last_of, subject) is None)
    monkeypatch.setattr("interpreters.stores.nats.reader.DELETION_SECONDS", 0)
    with closing(open_store(url)) as store:
        assert store.run(kv.wait(0, timeout=0)) >= deleted
        assert store.run(kv.wait(0, "session", timeout=0)) >= deleted
