"""Which host runs a flow: leases, what becomes of flows whose host is gone, and hosts that come back late."""

from contextlib import suppress
from threading import Event as Flag

import pytest
from served_stores import until
from server_processes import server_process

from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from interpreters.runtime.flows.leases import Leases
from persist_effects import Append, Draft, flow, kv, log
from persist_effects.errors import InvalidRequest, StoreClosed, StoreUnavailable, UncertainOutcome
from persist_effects.flow import journal
from persist_effects.requests import Conflict, KvGet, KvKeys, KvPut, Read, Transact

PATIENCE_SECONDS = 60
LONG_SECONDS = 10_000.0
"""A lease that does not end while a test waits."""


@pytest.fixture(params=["sqlite", "file", "memory"])
def url(request, tmp_path):
    return {"sqlite": f"sqlite:{tmp_path / 'db'}", "file": f"file:{tmp_path / 'store'}"}.get(request.param, "memory:")


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def shared(tmp_path):
    """A store that several processes may use."""
    url = f"sqlite:{tmp_path / 'shared'}"
    with open_store(url) as opened:
        opened.url = url
        yield opened


class Site:
    """An activity that says when it is run, and by which host, and ends when it is told to, or at once."""

    def __init__(self, name, *, waits=False):
        self.name, self.began, self.goes_on, self.runs = name, Flag(), Flag(), 0
        if not waits:
            self.goes_on.set()

    def host(self, store, seconds=LONG_SECONDS):
        @flow.activity(name="work")
        def work() -> str:
            self.runs += 1
            self.began.set()
            assert self.goes_on.wait(PATIENCE_SECONDS)
            return self.name

        return FlowHost(store, flows=[working, waiting], activities=[work], lease_seconds=seconds)


@flow.activity(name="work")
def asked_work() -> str:
    raise AssertionError("a host has its own")


def working():
    by = yield from flow.call(asked_work)
    yield from log.append("effects", "worked", by)
    return by


def waiting():
    return (yield from flow.signal("go"))


def owner(store, flow_id):
    return store.run(kv.get(journal.OPEN + flow_id))["owner"]


def effects(store):
    return [event.data for event in store.run(log.read("effects"))]


# Hosts that end


def test_a_host_that_is_closed_gives_its_flows_to_the_other_at_once(store):
    first, second = Site("first", waits=True), Site("second")
    with first.host(store) as one, second.host(store) as other:
        one.start(working, "w")
        assert first.began.wait(PATIENCE_SECONDS)
        one.close()
        # The lease would have lasted for hours.
        assert other.result("w", PATIENCE_SECONDS) == "second"
        first.goes_on.set()
    assert effects(store) == ["second"]


def test_a_host_leaves_alone_what_another_one_of_its_process_runs(store):
    first, second = Site("first", waits=True), Site("second")
    with first.host(store) as one:
        one.start(working, "w")
        assert first.began.wait(PATIENCE_SECONDS)
        with second.host(store) as other:
            other.start(working, "own")
            assert other.result("own", PATIENCE_SECONDS) == "second"
            assert owner(store, "w") == one.token
            first.goes_on.set()
            assert other.result("w", PATIENCE_SECONDS) == "first"
    assert (first.runs, second.runs) == (1, 1)


def test_a_host_that_came_and_went_between_two_looks_leaves_no_flow_behind(shared):
    second = Site("second")
    with second.host(shared) as other:
        first = Site("first", waits=True)
        with first.host(shared) as one:
            one.start(working, "w")
            assert first.began.wait(PATIENCE_SECONDS)
        assert other.result("w", PATIENCE_SECONDS) == "second"
        first.goes_on.set()


def test_a_host_whose_thread_fails_gives_its_flows_to_others(shared, monkeypatch):
    first, second = Site("first", waits=True), Site("second")
    one = first.host(shared)
    with second.host(shared) as other:
        one.start(working, "w")
        assert first.began.wait(PATIENCE_SECONDS)
        one._tell(_fail)
        assert other.result("w", PATIENCE_SECONDS) == "second"
        first.goes_on.set()
    one.close()


