"""The example `examples/git_history.py`, on real repositories that git itself builds."""

import contextlib
import doctest
import inspect
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from git_repositories import Builder, all_commits, file, git, ls_tree, quiet_git, random_history  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from interrupts import Interrupt
from places import EXAMPLES
from server_processes import child_processes
from typer.testing import CliRunner

from interpreters import Store, open_store
from persist_effects import kv, log
from persist_effects.event import check_name

sys.path.insert(0, str(EXAMPLES))

import git_history
import git_programs
import git_reader

SCRIPT = [sys.executable, "-W", "error", EXAMPLES / "git_history.py"]
VERDICT = re.compile(r"proved: (\d+) paths? compared at (\d+) commits?, mode and blob id, no difference")


def run(repo: Path | str, *args: str, store: str = "memory:") -> Any:
    return CliRunner().invoke(git_history.app, [str(repo), "--store", store, *args], catch_exceptions=False)


def assert_proved(repo: Path, *args: str, store: str = "memory:") -> str:
    """Run, and check the verdict against a count of our own; for histories of at most eleven commits."""
    result = run(repo, *args, store=store)
    assert result.exit_code == 0, result.output
    commits = all_commits(repo)
    expected = (sum(len(ls_tree(repo, commit)) for commit in commits), len(commits))
    assert verdict(result.stdout) == expected
    return result.stdout


def verdict(stdout: str) -> tuple[int, int]:
    found = VERDICT.fullmatch(stdout.splitlines()[-1])
    assert found, stdout
    return int(found[1]), int(found[2])


def assert_one_line_error(result: Any, *words: str) -> None:
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("git_history: ")
    for word in words:
        assert word in line


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    builder = Builder(tmp_path / "linear")
    builder.commit({b"a": file("1"), b"dir/b": file("1")})
    builder.commit({b"a": file("2")}, author=b"Grace <grace@example.org>")
    builder.commit({b"c": file("3")}, drop=(b"dir/b",))
    return builder.build()


# Histories of every shape


def test_a_linear_history_is_proved_at_every_commit(linear: Path) -> None:
    assert_proved(linear)


def test_the_last_line_is_the_verdict_and_two_runs_print_the_same(linear: Path) -> None:
    first = assert_proved(linear)
    assert first.splitlines()[-1] == "proved: 6 paths compared at 3 commits, mode and blob id, no difference"
    assert run(linear).stdout == first


def test_the_printed_tree_is_what_git_prints(linear: Path) -> None:
    lines = run(linear, "--full").stdout.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("tree at HEAD"))
    printed = {line.split()[2].encode(): " ".join(line.split()[:2]) for line in lines[start + 1 : start + 3]}
    assert printed == ls_tree(linear, "HEAD")


def test_more_than_eleven_commits_are_proved_at_eleven(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "long")
    for number in range(250):
        builder.commit({b"f%d" % (number % 17): file(str(number))})
    compared, commits = verdict(run(builder.build()).stdout)
    assert commits == 11
    assert compared > 11 * 10


def test_a_commit_asked_for_is_proved_besides_the_eleven(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "long")
    for number in range(30):
        builder.commit({b"f%d" % number: file(str(number))})
    result = run(builder.build(), "--at", "HEAD~1")
    assert verdict(result.stdout)[1] == 12
    assert "tree at HEAD~1" in result.stdout


def test_merges_octopus_and_criss_cross_are_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "merges")
    root = builder.commit({b"a": file("0"), b"b": file("0"), b"c": file("0")})
    left = builder.commit({b"a": file("left")}, parents=(root,))
    right = builder.commit({b"b": file("right")}, drop=(b"c",), parents=(root,))
    third = builder.commit({b"d": file("third")}, parents=(root,))
    crossed = builder.commit({b"b": file("right")}, drop=(b"c",), parents=(left, right))
    recrossed = builder.commit({b"a": file("left")}, parents=(right, left))
    met = builder.commit({b"a": file("neither")}, parents=(crossed, recrossed))
    octopus = builder.commit({b"d": file("third")}, parents=(met, left, right, third))
    builder.commit({b"e": file("end")}, parents=(octopus,))
    assert_proved(builder.build())


