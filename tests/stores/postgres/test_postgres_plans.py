"""Query plans at a million events: every question is answered by an index, and looks at about as much as it answers."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from postgres_server import QUIET, new_schema, own_server

from interpreters import Store, open_store
from interpreters.stores.postgres.private_server import PrivateServer
from persist_effects import Draft, kv, log, transact
from persist_effects.requests import Append, KvDelete, KvPut

pytestmark = pytest.mark.exploration

EVENTS = int(os.environ.get("POSTGRES_PLAN_EVENTS", "1000000"))
STREAMS = EVENTS // 10
KEYS = EVENTS // 10

MOST_ROWS = 6_000
"""How many rows a step of a plan may look at for one of the questions here: sqrt(2 * page * streams), or 1,000."""

FILL = """
INSERT INTO streams (id, name, dropped, dropped_position)
SELECT nextval('stream_ids'), format('%%s/%%s', CASE WHEN n %% 1000 = 0 THEN 'rare' ELSE 'orders' END, n), 0, 0
FROM generate_series(1, %(streams)s) AS n;
INSERT INTO events (position, stream, seq, type, at, data)
SELECT n, (n - 1) %% %(streams)s + 1, (n - 1) / %(streams)s + 1, CASE WHEN n %% 7 = 0 THEN 'paid' ELSE 'placed' END,
    n, '\\xc0'
FROM generate_series(1, %(events)s) AS n;
INSERT INTO entries (key, revision, value)
SELECT format('key/%%s', n), n, '\\xc0' FROM generate_series(1, %(keys)s) AS n;
INSERT INTO deletions (revision, key)
SELECT %(keys)s + n, format('gone/%%s', n) FROM generate_series(1, 1000) AS n;
"""
"""As many rows as a store has after a long time. Nothing analyzes them: no plan may depend on that."""


WATCHED = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": 0,
    "auto_explain.log_analyze": "on",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "auto_explain.log_timing": "off",
}


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    own_server()
    made = PrivateServer(settings=QUIET)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def store(server: PrivateServer) -> Iterator[Store]:
    schema = new_schema()
    with (
        open_store(server.url(schema, timeout_seconds="600")) as filling,
        filling.interpreter.connect() as connection,
    ):
        for statement in filter(str.strip, FILL.split(";\n")):
            connection.execute(statement, {"events": EVENTS, "streams": STREAMS, "keys": KEYS})
    settings = " ".join(f"-c {name}={value}" for name, value in WATCHED.items())
    with open_store(server.url(schema, options=settings)) as opened:
        yield opened


QUESTIONS = {
    "an append": lambda: log.append("orders/5", "placed", 1),
    "an append to a new stream": lambda: log.append("new/1", "placed", 1),
    "an append of several": lambda: log.append_many("orders/5", [Draft("placed", 1)] * 5),
    "a transaction": lambda: transact(
        Append("orders/7", (Draft("placed", 1),)), KvPut("key/5", 1), KvDelete("key/6"), KvPut("new", 1)
    ),
    "a truncation": lambda: log.truncate_through("orders/9", 2),
    "a stream": lambda: log.read("orders/11"),
    "a stream backwards": lambda: log.read_back("orders/11", 3),
    "a stream's last number": lambda: log.last_seq("orders/11"),
    "a page of all": lambda: log.page_all(after=EVENTS // 2, limit=100),
    "a page of all backwards": lambda: log.page_all(until=EVENTS // 2, limit=100, backwards=True),
    "a page of a type": lambda: log.page_all(after=EVENTS // 2, types=["paid"], limit=100),
    "a page of one stream by prefix": lambda: log.page_all(prefix="orders/11111", limit=100),
    "a page of many streams by prefix": lambda: log.page_all(after=EVENTS // 2, prefix="orders/", limit=100),
    "a page of many streams by prefix, backwards": lambda: log.page_all(prefix="orders/", limit=100, backwards=True),
    "a page of rare streams by prefix": lambda: log.page_all(after=EVENTS // 2, prefix="rare/", limit=10),
    "names of streams": lambda: log.streams("orders/11"),
    "keys": lambda: kv.keys("key/11"),
    "a key": lambda: kv.get("key/77"),
    "a wait for all": lambda: log.wait(0, timeout=0),
    "a wait for a stream": lambda: log.wait(0, "orders/11111", timeout=0),
    "a wait for many": lambda: log.wait(0, "orders/", timeout=0),
    "a wait for keys": lambda: kv.wait(0, "key/", timeout=0),
    "a wait for one key": lambda: kv.wait(0, "key/77", timeout=0),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_by_indexes(server, store, question):
    before = len(log_of(server))
    store.run(QUESTIONS[question]())
    plans = list(plans_in(log_of(server)[before:]))
    assert plans, "the server has noted no plan"
    for plan in plans:
        for node in nodes_of(plan["Plan"]):
            shown = f"{question}: {plan['Query Text']}\n{json.dumps(plan['Plan'], indent=1)}"
            is_large = node.get("Relation Name") in {"events", "streams", "entries"}
            assert not (is_large and node["Node Type"] == "Seq Scan"), shown
            looked_at = node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)
            assert looked_at * node.get("Actual Loops", 1) <= MOST_ROWS, shown


def log_of(server: PrivateServer) -> str:
    return (server.directory / "log").read_text(errors="replace")


def plans_in(text: str) -> Iterator[dict[str, Any]]:
    for found in re.finditer(r"plan:\n(\t\{\n.*?\n\t\})", text, re.DOTALL):
        yield json.loads(found[1].replace("\n\t", "\n"))


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes_of(inner)
