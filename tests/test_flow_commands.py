"""The commands for durable flows: what they print for people and for machines, and what they have flows do."""

import json

import commanding
import pytest
from commanding import KINDS, answered, store_of
from flow_watching import conducted, until, until_state

from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import flow, kv, log
from persist_effects.errors import FlowFailed
from persist_effects.flow import journal
from persist_effects.flow.requests import Came


def invoke(*arguments, **options):
    return commanding.invoke("flows", *arguments, **options)


@flow.activity(repeat="never")
def charge(cents: int) -> str:
    return f"paid {cents}"


def reserve(order_id: str) -> str:
    return f"reserved {order_id}"


def order(order_id: str):
    reserved = yield from flow.call(reserve, order_id)
    paid = yield from flow.call(charge, 500)
    return [reserved, paid, (yield from flow.signal("approved"))]


def greet(name: str):
    return f"hello {name}"
    yield


def fill(store):
    """An order whose host is gone while it charged, another one that was only begun, and a flow that has ended."""
    store.run(flow.begin("o-1", order, "7", tags={"customer": "7", "land": "fi"}))
    conducted(store, "o-1", order, answers=[[Came((1,), "reserved\n\x1b[31m7")]], token=b"\x01")
    store.run(flow.begin("o-2", order, "8", tags={"customer": "8"}))
    store.run(flow.begin("g-1", greet, "Ada"))
    conducted(store, "g-1", greet)


@pytest.fixture(params=KINDS)
def url(request, tmp_path):
    with store_of(request.param, tmp_path, fill) as found:
        yield found


def hosted(store):
    return FlowHost(store, flows=[order, greet], activities=[reserve, charge])


# Looking


def test_flows_are_listed_by_their_ids_and_those_that_have_ended_after_the_others(url):
    done = invoke("list", url)
    assert done.exit_code == 0, done.output
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head == ["ID", "FLOW", "VERSION", "STATE", "RUN", "BEGAN", "ENDED", "TAGS"]
    assert [[row[0], row[1], row[3], row[6], *row[7:]] for row in rows] == [
        ["o-1", "order", "running", "-", "customer=7,", "land=fi"],
        ["o-2", "order", "running", "-", "customer=8"],
        ["g-1", "greet", "completed", rows[2][6], "-"],
    ]
    assert rows[2][6] > rows[2][5]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (["--flow", "order"], ["o-1", "o-2"]),
        (["--state", "completed"], ["g-1"]),
        (["--state", "set-aside"], []),
        (["--tag", "customer=7"], ["o-1"]),
        (["--tag", "customer=7", "--tag", "land=se"], []),
        (["--prefix", "o-"], ["o-1", "o-2"]),
        (["--limit", "1"], ["o-1"]),
    ],
)
def test_flows_are_found_by_what_is_asked_for(url, wanted, ids):
    assert [each["flow_id"] for each in json.loads(invoke("list", url, *wanted, "--json").stdout)["flows"]] == ids


def test_a_list_without_flows_says_so(url):
    assert invoke("list", url, "--flow", "none").stdout == "there is no such flow\n"


def test_a_flow_is_shown_with_its_history_and_the_calls_that_wait_to_be_resolved(url):
    done = invoke("show", url, "o-1")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:5] == ["id: o-1", "flow: order", "version: 1", "state: running", "run: 1"]
    assert lines[6:10] == ["ended: -", "queue: -", "tags: customer=7, land=fi", "error: -"]
    assert lines[10].split() == ["ENTRY", "AT", "STEP", "KIND", "ASKED", "OUTCOME"]
    rows = [line.split(maxsplit=4) for line in lines[11:15]]
    assert [[row[0], *row[2:]] for row in rows] == [
        ["1", "-", "begun", "order('7')" + rows[0][4].removeprefix("order('7')")],
        ["2", "-", "claimed", rows[1][4]],
        # What came from elsewhere cannot steer the terminal.
        ["3", "1", "answered", r"call(reserve, '7')  'reserved\n\x1b[31m7'"],
        ["3", "2", "started", rows[3][4]],
    ]
    assert rows[1][4].endswith("by host 01")
    assert lines[15].startswith("unresolved: step 2: call(charge, 500), begun at ")
    assert len(lines) == 16


