"""What is recorded of Python's calls is what they do: the model's last image is the real directory, byte for byte."""

import builtins
import inspect
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreters.explore.files import explore_files
from interpreters.explore.files.patches import FileCalls, patched
from interpreters.explore.files.recording import Recorder, files_of
from persist_effects import InvalidRequest


def recorded(root, function):
    """What a function does in a directory, recorded."""
    recorder = Recorder(str(root))
    with patched(recorder):
        function(root)
    return recorder


def words_of(recorder):
    return [call.words.partition("(")[0].partition(" ")[0] for call in recorder.calls]


def opened(root, flags, name="file"):
    return os.open(root / name, flags | os.O_CREAT, 0o666)


def write_all_ways(root):
    descriptor = opened(root, os.O_RDWR)
    os.write(descriptor, b"hello")
    os.writev(descriptor, [b", ", bytearray(b"world")])
    os.pwrite(descriptor, b"H", 0)
    os.pwritev(descriptor, [b"W", b"O"], 7)
    os.write(descriptor, memoryview(b"!?")[:1])
    os.close(descriptor)


def append(root):
    for _ in range(2):
        descriptor = opened(root, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, b"line\n")
        os.pwrite(descriptor, b"end\n", 0)
        os.close(descriptor)


def sizes(root):
    descriptor = opened(root, os.O_RDWR)
    os.ftruncate(descriptor, 10)
    os.truncate(root / "file", 7)
    os.truncate(descriptor, 6)
    os.posix_fallocate(descriptor, 2, 10)
    os.posix_fallocate(descriptor, 0, 3)
    os.lseek(descriptor, 20, os.SEEK_SET)
    os.write(descriptor, b"behind a hole")
    os.close(descriptor)
    os.close(os.open(root / "file", os.O_WRONLY | os.O_TRUNC))


def names(root):
    (root / "a").write_text("a")
    os.link(root / "a", root / "b")
    os.rename(root / "a", root / "b")
    os.replace(root / "b", root / "c")
    os.symlink("c", root / "d")
    (root / "d").write_text("through a link")
    os.symlink("nowhere", root / "e")
    (root / "e").write_text("made by a link")
    os.remove(root / "d")
    os.mkdir(root / "sub")
    os.rename(root / "c", root / "sub" / "c")
    os.rename(root / "sub", root / "other")
    os.unlink(root / "other" / "c")
    os.rmdir(root / "other")
    os.makedirs(root / "x" / "y" / "z")
    os.removedirs(root / "x" / "y" / "z")
    (root / "kept").mkdir()


