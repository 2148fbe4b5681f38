"""Keys in the key store: made once, rotated, rewrapped, deleted; whatever comes in between."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from encrypted_stores import AT, Clock, Pair, customer_of

from interpreters import Store, open_store
from interpreters.explore import Compact, explore, explore_crashes, explore_effects
from interpreters.explore.schedule.requests import Pause
from interpreters.stores.memory import MemoryStore
from interpreters.wrappers.encryption import Encrypted, forget, open_encrypted, rewrap_keys
from interpreters.wrappers.encryption.envelope import Key
from interpreters.wrappers.encryption.keys import IDS, Keys, place_of_subject
from interpreters.wrappers.encryption.masters import Masters
from interpreters.wrappers.encryption.requests import DeleteKeys
from interpreters.wrappers.encryption.ring import FRESH_SECONDS
from persist_effects import (
    Effect,
    Erased,
    InvalidRequest,
    KeyLost,
    StoreUnavailable,
    SubjectForgotten,
    is_erased,
    kv,
    log,
    perform,
    run,
)
from persist_effects.requests import Append, Read, Transact

ADA = "customers/ada"
OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


def drawn() -> Callable[[int], bytes]:
    """Bytes that look random, and are the same in each run."""
    numbers = count()
    return lambda size: hashlib.sha256(f"{next(numbers)}".encode()).digest()[:size]


def all_keys() -> Effect[dict[str, Any]]:
    """What a key store holds of each key."""
    return {name: entry.value for name, entry in (yield from kv.entries(IDS))}


def memory() -> Store:
    return open_store("memory:", clock=lambda: AT)


# Explored: two programs on one key store


def test_two_processes_that_make_the_first_key_of_a_subject_agree_on_it():
    def newest():
        return (yield from Keys(Masters(None), drawn()).newest(ADA)).id

    def other():
        # Other random bytes than the first draws.
        random = drawn()
        for _ in range(7):
            random(1)
        return (yield from Keys(Masters(None), random).newest(ADA)).id

    def they_agree(outcomes):
        first, second = (outcome.value for outcome in outcomes)
        assert first == second
        assert len((yield from kv.keys(IDS))) == 1

    report = explore([newest, other], memory, they_agree)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report


def with_a_key() -> Store:
    store = memory()
    store.run(Keys(Masters(None), drawn()).newest(ADA))
    return store


def late() -> Callable[[int], bytes]:
    """Bytes that nothing before has drawn."""
    random = drawn()
    for _ in range(100):
        random(1)
    return random


@pytest.mark.parametrize("other", ["newest", "rotate", "admit", "forget"])
def test_forgetting_leaves_no_key_of_those_that_were_there_whatever_comes_in_between(other):
    def forgotten():
        yield from Keys(Masters(None), drawn()).forget(ADA, AT)

    def meanwhile():
        keys = Keys(Masters(None), late())
        try:
            yield from keys.forget(ADA, AT + 1) if other == "forget" else getattr(keys, other)(ADA)
        except SubjectForgotten:
            return

    def nothing_is_left(outcomes):
        entries = yield from all_keys()
        left = [value for value in entries.values() if "key" in value]
        # A subject that was admitted after it was forgotten has a key again, which nothing was written under.
        assert len(left) <= (other == "admit"), entries
        assert any("forgotten_at" in value for value in entries.values())

    report = explore({"forget": forgotten, other: meanwhile}, with_a_key, nothing_is_left, crashes=True)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report


@pytest.mark.exploration
@pytest.mark.parametrize("what", ["newest", "rotate", "forget", "check_format", "rewrap"])
def test_whatever_fault_comes_at_any_request_it_may_be_done_again(what):
    def done():
        keys = Keys(Masters([NEW, OLD]), drawn())
        arguments = {"newest": ["customers/new"], "rotate": [ADA], "forget": [ADA, AT]}.get(what, [])
        yield from getattr(keys, what)(*arguments)

    def prepared() -> Store:
        store, keys = memory(), Keys(Masters(OLD), late())
        store.run(keys.check_format())
        for subject in (ADA, "customers/bob"):
            store.run(keys.newest(subject))
        return store

    def is_as_it_should_be(acked, maybe):
        keys = Keys(Masters([NEW, OLD]), late())
        bob = yield from keys.newest("customers/bob")
        assert isinstance(bob, Key)
        entries = yield from all_keys()
        if what == "forget":
            assert [value for value in entries.values() if "key" not in value] == [{"forgotten_at": AT}]
        if what == "rewrap":
            assert {value["under"] for value in entries.values()} == {Masters(NEW).fingerprint}

    report = explore_effects(done, prepared, is_as_it_should_be, depth=2)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report


class _Unreachable(MemoryStore):
    """A key store that answers what is there, and takes nothing more."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: AT)
        self.is_reached = True
        transact = self.handlers[Transact]

        def reached(request: Transact) -> Any:
            if not self.is_reached:
                raise StoreUnavailable("the key store is gone")
            return transact(request)

        self.handlers = {**self.handlers, Transact: reached}


