"""Shipping and restoring on real disks, from Python and by the command: beside a writer, killed, interrupted."""

import errno
import io
import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from places import ROOT
from typer.testing import CliRunner

from interpreters import jsonl, open_store
from interpreters.cli import app
from interpreters.stores.file.upkeep import operations
from interpreters.stores.file.upkeep.shipping import layout, running, shipper
from interpreters.stores.file.upkeep.shipping.running import FailedLook, lag, restore, ship
from interpreters.stores.file.upkeep.shipping.targets import MemoryTarget, TargetTrouble
from persist_effects import InvalidRequest, StoreUnavailable, blob, kv, log

pytestmark = pytest.mark.exploration


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path):
    """A store with events, a key and a blob."""
    with open_store(f"file:{tmp_path}/store") as store:
        for number in range(10):
            store.run(log.append("orders/1", "placed", number, at=number))
        store.run(kv.put("color", "red"))
        store.run(blob.put(b"a picture" * 1000, "image/png"))
    return tmp_path / "store"


def exported(place) -> bytes:
    lines = io.BytesIO()
    with open_store(f"file:{place}?mode=r") as store:
        jsonl.export(store, lines)
    return lines.getvalue()


def looks(count, *, between=lambda: None):
    """Stops after so many waits, each of which it notes."""
    waited = []

    def wait(seconds):
        waited.append(seconds)
        between()
        return len(waited) == count

    return wait, waited


# Beside a writer


def test_each_look_ships_what_was_written_since(place, tmp_path):
    target, told = MemoryTarget(), []
    with open_store(f"file:{place}") as store:
        wait, waited = looks(5, between=lambda: store.run(log.append("orders/1", "placed", "more")))
        shipped = ship(place, target, every_seconds=2.5, told=told.append, wait=wait)
        assert [one.position for one in told] == [10, 11, 12, 13, 14]
        assert (shipped.position, waited) == (14, [2.5] * 5)
        found = lag(place, target, clock=lambda: 10**16)
        assert (found.positions, found.position) == (1, 14)
        assert found.bytes > 0
        assert found.seconds > 0
        ship(place, target, once=True)
        assert lag(place, target).bytes == lag(place, target).positions == lag(place, target).seconds == 0
    restore(target, tmp_path / "again")
    assert exported(tmp_path / "again") == exported(place)


def test_blobs_are_shipped_once_and_restored(place, tmp_path):
    target = MemoryTarget()
    assert [ship(place, target, once=True).blobs for _ in range(2)] == [1, 0]
    restored = restore(target, tmp_path / "again")
    assert (restored.blobs, restored.blob_bytes) == (1, 9000)
    assert operations.verify(tmp_path / "again").is_sound


def test_a_damaged_blob_is_told_and_not_shipped_and_the_log_is(place, tmp_path):
    (file,) = [path for path in (place / "blobs").glob("?/*") if path.is_file()]
    file.write_bytes(b"b" + file.read_bytes()[1:])
    done = invoke("ship", f"file:{place}", tmp_path / "target", "--once")
    assert done.exit_code == 1
    assert file.name in done.stderr
    assert restore(f"{tmp_path}/target", tmp_path / "again").blobs == 0
    assert exported(tmp_path / "again") == exported(place)


def test_a_blob_that_is_damaged_in_the_target_is_left_out_and_told(place, tmp_path):
    ship(place, f"{tmp_path}/target", once=True)
    (piece,) = (tmp_path / "target").glob("blob.*")
    piece.write_bytes(b"b" + piece.read_bytes()[1:])
    done = invoke("restore", tmp_path / "target", tmp_path / "again")
    assert done.exit_code == 1
    assert done.stdout.startswith(f"damage: {piece.name}: offset 0: expected bytes of blob ")
    assert exported(tmp_path / "again") == exported(place)


# FailedLook


class FailingTarget(MemoryTarget):
    """A target that is full for so many puts."""

    def __init__(self, failures):
        super().__init__()
        self.failures = failures

    def put(self, name, data):
        if name.startswith("segment.") and self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        super().put(name, data)


