"""What an encrypted store holds, gives back, and forgets."""

import io
from typing import Any

import anyio
import msgspec
import pytest
from encrypted_stores import AT, Pair, names_of

from interpreters import Store, open_store
from interpreters.wrappers.encryption import admit, forget, open_encrypted, put_blob, rotate_key
from persist_effects import (
    Append,
    BlobNotFound,
    Conflict,
    Draft,
    Entry,
    Erased,
    InvalidRequest,
    KvPut,
    SubjectForgotten,
    TooLarge,
    UnknownSubject,
    blob,
    compaction,
    follow,
    is_erased,
    kv,
    log,
    perform,
    projection,
    snapshot,
    transact,
    view,
)
from persist_effects.requests import KvEntries, Transact

ADA, BOB = "customers/ada", "customers/bob"


def register(stream: str, name: str) -> Any:
    return log.append(stream, "registered", {"name": name}, meta={"by": f"agent of {name}"})


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_what_lies_in_the_store_tells_nothing_and_what_is_read_is_what_was_written(pair):
    event = pair.run(register(ADA, "Ada Lovelace"))
    assert pair.run(log.read(ADA)) == [event]
    (kept,) = pair.inner.run(log.read(ADA))
    assert (kept.stream, kept.seq, kept.type, kept.position) == (ADA, 1, "registered", 1)
    assert b"Lovelace" not in msgspec.msgpack.encode(kept)
    pair.run(kv.put(f"{ADA}/name", "Ada Lovelace"))
    assert b"Lovelace" not in pair.inner.run(kv.get(f"{ADA}/name"))
    assert pair.run(kv.get(f"{ADA}/name")) == "Ada Lovelace"


def test_what_is_about_nobody_stands_in_the_clear(pair):
    pair.run(log.append("prices", "set", 5))
    assert pair.inner.run(log.read("prices"))[0].data == 5


def test_no_two_envelopes_are_alike_though_the_values_are(pair):
    for _ in range(50):
        pair.run(kv.put(f"{ADA}/name", "Ada"))
        pair.run(log.append(ADA, "named", "Ada"))
    kept = [event.data for event in pair.inner.run(log.read(ADA))]
    nonces = {envelope[24:36] for envelope in kept}
    assert len(nonces) == len(kept) == 50


def test_an_event_may_name_its_own_subject_in_a_stream_of_many():
    def of_event(stream: str, draft: Draft) -> str | None:
        return f"customer/{draft.data['customer']}" if stream == "orders" else None

    pair = Pair(subject_of_event=of_event)
    for name in ("ada", "bob"):
        pair.run(log.append("orders", "placed", {"customer": name, "item": f"tea of {name}"}))
    done = pair.run(forget("customer/ada"))
    assert (done.subject, done.forgotten_at) == ("customer/ada", AT)
    ada, bob = pair.run(log.read("orders"))
    assert (ada.data, bob.data) == (Erased(AT), {"customer": "bob", "item": "tea of bob"})


def test_an_event_of_a_stream_that_is_about_somebody_is_about_nobody_else():
    # Else the states of that stream would hold somebody whose forgetting does not reach them.
    pair = Pair(subject_of_event=lambda stream, draft: "customer/bob")
    pair.run(register(ADA, "Ada"))
    pair.run(register("others", "Bob"))
    with pytest.raises(UnknownSubject):
        pair.run(forget("customer/eve"))
    pair.run(forget("customer/bob"))
    assert [is_erased(event) for event in pair.run(log.read_all())] == [False, True]


def test_states_of_a_stream_of_many_are_made_anew_and_those_that_cannot_be_are_named():
    pair = Pair(subject_of_event=lambda stream, draft: f"customer/{draft.data['name']}" if "all" in stream else None)
    for stream in ("all/1", "all/2"):
        for name in ("ada", "bob"):
            pair.run(register(stream, name))
    pair.run(register(BOB, "Bob"))
    pair.run(snapshot.checkpoint("one", "all/1", names_of(), []))
    pair.run(compaction.compact("two", "all/2", names_of(), []))
    pair.run(snapshot.checkpoint("three", BOB, names_of(), []))
    done = pair.run(forget("customer/ada"))
    assert (done.dropped, done.left) == (["snapshot/one"], ["snapshot/two"])
    assert pair.run(snapshot.replay("one", "all/1", names_of(), [])).value == ["bob"]
    assert pair.run(snapshot.replay("two", "all/2", names_of(), [])).value == ["ada", "bob"]
    assert pair.run(kv.has("snapshot/three"))


