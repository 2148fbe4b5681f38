"""A store directory may come from elsewhere: links, FIFOs, sockets and directories in the place of its files.

Whatever stands there, the library and every command tell it by the file's name, wait for nothing, and leave alone what
a link leads to.
"""

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from test_file_locks import without_rights
from typer.testing import CliRunner

from interpreters import Store, open_store
from interpreters.cli import app
from interpreters.stores.file.store import FileStore
from interpreters.stores.file.upkeep import operations
from persist_effects import CorruptStore, InvalidRequest, PersistError, StoreUnavailable, kv, log

runner = CliRunner()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A store that was left without being closed: sealed segments, their indexes, one that is active."""
    place = tmp_path_factory.mktemp("built")
    store = Store(FileStore(place / "store", segment_bytes=4096))
    for number in range(30):
        store.run(log.append("s", "made", {"number": number, "text": "x" * 300}))
    store.run(kv.put("color", "red"))
    shutil.copytree(place / "store", place / "left")
    store.close()
    return place / "left"


@pytest.fixture
def path(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "store")


def manifest_of(path: Path) -> str:
    return max(file.name for file in path.glob("MANIFEST-*"))


def active_of(path: Path) -> str:
    return max(f"log/{file.name}" for file in path.glob("log/*.seg"))


NAMES = {
    "the lock": lambda path: "LOCK",
    "the note of what is synced": lambda path: "SYNCED",
    "the name of the manifest": lambda path: "CURRENT",
    "the manifest": manifest_of,
    "a sealed segment": lambda path: "log/00000001.seg",
    "an index": lambda path: "log/00000001.idx",
    "the active segment": active_of,
    "the directory of the segments": lambda path: "log",
}


def put_link_to_what_was_there(place: Path) -> None:
    target = place.parent.parent / f"target of {place.name}"
    place.rename(target)
    place.symlink_to(target)


def put_link_to_another_file(place: Path) -> None:
    target = place.parent.parent / f"target of {place.name}"
    remove(place)
    target.write_bytes(b"not ours" * 10_000)
    place.symlink_to(target)


def put_link_to_nothing(place: Path) -> None:
    remove(place)
    place.symlink_to(place.parent.parent / "nothing")


def put_fifo(place: Path) -> None:
    remove(place)
    os.mkfifo(place)


def put_socket(place: Path) -> None:
    remove(place)
    with socket.socket(socket.AF_UNIX) as listener, suppress_long_path(place):
        listener.bind(place.name)


def put_other_kind(place: Path) -> None:
    """A directory in the place of a file, a file in that of a directory."""
    was_directory = place.is_dir()
    remove(place)
    place.write_bytes(b"") if was_directory else place.mkdir()


def remove(place: Path) -> None:
    shutil.rmtree(place) if place.is_dir() else place.unlink()


class suppress_long_path:  # noqa: N801 - used as a context
    """In the directory itself, since a socket's path may not be long."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> None:
        self._before = os.getcwd()
        os.chdir(self._place.parent)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)


PUTS = [put_link_to_what_was_there, put_link_to_another_file, put_link_to_nothing, put_fifo, put_socket, put_other_kind]


COMMANDS = ["verify", "stats", "backup", "salvage", "export", "tail --no-follow", "compact"]
ALL = {command.split()[0] for command in COMMANDS}


def everything(place: Path) -> dict[str, object]:
    """What stands under a path, by name: bytes of files, where links lead, kinds of others. The lock's apart."""
    found: dict[str, object] = {}
    for file in sorted(place.rglob("*")):
        name = str(file.relative_to(place))
        if file.is_symlink():
            found[name] = os.readlink(file)
        elif file.is_file():
            found[name] = file.read_bytes() if name != "store/LOCK" else "the lock"
        else:
            found[name] = file.stat().st_mode
    return found


