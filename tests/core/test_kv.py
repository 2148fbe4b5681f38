"""Keys and values."""

import pytest
from conftest import interleavings

from persist_effects import Conflict, Entry, InvalidRequest, TooLarge, kv, log, run, start
from persist_effects.requests import PAGE_SIZE, KvGet, KvKeys, KvPut


def test_a_value_is_read_back_fresh_and_equal(store):
    value = {"items": [1, {"a": b"x"}], "none": None}
    store.run(kv.put("a", value))
    value["items"].append("later")
    first = store.run(kv.get("a"))
    first["items"].append("later still")
    assert store.run(kv.get("a")) == {"items": [1, {"a": b"x"}], "none": None}


def test_an_absent_key_reads_as_none_as_its_default_and_as_no_entry(store):
    assert store.run(kv.get("a")) is None
    assert store.run(kv.get_or("a", "default")) == "default"
    assert store.run(kv.entry("a")) is None
    assert store.run(kv.has("a")) is False


def test_none_is_a_value_that_entry_and_has_tell_from_absence(store):
    revision = store.run(kv.put("a", None))
    assert store.run(kv.get("a")) is None
    assert store.run(kv.get_or("a", "default")) is None
    assert store.run(kv.entry("a")) == Entry(None, revision)
    assert store.run(kv.has("a")) is True
    assert store.run(kv.update("a", lambda value: [value], "default")) == [None]


def test_revisions_grow_over_all_keys_and_never_come_again(store):
    given = [store.run(kv.put("a", 1)), store.run(kv.put("b", 1))]
    assert store.run(kv.delete("a")) is True
    assert store.run(kv.delete("a")) is False
    given += [store.run(kv.put("a", 1)), store.run(kv.put("a", 1))]
    assert given == sorted(set(given))
    assert store.run(kv.entry("a")).revision == given[-1]


def test_a_put_that_expects_another_revision_changes_nothing(store):
    assert store.run(kv.put_expect("a", 4, "x")) == Conflict("key", "a", 4, 0)
    revision = store.run(kv.put_expect("a", 0, "first"))
    assert store.run(kv.put_expect("a", 0, "second")) == Conflict("key", "a", 0, revision)
    assert store.run(kv.get("a")) == "first"
    later = store.run(kv.put_expect("a", revision, "second"))
    assert store.run(kv.put_expect("a", revision, "third")) == Conflict("key", "a", revision, later)
    store.run(kv.delete("a"))
    assert store.run(kv.put_expect("a", later, "third")) == Conflict("key", "a", later, 0)
    assert not store.run(kv.has("a"))


@pytest.mark.parametrize("value", [(1,), {1}, {1: 2}, object(), 2**64, "\ud800", [{"a": {1.5: 2}}]])
def test_a_value_that_cannot_be_stored_is_refused_and_leaves_the_key_as_it_was(store, value):
    store.run(kv.put("a", "before"))
    for program in (kv.put("a", value), kv.put_expect("a", 1, value), kv.update("a", lambda _: value)):
        with pytest.raises(InvalidRequest, match="value of key 'a'"):
            store.run(program)
    assert store.run(kv.get("a")) == "before"


def test_a_value_over_the_limit_is_refused(store):
    with pytest.raises(TooLarge, match="value of key 'a'"):
        store.run(kv.put("a", bytes(8 * 1024 * 1024)))
    assert not store.run(kv.has("a"))


@pytest.mark.parametrize("key", ["", "a\x00", "x" * 513, "é" * 257, "\ud800", None, 7])
def test_a_key_that_is_no_name_is_refused_by_every_function(key):
    for function in (kv.get, kv.entry, kv.has, kv.delete):
        with pytest.raises(InvalidRequest, match="key"):
            start(function(key))
    for program in (kv.get_or(key, 1), kv.put(key, 1), kv.put_expect(key, 0, 1), kv.update(key, len)):
        with pytest.raises(InvalidRequest, match="key"):
            start(program)


# Listing


def test_keys_are_sorted_by_code_point_and_kept_to_the_prefix(store):
    names = ["a", "a/", "a/b", "a/é", "a/\U0001f600", "a/\uffff", "a0", "b", "A"]
    for name in names:
        store.run(kv.put(name, 1))
    assert store.run(kv.keys()) == sorted(names)
    assert store.run(kv.keys("a/")) == ["a/", "a/b", "a/é", "a/\uffff", "a/\U0001f600"]
    assert store.run(kv.keys("c")) == []
    store.run(kv.delete("a/b"))
    assert "a/b" not in store.run(kv.keys("a/"))