# Noting, marks, snapshots, views, followers


@pytest.mark.parametrize("meta", [None, {"by": "Ada"}])
def test_answers_that_a_store_notes_come_back_in_the_meta_they_were_noted_in(pair, meta):
    last = Append(ADA, (Draft("named", {"name": "Ada"}, meta=meta),))
    answers = pair.run(perform(Transact((KvPut("a", 1), last), noting=True)))
    (event,) = pair.run(log.read(ADA))
    assert (event.data, event.meta) == ({"name": "Ada"}, {**(meta or {}), "answers": [answers[0]]})


def test_answers_that_a_store_notes_come_back_in_the_value_they_were_noted_in(pair):
    put = KvPut(f"{ADA}/last", {"name": "Ada"})
    answers = pair.run(perform(Transact((Append(ADA, (Draft("named", 1),)), put), noting=True)))
    noted = msgspec.to_builtins(answers[0])
    assert pair.run(kv.get(put.key)) == {"name": "Ada", "answers": [noted]}
    assert pair.inner.run(kv.get(put.key)).keys() == {"sealed", "answers"}


def test_an_answers_item_of_the_users_own_is_his(pair):
    pair.run(log.append(ADA, "named", 1, meta={"answers": "forty-two"}))
    assert pair.run(log.read(ADA))[0].meta == {"answers": "forty-two"}


def test_an_append_once_is_one_event_also_after_it_was_forgotten(pair):
    first = pair.run(log.append_once(ADA, "payment 77", "paid", {"cents": 5}))
    assert pair.run(log.append_once(ADA, "payment 77", "paid", {"cents": 5})) == first
    pair.run(forget("customer/ada"))
    with pytest.raises(SubjectForgotten):
        pair.run(log.append_once(ADA, "payment 77", "paid", {"cents": 5}))
    pair.run(admit("customer/ada"))
    again = pair.run(log.append_once(ADA, "payment 77", "paid", {"cents": 5}))
    assert (again.seq, again.data) == (1, Erased(AT))


def test_a_state_is_about_whom_its_stream_is_and_is_made_anew_of_what_is_left(pair):
    pair.run(register(ADA, "Ada"))
    pair.run(snapshot.checkpoint("names", ADA, names_of(), []))
    assert b"Ada" not in msgspec.msgpack.encode(pair.inner.run(kv.get("snapshot/names")))
    assert pair.run(snapshot.replay("names", ADA, names_of(), [])).value == ["Ada"]
    pair.run(forget("customer/ada"))
    assert pair.run(kv.get("snapshot/names")) == Erased(AT)
    assert pair.run(snapshot.replay("names", ADA, names_of(), [])) == projection.State([], 1)


def test_a_view_of_a_forgotten_stream_is_what_is_left_of_it(pair):
    names = view.View("names", ADA, names_of(), [])
    pair.run(register(ADA, "Ada"))
    assert pair.run(view.refresh(names)).value == ["Ada"]
    assert pair.run(view.peek(names)) == ["Ada"]
    pair.run(forget("customer/ada"))
    assert (pair.run(view.value(names)), pair.run(view.peek(names))) == ([], [])


def test_a_compacted_stream_goes_on_from_its_state(pair):
    pair.run(register(ADA, "Ada"))
    pair.run(compaction.compact("names", ADA, names_of(), []))
    pair.run(register(ADA, "Countess"))
    assert pair.run(snapshot.replay("names", ADA, names_of(), [])).value == ["Ada", "Countess"]


