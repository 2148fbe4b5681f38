"""The example `examples/order_ledger.py`: what it prints, and that it may be stopped, killed, repeated and raced."""

import importlib.util
import itertools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import interleavings, stop_after
from dying_disk import Changes, Died
from places import ROOT

from interpreters import Store, open_store
from persist_effects import Conflict, Effect, Truncated, all_of, kv, log, projection

TRANSCRIPT = """\
race: expected event 1 to be the last, it was 2: decided again
o-1: placed
o-2: placed
o-3: declined
sales/mug: 1 for 12.00 EUR
sales/tea: 2 for 9.00 EUR
snapshot: through event 3, events left: [4, 5]
invoice: o-1: 1 mug, 12.00 EUR (text/plain, bafkreicnsdt…)
invoice: o-2: 2 tea, 9.00 EUR (text/plain, bafkreibizfc…)
again: nothing was recorded or counted twice
"""


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("order_ledger", ROOT / "examples" / "order_ledger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example: Any = load_example()


def test_it_prints_this(capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    assert capsys.readouterr().out == TRANSCRIPT


def test_a_bad_url_and_too_many_arguments_are_one_line_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in ((["nothing:"], "'nothing:' names no store"), (["a", "b"], "usage: order_ledger.py")):
        assert example.command(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert example.command([]) == 0
    assert capsys.readouterr().out == TRANSCRIPT


def test_the_race_ends_in_a_conflict_a_retry_and_one_sale_of_the_last_tea(store: Store) -> None:
    assert store.run(example.ledger()) == [Conflict("stream", "ledger", expected=1, actual=2)]
    orders = store.run(example.current()).value.orders
    assert (orders["o-2"].count, orders["o-3"]) == (2, None)


def test_run_many_races_too_and_each_loser_decides_again(store: Store) -> None:
    races = store.run_many(example.place(f"o-{number}", "tea", 1) for number in range(5))
    assert [len(lost) for lost in races] == [0, 1, 2, 3, 4]
    assert store.run(example.current()).value.sold("tea") == [3, 1350]
    store.run(example.check_ledger())


def test_a_second_run_on_the_same_store_adds_no_event(store: Store) -> None:
    store.run(example.ledger())
    lines, last = store.run(example.report()), store.run(log.last_seq("ledger"))
    assert store.run(example.ledger()) == []
    assert (store.run(example.report()), store.run(log.last_seq("ledger"))) == (lines, last)


def test_the_sequence_goes_on_after_compaction(store: Store) -> None:
    store.run(example.ledger())
    with pytest.raises(Truncated, match="the first event left is 4"):
        store.run(projection.project("ledger", lambda count, event: count + 1, 0))
    store.run(example.place("o-4", "tea", 1))
    assert [event.seq for event in store.run(log.read("ledger"))] == [4, 5, 6]
    store.run(example.check_ledger())


def test_followers_that_race_count_each_sale_once(store: Store) -> None:
    for number in range(3):
        store.run(example.place(f"o-{number}", "tea", 1))
    store.run(all_of(*(example.catch_up() for _ in range(3))))
    assert store.run(kv.get("sales/tea")) == [3, 1350]
    store.run(example.catch_up())
    assert store.run(kv.get("sales/tea")) == [3, 1350]


def test_the_check_finds_a_wrong_read_model(store: Store) -> None:
    store.run(example.ledger())
    store.run(kv.put("sales/tea", [3, 900]))
    with pytest.raises(AssertionError, match="the read model has"):
        store.run(example.check_ledger())


def test_interrupted_after_any_request_and_run_again_it_ends_in_the_same_ledger(open_new: Callable[[], Store]) -> None:
    with open_new() as store:
        store.run(example.ledger())
        expected = store.run(example.current())
    for count in itertools.count():
        with open_new() as store:
            has_ended = stop_after(example.ledger(), store, count)
            store.run(example.check_ledger())
            store.run(example.ledger())
            store.run(example.check_ledger())
            assert store.run(example.current()) == expected, f"after {count} requests"
        if has_ended:
            break


def test_no_interleaving_of_the_clerks_changes_the_totals(open_new: Callable[[], Store]) -> None:
    def begin(store: Store) -> list[Effect[Any]]:
        return [example.place(number, "tea", 2) for number in ("o-2", "o-3")]

    winners = set()
    for order, store, races in interleavings(open_new, begin):
        now = store.run(example.current()).value
        assert now.sold("tea") == [2, 900], order
        store.run(example.check_ledger())
        assert [len(lost) for lost in races] in ([0, 0], [0, 1], [1, 0]), order
        winners |= {number for number, placed in now.orders.items() if placed is not None}
    assert winners == {"o-2", "o-3"}


# On a file store


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file:{tmp_path / 'ledger'}?segment_bytes=4096"


def assert_converges(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run on what an earlier run left: all is as after a run that nothing ever stopped, but for the race."""
    capsys.readouterr()
    assert example.command([url]) == 0
    lines = [line for line in TRANSCRIPT.splitlines() if not line.startswith(("race:", "snapshot:"))]
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if not line.startswith(("race:", "snapshot:"))] == lines
    with open_store(url) as store:
        assert store.run(example.ledger()) == []
        store.run(example.check_ledger())
        assert store.run(log.last_seq("ledger")) == 5
        assert store.run(example.current()).value.sold("tea") == [2, 900]


def test_it_runs_on_a_file_store_twice(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.command([url]) == 0
    assert capsys.readouterr().out == TRANSCRIPT
    assert example.command([url]) == 0
    assert capsys.readouterr().out == TRANSCRIPT.split("\n", 1)[1]
    assert_converges(url, capsys)


def test_what_one_opening_compacted_the_next_one_goes_on_from(url: str) -> None:
    with open_store(url) as store:
        store.run(example.ledger())
        expected = store.run(example.current())
    with open_store(url) as store:
        assert store.run(example.current()) == expected
        assert store.run(example.place("o-4", "tea", 1)) == []
        assert [event.seq for event in store.run(log.read("ledger"))] == [4, 5, 6]
        assert store.run(example.ledger()) == []
        store.run(example.check_ledger())


@pytest.mark.exploration
def test_dying_at_any_change_of_the_disk_and_run_again_it_converges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def die() -> None:
        raise Died

    for at in itertools.count(1):
        url = f"file:{tmp_path / f'ledger {at}'}?segment_bytes=4096"
        with monkeypatch.context() as patch:
            changes = Changes(at, die, is_final=True).install(patch.setattr)
            try:
                example.main(url)
            except Died:
                pass
            else:
                break
        assert changes.count >= at
        assert_converges(url, capsys)
    assert at > 50


@pytest.mark.exploration
@pytest.mark.parametrize("eighth", range(1, 8))
def test_killed_for_real_in_the_middle_and_run_again_it_converges(
    url: str, eighth: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        changes = Changes(0, lambda: None).install(patch.setattr)
        example.main(url.replace("ledger", "counted"))
    script = Path(__file__).with_name("dying_disk.py")
    command = [sys.executable, script, "disk", str(changes.count * eighth // 8), "order_ledger", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_converges(url, capsys)