def foreign(path: Path, what: str, put) -> str:
    """Put something in the place of a file of a store, and return the file's name."""
    name = NAMES[what](path)
    put(path / name)
    return name


@pytest.mark.parametrize("put", PUTS, ids=lambda put: put.__name__)
@pytest.mark.parametrize("what", NAMES)
def test_a_writer_and_a_reader_refuse_it_by_name_and_change_nothing(path, tmp_path, what, put):
    name = foreign(path, what, put)
    before = everything(tmp_path)
    for url in (f"file:{path}", f"file:{path}?mode=r"):
        if what == "the lock" and "mode=r" in url:
            open_store(url).close()  # a reader asks for no lock
            continue
        with pytest.raises(
            CorruptStore, match=rf"stands where a (file|directory) of the store belongs.*{name}'"
        ) as caught:
            open_store(url)
        assert str(path) in str(caught.value)
        # An index that was not there may have been made meanwhile.
        assert {**everything(tmp_path), **before} == everything(tmp_path)


@pytest.mark.parametrize("put", PUTS, ids=lambda put: put.__name__)
@pytest.mark.parametrize("what", NAMES)
def test_verify_reports_it_and_salvage_takes_what_is_left(path, tmp_path, what, put):
    name = foreign(path, what, put)
    before = everything(tmp_path)
    report = operations.verify(path)
    assert not report.is_sound
    assert any(name in str(damage) and "stands where" in str(damage) for damage in report.damages)
    salvaged = operations.salvage(path, tmp_path / "salvaged")
    # An index is only asked where its segment is damaged.
    assert what == "an index" or any(name in str(damage) for damage in salvaged.damages)
    assert operations.verify(tmp_path / "salvaged").is_sound
    shutil.rmtree(tmp_path / "salvaged")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("put", PUTS, ids=lambda put: put.__name__)
@pytest.mark.parametrize("what", NAMES)
def test_a_backup_is_made_or_refused_with_the_name(path, tmp_path, what, put):
    name = foreign(path, what, put)
    before = everything(tmp_path)
    if what in {"the lock", "the note of what is synced"}:
        operations.backup(path, tmp_path / "copy")
        assert operations.verify(tmp_path / "copy").is_sound
        shutil.rmtree(tmp_path / "copy")
    else:
        with pytest.raises(CorruptStore, match=name):
            operations.backup(path, tmp_path / "copy")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("put", [put_link_to_another_file, put_fifo, put_other_kind], ids=lambda put: put.__name__)
@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_tells_it_and_ends(path, tmp_path, command, what, put):
    name = foreign(path, what, put)
    before = everything(tmp_path)
    into = [str(tmp_path / "new")] if command in {"backup", "salvage"} else []
    word, *options = command.split()
    result = runner.invoke(app, [word, f"file:{path}", *into, *options])
    asks_for_it = {"the lock": {"verify", "stats", "salvage", "compact"}, "an index": ALL - {"salvage"}}
    asks_for_it["the note of what is synced"] = ALL - {"backup"}
    if word in asks_for_it.get(what, ALL):
        assert result.exit_code == 1 or (what, word) == ("the name of the manifest", "compact"), result.output
        assert word == "stats" or name.removeprefix("log/") in result.output + result.stderr
    assert isinstance(result.exception, SystemExit | None), result.exception
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    # An index that was not there may have been made meanwhile.
    assert {**everything(tmp_path), **before} == everything(tmp_path)


@pytest.mark.parametrize("name", ["LOCK", "SYNCED", "CURRENT", "log", "log/00000001.seg", "log/00000001.idx", ""])
def test_what_may_not_be_read_is_told_by_its_name(built, name):
    # Not under pytest's directory, which is for its owner alone.
    with tempfile.TemporaryDirectory() as root:
        path = shutil.copytree(built, Path(root) / "store")
        for file in [Path(root), path, *path.rglob("*")]:
            file.chmod(0o777 if file.is_dir() else 0o666)
        (path / name).chmod(0)
        doors = [
            partial(open_store, f"file:{path}?mode=r"),
            partial(operations.verify, path),
            partial(operations.backup, path, f"{root}/copy"),
            partial(operations.salvage, path, f"{root}/salvaged"),
        ]
        with without_rights():
            with pytest.raises(StoreUnavailable, match=f"Permission denied: '{path / name}"):
                FileStore(path)
            for door in doors:
                with suppress(PersistError):
                    door()


