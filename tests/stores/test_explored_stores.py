"""The explorers that run on every store run on databases too, and find the same there."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import nats_cluster
import postgres_server
import pytest

from interpreters import Store, open_store
from interpreters.explore import explore, explore_effects
from persist_effects import Effect, kv, log

Factory = Callable[[], Store]


def factory_of(scheme: str, tmp_path: Path) -> Factory:
    numbers = count()

    def make() -> Store:
        servers = {"postgresql": postgres_server, "nats": nats_cluster}
        if scheme in servers:
            return open_store(servers[scheme].new_store_url())
        return open_store(f"sqlite:{tmp_path}/{next(numbers)}.db?sync=os")

    return make


def add_one() -> Effect[None]:
    found = yield from kv.get_or("count", 0)
    yield from kv.put("count", found + 1)


def update_by_one() -> Effect[None]:
    yield from kv.update("count", lambda found: found + 1, 0)


def is_two(outcomes: Any) -> Effect[None]:
    assert (yield from kv.get("count")) == 2


@pytest.mark.exploration
@pytest.mark.parametrize(
    ("scheme", "program", "verdict"),
    [
        ("sqlite", add_one, "failed"),
        ("sqlite", update_by_one, "passed"),
        ("postgresql", add_one, "failed"),
        # Revisions are others in each run there, and this program hands them on.
        ("postgresql", update_by_one, "not deterministic"),
        ("nats", add_one, "failed"),
        ("nats", update_by_one, "passed"),
    ],
)
def test_a_lost_update_is_found_on_a_database_too(scheme: str, program: Any, verdict: str, tmp_path: Path) -> None:
    assert explore([program, program], factory_of(scheme, tmp_path), is_two).verdict == verdict


def pay() -> Effect[None]:
    yield from log.append_once("payments", "1", "paid", 5)


def pay_blindly() -> Effect[None]:
    yield from log.append("payments", "paid", 5)


def is_paid_once(acked: Any, maybe: Any) -> Effect[None]:
    payments = yield from log.read("payments")
    assert len(payments) == 1, f"there are {len(payments)} payments"


@pytest.mark.exploration
@pytest.mark.parametrize("scheme", ["sqlite", "postgresql", "nats"])
@pytest.mark.parametrize(("program", "verdict"), [(pay_blindly, "failed"), (pay, "passed")])
def test_a_write_that_is_doubled_after_a_fault_is_found_on_a_database_too(
    scheme: str, program: Any, verdict: str, tmp_path: Path
) -> None:
    assert explore_effects(program, factory_of(scheme, tmp_path), is_paid_once).verdict == verdict
