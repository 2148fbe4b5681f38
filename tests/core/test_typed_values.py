"""Keys' values as types: checked and converted when they are read, refused before they are written."""

import dataclasses
import datetime as dt
from functools import partial

import msgspec
import pytest
from conftest import interleavings
from steady import steady

from persist_effects import Conflict, Entry, InvalidRequest, KvPut, ValueMismatch, kv, start, transact


class Profile(msgspec.Struct, frozen=True):
    name: str
    visits: int = 0


@dataclasses.dataclass(frozen=True)
class Stay:
    since: dt.datetime
    guests: frozenset[str]


ADA = Profile("Ada")
STAY = Stay(dt.datetime(2025, 1, 2, tzinfo=dt.UTC), frozenset({"Ada", "Grace"}))

# What is read as a type, and by which function.
READS = {
    "get": lambda key, kind: kv.get(key, type=kind),
    "get_or": lambda key, kind: kv.get_or(key, None, type=kind),
    "entry": lambda key, kind: kv.entry(key, type=kind),
    "entries": lambda key, kind: kv.entries(key, type=kind),
    "update": lambda key, kind: kv.update(key, lambda value: value, type=kind),
    "Cell.get": lambda key, kind: kv.Cell(key, kind).get(),
    "Cell.get_or": lambda key, kind: kv.Cell(key, kind).get_or(None),
    "Cell.entry": lambda key, kind: kv.Cell(key, kind).entry(),
    "Cell.update": lambda key, kind: kv.Cell(key, kind).update(lambda value: value),
}


def test_a_value_is_read_as_the_type_that_is_asked_for(store):
    revision = store.run(kv.put("profile/7", ADA))
    assert store.run(kv.get("profile/7", type=Profile)) == ADA
    assert store.run(kv.get_or("profile/7", None, type=Profile)) == ADA
    assert store.run(kv.entry("profile/7", type=Profile)) == Entry(ADA, revision)
    assert store.run(kv.entries("profile/", type=Profile)) == [("profile/7", Entry(ADA, revision))]
    assert store.run(kv.get("profile/7")) == {"name": "Ada", "visits": 0}


def test_what_is_not_there_is_none_or_the_default_whatever_the_type(store):
    assert store.run(kv.get("a", type=Profile)) is None
    assert store.run(kv.get_or("a", ADA, type=Profile)) == ADA
    assert store.run(kv.entry("a", type=Profile)) is None
    assert store.run(kv.entries("a", type=Profile)) == []


@pytest.mark.parametrize("read", READS)
def test_a_value_that_does_not_fit_is_refused_with_key_type_and_what_was_found(store, read):
    revision = store.run(kv.put("profile/7", {"name": 3}))
    with pytest.raises(ValueMismatch) as met:
        store.run(READS[read]("profile/7", Profile))
    assert str(met.value) == (
        "key 'profile/7' was to be read as Profile, and its value is a dict, {'name': 3}: Expected `str`, got `int` - "
        "at `$.name`: read it as the type that it has, or put one that fits"
    )
    assert store.run(kv.entry("profile/7")) == Entry({"name": 3}, revision)


@pytest.mark.parametrize("read", READS)
def test_what_is_no_type_is_refused_before_anything_is_asked(read):
    with pytest.raises(InvalidRequest, match=r"type is an int, 7: give a class"):
        start(READS[read]("profile/7", 7))


