# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Followers on a store: versions beside each other, groups, what is set aside, and truncation that knows of them.

They are programs above what the other facts hold a store to. Here they meet in threads, as real workers do.
"""

from typing import Any

from interpreters.conformance.facts.base import Facts, append, ask, needs
from interpreters.runtime.store import Store
from persist_effects import followers, kv, log
from persist_effects.event import Draft, Event
from persist_effects.following.models import ModelVersion
from persist_effects.machine import Effect
from persist_effects.requests import Append, KvPut, ReadAll, Write
from persist_effects.subscription import Group, ReadModel, follow

_STREAMS = 4
_EVENTS = 12
_GROUP = Group(partitions=4, lease_seconds=30.0)


def _copy(event: Event) -> list[Write]:
    return [Append("copies", (Draft("copied", [event.stream, event.seq]),))]


def _copied(store: Store) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for event in store.run(log.read("copies")):
        found.setdefault(event.data[0], []).append(event.data[1])
    return found


def _fill(store: Store, streams: int = _STREAMS, events: int = _EVENTS) -> None:
    for number in range(streams * events):
        append(store, f"s/{number % streams}", number)
    ask(store, ReadAll())  # so that a store whose order lags shows them


class FollowFacts(Facts):
    """What holds of followers, whichever store they follow on."""

    @needs("wait", "transact")
    def test_each_event_takes_effect_once_in_order_however_many_members_share_the_streams(self, store: Store) -> None:
        _fill(store)

        def work(member: str) -> int:
            return store.run(follow("crew", "s/", _copy, group=_GROUP, member=member, batch=3))

        self.together(*[lambda name=name: work(name) for name in ("a", "b", "c")])
        work("last")
        assert _copied(store) == {f"s/{number}": list(range(1, _EVENTS + 1)) for number in range(_STREAMS)}
        assert store.run(kv.keys("follow-member/")) == []

    @needs("wait", "transact")
    def test_readers_see_the_version_before_until_another_is_whole(self, store: Store) -> None:
        count = _STREAMS * _EVENTS
        model = ReadModel("totals")

        def fill(event: Event, version: ModelVersion, *, number: int) -> Effect[list[Write]]:
            before = yield from version.get_or(f"count/{number}", 0)
            return [version.put(f"count/{number}", before + 1), version.put(f"seen/{event.position}", number)]

        def follow_as(version: int) -> int:
            return store.run(
                follow(model, "s/", lambda event, filled: fill(event, filled, number=version), version=version)
            )

        def seen() -> dict[str, Any]:
            return {key: entry.value for key, entry in store.run(model.entries())}

        def look() -> list[dict[str, Any]]:
            return [seen() for _ in range(10)]

        _fill(store)
        follow_as(1)
        looks: list[dict[str, Any]] = []
        self.together(lambda: follow_as(2), lambda: looks.extend(look()))
        for found in [*looks, seen()]:
            (version,) = {number for key, number in found.items() if key.startswith("seen/")}
            assert found[f"count/{version}"] == count
            assert len(found) == count + 1
        assert store.run(model.get("count/2")) == count
        assert len(store.run(kv.keys("model/totals/"))) == count + 1

    @needs("wait", "transact")
    def test_what_is_set_aside_waits_with_what_follows_it_and_takes_effect_in_order(self, store: Store) -> None:
        poison = {"s/0"}

        def handle(event: Event) -> list[Write]:
            if event.stream in poison and event.seq == 2:
                raise ValueError("not this one")
            return [*_copy(event), KvPut(f"last/{event.stream}", event.seq)]

        def work() -> int:
            return store.run(follow("mails", "s/", handle, on_error="set-aside", batch=5))

        _fill(store, streams=2, events=5)
        work()
        assert _copied(store) == {"s/0": [1], "s/1": [1, 2, 3, 4, 5]}
        (aside,) = store.run(followers.registered("mails")).aside
        assert (aside.stream, aside.first, aside.through) == ("s/0", 2, 5)
        poison.clear()
        assert store.run(followers.retry("mails")) == 1
        work()
        assert _copied(store) == {"s/0": [1, 2, 3, 4, 5], "s/1": [1, 2, 3, 4, 5]}
        assert store.run(followers.registered("mails")).aside == []

    @needs("wait", "transact")
    def test_truncation_keeps_what_a_follower_has_not_seen(self, store: Store) -> None:
        _fill(store, streams=1, events=3)
        store.run(follow("mails", "s/", _copy))
        _fill(store, streams=1, events=3)
        assert store.run(log.truncate_through("s/0", 5, unseen="keep")) == 3
        store.run(follow("mails", "s/", _copy))
        assert _copied(store) == {"s/0": [1, 2, 3, 4, 5, 6]}
        assert store.run(log.drop("s/0")) == 3
        store.run(followers.forget("mails"))
        assert store.run(kv.keys("follow")) == []
