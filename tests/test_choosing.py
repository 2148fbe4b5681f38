"""What docs/how-to/choosing-a-store.md says of the stores is what they say themselves."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats_cluster
import postgres_server
import pytest
from places import ROOT
from served_stores import serving

from benchmarks import side_by_side
from benchmarks.sizing_places import KINDS
from interpreters import Store, open_store
from persist_effects.capabilities import Capabilities

PAGE = (ROOT / "docs" / "how-to" / "choosing-a-store.md").read_text("utf-8")

AS_BEHIND = "as behind it"


def table() -> dict[str, dict[str, str]]:
    """The page's table: for each store, by its heading, what stands in each row."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE[PAGE.index("\n| | `memory:`") + 1 :].partition("\n\n")[0].splitlines()
    ]
    head, _, *body = rows
    return {store: {row[0]: row[column] for row in body} for column, store in enumerate(head) if store}


@contextmanager
def served(directory: Path) -> Iterator[str]:
    with open_store(f"file:{directory / 'behind'}") as behind, serving(behind, directory / "sock") as url:
        yield url


def nats_url(size: int) -> str:
    # Without options: those of the tests' servers are others.
    return nats_cluster.new_store_url(size).partition("?")[0] + f"?replicas={size}"


@contextmanager
def opened(store: str, directory: Path) -> Iterator[Store]:
    """A new store of a kind, by the heading that it has in the table."""
    urls = {
        "`memory:`": lambda: "memory:",
        "`file:`": lambda: f"file:{directory / 'store'}",
        "`file:…?share=yes`": lambda: f"file:{directory / 'store'}?share=yes&idle_seconds=1",
        "`sqlite:`": lambda: f"sqlite:{directory / 'store.db'}",
        "`postgresql:`": postgres_server.new_store_url,
        "`nats:` on one server": lambda: nats_url(1),
        "`nats:` on three": lambda: nats_url(3),
    }
    with open_store(urls[store]()) as found:
        yield found


def in_words(able: Capabilities) -> dict[str, str]:
    """What a store promises, as the table says it."""
    return {
        "durability": able.durability,
        "processes": able.processes,
        "order lags": "yes" if able.order_lags else "no",
        "batch limit": "none" if able.batch_limit is None else str(able.batch_limit),
        "largest value": f"{able.payload_limit_bytes // 2**20} MiB",
        "SQL beside the log": able.sql or "none",
    }


SERVED = "`unix:` `tcp:` `spawn:`"


@pytest.mark.parametrize("store", [store for store in table() if store != SERVED], ids=lambda store: store)
def test_the_table_says_of_a_store_what_the_store_promises(store: str, tmp_path: Path) -> None:
    with opened(store, tmp_path) as found:
        promised = in_words(found.capabilities)
    said = table()[store]
    # A limit may be followed by what it depends on.
    assert {row: said[row].partition(",")[0] for row in promised} == promised


def test_a_served_store_promises_what_the_store_behind_it_does_but_for_its_processes(tmp_path: Path) -> None:
    with served(tmp_path) as url, open_store(url) as found:
        promised = in_words(found.capabilities)
    with open_store(f"spawn:file:{tmp_path / 'spawned'}") as spawned:
        assert in_words(spawned.capabilities) == in_words(FILE)
    said = table()[SERVED]
    assert promised == {**in_words(FILE), "processes": "many"}
    assert said["processes"] == f"many; `spawn:` {AS_BEHIND}"
    assert said["SQL beside the log"] == f"with `--sql`, {AS_BEHIND}"
    assert {said[row] for row in promised if row not in ("processes", "SQL beside the log")} == {AS_BEHIND}


FILE = Capabilities(durability="commit", processes="one-writer", reopen=True)


def test_the_table_has_every_scheme_that_opens_a_store() -> None:
    from interpreters import opening

    named = {name for store in table() for name in re.findall(r"(\w+):", store)}
    # What crashes when told to is for tests alone.
    assert named == set(opening._OPENERS) - {"crash"}


def test_the_table_has_what_the_stores_cost_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert side_by_side.main(["--events", "20", "--rounds", "1", "--times", "1"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == f"| | {' | '.join(KINDS)} |"
    costs = [row.partition(",")[0].strip("| ") for row in rows]
    assert len(costs) == len(side_by_side.HEADINGS)
    for store, said in table().items():
        shown = {row.partition(",")[0]: cell for row, cell in said.items() if "against" in row}
        assert list(shown) == costs
        assert all(float(cell.replace(",", "")) > 0 for cell in shown.values()), store
    assert {cell for row, cell in table()["`file:`"].items() if "against" in row} == {"1"}
