"""The commands for followers: what they print for people and for machines, and what they wait for."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from commanding import KINDS, answered, invoke, store_of
from conftest import stop_after
from places import ROOT

from interpreters import open_store
from interpreters.cli.stepping import run_watched
from persist_effects import Group, ReadModel, StoreClosed, follow, followers, kv, log
from persist_effects.requests import KvPut

TOTALS = ReadModel("totals")


def add(event, totals):
    return [totals.put(f"{event.stream}/{event.seq}", event.data)]


def mail(event):
    if event.stream == "orders/1":
        raise ValueError("no\nroute \x1b[31m")
    return [KvPut(f"mailed/{event.stream}", event.seq)]


def fill(store):
    """Two followers, each of which has three events before it: one has a read model, one has set events aside."""
    for number in range(5):
        store.run(log.append(f"orders/{number % 3}", "placed", number, at=0))
    store.run(follow(TOTALS, "orders/", add))
    store.run(follow("mails", "orders/", mail, on_error="set-aside"))
    for number in range(3):
        store.run(log.append("orders/0", "placed", number, at=1_000_000))


@pytest.fixture(params=KINDS)
def url(request, tmp_path):
    with store_of(request.param, tmp_path, fill) as found:
        yield found


@pytest.fixture
def shared(tmp_path):
    """The URL of a store that other processes may write."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    with open_store(url) as store:
        fill(store)
    return url


@contextmanager
def followed(url, *arguments, **options):
    """Somebody follows, until the block ends."""
    store = open_store(url)

    def go_on():
        with suppress(StoreClosed):
            store.run(follow(*arguments, timeout=float("inf"), **options))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        store.close()
        thread.join()


def test_all_followers_are_listed_with_how_far_each_is_behind(url):
    done = invoke("followers", url)
    assert done.exit_code == 0, done.output
    head, mails, totals = done.stdout.splitlines()
    assert head.split()[:6] == ["NAME", "VERSION", "PREFIX", "POSITION", "BEHIND", "SINCE"]
    assert head.split()[6:] == ["MEMBERS", "ASIDE", "SKIPPED", "STATE"]
    assert mails.split() == ["mails", "1", "orders/", "5", "3", "1970-01-01T00:00:01+00:00", "-", "1", "0", "-"]
    assert totals.split() == ["totals", "1", "orders/", "5", "3", "1970-01-01T00:00:01+00:00", "-", "0", "0", "-"]


def test_the_list_is_json_too(url):
    (mails, totals) = json.loads(invoke("followers", url, "--json").stdout)["followers"]
    assert (mails["name"], mails["unseen"], mails["since"], mails["aside"][0]["stream"]) == (
        "mails",
        3,
        1_000_000,
        "orders/1",
    )
    assert (totals["has_model"], totals["building"]) == (True, None)