def test_a_follower_sees_each_event_once_and_goes_on_over_what_was_erased(pair):
    seen: list[Any] = []

    def note(event):
        seen.append(event.data)
        return [KvPut(f"copy/{event.stream}", 1)]
        yield

    pair.run(register(ADA, "Ada"))
    pair.run(follow("copies", "customers/", note))
    pair.run(register(BOB, "Bob"))
    pair.run(forget("customer/ada"))
    pair.run(follow("copies", "customers/", note))
    assert seen == [{"name": "Ada"}, {"name": "Bob"}]


def test_a_conflict_passes_as_it_is(pair):
    pair.run(register(ADA, "Ada"))
    assert pair.run(log.append_expect(ADA, 0, "registered", {})) == Conflict("stream", ADA, 0, 1)
    assert pair.run(transact(KvPut("a", 1), KvPut(f"{ADA}/x", 1, expected=7))) == Conflict("key", f"{ADA}/x", 7, 0, 1)


# Forgetting


def test_a_forgotten_subject_is_erased_everywhere_and_the_others_read_on(pair):
    pair.run(register(ADA, "Ada"))
    pair.run(register(BOB, "Bob"))
    pair.run(kv.put(f"{ADA}/email", "ada@example.com"))
    revision = pair.run(kv.entry(f"{ADA}/email")).revision
    assert pair.run(forget("customer/ada")).forgotten_at == AT
    (event,) = pair.run(log.read(ADA))
    assert (event.seq, event.type, event.data, event.meta) == (1, "registered", Erased(AT), Erased(AT))
    assert is_erased(event)
    # The key is there, with its revision: what was expected of it still holds.
    assert pair.run(kv.entry(f"{ADA}/email")) == Entry(Erased(AT), revision)
    assert pair.run(perform(KvEntries("customers/"))) == [(f"{ADA}/email", Entry(Erased(AT), revision))]
    assert pair.run(log.read(BOB))[0].data == {"name": "Bob"}
    assert [event.data for event in pair.run(log.read_all())] == [Erased(AT), {"name": "Bob"}]


def test_a_fold_passes_over_what_was_erased(pair):
    pair.run(register(ADA, "Ada"))
    pair.run(register(BOB, "Bob"))
    pair.run(forget("customer/ada"))
    assert pair.run(projection.project_all("customers/", names_of(), [])).value == ["Bob"]


def test_forgetting_again_is_as_forgetting_once(pair):
    pair.run(register(ADA, "Ada"))
    first = pair.run(forget("customer/ada"))
    before = pair.keys.run(kv.wait(0, timeout=0))
    assert pair.run(forget("customer/ada")) == first
    assert pair.keys.run(kv.wait(0, timeout=0)) == before


def test_who_never_was_cannot_be_forgotten_and_nothing_is_written(pair):
    before = pair.keys.run(kv.wait(0, timeout=0))
    for program in (forget("customer/eve"), admit("customer/eve"), rotate_key("customer/eve")):
        with pytest.raises(UnknownSubject, match="nothing was ever written about the subject 'customer/eve'"):
            pair.run(program)
    assert pair.keys.run(kv.wait(0, timeout=0)) == before


def test_nothing_new_is_written_about_a_forgotten_subject_until_it_is_admitted(pair):
    pair.run(register(ADA, "Ada"))
    pair.run(forget("customer/ada"))
    before = pair.inner.run(log.head())
    for make in (
        lambda: register(ADA, "Ada"),
        lambda: kv.put(f"{ADA}/x", 1),
        lambda: transact(KvPut("a", 1), Append(ADA, (Draft("named", 1),))),
        lambda: put_blob("customer/ada", b"photo"),
        lambda: rotate_key("customer/ada"),
    ):
        with pytest.raises(SubjectForgotten, match=r"subject 'customer/ada' was forgotten at 17.*admit\(subject\)"):
            pair.run(make())
    assert (pair.inner.run(log.head()), pair.inner.run(kv.has("a"))) == (before, False)
    assert pair.run(admit("customer/ada")) == 1
    assert pair.run(admit("customer/ada")) == 1
    pair.run(register(ADA, "Countess"))
    assert [event.data for event in pair.run(log.read(ADA))] == [Erased(AT), {"name": "Countess"}]
    pair.run(forget("customer/ada"))
    assert all(map(is_erased, pair.run(log.read(ADA))))


