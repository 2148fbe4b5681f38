"""Traces in files, golden traces, and the trace of a real program: the git history example's."""

import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from git_repositories import Builder, file, quiet_git  # noqa: F401
from places import EXAMPLES

from interpreters import Store, open_store
from interpreters.traces import check_golden, load, save
from persist_effects import Diverged, InvalidRequest, Request, kv, log, perform
from persist_effects.requests import Answered, KvGet
from persist_effects.trace import Trace, as_text, compare, record, replay

sys.path.insert(0, str(EXAMPLES))

import git_programs
import git_reader


class FetchPrice(Request[int], frozen=True, tag="shop/fetch-price"):
    sku: str


def visit() -> Iterator[Any]:
    yield from kv.put("price", (yield from perform(FetchPrice("tea"))))
    return (yield from kv.get("price"))


def visited(price: int = 4) -> Trace:
    with open_store("memory:", effects={FetchPrice: lambda request: price}) as store:
        return record(visit, store.handlers)[1]


# Files


@pytest.mark.parametrize("name", ["visit.jsonl", "visit.trace", "visit"])
def test_a_trace_comes_back_from_a_file(tmp_path, name):
    path = tmp_path / "new" / "directory" / name
    save(visited(), path)
    assert load(path) == visited()
    assert load(str(path), kinds=[FetchPrice])[0].request == FetchPrice("tea")
    assert path.read_bytes().startswith(b'{"format"') == name.endswith(".jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_saving_replaces_the_file_whole_and_leaves_no_other(tmp_path):
    path = tmp_path / "visit.jsonl"
    save(visited(4), path)
    save(visited(5), path)
    assert load(path) == visited(5)
    assert [found.name for found in tmp_path.iterdir()] == ["visit.jsonl"]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path):
    path = tmp_path / "visit.jsonl"
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"a directory stands where .*visit\.jsonl"):
        save(visited(), path)
    with pytest.raises(IsADirectoryError, match=r"a directory stands where .*visit\.jsonl"):
        load(path)
    with pytest.raises(IsADirectoryError, match=r"a directory stands where .*visit\.jsonl"):
        check_golden(visited(), path)
    assert [found.name for found in tmp_path.iterdir()] == ["visit.jsonl"]


def test_what_is_no_trace_makes_no_directory(tmp_path):
    wrong: Any = record(visit, {})
    path = tmp_path / "new" / "visit.jsonl"
    for use in (lambda: save(wrong, path), lambda: check_golden(wrong, path, update=True)):
        with pytest.raises(InvalidRequest, match=r"give the trace: `outcome, trace = record\(\.\.\.\)`"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "data"), [("a.jsonl", b"{"), ("a.jsonl", b"\xff"), ("a.trace", b"garbage")])
def test_a_file_that_holds_no_trace_is_refused_by_its_name(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRequest, match=name):
        load(tmp_path / name)


# Golden traces


@pytest.mark.parametrize("name", ["visit.jsonl", "visit.trace"])
def test_a_trace_like_the_golden_one_is_good(tmp_path, name):
    check_golden(visited(), tmp_path / name, update=True)
    check_golden(visited(), tmp_path / name)
    check_golden(visited(), str(tmp_path / name))


def test_where_a_trace_differs_from_the_golden_one_is_told_with_how_to_mend_it(tmp_path):
    path = tmp_path / "visit.jsonl"
    check_golden(visited(4), path, update=True)
    with pytest.raises(AssertionError) as found:
        check_golden(visited(5), path)
    told = str(found.value).splitlines()
    assert "visit.jsonl (-: golden, +: now)" in told[0]
    assert told[1:4] == ["request 0:", "  - FetchPrice(sku='tea') → 4", "  + FetchPrice(sku='tea') → 5"]
    assert told[-1] == "if that is meant, write it anew: check_golden(trace, path, update=True)"
    check_golden(visited(5), path, update=True)
    check_golden(visited(5), path)


def test_a_golden_trace_that_is_missing_or_damaged_is_told_with_how_to_write_it(tmp_path):
    path = tmp_path / "visit.jsonl"
    with pytest.raises(AssertionError, match=r"there is no golden trace in .*update=True"):
        check_golden(visited(), path)
    path.write_text(visited().to_json_lines().replace("shop/fetch-price", "shop/fetch\n-price", 1))
    with pytest.raises(AssertionError, match=r"line 2: (.|\n)*update=True"):
        check_golden(visited(), path)