@pytest.mark.parametrize("count", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_keys_over_a_page_are_all_listed_once(store, count):
    names = [f"k/{number:05}" for number in range(count)]
    for name in reversed(names):
        store.run(kv.put(name, 1))
    store.run(kv.put("l", 1))
    pages = []

    def watched(request):
        pages.append(store.handlers[KvKeys](request))
        return pages[-1]

    assert run(kv.keys("k/"), {**store.handlers, KvKeys: watched}) == names
    assert max(len(page) for page in pages) <= PAGE_SIZE


def test_a_key_deleted_between_two_pages_is_listed_at_most_once(store):
    names = [f"k/{number:05}" for number in range(PAGE_SIZE + 2)]
    for name in names:
        store.run(kv.put(name, 1))
    step = start(kv.keys("k/"))
    step = step.resume(store.handlers[KvKeys](step.request))
    for gone in (names[PAGE_SIZE - 1], names[PAGE_SIZE]):
        store.run(kv.delete(gone))
    listed = step.resume(store.handlers[KvKeys](step.request)).value
    assert listed == [*names[:PAGE_SIZE], names[-1]]


# Updating


def test_update_puts_what_the_function_makes_of_the_value(store):
    assert store.run(kv.update("n", lambda n: n + 1, 0)) == 1
    assert store.run(kv.update("n", lambda n: n + 1, 0)) == 2
    assert store.run(kv.get("n")) == 2
    assert store.run(kv.update("m", lambda found: [found])) == [None]


def test_two_updates_both_count_in_every_order(open_new):
    def begin(store):
        return [kv.update("n", lambda n, name=name: [*n, name], []) for name in ("first", "second")]

    orders = []
    for order, store, ends in interleavings(open_new, begin):
        kept = store.run(kv.get("n"))
        assert sorted(kept) == ["first", "second"], order
        assert sorted(map(len, ends)) == [1, 2], order
        assert kept in ends, order
        orders.append(order)
    assert len(set(orders)) == len(orders) == 6


def test_three_updates_all_count_in_every_order(open_new):
    def begin(store):
        store.run(kv.put("n", 0))
        return [kv.update("n", lambda n, step=step: n + step) for step in (1, 10, 100)]

    for order, store, _ in interleavings(open_new, begin):
        assert store.run(kv.get("n")) == 111, order


def test_an_update_beside_a_delete_starts_from_the_default_or_is_deleted(open_new):
    def begin(store):
        store.run(kv.put("n", 5))
        return [kv.update("n", lambda n: n + 1, 0), kv.delete("n")]

    found = {}
    for order, store, ends in interleavings(open_new, begin):
        found[order] = (ends, store.run(kv.get("n")))
    # The update before the delete; the delete before it; and the delete between its read and its write.
    assert found == {(0, 0, 1): ([6, True], None), (1, 0, 0): ([1, True], 1), (0, 1, 0, 0, 0): ([1, True], 1)}


def test_an_error_in_the_function_writes_nothing(store):
    store.run(kv.put("n", 0))
    with pytest.raises(ZeroDivisionError):
        store.run(kv.update("n", lambda n: 1 / n))
    assert store.run(kv.get("n")) == 0


def test_an_update_is_a_read_and_an_expecting_write():
    step = start(kv.update("n", lambda n: n + 1, 0))
    assert step.request == KvGet("n")
    step = step.resume(Entry(4, 17))
    assert step.request == KvPut("n", 5, 17)
    step = step.resume(Conflict("key", "n", 17, 18))
    assert step.request == KvGet("n")
    assert step.resume(Entry(7, 18)).resume(19).value == 8


def test_keys_and_streams_are_apart(store):
    store.run(kv.put("a", 1))
    store.run(log.append("b", "made", 1))
    assert store.run(kv.keys()) == ["a"]
    assert store.run(log.streams()) == ["b"]
    assert store.run(log.last_seq("a")) == 0


def test_a_delete_that_expects_another_revision_is_a_conflict_and_deletes_nothing(store):
    revision = store.run(kv.put("color", "red"))
    assert store.run(kv.delete_expect("color", revision + 1)) == Conflict("key", "color", revision + 1, revision)
    assert store.run(kv.delete_expect("size", 3)) == Conflict("key", "size", 3, 0)
    assert store.run(kv.get("color")) == "red"
    assert store.run(kv.delete_expect("color", revision)) is True
    assert store.run(kv.delete_expect("color", 0)) is False


@pytest.mark.parametrize("count", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_entries_over_a_page_are_all_given_once_and_sorted(store, count):
    names = [f"k/{number:05}" for number in range(count)]
    revisions = {name: store.run(kv.put(name, [name])) for name in reversed(names)}
    store.run(kv.put("l", None))
    assert store.run(kv.entries("k/")) == [(name, Entry([name], revisions[name])) for name in names]
    assert [key for key, _ in store.run(kv.entries())] == [*names, "l"]


def test_what_is_done_to_given_entries_changes_nothing_that_is_stored(store):
    store.run(kv.put("a", {"items": [1]}))
    ((_, entry),) = store.run(kv.entries())
    entry.value["items"].append("later")
    assert store.run(kv.get("a")) == {"items": [1]}


def test_a_change_of_a_key_is_known_by_its_revision_deletions_too(store):
    assert store.run(kv.wait(0, timeout=0)) == 0
    first = store.run(kv.put("grants/ada", "read"))
    second = store.run(kv.put("settings/theme", "dark"))
    assert store.run(kv.wait(0, "grants/")) == first
    assert store.run(kv.wait(first)) == second
    store.run(kv.delete("grants/ada"))
    third = store.run(kv.wait(second, "grants/"))
    assert third > second
    assert store.run(kv.delete("grants/ada")) is False
    assert store.run(kv.wait(third, "grants/", timeout=0)) == third
    assert store.run(kv.put("grants/ada", "write")) > third
