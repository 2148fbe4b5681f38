"""`persist-effects blobs`: what it prints for people and for machines, and its exit codes."""

import json
import os

import pytest
from typer.testing import CliRunner

from interpreters import open_store
from interpreters.cli import app
from persist_effects import blob, log


def invoke(*arguments):
    return CliRunner().invoke(app, ["blobs", *map(str, arguments)])


@pytest.fixture
def place(tmp_path):
    """A file store with three blobs of which its log names one. Two of them are old."""
    with open_store(f"file:{tmp_path / 'store'}") as store:
        refs = [store.run(blob.put(data)) for data in (b"named", b"forgotten", b"young")]
        store.run(log.append("s", "made", refs[0]))
    for ref in refs[:2]:
        os.utime(place_of(tmp_path / "store" / "blobs", ref), (1_000, 1_000))
    return tmp_path / "store", refs


def place_of(home, ref):
    return home / ref.cid[-2] / ref.cid


def test_list_prints_each_blob(place):
    path, refs = place
    for home in (f"file:{path}", f"dir:{path / 'blobs'}"):
        done = invoke("list", home)
        assert done.exit_code == 0
        assert f"{refs[0].cid} 5 1970-01-01T00:16:40+00:00\n" in done.stdout
        lines = [json.loads(line) for line in invoke("list", home, "--json").stdout.splitlines()]
        assert {"cid": refs[0].cid, "size_bytes": 5, "put_at": 1_000_000_000} in lines
        assert len(lines) == 3


def test_check_tells_damage_and_exits_with_1(place):
    path, refs = place
    assert invoke("check", f"file:{path}").stdout == "sound: 3 blobs of 19 bytes\n"
    place_of(path / "blobs", refs[1]).write_bytes(b"forgottem")
    done = invoke("check", f"file:{path}")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith("damage: ")
    assert done.stdout.splitlines()[1] == "damaged: 1 blobs, and 2 blobs of 10 bytes are sound"
    done = invoke("check", f"file:{path}", "--json")
    assert (done.exit_code, json.loads(done.stdout)["damages"][0]["cid"]) == (1, refs[1].cid)


def test_sweep_gives_up_what_is_old_and_not_reached_also_beside_a_writer(place):
    path, refs = place
    with open_store(f"file:{path}") as writer:
        done = invoke("sweep", f"file:{path}", "--dry-run")
        assert (done.exit_code, done.stdout.splitlines()) == (
            0,
            [
                f"unreached: blob {refs[1].cid}",
                "1 of 3 blobs would be given up, 9 bytes; 1 are reached, 1 are young",
            ],
        )
        assert writer.run(blob.has(refs[1]))
        done = invoke("sweep", f"file:{path}", "--json")
        assert json.loads(done.stdout)["dropped"] == [refs[1].cid]
        assert [writer.run(blob.has(ref)) for ref in refs] == [True, False, True]
    done = invoke("sweep", f"file:{path}", "--blobs", f"dir:{path / 'blobs'}", "--grace-hours", "0")
    assert done.stdout.splitlines()[0] == f"dropped: blob {refs[2].cid}"


def test_copy_copies_what_is_not_there_and_says_what_it_cannot(place, tmp_path):
    path, refs = place
    place_of(path / "blobs", refs[1]).write_bytes(b"forgottem")
    done = invoke("copy", f"file:{path}", f"dir:{tmp_path / 'copy'}")
    assert done.exit_code == 1
    assert done.stdout.startswith(f"left: blob {refs[1].cid}: ")
    assert done.stdout.endswith("copied: 2 blobs of 10 bytes, 0 were there\n")
    place_of(path / "blobs", refs[1]).unlink()
    done = invoke("copy", f"file:{path}", f"dir:{tmp_path / 'copy'}", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"blobs": 0, "bytes": 0, "there": 2, "left": []})


def test_a_store_without_blobs_has_none_and_looking_at_it_makes_no_directory(tmp_path):
    for url, beside in (
        (f"file:{tmp_path / 'store'}", "store/blobs"),
        (f"sqlite:{tmp_path / 'app.db'}", "app.db-blobs"),
    ):
        with open_store(url) as store:
            store.run(log.append("s", "made", 1))
        for arguments in (["list", url], ["check", url], ["sweep", url]):
            assert invoke(*arguments).exit_code == 0
        assert not (tmp_path / beside).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "Missing argument"),
        (["list", "var/blobs"], "names no home of blobs"),
        (["list", "file:/no/such/store"], "not a store that is there"),
        (["list", "postgresql://localhost/db"], "names no home of blobs"),
        (["sweep", "memory:", "--blobs", "memory:", "--grace-hours", "-1"], "Invalid value"),
        (["sweep", "nothing:", "--blobs", "memory:"], "names no store"),
        (["copy", "memory:", "dir:"], "names no home of blobs"),
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(arguments, message):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_node_that_is_not_there_exits_with_3():
    done = invoke("list", "ipfs:http://127.0.0.1:9")
    assert done.exit_code == 3
    assert "there is no IPFS node" in done.stderr
