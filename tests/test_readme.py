"""What the README says in figures, and what fits on its first screen."""

import re

import pytest
from places import ROOT

from benchmarks.__main__ import ROWS

README = (ROOT / "README.md").read_text("utf-8")
FIGURES = re.findall(r"\| ([\d.]+) \| `\"(.+?)\"` \|", README)


@pytest.mark.parametrize(("figure", "name"), FIGURES)
def test_a_figure_is_what_the_bench_holds_us_to(figure: str, name: str) -> None:
    (row,) = [row for row in ROWS if name in row.name]
    assert row.must == float(figure)


def test_what_it_is_for_whom_and_what_to_run_stand_on_the_first_screen() -> None:
    assert FIGURES
    head = README.partition("\n## ")[0].splitlines()
    assert len(head) <= 48
    assert max(map(len, head)) <= 160, "a screen has a width, too"
    text = "\n".join(head)
    assert all(word in text for word in ("For you", "Not for you", "SQLite", "make demo", "make test", "```python"))
