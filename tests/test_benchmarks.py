"""Facts about the table of speeds. Nothing here is timed."""

import gc
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import msgspec
import pytest

from benchmarks.__main__ import ROWS, main
from benchmarks.appends import (
    Appends,
    append_in_batches,
    append_in_programs,
    append_in_tasks,
    append_in_threads,
    append_together,
    events_in_batches,
    events_in_turn,
    prepared_appends,
)
from benchmarks.ground import allocated_bytes, copy_of, drop_page_cache, new_directory
from benchmarks.orders import add_total, order
from benchmarks.peers import as_records, lmdb_store, raw_file, sqlite_log
from benchmarks.rows_memory import stored_orders
from benchmarks.table import Bound, Result, Row, measure, selected
from interpreters import open_store
from interpreters.runtime.store import Store
from persist_effects import Event, log
from persist_effects.projection import project
from persist_effects.requests import Page, Read


@pytest.fixture(autouse=True)
def what_other_tests_hold_is_left_alone():
    """A measurement collects garbage before each round, which takes a second where ten thousand tests were before."""
    gc.freeze()
    yield
    gc.unfreeze()


def a_row(ours: float = 1.0, peer: float = 1.0, bound: Bound = Bound.AT_LEAST, must: float | None = 1.0) -> Row:
    return Row("some work", "s", bound, must, 1, lambda _: ours, lambda _: peer)


@pytest.mark.parametrize(
    ("bound", "ours", "is_reached"),
    [
        (Bound.AT_LEAST, 5.9, False),
        (Bound.AT_LEAST, 6.0, True),
        (Bound.AT_LEAST, 6.1, True),
        (Bound.AT_MOST, 5.9, True),
        (Bound.AT_MOST, 6.0, True),
        (Bound.AT_MOST, 6.1, False),
    ],
)
def test_a_ratio_is_ours_over_the_peers_and_is_judged_in_its_direction(bound, ours, is_reached):
    result = measure(a_row(ours, peer=2.0, bound=bound, must=3.0))
    assert result.ratio == ours / 2.0
    assert result.is_reached is is_reached


def test_the_ratio_is_the_median_of_the_rounds_so_that_one_bad_round_changes_nothing():
    assert Result(a_row(), ours=[6.0, 0.1, 6.0], peer=[3.0, 3.0, 2.0]).ratio == 2.0


def test_a_slow_spell_that_hits_both_sides_leaves_the_ratio_alone():
    assert Result(a_row(), ours=[8.0, 4.0, 4.0, 4.0, 8.0], peer=[4.0, 2.0, 2.0, 2.0, 4.0]).ratio == 2.0


def test_ours_and_the_peer_take_turns_on_what_was_prepared_once():
    calls: list[Any] = []

    @contextmanager
    def prepare(operations: int) -> Iterator[str]:
        calls.append(f"open {operations}")
        yield "prepared"
        calls.append("close")

    row = Row(
        name="some work",
        unit="s",
        bound=Bound.AT_LEAST,
        must=1.0,
        operations=7,
        ours=lambda given: calls.append(("ours", given)) or 1.0,
        peer=lambda given: calls.append(("peer", given)) or 1.0,
        prepare=prepare,
    )
    measure(row._replace(rounds=2), on_round=lambda: calls.append("round"))
    turn = [("ours", "prepared"), ("peer", "prepared"), "round"]
    assert calls == ["open 7", *turn, *turn, "close"]


def test_a_row_that_falls_short_makes_the_exit_code_1(capsys):
    assert main(["--rounds", "1"], rows=[a_row(), a_row(ours=0.5)]) == 1
    shown = capsys.readouterr().out
    assert "falls short" in shown
    assert "reached" in shown


def test_rows_that_are_reached_or_only_reported_make_the_exit_code_0(capsys):
    assert main(["--rounds", "1"], rows=[a_row(), a_row(ours=0.5, must=None)]) == 0
    assert "falls short" not in capsys.readouterr().out


def test_each_row_that_is_done_is_told_where_no_terminal_shows_a_bar(capsys):
    main(["--rounds", "1", "--json"], rows=[a_row(), a_row(ours=0.5)])
    assert capsys.readouterr().err == "some work: 1.00\nsome work: 0.50\n"


def test_json_holds_the_figures_of_every_round(capsys):
    assert main(["--rounds", "3", "--json"], rows=[a_row(ours=0.5)]) == 1
    (record,) = json.loads(capsys.readouterr().out)
    assert record == {
        "work": "some work",
        "unit": "s",
        "operations": 1,
        "ours": 0.5,
        "peer": 1.0,
        "ratio": 0.5,
        "bound": "at least",
        "must": 1.0,
        "is_reached": False,
        "rounds": {"ours": [0.5] * 3, "peer": [1.0] * 3},
    }


def test_only_selects_rows_by_a_part_of_the_name_and_refuses_what_no_name_holds(capsys):
    assert [row.name for row in selected(ROWS, "FOLD")] == [row.name for row in ROWS if "fold" in row.name]
    with pytest.raises(SystemExit):
        main(["--only", "no such work"], rows=[a_row()])
    assert "some work" in capsys.readouterr().err


