"""A tree of files leaves what the disk of the file store leaves, where both can do the same; and directories move."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from interpreters.disk import requests as disk
from interpreters.disk.crashing import CrashDisk
from interpreters.explore.files.tree import ROOT_NODE, FileTree, settled_tree

NAMES = st.sampled_from("abc")
REQUESTS = st.lists(
    st.one_of(
        st.builds(disk.Create, NAMES),
        st.builds(disk.Write, NAMES, st.integers(0, 4), st.binary(min_size=1, max_size=5)),
        st.builds(disk.Truncate, NAMES, st.integers(0, 6)),
        st.builds(disk.Allocate, NAMES, st.integers(0, 6)),
        st.builds(disk.Rename, NAMES, NAMES),
        st.builds(disk.Remove, NAMES),
        st.builds(disk.Sync, NAMES),
        st.just(disk.SyncDirectory(".")),
    ),
    max_size=7,
)


def carry_out(tree, request):
    """The same on a tree, after the disk has not refused it."""
    match request:
        case disk.Create(path=path):
            node = len(tree.nodes)
            tree.make_file(node)
            tree.name([(ROOT_NODE, path, node)])
        case disk.Write(path=path, offset=offset, data=data):
            tree.write(tree.found(ROOT_NODE, path), offset, data)
        case disk.Truncate(path=path, size_bytes=size):
            tree.resize(tree.found(ROOT_NODE, path), size)
        case disk.Allocate(path=path, size_bytes=size):
            tree.resize(tree.found(ROOT_NODE, path), size, may_shrink=False)
        case disk.Rename(source=source, target=target):
            tree.name([(ROOT_NODE, source, None), (ROOT_NODE, target, tree.found(ROOT_NODE, source))])
        case disk.Remove(path=path):
            tree.name([(ROOT_NODE, path, None)])
        case disk.Sync(path=path):
            tree.sync(tree.found(ROOT_NODE, path))
        case disk.SyncDirectory():
            tree.sync(ROOT_NODE)


@given(REQUESTS)
def test_it_leaves_what_the_disk_of_the_file_store_leaves(requests):
    image = {"a": b"old"}
    crash_disk, tree = CrashDisk(image), settled_tree(image)
    for request in requests:
        tree.count = crash_disk.count
        with suppress(OSError):
            crash_disk.handlers[type(request)](request)
            carry_out(tree, request)
    assert tree.image() == crash_disk.image()
    for profile in ("posix", "ordered"):
        assert list(tree.on_disk.states(profile)) == list(crash_disk.states(profile))


def images_of(tree):
    found = []
    for state in tree.on_disk.states():
        if state.image not in found:
            found.append(state.image)
    return found


def tree_with_a_directory():
    tree = settled_tree({"sub/": b"", "sub/x": b"x"})
    sub = tree.found(ROOT_NODE, "sub")
    return tree, sub


def test_a_directory_is_renamed_with_what_is_in_it():
    tree, sub = tree_with_a_directory()
    tree.name([(ROOT_NODE, "sub", None), (ROOT_NODE, "other", sub)])
    assert images_of(tree) == [{"other/": b"", "other/x": b"x"}, {"sub/": b"", "sub/x": b"x"}]
    tree.sync(ROOT_NODE)
    assert images_of(tree) == [{"other/": b"", "other/x": b"x"}]


def test_what_is_new_in_a_renamed_directory_needs_a_sync_of_its_own():
    tree, sub = tree_with_a_directory()
    tree.make_file(9)
    tree.name([(sub, "y", 9)])
    tree.name([(ROOT_NODE, "sub", None), (ROOT_NODE, "other", sub)])
    tree.sync(ROOT_NODE)
    assert images_of(tree) == [{"other/": b"", "other/x": b"x", "other/y": b""}, {"other/": b"", "other/x": b"x"}]
    tree.sync(sub)
    assert images_of(tree) == [{"other/": b"", "other/x": b"x", "other/y": b""}]


def test_a_new_directory_of_an_old_name_is_another_one():
    tree, sub = tree_with_a_directory()
    tree.name([(ROOT_NODE, "sub", None), (ROOT_NODE, "other", sub)])
    tree.make_directory(9, "sub")
    tree.name([(ROOT_NODE, "sub", 9)])
    assert tree.image() == {"other/": b"", "other/x": b"x", "sub/": b""}
    assert tree.path_of(9) == "sub"


def test_a_file_of_two_names_is_one_file():
    tree = FileTree()
    tree.make_file(1)
    tree.name([(ROOT_NODE, "a", 1)])
    tree.name([(ROOT_NODE, "b", 1)])
    tree.sync(ROOT_NODE)
    tree.write(1, 0, b"x")
    assert images_of(tree) == [{"a": b"x", "b": b"x"}, {"a": b"", "b": b""}]