def test_a_golden_trace_of_an_earlier_version_of_the_package_is_good_still(tmp_path):
    path = tmp_path / "visit.jsonl"
    path.write_text(visited().to_json_lines().replace('"package":"0.1.0"', '"package":"0.0.7"'))
    check_golden(visited(), path)


# The git history example, without git and without a store


@pytest.fixture
def commits(tmp_path: Path) -> list[git_reader.Commit]:
    builder = Builder(tmp_path / "repository")
    builder.commit({b"a": file("1"), b"dir/b": file("1"), "Zürich".encode(): file("1")})
    builder.commit({b"a": file("2")}, author=b"Grace <grace@example.org>")
    builder.commit({b"c": file("3")}, drop=(b"dir/b",))
    builder.commit({b"d": file("4")}, parents=(2,))
    builder.commit({b"d": file("4")}, parents=(3, 4))
    repository = git_reader.Repository(str(builder.build()))
    head = repository.head()
    assert head is not None
    return list(repository.commits(repository.commit_ids(head)))


def history(commits: list[git_reader.Commit]) -> Any:
    """All that the example does with a store, as one program: it records, asks, follows, and compacts."""

    def program() -> Iterator[Any]:
        for number, commit in enumerate(commits, 1):
            yield from git_programs.record(commit, number)
        question = yield from git_programs.ask_about([commits[-1].id], others=2)
        streams = yield from log.streams(git_programs.PATHS)
        facts = []
        for stream in streams:
            facts += [(yield from git_programs.facts_of(question, stream))]
        prefix = yield from git_programs.keep_current_blobs(question)
        blobs = yield from kv.keys(prefix)
        for stream in streams:
            yield from git_programs.compact_path(question, stream)
        authors = yield from git_programs.refreshed_authors(question)
        return git_programs.answers_of(question, facts, authors), blobs

    return program


def opened(url: str) -> Store:
    effects = {git_programs.Progressed: lambda request: None}
    return open_store(url, effects=effects, clock=lambda: 1_700_000_000_000_000)


def test_the_git_history_is_replayed_without_a_store_and_compares_with_every_store(commits, tmp_path):
    with opened("memory:") as store:
        outcome, trace = record(history(commits), store.handlers)
    assert isinstance(outcome, Answered)
    answers, blobs = outcome.value
    assert len(answers.tree(commits[-1].id)) == len(blobs) == 4
    assert len(trace) > 50
    for again in (trace, Trace.decode(trace.encode()), Trace.from_json_lines(trace.to_json_lines())):
        assert replay(history(commits), again) == outcome.value
    for number, url in enumerate(
        ("memory:", f"file:{tmp_path / 'one'}", f"file:{tmp_path / 'two'}?segment_bytes=4096")
    ):
        with opened(url) as store:
            assert as_text(compare(trace, store)) == "no difference", f"{number}: {url}"
    with opened(f"file:{tmp_path / 'three'}") as store:
        assert record(history(commits), store.handlers) == (outcome, trace)


def test_another_history_diverges_from_the_recorded_one(commits):
    with opened("memory:") as store:
        _, trace = record(history(commits), store.handlers)
    with pytest.raises(Diverged) as found:
        replay(history(commits[:1] + commits[2:]), trace)
    assert commits[1].id in found.value.expected
    assert "git_programs.py" in found.value.source


def test_a_store_that_forgets_one_answer_is_found_at_that_request(commits):
    with opened("memory:") as store:
        _, trace = record(history(commits), store.handlers)
    gets = [index for index, one in enumerate(trace) if isinstance(one.request, KvGet)]
    forgotten = next(index for index in gets if trace[index].outcome != Answered(None))
    asked: list[KvGet] = []
    with opened("memory:") as store:
        honest = store.handlers[KvGet]

        def forgetting(request: KvGet) -> Any:
            asked.append(request)
            return None if gets[len(asked) - 1] == forgotten else honest(request)

        (difference,) = compare(trace, {**store.handlers, KvGet: forgetting})
    assert difference.index == forgotten
    assert difference.second is not None
    assert difference.second.outcome == Answered(None)