@pytest.mark.exploration
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_runs(row):
    result = measure(row._replace(operations=min(10, max(1, row.operations // 10)), rounds=1))
    assert result.ratio > 0


def test_names_of_rows_differ():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_an_order_is_the_same_each_time_and_about_125_bytes():
    assert order(42) == order(42) != order(43)
    sizes = [len(msgspec.msgpack.encode(order(number))) for number in range(0, 1_000_000, 997)]
    assert all(115 <= size <= 135 for size in sizes)


def test_a_fold_holds_one_page_at_most():
    living: list[weakref.ref[Page]] = []

    with stored_orders(5_000) as stored:
        answer = stored.store.handlers[Read]

        def answer_when_earlier_pages_are_gone(request: Read) -> Page:
            assert [page() for page in living if page() is not None] == []
            page = answer(request)
            living.append(weakref.ref(page))
            return page

        store = Store(stored.store.interpreter, effects={Read: answer_when_earlier_pages_are_gone})
        state = store.run(project("orders", add_total, 0))
    assert state.value == sum(order(number)["total_cents"] for number in range(5_000))
    assert len(living) > 1


# The peers


@pytest.fixture
def appends() -> Iterator[Appends]:
    with prepared_appends(2_500) as prepared:
        yield prepared


def without_times(events: list[Event]) -> list[Event]:
    return [msgspec.structs.replace(event, at=0) for event in events]


def test_the_raw_limit_writes_every_record(tmp_path, appends):
    records = as_records(events_in_turn(appends.first(20)))
    with raw_file(tmp_path / "raw", sum(map(len, records))) as raw:
        raw.append_each(records[:15])
        raw.append_each(records[15:])
        assert raw.read() == b"".join(records)
    assert (tmp_path / "raw").read_bytes() == b"".join(records)


@pytest.mark.parametrize(("synchronous", "setting"), [("NORMAL", 1), ("FULL", 2)])
def test_sqlite_stores_every_event_as_its_row_says(tmp_path, appends, synchronous, setting):
    with sqlite_log(tmp_path, synchronous) as table:
        assert (table.setting("journal_mode"), table.setting("synchronous")) == ("wal", setting)
        table.append_each(events_in_turn(appends.first(20)))
        assert without_times(table.read_all()) == without_times(list(events_in_turn(appends.first(20))))
        assert all(event.at for event in table.read_all())


def test_sqlite_stores_batches(tmp_path, appends):
    with sqlite_log(tmp_path, "FULL") as table:
        table.append_batches(events_in_batches(appends))
        assert without_times(table.read_all()) == without_times(list(chain(*events_in_batches(appends))))


@pytest.mark.parametrize("sync", [True, False])
def test_lmdb_stores_every_event_under_both_of_its_keys(tmp_path, appends, sync):
    with lmdb_store(tmp_path, sync=sync) as store:
        store.append_each(events_in_turn(appends.first(20)))
    with lmdb_store(tmp_path, sync=sync) as store:
        events = store.fold(lambda events, event: [*events, event], [])
        assert without_times(events) == without_times(list(events_in_turn(appends.first(20))))
        assert [store.positions(event.stream) for event in events] == [[event.position] for event in events]


def test_lmdb_stores_batches(tmp_path, appends):
    with lmdb_store(tmp_path, sync=True) as store:
        store.append_batches(events_in_batches(appends))
        assert store.fold(add_total, 0) == sum(placed["total_cents"] for placed in appends.orders)
        assert store.positions(appends.names[1]) == list(range(1_001, 2_001))


def test_lmdb_stores_values_under_keys(tmp_path):
    with lmdb_store(tmp_path, sync=False) as store:
        store.put_each([("orders/2", order(2)), ("orders/1", order(1))])
        assert list(store.get_each(["orders/1", "orders/2", "orders/3"])) == [order(1), order(2), None]


def test_events_for_peers_are_numbered_as_a_store_numbers_them(appends):
    with open_store("memory:") as store:
        append_in_programs(store, appends)
        assert without_times(store.run(log.page_all(limit=10_000)).events) == without_times(
            list(events_in_turn(appends))
        )
    with open_store("memory:") as store:
        append_in_batches(store, appends)
        assert without_times(store.run(log.page_all(limit=10_000)).events) == without_times(
            list(chain(*events_in_batches(appends)))
        )


@pytest.mark.parametrize("append", [append_in_tasks, append_in_threads, append_together])
def test_every_way_of_ours_appends_every_order_once(appends, append):
    with open_store("memory:") as store:
        append(store, appends)
        events = store.run(log.page_all(limit=10_000)).events
    assert sorted(event.data["order_id"] for event in events) == [placed["order_id"] for placed in appends.orders]


# The ground


def test_a_new_directory_lies_under_var_bench_and_goes_away():
    with new_directory() as directory:
        (directory / "file").write_bytes(b"x")
        assert directory.parent.parts[-2:] == ("var", "bench")
    assert not directory.exists()


def test_a_copy_is_another_directory_with_the_same_files(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1.seg").write_bytes(bytes(5_000))
    with copy_of(tmp_path) as copy:
        assert (copy / "log" / "1.seg").read_bytes() == bytes(5_000)
        assert allocated_bytes(copy) == allocated_bytes(tmp_path) >= 5_000
        (copy / "log" / "1.seg").unlink()
    assert (tmp_path / "log" / "1.seg").exists()


def test_files_are_the_same_after_their_pages_were_dropped_from_the_cache():
    with new_directory() as directory:
        (directory / "file").write_bytes(b"tea" * 10_000)
        drop_page_cache(directory)
        assert (directory / "file").read_bytes() == b"tea" * 10_000
