"""Repositories that git itself builds, and what git says of them, for the tests of `examples/git_history.py`."""

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

WHO = b"Ada <ada@example.org>"

Leaf = tuple[str, bytes]


@pytest.fixture(autouse=True)
def quiet_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration but what a test writes, and no repository around the test's own."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
        monkeypatch.setenv(f"GIT_{role}_DATE", "1700000000 +0000")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


def git(repo: Path, *args: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["git", "-C", repo, *args], input=stdin, capture_output=True, check=True).stdout


class Builder:
    """Writes a history through `git fast-import`, so that no name has to suit this machine's file system."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        path.mkdir(parents=True)
        git(path, "init", "--quiet", "--initial-branch=main", *options)
        self._stream: list[bytes] = []
        self._commits = 0

    def commit(
        self,
        put: dict[bytes, Leaf] | None = None,
        *,
        drop: tuple[bytes, ...] = (),
        parents: tuple[int, ...] | None = None,
        author: bytes = WHO,
        branch: str = "main",
    ) -> int:
        """Commit onto the commit before this one, unless other parents are given; returns the commit's mark."""
        self._commits += 1
        mark = self._commits
        if parents is None:
            parents = (mark - 1,) if mark > 1 else ()
        when = b"%d +0000" % (1_700_000_000 + mark)
        # Resetting first makes a commit without parents a root.
        self._stream.append(b"reset refs/heads/%s\n\n" % branch.encode())
        self._stream.append(b"commit refs/heads/%s\nmark :%d\n" % (branch.encode(), mark))
        self._stream.append(b"author %s %s\ncommitter %s %s\ndata 6\nchange\n" % (author, when, WHO, when))
        self._stream += [(b"merge :%d\n" if nth else b"from :%d\n") % parent for nth, parent in enumerate(parents)]
        self._stream += [b"D %s\n" % quoted(path) for path in drop]
        for path, (mode, content) in (put or {}).items():
            if mode == "160000":
                self._stream.append(b"M 160000 %s %s\n" % (content, quoted(path)))
            else:
                entry = (mode.encode(), quoted(path), len(content), content)
                self._stream.append(b"M %s inline %s\ndata %d\n%s\n" % entry)
        return mark

    def build(self) -> Path:
        git(self.path, "fast-import", "--quiet", "--force", stdin=b"".join(self._stream))
        return self.path


def quoted(path: bytes) -> bytes:
    return b'"%s"' % b"".join(b"\\%03o" % byte for byte in path)


def file(content: str) -> Leaf:
    return ("100644", content.encode())


def ls_tree(repo: Path, commit: str) -> dict[bytes, str]:
    """What git prints, read in another way than the example reads it."""
    lines = git(repo, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]
    found = [re.fullmatch(rb"(\d{6}) \w+ (\w+)\t(.+)", line, re.DOTALL) for line in lines]
    return {match[3]: f"{match[1].decode()} {match[2].decode()}" for match in found if match}


def all_commits(repo: Path) -> list[str]:
    return git(repo, "rev-list", "--topo-order", "--reverse", "HEAD").decode().split()


def random_history(path: Path, choices: random.Random) -> Path:
    builder = Builder(path)
    heads = [builder.commit({b"f0": file("0")})]
    for number in range(1, 40):
        parents = tuple(choices.sample(heads, min(len(heads), choices.choice((1, 1, 1, 2, 3)))))
        put = {b"f%d" % choices.randrange(8): file(str(number)) for _ in range(choices.randrange(4))}
        drop = (b"f%d" % choices.randrange(8),) if choices.random() < 0.3 else ()
        mark = builder.commit({p: f for p, f in put.items() if p not in drop}, drop=drop, parents=parents)
        heads = [*heads[-3:], mark]
    builder.commit(parents=tuple(reversed(heads)))
    return builder.build()