@pytest.mark.parametrize(
    ("kind", "plain", "value"),
    [
        (list[int], [1, 2], [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (int | None, None, None),
        (dt.date, "2025-01-02", dt.date(2025, 1, 2)),
        (bytes, b"x", b"x"),
    ],
    ids=steady,
)
def test_types_that_are_no_classes_are_read_too(store, kind, plain, value):
    store.run(kv.put("a", plain))
    assert store.run(kv.get("a", type=kind)) == value


def test_an_update_as_a_type_reads_it_and_stores_it_plain(store):
    def visit(profile):
        return msgspec.structs.replace(profile, visits=profile.visits + 1)

    assert store.run(kv.update("profile/7", visit, ADA, type=Profile)) == Profile("Ada", 1)
    assert store.run(kv.update("profile/7", visit, type=Profile)) == Profile("Ada", 2)
    assert store.run(kv.get("profile/7")) == {"name": "Ada", "visits": 2}


def test_an_update_that_gives_another_type_is_refused_before_anything_is_written(store):
    with pytest.raises(InvalidRequest, match=r"value of key 'profile/7' cannot be stored and read back as .*Profile"):
        store.run(kv.update("profile/7", lambda _: {"name": 3}, type=Profile))
    assert store.run(kv.has("profile/7")) is False


def test_a_cell_keeps_what_plain_values_cannot_be_as_its_type(store):
    stays = kv.Cell("stay/{room}", Stay)
    revision = store.run(stays.put(STAY, room=7))
    assert store.run(stays.get(room=7)) == STAY
    assert store.run(stays.entry(room=7)) == Entry(STAY, revision)
    assert store.run(kv.get("stay/7")) == {"since": "2025-01-02T00:00:00Z", "guests": ["Ada", "Grace"]}


def test_a_cell_does_all_that_a_key_can_do(store):
    cell = kv.Cell("profile/{id}", Profile)
    assert store.run(cell.get_or("nobody", id=7)) == "nobody"
    first = store.run(cell.put_expect(0, ADA, id=7))
    assert store.run(cell.put_expect(0, ADA, id=7)) == Conflict("key", "profile/7", 0, first)
    assert store.run(cell.has(id=7)) is True
    assert store.run(cell.delete_expect(first + 7, id=7)) == Conflict("key", "profile/7", first + 7, first)
    assert store.run(cell.delete_expect(first, id=7)) is True
    assert store.run(cell.delete(id=7)) is False
    assert store.run(cell.update(lambda one: one, ADA, id=7)) == ADA


def test_a_cells_write_stands_in_a_transaction(store):
    cell = kv.Cell("profile/{id}", Profile)
    assert cell.write(ADA, id=7) == KvPut("profile/7", {"name": "Ada", "visits": 0})
    store.run(transact(cell.write(ADA, id=7), cell.write(Profile("Grace"), id=8)))
    assert store.run(cell.get(id=8)) == Profile("Grace")


@pytest.mark.parametrize("value", [{"name": "Ada"}, None, "Ada"], ids=steady)
def test_a_cell_refuses_a_value_of_another_type_before_anything_is_asked(value):
    cell = kv.Cell("profile/{id}", Profile)
    for write in (cell.put, cell.write, partial(cell.put_expect, 0)):
        with pytest.raises(InvalidRequest, match="value of key 'profile/7' "):
            write(value, id=7)


def test_names_of_a_key_may_be_called_as_arguments_are(store):
    cell = kv.Cell("a/{self}/{value}/{default}/{fn}/{revision}/{key}", int)
    names = {"self": 1, "value": 2, "default": 3, "fn": 4, "revision": 5, "key": 6}
    store.run(cell.put(7, **names))
    assert store.run(cell.update(lambda value: value + 1, 0, **names)) == 8
    assert store.run(kv.get("a/1/2/3/4/5/6")) == 8


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({}, "the key 'stock/{shop}/{sku}' lacks a value for 'shop': give shop, sku"),
        ({"shop": 1}, "the key 'stock/{shop}/{sku}' lacks a value for 'sku': give shop, sku"),
        ({"shop": 1, "sku": 2, "id": 3}, "the key 'stock/{shop}/{sku}' has no name 'id': give shop, sku"),
        (
            {"shop": 1, "sku": 2.5},
            "the name 'sku' of the key 'stock/{shop}/{sku}' is a float, 2.5: give a str or an int",
        ),
        (
            {"shop": True, "sku": 2},
            "the name 'shop' of the key 'stock/{shop}/{sku}' is a bool, True: give a str or an int",
        ),
        (
            {"shop": "", "sku": 2},
            "the name 'shop' of the key 'stock/{shop}/{sku}' is empty: give at least one character",
        ),
        (
            {"shop": "north/7", "sku": 2},
            (
                "the name 'shop' of the key 'stock/{shop}/{sku}' is 'north/7', which holds '/', the character that "
                "follows it there, so that other values might make the same key: give one without"
            ),
        ),
    ],
    ids=steady,
)
def test_names_that_do_not_fit_the_key_are_refused(names, said):
    with pytest.raises(InvalidRequest) as met:
        kv.Cell("stock/{shop}/{sku}", int).get(**names)
    assert str(met.value) == said


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "key template is empty: a name has 1 to 512 bytes of UTF-8"),
        ("profile/{id", "the key template 'profile/{id' has a brace without its other one: take it out"),
        ("profile/{}", "the key template 'profile/{}' has {}: give each name as {id}, without a format"),
        ("profile/{id:03}", "the key template 'profile/{id:03}' has {id:03}: give each name as {id}, without a format"),
        (
            "stock/{shop}{sku}",
            (
                "the key template 'stock/{shop}{sku}' has two names side by side, so that two pairs of values may make "
                "one key: put a character between them, such as '/'"
            ),
        ),
    ],
    ids=steady,
)
def test_a_key_template_that_is_wrong_is_refused(key, said):
    with pytest.raises(InvalidRequest) as met:
        kv.Cell(key, int)
    assert str(met.value) == said


def test_a_cell_shows_its_key_and_its_type():
    assert repr(kv.Cell("sizes/{id}", list[int])) == "Cell('sizes/{id}', list[int])"


def test_an_update_of_a_cell_loses_no_write_to_another_one(open_new):
    cell = kv.Cell("visits/{page}", int)

    def begin(_):
        return [cell.update(lambda count: count + 1, 0, page="home") for _ in range(2)]

    for _, store, _ in interleavings(open_new, begin):
        assert store.run(cell.get(page="home")) == 2