def test_where_no_key_can_be_made_nothing_is_written():
    inner, keys = memory(), _Unreachable()
    store = Store(Encrypted(inner.interpreter, keys, subject_of=customer_of))
    store.run(log.append("customers/bob", "named", "Bob"))
    keys.is_reached = False
    for make in (lambda: log.append(ADA, "named", "Ada"), lambda: kv.put(f"{ADA}/name", "Ada")):
        with pytest.raises(StoreUnavailable, match="the key store is gone"):
            store.run(make())
    assert (inner.run(log.streams()), inner.run(kv.keys())) == (["customers/bob"], [])
    # Who has a key already is written about.
    store.run(log.append("customers/bob", "named", "Robert"))


# Explored: an encrypted store whose operations are as many steps as they really are


class Stepped:
    """An encrypted store on which others may go first between sealing and writing, and around the deletion of keys."""

    def __init__(self, encrypted: Encrypted, inner: Store) -> None:
        self.encrypted = encrypted
        self.handlers = {**encrypted.handlers, Append: self.append, Read: self.read}
        self.effects = {**encrypted.effects, DeleteKeys: self.delete_keys}
        self.inner = inner

    def close(self) -> None:
        self.encrypted.close()

    def append(self, request: Append) -> Iterator[Any]:
        sealed = self.encrypted._sealing.sealed(request, self.encrypted._ring)
        yield Pause()
        answer = self.inner.handlers[Append](sealed)
        yield Pause()
        return answer

    def read(self, request: Read) -> Iterator[Any]:
        yield Pause()
        answer = self.encrypted.handlers[Read](request)
        yield Pause()
        return answer

    def delete_keys(self, request: DeleteKeys) -> Iterator[Any]:
        yield Pause()
        answer = self.encrypted.effects[DeleteKeys](request)
        yield Pause()
        return answer


def stepped() -> Store:
    inner = memory()
    keys = MemoryStore(clock=lambda: AT)
    encrypted = Encrypted(
        inner.interpreter, keys, subject_of=customer_of, clock=lambda: AT, seconds=lambda: 0.0, random=drawn()
    )
    around = Stepped(encrypted, inner)
    store = Store(around, effects=around.effects)
    Store(encrypted).run(log.append(ADA, "named", "Ada"))
    return store


def test_a_subject_of_very_many_keys_is_forgotten_by_transactions_that_any_store_takes():
    store, keys = memory(), Keys(Masters(None), drawn())
    store.run(keys.newest(ADA))
    for _ in range(250):
        store.run(keys.rotate(ADA))
    ids = store.run(kv.get(place_of_subject(ADA)))["ids"]
    writes, left = [], []
    transact = store.handlers[Transact]

    def noted(request):
        answer = transact(request)
        writes.append(len(request.writes))
        left.append(len(store.run(kv.get(place_of_subject(ADA)))["ids"]))
        return answer

    gone = run(keys.forget(ADA, AT), {**store.handlers, Transact: noted})
    assert (gone.ids, gone.forgotten_at) == ([], AT)
    assert writes == [102, 102, 53]
    assert left == [151, 51, 0]
    assert {type(store.run(keys.by_id(bytes.fromhex(key_id), "it"))) for key_id in ids} == {Erased}