def test_a_merge_that_differs_from_both_parents_is_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "conflict")
    root = builder.commit({b"a": file("0")})
    left = builder.commit({b"a": file("left")}, parents=(root,))
    right = builder.commit({b"a": file("right")}, parents=(root,))
    builder.commit({b"a": file("settled"), b"only in the merge": file("x")}, parents=(left, right))
    assert_proved(builder.build())


def test_a_merge_that_keeps_the_other_side_is_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "theirs")
    root = builder.commit({b"a": file("0")})
    left = builder.commit({b"a": file("left"), b"l": file("l")}, parents=(root,))
    right = builder.commit({b"a": file("right")}, parents=(root,))
    builder.commit({b"a": file("right")}, drop=(b"l",), parents=(left, right))
    assert_proved(builder.build())


def test_several_roots_are_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "roots")
    one = builder.commit({b"a": file("1")})
    other = builder.commit({b"a": file("2"), b"b": file("2")}, parents=())
    builder.commit({b"b": file("2")}, parents=(one, other))
    assert_proved(builder.build())


def test_type_changes_of_a_path_are_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "types")
    builder.commit({b"x": file("a file"), b"run": file("#!")})
    builder.commit({b"x": ("120000", b"run"), b"run": ("100755", b"#!")})
    builder.commit({b"x/inner": file("now a directory")}, drop=(b"x",))
    builder.commit({b"x": ("160000", b"1" * 40)}, drop=(b"x",))
    builder.commit({b"x": ("160000", b"2" * 40)})
    builder.commit({b"x": file("a file again")}, drop=(b"x",))
    stdout = assert_proved(builder.build(), "--at", "HEAD~1")
    assert f"160000 {'2' * 40}  x" in stdout


def test_commits_that_change_nothing_are_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "empty commits")
    builder.commit()
    builder.commit({b"a": file("1")})
    builder.commit()
    builder.commit(drop=(b"a",))
    assert_proved(builder.build())


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_of_every_commit_of_a_random_history_is_gits(tmp_path: Path, seed: int) -> None:
    repo = random_history(tmp_path / "random", random.Random(seed))
    commits = all_commits(repo)
    with imported(repo) as (store, bars):
        question = store.run(git_programs.ask_about(commits[::-1]))
        before = git_history.answer(store, bars, question)
        after, dropped = git_history.answer_compacted(store, bars, question)
    assert dropped > 0
    assert before == after
    for commit in commits:
        assert after.tree(commit) == ls_tree(repo, commit), f"seed {seed}, commit {commit}"


@contextmanager
def imported(repo: Path) -> Iterator[tuple[Store, git_history.Bars]]:
    """A memory store with the history that the repository's HEAD reaches."""
    bars = git_history.Bars()
    with open_store("memory:", effects={git_programs.Progressed: bars.show}) as store:
        git_history.import_history(store, bars, git_reader.Repository(str(repo)), all_commits(repo)[-1])
        yield store, bars


# Names

ODD_NAMES = [
    b"caf\xe9",
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b"\xed\xa0\x80 surrogate",
    b"new\nline",
    b"tab\there",
    b'"quoted" \\ back',
    b"100%",
    b"100%25",
    b"-leading dash",
    b":(glob)*",
    b" spaces ",
    b"\x01\x7f\xc2\x85control",
    b"[red]markup[/red]",
    b"\x1b[31mescape",
    "Zürich/日本語/🎈".encode(),
    b"/".join([b"x" * 200] * 4 + [b"one"]),
    b"/".join([b"x" * 200] * 4 + [b"two"]),
    b"/".join([b"\xff" * 250] * 3),
]


def test_names_of_any_bytes_are_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "names")
    for number in range(3):
        builder.commit({name: file(f"{number} {index}") for index, name in enumerate(ODD_NAMES)})
    builder.commit(drop=tuple(ODD_NAMES[::2]))
    stdout = assert_proved(builder.build(), "--full", "--at", "HEAD~1", "--top", "50")
    assert "caf%E9" in stdout
    assert "[red]markup[/red]" in stdout
    assert "\x1b" not in stdout


@given(st.binary(min_size=1, max_size=700))
def test_the_name_of_a_path_is_a_valid_name_and_can_be_undone(path: bytes) -> None:
    name = git_programs.name_of(path)
    check_name("stream name", git_programs.PATHS + name)
    check_name("key", f"snapshot/{git_programs.FACTS}{git_programs.PATHS}{name}")
    check_name("key", f"{git_programs.CURRENT_BLOBS}{10**9}/{name}")
    assert unquote_to_bytes(name) == path or name.startswith("%sha256/")


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(git_history) == doctest.TestResults(failed=0, attempted=1)
    assert doctest.testmod(git_programs) == doctest.TestResults(failed=0, attempted=1)