def test_a_full_target_is_tried_again_with_growing_waits_and_it_is_told_what_lags(place, tmp_path):
    target, told = FailingTarget(9), []
    wait, waited = looks(11)
    ship(place, target, every_seconds=0.5, told=told.append, wait=wait, clock=lambda: 5_000_009)
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60, 0.5, 0.5]
    troubles, shipped = told[:9], told[9]
    assert [one.tries for one in troubles] == list(range(1, 10))
    assert "the target could not put 'segment.00000001." in troubles[0].reason
    assert "No space left on device" in troubles[0].reason
    assert troubles[0].lag.positions == 10
    assert troubles[0].lag.seconds == 5.000009
    assert shipped.position == 10
    restore(target, tmp_path / "again")
    assert exported(tmp_path / "again") == exported(place)


def test_a_look_that_is_to_be_the_only_one_is_tried_a_few_times(place):
    wait, waited = looks(1000)
    with pytest.raises(TargetTrouble, match="No space left on device"):
        ship(place, FailingTarget(1000), once=True, wait=wait)
    assert len(waited) == running.TRIES - 1


def test_a_directory_that_cannot_be_used_is_tried_again(place, tmp_path):
    (tmp_path / "target").write_text("a file")
    told = []

    def mend(seconds):
        if (tmp_path / "target").is_file():
            (tmp_path / "target").unlink()
        return len(told) > 1

    assert ship(place, f"{tmp_path}/target", told=told.append, wait=mend).position == 10
    assert isinstance(told[0], FailedLook)


def test_two_shippers_to_one_directory_are_refused(place, tmp_path):
    with running.open_target(f"{tmp_path}/target"):
        with pytest.raises(StoreUnavailable, match=r"process \d+ on .* ships to this target already"):
            ship(place, f"{tmp_path}/target", once=True)
        # One who only reads is not in its way.
        assert lag(place, f"{tmp_path}/target").positions == 10


