"""What threads on several open stores are answered, while they really overlap, could have been done one by one.

A history is split by what its operations touch, a stream or a key each: it is linearizable if every part is.
"""

import threading
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import nats_cluster
import postgres_server
import pytest
from histories import learn, problem_of, step

from interpreters import open_store
from persist_effects import Draft
from persist_effects.requests import Answered, Append, Failed, KvDelete, KvGet, KvPut, LastSeq, Outcome, Read

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
    history = overlapping(url_of(scheme, tmp_path), stores, seed)
    assert len(history) == WRITERS * OPERATIONS
    for name in (*STREAMS, *KEYS):
        problem = problem_of([each for each in history if name_in(each.request) == name])
        assert problem is None, f"seed {seed}, {scheme}, {name}: {problem}"


def name_in(request: Any) -> str:
    return str(getattr(request, "stream", None) or request.key)


def overlapping(url: str, stores: int, seed: int) -> list[Any]:
    """What many threads did on some stores: each operation with the moments at which it began and ended."""
    ticks, history = count(1), list[Any]()
    opened = [open_store(url) for _ in range(stores)]
    barrier = threading.Barrier(WRITERS)

    def work(writer: int) -> None:
        random, handlers = Random(f"{seed} {writer}"), opened[writer % stores].handlers
        known: dict[str, int] = {}
        barrier.wait()
        for ordinal in range(OPERATIONS):
            request = chosen(random, writer, known)
            began = next(ticks)
            outcome = outcome_of(handlers, request)
            ended = next(ticks)
            assert isinstance(outcome, Answered), outcome
            learn(known, request, outcome.value)
            history.append(step((began, ended), request, outcome, (writer, ordinal)))

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in opened:
        store.close()
    return history


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


def outcome_of(handlers: Any, request: Any) -> Outcome:
    try:
        return Answered(handlers[type(request)](request))
    except Exception as error:
        return Failed(error)