@pytest.mark.exploration
def test_once_forget_returns_nothing_of_the_subject_is_read_whatever_appends_and_reads_come_in_between():
    def forgetting():
        yield from forget("customer/ada")
        found = yield from log.read(ADA)
        assert found
        assert all(map(is_erased, found)), found

    def appending():
        try:
            yield from log.append(ADA, "named", "Countess")
        except SubjectForgotten:
            return "refused"
        return "written"

    def reading():
        return [event.data for event in (yield from log.read(ADA))]

    def all_is_erased(outcomes):
        forgotten, appended, read = outcomes
        assert not hasattr(forgotten, "error"), forgotten
        found = yield from log.read(ADA)
        assert len(found) == 1 + (appended.value == "written")
        assert all(map(is_erased, found))
        assert all(data in {"Ada", "Countess"} or isinstance(data, Erased) for data in read.value)

    report = explore(
        {"forget": forgetting, "append": appending, "read": reading}, stepped, all_is_erased, reduce=False, bound=3
    )
    assert report.verdict == "passed", report
    assert report.checked > 100


@pytest.mark.exploration
def test_a_crash_at_any_request_of_forget_is_mended_by_doing_it_again():
    def forgetting():
        yield from forget("customer/ada", derived=[derive])

    def derive():
        found = yield from log.read(ADA)
        yield from kv.put("names", [event.data for event in found if not is_erased(event)])

    def all_is_erased(acked, maybe):
        assert all(map(is_erased, (yield from log.read(ADA))))
        assert (yield from kv.get("names")) == []

    def made() -> Store:
        pair = Pair(random=drawn())
        pair.run(log.append(ADA, "named", "Ada"))
        return pair.store

    report = explore_effects(forgetting, made, all_is_erased, depth=2)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report


@pytest.mark.exploration
def test_a_loss_of_power_at_any_request_of_the_disk_leaves_a_subject_forgotten_or_not_and_nothing_between():
    def life() -> Effect[None]:
        keys = Keys(Masters(None), drawn())
        yield from keys.check_format()
        yield from keys.newest(ADA)
        yield from keys.newest("customers/bob")
        yield from keys.rotate(ADA)
        yield from keys.forget(ADA, AT)
        yield from perform(Compact())

    def all_or_nothing(acked: Any, maybe: Any) -> Effect[None]:
        entries = yield from all_keys()
        of_ada = yield from kv.get(place_of_subject(ADA))
        listed = [entries[IDS + key_id] for key_id in (of_ada or {"ids": []})["ids"]]
        assert all("key" in record for record in listed)
        deleted = [record for record in entries.values() if "key" not in record]
        assert deleted in ([], [{"forgotten_at": AT}] * 2)
        assert bool(deleted) == bool(of_ada and of_ada["forgotten_at"])
        # Whatever was left, it is forgotten by doing it again.
        if of_ada:
            assert (yield from Keys(Masters(None), late()).forget(ADA, AT)).ids == []

    report = explore_crashes(life, all_or_nothing, depth=1)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report


# Two processes

FORGETTING = """
import sys
from interpreters.wrappers.encryption import forget, open_encrypted
url, keys = sys.argv[1:]
with open_encrypted(url, keys=keys, subject_of=lambda name: name) as store:
    store.run(forget("customers/ada"))
"""


def test_a_subject_that_another_process_forgets_is_soon_forgotten_here(tmp_path):
    urls = [f"sqlite:{tmp_path}/{name}.db?sync=os" for name in ("store", "keys")]
    seconds = Clock()
    with open_store(urls[0]) as inner, open_store(urls[1]) as keys:
        store = Store(Encrypted(inner.interpreter, keys.interpreter, subject_of=lambda name: name, seconds=seconds))
        store.run(log.append(ADA, "named", "Ada"))
        assert store.run(log.read(ADA))[0].data == "Ada"
        subprocess.run([sys.executable, "-c", FORGETTING, *urls], check=True)
        seconds.now += FRESH_SECONDS
        assert is_erased(store.run(log.read(ADA))[0])
        with pytest.raises(SubjectForgotten):
            store.run(log.append(ADA, "named", "Ada"))