def test_a_store_without_followers_says_so(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        store.run(kv.put("color", "red"))
    assert invoke("followers", f"file:{tmp_path / 'store'}").stdout == "there is no follower\n"
    assert json.loads(invoke("followers", f"file:{tmp_path / 'store'}", "--json").stdout) == {"followers": []}


def test_followers_are_looked_at_beside_a_writer(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        fill(store)
        for command in (["followers"], ["follower", "show"], ["follower", "lag"], ["follower", "set-aside"]):
            name = [] if command == ["followers"] else ["mails"]
            done = invoke(*command, f"file:{tmp_path / 'store'}", *name)
            assert done.exit_code == 0, done.output


def test_a_follower_is_shown_with_what_it_set_aside_and_why(url):
    lines = invoke("follower", "show", url, "mails").stdout.splitlines()
    assert lines[:9] == [
        "name: mails",
        "prefix: orders/",
        "types: all",
        "version: 1",
        "position: 5",
        "read model: no",
        "skipped: 0",
        "missed: 0",
        "state: -",
    ]
    # What came from elsewhere cannot steer the terminal.
    assert lines[9] == "set aside: 1 streams"
    assert lines[10].startswith(r"aside: stream 'orders/1': events 1 to 2: ValueError: no\nroute \x1b[31m (a placed, ")


def test_a_group_is_shown_with_who_has_what(shared):
    with open_store(shared) as store:
        store.run(follow("grouped", "orders/", lambda event: [], group=Group(partitions=3)))
    assert "nobody: partitions 0, 1, 2" in invoke("follower", "show", shared, "grouped").stdout.splitlines()
    assert " 0 for 3 " in invoke("followers", shared).stdout


def test_how_far_a_follower_is_behind_is_counted(url):
    assert invoke("follower", "lag", url, "totals").stdout.splitlines() == [
        "position: 5",
        f"head: {json.loads(invoke('follower', 'lag', url, 'totals', '--json').stdout)['head']}",
        "behind: 3",
        "since: 1970-01-01T00:00:01+00:00",
    ]


def test_what_was_set_aside_is_listed(url):
    (found,) = json.loads(invoke("follower", "set-aside", url, "mails", "--json").stdout)["aside"]
    assert (found["stream"], found["first"], found["through"], found["tried"]) == ("orders/1", 1, 2, 1)
    assert invoke("follower", "set-aside", url, "totals").stdout == "nothing was set aside\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["follower", "show", "URL", "none"], "there is no follower 'none': there are 'mails', 'totals'"),
        (["follower", "rebuild", "URL", "mails"], "has no read model"),
        (["follower", "reset", "URL", "totals", "--yes"], "has a read model"),
        (["follower", "reset", "URL", "mails", "--to", "999", "--yes"], "the store ends at "),
        (["follower", "reset", "URL", "mails"], "give --yes if that is meant"),
        (["follower", "forget", "URL", "mails"], "give --yes if that is meant"),
        (["follower", "forget", "URL-not-there", "mails", "--yes"], "there is no store in"),
        (["follower", "forget", "memory:", "mails", "--yes"], "a memory store is gone with its process"),
        (["followers", "URL-not-there"], "give the path of a store that is there"),
    ],
)
def test_wrong_use_exits_with_2_and_changes_nothing(tmp_path, arguments, message):
    url = f"file:{tmp_path / 'store'}"
    with open_store(url) as store:
        fill(store)
        before = store.run(kv.entries())
    done = invoke(*[argument.replace("URL", url) for argument in arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "store-not-there").exists()
    with open_store(url) as store:
        assert store.run(kv.entries()) == before


def test_a_store_that_another_process_writes_is_not_changed_and_exits_with_3(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        fill(store)
        assert invoke("follower", "forget", f"file:{tmp_path / 'store'}", "mails", "--yes").exit_code == 3
        assert store.run(followers.names()) == ["mails", "totals"]


def test_a_follower_is_reset_to_a_position(url):
    assert invoke("follower", "reset", url, "mails", "--to", 2, "--yes").stdout == "reset: mails, to 2\n"
    assert json.loads(invoke("follower", "lag", url, "mails", "--json").stdout)["unseen"] == 6


def test_a_follower_is_forgotten_with_all_its_keys(url):
    done = invoke("follower", "forget", url, "totals", "--yes", "--json")
    # Five values of its read model, its checkpoint, and what would be built beside it.
    assert json.loads(done.stdout) == {"name": "totals", "keys": 7}
    assert invoke("followers", url).stdout.count("totals") == 0
    assert invoke("follower", "forget", url, "totals", "--yes").exit_code == 2


def test_who_removes_a_group_is_told_of_its_members(shared):
    with open_store(shared) as store:
        program = follow("grouped", "orders/", lambda event: [], group=Group(partitions=3), timeout=60)
        assert not stop_after(program, store, 20)
    assert (
        "Members of it give signs of life, 1: end them first" in invoke("follower", "forget", shared, "grouped").stderr
    )


def test_a_rebuild_and_a_retry_are_asked_for(url):
    assert invoke("follower", "rebuild", url, "totals").stdout.startswith("asked for: totals is built anew through ")
    assert invoke("follower", "retry", url, "mails").stdout.startswith("asked for: 1 streams of mails are tried again")
    assert invoke("follower", "retry", url, "totals").stdout == "nothing of totals was set aside\n"
    told = invoke("followers", url).stdout
    assert "building version 1: 0 of " in told
    assert "to try again" in told


def test_a_rebuild_is_awaited_until_it_has_taken_over(shared):
    with followed(shared, TOTALS, "orders/", add):
        done = invoke("follower", "rebuild", "--wait", shared, "totals")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("rebuilt: totals, version 1, through position ")
    with open_store(shared) as store:
        assert len(store.run(TOTALS.keys())) == 8
        assert len(store.run(kv.keys("model/totals/"))) == 8


def test_who_waits_for_a_rebuild_that_somebody_else_has_asked_for_waits_for_that_one(shared):
    assert invoke("follower", "rebuild", shared, "totals").exit_code == 0
    assert invoke("follower", "rebuild", shared, "totals").exit_code == 2
    with followed(shared, TOTALS, "orders/", add):
        assert invoke("follower", "rebuild", "--wait", shared, "totals").exit_code == 0


def test_a_rebuild_is_cancelled(url):
    assert invoke("follower", "cancel", url, "totals").stdout == "nothing of totals is being built\n"
    invoke("follower", "rebuild", url, "totals")
    assert invoke("follower", "cancel", url, "totals").stdout == "cancelled: what was built of totals\n"
    assert "building" not in invoke("followers", url).stdout


def test_a_rebuild_of_what_was_dropped_is_refused_unless_that_is_said(url):
    with open_store(url) as store:
        store.run(log.truncate_through("orders/2", 1))
    refused = invoke("follower", "rebuild", url, "totals")
    assert refused.exit_code == 2
    assert "'orders/2' was truncated" in refused.stderr
    assert invoke("follower", "rebuild", "--skip-truncated", url, "totals").exit_code == 0


@pytest.mark.parametrize("arguments", [["rebuild", "totals"], ["retry", "mails"]])
def test_ctrl_c_ends_the_waiting_and_what_was_asked_for_stays_asked_for(shared, arguments):
    command, name = arguments
    child = subprocess.Popen(
        [sys.executable, "-m", "interpreters.cli", "follower", command, "--wait", shared, name],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    with open_store(shared) as store:
        while not (found := store.run(followers.registered(name))).awaits_retry and found.building is None:
            store.run(kv.wait(store.run(kv.wait(0, "follow", 0)), "follow", 1.0))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
        assert (child.returncode, errors) == (130, "persist-effects: interrupted\n")
        found = store.run(followers.registered(name))
        assert found.awaits_retry or found.building is not None


def test_a_retry_is_awaited_and_tells_what_is_set_aside_still(shared):
    with followed(shared, "mails", "orders/", mail, on_error="set-aside"):
        done = invoke("follower", "retry", "--wait", shared, "mails")
    assert done.stdout.splitlines()[0] == "tried again: 1 streams of mails; 1 are set aside still"
    with followed(shared, "mails", "orders/", lambda event: [], on_error="set-aside"):
        done = invoke("follower", "retry", "--wait", shared, "mails")
    assert done.stdout == "tried again: 1 streams of mails; 0 are set aside still\n"


@pytest.mark.parametrize("arguments", [["rebuild", "totals"], ["retry", "mails"]])
def test_where_nobody_follows_waiting_ends_with_3_and_says_so(shared, arguments):
    command, name = arguments
    done = invoke("follower", command, "--wait", "--patience", 0.1, shared, name)
    assert done.exit_code == 3
    assert f"follower '{name}' has not moved from position" in done.stderr
    assert "what was asked for stays asked for" in done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "is_there"), [(b"y\n", 0, False), (b"n\n", 2, True), (b"\n", 2, True), (b"\x04", 130, True)]
)
def test_at_a_terminal_it_is_asked_before_a_follower_is_removed(shared, answer, code, is_there):
    ended, _, errors = answered(answer, "follower", "forget", shared, "totals")
    assert ended == code, errors
    assert "The follower 'totals' will be removed: its checkpoint and its read model. Is that meant?" in errors
    with open_store(shared) as store:
        assert ("totals" in store.run(followers.names())) == is_there
        assert len(store.run(TOTALS.keys())) == (5 if is_there else 0)


class Pressed(BaseException):
    """Ctrl-C."""


def test_forgetting_is_interrupted_after_any_request_and_done_again():
    interrupted, is_done = 0, False
    while not is_done:
        with open_store("memory:") as store:
            fill(store)
            store.run(kv.put("other", 1))
            try:
                run_watched(store, followers.forget("totals"), pressed_after(interrupted))
                is_done = True
            except Pressed:
                if "totals" in store.run(followers.names()):
                    store.run(followers.forget("totals"))
            assert store.run(followers.names()) == ["mails"]
            assert [key for key in store.run(kv.keys()) if "totals" in key] == []
            assert store.run(kv.get("other")) == 1
        interrupted += 1
    assert interrupted > 5


def pressed_after(count):
    left = [count]

    def watch(request, answer):
        left[0] -= 1
        if left[0] < 0:
            raise Pressed

    return watch
