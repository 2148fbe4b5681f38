"""The directory of an open store is removed, moved, switched or replaced: what lies there then is left as it is.

And the store that was opened acknowledges nothing that whoever opens the directory anew would not find.
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from interpreters import Store
from interpreters.disk.requests import CheckHeld
from interpreters.stores.file import store as file_store
from interpreters.stores.file.store import FileReader, FileStore
from interpreters.stores.file.upkeep import operations
from persist_effects import PersistError, StoreUnavailable, UncertainOutcome, log

SYNC_MODES = pytest.mark.parametrize("sync", ["commit", "os"])


def files_in(path: Path) -> dict[str, bytes]:
    """Every file under a path and its bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


_opened: list[Store] = []


@pytest.fixture(autouse=True)
def closed():
    """Stores that lost their directory are closed too, which some of them say that they could not do well."""
    yield
    while _opened:
        with suppress(PersistError):
            _opened.pop().close()


def filled(path: Path, text: str = "x", **options) -> Store:
    """An open store with some events, a few segments of them sealed."""
    store = Store(FileStore(path, segment_bytes=4096, **options))
    _opened.append(store)
    for number in range(20):
        store.run(log.append("s", "made", {"number": number, "text": text * 300}))
    return store


# What becomes of the directory


def is_removed(path: Path) -> None:
    shutil.rmtree(path)


def is_moved(path: Path) -> None:
    path.rename(path.with_name("moved"))


def gives_place_to_a_new_store(path: Path) -> None:
    is_moved(path)
    filled(path, "y").close()


def gives_place_to_its_backup(path: Path) -> None:
    operations.backup(path, path.with_name("backup"))
    is_moved(path)
    path.with_name("backup").rename(path)


def gives_place_to_its_backup_that_others_write(path: Path) -> None:
    gives_place_to_its_backup(path)
    filled(path, "y").close()


def gives_place_to_a_copy(path: Path) -> None:
    shutil.copytree(path, path.with_name("copy"))
    is_moved(path)
    path.with_name("copy").rename(path)


def has_its_files_replaced_by_a_backup(path: Path) -> None:
    operations.backup(path, path.with_name("backup"))
    for name in os.listdir(path):
        shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
    shutil.copytree(path.with_name("backup"), path, dirs_exist_ok=True)


def has_its_log_replaced(path: Path) -> None:
    operations.backup(path, path.with_name("backup"))
    (path / "log").rename(path.with_name("old"))
    shutil.copytree(path.with_name("backup") / "log", path / "log")


def loses_its_lock_to_another_writer(path: Path) -> None:
    (path / "LOCK").unlink()
    other = Store(FileStore(path, segment_bytes=4096))
    other.run(log.append("other", "made", 1))
    other.close()


CHANGES = pytest.mark.parametrize(
    "change",
    [
        is_removed,
        is_moved,
        gives_place_to_a_new_store,
        gives_place_to_its_backup,
        gives_place_to_its_backup_that_others_write,
        gives_place_to_a_copy,
        has_its_files_replaced_by_a_backup,
        has_its_log_replaced,
        loses_its_lock_to_another_writer,
    ],
    ids=lambda change: change.__name__,
)


# What the old writer does then


def appends(store: Store) -> None:
    store.run(log.append("s", "made", 1))


def rolls_over(store: Store) -> None:
    store.run(log.append("s", "made", "z" * 5000))


def compacts(store: Store) -> None:
    store.interpreter.compact()


def closes(store: Store) -> None:
    store.close()


DEEDS: list[Callable[[Store], None]] = [appends, rolls_over, compacts, closes]


@SYNC_MODES
@CHANGES
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_the_old_writer_leaves_what_lies_there_as_it_is_and_says_so(tmp_path, monkeypatch, change, deed, sync):
    # Without waiting, since nobody looks at the clock here.
    monkeypatch.setattr(file_store, "CHECK_SECONDS", 0)
    path = tmp_path / "store"
    store = filled(path, sync=sync)
    change(path)
    before = files_in(tmp_path) if path.exists() else {}
    there = {name: data for name, data in before.items() if name.startswith("store/")}
    with pytest.raises((StoreUnavailable, UncertainOutcome), match=f"{path}.*") as caught:
        deed(store)
    assert "close this store, see what became of its directory, and open it again" in str(caught.value)
    with suppress(PersistError):
        store.close()
    if change is loses_its_lock_to_another_writer and deed is appends:
        # What comes after a segment's end is not the store's. That end the other writer has found.
        with Store(FileStore(path)) as again:
            assert again.run(log.last_seq("other")) == 1
        return
    now = {name: data for name, data in files_in(tmp_path).items() if name.startswith("store/")}
    assert now == there


