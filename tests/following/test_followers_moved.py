"""Followers that are moved to another store, by JSON Lines or by a migration, go on where they stood."""

import io

import pytest
from follower_scenes import TOTALS, copied_of, copy, count_hundreds, count_once, fails_on

from interpreters import jsonl, open_store
from interpreters.migrating import migrate
from persist_effects import Group, follow, followers, kv, log

GROUP = Group(partitions=2)


def by_lines(old):
    lines, new = io.BytesIO(), open_store("memory:")
    jsonl.export(old, lines)
    lines.seek(0)
    jsonl.import_(new, lines)
    return new


def by_migration(old):
    new = open_store("memory:")
    migrate(old, new)
    return new


def follow_group(store, handler=copy):
    store.run(follow("crew", "s/", handler, group=GROUP, on_error="set-aside"))


@pytest.mark.parametrize("move", [by_lines, by_migration])
def test_groups_versions_and_what_was_set_aside_go_on_where_they_stood(store, move):
    # What was begun and dropped before takes other positions in the new store.
    for number in range(20):
        store.run(log.append("gone", "made", number))
    store.run(log.drop("gone"))
    for number in range(6):
        store.run(log.append(f"s/{number % 3}", "counted", number))
    follow_group(store, fails_on(1))
    store.run(follow(TOTALS, "s/", count_once))
    store.run(log.append("s/0", "counted", 6))
    store.run(followers.rebuild("totals"))
    with move(store) as new:
        assert new.run(kv.keys()) == store.run(kv.keys())
        for name in ("crew", "totals"):
            unseen = [each.run(followers.lag(name)).unseen for each in (store, new)]
            assert unseen[0] == unseen[1] > 0, name
        new.run(followers.retry("crew"))
        follow_group(new)
        found = {}
        for stream, seq in copied_of(new):
            found.setdefault(stream, []).append(seq)
        assert found == {"s/0": [1, 2, 3], "s/1": [1, 2], "s/2": [1, 2]}
        assert new.run(TOTALS.get("count")) == 6
        new.run(follow(TOTALS, "s/", count_once))
        assert new.run(TOTALS.get("count")) == 7
        new.run(follow(TOTALS, "s/", count_hundreds, version=2))
        assert new.run(TOTALS.get("hundreds")) == 700
