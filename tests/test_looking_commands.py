"""The commands that look inside of any store and change a key: what they print, and what they refuse."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys

import pytest
from commanding import KINDS, answered, invoke, store_of
from places import ROOT

import persist_effects
from interpreters import open_store
from interpreters.cli.lines import print_pages
from persist_effects import Draft, Group, flow, follow, kv, log
from persist_effects.requests import PAGE_SIZE, KvPut

TYPES = "looked_at_types"


def lines_of(*arguments):
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def json_of(*arguments):
    return [json.loads(line) for line in lines_of(*arguments, "--json")]


def fill(store):
    """Two streams, one of which was truncated, and three keys."""
    store.run(log.append_many("orders/1", [Draft("placed", {"total": n}, at=n) for n in range(1, 6)]))
    store.run(log.append("users/1", "joined", {"name": "Ada"}, at=0, meta={"by": "web"}))
    store.run(log.truncate_through("orders/1", 2))
    store.run(kv.put("color", "red"))
    store.run(kv.put("order", {"total": 12}))
    store.run(kv.put("raw", b"\x00\xff"))


@pytest.fixture(params=KINDS)
def url(request, tmp_path):
    with store_of(request.param, tmp_path, fill) as found:
        yield found


@pytest.fixture
def place(tmp_path):
    """The URL of a file store."""
    with open_store(f"file:{tmp_path / 'store'}") as store:
        fill(store)
    return f"file:{tmp_path / 'store'}"


# Names


def test_streams_are_listed_by_name(url):
    assert lines_of("streams", url) == ["orders/1", "users/1"]
    assert lines_of("streams", url, "--prefix", "users/") == ["users/1"]
    assert lines_of("streams", url, "--after", "orders/1") == ["users/1"]
    assert json_of("streams", url) == [{"stream": "orders/1"}, {"stream": "users/1"}]


def test_streams_are_counted_also_where_some_events_were_truncated(url):
    with open_store(url) as store:
        store.run(log.append("gone", "made", 1))
        store.run(log.drop("gone"))
    assert [line.split() for line in lines_of("streams", url, "--counts")] == [
        ["EVENTS", "LAST", "STREAM"],
        ["0", "1", "gone"],
        ["3", "5", "orders/1"],
        ["1", "1", "users/1"],
    ]
    assert json_of("streams", url, "--counts")[1] == {"stream": "orders/1", "events": 3, "last_seq": 5}


def test_keys_are_listed_by_name_and_with_what_stands_under_them(url):
    assert lines_of("keys", url) == ["color", "order", "raw"]
    assert lines_of("keys", url, "--prefix", "o") == ["order"]
    assert lines_of("keys", url, "--after", "order") == ["raw"]
    assert [line.split() for line in lines_of("keys", url, "--values")] == [
        ["REVISION", "KEY", "VALUE"],
        ["1", "color", '"red"'],
        ["2", "order", '{"total":12}'],
        ["3", "raw", '{"$bytes":"AP8="}'],
    ]
    assert json_of("keys", url, "--prefix", "c") == [{"key": "color"}]
    assert json_of("keys", url, "--values")[1] == {"key": "order", "value": {"total": 12}, "revision": 2}


def test_a_list_that_ends_at_its_limit_says_how_to_go_on(url):
    done = invoke("keys", url, "--limit", 2)
    assert (done.stdout, done.stderr) == ("color\norder\n", "there is more: go on with --after order\n")
    assert invoke("keys", url, "--limit", 3).stderr == ""
    assert invoke("streams", url, "--limit", 1).stderr == "there is more: go on with --after orders/1\n"
    assert invoke("read", url, "orders/1", "--limit", 2).stderr.splitlines()[-1] == (
        "there is more: go on with --after 4"
    )


@pytest.mark.parametrize("command", ["streams", "keys"])
def test_names_over_many_pages_are_each_listed_once(tmp_path, command):
    url, names = f"file:{tmp_path / 'many'}", [f"n/{number:05}" for number in range(2 * PAGE_SIZE + 1)]
    with open_store(url) as store:
        store.run_many([log.append(name, "made", 1) for name in names] + [kv.put(name, 1) for name in names])
    assert lines_of(command, url) == names
    assert lines_of(command, url, "--limit", PAGE_SIZE + 1) == names[: PAGE_SIZE + 1]
    assert lines_of(command, url, "--limit", 2 * PAGE_SIZE) == names[: 2 * PAGE_SIZE]


def test_a_page_is_asked_for_once_the_one_before_it_is_printed():
    done = []

    def pages():
        for number in range(3):
            done.append(f"asked {number}")
            yield [number]

    print_pages(pages(), 2, lambda number: done.append(f"printed {number}"), str)
    assert done == ["asked 0", "printed 0", "asked 1", "printed 1", "asked 2"]


# Events


def test_a_stream_is_read_and_what_was_truncated_is_told(url):
    done = invoke("read", url, "orders/1")
    assert done.stdout.splitlines() == [
        '3 1970-01-01T00:00:00.000003+00:00 placed {"total":3}',
        '4 1970-01-01T00:00:00.000004+00:00 placed {"total":4}',
        '5 1970-01-01T00:00:00.000005+00:00 placed {"total":5}',
    ]
    assert done.stderr == "events before 3 were truncated\n"
    assert lines_of("read", url, "users/1") == ['1 1970-01-01T00:00:00+00:00 joined {"name":"Ada"} meta {"by":"web"}']


def test_a_stream_is_read_in_part_and_backwards(url):
    def seqs(*options):
        return [line["event"][1] for line in json_of("read", url, "orders/1", *options)]

    assert seqs() == [3, 4, 5]
    assert seqs("--after", 3) == [4, 5]
    assert seqs("--until", 4) == [3, 4]
    assert seqs("--backwards", "--limit", 2) == [5, 4]
    assert invoke("read", url, "orders/1", "--backwards", "--limit", 2).stderr.splitlines() == [
        "events before 3 were truncated",
        "there is more: go on with --until 3",
    ]


def test_a_stream_of_many_pages_is_read_to_its_end_either_way(tmp_path):
    url, count = f"file:{tmp_path / 'many'}", 2 * PAGE_SIZE + 1
    with open_store(url) as store:
        store.run(log.append_many("n", [Draft("made", number) for number in range(count)]))
    expected = list(range(1, count + 1))
    assert [int(line.split()[0]) for line in lines_of("read", url, "n")] == expected
    assert [int(line.split()[0]) for line in lines_of("read", url, "n", "--backwards")] == expected[::-1]


def test_events_are_looked_at_as_a_type_or_a_schema(url):
    one, *_ = lines_of("read", url, "orders/1", "--type", f"{TYPES}:Placed")
    assert one.endswith(" placed Placed(total=3, currency='EUR')")
    found = json_of("tail", url, "--no-follow", "--type", f"{TYPES}:EVENTS")
    assert [line["event"][4] for line in found[-2:]] == [{"total": 5, "currency": "EUR"}, {"name": "Ada"}]
    done = invoke("read", url, "users/1", "--type", f"{TYPES}:Placed")
    assert done.exit_code == 2
    assert "event 1 of stream 'users/1', type 'joined', does not fit" in done.stderr


def test_tail_takes_any_store_and_begins_with_the_newest(url):
    def positions(*options):
        return [line["position"] for line in json_of("tail", url, "--no-follow", *options)]

    assert positions() == [3, 4, 5, 6]
    assert positions("--last", 2) == [5, 6]
    assert positions("--last", 2, "--prefix", "orders/") == [4, 5]
    assert positions("--last", 0) == []
    assert positions("--last", 2, "--after", 5) == [6]
    assert positions("--limit", 3) == [3, 4, 5]


def test_tail_f_goes_on_with_what_another_process_writes(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        fill(store)
        command = [sys.executable, "-m", "interpreters.cli", "tail", f"file:{tmp_path / 'store'}", "-f", "--last", "1"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert " users/1 1 joined " in child.stdout.readline()
            store.run(log.append("s", "made", "now"))
            assert child.stdout.readline().endswith('s 1 made "now"\n')
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "persist-effects: interrupted\n")


# Keys


def test_a_key_is_shown_with_its_revision(url):
    assert lines_of("get", url, "order") == ["order: revision 2", "{", '  "total": 12', "}"]
    assert json_of("get", url, "raw") == [{"key": "raw", "value": {"$bytes": "AP8="}, "revision": 3}]


def test_a_key_is_shown_as_a_type(url):
    assert lines_of("get", url, "order", "--type", f"{TYPES}:Placed") == [
        "order: revision 2",
        "Placed(total=12, currency='EUR')",
    ]
    (found,) = json_of("get", url, "order", "--type", f"{TYPES}:Placed")
    assert found["value"] == {"total": 12, "currency": "EUR"}


def test_a_value_is_put_and_read_back(url):
    assert lines_of("put", url, "size", '{"cm": 3}') == ["put: size, revision 4"]
    assert json_of("put", url, "size", "4") == [{"key": "size", "revision": 5}]
    assert invoke("put", url, "size", "-", input='[1, {"$bytes": "AP8="}]\n').exit_code == 0
    with open_store(url) as store:
        assert store.run(kv.get("size")) == [1, b"\x00\xff"]


def test_a_value_of_a_type_is_checked_before_it_is_put(url):
    assert invoke("put", url, "order", '{"total": 7}', "--type", f"{TYPES}:Placed").exit_code == 0
    done = invoke("put", url, "order", '{"total": "7"}', "--type", f"{TYPES}:Placed")
    assert done.exit_code == 2
    assert "key 'order' does not fit Placed: Expected `int`, got `str` - at `$.total`" in done.stderr
    with open_store(url) as store:
        assert store.run(kv.get("order")) == {"total": 7, "currency": "EUR"}


@pytest.mark.parametrize("arguments", [["put", "color", '"blue"'], ["delete", "color"]])
def test_where_another_revision_is_there_nothing_is_changed_and_both_are_told(url, arguments):
    command, key, *value = arguments
    done = invoke(command, url, key, *value, "--expect", 7, "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"] == "RevisionConflict"
    assert "key 'color' has revision 1, and 7 was expected: nothing was changed" in done.stderr
    assert invoke(command, url, "none", *value, "--expect", 7).stderr.count("key 'none' is not there, and") == 1
    assert invoke(command, url, key, *value, "--expect", 1).exit_code == 0


def test_a_key_that_must_be_absent_is_put_once(url):
    assert invoke("put", url, "new", "1", "--expect", 0).exit_code == 0
    again = invoke("put", url, "new", "2", "--expect", 0)
    assert again.exit_code == 2
    assert "key 'new' has revision 4, and it was expected to be absent" in again.stderr


def test_a_key_is_deleted(url):
    assert lines_of("delete", url, "color", "--yes") == ["deleted: color"]
    assert lines_of("delete", url, "color", "--yes") == ["there was no key color"]
    assert json_of("delete", url, "order", "--expect", 2) == [{"key": "order", "deleted": True}]
    assert lines_of("keys", url) == ["raw"]


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2)])
def test_at_a_terminal_it_is_asked_before_a_key_is_deleted(place, answer, code):
    ended, _, errors = answered(answer, "delete", place, "color")
    assert ended == code, errors
    assert "The key 'color' will be deleted. Is that meant?" in errors
    with open_store(place) as store:
        assert store.run(kv.has("color")) == (code == 2)


# Stats and doctor


def test_stats_counts_any_store(url):
    (found,) = json_of("stats", url)
    assert {name: found[name] for name in ("streams", "events", "keys", "position", "revision")} == {
        "streams": 2,
        "events": 4,
        "keys": 3,
        "position": 6,
        "revision": 3,
    }
    assert "events: 4" in lines_of("stats", url)


def test_the_doctor_says_what_a_store_promises_and_finds_nothing_in_a_healthy_one(url):
    lines = lines_of("doctor", url)
    assert "durability: commit, what is acknowledged outlives the machine" in lines
    assert lines[-1] == "nothing was found that needs care"
    (found,) = json_of("doctor", url)
    assert (found["promises"]["durability"], found["findings"]) == ("commit", [])


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_the_doctor_finds_settings_that_lose_what_was_acknowledged(tmp_path, kind):
    url = f"{kind}:{tmp_path / 'store'}"
    open_store(url).close()
    (found,) = json_of("doctor", f"{url}?sync=os")
    assert (found["promises"]["durability"], [one["kind"] for one in found["findings"]]) == ("os", ["unsafe"])
    assert "open the store with sync=commit" in invoke("doctor", f"{url}?sync=interval").stdout


def test_the_doctor_says_who_may_write_a_store_that_is_shared(tmp_path):
    open_store(f"file:{tmp_path / 'store'}").close()
    assert json_of("doctor", f"file:{tmp_path / 'store'}?share=yes")[0]["promises"]["processes"] == "many"
    assert json_of("doctor", f"file:{tmp_path / 'store'}")[0]["promises"]["processes"] == "one-writer"


def failing(event):
    if event.stream == "orders/1":
        raise ValueError("no route")
    return [KvPut(f"mailed/{event.stream}", event.seq)]


def test_the_doctor_finds_followers_that_are_behind_or_have_set_something_aside(url):
    with open_store(url) as store:
        store.run(follow("mails", "orders/", failing, on_error="set-aside", skip_truncated=True))
        store.run(follow("grouped", "orders/", lambda event: [], group=Group(partitions=2), skip_truncated=True))
        store.run(log.append("orders/2", "placed", 1, at=1_000_000))
    (found,) = json_of("doctor", url)
    assert [one["kind"] for one in found["findings"]] == ["behind", "behind", "failed"]
    told = "\n".join(lines_of("doctor", url))
    assert "behind: follower 'mails' has not seen 1 events, the first from 1970-01-01T00:00:01+00:00: " in told
    assert "failed: follower 'mails' has set aside events of 1 streams: " in told
    assert "persist-effects follower set-aside" in told


def stuck():
    yield from flow.signal("approved")


def test_the_doctor_finds_flows_that_wait_for_a_person(url):
    with open_store(url) as store:
        store.run(flow.begin("f-1", stuck))
        standing = store.run(kv.get("flow-open/f-1"))
        store.run(kv.put("flow-open/f-1", {**standing, "state": "halted"}))
    (found,) = json_of("doctor", url)
    assert [(one["kind"], one["what"]) for one in found["findings"]] == [
        ("failed", "1 flows are halted, the first f-1")
    ]


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "URL", "none"], "there is no key 'none': `persist-effects keys` lists those that there are"),
        (["read", "URL", "none"], "there is no stream 'none': `persist-effects streams` lists those that there are"),
        (["get", "URL", "users/1"], "no key 'users/1': a stream has that name, which `persist-effects read` shows; "),
        (["read", "URL", "color"], "no stream 'color': a key has that name, which `persist-effects get` shows; "),
        (["get", "URL", ""], "key is empty"),
        (["put", "URL", "size", "large"], "'large' is not JSON"),
        (["put", "URL", "size", "3.0"], 'write {"$float": "3.0"}, or an integer'),
        (["put", "URL", "size", "1", "--expect", "-1"], "Invalid value"),
        (["put", "URL-none", "size", "1"], "there is no store in"),
        (["put", "memory:", "size", "1"], "a memory store is gone with its process"),
        (["delete", "URL", "color"], "give --yes if that is meant"),
        (["streams", "memory:"], "a memory store is gone with its process"),
        (["doctor", "memory:"], "a memory store is gone with its process"),
        (["doctor", "URL?sink=os"], "a file store has no option 'sink'"),
        (["keys", "URL-none"], "give the path of a store that is there"),
        (["stats", "nothing:"], "names no store"),
        (["get", "URL", "order", "--type", "Placed"], "a type is 'Placed': give MODULE:NAME"),
        (["get", "URL", "order", "--type", "no_such_module:Placed"], "no_such_module cannot be imported"),
        (["get", "URL", "order", "--type", f"{TYPES}:Nothing"], f"{TYPES} has nothing that is named 'Nothing'"),
        (["get", "URL", "order", "--type", f"{TYPES}:NUMBER"], f"{TYPES}:NUMBER is 12"),
        (["get", "URL", "order", "--type", f"{TYPES}:EVENTS"], "a Schema is for events"),
        (["get", "URL", "order", "--type", f"{TYPES}:CELL"], "give the type that the cell was made with"),
        (["get", "URL", "color", "--type", f"{TYPES}:Placed"], "key 'color' does not fit Placed: Expected `object`"),
    ],
)
def test_wrong_use_exits_with_2_and_changes_nothing(place, arguments, message):
    with open_store(place) as store:
        before = store.run(kv.entries()), store.run(log.head())
    done = invoke(*[argument.replace("URL", place) for argument in arguments])
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not os.path.exists(place.removeprefix("file:") + "-none")
    with open_store(place) as store:
        assert (store.run(kv.entries()), store.run(log.head())) == before


def test_a_store_that_another_process_writes_is_looked_at_and_not_changed(place):
    with open_store(place) as store:
        for command in (["streams"], ["read", "orders/1"], ["keys"], ["get", "color"], ["stats"], ["doctor"]):
            done = invoke(command[0], place, *command[1:])
            assert done.exit_code == 0, done.output
        for command in (["put", "color", "1"], ["delete", "color", "--yes"]):
            done = invoke(command[0], place, *command[1:], "--json")
            assert (done.exit_code, json.loads(done.stdout)["error"]) == (3, "StoreLocked")
        assert store.run(kv.get("color")) == "red"


@pytest.mark.parametrize("command", [["streams"], ["read", "users/1"], ["keys"], ["get", "color"], ["doctor"]])
def test_a_reader_that_went_away_exits_with_141_quietly(place, command):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "interpreters.cli", command[0], place, *command[1:]]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True) as child:
        os.close(writing)
        _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (141, "")


# The terminal, the shell


def test_a_terminal_gets_colours_and_a_pipe_none(place):
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": ""}
    for command in (["streams"], ["read", "orders/1"], ["keys", "--values"], ["get", "color"], ["doctor"]):
        assert "\x1b[" in invoke(command[0], place, *command[1:], env=terminal).stdout
        assert "\x1b[" not in invoke(command[0], place, *command[1:]).stdout
        assert "\x1b[" not in invoke(command[0], place, *command[1:], "--json", env=terminal).stdout
        assert "\x1b[" not in invoke(command[0], place, *command[1:], env={**terminal, "NO_COLOR": "1"}).stdout


def test_what_stands_in_a_store_cannot_steer_the_terminal(place):
    with open_store(place) as store:
        store.run(kv.put("steer\u202e", "\x9b31m\u202e"))
    done = invoke("keys", place, "--values", "--prefix", "steer").stdout
    assert r"steer\u202e  \"\x9b31m\u202e\"".replace('\\"', '"') in done
    assert "\\u202e" in invoke("get", place, "steer\u202e").stdout


def test_the_version_is_that_of_the_package():
    assert persist_effects.__version__ == importlib.metadata.version("persist-effects")
    assert lines_of("--version") == [f"persist-effects {persist_effects.__version__}"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(shell):
    done = invoke(env={"_PERSIST_EFFECTS_COMPLETE": f"source_{shell}"}, prog_name="persist-effects")
    assert done.exit_code == 0, done.output
    assert "persist-effects" in done.stdout


def test_commands_are_completed():
    asked = {"_PERSIST_EFFECTS_COMPLETE": "complete_bash", "COMP_WORDS": "persist-effects st", "COMP_CWORD": "1"}
    assert invoke(env=asked, prog_name="persist-effects").stdout.split() == ["streams", "stats"]
