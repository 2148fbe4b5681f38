"""The example `examples/git_history.py` on a store that is kept: run again, killed, with HEAD somewhere else."""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from dying_disk import Changes, Died
from git_repositories import Builder, all_commits, file, git, ls_tree, quiet_git, random_history  # noqa: F401
from places import EXAMPLES, ROOT
from typer.testing import CliRunner

from interpreters import cli, open_store
from persist_effects import kv, log

sys.path.insert(0, str(EXAMPLES))

import git_history
import git_reader


@pytest.fixture
def url(tmp_path: Path) -> str:
    # Small segments, which are quickly recovered, and begun again and again.
    return f"file:{tmp_path / 'store'}?segment_bytes=16384"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    builder = Builder(tmp_path / "small")
    builder.commit({b"a": file("1"), b"dir/b": file("1")})
    builder.commit({b"a": file("2")}, author=b"Grace <grace@example.org>")
    builder.commit({b"c": file("3")}, drop=(b"dir/b",))
    return builder.build()


@pytest.fixture
def frugal_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is asked each question once, for tests that run again and again on a repository that stays as it is."""
    honest, answers = git_reader.Repository._ask, dict[Any, bytes]()

    def ask(repository: git_reader.Repository, *args: str) -> bytes:
        key = (repository._path, args)
        if key not in answers:
            answers[key] = honest(repository, *args)
        return answers[key]

    monkeypatch.setattr(git_reader.Repository, "_ask", ask)


def run(repo: Path | str, url: str | None, *args: str) -> Any:
    store = () if url is None else ("--store", url)
    return CliRunner().invoke(git_history.app, [str(repo), *store, *args], catch_exceptions=False)


def assert_proved(repo: Path, url: str, *args: str, recorded: int | None = None) -> list[str]:
    """Run, and look into the store besides. Returns the lines printed."""
    result = run(repo, url, *args)
    assert result.exit_code == 0, result.output
    if recorded is not None:
        assert f"{url}: {recorded} commit" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("proved: ")
    with open_store(url) as store:
        ids = [event.data["id"] for event in store.run(log.read("commits"))]
        turn = store.run(kv.get("followed"))["turn"]
        blobs = {key.partition(f"blob/{turn}/")[2]: store.run(kv.get(key)) for key in store.run(kv.keys("blob/"))}
    assert Counter(ids).most_common(1)[0][1] == 1, "a commit was recorded twice"
    assert set(all_commits(repo)) <= set(ids)
    assert blobs == {path.decode(): leaf.split()[1] for path, leaf in ls_tree(repo, "HEAD").items()}
    return lines


def answers(lines: list[str]) -> list[str]:
    """What is printed but for how much there was to compact and to compare."""
    return lines[:-2]


def move_head(repo: Path, commit: str) -> None:
    git(repo, "update-ref", "--no-deref", "HEAD", commit)


# Run again


def test_a_second_run_records_nothing_and_prints_the_same(small: Path, url: str) -> None:
    first = assert_proved(small, url, recorded=3)
    assert assert_proved(small, url, recorded=0) == first
    assert run(small, "memory:").stdout.splitlines() == first


def test_it_says_what_it_wrote_and_each_command_that_it_names_shows_that(small: Path, url: str) -> None:
    *_, newest = all_commits(small)
    *_, event, key, title, read, get, streams = run(small, url).stderr.splitlines()
    assert event == "an event in it: committed, number 3 of the stream commits, position 6: change"
    assert key.startswith(f"a key in it: commit/{newest}, revision ")
    assert title == "look at them:"
    shown = []
    for line in (read, get, streams):
        command, *arguments = shlex.split(line)
        assert Path(command).resolve() == Path(sys.executable).with_name("persist-effects").resolve()
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        shown.append(result.stdout)
    assert shown[0].startswith("3 ")
    assert newest in shown[0]
    assert f"revision {key.rpartition(' ')[2]}" in shown[1]
    assert re.search(r" 2 +2 +path/a\n", shown[2])


def test_of_a_store_in_memory_it_says_where_to_keep_it(small: Path) -> None:
    *_, event, key, last = run(small, "memory:").stderr.splitlines()
    assert event.startswith("an event in it: committed")
    assert key.startswith("a key in it: ")
    assert last == "it was in memory, and is gone: --store file:PATH keeps it, to be looked at"


def test_a_second_run_asks_git_for_no_commit(small: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_proved(small, url)
    asked = []
    honest = git_reader.Repository.commits
    monkeypatch.setattr(git_reader.Repository, "commits", lambda self, ids: asked.append(ids) or honest(self, ids))
    assert_proved(small, url)
    assert asked == [[]]


def test_each_run_may_ask_about_another_commit(small: Path, url: str) -> None:
    for name in ("HEAD~2", "HEAD~1", "HEAD", "HEAD~2"):
        lines = assert_proved(small, url, "--at", name)
        assert lines == run(small, "memory:", "--at", name).stdout.splitlines()


def test_where_head_moved_on_only_the_new_commits_are_recorded_and_kv_goes_on(tmp_path: Path, url: str) -> None:
    builder = Builder(tmp_path / "grows")
    for number in range(30):
        builder.commit({b"f%d" % (number % 7): file(str(number))}, drop=(b"f3",) if number == 20 else ())
    repo = builder.build()
    commits = all_commits(repo)
    for before, reached in ((0, 10), (10, 11), (11, 30)):
        move_head(repo, commits[reached - 1])
        assert_proved(repo, url, recorded=reached - before)
    with open_store(url) as store:
        assert store.run(kv.get("followed")) == {"turn": 1, "head": commits[-1], "commits": 30}
        assert store.run(kv.keys("snapshot/")) == [f"snapshot/view/authors/{commits[-1]}"]


def test_a_repository_that_was_empty_at_first_is_proved(tmp_path: Path, url: str) -> None:
    builder = Builder(tmp_path / "empty")
    assert run(builder.path, url).stdout.splitlines()[0] == "there are no commits yet, and nothing to tell of"
    builder.commit({b"a": file("1")})
    assert_proved(builder.build(), url, recorded=1)


# HEAD somewhere else


@pytest.fixture
def forked(tmp_path: Path) -> Path:
    """A root; two commits of a topic; two of main, of which one takes the other back; and their merge. All named."""
    builder = Builder(tmp_path / "forked")
    root = builder.commit({b"a": file("0"), b"gone": file("0")}, branch="root")
    topic = builder.commit({b"a": file("topic")}, drop=(b"gone",), parents=(root,), branch="topic")
    topic2 = builder.commit({b"t": file("topic")}, parents=(topic,), branch="topic2")
    first = builder.commit({b"a": file("main"), b"m": file("main")}, parents=(root,), branch="main1")
    main2 = builder.commit({b"a": file("0")}, parents=(first,), branch="main2")
    builder.commit({b"t": file("topic")}, drop=(b"gone",), parents=(main2, topic2), branch="merge")
    return builder.build()


@pytest.mark.parametrize(
    "way",
    [
        "main2 main1 root",
        "main2 topic2 main2",
        "root topic2 root topic2",
        "topic main2 merge topic2 merge",
        "merge root topic main1 merge",
        "main1 topic main2 topic2 merge",
    ],
)
def test_head_may_be_reset_switched_and_merged(forked: Path, url: str, way: str) -> None:
    for name in way.split():
        move_head(forked, f"refs/heads/{name}")
        assert answers(assert_proved(forked, url)) == answers(run(forked, "memory:").stdout.splitlines()), name


def test_commits_that_were_passed_over_are_followed_when_head_comes_back_to_them(forked: Path, url: str) -> None:
    turns = []
    for name in ("root", "topic", "root", "topic2", "topic2"):
        move_head(forked, f"refs/heads/{name}")
        assert_proved(forked, url)
        with open_store(url) as store:
            turns.append(store.run(kv.get("followed"))["turn"])
    # Back to the root is another line; from there the topic was passed over.
    assert turns == [1, 1, 2, 3, 3]


def test_a_rewritten_history_is_proved_also_when_git_has_forgotten_the_old_one(small: Path, url: str) -> None:
    assert_proved(small, url)
    old = all_commits(small)
    tree = git(small, "rev-parse", "HEAD~1^{tree}").decode().strip()
    amended = git(small, "commit-tree", "-m", "amended", "-p", old[0], tree).decode().strip()
    git(small, "update-ref", "refs/heads/main", amended)
    git(small, "reflog", "expire", "--expire=now", "--all")
    git(small, "gc", "--quiet", "--prune=now")
    assert subprocess.run(["git", "-C", small, "cat-file", "-e", old[2]], capture_output=True, check=False).returncode
    lines = assert_proved(small, url, recorded=1)
    assert answers(lines) == answers(run(small, "memory:").stdout.splitlines())


@pytest.mark.exploration
@pytest.mark.parametrize("seed", range(3))
def test_wherever_head_goes_and_whenever_a_run_dies_the_next_is_proved(
    tmp_path: Path, url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = random_history(tmp_path / "random", random.Random(seed))
    commits, choices = all_commits(repo), random.Random(f"walk {seed}")
    died = 0
    for step in range(12):
        move_head(repo, choices.choice(commits))
        if choices.random() < 0.6:
            died += dies(repo, url, choices.randrange(1, 50), monkeypatch)
            move_head(repo, choices.choice(commits))
        lines = assert_proved(repo, url, "--at", "HEAD")
        assert answers(lines) == answers(run(repo, "memory:", "--at", "HEAD").stdout.splitlines()), (seed, step)
    assert died >= 3, seed


def test_a_clone_of_another_depth_has_another_store(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder(tmp_path / "deep")
    for number in range(6):
        builder.commit({b"a": file(str(number)), b"f%d" % number: file("x")})
    git(tmp_path, "clone", "--quiet", "--depth=2", builder.build().as_uri(), "clone")
    monkeypatch.setattr(git_history, "STORES", tmp_path / "stores")
    assert_proved(tmp_path / "clone", url, recorded=2)
    assert run(tmp_path / "clone", None).exit_code == 0
    git(tmp_path / "clone", "fetch", "--quiet", "--unshallow")
    assert (
        run(tmp_path / "clone", None).stdout.splitlines()[-1].endswith("at 6 commits, mode and blob id, no difference")
    )
    assert_one_line(run(tmp_path / "clone", url), 2, f"{url} was filled from a clone of another depth")


# Killed


def dies(repo: Path, url: str, at: int, monkeypatch: pytest.MonkeyPatch, *args: str) -> bool:
    """Run until the disk's ``at``-th change, of which half is made, and nothing after it. Whether it came so far."""

    def die() -> None:
        raise Died

    with monkeypatch.context() as patch:
        Changes(at, die, is_final=True).install(patch.setattr)
        try:
            run(repo, url, *args)
        except Died:
            return True
    return False


