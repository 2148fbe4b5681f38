"""The door of a file store: one process writes; what is not a store, or none for this program, is refused untouched."""

import gc
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from file_disks import contents
from typer.testing import CliRunner

from interpreters import Store, open_store
from interpreters.cli import app
from interpreters.disk.crashing import CrashDisk
from interpreters.explore.crashes.simulated import SimulatedStore
from interpreters.stores.file.format import HEADER_BYTES
from interpreters.stores.file.store import FileStore
from interpreters.stores.file.upkeep import operations
from persist_effects import (
    CorruptStore,
    Draft,
    InvalidRequest,
    NewerFormat,
    StoreLocked,
    StoreUnavailable,
    TooLarge,
    kv,
    log,
    run,
)
from persist_effects.requests import Append, KvPut

HOLD = """
import sys
from interpreters.stores.file.store import FileStore
store = FileStore(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""

HOLD_AND_FORK = """
import os, signal, sys
from interpreters import Store
from interpreters.stores.file.store import FileStore
from persist_effects import StoreUnavailable, kv
store = Store(FileStore(sys.argv[1]))
store.run(kv.put("color", "red"))
signal.alarm(30)
if os.fork() == 0:
    signal.alarm(30)
    print("fork:", os.getpid(), flush=True)
    try:
        store.run(kv.put("color", "green"))
    except StoreUnavailable as error:
        print("refused:", error, flush=True)
    except BaseException as error:
        print("wrongly refused:", error, flush=True)
    print("read:", store.run(kv.get("color")), flush=True)
    signal.pause()
signal.pause()
"""


@contextmanager
def running(script: str, path: Path):
    """Another process that runs a script on a store."""
    command = [sys.executable, "-c", script, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def files_in(path: Path) -> dict[str, bytes]:
    """Every file under a path and its bytes, the lock's apart: it says who looked last."""
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {name: data for name, data in found.items() if name != "LOCK"}


@pytest.fixture
def path(tmp_path) -> Path:
    """A directory with a store of several segments, closed."""
    path = tmp_path / "store"
    with Store(FileStore(path, segment_bytes=4096)) as store:
        for number in range(40):
            store.run(log.append("s", "made", {"number": number, "text": "x" * 300}))
        store.run(kv.put("color", "red"))
    return path


# One writer


def test_a_second_process_is_told_which_one_writes(path):
    with running(HOLD, path) as holder:
        assert holder.stdout.readline() == "held\n"
        before = files_in(path)
        with pytest.raises(StoreLocked, match=f"process {holder.pid} on ") as caught:
            FileStore(path)
        assert f"process {holder.pid} on " in caught.value.holder
        assert str(path) in str(caught.value)
        assert files_in(path) == before


def test_the_lock_of_a_process_that_was_killed_is_free(path):
    with running(HOLD, path) as holder:
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with open_store(f"file:{path}") as store:
            assert store.run(log.append("s", "made", None)).seq == 41


def test_a_second_store_in_the_same_process_is_told_so_too(path):
    here = rf"{re.escape(__file__)}:\d+"
    message = f"this process has the store {re.escape(str(path))} open already, at {here}: close that one"
    with open_store(f"file:{path}"), pytest.raises(StoreLocked, match=message) as caught:
        open_store(f"file:{path}")
    assert caught.value.holder.startswith(f"process {os.getpid()} on ")
    assert pickle.loads(pickle.dumps(caught.value)).opened_at == caught.value.opened_at
    open_store(f"file:{path}").close()


