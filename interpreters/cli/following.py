"""Commands for followers: which there are, how far each is behind, and what to do about one."""

import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from interpreters.cli.exits import exit_codes, noting_interrupt
from interpreters.cli.inputs import AnyUrl, AsJson, Yes, confirm, reading_any, writing_any
from interpreters.cli.output import lines_of_numbers, lines_of_table, print_answer, printable, progress, time_of
from interpreters.cli.stepping import run_watched
from interpreters.stores.compacting import Told
from persist_effects import followers
from persist_effects.errors import InvalidRequest, StoreUnavailable
from persist_effects.followers import Lag, Registered, SetAside
from persist_effects.machine import perform
from persist_effects.requests import KvDelete, Request, Sleep, Transact

A = TypeVar("A")

FollowerName = Annotated[str, typer.Argument(metavar="NAME", help="The follower's name.")]
ToWait = Annotated[bool, typer.Option("--wait", help="Wait until those that follow have done it.")]
Patience = Annotated[float, typer.Option(min=0.1, help="How many seconds may pass in which nothing moves.")]

PATIENCE_SECONDS = 30.0
"""Longer than those that follow need to notice: they look every few seconds."""

_LOOK_SECONDS = 0.2

_HEAD = ("NAME", "VERSION", "PREFIX", "POSITION", "BEHIND", "SINCE", "MEMBERS", "ASIDE", "SKIPPED", "STATE")


def list_followers(url: AnyUrl, as_json: AsJson = False) -> None:
    """Tell of all followers: how far each is, how many events it is behind, what it set aside. Reads what is unseen."""
    with exit_codes(as_json), reading_any(url) as store:
        with progress("counting", as_json) as told:
            found = with_lags(store, told)
        print_answer({"followers": [_numbers(*pair) for pair in found]}, as_json, lambda _: lines_of_followers(found))


def show(url: AnyUrl, name: FollowerName, as_json: AsJson = False) -> None:
    """Tell all of one follower: its members, what it set aside and why, what is being built."""
    with exit_codes(as_json), reading_any(url) as store:
        found, aside = store.run(followers.registered(name)), store.run(followers.set_aside(name))
        answer = {**msgspec.to_builtins(found), "aside": aside}
        print_answer(answer, as_json, lambda _: [*_lines_of(found), *map(_line_of_aside, aside)])


def lag(url: AnyUrl, name: FollowerName, as_json: AsJson = False) -> None:
    """Count the events that a follower has not seen. Reads them."""
    with exit_codes(as_json), reading_any(url) as store:
        with progress("counting", as_json) as told:
            found = _lag_of(store, name, told)
        print_answer(found, as_json, lambda _: lines_of_numbers(_said_lag(found)))


def list_set_aside(url: AnyUrl, name: FollowerName, as_json: AsJson = False) -> None:
    """Tell of what a follower has set aside: of which streams, which events, and what the first of them met."""
    with exit_codes(as_json), reading_any(url) as store:
        aside = store.run(followers.set_aside(name))
        print_answer({"aside": aside}, as_json, lambda _: list(map(_line_of_aside, aside)) or ["nothing was set aside"])


