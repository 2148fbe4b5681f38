"""What is damaged, lost, or given wrongly: told in words, and nothing is written."""

import sys
from typing import Any

import msgspec
import pytest
from encrypted_stores import AT, Pair, customer_of
from msgspec import structs

from interpreters import Store, open_store
from interpreters.stores.memory import MemoryStore
from interpreters.wrappers.encryption import Encrypted, envelope, open_encrypted
from interpreters.wrappers.encryption.keys import FORMAT, IDS
from persist_effects import CorruptStore, InvalidRequest, KeyLost, NewerFormat, kv, log, perform
from persist_effects.requests import Append, KvPut, Transact

ADA, BOB = "customers/ada", "customers/bob"


def with_ada() -> Pair:
    """A store with two events and a key about Ada."""
    pair = Pair()
    pair.run(log.append(ADA, "named", {"name": "Ada"}, meta={"by": "Bob"}))
    pair.run(log.append(ADA, "named", {"name": "Countess"}))
    pair.run(kv.put(f"{ADA}/name", "Ada"))
    return pair


@pytest.fixture
def pair() -> Pair:
    return with_ada()


def copied(pair: Pair, index: int, *, stream: str = ADA, type: str = "named", change: Any = lambda data: data) -> Any:
    """Append an event to the store itself whose data is that of another one, changed."""
    event = pair.inner.run(log.read(ADA))[index]
    return pair.inner.run(log.append(stream, type, change(event.data), meta=event.meta))


MOVED = "expected what was encrypted for this place, found something else: it was altered, or moved"


def test_an_envelope_that_was_moved_to_another_stream_is_refused(pair):
    copied(pair, 0, stream=BOB)
    with pytest.raises(CorruptStore, match=f"event 1 of stream '{BOB}': {MOVED}"):
        pair.run(log.read(BOB))


def test_an_envelope_that_was_moved_to_another_type_is_refused(pair):
    copied(pair, 0, type="renamed")
    with pytest.raises(CorruptStore, match=f"event 3 of stream '{ADA}': {MOVED}"):
        pair.run(log.read(ADA))


def test_an_envelope_that_was_moved_to_another_key_is_refused(pair):
    pair.inner.run(kv.put(f"{BOB}/name", pair.inner.run(kv.get(f"{ADA}/name"))))
    with pytest.raises(CorruptStore, match=f"value of key '{BOB}/name': {MOVED}"):
        pair.run(kv.get(f"{BOB}/name"))


def test_a_meta_in_the_place_of_data_is_refused(pair):
    (event, _) = pair.inner.run(log.read(ADA))
    pair.inner.run(log.append(ADA, "named", event.meta["sealed"]))
    with pytest.raises(CorruptStore, match=f"event 3 of stream '{ADA}': {MOVED}"):
        pair.run(log.read(ADA))


@pytest.mark.parametrize("at", [24, 35, 36, 40, -16, -1])
def test_a_flipped_bit_is_found_wherever_it_is(pair, at):
    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at] ^= 1
        return bytes(changed)

    copied(pair, 0, change=flipped)
    with pytest.raises(CorruptStore, match=f"event 3 of stream '{ADA}': {MOVED}"):
        pair.run(log.read(ADA))


def test_an_envelope_that_is_cut_short_is_refused(pair):
    copied(pair, 0, change=lambda data: data[:30])
    for program in (log.read(ADA), log.read_from(ADA, 3)):
        with pytest.raises(
            CorruptStore, match=r"event 3 .* expected an envelope of at least 52 bytes in format 1, found 30"
        ):
            pair.run(program)


def test_an_envelope_of_a_later_format_is_not_taken_for_damage(pair):
    copied(pair, 0, change=lambda data: data[:7] + b"\x02" + data[8:])
    with pytest.raises(
        NewerFormat, match=f"event 3 of stream '{ADA}': format version 2, and this release reads up to 1"
    ):
        pair.run(log.read(ADA))


def test_a_key_that_is_lost_is_told_from_one_that_was_deleted(pair):
    (name, _), *_ = pair.keys.run(kv.entries(IDS))
    pair.keys.run(kv.delete(name))
    key_id = name.removeprefix(IDS)
    lost = f"is encrypted under the key {key_id}, and the key store has no such key, nor says that it was forgotten"
    for program, where in (
        (log.read(ADA), f"event 1 of stream '{ADA}'"),
        (kv.get(f"{ADA}/name"), f"value of key '{ADA}/name'"),
        (log.append(ADA, "named", 1), "what is to be written about subject 'customer/ada'"),
    ):
        with pytest.raises(KeyLost, match=f"{where} {lost}"):
            pair.opened().run(program)


def test_another_key_store_than_the_one_that_belongs_to_the_store_is_a_lost_key(pair):
    encrypted = Encrypted(pair.inner.interpreter, MemoryStore(), subject_of=customer_of)
    with pytest.raises(KeyLost, match="Open the key store that belongs to this store"):
        Store(encrypted).run(log.read(ADA))


def test_what_is_not_a_key_in_the_key_store_is_told(pair):
    (name, _), *_ = pair.keys.run(kv.entries(IDS))
    pair.keys.run(kv.put(name, {"key": b"short"}))
    with pytest.raises(KeyLost, match="what the key store has in its place is not a key"):
        pair.opened().run(log.read(ADA))


