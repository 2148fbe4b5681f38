"""Flows, hosts that run them, and others that tell them things: programs that meet on one store, and what must hold.

What an activity does outside is a write to the store here, so that the explorers see it, and strike at it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from interpreters import Store
from interpreters.explore import explore, explore_effects
from interpreters.explore.report import Report
from interpreters.explore.virtual import START_MICROSECONDS
from interpreters.stores.memory import MemoryStore
from persist_effects import Append, Draft, flow, kv, log
from persist_effects.clock import new_id, now, sleep
from persist_effects.errors import (
    FlowExists,
    FlowFailed,
    NoSuchFlow,
    OwnershipLost,
    StoreUnavailable,
    UncertainOutcome,
)
from persist_effects.flow import journal
from persist_effects.flow.conducting import CLAIMS_LIMIT
from persist_effects.flow.defining import activities_by_name
from persist_effects.flow.requests import Await, Came, Started
from persist_effects.machine import perform, through
from persist_effects.requests import Conflict, Failed, KvPut, Transact, Wait

DAY = 86_400

PATIENCE_SECONDS = 100.0 * DAY
"""How long a host waits for mail where it has nothing else to do. In virtual time: until nobody else can go on."""

DEEP_LIMIT = 2_500
"""How many states with up to two faults are looked at, for each scene."""


ENDED = {journal.COMPLETED, journal.FAILED, journal.CANCELLED}


class Scene(NamedTuple):
    """Programs, the store on which they meet, and the check in the end.

    ``depth``: with how many faults at most they are struck, run one after the other; 0: not so. ``bound``: how many
    switches there are at most where they run side by side; None: they do not. ``ends``: then the flow ends, without
    that anyone takes it up again.
    """

    programs: Sequence[Callable[[], Any]]
    store: Callable[[], Store]
    check: Callable[[], Any]
    depth: int = 1
    bound: int | None = None
    crashes: bool = False
    ends: bool = False
    limit: int | None = None
    reduce: bool = True

    def struck(self, depth: int = 1) -> Report:
        """Each fault at each request, and started anew."""

        def check(acked: Any, maybe: Any) -> Any:
            yield from self.check()

        limit = None if depth == 1 else DEEP_LIMIT
        return explore_effects([*self.programs], self.store, check, depth=depth, requests_limit=2_000, limit=limit)

    def side_by_side(self) -> Report:
        """Every interleaving up to the bound."""

        def check(outcomes: Any) -> Any:
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    raise outcome.error
            if self.ends:
                # And not only once another host has taken it up.
                became = [outcome.value for outcome in outcomes]
                assert set(became) & ENDED, f"the flow did not end: {became}"
            yield from self.check()

        return explore(
            [*self.programs],
            self.store,
            check,
            bound=self.bound,
            crashes=self.crashes,
            limit=self.limit,
            reduce=self.reduce,
            requests_limit=2_000,
        )


# Activities: what each does outside

OUTSIDE = "outside"


def noted_outside(*what: Any) -> Append:
    """The write that is what an activity does outside."""
    return Append(OUTSIDE, (Draft("did", list(what)),))


@flow.activity(repeat="keyed")
def charge(order: Any, *, key: str) -> Any:
    return noted_outside("charge", order, key)


@flow.activity(repeat="keyed")
def charge_and_raise_prices(price: Any, *, key: str) -> Any:
    return Transact((noted_outside("charge", price, key), KvPut("price", price + 1)))


@flow.activity(repeat="keyed")
def reserve(order: Any, *, key: str) -> Any:
    return noted_outside("reserve", order, key)


@flow.activity(repeat="keyed")
def release(order: Any, *, key: str) -> Any:
    return noted_outside("release", order, key)


@flow.activity(repeat="keyed")
def refund(order: Any, *, key: str) -> Any:
    return noted_outside("refund", order, key)


@flow.activity(repeat="never")
def wire(order: Any, *, key: str) -> Any:
    return noted_outside("wire", order, key)


@flow.activity(repeat="keyed")
def refuse(order: Any, *, key: str) -> Any:
    raise ValueError(f"no money for {order}")


ACTIVITIES = activities_by_name([charge, charge_and_raise_prices, reserve, release, refund, wire, refuse])


# A host


class _NothingToDo(BaseException):
    """A host has nothing to do, and nobody tells it anything more. Not to be caught by a flow."""


class HostLife:
    """What a host knows of one flow that it has taken up: it is gone with it.

    Calls run in the order in which they were begun, ``at_once`` of them before the flow is told of any.
    """

    def __init__(self, flow_id: str, at_once: int, patience: float) -> None:
        self._inbox = journal.INBOX + flow_id
        self._at_once = at_once
        self._patience = patience
        self._position = 0
        self._calls: list[Started] = []
        self._timers: dict[tuple[int, ...], int] = {}

    def carry_out(self, request: Any) -> Any:
        """Answer a conductor."""
        if not isinstance(request, Await):
            return (yield from perform(request))
        self._calls = [each for each in self._calls if each.path not in request.withdrawn]
        for path in request.withdrawn:
            self._timers.pop(path, None)
        self._calls += request.calls
        self._timers.update((timer.path, timer.due) for timer in request.timers)
        return (yield from self._what_comes())

    def _what_comes(self) -> Any:
        if (yield from self._mail_came(0)):
            return [Came(())]
        if self._calls:
            came = []
            while self._calls and len(came) < self._at_once:
                came.append((yield from _run_call(self._calls.pop(0))))
            return came
        if not self._timers:
            if (yield from self._mail_came(self._patience)):
                return [Came(())]
            raise _NothingToDo
        return (yield from self._first_timer())

    def _first_timer(self) -> Any:
        due, path = min((due, path) for path, due in self._timers.items())
        left = (due - (yield from now())) / 1e6
        if left > 0:
            if (yield from self._mail_came(left)):
                return [Came(())]
            left = (due - (yield from now())) / 1e6
        if left > 0:
            yield from sleep(left)
        del self._timers[path]
        return [Came(path)]

    def _mail_came(self, seconds: float) -> Any:
        newest = yield from perform(Wait(self._position, self._inbox, seconds))
        before, self._position = self._position, max(newest, self._position)
        return self._position > before


def _run_call(started: Started) -> Any:
    call = started.call
    try:
        does = ACTIVITIES[call.activity].function(*call.args, key=started.key)
    except ValueError as error:
        return Came(started.path, error=error)
    yield from perform(does)
    return Came(started.path, f"{call.activity} done")


def serve(
    flow_id: str, *, at_once: int = 1, patience: float = PATIENCE_SECONDS, flows: flow.Flows | None = None
) -> Any:
    """A host that runs one flow until it has ended, is another's, or waits for what nobody tells it.

    As a host does, it takes the flow up again, once, where it could not reach the store. Returns what became of it.
    """
    token = bytes.fromhex((yield from new_id()).replace("-", ""))[-8:]
    trouble: Exception | None = None
    for _ in range(2):
        life = HostLife(flow_id, at_once, patience)
        conductor = flow.conduct(flow_id, flows or FLOWS, token)
        try:
            return (yield from through(conductor, life.carry_out, (Exception,))).state
        except _NothingToDo:
            return "waiting"
        except OwnershipLost:
            return "another's"
        except NoSuchFlow:
            return "ended"
        except (StoreUnavailable, UncertainOutcome) as error:
            trouble = error
    assert trouble is not None, "else it has returned"
    raise trouble


def serve_until_it_waits(flow_id: str, flows: flow.Flows | None = None, token: bytes = b"another.") -> Any:
    """A host that takes a flow up, and is gone when something is to be waited for. Returns what became of it."""

    def carry_out(request: Any) -> Any:
        if isinstance(request, Await):
            raise _NothingToDo
        return (yield from perform(request))

    try:
        return (yield from through(flow.conduct(flow_id, flows or FLOWS, token), carry_out, (Exception,))).state
    except _NothingToDo:
        return "waiting"


def serving(flow_id: str, **options: Any) -> Callable[[], Any]:
    def host() -> Any:
        return (yield from serve(flow_id, **options))

    host.__name__ = f"serve_{flow_id}"
    return host


def serve_all() -> Any:
    """Run all flows that go on, until none gets any further."""
    before = None
    while True:
        there = list((yield from flow.unended()))
        extent = (there, (yield from log.head("flow")))
        if extent == before:
            return
        before = extent
        for flow_id in there:
            yield from serve(flow_id, patience=0)


def sending_once(flow_id: str, name: str, *values: Any) -> Callable[[], Any]:
    """Sends signals to a flow that goes on, each once, also where it is started anew: it looks what is there."""

    def send() -> Any:
        for value in values:
            sent = [each.data for each in (yield from log.read(journal.INBOX + flow_id)) if each.type == "signal"]
            if {"name": name, "data": value} not in sent:
                try:
                    yield from flow.send(flow_id, name, value)
                except NoSuchFlow:
                    return "no such flow"
        return "sent"

    return send


def cancelling(flow_id: str) -> Callable[[], Any]:
    def cancel() -> Any:
        try:
            yield from flow.cancel(flow_id)
        except NoSuchFlow:
            return "no such flow"
        return "told"

    return cancel


# What holds of every flow


def journal_is_sound(flow_id: str) -> Any:
    """Of a flow that goes on: each step has one outcome, each message is taken once, and no host that lost it wrote."""
    tokens: list[bytes] = []
    ended: list[tuple[int, ...]] = []
    taken: list[int] = []
    for event in (yield from log.read(journal.journal_of(flow_id))):
        token = event.data.get("token", b"")
        if token and token != (tokens[-1] if tokens else None):
            tokens.append(token)
        if event.type == journal.STEPS:
            steps = journal.decode_steps(event.data["steps"])
            ended += [tuple(step.path) for step in steps if step.kind in (journal.ANSWER, journal.ERROR, journal.NOTED)]
            taken += [step.message for step in steps if step.message is not None]
    assert len(tokens) == len(set(tokens)), f"a host wrote after another one had taken {flow_id!r} over: {tokens}"
    assert len(ended) == len(set(ended)), f"steps of {flow_id!r} have two outcomes: {ended}"
    assert len(taken) == len(set(taken)), f"messages to {flow_id!r} were taken twice: {taken}"


def all_end(*told: tuple[str, str, Any]) -> Any:
    """Bring all flows to their ends, after they were told these signals, and look at what is left of them.

    Returns how each has ended, by its id.
    """
    for flow_id in (yield from flow.unended()):
        yield from journal_is_sound(flow_id)
    yield from serve_all()
    for flow_id, name, data in told:
        try:
            yield from flow.send(flow_id, name, data)
        except NoSuchFlow:
            continue
    yield from serve_all()
    stuck = [(each.flow_id, each.state) for each in (yield from flow.listing()) if each.ended is None]
    assert not stuck, f"flows are stuck: {stuck}"
    assert (yield from kv.keys(journal.DUE)) == [], "timers are left of flows that have ended"
    ends = {}
    for each in (yield from flow.listing()):
        (entry,) = yield from log.read(journal.journal_of(each.flow_id))
        assert entry.type == journal.ENDED, f"the past of {each.flow_id!r} was not dropped"
        ends[each.flow_id] = each.state
    yield from each_call_kept_its_key()
    return ends


def all_end_as(wanted: dict[str, str], *told: tuple[str, str, Any]) -> Any:
    ends = yield from all_end(*told)
    assert ends == wanted, f"flows have ended as {ends}, and should as {wanted}"


def result_is(wanted: Any) -> Any:
    found = yield from flow.result("f")
    assert found == wanted, f"its result is {found!r}, and should be {wanted!r}"


def each_call_kept_its_key() -> Any:
    """A call that was run again was given the same key and arguments, and no two calls have one key."""
    calls: dict[str, Any] = {}
    for what, args, key in (yield from outside()):
        assert calls.setdefault(key, (what, args)) == (what, args), f"{key} is the key of two calls"
    for call in calls.values():
        assert list(calls.values()).count(call) == 1, f"{call} was run with several keys: {calls}"


def outside() -> Any:
    return [event.data for event in (yield from log.read(OUTSIDE))]


def done_outside() -> Any:
    """What was done outside, in the order in which each was first done."""
    return list(dict.fromkeys(what for what, _, _ in (yield from outside())))


def written(stream: str) -> Any:
    return [event.data for event in (yield from log.read(stream))]


def is_written(stream: str, *wanted: Any) -> Any:
    found = yield from written(stream)
    assert found == list(wanted), f"{stream} holds {found}, and should hold {list(wanted)}"


def empty() -> Store:
    """An empty store, whose clock stands still when virtual time begins: events are as old as they can be."""
    return Store(MemoryStore(clock=lambda: START_MICROSECONDS))


def with_flow(code: Any, *args: Any, before: Sequence[Callable[[], Any]] = ()) -> Callable[[], Store]:
    """Makes stores on which a flow ``f`` was begun, by nobody who runs it, and these programs were run."""

    def make() -> Store:
        store = empty()
        store.run(flow.begin("f", code, *args))
        for program in before:
            store.run(program())
        return store

    return make


# Steps


def order(order_id: str) -> Any:
    """Its price rises with each time that it is charged: what was read must not be read again."""
    yield from log.append("orders", "placed", order_id)
    price = yield from kv.get_or("price", 5)
    receipt = yield from flow.call(charge_and_raise_prices, price)
    number = yield from flow.random()
    yield from kv.put("receipt", [receipt, number])
    paid = Append("orders", (Draft("paid", [price, receipt]),)), Append("ledger", (Draft("paid", price),))
    answers = yield from perform(Transact(paid))
    yield from log.append("orders", "numbered", [*(answer.last_seq for answer in answers), number])
    return receipt


def begin_order() -> Any:
    yield from flow.begin("f", order, "o-1")


def an_order_was_paid_once() -> Any:
    yield from all_end_as({"f": "completed"})
    price = (yield from outside())[0][1]
    _, number = yield from kv.get("receipt")
    done = "charge_and_raise_prices done"
    yield from is_written("orders", "o-1", [price, done], [2, 1, number])
    yield from is_written("ledger", price)
    yield from result_is(done)


def order_that_waits(order_id: str) -> Any:
    yield from log.append("orders", "placed", order_id)
    yield from flow.call(charge, order_id)
    yield from log.append("orders", "paid", order_id)
    return (yield from flow.signal("delivered"))


def one_host_wrote() -> Any:
    yield from all_end_as({"f": "completed"}, ("f", "delivered", 7))
    yield from is_written("orders", "o-1", "o-1")
    yield from result_is(7)


def take_a_seat() -> Any:
    answer = yield from log.append_expect("seat", 0, "taken", "flow")
    is_ours = not isinstance(answer, Conflict)
    yield from log.append("told", "told", "seated" if is_ours else "too late")
    return is_ours


def take_the_seat_first() -> Any:
    yield from log.append_expect("seat", 0, "taken", "other")


def a_seat_is_taken_once() -> Any:
    yield from all_end_as({"f": "completed"})
    is_ours = yield from flow.result("f")
    yield from is_written("told", "seated" if is_ours else "too late")
    taken = yield from written("seat")
    assert is_ours == (taken[:1] == ["flow"]), f"it was told {is_ours}, and {taken} has taken the seat"
    assert taken.count("flow") <= 1


# Signals


def approvals() -> Any:
    yield from log.append("said", "said", "begun")
    first = yield from flow.signal("ok")
    yield from log.append("said", "said", first)
    yield from flow.call(charge, first)
    second = yield from flow.signal("ok")
    yield from log.append("said", "said", second)
    return [first, second]


def both_were_heard() -> Any:
    yield from all_end_as({"f": "completed"}, ("f", "ok", 3), ("f", "ok", 4))
    yield from is_written("said", "begun", 1, 2)
    yield from result_is([1, 2])


def approved_in_time() -> Any:
    try:
        said = yield from flow.signal("ok", timeout=10)
    except TimeoutError:
        said = "nothing"
    yield from log.append("said", "said", said)
    return said


def send_at_the_last_moment() -> Any:
    yield from sleep(10)
    return (yield from sending_once("f", "ok", 1)())


def heard_or_late() -> Any:
    yield from all_end_as({"f": "completed"})
    said = yield from flow.result("f")
    assert said in (1, "nothing")
    yield from is_written("said", said)
    sent = [each.data for each in (yield from log.read(journal.INBOX + "f")) if each.type == "signal"]
    assert sent == [{"name": "ok", "data": 1}] or said == "nothing", sent


def items_until_stopped() -> Any:
    count = 0
    while True:
        place, value = yield from flow.first_of(flow.signal("item"), flow.signal("stop"))
        if place == 1:
            return count
        count += 1
        yield from log.append("said", "said", value)


def send_items_and_stop() -> Any:
    """Returns what the flow must have heard."""
    told = yield from sending_once("f", "item", 1, 2)()
    assert told == "sent", "it has ended before it was told to"
    yield from sending_once("f", "stop", None)()
    return (yield from sending_once("f", "item", 3)())


def all_items_were_heard() -> Any:
    yield from all_end_as({"f": "completed"})
    said = yield from written("said")
    # The third one came after it was stopped: it is there, be it read or not, or its sender knows that it is not.
    sent = [each.data["data"] for each in (yield from log.read(journal.INBOX + "f")) if each.type == "signal"]
    assert sent in ([1, 2, None, 3], [1, 2, None]), sent
    assert said == [1, 2] or said == [1, 2, 3] == [each for each in sent if each], f"{said} was heard of {sent}"


# Timers


def remind() -> Any:
    yield from flow.sleep(30 * DAY)
    began = yield from flow.now()
    place, _ = yield from flow.first_of(flow.signal("read"), flow.sleep(3600))
    said = ["read", "forgotten"][place]
    yield from log.append("said", "said", said)
    return [began, said]


def reminded_once() -> Any:
    yield from all_end_as({"f": "completed"})
    began, said = yield from flow.result("f")
    yield from is_written("said", said)
    assert said in ("read", "forgotten")
    assert began >= START_MICROSECONDS + 30 * DAY * 1_000_000, "it was woken before its time"


# Cancelling, and what is undone


def trip(order_id: str) -> Any:
    def body(saga: flow.Saga) -> Any:
        yield from saga.step(flow.call(reserve, order_id), lambda: flow.call(release, order_id))
        yield from saga.step(flow.call(charge, order_id), lambda: flow.call(refund, order_id))
        yield from log.append("trips", "booked", order_id)
        return (yield from flow.signal("leave", timeout=5))

    try:
        return (yield from flow.saga(body))
    except TimeoutError:
        yield from log.append("trips", "missed", order_id)
        return "missed"


def a_trip_is_whole_or_undone() -> Any:
    """What was done is undone in reverse, unless it went on to its end."""
    state = (yield from all_end())["f"]
    done = yield from done_outside()
    is_booked = (yield from written("trips")) != []
    if state == "completed" and (yield from flow.result("f")) != "missed":
        assert done == ["reserve", "charge"], done
        return
    undone = [each for each in done if each in ("refund", "release")]
    # One that was about to be done counts as done.
    assert undone in (["refund", "release"], ["release"], []), f"undone in the wrong order, or not: {done}"
    assert "charge" not in done or "refund" in undone, f"it was charged, and not refunded: {done}"
    assert "reserve" not in done or "release" in undone, f"it was reserved, and not released: {done}"
    assert not is_booked or undone == ["refund", "release"], f"it was booked, and what was undone is {undone}"


def was_cancelled_and_undone() -> Any:
    yield from a_trip_is_whole_or_undone()
    assert (yield from flow.status("f")).state == "cancelled"


def leaving(order_id: str) -> Any:
    """Ends at the message before the one that cancels it."""

    def body(saga: flow.Saga) -> Any:
        yield from saga.step(flow.call(reserve, order_id), lambda: flow.call(release, order_id))
        return (yield from flow.signal("leave"))

    return (yield from flow.saga(body))


def a_place_is_kept_or_released() -> Any:
    state = (yield from all_end(("f", "leave", 9)))["f"]
    released = "release" in (yield from done_outside())
    assert released == (state == "cancelled"), f"it has {state}, and its place was {'' if released else 'not '}released"


# Branches


def paid_branch() -> Any:
    try:
        yield from flow.call(charge, "o-1")
        yield from log.append("branches", "paid", "paid")
        yield from flow.signal("never")
    finally:
        yield from log.append("branches", "cleaned", "cleaned up")
        yield from flow.call(refund, "o-1")


def race() -> Any:
    place, _ = yield from flow.first_of(paid_branch(), flow.signal("stop"))
    yield from log.append("branches", "won", f"{place} has won")
    return place


def the_loser_cleaned_up() -> Any:
    yield from all_end_as({"f": "completed"}, ("f", "stop", 0))
    branches = yield from written("branches")
    assert branches in (["paid", "cleaned up", "1 has won"], ["cleaned up", "1 has won"]), branches
    assert (yield from done_outside()) in (["charge", "refund"], ["refund"])


def race_of_calls() -> Any:
    """Both calls are on their way when one has won."""
    place, value = yield from flow.first_of(flow.call(charge, "o-1"), flow.call(reserve, "o-1"))
    yield from log.append("branches", "won", [place, value])
    said = yield from flow.signal("stop")
    return [place, said]


def the_first_call_won() -> Any:
    yield from all_end_as({"f": "completed"}, ("f", "stop", 0), ("f", "stop", 1))
    place, said = yield from flow.result("f")
    yield from is_written("branches", [place, ["charge done", "reserve done"][place]])
    assert said == 0


def failing_branch() -> Any:
    yield from flow.call(refuse, "o-1")


def all_or_none() -> Any:
    try:
        yield from flow.all_of(paid_branch(), failing_branch())
    except ValueError as error:
        yield from log.append("branches", "failed", str(error))
        return "failed"
    return "paid"


def the_failure_is_told_once() -> Any:
    yield from all_end_as({"f": "completed"})
    branches = yield from written("branches")
    told = ["cleaned up", "no money for o-1"]
    assert branches in (["paid", *told], told), branches
    yield from result_is("failed")
    done = yield from done_outside()
    assert done in (["charge", "refund"], ["refund"]), done


# Children


def ship(order_id: str) -> Any:
    try:
        yield from flow.call(charge, order_id)
        if order_id == "bad":
            raise ValueError("no such place")
        yield from log.append("shipped", "shipped", order_id)
        if order_id == "slow":
            yield from flow.signal("landed")
    finally:
        yield from log.append("cleaned", "cleaned", order_id)
    return f"shipped {order_id}"


def shipping(order_id: str) -> Any:
    yield from log.append("orders", "placed", order_id)
    try:
        found = yield from flow.child(ship, order_id)
    except (ValueError, FlowFailed, FlowExists) as error:
        found = f"{type(error).__name__}: {error}"
    yield from log.append("orders", "ended", found)
    return found


def a_child_has(end: str, found: str) -> Callable[[], Any]:
    def check() -> Any:
        ends = yield from all_end()
        placed, ended = yield from written("orders")
        yield from result_is(ended)
        if ended.startswith("FlowExists") and ends == {"f": "completed"}:
            # As if another one had begun it, who is not there: nothing of it was done.
            yield from is_written("cleaned")
            return
        assert ends == {"f": "completed", "f.2": end}
        assert ended == found, ended
        yield from is_written("cleaned", placed)

    return check


def a_child_was_cancelled() -> Any:
    # Where it was not begun when it was to be cancelled.
    yield from serve_all()
    yield from cancelling("f.2")()
    yield from a_child_has("cancelled", "FlowFailed: flow 'f.2' was cancelled")()


def a_child_was_cancelled_with_its_parent() -> Any:
    ends = yield from all_end()
    if (yield from written("orders"))[1:]:
        # As if another one had begun the child.
        assert ends == {"f": "completed"}, ends
        return
    if "f.2" in ends:
        assert ends == {"f": "cancelled", "f.2": "cancelled"}, ends
        yield from is_written("cleaned", "slow")
    else:
        # It was cancelled before it had begun the child.
        assert ends == {"f": "cancelled"}, ends
        yield from is_written("cleaned")


def serve_the_child() -> Any:
    """It waits until there is one."""
    yield from kv.wait(0, journal.OPEN + "f.2", PATIENCE_SECONDS)
    return (yield from serve("f.2"))


def shipped_or_undone() -> Any:
    """Whoever of them was first: both have ended, and what the child had begun it has cleaned up."""
    ends = yield from all_end(("f.2", "landed", 0))
    begun = len((yield from written("shipped")))
    assert begun <= 1
    assert begun <= len((yield from written("cleaned"))) <= 1, "the child has not cleaned up"
    if ends["f"] == "cancelled":
        assert ends.get("f.2", "cancelled") in ("cancelled", "completed"), ends
        assert (yield from written("orders")) in ([], ["slow"])
    else:
        assert ends == {"f": "completed", "f.2": "completed"}, ends


# Runs


def counting(left: int) -> Any:
    said = yield from flow.signal("item")
    yield from log.append("said", "said", said)
    if left:
        flow.continue_as_new(left - 1)
    return (yield from flow.signal("last"))


def each_was_counted() -> Any:
    yield from all_end_as({"f": "completed"})
    yield from is_written("said", 1, 2, 3)
    yield from result_is("end")
    assert (yield from flow.status("f")).run == 3


def rounds(left: int) -> Any:
    """In each run a call is on its way when the run ends."""
    calls = [flow.call(charge, f"round {left}"), flow.call(reserve, f"round {left}")]
    place, value = yield from flow.first_of(*(calls if left else reversed(calls)))
    yield from log.append("rounds", "ended", [left, place, value])
    if left:
        flow.continue_as_new(left - 1)
    return value


def rounds_have_their_own_outcomes() -> Any:
    yield from all_end_as({"f": "completed"})
    found = yield from written("rounds")
    named = {1: ["charge done", "reserve done"], 0: ["reserve done", "charge done"]}
    assert [left for left, _, _ in found] == [1, 0], found
    assert all(value == named[left][place] for left, place, value in found), f"an outcome of another run: {found}"


def cancelled_in_time(left: int) -> Any:
    """Only a cancellation ends it."""
    if left:
        yield from flow.signal("item")
        flow.continue_as_new(left - 1)
    yield from flow.signal("never")


def it_was_cancelled() -> Any:
    yield from all_end_as({"f": "cancelled"})
    assert (yield from flow.status("f")).run == 2, "it was cancelled, and had ended this run"


# Calls that must not be repeated


def wiring(order_id: str) -> Any:
    found = yield from flow.call(wire, order_id)
    yield from log.append("wired", "wired", found)
    return found


def wired_once() -> Any:
    if (yield from flow.status("f")).ended is None:
        yield from serve_all()
    if (yield from flow.status("f")).ended is None:
        # A call of which nobody knows: someone has looked.
        yield from flow.resolve("f", (1,), "looked it up")
    yield from all_end_as({"f": "completed"})
    found = yield from flow.result("f")
    yield from is_written("wired", found)
    count = len((yield from outside()))
    assert count <= 1, f"it was wired {count} times"
    assert count or found == "looked it up"


# Changed code


@flow.defined(name="billing")
def billing_before() -> Any:
    yield from log.append("bills", "begun", "begun")
    yield from flow.signal("go")
    yield from log.append("bills", "sent", "sent")
    return "old"


@flow.defined(name="billing")
def billing() -> Any:
    first = yield from flow.patched("fraud")
    yield from log.append("bills", "begun", "begun")
    yield from flow.signal("go")
    second = yield from flow.patched("fraud")
    if second:
        yield from flow.call(charge, "fraud")
    yield from log.append("bills", "sent", "sent")
    third = yield from flow.patched("fraud")
    return [first, second, third]


def the_change_is_in_force(is_new: bool) -> Callable[[], Any]:
    def check() -> Any:
        yield from all_end_as({"f": "completed"}, ("f", "go", 1))
        yield from result_is([is_new] * 3)
        yield from is_written("bills", "begun", "sent")
        assert (yield from done_outside()) == (["charge"] if is_new else [])

    return check


# Beginning


def begin_with(order_id: str) -> Callable[[], Any]:
    def begin() -> Any:
        try:
            is_new = yield from flow.begin("f", order, order_id)
        except FlowExists:
            yield from log.append("begun", "refused", [order_id, "another"])
            return
        yield from log.append("begun", "begun", [order_id, is_new])

    return begin


def one_has_begun_it() -> Any:
    yield from all_end_as({"f": "completed"})
    begun = yield from written("begun")
    assert [is_new for _, is_new in begun].count(True) == 1, begun
    ((winner, _),) = [each for each in begun if each[1] is True]
    assert all(
        is_new == (False if order_id == winner else "another") for order_id, is_new in begun if is_new is not True
    )
    assert (yield from written("orders"))[0] == winner


# Flows that end their hosts


def die_at_the_call() -> Any:
    token = (yield from new_id()).encode()[-8:]
    yield from serve_until_it_waits("f", token=token)


def it_was_set_aside() -> Any:
    state = (yield from flow.status("f")).state
    assert state == journal.SET_ASIDE, f"it is {state}"
    yield from is_written(OUTSIDE)
    yield from flow.retry("f")
    yield from one_host_wrote()


FLOWS = flow.Flows(
    [
        order,
        order_that_waits,
        take_a_seat,
        approvals,
        approved_in_time,
        items_until_stopped,
        remind,
        trip,
        leaving,
        race,
        race_of_calls,
        all_or_none,
        ship,
        shipping,
        counting,
        rounds,
        cancelled_in_time,
        wiring,
        billing,
    ]
)

FLOWS_BEFORE = flow.Flows([billing_before])

run_f = serving("f")
run_f_too = serving("f")


def serve_the_old_code() -> Any:
    yield from serve("f", flows=FLOWS_BEFORE, patience=0)


SCENES = {
    "steps": Scene([begin_order, run_f], empty, an_order_was_paid_once, depth=2),
    "two hosts": Scene([run_f, run_f_too], with_flow(order_that_waits, "o-1"), one_host_wrote, bound=2),
    "two hosts, and one is killed": Scene(
        [run_f, run_f_too], with_flow(order_that_waits, "o-1"), one_host_wrote, bound=1, crashes=True, depth=0
    ),
    "two hosts to the end": Scene(
        [run_f, run_f_too], with_flow(order, "o-1"), an_order_was_paid_once, bound=2, ends=True
    ),
    "a conflict": Scene([run_f, take_the_seat_first], with_flow(take_a_seat), a_seat_is_taken_once, depth=2, bound=4),
    "signals that came early": Scene(
        [run_f],
        with_flow(approvals, before=[sending_once("f", "ok", 1, 2)]),
        both_were_heard,
        depth=2,
        bound=0,
        ends=True,
    ),
    "signals that come late": Scene(
        [run_f, sending_once("f", "ok", 1, 2), run_f], with_flow(approvals), both_were_heard
    ),
    "signals beside a host": Scene(
        [run_f, sending_once("f", "ok", 1, 2)], with_flow(approvals), both_were_heard, depth=0, bound=3, ends=True
    ),
    "a signal or a timeout": Scene(
        [run_f, send_at_the_last_moment], with_flow(approved_in_time), heard_or_late, depth=2, bound=4, ends=True
    ),
    "a flow that ends while it is told something": Scene(
        [run_f, send_items_and_stop], with_flow(items_until_stopped), all_items_were_heard, depth=0, bound=3, ends=True
    ),
    "items in the inbox": Scene(
        [run_f],
        with_flow(items_until_stopped, before=[send_items_and_stop]),
        all_items_were_heard,
    ),
    "a timer and a signal": Scene([run_f], with_flow(remind), reminded_once, depth=2),
    "a timer and a signal that comes": Scene(
        [run_f], with_flow(remind, before=[sending_once("f", "read", 1)]), reminded_once
    ),
    "a trip that is missed": Scene([run_f], with_flow(trip, "o-1"), a_trip_is_whole_or_undone),
    "a trip that is cancelled": Scene(
        [run_f], with_flow(trip, "o-1", before=[cancelling("f")]), was_cancelled_and_undone
    ),
    "a trip that is cancelled midway": Scene(
        [run_f, cancelling("f")], with_flow(trip, "o-1"), a_trip_is_whole_or_undone, depth=0, bound=3, ends=True
    ),
    "a trip that is cancelled, and its host is killed": Scene(
        [run_f, cancelling("f")], with_flow(trip, "o-1"), a_trip_is_whole_or_undone, depth=0, bound=1, crashes=True
    ),
    "the end, or a cancellation": Scene(
        [run_f, sending_once("f", "leave", 1), cancelling("f")],
        with_flow(leaving, "o-1"),
        a_place_is_kept_or_released,
        depth=0,
        bound=2,
        ends=True,
    ),
    "a branch that loses": Scene(
        [run_f, sending_once("f", "stop", 0), run_f], with_flow(race), the_loser_cleaned_up, depth=2
    ),
    "a branch that loses midway": Scene(
        [run_f, sending_once("f", "stop", 0)], with_flow(race), the_loser_cleaned_up, depth=0, bound=3
    ),
    "calls of which one wins": Scene([serving("f", at_once=2)], with_flow(race_of_calls), the_first_call_won),
    "a branch that fails": Scene([serving("f", at_once=2)], with_flow(all_or_none), the_failure_is_told_once),
    "a branch that fails later": Scene([run_f], with_flow(all_or_none), the_failure_is_told_once),
    "a child": Scene([serve_all], with_flow(shipping, "good"), a_child_has("completed", "shipped good"), depth=2),
    "a child that fails": Scene(
        [serve_all], with_flow(shipping, "bad"), a_child_has("failed", "ValueError: no such place")
    ),
    "a child that is cancelled": Scene(
        [serve_all, cancelling("f.2"), serve_all],
        with_flow(shipping, "slow"),
        a_child_was_cancelled,
    ),
    "a parent that is cancelled": Scene(
        [serve_all, cancelling("f"), serve_all], with_flow(shipping, "slow"), a_child_was_cancelled_with_its_parent
    ),
    "a parent that is cancelled midway": Scene(
        [run_f, serve_the_child, cancelling("f")], with_flow(shipping, "slow"), shipped_or_undone, depth=0, bound=1
    ),
    "runs, and mail that was not read": Scene(
        [run_f],
        with_flow(counting, 2, before=[sending_once("f", "last", "end"), sending_once("f", "item", 1, 2, 3)]),
        each_was_counted,
        depth=2,
        bound=0,
        ends=True,
    ),
    "runs, and mail that comes": Scene(
        [run_f, sending_once("f", "item", 1, 2, 3), sending_once("f", "last", "end")],
        with_flow(counting, 2),
        each_was_counted,
        depth=0,
        bound=2,
        # It computes with the numbers of messages.
        reduce=False,
        ends=True,
    ),
    "runs that end beside a call": Scene([run_f], with_flow(rounds, 1), rounds_have_their_own_outcomes),
    "a run that ends, or a cancellation": Scene(
        [run_f],
        with_flow(cancelled_in_time, 1, before=[sending_once("f", "item", 1), cancelling("f")]),
        it_was_cancelled,
    ),
    "a call that is not repeated": Scene([run_f], with_flow(wiring, "o-1"), wired_once, depth=2),
    "two hosts, and a call that is not repeated": Scene(
        [run_f, run_f_too], with_flow(wiring, "o-1"), wired_once, depth=0, bound=2
    ),
    "changed code, and a flow from before": Scene(
        [run_f, sending_once("f", "go", 1), run_f],
        with_flow(billing_before, before=[serve_the_old_code]),
        the_change_is_in_force(False),
    ),
    "changed code, and a new flow": Scene(
        [run_f, sending_once("f", "go", 1), run_f], with_flow(billing), the_change_is_in_force(True)
    ),
    "a flow that ends its hosts": Scene(
        [die_at_the_call] * (CLAIMS_LIMIT + 2) + [run_f], with_flow(order_that_waits, "o-1"), it_was_set_aside
    ),
    "begun by two": Scene(
        [begin_with("o-1"), begin_with("o-1"), begin_with("o-2")],
        empty,
        one_has_begun_it,
        depth=0,
        bound=4,
    ),
}
"""By what happens."""