def rebuild(
    url: AnyUrl,
    name: FollowerName,
    *,
    wait: ToWait = False,
    patience: Patience = PATIENCE_SECONDS,
    skip_truncated: Annotated[
        bool, typer.Option("--skip-truncated", help="Build it without what was dropped.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Have a read model built anew beside the one that answers, by those that follow. Exit code 3: nobody does.

    With --wait, where one is being built, it waits for that one.
    """
    with exit_codes(as_json), writing_any(url) as store:
        if not wait or store.run(followers.registered(name)).building is None:
            store.run(followers.rebuild(name, skip_truncated=skip_truncated))
        found = store.run(followers.registered(name))
        if wait:
            with progress("building", as_json) as told:
                found = _await(store, name, lambda one: one.building is None, patience, told)
        print_answer(found, as_json, lambda _: [_line_of_rebuild(found)])


def cancel(url: AnyUrl, name: FollowerName, as_json: AsJson = False) -> None:
    """Give up what is being built. What answers goes on."""
    with exit_codes(as_json), writing_any(url) as store:
        was_built = store.run(followers.cancel(name))
        line = f"cancelled: what was built of {name}" if was_built else f"nothing of {name} is being built"
        print_answer({"name": name, "cancelled": was_built}, as_json, lambda _: [line])


def retry(
    url: AnyUrl,
    name: FollowerName,
    wait: ToWait = False,
    patience: Patience = PATIENCE_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Have what was set aside tried again, by those that follow. Exit code 3: nobody does."""
    with exit_codes(as_json), writing_any(url) as store:
        count = store.run(followers.retry(name))
        if wait and count:
            with progress("trying again", as_json) as told:
                _await(store, name, lambda one: not one.awaits_retry, patience, told)
        left = store.run(followers.set_aside(name))
        answer = {"streams": count, "aside": left}
        print_answer(answer, as_json, lambda _: _lines_of_retry(name, count, left, is_done=wait))


def reset(
    url: AnyUrl,
    name: FollowerName,
    position: Annotated[int, typer.Option("--to", min=0, help="Past which position; 0: all events.")] = 0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Have the events past a position take effect again. Asks first, unless --yes is given."""
    with exit_codes(as_json), writing_any(url) as store:
        behind = store.run(followers.registered(name)).position
        confirm(
            f"The events of {name!r} past position {position} will take effect again; it has come to {behind}.", yes
        )
        store.run(followers.reset(name, position))
        print_answer({"name": name, "position": position}, as_json, lambda _: [f"reset: {name}, to {position}"])


def forget(url: AnyUrl, name: FollowerName, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a follower and its read model. Asks first, unless --yes is given. Interrupted, it is done again."""
    with exit_codes(as_json), writing_any(url) as store:
        found = store.run(followers.registered(name))
        what = "its checkpoint and its read model" if found.has_model else "its checkpoint"
        living = f" Members of it give signs of life, {len(found.members)}: end them first." if found.members else ""
        confirm(f"The follower {name!r} will be removed: {what}.{living}", yes)
        with progress("removing", as_json) as told:
            keys = _forget(store, name, told)
        print_answer({"name": name, "keys": keys}, as_json, lambda _: [f"forgotten: {name}, {keys} keys"])


# Asking the store


def with_lags(store: Any, told: Told | None) -> list[tuple[Registered, Lag]]:
    """All followers of a store, each with how far it is behind. Reads what they have not seen."""
    found: list[tuple[Registered, Lag]] = []
    for one in store.run(followers.all_registered()):
        try:
            found.append((one, _lag_of(store, one.name, told)))
        except InvalidRequest:
            if one.name in store.run(followers.names()):
                raise
            # It was forgotten meanwhile.
    return found


def _lag_of(store: Any, name: str, told: Told | None) -> Lag:
    def watch(request: Request[Any], answer: Any) -> None:
        if told is not None and request.op == "persist/read-all":
            told(answer.next, answer.head)

    return run_watched(store, followers.lag(name), watch)


def _forget(store: Any, name: str, told: Told | None) -> int:
    deleted = 0

    def watch(request: Request[Any], answer: Any) -> None:
        nonlocal deleted
        if isinstance(request, Transact):
            deleted += sum(isinstance(write, KvDelete) for write in request.writes)
            if told is not None:
                told(deleted, 0)

    run_watched(store, followers.forget(name), watch)
    return deleted


def _await(
    store: Any, name: str, is_done: Callable[[Registered], bool], patience: float, told: Told | None
) -> Registered:
    """Look at a follower until something is done. Raises `StoreUnavailable` where nothing has moved for too long."""
    moved_at = time.monotonic()
    before: Registered | None = None
    with noting_interrupt() as is_interrupted:
        while not is_interrupted():
            found: Registered = store.run(followers.registered(name))
            if is_done(found):
                return found
            if found != before:
                before, moved_at = found, time.monotonic()
            if time.monotonic() - moved_at > patience:
                raise StoreUnavailable(
                    f"follower {name!r} has not moved from position {_reached(found)} for {patience:g} seconds: does "
                    "anybody follow under this name? Start one: what was asked for stays asked for"
                )
            if told is not None and found.building is not None:
                told(found.building.position, found.building.target)
            store.run(perform(Sleep(_LOOK_SECONDS)))
    raise KeyboardInterrupt


def _reached(found: Registered) -> int:
    return found.position if found.building is None else found.building.position


# What is printed


def _numbers(found: Registered, behind: Lag) -> dict[str, Any]:
    return {**msgspec.to_builtins(found), "head": behind.head, "unseen": behind.unseen, "since": behind.since}


def _said_lag(found: Lag) -> dict[str, Any]:
    since = "-" if found.since is None else time_of(found.since)
    return {"position": found.position, "head": found.head, "behind": found.unseen, "since": since}


def lines_of_followers(found: list[tuple[Registered, Lag]]) -> list[str]:
    """A table of followers for people."""
    if not found:
        return ["there is no follower"]
    return lines_of_table(_HEAD, [_row(*pair) for pair in found])


def _row(found: Registered, behind: Lag) -> list[str]:
    members = f"{len(found.members)} for {found.partitions}" if found.partitions else "-"
    since = "-" if behind.since is None else time_of(behind.since)
    numbers = [members, len(found.aside), found.skipped, _state(found)]
    return list(
        map(str, [found.name, found.version, found.prefix or "-", found.position, behind.unseen, since, *numbers])
    )


def _state(found: Registered) -> str:
    if found.is_forgotten:
        return "being forgotten: forget it again"
    if found.building is not None:
        built = found.building
        return f"building version {built.version}: {built.position} of {built.target}"
    return "to try again" if found.awaits_retry else "-"


def _lines_of(found: Registered) -> list[str]:
    numbers: dict[str, Any] = {
        "name": found.name,
        "prefix": found.prefix or "-",
        "types": "all" if found.types is None else ", ".join(found.types),
        "version": found.version,
        "position": found.position,
        "read model": "yes" if found.has_model else "no",
        "skipped": found.skipped,
        "missed": found.missed,
        "state": _state(found),
    }
    shares = [
        f"{f'member {member}' if member else 'nobody'}: partitions {', '.join(map(str, indexes))}"
        for member, indexes in sorted(found.shares.items())
    ]
    idle = [f"member {member}: no partition" for member in found.members if member not in found.shares]
    return [*lines_of_numbers(numbers), *shares, *idle, f"set aside: {len(found.aside)} streams"]


def _line_of_aside(aside: SetAside) -> str:
    """One line for people.

    >>> _line_of_aside(SetAside("orders/1", 3, 7, 12, "placed", "KeyError: 'to'", 2, 0))
    "aside: stream 'orders/1': events 3 to 7: KeyError: 'to' (a placed, tried 2 times, 1970-01-01T00:00:00+00:00)"
    """
    events = f"event {aside.first}" if aside.first == aside.through else f"events {aside.first} to {aside.through}"
    if aside.error is None or aside.at is None:
        return f"aside: stream {aside.stream!r}: {events}: what it met was truncated"
    times = "once" if aside.tried == 1 else f"{aside.tried} times"
    told = f"(a {aside.type}, tried {times}, {time_of(aside.at)})"
    return f"aside: stream {aside.stream!r}: {events}: {printable(aside.error)} {told}"


def _line_of_rebuild(found: Registered) -> str:
    if found.building is None:
        return f"rebuilt: {found.name}, version {found.version}, through position {found.position}"
    return f"asked for: {found.name} is built anew through position {found.building.target} by those that follow"


def _lines_of_retry(name: str, count: int, left: list[SetAside], *, is_done: bool) -> list[str]:
    if not count:
        return [f"nothing of {name} was set aside"]
    if not is_done:
        return [f"asked for: {count} streams of {name} are tried again by those that follow"]
    return [f"tried again: {count} streams of {name}; {len(left)} are set aside still", *map(_line_of_aside, left)]
