"""A file that is replaced as a whole, as programs over a disk: two ways that lose data, and one that does not.

Run it to see what a loss of power may leave after each, and the right one at work in a directory:

    python examples/atomic_note.py
"""

import tempfile
from collections.abc import Callable

from interpreters import disk
from interpreters.disk import DirectoryDisk
from interpreters.explore import Promised, Report, explore_disk
from persist_effects import Effect, perform

Save = Callable[[str, bytes], Effect[None]]


def _written(path: str, data: bytes) -> Effect[None]:
    """Write a new file; one that a crash has left half-written is taken away."""
    if (yield from perform(disk.Size(path))) is not None:
        yield from perform(disk.Remove(path))
    yield from perform(disk.Create(path))
    yield from perform(disk.Write(path, 0, data))


def save_without_sync(path: str, data: bytes) -> Effect[None]:
    """Wrong: the new name may be on the disk before the bytes are."""
    yield from _written(f"{path}.new", data)
    yield from perform(disk.Rename(f"{path}.new", path))
    yield from perform(disk.SyncDirectory(""))


def save_without_directory(path: str, data: bytes) -> Effect[None]:
    """Wrong: when it has returned, the old file may still come back."""
    yield from _written(f"{path}.new", data)
    yield from perform(disk.Sync(f"{path}.new"))
    yield from perform(disk.Rename(f"{path}.new", path))


def save(path: str, data: bytes) -> Effect[None]:
    """Right: first the bytes, then the name, then the directory that has the name."""
    yield from _written(f"{path}.new", data)
    yield from perform(disk.Sync(f"{path}.new"))
    yield from perform(disk.Rename(f"{path}.new", path))
    yield from perform(disk.SyncDirectory(""))


def load(path: str) -> Effect[bytes | None]:
    """What stands in the file; None where there is none."""
    size_bytes = yield from perform(disk.Size(path))
    if size_bytes is None:
        return None
    return (yield from perform(disk.Read(path, 0, size_bytes)))


NOTES = (b"buy tea", b"buy tea and cake")


def crashed(save: Save) -> Report:
    """What a loss of power leaves of a note that is saved twice: nothing else than what was promised will do."""

    def save_twice() -> Effect[None]:
        for note in NOTES:
            yield from save("note", note)
            yield from perform(Promised(note))

    def is_whole(promised: list[bytes]) -> Effect[None]:
        found = yield from load("note")
        newest = len(promised)
        allowed = [None, *NOTES][newest : newest + 2]
        assert found in allowed, f"the note is {found!r}, expected one of {allowed}"

    return explore_disk(save_twice, is_whole)


def main() -> None:
    """Try all three, then use the right one."""
    for way in (save_without_sync, save_without_directory, save):
        report = crashed(way)
        print(f"{way.__name__}: {report.verdict}")
        for failure in report.failures:
            print(f"  {failure.found}\n  {failure.crash}\n  {failure.remedy}")
    with tempfile.TemporaryDirectory() as root, DirectoryDisk(root) as opened:
        opened.run(save("note", b"buy tea"))
        print(opened.run(load("note")))


if __name__ == "__main__":
    main()