def test_two_paths_never_share_a_name() -> None:
    assert len({git_programs.name_of(path) for path in ODD_NAMES}) == len(ODD_NAMES)


def test_authors_of_any_bytes_are_counted_and_printed_harmlessly(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "authors")
    builder.commit({b"a": file("1")}, author=b"Jos\xe9 <j@x>")
    builder.commit({b"a": file("2")}, author=b"Jos\xc3\xa9 <j@x>")
    builder.commit({b"a": file("3")}, author=b"\x1b[1m[bold] <b@x>")
    stdout = assert_proved(builder.build())
    assert "\x1b" not in stdout
    assert "Jos\\xe9 <j@x>" in stdout
    assert "José <j@x>" in stdout
    assert "[bold]" in stdout


# Answers


def test_changes_are_counted_for_their_authors_and_not_again_for_the_merge(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "who")
    root = builder.commit({b"a": file("0"), b"b": file("0")})
    left = builder.commit({b"b": file("1")}, parents=(root,))
    side = builder.commit({b"a": file("1")}, parents=(root,), author=b"Grace <g@x>")
    builder.commit({b"a": file("1")}, parents=(left, side))
    repo = builder.build()
    with imported(repo) as (store, bars):
        question = store.run(git_programs.ask_about(all_commits(repo)[-1:]))
        answers = git_history.answer(store, bars, question)
    ada, grace = "Ada <ada@example.org>", "Grace <g@x>"
    assert list(git_history.most_changed_paths(answers, 5)) == [("a", 2, 2), ("b", 2, 1)]
    assert list(git_history.who_changed_what(answers, 5)) == [(ada, 3, 3, 2, "b"), (grace, 1, 1, 1, "a")]


def test_a_commit_is_recorded_once(linear: Path) -> None:
    (first,) = git_reader.Repository(str(linear)).commits(all_commits(linear)[:1])
    with open_store("memory:", effects={git_programs.Progressed: lambda request: None}) as store:
        assert store.run(git_programs.record(first, 1)) == 2
        assert store.run(git_programs.record(first, 1)) == 0
        assert store.run(log.last_seq("commits")) == 1
        assert store.run(log.last_seq("path/a")) == 1


def test_kv_keeps_the_blob_ids_of_head_also_where_a_side_branch_came_later(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "current")
    root = builder.commit({b"a": file("0"), b"gone": file("0")})
    main = builder.commit({b"a": file("main")}, drop=(b"gone",), parents=(root,))
    side = builder.commit({b"a": file("side"), b"s": file("s")}, parents=(root,))
    builder.commit(parents=(main, side))
    repo = builder.build()
    with imported(repo) as (store, _):
        question = store.run(git_programs.ask_about(all_commits(repo)[-1:]))
        assert store.run(git_programs.keep_current_blobs(question)) == "blob/1/"
        assert store.run(kv.keys("blob/")) == ["blob/1/a"]
        assert store.run(kv.get("blob/1/a")) == ls_tree(repo, "HEAD")[b"a"].split()[1]


# Repositories of every kind


