"""The table of misuse: what each is told, and that nothing is lost by it."""

import random
import subprocess
import sys
import threading
from datetime import UTC, datetime
from itertools import count

import pytest
from conducted import Conducted, entries

from interpreters.never_run import Watcher
from interpreters.runtime.flows import FlowHost
from persist_effects import Draft, blob, flow, kv, log, perform
from persist_effects.errors import AlreadyUsed, FlowExists, InvalidRequest, Nondeterministic, NoSuchFlow, NotAProgram
from persist_effects.flow.defining import Flows, activities_by_name, activity_code, flow_code
from persist_effects.requests import (
    Advance,
    Append,
    At,
    KvPut,
    KvWait,
    Sql,
    Transact,
    TruncateThrough,
    Wait,
)

LONG_SECONDS = 60


def fetch(what: str) -> str:
    return f"fetched {what}"


def send_mail(to: str, text: str) -> None: ...


def begin(store, code, *args, flow_id="f-1"):
    return store.run(flow.begin(flow_id, code, *args))


def in_flow(store, program):
    """The error that is raised where a flow asks for this."""
    raised = []

    def asking():
        try:
            yield from program
        except Exception as error:
            raised.append(error)
            raise

    begin(store, asking)
    assert Conducted(store, asking).finished.state == "failed"
    (error,) = raised
    return error


# The code does something else than the journal says


def order(*steps):
    """A flow called order that makes these steps."""

    @flow.defined(name="order")
    def order():
        for step in steps:
            yield from step()

    return order


def a():
    return flow.call(fetch, "a")


def b():
    return flow.call(fetch, "b")


def mail():
    return flow.call(send_mail, "Ada", "hello")


def approval():
    return flow.signal("approved")


def painting():
    return kv.put("color", "red")


def looking():
    return kv.get("color")


def both():
    return flow.all_of(a(), b())


CHANGES = {
    "a changed order of steps": (
        [a, b], [b, a],
        "step 1, call(fetch, 'a')", "step 1, call(fetch, 'b')", "none",
    ),
    "a step that was removed": (
        [a, b, mail], [a, mail],
        "step 2, call(fetch, 'b')", "step 2, call(send_mail, 'Ada', 'hello')", "step 1, call(fetch, 'a')",
    ),
    "a step that was added": (
        [a, b], [a, mail, b],
        "step 2, call(fetch, 'b')", "step 2, call(send_mail, 'Ada', 'hello')", "step 1, call(fetch, 'a')",
    ),
    "the last step that was removed": (
        [a, b], [a],
        "step 2, call(fetch, 'b')", "the flow has ended: it returned None", "step 1, call(fetch, 'a')",
    ),
    "another kind of step": (
        [a, painting], [a, approval],
        "step 2, persist/kv-put(key='color', value='red', expected=None)", "step 2, signal('approved')",
        "step 1, call(fetch, 'a')",
    ),
    "a call in the place of branches": (
        [both, a], [a, a],
        "step 1.1.1, call(fetch, 'a')", "step 1, call(fetch, 'a')", "none",
    ),
    "branches in the place of a call": (
        [a, b], [both, b],
        "step 1, call(fetch, 'a')", "step 1.1.1, call(fetch, 'a') and step 1.2.1, call(fetch, 'b')", "none",
    ),
}  # fmt: skip


def answer_all(held, left):
    """Let the flow have what it waits for, so many times."""
    for _ in range(left):
        (path, *_) = held.calls
        held.give(path, None if held.calls[path].call.activity == "send_mail" else "")


@pytest.mark.parametrize("change", CHANGES)
def test_a_flow_whose_code_was_changed_says_what_its_journal_has_and_what_the_code_does(store, change):
    before, after, expected, actual, last_match = CHANGES[change]
    # So that it has not ended.
    before = order(*before, approval)
    begin(store, before)
    held = Conducted(store, before)
    while held.calls:
        answer_all(held, 1)
    held.is_gone()
    kept = entries(store)
    with pytest.raises(Nondeterministic) as raised:
        Conducted(store, order(*after))
    error = raised.value
    assert (error.flow_id, error.expected, error.actual, error.last_match) == ("f-1", expected, actual, last_match)
    assert "f-1" in str(error)
    for told in (expected, actual, last_match, "flow.patched", "nothing of it is lost"):
        assert told in str(error)
    # Nothing was written, and with the code that it began with it goes on.
    assert entries(store) == kept
    held = Conducted(store, before)
    held.signal("approved")
    assert held.finished.state == "completed"