def _fail():
    raise StoreClosed("as where the store is closed before its host")


@pytest.mark.parametrize("fails", [False, True], ids=["closed", "failed"])
def test_a_host_that_does_nothing_any_more_begins_no_flow(store, fails):
    host = Site("gone").host(store)
    if fails:
        host._tell(_fail)
        assert host._ended.wait(PATIENCE_SECONDS)
    else:
        host.close()
    with pytest.raises(InvalidRequest, match="begin it with another"):
        host.start(working, "w")
    with pytest.raises(InvalidRequest, match="begin it with another"):
        host.start_many(working, {"w": ()})
    assert store.run(flow.listing()) == []
    host.close()


# Hosts that die


def die_after_beginning(store, flow_id, seconds):
    """What a host leaves behind that has begun a flow and is killed. Returns its token."""
    token = flow_id.encode()
    store.run(kv.put(journal.HOST + token.hex(), seconds))
    store.run(flow.begin(flow_id, working, token=token))
    return token


def test_the_flows_of_a_dead_host_are_taken_over_after_its_lease_and_not_before(shared):
    lasting = die_after_beginning(shared, "lasting", LONG_SECONDS)
    die_after_beginning(shared, "short", 0.1)
    site = Site("heir")
    with site.host(shared, 0.1) as host:
        assert host.result("short", PATIENCE_SECONDS) == "heir"
        assert owner(shared, "lasting") == lasting
    assert site.runs == 1


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def leases(store, token, clock, lost=None):
    return Leases(store, token, LONG_SECONDS, lambda: None, lost or (lambda _: None), clock=clock)


def test_a_lease_is_taken_away_when_it_was_not_renewed_for_a_whole_term_since_it_was_first_seen(shared, clock):
    dead, living = leases(shared, b"dead", clock), leases(shared, b"living", clock)
    clock.now = 5 * LONG_SECONDS
    living.renew()
    clock.now = 6 * LONG_SECONDS
    living.renew()
    assert living.alive() == {b"dead", b"living"}
    clock.now += 1
    living.renew()
    assert living.alive() == {b"living"}
    dead.close()
    living.close()


def test_a_lease_that_is_renewed_is_never_taken_away(shared, clock):
    one, other = leases(shared, b"one", clock), leases(shared, b"other", clock)
    for _ in range(10):
        other.renew()
        clock.now += LONG_SECONDS
        one.renew()
        other.renew()
    assert other.alive() == {b"one", b"other"}
    one.close()
    other.close()


def test_a_taker_that_stood_still_between_its_look_and_its_clock_takes_nothing_that_was_renewed(shared, clock):
    one, other = leases(shared, b"one", clock), leases(shared, b"other", clock)
    other.renew()
    in_between = {Transact: shared.handlers[Transact]}

    def renewed_first(request):
        one.renew()
        return in_between[Transact](request)

    clock.now += 2 * LONG_SECONDS
    shared.handlers = {**shared.handlers, Transact: renewed_first}
    other.renew()
    shared.handlers = {**shared.handlers, **in_between}
    assert other.alive() == {b"one", b"other"}
    one.close()
    other.close()


def test_a_lease_is_renewed_while_an_activity_takes_long(shared):
    site = Site("busy", waits=True)
    with site.host(shared, 0.5) as host:
        host.start(working, "w")
        assert site.began.wait(PATIENCE_SECONDS)
        key = journal.HOST + owner(shared, "w").hex()
        revision = shared.run(kv.entry(key)).revision
        for _ in range(5):
            newer = shared.run(kv.wait(revision, key, PATIENCE_SECONDS))
            assert newer > revision
            revision = newer
        site.goes_on.set()
        assert host.result("w", PATIENCE_SECONDS) == "busy"


# Hosts that come back