def by_descriptors_of_directories(root):
    directory = os.open(root, os.O_RDONLY)
    os.mkdir("sub", dir_fd=directory)
    descriptor = os.open("sub/file", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
    os.write(descriptor, b"here")
    os.close(descriptor)
    os.rename("sub/file", "file", src_dir_fd=directory, dst_dir_fd=directory)
    os.link("file", "link", src_dir_fd=directory, dst_dir_fd=directory)
    os.symlink("file", "symlink", dir_fd=directory)
    os.unlink("file", dir_fd=directory)
    os.rmdir("sub", dir_fd=directory)
    os.close(directory)


def the_layers_of_open(root):
    with open(root / "text", "w", encoding="utf-16", newline="\r\n") as file:
        file.write("é\n")
        file.writelines(["a\n", "b\n"])
        assert (file.mode, file.name) == ("w", root / "text")
    with open(root / "text", "a", buffering=1) as file:
        file.write("line\n")
        assert (root / "text").read_bytes().endswith(b"line\n")
    with open(root / "both", "x+b") as file:
        file.write(b"0123456789" * 2000)
        file.seek(5)
        file.write(b"---")
        assert file.read(2) == b"89"
        file.truncate(100)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    with open(root / "both", "r+b", buffering=0) as file:
        assert isinstance(file, io.FileIO)
        file.write(b"raw")
        file.truncate()
    with os.fdopen(opened(root, os.O_WRONLY, "fd"), "w") as file:
        file.write("by a descriptor")
    with pytest.raises(FileExistsError):
        (root / "both").open("x")
    with pytest.raises(ValueError, match="binary mode"):
        (root / "never").open("wb", encoding="utf-8")
    with pytest.raises(ValueError, match="mode"):
        (root / "never").open("wr")
    with pytest.raises(LookupError):
        (root / "made").open("w", encoding="no such")


def pathlib_shutil_and_tempfile(root):
    (root / "a").write_text("a" * 100_000)
    (root / "a").touch()
    shutil.copyfile(root / "a", root / "b")
    shutil.copy2(root / "a", root / "c")
    shutil.move(root / "c", root / "d")
    shutil.copytree(root, root / "copy")
    shutil.rmtree(root / "copy")
    (root / "link").symlink_to("a")
    (root / "hard").hardlink_to(root / "a")
    (root / "d").rename(root / "e").unlink()
    with tempfile.NamedTemporaryFile(dir=root) as file:
        file.write(b"gone with it")
    with tempfile.TemporaryFile(dir=root) as file:
        file.write(b"never had a name")
    with tempfile.TemporaryDirectory(dir=root) as name:
        Path(name, "x").write_text("x")
    descriptor, name = tempfile.mkstemp(dir=root)
    os.write(descriptor, b"kept")
    os.close(descriptor)


def the_fast_ways_to_copy(root):
    (root / "from").write_bytes(bytes(range(256)) * 10)
    source, target = os.open(root / "from", os.O_RDONLY), opened(root, os.O_WRONLY, "to")
    os.sendfile(target, source, 100, 50)
    os.sendfile(target, source, None, 20)
    os.copy_file_range(source, target, 30)
    os.copy_file_range(source, target, 30, 5, 500)
    os.close(source)
    os.close(target)


def what_descriptors_outlive(root):
    descriptor = opened(root, os.O_WRONLY, "a")
    os.rename(root / "a", root / "b")
    os.write(descriptor, b"under its new name")
    again = os.dup(descriptor)
    os.write(again, b", by another descriptor")
    os.unlink(root / "b")
    os.write(descriptor, b"nowhere")
    (root / "b").write_text("another file")
    os.close(again)
    os.close(descriptor)


def a_file_without_a_name_that_gets_one(root):
    descriptor = os.open(root, os.O_TMPFILE | os.O_WRONLY)
    os.write(descriptor, b"complete")
    os.link(f"/proc/self/fd/{descriptor}", root / "file", follow_symlinks=True, src_dir_fd=descriptor)
    os.close(descriptor)


def files_that_come_and_go(root):
    (root.parent / "outside").write_text("outside")
    os.rename(root.parent / "outside", root / "inside")
    os.link(root / "inside", root.parent / "outside")
    os.link(root.parent / "outside", root / "again")
    (root / "gone").write_text("gone")
    os.rename(root / "gone", root.parent / "gone")
    os.rename(root.parent / "gone", root / "back")


def raw_files_and_their_buffers(root):
    with io.FileIO(root / "raw", "w") as file:
        assert isinstance(file, io.FileIO)
        file.write(b"raw")
    with io.BufferedWriter(io.FileIO(root / "buffered", "x")) as file:
        file.write(b"buffered")
    with open(root / "raw", "rb", buffering=0) as file:
        assert isinstance(file, io.FileIO)
    with io.FileIO(root / "raw") as file:
        assert file.read() == b"raw"
    assert issubclass(io.FileIO, io.RawIOBase)


WAYS = [
    write_all_ways,
    append,
    sizes,
    names,
    by_descriptors_of_directories,
    the_layers_of_open,
    raw_files_and_their_buffers,
    pathlib_shutil_and_tempfile,
    the_fast_ways_to_copy,
    what_descriptors_outlive,
    a_file_without_a_name_that_gets_one,
    files_that_come_and_go,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_recorded_is_what_is_there(tmp_path, way):
    root = tmp_path / "directory"
    root.mkdir()
    (root / "before").write_text("before")
    recorder = recorded(root, way)
    assert recorder.calls
    assert recorder.tree.image() == files_of(str(root))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), st.sampled_from("abc"), st.sampled_from(["w", "a", "r+", "x"]), st.binary(max_size=9)
        ),
        st.tuples(
            st.sampled_from(["rename", "link", "symlink", "copy"]), st.sampled_from("abcd"), st.sampled_from("abcd")
        ),
        st.tuples(st.sampled_from(["unlink", "rmdir", "mkdir", "rmtree", "sync"]), st.sampled_from("abcd")),
        st.tuples(st.just("truncate"), st.sampled_from("abc"), st.integers(0, 20)),
        st.tuples(st.just("inside"), st.sampled_from("abcd"), st.sampled_from("abcd")),
    ),
    max_size=14,
)