def test_a_changed_argument_is_told_with_the_line_of_the_code(store):
    @flow.defined(name="paying")
    def before():
        yield from flow.call(fetch, "5 euros")
        yield from flow.signal("go")

    @flow.defined(name="paying")
    def after():
        yield from flow.call(fetch, "6 euros")
        yield from flow.signal("go")

    begin(store, before)
    Conducted(store, before).give((1,), "").is_gone()
    with pytest.raises(Nondeterministic) as raised:
        Conducted(store, after)
    line = after.__code__.co_firstlineno + 2
    assert f"test_misuse.py:{line}" in raised.value.source
    assert raised.value.actual == "step 1, call(fetch, '6 euros')"


def test_a_clock_that_is_used_directly_is_noticed_when_the_flow_is_run_again(store):
    ticks = count()

    def clock_of_the_machine():
        return f"{datetime.now(UTC)}, and {next(ticks)}"

    def ordering():
        yield from flow.call(fetch, f"at {clock_of_the_machine()}")
        yield from flow.signal("go")

    begin(store, ordering)
    Conducted(store, ordering).give((1,), "").is_gone()
    with pytest.raises(
        Nondeterministic, match=r"expected:   step 1, call\(fetch, 'at .*, and 0'\)\n  actual:     step 1, ca"
    ):
        Conducted(store, ordering)


def test_chance_that_is_used_directly_is_noticed_when_the_flow_is_run_again(store):
    drawn = random.Random(7)

    def ordering():
        if drawn.random() < 0.5:
            yield from flow.call(fetch, "heads")
        else:
            yield from flow.call(fetch, "tails")
        yield from flow.signal("go")

    begin(store, ordering)
    first = Conducted(store, ordering)
    (asked,) = first.calls[1,].call.args
    first.give((1,), "").is_gone()

    def run_again():
        for _ in range(20):
            Conducted(store, ordering).is_gone()

    with pytest.raises(Nondeterministic, match=f"expected:   step 1, call\\(fetch, '{asked}'\\)"):
        run_again()


def test_a_flow_whose_code_does_not_fit_is_halted_by_its_host_and_goes_on_once_it_does(store):
    before, after = order(a, b, approval), order(b, a, approval)
    with FlowHost(store, flows=[before], activities=[fetch]) as host:
        host.start(before, "f-1")
        store.run(wait_until_entries("f-1", 3))
    with FlowHost(store, flows=[after, asking], activities=[fetch]) as host:
        store.run(wait_until_halted("f-1"))
        told = host.status("f-1").error
        assert told.startswith("Nondeterministic: flow 'f-1' no longer does what its journal says")
        assert "step 1, call(fetch, 'b')" in told
        host.start(asking, "f-2", "tea")
        assert host.result("f-2", timeout=LONG_SECONDS) == "fetched tea"
        assert [each.flow_id for each in host.list(state="halted")] == ["f-1"]
    with FlowHost(store, flows=[before], activities=[fetch]) as host:
        host.signal("f-1", "approved")
        host.result("f-1", timeout=LONG_SECONDS)
        assert host.status("f-1").state == "completed"


def asking(what: str):
    return (yield from flow.call(fetch, what))


def wait_until_halted(flow_id):
    seen = 0
    while (yield from flow.status(flow_id)).state != "halted":
        seen = yield from kv.wait(seen, "flow-open/", LONG_SECONDS)


def wait_until_entries(flow_id, count):
    seen = 0
    while len((yield from log.read(f"flow/{flow_id}"))) < count:
        seen = yield from log.wait(seen, f"flow/{flow_id}", LONG_SECONDS)


# What is not here


def test_a_call_of_an_activity_that_the_host_does_not_have_halts_the_flow_until_one_has_it(store):
    mailing = order(mail)
    with FlowHost(store, flows=[asking, mailing], activities=[send_mail]) as host:
        host.start(asking, "f-1", "tea")
        store.run(wait_until_halted("f-1"))
        assert host.status("f-1").error == (
            "InvalidRequest: activity 'fetch' is not here: give it to the host, which has send_mail"
        )
        host.start(mailing, "f-2")
        host.result("f-2", timeout=LONG_SECONDS)
    with FlowHost(store, flows=[asking], activities=[fetch]) as host:
        assert host.result("f-1", timeout=LONG_SECONDS) == "fetched tea"


