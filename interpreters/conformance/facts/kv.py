# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of keys and values: entries, revisions, expectations and the listing of keys."""

from interpreters.conformance.facts.base import Facts, append, ask, put
from interpreters.runtime.store import Store
from persist_effects.event import INT64_MAX
from persist_effects.requests import Conflict, Entry, KvDelete, KvEntries, KvGet, KvHas, KvKeys, KvPut


class KvFacts(Facts):
    """Entries and their revisions."""

    def test_an_absent_key_has_no_entry(self, store: Store) -> None:
        put(store, "a/b", 1)
        append(store, "a", "a stream is not a key")
        assert ask(store, KvGet("a")) is None
        assert ask(store, KvHas("a")) is False

    def test_a_value_put_is_there_with_the_revision_that_was_answered(self, store: Store) -> None:
        revision = put(store, "a", {"color": "red"})
        assert revision >= 1
        assert ask(store, KvGet("a")) == Entry({"color": "red"}, revision)
        assert ask(store, KvHas("a")) is True

    def test_a_value_put_again_replaces_the_first(self, store: Store) -> None:
        put(store, "a", 1)
        revision = put(store, "a", 2)
        assert ask(store, KvGet("a")) == Entry(2, revision)

    def test_none_is_a_value(self, store: Store) -> None:
        revision = put(store, "a", None)
        assert ask(store, KvHas("a")) is True
        assert ask(store, KvGet("a")) == Entry(None, revision)

    def test_a_key_leaves_its_neighbours_alone(self, store: Store) -> None:
        for value, key in enumerate(("a", "a/b", "A", "a ", "b")):
            put(store, key, value)
        assert ask(store, KvDelete("a")) is True
        assert [ask(store, KvHas(key)) for key in ("a", "a/b", "A", "a ", "b")] == [False, True, True, True, True]

    def test_revisions_grow_over_all_keys(self, store: Store) -> None:
        revisions = [put(store, key, 0) for key in ("b", "a", "b", "c", "b")]
        assert revisions == sorted(set(revisions))

    def test_putting_the_same_value_again_is_a_new_revision(self, store: Store) -> None:
        assert put(store, "a", 1) < put(store, "a", 1)

    def test_a_deleted_key_is_gone(self, store: Store) -> None:
        put(store, "a", 1)
        assert ask(store, KvDelete("a")) is True
        assert ask(store, KvGet("a")) is None
        assert ask(store, KvHas("a")) is False
        assert ask(store, KvKeys()) == []

    def test_deleting_an_absent_key_says_that_it_was_not_there(self, store: Store) -> None:
        assert ask(store, KvDelete("a")) is False
        put(store, "a", 1)
        ask(store, KvDelete("a"))
        assert ask(store, KvDelete("a")) is False

    def test_a_key_deleted_and_put_again_never_repeats_a_revision(self, store: Store) -> None:
        """Else a writer that read the first value would replace the second, which it never saw."""
        first = put(store, "a", 1)
        ask(store, KvDelete("a"))
        second = put(store, "a", 2)
        assert second > first
        assert ask(store, KvPut("a", 3, first)) == Conflict("key", "a", expected=first, actual=second)

    def test_deleting_a_key_takes_a_revision(self, store: Store) -> None:
        """So that whoever follows the revisions learns of it."""
        before = put(store, "a", 1)
        ask(store, KvDelete("a"))
        assert put(store, "b", 1) > before + 1

    def test_a_put_that_expects_the_revision_is_made(self, store: Store) -> None:
        first = put(store, "a", 1, expected=0)
        second = put(store, "a", 2, expected=first)
        assert ask(store, KvGet("a")) == Entry(2, second)

    def test_a_put_with_a_wrong_expectation_is_a_conflict_that_names_both(self, store: Store) -> None:
        first = put(store, "a", 1)
        second = put(store, "a", 2)
        for wrong in (0, first, INT64_MAX):
            assert ask(store, KvPut("a", "lost", wrong)) == Conflict("key", "a", expected=wrong, actual=second)
        assert ask(store, KvGet("a")) == Entry(2, second)

    def test_an_absent_key_conflicts_with_revision_0(self, store: Store) -> None:
        gone = put(store, "a", 1)
        ask(store, KvDelete("a"))
        assert ask(store, KvPut("a", "lost", gone)) == Conflict("key", "a", expected=gone, actual=0)
        assert ask(store, KvDelete("a", gone)) == Conflict("key", "a", expected=gone, actual=0)
        assert ask(store, KvHas("a")) is False

    def test_a_deleted_key_may_be_expected_to_be_absent(self, store: Store) -> None:
        put(store, "a", 1)
        ask(store, KvDelete("a"))
        assert ask(store, KvGet("a")) is None
        revision = put(store, "a", 2, expected=0)
        assert ask(store, KvGet("a")) == Entry(2, revision)

    def test_a_delete_that_expects_the_revision_is_made(self, store: Store) -> None:
        revision = put(store, "a", 1)
        assert ask(store, KvDelete("a", revision)) is True
        assert ask(store, KvHas("a")) is False

    def test_a_delete_with_a_wrong_expectation_is_a_conflict_and_deletes_nothing(self, store: Store) -> None:
        first = put(store, "a", 1)
        second = put(store, "a", 2)
        for wrong in (0, first, INT64_MAX):
            assert ask(store, KvDelete("a", wrong)) == Conflict("key", "a", expected=wrong, actual=second)
        assert ask(store, KvGet("a")) == Entry(2, second)

    def test_an_absent_key_may_be_deleted_where_it_is_expected_to_be_absent(self, store: Store) -> None:
        assert ask(store, KvDelete("a", 0)) is False

    def test_a_conflict_changes_no_key_that_others_see(self, store: Store) -> None:
        assert ask(store, KvPut("a", "lost", 7)) == Conflict("key", "a", expected=7, actual=0)
        assert ask(store, KvKeys()) == []

    def test_streams_and_keys_of_one_name_do_not_meet(self, store: Store) -> None:
        append(store, "a", 1, 2)
        revision = put(store, "a", "value", expected=0)
        append(store, "a", 3, expected=2)
        assert ask(store, KvGet("a")) == Entry("value", revision)


