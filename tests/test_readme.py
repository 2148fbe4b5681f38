"""What the README says in figures, what stands on its first screen, and whether its web application works."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from places import ROOT
from test_docs import blocks

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


def test_the_web_application_places_an_order_once() -> None:
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "README.md"):
        if block.language == "python":
            exec(compile(block.code, "README.md", "exec"), names)

    async def order_twice() -> tuple[httpx.Response, ...]:
        app = names["app"]
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
        ):
            asked = {"headers": {"Idempotency-Key": "77"}, "json": {"sku": "tea"}}
            return await client.post("/orders", **asked), await client.post("/orders", **asked)

    first, second = asyncio.run(order_twice())
    assert (first.status_code, first.json()["sku"]) == (201, "tea")
    assert first.json() == second.json()
