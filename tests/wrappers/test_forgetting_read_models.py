"""Followers that have read a subject who is forgotten: their read models are built anew, of what is left."""

import sqlite3
from contextlib import closing

import pytest

from interpreters import open_store
from interpreters.wrappers.encryption import forget, open_encrypted
from persist_effects import ReadModel, SqlModel, follow, followers, kv, log
from persist_effects.erasure import is_erased

NAMES, CITIES = ReadModel("names"), ReadModel("cities")


def subject_of(name):
    return name if name.startswith("customers/") else None


@pytest.fixture
def shop():
    with open_store("memory:") as keys, open_encrypted("memory:", keys=keys, subject_of=subject_of) as store:
        for number, name in enumerate(["Ada", "Bob"], 1):
            store.run(log.append(f"customers/{number}", "registered", name))
        store.run(log.append("cities/1", "founded", "Rome"))
        yield store


def copy_name(event, names):
    return [] if is_erased(event) else [names.put(event.stream, event.data)]


def names_in(store):
    return [entry.value for _, entry in store.run(NAMES.entries())]


def test_the_read_models_that_may_hold_a_forgotten_subject_are_built_anew_and_others_are_left_alone(shop):
    shop.run(follow(NAMES, "customers/", copy_name))
    shop.run(follow(CITIES, "cities/", copy_name))
    assert names_in(shop) == ["Ada", "Bob"]
    done = shop.run(forget("customers/1"))
    assert (done.rebuilt, done.seen_by, done.left) == (["names"], [], [])
    assert names_in(shop) == ["Ada", "Bob"], "until it is built anew the old one answers"
    shop.run(follow(NAMES, "customers/", copy_name))
    assert names_in(shop) == ["Bob"]
    assert [key for key in shop.run(kv.keys("model/")) if "customers/1" in key] == []
    assert shop.run(followers.registered("cities")).building is None


def test_what_was_being_built_is_begun_anew_since_it_may_have_read_the_subject(shop):
    shop.run(follow(NAMES, "customers/", copy_name))
    shop.run(followers.rebuild("names"))
    before = shop.run(kv.entry("follow-next/names"))
    shop.run(forget("customers/1"))
    assert shop.run(kv.get("follow-next/names"))["generation"] > before.value.get("generation", 1)
    shop.run(follow(NAMES, "customers/", copy_name))
    assert names_in(shop) == ["Bob"]


def test_followers_without_a_read_model_that_may_have_read_it_are_named(shop):
    shop.run(follow("mails", "", lambda event: []))
    done = shop.run(forget("customers/1"))
    assert (done.rebuilt, done.seen_by) == ([], ["mails"])


def test_a_read_model_of_which_events_were_truncated_is_named_and_left_as_it_is(shop):
    shop.run(follow(NAMES, "customers/", copy_name))
    shop.run(log.drop("customers/2"))
    done = shop.run(forget("customers/1"))
    assert (done.rebuilt, done.left) == ([], ["follow/names"])
    assert names_in(shop) == ["Ada", "Bob"]


def test_forgetting_again_has_them_built_again_and_ends_the_same(shop):
    shop.run(follow(NAMES, "customers/", copy_name))
    first, second = shop.run(forget("customers/1")), shop.run(forget("customers/1"))
    assert first == second
    shop.run(follow(NAMES, "customers/", copy_name))
    assert names_in(shop) == ["Bob"]


def test_tables_that_hold_a_forgotten_subject_are_built_anew_as_well(tmp_path):
    people = SqlModel("people", {"people": "CREATE TABLE {people} (stream TEXT PRIMARY KEY, name TEXT)"})

    def add(event, model):
        if is_erased(event):
            return []
        return [model.sql("INSERT INTO {people} VALUES (:stream, :name)", {"stream": event.stream, "name": event.data})]

    def names_in_tables():
        with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM people ORDER BY stream")]

    url = f"sqlite:{tmp_path}/shop.db"
    with open_store("memory:") as keys, open_encrypted(url, keys=keys, subject_of=subject_of) as store:
        for number, name in enumerate(["Ada", "Bob"], 1):
            store.run(log.append(f"customers/{number}", "registered", name))
        store.run(follow(people, "customers/", add))
        assert names_in_tables() == ["Ada", "Bob"]
        assert store.run(forget("customers/1")).rebuilt == ["people"]
        store.run(follow(people, "customers/", add))
        assert names_in_tables() == ["Bob"]
