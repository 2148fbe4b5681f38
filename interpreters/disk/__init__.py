"""A disk as requests, and what answers them: a real one, and one that crashes.

File code that is written as programs over these requests runs in a directory of a real disk, by `DirectoryDisk`, and
on a simulated one that loses its power everywhere, by `interpreters.explore.explore_disk`.

The requests are named as what they are for a file, so say them with their module::

    from interpreters import disk
    from persist_effects import perform

    def save(data):
        yield from perform(disk.Create("note"))
        yield from perform(disk.Write("note", 0, data))
        yield from perform(disk.Sync("note"))
        yield from perform(disk.SyncDirectory(""))
"""

from interpreters.disk.directory_disk import DirectoryDisk
from interpreters.disk.requests import (
    Allocate,
    CheckHeld,
    Create,
    ForeignFile,
    LetGo,
    List,
    Lock,
    MakeDirectory,
    Modified,
    Read,
    ReadPlaces,
    Remove,
    Rename,
    Size,
    Sync,
    SyncDirectory,
    Touch,
    Truncate,
    Write,
    WriteBack,
)

__all__ = [
    "Allocate",
    "CheckHeld",
    "Create",
    "DirectoryDisk",
    "ForeignFile",
    "LetGo",
    "List",
    "Lock",
    "MakeDirectory",
    "Modified",
    "Read",
    "ReadPlaces",
    "Remove",
    "Rename",
    "Size",
    "Sync",
    "SyncDirectory",
    "Touch",
    "Truncate",
    "Write",
    "WriteBack",
]