def test_a_second_store_in_the_same_process_is_told_so_by_another_path_too(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    with (
        open_store(f"file:{path}"),
        pytest.raises(StoreLocked, match=r"this process has the store .*link open already"),
    ):
        open_store(f"file:{tmp_path / 'link'}")


@pytest.mark.parametrize("sync", ["commit", "interval", "os"])
def test_a_store_that_nobody_has_any_more_gives_up_its_lock_with_a_warning_like_that_of_an_unclosed_file(path, sync):
    threads = threading.active_count()
    store = open_store(f"file:{path}", sync=sync)
    store.run(kv.put("color", "green"))
    keeper = store.interpreter._keeper
    del store
    with pytest.warns(ResourceWarning, match=rf"the store .*, opened at {re.escape(__file__)}:\d+, was not closed"):
        opened = open_store(f"file:{path}")
    with opened as again:
        assert again.run(kv.get("color")) == "green"
    if keeper is not None:
        keeper.join()
    assert threading.active_count() == threads


def test_a_store_that_was_closed_is_dropped_without_a_word(path):
    store = open_store(f"file:{path}")
    store.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del store
        gc.collect()
    open_store(f"file:{path}").close()


def test_a_store_whose_handlers_somebody_has_stays_open(path):
    handlers = open_store(f"file:{path}").handlers
    gc.collect()
    assert run(kv.get("color"), handlers) == "red"
    with pytest.raises(StoreLocked, match="this process has the store"):
        open_store(f"file:{path}")
    handlers[KvPut].__self__.close()


def test_a_process_that_only_reads_is_let_in_beside_the_writer(path):
    with running(HOLD, path) as holder:
        assert holder.stdout.readline() == "held\n"
        with open_store(f"file:{path}?mode=r") as store:
            assert store.run(log.last_seq("s")) == 40
            with pytest.raises(InvalidRequest, match="opened to read only"):
                store.run(kv.put("color", "green"))


def test_a_fork_of_the_writer_reads_and_does_not_write_and_does_not_keep_the_lock(path):
    with running(HOLD_AND_FORK, path) as holder:
        lines = dict(holder.stdout.readline().rstrip("\n").split(": ", 1) for _ in range(3))
        try:
            assert "may only read" in lines["refused"]
            assert lines["read"] == "red"
            holder.kill()
            holder.wait()
            with open_store(f"file:{path}") as store:
                assert store.run(kv.get("color")) == "red"
        finally:
            os.kill(int(lines["fork"]), signal.SIGKILL)


FORK_IN_THE_MIDDLE = """
import os, signal, sys, threading
from interpreters import Store
from interpreters.disk.requests import Sync
from interpreters.stores.file.store import FileStore
from persist_effects import StoreUnavailable, kv
store = Store(FileStore(sys.argv[1]))
store.run(kv.put("color", "red"))
syncing, go_on = threading.Event(), threading.Event()
host = store.interpreter
sync = host._disk.handlers[Sync]
host._disk_rows[Sync] = host._unlocked(lambda request: (syncing.set(), go_on.wait(), sync(request))[2])
writer = threading.Thread(target=lambda: store.run(kv.put("color", "green")))
writer.start()
syncing.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    assert store.run(kv.get("color")) == "red"
    try:
        store.run(kv.put("color", "blue"))
    except StoreUnavailable as error:
        assert "may only read" in str(error)
        store.close()
        os._exit(7)
    os._exit(1)
_, status = os.waitpid(child, 0)
go_on.set()
writer.join()
print(os.waitstatus_to_exitcode(status), store.run(kv.get("color")), flush=True)
store.close()
"""


def test_a_fork_in_the_middle_of_another_threads_write_reads_and_is_refused_and_closes(path):
    with running(FORK_IN_THE_MIDDLE, path) as holder:
        assert holder.stdout.readline() == "7 green\n"
        assert holder.wait() == 0


# What is refused, and left as it is


def refuses(path: Path, kind: type[Exception], message: str) -> None:
    """Opening this raises one clear error, to write and to read, and changes nothing."""
    before = files_in(path) if path.is_dir() else path.read_bytes()
    for url in (f"file:{path}", f"file:{path}?mode=r"):
        with pytest.raises(kind, match=message) as caught:
            open_store(url)
        assert str(path) in str(caught.value)
        assert (files_in(path) if path.is_dir() else path.read_bytes()) == before, f"{url} changed something"


def test_a_file_is_no_store(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    refuses(path, InvalidRequest, r"notes\.txt is (a file|not a directory)")


def test_a_path_with_a_zero_character_is_refused():
    for url in ("file:a\0b", "file:a\0b?mode=r"):
        with pytest.raises(InvalidRequest, match=r"'a\\x00b' is not a path: it has a zero character"):
            open_store(url)


def test_a_directory_of_other_things_is_no_store(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    refuses(tmp_path, InvalidRequest, "'notes.txt' and no store|no store")
    assert not (tmp_path / "LOCK").exists()


def test_a_directory_with_logs_of_another_program_is_no_store_and_keeps_them(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "httpd.log").write_text("mine")
    refuses(tmp_path, InvalidRequest, "'log/httpd.log' and no store|no store")


def newer_manifest(path):
    manifest = max(path.glob("MANIFEST-*"))
    fields = msgspec.msgpack.decode(manifest.read_bytes()[4:])
    body = msgspec.msgpack.encode([2, *fields[1:], "what a newer program adds"])
    manifest.write_bytes(zlib.crc32(body).to_bytes(4, "little") + body)
    return manifest.name


def newer_segment(path):
    segment = min(path.glob("log/*.seg"))
    data = bytearray(segment.read_bytes())
    data[8:12] = (2).to_bytes(4, "little")
    data[12:16] = bytes(4)
    data[12:16] = zlib.crc32(data[:HEADER_BYTES]).to_bytes(4, "little")
    segment.write_bytes(data)
    return f"log/{segment.name}"


@pytest.mark.parametrize("make_newer", [newer_manifest, newer_segment])
def test_a_store_of_a_newer_format_is_not_damaged_and_asks_for_a_newer_program(path, tmp_path, make_newer):
    name = make_newer(path)
    message = f"{name}: format version 2, and this release reads up to 1: the store is not damaged"
    refuses(path, NewerFormat, message)
    before = files_in(path)
    into = tmp_path / "into"
    for use in (
        operations.verify,
        lambda place: operations.backup(place, into),
        lambda place: operations.salvage(place, into),
    ):
        with pytest.raises(NewerFormat, match=message):
            use(path)
    for command in (["verify"], ["stats"], ["backup", into], ["salvage", into], ["export"], ["tail"], ["compact"]):
        done = CliRunner().invoke(app, [command[0], f"file:{path}", *map(str, command[1:])])
        assert done.exit_code == 3, command
        assert "the store is not damaged" in done.stderr
    assert files_in(path) == before
    assert not into.exists()


def test_a_format_before_the_first_one_is_damage(path):
    manifest = max(path.glob("MANIFEST-*"))
    body = msgspec.msgpack.encode([0, *msgspec.msgpack.decode(manifest.read_bytes()[4:])[1:]])
    manifest.write_bytes(zlib.crc32(body).to_bytes(4, "little") + body)
    refuses(path, CorruptStore, f"{manifest.name}: format version 0, and there is none before 1")


def test_a_segment_of_another_store_is_told_from_ones_own(path, tmp_path):
    with Store(FileStore(tmp_path / "other", segment_bytes=4096)) as other:
        for number in range(40):
            other.run(log.append("s", "made", {"number": number, "text": "y" * 300}))
    shutil.copy(tmp_path / "other" / "log" / "00000002.seg", path / "log" / "00000002.seg")
    with pytest.raises(CorruptStore, match=r"log/00000002\.seg: "):
        FileStore(path)
    shutil.copy(tmp_path / "other" / "log" / "00000002.idx", path / "log" / "00000002.idx")
    refuses(path, CorruptStore, r"log/00000002\.seg: ")


@contextmanager
def without_rights():
    """Root may write everywhere, so for a while it is somebody else."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def read_only_path(path):
    """The store in a place that others may enter, and in which nobody may write."""
    with tempfile.TemporaryDirectory(prefix="persist-effects-") as root:
        os.chmod(root, 0o755)
        place = Path(root) / "store"
        shutil.copytree(path, place)
        for directory in (place / "log", place):
            for file in directory.iterdir():
                file.chmod(0o555 if file.is_dir() else 0o444)
            directory.chmod(0o555)
        yield place
        for directory in (place, place / "log"):
            directory.chmod(0o755)


def test_a_read_only_directory_is_refused_to_writers_and_open_to_readers(read_only_path):
    before = files_in(read_only_path)
    with without_rights():
        with pytest.raises(StoreUnavailable, match=r"Permission denied.*LOCK"):
            open_store(f"file:{read_only_path}")
        with open_store(f"file:{read_only_path}?mode=r") as store:
            assert store.run(log.last_seq("s")) == 40
            assert store.run(kv.get("color")) == "red"
    assert files_in(read_only_path) == before


def test_what_is_over_the_limit_changes_nothing(path):
    with Store(FileStore(path, payload_limit_bytes=1_000)) as store:
        before, shown = files_in(path), contents(store.handlers)
        with pytest.raises(TooLarge, match="the store's limit is 1000"):
            store.run(log.append("s", "made", "x" * 1_000))
        with pytest.raises(TooLarge, match="value of key 'color'"):
            store.run(kv.put("color", "x" * 1_000))
        assert files_in(path) == before
        assert contents(store.handlers) == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sync": "never"}, "sync is 'never': give one of commit, interval, os"),
        ({"segment_bytes": 100}, "segment_bytes is 100: give an integer from 4096 to"),
    ],
)
def test_options_are_checked_before_the_directory_is_made(tmp_path, options, message):
    with pytest.raises(InvalidRequest, match=message):
        FileStore(tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", ["nothing", "a compaction", "a roll-over"])
def test_a_writer_that_no_lock_kept_out_finds_its_segments_left_alone_by_the_one_before(begun):
    on = CrashDisk()
    first = SimulatedStore(on, boot=1, segment_bytes=1024)
    first.commit([Append("orders/1", (Draft("placed", 1),))])
    first.drive(first.engine.mark())
    compaction = None
    if begun == "a compaction":
        first.drive(first.engine.roll_over())
        compaction = first.engine.compaction()
        first.drive(compaction.copy())
    elif begun == "a roll-over":
        first.drive(first.engine.roll_over())
    second = SimulatedStore(on, boot=2, segment_bytes=1024)
    second.commit([Append("orders/2", (Draft("placed", 2),))])
    last_words = [first.compact if begun == "nothing" else first.close]
    if compaction is not None:
        last_words = [lambda: first.drive(compaction.publish())]
    for say in last_words:
        with pytest.raises(StoreLocked, match="a writer that opened the store later"):
            say()
        third = SimulatedStore(CrashDisk(on.image()), boot=3, segment_bytes=1024)
        assert contents(third.handlers) == contents(second.handlers)