def test_what_was_derived_is_made_anew_after_the_keys_are_gone(pair):
    pair.run(register(ADA, "Ada"))
    pair.run(register(BOB, "Bob"))

    def rebuild():
        names = yield from projection.project_all("customers/", names_of(), [])
        yield from kv.put("names", names.value)

    pair.run(rebuild())
    assert pair.run(kv.get("names")) == ["Ada", "Bob"]
    pair.run(forget("customer/ada", derived=[rebuild]))
    assert pair.run(kv.get("names")) == ["Bob"]


def test_other_stores_of_this_process_forget_at_once(pair):
    other = pair.opened()
    pair.run(register(ADA, "Ada"))
    assert other.run(log.read(ADA))[0].data == {"name": "Ada"}
    pair.run(forget("customer/ada"))
    assert is_erased(other.run(log.read(ADA))[0])
    with pytest.raises(SubjectForgotten):
        other.run(register(ADA, "Ada"))


def test_another_process_notices_within_the_time_that_is_stated(pair):
    other = pair.opened()
    pair.run(register(ADA, "Ada"))
    other.run(log.read(ADA))
    # As another process does it: this one is not told.
    from interpreters.wrappers.encryption.keys import Keys
    from interpreters.wrappers.encryption.masters import Masters
    from interpreters.wrappers.encryption.ring import FRESH_SECONDS

    pair.keys.run(Keys(Masters(None), bytes).forget("customer/ada", AT))
    assert FRESH_SECONDS == 1
    pair.seconds.now += FRESH_SECONDS
    assert is_erased(other.run(log.read(ADA))[0])
    with pytest.raises(SubjectForgotten):
        other.run(register(ADA, "Ada"))


def test_a_key_that_is_rotated_is_followed_by_another_and_the_log_stays(pair):
    pair.run(register(ADA, "Ada"))
    before = pair.inner.run(log.read(ADA))
    assert pair.run(rotate_key("customer/ada")) == 2
    pair.run(register(ADA, "Countess"))
    first, second = pair.inner.run(log.read(ADA))
    assert [first] == before
    assert first.data[8:24] != second.data[8:24]
    assert [event.data["name"] for event in pair.run(log.read(ADA))] == ["Ada", "Countess"]
    pair.run(forget("customer/ada"))
    assert all(map(is_erased, pair.run(log.read(ADA))))


def test_chance_rotates_a_key_that_was_used_very_often():
    drawn: list[int] = []

    def random(size: int) -> bytes:
        drawn.append(size)
        # That of the third event begins as one in 2**24 does. The first is drawn for wrapping the key.
        number = drawn.count(12)
        return bytes(3) + bytes([number] * 9) if size == 12 and number == 4 else bytes([len(drawn)]) * size

    pair = Pair(random=random)
    for number in range(5):
        pair.run(log.append(ADA, "counted", number))
    ids = [event.data[8:24] for event in pair.inner.run(log.read(ADA))]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4]
    assert [event.data for event in pair.run(log.read(ADA))] == [0, 1, 2, 3, 4]


# Limits


def test_a_payload_limit_counts_the_envelope():
    inner = open_store("memory:", payload_limit_bytes=1_000)
    with open_encrypted("memory:", keys=inner, subject_of=lambda name: name, payload_limit_bytes=1_000) as store:
        limit = store.capabilities.payload_limit_bytes
        assert 900 < limit < 1_000
        longest = bytes(limit - 3)
        store.run(kv.put(ADA, longest))
        store.run(log.append(ADA, "said", longest, meta=None))
        with pytest.raises(
            TooLarge, match=f"value of key '{ADA}' takes {limit + 1} bytes, the store's limit is {limit}"
        ):
            store.run(kv.put(ADA, longest + b"x"))
        with pytest.raises(TooLarge, match=f"data of a 'said' event .* takes {limit + 1} bytes"):
            store.run(log.append(ADA, "said", longest + b"x"))