@pytest.mark.exploration
@pytest.mark.usefixtures("frugal_git")
def test_dying_at_any_change_of_the_disk_and_run_again_it_is_proved(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_history, "BATCH_SIZE", 2)
    for at in count(1):
        url = f"file:{tmp_path / f'store {at}'}?segment_bytes=4096"
        if not dies(small, url, at, monkeypatch):
            break
        assert_proved(small, url)
    assert at > 20


@pytest.mark.usefixtures("frugal_git")
def test_dying_again_and_again_on_one_store_it_is_proved_in_the_end(
    small: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in count(1, 3):
        if not dies(small, url, at, monkeypatch):
            break
    assert_proved(small, url)


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    choices = random.Random(300)
    builder = Builder(tmp_path_factory.mktemp("long") / "long")
    heads = [builder.commit({b"f0": file("0")})]
    for number in range(2, 301):
        parents = (heads[-1],) if choices.random() < 0.9 else (heads[-1], heads[0])
        put = {b"d%d/f%d" % (n % 5, n): file(str(number)) for n in choices.sample(range(60), 3)}
        heads = [*heads[-5:], builder.commit(put, parents=parents)]
    return builder.build()


def assert_killed(repo: Path, url: str, what: str, at: int) -> None:
    command = [
        sys.executable,
        Path(__file__).with_name("dying_disk.py"),
        what,
        str(at),
        "git_history",
        repo,
        "--store",
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.exploration
@pytest.mark.parametrize(
    ("at", "recorded"),
    [(1, 300), (2, 50), (251, 50), (252, 0), (303, 0)],
    ids=["at the beginning", "after a batch", "at its end", "after another", "while it answers"],
)
def test_killed_at_a_move_of_its_bars_it_goes_on_from_there(long: Path, url: str, at: int, recorded: int) -> None:
    assert_killed(long, url, "bars", at)
    assert_proved(long, url, recorded=recorded)


@pytest.mark.exploration
@pytest.mark.parametrize("eighth", range(1, 8))
def test_killed_in_the_middle_of_a_change_of_the_disk_and_run_again_it_is_proved(
    long: Path, url: str, eighth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        changes = Changes(0, lambda: None).install(patch.setattr)
        run(long, url.replace("store", "counted"))
    assert_killed(long, url, "disk", changes.count * eighth // 8)
    assert_proved(long, url)


# Ctrl-C


def interrupted(repo: Path, url: str, at: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The result of a run with Ctrl-C pressed in the middle of the disk's ``at``-th change, None without so many."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        changes = Changes(at, interrupt).install(patch.setattr)
        result = run(repo, url)
    return result if changes.count >= at else None


@pytest.mark.exploration
@pytest.mark.usefixtures("frugal_git")
def test_control_c_at_any_change_of_the_disk_closes_the_store_and_the_next_run_is_proved(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in count(1):
        url = f"file:{tmp_path / f'store {at}'}?segment_bytes=4096"
        result = interrupted(small, url, at, monkeypatch)
        if result is None:
            break
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "git_history: interrupted"), at
        assert_proved(small, url)


# What goes wrong


def path_of(url: str) -> str:
    return url.removeprefix("file:").partition("?")[0]


def assert_one_line(result: Any, exit_code: int, *words: str) -> None:
    assert result.exit_code == exit_code, result.output
    *_, line = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("git_history: ")
    for word in words:
        assert word in line


def test_a_store_that_another_process_has_open_is_one_line_and_code_3(small: Path, url: str) -> None:
    command = [sys.executable, EXAMPLES / "git_history.py", small, "--store", url]
    with open_store(url):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    store = path_of(url)
    assert line.startswith(
        f"git_history: the store {store} is open for writing elsewhere, by process {os.getpid()} on "
    )
    assert_proved(small, url)


def test_a_damaged_store_is_one_line_and_code_1(small: Path, url: str, tmp_path: Path) -> None:
    assert_proved(small, url)
    (tmp_path / "store" / "CURRENT").write_text("damaged")
    assert_one_line(run(small, url), 1, f"{path_of(url)}: CURRENT")


def test_damage_that_is_found_while_programs_run_together_is_one_line_and_code_1(
    small: Path, url: str, tmp_path: Path
) -> None:
    assert_proved(small, url)
    leaf = ls_tree(small, "HEAD")[b"c"].encode()
    damaged = [segment for segment in (tmp_path / "store" / "log").glob("*.seg") if leaf in segment.read_bytes()]
    for segment in damaged:
        segment.write_bytes(segment.read_bytes().replace(leaf, leaf[::-1]))
    assert len(damaged) == 1
    assert_one_line(run(small, url), 1, f"{path_of(url)}: log/")


def test_a_store_that_cannot_be_made_is_one_line_and_code_3(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(run(small, f"file:{tmp_path}/file/store"), 3, "Not a directory")


@pytest.mark.parametrize(
    ("bad", "message"), [("", "names no store"), ("nothing:", "names no store"), ("memory:?mode=r", "names no store")]
)
def test_a_url_of_no_store_is_one_line_and_code_2(small: Path, bad: str, message: str) -> None:
    assert_one_line(run(small, bad), 2, message)


def test_a_store_that_is_opened_to_read_only_is_one_line_and_code_2(small: Path, url: str, tmp_path: Path) -> None:
    assert_proved(small, url)
    assert_one_line(run(small, f"file:{tmp_path / 'store'}?mode=r"), 2, "was opened to read only")


def test_without_a_url_each_repository_has_one_store_under_var(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ROOT / "var" / "git-history" == git_history.STORES
    monkeypatch.setattr(git_history, "STORES", tmp_path / "stores")
    inner = small / "inner"
    inner.mkdir()
    for repo, stores, recorded in ((small, 1, 3), (inner, 1, 0), (Builder(tmp_path / "other").path, 2, 0)):
        result = run(repo, None)
        assert (result.exit_code, f": {recorded} commits recorded" in result.stderr) == (0, True)
        assert len(list((tmp_path / "stores").iterdir())) == stores


def test_the_exit_codes_are_in_the_help() -> None:
    text = " ".join(CliRunner().invoke(git_history.app, ["--help"], env={"COLUMNS": "200"}).stdout.split())
    for code, meaning in ((0, "proved"), (1, "damaged"), (2, "cannot be done"), (3, "open elsewhere"), (130, "inter")):
        assert f"{code} " in text
        assert meaning in text
