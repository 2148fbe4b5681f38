"""Programs that talk to two stores: what goes where, each event once whatever is lost, recorded and explored."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from interpreters import Store, open_store
from interpreters.explore import explore, explore_effects
from persist_effects import Group, InvalidRequest, KvPut, ReadModel, all_of, follow, followers, kv, log, perform
from persist_effects.requests import At, KvGet, Read
from persist_effects.targets import into, rows_at
from persist_effects.trace import record, replay


def two_stores(events: int = 3) -> tuple[Store, Store]:
    """One with events, and one that it has as a target."""
    reports = open_store("memory:")
    store = open_store("memory:", effects=rows_at({"reports": reports}))
    for number in range(events):
        store.run(log.append(f"orders/{number % 2}", "made", number))
    return store, reports


def count(event: Any) -> Iterator[Any]:
    """Not the same twice: an event that counts two times shows."""
    counted = yield from kv.get_or("count", 0)
    return [KvPut("count", counted + 1)]


def following(**options: Any) -> Any:
    return follow("counts", "orders/", count, into="reports", **options)


def test_keys_and_writes_are_the_targets_and_streams_are_read_where_the_program_runs() -> None:
    store, reports = two_stores()
    assert store.run(following()) == 3
    assert reports.run(kv.keys()) == ["count", "follow/counts"]
    assert (store.run(kv.keys()), reports.run(log.streams())) == ([], [])
    assert store.run(into("reports", followers.registered("counts"))).position == 3


def test_parts_that_are_asked_at_once_go_where_each_belongs() -> None:
    store, reports = two_stores()
    reports.run(kv.put("color", "red"))
    color, events = store.run(into("reports", all_of(kv.get("color"), log.read("orders/0"))))
    assert (color, len(events)) == ("red", 2)
    assert next(into("reports", perform(Read("s")))) == Read("s")
    assert next(into("reports", perform(KvGet("a")))) == At("reports", KvGet("a"))


def test_what_is_set_aside_is_told_in_the_target() -> None:
    store, reports = two_stores()

    def fail(event: Any) -> list[Any]:
        if event.data == 1:
            raise ValueError("no address")
        return []

    store.run(follow("mails", "orders/", fail, on_error="set-aside", into="reports"))
    assert [event.data["error"] for event in reports.run(log.read("set-aside/mails"))] == ["ValueError: no address"]
    assert store.run(into("reports", followers.retry("mails"))) == 1
    store.run(follow("mails", "orders/", lambda event: [], on_error="set-aside", into="reports"))
    assert store.run(into("reports", followers.registered("mails"))).aside == []


def test_read_models_and_versions_and_groups_are_kept_in_the_target() -> None:
    store, reports = two_stores(8)
    totals = ReadModel("totals")

    def add(event: Any, model: Any) -> Iterator[Any]:
        before = yield from model.get_or(event.stream, 0)
        return [model.put(event.stream, before + 1)]

    store.run(follow(totals, "orders/", add, into="reports", group=Group(partitions=2)))
    store.run(follow(totals, "orders/", add, into="reports", group=Group(partitions=3), version=2))
    assert [entry.value for _, entry in reports.run(totals.entries())] == [4, 4]
    assert store.run(kv.keys()) == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_and_programs_side_by_side_follow_into_another_store(backend: str) -> None:
    store, reports = two_stores()
    assert anyio.run(store.arun, following(timeout=0.01), backend=backend) == 3
    store.run(log.append("orders/9", "made", 1))
    store.run_many([following(), follow("others", "orders/", lambda event: [], into="reports")])
    assert reports.run(kv.get("count")) == 4


def test_a_follower_into_another_store_is_recorded_and_replayed_without_either() -> None:
    store, _ = two_stores()
    outcome, trace = record(following(), store.handlers)
    assert replay(following(), trace) == outcome.value == 3
    again, trace = record(following(), store.handlers)
    assert replay(following(), trace) == again.value == 3


def test_wherever_the_program_is_gone_between_the_two_each_event_counts_once() -> None:
    def counted_once(acked: Any, maybe: Any) -> Iterator[Any]:
        assert (yield from into("reports", kv.get("count"))) == 3

    report = explore_effects(following, lambda: two_stores()[0], counted_once, depth=2)
    assert report.verdict == "passed", str(report)
    assert report.checked > 100


def test_in_every_order_of_two_that_follow_into_another_store_each_event_counts_once() -> None:
    def counted_once(outcomes: Any) -> Iterator[Any]:
        assert [outcome.value for outcome in outcomes] == [2, 2]
        assert (yield from into("reports", kv.get("count"))) == 2

    report = explore([following, following], lambda: two_stores(2)[0], counted_once, bound=3)
    assert report.verdict == "passed", str(report)
    assert report.checked > 100


def test_a_follower_that_keeps_its_checkpoint_apart_from_what_it_writes_is_found() -> None:
    def apart() -> Iterator[Any]:
        position = yield from into("reports", kv.get_or("position", 0))
        page = yield from log.page_all(position, "orders/")
        for event in page.events:
            counted = yield from into("reports", kv.get_or("count", 0))
            yield from into("reports", kv.put("count", counted + 1))
            yield from into("reports", kv.put("position", event.position))

    def counted_once(acked: Any, maybe: Any) -> Iterator[Any]:
        assert (yield from into("reports", kv.get("count"))) == 3

    assert explore_effects(apart, lambda: two_stores()[0], counted_once).verdict == "failed"


def test_a_target_that_was_restored_from_a_backup_gets_what_it_lacks(tmp_path: Path) -> None:
    with open_store(f"file:{tmp_path}/events") as store:
        store.run(log.append("orders/1", "made", 1))
    for step in range(3):
        with (
            open_store(f"sqlite:{tmp_path}/reports.db") as reports,
            open_store(f"file:{tmp_path}/events", effects=rows_at({"reports": reports})) as store,
        ):
            store.run(log.append("orders/1", "made", step))
            store.run(following())
            assert reports.run(kv.get("count")) == step + 2
        if step == 0:
            shutil.copy(tmp_path / "reports.db", tmp_path / "backup.db")
        if step == 1:
            shutil.copy(tmp_path / "backup.db", tmp_path / "reports.db")


def test_events_that_end_before_the_checkpoint_are_refused() -> None:
    store, reports = two_stores()
    store.run(following())
    lost = open_store("memory:", effects=rows_at({"reports": reports}))
    lost.run(log.append("orders/1", "made", 1))
    with pytest.raises(InvalidRequest, match="has its checkpoint at position 3, but the store ends at 1"):
        lost.run(following())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("reports", "targets is a str, 'reports': give a dict"),
        ({"": open_store("memory:")}, "target is empty"),
        ({"reports": "sqlite:x.db"}, "target 'reports' is a str, 'sqlite:x.db': give a store"),
    ],
)
def test_targets_that_are_none_are_refused_where_the_row_is_made(given: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        rows_at(given)


def test_a_target_that_nobody_has_named_is_told_with_those_that_are_known() -> None:
    store, _ = two_stores()
    with pytest.raises(InvalidRequest, match="there is no target 'reprots': there are 'reports'"):
        store.run(follow("counts", "orders/", count, into="reprots"))
    with pytest.raises(InvalidRequest, match="target is empty"):
        store.run(follow("counts", "orders/", count, into=""))