def test_a_flow_whose_code_the_host_does_not_have_is_halted_until_one_has_it(store):
    begin(store, asking, "tea")
    with FlowHost(store, flows=[order(a)], activities=[fetch]) as host:
        store.run(wait_until_halted("f-1"))
        assert (
            "the code of 'asking', version 1, is not here: give it to the host, which has 'order' version 1"
            in host.status("f-1").error
        )
    with FlowHost(store, flows=[asking], activities=[fetch]) as host:
        assert host.result("f-1", timeout=LONG_SECONDS) == "fetched tea"


def test_an_async_activity_where_anyio_is_missing_halts_the_flow(tmp_path):
    script = f"""
import sys
sys.modules["anyio"] = sys.modules["anyio.from_thread"] = None
from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import flow, kv

async def fetch(): ...

def asking():
    yield from flow.call(fetch)

def greet():
    return "hello"
    yield

def until_halted():
    seen = 0
    while (yield from flow.status("f-1")).state != "halted":
        seen = yield from kv.wait(seen, "flow-open/", {LONG_SECONDS})

with open_store("memory:") as store, FlowHost(store, flows=[asking, greet], activities=[fetch]) as host:
    host.start(asking, "f-1")
    store.run(until_halted())
    print(host.status("f-1").error)
    host.start(greet, "g-1")
    print(host.result("g-1", timeout={LONG_SECONDS}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=2 * LONG_SECONDS
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "InvalidRequest: activities that are async functions need anyio: pip install anyio",
        "hello",
    ]


# What cannot be stored


class Thing:
    def __repr__(self):
        return "Thing()"


def test_a_result_that_cannot_be_stored_fails_the_flow_and_says_of_what(store):
    def returning():
        yield from kv.get("color")
        return Thing()

    begin(store, returning)
    finished = Conducted(store, returning).finished
    assert finished.state == "failed"
    assert str(finished.error).startswith("the result of flow 'f-1' cannot be stored: ")
    assert "Thing" in str(finished.error)


def test_a_result_that_would_come_back_as_something_else_says_how_to_annotate_it(store):
    def returning():
        yield from kv.get("color")
        return (1, "tea")

    begin(store, returning)
    error = Conducted(store, returning).finished.error
    assert str(error) == (
        "the result of flow 'f-1' is (1, 'tea') and would come back as [1, 'tea']: annotate its type, as in "
        "`def charge(order: str) -> Receipt` or `flow.local(…, returns=list[Event])`, or give plain values"
    )


def test_what_an_activity_returns_and_cannot_be_stored_is_an_error_in_the_flow(store):
    begin(store, asking, "tea")
    held = Conducted(store, asking)
    held.give((1,), Thing())
    assert str(held.finished.error).startswith("what activity 'fetch' came to cannot be stored: ")


def test_what_an_activity_returns_and_is_not_what_it_is_annotated_with_is_an_error_in_the_flow(store):
    begin(store, asking, "tea")
    held = Conducted(store, asking)
    held.give((1,), 7)
    assert "what activity 'fetch' came to does not fit its type <class 'str'>" in str(held.finished.error)


def test_an_argument_of_a_call_that_cannot_be_stored_is_an_error_in_the_flow(store):
    error = in_flow(store, flow.call(fetch, Thing()))
    assert isinstance(error, InvalidRequest)
    assert "an argument of activity 'fetch' cannot be stored, (" in str(error)


def test_a_local_value_that_cannot_be_stored_is_an_error_in_the_flow(store):
    def reading():
        yield from kv.get("color")
        return Thing()

    error = in_flow(store, flow.local(reading()))
    assert str(error).startswith("what program 'reading' came to cannot be stored: ")


def nothing_is_begun(store):
    assert store.run(kv.keys("")) == []
    assert store.run(log.head()) == 0
    return True


REFUSED_BEGINNINGS = {
    "an argument that cannot be stored": (
        lambda: flow.begin("f-1", asking, Thing()), "argument 1 of flow 'asking' cannot be stored: ",
    ),
    "an argument of another type": (
        lambda: flow.begin("f-1", asking, 7), "argument 1 of flow 'asking' does not fit its type <class 'str'>",
    ),
    "too few arguments": (
        lambda: flow.begin("f-1", asking), "flow 'asking' was begun with (): missing a required argument: 'what'",
    ),
    "too many arguments": (
        lambda: flow.begin("f-1", asking, "tea", 7),
        "flow 'asking' was begun with ('tea', 7): too many positional arguments",
    ),
    "an id that is empty": (
        lambda: flow.begin("", asking, "tea"), "a flow's id is empty: a name has 1 to 512 bytes of UTF-8",
    ),
    "an id that is too long": (
        lambda: flow.begin("x" * 301, asking, "tea"), "a flow's id has 301 bytes: give at most 300",
    ),
    "an id that is no text": (lambda: flow.begin(7, asking, "tea"), "a flow's id is an int, 7"),
    "tags that are not text": (
        lambda: flow.begin("f-1", asking, "tea", tags={"customer": 7}), "tags is a dict",
    ),
    "a plain function": (
        lambda: flow.begin("f-1", fetch, "tea"),
        "a flow is a function, ",
    ),
    "a program": (lambda: flow.begin("f-1", asking("tea"), "tea"), "a flow is a generator, "),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_BEGINNINGS)
def test_what_cannot_be_begun_is_refused_before_anything_is_written(store, case):
    make, told = REFUSED_BEGINNINGS[case]
    with pytest.raises(InvalidRequest) as raised:
        store.run(make())
    assert told in str(raised.value)
    assert nothing_is_begun(store)


# Flows that are not there, or are others


def ended(store):
    begin(store, asking, "tea")
    Conducted(store, asking).give((1,), "T")


TOLD = {
    "a signal": lambda: flow.send("f-1", "approved"),
    "a cancellation": lambda: flow.cancel("f-1"),
    "a pause": lambda: flow.pause("f-1"),
    "a resumption": lambda: flow.resume("f-1"),
    "a resolution": lambda: flow.resolve("f-1", (1,), 7),
    "a retry": lambda: flow.retry("f-1"),
}


@pytest.mark.parametrize("what", TOLD)
def test_a_flow_that_has_ended_is_told_nothing(store, what):
    ended(store)
    head = store.run(log.head())
    with pytest.raises(NoSuchFlow, match="there is no flow 'f-1' that goes on: it has ended, completed"):
        store.run(TOLD[what]())
    assert store.run(log.head()) == head


@pytest.mark.parametrize("what", TOLD)
def test_a_flow_that_never_was_is_told_nothing(store, what):
    with pytest.raises(NoSuchFlow, match="there is no flow 'f-1' that goes on: it was never begun"):
        store.run(TOLD[what]())
    assert nothing_is_begun(store)


def test_a_signal_that_cannot_be_stored_is_refused(store):
    begin(store, asking, "tea")
    head = store.run(log.head())
    with pytest.raises(InvalidRequest, match="Thing"):
        store.run(flow.send("f-1", "approved", Thing()))
    with pytest.raises(InvalidRequest, match="signal is empty"):
        store.run(flow.send("f-1", ""))
    assert store.run(log.head()) == head


def test_one_id_is_one_flow_with_one_code_and_the_same_arguments(store):
    begin(store, asking, "tea")
    with pytest.raises(FlowExists) as raised:
        begin(store, asking, "milk")
    assert str(raised.value) == (
        "flow 'f-1' is 'asking' with other arguments, and not 'asking' with ('milk',): give yours another id"
    )
    with pytest.raises(FlowExists, match="flow 'f-1' is 'asking', and not 'order' with"):
        begin(store, order(a))
    Conducted(store, asking).give((1,), "T")
    assert begin(store, asking, "tea") is False
    with pytest.raises(FlowExists, match="with other arguments"):
        begin(store, asking, "milk")


def test_the_result_of_a_flow_that_goes_on_is_to_be_waited_for(store):
    begin(store, asking, "tea")
    with pytest.raises(InvalidRequest, match=r"flow 'f-1' has not ended yet: wait for it with FlowHost\.result"):
        store.run(flow.result("f-1"))


# What is given to a host


def test_two_flows_of_one_name_and_version_are_refused():
    with pytest.raises(InvalidRequest) as raised:
        Flows([order(a), order(b)])
    assert str(raised.value) == (
        "two flows are called 'order', version 1: test_misuse.order.<locals>.order and "
        "test_misuse.order.<locals>.order. Give one of them another name, or another version, with flow.defined"
    )


def test_the_same_flow_twice_is_one_flow():
    assert Flows([asking, asking]).names == ["asking"]


def test_two_activities_of_one_name_are_refused(store):
    def another(what: str) -> str: ...

    with pytest.raises(InvalidRequest) as raised:
        FlowHost(store, flows=[], activities=[fetch, flow.activity(name="fetch")(another)])
    assert str(raised.value) == (
        "two activities are called 'fetch': test_misuse.fetch and test_misuse."
        "test_two_activities_of_one_name_are_refused.<locals>.another. Give one of them another name, with "
        "flow.activity(name=…)"
    )


def test_a_host_that_was_refused_leaves_no_thread_behind(store):
    before = set(threading.enumerate())
    with pytest.raises(InvalidRequest):
        FlowHost(store, flows=[fetch], activities=[])
    assert set(threading.enumerate()) == before


def test_a_generator_function_is_not_an_activity():
    told = (
        "activity 'asking' is a generator function: an activity is a plain function, or an async one. What a program "
        "reads and writes, a flow does itself: `yield from` it"
    )
    with pytest.raises(InvalidRequest) as raised:
        activities_by_name([asking])
    assert str(raised.value) == told
    with pytest.raises(InvalidRequest) as raised:
        next(flow.call(asking, "tea"))
    assert str(raised.value) == told


REFUSED_FLOWS = {
    "a plain function": (fetch, "a flow is a function, "),
    "a lambda": (lambda: None, "a flow is a function, "),
    "an async function": (pytest.fixture, "a flow is a function, "),
    "a number": (7, "a flow is an int, 7: give a generator function, which yields from its steps"),
}


@pytest.mark.parametrize("case", REFUSED_FLOWS)
def test_what_is_not_a_generator_function_is_not_a_flow(case):
    given, told = REFUSED_FLOWS[case]
    with pytest.raises(InvalidRequest) as raised:
        flow_code(given)
    assert told in str(raised.value)
    assert "give a generator function, which yields from its steps" in str(raised.value)


def test_what_cannot_be_called_is_not_an_activity():
    with pytest.raises(InvalidRequest, match="an activity is an int, 7: give a function"):
        next(flow.call(7))
    with pytest.raises(InvalidRequest, match="an activity is a str, 'fetch': give a function"):
        next(flow.call("fetch", "tea"))


def test_a_lambda_has_no_name_by_which_a_journal_could_know_it():
    with pytest.raises(
        InvalidRequest, match="a lambda is no activity: journals know it by its name, so write it with `def`"
    ):
        next(flow.call(lambda: 7))
    assert activity_code(flow.activity(name="seven")(lambda: 7)).name == "seven"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"repeat": "often"}, "repeat is 'often': give 'safe', 'keyed' or 'never'"),
        ({"name": ""}, "activity is empty"),
        ({"timeout": -1}, "timeout is -1: give seconds, 0 or more"),
        ({"retry": 3}, r"retry is an int, 3: give a Retry, as Retry\(times=3\)"),
    ],
    ids=["repeat", "name", "timeout", "retry"],
)
def test_an_activity_that_is_said_wrongly_is_refused_where_it_is_said(options, told):
    with pytest.raises(InvalidRequest, match=told):
        flow.activity(**options)(fetch)


REFUSED_STEPS = {
    "retry": (lambda: flow.call(fetch, "a", retry=3), "retry is an int, 3: give a Retry, as Retry(times=3)"),
    "timeout": (lambda: flow.call(fetch, "a", timeout=-1), "timeout is -1: give seconds, 0 or more"),
    "signal": (lambda: flow.signal(""), "signal is empty"),
    "signal's timeout": (lambda: flow.signal("go", timeout=float("nan")), "timeout is nan: give seconds, 0 or more"),
    "sleep": (lambda: flow.sleep(-5), "seconds is -5: give seconds, 0 or more"),
    "child's id": (lambda: flow.child(asking, "tea", flow_id=""), "a flow's id is empty"),
    "child": (lambda: flow.child(fetch, "tea"), "a flow is a function, "),
    "patched": (lambda: flow.patched(""), "change is empty"),
    "first_of": (
        lambda: flow.first_of(), "flow.first_of has no branches, of which one could be the first: give at least one",
    ),
    "all_of": (lambda: flow.all_of(7), "7"),
    "saga": (lambda: flow.saga(7), "a saga is an int, 7: give a generator function of one argument, a Saga"),
    "local": (lambda: flow.local(7), "7"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_STEPS)
def test_a_step_that_is_said_wrongly_is_refused_where_it_stands(store, case):
    make, told = REFUSED_STEPS[case]
    error = in_flow(store, make())
    assert isinstance(error, InvalidRequest | NotAProgram)
    assert told in str(error)


# What a flow does not ask

NOT_IN_A_FLOW = {
    "wait": (Wait(0, "", 1.0), "a flow does not ask persist/wait: wait for a signal, or wait in an activity"),
    "kv-wait": (KvWait(0, "", 1.0), "a flow does not ask persist/kv-wait: wait for a signal, or wait in an activity"),
    "noting": (
        Transact((Append("log", (Draft("x", {}),)),), (), True),
        (
            "a flow notes what its writes were answered, so its transactions cannot: leave `noting` out, and use "
            "log.append in the place of log.append_once, since each step of a flow takes effect once"
        ),
    ),
    "sql": (
        Transact((Sql("insert into t values (1)", {}), KvPut("a", 1))),
        "a flow writes no SQL, whose answer cannot be noted in its journal: do it in an activity",
    ),
    "advance": (Advance(7, 7), "a flow does not ask persist/advance: it is for moving stores"),
    "a write to another store": (
        At("other", KvPut("a", 1)),
        (
            "a flow does not ask KvPut of another store, which cannot be in the transaction of its journal: do it in "
            "an activity"
        ),
    ),
    "a journal": (
        Append("flow/f-2", (Draft("x", None),)),
        "writes what belongs to flows: use another name",
    ),
    "an inbox": (Append("flow-inbox/f-2", (Draft("x", None),)), "writes what belongs to flows: use another name"),
    "a truncation of a journal": (
        TruncateThrough("flow/f-1", 1),
        "persist/truncate-through(stream='flow/f-1', seq=1) writes what belongs to flows: use another name",
    ),
    "a key of flows": (
        KvPut("flow-open/f-2", 1),
        "persist/kv-put(key='flow-open/f-2', value=1, expected=None) writes what belongs to flows: use another name",
    ),
}


@pytest.mark.parametrize("case", NOT_IN_A_FLOW)
def test_what_a_flow_does_not_ask_is_refused_in_the_flow_and_nothing_is_written(store, case):
    request, told = NOT_IN_A_FLOW[case]
    error = in_flow(store, perform(request))
    assert isinstance(error, InvalidRequest)
    assert told in str(error)
    assert sorted(store.run(log.streams())) == ["flow-inbox/f-1", "flow/f-1"]
    assert not store.run(kv.has("a"))


def test_a_flow_reads_large_bytes_in_a_local_program_or_an_activity(store):
    ref = store.run(blob.put(b"large"))
    error = in_flow(store, blob.get(ref))
    assert str(error) == "a flow's journal holds no large bytes: read blobs in flow.local, or in an activity"

    def measuring():
        return len((yield from blob.get(ref)))

    def asking():
        return (yield from flow.local(measuring()))

    begin(store, asking, flow_id="f-2")
    assert Conducted(store, asking, flow_id="f-2").finished.value == 5


def test_a_local_program_only_reads(store):
    def writing():
        yield from kv.put("color", "red")

    error = in_flow(store, flow.local(writing()))
    assert str(error) == "flow.local runs programs that only read, and this one asks persist/kv-put"
    assert not store.run(kv.has("color"))


# Programs


def test_a_step_that_was_not_yielded_from_is_noticed(store):
    def forgetting():
        flow.call(fetch, "a")
        yield from kv.get("color")

    lost = []
    begin(store, forgetting)
    with Watcher(lost.append):
        assert Conducted(store, forgetting).finished.state == "completed"
    (told,) = map(str, lost)
    assert told.startswith("the program ")
    assert f"test_misuse.py:{forgetting.__code__.co_firstlineno + 1}, was never run" in told


def test_a_program_that_is_returned_and_not_yielded_from_fails_the_flow(store):
    def returning():
        yield from kv.get("color")
        return flow.sleep(5)

    begin(store, returning)
    finished = Conducted(store, returning).finished
    assert isinstance(finished.error, NotAProgram | InvalidRequest)
    assert "yield from" in str(finished.error)


def test_a_program_that_was_used_before_is_not_used_again(store):
    def twice():
        step = flow.call(fetch, "a")
        yield from flow.all_of(step, step)

    begin(store, twice)
    error = Conducted(store, twice).finished.error
    assert isinstance(error, AlreadyUsed | InvalidRequest)


def test_a_host_wants_a_store():
    with pytest.raises(
        InvalidRequest, match=r"a host's store is a str, 'memory:': give what open_store\(url\) returns"
    ):
        FlowHost("memory:", flows=[])