def carry_out(root, operation):
    name, *arguments = operation
    match name:
        case "write":
            path, mode, data = arguments
            with open(root / path, f"{mode}b", buffering=3) as file:
                file.write(data)
                file.seek(2)
                file.write(data[:2])
        case "truncate":
            os.truncate(root / arguments[0], arguments[1])
        case "copy":
            shutil.copyfile(root / arguments[0], root / arguments[1])
        case "inside":
            os.rename(root / arguments[0], root / arguments[1] / arguments[0])
        case "symlink":
            os.symlink(arguments[0], root / arguments[1])
        case "rmtree":
            shutil.rmtree(root / arguments[0])
        case "sync":
            descriptor = os.open(root / arguments[0], os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        case _:
            getattr(os, name)(*[root / path for path in arguments])


@pytest.mark.exploration
@given(OPERATIONS)
@settings(max_examples=100)
def test_whatever_is_done_the_model_ends_as_the_real_directory(operations):
    with tempfile.TemporaryDirectory() as above:
        root = Path(above, "directory")
        root.mkdir()

        def function(root):
            for operation in operations:
                try:
                    carry_out(root, operation)
                except (OSError, shutil.SameFileError):
                    continue

        recorder = recorded(root, function)
        assert recorder.tree.image() == files_of(str(root))


def test_a_descriptor_that_writes_through_is_durable_at_once():
    def careful(directory, told):
        descriptor = os.open(directory / "file", os.O_WRONLY | os.O_DSYNC)
        os.write(descriptor, b"new")
        os.close(descriptor)
        told("new")

    def is_there(directory, told):
        assert not told or (directory / "file").read_text() == "new"

    def setup(directory):
        (directory / "file").touch()

    assert explore_files(careful, is_there, setup=setup).verdict == "passed"


def test_a_file_that_was_synced_elsewhere_is_whole_where_it_is_moved_to(tmp_path):
    def move(directory, *, is_synced):
        with open(tmp_path / "new", "w") as file:
            file.write("whole")
            file.flush()
            if is_synced:
                os.fsync(file)
        os.rename(tmp_path / "new", directory / "file")

    def is_whole(directory):
        assert not (directory / "file").exists() or (directory / "file").read_text() == "whole"

    assert explore_files(lambda directory: move(directory, is_synced=True), is_whole).verdict == "passed"
    assert explore_files(lambda directory: move(directory, is_synced=False), is_whole).verdict == "failed"


def test_a_sync_of_the_system_brings_all_to_the_disk():
    def careful(directory, told):
        (directory / "sub").mkdir()
        (directory / "sub" / "file").write_text("new")
        os.sync()
        told("new")

    def is_there(directory, told):
        assert not told or (directory / "sub" / "file").read_text() == "new"

    assert explore_files(careful, is_there).verdict == "passed"


# Names bound before the recording began, as `from os import …` does.
from os import fsync as kept_fsync  # noqa: E402
from os import replace as kept_replace  # noqa: E402


def test_calls_that_a_module_has_imported_by_name_are_recorded(tmp_path):
    def function(root):
        with open(root / "new", "w") as file:
            file.write("x")
            file.flush()
            kept_fsync(file.fileno())
        kept_replace(root / "new", root / "file")

    recorder = recorded(tmp_path, function)
    assert words_of(recorder) == ["open", "write", "os.fsync", "os.replace"]


def all_that_may_be_patched():
    found = {name: getattr(os, name) for name in dir(os)}
    found |= {"open": builtins.open, "io.open": io.open, "kept": kept_fsync, "sequence": tempfile._name_sequence}
    return found | {name: frozenset(getattr(os, name)) for name in ("supports_dir_fd", "supports_fd")}


@pytest.mark.parametrize(
    "error", [None, ValueError("no"), KeyboardInterrupt(), SystemExit()], ids=lambda error: type(error).__name__
)
def test_after_a_recording_everything_is_as_it_was_whatever_came(error):
    before = all_that_may_be_patched()
    kept = []

    def function(directory):
        kept.append(os.unlink)
        assert os.fsync is not before["fsync"]
        if error is not None:
            raise error

    with pytest.raises(KeyboardInterrupt) if isinstance(error, KeyboardInterrupt) else nullcontext():
        explore_files(function, lambda _: None)
    assert all_that_may_be_patched() == before
    assert kept[0] != os.unlink


def test_a_module_that_is_first_imported_in_the_function_keeps_no_replacement(tmp_path, monkeypatch):
    (tmp_path / "first_imported_while_recorded.py").write_text("from os import fsync\n")
    monkeypatch.syspath_prepend(tmp_path)

    def function(directory):
        import first_imported_while_recorded  # noqa: F401

    explore_files(function, lambda _: None)
    assert sys.modules.pop("first_imported_while_recorded").fsync is os.fsync


def test_what_somebody_has_kept_of_a_recording_hands_on_afterwards(tmp_path):
    kept = []
    recorder = recorded(tmp_path, lambda _: kept.extend([os.write, open, os.open, os.replace, os.fsync, os.sync]))
    write, open_file, open_descriptor, replace, sync, sync_all = kept
    with open_file(tmp_path / "a", "w") as file:
        file.write("x")
    descriptor = open_descriptor(tmp_path / "b", os.O_CREAT | os.O_WRONLY)
    write(descriptor, b"y")
    sync(descriptor)
    sync_all()
    os.close(descriptor)
    replace(tmp_path / "b", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "y"
    assert recorder.calls == []


def test_a_file_that_is_left_open_writes_on_after_the_recording(tmp_path):
    left = []

    def function(root):
        left.append(open(root / "a", "w"))  # noqa: SIM115
        left[0].write("late")

    recorder = recorded(tmp_path, function)
    left[0].close()
    assert words_of(recorder) == ["open"]
    assert (tmp_path / "a").read_text() == "late"


def test_what_other_threads_do_elsewhere_is_left_alone(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    root = tmp_path / "directory"
    elsewhere.mkdir()
    root.mkdir()

    def work():
        for number in range(50):
            with open(elsewhere / "new", "w") as file:
                file.write(str(number))
                file.flush()
                os.fsync(file)
            os.replace(elsewhere / "new", elsewhere / "file")

    def function(root):
        thread = threading.Thread(target=work)
        thread.start()
        (root / "a").write_text("a")
        thread.join()

    recorder = recorded(root, function)
    assert words_of(recorder) == ["open", "write"]
    assert (elsewhere / "file").read_text() == "49"


def test_a_thread_that_waits_to_open_a_fifo_elsewhere_keeps_nobody_waiting(tmp_path):
    root, fifo = tmp_path / "directory", tmp_path / "fifo"
    root.mkdir()
    os.mkfifo(fifo)

    def function(root):
        thread = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_RDONLY)))
        thread.start()
        (root / "a").write_text("a")
        os.close(os.open(fifo, os.O_WRONLY))
        thread.join()

    assert words_of(recorded(root, function)) == ["open", "write"]