def test_a_store_that_takes_only_tiny_values_is_refused():
    with pytest.raises(InvalidRequest, match=r"takes values of 50 bytes, and an envelope alone takes 65"):
        open_encrypted("memory:", keys="memory:", subject_of=lambda name: name, payload_limit_bytes=50)


# Blobs


def test_a_blob_of_a_subject_is_read_until_the_subject_is_forgotten(tmp_path):
    url = f"file:{tmp_path}/store"
    with open_encrypted(url, keys="memory:", subject_of=lambda name: name) as store:
        ref = store.run(put_blob(ADA, b"a photo of Ada", "image/png"))
        plain = store.run(blob.put(b"a logo"))
        assert (store.run(blob.get(ref)), store.run(blob.get(plain))) == (b"a photo of Ada", b"a logo")
        with store.open_blob(ref) as file:
            file.seek(2)
            assert file.read() == b"photo of Ada"
        with store.open_blob(plain) as file:
            assert file.read() == b"a logo"
        assert not any(b"photo" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        store.run(forget(ADA))
        assert store.run(blob.has(ref))
        with pytest.raises(BlobNotFound) as caught:
            store.run(blob.get(ref))
        assert "its subject was forgotten" in caught.value.__notes__[0]
        with pytest.raises(BlobNotFound):
            store.open_blob(ref)
        assert store.put_file(io.BytesIO(b"a file")).size == 6


def test_a_blob_home_of_ones_own_is_wrapped_too(tmp_path):
    with open_encrypted("memory:", keys="memory:", subject_of=lambda name: name, blobs=f"dir:{tmp_path}") as store:
        ref = store.run(put_blob(ADA, b"a photo"))
        assert store.run(blob.get(ref)) == b"a photo"
        assert not any(b"photo" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_blob_that_looks_like_an_envelope_is_refused():
    with open_encrypted("memory:", keys="memory:", subject_of=lambda name: name) as store:
        for put in (lambda: store.run(blob.put(b"\xc1sealed")), lambda: store.put_file(io.BytesIO(b"\xc1sealed..."))):
            with pytest.raises(InvalidRequest, match="as an envelope does"):
                put()


# Ways in


def test_tasks_and_rounds_are_answered_as_programs_are(pair, tmp_path):
    with open_encrypted(f"file:{tmp_path}/store", keys=f"file:{tmp_path}/keys", subject_of=lambda name: name) as store:
        names = [f"customers/{number}" for number in range(20)]
        events = store.run_many(log.append(name, "named", name) for name in names)
        assert [event.data for event in events] == names

        async def read_all() -> list[Any]:
            found: list[Any] = []

            async def read(name: str) -> None:
                found.append((await store.arun(log.read(name)))[0].data)

            async with anyio.create_task_group() as group:
                for name in names:
                    group.start_soon(read, name)
            await store.arun(forget(names[0]))
            found.append((await store.arun(log.read(names[0])))[0].data)
            return found

        *found, erased = anyio.run(read_all)
        assert sorted(found) == sorted(names)
        assert isinstance(erased, Erased)


def test_one_that_is_refused_does_not_hinder_those_that_are_asked_with_it(tmp_path):
    with open_encrypted(f"file:{tmp_path}/store", keys="memory:", subject_of=lambda name: name) as store:
        store.run(log.append("a", "named", 1))
        store.run(forget("a"))
        bad, good = store.run_many([log.append("a", "named", 2), log.append("b", "named", 3)], return_exceptions=True)
        assert isinstance(bad, SubjectForgotten)
        assert good.data == 3


def test_a_served_store_is_encrypted_by_its_client():
    with open_encrypted("spawn:memory:", keys="memory:", subject_of=lambda name: name) as store:
        events = store.run_many(log.append(name, "named", name) for name in "abcabc")
        assert [event.seq for event in events] == [1, 1, 1, 2, 2, 2]

        async def look() -> Any:
            return [(await store.arun(log.read(name)))[0].data for name in "abc"]

        assert anyio.run(look) == ["a", "b", "c"]
        raw = Store(store.interpreter.inner).run(log.read("a"))
        assert all(event.data.startswith(b"\xc1sealed") for event in raw)
