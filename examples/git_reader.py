"""What git says of a repository: its commits with what each changed, and its trees. The only part that runs git.

Every answer is the same whatever the user's configuration, locale and working directory are. Paths are bytes, because
git's are. A leaf, what stands in a tree under a path, is git's mode and id as one text: ``"100644 e69de29b…"``.
Needs git 2.31 or later, for ``--diff-merges=first-parent``.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

_CHUNK_BYTES = 1 << 16

# Set where git runs a hook, these would lead away from the repository that was asked for.
_ELSEWHERE = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)

_FIELDS = ("%H", "%P", "%an <%ae>", "%at", "%s")
_LOG = (
    "log",
    "--no-walk=unsorted",
    "--stdin",
    "--root",
    "--diff-merges=first-parent",
    "--raw",
    "-r",
    "-z",
    "--no-abbrev",
    "--no-renames",
    "--no-relative",
    "--no-ext-diff",
    "--no-color",
    "--no-show-signature",
    "--ignore-submodules=none",
    "--encoding=UTF-8",
    "--format=tformat:" + "%x00".join(_FIELDS),
)

_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class GitError(Exception):
    """Git, or the repository, cannot give what was asked for. The message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Change:
    """One path, and the leaf that a commit put there; None where it took the path away."""

    path: bytes
    leaf: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, and how its tree differs from that of its first parent; a root's, from the empty tree."""

    id: str
    parents: tuple[str, ...]
    author: str
    authored_at_seconds: int
    subject: str
    changes: tuple[Change, ...]


class Repository:
    """A git repository, named by its path or by any directory within it. Raises `GitError` if it is none."""

    def __init__(self, path: str) -> None:
        self._path = path
        if not path:
            raise GitError("'' is not a git repository: give a path")
        try:
            self._ask("rev-parse", "--git-dir")
        except GitError as error:
            raise GitError(f"{path!r} is not a git repository: {error}") from error

    def head(self) -> str | None:
        """The id of the commit at HEAD, None where nothing was committed yet."""
        found = self._resolve("HEAD")
        if found is None:
            self._check_unborn()
        return found

    def reachable_commit(self, name: str, head: str | None) -> str:
        """The id of the commit that a branch, tag, id or expression such as ``HEAD~3`` names, if HEAD reaches it."""
        found = self._resolve(f"{name}^{{commit}}")
        if found is None:
            raise GitError(f"{name!r} names no commit of {self._path!r}")
        if head is None or self._ask("rev-list", "--max-count=1", found, f"^{head}"):
            raise GitError(f"{name!r} is commit {found}, which cannot be reached from HEAD: check out what reaches it")
        return found

    def count_commits(self, head: str) -> int:
        """How many commits can be reached from this one, itself included."""
        return int(self._ask("rev-list", "--count", head))

    def commit_ids(self, head: str) -> list[str]:
        """The ids of all commits that can be reached from this one, parents before children."""
        return self._ask("rev-list", "--topo-order", "--reverse", head).decode("ascii").split()

    def commits(self, ids: Sequence[str]) -> Generator[Commit, None, None]:
        """The commits of these ids, in this order, read as git finds them. Closing the generator ends git."""
        if not ids:
            return
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            # A file, because git may end before it has read all of a pipe.
            stdin.writelines(f"{commit}\n".encode("ascii") for commit in ids)
            stdin.seek(0)
            with _running(self._command(*_LOG, "--"), stderr, stdin) as process:
                assert process.stdout is not None
                yield from _parse_log(_split_at_nul(process.stdout))
            if process.returncode:
                stderr.seek(0)
                raise GitError(f"git log failed: {_first_line(stderr.read())}")

    def directory(self) -> bytes:
        """Where git keeps the repository: the same for every directory within it."""
        return self._ask("rev-parse", "--absolute-git-dir").removesuffix(b"\n")

    def shallow_commits(self) -> list[str]:
        """The ids, sorted, of the commits at which a shallow clone ends: git says that they have no parents."""
        path = self._ask("rev-parse", "--path-format=absolute", "--git-path", "shallow").removesuffix(b"\n")
        try:
            with open(path, encoding="ascii") as lines:
                return sorted(lines.read().split())
        except FileNotFoundError:
            return []

    def tree(self, commit: str) -> dict[bytes, str]:
        """Each path's leaf in the whole tree of a commit, as ``git ls-tree -r`` prints them."""
        listing = self._ask("ls-tree", "-r", "-z", "--full-tree", commit)
        return dict(_parse_ls_tree(listing))

    def _check_unborn(self) -> None:
        # A branch without commits and a damaged one look the same to rev-parse; the log tells them apart.
        try:
            self._ask("log", "-1")
        except GitError as error:
            if "does not have any commits yet" not in str(error):
                raise

    def _resolve(self, expression: str) -> str | None:
        try:
            found = self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", expression)
        except GitError:
            return None
        name = found.decode("ascii", "replace").strip()
        return name if _ID.fullmatch(name) else None

    def _command(self, *args: str) -> list[str]:
        return ["git", "--no-pager", "--no-replace-objects", "--literal-pathspecs", "-C", self._path, *args]

    def _ask(self, *args: str) -> bytes:
        with tempfile.TemporaryFile() as stderr, _running(self._command(*args), stderr) as process:
            stdout, _ = process.communicate()
            if process.returncode:
                stderr.seek(0)
                raise GitError(_first_line(stderr.read()) or f"git {args[0]} ended with {process.returncode}")
        return stdout


