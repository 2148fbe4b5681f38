"""Many processes on one store whose server is killed again and again: what they are answered could have been done.

Each operation at one moment between its request and its answer; one whose outcome is uncertain at any moment after its
request, or never. What is acknowledged is there once, and who follows sees all of it in order.

``KILL_SERVED_SECONDS`` says how long it goes on, without which the server is killed ``KILLS`` times;
``KILL_SERVED_SEED`` draws what is asked.
"""

import os
from itertools import count
from random import Random

import pytest
from agents import shared_agent
from killing import judge_while_killed
from overlapping import GROUPS, Client, keys_of, problems_in, tally_of
from server_processes import server_process

from interpreters.explore.schedule import linear
from interpreters.stores.rewinding import RewindableStore
from persist_effects import StoreUnavailable, UncertainOutcome, log, run
from persist_effects.requests import CHANGES, KvGet, Transact

SECONDS = float(os.environ.get("KILL_SERVED_SECONDS", "0"))
SEED = int(os.environ.get("KILL_SERVED_SEED", "0"))
KILLS = 4


@pytest.mark.exploration
@pytest.mark.parametrize(("server_of", "clients"), [(server_process, 16), (shared_agent, 4)], ids=["served", "shared"])
def test_what_many_processes_are_answered_while_the_server_is_killed_could_have_been_done_one_by_one(
    tmp_path, server_of, clients
):
    much = {"seconds": SECONDS} if SECONDS else {"kills": KILLS}
    with server_of() as server:
        print(judge_while_killed(server, tmp_path, seed=SEED, clients=clients, **much))


# What the judgement catches


class Mortal:
    """A memory store whose server dies at every so many writes, in each way that may be."""

    def __init__(self) -> None:
        self.store = RewindableStore()
        self.rows = self.store.handlers
        self._count = count(1)
        self.before = 0
        self.handlers = {kind: self._write if kind in CHANGES else self.read for kind in self.rows}

    def _write(self, request):
        number = next(self._count)
        if number % 20 == 0:
            return self.die(request, number // 20 % 3)
        self.before = self.store.mark()
        return self.rows[type(request)](request)

    def die(self, request, way):
        if way == 0:
            raise StoreUnavailable("the server is gone, and nothing was written")
        if way == 1:
            self.rows[type(request)](request)
        raise UncertainOutcome("the server is gone")

    def read(self, request):
        return self.rows[type(request)](request)


class Forgetful(Mortal):
    """What it acknowledged last is lost when it dies."""

    def die(self, request, way):
        self.store.rewind(self.before)
        return super().die(request, way)


class Eager(Mortal):
    """What was on its way is written twice."""

    def die(self, request, way):
        if way == 1:
            self.rows[type(request)](request)
        return super().die(request, way)


class Unsure(Mortal):
    """What it says was not written is."""

    def die(self, request, way):
        if way == 0:
            self.rows[type(request)](request)
        return super().die(request, way)


class Torn(Mortal):
    """Of a transaction that was on its way there is half."""

    def die(self, request, way):
        return super().die(request.writes[0] if isinstance(request, Transact) else request, way)


class Late(Mortal):
    """Reads are answered from before the last time that it died, the first time after it."""

    stale = None

    def die(self, request, way):
        self.stale = {key: self.rows[KvGet](KvGet(key)) for group in range(GROUPS) for key in keys_of(group)}
        return super().die(request, way)

    def read(self, request):
        if isinstance(request, KvGet) and self.stale and request.key in self.stale:
            return self.stale.pop(request.key)
        return super().read(request)


def problems_of(server):
    random, asked = Random(SEED), []
    clients = [Client(server.handlers, SEED, number, asked.append) for number in range(6)]
    for _ in range(3_000):
        random.choice(clients).ask_something()
    Client(server.rows, SEED, len(clients), asked.append).look()
    tally = tally_of(asked)
    assert min(tally.uncertain, tally.unavailable) > 20
    return problems_in(asked, run(log.read_all(), server.rows))


@pytest.fixture
def few_tries(monkeypatch):
    """Enough for one that does what it may; one that is wrong in many places is not searched for minutes."""
    monkeypatch.setattr(linear, "TRIES", 2_000)


@pytest.mark.usefixtures("few_tries")
def test_a_store_that_dies_as_it_may_passes():
    assert problems_of(Mortal()) == []


@pytest.mark.usefixtures("few_tries")
@pytest.mark.parametrize("wrong", [Forgetful, Eager, Unsure, Torn, Late])
def test_a_store_that_does_something_wrong_when_it_dies_is_found(wrong):
    assert problems_of(wrong()) != []
