"""The example `examples/orders_by_customer.py`: what it prints, on both databases, and from a file store into them."""

import sys
from pathlib import Path

import pytest
from databases import Database, database
from places import EXAMPLES

sys.path.insert(0, str(EXAMPLES))

import orders_by_customer

__all__ = ["database"]

TRANSCRIPT = """\
ada in March: o-2 for 4.50 EUR
ada in March: o-4 for 7.00 EUR
best: ada, 3 orders for 23.50 EUR
since version 2: 3 orders from UK
"""


@pytest.mark.parametrize("has_events_elsewhere", [False, True])
def test_it_answers_from_tables_and_again_without_counting_twice(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], has_events_elsewhere: bool
) -> None:
    urls = [database.url, *([f"file:{tmp_path}/events"] if has_events_elsewhere else [])]
    for _ in range(2):
        assert orders_by_customer.command(urls) == 0
        assert capsys.readouterr().out == TRANSCRIPT
    assert database.tables() == ["orders__2"]


def test_a_store_without_sql_and_no_argument_are_one_line_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in ((["memory:"], "this store has no SQL"), ([], "usage: orders_by_customer.py")):
        assert orders_by_customer.command(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