@CHANGES
def test_nothing_more_is_acknowledged_until_the_store_is_opened_anew(tmp_path, change):
    path = tmp_path / "store"
    store = filled(path)
    change(path)
    with pytest.raises(UncertainOutcome, match="may not be found again"):
        appends(store)
    for deed in (appends, rolls_over, compacts):
        with pytest.raises(StoreUnavailable, match="what is held is not what is there"):
            deed(store)
    assert store.run(log.last_seq("s")) == 20
    # Its user was told, so closing it only lets go, of the lock too.
    before = len(os.listdir("/dev/fd"))
    store.close()
    assert len(os.listdir("/dev/fd")) < before
    if path.exists():
        with suppress(PersistError):
            FileStore(path).close()


def test_close_is_the_first_to_say_so_where_nobody_was_told_and_lets_go_of_the_lock(tmp_path):
    path = tmp_path / "store"
    store = filled(path)
    is_moved(path)
    with pytest.raises(StoreUnavailable, match="was removed, moved away or replaced"):
        store.close()
    store.close()
    with Store(FileStore(tmp_path / "moved")) as again:
        assert again.run(log.last_seq("s")) == 20


def test_an_old_writer_that_lost_its_lock_notices_before_its_next_acknowledgement(tmp_path):
    path = tmp_path / "store"
    first = filled(path)
    (path / "LOCK").unlink()
    second = Store(FileStore(path, segment_bytes=4096))
    with pytest.raises(UncertainOutcome, match="the lock was removed or replaced, so another may write here"):
        appends(first)
    first.close()
    assert second.run(log.append("other", "made", 1)).seq == 1
    second.close()
    with Store(FileStore(path)) as third:
        assert third.run(log.last_seq("other")) == 1


def test_a_link_on_the_way_is_switched_to_another_store(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to("one")
    store = filled(tmp_path / "link/store")
    filled(tmp_path / "other/store", "y").close()
    before = files_in(tmp_path / "other")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("other")
    for deed in (rolls_over, compacts, closes):
        with suppress(PersistError):
            deed(store)
    assert files_in(tmp_path / "other") == before


def test_writes_that_are_not_synced_look_at_most_every_so_often(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(file_store, "CHECK_SECONDS", 1.0)
    monkeypatch.setattr(file_store.time, "monotonic", lambda: now)
    looks = []
    store = FileStore(tmp_path / "store", sync="os")
    row = store._disk_rows[CheckHeld]
    store._disk_rows[CheckHeld] = lambda request: (looks.append(now), row(request))[1]
    for _ in range(10):
        appends(Store(store))
        now += 0.25
    assert looks == [0.0, 1.0, 2.0]
    store.close()


def test_a_sync_that_was_asked_for_looks(tmp_path):
    store = filled(tmp_path / "store", sync="os")
    appends(store)
    is_moved(tmp_path / "store")
    with pytest.raises(UncertainOutcome):
        store.interpreter.sync()
    with pytest.raises(StoreUnavailable):
        store.close()


def test_a_reader_is_told_that_another_store_lies_there_now(tmp_path, monkeypatch):
    monkeypatch.setattr(file_store, "CHECK_SECONDS", 0)
    path = tmp_path / "store"
    filled(path).close()
    with Store(FileReader(path)) as reader:
        assert reader.run(log.last_seq("s")) == 20
        gives_place_to_a_new_store(path)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="was removed, moved away or replaced"):
                reader.run(log.last_seq("s"))
    with Store(FileReader(path)) as reader:
        assert reader.run(log.last_seq("s")) == 20


def test_a_backup_is_of_the_store_that_is_open_and_not_of_what_lies_at_its_path(tmp_path):
    path = tmp_path / "store"
    store = filled(path)
    gives_place_to_a_new_store(path)
    operations.backup(store.interpreter, tmp_path / "backup of the old")
    with suppress(PersistError):
        store.close()
    with Store(FileStore(tmp_path / "backup of the old")) as copy:
        assert copy.run(log.read_range("s", 1, 1))[0].data["text"] == "x" * 300


def test_a_reader_that_was_told_of_another_directory_is_told_again_and_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "store"
    filled(path).close()
    with Store(FileReader(path)) as reader:
        # Only the first look is due.
        monkeypatch.setattr(time, "monotonic", lambda: 1e9)
        gives_place_to_a_new_store(path)
        for _ in range(2):
            with pytest.raises(
                StoreUnavailable, match=r"removed, moved away or replaced.*: close this reader and open"
            ):
                reader.run(log.last_seq("s"))
