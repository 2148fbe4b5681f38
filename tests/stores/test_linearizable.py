"""What threads on several open stores are answered, while they really overlap, could have been done one by one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import nats_cluster
import postgres_server
import pytest
from histories import learn

from interpreters import open_store
from interpreters.explore import Observed
from persist_effects import Draft
from persist_effects.requests import Append, KvDelete, KvGet, KvPut, LastSeq, Read

WRITERS = 16
OPERATIONS = 6
STREAMS = ("orders/1", "orders/2", "notes")
KEYS = ("color", "shape", "size", "taste")


def url_of(scheme: str, tmp_path: Path) -> str:
    servers = {"postgresql": postgres_server, "nats": nats_cluster}
    return servers[scheme].new_store_url() if scheme in servers else f"{scheme}:{tmp_path}/store"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("scheme", "stores"), [("file", 1), ("sqlite", 1), ("sqlite", 4), ("postgresql", 4), ("nats", 1), ("nats", 4)]
)
def test_overlapping_operations_on_a_stream_or_a_key_could_have_been_done_one_by_one(scheme, stores, seed, tmp_path):
    found = overlapping(url_of(scheme, tmp_path), stores, seed).linearity()
    assert found.verdict == "linearizable", f"seed {seed}, {scheme}: {found}"
    assert f"{WRITERS * OPERATIONS} operations in {len(STREAMS) + len(KEYS)} parts" in found.found


def overlapping(url: str, stores: int, seed: int) -> Observed:
    """What many threads did on some stores."""
    observed = Observed()
    opened = [open_store(url) for _ in range(stores)]
    barrier = threading.Barrier(WRITERS)

    def work(writer: int) -> None:
        random = Random(f"{seed} {writer}")
        rows = observed.rows(f"writer {writer}", opened[writer % stores].handlers)
        known: dict[str, int] = {}
        barrier.wait()
        for _ in range(OPERATIONS):
            request = chosen(random, writer, known)
            learn(known, request, rows[type(request)](request))

    with ThreadPoolExecutor(WRITERS) as threads:
        for done in [threads.submit(work, writer) for writer in range(WRITERS)]:
            done.result()
    for store in opened:
        store.close()
    return observed


def chosen(random: Random, writer: int, known: dict[str, int]) -> Any:
    """An operation, which sometimes expects what its thread has seen last."""
    stream, key = random.choice(STREAMS), random.choice(KEYS)
    expected = random.choice([None, known.get(stream, 0)])
    revision = random.choice([None, known.get(key, 0)])
    drafts = (Draft("made", [writer, random.randrange(100)]),) * random.choice([1, 1, 2])
    return random.choice(
        [
            Append(stream, drafts, expected),
            KvPut(key, [writer, random.randrange(100)], revision),
            KvDelete(key, revision),
            Read(stream, after=known.get(stream, 0)),
            LastSeq(stream),
            KvGet(key),
        ]
    )
