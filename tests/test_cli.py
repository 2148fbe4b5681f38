"""The command line: what it prints for people and for machines, and the exit codes that scripts trust."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from contextlib import contextmanager

import pytest
from commanding import invoke
from places import ROOT

from interpreters import open_store
from interpreters.stores.file.upkeep import operations
from persist_effects import Draft, StoreUnavailable, blob, kv, log


@pytest.fixture
def place(tmp_path):
    """A store with two streams, a truncation, and a key that was overwritten."""
    with open_store(f"file:{tmp_path / 'store'}", segment_bytes=4096) as store:
        store.run(log.append_many("orders/1", [Draft("placed", {"total": n}, at=n) for n in range(30)]))
        store.run(log.append("users/1", "joined", "Ada", at=-(2**63) + 1))
        store.run(log.truncate_through("orders/1", 10))
        store.run(kv.put("color", "red" * 50))
        store.run(kv.put("color", "blue"))
    return tmp_path / "store"


@pytest.fixture
def damaged(place):
    """The same, with a flipped byte in its first segment."""
    segment = min(place.glob("log/*.seg"))
    data = bytearray(segment.read_bytes())
    data[200] ^= 1
    segment.write_bytes(data)
    return place


def test_verify_says_that_a_store_is_sound(place):
    done = invoke("verify", f"file:{place}")
    assert done.exit_code == 0
    assert done.stdout.startswith("sound: 1 segments")


def test_verify_names_the_damage_and_exits_with_1(damaged):
    done = invoke("verify", f"file:{damaged}")
    assert done.exit_code == 1
    assert "damage: log/00000001.seg: offset 80: expected a frame" in done.stdout
    assert "damaged in" in done.stdout


def test_verify_tells_what_is_repairable_and_exits_with_0(place):
    min(place.glob("log/*.idx")).unlink()
    (place / "log" / "other").touch()
    done = invoke("verify", f"file:{place}")
    assert done.exit_code == 0
    assert "repairable: log/00000001.idx" in done.stdout
    assert "note: log/other" in done.stdout


def test_each_command_prints_json_that_parses(place, tmp_path):
    url = f"file:{place}"
    for arguments in (
        ["verify", url],
        ["stats", url],
        ["backup", url, tmp_path / "copy"],
        ["salvage", url, tmp_path / "saved"],
        ["export", url, "--out", tmp_path / "lines"],
        ["import", f"file:{tmp_path / 'new'}", "--from", tmp_path / "lines"],
        ["compact", url],
    ):
        done = invoke(*arguments, "--json")
        assert done.exit_code == 0, done.output
        assert isinstance(json.loads(done.stdout), dict)
        assert done.stderr == ""


def test_verify_prints_each_damage_as_json(damaged):
    done = invoke("verify", f"file:{damaged}", "--json")
    assert done.exit_code == 1
    first = json.loads(done.stdout)["damages"][0]
    assert (first["file"], first["offset"]) == ("log/00000001.seg", 80)


def test_stats_counts(place):
    done = invoke("stats", f"file:{place}", "--json")
    counted = json.loads(done.stdout)
    assert {name: counted[name] for name in ("streams", "events", "keys", "segments", "position", "revision")} == {
        "streams": 2,
        "events": 21,
        "keys": 1,
        "segments": 1,
        "position": 31,
        "revision": 2,
    }
    assert 0 < counted["garbage_share"] < 1
    assert "events: 21\n" in invoke("stats", f"file:{place}").stdout


def test_backup_and_salvage_make_stores(place, tmp_path):
    assert invoke("backup", f"file:{place}", tmp_path / "copy").exit_code == 0
    saved = invoke("salvage", f"file:{place}", tmp_path / "saved")
    assert (saved.exit_code, saved.stdout) == (0, "kept: 21 events of 2 streams, 1 keys\n")
    for name in ("copy", "saved"):
        assert invoke("verify", f"file:{tmp_path / name}").exit_code == 0


def test_the_commands_tell_of_blobs_where_there_are_any(place, tmp_path):
    with open_store(f"file:{place}") as store:
        refs = [store.run(blob.put(data)) for data in (b"tea", b"milk")]
    assert invoke("verify", f"file:{place}").stdout.endswith(", 2 blobs of 7 bytes\n")
    assert "blobs: 2\nblob_bytes: 7\n" in invoke("stats", f"file:{place}").stdout
    assert ", 2 blobs of 7 bytes, in " in invoke("backup", f"file:{place}", tmp_path / "copy").stdout
    (place / "blobs" / refs[0].cid[-2] / refs[0].cid).write_bytes(b"tee")
    assert invoke("verify", f"file:{place}").exit_code == 1
    assert invoke("backup", f"file:{place}", tmp_path / "no copy").exit_code == 1
    saved = invoke("salvage", f"file:{place}", tmp_path / "saved")
    assert (saved.exit_code, saved.stdout.splitlines()[-2:]) == (
        1,
        [f"lost: blob {refs[0].cid}", "kept: 21 events of 2 streams, 1 keys, 1 blobs"],
    )


def test_salvage_tells_what_is_lost_and_exits_with_1(damaged, tmp_path):
    done = invoke("salvage", f"file:{damaged}", tmp_path / "saved")
    assert done.exit_code == 1
    assert "lost: log/00000001.seg: offsets 80 to" in done.stdout
    assert "lost: stream 'orders/1': events 11 to 30: damaged" in done.stdout
    assert "kept: 1 events of 2 streams, 1 keys" in done.stdout


def test_salvage_of_a_file_of_which_nothing_is_left_exits_with_1(place, tmp_path):
    for path in (max(place.glob("log/*.seg")), max(place.glob("MANIFEST-*"))):
        path.write_bytes(b"")
    done = invoke("salvage", f"file:{place}", tmp_path / "saved")
    assert done.exit_code == 1
    assert "damage: log/" in done.stdout


def test_salvage_tells_a_key_whose_newest_value_is_lost(place, tmp_path):
    segment = min(place.glob("log/*.seg"))
    segment.write_bytes(segment.read_bytes().replace(b"blue", b"pink"))
    done = invoke("salvage", f"file:{place}", tmp_path / "saved")
    assert "lost: key 'color': its newest value" in done.stdout


def test_a_damaged_store_is_not_backed_up(damaged, tmp_path):
    done = invoke("backup", f"file:{damaged}", tmp_path / "copy", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"] == "CorruptStore"
    assert "no valid frame" in done.stderr


def test_what_export_writes_import_reads(place, tmp_path):
    exported = invoke("export", f"file:{place}")
    assert exported.exit_code == 0
    assert len(exported.stdout.splitlines()) == 1 + 21 + 2 + 1 + 1
    imported = invoke("import", f"file:{tmp_path / 'new'}", input=exported.stdout)
    assert (imported.exit_code, imported.stdout) == (0, "21 events, 2 streams, 1 keys\n")
    with open_store(f"file:{tmp_path / 'new'}") as store:
        assert [event.seq for event in store.run(log.read("orders/1"))] == list(range(11, 31))


def test_compact_says_what_it_gave_back(place):
    done = invoke("compact", f"file:{place}", "--json")
    sizes = json.loads(done.stdout)
    assert sizes["bytes_after"] < sizes["bytes_before"]
    assert "bytes_after: " in invoke("compact", f"file:{place}").stdout


def test_tail_prints_events_in_order(place):
    done = invoke("tail", f"file:{place}", "--no-follow")
    lines = done.stdout.splitlines()
    assert len(lines) == 21
    assert lines[0] == '11 1970-01-01T00:00:00.000010+00:00 orders/1 11 placed {"total":10}'
    assert lines[-1] == f'31 {-(2**63) + 1} users/1 1 joined "Ada"'


def test_tail_keeps_to_what_is_asked_for(place):
    url = f"file:{place}"
    assert len(invoke("tail", url, "--no-follow", "--after", 25).stdout.splitlines()) == 6
    assert len(invoke("tail", url, "--no-follow", "--prefix", "users/").stdout.splitlines()) == 1
    assert len(invoke("tail", url, "--no-follow", "--types", "joined,left").stdout.splitlines()) == 1
    line = json.loads(invoke("tail", url, "--no-follow", "--after", 30, "--json").stdout)
    assert line["event"][:3] == ["users/1", 1, "joined"]


def test_a_store_is_migrated_into_one_of_another_kind_and_again_changes_nothing(place, tmp_path):
    target = f"sqlite:{tmp_path}/new.db"
    done = invoke("migrate", f"file:{place}", target)
    assert (done.exit_code, done.stdout) == (0, invoke("export", f"file:{place}", "--out", tmp_path / "x").stdout)
    with open_store(f"file:{place}") as old, open_store(target) as new:
        events = [[event.data for event in store.run(log.read_all())] for store in (old, new)]
    assert events[0] == events[1] != []
    again = invoke("migrate", f"file:{place}", target)
    assert again.exit_code == 2
    assert "migrate into an empty store" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["migrate", "file:/no/such/place?mode=r"], "Missing argument"),
        (["migrate", "nothing:", "memory:"], "names no store"),
        (["verify"], "Missing argument"),
        (["tidy"], "No such command"),
        (["verify", "memory:"], "gone with its process"),
        (["verify", "sqlite:x.db"], "not a file store"),
        (["verify", "var/orders"], "give file:PATH"),
        (["verify", "file:"], "give file:PATH"),
        (["verify", "file:x?mode=r"], "without options"),
        (["verify", "file:/no/such/place"], "not a directory"),
        (["compact", "file:/no/such/place"], "no store"),
        (["export", "file:/no/such/place"], "not a directory"),
        (["import", "file:/no/such/place", "--from", "/no/such/file"], "not a file"),
        (["tail", "file:/no/such/place"], "not a directory"),
        (["tail", "file:/no/such/place", "--after", "-1"], "Invalid value"),
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(arguments, message):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_bad_input_exits_with_2_and_names_the_line(place, tmp_path):
    done = invoke("import", f"file:{tmp_path / 'new'}", input='{"format":"persist-effects","version":1}\nnothing\n')
    assert done.exit_code == 2
    assert "line 2: " in done.stderr
    assert invoke("import", f"file:{place}", input="").exit_code == 2


def test_nothing_is_written_over(place, tmp_path):
    (tmp_path / "lines").touch()
    for arguments in (["export", "-o", tmp_path / "lines"], ["backup", tmp_path], ["salvage", tmp_path]):
        done = invoke(arguments[0], f"file:{place}", *arguments[1:])
        assert done.exit_code == 2, done.output


def test_a_locked_store_exits_with_3_and_may_still_be_looked_at(place, tmp_path):
    with open_store(f"file:{place}") as store:
        store.run(log.append("s", "made", 1))
        done = invoke("compact", f"file:{place}", "--json")
        assert done.exit_code == 3
        assert json.loads(done.stdout)["error"] == "StoreLocked"
        assert "this process has the store" in done.stderr
        for command in (["verify"], ["stats"], ["export"], ["tail", "--no-follow"]):
            assert invoke(command[0], f"file:{place}", *command[1:]).exit_code == 0
        assert invoke("backup", f"file:{place}", tmp_path / "copy").exit_code == 0


@pytest.mark.parametrize(
    ("error", "page"),
    [(StoreUnavailable("away"), "see: persist-effects explain StoreUnavailable\n"), (OSError(5, "I/O error"), "")],
)
def test_a_store_that_cannot_be_used_exits_with_3(place, monkeypatch, error, page):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(operations, "verify", fail)
    done = invoke("verify", f"file:{place}")
    assert (done.exit_code, done.stderr) == (3, f"persist-effects: {error}\n{page}")


def test_a_terminal_gets_a_bar(place, monkeypatch, tmp_path):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    done = invoke("backup", f"file:{place}", tmp_path / "copy")
    assert done.exit_code == 0
    assert "copying" in done.stderr
    assert "copying" not in invoke("verify", f"file:{place}", "--json").stderr


@contextmanager
def running_command(*arguments, **options):
    command = [sys.executable, "-m", "interpreters.cli", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options) as running:
        try:
            yield running
        finally:
            running.kill()


def test_ctrl_c_exits_with_130_and_prints_no_traceback(place):
    with running_command("tail", f"file:{place}", stdout=subprocess.PIPE) as running:
        lines = [running.stdout.readline() for _ in range(21)]
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert lines[0].startswith("11 ")
    assert (running.returncode, errors) == (130, "persist-effects: interrupted\n")


def test_tail_goes_on_with_what_another_process_writes(place):
    with running_command("tail", f"file:{place}", "--after", 31, stdout=subprocess.PIPE) as running:
        with open_store(f"file:{place}") as store:
            store.run(log.append("s", "made", "now"))
            assert running.stdout.readline().endswith('s 1 made "now"\n')
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)


@pytest.mark.parametrize("command", [["export"], ["tail", "--no-follow"], ["verify"]], ids=lambda command: command[0])
def test_a_reader_that_went_away_exits_with_141_quietly(place, command):
    reading, writing = os.pipe()
    os.close(reading)
    with running_command(command[0], f"file:{place}", *command[1:], stdout=writing) as running:
        os.close(writing)
        _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (141, "")


@pytest.mark.parametrize("arguments", [[], ["verify"], ["salvage"], ["tail"], ["read"], ["put"], ["doctor"]])
def test_help_gives_the_exit_codes(arguments):
    done = invoke(*arguments, "--help")
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    for code in ("0 good", "1 damage", "2 wrong use", "3 the store", "130 interrupted", "141 the reader"):
        assert code in text


def test_the_entry_point_is_installed_under_its_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"persist-effects": "persist_effects_start:command"}


def test_without_its_packages_it_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; import interpreters.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "persist-effects needs the package typer: pip install 'persist-effects[cli]'\n"