def test_an_empty_repository_is_proved_at_no_commits(tmp_path: Path) -> None:
    result = run(Builder(tmp_path / "empty").path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "there are no commits yet, and nothing to tell of"
    assert verdict(result.stdout) == (0, 0)


def test_a_bare_repository_is_proved(linear: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(linear), "bare.git")
    assert_proved(tmp_path / "bare.git")


def test_a_shallow_clone_is_proved_as_far_as_it_goes(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "deep")
    root = builder.commit({b"a": file("0"), b"b": file("0")})
    left = builder.commit({b"a": file("1")}, parents=(root,))
    right = builder.commit({b"b": file("1")}, parents=(root,))
    builder.commit({b"b": file("1")}, parents=(left, right))
    builder.commit({b"c": file("2")})
    deep = builder.build()
    for depth in (1, 2, 3):
        git(tmp_path, "clone", "--quiet", f"--depth={depth}", deep.as_uri(), f"shallow{depth}")
        assert_proved(tmp_path / f"shallow{depth}")


def test_a_sha256_repository_is_proved(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "sha256", "--object-format=sha256")
    builder.commit({b"a": file("1")})
    builder.commit({b"a": file("2")})
    assert_proved(builder.build())


def test_a_detached_head_is_proved(linear: Path) -> None:
    git(linear, "update-ref", "--no-deref", "HEAD", all_commits(linear)[1])
    git(linear, "checkout", "--quiet", "--detach", all_commits(linear)[-1])
    assert_proved(linear)


def test_a_directory_within_a_repository_stands_for_the_whole(linear: Path) -> None:
    inner = linear / "inner" / "most"
    inner.mkdir(parents=True)
    assert verdict(run(inner).stdout) == verdict(run(linear).stdout)


def test_no_configuration_of_the_user_changes_the_output(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "configured")
    root = builder.commit({b"a": file("some text to rename"), b"s": ("160000", b"1" * 40)})
    left = builder.commit({b"moved": file("some text to rename")}, drop=(b"a",), parents=(root,))
    right = builder.commit({b"s": ("160000", b"2" * 40)}, parents=(root,))
    builder.commit({b"s": ("160000", b"2" * 40)}, parents=(left, right))
    repo = builder.build()
    before = assert_proved(repo)
    settings = {
        "log.showRoot": "false",
        "log.showSignature": "true",
        "log.diffMerges": "combined",
        "log.decorate": "full",
        "diff.renames": "copies",
        "diff.ignoreSubmodules": "all",
        "diff.relative": "true",
        "color.ui": "always",
        "format.pretty": "oneline",
        "i18n.logOutputEncoding": "latin1",
        "core.abbrev": "4",
    }
    for name, value in settings.items():
        git(repo, "config", name, value)
    assert assert_proved(repo) == before


def test_replaced_objects_do_not_come_between(linear: Path) -> None:
    before = assert_proved(linear)
    first, second, _ = all_commits(linear)
    git(linear, "replace", second, first)
    assert run(linear).stdout == before


def test_the_environment_of_a_git_hook_does_not_lead_astray(
    linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(linear).stdout
    other = Builder(tmp_path / "other").path
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert run(linear).stdout == before


# --at


@pytest.mark.parametrize("name", ["HEAD~2", "main^", "v1"])
def test_at_shows_the_tree_at_a_commit_by_any_of_its_names(linear: Path, name: str) -> None:
    git(linear, "tag", "--annotate", "--message=one", "v1", "HEAD~1")
    commit = git(linear, "rev-parse", f"{name}^{{commit}}").decode()
    assert f"tree at {name}, {commit[:12]}: 2 paths" in assert_proved(linear, "--at", name)


@pytest.mark.parametrize("name", ["nowhere", "", "HEAD:a", "^HEAD", "HEAD..HEAD", "-x", "0" * 40, "HEAD^{tree}"])
def test_at_what_is_no_commit_is_a_one_line_error(linear: Path, name: str) -> None:
    assert_one_line_error(run(linear, f"--at={name}"), repr(name), "no commit")


def test_at_a_commit_that_head_does_not_reach_is_a_one_line_error(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "two branches")
    root = builder.commit({b"a": file("1")})
    builder.commit({b"a": file("2")}, parents=(root,), branch="elsewhere")
    builder.commit({b"a": file("3")}, parents=(root,))
    assert_one_line_error(run(builder.build(), "--at", "elsewhere"), "'elsewhere'", "cannot be reached from HEAD")


def test_at_in_an_empty_repository_is_a_one_line_error(tmp_path: Path) -> None:
    assert_one_line_error(run(Builder(tmp_path / "empty").path, "--at", "HEAD"), "'HEAD'", "no commit")


# What goes wrong


@pytest.mark.parametrize("name", ["not a repository", "missing", "a file", "", "-dash"])
def test_what_is_no_repository_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "not a repository").mkdir()
    (tmp_path / "a file").write_text("")
    result = CliRunner().invoke(git_history.app, ["--store=memory:", "--", name], catch_exceptions=False)
    assert_one_line_error(result, repr(name), "not a git repository")


def test_a_missing_git_is_a_one_line_error(linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_one_line_error(run(linear), "git cannot be run", "install git")


def test_a_damaged_branch_is_not_taken_for_an_empty_repository(linear: Path) -> None:
    (linear / ".git/refs/heads/main").write_text("damaged\n")
    assert_one_line_error(run(linear), "broken")


def test_a_damaged_history_is_a_one_line_error(linear: Path) -> None:
    tree = git(linear, "rev-parse", "HEAD~1^{tree}").decode().strip()
    loosen(linear)
    (linear / ".git/objects" / tree[:2] / tree[2:]).unlink()
    result = run(linear)
    assert result.exit_code == 2
    assert re.fullmatch(rf"git_history: git log failed: .*{tree}.*", result.stderr.splitlines()[-1])


def loosen(repo: Path) -> None:
    """Each object in a file of its own, so that a test can take one away."""
    for pack in list((repo / ".git/objects/pack").glob("*.pack")):
        content = pack.read_bytes()
        for part in (repo / ".git/objects/pack").glob(pack.stem + ".*"):
            part.unlink()
        git(repo, "unpack-objects", "-q", stdin=content)


def tampered(commits: Iterator[git_reader.Commit]) -> Iterator[git_reader.Commit]:
    """The same history, but of each second commit's first change another blob is told."""
    for number, commit in enumerate(commits, 1):
        if number == 2:
            change, *others = commit.changes
            changed = replace(change, leaf=f"100644 {'d' * 40}")
            yield replace(commit, changes=(changed, *others))
        else:
            yield commit


def test_a_wrong_event_makes_the_proof_fail_and_is_printed(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = git_reader.Repository.commits
    monkeypatch.setattr(git_reader.Repository, "commits", lambda self, ids: tampered(honest(self, ids)))
    result = run(linear)
    assert result.exit_code == 1
    right = ls_tree(linear, "HEAD")[b"a"]
    head, second = all_commits(linear)[2][:12], all_commits(linear)[1][:12]
    assert f"tree at {head}: a: expected {right}, found 100644 {'d' * 40}" in result.stdout
    assert f"tree at {second}: a: expected {right}, found 100644 {'d' * 40}" in result.stdout
    assert f"blob id in kv: a: expected {right.split()[1]}, found {'d' * 40}" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("not proved: ")


def test_a_missing_event_makes_the_proof_fail_and_is_printed(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = git_reader.Repository.commits

    def without_removals(self: git_reader.Repository, ids: list[str]) -> Iterator[git_reader.Commit]:
        for commit in honest(self, ids):
            yield replace(commit, changes=tuple(change for change in commit.changes if change.leaf is not None))

    monkeypatch.setattr(git_reader.Repository, "commits", without_removals)
    result = run(linear)
    assert result.exit_code == 1
    found = ls_tree(linear, "HEAD~1")[b"dir/b"]
    assert f"tree at {all_commits(linear)[2][:12]}: dir/b: expected None, found {found}" in result.stdout


def test_a_missing_commit_makes_the_proof_fail_and_is_printed(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = git_reader.Repository.commits
    monkeypatch.setattr(git_reader.Repository, "commits", lambda self, ids: honest(self, ids[-1:]))
    result = run(linear)
    assert result.exit_code == 1
    assert "commits: expected 3, found 1" in result.stdout


def test_answers_that_compaction_changes_make_the_proof_fail(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = git_history.compact_path

    def compact_and_tamper(question: Any, stream: str) -> Any:
        dropped = yield from honest(question, stream)
        planted = git_programs.Removed(b"a", question.targets[0], "Eve", in_merge=False)
        yield from log.append_many("path/a", [git_programs.HISTORY.draft(planted)])
        return dropped

    monkeypatch.setattr(git_history, "compact_path", compact_and_tamper)
    result = run(linear)
    assert result.exit_code == 1
    assert "after compaction: a: expected PathFacts" in result.stdout


def test_only_the_first_twenty_differences_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder(tmp_path / "many")
    builder.commit({b"f%02d" % number: file("x") for number in range(40)})
    honest = git_reader.Repository.tree
    monkeypatch.setattr(git_reader.Repository, "tree", lambda self, c: dict.fromkeys(honest(self, c), "100644 other"))
    lines = run(builder.build()).stdout.splitlines()
    assert len([line for line in lines if "expected 100644 other" in line]) == 20
    assert lines[-1].endswith("80 differences")


def test_an_interrupt_ends_in_one_line(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(git_history, "answer", interrupt)
    result = run(linear)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "git_history: interrupted"


# As a process


def run_process(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*SCRIPT, "--store", "memory:", *args]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=os.environ | environment,
    )


def test_it_runs_as_a_script_without_a_terminal(linear: Path) -> None:
    done = run_process(linear, CI="true")
    assert done.returncode == 0, done.stderr
    assert verdict(done.stdout) == (6, 3)
    assert "\x1b" not in done.stdout


def test_a_terminal_that_only_knows_ascii_does_not_end_the_run(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "ascii")
    builder.commit({"Zürich".encode(): file("x")})
    done = run_process(builder.build(), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Z\\xfcrich" in done.stdout


def test_control_c_while_git_is_read_ends_in_one_line_and_code_130(linear: Path, tmp_path: Path) -> None:
    # This git interrupts whoever started it, as soon as the history is asked for.
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\ncase "$*" in *--no-walk*) kill -INT $PPID;; esac\nexec {real} "$@"\n')
    fake.chmod(0o755)
    done = run_process(linear, PATH=f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "git_history: interrupted"


def test_a_run_that_dies_has_ended_its_git_by_the_time_that_it_is_told(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = git_reader.Repository(str(linear))
    commits = repository.commits(all_commits(linear))
    monkeypatch.setattr(repository, "commits", lambda _: commits)
    monkeypatch.setattr(git_history, "BATCH_SIZE", 1)
    with open_store("memory:", payload_limit_bytes=1) as store:
        with pytest.raises(ExceptionGroup) as caught:
            git_history.import_history(store, git_history.Bars(), repository, all_commits(linear)[-1])
        # Whoever holds the error holds the frames that it went through.
        assert caught.value.__traceback__ is not None
        assert inspect.getgeneratorstate(commits) == inspect.GEN_CLOSED


def test_control_c_anywhere_in_starting_and_reading_git_leaves_no_git_behind(linear: Path) -> None:
    repository = git_reader.Repository(str(linear))
    head = repository.head()
    assert head is not None
    ids = repository.commit_ids(head)
    files = (git_reader.__file__, subprocess.__file__, contextlib.__file__)

    def read() -> None:
        assert [commit.id for commit in repository.commits(ids)] == ids
        assert repository.head() == head

    with Interrupt(0, files) as counting:
        read()
    # Until Python knows of its child, what it has half-made is its own: see `subprocess.Popen._execute_child`.
    source = inspect.getsource(subprocess.Popen._execute_child)
    first = inspect.getsourcelines(subprocess.Popen._execute_child)[1]
    forked = first + source[: source.index("self._child_created = True")].count("\n") + 1
    places = {
        at: place
        for place, at in counting.firsts.items()
        if subprocess.__file__ not in place
        or (place.endswith("(_execute_child)") and int(place.split(":")[-1].split(" ")[0]) > forked)
        or place.endswith(("(communicate)", "(wait)", "(_wait)"))
    }
    assert any("_execute_child" in place for place in places.values())
    before = child_processes()
    for at in places:
        with Interrupt(at, files) as interrupt:
            try:
                read()
            except KeyboardInterrupt:
                pass
            else:
                # The last ones may be of lines that do not come each time.
                assert not interrupt.place, f"the interrupt at {interrupt.place} was lost"
        assert child_processes() <= before, interrupt.place


def test_who_reads_only_the_first_line_ends_the_run_quietly_with_code_141(linear: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*SCRIPT, "--store", "memory:", linear]
    with open(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 141, done.stderr
    assert "Broken pipe" not in done.stderr
    assert "Exception" not in done.stderr


# Where the tests of a change are run it is never left out.
@pytest.mark.skipif(
    not Path("/dev/full").exists() and "CI" not in os.environ, reason="there is no device that is always full"
)
def test_a_full_device_ends_in_one_line(linear: Path) -> None:
    command = [*SCRIPT, "--store", "memory:", linear]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == "git_history: the answers cannot be written: No space left on device"
    assert "Exception" not in done.stderr


def test_one_path_at_one_commit_is_said_so(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "one")
    builder.commit({b"a": file("1")})
    lines = assert_proved(builder.build()).splitlines()
    assert lines[0].endswith(": 1 path")
    assert lines[-1] == "proved: 1 path compared at 1 commit, mode and blob id, no difference"