def test_files_are_opened_with_the_layers_that_open_gives(tmp_path):
    def layers(root):
        for mode in ("w", "wb", "a", "r+", "w+b"):
            with open(root / "file", mode) as file:
                yield type(file), file.mode
        with open(root / "file", "wb", buffering=0) as file:
            yield type(file).__mro__[-4:], file.mode

    plain = list(layers(tmp_path))
    found = []
    recorded(tmp_path, lambda root: found.extend(layers(root)))
    assert found == plain


# What cannot be recorded is refused by name


def by_sqlite(directory):
    import sqlite3

    connection = sqlite3.connect(directory / "data.db")
    connection.execute("CREATE TABLE t (a)")
    connection.close()


def by_mmap(directory):
    import mmap

    with open(directory / "file", "w+b") as file:
        file.write(b"0123")
        file.flush()
        with mmap.mmap(file.fileno(), 4) as mapped:
            mapped[0:1] = b"9"


def by_a_process(directory):
    subprocess.run([sys.executable, "-c", f"open({str(directory / 'file')!r}, 'w')"], check=True)


def by_a_process_that_is_started_in_it(directory):
    subprocess.run([sys.executable, "-c", ""], check=True, cwd=directory)


DEFAULTS = (os.mkdir, io.FileIO)


def by_raw_files_of_a_class_that_was_kept(directory):
    with DEFAULTS[1](directory / "file", "w") as file:
        file.write(b"x")