# Permissions


def modes_in(path: Path) -> dict[str, int]:
    return {str(file.relative_to(path)): file.stat().st_mode & 0o777 for file in [path, *path.rglob("*")]}


def test_the_files_of_a_store_are_for_its_owner_alone(tmp_path):
    with open_store(f"file:{tmp_path / 'new/store'}", segment_bytes=4096) as store:
        for number in range(20):
            store.run(log.append("s", "made", {"number": number, "text": "x" * 300}))
        store.interpreter.compact()
        operations.backup(store.interpreter, tmp_path / "new/backup")
    modes = modes_in(tmp_path / "new")
    directories = {name for name in modes if (tmp_path / "new" / name).is_dir()}
    assert {modes[name] for name in directories} == {0o700}
    assert {modes[name] for name in modes.keys() - directories} == {0o600}


@pytest.mark.parametrize(
    "open_it", [lambda url: open_store(f"{url}?permissions=640"), lambda url: open_store(url, permissions=0o640)]
)
def test_permissions_may_be_told(tmp_path, open_it):
    open_it(f"file:{tmp_path / 'store'}").close()
    modes = modes_in(tmp_path / "store")
    assert (modes.pop("."), modes.pop("log")) == (0o750, 0o750)
    assert set(modes.values()) == {0o640}


def test_a_store_that_is_there_keeps_its_permissions(tmp_path):
    open_store(f"file:{tmp_path / 'store'}", permissions=0o644).close()
    before = modes_in(tmp_path / "store")
    with open_store(f"file:{tmp_path / 'store'}") as store:
        store.run(log.append("s", "made", 1))
    assert set(before.values()) == set(modes_in(tmp_path / "store").values())


@pytest.mark.parametrize("wrong", [640, 0o400, 0o700, 0, -1, "0640", True, 0o1600])
def test_permissions_that_its_owner_could_not_use_are_refused(tmp_path, wrong):
    with pytest.raises(InvalidRequest, match="permissions is"):
        open_store(f"file:{tmp_path / 'store'}", permissions=wrong)
    assert list(tmp_path.iterdir()) == []


# What is made


def test_the_directories_above_a_new_store_are_on_the_disk_one_after_the_other(tmp_path, monkeypatch):
    (tmp_path / "in use").touch()
    calls = []
    for name in ("mkdir", "fsync"):
        call = getattr(os, name)

        def noted(what, *arguments, call=call, name=name, **options):
            at = what if name == "mkdir" else os.readlink(f"/dev/fd/{what}")
            if not str(at).startswith("/dev") and options.get("dir_fd") is None:
                calls.append((name, str(at)))
            return call(what, *arguments, **options)

        monkeypatch.setattr(os, name, noted)
    open_store(f"file:{tmp_path / 'a/b/store'}").close()
    above = [str(tmp_path / part) for part in ("", "a", "a/b", "a/b/store")]
    assert calls[:6] == [
        ("mkdir", above[1]),
        ("fsync", above[0].rstrip("/")),
        ("mkdir", above[2]),
        ("fsync", above[1]),
        ("mkdir", above[3]),
        ("fsync", above[2]),
    ]


def test_what_is_copied_is_not_put_in_the_place_of_a_link(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for copy in (operations.backup, operations.salvage):
        with pytest.raises(InvalidRequest, match="link is a symbolic link: give the directory itself"):
            copy(path, tmp_path / "link")
    assert os.listdir(tmp_path / "elsewhere") == []
