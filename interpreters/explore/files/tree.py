"""A directory of files on the simulated disk, as plain code uses one: by descriptors that outlive names, with links.

The files and what may survive of them are those of `interpreters.disk.survivors`. What is added here is that a
directory has a name like a file has, so that it may be renamed with all that is in it: an entry's key begins with what
its directory was called first, and becomes a path when an image is made.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from interpreters.disk.survivors import (
    DiskChange,
    DiskFile,
    Image,
    NameChange,
    OnDisk,
    apply_names,
)

ROOT_NODE = 0
"""The number of the directory itself."""

LINK_MARK = "\0"
"""What the path of a symbolic link ends with in an image; its content is where it leads to."""

NamedNode = tuple[int, str, int | None]
"""A directory, a name in it, and what has that name from now on; None: nothing."""


class TreeDirectory(DiskFile):
    """A directory; the keys of what is in it begin with its prefix."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix


class TreeLink(DiskFile):
    """A symbolic link; its content is where it leads to."""

    __slots__ = ()


class TreeOnDisk(OnDisk):
    """Which entries are on the disk, by keys; its images have paths."""

    def reachable(self, names: Mapping[str, DiskFile]) -> dict[str, DiskFile]:
        """What a process finds that walks down from the root, by its paths."""
        inside: dict[str, list[tuple[str, DiskFile]]] = {}
        for key, file in names.items():
            prefix, name = split_key(key)
            inside.setdefault(prefix, []).append((name, file))
        return dict(_walked(inside, "", "", frozenset()))


def split_key(key: str) -> tuple[str, str]:
    """A key's directory, as what keys in it begin with, and the name."""
    head, slash, name = key.rpartition("/")
    return head + slash, name


def _walked(
    inside: Mapping[str, list[tuple[str, DiskFile]]], prefix: str, path: str, above: frozenset[str]
) -> Iterator[tuple[str, DiskFile]]:
    for name, file in inside.get(prefix, ()):
        if isinstance(file, TreeLink):
            yield f"{path}{name}{LINK_MARK}", file
        elif not isinstance(file, TreeDirectory):
            yield path + name, file
        elif file.prefix not in above:
            yield f"{path}{name}/", file
            yield from _walked(inside, file.prefix, f"{path}{name}/", above | {file.prefix})


class FileTree:
    """A directory that begins with what a snapshot has, all of it durable. Files are numbered as they are made.

    >>> tree = FileTree()
    >>> tree.make_file(1)
    >>> tree.name([(ROOT_NODE, "a", 1)])
    >>> tree.write(1, 0, b"hello")
    >>> tree.sync(1)
    >>> [state.image for state in tree.on_disk.states()]
    [{'a': b'hello'}, {}]
    """

    def __init__(self) -> None:
        self.count = 0
        """The number of the change that is made next."""
        self.nodes: dict[int, DiskFile] = {ROOT_NODE: TreeDirectory("")}
        self._names: dict[str, DiskFile] = {}
        self._prefixes = {""}
        self.on_disk = TreeOnDisk({})

    def image(self) -> Image:
        """What a process that looks now finds."""
        return {path: file.content for path, file in self.files().items()}

    def files(self) -> dict[str, DiskFile]:
        """The files that a process finds now, by path."""
        return self.on_disk.reachable(self._names)

    def found(self, directory: int, name: str) -> int | None:
        """The number of what has this name."""
        file = self._names.get(self._key(directory, name))
        return None if file is None else self.number_of(file)

    def number_of(self, file: DiskFile) -> int:
        """The number of a file of this tree."""
        return next(number for number, one in self.nodes.items() if one is file)

    def path_of(self, node: int) -> str:
        """The path of a file now, or of the directory itself; nothing where it has none any more."""
        file = self.nodes[node]
        return next((path.rstrip("/" + LINK_MARK) for path, one in self.files().items() if one is file), "")

    # Changes

    def make_file(self, node: int, content: bytes = b"") -> None:
        """Have a file without a name yet."""
        self.nodes[node] = DiskFile(content)

    def make_link(self, node: int, target: bytes) -> None:
        """Have a symbolic link without a name yet."""
        self.nodes[node] = TreeLink(target)

    def make_directory(self, node: int, called: str) -> None:
        """Have an empty directory without a name yet, ``called`` as it will be."""
        prefix, again = f"{called}/", 1
        while prefix in self._prefixes:
            again += 1
            prefix = f"{called}~{again}/"
        self._prefixes.add(prefix)
        self.nodes[node] = TreeDirectory(prefix)

    def name(self, names: Iterable[NamedNode]) -> None:
        """Give and take away names, all or none of them after a crash."""
        pairs = [(self._key(directory, name), self._node(node)) for directory, name, node in names]
        kept = [file for _, file in pairs]
        gone = [self._names[key] for key, _ in pairs if key in self._names]
        self.on_disk.removed += [file.content for file in gone if file not in kept and file.content]
        change = NameChange(self.count, tuple(pairs))
        apply_names(self._names, change)
        self.on_disk.name_changes.append(change)

    def write(self, node: int, offset: int, data: bytes) -> None:
        """Write bytes into a file."""
        if data:
            self.nodes[node].change(DiskChange(self.count, offset, data, offset + len(data)))

    def resize(self, node: int, size_bytes: int, *, may_shrink: bool = True) -> None:
        """Cut a file, or lengthen it by zeros."""
        self.nodes[node].change(DiskChange(self.count, None, b"", size_bytes, may_shrink=may_shrink))

    def sync(self, node: int) -> None:
        """Bring to the disk what a file holds, or the names in a directory."""
        file = self.nodes[node]
        if isinstance(file, TreeDirectory):
            self.on_disk.sync_directory(file.prefix)
        else:
            file.settle()

    def sync_all(self) -> None:
        """Bring everything to the disk."""
        for node in self.nodes:
            self.sync(node)

    def _key(self, directory: int, name: str) -> str:
        file = self.nodes[directory]
        assert isinstance(file, TreeDirectory), f"{name!r} is named in a directory"
        return file.prefix + name

    def _node(self, node: int | None) -> DiskFile | None:
        return None if node is None else self.nodes[node]


TreeChange = Callable[[FileTree], None]
"""Something that a call does to a tree; it does the same to another one that had the same calls before."""


def settled_tree(image: Image) -> FileTree:
    """A tree that begins with an image, all of it durable, numbered in the order of its paths.

    >>> settled_tree({"a": b"hello", "sub/": b""}).image()
    {'a': b'hello', 'sub/': b''}
    """
    tree = FileTree()
    directories = {"": ROOT_NODE}
    for number, path in enumerate(sorted(image), 1):
        plain = path.rstrip("/" + LINK_MARK)
        head, name = split_key(plain)
        if path.endswith("/"):
            tree.make_directory(number, plain)
            directories[path] = number
        elif path.endswith(LINK_MARK):
            tree.make_link(number, image[path])
        else:
            tree.make_file(number, image[path])
        tree.name([(directories[head], name, number)])
    tree.sync_all()
    return tree
