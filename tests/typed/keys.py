"""What type checkers must find out about values that are read as a type: checked by mypy and pyright, not run."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from typing import Any, assert_type

import msgspec

from persist_effects import Conflict, Effect, Entry, KvPut, kv


class Profile(msgspec.Struct, frozen=True):
    """What is kept of somebody."""

    name: str
    visits: int = 0


class Draft(msgspec.Struct, frozen=True):
    """Something else."""

    text: str


def visit(profile: Profile) -> Profile:
    """One visit more."""
    return msgspec.structs.replace(profile, visits=profile.visits + 1)


def visit_perhaps(profile: Profile | None) -> Profile:
    """One visit more, or the first one."""
    return Profile("new") if profile is None else visit(profile)


PROFILES = kv.Cell("profile/{id}", Profile)
SIZES = kv.Cell("sizes", list[int])


def reads() -> Effect[None]:
    """A value has the type as which it is read, and is Any without one."""
    assert_type((yield from kv.get("a")), Any)
    assert_type((yield from kv.get("a", type=Profile)), Profile | None)
    assert_type((yield from kv.get("a", type=list[int])), list[int] | None)
    assert_type((yield from kv.get_or("a", 7)), Any | int)
    assert_type((yield from kv.get_or("a", 7, type=Profile)), Profile | int)
    assert_type((yield from kv.entry("a")), Entry[Any] | None)
    assert_type((yield from kv.entry("a", type=Profile)), Entry[Profile] | None)
    assert_type((yield from kv.entries()), list[tuple[str, Entry[Any]]])
    assert_type((yield from kv.entries("a", type=Profile)), list[tuple[str, Entry[Profile]]])
    assert_type((yield from kv.update("a", str)), str)
    assert_type((yield from kv.update("a", visit, Profile("Ada"), type=Profile)), Profile)
    assert_type((yield from kv.update("a", visit_perhaps, type=Profile)), Profile)


def a_type_of_several() -> Effect[None]:
    """Where a type is made of several, checkers may not know it, and take the value as it is annotated."""
    found: Profile | Draft | None = yield from kv.get("a", type=Profile | Draft)
    assert_type(found, Profile | Draft | None)


def what_is_not_there() -> Effect[str]:
    """Who reads has to think of what is not there."""
    profile = yield from kv.get("a", type=Profile)
    yield from kv.get("a", type=7)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    yield from kv.get("a", kind=Profile)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    return profile.name  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]


def updates() -> Effect[None]:
    """A function that gives a value of another type, or does not think of none, is refused."""
    yield from kv.update("a", visit, type=Profile)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from kv.update("a", visit, Draft("b"), type=Profile)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]


def cells() -> Effect[None]:
    """A cell reads and writes values of its type."""
    assert_type(PROFILES, kv.Cell[Profile])
    assert_type(PROFILES.key(id=7), str)
    assert_type((yield from PROFILES.get(id=7)), Profile | None)
    assert_type((yield from PROFILES.get_or(7, id=7)), Profile | int)
    assert_type((yield from PROFILES.entry(id=7)), Entry[Profile] | None)
    assert_type((yield from PROFILES.put(Profile("Ada"), id=7)), int)
    assert_type((yield from PROFILES.put_expect(0, Profile("Ada"), id=7)), int | Conflict)
    assert_type((yield from PROFILES.update(visit, Profile("Ada"), id=7)), Profile)
    assert_type((yield from PROFILES.update(visit_perhaps, id=7)), Profile)
    assert_type((yield from PROFILES.delete(id=7)), bool)
    assert_type((yield from PROFILES.delete_expect(3, id=7)), bool | Conflict)
    assert_type((yield from PROFILES.has(id=7)), bool)
    assert_type(PROFILES.write(Profile("Ada"), id=7), KvPut)
    assert_type((yield from SIZES.get()), list[int] | None)


def other_values() -> Effect[None]:
    """A cell refuses values of other types, and names that are neither str nor int."""
    yield from PROFILES.put(Draft("b"), id=7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from PROFILES.put_expect(0, "Ada", id=7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from PROFILES.get(id=7.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from PROFILES.update(visit, id=7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from SIZES.put(["1"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