@contextmanager
def shipping_process(place, target):
    command = [
        sys.executable,
        "-m",
        "interpreters.cli",
        "ship",
        f"file:{place}",
        str(target),
        "--every",
        "0.01",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_that_is_killed_again_and_again_loses_nothing_and_is_gone_on_with(place, tmp_path):
    target = tmp_path / "target"
    with open_store(f"file:{place}?segment_bytes=4096") as store:
        for round_ in range(4):
            with shipping_process(place, target) as process:
                last = 0
                for number in range(60):
                    store.run(log.append("orders/2", "placed", [round_, number]))
                # Killed while it goes on with the rest.
                last = json.loads(process.stdout.readline())["position"]
                for number in range(60):
                    store.run(log.append("orders/3", "placed", [round_, number]))
            place_again = tmp_path / f"again-{round_}"
            assert restore(str(target), place_again).position >= last
            assert exported(place_again).splitlines()[1:last] == exported(place).splitlines()[1:last]
        ship(place, str(target), once=True)
        restore(str(target), tmp_path / "again")
        assert exported(tmp_path / "again") == exported(place)


def test_ctrl_c_ends_a_shipper_between_two_looks(place, tmp_path):
    with shipping_process(place, tmp_path / "target") as process:
        assert json.loads(process.stdout.readline())["position"] == 10
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert lag(place, f"{tmp_path}/target").bytes == 0


def test_a_blob_of_many_pieces_is_gone_on_with_where_it_was_left(place, tmp_path, monkeypatch):
    for module in (layout, shipper):
        monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    target = FailingTarget(0)
    put, left = target.put, 5

    def fail(name, data):
        nonlocal left
        left -= name.startswith("blob.")
        if left < 0:
            raise OSError(errno.EIO, "away")
        put(name, data)

    target.put = fail
    told = []

    def wait(seconds):
        nonlocal left
        left = 100
        # What is there of the blob is no damage: nothing that was shipped names it.
        assert len(target.list("blob.")) == 5
        return False

    ship(place, target, once=True, told=told.append, wait=wait)
    assert isinstance(told[0], FailedLook)
    assert left == 100 - 4
    restored = restore(target, tmp_path / "again")
    assert (restored.blob_bytes, restored.damages) == (9000, [])


def test_a_restore_that_is_interrupted_leaves_nothing_and_can_be_done_again(place, tmp_path):
    ship(place, f"{tmp_path}/target", once=True)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(f"{tmp_path}/target", tmp_path / "again", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "target"]
    assert restore(f"{tmp_path}/target", tmp_path / "again").position == 10


# The commands


def test_the_commands_ship_restore_and_tell_how_far_it_is(place, tmp_path):
    done = invoke("ship", f"file:{place}", f"dir:{tmp_path}/target", "--once")
    assert done.exit_code == 0
    assert done.stdout.endswith("1 blobs: up to position 10, revision 1\n")
    again = invoke("ship", f"file:{place}", f"dir:{tmp_path}/target", "--once", "--json")
    assert json.loads(again.stdout)["position"] == 10
    status = invoke("ship", f"file:{place}", tmp_path / "target", "--status")
    assert status.stdout.splitlines()[:3] == ["bytes_behind: 0", "positions_behind: 0", "seconds_behind: 0.0"]
    assert json.loads(invoke("ship", f"file:{place}", tmp_path / "target", "--status", "--json").stdout)["bytes"] == 0
    done = invoke("restore", tmp_path / "target", tmp_path / "again", "--at", 4, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["position"] == 4
    with open_store(f"file:{tmp_path}/again") as store:
        assert [event.data for event in store.run(log.read("orders/1"))] == [0, 1, 2, 3]


BAD = {
    "a store that is not there": (["ship", "file:{place}/../none", "{place}/../target"], 2, "is not a directory"),
    "a directory without a store": (["ship", "file:{place}/log", "{place}/../target"], 2, "there is no store"),
    "a store of another kind": (["ship", "memory:", "{place}/../target"], 2, "a memory store is gone"),
    "a target of another kind": (["ship", "file:{place}", "s3://bucket"], 2, "'s3://bucket' is not a target"),
    "the store itself as its target": (
        ["ship", "file:{place}", "{place}"],
        2,
        "is a store: give",
    ),
    "a target in the store": (["ship", "file:{place}", "{place}/target"], 2, "lies in the store"),
    "a home that no shell replaced": (["ship", "file:{place}", "~/target"], 2, "begins with '~'"),
    "no time between looks": (["ship", "file:{place}", "{place}/../target", "--every", "0"], 2, "above 0"),
    "no number of days": (["ship", "file:{place}", "{place}/../target", "--keep-days", "-1"], 2, "from 0 on"),
    "a directory with something else": (["ship", "file:{place}", "{place}/.."], 2, "the target holds 'store'"),
    "a target that is not there": (["restore", "{place}/../none", "{place}/../again"], 2, "is not a directory"),
    "a target that is none": (["restore", "{place}/log", "{place}/../again"], 2, "the target holds"),
    "a position before the first": (
        ["restore", "{place}/../target", "{place}/../again", "--at", "-1"],
        2,
        "greater than or equal to 0",
    ),
    "into a directory that is not empty": (["restore", "{place}/log", "{place}"], 2, "not an empty directory"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(name, place):
    arguments, code, words = BAD[name]
    before = sorted(place.rglob("*"))
    done = invoke(*(one.replace("{place}", str(place)) for one in [*arguments, *["--once"] * (arguments[0] == "ship")]))
    assert done.exit_code == code
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert sorted(place.rglob("*")) == before
    assert not (place.parent / "again").exists()


def test_options_that_cannot_be_are_refused_before_anything_is_made(place, tmp_path):
    for options in ({"every_seconds": 0}, {"keep_days": -1}, {"every_seconds": float("nan")}):
        with pytest.raises(InvalidRequest):
            ship(place, f"{tmp_path}/target", once=True, **options)
    assert not (tmp_path / "target").exists()