def take_away(store, token):
    """As another host does that has seen no sign of life for a term."""
    key = journal.HOST + token.hex()
    host = Leases(store, b"taker", LONG_SECONDS, lambda: None, lambda _: None)
    assert not isinstance(host.take_away(key, store.run(kv.entry(key)).revision), Conflict)
    host.close()


def test_a_host_whose_lease_was_taken_away_lets_go_and_writes_nothing(shared):
    late, quick = Site("late", waits=True), Site("quick", waits=True)
    with late.host(shared) as one, quick.host(shared) as other:
        one.start(working, "w")
        assert late.began.wait(PATIENCE_SECONDS)
        before = one.token
        take_away(shared, before)
        assert quick.began.wait(PATIENCE_SECONDS)
        late.goes_on.set()
        one._leases.renew()
        # What it begins before it is known by its new name is anybody's.
        until(lambda: one.token != before)
        one.start(working, "own")
        assert one.result("own", PATIENCE_SECONDS) == "late"
        assert one.token != before
        assert "w" not in one._loop.held
        assert owner(shared, "w") == other.token
        quick.goes_on.set()
        assert one.result("w", PATIENCE_SECONDS) == "quick"
    assert effects(shared) == ["late", "quick"]


def test_a_host_that_comes_back_before_others_took_its_flows_takes_them_itself(shared):
    site = Site("only")
    with site.host(shared) as host:
        host.start(waiting, "w")
        take_away(shared, host.token)
        host._leases.renew()
        host.signal("w", "go", 7)
        assert host.result("w", PATIENCE_SECONDS) == 7


def answering(store, kind, row):
    """Have a store answer requests of a kind by a row, which is given the one that it had."""
    had = store.handlers[kind]
    store.handlers = {**store.handlers, kind: lambda request: row(had, request)}


def entries_in(request):
    return [each for each in request.writes if isinstance(each, Append) and each.stream == journal.journal_of("w")]


def test_a_flow_to_which_a_dead_host_has_written_late_is_not_left_behind(shared):
    shared.run(flow.begin("w", working, token=b"dead"))
    late = [Draft(journal.STEPS, {"token": b"dead", "steps": journal.encode_steps([])})]
    with open_store(shared.url) as own:

        def late_first(had, request):
            if entries_in(request) and late:
                shared.run(log.append("flow/w", journal.STEPS, late.pop().data))
            return had(request)

        answering(own, Transact, late_first)
        with Site("heir").host(own) as host:
            assert host.result("w", PATIENCE_SECONDS) == "heir"
    assert not late


def claim(store, flow_id):
    """As a host does that takes over a flow."""
    standing = store.run(kv.get(journal.OPEN + flow_id))
    claimed = Append(journal.journal_of(flow_id), (Draft(journal.CLAIMED, {"token": b"quick"}),))
    put = KvPut(journal.OPEN + flow_id, {**standing, "owner": b"quick"})
    store.handlers[Transact](Transact((claimed, put)))


@pytest.mark.parametrize("seen", [KvGet, Read], ids=["when its key was read", "before its journal is read"])
def test_a_flow_that_another_host_has_taken_in_the_meantime_is_not_taken_from_it(shared, seen):
    shared.run(kv.put(journal.HOST + b"quick".hex(), LONG_SECONDS))
    is_taken, site = Flag(), Site("slow")

    def taken_meanwhile(had, request):
        answer = had(request) if seen is KvGet else None
        if not is_taken.is_set() and "w" in (
            getattr(request, "stream", "/").removeprefix(journal.JOURNAL),
            key_of(request),
        ):
            is_taken.set()
            claim(shared, "w")
        return had(request) if answer is None else answer

    with open_store(shared.url) as own:
        answering(own, seen, taken_meanwhile)
        with site.host(own) as host:
            shared.run(flow.begin("w", working))
            assert is_taken.wait(PATIENCE_SECONDS)
            host.start(working, "own")
            assert host.result("own", PATIENCE_SECONDS) == "slow"
    assert owner(shared, "w") == b"quick"
    assert site.runs == 1