def test_a_flow_is_shown_to_machines(url):
    shown = json.loads(invoke("show", url, "o-1", "--json").stdout)
    assert (shown["flow_id"], shown["state"], shown["tags"]["customer"]) == ("o-1", "running", "7")
    assert [(entry["seq"], entry["kind"], entry["path"]) for entry in shown["history"]] == [
        (1, "begun", []),
        (2, "claimed", []),
        (3, "answered", [1]),
        (3, "started", [2]),
    ]
    assert [(call["path"], call["asked"]) for call in shown["unresolved"]] == [([2], "call(charge, 500)")]


def test_flows_are_looked_at_beside_a_writer(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        fill(store)
        for command in (["list", f"file:{tmp_path / 'store'}"], ["show", f"file:{tmp_path / 'store'}", "o-1"]):
            done = invoke(*command)
            assert done.exit_code == 0, done.output


# Telling


def test_a_call_is_resolved_and_a_signal_is_sent_and_the_next_host_goes_on(url):
    done = invoke("resolve", url, "o-1", "2", '"paid by hand"')
    assert (done.exit_code, done.stdout) == (0, "sent: what came of step 2 of o-1\n"), done.output
    assert invoke("signal", url, "o-1", "approved", '{"by": "Ada"}').stdout == "sent: approved to o-1\n"
    assert json.loads(invoke("show", url, "o-1", "--json").stdout)["unresolved"] == []
    with open_store(url) as store, hosted(store) as host:
        assert host.result("o-1", timeout=60) == ["reserved\n\x1b[31m7", "paid by hand", {"by": "Ada"}]


def test_a_call_is_resolved_with_an_error(url):
    assert invoke("resolve", url, "o-1", "2", "--error", "no cover").exit_code == 0
    failed = pytest.raises(FlowFailed, match="raised RuntimeError: no cover")
    with open_store(url) as store, hosted(store) as host, failed:
        host.result("o-1", timeout=60)


def test_a_flow_is_cancelled(url):
    done = invoke("cancel", url, "o-2", "--json")
    assert json.loads(done.stdout) == {"flow_id": "o-2", "message": 2}
    with open_store(url) as store, hosted(store) as host, pytest.raises(FlowFailed, match="was cancelled"):
        host.result("o-2", timeout=60)


def test_a_flow_is_paused_and_resumed(url):
    assert invoke("pause", url, "o-2").stdout == "asked for: o-2 is paused\n"
    with open_store(url) as store, hosted(store):
        until_state(store, "o-2", "paused")
    assert invoke("resume", url, "o-2").stdout == "asked for: o-2 goes on\n"
    with open_store(url) as store, hosted(store) as host:
        host.signal("o-2", "approved")
        assert host.result("o-2", timeout=60) == ["reserved 8", "paid 500", None]


def test_a_flow_that_was_set_aside_is_retried(url):
    with open_store(url) as store:
        for _ in range(10):
            store.run(log.append("flow/o-2", journal.CLAIMED, {"token": b"one that it ended"}))
        conducted(store, "o-2", order)
    assert invoke("list", url, "--state", "set-aside").stdout.count("o-2") == 1
    assert "error: it was taken over 10 times in a row without getting on" in invoke("show", url, "o-2").stdout
    assert invoke("retry", url, "o-2").stdout == "asked for: o-2 is taken up again\n"
    assert json.loads(invoke("show", url, "o-2", "--json").stdout)["state"] == "running"


def test_a_flow_is_forked_and_the_fork_goes_on(url):
    done = invoke("fork", url, "o-1", "o-3", "--at", 2)
    assert (done.exit_code, done.stdout) == (0, "forked: o-1 at entry 2, as o-3\n"), done.output
    assert invoke("signal", url, "o-3", "approved").exit_code == 0
    with open_store(url) as store, hosted(store) as host:
        assert host.result("o-3", timeout=60) == ["reserved 7", "paid 500", None]


def test_a_flow_that_is_paused_is_rewound(url):
    assert invoke("pause", url, "o-1").exit_code == 0
    with open_store(url) as store, hosted(store):
        until_state(store, "o-1", "paused")
    assert invoke("rewind", url, "o-1", "--at", 1, "--yes").stdout == "rewound: o-1 to entry 1\n"
    assert invoke("resume", url, "o-1").exit_code == 0
    with open_store(url) as store, hosted(store) as host:
        until(store, "o-1", lambda history: history[-1].path == (2,) and history[-1].kind == "answered")
        host.signal("o-1", "approved")
        assert host.result("o-1", timeout=60) == ["reserved 7", "paid 500", None]


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "URL", "none"], "there is no flow 'none' that goes on: it was never begun"),
        (["list", "URL", "--state", "asleep"], "state is 'asleep': give one of waiting, running"),
        (["list", "URL", "--tag", "customer"], "a tag is 'customer': give KEY=VALUE"),
        (["signal", "URL", "g-1", "approved"], "no flow 'g-1' that goes on: it has ended, completed"),
        (["signal", "URL", "o-1", "approved", "yes"], "'yes' is not JSON"),
        (["signal", "URL", "o-1", "approved", "3.0"], 'write {"$float": "3.0"}, or an integer'),
        (["retry", "URL", "o-1"], "flow 'o-1' is running: only one that is halted or set aside"),
        (["resolve", "URL", "o-1", "2"], "give what the call returned, as JSON, or what it raised"),
        (["resolve", "URL", "o-1", "2", "1", "--error", "no"], "give what the call returned, as JSON, or what it"),
        (["resolve", "URL", "o-1", "two", "1"], "a step is 'two': give its path, as 3 or 3.1.2"),
        (["resolve", "URL", "o-1", "1", "1"], "step 1 of flow 'o-1' does not wait to be resolved: those that do: 2"),
        (["resolve", "URL", "o-2", "1", "1"], "those that do: none"),
        (["fork", "URL", "o-1", "o-2", "--at", "2"], "flow 'o-2' is there already, and not a fork of 'o-1'"),
        (["fork", "URL", "o-1", "o-3", "--at", "9"], "flow 'o-1' has no entry 9 to go on from"),
        (["fork", "URL", "g-1", "g-2", "--at", "1"], "no flow 'g-1' that goes on: it has ended, completed"),
        (["rewind", "URL", "o-1", "--at", "1", "--yes"], "flow 'o-1' is running: pause it"),
        (["rewind", "URL", "o-1", "--at", "1"], "give --yes if that is meant"),
        (["rewind", "URL", "none", "--at", "1"], "there is no flow 'none' that goes on"),
        (["cancel", "URL-not-there", "o-1"], "there is no store in"),
        (["cancel", "memory:", "o-1"], "a memory store is gone with its process"),
    ],
)
def test_wrong_use_exits_with_2_and_changes_nothing(tmp_path, arguments, message):
    url = f"file:{tmp_path / 'store'}"
    with open_store(url) as store:
        fill(store)
        before = store.run(kv.entries()), store.run(log.head())
    done = invoke(*[argument.replace("URL", url) for argument in arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "store-not-there").exists()
    with open_store(url) as store:
        assert (store.run(kv.entries()), store.run(log.head())) == before


def test_an_error_is_told_to_machines_too(url):
    done = invoke("show", url, "none", "--json")
    assert (done.exit_code, json.loads(done.stdout)["error"]) == (2, "NoSuchFlow")


def test_a_flow_of_a_store_that_a_host_writes_is_told_nothing_and_that_exits_with_3(tmp_path):
    url = f"file:{tmp_path / 'store'}"
    with open_store(url) as store:
        fill(store)
        assert invoke("signal", url, "o-1", "approved").exit_code == 3
        assert store.run(log.last_seq("flow-inbox/o-1")) == 1


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2)])
def test_at_a_terminal_it_is_asked_before_a_flow_is_rewound(tmp_path, answer, code):
    url = f"sqlite:{tmp_path / 'store'}"
    with open_store(url) as store:
        fill(store)
        standing = store.run(kv.get("flow-open/o-1"))
        store.run(kv.put("flow-open/o-1", {**standing, "state": journal.HALTED}))
    ended, _, errors = answered(answer, "flows", "rewind", url, "o-1", "--at", "1")
    assert ended == code, errors
    assert "What flow 'o-1' did after entry 1 is dropped from its journal, and done again. Is that meant?" in errors
    with open_store(url) as store:
        assert store.run(flow.status("o-1")).run == (2 if code == 0 else 1)