class KeysFacts(Facts):
    """How keys are listed."""

    def test_an_empty_store_has_no_keys(self, store: Store) -> None:
        append(store, "a", "a stream is not a key")
        assert ask(store, KvKeys()) == []

    def test_keys_are_listed_once_sorted_by_code_point(self, store: Store) -> None:
        for key in ("b", "a/b", "a", "B", "é", "a-b", "a", "\U0001f600", "\uff5e", "b"):
            put(store, key, 0)
        assert ask(store, KvKeys()) == ["B", "a", "a-b", "a/b", "b", "é", "\uff5e", "\U0001f600"]

    def test_keys_are_listed_by_prefix(self, store: Store) -> None:
        for key in ("orders", "orders/", "orders/1", "orders/2", "orders-old", "Orders/3", "order"):
            put(store, key, 0)
        assert ask(store, KvKeys("orders/")) == ["orders/", "orders/1", "orders/2"]
        assert ask(store, KvKeys("orders/1/")) == []

    def test_keys_are_listed_page_by_page(self, store: Store) -> None:
        for key in ("a", "b/1", "b/2", "b/3", "c"):
            put(store, key, 0)
        assert ask(store, KvKeys("b/", limit=2)) == ["b/1", "b/2"]
        assert ask(store, KvKeys("b/", after="b/2", limit=2)) == ["b/3"]
        assert ask(store, KvKeys("b/", after="b/3", limit=2)) == []

    def test_a_listing_of_keys_goes_on_past_a_key_deleted_since(self, store: Store) -> None:
        for key in ("b/1", "b/2", "b/3"):
            put(store, key, 0)
        assert ask(store, KvKeys("b/", limit=2)) == ["b/1", "b/2"]
        ask(store, KvDelete("b/2"))
        assert ask(store, KvKeys("b/", after="b/2")) == ["b/3"]
        assert ask(store, KvKeys("b/", after="a")) == ["b/1", "b/3"]
        assert ask(store, KvKeys("b/", after="c")) == []

    def test_deleted_keys_do_not_count_towards_a_page(self, store: Store) -> None:
        """A page that is not full says that there are no more."""
        for number in range(10):
            put(store, f"{number}", 0)
        for number in range(8):
            ask(store, KvDelete(f"{number}"))
        assert ask(store, KvKeys(limit=2)) == ["8", "9"]

    def test_a_key_put_again_is_listed_once(self, store: Store) -> None:
        put(store, "a", 0)
        assert ask(store, KvKeys()) == ["a"]
        ask(store, KvDelete("a"))
        put(store, "a", 1)
        put(store, "b", 1)
        assert ask(store, KvKeys()) == ["a", "b"]

    def test_entries_are_the_keys_of_a_page_with_their_values_and_revisions(self, store: Store) -> None:
        keys = ("orders/2", "orders", "orders/1", "Orders/3", "orders-")
        revisions = {key: put(store, key, {"of": key}) for key in keys}
        wanted = [(key, Entry({"of": key}, revisions[key])) for key in ("orders/1", "orders/2")]
        assert ask(store, KvEntries("orders/")) == wanted
        assert ask(store, KvEntries("orders/", limit=1)) == wanted[:1]
        assert ask(store, KvEntries("orders/", after="orders/1")) == wanted[1:]
        assert ask(store, KvEntries("orders/", after="orders/2")) == []

    def test_entries_are_the_newest_ones(self, store: Store) -> None:
        put(store, "a", 1)
        put(store, "b", 1)
        last = put(store, "c", None)
        newest = put(store, "a", 2)
        ask(store, KvDelete("b"))
        assert ask(store, KvEntries()) == [("a", Entry(2, newest)), ("c", Entry(None, last))]