# Master keys


def test_keys_lie_in_the_key_store_under_the_master_key_and_not_as_they_are():
    plain, wrapped = Pair(random=drawn()), Pair(random=drawn(), master=OLD)
    for pair in (plain, wrapped):
        pair.run(log.append(ADA, "named", "Ada"))
    (record,) = plain.keys.run(all_keys()).values()
    (under,) = wrapped.keys.run(all_keys()).values()
    assert len(record["key"]) == 32
    assert record["key"] not in under["key"]
    assert under["key"].startswith(b"\xc1sealed")
    assert wrapped.run(log.read(ADA))[0].data == "Ada"


def test_the_wrong_master_key_is_told_when_the_store_is_opened():
    pair = Pair(master=OLD)
    pair.run(log.append(ADA, "named", "Ada"))
    fingerprint = Masters(OLD).fingerprint
    with pytest.raises(
        InvalidRequest, match=f"under the master key {fingerprint}, and {Masters(OTHER).fingerprint} was"
    ):
        pair.opened(master=OTHER)
    with pytest.raises(InvalidRequest, match=f"under the master key {fingerprint}, and none was given"):
        pair.opened(master=None)


def test_a_master_key_is_rotated_and_the_log_is_not_touched():
    pair = Pair(master=OLD)
    pair.run(log.append(ADA, "named", "Ada"))
    head, revision = pair.inner.run(log.head()), pair.inner.run(kv.wait(0, timeout=0))
    both = pair.opened(master=[NEW, OLD])
    both.run(log.append("customers/bob", "named", "Bob"))
    assert pair.keys.run(rewrap_keys([NEW, OLD])) == 1
    assert pair.keys.run(rewrap_keys([NEW, OLD])) == 0
    only = pair.opened(master=lambda: NEW)
    assert [event.data for event in only.run(log.read_all())] == ["Ada", "Bob"]
    assert (pair.inner.run(log.head()), pair.inner.run(kv.wait(0, timeout=0))) == (head + 1, revision)
    with pytest.raises(InvalidRequest, match="under the master key"):
        pair.opened(master=OLD)


def test_keys_that_lay_there_as_they_are_may_be_wrapped_later():
    pair = Pair()
    pair.run(log.append(ADA, "named", "Ada"))
    assert pair.keys.run(rewrap_keys(NEW)) == 1
    assert pair.opened(master=NEW).run(log.read(ADA))[0].data == "Ada"


def test_a_key_under_a_master_key_that_is_not_given_is_named():
    pair = Pair(master=[NEW, OLD])
    pair.opened(master=[NEW]).run(log.append("customers/bob", "named", "Bob"))
    keys = Keys(Masters(OLD), drawn())
    pair.keys.run(keys.newest("customer/ada"))
    only = pair.opened(master=NEW)
    with pytest.raises(KeyLost, match=f"that one is under the master key {Masters(OLD).fingerprint}, and"):
        only.run(log.append(ADA, "named", "Ada"))


def test_keys_are_not_looked_for_in_a_store_that_has_none():
    with pytest.raises(InvalidRequest, match="it is not a key store"):
        memory().run(rewrap_keys([NEW, OLD]))


@pytest.mark.parametrize("master", [b"short", "a text", 7, [NEW, b""]])
def test_what_is_not_a_master_key_is_refused_before_anything_is_written(master):
    keys = open_store("memory:")
    with pytest.raises(InvalidRequest, match=r"a master key is .*: give 32 random bytes"):
        open_encrypted("memory:", keys=keys, subject_of=customer_of, master=master)
    assert keys.run(kv.keys()) == []
