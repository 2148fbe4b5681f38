"""docs/first-week.md, typed line by line into a shell, in an empty directory."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from agents import is_over
from places import ROOT
from served_stores import until
from test_docs import Block, blocks

PAGE = ROOT / "docs" / "first-week.md"
ON_PAGE = "postgresql://app@db.example/app?schema=shop"
TASKS = 10


def files_and_lines() -> Iterator[tuple[str, Block]]:
    """The files that the page shows, and the blocks of a shell, in the order of the page."""
    for block in blocks(PAGE):
        name = re.match(r"# (\w+\.py)\n", block.code)
        if block.language == "sh" or name is not None:
            yield ("" if name is None else name[1], block)


def test_each_task_is_in_the_table_and_below_it() -> None:
    text = PAGE.read_text("utf-8")
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == [str(number) for number in range(1, TASKS + 1)]
    assert re.findall(r"^## (\d+)\. ", text, re.MULTILINE) == [str(number) for number in range(1, TASKS + 1)]


@pytest.mark.exploration
def test_all_that_the_page_says_to_type_does_what_it_says(tmp_path: Path) -> None:
    url = postgres_server.new_store_url()
    said: dict[str, str] = {}
    for name, block in files_and_lines():
        if name:
            (tmp_path / name).write_text(block.code)
        else:
            said |= typed(block.code.replace(ON_PAGE, url), tmp_path)
    shown = [said[line] for line in said if "persist-effects" in line]
    assert "1           1  orders/7" in shown[0]
    assert "Placed(sku='tea', cents=450)" in shown[1]
    assert "1 of 2 are counted" in said['pytest test_shop.py  # fails: "1 of 2 are counted"']
    assert said[f"persist-effects streams '{url}'"].splitlines() == ["orders/7", "orders/8", "orders/9"]
    assert "nothing was found that needs care" in said["persist-effects doctor file:var/shop"]


def typed(lines: str, directory: Path) -> dict[str, str]:
    """Type lines into a shell of their own, as a block of a page; and what was printed at each."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = {}
    for line in lines.splitlines():
        if line.startswith("export "):
            environment |= [shlex.split(line)[1].split("=", 1)]
            continue
        done = subprocess.run(
            ["bash", "-c", line], cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == ("# fails" in line), f"{line}\n{done.stdout}{done.stderr}"
        said[line] = done.stdout
    if "STORE" in environment:
        until(lambda: is_over(directory / "var" / "shop"))
    return said