def test_a_key_store_of_a_later_release_is_told(pair):
    pair.keys.run(kv.update(FORMAT, lambda found: {**found, "version": 2}, None))
    with pytest.raises(NewerFormat, match="the key store: format version 2"):
        pair.opened()


# Values that look like envelopes


class Seeming(msgspec.Struct):
    """Is stored as the dict of its fields."""

    sealed: bytes


LOOKS = b"\xc1sealed\x01 and so on"


@pytest.mark.parametrize("stream", [ADA, "prices"])
@pytest.mark.parametrize("value", [LOOKS, {"sealed": LOOKS}, Seeming(LOOKS)])
def test_a_value_that_looks_like_an_envelope_is_refused(pair, stream, value):
    before = (pair.inner.run(log.head()), pair.inner.run(kv.wait(0, timeout=0)))
    programs = [
        log.append(stream, "named", value),
        kv.put(f"{stream}/x", value),
        perform(Transact((KvPut("a", 1), KvPut(f"{stream}/x", value)))),
    ]
    if type(value) is dict:
        programs.append(log.append(stream, "named", 1, meta=value))
    for program in programs:
        if stream == ADA and isinstance(value, Seeming):
            # Inside of an envelope it is a dict like any other.
            assert pair.run(program) is not None
        else:
            with pytest.raises(InvalidRequest, match=f"'{stream}.* looks like an envelope, which only encryption may"):
                pair.run(program)
    if not (stream == ADA and isinstance(value, Seeming)):
        assert (pair.inner.run(log.head()), pair.inner.run(kv.wait(0, timeout=0))) == before


def test_a_value_that_holds_what_looks_like_an_envelope_further_in_is_like_any_other(pair):
    for stream in (ADA, "prices"):
        value = {"parts": [LOOKS, {"sealed": LOOKS}], "sealed": "with wax"}
        pair.run(log.append(stream, "named", value))
        assert pair.run(log.read(stream))[-1].data == value


# Where keys may not lie, and other arguments


def test_keys_in_the_store_itself_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest, match="'file:store' is the store itself, and the keys would lie in each of its"):
        open_encrypted(f"file:{tmp_path}/store?sync=os", keys="file:store", subject_of=customer_of)
    assert list(tmp_path.iterdir()) == []
    with open_store(f"sqlite:{tmp_path}/one.db") as keys:
        # By another name of the same file.
        (tmp_path / "two.db").symlink_to(tmp_path / "one.db")
        with pytest.raises(InvalidRequest, match="the keys lie in the store that they are to encrypt"):
            open_encrypted(f"sqlite:{tmp_path}/two.db", keys=keys, subject_of=customer_of)
    inner = MemoryStore()
    with pytest.raises(InvalidRequest, match="the keys lie in the store that they are to encrypt"):
        Encrypted(inner, inner, subject_of=customer_of)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"subject_of": "customers"}, "subject_of is a str, 'customers': give a function"),
        ({"subject_of": customer_of, "subject_of_event": 7}, "subject_of_event is an int, 7: give a function"),
        ({"subject_of": customer_of, "keys": 7}, "keys is an int, 7: give an open store, or the URL of one"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, told):
    with pytest.raises(InvalidRequest, match=told):
        open_encrypted("memory:", **{"keys": "memory:", **arguments})


def test_a_key_store_without_transactions_is_refused():
    keys = MemoryStore()
    keys.capabilities = structs.replace(keys.capabilities, transact=False)
    with pytest.raises(InvalidRequest, match="a MemoryStore does not answer Transact, by which keys are made"):
        Encrypted(MemoryStore(), keys, subject_of=customer_of)


def test_without_the_package_it_is_told_what_to_install(monkeypatch):
    keys = MemoryStore()
    envelope.library.cache_clear()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "cryptography.exceptions", None)
        with pytest.raises(InvalidRequest, match="needs the package cryptography: pip install"):
            Encrypted(MemoryStore(), keys, subject_of=customer_of)
    assert Store(keys).run(kv.keys()) == []
    assert Encrypted(MemoryStore(), keys, subject_of=customer_of)


@pytest.mark.parametrize("found", [7, b"ada", ""])
def test_a_function_that_returns_no_subject_is_named(found):
    pair = Pair(subject_of=lambda name: found)
    told = "subject is empty" if found == "" else r"subject_of\('customers/ada'\) is .*: return the subject's name"
    with pytest.raises(InvalidRequest, match=told):
        pair.run(log.append(ADA, "named", 1))
    pair = Pair(subject_of_event=lambda stream, draft: found)
    with pytest.raises(InvalidRequest, match=told.replace("subject_of", "subject_of_event").replace(ADA, "orders")):
        pair.run(log.append("orders", "named", 1))
    assert pair.inner.run(log.head()) == 0


def test_what_cannot_be_stored_is_refused_as_any_store_refuses_it(pair):
    for value in ({1, 2}, {"a": (1,)}, 2**70):
        with pytest.raises(InvalidRequest) as ours:
            pair.run(log.append(ADA, "named", value))
        with pytest.raises(InvalidRequest) as theirs:
            pair.inner.run(log.append(ADA, "named", value))
        assert str(ours.value) == str(theirs.value)


def test_an_event_that_was_written_before_there_was_encryption_is_read_as_it_is(pair):
    pair.inner.run(perform(Append("customers/old", (log.Draft("named", "Olga", at=AT),))))
    assert pair.run(log.read("customers/old"))[0].data == "Olga"