def by_a_call_that_was_kept(directory, make=DEFAULTS[0]):
    make(directory / "sub")


def by_a_fifo(directory):
    os.mkfifo(directory / "fifo")


def by_a_directory_from_elsewhere(directory):
    made = tempfile.mkdtemp()
    os.rename(made, directory / "sub")


def by_splice(directory):
    read, write = os.pipe()
    with open(directory / "file", "wb", buffering=0) as file:
        os.write(write, b"x")
        os.splice(read, file.fileno(), 1)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (by_sqlite, r"sqlite3\.connect\(.*data\.db\) at files/test_recorded_calls\.py"),
        (by_mmap, r"mmap of 'file'"),
        (by_a_process, r"a process that is started \(subprocess\.Popen\)"),
        (by_a_process_that_is_started_in_it, r"a process that is started"),
        (by_raw_files_of_a_class_that_was_kept, r"is opened for writing past `open`"),
        (by_a_call_that_was_kept, r"a call of os\.mkdir that was kept from before"),
        (by_a_fifo, r"'fifo' is not as the recorded calls leave it"),
        (by_a_directory_from_elsewhere, r"which is no regular file and comes from elsewhere"),
        (by_splice, r"os\.splice to 'file'"),
    ],
)
def test_what_is_not_recorded_is_refused_by_name(function, words):
    with pytest.raises(InvalidRequest, match=f"the function changes its directory by what is not recorded: .*{words}"):
        explore_files(function, lambda _: None)


def by_maps_that_only_read(directory):
    import mmap

    with open(directory / "file", "w+b") as file:
        file.write(b"0123")
        file.flush()
        with mmap.mmap(file.fileno(), 4, access=mmap.ACCESS_READ) as mapped:
            assert mapped[0:1] == b"0"


def by_what_is_done_elsewhere(directory):
    import sqlite3

    sqlite3.connect(":memory:").close()
    subprocess.run([sys.executable, "-c", ""], check=True)
    with DEFAULTS[1](directory.parent / "elsewhere", "w") as file:
        file.write(b"x")


@pytest.mark.parametrize("function", [by_maps_that_only_read, by_what_is_done_elsewhere])
def test_what_does_not_change_the_directory_is_not_refused(function):
    assert explore_files(function, lambda _: None).verdict == "passed"


def parameters_of(function):
    found = inspect.signature(function).parameters.values()
    return [(each.kind, "" if each.kind is each.POSITIONAL_ONLY else each.name) for each in found]


def test_the_replacements_take_what_the_real_calls_take(tmp_path):
    of_varied_systems = {"sendfile", "splice"}
    for real, replacement in FileCalls(Recorder(str(tmp_path))).table():
        if real.__name__ not in of_varied_systems | {"FileIO"}:
            assert parameters_of(replacement) == parameters_of(real), real.__name__