class _Git(subprocess.Popen[bytes]):
    """A git that whoever starts it knows before it is there, so that a Ctrl-C in between leaves none behind."""

    def __init__(self, started: "list[_Git]", command: list[str], stderr: IO[bytes], stdin: IO[bytes] | int) -> None:
        started.append(self)
        environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE} | {"LC_ALL": "C"}
        super().__init__(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=environment)

    def end(self, *, is_cut_off: bool) -> None:
        """Wait until it has ended; where nobody reads what it writes, it is killed."""
        # An interrupt may have come before it was there.
        if getattr(self, "pid", None) is None:
            return
        if is_cut_off:
            self.kill()
        assert self.stdout is not None
        self.stdout.close()
        self.wait()


@contextmanager
def _running(
    command: list[str], stderr: IO[bytes], stdin: IO[bytes] | int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    started: list[_Git] = []
    try:
        yield _started(started, command, stderr, stdin)
        for process in started:
            process.end(is_cut_off=False)
    except BaseException:
        for process in started:
            process.end(is_cut_off=True)
        raise


def _started(started: list[_Git], command: list[str], stderr: IO[bytes], stdin: IO[bytes] | int) -> _Git:
    try:
        return _Git(started, command, stderr, stdin)
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}: install git and have it on the PATH") from error


def _first_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "backslashreplace").splitlines()
    return lines[0].removeprefix("fatal: ") if lines else ""


def _split_at_nul(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    if rest:
        raise GitError("git log stopped in the middle of a line")


def _parse_log(tokens: Iterator[bytes]) -> Iterator[Commit]:
    """The commits that `_LOG` prints: each its fields, then ``:mode mode id id STATUS`` and a path for each change."""
    token = next(tokens, None)
    while token is not None:
        commit_id = token.decode("ascii", "replace")
        if not _ID.fullmatch(commit_id):
            raise GitError(f"git log printed {commit_id!r:.80} where a commit's id should be")
        parents, author, authored_at, subject = (_text(next(tokens, b"")) for _ in _FIELDS[1:])
        changes: list[Change] = []
        # A newline parts the fields from the first change.
        while (token := next(tokens, None)) is not None and token.lstrip(b"\n").startswith(b":"):
            _, mode, _, blob, status = token.decode("ascii").split(" ")
            changes.append(Change(next(tokens), None if status == "D" else f"{mode} {blob}"))
        # A damaged commit may have no time that git can read.
        yield Commit(commit_id, tuple(parents.split()), author, int(authored_at or "0"), subject, tuple(changes))


def _parse_ls_tree(listing: bytes) -> Iterator[tuple[bytes, str]]:
    for line in listing.split(b"\0")[:-1]:
        facts, _, path = line.partition(b"\t")
        mode, _, blob = facts.decode("ascii").split(" ")
        yield path, f"{mode} {blob}"


def _text(field: bytes) -> str:
    return field.decode("utf-8", "backslashreplace")
