"""Which images may survive a loss of power: `CrashDisk.states` beside an enumerator that shares no code with it.

That one goes through every way in which the unsynced requests may have reached the disk and carries out, from the
beginning, those that did. What is legal: of the changes of files any subset, in the order in which they were asked
for, at most one of the writes torn; of the changes of names any subset (posix) or the first so many (ordered). A
rename is one change, of the directory that both its names are in.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreters.disk.crashing import Bound, CrashDisk, DiskFault
from interpreters.disk.requests import (
    Allocate,
    Create,
    MakeDirectory,
    Remove,
    Rename,
    Sync,
    SyncDirectory,
    Truncate,
    Write,
)
from persist_effects.machine import Effect, perform, run
from persist_effects.requests import Request

EVERY_BYTE = Bound(tear_bytes=1)
UNSYNCED_MAX = 4
BEGINNING = {"a": b"old", "d/": b"", "d/a": b"OLD"}
OF_FILES = (Write, Truncate, Allocate)
OF_NAMES = (Create, MakeDirectory, Rename, Remove)

Requests = Sequence[Request[Any]]
Image = dict[str, bytes]


# The enumerator


def images(requests: Requests, profile: str) -> set[frozenset[tuple[str, bytes]]]:
    """Every image that may be there if the power fails after these requests."""
    unsynced = unsynced_of(requests)
    names = [number for number in unsynced if isinstance(requests[number], OF_NAMES)]
    files = [number for number in unsynced if isinstance(requests[number], OF_FILES)]
    found = set()
    for lost_names, lost_files in product(losses_of_names(names, profile), subsets(files)):
        lost = {*lost_names, *lost_files}
        found.add(frozenset(carried_out(requests, lost).items()))
        for torn in set(files) - lost:
            for pieces in pieces_of(requests[torn]):
                found.add(frozenset(carried_out(requests, lost, torn, pieces).items()))
    return found


def subsets(numbers: Sequence[int]) -> Iterator[set[int]]:
    for chosen in product((False, True), repeat=len(numbers)):
        yield {number for number, is_chosen in zip(numbers, chosen, strict=True) if is_chosen}


def losses_of_names(names: Sequence[int], profile: str) -> Iterator[set[int]]:
    if profile == "posix":
        yield from subsets(names)
    else:
        yield from (set(names[count:]) for count in range(len(names) + 1))


def unsynced_of(requests: Requests) -> list[int]:
    """The numbers of the requests that no sync came after."""
    file_at = {path: path for path in BEGINNING}
    waiting: dict[int, tuple[str, str]] = {}
    for number, request in enumerate(requests):
        synced = None
        if isinstance(request, OF_NAMES):
            changes = names_changed(number, request, file_at)
            rename(file_at, changes)
            waiting[number] = "names in", directory_of(changes[0][0])
        elif isinstance(request, OF_FILES):
            waiting[number] = "bytes of", file_at[request.path]
        elif isinstance(request, Sync):
            synced = "bytes of", file_at[request.path]
        else:
            synced = "names in", "" if request.path == "." else f"{request.path}/"
        waiting = {n: what for n, what in waiting.items() if what != synced}
    return sorted(waiting)


def names_changed(number: int, request: Request[Any], file_at: dict[str, str]) -> list[tuple[str, str | None]]:
    """Which names a request gives to which files, and which it takes away."""
    match request:
        case Rename(source=source, target=target):
            return [(source, None), (target, file_at[source])]
        case Remove(path=path):
            return [(path, None)]
        case MakeDirectory(path=path):
            return [(f"{path}/", f"made by {number}")]
    return [(request.path, f"made by {number}")]


def rename(file_at: dict[str, str], changes: Sequence[tuple[str, str | None]]) -> None:
    for path, file in changes:
        if file is None:
            file_at.pop(path, None)
        else:
            file_at[path] = file


def directory_of(path: str) -> str:
    return path[: path.rstrip("/").rfind("/") + 1]


def carried_out(requests: Requests, lost: set[int], torn: int = -1, pieces: Sequence[tuple[int, bytes]] = ()) -> Image:
    """The image that is there where these were lost, and of the torn one there are these pieces."""
    # Which file a request is about was decided when it was asked for, whatever became of the name since.
    file_at = {path: path for path in BEGINNING}
    on_disk = dict(file_at)
    bytes_of = defaultdict(bytearray, {path: bytearray(data) for path, data in BEGINNING.items()})
    for number, request in enumerate(requests):
        if isinstance(request, OF_NAMES):
            changes = names_changed(number, request, file_at)
            rename(file_at, changes)
            if number not in lost:
                rename(on_disk, changes)
        elif isinstance(request, OF_FILES) and number not in lost:
            change(bytes_of[file_at[request.path]], request, pieces if number == torn else None)
    return {path: bytes(bytes_of[file]) for path, file in on_disk.items() if is_in(on_disk, path)}


def change(content: bytearray, request: Request[Any], pieces: Sequence[tuple[int, bytes]] | None) -> None:
    if isinstance(request, Write):
        for offset, data in [(request.offset, request.data)] if pieces is None else pieces:
            put(content, offset, data)
    elif isinstance(request, Truncate) or len(content) < request.size_bytes:
        resize(content, request.size_bytes)


def is_in(on_disk: dict[str, str], path: str) -> bool:
    """Whether the directory that holds a name is there, and so on upwards."""
    above = directory_of(path)
    return not above or (above in on_disk and is_in(on_disk, above))


def put(content: bytearray, offset: int, data: bytes) -> None:
    for place, byte in enumerate(data, offset):
        if place >= len(content):
            resize(content, place + 1)
        content[place] = byte


def resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(b"\0" * (size - len(content)))


def pieces_of(request: Request[Any]) -> Iterator[list[tuple[int, bytes]]]:
    """What a write leaves that is torn next to any byte: its beginning, its end, or all but one byte inside."""
    if not isinstance(request, Write):
        return
    offset, data = request.offset, request.data
    for cut in range(1, len(data)):
        yield [(offset, data[:cut])]
        yield [(offset + cut, data[cut:])]
    for missing in range(1, len(data) - 1):
        yield [(offset, data[:missing]), (offset + missing + 1, data[missing + 1 :])]


# Beside it


def check(requests: Requests) -> int:
    """Compare after each of the requests. Returns how many images were compared."""
    crash_disk = CrashDisk(BEGINNING)
    compared = 0
    for count in range(len(requests) + 1):
        for profile in ("posix", "ordered"):
            wanted = images(requests[:count], profile)
            states = list(crash_disk.states(profile, EVERY_BYTE))
            found = {frozenset(state.image.items()) for state in states}
            told = "\n".join(map(repr, requests[:count]))
            assert found == wanted, (
                f"{profile}, after\n{told}\nonly CrashDisk has {[dict(image) for image in found - wanted][:3]}\n"
                f"only the enumerator has {[dict(image) for image in wanted - found][:3]}"
            )
            assert states[0].image == crash_disk.image(), "the first is that nothing was lost"
            compared += len(wanted)
        if count < len(requests):
            crash_disk.handlers[type(requests[count])](requests[count])
    return compared


BY_HAND: dict[str, list[Request[Any]]] = {
    "one write": [Write("a", 0, b"123456")],
    "a write past the end": [Write("a", 5, b"1234")],
    "writes over each other": [Write("a", 0, b"1111"), Write("a", 2, b"2222"), Write("a", 1, b"3333")],
    "writes side by side": [Write("a", 0, b"11"), Write("a", 2, b"22"), Write("a", 4, b"33"), Write("a", 6, b"44")],
    "of two files": [Write("a", 0, b"123"), Write("d/a", 1, b"456"), Sync("a"), Write("a", 1, b"789")],
    "sizes": [Truncate("a", 1), Write("a", 4, b"12"), Allocate("a", 9), Write("a", 8, b"34")],
    "a new file": [Create("b"), Write("b", 0, b"1234"), Sync("b"), SyncDirectory("."), Write("b", 4, b"5678")],
    "a name before its bytes": [Create("b"), SyncDirectory("."), Write("b", 0, b"1234")],
    "another directory's sync": [Create("d/b"), SyncDirectory("."), Create("b"), SyncDirectory("d")],
    "published": [
        Create("b"), Write("b", 0, b"new"), Sync("b"), Rename("b", "a"), SyncDirectory("."), Remove("d/a"),
    ],
    "published without a sync": [Create("b"), Write("b", 0, b"new"), Rename("b", "a"), Remove("d/a")],
    "removed and made again": [Remove("a"), Create("a"), Write("a", 0, b"123"), SyncDirectory(".")],
    "renamed twice": [Write("a", 0, b"12"), Rename("a", "b"), Rename("b", "c"), SyncDirectory("."), Sync("c")],
    "a new directory": [MakeDirectory("e"), Create("e/a"), SyncDirectory("e"), Write("e/a", 0, b"12")],
    "a new directory that is synced": [MakeDirectory("e"), SyncDirectory("."), Create("e/a"), Create("e/b")],
    "a directory in one that is not synced": [MakeDirectory("e"), MakeDirectory("e/f"), Create("e/f/a")],
    "a directory whose own name is synced, and not that above": [
        MakeDirectory("e"), MakeDirectory("e/f"), SyncDirectory("e"), Create("e/f/a"), SyncDirectory("e/f"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_the_images_that_may_survive_are_those_of_another_enumerator(name):
    check(BY_HAND[name])


PATHS = ("a", "b", "c", "d/a", "d/b")
MAKERS = {
    "write": lambda path, other, size, data: Write(path, size, data),
    "truncate": lambda path, other, size, data: Truncate(path, size),
    "allocate": lambda path, other, size, data: Allocate(path, size),
    "create": lambda path, other, size, data: Create(path),
    "rename": lambda path, other, size, data: Rename(path, other),
    "remove": lambda path, other, size, data: Remove(path),
    "sync": lambda path, other, size, data: Sync(path),
    "sync directory": lambda path, other, size, data: SyncDirectory(directory_of(path).rstrip("/") or "."),
}


def possible(drawn: Sequence[tuple[str, str, str, int, int]]) -> list[Request[Any]]:
    """Requests of which each can be carried out, so that never more than a few are unsynced."""
    requests: list[Request[Any]] = []
    names = {path: path for path in BEGINNING}
    for number, (kind, path, other, size, data_size) in enumerate(drawn):
        is_there = kind == "sync directory" or (path in names) != (kind == "create")
        is_beside = kind != "rename" or (path != other and directory_of(path) == directory_of(other))
        is_full = not kind.startswith("sync") and len(unsynced_of(requests)) == UNSYNCED_MAX
        if is_there and is_beside and not is_full:
            data = bytes(range(number * 8 + 1, number * 8 + 1 + data_size))
            requests.append(MAKERS[kind](path, other, size, data))
            if isinstance(requests[-1], OF_NAMES):
                rename(names, names_changed(number, requests[-1], names))
    return requests


DRAWN = st.tuples(
    st.sampled_from(["write", "write", "write", "rename", *MAKERS]),
    st.sampled_from(PATHS),
    st.sampled_from(PATHS),
    st.integers(0, 8),
    st.integers(2, 6),
)


@given(st.lists(DRAWN, min_size=8, max_size=24).map(possible))
@settings(max_examples=100, derandomize=True, database=None, deadline=None)
def test_the_images_that_may_survive_any_requests_are_those_of_another_enumerator(requests):
    check(requests)


@pytest.mark.parametrize("kind", ["EIO", "failed sync, xfs"])
def test_what_a_failed_sync_has_marked_clean_is_not_written_by_the_next(kind):
    def writing() -> Effect[None]:
        yield from perform(Write("a", 0, b"lost"))
        try:
            yield from perform(Sync("a"))
        except OSError:
            yield from perform(Write("a", 4, b"kept"))
            yield from perform(Sync("a"))

    on = CrashDisk({"a": b""}, faults={1: DiskFault(kind)})
    run(writing(), on.handlers)
    assert on.image() == {"a": b"lostkept"}
    assert [state.image for state in on.states()] == [{"a": b"\0\0\0\0kept"}]


def test_of_a_rename_to_another_directory_each_sync_settles_its_own_side():
    def images_after(*requests: Request[Any]) -> list[list[str]]:
        on = CrashDisk({"d/": b"", "e/": b"", "d/a": b"old"})
        for request in (Rename("d/a", "e/b"), *requests):
            on.answer(request)
        return [[path for path in state.image if path not in {"d/", "e/"}] for state in on.states()]

    assert images_after() == [["e/b"], ["d/a"]]
    assert images_after(SyncDirectory("e")) == [["e/b"], ["d/a", "e/b"]]
    assert images_after(SyncDirectory("d")) == [["e/b"], []]
    assert images_after(SyncDirectory("e"), SyncDirectory("d")) == [["e/b"]]
