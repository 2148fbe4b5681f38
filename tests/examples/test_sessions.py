"""The example `examples/sessions.py`: what it prints, when a session is over, and that no renewal is swept away."""

import sys

import pytest
from beside import in_thread
from places import EXAMPLES
from served_stores import until

from interpreters import Store, open_store
from interpreters.explore import explore, explore_crashes, explore_effects, simulate
from interpreters.stores.memory import MemoryStore
from persist_effects import Request, StoreClosed, all_of, kv, perform, sleep
from persist_effects.requests import PAGE_SIZE, Answered, KvDelete, KvPut, Now

sys.path.insert(0, str(EXAMPLES))

import sessions

LIFE = sessions.LIFE_SECONDS
URLS = ["memory:", "file:{}/store", "sqlite:{}/store.db"]
TRANSCRIPT = """\
logged in: ada
renewed: True
swept: 0
logged out: True
then: None
renewed: False
"""


class MovedClock:
    """A clock that a test moves."""

    def __init__(self):
        self.micros = 1_700_000_000_000_000

    def __call__(self):
        return self.micros

    def move(self, seconds):
        self.micros += int(seconds * 1_000_000)


@pytest.mark.parametrize("url", [*URLS, "spawn:memory:"])
def test_it_prints_this(tmp_path, capsys, url):
    sessions.main(url.format(tmp_path))
    assert capsys.readouterr().out == TRANSCRIPT


@pytest.mark.parametrize("url", URLS)
def test_a_session_is_over_when_it_says_so_whether_or_not_it_was_swept(tmp_path, url):
    clock = MovedClock()
    with open_store(url.format(tmp_path), clock=clock) as store:
        name = store.run(sessions.log_in("ada"))
        clock.move(LIFE - 0.000001)
        assert store.run(all_of(sessions.user_of(name), sessions.sweep())) == ("ada", 0)
        clock.move(0.000001)
        assert store.run(all_of(sessions.user_of(name), sessions.renew(name))) == (None, False)
        assert store.run(kv.keys(sessions.PREFIX)) == [sessions.PREFIX + name]
        assert store.run(sessions.sweep()) == 1
        assert store.run(kv.keys()) == []


def test_a_renewal_makes_it_last_from_then_on():
    clock = MovedClock()
    with open_store("memory:", clock=clock) as store:
        name = store.run(sessions.log_in("ada"))
        for _ in range(3):
            clock.move(LIFE - 1)
            assert store.run(sessions.renew(name))
        clock.move(LIFE)
        assert store.run(sessions.user_of(name)) is None


def test_a_sweep_goes_through_all_pages_and_leaves_what_lasts_and_what_is_no_session():
    clock = MovedClock()
    with open_store("memory:", clock=clock) as store:
        store.run(kv.put("other/key", {"expires": 0}))
        store.run_many([sessions.log_in(f"early {number}") for number in range(2 * PAGE_SIZE + 3)])
        clock.move(LIFE)
        late = store.run_many([sessions.log_in(f"late {number}") for number in range(PAGE_SIZE)])
        assert store.run(sessions.sweep()) == 2 * PAGE_SIZE + 3
        assert store.run(sessions.sweep()) == 0
        assert store.run(kv.keys()) == ["other/key", *sorted(sessions.PREFIX + name for name in late)]


class Tick(Request[None], frozen=True, tag="sessions/tick"):
    """Time passes: a session that lasted is over."""


def expiring(interpreter=None):
    """A store with one session, which is over once somebody has asked for a `Tick`."""
    clock = MovedClock()
    rows = {Now: lambda request: clock(), Tick: lambda request: clock.move(1)}
    store = Store(MemoryStore() if interpreter is None else interpreter, effects=rows)
    store.run(kv.put(sessions.PREFIX + "s", {"user": "ada", "expires": clock() + 1_000_000}))
    return store


def renew():
    return (yield from sessions.renew("s"))


def sweep():
    return (yield from sessions.sweep())


def tick():
    yield from perform(Tick())


RACES = {
    "a renewal and a sweep": {"time": tick, "renew": renew, "sweep": sweep},
    "two sweeps": {"time": tick, "one": sweep, "two": sweep},
    "a renewal among two sweeps": {"time": tick, "renew": renew, "one": sweep, "two": sweep},
    "two renewals": {"time": tick, "one": renew, "two": renew},
}


def exactly_one_counts(outcomes):
    """A session that somebody was told to last is there, and one that is not there was swept by one."""
    values = [each.value for each in outcomes]
    was_renewed, swept = any(value is True for value in values), sum(value for value in values if type(value) is int)
    is_there = yield from kv.has(sessions.PREFIX + "s")
    assert is_there or not was_renewed, "it was renewed, and then swept away"
    assert swept == (0 if is_there else 1), f"{swept} were swept, and it is {'' if is_there else 'not '}there"


@pytest.mark.exploration
@pytest.mark.parametrize("race", RACES)
def test_whenever_time_passes_exactly_one_counts(race):
    report = explore(RACES[race], expiring, exactly_one_counts)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report
    assert report.checked > 10


class Careless:
    """A memory store that passes by what some of its writes expect."""

    def __init__(self, kind, without):
        inner = MemoryStore()
        row = inner.handlers[kind]
        self.handlers, self.close = {**inner.handlers, kind: lambda asked: row(without(asked))}, inner.close


MUTANTS = {
    "a sweep that expects nothing": lambda: Careless(KvDelete, lambda asked: KvDelete(asked.key)),
    "a renewal that expects nothing": lambda: Careless(KvPut, lambda asked: KvPut(asked.key, asked.value)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_exploration_catches(name):
    report = explore(RACES["a renewal and a sweep"], lambda: expiring(MUTANTS[name]()), exactly_one_counts)
    assert report.verdict == "failed"


def test_who_keeps_sweeping_ends_with_its_store():
    clock = MovedClock()
    store = open_store("memory:", clock=clock)
    store.run(sessions.log_in("ada"))
    clock.move(LIFE)
    end = in_thread(lambda: store.run(sessions.keep_sweeping()))
    until(lambda: store._sleepers.sleeping)
    assert store.run(kv.keys()) == []
    store.close()
    assert isinstance(end(), StoreClosed)


def test_a_month_of_sweeping_takes_no_time():
    def month():
        name = yield from sessions.log_in("ada")
        for _ in range(30 * 24 * 2):
            yield from sleep(LIFE / 2)
            yield from sleep(LIFE / 2 - 1)
            assert (yield from sessions.renew(name))
        return (yield from sessions.user_of(name))

    def sweeping():
        for _ in range(30 * 24 * 12):
            yield from sessions.sweep()
            yield from sleep(sessions.SWEEP_SECONDS)

    with open_store("memory:") as store:
        done = simulate({"month": month, "sweeping": sweeping}, store, seed=1)
    assert done.outcomes == (Answered("ada"), Answered(None))
    assert done.seconds >= 29 * 86_400


def whole_visit():
    yield from sessions.visit()


def nothing_is_half(acked, maybe):
    for _, entry in (yield from kv.entries(sessions.PREFIX)):
        assert entry.value.keys() == {"user", "expires"}
    yield from sessions.sweep()


@pytest.mark.exploration
def test_no_crash_and_no_fault_leaves_half_a_session():
    assert explore_crashes(whole_visit, nothing_is_half).verdict == "passed"
    report = explore_effects(whole_visit, lambda: open_store("memory:"), nothing_is_half)
    assert report.verdict == "passed", report