def test_a_flow_that_another_host_took_while_the_store_was_away_is_not_taken_from_it(shared):
    shared.run(kv.put(journal.HOST + b"quick".hex(), LONG_SECONDS))
    is_taken, is_seen, site = Flag(), Flag(), Site("slow")

    def away(had, request):
        if request.stream == journal.journal_of("w") and not is_taken.is_set():
            claim(shared, "w")
            is_taken.set()
            raise StoreUnavailable("it is away")
        return had(request)

    def seen(had, request):
        if key_of(request) == "w" and is_taken.is_set():
            is_seen.set()
        return had(request)

    with open_store(shared.url) as own:
        answering(own, Read, away)
        answering(own, KvGet, seen)
        with site.host(own) as host:
            shared.run(flow.begin("w", working))
            assert is_seen.wait(PATIENCE_SECONDS)
            host.start(working, "own")
            assert host.result("own", PATIENCE_SECONDS) == "slow"
    assert owner(shared, "w") == b"quick"
    assert site.runs == 1


def key_of(request):
    return getattr(request, "key", "").removeprefix(journal.OPEN)


def test_a_flow_of_a_host_that_comes_while_another_looks_is_left_alone(shared):
    is_there, site = Flag(), Site("slow")

    def quick_after(had, request):
        answer = had(request)
        if request.prefix == journal.HOST and not is_there.is_set():
            is_there.set()
            shared.run(kv.put(journal.HOST + b"quick".hex(), LONG_SECONDS))
            shared.run(flow.begin("w", working, token=b"quick"))
        return answer

    with open_store(shared.url) as own:
        answering(own, KvKeys, quick_after)
        with site.host(own) as host:
            assert is_there.wait(PATIENCE_SECONDS)
            host.start(working, "own")
            assert host.result("own", PATIENCE_SECONDS) == "slow"
    assert owner(shared, "w") == b"quick"
    assert site.runs == 1


def test_a_flow_that_a_host_began_while_its_lease_was_taken_away_is_its_own_under_its_new_token(shared):
    site = Site("late", waits=True)
    with open_store(shared.url) as own, site.host(own) as host:

        def taken_away_then(had, request):
            answer = had(request)
            if entries_in(request) and not is_taken.is_set():
                is_taken.set()
                shared.run(kv.delete(journal.HOST + host.token.hex()))
                host._leases.renew()
                goes_on.set()
            return answer

        is_taken, goes_on = Flag(), Flag()
        before = host.token
        answering(own, Transact, taken_away_then)
        # Else its first look may find the flow and begin it under the old token.
        host._tell(lambda: goes_on.wait(PATIENCE_SECONDS))
        host.start(working, "w")
        assert site.began.wait(PATIENCE_SECONDS)
        assert owner(shared, "w") == host.token != before
        site.goes_on.set()
        assert host.result("w", PATIENCE_SECONDS) == "late"


# The store is away


def test_flows_go_on_after_the_store_was_away_and_a_host_can_be_closed_while_it_is():
    site = Site("patient", waits=True)
    with server_process() as server, open_store(server.hasty_url) as store:
        host = site.host(store, 1.0)
        host.start(working, "w")
        host.start(waiting, "s")
        assert site.began.wait(PATIENCE_SECONDS)
        server.kill()
        site.goes_on.set()

        def is_told() -> bool:
            # By a client that may have given up a moment ago, and has not found the new server yet.
            with suppress(StoreUnavailable, UncertainOutcome):
                # One of which nobody knew whether it came may have ended it.
                with suppress(flow.NoSuchFlow):
                    host.signal("s", "go", 7)
                return True
            return False

        until(is_told)
        assert host.result("w", PATIENCE_SECONDS) == "patient"
        assert host.result("s", PATIENCE_SECONDS) == 7
        server.close()
        host.close()
